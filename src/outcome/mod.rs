//! What playing scenarios resulted in: verdicts, checks, frames, waits, and what became of the hub. Reports are made from
//! these.

mod check;
mod history;
mod process;
mod scenario;
mod time;
mod waits;

use serde::{Deserialize, Serialize};

use crate::protocol::{RuleBasis, RuleLevel};
use crate::syntax::explanation::Explanation;

pub use check::{CheckReport, FindingDetail, KnownDeviation, PreconditionFailure};
pub use history::{FrameKind, FrameReport, HistoryDirection, HookCallReport};
pub use process::{HANG_CHECK, HubCrash, LogExcerpt, ProcessReport};
pub use scenario::{AnswerTimes, HubActivity, HubAnswer, Lack, MessageKind, ScenarioReport, UnmetNeed, UnservedProbe};
pub use time::{milliseconds, ms, optional_milliseconds};
pub use waits::{HubSpeed, ShortenedWaits, TimingMargin, WaitReport};

/// The verdict of a check or a scenario. A failure of the harness itself is a `Result::Err` instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Pass,
    /// Only recorded: the rule is a MAY, or the document is silent.
    Info,
    /// Not checked: the target lacks something that the check needs.
    NotTestable,
    /// A SHOULD is broken, or a tolerated form was used.
    Warn,
    /// The harness could not decide.
    Inconclusive,
    /// A MUST is broken.
    Fail,
}

impl Verdict {
    pub const ALL: [Self; 6] = [Self::Pass, Self::Fail, Self::Warn, Self::Info, Self::NotTestable, Self::Inconclusive];

    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Info => "info",
            Self::NotTestable => "not-testable",
            Self::Warn => "warn",
            Self::Inconclusive => "inconclusive",
            Self::Fail => "fail",
        }
    }

    pub fn explanation(self) -> Explanation {
        let means = match self {
            Self::Pass => "The hub did what the rule demands, each time the check was evaluated.",
            Self::Info => {
                "Recorded only: the rule is a MAY, or the document is silent. Nothing follows from it for the exit code."
            }
            Self::NotTestable => {
                "Not checked, because the target lacks something that the check needs, or because the situation that the check is about did not occur. This says nothing about the hub."
            }
            Self::Warn => {
                "The hub broke a SHOULD, or used a form that the document tolerates. Only `--strict` makes the run fail."
            }
            Self::Inconclusive => {
                "Not decided: something that the check depends on did not work. This says nothing about the rule of the check."
            }
            Self::Fail => "The hub broke a MUST. The run fails with exit code 1.",
        };
        let (usually, next) = match self {
            Self::Pass | Self::Info => ("", ""),
            Self::NotTestable => (
                "A setting, a secret or a hook is missing in the target. The report names it after `unmet need`.",
                "List what the target can provide: hubproof check URL --protocol NAME --list",
            ),
            Self::Warn => ("", "Explain the rule of the check: hubproof explain RULE"),
            Self::Inconclusive => (
                "A step before the check failed: the hub cannot be reached, refuses the client, or does not send an earlier message. The report names that cause first.",
                "Correct the cause that blocks most checks, and run again. If the machine or the hub is slow, use `--stretch 2`.",
            ),
            Self::Fail => (
                "",
                "Explain the rule of the check with `hubproof explain RULE`, and play the scenario alone with the command after `reproduce`.",
            ),
        };
        Explanation::new(self.name(), means).usually(usually).next(next)
    }
}

/// The outcome of a check, before the level of its rule is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    Holds,
    /// The hub did not do what the document demands.
    Broken,
    /// Accepted with this warning.
    Tolerated(String),
    /// Accepted and recorded with this note.
    Noted(String),
    /// The check was never evaluated, or the harness could not decide.
    Undecided(String),
    /// The scenario skipped the step: its `if` was false, or it uses a name that only another branch binds.
    NotReached(String),
}

/// Returns the verdict on a rule. A broken MUST fails, stated or implied; a broken SHOULD warns; a MAY is only
/// recorded, and so is everything on which the document is silent. With `stated_only`, a broken MUST that is only
/// implied warns.
pub fn rule_verdict(outcome: &CheckOutcome, level: RuleLevel, basis: RuleBasis, stated_only: bool) -> Verdict {
    match outcome {
        CheckOutcome::Holds => Verdict::Pass,
        CheckOutcome::Noted(_) => Verdict::Info,
        CheckOutcome::Tolerated(_) if level == RuleLevel::May || basis == RuleBasis::Silent => Verdict::Info,
        CheckOutcome::Tolerated(_) => Verdict::Warn,
        CheckOutcome::Undecided(_) => Verdict::Inconclusive,
        CheckOutcome::NotReached(_) => Verdict::NotTestable,
        CheckOutcome::Broken => match (level, basis) {
            (_, RuleBasis::Silent) | (RuleLevel::May, _) => Verdict::Info,
            (RuleLevel::Should, _) => Verdict::Warn,
            (RuleLevel::Must, RuleBasis::Implied) if stated_only => Verdict::Warn,
            (RuleLevel::Must, _) => Verdict::Fail,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const BROKEN: fn() -> CheckOutcome = || CheckOutcome::Broken;
    const TOLERATED: fn() -> CheckOutcome = || CheckOutcome::Tolerated(String::new());
    const NOTED: fn() -> CheckOutcome = || CheckOutcome::Noted(String::new());
    const HOLDS: fn() -> CheckOutcome = || CheckOutcome::Holds;
    const UNDECIDED: fn() -> CheckOutcome = || CheckOutcome::Undecided(String::new());
    const NOT_REACHED: fn() -> CheckOutcome = || CheckOutcome::NotReached(String::new());

    /// Every outcome at every level on every basis: the verdict, and the verdict with `stated_only`.
    #[rstest]
    #[case(BROKEN, RuleLevel::Must, RuleBasis::Stated, Verdict::Fail, Verdict::Fail)]
    #[case(BROKEN, RuleLevel::Must, RuleBasis::Implied, Verdict::Fail, Verdict::Warn)]
    #[case(BROKEN, RuleLevel::Must, RuleBasis::Silent, Verdict::Info, Verdict::Info)]
    #[case(BROKEN, RuleLevel::Should, RuleBasis::Stated, Verdict::Warn, Verdict::Warn)]
    #[case(BROKEN, RuleLevel::Should, RuleBasis::Implied, Verdict::Warn, Verdict::Warn)]
    #[case(BROKEN, RuleLevel::Should, RuleBasis::Silent, Verdict::Info, Verdict::Info)]
    #[case(BROKEN, RuleLevel::May, RuleBasis::Stated, Verdict::Info, Verdict::Info)]
    #[case(BROKEN, RuleLevel::May, RuleBasis::Implied, Verdict::Info, Verdict::Info)]
    #[case(BROKEN, RuleLevel::May, RuleBasis::Silent, Verdict::Info, Verdict::Info)]
    #[case(TOLERATED, RuleLevel::Must, RuleBasis::Stated, Verdict::Warn, Verdict::Warn)]
    #[case(TOLERATED, RuleLevel::Must, RuleBasis::Implied, Verdict::Warn, Verdict::Warn)]
    #[case(TOLERATED, RuleLevel::Must, RuleBasis::Silent, Verdict::Info, Verdict::Info)]
    #[case(TOLERATED, RuleLevel::Should, RuleBasis::Stated, Verdict::Warn, Verdict::Warn)]
    #[case(TOLERATED, RuleLevel::May, RuleBasis::Stated, Verdict::Info, Verdict::Info)]
    fn outcome_level_and_basis_determine_the_verdict(
        #[case] outcome: fn() -> CheckOutcome,
        #[case] level: RuleLevel,
        #[case] basis: RuleBasis,
        #[case] expected: Verdict,
        #[case] stated_only: Verdict,
    ) {
        assert_eq!(rule_verdict(&outcome(), level, basis, false), expected);
        assert_eq!(rule_verdict(&outcome(), level, basis, true), stated_only);
    }

    #[rstest]
    #[case(HOLDS, Verdict::Pass)]
    #[case(NOTED, Verdict::Info)]
    #[case(UNDECIDED, Verdict::Inconclusive)]
    #[case(NOT_REACHED, Verdict::NotTestable)]
    fn outcomes_other_than_broken_have_the_same_verdict_at_every_level(
        #[case] outcome: fn() -> CheckOutcome,
        #[case] expected: Verdict,
        #[values(RuleLevel::Must, RuleLevel::Should, RuleLevel::May)] level: RuleLevel,
        #[values(RuleBasis::Stated, RuleBasis::Implied, RuleBasis::Silent)] basis: RuleBasis,
        #[values(true, false)] stated_only: bool,
    ) {
        assert_eq!(rule_verdict(&outcome(), level, basis, stated_only), expected);
    }
}
