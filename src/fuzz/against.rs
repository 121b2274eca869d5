//! Plays a case on two hubs at once, and compares what they said. What differs warns under FUZZ-DIFFERS, beside whatever
//! the oracles say of the first hub; the second is not judged.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::campaign::{Campaign, Stage};
use super::differ::{self, Comparison, Reading};
use super::payload::Class;
use crate::check::Prepared;
use crate::event::ScenarioReport;
use crate::pack::MessageType;

/// Characters of a payload that are kept while hubs are compared: longer ones cannot be.
pub const KEPT: usize = 1 << 16;

/// Cases are begun on the second hub under numbers that the first does not have.
const AGAIN: u64 = 1 << 32;

/// Plays a case on the hub of the stage and on another one. What differs is believed where it differs twice: a hub that
/// was late, or told others in another order, is like this once. `None` where the run was interrupted before.
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
    let there = Stage { hub: Arc::clone(other), events: unheard, ..stage.clone() };
    let both = async |number: u64| {
        let (left, right) =
            tokio::join!(campaign.play(&id, scenario, number, stage), campaign.play(&id, scenario, number, &there));
        Some((left?, right?))
    };
    let (mut report, right) = both(number).await?;
    let mut comparison = compare(campaign, &report, &right);
    if !comparison.differences.is_empty() {
        let (left_again, right_again) = both(number | AGAIN).await?;
        let again = compare(campaign, &left_again, &right_again).differences;
        let words: Vec<String> = again.iter().map(differ::Difference::in_words).collect();
        comparison.differences.retain(|difference| words.contains(&difference.in_words()));
    }
    report.checks.extend(differ::check(&comparison, campaign.pack(), &report, &right));
    Some(report)
}

fn compare(campaign: &Campaign, left: &ScenarioReport, right: &ScenarioReport) -> Comparison {
    let idle = |report: &ScenarioReport| !report.unmet.is_empty() || report.mistake.is_some();
    if idle(left) || idle(right) {
        return Comparison { ended: Some("one of both hubs did not play it"), ..Comparison::default() };
    }
    let material = &campaign.material;
    let decided = |class: Class, _: Option<&MessageType>, _: Option<&Value>| material.rejects(class).is_some();
    differ::compare(&Reading::of(campaign.pack(), material.open(), &decided), left, right)
}
