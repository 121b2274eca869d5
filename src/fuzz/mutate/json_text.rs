//! Mutations of a message's text into one that is not JSON, or on which parsers disagree.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::payload::{self, PayloadChange, PayloadClass, PayloadEdit};
use crate::fuzz::expressions;
use crate::generate::rng::RandomSource;
use crate::scenario::template::{Piece, pieces};
use crate::syntax::json_schema::json_type;

/// How the text of a message is corrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JsonCorruption {
    Truncated,
    TrailingComma,
    Comment,
    Nan,
    ByteOrderMark,
    SingleQuotes,
    BareKeys,
    ControlCharacter,
    BadEscape,
    TwoValues,
    Nothing,
    NoJson,
    LeadingZero,
    Nested,
    OtherKind,
}

impl JsonCorruption {
    pub const ALL: [Self; 15] = [
        Self::Truncated,
        Self::TrailingComma,
        Self::Comment,
        Self::Nan,
        Self::ByteOrderMark,
        Self::SingleQuotes,
        Self::BareKeys,
        Self::ControlCharacter,
        Self::BadEscape,
        Self::TwoValues,
        Self::Nothing,
        Self::NoJson,
        Self::LeadingZero,
        Self::Nested,
        Self::OtherKind,
    ];

    /// Describes the mutation in one sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Truncated => "The text of the message ends in the middle.",
            Self::TrailingComma => "The text has a comma too many before its end.",
            Self::Comment => "A comment precedes the message; JSON has none.",
            Self::Nan => "A member is NaN, which is not JSON but which some parsers accept.",
            Self::ByteOrderMark => "A byte order mark precedes the message.",
            Self::SingleQuotes => "Texts are in single quotes.",
            Self::BareKeys => "The names of members are not in quotes.",
            Self::ControlCharacter => "A text has an unescaped control character.",
            Self::BadEscape => "A text has an escape sequence that JSON does not have.",
            Self::TwoValues => "A second value follows the message in the same text.",
            Self::Nothing => "The text is empty.",
            Self::NoJson => "The text is not JSON at all.",
            Self::LeadingZero => "A number begins with a zero.",
            Self::Nested => "A value is nested in ten thousand lists.",
            Self::OtherKind => "The text is JSON of another kind, such as a list or a number instead of an object.",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::TrailingComma => "trailing-comma",
            Self::Comment => "comment",
            Self::Nan => "nan",
            Self::ByteOrderMark => "byte-order-mark",
            Self::SingleQuotes => "single-quotes",
            Self::BareKeys => "bare-keys",
            Self::ControlCharacter => "control-character",
            Self::BadEscape => "bad-escape",
            Self::TwoValues => "two-values",
            Self::Nothing => "no-text",
            Self::NoJson => "no-json",
            Self::LeadingZero => "leading-zero",
            Self::Nested => "nested-ten-thousand",
            Self::OtherKind => "no-object",
        }
    }

    /// Returns the class. Parsers may ignore a byte order mark (RFC 8259, section 8.1), accept more than JSON (section
    /// 9) and limit the nesting, and some leave what follows a value unread; documents are silent about all of these.
    pub fn class(self) -> PayloadClass {
        match self {
            Self::Truncated | Self::Nothing | Self::NoJson => PayloadClass::Malformed,
            Self::TrailingComma
            | Self::SingleQuotes
            | Self::BareKeys
            | Self::TwoValues
            | Self::BadEscape
            | Self::Comment
            | Self::Nan
            | Self::ByteOrderMark
            | Self::ControlCharacter
            | Self::LeadingZero
            | Self::Nested => PayloadClass::Unspecified,
            Self::OtherKind => PayloadClass::Unknown,
        }
    }

    /// Returns the corrupted text of a valid message, which may hold expressions; `None` where the message gives nothing
    /// to corrupt in this way.
    pub fn corrupt(self, message: &Value, dice: &mut RandomSource) -> Option<String> {
        let json = payload::payload_text(message, &[]);
        // Puts a text that is not JSON where a value can be added.
        let put = |name: &str, text: String| {
            let edit = PayloadEdit { pointer: payload::place_to_add(message, name), change: PayloadChange::Text(text) };
            payload::payload_text(message, &[edit])
        };
        // Inserts into the text of which the message consists, or adds one.
        let put_in_text = |name: &str, inserted: &str| match message {
            Value::String(text) if expressions::is_literal(text) => json.replacen('"', &format!("\"{inserted}"), 1),
            _ => put(name, format!("\"{inserted}\"")),
        };
        let changed = match self {
            Self::Truncated => {
                let mut end = 1 + dice.draw_below(json.len().saturating_sub(2));
                while !json.is_char_boundary(end) {
                    end -= 1;
                }
                // Drops an expression that was cut in two.
                let is_cut = |piece: &Piece| match piece {
                    Piece::Expression(inside) => inside.start - 2 < end && end <= inside.end,
                    Piece::Literal(_) => false,
                };
                if let Some(Piece::Expression(inside)) = pieces(&json).unwrap_or_default().into_iter().find(is_cut) {
                    end = inside.start - 2;
                }
                let cut = json.get(..end)?.trim_end_matches('$').to_owned();
                Some(cut).filter(|cut| !cut.is_empty())?
            }
            Self::TrailingComma => match json.char_indices().next_back() {
                Some((last, '}' | ']')) if !matches!(message, Value::String(_)) => {
                    format!("{},{}", &json[..last], &json[last..])
                }
                _ => format!("{json},"),
            },
            Self::Comment => format!("/* {} */{json}", dice.draw_below(1000)),
            Self::Nan => {
                let word = dice.pick(&["NaN", "Infinity", "-Infinity", "undefined"]).copied().unwrap_or("NaN");
                put("x_n", word.to_owned())
            }
            Self::ByteOrderMark => format!("\u{feff}{json}"),
            Self::SingleQuotes => changed_outside_expressions(&json, |literal| literal.replace('"', "'")),
            Self::BareKeys => {
                changed_outside_expressions(&json, |literal| QUOTED_KEY.replace_all(literal, "$1$2:").into_owned())
            }
            Self::ControlCharacter => put_in_text("x_c", "a\u{1}\nb"),
            Self::BadEscape => put_in_text("x_e", "\\x41"),
            Self::TwoValues => format!("{json} {json}"),
            Self::Nothing => (*dice.pick(&["", " ", "\n\n"])?).to_owned(),
            Self::NoJson => {
                (*dice.pick(&["hello", "<xml/>", "GET / HTTP/1.1", "type=ping", "{", "]", "\u{0}"])?).to_owned()
            }
            Self::LeadingZero => put("x_z", format!("0{}", 1 + dice.draw_below(99))),
            Self::Nested => {
                let (left, right) = *dice.pick(&[("[", "]"), ("{\"a\":", "}")])?;
                format!("{}1{}", left.repeat(10_000), right.repeat(10_000))
            }
            Self::OtherKind => {
                let kinds = [
                    ("null", "null"),
                    ("boolean", "true"),
                    ("number", "0"),
                    ("string", "\"text\""),
                    ("array", "[]"),
                    ("array", "[{}]"),
                    // An object without any member of the message.
                    ("", "{}"),
                ];
                let kind = json_type(message);
                let others: Vec<&str> =
                    kinds.into_iter().filter(|(other, _)| *other != kind).map(|(_, text)| text).collect();
                (*dice.pick(&others)?).to_owned()
            }
        };
        (changed != json).then_some(changed)
    }
}

/// A member's name in quotes, and what is in front of it.
static QUOTED_KEY: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"([{,])"([^"\\]*)":"#).expect("a valid pattern"));

/// Changes a text, but not its expressions.
fn changed_outside_expressions(text: &str, change: impl Fn(&str) -> String) -> String {
    let changed = |piece| match piece {
        Piece::Literal(range) => change(&text[range]),
        Piece::Expression(range) => text[range.start - 2..range.end + 1].to_owned(),
    };
    pieces(text).unwrap_or_default().into_iter().map(changed).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[test]
    fn no_expression_is_cut_in_two_or_changed() {
        let message = json!({ "a": "${hub['}']['x'] ~ \",}\"}", "b": ["${f(\"a\",\"b\")}", "x"] });
        for corruption in JsonCorruption::ALL {
            for number in 0..200 {
                let Some(text) = corruption.corrupt(&message, &mut RandomSource::for_case(1, number)) else { continue };
                let found = pieces(&text).unwrap_or_else(|_| panic!("{text}"));
                let inside = found.iter().filter_map(|piece| match piece {
                    Piece::Expression(range) => Some(&text[range.clone()]),
                    Piece::Literal(_) => None,
                });
                let known = ["json(hub['}']['x'] ~ \",}\")", "json(f(\"a\",\"b\"))"];
                assert!(inside.clone().all(|inside| known.contains(&inside)), "{text}");
            }
        }
    }

    #[rstest]
    #[case::object(json!({"type":"ping","n":1,"text":"ä"}), &[])]
    #[case::list_with_an_object(json!([2, "id", "Heartbeat", {}]), &["bare-keys"])]
    #[case::list_with_members(json!([2, "a,\"b\":", { "k": 1 }]), &[])]
    #[case::list(json!([2, "id"]), &["bare-keys"])]
    #[case::text(json!("ping"), &["bare-keys"])]
    #[case::number(json!(1234), &["single-quotes", "bare-keys"])]
    fn every_kind_of_message_is_corrupted(#[case] message: Value, #[case] not: &[&str]) {
        let json = message.to_string();
        for corruption in JsonCorruption::ALL {
            for number in 0..50 {
                let text = corruption.corrupt(&message, &mut RandomSource::for_case(1, number));
                assert_eq!(text.is_none(), not.contains(&corruption.name()), "{}: {text:?}", corruption.name());
                let Some(text) = text else { continue };
                let parsed = serde_json::from_str::<serde_json::Value>(&text);
                match corruption {
                    // Half a number is a number.
                    JsonCorruption::Truncated if message.is_number() => {}
                    // A parser may accept this.
                    JsonCorruption::ByteOrderMark | JsonCorruption::Nested => {}
                    JsonCorruption::OtherKind => assert!(parsed.is_ok(), "{text}"),
                    _ => assert!(parsed.is_err(), "{}: {text}", corruption.name()),
                }
                // The message itself is corrupted, and nothing follows its end.
                let added = ["nan", "bad-escape", "control-character", "leading-zero"].contains(&corruption.name());
                let last = json.chars().last().filter(|last| "}]".contains(*last));
                assert!(!added || last.is_none_or(|last| text.ends_with(last)), "{text}");
            }
        }
    }
}
