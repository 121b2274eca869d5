//! EmProps hubs that differ from the reference server in one thing that the document permits.

use std::time::Duration;

use hubproof_reference::machine::{Conn, Output};
use rstest::rstest;
use serde_json::{Value, json};

use crate::conformance::permitted_variants::{
    Delay, Hub, Trigger, UNCHANGED, check, edited, escaped_as_ascii, fault, members_reversed, with,
};
use crate::support::sim_connection::{Manner, Protocol};

#[rstest]
#[case::slow(Hub { delay: Delay::Always(Duration::from_secs(2)), close_waits: true, ..UNCHANGED }, &[])]
#[case::slow_to_observers(Hub { delay: Delay::Others(Duration::from_secs(2)), close_waits: true, ..UNCHANGED }, &[])]
#[case::slow_answers(Hub { delay: Delay::Initiator(Duration::from_secs(2)), close_waits: true, ..UNCHANGED }, &[])]
#[case::pings(Hub { manner: Manner { pings: true, fragments: false }, ..UNCHANGED }, &[])]
#[case::fragments(Hub { manner: Manner { pings: false, fragments: true }, ..UNCHANGED }, &[])]
#[case::escaped_as_ascii(with(escaped_as_ascii), &[])]
#[case::members_reversed(with(members_reversed), &[])]
#[case::unknown_members(with(unknown_members), &[])]
#[case::fractional_timestamps(with(fractional_timestamps), &[])]
#[case::other_texts(with(other_texts), &[])]
#[case::other_ids(with(other_ids), &[])]
#[case::unrelated_messages(with(unrelated_messages), &[])]
#[case::other_clients_active(with(other_clients_active), &[])]
#[case::no_acks(with(no_acks), &[])]
#[case::acks_of_everything(with(acks_of_everything), &[])]
#[case::job_subscription_confirmed(with(job_subscription_confirmed), &[])]
#[case::example_members_left_out(with(example_members_left_out), &["EMP-018", "EMP-030", "EMP-037", "EMP-049", "EMP-052", "EMP-058", "EMP-075"])]
#[case::no_heartbeat_times(fault("emprops-next-heartbeat-missing"), &[])]
#[case::no_interval(fault("emprops-update-interval-missing"), &[])]
#[case::assigned_update_twice(with(assigned_update_twice), &[])]
#[case::failed_claims_answered(with(failed_claims_answered), &[])]
#[case::job_failed_message(with(job_failed_message), &[])]
#[case::cancellations_only_to_the_sender(with(cancellations_only_to_the_sender), &[])]
#[case::unknown_as_error(with(unknown_as_error), &["EMP-113"])]
#[case::client_closes(with(client_closes), &[])]
#[case::other_statistics(with(other_statistics), &[])]
#[case::status_after_subscribing(with(status_after_subscribing), &[])]
#[case::filters_as_in_the_example(with(filters_as_in_the_example), &[])]
#[case::assembled_message_empty(with(assembled_message_empty), &[])]
#[case::hash_of_base64(fault("emprops-chunk-hash-of-base64"), &[])]
#[case::payload_as_in_the_example(with(payload_as_in_the_example), &["EMP-058"])]
#[ignore = "thorough: repeats the proof against other hubs"]
fn an_emprops_hub_with_a_permitted_variant_passes(#[case] hub: Hub, #[case] tolerated: &[&str]) {
    check(Protocol::load("emprops"), hub, tolerated);
}

fn text(conn: Conn, json: &Value) -> Output {
    Output::Text { conn, text: json.to_string().into() }
}

/// Adds the messages that `after` returns after each text.
fn followed(outputs: Vec<Output>, after: impl Fn(Conn, &Value) -> Vec<Value>) -> Vec<Output> {
    outputs
        .into_iter()
        .flat_map(|output| {
            let more = match &output {
                Output::Text { conn, text: outputs } => {
                    let json: Value = serde_json::from_str(outputs).unwrap();
                    after(*conn, &json).iter().map(|json| text(*conn, json)).collect()
                }
                _ => Vec::new(),
            };
            [output].into_iter().chain(more)
        })
        .collect()
}

fn unknown_members(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        let members = json.as_object_mut().unwrap();
        for name in ["x_trace", "queue", "details_url", "retry_count"] {
            members.insert(name.to_owned(), json!([{ "of": "no concern", "status": "running" }]));
        }
        members.entry("id").or_insert(json!("msg-1"));
        members.entry("source").or_insert(json!("hub"));
    })
}

/// Line 21: a number, here with a fraction.
fn fractional_timestamps(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| json["timestamp"] = json!(json["timestamp"].as_f64().unwrap() + 0.25))
}

fn other_texts(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if json["type"] == "error" {
            json["error"] = json!("Größerer Fehler");
            if json["error_code"] != "INVALID_PARAMETERS" && json["error_code"] != "AUTH_FAILED" {
                json["error_code"] = json!("E0");
            }
        }
        for name in ["content", "reason"] {
            if json.get(name).is_some() {
                json[name] = json!("Sonst");
            }
        }
        if json["type"] == "connection_established" {
            json["message"] = json!("");
            json["server_version"] = json!("next");
        }
    })
}

fn other_ids(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        for name in ["assigned_connection_id", "subscription_id"] {
            if let Some(id) = json.get(name).and_then(Value::as_str) {
                json[name] = json!(format!("{{{id}}} Nº"));
            }
        }
        if json.get("position").is_some() {
            json["position"] = json!(json["position"].as_u64().unwrap() - 1);
        }
    })
}

/// Pings, statistics, alerts and acks may come at any time.
fn unrelated_messages(trigger: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    if !trigger.json.is_object() {
        return outputs;
    }
    followed(outputs, |_, json| {
        let at = &json["timestamp"];
        vec![
            json!({ "type": "ping", "timestamp": at }),
            json!({ "type": "system_alert", "severity": "info", "message": "all is well", "timestamp": at }),
            json!({ "type": "ack", "original_type": "x", "status": "processed", "timestamp": at }),
            json!({ "type": "note", "text": "of a type of its own", "timestamp": at }),
        ]
    })
}

/// Other clients are active: their jobs are announced to workers and to subscribers of notifications.
fn other_clients_active(trigger: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    let fits = |json: &Value| json["type"] == "job_available" || json["type"] == "job_update";
    if !trigger.json.is_object() {
        return outputs;
    }
    followed(outputs, |_, json| {
        if !fits(json) {
            return Vec::new();
        }
        let mut other = json.clone();
        other["job_id"] = json!("job-of-another-client");
        vec![other]
    })
}

fn no_acks(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    outputs
        .into_iter()
        .filter(|output| !matches!(output, Output::Text { text, .. } if text.starts_with(r#"{"type":"ack""#)))
        .collect()
}

/// Line 640: an ack for every message, even submit_job.
fn acks_of_everything(trigger: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    let Some(conn) = trigger.conn else { return outputs };
    if !trigger.json["type"].is_string() || outputs.iter().any(|output| matches!(output, Output::Close { .. })) {
        return outputs;
    }
    let ack = json!({ "type": "ack", "original_type": trigger.json["type"], "status": "processed", "timestamp": 1_700_000_000_000_u64 });
    [text(conn, &ack)].into_iter().chain(outputs).collect()
}

fn job_subscription_confirmed(trigger: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if trigger.is("subscribe_job") && json["type"] == "ack" {
            *json =
                json!({ "type": "subscription_confirmed", "subscription_type": "job", "timestamp": json["timestamp"] });
        }
    })
}

/// Omits members that appear only in examples.
fn example_members_left_out(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        let members = json.as_object_mut().unwrap();
        let worker = members["type"] == "worker_registered"
            || members["type"] == "job_assigned"
            || members["type"].as_str().is_some_and(|kind| kind.ends_with("_ack"));
        if !worker {
            members.remove("worker_id");
        }
        for name in [
            "assigned_connection_id",
            "position",
            "estimated_start",
            "notified_workers",
            "previous_status",
            "message",
            "started_at",
            "estimated_completion",
            "cancelled_at",
            "claim_timeout",
            "requirements",
            "processing_time",
            "next_heartbeat_expected",
            "filters_applied",
            "update_interval",
            "next_broadcast",
            "completed_jobs_last_hour",
            "alerts",
            "assembled_message",
            "request_id",
            "reconnect_after",
        ] {
            if !(name == "message" && members["type"] == "connection_established") {
                members.remove(name);
            }
        }
    })
}

/// E14: one update when the job is assigned, and one when the worker accepts it. The submitter gets the first text.
fn assigned_update_twice(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    followed(outputs, |_, json| {
        let assigned = json["type"] == "job_update" && json["status"] == "assigned";
        if assigned { vec![json.clone()] } else { Vec::new() }
    })
}

fn failed_claims_answered(trigger: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    match trigger.conn {
        Some(conn) if trigger.is("claim_job") && outputs.iter().all(|output| output.conn() != conn) => {
            let error = json!({ "type": "error", "error": "No job", "error_code": "NO_JOB", "timestamp": 1_700_000_000_000_u64 });
            outputs.into_iter().chain([text(conn, &error)]).collect()
        }
        _ => outputs,
    }
}

fn job_failed_message(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if json["type"] == "job_update" && json["status"] == "failed" {
            *json = json!({ "type": "job_failed", "job_id": json["job_id"], "error": "why", "timestamp": json["timestamp"] });
        }
    })
}

/// E20: only the client that cancels a job is notified.
fn cancellations_only_to_the_sender(trigger: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    let conn = trigger.conn;
    outputs
        .into_iter()
        .filter(|output| {
            !trigger.is("cancel_job")
                || Some(output.conn()) == conn
                || !matches!(output, Output::Text { text, .. } if text.contains("workertest"))
        })
        .collect()
}

fn unknown_as_error(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if json["type"] == "unknown" {
            *json = json!({ "type": "error", "error": "Unknown type", "error_code": "UNKNOWN_TYPE", "timestamp": json["timestamp"] });
        }
    })
}

/// E28: the client closes, not the hub.
fn client_closes(trigger: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    outputs.into_iter().filter(|output| !(trigger.is("disconnect") && matches!(output, Output::Close { .. }))).collect()
}

/// E18: no message is documented for statistics.
fn other_statistics(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if json["type"] == "system_status" {
            *json = json!({ "type": "stats_update", "jobs": { "pending": json["pending_jobs"] }, "timestamp": json["timestamp"] });
        }
    })
}

fn status_after_subscribing(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    followed(outputs, |_, json| {
        if json["type"] == "subscription_confirmed" {
            vec![json!({ "type": "system_status", "active_workers": 0, "timestamp": json["timestamp"] })]
        } else {
            Vec::new()
        }
    })
}

/// Lines 448-451: two of four members.
fn filters_as_in_the_example(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if let Some(filters) = json.get_mut("filters_applied").and_then(Value::as_object_mut) {
            filters.retain(|name, _| name == "customer_id" || name == "job_types");
        }
    })
}

/// E24: the whole message would be too large.
fn assembled_message_empty(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if json.get("assembled_message").is_some() {
            json["assembled_message"] = json!({});
        }
    })
}

/// Lines 242-248: two members of the payload, one of the requirements.
fn payload_as_in_the_example(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if json["type"] == "job_assigned" {
            for (name, kept) in [("payload", ["prompt", "steps"]), ("requirements", ["service_type", ""])] {
                if let Some(members) = json.get_mut(name).and_then(Value::as_object_mut) {
                    members.retain(|name, _| kept.contains(&name.as_str()));
                }
            }
        }
    })
}
