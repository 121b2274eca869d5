//! Hubs that differ from the reference server in one thing that the document permits. No scenario may fail, and none
//! may warn except under a should that the variant disregards: checks test the document, not the reference server's
//! choices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hubproof::event::Verdict;
use hubproof_reference::machine::{Conn, EventError, Input, Machine, Output};
use rstest::rstest;
use serde_json::{Map, Value, json};

use crate::support::sim_connection::{Manner, Protocol};

/// The input that made the hub send something.
pub struct Trigger {
    pub conn: Option<Conn>,
    /// The client's message, if it was one and JSON.
    pub json: Value,
}

impl Trigger {
    pub fn is(&self, kind: &str) -> bool {
        self.json["type"] == kind
    }
}

/// A change of all outputs for one input.
pub type Variant = fn(&Trigger, Vec<Output>) -> Vec<Output>;

/// Which texts are delayed, and for how long.
#[derive(Clone, Copy, PartialEq)]
pub enum Delay {
    None,
    Always(Duration),
    /// Texts to clients that did not send the input.
    Others(Duration),
    /// Texts to the client that sent the input.
    Initiator(Duration),
}

impl Delay {
    fn by(self, trigger: &Trigger, conn: Conn) -> Option<Duration> {
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
    variant: Variant,
    delay: Delay,
    close_waits: bool,
    late: BTreeMap<(Duration, usize), Output>,
    /// How often the variant changed an output.
    applied: Arc<AtomicUsize>,
}

impl VariantHub {
    fn apply(&mut self, now: Duration, trigger: &Trigger, outputs: Vec<Output>, out: &mut Vec<Output>) {
        let changed = (self.variant)(trigger, outputs.clone());
        if changed != outputs {
            self.applied.fetch_add(1, Ordering::Relaxed);
        }
        for output in changed {
            match &output {
                Output::Close { conn, .. } if !outputs.contains(&output) => {
                    let conn = *conn;
                    out.push(output);
                    self.inner.handle(now, Input::Closed { conn }, out);
                }
                Output::Text { conn, .. } => match self.delay.by(trigger, *conn) {
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
    fn handle(&mut self, now: Duration, input: Input, out: &mut Vec<Output>) {
        while let Some(entry) = self.late.first_entry() {
            if entry.key().0 > now {
                break;
            }
            out.push(entry.remove());
        }
        let json = match &input {
            Input::Text { text, .. } => serde_json::from_str(text).unwrap_or(Value::Null),
            _ => Value::Null,
        };
        let trigger = Trigger { conn: input.conn(), json };
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

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<Output>) -> Result<Value, EventError> {
        let mut outputs = Vec::new();
        let answer = self.inner.event(now, event, &mut outputs);
        self.apply(now, &Trigger { conn: None, json: Value::Null }, outputs, out);
        answer
    }
}

/// Plays all scenarios against a hub; `tolerated` are the rules that warn.
pub fn check(mut protocol: Protocol, hub: Hub, tolerated: &[&str]) {
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
    assert!(warned.iter().eq(tolerated), "only {warned:?} warned");
    let elsewhere = hub.set.is_some() || hub.fault.is_some() || hub.manner.pings || hub.manner.fragments;
    assert!(elsewhere || applied.load(Ordering::Relaxed) > 0, "the variant changed no output");
}

#[derive(Clone, Copy)]
pub struct Hub {
    pub variant: Variant,
    pub delay: Delay,
    /// Whether a close waits for delayed texts.
    pub close_waits: bool,
    pub manner: Manner,
    /// A fault of the reference server that breaks no rule: the document permits it.
    pub fault: Option<&'static str>,
    /// A setting of the hub, and of its target.
    pub set: Option<(&'static str, &'static str, &'static str)>,
}

pub const UNCHANGED: Hub = Hub {
    variant: |_, outputs| outputs,
    delay: Delay::None,
    close_waits: false,
    manner: Manner { pings: false, fragments: false },
    fault: None,
    set: None,
};

pub fn with(variant: Variant) -> Hub {
    Hub { variant, ..UNCHANGED }
}

pub fn fault(id: &'static str) -> Hub {
    Hub { fault: Some(id), ..UNCHANGED }
}

#[rstest]
#[case::slow(Hub { delay: Delay::Always(Duration::from_secs(2)), ..UNCHANGED }, &[])]
#[case::slow_to_observers(Hub { delay: Delay::Others(Duration::from_secs(2)), ..UNCHANGED }, &[])]
#[case::slow_answers(Hub { delay: Delay::Initiator(Duration::from_secs(2)), ..UNCHANGED }, &[])]
#[case::pings(Hub { manner: Manner { pings: true, fragments: false }, ..UNCHANGED }, &[])]
#[case::fragments(Hub { manner: Manner { pings: false, fragments: true }, ..UNCHANGED }, &[])]
#[case::version(Hub { set: Some(("version", "version", "1.4.2")), ..UNCHANGED }, &[])]
#[case::escaped_as_ascii(with(escaped_as_ascii), &[])]
#[case::members_reversed(with(members_reversed), &[])]
#[case::unknown_members(with(unknown_members), &[])]
#[case::null_nicknames(with(null_nicknames), &[])]
#[case::origin_as_in_the_example(with(origin_as_in_the_example), &["CON-052"])]
#[case::seq_from_one(with(seq_from_one), &[])]
#[case::seq_with_a_point(with(seq_with_a_point), &[])]
#[case::seq_over_all(fault("concierge-seq-global"), &["CON-034"])]
#[case::hello_with_seq(fault("concierge-hello-with-seq"), &[])]
#[case::upper_case_uuids(with(upper_case_uuids), &[])]
#[case::own_copy_of_all(with(own_copy_of_all), &[])]
#[case::no_own_copy(fault("concierge-own-copy-missing"), &[])]
#[case::creator_subscribed(fault("concierge-creator-subscribed"), &[])]
#[case::group_created_twice_to_creator(with(group_created_twice_to_creator), &["CON-119"])]
#[case::names_as_subscribers(fault("concierge-subscribers-are-names"), &["CON-082"])]
#[case::answered_before_done(with(answered_before_done), &[])]
#[case::unsubscribed_by_the_deletion(with(unsubscribed_by_the_deletion), &[])]
#[case::other_status_codes(with(other_status_codes), &[])]
#[case::unsupported_spelt_correctly(with(unsupported_spelt_correctly), &["CON-107", "CON-108", "CON-109"])]
#[case::group_member_named_name(fault("concierge-no-such-group-renamed"), &["CON-062"])]
#[case::earlier_close_code(with(earlier_close_code), &["CON-010"])]
#[case::unrelated_messages(with(unrelated_messages), &[])]
#[case::other_clients_active(with(other_clients_active), &[])]
#[case::second_identify_closes(with(second_identify_closes), &[])]
#[case::binary_closes(fault("concierge-binary-closes"), &[])]
#[case::subprotocol_required(fault("concierge-bare-upgrade-refused"), &[])]
#[case::null_seq(with(null_seq), &["CON-039"])]
fn a_concierge_with_a_permitted_variant_passes(#[case] hub: Hub, #[case] tolerated: &[&str]) {
    check(Protocol::load("concierge"), hub, tolerated);
}

#[rstest]
#[case::slow(Hub { delay: Delay::Always(Duration::from_secs(2)), ..UNCHANGED }, &[])]
#[case::pings(Hub { manner: Manner { pings: true, fragments: false }, ..UNCHANGED }, &[])]
#[case::fragments(Hub { manner: Manner { pings: false, fragments: true }, ..UNCHANGED }, &[])]
#[case::version(Hub { set: Some(("version", "version", "2.0.1")), ..UNCHANGED }, &[])]
#[case::escaped_as_ascii(with(escaped_as_ascii), &[])]
#[case::members_reversed(with(members_reversed), &[])]
#[case::unknown_members(with(unknown_members), &[])]
#[case::empty_payload(with(empty_payload), &[])]
#[case::failure_as_object(with(failure_as_object), &["QI-018"])]
#[case::null_session(with(null_session), &[])]
#[case::invalid_requests_ignored(with(invalid_requests_ignored), &[])]
#[case::published_messages(with(published_messages), &[])]
#[case::empty_session_name_refused(with(empty_session_name_refused), &["QI-025"])]
#[case::later_version(with(later_version), &[])]
fn a_qi_server_with_a_permitted_variant_passes(#[case] hub: Hub, #[case] tolerated: &[&str]) {
    check(Protocol::load("qi"), hub, tolerated);
}

#[rstest]
// The close is not delayed, so delayed texts before it are lost.
#[case::slow(Hub { delay: Delay::Always(Duration::from_secs(2)), ..UNCHANGED }, &["AIR-015"])]
#[case::slow_to_observers(Hub { delay: Delay::Others(Duration::from_secs(2)), ..UNCHANGED }, &[])]
#[case::slow_answers(Hub { delay: Delay::Initiator(Duration::from_secs(2)), ..UNCHANGED }, &["AIR-015"])]
#[case::pings(Hub { manner: Manner { pings: true, fragments: false }, ..UNCHANGED }, &[])]
#[case::fragments(Hub { manner: Manner { pings: false, fragments: true }, ..UNCHANGED }, &[])]
#[case::escaped_as_ascii(with(escaped_as_ascii), &[])]
#[case::members_reversed(with(members_reversed), &[])]
#[case::unknown_members(with(unknown_members), &[])]
#[case::refused_at_the_upgrade(with(refused_at_the_upgrade), &["AIR-015"])]
#[case::closed_without_an_error(with(closed_without_an_error), &["AIR-015"])]
#[case::no_path_subscription(fault("airavata-path-not-subscribed"), &["AIR-007", "AIR-094"])]
#[case::events_per_subscription(with(events_per_subscription), &[])]
#[case::timestamps_with_offset(with(timestamps_with_offset), &[])]
#[case::errors_in_capitals(with(errors_in_capitals), &[])]
#[case::unsubscribe_without_reply(fault("airavata-unsubscribe-unanswered"), &[])]
#[case::worker_subscriptions_refused(fault("airavata-worker-subscription-refused"), &[])]
#[case::other_close_code(fault("airavata-refusal-code"), &[])]
#[case::frequent_system_status(with(frequent_system_status), &[])]
fn an_airavata_hub_with_a_permitted_variant_passes(#[case] hub: Hub, #[case] tolerated: &[&str]) {
    check(Protocol::load("airavata"), hub, tolerated);
}

#[rstest]
#[case::slow(Hub { delay: Delay::Always(Duration::from_secs(2)), ..UNCHANGED }, &[])]
#[case::slow_answers(Hub { delay: Delay::Initiator(Duration::from_secs(2)), ..UNCHANGED }, &[])]
#[case::pings(Hub { manner: Manner { pings: true, fragments: false }, ..UNCHANGED }, &[])]
#[case::fragments(Hub { manner: Manner { pings: false, fragments: true }, ..UNCHANGED }, &[])]
#[case::escaped_as_ascii(with(escaped_as_ascii), &[])]
#[case::members_reversed(with(members_reversed), &[])]
#[case::unknown_members(with(unknown_members), &[])]
#[case::answers_overtake(fault("gator-answers-overtake"), &[])]
#[case::failure_with_action(fault("gator-failure-with-action"), &[])]
#[case::heartbeats(fault("gator-heartbeat-upwards"), &[])]
#[case::garbage_closes(fault("gator-garbage-closes"), &["GAT-012", "GAT-021"])]
#[case::failures_close(with(failures_close), &[])]
#[case::unsolicited_requests(with(unsolicited_requests), &[])]
#[case::id_zero_for_none(with(id_zero_for_none), &[])]
fn a_gator_hub_with_a_permitted_variant_passes(#[case] hub: Hub, #[case] tolerated: &[&str]) {
    check(Protocol::load("gator"), hub, tolerated);
}

/// Edits every text as JSON.
pub fn edited(outputs: Vec<Output>, edit: impl Fn(Conn, &mut Value)) -> Vec<Output> {
    outputs
        .into_iter()
        .map(|output| match output {
            Output::Text { conn, text } => {
                let mut json = serde_json::from_str(&text).unwrap();
                edit(conn, &mut json);
                Output::Text { conn, text: json.to_string().into() }
            }
            other => other,
        })
        .collect()
}

/// Edits the frame and every object in it, except payloads of clients, which a hub passes on unchanged.
fn objects(json: &mut Value, edit: &dyn Fn(&mut Map<String, Value>)) {
    match json {
        Value::Object(members) => {
            for (name, value) in members.iter_mut() {
                if name != "data" && name != "payload" {
                    objects(value, edit);
                }
            }
            edit(members);
        }
        Value::Array(items) => items.iter_mut().for_each(|item| objects(item, edit)),
        _ => {}
    }
}

fn is(json: &Value, code: &str) -> bool {
    json["type"] == "STATUS" && json["code"] == code
}

// ---- all protocols

/// JSON as Python writes it: blanks after commas and colons, ASCII only.
pub fn escaped_as_ascii(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    outputs
        .into_iter()
        .map(|output| match output {
            Output::Text { conn, text } => {
                let json: Value = serde_json::from_str(&text).unwrap();
                let mut ascii = String::new();
                for unit in format!("{json:#}").encode_utf16() {
                    match u8::try_from(unit) {
                        Ok(byte) if byte.is_ascii() => ascii.push(char::from(byte)),
                        _ => ascii += &format!("\\u{unit:04x}"),
                    }
                }
                Output::Text { conn, text: format!("  {ascii}\n").into() }
            }
            other => other,
        })
        .collect()
}

/// The members of objects in reverse order.
pub fn members_reversed(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        objects(json, &|members| *members = std::mem::take(members).into_iter().rev().collect());
    })
}

fn unknown_members(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        objects(json, &|members| {
            for name in ["id", "time", "target_name", "desc", "x", "request", "details"] {
                members.entry(name).or_insert(json!([{ "name": "of no concern", "seq": -1 }]));
            }
        });
    })
}

// ---- concierge

fn null_nicknames(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        objects(json, &|members| {
            let described = members.contains_key("uuid") || members.contains_key("owner_uuid");
            if described && !members.contains_key("version") {
                members.entry("nickname").or_insert(Value::Null);
            }
        });
    })
}

/// Line 138: only name and UUID.
fn origin_as_in_the_example(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if let Some(origin) = json.get_mut("origin").and_then(Value::as_object_mut) {
            origin.retain(|name, _| name == "name" || name == "uuid");
        }
    })
}

fn seq_from_one(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if let Some(seq) = json["seq"].as_u64() {
            json["seq"] = json!(seq + 1);
        }
    })
}

/// `7.0` is the same number as `7`.
fn seq_with_a_point(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if let Some(seq) = json["seq"].as_f64() {
            json["seq"] = json!(seq);
        }
    })
}

fn null_seq(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if json["type"] == "STATUS" && json["seq"].is_null() {
            json["seq"] = Value::Null;
        }
    })
}

fn upper_case_uuids(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    fn raise(json: &mut Value) {
        match json {
            Value::String(text) if text.len() == 36 && text.split('-').count() == 5 => *text = text.to_uppercase(),
            Value::Array(items) => items.iter_mut().for_each(raise),
            Value::Object(members) => {
                members.iter_mut().filter(|(name, _)| *name != "data" && *name != "target").for_each(|(_, v)| raise(v));
            }
            _ => {}
        }
    }
    // It repeats the client's own text, which must not change.
    edited(outputs, |_, json| {
        if !is(json, "NO_SUCH_UUID") {
            raise(json)
        }
    })
}

fn own_copy_of_all(trigger: &Trigger, mut outputs: Vec<Output>) -> Vec<Output> {
    let to_all = |output: &Output| match output {
        Output::Text { text, .. } => {
            let json: Value = serde_json::from_str(text).unwrap();
            (json["type"] == "MESSAGE" && json["target"]["type"] == "ALL").then(|| text.clone())
        }
        _ => None,
    };
    if let (Some(text), Some(conn)) = (outputs.iter().find_map(to_all), trigger.conn) {
        outputs.push(Output::Text { conn, text });
    }
    outputs
}

/// One copy with the `seq`, and one without, like those of the other clients.
fn group_created_twice_to_creator(trigger: &Trigger, mut outputs: Vec<Output>) -> Vec<Output> {
    let announcement = outputs.iter().find_map(|output| match output {
        Output::Text { conn, text } if Some(*conn) != trigger.conn && text.contains("GROUP_CREATED") => {
            Some(text.clone())
        }
        _ => None,
    });
    if let (Some(text), Some(conn)) = (announcement, trigger.conn) {
        outputs.insert(0, Output::Text { conn, text });
    }
    outputs
}

/// MESSAGE_SENT before the message, GROUP_DELETED before UNSUBSCRIBED, the answer after the announcement.
fn answered_before_done(_: &Trigger, mut outputs: Vec<Output>) -> Vec<Output> {
    outputs.reverse();
    outputs
}

/// An owner's UNSUBSCRIBED answers its GROUP_DELETE.
fn unsubscribed_by_the_deletion(trigger: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    let seq = outputs.iter().find_map(|output| match output {
        Output::Text { conn, text } if Some(*conn) == trigger.conn && trigger.is("GROUP_DELETE") => {
            serde_json::from_str::<Value>(text).unwrap()["seq"].as_u64()
        }
        _ => None,
    });
    edited(outputs, |conn, json| {
        if let (Some(seq), true) = (seq, Some(conn) == trigger.conn && is(json, "UNSUBSCRIBED")) {
            json["seq"] = json!(seq);
        }
    })
}

/// Other codes, if the document leaves them open.
fn other_status_codes(trigger: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if trigger.is("NO_SUCH_TYPE") && is(json, "PROTOCOL") {
            *json = json!({ "type": "STATUS", "code": "UNSUPORTED", "seq": json["seq"] });
        } else if trigger.is("GROUP_DELETE") && is(json, "BAD") {
            *json = json!({ "type": "STATUS", "code": "PROTOCOL", "desc": "not yours", "seq": json["seq"] });
        } else if trigger.is("GROUP_FETCH") && is(json, "NO_SUCH_GROUP")
            || trigger.is("MESSAGE") && trigger.json.get("data").is_none() && is(json, "PROTOCOL")
        {
            *json = json!({ "type": "STATUS", "code": "BAD", "seq": json["seq"] });
        } else if trigger.is("IDENTIFY") && is(json, "UNSUPORTED") {
            *json = json!({ "type": "STATUS", "code": "OK", "seq": json["seq"] });
        }
    })
}

fn unsupported_spelt_correctly(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if is(json, "UNSUPORTED") {
            json["code"] = json!("UNSUPPORTED");
        }
    })
}

/// An incomplete IDENTIFY is closed with 4000, as in an earlier revision of the document.
fn earlier_close_code(trigger: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    outputs
        .into_iter()
        .map(|output| match output {
            Output::Close { conn, code: 4002, reason } if trigger.is("IDENTIFY") => {
                Output::Close { conn, code: 4000, reason }
            }
            other => other,
        })
        .collect()
}

/// A STATUS OK "may happen for various reasons", here before and after every message.
fn unrelated_messages(trigger: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    let ok = |conn: Conn| Output::Text { conn, text: r#"{"type":"STATUS","code":"OK"}"#.into() };
    outputs
        .into_iter()
        .flat_map(|output| match &output {
            Output::Text { conn, .. } if !trigger.is("IDENTIFY") => {
                let conn = *conn;
                vec![ok(conn), output, ok(conn)]
            }
            _ => vec![output],
        })
        .collect()
}

/// Other clients are active: groups are created and deleted, and a client sends to all.
fn other_clients_active(trigger: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
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
            Output::Text { conn, .. } if !trigger.is("IDENTIFY") => {
                let conn = *conn;
                let noise = noise.iter().map(|json| Output::Text { conn, text: json.to_string().into() });
                noise.clone().chain([output.clone()]).chain(noise).collect()
            }
            _ => vec![output],
        })
        .collect()
}

/// A second IDENTIFY ends the connection.
fn second_identify_closes(trigger: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    outputs
        .into_iter()
        .map(|output| match output {
            Output::Text { conn, text } if trigger.is("IDENTIFY") && text.contains("UNSUPORTED") => {
                Output::Close { conn, code: 4003, reason: "once".to_owned() }
            }
            other => other,
        })
        .collect()
}

// ---- qi

fn empty_payload(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if json["payload"].is_null() {
            json["payload"] = json!({});
        }
    })
}

fn failure_as_object(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if json["status"] == "failure" {
            json["payload"] = json!({ "reason": json["payload"] });
        }
    })
}

fn null_session(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if json["session_id"].is_null() {
            json["session_id"] = Value::Null;
        }
    })
}

/// Text that is not a request gets no reply.
fn invalid_requests_ignored(trigger: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    let proper = trigger.json.get("command").is_some() && trigger.json.get("version").is_some();
    outputs.into_iter().filter(|output| proper || !matches!(output, Output::Text { .. })).collect()
}

/// Line 11: messages may be published.
fn published_messages(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    outputs
        .into_iter()
        .flat_map(|output| {
            let conn = output.conn();
            let news = Output::Text { conn, text: r#"{"event":"calibrated","version":"0.1.0"}"#.into() };
            if matches!(output, Output::Text { .. }) { vec![news.clone(), output, news] } else { vec![output] }
        })
        .collect()
}

/// A session needs a name.
fn empty_session_name_refused(trigger: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if trigger.json["session_id"] == "" {
            *json = json!({ "status": "failure", "payload": "the session has no name", "version": "0.1.0" });
        }
    })
}

/// Replies have the hub's own version of the format, not that of the request.
fn later_version(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| json["version"] = json!("0.1.7-rc.1+build.5"))
}

// ---- airavata

/// HTTP 401 instead of an error and a close.
fn refused_at_the_upgrade(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    match outputs.as_slice() {
        [Output::Accept { conn, .. }, Output::Text { .. }, Output::Close { reason, .. }] => {
            vec![Output::Refuse { conn: *conn, status: 401, body: reason.clone() }]
        }
        _ => outputs,
    }
}

fn closed_without_an_error(_: &Trigger, mut outputs: Vec<Output>) -> Vec<Output> {
    if matches!(outputs.as_slice(), [Output::Accept { .. }, Output::Text { .. }, Output::Close { .. }]) {
        outputs.remove(1);
    }
    outputs
}

/// Each event once for every matching subscription, here always two.
fn events_per_subscription(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    let event = |output: &Output| match output {
        Output::Text { text, .. } => {
            ["experiment_", "task_", "worker_"].iter().any(|kind| text.contains(&format!(r#""type":"{kind}"#)))
        }
        _ => false,
    };
    outputs
        .into_iter()
        .flat_map(|output| if event(&output) { vec![output.clone(), output] } else { vec![output] })
        .collect()
}

/// Local time, with an offset.
fn timestamps_with_offset(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if let Some(time) = json["timestamp"].as_str() {
            json["timestamp"] = json!(time.replace('Z', "+00:00"));
        }
    })
}

fn errors_in_capitals(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if let Some(text) = json["error"].as_str() {
            json["error"] = json!(text.to_uppercase());
        }
    })
}

/// A system_status before every message.
fn frequent_system_status(trigger: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    let status = |conn: Conn| {
        let json = json!({
            "type": "system_status", "id": "system_1642248600", "timestamp": "2024-01-15T10:30:00Z",
            "data": {
                "totalConnections": 150, "activeConnections": 120, "totalMessages": 15420,
                "messagesPerSecond": 25.5, "averageLatency": "0.05s", "uptime": "2h 30m 15s",
            },
        });
        Output::Text { conn, text: json.to_string().into() }
    };
    outputs
        .into_iter()
        .flat_map(|output| match &output {
            Output::Text { conn, .. } if trigger.json["type"].is_string() => {
                let conn = *conn;
                vec![status(conn), output]
            }
            _ => vec![output],
        })
        .collect()
}

// ---- gator

/// A tier may send requests to any connection.
fn unsolicited_requests(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    outputs
        .into_iter()
        .flat_map(|output| match &output {
            Output::Text { conn, .. } => {
                let conn = *conn;
                let text = r#"{"action":"metric","req_id":"m","posted":true,"payload":{"cpu":0.5}}"#;
                vec![Output::Text { conn, text: text.into() }, output]
            }
            _ => vec![output],
        })
        .collect()
}

/// A failed request closes the connection.
fn failures_close(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    let failure = outputs.iter().find_map(|output| match output {
        Output::Text { conn, text } if text.contains(r#""result":"error""#) => Some(*conn),
        _ => None,
    });
    let end = failure.map(|conn| Output::Close { conn, code: 1008, reason: "that failed".to_owned() });
    outputs.into_iter().chain(end).collect()
}

/// A request without identifier is answered with 0, as in an earlier revision of the document.
fn id_zero_for_none(_: &Trigger, outputs: Vec<Output>) -> Vec<Output> {
    edited(outputs, |_, json| {
        if json["result"].is_string() && json.get("rsp_id").is_none() {
            json["rsp_id"] = json!(0);
        }
    })
}
