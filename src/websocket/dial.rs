//! The upgrade request of a client, which a scenario or a target may change.

use serde_json::Value;

use super::endpoint::Endpoint;
use super::handshake::{HeaderList, find_header};
use crate::syntax::diagnostic::ValueError;
use crate::syntax::matcher::describe_kind;

/// How a client connects, beyond the target's address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dial {
    /// The path, which may have a query, relative to the target's URL; or a full address. `None`: that URL itself.
    pub path: Option<String>,
    /// Parameters of the query, which are percent-encoded.
    pub query: Vec<(String, String)>,
    /// Headers that follow the standard ones; one with the name of a standard header replaces it.
    pub headers: HeaderList,
    /// Names of standard headers that are left out.
    pub without: Vec<String>,
    pub subprotocols: Vec<String>,
    /// The local address to connect from.
    pub from: Option<String>,
    /// The HTTP method; `GET` if none is given.
    pub method: Option<String>,
    /// The HTTP version; `1.1` if none is given.
    pub http: Option<String>,
}

/// A part of a request that would break out of its line if it were written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeRequestError {
    #[error("`{0}` is not a header name (letters, digits and !#$%&'*+-.^_`|~)")]
    HeaderName(String),
    #[error("the value of header `{0}` contains a line break or another control character")]
    HeaderValue(String),
    #[error("`{0}` is not a method, or not a version such as 1.0")]
    RequestLine(String),
    #[error("`{0}` is not a subprotocol name (letters, digits and !#$%&'*+-.^_`|~)")]
    Subprotocol(String),
}

/// A member of a dial that has the wrong type. Only kinds are named, since values may hold secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` must be {expected}, not {found}")]
pub struct DialMemberError {
    name: &'static str,
    expected: &'static str,
    found: &'static str,
}

impl Dial {
    /// Parses an object with the members of a dial. A member that is null counts as absent; a header that is null is
    /// left out of the request.
    ///
    /// # Errors
    /// A member of the wrong type.
    pub fn from_json(dial: &Value) -> Result<Self, DialMemberError> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let member = |name: &str| dial.get(name).filter(|value| !value.is_null());
        let wrong = |name, expected, found| DialMemberError { name, expected, found: describe_kind(found) };
        let pairs = |name: &'static str| match member(name) {
            None => Ok(Vec::new()),
            Some(Value::Object(members)) => {
                let stated = members.iter().filter(|(_, value)| !value.is_null());
                Ok(stated.map(|(name, value)| (name.clone(), text(value))).collect())
            }
            Some(other) => Err(wrong(name, "a mapping", other)),
        };
        let subprotocols = match member("subprotocols") {
            None => Vec::new(),
            Some(Value::Array(items)) => items.iter().filter(|item| !item.is_null()).map(text).collect(),
            Some(Value::String(one)) => vec![one.clone()],
            Some(other) => return Err(wrong("subprotocols", "a list", other)),
        };
        // An item may be the value of the header, which is a list.
        let subprotocols = subprotocols.iter().flat_map(|item| item.split(',')).map(|name| name.trim().to_owned());
        let headers = member("headers").and_then(Value::as_object).into_iter().flatten();
        Ok(Self {
            path: member("path").map(text),
            query: pairs("query")?,
            headers: pairs("headers")?,
            without: headers.filter(|(_, value)| value.is_null()).map(|(name, _)| name.clone()).collect(),
            subprotocols: subprotocols.collect(),
            from: member("from").map(text),
            method: member("method").map(text),
            http: member("http").map(text),
        })
    }

    /// Returns the key to send: the key among the headers, or `fresh`.
    pub fn key<'a>(&'a self, fresh: &'a str) -> &'a str {
        find_header(&self.headers, "Sec-WebSocket-Key").unwrap_or(fresh)
    }

    /// Whether no handshake header is changed; else the answer may differ from the standard one.
    pub fn is_standard(&self) -> bool {
        let is_handshake = |name: &String| {
            let name = name.to_ascii_lowercase();
            ["host", "upgrade", "connection"].contains(&name.as_str()) || name.starts_with("sec-websocket-")
        };
        self.method.is_none() && self.http.is_none() && !self.named_headers().any(is_handshake)
    }

    /// Returns the names of all headers that are stated, or left out.
    pub fn named_headers(&self) -> impl Iterator<Item = &String> {
        self.headers.iter().map(|(name, _)| name).chain(&self.without)
    }

    /// Returns the address that is requested, given that of the hub.
    ///
    /// # Errors
    /// See [`Endpoint::join`].
    pub fn address(&self, hub: &Endpoint) -> Result<Endpoint, ValueError> {
        hub.join(self.path.as_deref(), &self.query)
    }

    /// Writes the upgrade request to an [address](Self::address). `key` is Base64 of 16 random bytes.
    ///
    /// # Errors
    /// A header or a subprotocol that would break out of its line.
    pub fn request(&self, address: &Endpoint, key: &str) -> Result<Vec<u8>, UpgradeRequestError> {
        let mut ours = vec![
            ("Host", address.host_header()),
            ("Upgrade", "websocket".to_owned()),
            ("Connection", "Upgrade".to_owned()),
            ("Sec-WebSocket-Key", key.to_owned()),
            ("Sec-WebSocket-Version", "13".to_owned()),
        ];
        if let Some(bad) = self.subprotocols.iter().find(|name| !is_token(name)) {
            return Err(UpgradeRequestError::Subprotocol(bad.clone()));
        }
        if !self.subprotocols.is_empty() {
            ours.push(("Sec-WebSocket-Protocol", self.subprotocols.join(", ")));
        }
        ours.retain(|(name, _)| !self.named_headers().any(|named| named.eq_ignore_ascii_case(name)));

        let (method, http) = (self.method.as_deref().unwrap_or("GET"), self.http.as_deref().unwrap_or("1.1"));
        if !is_token(method) || !http.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Err(UpgradeRequestError::RequestLine(format!("{method} {http}")));
        }
        let mut text = format!("{method} {} HTTP/{http}\r\n", address.path);
        let ours = ours.iter().map(|(name, value)| (*name, value.as_str()));
        write_headers(&mut text, ours.chain(header_pairs(&self.headers)))?;
        Ok(text.into_bytes())
    }
}

fn header_pairs(headers: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

fn write_headers<'a>(
    text: &mut String,
    headers: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(), UpgradeRequestError> {
    for (name, value) in headers {
        if !is_token(name) {
            return Err(UpgradeRequestError::HeaderName(name.to_owned()));
        }
        if value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(UpgradeRequestError::HeaderValue(name.to_owned()));
        }
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    Ok(())
}

/// Whether a text is an HTTP token (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    /// Returns the request of a dial to a hub.
    fn request(dial: &Dial, hub: &str) -> Result<Vec<u8>, UpgradeRequestError> {
        dial.request(&dial.address(&hub.parse().unwrap()).unwrap(), KEY)
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderList {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_dial_is_read_from_json_where_a_null_header_is_left_out() {
        let dial = json!({
            "path": null, "query": { "n": 1, "absent": null }, "headers": { "X": "y", "Host": null },
            "subprotocols": ["a, b", null, "c"], "method": "POST", "http": 1.0
        });
        let expected = Dial {
            query: headers(&[("n", "1")]),
            headers: headers(&[("X", "y")]),
            without: vec!["Host".to_owned()],
            subprotocols: ["a", "b", "c"].map(str::to_owned).to_vec(),
            method: Some("POST".to_owned()),
            http: Some("1.0".to_owned()),
            ..Dial::default()
        };
        assert_eq!(Dial::from_json(&dial), Ok(expected));
        assert_eq!(
            Dial::from_json(&json!({ "headers": [1] })),
            Err(DialMemberError { name: "headers", expected: "a mapping", found: "a list" })
        );
    }

    #[test]
    fn an_upgrade_request_is_written_with_the_given_headers_and_subprotocols() {
        let dial = Dial {
            path: Some("/ws?x=1".to_owned()),
            headers: headers(&[("Authorization", "Bearer x"), ("host", "elsewhere")]),
            subprotocols: vec!["a".to_owned(), "b".to_owned()],
            ..Dial::default()
        };
        let expected = "GET /ws?x=1 HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: a, b\r\nAuthorization: Bearer x\r\nhost: elsewhere\r\n\r\n";
        assert_eq!(String::from_utf8(request(&dial, "ws://h:1").unwrap()).unwrap(), expected);
    }

    #[rstest]
    #[case(("X y", "1"), "p", UpgradeRequestError::HeaderName("X y".into()))]
    #[case(("X", "1\r\nY: 2"), "p", UpgradeRequestError::HeaderValue("X".into()))]
    #[case(("X", "1"), "a, b", UpgradeRequestError::Subprotocol("a, b".into()))]
    fn headers_with_line_breaks_cannot_be_injected_into_a_request(
        #[case] header: (&str, &str),
        #[case] subprotocol: &str,
        #[case] expected: UpgradeRequestError,
    ) {
        let (headers, subprotocols) = (headers(&[header]), vec![subprotocol.to_owned()]);
        let dial = Dial { headers, subprotocols, ..Dial::default() };
        assert_eq!(request(&dial, "ws://h"), Err(expected));
    }

    #[test]
    fn an_invalid_upgrade_request_can_be_written() {
        let wrong = Dial {
            headers: headers(&[("sec-websocket-key", "AAEC")]),
            without: vec!["Host".to_owned(), "UPGRADE".to_owned()],
            method: Some("POST".to_owned()),
            http: Some("1.0".to_owned()),
            ..Dial::default()
        };
        let expected =
            "POST / HTTP/1.0\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nsec-websocket-key: AAEC\r\n\r\n";
        assert_eq!(String::from_utf8(request(&wrong, "ws://h").unwrap()).unwrap(), expected);
        assert_eq!((wrong.key(KEY), Dial::default().key(KEY)), ("AAEC", KEY));
        for (method, http) in [("GET /x", "1.1"), ("GET", "1.1\r\nX: y"), ("", "1.1")] {
            let dial = Dial { method: Some(method.to_owned()), http: Some(http.to_owned()), ..Dial::default() };
            assert_eq!(request(&dial, "ws://h"), Err(UpgradeRequestError::RequestLine(format!("{method} {http}"))));
        }
    }
}
