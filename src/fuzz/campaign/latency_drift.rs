//! Whether a hub answers slower at the end of a run than at its start. Any input of the run may be the reason, and a
//! good one, so this is only reported. Slowing down by repeated input of one kind is checked by the oracle
//! `FUZZ-STEADY`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{Campaign, Stage};
use crate::event::Verdict;
use crate::fuzz::actors::NEW_CLIENT;
use crate::fuzz::case_scenario::{CaseScenario, CaseStep};
use crate::fuzz::oracle::{self, SLOWER};
use crate::fuzz::step_rule::StepRule;
use crate::report::fuzz::Slower;
use crate::report::scenario_verdict;
use crate::scenario::Program;
use crate::scenario::parse::verbs::Verb;

/// A scenario in which a new client connects and is served, and how long it took before the first case.
pub struct LatencyDrift {
    scenario: CaseScenario,
    before: Duration,
}

/// The id of the scenario where it is played to find out whether the hub hangs.
const PROBE: &str = "a new client";
/// Offset of the number of the play before all cases, so that no other play has its number.
const FIRST: u64 = 1 << 46;
/// Offset of the numbers of the plays after all cases.
const LAST: u64 = 1 << 47;
/// The time in which the hub must once be as fast as before: it or the machine may still be busy after the last case.
const PATIENCE: Duration = Duration::from_secs(5);

impl LatencyDrift {
    /// Measures before the first case; `None` where the client is not served, so that there is nothing to compare with.
    pub async fn at_the_start(campaign: &Campaign, stage: &Stage) -> Option<Self> {
        let role = campaign.corpus.observer_role()?;
        let steps = vec![
            CaseStep::new(NEW_CLIENT, Verb::Joins, ()),
            oracle::serves(&campaign.corpus, NEW_CLIENT, &StepRule::new("FUZZ-SERVES-NEW", None)),
        ];
        let actors = [(NEW_CLIENT.to_owned(), json!(role))].into_iter().collect();
        let scenario = CaseScenario { title: "A new client".to_owned(), actors, steps, ..CaseScenario::default() };
        let before = took(campaign, stage, &scenario, FIRST).await?;
        Some(Self { scenario, before })
    }

    /// Returns the scenario as a program.
    pub fn program(&self, campaign: &Campaign) -> Option<Arc<Program>> {
        campaign.program(PROBE, &self.scenario).ok().map(Arc::new)
    }

    /// Measures after the last case. `None` if the hub is not slower; not serving at all is reported by the cases.
    pub async fn at_the_end(&self, campaign: &Campaign, stage: &Stage) -> Option<Slower> {
        let (times, beyond) = SLOWER;
        let most = self.before * times + Duration::from_millis(beyond.into());
        let begun = Instant::now();
        let mut number = LAST;
        loop {
            let after = took(campaign, stage, &self.scenario, number).await?;
            if after <= most {
                return None;
            }
            if begun.elapsed() >= PATIENCE {
                return Some(Slower { before: self.before, after });
            }
            number += 1;
        }
    }
}

/// Plays the scenario; returns its duration without the time for which it was queued.
async fn took(campaign: &Campaign, stage: &Stage, scenario: &CaseScenario, number: u64) -> Option<Duration> {
    let played = campaign.play(&campaign.id(number), scenario, number, stage).await?;
    (scenario_verdict(&played) == Verdict::Pass).then_some(played.duration)
}
