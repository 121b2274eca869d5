//! Schema checks that can fail at all; a frame with too many errors is not recognised as the message.

use std::collections::BTreeSet;

use hubproof::protocol::{FrameDirection, MessageType, Pack};
use serde_json::Value;

/// Returns the schema checks that some frame breaks while it is still recognised as the message, each with its rule.
pub fn breakable_checks(pack: &Pack) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for message in pack.messages.iter().filter(|message| message.can_go(FrameDirection::FromHub)) {
        for mutant in frame_mutants(message) {
            if pack.recognise(&mutant, FrameDirection::FromHub).is_none_or(|found| found.name != message.name) {
                continue;
            }
            for violation in message.schema.violations(&mutant) {
                let should = if violation.should { ":should" } else { "" };
                found.extend(
                    violation.rules.iter().map(|rule| format!("schema:{}:{rule}{should} {rule}", message.name)),
                );
            }
        }
    }
    found
}

/// One value of each type.
const KINDS: [&str; 8] = ["null", "true", "-7", "1.5", "\"x\"", "\"\"", "[7]", "{}"];

/// Returns frames that differ from a message's example in one member: removed, of another type, or added.
fn frame_mutants(message: &MessageType) -> Vec<Value> {
    let example = message.starting_value();
    let mut places = Vec::new();
    walk(&example, &mut Vec::new(), &mut |path| places.push(path.to_vec()));
    let kinds: Vec<Value> = KINDS.iter().map(|kind| serde_json::from_str(kind).unwrap()).collect();
    let mut mutants = Vec::new();
    for path in places {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        let pointer: String = names.iter().map(|name| format!("/{name}")).collect();
        for known in message.schema.member_names(&names) {
            for value in kinds.iter().map(Some).chain([None]) {
                let mut mutant = example.clone();
                let Some(Value::Object(members)) = mutant.pointer_mut(&pointer) else { continue };
                match value {
                    Some(value) => drop(members.insert(known.clone(), value.clone())),
                    None => drop(members.shift_remove(&known)),
                }
                mutants.push(mutant);
            }
        }
    }
    mutants
}

fn walk(value: &Value, path: &mut Vec<String>, visit: &mut impl FnMut(&[String])) {
    visit(path);
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (name, value) in inner {
        path.push(name);
        walk(value, path, visit);
        path.pop();
    }
}
