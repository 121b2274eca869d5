//! What the scenarios of `emprops` do not prove: limits, settings, error details that the document leaves open, and random
//! actions. Numbers in brackets are lines of the document.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::machine::test_player::TestPlayer;
use crate::machine::{ConnectionId, Handshake, MachineInput};

/// A hub with reproducible ids and times.
fn hub(sets: &[&str]) -> TestPlayer {
    let sets = [&["seed=1", "epoch_ms=1705312345000"], sets].concat();
    TestPlayer::new("emprops", &sets)
}

/// A message with a timestamp.
fn stamped_message(kind: &str, mut members: Value) -> String {
    members["type"] = kind.into();
    members["timestamp"] = 1_705_312_345_000_u64.into();
    members.to_string()
}

/// Returns everything received as JSON; closes and the like are strings.
fn received(hub: &mut TestPlayer, conn: ConnectionId) -> Vec<Value> {
    hub.received(conn).into_iter().map(|line| serde_json::from_str(&line).unwrap_or(line.into())).collect()
}

/// Sends a message and returns everything received for it.
fn send_and_receive(hub: &mut TestPlayer, conn: ConnectionId, kind: &str, members: Value) -> Vec<Value> {
    hub.received(conn);
    hub.send(conn, &stamped_message(kind, members));
    received(hub, conn)
}

/// Connects and registers a job client.
fn register_client(hub: &mut TestPlayer, conn: ConnectionId) {
    hub.open(conn);
    send_and_receive(
        hub,
        conn,
        "register_client",
        json!({ "client_type": "job_client", "client_id": format!("client-{conn}") }),
    );
}

/// Connects and registers a worker with these capabilities.
fn register_worker(hub: &mut TestPlayer, conn: ConnectionId, capabilities: &Value) {
    hub.open(conn);
    let members = json!({ "worker_id": format!("worker-{conn}"), "capabilities": capabilities, "subscribe_to_jobs": true, "status": "idle" });
    send_and_receive(hub, conn, "register_worker", members);
}

/// The capabilities of the documented worker.
fn documented_capabilities() -> Value {
    json!({
        "services": ["comfyui", "a1111"],
        "components": ["text-to-image-xl"],
        "hardware": { "gpu_memory_gb": 16, "gpu_model": "RTX 4090" },
    })
}

/// The documented submission.
fn documented_job() -> Value {
    json!({
        "job_type": "text_to_image",
        "priority": 75,
        "payload": { "prompt": "a beautiful landscape with mountains", "steps": 30, "cfg_scale": 7.5, "width": 1024, "height": 1024 },
        "customer_id": "customer-123",
        "requirements": { "service_type": "comfyui", "component": "text-to-image-xl", "hardware": { "gpu_memory_gb": 8 } },
    })
}

/// The documented submission with some members changed.
fn documented_job_with(changes: Value) -> Value {
    with_members(documented_job(), changes)
}

/// An object with some members changed.
fn with_members(mut object: Value, changes: Value) -> Value {
    object.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    object
}

/// Submits a job and returns its id, or `none` if a faulty hub sends no id.
fn submit(hub: &mut TestPlayer, conn: ConnectionId, job: Value) -> String {
    let received = send_and_receive(hub, conn, "submit_job", job);
    let accepted = received.iter().find(|message| message["type"] == "job_accepted");
    accepted.and_then(|message| message["job_id"].as_str()).unwrap_or("none").to_owned()
}

/// Claims as the documented worker does and returns the ids of the assigned jobs.
fn claim(hub: &mut TestPlayer, conn: ConnectionId, members: Value) -> Vec<String> {
    let claim = json!({ "worker_id": format!("worker-{conn}"), "max_jobs": 1, "claim_timeout": 30_000 });
    let assigned = send_and_receive(hub, conn, "claim_job", with_members(claim, members));
    let ids = assigned.iter().filter(|message| message["type"] == "job_assigned");
    ids.map(|message| message["job_id"].as_str().unwrap_or("none").to_owned()).collect()
}

/// Sends a worker's report on a job.
fn report(hub: &mut TestPlayer, conn: ConnectionId, kind: &str, job: &str, members: Value) -> Vec<Value> {
    let report = json!({ "job_id": job, "worker_id": format!("worker-{conn}") });
    send_and_receive(hub, conn, kind, with_members(report, members))
}

/// The documented result.
fn result() -> Value {
    json!({ "processing_time": 67.5, "result": { "success": true, "output_files": ["https://storage.example.com/image.png"], "metadata": {} } })
}

/// Splits a text into chunks of `size` bytes.
fn chunks(id: &str, text: &str, size: usize) -> Vec<Value> {
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

/// A hub with the client 1 and the documented worker 2.
fn hub_with_client_and_worker(sets: &[&str]) -> TestPlayer {
    let mut hub = hub(sets);
    register_client(&mut hub, 1);
    register_worker(&mut hub, 2, &documented_capabilities());
    hub
}

/// Sends a request and returns its only answer.
fn answer(hub: &mut TestPlayer, conn: ConnectionId, kind: &str, members: Value) -> Value {
    let mut received = send_and_receive(hub, conn, kind, members);
    assert_eq!(received.len(), 1, "{kind} is answered by {received:?}");
    received.remove(0)
}

fn types(received: &[Value]) -> Vec<&str> {
    received.iter().map(|message| message["type"].as_str().unwrap_or("?")).collect()
}

/// Sends a wrong message and returns the error; the connection must stay open.
fn refused_message(text: &str, code: &str) -> Value {
    let mut hub = hub(&[]);
    register_client(&mut hub, 1);
    let error = hub.only_answer(1, text);
    assert_eq!((&error["type"], &error["error_code"]), (&json!("error"), &json!(code)), "{error}");
    assert!(error["error"].is_string());
    assert_eq!(answer(&mut hub, 1, "ping", json!({}))["type"], "pong");
    assert_eq!(hub.state()["submitted"], 0);
    error
}

#[rstest]
#[case("x", "INVALID_MESSAGE")]
#[case("[]", "INVALID_MESSAGE")]
#[case("{}", "INVALID_MESSAGE")]
#[case(r#"{"type":7}"#, "INVALID_MESSAGE")]
#[case(r#"{"type":"job_accepted"}"#, "INVALID_MESSAGE")]
#[case(r#"{"type":"request_job_status","job_id":"no"}"#, "JOB_NOT_FOUND")]
#[case(r#"{"type":"cancel_job","job_id":"no"}"#, "JOB_NOT_FOUND")]
#[case(r#"{"type":"subscribe_job","job_id":"no"}"#, "JOB_NOT_FOUND")]
#[case(r#"{"type":"claim_job","worker_id":"a"}"#, "NOT_REGISTERED")]
fn invalid_messages_are_refused_and_the_connection_stays_open(#[case] text: &str, #[case] code: &str) {
    refused_message(text, code);
}

#[rstest]
#[case(r#"{"type":"submit_job"}"#, "job_type")]
#[case(r#"{"type":"submit_job","job_type":"x"}"#, "payload")]
#[case(r#"{"type":"submit_job","job_type":"x","payload":[]}"#, "payload")]
#[case(r#"{"type":"submit_job","job_type":"x","payload":{},"priority":101}"#, "priority")]
#[case(r#"{"type":"submit_job","job_type":"x","payload":{},"id":7}"#, "id")]
#[case(r#"{"type":"submit_job","job_type":"x","payload":{},"timestamp":"now"}"#, "timestamp")]
#[case(
    r#"{"type":"submit_job","job_type":"x","payload":{},"requirements":{"service_type":1}}"#,
    "requirements.service_type"
)]
#[case(
    r#"{"type":"submit_job","job_type":"x","payload":{},"requirements":{"hardware":{"gpu_memory_gb":-1}}}"#,
    "requirements.hardware.gpu_memory_gb"
)]
#[case(
    r#"{"type":"submit_job","job_type":"x","payload":{},"requirements":{"hardware":{"gpu_memory_gb":0}}}"#,
    "requirements.hardware.gpu_memory_gb"
)]
#[case(
    r#"{"type":"submit_job","job_type":"x","payload":{},"requirements":{"hardware":{"gpu_memory_gb":"8"}}}"#,
    "requirements.hardware.gpu_memory_gb"
)]
#[case(
    r#"{"type":"submit_job","job_type":"x","payload":{},"requirements":{"hardware":{"gpu_memory_gb":1e400}}}"#,
    "requirements.hardware.gpu_memory_gb"
)]
#[case(r#"{"type":"register_client","client_type":"robot","client_id":"a"}"#, "client_type")]
#[case(r#"{"type":"register_client","client_type":"job_client"}"#, "client_id")]
#[case(r#"{"type":"register_worker","worker_id":"a"}"#, "capabilities")]
#[case(r#"{"type":"subscribe_job_notifications"}"#, "enabled")]
#[case(r#"{"type":"subscribe_job_notifications","enabled":true,"filters":{"job_types":"x"}}"#, "filters.job_types")]
#[case(r#"{"type":"subscribe_stats","enabled":true,"interval_seconds":0}"#, "interval_seconds")]
#[case(r#"{"type":"subscribe_stats","enabled":true,"interval_seconds":0.001}"#, "interval_seconds")]
#[case(
    r#"{"type":"chunked_message","chunk_id":"a","chunk_index":2,"total_chunks":2,"data":"","data_hash":"x"}"#,
    "chunk_index"
)]
#[case(
    r#"{"type":"chunked_message","chunk_id":"a","chunk_index":0,"total_chunks":2,"data":"?","data_hash":"x"}"#,
    "data"
)]
fn errors_name_the_invalid_parameter(#[case] text: &str, #[case] field: &str) {
    let error = refused_message(text, "INVALID_PARAMETERS");
    assert_eq!(error["details"]["field"], field);
    assert!(error["details"]["message"].is_string());
}

/// [645]
#[test]
fn an_unknown_message_is_answered_with_an_excerpt_of_it() {
    let mut hub = hub(&[]);
    hub.open(1);
    let unknown = answer(&mut hub, 1, "invalid_type", json!({ "long": "ü".repeat(10_000) }));
    assert_eq!(unknown["type"], "unknown");
    let original = unknown["original_message"].as_str().unwrap();
    assert!(original.len() <= 4096 && original.contains("üü"));
}

/// [620 to 630]
#[rstest]
#[case(&[], &[], Some("right"), true)]
#[case(&[], &[], Some("wrong"), false)]
#[case(&[], &[], None, false)]
#[case(&[("token", "right")], &[], None, true)]
#[case(&[("token", "right")], &[], Some("wrong"), false)]
#[case(&[], &[("authorization", "Bearer right")], None, true)]
#[case(&[], &[("authorization", "Bearer wrong")], None, false)]
fn workers_with_a_wrong_token_are_refused(
    #[case] query: &[(&str, &str)],
    #[case] headers: &[(&str, &str)],
    #[case] member: Option<&str>,
    #[case] welcome: bool,
) {
    let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let mut hub = hub(&["worker_token=right"]);
    let handshake = Handshake { query: owned(query), headers: owned(headers), ..Handshake::default() };
    hub.input(MachineInput::Open { conn: 1, handshake });
    let reply =
        answer(&mut hub, 1, "register_worker", json!({ "worker_id": "w", "capabilities": {}, "token": member }));
    hub.received(1);
    if welcome {
        assert_eq!(reply["type"], "worker_registered");
    } else {
        assert_eq!(reply["error_code"], "AUTH_FAILED");
        assert_eq!(reply["details"], json!({ "reason": "Invalid worker token", "worker_id": "w" }));
    }
    assert!(!hub.state().to_string().contains("right"));
}

/// A report implies acceptance, so clients always get the assignment first.
#[rstest]
#[case("update_job_progress", json!({ "progress": 1 }), &["job_update", "job_update"])]
#[case("complete_job", result(), &["job_update", "job_completed"])]
#[case("fail_job", json!({ "error": "no" }), &["job_update", "job_update"])]
fn a_report_on_a_claimed_job_counts_as_its_acceptance(
    #[case] kind: &str,
    #[case] members: Value,
    #[case] want: &[&str],
) {
    let mut hub = hub_with_client_and_worker(&[]);
    let id = submit(&mut hub, 1, documented_job());
    claim(&mut hub, 2, json!({}));
    report(&mut hub, 2, kind, &id, members);
    let received = received(&mut hub, 1);
    assert_eq!(types(&received), want);
    assert_eq!(received[0]["status"], "assigned");
}

/// Jobs are offered to workers that are subscribed and idle [115, 116].
#[test]
fn jobs_are_offered_only_to_idle_workers_that_subscribed() {
    let mut hub = hub(&[]);
    register_client(&mut hub, 1);
    for (conn, members) in [
        (2, json!({ "subscribe_to_jobs": false })),
        (3, json!({ "status": "busy" })),
        (4, json!({})),
        (5, json!({ "subscribe_to_jobs": true, "status": "idle" })),
    ] {
        hub.open(conn);
        let mut registration =
            json!({ "worker_id": format!("worker-{conn}"), "capabilities": documented_capabilities() });
        registration.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        answer(&mut hub, conn, "register_worker", registration);
    }
    let notified = |hub: &mut TestPlayer| {
        let accepted = answer(hub, 1, "submit_job", documented_job());
        let received: Vec<ConnectionId> = (2..6).filter(|&conn| !received(hub, conn).is_empty()).collect();
        assert_eq!(accepted["notified_workers"], received.len());
        received
    };
    assert_eq!(notified(&mut hub), [4, 5]);
    claim(&mut hub, 4, json!({}));
    assert_eq!(notified(&mut hub), [5], "a worker with a job is busy");
    send_and_receive(
        &mut hub,
        4,
        "worker_status",
        json!({ "worker_id": "worker-4", "status": "idle", "available_slots": 2 }),
    );
    send_and_receive(&mut hub, 3, "worker_heartbeat", json!({ "worker_id": "worker-3", "status": "idle" }));
    assert_eq!(notified(&mut hub), [3, 4, 5], "unless it reports that it is idle");
    hub.input(MachineInput::Closed { conn: 5 });
    assert_eq!(notified(&mut hub), [3, 4]);
    let changed = json!({ "worker_id": "worker-3", "status": "idle", "capabilities": { "services": ["other"] } });
    send_and_receive(&mut hub, 3, "worker_status", changed);
    assert_eq!(notified(&mut hub), [4]);
}

/// Priority, then preference, then age.
#[test]
fn the_best_job_is_claimed_first() {
    let mut hub = hub_with_client_and_worker(&[]);
    let mut ids = Vec::new();
    for (priority, kind) in [(10, "a"), (90, "a"), (50, "a"), (50, "b"), (50, "b"), (90, "b")] {
        ids.push(submit(&mut hub, 1, documented_job_with(json!({ "priority": priority, "job_type": kind }))));
    }
    let order: Vec<String> = (0..7).flat_map(|_| claim(&mut hub, 2, json!({ "preferred_types": ["b"] }))).collect();
    assert_eq!(order, [5, 1, 3, 4, 2, 0].map(|index: usize| ids[index].clone()));
}

#[test]
fn a_worker_that_registers_again_takes_over_its_id() {
    let mut hub = hub_with_client_and_worker(&[]);
    let id = submit(&mut hub, 1, documented_job());
    claim(&mut hub, 2, json!({}));
    hub.open(3);
    let again = json!({ "worker_id": "worker-2", "capabilities": documented_capabilities() });
    answer(&mut hub, 3, "register_worker", again.clone());
    assert_eq!(hub.state()["active_workers"], 1);
    assert_eq!(
        send_and_receive(&mut hub, 2, "claim_job", json!({ "worker_id": "worker-2" }))[0]["error_code"],
        "NOT_REGISTERED"
    );
    let assigned = answer(&mut hub, 3, "claim_job", json!({ "worker_id": "worker-2" }));
    assert_eq!(assigned["job_id"], id);
    answer(&mut hub, 3, "register_worker", again);
    assert_eq!(hub.state()["workers"][0]["jobs"], json!([id]), "on the same connection it keeps its jobs");
}

/// [547]
#[test]
fn monitors_get_an_alert_when_too_many_jobs_wait() {
    let mut hub = hub(&["alert_queue_depth=2"]);
    register_client(&mut hub, 1);
    hub.open(2);
    let monitor = json!({ "client_type": "monitor", "client_id": "m", "permissions": ["view_system_stats"] });
    answer(&mut hub, 2, "register_client", monitor);
    for _ in 0..4 {
        submit(&mut hub, 1, documented_job());
    }
    let alert = received(&mut hub, 2);
    assert_eq!(types(&alert), ["system_alert"]);
    assert_eq!(alert[0]["details"]["current_queue_depth"], 3);
    assert_eq!(answer(&mut hub, 1, "request_stats", json!({}))["system_health"], "degraded");
    register_worker(&mut hub, 3, &documented_capabilities());
    claim(&mut hub, 3, json!({ "max_jobs": 3 }));
    assert_eq!(answer(&mut hub, 1, "request_stats", json!({}))["system_health"], "healthy");
    assert_eq!(hub.event(&json!({ "type": "system_alert", "message": "look" })).unwrap(), json!({ "alerted": 1 }));
    assert_eq!(received(&mut hub, 2)[0]["message"], "look");
}

#[test]
fn invalid_or_missing_chunks_are_not_assembled() {
    let mut hub = hub(&["max_incomplete=2", "chunk_timeout_ms=1000"]);
    register_client(&mut hub, 1);
    let text = stamped_message("submit_job", documented_job());
    let mut whole = chunks("a", &text, text.len());
    whole[0]["data_hash"] = "0".repeat(64).into();
    let refused = answer(&mut hub, 1, "chunked_message", whole[0].clone());
    assert_eq!((&refused["error_code"], &refused["details"]["chunk_id"]), (&json!("HASH_MISMATCH"), &json!("a")));
    let halves = |id: &str| chunks(id, &text, text.len().div_ceil(2));
    for id in ["b", "c"] {
        assert_eq!(send_and_receive(&mut hub, 1, "chunked_message", halves(id)[0].clone()), [Value::Null; 0]);
    }
    assert_eq!(answer(&mut hub, 1, "chunked_message", halves("d")[0].clone())["error_code"], "LIMIT_EXCEEDED");
    let mut other = halves("b")[1].clone();
    other["total_chunks"] = 3.into();
    assert_eq!(answer(&mut hub, 1, "chunked_message", other)["details"]["field"], "total_chunks");
    assert_ne!(hub.state()["incomplete_bytes"], 0);
    hub.advance(Duration::from_secs(1));
    assert_eq!(hub.state()["incomplete_bytes"], 0, "incomplete messages are dropped after their timeout");
    let nested = stamped_message("chunked_message", halves("e")[0].clone());
    let nested = chunks("f", &nested, nested.len());
    let received = send_and_receive(&mut hub, 1, "chunked_message", nested[0].clone());
    assert_eq!(types(&received), ["chunked_message_complete", "error"]);
    assert_eq!(hub.state()["submitted"], 0);
}

#[test]
fn jobs_subscriptions_and_chunked_messages_are_limited() {
    let mut hub = hub(&["max_jobs=2", "max_finished_jobs=1", "max_watched_jobs=1", "max_assembled_bytes=100"]);
    register_client(&mut hub, 1);
    register_client(&mut hub, 2);
    let ids = [(); 2].map(|()| submit(&mut hub, 1, documented_job()));
    assert_eq!(answer(&mut hub, 1, "submit_job", documented_job())["error_code"], "QUEUE_FULL");
    assert_eq!(answer(&mut hub, 2, "subscribe_job", json!({ "job_id": ids[0] }))["type"], "ack");
    assert_eq!(answer(&mut hub, 2, "subscribe_job", json!({ "job_id": ids[1] }))["error_code"], "LIMIT_EXCEEDED");
    for id in &ids {
        answer(&mut hub, 1, "cancel_job", json!({ "job_id": id }));
    }
    assert_eq!(answer(&mut hub, 1, "request_job_status", json!({ "job_id": ids[0] }))["error_code"], "JOB_NOT_FOUND");
    assert_eq!(answer(&mut hub, 1, "request_job_status", json!({ "job_id": ids[1] }))["status"], "cancelled");
    assert_eq!(hub.state()["job_bytes"], 0);
    let text = stamped_message("submit_job", documented_job());
    let pieces = chunks("a", &text, 60);
    assert_eq!(send_and_receive(&mut hub, 1, "chunked_message", pieces[0].clone()), [Value::Null; 0]);
    assert_eq!(answer(&mut hub, 1, "chunked_message", pieces[1].clone())["error_code"], "MESSAGE_TOO_LARGE");
    assert_eq!(hub.state()["incomplete_bytes"], 0);
}

#[test]
fn acks_and_pings_are_configurable() {
    let mut hub = hub(&["acks=false", "ping_interval_ms=1000"]);
    register_client(&mut hub, 1);
    let id = submit(&mut hub, 1, documented_job());
    assert_eq!(send_and_receive(&mut hub, 1, "subscribe_job", json!({ "job_id": id })), [Value::Null; 0]);
    hub.advance(Duration::from_millis(2500));
    assert_eq!(types(&received(&mut hub, 1)), ["ping", "ping"]);
    assert_eq!(send_and_receive(&mut hub, 1, "pong", json!({})), [Value::Null; 0]);
}

/// Messages for which the document has no answer get none [571, 587].
#[rstest]
#[case("service_request")]
#[case("connector_ws_status")]
#[case("ack")]
#[case("error")]
fn messages_without_a_documented_answer_get_none(#[case] kind: &str) {
    let mut hub = hub(&[]);
    register_client(&mut hub, 1);
    assert_eq!(send_and_receive(&mut hub, 1, kind, json!({})), [Value::Null; 0]);
}

/// A step of a random run.
#[derive(Debug, Clone)]
enum RandomAction {
    Join(ConnectionId, bool, u8),
    Leave(ConnectionId, bool),
    Submit(ConnectionId, u8, u8),
    Claim(ConnectionId, u8),
    Report(ConnectionId, u8, usize),
    Cancel(ConnectionId, usize),
    Follow(ConnectionId, u8, usize),
    Pass(u16),
    Noise(ConnectionId, String),
}

fn action() -> impl Strategy<Value = RandomAction> {
    let conn = || 1u64..7;
    prop_oneof![
        3 => (conn(), any::<bool>(), 0u8..8).prop_map(|(conn, works, can)| RandomAction::Join(conn, works, can)),
        1 => (conn(), any::<bool>()).prop_map(|(conn, graceful)| RandomAction::Leave(conn, graceful)),
        5 => (conn(), 0u8..8, 0u8..4).prop_map(|(conn, needs, priority)| RandomAction::Submit(conn, needs, priority)),
        6 => (conn(), 1u8..4).prop_map(|(conn, most)| RandomAction::Claim(conn, most)),
        8 => (conn(), 0u8..5, any::<usize>()).prop_map(|(conn, what, job)| RandomAction::Report(conn, what, job)),
        1 => (conn(), any::<usize>()).prop_map(|(conn, job)| RandomAction::Cancel(conn, job)),
        2 => (conn(), 0u8..4, any::<usize>()).prop_map(|(conn, what, job)| RandomAction::Follow(conn, what, job)),
        3 => (0u16..3000).prop_map(RandomAction::Pass),
        1 => (conn(), ".{0,20}").prop_map(|(conn, text)| RandomAction::Noise(conn, text)),
    ]
}

/// Builds capabilities or requirements from bits: a service, a component, hardware.
fn capabilities_from_bits(bits: u8, worker: bool) -> Value {
    let mut kit = json!({});
    for (bit, has, needs) in [
        (1, json!({ "services": ["s"] }), json!({ "service_type": "s" })),
        (2, json!({ "components": ["c"] }), json!({ "component": "c" })),
        (4, json!({ "hardware": { "gpu_memory_gb": 8 } }), json!({ "hardware": { "gpu_memory_gb": 8 } })),
    ] {
        if bits & bit != 0 {
            let more = if worker { has } else { needs };
            kit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        }
    }
    kit
}

/// The expected state of a hub.
#[derive(Default)]
struct ExpectedState {
    /// The capabilities of workers, by connection.
    workers: BTreeMap<ConnectionId, u8>,
    open: BTreeSet<ConnectionId>,
    /// The requirements of every accepted job.
    jobs: Vec<(String, u8)>,
    /// The last status of a job that each connection received.
    statuses: BTreeMap<(ConnectionId, String), String>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// A job has at most one worker, which meets its needs; an ended job stays ended; every request has its answer; the
    /// updates that each client gets about a job are consistent.
    #[test]
    fn random_actions_never_lose_a_job_or_assign_it_twice(actions in prop::collection::vec(action(), 1..120)) {
        let sets = ["retry_delay_ms=700", "heartbeat_interval_ms=4000", "claim_timeout_ms=900", "alert_queue_depth=2"];
        let mut hub = hub(&sets);
        let mut expected = ExpectedState::default();
        let mut ended: BTreeMap<String, String> = BTreeMap::new();
        for action in actions {
            perform_action(&mut hub, &mut expected, action);
            for conn in 1..7 {
                check_updates(&mut expected, conn, received(&mut hub, conn));
            }
            check_state(&hub.state(), &expected, &mut ended);
        }
        for conn in 1..7 {
            hub.input(MachineInput::Closed { conn });
        }
        hub.advance(Duration::from_secs(60));
        let state = hub.state();
        prop_assert_eq!(&state["pending_jobs"], &state["queued"]);
        prop_assert_eq!(&state["active_jobs"], 0);
        prop_assert_eq!(&state["connections"], 0);
        prop_assert_eq!(&state["subscriptions"], 0);
    }
}

fn perform_action(hub: &mut TestPlayer, expected: &mut ExpectedState, action: RandomAction) {
    let pick = |index: usize| match expected.jobs.len() {
        0 => "no-such-job".to_owned(),
        len => expected.jobs[index % len].0.clone(),
    };
    match action {
        RandomAction::Join(conn, works, can) => {
            if expected.open.insert(conn) {
                hub.open(conn);
                register_client(hub, conn);
            }
            if works {
                let members =
                    json!({ "worker_id": format!("worker-{conn}"), "capabilities": capabilities_from_bits(can, true) });
                assert_eq!(types(&send_and_receive(hub, conn, "register_worker", members)), ["worker_registered"]);
                expected.workers.insert(conn, can);
            }
        }
        RandomAction::Leave(conn, graceful) => {
            if graceful && expected.open.contains(&conn) {
                assert_eq!(send_and_receive(hub, conn, "disconnect", json!({})), ["close 1000"]);
            } else {
                hub.input(MachineInput::Closed { conn });
            }
            expected.open.remove(&conn);
            expected.workers.remove(&conn);
            expected.statuses.retain(|(other, _), _| *other != conn);
        }
        RandomAction::Submit(conn, needs, priority) => {
            let members = json!({ "job_type": format!("t{priority}"), "priority": priority, "payload": {}, "requirements": capabilities_from_bits(needs, false) });
            let received = send_and_receive(hub, conn, "submit_job", members);
            if expected.open.contains(&conn) {
                assert_eq!(received[0]["type"], "job_accepted", "{received:?}");
                expected.jobs.push((received[0]["job_id"].as_str().unwrap().to_owned(), needs));
                check_updates(expected, conn, received);
            }
        }
        RandomAction::Claim(conn, most) => {
            let members = json!({ "worker_id": format!("worker-{conn}"), "max_jobs": most });
            let received = send_and_receive(hub, conn, "claim_job", members);
            let assigned: Vec<&Value> = received.iter().filter(|message| message["type"] == "job_assigned").collect();
            assert!(assigned.len() <= usize::from(most));
            for message in assigned {
                let (_, needs) = expected.jobs.iter().find(|(id, _)| message["job_id"] == **id).unwrap();
                let has = expected.workers[&conn];
                assert_eq!(needs & !has, 0, "{message} goes to a worker with {has:b}");
            }
        }
        RandomAction::Report(conn, what, job) => {
            let job = pick(job);
            let (kind, members) = match what {
                0 => ("job_accepted_by_worker", json!({})),
                1 => ("update_job_progress", json!({ "progress": 5 })),
                2 => ("complete_job", result()),
                3 => ("fail_job", json!({ "error": "x", "retry": true })),
                _ => ("fail_job", json!({ "error": "x", "retry": false })),
            };
            let received = report(hub, conn, kind, &job, members);
            if expected.open.contains(&conn) {
                let answers = ["ack", "job_completed_ack", "job_failed_ack", "error"];
                assert_eq!(types(&received).iter().filter(|kind| answers.contains(kind)).count(), 1, "{received:?}");
                check_updates(expected, conn, received);
            }
        }
        RandomAction::Cancel(conn, job) => {
            let job = pick(job);
            let received = send_and_receive(hub, conn, "cancel_job", json!({ "job_id": job }));
            assert!(!expected.open.contains(&conn) || ["job_cancelled", "error"].contains(&types(&received)[0]));
            if received.first().is_some_and(|message| message["type"] == "job_cancelled") {
                let state = hub.state();
                let known = state["jobs"].as_array().unwrap().iter().find(|known| known["job_id"] == *job).unwrap();
                assert_eq!(known["status"], "cancelled");
            }
        }
        RandomAction::Follow(conn, what, job) => {
            let (kind, members) = match what {
                0 => ("subscribe_job", json!({ "job_id": pick(job) })),
                1 => ("subscribe_job_notifications", json!({ "enabled": true })),
                2 => ("subscribe_job_notifications", json!({ "enabled": false })),
                _ => ("request_job_status", json!({ "job_id": pick(job) })),
            };
            assert_eq!(send_and_receive(hub, conn, kind, members).len(), usize::from(expected.open.contains(&conn)));
        }
        RandomAction::Pass(millis) => hub.advance(Duration::from_millis(millis.into())),
        RandomAction::Noise(conn, text) => {
            let received = hub.send_and_receive(conn, &text);
            assert_eq!(
                received.len(),
                usize::from(expected.open.contains(&conn)),
                "{text:?} is answered by {received:?}"
            );
        }
    }
}

/// Checks what a connection received: a job's previous status is the last one sent, and no update follows its end.
fn check_updates(expected: &mut ExpectedState, conn: ConnectionId, received: Vec<Value>) {
    for message in received {
        let (Some(job), Some(kind)) = (message["job_id"].as_str(), message["type"].as_str()) else { continue };
        if !["job_accepted", "job_update", "job_completed"].contains(&kind) {
            continue;
        }
        let status = message["status"].as_str().unwrap().to_owned();
        let before = expected.statuses.insert((conn, job.to_owned()), status);
        if let Some(before) = before {
            assert!(!["completed", "failed", "cancelled"].contains(&before.as_str()), "{message} after {before}");
            assert!(
                message["previous_status"].as_str().is_none_or(|previous| previous == before),
                "{message} after {before}"
            );
        }
    }
}

fn check_state(state: &Value, expected: &ExpectedState, ended: &mut BTreeMap<String, String>) {
    let jobs = state["jobs"].as_array().unwrap();
    assert_eq!(jobs.len(), expected.jobs.len(), "every accepted job is known");
    let mut owners: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for worker in state["workers"].as_array().unwrap() {
        for job in worker["jobs"].as_array().unwrap() {
            owners.entry(job.as_str().unwrap()).or_default().push(&worker["connection"]);
        }
    }
    let mut counts = BTreeMap::<&str, usize>::new();
    for job in jobs {
        let (id, status) = (job["job_id"].as_str().unwrap(), job["status"].as_str().unwrap());
        *counts.entry(status).or_default() += 1;
        let owners = owners.remove(id).unwrap_or_default();
        match status {
            "queued" => assert!(owners.is_empty(), "{state}"),
            "assigned" | "in_progress" => assert_eq!(owners, [&job["holder"]], "{state}"),
            "completed" | "failed" | "cancelled" => {
                assert!(owners.is_empty(), "{state}");
                let first = ended.entry(id.to_owned()).or_insert_with(|| status.to_owned());
                assert_eq!(first, status, "an end is an end");
            }
            other => panic!("{other} is not a status"),
        }
        assert!(!ended.contains_key(id) || ended[id] == status, "{id} came back");
    }
    assert!(owners.is_empty(), "{state}");
    let count = |names: &[&str]| names.iter().filter_map(|name| counts.get(name)).sum::<usize>();
    assert_eq!(state["pending_jobs"], count(&["queued"]));
    assert_eq!(state["active_jobs"], count(&["assigned", "in_progress"]));
    assert!(state["queued"].as_u64() <= state["pending_jobs"].as_u64());
}
