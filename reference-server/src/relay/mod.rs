//! A relay between clients and any hub: it changes one thing in the hub's messages and passes on everything else.
//!
//! It can also only observe every text message of either side, for `hubproof record`.
//!
//! It passes on bytes, not messages: everything else arrives as it was sent, including fragments, pings and close
//! codes. [`mutation`] has the possible changes, [`upgrade`] and [`frames`] parse the bytes, [`connection`] handles one
//! connection.

mod connection;
mod frames;
pub mod mutation;
mod upgrade;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rustls::ClientConfig;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::http::Uri;

use crate::fault::OutputChange;
use crate::fault::injector::ChangeMatcher;
use crate::server::serve::{MAX_CONNECTIONS, ServeError, bind_listener};

/// The delay after a failed accept, for example when no file descriptor is left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// The configuration of a relay.
#[derive(Debug)]
pub struct RelayConfig {
    /// The hub.
    pub hub: RelayedHub,
    /// The address at which the relay listens; port 0 chooses a free one.
    pub listen: SocketAddr,
    /// The change to the hub's messages, if any.
    pub change: Option<OutputChange>,
    /// Receives all text messages as they were sent. The relay waits if the channel is full, but not if it is closed.
    pub observer: Option<mpsc::Sender<PassedText>>,
}

/// A text message that passed the relay.
#[derive(Debug)]
pub struct PassedText {
    pub time: SystemTime,
    /// The number of the connection, from 1.
    pub connection: u64,
    pub to_hub: bool,
    pub text: String,
}

/// Observes one connection.
#[derive(Clone)]
pub(crate) struct TextObserver {
    connection: u64,
    channel: mpsc::Sender<PassedText>,
}

impl TextObserver {
    pub(crate) async fn report_text(&self, to_hub: bool, text: String) {
        let passed = PassedText { time: SystemTime::now(), connection: self.connection, to_hub, text };
        // An observer that has ended misses all further messages.
        let _ = self.channel.send(passed).await;
    }
}

/// The hub behind a relay.
#[derive(Debug, Clone)]
pub struct RelayedHub {
    /// Host and port, as in a `Host` header.
    pub(crate) authority: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The path of the hub's address, which precedes the path that a client requests.
    pub(crate) path: String,
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// The address of a hub is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is not the address of a hub: {why}; expected one like ws://127.0.0.1:4000")]
pub struct HubAddressError {
    url: String,
    why: String,
}

impl RelayedHub {
    /// The hub at a `ws://` or `wss://` address. `tls` returns the trusted certificates for the latter.
    ///
    /// # Errors
    /// [`HubAddressError`] says what is wrong with the address.
    pub fn parse(url: &str, tls: impl FnOnce() -> Option<Arc<ClientConfig>>) -> Result<RelayedHub, HubAddressError> {
        let wrong = |why: String| HubAddressError { url: url.to_owned(), why };
        let uri: Uri = url.parse().map_err(|error| wrong(format!("{error}")))?;
        let (port, tls) = match uri.scheme_str() {
            Some("ws") => (80, None),
            Some("wss") => (
                443,
                Some(tls().ok_or_else(|| wrong("wss:// needs trusted certificates, but none were given".to_owned()))?),
            ),
            _ => return Err(wrong("it does not begin with ws:// or wss://".to_owned())),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it has no host".to_owned()))?;
        if uri.query().is_some() {
            return Err(wrong("a query belongs to the client's request".to_owned()));
        }
        Ok(RelayedHub {
            authority: authority.as_str().to_owned(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(port),
            path: uri.path().trim_end_matches('/').to_owned(),
            tls,
        })
    }
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
    let changes: &'static [OutputChange] = Vec::from_iter(config.change).leak();
    let mutator =
        Arc::new(FrameMutator { choice: Mutex::new(ChangeMatcher::new(changes)), applied: AtomicU64::new(0) });
    let mut task = JoinSet::new();
    task.spawn(accept_clients(listener, Arc::new(config.hub), mutator.clone(), config.observer, down));
    Ok(Relay { url: format!("ws://{addr}"), mutator, shutdown, task })
}

async fn accept_clients(
    listener: TcpListener,
    hub: Arc<RelayedHub>,
    mutator: Arc<FrameMutator>,
    observer: Option<mpsc::Sender<PassedText>>,
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
                    let observer = observer.clone().map(|channel| TextObserver { connection: number, channel });
                    connections.spawn(connection::relay_connection(stream, peer, hub.clone(), mutator.clone(), observer));
                }
                Err(_) => tokio::time::sleep(ACCEPT_RETRY_DELAY).await,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("ws://127.0.0.1:4000", "127.0.0.1:4000", "127.0.0.1", 4000, "")]
    #[case("ws://hub/api/", "hub", "hub", 80, "/api")]
    #[case("ws://[::1]:9", "[::1]:9", "::1", 9, "")]
    fn the_address_of_a_hub_is_split_into_host_port_and_path(
        #[case] url: &str,
        #[case] authority: &str,
        #[case] host: &str,
        #[case] port: u16,
        #[case] path: &str,
    ) {
        let hub = RelayedHub::parse(url, || None).unwrap();
        assert_eq!((&*hub.authority, &*hub.host, hub.port, &*hub.path), (authority, host, port, path));
    }

    #[rstest]
    #[case("http://hub", "ws://")]
    #[case("hub:4000", "ws://")]
    #[case("ws://", "")]
    #[case("ws://hub/?token=x", "a query belongs to")]
    #[case("wss://hub", "needs trusted certificates")]
    fn addresses_that_the_relay_cannot_use_are_refused(#[case] url: &str, #[case] why: &str) {
        let error = RelayedHub::parse(url, || None).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
