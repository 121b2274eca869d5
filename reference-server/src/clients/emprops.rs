//! The clients of document 004: a job client, a worker, or a monitor.

use std::collections::VecDeque;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::reconnection::{Reconnection, seconds};
use super::{ClientInput, ClientMachine, ClientOutput, ClientSetup, ReceivedMessage};
use crate::machine::clock::format_iso;
use crate::machine::settings::SettingsError;

pub const PROTOCOL: &str = "emprops";
pub const WORDS: &[&str] = &["submit", "cancel", "status", "work", "fail", "monitor", "upload"];

/// Longer messages are sent in chunks (line 660).
const LONGEST_WHOLE: usize = 1 << 20;
/// The bytes of a chunk: with its envelope, it stays below 64 KB (line 659). A multiple of 3, as base64 needs.
const CHUNK: usize = 45_000;
/// The delay before the first attempt to connect again.
const RECONNECT: Duration = Duration::from_secs(1);
const WORKER: &str = "worker-gpu-01";
const CLIENT: &str = "my-app-v1.0";

pub fn build(setup: ClientSetup) -> Result<Box<dyn ClientMachine>, SettingsError> {
    let settings = setup.settings.deserialize(PROTOCOL)?;
    Ok(Box::new(EmpropsClient {
        open: setup.does.clone(),
        reconnection: Reconnection::new(RECONNECT, 5),
        setup,
        settings,
        messages: 0,
        registered: false,
        submitted: None,
        held: Vec::new(),
        available: VecDeque::new(),
        heartbeat: None,
        reconnect_after: None,
    }))
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EmpropsSettings {
    /// The time between a worker's heartbeats, in seconds.
    #[serde(deserialize_with = "seconds")]
    heartbeat: Duration,
    /// The time between a worker's reports on a job, in seconds.
    #[serde(deserialize_with = "seconds")]
    step: Duration,
}

impl Default for EmpropsSettings {
    fn default() -> EmpropsSettings {
        EmpropsSettings { heartbeat: Duration::from_secs(30), step: Duration::from_millis(200) }
    }
}

struct EmpropsClient {
    setup: ClientSetup,
    settings: EmpropsSettings,
    /// The words that are not done yet.
    open: Vec<String>,
    /// The number of messages sent.
    messages: u64,
    /// Whether this connection has registered.
    registered: bool,
    /// The id of the submitted job, once accepted.
    submitted: Option<String>,
    /// The worker's jobs.
    held: Vec<HeldJob>,
    /// The types of jobs that the worker was notified of while busy.
    available: VecDeque<String>,
    /// When the next heartbeat is due.
    heartbeat: Option<Duration>,
    /// When the hub wants to see the client again.
    reconnect_after: Option<Duration>,
    reconnection: Reconnection,
}

/// A job that the worker has accepted.
struct HeldJob {
    id: String,
    progress: u8,
    /// When the next report is due.
    next: Duration,
}

impl ClientMachine for EmpropsClient {
    fn connect(&self) -> ClientOutput {
        ClientOutput::Connect { url: self.setup.url.clone(), subprotocol: None }
    }

    fn handle(&mut self, now: Duration, input: ClientInput<'_>, out: &mut Vec<ClientOutput>) {
        match input {
            ClientInput::Opened => {
                self.reconnection.reset();
                self.reconnect_after = None;
                self.registered = false;
                if self.setup.is_broken("submits-unregistered") {
                    self.submit(now, out);
                }
            }
            ClientInput::Text(text) => self.receive(now, &ReceivedMessage::read(text), out),
            ClientInput::Closed(_) => {
                // The jobs of a lost connection go to other workers.
                self.held.clear();
                self.available.clear();
                self.heartbeat = None;
                if let Some(earliest) = self.reconnect_after {
                    self.reconnection.schedule(now, earliest);
                }
            }
            ClientInput::Tick if self.reconnection.take(now) => out.push(self.connect()),
            ClientInput::Tick => self.work(now, out),
            ClientInput::Leaving => {
                let members = json!({ "reason": "Client shutdown", "cleanup_subscriptions": true });
                self.send_message(now, "disconnect", members, out);
            }
        }
    }

    fn deadline(&self) -> Option<Duration> {
        let reports = self.held.iter().map(|job| job.next);
        reports.chain(self.heartbeat).chain(self.reconnection.due()).min()
    }

    fn is_done(&self) -> bool {
        self.registered && self.open.is_empty()
    }
}

/// Messages of every role.
impl EmpropsClient {
    fn is_worker(&self) -> bool {
        self.setup.does("work") || self.setup.does("fail")
    }

    /// Adds what every message has (lines 19 to 26), and sends it, in chunks if it is long.
    fn send_message(&mut self, now: Duration, kind: &str, members: Value, out: &mut Vec<ClientOutput>) {
        self.messages += 1;
        let mut message = json!({ "type": kind, "id": format!("msg-{}", self.messages) });
        if let (Value::Object(message), Value::Object(members)) = (&mut message, members) {
            message.extend(members);
        }
        message["timestamp"] = self.setup.clock.unix_ms(now).into();
        let text = message.to_string();
        if text.len() <= LONGEST_WHOLE || self.setup.is_broken("upload-in-one-piece") {
            return out.push(ClientOutput::Text(text));
        }
        let chunk_id = format!("chunk-{}", self.setup.next_uuid());
        let total = text.len().div_ceil(CHUNK);
        for (index, part) in text.as_bytes().chunks(CHUNK).enumerate() {
            let hashed = if self.setup.is_broken("chunk-hashed-alone") { part } else { text.as_bytes() };
            let hash: String = Sha256::digest(hashed).iter().map(|byte| format!("{byte:02x}")).collect();
            let chunk = json!({
                "chunk_id": chunk_id,
                "chunk_index": index,
                "total_chunks": total,
                "data": STANDARD.encode(part),
                "data_hash": hash,
                "original_type": kind,
            });
            if index + 1 < total || !self.setup.is_broken("last-chunk-missing") {
                self.send_message(now, "chunked_message", chunk, out);
            }
        }
    }

    fn finish(&mut self, word: &str) {
        self.open.retain(|open| open != word);
    }

    fn register(&mut self, now: Duration, out: &mut Vec<ClientOutput>) {
        let (kind, members) = if self.is_worker() {
            let hardware = json!({ "gpu_memory_gb": 16, "gpu_model": "RTX 4090" });
            let capabilities = json!({
                "services": ["comfyui", "a1111"], "components": ["text-to-image-xl"], "hardware": hardware,
            });
            let members = json!({
                "worker_id": WORKER, "capabilities": capabilities, "subscribe_to_jobs": true, "status": "idle",
            });
            ("register_worker", members)
        } else if self.setup.does("monitor") {
            let permissions = ["view_all_jobs", "view_system_stats"];
            let members = json!({ "client_type": "monitor", "client_id": CLIENT, "permissions": permissions });
            ("register_client", members)
        } else {
            let capabilities = json!({ "webhook_support": true, "compression": ["gzip"] });
            let members = json!({
                "client_type": "job_client", "client_id": CLIENT, "version": "1.0.0", "capabilities": capabilities,
            });
            ("register_client", members)
        };
        self.send_message(now, kind, members, out);
    }

    fn receive(&mut self, now: Duration, message: &ReceivedMessage<'_>, out: &mut Vec<ClientOutput>) {
        match message.text("type").as_str() {
            "connection_established" => self.register(now, out),
            "ping" => self.send_message(now, "pong", json!({}), out),
            "server_disconnect" => {
                let wait = message.get::<u64>("reconnect_after").unwrap_or_default();
                let wait = wait.saturating_sub(self.setup.clock.unix_ms(now));
                let early = self.setup.is_broken("reconnects-early");
                self.reconnect_after = Some(if early { now } else { now + Duration::from_millis(wait) });
            }
            "client_registered" if !self.registered => {
                self.registered = true;
                if self.setup.does("monitor") {
                    let sections = ["jobs", "workers", "system"];
                    let members = json!({ "enabled": true, "interval_seconds": 5, "include_sections": sections });
                    self.send_message(now, "subscribe_stats", members, out);
                } else if self.submitted.is_none() && !self.open.is_empty() {
                    self.submit(now, out);
                }
            }
            "subscription_confirmed" => self.finish("monitor"),
            "worker_registered" if self.is_worker() => {
                self.registered = true;
                self.heartbeat = Some(now + self.heartbeat_interval());
            }
            _ if self.is_worker() && !self.registered => {}
            kind if self.is_worker() => self.receive_as_worker(now, kind, message, out),
            kind => self.receive_as_client(now, kind, message, out),
        }
    }
}

/// The job client.
impl EmpropsClient {
    fn submit(&mut self, now: Duration, out: &mut Vec<ClientOutput>) {
        let mut payload = json!({ "prompt": "a beautiful landscape with mountains", "steps": 30 });
        if self.setup.does("upload") {
            payload["init_image"] = "iVBORw0KGgo=".repeat(100_000).into();
        }
        let requirements = json!({ "service_type": "comfyui", "hardware": { "gpu_memory_gb": 8 } });
        let members = json!({
            "job_type": "text_to_image", "priority": 75, "payload": payload, "customer_id": "customer-123",
            "requirements": requirements,
        });
        self.send_message(now, "submit_job", members, out);
    }

    fn receive_as_client(
        &mut self,
        now: Duration,
        kind: &str,
        message: &ReceivedMessage<'_>,
        out: &mut Vec<ClientOutput>,
    ) {
        let job_id = message.text("job_id");
        if kind == "job_accepted" && self.submitted.is_none() {
            self.submitted = Some(job_id.clone());
            self.finish("upload");
            if self.setup.does("status") {
                self.send_message(now, "request_job_status", json!({ "job_id": job_id }), out);
            }
            if self.setup.does("cancel") {
                let members = json!({ "job_id": job_id, "reason": "User requested cancellation" });
                self.send_message(now, "cancel_job", members, out);
            }
        } else if self.submitted == Some(job_id) {
            match kind {
                "response_job_status" => self.finish("status"),
                "job_cancelled" => self.finish("cancel"),
                "job_completed" => self.finish("submit"),
                _ => {}
            }
        }
    }
}

/// The worker.
impl EmpropsClient {
    fn heartbeat_interval(&self) -> Duration {
        if self.setup.is_broken("heartbeats-rare") { self.settings.heartbeat * 3 } else { self.settings.heartbeat }
    }

    fn receive_as_worker(
        &mut self,
        now: Duration,
        kind: &str,
        message: &ReceivedMessage<'_>,
        out: &mut Vec<ClientOutput>,
    ) {
        let job_id = message.text("job_id");
        let ours = message.get::<String>("worker_id").is_none_or(|worker| worker == WORKER);
        match kind {
            "job_available" if self.setup.is_broken("completes-unassigned") => self.complete(now, &job_id, out),
            "job_available" => {
                self.available.push_back(message.text("job_type"));
                self.claim(now, out);
            }
            "job_assigned" if ours && !self.held.iter().any(|job| job.id == job_id) => {
                let done = self.setup.clock.unix_ms(now + self.settings.step * 4);
                let members =
                    json!({ "job_id": job_id, "worker_id": WORKER, "estimated_completion": format_iso(done) });
                self.send_message(now, "job_accepted_by_worker", members, out);
                self.held.push(HeldJob { id: job_id, progress: 0, next: now + self.settings.step });
            }
            "job_completed_ack" => self.finish("work"),
            "job_failed_ack" => self.finish("fail"),
            "worker_heartbeat_ack" => self.expect_heartbeat(now, message.get("next_heartbeat_expected")),
            _ if self.setup.is_broken("completes-lost-job") => {}
            _ => {
                let details: Value = message.get("details").unwrap_or_default();
                let named = |job: &HeldJob| job.id == job_id || details["job_id"] == job.id.as_str();
                let ended = matches!(message.text("status").as_str(), "queued" | "completed" | "failed" | "cancelled");
                if kind == "error" || !ours || ended {
                    self.held.retain(|job| !named(job));
                    self.claim(now, out);
                }
            }
        }
    }

    /// Claims a job if the worker is idle and was notified of one.
    fn claim(&mut self, now: Duration, out: &mut Vec<ClientOutput>) {
        if !self.held.is_empty() {
            return;
        }
        while let Some(job_type) = self.available.pop_front() {
            let resources = json!({ "gpu_memory_available": 14.2, "concurrent_slots": 1 });
            let members = json!({
                "worker_id": WORKER, "max_jobs": 1, "preferred_types": [job_type], "current_load": 0.0,
                "available_resources": resources, "claim_timeout": 30_000,
            });
            self.send_message(now, "claim_job", members, out);
        }
    }

    /// Schedules the next heartbeat well before the time at which the hub expects it.
    fn expect_heartbeat(&mut self, now: Duration, expected: Option<u64>) {
        let left = expected.unwrap_or(u64::MAX).saturating_sub(self.setup.clock.unix_ms(now));
        if let Some(due) = &mut self.heartbeat
            && left > 0
            && !self.setup.is_broken("heartbeats-rare")
        {
            *due = (*due).min(now.saturating_add(Duration::from_millis(left / 2)));
        }
    }

    /// Sends the heartbeat and the reports that are due.
    fn work(&mut self, now: Duration, out: &mut Vec<ClientOutput>) {
        if self.heartbeat.is_some_and(|due| due <= now) {
            self.heartbeat = Some(now + self.heartbeat_interval());
            let jobs: Vec<&str> = self.held.iter().map(|job| job.id.as_str()).collect();
            let (status, load) = if jobs.is_empty() { ("idle", 0.0) } else { ("busy", 0.8) };
            let system = json!({ "cpu_usage": 45, "memory_usage": 60, "uptime": now.as_secs() });
            let members = json!({
                "worker_id": WORKER, "status": status, "load": load, "current_jobs": jobs, "system_info": system,
            });
            self.send_message(now, "worker_heartbeat", members, out);
        }
        let due: Vec<HeldJob> = self.held.extract_if(.., |job| job.next <= now).collect();
        for mut job in due {
            job.progress += 25;
            if job.progress == 100 {
                self.complete(now, &job.id, out);
            } else if job.progress == 50 && self.setup.does("fail") && !self.setup.is_broken("failure-completed") {
                let members = json!({
                    "job_id": job.id, "worker_id": WORKER, "error": "Service connection timeout", "retry": true,
                    "error_details": { "error_type": "ServiceTimeoutError" }, "processing_time": 0.4,
                });
                self.send_message(now, "fail_job", members, out);
            } else {
                let members = json!({
                    "job_id": job.id, "worker_id": WORKER, "progress": job.progress, "status": "in_progress",
                    "message": "Generating image",
                });
                self.send_message(now, "update_job_progress", members, out);
                job.next = now + self.settings.step;
                self.held.push(job);
            }
        }
        self.claim(now, out);
    }

    fn complete(&mut self, now: Duration, job_id: &str, out: &mut Vec<ClientOutput>) {
        let members = json!({
            "job_id": job_id, "worker_id": WORKER, "processing_time": 0.8,
            "result": { "success": true, "output_files": [format!("https://storage.example.com/{job_id}.png")] },
        });
        self.send_message(now, "complete_job", members, out);
    }
}
