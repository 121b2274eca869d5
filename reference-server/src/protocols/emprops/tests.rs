//! The hub as documented, conversation by conversation; numbers in brackets are lines of the document.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use super::test_conversation::{
    chunks, claim, documented_capabilities, documented_job, documented_job_with, hub as any_hub, received,
    register_client, register_worker, report, result, send_and_receive, stamped_message, submit,
};
use crate::machine::test_player::TestPlayer;
use crate::machine::{ConnectionId, Handshake, MachineInput};

const START: u64 = 1_705_312_345_000;

fn hub(sets: &[&str]) -> TestPlayer {
    any_hub(sets, None)
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

/// [51]
#[test]
fn a_new_connection_is_greeted() {
    let mut hub = hub(&["server_version=2.1.0"]);
    hub.advance(Duration::from_millis(250));
    hub.input(MachineInput::Open { conn: 1, handshake: Handshake::default() });
    let received = received(&mut hub, 1);
    assert_eq!(received[0], "accept ");
    assert_eq!(
        received[1],
        json!({
            "type": "connection_established", "message": "Connected to EmProps Job Queue Hub",
            "server_version": "2.1.0", "timestamp": START + 250,
        })
    );
    assert_eq!(received.len(), 2);
}

/// [65 to 130]
#[test]
fn registrations_are_confirmed() {
    let mut hub = hub(&[]);
    let mut ids = BTreeSet::new();
    for (conn, role, members) in [
        (1, "client", json!({ "client_type": "job_client", "client_id": "a", "version": "1.0.0" })),
        (2, "client", json!({ "client_type": "monitor", "client_id": "a", "permissions": [] })),
        (3, "worker", json!({ "worker_id": "a", "capabilities": {} })),
    ] {
        hub.open(conn);
        let reply = answer(&mut hub, conn, &format!("register_{role}"), members);
        assert_eq!(reply["type"], format!("{role}_registered"));
        assert_eq!((&reply[format!("{role}_id")], &reply["status"]), (&json!("a"), &json!("registered")));
        assert_eq!(reply["timestamp"], START);
        assert!(ids.insert(reply["assigned_connection_id"].to_string()));
    }
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

/// [607 to 616]
#[test]
fn errors_contain_the_provided_value_and_the_request_id() {
    let mut hub = hub(&[]);
    register_client(&mut hub, 1);
    let wrong = documented_job_with(json!({ "id": "req-1", "requirements": { "hardware": { "gpu_memory_gb": -1 } } }));
    let error = answer(&mut hub, 1, "submit_job", wrong);
    assert_eq!(error["request_id"], "req-1");
    assert_eq!(error["details"]["provided_value"], -1);
}

#[rstest]
#[case("submit_job", documented_job())]
#[case("claim_job", json!({ "worker_id": "a" }))]
#[case("request_stats", json!({}))]
#[case("chunked_message", json!({}))]
fn requests_before_registration_are_refused(#[case] kind: &str, #[case] members: Value) {
    let mut hub = hub(&[]);
    hub.open(1);
    assert_eq!(answer(&mut hub, 1, kind, members)["error_code"], "NOT_REGISTERED");
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

/// [735 to 762]
#[test]
fn a_job_runs_from_submission_to_completion() {
    let mut hub = hub_with_client_and_worker(&[]);
    let accepted = answer(&mut hub, 1, "submit_job", documented_job_with(json!({ "id": "r" })));
    let id = accepted["job_id"].as_str().unwrap().to_owned();
    assert_eq!(
        accepted,
        json!({
            "type": "job_accepted", "job_id": id, "status": "queued", "position": 1, "notified_workers": 1,
            "estimated_start": "2024-01-15T09:52:35Z", "request_id": "r", "timestamp": START,
        })
    );
    assert_eq!(
        received(&mut hub, 2),
        [json!({
            "type": "job_available", "job_id": id, "job_type": "text_to_image", "priority": 75, "timestamp": START,
            "requirements_summary": { "service_type": "comfyui", "component": "text-to-image-xl", "gpu_memory_min": 8 },
        })]
    );
    let assigned = answer(&mut hub, 2, "claim_job", json!({ "worker_id": "worker-2", "claim_timeout": 1000 }));
    let mut want = documented_job();
    want.as_object_mut().unwrap().shift_remove("customer_id");
    want["type"] = "job_assigned".into();
    want["job_id"] = id.clone().into();
    want["worker_id"] = "worker-2".into();
    want["claim_timeout"] = 1000.into();
    want["timestamp"] = START.into();
    assert_eq!(assigned, want);
    assert_eq!(received(&mut hub, 1), [Value::Null; 0], "the client gets an update when the worker accepts");
    report(&mut hub, 2, "job_accepted_by_worker", &id, json!({ "estimated_completion": "2024-01-15T10:08:30Z" }));
    let update = |status: &str, before: &str, more: Value| {
        let mut update = json!({ "type": "job_update", "job_id": id, "status": status, "previous_status": before, "worker_id": "worker-2" });
        update.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        update["timestamp"] = START.into();
        update
    };
    assert_eq!(received(&mut hub, 1), [update("assigned", "queued", json!({}))]);
    for (progress, before) in [(json!(25), "assigned"), (json!(50), "in_progress"), (json!(75.5), "in_progress")] {
        let acked = report(&mut hub, 2, "update_job_progress", &id, json!({ "progress": progress, "message": "step" }));
        assert_eq!(types(&acked), ["ack"]);
        assert_eq!(
            received(&mut hub, 1),
            [update("in_progress", before, json!({ "progress": progress, "message": "step" }))]
        );
    }
    let status = answer(&mut hub, 1, "request_job_status", json!({ "job_id": id }));
    assert_eq!(
        status,
        json!({
            "type": "response_job_status", "job_id": id, "status": "in_progress", "progress": 75.5, "worker_id": "worker-2",
            "started_at": START, "estimated_completion": "2024-01-15T10:08:30Z", "message": "step", "timestamp": START,
        })
    );
    let acked = report(&mut hub, 2, "complete_job", &id, result());
    assert_eq!(
        acked,
        [json!({ "type": "job_completed_ack", "job_id": id, "worker_id": "worker-2", "timestamp": START })]
    );
    let mut completed = json!({ "type": "job_completed", "job_id": id, "status": "completed", "worker_id": "worker-2", "priority": 75 });
    completed.as_object_mut().unwrap().extend(result().as_object().unwrap().clone());
    completed["timestamp"] = START.into();
    assert_eq!(received(&mut hub, 1), [completed]);
    assert_eq!(answer(&mut hub, 1, "request_job_status", json!({ "job_id": id }))["status"], "completed");
    assert_eq!(answer(&mut hub, 1, "cancel_job", json!({ "job_id": id }))["error_code"], "JOB_ENDED");
    let late = report(&mut hub, 2, "complete_job", &id, result());
    assert_eq!(late[0]["error_code"], "JOB_NOT_HELD");
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

/// [148 to 154, 107 to 114]
#[rstest]
#[case(json!({}), true)]
#[case(json!({ "services": ["a1111"] }), false)]
#[case(json!({ "components": [] }), false)]
#[case(json!({ "hardware": { "gpu_memory_gb": 8 } }), true)]
#[case(json!({ "hardware": { "gpu_memory_gb": 7.9 } }), false)]
#[case(json!({ "hardware": {} }), false)]
fn jobs_go_only_to_workers_that_meet_their_requirements(#[case] changes: Value, #[case] fit: bool) {
    let mut hub = hub(&[]);
    register_client(&mut hub, 1);
    let mut capabilities = documented_capabilities();
    capabilities.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    register_worker(&mut hub, 2, &capabilities);
    let accepted = answer(&mut hub, 1, "submit_job", documented_job());
    assert_eq!(accepted["notified_workers"], u32::from(fit));
    assert_eq!(received(&mut hub, 2).len(), usize::from(fit));
    assert_eq!(claim(&mut hub, 2, json!({})).len(), usize::from(fit));
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
fn positions_in_the_queue_count_from_one() {
    let mut hub = hub(&[]);
    register_client(&mut hub, 1);
    let positions = [50, 50, 90, 10, 50].map(|priority| {
        answer(&mut hub, 1, "submit_job", documented_job_with(json!({ "priority": priority })))["position"]
            .as_u64()
            .unwrap()
    });
    assert_eq!(positions, [1, 2, 1, 4, 4]);
}

/// [226, 232]
#[rstest]
#[case(json!({}), 1)]
#[case(json!({ "max_jobs": 2 }), 2)]
#[case(json!({ "max_jobs": 9 }), 3)]
#[case(json!({ "max_jobs": 9, "available_resources": { "concurrent_slots": 1 } }), 1)]
#[case(json!({ "available_resources": { "gpu_memory_available": 4.5 } }), 0)]
#[case(json!({ "available_resources": { "gpu_memory_available": 8 } }), 1)]
fn a_claim_gets_the_requested_number_of_jobs(#[case] members: Value, #[case] count: usize) {
    let mut hub = hub_with_client_and_worker(&[]);
    for _ in 0..3 {
        submit(&mut hub, 1, documented_job());
    }
    assert_eq!(claim(&mut hub, 2, members).len(), count);
}

/// [231, 246]
#[test]
fn a_job_whose_claim_is_not_accepted_returns_to_its_place_in_the_queue() {
    let mut hub = hub_with_client_and_worker(&[]);
    register_worker(&mut hub, 3, &documented_capabilities());
    let first = submit(&mut hub, 1, documented_job());
    let second = submit(&mut hub, 1, documented_job());
    assert_eq!(claim(&mut hub, 2, json!({ "claim_timeout": 2000 })), [first.as_str()]);
    hub.advance(Duration::from_millis(1999));
    hub.received(3);
    assert_eq!(answer(&mut hub, 1, "request_job_status", json!({ "job_id": first }))["status"], "assigned");
    hub.advance(Duration::from_millis(1));
    assert_eq!(types(&received(&mut hub, 3)), ["job_available"]);
    assert_eq!(report(&mut hub, 2, "job_accepted_by_worker", &first, json!({}))[0]["error_code"], "JOB_NOT_HELD");
    assert_eq!(claim(&mut hub, 3, json!({})), [first.as_str()]);
    report(&mut hub, 3, "job_accepted_by_worker", &first, json!({}));
    hub.advance(Duration::from_secs(100));
    assert_eq!(answer(&mut hub, 1, "request_job_status", json!({ "job_id": first }))["worker_id"], "worker-3");
    assert_eq!(claim(&mut hub, 2, json!({ "claim_timeout": null })), [second.as_str()]);
    hub.advance(Duration::from_millis(30_000));
    assert_eq!(answer(&mut hub, 1, "request_job_status", json!({ "job_id": second }))["status"], "queued");
}

/// [330 to 357]
#[test]
fn a_failing_job_is_retried_twice_and_then_fails_for_good() {
    let mut hub = hub_with_client_and_worker(&["retry_delay_ms=1500"]);
    let id = submit(&mut hub, 1, documented_job());
    for attempt in 1..=3 {
        assert_eq!(claim(&mut hub, 2, json!({})), [id.as_str()], "attempt {attempt}");
        hub.received(1);
        let ack = report(&mut hub, 2, "fail_job", &id, json!({ "error": "gone", "retry": true })).remove(0);
        let update = received(&mut hub, 1).pop().unwrap();
        if attempt < 3 {
            assert_eq!((&ack["retry_scheduled"], &ack["retry_delay"]), (&json!(true), &json!(1.5)));
            assert_eq!((&update["status"], &update["previous_status"]), (&json!("queued"), &json!("assigned")));
            hub.advance(Duration::from_millis(1499));
            assert_eq!(claim(&mut hub, 2, json!({})), [""; 0]);
            assert_eq!(hub.state()["pending_jobs"], 1);
            hub.advance(Duration::from_millis(1));
        } else {
            assert_eq!((&ack["retry_scheduled"], &ack["retry_delay"]), (&json!(false), &Value::Null));
            assert_eq!((&update["status"], &update["message"]), (&json!("failed"), &json!("gone")));
        }
    }
    hub.advance(Duration::from_secs(100));
    assert_eq!(claim(&mut hub, 2, json!({})), [""; 0]);
    assert_eq!(answer(&mut hub, 1, "request_job_status", json!({ "job_id": id }))["status"], "failed");
}

/// [196 to 213]: wherever the job is, it never returns.
#[rstest]
#[case::queued(0)]
#[case::claimed(1)]
#[case::accepted(2)]
#[case::in_progress(3)]
#[case::delayed(4)]
fn a_cancelled_job_never_comes_back(#[case] steps: u32) {
    let mut hub = hub(&[]);
    register_client(&mut hub, 1);
    register_client(&mut hub, 3);
    register_worker(&mut hub, 2, &documented_capabilities());
    let id = submit(&mut hub, 1, documented_job());
    if steps > 0 {
        claim(&mut hub, 2, json!({}));
    }
    match steps {
        2 => drop(report(&mut hub, 2, "job_accepted_by_worker", &id, json!({}))),
        3 => drop(report(&mut hub, 2, "update_job_progress", &id, json!({ "progress": 5 }))),
        4 => drop(report(&mut hub, 2, "fail_job", &id, json!({ "error": "x", "retry": true }))),
        _ => {}
    }
    for conn in 1..=2 {
        hub.received(conn);
    }
    let cancelled = answer(&mut hub, 3, "cancel_job", json!({ "job_id": id, "reason": "enough" }));
    assert_eq!(
        cancelled,
        json!({ "type": "job_cancelled", "job_id": id, "status": "cancelled", "cancelled_at": START, "timestamp": START })
    );
    let updates = received(&mut hub, 1);
    assert_eq!(
        (&updates[0]["status"], &updates[0]["message"], updates.len()),
        (&json!("cancelled"), &json!("enough"), 1)
    );
    assert_eq!(
        received(&mut hub, 2).len(),
        usize::from((1..4).contains(&steps)),
        "the worker that holds it gets an update"
    );
    assert_eq!(hub.state()["workers"][0]["jobs"], json!([]));
    hub.advance(Duration::from_secs(300));
    assert_eq!(claim(&mut hub, 2, json!({})), [""; 0]);
    assert_eq!(report(&mut hub, 2, "complete_job", &id, result())[0]["error_code"], "JOB_NOT_HELD");
    assert_eq!(answer(&mut hub, 1, "cancel_job", json!({ "job_id": id }))["error_code"], "JOB_ENDED");
    assert_eq!(answer(&mut hub, 1, "request_job_status", json!({ "job_id": id }))["status"], "cancelled");
}

#[test]
fn reports_of_workers_that_do_not_hold_the_job_change_nothing() {
    let mut hub = hub_with_client_and_worker(&[]);
    register_worker(&mut hub, 3, &documented_capabilities());
    let id = submit(&mut hub, 1, documented_job());
    claim(&mut hub, 2, json!({}));
    hub.received(1);
    for (kind, members) in [
        ("job_accepted_by_worker", json!({})),
        ("update_job_progress", json!({ "progress": 5 })),
        ("complete_job", result()),
        ("fail_job", json!({ "error": "x" })),
    ] {
        assert_eq!(report(&mut hub, 3, kind, &id, members.clone())[0]["error_code"], "JOB_NOT_HELD");
        assert_eq!(report(&mut hub, 3, kind, "no", members.clone())[0]["error_code"], "JOB_NOT_FOUND");
        let mut borrowed = members;
        borrowed["worker_id"] = "worker-2".into();
        assert_eq!(report(&mut hub, 3, kind, &id, borrowed)[0]["details"]["field"], "worker_id");
    }
    assert_eq!(received(&mut hub, 1), [Value::Null; 0]);
    assert_eq!(answer(&mut hub, 1, "request_job_status", json!({ "job_id": id }))["status"], "assigned");
}

/// [365 to 399]
#[test]
fn a_silent_worker_is_lost_until_it_sends_a_message() {
    let mut hub = hub_with_client_and_worker(&[]);
    let id = submit(&mut hub, 1, documented_job());
    claim(&mut hub, 2, json!({}));
    report(&mut hub, 2, "update_job_progress", &id, json!({ "progress": 5 }));
    hub.advance(Duration::from_secs(60));
    let beat = json!({ "worker_id": "worker-2", "status": "busy" });
    let ack = answer(&mut hub, 2, "worker_heartbeat", beat.clone());
    assert_eq!(
        ack,
        json!({
            "type": "worker_heartbeat_ack", "worker_id": "worker-2", "status": "acknowledged",
            "next_heartbeat_expected": START + 120_000, "timestamp": START + 60_000,
        })
    );
    hub.advance(Duration::from_millis(119_999));
    hub.received(1);
    assert_eq!(hub.state()["active_workers"], 1);
    hub.advance(Duration::from_millis(1));
    assert_eq!(hub.state()["active_workers"], 0);
    let updates = received(&mut hub, 1);
    assert_eq!((&updates[0]["status"], &updates[0]["previous_status"]), (&json!("queued"), &json!("in_progress")));
    assert_eq!(answer(&mut hub, 2, "worker_heartbeat", beat)["type"], "worker_heartbeat_ack");
    assert_eq!(hub.state()["active_workers"], 1);
    assert_eq!(claim(&mut hub, 2, json!({})), [id]);
    hub.advance(Duration::from_secs(1000));
    assert_eq!((&hub.state()["active_workers"], &hub.state()["queued"]), (&json!(0), &json!(1)));
}

/// A job returns to the queue when its worker disconnects in any way.
#[rstest]
#[case::closed(false)]
#[case::disconnect(true)]
fn jobs_of_a_disconnected_worker_return_to_the_queue(#[case] graceful: bool) {
    let mut hub = hub_with_client_and_worker(&[]);
    let id = submit(&mut hub, 1, documented_job());
    claim(&mut hub, 2, json!({}));
    if graceful {
        assert_eq!(send_and_receive(&mut hub, 2, "disconnect", json!({ "reason": "Client shutdown" })), ["close 1000"]);
    } else {
        hub.input(MachineInput::Closed { conn: 2 });
    }
    register_worker(&mut hub, 3, &documented_capabilities());
    assert_eq!(claim(&mut hub, 3, json!({})), [id]);
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

/// [422 to 455]
#[test]
fn subscribers_get_each_matching_update_once() {
    let mut hub = hub_with_client_and_worker(&[]);
    register_client(&mut hub, 3);
    register_client(&mut hub, 4);
    hub.open(5);
    let monitor = json!({ "client_type": "monitor", "client_id": "m", "permissions": ["view_all_jobs"] });
    answer(&mut hub, 5, "register_client", monitor);
    let wish = json!({ "enabled": true, "filters": { "priority_min": 70, "customer_id": "customer-123" } });
    let confirmed = answer(&mut hub, 4, "subscribe_job_notifications", wish.clone());
    assert_eq!(confirmed["filters_applied"], wish["filters"]);
    let again = answer(&mut hub, 4, "subscribe_job_notifications", wish);
    assert_ne!(confirmed["subscription_id"], again["subscription_id"]);

    let id = submit(&mut hub, 1, documented_job());
    let other = submit(&mut hub, 1, documented_job_with(json!({ "priority": 69 })));
    for conn in [1, 3, 4, 5] {
        assert_eq!(
            types(&send_and_receive(&mut hub, conn, "subscribe_job", json!({ "job_id": id, "id": "m1" }))),
            ["ack"]
        );
    }
    claim(&mut hub, 2, json!({ "max_jobs": 2 }));
    for job in [&id, &other] {
        report(&mut hub, 2, "update_job_progress", job, json!({ "progress": 5 }));
        report(&mut hub, 2, "complete_job", job, result());
    }
    let run = ["job_update", "job_update", "job_completed"];
    for (conn, want) in [(1, 6), (3, 3), (4, 3), (5, 6)] {
        let received = received(&mut hub, conn);
        assert_eq!(types(&received), run.repeat(want / 3), "{conn}");
    }
    assert_eq!(hub.state()["jobs"][0]["watchers"], json!([]));
}

#[test]
fn a_subscription_ends_on_request_or_disconnect() {
    let mut hub = hub(&[]);
    register_client(&mut hub, 1);
    for (conn, cleanup) in [(2, json!(true)), (3, json!(false)), (4, Value::Null)] {
        register_client(&mut hub, conn);
        answer(&mut hub, conn, "subscribe_job_notifications", json!({ "enabled": true }));
        if conn == 2 {
            assert_eq!(
                types(&send_and_receive(&mut hub, conn, "subscribe_job_notifications", json!({ "enabled": false }))),
                ["ack"]
            );
            submit(&mut hub, 1, documented_job());
            assert_eq!(received(&mut hub, conn), [Value::Null; 0]);
            answer(&mut hub, conn, "subscribe_job_notifications", json!({ "enabled": true }));
        }
        send_and_receive(&mut hub, conn, "disconnect", json!({ "cleanup_subscriptions": cleanup }));
        hub.open(conn + 10);
        let back = json!({ "client_type": "job_client", "client_id": format!("client-{conn}") });
        answer(&mut hub, conn + 10, "register_client", back);
        submit(&mut hub, 1, documented_job());
        assert_eq!(received(&mut hub, conn + 10).len(), usize::from(conn == 3), "{cleanup}");
    }
}

/// [459 to 485, 535]
#[test]
fn statistics_are_sent_at_the_subscribed_interval() {
    let mut hub = hub_with_client_and_worker(&[]);
    submit(&mut hub, 1, documented_job());
    submit(&mut hub, 1, documented_job());
    claim(&mut hub, 2, json!({}));
    let confirmed = answer(&mut hub, 1, "subscribe_stats", json!({ "enabled": true, "interval_seconds": 2 }));
    assert_eq!(
        confirmed,
        json!({
            "type": "subscription_confirmed", "subscription_type": "stats", "update_interval": 2,
            "next_broadcast": START + 2000, "timestamp": START,
        })
    );
    hub.advance(Duration::from_secs(7));
    let received = received(&mut hub, 1);
    let times: Vec<u64> = received.iter().map(|stats| stats["timestamp"].as_u64().unwrap() - START).collect();
    assert_eq!(times, [2000, 4000, 6000]);
    assert_eq!(
        received[0],
        json!({
            "type": "system_status", "active_workers": 1, "pending_jobs": 1, "active_jobs": 1,
            "completed_jobs_last_hour": 0, "system_health": "healthy", "alerts": [], "timestamp": START + 2000,
        })
    );
    let only = answer(&mut hub, 1, "request_stats", json!({ "include_sections": ["workers"] }));
    assert_eq!(only, json!({ "type": "system_status", "active_workers": 1, "timestamp": START + 7000 }));
    assert_eq!(types(&send_and_receive(&mut hub, 1, "subscribe_stats", json!({ "enabled": false }))), ["ack"]);
    hub.advance(Duration::from_secs(60));
    assert_eq!(self::received(&mut hub, 1), [Value::Null; 0]);
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

/// [718 to 724]
#[test]
fn a_hub_that_goes_down_announces_its_downtime() {
    let mut hub = hub_with_client_and_worker(&[]);
    submit(&mut hub, 1, documented_job());
    claim(&mut hub, 2, json!({}));
    hub.received(1);
    let event = json!({ "type": "server_disconnect", "reason": "Server maintenance", "estimated_downtime": 30 });
    assert_eq!(hub.event(&event).unwrap(), json!({ "disconnected": 2 }));
    let goodbye = json!({
        "type": "server_disconnect", "reason": "Server maintenance", "reconnect_after": START + 30_000,
        "estimated_downtime": 30, "timestamp": START,
    });
    for conn in 1..=2 {
        assert_eq!(received(&mut hub, conn), [goodbye.clone(), json!("close 1001")]);
    }
    assert_eq!(hub.state()["queued"], 1);
    assert!(hub.event(&json!({ "type": "nonsense" })).unwrap_err().to_string().contains("server_disconnect"));
    register_client(&mut hub, 3);
}

/// [656]
#[test]
fn messages_up_to_ten_mebibytes_are_accepted() {
    let mut hub = hub(&[]);
    register_client(&mut hub, 1);
    let of = |bytes: usize| {
        let bare = stamped_message("submit_job", json!({ "job_type": "x", "payload": { "text": "" } })).len();
        stamped_message("submit_job", json!({ "job_type": "x", "payload": { "text": "x".repeat(bytes - bare) } }))
    };
    assert_eq!(hub.only_answer(1, &of(10 << 20))["type"], "job_accepted");
    assert_eq!(hub.only_answer(1, &of((10 << 20) + 1))["error_code"], "MESSAGE_TOO_LARGE");
    assert_eq!(answer(&mut hub, 1, "ping", json!({}))["type"], "pong");
}

/// [662 to 686]
#[rstest]
#[case(&[0, 1, 2, 3, 4])]
#[case(&[4, 2, 0, 3, 1])]
#[case(&[0, 0, 1, 2, 3, 4])]
fn a_message_sent_in_chunks_is_handled_like_any_other(#[case] order: &[usize]) {
    let mut hub = hub(&[]);
    register_client(&mut hub, 1);
    let text = stamped_message("submit_job", documented_job());
    let pieces = chunks("chunk-1", &text, text.len().div_ceil(5));
    let mut last = Vec::new();
    for index in order {
        assert_eq!(last, [Value::Null; 0]);
        last = send_and_receive(&mut hub, 1, "chunked_message", pieces[*index].clone());
    }
    assert_eq!(types(&last), ["chunked_message_complete", "job_accepted"]);
    assert_eq!((&last[0]["chunk_id"], &last[0]["total_size"]), (&json!("chunk-1"), &json!(text.len())));
    assert_eq!(last[0]["assembled_message"], serde_json::from_str::<Value>(&text).unwrap());
    assert_eq!(hub.state()["incomplete_bytes"], 0);
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
