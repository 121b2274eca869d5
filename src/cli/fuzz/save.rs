//! Shrinks new findings and saves them as files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::archive::{FindingArchive, file_stem};
use super::session::PlaySession;
use crate::check;
use crate::cli::CliError;
use crate::fuzz::campaign::fingerprint::Fingerprint;
use crate::fuzz::campaign::results::CampaignResults;
use crate::fuzz::campaign::shrink_findings::{ShrinkJob, ShrinkResult, ShrinkableFinding};
use crate::fuzz::campaign::{Campaign, PlayEnvironment};
use crate::fuzz::case::{FuzzCase, FuzzCell};
use crate::fuzz::case_scenario::CaseScenario;
use crate::fuzz::regression::finding_file::{self, FindingHeader};
use crate::fuzz::shrink;
use crate::judge::{Evidence, REPLAY_TIME, Ruling};
use crate::outcome::Verdict;
use crate::redact::SecretMasker;
use crate::report::fuzz::ShrunkFinding;
use crate::report::text::format_count;

/// The data that the files of a run contain besides the findings.
pub struct FindingFileContext<'a> {
    /// The name of the hub in reports.
    pub hub: &'a str,
    /// The command line that fuzzes the hub, without options that select cases.
    pub command: &'a [String],
    pub masker: SecretMasker,
    /// Whether a baseline has a failure of this scenario and check, so that it needs no file.
    pub known: &'a dyn Fn(&str, &str) -> bool,
}

/// A new finding to be saved.
struct NewFinding {
    cause: Fingerprint,
    cell: FuzzCell,
    case: FuzzCase,
    came: String,
    path: PathBuf,
}

/// Number of findings to shrink at a time if each has a hub of its own.
const MAX_CONCURRENT_FINDINGS: usize = 4;
/// Most findings of a run that are saved.
const MAX_SAVED_FINDINGS: usize = 100;

/// Shrinks a protocol's findings, saves them if there is a folder for them, and adds the shrunk findings to `outcome`.
/// Returns how often the user interrupted, and lines for the user about the saved findings.
///
/// # Errors
///
/// A file cannot be written.
pub async fn save_findings(
    archive: &FindingArchive,
    campaign: &Arc<Campaign>,
    outcome: &mut CampaignResults,
    about: &FindingFileContext<'_>,
    session: &mut PlaySession<'_>,
) -> Result<(usize, String), CliError> {
    let Some(folder) = &archive.folder else { return Ok((0, String::new())) };
    let new = findings_to_save(archive, campaign, outcome, folder, about);
    let (mut asked_to_stop, mut small) = (0, BTreeMap::new());
    if !new.is_empty() {
        let what = format!("shrinking {}", format_count(new.len(), "finding"));
        let begun = Instant::now();
        let left = session.limit.map_or(Duration::MAX, |limit| limit.interrupts.saturating_duration_since(begun));
        let time = archive.shrink_time.min(left);
        // Without time for shrinking, findings are still replayed, since only what fails again is saved.
        let (half, until) = (begun + (time / 2).max(REPLAY_TIME.min(left)), begun + time);
        let (asked, made) = session.run_work(what, shrink_all(campaign, &new, session, half, until)).await?;
        (asked_to_stop, small) = (asked, made.unwrap_or_default());
    }
    let mut text = String::new();
    let mut written: Vec<(CaseScenario, &Path)> = Vec::new();
    let (mut not_again, mut open) = (0, 0);
    for (index, new) in new.iter().enumerate() {
        // Other cases that were played at the same time may have caused what does not happen again.
        let small = match small.remove(&index) {
            Some(small) if small.ruling.stands() => small,
            Some(ShrinkResult { ruling: Ruling::NotAgain | Ruling::Anyway, .. }) => {
                not_again += 1;
                continue;
            }
            _ => {
                open += 1;
                continue;
            }
        };
        let plain = CaseScenario { title: String::new(), ..small.scenario.clone() };
        // Two findings may shrink to the same scenario.
        if let Some((_, path)) = written.iter().find(|(known, _)| *known == plain) {
            let _ = writeln!(text, "  {} is the same as {}", file_stem(&new.path), file_stem(path));
            continue;
        }
        text.push_str(&write_finding(campaign, new, &small, about)?);
        if let Some(shrunk) = shrunk_finding(campaign, new, &small, about) {
            outcome.add_shrunk(&new.cause, shrunk);
        }
        written.push((plain, &new.path));
    }
    for (count, why) in [
        (not_again, "that did not fail again when replayed alone"),
        (open, "that there was no time to replay; --shrink-time gives more"),
    ] {
        if count > 0 {
            let _ = writeln!(text, "  not saved: {} {why}", format_count(count, "finding"));
        }
    }
    Ok((asked_to_stop, text))
}

/// Returns a future that shrinks findings and returns the results by the index of the finding. Until `half`, it finds
/// out which findings fail on their own. After that it shrinks these findings, starting with one per cause.
fn shrink_all(
    campaign: &Arc<Campaign>,
    new: &[NewFinding],
    session: &PlaySession<'_>,
    half: Instant,
    until: Instant,
) -> impl FnOnce(PlayEnvironment) -> std::pin::Pin<Box<dyn Future<Output = BTreeMap<usize, ShrinkResult>> + Send>> + use<>
{
    let (campaign, numbers) = (Arc::clone(campaign), Arc::clone(&session.numbers));
    let finding = |new: &NewFinding| {
        let singles = campaign.scheduler.single_message_cases(&campaign.corpus, new.case.number).into_iter();
        ShrinkableFinding {
            scenario: new.case.scenario.clone(),
            beside: None,
            simpler: singles.map(|single| single.scenario).collect(),
            cell: new.cell,
            cause: new.cause.clone(),
            id: format!("{}/{}", campaign.pack().name, file_stem(&new.path)),
        }
    };
    let findings: Vec<ShrinkableFinding> = new.iter().map(finding).collect();
    move |environment| {
        Box::pin(async move {
            let job = |finding| {
                let (campaign, environment, numbers) =
                    (Arc::clone(&campaign), environment.clone(), Arc::clone(&numbers));
                Arc::new(ShrinkJob { campaign, environment, finding, numbers })
            };
            let mut all: Vec<(usize, Arc<ShrinkJob>)> = findings.into_iter().map(job).enumerate().collect();
            let look = |job: Arc<ShrinkJob>| async move { job.confirm(Evidence::Crowd, half).await };
            let mut small = play_each(&environment, all.clone(), look).await;
            all.retain(|(index, _)| small.get(index).is_some_and(|small| small.ruling.stands()));
            // The first finding of each cause comes first, alternating between oracles; likely duplicates come last.
            let mut known: BTreeMap<(String, Option<String>), usize> = BTreeMap::new();
            let mut nth = |oracle: &str, shape: Option<&str>| {
                let nth = known.entry((oracle.to_owned(), shape.map(str::to_owned))).or_default();
                *nth += 1;
                *nth
            };
            all.sort_by_cached_key(|(_, job)| {
                let Fingerprint { oracle, shape, .. } = &job.finding.cause;
                (nth(oracle, Some(shape)), nth(oracle, None))
            });
            let make = |job: Arc<ShrinkJob>| async move { job.shrink(until).await };
            small.extend(play_each(&environment, all, make).await);
            small
        })
    }
}

/// Plays findings, several at a time. Returns the results by index.
async fn play_each<F: Future<Output = ShrinkResult> + Send + 'static>(
    environment: &PlayEnvironment,
    jobs: Vec<(usize, Arc<ShrinkJob>)>,
    play: impl Fn(Arc<ShrinkJob>) -> F,
) -> BTreeMap<usize, ShrinkResult> {
    // On a hub that hubproof did not start, findings are played one at a time, because they might disturb each other.
    let at_once =
        if environment.hub.can_start_hubs() { environment.options.jobs.min(MAX_CONCURRENT_FINDINGS) } else { 1 };
    let became = Arc::new(Mutex::new(BTreeMap::new()));
    let one = |(index, job)| {
        let (became, playing) = (Arc::clone(&became), play(job));
        async move {
            let small = playing.await;
            became.lock().await.insert(index, small);
        }
    };
    let mut jobs = jobs.into_iter().fuse();
    check::play_in_order(|| jobs.next(), at_once, &environment.interrupt, one).await;
    std::mem::take(&mut *became.lock().await)
}

/// Returns the findings to save, each with an unused file name: failures that neither a baseline nor a saved finding
/// covers.
fn findings_to_save(
    archive: &FindingArchive,
    campaign: &Campaign,
    outcome: &CampaignResults,
    folder: &Path,
    about: &FindingFileContext<'_>,
) -> Vec<NewFinding> {
    let protocol = &campaign.pack().name;
    let mut taken: BTreeSet<PathBuf> = BTreeSet::new();
    let mut all: Vec<NewFinding> = Vec::new();
    for (cause, number, check) in outcome.first_findings() {
        let name = finding_file::file_name(protocol, &cause.oracle, &cause.message, &cause.mutation);
        let path = folder.join(&name);
        let is_new = check.verdict == Verdict::Fail
            && !(about.known)(&cause.scenario_name(protocol), &cause.oracle)
            && !archive.still_fails(&path);
        let case = campaign.scheduler.cell(number).zip(campaign.scheduler.case(&campaign.corpus, number));
        let Some((cell, case)) = case.filter(|_| is_new && all.len() < MAX_SAVED_FINDINGS) else { continue };
        let others =
            (2..=MAX_SAVED_FINDINGS).map(|n| folder.join(format!("{}-{n}.yaml", name.trim_end_matches(".yaml"))));
        let free = std::iter::once(path).chain(others).find(|path| !taken.contains(path) && !path.exists());
        let Some(path) = free else { continue };
        taken.insert(path.clone());
        let came = match &check.detail {
            Some(detail) if !detail.received.is_empty() => format!("{}: {}", check.message, detail.received),
            _ => check.message.clone(),
        };
        all.push(NewFinding { cause: cause.clone(), cell, case, came, path });
    }
    all
}

/// Returns the shrunk finding, with its last play.
fn shrunk_finding(
    campaign: &Campaign,
    new: &NewFinding,
    small: &ShrinkResult,
    about: &FindingFileContext<'_>,
) -> Option<ShrunkFinding> {
    let play = small.play.as_ref()?;
    let check = play.checks.first()?;
    let path = new.path.display().to_string();
    let reproduce = finding_file::replay_command(about.command, &campaign.pack().name, "fuzz", &["--replay", &path]);
    Some(ShrunkFinding {
        reproduce: about.masker.mask(&reproduce).into_owned(),
        path,
        attempts: small.attempts,
        message: check.message.clone(),
        detail: check.detail.clone(),
        history: play.history.clone(),
        history_dropped: play.history_dropped,
    })
}

/// Writes the file of a finding. Returns a line for the user about it.
fn write_finding(
    campaign: &Campaign,
    new: &NewFinding,
    small: &ShrinkResult,
    about: &FindingFileContext<'_>,
) -> Result<String, CliError> {
    let pack = campaign.pack();
    let rule = new.cause.oracle.split(',').next().and_then(|id| pack.rules.get(id));
    let path = new.path.display().to_string();
    let found = FindingHeader {
        protocol: &pack.name,
        version: &pack.version,
        oracle: &new.cause.oracle,
        demands: rule.map_or("", |rule| &rule.text),
        message: &new.cause.message,
        mutation: &new.cause.mutation,
        description: &new.case.description,
        came: &new.came,
        seed: campaign.scheduler.seed,
        case: new.case.number,
        hub: about.hub,
        command: about.command,
        attempts: small.attempts,
    };
    std::fs::write(&new.path, finding_file::render_finding(&found, &path, &small.scenario, &about.masker))
        .map_err(|error| CliError::failed(format!("failed to write {path}"), error))?;
    let what = match small {
        _ if small.attempts == 0 => "not shrunk: no smaller scenario was tried".to_owned(),
        _ => format!(
            "{} after the opening, shrunk in {}",
            format_count(shrink::count_beyond_opening(&small.scenario), "step"),
            format_count(small.attempts, "attempt")
        ),
    };
    Ok(format!("  saved {path}: {what}\n"))
}
