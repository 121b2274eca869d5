//! Plays cases on a hub: each is made when its turn comes, parsed like any scenario, and played by the engine of
//! `hubproof check`. The result is the report of a scenario whose id contains the number of the case.

pub mod confirm;
pub mod control_run;
mod copied_input;
pub mod exclusive;
pub mod fingerprint;
pub mod latency_drift;
mod pauses;
pub mod results;
pub mod second_hub;
pub mod shrink_findings;
pub mod walks;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::exclusive::ResourceQueues;
use self::latency_drift::LatencyProbe;
use self::pauses::PauseWatch;
use super::actors::{BATCH_VARIABLE, MUTATED_STEP, ROUND_VARIABLE};
use super::case::FuzzCase;
use super::case_scenario::{CaseScenario, CaseStep};
use super::corpus::Corpus;
use super::differential::compare::ComparisonFacts;
use super::oracle;
use super::scheduler::CaseScheduler;
use crate::check::comparison::SecondHub;
use crate::check::{self, PlayOptions, ScenarioJob};
use crate::hub::prepare::PreparedHub;
use crate::judge::memory::DifferenceMemory;
use crate::judge::service::{HubOutage, ServiceProbe};
use crate::judge::{Evidence, PlayId, Replay, Ruling};
use crate::outcome::{CheckReport, FrameKind, FrameReport, HubSpeed, ScenarioReport, Verdict};
use crate::protocol::{Pack, PackFolder, RulePlace};
use crate::reference::model::ReferenceModel;
use crate::report::events::ScenarioEvent;
use crate::report::fuzz::{NewClientLatency, PauseTally};
use crate::scenario::parse::verbs::StepVerb;
use crate::scenario::parse::{SharedFile, parse_scenario};
use crate::scenario::template::Template;
use crate::scenario::{self, Program};
use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::source::{FileId, Sources, Span};
use crate::syntax::yaml::{self, SyntaxNode};

/// One protocol, with everything that its cases are made of.
pub struct Campaign {
    pub corpus: Arc<Corpus>,
    pub scheduler: CaseScheduler,
    /// What a comparison with another hub needs to know.
    pub facts: Arc<ComparisonFacts>,
    /// What trials of differences from another hub have shown.
    pub(crate) differences: DifferenceMemory,
    shared: SharedFile,
    /// The file of spans in programs and reports of cases; see [`Campaign::place_report`].
    file: FileId,
    /// Programs, by the text that several cases share.
    programs: Mutex<HashMap<String, Arc<Program>>>,
    /// Numbers of cases that still waited for a resource when a run ended; they are played in the next.
    left: Mutex<Vec<u64>>,
    /// How fast the hub has answered so far.
    speed: Mutex<HubSpeed>,
}

/// Most cached programs; each takes some tens of kilobytes.
const MAX_CACHED_PROGRAMS: usize = 2000;

/// Where and how cases are played.
#[derive(Clone)]
pub struct PlayEnvironment {
    pub hub: Arc<PreparedHub>,
    pub options: Arc<PlayOptions>,
    /// What else receives the same input, so that the answers are compared.
    pub against: Option<SecondHub>,
    /// By instance, what finds out whether the hub still serves new clients.
    pub service_probes: Option<Arc<Vec<ServiceProbe>>>,
    /// Receives events of the run.
    pub events: mpsc::Sender<ScenarioEvent>,
    /// True once the run has to end.
    pub interrupt: watch::Receiver<bool>,
}

impl PlayEnvironment {
    /// Returns the environment of a replay.
    pub fn for_replay(&self, replay: &Replay) -> Self {
        self.patient(replay.patience.into())
    }

    /// Returns the same environment, in which every wait lasts `factor` times as long.
    pub fn patient(&self, factor: f64) -> Self {
        let stretch = self.options.stretch * factor;
        Self { options: Arc::new(PlayOptions { stretch, ..PlayOptions::clone(&self.options) }), ..self.clone() }
    }
}

impl Campaign {
    /// Loads a folder that has been checked. `seed` determines the cases, and `given`, the settings of the target by
    /// name, which of them are valid.
    ///
    /// # Errors
    ///
    /// The diagnostics of the pack.
    pub fn new(
        folder: &PackFolder,
        sources: &mut Sources,
        seed: u64,
        given: Map<String, Value>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let (pack, diagnostics) = Pack::load(folder, sources);
        let Some(mut pack) = pack else { return Err(diagnostics) };
        pack.rules.extend(oracle::oracle_rules(sources).into_iter().map(|rule| (rule.id.clone(), rule)));
        let pack = Arc::new(pack);
        let shared = scenario::load_shared(folder, sources, &pack, &mut Vec::new());
        let corpus = Arc::new(Corpus::from_folder(folder, sources, &pack, given));
        let scheduler = CaseScheduler::new(&corpus, seed, &|_| true);
        let file = sources.add("case.yaml", "");
        let facts = Arc::new(ComparisonFacts::for_corpus(&corpus));
        let (programs, left, speed) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Self {
            corpus,
            scheduler,
            facts,
            differences: DifferenceMemory::default(),
            shared,
            file,
            programs,
            left,
            speed,
        })
    }

    pub fn pack(&self) -> &Arc<Pack> {
        &self.corpus.pack
    }

    /// Returns the id of a case: `<protocol>/case-<number>`.
    pub fn id(&self, number: u64) -> String {
        format!("{}/case-{number}", self.pack().name)
    }

    /// Whether a rule is an oracle, and not one of the document.
    pub fn is_oracle(&self, rule: &str) -> bool {
        self.pack().rules.get(rule).is_some_and(|rule| rule.place == RulePlace::Oracle)
    }

    /// Compiles a scenario: a case, or one derived from a case. Its spans are in no file; see
    /// [`Campaign::place_report`].
    ///
    /// # Errors
    ///
    /// The messages of its diagnostics.
    pub fn program(&self, id: &str, scenario: &CaseScenario) -> Result<Program, String> {
        let root = SyntaxNode::from_json(&Value::Object(scenario.to_map()), Span::new(self.file, 0..0));
        let (program, diagnostics) = parse_scenario(id, &root, &self.shared, self.pack());
        let words = |diagnostic: &Diagnostic| diagnostic.message.clone();
        program.ok_or_else(|| diagnostics.iter().map(words).collect::<Vec<_>>().join("; "))
    }

    /// Plays a scenario: a case, or one derived from a case. `play` must differ from all others of the run. Returns `None`
    /// if the run was interrupted before.
    pub async fn play(
        &self,
        id: &str,
        scenario: &CaseScenario,
        play: PlayId,
        environment: &PlayEnvironment,
    ) -> Option<ScenarioReport> {
        let job = self.job(id, scenario, environment);
        // Boxed, since the futures of plays are large.
        Box::pin(self.play_job(id, scenario, play, environment, job)).await
    }

    async fn play_job(
        &self,
        id: &str,
        scenario: &CaseScenario,
        play: PlayId,
        environment: &PlayEnvironment,
        job: Result<ScenarioJob, String>,
    ) -> Option<ScenarioReport> {
        let played = match job {
            Ok(job) => job.play(play, &environment.options, &environment.events, environment.interrupt.clone()).await,
            Err(mistake) => Some(self.mistake_report(id, mistake)),
        };
        played.map(|mut report| {
            self.lock_speed().add(report.waits.speed);
            id.clone_into(&mut report.id);
            // Declared deviations are known, and findings of `hubproof check`.
            report.checks.retain(|check| check.deviation.is_none());
            report.title.clone_from(&scenario.title);
            // Reports the exit of its process under an oracle.
            for check in report.checks.iter_mut().filter(|check| check.name == crate::hub::supervisor::PROCESS_CHECK) {
                let received = check.detail.take().map(|detail| detail.received);
                *check = results::process_check(self, check.verdict, std::mem::take(&mut check.message), received);
            }
            // All other failures of a hub that has exited follow from that.
            if report.checks.iter().any(|check| check.verdict == Verdict::Fail && check.name == results::PROCESS_ORACLE)
            {
                report.checks.retain(|check| check.verdict != Verdict::Fail || check.name == results::PROCESS_ORACLE);
            }
            report
        })
    }

    /// Plays a scenario on the hub, then on the model, and returns both reports. Omits the second report if the model
    /// cannot play the scenario, or if the hub was not reached.
    pub async fn play_with_model(
        &self,
        id: &str,
        scenario: &CaseScenario,
        play: PlayId,
        environment: &PlayEnvironment,
        model: &ReferenceModel,
    ) -> Option<(ScenarioReport, Option<ScenarioReport>)> {
        let job = self.job(id, scenario, environment);
        let twin = job.clone();
        let report = Box::pin(self.play_job(id, scenario, play, environment, job)).await?;
        let is_met = second_hub::was_served(&report);
        let played = twin.ok().filter(|_| is_met).and_then(|job| job.play_on_model(play, &environment.options, model));
        Some((report, played))
    }

    /// Returns the program of a scenario, ready to be played. Cases that differ only in the mutated message share one,
    /// since parsing takes longer than playing.
    fn job(&self, id: &str, scenario: &CaseScenario, environment: &PlayEnvironment) -> Result<ScenarioJob, String> {
        let job = |program: &Arc<Program>| {
            let job = ScenarioJob::new(program, 1, &environment.hub, &environment.options)
                .map_err(|error| error.to_string())?;
            Ok(match &environment.service_probes {
                Some(service_probes) => job.with_service_probes(service_probes),
                None => job,
            })
        };
        // A trace shows the id of the program, so that with one each case needs its own.
        let shared = split_shared_text(scenario).filter(|_| !environment.options.trace);
        let Some((mut key, name, sent)) = shared else { return job(&Arc::new(self.program(id, scenario)?)) };
        let mut diagnostics = Vec::new();
        let input = Template::from_node(&SyntaxNode::from_json(&sent, Span::new(self.file, 0..0)), &mut diagnostics);
        if let Some(diagnostic) = diagnostics.first() {
            return Err(diagnostic.message.clone());
        }
        // A program needs the settings without default that its expressions use.
        input.visit_expressions(&mut |expression| {
            let uses = expression.uses.iter().filter_map(|used| used.strip_prefix("hub.")?.split('.').next());
            let settings = &self.shared.shared.settings;
            let given = uses.filter(|name| settings.get(*name).is_some_and(|setting| setting.default.is_none()));
            given.for_each(|name| key.push_str(&format!("needs {name}\n")));
        });
        let known = self.lock_programs().get(&key).cloned();
        let program = match known {
            Some(program) => program,
            None => {
                let program = Arc::new(self.program(id, scenario)?);
                let mut programs = self.lock_programs();
                if programs.len() >= MAX_CACHED_PROGRAMS {
                    programs.clear();
                }
                Arc::clone(programs.entry(key).or_insert(program))
            }
        };
        Ok(job(&program)?.with_input(id, name, input))
    }

    fn lock_programs(&self) -> MutexGuard<'_, HashMap<String, Arc<Program>>> {
        // Nothing panics while it holds the lock, and a program that is missing is read again.
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the hub is so slow that what did not come in time may still come.
    pub fn is_hub_slow(&self, hub: &PreparedHub, options: &PlayOptions) -> bool {
        self.lock_speed().ample_wait() > hub.target.patience.mul_f64(options.stretch)
    }

    fn lock_speed(&self) -> MutexGuard<'_, HubSpeed> {
        // Nothing panics while it holds the lock.
        self.speed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_waiting_cases(&self) -> MutexGuard<'_, Vec<u64>> {
        // Nothing panics while it holds the lock.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Converts the spans of a report into ones of a file with its scenario, which is added to `sources`.
    pub fn place_report(&self, report: &mut ScenarioReport, scenario: &CaseScenario, sources: &mut Sources) {
        let name = report.id.rsplit('/').next().unwrap_or_default();
        let file = sources.add(format!("{name}.yaml"), scenario.text());
        let written = yaml::parse(sources, file).ok();
        let program = written.and_then(|root| parse_scenario(&report.id, &root, &self.shared, self.pack()).0);
        let put = |span: &mut Option<Span>, name: &str| {
            if let Some(place) = span.filter(|span| span.file == self.file) {
                let checks = program.iter().flat_map(|program| &program.checks);
                let found = checks.filter(|check| check.name == name).map(|check| check.span).next();
                *span = Some(Span { file, ..found.unwrap_or(Span { start: 0, end: 0, ..place }) });
            }
        };
        report.span = Span { file, ..program.as_ref().map_or(report.span, |program| program.span) };
        for check in &mut report.checks {
            put(&mut check.span, &check.name);
        }
        if let Some(cause) = &mut report.cause {
            put(&mut cause.span, "");
        }
        if let (Some(mistake), Some(at)) = (&report.mistake, &mut report.mistake_at)
            && at.file == self.file
        {
            let mut steps = program.iter().flat_map(|program| program.blocks.iter().flatten());
            let of_step = |text: &str| mistake.strip_prefix(text).is_some_and(|rest| rest.starts_with(": "));
            let step = steps.find(|step| step.span.file == file && of_step(&step.text));
            *at = step.map_or(report.span, |step| step.span);
        }
    }

    /// Returns the report of a case that cannot be parsed, which is a defect of hubproof.
    fn mistake_report(&self, id: &str, mistake: String) -> ScenarioReport {
        ScenarioReport {
            verdict: Verdict::Inconclusive,
            mistake: Some(mistake),
            ..ScenarioReport::new(&self.pack().name, id, "", Span::new(self.file, 0..0))
        }
    }
}

/// The state of the hub after a run.
pub struct FinalHubState {
    /// Set if the run ended early because the hub cannot be reached any more.
    pub gone: Option<HubLost>,
    /// A case whose conversation still fails at the end of the run, without the mutated message.
    pub stuck: Option<u64>,
    pub slower: Option<NewClientLatency>,
    /// How often and how long the hub paused, and this machine stalled.
    pub pauses: [Option<PauseTally>; 2],
    /// When the hub did not serve clients.
    pub outages: Vec<HubOutage>,
    /// Whether the hub serves clients now.
    pub is_served: bool,
}

/// A hub that no client reaches any more, or that serves none.
pub struct HubLost {
    /// The report of the first case that could not connect, or was not served.
    pub report: ScenarioReport,
    /// Numbers of the cases that were being played then.
    pub under_way: Vec<u64>,
    /// Whether it accepts connections and sends nothing.
    pub hangs: bool,
}

/// Plays the cases of these numbers, as many at a time as the options say, and sends the same events as
/// [`check::run_scenarios`]. Starts no further case once it is interrupted, `over` returns true, or the hub cannot be
/// reached any more. Each case is made when its turn comes.
pub async fn run_cases(
    campaign: Arc<Campaign>,
    mut environment: PlayEnvironment,
    numbers: impl Iterator<Item = u64>,
    over: impl Fn() -> bool + Send + Sync + 'static,
) -> FinalHubState {
    let queues = Arc::new(ResourceQueues::default());
    let probe = LatencyProbe::measure_start(&campaign, &environment).await.map(Arc::new);
    let pauses = probe.as_ref().map(|probe| Arc::new(PauseWatch::new(probe, &environment)));
    let watch = Arc::new(HubWatch { pauses: pauses.clone(), ..HubWatch::default() });
    // Without a message of the hub in the probe, nothing shows whether the hub hangs.
    let service_probe = || probe.as_ref().and_then(|probe| probe.service_probe(&campaign));
    environment.service_probes =
        environment.hub.instances.iter().map(|_| service_probe()).collect::<Option<Vec<ServiceProbe>>>().map(Arc::new);
    let mut watching = JoinSet::new();
    if let Some((pauses, probe)) = pauses.clone().zip(probe.clone()) {
        let (campaign, environment) = (Arc::clone(&campaign), environment.clone());
        watching.spawn(async move { pauses.follow(&campaign, &environment, &probe).await });
    }
    let is_there = {
        let (watch, hub) = (Arc::clone(&watch), Arc::clone(&environment.hub));
        Arc::new(move || watch.lock_state().gone.is_none() && !hub.is_given_up() && !over())
    };
    let play = |number: u64| {
        let (campaign, environment, watch) = (Arc::clone(&campaign), environment.clone(), Arc::clone(&watch));
        let (queues, is_there) = (Arc::clone(&queues), Arc::clone(&is_there));
        async move {
            let Some(mut case) = campaign.scheduler.case(&campaign.corpus, number) else { return };
            let exclusive = exclusive_resource(&case, &environment);
            if exclusive.as_ref().is_some_and(|resource| !queues.take_or_queue(resource, number)) {
                return;
            }
            loop {
                play_case(&campaign, &environment, &watch, &case).await;
                let Some(resource) = exclusive.as_ref().filter(|_| is_there() && !*environment.interrupt.borrow())
                else {
                    return;
                };
                let next = std::iter::from_fn(|| queues.next_waiting(resource));
                let Some(next) = { next }.find_map(|number| campaign.scheduler.case(&campaign.corpus, number)) else {
                    return;
                };
                case = next;
            }
        }
    };
    let left = std::mem::take(&mut *campaign.lock_waiting_cases());
    let mut numbers = left.into_iter().chain(numbers).fuse();
    // A number must not be taken without being played.
    let next = || if is_there() { numbers.next() } else { None };
    check::play_in_order(next, environment.options.jobs, &environment.interrupt, play).await;
    drop(watching);
    campaign.lock_waiting_cases().extend(queues.take_waiting());
    let (gone, stuck) = {
        let mut watched = watch.lock_state();
        (watched.gone.take(), watched.stuck.take())
    };
    let stuck = match stuck {
        Some((number, control)) if gone.is_none() => {
            let mut trial = Evidence::Obstruction.trial(PlayId::first(number));
            while let Some(replay) = trial.next_replay() {
                let patient = environment.for_replay(&replay);
                let played = campaign.play(&campaign.id(number), &control, replay.id, &patient).await;
                let Some(is_stuck) = played.as_ref().and_then(control_run::continuation_is_broken) else { break };
                trial.record(is_stuck);
            }
            trial.ruling().stands().then_some(number)
        }
        _ => None,
    };
    let slower = match probe {
        Some(probe) if gone.is_none() => probe.measure_end(&campaign, &environment).await,
        _ => None,
    };
    let is_served = gone.is_none() && !environment.hub.is_given_up();
    let outages = find_outages(&environment, gone.as_ref()).await;
    let pauses = pauses.map(|pauses| pauses.tallies()).unwrap_or_default();
    FinalHubState { gone, stuck, slower, pauses, outages, is_served }
}

/// Returns when the hub did not serve clients. A hub that is gone or hangs at the end has not served them since.
async fn find_outages(environment: &PlayEnvironment, gone: Option<&HubLost>) -> Vec<HubOutage> {
    let mut outages = Vec::new();
    for service_probe in environment.service_probes.iter().flat_map(|service_probes| service_probes.iter()) {
        outages.extend(service_probe.outages().await);
    }
    if let Some(HubLost { report, .. }) = gone {
        let since = outages.iter().map(|outage| outage.since).fold(report.begun, Duration::min);
        outages.push(HubOutage { since, noticed: Duration::MAX });
    }
    outages
}

/// Returns the exclusive resource of a case that other cases may use, too; `None` if the case gets a hub of its own, or
/// needs the whole hub, for which the engine waits until all other cases have ended.
fn exclusive_resource(case: &FuzzCase, environment: &PlayEnvironment) -> Option<String> {
    case.scenario.exclusive.clone().filter(|resource| resource != "hub" && environment.hub.embedded.is_none())
}

async fn play_case(campaign: &Campaign, environment: &PlayEnvironment, watch: &HubWatch, case: &FuzzCase) {
    let number = case.number;
    watch.lock_state().under_way.insert(number);
    let id = campaign.id(number);
    let play = async |play: PlayId| match &environment.against {
        Some(other) => second_hub::play_and_compare(campaign, &case.scenario, play, environment, other).await,
        None => campaign.play(&id, &case.scenario, play, environment).await,
    };
    let played = match &watch.pauses {
        Some(pauses) => Box::pin(pauses.play_case(campaign, case, play)).await,
        None => play(PlayId::first(number)).await.map(|report| (report, false)),
    };
    if let Some((mut report, is_judged)) = played {
        copied_input::remove_copied_mistakes(&mut report, campaign.pack());
        control_run::lower_self_inflicted(&mut report, campaign.pack());
        if report.unserved.is_some() {
            // A hub that no longer serves clients is not accused of anything else that is missing.
            report.checks.iter_mut().filter(|check| check.accuses_hub()).for_each(CheckReport::make_inconclusive);
        } else if let Some(control) = control_run::control_scenario(&case.scenario, &report).filter(|_| !is_judged) {
            let mut trial = Evidence::Mutation.trial(PlayId::first(number));
            while let Some(replay) = trial.next_replay() {
                let scenario = if replay.is_control { &control } else { &case.scenario };
                let scenario = scenario_for_replay(scenario, &replay);
                let played = campaign.play(&id, &scenario, replay.id, &environment.for_replay(&replay)).await;
                let Some(is_stuck) = played.as_ref().and_then(control_run::continuation_is_broken) else { break };
                trial.record(is_stuck);
            }
            match trial.ruling() {
                Ruling::Stands { .. } => {}
                Ruling::Open if *environment.interrupt.borrow() => control_run::leave_undecided(&mut report),
                Ruling::Open => {}
                doubt => {
                    control_run::lower_finding(&mut report, doubt);
                    if doubt == Ruling::Anyway {
                        watch.lock_state().stuck = Some((number, control));
                    }
                }
            }
        }
        watch.record_report(number, &report, environment).await;
        let _ = environment.events.send(ScenarioEvent::Finished(Box::new(report))).await;
    }
}

/// Returns a scenario as a trial wants it replayed; alone means on a hub of its own where hubproof starts hubs.
pub fn scenario_for_replay(scenario: &CaseScenario, replay: &Replay) -> CaseScenario {
    let exclusive = if replay.is_alone { Some("hub".to_owned()) } else { scenario.exclusive.clone() };
    CaseScenario { exclusive, ..scenario.clone() }
}

/// Consecutive cases without a connection after which the hub is given up.
const MAX_UNREACHABLE_CASES: usize = 4;
/// How long a hub that refuses all connections as if overloaded must have had none of ours before it is given up.
const MIN_TIME_UNOCCUPIED: Duration = Duration::from_secs(5);

/// Watches whether the hub is still there.
#[derive(Default)]
struct HubWatch {
    state: Mutex<HubWatchState>,
    pauses: Option<Arc<PauseWatch>>,
}

#[derive(Default)]
struct HubWatchState {
    under_way: BTreeSet<u64>,
    /// Whether a server answered any case: one that was never there cannot be gone.
    met: bool,
    /// Consecutive cases that could not connect, and what was being played when the first of them ended.
    attempts: usize,
    first: Option<(HubLost, Instant)>,
    gone: Option<HubLost>,
    /// The last case whose control run failed, too, and the scenario of that control run.
    stuck: Option<(u64, CaseScenario)>,
}

impl HubWatch {
    fn lock_state(&self) -> MutexGuard<'_, HubWatchState> {
        // Nothing in here panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn record_report(&self, number: u64, report: &ScenarioReport, environment: &PlayEnvironment) {
        let unreachable = report.cause.as_ref().is_some_and(|cause| cause.unreachable);
        let pause = {
            let mut state = self.lock_state();
            let under_way = state.under_way.iter().copied().collect();
            state.under_way.remove(&number);
            if !report.unmet.is_empty() {
                // The case was not played.
                return;
            }
            state.met |= hub_answered(report);
            if report.unserved.is_some() && state.gone.is_none() {
                state.gone = Some(HubLost { report: report.clone(), under_way, hangs: true });
                return;
            }
            if !unreachable && !report.is_refused_by_proxy() {
                // A refusal while other cases connect is a limit, not the end; but a case that was already being played
                // at the first refusal may have connected before it.
                let was_under_way = |(gone, _): &(HubLost, Instant)| gone.under_way.contains(&number);
                if !state.first.as_ref().is_some_and(was_under_way) {
                    state.attempts = 0;
                    state.first = None;
                }
                return;
            }
            if !state.met {
                return;
            }
            if state.first.is_none() {
                state.first = Some((HubLost { report: report.clone(), under_way, hangs: false }, Instant::now()));
            }
            state.attempts += 1;
            // Cases that were being played at the first refusal do not count as attempts.
            let enough = state.attempts > MAX_UNREACHABLE_CASES + environment.options.jobs;
            let free = unreachable || state.is_unoccupied();
            if enough && free && state.gone.is_none() {
                state.gone = state.first.take().map(|(gone, _)| gone);
            }
            match (state.gone.is_some(), enough) {
                (true, _) => return,
                (false, false) => REACH_PAUSE,
                (false, true) => LONG_REACH_PAUSE,
            }
        };
        // Gives the hub time to exit, or to start.
        let mut interrupt = environment.interrupt.clone();
        let interrupted = interrupt.wait_for(|interrupted| *interrupted);
        let _ = tokio::time::timeout(pause, interrupted).await;
    }
}

impl HubWatchState {
    /// Whether no client of ours has been connected for so long that the hub cannot be busy with us.
    fn is_unoccupied(&self) -> bool {
        self.first.as_ref().is_some_and(|(gone, since)| {
            since.elapsed() >= MIN_TIME_UNOCCUPIED
                && !gone.under_way.iter().any(|number| self.under_way.contains(number))
        })
    }
}

/// Whether a server answered on a connection of the case, and not only a proxy in front of it.
fn hub_answered(report: &ScenarioReport) -> bool {
    let met = |frame: &FrameReport| match frame.kind {
        FrameKind::Open | FrameKind::NoUpgrade => true,
        FrameKind::Refused => !frame.is_server_error(),
        _ => false,
    };
    report.history.iter().any(met)
}

/// Pause between attempts to reach a hub that does not answer.
const REACH_PAUSE: Duration = Duration::from_millis(250);
/// Pause between further attempts to reach the hub, after the first [`MAX_UNREACHABLE_CASES`].
const LONG_REACH_PAUSE: Duration = Duration::from_secs(2);

/// Splits a case into the text that other cases share with it, the name of the step (or loop) that sends the mutated
/// input, and that input. The title is left out. `None` where no other case can share its program.
fn split_shared_text(scenario: &CaseScenario) -> Option<(String, &'static str, Value)> {
    let mut input = None;
    let mut shared = CaseScenario { title: String::new(), ..scenario.clone() };
    for step in &mut shared.steps {
        if let Some((name, sent)) = mutated_input_key(step)
            && input.replace((name, sent.take())).is_some()
        {
            return None;
        }
    }
    let (name, sent) = input?;
    Some((format!("{}\n", Value::Object(shared.to_map())), name, sent))
}

/// Returns, for a step that sends mutated input, the name that it binds or loops over, and the input.
fn mutated_input_key(step: &mut CaseStep) -> Option<(&'static str, &mut Value)> {
    match (step.verb, step.argument.as_str()) {
        (StepVerb::Each, Some(ROUND_VARIABLE)) => Some((ROUND_VARIABLE, step.option_mut("in")?)),
        // The rounds are inside the batches.
        (StepVerb::Each, Some(BATCH_VARIABLE)) => Some((BATCH_VARIABLE, step.option_mut("in")?)),
        (StepVerb::SendsRaw, _) if step.name() == Some(MUTATED_STEP) => Some((MUTATED_STEP, &mut step.argument)),
        _ => None,
    }
}
