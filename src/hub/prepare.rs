//! Prepares a hub for a run: its instances with addresses, TLS, hooks and settings, and its limits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{Mutex, RwLock, Semaphore};

use super::client::TestedClient;
use super::supervisor::HubProcess;
use crate::config::{DEFAULT_CONNECTIONS, HookSpec, Instance, Target};
use crate::deviation::Deviations;
use crate::hub::hook::TrustedCertificates;
use crate::interpreter::{HubPromptness, NeedError};
use crate::protocol::Pack;
use crate::redact::{SecretMasker, collect_texts};
use crate::reference::hubs::EmbeddedHubs;
use crate::scenario::{Program, SharedDefinitions};
use crate::transport::tls::{TlsError, client_config};
use crate::transport::{ConnectionEvent, Endpoint, MemoryBudget};
use crate::websocket::frame::NO_ANSWER;

/// The number of messages of [`MAX_MESSAGE_BYTES`] bytes that fit into the memory budget of a hub; further ones wait.
const BUDGETED_LONG_MESSAGES: usize = 4;

/// A protocol and the hub that is tested with it.
#[derive(Clone)]
pub struct TestedHub {
    pub pack: Arc<Pack>,
    pub shared: Arc<SharedDefinitions>,
    pub programs: Vec<Arc<Program>>,
    pub target: Target,
    /// The reference server, if it is the target: each exclusive scenario gets its own hub.
    pub embedded: Option<Arc<EmbeddedHubs>>,
    /// The client under test, if clients are tested: hubproof plays the hub.
    pub client: Option<Arc<TestedClient>>,
    /// Hubs that the run can start, each with the indices of the instances it serves.
    pub processes: Vec<(Arc<HubProcess>, Vec<usize>)>,
    /// How the hub deviates from its document.
    pub deviations: Arc<Deviations>,
    pub promptness: PromptnessByInstance,
}

impl TestedHub {
    /// Returns a hub without scenarios, processes and deviations.
    pub fn new(pack: Arc<Pack>, shared: Arc<SharedDefinitions>, target: Target) -> Self {
        Self {
            pack,
            shared,
            programs: Vec::new(),
            target,
            embedded: None,
            client: None,
            processes: Vec::new(),
            deviations: Arc::default(),
            promptness: PromptnessByInstance::default(),
        }
    }
}

/// How promptly each instance has answered so far, by name. Clones share it, so a later round of a run knows what
/// earlier rounds learned.
pub type PromptnessByInstance = Arc<std::sync::Mutex<BTreeMap<String, Arc<HubPromptness>>>>;

/// An instance of a target, with everything needed to connect to it.
#[derive(Clone)]
pub struct PreparedInstance {
    pub name: String,
    pub endpoint: Endpoint,
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub hooks: BTreeMap<String, HookSpec>,
    /// Certificates that hooks trust; `None` if no hook uses TLS.
    pub trust: Option<TrustedCertificates>,
    /// The settings by name, including the protocol's defaults.
    pub settings: BTreeMap<String, Value>,
    pub provides: BTreeSet<String>,
    /// The client under test, if clients are tested.
    pub client: Option<Arc<TestedClient>>,
    /// The process of the hub, if the run can start it.
    pub process: Option<Arc<HubProcess>>,
    /// The memory budget for long messages, shared by all connections to this hub.
    pub memory: MemoryBudget,
    /// Whether the hub has answered an upgrade, in any way.
    pub has_answered: Arc<AtomicBool>,
    /// When the hub last sent something to any client.
    pub last_sign: Arc<LastSign>,
}

/// The time at which a hub last sent something to any client.
#[derive(Debug)]
pub struct LastSign {
    begun: Instant,
    /// In microseconds after `begun`.
    last: AtomicU64,
}

impl LastSign {
    fn new(begun: Instant) -> Self {
        Self { begun, last: AtomicU64::new(0) }
    }

    /// Records that the hub sent something at this time.
    pub fn record(&self, at: Instant) {
        let micros = u64::try_from(at.saturating_duration_since(self.begun).as_micros()).unwrap_or(u64::MAX);
        self.last.fetch_max(micros, Ordering::Relaxed);
    }
}

impl PreparedInstance {
    /// Returns the same instance at another address, as a hub of its own.
    pub fn moved(&self, endpoint: Endpoint, hooks: BTreeMap<String, HookSpec>) -> Self {
        let last_sign = Arc::new(LastSign::new(Instant::now()));
        Self { endpoint, hooks, has_answered: Arc::default(), last_sign, ..self.clone() }
    }

    /// Returns the event of a connection to this instance. A hub that has not answered any upgrade yet cannot be reached,
    /// rather than being wrong; one that stops answering is.
    pub fn judge_contact(&self, event: ConnectionEvent) -> ConnectionEvent {
        match event {
            ConnectionEvent::Unreachable { .. } => event,
            ConnectionEvent::NoUpgrade { reason, .. }
                if reason.starts_with(NO_ANSWER) && !self.has_answered.load(Ordering::Relaxed) =>
            {
                ConnectionEvent::Unreachable { reason }
            }
            answered => {
                self.has_answered.store(true, Ordering::Relaxed);
                answered
            }
        }
    }
}

/// An error in a target, found before anything runs.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{scenario}: {source}")]
    Need { scenario: String, source: NeedError },
}

/// A hub that is ready to play scenarios on.
pub struct PreparedHub {
    /// The instant that corresponds to `now_ms` of the options.
    pub(crate) begun: Instant,
    pub(crate) instances: Vec<Arc<PreparedInstance>>,
    pub(crate) target: Target,
    pub(crate) embedded: Option<Arc<EmbeddedHubs>>,
    pub(crate) client: Option<Arc<TestedClient>>,
    pub(crate) masker: Arc<SecretMasker>,
    /// The most connections at a time; at least one.
    pub(crate) connections: usize,
    /// Whether the pack or the target sets this limit, so that no more connections may be open.
    pub(crate) limited: bool,
    pub(crate) budget: Arc<Semaphore>,
    /// Read-locked by scenarios that share the hub, write-locked by those that must be alone on it.
    pub(crate) hub: Arc<RwLock<()>>,
    /// A lock for each name in `exclusive`. Callers queue most such scenarios themselves; the locks hold for the rest:
    /// tokens that rest after a scenario, and cases of fuzz that are also played on a second hub.
    pub(crate) words: Arc<Mutex<HashMap<String, Arc<Mutex<()>>>>>,
    pub(crate) deviations: Arc<Deviations>,
}

impl PreparedHub {
    /// Whether the run can start further hubs, so that an isolated scenario gets its own.
    pub fn can_start_hubs(&self) -> bool {
        self.embedded.is_some()
    }

    /// Whether a scenario that must not be disturbed gets a hub, or a client, of its own.
    pub(crate) fn is_renewable(&self) -> bool {
        self.embedded.is_some() || self.client.is_some()
    }

    /// Returns when any instance last sent something to any client, relative to the start of the run.
    pub fn last_sign(&self) -> Duration {
        let last = self.instances.iter().map(|instance| instance.last_sign.last.load(Ordering::Relaxed)).max();
        Duration::from_micros(last.unwrap_or_default())
    }

    /// Returns how often the run has started hubs.
    pub fn process_starts(&self) -> usize {
        let processes = self.instances.iter().filter_map(|instance| instance.process.as_ref()?.report());
        processes.map(|process| process.starts).sum()
    }

    /// Whether a hub that the run can start has crashed too often to be started again.
    pub fn is_given_up(&self) -> bool {
        self.instances.iter().filter_map(|instance| instance.process.as_ref()).any(|process| process.is_given_up())
    }

    /// Returns the first instance of the target; there is always one.
    pub fn first_instance(&self) -> &Arc<PreparedInstance> {
        &self.instances[0]
    }
}

/// Returns a masker for all secrets of the target: those under `secrets`, and settings that the protocol declares
/// secret.
pub fn secret_masker(hub: &TestedHub) -> SecretMasker {
    let declared = |name: &str| hub.shared.settings.get(name).is_some_and(|setting| setting.secret);
    let settings = hub.target.instances.iter().flat_map(|instance| &instance.settings);
    let set = settings.filter(|(name, _)| declared(name)).flat_map(|(_, setting)| collect_texts(&setting.value));
    SecretMasker::new(hub.target.secrets().chain(set))
}

/// Returns the settings of an instance by name, including the protocol's defaults.
pub fn instance_settings(hub: &TestedHub, instance: &Instance) -> BTreeMap<String, Value> {
    let defaults = hub.shared.settings.iter();
    let defaults = defaults.filter_map(|(name, setting)| Some((name.clone(), setting.default.clone()?)));
    let deviating = hub.deviations.settings().map(|(name, value)| (name.to_owned(), value.clone()));
    let given = instance.settings.iter().map(|(name, setting)| (name.clone(), setting.value.clone()));
    defaults.chain(deviating).chain(given).collect()
}

/// Returns the certificates that hooks trust; `None` if no hook uses TLS.
///
/// # Errors
///
/// [`SetupError::Tls`].
pub fn trusted_certificates(target: &Target) -> Result<Option<TrustedCertificates>, SetupError> {
    // A template may evaluate to an https URL.
    let https = |spec: &HookSpec| matches!(spec, HookSpec::Http { url, .. } if !url.starts_with("http://"));
    let used = target.instances.iter().flat_map(|instance| instance.hooks.values()).any(https);
    Ok(used.then(|| TrustedCertificates::new(&target.tls)).transpose()?)
}

/// Parses the addresses of a target and collects everything needed to connect to them.
///
/// # Errors
///
/// [`SetupError`].
pub fn prepare_hub(hub: &TestedHub) -> Result<Arc<PreparedHub>, SetupError> {
    let target = &hub.target;
    let secure = target.instances.iter().any(|instance| instance.url.tls);
    let tls = &target.tls;
    let config = secure.then(|| client_config(tls)).transpose()?;
    let trust = trusted_certificates(target)?;
    let limit = target.connections.or(hub.pack.extension.connections);
    let connections = limit.unwrap_or(DEFAULT_CONNECTIONS).max(1);
    let memory = MemoryBudget::of_bytes(BUDGETED_LONG_MESSAGES * MAX_MESSAGE_BYTES);
    let begun = Instant::now();
    let mut instances = Vec::new();
    for (index, instance) in target.instances.iter().enumerate() {
        let endpoint = instance.url.clone();
        // A setting that the target gives can be named under `needs`; a default cannot.
        let mut provides = instance.provides.clone();
        provides.extend(instance.settings.keys().cloned());
        if endpoint.tls {
            provides.insert("tls".to_owned());
        }
        let process = hub.processes.iter().find(|(_, served)| served.contains(&index));
        instances.push(Arc::new(PreparedInstance {
            name: instance.name.clone(),
            endpoint,
            tls: config.clone(),
            hooks: instance.hooks.clone(),
            trust: trust.clone(),
            settings: instance_settings(hub, instance),
            provides,
            client: hub.client.clone(),
            process: process.map(|(process, _)| Arc::clone(process)),
            memory: memory.clone(),
            has_answered: Arc::default(),
            last_sign: Arc::new(LastSign::new(begun)),
        }));
    }
    Ok(Arc::new(PreparedHub {
        begun,
        instances,
        target: target.clone(),
        embedded: hub.embedded.clone(),
        client: hub.client.clone(),
        masker: Arc::new(secret_masker(hub)),
        connections,
        limited: limit.is_some(),
        budget: Arc::new(Semaphore::new(connections)),
        hub: Arc::default(),
        words: Arc::default(),
        deviations: Arc::clone(&hub.deviations),
    }))
}

/// The most bytes of a message that is accepted. The built-in protocols allow at most 10 MiB; the limit keeps a hub
/// that sends endless messages from exhausting memory.
pub(crate) const MAX_MESSAGE_BYTES: usize = 12 << 20;
