//! Listening actors: the server side of connections, for hubs that connect to other servers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{
    Connection, ConnectionId, ConnectionSide, FrameTrace, IncomingEvent, MemoryBudget, PeerLimits, connection, socket,
};

/// The address of a listening actor, and the way it answers upgrades.
#[derive(Clone, Debug)]
pub struct ListenRequest {
    /// The address to listen on; port 0 picks a free one.
    pub address: SocketAddr,
    /// Supported subprotocols; the actor selects the first of the client's offers that is among them.
    pub subprotocols: Vec<String>,
    /// Time from the TCP connection to the complete upgrade request.
    pub timeout: Duration,
    pub limits: PeerLimits,
    pub trace: Option<FrameTrace>,
}

impl Default for ListenRequest {
    /// A free port on the loopback interface, no subprotocols, and a timeout of five seconds.
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            subprotocols: Vec::new(),
            timeout: Duration::from_secs(5),
            limits: PeerLimits::default(),
            trace: None,
        }
    }
}

/// A listening actor. Connections that are not yet accepted wait in the kernel.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    request: ListenRequest,
}

/// Binds the address.
///
/// # Errors
/// Errors of the operating system, such as a port in use or an address that is not local.
pub async fn listen(request: ListenRequest) -> io::Result<Listener> {
    let tcp = TcpListener::bind(request.address).await?;
    Ok(Listener { address: tcp.local_addr()?, tcp, request })
}

impl Listener {
    /// Returns the URL to give to the hub, with the actual port and without a path: `ws://127.0.0.1:41234`.
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Waits for the next TCP connection. Its upgrade runs in the connection's own task and is reported on `events`:
    /// `Upgraded` with the request's headers, `:path` first, or a `Violation` and the `End`.
    ///
    /// Frames sent on it should be [`unmasked`](crate::websocket::frame::Frame::unmasked). Cancel-safe.
    ///
    /// # Errors
    /// Errors of the operating system.
    pub async fn accept(&self, conn: ConnectionId, events: mpsc::Sender<IncomingEvent>) -> io::Result<Connection> {
        let (stream, _) = self.tcp.accept().await?;
        stream.set_nodelay(true)?;
        let ListenRequest { subprotocols, timeout, limits, trace, .. } = self.request.clone();
        let opening = async move { socket::accept(stream, &subprotocols, timeout).await };
        Ok(connection::spawn_connection(
            conn,
            ConnectionSide::Server,
            limits,
            MemoryBudget::of_bytes(limits.message),
            trace,
            events,
            opening,
        ))
    }
}
