//! Parses `ws://` and `wss://` addresses, with errors that say how to write them.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use http::Uri;

use crate::syntax::diagnostic::ValueError;

/// A hub's address. The path and query of a connection are joined to `path` (see [`super::handshake::Dial`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub tls: bool,
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
    /// Path and query, unchanged; at least `/`.
    pub path: String,
    /// The address as it was written.
    text: String,
}

const EXAMPLE: &str = "write ws:// or wss:// and a host, such as ws://127.0.0.1:4000";

impl FromStr for Endpoint {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = |message: String, help: &str| Err(ValueError::new(message, help));
        let Some((scheme, rest)) = text.split_once("://") else {
            return wrong(format!("`{text}` is not a WebSocket address"), &help_without_scheme(text));
        };
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "ws" => false,
            "wss" => true,
            other => {
                let help = match other {
                    "http" => format!("write ws://{rest}"),
                    "https" => format!("write wss://{rest}"),
                    _ => EXAMPLE.to_owned(),
                };
                return wrong(format!("`{text}` is not a WebSocket address"), &help);
            }
        };
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return wrong(format!("`{text}` has a space in it"), "write %20 where a space is meant");
        }
        if rest.contains('#') {
            // RFC 6455, section 3.
            return wrong(
                format!("`{text}` has a `#`, which no WebSocket address may have"),
                "write %23 where a # is meant",
            );
        }
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if authority.contains('@') {
            let help = "remove the part before the @; a `[[deviation]]` with `upgrade` adds a header";
            return wrong("hubproof does not send the user and password of an address".to_owned(), help);
        }
        if authority.is_empty() || authority.starts_with(':') {
            return wrong(format!("`{text}` names no host"), EXAMPLE);
        }
        let after_host = authority.rsplit_once(']').map_or(authority, |(_, after)| after);
        let port = match after_host.split_once(':') {
            None if tls => 443,
            None => 80,
            Some((_, digits)) => match digits.parse() {
                Ok(port) if port != 0 => port,
                _ => return wrong(format!("`{digits}` is not a port"), "write a number from 1 to 65535"),
            },
        };
        let uri: Uri = match text.parse() {
            Ok(uri) => uri,
            Err(error) => return wrong(format!("`{text}` is not a WebSocket address: {error}"), EXAMPLE),
        };
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        if authority.starts_with('[') && host.parse::<Ipv6Addr>().is_err() {
            return wrong(format!("`{host}` is not an IPv6 address"), "write it as in ws://[::1]:4000");
        }
        let query = uri.query().map_or(String::new(), |query| format!("?{query}"));
        let path = format!("{}{query}", uri.path());
        Ok(Self { tls, host, port, path, text: text.to_owned() })
    }
}

/// Returns what to write instead of a text without `://`, which may be the name of a file.
fn help_without_scheme(text: &str) -> String {
    if [".yaml", ".yml"].iter().any(|ending| text.ends_with(ending)) {
        format!("a file is given by an option: `check --scenario {text}`, `fuzz --replay {text}`, `load --plan {text}`")
    } else if text.ends_with(".toml") {
        format!("a file is given by an option: `--target {text}`")
    } else if text.is_empty() || text.contains("//") {
        EXAMPLE.to_owned()
    } else {
        format!("write ws://{text}, or wss://{text} with TLS")
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

/// Writes the address as it was written. Its query may hold a secret.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
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
        assert_eq!(endpoint, Endpoint { tls, host: host.into(), port, path: path.into(), text: text.into() });
        assert_eq!(endpoint.host_header(), header);
    }

    #[rstest]
    #[case(
        "localhost:80",
        "`localhost:80` is not a WebSocket address",
        "write ws://localhost:80, or wss://localhost:80 with TLS"
    )]
    #[case("", "`` is not a WebSocket address", EXAMPLE)]
    #[case("ws:h//x", "`ws:h//x` is not a WebSocket address", EXAMPLE)]
    #[case("ftp://h", "`ftp://h` is not a WebSocket address", EXAMPLE)]
    #[case("http://h/x", "`http://h/x` is not a WebSocket address", "write ws://h/x")]
    #[case("https://h", "`https://h` is not a WebSocket address", "write wss://h")]
    #[case("ws://", "`ws://` names no host", EXAMPLE)]
    #[case("ws:///path", "`ws:///path` names no host", EXAMPLE)]
    #[case("ws://?q", "`ws://?q` names no host", EXAMPLE)]
    #[case("ws://:80/", "`ws://:80/` names no host", EXAMPLE)]
    #[case("ws://h:0", "`0` is not a port", "write a number from 1 to 65535")]
    #[case("ws://h:65536/x", "`65536` is not a port", "write a number from 1 to 65535")]
    #[case("ws://h:/x", "`` is not a port", "write a number from 1 to 65535")]
    #[case(
        "ws://u:p@h/",
        "hubproof does not send the user and password of an address",
        "remove the part before the @; a `[[deviation]]` with `upgrade` adds a header"
    )]
    #[case("ws://h/#x", "`ws://h/#x` has a `#`, which no WebSocket address may have", "write %23 where a # is meant")]
    #[case("ws://[zz]/", "`zz` is not an IPv6 address", "write it as in ws://[::1]:4000")]
    #[case("ws://a b/", "`ws://a b/` has a space in it", "write %20 where a space is meant")]
    #[case("ws://a<b/", "`ws://a<b/` is not a WebSocket address: invalid uri character", EXAMPLE)]
    fn texts_that_are_not_websocket_addresses_are_refused_with_advice(
        #[case] text: &str,
        #[case] message: &str,
        #[case] help: &str,
    ) {
        assert_eq!(text.parse::<Endpoint>(), Err(ValueError::new(message, help)));
    }
}
