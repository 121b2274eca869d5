//! Compiles a message of a plan to bytes and slots: it is composed as in `hubproof check`, with a mark for each value
//! that is not known yet, written as JSON, and cut at the marks.

use serde_json::Value;

use super::RoleCompiler;
use super::scope::ResolvedExpression;
use crate::load::compile::message_template::{MessageTemplate, SlotSource, TemplatePiece};
use crate::scenario::compose;
use crate::scenario::model::{MessageComposition, MessageName};
use crate::scenario::template::{Template, TemplatePart};

/// Marks around the number of a slot: for a whole value, and within a text. No file of a pack contains them; if a
/// user's plan contained one around a number, it would be taken for a slot.
pub const WHOLE_VALUE_MARK: char = '\u{0}';
pub const WITHIN_TEXT_MARK: char = '\u{1}';

pub fn bytes_piece(text: impl Into<Vec<u8>>) -> TemplatePiece {
    TemplatePiece::Bytes(text.into().into())
}

impl RoleCompiler<'_> {
    /// Composes a message to be sent, or to be passed to a hook.
    pub fn compile_message(&mut self, compose: &MessageComposition, sources: &mut Vec<SlotSource>) -> (String, Value) {
        let MessageName::Named(name) = &compose.message else { return (String::new(), Value::Null) };
        let Some(message) = self.script.pack.message(name) else { return (String::new(), Value::Null) };
        let mut value = message.starting_value();
        let fills = &self.script.shared_parts.roles[&self.part.plays].fills;
        for (place, template) in fills {
            if let Some(pointer) = compose::filled_member(place, name, &value) {
                let fill = self.with_slot_marks(template, sources);
                compose::put_at_pointer(&mut value, &pointer, fill);
            }
        }
        if let Some(with) = &compose.with {
            if let Template::Expression(expr) = with {
                let help = "write `with: { member: value }`";
                self.error(expr.span, "the changed members must be known before the run", help);
            }
            let with = self.with_slot_marks(with, sources);
            compose::merge_overrides(&mut value, &with);
        }
        compose::remove_members(&mut value, &compose.without);
        (name.clone(), value)
    }

    /// Converts a template value, with marks for the values that are not known yet.
    pub fn with_slot_marks(&mut self, written: &Template, sources: &mut Vec<SlotSource>) -> Value {
        match written {
            Template::Constant(value) => value.clone(),
            Template::Expression(expr) => match self.resolve(expr) {
                ResolvedExpression::Value(value) => value,
                ResolvedExpression::Source(source) => Value::String(slot_mark(WHOLE_VALUE_MARK, source, sources)),
            },
            Template::Text(parts) => {
                let mut text = String::new();
                for part in parts {
                    match part {
                        TemplatePart::Literal(literal) => text.push_str(literal),
                        TemplatePart::Expression(expr) => match self.resolve(expr) {
                            ResolvedExpression::Value(Value::String(value)) => text.push_str(&value),
                            ResolvedExpression::Value(value) => text.push_str(&value.to_string()),
                            ResolvedExpression::Source(source) => {
                                text.push_str(&slot_mark(WITHIN_TEXT_MARK, source, sources))
                            }
                        },
                    }
                }
                Value::String(text)
            }
            Template::List(items) => items.iter().map(|item| self.with_slot_marks(item, sources)).collect(),
            Template::Map(members) => {
                let kept = members.iter().filter(|(_, member)| !self.omits_member(member));
                let kept: Vec<_> = kept.map(|(name, member)| (name.clone(), member)).collect();
                Value::Object(
                    kept.into_iter().map(|(name, member)| (name, self.with_slot_marks(member, sources))).collect(),
                )
            }
        }
    }

    /// Whether an optional setting without a value omits its member.
    fn omits_member(&self, member: &Template) -> bool {
        let Template::Expression(expr) = member else { return false };
        expr.setting().is_some_and(|name| {
            self.script.shared.settings.get(name).is_some_and(|setting| setting.optional)
                && self.carried.hub.get(name).is_none()
        })
    }
}

fn slot_mark(kind: char, source: SlotSource, sources: &mut Vec<SlotSource>) -> String {
    sources.push(source);
    format!("{kind}{}{kind}", sources.len() - 1)
}

/// Cuts the JSON text of a value at its marks.
pub fn cut_at_marks(value: &Value, sources: &[SlotSource]) -> MessageTemplate {
    let text = value.to_string();
    let mut pieces = Vec::new();
    let mut rest = text.as_str();
    // In JSON a mark is written as its escape.
    let marks = [("\"\\u0000", "\\u0000\"", false), ("\\u0001", "\\u0001", true)];
    loop {
        let next = marks.iter().filter_map(|(open, close, inside)| Some((rest.find(open)?, open, close, inside))).min();
        let Some((at, open, close, inside)) = next else { break };
        let tail = &rest[at + open.len()..];
        let slot = tail.find(close).and_then(|end| Some((end, sources.get(tail[..end].parse::<usize>().ok()?)?)));
        match slot {
            Some((end, source)) => {
                pieces.push(bytes_piece(&rest[..at]));
                pieces.push(TemplatePiece::Slot { source: source.clone(), inside: *inside });
                rest = &tail[end + close.len()..];
            }
            None => {
                pieces.push(bytes_piece(&rest[..at + open.len()]));
                rest = tail;
            }
        }
    }
    pieces.push(bytes_piece(rest));
    // Joins neighbouring byte pieces, so that a message without slots is one piece.
    let mut joined: Vec<TemplatePiece> = Vec::new();
    for piece in pieces {
        match (joined.last_mut(), piece) {
            (_, TemplatePiece::Bytes(new)) if new.is_empty() => {}
            (Some(TemplatePiece::Bytes(old)), TemplatePiece::Bytes(new)) => *old = [&**old, &*new].concat().into(),
            (_, piece) => joined.push(piece),
        }
    }
    MessageTemplate { pieces: joined }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(json!({"a": 1}), r#"{"a":1}"#)]
    #[case(json!({"a": "\u{0}0\u{0}", "b": 2}), r#"{"a":<0>,"b":2}"#)]
    #[case(json!(["\u{0}1\u{0}", "x \u{1}0\u{1}\u{1}1\u{1}"]), r#"[<1>,"x <0 inside><1 inside>"]"#)]
    #[case(json!("\u{0}0\u{0}"), "<0>")]
    #[case(json!({"a": "\u{0}7\u{0}"}), r#"{"a":"\u00007\u0000"}"#)]
    #[case(json!({"a": "x\u{1}"}), r#"{"a":"x\u0001"}"#)]
    fn a_message_is_split_at_its_marks_into_bytes_and_slots(#[case] value: Value, #[case] expected: &str) {
        let template = cut_at_marks(&value, &[SlotSource::Own(0), SlotSource::Own(1)]);
        let shown: String = template
            .pieces
            .iter()
            .map(|piece| match piece {
                TemplatePiece::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                TemplatePiece::Slot { source: SlotSource::Own(n), inside: false } => format!("<{n}>"),
                TemplatePiece::Slot { source: SlotSource::Own(n), inside: true } => format!("<{n} inside>"),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(shown, expected);
    }
}
