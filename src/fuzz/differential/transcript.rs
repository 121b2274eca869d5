//! The comparable part of what was sent and received in one play of a case: without pings, pongs, times and closes by
//! the client.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::event::{Direction, FrameReport, ScenarioReport};
use crate::protocol::{MessageType, Pack, Way};

/// One play of a case.
pub struct Transcript<'p> {
    pub events: Vec<Event<'p>>,
    /// Whether frames are missing or cut off.
    pub partial: bool,
}

pub struct Event<'p> {
    pub actor: String,
    pub what: What<'p>,
    /// The text of the frame.
    pub text: String,
}

pub enum What<'p> {
    /// The actor sent something; `None` if it is not JSON, or not a message of the document.
    Sent(Option<Value>, Option<&'p MessageType>),
    /// The hub sent a message.
    Received(Value, &'p MessageType),
    /// The hub sent something that is not a message of the document.
    Unknown,
    Refused,
    /// The hub closed the connection.
    Closed,
}

impl<'p> Transcript<'p> {
    pub fn read(pack: &'p Pack, report: &ScenarioReport) -> Self {
        let mut partial = report.history_dropped > 0;
        let mut events = Vec::new();
        // A close at the very end may be the reply to the client's close.
        let ends = |frame: &FrameReport| matches!(frame.kind.as_str(), "close" | "end");
        let last = report.history.iter().rposition(|frame| !ends(frame)).unwrap_or(0);
        let mut left: Vec<u32> = Vec::new();
        for frame in &report.history[..report.history.len().min(last + 1)] {
            let json = || serde_json::from_str::<Value>(&frame.text).ok();
            let what = match (frame.direction, frame.kind.as_str()) {
                (_, "text" | "binary" | "frames") if frame.hash.is_some() => {
                    partial = true;
                    continue;
                }
                (Direction::Sent, "text") => {
                    let json = json();
                    let message = json.as_ref().and_then(|json| pack.recognise(json, Way::ToHub));
                    What::Sent(json, message)
                }
                (Direction::Sent, "frames") if frame.text.starts_with(r#"[{"opcode":"ping""#) => continue,
                (Direction::Sent, "frames" | "binary" | "bytes") => What::Sent(None, None),
                (Direction::Sent, "close" | "reset" | "fin") => {
                    left.push(frame.connection);
                    continue;
                }
                (Direction::Received, "text") => match json() {
                    Some(json) => match pack.recognise(&json, Way::FromHub) {
                        Some(message) => What::Received(json, message),
                        None => What::Unknown,
                    },
                    None => What::Unknown,
                },
                (Direction::Received, "binary" | "broken frame") => What::Unknown,
                (_, "refused" | "no upgrade") => What::Refused,
                (_, "close" | "end") if !left.contains(&frame.connection) => {
                    left.push(frame.connection);
                    What::Closed
                }
                _ => continue,
            };
            events.push(Event { actor: frame.actor.clone(), what, text: frame.text.clone() });
        }
        Self { events, partial }
    }

    /// Returns the positions of the events in which actors sent something, in order.
    pub fn sent(&self) -> Vec<usize> {
        let sent = |(at, event): (usize, &Event<'_>)| matches!(event.what, What::Sent(..)).then_some(at);
        self.events.iter().enumerate().filter_map(sent).collect()
    }
}

/// Names for the values that clients sent, including ids that they had received. Values sent at the same place of two
/// plays have the same name.
#[derive(Default)]
pub struct Names {
    /// The place at which each value was first sent.
    sent: HashMap<String, String>,
    /// The numbers that were sent, with the name of their member.
    numbers: HashSet<(String, String)>,
}

impl Names {
    pub fn of(events: &[Event<'_>]) -> Self {
        let mut names = Self::default();
        let sent = events.iter().filter_map(|event| match &event.what {
            What::Sent(Some(json), _) => Some(json),
            _ => None,
        });
        for (number, json) in sent.enumerate() {
            visit(json, "", "", &mut |value, place, member| {
                if value.is_number() {
                    names.numbers.insert((member.to_owned(), key(value)));
                } else if !is_trivial(value) {
                    names.sent.entry(key(value)).or_insert_with(|| format!("sent {number}{place}"));
                }
            });
        }
        names
    }

    /// Returns the place at which this value was first sent; `None` if it was not sent.
    pub fn origin(&self, value: &Value) -> Option<&str> {
        self.sent.get(&key(value)).map(String::as_str)
    }

    /// Whether the value contains a text that a client sent and that is not in a documented example, from which the hub
    /// may know it.
    pub fn concerns(&self, value: &Value, examples: &HashSet<String>) -> bool {
        let mut concerns = false;
        visit(value, "", "", &mut |inner, _, _| {
            let sent =
                inner.as_str().is_some_and(|text| !examples.contains(text)) && self.sent.contains_key(&key(inner));
            concerns |= sent;
        });
        concerns
    }

    /// Whether this number was sent in a member of this name.
    pub fn repeats(&self, member: &str, number: &Value) -> bool {
        self.numbers.contains(&(member.to_owned(), key(number)))
    }
}

/// Returns a text that is equal for equal values: members sorted, numbers and UUIDs in one notation.
fn key(value: &Value) -> String {
    match value {
        Value::String(text) if text.len() == 36 && text.split('-').count() == 5 => {
            Value::from(text.to_lowercase()).to_string()
        }
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), |number| number.to_string()),
        Value::Array(items) => format!("[{}]", items.iter().map(key).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            // `value` is already quoted; quoting it again would double its length at every level.
            let members: Vec<_> = members.into_iter().map(|(name, value)| format!("{name:?}:{}", key(value))).collect();
            format!("{{{}}}", members.join(","))
        }
        other => other.to_string(),
    }
}

/// Returns all texts in the documented examples of a pack.
pub fn examples(pack: &Pack) -> HashSet<String> {
    let mut texts = HashSet::new();
    for message in &pack.messages {
        visit(&message.template(), "", "", &mut |value, _, _| texts.extend(value.as_str().map(str::to_owned)));
    }
    texts
}

/// Calls `see` with every value inside, its pointer, and the name of its member; for an item, the name of the array's
/// member.
fn visit(value: &Value, place: &str, member: &str, see: &mut dyn FnMut(&Value, &str, &str)) {
    see(value, place, member);
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                visit(item, &format!("{place}/{index}"), member, see);
            }
        }
        Value::Object(members) => {
            for (name, inner) in members {
                visit(inner, &format!("{place}/{}", crate::syntax::matcher::escape(name)), name, see);
            }
        }
        _ => {}
    }
}

fn is_trivial(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

/// Whether a text begins like `2024-01-15T10:30:00Z`.
fn is_time(text: &str) -> bool {
    let form = "0000-00-00";
    text.len() >= form.len()
        && text.chars().zip(form.chars()).all(|(letter, form)| match form {
            '0' => letter.is_ascii_digit(),
            other => letter == other,
        })
}

/// Whether a text is prose or a time, which hubs may write differently.
pub fn is_prose(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.contains(' ') || is_time(text))
}
