//! Writes the recorded conversation as a scenario. Values that change from run to run are not repeated: a client
//! creates new ids and times, and uses the ones it receives.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::super::scenarios::{path_expression, titled_scenario};
use super::connections::RecordedConnections;
use super::{RecordedFrame, is_time, is_uuid, scalar_members};
use crate::protocol::{FrameDirection, Pack};
use crate::scenario::template::escape_texts;
use crate::syntax::matcher::{child, member_pointer, members_of};

/// The most frames that are replayed, and the most connections.
const MAX_FRAMES: usize = 200;
const MAX_CONNECTIONS: usize = 8;
/// The scenario does not wait for frames of the hub that came this long after the client's last frame, in milliseconds.
const MAX_WAIT_MS: i64 = 4_000;
/// A number is taken for a time if it is this close to the time of its frame, in milliseconds.
const MAX_TIME_DIFFERENCE_MS: i64 = 86_400_000;
/// The least length in bytes at which equal texts of hub and client are not a coincidence.
const MIN_TEXT_LENGTH: usize = 6;

/// A step of the scenario, before it is written.
struct PlannedStep<'a> {
    frame: &'a RecordedFrame,
    who: String,
    message: Option<&'a str>,
}

/// Returns the scenario, whose expectations prove `rule`.
pub fn replay_scenario(
    pack: &Pack,
    frames: &[RecordedFrame],
    recorded: &RecordedConnections,
    rule: &str,
) -> Map<String, Value> {
    let mut connections: Vec<u64> = Vec::new();
    for frame in frames {
        if connections.len() < MAX_CONNECTIONS && !connections.contains(&frame.connection) {
            connections.push(frame.connection);
        }
    }
    let who = |connection: u64| {
        let index = connections.iter().position(|known| *known == connection)?;
        Some(if connections.len() == 1 { "client".to_owned() } else { format!("client_{}", index + 1) })
    };
    let planned: Vec<PlannedStep<'_>> = frames
        .iter()
        .filter_map(|frame| {
            let way = if frame.to_hub { FrameDirection::ToHub } else { FrameDirection::FromHub };
            let message = pack.recognise(&frame.value, way).filter(|message| !message.abstract_);
            Some(PlannedStep {
                frame,
                who: who(frame.connection)?,
                message: message.map(|message| message.name.as_str()),
            })
        })
        .take(MAX_FRAMES)
        .collect();
    let origins = ValueOrigins::from_steps(&planned);
    let mut steps: Vec<Value> = Vec::new();
    let mut joined: BTreeSet<&str> = BTreeSet::new();
    let mut waiting: BTreeMap<&str, i64> = BTreeMap::new();
    let mut last: Option<(&str, &str)> = None;
    for (index, one) in planned.iter().enumerate() {
        let time = one.frame.time;
        if joined.insert(&one.who) {
            steps.push(json!({ format!("{} joins", one.who): null }));
            waiting.insert(&one.who, time);
        }
        let named = origins.used.contains(&index);
        let mut step = Map::new();
        if one.frame.to_hub {
            waiting.insert(&one.who, time);
            last = None;
            step = send_step(pack, one, index, &origins);
        } else {
            let late = waiting.get(one.who.as_str()).is_some_and(|since| time - since > MAX_WAIT_MS);
            let Some(message) = one.message else { continue };
            let conditions = origins.repeated_values(&planned, index);
            let again = conditions.is_empty() && last == Some((&one.who, message));
            if !named && (late || again) {
                continue;
            }
            last = Some((&one.who, message));
            step.insert(format!("{} expects", one.who), json!(message));
            if !conditions.is_empty() {
                step.insert("where".to_owned(), Value::Object(conditions));
            }
            step.insert("rules".to_owned(), json!([rule]));
        }
        if named {
            step.insert("as".to_owned(), json!(frame_name(one.frame, index)));
        }
        steps.push(Value::Object(step));
    }
    let mut root = titled_scenario("The hub answers as it did when it was recorded".to_owned(), steps);
    if connections.len() > 1 || recorded.channels().len() > 1 {
        let actors = connections.iter().filter_map(|number| Some((who(*number)?, json!(recorded.role(*number)))));
        root.shift_insert(1, "actors".to_owned(), Value::Object(actors.collect()));
    }
    root
}

fn frame_name(frame: &RecordedFrame, index: usize) -> String {
    format!("{}_{}", if frame.to_hub { "sent" } else { "received" }, index + 1)
}

/// The origins of the values of frames.
struct ValueOrigins {
    /// The expression for a value of a frame to the hub, by the index of the frame and the pointer.
    values: BTreeMap<(usize, String), String>,
    /// Texts that a client creates, with the frame and the pointer of their first use.
    made: BTreeMap<String, (usize, String)>,
    /// Frames that need a name.
    used: BTreeSet<usize>,
}

impl ValueOrigins {
    fn from_steps(planned: &[PlannedStep<'_>]) -> Self {
        let mut origins = Self { values: BTreeMap::new(), made: BTreeMap::new(), used: BTreeSet::new() };
        let mut received: BTreeMap<String, (usize, String)> = BTreeMap::new();
        let mut sent: BTreeSet<String> = BTreeSet::new();
        for (index, one) in planned.iter().enumerate() {
            for (pointer, value) in scalar_members(&one.frame.value) {
                let key = value.to_string();
                if !one.frame.to_hub {
                    let distinct = value.as_str().is_some_and(|text| text.len() >= MIN_TEXT_LENGTH)
                        || value.as_u64().is_some_and(|number| number >= 1000);
                    if distinct && one.message.is_some() && !sent.contains(&key) {
                        received.entry(key).or_insert((index, pointer));
                    }
                    continue;
                }
                let from = received.get(&key).or_else(|| origins.made.get(&key)).cloned();
                let written = match (from, generating_function(value, one.frame.time)) {
                    (Some((from, place)), _) => {
                        origins.used.insert(from);
                        Some(path_expression(&frame_name(planned[from].frame, from), &place))
                    }
                    (None, Some(call)) => {
                        if call == "uuid()" {
                            origins.made.insert(key.clone(), (index, pointer.clone()));
                        }
                        Some(call.to_owned())
                    }
                    (None, None) => None,
                };
                sent.insert(key);
                if let Some(written) = written {
                    origins.values.insert((index, pointer), written);
                }
            }
        }
        for (index, one) in planned.iter().enumerate().filter(|(_, one)| !one.frame.to_hub && one.message.is_some()) {
            for (_, value) in scalar_members(&one.frame.value) {
                if let Some((from, _)) = origins.made.get(&value.to_string()).filter(|(from, _)| *from < index) {
                    origins.used.insert(*from);
                }
            }
        }
        origins
    }

    /// Returns the condition on values that the hub repeats: ids that a client creates anew, or ids as the client sent
    /// them.
    fn repeated_values(&self, planned: &[PlannedStep<'_>], index: usize) -> Map<String, Value> {
        let frame = planned[index].frame;
        let mut conditions = Map::new();
        for (pointer, value) in scalar_members(&frame.value) {
            let equal = match self.made.get(&value.to_string()).filter(|(from, _)| *from < index) {
                Some((from, place)) => {
                    Some(json!(format!("${{{}}}", path_expression(&frame_name(planned[*from].frame, *from), place))))
                }
                None => {
                    let member = pointer.rsplit('/').next().unwrap_or_default();
                    let earlier = planned[..index].iter().map(|one| one.frame);
                    let mut earlier = earlier.filter(|one| one.to_hub && one.connection == frame.connection);
                    let sent = is_id_name(member)
                        && matches!(value, Value::String(_) | Value::Number(_))
                        && earlier.any(|one| {
                            scalar_members(&one.value)
                                .iter()
                                .any(|(place, sent)| *sent == value && place.rsplit('/').next() == Some(member))
                        });
                    sent.then(|| escape_texts(value))
                }
            };
            if let Some(equal) = equal {
                conditions.insert(pointer, json!({ "const": equal }));
            }
        }
        conditions
    }
}

/// Whether the name of a member suggests an id.
fn is_id_name(member: &str) -> bool {
    let member = member.to_ascii_lowercase();
    member.ends_with("id") || matches!(member.as_str(), "ref" | "nonce" | "correlation")
}

/// Returns the function that creates a value that changes from run to run; `None` for other values.
fn generating_function(value: &Value, time: i64) -> Option<&'static str> {
    match value {
        Value::String(text) if is_uuid(text) => Some("uuid()"),
        Value::String(text) if is_time(text) => Some("now_iso()"),
        Value::Number(number) => {
            let number = number.as_i64()?;
            if number.checked_sub(time)?.abs() < MAX_TIME_DIFFERENCE_MS {
                Some("now_ms()")
            } else {
                (number.checked_mul(1000)?.checked_sub(time)?.abs() < MAX_TIME_DIFFERENCE_MS).then_some("now_s()")
            }
        }
        _ => None,
    }
}

/// Returns the step that sends a recorded frame, as changes to the example of its message.
fn send_step(pack: &Pack, one: &PlannedStep<'_>, index: usize, origins: &ValueOrigins) -> Map<String, Value> {
    let mut target = escape_texts(&one.frame.value);
    let mut changed: BTreeSet<String> = BTreeSet::new();
    for (pointer, _) in scalar_members(&one.frame.value) {
        if let Some(written) = origins.values.get(&(index, pointer.clone()))
            && let Some(place) = target.pointer_mut(&pointer)
        {
            *place = json!(format!("${{{written}}}"));
            changed.insert(pointer.split('/').nth(1).unwrap_or_default().to_owned());
        }
    }
    let template = one.message.and_then(|name| pack.message(name)).map(|message| message.starting_value());
    let mut step = Map::new();
    match (one.message, template) {
        (Some(message), Some(template))
            if template.is_object() && target.is_object() || template.is_array() && target.is_array() =>
        {
            step.insert(format!("{} sends", one.who), json!(message));
            let differs = |name: &str, value: &Value| {
                child(&template, name).map(escape_texts).as_ref() != Some(value)
                    || changed.contains(&crate::syntax::matcher::escape(name))
            };
            let with: Map<String, Value> = members_of(&target)
                .into_iter()
                .filter(|(name, value)| differs(name, value))
                .map(|(name, value)| (member_pointer(&name), value.clone()))
                .collect();
            let gone = members_of(&template).into_iter().filter(|(name, _)| child(&target, name).is_none());
            let without: Vec<String> = gone.map(|(name, _)| member_pointer(&name)).collect();
            if !with.is_empty() {
                step.insert("with".to_owned(), Value::Object(with));
            }
            if !without.is_empty() {
                step.insert("without".to_owned(), json!(without));
            }
        }
        _ => {
            let text = escape_texts(&json!(one.frame.value.to_string()));
            step.insert(format!("{} sends raw", one.who), json!({ "text": text }));
        }
    }
    step
}
