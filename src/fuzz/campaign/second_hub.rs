//! Plays a case on two hubs at the same time and compares their answers. Differences warn under FUZZ-DIFFERS, in
//! addition to what the oracles report of the first hub; the second is not judged.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;

use super::{Campaign, Stage};
use crate::check::Options;
use crate::event::ScenarioReport;
use crate::fuzz::case_scenario::{CaseScenario, CaseStep};
use crate::fuzz::corpus::expected_answer::Input;
use crate::fuzz::differential::compare::{self, Comparison, Reading};
use crate::fuzz::mutate::payload::Class;
use crate::fuzz::placement::Placement;
use crate::hub::prepare::Prepared;
use crate::protocol::MessageType;
use crate::scenario::parse::verbs::Verb;

/// Characters of a payload that are kept while hubs are compared; longer payloads are not compared.
pub const KEPT: usize = 1 << 16;

/// Bit in the number of a second play, which no case's number has.
const AGAIN: u64 = 1 << 32;

/// Factor for all timeouts of the second play, and the wait at its end.
const SLOWER: f64 = 10.0;
const REST: &str = "500ms";

/// Plays a case on the hub of the stage and on another one. Differences count only if a second play with longer
/// timeouts shows them again: a late answer or another order of broadcasts usually occurs once. Returns `None` if the
/// run was interrupted before.
pub async fn play(
    campaign: &Campaign,
    scenario: &CaseScenario,
    number: u64,
    stage: &Stage,
    other: &Arc<Prepared>,
) -> Option<ScenarioReport> {
    let id = campaign.id(number);
    // Events of the second hub are not reported.
    let (unread, _) = mpsc::channel(1);
    let both = async |scenario: &CaseScenario, number: u64, stage: &Stage| {
        let there = Stage { hub: Arc::clone(other), events: unread.clone(), ..stage.clone() };
        let (left, right) =
            tokio::join!(campaign.play(&id, scenario, number, stage), campaign.play(&id, scenario, number, &there));
        Some((left?, right?))
    };
    let (mut report, mut right) = both(scenario, number, stage).await?;
    let mut comparison = compare(campaign, &report, &right);
    if !comparison.differences.is_empty() {
        let stretch = stage.options.stretch * SLOWER;
        let patient =
            Stage { options: Arc::new(Options { stretch, ..Options::clone(&stage.options) }), ..stage.clone() };
        let (left_again, right_again) = both(&rested(scenario), number | AGAIN, &patient).await?;
        let words: Vec<String> = comparison.differences.iter().map(compare::Difference::in_words).collect();
        comparison = compare(campaign, &left_again, &right_again);
        comparison.differences.retain(|difference| words.contains(&difference.in_words()));
        (report.history, report.history_dropped) = (left_again.history, left_again.history_dropped);
        right = right_again;
    }
    report.checks.extend(compare::check(&comparison, campaign.pack(), &report, &right));
    Some(report)
}

/// Adds a wait to the end of a scenario, for answers that are still to come.
fn rested(scenario: &CaseScenario) -> CaseScenario {
    let mut rested = scenario.clone();
    rested.steps.push(CaseStep::new("", Verb::Wait, REST).with("because", "a hub may be slow"));
    rested
}

fn compare(campaign: &Campaign, left: &ScenarioReport, right: &ScenarioReport) -> Comparison {
    let idle = |report: &ScenarioReport| !report.unmet.is_empty() || report.mistake.is_some();
    if idle(left) || idle(right) {
        return Comparison { ended: Some("one of the two hubs did not play the case"), ..Comparison::default() };
    }
    let corpus = &campaign.corpus;
    let decided = |class: Class, message: Option<&MessageType>, payload: Option<&Value>| {
        // The role only matters for entries of `fuzz.answers` that name roles; that of the observer client is used.
        let role = corpus.observer_role().unwrap_or_default();
        let taken_for = message.map(|message| message.name.as_str());
        let input = Input { class, placement: Placement::Joined, role, taken_for, payload };
        corpus.answer(&input).is_some_and(|answer| !answer.one_of.is_empty())
    };
    compare::compare(&Reading::of(campaign.pack(), corpus.open(), &decided), left, right)
}
