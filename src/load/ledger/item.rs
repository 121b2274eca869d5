//! What is known of one item, as small as it can be: a million of them are open at a time.

use super::history::Chain;
use crate::load::Nanos;

/// How far an item has come. The ends are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Something was heard of it, but nobody has asked for it yet.
    Stranger,
    Open,
    Completed,
    Failed,
    Refused,
    Cancelled,
    /// A stranger that nobody has asked for in time.
    Unexpected,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub stage: Stage,
    pub asked: bool,
    pub acknowledged: bool,
    /// The hub owes it an end though it acknowledges nothing.
    pub published: bool,
    pub unsure: bool,
    /// Asked for, and its name is not known.
    pub nameless: bool,
    /// Assigned while another assignment stood, which may yet be explained.
    pub doubled: bool,
    pub sender: u32,
    /// Of what is published: the how-manieth message of its sender. Of what is not: until when it may wait for somebody, in
    /// milliseconds. Eight bytes more would be sixteen million for a million items.
    number: u32,
    /// Who has the job.
    pub holder: u32,
    /// Who had it when it was assigned once more.
    pub before: u32,
    pub receivers: u32,
    pub delivered: u32,
    /// When it was cancelled or assigned once more, in milliseconds.
    since: u32,
    pub history: Chain,
}

pub(super) const MILLISECOND: Nanos = 1_000_000;

impl Item {
    pub fn new(stage: Stage) -> Self {
        Self {
            stage,
            asked: false,
            acknowledged: false,
            published: false,
            unsure: false,
            nameless: false,
            doubled: false,
            sender: 0,
            number: 0,
            holder: 0,
            before: 0,
            receivers: 0,
            delivered: 0,
            since: 0,
            history: Chain::default(),
        }
    }

    /// A stranger that somebody has asked for after all: nothing but its history is kept.
    pub fn as_asked(&self) -> Self {
        Self { history: self.history, ..Self::new(Stage::Open) }
    }

    pub fn is_closed(&self) -> bool {
        !matches!(self.stage, Stage::Open | Stage::Stranger)
    }

    pub fn since(&self) -> Nanos {
        Nanos::from(self.since) * MILLISECOND
    }

    /// Rounded up, so that nothing counts as longer ago than it is.
    pub fn set_since(&mut self, at: Nanos) {
        self.since = millis(at);
    }

    /// The how-manieth message of its sender it is.
    pub fn number(&self) -> u32 {
        if self.published { self.number } else { 0 }
    }

    /// It is a message, and the how-manieth of its sender.
    pub fn publish(&mut self, number: u32) {
        (self.published, self.number) = (true, number);
    }

    /// Until when it may wait for somebody.
    pub fn back(&self) -> Nanos {
        if self.published { 0 } else { Nanos::from(self.number) * MILLISECOND }
    }

    pub fn set_back(&mut self, at: Nanos) {
        if !self.published {
            self.number = millis(at);
        }
    }
}

fn millis(at: Nanos) -> u32 {
    u32::try_from(at.div_ceil(MILLISECOND)).unwrap_or(u32::MAX)
}
