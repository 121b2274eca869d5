//! Gator's tiers and wrappers (document 000): tasks send logs and stops to a hub, which has child hubs and parent hubs.
//! Requests go both ways; `log` goes to parents, `stop` to children.
//!
//! Children connect to `/child/NAME`, once the admin side has registered the name, tasks to any other path.
//! The document does not say how hubs find each other, so the admin side has events for it (README.md).
//!
//! Where the document is silent, this hub does the following. `posted` is false by default. A frame is undecodable if
//! it is not a JSON object, or its envelope has a wrong type or no action; it is answered even if posted, with the id
//! if it could be read. Without `req_id` there is no `rsp_id`; `null` is an id. A frame with a `result` is a response
//! and never answered. Severities are case-sensitive, timestamps are numbers of seconds. A log goes to parents with its
//! defaults filled in, posted, and not back to its sender. A stop goes to every child, with the hub's own id, and is
//! answered once it has been sent to all of them, whatever their answers. It ends the current jobs; the hub keeps
//! running.

mod jobs;
mod log;
mod request;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Number, Value, json};

use self::jobs::{GatorJobs, StartJob, StopFault};
use self::log::{LogEntry, LogStore, SEVERITIES};
use self::request::{
    EmptyPayload, FailureResponse, FrameDecodeError, GatorFrame, GatorRequest, OutgoingRequest, SuccessResponse,
};
use crate::fault::MachineFault;
use crate::machine::clock::HubClock;
use crate::machine::json::Members;
use crate::machine::settings::{Settings, SettingsError};
use crate::machine::{ConnectionId, EventError, FIRST_OUTGOING, Machine, MachineInput, MachineOutput, Utf8Bytes};

pub const PROTOCOL: &str = "gator";
/// The largest number of parents.
const MAX_PARENTS: usize = 100;
/// The largest number of log entries that wait for a parent that is not connected yet; beyond it, the oldest are
/// dropped.
const MAX_WAITING: usize = 1000;
/// The longest name of a child in bytes.
const MAX_NAME: usize = 128;

/// The faults that depend on earlier messages.
const HISTORY_FAULTS: [&str; 14] = [
    "gator-nameless-failure-takes-previous-id",
    "gator-id-lost-after-failure",
    "gator-posted-answered-after-failure",
    "gator-log-unanswered-after-failure",
    "gator-log-after-failure-stays",
    "gator-log-after-failures-stays",
    "gator-used-id-ignored",
    "gator-used-id-refused",
    "gator-posted-persists",
    "gator-success-names-previous-action",
    "gator-garbage-after-posted-ignored",
    "gator-second-garbage-ignored",
    "gator-third-garbage-ignored",
    "gator-garbage-takes-previous-id",
];

#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct GatorConfig {
    /// The SQLite file of the log; without one, it is kept in memory.
    database: Option<PathBuf>,
    /// The hub above this one, `ws://...`.
    parent: Option<String>,
    /// The delay before the hub reconnects to its configured parent.
    #[serde(rename = "reconnect_ms", deserialize_with = "crate::machine::settings::millis")]
    reconnect: Duration,
    /// The largest number of registered children.
    max_children: usize,
    /// The Unix time of the hub's start in milliseconds; without it, the system's clock.
    epoch_ms: Option<u64>,
}

impl Default for GatorConfig {
    fn default() -> GatorConfig {
        GatorConfig {
            database: None,
            parent: None,
            reconnect: Duration::from_secs(1),
            max_children: 10_000,
            epoch_ms: None,
        }
    }
}

pub fn build(settings: &Settings, broken: MachineFault) -> Result<Box<dyn Machine>, SettingsError> {
    let config: GatorConfig = settings.deserialize(PROTOCOL)?;
    let invalid = |reason| SettingsError::Invalid { protocol: PROTOCOL, reason };
    if let Some(url) = &config.parent {
        check_url(url).map_err(invalid)?;
    }
    Ok(Box::new(Gator {
        clock: HubClock::new(config.epoch_ms),
        store: open_store(config.database.as_ref()).map_err(invalid)?,
        connect_at: config.parent.is_some().then_some(Duration::ZERO),
        config,
        broken,
        below: BTreeMap::new(),
        children: BTreeMap::new(),
        parents: BTreeMap::new(),
        connects: 0,
        asked: 0,
        logged: 0,
        stops: 0,
        jobs: GatorJobs::default(),
        held: VecDeque::new(),
        unstopped: Vec::new(),
        before: BTreeMap::new(),
        past: HubHistory::default(),
    }))
}

fn open_store(file: Option<&PathBuf>) -> Result<Box<dyn LogStore>, String> {
    match file {
        None => Ok(Box::new(log::MemoryLogStore::default())),
        #[cfg(feature = "sqlite")]
        Some(file) => match sqlite::SqliteLogStore::open(file) {
            Ok(store) => Ok(Box::new(store)),
            Err(error) => Err(error.to_string()),
        },
        #[cfg(not(feature = "sqlite"))]
        Some(_) => Err("database: this program was built without SQLite: build it with `--features sqlite`, or omit the setting to keep the log in memory".to_owned()),
    }
}

struct Gator {
    config: GatorConfig,
    clock: HubClock,
    broken: MachineFault,
    store: Box<dyn LogStore>,
    /// Connected tasks and children.
    below: BTreeMap<ConnectionId, IncomingPeer>,
    /// Registered children, with their connections.
    children: BTreeMap<Arc<str>, Option<ConnectionId>>,
    /// The hub's parents, by the outgoing connection to each.
    parents: BTreeMap<ConnectionId, ParentHub>,
    /// When the hub connects to its configured parent.
    connect_at: Option<Duration>,
    connects: u64,
    /// The number of requests that the hub has sent.
    asked: u64,
    logged: u64,
    stops: u64,
    jobs: GatorJobs,
    /// For a fault: delayed answers, with their due times.
    held: VecDeque<(Duration, MachineOutput)>,
    /// For a fault: answers to stops that wait until the children have disconnected.
    unstopped: Vec<MachineOutput>,
    /// For faults: the earlier messages of each connection.
    before: BTreeMap<ConnectionId, ConnectionHistory>,
    /// For faults: the earlier messages of all connections.
    past: HubHistory,
}

/// The earlier messages of all connections.
#[derive(Default)]
struct HubHistory {
    /// The first spelling of each id, by the id in small letters.
    spellings: BTreeMap<String, Box<RawValue>>,
    /// The connection that was first to use an id.
    users: BTreeMap<String, ConnectionId>,
    message: Option<String>,
    /// The children that there were at the first stop.
    children: Option<Vec<ConnectionId>>,
    stop_ids: BTreeSet<String>,
    /// Whether a stop has been passed on.
    is_stopped: bool,
}

/// The earlier messages of a connection.
#[derive(Default)]
struct ConnectionHistory {
    ids: BTreeSet<String>,
    action: Option<String>,
    id: Option<Box<RawValue>>,
    posted: bool,
    undecodable: u32,
    failures: u32,
    /// Whether the last request failed.
    failed: bool,
}

/// The peer of an incoming connection.
enum IncomingPeer {
    Task,
    Child(Arc<str>),
}

struct ParentHub {
    url: String,
    /// Whether this is the configured parent, to which the hub reconnects.
    configured: bool,
    /// Messages to send once the parent is connected; `None` if it is connected.
    waiting: Option<VecDeque<Utf8Bytes>>,
}

impl Machine for Gator {
    fn handle(&mut self, now: Duration, input: MachineInput, out: &mut Vec<MachineOutput>) {
        self.run_due(now, out);
        match input {
            MachineInput::Open { conn, handshake } => self.open(conn, &handshake.path, out),
            MachineInput::Text { conn, text } if self.has_connection(conn) => self.handle_text(now, conn, &text, out),
            MachineInput::Connected { conn } => {
                if let Some(parent) = self.parents.get_mut(&conn) {
                    let waiting = parent.waiting.take().unwrap_or_default();
                    out.extend(waiting.into_iter().map(|text| MachineOutput::Text { conn, text }));
                }
            }
            MachineInput::ConnectFailed { conn, .. } | MachineInput::Closed { conn } => self.leave(now, conn, out),
            // The document has only JSON messages.
            MachineInput::Text { .. }
            | MachineInput::Binary { .. }
            | MachineInput::Ping { .. }
            | MachineInput::Tick => {}
        }
    }

    fn deadline(&self) -> Option<Duration> {
        let held = self.held.front().map(|(due, _)| *due);
        [held, self.connect_at].into_iter().flatten().min()
    }

    fn state(&self) -> Value {
        let parents =
            self.parents.values().map(|parent| json!({ "url": parent.url, "there": parent.waiting.is_none() }));
        json!({
            "connections": self.below.len(),
            "children": self.children.iter().map(|(name, conn)| (name.to_string(), json!(conn.is_some()))).collect::<serde_json::Map<_, _>>(),
            "parents": parents.collect::<Vec<_>>(),
            "store": self.store.describe(),
            "logged": self.logged,
            "stops": self.stops,
            "jobs": self.jobs.count(),
        })
    }

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<MachineOutput>) -> Result<Value, EventError> {
        self.run_due(now, out);
        self.admin_event(event, out).map_err(EventError::Invalid)
    }
}

/// How connections are opened and closed.
impl Gator {
    fn has_connection(&self, conn: ConnectionId) -> bool {
        self.below.contains_key(&conn) || self.parents.contains_key(&conn)
    }

    fn open(&mut self, conn: ConnectionId, path: &str, out: &mut Vec<MachineOutput>) {
        let refuse = |status, body: String| MachineOutput::Refuse { conn, status, body };
        let peer = match path.strip_prefix("/child/") {
            None => IncomingPeer::Task,
            Some(name) => match self.children.get_key_value(name) {
                None => return out.push(refuse(404, "no child of this name is registered\n".to_owned())),
                Some((_, Some(_))) => return out.push(refuse(409, "this child is connected already\n".to_owned())),
                Some((name, None)) => IncomingPeer::Child(name.clone()),
            },
        };
        if let IncomingPeer::Child(name) = &peer {
            self.children.insert(name.clone(), Some(conn));
        }
        self.below.insert(conn, peer);
        out.push(MachineOutput::Accept { conn, subprotocol: None });
    }

    fn leave(&mut self, now: Duration, conn: ConnectionId, out: &mut Vec<MachineOutput>) {
        self.before.remove(&conn);
        if let Some(IncomingPeer::Child(name)) = self.below.remove(&conn) {
            self.children.remove(&name);
            if self.connected_children().next().is_none() {
                out.append(&mut self.unstopped);
            }
        }
        if self.parents.remove(&conn).is_some_and(|parent| parent.configured) {
            self.connect_at = Some(now + self.config.reconnect);
        }
    }

    /// Does everything that is due: connects to the configured parent, sends delayed answers.
    fn run_due(&mut self, now: Duration, out: &mut Vec<MachineOutput>) {
        if self.connect_at.is_some_and(|due| due <= now) {
            self.connect_at = None;
            if let Some(url) = self.config.parent.clone() {
                self.connect_to_parent(url, true, out);
            }
        }
        while let Some((_, output)) = self.held.pop_front_if(|(due, _)| *due <= now) {
            out.push(output);
        }
    }

    fn connect_to_parent(&mut self, url: String, configured: bool, out: &mut Vec<MachineOutput>) {
        let conn = FIRST_OUTGOING + self.connects;
        self.connects += 1;
        out.push(MachineOutput::Connect { conn, url: url.clone() });
        self.parents.insert(conn, ParentHub { url, configured, waiting: Some(VecDeque::new()) });
    }

    fn connected_children(&self) -> impl Iterator<Item = ConnectionId> {
        self.children.values().filter_map(|conn| *conn)
    }
}

/// How requests are handled.
impl Gator {
    fn handle_text(&mut self, now: Duration, conn: ConnectionId, text: &str, out: &mut Vec<MachineOutput>) {
        let outstanding = self.held.iter().any(|(_, output)| output.conn() == conn);
        if outstanding && self.broken.is("gator-one-outstanding") {
            return;
        }
        match request::parse_frame(text) {
            Ok(GatorFrame::Response) => {
                if self.broken.is("gator-fuzz-undue-answer-closes")
                    && self.below.contains_key(&conn)
                    && !self.has_asked(text)
                {
                    self.leave(now, conn, out);
                    out.push(MachineOutput::Close { conn, code: 1000, reason: String::new() });
                }
            }
            Ok(GatorFrame::Request(request)) => self.handle_request(now, conn, &request, out),
            Err(FrameDecodeError { .. }) if self.broken.is("gator-garbage-ignored") => {}
            Err(FrameDecodeError { reason, .. }) if self.broken.is("gator-garbage-closes") => {
                self.leave(now, conn, out);
                let reason = reason[..reason.floor_char_boundary(123)].to_owned();
                out.push(MachineOutput::Close { conn, code: 1007, reason });
            }
            Err(FrameDecodeError { .. }) if self.ignores_garbage(conn) => {}
            Err(FrameDecodeError { req_id, reason }) => {
                self.record_outcome(conn, false);
                let before = self.before.get(&conn).and_then(|before| before.id.as_deref());
                let req_id = req_id.or(before.filter(|_| self.broken.is("gator-garbage-takes-previous-id")));
                let reason = format!("failed to decode the message: {reason}");
                out.push(MachineOutput::Text {
                    conn,
                    text: request::serialize_frame(&FailureResponse {
                        result: "error",
                        rsp_id: req_id,
                        reason: &reason,
                    }),
                });
            }
        }
    }

    /// Whether a response answers a request that the hub has sent, perhaps to another peer.
    fn has_asked(&self, response: &str) -> bool {
        let id = serde_json::from_str(response).ok().and_then(|response: Value| response.get("rsp_id")?.as_u64());
        id.is_some_and(|id| (1..=self.asked).contains(&id))
    }

    fn handle_request(
        &mut self,
        now: Duration,
        conn: ConnectionId,
        request: &GatorRequest<'_>,
        out: &mut Vec<MachineOutput>,
    ) {
        let before = self.update_history(conn, request);
        if self.broken.is("gator-used-id-ignored") && before.ids.contains(request_id_text(request)) {
            return;
        }
        let by_default =
            self.broken.is("gator-posted-by-default") || (before.posted && self.broken.is("gator-posted-persists"));
        let posted = request.posted.unwrap_or(by_default);
        let outcome = match request.action.as_str() {
            _ if before.failures > 0 && before.ids.contains(request_id_text(request)) => Err("as before".to_owned()),
            "log" if self.demands_posted(conn, request) => Err("posted is missing".to_owned()),
            "log" if !self.broken.is("gator-log-unknown") => {
                self.handle_log(now, conn, request.payload.as_ref(), posted, out)
            }
            "stop" if !self.broken.is("gator-stop-unknown") => self.handle_stop(conn, request, posted, out),
            _ if self.broken.is("gator-unknown-action-succeeds") => Ok(()),
            _ if self.broken.is("gator-unknown-action-ignored") => return,
            other => {
                let shown: String = other.chars().take(64).collect();
                Err(format!("there is no action {shown:?}; the actions are log and stop"))
            }
        };
        self.record_outcome(conn, outcome.is_ok());
        let reopened = before.failures > 0 && self.broken.is("gator-posted-answered-after-failure");
        if posted && !reopened && !self.answers_posted(conn, request, outcome.is_ok()) {
            return;
        }
        if outcome.is_ok() && self.withholds_success(conn, request, &before) {
            return;
        }
        if request.action == "stop"
            && self.parents.contains_key(&conn)
            && self.broken.is("gator-stop-of-parent-unanswered")
        {
            return;
        }
        if request.req_id.is_none() && self.broken.is("gator-id-demanded")
            || request.has_more && self.broken.is("gator-unknown-member-unanswered")
        {
            return;
        }
        let anonymous = posted && self.broken.is("gator-posted-answered-anonymously");
        let lossy = request.req_id.and_then(|id| if anonymous { Some(None) } else { self.faulty_id(id) });
        let rsp_id = match &lossy {
            _ if before.failed && outcome.is_ok() && self.broken.is("gator-id-lost-after-failure") => None,
            None if outcome.is_err() && self.broken.is("gator-nameless-failure-takes-previous-id") => {
                request.req_id.or(before.id.as_deref())
            }
            None => request.req_id,
            Some(copy) => copy.as_deref(),
        };
        let named = match &before.action {
            Some(action) if self.broken.is("gator-success-names-previous-action") => action,
            _ => &request.action,
        };
        let text = match &outcome {
            Ok(()) => request::serialize_frame(&SuccessResponse {
                action: named,
                rsp_id,
                result: "success",
                payload: EmptyPayload {},
            }),
            Err(reason) => request::serialize_frame(&FailureResponse { result: "error", rsp_id, reason }),
        };
        let answer = MachineOutput::Text { conn, text };
        if self.broken.is("gator-one-outstanding") {
            self.held.push_back((now + Duration::from_millis(30), answer));
        } else if request.action == "stop"
            && self.broken.is("gator-stop-waits-for-children")
            && self.connected_children().next().is_some()
        {
            self.unstopped.push(answer);
        } else {
            out.push(answer);
        }
    }

    /// Returns the earlier messages of this connection, and records this request.
    fn update_history(&mut self, conn: ConnectionId, request: &GatorRequest<'_>) -> ConnectionHistory {
        if !HISTORY_FAULTS.iter().any(|fault| self.broken.is(fault)) {
            return ConnectionHistory::default();
        }
        let now = self.before.entry(conn).or_default();
        let before = ConnectionHistory {
            ids: now.ids.clone(),
            action: now.action.clone(),
            id: now.id.clone(),
            posted: now.posted,
            failures: now.failures,
            failed: now.failed,
            ..ConnectionHistory::default()
        };
        now.action = Some(request.action.clone());
        now.posted = request.posted == Some(true);
        now.id = request.req_id.map(ToOwned::to_owned);
        let keeps_ids = self.broken.is("gator-used-id-ignored") || self.broken.is("gator-used-id-refused");
        if keeps_ids && request.req_id.is_some() {
            now.ids.insert(request_id_text(request).to_owned());
        }
        before
    }

    /// For faults: records whether the last message of this connection was carried out.
    fn record_outcome(&mut self, conn: ConnectionId, succeeded: bool) {
        if let Some(now) = self.before.get_mut(&conn) {
            now.failed = !succeeded;
            now.failures += u32::from(!succeeded);
        }
    }

    /// Whether a fault leaves a request unanswered that was carried out.
    fn withholds_success(
        &mut self,
        conn: ConnectionId,
        request: &GatorRequest<'_>,
        before: &ConnectionHistory,
    ) -> bool {
        if request.req_id.is_some() && self.broken.is("gator-namesake-unanswered") {
            let id = request_id_text(request).to_owned();
            return *self.past.users.entry(id).or_insert(conn) != conn;
        }
        request.action == "log"
            && ((before.failures > 0 && self.broken.is("gator-log-unanswered-after-failure"))
                || (self.stops > 0 && self.broken.is("gator-log-after-stop-unanswered")))
    }

    /// Whether a fault leaves this undecodable text of a connection unanswered.
    fn ignores_garbage(&mut self, conn: ConnectionId) -> bool {
        if !HISTORY_FAULTS.iter().any(|fault| self.broken.is(fault)) {
            return false;
        }
        let before = self.before.entry(conn).or_default();
        before.undecodable += 1;
        (before.undecodable == 2 && self.broken.is("gator-second-garbage-ignored"))
            || (before.undecodable == 3 && self.broken.is("gator-third-garbage-ignored"))
            || (before.posted && self.broken.is("gator-garbage-after-posted-ignored"))
    }

    fn is_child(&self, conn: ConnectionId) -> bool {
        matches!(self.below.get(&conn), Some(IncomingPeer::Child(_)))
    }

    /// Whether a fault refuses a request because it has no `posted`.
    fn demands_posted(&self, conn: ConnectionId, request: &GatorRequest<'_>) -> bool {
        request.posted.is_none()
            && self.parents.contains_key(&conn)
            && self.broken.is("gator-log-of-parent-without-posted-refused")
    }

    /// Whether a fault answers a request that should not be answered (line 33).
    fn answers_posted(&self, conn: ConnectionId, request: &GatorRequest<'_>, succeeded: bool) -> bool {
        self.broken.is("gator-posted-answered")
            || self.broken.is("gator-posted-answered-anonymously")
            || (request.req_id.is_none() && self.broken.is("gator-posted-nameless-answered"))
            || (self.is_child(conn) && self.broken.is("gator-posted-by-child-answered"))
            || (!succeeded && self.broken.is("gator-posted-failure-answered"))
            || (!succeeded && request.action == "log" && self.broken.is("gator-posted-invalid-log-answered"))
            || (request.action == "stop" && self.broken.is("gator-posted-stop-answered"))
    }

    /// Returns the id as changed by a fault; `None` if no fault changes it.
    fn faulty_id(&mut self, id: &RawValue) -> Option<Option<Box<RawValue>>> {
        let number: Option<f64> = id.get().parse().ok();
        if number.is_none() && self.broken.is("gator-text-id-lost") {
            return Some(None);
        }
        if self.broken.is("gator-digits-taken-for-number") {
            let digits = id.get().trim_matches('"');
            let quoted = digits.len() + 2 == id.get().len() && digits.parse::<u32>().is_ok();
            return quoted.then(|| serde_json::from_str(digits).ok());
        }
        if number == Some(0.0) && self.broken.is("gator-zero-id-lost") {
            return Some(None);
        }
        if self.broken.is("gator-ids-folded") {
            let key = id.get().to_lowercase();
            return Some(Some(self.past.spellings.entry(key).or_insert_with(|| id.to_owned()).clone()));
        }
        if self.broken.is("gator-large-id-rounded") {
            let rounded = number.filter(|number| *number >= 9_007_199_254_740_992.0)? as f32;
            return serde_json::value::to_raw_value(&f64::from(rounded)).ok().map(Some);
        }
        None
    }

    /// Stores a log entry and sends it to the parents (lines 71 to 96).
    fn handle_log(
        &mut self,
        now: Duration,
        conn: ConnectionId,
        payload: Option<&Members<'_>>,
        posted: bool,
        out: &mut Vec<MachineOutput>,
    ) -> Result<(), String> {
        let given = log::parse_log_payload(payload)?;
        let message = match given.message {
            None if self.broken.is("gator-message-optional") => "N/A".to_owned(),
            message => message.ok_or("a log needs a message in its payload")?,
        };
        if message.is_empty() && self.broken.is("gator-empty-message-refused") {
            return Err("the message is empty".to_owned());
        }
        let severity = match given.severity {
            None if self.broken.is("gator-severity-demanded") => return Err("a log needs a severity".to_owned()),
            None if self.broken.is("gator-severity-defaults-to-debug") => "DEBUG".to_owned(),
            None => "INFO".to_owned(),
            Some(severity) if severity == "info" && self.broken.is("gator-small-info-taken") => "INFO".to_owned(),
            Some(severity) => severity,
        };
        if !SEVERITIES.contains(&severity.as_str()) && !self.broken.is("gator-severity-unchecked")
            || severity == "CRITICAL" && self.broken.is("gator-critical-refused")
            || severity == "DEBUG" && self.broken.is("gator-debug-refused")
        {
            let shown: String = severity.chars().take(64).collect();
            return Err(format!("{shown:?} is not a severity; the severities are {}", SEVERITIES.join(", ")));
        }
        let current = self.clock.unix_ms(now);
        let timestamp: Number = match given.timestamp {
            None if self.broken.is("gator-timestamp-demanded") => return Err("a log needs a timestamp".to_owned()),
            None if self.broken.is("gator-timestamp-defaults-to-zero") => 0.into(),
            None if self.broken.is("gator-timestamp-defaults-to-milliseconds") => current.into(),
            None if self.broken.is("gator-default-time-is-of-start") => {
                (self.clock.unix_ms(Duration::ZERO) / 1000).into()
            }
            Some(_) if self.broken.is("gator-timestamp-replaced") => (current / 1000).into(),
            Some(number) if number.as_u64() == Some(0) && self.broken.is("gator-epoch-replaced") => {
                (current / 1000).into()
            }
            None => (current / 1000).into(),
            Some(timestamp) => timestamp,
        };
        let message = if self.broken.is("gator-message-trimmed") {
            message.trim().to_owned()
        } else if self.broken.is("gator-message-cut") {
            message.chars().take(65_535).collect()
        } else {
            message
        };
        let entry = LogEntry { timestamp, severity, message };
        let forgotten = self.broken.is("gator-log-not-stored")
            || (posted && self.broken.is("gator-posted-log-not-stored"))
            || (self.parents.contains_key(&conn) && self.broken.is("gator-log-of-parent-not-stored"))
            || (self.logged >= 64 && self.broken.is("gator-store-full"));
        if !forgotten {
            let stored = if self.broken.is("gator-log-stored-as-warning") {
                &LogEntry {
                    severity: "WARNING".to_owned(),
                    timestamp: entry.timestamp.clone(),
                    message: entry.message.clone(),
                }
            } else {
                &entry
            };
            self.store.add(stored).map_err(|error| error.to_string())?;
        }
        self.logged += 1;
        if self.is_child(conn) && self.broken.is("gator-child-logs-stay")
            || entry.message.contains('%') && self.broken.is("gator-percent-stays")
            || self.keeps_log(conn, &entry)
        {
            return Ok(());
        }
        self.asked += 1;
        let upwards = request::serialize_frame(&OutgoingRequest {
            action: "log",
            req_id: self.asked,
            posted: true,
            payload: &entry,
        });
        if self.broken.is("gator-log-to-children") {
            let children = self.connected_children().filter(|child| *child != conn);
            out.extend(children.map(|conn| MachineOutput::Text { conn, text: upwards.clone() }));
        }
        let first_only = self.broken.is("gator-first-parent-only");
        let returns = self.broken.is("gator-log-returned-to-parent");
        let receives = |parent: ConnectionId| (parent != conn || returns) && (parent == FIRST_OUTGOING || !first_only);
        for (&parent, state) in self.parents.iter_mut().filter(|(parent, _)| receives(**parent)) {
            match &mut state.waiting {
                None => out.push(MachineOutput::Text { conn: parent, text: upwards.clone() }),
                Some(waiting) => {
                    if waiting.len() >= MAX_WAITING {
                        waiting.pop_front();
                    }
                    waiting.push_back(upwards.clone());
                }
            }
        }
        Ok(())
    }

    /// Whether a fault that depends on earlier messages keeps a log from the parents.
    fn keeps_log(&mut self, conn: ConnectionId, entry: &LogEntry) -> bool {
        if self.broken.is("gator-equal-log-stays") {
            return self.past.message.replace(entry.message.clone()).as_ref() == Some(&entry.message);
        }
        self.before.get(&conn).is_some_and(|before| {
            (before.failed && self.broken.is("gator-log-after-failure-stays"))
                || (before.failures > 2 && self.broken.is("gator-log-after-failures-stays"))
        })
    }

    /// Ends all jobs and sends the stop to the children (lines 103 to 120).
    fn handle_stop(
        &mut self,
        conn: ConnectionId,
        request: &GatorRequest<'_>,
        posted: bool,
        out: &mut Vec<MachineOutput>,
    ) -> Result<(), String> {
        let payload = request.payload.as_ref();
        if payload.is_none() && self.broken.is("gator-stop-payload-demanded") {
            return Err("a stop needs a payload".to_owned());
        }
        if payload.is_some_and(Members::is_empty) && self.broken.is("gator-stop-empty-payload-refused") {
            return Err("the payload is empty".to_owned());
        }
        self.stops += 1;
        let spared = self.parents.contains_key(&conn) && self.broken.is("gator-stop-of-parent-spares-jobs");
        self.jobs.stop_all(if spared || self.broken.is("gator-stop-job-survives") {
            StopFault::Survives
        } else if self.broken.is("gator-stop-keeps-scheduling") {
            StopFault::Schedules
        } else {
            StopFault::None
        });
        if posted && self.broken.is("gator-posted-stop-kept")
            || self.is_child(conn) && self.broken.is("gator-stop-of-child-kept")
            || std::mem::replace(&mut self.past.is_stopped, true) && self.broken.is("gator-second-stop-kept")
            || self.broken.is("gator-stop-remembered")
                && !self.past.stop_ids.insert(request_id_text(request).to_owned())
        {
            return Ok(());
        }
        let mut children: Vec<ConnectionId> = self.connected_children().collect();
        if self.broken.is("gator-children-frozen") {
            let first = self.past.children.get_or_insert_with(|| children.clone());
            children.retain(|child| first.contains(child));
        }
        if self.broken.is("gator-stop-to-one-child") {
            children.truncate(1);
        }
        if self.broken.is("gator-stop-to-two-children") {
            children.truncate(2);
        }
        for conn in children {
            self.asked += 1;
            let ask = OutgoingRequest { action: "stop", req_id: self.asked, posted: false, payload: EmptyPayload {} };
            out.push(MachineOutput::Text { conn, text: request::serialize_frame(&ask) });
        }
        Ok(())
    }
}

/// How events from the admin side are handled.
impl Gator {
    fn admin_event(&mut self, event: &Value, out: &mut Vec<MachineOutput>) -> Result<Value, String> {
        if event.as_object().is_none_or(|members| members.len() != 1) {
            return Err("an event is an object with one member, which is one of \
                register_child, connect_up, log_entries, start_job, finish_task, job"
                .to_owned());
        }
        match GatorEvent::deserialize(event).map_err(|error| error.to_string())? {
            GatorEvent::RegisterChild { name } => self.register_child(&name),
            GatorEvent::ConnectUp { url } => {
                check_url(&url)?;
                if self.parents.len() >= MAX_PARENTS {
                    return Err(format!("the hub already has {MAX_PARENTS} parents"));
                }
                self.connect_to_parent(url.clone(), false, out);
                Ok(json!({ "url": url, "parents": self.parents.len() }))
            }
            GatorEvent::LogEntries { message } => {
                let found = self.store.find(message.as_deref()).map_err(|error| error.to_string())?;
                Ok(json!(found))
            }
            GatorEvent::StartJob(start) => self.jobs.start_job(start).map(|job| json!(job)),
            GatorEvent::FinishTask { job, task } => self.jobs.finish_task(&job, task).map(|job| json!(job)),
            GatorEvent::Job { name } => self.jobs.find_job(&name).map(|job| json!(job)),
        }
    }

    fn register_child(&mut self, name: &str) -> Result<Value, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) {
            return Err(format!("a child's name must have 1 to {MAX_NAME} letters, digits, '-', '_' or '.'"));
        }
        if !self.children.contains_key(name) {
            if self.children.len() >= self.config.max_children {
                return Err(format!("there are already {} children", self.children.len()));
            }
            self.children.insert(name.into(), None);
        }
        Ok(json!({ "path": format!("/child/{name}") }))
    }
}

/// Returns the id of a request as it was written; empty if it has none.
fn request_id_text<'a>(request: &GatorRequest<'a>) -> &'a str {
    request.req_id.map_or("", RawValue::get)
}

/// An event from the admin side.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum GatorEvent {
    RegisterChild { name: String },
    ConnectUp { url: String },
    LogEntries { message: Option<String> },
    StartJob(StartJob),
    FinishTask { job: String, task: usize },
    Job { name: String },
}

fn check_url(url: &str) -> Result<(), String> {
    if url.starts_with("ws://") && url.len() <= 2048 {
        Ok(())
    } else {
        Err("a parent's url must begin with ws:// and have at most 2048 bytes".to_owned())
    }
}
