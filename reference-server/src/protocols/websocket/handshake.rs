//! The server's side of the upgrade: RFC 6455, section 4.2.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::fault::MachineFault;

/// The longest head of a request in bytes.
pub const MAX_HEAD: usize = 16 * 1024;

/// The head of a request; header names in lower case.
pub struct UpgradeRequest {
    method: String,
    version: String,
    headers: Vec<(String, String)>,
}

impl UpgradeRequest {
    /// Reads a head without its last, empty line. Lines that are not headers are ignored.
    pub fn parse(head: &str) -> UpgradeRequest {
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let version = words.nth(1).unwrap_or_default().to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        UpgradeRequest { method, version, headers }
    }

    fn header_values<'a>(&'a self, name: &'a str, exact: bool) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(known, _)| if exact { known == name } else { known.eq_ignore_ascii_case(name) })
            .map(|(_, value)| value.as_str())
    }
}

/// Returns the bytes of the answer to a request, and whether it grants the upgrade.
pub fn answer_upgrade(request: &UpgradeRequest, broken: MachineFault) -> (Vec<u8>, bool) {
    if broken.is("websocket-answer-not-http") {
        return (b"SSH-2.0-hub\r\n".to_vec(), false);
    }
    if broken.is("websocket-hangs-up") {
        return (Vec::new(), false);
    }
    match refusal_reason(request, broken) {
        Some((status, more)) => (refusal_response(status, more, broken), false),
        None => (grant_response(request, broken), true),
    }
}

/// Returns the reason of a refusal, if any: a status, and a header that explains it.
fn refusal_reason(request: &UpgradeRequest, broken: MachineFault) -> Option<(&'static str, &'static str)> {
    let exact = broken.is("websocket-header-names-case-sensitive");
    let get = |name| request.header_values(name, exact).next();
    let has_token = |name, token: &str| {
        request.header_values(name, exact).flat_map(|value| value.split(',')).any(|word| {
            if broken.is("websocket-tokens-case-sensitive") {
                word.trim() == token
            } else {
                word.trim().eq_ignore_ascii_case(token)
            }
        })
    };
    const BAD: (&str, &str) = ("400 Bad Request", "");
    if request.method != "GET" && !broken.is("websocket-post-upgraded") {
        return Some(("405 Method Not Allowed", "Allow: GET\r\n"));
    }
    if request.version != "HTTP/1.1" && !broken.is("websocket-http-1.0-upgraded") {
        return Some(BAD);
    }
    if get("Host").is_none() && !broken.is("websocket-host-optional") {
        return Some(BAD);
    }
    let upgrade = match get("Upgrade") {
        None => broken.is("websocket-upgrade-optional"),
        Some(_) => broken.is("websocket-upgrade-unread") || has_token("Upgrade", "websocket"),
    };
    if !upgrade {
        return Some(("426 Upgrade Required", "Upgrade: websocket\r\n"));
    }
    let connection = match get("Connection") {
        None => broken.is("websocket-connection-optional"),
        Some(value) if broken.is("websocket-connection-alone") => value.eq_ignore_ascii_case("upgrade"),
        Some(_) => broken.is("websocket-connection-unread") || has_token("Connection", "Upgrade"),
    };
    if !connection {
        return Some(BAD);
    }
    let version = match get("Sec-WebSocket-Version") {
        None => broken.is("websocket-version-optional"),
        Some(version) => version == "13" || broken.is("websocket-version-unread"),
    };
    if !version {
        let header = if broken.is("websocket-version-untold") { "" } else { "Sec-WebSocket-Version: 13\r\n" };
        return Some(("426 Upgrade Required", header));
    }
    match get("Sec-WebSocket-Key") {
        None if broken.is("websocket-key-optional") => None,
        Some(_) if broken.is("websocket-key-unread") => None,
        Some(key) if BASE64_STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16) => None,
        _ => Some(BAD),
    }
}

fn refusal_response(status: &str, more: &str, broken: MachineFault) -> Vec<u8> {
    let status = if broken.is("websocket-refuses-with-200") { "200 OK" } else { status };
    let text = "this hub speaks WebSocket\n";
    format!("HTTP/1.1 {status}\r\n{more}Connection: close\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_bytes()
}

fn grant_response(request: &UpgradeRequest, broken: MachineFault) -> Vec<u8> {
    let key = request.header_values("Sec-WebSocket-Key", false).next().unwrap_or_default();
    let accept = if broken.is("websocket-accept-of-another-key") {
        derive_accept_key(b"dGhlIHNhbXBsZSBub25jZQ==")
    } else if broken.is("websocket-accept-is-the-key") {
        key.to_owned()
    } else {
        derive_accept_key(key.as_bytes())
    };
    let mut offered =
        request.header_values("Sec-WebSocket-Protocol", false).flat_map(|value| value.split(',')).map(str::trim);
    let offered: Vec<&str> = offered.by_ref().filter(|name| !name.is_empty()).collect();
    let subprotocol = if broken.is("websocket-subprotocol-unasked") {
        Some("chat".to_owned())
    } else if broken.is("websocket-subprotocol-invented") && !offered.is_empty() {
        Some(format!("{}2", offered[0]))
    } else if broken.is("websocket-subprotocol-all") && !offered.is_empty() {
        Some(offered.join(", "))
    } else {
        // The hub uses no subprotocol, so any of them will do.
        offered.first().map(|name| (*name).to_owned())
    };
    let mut lines = vec!["HTTP/1.1 101 Switching Protocols".to_owned()];
    if broken.is("websocket-answers-other-upgrade") {
        lines.push("Upgrade: h2c".to_owned());
    } else if !broken.is("websocket-answers-without-upgrade") {
        lines.push("Upgrade: websocket".to_owned());
    }
    if broken.is("websocket-answers-connection-close") {
        lines.push("Connection: close".to_owned());
    } else if !broken.is("websocket-answers-without-connection") {
        lines.push("Connection: Upgrade".to_owned());
    }
    if !broken.is("websocket-answers-without-accept") {
        lines.push(format!("Sec-WebSocket-Accept: {accept}"));
    }
    lines.extend(subprotocol.map(|name| format!("Sec-WebSocket-Protocol: {name}")));
    if broken.is("websocket-extension-unasked") {
        lines.push("Sec-WebSocket-Extensions: permessage-deflate".to_owned());
    }
    format!("{}\r\n\r\n", lines.join("\r\n")).into_bytes()
}
