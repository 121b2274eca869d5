//! Checks a hub: which scenarios run, where, how many at a time. `job` is one of them with its place, `play` runs it.

mod driver;
mod job;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{Mutex, RwLock, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

pub use crate::hub::supervisor::{CHECK as PROCESS_CHECK, HubProcess};
pub use crate::reference::hubs::{EmbeddedHubs, HubsError};
pub use job::Job;

use crate::config::{DEFAULT_CONNECTIONS, HookSpec, Target};
use crate::event::Event;
use crate::hub::hook::Trust;
use crate::protocol::Pack;
use crate::redact::Masker;
use crate::scenario::{Isolation, Program, Shared};
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
    /// Characters of a payload that are kept: [`crate::interpreter::KEPT`], or more where what was said is compared.
    pub kept: usize,
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

/// A hub that scenarios can be played on.
pub struct Prepared {
    /// When it was `now_ms` of the options.
    begun: Instant,
    sites: Vec<Arc<Site>>,
    target: Target,
    pub(crate) embedded: Option<Arc<EmbeddedHubs>>,
    masker: Arc<Masker>,
    /// Most connections at a time, at least one.
    connections: usize,
    /// Pack or target say so: there may be no more.
    limited: bool,
    budget: Arc<Semaphore>,
    /// Read by scenarios that share the hub, written by those that must be alone on it.
    hub: Arc<RwLock<()>>,
    words: Arc<Mutex<HashMap<String, Arc<Mutex<()>>>>>,
}

impl Prepared {
    /// Whether hubs are ours to start: what is not shared gets one of its own.
    pub fn is_ours(&self) -> bool {
        self.embedded.is_some()
    }

    /// Whether a hub that was started for the run is not started any more.
    pub fn is_given_up(&self) -> bool {
        self.sites.iter().filter_map(|site| site.process.as_ref()).any(|process| process.is_given_up())
    }

    /// The first instance of the target; there is always one.
    pub fn first(&self) -> &Arc<Site> {
        &self.sites[0]
    }
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
        let prepared = prepare(&subject)?;
        for repetition in 1..=options.repeat {
            for program in &subject.programs {
                let job = Job::new(program, repetition, &prepared, &options)?;
                if program.isolation == Isolation::Destructive { last.push(job) } else { jobs.push(job) }
            }
        }
    }
    // What needs the hub for itself comes after what shares it, and what destroys it comes last.
    jobs.sort_by_key(|job| job.is_alone());
    let options = Arc::new(options);
    for jobs in [jobs, last] {
        let play = |(number, job): (usize, Job)| {
            let (options, events, interrupt) = (Arc::clone(&options), events.clone(), interrupt.clone());
            async move {
                if let Some(report) = job.play(number, &options, &events, interrupt).await {
                    let _ = events.send(Event::Finished(Box::new(report))).await;
                }
            }
        };
        in_turn(jobs.into_iter().enumerate(), options.jobs, &interrupt, play).await;
    }
    Ok(())
}

/// Plays whatever comes, in its order, so many at a time; takes no more once `interrupt` is true, and ends when all that
/// were begun have ended. Items are asked for as there is room for them, so they may be endless.
pub async fn in_turn<T, F>(
    items: impl Iterator<Item = T>,
    at_once: usize,
    interrupt: &watch::Receiver<bool>,
    play: impl Fn(T) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(at_once.max(1)));
    let mut tasks = JoinSet::new();
    for item in items {
        // In the order of the items: the permit is taken here, not in the task.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        if *interrupt.borrow() {
            break;
        }
        let playing = play(item);
        tasks.spawn(async move {
            let _slot = slot;
            playing.await;
        });
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
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

/// Reads the addresses of a target, and what it takes to connect to them.
///
/// # Errors
///
/// [`SetupError`].
pub fn prepare(subject: &Subject) -> Result<Arc<Prepared>, SetupError> {
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
    let limit = target.connections.or(subject.pack.ours.connections);
    let connections = limit.unwrap_or(DEFAULT_CONNECTIONS).max(1);
    let room = Room::of(LONG_MESSAGES * driver::LONGEST_MESSAGE);
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
        // What is told of a hub can be needed by its name; a default is told by nobody.
        let mut provides = instance.provides.clone();
        provides.extend(instance.settings.keys().cloned());
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
    Ok(Arc::new(Prepared {
        begun: Instant::now(),
        sites,
        target: target.clone(),
        embedded: subject.embedded.clone(),
        masker: Arc::new(masker(subject)),
        connections,
        limited: limit.is_some(),
        budget: Arc::new(Semaphore::new(connections)),
        hub: Arc::default(),
        words: Arc::default(),
    }))
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
