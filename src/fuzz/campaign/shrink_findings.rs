//! Makes a finding small on the hub that it was found on: plays what [`shrink`](crate::fuzz::shrink) proposes.
//!
//! Most of the time goes into waiting for what does not come, so candidates have less patience than a run, and only the
//! smallest is played again with all of it. What holds without the odd message fails because of it: that is asked of
//! every candidate that fails, so that a hub that has been wedged for good is not blamed for something smaller.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::fingerprint::{Fingerprint, broken, oracle};
use super::{Campaign, Stage};
use crate::event::ScenarioReport;
use crate::fuzz::case::Cell;
use crate::fuzz::shrink::constraints::Constraints;
use crate::fuzz::shrink::{Answer, Limits, Shrink, control, is_check};

/// The share of the patience that a candidate has.
const PATIENCE: f64 = 0.2;
/// So often a finding is played before it is said not to fail by itself.
const AGAIN: usize = 3;
/// So often the smallest has to fail, one play after the other.
const SURE: usize = 3;
/// Plays are numbered from here, so that no case of the run has the same.
const NUMBERS: u64 = 1 << 40;

/// A finding, and what became of it.
#[derive(Clone, Debug)]
pub struct Smaller {
    pub scenario: Map<String, Value>,
    /// Candidates that were played.
    pub attempts: usize,
    /// Whether it fails when it is played by itself; `None` where nobody has seen.
    pub fails: Option<bool>,
}

/// Numbers for all plays of a run.
pub fn numbers() -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(NUMBERS))
}

/// A finding that is to become small.
pub struct Finding {
    pub scenario: Map<String, Value>,
    /// Other scenarios that may do.
    pub simpler: Vec<Map<String, Value>>,
    pub cell: Cell,
    pub cause: Fingerprint,
    /// How its plays are called.
    pub id: String,
}

/// Where a finding is played again.
pub struct Bench {
    pub campaign: Arc<Campaign>,
    pub stage: Stage,
    pub finding: Finding,
    pub numbers: Arc<AtomicU64>,
}

impl Bench {
    /// Whether the finding fails when it is played by itself, which it may only sometimes.
    pub async fn looked_at(&self, until: Instant) -> Smaller {
        let mut fails = Some(false);
        for _ in 0..AGAIN {
            fails = match Instant::now() < until {
                true => Some(self.fails(&self.finding.scenario, 1.0).await),
                false => None,
            };
            if fails != Some(false) {
                break;
            }
        }
        Smaller { scenario: self.finding.scenario.clone(), attempts: 0, fails }
    }

    /// The smallest scenario that fails as the finding does, which fails by itself, found until the time is over.
    pub async fn smaller(&self, until: Instant) -> Smaller {
        let Finding { scenario, simpler, cell, cause, id } = &self.finding;
        let mut scenario = scenario;
        for form in simpler {
            // Little patience sorts out most, and accuses of nothing.
            if Instant::now() < until && self.fails(form, PATIENCE).await && self.fails(form, 1.0).await {
                scenario = form;
                break;
            }
        }
        let meaning = Constraints::of(&self.campaign.material, cell.placement, scenario, &cause.oracle);
        let mut shrink = Shrink::new(scenario.clone(), &cause.oracle, Limits::default());
        while Instant::now() < until
            && !*self.stage.interrupt.borrow()
            && let Some(candidate) = shrink.next()
        {
            let playable = meaning.is_kept(&candidate) && self.campaign.program(id, &candidate).is_ok();
            shrink.told(match playable {
                false => Answer::Unplayable,
                true if self.fails(&candidate, PATIENCE).await && !self.is_idle(&candidate).await => Answer::StillFails,
                true => Answer::Differs,
            });
        }
        let attempts = shrink.attempts();
        // Small is of no use where it fails only sometimes.
        let mut fails = attempts > 0;
        for _ in 0..SURE {
            fails = fails && self.fails(shrink.smallest(), 1.0).await;
        }
        let smallest = if fails { shrink.smallest() } else { scenario };
        Smaller { scenario: smallest.clone(), attempts, fails: Some(true) }
    }

    /// Whether it fails for the cause of the finding.
    async fn fails(&self, scenario: &Map<String, Value>, patience: f64) -> bool {
        let pack = self.campaign.pack();
        self.played(scenario, patience).await.is_some_and(|report| {
            broken(&report).any(|check| {
                oracle(check) == self.finding.cause.oracle
                    && Fingerprint::of(pack, self.finding.cell, check) == self.finding.cause
            })
        })
    }

    /// Whether an oracle is broken though nothing odd is said.
    async fn is_idle(&self, candidate: &Map<String, Value>) -> bool {
        let ids = self.finding.cause.oracle.split(',');
        let Some(control) = control(candidate, &self.finding.cause.oracle)
            .filter(|_| ids.clone().any(|id| self.campaign.is_oracle(id)))
        else {
            return false;
        };
        self.played(&control, PATIENCE)
            .await
            .is_some_and(|report| broken(&report).any(|check| oracle(check) == self.finding.cause.oracle))
    }

    async fn played(&self, scenario: &Map<String, Value>, patience: f64) -> Option<ScenarioReport> {
        let mut options = (*self.stage.options).clone();
        options.stretch *= patience;
        let stage = Stage { options: Arc::new(options), ..self.stage.clone() };
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        // On a hub of its own, where that is to be had: others play at the same time.
        match self.stage.hub.is_ours() {
            true => self.campaign.play(&self.finding.id, &alone(scenario), number, &stage).await,
            false => self.campaign.play(&self.finding.id, scenario, number, &stage).await,
        }
    }
}

/// A scenario that gets a hub of its own, where hubs are ours to start: what it does to one is no other's business.
pub fn alone(scenario: &Map<String, Value>) -> Map<String, Value> {
    let mut alone = scenario.clone();
    alone.insert("exclusive".to_owned(), json!("hub"));
    alone
}

/// How long a check listens that hears only what has come already.
const LISTENING: &str = "100ms";

/// The same, but that its check listens for a while: a run that asks thousands hears a leak now and then, and one play
/// should.
pub fn listening(scenario: &Map<String, Value>, check: &str) -> Map<String, Value> {
    let mut listening = scenario.clone();
    let steps = listening.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten();
    for step in steps.filter(|step| is_check(step, check)) {
        if let Some(time) = step.get_mut("for").filter(|time| **time == "0s") {
            *time = json!(LISTENING);
        }
    }
    listening
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_check_that_failed_listens() {
        let nothing = |rule: &str, time: &str| json!({"expects nothing": "pong", "for": time, "rules": [rule]});
        let steps = |times: [&str; 3]| {
            json!([
                nothing("FUZZ-ISOLATES as should", times[0]),
                nothing("FUZZ-KEEPS", times[1]),
                nothing("FUZZ-ISOLATES", times[2])
            ])
        };
        let heard = listening(&Map::from_iter([("steps".to_owned(), steps(["0s", "0s", "2s"]))]), "FUZZ-ISOLATES");
        assert_eq!(heard["steps"], steps([LISTENING, "0s", "2s"]));
    }
}
