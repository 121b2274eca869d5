//! The actors and their connections.

mod batch;
mod inbox;
mod interludes;
mod last_pings;
mod sent;

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

pub use self::batch::{Batch, Overlap};
pub use self::inbox::{FrameJson, Inbox, InboxFrame, InboxFrameKind};
pub use self::interludes::{EarlyEnd, Interludes, MOST_PAUSES};
pub use self::sent::{KEPT_FRAMES, MAX_SHOWN, SentFrame};

use self::last_pings::LastPing;
use super::invariants::exchange::Exchange;
use super::invariants::uses_sent;
use crate::deviation::proposal;
use crate::protocol::Pack;
use crate::scenario::model::{ActorId, AlwaysEntry, Program};
use crate::scenario::value::{BoundValue, Wire};
use crate::websocket::codec::FrameDecoder;
use crate::websocket::frame::ConnectionEvent;

/// The approximate limit in bytes for all inboxes of a conversation together. A single frame may exceed it.
const MAX_BYTES: usize = 24 << 20;

/// The most messages sent on a connection that are remembered.
const MAX_REQUESTS: usize = 32;

/// All actors of a conversation and their connections, past ones included.
pub struct Actors {
    all: Vec<ActorState>,
    /// The actor of each connection. Replaced connections stay, so that late frames are still recorded.
    pub connections: BTreeMap<u32, ActorId>,
    /// Whether the messages that are sent are kept, because an entry of `always` uses them.
    pub keeps_sent: bool,
    /// The latest frames that were sent, oldest first.
    pub sent: VecDeque<SentFrame>,
    /// The number of frames that no step claimed, by message.
    pub leftovers: BTreeMap<String, usize>,
}

impl Actors {
    pub fn new(program: &Program) -> Self {
        let all = program.actors.iter().map(|_| ActorState::default()).collect();
        let keeps_sent = program.always.iter().any(|entry| match entry {
            AlwaysEntry::Check { value, test, .. } => uses_sent(value, test),
            _ => false,
        });
        Self { all, connections: BTreeMap::new(), keeps_sent, sent: VecDeque::new(), leftovers: BTreeMap::new() }
    }

    /// Returns the actor that sent the latest frame.
    pub fn last_sender(&self) -> Option<ActorId> {
        self.sent.back().map(|latest| latest.actor)
    }

    pub fn ids(&self) -> std::ops::Range<ActorId> {
        0..self.all.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &ActorState> {
        self.all.iter()
    }

    /// Returns the connection of an actor, if it is open.
    pub fn open_connection(&self, id: ActorId) -> Option<u32> {
        let actor = &self.all[id];
        actor.connection.filter(|_| actor.is_open())
    }

    /// Counts the connections of an actor, open and ended.
    pub fn connection_count(&self, id: ActorId) -> usize {
        self.connections.values().filter(|actor| **actor == id).count()
    }

    /// Puts a frame into an inbox. If all inboxes are full, keeps only the text of frames. If that is not enough, drops the
    /// oldest frames of any inbox, but never this one.
    pub fn keep(&mut self, id: ActorId, entry: InboxFrame, pack: &Pack) {
        let newest = entry.wire.sequence;
        self.all[id].latest.inbox.push(entry, pack);
        while self.all.iter().map(|actor| actor.latest.inbox.bytes).sum::<usize>() > MAX_BYTES {
            if self.all.iter_mut().any(|actor| actor.latest.inbox.keep_oldest_text()) {
                continue;
            }
            let front = |inbox: &Inbox| inbox.frames.front().map_or(u64::MAX, |entry| entry.wire.sequence);
            match self.all.iter_mut().map(|actor| &mut actor.latest.inbox).min_by_key(|inbox| front(inbox)) {
                Some(inbox) if front(inbox) < newest => inbox.drop_oldest(pack),
                _ => break,
            }
        }
    }

    /// Counts the frames of an actor's current connection that no step claimed, and those dropped from a full inbox.
    pub fn keep_leftovers(&mut self, id: ActorId, program: &Program) {
        let inbox = &mut self.all[id].latest.inbox;
        let overflowed = std::mem::take(&mut inbox.overflowed);
        if overflowed > 0 {
            *self.leftovers.entry("(dropped from a full inbox)".to_owned()).or_default() += overflowed;
        }
        for entry in inbox.frames.iter().filter(|entry| !entry.claimed && !entry.wire.is_assumed()) {
            let name = entry.name(&program.pack);
            let control = matches!(entry.kind, InboxFrameKind::Control { .. });
            if !control && !program.shared.ignore.iter().any(|ignored| ignored == name) {
                *self.leftovers.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
}

impl Index<ActorId> for Actors {
    type Output = ActorState;

    fn index(&self, id: ActorId) -> &ActorState {
        &self.all[id]
    }
}

impl IndexMut<ActorId> for Actors {
    fn index_mut(&mut self, id: ActorId) -> &mut ActorState {
        &mut self.all[id]
    }
}

impl Program {
    /// Whether the hub connects to the actor, rather than the actor to the hub.
    pub(super) fn is_server(&self, id: ActorId) -> bool {
        self.roles.get(&self.actors[id].role).is_some_and(|role| role.server)
    }

    /// Whether the hub is a client of the actor, and may send it messages of a client.
    pub(super) fn is_above_hub(&self, id: ActorId) -> bool {
        self.is_server(id) && !self.pack.judges_clients
    }
}

#[derive(Default)]
pub struct ActorState {
    pub given: BTreeMap<String, BoundValue>,
    /// Names that the actor's opening bound.
    pub opened: BTreeMap<String, BoundValue>,
    pub link: ConnectionState,
    /// The latest connection, open or ended.
    pub connection: Option<u32>,
    pub opened_at: Duration,
    /// Position of the event with which the latest connection opened.
    pub opened_event: u64,
    /// The URL at which the actor listens, for a role with `side: server`.
    pub url: Option<String>,
    /// The connection for which a step has waited already: the next one waits for another, once this one has ended.
    pub accepted: Option<u32>,
    /// Further connections, which wait for a step that accepts them, each with what has come on it.
    pub waiting: VecDeque<(u32, Vec<ConnectionEvent>)>,
    pub latest: ActorConnection,
}

/// What belongs to an actor's latest connection, and begins anew with the next.
#[derive(Default)]
pub struct ActorConnection {
    /// The address that the actor requested; `None` if the hub connected to the actor.
    pub address: Option<String>,
    /// Whether the upgrade request is standard: the scenario changed no handshake header.
    pub standard_upgrade: bool,
    /// The subprotocols that an opening offered.
    pub offered: String,
    /// The declared deviations that the upgrade request follows, by index.
    pub upgrade_deviations: Vec<usize>,
    /// Assembles the texts that raw frames and bytes carry to a hub with declared deviations.
    pub sent_frames: Option<FrameDecoder>,
    pub last_sent_at: Duration,
    pub has_sent: bool,
    /// The latest messages sent, oldest first.
    pub requests: VecDeque<SentRequest>,
    pub inbox: Inbox,
    /// Position of the first message received, which may be a greeting.
    pub first_message: Option<u64>,
    pub exchange: Exchange,
    /// Whether a step has already blamed the hub for the end of the connection, or expected it.
    pub end_noticed: bool,
    pub closing: ClosingHandshake,
    /// Whether the hub may ignore our pings: we stopped reading, or sent raw bytes that may end in the middle of a frame.
    pub may_leave_pings: bool,
    /// The ping that the hub has to answer before the conversation ends.
    pub last_ping: Option<LastPing>,
    /// How the stream itself ended, below WebSocket.
    pub stream_end: Option<Value>,
}

/// A message that an actor sent.
pub struct SentRequest {
    /// Index of the message in the pack; `None` if the step sent raw frames.
    pub message: Option<usize>,
    /// The payload; `None` if it is long.
    pub text: Option<Arc<str>>,
    /// Position among all events of the conversation.
    pub sequence: u64,
    /// Whether a value in it comes from a message that was only assumed.
    pub assumed: bool,
}

/// The state of a closing handshake that a step of this actor began.
#[derive(Default)]
pub enum ClosingHandshake {
    #[default]
    No,
    Sent,
    Answered(ConnectionEnd),
}

#[derive(Default)]
pub enum ConnectionState {
    #[default]
    Idle,
    Connecting,
    Open {
        upgrade: Value,
    },
    Refused {
        sequence: u64,
        refusal: Value,
        text: String,
        /// Whether the refusal says nothing about the hub: a proxy may have answered, or a limit of hubproof was
        /// exceeded.
        undecided: bool,
    },
    Unreachable {
        reason: String,
    },
    Ended(ConnectionEnd),
}

/// How a connection ended.
#[derive(Clone, Debug)]
pub struct ConnectionEnd {
    pub sequence: u64,
    pub at: Duration,
    /// The time from the opening of the connection to its end.
    pub after: Duration,
    /// Whether a close frame arrived.
    pub close_frame: bool,
    pub code: Option<u16>,
    pub reason: String,
    pub claimed: bool,
    /// Whether hubproof ended the connection.
    pub by_us: bool,
}

impl ConnectionEnd {
    pub fn to_json(&self) -> Value {
        let mut members = serde_json::Map::new();
        if let Some(code) = self.code {
            members.insert("code".to_owned(), Value::from(code));
        }
        members.insert("reason".to_owned(), Value::from(self.reason.clone()));
        members.insert("clean".to_owned(), Value::from(self.close_frame));
        members.insert("after".to_owned(), Value::from(self.after.as_secs_f64()));
        Value::Object(members)
    }

    /// Whether a close frame came whose code was not read, because the frame violates RFC 6455.
    pub fn is_unread_close(&self) -> bool {
        !self.close_frame && !self.by_us && self.reason.starts_with("a close frame")
    }

    pub fn describe(&self) -> String {
        let reason = if self.reason.is_empty() { String::new() } else { format!(" ({})", self.reason) };
        match (self.close_frame, self.code) {
            (true, Some(code)) => format!("the hub closed the connection with {code}{reason}"),
            (true, None) => "the hub closed the connection with an empty close frame".to_owned(),
            (false, _) if self.by_us => format!("hubproof ended the connection{reason}"),
            (false, _) => format!("the connection ended without a close frame{reason}"),
        }
    }
}

impl ActorState {
    pub fn is_open(&self) -> bool {
        matches!(self.link, ConnectionState::Open { .. })
    }

    /// Starts a new connection and forgets everything about the old one.
    pub fn reset_connection(&mut self, connection: u32) {
        self.connection = Some(connection);
        self.link = ConnectionState::Connecting;
        self.latest = ActorConnection::default();
    }

    /// Returns a member of [`ActorState::to_bound`].
    pub fn member(&self, name: &str) -> Option<BoundValue> {
        match (&self.url, self.opened.get(name).or_else(|| self.given.get(name))) {
            (Some(url), _) if name == "url" => Some(BoundValue::from_value(Value::from(url.clone()))),
            (_, bound) => bound.cloned(),
        }
    }

    /// Returns the value that expressions see under the actor's name.
    pub fn to_bound(&self) -> BoundValue {
        let mut names = self.given.clone();
        names.extend(self.opened.iter().map(|(name, bound)| (name.clone(), bound.clone())));
        if let Some(url) = &self.url {
            names.insert("url".to_owned(), BoundValue::from_value(Value::from(url.clone())));
        }
        BoundValue::Scene(names)
    }
}

impl ActorConnection {
    /// Remembers a message that was sent, by its index in the pack, and forgets the oldest one if there are too many.
    pub fn record_request(&mut self, message: Option<usize>, wire: &Wire) {
        if self.requests.len() == MAX_REQUESTS {
            self.requests.pop_front();
        }
        let text = (wire.size < proposal::MAX_BYTES).then(|| Arc::clone(&wire.text));
        let assumed = wire.provenance.is_assumed();
        self.requests.push_back(SentRequest { message, text, sequence: wire.sequence, assumed });
    }

    /// Returns when the latest message came.
    pub fn last_message_at(&self) -> Option<Duration> {
        let is_message = |entry: &&InboxFrame| matches!(entry.kind, InboxFrameKind::Message { .. });
        let received = self.inbox.frames.iter().filter(is_message).rfind(|entry| !entry.wire.is_assumed());
        received.map(|entry| entry.wire.at)
    }
}
