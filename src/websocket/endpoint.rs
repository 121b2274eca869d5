//! Parses `ws://` and `wss://` addresses, with errors that say how to write them.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use http::Uri;

/// A hub's address. The path and query of a connection are joined to `path` (see [`super::handshake::target`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub tls: bool,
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
    /// Path and query, unchanged; at least `/`.
    pub path: String,
}

/// An error in an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error("`{0}` has no scheme; write ws://{0} or, with TLS, wss://{0}")]
    NoScheme(String),
    #[error("`{scheme}://` is not a WebSocket address; write {instead}://{rest}")]
    NotWebSocket { scheme: String, instead: &'static str, rest: String },
    #[error("the address has no host; write for example ws://127.0.0.1:8080/ws")]
    NoHost,
    #[error("`{0}` is not a port; write a number from 1 to 65535")]
    Port(String),
    #[error("user and password in an address are not sent; remove the part before the @ and use a header")]
    UserInfo,
    #[error("a fragment (what follows the #) is not allowed in a WebSocket address (RFC 6455, section 3)")]
    Fragment,
    #[error("the address is not well-formed: {0}")]
    Malformed(String),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(EndpointError::NoScheme(text.to_owned()));
        };
        let not_web_socket = |instead| {
            let (scheme, rest) = (scheme.to_owned(), rest.to_owned());
            Err(EndpointError::NotWebSocket { scheme, instead, rest })
        };
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "ws" => false,
            "wss" => true,
            "https" => return not_web_socket("wss"),
            _ => return not_web_socket("ws"),
        };
        if rest.contains('#') {
            return Err(EndpointError::Fragment);
        }
        let written = rest.split(['/', '?']).next().unwrap_or_default();
        if written.contains('@') {
            return Err(EndpointError::UserInfo);
        }
        let after_host = written.rsplit_once(']').map_or(written, |(_, after)| after);
        let port = match after_host.split_once(':') {
            None if tls => 443,
            None => 80,
            Some((_, digits)) => match digits.parse() {
                Ok(port) if port != 0 => port,
                _ => return Err(EndpointError::Port(digits.to_owned())),
            },
        };
        if written.is_empty() || written.starts_with(':') {
            return Err(EndpointError::NoHost);
        }
        let uri: Uri =
            text.parse().map_err(|error: http::uri::InvalidUri| EndpointError::Malformed(error.to_string()))?;
        let host = uri.host().ok_or(EndpointError::NoHost)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        if written.starts_with('[') && host.parse::<Ipv6Addr>().is_err() {
            return Err(EndpointError::Malformed(format!("[{host}] is not an IPv6 address")));
        }
        let query = uri.query().map_or(String::new(), |query| format!("?{query}"));
        let path = format!("{}{query}", uri.path());
        Ok(Self { tls, host, port, path })
    }
}

impl Endpoint {
    /// Whether the hub is on this machine, judging by its name.
    pub fn is_loopback(&self) -> bool {
        let host = self.host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Returns host and port: `hub:80`, `[::1]:80`.
    pub fn authority(&self) -> String {
        format!("{}:{}", Bracketed(&self.host), self.port)
    }

    /// Returns the `Host` header: without the scheme's default port (RFC 6455, section 4.1).
    pub fn host_header(&self) -> String {
        if self.port == if self.tls { 443 } else { 80 } { Bracketed(&self.host).to_string() } else { self.authority() }
    }
}

/// Writes the address as it can be parsed again. Its query may hold a secret.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.host_header(), self.path)
    }
}

struct Bracketed<'a>(&'a str);

impl fmt::Display for Bracketed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') { write!(f, "[{}]", self.0) } else { f.write_str(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("ws://127.0.0.1:8080", false, "127.0.0.1", 8080, "/", "127.0.0.1:8080")]
    #[case("WSS://hub.example/a/b?c=%20d", true, "hub.example", 443, "/a/b?c=%20d", "hub.example")]
    #[case("ws://hub?token=1", false, "hub", 80, "/?token=1", "hub")]
    #[case("ws://hub:443/../x", false, "hub", 443, "/../x", "hub:443")]
    #[case("wss://[::1]:9/ws", true, "::1", 9, "/ws", "[::1]:9")]
    #[case("wss://[::1]", true, "::1", 443, "/", "[::1]")]
    fn websocket_addresses_are_parsed(
        #[case] text: &str,
        #[case] tls: bool,
        #[case] host: &str,
        #[case] port: u16,
        #[case] path: &str,
        #[case] header: &str,
    ) {
        let endpoint: Endpoint = text.parse().unwrap();
        assert_eq!(endpoint, Endpoint { tls, host: host.into(), port, path: path.into() });
        assert_eq!(endpoint.host_header(), header);
        assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
    }

    #[rstest]
    #[case("localhost:80", "`localhost:80` has no scheme; write ws://localhost:80 or, with TLS, wss://localhost:80")]
    #[case("http://h/x", "`http://` is not a WebSocket address; write ws://h/x")]
    #[case("https://h", "`https://` is not a WebSocket address; write wss://h")]
    #[case("ws://", "the address has no host; write for example ws://127.0.0.1:8080/ws")]
    #[case("ws://:80/", "the address has no host; write for example ws://127.0.0.1:8080/ws")]
    #[case("ws://h:0", "`0` is not a port; write a number from 1 to 65535")]
    #[case("ws://h:65536/x", "`65536` is not a port; write a number from 1 to 65535")]
    #[case("ws://h:/x", "`` is not a port; write a number from 1 to 65535")]
    #[case(
        "ws://u:p@h/",
        "user and password in an address are not sent; remove the part before the @ and use a header"
    )]
    #[case("ws://h/#x", "a fragment (what follows the #) is not allowed in a WebSocket address (RFC 6455, section 3)")]
    #[case("ws://[zz]/", "the address is not well-formed: [zz] is not an IPv6 address")]
    #[case("ws://a b/", "the address is not well-formed: invalid uri character")]
    fn complains(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(text.parse::<Endpoint>().unwrap_err().to_string(), expected);
    }
}
