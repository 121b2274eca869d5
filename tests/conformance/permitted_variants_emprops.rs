//! EmProps hubs that do what the document allows, each in a way of its own: what it leaves open must not be held
//! against them.

use std::time::Duration;

use hubproof_reference::machine::{Conn, Output};
use rstest::rstest;
use serde_json::{Value, json};

use crate::conformance::permitted_variants::{Heard, Hub, PLAIN, Slow, backwards, check, edited, escaped, fault, with};
use crate::support::sim_connection::{Manner, Protocol};

#[rstest]
#[case::slow(Hub { slow: Slow::Always(Duration::from_secs(2)), finishes: true, ..PLAIN }, &[])]
#[case::slow_for_others(Hub { slow: Slow::Others(Duration::from_secs(2)), finishes: true, ..PLAIN }, &[])]
#[case::slow_to_answer(Hub { slow: Slow::Initiator(Duration::from_secs(2)), finishes: true, ..PLAIN }, &[])]
#[case::pings(Hub { manner: Manner { pings: true, fragments: false }, ..PLAIN }, &[])]
#[case::fragments(Hub { manner: Manner { pings: false, fragments: true }, ..PLAIN }, &[])]
#[case::escaped(with(escaped), &[])]
#[case::backwards(with(backwards), &[])]
#[case::further_members(with(further_members), &[])]
#[case::fractions(with(fractions), &[])]
#[case::other_texts(with(other_texts), &[])]
#[case::other_ids(with(other_ids), &[])]
#[case::chatty(with(chatty), &[])]
#[case::busy(with(busy), &[])]
#[case::no_acks(with(no_acks), &[])]
#[case::acks_of_everything(with(acks_of_everything), &[])]
#[case::job_subscription_confirmed(with(job_subscription_confirmed), &[])]
#[case::terse(with(terse), &["EMP-018", "EMP-030", "EMP-037", "EMP-049", "EMP-052", "EMP-058", "EMP-075"])]
#[case::no_heartbeat_times(fault("emprops-next-heartbeat-missing"), &[])]
#[case::no_interval(fault("emprops-update-interval-missing"), &[])]
#[case::assigned_twice_told(with(assigned_twice_told), &[])]
#[case::vain_claims_refused(with(vain_claims_refused), &[])]
#[case::job_failed(with(job_failed), &[])]
#[case::workers_not_told(with(workers_not_told), &[])]
#[case::unknown_as_error(with(unknown_as_error), &["EMP-113"])]
#[case::client_closes(with(client_closes), &[])]
#[case::other_statistics(with(other_statistics), &[])]
#[case::statistics_at_once(with(statistics_at_once), &[])]
#[case::filters_as_in_the_example(with(filters_as_in_the_example), &[])]
#[case::nothing_echoed(with(nothing_echoed), &[])]
#[case::hash_of_base64(fault("emprops-chunk-hash-of-base64"), &[])]
#[case::payload_as_in_the_example(with(payload_as_in_the_example), &["EMP-058"])]
fn an_emprops_of_another_school(#[case] hub: Hub, #[case] tolerated: &[&str]) {
    check(Protocol::load("emprops"), hub, tolerated);
}

fn text(conn: Conn, json: &Value) -> Output {
    Output::Text { conn, text: json.to_string().into() }
}

/// Texts as JSON, with what follows each.
fn followed(said: Vec<Output>, after: impl Fn(Conn, &Value) -> Vec<Value>) -> Vec<Output> {
    said.into_iter()
        .flat_map(|output| {
            let more = match &output {
                Output::Text { conn, text: said } => {
                    let json: Value = serde_json::from_str(said).unwrap();
                    after(*conn, &json).iter().map(|json| text(*conn, json)).collect()
                }
                _ => Vec::new(),
            };
            [output].into_iter().chain(more)
        })
        .collect()
}

fn further_members(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        let members = json.as_object_mut().unwrap();
        for name in ["x_trace", "queue", "details_url", "retry_count"] {
            members.insert(name.to_owned(), json!([{ "of": "no concern", "status": "running" }]));
        }
        members.entry("id").or_insert(json!("msg-1"));
        members.entry("source").or_insert(json!("hub"));
    })
}

/// Line 21: a number.
fn fractions(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| json["timestamp"] = json!(json["timestamp"].as_f64().unwrap() + 0.25))
}

fn other_texts(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
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

fn other_ids(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
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
fn chatty(heard: &Heard, said: Vec<Output>) -> Vec<Output> {
    if !heard.json.is_object() {
        return said;
    }
    followed(said, |_, json| {
        let at = &json["timestamp"];
        vec![
            json!({ "type": "ping", "timestamp": at }),
            json!({ "type": "system_alert", "severity": "info", "message": "all is well", "timestamp": at }),
            json!({ "type": "ack", "original_type": "x", "status": "processed", "timestamp": at }),
            json!({ "type": "note", "text": "of a type of its own", "timestamp": at }),
        ]
    })
}

/// Others are about: workers are told of their jobs, and who has turned notifications on hears of them.
fn busy(heard: &Heard, said: Vec<Output>) -> Vec<Output> {
    let fits = |json: &Value| json["type"] == "job_available" || json["type"] == "job_update";
    if !heard.json.is_object() {
        return said;
    }
    followed(said, |_, json| {
        if !fits(json) {
            return Vec::new();
        }
        let mut other = json.clone();
        other["job_id"] = json!("somebody-else's");
        vec![other]
    })
}

fn no_acks(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    said.into_iter()
        .filter(|output| !matches!(output, Output::Text { text, .. } if text.starts_with(r#"{"type":"ack""#)))
        .collect()
}

/// Line 640: even submit_job.
fn acks_of_everything(heard: &Heard, said: Vec<Output>) -> Vec<Output> {
    let Some(conn) = heard.conn else { return said };
    if !heard.json["type"].is_string() || said.iter().any(|output| matches!(output, Output::Close { .. })) {
        return said;
    }
    let ack = json!({ "type": "ack", "original_type": heard.json["type"], "status": "processed", "timestamp": 1_700_000_000_000_u64 });
    [text(conn, &ack)].into_iter().chain(said).collect()
}

fn job_subscription_confirmed(heard: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        if heard.is("subscribe_job") && json["type"] == "ack" {
            *json =
                json!({ "type": "subscription_confirmed", "subscription_type": "job", "timestamp": json["timestamp"] });
        }
    })
}

/// Without what the document only shows.
fn terse(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
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

/// E14: when it is assigned, and when that is accepted. The submitter is the first that was spoken to.
fn assigned_twice_told(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    followed(said, |_, json| {
        let assigned = json["type"] == "job_update" && json["status"] == "assigned";
        if assigned { vec![json.clone()] } else { Vec::new() }
    })
}

fn vain_claims_refused(heard: &Heard, said: Vec<Output>) -> Vec<Output> {
    match heard.conn {
        Some(conn) if heard.is("claim_job") && said.iter().all(|output| output.conn() != conn) => {
            let error = json!({ "type": "error", "error": "No job", "error_code": "NO_JOB", "timestamp": 1_700_000_000_000_u64 });
            said.into_iter().chain([text(conn, &error)]).collect()
        }
        _ => said,
    }
}

fn job_failed(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        if json["type"] == "job_update" && json["status"] == "failed" {
            *json = json!({ "type": "job_failed", "job_id": json["job_id"], "error": "why", "timestamp": json["timestamp"] });
        }
    })
}

/// E20: of a cancellation only who asked for it hears.
fn workers_not_told(heard: &Heard, said: Vec<Output>) -> Vec<Output> {
    let conn = heard.conn;
    said.into_iter()
        .filter(|output| {
            !heard.is("cancel_job")
                || Some(output.conn()) == conn
                || !matches!(output, Output::Text { text, .. } if text.contains("worker_test"))
        })
        .collect()
}

fn unknown_as_error(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        if json["type"] == "unknown" {
            *json = json!({ "type": "error", "error": "Unknown type", "error_code": "UNKNOWN_TYPE", "timestamp": json["timestamp"] });
        }
    })
}

/// E28: it is the client that closes.
fn client_closes(heard: &Heard, said: Vec<Output>) -> Vec<Output> {
    said.into_iter().filter(|output| !(heard.is("disconnect") && matches!(output, Output::Close { .. }))).collect()
}

/// E18: no message is documented for statistics.
fn other_statistics(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        if json["type"] == "system_status" {
            *json = json!({ "type": "stats_update", "jobs": { "pending": json["pending_jobs"] }, "timestamp": json["timestamp"] });
        }
    })
}

fn statistics_at_once(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    followed(said, |_, json| {
        if json["type"] == "subscription_confirmed" {
            vec![json!({ "type": "system_status", "active_workers": 0, "timestamp": json["timestamp"] })]
        } else {
            Vec::new()
        }
    })
}

/// Lines 448-451: two of four.
fn filters_as_in_the_example(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        if let Some(filters) = json.get_mut("filters_applied").and_then(Value::as_object_mut) {
            filters.retain(|name, _| name == "customer_id" || name == "job_types");
        }
    })
}

/// E24: the whole message would be too large.
fn nothing_echoed(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        if json.get("assembled_message").is_some() {
            json["assembled_message"] = json!({});
        }
    })
}

/// Lines 242-248: two members of the payload, one of the requirements.
fn payload_as_in_the_example(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        if json["type"] == "job_assigned" {
            for (name, kept) in [("payload", ["prompt", "steps"]), ("requirements", ["service_type", ""])] {
                if let Some(members) = json.get_mut(name).and_then(Value::as_object_mut) {
                    members.retain(|name, _| kept.contains(&name.as_str()));
                }
            }
        }
    })
}
