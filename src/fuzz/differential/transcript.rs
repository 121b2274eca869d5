//! The comparable part of what was sent and received in one play of a case: without pings, pongs, times and closes by
//! the client.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::outcome::{FrameKind, FrameReport, HistoryDirection, ScenarioReport};
use crate::protocol::{FrameDirection, MessageType, Pack};

/// One play of a case.
pub struct Transcript<'p> {
    pub events: Vec<TranscriptEvent<'p>>,
    /// Whether frames are missing or cut off.
    pub partial: bool,
}

pub struct TranscriptEvent<'p> {
    pub actor: String,
    /// The number of the connection in the play.
    pub connection: u32,
    pub what: TranscriptEventKind<'p>,
    /// The text of the frame.
    pub text: String,
}

pub enum TranscriptEventKind<'p> {
    /// The actor sent something; `None` if it is not JSON, or not a message of the document.
    Sent(Option<Value>, Option<&'p MessageType>),
    /// The hub sent a message.
    Received(Value, &'p MessageType),
    /// The hub sent something that is not a message of the document.
    Unknown,
    Refused,
    /// The actor sent something that is not a whole text message: a binary message, or frames.
    Raw,
    /// The actor left.
    Left,
    /// The hub closed the connection.
    Closed,
}

impl<'p> Transcript<'p> {
    pub fn from_report(pack: &'p Pack, report: &ScenarioReport) -> Self {
        let mut partial = report.history_dropped > 0;
        let mut events = Vec::new();
        // A close at the very end may be the reply to the client's close.
        let ends = |frame: &FrameReport| matches!(frame.kind, FrameKind::Close | FrameKind::End);
        let last = report.history.iter().rposition(|frame| !ends(frame)).unwrap_or(0);
        let mut left: Vec<u32> = Vec::new();
        for frame in &report.history[..report.history.len().min(last + 1)] {
            let (actor, connection) = (frame.actor.clone(), frame.connection);
            let json = || serde_json::from_str::<Value>(&frame.text).ok();
            let sent = |text: &str| {
                let json = serde_json::from_str::<Value>(text).ok();
                let message = json.as_ref().and_then(|json| pack.recognise(json, FrameDirection::ToHub));
                TranscriptEventKind::Sent(json, message)
            };
            let what = match (frame.direction, frame.kind) {
                (_, FrameKind::Text | FrameKind::Binary | FrameKind::Frames) if frame.hash.is_some() => {
                    partial = true;
                    continue;
                }
                (HistoryDirection::Sent, FrameKind::Text) => sent(&frame.text),
                (HistoryDirection::Sent, FrameKind::Frames) if is_plain_ping(&frame.text) => continue,
                (HistoryDirection::Sent, FrameKind::Frames | FrameKind::Binary | FrameKind::Bytes) => {
                    if let Some(text) = text_in_fragments(&frame.text) {
                        events.push(TranscriptEvent { actor, connection, what: sent(&text), text });
                        continue;
                    }
                    TranscriptEventKind::Raw
                }
                (HistoryDirection::Sent, FrameKind::Close | FrameKind::Reset | FrameKind::Fin) => {
                    left.push(frame.connection);
                    TranscriptEventKind::Left
                }
                (HistoryDirection::Received, FrameKind::Text) => match json() {
                    Some(json) => match pack.recognise(&json, FrameDirection::FromHub) {
                        Some(message) => TranscriptEventKind::Received(json, message),
                        None => TranscriptEventKind::Unknown,
                    },
                    None => TranscriptEventKind::Unknown,
                },
                (HistoryDirection::Received, FrameKind::Binary | FrameKind::Broken) => TranscriptEventKind::Unknown,
                (_, FrameKind::Refused | FrameKind::NoUpgrade) => TranscriptEventKind::Refused,
                (_, FrameKind::Close | FrameKind::End) if !left.contains(&frame.connection) => {
                    left.push(frame.connection);
                    TranscriptEventKind::Closed
                }
                _ => continue,
            };
            events.push(TranscriptEvent { actor, connection, what, text: frame.text.clone() });
        }
        Self { events, partial }
    }

    /// Returns the positions of the events in which actors sent something, in order.
    pub fn sent_positions(&self) -> Vec<usize> {
        let sent = |(at, event): (usize, &TranscriptEvent<'_>)| {
            matches!(event.what, TranscriptEventKind::Sent(..) | TranscriptEventKind::Raw).then_some(at)
        };
        self.events.iter().enumerate().filter_map(sent).collect()
    }
}

/// Whether frames that were sent are one valid ping, which no hub answers with a message.
fn is_plain_ping(frames: &str) -> bool {
    const LONGEST: usize = 125;
    let frames: Option<Vec<Value>> = serde_json::from_str(frames).ok();
    let Some([Value::Object(frame)]) = frames.as_deref() else { return false };
    let data = frame.get("data").map_or(Some(""), Value::as_str);
    frame.get("opcode").and_then(Value::as_str) == Some("ping")
        && frame.keys().all(|key| matches!(key.as_str(), "opcode" | "data"))
        && data.is_some_and(|data| data.len() <= LONGEST)
}

/// Returns the text of a message in several frames, as a report lists these; `None` if they are anything else.
fn text_in_fragments(frames: &str) -> Option<String> {
    let frames: Vec<Value> = serde_json::from_str(frames).ok()?;
    let mut whole = String::new();
    for (index, frame) in frames.iter().enumerate() {
        let frame = frame.as_object()?;
        let known = ["opcode", "data", "fin"];
        let opcode = if index == 0 { "text" } else { "continuation" };
        let fin = frame.get("fin").and_then(Value::as_bool).unwrap_or(true);
        let named = frame.get("opcode").and_then(Value::as_str).unwrap_or("text");
        if !frame.keys().all(|key| known.contains(&key.as_str()))
            || named != opcode
            || fin != (index + 1 == frames.len())
        {
            return None;
        }
        whole.push_str(frame.get("data")?.as_str()?);
    }
    Some(whole)
}

/// Names for the values that clients sent, including ids that they had received. Values sent at the same place of two
/// plays have the same name.
#[derive(Default)]
pub struct SentValueNames {
    /// The position of the message in which each value was first sent, and the place in it.
    sent: HashMap<String, (usize, String)>,
    /// Who sent each value.
    senders: HashMap<String, HashSet<String>>,
    /// The numbers that were sent, with the name of their member.
    numbers: HashSet<(String, String)>,
}

impl SentValueNames {
    pub fn from_events(events: &[TranscriptEvent<'_>]) -> Self {
        let mut names = Self::default();
        let sent = events.iter().filter_map(|event| match &event.what {
            TranscriptEventKind::Sent(json, _) => Some((&event.actor, json.as_ref().unwrap_or(&Value::Null))),
            TranscriptEventKind::Raw => Some((&event.actor, &Value::Null)),
            _ => None,
        });
        for (number, (actor, json)) in sent.enumerate() {
            visit_values(json, "", "", &mut |value, place, member| {
                if value.is_number() {
                    names.numbers.insert((member.to_owned(), canonical_text(value)));
                } else if !is_trivial(value) {
                    let text = canonical_text(value);
                    if value.is_string() {
                        names.senders.entry(text.clone()).or_default().insert(actor.clone());
                    }
                    // The least place, whatever the order of the members.
                    let place = format!("sent {number}{place}");
                    let known = names.sent.entry(text).or_insert_with(|| (number, place.clone()));
                    if known.0 == number && place < known.1 {
                        known.1 = place;
                    }
                }
            });
        }
        names
    }

    /// Returns the place at which this value was first sent, before or after the hub sent it: what arrives on one
    /// connection while another sends may arrive on either side of it.
    pub fn origin(&self, value: &Value) -> Option<&str> {
        self.sent.get(&canonical_text(value)).map(|(_, place)| place.as_str())
    }

    /// Whether the value contains a name that a client other than `actor` sent. Names in documented examples do not count,
    /// because a hub may have them built in. A client's own names do not count either, because a hub may or may not return
    /// a broadcast to its sender.
    pub fn contains_text_of_others(&self, value: &Value, actor: &str, examples: &HashSet<String>) -> bool {
        let mut concerns = false;
        visit_values(value, "", "", &mut |inner, _, _| {
            let sent = inner.as_str().is_some_and(|text| is_unusual_name(text) && !examples.contains(text))
                && self.senders.get(&canonical_text(inner)).is_some_and(|by| by.iter().any(|by| by != actor));
            concerns |= sent;
        });
        concerns
    }

    /// Whether this number was sent in a member of this name.
    pub fn contains_number(&self, member: &str, number: &Value) -> bool {
        self.numbers.contains(&(member.to_owned(), canonical_text(number)))
    }
}

/// Returns a text that is equal for equal values: members sorted, numbers and UUIDs in one notation.
fn canonical_text(value: &Value) -> String {
    match value {
        Value::String(text) if text.len() == 36 && text.split('-').count() == 5 => {
            Value::from(text.to_lowercase()).to_string()
        }
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), |number| number.to_string()),
        Value::Array(items) => format!("[{}]", items.iter().map(canonical_text).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            // `value` is already quoted; quoting it again would double its length at every level.
            let members: Vec<_> =
                members.into_iter().map(|(name, value)| format!("{name:?}:{}", canonical_text(value))).collect();
            format!("{{{}}}", members.join(","))
        }
        other => other.to_string(),
    }
}

/// Returns all texts in the documented examples of a pack.
pub fn example_texts(pack: &Pack) -> HashSet<String> {
    let mut texts = HashSet::new();
    for message in &pack.messages {
        visit_values(&message.starting_value(), "", "", &mut |value, _, _| {
            texts.extend(value.as_str().map(str::to_owned))
        });
    }
    texts
}

/// Calls `see` with every value inside, its pointer, and the name of its member; for an item, the name of the array's
/// member.
fn visit_values(value: &Value, place: &str, member: &str, see: &mut dyn FnMut(&Value, &str, &str)) {
    see(value, place, member);
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                visit_values(item, &format!("{place}/{index}"), member, see);
            }
        }
        Value::Object(members) => {
            for (name, inner) in members {
                visit_values(inner, &format!("{place}/{}", crate::syntax::matcher::escape(name)), name, see);
            }
        }
        _ => {}
    }
}

/// Whether a text is long and mixed enough to be a name that no other case has.
fn is_unusual_name(text: &str) -> bool {
    const SHORTEST: usize = 8;
    text.len() >= SHORTEST
        && text.contains(|letter: char| letter.is_ascii_digit())
        && text.contains(|letter: char| letter.is_ascii_alphabetic())
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
pub fn is_time(text: &str) -> bool {
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
