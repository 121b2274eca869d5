//! The engine: real sockets, real time, one thread per core.
//!
//! Every shard is a loop over its own epoll (by mio, the layer below tokio) with its own connections, clients, recorder and
//! alarms; it locks nothing and asks nobody. Not tokio, because its timers count milliseconds, which on a local hub is as
//! long as an answer takes, and because a task and a codec's buffers per connection cost more memory, and more time per
//! message, than everything else that is done here (`benches/floor` has the figures).
//!
//! ```text
//! frames, connection, stream   bytes in place: frames, one connection, TLS or none
//! dialer, preflight            where connections come from, and whether the machine can have so many
//! poller                       waits for sockets and alarms, to the microsecond
//! shard                        the loop around the clients of one core: their slots, connections, timers and outbox
//! validator, json_reuse        validation off the timed path, reading into trees that are there already
//! self_monitor                 what the generator itself costs
//! affinity                     which thread gets a core when several want it
//! phases, aggregator           which phase a run is in; what becomes of what the shards report
//! hooks                        what happens outside the sockets
//! ```

mod affinity;
mod aggregator;
mod connection;
mod dialer;
mod frames;
pub mod hooks;
mod json_reuse;
mod phases;
mod poller;
pub mod preflight;
mod self_monitor;
mod shard;
mod stream;
mod validator;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use mio::Poll;
use rustls::pki_types::ServerName;

pub use aggregator::{Ending, Live, Order, Outcome};
pub use dialer::{DialError, read_sources};
pub use phases::Clock;
pub use self_monitor::resident;
pub use validator::{Checked, Validate};

use crate::load::compile::program::Prepared;
use crate::load::metrics::{MetricRegistry, Names, Phases, Recorder, Series};
use crate::load::plan::Plan;
use crate::load::{SECOND, ledger};
use crate::protocol::Pack;
use crate::transport::Endpoint;

/// One load run.
pub struct Setup {
    pub plan: Arc<Plan>,
    pub prepared: Arc<Prepared>,
    /// Counts from the origin of the run: what is prepared with it may know its wall-clock time.
    pub clock: Clock,
    pub endpoint: Endpoint,
    /// Sent with every upgrade.
    pub headers: Vec<(String, String)>,
    /// For a `wss://` endpoint.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Local addresses to connect from; without any, as many of loopback's as are needed, or the system's choice.
    pub sources: Vec<IpAddr>,
    /// Threads with connections, at least one.
    pub shards: usize,
    pub seed: u64,
    pub validate: Validate,
    /// Needed to validate.
    pub pack: Option<Arc<Pack>>,
    pub ledger: ledger::Config,
}

/// Why a run cannot begin, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("TLS: `{0}` is not a name that a certificate can hold")]
    Name(String),
    #[error("`{0}` needs TLS, and none is set up")]
    NoTls(Endpoint),
    #[error("failed to set up a thread of the engine: {0}")]
    System(#[from] io::Error),
    #[error("a thread of the engine failed; please report this")]
    Thread,
}

/// A run that has begun. Dropping it ends it.
pub struct Run {
    threads: Threads,
    judge: Option<validator::Judge>,
    plan: Arc<Plan>,
    series: Series,
    ledger: ledger::Ledger,
}

/// The shards, which end when this goes.
struct Threads {
    course: Arc<phases::Course>,
    wakers: Vec<Arc<mio::Waker>>,
    shards: Vec<JoinHandle<io::Result<()>>>,
    parcels: Receiver<shard::outbox::Parcel>,
}

/// Ends a run from another thread.
#[derive(Clone)]
pub struct Stopper(Arc<phases::Course>);

impl Stopper {
    /// Nothing new is due from now on; what is under way comes to its end.
    pub fn drain(&self) {
        self.0.set_drain(self.0.clock.now());
    }

    /// Everything ends at once.
    pub fn stop(&self) {
        self.0.stop();
    }
}

/// Whether anybody listens where the run is to go.
///
/// # Errors
/// [`EngineError::Dial`]: nobody does, or there is nowhere to go to, or nothing to come from.
pub fn probe(setup: &Setup) -> Result<(), EngineError> {
    Ok(setup.dialer()?.probe()?)
}

/// What the machine lacks for this run, if anything. `embedded`: the hub runs in this process.
///
/// # Errors
/// [`EngineError::Dial`]: there is nowhere to go to, or nothing to come from.
pub fn lacks(setup: &Setup, embedded: bool) -> Result<Vec<preflight::Lack>, EngineError> {
    let dialer = setup.dialer()?;
    let need = preflight::Need {
        connections: setup.connections() as u64,
        sources: dialer.sources().len() as u64,
        tls: setup.endpoint.tls,
        embedded,
        loopback: dialer.to().ip().is_loopback(),
    };
    Ok(preflight::lacks(&need, &preflight::look()))
}

impl Setup {
    fn connections(&self) -> usize {
        self.plan.roles.iter().map(|role| role.population.number as usize).sum()
    }

    fn dialer(&self) -> Result<dialer::Dialer, DialError> {
        dialer::Dialer::new(&self.endpoint.host, self.endpoint.port, &self.sources, self.connections())
    }
}

/// Begins a run: threads are started, connections begin to be made. `calls` are the hooks that clients call; whoever holds
/// the other end carries them out.
///
/// # Errors
/// [`EngineError`]; then nothing runs.
pub fn start(setup: Setup, calls: tokio::sync::mpsc::Sender<hooks::Call>) -> Result<Run, EngineError> {
    let dialer = setup.dialer()?;
    let Setup { plan, prepared, clock, endpoint, headers, tls, shards, seed, validate, pack, ledger, .. } = setup;
    let shards = shards.max(1);
    let tls = match (endpoint.tls, tls) {
        (false, _) => None,
        (true, None) => return Err(EngineError::NoTls(endpoint)),
        (true, Some(config)) => {
            let name = ServerName::try_from(endpoint.host.clone());
            Some(stream::Tls { config, name: name.map_err(|_| EngineError::Name(endpoint.host.clone()))? })
        }
    };
    let names = Names { messages: prepared.messages.clone(), journeys: prepared.journeys.clone() };
    let layout = MetricRegistry::new(names);
    let judge = match pack {
        Some(pack) if validate != Validate::None => Some(validator::Judge::start(pack, &prepared.messages)?),
        _ => None,
    };
    let course = Arc::new(phases::Course::new(clock, plan.roles.len()));
    let (to, parcels) = sync_channel(shard::outbox::PARCELS);
    let (endpoint, headers) = (Arc::new(endpoint), Arc::new(headers));
    let mut polls = Vec::new();
    for _ in 0..shards {
        let poll = Poll::new()?;
        let watch = poller::Poller::new(&poll)?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), poller::WAKER)?);
        polls.push((poll, watch, waker));
    }
    let wakers = polls.iter().map(|(.., waker)| Arc::clone(waker)).collect();
    let mut threads = Threads { course: Arc::clone(&course), wakers, shards: Vec::new(), parcels };
    for (number, (poll, watch, waker)) in polls.into_iter().enumerate() {
        let desk = shard::context::ShardContext {
            recorder: Recorder::new(layout.clone(), Phases { interval: SECOND, measured: u64::MAX..u64::MAX }),
            timers: shard::timers::Timers::default(),
            masks: frames::Masks::new(seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            course: Arc::clone(&course),
            tell: shard::outbox::Outbox::new(number, to.clone()),
            calls: hooks::Calls::new(calls.clone(), waker),
            free: plan.roles.iter().map(|_| std::collections::VecDeque::new()).collect(),
            dials: std::collections::VecDeque::new(),
            recognised: None,
            cause: None,
            under_way: 0,
        };
        let parts = shard::Parts {
            number,
            shards,
            plan: Arc::clone(&plan),
            prepared: Arc::clone(&prepared),
            endpoint: Arc::clone(&endpoint),
            headers: Arc::clone(&headers),
            tls: tls.clone(),
            dialer: dialer.for_shard(number),
            seed,
            desk,
            sampler: judge.as_ref().map_or_else(validator::Sampler::blind, |judge| judge.sampler(validate)),
            poll,
            watch,
        };
        let thread = std::thread::Builder::new().name(format!("shard-{number}"));
        let run = move || {
            affinity::take(number, shards);
            shard::Shard::new(parts).run()
        };
        threads.shards.push(thread.spawn(run)?);
    }
    Ok(Run { threads, judge, plan, series: Series::new(layout, shards), ledger: ledger::Ledger::new(ledger) })
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.course.stop();
        for waker in &self.wakers {
            drop(waker.wake());
        }
        // A shard may wait for a place among the parcels.
        while self.shards.iter().any(|shard| !shard.is_finished()) {
            drop(self.parcels.recv_timeout(std::time::Duration::from_millis(10)));
        }
    }
}
