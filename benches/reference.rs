//! Throughput of the reference server per second of CPU: jobs of its queue, and messages from client to client; with
//! sockets, measured at the server's process, and of its state machine alone. `cargo bench --bench reference`.
//!
//! The last lines are `reference NAME=... per CPU second`.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hubproof_reference::machine::{ConnectionId, Handshake, MachineInput, MachineOutput};
use hubproof_reference::{Machine, Settings};
use serde_json::{Value, json};

const HUBPROOF: &str = env!("CARGO_BIN_EXE_hubproof");

fn main() {
    // `cargo test --benches` only tests that it runs.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let jobs = ["--plan", "jobs", "--workers", "500", "--clients", "100", "--rate", "400"];
    let lines = [
        measure_server("emprops", "job.completed", "jobs", &jobs),
        measure_server("concierge", "message.completed", "messages", &["--plan", "direct", "--rate", "2000"]),
        format!("reference machine emprops jobs={:.0} per CPU second", emprops(20_000)),
        format!("reference machine concierge messages={:.0} per CPU second", concierge(100_000)),
    ];
    lines.iter().for_each(|line| println!("{line}"));
}

/// A hub in its own process, killed on drop.
struct HubProcess(Child);

impl Drop for HubProcess {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Loads the server at a steady rate, and divides the work by the CPU time, including connecting and idling.
fn measure_server(protocol: &str, count: &str, what: &str, words: &[&str]) -> String {
    let mut hub = HubProcess(Command::new(HUBPROOF).args(["serve", protocol]).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(hub.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.split_whitespace().nth(1).unwrap().to_owned();
    let report = std::env::temp_dir().join(format!("hubproof-bench-{}-{protocol}.json", std::process::id()));
    let done = Command::new(HUBPROOF)
        .args(["load", &url, "--protocol", protocol, "--duration", "15s", "--report"])
        .arg(format!("json={}", report.display()))
        .args(words)
        .output()
        .unwrap();
    let text = std::fs::read_to_string(&report)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&done.stderr)));
    drop(std::fs::remove_file(&report));
    let report: Value = serde_json::from_str(&text).unwrap();
    let number = report["counts"][count]["whole_run"].as_u64().unwrap() as f64;
    let spent = cpu_of(hub.0.id());
    format!("reference {protocol} {what}={:.0} per CPU second ({number:.0} in {spent:.1} s)", number / spent)
}

/// Returns the CPU time of a process in seconds, user and system.
fn cpu_of(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // Fields after the name, which may contain any character: 12 and 13 are ticks of a hundredth of a second.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// A state machine with its outputs.
struct TestHub {
    machine: Box<dyn Machine>,
    now: Duration,
    out: Vec<MachineOutput>,
}

impl TestHub {
    fn new(protocol: &str) -> Self {
        let machine = hubproof_reference::build_machine(protocol, &Settings::default(), None).unwrap();
        Self { machine, now: Duration::ZERO, out: Vec::new() }
    }

    fn open(&mut self, conn: ConnectionId) {
        self.handle_input(MachineInput::Open { conn, handshake: Handshake::default() });
    }

    fn send(&mut self, conn: ConnectionId, message: &Value) {
        self.handle_input(MachineInput::Text { conn, text: message.to_string().into() });
    }

    fn handle_input(&mut self, input: MachineInput) {
        self.now += Duration::from_micros(50);
        self.out.clear();
        self.machine.handle(self.now, input, &mut self.out);
        black_box(&self.out);
    }

    /// Returns a member of the last sent message of this type.
    fn last(&self, kind: &str, member: &str) -> String {
        let texts = self.out.iter().filter_map(|output| match output {
            MachineOutput::Text { text, .. } => serde_json::from_str::<Value>(text.as_str()).ok(),
            _ => None,
        });
        let found = texts.filter(|value| value["type"] == kind).last().unwrap();
        found[member].as_str().unwrap().to_owned()
    }
}

/// Returns the jobs per second, from submission to completion, each with a claim that is refused.
fn emprops(jobs: u32) -> f64 {
    let mut hub = TestHub::new("emprops");
    const WORKERS: ConnectionId = 2_000;
    for worker in 1..=WORKERS {
        hub.open(worker);
        let capabilities = json!({ "services": ["s"], "components": [], "hardware": { "gpu_memory_gb": 16 } });
        let worker_id = format!("worker-{worker}");
        hub.send(worker, &json!({ "type": "register_worker", "timestamp": 1, "worker_id": worker_id, "capabilities": capabilities, "subscribe_to_jobs": false, "status": "idle" }));
    }
    let client = WORKERS + 1;
    hub.open(client);
    hub.send(client, &json!({ "type": "register_client", "timestamp": 1, "client_type": "job_client", "client_id": "c", "version": "1" }));
    let start = Instant::now();
    for n in 0..jobs {
        let worker = 1 + ConnectionId::from(n) * 7 % WORKERS;
        let (id, vain) = (format!("worker-{worker}"), 1 + (worker + 1) % WORKERS);
        hub.send(client, &json!({ "type": "submit_job", "timestamp": 1, "job_type": "t", "priority": 50, "payload": { "prompt": "a mountain" }, "customer_id": "c", "requirements": { "service_type": "s" } }));
        let job = hub.last("job_accepted", "job_id");
        hub.send(client, &json!({ "type": "subscribe_job", "timestamp": 1, "job_id": job }));
        hub.send(
            worker,
            &json!({ "type": "claim_job", "timestamp": 1, "worker_id": id, "max_jobs": 1, "claim_timeout": 30000 }),
        );
        hub.send(
            vain,
            &json!({ "type": "claim_job", "timestamp": 1, "worker_id": format!("worker-{vain}"), "max_jobs": 1 }),
        );
        hub.send(worker, &json!({ "type": "job_accepted_by_worker", "timestamp": 1, "job_id": job, "worker_id": id }));
        hub.send(
            worker,
            &json!({ "type": "update_job_progress", "timestamp": 1, "job_id": job, "worker_id": id, "progress": 50 }),
        );
        hub.send(worker, &json!({ "type": "complete_job", "timestamp": 1, "job_id": job, "worker_id": id, "result": { "output": "x" } }));
        let _ = hub.last("job_completed", "job_id");
    }
    f64::from(jobs) / start.elapsed().as_secs_f64()
}

/// Returns the messages per second from one client to another.
fn concierge(messages: u32) -> f64 {
    let mut hub = TestHub::new("concierge");
    for (conn, name) in [(1, "anna"), (2, "ben")] {
        hub.open(conn);
        hub.send(conn, &json!({ "type": "IDENTIFY", "name": name, "version": "0.1.0", "tags": [] }));
    }
    let start = Instant::now();
    for n in 0..messages {
        hub.send(1, &json!({ "type": "MESSAGE", "target": { "type": "NAME", "name": "ben" }, "data": { "mark": n } }));
        assert!(hub.out.len() == 2, "{:?}", hub.out);
    }
    f64::from(messages) / start.elapsed().as_secs_f64()
}
