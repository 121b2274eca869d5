//! Mutations of the WebSocket frames that carry a message.

use serde_json::{Value, json};

use super::payload::PayloadClass;
use crate::generate::rng::RandomSource;
use crate::scenario::template::{Piece, pieces};

/// How a message is put into frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FramingMutation {
    Fragments,
    PingBetween,
    EmptyFragments,
    Binary,
    EmptyBinary,
    InvalidUtf8,
    Oversize,
    Unmasked,
    ReservedOpcode,
    ReservedBit,
    LongPing,
    StrayContinuation,
    UnfinishedMessage,
    StrayPong,
}

impl FramingMutation {
    pub const ALL: [Self; 14] = [
        Self::Fragments,
        Self::PingBetween,
        Self::EmptyFragments,
        Self::Binary,
        Self::EmptyBinary,
        Self::InvalidUtf8,
        Self::Oversize,
        Self::Unmasked,
        Self::ReservedOpcode,
        Self::ReservedBit,
        Self::LongPing,
        Self::StrayContinuation,
        Self::UnfinishedMessage,
        Self::StrayPong,
    ];

    /// Describes the mutation in one sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Fragments => "A valid message is sent in two frames or more, if possible cut inside a character.",
            Self::PingBetween => "A ping is sent between two frames of a valid message.",
            Self::EmptyFragments => "A valid message is sent with empty frames around it.",
            Self::Binary => "The message, or bytes that are not UTF-8, are sent as a binary message.",
            Self::EmptyBinary => "An empty binary message is sent.",
            Self::InvalidUtf8 => "A text message has bytes that are not UTF-8. RFC 6455 requires close code 1007.",
            Self::Oversize => "A text message of a mebibyte is sent.",
            Self::Unmasked => "A frame of the client is not masked, which RFC 6455 forbids.",
            Self::ReservedOpcode => "A frame has an opcode that RFC 6455 reserves.",
            Self::ReservedBit => "A frame has a reserved bit set, though no extension was negotiated.",
            Self::LongPing => "A ping has more than the 125 bytes that RFC 6455 allows.",
            Self::StrayContinuation => "A continuation frame comes without a beginning.",
            Self::UnfinishedMessage => "The first frame of a message is sent, but never the last.",
            Self::StrayPong => "A pong is sent without a ping, which RFC 6455 allows.",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Fragments => "fragments",
            Self::PingBetween => "ping-between-fragments",
            Self::EmptyFragments => "empty-fragments",
            Self::Binary => "binary",
            Self::EmptyBinary => "empty-binary",
            Self::InvalidUtf8 => "invalid-utf8",
            Self::Oversize => "oversize",
            Self::Unmasked => "unmasked",
            Self::ReservedOpcode => "reserved-opcode",
            Self::ReservedBit => "reserved-bit",
            Self::LongPing => "long-ping",
            Self::StrayContinuation => "stray-continuation",
            Self::UnfinishedMessage => "unfinished-message",
            Self::StrayPong => "stray-pong",
        }
    }

    /// Returns the class by RFC 6455: fragmentation is valid; documents are silent about binary messages.
    pub fn class(self) -> PayloadClass {
        match self {
            Self::Fragments | Self::PingBetween | Self::EmptyFragments | Self::StrayPong => PayloadClass::Valid,
            Self::Binary | Self::EmptyBinary | Self::Oversize | Self::UnfinishedMessage => PayloadClass::Unspecified,
            Self::InvalidUtf8
            | Self::Unmasked
            | Self::ReservedOpcode
            | Self::ReservedBit
            | Self::LongPing
            | Self::StrayContinuation => PayloadClass::Broken,
        }
    }

    /// Returns the argument of `sends raw` for a message with the JSON text `json`, which may hold expressions.
    pub fn raw_argument(self, json: &str, dice: &mut RandomSource) -> Value {
        let frame = |opcode: &str, fin: bool, data: &str| json!({ "opcode": opcode, "fin": fin, "data": data });
        // Splits after a comma, so that no character and no expression is cut in two.
        let comma = literals(json).find_map(|(start, literal)| Some(start + literal.find(',')?));
        let cut = comma.map_or(json.len(), |at| at + 1);
        let (first, second) = json.split_at(cut);
        let frames = match self {
            Self::Fragments => match split_last_wide_character(json) {
                Some((before, letter, after)) => {
                    let bytes = |opcode: &str, bytes: &[u8]| {
                        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                        json!({ "opcode": opcode, "fin": false, "hex": hex.join(" ") })
                    };
                    let (one, other) = letter.split_at(1 + dice.draw_below(letter.len() - 1));
                    vec![
                        frame("text", false, before),
                        bytes("continuation", one),
                        bytes("continuation", other),
                        frame("continuation", true, after),
                    ]
                }
                None => vec![frame("text", false, first), frame("continuation", true, second)],
            },
            Self::PingBetween => {
                vec![frame("text", false, first), frame("ping", true, "between"), frame("continuation", true, second)]
            }
            Self::EmptyFragments => {
                let mut frames = vec![frame("text", false, "")];
                frames.extend((0..dice.draw_below(20)).map(|_| frame("continuation", false, "")));
                frames.extend([frame("continuation", false, json), frame("continuation", true, "")]);
                frames
            }
            // Bytes that are not UTF-8.
            Self::Binary if dice.one_in(2) => vec![json!({ "opcode": "binary", "hex": "ff fe 00 80 c1" })],
            Self::Binary => vec![frame("binary", true, json)],
            Self::EmptyBinary => vec![frame("binary", true, "")],
            Self::InvalidUtf8 => {
                let bytes =
                    dice.pick(&["ff", "c0 80", "ed a0 80", "f4 90 80 80", "e2 82", "7b ff 7d"]).unwrap_or(&"ff");
                vec![json!({ "opcode": "text", "hex": bytes })]
            }
            Self::Oversize => return json!({ "text": "${repeat('x', 1048576)}" }),
            Self::Unmasked => vec![json!({ "opcode": "text", "mask": false, "data": json })],
            Self::ReservedOpcode => {
                let opcode = *dice.pick(&[3, 4, 5, 6, 7, 11, 12, 13, 14, 15]).unwrap_or(&3);
                vec![json!({ "opcode": opcode, "data": json })]
            }
            Self::ReservedBit => vec![json!({ "opcode": "text", "rsv": 1 + dice.draw_below(7), "data": json })],
            Self::LongPing => vec![frame("ping", true, &"p".repeat(126 + dice.draw_below(100)))],
            Self::StrayContinuation => vec![frame("continuation", true, json)],
            Self::UnfinishedMessage => vec![frame("text", false, json)],
            Self::StrayPong => vec![frame("pong", true, "unsolicited"), frame("text", true, json)],
        };
        json!({ "frames": frames })
    }
}

/// Returns the parts of a text outside of expressions, with their positions.
fn literals(text: &str) -> impl DoubleEndedIterator<Item = (usize, &str)> {
    let literal = |piece| match piece {
        Piece::Literal(range) => Some((range.start, &text[range])),
        Piece::Expression(_) => None,
    };
    pieces(text).unwrap_or_default().into_iter().filter_map(literal)
}

/// Splits a text around its last multi-byte character; the middle part is that character's bytes.
fn split_last_wide_character(text: &str) -> Option<(&str, &[u8], &str)> {
    let last = |literal: &str| literal.char_indices().rfind(|(_, letter)| !letter.is_ascii());
    let (at, letter) =
        literals(text).rev().find_map(|(start, literal)| last(literal).map(|(at, letter)| (start + at, letter)))?;
    let end = at + letter.len_utf8();
    Some((&text[..at], &text.as_bytes()[at..end], &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_expression_is_torn_into_two_frames() {
        for framing in [FramingMutation::Fragments, FramingMutation::PingBetween] {
            let raw = framing.raw_argument(r#"{"ä":${json([hub.a, 'ö'])}}"#, &mut RandomSource::for_case(1, 1));
            for frame in raw["frames"].as_array().unwrap() {
                assert!(frame["data"].as_str().is_none_or(|data| pieces(data).is_ok()), "{raw}");
            }
        }
    }
}
