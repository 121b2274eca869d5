//! The hub's own messages on a conversation's connections, and which connections it cut off.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::outcome::{AnswerTimes, HubActivity, MessageKind};

#[derive(Default)]
pub struct HubContact {
    pub activity: HubActivity,
    /// The kinds of messages that each connection has received.
    received: BTreeSet<(u32, MessageKind)>,
}

impl HubContact {
    /// Records a message that the hub sent. Control frames do not count: a WebSocket library answers them
    /// even while the hub itself is stuck.
    pub fn add_message(&mut self, connection: u32, kind: MessageKind, now: Duration) {
        let times = self.activity.answers.entry(kind).or_insert(AnswerTimes { last: now, greeting: now });
        times.last = now;
        if self.received.insert((connection, kind)) {
            times.greeting = now;
        }
    }

    /// Records that a connection ended without a close frame, or was not made.
    pub fn add_cut(&mut self, now: Duration) {
        self.activity.cut.get_or_insert(now);
    }
}
