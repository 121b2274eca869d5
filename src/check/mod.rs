//! Checks a hub: which scenarios run, where, how many at a time. `play` runs one of them.

mod hubs;
mod play;
mod process;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{Mutex, RwLock, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

pub use hubs::{EmbeddedHubs, HubsError};
use process::Visit;
pub use process::{CHECK as PROCESS_CHECK, HubProcess};

use crate::event::{Cause, Event, ScenarioReport, Verdict};
use crate::hook::Trust;
use crate::interpret::{Config, unmet};
use crate::pack::Pack;
use crate::report::scenario_verdict;
use crate::scenario::{Isolation, Program, Shared};
use crate::secret::Masker;
use crate::target::{DEFAULT_CONNECTIONS, HookSpec, Target};
use crate::transport::{Endpoint, Room, tls};

/// The longest messages that may be on their way at the same time, over all scenarios; others wait until one is handled.
const LONG_MESSAGES: usize = 4;

/// One protocol and the hub it is checked on.
pub struct Subject {
    pub pack: Arc<Pack>,
    pub shared: Arc<Shared>,
    pub programs: Vec<Arc<Program>>,
    pub target: Target,
    /// The reference server, where the target is ours: exclusive scenarios get a hub of their own.
    pub embedded: Option<Arc<EmbeddedHubs>>,
    /// Hubs that were started for this run, with the instances of the target that are served by each.
    pub processes: Vec<(Arc<HubProcess>, Vec<usize>)>,
}

#[derive(Clone, Debug)]
pub struct Options {
    /// Scenarios at a time.
    pub jobs: usize,
    /// Stretches every wait.
    pub stretch: f64,
    pub repeat: usize,
    /// The longest a scenario may take.
    pub limit: Duration,
    pub stated_only: bool,
    pub trace: bool,
    /// Scenarios that destroy the hub may run though it cannot be restarted.
    pub destructive: bool,
    /// Distinguishes this run from all others.
    pub stamp: String,
    /// Unix time in milliseconds, now.
    pub now_ms: i64,
}

/// An instance of a target, ready to be connected to.
#[derive(Clone)]
pub struct Site {
    pub name: String,
    pub endpoint: Endpoint,
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub hooks: BTreeMap<String, HookSpec>,
    /// Whom hooks trust; `None` where none of them speaks TLS.
    pub trust: Option<Trust>,
    /// Defaults of the protocol included.
    pub settings: BTreeMap<String, Value>,
    pub provides: BTreeSet<String>,
    /// The process behind it, where it was started for this run.
    pub process: Option<Arc<HubProcess>>,
    /// For the long messages of all connections to this hub.
    pub room: Room,
}

/// Why nothing can be checked.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("the address of instance `{instance}`: {reason}")]
    Endpoint { instance: String, reason: String },
    #[error("{0}")]
    Tls(String),
    #[error("{0}")]
    Need(String),
}

/// A scenario with the place where it will run.
struct Job {
    program: Arc<Program>,
    place: Place,
    repetition: usize,
    subject: Arc<Prepared>,
}

enum Place {
    Site(usize),
    /// No instance meets these needs.
    Nowhere(Vec<String>),
}

struct Prepared {
    /// When it was `now_ms` of the options.
    begun: Instant,
    sites: Vec<Arc<Site>>,
    target: Target,
    embedded: Option<Arc<EmbeddedHubs>>,
    masker: Arc<Masker>,
    /// Most connections at a time, at least one.
    connections: usize,
    budget: Arc<Semaphore>,
    /// Read by scenarios that share the hub, written by those that must be alone on it.
    hub: Arc<RwLock<()>>,
    words: Arc<Mutex<HashMap<String, Arc<Mutex<()>>>>>,
}

/// How many scenarios there are to run, repetitions included.
pub fn count(subjects: &[Subject], options: &Options) -> usize {
    subjects.iter().map(|subject| subject.programs.len()).sum::<usize>() * options.repeat
}

/// Runs all scenarios, and reports on `events`; ends early, but in order, once `interrupt` is true.
///
/// # Errors
///
/// [`SetupError`], before anything has run.
pub async fn run(
    subjects: Vec<Subject>,
    options: Options,
    events: mpsc::Sender<Event>,
    interrupt: watch::Receiver<bool>,
) -> Result<(), SetupError> {
    let mut jobs = Vec::new();
    let mut last = Vec::new();
    for subject in subjects {
        let prepared = Arc::new(prepare(&subject)?);
        for repetition in 1..=options.repeat {
            for program in &subject.programs {
                let place = place(program, &prepared, &options)?;
                let job = Job { program: Arc::clone(program), place, repetition, subject: Arc::clone(&prepared) };
                if program.isolation == Isolation::Destructive { last.push(job) } else { jobs.push(job) }
            }
        }
    }
    // What needs the hub for itself comes after what shares it, and what destroys it comes last.
    jobs.sort_by_key(|job| matches!(&job.program.isolation, Isolation::Exclusive(word) if word == "hub" && job.subject.embedded.is_none()));
    let slots = Arc::new(Semaphore::new(options.jobs.max(1)));
    for jobs in [jobs, last] {
        let mut tasks = JoinSet::new();
        for (number, job) in jobs.into_iter().enumerate() {
            // In the order of the list: the permit is taken here, not in the task.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
            if *interrupt.borrow() {
                break;
            }
            let (options, events, interrupt) = (options.clone(), events.clone(), interrupt.clone());
            tasks.spawn(async move {
                let _slot = slot;
                if let Some(report) = run_job(job, number, &options, &events, interrupt).await {
                    let _ = events.send(Event::Finished(Box::new(report))).await;
                }
            });
            while tasks.try_join_next().is_some() {}
        }
        while tasks.join_next().await.is_some() {}
    }
    Ok(())
}

/// Knows every secret of the target: those it calls so, and those that are secret by the protocol's word, wherever the
/// target writes them.
pub fn masker(subject: &Subject) -> Masker {
    let declared = |name: &str| subject.shared.settings.get(name).is_some_and(|setting| setting.secret);
    let settings = subject.target.instances.iter().flat_map(|instance| &instance.settings);
    let set = settings.filter(|(name, _)| declared(name)).flat_map(|(_, setting)| texts(&setting.value));
    Masker::new(subject.target.secrets().chain(set))
}

/// Every text in a value: a secret setting may be a mapping of headers.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(members) => members.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

fn prepare(subject: &Subject) -> Result<Prepared, SetupError> {
    let target = &subject.target;
    let defaults: BTreeMap<String, Value> = subject
        .shared
        .settings
        .iter()
        .filter_map(|(name, setting)| Some((name.clone(), setting.default.clone()?)))
        .collect();
    let secure = target.instances.iter().any(|instance| instance.url.starts_with("wss"));
    let config = if secure {
        Some(
            tls::client_config(target.tls.ca.as_deref(), target.tls.insecure)
                .map_err(|error| SetupError::Tls(error.to_string()))?,
        )
    } else {
        None
    };
    // A template may turn out to be https.
    let https = |spec: &HookSpec| matches!(spec, HookSpec::Http { url, .. } if !url.starts_with("http://"));
    let trust = target.instances.iter().flat_map(|instance| instance.hooks.values()).any(https);
    let trust = trust.then(|| Trust::new(&target.tls)).transpose();
    let trust = trust.map_err(|error| SetupError::Tls(error.to_string()))?;
    let connections = target.connections.or(subject.pack.ours.connections).unwrap_or(DEFAULT_CONNECTIONS).max(1);
    let room = Room::of(LONG_MESSAGES * play::LONGEST_MESSAGE);
    let mut sites = Vec::new();
    for (index, instance) in target.instances.iter().enumerate() {
        let endpoint: Endpoint = instance
            .url
            .parse()
            .map_err(|error| SetupError::Endpoint { instance: instance.name.clone(), reason: format!("{error}") })?;
        let mut settings = defaults.clone();
        for (name, setting) in &instance.settings {
            settings.insert(name.clone(), setting.value.clone());
        }
        let mut provides = instance.provides.clone();
        if endpoint.tls {
            provides.insert("tls".to_owned());
        }
        let process = subject.processes.iter().find(|(_, served)| served.contains(&index));
        sites.push(Arc::new(Site {
            name: instance.name.clone(),
            endpoint,
            tls: config.clone(),
            hooks: instance.hooks.clone(),
            trust: trust.clone(),
            settings,
            provides,
            process: process.map(|(process, _)| Arc::clone(process)),
            room: room.clone(),
        }));
    }
    Ok(Prepared {
        begun: Instant::now(),
        sites,
        target: target.clone(),
        embedded: subject.embedded.clone(),
        masker: Arc::new(masker(subject)),
        connections,
        budget: Arc::new(Semaphore::new(connections)),
        hub: Arc::default(),
        words: Arc::default(),
    })
}

/// The first instance that meets the needs, or the needs that the nearest one does not meet.
fn place(program: &Program, subject: &Prepared, options: &Options) -> Result<Place, SetupError> {
    let spared = program.isolation == Isolation::Destructive
        && subject.embedded.is_none()
        && !subject.target.restartable
        && !options.destructive;
    let mut nearest: Option<Vec<String>> = None;
    let fit = |site: &Site| !spared || site.process.is_some();
    if !subject.sites.iter().any(|site| fit(site)) {
        return Ok(Place::Nowhere(vec![
            "a hub that may be destroyed (--exec, --destructive, or `restartable = true`)".to_owned(),
        ]));
    }
    for (index, site) in subject.sites.iter().enumerate().filter(|(_, site)| fit(site)) {
        let provides = |word: &str| site.provides.contains(word);
        let hooks = |name: &str| site.hooks.contains_key(name);
        let missing = unmet(program, &site.settings, &provides, &hooks)
            .map_err(|error| SetupError::Need(format!("{}: {error}", program.id)))?;
        if missing.is_empty() {
            return Ok(Place::Site(index));
        }
        if nearest.as_ref().is_none_or(|known| missing.len() < known.len()) {
            nearest = Some(missing);
        }
    }
    Ok(Place::Nowhere(nearest.unwrap_or_default()))
}

/// `None` for one that was interrupted before its turn.
async fn run_job(
    job: Job,
    number: usize,
    options: &Options,
    events: &mpsc::Sender<Event>,
    mut interrupt: watch::Receiver<bool>,
) -> Option<ScenarioReport> {
    let index = match job.place {
        Place::Nowhere(unmet) => return Some(not_testable(&job.program, unmet, job.repetition)),
        Place::Site(index) => index,
    };
    let _ = events.send(Event::Started { id: job.program.id.clone() }).await;
    let site = &job.subject.sites[index];
    let number = base36(number as u64 + 1000 * job.repetition as u64);
    let stamp = format!("{}{number}", options.stamp);
    let Some(process) = site.process.clone() else {
        let _turn = turn(&job, &job.program.isolation, &mut interrupt).await?;
        return Some(play_job(&job, index, &stamp, options, events, interrupt).await);
    };
    let usual = if job.program.isolation == Isolation::Destructive { Visit::Destructive } else { Visit::Usual };
    let alone = Isolation::Exclusive("hub".to_owned());
    for (visit, isolation) in [(usual, &job.program.isolation), (Visit::Alone, &alone)] {
        let again = visit == Visit::Alone;
        let entered = async {
            let turn = turn(&job, isolation, &mut interrupt).await?;
            let entered = tokio::select! {
                entered = process.enter(&job.program.id, visit) => entered,
                _ = interrupt.wait_for(|stop| *stop) => return None,
            };
            Some((turn, entered))
        };
        let why = match entered.await {
            Some((_turn, Ok(visitor))) => {
                // What it was called the first time, a hub with a memory would know. No number begins with a zero.
                let stamp = if again { format!("{}0{number}", options.stamp) } else { stamp.clone() };
                let mut report = play_job(&job, index, &stamp, options, events, interrupt.clone()).await;
                let wrong = matches!(scenario_verdict(&report), Verdict::Fail | Verdict::Inconclusive);
                match process.leave(visitor, wrong).await {
                    // Others may have done it, and what they broke is not held against this one.
                    Some(fall) if !fall.alone && !again => continue,
                    // It fell before it had heard anything of this one.
                    Some(fall) if !fall.alone => {
                        "it ended by itself then, too, before anything was played on it".to_owned()
                    }
                    fall => {
                        if visit != Visit::Destructive {
                            process::judge(&mut report, fall);
                        }
                        return Some(report);
                    }
                }
            }
            Some((_, Err(why))) => why,
            None if again => "the run was interrupted".to_owned(),
            None => return None,
        };
        let message = match again {
            true => format!("the hub ended by itself while this was played, and it was not played again alone: {why}"),
            false => format!("the hub does not run: {why}"),
        };
        return Some(failed(&job.program, message, job.repetition));
    }
    // The second turn of the loop always returns.
    None
}

/// What a scenario holds while it is played.
type Turn = (Result<tokio::sync::OwnedSemaphorePermit, tokio::sync::AcquireError>, Isolated);

/// Waits until a scenario may be played; `None` when the run is interrupted before.
async fn turn(job: &Job, isolation: &Isolation, interrupt: &mut watch::Receiver<bool>) -> Option<Turn> {
    let subject = &job.subject;
    let permits = u32::try_from(job.program.connections.clamp(1, subject.connections)).unwrap_or(1);
    let turn = async {
        let budget = Arc::clone(&subject.budget).acquire_many_owned(permits).await;
        (budget, isolate(isolation, subject).await)
    };
    tokio::select! {
        turn = turn => Some(turn),
        _ = interrupt.wait_for(|stop| *stop) => None,
    }
}

/// Plays a scenario whose turn it is.
async fn play_job(
    job: &Job,
    index: usize,
    stamp: &str,
    options: &Options,
    events: &mpsc::Sender<Event>,
    interrupt: watch::Receiver<bool>,
) -> ScenarioReport {
    let subject = &job.subject;
    let mut site = Arc::clone(&subject.sites[index]);
    let mut own = None;
    if let (Some(embedded), false) = (&subject.embedded, job.program.isolation == Isolation::Shared) {
        match embedded.start_one(index).await {
            Ok((url, hub)) => {
                if let Ok(endpoint) = url.parse() {
                    site = Arc::new(Site { endpoint, hooks: hub.hooks(&site.hooks), ..Site::clone(&site) });
                }
                own = Some(hub);
            }
            Err(error) => {
                let message = format!("no hub of its own could be started: {error}");
                return failed(&job.program, message, job.repetition);
            }
        }
    }
    let masker = Arc::clone(&subject.masker);
    let config = Config {
        settings: site.settings.clone(),
        stamp: stamp.to_owned(),
        // A conversation counts from its own beginning, which may come late in the run.
        epoch_ms: options.now_ms + i64::try_from(subject.begun.elapsed().as_millis()).unwrap_or(0),
        patience: subject.target.patience,
        quiet: subject.target.quiet,
        stretch: options.stretch,
        stated_only: options.stated_only,
        trace: options.trace,
        mask: Arc::new(move |text: &str| masker.mask(text).into_owned()),
    };
    let name = site.name.clone();
    let mut report = play::play(Arc::clone(&job.program), config, site, options.limit, events.clone(), interrupt).await;
    report.instance = name;
    report.repetition = job.repetition;
    mask(&mut report, &subject.masker);
    if let Some(hub) = own {
        hub.shutdown().await;
    }
    report
}

/// Whatever keeps others away, until it is dropped.
struct Isolated {
    _reading: Option<tokio::sync::OwnedRwLockReadGuard<()>>,
    _writing: Option<tokio::sync::OwnedRwLockWriteGuard<()>>,
    _word: Option<tokio::sync::OwnedMutexGuard<()>>,
}

async fn isolate(isolation: &Isolation, subject: &Prepared) -> Isolated {
    let none = Isolated { _reading: None, _writing: None, _word: None };
    if subject.embedded.is_some() && *isolation != Isolation::Shared {
        // It gets a hub of its own.
        return none;
    }
    match isolation {
        Isolation::Shared => Isolated { _reading: Some(Arc::clone(&subject.hub).read_owned().await), ..none },
        Isolation::Exclusive(word) if word != "hub" => {
            let lock = Arc::clone(subject.words.lock().await.entry(word.clone()).or_default());
            let held = lock.lock_owned().await;
            Isolated { _word: Some(held), _reading: Some(Arc::clone(&subject.hub).read_owned().await), ..none }
        }
        Isolation::Exclusive(_) | Isolation::Destructive => {
            Isolated { _writing: Some(Arc::clone(&subject.hub).write_owned().await), ..none }
        }
    }
}

fn not_testable(program: &Program, unmet: Vec<String>, repetition: usize) -> ScenarioReport {
    ScenarioReport { unmet, verdict: Verdict::NotTestable, ..blank(program, repetition) }
}

fn failed(program: &Program, message: String, repetition: usize) -> ScenarioReport {
    let cause = Cause { span: None, step: String::new(), message, detail: None, unreachable: false };
    ScenarioReport { cause: Some(cause), verdict: Verdict::Inconclusive, ..blank(program, repetition) }
}

fn blank(program: &Program, repetition: usize) -> ScenarioReport {
    ScenarioReport {
        protocol: program.pack.name.clone(),
        id: program.id.clone(),
        title: program.title.clone(),
        span: program.span,
        instance: String::new(),
        repetition,
        verdict: Verdict::Pass,
        checks: Vec::new(),
        unmet: Vec::new(),
        cause: None,
        mistake: None,
        leftovers: Vec::new(),
        history: Vec::new(),
        history_dropped: 0,
        duration: Duration::ZERO,
        slimmest: None,
    }
}

/// Takes secrets out of every text of a report; frames were masked before they were cut.
fn mask(report: &mut ScenarioReport, masker: &Masker) {
    let clean = |text: &mut String| *text = masker.mask(text).into_owned();
    for check in &mut report.checks {
        clean(&mut check.message);
        if let Some(detail) = &mut check.detail {
            clean(&mut detail.expected);
            clean(&mut detail.received);
            detail.sent.iter_mut().for_each(clean);
        }
    }
    if let Some(cause) = &mut report.cause {
        clean(&mut cause.message);
        if let Some(detail) = &mut cause.detail {
            clean(&mut detail.expected);
            clean(&mut detail.received);
            detail.sent.iter_mut().for_each(clean);
        }
    }
    report.mistake.iter_mut().for_each(clean);
}

pub fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit((number % 36) as u32, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}
