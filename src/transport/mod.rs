//! The only client network code: connections to a hub, and listening actors, as streams of [`Received`].
//!
//! [`crate::websocket::codec`], [`crate::websocket::handshake`] and [`endpoint`] are pure. Around them stands a thin shell
//! on tokio: one task per connection, which reads all the time unless told otherwise, and writes from a bounded outbox, so
//! that neither direction waits for the other. A hub may be hostile: every announced length, every head, every wait and
//! every queue has a bound.

mod connection;
pub mod endpoint;
mod listen;
mod memory_budget;
mod socket;
#[cfg(test)]
mod tests;
pub mod tls;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

pub use crate::websocket::codec::{Limits, Role};
use crate::websocket::frame::FrameInfo;
pub use crate::websocket::frame::{ConnId, Outgoing, Received};
pub use connection::{Connection, Gone};
pub use endpoint::{Endpoint, EndpointError};
pub use listen::{ListenRequest, Listener, listen};
pub use memory_budget::{Held, MemoryBudget};

/// What one connection has to say. `at` is when the bytes that tell it were read.
#[derive(Debug)]
pub struct Incoming {
    pub conn: ConnId,
    pub at: Instant,
    pub what: Received,
    /// The room that a long message takes, until this is dropped.
    pub held: Held,
}

/// One connection to a hub, as a scenario wants it.
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    pub endpoint: Endpoint,
    /// Joined to the endpoint's path; may have a query of its own. Sent as it is, but for what would break the request line.
    pub path: String,
    /// Added to the query, percent-encoded.
    pub query: Vec<(String, String)>,
    /// Sent with the upgrade; one with the name of a header of ours, such as `Host`, replaces it.
    pub headers: Vec<(String, String)>,
    /// Headers of ours that are left out.
    pub without: Vec<String>,
    pub subprotocols: Vec<String>,
    /// Instead of `GET`.
    pub method: Option<String>,
    /// Instead of `1.1`.
    pub http: Option<String>,
    /// The local address to connect from.
    pub source: Option<IpAddr>,
    /// Used for `wss://`. Without it the system's roots are read for this connection alone.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// For TCP connect, TLS and upgrade together.
    pub timeout: Duration,
    pub limits: Limits,
    /// Shared with other connections; by default nobody shares it.
    pub room: MemoryBudget,
    pub trace: Option<Trace>,
}

impl ConnectRequest {
    /// The endpoint as it stands, with nothing added and five seconds of time.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            path: String::new(),
            query: Vec::new(),
            headers: Vec::new(),
            without: Vec::new(),
            subprotocols: Vec::new(),
            method: None,
            http: None,
            source: None,
            tls: None,
            timeout: Duration::from_secs(5),
            limits: Limits::default(),
            room: MemoryBudget::default(),
            trace: None,
        }
    }
}

/// Which way a frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    In,
    Out,
}

/// Sees the header of every frame that is read or queued for writing, our own pongs and close frames included. It must not
/// block.
#[derive(Clone)]
pub struct Trace(pub Arc<dyn Fn(ConnId, Direction, FrameInfo) + Send + Sync>);

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trace")
    }
}

/// Connects to a hub in a task of its own and reports on `events`: `Upgraded`, `Refused` or `Unreachable` first.
///
/// What is sent before the upgrade is written right after it. A full `events` channel stops reading, and with it the hub,
/// once the kernel's buffers are full too. Must be called inside a tokio runtime.
pub fn open(conn: ConnId, request: ConnectRequest, events: mpsc::Sender<Incoming>) -> Connection {
    let (limits, room, trace) = (request.limits, request.room.clone(), request.trace.clone());
    connection::spawn(conn, Role::Client, limits, room, trace, events, async move { socket::connect(&request).await })
}
