//! The EmProps job queue hub (document 004): clients submit jobs, workers claim them, others watch.
//!
//! In reading order: [`request`] and [`reply`] are the messages, [`refusal`] the errors; [`job`], [`queue`],
//! [`needs`], [`workers`], [`watch`], [`chunks`], [`window`] hold what the hub knows, each in a form that lets
//! a message be handled without looking at everything; `connections`, `jobs`, `work`, `follow` answer.
//!
//! Where the document is silent or at odds with itself, this hub does the following. Everything but `ping`,
//! `disconnect` and the registrations needs a registration. A request's `id` comes back as `request_id` or
//! `message_id`. What has no answer of its own gets an `ack`. A job goes back into the queue, to its old place,
//! when its claim is not accepted in time, when its worker leaves or misses two heartbeats, and some time after
//! a failure with `retry`, three attempts in all. Accepting is implied by the first report. The submitter watches
//! its job; whoever wants to hear of a change for several reasons hears of it once, and whoever caused it by
//! `cancel_job` not again. A worker that registers under an id in use takes it over. A second subscription to
//! notifications replaces the first. Priorities go from 0 to 100, among equals preferred types come first, then
//! the older job.

mod chunks;
mod connections;
mod fields;
mod follow;
mod job;
mod jobs;
mod needs;
mod queue;
mod refusal;
mod reply;
mod request;
#[cfg(test)]
pub mod test_conversation;
#[cfg(test)]
mod tests;
mod watch;
mod window;
mod work;
mod workers;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value, json};

use self::chunks::Series;
use self::job::Jobs;
use self::queue::{JobNo, Queue};
use self::refusal::Refusal;
use self::reply::Reply;
use self::request::{Kind, Request, Sections, Sender};
use self::watch::{Filters, Subscriptions};
use self::window::Window;
use self::workers::Workers;
use crate::fault::Broken;
use crate::machine::clock::Clock;
use crate::machine::ids::Ids;
use crate::machine::settings::{Settings, SettingsError, millis};
use crate::machine::{Conn, EventError, Input, Machine, Output};

/// The name of the protocol.
pub const PROTOCOL: &str = "emprops";
/// How much of an unknown message `unknown` repeats, in bytes.
const EXCERPT: usize = 4096;
/// How many jobs the admin side is shown.
const SHOWN_JOBS: usize = 1000;

/// What can be set.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// `server_version` of the greeting.
    server_version: String,
    /// What a worker must know, as `?token=`, `Authorization: Bearer` or member `token`; without one, whatever
    /// it sends is ignored.
    #[serde(deserialize_with = "token")]
    worker_token: Option<String>,
    /// How long a claim keeps a job without accepting it, unless it says so itself.
    #[serde(rename = "claim_timeout_ms", deserialize_with = "millis")]
    claim_timeout: Duration,
    /// How many jobs one claim can get at most.
    max_jobs_per_claim: usize,
    /// How long a failed job waits for its retry.
    #[serde(rename = "retry_delay_ms", deserialize_with = "millis")]
    retry_delay: Duration,
    /// How often a job is tried before `retry` does not help any more.
    max_attempts: u32,
    /// When a worker must be heard of again.
    #[serde(rename = "heartbeat_interval_ms", deserialize_with = "millis")]
    heartbeat_interval: Duration,
    /// After how many missed heartbeats a worker is lost.
    missed_heartbeats: u32,
    /// How often statistics are sent to who does not say how often.
    #[serde(rename = "stats_interval_ms", deserialize_with = "millis")]
    stats_interval: Duration,
    /// The shortest interval of statistics that may be asked for.
    #[serde(rename = "min_stats_interval_ms", deserialize_with = "millis")]
    min_stats_interval: Duration,
    /// How often the hub pings who is connected; 0 is never.
    #[serde(rename = "ping_interval_ms", deserialize_with = "millis")]
    ping_interval: Duration,
    /// Whether messages without an answer of their own are acknowledged.
    acks: bool,
    /// The longest message in bytes.
    max_message_bytes: usize,
    /// The longest message that may come in chunks, and the most bytes of incomplete ones per connection.
    max_assembled_bytes: usize,
    /// The most bytes of incomplete messages of all connections together.
    max_incomplete_bytes: usize,
    /// How many incomplete messages a connection may have.
    max_incomplete: usize,
    /// How long an incomplete message is kept.
    #[serde(rename = "chunk_timeout_ms", deserialize_with = "millis")]
    chunk_timeout: Duration,
    /// How many jobs may be unfinished; beyond, they are refused.
    max_jobs: usize,
    /// How many bytes unfinished jobs may have together.
    max_job_bytes: usize,
    /// How many finished jobs are remembered.
    max_finished_jobs: usize,
    /// How many jobs a connection may watch.
    max_watched_jobs: usize,
    /// When more jobs than this wait, an alert is sent.
    alert_queue_depth: usize,
    /// The wall-clock time at which the hub starts, in Unix milliseconds; otherwise the system's.
    epoch_ms: Option<u64>,
    /// Makes the ids reproducible.
    seed: Option<u64>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            server_version: "1.0.0".to_owned(),
            worker_token: None,
            claim_timeout: Duration::from_secs(30),
            max_jobs_per_claim: 1000,
            retry_delay: Duration::from_secs(15),
            max_attempts: 3,
            heartbeat_interval: Duration::from_secs(60),
            missed_heartbeats: 2,
            stats_interval: Duration::from_secs(5),
            min_stats_interval: Duration::from_millis(100),
            ping_interval: Duration::ZERO,
            acks: true,
            max_message_bytes: 10 << 20,
            max_assembled_bytes: 64 << 20,
            max_incomplete_bytes: 256 << 20,
            max_incomplete: 16,
            chunk_timeout: Duration::from_secs(60),
            max_jobs: 100_000,
            max_job_bytes: 512 << 20,
            max_finished_jobs: 100_000,
            max_watched_jobs: 100_000,
            alert_queue_depth: 15,
            epoch_ms: None,
            seed: None,
        }
    }
}

/// A token may look like a number in TOML; errors do not repeat it.
fn token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match toml::Value::deserialize(deserializer)? {
        toml::Value::String(text) => Ok(Some(text)),
        toml::Value::Integer(number) => Ok(Some(number.to_string())),
        _ => Err(serde::de::Error::custom("worker_token is not a string")),
    }
}

/// Builds the hub.
///
/// # Errors
/// What is wrong with the settings.
pub fn build(settings: &Settings, broken: Broken) -> Result<Box<dyn Machine>, SettingsError> {
    let config: Config = settings.read(PROTOCOL)?;
    for (name, interval) in [
        ("heartbeat_interval_ms", config.heartbeat_interval),
        ("stats_interval_ms", config.stats_interval),
        ("min_stats_interval_ms", config.min_stats_interval),
    ] {
        if interval.is_zero() {
            return Err(SettingsError::Invalid { protocol: PROTOCOL, reason: format!("{name} must not be 0") });
        }
    }
    let mut timers = BTreeSet::new();
    if !config.ping_interval.is_zero() {
        timers.insert((config.ping_interval, Timer::Ping));
    }
    Ok(Box::new(Emprops {
        clock: Clock::new(config.epoch_ms),
        ids: Ids::new(config.seed),
        config,
        broken,
        peers: BTreeMap::new(),
        workers: Workers::default(),
        jobs: Jobs::default(),
        queue: Queue::default(),
        submitted: 0,
        subscriptions: Subscriptions::default(),
        all_jobs: BTreeSet::new(),
        alerted_monitors: BTreeSet::new(),
        kept: HashMap::new(),
        kept_order: VecDeque::new(),
        incomplete_bytes: 0,
        completed: Window::default(),
        alert: None,
        doubled: BTreeSet::new(),
        astray: Astray::default(),
        timers,
    }))
}

struct Emprops {
    config: Config,
    clock: Clock,
    ids: Ids,
    broken: Broken,
    /// Everybody who is connected.
    peers: BTreeMap<Conn, Peer>,
    workers: Workers,
    jobs: Jobs,
    queue: Queue,
    /// How many jobs there have been.
    submitted: JobNo,
    subscriptions: Subscriptions,
    /// Monitors that see all jobs.
    all_jobs: BTreeSet<Conn>,
    /// Monitors that see the system, its alerts included.
    alerted_monitors: BTreeSet<Conn>,
    /// What clients left with `cleanup_subscriptions: false`, by client id, the oldest first.
    kept: HashMap<Arc<str>, Kept>,
    kept_order: VecDeque<Arc<str>>,
    /// The bytes of all incomplete messages.
    incomplete_bytes: usize,
    completed: Window,
    /// What is wrong with the system, while it is.
    alert: Option<String>,
    /// Who is told twice of what; only a fault looks at it.
    doubled: BTreeSet<(Conn, JobNo)>,
    astray: Astray,
    timers: BTreeSet<(Duration, Timer)>,
}

/// What only faults look at.
#[derive(Default)]
struct Astray {
    /// How many connections there have been.
    opened: u64,
    /// Jobs that are over and will be given to somebody, or to anybody, all the same.
    ghosts: Vec<(Option<Conn>, JobNo)>,
    /// The id of the job that was cancelled last, until another has it.
    freed: Option<Arc<str>>,
    /// The job that was assigned last, and when.
    given: Option<(Duration, JobNo)>,
    /// The id of the last request that had one.
    request: Option<String>,
    /// Workers that have shown their token.
    vouched: BTreeSet<String>,
    /// Connections of workers that have registered on others since.
    replaced: BTreeMap<Conn, Arc<str>>,
    /// When workers registered.
    registered: BTreeMap<Conn, Duration>,
    /// How often workers have registered again on their connections.
    again: usize,
    /// Who had a job and let it lapse.
    former: BTreeSet<(Conn, JobNo)>,
    /// Who was told that a job is completed.
    told: BTreeMap<JobNo, BTreeSet<Conn>>,
    /// What was said of a job's progress when it was first asked for.
    asked: BTreeMap<JobNo, (Option<Number>, Option<String>)>,
    /// Who has subscribed to statistics more than once.
    twice: BTreeSet<Conn>,
    /// Jobs that were cancelled in the queue, and those that have failed and are tried again.
    cancelled: usize,
    retried: usize,
}

/// Who is connected.
#[derive(Default)]
struct Peer {
    /// `assigned_connection_id`, from the first registration on.
    id: Option<Arc<str>>,
    /// The client or monitor that registered here.
    client: Option<Client>,
    /// It showed the worker token when it connected.
    vouched: bool,
    /// The jobs whose watcher it is.
    watching: BTreeSet<JobNo>,
    stats: Option<Stats>,
    /// Messages of which some chunks have come, by chunk id.
    series: BTreeMap<Arc<str>, Series>,
}

struct Client {
    id: Arc<str>,
    monitor: bool,
}

/// A subscription to statistics.
#[derive(Clone, Copy)]
struct Stats {
    interval: Duration,
    sections: Sections,
    next: Duration,
}

/// The subscriptions of a client that will be back.
struct Kept {
    watching: BTreeSet<JobNo>,
    filters: Option<Filters>,
}

/// What is to happen at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A claim has not been accepted.
    Claim(JobNo),
    /// A failed job is to be tried again.
    Retry(JobNo),
    /// A worker may be lost.
    Worker(Conn),
    /// Statistics are due.
    Stats(Conn),
    /// An incomplete message is given up.
    Series(Conn, Arc<str>),
    /// Everybody is pinged.
    Ping,
}

/// A message being answered.
struct Turn<'a> {
    now: Duration,
    conn: Conn,
    /// The message's id.
    id: Option<String>,
    out: &'a mut Vec<Output>,
}

impl Machine for Emprops {
    fn handle(&mut self, now: Duration, input: Input, out: &mut Vec<Output>) {
        self.expire(now, out);
        match input {
            Input::Open { conn, handshake } => self.open(now, conn, &handshake, out),
            Input::Text { conn, text } if self.peers.contains_key(&conn) => {
                let mut turn = Turn { now, conn, id: None, out };
                if let Err(refusal) = self.answer(&mut turn, &text, false)
                    && !(matches!(refusal, Refusal::InvalidMessage(_)) && self.broken.is("emprops-malformed-ignored"))
                {
                    self.refuse(&mut turn, &refusal);
                }
            }
            Input::Closed { conn } => self.leave(now, conn, false, out),
            // The document knows no binary messages.
            Input::Text { .. }
            | Input::Binary { .. }
            | Input::Ping { .. }
            | Input::Connected { .. }
            | Input::ConnectFailed { .. }
            | Input::Tick => {}
        }
    }

    fn deadline(&self) -> Option<Duration> {
        self.timers.first().map(|(due, _)| *due)
    }

    fn state(&self) -> Value {
        json!({
            "server_version": self.config.server_version,
            "token_required": self.config.worker_token.is_some(),
            "connections": self.peers.len(),
            "clients": self.peers.values().filter_map(|peer| peer.client.as_ref()).map(|client| {
                json!({ "client_id": &*client.id, "monitor": client.monitor })
            }).collect::<Vec<_>>(),
            "workers": self.workers.iter().map(|(conn, worker)| json!({
                "worker_id": &*worker.id,
                "connection": conn,
                "idle": worker.idle,
                "lost": worker.lost,
                "jobs": worker.held.iter().filter_map(|job| self.jobs.get(*job)).map(|job| &*job.id).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "active_workers": self.workers.active(),
            "queued": self.queue.len(),
            "pending_jobs": self.jobs.pending(),
            "active_jobs": self.jobs.active(),
            "submitted": self.submitted,
            "job_bytes": self.jobs.bytes(),
            "incomplete_bytes": self.incomplete_bytes,
            "subscriptions": self.subscriptions.len(),
            "jobs": self.jobs.iter().take(SHOWN_JOBS).map(|job| json!({
                "job_id": &*job.id,
                "status": job.state.status(),
                "holder": job.state.holder(),
                "watchers": job.watchers,
            })).collect::<Vec<_>>(),
        })
    }

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<Output>) -> Result<Value, EventError> {
        self.expire(now, out);
        self.happen(now, event, out)
    }

    fn shutdown(&mut self, now: Duration, out: &mut Vec<Output>) {
        self.send_away(now, connections::MAINTENANCE, connections::DOWNTIME, out);
    }
}

impl Emprops {
    /// Everything that is due.
    fn expire(&mut self, now: Duration, out: &mut Vec<Output>) {
        while let Some((due, _)) = self.timers.first()
            && *due <= now
        {
            let Some((due, timer)) = self.timers.pop_first() else {
                break;
            };
            match timer {
                Timer::Claim(job) => self.claim_expired(now, job, out),
                Timer::Retry(job) => self.retry(now, job, out),
                Timer::Worker(conn) => self.miss(now, conn, out),
                Timer::Stats(conn) => self.broadcast_stats(now, due, conn, out),
                Timer::Series(conn, chunk_id) => drop(self.give_up(conn, &chunk_id)),
                Timer::Ping => {
                    self.timers.insert((now + self.config.ping_interval, Timer::Ping));
                    self.say(now, self.peers.keys().copied(), &Reply::Ping {}, out);
                }
            }
        }
    }

    /// Answers a message, or says why not. One that came in chunks may not be a chunk itself.
    fn answer(&mut self, turn: &mut Turn<'_>, text: &str, assembled: bool) -> Result<(), Refusal> {
        let limit = match self.config.max_message_bytes {
            _ if self.broken.is("emprops-size-unlimited") => usize::MAX,
            limit if self.broken.is("emprops-size-limit-low") => limit / 10,
            limit => limit,
        };
        if text.len() > limit && !assembled {
            return Err(Refusal::TooLarge { bytes: text.len(), limit });
        }
        let message = request::read(text)?;
        turn.id = message.id.clone();
        if self.broken.is("emprops-request-id-of-before") {
            turn.id = message.id.clone().or(self.astray.request.take());
            self.astray.request.clone_from(&turn.id);
        }
        let refused = self.broken.is("emprops-unknown-members-refused");
        if (refused || self.broken.is("emprops-unknown-members-swallow"))
            && let Some(stranger) = message.stranger()
        {
            let refusal = Refusal::InvalidMessage(format!("nobody knows the member {stranger:?}"));
            return if refused { Err(refusal) } else { Ok(()) };
        }
        match Kind::of(&message.kind) {
            Kind::Request(_)
                if message.kind == "job_accepted_by_worker" && self.broken.is("emprops-acceptance-unknown") =>
            {
                self.reply(turn, &Reply::Unknown { content: "What is that?", original_message: text });
                return Ok(());
            }
            Kind::Ignored if message.kind == "connector_ws_status" && self.broken.is("emprops-connector-refused") => {
                return Err(Refusal::InvalidMessage("connectors are none of our business".to_owned()));
            }
            Kind::Ignored => return Ok(()),
            Kind::HubOnly => return Err(Refusal::InvalidMessage(format!("only the hub sends {}", message.kind))),
            Kind::Unknown => {
                let end = text.floor_char_boundary(EXCERPT);
                let content = "Received unrecognized message type";
                let reply = Reply::Unknown { content, original_message: &text[..end] };
                self.reply(turn, &reply);
                if self.broken.is("emprops-unknown-told-to-all") {
                    let others = self.peers.keys().copied().filter(|conn| *conn != turn.conn);
                    self.say(turn.now, others, &reply, turn.out);
                }
                if self.broken.is("emprops-fuzz-unknown-frees-jobs") {
                    let held = self.workers.get(turn.conn).map(|worker| worker.held.clone());
                    for job in held.into_iter().flatten() {
                        self.workers.release(turn.conn, job);
                        self.requeue(turn.now, job, turn.out);
                    }
                }
                return Ok(());
            }
            Kind::Request(Sender::Anybody) => {}
            Kind::Request(Sender::Registered) => {
                let client = self.peers.get(&turn.conn).is_some_and(|peer| peer.client.is_some());
                if !client && self.workers.get(turn.conn).is_none() {
                    return Err(Refusal::NotRegistered("register_client or register_worker"));
                }
            }
            Kind::Request(Sender::Worker) => {
                if self.workers.get(turn.conn).is_none() {
                    return Err(Refusal::NotRegistered("register_worker"));
                }
                self.see(turn.now, turn.conn);
            }
        }
        match message.request(self.broken)? {
            Request::RegisterClient(client) => self.register_client(turn, client),
            Request::RegisterWorker(worker) => self.register_worker(turn, worker)?,
            Request::Submit(job) => self.submit(turn, job, text.len())?,
            Request::Status { job_id } => self.status(turn, job_id)?,
            Request::Cancel { job_id, reason } => self.cancel(turn, job_id, reason.as_deref())?,
            Request::Claim(claim) => self.claim(turn, &claim)?,
            Request::Report(report) => self.report(turn, &message.kind, report)?,
            Request::Heartbeat(state) => self.heartbeat(turn, state)?,
            Request::WorkerStatus(state) => self.worker_status(turn, &message.kind, state)?,
            Request::SubscribeJob { job_id } => self.subscribe_job(turn, &message.kind, job_id)?,
            Request::Notifications(wish) => self.subscribe_notifications(turn, &message.kind, wish),
            Request::SubscribeStats(wish) => self.subscribe_stats(turn, &message.kind, wish)?,
            Request::Statistics(sections) => {
                let all = Sections { jobs: true, workers: true, system: true };
                let sections = if self.broken.is("emprops-sections-ignored") { all } else { sections };
                self.stats(turn.now, turn.conn, sections, turn.out);
            }
            Request::Chunk(_) if assembled => {
                return Err(Refusal::InvalidMessage("a message in chunks is no chunk".to_owned()));
            }
            Request::Chunk(chunk) => self.chunk(turn, chunk)?,
            Request::Ping => {
                if self.broken.is("emprops-ping-serves-incomplete") {
                    self.serve_incomplete(turn);
                }
                self.reply(turn, &Reply::Pong {});
            }
            Request::Disconnect { keep } => self.disconnect(turn, keep),
        }
        Ok(())
    }

    /// Says something to some.
    fn say(&self, now: Duration, to: impl Iterator<Item = Conn>, reply: &Reply<'_>, out: &mut Vec<Output>) -> usize {
        let mut to = to.peekable();
        if to.peek().is_none() {
            return 0;
        }
        let text = reply::text(reply, self.clock.unix_ms(now));
        let before = out.len();
        out.extend(to.map(|conn| Output::Text { conn, text: text.clone() }));
        out.len() - before
    }

    fn reply(&self, turn: &mut Turn<'_>, reply: &Reply<'_>) {
        let text = reply::text(reply, self.clock.unix_ms(turn.now));
        turn.out.push(Output::Text { conn: turn.conn, text });
    }

    /// Acknowledges what has no answer of its own (line 637).
    fn ack(&self, turn: &mut Turn<'_>, kind: &str) {
        if self.config.acks {
            let id = turn.id.take();
            self.reply(turn, &Reply::Ack { message_id: id.as_deref(), original_type: kind, status: "processed" });
        }
    }

    fn refuse(&self, turn: &mut Turn<'_>, refusal: &Refusal) {
        let id = turn.id.take();
        let reply = Reply::Error {
            error: refusal.to_string(),
            error_code: refusal.code(),
            details: refusal.details(),
            request_id: id.as_deref(),
        };
        self.reply(turn, &reply);
        if matches!(refusal, Refusal::InvalidJob(_)) && self.broken.is("emprops-refusal-told-to-all") {
            let others = self.peers.keys().copied().filter(|conn| *conn != turn.conn);
            self.say(turn.now, others, &reply, turn.out);
        }
    }
}
