//! What a client may do, done: the [`ClientIo`] of a shard.

use std::collections::VecDeque;
use std::sync::Arc;

use super::outbox::Outbox;
use super::slot::Line;
use super::timers::{Alarm, Timers};
use crate::load::Nanos;
use crate::load::client::io::{ClientFault, ClientIo, End};
use crate::load::compile::program::Dial;
use crate::load::engine::frames::{self, Masks};
use crate::load::engine::phases::Course;
use crate::load::ids::{HookId, JourneyId, MessageId};
use crate::load::ledger::{Called, Entry};
use crate::load::metrics::{ErrorKind, Recorder};

/// What the clients of a shard share.
pub struct ShardContext {
    pub recorder: Recorder,
    pub timers: Timers,
    pub masks: Masks,
    pub course: Arc<Course>,
    pub tell: Outbox,
    pub calls: crate::load::engine::hooks::Calls,
    /// Who may have room for a journey, by role.
    pub free: Vec<VecDeque<u32>>,
    /// Seats that want a connection, and how.
    pub dials: VecDeque<(u32, Dial)>,
    /// The message that the frame at hand was recognised as.
    pub recognised: Option<MessageId>,
    /// What the connection at hand ended of, where the client cannot know.
    pub cause: Option<ErrorKind>,
    /// Journeys that are under way and are waited for at the end.
    pub under_way: u64,
}

/// A [`ShardContext`] in the hands of one client.
pub struct Hands<'a> {
    pub desk: &'a mut ShardContext,
    pub seat: u32,
    pub role: u16,
    pub now: Nanos,
    pub line: &'a mut Line,
    pub alarm: &'a mut Alarm,
    pub queued: &'a mut bool,
    pub counted: &'a mut bool,
    /// The role goes on in the drain, so that nobody waits for its journeys to end.
    pub drains: bool,
}

impl Hands<'_> {
    fn ends(&mut self) {
        self.desk.under_way = self.desk.under_way.saturating_sub(u64::from(!self.drains));
    }
}

impl ClientIo for Hands<'_> {
    fn open(&mut self, dial: &Dial) {
        self.desk.dials.push_back((self.seat, dial.clone()));
    }

    fn close(&mut self, code: u16) {
        if !self.line.open || self.line.closing {
            return;
        }
        self.line.closing = true;
        frames::append(&mut self.line.out, frames::CLOSE, &mut self.desk.masks, |out| {
            out.extend_from_slice(&code.to_be_bytes());
        });
    }

    fn send(&mut self, message: MessageId, due: Nanos, write: impl FnOnce(&mut Vec<u8>)) -> Nanos {
        if self.line.open && !self.line.closing {
            frames::append(&mut self.line.out, frames::TEXT, &mut self.desk.masks, write);
            self.desk.recorder.sent(usize::from(message.0), due, self.now);
        }
        self.now
    }

    fn wake(&mut self, at: Nanos) {
        self.desk.timers.set(self.seat, self.alarm, at);
    }

    fn hook(&mut self, hook: HookId, write: impl FnOnce(&mut Vec<u8>)) {
        let mut arguments = Vec::new();
        write(&mut arguments);
        self.desk.calls.make(self.seat, hook, arguments);
    }

    fn joined(&mut self) {
        if !*self.counted {
            *self.counted = true;
            self.desk.course.joins(usize::from(self.role));
        }
    }

    fn room(&mut self) {
        if !*self.queued {
            *self.queued = true;
            self.desk.free[usize::from(self.role)].push_back(self.seat);
        }
    }

    fn received(&mut self, message: Option<MessageId>, at: Nanos, bytes: usize) {
        self.desk.recognised = message;
        if let Some(message) = message {
            self.desk.recorder.received(usize::from(message.0), at, bytes);
        }
    }

    fn answered(&mut self, message: MessageId, due: Nanos, sent: Nanos, at: Nanos) {
        self.desk.recorder.answered(usize::from(message.0), due, sent, at);
    }

    fn unanswered(&mut self, message: MessageId, at: Nanos) {
        self.desk.recorder.unanswered(usize::from(message.0), at);
    }

    fn delivered(&mut self, message: MessageId, due: Nanos, at: Nanos) {
        self.desk.recorder.delivered(usize::from(message.0), due, at);
    }

    fn published(&mut self, message: MessageId, receivers: u32, at: Nanos) {
        self.desk.recorder.published(usize::from(message.0), u64::from(receivers), at);
    }

    fn begun(&mut self, journey: JourneyId, at: Nanos) {
        self.desk.under_way += u64::from(!self.drains);
        self.desk.recorder.journey_started(usize::from(journey.0), at);
    }

    fn idle(&mut self, _journey: JourneyId, _at: Nanos) {
        self.ends();
    }

    fn failed(&mut self, journey: JourneyId, at: Nanos) {
        self.ends();
        self.desk.recorder.journey_failed(usize::from(journey.0), at);
    }

    fn journey(&mut self, journey: JourneyId, due: Nanos, at: Nanos) {
        self.ends();
        self.desk.recorder.journey(usize::from(journey.0), due, at);
    }

    fn missed(&mut self, _message: MessageId, times: u64, at: Nanos) {
        self.desk.recorder.missed(times, at);
    }

    fn trouble(&mut self, trouble: ClientFault, at: Nanos) {
        let kind = match trouble {
            ClientFault::Timeout(_) | ClientFault::Missing(_) => ErrorKind::Timeout,
            ClientFault::Refused(_) => ErrorKind::Refused,
            ClientFault::Ended(end) => self.desk.cause.take().unwrap_or(match end {
                End::Refused(_) => ErrorKind::Upgrade,
                End::Unreachable => ErrorKind::Connect,
                End::Close(_) | End::Dropped => ErrorKind::Lost,
            }),
            ClientFault::NoObject | ClientFault::Unusable(_) => ErrorKind::Invalid,
            ClientFault::Hook | ClientFault::Internal => ErrorKind::Internal,
            ClientFault::NoFreeClient => return self.desk.recorder.no_client(at),
            ClientFault::Undocumented => return self.desk.recorder.undocumented(at),
            // It shows as a journey that failed.
            ClientFault::Aborted => return,
        };
        self.desk.recorder.error(kind, at);
    }

    fn note(&mut self, entry: Entry) {
        self.desk.tell.note(entry);
    }

    fn call(&mut self, called: Called, name: &[u8]) {
        self.desk.tell.call(called, name);
    }
}
