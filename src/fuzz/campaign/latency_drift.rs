//! Whether a hub answers slower at the end of a run than at its start. Any input of the run may be the reason, and a
//! good one, so this is only reported. Slowing down by repeated input of one kind is checked by the oracle
//! `FUZZ-STEADY`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{Campaign, PlayEnvironment};
use crate::fuzz::actors::NEW_CLIENT;
use crate::fuzz::case_scenario::{CaseScenario, CaseStep};
use crate::fuzz::oracle::{self, MAX_SLOWDOWN};
use crate::fuzz::step_rule::StepRule;
use crate::judge::PlayId;
use crate::judge::service::ServiceProbe;
use crate::outcome::{FrameKind, FrameReport, HistoryDirection, ScenarioReport, Verdict};
use crate::report::fuzz::NewClientLatency;
use crate::report::scenario_verdict;
use crate::scenario::parse::verbs::StepVerb;

/// A scenario in which a new client connects and is served, and its report before the first case.
pub struct LatencyProbe {
    scenario: CaseScenario,
    before: ScenarioReport,
}

/// The id of the scenario where it is played to find out whether the hub hangs.
const PROBE_ID: &str = "a new client";
/// How many ids of plays have one step in common.
const PROBES_OF_A_KIND: u32 = 500;
/// The time in which the hub must once be as fast as before: it or the machine may still be busy after the last case.
const RECOVERY_TIME: Duration = Duration::from_secs(5);

impl LatencyProbe {
    /// Measures before the first case; `None` where the client is not served, since a later time could not be compared.
    /// If the hub does not answer the fence with a frame of its own, the cases go without it.
    pub async fn measure_start(campaign: &Campaign, environment: &PlayEnvironment) -> Option<Self> {
        let corpus = &campaign.corpus;
        corpus.set_fence_answered(true);
        let with_fence = Self::measure(campaign, environment, 0).await;
        if corpus.fence().is_none() || with_fence.as_ref().is_some_and(|probe| is_answered(&probe.before)) {
            return with_fence;
        }
        corpus.set_fence_answered(false);
        let without = Self::measure(campaign, environment, 1).await;
        // A client that is not even served without the fence does not show that the fence is the reason.
        corpus.set_fence_answered(without.is_none());
        without
    }

    async fn measure(campaign: &Campaign, environment: &PlayEnvironment, index: u32) -> Option<Self> {
        let role = campaign.corpus.observer_role()?;
        let steps = vec![
            CaseStep::new(NEW_CLIENT, StepVerb::Joins, ()),
            oracle::check_served(&campaign.corpus, NEW_CLIENT, &StepRule::new("FUZZ-SERVES-NEW", None)),
        ];
        let actors = [(NEW_CLIENT.to_owned(), json!(role))].into_iter().collect();
        let scenario = CaseScenario { title: "A new client".to_owned(), actors, steps, ..CaseScenario::default() };
        let before = play_probe(campaign, environment, &scenario, PlayId::measurement(index)).await?;
        Some(Self { scenario, before })
    }

    /// Returns how long a new client took before the first case.
    pub fn duration_before(&self) -> Duration {
        self.before.duration
    }

    /// Whether the hub serves a new client now. `index` counts such plays.
    pub async fn is_served(&self, campaign: &Campaign, environment: &PlayEnvironment, index: u32) -> bool {
        let id = PlayId::measurement(0).probe(index % PROBES_OF_A_KIND).probe(index / PROBES_OF_A_KIND);
        play_probe(campaign, environment, &self.scenario, id).await.is_some()
    }

    /// Returns a detector of hangs that uses the scenario as its probe; `None` if the hub sent nothing in it.
    pub fn service_probe(&self, campaign: &Campaign) -> Option<ServiceProbe> {
        let program = campaign.program(PROBE_ID, &self.scenario).ok()?;
        ServiceProbe::for_program(&Arc::new(program), &self.before)
    }

    /// Measures after the last case. `None` if the hub is not slower; not serving at all is reported by the cases.
    pub async fn measure_end(&self, campaign: &Campaign, environment: &PlayEnvironment) -> Option<NewClientLatency> {
        let (times, beyond) = MAX_SLOWDOWN;
        let before = self.before.duration;
        let most = before * times + Duration::from_millis(beyond.into());
        let begun = Instant::now();
        let mut index = 2;
        loop {
            let after = play_probe(campaign, environment, &self.scenario, PlayId::measurement(index)).await?.duration;
            if after <= most {
                return None;
            }
            if begun.elapsed() >= RECOVERY_TIME {
                return Some(NewClientLatency { before, after });
            }
            index += 1;
        }
    }
}

/// Plays the scenario; returns its report if it passed.
async fn play_probe(
    campaign: &Campaign,
    environment: &PlayEnvironment,
    scenario: &CaseScenario,
    play: PlayId,
) -> Option<ScenarioReport> {
    let id = format!("{}/new-client", campaign.pack().name);
    let played = campaign.play(&id, scenario, play, environment).await?;
    (scenario_verdict(&played) == Verdict::Pass).then_some(played)
}

/// Whether the hub itself answered the last message that was sent: a declared deviation may only assume an answer.
fn is_answered(report: &ScenarioReport) -> bool {
    let is_sent = |frame: &FrameReport| {
        frame.direction == HistoryDirection::Sent
            && matches!(frame.kind, FrameKind::Text | FrameKind::Binary | FrameKind::Frames | FrameKind::Bytes)
    };
    let after = report.history.iter().rposition(is_sent).map_or(&[][..], |place| &report.history[place..]);
    let received = after.iter().any(|frame| frame.direction == HistoryDirection::Received);
    received && !after.iter().any(|frame| frame.kind == FrameKind::Assumed)
}
