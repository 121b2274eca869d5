//! The head of the upgrade request, passed on with the hub's host and without compression, otherwise unchanged.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::TargetRewriter;

/// The longest head of a request or an answer in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// How long a client may take to send its request.
pub(super) const REQUEST_TIME: Duration = Duration::from_secs(10);

/// Reads up to the empty line, and returns the head and the bytes after it. If the stream ends earlier, or the head is
/// too long, the head is empty and all bytes are the rest.
pub(super) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_HEAD {
        if stream.read_buf(&mut bytes).await? == 0 {
            break;
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((bytes, rest));
        }
    }
    Ok((Vec::new(), bytes))
}

/// Reads the head of a request like [`read_head`], within [`REQUEST_TIME`].
pub(super) async fn read_request_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Vec<u8>, Vec<u8>)> {
    timeout(REQUEST_TIME, read_head(stream)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// Rewrites a request for another host and target, without the offer of compression. Leaves a target unchanged that does
/// not begin with a slash.
pub(super) fn redirect_request(head: &[u8], authority: &str, target: &TargetRewriter) -> Vec<u8> {
    let mut out = Vec::with_capacity(head.len());
    for (index, line) in head.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if index == 0 {
            let mut words = line.splitn(3, |byte| *byte == b' ');
            match (words.next(), words.next().map(String::from_utf8_lossy), words.next()) {
                (Some(method), Some(asked), Some(rest)) if asked.starts_with('/') => {
                    out.extend([method, b" ", target(&asked).as_bytes(), b" ", rest].concat());
                }
                _ => out.extend_from_slice(line),
            }
        } else if name.eq_ignore_ascii_case(b"host") {
            out.extend_from_slice(format!("Host: {authority}\r\n").as_bytes());
        } else if !name.eq_ignore_ascii_case(b"sec-websocket-extensions") {
            out.extend_from_slice(line);
        }
    }
    out
}

/// Whether a web page that does not come from this machine sends a request.
pub(super) fn is_of_foreign_page(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head);
    let headers = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let mut origins = headers.filter(|(name, _)| name.eq_ignore_ascii_case("origin"));
    origins.any(|(_, origin)| !crate::server::is_local(origin.trim().split_once("://").map_or("", |(_, host)| host)))
}

/// Whether a hub grants the upgrade.
pub(super) fn grants_upgrade(head: &[u8]) -> bool {
    let status = head.split(|byte| *byte == b' ').nth(1);
    status == Some(b"101")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_head_of_a_request_ends_at_the_empty_line() {
        let mut stream: &[u8] = b"GET / HTTP/1.1\r\nA: b\r\n\r\nmore";
        let (head, rest) = read_head(&mut stream).await.unwrap();
        assert_eq!((head.len(), rest.as_slice()), (24, &b"more"[..]));
        let mut endless = tokio::io::repeat(b'x');
        let (head, rest) = read_head(&mut endless).await.unwrap();
        assert!(head.is_empty() && rest.len() >= MAX_HEAD && rest.len() < 2 * MAX_HEAD);
    }

    #[test]
    fn a_relayed_request_names_host_and_target_of_the_hub() {
        let head = b"GET /ws?a=b HTTP/1.1\r\nhost: relay\r\nSec-WebSocket-Extensions: x\r\nX-Odd:  kept\r\n\r\n";
        let target: TargetRewriter = std::sync::Arc::new(|asked| format!("/api{asked}"));
        let sent = redirect_request(head, "hub:4000", &target);
        let expected = "GET /api/ws?a=b HTTP/1.1\r\nHost: hub:4000\r\nX-Odd:  kept\r\n\r\n";
        assert_eq!(String::from_utf8(sent).unwrap(), expected);
        // No target of this server, and not HTTP.
        for odd in [&b"GET http://hub/ws HTTP/1.1\r\n\r\n"[..], b"OPTIONS * HTTP/1.1\r\n\r\n", b"GET\r\n\r\n"] {
            assert_eq!(redirect_request(odd, "hub:4000", &target), odd);
        }
    }

    #[test]
    fn pages_of_other_machines_are_recognised() {
        let request = |origin: &str| format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\n{origin}\r\n").into_bytes();
        for local in
            ["", "Origin: http://localhost:3000\r\n", "origin:https://127.0.0.1\r\n", "Origin: http://[::1]:5\r\n"]
        {
            assert!(!is_of_foreign_page(&request(local)), "{local}");
        }
        for foreign in ["Origin: https://evil.example\r\n", "Origin: null\r\n", "Origin: http://localhost.evil:1\r\n"] {
            assert!(is_of_foreign_page(&request(foreign)), "{foreign}");
        }
    }

    #[test]
    fn the_answer_to_an_upgrade_is_read() {
        assert!(grants_upgrade(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"));
        assert!(!grants_upgrade(b"HTTP/1.1 401 No\r\n\r\n") && !grants_upgrade(b""));
    }
}
