//! A payload as it differs from the documented example: the overrides of a `sends` step, and, where JSON as a value is
//! not enough, edits of its text. Whoever reads a finding sees the oddity, not a page of JSON.

use serde_json::Value;
#[cfg(test)]
use serde_json::json;

use crate::protocol::{MessageType, Pack, Way};
use crate::scenario::compose;

/// One difference from the example.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// JSON pointer; empty is the whole message.
    pub pointer: String,
    pub change: Change,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Put(Value),
    Remove,
    /// This JSON text stands there as it is: numbers that no machine has, escapes that no text has.
    Text(String),
    /// The member stands there twice, the second time with this value.
    Twice(Value),
    /// The member has another name.
    Rename(String),
    /// The last member comes first, and so on, on all levels.
    Backwards,
}

/// What the documents say about a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// It is a message, and right.
    Valid,
    /// It is right, and not what the document suggests.
    Unusual,
    /// It breaks its schema.
    Invalid,
    /// No message of the document.
    Unknown,
    /// JSON about which nothing is said: members that come twice, numbers of a thousand digits.
    Unspecified,
    /// No JSON.
    Malformed,
    /// No WebSocket message.
    Broken,
}

impl Class {
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

/// An example with edits made to it; `None` where no value can say it.
pub fn applied(mut example: Value, edits: &[Edit]) -> Option<Value> {
    edits.iter().try_for_each(|edit| apply(&mut example, edit, Value::clone))?;
    Some(example)
}

/// Makes one edit; `made` is what a value that is put becomes. `None`, and nothing is done, where no value can say it.
fn apply(value: &mut Value, edit: &Edit, made: impl Fn(&Value) -> Value) -> Option<()> {
    match &edit.change {
        Change::Put(new) if edit.pointer.is_empty() => *value = made(new),
        Change::Put(new) => compose::put(value, &edit.pointer, made(new)),
        Change::Remove => compose::remove(value, std::slice::from_ref(&edit.pointer)),
        Change::Rename(name) => {
            let (parent, _) = edit.pointer.rsplit_once('/')?;
            let old = value.pointer_mut(&edit.pointer)?.take();
            compose::remove(value, std::slice::from_ref(&edit.pointer));
            compose::put(value, &format!("{parent}/{}", crate::syntax::matcher::escape(name)), old);
        }
        Change::Backwards => backwards(value.pointer_mut(&edit.pointer)?),
        Change::Text(_) | Change::Twice(_) => return None,
    }
    Some(())
}

fn backwards(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(backwards),
        Value::Object(members) => {
            *members = std::mem::take(members).into_iter().rev().collect();
            members.values_mut().for_each(backwards);
        }
        _ => {}
    }
}

/// What the pack says of a payload that was made from an example of `message`.
pub fn class(pack: &Pack, message: &MessageType, payload: Option<&Value>) -> Class {
    let Some(payload) = payload else { return Class::Unspecified };
    if message.schema.example.as_ref().is_some_and(|example| is_respelt(payload, example)) {
        return Class::Unspecified;
    }
    let Some(found) = pack.recognise(payload, Way::ToHub) else { return Class::Unknown };
    // What falls to an envelope was meant as one of its special forms, and is none of them.
    if found.abstract_ && found.name != message.name {
        return if found.schema.is_valid(payload) { Class::Unknown } else { Class::Invalid };
    }
    let violations = found.schema.judge(payload);
    match violations.iter().any(|violation| !violation.should) {
        true => Class::Invalid,
        false if violations.is_empty() => Class::Valid,
        false => Class::Unusual,
    }
}

/// A member is called as one of the example, but for upper and lower case: many decoders take it for that one, and no document
/// says what is right.
fn is_respelt(payload: &Value, example: &Value) -> bool {
    let (Value::Object(payload), Value::Object(example)) = (payload, example) else { return false };
    payload.iter().any(|(name, member)| match example.get(name) {
        Some(known) => is_respelt(member, known),
        None => example.keys().any(|known| known.eq_ignore_ascii_case(name)),
    })
}

/// The message that the pack takes a payload for.
pub fn taken_for<'a>(pack: &'a Pack, payload: &Value) -> Option<&'a MessageType> {
    pack.recognise(payload, Way::ToHub)
}

/// The payload as the text of a scenario's `sends raw`: JSON in which expressions of the scenario stand where `base` has
/// them, and everything else means itself. `base` is the example with what the scenario puts into it.
pub fn text(base: &Value, edits: &[Edit]) -> String {
    said(base, edits).0
}

/// The same, and the value that it is, expressions and all; `None` where no value can say it.
pub fn said(base: &Value, edits: &[Edit]) -> (String, Option<Value>) {
    let mut value = base.clone();
    let mut later = Vec::new();
    let mut is_value = true;
    for edit in edits {
        match &edit.change {
            Change::Text(_) if value.pointer(&edit.pointer).is_none() => {
                compose::put(&mut value, &edit.pointer, Value::Null);
                later.push(edit);
            }
            Change::Text(_) | Change::Twice(_) => later.push(edit),
            // What cannot be renamed is said as it is.
            _ => is_value &= apply(&mut value, edit, meant).is_some(),
        }
    }
    let mut text = String::new();
    write(&value, "", &later, &mut text);
    (text, Some(value).filter(|_| is_value && later.is_empty()))
}

fn write(value: &Value, pointer: &str, edits: &[&Edit], out: &mut String) {
    let here = || edits.iter().filter(|edit| edit.pointer == pointer);
    if let Some(Change::Text(text)) = here().map(|edit| &edit.change).find(|change| matches!(change, Change::Text(_))) {
        return out.push_str(text);
    }
    match value {
        Value::Object(members) => {
            out.push('{');
            for (index, (name, member)) in members.iter().enumerate() {
                let key = json(name);
                out.extend([if index > 0 { "," } else { "" }, &key, ":"]);
                let inner = place(pointer, edits, || crate::syntax::matcher::escape(name));
                write(member, &inner, edits, out);
                for edit in edits.iter().filter(|edit| edit.pointer == inner) {
                    if let Change::Twice(again) = &edit.change {
                        out.extend([",", &key, ":"]);
                        write(&meant(again), "/", &[], out);
                    }
                }
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                write(item, &place(pointer, edits, || index.to_string()), edits, out);
            }
            out.push(']');
        }
        Value::String(text) => match expression(text) {
            Some(inside) => out.extend(["${json(", inside, ")}"]),
            None => out.push_str(&json(text)),
        },
        other => out.push_str(&json(other)),
    }
}

/// As JSON, quicker than `to_string` makes it.
fn json(value: &(impl serde::Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Where a member is; where nothing is edited nobody asks.
fn place<N: std::fmt::Display>(pointer: &str, edits: &[&Edit], name: impl FnOnce() -> N) -> String {
    if edits.is_empty() { String::new() } else { format!("{pointer}/{}", name()) }
}

/// The expression that a text of a scenario consists of.
fn expression(text: &str) -> Option<&str> {
    let inside = text.strip_prefix("${")?;
    let length = crate::scenario::template::closing(inside)?;
    (length + 1 == inside.len()).then(|| inside[..length].trim())
}

/// What begins a hole that a mutation makes: something of another actor.
pub const HOLE: &str = "${innocent.";

/// A made value as a scenario has to write it, so that it means itself.
fn meant(value: &Value) -> Value {
    match value {
        Value::String(text) if !text.starts_with(HOLE) => Value::String(text.replace("${", "${'${'}")),
        Value::Array(items) => items.iter().map(meant).collect(),
        Value::Object(members) => members.iter().map(|(name, member)| (name.clone(), meant(member))).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn edit(pointer: &str, change: Change) -> Edit {
        Edit { pointer: pointer.to_owned(), change }
    }

    #[rstest]
    #[case::put(edit("/b/c", Change::Put(json!([1]))), r#"{"a":${json(self.id)},"b":{"c":[1]}}"#)]
    #[case::remove(edit("/b", Change::Remove), r#"{"a":${json(self.id)}}"#)]
    #[case::text(edit("/b/c", Change::Text("1e400".into())), r#"{"a":${json(self.id)},"b":{"c":1e400}}"#)]
    #[case::new_text(edit("/n", Change::Text("[[]]".into())), r#"{"a":${json(self.id)},"b":{"c":1},"n":[[]]}"#)]
    #[case::twice(edit("/b/c", Change::Twice(json!("x"))), r#"{"a":${json(self.id)},"b":{"c":1,"c":"x"}}"#)]
    #[case::rename(edit("/b", Change::Rename("B".into())), r#"{"a":${json(self.id)},"B":{"c":1}}"#)]
    #[case::backwards(edit("", Change::Backwards), r#"{"b":{"c":1},"a":${json(self.id)}}"#)]
    #[case::meant(edit("/b", Change::Put(json!("${x}"))), r#"{"a":${json(self.id)},"b":"${'${'}x}"}"#)]
    #[case::hole(edit("/b", Change::Put(json!("${innocent.id}"))), r#"{"a":${json(self.id)},"b":${json(innocent.id)}}"#)]
    fn a_payload_is_written_with_its_oddity(#[case] edit: Edit, #[case] expected: &str) {
        assert_eq!(text(&json!({"a": "${self.id}", "b": {"c": 1}}), &[edit]), expected);
    }

    #[rstest]
    #[case::other_case(json!({ "A": 1 }), true)]
    #[case::inside(json!({ "b": { "C": 1 } }), true)]
    #[case::beside(json!({ "a": 1, "A": 2 }), true)]
    #[case::another(json!({ "x": 1, "b": { "d": 1 } }), false)]
    #[case::in_what_is_not_known(json!({ "x": { "A": 1 } }), false)]
    #[case::less(json!({ "b": 1 }), false)]
    fn what_differs_in_case_may_be_meant(#[case] payload: Value, #[case] respelt: bool) {
        assert_eq!(is_respelt(&payload, &json!({ "a": 1, "b": { "c": 1 } })), respelt);
    }
}
