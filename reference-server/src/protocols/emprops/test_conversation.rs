//! The conversation that every fault must change, and functions for tests of this hub.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::machine::test_player::TestPlayer;
use crate::machine::{ConnectionId, Handshake, MachineInput};

/// A hub with reproducible ids and times.
pub fn hub(sets: &[&str], fault: Option<&str>) -> TestPlayer {
    let sets = [&["seed=1", "epoch_ms=1705312345000"], sets].concat();
    TestPlayer::new("emprops", &sets, fault)
}

/// A message with a timestamp.
pub fn stamped_message(kind: &str, mut members: Value) -> String {
    members["type"] = kind.into();
    members["timestamp"] = 1_705_312_345_000_u64.into();
    members.to_string()
}

/// Returns everything received as JSON; closes and the like are strings.
pub fn received(hub: &mut TestPlayer, conn: ConnectionId) -> Vec<Value> {
    hub.received(conn).into_iter().map(|line| serde_json::from_str(&line).unwrap_or(line.into())).collect()
}

/// Sends a message and returns everything received for it.
pub fn send_and_receive(hub: &mut TestPlayer, conn: ConnectionId, kind: &str, members: Value) -> Vec<Value> {
    hub.received(conn);
    hub.send(conn, &stamped_message(kind, members));
    received(hub, conn)
}

/// Connects and registers a job client.
pub fn register_client(hub: &mut TestPlayer, conn: ConnectionId) {
    hub.open(conn);
    send_and_receive(
        hub,
        conn,
        "register_client",
        json!({ "client_type": "job_client", "client_id": format!("client-{conn}") }),
    );
}

/// Connects and registers a worker with these capabilities.
pub fn register_worker(hub: &mut TestPlayer, conn: ConnectionId, capabilities: &Value) {
    hub.open(conn);
    let members = json!({ "worker_id": format!("worker-{conn}"), "capabilities": capabilities, "subscribe_to_jobs": true, "status": "idle" });
    send_and_receive(hub, conn, "register_worker", members);
}

/// The capabilities of the documented worker.
pub fn documented_capabilities() -> Value {
    json!({
        "services": ["comfyui", "a1111"],
        "components": ["text-to-image-xl"],
        "hardware": { "gpu_memory_gb": 16, "gpu_model": "RTX 4090" },
    })
}

/// The documented submission.
pub fn documented_job() -> Value {
    json!({
        "job_type": "text_to_image",
        "priority": 75,
        "payload": { "prompt": "a beautiful landscape with mountains", "steps": 30, "cfg_scale": 7.5, "width": 1024, "height": 1024 },
        "customer_id": "customer-123",
        "requirements": { "service_type": "comfyui", "component": "text-to-image-xl", "hardware": { "gpu_memory_gb": 8 } },
    })
}

/// The documented submission with some members changed.
pub fn documented_job_with(changes: Value) -> Value {
    with_members(documented_job(), changes)
}

/// An object with some members changed.
fn with_members(mut object: Value, changes: Value) -> Value {
    object.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    object
}

/// Submits a job and returns its id, or `none` if a faulty hub sends no id.
pub fn submit(hub: &mut TestPlayer, conn: ConnectionId, job: Value) -> String {
    let received = send_and_receive(hub, conn, "submit_job", job);
    let accepted = received.iter().find(|message| message["type"] == "job_accepted");
    accepted.and_then(|message| message["job_id"].as_str()).unwrap_or("none").to_owned()
}

/// Claims as the documented worker does and returns the ids of the assigned jobs.
pub fn claim(hub: &mut TestPlayer, conn: ConnectionId, members: Value) -> Vec<String> {
    let claim = json!({ "worker_id": format!("worker-{conn}"), "max_jobs": 1, "claim_timeout": 30_000 });
    let assigned = send_and_receive(hub, conn, "claim_job", with_members(claim, members));
    let ids = assigned.iter().filter(|message| message["type"] == "job_assigned");
    ids.map(|message| message["job_id"].as_str().unwrap_or("none").to_owned()).collect()
}

/// Sends a worker's report on a job.
pub fn report(hub: &mut TestPlayer, conn: ConnectionId, kind: &str, job: &str, members: Value) -> Vec<Value> {
    let report = json!({ "job_id": job, "worker_id": format!("worker-{conn}") });
    send_and_receive(hub, conn, kind, with_members(report, members))
}

/// The documented result.
pub fn result() -> Value {
    json!({ "processing_time": 67.5, "result": { "success": true, "output_files": ["https://storage.example.com/image.png"], "metadata": {} } })
}

/// Splits a text into chunks of `size` bytes.
pub fn chunks(id: &str, text: &str, size: usize) -> Vec<Value> {
    let hash: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    let slices: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
    let total = slices.len();
    let chunk = |(index, slice): (usize, &&[u8])| {
        json!({
            "chunk_id": id, "chunk_index": index, "total_chunks": total, "data": BASE64_STANDARD.encode(slice),
            "data_hash": hash, "original_type": "submit_job",
        })
    };
    slices.iter().enumerate().map(chunk).collect()
}

/// Returns everything that a hub sends in the conversation.
pub fn play_conversation(fault: Option<&str>) -> Vec<String> {
    [
        registration_conversation(fault),
        work_conversation(fault),
        queue_conversation(fault),
        subscription_conversation(fault),
        size_conversation(fault),
        token_conversation(fault),
    ]
    .concat()
}

fn registration_conversation(fault: Option<&str>) -> Vec<String> {
    let mut hub = hub(&[], fault);
    hub.input(MachineInput::Open { conn: 1, handshake: Handshake::default() });
    hub.advance(Duration::from_millis(10));
    register_client(&mut hub, 2);
    register_client(&mut hub, 3);
    register_worker(&mut hub, 4, &documented_capabilities());
    register_worker(&mut hub, 5, &json!({}));
    let monitor =
        json!({ "client_type": "monitor", "client_id": "m", "permissions": ["view_all_jobs", "view_system_stats"] });
    send_and_receive(&mut hub, 1, "register_client", monitor);
    for text in ["x", "[]", "{}", r#"{"type":"invalid_type","id":"q","timestamp":1705312345000}"#] {
        hub.send(2, text);
        hub.send(2, &stamped_message("ping", json!({ "id": "p" })));
    }
    for (kind, members) in [
        ("submit_job", documented_job_with(json!({ "id": "r1", "x_test": 1 }))),
        (
            "submit_job",
            documented_job_with(json!({ "id": "r2", "requirements": { "hardware": { "gpu_memory_gb": -1 } } })),
        ),
        (
            "submit_job",
            documented_job_with(json!({ "id": "r3", "requirements": { "hardware": { "gpu_memory_gb": 0 } } })),
        ),
        (
            "submit_job",
            documented_job_with(json!({ "id": "r4", "requirements": { "hardware": { "gpu_memory_gb": "8" } } })),
        ),
        ("submit_job", documented_job_with(json!({ "id": "r5", "payload": null }))),
        ("submit_job", documented_job_with(json!({ "id": "r6", "job_type": null }))),
        ("request_job_status", json!({ "job_id": "no-such-job" })),
        ("cancel_job", json!({ "job_id": "no-such-job" })),
        ("subscribe_job", json!({ "job_id": "no-such-job" })),
        ("ping", json!({})),
    ] {
        send_and_receive(&mut hub, 2, kind, members);
        hub.advance(Duration::from_millis(1));
    }
    send_and_receive(&mut hub, 3, "disconnect", json!({ "reason": "Client shutdown", "cleanup_subscriptions": true }));
    hub.input(MachineInput::Closed { conn: 4 });
    send_and_receive(&mut hub, 2, "request_stats", json!({}));
    submit(&mut hub, 2, documented_job());
    hub.event(&json!({ "type": "system_alert" })).unwrap();
    hub.event(&json!({ "type": "server_disconnect" })).unwrap();
    hub.advance(Duration::from_secs(60));
    hub.sent
}

fn work_conversation(fault: Option<&str>) -> Vec<String> {
    let mut hub = hub(&["retry_delay_ms=1000"], fault);
    register_client(&mut hub, 1);
    register_client(&mut hub, 2);
    register_worker(&mut hub, 3, &documented_capabilities());
    register_worker(&mut hub, 4, &documented_capabilities());
    let all =
        |hub: &mut TestPlayer, members: Value| drop(send_and_receive(hub, 2, "subscribe_job_notifications", members));
    all(&mut hub, json!({ "enabled": true, "filters": { "customer_id": "customer-123" } }));
    for round in 0..4 {
        let job = submit(&mut hub, 1, documented_job());
        let other = submit(&mut hub, 1, documented_job());
        hub.advance(Duration::from_millis(10));
        send_and_receive(&mut hub, 1, "subscribe_job", json!({ "job_id": job }));
        send_and_receive(&mut hub, 2, "subscribe_job", json!({ "job_id": other }));
        let had = claim(&mut hub, 3, json!({})).pop().unwrap_or_default();
        let also = claim(&mut hub, 4, json!({})).pop().unwrap_or_default();
        report(&mut hub, 3, "job_accepted_by_worker", &had, json!({}));
        report(&mut hub, 4, "job_accepted_by_worker", &also, json!({}));
        for progress in [25, 50, 75] {
            let members = json!({ "progress": progress, "message": format!("step {progress}") });
            report(&mut hub, 3, "update_job_progress", &had, members);
            send_and_receive(&mut hub, 1, "request_job_status", json!({ "job_id": had }));
            hub.advance(Duration::from_millis(10));
        }
        report(&mut hub, 3, "update_job_progress", &had, json!({ "progress": 150 }));
        send_and_receive(&mut hub, 3, "worker_heartbeat", json!({ "worker_id": "worker-3", "status": "busy" }));
        send_and_receive(&mut hub, 1, "request_stats", json!({}));
        report(&mut hub, 4, "complete_job", &had, result());
        report(&mut hub, 4, "update_job_progress", "no-such-job", json!({ "progress": 1 }));
        send_and_receive(&mut hub, 1, "request_job_status", json!({ "job_id": had }));
        report(&mut hub, 3, "complete_job", &had, result());
        send_and_receive(&mut hub, 1, "cancel_job", json!({ "job_id": had }));
        send_and_receive(&mut hub, 1, "request_job_status", json!({ "job_id": had }));
        match round {
            0 => drop(report(&mut hub, 4, "fail_job", &also, json!({ "error": "out of memory", "retry": false }))),
            1 => drop(report(&mut hub, 4, "fail_job", &also, json!({ "error": "out of memory", "retry": true }))),
            _ => drop(send_and_receive(&mut hub, 2, "cancel_job", json!({ "job_id": also, "reason": "not needed" }))),
        }
        send_and_receive(&mut hub, 1, "request_job_status", json!({ "job_id": also }));
        for _ in 0..3 {
            claim(&mut hub, 3, json!({}));
            hub.advance(Duration::from_millis(700));
        }
        all(&mut hub, json!({ "enabled": false }));
    }
    hub.advance(Duration::from_secs(100));
    claim(&mut hub, 4, json!({}));
    hub.sent
}

fn queue_conversation(fault: Option<&str>) -> Vec<String> {
    let mut hub = hub(&[], fault);
    register_client(&mut hub, 1);
    let with = |changes: Value| with_members(documented_capabilities(), changes);
    register_worker(&mut hub, 2, &documented_capabilities());
    register_worker(&mut hub, 3, &with(json!({ "services": ["other"] })));
    register_worker(&mut hub, 4, &with(json!({ "components": [] })));
    register_worker(&mut hub, 5, &with(json!({ "hardware": { "gpu_memory_gb": 4 } })));
    hub.open(6);
    let quiet =
        json!({ "worker_id": "worker-6", "capabilities": documented_capabilities(), "subscribe_to_jobs": false });
    send_and_receive(&mut hub, 6, "register_worker", quiet);
    register_worker(&mut hub, 7, &with(json!({ "hardware": { "gpu_memory_gb": 8 } })));
    for priority in [10, 90, 50, 50] {
        let job = submit(&mut hub, 1, documented_job_with(json!({ "priority": priority })));
        for conn in 2..8 {
            received(&mut hub, conn);
        }
        if priority == 10 {
            for conn in [3, 4, 5] {
                claim(&mut hub, conn, json!({}));
            }
        }
        assert!(fault.is_some() || job != "none");
    }
    let early = claim(&mut hub, 2, json!({ "claim_timeout": 2000 }));
    hub.advance(Duration::from_millis(600));
    claim(&mut hub, 7, json!({ "max_jobs": 2 }));
    hub.advance(Duration::from_millis(2000));
    claim(&mut hub, 6, json!({}));
    hub.advance(Duration::from_millis(5000));
    claim(&mut hub, 6, json!({}));
    let cancelled = submit(&mut hub, 1, documented_job());
    send_and_receive(&mut hub, 1, "cancel_job", json!({ "job_id": cancelled }));
    claim(&mut hub, 2, json!({}));
    let taken = submit(&mut hub, 1, documented_job_with(json!({ "priority": 99 })));
    claim(&mut hub, 2, json!({ "claim_timeout": 2000 }));
    report(&mut hub, 2, "job_accepted_by_worker", &taken, json!({}));
    hub.advance(Duration::from_millis(2000));
    report(&mut hub, 2, "update_job_progress", &taken, json!({ "progress": 1 }));
    send_and_receive(&mut hub, 1, "cancel_job", json!({ "job_id": taken }));
    hub.advance(Duration::from_secs(40));
    for conn in 2..8 {
        claim(&mut hub, conn, json!({ "max_jobs": 9 }));
    }
    let state = json!({ "worker_id": "worker-4", "status": "idle", "capabilities": { "components": ["upscaling"] } });
    send_and_receive(&mut hub, 4, "worker_status", state);
    submit(&mut hub, 1, documented_job_with(json!({ "requirements": { "component": "upscaling" } })));
    hub.input(MachineInput::Closed { conn: 4 });
    submit(&mut hub, 1, documented_job_with(json!({ "requirements": { "component": "upscaling" } })));
    hub.advance(Duration::from_secs(60));
    assert!(fault.is_some() || !early.is_empty());
    hub.sent
}

fn subscription_conversation(fault: Option<&str>) -> Vec<String> {
    let mut hub = hub(&[], fault);
    register_client(&mut hub, 1);
    register_worker(&mut hub, 2, &documented_capabilities());
    let filters = [
        json!({}),
        json!({ "customer_id": "customer-123" }),
        json!({ "job_types": ["text_to_image"] }),
        json!({ "priority_min": 75 }),
        json!({ "status": ["in_progress"] }),
    ];
    for (conn, filters) in (3..).zip(&filters) {
        register_client(&mut hub, conn);
        send_and_receive(&mut hub, conn, "subscribe_job_notifications", json!({ "enabled": true, "filters": filters }));
    }
    let unlike = json!({ "customer_id": "another", "job_type": "upscaling", "priority": 10 });
    for changes in [json!({}), unlike] {
        let number = submit(&mut hub, 1, documented_job_with(changes));
        register_client(&mut hub, 9);
        send_and_receive(&mut hub, 9, "subscribe_job", json!({ "job_id": number }));
        claim(&mut hub, 2, json!({}));
        report(&mut hub, 2, "update_job_progress", &number, json!({ "progress": 10 }));
        report(&mut hub, 2, "complete_job", &number, result());
    }
    send_and_receive(&mut hub, 3, "subscribe_job_notifications", json!({ "enabled": false }));
    send_and_receive(&mut hub, 4, "disconnect", json!({ "cleanup_subscriptions": true }));
    hub.open(14);
    send_and_receive(&mut hub, 14, "register_client", json!({ "client_type": "job_client", "client_id": "client-4" }));
    submit(&mut hub, 1, documented_job());
    let stats = json!({ "enabled": true, "interval_seconds": 1, "include_sections": ["jobs", "workers", "system"] });
    send_and_receive(&mut hub, 3, "subscribe_stats", stats);
    hub.advance(Duration::from_millis(3500));
    send_and_receive(&mut hub, 3, "subscribe_stats", json!({ "enabled": false }));
    hub.advance(Duration::from_millis(3500));
    hub.sent
}

fn size_conversation(fault: Option<&str>) -> Vec<String> {
    let mut hub = hub(&["max_message_bytes=4000"], fault);
    register_client(&mut hub, 1);
    for length in [2000, 5000] {
        send_and_receive(
            &mut hub,
            1,
            "submit_job",
            documented_job_with(json!({ "payload": { "text": "x".repeat(length) } })),
        );
    }
    let text = stamped_message("submit_job", documented_job());
    for order in [[0, 1, 2, 3], [3, 1, 0, 2]] {
        let chunks = chunks("chunk-a", &text, text.len().div_ceil(4));
        for index in order {
            send_and_receive(&mut hub, 1, "chunked_message", chunks[index].clone());
        }
    }
    let (a, b) = (chunks("a", &text, text.len().div_ceil(2)), chunks("b", &text, text.len().div_ceil(2)));
    for chunk in [&a[0], &b[0], &a[1], &b[1]] {
        send_and_receive(&mut hub, 1, "chunked_message", chunk.clone());
    }
    let mut altered = chunks("c", &text, text.len());
    altered[0]["data"] = BASE64_STANDARD.encode(text.replace("75", "76")).into();
    send_and_receive(&mut hub, 1, "chunked_message", altered[0].clone());
    hub.sent
}

fn token_conversation(fault: Option<&str>) -> Vec<String> {
    let mut hub = hub(&["worker_token=right"], fault);
    for (conn, token) in [(1, json!("right")), (2, json!("wrong")), (3, Value::Null)] {
        hub.open(conn);
        send_and_receive(
            &mut hub,
            conn,
            "register_worker",
            json!({ "worker_id": "w", "capabilities": {}, "token": token }),
        );
    }
    hub.sent
}
