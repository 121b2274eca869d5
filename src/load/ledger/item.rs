//! The state of one item, kept small: a million of them may be open at a time.

use super::history::StepChain;
use crate::load::Nanos;

/// How far an item has come; all but the first two are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ItemStage {
    /// Some connection reported it, but no client has requested it yet.
    Unrequested,
    Open,
    Completed,
    Failed,
    Refused,
    Cancelled,
    /// Its id or its end is only assumed.
    Assumed,
    /// Not requested by any client within the slack.
    Unexpected,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct LedgerItem {
    pub stage: ItemStage,
    pub asked: bool,
    pub acknowledged: bool,
    /// Whether the item is a published message: the hub owes its deliveries without an acknowledgement.
    pub published: bool,
    pub unsure: bool,
    /// Whether the item was requested and the hub has not named it yet.
    pub nameless: bool,
    /// Whether the job was assigned while another assignment was open; a late release may still explain that.
    pub doubled: bool,
    /// Whether the job was last assigned to a worker that could not take it.
    pub not_taken: bool,
    pub sender: u32,
    /// For a published message, its number among those of its sender; for any other item, the time in milliseconds
    /// until which the hub may wait before it reassigns the item. Separate fields would cost eight more megabytes per
    /// million items.
    number: u32,
    /// The worker that has the job.
    pub holder: u32,
    /// The previous holder, when the job was assigned twice.
    pub before: u32,
    pub receivers: u32,
    pub delivered: u32,
    /// When the job was cancelled or assigned again, in milliseconds.
    since: u32,
    pub history: StepChain,
}

pub(super) const MILLISECOND: Nanos = 1_000_000;

impl LedgerItem {
    pub fn new(stage: ItemStage) -> Self {
        Self {
            stage,
            asked: false,
            acknowledged: false,
            published: false,
            unsure: false,
            nameless: false,
            doubled: false,
            not_taken: false,
            sender: 0,
            number: 0,
            holder: 0,
            before: 0,
            receivers: 0,
            delivered: 0,
            since: 0,
            history: StepChain::default(),
        }
    }

    /// Returns a fresh open item that keeps the history of this one, which has now been requested.
    pub fn as_requested(&self) -> Self {
        Self { history: self.history, ..Self::new(ItemStage::Open) }
    }

    pub fn is_closed(&self) -> bool {
        !matches!(self.stage, ItemStage::Open | ItemStage::Unrequested)
    }

    pub fn since(&self) -> Nanos {
        Nanos::from(self.since) * MILLISECOND
    }

    /// Sets when the job was cancelled or assigned again, rounded up so that no event seems longer ago than it was.
    pub fn set_since(&mut self, at: Nanos) {
        self.since = millis(at);
    }

    /// Returns the number of a message among those of its sender; 0 for other items.
    pub fn number(&self) -> u32 {
        if self.published { self.number } else { 0 }
    }

    pub fn publish(&mut self, number: u32) {
        (self.published, self.number) = (true, number);
    }

    /// Returns the time until which the hub may wait before it reassigns a released job.
    pub fn reassign_by(&self) -> Nanos {
        if self.published { 0 } else { Nanos::from(self.number) * MILLISECOND }
    }

    pub fn set_reassign_by(&mut self, at: Nanos) {
        if !self.published {
            self.number = millis(at);
        }
    }
}

fn millis(at: Nanos) -> u32 {
    u32::try_from(at.div_ceil(MILLISECOND)).unwrap_or(u32::MAX)
}
