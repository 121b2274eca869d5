//! Faults: named, deliberate ways in which a hub breaks its protocol, so that a harness can show that it detects them.
//!
//! All faults are in `faults/<protocol>.yaml`; this module has the types of that format and [`mod@parse`] reads it.
//! If possible, a fault is data: a list of [`OutputChange`]s that [`crate::fault::injector`] makes to the outputs of a
//! correct machine. If order, limits or state must be wrong, the machine itself checks for the fault's id
//! ([`FaultEffect::Inside`]). Each fault names every rule that it breaks, directly or as a consequence that clients
//! see.

pub mod injector;
pub mod on_input;
pub mod parse;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use self::parse::{json, pointer, text, time};
use crate::fault::on_input::InputFault;

/// A deliberate fault.
#[derive(Debug)]
pub struct Fault {
    /// The fault's name, which begins with the protocol: `concierge-hello-missing-uuid`.
    pub id: &'static str,
    /// The protocol whose hub has the fault.
    pub protocol: &'static str,
    /// What the hub does wrong, in one sentence.
    pub text: &'static str,
    /// The ids of all rules that the fault breaks.
    pub rules: &'static [&'static str],
    /// Whether only some conversations show the fault, such as those with a particular value or with many clients.
    pub occasional: bool,
    /// The implementation of the fault.
    pub effect: FaultEffect,
}

/// The implementation of a fault.
#[derive(Debug, Clone, Copy)]
pub enum FaultEffect {
    /// The machine checks for the fault's id.
    Inside,
    /// Changes to the outputs of a correct machine; the first change that matches an output is made.
    Outside(&'static [OutputChange]),
    /// A reaction to particular input, where the machine is correct otherwise; see [`crate::fault::on_input`].
    OnInput(InputFault),
}

impl Fault {
    /// Whether only fuzzing triggers the fault: no scenario that follows the document, or violates it in the usual
    /// ways, does.
    pub fn is_for_fuzzing(&self) -> bool {
        self.rules.iter().all(|rule| rule.starts_with("FUZZ-"))
    }
}

/// A condition on a member of a frame. Members are named by JSON Pointers.
#[derive(Debug, Clone)]
pub enum FrameCondition {
    /// The member is this string.
    Is(FaultText, FaultText),
    /// The member is this JSON value.
    Equals(FaultText, Value),
    /// The member has this JSON type, named as in JSON Schema.
    Type(FaultText, FaultText),
    /// The member is a string that contains a match.
    Matches(FaultText, Regex),
    /// Not all of these conditions hold.
    Not(Vec<FrameCondition>),
    /// The member is present.
    Has(FaultText),
    /// The member is absent.
    Lacks(FaultText),
}

/// A text in the description of a fault.
pub type FaultText = Cow<'static, str>;

/// The outputs that a change applies to.
#[derive(Debug, Clone)]
pub enum ChangeSubject {
    /// Text frames that meet all of these conditions.
    Frame(Vec<FrameCondition>),
    /// Outputs that close a connection with this code.
    Close(u16),
    /// Outputs that grant an upgrade.
    Accept,
}

/// The input that led to an output.
#[derive(Debug, Clone)]
pub enum OutputCause {
    /// Any input.
    Any,
    /// A text frame that meets all of these conditions.
    Frame(Vec<FrameCondition>),
    /// The end of a connection.
    Leaving,
}

/// The addressees of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Addressees {
    /// Any connection.
    #[serde(skip)]
    Any,
    /// The connection whose input caused the output.
    Initiator,
    /// Any connection except the one whose input caused the output.
    Others,
}

/// Which of the matching outputs, counted from 1 over the life of the hub.
#[derive(Debug, Clone, Copy)]
pub enum Occurrence {
    /// All matching outputs.
    Each,
    /// The n-th matching output only.
    Only(u64),
    /// Every n-th matching output, starting with the n-th.
    Every(u64),
}

/// A change of one matching output.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeAction {
    /// The output is not sent.
    Drop,
    /// The output is sent twice.
    Double,
    /// The output is delayed by this time; later outputs overtake it.
    Delay(#[serde(deserialize_with = "time")] Duration),
    /// The output is sent after the next text to the same connection, or 200 ms later if none follows.
    Swap,
    /// The output goes to another connection: the oldest that has been sent a frame and is neither addressee nor
    /// initiator. If there is none, it is not sent.
    Misroute,
    /// The output is sent as a binary message.
    AsBinary,
    /// This text follows the output, to the same connection.
    Also(#[serde(deserialize_with = "text")] FaultText),
    /// This text precedes the output, to the same connection.
    Before(#[serde(deserialize_with = "text")] FaultText),
    /// The member becomes this JSON value. `*` in the pointer is every element.
    Set(#[serde(deserialize_with = "pointer")] FaultText, #[serde(deserialize_with = "json")] FaultText),
    /// The member becomes a string of this length.
    Fill(#[serde(deserialize_with = "pointer")] FaultText, usize),
    /// The member is removed.
    Remove(#[serde(deserialize_with = "pointer")] FaultText),
    /// The member changes its JSON type: a string becomes an array around it, any other value its JSON text as a
    /// string.
    Retype(#[serde(deserialize_with = "pointer")] FaultText),
    /// The member changes its value, not its JSON type: a string gets one more letter in front, a number n becomes -n -
    /// 1, booleans are negated, arrays and objects are emptied. `null` stays as it is.
    Alter(#[serde(deserialize_with = "pointer")] FaultText),
    /// The member is renamed, in the same object.
    Rename(#[serde(deserialize_with = "pointer")] FaultText, #[serde(deserialize_with = "text")] FaultText),
    /// A close gets this code instead.
    Code(u16),
    /// The connection is closed with this code instead of sending the output.
    CloseInstead(u16),
    /// The connection is closed with this code after the output.
    ThenClose(u16),
    /// An upgrade is granted without the subprotocol.
    NoSubprotocol,
}

/// One change to the outputs of a machine.
#[derive(Debug, Clone)]
pub struct OutputChange {
    /// The outputs that the change applies to.
    pub subject: ChangeSubject,
    /// The input that led to the output.
    pub cause: OutputCause,
    /// The addressees of the output.
    pub to: Addressees,
    /// Which of the matching outputs is changed.
    pub nth: Occurrence,
    /// The change to the output.
    pub act: ChangeAction,
}

/// The outputs that an [`OutputChange`] applies to; [`OutputSelector::with_action`] adds the act.
#[derive(Debug, Clone)]
pub struct OutputSelector(OutputChange);

/// Selects text frames that meet all of these conditions.
pub fn select_frames(conditions: Vec<FrameCondition>) -> OutputSelector {
    let subject = ChangeSubject::Frame(conditions);
    OutputSelector(OutputChange {
        subject,
        cause: OutputCause::Any,
        to: Addressees::Any,
        nth: Occurrence::Each,
        act: ChangeAction::Drop,
    })
}

impl OutputSelector {
    /// Selects only the n-th matching output, counted from 1 over the life of the hub.
    pub fn nth_only(mut self, n: u64) -> OutputSelector {
        self.0.nth = Occurrence::Only(n);
        self
    }

    /// Adds the act to make a change.
    pub fn with_action(mut self, act: ChangeAction) -> OutputChange {
        self.0.act = act;
        self.0
    }
}

/// The ids of all faults that machines implement, to detect misspelt ids.
static MACHINE_FAULT_IDS: LazyLock<HashSet<&str>> =
    LazyLock::new(|| crate::faults().filter(|fault| is_implemented_by_machine(fault)).map(|fault| fault.id).collect());

fn is_implemented_by_machine(fault: &Fault) -> bool {
    matches!(fault.effect, FaultEffect::Inside)
}

/// The fault that a machine was built with, if the machine itself implements it.
#[derive(Debug, Clone, Copy, Default)]
pub struct MachineFault(Option<&'static Fault>);

impl MachineFault {
    /// Keeps the fault if the machine itself implements it.
    pub fn if_implemented_by_machine(fault: Option<&'static Fault>) -> MachineFault {
        MachineFault(fault.filter(|fault| is_implemented_by_machine(fault)))
    }

    /// Whether the machine has the fault `id`.
    pub fn is(self, id: &'static str) -> bool {
        debug_assert!(MACHINE_FAULT_IDS.contains(id), "faults/ has no fault `{id}` with `by: code`");
        self.0.is_some_and(|fault| fault.id == id)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("qi", "concierge-hello-missing", "it belongs to concierge")]
    #[case("qi", "nothing", "--list-faults")]
    fn unknown_faults_are_refused(#[case] protocol: &str, #[case] id: &str, #[case] why: &str) {
        let error = crate::build_machine(protocol, &Default::default(), Some(id)).map(drop).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    /// Collects the code of the machines, without that of tests.
    fn code(folder: &Path, all: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                code(&path, all);
            } else if name != "tests" {
                let text = std::fs::read_to_string(&path).unwrap();
                all.push_str(text.split("#[cfg(test)]\nmod tests {").next().unwrap());
            }
        }
    }

    /// Machines check for ids that are literals in their code.
    #[test]
    fn machines_implement_exactly_the_faults_declared_as_code() {
        let mut text = String::new();
        code(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
        let ids = Regex::new(&format!(r#""((?:{})-[a-z0-9.-]+)""#, crate::protocols().join("|"))).unwrap();
        let asked: BTreeSet<&str> = ids.captures_iter(&text).map(|found| found.get(1).unwrap().as_str()).collect();
        let done: BTreeSet<&str> =
            crate::faults().filter(|fault| is_implemented_by_machine(fault)).map(|fault| fault.id).collect();
        let unknown: Vec<_> = asked.difference(&done).collect();
        assert_eq!(unknown, [&""; 0], "machines check for ids that faults/ does not have with `by: code`");
        let unused: Vec<_> = done.difference(&asked).collect();
        assert_eq!(unused, [&""; 0], "faults/ has `by: code` for ids that no machine checks for");
    }
}
