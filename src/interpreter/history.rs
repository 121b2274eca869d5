//! The bounded history of a conversation: the first and the last frames of each connection, with shortened payloads.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::ConversationConfig;
use crate::outcome::FrameReport;
use crate::redact::SecretMasker;

/// The number of frames kept from the beginning and from the end of a connection.
const FIRST_FRAMES: usize = 16;
const LAST_FRAMES: usize = 32;
/// The number of characters of a payload that are kept for reports.
pub const KEPT_CHARS: usize = 600;
/// The number of last frames kept where histories are compared, and the number of bytes in them.
const LAST_COMPARED_FRAMES: usize = 1024;
const LAST_COMPARED_BYTES: usize = 4 << 20;

pub struct FrameHistory {
    connections: BTreeMap<u32, ConnectionHistory>,
    dropped: usize,
    sequence: u64,
    /// The position of the latest event among all events of the conversation.
    latest_event: u64,
    pub masker: Arc<SecretMasker>,
    pub kept_chars: usize,
    pub trace: bool,
}

#[derive(Default)]
struct ConnectionHistory {
    first: Vec<(u64, FrameReport)>,
    last: VecDeque<(u64, FrameReport)>,
    /// The number of bytes in `last`.
    bytes: usize,
}

impl FrameHistory {
    pub fn new(config: &ConversationConfig) -> Self {
        let ConversationConfig { masker, kept_chars, trace, .. } = config;
        let (connections, masker) = (BTreeMap::new(), Arc::clone(masker));
        Self { connections, dropped: 0, sequence: 0, latest_event: 0, masker, kept_chars: *kept_chars, trace: *trace }
    }

    pub fn next_event(&mut self) -> u64 {
        self.latest_event += 1;
        self.latest_event
    }

    /// Returns the position of the latest event.
    pub fn position(&self) -> u64 {
        self.latest_event
    }

    /// Returns a text for a report. It is masked before it is shortened, so that no part of a secret remains.
    pub fn shown(&self, text: &str, most: usize) -> String {
        crate::syntax::matcher::shorten(&self.masker.mask(text), most)
    }

    pub fn add(&mut self, frame: FrameReport) {
        self.sequence += 1;
        let record = self.connections.entry(frame.connection).or_default();
        if record.first.len() < FIRST_FRAMES {
            record.first.push((self.sequence, frame));
            return;
        }
        let most = if self.kept_chars > KEPT_CHARS { LAST_COMPARED_FRAMES } else { LAST_FRAMES };
        record.bytes += frame.text.len();
        record.last.push_back((self.sequence, frame));
        while record.last.len() > most || (record.bytes > LAST_COMPARED_BYTES && record.last.len() > LAST_FRAMES) {
            let dropped = record.last.pop_front();
            record.bytes -= dropped.map_or(0, |(_, frame)| frame.text.len());
            self.dropped += 1;
        }
    }

    /// Returns the frames in the order in which they were recorded, and how many were dropped.
    pub fn finish(self) -> (Vec<FrameReport>, usize) {
        let mut frames: Vec<_> =
            self.connections.into_values().flat_map(|record| record.first.into_iter().chain(record.last)).collect();
        frames.sort_by_key(|(sequence, _)| *sequence);
        (frames.into_iter().map(|(_, frame)| frame).collect(), self.dropped)
    }
}

/// Shortens the payload of a frame that was kept for a comparison, as far as reports shorten it.
pub fn shorten_frame(frame: &mut FrameReport) {
    if frame.hash.is_none() && frame.text.len() > KEPT_CHARS {
        (frame.text, frame.hash) = shorten_payload(&frame.text, KEPT_CHARS);
    }
}

/// Returns a payload shortened to `kept_chars` characters, and its hash if it was longer.
pub fn shorten_payload(text: &str, kept_chars: usize) -> (String, Option<String>) {
    match text.char_indices().nth(kept_chars) {
        None => (text.to_owned(), None),
        Some((at, _)) => {
            let hash = Sha256::digest(text).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
            (format!("{}...", &text[..at]), Some(hash))
        }
    }
}
