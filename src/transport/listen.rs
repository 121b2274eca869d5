//! Listening actors: the server's side of connections, for hubs that connect to others.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{ConnId, Connection, Incoming, Limits, MemoryBudget, Role, Trace, connection, socket};

/// The address of a listening actor, and how it answers upgrades.
#[derive(Clone, Debug)]
pub struct ListenRequest {
    /// The address to listen at; port 0 chooses a free one.
    pub address: SocketAddr,
    /// Supported subprotocols; the first that the client offers, in its order, is selected.
    pub subprotocols: Vec<String>,
    /// Time from the TCP connection to the complete upgrade request.
    pub timeout: Duration,
    pub limits: Limits,
    pub trace: Option<Trace>,
}

impl Default for ListenRequest {
    /// Loopback, a free port, no subprotocol, five seconds.
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            subprotocols: Vec::new(),
            timeout: Duration::from_secs(5),
            limits: Limits::default(),
            trace: None,
        }
    }
}

/// A listening actor. Connections that are not accepted yet wait in the kernel.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    request: ListenRequest,
}

/// Binds the address.
///
/// # Errors
/// Those of the operating system: the port is in use, the address is not local.
pub async fn listen(request: ListenRequest) -> io::Result<Listener> {
    let tcp = TcpListener::bind(request.address).await?;
    Ok(Listener { address: tcp.local_addr()?, tcp, request })
}

impl Listener {
    /// Returns the address for the hub, with the real port and without a path: `ws://127.0.0.1:41234`.
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Waits for the next TCP connection. Its upgrade runs in the connection's own task and is reported on `events`:
    /// `Upgraded` with the request's headers, `:path` first, or a `Violation` and the `End`.
    ///
    /// Frames sent on it should be [`unmasked`](crate::websocket::frame::Frame::unmasked). Cancel-safe.
    ///
    /// # Errors
    /// Those of the operating system.
    pub async fn accept(&self, conn: ConnId, events: mpsc::Sender<Incoming>) -> io::Result<Connection> {
        let (stream, _) = self.tcp.accept().await?;
        stream.set_nodelay(true)?;
        let ListenRequest { subprotocols, timeout, limits, trace, .. } = self.request.clone();
        let opening = async move { socket::accept(stream, &subprotocols, timeout).await };
        Ok(connection::spawn(conn, Role::Server, limits, MemoryBudget::of(limits.message), trace, events, opening))
    }
}
