//! What was said in one play of a case, as far as two hubs can be compared by it: who said which message, and what each
//! actor heard. Pings, pongs, times and goodbyes are left out.

use std::collections::HashMap;

use serde_json::Value;

use crate::event::{Direction, FrameReport, ScenarioReport};
use crate::pack::{MessageType, Pack, Way};

/// One play.
pub struct Transcript<'p> {
    pub events: Vec<Event<'p>>,
    /// Frames are missing, or longer than what was kept of them.
    pub partial: bool,
}

pub struct Event<'p> {
    pub actor: String,
    pub what: What<'p>,
    /// The frame as it was.
    pub text: String,
}

pub enum What<'p> {
    /// By the actor. `None` where it is no JSON, or no message.
    Said(Option<Value>, Option<&'p MessageType>),
    /// By the hub.
    Heard(Value, &'p MessageType),
    /// By the hub, and no message of the document.
    Unknown,
    Refused,
    /// The hub ended the connection.
    Closed,
}

impl<'p> Transcript<'p> {
    pub fn read(pack: &'p Pack, report: &ScenarioReport) -> Self {
        let mut partial = report.history_dropped > 0;
        let mut events = Vec::new();
        // A close that nothing follows may answer the goodbye of whoever is at the end.
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
                    What::Said(json, message)
                }
                (Direction::Sent, "frames") if frame.text.starts_with(r#"[{"opcode":"ping""#) => continue,
                (Direction::Sent, "frames" | "binary" | "bytes") => What::Said(None, None),
                (Direction::Sent, "close" | "reset" | "fin") => {
                    left.push(frame.connection);
                    continue;
                }
                (Direction::Received, "text") => match json() {
                    Some(json) => match pack.recognise(&json, Way::FromHub) {
                        Some(message) => What::Heard(json, message),
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

    /// Positions of what was said, in order.
    pub fn said(&self) -> Vec<usize> {
        let said = |(at, event): (usize, &Event<'_>)| matches!(event.what, What::Said(..)).then_some(at);
        self.events.iter().enumerate().filter_map(said).collect()
    }
}

/// Names for what has no value of its own: ids, and whatever we said ourselves. What was said or heard at the same place of
/// two plays has the same name, whatever it is.
#[derive(Default)]
pub struct Names(HashMap<String, String>);

/// A text shorter than this is no id.
const SHORTEST_ID: usize = 6;

impl Names {
    pub fn of(events: &[Event<'_>]) -> Self {
        let mut names = Self::default();
        let said = events.iter().filter_map(|event| match &event.what {
            What::Said(Some(json), _) => Some(json),
            _ => None,
        });
        for (number, json) in said.enumerate() {
            names.take(json, &format!("said {number}"), &|_| true);
        }
        let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
        for event in events {
            let What::Heard(json, message) = &event.what else { continue };
            let count = counts.entry((&event.actor, &message.name)).or_default();
            *count += 1;
            let place = format!("heard by {} as {} {count}", event.actor, message.name);
            names.take(json, &place, &|value| value.as_str().is_some_and(is_id));
        }
        names
    }

    fn take(&mut self, value: &Value, place: &str, counts: &dyn Fn(&Value) -> bool) {
        let empty = match value {
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(members) => members.is_empty(),
            Value::Null | Value::Bool(_) | Value::Number(_) => true,
        };
        if !empty && counts(value) {
            self.0.entry(value.to_string()).or_insert_with(|| place.to_owned());
        }
        match value {
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(index, item)| self.take(item, &format!("{place}/{index}"), counts));
            }
            Value::Object(members) => {
                members.iter().for_each(|(name, member)| self.take(member, &format!("{place}/{name}"), counts));
            }
            _ => {}
        }
    }

    /// Where this very value was first.
    pub fn name(&self, value: &Value) -> Option<&str> {
        self.0.get(&value.to_string()).map(String::as_str)
    }
}

/// A text that looks like the name that a machine gives to something.
fn is_id(text: &str) -> bool {
    text.len() >= SHORTEST_ID
        && text.chars().any(|letter| letter.is_ascii_digit())
        && text.chars().all(|letter| letter.is_ascii_graphic())
        && !is_time(text)
}

/// `2024-01-15T10:30:00Z`, or the beginning of it.
pub fn is_time(text: &str) -> bool {
    let form = "0000-00-00";
    text.len() >= form.len()
        && text.chars().zip(form.chars()).all(|(letter, form)| match form {
            '0' => letter.is_ascii_digit(),
            other => letter == other,
        })
}
