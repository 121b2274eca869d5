//! Evidence from conversations about how a hub deviates from its document.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

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
        /// The message that the client had sent last; `None` if it had only connected.
        after: Option<usize>,
        /// Received messages that are not documented and that no step expected.
        instead: Vec<Value>,
        /// Received messages of this kind that did not meet the expectation.
        near: Vec<Value>,
        /// Whether the hub gave another kind of answer, such as a refusal, and so did not omit its answer.
        answered: bool,
    },
    /// An upgrade: the hub refused it with this answer.
    Upgrade { status: u64, answer: String },
}

/// Facts about the messages that a hub sent, expected or not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviationEvidence {
    /// Messages, by their indices in the pack.
    pub messages: BTreeSet<usize>,
    /// Names of top-level members, as the hub spells them.
    pub members: BTreeSet<String>,
    /// The first message of each kind that broke its schema.
    pub broken: BTreeMap<usize, Value>,
    /// Members that were absent or had another value than a check needed, by place.
    pub unfit: BTreeMap<String, UnfitMessage>,
}

/// The first message in which a member was not as a check needed it.
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

    /// Adds a message that broke its schema, with its index in the pack.
    pub fn add_broken(&mut self, message: usize, json: &Value) {
        self.broken.entry(message).or_insert_with(|| json.clone());
    }

    /// Adds a member that was not as a check of these rules needed it, with its message.
    pub fn add_unfit(&mut self, place: String, message: usize, json: &Value, rules: impl Iterator<Item = String>) {
        let new = || UnfitMessage { message, json: json.clone(), rules: BTreeSet::new() };
        self.unfit.entry(place).or_insert_with(new).rules.extend(rules);
    }

    /// Whether a message was not as documented, although no conversation ended because of it.
    pub fn shows_another_form(&self) -> bool {
        !self.broken.is_empty() || !self.unfit.is_empty()
    }

    /// Adds the evidence of another conversation.
    pub fn merge(&mut self, other: &Self) {
        self.messages.extend(&other.messages);
        self.members.extend(other.members.iter().cloned());
        for (message, json) in &other.broken {
            self.add_broken(*message, json);
        }
        for (place, UnfitMessage { message, json, rules }) in &other.unfit {
            self.add_unfit(place.clone(), *message, json, rules.iter().cloned());
        }
    }
}
