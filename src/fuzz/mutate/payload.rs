//! Edits of a payload, as overrides of a `sends` step and, where no JSON value can represent the result, edits of its
//! text. A finding then shows the mutation instead of a page of JSON.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::fuzz::expressions;
use crate::protocol::{FrameDirection, MessageType, Pack};
use crate::scenario::compose;
use crate::scenario::template::{escape_expressions, escape_texts};
use crate::syntax::matcher::{MatchCondition, Matcher, member_pointer};

/// One difference from the example.
#[derive(Clone, Debug, PartialEq)]
pub struct PayloadEdit {
    /// JSON pointer; empty for the whole message.
    pub pointer: String,
    pub change: PayloadChange,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PayloadChange {
    Put(Value),
    /// Puts the value of an expression, `${...}`, which has the form of the value that it replaces.
    Evaluate(String),
    Remove,
    /// Replaces the value by this JSON text, for instance a number too large for any machine type.
    Text(String),
    /// Repeats the member, the second time with this value.
    Twice(Value),
    /// Renames the member.
    Rename(String),
    /// Reverses the order of members, on all levels.
    Backwards,
}

/// What the documents demand of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PayloadClass {
    /// A message of the document that fits its schema.
    Valid,
    /// A valid message that breaks a recommendation of its schema (`x-should`).
    Unusual,
    /// A message that breaks its schema.
    Invalid,
    /// JSON that is not a message of the document.
    Unknown,
    /// JSON on which documents are silent: duplicate keys, numbers of a thousand digits.
    Unspecified,
    /// Not JSON.
    Malformed,
    /// Not a WebSocket message: invalid frames.
    Broken,
}

impl PayloadClass {
    pub fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Unusual => "unusual",
            Self::Invalid => "invalid",
            Self::Unknown => "unknown",
            Self::Unspecified => "unspecified",
            Self::Malformed => "malformed",
            Self::Broken => "broken",
        }
    }
}

/// Applies edits to an example; `None` where no value can represent the result.
pub fn apply_edits(mut example: Value, edits: &[PayloadEdit]) -> Option<Value> {
    let new = |change: &PayloadChange| match change {
        PayloadChange::Put(new) => Some(new.clone()),
        _ => None,
    };
    edits.iter().try_for_each(|edit| apply_edit(&mut example, edit, &new))?;
    Some(example)
}

/// Applies one edit; `new` returns the value that it puts, if any. Returns `None`, and changes nothing, where no value
/// can represent the result.
fn apply_edit(value: &mut Value, edit: &PayloadEdit, new: &dyn Fn(&PayloadChange) -> Option<Value>) -> Option<()> {
    match &edit.change {
        PayloadChange::Put(_) | PayloadChange::Evaluate(_) => {
            if let Some(new) = new(&edit.change) {
                compose::put_at_pointer(value, &edit.pointer, new);
            }
        }
        PayloadChange::Remove => compose::remove_members(value, std::slice::from_ref(&edit.pointer)),
        PayloadChange::Rename(name) => {
            let (parent, _) = edit.pointer.rsplit_once('/')?;
            let old = value.pointer_mut(&edit.pointer)?.take();
            compose::remove_members(value, std::slice::from_ref(&edit.pointer));
            compose::put_at_pointer(value, &format!("{parent}/{}", crate::syntax::matcher::escape(name)), old);
        }
        PayloadChange::Backwards => reverse_members(value.pointer_mut(&edit.pointer)?),
        PayloadChange::Text(_) | PayloadChange::Twice(_) => return None,
    }
    Some(())
}

fn reverse_members(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(reverse_members),
        Value::Object(members) => {
            *members = std::mem::take(members).into_iter().rev().collect();
            members.values_mut().for_each(reverse_members);
        }
        _ => {}
    }
}

/// Classifies a payload that was made from an example of `message`.
pub fn classify(pack: &Pack, message: &MessageType, payload: Option<&Value>) -> PayloadClass {
    let Some(payload) = payload else { return PayloadClass::Unspecified };
    if message.schema.example.as_ref().is_some_and(|example| has_respelt_member(payload, example)) {
        return PayloadClass::Unspecified;
    }
    let Some(found) = pack.recognise(payload, FrameDirection::ToHub) else { return PayloadClass::Unknown };
    // A payload recognised only as the envelope was made from one of its special forms, but no longer matches any.
    if found.abstract_ && found.name != message.name {
        return if found.schema.is_valid(payload) { PayloadClass::Unknown } else { PayloadClass::Invalid };
    }
    let violations = found.schema.violations(payload);
    match violations.iter().any(|violation| !violation.should) {
        true => PayloadClass::Invalid,
        false if violations.is_empty() => PayloadClass::Valid,
        false => PayloadClass::Unusual,
    }
}

/// Returns the values by which a matcher recognises a message, by JSON pointer.
pub fn literal_values(matcher: &Matcher) -> BTreeMap<String, Value> {
    let literal = |condition| match condition {
        MatchCondition::Is(pointer, value) => Some((pointer, value.clone())),
        MatchCondition::Fits { pointer, optional: false, schema } => {
            Some((pointer.to_owned(), schema.get("const")?.clone()))
        }
        _ => None,
    };
    matcher.member_conditions().into_iter().filter_map(literal).collect()
}

/// Returns where an undocumented value can be added to a message: as a member of this name, or at the end of a list. If
/// a list contains an object, the object gets the value, because a longer list is often another message. Anything else
/// is replaced.
pub fn place_to_add(message: &Value, name: &str) -> String {
    fn first_object(value: &Value) -> Option<String> {
        match value {
            Value::Object(_) => Some(String::new()),
            Value::Array(items) => {
                let inner = |(index, item)| Some(format!("/{index}{}", first_object(item)?));
                items.iter().enumerate().find_map(inner)
            }
            _ => None,
        }
    }
    match (first_object(message), message) {
        (Some(object), _) => format!("{object}{}", member_pointer(name)),
        (None, Value::Array(items)) => format!("/{}", items.len()),
        _ => String::new(),
    }
}

/// Whether a member is named like one of the example except for case: many decoders accept it, and documents are
/// silent.
fn has_respelt_member(payload: &Value, example: &Value) -> bool {
    if let (Value::Array(payload), Value::Array(example)) = (payload, example) {
        return payload.iter().zip(example).any(|(payload, example)| has_respelt_member(payload, example));
    }
    let (Value::Object(payload), Value::Object(example)) = (payload, example) else { return false };
    payload.iter().any(|(name, member)| match example.get(name) {
        Some(known) => has_respelt_member(member, known),
        None => example.keys().any(|known| known.eq_ignore_ascii_case(name)),
    })
}

/// Returns the message that the pack recognises a payload as.
pub fn recognised_as<'a>(pack: &'a Pack, payload: &Value) -> Option<&'a MessageType> {
    pack.recognise(payload, FrameDirection::ToHub)
}

/// Returns the payload as the text of a `sends raw` step. `base` is the example with the scenario's overrides; its
/// expressions stay expressions, and any other `${` is escaped.
pub fn payload_text(base: &Value, edits: &[PayloadEdit]) -> String {
    payload_text_and_value(base, edits).0
}

/// Returns the text of a `sends raw` step, as [`payload_text`] does, and the payload with its expressions; `None` where
/// no value can represent it.
pub fn payload_text_and_value(base: &Value, edits: &[PayloadEdit]) -> (String, Option<Value>) {
    let new = |change: &PayloadChange| match change {
        PayloadChange::Put(new) => Some(escape_texts(new)),
        PayloadChange::Evaluate(expression) => Some(Value::from(expression.as_str())),
        _ => None,
    };
    let mut value = base.clone();
    let mut later = Vec::new();
    let mut is_value = true;
    for edit in edits {
        match &edit.change {
            PayloadChange::Text(_) if value.pointer(&edit.pointer).is_none() => {
                compose::put_at_pointer(&mut value, &edit.pointer, Value::Null);
                later.push(edit);
            }
            PayloadChange::Text(_) | PayloadChange::Twice(_) => later.push(edit),
            // A rename that is not possible leaves the text unchanged.
            _ => is_value &= apply_edit(&mut value, edit, &new).is_some(),
        }
    }
    let mut text = String::new();
    write_value(&value, "", &later, &mut text);
    (text, Some(value).filter(|_| is_value && later.is_empty()))
}

fn write_value(value: &Value, pointer: &str, edits: &[&PayloadEdit], out: &mut String) {
    let here = || edits.iter().filter(|edit| edit.pointer == pointer);
    if let Some(PayloadChange::Text(text)) =
        here().map(|edit| &edit.change).find(|change| matches!(change, PayloadChange::Text(_)))
    {
        return out.push_str(text);
    }
    match value {
        Value::Object(members) => {
            out.push('{');
            for (index, (name, member)) in members.iter().enumerate() {
                let key = to_json_text(&escape_expressions(name));
                out.extend([if index > 0 { "," } else { "" }, &key, ":"]);
                let inner = edited_pointer(pointer, edits, || crate::syntax::matcher::escape(name));
                write_value(member, &inner, edits, out);
                for edit in edits.iter().filter(|edit| edit.pointer == inner) {
                    if let PayloadChange::Twice(again) = &edit.change {
                        out.extend([",", &key, ":"]);
                        write_value(&escape_texts(again), "/", &[], out);
                    }
                }
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                write_value(item, &edited_pointer(pointer, edits, || index.to_string()), edits, out);
            }
            out.push(']');
        }
        Value::String(text) => match expressions::source(text) {
            Some(inside) => out.extend(["${json(", inside, ")}"]),
            None => out.push_str(&to_json_text(text)),
        },
        other => out.push_str(&to_json_text(other)),
    }
}

/// Serializes faster than `to_string` of a `Value` does.
fn to_json_text(value: &(impl serde::Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Returns the pointer to a member, or an empty one if no edit will be compared with it.
fn edited_pointer<N: std::fmt::Display>(pointer: &str, edits: &[&PayloadEdit], name: impl FnOnce() -> N) -> String {
    if edits.is_empty() { String::new() } else { format!("{pointer}/{}", name()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn edit(pointer: &str, change: PayloadChange) -> PayloadEdit {
        PayloadEdit { pointer: pointer.to_owned(), change }
    }

    #[rstest]
    #[case::put(edit("/b/c", PayloadChange::Put(json!([1]))), r#"{"a":${json(self.id)},"b":{"c":[1]}}"#)]
    #[case::remove(edit("/b", PayloadChange::Remove), r#"{"a":${json(self.id)}}"#)]
    #[case::text(edit("/b/c", PayloadChange::Text("1e400".into())), r#"{"a":${json(self.id)},"b":{"c":1e400}}"#)]
    #[case::new_text(edit("/n", PayloadChange::Text("[[]]".into())), r#"{"a":${json(self.id)},"b":{"c":1},"n":[[]]}"#)]
    #[case::twice(edit("/b/c", PayloadChange::Twice(json!("x"))), r#"{"a":${json(self.id)},"b":{"c":1,"c":"x"}}"#)]
    #[case::rename(edit("/b", PayloadChange::Rename("B".into())), r#"{"a":${json(self.id)},"B":{"c":1}}"#)]
    #[case::backwards(edit("", PayloadChange::Backwards), r#"{"b":{"c":1},"a":${json(self.id)}}"#)]
    #[case::escaped_name(edit("/${b", PayloadChange::Put(json!(2))), r#"{"a":${json(self.id)},"b":{"c":1},"${'${'}b":2}"#)]
    #[case::escaped(edit("/b", PayloadChange::Put(json!("${x}"))), r#"{"a":${json(self.id)},"b":"${'${'}x}"}"#)]
    #[case::evaluated(edit("/b", PayloadChange::Evaluate("${innocent.id}".into())), r#"{"a":${json(self.id)},"b":${json(innocent.id)}}"#)]
    fn a_payload_is_written_as_json_text_with_its_edits(#[case] edit: PayloadEdit, #[case] expected: &str) {
        assert_eq!(payload_text(&json!({"a": "${self.id}", "b": {"c": 1}}), &[edit]), expected);
    }

    #[rstest]
    #[case::object(json!({ "a": 1 }), "/x")]
    #[case::object_in_a_list(json!([2, "id", [{}], {}]), "/2/0/x")]
    #[case::list(json!([2, "id"]), "/2")]
    #[case::text(json!("id"), "")]
    fn every_kind_of_message_has_a_place_to_add_a_value(#[case] message: Value, #[case] expected: &str) {
        assert_eq!(place_to_add(&message, "x"), expected);
    }

    #[rstest]
    #[case::other_case(json!({ "A": 1 }), true)]
    #[case::inside(json!({ "b": { "C": 1 } }), true)]
    #[case::beside(json!({ "a": 1, "A": 2 }), true)]
    #[case::another(json!({ "x": 1, "b": { "d": 1 } }), false)]
    #[case::in_what_is_not_known(json!({ "x": { "A": 1 } }), false)]
    #[case::less(json!({ "b": 1 }), false)]
    #[case::in_a_list(json!({ "l": [0, { "D": 1 }] }), true)]
    fn a_member_name_that_differs_only_in_case_counts_as_respelt(#[case] payload: Value, #[case] respelt: bool) {
        assert_eq!(has_respelt_member(&payload, &json!({ "a": 1, "b": { "c": 1 }, "l": [0, { "d": 1 }] })), respelt);
    }
}
