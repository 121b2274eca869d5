//! The inbox of a connection: the frames that it received. A frame that a step expected is claimed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use crate::interpreter::decode::{decode_json, memory_weight};
use crate::protocol::{FrameDirection, MessageType, Pack};
use crate::scenario::value::Wire;

/// The most frames of an inbox. When it is full, the oldest frames are dropped, and the report says so.
const MAX_FRAMES: usize = 10_000;

/// The approximate limit in bytes for the messages of an inbox that are decoded again.
const MAX_DECODED_BYTES: usize = 48 << 20;

#[derive(Default)]
pub struct Inbox {
    pub frames: VecDeque<InboxFrame>,
    pub bytes: usize,
    /// The number of oldest frames of which at most the text is kept.
    kept_as_text: usize,
    /// The number of frames that were dropped unclaimed, until they are counted as leftovers.
    pub overflowed: usize,
    /// Position of the latest frame that was dropped unclaimed.
    pub dropped_up_to: u64,
    /// Whether frames were dropped, claimed or not.
    pub has_dropped: bool,
    /// The messages that a dropped frame may have been, by index in the pack.
    pub dropped_messages: BTreeSet<usize>,
}

impl Inbox {
    /// Adds a frame, and drops the oldest ones if there are too many.
    pub fn push(&mut self, entry: InboxFrame, pack: &Pack) {
        self.bytes += entry.weight;
        self.frames.push_back(entry);
        while self.frames.len() > MAX_FRAMES {
            self.drop_oldest(pack);
        }
    }

    /// Keeps only the text of the oldest frame of which more is kept. Returns whether that spares memory.
    pub fn keep_oldest_text(&mut self) -> bool {
        let mut spared = 0;
        while let (0, Some(entry)) = (spared, self.frames.get_mut(self.kept_as_text)) {
            spared = entry.keep_text();
            self.kept_as_text += 1;
        }
        self.bytes -= spared;
        spared > 0
    }

    /// Takes the JSON of all messages that the hub sent, in order. If that takes too much memory, the oldest messages count
    /// as dropped.
    pub fn take_messages(&mut self, pack: &Pack) -> Vec<(Value, Option<usize>, Arc<Wire>)> {
        let mut taken = Vec::new();
        let mut left = MAX_DECODED_BYTES;
        for entry in self.frames.iter_mut().rev().filter(|entry| entry.is_observed()) {
            let InboxFrameKind::Message { json, message } = &mut entry.kind else { continue };
            let json = match std::mem::replace(json, FrameJson::No) {
                FrameJson::No => continue,
                FrameJson::Decoded(json) => json,
                FrameJson::InText => {
                    let weight = memory_weight(&entry.wire.text);
                    let Some(rest) = left.checked_sub(weight) else {
                        let dropped = message.map_or(0..pack.messages.len(), |message| message..message + 1);
                        self.has_dropped = true;
                        self.dropped_messages.extend(dropped);
                        continue;
                    };
                    left = rest;
                    let Ok(json) = decode_json(&entry.wire.text, &pack.extension.numbers) else { continue };
                    json
                }
            };
            taken.push((json, *message, Arc::clone(&entry.wire)));
        }
        taken.reverse();
        taken
    }

    pub fn drop_oldest(&mut self, pack: &Pack) {
        let Some(oldest) = self.frames.pop_front() else { return };
        self.bytes -= oldest.weight;
        self.kept_as_text = self.kept_as_text.saturating_sub(1);
        self.has_dropped = true;
        let json = oldest.json(pack);
        for message in 0..pack.messages.len() {
            if !self.dropped_messages.contains(&message) && oldest.may_be(message, json.as_deref(), pack) {
                self.dropped_messages.insert(message);
            }
        }
        drop(json);
        if !oldest.claimed {
            self.overflowed += 1;
            self.dropped_up_to = oldest.wire.sequence;
        }
    }
}

#[derive(Clone)]
pub struct InboxFrame {
    pub wire: Arc<Wire>,
    pub kind: InboxFrameKind,
    pub claimed: bool,
    /// The approximate size of the frame in memory, in bytes.
    pub weight: usize,
}

#[derive(Clone)]
pub enum InboxFrameKind {
    /// `message` is the index of the recognised message in the pack.
    Message {
        json: FrameJson,
        message: Option<usize>,
    },
    /// JSON that exceeds the limits of decoding. The frame may be any message that `texts` does not rule out: the
    /// members by which messages are recognised, or `None` if they cannot be read.
    Undecodable {
        why: String,
        texts: Option<BTreeMap<String, Option<String>>>,
    },
    Control {
        pong: bool,
        data: Vec<u8>,
    },
}

/// The JSON of a frame.
#[derive(Clone)]
pub enum FrameJson {
    No,
    Decoded(Value),
    /// Only the text is kept, because the inboxes are full.
    InText,
}

impl InboxFrame {
    /// Returns the frame's JSON, in the documented form.
    pub fn json(&self, pack: &Pack) -> Option<Cow<'_, Value>> {
        match &self.kind {
            InboxFrameKind::Message { json: FrameJson::Decoded(json), .. } => Some(Cow::Borrowed(json)),
            InboxFrameKind::Message { json: FrameJson::InText, .. } => {
                decode_json(&self.wire.text, &pack.extension.numbers).ok().map(Cow::Owned)
            }
            _ => None,
        }
    }

    /// Keeps only the text of a frame whose JSON can be read from it again. Returns how much less memory it takes.
    fn keep_text(&mut self) -> usize {
        match &mut self.kind {
            InboxFrameKind::Message { json: json @ FrameJson::Decoded(_), .. }
                if self.wire.raw.is_none() && !self.wire.is_assumed() =>
            {
                *json = FrameJson::InText;
                let spared = self.weight.saturating_sub(self.wire.text.len());
                self.weight -= spared;
                spared
            }
            _ => 0,
        }
    }

    /// Whether the hub sent the frame, so that it is evidence: an assumed one is not.
    pub fn is_observed(&self) -> bool {
        !self.wire.is_assumed()
    }

    /// Returns why the content of the frame is unknown, if it could not be decoded.
    pub fn undecodable_reason(&self) -> Option<String> {
        let InboxFrameKind::Undecodable { why, .. } = &self.kind else { return None };
        Some(format!("cannot be decided: a received frame is JSON, but hubproof cannot decode it: {why}"))
    }

    /// Returns the name of the recognised message, or the kind of the frame.
    pub fn name<'p>(&self, pack: &'p Pack) -> &'p str {
        match &self.kind {
            InboxFrameKind::Message { message: Some(index), .. } => &pack.messages[*index].name,
            InboxFrameKind::Message { message: None, .. } => "undocumented",
            InboxFrameKind::Undecodable { .. } => "undecodable",
            InboxFrameKind::Control { pong: true, .. } => "pong",
            InboxFrameKind::Control { pong: false, .. } => "ping",
        }
    }

    /// Whether the frame is this message, or cannot be decoded and may be it.
    fn may_be(&self, message: usize, json: Option<&Value>, pack: &Pack) -> bool {
        match &self.kind {
            InboxFrameKind::Message { message: found, .. } => {
                json.is_some_and(|json| pack.is_message(message, *found, json, FrameDirection::FromHub))
            }
            InboxFrameKind::Undecodable { .. } => !self.cannot_be(&pack.messages[message]),
            InboxFrameKind::Control { .. } => false,
        }
    }

    /// Whether a frame that could not be decoded is certainly not this message.
    pub fn cannot_be(&self, message: &MessageType) -> bool {
        let InboxFrameKind::Undecodable { texts: Some(texts), .. } = &self.kind else { return false };
        message.matcher.required_texts().any(|(name, text)| texts.get(name).and_then(Option::as_deref) != Some(text))
    }
}
