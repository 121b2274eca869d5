//! Histograms of times: bounds and precision in one place, and a compact form that a series of seconds can afford.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};

use crate::load::{Nanos, SECOND};

/// Times below are told apart in steps of half of this at most; above 1 ms the step is a thousandth of the time.
pub const LOWEST: Nanos = 1_000;
/// Longer times are recorded as this, and counted as clamped.
pub const HIGHEST: Nanos = 3_600 * SECOND;
pub const SIGNIFICANT_DIGITS: u8 = 3;

/// Counts of a whole run.
pub type Dense = Histogram<u64>;

/// An empty histogram with our bounds.
pub fn dense<C: hdrhistogram::Counter>() -> Histogram<C> {
    // The bounds are constants that the library accepts: low >= 1, high >= 2 * low, at most five digits.
    #[allow(clippy::unwrap_used)]
    Histogram::new_with_bounds(LOWEST, HIGHEST, SIGNIFICANT_DIGITS).unwrap()
}

/// A histogram in HdrHistogram's V2 encoding: some two bytes per distinct time. Empty where nothing was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compact(Box<[u8]>);

/// Why bytes are no histogram of ours.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    #[error("it is not in HdrHistogram's V2 encoding")]
    Encoding,
    #[error("its bounds or its precision differ from ours")]
    Bounds,
}

/// Bytes of the encoding that stand before the counts.
const HEADER: usize = 40;

/// Makes histograms compact, one after the other, in the same room.
pub struct Press(V2Serializer);

impl Default for Press {
    fn default() -> Self {
        Self(V2Serializer::new())
    }
}

impl Press {
    pub fn compact<C: hdrhistogram::Counter>(&mut self, histogram: &Histogram<C>) -> Compact {
        if histogram.is_empty() {
            return Compact::default();
        }
        let mut bytes = Vec::new();
        match self.0.serialize(histogram, &mut bytes) {
            Ok(_) => Compact(bytes.into_boxed_slice()),
            // Only writing can fail, and a vector takes everything.
            Err(_) => Compact::default(),
        }
    }
}

impl Compact {
    pub fn new<C: hdrhistogram::Counter>(histogram: &Histogram<C>) -> Self {
        Press::default().compact(histogram)
    }

    /// Reads what [`Compact::bytes`] gave, perhaps from a file: the bounds are checked before anything is allocated.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] where the bytes are no histogram with our bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        // The length of the counts stands behind the cookie; the library would make room for whatever it says.
        if bytes.len() < HEADER || bytes[4..8] != u32::try_from(bytes.len() - HEADER).unwrap_or(0).to_be_bytes() {
            return Err(DecodeError::Encoding);
        }
        let ours = Self::new(&{
            let mut one = dense::<u64>();
            one.saturating_record(0);
            one
        });
        // Significant digits, lowest and highest time stand there.
        if bytes[12..32] != ours.0[12..32] {
            return Err(DecodeError::Bounds);
        }
        let read: Result<Dense, _> = Deserializer::new().deserialize(&mut &bytes[..]);
        read.map(|histogram| Self::new(&histogram)).map_err(|_| DecodeError::Encoding)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// `None` where nothing was recorded.
    pub fn histogram(&self) -> Option<Dense> {
        // Made by `new`, so it can be read.
        if self.is_empty() { None } else { Deserializer::new().deserialize(&mut &self.0[..]).ok() }
    }

    pub fn add_to(&self, total: &mut Dense) {
        if let Some(histogram) = self.histogram() {
            // The bounds are the same.
            let _ = total.add(histogram);
        }
    }

    /// Both together.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        match (self.histogram(), other.histogram()) {
            (None, _) => other.clone(),
            (_, None) => self.clone(),
            (Some(mut both), Some(other)) => {
                let _ = both.add(other);
                Self::new(&both)
            }
        }
    }
}
