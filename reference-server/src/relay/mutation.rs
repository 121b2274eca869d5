//! Facts about the messages of a protocol, and all changes computed from them. Because they are computed, they are not
//! chosen for being easy to detect.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::fault::{ChangeAction, FrameCondition, OutputChange, select_frames};

/// The delay of a delayed frame.
pub const FRAME_DELAY: Duration = Duration::from_secs(1);

/// A message that hubs send.
#[derive(Debug, Clone)]
pub struct HubMessage {
    /// The message's name.
    pub name: String,
    /// The conditions that only this message meets.
    pub when: Vec<FrameCondition>,
    /// The facts about the message's members.
    pub facts: Vec<MemberFact>,
}

/// One property of a member of a message, according to the document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberFact {
    /// JSON Pointer of the member; `*` is every element of an array.
    pub member: String,
    /// The property of the member.
    pub of: MemberProperty,
    /// Whether the document requires the property, rather than recommends it.
    pub must: bool,
}

/// A property of a member, the most specific first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberProperty {
    /// The member repeats an id of a request.
    Echoed,
    /// The member always has the same value.
    Constant,
    /// The member has one of a few values.
    Closed,
    /// The member is required.
    Required,
}

impl MemberProperty {
    /// Returns the property's name in listings.
    pub fn name(self) -> &'static str {
        match self {
            MemberProperty::Echoed => "echoed id",
            MemberProperty::Constant => "constant",
            MemberProperty::Closed => "closed enum",
            MemberProperty::Required => "required",
        }
    }
}

/// A kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MutationKind {
    /// A frame is not sent.
    Drop,
    /// A frame is sent twice.
    Double,
    /// A frame is sent [`FRAME_DELAY`] later.
    Delay,
    /// A frame and the next one to the same client are swapped.
    Reorder,
    /// A required member or an echoed id is removed.
    Remove,
    /// A member with a property changes its JSON type.
    Retype,
    /// A member with a property changes its value, but not its JSON type.
    Alter,
}

impl MutationKind {
    /// All kinds of changes.
    pub const ALL: [MutationKind; 7] = [
        MutationKind::Drop,
        MutationKind::Double,
        MutationKind::Delay,
        MutationKind::Reorder,
        MutationKind::Remove,
        MutationKind::Retype,
        MutationKind::Alter,
    ];

    /// Returns the name of the kind on the command line.
    pub fn name(self) -> &'static str {
        match self {
            MutationKind::Drop => "drop",
            MutationKind::Double => "double",
            MutationKind::Delay => "delay",
            MutationKind::Reorder => "reorder",
            MutationKind::Remove => "remove",
            MutationKind::Retype => "retype",
            MutationKind::Alter => "alter",
        }
    }

    /// Whether such a change makes a hub violate its document. Delayed or reordered frames may still be right.
    pub fn breaks_document(self) -> bool {
        !matches!(self, MutationKind::Delay | MutationKind::Reorder)
    }
}

impl FromStr for MutationKind {
    type Err = String;

    fn from_str(text: &str) -> Result<MutationKind, String> {
        let names = || MutationKind::ALL.map(MutationKind::name).join(", ");
        MutationKind::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| format!("expected one of {}", names()))
    }
}

/// A change of one kind to one message, or to one of its members.
#[derive(Debug, Clone)]
pub struct Mutation {
    pub kind: MutationKind,
    /// The message that the change applies to.
    pub message: String,
    /// The changed member, if the change is about a member.
    pub member: Option<String>,
    /// The property of the changed member.
    pub of: Option<MemberProperty>,
    /// Whether the change violates a requirement of the document, in a frame that can still be recognised.
    pub must: bool,
    /// The only frame that is changed, counted from 1 over the life of the hub; without a number, all frames.
    pub nth: Option<u64>,
    when: Vec<FrameCondition>,
}

impl Mutation {
    /// Returns the same mutation of the `nth` frame only, counted from 1.
    pub fn for_nth_frame(&self, nth: u64) -> Mutation {
        Mutation { nth: Some(nth), ..self.clone() }
    }

    /// Returns the change to make.
    pub fn to_change(&self) -> OutputChange {
        let member = || self.member.clone().unwrap_or_default().into();
        let act = match self.kind {
            MutationKind::Drop => ChangeAction::Drop,
            MutationKind::Double => ChangeAction::Double,
            MutationKind::Delay => ChangeAction::Delay(FRAME_DELAY),
            MutationKind::Reorder => ChangeAction::Swap,
            MutationKind::Remove => ChangeAction::Remove(member()),
            MutationKind::Retype => ChangeAction::Retype(member()),
            MutationKind::Alter => ChangeAction::Alter(member()),
        };
        let frames = select_frames(self.when.clone());
        match self.nth {
            None => frames.with_action(act),
            Some(nth) => frames.nth_only(nth).with_action(act),
        }
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.message)?;
        self.member.iter().try_for_each(|member| write!(f, " {member}"))?;
        self.nth.iter().try_for_each(|nth| write!(f, " #{nth}"))
    }
}

/// Computes every change that the facts allow, in the order of the messages. A frame is dropped or doubled each time,
/// or only the first or the second time, since a hub may be wrong only once.
pub fn possible_mutations(messages: &[HubMessage]) -> Vec<Mutation> {
    let mut all = Vec::new();
    for message in messages {
        let one = |kind: MutationKind, fact: Option<(&MemberFact, bool)>| Mutation {
            kind,
            message: message.name.clone(),
            member: fact.map(|(fact, _)| fact.member.clone()),
            of: fact.map(|(fact, _)| fact.of),
            must: fact.is_some_and(|(fact, must)| must && !is_recognised_by(message, &fact.member)),
            nth: None,
            when: message.when.clone(),
        };
        for kind in [MutationKind::Drop, MutationKind::Double] {
            all.extend([None, Some(1), Some(2)].map(|nth| Mutation { nth, ..one(kind, None) }));
        }
        all.extend([MutationKind::Delay, MutationKind::Reorder].map(|kind| one(kind, None)));
        let mut facts: Vec<&MemberFact> = message.facts.iter().collect();
        // The most specific fact of a member comes first.
        facts.sort_by_key(|fact| (&fact.member, fact.of, !fact.must));
        for of_member in facts.chunk_by(|one, other| one.member == other.member) {
            let must = |of: &[MemberProperty]| of_member.iter().any(|fact| fact.must && of.contains(&fact.of));
            if of_member.iter().any(|fact| matches!(fact.of, MemberProperty::Required | MemberProperty::Echoed)) {
                all.push(one(MutationKind::Remove, Some((of_member[0], must(&[MemberProperty::Required])))));
            }
            for kind in [MutationKind::Retype, MutationKind::Alter] {
                all.push(one(kind, Some((of_member[0], must(&[MemberProperty::Constant, MemberProperty::Closed])))));
            }
        }
    }
    all
}

/// Whether a message is recognised by this member, so that changing the member makes it another message.
fn is_recognised_by(message: &HubMessage, member: &str) -> bool {
    message.when.iter().any(|cond| matches!(cond, FrameCondition::Equals(pointer, _) if pointer == member))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_properties_of_a_member_determine_its_mutations() {
        let fact = |member: &str, of, must| MemberFact { member: member.to_owned(), of, must };
        let facts = vec![
            fact("/type", MemberProperty::Required, true),
            fact("/type", MemberProperty::Constant, true),
            fact("/mode", MemberProperty::Closed, false),
            fact("/id", MemberProperty::Echoed, false),
        ];
        let message = HubMessage { name: "m".to_owned(), when: vec![FrameCondition::Has("/type".into())], facts };
        let all = possible_mutations(&[message]);
        let lines: Vec<String> =
            all.iter().map(|one| format!("{one}{}", if one.must { " must" } else { "" })).collect();
        let expected = [
            "drop m",
            "drop m #1",
            "drop m #2",
            "double m",
            "double m #1",
            "double m #2",
            "delay m",
            "reorder m",
            "remove m /id",
            "retype m /id",
            "alter m /id",
            "retype m /mode",
            "alter m /mode",
            "remove m /type must",
            "retype m /type must",
            "alter m /type must",
        ];
        assert_eq!(lines, expected);
        assert_eq!(all.iter().filter(|one| one.of == Some(MemberProperty::Constant)).count(), 3);
        assert!(MutationKind::ALL.into_iter().all(|kind| kind.name().parse() == Ok(kind)));
    }
}
