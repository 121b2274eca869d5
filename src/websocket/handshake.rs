//! RFC 6455's upgrade, both sides, on bytes alone: section 4.1 for clients, 4.2 for servers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest, Sha1};

use crate::websocket::frame::ConnectionEvent;

/// The most bytes of an HTTP head: twice the limit of common servers, so no correct hub exceeds it.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// The most header lines in a head.
const MAX_HEADER_LINES: usize = 100;
/// The most bytes of a refusal's body that are kept.
pub const MAX_BODY_BYTES: usize = 4 << 10;

/// The most characters of a reason, and of the quotations that describe a refusal.
const MAX_REASON_CHARS: usize = 400;
const MAX_QUOTED_CHARS: usize = 160;
/// The GUID from which the accept value is computed (RFC 6455, section 1.3).
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

pub type HeaderList = Vec<(String, String)>;

/// Received bytes that are not an HTTP head within the limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpHeadError {
    #[error("it is TLS, not plain text: should the address be wss:// instead of ws://?")]
    Tls,
    #[error("it begins with {0}, which is not HTTP")]
    NotHttp(String),
    #[error("its head has more than {MAX_HEAD_BYTES} bytes, hubproof's limit")]
    TooLong,
    #[error("its head has more than {MAX_HEADER_LINES} lines, hubproof's limit")]
    TooMany,
}

impl HttpHeadError {
    /// Whether the head may be valid HTTP but exceeds a limit.
    pub fn exceeds_limit(&self) -> bool {
        matches!(self, Self::TooLong | Self::TooMany)
    }
}

/// The head of an HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    pub status: u16,
    pub headers: HeaderList,
    /// The length of the head in bytes.
    pub length: usize,
}

/// The head of an upgrade request that a hub has sent to a listening actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    pub method: String,
    pub target: String,
    /// The minor version of HTTP: 1 for HTTP/1.1.
    pub minor_version: u8,
    pub headers: HeaderList,
    pub length: usize,
}

/// Generates a `Sec-WebSocket-Key`.
pub fn generate_key() -> String {
    BASE64.encode(rand::random::<[u8; 16]>())
}

/// Computes the accept value for `key` (RFC 6455, section 4.2.2, item 5.4).
pub fn accept_key(key: &str) -> String {
    BASE64.encode(Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize())
}

/// Parses the head of an answer. `None`: more bytes are needed.
///
/// # Errors
/// The bytes are not an HTTP/1 head within the limits.
pub fn parse_response_head(bytes: &[u8]) -> Result<Option<ResponseHead>, HttpHeadError> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADER_LINES];
    let mut response = httparse::Response::new(&mut lines);
    let Some(length) = head_length(bytes, response.parse(bytes))? else { return Ok(None) };
    let headers = to_owned_headers(response.headers);
    Ok(Some(ResponseHead { status: response.code.unwrap_or_default(), headers, length }))
}

/// Checks the answer to an upgrade request as RFC 6455, section 4.1, demands. Returns `Upgraded`, or `Refused` with the
/// first reason found; the caller adds the body of a refusal.
pub fn judge_response(head: ResponseHead, key: &str, offered: &[String]) -> ConnectionEvent {
    let ResponseHead { status, headers, .. } = head;
    match refusal_reason(status, &headers, key, offered) {
        Some(mut reason) => {
            // The reason may quote a header of up to 16 KiB.
            if let Some((end, _)) = reason.char_indices().nth(MAX_REASON_CHARS) {
                reason.truncate(end);
                reason.push_str("...");
            }
            ConnectionEvent::Refused { status, headers, body: Vec::new(), reason }
        }
        None => {
            let subprotocol = find_header(&headers, "Sec-WebSocket-Protocol").map(str::to_owned);
            ConnectionEvent::Upgraded { status, headers, subprotocol }
        }
    }
}

fn refusal_reason(status: u16, headers: &HeaderList, key: &str, offered: &[String]) -> Option<String> {
    if status != 101 {
        return Some(status_refusal_reason(status, headers));
    }
    let unlike = |name: &str, value: Option<&str>, wanted: &str| {
        let section = "RFC 6455, section 4.1";
        Some(match value {
            None => format!("101, but without the header `{name}: {wanted}` ({section})"),
            Some(value) => format!("101, but with `{name}: {value}` instead of `{wanted}` ({section})"),
        })
    };
    let upgrade = join_header(headers, "Upgrade");
    if !upgrade.as_deref().is_some_and(|value| value.eq_ignore_ascii_case("websocket")) {
        return unlike("Upgrade", upgrade.as_deref(), "websocket");
    }
    let connection = join_header(headers, "Connection");
    if !has_token(headers, "Connection", "upgrade") {
        return unlike("Connection", connection.as_deref(), "Upgrade");
    }
    let (accept, wanted) = (join_header(headers, "Sec-WebSocket-Accept"), accept_key(key));
    if accept.as_ref() != Some(&wanted) {
        return unlike("Sec-WebSocket-Accept", accept.as_deref(), &wanted);
    }
    if let Some(extensions) = join_header(headers, "Sec-WebSocket-Extensions").filter(|value| !value.is_empty()) {
        return Some(format!(
            "101, but with the extension `{extensions}`, although none was offered (RFC 6455, section 4.1)"
        ));
    }
    match header_values(headers, "Sec-WebSocket-Protocol").collect::<Vec<_>>()[..] {
        [] => None,
        [selected] if offered.iter().any(|name| name == selected) => None,
        [selected] if selected.contains(',') => Some(format!(
            "101, but with several subprotocols, `{selected}`; a server must select one (RFC 6455, section 4.2.2)"
        )),
        [selected] if offered.is_empty() => Some(format!(
            "101, but with the subprotocol `{selected}`, although none was offered (RFC 6455, section 4.1)"
        )),
        [selected] => {
            let offered = offered.join(", ");
            Some(format!(
                "101, but with the subprotocol `{selected}`, although only `{offered}` was offered (RFC 6455, section 4.1)"
            ))
        }
        _ => Some("101, but with more than one Sec-WebSocket-Protocol header (RFC 6455, section 11.3.4)".to_owned()),
    }
}

fn status_refusal_reason(status: u16, headers: &HeaderList) -> String {
    let advice = match status {
        300..400 => {
            return match find_header(headers, "Location") {
                Some(to) => {
                    format!("HTTP {status} redirects to {to}, but redirects are not followed: use that address instead")
                }
                None => format!("HTTP {status} redirects without saying where (no Location header)"),
            };
        }
        200..300 => "does a WebSocket server listen there?",
        400 => "does the hub need a header, a query or a subprotocol that was not sent?",
        401 | 403 => "is a token or a secret missing or wrong?",
        404 | 405 | 410 => "is the path right?",
        426 => "does the hub need another subprotocol or WebSocket version?",
        429 | 503 => "is the hub busy, or are there too many connections?",
        502 | 504 => "a proxy answered, but not the hub behind it: is the hub running?",
        500..600 => "the server failed; its log may say why; is the path right?",
        _ => return format!("HTTP {status} instead of 101"),
    };
    format!("HTTP {status} instead of 101: {advice}")
}

/// Describes a refused upgrade for the user: the reason found by [`judge_response`], the credentials that the hub asks
/// for, the start of its body, and how to send what it may want.
pub fn describe_refusal(reason: &str, status: u16, headers: &HeaderList, body: &[u8]) -> String {
    let mut text = reason.to_owned();
    let mut add_sentence = |sentence: &str| {
        text.push_str(if text.ends_with('?') { " " } else { ". " });
        text.push_str(sentence);
    };
    if let Some(wanted) = join_header(headers, "WWW-Authenticate").and_then(|wanted| quote_start(&wanted)) {
        add_sentence(&format!("The hub asks for {wanted} (WWW-Authenticate)"));
    }
    if let Some(start) = quote_start(&String::from_utf8_lossy(body)) {
        add_sentence(&format!("Its body begins with {start}"));
    }
    if matches!(status, 400 | 401 | 403 | 407 | 426) {
        add_sentence(
            "If the hub needs a header, a query or a subprotocol, declare it in the target file: \
             `upgrade = { headers = { NAME = \"VALUE\" } }` under `[[deviation]]`",
        );
    }
    text
}

/// Quotes the start of a text in one line; `None` if the text is blank.
fn quote_start(text: &str) -> Option<String> {
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = words.char_indices().nth(MAX_QUOTED_CHARS) {
        words.truncate(end);
        words.push_str("...");
    }
    (!words.is_empty()).then(|| format!("`{words}`"))
}

/// Returns the body of a refusal, given the bytes after its head. The body is cut at [`MAX_BODY_BYTES`]; the second
/// value is whether it is complete or has that length.
pub fn refusal_body(head: &ResponseHead, bytes: &[u8]) -> (Vec<u8>, bool) {
    if matches!(head.status, 101 | 204 | 304) {
        return (Vec::new(), true);
    }
    if has_token(&head.headers, "Transfer-Encoding", "chunked") {
        return decode_chunked(bytes);
    }
    let announced = find_header(&head.headers, "Content-Length").and_then(|length| length.parse().ok());
    let wanted = announced.unwrap_or(MAX_BODY_BYTES).min(MAX_BODY_BYTES);
    (bytes[..bytes.len().min(wanted)].to_vec(), bytes.len() >= wanted)
}

fn decode_chunked(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        match httparse::parse_chunk_size(bytes) {
            Ok(httparse::Status::Complete((_, 0))) | Err(_) => return (body, true),
            Ok(httparse::Status::Partial) => return (body, false),
            Ok(httparse::Status::Complete((start, size))) => {
                let rest = &bytes[start..];
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                body.extend_from_slice(&rest[..rest.len().min(size).min(MAX_BODY_BYTES - body.len())]);
                if body.len() == MAX_BODY_BYTES {
                    return (body, true);
                }
                // The line break after the chunk belongs to it.
                match rest.get(size.saturating_add(2)..) {
                    Some(next) => bytes = next,
                    None => return (body, false),
                }
            }
        }
    }
}

/// Parses the head of an upgrade request; returns `None` if more bytes are needed.
///
/// # Errors
/// The bytes are not an HTTP/1 head within the limits.
pub fn parse_request_head(bytes: &[u8]) -> Result<Option<RequestHead>, HttpHeadError> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADER_LINES];
    let mut request = httparse::Request::new(&mut lines);
    let Some(length) = head_length(bytes, request.parse(bytes))? else { return Ok(None) };
    Ok(Some(RequestHead {
        method: request.method.unwrap_or_default().to_owned(),
        target: request.path.unwrap_or_default().to_owned(),
        minor_version: request.version.unwrap_or_default(),
        headers: to_owned_headers(request.headers),
        length,
    }))
}

/// Answers an upgrade request as RFC 6455, section 4.2, demands. Returns the response and the event: `Upgraded`, or
/// `Violation` with the first error. Selects the first subprotocol, in the client's order, that is among `spoken`.
pub fn answer_request(head: RequestHead, spoken: &[String]) -> (Vec<u8>, ConnectionEvent) {
    if let Some(what) = request_fault(&head) {
        let version = if find_header(&head.headers, "Sec-WebSocket-Version") == Some("13") {
            ""
        } else {
            "Sec-WebSocket-Version: 13\r\n"
        };
        let status = if version.is_empty() { "400 Bad Request" } else { "426 Upgrade Required" };
        let answer =
            format!("HTTP/1.1 {status}\r\n{version}Connection: close\r\nContent-Length: {}\r\n\r\n{what}", what.len());
        return (answer.into_bytes(), ConnectionEvent::Violation { what, section: "4.1", bound: false });
    }
    let subprotocol = header_tokens(&head.headers, "Sec-WebSocket-Protocol")
        .find(|offered| spoken.iter().any(|name| name == offered));
    let subprotocol = subprotocol.map(str::to_owned);
    let accept = accept_key(head.key());
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
    );
    if let Some(selected) = &subprotocol {
        answer.push_str(&format!("Sec-WebSocket-Protocol: {selected}\r\n"));
    }
    answer.push_str("\r\n");
    let mut headers = vec![(":path".to_owned(), head.target)];
    headers.extend(head.headers);
    (answer.into_bytes(), ConnectionEvent::Upgraded { status: 101, headers, subprotocol })
}

impl RequestHead {
    /// Returns the key of the upgrade; empty if there is none.
    pub fn key(&self) -> &str {
        find_header(&self.headers, "Sec-WebSocket-Key").unwrap_or_default()
    }

    /// Returns the offered subprotocols.
    pub fn subprotocols(&self) -> Vec<String> {
        header_tokens(&self.headers, "Sec-WebSocket-Protocol").map(str::to_owned).collect()
    }
}

/// Returns what is wrong with an upgrade request.
pub fn request_fault(head: &RequestHead) -> Option<String> {
    let RequestHead { method, minor_version, headers, .. } = head;
    let fault = if method != "GET" {
        format!("the method is {method}, not GET")
    } else if *minor_version < 1 {
        "the version is HTTP/1.0, not 1.1".to_owned()
    } else if find_header(headers, "Host").is_none() {
        "the Host header is missing".to_owned()
    } else if !has_token(headers, "Upgrade", "websocket") {
        "the header `Upgrade: websocket` is missing".to_owned()
    } else if !has_token(headers, "Connection", "upgrade") {
        "the header `Connection: Upgrade` is missing".to_owned()
    } else if find_header(headers, "Sec-WebSocket-Version") != Some("13") {
        "the header `Sec-WebSocket-Version: 13` is missing".to_owned()
    } else if !matches!(header_values(headers, "Sec-WebSocket-Key").collect::<Vec<_>>()[..], [key] if is_key(key)) {
        "it does not have exactly one Sec-WebSocket-Key of 16 bytes in base64".to_owned()
    } else {
        return None;
    };
    Some(format!("an invalid upgrade request: {fault}"))
}

fn is_key(key: &str) -> bool {
    BASE64.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

/// Converts httparse's result for a head.
fn head_length(bytes: &[u8], parsed: httparse::Result<usize>) -> Result<Option<usize>, HttpHeadError> {
    match parsed {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD_BYTES => Ok(Some(length)),
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD_BYTES => Ok(None),
        Ok(_) => Err(HttpHeadError::TooLong),
        Err(httparse::Error::TooManyHeaders) => Err(HttpHeadError::TooMany),
        // The start of a TLS record: an alert (0x15) or a handshake (0x16), major version 3.
        Err(_) if matches!(bytes, [0x15 | 0x16, 3, ..]) => Err(HttpHeadError::Tls),
        Err(_) => {
            let start = bytes[..bytes.len().min(24)].escape_ascii();
            Err(HttpHeadError::NotHttp(format!("\"{start}\"")))
        }
    }
}

fn to_owned_headers(headers: &[httparse::Header<'_>]) -> HeaderList {
    headers
        .iter()
        .map(|header| (header.name.to_owned(), String::from_utf8_lossy(header.value).trim().to_owned()))
        .collect()
}

fn header_values<'a>(headers: &'a HeaderList, name: &str) -> impl Iterator<Item = &'a str> {
    headers.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

pub(super) fn find_header<'a>(headers: &'a HeaderList, name: &str) -> Option<&'a str> {
    header_values(headers, name).next()
}

/// Joins the values of repeated headers by commas (RFC 9110, section 5.3).
fn join_header(headers: &HeaderList, name: &str) -> Option<String> {
    let values: Vec<_> = header_values(headers, name).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn header_tokens<'a>(headers: &'a HeaderList, name: &str) -> impl Iterator<Item = &'a str> {
    header_values(headers, name).flat_map(|value| value.split(',')).map(str::trim)
}

fn has_token(headers: &HeaderList, name: &str, wanted: &str) -> bool {
    header_tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::dial::Dial;
    use proptest::prelude::*;
    use rstest::rstest;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const GOOD: &str = "Upgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

    fn judge_text(response: &str, offered: &[&str]) -> ConnectionEvent {
        let head = parse_response_head(response.as_bytes()).unwrap().unwrap();
        assert_eq!(head.length, response.len());
        judge_response(head, KEY, &offered.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    #[rstest]
    #[case("", &[], None)]
    #[case("Sec-WebSocket-Protocol: b\r\n", &["a", "b"], Some("b"))]
    #[case("", &["a"], None)]
    #[case("Sec-WebSocket-Extensions: \r\n", &[], None)]
    fn valid_answers_to_an_upgrade_are_accepted(
        #[case] more: &str,
        #[case] offered: &[&str],
        #[case] selected: Option<&str>,
    ) {
        let answer = judge_text(&format!("HTTP/1.1 101 Switching Protocols\r\n{GOOD}{more}\r\n"), offered);
        let ConnectionEvent::Upgraded { status: 101, subprotocol, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(subprotocol.as_deref(), selected);
    }

    #[rstest]
    #[case("404 Not Found\r\n", "HTTP 404 instead of 101: is the path right?")]
    #[case("403 Forbidden\r\n", "HTTP 403 instead of 101: is a token or a secret missing or wrong?")]
    #[case("500 Oops\r\n", "HTTP 500 instead of 101: the server failed; its log may say why; is the path right?")]
    #[case(
        "502 Bad Gateway\r\n",
        "HTTP 502 instead of 101: a proxy answered, but not the hub behind it: is the hub running?"
    )]
    #[case("418 Teapot\r\n", "HTTP 418 instead of 101")]
    #[case(
        "302 Found\r\nLocation: ws://b/c\r\n",
        "HTTP 302 redirects to ws://b/c, but redirects are not followed: use that address instead"
    )]
    #[case(
        "101 X\r\nConnection: Upgrade\r\n",
        "101, but without the header `Upgrade: websocket` (RFC 6455, section 4.1)"
    )]
    #[case("101 X\r\nUpgrade: h2c\r\n", "101, but with `Upgrade: h2c` instead of `websocket` (RFC 6455, section 4.1)")]
    #[case(
        "101 X\r\nUpgrade: websocket\r\n",
        "101, but without the header `Connection: Upgrade` (RFC 6455, section 4.1)"
    )]
    #[case(
        "101 X\r\nUpgrade: websocket\r\nConnection: close\r\n",
        "101, but with `Connection: close` instead of `Upgrade` (RFC 6455, section 4.1)"
    )]
    #[case(
        "101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
        "101, but without the header `Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=` (RFC 6455, section 4.1)"
    )]
    #[case(
        "101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: no\r\n",
        "101, but with `Sec-WebSocket-Accept: no` instead of `s3pPLMBiTxaQ9kYGzzhZRbK+xOo=` (RFC 6455, section 4.1)"
    )]
    fn refused_upgrades_are_explained(#[case] answer: &str, #[case] expected: &str) {
        let answer = judge_text(&format!("HTTP/1.1 {answer}\r\n"), &[]);
        let ConnectionEvent::Refused { reason, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(reason, expected);
    }

    #[rstest]
    #[case::plain(404, "", "", "why")]
    #[case::body(500, "", "Oops:\r\n  no\tdatabase\n", "why. Its body begins with `Oops: no database`")]
    #[case::credentials(
        401,
        "WWW-Authenticate: Bearer realm=\"shop\"\r\n",
        "no token",
        "why. The hub asks for `Bearer realm=\"shop\"` (WWW-Authenticate). Its body begins with `no token`. If the hub needs a header, a query or a subprotocol, declare it in the target file: `upgrade = { headers = { NAME = \"VALUE\" } }` under `[[deviation]]`"
    )]
    fn a_refusal_is_described_with_its_body_and_what_the_hub_asks_for(
        #[case] status: u16,
        #[case] more: &str,
        #[case] body: &str,
        #[case] expected: &str,
    ) {
        let head = parse_response_head(format!("HTTP/1.1 {status} X\r\n{more}\r\n").as_bytes()).unwrap().unwrap();
        assert_eq!(describe_refusal("why", status, &head.headers, body.as_bytes()), expected);
        let long = describe_refusal("why", status, &head.headers, "\u{e9}".repeat(5000).as_bytes());
        assert!(long.contains("\u{e9}...`") && long.len() < 1000, "{long}");
    }

    #[rstest]
    #[case("Sec-WebSocket-Extensions: permessage-deflate\r\n", &[], "extension `permessage-deflate`")]
    #[case("Sec-WebSocket-Protocol: b\r\n", &[], "subprotocol `b`, although none was offered")]
    #[case("Sec-WebSocket-Protocol: B\r\n", &["b"], "subprotocol `B`, although only `b` was offered")]
    #[case("Sec-WebSocket-Protocol: a, b\r\n", &["a", "b"], "several subprotocols")]
    #[case("Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b\r\n", &["a", "b"], "more than one Sec-WebSocket-Protocol")]
    #[case("Upgrade: websocket\r\n", &[], "`Upgrade: WebSocket, websocket`")]
    fn invalid_answers_with_status_101_are_refused(#[case] more: &str, #[case] offered: &[&str], #[case] about: &str) {
        let answer = judge_text(&format!("HTTP/1.1 101 Switching Protocols\r\n{GOOD}{more}\r\n"), offered);
        let ConnectionEvent::Refused { reason, .. } = answer else { panic!("{answer:?}") };
        assert!(reason.contains(about), "{reason}");
    }

    #[rstest]
    #[case(b"SSH-2.0-OpenSSH\r\n", "it begins with \"SSH-2.0-OpenSSH\\r\\n\", which is not HTTP")]
    #[case(
        b"\x15\x03\x03\x00\x02\x02\x46",
        "it is TLS, not plain text: should the address be wss:// instead of ws://?"
    )]
    fn answers_that_are_not_http_are_explained(#[case] bytes: &[u8], #[case] expected: &str) {
        assert_eq!(parse_response_head(bytes).unwrap_err().to_string(), expected);
    }

    #[test]
    fn heads_of_answers_are_limited_in_length_and_headers() {
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(MAX_HEAD_BYTES));
        assert_eq!(parse_response_head(endless.as_bytes()), Err(HttpHeadError::TooLong));
        assert_eq!(parse_response_head(&endless.as_bytes()[..MAX_HEAD_BYTES - 1]), Ok(None));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: a\r\n".repeat(MAX_HEADER_LINES + 1));
        assert_eq!(parse_response_head(many.as_bytes()), Err(HttpHeadError::TooMany));
    }

    #[rstest]
    #[case("Content-Length: 3", "abcdef", "abc", true)]
    #[case("Content-Length: 9", "abc", "abc", false)]
    #[case("X: y", "abc", "abc", false)]
    #[case("Transfer-Encoding: chunked", "3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n", "abcde", true)]
    #[case("Transfer-Encoding: chunked", "3\r\nabc\r\n5\r\nde", "abcde", false)]
    #[case("Transfer-Encoding: chunked", "ffffffffffffffff\r\nab", "ab", false)]
    #[case("Transfer-Encoding: chunked", "zz", "", true)]
    fn the_body_of_a_refusal_is_read_by_its_content_length(
        #[case] header: &str,
        #[case] bytes: &str,
        #[case] expected: &str,
        #[case] complete: bool,
    ) {
        let head = parse_response_head(format!("HTTP/1.1 400 Bad\r\n{header}\r\n\r\n").as_bytes()).unwrap().unwrap();
        assert_eq!(refusal_body(&head, bytes.as_bytes()), (expected.into(), complete));
        assert!(refusal_body(&head, &b"1000\r\n".repeat(2000)).0.len() <= MAX_BODY_BYTES);
    }

    #[test]
    fn an_upgrade_request_of_a_client_is_accepted_by_a_listening_actor() {
        let subprotocols = vec!["x".to_owned(), "y".to_owned()];
        let dial = Dial { path: Some("/p?q=1".to_owned()), subprotocols, ..Dial::default() };
        let key = generate_key();
        let bytes = dial.request(&dial.address(&"ws://h".parse().unwrap()).unwrap(), &key).unwrap();
        assert_eq!(parse_request_head(&bytes[..bytes.len() - 1]), Ok(None));
        let (answer, report) = answer_request(parse_request_head(&bytes).unwrap().unwrap(), &["y".to_owned()]);
        let ConnectionEvent::Upgraded { headers, subprotocol, .. } = report else { panic!("{report:?}") };
        assert_eq!((headers[0].1.as_str(), subprotocol.as_deref()), ("/p?q=1", Some("y")));
        let answer = judge_response(parse_response_head(&answer).unwrap().unwrap(), &key, &dial.subprotocols);
        assert!(
            matches!(answer, ConnectionEvent::Upgraded { subprotocol: Some(ref name), .. } if name == "y"),
            "{answer:?}"
        );
    }

    #[rstest]
    #[case("POST / HTTP/1.1", &[], "426", "POST")]
    #[case("GET / HTTP/1.0", &[], "426", "1.0")]
    #[case("GET / HTTP/1.1", &[], "426", "Host")]
    #[case("GET / HTTP/1.1", &["Host: h"], "426", "Upgrade: websocket")]
    #[case("GET / HTTP/1.1", &["Host: h", "Upgrade: websocket"], "426", "Connection: Upgrade")]
    #[case("GET / HTTP/1.1", &["Host: h", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 8"], "426", "Version: 13")]
    #[case("GET / HTTP/1.1", &["Host: h", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"], "400", "Key")]
    #[case("GET / HTTP/1.1", &["Host: h", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: YQ=="],
        "400", "Key")]
    fn invalid_upgrade_requests_are_refused(
        #[case] line: &str,
        #[case] headers: &[&str],
        #[case] status: &str,
        #[case] about: &str,
    ) {
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        let head = parse_request_head(format!("{line}\r\n{lines}\r\n").as_bytes()).unwrap().unwrap();
        let (answer, report) = answer_request(head, &[]);
        assert!(answer.starts_with(format!("HTTP/1.1 {status}").as_bytes()));
        assert!(
            matches!(&report, ConnectionEvent::Violation { what, section: "4.1", bound: false } if what.contains(about)),
            "{report:?}"
        );
    }

    proptest! {
        #[test]
        fn parsing_random_bytes_as_heads_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), http in any::<bool>()) {
            let prefix: &[u8] = if http { b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n" } else { b"" };
            let all = [prefix, &bytes].concat();
            let _ = parse_request_head(&all);
            if let Ok(Some(head)) = parse_response_head(&all) {
                let _ = refusal_body(&head, &all[head.length..]);
                let _ = judge_response(head, KEY, &[]);
            }
        }
    }
}
