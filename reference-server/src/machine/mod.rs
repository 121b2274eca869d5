//! The interface of a protocol's state machine: its inputs and outputs.
//!
//! A [`Machine`] owns no socket, clock or thread. Its caller passes the time in and delivers the outputs:
//! [`crate::start_server()`] over sockets, a test over a queue. The same inputs at the same times give the same
//! outputs, ids included when a seed is set.

pub(crate) mod clock;
pub(crate) mod ids;
pub(crate) mod json;
pub mod settings;
#[cfg(test)]
pub(crate) mod test_player;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::Value;
/// The text of a frame: shared, so that a broadcast to a thousand subscribers copies nothing.
pub use tokio_tungstenite::tungstenite::Utf8Bytes;

/// A connection of a hub. Numbers rise in the order of arrival and are never reused.
pub type ConnectionId = u64;

/// The first number of outgoing connections, each of which the machine assigns once, with [`MachineOutput::Connect`].
pub const FIRST_OUTGOING: ConnectionId = 1 << 63;

/// The upgrade request of a connection, as far as protocols need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The path without the query, `/` by default.
    pub path: String,
    /// The query, percent-decoded, in order.
    pub query: Vec<(String, String)>,
    /// Header names in lower case, in order; values that are not text are omitted.
    pub headers: Vec<(String, String)>,
    /// The client's offer in `Sec-WebSocket-Protocol`, in its order.
    pub subprotocols: Vec<String>,
    /// The client's address.
    pub peer: IpAddr,
    /// What the connection carries.
    pub traffic: Traffic,
}

/// What a connection carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Traffic {
    /// Everything, as over a WebSocket.
    #[default]
    All,
    /// Requests and their replies.
    Requests,
    /// Messages that the hub publishes.
    Publications,
}

impl Default for Handshake {
    /// A plain request for `/` from the local machine.
    fn default() -> Self {
        Handshake {
            path: "/".to_owned(),
            query: Vec::new(),
            headers: Vec::new(),
            subprotocols: Vec::new(),
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            traffic: Traffic::All,
        }
    }
}

/// An input of a machine.
#[derive(Debug, Clone)]
pub enum MachineInput {
    /// A client requests an upgrade. The machine answers with [`MachineOutput::Accept`] or [`MachineOutput::Refuse`].
    Open { conn: ConnectionId, handshake: Handshake },
    /// A whole text message.
    Text { conn: ConnectionId, text: Utf8Bytes },
    /// A whole binary message.
    Binary { conn: ConnectionId, data: Vec<u8> },
    /// A WebSocket ping, already answered by the caller. A correct machine ignores it.
    Ping { conn: ConnectionId },
    /// The peer has disconnected. Not sent for a connection that the machine itself refused, closed or dropped.
    Closed { conn: ConnectionId },
    /// An outgoing connection is established.
    Connected { conn: ConnectionId },
    /// An outgoing connection failed.
    ConnectFailed { conn: ConnectionId, reason: String },
    /// The machine's [`deadline`](Machine::deadline) has come.
    Tick,
}

impl MachineInput {
    /// The connection that this input comes from, if any.
    pub fn conn(&self) -> Option<ConnectionId> {
        match *self {
            MachineInput::Open { conn, .. }
            | MachineInput::Text { conn, .. }
            | MachineInput::Binary { conn, .. }
            | MachineInput::Ping { conn }
            | MachineInput::Closed { conn }
            | MachineInput::Connected { conn }
            | MachineInput::ConnectFailed { conn, .. } => Some(conn),
            MachineInput::Tick => None,
        }
    }
}

/// An output of a machine. `Refuse`, `Close` and `Drop` end the connection for the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineOutput {
    /// Grant the upgrade, with the subprotocol selected from the offer.
    Accept { conn: ConnectionId, subprotocol: Option<String> },
    /// Answer the upgrade request with an HTTP status (400 to 599) and a text.
    Refuse { conn: ConnectionId, status: u16, body: String },
    /// Send a text message.
    Text { conn: ConnectionId, text: Utf8Bytes },
    /// Send a binary message; only faults do.
    Binary { conn: ConnectionId, data: Vec<u8> },
    /// Start the closing handshake with this code and reason.
    Close { conn: ConnectionId, code: u16, reason: String },
    /// Cut the connection without a closing handshake.
    Drop { conn: ConnectionId },
    /// Connect to another hub, under a number from [`FIRST_OUTGOING`] on. [`MachineInput::Connected`] or
    /// [`MachineInput::ConnectFailed`] follows; once connected it is a connection like any other.
    Connect { conn: ConnectionId, url: String },
}

impl MachineOutput {
    /// The connection that this output is for.
    pub fn conn(&self) -> ConnectionId {
        match *self {
            MachineOutput::Accept { conn, .. }
            | MachineOutput::Refuse { conn, .. }
            | MachineOutput::Text { conn, .. }
            | MachineOutput::Binary { conn, .. }
            | MachineOutput::Close { conn, .. }
            | MachineOutput::Drop { conn }
            | MachineOutput::Connect { conn, .. } => conn,
        }
    }
}

/// An event from the admin side was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The protocol has no events from outside its sockets.
    #[error("this hub takes no events: everything in its protocol happens over its sockets")]
    Unsupported,
    /// The event itself is wrong; the text says what is wrong and what is expected.
    #[error("{0}")]
    Invalid(String),
}

/// One protocol as a state machine.
///
/// Contract for the caller: `now` never goes back; inputs of a connection come between its `Open` and its end; when
/// [`deadline`](Machine::deadline) has passed, a `Tick` follows. A machine ignores inputs of connections that it does
/// not know, so a frame that crosses a close is harmless.
pub trait Machine: Send {
    /// Handles one input at `now` (time since the hub started) and appends the resulting outputs to `out`.
    fn handle(&mut self, now: Duration, input: MachineInput, out: &mut Vec<MachineOutput>);

    /// Returns when the machine next needs an [`MachineInput::Tick`], if ever.
    fn deadline(&self) -> Option<Duration> {
        None
    }

    /// Returns the hub's state for the admin side, without secrets.
    fn state(&self) -> Value;

    /// Handles an event from the admin side and returns the answer.
    ///
    /// # Errors
    /// [`EventError::Unsupported`] where the protocol has none, [`EventError::Invalid`] for a wrong one.
    fn event(&mut self, _now: Duration, _event: &Value, _out: &mut Vec<MachineOutput>) -> Result<Value, EventError> {
        Err(EventError::Unsupported)
    }

    /// Appends the protocol's messages for a shutdown of the hub. The caller then closes all connections with 1001.
    fn shutdown(&mut self, _now: Duration, _out: &mut Vec<MachineOutput>) {}
}
