//! The JSON document of a run of `check` or `fuzz`. A change to it changes `schemas/hubproof/report.schema.json`, and
//! perhaps [`FORMAT_VERSION`]. Every member is always written, and null if it does not apply.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Tool;
use crate::outcome::{FindingDetail, FrameReport, HubCrash, LogExcerpt, Verdict};
use crate::report::causes::BlockedChecks;
use crate::report::{EntryStanding, FlakyTally, FuzzReport, PreludeShare, VerdictTally};
use crate::syntax::share::Share;

pub const FORMAT: &str = "hubproof-report";
/// Incremented when a member is removed, renamed or changes its meaning; new members may be added without notice.
pub const FORMAT_VERSION: u32 = 1;

/// The report of a run of `hubproof check` or `hubproof fuzz`.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(title = "hubproof report"))]
pub struct RunDocument {
    /// Always `hubproof-report`.
    #[cfg_attr(test, schemars(extend("const" = FORMAT)))]
    pub format: String,
    /// Incremented when a member is removed, renamed or changes its meaning; new members may be added without notice.
    #[cfg_attr(test, schemars(extend("const" = FORMAT_VERSION)))]
    pub format_version: u32,
    pub tool: Tool,
    pub run: Run,
    pub protocols: Vec<Protocol>,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Run {
    /// When the run began, RFC 3339, UTC.
    pub started: String,
    pub duration_ms: f64,
    /// The URL of the hub, or `embedded reference server`.
    pub target: String,
    /// The command line, without secrets and without options that select scenarios or report files.
    pub command: Vec<String>,
    /// Whether warnings fail the run.
    pub strict: bool,
    /// Whether rules that the document only implies warn instead of failing.
    pub stated_only: bool,
    /// The percentage of the musts that `--min-judged` demands.
    pub min_judged: Option<u8>,
    /// Whether the user selected scenarios or rules.
    #[serde(default)]
    pub selected: bool,
    /// Which share of a run this is, such as `3/16`; null for a whole run.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub share: Option<Share>,
    /// Whether the run was stopped before everything was played.
    pub interrupted: bool,
    /// 0 pass, 1 the hub failed, 2 a scenario has a mistake, 3 inconclusive.
    pub exit_code: u8,
    /// The successful wait with the largest share of its timeout in the whole run; null without waits.
    pub slimmest: Option<RunMargin>,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Protocol {
    pub name: String,
    pub pack: Pack,
    /// The exit code of a run with this protocol alone.
    pub exit_code: u8,
    /// The verdict line of the terminal page.
    pub summary: String,
    /// Why the hub may implement another protocol, in one sentence.
    pub doubt: Option<String>,
    /// Remarks about the hub that no rule covers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Failed checks and failed preconditions, each once for all scenarios. Those that block most come first.
    pub root_causes: Vec<RootCause>,
    /// Failed preconditions that blocked checks, each once.
    pub causes: Vec<SharedCause>,
    /// The hubs that the run started with a command.
    pub processes: Vec<Process>,
    /// The results of the baseline's entries for this protocol.
    pub baseline: Vec<Entry>,
    /// Waits that were shortened because what they awaited did not arrive in two conversations, or because the hub
    /// sent nothing of its document. A check whose wait was shortened is inconclusive.
    pub shortened_waits: Vec<Shortened>,
    /// The deviations of the hub that the target declares.
    pub deviations: Vec<Deviating>,
    /// Deviations past which the run could have continued. The one that would let most rules be judged comes first.
    pub proposals: Vec<Proposed>,
    pub scenarios: Scenarios,
    pub checks: Totals,
    /// Checks that fail or warn as the baseline expects; they are included in the totals.
    pub expected: usize,
    pub rules: Rules,
    /// How many of the pack's musts were judged.
    pub reach: Reach,
    /// Figures of `hubproof fuzz`, else null. With them, each scenario is the first case of a cause.
    pub fuzzed: Option<FuzzReport>,
    /// How many pairs of a scenario and a prelude the run has played; zeros where it plays no variations.
    #[serde(default)]
    pub preludes: PreludeShare,
    /// Every check that did not pass, in the order of the scenarios: failed, warned, recorded or inconclusive.
    pub findings: Vec<Finding>,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Shortened {
    /// The message that was awaited, or `the answer to the upgrade`, `a connection from the hub`, `the end of the connection`, `a control frame`,
    /// `any message`, `any message after MESSAGE`.
    pub awaited: String,
    /// The number of shortened waits that ran out.
    pub times: usize,
    /// By how much they were shortened in all, in milliseconds.
    pub saved_ms: f64,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Pack {
    pub version: String,
    /// SHA-256 over all files of the pack and its scenarios, first twelve digits.
    pub hash: String,
    /// The document that the lines of the rules refer to.
    pub document: String,
    /// The address of a place in it, in which `{line}` or `{section}` stands for that of a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// Counts; a repeated scenario counts once.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Totals {
    pub total: usize,
    pub verdicts: VerdictTally,
}

/// A check or a step without rules that failed, with all scenarios in which it was found.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RootCause {
    /// Name of the failed check; null for a precondition.
    pub check: Option<String>,
    pub step: String,
    pub message: String,
    /// Whether no connection could be made.
    pub unreachable: bool,
    pub place: Place,
    pub scenarios: Vec<String>,
    /// The rules that the hub breaks.
    pub rules: Vec<String>,
    pub blocks: BlockedChecks,
    /// Whether the baseline expects the failure: for a check in the first scenario, for a precondition in all.
    pub expected: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SharedCause {
    pub step: String,
    pub message: String,
    /// Whether no connection could be made.
    pub unreachable: bool,
    pub place: Place,
    pub detail: Option<FindingDetail>,
    /// The scenarios that could not start or continue.
    pub scenarios: Vec<String>,
}

/// A hub that the run started, over all its starts.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Process {
    /// The command, without secrets.
    pub command: String,
    /// The instances of the target that the hub serves.
    pub instances: Vec<String>,
    /// Number of times the hub was started and listened.
    pub starts: usize,
    /// Number of starts after the first: the hub had ended, was destroyed, or had to be fresh for one scenario.
    pub restarts: usize,
    /// Each time the hub ended by itself or hung.
    pub crashes: Vec<HubCrash>,
    /// Why the hub was not started again although scenarios needed it.
    pub given_up: Option<String>,
    pub log: LogExcerpt,
}

/// An entry of the baseline.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Entry {
    /// `scenario`, or `scenario:check`.
    pub failure: String,
    pub reason: String,
    pub standing: EntryStanding,
    pub file: String,
    /// The first line of the entry, from 1.
    pub first_line: usize,
    pub last_line: usize,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Proposed {
    /// The entry `[[deviation]]` of a target file, as JSON, with a reason to fill in.
    pub entry: Value,
    /// Whether the entry is complete: no value in it is known only to the user.
    pub complete: bool,
    /// Rules that were not judged but might be with this deviation.
    pub unblocks: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Deviating {
    /// The name of its finding, such as `deviation:1`.
    pub name: String,
    /// What is different, in one line.
    pub text: String,
    pub reason: String,
    /// The rules that the hub breaks.
    pub rules: Vec<String>,
    /// `stale`: the hub behaves as documented. Delete the entry; until then the run fails.
    pub standing: EntryStanding,
    /// How often the deviation applied.
    pub observed: usize,
    /// How often the documented form was seen instead.
    pub contradicted: usize,
    /// Whether the run assumed the deviation, instead of the target declaring it.
    pub assumed: bool,
    /// The file that declares the deviation; null if the run assumed it.
    pub file: Option<String>,
    /// The line in that file, from 1.
    pub line: Option<usize>,
}

/// A place in the files of the pack. Both members are null if the finding belongs to no line.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Place {
    pub file: Option<String>,
    /// The line of the place, from 1.
    pub line: Option<usize>,
}

impl Place {
    /// Formats the place as `FILE:LINE`, or as an empty text if there is none.
    pub fn describe(&self) -> String {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => format!("{file}:{line}"),
            (Some(file), None) => file.clone(),
            _ => String::new(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Scenarios {
    /// The played scenarios.
    #[serde(flatten)]
    pub totals: Totals,
    /// Selected scenarios that were not played because of an interruption.
    pub unplayed: Vec<String>,
    pub list: Vec<Scenario>,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Scenario {
    pub id: String,
    pub title: String,
    #[serde(flatten)]
    pub place: Place,
    pub verdict: Verdict,
    /// Unmet needs; if there are any, the scenario was not played.
    pub needs: Vec<String>,
    /// The mistake in the scenario itself.
    pub mistake: Option<String>,
    pub repetitions: usize,
    pub checks: Vec<Check>,
    /// The repetition that the following members describe: the first with the verdict of the whole.
    pub repetition: usize,
    /// The instance of the target; empty if the scenario was not played.
    pub instance: String,
    pub duration_ms: f64,
    pub cause: Option<Cause>,
    /// Frames that no step expected, by message.
    pub leftovers: BTreeMap<String, usize>,
    /// The successful wait that took the largest share of its timeout.
    pub slimmest: Option<Margin>,
    pub history: Vec<FrameReport>,
    /// Number of frames that did not fit into the bounded history.
    pub history_dropped: usize,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Check {
    /// Unique within its scenario and stable between runs.
    pub name: String,
    pub verdict: Verdict,
    pub rules: Vec<UsedRule>,
    #[serde(flatten)]
    pub place: Place,
    /// How often the check was evaluated in the repetition that is shown.
    pub asked: usize,
    /// What was wrong; empty if the check passed.
    pub message: String,
    pub flaky: Option<FlakyTally>,
    /// Whether the check fails or warns as the baseline expects, and so does not fail the run.
    pub expected: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UsedRule {
    pub id: String,
    /// The level at which this check applies the rule.
    pub level: String,
    pub basis: String,
    /// Whether `level` is below the rule's own level: such a check does not prove the rule.
    pub lowered: bool,
    pub verdict: Verdict,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cause {
    pub step: String,
    pub message: String,
    pub unreachable: bool,
    #[serde(flatten)]
    pub place: Place,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Margin {
    pub step: String,
    pub waited_ms: f64,
    /// The timeout of the wait.
    pub bound_ms: f64,
    pub left_ms: f64,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RunMargin {
    pub scenario: String,
    #[serde(flatten)]
    pub margin: Margin,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rules {
    /// Number of rules in the pack.
    pub total: usize,
    /// Number of rules with a check that could run on this target.
    pub testable: usize,
    /// Number of rules that a check at the rule's own level proves and no check breaks.
    pub proven: usize,
    pub by_id: BTreeMap<String, Rule>,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Reach {
    /// Rules of level must, stated or implied, that a hub can break.
    pub musts: usize,
    /// Number of these with a check at the rule's own level that resulted in pass, fail, warn or info.
    pub judged: usize,
    /// Number of further musts, all of whose checks are about messages that the target declares absent.
    #[serde(default)]
    pub not_offered: usize,
    /// Whether this is enough to pass, see `--min-judged`.
    pub enough: bool,
    /// The others, by the reason why they were not judged.
    pub not_judged: Vec<NotJudged>,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NotJudged {
    pub musts: usize,
    /// The reason in a few words, such as `need a hook`.
    pub why: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rule {
    pub level: String,
    pub basis: String,
    /// Line of the document; null if the document has sections, and for oracles of this tool.
    pub line: Option<usize>,
    /// Section of a document that has sections.
    pub section: Option<String>,
    pub text: String,
    /// For an implied rule: what it follows from.
    pub from: Option<String>,
    pub status: Status,
    /// Whether a check at the rule's own level was decided.
    #[serde(default)]
    pub decided: bool,
    /// Whether a check at the rule's own level passed and no check broke the rule.
    pub proven: bool,
    /// With `not-testable`: the unmet needs. If empty, no check of the rule was reached.
    pub needs: Vec<String>,
    /// With `out-of-scope`: why no hub can break the rule.
    pub reason: Option<String>,
    /// Scenarios with checks of this rule.
    pub scenarios: Vec<String>,
}

/// A verdict, or the reason why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Pass,
    Fail,
    Warn,
    Info,
    Inconclusive,
    NotTestable,
    OutOfScope,
    /// Every check of the rule is about messages that the target declares absent.
    NotOffered,
    /// No check of the rule was selected, or the run was interrupted first.
    NotAsked,
    NoCheck,
}

impl Status {
    /// Whether a check of the rule resulted in a verdict.
    pub fn is_judged(self) -> bool {
        matches!(self, Self::Pass | Self::Fail | Self::Warn | Self::Info | Self::Inconclusive)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Inconclusive => "inconclusive",
            Self::NotTestable => "not-testable",
            Self::OutOfScope => "out-of-scope",
            Self::NotOffered => "not-offered",
            Self::NotAsked => "not-asked",
            Self::NoCheck => "no-check",
        }
    }
}

impl From<Verdict> for Status {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => Self::Pass,
            Verdict::Fail => Self::Fail,
            Verdict::Warn => Self::Warn,
            Verdict::Info => Self::Info,
            Verdict::Inconclusive => Self::Inconclusive,
            Verdict::NotTestable => Self::NotTestable,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Finding {
    pub scenario: String,
    pub check: String,
    pub verdict: Verdict,
    /// The rules with this verdict; empty if the check has none.
    pub rules: Vec<String>,
    /// `stated` if one of them is; null without rules.
    pub basis: Option<String>,
    pub message: String,
    #[serde(flatten)]
    pub place: Place,
    pub step: String,
    pub repetition: usize,
    pub flaky: Option<FlakyTally>,
    /// Whether the baseline expects the finding, so that it does not fail the run.
    pub expected: bool,
    /// The reason that the baseline gives for an expected finding.
    pub reason: Option<String>,
    pub detail: Option<FindingDetail>,
    /// A command line that plays this scenario alone.
    pub reproduce: String,
}
