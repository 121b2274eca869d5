//! Hubs without WebSocket: the same scenarios, fuzz cases and load over lines, and over ZeroMQ.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use tokio_tungstenite::tungstenite::{self, Message};

use crate::support::process::{ServeProcess, free_port, hubproof};

/// Serves lines: passes each on to a hub over WebSocket, and back what the hub answers. Returns the address.
fn lines_before(hub: &ServeProcess) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let url = hub.url("qi").to_owned();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, url) = (stream.unwrap(), url.clone());
            // Ends when either side does.
            thread::spawn(move || pass_lines_on(&stream, &url));
        }
    });
    format!("tcp+lines://{address}")
}

/// Every request of qi has one reply.
fn pass_lines_on(mut stream: &TcpStream, url: &str) -> Option<()> {
    let (mut hub, _) = tungstenite::connect(url).ok()?;
    for line in BufReader::new(stream.try_clone().ok()?).lines() {
        hub.send(Message::text(line.ok()?)).ok()?;
        let answer = hub.read().ok()?.into_text().ok()?;
        stream.write_all(format!("{answer}\n").as_bytes()).ok()?;
    }
    None
}

#[test]
fn scenarios_cases_and_load_reach_a_hub_over_lines() {
    let hub = ServeProcess::start(["qi"], 1);
    let address = lines_before(&hub);
    let known = ["--protocol", "qi", "--set", "ok_command=get_static", "--set", "plain_command=ping"];
    let scenarios = ["--scenario", "qi/base", "--scenario", "qi/sessions", "--scenario", "qi/leavers"];
    let checked = hubproof(["check", &address].iter().chain(&known).chain(&scenarios)).assert_exit_code(0);
    assert!(checked.out.contains("unmet need `WebSocket"), "{}", checked.out);
    assert!(checked.out.contains(&format!("against {address}")), "{}", checked.out);
    let fuzzed = hubproof(["fuzz", &address, "--cases", "60", "--seed", "3"].iter().chain(&known));
    assert_eq!(fuzzed.code, Some(0), "{}", fuzzed.out);
    let framed = hubproof(["fuzz", &address, "--mutation", "unmasked"].iter().chain(&known)).assert_exit_code(2);
    assert!(framed.err.contains("no case has the mutation unmasked"), "{}", framed.err);
    let plan = ["--duration", "1s", "--warm-up", "200ms", "--ramp", "100ms"];
    let loaded = hubproof(["load", &address].iter().chain(&known[..2]).chain(&plan));
    // A busy machine may send some messages late, which is no fault of the carrier.
    let is_late = loaded.code == Some(3)
        && loaded.out.matches("invalid[").count() == loaded.out.matches("invalid[send-delay]").count();
    assert!(loaded.code == Some(0) || is_late, "{} {}", loaded.out, loaded.err);
    assert!(loaded.out.contains("  errors      none\n"), "{}", loaded.out);
    let dead = format!("tcp://127.0.0.1:{}", free_port());
    let failed = hubproof(["load", &dead].iter().chain(&known[..2]).chain(&plan)).assert_exit_code(3);
    assert!(failed.err.contains(&format!("failed to connect to {dead}: nothing listens")), "{}", failed.err);
}
