//! The io shell: listeners, one owner task per machine, the mailbox between them, and a shutdown that waits.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use crate::connection::{self, Door};
use crate::machine::{Conn, EventError, Handshake, Input, Machine, Output};
use crate::outbox::{Item, Outbox};
use crate::settings::SettingsError;
use crate::tls::{SelfSigned, Tls, TlsError};
use crate::websocket::{self, Session};
use crate::{MachineError, Settings, admin};

/// How many messages may wait for a machine; whoever has more to say waits.
const MAILBOX: usize = 1024;
/// How many KiB of long messages may wait for a machine.
pub(crate) const BUDGET_KIB: u32 = 64 * 1024;
/// Connections that may wait to be accepted. A storm of thousands in a second must not have to knock twice: whoever finds no
/// place tries again after a second. The system may allow fewer.
const BACKLOG: u32 = 8192;
/// How long a TLS handshake may take.
const TLS_TIME: Duration = Duration::from_secs(10);
/// How long a connection may take to pass on what the machine says when the hub shuts down.
pub(crate) const LAST_WORDS_TIME: Duration = Duration::from_millis(500);
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

/// Tells tasks that the hubs shut down, which they do when [`Running`] goes.
#[derive(Clone)]
pub(crate) struct Shutdown(watch::Receiver<()>);

impl Shutdown {
    /// Waits for it.
    pub async fn wait(&mut self) {
        // Nothing is ever sent; the sender's end is the message.
        while self.0.changed().await.is_ok() {}
    }
}

/// What reaches the task that owns a machine.
pub(crate) enum Mail {
    /// Somebody asks for an upgrade; answers go to the outbox.
    Open { conn: Conn, handshake: Handshake, outbox: Arc<Outbox> },
    /// Anything from a connection, with the place it takes up.
    Input(Input, Option<OwnedSemaphorePermit>),
    /// The admin side asks for the state.
    State(oneshot::Sender<Value>),
    /// The admin side brings an event.
    Event(Value, oneshot::Sender<Result<Value, EventError>>),
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
    let mut mailboxes = Vec::new();
    for hub in config.hubs {
        let machine = crate::machine(&hub.protocol, &hub.settings, hub.fault.as_deref())?;
        let tls = match hub.tls.as_ref() {
            None => None,
            Some(Tls::Files { cert, key }) => Some(crate::tls::from_files(cert, key)?),
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
        let (mailbox, mail) = mpsc::channel(MAILBOX);
        mailboxes.push((name, mailbox.clone()));
        let budget = Arc::new(Semaphore::new(BUDGET_KIB as usize));
        let session = match protocol {
            websocket::PROTOCOL => Some(Session::new(hub.fault.as_deref())?),
            _ => None,
        };
        let door = Door { protocol, mailbox, budget, max_message: hub.max_message, session, shutdown: down.clone() };
        starts.push((machine, mail, listener, tls, door, hub.max_connections));
    }
    let admin = match config.admin {
        Some(addr) => Some(listen(addr).await?),
        None => None,
    };
    // Nothing can fail from here on.
    let mut tasks = JoinSet::new();
    for (machine, mail, listener, tls, door, max_connections) in starts {
        tasks.spawn(own(machine, mail, door.clone()));
        tasks.spawn(accept(listener, tls, door, max_connections));
    }
    let admin = admin.map(|(listener, addr)| {
        tasks.spawn(admin::serve(listener, mailboxes, down));
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

/// Takes connections in and sees them through.
async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, door: Door, max_connections: usize) {
    let mut shutdown = door.shutdown.clone();
    let mut connections = JoinSet::new();
    let mut next: Conn = 1;
    loop {
        tokio::select! {
            () = shutdown.wait() => break,
            Some(_) = connections.join_next() => {}
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
    drop(listener);
    while connections.join_next().await.is_some() {}
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
        Some(session) => websocket::serve(stream, session, door.shutdown).await,
    }
}

/// Owns a machine: the only place where it hears anything.
async fn own(machine: Box<dyn Machine>, mut mail: mpsc::Receiver<Mail>, door: Door) {
    let start = Instant::now();
    let mut shutdown = door.shutdown.clone();
    let mut owner = Owner { machine, outboxes: HashMap::new(), out: Vec::new(), door, calls: JoinSet::new() };
    let mut letters = Vec::with_capacity(64);
    let timer = sleep_until(start);
    tokio::pin!(timer);
    loop {
        let deadline = owner.machine.deadline().map(|deadline| start + deadline);
        if let Some(deadline) = deadline
            && timer.deadline() != deadline
        {
            timer.as_mut().reset(deadline);
        }
        tokio::select! {
            () = shutdown.wait() => break,
            count = mail.recv_many(&mut letters, 64) => {
                if count == 0 {
                    break;
                }
                let now = start.elapsed();
                for letter in letters.drain(..) {
                    owner.open(now, letter);
                }
            }
            () = &mut timer, if deadline.is_some() => owner.hear(start.elapsed(), Input::Tick),
            Some(_) = owner.calls.join_next() => {}
        }
    }
    let mut listening = owner.last_words(start.elapsed());
    // A mailbox that is not emptied would keep them from hearing; what they say is too late.
    let _ = timeout(LAST_WORDS_TIME, async {
        while !listening.is_empty()
            && let Some(letter) = mail.recv().await
        {
            if let Mail::Input(Input::Closed { conn }, _) = letter {
                listening.remove(&conn);
            }
        }
    })
    .await;
    drop(mail);
    while owner.calls.join_next().await.is_some() {}
}

struct Owner {
    machine: Box<dyn Machine>,
    outboxes: HashMap<Conn, Arc<Outbox>>,
    out: Vec<Output>,
    /// What a connection needs, those included that the machine asks for.
    door: Door,
    /// Connections that the machine has asked for.
    calls: JoinSet<()>,
}

impl Owner {
    fn open(&mut self, now: Duration, letter: Mail) {
        match letter {
            Mail::Open { conn, handshake, outbox } => {
                self.outboxes.insert(conn, outbox);
                self.hear(now, Input::Open { conn, handshake });
            }
            Mail::Input(input, _place) => {
                let known = match &input {
                    Input::Closed { conn } | Input::ConnectFailed { conn, .. } => self.outboxes.remove(conn).is_some(),
                    other => other.conn().is_none_or(|conn| self.outboxes.contains_key(&conn)),
                };
                if known {
                    self.hear(now, input);
                }
            }
            // Whoever asked may have gone.
            Mail::State(answer) => drop(answer.send(self.machine.state())),
            Mail::Event(event, answer) => {
                let result = self.machine.event(now, &event, &mut self.out);
                self.deliver(now);
                drop(answer.send(result));
            }
        }
    }

    fn hear(&mut self, now: Duration, input: Input) {
        self.machine.handle(now, input, &mut self.out);
        self.deliver(now);
    }

    /// Lets the machine say goodbye and closes whoever is left; says who was connected until then.
    fn last_words(&mut self, now: Duration) -> HashSet<Conn> {
        let listening = self.outboxes.keys().copied().collect();
        self.machine.shutdown(now, &mut self.out);
        self.deliver(now);
        for (_, outbox) in self.outboxes.drain() {
            // An end always fits.
            let _ = outbox.push(Item::Close(1001, "the hub shuts down".to_owned()));
        }
        listening
    }

    /// Puts outputs into outboxes. Whose outbox is full is cut off, which the machine hears of in turn.
    fn deliver(&mut self, now: Duration) {
        let mut lost = VecDeque::new();
        loop {
            for output in self.out.drain(..) {
                let conn = output.conn();
                let (item, last) = match output {
                    Output::Text { text, .. } => (Item::Text(text), false),
                    Output::Binary { data, .. } => (Item::Binary(data), false),
                    Output::Accept { subprotocol, .. } => (Item::Accept(subprotocol), false),
                    Output::Refuse { status, body, .. } => (Item::Refuse(status, body), true),
                    Output::Close { code, reason, .. } => (Item::Close(code, reason), true),
                    Output::Drop { .. } => (Item::Drop, true),
                    Output::Connect { url, .. } => {
                        let outbox = Arc::new(Outbox::default());
                        self.outboxes.insert(conn, outbox.clone());
                        self.calls.spawn(connection::call(url, conn, self.door.clone(), outbox));
                        continue;
                    }
                };
                let Some(outbox) = self.outboxes.get(&conn) else {
                    continue;
                };
                if outbox.push(item).is_err() {
                    outbox.cut();
                    self.outboxes.remove(&conn);
                    lost.push_back(conn);
                } else if last {
                    self.outboxes.remove(&conn);
                }
            }
            let Some(conn) = lost.pop_front() else { break };
            self.machine.handle(now, Input::Closed { conn }, &mut self.out);
        }
    }
}
