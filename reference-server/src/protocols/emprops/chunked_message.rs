//! Long messages in chunks (lines 662 to 686), collected per connection and chunk id.
//!
//! The document does not define the hash. Here the first chunk has index 0, each chunk is the base64 of its slice of
//! the message's bytes, and the hash is the SHA-256 of all bytes in hex.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};
use sha2::{Digest, Sha256};

/// Base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes a chunk.
pub fn decode_chunk(data: &str) -> Result<Vec<u8>, base64::DecodeError> {
    BASE64.decode(data)
}

/// Encodes bytes as base64.
pub fn encode_chunk(data: &[u8]) -> String {
    BASE64.encode(data)
}

/// An incomplete message in chunks.
#[derive(Debug)]
pub struct IncompleteMessage {
    /// `total_chunks`.
    pub total: usize,
    /// `data_hash`.
    pub hash: String,
    /// When the message is dropped if it is still incomplete, in time since the start of the hub.
    pub until: Duration,
    parts: BTreeMap<usize, Vec<u8>>,
    bytes: usize,
}

impl IncompleteMessage {
    /// A message of which no chunk has been received.
    pub fn new(total: usize, hash: String, until: Duration) -> IncompleteMessage {
        IncompleteMessage { total, hash, until, parts: BTreeMap::new(), bytes: 0 }
    }

    /// The number of bytes received.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of chunks received.
    pub fn count(&self) -> usize {
        self.parts.len()
    }

    /// Whether the chunk with this index has been received.
    pub fn has_chunk(&self, index: usize) -> bool {
        self.parts.contains_key(&index)
    }

    /// Adds a chunk, unless its index has been received already.
    pub fn add(&mut self, index: usize, data: Vec<u8>) {
        if !self.has_chunk(index) {
            self.bytes += data.len();
            self.parts.insert(index, data);
        }
    }

    /// Whether all chunks have been received.
    pub fn is_complete(&self) -> bool {
        self.parts.len() == self.total
    }

    /// Joins all chunks in order.
    pub fn assemble(self) -> Vec<u8> {
        let mut whole = Vec::with_capacity(self.bytes);
        self.parts.into_values().for_each(|part| whole.extend_from_slice(&part));
        whole
    }
}

/// Whether `hash` is the SHA-256 of `data`, in hex, in either case.
pub fn matches_hash(hash: &str, data: &[u8]) -> bool {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(data) {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex.eq_ignore_ascii_case(hash.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_assembled_in_any_order() {
        let mut series = IncompleteMessage::new(3, String::new(), Duration::ZERO);
        for (index, text) in [(2, "c"), (0, "a"), (2, "z")] {
            series.add(index, text.as_bytes().to_vec());
        }
        assert!(!series.is_complete());
        series.add(1, b"b".to_vec());
        assert!(series.is_complete());
        assert_eq!(series.bytes(), 3);
        assert_eq!(series.assemble(), b"abc");
    }

    #[test]
    fn the_hash_of_a_chunked_message_is_sha_256_in_hex() {
        const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(matches_hash(ABC, b"abc") && matches_hash(&ABC.to_uppercase(), b"abc"));
        assert!(!matches_hash(ABC, b"abd") && !matches_hash("", b"abc"));
    }

    #[test]
    fn base64_padding_of_a_chunk_is_optional() {
        assert_eq!(decode_chunk("YQ==").unwrap(), b"a");
        assert_eq!(decode_chunk("YQ").unwrap(), b"a");
        assert!(decode_chunk("Y Q").is_err());
    }
}
