//! Opens TCP connections to one resolved address, from several source addresses in turn.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

/// Ports per source address, with a margin for other processes.
pub const PORTS_PER_SOURCE: usize = 25_000;

/// Linux tries even ports first. Once most of them are taken, finding one takes hundreds of microseconds per
/// connection, so on loopback, where addresses are free, a source address is used for fewer than half of its ports.
const FAST_PORT_SHARE: f64 = 0.4;
/// The number of ports where the system does not report it.
const USUAL_PORTS: u64 = 28_232;

/// An error in the hub's address or in the source addresses.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("the host name `{host}` does not resolve ({source})")]
    Resolve { host: String, source: io::Error },
    #[error("the host name `{0}` has no address that can be reached from the given source addresses")]
    NoAddress(String),
    #[error("`{0}` is not a list of source addresses; write 127.0.0.2-127.0.0.9, or addresses separated by commas")]
    Sources(String),
    #[error("{from} to {to} are more than {MAX_SOURCES} addresses")]
    TooMany { from: IpAddr, to: IpAddr },
    #[error("failed to connect to {address}: {source}")]
    Unreachable { address: SocketAddr, source: io::Error },
    #[error("{address} cannot be a source address: {source}")]
    Source { address: IpAddr, source: io::Error },
}

/// The timeout of the probing connection.
const PROBE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
/// The most source addresses.
const MAX_SOURCES: u32 = 4096;

/// Parses `127.0.0.2-127.0.0.9,10.0.0.1`.
///
/// # Errors
/// [`DialError::Sources`], [`DialError::TooMany`].
pub fn parse_sources(text: &str) -> Result<Vec<IpAddr>, DialError> {
    let wrong = || DialError::Sources(text.to_owned());
    let mut sources = Vec::new();
    for part in text.split(',').map(str::trim) {
        match part.split_once('-') {
            None => sources.push(part.parse().map_err(|_| wrong())?),
            Some((from, to)) => {
                let from: Ipv4Addr = from.trim().parse().map_err(|_| wrong())?;
                let to: Ipv4Addr = to.trim().parse().map_err(|_| wrong())?;
                let (first, last) = (u32::from(from), u32::from(to));
                if first > last {
                    return Err(wrong());
                }
                if last - first >= MAX_SOURCES {
                    return Err(DialError::TooMany { from: from.into(), to: to.into() });
                }
                sources.extend((first..=last).map(|number| IpAddr::V4(number.into())));
            }
        }
    }
    Ok(sources)
}

/// The dialer of a shard.
#[derive(Clone, Debug)]
pub struct Dialer {
    to: SocketAddr,
    /// The source addresses, used in turn; if there are none, the system chooses.
    sources: Vec<IpAddr>,
    next: usize,
}

impl Dialer {
    /// Resolves the host and checks every source address. On loopback, `connections` get as many source addresses as
    /// they need unless some are given.
    ///
    /// # Errors
    /// [`DialError`]
    pub fn new(host: &str, port: u16, given: &[IpAddr], connections: usize) -> Result<Self, DialError> {
        let found = (host, port).to_socket_addrs();
        let found = found.map_err(|source| DialError::Resolve { host: host.to_owned(), source })?;
        let fits = |to: &SocketAddr| given.iter().all(|source| source.is_ipv4() == to.is_ipv4());
        let found: Vec<SocketAddr> = found.filter(fits).collect();
        // `localhost` may have two addresses; uses the one that accepts connections.
        let wait = std::time::Duration::from_secs(2);
        let heard = found.iter().find(|to| found.len() > 1 && std::net::TcpStream::connect_timeout(to, wait).is_ok());
        let to = heard.or(found.first()).copied().ok_or_else(|| DialError::NoAddress(host.to_owned()))?;
        let mut sources = given.to_vec();
        let ports = super::preflight::ports().unwrap_or(USUAL_PORTS).min(PORTS_PER_SOURCE as u64 * 2);
        let quick = ((ports as f64 * FAST_PORT_SHARE) as usize).max(1);
        if sources.is_empty() && to.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) && connections > quick {
            let wanted = connections.div_ceil(quick).min(200) as u8;
            sources.extend((1..=wanted).map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))));
        }
        for source in &sources {
            let tried = std::net::UdpSocket::bind((*source, 0));
            tried.map_err(|error| DialError::Source { address: *source, source: error })?;
        }
        Ok(Self { to, sources, next: 0 })
    }

    /// Returns the hub's address.
    pub fn hub_address(&self) -> SocketAddr {
        self.to
    }

    /// Checks whether the hub accepts TCP connections.
    ///
    /// # Errors
    /// [`DialError::Unreachable`].
    pub fn probe(&self) -> Result<(), DialError> {
        let tried = std::net::TcpStream::connect_timeout(&self.to, PROBE_TIMEOUT);
        tried.map(drop).map_err(|source| DialError::Unreachable { address: self.to, source })
    }

    /// Returns the source addresses; empty where the system chooses.
    pub fn sources(&self) -> &[IpAddr] {
        &self.sources
    }

    /// Returns a dialer for another shard, which begins with another source address.
    pub fn for_shard(&self, shard: usize) -> Self {
        Self { next: shard, ..self.clone() }
    }

    /// Starts to connect; the stream becomes writable when the connection is open or has failed. `from`: the source
    /// address for this connection.
    ///
    /// # Errors
    /// Errors of the system, such as a lack of descriptors or ports.
    pub fn connect(&mut self, from: Option<IpAddr>) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(self.to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        let source = from.or_else(|| {
            self.next = self.next.wrapping_add(1);
            self.sources.get(self.next % self.sources.len().max(1)).copied()
        });
        if let Some(source) = source {
            defer_port_choice(&socket);
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&self.to.into()) {
            Err(error) if !is_under_way(&error) => return Err(error),
            _ => {}
        }
        Ok(TcpStream::from_std(socket.into()))
    }
}

#[cfg(unix)]
fn is_under_way(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
}

#[cfg(not(unix))]
fn is_under_way(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Defers the choice of the port until the destination is known, so that ports are counted per destination. If this
/// fails, ports only run out earlier.
#[cfg(target_os = "linux")]
fn defer_port_choice(socket: &Socket) {
    let _ = nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true);
}

#[cfg(not(target_os = "linux"))]
fn defer_port_choice(_socket: &Socket) {}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("127.0.0.2", &["127.0.0.2"])]
    #[case("127.0.0.254-127.0.1.1", &["127.0.0.254", "127.0.0.255", "127.0.1.0", "127.0.1.1"])]
    #[case("127.0.0.2 - 127.0.0.3, ::1", &["127.0.0.2", "127.0.0.3", "::1"])]
    fn lists_and_ranges_of_source_addresses_are_parsed(#[case] text: &str, #[case] expected: &[&str]) {
        let expected: Vec<IpAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(parse_sources(text).unwrap(), expected);
    }

    #[rstest]
    #[case("", "is not a list of source addresses")]
    #[case("127.0.0.9-127.0.0.2", "is not a list of source addresses")]
    #[case("127.0.0.2-", "is not a list of source addresses")]
    #[case("10.0.0.0-11.0.0.0", "more than 4096")]
    fn invalid_source_addresses_are_rejected(#[case] text: &str, #[case] about: &str) {
        let error = parse_sources(text).unwrap_err().to_string();
        assert!(error.contains(about), "{error}");
    }

    #[test]
    fn a_source_address_of_another_machine_is_an_error() {
        let error = Dialer::new("127.0.0.1", 1, &["203.0.113.1".parse().unwrap()], 1).unwrap_err().to_string();
        assert!(error.starts_with("203.0.113.1 cannot be a source address: "), "{error}");
    }

    #[test]
    fn loopback_runs_use_enough_source_addresses_for_their_connections() {
        let sources = |connections| Dialer::new("127.0.0.1", 1, &[], connections).unwrap().sources().len();
        let ports = crate::load::engine::preflight::ports().unwrap_or(USUAL_PORTS) as usize;
        assert_eq!(sources(ports / 4), 0);
        assert_eq!(sources(ports / 2), 2);
        assert_eq!(sources(ports), 3);
    }
}
