//! Removes actors, `let` values and names bound by `as` that no step refers to any more.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Returns the scenario without the names that no step needs. A word counts as needed wherever it occurs in a step or a
/// value, so too much may stay, but never too little.
pub fn tidied(mut scenario: Map<String, Value>) -> Map<String, Value> {
    loop {
        let mut words = BTreeMap::new();
        for (key, value) in &scenario {
            match (key.as_str(), value) {
                ("title", _) => {}
                ("actors" | "let", Value::Object(members)) => {
                    members.values().for_each(|value| count(value, &mut words))
                }
                (_, value) => count(value, &mut words),
            }
        }
        let before = size(&scenario);
        for key in ["actors", "let"] {
            if let Some(Value::Object(members)) = scenario.get_mut(key) {
                // A value may contain a word equal to its own name: `unique('group')`.
                members.retain(|name, value| words.get(name) > counted(value).get(name));
                if members.is_empty() {
                    scenario.shift_remove(key);
                }
            }
        }
        for step in scenario.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(members) = step.as_object_mut() else { continue };
            let unused = members.get("as").and_then(Value::as_str).is_some_and(|name| words.get(name) == Some(&1));
            if unused {
                members.shift_remove("as");
            }
        }
        if size(&scenario) == before {
            return scenario;
        }
    }
}

/// Returns the number of the scenario's members and of their items.
fn size(scenario: &Map<String, Value>) -> usize {
    let of = |value: &Value| match value {
        Value::Array(items) => items.iter().map(|item| item.as_object().map_or(1, Map::len)).sum(),
        Value::Object(members) => members.len(),
        _ => 1,
    };
    scenario.values().map(of).sum::<usize>() + scenario.len()
}

fn counted(value: &Value) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    count(value, &mut found);
    found
}

fn count(value: &Value, found: &mut BTreeMap<String, usize>) {
    let mut all = Vec::new();
    words(value, &mut all);
    all.into_iter().for_each(|word| *found.entry(word).or_default() += 1);
}

/// Collects all words in the names and texts of a value.
pub fn words(value: &Value, found: &mut Vec<String>) {
    let mut split = |text: &str| {
        let pieces = text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
        found.extend(pieces.map(str::to_owned));
    };
    match value {
        Value::String(text) => split(text),
        Value::Array(items) => items.iter().for_each(|item| words(item, found)),
        Value::Object(members) => {
            members.keys().for_each(|name| split(name));
            members.values().for_each(|member| words(member, found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn actors_and_names_that_no_step_needs_are_removed() {
        let scenario = json!({
            "title": "about gone and idle",
            "actors": { "a": "client", "idle": "client", "b": "client", "both": ["b"] },
            "let": { "gone": "${unique('gone')}", "base": "${unique('g')}", "group": "${base}/x" },
            "steps": [
                { "a sends": "x", "as": "unused" },
                { "a sends": "x", "with": { "group": "${group}" }, "as": "used" },
                { "both expect": "y", "after": "used" },
            ]
        });
        let expected = json!({
            "title": "about gone and idle",
            "actors": { "a": "client", "b": "client", "both": ["b"] },
            "let": { "base": "${unique('g')}", "group": "${base}/x" },
            "steps": [
                { "a sends": "x" },
                { "a sends": "x", "with": { "group": "${group}" }, "as": "used" },
                { "both expect": "y", "after": "used" },
            ]
        });
        assert_eq!(Value::Object(tidied(scenario.as_object().unwrap().clone())), expected);
    }
}
