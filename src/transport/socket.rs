//! Opens an upgraded stream to an endpoint: TCP, TLS and upgrade, under one deadline.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::proxy::{Proxy, ProxyError};
use super::tls::CertificateRequest;
use super::{ConnectRequest, ConnectionEvent, Endpoint, carrier, tls};
use crate::config::TlsOptions;
use crate::websocket::endpoint::CarrierKind;
use crate::websocket::frame::NO_ANSWER;
use crate::websocket::handshake::{self, ResponseHead};

/// How long to wait for the rest of a refusal's body.
const BODY_WAIT: Duration = Duration::from_secs(1);
/// The most answers with status 1xx before the final one. A flood of them would keep the deadline from being checked.
const MAX_INTERIM_ANSWERS: u32 = 8;
/// The size in bytes of each read of heads and frames.
pub(super) const READ_CHUNK: usize = 16 << 10;

/// A byte stream that can be reset.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {
    /// Makes the end of the stream a reset, where its kind has resets.
    ///
    /// # Errors
    /// The connection is already gone.
    fn set_zero_linger(&self) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn set_zero_linger(&self) -> io::Result<()> {
        TcpStream::set_zero_linger(self)
    }
}

#[cfg(unix)]
impl Socket for tokio::net::UnixStream {
    fn set_zero_linger(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for tokio_rustls::client::TlsStream<TcpStream> {
    fn set_zero_linger(&self) -> io::Result<()> {
        self.get_ref().0.set_zero_linger()
    }
}

/// The result of an attempt to open a connection.
pub(super) struct OpenAttempt {
    /// The first event of the connection; also the last one if there is no stream.
    pub first: ConnectionEvent,
    pub stream: Option<UpgradedStream>,
}

/// An upgraded stream, and the bytes that were read after the upgrade.
pub(super) struct UpgradedStream {
    pub socket: Box<dyn Socket>,
    pub rest: Vec<u8>,
}

/// Why a connection could not be opened, before the upgrade.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("`{0}` is not a source address")]
    NoSource(String),
    #[error("no connection to {authority} within {within}")]
    Late { authority: String, within: String },
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    #[error("TLS: `{0}` is not a valid name for a certificate")]
    Name(String),
    #[error("no TLS handshake with {authority} within {within}: should the address be ws:// instead of wss://?")]
    LateHandshake { authority: String, within: String },
    #[error("TLS: {0} closed the connection during the handshake: should the address be ws:// instead of wss://?")]
    ClosedHandshake(String),
    #[error("{}", tls::explain_handshake_error(.0))]
    Handshake(#[source] io::Error),
    #[error("{0}")]
    Certificate(&'static str),
    #[error("the host name `{host}` does not resolve ({source})")]
    Resolve { host: String, source: io::Error },
    #[error("the host name `{0}` has no address that can be reached from the given source address")]
    NoAddress(String),
    #[error("nothing listens at {0} (connection refused)")]
    Refused(SocketAddr),
    #[error("no connection to {address}: {source}")]
    Failed { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    NoProxy(#[from] ProxyError),
    #[error("no connection to {proxy}: {source}")]
    Proxy { proxy: String, source: Box<ConnectError> },
    #[error("{proxy} opens no tunnel to {to}: {why}")]
    Tunnel { proxy: String, to: String, why: String },
    #[error("no connection to the Unix socket {path}: {source}")]
    Unix { path: String, source: io::Error },
    #[error("{address} cannot be used as a source address: {source}")]
    Source { address: IpAddr, source: io::Error },
}

/// A missing or invalid answer to the upgrade.
pub(super) struct UpgradeError {
    reason: String,
    /// Whether the answer exceeds a limit.
    bound: bool,
    /// Whether the stream ended before an answer.
    ended: bool,
}

impl UpgradeError {
    fn ended(reason: String) -> Self {
        Self { reason, bound: false, ended: true }
    }
}

impl From<String> for UpgradeError {
    fn from(reason: String) -> Self {
        Self { reason, bound: false, ended: false }
    }
}

impl OpenAttempt {
    pub(super) fn no_upgrade(UpgradeError { reason, bound, .. }: UpgradeError) -> Self {
        Self { first: ConnectionEvent::NoUpgrade { reason, bound }, stream: None }
    }

    pub(super) fn unreachable(reason: String) -> Self {
        Self { first: ConnectionEvent::Unreachable { reason }, stream: None }
    }
}

/// Connects and upgrades as a client.
pub(super) async fn connect(request: &ConnectRequest) -> OpenAttempt {
    let deadline = Instant::now() + request.timeout;
    let fresh = handshake::generate_key();
    let key = request.dial.key(&fresh);
    let endpoint = match request.dial.address(&request.endpoint) {
        Ok(endpoint) => endpoint,
        Err(error) => return OpenAttempt::unreachable(error.to_string()),
    };
    if endpoint.carrier != CarrierKind::WebSocket {
        return carrier::open(request, &endpoint, deadline).await;
    }
    let head = match request.dial.request(&endpoint, key) {
        Ok(head) => head,
        Err(error) => return OpenAttempt::unreachable(format!("the upgrade request cannot be written: {error}")),
    };
    match connect_stream(request, &endpoint, deadline).await {
        Ok((socket, certificate)) => match upgrade(socket, request, key, &head, deadline).await {
            Ok(opened) => opened,
            Err(error) => match certificate.and_then(|request| request.explain_end(None)).filter(|_| error.ended) {
                Some(why) => OpenAttempt::unreachable(why.to_owned()),
                None => OpenAttempt::no_upgrade(error),
            },
        },
        Err(error) => OpenAttempt::unreachable(error.to_string()),
    }
}

pub(super) async fn connect_stream(
    request: &ConnectRequest,
    endpoint: &Endpoint,
    deadline: Instant,
) -> Result<(Box<dyn Socket>, Option<CertificateRequest>), ConnectError> {
    let authority = endpoint.authority();
    let within = format_seconds(request.timeout);
    let parsed = |from: &str| from.parse().map_err(|_| ConnectError::NoSource(from.to_owned()));
    let source = request.dial.from.as_deref().map(parsed).transpose()?;
    if let Some(path) = &endpoint.unix {
        return Ok((connect_unix(path).await?, None));
    }
    let proxy = match endpoint.carrier {
        CarrierKind::WebSocket => Proxy::for_hub(endpoint, &|name| std::env::var(name).ok())?,
        CarrierKind::ZeroMq { .. } | CarrierKind::Lines => None,
    };
    let connecting = async {
        match proxy {
            Some(proxy) => connect_through(proxy, endpoint, source).await,
            None => connect_tcp(&endpoint.host, endpoint.port, source).await,
        }
    };
    let tcp = timeout_at(deadline, connecting).await;
    let late = |_| ConnectError::Late { authority: authority.clone(), within: within.clone() };
    let tcp = tcp.map_err(late)??;
    if !endpoint.tls {
        return Ok((Box::new(tcp), None));
    }
    let config = match &request.tls {
        Some(config) => config.clone(),
        None => tls::client_config(&TlsOptions::default())?,
    };
    let (config, certificate) = tls::watch_requests(&config);
    let name = ServerName::try_from(endpoint.host.clone());
    let name = name.map_err(|_| ConnectError::Name(endpoint.host.clone()))?;
    match timeout_at(deadline, TlsConnector::from(config).connect(name, tcp)).await {
        Err(_) => Err(ConnectError::LateHandshake { authority, within }),
        Ok(Err(error)) => Err(match certificate.explain_end(Some(&error)) {
            Some(why) => ConnectError::Certificate(why),
            None if is_reset(&error) => ConnectError::ClosedHandshake(authority),
            None => ConnectError::Handshake(error),
        }),
        Ok(Ok(stream)) => Ok((Box::new(stream), Some(certificate))),
    }
}

#[cfg(unix)]
async fn connect_unix(path: &str) -> Result<Box<dyn Socket>, ConnectError> {
    let failed = |source| ConnectError::Unix { path: path.to_owned(), source };
    Ok(Box::new(tokio::net::UnixStream::connect(path).await.map_err(failed)?))
}

#[cfg(not(unix))]
async fn connect_unix(path: &str) -> Result<Box<dyn Socket>, ConnectError> {
    Err(ConnectError::Unix { path: path.to_owned(), source: io::ErrorKind::Unsupported.into() })
}

/// Opens a tunnel to the endpoint.
async fn connect_through(proxy: Proxy, endpoint: &Endpoint, source: Option<IpAddr>) -> Result<TcpStream, ConnectError> {
    let connected = connect_tcp(&proxy.host, proxy.port, source).await;
    let mut tcp =
        connected.map_err(|source| ConnectError::Proxy { proxy: proxy.to_string(), source: source.into() })?;
    let failed = |why: String| ConnectError::Tunnel { proxy: proxy.to_string(), to: endpoint.authority(), why };
    // If this fails, reading fails too.
    let _ = tcp.write_all(proxy.tunnel_request(endpoint).as_bytes()).await;
    let mut buffer = Vec::new();
    loop {
        match handshake::parse_response_head(&buffer).map_err(|error| failed(format!("its answer: {error}")))? {
            // The hub sends nothing before it is asked, so no bytes follow the head.
            Some(head) if (200..300).contains(&head.status) && buffer.len() == head.length => return Ok(tcp),
            Some(head) if head.status == 407 => {
                let why = "it asks for a user and a password (HTTP 407): write http://USER:PASSWORD@HOST:PORT";
                return Err(failed(why.to_owned()));
            }
            Some(head) => return Err(failed(format!("it answered with HTTP {}", head.status))),
            None => match read_more(&mut tcp, &mut buffer).await {
                Ok(1..) => {}
                Ok(0) => return Err(failed("it closed the connection".to_owned())),
                Err(error) => return Err(failed(error.to_string())),
            },
        }
    }
}

/// Tries all addresses of the host, in the resolver's order.
async fn connect_tcp(host: &str, port: u16, source: Option<IpAddr>) -> Result<TcpStream, ConnectError> {
    let addresses = lookup_host((host, port)).await;
    let addresses = addresses.map_err(|source| ConnectError::Resolve { host: host.to_owned(), source })?;
    let mut failure = None;
    for address in addresses.filter(|address| source.is_none_or(|source| source.is_ipv4() == address.is_ipv4())) {
        match connect_address(address, source).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| ConnectError::NoAddress(host.to_owned())))
}

async fn connect_address(address: SocketAddr, source: Option<IpAddr>) -> Result<TcpStream, ConnectError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::Refused(address),
        _ => ConnectError::Failed { address, source },
    };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
    if let Some(source) = source {
        let bound = socket.bind(SocketAddr::new(source, 0));
        bound.map_err(|error| ConnectError::Source { address: source, source: error })?;
    }
    let stream = socket.connect(address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

async fn upgrade(
    mut socket: Box<dyn Socket>,
    request: &ConnectRequest,
    key: &str,
    bytes: &[u8],
    deadline: Instant,
) -> Result<OpenAttempt, UpgradeError> {
    // Ignore a failed write: a hub may have answered and closed without reading, so its answer must still be read.
    let _ = timeout_at(deadline, async { socket.write_all(bytes).await.and(socket.flush().await) }).await;

    let mut buffer = Vec::new();
    let head = read_answer_head(&mut socket, &mut buffer, request, deadline).await?;
    let mut rest = buffer.split_off(head.length);
    match handshake::judge_response(head.clone(), key, &request.dial.subprotocols) {
        ConnectionEvent::Refused { status, headers, reason, .. } => {
            let deadline = deadline.min(Instant::now() + BODY_WAIT);
            let body = loop {
                let (body, complete) = handshake::refusal_body(&head, &rest);
                // Chunks of one byte take six bytes each; beyond this limit, the body is cut.
                if complete || rest.len() > 8 * handshake::MAX_BODY_BYTES {
                    break body;
                }
                match timeout_at(deadline, read_more(&mut socket, &mut rest)).await {
                    Ok(Ok(1..)) => {}
                    _ => break body,
                }
            };
            let reason = handshake::describe_refusal(&reason, status, &headers, &body);
            Ok(OpenAttempt { first: ConnectionEvent::Refused { status, headers, body, reason }, stream: None })
        }
        first => Ok(OpenAttempt { first, stream: Some(UpgradedStream { socket, rest }) }),
    }
}

/// Reads until the buffer begins with the head of the final answer to an upgrade request.
async fn read_answer_head(
    socket: &mut Box<dyn Socket>,
    buffer: &mut Vec<u8>,
    request: &ConnectRequest,
    deadline: Instant,
) -> Result<ResponseHead, UpgradeError> {
    let mut interim = 0;
    loop {
        match handshake::parse_response_head(buffer) {
            Err(error) => {
                let reason = format!("the answer to the upgrade cannot be understood: {error}");
                return Err(UpgradeError { reason, bound: error.exceeds_limit(), ended: false });
            }
            // The final answer follows (RFC 9110, section 15.2).
            Ok(Some(head)) if (100..200).contains(&head.status) && head.status != 101 => {
                interim += 1;
                if interim > MAX_INTERIM_ANSWERS {
                    let reason = format!(
                        "more than {MAX_INTERIM_ANSWERS} interim answers (HTTP {}) to the upgrade",
                        head.status
                    );
                    return Err(UpgradeError { reason, bound: true, ended: false });
                }
                buffer.drain(..head.length);
            }
            Ok(Some(head)) => return Ok(head),
            Ok(None) => {
                let begun = !buffer.is_empty();
                match timeout_at(deadline, read_more(socket, buffer)).await {
                    Ok(Ok(0)) if begun => {
                        return Err("the hub closed the connection in the middle of its answer to the upgrade"
                            .to_owned()
                            .into());
                    }
                    Ok(Ok(0)) => {
                        return Err(UpgradeError::ended(format!(
                            "the hub closed the connection before answering the upgrade{}",
                            tls_hint(request)
                        )));
                    }
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) if is_reset(&error) => {
                        return Err(UpgradeError::ended(format!(
                            "the hub reset the connection before answering the upgrade{}",
                            tls_hint(request)
                        )));
                    }
                    Ok(Err(error)) => {
                        let is_tls = error.get_ref().is_some_and(|why| why.is::<rustls::Error>());
                        return Err(UpgradeError::ended(if is_tls {
                            tls::explain_handshake_error(&error)
                        } else {
                            format!("reading the answer to the upgrade failed: {error}")
                        }));
                    }
                    Err(_) if begun => {
                        let within = format_seconds(request.timeout);
                        return Err(format!("no complete answer to the upgrade within {within}").into());
                    }
                    Err(_) => {
                        return Err(format!("{NO_ANSWER} within {}", format_seconds(request.timeout)).into());
                    }
                }
            }
        }
    }
}

/// Returns what to try if a plain connection ended without an answer: a server that expects TLS may end it like that.
fn tls_hint(request: &ConnectRequest) -> &'static str {
    if request.endpoint.tls { "" } else { " (if it expects TLS, use wss:// instead of ws://)" }
}

/// Waits for an upgrade request, as a server, and answers it.
pub(super) async fn accept(mut socket: TcpStream, subprotocols: &[String], timeout: Duration) -> OpenAttempt {
    let deadline = Instant::now() + timeout;
    let violation = |what: String| OpenAttempt {
        first: ConnectionEvent::Violation { what, section: "4.1", bound: false },
        stream: None,
    };
    let mut buffer = Vec::new();
    let head = loop {
        match handshake::parse_request_head(&buffer) {
            Err(error) => return violation(format!("the upgrade request cannot be understood: {error}")),
            Ok(Some(head)) => break head,
            Ok(None) => match timeout_at(deadline, read_more(&mut socket, &mut buffer)).await {
                Ok(Ok(1..)) => {}
                Ok(_) => {
                    return violation("the connection ended before a complete upgrade request was received".to_owned());
                }
                Err(_) => return violation(format!("no upgrade request within {}", format_seconds(timeout))),
            },
        }
    };
    let rest = buffer.split_off(head.length);
    let (answer, first) = handshake::answer_request(head, subprotocols);
    // If this fails, reading fails too and is reported.
    let _ = timeout_at(deadline, socket.write_all(&answer)).await;
    let upgraded = matches!(first, ConnectionEvent::Upgraded { .. });
    OpenAttempt { first, stream: upgraded.then(|| UpgradedStream { socket: Box::new(socket), rest }) }
}

/// Reads once, at most [`READ_CHUNK`] bytes.
async fn read_more(socket: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<usize> {
    buffer.reserve(READ_CHUNK / 4);
    socket.take(READ_CHUNK as u64).read_buf(buffer).await
}

/// Whether the error means that the peer reset the stream.
pub(super) fn is_reset(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof)
}

/// Formats a duration as `5 s` or `200 ms`.
pub(super) fn format_seconds(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{} s", duration.as_secs())
    } else {
        format!("{} ms", duration.as_millis())
    }
}
