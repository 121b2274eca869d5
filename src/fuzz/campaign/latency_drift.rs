//! Whether a hub answers slower at the end of a run than at its start. Any input of the run may be the reason, and a
//! good one, so this is only reported. Slowing down by repeated input of one kind is checked by the oracle
//! `FUZZ-STEADY`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{Campaign, PlayEnvironment};
use crate::event::Verdict;
use crate::fuzz::actors::NEW_CLIENT;
use crate::fuzz::case_scenario::{CaseScenario, CaseStep};
use crate::fuzz::oracle::{self, MAX_SLOWDOWN};
use crate::fuzz::step_rule::StepRule;
use crate::report::fuzz::NewClientLatency;
use crate::report::scenario_verdict;
use crate::scenario::Program;
use crate::scenario::parse::verbs::StepVerb;

/// A scenario in which a new client connects and is served, and how long it took before the first case.
pub struct LatencyProbe {
    scenario: CaseScenario,
    before: Duration,
}

/// The id of the scenario where it is played to find out whether the hub hangs.
const PROBE_ID: &str = "a new client";
/// Offset of the number of the play before all cases, so that no other play has its number.
const START_NUMBER_OFFSET: u64 = 1 << 46;
/// Offset of the numbers of the plays after all cases.
const END_NUMBER_OFFSET: u64 = 1 << 47;
/// The time in which the hub must once be as fast as before: it or the machine may still be busy after the last case.
const RECOVERY_TIME: Duration = Duration::from_secs(5);

impl LatencyProbe {
    /// Measures before the first case; `None` where the client is not served, since a later time could not be compared.
    pub async fn measure_start(campaign: &Campaign, stage: &PlayEnvironment) -> Option<Self> {
        let role = campaign.corpus.observer_role()?;
        let steps = vec![
            CaseStep::new(NEW_CLIENT, StepVerb::Joins, ()),
            oracle::check_served(&campaign.corpus, NEW_CLIENT, &StepRule::new("FUZZ-SERVES-NEW", None)),
        ];
        let actors = [(NEW_CLIENT.to_owned(), json!(role))].into_iter().collect();
        let scenario = CaseScenario { title: "A new client".to_owned(), actors, steps, ..CaseScenario::default() };
        let before = measure_play(campaign, stage, &scenario, START_NUMBER_OFFSET).await?;
        Some(Self { scenario, before })
    }

    /// Returns the scenario as a program.
    pub fn program(&self, campaign: &Campaign) -> Option<Arc<Program>> {
        campaign.program(PROBE_ID, &self.scenario).ok().map(Arc::new)
    }

    /// Measures after the last case. `None` if the hub is not slower; not serving at all is reported by the cases.
    pub async fn measure_end(&self, campaign: &Campaign, stage: &PlayEnvironment) -> Option<NewClientLatency> {
        let (times, beyond) = MAX_SLOWDOWN;
        let most = self.before * times + Duration::from_millis(beyond.into());
        let begun = Instant::now();
        let mut number = END_NUMBER_OFFSET;
        loop {
            let after = measure_play(campaign, stage, &self.scenario, number).await?;
            if after <= most {
                return None;
            }
            if begun.elapsed() >= RECOVERY_TIME {
                return Some(NewClientLatency { before: self.before, after });
            }
            number += 1;
        }
    }
}

/// Plays the scenario; returns its duration without the time for which it was queued.
async fn measure_play(
    campaign: &Campaign,
    stage: &PlayEnvironment,
    scenario: &CaseScenario,
    number: u64,
) -> Option<Duration> {
    let played = campaign.play(&campaign.id(number), scenario, number, stage).await?;
    (scenario_verdict(&played) == Verdict::Pass).then_some(played.duration)
}
