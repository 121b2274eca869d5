//! Whether a frame or a value was observed or only assumed.
//!
//! If the target declares that the hub never sends a message, a client continues as if the message had come. Nothing that
//! follows from it is evidence about the hub, so it is not timed, counted as received, or recorded in the ledger.

use std::ops::Range;

pub use crate::scenario::value::Provenance;

/// A text in its documented form, as a client handles it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveredFrame<'a> {
    pub text: &'a [u8],
    pub source: Provenance,
    /// The values in an observed text that the hub left out.
    assumed_values: &'a [AssumedValue],
}

/// The value of a member that the hub left out of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssumedValue {
    /// The bytes of the value in the text.
    pub bytes: Range<usize>,
    pub deviation: u16,
}

impl<'a> DeliveredFrame<'a> {
    /// A frame of the hub.
    pub fn observed(text: &'a [u8]) -> Self {
        Self::observed_with(text, &[])
    }

    /// A frame of the hub, completed by the members that it lacks.
    pub fn observed_with(text: &'a [u8], assumed_values: &'a [AssumedValue]) -> Self {
        Self { text, source: Provenance::Observed, assumed_values }
    }

    /// A frame that the hub never sends, because of the declared deviation with this index.
    pub fn assumed(text: &'a [u8], deviation: u16) -> Self {
        Self { text, source: Provenance::Assumed { deviation }, assumed_values: &[] }
    }

    /// Returns the values that the hub left out.
    pub fn assumed_values(&self) -> &'a [AssumedValue] {
        self.assumed_values
    }

    /// Returns the source of a part of this frame's text.
    pub fn source_of(&self, part: &[u8]) -> Provenance {
        if self.assumed_values.is_empty() {
            return self.source;
        }
        let start = (part.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        let overlaps = |value: &&AssumedValue| start < value.bytes.end && value.bytes.start < start + part.len();
        match self.assumed_values.iter().find(overlaps) {
            Some(value) => Provenance::Assumed { deviation: value.deviation },
            None => self.source,
        }
    }
}

/// The text of a value, and its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcedText<'a> {
    pub bytes: &'a [u8],
    pub source: Provenance,
}

impl<'a> SourcedText<'a> {
    /// Returns the text if the hub sent it.
    pub fn observed(self) -> Option<&'a [u8]> {
        (!self.source.is_assumed()).then_some(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_frame_is_assumed_if_the_hub_left_it_out() {
        let text = br#"{"type":"a","data":{"id":7,"n":1}}"#;
        let at = |part: &str| {
            let start = std::str::from_utf8(text).unwrap().find(part).unwrap();
            start..start + part.len()
        };
        let values = [AssumedValue { bytes: at("7"), deviation: 3 }];
        let frame = DeliveredFrame::observed_with(text, &values);
        let assumed = Provenance::Assumed { deviation: 3 };
        for (part, source) in [
            ("7", assumed),
            (r#"{"id":7,"n":1}"#, assumed),
            ("1", Provenance::Observed),
            (r#""a""#, Provenance::Observed),
        ] {
            assert_eq!(frame.source_of(&text[at(part)]), source, "{part}");
        }
        assert_eq!(DeliveredFrame::assumed(text, 1).source_of(&text[at("1")]), Provenance::Assumed { deviation: 1 });
    }
}
