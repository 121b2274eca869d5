//! EmProps hubs that differ from the reference server in one thing that the document permits.

use std::time::Duration;

use hubproof_reference::machine::{ConnectionId, MachineOutput};
use rstest::rstest;
use serde_json::{Value, json};

use crate::conformance::permitted_variants::{
    HubTrigger, HubVariant, OutputDelay, UNCHANGED, assert_variant_passes, edit_texts, escaped_as_ascii,
    hub_with_fault, hub_with_variant, members_reversed,
};
use crate::support::sim_connection::{SendingManner, SimulatedProtocol};

#[rstest]
#[case::slow(HubVariant { delay: OutputDelay::Always(Duration::from_secs(2)), close_waits: true, ..UNCHANGED }, &[])]
#[case::slow_to_observers(HubVariant { delay: OutputDelay::Others(Duration::from_secs(2)), close_waits: true, ..UNCHANGED }, &[])]
#[case::slow_answers(HubVariant { delay: OutputDelay::Initiator(Duration::from_secs(2)), close_waits: true, ..UNCHANGED }, &[])]
#[case::pings(HubVariant { manner: SendingManner { pings: true, fragments: false }, ..UNCHANGED }, &[])]
#[case::fragments(HubVariant { manner: SendingManner { pings: false, fragments: true }, ..UNCHANGED }, &[])]
#[case::escaped_as_ascii(hub_with_variant(escaped_as_ascii), &[])]
#[case::members_reversed(hub_with_variant(members_reversed), &[])]
#[case::unknown_members(hub_with_variant(unknown_members), &[])]
#[case::other_clients_active(hub_with_variant(other_clients_active), &[])]
#[case::example_members_left_out(hub_with_variant(example_members_left_out), &["EMP-018", "EMP-030", "EMP-037", "EMP-049", "EMP-052", "EMP-058", "EMP-075"])]
#[case::no_heartbeat_times(hub_with_fault("emprops-next-heartbeat-missing"), &[])]
#[case::no_interval(hub_with_fault("emprops-update-interval-missing"), &[])]
#[case::assigned_update_twice(hub_with_variant(assigned_update_twice), &[])]
#[case::job_failed_message(hub_with_variant(job_failed_message), &[])]
#[case::cancellations_only_to_the_sender(hub_with_variant(cancellations_only_to_the_sender), &[])]
#[case::unknown_as_error(hub_with_variant(unknown_as_error), &["EMP-113"])]
#[case::other_statistics(hub_with_variant(other_statistics), &[])]
#[case::assembled_message_empty(hub_with_variant(assembled_message_empty), &[])]
#[case::hash_of_base64(hub_with_fault("emprops-chunk-hash-of-base64"), &[])]
#[case::payload_as_in_the_example(hub_with_variant(payload_as_in_the_example), &["EMP-058"])]
#[ignore = "thorough: repeats the proof against other hubs"]
fn an_emprops_hub_with_a_permitted_variant_passes(#[case] hub: HubVariant, #[case] tolerated: &[&str]) {
    assert_variant_passes(SimulatedProtocol::load("emprops"), hub, tolerated);
}

fn text_output(conn: ConnectionId, json: &Value) -> MachineOutput {
    MachineOutput::Text { conn, text: json.to_string().into() }
}

/// Adds the messages that `after` returns after each text.
fn with_following_messages(
    outputs: Vec<MachineOutput>,
    after: impl Fn(ConnectionId, &Value) -> Vec<Value>,
) -> Vec<MachineOutput> {
    outputs
        .into_iter()
        .flat_map(|output| {
            let more = match &output {
                MachineOutput::Text { conn, text: outputs } => {
                    let json: Value = serde_json::from_str(outputs).unwrap();
                    after(*conn, &json).iter().map(|json| text_output(*conn, json)).collect()
                }
                _ => Vec::new(),
            };
            [output].into_iter().chain(more)
        })
        .collect()
}

fn unknown_members(_: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    edit_texts(outputs, |_, json| {
        let members = json.as_object_mut().unwrap();
        for name in ["x_trace", "queue", "details_url", "retry_count"] {
            members.insert(name.to_owned(), json!([{ "of": "no concern", "status": "running" }]));
        }
        members.entry("id").or_insert(json!("msg-1"));
        members.entry("source").or_insert(json!("hub"));
    })
}

/// Other clients are active: their jobs are announced to workers.
fn other_clients_active(trigger: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    let fits = |json: &Value| json["type"] == "job_available";
    if !trigger.json.is_object() {
        return outputs;
    }
    with_following_messages(outputs, |_, json| {
        if !fits(json) {
            return Vec::new();
        }
        let mut other = json.clone();
        other["job_id"] = json!("job-of-another-client");
        vec![other]
    })
}

/// Omits members that appear only in examples.
fn example_members_left_out(_: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    edit_texts(outputs, |_, json| {
        let members = json.as_object_mut().unwrap();
        let worker = members["type"] == "worker_registered"
            || members["type"] == "job_assigned"
            || members["type"].as_str().is_some_and(|kind| kind.ends_with("_ack"));
        if !worker {
            members.remove("worker_id");
        }
        let left_out = "assigned_connection_id position estimated_start notified_workers previous_status message \
            started_at estimated_completion cancelled_at claim_timeout requirements processing_time \
            next_heartbeat_expected filters_applied update_interval next_broadcast \
            completed_jobs_last_hour alerts assembled_message request_id reconnect_after";
        for name in left_out.split(' ') {
            if !(name == "message" && members["type"] == "connection_established") {
                members.remove(name);
            }
        }
    })
}

/// E14: one update when the job is assigned, and one when the worker accepts it. The submitter gets the first text.
fn assigned_update_twice(_: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    with_following_messages(outputs, |_, json| {
        let assigned = json["type"] == "job_update" && json["status"] == "assigned";
        if assigned { vec![json.clone()] } else { Vec::new() }
    })
}

fn job_failed_message(_: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    edit_texts(outputs, |_, json| {
        if json["type"] == "job_update" && json["status"] == "failed" {
            *json = json!({ "type": "job_failed", "job_id": json["job_id"], "error": "why", "timestamp": json["timestamp"] });
        }
    })
}

/// E20: only the client that cancels a job is notified.
fn cancellations_only_to_the_sender(trigger: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    let conn = trigger.conn;
    outputs
        .into_iter()
        .filter(|output| {
            !trigger.is_of_type("cancel_job")
                || Some(output.conn()) == conn
                || !matches!(output, MachineOutput::Text { text, .. } if text.contains("workertest"))
        })
        .collect()
}

fn unknown_as_error(_: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    edit_texts(outputs, |_, json| {
        if json["type"] == "unknown" {
            *json = json!({ "type": "error", "error": "Unknown type", "error_code": "UNKNOWN_TYPE", "timestamp": json["timestamp"] });
        }
    })
}

/// E18: no message is documented for statistics.
fn other_statistics(_: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    edit_texts(outputs, |_, json| {
        if json["type"] == "system_status" {
            *json = json!({ "type": "stats_update", "jobs": { "pending": json["pending_jobs"] }, "timestamp": json["timestamp"] });
        }
    })
}

/// E24: the whole message would be too large.
fn assembled_message_empty(_: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    edit_texts(outputs, |_, json| {
        if json.get("assembled_message").is_some() {
            json["assembled_message"] = json!({});
        }
    })
}

/// Lines 242-248: two members of the payload, one of the requirements.
fn payload_as_in_the_example(_: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    edit_texts(outputs, |_, json| {
        if json["type"] == "job_assigned" {
            for (name, kept) in [("payload", ["prompt", "steps"]), ("requirements", ["service_type", ""])] {
                if let Some(members) = json.get_mut(name).and_then(Value::as_object_mut) {
                    members.retain(|name, _| kept.contains(&name.as_str()));
                }
            }
        }
    })
}
