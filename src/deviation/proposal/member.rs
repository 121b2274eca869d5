//! Proposes entries for members that are missing or have another name, type or value than documented.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::evidence::DeviationEvidence;
use super::into_members;
use crate::deviation::place::{first_item_pointer, general_pointer};
use crate::protocol::schema::{SchemaViolation, SchemaViolationKind};
use crate::protocol::{MessageType, Pack};
use crate::syntax::matcher::{member_pointer, unescape};

/// Returns the entries for members of a message that are missing or have another name, type or value than documented;
/// none if the difference is ambiguous. `missed`: whether a step did not find the expected content in the message, even
/// if its schema allows the message.
pub(super) fn propose_member_changes(
    pack: &Pack,
    message: usize,
    frame: &Value,
    missed: bool,
    evidence: &DeviationEvidence,
) -> Vec<Map<String, Value>> {
    let expected = &pack.messages[message];
    let example = expected.starting_value();
    let mut objects = Vec::new();
    collect_objects(expected, "", &example, frame, &mut objects);
    let violations = expected.schema.violations(frame);
    let broken: Vec<(String, &SchemaViolation)> =
        violations.iter().map(|one| (general_pointer(&expected.schema, frame, &one.path), one)).collect();
    let lacks = |place: &str, name: &str| {
        let absent =
            |kind: &SchemaViolationKind| matches!(kind, SchemaViolationKind::Absence { member } if member == name);
        broken.iter().any(|(at, violation)| at == place && absent(&violation.kind))
    };
    let breaks = |place: &str| broken.iter().any(|(at, _)| at == place);
    // An absent optional member is unrelated to unknown members, unless only case or separators differ.
    let belongs = |place: &str, name: &str, likeness: f64, only: bool| {
        likeness == 1.0
            || (likeness > MIN_NAME_SIMILARITY && (missed || lacks(place, name)))
            || (only && missed && lacks(place, name))
    };
    let mut found: Vec<Value> = objects.iter().flat_map(|beside| rename_entries(beside, belongs)).collect();
    found.extend(objects.iter().flat_map(|beside| conversion_entries(expected, beside, breaks)));
    if found.is_empty() && missed {
        let first = objects.iter().find_map(|beside| {
            rename_entries(beside, |_, _, likeness, only| likeness > MIN_NAME_SIMILARITY || only).into_iter().next()
        });
        found.extend(first.or_else(|| {
            objects.iter().find_map(|beside| conversion_entries(expected, beside, |_| true).into_iter().next())
        }));
    }
    if found.is_empty() {
        found.extend(
            violations.iter().find_map(|violation| violation_entry(pack, expected, frame, violation, evidence)),
        );
    }
    // Several items of one list lead to the same entry.
    let mut entries: Vec<Map<String, Value>> = Vec::new();
    for entry in found.into_iter().map(|entry| limit_to_message(expected, entry, evidence)) {
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    entries
}

/// Adds the message to an entry about a member, unless the entry holds for all messages.
fn limit_to_message(message: &MessageType, entry: Value, evidence: &DeviationEvidence) -> Map<String, Value> {
    // A hub that never uses the documented name has renamed the member in all messages, including those it reads.
    let name = entry["member"].as_str().and_then(|place| place.strip_prefix('/')).unwrap_or_default();
    let everywhere =
        entry.get("renamed").is_some() && !name.contains('/') && !evidence.members.contains(&unescape(name));
    let mut all = if everywhere { Map::new() } else { into_members(json!({ "message": message.name })) };
    all.extend(into_members(entry));
    all
}

/// Returns the entry that makes a member as a check needs it, if the message has the member with a similar undocumented
/// name or with another type.
pub(super) fn propose_fitting_member(
    message: &MessageType,
    place: &str,
    json: &Value,
    evidence: &DeviationEvidence,
) -> Option<Map<String, Value>> {
    let (object, name) = place.rsplit_once('/')?;
    let received = json.pointer(object)?.as_object()?;
    let member = general_pointer(&message.schema, json, place);
    let entry = if let Some(value) = json.pointer(place) {
        let example = message.starting_value();
        let documented = example.pointer(&first_item_pointer(&member))?;
        conversion_entry(message, &member, documented, value)?
    } else {
        let documented = message.schema.member_names(&member_path(object));
        let others = received.keys().filter(|other| !documented.contains(other));
        let alike =
            others.map(|other| (strsim::jaro_winkler(&normalise_name(&unescape(name)), &normalise_name(other)), other));
        let (_, other) = alike.filter(|(likeness, _)| *likeness > 0.85).max_by(|a, b| a.0.total_cmp(&b.0))?;
        json!({ "member": member, "renamed": format!("{}{}", general_pointer(&message.schema, json, object), member_pointer(other)) })
    };
    Some(limit_to_message(message, entry, evidence))
}

/// Returns an entry for each member that several messages must have and that this hub never sends, once per message.
pub(super) fn propose_missing_members(pack: &Pack, evidence: &DeviationEvidence) -> Vec<(usize, Map<String, Value>)> {
    let mut messages_of: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for (message, frame) in &evidence.broken {
        for violation in pack.messages[*message].schema.violations(frame).into_iter().filter(|one| one.path.is_empty())
        {
            match violation.kind {
                SchemaViolationKind::Absence { member } if !evidence.members.contains(&member) => {
                    messages_of.entry(member).or_default().insert(*message);
                }
                _ => {}
            }
        }
    }
    let several = messages_of.into_iter().filter(|(_, messages)| messages.len() > 1);
    let entries = several.flat_map(|(member, messages)| {
        let entry =
            into_members(json!({ "member": member_pointer(&member), "missing": true, "direction": "from-hub" }));
        messages.into_iter().map(move |message| (message, entry.clone()))
    });
    entries.collect()
}

/// An object of a received message, paired with the same object of the example.
struct ComparedObject<'a> {
    /// A JSON pointer, with `*` for every item of a list.
    place: String,
    documented: &'a Map<String, Value>,
    received: &'a Map<String, Value>,
}

/// The most items of a list that are compared with the example.
const MAX_ITEMS: usize = 10;

/// Collects the object at a place and the objects inside it whose members the schema names; others may have any
/// members.
fn collect_objects<'a>(
    expected: &MessageType,
    place: &str,
    documented: &'a Value,
    received: &'a Value,
    into: &mut Vec<ComparedObject<'a>>,
) {
    match (documented, received) {
        (Value::Object(documented), Value::Object(received)) => {
            if !place.is_empty() && expected.schema.member_names(&member_path(place)).is_empty() {
                return;
            }
            into.push(ComparedObject { place: place.to_owned(), documented, received });
            for (name, value) in documented {
                if let Some(received) = received.get(name) {
                    collect_objects(expected, &format!("{place}{}", member_pointer(name)), value, received, into);
                }
            }
        }
        (Value::Array(documented), Value::Array(received)) => {
            let own = |index: usize| expected.schema.has_own_element(&member_path(place), index);
            if (0..documented.len()).any(own) {
                for (index, (documented, received)) in documented.iter().zip(received).enumerate() {
                    if own(index) {
                        collect_objects(expected, &format!("{place}/{index}"), documented, received, into);
                    }
                }
                return;
            }
            let Some(documented) = documented.first() else { return };
            for received in received.iter().take(MAX_ITEMS) {
                collect_objects(expected, &format!("{place}/*"), documented, received, into);
            }
        }
        _ => {}
    }
}

/// Names may mean the same member if their similarity is above this.
const MIN_NAME_SIMILARITY: f64 = 0.75;

/// Returns the entries for members that have another name. `belongs` decides whether an unknown member is the
/// documented one, given its place, its name, the similarity of the names, and whether there is only one candidate.
fn rename_entries(
    ComparedObject { place, documented, received }: &ComparedObject<'_>,
    belongs: impl Fn(&str, &str, f64, bool) -> bool,
) -> Vec<Value> {
    let absent: Vec<_> = documented.iter().filter(|(name, _)| !received.contains_key(*name)).collect();
    let unknown: Vec<_> = received.iter().filter(|(name, _)| !documented.contains_key(*name)).collect();
    let kind = |value: &Value| std::mem::discriminant(value);
    // If there are several, similar names belong together.
    let mut pairs: Vec<(f64, &String, &String)> = absent
        .iter()
        .flat_map(|(name, value)| unknown.iter().map(move |(other, found)| (*name, *value, *other, *found)))
        .filter(|(_, value, _, found)| kind(value) == kind(found))
        .map(|(name, _, other, _)| (strsim::jaro_winkler(&normalise_name(name), &normalise_name(other)), name, other))
        .filter(|(likeness, name, _)| belongs(place, name, *likeness, absent.len() == 1 && unknown.len() == 1))
        .collect();
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut entries = Vec::new();
    let mut used: Vec<&String> = Vec::new();
    for (_, name, other) in pairs {
        if !used.contains(&name) && !used.contains(&other) {
            used.extend([name, other]);
            let at = |name: &str| format!("{place}{}", member_pointer(name));
            entries.push(json!({ "member": at(name), "renamed": at(other) }));
        }
    }
    entries
}

/// Returns the entries for members that have another type, at places where `breaks` returns true.
fn conversion_entries(
    expected: &MessageType,
    beside: &ComparedObject<'_>,
    breaks: impl Fn(&str) -> bool,
) -> Vec<Value> {
    let entry = |(name, value): (&String, &Value)| {
        let member = format!("{}{}", beside.place, member_pointer(name));
        breaks(&member).then(|| conversion_entry(expected, &member, value, beside.received.get(name)?)).flatten()
    };
    beside.documented.iter().filter_map(entry).collect()
}

/// Returns the entry for a member whose value has another type than in the example; `None` if no conversion is known.
fn conversion_entry(message: &MessageType, member: &str, documented: &Value, received: &Value) -> Option<Value> {
    let (from_hub, to_hub) = match (documented, received) {
        (Value::Number(example), Value::String(text)) if text.parse::<f64>().is_ok_and(f64::is_finite) => {
            // The number may have a fraction in other messages.
            let whole =
                !example.is_f64() && text.parse::<i64>().is_ok() && !message.schema.is_any_number(&member_path(member));
            (if whole { "${value | int}" } else { "${value | float}" }, "${value | string}")
        }
        (Value::String(_), Value::Number(_)) => ("${value | string}", "${value | int}"),
        _ => return None,
    };
    Some(json!({ "member": member, "from_hub": from_hub, "to_hub": to_hub }))
}

/// Returns the entry for a member that is missing or whose value is spelled differently.
fn violation_entry(
    pack: &Pack,
    expected: &MessageType,
    frame: &Value,
    violation: &SchemaViolation,
    evidence: &DeviationEvidence,
) -> Option<Value> {
    let place = general_pointer(&expected.schema, frame, &violation.path);
    let mut entry = match &violation.kind {
        SchemaViolationKind::Absence { member } => {
            json!({ "member": format!("{place}{}", member_pointer(member)), "missing": true })
        }
        SchemaViolationKind::Value { allowed } => {
            let spelled = frame.pointer(&violation.path)?;
            let likeness = |value: &Value| {
                Some(strsim::jaro_winkler(&normalise_name(value.as_str()?), &normalise_name(spelled.as_str()?)))
            };
            // If a hub uses the only documented value, another value means something else: `failure` is not a spelling
            // of `success`.
            let is_used = |value: &Value| {
                let mut conforming = evidence.conforming.iter().map(|message| &pack.messages[*message]);
                conforming.any(|other| other.starting_value().pointer(&first_item_pointer(&place)) == Some(value))
            };
            let (_, value) = allowed
                .iter()
                .filter_map(|value| Some((likeness(value)?, value)))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|(likeness, value)| *likeness > 0.7 || (allowed.len() == 1 && !is_used(value)))?;
            json!({ "member": place, "value": value, "spelled": spelled })
        }
        SchemaViolationKind::Other => return None,
    };
    // A frame from the hub says nothing about the messages that the hub accepts.
    if expected.directions.to_hub {
        entry["direction"] = Value::from("from-hub");
    }
    Some(entry)
}

/// Returns the names on the path to a place, with the first item of each list.
fn member_path(place: &str) -> Vec<String> {
    first_item_pointer(place).split('/').skip(1).map(unescape).collect()
}

/// Returns a name in lower case and without separators, so that `jobId` and `job_id` are equal.
pub(super) fn normalise_name(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}
