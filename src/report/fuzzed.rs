//! What fuzzing played, as far as a report shows it: how much, of which kind, judged by which oracle.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event::Verdict;

/// One protocol, fuzzed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fuzzed {
    pub seed: u64,
    /// That were played.
    pub cases: u64,
    /// Of these, those in which what was odd was said, and at least one oracle could decide.
    pub decided: u64,
    /// Of these, those in which it was said after the opening.
    pub after_opening: u64,
    /// Decided by an oracle that asks for more than survival.
    pub judged: u64,
    /// By its rule.
    pub oracles: BTreeMap<String, Oracle>,
    pub cells: Vec<Cell>,
    /// One for each scenario of the report, in the same order.
    pub findings: Vec<Finding>,
    /// Why cases came to nothing, the most frequent first.
    pub obstacles: Vec<Obstacle>,
    /// Why the run ended before all of it was played, and not because somebody asked for it.
    pub ended: Option<String>,
    /// The case whose conversation does not go on at the end, though nothing odd is said.
    pub stuck: Option<u64>,
    /// Somebody new takes longer at the end than at the start.
    pub slower: Option<Slower>,
}

/// How long somebody new took to come in and be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slower {
    /// At the start of the run.
    pub before: Duration,
    /// At its end, when nothing else was said any more.
    pub after: Duration,
}

/// In how many cases an oracle decided, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oracle {
    pub held: u64,
    pub broken: u64,
}

/// Something of a kind, done to a message at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    pub message: String,
    pub oddity: &'static str,
    pub placement: &'static str,
    pub cases: u64,
}

/// All cases in which the same was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The answer, without its values.
    pub shape: String,
    pub cases: u64,
    /// Numbers of the first of them.
    pub numbers: Vec<u64>,
}

/// A step that kept cases from being played to their end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    pub step: String,
    pub message: String,
    /// Nobody was there.
    pub unreachable: bool,
    pub cases: u64,
}

impl Fuzzed {
    /// Whether enough was found out: something was played to its end, and no less than what came to nothing, on a hub that
    /// goes on as it did.
    pub fn is_decided(&self) -> bool {
        self.decided > 0 && self.decided * 2 >= self.cases && self.ended.is_none() && self.stuck.is_none()
    }

    pub fn rate(&self, part: u64) -> f64 {
        if self.decided == 0 { 0.0 } else { part as f64 * 100.0 / self.decided as f64 }
    }
}

impl Oracle {
    pub fn see(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Pass => self.held += 1,
            Verdict::Fail | Verdict::Warn => self.broken += 1,
            _ => {}
        }
    }
}
