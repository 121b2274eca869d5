//! Shrinks a finding: finds the steps, and the parts of the sent input, without which it would not fail as it does.
//! This module proposes candidates and takes their results. The caller plays them: on sockets, on a simulated
//! connection, or with a test's predicate. The same results lead to the same candidates.
//!
//! ```text
//! steps        the role of each step
//! json_text    parses a text with expressions
//! candidates   the parts that can be left out
//! cleanup      removes names that no step uses any more
//! constraints  rejects candidates whose oracle would demand too much
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

use serde_json::Value;

use self::candidates::ScenarioCut;
pub use self::steps::{control_run, count_beyond_opening, makes_check};
use super::case_scenario::CaseScenario;

/// The result of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandidateResult {
    /// The candidate fails with the fingerprint of the finding.
    StillFails,
    /// The candidate passes, or fails in another way.
    Differs,
    /// The candidate was not played: it is not a valid scenario, or violates a constraint. It does not count as an
    /// attempt.
    Unplayable,
}

/// Limits for shrinking one finding.
#[derive(Clone, Copy, Debug)]
pub struct ShrinkLimits {
    /// The most candidates to play.
    pub attempts: usize,
    /// The most candidates in total, including those not played.
    pub candidates: usize,
}

impl Default for ShrinkLimits {
    fn default() -> Self {
        Self { attempts: 400, candidates: 20_000 }
    }
}

/// A finding while it is being shrunk.
pub struct Shrinker {
    smallest: CaseScenario,
    check: String,
    limits: ShrinkLimits,
    stage: ShrinkStage,
    cuts: Vec<ScenarioCut>,
    /// Index of the next cut.
    at: usize,
    /// The candidate that awaits its result.
    asked: Option<CaseScenario>,
    /// The hashes of all candidates so far, so that none is proposed twice.
    seen: HashSet<u64>,
    /// Whether a candidate has succeeded in the current round.
    improved: bool,
    attempts: usize,
    candidates: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ShrinkStage {
    Guesses,
    Steps,
    Parts,
    Texts,
    Done,
}

impl Shrinker {
    /// Starts to shrink a finding. `check` is the failed check as reports name it, without its number; the steps that
    /// make this check are not changed.
    pub fn new(finding: CaseScenario, check: &str, limits: ShrinkLimits) -> Self {
        let cuts = candidates::guess_cuts(&finding, check);
        Self {
            smallest: finding,
            check: check.to_owned(),
            limits,
            stage: ShrinkStage::Guesses,
            cuts,
            at: 0,
            asked: None,
            seen: HashSet::new(),
            improved: false,
            attempts: 0,
            candidates: 0,
        }
    }

    /// Returns the next candidate; `None` when nothing more can be cut, or a limit is reached. The caller passes the
    /// result to [`record_result`](Self::record_result); a candidate without a result counts as unplayable.
    pub fn next_candidate(&mut self) -> Option<CaseScenario> {
        self.asked = None;
        while self.stage != ShrinkStage::Done {
            let spent = self.attempts >= self.limits.attempts || self.candidates >= self.limits.candidates;
            let Some(cut) = self.cuts.get(self.at).filter(|_| !spent) else {
                self.advance_stage(spent);
                continue;
            };
            let candidate =
                cut.apply(&self.smallest).map(cleanup::remove_unneeded).filter(|candidate| self.is_sound(candidate));
            self.at += 1;
            if let Some(candidate) = candidate
                && candidate != self.smallest
                && self.seen.insert(scenario_hash(&candidate))
            {
                self.candidates += 1;
                self.asked = Some(candidate.clone());
                return Some(candidate);
            }
        }
        None
    }

    /// Takes the result of the last candidate.
    pub fn record_result(&mut self, answer: CandidateResult) {
        let Some(candidate) = self.asked.take() else { return };
        self.attempts += usize::from(answer != CandidateResult::Unplayable);
        if answer == CandidateResult::StillFails {
            self.smallest = candidate;
            self.improved = true;
            self.cuts = stage_cuts(self.stage, &self.smallest, &self.check);
            // The same index now refers to another cut. Skipped cuts come again in the next round.
            self.at -= 1;
        }
    }

    /// Returns the smallest failing scenario so far.
    pub fn smallest(&self) -> &CaseScenario {
        &self.smallest
    }

    /// Returns the number of candidates that were played.
    pub fn attempts(&self) -> usize {
        self.attempts
    }

    fn advance_stage(&mut self, spent: bool) {
        self.stage = match self.stage {
            _ if spent => ShrinkStage::Done,
            ShrinkStage::Guesses => ShrinkStage::Steps,
            ShrinkStage::Steps => ShrinkStage::Parts,
            ShrinkStage::Parts => ShrinkStage::Texts,
            ShrinkStage::Texts if std::mem::take(&mut self.improved) => ShrinkStage::Steps,
            ShrinkStage::Texts | ShrinkStage::Done => ShrinkStage::Done,
        };
        self.cuts = stage_cuts(self.stage, &self.smallest, &self.check);
        self.at = 0;
    }

    /// Whether the candidate still makes the check, and every actor connects before it acts. Demands only what holds
    /// for the smallest scenario so far.
    fn is_sound(&self, candidate: &CaseScenario) -> bool {
        let asks = |scenario: &CaseScenario| scenario.steps.iter().any(|step| steps::makes_check(step, &self.check));
        (asks(candidate) || !asks(&self.smallest))
            && (steps::actors_connect_first(candidate) || !steps::actors_connect_first(&self.smallest))
    }
}

fn stage_cuts(stage: ShrinkStage, scenario: &CaseScenario, check: &str) -> Vec<ScenarioCut> {
    match stage {
        ShrinkStage::Guesses => candidates::guess_cuts(scenario, check),
        ShrinkStage::Steps => candidates::step_cuts(scenario),
        ShrinkStage::Parts => candidates::part_cuts(scenario),
        ShrinkStage::Texts => candidates::text_cuts(scenario),
        ShrinkStage::Done => Vec::new(),
    }
}

fn scenario_hash(scenario: &CaseScenario) -> u64 {
    let mut hasher = DefaultHasher::new();
    Value::Object(scenario.to_map()).to_string().hash(&mut hasher);
    hasher.finish()
}
