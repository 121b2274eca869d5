//! Declared deviations: how a hub departs from its document, so that a run can go on behind each of them.
//!
//! An entry translates frames in both directions: what was received is read as the document has it, and what is sent is
//! written as the hub wants it. Every entry that applies to a frame is a finding of its own, against the rules it breaks.
//! Pure data between the sockets and the engines; nothing here knows a protocol.

mod parse;
mod place;
pub mod proposal;
mod translation;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

pub use translation::Translated;

use crate::protocol::Directions;
use crate::scenario::model::RuleUse;
use crate::scenario::template::Template;
use crate::syntax::matcher::{Matcher, escape};
use crate::syntax::source::Span;
use crate::websocket::handshake::Dial;

/// All deviations of a hub, checked against its pack.
#[derive(Debug, Default)]
pub struct Deviations {
    entries: Vec<Arc<Deviation>>,
    /// The indices of those that translate what is sent, in the order in which they do.
    sent_order: Vec<usize>,
}

#[derive(Debug)]
pub struct Deviation {
    /// Why the hub departs, in the words of the user.
    pub reason: String,
    /// The rules that it breaks beside those that frames show.
    pub rules: Vec<RuleUse>,
    /// Where it is declared; `None` for one that the tool assumes.
    pub span: Option<Span>,
    /// The entry as JSON.
    pub entry: Value,
    pub change: Change,
    /// The directions in which it translates.
    pub way: Directions,
}

/// What is different. `message` is the index of a message in the pack; without one, every message is meant.
#[derive(Debug)]
pub enum Change {
    /// The message is recognised by these members instead of the documented ones.
    Instead { message: usize, like: Map<String, Value> },
    /// A member has another value where the document has `value`.
    Spelled { message: Option<usize>, member: String, value: Value, spelled: Value },
    /// A member is at another place.
    Renamed { message: Option<usize>, member: String, renamed: String },
    /// A documented member does not exist; conversations go on with `assume`, an expression over the message.
    Missing { message: Option<usize>, member: String, assume: Option<Arc<Template>> },
    /// A member exists that is not documented.
    Added { message: Option<usize>, member: String, added: Value },
    /// A member is of another type; each expression converts `value`.
    Converted { message: Option<usize>, member: String, from_hub: Option<Arc<Template>>, to_hub: Option<Arc<Template>> },
    /// A documented message never comes, or not where the request fits `when`; conversations go on as if it had, with
    /// these members.
    Absent { message: usize, after: After, when: Option<Matcher>, assume: Arc<Template> },
    /// The upgrade needs more than is documented.
    Upgrade { headers: Vec<(String, String)>, query: Vec<(String, String)>, subprotocols: Vec<String> },
    /// A limit or timeout has another size than documented.
    Setting { setting: String, value: Value },
}

/// What an absent message would have followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Connection,
    /// The message of this index, sent to the hub.
    Message(usize),
}

/// How often an entry applied in a conversation, and how often the documented form was seen instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sightings {
    pub observed: usize,
    pub contradicted: usize,
}

impl Sightings {
    pub fn add(&mut self, other: Self) {
        self.observed += other.observed;
        self.contradicted += other.contradicted;
    }
}

/// [`Sightings`] by index of the entry.
pub type Seen = BTreeMap<usize, Sightings>;

/// Adds what another conversation or thread saw.
pub fn add_seen(seen: &mut Seen, others: &Seen) {
    for (index, other) in others {
        seen.entry(*index).or_default().add(*other);
    }
}

impl Deviations {
    fn new(entries: Vec<Arc<Deviation>>) -> Self {
        let mut sent_order: Vec<usize> = (0..entries.len()).filter(|index| entries[*index].way.to_hub).collect();
        // A place is that of the document, so what it is in gets its other name later.
        sent_order.sort_by_key(|index| entries[*index].rank());
        Self { entries, sent_order }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn entries(&self) -> &[Arc<Deviation>] {
        &self.entries
    }

    /// Returns the settings that have another value than documented.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().filter_map(|entry| match &entry.change {
            Change::Setting { setting, value } => Some((setting.as_str(), value)),
            _ => None,
        })
    }

    /// Returns the indices of the entries that the upgrade needs.
    pub fn upgrades(&self) -> impl Iterator<Item = usize> {
        let entries = self.entries.iter().enumerate();
        entries.filter(|(_, entry)| matches!(entry.change, Change::Upgrade { .. })).map(|(index, _)| index)
    }

    /// Returns all entries but one.
    pub fn without(&self, index: usize) -> Self {
        let entries = self.entries.iter().enumerate().filter(|(other, _)| *other != index);
        Self::new(entries.map(|(_, entry)| Arc::clone(entry)).collect())
    }

    /// Adds what the upgrade needs to a request that does not state it itself.
    pub fn upgrade(&self, dial: &mut Dial) {
        for entry in &self.entries {
            let Change::Upgrade { headers: needed, query: asked, subprotocols: offered } = &entry.change else {
                continue;
            };
            for (name, value) in needed {
                if !dial.named_headers().any(|known| known.eq_ignore_ascii_case(name)) {
                    dial.headers.push((name.clone(), value.clone()));
                }
            }
            for (name, value) in asked {
                if !dial.query.iter().any(|(known, _)| known == name) {
                    dial.query.push((name.clone(), value.clone()));
                }
            }
            if !offered.is_empty() {
                dial.subprotocols.clone_from(offered);
            }
        }
    }
}

impl Deviation {
    /// Whether the tool assumes it, so that it is a failure like any other.
    pub fn is_assumed(&self) -> bool {
        self.span.is_none()
    }

    /// Whether it is about a message that never follows this.
    pub fn is_absent_after(&self, this: After) -> bool {
        matches!(self.change, Change::Absent { after, .. } if after == this)
    }

    /// Whether what a run saw of it shows that the hub does as documented, so that the entry has to be deleted.
    pub fn is_stale(&self, seen: Sightings) -> bool {
        let Sightings { observed, contradicted } = seen;
        match self.change {
            // That a message does not come is assumed before it can be seen.
            Change::Absent { .. } => contradicted > 0 && contradicted * 2 >= observed,
            // Every upgrade has it; it was tried without.
            Change::Upgrade { .. } => contradicted > 0,
            _ => contradicted > 0 && observed == 0,
        }
    }
}

/// Returns the JSON pointer of a member of an object.
fn pointer(name: &str) -> String {
    format!("/{}", escape(name))
}

/// Returns the name of an entry in reports: they are counted from 1.
pub fn name(index: usize) -> String {
    format!("deviation:{}", index + 1)
}
