//! The EmProps job queue hub (document 004): clients submit jobs, workers claim them, monitors watch.
//!
//! In reading order: [`request`] and [`reply`] are the messages, [`request_error`] the errors; [`job`],
//! [`queue`], [`needs`], [`workers`], [`watch`], [`chunked_message`] and [`window`] hold the state, indexed so that no
//! message needs a scan of all jobs or workers; `connections`, `jobs`, `work` and `subscription_requests` handle messages.
//!
//! Where the document is silent or contradicts itself, this hub does the following. Every message except `ping`,
//! `disconnect` and the registrations needs a registration. A request's `id` is returned as `request_id` or
//! `message_id`. A request without its own answer is answered with `ack`. A job returns to its old place in the
//! queue when its claim is not accepted in time, when its worker disconnects or misses two heartbeats, and some time
//! after a failure with `retry`, with at most three attempts. The first report implies acceptance. The submitter is
//! subscribed to its job; a client with several matching subscriptions gets one update, and the sender of `cancel_job`
//! none. A worker that registers under an id in use takes it over. A second subscription to notifications replaces the
//! first. Priorities are 0 to 100; of equal ones preferred types come first, then older jobs.

mod chunked_message;
mod connections;
mod fields;
mod job;
mod jobs;
mod needs;
mod queue;
mod reply;
mod request;
mod request_error;
mod subscription_requests;
#[cfg(test)]
mod tests;
mod watch;
mod window;
mod work;
mod workers;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Number, Value, json};

use self::chunked_message::IncompleteMessage;
use self::job::Jobs;
use self::queue::{JobNumber, JobQueue};
use self::reply::EmpropsReply;
use self::request::{AllowedSender, EmpropsRequest, MessageHandling, StatsSections};
use self::request_error::RequestError;
use self::watch::{NotificationFilters, NotificationSubscriptions};
use self::window::HourlyCounter;
use self::workers::WorkerTable;
use crate::fault::MachineFault;
use crate::machine::clock::HubClock;
use crate::machine::ids::UuidStream;
use crate::machine::settings::{Settings, SettingsError, millis};
use crate::machine::{ConnectionId, EventError, Machine, MachineInput, MachineOutput};

pub const PROTOCOL: &str = "emprops";
/// How much of the original message an `unknown` reply repeats, in bytes.
const MAX_UNKNOWN_EXCERPT: usize = 4096;
/// The largest number of jobs in the admin side's state.
const SHOWN_JOBS: usize = 1000;

#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EmpropsConfig {
    /// `server_version` of the greeting.
    server_version: String,
    /// The token of workers, as `?token=`, `Authorization: Bearer` or member `token`; without one, any is ignored.
    #[serde(deserialize_with = "crate::machine::settings::secret")]
    worker_token: Option<String>,
    /// How long a claim holds a job until it is accepted, unless the claim has a `claim_timeout`.
    #[serde(rename = "claim_timeout_ms", deserialize_with = "millis")]
    claim_timeout: Duration,
    /// The largest number of jobs for one claim.
    max_jobs_per_claim: usize,
    /// How long a failed job waits for its retry.
    #[serde(rename = "retry_delay_ms", deserialize_with = "millis")]
    retry_delay: Duration,
    /// The number of attempts after which a failure is final despite `retry`.
    max_attempts: u32,
    /// The interval of a worker's heartbeats.
    #[serde(rename = "heartbeat_interval_ms", deserialize_with = "millis")]
    heartbeat_interval: Duration,
    /// The number of missed heartbeats after which a worker is lost.
    missed_heartbeats: u32,
    /// The interval of statistics for subscriptions without one.
    #[serde(rename = "stats_interval_ms", deserialize_with = "millis")]
    stats_interval: Duration,
    /// The shortest interval of statistics.
    #[serde(rename = "min_stats_interval_ms", deserialize_with = "millis")]
    min_stats_interval: Duration,
    /// How often the hub pings all connections; 0 turns pings off.
    #[serde(rename = "ping_interval_ms", deserialize_with = "millis")]
    ping_interval: Duration,
    /// Whether messages without their own answer are acknowledged.
    acks: bool,
    /// The longest message in bytes.
    max_message_bytes: usize,
    /// The longest message in chunks, and the limit of incomplete ones per connection, in bytes.
    max_assembled_bytes: usize,
    /// The limit of incomplete messages of all connections, in bytes.
    max_incomplete_bytes: usize,
    /// The largest number of incomplete messages of a connection.
    max_incomplete: usize,
    /// How long an incomplete message is kept.
    #[serde(rename = "chunk_timeout_ms", deserialize_with = "millis")]
    chunk_timeout: Duration,
    /// The largest number of unfinished jobs; beyond it, jobs are refused.
    max_jobs: usize,
    /// The limit of all unfinished jobs in bytes.
    max_job_bytes: usize,
    /// How many finished jobs are kept.
    max_finished_jobs: usize,
    /// The largest number of jobs that a connection may subscribe to.
    max_watched_jobs: usize,
    /// The number of waiting jobs above which an alert is sent.
    alert_queue_depth: usize,
    /// The Unix time of the hub's start in milliseconds; without it, the system's clock.
    epoch_ms: Option<u64>,
    /// Makes the ids reproducible.
    seed: Option<u64>,
}

impl Default for EmpropsConfig {
    fn default() -> EmpropsConfig {
        EmpropsConfig {
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

pub fn build(settings: &Settings, broken: MachineFault) -> Result<Box<dyn Machine>, SettingsError> {
    let config: EmpropsConfig = settings.deserialize(PROTOCOL)?;
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
        timers.insert((config.ping_interval, TimerPurpose::Ping));
    }
    Ok(Box::new(Emprops {
        clock: HubClock::new(config.epoch_ms),
        ids: UuidStream::new(config.seed),
        config,
        broken,
        peers: BTreeMap::new(),
        workers: WorkerTable::default(),
        jobs: Jobs::default(),
        queue: JobQueue::default(),
        submitted: 0,
        subscriptions: NotificationSubscriptions::default(),
        all_jobs: BTreeSet::new(),
        alerted_monitors: BTreeSet::new(),
        kept: HashMap::new(),
        kept_order: VecDeque::new(),
        incomplete_bytes: 0,
        completed: HourlyCounter::default(),
        alert: None,
        double_recipients: BTreeSet::new(),
        faults: EmpropsFaultState::default(),
        timers,
    }))
}

struct Emprops {
    config: EmpropsConfig,
    clock: HubClock,
    ids: UuidStream,
    broken: MachineFault,
    /// All connections.
    peers: BTreeMap<ConnectionId, EmpropsPeer>,
    workers: WorkerTable,
    jobs: Jobs,
    queue: JobQueue,
    submitted: JobNumber,
    subscriptions: NotificationSubscriptions,
    /// Monitors with the permission to view all jobs.
    all_jobs: BTreeSet<ConnectionId>,
    /// Monitors that get alerts.
    alerted_monitors: BTreeSet<ConnectionId>,
    /// Subscriptions that clients kept with `cleanup_subscriptions: false`, by client id; the order is by age.
    kept: HashMap<Arc<str>, SavedSubscriptions>,
    kept_order: VecDeque<Arc<str>>,
    /// The bytes of all incomplete messages.
    incomplete_bytes: usize,
    completed: HourlyCounter,
    /// The current alert, if any.
    alert: Option<String>,
    /// For a fault: connections that get each update of a job twice.
    double_recipients: BTreeSet<(ConnectionId, JobNumber)>,
    faults: EmpropsFaultState,
    timers: BTreeSet<(Duration, TimerPurpose)>,
}

/// The state of faults.
#[derive(Default)]
struct EmpropsFaultState {
    /// The number of connections so far.
    opened: u64,
    /// Ended jobs that will be assigned again, to this worker or to any.
    ghosts: Vec<(Option<ConnectionId>, JobNumber)>,
    /// The id of the last cancelled job, until another job gets it.
    freed: Option<Arc<str>>,
    /// The last assigned job, and when it was assigned.
    given: Option<(Duration, JobNumber)>,
    /// The id of the last request that had an id.
    request: Option<String>,
    /// Workers that have sent the right token once.
    authorized: BTreeSet<String>,
    /// Connections whose workers have since registered on another connection.
    replaced: BTreeMap<ConnectionId, Arc<str>>,
    /// When workers registered.
    registered: BTreeMap<ConnectionId, Duration>,
    /// How often workers have registered again on their connections.
    again: usize,
    /// Workers whose claim of a job timed out.
    former: BTreeSet<(ConnectionId, JobNumber)>,
    /// The recipients of each `job_completed`.
    completion_recipients: BTreeMap<JobNumber, BTreeSet<ConnectionId>>,
    /// The progress and message of each job when its status was first requested.
    asked: BTreeMap<JobNumber, (Option<Number>, Option<String>)>,
    /// Connections that have subscribed to statistics more than once.
    twice: BTreeSet<ConnectionId>,
    /// Connections that have turned statistics off.
    stopped: BTreeSet<ConnectionId>,
    /// The first interval of each connection's statistics.
    intervals: BTreeMap<ConnectionId, Duration>,
    /// The latest progress message of each connection, whatever its job.
    reported: BTreeMap<ConnectionId, Option<String>>,
    /// The result of the latest completed job.
    result: Option<Box<RawValue>>,
    /// The requirements of the latest job that had some.
    requirements: Option<Box<RawValue>>,
    /// The number of jobs cancelled in the queue, and of failed jobs that are retried.
    cancelled: usize,
    retried: usize,
}

/// A connection.
#[derive(Default)]
struct EmpropsPeer {
    /// `assigned_connection_id`, from the first registration on.
    id: Option<Arc<str>>,
    /// The client or monitor that registered on this connection.
    client: Option<RegisteredClient>,
    /// Whether the connection's upgrade request had the worker token.
    authorized: bool,
    /// The jobs that the connection is subscribed to.
    watching: BTreeSet<JobNumber>,
    stats: Option<StatsSubscription>,
    /// Incomplete messages in chunks, by chunk id.
    series: BTreeMap<Arc<str>, IncompleteMessage>,
}

struct RegisteredClient {
    id: Arc<str>,
    monitor: bool,
}

/// A subscription to statistics.
#[derive(Clone, Copy)]
struct StatsSubscription {
    interval: Duration,
    sections: StatsSections,
    next: Duration,
}

/// The subscriptions of a disconnected client.
struct SavedSubscriptions {
    watching: BTreeSet<JobNumber>,
    filters: Option<NotificationFilters>,
}

/// The purpose of a timer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum TimerPurpose {
    /// A claim that must be accepted.
    Claim(JobNumber),
    /// The retry of a failed job.
    Retry(JobNumber),
    /// The heartbeat of a worker.
    Worker(ConnectionId),
    /// A subscription to statistics.
    Stats(ConnectionId),
    /// An incomplete message in chunks.
    Series(ConnectionId, Arc<str>),
    /// Pings to all connections.
    Ping,
}

/// A message that is being handled.
struct MessageContext<'a> {
    now: Duration,
    conn: ConnectionId,
    /// The message's id.
    id: Option<String>,
    out: &'a mut Vec<MachineOutput>,
}

impl Machine for Emprops {
    fn handle(&mut self, now: Duration, input: MachineInput, out: &mut Vec<MachineOutput>) {
        self.handle_due_timers(now, out);
        match input {
            MachineInput::Open { conn, handshake } => self.open(now, conn, &handshake, out),
            MachineInput::Text { conn, text } if self.peers.contains_key(&conn) => {
                let mut turn = MessageContext { now, conn, id: None, out };
                if let Err(refusal) = self.handle_message(&mut turn, &text, false)
                    && !(matches!(refusal, RequestError::InvalidMessage(_))
                        && self.broken.is("emprops-malformed-ignored"))
                {
                    self.send_refusal(&mut turn, &refusal);
                }
            }
            MachineInput::Closed { conn } => self.remove_connection(now, conn, false, out),
            // The document has no binary messages.
            MachineInput::Text { .. }
            | MachineInput::Binary { .. }
            | MachineInput::Ping { .. }
            | MachineInput::Connected { .. }
            | MachineInput::ConnectFailed { .. }
            | MachineInput::Tick => {}
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
            "active_workers": self.workers.active_count(),
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

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<MachineOutput>) -> Result<Value, EventError> {
        self.handle_due_timers(now, out);
        self.admin_event(now, event, out)
    }

    fn shutdown(&mut self, now: Duration, out: &mut Vec<MachineOutput>) {
        self.disconnect_all(now, connections::DEFAULT_DISCONNECT_REASON, connections::DEFAULT_DOWNTIME, out);
    }
}

impl Emprops {
    /// Handles all timers that are due.
    fn handle_due_timers(&mut self, now: Duration, out: &mut Vec<MachineOutput>) {
        while let Some((due, _)) = self.timers.first()
            && *due <= now
        {
            let Some((due, timer)) = self.timers.pop_first() else { break };
            match timer {
                TimerPurpose::Claim(job) => self.expire_claim(now, job, out),
                TimerPurpose::Retry(job) => self.requeue_job(now, job, out),
                TimerPurpose::Worker(conn) => self.check_heartbeat(now, conn, out),
                TimerPurpose::Stats(conn) => self.broadcast_stats(now, due, conn, out),
                TimerPurpose::Series(conn, chunk_id) => drop(self.drop_incomplete(conn, &chunk_id)),
                TimerPurpose::Ping => {
                    self.timers.insert((now + self.config.ping_interval, TimerPurpose::Ping));
                    self.send_to(now, self.peers.keys().copied(), &EmpropsReply::Ping {}, out);
                }
            }
        }
    }

    /// Handles a message. An `assembled` one came in chunks and must not be a chunk itself.
    fn handle_message(
        &mut self,
        turn: &mut MessageContext<'_>,
        text: &str,
        assembled: bool,
    ) -> Result<(), RequestError> {
        let limit = match self.config.max_message_bytes {
            _ if self.broken.is("emprops-size-unlimited") => usize::MAX,
            limit if self.broken.is("emprops-size-limit-low") => limit / 10,
            limit => limit,
        };
        if text.len() > limit && !assembled {
            if self.broken.is("emprops-size-refused-but-stored") {
                let sent = turn.out.len();
                drop(self.handle_message(turn, text, true));
                turn.out.truncate(sent);
            }
            return Err(RequestError::TooLarge { bytes: text.len(), limit });
        }
        if !text.starts_with(r#"{"type""#) && self.broken.is("emprops-type-first-only") {
            return Err(RequestError::InvalidMessage("the type must come first".to_owned()));
        }
        let message = request::parse_message(text)?;
        turn.id = message.id.clone();
        if self.broken.is("emprops-request-id-of-before") {
            turn.id = message.id.clone().or(self.faults.request.take());
            self.faults.request.clone_from(&turn.id);
        }
        let refused = self.broken.is("emprops-unknown-members-refused");
        if (refused || self.broken.is("emprops-unknown-members-swallow"))
            && let Some(undocumented_member) = message.undocumented_member()
        {
            let refusal = RequestError::InvalidMessage(format!("undocumented member {undocumented_member:?}"));
            return if refused { Err(refusal) } else { Ok(()) };
        }
        match MessageHandling::of_type(&message.kind) {
            MessageHandling::Request(_)
                if message.kind == "job_accepted_by_worker" && self.broken.is("emprops-acceptance-unknown") =>
            {
                self.send_reply(turn, &EmpropsReply::Unknown { content: "What is that?", original_message: text });
                return Ok(());
            }
            MessageHandling::Ignored
                if message.kind == "connector_ws_status" && self.broken.is("emprops-connector-refused") =>
            {
                return Err(RequestError::InvalidMessage("this hub takes no connectors".to_owned()));
            }
            MessageHandling::Ignored
                if !text.contains(r#""connected""#) && self.broken.is("emprops-connector-status-unknown") =>
            {
                self.send_reply(turn, &EmpropsReply::Unknown { content: "What is that?", original_message: text });
                return Ok(());
            }
            MessageHandling::Ignored => return Ok(()),
            MessageHandling::HubOnly => {
                return Err(RequestError::InvalidMessage(format!("only the hub sends {}", message.kind)));
            }
            MessageHandling::Unknown => {
                let end = text.floor_char_boundary(MAX_UNKNOWN_EXCERPT);
                let content = "Received unrecognized message type";
                let reply = EmpropsReply::Unknown { content, original_message: &text[..end] };
                self.send_reply(turn, &reply);
                if self.broken.is("emprops-unknown-told-to-all") {
                    let others = self.peers.keys().copied().filter(|conn| *conn != turn.conn);
                    self.send_to(turn.now, others, &reply, turn.out);
                }
                if self.broken.is("emprops-fuzz-unknown-frees-jobs") {
                    let held = self.workers.get(turn.conn).map(|worker| worker.held.clone());
                    for job in held.into_iter().flatten() {
                        self.workers.release_job(turn.conn, job);
                        self.requeue_job(turn.now, job, turn.out);
                    }
                }
                return Ok(());
            }
            MessageHandling::Request(AllowedSender::Any) => {}
            MessageHandling::Request(AllowedSender::Registered) => {
                let client = self.peers.get(&turn.conn).is_some_and(|peer| peer.client.is_some());
                if !client && self.workers.get(turn.conn).is_none() {
                    return Err(RequestError::NotRegistered("register_client or register_worker"));
                }
            }
            MessageHandling::Request(AllowedSender::Worker) => {
                if self.workers.get(turn.conn).is_none() {
                    return Err(RequestError::NotRegistered("register_worker"));
                }
                self.mark_alive(turn.now, turn.conn);
            }
        }
        match message.parse_request(self.broken)? {
            EmpropsRequest::RegisterClient(client) => self.register_client(turn, client),
            EmpropsRequest::RegisterWorker(worker) => self.register_worker(turn, worker)?,
            EmpropsRequest::Submit(job) => self.submit_job(turn, job, text.len())?,
            EmpropsRequest::Status { job_id } => self.answer_job_status(turn, job_id)?,
            EmpropsRequest::Cancel { job_id, reason } => self.cancel_job(turn, job_id, reason.as_deref())?,
            EmpropsRequest::Claim(claim) => self.handle_claim(turn, &claim)?,
            EmpropsRequest::Report(report) => self.handle_report(turn, &message.kind, report)?,
            EmpropsRequest::Heartbeat(state) => self.answer_heartbeat(turn, state)?,
            EmpropsRequest::WorkerStatus(state) => self.update_worker_status(turn, &message.kind, state)?,
            EmpropsRequest::SubscribeJob { job_id } => self.subscribe_job(turn, &message.kind, job_id)?,
            EmpropsRequest::Notifications(wish) => self.subscribe_notifications(turn, &message.kind, wish),
            EmpropsRequest::SubscribeStats(wish) => self.subscribe_stats(turn, &message.kind, wish)?,
            EmpropsRequest::Statistics(sections) => {
                let all = StatsSections { jobs: true, workers: true, system: true };
                let sections = if self.broken.is("emprops-sections-ignored") { all } else { sections };
                self.send_stats(turn.now, turn.conn, sections, turn.out);
            }
            EmpropsRequest::Chunk(_) if assembled => {
                return Err(RequestError::InvalidMessage(
                    "a message that came in chunks must not be a chunk".to_owned(),
                ));
            }
            EmpropsRequest::Chunk(chunk) => self.handle_chunk(turn, chunk)?,
            EmpropsRequest::Ping => {
                if self.broken.is("emprops-ping-serves-incomplete") {
                    self.answer_incomplete_message(turn);
                }
                self.send_reply(turn, &EmpropsReply::Pong {});
            }
            EmpropsRequest::Disconnect { keep } => self.disconnect(turn, keep),
        }
        Ok(())
    }

    /// Sends a message to some connections and returns to how many.
    fn send_to(
        &self,
        now: Duration,
        to: impl Iterator<Item = ConnectionId>,
        reply: &EmpropsReply<'_>,
        out: &mut Vec<MachineOutput>,
    ) -> usize {
        let mut to = to.peekable();
        if to.peek().is_none() {
            return 0;
        }
        let text = reply::serialize_emprops_reply(reply, self.clock.unix_ms(now));
        let before = out.len();
        out.extend(to.map(|conn| MachineOutput::Text { conn, text: text.clone() }));
        out.len() - before
    }

    fn send_reply(&self, turn: &mut MessageContext<'_>, reply: &EmpropsReply<'_>) {
        let text = reply::serialize_emprops_reply(reply, self.clock.unix_ms(turn.now));
        turn.out.push(MachineOutput::Text { conn: turn.conn, text });
    }

    /// Acknowledges a request without its own answer (line 637).
    fn send_ack(&self, turn: &mut MessageContext<'_>, kind: &str) {
        if self.config.acks {
            let id = turn.id.take();
            self.send_reply(
                turn,
                &EmpropsReply::Ack { message_id: id.as_deref(), original_type: kind, status: "processed" },
            );
        }
    }

    fn send_refusal(&self, turn: &mut MessageContext<'_>, refusal: &RequestError) {
        let id = turn.id.take();
        let reply = EmpropsReply::Error {
            error: refusal.to_string(),
            error_code: refusal.code(),
            details: refusal.details(),
            request_id: id.as_deref(),
        };
        self.send_reply(turn, &reply);
        if matches!(refusal, RequestError::InvalidJob(_)) && self.broken.is("emprops-refusal-told-to-all") {
            let others = self.peers.keys().copied().filter(|conn| *conn != turn.conn);
            self.send_to(turn.now, others, &reply, turn.out);
        }
    }
}
