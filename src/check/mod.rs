//! Checks a hub: decides which scenarios run, on which instance, and how many at a time. `job` combines a scenario with
//! its instance, `driver` plays it, and `exploration_rounds` makes one report of all rounds of a run,
//! for which `trial` judges proposed deviations. `first_contact` sends the first messages of several protocols to an
//! unknown hub.

pub mod comparison;
mod confirm;
mod driver;
mod exploration_rounds;
pub mod first_contact;
mod job;
mod open_places;
mod permits;
mod queue;
mod variations;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use comparison::PlayComparer;
use confirm::{DoubtfulFailure, ReplayTime};
pub use exploration_rounds::{Round, Rounds};
use job::PlayPhase;
pub use job::ScenarioJob;
pub use open_places::find_open_places;
use permits::CONNECTION_RELEASE_DELAY;
use queue::{Draining, Queued, SpareTime};
pub use variations::VariationChoice;
use variations::VariedPlay;

use crate::hub::prepare::{SetupError, TestedHub, prepare_hub};
use crate::interpreter::shorten_frame;
use crate::judge::proposal::ScenarioTrial;
use crate::judge::service::ServiceProbe;
use crate::judge::{self, Evidence, PlayId, has_passed};
use crate::outcome::{ScenarioReport, Verdict};
use crate::report::events::ScenarioEvent;
use crate::scenario::model::{StepAction, first_cases_first};

#[derive(Clone, Debug)]
pub struct PlayOptions {
    /// Number of scenarios to play at a time.
    pub jobs: usize,
    /// Factor by which every wait is stretched.
    pub stretch: f64,
    pub repeat: usize,
    /// The longest time that a scenario may take.
    pub limit: Duration,
    pub stated_only: bool,
    pub trace: bool,
    /// How many characters of a payload are kept for reports: [`crate::interpreter::KEPT_CHARS`], or more where
    /// payloads are compared.
    pub kept_chars: usize,
    /// Whether a conversation continues after an expected frame that does not arrive, see
    /// [`crate::interpreter::ConversationConfig`].
    pub persistent: bool,
    /// Whether waits are shortened for what the hub does not send.
    pub shorten: bool,
    /// Whether scenarios that destroy the hub may run even if it cannot be restarted.
    pub destructive: bool,
    /// Whether hubs without WebSocket are played scenarios about connections, too: in cases of the fuzzer, pings and closes
    /// only show that a client is served.
    pub on_any_carrier: bool,
    pub variations: VariationChoice,
    /// How long a round plays variations at least, if as many as fit are played: more than the scenarios' waits leave.
    pub variation_time: Duration,
    /// How long replays may take that confirm failures of scenarios, all of them together.
    pub replay_time: Duration,
    /// Distinguishes this run from all others.
    pub stamp: String,
    /// The current Unix time in milliseconds.
    pub now_ms: i64,
    /// Compares the plays of generated scenarios with plays elsewhere, if they are to be compared.
    pub comparer: Option<Arc<dyn PlayComparer>>,
}

/// Runs all scenarios of a round and reports their results on `events`. Stops early, but cleanly, once `interrupt` is true.
///
/// # Errors
///
/// [`SetupError`], before anything has run.
pub async fn run_scenarios(
    round: Round,
    events: mpsc::Sender<ScenarioEvent>,
    interrupt: watch::Receiver<bool>,
) -> Result<(), SetupError> {
    let Round { hubs, trials, options } = round;
    let mut jobs = create_jobs(hubs, trials, &options)?;
    let basic = basic_scenarios(&jobs);
    let reported_chars = options.kept_chars;
    let kept_chars = options.comparer.as_ref().map_or(reported_chars, |comparer| comparer.kept_chars());
    let (passed, doubtful, differing) = (Mutex::default(), Mutex::default(), Mutex::default());
    let options = PlayOptions { kept_chars, ..options };
    let spares = SpareTime { until: Instant::now() + options.variation_time, least: options.variation_time / 3 };
    let busy_until = Mutex::new(spares.until);
    let is_accused = AtomicBool::new(false);
    let round = RunningRound {
        options,
        events,
        interrupt,
        reported_chars,
        passed,
        doubtful,
        differing,
        busy_until,
        is_accused,
    };
    let round = Arc::new(round);
    // How long replays have taken.
    let (begun, mut replaying) = (Instant::now(), Duration::ZERO);
    let comes_back = jobs.iter().all(|(_, job)| job.is_on_hub_that_comes_back());
    // Scenarios that share the hub come first, then those that need it alone, then those that destroy it.
    // Walks use up what other scenarios need, such as jobs that anyone may do.
    for (phase, walks) in [
        (PlayPhase::Shared, false),
        (PlayPhase::Alone, false),
        (PlayPhase::Shared, true),
        (PlayPhase::Destructive, false),
    ] {
        let jobs = jobs.extract_if(.., |(_, job)| {
            job.phase() == phase && (phase != PlayPhase::Shared || round.is_compared(job) == walks)
        });
        let queued = |(id, job): (PlayId, ScenarioJob)| Queued {
            wait: job.planned_wait(),
            resource: job.resource(),
            basic: basic.contains(&job.program().id),
            rough: is_rough(&job),
            spare: job.variation().is_some(),
            item: (id, job),
        };
        let play = |(id, job): (PlayId, ScenarioJob)| {
            let round = Arc::clone(&round);
            async move { round.play(id, job).await }
        };
        let RunningRound { options, events, interrupt, passed, doubtful, busy_until, .. } = &*round;
        let to_the_end = options.variations != VariationChoice::Spare;
        let is_ready = |(_, job): &(PlayId, ScenarioJob), beside: usize| {
            let fits = || job.pauses().is_zero() || Instant::now() + job.pauses() <= *busy_until.lock();
            let bears = || beside == 0 || !job.is_on_slow_hub(options);
            let has_time = to_the_end || bears() && !round.has_enough(job) && fits();
            has_time && passed.lock().contains_key(&job.program().id)
        };
        let draining = |at_once: usize| Draining { at_once, to_the_end, spares, is_ready: &is_ready };
        let jobs = jobs.map(|(number, job)| (PlayId::first(number as u64), job));
        queue::drain(jobs.map(queued).collect(), draining(options.jobs), interrupt, play).await;
        // Scenarios for which the hub was too busy have shown nothing yet, so they are no replays.
        for at_once in judge::smaller_crowds(options.jobs) {
            let is_refused = |failure: &mut DoubtfulFailure| failure.evidence == Evidence::Refusal;
            let refused: Vec<DoubtfulFailure> = doubtful.lock().extract_if(.., is_refused).collect();
            let again = refused.into_iter().map(|failure| (failure.id.replay(0), failure.job));
            let play_later = |item: (PlayId, ScenarioJob)| {
                let playing = play(item);
                async move {
                    tokio::time::sleep(CONNECTION_RELEASE_DELAY).await;
                    playing.await;
                }
            };
            queue::drain(again.map(queued).collect(), draining(at_once), interrupt, play_later).await;
        }
        let failures = std::mem::take(&mut *doubtful.lock());
        let longest = passed.lock().values().map(|report| report.duration).max().unwrap_or_default();
        let (limit, before) = (options.replay_time.max(longest * REPLAYS_ON_A_SLOW_HUB), Instant::now());
        // What the scenarios took is no longer there for replays: a verdict now is worth more than its last confirmation.
        // A hub that hubproof cannot start again may be gone after the scenarios that destroy it.
        let is_last = phase == PlayPhase::Destructive || walks && !comes_back;
        let (whole, least) = if is_last { (limit, limit / 3) } else { (limit / 3 * 2, limit / 6) };
        let left = whole.saturating_sub(begun.elapsed()).max(least.saturating_sub(replaying));
        let time = ReplayTime { limit: left, is_last, is_accused: &round.is_accused };
        let mut open = confirm::confirm_failures(failures, time, options, events, interrupt).await;
        doubtful.lock().append(&mut open);
        replaying += before.elapsed();
    }
    Ok(())
}

/// Returns the numbered jobs of a round: its scenarios, its trials, and then the variations.
fn create_jobs(
    hubs: Vec<TestedHub>,
    trials: Vec<ScenarioTrial>,
    options: &PlayOptions,
) -> Result<Vec<(usize, ScenarioJob)>, SetupError> {
    let mut jobs = Vec::new();
    let mut prepared_hubs = Vec::new();
    for hub in hubs {
        let prepared = prepare_hub(&hub)?;
        prepared_hubs.push((Arc::clone(&prepared), Arc::clone(&hub.promptness)));
        let service_probes = Arc::new(prepared.instances.iter().map(|_| ServiceProbe::default()).collect());
        for repetition in 1..=options.repeat {
            for program in first_cases_first(&hub.programs) {
                let job = ScenarioJob::new(program, repetition, &prepared, options)?;
                let job = job.with_service_probes(&service_probes);
                let job = if options.shorten { job.with_shortened_waits(&hub.promptness) } else { job };
                // Numbered over all phases: a hub may remember the names of earlier scenarios.
                jobs.push((jobs.len(), job));
            }
        }
    }
    for ScenarioTrial { hub, id, program, deviations, awaited } in trials {
        let (hub, promptness) = &prepared_hubs[hub];
        let job = ScenarioJob::new(&program, 1, hub, options)?.with_deviations(id, deviations);
        let job = if options.shorten {
            job.with_shortened_waits(&job::promptness_for_trial(promptness, &awaited))
        } else {
            job
        };
        jobs.push((jobs.len(), job));
    }
    // Varied plays come after all others, in slots that would be idle.
    let varied = jobs.iter().enumerate().flat_map(|(turn, (_, job))| variations::varied_jobs(job, options, turn));
    let mut varied: Vec<(usize, ScenarioJob)> = varied.collect();
    varied.sort_by_key(|(rank, _)| *rank);
    let begin = jobs.len();
    jobs.extend(varied.into_iter().enumerate().map(|(index, (_, job))| (begin + index, job)));
    Ok(jobs)
}

/// What the plays of a round share.
struct RunningRound {
    options: PlayOptions,
    events: mpsc::Sender<ScenarioEvent>,
    interrupt: watch::Receiver<bool>,
    /// How many characters of a payload reports keep, if plays keep more for the comparer.
    reported_chars: usize,
    /// The reports of the scenarios that have passed, by id.
    passed: Mutex<BTreeMap<String, Arc<ScenarioReport>>>,
    /// The failures of this phase that are to be replayed.
    doubtful: Mutex<Vec<DoubtfulFailure>>,
    /// Until when the scenarios that have begun are known to wait.
    busy_until: Mutex<Instant>,
    /// How many scenarios are confirmed, or being confirmed, to differ with a variation, by its name.
    differing: Mutex<BTreeMap<String, usize>>,
    /// Whether the hub is shown to break a rule.
    is_accused: AtomicBool,
}

impl RunningRound {
    /// Whether plays of this job are compared with plays elsewhere.
    fn is_compared(&self, job: &ScenarioJob) -> bool {
        self.options.comparer.as_ref().is_some_and(|comparer| comparer.concerns(job.program()))
    }

    /// Records that a scenario begins, which is known to wait for this long.
    fn stay_busy(&self, wait: Duration) {
        let mut busy_until = self.busy_until.lock();
        *busy_until = busy_until.max(Instant::now() + wait);
    }

    /// Whether enough scenarios differ with the job's variation.
    fn has_enough(&self, job: &ScenarioJob) -> bool {
        let count = job.variation().and_then(|variation| self.differing.lock().get(&variation.to_string()).copied());
        count.is_some_and(|count| count >= MAX_DIFFERING)
    }

    /// Whether a difference that this variation makes is worth confirming. To confirm many of the same kind would only delay
    /// the verdict.
    fn may_confirm(&self, job: &ScenarioJob) -> bool {
        let Some(variation) = job.variation() else { return false };
        let mut differing = self.differing.lock();
        let count = differing.entry(variation.to_string()).or_default();
        let may = *count < MAX_DIFFERING || self.options.variations != VariationChoice::Spare;
        *count += usize::from(may);
        may
    }

    /// Plays a job, and reports the result unless it has to be confirmed first.
    async fn play(&self, id: PlayId, job: ScenarioJob) {
        let Self { options, events, interrupt, .. } = self;
        let (name, varied) = (job.id().to_owned(), job.variation().is_some());
        let report = if varied {
            let plain = self.passed.lock().get(&job.program().id).cloned();
            let Some(plain) = plain else { return };
            let Some(job) = variations::with_open_places(&job, &plain) else { return };
            let may_confirm = || self.may_confirm(&job);
            let may_confirm: &(dyn Fn() -> bool + Sync) = &may_confirm;
            VariedPlay { job: &job, plain: &plain, id, options, interrupt, may_confirm }.find_difference().await
        } else {
            self.stay_busy(job.planned_wait());
            job.clone().play(id, options, events, interrupt.clone()).await
        };
        let Some(mut report) = report else {
            if varied {
                let _ = events.send(ScenarioEvent::Varied { id: name }).await;
            }
            return;
        };
        if !self.is_compared(&job)
            && let Some(evidence) = job.evidence_of_failure(&report, options)
        {
            self.doubtful.lock().push(DoubtfulFailure { job, id, evidence, report });
            return;
        }
        if !varied && has_passed(&report) {
            self.passed.lock().insert(name.clone(), Arc::new(report.clone()));
        }
        if report.verdict == Verdict::Fail {
            self.is_accused.store(true, Ordering::Relaxed);
        }
        if options.kept_chars > self.reported_chars {
            report.history.iter_mut().for_each(shorten_frame);
        }
        let _ = events.send(ScenarioEvent::Finished(Box::new(ScenarioReport { id: name, ..report }))).await;
    }
}

/// How many scenarios are shown to differ with a variation.
const MAX_DIFFERING: usize = 4;
/// How many replays there is time for on a hub on which the longest scenario takes long.
const REPLAYS_ON_A_SLOW_HUB: u32 = 4;

/// The longest wait of a scenario that is played late because it may bring the hub down. Longer ones would prolong the run.
const MAX_LATE_WAIT: Duration = Duration::from_secs(2);

/// Whether a scenario may bring the hub down, because it sends frames or texts that are no messages.
fn is_rough(job: &ScenarioJob) -> bool {
    let mut steps = job.program().blocks.iter().flatten();
    steps.any(|step| matches!(step.act, StepAction::SendRaw(_))) && job.planned_wait() <= MAX_LATE_WAIT
}

/// How many scenarios of a protocol are played before all others.
const BASIC_SCENARIOS: usize = 8;

/// Returns the ids of the shortest scenarios of each protocol. They show its basic exchanges, so that the first findings come
/// early, and later scenarios know how fast the hub is.
fn basic_scenarios(jobs: &[(usize, ScenarioJob)]) -> BTreeSet<String> {
    let mut by_protocol: BTreeMap<&str, Vec<(Duration, usize, &str)>> = BTreeMap::new();
    for (_, job) in jobs.iter().filter(|(_, job)| job.has_place() && job.variation().is_none() && !is_rough(job)) {
        let program = job.program();
        let steps = program.blocks.iter().map(Vec::len).sum();
        by_protocol.entry(&program.pack.name).or_default().push((job.planned_wait(), steps, &program.id));
    }
    let shortest = |mut programs: Vec<(Duration, usize, &str)>| {
        programs.sort_unstable();
        programs.into_iter().take(BASIC_SCENARIOS).map(|(_, _, id)| id.to_owned()).collect::<Vec<_>>()
    };
    by_protocol.into_values().flat_map(shortest).collect()
}

/// Plays items as `next` returns them, at most `at_once` at a time, and returns when all started items have ended and
/// `next` has no more. `next` is called only when a slot is free and `interrupt` is not true; it may return `None` and,
/// once an item has ended, further items.
///
/// # Panics
///
/// If `play` panics.
pub async fn play_in_order<T, F>(
    mut next: impl FnMut() -> Option<T>,
    at_once: usize,
    interrupt: &watch::Receiver<bool>,
    play: impl Fn(T) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    loop {
        while tasks.len() < at_once.max(1) && !*interrupt.borrow() {
            let Some(item) = next() else { break };
            tasks.spawn(play(item));
        }
        match tasks.join_next().await {
            None => return,
            Some(Ok(())) => {}
            Some(Err(error)) => {
                if let Ok(panic) = error.try_into_panic() {
                    resume_unwind(panic);
                }
            }
        }
    }
}

/// Returns six random letters and digits that distinguish this run from others.
pub fn stamp() -> String {
    judge::to_base36(uuid::Uuid::new_v4().as_u64_pair().0).chars().take(6).collect()
}
