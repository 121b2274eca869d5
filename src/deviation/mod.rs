//! Declared deviations of a hub from its document. They let a run continue past each deviation.
//!
//! An entry translates messages in both directions: received messages into the form of the document, sent messages into
//! the form that the hub expects. Every entry that applies to a frame is a separate finding against the rules it
//! breaks. Deviations are pure data between the sockets and the engines; nothing here knows a protocol.

mod fresh;
mod json_form;
mod parse;
mod place;
pub mod proposal;
mod translation;
mod upgrade;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

pub use fresh::FreshMembers;
pub use place::contains_place;
pub use translation::TranslatedMessage;
pub use upgrade::{ROLE_MEMBER, UpgradeChange, UpgradingClient};

use crate::protocol::MessageDirections;
use crate::scenario::model::{ExpectedCodes, RuleUse};
use crate::scenario::template::Template;
use crate::syntax::explanation::Explanation;
use crate::syntax::matcher::Matcher;
use crate::syntax::source::Span;

/// All deviations of a hub, checked against its pack.
#[derive(Debug, Default)]
pub struct Deviations {
    entries: Vec<Arc<Deviation>>,
    /// The indices of the entries that translate sent messages, in the order in which they are applied.
    sent_order: Vec<usize>,
    /// The indices of the entries that translate received messages, in the order in which they are tried.
    received_order: Vec<usize>,
}

#[derive(Debug)]
pub struct Deviation {
    /// Why the hub deviates, in the words of the user.
    pub reason: String,
    /// The rules that the deviation breaks in addition to the rules that frames break.
    pub rules: Vec<RuleUse>,
    /// Where the deviation is declared; `None` if hubproof assumes it.
    pub span: Option<Span>,
    /// The entry as JSON.
    pub entry: Value,
    pub change: DeviationChange,
    /// The directions in which the entry translates messages.
    pub way: MessageDirections,
}

/// The difference from the document. `message` is the index of a message in the pack; `None` means every message.
#[derive(Debug)]
pub enum DeviationChange {
    /// The message is recognised by these members instead of the documented ones.
    Instead { message: usize, like: Map<String, Value> },
    /// A member has another value where the document has `value`.
    Spelled { message: Option<usize>, member: String, value: Value, spelled: Value },
    /// A member is at another place.
    Renamed { message: Option<usize>, member: String, renamed: String },
    /// A documented member does not exist; conversations continue with `assume`, an expression over the message.
    Missing { message: Option<usize>, member: String, assume: Option<Arc<Template>> },
    /// The hub uses a member that is not documented.
    Added { message: Option<usize>, member: String, added: Value },
    /// A member has another type; each expression converts `value`.
    Converted { message: Option<usize>, member: String, from_hub: Option<Arc<Template>>, to_hub: Option<Arc<Template>> },
    /// The hub never sends documented messages. Conversations continue as if they had come.
    Absent { absences: Vec<Absence> },
    /// The hub never sends a documented message, whatever should cause it. Nothing is assumed in its place.
    NeverSent { message: usize },
    /// The hub closes the connection with one of these codes instead of sending a documented message: whenever it
    /// should send the message, or only after `after`, if the request matches `when`.
    Closes { message: usize, codes: ExpectedCodes, after: Option<AbsenceTrigger>, when: Option<Matcher> },
    /// The upgrade needs something that is not documented.
    Upgrade(UpgradeChange),
    /// A limit or timeout differs from the documented one.
    Setting { setting: String, value: Value },
}

/// A documented message that does not come after `after`, or does not come if the request matches `when`. It is assumed
/// with the members in `assume`, and with fresh values of others that identify something.
#[derive(Debug)]
pub struct Absence {
    pub message: usize,
    pub after: AbsenceTrigger,
    pub when: Option<Matcher>,
    pub assume: Arc<Template>,
    pub fresh: Vec<FreshMembers>,
}

/// The event after which a message that does not come should have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbsenceTrigger {
    Connection,
    /// A message sent to the hub, by its index in the pack.
    Message(usize),
}

/// How often an entry applied in a conversation, and how often the documented form was seen instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviationSightings {
    pub observed: usize,
    pub contradicted: usize,
}

impl DeviationSightings {
    pub fn merge(&mut self, other: Self) {
        self.observed += other.observed;
        self.contradicted += other.contradicted;
    }
}

/// [`DeviationSightings`] by index of the entry.
pub type SightingsByEntry = BTreeMap<usize, DeviationSightings>;

/// Adds the sightings of another conversation or thread to those in `seen`.
pub fn add_seen(seen: &mut SightingsByEntry, others: &SightingsByEntry) {
    for (index, other) in others {
        seen.entry(*index).or_default().merge(*other);
    }
}

impl Deviations {
    fn new(entries: Vec<Arc<Deviation>>) -> Self {
        let mut sent_order: Vec<usize> = (0..entries.len()).filter(|index| entries[*index].way.to_hub).collect();
        // Entries name members as the document does, so an enclosing member is renamed after those inside it.
        sent_order.sort_by_key(|index| entries[*index].sending_order());
        let mut received_order: Vec<usize> = (0..entries.len()).filter(|index| entries[*index].way.from_hub).collect();
        // If a message has two forms, the form with more members is more specific.
        received_order.sort_by_key(|index| match &entries[*index].change {
            DeviationChange::Instead { like, .. } => Reverse(count_values(like)),
            _ => Reverse(usize::MAX),
        });
        Self { entries, sent_order, received_order }
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
            DeviationChange::Setting { setting, value } => Some((setting.as_str(), value)),
            _ => None,
        })
    }

    /// Returns the index of the first entry that says the hub never, or not always, sends a message.
    pub fn absence_of(&self, message: usize) -> Option<usize> {
        self.entries.iter().position(|entry| entry.declares_absence() && entry.names(message))
    }

    /// Returns the indices of the entries that the upgrade needs.
    pub fn upgrade_entries(&self) -> impl Iterator<Item = usize> {
        let entries = self.entries.iter().enumerate();
        entries.filter(|(_, entry)| matches!(entry.change, DeviationChange::Upgrade(_))).map(|(index, _)| index)
    }

    /// Returns all entries but one.
    pub fn without_entry(&self, index: usize) -> Self {
        let entries = self.entries.iter().enumerate().filter(|(other, _)| *other != index);
        Self::new(entries.map(|(_, entry)| Arc::clone(entry)).collect())
    }
}

impl Deviation {
    /// Whether hubproof assumes the deviation, which makes it a failure like any other.
    pub fn is_assumed(&self) -> bool {
        self.span.is_none()
    }

    /// Whether the deviation is about messages that the hub never, or not always, sends.
    pub fn declares_absence(&self) -> bool {
        use DeviationChange::{Absent, Closes, NeverSent};
        matches!(self.change, Absent { .. } | NeverSent { .. } | Closes { .. })
    }

    /// Returns the messages that are assumed because the hub never sends them.
    pub fn absences(&self) -> &[Absence] {
        match &self.change {
            DeviationChange::Absent { absences } => absences,
            _ => &[],
        }
    }

    /// Whether the deviation is about messages that never come after `this`.
    pub fn is_absent_after(&self, this: AbsenceTrigger) -> bool {
        self.absences().iter().any(|absence| absence.after == this)
    }

    /// Whether conversations continue as if the hub had sent a message that it never sends.
    pub fn assumes_messages(&self) -> bool {
        matches!(self.change, DeviationChange::Absent { .. })
    }

    /// Whether the sightings of a run show that the hub follows its document here, so that the entry has to be deleted.
    pub fn is_stale(&self, seen: DeviationSightings) -> bool {
        let DeviationSightings { observed, contradicted } = seen;
        match self.change {
            // The absence of a message is assumed before it can be observed.
            DeviationChange::Absent { .. } => contradicted > 0 && contradicted * 2 >= observed,
            // A sighting against it means that the message came, or that an upgrade succeeded without the entry.
            DeviationChange::NeverSent { .. } | DeviationChange::Upgrade(_) => contradicted > 0,
            _ => contradicted > 0 && observed == 0,
        }
    }
}

/// Counts the members of an object, and of the objects in it, that are not objects.
fn count_values(members: &Map<String, Value>) -> usize {
    members.values().map(|value| value.as_object().map_or(1, count_values)).sum()
}

/// Explains [`entry_name`].
pub const ENTRY_EXPLANATION: Explanation = Explanation::new(
    "deviation",
    "A difference between the hub and its document that the target file declares under `[[deviation]]`; `deviation:2` is the second entry. `known` shows an entry that applied, `assumed` one that the run only assumes, `stale` one whose documented form came instead.",
)
.usually("A hub that renames or omits a member, or never sends a documented message.")
.next("Correct the hub and delete the entry, or keep it with its reason. The chapter `Hubs that deviate` of the book has all forms.");

/// Returns the name of an entry in reports, which count entries from 1.
pub fn entry_name(index: usize) -> String {
    format!("deviation:{}", index + 1)
}
