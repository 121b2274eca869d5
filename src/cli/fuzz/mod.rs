//! `hubproof fuzz`: sends a hub input that no scenario contains, and checks oracles that must hold for any hub.

mod archive;
mod case_selection;
mod save;
mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Map, Value};

use self::archive::{ArchiveArgs, FindingArchive};
use self::case_selection::{CaseArgs, CaseSelection, print_cases};
use self::save::FindingFileContext;
use self::session::PlaySession;
use super::baseline::BaselineArgs;
use super::hub::{self, HubArgs, RunInput, StartedHubs, TimeLimit};
use super::progress::RunProgress;
use super::protocol_files::ValidProtocol;
use super::report_sink::{EventLog, RunOutputArgs};
use super::{CliError, build_runtime};
use crate::check::{self, PlayOptions};
use crate::config;
use crate::fuzz::campaign::confirm::DoubtfulFinding;
use crate::fuzz::campaign::fingerprint::NO_MUTATION;
use crate::fuzz::campaign::results::CampaignResults;
use crate::fuzz::campaign::{self, Campaign, FinalHubState, confirm, second_hub};
use crate::fuzz::case::FuzzCell;
use crate::fuzz::feedback::CaseFeedback;
use crate::hub::prepare;
use crate::hub::process::TERMINATION_GRACE;
use crate::interpreter::KEPT_CHARS;
use crate::judge::baseline::FailureNames;
use crate::judge::{REPLAY_TIME, Ruling};
use crate::report::events::ScenarioEvent;
use crate::report::text::format_count;
use crate::report::{self, ProtocolReport, RunOptions, RunReport, events};
use crate::syntax::source::Sources;
use crate::transport::CarrierKind;

/// Send mutated messages to a hub and check that it stays correct; without a URL, the built-in reference server
#[derive(Args)]
pub struct FuzzArgs {
    #[command(flatten)]
    hub: HubArgs,
    #[command(flatten)]
    cases: CaseArgs,
    /// Seed of the random number generator; the same seed gives the same cases
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print the cases, one JSON object per line, without running them
    #[arg(long)]
    print_cases: bool,
    /// Confirm that a hub on another machine may be fuzzed
    #[arg(long)]
    yes: bool,
    /// Number of cases to run in parallel
    // With three connections each they stay below fifty, which is what airavata's document allows an address.
    #[arg(short, long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    #[command(flatten)]
    output: RunOutputArgs,
    /// Also send the cases to this hub, one at a time, and warn if the answers differ; without a URL, to the reference
    /// server; `none` compares with nothing (default for built-in protocols: a model in memory)
    #[arg(long, value_name = "URL|none", num_args = 0..=1, default_missing_value = "")]
    against: Option<String>,
    #[command(flatten)]
    archive: ArchiveArgs,
    #[command(flatten)]
    baseline: BaselineArgs,
}

/// The value of `--against` with which nothing is compared.
const AGAINST_NOTHING: &str = "none";

impl FuzzArgs {
    /// Returns the URL of the second hub, empty for the reference server.
    fn second_hub(&self) -> Option<&str> {
        self.against.as_deref().filter(|url| *url != AGAINST_NOTHING)
    }

    fn compares_nothing(&self) -> bool {
        self.against.as_deref() == Some(AGAINST_NOTHING)
    }

    /// Returns how cases are played.
    fn play_options(&self) -> PlayOptions {
        PlayOptions {
            variations: check::VariationChoice::None,
            variation_time: Duration::ZERO,
            // A case may influence later ones, so both hubs have to receive all cases in the same order.
            jobs: if self.second_hub().is_some() { 1 } else { usize::from(self.jobs) },
            stretch: self.hub.stretch,
            repeat: 1,
            limit: self.hub.timeout.mul_f64(self.hub.stretch.max(1.0)),
            stated_only: self.hub.stated_only,
            trace: self.output.trace,
            kept_chars: if self.compares_nothing() { KEPT_CHARS } else { second_hub::MAX_COMPARED_CHARS },
            persistent: false,
            shorten: false,
            destructive: false,
            on_any_carrier: true,
            replay_time: REPLAY_TIME,
            stamp: check::stamp(),
            now_ms: hub::now_ms(),
            comparer: None,
        }
    }
}

pub fn run_fuzz(arguments: FuzzArgs) -> Result<u8, CliError> {
    let mut sources = Sources::default();
    let sinks = arguments.output.parse_sinks()?;
    let named = arguments.hub.read_target_and_overrides(&mut sources)?;
    let second = arguments.second_hub().into_iter().filter_map(|url| url.parse().ok()).collect();
    arguments.hub.check_confirmed(&named, second, arguments.yes, "fuzzing may bring a hub down", "break")?;
    let mut protocols =
        arguments.hub.load_protocols("fuzz", named.target.as_ref(), arguments.print_cases, &[], &mut sources)?;
    arguments.hub.check_fault(&protocols)?;
    let seed = arguments.seed.unwrap_or_else(random_seed);
    let mut campaigns = load_campaigns(&protocols, named.target.as_ref(), seed, &mut sources)?;
    let websocket = arguments.hub.endpoints(&named).all(|endpoint| endpoint.carrier == CarrierKind::WebSocket);
    let selection = CaseSelection::new(&arguments.cases, websocket, &mut campaigns)?;
    let chosen = |protocol: &ValidProtocol| campaigns.iter().any(|campaign| campaign.pack().name == protocol.pack.name);
    protocols.retain(chosen);
    if arguments.print_cases {
        print_cases(&campaigns, &selection);
        return Ok(0);
    }
    let baselines = arguments.baseline.read_baselines_with(&mut sources, &|_, _| Ok(failure_names(&campaigns)))?;
    let mut archive = arguments.archive.read_archive(&campaigns, &mut sources)?;
    let again_here = arguments.hub.repeat_command("fuzz", &protocols);
    let options = Arc::new(arguments.play_options());
    let mut shown = RunOptions {
        strict: arguments.output.strict,
        stated_only: arguments.hub.stated_only,
        command: repeat_command(&arguments, seed, &protocols),
        pack: arguments.hub.own.to_arguments(),
        target: arguments.hub.reached_hub_name(&named),
        share: arguments.cases.share,
        selected: !arguments.cases.message.is_empty() || !arguments.cases.mutation.is_empty(),
        ..RunOptions::default()
    };
    let runtime = build_runtime()?;
    let log = sinks.start_events()?;
    let done = runtime.block_on(async {
        let started = arguments.hub.start_hubs(&named, &protocols, |_| Vec::new(), &mut shown, &mut sources).await?;
        let mut started = match started {
            Ok(started) => started,
            Err(code) => return Ok(Err(code)),
        };
        match arguments.second_hub() {
            Some(url) => started.add_second_hub(url, &protocols, &mut sources).await?,
            None if arguments.compares_nothing() => {}
            None => started.add_models(&arguments.hub, &protocols, &mut sources)?,
        }
        let known = |scenario: &str, check: &str| baselines.contains(scenario, check);
        let kept = FindingStore { archive: &mut archive, command: &again_here, known: &known };
        let (chosen, output) = ((&selection, &*campaigns), (&log, arguments.output.quiet));
        let report = run_campaigns(chosen, kept, &mut started, options, shown, &mut sources, output).await;
        started.stop().await;
        report.map(Ok)
    })?;
    // Aborts cases that still run; their results are not needed.
    runtime.shutdown_timeout(Duration::from_millis(200));
    let (mut report, saved) = match done {
        Ok(done) => done,
        Err(code) => return Ok(code),
    };
    if archive.only_replays() {
        let code = archive.exit_code();
        return Ok(if code == 0 && report.interrupted { super::exit::INCONCLUSIVE } else { code });
    }
    baselines.apply_and_write(&mut report, &sources)?;
    let code = report::exit_code(&report);
    sinks.write(&report, &sources, arguments.output.verbose)?;
    if !arguments.output.quiet && !saved.is_empty() {
        eprintln!("{}", saved.trim_end());
    }
    Ok(if code == 0 || archive.exit_code() == 1 { archive.exit_code() } else { code })
}

/// Returns the settings of the first instance of a target by name: they determine which input is valid.
pub(super) fn given_settings(target: Option<&config::Target>) -> Map<String, Value> {
    let settings = target.and_then(|target| target.instances.first()).into_iter().flat_map(|first| &first.settings);
    settings.map(|(name, setting)| (name.clone(), setting.value.clone())).collect()
}

/// Loads all protocols before anything is played.
fn load_campaigns(
    protocols: &[ValidProtocol],
    target: Option<&config::Target>,
    seed: u64,
    sources: &mut Sources,
) -> Result<Vec<Arc<Campaign>>, CliError> {
    let given = given_settings(target);
    let mut campaigns = Vec::new();
    for protocol in protocols {
        let campaign = Campaign::new(&protocol.folder, sources, seed, given.clone())
            .map_err(|found| CliError::from_diagnostics(&found, sources))?;
        if campaign.scheduler.cells.is_empty() {
            return Err(CliError::new(format!(
                "no case can be made for {}: it defines no client-to-hub message, or no role that connects",
                protocol.pack.name
            )));
        }
        campaigns.push(Arc::new(campaign));
    }
    Ok(campaigns)
}

/// Returns the names that a baseline may use: every mutation of every message.
fn failure_names(campaigns: &[Arc<Campaign>]) -> FailureNames {
    let mut names = FailureNames::default();
    for campaign in campaigns {
        let pack = campaign.pack();
        let id = |cell: &FuzzCell| {
            let message = &pack.messages[cell.message].name;
            [cell.mutation.name(), NO_MUTATION].map(|mutation| format!("{}/{message}/{mutation}", pack.name))
        };
        names.add_findings(pack, campaign.scheduler.cells.iter().flat_map(id), &["websocket"]);
    }
    names
}

/// The saved findings, and the data needed to save new ones.
struct FindingStore<'a> {
    archive: &'a mut FindingArchive,
    /// The command line that replays the saved findings.
    command: &'a [String],
    known: &'a dyn Fn(&str, &str) -> bool,
}

/// Plays the cases of all protocols. Returns the report, and lines for the user about the saved findings.
async fn run_campaigns(
    (selection, campaigns): (&CaseSelection, &[Arc<Campaign>]),
    kept: FindingStore<'_>,
    started: &mut StartedHubs,
    options: Arc<PlayOptions>,
    shown: RunOptions,
    sources: &mut Sources,
    (log, quiet): (&EventLog, bool),
) -> Result<(RunReport, String), CliError> {
    let begun = Instant::now();
    let begun_ms = u64::try_from(options.now_ms).unwrap_or(0);
    log.write(|| events::run_started(begun_ms, &shown.target, &shown.command));
    let tested_hubs = std::mem::take(&mut started.hubs);
    let mut outcomes: Vec<CampaignResults> = Vec::new();
    let (mut asked_to_stop, mut saved) = (0, String::new());
    let numbers = Arc::new(AtomicU64::new(0));
    let mut whole_limit = None;
    for (index, (campaign, tested)) in campaigns.iter().zip(&tested_hubs).enumerate() {
        let (from, end) = (Instant::now(), selection.end_of_protocol(begun, index, campaigns.len()));
        let limit = end.map(TimeLimit::new);
        whole_limit = limit;
        let hub = prepare::prepare_hub(tested)?;
        let against = started.second_hub(&tested.pack.name)?;
        let signals = &mut started.signals;
        let mut session =
            PlaySession { hub: &hub, options: &options, signals, numbers: Arc::clone(&numbers), limit, quiet };
        asked_to_stop = kept.archive.replay(campaign, &mut session).await?;
        if asked_to_stop > 0 {
            break;
        }
        if kept.archive.only_replays() {
            continue;
        }
        let mut watched = CampaignProgress::new(campaign, selection, kept.known, (&options.stamp, quiet));
        let cases = selection.case_numbers(campaign, watched.adaptive.as_ref());
        let over = watched.end_of_cases(from, end, kept.archive.time_for_shrinking());
        let playing = Arc::clone(campaign);
        let work = |environment| campaign::run_cases(playing, environment, cases, over);
        let handle = |received| {
            if let RunInput::Event(event) = &received {
                log.write(|| events::scenario_event(event, begun.elapsed(), sources));
            }
            watched.handle_event(received);
        };
        let followed = session.follow(against, work, handle).await;
        watched.progress.finish();
        let (signals, left) = followed?;
        asked_to_stop = signals;
        if let Some(left) = left {
            asked_to_stop += confirm_findings(campaign, &mut watched.outcome, left, &mut session).await?;
        } else if asked_to_stop == 0 {
            let why = "what was being played did not end in time, so it is not known whether the hub hung";
            watched.outcome.ended.get_or_insert_with(|| why.to_owned());
        }
        if asked_to_stop < 2 {
            let masker = prepare::secret_masker(tested);
            let about = FindingFileContext { hub: &shown.target, command: kept.command, masker, known: kept.known };
            let (asked, text) =
                save::save_findings(kept.archive, campaign, &mut watched.outcome, &about, &mut session).await?;
            asked_to_stop += asked;
            saved.push_str(&text);
        }
        outcomes.push(watched.outcome);
        if asked_to_stop > 0 {
            break;
        }
    }
    let report = RunReport {
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        started: begun_ms,
        duration: begun.elapsed(),
        options: shown,
        protocols: end_campaigns(outcomes, campaigns, started, (asked_to_stop, whole_limit), sources).await,
        interrupted: asked_to_stop > 0,
    };
    Ok((report, saved))
}

/// Ends the processes of the hubs, and returns the reports of all protocols.
async fn end_campaigns(
    outcomes: Vec<CampaignResults>,
    campaigns: &[Arc<Campaign>],
    started: &mut StartedHubs,
    (asked_to_stop, limit): (usize, Option<TimeLimit>),
    sources: &mut Sources,
) -> Vec<ProtocolReport> {
    let grace = match limit {
        _ if asked_to_stop >= 2 => Duration::ZERO,
        Some(limit) => TERMINATION_GRACE.min((limit.aborts + LAST_GRACE).saturating_duration_since(Instant::now())),
        None => TERMINATION_GRACE,
    };
    let mut processes = started.end_processes(grace).await;
    let finish = |(outcome, campaign): (CampaignResults, &Arc<Campaign>)| {
        let own = processes.extract_if(.., |(protocol, _)| *protocol == campaign.pack().name);
        let own = own.map(|(_, process)| process).collect();
        outcome.finish(campaign, own, sources)
    };
    outcomes.into_iter().zip(campaigns).map(finish).collect()
}

/// Replays the findings that stand only if they are made again, removes the others, and records the last state of the
/// hub. Returns how often the user interrupted.
async fn confirm_findings(
    campaign: &Arc<Campaign>,
    outcome: &mut CampaignResults,
    left: FinalHubState,
    session: &mut PlaySession<'_>,
) -> Result<usize, CliError> {
    let doubtful = outcome.doubtful_findings(&left.outages, campaign.is_hub_slow(session.hub, session.options));
    let (mut asked_to_stop, mut rulings) = (0, Vec::new());
    if left.is_served && !doubtful.is_empty() {
        let what = format!("replaying {}", format_count(doubtful.len(), "finding"));
        let (campaign, findings) = (Arc::clone(campaign), doubtful.clone());
        let (numbers, until) = (Arc::clone(&session.numbers), Instant::now() + REPLAY_TIME);
        let replay = |environment| confirm::replay_findings(campaign, findings, environment, numbers, until);
        let (asked, replayed) = session.run_work(what, replay).await?;
        (asked_to_stop, rulings) = (asked, replayed.unwrap_or_default());
    }
    rulings.resize(doubtful.len(), Ruling::Open);
    let is_open = |(finding, ruling): &(&DoubtfulFinding, &Ruling)| **ruling == Ruling::Open && !finding.stands_anyway;
    let open = doubtful.iter().zip(&rulings).filter(is_open).count();
    if open > 0 && left.is_served && asked_to_stop == 0 {
        outcome.end_before_confirmation(open);
    }
    for (finding, ruling) in doubtful.iter().zip(rulings).filter(|(_, ruling)| !ruling.stands()) {
        match (ruling, finding.stands_anyway) {
            (Ruling::Anyway, _) => outcome.clear_mutation(&finding.cause),
            (_, true) => outcome.mark_not_seen_again(&finding.cause, ruling),
            (_, false) => outcome.remove_unconfirmed(&finding.cause),
        }
    }
    (outcome.stuck, outcome.slower, outcome.pauses) = (left.stuck, left.slower, left.pauses);
    if let Some(gone) = left.gone {
        outcome.add_lost_hub(campaign, gone);
    }
    Ok(asked_to_stop)
}

/// The run of one protocol: its results so far, and their display.
struct CampaignProgress<'a> {
    campaign: &'a Campaign,
    adaptive: Option<CaseFeedback>,
    outcome: CampaignResults,
    progress: RunProgress,
    begun: Instant,
    noted: Instant,
    /// The number of findings after which no more cases are started.
    most: Option<u64>,
    /// Whether the baseline has a failure of this scenario and check, so that it does not count as a finding.
    known: &'a dyn Fn(&str, &str) -> bool,
    /// The number of fingerprints at the last count, and the number of findings that they make up.
    counted: (usize, usize),
    /// Set when no more cases should start.
    enough: Arc<AtomicBool>,
    /// Set when there is a finding that is not in the baseline.
    found: Arc<AtomicBool>,
}

/// How long hubs have to exit after the last play, if the time is over.
const LAST_GRACE: Duration = Duration::from_millis(500);
/// How often the progress display is updated.
const NOTE_INTERVAL: Duration = Duration::from_millis(200);

impl<'a> CampaignProgress<'a> {
    fn new(
        campaign: &'a Campaign,
        selection: &CaseSelection,
        known: &'a dyn Fn(&str, &str) -> bool,
        (stamp, quiet): (&str, bool),
    ) -> Self {
        let now = Instant::now();
        let progress = RunProgress::new(selection.case_count(), "cases", quiet);
        let (adaptive, outcome, most) =
            (selection.adaptive_feedback(), CampaignResults::new(stamp), selection.most_findings());
        let (enough, found, counted) = (Arc::default(), Arc::default(), (0, 0));
        Self { campaign, adaptive, outcome, progress, begun: now, noted: now, most, known, counted, enough, found }
    }

    /// Returns a function that says whether no more cases may start, for a protocol whose time is from `from` to `end`.
    fn end_of_cases(
        &self,
        from: Instant,
        end: Option<Instant>,
        shrink_time: Option<Duration>,
    ) -> impl Fn() -> bool + Send + Sync + use<> {
        let (found, enough) = (Arc::clone(&self.found), Arc::clone(&self.enough));
        move || {
            let shrink_time = shrink_time.filter(|_| found.load(Ordering::Relaxed));
            let is_over = |end: Instant| {
                let whole = end.saturating_duration_since(from);
                Instant::now() + case_selection::time_after_cases(whole, shrink_time) >= end
            };
            enough.load(Ordering::Relaxed) || end.is_some_and(is_over)
        }
    }

    fn handle_event(&mut self, input: RunInput) {
        match input {
            RunInput::Event(ScenarioEvent::Finished(report)) => {
                self.progress.count_finished();
                if let Some(adaptive) = &self.adaptive {
                    adaptive.record_answers(self.campaign, &report);
                }
                self.outcome.add_report(self.campaign, *report);
                if self.outcome.ended.is_some() {
                    self.enough.store(true, Ordering::Relaxed);
                }
                if self.counted.0 != self.outcome.fingerprint_count() {
                    let findings = self.outcome.finding_count(&self.campaign.pack().name, self.known);
                    self.counted = (self.outcome.fingerprint_count(), findings);
                    self.found.store(findings > 0, Ordering::Relaxed);
                }
                let enough = self.most.is_some_and(|most| self.counted.1 as u64 >= most);
                if enough && !self.enough.swap(true, Ordering::Relaxed) {
                    self.progress.print_line(
                        "the limit of --max-findings is reached: waiting for running cases, starting no new ones",
                    );
                }
                if self.noted.elapsed() >= NOTE_INTERVAL {
                    self.noted = Instant::now();
                    self.progress.set_note(self.describe_progress());
                }
            }
            RunInput::Event(ScenarioEvent::Started { .. }) => {}
            RunInput::Event(event) => self.progress.handle_event(&event),
            RunInput::Stopping => {
                self.progress.print_line("stopping: waiting for running cases; Ctrl-C again to stop at once");
            }
        }
    }

    fn describe_progress(&self) -> String {
        let rate = self.outcome.case_count() as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        let findings = format_count(self.counted.1, "finding");
        let (covered, cells) = (self.outcome.covered_cell_count(), self.campaign.scheduler.cells.len());
        format!("{}: {rate:.0} cases/s, {findings}, {covered} of {cells} cells", self.campaign.pack().name)
    }
}

/// Returns the command line that repeats this run, without options that select cases.
fn repeat_command(arguments: &FuzzArgs, seed: u64, protocols: &[ValidProtocol]) -> Vec<String> {
    let mut words = arguments.hub.repeat_command("fuzz", protocols);
    if arguments.output.strict {
        words.push("--strict".to_owned());
    }
    words.extend(arguments.baseline.to_arguments());
    words.extend(["--seed".to_owned(), seed.to_string()]);
    if let Some(url) = &arguments.against {
        words.push("--against".to_owned());
        words.extend((!url.is_empty()).then(|| url.clone()));
    }
    words
}

/// Returns a random seed that is short enough to type.
fn random_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0 % 1_000_000
}
