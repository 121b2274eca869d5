//! Proxies, as curl treats them: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` in upper or lower case. Hubs
//! on this machine are reached without a proxy.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::percent_decode_str;

use super::Endpoint;

/// The port of a proxy whose address has none.
const DEFAULT_PORT: u16 = 1080;

/// An HTTP proxy. It is displayed without its user and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    pub host: String,
    pub port: u16,
    /// The value of `Proxy-Authorization`.
    credentials: Option<String>,
    /// The environment variable that names the proxy.
    variable: String,
}

/// A proxy that hubproof cannot use. The address is not shown, since it may contain a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the environment variable {0} names no HTTP proxy: write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT")]
pub struct ProxyError(String);

impl Proxy {
    /// Returns the proxy for a hub; `None` for a direct connection.
    ///
    /// # Errors
    /// See [`ProxyError`].
    pub fn for_hub(hub: &Endpoint, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, ProxyError> {
        let get = |name: &str| {
            let names = [name.to_ascii_lowercase(), name.to_owned()];
            names.into_iter().find_map(|name| Some((variable(&name)?, name)).filter(|(value, _)| !value.is_empty()))
        };
        let own = if hub.tls { "HTTPS_PROXY" } else { "HTTP_PROXY" };
        let Some((address, name)) = get(own).or_else(|| get("ALL_PROXY")) else { return Ok(None) };
        let excluded = get("NO_PROXY").is_some_and(|(list, _)| excludes(&list, hub));
        if hub.is_loopback() || excluded {
            return Ok(None);
        }
        Self::parse(&address, &name).map(Some).ok_or(ProxyError(name))
    }

    fn parse(address: &str, variable: &str) -> Option<Self> {
        let rest = match address.split_once("://") {
            Some((scheme, rest)) => scheme.eq_ignore_ascii_case("http").then_some(rest)?,
            None => address,
        };
        let authority = rest.split('/').next()?;
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        let at: Endpoint = format!("ws://{host}").parse().ok()?;
        let port = if host.ends_with(&format!(":{}", at.port)) { at.port } else { DEFAULT_PORT };
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let credentials = user.map(|user| {
            let (user, password) = user.split_once(':').unwrap_or((user, ""));
            format!("Basic {}", BASE64.encode(format!("{}:{}", decoded(user), decoded(password))))
        });
        Some(Self { host: at.host, port, credentials, variable: variable.to_owned() })
    }

    /// Returns the request for a tunnel to a hub.
    pub fn tunnel_request(&self, hub: &Endpoint) -> String {
        let (to, credentials) = (hub.authority(), self.credentials.iter());
        let credentials = credentials.map(|value| format!("Proxy-Authorization: {value}\r\n")).collect::<String>();
        format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{credentials}\r\n")
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        write!(f, "the proxy http://{host}:{} ({})", self.port, self.variable)
    }
}

/// Whether an entry of `NO_PROXY` is the hub's host, with or without its port, or a domain of the host, or `*`.
fn excludes(list: &str, hub: &Endpoint) -> bool {
    let host = hub.host.to_ascii_lowercase();
    list.split([',', ' ']).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.to_ascii_lowercase();
        let entry = entry.strip_suffix(&format!(":{}", hub.port)).unwrap_or(&entry);
        let domain = entry.trim_start_matches("*.").trim_start_matches('.').trim_matches(['[', ']']);
        entry == "*" || host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::plain("ws://hub.test", &[("HTTP_PROXY", "http://proxy:3128")], Ok(Some("the proxy http://proxy:3128 (HTTP_PROXY)")))]
    #[case::tls("wss://hub.test", &[("HTTP_PROXY", "http://a"), ("https_proxy", "b")], Ok(Some("the proxy http://b:1080 (https_proxy)")))]
    #[case::every("wss://hub.test", &[("ALL_PROXY", "http://a:80/")], Ok(Some("the proxy http://a:80 (ALL_PROXY)")))]
    #[case::secret("ws://hub.test", &[("HTTP_PROXY", "http://u:p%40@[::1]:8")], Ok(Some("the proxy http://[::1]:8 (HTTP_PROXY)")))]
    #[case::empty("ws://hub.test", &[("HTTP_PROXY", "")], Ok(None))]
    #[case::local("ws://127.0.0.1:1", &[("HTTP_PROXY", "http://a:1")], Ok(None))]
    #[case::excluded("ws://a.hub.test:9", &[("HTTP_PROXY", "http://a:1"), ("NO_PROXY", "other, .hub.test")], Ok(None))]
    #[case::excluded_port("ws://hub.test:9", &[("HTTP_PROXY", "http://a:1"), ("no_proxy", "hub.test:9")], Ok(None))]
    #[case::another_port("ws://hub.test:9", &[("HTTP_PROXY", "http://a:1"), ("no_proxy", "hub.test:8,xhub.test")], Ok(Some("the proxy http://a:1 (HTTP_PROXY)")))]
    #[case::everything("ws://hub.test", &[("HTTP_PROXY", "http://a:1"), ("NO_PROXY", "*")], Ok(None))]
    #[case::socks("ws://hub.test", &[("HTTP_PROXY", "socks5://u:secret@a:1")], Err("HTTP_PROXY"))]
    fn a_proxy_is_that_of_the_environment(
        #[case] hub: &str,
        #[case] environment: &[(&str, &str)],
        #[case] expected: Result<Option<&str>, &str>,
    ) {
        let get = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let found = Proxy::for_hub(&hub.parse().unwrap(), &get);
        let expected = expected.map(|shown| shown.map(str::to_owned)).map_err(|name| ProxyError(name.to_owned()));
        assert_eq!(found.map(|proxy| proxy.map(|proxy| proxy.to_string())), expected);
    }

    #[test]
    fn a_tunnel_is_requested_with_the_credentials_of_the_proxy() {
        let proxy = Proxy::parse("http://u:p%40@proxy:8", "HTTP_PROXY").unwrap();
        let request = proxy.tunnel_request(&"wss://hub.test".parse().unwrap());
        let expected =
            "CONNECT hub.test:443 HTTP/1.1\r\nHost: hub.test:443\r\nProxy-Authorization: Basic dTpwQA==\r\n\r\n";
        assert_eq!(request, expected);
    }
}
