//! The inbox of a connection: the frames that it received. A frame that a step expected is claimed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use crate::protocol::{FrameDirection, MessageType, Pack};
use crate::scenario::value::Wire;

/// The most frames of an inbox. When it is full, the oldest frames are dropped, and the report says so.
const MAX_FRAMES: usize = 10_000;

#[derive(Default)]
pub struct Inbox {
    pub frames: VecDeque<InboxFrame>,
    pub bytes: usize,
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

    pub fn drop_oldest(&mut self, pack: &Pack) {
        let Some(oldest) = self.frames.pop_front() else { return };
        self.bytes -= oldest.weight;
        self.has_dropped = true;
        for message in 0..pack.messages.len() {
            if !self.dropped_messages.contains(&message) && oldest.may_be(message, pack) {
                self.dropped_messages.insert(message);
            }
        }
        if !oldest.claimed {
            self.overflowed += 1;
            self.dropped_up_to = oldest.wire.sequence;
        }
    }
}

pub struct InboxFrame {
    pub wire: Arc<Wire>,
    pub kind: InboxFrameKind,
    pub claimed: bool,
    /// The approximate size of the frame in memory, in bytes.
    pub weight: usize,
}

pub enum InboxFrameKind {
    /// `json` is `None` for a frame that is not JSON; `message` is the index of the recognised message in the pack.
    Message {
        json: Option<Value>,
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

impl InboxFrame {
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
    fn may_be(&self, message: usize, pack: &Pack) -> bool {
        match &self.kind {
            InboxFrameKind::Message { json: Some(json), message: found } => {
                pack.is_message(message, *found, json, FrameDirection::FromHub)
            }
            InboxFrameKind::Undecodable { .. } => !self.cannot_be(&pack.messages[message]),
            InboxFrameKind::Message { json: None, .. } | InboxFrameKind::Control { .. } => false,
        }
    }

    /// Whether a frame that could not be decoded is certainly not this message.
    pub fn cannot_be(&self, message: &MessageType) -> bool {
        let InboxFrameKind::Undecodable { texts: Some(texts), .. } = &self.kind else { return false };
        message.matcher.required_texts().any(|(name, text)| texts.get(name).and_then(Option::as_deref) != Some(text))
    }
}
