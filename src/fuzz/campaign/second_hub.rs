//! Plays a case on a second hub, too, or on the model of the protocol, and compares the answers. Differences warn under
//! FUZZ-DIFFERS, in addition to what the oracles report of the first hub; the second is not judged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::mpsc;

use super::shrink_findings::with_exclusive_hub;
use super::{Campaign, PlayEnvironment};
use crate::check::comparison::Counterpart;
use crate::fuzz::case_scenario::{CaseScenario, CaseStep};
use crate::fuzz::corpus::Corpus;
use crate::fuzz::corpus::expected_answer::InputProperties;
use crate::fuzz::differential::compare::{self, ComparisonContext, HubComparison};
use crate::fuzz::mutate::payload::PayloadClass;
use crate::fuzz::placement::Placement;
use crate::interpreter::shorten_frame;
use crate::outcome::{FrameKind, FrameReport, ScenarioReport, Verdict};
use crate::protocol::MessageType;
use crate::scenario::parse::verbs::StepVerb;

/// Characters of a payload that are kept while hubs are compared; longer payloads are not compared.
pub const MAX_COMPARED_CHARS: usize = (1 << 16) + (1 << 12);

/// Bit in the number of a second play, which no case's number has.
const SECOND_PLAY_BIT: u64 = 1 << 32;

/// Factor for all timeouts of the second play, and the wait at its end.
const SECOND_PLAY_PATIENCE: f64 = 10.0;
const SECOND_PLAY_WAIT: &str = "500ms";

/// How often one difference from the model is played a second time, which takes the hub for itself. After that, what was
/// seen before decides.
const MAX_SECOND_PLAYS: u32 = 3;

/// How often each difference was seen again in a second play, and how often not, by its description.
#[derive(Default)]
pub struct DifferenceDoubts(Mutex<HashMap<String, (u32, u32)>>);

impl DifferenceDoubts {
    fn record(&self, words: &str, seen_again: bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = known.entry(words.to_owned()).or_default();
        if seen_again {
            entry.0 += 1;
        } else {
            entry.1 += 1;
        }
    }

    /// Returns whether a difference is known to be lasting; `None` if a second play has to show it.
    fn verdict(&self, words: &str) -> Option<bool> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (seen, missed) = known.get(words).copied().unwrap_or_default();
        (seen + missed >= MAX_SECOND_PLAYS).then_some(seen > missed)
    }
}

/// Plays a case on the hub of the stage and on another one, or the model. Differences count only if a second play with
/// longer timeouts shows them again: a late answer or another order of broadcasts usually occurs once. Returns `None` if
/// the run was interrupted before.
pub async fn play_and_compare(
    campaign: &Campaign,
    scenario: &CaseScenario,
    number: u64,
    stage: &PlayEnvironment,
    other: &Counterpart,
) -> Option<ScenarioReport> {
    let (mut report, right) = play_both(campaign, scenario, number, stage, other).await?;
    // Not played on the other, or the hub is not there.
    let Some(mut right) = right else { return Some(shortened(report)) };
    let of_model = matches!(other, Counterpart::Model(_));
    if of_model && report.checks.iter().any(|check| check.verdict == Verdict::Fail) {
        // What a rule decides needs no model.
        return Some(shortened(report));
    }
    let mut comparison = compare_reports(campaign, &report, &right);
    if let Some(words) = comparison.differences.first().map(compare::HubDifference::describe) {
        match campaign.doubts.verdict(&words).filter(|_| of_model) {
            Some(true) => {}
            Some(false) => comparison.differences.clear(),
            None => {
                let patient = stage.patient(SECOND_PLAY_PATIENCE);
                let mut again = with_final_wait(scenario);
                if of_model {
                    // Nothing else may happen on the hub, as nothing else happens on the model.
                    again = with_exclusive_hub(&again);
                }
                let (left_again, right_again) =
                    play_both(campaign, &again, number | SECOND_PLAY_BIT, &patient, other).await?;
                let Some(right_again) = right_again else { return Some(shortened(report)) };
                let all: Vec<String> = comparison.differences.iter().map(compare::HubDifference::describe).collect();
                comparison = compare_reports(campaign, &left_again, &right_again);
                comparison.differences.retain(|difference| all.contains(&difference.describe()));
                if of_model {
                    campaign.doubts.record(&words, !comparison.differences.is_empty());
                }
                (report.history, report.history_dropped) = (left_again.history, left_again.history_dropped);
                right = right_again;
            }
        }
    }
    report.checks.extend(compare::comparison_check(&comparison, campaign.pack(), &report, &right));
    Some(shortened(report))
}

/// Plays a case on both sides and returns both reports; `None` if the run was interrupted. Omits the second report if the
/// model cannot play the case, or if the hub was not reached.
async fn play_both(
    campaign: &Campaign,
    scenario: &CaseScenario,
    number: u64,
    stage: &PlayEnvironment,
    other: &Counterpart,
) -> Option<(ScenarioReport, Option<ScenarioReport>)> {
    let id = campaign.id(number);
    match other {
        Counterpart::Hub(other) => {
            // Events of the second hub are not reported.
            let (unread, _) = mpsc::channel(1);
            let there = PlayEnvironment { hub: Arc::clone(other), events: unread, ..stage.clone() };
            let (left, right) =
                tokio::join!(campaign.play(&id, scenario, number, stage), campaign.play(&id, scenario, number, &there));
            Some((left?, Some(right?)))
        }
        Counterpart::Model(model) => campaign.play_with_model(&id, scenario, number, stage, model).await,
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
    rested.steps.push(CaseStep::new("", StepVerb::Wait, SECOND_PLAY_WAIT).with("because", "a hub may be slow"));
    rested
}

/// Shortens the payloads of a report, which were kept whole for the comparison.
fn shortened(mut report: ScenarioReport) -> ScenarioReport {
    report.history.iter_mut().for_each(shorten_frame);
    report
}

pub(super) fn compare_reports(campaign: &Campaign, left: &ScenarioReport, right: &ScenarioReport) -> HubComparison {
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
        demands_answer(&campaign.corpus, class, message, payload)
    };
    let context = ComparisonContext { pack: campaign.pack(), facts: &campaign.facts, decided: &decided };
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
