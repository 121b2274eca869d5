//! The io shell: listeners, a task for each connection, and a shutdown that waits.

use std::net::SocketAddr;
use std::task::Waker;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::shutdown::Shutdown;
use crate::machine::Conn;
use crate::machine::settings::SettingsError;
use crate::protocols::websocket::{self, Session};
use crate::server::connection::{self, Door};
use crate::server::hub::{Call, Hub};
use crate::server::tls::{SelfSigned, Tls, TlsError};
use crate::server::{admin, websocket_io};
use crate::{MachineError, Settings};

/// Connections that may wait to be accepted. A storm of thousands in a second must not have to knock twice: whoever finds no
/// place tries again after a second. The system may allow fewer.
const BACKLOG: u32 = 8192;
/// How long a TLS handshake may take.
const TLS_TIME: Duration = Duration::from_secs(10);
/// How long a connection may take to pass on what the machine says when the hub shuts down.
const LAST_WORDS_TIME: Duration = Duration::from_millis(500);
/// How long to wait when the system has no descriptor left for a new connection.
const EXHAUSTED: Duration = Duration::from_millis(50);
/// The longest message unless configured, in bytes.
pub const MAX_MESSAGE: usize = 16 << 20;
/// How many connections a hub holds unless configured.
pub const MAX_CONNECTIONS: usize = 50_000;

/// One hub to serve.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// The protocol it speaks.
    pub protocol: String,
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Its protocol's settings.
    pub settings: Settings,
    /// The one thing it does wrong.
    pub fault: Option<String>,
    /// Whether it speaks TLS.
    pub tls: Option<Tls>,
    /// The longest message in bytes; longer ones close with 1009.
    pub max_message: usize,
    /// How many connections it holds; further ones are hung up on.
    pub max_connections: usize,
}

impl HubConfig {
    /// A correct hub on a free loopback port with the documented settings.
    pub fn new(protocol: impl Into<String>) -> HubConfig {
        HubConfig {
            protocol: protocol.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            settings: Settings::default(),
            fault: None,
            tls: None,
            max_message: MAX_MESSAGE,
            max_connections: MAX_CONNECTIONS,
        }
    }
}

/// What to serve.
#[derive(Debug, Clone, Default)]
pub struct ServeConfig {
    /// The hubs, each on a port of its own. One protocol may appear several times.
    pub hubs: Vec<HubConfig>,
    /// Where the admin side listens, if anywhere.
    pub admin: Option<SocketAddr>,
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A machine cannot be built.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The settings are wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Certificates cannot be had.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address cannot be listened on.
    #[error("failed to listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A file cannot be read or written.
    #[error("failed to {what} {}: {source}", path.display())]
    File {
        /// What was to be done.
        what: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// Why it was not.
        source: std::io::Error,
    },
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The system does not let us wait for signals, or print.
    #[error("failed to {what}: {source}")]
    System {
        /// What was to be done.
        what: &'static str,
        /// Why it was not.
        source: std::io::Error,
    },
}

/// A hub that runs.
#[derive(Debug, Clone)]
pub struct RunningHub {
    /// Its name on the admin side: the protocol, with `-2`, `-3` for further hubs of the same protocol.
    pub name: String,
    /// Its protocol.
    pub protocol: String,
    /// `ws://` or `wss://` with address and port.
    pub url: String,
    /// Where it listens.
    pub addr: SocketAddr,
}

/// Hubs that run. Dropping it ends them too, without waiting.
#[derive(Debug)]
pub struct Running {
    /// In the order of the configuration.
    pub hubs: Vec<RunningHub>,
    /// `http://` with address and port.
    pub admin: Option<String>,
    /// The certificate (PEM) of the authority that vouches for self-signed hubs, where there are any.
    pub ca: Option<String>,
    shutdown: watch::Sender<()>,
    tasks: JoinSet<()>,
}

impl Running {
    /// One line per address: `concierge ws://127.0.0.1:41234`.
    pub fn lines(&self) -> Vec<String> {
        let hubs = self.hubs.iter().map(|hub| format!("{} {}", hub.protocol, hub.url));
        hubs.chain(self.admin.iter().map(|url| format!("admin {url}"))).collect()
    }

    /// Lets every hub say goodbye, closes every connection with 1001, stops listening and waits for all tasks.
    /// Takes one or two seconds at most, for peers that do not read or do not answer the close.
    pub async fn shutdown(mut self) {
        drop(self.shutdown);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Starts hubs and, if wanted, the admin side. When it returns, all of them accept connections.
///
/// Knows no globals, so it can be called many times in one process.
///
/// # Errors
/// [`Error`]; then nothing runs.
pub async fn serve(config: ServeConfig) -> Result<Running, Error> {
    let (shutdown, down) = watch::channel(());
    let down = Shutdown(down);
    let mut self_signed = None;
    let mut hubs: Vec<RunningHub> = Vec::new();
    let mut starts = Vec::new();
    let mut machines = Vec::new();
    for hub in config.hubs {
        let machine = crate::machine(&hub.protocol, &hub.settings, hub.fault.as_deref())?;
        let tls = match hub.tls.as_ref() {
            None => None,
            Some(Tls::Files { cert, key }) => Some(crate::server::tls::from_files(cert, key)?),
            Some(Tls::SelfSigned) => {
                if self_signed.is_none() {
                    self_signed = Some(SelfSigned::generate()?);
                }
                self_signed.as_ref().map(SelfSigned::acceptor)
            }
        };
        let (listener, addr) = listen(hub.listen).await?;
        let protocol = *crate::protocols().iter().find(|known| **known == hub.protocol).unwrap_or(&"hub");
        let earlier = hubs.iter().filter(|other| other.protocol == hub.protocol).count();
        let name = if earlier == 0 { hub.protocol.clone() } else { format!("{}-{}", hub.protocol, earlier + 1) };
        let scheme = if tls.is_some() { "wss" } else { "ws" };
        hubs.push(RunningHub { name: name.clone(), protocol: hub.protocol, url: format!("{scheme}://{addr}"), addr });
        let (running, calls) = Hub::new(machine);
        machines.push((name, running.clone()));
        let session = match protocol {
            websocket::PROTOCOL => Some(Session::new(hub.fault.as_deref())?),
            _ => None,
        };
        let door = Door { protocol, hub: running, max_message: hub.max_message, session, shutdown: down.clone() };
        starts.push((listener, tls, door, calls, hub.max_connections));
    }
    let admin = match config.admin {
        Some(addr) => Some(listen(addr).await?),
        None => None,
    };
    // Nothing can fail from here on.
    let mut tasks = JoinSet::new();
    for (listener, tls, door, calls, max_connections) in starts {
        tasks.spawn(attend_all(listener, tls, door, calls, max_connections));
    }
    let admin = admin.map(|(listener, addr)| {
        tasks.spawn(admin::serve(listener, machines, down));
        format!("http://{addr}")
    });
    Ok(Running { hubs, admin, ca: self_signed.map(|made| made.ca_pem), shutdown, tasks })
}

pub(crate) async fn listen(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let bound = async {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // As the standard library does it: on Windows it would let two hubs share a port.
        #[cfg(not(windows))]
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        let listener = socket.listen(BACKLOG)?;
        let addr = listener.local_addr()?;
        Ok((listener, addr))
    };
    bound.await.map_err(|source| Error::Listen { addr, source })
}

/// A hub from its first connection to its last words.
async fn attend_all(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    door: Door,
    mut calls: mpsc::Receiver<Call>,
    max_connections: usize,
) {
    let mut connections = JoinSet::new();
    tokio::select! {
        // It ends when the hub shuts down.
        () = accept(listener, tls, &door, &mut calls, max_connections, &mut connections) => {}
        () = door.hub.keep_time() => {}
    }
    let listening = door.hub.last_words();
    // Whoever is slow has some time to hear them.
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(LAST_WORDS_TIME, all).await.is_err() {
        for outbox in listening {
            outbox.cut().into_iter().for_each(Waker::wake);
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Takes connections in, and makes those that the machine asks for, until the hub shuts down.
async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    door: &Door,
    calls: &mut mpsc::Receiver<Call>,
    max_connections: usize,
    connections: &mut JoinSet<()>,
) {
    let mut shutdown = door.shutdown.clone();
    let mut next: Conn = 1;
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            Some(_) = connections.join_next() => {}
            Some(Call { conn, url, outbox }) = calls.recv() => {
                connections.spawn(connection::call(url, conn, door.clone(), outbox));
            }
            accepted = listener.accept() => match accepted {
                Ok(_) if connections.len() >= max_connections => {}
                Ok((stream, peer)) => {
                    // Small frames must not wait for more; a socket that refuses is gone anyway.
                    let _ = stream.set_nodelay(true);
                    match tls.clone() {
                        None => connections.spawn(attend(stream, peer, next, door.clone())),
                        Some(tls) => connections.spawn(secure(tls, stream, peer, next, door.clone())),
                    };
                    next += 1;
                }
                Err(_) => tokio::time::sleep(EXHAUSTED).await,
            },
        }
    }
}

async fn secure(tls: TlsAcceptor, stream: TcpStream, peer: SocketAddr, conn: Conn, door: Door) {
    let mut shutdown = door.shutdown.clone();
    let stream = tokio::select! {
        stream = timeout(TLS_TIME, tls.accept(stream)) => stream,
        () = shutdown.wait() => return,
    };
    if let Ok(Ok(stream)) = stream {
        attend(stream, peer, conn, door).await;
    }
}

/// Serves a connection whose stream is there.
async fn attend<S>(stream: S, peer: SocketAddr, conn: Conn, door: Door)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match door.session.clone() {
        None => connection::serve(stream, peer, conn, door).await,
        Some(session) => websocket_io::serve(stream, session, door.shutdown).await,
    }
}
