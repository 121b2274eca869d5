//! Makes a finding small on the hub that it was found on: plays what [`shrink`](super::shrink) proposes.
//!
//! Most of the time goes into waiting for what does not come, so candidates have less patience than a run, and only the
//! smallest is played again with all of it. What holds without the odd message fails because of it: that is asked of
//! every candidate that fails, so that a hub that has been wedged for good is not blamed for something smaller.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::campaign::{Campaign, Stage};
use super::case::Cell;
use super::cause::{Cause, broken, oracle};
use super::shrink::meaning::Meaning;
use super::shrink::{Answer, Limits, Shrink, control, is_check};
use crate::event::ScenarioReport;

/// The share of the patience that a candidate has.
const PATIENCE: f64 = 0.2;
/// So often a finding is played before it is said not to fail by itself.
const AGAIN: usize = 5;
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
    /// Nobody has seen that it does not fail when it is played by itself.
    pub again: bool,
}

/// Plays scenarios that were made of one case.
struct Bench<'a> {
    campaign: &'a Campaign,
    stage: &'a Stage,
    id: &'a str,
    cell: Cell,
    cause: &'a Cause,
    numbers: &'a AtomicU64,
}

/// Numbers for all plays of a run.
pub fn numbers() -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(NUMBERS))
}

/// A finding that is to become small.
pub struct Work {
    pub finding: Map<String, Value>,
    /// Other scenarios that may do.
    pub simpler: Vec<Map<String, Value>>,
    pub cell: Cell,
    pub cause: Cause,
    /// How its plays are called.
    pub id: String,
}

/// The smallest scenario that fails as the finding does, found until the time is over.
pub async fn smaller(campaign: &Campaign, stage: &Stage, work: &Work, numbers: &AtomicU64, until: Instant) -> Smaller {
    let Work { finding, simpler, cell, cause, id } = work;
    if Instant::now() >= until {
        return Smaller { scenario: finding.clone(), attempts: 0, again: true };
    }
    let bench = Bench { campaign, stage, id, cell: *cell, cause, numbers };
    let simpler: Vec<_> = simpler.iter().map(|form| listening(form, &cause.oracle)).collect();
    let mut finding = &listening(finding, &cause.oracle);
    for form in &simpler {
        // Little patience sorts out most, and accuses of nothing.
        if Instant::now() < until && bench.fails(form, PATIENCE).await && bench.fails(form, 1.0).await {
            finding = form;
            break;
        }
    }
    // It may fail only sometimes.
    let mut again = false;
    for _ in 0..AGAIN {
        again = again || bench.fails(finding, 1.0).await;
    }
    if !again {
        return Smaller { scenario: finding.clone(), attempts: 0, again: false };
    }
    let meaning = Meaning::of(&campaign.material, cell.placement, finding, &cause.oracle);
    let mut shrink = Shrink::new(finding.clone(), &cause.oracle, Limits::default());
    while Instant::now() < until
        && !*stage.interrupt.borrow()
        && let Some(candidate) = shrink.next()
    {
        let playable = meaning.is_kept(&candidate) && campaign.program(id, &candidate).is_ok();
        shrink.told(match playable {
            false => Answer::Unplayable,
            true if bench.fails(&candidate, PATIENCE).await && !bench.is_idle(&candidate).await => Answer::StillFails,
            true => Answer::Differs,
        });
    }
    let attempts = shrink.attempts();
    // Small is of no use where it fails only sometimes.
    let mut fails = true;
    for _ in 0..SURE {
        fails = fails && bench.fails(shrink.smallest(), 1.0).await;
    }
    let scenario = if fails { shrink.smallest().clone() } else { finding.clone() };
    Smaller { scenario, attempts, again: true }
}

/// The same, but that its check listens for a while where it hears only what has come already: a run that asks thousands hears
/// a leak now and then, and one play should.
fn listening(scenario: &Map<String, Value>, check: &str) -> Map<String, Value> {
    let mut listening = scenario.clone();
    let steps = listening.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten();
    for step in steps.filter(|step| is_check(step, check)).filter_map(Value::as_object_mut) {
        if step.get("for").is_some_and(|time| time == "0s") {
            step.shift_remove("for");
        }
    }
    listening
}

impl Bench<'_> {
    /// Whether it fails for the cause of the finding.
    async fn fails(&self, scenario: &Map<String, Value>, patience: f64) -> bool {
        let pack = self.campaign.pack();
        self.played(scenario, patience).await.is_some_and(|report| {
            broken(&report)
                .any(|check| oracle(check) == self.cause.oracle && Cause::of(pack, self.cell, check) == *self.cause)
        })
    }

    /// Whether an oracle is broken though nothing odd is said.
    async fn is_idle(&self, candidate: &Map<String, Value>) -> bool {
        let ids = self.cause.oracle.split(',');
        let Some(control) =
            control(candidate, &self.cause.oracle).filter(|_| ids.clone().any(|id| self.campaign.is_oracle(id)))
        else {
            return false;
        };
        self.played(&control, PATIENCE)
            .await
            .is_some_and(|report| broken(&report).any(|check| oracle(check) == self.cause.oracle))
    }

    async fn played(&self, scenario: &Map<String, Value>, patience: f64) -> Option<ScenarioReport> {
        let mut options = (*self.stage.options).clone();
        options.stretch *= patience;
        let stage = Stage { options: Arc::new(options), ..self.stage.clone() };
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        // On a hub of its own, where that is to be had: others play at the same time.
        match self.stage.hub.is_ours() {
            true => self.campaign.play(self.id, &alone(scenario), number, &stage).await,
            false => self.campaign.play(self.id, scenario, number, &stage).await,
        }
    }
}

/// A scenario that gets a hub of its own, where hubs are ours to start: what it does to one is no other's business.
pub fn alone(scenario: &Map<String, Value>) -> Map<String, Value> {
    let mut alone = scenario.clone();
    alone.insert("exclusive".to_owned(), json!("hub"));
    alone
}
