//! Parses `ws://` and `wss://` addresses, and those of hubs without WebSocket, with errors that say how to write them, and joins the path and query of a
//! connection to the address of its hub.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use http::Uri;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::syntax::diagnostic::ValueError;

/// Characters of a path that are escaped because they would break the request line. All others are sent unchanged, even
/// `%`.
const NOT_IN_TARGET: &AsciiSet = &CONTROLS.add(b' ').add(b'#');
/// Characters that are escaped in the names and values of a query: all but RFC 3986's unreserved ones.
const NOT_IN_QUERY_PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The address of a hub or of a connection to it. [`Endpoint::join`] turns the former into the latter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub tls: bool,
    pub carrier: CarrierKind,
    /// The path of the Unix socket to which to connect, instead of the host.
    pub unix: Option<String>,
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
    /// Path and query, unchanged; at least `/`.
    pub path: String,
    /// The address as the user wrote it.
    text: String,
}

/// What carries the messages of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CarrierKind {
    #[default]
    WebSocket,
    /// `tcp://`: ZeroMQ. `publishes` is the port of the socket that publishes, if the hub has one.
    ZeroMq { publishes: Option<u16> },
    /// `tcp+lines://`: one message per line.
    Lines,
}

const EXAMPLE: &str = "write ws:// or wss:// and a host, such as ws://127.0.0.1:4000";

impl FromStr for Endpoint {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = |message: String, help: &str| Err(ValueError::new(message, help));
        if let Some(rest) = text.strip_prefix(UNIX_SCHEME) {
            return parse_unix(text, rest);
        }
        if let Some(rest) = text.strip_prefix(ZEROMQ_SCHEME) {
            return parse_zeromq(text, rest);
        }
        if let Some(rest) = text.strip_prefix(LINES_SCHEME) {
            return parse_carried(text, rest, CarrierKind::Lines);
        }
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
                    "unix" => format!("write {UNIX_SCHEME}{rest}:/PATH"),
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
        let carrier = CarrierKind::WebSocket;
        Ok(Self { tls, carrier, unix: None, host, port, path, text: text.to_owned() })
    }
}

/// Begins the address of a hub that listens on a Unix socket, as Node's `ws` writes it.
const UNIX_SCHEME: &str = "ws+unix:";

/// Parses the part of an address after [`UNIX_SCHEME`]: the socket's path, a colon, and the path of the request.
fn parse_unix(text: &str, rest: &str) -> Result<Endpoint, ValueError> {
    let (socket, path) = rest.split_once(':').unwrap_or((rest, "/"));
    let socket = format!("/{}", socket.trim_start_matches('/'));
    let on_host: Endpoint = format!("ws://localhost{}{path}", if path.starts_with('/') { "" } else { "/" }).parse()?;
    if !rest.starts_with('/') || socket == "/" {
        let help = "write ws+unix:/run/hub.sock, or ws+unix:/run/hub.sock:/PATH";
        return Err(ValueError::new(format!("`{text}` names no Unix socket by its absolute path"), help));
    }
    let text = format!("{UNIX_SCHEME}{socket}:{}", on_host.path);
    Ok(Endpoint { unix: Some(socket), text, ..on_host })
}

/// Begin the addresses of hubs without WebSocket.
const ZEROMQ_SCHEME: &str = "tcp://";
const LINES_SCHEME: &str = "tcp+lines://";
/// Names the port of the socket that publishes.
const PUBLISHES: &str = "?publishes=";

fn parse_zeromq(text: &str, rest: &str) -> Result<Endpoint, ValueError> {
    let (authority, publishes) = match rest.split_once(PUBLISHES) {
        None => (rest, None),
        Some((authority, port)) => match port.parse() {
            Ok(port) if port != 0 => (authority, Some(port)),
            _ => return Err(ValueError::new(format!("`{port}` is not a port"), "write a number from 1 to 65535")),
        },
    };
    parse_carried(text, authority, CarrierKind::ZeroMq { publishes })
}

/// Parses the part of an address after its scheme: a host and a port.
fn parse_carried(text: &str, authority: &str, carrier: CarrierKind) -> Result<Endpoint, ValueError> {
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if !has_port || authority.contains(['/', '?']) {
        let help =
            "write tcp://HOST:PORT or tcp://HOST:PORT?publishes=PORT for ZeroMQ, and tcp+lines://HOST:PORT for lines";
        return Err(ValueError::new(format!("`{text}` is not the address of a hub without WebSocket"), help));
    }
    let on_host: Endpoint = format!("ws://{authority}").parse()?;
    Ok(Endpoint { carrier, text: text.to_owned(), ..on_host })
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
    /// Returns the address of a connection to the hub at this address. This is the only rule for paths:
    ///
    /// - `path` is relative to the hub's address. Segments with which the hub's path ends and `path` begins are written
    ///   once: `/rt/ws` and `/ws` make `/rt/ws`. Without `path`, or if it is `/`, the hub's path stays as it is.
    /// - A full address, `ws://...` or `wss://...`, replaces the hub's address with its query.
    /// - The queries of the hub's address, of `path` and `query` are all sent. If they have the same key, the last wins.
    ///
    /// # Errors
    /// A full address that is wrong, or one that leads from this machine to another.
    pub fn join(&self, path: Option<&str>, query: &[(String, String)]) -> Result<Self, ValueError> {
        if self.carrier != CarrierKind::WebSocket {
            // Steps that need paths or queries need WebSocket.
            return Ok(self.clone());
        }
        let path = path.unwrap_or_default();
        let base = if is_full_address(path) { path.parse()? } else { self.clone() };
        if self.is_loopback() && !base.is_loopback() {
            return Err(ValueError::new(
                format!("`{base}` is on another machine, but the hub is on this one"),
                "write a path, or give the hub's address as a non-loopback address",
            ));
        }
        let (base_path, base_query) = split_query(&base.path);
        let (path, path_query) = if is_full_address(path) { ("", "") } else { split_query(path) };
        let path = join_paths(base_path, &utf8_percent_encode(path, NOT_IN_TARGET).to_string());
        let escaped = |text: &str| utf8_percent_encode(text, NOT_IN_QUERY_PART).to_string();
        let given = query.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
        let given = given.collect::<Vec<_>>().join("&");
        let path_query = utf8_percent_encode(path_query, NOT_IN_TARGET).to_string();
        let query = join_queries(&join_queries(base_query, &path_query), &given);
        let path = if query.is_empty() { path } else { format!("{path}?{query}") };
        let origin = base.text.find("://").map_or(0, |at| at + 3);
        let origin = base.text[origin..].find(['/', '?']).map_or(base.text.len(), |at| origin + at);
        let origin = base.unix.as_ref().map_or(base.text[..origin].to_owned(), |path| format!("{UNIX_SCHEME}{path}:"));
        let text = format!("{origin}{path}");
        Ok(Self { path, text, ..base })
    }

    /// Returns the same host at another port.
    pub fn with_port(&self, port: u16) -> Self {
        Self { port, ..self.clone() }
    }

    /// Returns the names and values of the query, decoded.
    pub fn query_members(&self) -> Vec<(String, String)> {
        let parts = split_query(&self.path).1.split('&').filter_map(|part| part.split_once('='));
        parts.map(|(name, value)| (decode_query_part(name), decode_query_part(value))).collect()
    }

    /// Whether the hub is on this machine, judging by its name.
    pub fn is_loopback(&self) -> bool {
        let host = self.host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Returns host and port, `hub:80` or `[::1]:80`, or the path of the Unix socket.
    pub fn authority(&self) -> String {
        self.unix.clone().unwrap_or_else(|| format!("{}:{}", Bracketed(&self.host), self.port))
    }

    /// Returns the `Host` header: without the scheme's default port (RFC 6455, section 4.1).
    pub fn host_header(&self) -> String {
        if self.port == if self.tls { 443 } else { 80 } { Bracketed(&self.host).to_string() } else { self.authority() }
    }
}

/// Whether a path is a full address, which is not relative to the address of a hub.
fn is_full_address(path: &str) -> bool {
    let scheme = path.split_once("://").map_or("", |(scheme, _)| scheme);
    scheme.eq_ignore_ascii_case("ws") || scheme.eq_ignore_ascii_case("wss")
}

/// Splits path and query at the first `?`.
pub fn split_query(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

/// Joins two paths. Segments at the end of the first path that the second path repeats at its beginning are written
/// once. A second path without segments leaves the first as it is.
pub fn join_paths(base: &str, path: &str) -> String {
    let base = if base.is_empty() { "/" } else { base };
    if path.trim_matches('/').is_empty() {
        return base.to_owned();
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let stem = base.trim_end_matches('/');
    // A slash at the end of the whole path counts even if the other path does not have it.
    let slashed = |path: String| if base.ends_with('/') && !path.ends_with('/') { path + "/" } else { path };
    let starts = stem.match_indices('/').map(|(at, _)| at);
    let shared = starts.into_iter().find(|at| {
        let rest = path.strip_prefix(&stem[*at..]);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    match shared {
        Some(at) if path.trim_end_matches('/').len() == stem.len() - at => slashed(format!("{}{path}", &stem[..at])),
        Some(at) => format!("{}{path}", &stem[..at]),
        None => format!("{stem}{path}"),
    }
}

/// Joins two queries without `?`; leaves out the parts of the first whose key is in the second.
pub fn join_queries(base: &str, over: &str) -> String {
    let parts = |query: &str| query.split('&').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let key = |part: &str| decode_query_part(part.split('=').next().unwrap_or_default());
    let over = parts(over);
    let kept = parts(base).into_iter().filter(|part| !over.iter().any(|other| key(other) == key(part)));
    kept.chain(over.iter().cloned()).collect::<Vec<_>>().join("&")
}

/// Decodes a name or value of a query.
pub fn decode_query_part(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
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
        assert_eq!(
            endpoint,
            Endpoint {
                tls,
                carrier: CarrierKind::WebSocket,
                unix: None,
                host: host.into(),
                port,
                path: path.into(),
                text: text.into()
            }
        );
        assert_eq!(endpoint.host_header(), header);
    }

    #[rstest]
    #[case("tcp://hub:4203", CarrierKind::ZeroMq { publishes: None })]
    #[case("tcp://[::1]:4203?publishes=4204", CarrierKind::ZeroMq { publishes: Some(4204) })]
    #[case("tcp+lines://hub:4203/", CarrierKind::Lines)]
    fn addresses_without_websocket_name_what_carries_messages(#[case] text: &str, #[case] carrier: CarrierKind) {
        let endpoint: Endpoint = text.parse().unwrap();
        assert_eq!((endpoint.carrier, endpoint.port, endpoint.to_string()), (carrier, 4203, text.to_owned()));
        assert_eq!(endpoint.join(None, &[("a".to_owned(), "b".to_owned())]).unwrap(), endpoint);
    }

    #[rstest]
    #[case("tcp://hub")]
    #[case("tcp://hub:4203/path")]
    #[case("tcp://hub:4203?topic=x")]
    #[case("tcp://hub:4203?publishes=0")]
    #[case("tcp+lines://hub:99999")]
    #[case("tcp+lines://:1")]
    #[case("tcp://a b:1")]
    fn other_addresses_without_websocket_are_wrong(#[case] text: &str) {
        assert!(text.parse::<Endpoint>().is_err());
    }

    #[rstest]
    #[case("ws+unix:/run/hub.sock", "/run/hub.sock", "ws+unix:/run/hub.sock:/x")]
    #[case("ws+unix:///run/hub.sock:/rt?a=1", "/run/hub.sock", "ws+unix:/run/hub.sock:/rt/x?a=1")]
    fn addresses_of_unix_sockets_are_parsed(#[case] text: &str, #[case] socket: &str, #[case] joined: &str) {
        let endpoint: Endpoint = text.parse().unwrap();
        assert_eq!((endpoint.unix.as_deref(), &*endpoint.host_header()), (Some(socket), "localhost"));
        assert!(endpoint.is_loopback());
        assert_eq!(endpoint.join(Some("/x"), &[]).unwrap().to_string(), joined);
        assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
    }

    #[rstest]
    #[case::the_same("ws://h/graphql", "/graphql", "ws://h/graphql")]
    #[case::ends_with_it("ws://h/rt/ws", "/ws", "ws://h/rt/ws")]
    #[case::prefix("ws://h/prefix", "/ws", "ws://h/prefix/ws")]
    #[case::no_path("ws://h", "/ws", "ws://h/ws")]
    #[case::slash("ws://h/", "/ws", "ws://h/ws")]
    #[case::no_slash("ws://h", "ws", "ws://h/ws")]
    #[case::whole_segments("ws://h/myws", "/ws", "ws://h/myws/ws")]
    #[case::not_the_beginning("ws://h/ws", "/wss", "ws://h/ws/wss")]
    #[case::begins_where_the_base_ends("ws://h/x/api/v1", "/api/v1/feed", "ws://h/x/api/v1/feed")]
    #[case::longest_run("ws://h/a/a", "/a/a", "ws://h/a/a")]
    #[case::root("ws://h/prefix/", "/", "ws://h/prefix/")]
    #[case::nothing("ws://h/prefix", "", "ws://h/prefix")]
    #[case::nothing_at_all("ws://h", "", "ws://h/")]
    #[case::slash_of_the_base("ws://h/rt/ws/", "/ws", "ws://h/rt/ws/")]
    #[case::slash_of_the_path("ws://h/rt/ws", "/ws/", "ws://h/rt/ws/")]
    #[case::slash_within("ws://h/rt/", "/ws", "ws://h/rt/ws")]
    #[case::both_queries("ws://h/rt?a=1", "/ws?b=2", "ws://h/rt/ws?a=1&b=2")]
    #[case::the_same_key("ws://h?a=1&b%20c=1&d", "?a=2&b+c=2", "ws://h/?d&a=2&b+c=2")]
    #[case::query_without_path("ws://h?token=1", "/ws", "ws://h/ws?token=1")]
    #[case::as_written("ws://h", "/a/../b%20c", "ws://h/a/../b%20c")]
    #[case::escaped("ws://h", "/a b\r\nX: y#\u{e9}", "ws://h/a%20b%0D%0AX:%20y%23%C3%A9")]
    #[case::full("ws://127.0.0.1:1/rt?a=1", "WSS://localhost:2/x?b=2", "WSS://localhost:2/x?b=2")]
    #[case::full_without_path("ws://127.0.0.1:1/rt?a=1", "ws://[::1]", "ws://[::1]/")]
    #[case::from_another_machine("wss://h/rt", "wss://other/x", "wss://other/x")]
    fn a_path_is_relative_to_the_address_of_the_hub(#[case] hub: &str, #[case] path: &str, #[case] expected: &str) {
        let joined = hub.parse::<Endpoint>().unwrap().join(Some(path), &[]).unwrap();
        assert_eq!(joined.to_string(), expected);
        let parsed: Endpoint = expected.parse().unwrap();
        assert_eq!(
            (joined.tls, joined.host, joined.port, joined.path),
            (parsed.tls, parsed.host, parsed.port, parsed.path)
        );
    }

    #[test]
    fn the_query_of_a_connection_is_encoded_and_wins() {
        let hub: Endpoint = "ws://h/rt?token=old&v=1".parse().unwrap();
        let query = [("token".to_owned(), "a b&c=\u{e9}/+~".to_owned())];
        let joined = |path| hub.join(path, &query).unwrap().path;
        assert_eq!(joined(None), "/rt?v=1&token=a%20b%26c%3D%C3%A9%2F%2B~");
        assert_eq!(joined(Some("/ws?v=2&token=x")), "/rt/ws?v=2&token=a%20b%26c%3D%C3%A9%2F%2B~");
    }

    #[test]
    fn a_connection_never_leads_from_this_machine_to_another() {
        let error = "ws://localhost:1".parse::<Endpoint>().unwrap().join(Some("ws://example.com/x"), &[]).unwrap_err();
        assert_eq!(error.message, "`ws://example.com/x` is on another machine, but the hub is on this one");
        let wrong = "ws://localhost:1".parse::<Endpoint>().unwrap().join(Some("ws://:1/x"), &[]).unwrap_err();
        assert_eq!(wrong.message, "`ws://:1/x` names no host");
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
    #[case("unix:///a", "`unix:///a` is not a WebSocket address", "write ws+unix:/a:/PATH")]
    #[case(
        "ws+unix:a.sock",
        "`ws+unix:a.sock` names no Unix socket by its absolute path",
        "write ws+unix:/run/hub.sock, or ws+unix:/run/hub.sock:/PATH"
    )]
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
