//! Connections to a hub, and listening actors, as streams of [`ConnectionEvent`].
//!
//! [`crate::websocket`] is pure; this is the I/O around it, on tokio: one task per connection, which reads continuously
//! unless paused and writes from a bounded outbox, so that neither direction waits for the other. A hub may be hostile:
//! every length, head, wait and queue is bounded. [`carrier`] does the same for hubs without WebSocket.

pub mod carrier;
mod connection;
pub mod files;
mod listen;
mod memory_budget;
pub mod proxy;
mod socket;
#[cfg(test)]
mod tests;
pub mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

pub use crate::websocket::codec::{ConnectionSide, PeerLimits};
use crate::websocket::dial::Dial;
pub use crate::websocket::endpoint::{CarrierKind, Endpoint};
use crate::websocket::frame::FrameHeader;
pub use crate::websocket::frame::{ConnectionCommand, ConnectionEvent, ConnectionId};
pub use connection::{Connection, SendError};
pub use listen::{ListenRequest, Listener, listen};
pub use memory_budget::{MemoryBudget, MemoryReservation};

/// An event of a connection. `at` is when its bytes were read.
#[derive(Debug)]
pub struct IncomingEvent {
    pub conn: ConnectionId,
    pub at: Instant,
    pub what: ConnectionEvent,
    /// The memory reserved for a long message; dropping it releases the memory.
    pub held: MemoryReservation,
}

/// Parameters of a connection to a hub.
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    /// The address of the hub, to which the path and query of `dial` are joined.
    pub endpoint: Endpoint,
    pub dial: Dial,
    /// The TLS configuration for `wss://`. `None`: the system's roots are read for this connection.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The time limit for TCP connect, TLS and upgrade together.
    pub timeout: Duration,
    pub limits: PeerLimits,
    /// The memory budget for long messages; by default, not shared with other connections.
    pub memory: MemoryBudget,
    pub trace: Option<FrameTrace>,
}

impl ConnectRequest {
    /// Creates a plain request to the endpoint with a timeout of five seconds.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            dial: Dial::default(),
            tls: None,
            timeout: Duration::from_secs(5),
            limits: PeerLimits::default(),
            memory: MemoryBudget::default(),
            trace: None,
        }
    }
}

/// The direction of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceDirection {
    In,
    Out,
}

/// Called with the header of every frame that is read or queued for writing, automatic answers included. Must not
/// block.
#[derive(Clone)]
pub struct FrameTrace(pub Arc<dyn Fn(ConnectionId, TraceDirection, FrameHeader) + Send + Sync>);

impl fmt::Debug for FrameTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FrameTrace")
    }
}

/// Connects to a hub in a separate task, which reports on `events`.
///
/// Everything sent before the upgrade is written right after it. A full `events` channel pauses reading and thereby,
/// once the kernel's buffers are full, the hub's writing. Must be called inside a tokio runtime.
pub fn open_connection(conn: ConnectionId, request: ConnectRequest, events: mpsc::Sender<IncomingEvent>) -> Connection {
    let (limits, memory, trace) = (request.limits, request.memory.clone(), request.trace.clone());
    connection::spawn_connection(conn, ConnectionSide::Client, limits, memory, trace, events, async move {
        socket::connect(&request).await
    })
}
