//! Between clients and any hub: a relay that changes one thing in what the hub says, and passes everything else on.
//!
//! It passes bytes, not messages: what it does not change arrives as it was sent, upgrade, fragments, pings, close codes
//! and all. [`mutations`] says what can be changed, [`upgrade`] and [`frames`] find their way in the bytes, [`connection`]
//! sees one connection through.

mod connection;
mod frames;
pub mod mutations;
mod upgrade;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::http::Uri;

use crate::fault::Change;
use crate::fault::injector::Choice;
use crate::server::serve::{Error, MAX_CONNECTIONS, listen};

/// How long to wait when the system has no descriptor left for a new connection.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// What to relay.
#[derive(Debug)]
pub struct RelayConfig {
    /// The hub.
    pub hub: Hub,
    /// Where clients come; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What is done to what the hub says; without it, nothing is.
    pub change: Option<Change>,
}

/// The hub behind a relay.
#[derive(Debug, Clone)]
pub struct Hub {
    /// Host and port, as a `Host` header has them.
    pub(crate) authority: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What comes before the path that a client asks for.
    pub(crate) path: String,
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// Why there is no hub at an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is no address of a hub: {why}; expected one like ws://127.0.0.1:4000")]
pub struct AddressError {
    url: String,
    why: String,
}

impl Hub {
    /// The hub at a `ws://` or `wss://` address. `tls` says whom to trust at the latter.
    ///
    /// # Errors
    /// [`AddressError`], which says what is wrong with the address.
    pub fn at(url: &str, tls: impl FnOnce() -> Option<Arc<ClientConfig>>) -> Result<Hub, AddressError> {
        let wrong = |why: String| AddressError { url: url.to_owned(), why };
        let uri: Uri = url.parse().map_err(|error| wrong(format!("{error}")))?;
        let (port, tls) = match uri.scheme_str() {
            Some("ws") => (80, None),
            Some("wss") => (443, Some(tls().ok_or_else(|| wrong("nobody says whom to trust".to_owned()))?)),
            _ => return Err(wrong("it does not begin with ws:// or wss://".to_owned())),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it has no host".to_owned()))?;
        if uri.query().is_some() {
            return Err(wrong("a query belongs to what the client asks for".to_owned()));
        }
        Ok(Hub {
            authority: authority.as_str().to_owned(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(port),
            path: uri.path().trim_end_matches('/').to_owned(),
            tls,
        })
    }
}

/// What is done to what the hub says, shared by all connections, so that the n-th frame is the n-th of the hub.
pub(crate) struct Spoiler {
    choice: Mutex<Choice>,
    /// How many frames really changed.
    applied: AtomicU64,
}

/// A relay that runs. Dropping it ends it too, without waiting.
pub struct Relay {
    /// `ws://` with address and port.
    pub url: String,
    spoiler: Arc<Spoiler>,
    shutdown: watch::Sender<()>,
    task: JoinSet<()>,
}

impl Relay {
    /// How many frames have been changed so far.
    pub fn applied(&self) -> u64 {
        self.spoiler.applied.load(Ordering::Relaxed)
    }

    /// Hangs up on everybody, waits for all tasks, and says how many frames were changed.
    pub async fn shutdown(mut self) -> u64 {
        drop(self.shutdown);
        while self.task.join_next().await.is_some() {}
        self.spoiler.applied.load(Ordering::Relaxed)
    }
}

/// Starts a relay. When it returns, clients can connect.
///
/// # Errors
/// [`Error::Listen`].
pub async fn relay(config: RelayConfig) -> Result<Relay, Error> {
    let (listener, addr) = listen(config.listen).await?;
    let (shutdown, down) = watch::channel(());
    let changes: &'static [Change] = Vec::from_iter(config.change).leak();
    let spoiler = Arc::new(Spoiler { choice: Mutex::new(Choice::new(changes)), applied: AtomicU64::new(0) });
    let mut task = JoinSet::new();
    task.spawn(accept(listener, Arc::new(config.hub), spoiler.clone(), down));
    Ok(Relay { url: format!("ws://{addr}"), spoiler, shutdown, task })
}

async fn accept(listener: TcpListener, hub: Arc<Hub>, spoiler: Arc<Spoiler>, mut down: watch::Receiver<()>) {
    // Dropped with everybody in it when the relay shuts down.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // Nothing is ever sent; the sender's end is the message.
            _ = down.changed() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(_) if connections.len() >= MAX_CONNECTIONS => {}
                Ok((stream, peer)) => drop(connections.spawn(connection::pass(stream, peer, hub.clone(), spoiler.clone()))),
                Err(_) => tokio::time::sleep(EXHAUSTED).await,
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
    fn a_hub_has_an_address(
        #[case] url: &str,
        #[case] authority: &str,
        #[case] host: &str,
        #[case] port: u16,
        #[case] path: &str,
    ) {
        let hub = Hub::at(url, || None).unwrap();
        assert_eq!((&*hub.authority, &*hub.host, hub.port, &*hub.path), (authority, host, port, path));
    }

    #[rstest]
    #[case("http://hub", "ws://")]
    #[case("hub:4000", "ws://")]
    #[case("ws://", "")]
    #[case("ws://hub/?token=x", "a query belongs to")]
    #[case("wss://hub", "whom to trust")]
    fn other_addresses_are_refused(#[case] url: &str, #[case] why: &str) {
        let error = Hub::at(url, || None).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
