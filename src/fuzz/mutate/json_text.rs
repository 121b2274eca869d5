//! Mutations of a message's text into one that is not JSON, or on which parsers disagree.

use super::payload::PayloadClass;
use crate::generate::rng::RandomSource;
use crate::scenario::template::{Piece, pieces};

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

    /// Returns the corrupted text of a valid message, whose text `json` is a JSON object.
    pub fn corrupt(self, json: &str, dice: &mut RandomSource) -> String {
        let open = json.strip_suffix('}').unwrap_or(json);
        let comma = if open.ends_with('{') { "" } else { "," };
        match self {
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
                if let Some(Piece::Expression(inside)) = pieces(json).unwrap_or_default().into_iter().find(is_cut) {
                    end = inside.start - 2;
                }
                json[..end].trim_end_matches('$').to_owned()
            }
            Self::TrailingComma => format!("{open},}}"),
            Self::Comment => format!("/* {} */{json}", dice.draw_below(1000)),
            Self::Nan => {
                let word = dice.pick(&["NaN", "Infinity", "-Infinity", "undefined"]).copied().unwrap_or("NaN");
                format!("{open}{comma}\"x_n\":{word}}}")
            }
            Self::ByteOrderMark => format!("\u{feff}{json}"),
            Self::SingleQuotes => json.replace('"', "'"),
            Self::BareKeys => json.replace("\":", ":").replace(",\"", ",").replace("{\"", "{"),
            Self::ControlCharacter => format!("{open}{comma}\"x_c\":\"a\u{1}\nb\"}}"),
            Self::BadEscape => format!("{open}{comma}\"x_e\":\"\\x41\"}}"),
            Self::TwoValues => format!("{json} {json}"),
            Self::Nothing => (*dice.pick(&["", " ", "\n\n"]).unwrap_or(&"")).to_owned(),
            Self::NoJson => {
                (*dice.pick(&["hello", "<xml/>", "GET / HTTP/1.1", "type=ping", "{", "]", "\u{0}"]).unwrap_or(&"hello"))
                    .to_owned()
            }
            Self::LeadingZero => format!("{open}{comma}\"x_z\":0{}}}", 1 + dice.draw_below(99)),
            Self::Nested => {
                let (left, right) = *dice.pick(&[("[", "]"), ("{\"a\":", "}")]).unwrap_or(&("[", "]"));
                format!("{}1{}", left.repeat(10_000), right.repeat(10_000))
            }
            Self::OtherKind => {
                (*dice.pick(&["null", "true", "0", "\"text\"", "[]", "[{}]", "{}"]).unwrap_or(&"null")).to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_expression_is_cut_in_two() {
        let json = r#"{"a":${json(hub['}']['x']) ~ "}"}}"#;
        for number in 0..200 {
            let text = JsonCorruption::Truncated.corrupt(json, &mut RandomSource::for_case(1, number));
            assert!(pieces(&text).is_ok(), "{text}");
        }
    }

    #[test]
    fn no_json_parser_accepts_texts_of_class_malformed() {
        let json = r#"{"type":"ping","n":1,"text":"ä"}"#;
        for corruption in JsonCorruption::ALL {
            for number in 0..50 {
                let text = corruption.corrupt(json, &mut RandomSource::for_case(1, number));
                let parsed = serde_json::from_str::<serde_json::Value>(&text);
                match corruption.class() {
                    PayloadClass::Malformed => assert!(parsed.is_err(), "{}: {text}", corruption.name()),
                    PayloadClass::Unknown => assert!(parsed.is_ok(), "{}: {text}", corruption.name()),
                    _ => {}
                }
            }
        }
    }
}
