//! Shrinks a finding on the hub where it was found: plays the candidates that [`shrink`](crate::fuzz::shrink) proposes.
//!
//! Most of the time is spent waiting for answers that do not come, so candidates have shorter timeouts than a run; only
//! the smallest is played again with full ones. Each candidate that fails is also played without the mutated message:
//! it must pass then, or a hub that is permanently broken would be blamed on a smaller cause.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::fingerprint::{Fingerprint, broken_checks, oracle_name};
use super::{Campaign, PlayEnvironment};
use crate::fuzz::case::FuzzCell;
use crate::fuzz::case_scenario::{CaseScenario, CaseStep};
use crate::fuzz::shrink::constraints::ShrinkConstraints;
use crate::fuzz::shrink::{CandidateResult, ShrinkLimits, Shrinker, control_run, makes_check};
use crate::judge::{Evidence, PlayId, Ruling};
use crate::outcome::ScenarioReport;
use crate::scenario::parse::verbs::StepVerb;

/// Factor for the timeouts of a candidate.
const CANDIDATE_PATIENCE: f64 = 0.2;

/// How long the smallest scenario may take to fail again. A finding is worth more than the time that was set for it.
const CONFIRMING_TIME: Duration = Duration::from_secs(60);

/// The result of shrinking.
#[derive(Clone, Debug)]
pub struct ShrinkResult {
    pub scenario: CaseScenario,
    /// Candidates that were played.
    pub attempts: usize,
    /// Whether the finding was made again on its own, without other cases at the same time.
    pub ruling: Ruling,
    /// The last play of `scenario` that failed.
    pub play: Option<ScenarioReport>,
}

/// A finding to shrink.
pub struct ShrinkableFinding {
    pub scenario: CaseScenario,
    /// A case that has to be played on the same hub at the same time.
    pub beside: Option<CaseScenario>,
    /// Scenarios with one mutated message each, if the finding sends many.
    pub simpler: Vec<CaseScenario>,
    pub cell: FuzzCell,
    pub cause: Fingerprint,
    /// The id under which the finding is played.
    pub id: String,
}

/// A finding with the hub on which it is played.
pub struct ShrinkJob {
    pub campaign: Arc<Campaign>,
    pub environment: PlayEnvironment,
    pub finding: ShrinkableFinding,
    pub numbers: Arc<AtomicU64>,
}

impl ShrinkJob {
    /// Replays the finding on its own, as this evidence demands, until `until`.
    pub async fn confirm(&self, evidence: Evidence, until: Instant) -> ShrinkResult {
        let (ruling, play) = self.replay(evidence, &self.finding.scenario, until).await;
        ShrinkResult { scenario: self.with_wait(&self.finding.scenario), attempts: 0, ruling, play }
    }

    /// Returns the ruling on a scenario, and the last play in which it failed.
    async fn replay(
        &self,
        evidence: Evidence,
        scenario: &CaseScenario,
        until: Instant,
    ) -> (Ruling, Option<ScenarioReport>) {
        let (mut trial, mut last) = (evidence.trial(PlayId::shrink(0)), None);
        while let Some(replay) = trial.next_replay().filter(|_| Instant::now() < until) {
            let play = self.failing_play(scenario, replay.patience.into()).await;
            if *self.environment.interrupt.borrow() {
                break;
            }
            trial.record(play.is_some());
            last = play.or(last);
        }
        (trial.ruling(), last)
    }

    /// Returns the smallest scenario that fails like the finding, found before `until`. The finding must fail on its
    /// own.
    pub async fn shrink(&self, until: Instant) -> ShrinkResult {
        let ShrinkableFinding { scenario, simpler, cell, cause, id, .. } = &self.finding;
        let mut scenario = scenario;
        for form in simpler {
            // Short timeouts sort out most forms, full ones confirm the failure.
            if Instant::now() < until
                && self.reproduces(form, CANDIDATE_PATIENCE).await
                && self.reproduces(form, 1.0).await
            {
                scenario = form;
                break;
            }
        }
        let constraints =
            ShrinkConstraints::for_finding(&self.campaign.corpus, cell.placement, scenario, &cause.oracle);
        let mut shrink = Shrinker::new(scenario.clone(), &cause.oracle, ShrinkLimits::default());
        while Instant::now() < until
            && !*self.environment.interrupt.borrow()
            && let Some(candidate) = shrink.next_candidate()
        {
            let playable = constraints.are_met_by(&candidate) && self.campaign.program(id, &candidate).is_ok();
            shrink.record_result(match playable {
                false => CandidateResult::Unplayable,
                true if self.reproduces(&candidate, CANDIDATE_PATIENCE).await
                    && !self.fails_without_mutation(&candidate).await =>
                {
                    CandidateResult::StillFails
                }
                true => CandidateResult::Differs,
            });
        }
        let attempts = shrink.attempts();
        // A scenario that fails only sometimes is not saved.
        let mut small = (scenario, None);
        if attempts > 0 {
            let end = Instant::now() + CONFIRMING_TIME;
            let (ruling, play) = self.replay(Evidence::Shrinking, shrink.smallest(), end).await;
            small = if ruling.stands() { (shrink.smallest(), play) } else { small };
        }
        let (smallest, play) = small;
        let ruling = Ruling::Stands { times: 1, is_alone: true };
        ShrinkResult { scenario: self.with_wait(smallest), attempts, ruling, play }
    }

    async fn reproduces(&self, scenario: &CaseScenario, patience: f64) -> bool {
        self.failing_play(scenario, patience).await.is_some()
    }

    /// Plays a scenario. Returns the report if a check fails with the fingerprint of the finding, with that check only.
    async fn failing_play(&self, scenario: &CaseScenario, patience: f64) -> Option<ScenarioReport> {
        let pack = self.campaign.pack();
        let mut report = self.play(scenario, patience).await?;
        let ShrinkableFinding { cause, cell, .. } = &self.finding;
        // The mutation is part of the cell.
        let made =
            |check| Fingerprint { mutation: cause.mutation.clone(), ..Fingerprint::of_check(pack, *cell, check) };
        let failed =
            broken_checks(&report).find(|check| oracle_name(check) == cause.oracle && made(check) == *cause)?;
        report.checks = vec![failed.clone()];
        Some(report)
    }

    /// Whether the finding is made without the mutated message, too.
    pub async fn occurs_without_mutation(&self) -> bool {
        let ShrinkableFinding { scenario, beside, cause, .. } = &self.finding;
        let control = control_run(scenario, &cause.oracle).filter(|_| beside.is_none());
        match control {
            Some(control) => self.reproduces(&control, 1.0).await,
            None => false,
        }
    }

    /// Whether the same oracle fails without the mutated message.
    async fn fails_without_mutation(&self, candidate: &CaseScenario) -> bool {
        let ids = self.finding.cause.oracle.split(',');
        let Some(control) = control_run(candidate, &self.finding.cause.oracle)
            .filter(|_| ids.clone().any(|id| self.campaign.is_oracle(id)))
        else {
            return false;
        };
        self.play(&control, CANDIDATE_PATIENCE)
            .await
            .is_some_and(|report| broken_checks(&report).any(|check| oracle_name(check) == self.finding.cause.oracle))
    }

    fn with_wait(&self, scenario: &CaseScenario) -> CaseScenario {
        with_wait_for_failure(scenario, &self.finding.cause.oracle)
    }

    async fn play(&self, scenario: &CaseScenario, patience: f64) -> Option<ScenarioReport> {
        let environment = self.environment.patient(patience);
        let play = PlayId::shrink(self.numbers.fetch_add(1, Ordering::Relaxed));
        let scenario = self.with_wait(scenario);
        // Boxed, since the futures of plays are large.
        let play_one = |scenario: CaseScenario, play: PlayId| {
            let (campaign, id, environment) =
                (Arc::clone(&self.campaign), self.finding.id.clone(), environment.clone());
            Box::pin(async move { campaign.play(&id, &scenario, play, &environment).await })
        };
        if let Some(other) = &self.finding.beside {
            let beside = PlayId::shrink(self.numbers.fetch_add(1, Ordering::Relaxed));
            return tokio::join!(play_one(scenario, play), play_one(other.clone(), beside)).0;
        }
        // Other plays run at the same time, so each gets a hub of its own where hubproof starts hubs.
        let is_alone = self.environment.hub.can_start_hubs();
        play_one(if is_alone { with_exclusive_hub(&scenario) } else { scenario }, play).await
    }
}

/// Returns the scenario with `exclusive: hub`, so that it gets a hub of its own where hubproof starts hubs.
pub fn with_exclusive_hub(scenario: &CaseScenario) -> CaseScenario {
    CaseScenario { exclusive: Some("hub".to_owned()), ..scenario.clone() }
}

/// How long a play waits for the failure where the check looks only at what has already been received.
const FAILURE_WAIT: &str = "100ms";

/// Returns the scenario with a wait in the steps that make the check, or at the end if the harness makes it by itself:
/// among thousands of cases a leak is sometimes received in time, and a single play should see it, too.
fn with_wait_for_failure(scenario: &CaseScenario, check: &str) -> CaseScenario {
    let mut waiting = scenario.clone();
    if !waiting.steps.iter().any(|step| makes_check(step, check)) {
        let because = "what the hub sends late is judged, too";
        waiting.steps.push(CaseStep::new("", StepVerb::Wait, FAILURE_WAIT).with("because", because));
    }
    for step in waiting.steps.iter_mut().filter(|step| makes_check(step, check)) {
        if let Some(time) = step.option_mut("for").filter(|time| **time == "0s") {
            *time = FAILURE_WAIT.into();
        }
    }
    waiting
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_play_waits_at_its_end_for_the_failure_of_a_check_without_a_step() {
        let send = json!({"sender sends raw": "x"});
        let wait = json!({"wait": FAILURE_WAIT, "because": "what the hub sends late is judged, too"});
        let short = CaseScenario::of(&json!({ "steps": [send] }));
        let waiting = CaseScenario::of(&json!({ "steps": [send, wait] }));
        assert_eq!(with_wait_for_failure(&short, "QI-034"), waiting);
    }

    #[test]
    fn only_the_failed_check_waits_for_frames() {
        let nothing = |rule: &str, time: &str| json!({"expects nothing": "pong", "for": time, "rules": [rule]});
        let scenario = |times: [&str; 3]| {
            let steps = json!([
                nothing("FUZZ-ISOLATES as should", times[0]),
                nothing("FUZZ-KEEPS", times[1]),
                nothing("FUZZ-ISOLATES", times[2])
            ]);
            CaseScenario::of(&json!({ "steps": steps }))
        };
        let heard = with_wait_for_failure(&scenario(["0s", "0s", "2s"]), "FUZZ-ISOLATES");
        assert_eq!(heard, scenario([FAILURE_WAIT, "0s", "2s"]));
    }
}
