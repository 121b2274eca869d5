//! Control runs: whether the mutation is why a conversation fails. State that another client left on the hub (such as a
//! job that matches every worker), or its messages at the same time, can be the reason, too; then the conversation also
//! fails without the mutated message, or does not fail again with it.

use super::fingerprint;
use crate::event::{CheckReport, ScenarioReport, Verdict};
use crate::fuzz::case_scenario::CaseScenario;
use crate::fuzz::shrink;
use crate::report::scenario_verdict;

/// Oracles that check whether a conversation continues.
const GOING_ON: [&str; 2] = ["FUZZ-UNDISTURBED", "FUZZ-KEEPS"];

fn is_of_going_on(check: &CheckReport) -> bool {
    check.rules.iter().any(|(rule, _)| GOING_ON.contains(&rule.id.as_str()))
}

/// Returns the case without its mutated message; `None` unless an oracle of [`GOING_ON`] has failed.
pub fn of(scenario: &CaseScenario, report: &ScenarioReport) -> Option<CaseScenario> {
    let is_found = |check: &&CheckReport| check.verdict == Verdict::Fail && is_of_going_on(check);
    shrink::control(scenario, fingerprint::oracle(report.checks.iter().find(is_found)?))
}

/// Whether an oracle of [`GOING_ON`] is broken; `None` where the case did not get that far.
pub fn is_stuck(report: &ScenarioReport) -> Option<bool> {
    let is_stuck = fingerprint::broken(report).any(is_of_going_on);
    (is_stuck || scenario_verdict(report) != Verdict::Inconclusive).then_some(is_stuck)
}

/// What is to be played next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Play {
    /// The case as it is.
    Case,
    /// The case without its mutated message.
    Control,
}

/// Rounds of control run and case after which a finding only warns. Other cases at the same time may disturb both, so
/// there are none in the last round.
const ROUNDS: usize = 3;

/// Plays control run and case in turn. The mutation is the cause once the control run passes and the case fails right
/// after.
#[derive(Debug, Default)]
pub struct Trial {
    rounds: usize,
    /// Whether the control run has just passed.
    control_passed: bool,
    is_cause: bool,
    doubt: Option<Doubt>,
}

/// Why the mutation may not be the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The control run fails, too.
    FailsAnyway,
    /// The case does not fail again.
    NotAgain,
}

impl Doubt {
    fn words(self) -> &'static str {
        match self {
            Self::FailsAnyway => "; it fails without the mutation, too (control run)",
            Self::NotAgain => "; it did not fail again when replayed",
        }
    }
}

impl Trial {
    /// Returns what to play now; `None` when the result is known.
    pub fn next(&self) -> Option<Play> {
        match self.control_passed {
            true => Some(Play::Case),
            false => (self.rounds < ROUNDS && !self.is_cause).then_some(Play::Control),
        }
    }

    /// Whether what is played next must be alone on the hub.
    pub fn is_last(&self) -> bool {
        self.rounds + 1 == ROUNDS
    }

    /// Takes the result of what [`next`](Self::next) returned.
    pub fn record(&mut self, is_stuck: bool) {
        match (std::mem::take(&mut self.control_passed), is_stuck) {
            (false, false) => self.control_passed = true,
            (true, true) => self.is_cause = true,
            (false, true) => self.doubted(Doubt::FailsAnyway),
            (true, false) => self.doubted(Doubt::NotAgain),
        }
    }

    fn doubted(&mut self, doubt: Doubt) {
        self.rounds += 1;
        self.doubt = Some(doubt);
    }

    /// Returns the doubt after all rounds. Without them (the hub has died, or the run has ended) there is none.
    pub fn doubt(&self) -> Option<Doubt> {
        self.doubt.filter(|_| self.rounds == ROUNDS)
    }
}

/// Lowers a finding to a warning, and adds to its message why the mutation may not be the cause.
pub fn doubt(report: &mut ScenarioReport, doubt: Doubt) {
    for check in report.checks.iter_mut().filter(|check| check.verdict == Verdict::Fail && is_of_going_on(check)) {
        check.verdict = Verdict::Warn;
        check.rules.iter_mut().for_each(|(_, verdict)| *verdict = (*verdict).min(Verdict::Warn));
        check.message.push_str(doubt.words());
    }
    report.verdict = scenario_verdict(report);
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// `plays` are results in order: `+` passes, `-` fails; the run ends after the last.
    #[rstest]
    #[case::mutation("+-", None)]
    #[case::mutation_beside_others("-+++-", None)]
    #[case::anyway("---", Some(Doubt::FailsAnyway))]
    #[case::once("++++++", Some(Doubt::NotAgain))]
    #[case::once_beside_others("++-++", Some(Doubt::NotAgain))]
    #[case::ended("", None)]
    #[case::ended_later("-++", None)]
    fn a_finding_counts_only_if_the_control_run_passes_and_the_case_fails_again(
        #[case] plays: &str,
        #[case] doubt: Option<Doubt>,
    ) {
        let mut trial = Trial::default();
        for play in plays.chars() {
            assert!(trial.next().is_some(), "after {trial:?}");
            trial.record(play == '-');
        }
        let is_over = trial.next().is_none();
        assert_eq!(is_over, doubt.is_some() || plays.ends_with("+-"), "{trial:?}");
        assert_eq!(trial.doubt(), doubt);
    }
}
