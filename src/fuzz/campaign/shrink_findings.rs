//! Shrinks a finding on the hub where it was found: plays the candidates that [`shrink`](crate::fuzz::shrink) proposes.
//!
//! Most of the time is spent waiting for answers that do not come, so candidates have shorter timeouts than a run; only
//! the smallest is played again with full ones. Each candidate that fails is also played without the mutated message:
//! it must pass then, or a hub that is permanently broken would be blamed on a smaller cause.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::fingerprint::{Fingerprint, broken, oracle};
use super::{Campaign, Stage};
use crate::event::ScenarioReport;
use crate::fuzz::case::Cell;
use crate::fuzz::case_scenario::CaseScenario;
use crate::fuzz::shrink::constraints::Constraints;
use crate::fuzz::shrink::{Answer, Limits, Shrink, control, is_check};

/// Factor for the timeouts of a candidate.
const PATIENCE: f64 = 0.2;
/// Plays of a finding before it counts as not failing on its own.
const AGAIN: usize = 3;
/// Consecutive plays in which the smallest scenario has to fail.
const SURE: usize = 3;
/// First number of plays, above those of all cases.
const NUMBERS: u64 = 1 << 40;

/// The result of shrinking.
#[derive(Clone, Debug)]
pub struct Smaller {
    pub scenario: CaseScenario,
    /// Candidates that were played.
    pub attempts: usize,
    /// Whether the finding fails on its own, without other cases at the same time; `None` if that was not tried.
    pub fails: Option<bool>,
}

/// Returns the counter from which all plays of a run take their numbers.
pub fn numbers() -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(NUMBERS))
}

/// A finding to shrink.
pub struct Finding {
    pub scenario: CaseScenario,
    /// Scenarios with one mutated message each, if the finding sends many.
    pub simpler: Vec<CaseScenario>,
    pub cell: Cell,
    pub cause: Fingerprint,
    /// The id under which the finding is played.
    pub id: String,
}

/// A finding with the hub on which it is played.
pub struct Bench {
    pub campaign: Arc<Campaign>,
    pub stage: Stage,
    pub finding: Finding,
    pub numbers: Arc<AtomicU64>,
}

impl Bench {
    /// Plays the finding until it fails on its own once, which may be only sometimes.
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

    /// Returns the smallest scenario that fails like the finding, found before `until`. The finding must fail on its
    /// own.
    pub async fn smaller(&self, until: Instant) -> Smaller {
        let Finding { scenario, simpler, cell, cause, id } = &self.finding;
        let mut scenario = scenario;
        for form in simpler {
            // Short timeouts sort out most forms, full ones confirm the failure.
            if Instant::now() < until && self.fails(form, PATIENCE).await && self.fails(form, 1.0).await {
                scenario = form;
                break;
            }
        }
        let constraints = Constraints::of(&self.campaign.corpus, cell.placement, scenario, &cause.oracle);
        let mut shrink = Shrink::new(scenario.clone(), &cause.oracle, Limits::default());
        while Instant::now() < until
            && !*self.stage.interrupt.borrow()
            && let Some(candidate) = shrink.next()
        {
            let playable = constraints.is_kept(&candidate) && self.campaign.program(id, &candidate).is_ok();
            shrink.record(match playable {
                false => Answer::Unplayable,
                true if self.fails(&candidate, PATIENCE).await && !self.is_idle(&candidate).await => Answer::StillFails,
                true => Answer::Differs,
            });
        }
        let attempts = shrink.attempts();
        // A scenario that fails only sometimes is not saved.
        let mut fails = attempts > 0;
        for _ in 0..SURE {
            fails = fails && self.fails(shrink.smallest(), 1.0).await;
        }
        let smallest = if fails { shrink.smallest() } else { scenario };
        Smaller { scenario: smallest.clone(), attempts, fails: Some(true) }
    }

    /// Whether a check fails with the fingerprint of the finding.
    async fn fails(&self, scenario: &CaseScenario, patience: f64) -> bool {
        let pack = self.campaign.pack();
        self.played(scenario, patience).await.is_some_and(|report| {
            broken(&report).any(|check| {
                oracle(check) == self.finding.cause.oracle
                    && Fingerprint::of(pack, self.finding.cell, check) == self.finding.cause
            })
        })
    }

    /// Whether the same oracle fails without the mutated message.
    async fn is_idle(&self, candidate: &CaseScenario) -> bool {
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

    async fn played(&self, scenario: &CaseScenario, patience: f64) -> Option<ScenarioReport> {
        let mut options = (*self.stage.options).clone();
        options.stretch *= patience;
        let stage = Stage { options: Arc::new(options), ..self.stage.clone() };
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        // Other plays run at the same time, so each gets a hub of its own where hubproof starts hubs.
        match self.stage.hub.is_ours() {
            true => self.campaign.play(&self.finding.id, &alone(scenario), number, &stage).await,
            false => self.campaign.play(&self.finding.id, scenario, number, &stage).await,
        }
    }
}

/// Returns the scenario with `exclusive: hub`, so that it gets a hub of its own where hubproof starts hubs.
pub fn alone(scenario: &CaseScenario) -> CaseScenario {
    CaseScenario { exclusive: Some("hub".to_owned()), ..scenario.clone() }
}

/// How long a check waits that otherwise looks only at what has already been received.
const LISTENING: &str = "100ms";

/// Returns the scenario with a wait in its check: among thousands of cases a leak is sometimes received in time, and a
/// single play should see it, too.
pub fn listening(scenario: &CaseScenario, check: &str) -> CaseScenario {
    let mut listening = scenario.clone();
    for step in listening.steps.iter_mut().filter(|step| is_check(step, check)) {
        if let Some(time) = step.option_mut("for").filter(|time| **time == "0s") {
            *time = LISTENING.into();
        }
    }
    listening
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_check_that_failed_is_given_time_to_receive_frames() {
        let nothing = |rule: &str, time: &str| json!({"expects nothing": "pong", "for": time, "rules": [rule]});
        let scenario = |times: [&str; 3]| {
            let steps = json!([
                nothing("FUZZ-ISOLATES as should", times[0]),
                nothing("FUZZ-KEEPS", times[1]),
                nothing("FUZZ-ISOLATES", times[2])
            ]);
            CaseScenario::of(&json!({ "steps": steps }))
        };
        let heard = listening(&scenario(["0s", "0s", "2s"]), "FUZZ-ISOLATES");
        assert_eq!(heard, scenario([LISTENING, "0s", "2s"]));
    }
}
