//! Plays a case on a second hub, too, or on the model of the protocol, and compares the answers. Differences warn under
//! FUZZ-DIFFERS, in addition to what the oracles report of the first hub; the second is not judged.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;

use super::{Campaign, PlayEnvironment, scenario_for_replay};
use crate::check::comparison::SecondHub;
use crate::fuzz::case_scenario::{CaseScenario, CaseStep};
use crate::fuzz::corpus::Corpus;
use crate::fuzz::corpus::expected_answer::InputProperties;
use crate::fuzz::differential::compare::{self, ComparisonContext, ComparisonFacts, HubComparison};
use crate::fuzz::mutate::payload::PayloadClass;
use crate::fuzz::placement::Placement;
use crate::interpreter::shorten_frame;
use crate::judge::{Evidence, PlayId};
use crate::outcome::{FrameKind, FrameReport, ScenarioReport, Verdict};
use crate::protocol::MessageType;
use crate::scenario::parse::verbs::StepVerb;

/// Characters of a payload that are kept while hubs are compared; longer payloads are not compared.
pub const MAX_COMPARED_CHARS: usize = (1 << 16) + (1 << 12);

/// The wait at the end of a replay.
const FINAL_WAIT: &str = "500ms";

/// Plays a case on the hub of the environment and on another one, or the model. Differences count only if a second play with
/// longer timeouts shows them again: a late answer or another order of broadcasts usually occurs once. Returns `None` if
/// the run was interrupted before.
pub async fn play_and_compare(
    campaign: &Campaign,
    scenario: &CaseScenario,
    first: PlayId,
    environment: &PlayEnvironment,
    other: &SecondHub,
) -> Option<ScenarioReport> {
    let (mut report, right) = play_both(campaign, scenario, first, environment, other).await?;
    // Not played on the other, or the hub is not there.
    let Some(mut right) = right else { return Some(shortened(report)) };
    let of_model = matches!(other, SecondHub::Model(_));
    if of_model && report.checks.iter().any(|check| check.verdict == Verdict::Fail) {
        // What a rule decides needs no model.
        return Some(shortened(report));
    }
    let mut comparison = compare_reports(&campaign.corpus, &campaign.facts, &report, &right);
    let all: Vec<String> = comparison.differences.iter().map(compare::HubDifference::describe).collect();
    if let Some(words) = all.first() {
        // Another hub may differ in one case by chance, as both are busy; the model does not.
        let known = campaign.differences.ruling(words).filter(|_| of_model);
        let mut trial = Evidence::Difference.trial(first);
        while let Some(replay) = trial.next_replay().filter(|_| known.is_none()) {
            let mut again = with_final_wait(scenario);
            if of_model {
                // Nothing else may happen on the hub, as nothing else happens on the model.
                again = scenario_for_replay(&again, &replay);
            }
            let patient = environment.for_replay(&replay);
            let (left_again, right_again) = play_both(campaign, &again, replay.id, &patient, other).await?;
            let Some(right_again) = right_again else { return Some(shortened(report)) };
            comparison = compare_reports(&campaign.corpus, &campaign.facts, &left_again, &right_again);
            comparison.differences.retain(|difference| all.contains(&difference.describe()));
            trial.record(!comparison.differences.is_empty());
            (report.history, report.history_dropped) = (left_again.history, left_again.history_dropped);
            right = right_again;
        }
        if known == Some(false) {
            comparison.differences.clear();
        }
        campaign.differences.record(words, trial.ruling());
    }
    report.checks.extend(compare::comparison_check(&comparison, campaign.pack(), &report, &right));
    Some(shortened(report))
}

/// Plays a case on both sides and returns both reports; `None` if the run was interrupted. Omits the second report if the
/// model cannot play the case, or if the hub was not reached.
async fn play_both(
    campaign: &Campaign,
    scenario: &CaseScenario,
    play: PlayId,
    environment: &PlayEnvironment,
    other: &SecondHub,
) -> Option<(ScenarioReport, Option<ScenarioReport>)> {
    let id = campaign.id(play.number());
    match other {
        SecondHub::Hub(other) => {
            // Events of the second hub are not reported.
            let (unread, _) = mpsc::channel(1);
            let there = PlayEnvironment { hub: Arc::clone(other), events: unread, ..environment.clone() };
            let (left, right) = tokio::join!(
                campaign.play(&id, scenario, play, environment),
                campaign.play(&id, scenario, play, &there)
            );
            Some((left?, Some(right?)))
        }
        SecondHub::Model(model) => campaign.play_with_model(&id, scenario, play, environment, model).await,
    }
}

/// Whether the hub served all clients of a play as far as it has room for them, so that its answers can be compared.
pub fn was_served(report: &ScenarioReport) -> bool {
    let is_unreachable = report.cause.as_ref().is_some_and(|cause| cause.unreachable);
    report.unserved.is_none() && !is_unreachable && !report.history.iter().any(FrameReport::is_lack_of_capacity)
}

/// Adds a wait to the end of a scenario, for answers that are still to come.
fn with_final_wait(scenario: &CaseScenario) -> CaseScenario {
    let mut rested = scenario.clone();
    rested.steps.push(CaseStep::new("", StepVerb::Wait, FINAL_WAIT).with("because", "a hub may be slow"));
    rested
}

/// Shortens the payloads of a report, which were kept whole for the comparison.
fn shortened(mut report: ScenarioReport) -> ScenarioReport {
    report.history.iter_mut().for_each(shorten_frame);
    report
}

pub(super) fn compare_reports(
    corpus: &Corpus,
    facts: &ComparisonFacts,
    left: &ScenarioReport,
    right: &ScenarioReport,
) -> HubComparison {
    let idle = |report: &ScenarioReport| !report.unmet.is_empty() || report.mistake.is_some();
    if idle(left) || idle(right) {
        return HubComparison { ended: Some("one of the two hubs did not play the case"), ..HubComparison::default() };
    }
    // A refusal, of a proxy perhaps, says nothing about answers.
    let refuses =
        |report: &ScenarioReport| report.has_frame(FrameKind::Refused) || report.has_frame(FrameKind::NoUpgrade);
    if refuses(left) != refuses(right) {
        return HubComparison { ended: Some("only one of the hubs let the client in"), ..HubComparison::default() };
    }
    let decided = |class: PayloadClass, message: Option<&MessageType>, payload: Option<&Value>| {
        demands_answer(corpus, class, message, payload)
    };
    let context = ComparisonContext { pack: &corpus.pack, facts, decided: &decided };
    let mut comparison = compare::compare_plays(&context, left, right);
    comparison.differences.retain(|difference| !difference.is_seen_by_schema(left));
    comparison
}

/// Whether the document demands an answer to input of this class, message and payload.
pub fn demands_answer(
    corpus: &Corpus,
    class: PayloadClass,
    message: Option<&MessageType>,
    payload: Option<&Value>,
) -> bool {
    // The role only matters for entries of `fuzz.answers` that name roles; that of the observer client is used.
    let role = corpus.observer_role().unwrap_or_default();
    let taken_for = message.map(|message| message.name.as_str());
    let input = InputProperties { class, placement: Placement::Joined, role, taken_for, payload };
    corpus.expected_answer(&input).is_some_and(|answer| !answer.one_of.is_empty())
}
