//! The interface between a virtual client and its surroundings: its inputs and its actions.
//!
//! The shards of the engine implement [`ClientIo`] with sockets, tests with a simulated hub. The client's code is
//! generic over it, so a call is direct and allocates nothing.

use serde::{Deserialize, Serialize};

use crate::load::Nanos;
use crate::load::ids::{HookId, MessageId};
use crate::load::ledger::{LedgerEntry, NameOwner};
use crate::load::metrics::{LoadErrorKind, Measurement};
use crate::load::provenance::DeliveredFrame;
use crate::websocket::dial::Dial;

/// An event that a client handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEvent<'a> {
    /// The client is due to connect, by the ramp of its population.
    Start,
    /// The upgrade requested by [`ClientIo::open`] succeeded.
    Opened,
    /// A whole text or binary message of the hub, or one that it never sends and the client assumes.
    Frame(DeliveredFrame<'a>),
    /// The connection ended or could not be opened.
    Closed(Disconnection),
    /// The time requested by [`ClientIo::wake_at`] has come.
    Wake,
    /// A journey begins; it was due at this time, which may be earlier than now. Sent only to a client that [has
    /// room](super::VirtualClient::has_room); otherwise it is counted as missed.
    Arrival { due: Nanos },
    /// The JSON answer of a hook that the client called; `None` if the hook failed.
    Answer(Option<&'a [u8]>),
    /// New journeys are held back from this time on, running ones continue. Journeys that were due before still begin.
    Hold { since: Nanos },
    /// The hold is over at this time: everything still to come is delayed by its length.
    Resume { until: Nanos },
    /// The measured time is over: no new journeys begin, running ones continue.
    Drain,
    /// The run is over: the client closes its connection.
    Finish,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disconnection {
    /// The hub sent a close frame with this code; 1005 stands for none.
    Close(u16),
    /// The connection was reset.
    Reset,
    /// The connection ended without a close frame.
    Dropped,
    /// The hub did not read, until too many bytes were waiting for it.
    Unread,
    /// The hub violated RFC 6455, or exceeded a limit.
    Violation,
    /// The hub refused the upgrade: it answered with this status, or with an invalid 101.
    Refused(u16),
    /// The answer to the upgrade request is not HTTP.
    NotHttp,
    /// TLS failed.
    Tls,
    /// No connection could be opened: refused, ended before the upgrade, or timeout.
    Unreachable,
    /// This machine ran out of file descriptors, ports or memory.
    Resources,
    /// The request could not be made.
    Internal,
}

impl Disconnection {
    /// Returns the kind of error in the report.
    pub fn error_kind(self) -> LoadErrorKind {
        match self {
            Self::Close(_) | Self::Reset | Self::Dropped | Self::Unread => LoadErrorKind::Lost,
            Self::Violation => LoadErrorKind::Protocol,
            Self::Refused(_) | Self::NotHttp => LoadErrorKind::Upgrade,
            Self::Tls => LoadErrorKind::Tls,
            Self::Unreachable => LoadErrorKind::Connect,
            Self::Resources => LoadErrorKind::Resources,
            Self::Internal => LoadErrorKind::Internal,
        }
    }

    /// Describes the end, to follow "the connection was"; `detail` is the reason of a close frame, the description of a refusal, or the error.
    pub fn describe(self, detail: &str) -> String {
        let what = match self {
            Self::Close(1005) => "closed by the hub, without a code".to_owned(),
            Self::Close(code) => format!("closed by the hub, {code}"),
            Self::Reset => "reset by the hub".to_owned(),
            Self::Dropped => "ended by the hub without a close frame".to_owned(),
            Self::Unread => "given up, because the hub did not read".to_owned(),
            Self::Violation => "given up, because the hub violated the WebSocket protocol".to_owned(),
            // The detail says all of it.
            Self::Refused(_) if !detail.is_empty() => return format!("refused: {detail}"),
            Self::Refused(status) => format!("refused: HTTP {status} instead of 101"),
            Self::NotHttp => "refused: the answer to the upgrade cannot be understood".to_owned(),
            Self::Tls => "given up, because TLS failed".to_owned(),
            Self::Unreachable => "not opened".to_owned(),
            Self::Resources => {
                "not opened, because this machine ran out of file descriptors, ports or memory".to_owned()
            }
            Self::Internal => "not opened, because the request could not be made".to_owned(),
        };
        if detail.is_empty() { what } else { format!("{what} ({detail})") }
    }

    /// Returns the name in JSON and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Close(_) => "closed",
            Self::Reset => "reset",
            Self::Dropped => "dropped",
            Self::Unread => "unread",
            Self::Violation => "violation",
            Self::Refused(_) => "refused",
            Self::NotHttp => "not-http",
            Self::Tls => "tls",
            Self::Unreachable => "unreachable",
            Self::Resources => "resources",
            Self::Internal => "internal",
        }
    }

    /// Returns the code of the close frame, or the HTTP status of the refusal.
    pub fn code(self) -> Option<u16> {
        match self {
            Self::Close(1005) => None,
            Self::Close(code) | Self::Refused(code) => Some(code),
            _ => None,
        }
    }
}

/// A wait for a message in which a journey ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JourneyWait {
    pub program: usize,
    /// The index of the operation in the program.
    pub at: usize,
    /// Whether the message did not come in time; otherwise the run ended first.
    pub timed_out: bool,
}

/// A fault that a client reports, counted by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientFault {
    /// The answer to this message did not come in time.
    Timeout(MessageId),
    /// This expected message, which answers no request, did not come in time.
    Missing(MessageId),
    /// This documented answer came instead of the one that the plan expects.
    Refused(MessageId),
    /// A connection ended unexpectedly.
    Ended(Disconnection),
    /// A received frame is neither a JSON object nor a message of the pack.
    NoObject,
    /// A received object matches no message of the pack; a hub may send more than is documented.
    Undocumented,
    /// No step was waiting for a received message, though the role has steps that take any such message.
    NotTaken(MessageId),
    /// A received message lacks a member that a later step needs.
    Unusable(MessageId),
    /// A hook failed.
    Hook,
    /// An expression of a step could not be evaluated.
    Internal,
    /// A journey was unfinished when the connection or the run ended.
    Aborted,
}

/// The actions of a client.
pub trait ClientIo {
    /// Opens the connection; [`ClientEvent::Opened`] or [`ClientEvent::Closed`] follows.
    fn open(&mut self, dial: &Dial);

    /// Closes the connection with a close frame; [`ClientEvent::Closed`] follows.
    fn close(&mut self, code: u16);

    /// Sends a text message that was due at this time. `ready` is when the client could send it: its due time, or
    /// later if the client was busy until then. `write` is called once and must only append its payload to the buffer.
    /// Returns the time at which it was sent.
    fn send(&mut self, message: MessageId, due: Nanos, ready: Nanos, write: impl FnOnce(&mut Vec<u8>)) -> Nanos;

    /// Requests [`ClientEvent::Wake`] at this time, or at once if it has passed; replaces an earlier request.
    /// [`Nanos::MAX`] cancels it.
    fn wake_at(&mut self, at: Nanos);

    /// Calls a hook. `arguments` is JSON with `args` and, for hooks that take one, `message`. [`ClientEvent::Answer`]
    /// follows, in the order of the client's calls.
    fn call_hook(&mut self, hook: HookId, arguments: Vec<u8>);

    /// Reports that the opening succeeded, for the first time or after a reconnect.
    fn joined(&mut self);

    /// Reports that the opening failed at this operation of its program; `fault` is `None` if the client waited in vain
    /// for a message of any kind.
    fn not_joined(&mut self, at: usize, fault: Option<ClientFault>);

    /// Reports that the client can take another journey.
    fn capacity_freed(&mut self);

    /// Records what the client measured at `at`.
    fn record(&mut self, measurement: Measurement, at: Nanos);

    /// Reports a journey that waited for a message at an operation of a program: in vain, or still at the end of the
    /// run.
    fn journey_waited(&mut self, wait: JourneyWait);

    /// Reports a fault.
    fn fault(&mut self, fault: ClientFault, at: Nanos);

    /// Records an entry for the ledger.
    fn record_entry(&mut self, entry: LedgerEntry);

    /// Reports the name of an item or party before, or with, entries about it; may be repeated.
    fn report_name(&mut self, of: NameOwner, name: &[u8]);
}
