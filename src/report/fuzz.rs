//! The figures of a fuzz run for reports: cases, cells and oracles.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::outcome::{FindingDetail, FrameReport, Verdict, milliseconds};

/// The result of fuzzing one protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Fuzzed"))]
pub struct FuzzReport {
    /// The seed of the run: the same seed gives the same cases.
    pub seed: u64,
    /// Number of cases played.
    pub cases: u64,
    /// Number of cases in which at least one oracle could decide; the percentages below are of these.
    pub decided: u64,
    /// Percent of decided cases in which the mutation was sent after the opening.
    pub after_opening_percent: f64,
    /// Percent of decided cases that were decided by an oracle that demands more than survival.
    pub judged_percent: f64,
    /// Number of decided cases in which the hub sent a message to a client that had sent more than its opening; null if the
    /// document has no message of the hub. With 0, the run is inconclusive.
    pub answered: Option<u64>,
    /// Number of cases in which each oracle held and was broken, by the oracle's rule id, such as `FUZZ-ISOLATES`.
    pub oracles: BTreeMap<String, OracleTally>,
    /// Every cell: a combination of message, mutation and moment.
    pub cells: Vec<CellTally>,
    /// Mutations that apply to a message at no moment, with the reason.
    pub omitted: Vec<OmittedMutation>,
    /// Steps of scenarios that send a message, but in whose place no mutated message is sent, with the reason.
    pub unused_steps: Vec<UnusedStep>,
    /// One for each scenario, in the same order.
    pub causes: Vec<FindingTally>,
    /// Why cases were not decided, the most frequent first.
    pub obstacles: Vec<CaseObstacle>,
    /// Why the run ended early.
    pub ended: Option<String>,
    /// The case whose conversation cannot be completed at the end of the run, even without its mutation.
    pub stuck: Option<u64>,
    /// At the end of the run, a new client takes far longer to connect and receive an answer than at the start.
    pub slower: Option<NewClientLatency>,
    /// Times in which the hub served no client. What was being played was played again.
    #[serde(default)]
    pub pauses: Option<PauseTally>,
    /// Times in which this machine stalled, so that what was being played was played again.
    #[serde(default)]
    pub stalls: Option<PauseTally>,
    /// Number of findings that may be due to a hub that hung, was gone or is slow, and did not occur again.
    pub unconfirmed: u64,
    /// Number of cases that were being played when the run ended. They are in no other number.
    #[serde(default)]
    pub cut: u64,
}

/// How often clients waited all at once, and how long at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PauseTally {
    pub count: u64,
    #[serde(rename = "longest_ms", with = "milliseconds")]
    #[cfg_attr(test, schemars(with = "f64"))]
    pub longest: Duration,
}

/// How long a new client took to connect and receive an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NewClientLatency {
    /// How long a new client took at the start of the run.
    #[serde(rename = "before_ms", with = "milliseconds")]
    #[cfg_attr(test, schemars(with = "f64"))]
    pub before: Duration,
    /// How long a new client took at the end of the run, after all other clients had stopped sending.
    #[serde(rename = "after_ms", with = "milliseconds")]
    #[cfg_attr(test, schemars(with = "f64"))]
    pub after: Duration,
}

/// Number of cases in which an oracle held, and in which it was broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OracleTally {
    pub held: u64,
    pub broken: u64,
}

/// A message, a mutation of it, and the moment when it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CellTally {
    pub message: String,
    pub mutation: Cow<'static, str>,
    pub placement: Cow<'static, str>,
    /// Number of decided cases.
    pub cases: u64,
}

/// A mutation that does not apply to a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OmittedMutation {
    pub message: String,
    pub mutation: Cow<'static, str>,
    pub why: Cow<'static, str>,
}

/// A step of a scenario in whose place no mutated message is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UnusedStep {
    pub scenario: String,
    /// The number of the step in the scenario, from 1; for a step inside another, that of the outermost.
    pub step: usize,
    pub message: String,
    pub why: Cow<'static, str>,
}

/// All cases with the same fingerprint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FindingTally {
    /// The structure of the answer, without its values.
    pub shape: String,
    pub cases: u64,
    /// Numbers of the first cases with this fingerprint.
    pub numbers: Vec<u64>,
    /// The smallest conversation with the same finding; null if none was found and saved.
    pub shrunk: Option<ShrunkFinding>,
}

/// The smallest conversation that shows a finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShrunkFinding {
    /// The file in which it is saved.
    pub path: String,
    /// A command line that replays it.
    pub reproduce: String,
    /// Number of smaller conversations that were tried.
    pub attempts: usize,
    /// What its last play found.
    pub message: String,
    pub detail: Option<FindingDetail>,
    /// The frames of its last play.
    pub history: Vec<FrameReport>,
    /// Number of frames that did not fit into the bounded history.
    pub history_dropped: usize,
}

/// A step that kept cases from being played to their end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CaseObstacle {
    pub step: String,
    pub message: String,
    /// Whether the hub could not be reached.
    #[serde(skip)]
    pub unreachable: bool,
    pub cases: u64,
}

/// A run is inconclusive if more than one in this many cases were undecided: a defect may be what stopped them.
const MAX_UNDECIDED_SHARE: u64 = 10;

impl FuzzReport {
    /// Whether the run is conclusive: nearly all cases were decided, the hub sent something, and still works.
    pub fn is_decided(&self) -> bool {
        !self.is_silent()
            && self.decided > 0
            && (self.cases - self.decided) * MAX_UNDECIDED_SHARE <= self.cases
            && self.ended.is_none()
            && self.stuck.is_none()
    }

    /// Whether the hub never sent a message to a client that had sent more than its opening, although its document has
    /// messages of the hub: then a run only shows that the hub survived.
    pub fn is_silent(&self) -> bool {
        self.answered == Some(0)
    }

    /// Returns how many percent of the decided cases a part of them is.
    pub fn percent_of_decided(decided: u64, part: u64) -> f64 {
        if decided == 0 { 0.0 } else { part as f64 * 100.0 / decided as f64 }
    }
}

impl OracleTally {
    pub fn add_verdict(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Pass => self.held += 1,
            Verdict::Fail | Verdict::Warn => self.broken += 1,
            _ => {}
        }
    }
}
