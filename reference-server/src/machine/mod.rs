//! The boundary between a protocol and the world: what a state machine hears and what it says.
//!
//! A [`Machine`] owns no socket, clock or thread. Whoever runs it passes the time in and carries the
//! outputs away: the io shell ([`crate::serve()`]) over real sockets, a test over a queue. The same inputs at
//! the same times give the same outputs, ids included when a seed is set.

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

/// One connection of one hub. Numbers rise in the order of arrival and are never used twice.
pub type Conn = u64;

/// Numbers from here on belong to the machine: it takes them, each once, for the connections that it asks for
/// with [`Output::Connect`].
pub const OUTGOING: Conn = 1 << 63;

/// The upgrade request of a connection, as far as protocols look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The path without the query, `/` when nothing was given.
    pub path: String,
    /// The query, percent-decoded, in order.
    pub query: Vec<(String, String)>,
    /// Header names in lower case, in order; values that are not text are left out.
    pub headers: Vec<(String, String)>,
    /// What the client offers in `Sec-WebSocket-Protocol`, in its order.
    pub subprotocols: Vec<String>,
    /// Where the connection comes from.
    pub peer: IpAddr,
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
        }
    }
}

/// What a machine hears.
#[derive(Debug, Clone)]
pub enum Input {
    /// Somebody asks for an upgrade. The machine answers with [`Output::Accept`] or [`Output::Refuse`].
    Open { conn: Conn, handshake: Handshake },
    /// A whole text message.
    Text { conn: Conn, text: Utf8Bytes },
    /// A whole binary message.
    Binary { conn: Conn, data: Vec<u8> },
    /// A WebSocket ping, already answered by whoever runs the machine. A correct machine ignores it.
    Ping { conn: Conn },
    /// The peer is gone. Not said of a connection that the machine itself refused, closed or dropped.
    Closed { conn: Conn },
    /// A connection that the machine asked for is there.
    Connected { conn: Conn },
    /// A connection that the machine asked for cannot be had, and why.
    ConnectFailed { conn: Conn, reason: String },
    /// The machine's [`deadline`](Machine::deadline) has come.
    Tick,
}

impl Input {
    /// The connection that this input comes from, if any.
    pub fn conn(&self) -> Option<Conn> {
        match *self {
            Input::Open { conn, .. }
            | Input::Text { conn, .. }
            | Input::Binary { conn, .. }
            | Input::Ping { conn }
            | Input::Closed { conn }
            | Input::Connected { conn }
            | Input::ConnectFailed { conn, .. } => Some(conn),
            Input::Tick => None,
        }
    }
}

/// What a machine says. After `Refuse`, `Close` or `Drop` the connection is over for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Grant the upgrade, with the subprotocol chosen from the offer.
    Accept { conn: Conn, subprotocol: Option<String> },
    /// Answer the upgrade request with an HTTP status (400 to 599) and a text.
    Refuse { conn: Conn, status: u16, body: String },
    /// Send a text message.
    Text { conn: Conn, text: Utf8Bytes },
    /// Send a binary message. No protocol here has any; a fault may.
    Binary { conn: Conn, data: Vec<u8> },
    /// Begin the closing handshake with this code and reason.
    Close { conn: Conn, code: u16, reason: String },
    /// Cut the connection without a closing handshake.
    Drop { conn: Conn },
    /// Connect to another hub, under a number from [`OUTGOING`] on. [`Input::Connected`] or
    /// [`Input::ConnectFailed`] follows; then it is a connection like any other.
    Connect { conn: Conn, url: String },
}

impl Output {
    /// The connection that this output is for.
    pub fn conn(&self) -> Conn {
        match *self {
            Output::Accept { conn, .. }
            | Output::Refuse { conn, .. }
            | Output::Text { conn, .. }
            | Output::Binary { conn, .. }
            | Output::Close { conn, .. }
            | Output::Drop { conn }
            | Output::Connect { conn, .. } => conn,
        }
    }
}

/// Why an event from the admin side was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The protocol has no events from outside its sockets.
    #[error("the {0} hub takes no events: everything in this protocol happens over its sockets")]
    Unsupported(&'static str),
    /// The event itself is wrong; the text says what and what is right.
    #[error("{0}")]
    Invalid(String),
}

/// One protocol as a state machine.
///
/// Contract for whoever runs it: `now` never goes back; inputs of a connection come between its `Open` and
/// its end; when [`deadline`](Machine::deadline) has passed, a `Tick` follows. A machine ignores inputs of
/// connections that it does not know, so a frame that crosses a close does no harm.
pub trait Machine: Send {
    /// Takes one input at `now` (time since the hub started) and appends what follows from it to `out`.
    fn handle(&mut self, now: Duration, input: Input, out: &mut Vec<Output>);

    /// When the machine next wants a [`Input::Tick`], if ever.
    fn deadline(&self) -> Option<Duration>;

    /// What the hub knows, for the admin side. Holds no secrets.
    fn state(&self) -> Value;

    /// Takes an event from the admin side and answers it.
    ///
    /// # Errors
    /// [`EventError::Unsupported`] where the protocol has none, [`EventError::Invalid`] for a wrong one.
    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<Output>) -> Result<Value, EventError>;

    /// The hub shuts down: the last words of a protocol that has any. Whoever is still connected afterwards is
    /// closed with 1001.
    fn shutdown(&mut self, _now: Duration, _out: &mut Vec<Output>) {}
}
