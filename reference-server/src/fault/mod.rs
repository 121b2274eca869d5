//! Deliberate defects: one named way each in which the hub breaks its protocol, so that a harness can show
//! that it would notice.
//!
//! All of them stand in `faults/<protocol>.yaml`; this module has the words that those files are written in, and
//! [`mod@parse`] reads them. A fault is data wherever it can be: a list of [`Change`]s that [`crate::fault::injector`]
//! applies to what leaves a correct machine. Where order, limits or state must be wrong, the machine itself asks for the
//! fault's id ([`Effect::Inside`]). Each fault names every rule that it breaks, as the defect itself or as a consequence
//! that a client cannot help seeing.

pub mod fuzz_only;
pub mod injector;
pub mod parse;

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use self::parse::{Str, json, pointer, text, time};
use crate::fault::fuzz_only::FuzzOnly;

/// One deliberate defect.
#[derive(Debug)]
pub struct Fault {
    /// Its name, beginning with the protocol: `concierge-hello-missing-uuid`.
    pub id: &'static str,
    /// The protocol it belongs to.
    pub protocol: &'static str,
    /// What the hub does wrong, in one sentence.
    pub text: &'static str,
    /// Every rule that the defect breaks.
    pub rules: &'static [&'static str],
    /// Whether only some conversations show it: a second time, a particular value, a crowd.
    pub occasional: bool,
    /// How it is done.
    pub effect: Effect,
}

/// How a fault is done.
#[derive(Debug, Clone, Copy)]
pub enum Effect {
    /// The machine does it itself, by the fault's id.
    Inside,
    /// These changes are made to the outputs of a correct machine, each output by the first that matches.
    Outside(&'static [Change]),
    /// A correct machine does this when it receives what no script sends; see [`crate::fault::fuzz_only`].
    FuzzOnly(FuzzOnly),
    /// The machine does it itself, by the fault's id, when it receives what no script sends.
    FuzzOnlyInside,
}

impl Fault {
    /// Whether only made-up input brings it out: no script that keeps to the document, or breaks it in the usual ways, can.
    pub fn is_for_fuzzing(&self) -> bool {
        matches!(self.effect, Effect::FuzzOnly(_) | Effect::FuzzOnlyInside)
    }
}

/// A condition on a member of a frame. Members are named by JSON Pointers.
#[derive(Debug, Clone, Copy)]
pub enum Cond {
    /// The member is this string.
    Is(&'static str, &'static str),
    /// The member is this JSON value.
    Equals(&'static str, &'static Value),
    /// The member has this JSON type, by the name that JSON Schema has for it.
    Type(&'static str, &'static str),
    /// The member is a string in which this is found.
    Matches(&'static str, &'static Regex),
    /// Not all of these hold.
    Not(&'static [Cond]),
    /// The member is there.
    Has(&'static str),
    /// The member is not there.
    Lacks(&'static str),
}

/// Which outputs a change is about.
#[derive(Debug, Clone, Copy)]
pub enum Subject {
    /// Text frames of which all of this holds.
    Frame(&'static [Cond]),
    /// Closes with this code.
    Close(u16),
    /// Granted upgrades.
    Accept,
}

/// What made the machine speak.
#[derive(Debug, Clone, Copy)]
pub enum Cause {
    /// Anything.
    Any,
    /// A text frame of which all of this holds.
    Frame(&'static [Cond]),
    /// A connection that ended.
    Leaving,
}

/// Whom the output is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum To {
    /// Anybody.
    #[serde(skip)]
    Anybody,
    /// The connection whose input caused it.
    Initiator,
    /// Any other connection.
    Others,
}

/// Which of the matching outputs, counted over the life of the hub from 1.
#[derive(Debug, Clone, Copy)]
pub enum Nth {
    /// All.
    Each,
    /// This one only.
    Only(u64),
    /// Every so many, beginning with that one.
    Every(u64),
}

/// What is done to a matching output.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// It is not sent.
    Drop,
    /// It is sent twice.
    Double,
    /// It is sent so much later; what follows it overtakes it.
    Delay(#[serde(deserialize_with = "time")] Duration),
    /// It is sent after the next text to the same connection, or a little later where none follows.
    Swap,
    /// It goes to another connection, the oldest that has been spoken to and is neither addressee nor
    /// initiator; where there is none, to nobody.
    Misroute,
    /// It goes out as a binary message.
    AsBinary,
    /// This text follows it, to the same connection.
    Also(#[serde(deserialize_with = "text")] Str),
    /// This text precedes it, to the same connection.
    Before(#[serde(deserialize_with = "text")] Str),
    /// The member becomes this JSON value. `*` in the pointer is every element.
    Set(#[serde(deserialize_with = "pointer")] Str, #[serde(deserialize_with = "json")] Str),
    /// The member becomes a text of so many letters.
    Fill(#[serde(deserialize_with = "pointer")] Str, usize),
    /// The member goes away.
    Remove(#[serde(deserialize_with = "pointer")] Str),
    /// The member takes another JSON type: a string becomes an array around it, anything else its JSON text
    /// as a string.
    Retype(#[serde(deserialize_with = "pointer")] Str),
    /// The member takes another value of its JSON type: a text gets one more letter in front, a number n becomes
    /// -n - 1, true and false change places, arrays and objects lose what is in them. Nothing else is like `null`.
    Alter(#[serde(deserialize_with = "pointer")] Str),
    /// The member takes this name, in the same object.
    Rename(#[serde(deserialize_with = "pointer")] Str, #[serde(deserialize_with = "text")] Str),
    /// A close takes this code instead.
    Code(u16),
    /// The connection is closed with this code instead.
    CloseInstead(u16),
    /// The connection is closed with this code after it.
    ThenClose(u16),
    /// An upgrade is granted without the subprotocol.
    NoSubprotocol,
}

/// One change to the outputs of a machine.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// What it is about.
    pub subject: Subject,
    /// What caused the output.
    pub cause: Cause,
    /// Whom the output is for.
    pub to: To,
    /// Which of those that match.
    pub nth: Nth,
    /// What is done.
    pub act: Act,
}

/// What a [`Change`] is about, still without what is done.
#[derive(Debug, Clone, Copy)]
pub struct On(Change);

/// Text frames of which all of this holds.
pub const fn frame(conditions: &'static [Cond]) -> On {
    on(Subject::Frame(conditions))
}

/// Closes with this code.
pub const fn close(code: u16) -> On {
    on(Subject::Close(code))
}

/// Granted upgrades.
pub const fn accept() -> On {
    on(Subject::Accept)
}

const fn on(subject: Subject) -> On {
    On(Change { subject, cause: Cause::Any, to: To::Anybody, nth: Nth::Each, act: Act::Drop })
}

impl On {
    /// Only where a text frame of which all of this holds was the cause.
    pub const fn after(mut self, conditions: &'static [Cond]) -> On {
        self.0.cause = Cause::Frame(conditions);
        self
    }

    /// Only where somebody's leaving was the cause.
    pub const fn after_leaving(mut self) -> On {
        self.0.cause = Cause::Leaving;
        self
    }

    /// Only to the connection whose input was the cause.
    pub const fn to_initiator(mut self) -> On {
        self.0.to = To::Initiator;
        self
    }

    /// Only to other connections.
    pub const fn to_others(mut self) -> On {
        self.0.to = To::Others;
        self
    }

    /// Only the n-th such output of the hub's life, counted from 1.
    pub const fn only(mut self, n: u64) -> On {
        self.0.nth = Nth::Only(n);
        self
    }

    /// Only every n-th such output.
    pub const fn every(mut self, n: u64) -> On {
        self.0.nth = Nth::Every(n);
        self
    }

    /// What is done to them.
    pub const fn does(mut self, act: Act) -> Change {
        self.0.act = act;
        self.0
    }
}

/// The ids of all faults done by machines, so that a misspelt one is noticed.
static INSIDE: LazyLock<HashSet<&str>> =
    LazyLock::new(|| crate::faults().filter(|fault| is_inside(fault)).map(|fault| fault.id).collect());

fn is_inside(fault: &Fault) -> bool {
    matches!(fault.effect, Effect::Inside | Effect::FuzzOnlyInside)
}

/// The fault that a machine was built with, as the machine sees it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Broken(Option<&'static Fault>);

impl Broken {
    /// The machine with this fault.
    pub fn with(fault: Option<&'static Fault>) -> Broken {
        Broken(fault.filter(|fault| is_inside(fault)))
    }

    /// Whether the machine is to be wrong in the way that `id` names.
    pub fn is(self, id: &'static str) -> bool {
        debug_assert!(INSIDE.contains(id), "no fault inside a machine is called {id}");
        self.0.is_some_and(|fault| fault.id == id)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn ids_are_unique_and_rules_belong_to_the_protocol() {
        let mut seen = HashSet::new();
        for fault in crate::faults() {
            assert!(seen.insert(fault.id), "{} is there twice", fault.id);
            assert!(crate::protocols().contains(&fault.protocol), "{}", fault.id);
            assert!(fault.id.starts_with(&format!("{}-", fault.protocol)), "{}", fault.id);
            assert!(
                fault.id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c)),
                "{}",
                fault.id
            );
            assert!(fault.text.ends_with('.'), "{}", fault.id);
            assert!(!fault.rules.is_empty(), "{}", fault.id);
            let prefix = fault.rules[0].split('-').next().unwrap();
            let unique: HashSet<_> = fault.rules.iter().collect();
            assert_eq!(unique.len(), fault.rules.len(), "{} names a rule twice", fault.id);
            for rule in fault.rules {
                let number = rule.strip_prefix(&format!("{prefix}-"));
                let named = |number: &str| matches!(prefix, "WS" | "FUZZ") || number.len() == 3;
                assert!(number.is_some_and(named), "{}: {rule}", fault.id);
                assert_eq!(prefix == "FUZZ", fault.is_for_fuzzing(), "{}", fault.id);
            }
            if let Effect::Outside(changes) = fault.effect {
                assert!(!changes.is_empty(), "{}", fault.id);
                for change in changes {
                    if let Act::Set(_, json) | Act::Also(json) | Act::Before(json) = change.act
                        && !fault.id.contains("not-json")
                    {
                        serde_json::from_str::<serde_json::Value>(json)
                            .unwrap_or_else(|error| panic!("{}: {json}: {error}", fault.id));
                    }
                }
            }
        }
    }

    /// The code of the machines, without that of tests.
    fn code(folder: &Path, all: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                code(&path, all);
            } else if !name.contains("test") && !["every_fault", "story", "read"].contains(&&*name) {
                let text = std::fs::read_to_string(&path).unwrap();
                all.push_str(text.split("#[cfg(test)]\nmod tests {").next().unwrap());
            }
        }
    }

    /// What machines ask for is written there as a literal.
    #[test]
    fn machines_ask_for_the_faults_that_are_done_by_code_and_for_no_other() {
        let mut text = String::new();
        code(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
        let ids = Regex::new(&format!(r#""((?:{})-[a-z0-9.-]+)""#, crate::protocols().join("|"))).unwrap();
        let asked: BTreeSet<&str> = ids.captures_iter(&text).map(|found| found.get(1).unwrap().as_str()).collect();
        let done: BTreeSet<&str> = crate::faults().filter(|fault| is_inside(fault)).map(|fault| fault.id).collect();
        let unknown: Vec<_> = asked.difference(&done).collect();
        assert_eq!(unknown, [&""; 0], "machines ask for them, and faults/ has none with `by: code` of that name");
        let unused: Vec<_> = done.difference(&asked).collect();
        assert_eq!(unused, [&""; 0], "faults/ says `by: code`, and no machine asks for them");
    }
}
