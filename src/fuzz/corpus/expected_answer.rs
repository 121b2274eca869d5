//! How a document answers input that no scenario has: the entries of `fuzz.answers` in shared.yaml. The first entry
//! that fits counts; where none does, the document is silent.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::fuzz::expressions;
use crate::fuzz::mutate::payload::{self, PayloadClass};
use crate::fuzz::placement::Placement;
use crate::fuzz::step_rule::StepRule;
use crate::syntax::matcher::Matcher;

/// An entry of `fuzz.answers`: which input it fits, and how that is answered.
pub struct ExpectedAnswer {
    classes: Vec<String>,
    placements: Vec<String>,
    roles: Vec<String>,
    messages: Vec<String>,
    except: Vec<String>,
    matcher: Option<Matcher>,
    /// Answers of which one must come: alternatives as under `expects one of`.
    pub one_of: Vec<Value>,
    /// Answers of which none may come.
    pub never: Vec<Value>,
    /// The rules of the document that demand the answer.
    pub rules: Vec<StepRule>,
}

/// Properties of a mutated message on which its answer depends.
#[derive(Clone, Copy)]
pub struct InputProperties<'a> {
    pub class: PayloadClass,
    pub placement: Placement,
    /// The sender's role.
    pub role: &'a str,
    /// The message that the pack recognises the input as, if any.
    pub taken_for: Option<&'a str>,
    /// The input's JSON value; `None` where it is no JSON, or JSON that no value can represent (such as a duplicate
    /// key).
    pub payload: Option<&'a Value>,
}

/// Reads the entries of `fuzz.answers`; those that the scenario reader refuses are left out.
pub fn parse_answers(shared: &Value) -> Vec<ExpectedAnswer> {
    let entries = shared.pointer("/fuzz/answers").and_then(Value::as_array);
    entries.into_iter().flatten().filter_map(parse_answer).collect()
}

fn parse_answer(entry: &Value) -> Option<ExpectedAnswer> {
    let items = |key: &str| entry.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let texts = |key: &str| items(key).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let matcher = match entry.get("where") {
        None => None,
        Some(source) => Some(Matcher::compile(source).ok()?),
    };
    Some(ExpectedAnswer {
        classes: texts("class"),
        placements: texts("placement"),
        roles: texts("roles"),
        messages: texts("messages"),
        except: texts("except"),
        matcher,
        one_of: items("answer"),
        never: items("never"),
        rules: StepRule::read_all(entry.get("rules")),
    })
}

impl ExpectedAnswer {
    /// Whether the answer is a message for certain, so that the connection stays usable.
    pub fn is_message(&self) -> bool {
        !self.one_of.is_empty() && self.one_of.iter().all(|alternative| alternative.get("close").is_none())
    }

    /// Returns the values that input must have, by JSON pointer.
    pub fn literal_values(&self) -> BTreeMap<String, Value> {
        self.matcher.as_ref().map(payload::literal_values).unwrap_or_default()
    }

    pub fn fits(&self, input: &InputProperties<'_>) -> bool {
        let placed = match self.placements.is_empty() {
            true => input.placement != Placement::First,
            false => self.placements.iter().any(|name| name == input.placement.moment()),
        };
        let is = |names: &[String]| input.taken_for.is_some_and(|name| names.iter().any(|other| other == name));
        self.classes.iter().any(|name| name == input.class.name())
            && placed
            && (self.roles.is_empty() || self.roles.iter().any(|role| role == input.role))
            && (self.messages.is_empty() || is(&self.messages))
            && !is(&self.except)
            && self.matcher.as_ref().is_none_or(|matcher| input.payload.is_some_and(|payload| matcher.fits(payload)))
    }
}

/// Replaces the expressions of an alternative on the input by the input's members. Where the input lacks a member, the
/// alternative expects nothing.
pub fn substitute_input(alternative: &Value, sent: Option<&Value>) -> Value {
    match alternative {
        Value::Object(members) => {
            let mut about_it = Map::new();
            for (name, member) in members {
                match member.as_str().and_then(input_pointer) {
                    None => drop(about_it.insert(name.clone(), substitute_input(member, sent))),
                    Some(pointer) => {
                        if let Some(value) =
                            sent.and_then(|sent| sent.pointer(&pointer)).filter(|value| is_fixed(value))
                        {
                            about_it.insert(name.clone(), value.clone());
                        }
                    }
                }
            }
            Value::Object(about_it)
        }
        Value::Array(items) => items.iter().map(|item| substitute_input(item, sent)).collect(),
        other => other.clone(),
    }
}

/// Returns the members of the input that the answer mentions, as JSON pointers and values, in the order of the answer.
pub fn mentioned_members(answer: &ExpectedAnswer, sent: Option<&Value>) -> Vec<(String, Value)> {
    let mut found: Vec<(String, Value)> = Vec::new();
    let mut open: Vec<&Value> = answer.one_of.iter().chain(&answer.never).rev().collect();
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items.iter().rev()),
            Value::Object(members) => open.extend(members.values().rev()),
            Value::String(text) => {
                let pointer = input_pointer(text).filter(|pointer| !found.iter().any(|(known, _)| known == pointer));
                let value = |pointer: &String| sent?.pointer(pointer).filter(|value| is_fixed(value)).cloned();
                found.extend(pointer.and_then(|pointer| value(&pointer).map(|value| (pointer, value))));
            }
            _ => {}
        }
    }
    found
}

/// Whether a value is the same wherever it is evaluated: functions such as `uuid()` return another value each time.
fn is_fixed(value: &Value) -> bool {
    match value {
        Value::String(text) => !expressions::varies(text),
        Value::Array(items) => items.iter().all(is_fixed),
        Value::Object(members) => members.values().all(is_fixed),
        _ => true,
    }
}

/// The name of the input in answers.
const INPUT: &str = "said"; // style: quoted

/// Returns the JSON pointer that an expression on the input stands for.
fn input_pointer(text: &str) -> Option<String> {
    let expression = expressions::only(text)?;
    expression.pointer().filter(|(root, _)| *root == INPUT).map(|(_, pointer)| pointer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::it(json!({ "a": 1 }), PayloadClass::Invalid, Placement::Joined, Some("m"), true)]
    #[case::another_class(json!({ "a": 1 }), PayloadClass::Valid, Placement::Joined, Some("m"), false)]
    #[case::too_early(json!({ "a": 1 }), PayloadClass::Invalid, Placement::First, Some("m"), false)]
    #[case::another_message(json!({ "a": 1 }), PayloadClass::Invalid, Placement::Joined, Some("other"), false)]
    #[case::no_message(json!({ "a": 1 }), PayloadClass::Invalid, Placement::Joined, None, false)]
    #[case::another_payload(json!({ "a": 2 }), PayloadClass::Invalid, Placement::Joined, Some("m"), false)]
    fn an_answers_entry_applies_only_to_input_that_meets_its_conditions(
        #[case] payload: Value,
        #[case] class: PayloadClass,
        #[case] placement: Placement,
        #[case] taken_for: Option<&str>,
        #[case] fits: bool,
    ) {
        let entry = json!({ "class": ["invalid"], "messages": ["m"], "where": { "a": 1 }, "rules": [] });
        let input = InputProperties { class, placement, role: "client", taken_for, payload: Some(&payload) };
        assert_eq!(parse_answer(&entry).unwrap().fits(&input), fits);
    }

    #[test]
    fn members_of_the_input_replace_expressions_in_the_expected_answer() {
        let alternative =
            json!({ "message": "any", "where": { "id": "${said.data.id}", "no": "${said.no}", "new": "${said.new}" } }); // style: quoted
        let sent = json!({ "data": { "id": "${self.id}" }, "new": "${uuid()}" });
        assert_eq!(
            substitute_input(&alternative, Some(&sent)),
            json!({ "message": "any", "where": { "id": "${self.id}" } })
        );
    }

    #[test]
    fn members_the_answer_must_mention_are_found_before_the_run() {
        let entry = json!({
            "class": ["valid"], "rules": [],
            "answer": [{ "where": { "b": "${said.data.b}", "a": "${said.a}" } }, { "where": { "a": "${said.a}", "c": "${said.c}" } }], // style: quoted
        });
        let sent = json!({ "a": 1, "data": { "b": "${self.id}" }, "c": "${uuid()}" });
        let expected = [("/data/b".to_owned(), json!("${self.id}")), ("/a".to_owned(), json!(1))];
        assert_eq!(mentioned_members(&parse_answer(&entry).unwrap(), Some(&sent)), expected);
    }

    #[test]
    fn class_and_placement_names_match_the_scenario_parser() {
        use crate::scenario::parse::fuzz::{CLASSES, PLACEMENTS};
        let moments: Vec<&str> = Placement::ALL.iter().map(|placement| placement.moment()).collect();
        assert!(PLACEMENTS.iter().all(|name| moments.contains(name)), "{moments:?}");
        let classes = [
            PayloadClass::Valid,
            PayloadClass::Unusual,
            PayloadClass::Invalid,
            PayloadClass::Unknown,
            PayloadClass::Malformed,
            PayloadClass::Broken,
        ];
        assert_eq!(CLASSES, classes.map(PayloadClass::name));
    }
}
