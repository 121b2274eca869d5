//! Replays findings that may only mean that the hub hung, was gone or is slow, one at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::session::PlaySession;
use crate::cli::CliError;
use crate::fuzz::campaign::results::CampaignResults;
use crate::fuzz::campaign::shrink_findings::{MAX_PLAYS_TO_FAIL, ShrinkJob, ShrinkableFinding, with_exclusive_hub};
use crate::fuzz::campaign::{Campaign, FinalHubState, PlayEnvironment};
use crate::report::text::format_count;

/// The time limit for all replays. A finding that was not replayed by then does not stand.
const REPLAY_TIME: Duration = Duration::from_secs(60);

/// How much longer the replays wait for a slow hub.
const SLOW_HUB_PATIENCE: f64 = 3.0;

/// Replays findings made while the hub served no clients, and findings about a slow hub's late answers. Removes
/// findings that do not recur. Returns how often the user interrupted.
///
/// # Errors
///
/// A defect of hubproof.
pub async fn confirm_findings(
    campaign: &Arc<Campaign>,
    outcome: &mut CampaignResults,
    left: &FinalHubState,
    session: &mut PlaySession<'_>,
) -> Result<usize, CliError> {
    let is_slow = campaign.is_hub_slow(session.hub, session.options);
    let doubtful = outcome.doubtful_findings(&left.outages, is_slow);
    let (factor, plays) = if is_slow { (SLOW_HUB_PATIENCE, 1) } else { (1.0, MAX_PLAYS_TO_FAIL) };
    let mut asked_to_stop = 0;
    let mut confirmed = vec![None; doubtful.len()];
    if left.is_served && !doubtful.is_empty() {
        let (campaign, numbers, doubtful) = (Arc::clone(campaign), Arc::clone(&session.numbers), doubtful.clone());
        let what = format!("replaying {}", format_count(doubtful.len(), "finding"));
        let replay = move |stage: PlayEnvironment| async move {
            let stage = stage.patient(factor);
            let until = Instant::now() + REPLAY_TIME;
            let mut confirmed = Vec::new();
            for (cause, number) in doubtful {
                let case = campaign.scheduler.cell(number).zip(campaign.scheduler.case(&campaign.corpus, number));
                if *stage.interrupt.borrow() {
                    confirmed.push(None);
                    continue;
                }
                let fails = match case {
                    Some((cell, case)) => {
                        let scenario = with_exclusive_hub(&case.scenario);
                        let id = campaign.id(number);
                        let finding = ShrinkableFinding { scenario, simpler: Vec::new(), cell, cause, id };
                        let (campaign, numbers) = (Arc::clone(&campaign), Arc::clone(&numbers));
                        let job = ShrinkJob { campaign, stage: stage.clone(), finding, numbers };
                        job.play_until_failure(plays, until).await.fails == Some(true)
                    }
                    None => false,
                };
                confirmed.push((fails || !*stage.interrupt.borrow()).then_some(fails));
            }
            confirmed
        };
        let (asked, replayed) = session.run_work(what, replay).await?;
        asked_to_stop = asked;
        confirmed = replayed.unwrap_or(confirmed);
        let unknown = confirmed.iter().filter(|is_confirmed| is_confirmed.is_none()).count();
        if unknown > 0 && asked_to_stop == 0 {
            outcome.end_before_confirmation(unknown);
        }
    }
    for ((cause, _), _) in doubtful.iter().zip(confirmed).filter(|(_, is_confirmed)| *is_confirmed != Some(true)) {
        outcome.remove_unconfirmed(cause);
    }
    Ok(asked_to_stop)
}
