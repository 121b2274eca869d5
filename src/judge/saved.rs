//! The verdict on a replayed finding: still fails, fixed, or not reproducible. A hub may fail only sometimes, so a
//! finding is played several times, and only a result that all plays share counts.

use std::fmt;

use crate::outcome::{CheckReport, ScenarioReport, Verdict};
use crate::syntax::explanation::Explanation;

/// The result of replaying a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayResult {
    /// The finding fails in every play.
    StillFails {
        /// The first check that failed, and its message.
        check: String,
        message: String,
    },
    /// The finding passes in every play.
    Fixed,
    /// Anything else, with the reason.
    NotReproducible(String),
}

/// Returns the exit code for replayed findings: 1 if one still fails, 3 if one is not reproducible.
pub fn exit_code<'a>(replayed: impl IntoIterator<Item = &'a ReplayResult>) -> u8 {
    let codes = replayed.into_iter().map(|result| match result {
        ReplayResult::StillFails { .. } => 1,
        ReplayResult::NotReproducible(_) => 3,
        ReplayResult::Fixed => 0,
    });
    codes.filter(|code| *code != 0).min().unwrap_or(0)
}

const STILL_FAILS: Explanation =
    Explanation::new("still fails", "A saved finding fails each time it is played. The exit code is 1.")
        .next("Play the file alone: hubproof check URL --protocol NAME --scenario FILE --trace");
const FIXED: Explanation = Explanation::new("fixed", "A saved finding passes each time it is played.")
    .next("Keep the file as a regression test.");
const NOT_REPRODUCIBLE: Explanation = Explanation::new(
    "not reproducible",
    "A saved finding fails only sometimes, or cannot be played. The exit code is 3.",
)
.usually("A race in the hub, or an earlier step of the conversation that fails.")
.next("Play it more often: hubproof fuzz URL --protocol NAME --replay FILE --plays 20");

impl ReplayResult {
    /// Explains the names of all results.
    pub const EXPLANATIONS: [Explanation; 3] = [STILL_FAILS, FIXED, NOT_REPRODUCIBLE];

    /// Returns the name of the result for output.
    pub fn name(&self) -> &'static str {
        match self {
            Self::StillFails { .. } => STILL_FAILS.name,
            Self::Fixed => FIXED.name,
            Self::NotReproducible(_) => NOT_REPRODUCIBLE.name,
        }
    }
}

impl fmt::Display for ReplayResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StillFails { check, message } => write!(f, "{}: {check}: {message}", self.name()),
            Self::Fixed => f.write_str(self.name()),
            Self::NotReproducible(why) => write!(f, "{}: {why}", self.name()),
        }
    }
}

/// The result of one play.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PlayResult {
    Fails { check: String, message: String },
    Holds,
    Undecided(String),
}

/// Returns the verdict on all plays of a finding.
pub fn judge_plays(plays: &[ScenarioReport]) -> ReplayResult {
    let plays: Vec<PlayResult> = plays.iter().map(judge_play).collect();
    let of = plays.len();
    let failed = plays.iter().filter(|play| matches!(play, PlayResult::Fails { .. })).count();
    let held = plays.iter().filter(|play| **play == PlayResult::Holds).count();
    let undecided = plays.iter().find_map(|play| match play {
        PlayResult::Undecided(why) => Some(why.as_str()),
        _ => None,
    });
    match (plays.first(), undecided) {
        (Some(PlayResult::Fails { check, message }), None) if failed == of => {
            ReplayResult::StillFails { check: check.clone(), message: message.clone() }
        }
        (Some(_), None) if held == of => ReplayResult::Fixed,
        (Some(_), None) => ReplayResult::NotReproducible(format!("it failed in {failed} of {of} plays")),
        (Some(_), Some(why)) if failed + held == 0 => ReplayResult::NotReproducible(why.to_owned()),
        (Some(_), Some(why)) => {
            let not = of - failed - held;
            let sum = format!("it failed in {failed} of {of} plays, and was inconclusive in {not}: {why}");
            ReplayResult::NotReproducible(sum)
        }
        (None, _) => ReplayResult::NotReproducible("it was not played".to_owned()),
    }
}

fn judge_play(report: &ScenarioReport) -> PlayResult {
    if let Some(mistake) = &report.mistake {
        return PlayResult::Undecided(format!("it cannot be played any more: {mistake}"));
    }
    if !report.unmet.is_empty() {
        let needs: Vec<&str> = report.unmet.iter().map(|need| need.name.as_str()).collect();
        return PlayResult::Undecided(format!("the target lacks what it needs: {}", needs.join(", ")));
    }
    let is = |verdict: Verdict| move |check: &&CheckReport| check.verdict == verdict;
    if let Some(check) = report.checks.iter().find(is(Verdict::Fail)) {
        return PlayResult::Fails { check: check.name.clone(), message: check.message.clone() };
    }
    if let Some(cause) = &report.cause {
        let what = if cause.unreachable { "the hub cannot be reached" } else { "its checks were not reached" };
        let step = if cause.step.is_empty() { String::new() } else { format!("{}: ", cause.step) };
        return PlayResult::Undecided(format!("{what}: {step}{}", cause.message));
    }
    if let Some(check) = report.checks.iter().find(is(Verdict::Inconclusive)) {
        return PlayResult::Undecided(format!("{}: {}", check.name, check.message));
    }
    match report.checks.iter().any(|check| is(Verdict::Pass)(&check)) {
        true => PlayResult::Holds,
        false => PlayResult::Undecided("none of its checks was reached".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::outcome::{Lack, PreconditionFailure, UnmetNeed};
    use crate::syntax::source::{Sources, Span};

    /// Returns the report of a play with these verdicts.
    fn report_with_verdicts(verdicts: &[Verdict], cause: Option<bool>, mistake: bool, unmet: bool) -> ScenarioReport {
        let span = Span::new(Sources::default().add("saved.yaml", ""), 0..0);
        let check = |verdict: &Verdict| CheckReport {
            message: "nothing came".to_owned(),
            ..CheckReport::new("FUZZ-REJECTS", *verdict)
        };
        let cause = cause.map(|unreachable| PreconditionFailure {
            span: None,
            step: "a joins".to_owned(),
            message: "refused".to_owned(),
            detail: None,
            unreachable,
            shortened: false,
            unauthenticated: false,
            rests_on_unfenced: Vec::new(),
        });
        let tls = UnmetNeed { name: "tls".to_owned(), lacks: Lack::Property };
        ScenarioReport {
            checks: verdicts.iter().map(check).collect(),
            unmet: if unmet { vec![tls] } else { Vec::new() },
            cause,
            mistake: mistake.then(|| "no such name".to_owned()),
            ..ScenarioReport::new("qi", "qi/saved", "", span)
        }
    }

    fn report_of_letter(letter: char) -> ScenarioReport {
        use Verdict::{Fail, Inconclusive, Info, NotTestable, Pass, Warn};
        match letter {
            'f' => report_with_verdicts(&[Pass, Fail], None, false, false),
            'e' => report_with_verdicts(&[Fail, Inconclusive], Some(false), false, false),
            'h' => report_with_verdicts(&[Pass, Warn, Info], None, false, false),
            'u' => report_with_verdicts(&[Inconclusive], Some(true), false, false),
            's' => report_with_verdicts(&[Inconclusive], Some(false), false, false),
            'i' => report_with_verdicts(&[Pass, Inconclusive], None, false, false),
            'n' => report_with_verdicts(&[NotTestable], None, false, false),
            'm' => report_with_verdicts(&[], None, true, false),
            _ => report_with_verdicts(&[], None, false, true),
        }
    }

    #[rstest]
    #[case("fff", "still fails: FUZZ-REJECTS: nothing came")]
    #[case("eff", "still fails: FUZZ-REJECTS: nothing came")]
    #[case("hhh", "fixed")]
    #[case("h", "fixed")]
    #[case("fhf", "not reproducible: it failed in 2 of 3 plays")]
    #[case(
        "fuu",
        "not reproducible: it failed in 1 of 3 plays, and was inconclusive in 2: the hub cannot be reached: a joins: refused"
    )]
    #[case("hhi", "not reproducible: it failed in 0 of 3 plays, and was inconclusive in 1: FUZZ-REJECTS: nothing came")]
    #[case("uuu", "not reproducible: the hub cannot be reached: a joins: refused")]
    #[case("sss", "not reproducible: its checks were not reached: a joins: refused")]
    #[case("nnn", "not reproducible: none of its checks was reached")]
    #[case("mmm", "not reproducible: it cannot be played any more: no such name")]
    #[case("ttt", "not reproducible: the target lacks what it needs: tls")]
    #[case("", "not reproducible: it was not played")]
    fn a_replay_is_decided_only_if_all_plays_agree(#[case] plays: &str, #[case] expected: &str) {
        let plays: Vec<ScenarioReport> = plays.chars().map(report_of_letter).collect();
        assert_eq!(judge_plays(&plays).to_string(), expected);
    }
}
