//! The bounded history of a conversation: the first and the last frames of each connection, with shortened payloads.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::outcome::{FrameReport, HookCallReport};
use crate::redact::SecretMasker;

/// The number of frames kept from the beginning and from the end of a connection.
const FIRST_FRAMES: usize = 16;
const LAST_FRAMES: usize = 32;
/// The number of characters of a payload that are kept for reports.
pub const KEPT_CHARS: usize = 600;
/// The number of last long frames that are kept whole until a finding needs them, the most characters of each, and the
/// number of frames that findings of a conversation may rest on.
const WHOLE_FRAMES: usize = 4;
const WHOLE_CHARS: usize = 64 << 10;
const FRAMES_OF_FINDINGS: usize = 16;
/// The number of last frames kept where histories are compared, and the number of bytes in them.
const LAST_COMPARED_FRAMES: usize = 1024;
const LAST_COMPARED_BYTES: usize = 4 << 20;
/// The most bytes of all calls of hooks that are kept.
const HOOK_CALL_BYTES: usize = 1 << 20;

pub struct FrameHistory {
    connections: BTreeMap<u32, ConnectionHistory>,
    hook_calls: Vec<HookCallReport>,
    /// The number of bytes in all calls of hooks.
    hook_bytes: usize,
    dropped: DroppedFrames,
    sequence: u64,
    /// The position of the latest event among all events of the conversation.
    latest_event: u64,
    pub masker: Arc<SecretMasker>,
    pub kept_chars: usize,
    pub trace: bool,
    whole: Mutex<WholeFrames>,
}

/// What is known of the frames that a history has dropped.
#[derive(Default)]
pub struct DroppedFrames {
    pub count: usize,
    /// Whether one of them mentioned a limit of the hub, such as a rate limit.
    pub name_limit: bool,
}

/// The whole texts of shortened frames.
#[derive(Default)]
struct WholeFrames {
    recent: VecDeque<String>,
    /// The texts that findings rest on.
    of_findings: Vec<String>,
}

#[derive(Default)]
struct ConnectionHistory {
    first: Vec<(u64, FrameReport)>,
    last: VecDeque<(u64, FrameReport)>,
    /// The number of bytes in `last`.
    bytes: usize,
}

impl FrameHistory {
    pub fn new(masker: Arc<SecretMasker>, kept_chars: usize, trace: bool) -> Self {
        Self {
            connections: BTreeMap::new(),
            hook_calls: Vec::new(),
            hook_bytes: 0,
            dropped: DroppedFrames::default(),
            sequence: 0,
            latest_event: 0,
            masker,
            kept_chars,
            trace,
            whole: Mutex::default(),
        }
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

    /// Returns a payload as the history keeps it: shortened, with its hash. Remembers the whole text for a while.
    pub fn kept_payload(&self, masked: &str) -> (String, Option<String>) {
        let kept = shorten_payload(masked, self.kept_chars);
        if kept.1.is_some() && masked.len() <= WHOLE_CHARS {
            let recent = &mut self.whole.lock().recent;
            recent.push_back(masked.to_owned());
            if recent.len() > WHOLE_FRAMES {
                recent.pop_front();
            }
        }
        kept
    }

    /// Keeps the last frames whole, because a finding rests on them.
    pub fn keep_last_frames(&self) {
        let mut whole = self.whole.lock();
        let recent = std::mem::take(&mut whole.recent);
        whole.of_findings.extend(recent);
        whole.of_findings.truncate(FRAMES_OF_FINDINGS);
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
            let Some((_, dropped)) = record.last.pop_front() else { break };
            record.bytes -= dropped.text.len();
            self.dropped.count += 1;
            self.dropped.name_limit |= dropped.names_a_limit();
        }
    }

    pub fn add_hook_call(&mut self, args: &Value, message: Option<&Value>) {
        let masked = |value: &Value| self.masker.mask_frame(&value.to_string()).into_owned();
        let (args, message) = (masked(args), message.map(masked));
        self.hook_bytes += args.len() + message.as_ref().map_or(0, String::len);
        if self.hook_bytes <= HOOK_CALL_BYTES {
            self.hook_calls.push(HookCallReport { after: self.sequence as usize, args, message });
        }
    }

    /// Returns the calls of hooks, unless they are too large to keep.
    pub fn take_hook_calls(&mut self) -> Option<Vec<HookCallReport>> {
        (self.hook_bytes <= HOOK_CALL_BYTES).then(|| std::mem::take(&mut self.hook_calls))
    }

    /// Returns the frames in the order in which they were recorded, and what is known of those dropped.
    pub fn finish(self) -> (Vec<FrameReport>, DroppedFrames) {
        let mut frames: Vec<_> =
            self.connections.into_values().flat_map(|record| record.first.into_iter().chain(record.last)).collect();
        frames.sort_by_key(|(sequence, _)| *sequence);
        let mut frames: Vec<FrameReport> = frames.into_iter().map(|(_, frame)| frame).collect();
        for text in self.whole.into_inner().of_findings {
            let (short, hash) = shorten_payload(&text, self.kept_chars);
            for frame in frames.iter_mut().filter(|frame| frame.hash == hash && frame.text == short) {
                (frame.text, frame.hash) = (text.clone(), None);
            }
        }
        (frames, self.dropped)
    }
}

/// Shortens the payload of a frame that was kept for a comparison, as far as reports shorten it.
pub fn shorten_frame(frame: &mut FrameReport) {
    if frame.text.len() > KEPT_CHARS {
        let (text, hash) = shorten_payload(&frame.text, KEPT_CHARS);
        frame.text = text;
        // The hash is that of the whole payload.
        frame.hash = frame.hash.take().or(hash);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;

    use super::*;
    use crate::outcome::{FrameKind, HistoryDirection};

    #[rstest]
    #[case::named(r#"{"error":"Rate limit exceeded"}"#, true)]
    #[case::named_with_escapes(r#"{"error":"R\u0061te limit exceeded"}"#, true)]
    #[case::others_only(r#"{"error":"no such job"}"#, false)]
    fn a_limit_that_the_hub_named_is_known_even_if_its_frame_was_dropped(#[case] middle: &str, #[case] known: bool) {
        let mut history = FrameHistory::new(Arc::default(), KEPT_CHARS, false);
        for number in 0..100 {
            let text = if number == 40 { middle } else { r#"{"type":"pong"}"# };
            history.add(FrameReport {
                at: Duration::from_millis(number),
                actor: "client".to_owned(),
                connection: 1,
                direction: HistoryDirection::Received,
                kind: FrameKind::Text,
                text: text.to_owned(),
                size: text.len(),
                hash: None,
                status: None,
            });
        }
        let (frames, dropped) = history.finish();
        assert!(frames.iter().all(|frame| frame.text != middle));
        assert_eq!((dropped.count, dropped.name_limit), (52, known));
    }
}
