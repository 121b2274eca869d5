//! What a relay must know of a protocol, as plain data, and every change that follows from it: so what is changed is
//! computed, and nobody chooses what would be noticed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::fault::{Act, Change, Cond, frame};

/// How long a delayed frame is late.
pub const DELAY: Duration = Duration::from_secs(1);

/// A message that hubs send.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its name, for people.
    pub name: String,
    /// What holds of this message and of no other. Conditions are constants, as those of faults are; whoever computes
    /// them keeps them for the life of the process.
    pub when: &'static [Cond],
    /// What its document says of its members.
    pub facts: Vec<Fact>,
}

/// One thing that a document says of a member of a message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fact {
    /// JSON Pointer of the member; `*` is every element of an array.
    pub member: String,
    /// What is said.
    pub of: Of,
    /// Whether the document demands it, rather than recommends it.
    pub must: bool,
}

/// What is said of a member, the most telling first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Of {
    /// It repeats an id by which both sides know what they talk about.
    Echoed,
    /// It has one value.
    Constant,
    /// It has one of a few values.
    Closed,
    /// It is there.
    Required,
}

impl Of {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Of::Echoed => "echoed id",
            Of::Constant => "constant",
            Of::Closed => "closed enum",
            Of::Required => "required",
        }
    }
}

/// What a relay does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A frame is not sent.
    Drop,
    /// A frame is sent twice.
    Double,
    /// A frame is sent [`DELAY`] later.
    Delay,
    /// A frame and the next one to the same client change places.
    Reorder,
    /// A member that is required, or repeats an id, goes away.
    Remove,
    /// A member of which something is said takes another JSON type.
    Retype,
    /// Such a member takes another value of its type.
    Alter,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] =
        [Kind::Drop, Kind::Double, Kind::Delay, Kind::Reorder, Kind::Remove, Kind::Retype, Kind::Alter];

    /// The word for it on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Drop => "drop",
            Kind::Double => "double",
            Kind::Delay => "delay",
            Kind::Reorder => "reorder",
            Kind::Remove => "remove",
            Kind::Retype => "retype",
            Kind::Alter => "alter",
        }
    }

    /// Whether it spoils what a hub says. What comes late or in another order may still be right.
    pub fn spoils(self) -> bool {
        !matches!(self, Kind::Delay | Kind::Reorder)
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        let names = || Kind::ALL.map(Kind::name).join(", ");
        Kind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| format!("expected one of {}", names()))
    }
}

/// One kind of change at one place.
#[derive(Debug, Clone)]
pub struct Computed {
    /// What is done.
    pub kind: Kind,
    /// To which message.
    pub message: String,
    /// To which of its members, where it is done to one.
    pub member: Option<String>,
    /// What is said of that member.
    pub of: Option<Of>,
    /// Whether the document demands what the change spoils, in a frame that can still be recognised.
    pub must: bool,
    /// To which frame only, counted from 1 over the life of the hub; to each of them where it is not said.
    pub nth: Option<u64>,
    when: &'static [Cond],
}

impl Computed {
    /// The same, to the `nth` frame only, counted from 1.
    pub fn only(&self, nth: u64) -> Computed {
        Computed { nth: Some(nth), ..self.clone() }
    }

    /// The change as a mangler makes it. Its few bytes stay for the life of the process, as those of faults do.
    pub fn change(&self) -> Change {
        let member = || &*self.member.clone().unwrap_or_default().leak();
        let act = match self.kind {
            Kind::Drop => Act::Drop,
            Kind::Double => Act::Double,
            Kind::Delay => Act::Delay(DELAY),
            Kind::Reorder => Act::Swap,
            Kind::Remove => Act::Remove(member()),
            Kind::Retype => Act::Retype(member()),
            Kind::Alter => Act::Alter(member()),
        };
        match self.nth {
            None => frame(self.when).does(act),
            Some(nth) => frame(self.when).only(nth).does(act),
        }
    }
}

impl fmt::Display for Computed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.message)?;
        self.member.iter().try_for_each(|member| write!(f, " {member}"))?;
        self.nth.iter().try_for_each(|nth| write!(f, " #{nth}"))
    }
}

/// Every change that the facts allow, in the order of the messages. A frame is dropped or doubled always, or only the
/// first time, or only the second: a hub may be wrong for once, and right before.
pub fn changes(messages: &[Message]) -> Vec<Computed> {
    let mut all = Vec::new();
    for message in messages {
        let one = |kind: Kind, fact: Option<(&Fact, bool)>| Computed {
            kind,
            message: message.name.clone(),
            member: fact.map(|(fact, _)| fact.member.clone()),
            of: fact.map(|(fact, _)| fact.of),
            must: fact.is_some_and(|(fact, must)| must && !recognises(message, &fact.member)),
            nth: None,
            when: message.when,
        };
        for kind in [Kind::Drop, Kind::Double] {
            all.extend([None, Some(1), Some(2)].map(|nth| Computed { nth, ..one(kind, None) }));
        }
        all.extend([Kind::Delay, Kind::Reorder].map(|kind| one(kind, None)));
        let mut facts: Vec<&Fact> = message.facts.iter().collect();
        // Of one member, the most telling fact leads.
        facts.sort_by_key(|fact| (&fact.member, fact.of, !fact.must));
        for said in facts.chunk_by(|one, other| one.member == other.member) {
            let must = |of: &[Of]| said.iter().any(|fact| fact.must && of.contains(&fact.of));
            if said.iter().any(|fact| matches!(fact.of, Of::Required | Of::Echoed)) {
                all.push(one(Kind::Remove, Some((said[0], must(&[Of::Required])))));
            }
            for kind in [Kind::Retype, Kind::Alter] {
                all.push(one(kind, Some((said[0], must(&[Of::Constant, Of::Closed])))));
            }
        }
    }
    all
}

/// Whether a message is told from others by this member: spoil it, and the message is another one.
fn recognises(message: &Message, member: &str) -> bool {
    message.when.iter().any(|cond| matches!(cond, Cond::Equals(pointer, _) if *pointer == member))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_member_decides_what_can_be_done_to_it() {
        let fact = |member: &str, of, must| Fact { member: member.to_owned(), of, must };
        let facts = vec![
            fact("/type", Of::Required, true),
            fact("/type", Of::Constant, true),
            fact("/mode", Of::Closed, false),
            fact("/id", Of::Echoed, false),
        ];
        let message = Message { name: "m".to_owned(), when: &[Cond::Has("/type")], facts };
        let all = changes(&[message]);
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
        assert_eq!(all.iter().filter(|one| one.of == Some(Of::Constant)).count(), 3);
        assert!(Kind::ALL.into_iter().all(|kind| kind.name().parse() == Ok(kind)));
    }
}
