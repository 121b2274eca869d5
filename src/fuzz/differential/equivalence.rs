//! Whether two messages of one kind are equal, except for what documents leave to the hub.

use std::collections::HashSet;

use serde_json::Value;

use super::transcript::{self, SentValueNames, is_prose};
use crate::generate::schema_shape::SchemaShape;
use crate::protocol::MessageType;

/// A message and the values that clients sent in its play.
#[derive(Clone, Copy)]
pub struct ComparedMessage<'a> {
    pub json: &'a Value,
    pub names: &'a SentValueNames,
}

/// The first place at which two messages differ, and the values there.
pub struct MessageDifference {
    pub pointer: String,
    pub left: String,
    pub right: String,
}

/// Returns the first difference between two messages of one kind. `open` are the names of members in which hubs may
/// differ.
pub fn compare_messages(
    message: &MessageType,
    open: &HashSet<String>,
    left: ComparedMessage<'_>,
    right: ComparedMessage<'_>,
) -> Option<MessageDifference> {
    let broken = |json: &Value| message.schema.violations(json).into_iter().find(|violation| !violation.should);
    let (one, other) = (broken(left.json), broken(right.json));
    if one.is_some() != other.is_some() {
        let pointer = one.or(other).map(|violation| violation.path).unwrap_or_default();
        let at = |json: &Value| json.pointer(&pointer).unwrap_or(json).to_string();
        return Some(MessageDifference { left: at(left.json), right: at(right.json), pointer });
    }
    let shape = SchemaShape::from_schema(&message.schema.source);
    let template = message.starting_value();
    // The hub numbers what it sends unasked.
    let own = message.correlation.as_deref().filter(|_| message.directions.unasked);
    let mut comparer = MessageComparer { left, right, open, own, template: &template };
    comparer.compare_values(&shape, (left.json, right.json), "", "")
}

/// Numbers above this are times.
const LARGEST_COUNT: f64 = 1e8;

/// Whether a value looks like a time, as a number or a text.
pub fn is_time(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_some_and(|number| number.abs() > LARGEST_COUNT),
        Value::String(text) => transcript::is_time(text),
        _ => false,
    }
}

struct MessageComparer<'a> {
    left: ComparedMessage<'a>,
    right: ComparedMessage<'a>,
    open: &'a HashSet<String>,
    /// The place of an id that the hub makes.
    own: Option<&'a str>,
    /// The documented example. A hub that copies a value from it does not repeat a client's value.
    template: &'a Value,
}

impl MessageComparer<'_> {
    fn compare_values(
        &mut self,
        shape: &SchemaShape<'_>,
        both: (&Value, &Value),
        pointer: &str,
        member: &str,
    ) -> Option<MessageDifference> {
        let (left, right) = both;
        if left == right || self.own == Some(pointer) {
            return None;
        }
        let here = || {
            Some(MessageDifference { pointer: pointer.to_owned(), left: left.to_string(), right: right.to_string() })
        };
        // Numbers of an `enum` are compared below, since one number can be written in several ways.
        if shape.allowed_values().is_some() && left.is_string() && right.is_string() {
            return here();
        }
        let one = self.left.names.origin(left);
        let other = self.right.names.origin(right);
        match (left, right) {
            _ if one.is_some() && one == other => None,
            (Value::String(_), Value::String(_)) => {
                let documented = self.template.pointer(pointer);
                let own = |value: &Value| is_prose(value) || documented == Some(value);
                if one.is_none() && other.is_none() || own(left) || own(right) { None } else { here() }
            }
            (Value::Object(one), Value::Object(other)) if !shape.member_names().is_empty() => {
                for name in shape.member_names().into_iter().filter(|name| !self.open.contains(*name)) {
                    // The schema covers missing members.
                    let (Some(left), Some(right)) = (one.get(name), other.get(name)) else { continue };
                    let pointer = format!("{pointer}/{}", crate::syntax::matcher::escape(name));
                    let inner = shape.member(name);
                    let found = self.compare_values(&inner, (left, right), &pointer, name);
                    if found.is_some() {
                        return found;
                    }
                }
                None
            }
            (Value::Array(one), Value::Array(other)) if !shape.item(0).is_unrestricted() => {
                if one.len() != other.len() {
                    return here();
                }
                let inner = shape.item(0);
                let mut free: Vec<&Value> = other.iter().collect();
                for item in one {
                    let found = free
                        .iter()
                        .position(|other| self.compare_values(&inner, (item, other), "/-", member).is_none());
                    let Some(found) = found else { return here() };
                    free.remove(found);
                }
                None
            }
            (Value::Number(_), Value::Number(_)) => {
                let repeats =
                    (self.left.names.contains_number(member, left), self.right.names.contains_number(member, right));
                let same = left.as_f64() == right.as_f64() || is_time(left) && is_time(right);
                if same || repeats.0 == repeats.1 { None } else { here() }
            }
            (Value::Bool(_), Value::Bool(_)) => here(),
            // The schema says nothing about these values, but one hub repeats a client's value and the other does not.
            _ if one.is_some() != other.is_some() => here(),
            _ => None,
        }
    }
}
