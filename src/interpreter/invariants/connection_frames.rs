//! The messages of a connection that the functions `frames`, `sent_frames` and `all_frames` return.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};

use minijinja::value::Value as Engine;
use parking_lot::Mutex;
use serde_json::Value;

use super::exchange::SentMessage;
use crate::deviation::Deviations;
use crate::protocol::{FrameDirection, Pack};
use crate::scenario::functions::{ANY_MESSAGE, FrameSelection};
use crate::scenario::value::{FrameObject, Provenance, Wire};

/// All messages of a connection, in order.
pub struct ConnectionFrames {
    frames: Vec<ConnectionFrame>,
    dropped: DroppedMessages,
    pack: Arc<Pack>,
    declared: Arc<Deviations>,
    used: Arc<Mutex<FramesUsed>>,
}

/// The messages of a connection that were dropped because there were too many.
pub struct DroppedMessages {
    pub received: bool,
    /// The types of the received ones, by index in the pack.
    pub messages: BTreeSet<usize>,
    /// The types of the sent ones.
    pub sent: BTreeSet<usize>,
}

/// Whether an entry of `always` has read frames, and why some may be missing.
#[derive(Default)]
pub struct FramesUsed {
    /// Whether it got a frame of the hub, so that it has judged something.
    pub received: bool,
    /// A deviation that may be why a frame is missing.
    pub deviation: Provenance,
    /// Whether a frame may be missing because there were too many.
    pub dropped: bool,
}

struct ConnectionFrame {
    sent: bool,
    json: Value,
    message: Option<usize>,
    wire: Arc<Wire>,
    /// The frame for expressions: several entries may use it, so it is converted only once.
    shown: OnceLock<Engine>,
}

impl ConnectionFrames {
    pub fn new(
        received: Vec<(Value, Option<usize>, Arc<Wire>)>,
        sent: VecDeque<SentMessage>,
        dropped: DroppedMessages,
        pack: Arc<Pack>,
        declared: Arc<Deviations>,
        used: Arc<Mutex<FramesUsed>>,
    ) -> Self {
        let new = |sent, json, message, wire| ConnectionFrame { sent, json, message, wire, shown: OnceLock::new() };
        let received = received.into_iter().map(|(json, message, wire)| new(false, json, message, wire));
        let sent = sent.into_iter().map(|one| new(true, one.value, Some(one.message), one.wire));
        let mut frames: Vec<ConnectionFrame> = received.chain(sent).collect();
        frames.sort_by_key(|frame| frame.wire.sequence);
        Self { frames, dropped, pack, declared, used }
    }

    /// Returns the frames of a selection that carry the message with this name, or any message; `None` if there is no
    /// such message.
    pub fn find(&self, which: FrameSelection, name: &str) -> Option<Vec<Engine>> {
        let wanted = if name == ANY_MESSAGE { None } else { Some(self.pack.message_index(name)?) };
        let mut asked = wanted.map_or(0..self.pack.messages.len(), |wanted| wanted..wanted + 1);
        let mut used = self.used.lock();
        if which != FrameSelection::Sent {
            used.dropped |= wanted.map_or(self.dropped.received, |message| self.dropped.messages.contains(&message));
            if let Some(deviation) = asked.find_map(|message| self.declared.absence_of(message)) {
                used.deviation = Provenance::assumed(deviation);
            }
        }
        if which != FrameSelection::Received {
            let sent = &self.dropped.sent;
            used.dropped |= wanted.map_or(!sent.is_empty(), |message| sent.contains(&message));
        }
        drop(used);
        let fits = |frame: &&ConnectionFrame| match (which, wanted) {
            (FrameSelection::Received, _) if frame.sent => false,
            (FrameSelection::Sent, _) if !frame.sent => false,
            (_, None) => true,
            (_, Some(wanted)) => {
                let way = if frame.sent { FrameDirection::ToHub } else { FrameDirection::FromHub };
                frame.message == Some(wanted) || self.pack.is_message(wanted, frame.message, &frame.json, way)
            }
        };
        let found = self.frames.iter().filter(fits);
        self.used.lock().received |= found.clone().any(|frame| !frame.sent);
        Some(match which {
            FrameSelection::Both => found.map(|frame| self.described(frame)).collect(),
            FrameSelection::Received | FrameSelection::Sent => found.map(ConnectionFrame::to_engine).collect(),
        })
    }

    /// Returns a frame with its direction and the name of its message.
    fn described(&self, frame: &ConnectionFrame) -> Engine {
        let name = frame.message.map(|message| self.pack.messages[message].name.as_str());
        Engine::from_pairs([
            ("direction", Engine::from(if frame.sent { "sent" } else { "received" })),
            ("name", Engine::from(name)),
            ("payload", frame.to_engine()),
        ])
    }
}

impl ConnectionFrame {
    fn to_engine(&self) -> Engine {
        self.shown.get_or_init(|| FrameObject::to_engine(&self.json, &self.wire)).clone()
    }
}
