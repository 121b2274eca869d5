//! Plays a case on two hubs at once, and compares what they said. What differs warns under FUZZ-DIFFERS, beside whatever
//! the oracles say of the first hub; the second is not judged.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::{Campaign, Stage};
use crate::check::Options;
use crate::event::ScenarioReport;
use crate::fuzz::corpus::expected_answer::Input;
use crate::fuzz::differential::compare::{self, Comparison, Reading};
use crate::fuzz::mutate::payload::Class;
use crate::fuzz::placement::Placement;
use crate::hub::prepare::Prepared;
use crate::protocol::MessageType;

/// Characters of a payload that are kept while hubs are compared: longer ones cannot be.
pub const KEPT: usize = 1 << 16;

/// Cases are played again under numbers that no case has.
const AGAIN: u64 = 1 << 32;

/// The second time, hubs have so much more time for every answer, and for the last ones this.
const SLOWER: f64 = 10.0;
const REST: &str = "500ms";

/// Plays a case on the hub of the stage and on another one. What differs is believed where it differs twice, the second
/// time with patience: a hub that was late, or told others in another order, is like this once. `None` where the run was
/// interrupted before.
pub async fn play(
    campaign: &Campaign,
    scenario: &Map<String, Value>,
    number: u64,
    stage: &Stage,
    other: &Arc<Prepared>,
) -> Option<ScenarioReport> {
    let id = campaign.id(number);
    // Nobody listens to what goes on there.
    let (unheard, _) = mpsc::channel(1);
    let both = async |scenario: &Map<String, Value>, number: u64, stage: &Stage| {
        let there = Stage { hub: Arc::clone(other), events: unheard.clone(), ..stage.clone() };
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

/// The scenario with time at its end for whatever a hub still has to say.
fn rested(scenario: &Map<String, Value>) -> Map<String, Value> {
    let mut rested = scenario.clone();
    if let Some(Value::Array(steps)) = rested.get_mut("steps") {
        steps.push(json!({ "wait": REST, "because": "a hub may be slow" }));
    }
    rested
}

fn compare(campaign: &Campaign, left: &ScenarioReport, right: &ScenarioReport) -> Comparison {
    let idle = |report: &ScenarioReport| !report.unmet.is_empty() || report.mistake.is_some();
    if idle(left) || idle(right) {
        return Comparison { ended: Some("one of both hubs did not play it"), ..Comparison::default() };
    }
    let material = &campaign.material;
    let decided = |class: Class, message: Option<&MessageType>, payload: Option<&Value>| {
        // Of whoever has a role of another kind, the two say for themselves whether they answer alike.
        let role = material.bystander().unwrap_or_default();
        let taken_for = message.map(|message| message.name.as_str());
        let input = Input { class, placement: Placement::Joined, role, taken_for, payload };
        material.answer(&input).is_some_and(|answer| !answer.one_of.is_empty())
    };
    compare::compare(&Reading::of(campaign.pack(), material.open(), &decided), left, right)
}
