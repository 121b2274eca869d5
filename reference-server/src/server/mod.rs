//! Sockets: listeners, one task per connection around one machine, the admin side, the command line.

pub mod admin;
pub mod args;
mod connection;
mod hub;
mod meter;
mod outbox;
pub(crate) mod serve;
pub mod tls;
pub(crate) mod websocket_io;
pub(crate) mod zeromq_io;

use tokio::sync::watch;

/// A receiver of the signal to shut down, which is sent when `Running` is dropped.
#[derive(Clone)]
pub(crate) struct ShutdownSignal(watch::Receiver<()>);

impl ShutdownSignal {
    /// Waits for the signal to shut down.
    pub async fn wait(&mut self) {
        // Nothing is ever sent; the channel ends with its sender.
        while self.0.changed().await.is_ok() {}
    }
}

/// Whether the host of an authority, with or without a port, is this machine by its name or an address.
pub(crate) fn is_local(authority: &str) -> bool {
    let port = authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
    let host = port.map_or(authority, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
