//! Replays findings that may only mean that the hub hung, was gone or is slow, one at a time.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use super::fingerprint::Fingerprint;
use super::shrink_findings::{ShrinkJob, ShrinkableFinding};
use super::{Campaign, PlayEnvironment};
use crate::judge::{Evidence, Ruling};

/// A finding that stands only if it is made again.
#[derive(Clone)]
pub struct DoubtfulFinding {
    pub cause: Fingerprint,
    /// The number of its first case.
    pub number: u64,
    pub evidence: Evidence,
}

/// Replays findings until `until`, and returns the ruling on each.
pub async fn replay_findings(
    campaign: Arc<Campaign>,
    findings: Vec<DoubtfulFinding>,
    stage: PlayEnvironment,
    numbers: Arc<AtomicU64>,
    until: Instant,
) -> Vec<Ruling> {
    let mut rulings = Vec::new();
    for DoubtfulFinding { cause, number, evidence } in findings {
        let case = campaign.scheduler.cell(number).zip(campaign.scheduler.case(&campaign.corpus, number));
        let Some((cell, case)) = case else {
            rulings.push(Ruling::NotAgain);
            continue;
        };
        let (scenario, id) = (case.scenario, campaign.id(number));
        let finding = ShrinkableFinding { scenario, simpler: Vec::new(), cell, cause, id };
        let (campaign, numbers) = (Arc::clone(&campaign), Arc::clone(&numbers));
        let job = ShrinkJob { campaign, stage: stage.clone(), finding, numbers };
        rulings.push(job.confirm(evidence, until).await.ruling);
    }
    rulings
}
