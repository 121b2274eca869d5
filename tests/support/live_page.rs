//! A reader of the live page of a running load run.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::process::RunningProcess;

/// A request without keep-alive, and the whole answer.
pub fn ask(address: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut stream = open(address, method, path, headers);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{answer}")), answer)
}

fn open(address: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        head.push_str(&format!("Host: {address}\r\n"));
    }
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    write!(stream, "{head}Content-Length: 0\r\n\r\n").unwrap();
    stream
}

/// A reader of the events of a page.
pub struct EventReader(BufReader<TcpStream>);

impl EventReader {
    pub fn open(address: &str, token: &str) -> Self {
        Self(BufReader::new(open(address, "GET", &format!("/events?token={token}"), &[])))
    }

    /// Reads the next update. Returns `None` at the end of the stream.
    pub fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        while self.0.read_line(&mut line).unwrap() > 0 {
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).unwrap());
            }
            line.clear();
        }
        None
    }

    /// Reads updates until `is` accepts one, and returns it.
    pub fn find(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        std::iter::from_fn(|| self.next()).find(is).unwrap_or_else(|| panic!("no update is {what}"))
    }
}

/// Waits until a process has printed the URL of its live page; returns its address and token.
pub fn live_page_of(run: &RunningProcess) -> (String, String) {
    let said = run.wait_for_stderr("token=");
    let said = if said.contains('\n') { said } else { run.wait_for_stderr("\n") };
    let url = said.lines().find_map(|line| line.strip_prefix("live page on http://")).unwrap();
    let (address, token) = url.split_once("/?token=").unwrap();
    (address.to_owned(), token.to_owned())
}
