//! Listeners, a task for each connection, and a graceful shutdown.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::machine::ConnectionId;
use crate::machine::settings::SettingsError;
use crate::protocols::qi;
use crate::protocols::websocket::{self, Session};
use crate::server::ShutdownSignal;
use crate::server::connection::{self, ConnectionContext};
use crate::server::hub::{Hub, OutgoingConnection};
use crate::server::meter::{Meter, MeteredStream};
use crate::server::tls::{HubCertificate, SelfSignedCertificate, TlsError};
use crate::server::{admin, websocket_io, zeromq_io};
use crate::zmtp::SocketKind;
use crate::{MachineError, Settings};

/// The backlog of a listener, for thousands of connections per second: a client that finds it full retries only
/// after a second. The system may allow fewer.
const BACKLOG: u32 = 8192;
/// How long a TLS handshake may take.
const TLS_TIME: Duration = Duration::from_secs(10);
/// How long a connection may take to send its last messages when the hub shuts down.
const SHUTDOWN_TIME: Duration = Duration::from_millis(500);
/// The delay after a failed accept, for example when no file descriptor is left.
const ACCEPT_RETRY_TIME: Duration = Duration::from_millis(50);
/// The default limit of a message in bytes.
pub const MAX_MESSAGE: usize = 16 << 20;
/// The default limit of connections of a hub.
pub const MAX_CONNECTIONS: usize = 50_000;

/// One hub to serve.
#[derive(Debug, Clone)]
pub struct HubConfig {
    pub protocol: String,
    /// The address at which the hub listens; port 0 chooses a free one.
    pub listen: SocketAddr,
    /// The address at which the hub answers requests over ZeroMQ, if anywhere; it publishes at the next port. With port 0,
    /// both are free ones.
    pub zeromq: Option<SocketAddr>,
    /// The settings of the hub's protocol.
    pub settings: Settings,
    /// The id of the hub's fault, if any.
    pub fault: Option<String>,
    /// The hub's certificate, if it uses TLS.
    pub tls: Option<HubCertificate>,
    /// The longest message in bytes; longer ones close with 1009.
    pub max_message: usize,
    /// The largest number of connections; further ones are closed.
    pub max_connections: usize,
}

impl HubConfig {
    /// A correct hub on a free loopback port with the documented settings.
    pub fn new(protocol: impl Into<String>) -> HubConfig {
        HubConfig {
            protocol: protocol.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            zeromq: None,
            settings: Settings::default(),
            fault: None,
            tls: None,
            max_message: MAX_MESSAGE,
            max_connections: MAX_CONNECTIONS,
        }
    }
}

/// The configuration of a server.
#[derive(Debug, Clone, Default)]
pub struct ServeConfig {
    /// The hubs, each on its own port. One protocol may appear several times.
    pub hubs: Vec<HubConfig>,
    /// Where the admin side listens, if anywhere.
    pub admin: Option<SocketAddr>,
    /// The token of the admin side; `None` for a random one.
    pub admin_token: Option<String>,
}

/// The server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("failed to listen on {addr}: {source}")]
    Listen { addr: SocketAddr, source: std::io::Error },
    #[error("failed to {what} {}: {source}", path.display())]
    File { what: &'static str, path: std::path::PathBuf, source: std::io::Error },
    #[error("{0}")]
    Usage(String),
    #[error("failed to {what}: {source}")]
    System { what: &'static str, source: std::io::Error },
}

/// A running hub.
#[derive(Debug, Clone)]
pub struct RunningHub {
    /// The hub's name on the admin side: the protocol, with `-2`, `-3` for further hubs of the same protocol.
    pub name: String,
    pub protocol: String,
    /// The hub's URL: `ws://` or `wss://` with address and port.
    pub url: String,
    /// The address at which the hub listens.
    pub addr: SocketAddr,
    /// The addresses at which the hub answers requests and publishes over ZeroMQ, if it does.
    pub zeromq: Option<[SocketAddr; 2]>,
}

/// Running hubs. Dropping it ends them without waiting.
#[derive(Debug)]
pub struct RunningServer {
    /// The hubs, in the order of the configuration.
    pub hubs: Vec<RunningHub>,
    /// The URL of the admin side: `http://` with address, port and, as its path, the token.
    pub admin: Option<String>,
    /// The CA certificate (PEM) of self-signed hubs, if there are any.
    pub ca: Option<String>,
    shutdown: watch::Sender<()>,
    tasks: JoinSet<()>,
}

impl RunningServer {
    /// Returns one line per address: `concierge ws://127.0.0.1:41234`.
    pub fn address_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for hub in &self.hubs {
            lines.push(format!("{} {}", hub.protocol, hub.url));
            if let Some([replies, publishes]) = hub.zeromq {
                lines.push(format!("zeromq tcp://{replies}"));
                lines.push(format!("zeromq-publishes tcp://{publishes}"));
            }
        }
        lines.extend(self.admin.iter().map(|url| format!("admin {url}")));
        lines
    }

    /// Shuts every hub down, closes every connection with 1001, stops listening and waits for all tasks: at most one or
    /// two seconds, for peers that do not read or do not answer the close.
    pub async fn shutdown(mut self) {
        drop(self.shutdown);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Starts hubs and, if configured, the admin side; once it returns, all of them accept connections.
///
/// Uses no global state, so it can be called many times in one process.
///
/// # Errors
/// [`ServeError`]; nothing runs then.
pub async fn start_server(config: ServeConfig) -> Result<RunningServer, ServeError> {
    let (shutdown, down) = watch::channel(());
    let down = ShutdownSignal(down);
    let mut self_signed = None;
    let mut hubs: Vec<RunningHub> = Vec::new();
    let mut starts = Vec::new();
    let mut machines = Vec::new();
    for hub in config.hubs {
        let machine = crate::build_machine(&hub.protocol, &hub.settings, hub.fault.as_deref())?;
        let tls = tls_acceptor(hub.tls.as_ref(), &mut self_signed)?;
        let (listener, addr) = bind_listener(hub.listen).await?;
        let protocol = *crate::protocols().iter().find(|known| **known == hub.protocol).unwrap_or(&"hub");
        let earlier = hubs.iter().filter(|other| other.protocol == hub.protocol).count();
        let name = if earlier == 0 { hub.protocol.clone() } else { format!("{}-{}", hub.protocol, earlier + 1) };
        let scheme = if tls.is_some() { "wss" } else { "ws" };
        let mut listeners = vec![(listener, Transport::WebSocket(tls))];
        let zeromq = bind_zeromq(&hub, &mut listeners).await?;
        let url = format!("{scheme}://{addr}");
        hubs.push(RunningHub { name: name.clone(), protocol: hub.protocol, url, addr, zeromq });
        let (running, calls) = Hub::new(machine);
        machines.push((name, running.clone()));
        let session = match protocol {
            websocket::PROTOCOL => Some(Session::new(hub.fault.as_deref())?),
            _ => None,
        };
        let context = ConnectionContext {
            protocol,
            hub: running,
            max_message: hub.max_message,
            session,
            unread: Arc::default(),
            shutdown: down.clone(),
        };
        starts.push((listeners, context, calls, hub.max_connections));
    }
    let admin = match config.admin {
        Some(addr) => Some(bind_listener(addr).await?),
        None => None,
    };
    // From here on, nothing can fail.
    let mut tasks = JoinSet::new();
    for (listeners, context, calls, max_connections) in starts {
        tasks.spawn(run_hub(listeners, context, calls, max_connections));
    }
    let admin = admin.map(|(listener, addr)| {
        let token = config.admin_token.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
        let url = format!("http://{addr}/{token}");
        tasks.spawn(admin::serve_admin(listener, token, machines, down));
        url
    });
    Ok(RunningServer { hubs, admin, ca: self_signed.map(|made| made.ca_pem), shutdown, tasks })
}

/// Returns what accepts TLS connections with a certificate; generates the self-signed one when first needed.
fn tls_acceptor(
    certificate: Option<&HubCertificate>,
    self_signed: &mut Option<SelfSignedCertificate>,
) -> Result<Option<TlsAcceptor>, TlsError> {
    match certificate {
        None => Ok(None),
        Some(HubCertificate::Files { cert, key }) => crate::server::tls::acceptor_from_files(cert, key).map(Some),
        Some(HubCertificate::SelfSigned) => {
            if self_signed.is_none() {
                *self_signed = Some(SelfSignedCertificate::generate()?);
            }
            Ok(self_signed.as_ref().map(SelfSignedCertificate::tls_acceptor))
        }
    }
}

/// What the clients of a listener speak.
#[derive(Clone)]
enum Transport {
    WebSocket(Option<TlsAcceptor>),
    Zeromq(SocketKind),
}

type HubListener = (TcpListener, Transport);

/// Adds the listeners of a hub that speaks ZeroMQ, and returns their addresses.
async fn bind_zeromq(hub: &HubConfig, listeners: &mut Vec<HubListener>) -> Result<Option<[SocketAddr; 2]>, ServeError> {
    let Some(first) = hub.zeromq else { return Ok(None) };
    if hub.protocol != qi::PROTOCOL {
        let why = "its connections depend on their upgrade requests, which ZeroMQ does not have";
        let help = format!("serve {} alone", qi::PROTOCOL);
        return Err(ServeError::Usage(format!("{} cannot be served over ZeroMQ: {why}; {help}", hub.protocol)));
    }
    let mut second = first;
    if first.port() != 0 {
        let next = first.port().checked_add(1);
        second.set_port(next.ok_or_else(|| ServeError::Usage(format!("there is no port after {}", first.port())))?);
    }
    let (replies, first) = bind_listener(first).await?;
    let (publishes, second) = bind_listener(second).await?;
    listeners.push((replies, Transport::Zeromq(SocketKind::Rep)));
    listeners.push((publishes, Transport::Zeromq(SocketKind::Pub)));
    Ok(Some([first, second]))
}

pub(crate) async fn bind_listener(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let bound = async {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // As in the standard library: on Windows this would let two hubs share a port.
        #[cfg(not(windows))]
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        let listener = socket.listen(BACKLOG)?;
        let addr = listener.local_addr()?;
        Ok((listener, addr))
    };
    bound.await.map_err(|source| ServeError::Listen { addr, source })
}

/// Runs a hub until it shuts down.
async fn run_hub(
    listeners: Vec<HubListener>,
    context: ConnectionContext,
    mut calls: mpsc::Receiver<OutgoingConnection>,
    max_connections: usize,
) {
    let mut connections = JoinSet::new();
    tokio::select! {
        // Returns when the hub shuts down.
        () = accept_connections(listeners, &context, &mut calls, max_connections, &mut connections) => {}
        () = context.hub.keep_time() => {}
    }
    let listening = context.hub.shut_down();
    // Slow connections get some time to send their last messages.
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(SHUTDOWN_TIME, all).await.is_err() {
        for outbox in listening {
            outbox.cut().into_iter().for_each(Waker::wake);
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Accepts connections and makes outgoing ones until the hub shuts down.
async fn accept_connections(
    listeners: Vec<HubListener>,
    context: &ConnectionContext,
    calls: &mut mpsc::Receiver<OutgoingConnection>,
    max_connections: usize,
    connections: &mut JoinSet<()>,
) {
    let mut shutdown = context.shutdown.clone();
    let mut next: ConnectionId = 1;
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            Some(_) = connections.join_next() => {}
            Some(OutgoingConnection { conn, url, outbox }) = calls.recv() => {
                connections.spawn(connection::serve_outgoing_connection(url, conn, context.clone(), outbox));
            }
            accepted = accept_any(&listeners, next) => match accepted {
                Ok(_) if connections.len() >= max_connections => {}
                Ok((stream, peer, transport)) => {
                    // Without Nagle's algorithm, small frames are sent at once; an error shows on the next write.
                    let _ = stream.set_nodelay(true);
                    let context = context.clone();
                    match transport.clone() {
                        Transport::WebSocket(None) => connections.spawn(serve_stream(stream, peer, next, context)),
                        Transport::WebSocket(Some(tls)) => {
                            connections.spawn(serve_tls_connection(tls, stream, peer, next, context))
                        }
                        Transport::Zeromq(kind) => {
                            let stream = MeteredStream { stream, meter: Meter::new(context.unread.clone()) };
                            connections.spawn(zeromq_io::serve_zeromq(stream, kind, peer.ip(), next, context))
                        }
                    };
                    next += 1;
                }
                Err(_) => tokio::time::sleep(ACCEPT_RETRY_TIME).await,
            },
        }
    }
}

/// Accepts a connection at any of the listeners. They take turns, so that none keeps the others waiting.
async fn accept_any(listeners: &[HubListener], turn: u64) -> std::io::Result<(TcpStream, SocketAddr, &Transport)> {
    let first = (turn % listeners.len() as u64) as usize;
    poll_fn(|context| {
        for (listener, transport) in listeners[first..].iter().chain(&listeners[..first]) {
            if let Poll::Ready(accepted) = listener.poll_accept(context) {
                return Poll::Ready(accepted.map(|(stream, peer)| (stream, peer, transport)));
            }
        }
        Poll::Pending
    })
    .await
}

async fn serve_tls_connection(
    tls: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    conn: ConnectionId,
    context: ConnectionContext,
) {
    let mut shutdown = context.shutdown.clone();
    let stream = tokio::select! {
        stream = timeout(TLS_TIME, tls.accept(stream)) => stream,
        () = shutdown.wait() => return,
    };
    if let Ok(Ok(stream)) = stream {
        serve_stream(stream, peer, conn, context).await;
    }
}

/// Serves a connection over an established stream.
async fn serve_stream<S>(stream: S, peer: SocketAddr, conn: ConnectionId, context: ConnectionContext)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = MeteredStream { stream, meter: Meter::new(context.unread.clone()) };
    match context.session.clone() {
        None => connection::serve_connection(stream, peer, conn, context).await,
        Some(session) => websocket_io::serve_session(stream, session, context.shutdown).await,
    }
}
