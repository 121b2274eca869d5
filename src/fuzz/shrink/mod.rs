//! Makes a finding small: which steps, and which parts of what is said, does it need to fail as it fails? This proposes
//! candidates and is told how they came out; who plays them, and where, is not known here, so that it is the same on
//! sockets, on a virtual wire and with a pretended judge. The same answers give the same candidates.
//!
//! ```text
//! steps        what a step is for
//! json_text    a text with expressions, taken apart
//! candidates   what can be left out
//! cleanup      what nobody needs any more
//! constraints  which candidates may not be played, since their oracle would demand too much
//! ```

mod candidates;
mod cleanup;
pub mod constraints;
mod json_text;
mod steps;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value};

use self::candidates::Cut;
pub use self::steps::{beyond_opening, control, is_check};

/// How a candidate came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// As the finding does, for the same cause.
    StillFails,
    /// In any other way.
    Differs,
    /// It was not played: the reader refuses it, or it means something else. That costs nothing.
    Unplayable,
}

/// What it may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Candidates that are played.
    pub attempts: usize,
    /// Candidates at all.
    pub candidates: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { attempts: 400, candidates: 20_000 }
    }
}

/// A finding on its way to its smallest form.
pub struct Shrink {
    smallest: Map<String, Value>,
    check: String,
    limits: Limits,
    stage: Stage,
    cuts: Vec<Cut>,
    /// Which of them comes next.
    at: usize,
    /// The candidate that is being judged.
    asked: Option<Map<String, Value>>,
    /// What has been asked before, so that no round asks it again.
    seen: HashSet<u64>,
    /// Something has been cut since the last round began.
    improved: bool,
    attempts: usize,
    candidates: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Guesses,
    Steps,
    Parts,
    Texts,
    Done,
}

impl Shrink {
    /// `check` is what failed, as reports name it, without its number: the steps that ask for it stay as they are.
    pub fn new(finding: Map<String, Value>, check: &str, limits: Limits) -> Self {
        let cuts = candidates::guesses(&finding, check);
        Self {
            smallest: finding,
            check: check.to_owned(),
            limits,
            stage: Stage::Guesses,
            cuts,
            at: 0,
            asked: None,
            seen: HashSet::new(),
            improved: false,
            attempts: 0,
            candidates: 0,
        }
    }

    /// The next candidate; `None` when it becomes no smaller, or the limits are reached. Each is answered by
    /// [`told`](Self::told); one that is not counts as unplayable.
    #[expect(clippy::should_implement_trait, reason = "between two candidates, `told` is due")]
    pub fn next(&mut self) -> Option<Map<String, Value>> {
        self.asked = None;
        while self.stage != Stage::Done {
            let spent = self.attempts >= self.limits.attempts || self.candidates >= self.limits.candidates;
            let Some(cut) = self.cuts.get(self.at).filter(|_| !spent) else {
                self.turn(spent);
                continue;
            };
            let candidate = cut.of(&self.smallest).map(cleanup::tidied).filter(|candidate| self.makes_sense(candidate));
            self.at += 1;
            if let Some(candidate) = candidate
                && candidate != self.smallest
                && self.seen.insert(hash(&candidate))
            {
                self.candidates += 1;
                self.asked = Some(candidate.clone());
                return Some(candidate);
            }
        }
        None
    }

    /// How the last candidate came out.
    pub fn told(&mut self, answer: Answer) {
        let Some(candidate) = self.asked.take() else { return };
        self.attempts += usize::from(answer != Answer::Unplayable);
        if answer == Answer::StillFails {
            self.smallest = candidate;
            self.improved = true;
            self.cuts = cuts_of(self.stage, &self.smallest, &self.check);
            // What stood here is gone, so the same place holds another cut. What is passed over comes in the next round.
            self.at -= 1;
        }
    }

    /// The smallest that fails, so far.
    pub fn smallest(&self) -> &Map<String, Value> {
        &self.smallest
    }

    /// Candidates that have been played.
    pub fn attempts(&self) -> usize {
        self.attempts
    }

    fn turn(&mut self, spent: bool) {
        self.stage = match self.stage {
            _ if spent => Stage::Done,
            Stage::Guesses => Stage::Steps,
            Stage::Steps => Stage::Parts,
            Stage::Parts => Stage::Texts,
            Stage::Texts if std::mem::take(&mut self.improved) => Stage::Steps,
            Stage::Texts | Stage::Done => Stage::Done,
        };
        self.cuts = cuts_of(self.stage, &self.smallest, &self.check);
        self.at = 0;
    }

    /// Whether the check is still asked, and nobody acts who is not there; if that was so.
    fn makes_sense(&self, candidate: &Map<String, Value>) -> bool {
        let asks = |scenario| steps::top(scenario).iter().any(|step| steps::is_check(step, &self.check));
        (asks(candidate) || !asks(&self.smallest))
            && (steps::is_orderly(candidate) || !steps::is_orderly(&self.smallest))
    }
}

fn cuts_of(stage: Stage, scenario: &Map<String, Value>, check: &str) -> Vec<Cut> {
    match stage {
        Stage::Guesses => candidates::guesses(scenario, check),
        Stage::Steps => candidates::whole_steps(scenario),
        Stage::Parts => candidates::parts(scenario),
        Stage::Texts => candidates::texts(scenario),
        Stage::Done => Vec::new(),
    }
}

fn hash(scenario: &Map<String, Value>) -> u64 {
    let mut hasher = DefaultHasher::new();
    Value::Object(scenario.clone()).to_string().hash(&mut hasher);
    hasher.finish()
}
