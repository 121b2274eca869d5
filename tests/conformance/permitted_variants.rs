//! Hubs that do everything the document allows, each in a way of its own. No scenario may fail one of them, and none may
//! warn but under a rule that is a should where the habit goes against it: the checks ask for the document, not for the
//! reference server's choices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hubproof::event::Verdict;
use hubproof_reference::machine::{Conn, EventError, Input, Machine, Output};
use rstest::rstest;
use serde_json::{Map, Value, json};

use crate::support::sim_connection::{Manner, Protocol};

/// What the hub heard when it spoke.
pub struct Heard {
    pub conn: Option<Conn>,
    /// What a client had sent, if that is what made the hub speak, and if it was JSON.
    pub json: Value,
}

impl Heard {
    pub fn is(&self, kind: &str) -> bool {
        self.json["type"] == kind
    }
}

/// What becomes of all that a hub says at one moment.
pub type Habit = fn(&Heard, Vec<Output>) -> Vec<Output>;

/// To whom texts come late, and how late.
#[derive(Clone, Copy, PartialEq)]
pub enum Slow {
    Never,
    Always(Duration),
    /// To those whose doing it was not.
    Others(Duration),
    /// To the one whose doing it was.
    Initiator(Duration),
}

impl Slow {
    fn by(self, heard: &Heard, conn: Conn) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::Always(time) => Some(time),
            Self::Others(time) => (heard.conn != Some(conn)).then_some(time),
            Self::Initiator(time) => (heard.conn == Some(conn)).then_some(time),
        }
    }
}

/// A hub with a habit.
struct Bent {
    inner: Box<dyn Machine>,
    habit: Habit,
    slow: Slow,
    finishes: bool,
    late: BTreeMap<(Duration, usize), Output>,
    /// How often the habit made a difference.
    shown: Arc<AtomicUsize>,
}

impl Bent {
    fn bend(&mut self, now: Duration, heard: &Heard, said: Vec<Output>, out: &mut Vec<Output>) {
        let bent = (self.habit)(heard, said.clone());
        if bent != said {
            self.shown.fetch_add(1, Ordering::Relaxed);
        }
        for output in bent {
            match &output {
                Output::Close { conn, .. } if !said.contains(&output) => {
                    let conn = *conn;
                    out.push(output);
                    self.inner.handle(now, Input::Closed { conn }, out);
                }
                Output::Text { conn, .. } => match self.slow.by(heard, *conn) {
                    Some(time) => {
                        let order = self.shown.fetch_add(1, Ordering::Relaxed);
                        self.late.insert((now + time, order), output);
                    }
                    None => out.push(output),
                },
                _ => match self.late.iter().rev().find(|(_, late)| late.conn() == output.conn()) {
                    Some(((due, _), _)) if self.finishes => {
                        let due = *due;
                        let order = self.shown.fetch_add(1, Ordering::Relaxed);
                        self.late.insert((due, order), output);
                    }
                    _ => out.push(output),
                },
            }
        }
    }
}

impl Machine for Bent {
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
        let heard = Heard { conn: input.conn(), json };
        let mut said = Vec::new();
        self.inner.handle(now, input, &mut said);
        self.bend(now, &heard, said, out);
    }

    fn deadline(&self) -> Option<Duration> {
        let late = self.late.first_key_value().map(|((due, _), _)| *due);
        [late, self.inner.deadline()].into_iter().flatten().min()
    }

    fn state(&self) -> Value {
        self.inner.state()
    }

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<Output>) -> Result<Value, EventError> {
        let mut said = Vec::new();
        let answer = self.inner.event(now, event, &mut said);
        self.bend(now, &Heard { conn: None, json: Value::Null }, said, out);
        answer
    }
}

/// Plays all scenarios against a hub; `tolerated` are the rules that warn.
pub fn check(mut protocol: Protocol, hub: Hub, tolerated: &[&str]) {
    let shown = Arc::new(AtomicUsize::new(0));
    if let Some((serve, setting, value)) = hub.set {
        protocol.set(Some(serve), setting, value);
    }
    let around = |inner| -> Box<dyn Machine> {
        let shown = Arc::clone(&shown);
        Box::new(Bent { inner, habit: hub.habit, slow: hub.slow, finishes: hub.finishes, late: BTreeMap::new(), shown })
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
    let plain = hub.set.is_some() || hub.fault.is_some() || hub.manner.pings || hub.manner.fragments;
    assert!(plain || shown.load(Ordering::Relaxed) > 0, "the habit never shows");
}

#[derive(Clone, Copy)]
pub struct Hub {
    pub habit: Habit,
    pub slow: Slow,
    /// Whoever is slow closes only when it has spoken.
    pub finishes: bool,
    pub manner: Manner,
    /// A fault that is none: it breaks only rules that allow something.
    pub fault: Option<&'static str>,
    /// A setting of the hub, and of its target.
    pub set: Option<(&'static str, &'static str, &'static str)>,
}

pub const PLAIN: Hub = Hub {
    habit: |_, said| said,
    slow: Slow::Never,
    finishes: false,
    manner: Manner { pings: false, fragments: false },
    fault: None,
    set: None,
};

pub fn with(habit: Habit) -> Hub {
    Hub { habit, ..PLAIN }
}

pub fn fault(id: &'static str) -> Hub {
    Hub { fault: Some(id), ..PLAIN }
}

#[rstest]
#[case::slow(Hub { slow: Slow::Always(Duration::from_secs(2)), ..PLAIN }, &[])]
#[case::slow_for_others(Hub { slow: Slow::Others(Duration::from_secs(2)), ..PLAIN }, &[])]
#[case::slow_to_answer(Hub { slow: Slow::Initiator(Duration::from_secs(2)), ..PLAIN }, &[])]
#[case::pings(Hub { manner: Manner { pings: true, fragments: false }, ..PLAIN }, &[])]
#[case::fragments(Hub { manner: Manner { pings: false, fragments: true }, ..PLAIN }, &[])]
#[case::version(Hub { set: Some(("version", "version", "1.4.2")), ..PLAIN }, &[])]
#[case::escaped(with(escaped), &[])]
#[case::backwards(with(backwards), &[])]
#[case::further_members(with(further_members), &[])]
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
#[case::creator_told_twice(with(creator_told_twice), &["CON-119"])]
#[case::names_as_subscribers(fault("concierge-subscribers-are-names"), &["CON-082"])]
#[case::answered_before_done(with(answered_before_done), &[])]
#[case::unsubscribed_by_the_deletion(with(unsubscribed_by_the_deletion), &[])]
#[case::other_codes(with(other_codes), &[])]
#[case::spelt_properly(with(spelt_properly), &["CON-107", "CON-108", "CON-109"])]
#[case::group_called_name(fault("concierge-no-such-group-renamed"), &["CON-062"])]
#[case::old_codes(with(old_codes), &["CON-010"])]
#[case::chatty(with(chatty), &[])]
#[case::busy(with(busy), &[])]
#[case::identified_once(with(identified_once), &[])]
#[case::binary_closes(fault("concierge-binary-closes"), &[])]
#[case::only_with_the_subprotocol(fault("concierge-bare-upgrade-refused"), &[])]
#[case::null_seq(with(null_seq), &["CON-039"])]
fn a_concierge_of_another_school(#[case] hub: Hub, #[case] tolerated: &[&str]) {
    check(Protocol::load("concierge"), hub, tolerated);
}

#[rstest]
#[case::slow(Hub { slow: Slow::Always(Duration::from_secs(2)), ..PLAIN }, &[])]
#[case::pings(Hub { manner: Manner { pings: true, fragments: false }, ..PLAIN }, &[])]
#[case::fragments(Hub { manner: Manner { pings: false, fragments: true }, ..PLAIN }, &[])]
#[case::version(Hub { set: Some(("version", "version", "2.0.1")), ..PLAIN }, &[])]
#[case::escaped(with(escaped), &[])]
#[case::backwards(with(backwards), &[])]
#[case::further_members(with(further_members), &[])]
#[case::empty_payload(with(empty_payload), &[])]
#[case::failure_as_object(with(failure_as_object), &["QI-018"])]
#[case::null_session(with(null_session), &[])]
#[case::garbage_dropped(with(garbage_dropped), &[])]
#[case::publishes(with(publishes), &[])]
#[case::nameless_refused(with(nameless_refused), &["QI-025"])]
#[case::later_format(with(later_format), &[])]
fn a_system_of_another_school(#[case] hub: Hub, #[case] tolerated: &[&str]) {
    check(Protocol::load("qi"), hub, tolerated);
}

#[rstest]
// Where words are late and ends are not, the last words are lost.
#[case::slow(Hub { slow: Slow::Always(Duration::from_secs(2)), ..PLAIN }, &["AIR-015"])]
#[case::slow_for_others(Hub { slow: Slow::Others(Duration::from_secs(2)), ..PLAIN }, &[])]
#[case::slow_to_answer(Hub { slow: Slow::Initiator(Duration::from_secs(2)), ..PLAIN }, &["AIR-015"])]
#[case::pings(Hub { manner: Manner { pings: true, fragments: false }, ..PLAIN }, &[])]
#[case::fragments(Hub { manner: Manner { pings: false, fragments: true }, ..PLAIN }, &[])]
#[case::escaped(with(escaped), &[])]
#[case::backwards(with(backwards), &[])]
#[case::further_members(with(further_members), &[])]
#[case::refused_at_the_upgrade(with(refused_at_the_upgrade), &["AIR-015"])]
#[case::closed_without_a_word(with(closed_without_a_word), &["AIR-015"])]
#[case::no_path_subscription(fault("airavata-path-not-subscribed"), &["AIR-007", "AIR-094"])]
#[case::copies(with(copies), &[])]
#[case::offsets(with(offsets), &[])]
#[case::capitals(with(capitals), &[])]
#[case::unsubscribes_silently(fault("airavata-unsubscribe-unanswered"), &[])]
#[case::knows_no_workers(fault("airavata-worker-subscription-refused"), &[])]
#[case::other_code(fault("airavata-refusal-code"), &[])]
#[case::busy_system(with(busy_system), &[])]
fn a_scheduler_of_another_school(#[case] hub: Hub, #[case] tolerated: &[&str]) {
    check(Protocol::load("airavata"), hub, tolerated);
}

#[rstest]
#[case::slow(Hub { slow: Slow::Always(Duration::from_secs(2)), ..PLAIN }, &[])]
#[case::slow_to_answer(Hub { slow: Slow::Initiator(Duration::from_secs(2)), ..PLAIN }, &[])]
#[case::pings(Hub { manner: Manner { pings: true, fragments: false }, ..PLAIN }, &[])]
#[case::fragments(Hub { manner: Manner { pings: false, fragments: true }, ..PLAIN }, &[])]
#[case::escaped(with(escaped), &[])]
#[case::backwards(with(backwards), &[])]
#[case::further_members(with(further_members), &[])]
#[case::answers_overtake(fault("gator-answers-overtake"), &[])]
#[case::failure_with_action(fault("gator-failure-with-action"), &[])]
#[case::heartbeats(fault("gator-heartbeat-upwards"), &[])]
#[case::garbage_closes(fault("gator-garbage-closes"), &["GAT-012", "GAT-021"])]
#[case::failures_close(with(failures_close), &[])]
#[case::asks_everybody(with(asks_everybody), &[])]
#[case::id_zero_for_none(with(id_zero_for_none), &[])]
fn a_tier_of_another_school(#[case] hub: Hub, #[case] tolerated: &[&str]) {
    check(Protocol::load("gator"), hub, tolerated);
}

/// Every text, edited as JSON.
pub fn edited(said: Vec<Output>, edit: impl Fn(Conn, &mut Value)) -> Vec<Output> {
    said.into_iter()
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

/// The frame itself and every object in it, but for what belongs to others and travels as it is.
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

// ---- of both

/// As Python writes JSON: a blank after commas and colons, and nothing beyond ASCII.
pub fn escaped(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    said.into_iter()
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

/// The members of objects in the other order.
pub fn backwards(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        objects(json, &|members| *members = std::mem::take(members).into_iter().rev().collect());
    })
}

fn further_members(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        objects(json, &|members| {
            for name in ["id", "time", "target_name", "desc", "x", "request", "details"] {
                members.entry(name).or_insert(json!([{ "name": "of no concern", "seq": -1 }]));
            }
        });
    })
}

// ---- of the concierge

fn null_nicknames(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        objects(json, &|members| {
            let described = members.contains_key("uuid") || members.contains_key("owner_uuid");
            if described && !members.contains_key("version") {
                members.entry("nickname").or_insert(Value::Null);
            }
        });
    })
}

/// Line 138: name and UUID.
fn origin_as_in_the_example(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        if let Some(origin) = json.get_mut("origin").and_then(Value::as_object_mut) {
            origin.retain(|name, _| name == "name" || name == "uuid");
        }
    })
}

fn seq_from_one(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        if let Some(seq) = json["seq"].as_u64() {
            json["seq"] = json!(seq + 1);
        }
    })
}

/// A number is a number: `7.0`.
fn seq_with_a_point(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        if let Some(seq) = json["seq"].as_f64() {
            json["seq"] = json!(seq);
        }
    })
}

fn null_seq(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        if json["type"] == "STATUS" && json["seq"].is_null() {
            json["seq"] = Value::Null;
        }
    })
}

fn upper_case_uuids(_: &Heard, said: Vec<Output>) -> Vec<Output> {
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
    // What the client sent comes back as it was.
    edited(said, |_, json| {
        if !is(json, "NO_SUCH_UUID") {
            raise(json)
        }
    })
}

fn own_copy_of_all(heard: &Heard, mut said: Vec<Output>) -> Vec<Output> {
    let to_all = |output: &Output| match output {
        Output::Text { text, .. } => {
            let json: Value = serde_json::from_str(text).unwrap();
            (json["type"] == "MESSAGE" && json["target"]["type"] == "ALL").then(|| text.clone())
        }
        _ => None,
    };
    if let (Some(text), Some(conn)) = (said.iter().find_map(to_all), heard.conn) {
        said.push(Output::Text { conn, text });
    }
    said
}

/// With the `seq` and, as everybody else, without.
fn creator_told_twice(heard: &Heard, mut said: Vec<Output>) -> Vec<Output> {
    let announcement = said.iter().find_map(|output| match output {
        Output::Text { conn, text } if Some(*conn) != heard.conn && text.contains("GROUP_CREATED") => {
            Some(text.clone())
        }
        _ => None,
    });
    if let (Some(text), Some(conn)) = (announcement, heard.conn) {
        said.insert(0, Output::Text { conn, text });
    }
    said
}

/// MESSAGE_SENT before the message, GROUP_DELETED before UNSUBSCRIBED, the answer after the announcement.
fn answered_before_done(_: &Heard, mut said: Vec<Output>) -> Vec<Output> {
    said.reverse();
    said
}

/// An owner's UNSUBSCRIBED answers its GROUP_DELETE.
fn unsubscribed_by_the_deletion(heard: &Heard, said: Vec<Output>) -> Vec<Output> {
    let seq = said.iter().find_map(|output| match output {
        Output::Text { conn, text } if Some(*conn) == heard.conn && heard.is("GROUP_DELETE") => {
            serde_json::from_str::<Value>(text).unwrap()["seq"].as_u64()
        }
        _ => None,
    });
    edited(said, |conn, json| {
        if let (Some(seq), true) = (seq, Some(conn) == heard.conn && is(json, "UNSUBSCRIBED")) {
            json["seq"] = json!(seq);
        }
    })
}

/// Where the document leaves the code open.
fn other_codes(heard: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        if heard.is("NO_SUCH_TYPE") && is(json, "PROTOCOL") {
            *json = json!({ "type": "STATUS", "code": "UNSUPORTED", "seq": json["seq"] });
        } else if heard.is("GROUP_DELETE") && is(json, "BAD") {
            *json = json!({ "type": "STATUS", "code": "PROTOCOL", "desc": "not yours", "seq": json["seq"] });
        } else if heard.is("GROUP_FETCH") && is(json, "NO_SUCH_GROUP")
            || heard.is("MESSAGE") && heard.json.get("data").is_none() && is(json, "PROTOCOL")
        {
            *json = json!({ "type": "STATUS", "code": "BAD", "seq": json["seq"] });
        } else if heard.is("IDENTIFY") && is(json, "UNSUPORTED") {
            *json = json!({ "type": "STATUS", "code": "OK", "seq": json["seq"] });
        }
    })
}

fn spelt_properly(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        if is(json, "UNSUPORTED") {
            json["code"] = json!("UNSUPPORTED");
        }
    })
}

/// An IDENTIFY that lacks something is closed with 4000, as an earlier revision did it.
fn old_codes(heard: &Heard, said: Vec<Output>) -> Vec<Output> {
    said.into_iter()
        .map(|output| match output {
            Output::Close { conn, code: 4002, reason } if heard.is("IDENTIFY") => {
                Output::Close { conn, code: 4000, reason }
            }
            other => other,
        })
        .collect()
}

/// A STATUS OK "may happen for various reasons", here before and after everything.
fn chatty(heard: &Heard, said: Vec<Output>) -> Vec<Output> {
    let ok = |conn: Conn| Output::Text { conn, text: r#"{"type":"STATUS","code":"OK"}"#.into() };
    said.into_iter()
        .flat_map(|output| match &output {
            Output::Text { conn, .. } if !heard.is("IDENTIFY") => {
                let conn = *conn;
                vec![ok(conn), output, ok(conn)]
            }
            _ => vec![output],
        })
        .collect()
}

/// Others are about: groups come and go, and somebody speaks to everybody.
fn busy(heard: &Heard, said: Vec<Output>) -> Vec<Output> {
    let somebody = "0b0e3b0c-6a55-4d1c-9d8e-7d6c2f1f3a11";
    let group = json!({ "name": "g", "nickname": "G", "owner_uuid": somebody, "subscribers": [somebody] });
    let status = |code: &str| {
        let mut status = json!({ "type": "STATUS", "code": code });
        status.as_object_mut().unwrap().extend(group.as_object().unwrap().clone());
        status
    };
    let message = |data: Value| {
        let origin = json!({ "name": "somebody", "uuid": somebody, "tags": [] });
        json!({ "type": "MESSAGE", "origin": origin, "target": { "type": "ALL" }, "data": data })
    };
    let noise = [status("GROUP_CREATED"), message(Value::Null), message(json!({ "mark": 7 })), status("GROUP_DELETED")];
    said.into_iter()
        .flat_map(|output| match &output {
            Output::Text { conn, .. } if !heard.is("IDENTIFY") => {
                let conn = *conn;
                let noise = noise.iter().map(|json| Output::Text { conn, text: json.to_string().into() });
                noise.clone().chain([output.clone()]).chain(noise).collect()
            }
            _ => vec![output],
        })
        .collect()
}

/// A second IDENTIFY ends the connection.
fn identified_once(heard: &Heard, said: Vec<Output>) -> Vec<Output> {
    said.into_iter()
        .map(|output| match output {
            Output::Text { conn, text } if heard.is("IDENTIFY") && text.contains("UNSUPORTED") => {
                Output::Close { conn, code: 4003, reason: "once".to_owned() }
            }
            other => other,
        })
        .collect()
}

// ---- of the 2200/2300 systems

fn empty_payload(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        if json["payload"].is_null() {
            json["payload"] = json!({});
        }
    })
}

fn failure_as_object(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        if json["status"] == "failure" {
            json["payload"] = json!({ "reason": json["payload"] });
        }
    })
}

fn null_session(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        if json["session_id"].is_null() {
            json["session_id"] = Value::Null;
        }
    })
}

/// What is no request gets no reply.
fn garbage_dropped(heard: &Heard, said: Vec<Output>) -> Vec<Output> {
    let proper = heard.json.get("command").is_some() && heard.json.get("version").is_some();
    said.into_iter().filter(|output| proper || !matches!(output, Output::Text { .. })).collect()
}

/// Line 11: messages may be published.
fn publishes(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    said.into_iter()
        .flat_map(|output| {
            let conn = output.conn();
            let news = Output::Text { conn, text: r#"{"event":"calibrated","version":"0.1.0"}"#.into() };
            if matches!(output, Output::Text { .. }) { vec![news.clone(), output, news] } else { vec![output] }
        })
        .collect()
}

/// A session needs a name.
fn nameless_refused(heard: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        if heard.json["session_id"] == "" {
            *json = json!({ "status": "failure", "payload": "the session has no name", "version": "0.1.0" });
        }
    })
}

/// Replies are in the hub's own version of the format, whatever was asked in.
fn later_format(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| json["version"] = json!("0.1.7-rc.1+build.5"))
}

// ---- of schedulers

/// HTTP 401 instead of an error and a close.
fn refused_at_the_upgrade(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    match said.as_slice() {
        [Output::Accept { conn, .. }, Output::Text { .. }, Output::Close { reason, .. }] => {
            vec![Output::Refuse { conn: *conn, status: 401, body: reason.clone() }]
        }
        _ => said,
    }
}

fn closed_without_a_word(_: &Heard, mut said: Vec<Output>) -> Vec<Output> {
    if matches!(said.as_slice(), [Output::Accept { .. }, Output::Text { .. }, Output::Close { .. }]) {
        said.remove(1);
    }
    said
}

/// One of each event for every subscription that fits it, here always two.
fn copies(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    let event = |output: &Output| match output {
        Output::Text { text, .. } => {
            ["experiment_", "task_", "worker_"].iter().any(|kind| text.contains(&format!(r#""type":"{kind}"#)))
        }
        _ => false,
    };
    said.into_iter()
        .flat_map(|output| if event(&output) { vec![output.clone(), output] } else { vec![output] })
        .collect()
}

/// Local time, with an offset.
fn offsets(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        if let Some(time) = json["timestamp"].as_str() {
            json["timestamp"] = json!(time.replace('Z', "+00:00"));
        }
    })
}

fn capitals(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        if let Some(text) = json["error"].as_str() {
            json["error"] = json!(text.to_uppercase());
        }
    })
}

/// The system is always changing, and everybody is told so.
fn busy_system(heard: &Heard, said: Vec<Output>) -> Vec<Output> {
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
    said.into_iter()
        .flat_map(|output| match &output {
            Output::Text { conn, .. } if heard.json["type"].is_string() => {
                let conn = *conn;
                vec![status(conn), output]
            }
            _ => vec![output],
        })
        .collect()
}

// ---- of tiers

/// A tier may ask whatever it likes of whomever.
fn asks_everybody(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    said.into_iter()
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

/// A request that fails costs the connection.
fn failures_close(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    let failure = said.iter().find_map(|output| match output {
        Output::Text { conn, text } if text.contains(r#""result":"error""#) => Some(*conn),
        _ => None,
    });
    let end = failure.map(|conn| Output::Close { conn, code: 1008, reason: "that failed".to_owned() });
    said.into_iter().chain(end).collect()
}

/// As an earlier revision: no identifier is answered with 0.
fn id_zero_for_none(_: &Heard, said: Vec<Output>) -> Vec<Output> {
    edited(said, |_, json| {
        if json["result"].is_string() && json.get("rsp_id").is_none() {
            json["rsp_id"] = json!(0);
        }
    })
}
