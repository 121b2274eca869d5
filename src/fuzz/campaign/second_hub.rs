//! Plays a case on two hubs at the same time and compares their answers. Differences warn under FUZZ-DIFFERS, in
//! addition to what the oracles report of the first hub; the second is not judged.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;

use super::{Campaign, PlayEnvironment};
use crate::check::PlayOptions;
use crate::event::ScenarioReport;
use crate::fuzz::case_scenario::{CaseScenario, CaseStep};
use crate::fuzz::corpus::expected_answer::InputProperties;
use crate::fuzz::differential::compare::{self, ComparisonContext, HubComparison};
use crate::fuzz::mutate::payload::PayloadClass;
use crate::fuzz::placement::Placement;
use crate::hub::prepare::PreparedHub;
use crate::protocol::MessageType;
use crate::scenario::parse::verbs::StepVerb;

/// Characters of a payload that are kept while hubs are compared; longer payloads are not compared.
pub const MAX_COMPARED_CHARS: usize = 1 << 16;

/// Bit in the number of a second play, which no case's number has.
const SECOND_PLAY_BIT: u64 = 1 << 32;

/// Factor for all timeouts of the second play, and the wait at its end.
const SECOND_PLAY_PATIENCE: f64 = 10.0;
const SECOND_PLAY_WAIT: &str = "500ms";

/// Plays a case on the hub of the stage and on another one. Differences count only if a second play with longer
/// timeouts shows them again: a late answer or another order of broadcasts usually occurs once. Returns `None` if the
/// run was interrupted before.
pub async fn play_on_both(
    campaign: &Campaign,
    scenario: &CaseScenario,
    number: u64,
    stage: &PlayEnvironment,
    other: &Arc<PreparedHub>,
) -> Option<ScenarioReport> {
    let id = campaign.id(number);
    // Events of the second hub are not reported.
    let (unread, _) = mpsc::channel(1);
    let both = async |scenario: &CaseScenario, number: u64, stage: &PlayEnvironment| {
        let there = PlayEnvironment { hub: Arc::clone(other), events: unread.clone(), ..stage.clone() };
        let (left, right) =
            tokio::join!(campaign.play(&id, scenario, number, stage), campaign.play(&id, scenario, number, &there));
        Some((left?, right?))
    };
    let (mut report, mut right) = both(scenario, number, stage).await?;
    let mut comparison = compare_reports(campaign, &report, &right);
    if !comparison.differences.is_empty() {
        let stretch = stage.options.stretch * SECOND_PLAY_PATIENCE;
        let patient = PlayEnvironment {
            options: Arc::new(PlayOptions { stretch, ..PlayOptions::clone(&stage.options) }),
            ..stage.clone()
        };
        let (left_again, right_again) = both(&with_final_wait(scenario), number | SECOND_PLAY_BIT, &patient).await?;
        let words: Vec<String> = comparison.differences.iter().map(compare::HubDifference::describe).collect();
        comparison = compare_reports(campaign, &left_again, &right_again);
        comparison.differences.retain(|difference| words.contains(&difference.describe()));
        (report.history, report.history_dropped) = (left_again.history, left_again.history_dropped);
        right = right_again;
    }
    report.checks.extend(compare::comparison_check(&comparison, campaign.pack(), &report, &right));
    Some(report)
}

/// Adds a wait to the end of a scenario, for answers that are still to come.
fn with_final_wait(scenario: &CaseScenario) -> CaseScenario {
    let mut rested = scenario.clone();
    rested.steps.push(CaseStep::new("", StepVerb::Wait, SECOND_PLAY_WAIT).with("because", "a hub may be slow"));
    rested
}

fn compare_reports(campaign: &Campaign, left: &ScenarioReport, right: &ScenarioReport) -> HubComparison {
    let idle = |report: &ScenarioReport| !report.unmet.is_empty() || report.mistake.is_some();
    if idle(left) || idle(right) {
        return HubComparison { ended: Some("one of the two hubs did not play the case"), ..HubComparison::default() };
    }
    let corpus = &campaign.corpus;
    let decided = |class: PayloadClass, message: Option<&MessageType>, payload: Option<&Value>| {
        // The role only matters for entries of `fuzz.answers` that name roles; that of the observer client is used.
        let role = corpus.observer_role().unwrap_or_default();
        let taken_for = message.map(|message| message.name.as_str());
        let input = InputProperties { class, placement: Placement::Joined, role, taken_for, payload };
        corpus.expected_answer(&input).is_some_and(|answer| !answer.one_of.is_empty())
    };
    compare::compare_plays(&ComparisonContext::for_pack(campaign.pack(), corpus.open_names(), &decided), left, right)
}
