//! A relay between clients and any hub: it changes one thing in the hub's messages and passes on everything else.
//!
//! It can also copy all bytes of both directions to an observer, for `hubproof record` and `hubproof observe`.
//!
//! It passes on bytes, not messages: everything else arrives as it was sent, including fragments, pings and close
//! codes. [`mutation`] has the possible changes, [`upgrade`] and [`frames`] parse the bytes, [`connection`] handles one
//! connection.

mod connection;
pub mod frames;
pub mod mutation;
mod upgrade;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::net::TcpListener;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::fault::OutputChange;
use crate::fault::injector::ChangeMatcher;
use crate::server::serve::{MAX_CONNECTIONS, ServeError, bind_listener};

/// The delay after a failed accept, for example when no file descriptor is left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// The configuration of a relay.
pub struct RelayConfig {
    /// The hub.
    pub hub: RelayedHub,
    /// The address at which the relay listens; port 0 chooses a free one.
    pub listen: SocketAddr,
    /// What it does besides passing on bytes.
    pub task: RelayTask,
}

/// What a relay does besides passing on bytes.
pub enum RelayTask {
    Pass,
    /// Changes the hub's messages.
    Change(OutputChange),
    /// Copies all bytes.
    Observe(RelayObserver),
}

/// Where the copies of all bytes go.
#[derive(Clone)]
pub struct RelayObserver {
    pub channel: mpsc::Sender<RelayEvent>,
    /// If the channel is full, further events of the connection are left out, and its number is added here. `None`: the
    /// relay waits instead. It never waits for an observer that has ended.
    pub left_out: Option<Arc<Mutex<Vec<u64>>>>,
}

/// Something that passed the relay.
#[derive(Debug)]
pub struct RelayEvent {
    pub time: SystemTime,
    /// The number of the connection, from 1.
    pub connection: u64,
    pub what: RelayEventKind,
}

#[derive(Debug)]
pub enum RelayEventKind {
    /// Bytes as the receiver gets them, from the head of the upgrade on.
    Bytes { to_hub: bool, bytes: Vec<u8> },
    /// Nothing more passes on this connection.
    Ended,
}

/// Observes one connection.
pub(crate) struct ConnectionObserver {
    connection: u64,
    observer: RelayObserver,
    is_left_out: AtomicBool,
}

impl ConnectionObserver {
    pub(crate) async fn report(&self, what: RelayEventKind) {
        let event = RelayEvent { time: SystemTime::now(), connection: self.connection, what };
        let Some(left_out) = &self.observer.left_out else {
            // An observer that has ended misses all further events.
            let _ = self.observer.channel.send(event).await;
            return;
        };
        if self.is_left_out.load(Ordering::Relaxed) {
            return;
        }
        if let Err(TrySendError::Full(_)) = self.observer.channel.try_send(event) {
            self.is_left_out.store(true, Ordering::Relaxed);
            left_out.lock().push(self.connection);
        }
    }

    /// Reports bytes before they are passed on, so that an answer is never reported before its request.
    pub(crate) async fn report_bytes(&self, to_hub: bool, bytes: &[u8]) {
        self.report(RelayEventKind::Bytes { to_hub, bytes: bytes.to_vec() }).await;
    }
}

/// Returns the path and query that the hub receives, given those that a client requests.
pub type TargetRewriter = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// The hub behind a relay.
#[derive(Clone)]
pub struct RelayedHub {
    /// Host and port, as in a `Host` header.
    pub authority: String,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
    /// The certificates to trust, if the hub uses TLS.
    pub tls: Option<Arc<ClientConfig>>,
    pub target: TargetRewriter,
    /// Whether to refuse web pages of other machines, because the relay adds credentials to what a client requests.
    pub refuses_pages: bool,
}

/// What a relay does, for all its connections.
pub(crate) struct RelayWork {
    pub hub: RelayedHub,
    /// The change, unless frames pass unchanged.
    pub mutator: Option<Arc<FrameMutator>>,
    pub kept: frames::KeptBytes,
}

/// The change to frames, shared by all connections, so that frames are counted over the life of the hub.
pub(crate) struct FrameMutator {
    choice: Mutex<ChangeMatcher>,
    /// The number of changed frames.
    applied: AtomicU64,
}

/// A running relay. Dropping it ends it without waiting.
pub struct Relay {
    /// `ws://` with address and port.
    pub url: String,
    mutator: Option<Arc<FrameMutator>>,
    shutdown: watch::Sender<()>,
    task: JoinSet<()>,
}

impl Relay {
    /// Returns the number of frames changed so far.
    pub fn changed_frames(&self) -> u64 {
        self.mutator.as_ref().map_or(0, |mutator| mutator.applied.load(Ordering::Relaxed))
    }

    /// Closes all connections, waits for all tasks, and returns the number of changed frames.
    pub async fn shutdown(mut self) -> u64 {
        drop(self.shutdown);
        while self.task.join_next().await.is_some() {}
        self.mutator.map_or(0, |mutator| mutator.applied.load(Ordering::Relaxed))
    }
}

/// Starts a relay; once this returns, clients can connect.
///
/// # Errors
/// [`ServeError::Listen`].
pub async fn start_relay(config: RelayConfig) -> Result<Relay, ServeError> {
    let (listener, addr) = bind_listener(config.listen).await?;
    let (shutdown, down) = watch::channel(());
    let (change, observer) = match config.task {
        RelayTask::Pass => (None, None),
        RelayTask::Change(change) => (Some(change), None),
        RelayTask::Observe(observer) => (None, Some(observer)),
    };
    let mutator = change.map(|change| {
        let choice = Mutex::new(ChangeMatcher::new(vec![change]));
        Arc::new(FrameMutator { choice, applied: AtomicU64::new(0) })
    });
    let work = RelayWork { hub: config.hub, mutator: mutator.clone(), kept: frames::KeptBytes::default() };
    let mut task = JoinSet::new();
    task.spawn(accept_clients(listener, Arc::new(work), observer, down));
    Ok(Relay { url: format!("ws://{addr}"), mutator, shutdown, task })
}

async fn accept_clients(
    listener: TcpListener,
    work: Arc<RelayWork>,
    observer: Option<RelayObserver>,
    mut down: watch::Receiver<()>,
) {
    let mut number = 0;
    // Dropped with all connections when the relay shuts down.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // Nothing is ever sent; the channel ends with its sender.
            _ = down.changed() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(_) if connections.len() >= MAX_CONNECTIONS => {}
                Ok((stream, peer)) => {
                    number += 1;
                    let observer = observer.clone().map(|observer| ConnectionObserver {
                        connection: number,
                        observer,
                        is_left_out: AtomicBool::new(false),
                    });
                    connections.spawn(connection::relay_connection(stream, peer, Arc::clone(&work), observer));
                }
                Err(_) => tokio::time::sleep(ACCEPT_RETRY_DELAY).await,
            },
        }
    }
}
