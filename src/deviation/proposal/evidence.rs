//! Evidence from conversations about how a hub deviates from its document. All of it is about frames that the hub sent:
//! a message that is only assumed proves nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::into_members;
use crate::deviation::parse::AFTER_CONNECTION;
use crate::protocol::Pack;
use crate::scenario::compose::put_at_pointer;
use crate::syntax::matcher::child;

/// Something that a conversation expected but did not get, although the hub was reachable.
#[derive(Clone, Debug, PartialEq)]
pub struct MissedExpectation {
    pub what: MissedExpectationKind,
    /// The rules of the step that expected it.
    pub rules: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum MissedExpectationKind {
    /// A message, by its index in the pack.
    Message {
        message: usize,
        /// The cause that should have made the hub send the message; `None` if it is unknown, a hook, or another
        /// client.
        origin: Option<MessageOrigin>,
        /// Messages received since then that are not documented and that no step expected.
        instead: Vec<UnknownMessage>,
        /// Received messages of this kind that did not meet the expectation.
        near: Vec<Value>,
        /// Whether the hub gave another kind of answer, such as a refusal, and so did not omit its answer.
        answered: bool,
    },
    /// An upgrade: the hub refused it with this answer.
    Upgrade { status: u64, answer: String },
}

/// A received message that is not documented.
#[derive(Clone, Debug, PartialEq)]
pub struct UnknownMessage {
    pub json: Value,
    /// Whether it repeats an id of the request, so that it is an answer of some form.
    pub answers: bool,
}

/// What makes a hub send a message to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageOrigin {
    /// The client connected and has sent nothing.
    Connection,
    /// The request, by its index in the pack, that the message answers according to the document.
    Reply(usize),
    /// The latest request to which no documented reply came. The document does not say what the message answers.
    Unanswered(usize),
}

impl MessageOrigin {
    /// Returns the name that the key `after` of an entry has for it.
    pub fn name(self, pack: &Pack) -> &str {
        match self {
            Self::Connection => AFTER_CONNECTION,
            Self::Reply(request) | Self::Unanswered(request) => &pack.messages[request].name,
        }
    }
}

/// Facts about the messages that a hub sent, expected or not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviationEvidence {
    /// Messages, by their indices in the pack.
    pub messages: BTreeSet<usize>,
    /// The messages that conformed to their schema at least once.
    pub conforming: BTreeSet<usize>,
    /// Names of top-level members, as the hub spells them.
    pub members: BTreeSet<String>,
    /// The first message of each kind that broke its schema.
    pub broken: BTreeMap<usize, Value>,
    /// Members that were absent or had another value than a check needed, by place.
    pub unfit: BTreeMap<String, UnfitMessage>,
    /// The kinds of messages with which connections began; at most [`MAX_GREETINGS`], as only one kind is a greeting.
    pub greetings: Vec<Greeting>,
    /// The messages, by their indices in the pack, that checks needed as the first one of a connection that began with
    /// another, with the rules of these checks.
    pub ungreeted: BTreeMap<usize, BTreeSet<String>>,
}

/// A kind of message with which connections began.
#[derive(Clone, Debug, PartialEq)]
pub struct Greeting {
    /// The members by which the pack distinguishes messages, with the values that the hub sent.
    pub like: Map<String, Value>,
    /// The message's index in the pack, if it is documented.
    pub message: Option<usize>,
    /// Number of connections that began with it.
    pub connections: usize,
    /// Number of these connections on which the client had sent nothing.
    pub unprompted: usize,
    /// Whether it also came later on a connection.
    pub again: bool,
}

/// The first message in which a member failed a check.
#[derive(Clone, Debug, PartialEq)]
pub struct UnfitMessage {
    /// The message's index in the pack.
    pub message: usize,
    pub json: Value,
    /// The rules of all checks that needed the member.
    pub rules: BTreeSet<String>,
}

/// The most bytes of a message that is kept; longer ones are ignored.
pub const MAX_BYTES: usize = 10_000;

/// The most kinds of first messages that are kept.
const MAX_GREETINGS: usize = 2;

/// The most bytes of a text that may distinguish messages; longer ones are content.
const MAX_DISTINGUISHING_TEXT: usize = 200;

/// The most member names that are kept: a hub may invent any number of them.
const MAX_MEMBERS: usize = 500;

impl DeviationEvidence {
    /// Adds a message as the hub sent it, with its index in the pack.
    pub fn add_message(&mut self, message: Option<usize>, json: &Value) {
        self.messages.extend(message);
        for name in json.as_object().into_iter().flatten().map(|(name, _)| name) {
            if self.members.len() < MAX_MEMBERS && name.len() < 100 && !self.members.contains(name) {
                self.members.insert(name.clone());
            }
        }
    }

    /// Adds a message as the hub sent it to a connection that had received none, with its index in the pack. `prompted`:
    /// whether the client had sent something.
    pub fn add_first(&mut self, pack: &Pack, message: Option<usize>, json: &Value, prompted: bool) {
        let (like, unprompted) = (distinguishing_members(pack, json), usize::from(!prompted));
        self.add_greeting(&Greeting { like, message, connections: 1, unprompted, again: false });
    }

    /// Adds a message as the hub sent it to a connection that had received others.
    pub fn add_later(&mut self, json: &Value) {
        for greeting in &mut self.greetings {
            greeting.again |= !greeting.like.is_empty() && has_members(json, &greeting.like);
        }
    }

    fn add_greeting(&mut self, greeting: &Greeting) {
        if let Some(known) = self.greetings.iter_mut().find(|known| known.like == greeting.like) {
            known.connections += greeting.connections;
            known.unprompted += greeting.unprompted;
            known.again |= greeting.again;
        } else if self.greetings.len() < MAX_GREETINGS {
            self.greetings.push(greeting.clone());
        }
    }

    /// Returns the kind of message with which all connections began, at least two and one of them unprompted.
    pub fn greeting(&self) -> Option<&Greeting> {
        match self.greetings.as_slice() {
            [greeting] if greeting.connections > 1 && greeting.unprompted > 0 => Some(greeting),
            _ => None,
        }
    }

    /// Adds a message that broke its schema, with its index in the pack.
    pub fn add_broken(&mut self, message: usize, json: &Value) {
        self.broken.entry(message).or_insert_with(|| json.clone());
    }

    /// Adds a member that was not as a check of these rules needed it, with its message.
    pub fn add_unfit(&mut self, place: String, message: usize, json: &Value, rules: impl Iterator<Item = String>) {
        let new = || UnfitMessage { message, json: json.clone(), rules: BTreeSet::new() };
        self.unfit.entry(place).or_insert_with(new).rules.extend(rules);
    }

    /// Adds a message that a check of these rules needed as the first one of a connection.
    pub fn add_ungreeted(&mut self, message: usize, rules: impl Iterator<Item = String>) {
        self.ungreeted.entry(message).or_default().extend(rules);
    }

    /// Whether a message was not as documented, although no conversation ended because of it.
    pub fn shows_another_form(&self) -> bool {
        !self.broken.is_empty() || !self.unfit.is_empty() || !self.ungreeted.is_empty()
    }

    /// Adds the evidence of another conversation.
    pub fn merge(&mut self, other: &Self) {
        self.messages.extend(&other.messages);
        self.conforming.extend(&other.conforming);
        self.members.extend(other.members.iter().cloned());
        for (message, json) in &other.broken {
            self.add_broken(*message, json);
        }
        for (place, UnfitMessage { message, json, rules }) in &other.unfit {
            self.add_unfit(place.clone(), *message, json, rules.iter().cloned());
        }
        other.greetings.iter().for_each(|greeting| self.add_greeting(greeting));
        for (message, rules) in &other.ungreeted {
            self.add_ungreeted(*message, rules.iter().cloned());
        }
    }
}

/// Returns the texts by which a pack distinguishes messages, as far as a message has them.
fn distinguishing_members(pack: &Pack, json: &Value) -> Map<String, Value> {
    let mut like = Value::Object(Map::new());
    for place in &pack.distinguishing_places {
        if let Some(Value::String(text)) = json.pointer(place)
            && text.len() < MAX_DISTINGUISHING_TEXT
        {
            put_at_pointer(&mut like, place, Value::from(text.as_str()));
        }
    }
    into_members(like)
}

/// Whether a message has at least these members, with these values.
fn has_members(json: &Value, like: &Map<String, Value>) -> bool {
    like.iter().all(|(name, want)| match (child(json, name), want) {
        (Some(inner @ Value::Object(_)), Value::Object(like)) => has_members(inner, like),
        (found, want) => found == Some(want),
    })
}
