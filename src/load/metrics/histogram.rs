//! Histograms of times with fixed bounds and precision, and a compact form for a series of intervals.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};

use crate::load::{Nanos, SECOND};

/// The lower bound. The resolution is at most half of this; above 1 ms it is a thousandth of the time.
pub const LOWEST_TIME: Nanos = 1_000;
/// The upper bound: longer times are recorded as this and counted as clamped.
pub const HIGHEST_TIME: Nanos = 3_600 * SECOND;
pub const SIGNIFICANT_DIGITS: u8 = 3;

/// A histogram of a whole run.
pub type DenseHistogram = Histogram<u64>;

/// Creates an empty histogram with the bounds [`LOWEST_TIME`] and [`HIGHEST_TIME`].
pub fn new_dense_histogram<C: hdrhistogram::Counter>() -> Histogram<C> {
    // These constant bounds are valid: low >= 1, high >= 2 * low, at most five digits.
    #[allow(clippy::unwrap_used)]
    Histogram::new_with_bounds(LOWEST_TIME, HIGHEST_TIME, SIGNIFICANT_DIGITS).unwrap()
}

/// A histogram in HdrHistogram's V2 encoding: about two bytes per distinct time; empty if it has no samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactHistogram(Box<[u8]>);

/// An error of [`CompactHistogram::decode`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HistogramDecodeError {
    #[error("the bytes are not in HdrHistogram's V2 encoding")]
    Encoding,
    #[error("the histogram's bounds or precision differ from hubproof's")]
    Bounds,
}

/// Bytes of the encoding before the counts.
const HEADER_BYTES: usize = 40;

/// Encodes histograms, reusing one buffer.
pub struct HistogramEncoder(V2Serializer);

impl Default for HistogramEncoder {
    fn default() -> Self {
        Self(V2Serializer::new())
    }
}

impl HistogramEncoder {
    pub fn encode<C: hdrhistogram::Counter>(&mut self, histogram: &Histogram<C>) -> CompactHistogram {
        if histogram.is_empty() {
            return CompactHistogram::default();
        }
        let mut bytes = Vec::new();
        match self.0.serialize(histogram, &mut bytes) {
            Ok(_) => CompactHistogram(bytes.into_boxed_slice()),
            // Only writing can fail, and a vector accepts everything.
            Err(_) => CompactHistogram::default(),
        }
    }
}

impl CompactHistogram {
    pub fn new<C: hdrhistogram::Counter>(histogram: &Histogram<C>) -> Self {
        HistogramEncoder::default().encode(histogram)
    }

    /// Decodes the output of [`CompactHistogram::bytes`], which may come from a file: the bounds are checked before
    /// anything is allocated.
    ///
    /// # Errors
    ///
    /// [`HistogramDecodeError`] if the bytes are not a histogram with these bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, HistogramDecodeError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        // The length of the counts follows the cookie; the library would allocate that much unchecked.
        if bytes.len() < HEADER_BYTES
            || bytes[4..8] != u32::try_from(bytes.len() - HEADER_BYTES).unwrap_or(0).to_be_bytes()
        {
            return Err(HistogramDecodeError::Encoding);
        }
        let ours = Self::new(&{
            let mut one = new_dense_histogram::<u64>();
            one.saturating_record(0);
            one
        });
        // Significant digits, lowest and highest time.
        if bytes[12..32] != ours.0[12..32] {
            return Err(HistogramDecodeError::Bounds);
        }
        let read: Result<DenseHistogram, _> = Deserializer::new().deserialize(&mut &bytes[..]);
        read.map(|histogram| Self::new(&histogram)).map_err(|_| HistogramDecodeError::Encoding)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Decodes the histogram; `None` if it has no samples.
    pub fn histogram(&self) -> Option<DenseHistogram> {
        // `new` or `decode` has made sure that it can be decoded.
        if self.is_empty() { None } else { Deserializer::new().deserialize(&mut &self.0[..]).ok() }
    }

    /// Returns the sum of two histograms.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        match (self.histogram(), other.histogram()) {
            (None, _) => other.clone(),
            (_, None) => self.clone(),
            (Some(mut both), Some(other)) => {
                // The bounds are the same.
                let _ = both.add(other);
                Self::new(&both)
            }
        }
    }
}
