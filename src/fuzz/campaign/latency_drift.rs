//! Whether a hub is as quick at the end of a run as it was at its start. What makes it slow for good may be anything that was
//! said in between, and may be its right: it has heard a lot. So this is told, and accuses nobody; that one thing said again
//! and again makes it slower is an oracle's ([`oracle`]'s `FUZZ-STEADY`).

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{Campaign, Stage};
use crate::event::Verdict;
use crate::fuzz::actors::NEWCOMER;
use crate::fuzz::oracle::{self, SLOWER};
use crate::report::fuzzed::Slower;
use crate::report::scenario_verdict;

/// Somebody new, before anything odd was said.
pub struct LatencyDrift {
    scenario: Map<String, Value>,
    before: Duration,
}

/// Added to a number, it is that of a play in front of all cases.
const FIRST: u64 = 1 << 46;
/// The same for those behind them.
const LAST: u64 = 1 << 47;
/// A hub that is busy with its last cases, or a machine with something else, has so long to be quick once.
const PATIENCE: Duration = Duration::from_secs(5);

impl LatencyDrift {
    /// `None` where nobody is let in and answered, so that there is nothing to compare with.
    pub async fn at_the_start(campaign: &Campaign, stage: &Stage) -> Option<Self> {
        let role = campaign.material.bystander()?;
        let steps = [
            json!({ format!("{NEWCOMER} joins"): null }),
            oracle::serves(&campaign.material, NEWCOMER, "FUZZ-SERVES-NEW"),
        ];
        let scenario = json!({ "title": "Somebody new", "actors": { NEWCOMER: role }, "steps": steps });
        let Value::Object(scenario) = scenario else { return None };
        let before = took(campaign, stage, &scenario, FIRST).await?;
        Some(Self { scenario, before })
    }

    /// `None` where it is not slower; whether somebody new is answered at all was asked by the cases.
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

/// Without the time that it waits for its turn, which is ours.
async fn took(campaign: &Campaign, stage: &Stage, scenario: &Map<String, Value>, number: u64) -> Option<Duration> {
    let played = campaign.play(&campaign.id(number), scenario, number, stage).await?;
    (scenario_verdict(&played) == Verdict::Pass).then_some(played.duration)
}
