//! Replays findings one at a time: those that may only mean that the hub hung, was gone or is slow, and those whose
//! report prints a command to reproduce them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use super::fingerprint::Fingerprint;
use super::shrink_findings::{ShrinkJob, ShrinkableFinding};
use super::{Campaign, PlayEnvironment};
use crate::judge::{Evidence, Ruling};

/// A finding to be made again.
#[derive(Clone)]
pub struct DoubtfulFinding {
    pub cause: Fingerprint,
    /// The number of its first case.
    pub number: u64,
    /// Another case, to which the message belongs that the first case received; both are played at the same time.
    pub beside: Option<u64>,
    pub evidence: Evidence,
    /// Whether the finding stands even if it is not made again.
    pub stands_anyway: bool,
}

/// Replays findings until `until`, and returns the ruling on each; [`Ruling::Anyway`] for one that is also made without
/// the mutated message.
pub async fn replay_findings(
    campaign: Arc<Campaign>,
    findings: Vec<DoubtfulFinding>,
    environment: PlayEnvironment,
    numbers: Arc<AtomicU64>,
    until: Instant,
) -> Vec<Ruling> {
    let mut rulings = Vec::new();
    for DoubtfulFinding { cause, number, beside, evidence, .. } in findings {
        let scheduler = &campaign.scheduler;
        let case = scheduler.cell(beside.unwrap_or(number)).zip(scheduler.case(&campaign.corpus, number));
        let Some((cell, case)) = case else {
            rulings.push(Ruling::NotAgain);
            continue;
        };
        let (scenario, id) = (case.scenario, campaign.id(number));
        let beside = beside.and_then(|other| scheduler.case(&campaign.corpus, other)).map(|case| case.scenario);
        let finding = ShrinkableFinding { scenario, beside, simpler: Vec::new(), cell, cause, id };
        let (campaign, numbers) = (Arc::clone(&campaign), Arc::clone(&numbers));
        let job = ShrinkJob { campaign, environment: environment.clone(), finding, numbers };
        let ruling = job.confirm(evidence, until).await.ruling;
        let is_anyway = ruling.stands() && Instant::now() < until && job.occurs_without_mutation().await;
        rulings.push(if is_anyway { Ruling::Anyway } else { ruling });
    }
    rulings
}
