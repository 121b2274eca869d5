//! Connections: the greeting, registrations, long messages in chunks, disconnects, and events of the admin side.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::chunked_message::{self, IncompleteMessage};
use super::job::JobState;
use super::needs::{Amount, WorkerCapabilities};
use super::reply::EmpropsReply;
use super::request::{MessageChunk, RegisterClient, RegisterWorker};
use super::request_error::{FieldError, RequestError};
use super::workers::Worker;
use super::{Emprops, EmpropsPeer, MessageContext, RegisteredClient, SavedSubscriptions, TimerPurpose};
use crate::machine::{ConnectionId, EventError, Handshake, MachineOutput};

/// The largest number of disconnected clients whose subscriptions are kept.
const MAX_KEPT: usize = 10_000;
/// The default of `estimated_downtime` in seconds (line 723).
pub(super) const DEFAULT_DOWNTIME: f64 = 60.0;
/// The default reason of a disconnect (line 721).
pub(super) const DEFAULT_DISCONNECT_REASON: &str = "Server maintenance";
const REGISTERED_STATUS: &str = "registered";

impl Emprops {
    /// Accepts and greets a connection (line 51).
    pub(super) fn open(
        &mut self,
        now: Duration,
        conn: ConnectionId,
        handshake: &Handshake,
        out: &mut Vec<MachineOutput>,
    ) {
        if handshake.path == "/" && self.broken.is("emprops-root-refused") {
            return out.push(MachineOutput::Refuse { conn, status: 404, body: "no hub at this path\n".to_owned() });
        }
        self.faults.opened += 1;
        if self.faults.opened == 3 && self.broken.is("emprops-third-connection-refused") {
            return out.push(MachineOutput::Refuse { conn, status: 403, body: "too many connections\n".to_owned() });
        }
        out.push(MachineOutput::Accept { conn, subprotocol: None });
        let authorized = self.config.worker_token.as_deref().is_some_and(|token| shows_token(handshake, token));
        self.peers.insert(conn, EmpropsPeer { authorized, ..EmpropsPeer::default() });
        let message = "Connected to EmProps Job Queue Hub";
        let server_version = &self.config.server_version;
        self.send_to(now, [conn].into_iter(), &EmpropsReply::ConnectionEstablished { message, server_version }, out);
    }

    fn connection_id(&mut self, conn: ConnectionId) -> Arc<str> {
        let Some(peer) = self.peers.get_mut(&conn) else { return "".into() };
        peer.id.get_or_insert_with(|| format!("conn-{}", self.ids.next_uuid()).into()).clone()
    }

    /// Registers a client or a monitor (lines 65 and 91).
    pub(super) fn register_client(&mut self, turn: &mut MessageContext<'_>, request: RegisterClient) {
        let connection = self.connection_id(turn.conn);
        let Some(peer) = self.peers.get_mut(&turn.conn) else { return };
        let id: Arc<str> = request.client_id.into();
        peer.client = Some(RegisteredClient { id: id.clone(), monitor: request.monitor });
        let ignored = self.broken.is("emprops-permissions-ignored");
        let may = |permission: &str| {
            request.monitor && (ignored || request.permissions.iter().any(|other| other == permission))
        };
        for (monitors, permitted) in
            [(&mut self.all_jobs, may("view_all_jobs")), (&mut self.alerted_monitors, may("view_system_stats"))]
        {
            if permitted {
                monitors.insert(turn.conn);
            } else {
                monitors.remove(&turn.conn);
            }
        }
        self.restore_subscriptions(turn.conn, &id);
        let lower = self.broken.is("emprops-client-id-lower");
        let shown = if lower { id.to_lowercase().into() } else { id };
        let reply = EmpropsReply::ClientRegistered {
            client_id: &shown,
            status: REGISTERED_STATUS,
            assigned_connection_id: &connection,
        };
        self.send_reply(turn, &reply);
    }

    /// Registers a worker (line 104). It replaces a worker with the same id and the worker of the same connection.
    pub(super) fn register_worker(
        &mut self,
        turn: &mut MessageContext<'_>,
        request: RegisterWorker,
    ) -> Result<(), RequestError> {
        if let Some(token) = &self.config.worker_token {
            let authorized = self.peers.get(&turn.conn).is_some_and(|peer| peer.authorized);
            let begins = self.broken.is("emprops-token-prefix");
            let right = request
                .token
                .as_ref()
                .map_or(authorized, |shown| shown == token || (begins && shown.starts_with(token.as_str())));
            let once = self.broken.is("emprops-token-once");
            if once && right {
                self.faults.authorized.insert(request.worker_id.clone());
            }
            let right = right || (once && self.faults.authorized.contains(&request.worker_id));
            if (!right && !self.broken.is("emprops-token-unchecked")) || self.broken.is("emprops-right-token-refused") {
                return Err(RequestError::AuthFailed { worker_id: request.worker_id });
            }
        }
        let connection = self.connection_id(turn.conn);
        let id: Arc<str> = request.worker_id.into();
        let again = self.workers.get(turn.conn).is_some_and(|worker| worker.id == id);
        self.faults.again += usize::from(again);
        if !again {
            if self.broken.is("emprops-heartbeats-from-start") {
                self.faults.registered.insert(turn.conn, turn.now);
            }
            if let Some(other) = self.workers.find_by_id(&id) {
                self.remove_worker(turn.now, other, turn.out);
                if self.broken.is("emprops-late-end-evicts") {
                    self.faults.replaced.insert(other, id.clone());
                }
            }
            self.remove_worker(turn.now, turn.conn, turn.out);
            self.workers.insert(
                turn.conn,
                Worker {
                    id: id.clone(),
                    capabilities: WorkerCapabilities::default(),
                    subscribed: false,
                    idle: false,
                    held: BTreeSet::new(),
                    seen: turn.now,
                    lost: true,
                    due: Duration::ZERO,
                },
            );
        }
        self.workers.change_worker(turn.conn, |worker| {
            worker.capabilities = WorkerCapabilities {
                services: request.capabilities.services.unwrap_or_default(),
                components: request.capabilities.components.unwrap_or_default(),
                hardware: request.capabilities.hardware.unwrap_or_default(),
            };
            worker.subscribed = request.subscribed;
            worker.idle = request.idle;
        });
        self.mark_alive(turn.now, turn.conn);
        let reply = EmpropsReply::WorkerRegistered {
            worker_id: &id,
            status: REGISTERED_STATUS,
            assigned_connection_id: format!("worker-{connection}"),
        };
        self.send_reply(turn, &reply);
        Ok(())
    }

    /// Removes the worker of a connection; its jobs return to the queue.
    fn remove_worker(&mut self, now: Duration, conn: ConnectionId, out: &mut Vec<MachineOutput>) {
        let Some(worker) = self.workers.remove(conn) else { return };
        self.timers.remove(&(worker.due, TimerPurpose::Worker(conn)));
        for job in worker.held {
            if let Some(JobState::Claimed { until, .. }) = self.jobs.get(job).map(|job| job.state)
                && self.broken.is("emprops-leaver-keeps-claim")
            {
                self.timers.remove(&(until, TimerPurpose::Claim(job)));
                continue;
            }
            self.return_to_queue(now, job, out);
        }
    }

    /// Handles `disconnect` (line 711): the hub closes the connection.
    pub(super) fn disconnect(&mut self, turn: &mut MessageContext<'_>, keep: bool) {
        turn.out.push(MachineOutput::Close { conn: turn.conn, code: 1000, reason: "goodbye".to_owned() });
        let keep = keep || self.broken.is("emprops-cleanup-ignored");
        self.remove_connection(turn.now, turn.conn, keep, turn.out);
    }

    /// Removes a connection. `keep` keeps the client's subscriptions until it registers again.
    pub(super) fn remove_connection(
        &mut self,
        now: Duration,
        conn: ConnectionId,
        keep: bool,
        out: &mut Vec<MachineOutput>,
    ) {
        let Some(peer) = self.peers.remove(&conn) else { return };
        self.all_jobs.remove(&conn);
        self.alerted_monitors.remove(&conn);
        let filters = self.subscriptions.remove(conn);
        for job in &peer.watching {
            if let Some(job) = self.jobs.get_mut(*job) {
                job.watchers.remove(&conn);
                if self.broken.is("emprops-leaver-ends-subscriptions") {
                    job.watchers.clear();
                }
            }
        }
        if let Some(stats) = peer.stats {
            self.timers.remove(&(stats.next, TimerPurpose::Stats(conn)));
        }
        for (chunk_id, series) in peer.series {
            self.incomplete_bytes -= series.bytes();
            self.timers.remove(&(series.until, TimerPurpose::Series(conn, chunk_id)));
        }
        if let Some(client) = peer.client.filter(|_| keep) {
            self.keep_subscriptions(client.id, SavedSubscriptions { watching: peer.watching, filters });
        }
        if !self.broken.is("emprops-departed-worker-stays") {
            self.remove_worker(now, conn, out);
        }
        if let Some(id) = self.faults.replaced.remove(&conn)
            && let Some(successor) = self.workers.find_by_id(&id)
        {
            self.remove_worker(now, successor, out);
        }
    }

    fn keep_subscriptions(&mut self, client: Arc<str>, kept: SavedSubscriptions) {
        if self.kept.insert(client.clone(), kept).is_none() {
            self.kept_order.push_back(client);
        }
        while self.kept_order.len() > MAX_KEPT {
            if let Some(oldest) = self.kept_order.pop_front() {
                self.kept.remove(&oldest);
            }
        }
    }

    /// Restores the subscriptions of a client that registers again.
    fn restore_subscriptions(&mut self, conn: ConnectionId, client: &Arc<str>) {
        let (Some(kept), Some(peer)) = (self.kept.remove(client), self.peers.get_mut(&conn)) else { return };
        self.kept_order.retain(|other| other != client);
        for number in kept.watching {
            if let Some(job) = self.jobs.get_mut(number)
                && !matches!(job.state, super::job::JobState::Ended(_))
            {
                job.watchers.insert(conn);
                peer.watching.insert(number);
            }
        }
        if let Some(filters) = kept.filters {
            self.subscriptions.insert(conn, filters);
        }
    }
}

/// How messages in chunks are handled (lines 662 to 686).
impl Emprops {
    /// As a fault: answers an incomplete message.
    pub(super) fn answer_incomplete_message(&self, turn: &mut MessageContext<'_>) {
        if self.peers.get(&turn.conn).is_some_and(|peer| !peer.series.is_empty()) {
            let (job_id, estimated_start) = ("job-incomplete", "2024-01-15T10:30:00Z".to_owned());
            let status = super::job::JobStatus::Queued;
            let (position, notified_workers, request_id) = (0, 0, None);
            let reply =
                EmpropsReply::JobAccepted { job_id, status, position, estimated_start, notified_workers, request_id };
            self.send_reply(turn, &reply);
        }
    }

    /// Handles a chunk; the last one assembles, confirms and handles the message.
    pub(super) fn handle_chunk(
        &mut self,
        turn: &mut MessageContext<'_>,
        chunk: MessageChunk,
    ) -> Result<(), RequestError> {
        let data = if self.broken.is("emprops-chunk-data-not-decoded") {
            chunk.data.into_bytes()
        } else {
            chunked_message::decode_chunk(&chunk.data)
                .map_err(|error| FieldError::new("data", format!("Must be base64: {error}")))?
        };
        let mut id: Arc<str> = chunk.chunk_id.into();
        let begun = |(_, peer): &(&ConnectionId, &EmpropsPeer)| peer.series.contains_key(&id);
        let shared = self.broken.is("emprops-chunk-ids-for-all");
        let first = shared.then(|| self.peers.iter().find(begun)).flatten();
        let owner = first.map_or(turn.conn, |(conn, _)| *conn);
        let Some(peer) = self.peers.get_mut(&owner) else { return Ok(()) };
        if self.broken.is("emprops-chunk-id-ignored") {
            id = peer.series.keys().next().cloned().unwrap_or(id);
        }
        match peer.series.get(&id) {
            None if peer.series.len() >= self.config.max_incomplete => {
                return Err(RequestError::Limit("too many incomplete messages"));
            }
            None => {
                let until = turn.now + self.config.chunk_timeout;
                self.timers.insert((until, TimerPurpose::Series(owner, id.clone())));
                peer.series.insert(id.clone(), IncompleteMessage::new(chunk.total, chunk.hash, until));
            }
            Some(series) if series.total != chunk.total || series.hash != chunk.hash => {
                let field = if series.total == chunk.total { "data_hash" } else { "total_chunks" };
                return Err(RequestError::Invalid(FieldError::new(
                    field,
                    "Must be the same in all chunks of a message",
                )));
            }
            Some(_) => {}
        }
        let own: usize = peer.series.values().map(IncompleteMessage::bytes).sum::<usize>() + data.len();
        let all = self.incomplete_bytes + data.len();
        if own > self.config.max_assembled_bytes || all > self.config.max_incomplete_bytes {
            self.drop_incomplete(owner, &id);
            return Err(RequestError::TooLarge { bytes: own, limit: self.config.max_assembled_bytes });
        }
        let Some(series) = peer.series.get_mut(&id) else { return Ok(()) };
        if chunk.index != series.count() && self.broken.is("emprops-chunks-in-order-only") {
            return Err(RequestError::Invalid(FieldError::new("chunk_index", "Must be the next")));
        }
        let index = if self.broken.is("emprops-chunks-as-they-come") { series.count() } else { chunk.index };
        let repeated = series.has_chunk(index) && self.broken.is("emprops-chunk-counts-again");
        let index = if repeated { series.total - 1 } else { index };
        let data = match self.broken.is("emprops-chunks-read-one-by-one") {
            true => String::from_utf8_lossy(&data).into_owned().into_bytes(),
            false => data,
        };
        self.incomplete_bytes -= series.bytes();
        series.add(index, data);
        self.incomplete_bytes += series.bytes();
        if !series.is_complete() {
            if series.count() + 1 == series.total && self.broken.is("emprops-chunks-complete-early") {
                let total_size = series.bytes();
                let reply = EmpropsReply::ChunkedMessageComplete {
                    chunk_id: &id,
                    total_size,
                    assembled_message: empty_object(),
                };
                self.send_reply(turn, &reply);
            }
            return Ok(());
        }
        let Some(series) = self.drop_incomplete(owner, &id) else { return Ok(()) };
        self.handle_assembled_message(turn, &id, series)
    }

    fn handle_assembled_message(
        &mut self,
        turn: &mut MessageContext<'_>,
        id: &str,
        series: IncompleteMessage,
    ) -> Result<(), RequestError> {
        let hash = series.hash.clone();
        let whole = series.assemble();
        let matches = if self.broken.is("emprops-chunk-hash-of-base64") {
            chunked_message::matches_hash(&hash, chunked_message::encode_chunk(&whole).as_bytes())
        } else {
            self.broken.is("emprops-chunk-hash-unchecked")
                || self.broken.is("emprops-chunks-read-one-by-one")
                || chunked_message::matches_hash(&hash, &whole)
        };
        if !matches {
            let refusal = RequestError::HashMismatch { chunk_id: id.to_owned() };
            if !self.broken.is("emprops-chunk-mismatch-processed") {
                return Err(refusal);
            }
            self.send_refusal(turn, &refusal);
        }
        let unreadable =
            |error: &dyn std::fmt::Display| RequestError::InvalidMessage(format!("the assembled message: {error}"));
        let text = String::from_utf8(whole).map_err(|error| unreadable(&error))?;
        let message: &RawValue = serde_json::from_str(&text).map_err(|error| unreadable(&error))?;
        if !message.get().starts_with('{') {
            return Err(unreadable(&"not an object"));
        }
        let reply =
            EmpropsReply::ChunkedMessageComplete { chunk_id: id, total_size: text.len(), assembled_message: message };
        self.send_reply(turn, &reply);
        if self.broken.is("emprops-assembled-not-processed") {
            return Ok(());
        }
        self.handle_message(turn, &text, true)
    }

    /// Drops an incomplete message and returns it.
    pub(super) fn drop_incomplete(&mut self, conn: ConnectionId, chunk_id: &Arc<str>) -> Option<IncompleteMessage> {
        let series = self.peers.get_mut(&conn)?.series.remove(chunk_id)?;
        self.incomplete_bytes -= series.bytes();
        self.timers.remove(&(series.until, TimerPurpose::Series(conn, chunk_id.clone())));
        Some(series)
    }
}

/// How events from the admin side are handled.
impl Emprops {
    /// Handles `server_disconnect`, which closes all connections, and `system_alert`, which is sent to monitors.
    pub(super) fn admin_event(
        &mut self,
        now: Duration,
        event: &Value,
        out: &mut Vec<MachineOutput>,
    ) -> Result<Value, EventError> {
        let text = |name: &str, default: &'static str| match event.get(name) {
            None => Ok(default.to_owned()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(EventError::Invalid(format!("member {name:?} is not a string"))),
        };
        match event.get("type").and_then(Value::as_str) {
            Some("server_disconnect") => {
                let seconds = match event.get("estimated_downtime") {
                    None => DEFAULT_DOWNTIME,
                    Some(value) => value.as_f64().filter(|seconds| (0.0..=1e9).contains(seconds)).ok_or_else(|| {
                        EventError::Invalid("member \"estimated_downtime\" is not a number of seconds".to_owned())
                    })?,
                };
                let sent = self.disconnect_all(now, &text("reason", DEFAULT_DISCONNECT_REASON)?, seconds, out);
                Ok(json!({ "disconnected": sent }))
            }
            Some("system_alert") => {
                let actions = match event.get("actions_recommended") {
                    None => Vec::new(),
                    Some(actions) => serde_json::from_value::<Vec<String>>(actions.clone())
                        .map_err(|error| EventError::Invalid(format!("member \"actions_recommended\": {error}")))?,
                };
                let alert = EmpropsReply::SystemAlert {
                    severity: &text("severity", "warning")?,
                    category: &text("category", "resource_constraint")?,
                    message: &text("message", "An alert from the admin side")?,
                    details: event.get("details").cloned().unwrap_or_else(|| json!({})),
                    actions_recommended: actions.iter().map(String::as_str).collect(),
                };
                Ok(json!({ "alerted": self.send_alert(now, &alert, out) }))
            }
            _ => Err(EventError::Invalid(
                r#"an event of this hub is {"type":"server_disconnect"} or {"type":"system_alert"}"#.to_owned(),
            )),
        }
    }

    /// Announces the downtime to all connections (line 719) and closes them; returns how many there were.
    pub(super) fn disconnect_all(
        &mut self,
        now: Duration,
        reason: &str,
        seconds: f64,
        out: &mut Vec<MachineOutput>,
    ) -> usize {
        let reply = EmpropsReply::ServerDisconnect {
            reason,
            reconnect_after: self.clock.unix_ms(now + Duration::from_secs_f64(seconds)),
            estimated_downtime: Amount::new(seconds),
        };
        let all: Vec<ConnectionId> = self.peers.keys().copied().collect();
        let sent = self.send_to(now, all.iter().copied(), &reply, out);
        out.extend(all.iter().map(|&conn| MachineOutput::Close { conn, code: 1001, reason: reason.to_owned() }));
        // Further updates would go only to connections that are being closed.
        let mut dropped = Vec::new();
        for conn in all {
            self.remove_connection(now, conn, false, &mut dropped);
        }
        sent
    }
}

/// `{}`.
fn empty_object() -> &'static RawValue {
    // The text is JSON.
    serde_json::from_str("{}").unwrap_or(RawValue::NULL)
}

/// Whether an upgrade request has the token.
fn shows_token(handshake: &Handshake, token: &str) -> bool {
    let query = handshake.query.iter().any(|(name, value)| name == "token" && value == token);
    let bearer = handshake.headers.iter().any(|(name, value)| {
        let bare = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        name == "authorization" && bare.map_or(value.as_str(), |(_, bare)| bare.trim()) == token
    });
    query || bearer
}
