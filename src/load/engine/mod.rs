//! The engine: sockets, real time, one thread per core.
//!
//! Every shard is a loop over its own epoll (by mio, the layer below tokio) with its own connections, clients, recorder
//! and timers; it takes no locks and calls no other thread. Tokio is not used here, because its timers have millisecond
//! resolution, about the response time of a local hub, and because a task and a codec's buffers per connection cost
//! more memory, and more time per message, than the rest of the engine (`benches/floor` has the figures).
//!
//! ```text
//! frames, connection, stream   frames in place, one connection, plain or TLS byte streams
//! dialer, preflight            opens connections; checks whether the machine has the resources
//! poller                       waits for sockets and timers with microsecond precision
//! shard                        the loop over the clients of one core: slots, connections, timers, outbox
//! translation                  the declared deviations of the hub
//! validator                    validation off the timed path
//! self_monitor, affinity       the cost of the generator itself; which thread gets which core
//! phases, aggregator           the phases of a run; combines the reports of the shards
//! hooks                        the calls of hooks
//! ```

mod affinity;
mod aggregator;
mod connection;
mod dialer;
mod frames;
pub mod hooks;
mod phases;
mod poller;
pub mod preflight;
mod self_monitor;
mod shard;
mod stream;
pub mod translation;
mod validator;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use mio::Poll;
use rustls::pki_types::ServerName;

pub use aggregator::{LoadRunOutcome, RunEnd, RunSnapshot, WatchDecision};
pub use dialer::{DialError, parse_sources};
pub use phases::RunClock;
pub use self_monitor::resident_memory;
pub use validator::{LEAST_PER_MESSAGE, ValidationMode, ValidationSummary};

use crate::deviation::Deviations;
use crate::load::compile::program::CompiledPlan;
use crate::load::metrics::{MetricRecorder, MetricRegistry, MetricSeries, MetricSubjects, RunPhases};
use crate::load::plan::Plan;
use crate::load::plan::schedule::ShardPlace;
use crate::load::shares::file::ShareWriter;
use crate::load::{Nanos, SECOND, ledger};
use crate::protocol::Pack;
use crate::syntax::share::Share;
use crate::transport::Endpoint;

/// The settings of one load run.
pub struct LoadRunSetup {
    pub plan: Arc<Plan>,
    pub prepared: Arc<CompiledPlan>,
    /// Started at the origin of the run, so that compiled programs can know its wall-clock time.
    pub clock: RunClock,
    /// Unix time in milliseconds at the origin.
    pub epoch_ms: i64,
    pub endpoint: Endpoint,
    /// The deviations that the target declares; they require `pack`.
    pub deviations: Arc<Deviations>,
    /// The TLS configuration, required for a `wss://` endpoint.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Local source addresses; if empty, loopback addresses as needed, or the system's choice.
    pub sources: Vec<IpAddr>,
    /// The number of shards, at least one.
    pub shards: usize,
    /// The part of the plan that this process runs.
    pub share: Share,
    /// When arrivals begin at the earliest, since the origin.
    pub start_at: Nanos,
    pub seed: u64,
    pub validate: ValidationMode,
    /// The pack, required for validation.
    pub pack: Option<Arc<Pack>>,
    pub ledger: ledger::LedgerConfig,
}

/// An error that prevents or ends a run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("TLS: `{0}` is not a valid server name")]
    Name(String),
    #[error("`{0}` needs TLS, which is not configured")]
    NoTls(Endpoint),
    #[error("failed to set up a thread of the engine: {0}")]
    System(#[from] io::Error),
    #[error("a thread of the engine failed; please report this")]
    Thread,
}

impl EngineError {
    /// Returns what to do about it.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Dial(DialError::Resolve { .. } | DialError::NoAddress(_) | DialError::Unreachable { .. }) => {
                Some("is the hub running, and is this its address?")
            }
            _ => None,
        }
    }
}

/// A running load run; dropping it ends the run.
pub struct LoadRun {
    threads: ShardThreads,
    judge: Option<validator::ValidatorThread>,
    plan: Arc<Plan>,
    series: MetricSeries,
    ledger: ledger::ItemLedger,
    share: Share,
    start_at: Nanos,
    /// Takes what only all shares together can judge.
    writer: Option<ShareWriter>,
}

impl LoadRun {
    /// With a writer, the run writes its entries and intervals to the file of a share, and follows no item itself.
    #[must_use]
    pub fn writing_to(self, writer: Option<ShareWriter>) -> Self {
        Self { writer, ..self }
    }
}

/// The threads of the shards, which end when this is dropped.
struct ShardThreads {
    timeline: Arc<phases::PhaseTimeline>,
    wakers: Vec<Arc<mio::Waker>>,
    shards: Vec<JoinHandle<io::Result<()>>>,
    reports: Receiver<shard::outbox::ShardReport>,
}

/// A handle to hold or end a run from another thread.
#[derive(Clone)]
pub struct RunControl(Arc<phases::PhaseTimeline>);

impl RunControl {
    /// Begins the drain: no new journey is due, running ones finish.
    pub fn drain(&self) {
        self.0.cut_short(self.0.clock.now());
    }

    /// Holds back new journeys from the next whole interval on. Returns when that is; `None` if there is nothing to
    /// hold back: the run has not begun, is held already, or drains.
    pub fn hold(&self) -> Option<Nanos> {
        self.hold_from(0)
    }

    /// Ends a hold with the next whole interval. Returns when that is; `None` if the run is not held.
    pub fn resume(&self) -> Option<Nanos> {
        self.resume_at(0)
    }

    /// Like [`Self::hold`], but not before `at`.
    pub fn hold_from(&self, at: Nanos) -> Option<Nanos> {
        let at = aggregator::next_whole_interval(self.0.clock.now()).max(at);
        let runs = self.0.begin() != Nanos::MAX && at < self.0.drain() && !self.0.stopped();
        if runs { self.0.holds.begin(at) } else { None }
    }

    /// Like [`Self::resume`], but not before `at`.
    pub fn resume_at(&self, at: Nanos) -> Option<Nanos> {
        self.0.holds.end(aggregator::next_whole_interval(self.0.clock.now()).max(at), SECOND)
    }

    /// Ends the run at once.
    pub fn stop(&self) {
        self.0.stop();
    }
}

/// Checks whether the hub accepts TCP connections.
///
/// # Errors
///
/// [`EngineError::Dial`]: the hub does not accept them, or its address or the source addresses are unusable.
pub fn probe_hub(setup: &LoadRunSetup) -> Result<(), EngineError> {
    Ok(setup.dialer()?.probe()?)
}

/// Describes the resources that the machine lacks for this run. `embedded`: the hub runs in this process.
///
/// # Errors
///
/// [`EngineError::Dial`]: the address of the hub or the source addresses are unusable.
pub fn machine_shortages(setup: &LoadRunSetup, embedded: bool) -> Result<Vec<String>, EngineError> {
    let dialer = setup.dialer()?;
    let need = preflight::ResourceNeeds {
        connections: setup.connections() as u64,
        sources: dialer.sources().len() as u64,
        tls: setup.endpoint.tls,
        embedded,
        loopback: dialer.hub_address().ip().is_loopback(),
    };
    Ok(preflight::resource_shortages(&need, &preflight::machine_resources()))
}

impl LoadRunSetup {
    fn connections(&self) -> usize {
        self.plan.roles.iter().map(|role| self.share.count(role.population.number) as usize).sum()
    }

    fn dialer(&self) -> Result<dialer::Dialer, DialError> {
        // Shares on one machine use the ports of the same addresses.
        let all = self.plan.roles.iter().map(|role| role.population.number as usize).sum();
        dialer::Dialer::new(&self.endpoint.host, self.endpoint.port, &self.sources, all)
    }
}

/// Returns what a shard needs for TLS; `None` for a hub without it.
fn client_tls(
    endpoint: &Endpoint,
    config: Option<Arc<rustls::ClientConfig>>,
) -> Result<Option<stream::ClientTls>, EngineError> {
    if !endpoint.tls {
        return Ok(None);
    }
    let config = config.ok_or_else(|| EngineError::NoTls(endpoint.clone()))?;
    let name = ServerName::try_from(endpoint.host.clone()).map_err(|_| EngineError::Name(endpoint.host.clone()))?;
    Ok(Some(stream::ClientTls { config, name }))
}

/// Starts a run: starts the threads, which open the connections. `calls` receives the hook calls of clients; the owner
/// of the receiver carries them out.
///
/// # Errors
///
/// [`EngineError`]; then nothing runs.
pub fn start_run(
    setup: LoadRunSetup,
    calls: tokio::sync::mpsc::Sender<hooks::QueuedHookCall>,
) -> Result<LoadRun, EngineError> {
    let LoadRunSetup { ref prepared, share, shards, seed, validate, .. } = setup;
    let (dialer, tls, shards) = (setup.dialer()?, client_tls(&setup.endpoint, setup.tls.clone())?, shards.max(1));
    let layout = MetricRegistry::new(MetricSubjects {
        messages: prepared.messages.clone(),
        journeys: prepared.journeys.clone(),
        operations: prepared.operations.clone(),
    });
    let judge = match &setup.pack {
        Some(pack) if validate != ValidationMode::None => {
            Some(validator::ValidatorThread::start(Arc::clone(pack), &prepared.messages)?)
        }
        _ => None,
    };
    let timeline = Arc::new(phases::PhaseTimeline::new(setup.clock, setup.plan.roles.len()));
    let (to, reports) = sync_channel(shard::outbox::MAX_REPORTS);
    let endpoint = Arc::new(setup.endpoint);
    let mut polls = Vec::new();
    for _ in 0..shards {
        let poll = Poll::new()?;
        let watch = poller::Poller::new(&poll)?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), poller::WAKER_TOKEN)?);
        polls.push((poll, watch, waker));
    }
    let wakers = polls.iter().map(|(.., waker)| Arc::clone(waker)).collect();
    let mut threads = ShardThreads { timeline: Arc::clone(&timeline), wakers, shards: Vec::new(), reports };
    for (number, (poll, watch, waker)) in polls.into_iter().enumerate() {
        let phases = RunPhases { interval: SECOND, measured: u64::MAX..u64::MAX, holds: Vec::new() };
        let translate = |pack| translation::ShardTranslator::new(&setup.deviations, pack, number, setup.epoch_ms);
        let context = shard::context::ShardContext::new(
            MetricRecorder::new(layout.clone(), phases),
            frames::MaskKeys::new(seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            Arc::clone(&timeline),
            shard::outbox::ReportOutbox::new(number, to.clone()),
            hooks::HookCallChannel::new(calls.clone(), waker),
            setup.pack.as_ref().and_then(translate),
            setup.plan.roles.len(),
        );
        let parts = shard::ShardParts {
            place: ShardPlace { share, number: number as u32, shards: shards as u32 },
            plan: Arc::clone(&setup.plan),
            prepared: Arc::clone(prepared),
            endpoint: Arc::clone(&endpoint),
            tls: tls.clone(),
            dialer: dialer.for_shard(number * share.of() as usize + share.index() as usize),
            seed,
            context,
            sampler: judge.as_ref().map_or_else(validator::MessageSampler::disabled, |judge| judge.sampler(validate)),
            poll,
            watch,
        };
        let thread = std::thread::Builder::new().name(format!("shard-{number}"));
        let run = move || {
            affinity::pin_to_core(number, shards);
            shard::Shard::new(parts).run()
        };
        threads.shards.push(thread.spawn(run)?);
    }
    Ok(LoadRun {
        threads,
        judge,
        plan: setup.plan,
        series: MetricSeries::new(layout, shards),
        ledger: ledger::ItemLedger::new(setup.ledger),
        share,
        start_at: setup.start_at,
        writer: None,
    })
}

impl Drop for ShardThreads {
    fn drop(&mut self) {
        self.timeline.stop();
        for waker in &self.wakers {
            drop(waker.wake());
        }
        // A shard may be blocked on a full channel.
        while self.shards.iter().any(|shard| !shard.is_finished()) {
            drop(self.reports.recv_timeout(std::time::Duration::from_millis(10)));
        }
    }
}
