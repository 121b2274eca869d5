//! Proposes deviations: entries behind which a run would have gone on.
//!
//! An expected message that never came may have another form, or the hub does not send it at all. What came in its place,
//! and fits no message of the pack, shows which.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::parse::CONNECTION;
use super::pointer;
use crate::protocol::{MessageType, Pack};

/// Something that a conversation expected and did not get, though the hub could be reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Missed {
    pub what: MissedKind,
    /// The rules of the step that expected it.
    pub rules: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum MissedKind {
    /// A message, by its index in the pack.
    Message {
        message: usize,
        /// The message that the client had sent last; `None`: it had only connected.
        after: Option<usize>,
        /// Received messages that are not documented and no step expected.
        instead: Vec<Value>,
        /// Received messages of this kind that were not as expected.
        near: Vec<Value>,
    },
    /// An upgrade: the hub refused it with this answer.
    Upgrade { status: u64, answer: String },
}

/// An entry for a target file that the run could go on behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// The entry, with a reason to fill in.
    pub entry: Value,
    /// Whether a run can go on with it as it is: it has no value that only the user knows.
    pub complete: bool,
    /// The message that it makes up for; `None` for an upgrade.
    pub message: Option<usize>,
}

/// The reason of a proposed entry, for its author to fill in.
pub const REASON: &str = "TODO: why does the hub depart here?";
/// The value of a header or query that only the user knows.
pub const UNKNOWN: &str = "TODO";

/// A missed message: what was missed, the message sent before, and what came instead.
type Occasion<'a> = (&'a Missed, Option<usize>, &'a [Value]);

/// Returns the proposals for what was missed. `received` are the messages that came at least once.
pub fn propose(pack: &Pack, missed: &[&Missed], received: &BTreeSet<usize>) -> Vec<Proposal> {
    let mut by_message: BTreeMap<usize, Vec<Occasion<'_>>> = BTreeMap::new();
    let mut near_by_message: BTreeMap<usize, Vec<(&Missed, &[Value])>> = BTreeMap::new();
    let mut proposals = Vec::new();
    for one in missed {
        match &one.what {
            MissedKind::Message { message, after, instead, near } => {
                by_message.entry(*message).or_default().push((one, *after, instead));
                near_by_message.entry(*message).or_default().push((one, near));
            }
            MissedKind::Upgrade { status, answer } => proposals.extend(upgrade(*status, answer)),
        }
    }
    let mut taken: Vec<Map<String, Value>> = Vec::new();
    for (message, all) in by_message.into_iter().filter(|(message, _)| !received.contains(message)) {
        let rules: BTreeSet<&String> = all.iter().flat_map(|(missed, ..)| &missed.rules).collect();
        let frames = all.iter().flat_map(|(.., instead)| *instead);
        let best = frames.filter_map(|frame| form(pack, message, frame)).max_by_key(|form| form.score);
        let entry = match best {
            Some(Form { entry, .. }) if !taken.contains(&entry) => {
                taken.push(entry.clone());
                entry
            }
            Some(_) => continue,
            None => absent(pack, message, all.iter().map(|(_, after, _)| *after)),
        };
        proposals.push(proposal(message, entry, &rules));
    }
    for (message, all) in near_by_message {
        let rules: BTreeSet<&String> = all.iter().flat_map(|(missed, _)| &missed.rules).collect();
        let found = all.iter().flat_map(|(_, near)| *near).find_map(|frame| member(pack, message, frame));
        proposals.extend(found.map(|entry| proposal(message, entry, &rules)));
    }
    let mut different: Vec<Proposal> = Vec::new();
    for proposal in proposals {
        if !different.iter().any(|known| known.entry == proposal.entry) {
            different.push(proposal);
        }
    }
    different
}

fn proposal(message: usize, mut entry: Map<String, Value>, rules: &BTreeSet<&String>) -> Proposal {
    if !rules.is_empty() {
        entry.insert("rules".to_owned(), json!(rules));
    }
    entry.insert("reason".to_owned(), Value::from(REASON));
    Proposal { entry: Value::Object(entry), complete: true, message: Some(message) }
}

/// Another form of a message, and how sure it is: higher is surer.
struct Form {
    entry: Map<String, Value>,
    score: usize,
}

/// Returns the form that a received message would be of an expected one; `None` where it resembles it in nothing.
fn form(pack: &Pack, message: usize, frame: &Value) -> Option<Form> {
    let expected = &pack.messages[message];
    let frame = frame.as_object()?;
    let literals = expected.matcher.literals();
    // Members that the example has beside those by which the message is recognised.
    let example = expected.template();
    let others = example.as_object().into_iter().flatten().filter(|(name, _)| !literals.contains_key(*name));
    let (mut shared, mut all) = (0, 0);
    for (name, _) in others {
        all += 1;
        shared += usize::from(frame.contains_key(name));
    }
    let alike = (shared * 100_usize).checked_div(all).unwrap_or(50);
    // The member that tells messages apart has another name.
    for (name, value) in &literals {
        let elsewhere = frame.iter().find(|(other, found)| *other != name && *found == value);
        if let (None, Some((other, _)), true) = (frame.get(name), elsewhere, value.is_string()) {
            let entry = json!({ "member": pointer(name), "renamed": pointer(other) });
            return Some(Form { entry: members(entry), score: 200 + alike });
        }
    }
    let like: Map<String, Value> = literals
        .keys()
        .filter_map(|name| Some((name.clone(), frame.get(name).filter(|v| !v.is_object())?.clone())))
        .collect();
    let same = literals.iter().filter(|(name, value)| like.get(*name) == Some(value)).count();
    if like.len() < literals.len() || like.is_empty() || same == literals.len() {
        return None;
    }
    // A message that has no member in common with the expected one, and another name, is something else.
    let resembles = literals.iter().any(|(name, value)| match (value.as_str(), like[name].as_str()) {
        (Some(documented), Some(found)) => strsim::jaro_winkler(documented, found) > 0.7,
        _ => false,
    });
    if alike < 40 && same == 0 && !resembles {
        return None;
    }
    let entry = json!({ "message": expected.name, "instead": like });
    Some(Form { entry: members(entry), score: alike + same * 50 + usize::from(resembles) * 50 })
}

/// Returns the entry for a member of a message that has another name or type than in its example; `None` where it is not
/// clear which.
fn member(pack: &Pack, message: usize, frame: &Value) -> Option<Map<String, Value>> {
    let expected = &pack.messages[message];
    let (example, frame) = (expected.template(), frame.as_object()?);
    let documented = example.as_object()?;
    let absent: Vec<_> = documented.iter().filter(|(name, _)| !frame.contains_key(*name)).collect();
    let unknown: Vec<_> = frame.iter().filter(|(name, _)| !documented.contains_key(*name)).collect();
    let kind = |value: &Value| std::mem::discriminant(value);
    // Of several, the names tell which belong together.
    let renamed = absent
        .iter()
        .flat_map(|(name, value)| unknown.iter().map(move |(other, found)| (*name, *value, *other, *found)))
        .filter(|(_, value, _, found)| kind(value) == kind(found))
        .map(|(name, _, other, _)| (strsim::jaro_winkler(&plain(name), &plain(other)), name, other))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, ..)| *likeness > 0.75 || (absent.len() == 1 && unknown.len() == 1));
    if let Some((_, name, other)) = renamed {
        return Some(members(json!({ "message": expected.name, "member": pointer(name), "renamed": pointer(other) })));
    }
    documented.iter().find_map(|(name, value)| {
        let converters = match (value, frame.get(name)?) {
            (Value::Number(_), Value::String(text)) if text.parse::<i64>().is_ok() => {
                ("${value | int}", "${value | string}")
            }
            (Value::String(_), Value::Number(_)) => ("${value | string}", "${value | int}"),
            _ => return None,
        };
        let (from_hub, to_hub) = converters;
        let entry =
            json!({ "message": expected.name, "member": pointer(name), "from_hub": from_hub, "to_hub": to_hub });
        Some(members(entry))
    })
}

/// Returns a name without case and separators, so that `jobId` and `job_id` are equal.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Returns the entry for a message that never comes.
fn absent(pack: &Pack, message: usize, after: impl Iterator<Item = Option<usize>>) -> Map<String, Value> {
    let mut times: BTreeMap<Option<usize>, usize> = BTreeMap::new();
    after.for_each(|after| *times.entry(after).or_default() += 1);
    let most = times.into_iter().max_by_key(|(_, times)| *times).and_then(|(after, _)| after);
    let name = |message: usize| pack.messages[message].name.clone();
    let mut entry = json!({
        "message": name(message),
        "absent": true,
        "after": most.map_or_else(|| CONNECTION.to_owned(), name),
    });
    if let Some(assume) =
        most.map(|request| answered(&pack.messages[message], &pack.messages[request])).filter(|m| !m.is_empty())
    {
        entry["assume"] = Value::Object(assume);
    }
    members(entry)
}

/// Returns the members that an answer has in common with its request, as expressions over the request.
fn answered(answer: &MessageType, request: &MessageType) -> Map<String, Value> {
    let (answer_example, request) = (answer.template(), request.template());
    let literals = answer.matcher.literals();
    let names = answer_example.as_object().into_iter().flatten().map(|(name, _)| name);
    let common = names.filter(|name| request.get(name).is_some() && !literals.contains_key(*name));
    common.map(|name| (name.clone(), Value::from(format!("${{request.{name}}}")))).collect()
}

/// Returns the entry that a refused upgrade may need: its values only the user knows.
fn upgrade(status: u64, answer: &str) -> Option<Proposal> {
    if !matches!(status, 400 | 401 | 403 | 426) {
        return None;
    }
    // A header that the answer names.
    let words = answer.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let named = words.filter(|word| word.len() > 2).find(|word| {
        let word = word.to_ascii_lowercase();
        word.starts_with("x-") || word == "authorization" || word.ends_with("-token") || word.ends_with("-key")
    });
    let header = named.unwrap_or("Authorization");
    let mut headers = Map::new();
    headers.insert(header.to_owned(), Value::from(UNKNOWN));
    let entry = json!({ "upgrade": { "headers": headers }, "reason": REASON });
    Some(Proposal { entry, complete: false, message: None })
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// Returns entries as the text of a target file.
pub fn to_toml(entries: &[&Value]) -> String {
    let mut text = String::new();
    for entry in entries {
        let table: toml::Table =
            entry.as_object().into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), toml(v)?))).collect();
        text.push_str("[[deviation]]\n");
        // Values first: a table in braces stays on its line, so that an entry can be moved as a whole.
        for (name, value) in &table {
            text.push_str(&format!("{name} = {value}\n"));
        }
        text.push('\n');
    }
    text
}

fn toml(value: &Value) -> Option<toml::Value> {
    toml::Value::try_from(value).ok()
}
