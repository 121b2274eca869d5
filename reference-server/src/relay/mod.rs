//! A relay between clients and any hub: it changes one thing in the hub's messages and passes on everything else.
//!
//! It can also only observe connections and their text messages, for `hubproof record`.
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
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::net::TcpListener;
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
    /// The change to the hub's messages, if any.
    pub change: Option<OutputChange>,
    /// Receives all connections, and their text messages as they were sent. The relay waits if the channel is full, but
    /// not if it is closed.
    pub observer: Option<mpsc::Sender<RelayEvent>>,
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
    /// The hub accepted the upgrade.
    Opened {
        /// The requested path and query, as the hub received them.
        target: String,
        /// The subprotocol that the hub selected, or else those that the client offered.
        subprotocols: Vec<String>,
    },
    Text {
        to_hub: bool,
        text: String,
    },
}

/// Observes one connection.
#[derive(Clone)]
pub(crate) struct ConnectionObserver {
    connection: u64,
    channel: mpsc::Sender<RelayEvent>,
}

impl ConnectionObserver {
    pub(crate) async fn report(&self, what: RelayEventKind) {
        let passed = RelayEvent { time: SystemTime::now(), connection: self.connection, what };
        // An observer that has ended misses all further events.
        let _ = self.channel.send(passed).await;
    }

    pub(crate) async fn report_text(&self, to_hub: bool, text: String) {
        self.report(RelayEventKind::Text { to_hub, text }).await;
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
    mutator: Arc<FrameMutator>,
    shutdown: watch::Sender<()>,
    task: JoinSet<()>,
}

impl Relay {
    /// Returns the number of frames changed so far.
    pub fn changed_frames(&self) -> u64 {
        self.mutator.applied.load(Ordering::Relaxed)
    }

    /// Closes all connections, waits for all tasks, and returns the number of changed frames.
    pub async fn shutdown(mut self) -> u64 {
        drop(self.shutdown);
        while self.task.join_next().await.is_some() {}
        self.mutator.applied.load(Ordering::Relaxed)
    }
}

/// Starts a relay; once this returns, clients can connect.
///
/// # Errors
/// [`ServeError::Listen`].
pub async fn start_relay(config: RelayConfig) -> Result<Relay, ServeError> {
    let (listener, addr) = bind_listener(config.listen).await?;
    let (shutdown, down) = watch::channel(());
    let mutator = Arc::new(FrameMutator {
        choice: Mutex::new(ChangeMatcher::new(Vec::from_iter(config.change))),
        applied: AtomicU64::new(0),
    });
    let mut task = JoinSet::new();
    task.spawn(accept_clients(listener, Arc::new(config.hub), mutator.clone(), config.observer, down));
    Ok(Relay { url: format!("ws://{addr}"), mutator, shutdown, task })
}

async fn accept_clients(
    listener: TcpListener,
    hub: Arc<RelayedHub>,
    mutator: Arc<FrameMutator>,
    observer: Option<mpsc::Sender<RelayEvent>>,
    mut down: watch::Receiver<()>,
) {
    let mut number = 0;
    let kept = frames::KeptBytes::default();
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
                    let observer = observer.clone().map(|channel| ConnectionObserver { connection: number, channel });
                    let (hub, mutator, kept) = (hub.clone(), mutator.clone(), kept.clone());
                    connections.spawn(connection::relay_connection(stream, peer, hub, mutator, observer, kept));
                }
                Err(_) => tokio::time::sleep(ACCEPT_RETRY_DELAY).await,
            },
        }
    }
}
