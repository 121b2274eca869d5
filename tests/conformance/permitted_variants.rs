//! Hubs that differ from the reference server in one thing that the document permits. No scenario may fail, and none
//! may warn except under a should that the variant disregards: checks test the document, not the reference server's
//! choices. Variants that a hub of tests/strangers has are not repeated here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hubproof::outcome::Verdict;
use hubproof_reference::machine::{ConnectionId, EventError, Machine, MachineInput, MachineOutput};
use rstest::rstest;
use serde_json::{Map, Value, json};

use super::declared_deviations::{accusations, declare_other_names, with_other_names};
use super::late_hubs::{LATEST, LateHub};
use crate::support::sim_connection::{SendingManner, SimulatedProtocol};

/// The input that made the hub send something.
pub struct HubTrigger {
    pub conn: Option<ConnectionId>,
    /// The client's message, if it was one and JSON.
    pub json: Value,
}

impl HubTrigger {
    pub fn is_of_type(&self, kind: &str) -> bool {
        self.json["type"] == kind
    }
}

/// A change of all outputs for one input.
pub type OutputVariant = fn(&HubTrigger, Vec<MachineOutput>) -> Vec<MachineOutput>;

/// Which texts are delayed, and for how long.
#[derive(Clone, Copy, PartialEq)]
pub enum OutputDelay {
    None,
    Always(Duration),
    /// Texts to clients that did not send the input.
    Others(Duration),
    /// Texts to the client that sent the input.
    Initiator(Duration),
}

impl OutputDelay {
    fn delay_for(self, trigger: &HubTrigger, conn: ConnectionId) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::Always(time) => Some(time),
            Self::Others(time) => (trigger.conn != Some(conn)).then_some(time),
            Self::Initiator(time) => (trigger.conn == Some(conn)).then_some(time),
        }
    }
}

/// The reference server's state machine with a variant.
struct VariantHub {
    inner: Box<dyn Machine>,
    variant: OutputVariant,
    delay: OutputDelay,
    close_waits: bool,
    late: BTreeMap<(Duration, usize), MachineOutput>,
    /// How often the variant changed an output.
    applied: Arc<AtomicUsize>,
}

impl VariantHub {
    fn apply(
        &mut self,
        now: Duration,
        trigger: &HubTrigger,
        outputs: Vec<MachineOutput>,
        out: &mut Vec<MachineOutput>,
    ) {
        let changed = (self.variant)(trigger, outputs.clone());
        if changed != outputs {
            self.applied.fetch_add(1, Ordering::Relaxed);
        }
        for output in changed {
            match &output {
                MachineOutput::Close { conn, .. } if !outputs.contains(&output) => {
                    let conn = *conn;
                    out.push(output);
                    self.inner.handle(now, MachineInput::Closed { conn }, out);
                }
                MachineOutput::Text { conn, .. } => match self.delay.delay_for(trigger, *conn) {
                    Some(time) => {
                        let order = self.applied.fetch_add(1, Ordering::Relaxed);
                        self.late.insert((now + time, order), output);
                    }
                    None => out.push(output),
                },
                _ => match self.late.iter().rev().find(|(_, late)| late.conn() == output.conn()) {
                    Some(((due, _), _)) if self.close_waits => {
                        let due = *due;
                        let order = self.applied.fetch_add(1, Ordering::Relaxed);
                        self.late.insert((due, order), output);
                    }
                    _ => out.push(output),
                },
            }
        }
    }
}

impl Machine for VariantHub {
    fn handle(&mut self, now: Duration, input: MachineInput, out: &mut Vec<MachineOutput>) {
        while let Some(entry) = self.late.first_entry() {
            if entry.key().0 > now {
                break;
            }
            out.push(entry.remove());
        }
        let json = match &input {
            MachineInput::Text { text, .. } => serde_json::from_str(text).unwrap_or(Value::Null),
            _ => Value::Null,
        };
        let trigger = HubTrigger { conn: input.conn(), json };
        let mut outputs = Vec::new();
        self.inner.handle(now, input, &mut outputs);
        self.apply(now, &trigger, outputs, out);
    }

    fn deadline(&self) -> Option<Duration> {
        let late = self.late.first_key_value().map(|((due, _), _)| *due);
        [late, self.inner.deadline()].into_iter().flatten().min()
    }

    fn state(&self) -> Value {
        self.inner.state()
    }

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<MachineOutput>) -> Result<Value, EventError> {
        let mut outputs = Vec::new();
        let answer = self.inner.event(now, event, &mut outputs);
        self.apply(now, &HubTrigger { conn: None, json: Value::Null }, outputs, out);
        answer
    }
}

/// Plays all scenarios against a hub; `tolerated` are the rules that warn.
pub fn assert_variant_passes(mut protocol: SimulatedProtocol, hub: HubVariant, tolerated: &[&str]) {
    let applied = Arc::new(AtomicUsize::new(0));
    if let Some((serve, setting, value)) = hub.set {
        protocol.set(Some(serve), setting, value);
    }
    let around = |inner| -> Box<dyn Machine> {
        let applied = Arc::clone(&applied);
        Box::new(VariantHub {
            inner,
            variant: hub.variant,
            delay: hub.delay,
            close_waits: hub.close_waits,
            late: BTreeMap::new(),
            applied,
        })
    };
    let mut wrong = Vec::new();
    let mut warned = BTreeSet::new();
    for program in &protocol.scenarios.programs {
        let Some(report) = protocol.play_on(program, hub.fault, &around, hub.manner) else { continue };
        if let Some(cause) = &report.cause {
            wrong.push(format!("{}: {}: {}", report.id, cause.step, cause.message));
        }
        for check in &report.checks {
            let warns = check.rules.iter().filter(|(_, verdict)| *verdict == Verdict::Warn);
            warned.extend(warns.map(|(rule, _)| rule.id.clone()));
            let bad = check.rules.iter().any(|(rule, verdict)| match verdict {
                Verdict::Pass | Verdict::Info | Verdict::NotTestable => false,
                Verdict::Warn => !tolerated.contains(&rule.id.as_str()),
                Verdict::Fail | Verdict::Inconclusive => true,
            });
            if bad || check.rules.is_empty() && check.verdict > Verdict::NotTestable {
                let (name, verdict) = (&check.name, check.verdict.name());
                wrong.push(format!("{}: [{verdict}] {name}: {}: {}", report.id, check.step, check.message));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Declared deviations of the same hub add no accusation, nor does a hub that takes note of each step late.
    let deviations = declare_other_names(&mut protocol);
    let pack = Arc::clone(&protocol.pack);
    for (seed, program) in (1..).zip(&protocol.scenarios.programs) {
        let around = |inner| -> Box<dyn Machine> {
            Box::new(LateHub::around(with_other_names(around(inner), &pack), LATEST, seed))
        };
        let played = protocol.play_deviating(program, hub.fault, &around, hub.manner, Arc::clone(&deviations));
        wrong.extend(
            played.iter().flat_map(accusations).filter(|what| !what.contains("[warn]") || tolerated.is_empty()),
        );
    }
    assert!(wrong.is_empty(), "late and with other names:\n{}", wrong.join("\n"));
    assert!(warned.iter().eq(tolerated), "only {warned:?} warned");
    let elsewhere = hub.set.is_some() || hub.fault.is_some() || hub.manner.pings || hub.manner.fragments;
    assert!(elsewhere || applied.load(Ordering::Relaxed) > 0, "the variant changed no output");
}

#[derive(Clone, Copy)]
pub struct HubVariant {
    pub variant: OutputVariant,
    pub delay: OutputDelay,
    /// Whether a close waits for delayed texts.
    pub close_waits: bool,
    pub manner: SendingManner,
    /// A fault of the reference server that breaks no rule: the document permits it.
    pub fault: Option<&'static str>,
    /// A setting of the hub, and of its target.
    pub set: Option<(&'static str, &'static str, &'static str)>,
}

pub const UNCHANGED: HubVariant = HubVariant {
    variant: |_, outputs| outputs,
    delay: OutputDelay::None,
    close_waits: false,
    manner: SendingManner { pings: false, fragments: false },
    fault: None,
    set: None,
};

pub fn hub_with_variant(variant: OutputVariant) -> HubVariant {
    HubVariant { variant, ..UNCHANGED }
}

pub fn hub_with_fault(id: &'static str) -> HubVariant {
    HubVariant { fault: Some(id), ..UNCHANGED }
}

#[rstest]
#[case::slow(HubVariant { delay: OutputDelay::Always(Duration::from_secs(2)), ..UNCHANGED }, &[])]
#[case::slow_to_observers(HubVariant { delay: OutputDelay::Others(Duration::from_secs(2)), ..UNCHANGED }, &[])]
#[case::slow_answers(HubVariant { delay: OutputDelay::Initiator(Duration::from_secs(2)), ..UNCHANGED }, &[])]
#[case::pings(HubVariant { manner: SendingManner { pings: true, fragments: false }, ..UNCHANGED }, &[])]
#[case::fragments(HubVariant { manner: SendingManner { pings: false, fragments: true }, ..UNCHANGED }, &[])]
#[case::version(HubVariant { set: Some(("version", "version", "1.4.2")), ..UNCHANGED }, &[])]
#[case::escaped_as_ascii(hub_with_variant(escaped_as_ascii), &[])]
#[case::members_reversed(hub_with_variant(members_reversed), &[])]
#[case::unknown_members(hub_with_variant(unknown_members), &[])]
#[case::seq_over_all(hub_with_fault("concierge-seq-global"), &["CON-034"])]
#[case::hello_with_seq(hub_with_fault("concierge-hello-with-seq"), &[])]
#[case::no_own_copy(hub_with_fault("concierge-own-copy-missing"), &[])]
#[case::creator_subscribed(hub_with_fault("concierge-creator-subscribed"), &[])]
#[case::group_created_twice_to_creator(hub_with_variant(group_created_twice_to_creator), &["CON-119"])]
#[case::names_as_subscribers(hub_with_fault("concierge-subscribers-are-names"), &["CON-082"])]
#[case::unsupported_spelt_correctly(hub_with_variant(unsupported_spelt_correctly), &["CON-107", "CON-108", "CON-109"])]
#[case::group_member_named_name(hub_with_fault("concierge-no-such-group-renamed"), &["CON-062"])]
#[case::earlier_close_code(hub_with_variant(earlier_close_code), &["CON-010"])]
#[case::unrelated_messages(hub_with_variant(unrelated_messages), &[])]
#[case::other_clients_active(hub_with_variant(other_clients_active), &[])]
#[case::second_identify_closes(hub_with_variant(second_identify_closes), &[])]
#[case::binary_closes(hub_with_fault("concierge-binary-closes"), &[])]
#[case::subprotocol_required(hub_with_fault("concierge-bare-upgrade-refused"), &[])]
#[case::null_seq(hub_with_variant(null_seq), &["CON-039"])]
#[ignore = "thorough: repeats the proof against other hubs"]
fn a_concierge_with_a_permitted_variant_passes(#[case] hub: HubVariant, #[case] tolerated: &[&str]) {
    assert_variant_passes(SimulatedProtocol::load("concierge"), hub, tolerated);
}

#[rstest]
#[case::slow(HubVariant { delay: OutputDelay::Always(Duration::from_secs(2)), ..UNCHANGED }, &[])]
#[case::pings(HubVariant { manner: SendingManner { pings: true, fragments: false }, ..UNCHANGED }, &[])]
#[case::fragments(HubVariant { manner: SendingManner { pings: false, fragments: true }, ..UNCHANGED }, &[])]
#[case::version(HubVariant { set: Some(("version", "version", "2.0.1")), ..UNCHANGED }, &[])]
#[case::escaped_as_ascii(hub_with_variant(escaped_as_ascii), &[])]
#[case::members_reversed(hub_with_variant(members_reversed), &[])]
#[case::unknown_members(hub_with_variant(unknown_members), &[])]
#[case::failure_as_object(hub_with_variant(failure_as_object), &["QI-018"])]
#[case::null_session(hub_with_variant(null_session), &[])]
#[case::empty_session_name_refused(hub_with_variant(empty_session_name_refused), &["QI-025"])]
fn a_qi_server_with_a_permitted_variant_passes(#[case] hub: HubVariant, #[case] tolerated: &[&str]) {
    assert_variant_passes(SimulatedProtocol::load("qi"), hub, tolerated);
}

#[rstest]
// The close is not delayed, so delayed texts before it are lost.
#[case::slow(HubVariant { delay: OutputDelay::Always(Duration::from_secs(2)), ..UNCHANGED }, &["AIR-015"])]
#[case::slow_to_observers(HubVariant { delay: OutputDelay::Others(Duration::from_secs(2)), ..UNCHANGED }, &[])]
#[case::slow_answers(HubVariant { delay: OutputDelay::Initiator(Duration::from_secs(2)), ..UNCHANGED }, &["AIR-015"])]
#[case::pings(HubVariant { manner: SendingManner { pings: true, fragments: false }, ..UNCHANGED }, &[])]
#[case::fragments(HubVariant { manner: SendingManner { pings: false, fragments: true }, ..UNCHANGED }, &[])]
#[case::escaped_as_ascii(hub_with_variant(escaped_as_ascii), &[])]
#[case::members_reversed(hub_with_variant(members_reversed), &[])]
#[case::unknown_members(hub_with_variant(unknown_members), &[])]
#[case::refused_at_the_upgrade(hub_with_variant(refused_at_the_upgrade), &["AIR-015"])]
#[case::closed_without_an_error(hub_with_variant(closed_without_an_error), &["AIR-015"])]
#[case::no_path_subscription(hub_with_fault("airavata-path-not-subscribed"), &["AIR-007", "AIR-094"])]
#[case::events_per_subscription(hub_with_variant(events_per_subscription), &[])]
#[case::errors_in_capitals(hub_with_variant(errors_in_capitals), &[])]
#[case::unsubscribe_without_reply(hub_with_fault("airavata-unsubscribe-unanswered"), &[])]
#[case::worker_subscriptions_refused(hub_with_fault("airavata-worker-subscription-refused"), &[])]
#[case::other_close_code(hub_with_fault("airavata-refusal-code"), &[])]
#[ignore = "thorough: repeats the proof against other hubs"]
fn an_airavata_hub_with_a_permitted_variant_passes(#[case] hub: HubVariant, #[case] tolerated: &[&str]) {
    assert_variant_passes(SimulatedProtocol::load("airavata"), hub, tolerated);
}

#[rstest]
#[ignore = "thorough: repeats the proof in other protocols"]
#[case::slow(HubVariant { delay: OutputDelay::Always(Duration::from_secs(2)), ..UNCHANGED }, &[])]
#[ignore = "thorough: repeats the proof in other protocols"]
#[case::slow_answers(HubVariant { delay: OutputDelay::Initiator(Duration::from_secs(2)), ..UNCHANGED }, &[])]
#[ignore = "thorough: repeats the proof in other protocols"]
#[case::pings(HubVariant { manner: SendingManner { pings: true, fragments: false }, ..UNCHANGED }, &[])]
#[ignore = "thorough: repeats the proof in other protocols"]
#[case::fragments(HubVariant { manner: SendingManner { pings: false, fragments: true }, ..UNCHANGED }, &[])]
#[ignore = "thorough: repeats the proof in other protocols"]
#[case::escaped_as_ascii(hub_with_variant(escaped_as_ascii), &[])]
#[ignore = "thorough: repeats the proof in other protocols"]
#[case::members_reversed(hub_with_variant(members_reversed), &[])]
#[ignore = "thorough: repeats the proof in other protocols"]
#[case::unknown_members(hub_with_variant(unknown_members), &[])]
#[case::answers_overtake(hub_with_fault("gator-answers-overtake"), &[])]
#[case::failure_with_action(hub_with_fault("gator-failure-with-action"), &[])]
#[case::heartbeats(hub_with_fault("gator-heartbeat-upwards"), &[])]
#[case::garbage_closes(hub_with_fault("gator-garbage-closes"), &["GAT-012", "GAT-021"])]
#[case::failures_close(hub_with_variant(failures_close), &[])]
#[case::id_zero_for_none(hub_with_variant(id_zero_for_none), &[])]
fn a_gator_hub_with_a_permitted_variant_passes(#[case] hub: HubVariant, #[case] tolerated: &[&str]) {
    assert_variant_passes(SimulatedProtocol::load("gator"), hub, tolerated);
}

/// Edits every text as JSON.
pub fn edit_texts(outputs: Vec<MachineOutput>, edit: impl Fn(ConnectionId, &mut Value)) -> Vec<MachineOutput> {
    outputs
        .into_iter()
        .map(|output| match output {
            MachineOutput::Text { conn, text } => {
                let mut json = serde_json::from_str(&text).unwrap();
                edit(conn, &mut json);
                MachineOutput::Text { conn, text: json.to_string().into() }
            }
            other => other,
        })
        .collect()
}

/// Edits the frame and every object in it, except payloads of clients, which a hub passes on unchanged.
fn edit_objects(json: &mut Value, edit: &dyn Fn(&mut Map<String, Value>)) {
    match json {
        Value::Object(members) => {
            for (name, value) in members.iter_mut() {
                if name != "data" && name != "payload" {
                    edit_objects(value, edit);
                }
            }
            edit(members);
        }
        Value::Array(items) => items.iter_mut().for_each(|item| edit_objects(item, edit)),
        _ => {}
    }
}

fn has_code(json: &Value, code: &str) -> bool {
    json["type"] == "STATUS" && json["code"] == code
}

// ---- all protocols

/// JSON as Python writes it: blanks after commas and colons, ASCII only.
pub fn escaped_as_ascii(_: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    outputs
        .into_iter()
        .map(|output| match output {
            MachineOutput::Text { conn, text } => {
                let json: Value = serde_json::from_str(&text).unwrap();
                let mut ascii = String::new();
                for unit in format!("{json:#}").encode_utf16() {
                    match u8::try_from(unit) {
                        Ok(byte) if byte.is_ascii() => ascii.push(char::from(byte)),
                        _ => ascii += &format!("\\u{unit:04x}"),
                    }
                }
                MachineOutput::Text { conn, text: format!("  {ascii}\n").into() }
            }
            other => other,
        })
        .collect()
}

/// The members of objects in reverse order.
pub fn members_reversed(_: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    edit_texts(outputs, |_, json| {
        edit_objects(json, &|members| *members = std::mem::take(members).into_iter().rev().collect());
    })
}

fn unknown_members(_: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    edit_texts(outputs, |_, json| {
        edit_objects(json, &|members| {
            for name in ["id", "time", "target_name", "desc", "x", "request", "details"] {
                members.entry(name).or_insert(json!([{ "name": "of no concern", "seq": -1 }]));
            }
        });
    })
}

// ---- concierge

fn null_seq(_: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    edit_texts(outputs, |_, json| {
        if json["type"] == "STATUS" && json["seq"].is_null() {
            json["seq"] = Value::Null;
        }
    })
}

/// One copy with the `seq`, and one without, like those of the other clients.
fn group_created_twice_to_creator(trigger: &HubTrigger, mut outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    let announcement = outputs.iter().find_map(|output| match output {
        MachineOutput::Text { conn, text } if Some(*conn) != trigger.conn && text.contains("GROUP_CREATED") => {
            Some(text.clone())
        }
        _ => None,
    });
    if let (Some(text), Some(conn)) = (announcement, trigger.conn) {
        outputs.insert(0, MachineOutput::Text { conn, text });
    }
    outputs
}

fn unsupported_spelt_correctly(_: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    edit_texts(outputs, |_, json| {
        if has_code(json, "UNSUPORTED") {
            json["code"] = json!("UNSUPPORTED");
        }
    })
}

/// An incomplete IDENTIFY is closed with 4000, as in an earlier revision of the document.
fn earlier_close_code(trigger: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    outputs
        .into_iter()
        .map(|output| match output {
            MachineOutput::Close { conn, code: 4002, reason } if trigger.is_of_type("IDENTIFY") => {
                MachineOutput::Close { conn, code: 4000, reason }
            }
            other => other,
        })
        .collect()
}

/// A STATUS OK "may happen for various reasons", here before and after every message.
fn unrelated_messages(trigger: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    let ok = |conn: ConnectionId| MachineOutput::Text { conn, text: r#"{"type":"STATUS","code":"OK"}"#.into() };
    outputs
        .into_iter()
        .flat_map(|output| match &output {
            MachineOutput::Text { conn, .. } if !trigger.is_of_type("IDENTIFY") => {
                let conn = *conn;
                vec![ok(conn), output, ok(conn)]
            }
            _ => vec![output],
        })
        .collect()
}

/// Other clients are active: groups are created and deleted, and a client sends to all.
fn other_clients_active(trigger: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    let other_client = "0b0e3b0c-6a55-4d1c-9d8e-7d6c2f1f3a11";
    let group = json!({ "name": "g", "nickname": "G", "owner_uuid": other_client, "subscribers": [other_client] });
    let status = |code: &str| {
        let mut status = json!({ "type": "STATUS", "code": code });
        status.as_object_mut().unwrap().extend(group.as_object().unwrap().clone());
        status
    };
    let message = |data: Value| {
        let origin = json!({ "name": "other-client", "uuid": other_client, "tags": [] });
        json!({ "type": "MESSAGE", "origin": origin, "target": { "type": "ALL" }, "data": data })
    };
    let noise = [status("GROUP_CREATED"), message(Value::Null), message(json!({ "mark": 7 })), status("GROUP_DELETED")];
    outputs
        .into_iter()
        .flat_map(|output| match &output {
            MachineOutput::Text { conn, .. } if !trigger.is_of_type("IDENTIFY") => {
                let conn = *conn;
                let noise = noise.iter().map(|json| MachineOutput::Text { conn, text: json.to_string().into() });
                noise.clone().chain([output.clone()]).chain(noise).collect()
            }
            _ => vec![output],
        })
        .collect()
}

/// A second IDENTIFY ends the connection.
fn second_identify_closes(trigger: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    outputs
        .into_iter()
        .map(|output| match output {
            MachineOutput::Text { conn, text } if trigger.is_of_type("IDENTIFY") && text.contains("UNSUPORTED") => {
                MachineOutput::Close { conn, code: 4003, reason: "once".to_owned() }
            }
            other => other,
        })
        .collect()
}

// ---- qi

fn failure_as_object(_: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    edit_texts(outputs, |_, json| {
        if json["status"] == "failure" {
            json["payload"] = json!({ "reason": json["payload"] });
        }
    })
}

fn null_session(_: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    edit_texts(outputs, |_, json| {
        if json["session_id"].is_null() {
            json["session_id"] = Value::Null;
        }
    })
}

/// A session needs a name.
fn empty_session_name_refused(trigger: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    edit_texts(outputs, |_, json| {
        if trigger.json["session_id"] == "" {
            *json = json!({ "status": "failure", "payload": "the session has no name", "version": "0.1.0" });
        }
    })
}

// ---- airavata

/// HTTP 401 instead of an error and a close.
fn refused_at_the_upgrade(_: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    match outputs.as_slice() {
        [MachineOutput::Accept { conn, .. }, MachineOutput::Text { .. }, MachineOutput::Close { reason, .. }] => {
            vec![MachineOutput::Refuse { conn: *conn, status: 401, body: reason.clone() }]
        }
        _ => outputs,
    }
}

fn closed_without_an_error(_: &HubTrigger, mut outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    if matches!(
        outputs.as_slice(),
        [MachineOutput::Accept { .. }, MachineOutput::Text { .. }, MachineOutput::Close { .. }]
    ) {
        outputs.remove(1);
    }
    outputs
}

/// Each event once for every matching subscription, here always two.
fn events_per_subscription(_: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    let event = |output: &MachineOutput| match output {
        MachineOutput::Text { text, .. } => {
            ["experiment_", "task_", "worker_"].iter().any(|kind| text.contains(&format!(r#""type":"{kind}"#)))
        }
        _ => false,
    };
    outputs
        .into_iter()
        .flat_map(|output| if event(&output) { vec![output.clone(), output] } else { vec![output] })
        .collect()
}

fn errors_in_capitals(_: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    edit_texts(outputs, |_, json| {
        if let Some(text) = json["error"].as_str() {
            json["error"] = json!(text.to_uppercase());
        }
    })
}

// ---- gator

/// A failed request closes the connection.
fn failures_close(_: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    let failure = outputs.iter().find_map(|output| match output {
        MachineOutput::Text { conn, text } if text.contains(r#""result":"error""#) => Some(*conn),
        _ => None,
    });
    let end = failure.map(|conn| MachineOutput::Close { conn, code: 1008, reason: "that failed".to_owned() });
    outputs.into_iter().chain(end).collect()
}

/// A request without identifier is answered with 0, as in an earlier revision of the document.
fn id_zero_for_none(_: &HubTrigger, outputs: Vec<MachineOutput>) -> Vec<MachineOutput> {
    edit_texts(outputs, |_, json| {
        if json["result"].is_string() && json.get("rsp_id").is_none() {
            json["rsp_id"] = json!(0);
        }
    })
}
