//! One load run, from the preflight checks to its reports.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};

use super::super::hub::{StartedHubs, now_ms};
use super::super::{CliError, exit, print_to_stderr};
use super::over::Joined;
use super::progress::{LoadProgress, ProgressSinks};
use super::{LoadArgs, share};
use crate::check;
use crate::cli::report_sink::{EventLog, ReportSinks};
use crate::cli::signals::SignalListener;
use crate::deviation::Deviations;
use crate::hub::prepare::{self, PreparedInstance, TestedHub};
use crate::load::Nanos;
use crate::load::client::io::JourneyWait;
use crate::load::compile::program::{CompiledPlan, ProgramOperation};
use crate::load::compile::{self, lint};
use crate::load::details::RunDetails;
use crate::load::engine::{
    self, LEAST_PER_MESSAGE, LoadRunOutcome, LoadRunSetup, RunClock, RunControl, RunEnd, ValidationMode,
};
use crate::load::ledger;
use crate::load::metrics::MetricRegistry;
use crate::load::metrics::selector::RunMeasurements;
use crate::load::opening::MAX_EXAMPLES;
use crate::load::pages::{HoldSwitch, LivePage, MetricsPage, stopped_on};
use crate::load::plan::script::JourneyWorkload;
use crate::load::plan::threshold::{self, MetricThreshold};
use crate::load::plan::{self, Plan, PlanScript};
use crate::load::report::{LoadReport, LoadRunMetadata, events};
use crate::load::shares::file::ShareWriter;
use crate::load::shares::over::member::{AgreedStart, HoldChange, MemberSettings};
use crate::load::shares::over::{EARLIEST, MemberEvent, ParticipationSettings};
use crate::load::shares::record::{self, CommonFacts, ShareEnd, ShareHeader};
use crate::load::validity::{self, RunCircumstances};
use crate::protocol::Pack;
use crate::redact::SecretMasker;
use crate::report::document::load::Wait;
use crate::report::text::{format_count, format_time};
use crate::report::{DeviationReport, RunOptions};
use crate::syntax::share::Share;
use crate::syntax::source::{FileId, Sources, Span};
use crate::transport::Endpoint;
use crate::transport::carrier::gateway;

/// How long shares that have agreed need to start, beside the ramps of the plan.
const START_TIME: Duration = Duration::from_secs(5);

/// A plan with its final numbers, and the hub it runs against.
pub struct LoadSession<'a> {
    pub arguments: &'a LoadArgs,
    pub plan: Plan,
    pub script: PlanScript,
    /// The file of the plan.
    pub file: FileId,
    /// The thresholds of the plan and of the command line.
    pub thresholds: Vec<MetricThreshold>,
    pub seed: u64,
    pub shown: RunOptions,
    pub log: EventLog,
    pub live: Option<LivePage>,
}

/// The result of an attempt to run.
pub enum LoadAttempt {
    Report(Box<LoadReport>, RunEnd),
    /// The share of a run was written to its file.
    Written(RunEnd),
    /// The run could not begin; the reason has been printed.
    NotStarted,
}

/// The hub of a run.
struct RunHub {
    instance: Arc<PreparedInstance>,
    masker: Arc<SecretMasker>,
    pack: Arc<Pack>,
    deviations: Arc<Deviations>,
    embedded: bool,
}

impl RunHub {
    fn prepare(hub: &TestedHub) -> Result<Self, CliError> {
        Ok(Self {
            instance: Arc::clone(prepare::prepare_hub(hub)?.first_instance()),
            masker: Arc::new(prepare::secret_masker(hub)),
            pack: Arc::clone(&hub.pack),
            deviations: Arc::clone(&hub.deviations),
            embedded: hub.embedded.is_some(),
        })
    }
}

/// A run that the engine can start.
struct ReadyRun {
    prepared: Arc<CompiledPlan>,
    setup: LoadRunSetup,
    /// When the run's clock began, in Unix nanoseconds.
    origin_ns: i64,
}

impl LoadSession<'_> {
    /// Runs the plan and writes its reports. Returns the exit code.
    ///
    /// # Errors
    ///
    /// Mistakes that the user has to correct.
    pub async fn run_once(
        mut self,
        started: &mut StartedHubs,
        sources: &mut Sources,
        sinks: &ReportSinks<LoadReport>,
    ) -> Result<u8, CliError> {
        match self.run_plan(&self.plan, started, sources, true).await? {
            LoadAttempt::NotStarted => Ok(super::NOT_STARTED),
            LoadAttempt::Written(RunEnd::Complete) => Ok(exit::PASSED),
            LoadAttempt::Written(_) => Ok(exit::INCONCLUSIVE),
            LoadAttempt::Report(report, _) => self.finish(&report, sources, sinks).await,
        }
    }

    /// Writes the final report, and shows it on the live page. Returns the exit code.
    ///
    /// # Errors
    ///
    /// A report could not be written.
    pub async fn finish(
        &mut self,
        report: &LoadReport,
        sources: &Sources,
        sinks: &ReportSinks<LoadReport>,
    ) -> Result<u8, CliError> {
        let written = sinks.write(report, sources);
        if let Some(live) = self.live.take() {
            live.finish(report).await;
        }
        written.map(|()| report.exit_code())
    }

    /// Compiles the plan for `--check` without sending a message. Returns a list of the expressions that would be
    /// evaluated during the run.
    ///
    /// # Errors
    ///
    /// Mistakes that the user has to correct.
    pub fn describe_compiled(&self, started: &StartedHubs, sources: &Sources) -> Result<String, CliError> {
        let Some(hub) = started.hubs.first() else { return Err(CliError::new("there is no hub to load")) };
        let target = prepare::prepare_hub(hub)?;
        let deviations = &hub.deviations;
        let prepared =
            self.prepare_plan(&self.plan, target.first_instance(), deviations, &Arc::default(), now_ms(), sources)?;
        let lines = lint::lint(&prepared, sources);
        let head = match lines.len() {
            0 => "the plan is valid; no expression is evaluated during the run\n".to_owned(),
            _ => "the plan is valid; these expressions are evaluated during the run:\n".to_owned(),
        };
        Ok(lines.iter().fold(head, |text, line| text + "  " + line + "\n"))
    }

    fn prepare_plan(
        &self,
        plan: &Plan,
        instance: &PreparedInstance,
        deviations: &Arc<Deviations>,
        masker: &Arc<SecretMasker>,
        epoch_ms: i64,
        sources: &Sources,
    ) -> Result<CompiledPlan, CliError> {
        let (stamp, keys) = match &self.arguments.shared.run {
            Some(run) => (run.stamp(self.seed), run.hasher(self.seed)),
            None => (check::stamp(), ledger::IdHasher::random()),
        };
        let (settings, deviations, masker) = (instance.settings.clone(), Arc::clone(deviations), Arc::clone(masker));
        let target = compile::PlanTarget { settings, stamp, epoch_ms, seed: self.seed, keys, deviations, masker };
        compile::compile_plan(plan, &self.script, &target).map_err(|found| CliError::from_diagnostics(&found, sources))
    }

    /// Runs a plan.
    ///
    /// # Errors
    ///
    /// Mistakes that the user has to correct.
    pub async fn run_plan(
        &self,
        plan: &Plan,
        started: &mut StartedHubs,
        sources: &mut Sources,
        lines: bool,
    ) -> Result<LoadAttempt, CliError> {
        let Some(hub) = started.hubs.first() else { return Err(CliError::new("there is no hub to load")) };
        let hub = RunHub::prepare(hub)?;
        let shared = &self.arguments.shared;
        let ready = self.get_ready(plan, &hub, &mut started.signals, sources).await?;
        let Some((ReadyRun { prepared, setup, origin_ns }, mut joined)) = ready else {
            return Ok(LoadAttempt::NotStarted);
        };
        let (to, calls) = engine::hooks::hook_call_queue();
        let hooks = tokio::spawn(engine::hooks::carry_out(calls, Arc::clone(&prepared), Arc::clone(&hub.instance)));
        // The hub is left alone if the file cannot be created.
        let clock_error = joined.as_ref().map(|joined| joined.start().error);
        let header = |share| self.share_header(plan, share, (origin_ns, clock_error), sources);
        let writer = shared.share.map(|share| shared.create_file(header(share)));
        let run = engine::start_run(setup, to)?.writing_to(writer.transpose()?);
        let stopper = run.control();
        let served = self.serve_metrics().await?;
        let (began, shown) = (u64::try_from(origin_ns / 1_000_000).unwrap_or(0), &self.shown);
        self.log.write(|| events::run_started(began, &plan.id, &shown.target, &shown.command, self.seed));
        let workloads = self.script.workloads(plan);
        let about = self.begin_metadata(plan, began, workloads.clone());
        let progress_sinks = ProgressSinks {
            lines: lines && !self.arguments.quiet,
            quiet: self.arguments.quiet,
            metrics: served.as_ref().map(MetricsPage::page),
            live: self.live.as_ref().map(|live| live.follow_run(Some(hold_switch(stopper.clone())))),
            log: self.log.clone(),
            together: joined.as_ref().map(|joined| {
                (joined.reporter(), origin_ns.saturating_sub(joined.start().at).saturating_add(EARLIEST))
            }),
        };
        let layout = MetricRegistry::new(self.script.metric_subjects());
        let thresholds = (self.thresholds.clone(), &layout);
        let mut watcher = LoadProgress::new(plan, thresholds, about.clone(), Arc::clone(&hub.masker), progress_sinks);
        let folding = tokio::task::spawn_blocking(move || {
            let outcome = run.aggregate(|live| watcher.handle_second(live));
            watcher.finish();
            (outcome, watcher)
        });
        let (folded, asked) =
            self.wait_for_end(folding, (&stopper, origin_ns), &mut joined, &mut started.signals).await;
        hooks.abort();
        let (outcome, watcher) = folded?;
        let mut outcome = outcome?;
        let circumstances = describe_circumstances(&outcome, workloads, &prepared, sources, &hub.masker);
        let ending = outcome.ending;
        let about = LoadRunMetadata {
            duration: Duration::from_nanos(outcome.took),
            interrupted: asked > 0,
            warm_up: outcome.warm_up,
            schedules: self.script.schedules(plan, outcome.warm_up + plan.phases.duration),
            holds: outcome.holds.clone(),
            facts: self.run_facts(plan, &prepared, hub.embedded, &outcome),
            ..about
        };
        let RunDetails { mut ends, waits } = outcome.details;
        ends.map_details(|detail| hub.masker.mask(detail).into_owned());
        let mut report = LoadReport::new(about, outcome.series, outcome.account, Vec::new(), Default::default());
        report.deviations = DeviationReport::list_all(&hub.deviations, &hub.pack, &outcome.deviations);
        report.ends = ends;
        report.waits = waits.into_iter().map(|wait| describe_wait(&prepared, sources, wait)).collect();
        if let Some(writer) = outcome.writer.take() {
            let end = ShareEnd {
                measured_from: outcome.measured_from,
                joined: outcome.joined,
                validated: outcome.checked,
                was_stopped: ending == RunEnd::Stopped,
                ..ShareEnd::of(report, circumstances)
            };
            self.close_share(writer, end, joined).await?;
            return Ok(LoadAttempt::Written(ending));
        }
        let measurements = RunMeasurements { validated: outcome.checked.as_ref(), ..report.measurements() };
        report.thresholds = watcher.outcomes(measurements, asked > 0);
        report.judgement = validity::judge_run(report.measurements(), &report.thresholds, circumstances);
        Ok(LoadAttempt::Report(Box::new(report), ending))
    }

    /// Sets up the engine, together with the other shares of the run. Returns `None` if the run does not start.
    async fn get_ready(
        &self,
        plan: &Plan,
        hub: &RunHub,
        signals: &mut SignalListener,
        sources: &Sources,
    ) -> Result<Option<(ReadyRun, Option<Joined>)>, CliError> {
        let own = &hub.instance.endpoint;
        let endpoint = match gateway::reach(own).await {
            Ok(endpoint) => endpoint,
            Err(error) => {
                let help = "is the hub running, and is this its address?";
                eprintln!("{}", CliError::usage(error.to_string(), help).render());
                return Ok(None);
            }
        };
        let ready = self.set_up(plan, (hub, &endpoint), None, sources)?;
        if self.report_shortages(&ready.setup, hub.embedded)? {
            return Ok(None);
        }
        if !self.arguments.over.is_given() {
            return Ok(Some((ready, None)));
        }
        self.arguments.shared.check_free()?;
        let settings = self.participation(plan, sources);
        let joined = self.arguments.over.join(settings, signals, self.arguments.quiet).await?;
        let Some(joined) = joined else { return Ok(None) };
        let ready = self.set_up(plan, (hub, &endpoint), Some(joined.start()), sources)?;
        Ok(Some((ready, Some(joined))))
    }

    async fn serve_metrics(&self) -> Result<Option<MetricsPage>, CliError> {
        let Some(address) = self.arguments.metrics else { return Ok(None) };
        let served = MetricsPage::start(address).await?;
        eprintln!("metrics on {}", served.url());
        Ok(Some(served))
    }

    /// Compiles the plan and sets up the engine; `start` is what the shares of the run have agreed on.
    fn set_up(
        &self,
        plan: &Plan,
        (hub, endpoint): (&RunHub, &Endpoint),
        start: Option<&AgreedStart>,
        sources: &Sources,
    ) -> Result<ReadyRun, CliError> {
        let shared = &self.arguments.shared;
        let (clock, origin_ns) = match shared.share {
            Some(_) => RunClock::start_at_whole_second(start.map_or(0, |start| start.offset)),
            None => (RunClock::start(), now_ms() * 1_000_000),
        };
        let epoch_ms = origin_ns / 1_000_000;
        let prepared = self.prepare_plan(plan, &hub.instance, &hub.deviations, &hub.masker, epoch_ms, sources)?;
        let prepared = Arc::new(prepared);
        let setup = LoadRunSetup {
            plan: Arc::new(plan.clone()),
            prepared: Arc::clone(&prepared),
            clock,
            epoch_ms,
            endpoint: endpoint.clone(),
            deviations: Arc::clone(&hub.deviations),
            tls: hub.instance.tls.clone(),
            sources: self.arguments.source.as_ref().map(|list| list.0.clone()).unwrap_or_default(),
            shards: self.shard_count(plan),
            share: shared.share.unwrap_or(Share::WHOLE),
            start_at: match start {
                Some(start) => u64::try_from(start.at.saturating_sub(origin_ns)).unwrap_or_default(),
                None => shared.start_after(origin_ns, clock),
            },
            seed: self.seed,
            validate: self.arguments.validate,
            pack: Some(Arc::clone(&hub.pack)),
            ledger: ledger::LedgerConfig { ordered: plan.ordered, ..ledger::LedgerConfig::default() },
        };
        Ok(ReadyRun { prepared, setup, origin_ns })
    }

    /// Waits until the engine has ended, and passes requests to stop on to it. Returns its result, and how often it was
    /// asked to stop.
    async fn wait_for_end<T>(
        &self,
        mut folding: JoinHandle<T>,
        (stopper, origin_ns): (&RunControl, i64),
        joined: &mut Option<Joined>,
        signals: &mut SignalListener,
    ) -> (Result<T, JoinError>, usize) {
        let mut asked = 0;
        loop {
            tokio::select! {
                folded = &mut folding => return (folded, asked),
                () = wait_for_stop(signals, self.live.as_ref()) => {
                    asked += 1;
                    self.stop_run(stopper, asked);
                }
                event = next_event(joined) => match event {
                    MemberEvent::Stop(request) => {
                        print_to_stderr(&format!("the run ends: {}", request.reason));
                        asked += usize::from(!request.by_threshold);
                        if request.at_once { stopper.stop() } else { stopper.drain() }
                    }
                    MemberEvent::Hold(change) => hold_run(stopper, change, origin_ns),
                    MemberEvent::Warn(text) => print_to_stderr(&format!("warning: {text}")),
                    MemberEvent::Ready(_) | MemberEvent::Begin(_) | MemberEvent::Refuse(_) => {}
                }
            }
        }
    }

    /// Writes the end of a share's file, and leaves the file where the shares have agreed to.
    async fn close_share(&self, writer: ShareWriter, end: ShareEnd, joined: Option<Joined>) -> Result<(), CliError> {
        let (lost, store) = match joined {
            Some(joined) => Some(joined.end().await).unzip(),
            None => (None, None),
        };
        let end = ShareEnd { lost: lost.unwrap_or_default(), ..end };
        let path = self.arguments.shared.finish_file(writer, end, self.arguments.quiet)?;
        if let Some(store) = store {
            store.store(&path, self.arguments.quiet).await;
        }
        Ok(())
    }

    /// Returns the header of a share's file.
    fn share_header(
        &self,
        plan: &Plan,
        share: Share,
        (origin_ns, clock_error): (i64, Option<Nanos>),
        sources: &Sources,
    ) -> ShareHeader {
        ShareHeader {
            format: record::FORMAT.to_owned(),
            format_version: record::FORMAT_VERSION,
            share,
            common: self.common_facts(plan, sources),
            origin_ns,
            machine: share::machine_name(),
            clock_error,
            threads: self.shard_count(plan) as u16,
        }
    }

    /// Returns what all shares of the run have in common.
    fn common_facts(&self, plan: &Plan, sources: &Sources) -> CommonFacts {
        let Plan { id, phases, roles, ordered, lost_shares, .. } = plan;
        let content = format!("{phases:?} {roles:?} {}", sources.file(self.file).text);
        let run = self.arguments.shared.run.as_ref().map(ToString::to_string).unwrap_or_default();
        let subjects = self.script.metric_subjects();
        CommonFacts {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            run,
            seed: self.seed,
            protocol: self.script.pack.name.clone(),
            plan: id.clone(),
            plan_hash: share::short_hash(&content),
            ordered: *ordered,
            lost_shares: *lost_shares,
            thresholds: self.thresholds.iter().map(|threshold| threshold.text.clone()).collect(),
            messages: subjects.messages,
            journeys: subjects.journeys,
            labelled: self.script.labelled_messages(),
        }
    }

    /// Returns what the share needs to agree with others on a start.
    fn participation(&self, plan: &Plan, sources: &Sources) -> ParticipationSettings {
        let ramps: Duration = plan.roles.iter().map(|role| role.population.ramp_time()).sum();
        let share = self.arguments.shared.share.unwrap_or(Share::WHOLE);
        ParticipationSettings {
            run: self.arguments.shared.run.clone().unwrap_or_default(),
            member: MemberSettings {
                share,
                member: uuid::Uuid::new_v4().as_u64_pair().0,
                place: share::place(),
                facts: self.common_facts(plan, sources),
                quorum: share.of(),
                preparation: (START_TIME + ramps).as_nanos() as Nanos,
            },
            duration: plan.phases.duration,
            thresholds: self.thresholds.clone(),
            changing_load: plan.changes_load(),
        }
    }

    /// Returns what is known about a run when it begins; `began` is in milliseconds since 1970.
    fn begin_metadata(&self, plan: &Plan, began: u64, workloads: Vec<JourneyWorkload>) -> LoadRunMetadata {
        LoadRunMetadata {
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: self.script.pack.name.clone(),
            plan: plan.id.clone(),
            title: plan.title.clone(),
            target: self.shown.target.clone(),
            command: self.shown.command.clone(),
            started: began,
            seed: self.seed,
            schedules: self.script.schedules(plan, plan.phases.longest_warm_up() + plan.phases.duration),
            workloads,
            changing_load: plan.changes_load(),
            ..LoadRunMetadata::default()
        }
    }

    /// Begins the drain of a run on the first request to stop it, and stops it on the second.
    fn stop_run(&self, control: &RunControl, asked: usize) {
        if asked > 1 {
            return control.stop();
        }
        if !self.arguments.quiet {
            eprintln!("draining: no new journeys begin, running ones finish; press Ctrl-C again to stop at once");
        }
        control.drain();
    }

    fn shard_count(&self, plan: &Plan) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.arguments.threads.map_or_else(|| plan.needed_threads(cores), usize::from)
    }

    /// Prints which resources the machine lacks, or that the hub is unreachable. Returns whether the run must not
    /// begin.
    fn report_shortages(&self, setup: &LoadRunSetup, embedded: bool) -> Result<bool, CliError> {
        let shortages = engine::machine_shortages(setup, embedded)?;
        if let Err(error) = engine::probe_hub(setup) {
            eprintln!("{}", CliError::from(error).render());
            return Ok(true);
        }
        for shortage in &shortages {
            eprintln!("{}: {shortage}", if self.arguments.force { "warning" } else { "error" });
        }
        if !shortages.is_empty() && !self.arguments.force {
            eprintln!("  help: --force runs the plan anyway");
        }
        Ok(!shortages.is_empty() && !self.arguments.force)
    }

    fn run_facts(
        &self,
        plan: &Plan,
        prepared: &CompiledPlan,
        embedded: bool,
        outcome: &LoadRunOutcome,
    ) -> Vec<(String, String)> {
        let roles: Vec<String> =
            plan.roles.iter().map(|role| format!("{} {}", role.population.number, role.name)).collect();
        let mut facts = vec![
            (
                "populations".to_owned(),
                format!(
                    "{}; {} of {} joined before the measured time",
                    roles.join(", "),
                    outcome.joined,
                    outcome.clients
                ),
            ),
            ("threads".to_owned(), format!("{} with connections, one for aggregation", self.shard_count(plan))),
        ];
        if let Some(steady) = outcome.steady {
            let why = if steady { "throughput and response times were steady" } else { "the limit of `auto`" };
            facts.push(("warm-up".to_owned(), format!("{}, until {why}", format_time(outcome.warm_up))));
        }
        let shared = describe_shared_rows(prepared);
        if !shared.is_empty() {
            facts.push(("rows".to_owned(), shared.join("; ")));
        }
        if embedded {
            facts.push(("hub".to_owned(), "runs in threads of this process".to_owned()));
        }
        if let Some(checked) = &outcome.checked {
            let share = match self.arguments.validate {
                ValidationMode::Sample(share) => {
                    format!("{} % of the received messages, at least {LEAST_PER_MESSAGE} of each", share * 100.0)
                }
                _ => "all received messages".to_owned(),
            };
            let some = |number: u64, what: &str| if number > 0 { format!(", {number} {what}") } else { String::new() };
            let (skipped, undocumented) =
                (some(checked.skipped, "skipped"), some(checked.undocumented, "that match no message of the protocol"));
            facts.push((
                "validated".to_owned(),
                format!("{share}: {} messages, {} invalid{undocumented}{skipped}", checked.checked, checked.invalid),
            ));
            if !checked.complaints.is_empty() {
                let complaints =
                    checked.complaints.iter().map(|(complaint, count)| format!("{count} times {complaint}"));
                facts.push(("invalid".to_owned(), complaints.collect::<Vec<_>>().join("; ")));
            }
        }
        if self.arguments.source.is_some() {
            facts.push(("source addresses".to_owned(), "several, used in turn".to_owned()));
        }
        facts
    }
}

/// Returns what the live page holds and resumes the run with.
fn hold_switch(control: RunControl) -> HoldSwitch {
    Arc::new(move |begins| if begins { control.hold() } else { control.resume() }.is_some())
}

/// Waits until the user wants the run to stop: by a signal, or on the live page.
async fn wait_for_stop(signals: &mut SignalListener, live: Option<&LivePage>) {
    tokio::select! {
        () = signals.wait_for_signal() => {}
        () = stopped_on(live) => {}
    }
}

/// Begins or ends the hold that all shares have agreed on.
fn hold_run(control: &RunControl, change: HoldChange, origin_ns: i64) {
    let agreed = Nanos::try_from(change.at.saturating_sub(origin_ns)).unwrap_or_default();
    let (text, at) = match change.begins {
        true => ("the run is held: no new journeys begin", control.hold_from(agreed)),
        false => ("the run goes on", control.resume_at(agreed)),
    };
    print_to_stderr(text);
    if at.is_none_or(|at| at > agreed) {
        print_to_stderr("warning: this share learnt of it too late, so its load differs from that of the others");
    }
}

/// Returns what the other shares of the run did; waits for ever if there are none.
async fn next_event(joined: &mut Option<Joined>) -> MemberEvent {
    match joined {
        Some(joined) => joined.next_event().await,
        None => std::future::pending().await,
    }
}

/// Describes the feeders that have fewer rows than a role has clients.
fn describe_shared_rows(prepared: &CompiledPlan) -> Vec<String> {
    let mut found = Vec::new();
    for role in &prepared.roles {
        for feeder in role.feeders().into_iter().filter(|feeder| !feeder.random) {
            let (name, rows, clients) = (&feeder.name, feeder.rows.len(), role.population);
            if rows < clients as usize {
                let rows = format_count(rows, "row");
                found.push(format!("{name} has {rows} for {clients} clients of {}, which share them", role.name));
            }
        }
    }
    found
}

/// Describes what decides whether the conclusions of a run can be trusted.
fn describe_circumstances(
    outcome: &LoadRunOutcome,
    workloads: Vec<JourneyWorkload>,
    prepared: &CompiledPlan,
    sources: &Sources,
    masker: &SecretMasker,
) -> RunCircumstances {
    let mut failed = outcome.failed_openings.clone();
    failed.sort_by_key(|failed| (failed.role, failed.client));
    failed.truncate(MAX_EXAMPLES);
    let failed = failed.iter().map(|failed| failed.describe(prepared, |span| sources.path_and_line(span)));
    RunCircumstances {
        workloads,
        clients: outcome.clients,
        unjoined: outcome.clients - outcome.joined,
        unsteady_warm_up: (outcome.steady == Some(false)).then_some(outcome.warm_up),
        hopeless: outcome.hopeless.clone(),
        failed_openings: failed.map(|text| masker.mask(&text).into_owned()).collect(),
        holds: outcome.holds.clone(),
    }
}

/// Describes a wait in which journeys ended.
fn describe_wait(
    prepared: &CompiledPlan,
    sources: &Sources,
    ((role, wait), journeys): ((u16, JourneyWait), u64),
) -> Wait {
    let program = &prepared.roles[usize::from(role)].programs[wait.program];
    let journey = program.journey.map_or("", |journey| &prepared.journeys[usize::from(journey.0)]).to_owned();
    let (message, place) = match program.ops.get(wait.at) {
        Some(ProgramOperation::Expect(expect)) => {
            let message = expect.message.map_or("a message", |message| &prepared.messages[usize::from(message.0)]);
            (message.to_owned(), sources.path_and_line(expect.span))
        }
        _ => Default::default(),
    };
    Wait { journey, message, place, timed_out: wait.timed_out, journeys }
}

/// Parses the thresholds of the plan and of the command line, before anything is started.
///
/// # Errors
///
/// A metric, message or journey that does not exist, or one that the plan never counts.
pub fn parse_thresholds(
    texts: &[String],
    plan: &Plan,
    script: &PlanScript,
    sources: &mut Sources,
) -> Result<Vec<MetricThreshold>, CliError> {
    let on_command_line = texts.iter().map(|text| {
        let span = Span::new(sources.add("--threshold", text.clone()), 0..text.len());
        plan::ThresholdText { text: text.clone(), span, abort_after: None }
    });
    let written: Vec<plan::ThresholdText> = plan.thresholds.iter().cloned().chain(on_command_line).collect();
    let layout = MetricRegistry::new(script.metric_subjects());
    threshold::parse_plan_thresholds(&written, plan.ordered, &layout)
        .map_err(|found| CliError::from_diagnostics(&found, sources))
}
