//! Fingerprints of findings. A thousand cases may show one defect: findings are the same if the same check failed after
//! the same mutation of the same message, with an answer of the same shape.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::fuzz::case::FuzzCell;
use crate::outcome::{CheckReport, ScenarioReport, Verdict};
use crate::protocol::{FrameDirection, Pack};
use crate::report::text::without_variable_parts;

/// The mutation of a finding that is made without any, too.
pub const NO_MUTATION: &str = "no-mutation";

/// The key by which findings are grouped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint {
    /// The check that failed, without its number: a rule such as `FUZZ-REJECTS`, or `schema:MESSAGE`.
    pub oracle: String,
    /// Name of the mutated message.
    pub message: String,
    /// Name of the mutation.
    pub mutation: String,
    /// Shape of the answer: names and types, without values.
    pub shape: String,
}

impl Fingerprint {
    /// `cell` is that of the case to which the check belongs.
    pub fn of_check(pack: &Pack, cell: FuzzCell, check: &CheckReport) -> Self {
        Self {
            oracle: oracle_name(check).to_owned(),
            message: pack.messages.get(cell.message).map_or_else(String::new, |message| message.name.clone()),
            mutation: cell.mutation.name().to_owned(),
            shape: answer_shape(pack, check),
        }
    }

    /// Returns the name for baselines and reports: `PROTOCOL/MESSAGE/MUTATION`.
    pub fn scenario_name(&self, protocol: &str) -> String {
        format!("{protocol}/{}/{}", self.message, self.mutation)
    }
}

/// Returns the checks of a case that failed or warned, in the order in which they were made.
pub fn broken_checks(report: &ScenarioReport) -> impl Iterator<Item = &CheckReport> {
    report.checks.iter().filter(|check| matches!(check.verdict, Verdict::Fail | Verdict::Warn))
}

/// Returns the name of a check without its number.
pub fn oracle_name(check: &CheckReport) -> &str {
    match check.name.split_once('#') {
        Some((name, _)) => name,
        None => &check.name,
    }
}

fn answer_shape(pack: &Pack, check: &CheckReport) -> String {
    let received = check.detail.as_ref().map_or("", |detail| detail.received.as_str());
    match serde_json::from_str::<Value>(received) {
        Ok(payload) if payload.is_object() || payload.is_array() => {
            match pack.recognise(&payload, FrameDirection::FromHub) {
                Some(message) => format!("{}: {}", message.name, without_hub_texts(&check.message)),
                None => value_shape(&payload, 0),
            }
        }
        _ if check.message.is_empty() => without_variable_parts(received),
        _ => without_hub_texts(&check.message),
    }
}

/// Removes from a message what a hub chooses freely: texts, numbers, and the reason of a close, which is in parentheses.
/// A defect that shows in different words is one finding.
fn without_hub_texts(message: &str) -> String {
    let reason = message.find(" (").zip(message.rfind(')')).filter(|(start, end)| start < end);
    match reason {
        Some((start, end)) => without_variable_parts(&format!("{}{}", &message[..start], &message[end + 1..])),
        None => without_variable_parts(message),
    }
}

/// Returns the shape of a received frame: names and types, without values.
pub fn frame_shape(pack: &Pack, received: &str) -> String {
    match serde_json::from_str::<Value>(received) {
        Ok(payload) if payload.is_object() || payload.is_array() => {
            let name = pack.recognise(&payload, FrameDirection::FromHub).map_or("", |message| &message.name);
            format!("{name} {}", value_shape(&payload, 0))
        }
        _ => without_variable_parts(received),
    }
}

/// Deepest level of members in a shape.
const MAX_SHAPE_LEVELS: usize = 2;

/// Returns names and types of a value.
fn value_shape(value: &Value, level: usize) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "boolean".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "text".to_owned(),
        Value::Array(_) => "list".to_owned(),
        Value::Object(_) if level == MAX_SHAPE_LEVELS => "object".to_owned(),
        Value::Object(members) => {
            let members: BTreeMap<&String, String> =
                members.iter().map(|(name, member)| (name, value_shape(member, level + 1))).collect();
            let members: Vec<String> = members.iter().map(|(name, kind)| format!("{name}: {kind}")).collect();
            format!("{{{}}}", members.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn findings_that_differ_only_in_words_of_the_hub_have_the_same_shape() {
        let one = "no value received: the hub closed the connection with 1011 (cannot read \"x\" (yet))";
        let other = "no value received: the hub closed the connection with 1002";
        assert_eq!(without_hub_texts(one), without_hub_texts(other));
        assert_ne!(without_hub_texts(one), without_hub_texts("no error received: the connection is closed"));
    }

    #[test]
    fn an_answer_shape_has_names_and_types_but_no_values() {
        let shape = |value| value_shape(&value, 0);
        assert_eq!(shape(json!({"b": 1, "a": {"c": {"d": 1}}})), "{a: {c: object}, b: number}");
        assert_eq!(shape(json!({"a": "x"})), shape(json!({"a": "y"})));
        assert_ne!(shape(json!({"a": "x"})), shape(json!({"a": 1})));
    }
}
