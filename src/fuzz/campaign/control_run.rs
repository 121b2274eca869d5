//! Whether it is the odd thing that keeps a conversation from going on. What another client left behind on a hub, such as a
//! job that fits everybody, can do so as well, and so can what is said beside it: then it does where nothing odd is said, or
//! does not do it again.

use serde_json::{Map, Value};

use super::fingerprint;
use crate::event::{CheckReport, ScenarioReport, Verdict};
use crate::fuzz::shrink;
use crate::report::scenario_verdict;

/// Oracles that a conversation is asked by which goes on.
const GOING_ON: [&str; 2] = ["FUZZ-UNDISTURBED", "FUZZ-KEEPS"];

fn is_of_going_on(check: &CheckReport) -> bool {
    check.rules.iter().any(|(rule, _)| GOING_ON.contains(&rule.id.as_str()))
}

/// The case without what is odd; `None` where nothing was found that it could tell of.
pub fn of(scenario: &Map<String, Value>, report: &ScenarioReport) -> Option<Map<String, Value>> {
    let is_found = |check: &&CheckReport| check.verdict == Verdict::Fail && is_of_going_on(check);
    shrink::control(scenario, fingerprint::oracle(report.checks.iter().find(is_found)?))
}

/// Whether an oracle is broken that a conversation is asked by which goes on; `None` where it did not come that far.
pub fn is_stuck(report: &ScenarioReport) -> Option<bool> {
    let is_stuck = fingerprint::broken(report).any(is_of_going_on);
    (is_stuck || scenario_verdict(report) != Verdict::Inconclusive).then_some(is_stuck)
}

/// What is said in another play of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Everything,
    NothingOdd,
}

/// So often the case and its control are played before it is doubted: others of the run disturb the one and the other.
const ROUNDS: usize = 3;

/// The case and its control in turn: the odd thing is accused as soon as its control goes on, and it again does not.
#[derive(Debug, Default)]
pub struct Trial {
    rounds: usize,
    /// Its control has just gone on.
    went_on: bool,
    accused: bool,
    doubt: Option<Doubt>,
}

/// Why it may not be the odd thing that keeps a case from going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It does not go on without it either.
    StuckAnyway,
    /// It does go on with it.
    NotAgain,
}

impl Doubt {
    fn words(self) -> &'static str {
        match self {
            Self::StuckAnyway => ", and so it is now where nothing odd is said",
            Self::NotAgain => ", but it did not happen again",
        }
    }
}

impl Trial {
    /// What is to be played now.
    pub fn next(&self) -> Option<Said> {
        match self.went_on {
            true => Some(Said::Everything),
            false => (self.rounds < ROUNDS && !self.accused).then_some(Said::NothingOdd),
        }
    }

    pub fn told(&mut self, is_stuck: bool) {
        match (std::mem::take(&mut self.went_on), is_stuck) {
            (false, false) => self.went_on = true,
            (true, true) => self.accused = true,
            (false, true) => self.doubted(Doubt::StuckAnyway),
            (true, false) => self.doubted(Doubt::NotAgain),
        }
    }

    fn doubted(&mut self, doubt: Doubt) {
        self.rounds += 1;
        self.doubt = Some(doubt);
    }

    /// A trial that is cut short, by a hub that is gone or the end of the run, casts no doubt.
    pub fn doubt(&self) -> Option<Doubt> {
        self.doubt.filter(|_| self.rounds == ROUNDS)
    }
}

/// Lets a finding only warn, and says why it may not be the odd thing that is the reason.
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

    /// Plays as their outcomes: `+` goes on, `-` is stuck, and the run ends after the last.
    #[rstest]
    #[case::odd("+-", None)]
    #[case::odd_beside_others("-+++-", None)]
    #[case::anyway("---", Some(Doubt::StuckAnyway))]
    #[case::once("++++++", Some(Doubt::NotAgain))]
    #[case::once_beside_others("++-++", Some(Doubt::NotAgain))]
    #[case::ended("", None)]
    #[case::ended_later("-++", None)]
    fn only_the_odd_thing_is_accused(#[case] plays: &str, #[case] doubt: Option<Doubt>) {
        let mut trial = Trial::default();
        for play in plays.chars() {
            assert!(trial.next().is_some(), "after {trial:?}");
            trial.told(play == '-');
        }
        let is_over = trial.next().is_none();
        assert_eq!(is_over, doubt.is_some() || plays.ends_with("+-"), "{trial:?}");
        assert_eq!(trial.doubt(), doubt);
    }
}
