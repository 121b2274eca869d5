//! Removes actors, `let` values and names bound by `as` that no step refers to any more.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::fuzz::case_scenario::{CaseScenario, CaseStep, StepOption};

/// Returns the scenario without the names that no step needs. A word counts as needed wherever it occurs in a step or a
/// value, so too much may stay, but never too little.
pub fn remove_unneeded(mut scenario: CaseScenario) -> CaseScenario {
    loop {
        let mut words = BTreeMap::new();
        let values = scenario.others.values().chain(scenario.actors.values()).chain(scenario.lets.values());
        values.for_each(|value| add_word_counts(value, &mut words));
        scenario.exclusive.iter().for_each(|resource| add_word_counts(&Value::from(&**resource), &mut words));
        scenario.steps.iter().chain(&scenario.finally).for_each(|step| add_word_counts(&step.to_json(), &mut words));
        let before = scenario.clone();
        for members in [&mut scenario.actors, &mut scenario.lets] {
            // A value may contain a word equal to its own name: `unique('group')`.
            members.retain(|name, value| words.get(name) > word_counts(value).get(name));
        }
        let unused = |step: &CaseStep| step.name().is_some_and(|name| words.get(name) == Some(&1));
        for step in scenario.steps.iter_mut().filter(|step| unused(step)) {
            step.options.retain(|option| !matches!(option, StepOption::As(_)));
        }
        if scenario == before {
            return scenario;
        }
    }
}

fn word_counts(value: &Value) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    add_word_counts(value, &mut found);
    found
}

fn add_word_counts(value: &Value, found: &mut BTreeMap<String, usize>) {
    let mut all = Vec::new();
    collect_words(value, &mut all);
    all.into_iter().for_each(|word| *found.entry(word).or_default() += 1);
}

/// Collects all words in the names and texts of a value.
pub fn collect_words(value: &Value, found: &mut Vec<String>) {
    let mut split = |text: &str| {
        let pieces = text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
        found.extend(pieces.map(str::to_owned));
    };
    match value {
        Value::String(text) => split(text),
        Value::Array(items) => items.iter().for_each(|item| collect_words(item, found)),
        Value::Object(members) => {
            members.keys().for_each(|name| split(name));
            members.values().for_each(|member| collect_words(member, found));
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
        assert_eq!(remove_unneeded(CaseScenario::of(&scenario)), CaseScenario::of(&expected));
    }
}
