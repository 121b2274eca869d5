//! The requests of one side of a connection, as far as they are answered by id.

use std::collections::{HashMap, VecDeque};

use serde_json::Value;

use crate::protocol::{MessageType, Pack};
use crate::redact::MASK;

/// The most ids that are remembered, and the longest in bytes.
const MAX_IDS: usize = 10_000;
const MAX_ID_BYTES: usize = 1 << 10;
/// The most requests whose answers are awaited.
const MAX_AWAITED: usize = 1_000;

/// The requests of one side.
#[derive(Default)]
pub struct RequestLedger {
    requests: HashMap<String, SentRequests>,
    awaited: VecDeque<AwaitedAnswer>,
    /// Whether requests may be missing: the connection was joined later, a frame was not understood, or there are too
    /// many ids.
    pub is_incomplete: bool,
}

#[derive(Default)]
struct SentRequests {
    /// The messages, by index.
    messages: Vec<usize>,
    /// How many requests with this id have no reply yet.
    open: usize,
}

/// A request that the other side has not answered yet.
pub struct AwaitedAnswer {
    pub id: String,
    pub message: usize,
    /// Unix time in milliseconds.
    pub since: i64,
}

/// What is wrong with a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyFault {
    /// No request had its id.
    Unasked,
    /// Every request with its id has a reply already.
    Repeated,
}

/// Returns the id in a message; `None` if there is none, or if it was masked.
pub fn id_of(message: &MessageType, value: &Value) -> Option<String> {
    message.correlation_key(value).filter(|id| !id.contains(MASK))
}

impl RequestLedger {
    /// Returns the messages, by index, that were sent with an id.
    pub fn messages(&self, id: &str) -> Vec<usize> {
        self.requests.get(id).map(|sent| sent.messages.clone()).unwrap_or_default()
    }

    pub fn id_count(&self) -> usize {
        self.requests.len()
    }

    /// Records a message of this side, if it is a request with an id. `is_valid`: the other side has to understand it.
    pub fn add(&mut self, pack: &Pack, index: usize, value: &Value, time: i64, is_valid: bool) {
        let message = &pack.messages[index];
        if message.replies.is_empty() {
            return;
        }
        let Some(id) = id_of(message, value) else { return };
        if id.len() > MAX_ID_BYTES || self.requests.len() >= MAX_IDS && !self.requests.contains_key(&id) {
            self.is_incomplete = true;
            return;
        }
        let sent = self.requests.entry(id.clone()).or_default();
        sent.open += 1;
        if !sent.messages.contains(&index) {
            sent.messages.push(index);
        }
        if is_valid && self.awaited.len() < MAX_AWAITED {
            self.awaited.push_back(AwaitedAnswer { id, message: index, since: time });
        }
    }

    /// Records a reply to a request of this side that only its id leads to. Returns what is wrong with it.
    pub fn take_reply(&mut self, id: &str) -> Option<ReplyFault> {
        let fault = match self.requests.get_mut(id) {
            Some(sent) if sent.open > 0 => {
                sent.open -= 1;
                return None;
            }
            Some(_) => ReplyFault::Repeated,
            None => ReplyFault::Unasked,
        };
        (!self.is_incomplete).then_some(fault)
    }

    /// Records a message of the other side that may be an answer: to the requests with its id or, without an id, to any.
    pub fn settle(&mut self, id: Option<&str>) {
        self.awaited.retain(|awaited| id.is_some_and(|id| id != awaited.id));
    }

    /// Takes the requests that have waited for longer than `patience` milliseconds.
    pub fn take_overdue(&mut self, now: i64, patience: i64) -> Vec<AwaitedAnswer> {
        let is_overdue = |awaited: &AwaitedAnswer| now.saturating_sub(awaited.since) > patience;
        let count = self.awaited.iter().take_while(|awaited| is_overdue(awaited)).count();
        let overdue = self.awaited.drain(..count).collect();
        if self.is_incomplete { Vec::new() } else { overdue }
    }
}
