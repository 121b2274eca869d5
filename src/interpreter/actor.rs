//! One actor while it plays: its connection, and the frames that nobody has claimed yet.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::protocol::MessageType;
use crate::scenario::value::{Bound, Wire};

/// Frames of an inbox that are kept; beyond them the oldest unclaimed go, and the report says so.
const MOST_FRAMES: usize = 10_000;
/// Bytes, about, that all inboxes of a conversation hold together, unless one frame alone weighs more.
pub const MOST_BYTES: usize = 24 << 20;

#[derive(Default)]
pub struct Actor {
    pub given: BTreeMap<String, Bound>,
    /// Names its opening bound.
    pub opened: BTreeMap<String, Bound>,
    pub link: Link,
    /// The latest connection, while it is open and after.
    pub connection: Option<u32>,
    /// Its upgrade request has no handshake header of the scenario's making.
    pub asks_plainly: bool,
    pub opened_at: Duration,
    pub inbox: VecDeque<Entry>,
    pub inbox_bytes: usize,
    pub overflowed: usize,
    /// Position of the latest frame that went though nobody had claimed it.
    pub lost: u64,
    /// Frames of this connection are gone, claimed or not.
    pub forgetful: bool,
    pub last_sent: Option<String>,
    /// Where it listens, for a role with `side: server`.
    pub url: Option<String>,
    /// A step has already blamed the hub for the end of this connection, or expected it.
    pub end_noticed: bool,
    pub closing: Closing,
    /// How the stream itself ended, below WebSocket.
    pub stream_end: Option<Value>,
}

/// How far a closing handshake is that a step of this actor began.
#[derive(Default)]
pub enum Closing {
    #[default]
    No,
    Asked,
    Answered(End),
}

#[derive(Default)]
pub enum Link {
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
        /// It says nothing of the hub: something went wrong before it, or we took no more.
        undecided: bool,
    },
    Unreachable {
        reason: String,
    },
    Ended(End),
}

/// How a connection came to its end.
#[derive(Clone, Debug)]
pub struct End {
    pub sequence: u64,
    pub at: Duration,
    /// Since it was open.
    pub after: Duration,
    /// A close frame arrived.
    pub close_frame: bool,
    pub code: Option<u16>,
    pub reason: String,
    pub claimed: bool,
    /// We ended it ourselves.
    pub by_us: bool,
}

impl End {
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

    pub fn describe(&self) -> String {
        let reason = if self.reason.is_empty() { String::new() } else { format!(" ({})", self.reason) };
        match (self.close_frame, self.code) {
            (true, Some(code)) => format!("the hub closed the connection with {code}{reason}"),
            (true, None) => "the hub closed the connection with an empty close frame".to_owned(),
            (false, _) if self.by_us => format!("this side ended the connection{reason}"),
            (false, _) => format!("the connection ended without a close frame{reason}"),
        }
    }
}

pub struct Entry {
    pub wire: Arc<Wire>,
    pub kind: EntryKind,
    pub claimed: bool,
    /// About how many bytes it takes.
    pub weight: usize,
}

pub enum EntryKind {
    /// `json` is missing where it is none; `message` is the index in the pack of what it is.
    Message {
        json: Option<Value>,
        message: Option<usize>,
    },
    /// JSON, but beyond what is decoded here: it may be any message that the texts by which messages are recognised do not
    /// rule out, `None` where they cannot be told.
    Undecodable {
        why: String,
        texts: Option<BTreeMap<String, Option<String>>>,
    },
    Control {
        pong: bool,
        data: Vec<u8>,
    },
}

impl Entry {
    /// Why it cannot be told what it is, if it cannot.
    pub fn unread(&self) -> Option<String> {
        let EntryKind::Undecodable { why, .. } = &self.kind else { return None };
        Some(format!("cannot be told: a frame came that is JSON, but cannot be decoded here: {why}"))
    }

    /// Whether it is certainly not this message, though it is not decoded.
    pub fn is_not(&self, message: &MessageType) -> bool {
        let EntryKind::Undecodable { texts: Some(texts), .. } = &self.kind else { return false };
        message.matcher.texts().any(|(name, text)| texts.get(name).and_then(Option::as_deref) != Some(text))
    }
}

impl Actor {
    pub fn is_open(&self) -> bool {
        matches!(self.link, Link::Open { .. })
    }

    /// A new connection: nothing of the old one counts any more.
    pub fn reset_connection(&mut self, connection: u32) {
        self.connection = Some(connection);
        self.link = Link::Connecting;
        self.inbox.clear();
        self.inbox_bytes = 0;
        self.lost = 0;
        self.end_noticed = false;
        self.forgetful = false;
        self.closing = Closing::No;
        self.stream_end = None;
    }

    pub fn push(&mut self, entry: Entry) {
        self.inbox_bytes += entry.weight;
        self.inbox.push_back(entry);
        while self.inbox.len() > MOST_FRAMES {
            self.lose_oldest();
        }
    }

    pub fn lose_oldest(&mut self) {
        let Some(oldest) = self.inbox.pop_front() else { return };
        self.inbox_bytes -= oldest.weight;
        self.forgetful = true;
        if !oldest.claimed {
            self.overflowed += 1;
            self.lost = oldest.wire.sequence;
        }
    }

    /// A member of [`Actor::bound`].
    pub fn member(&self, name: &str) -> Option<Bound> {
        match (&self.url, self.opened.get(name).or_else(|| self.given.get(name))) {
            (Some(url), _) if name == "url" => Some(Bound::plain(Value::from(url.clone()))),
            (_, bound) => bound.cloned(),
        }
    }

    /// What an expression sees under the actor's name.
    pub fn bound(&self) -> Bound {
        let mut names = self.given.clone();
        names.extend(self.opened.iter().map(|(name, bound)| (name.clone(), bound.clone())));
        if let Some(url) = &self.url {
            names.insert("url".to_owned(), Bound::plain(Value::from(url.clone())));
        }
        Bound::Scene(names)
    }
}
