//! Tracks every job, message and subscription of a load run.
//!
//! Clients record [`LedgerEntry`]s: which party did what to an item, and when. An [`ItemLedger`] reduces them, item by
//! item, to [`LedgerTotals`]: counts, and the first violations of each kind with the item's history. The terms are those
//! of Jepsen and Maelstrom: a *lost* item was acknowledged and never completed, a *recovered* one completed without an
//! acknowledgement, an *unexpected* one was never requested.
//!
//! **A late answer does not make an item unexpected.** A hub under load may assign a job to a worker long before the
//! client that submitted it receives the job's id, or after that client timed out. So unrequested items count against
//! the hub only if there are more of them than requests whose id is still unknown.
//!
//! **Nothing assumed is judged.** If a declared deviation says that the hub never sends a message, clients continue as
//! if it had come, perhaps with an id that no hub assigned. Items of which the ledger knows no more than that are counted
//! as `assumed`: they are neither lost nor acknowledged nor unexpected. Since the ids of such items may be anything,
//! no item counts as unexpected then.
//!
//! **Order.** Entries come from several shards, and the batch of one may lag behind another's. They are sorted by time
//! and [processed](ItemLedger::process_until) once every shard has reported everything older. The queue is bounded, so
//! entries of a shard that lags far behind may come too late: they are counted as `late` and make the totals suspect.
//! Within one batch, entries of equal time keep their order.
//!
//! **Order across connections is not proof.** Frames on two connections may overtake each other, so anything that a
//! time difference of [`LedgerConfig::slack`] can explain does not count against the hub.
//!
//! **Items are 64-bit hashes** of their ids ([`IdHasher`]). Two ids with the same hash would be one item and look like
//! a duplicate; with a million items remembered, that happens to about one in 18 trillion new ids.
//!
//! **Bounds.** An open item with three steps takes about 160 bytes, see [`ItemLedger::bytes`]. The latest
//! [`CLOSED_KEPT`] closed items are remembered, so that a repetition counts as duplicated; later it counts as
//! `unexpected`, which is a violation too. Beyond [`MAX_OPEN`] open items, new ones are counted as `unfollowed`.

mod history;
mod item;
mod item_table;
mod name_table;
mod recent_set;
mod reducer;
mod state;
mod totals;

#[cfg(test)]
mod tests;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::load::{Nanos, SECOND};

pub use name_table::{NameOwner, NameTable};
pub use reducer::ItemLedger;
pub use totals::{HistoryStep, LedgerTotals, LedgerViolation, LedgerViolationKind, MissedDeliveries};

/// A ledger is given at least this much time to process at once, so that its data stays in the cache.
pub const LEDGER_STEP: Nanos = SECOND / 10;
/// The number of closed items remembered.
pub const CLOSED_KEPT: usize = 1 << 18;
/// The most open items that are tracked.
pub const MAX_OPEN: usize = 1 << 22;

/// No particular party, or one that the message does not name.
pub const NO_PARTY: u32 = 0;

/// A record of one event of one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// When the frame was sent or received.
    pub at: Nanos,
    /// The item's key, see [`IdHasher`].
    pub item: u64,
    /// The sender, worker or receiver, or [`NO_PARTY`] where the message does not name it: any number that stands for
    /// the same party throughout the run, such as [`IdHasher::party_number`] of a worker's id.
    pub party: u32,
    pub what: LedgerMark,
}

/// The kind of event that a [`LedgerEntry`] records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerMark {
    /// `party` requested a job or a subscription, which the hub has to acknowledge and complete.
    Attempted,
    /// As `Attempted`, but the hub has yet to assign the id: until then the item has a key that only its client knows.
    Requested,
    /// `party` sent a message that should reach `receivers` clients; it needs no acknowledgement.
    Published { receivers: u32 },
    /// The hub assigned the id of a requested item: from now on its key is this one. Entries of other connections under
    /// that key are merged into it.
    Named(u64),
    /// The ledger cannot follow the item any further: its id, or its end, is only assumed, as the declared deviation
    /// with this index says.
    Assumed { deviation: u16 },
    /// A client assumed that it was given a job or a message, which may have been any: from now on an item that makes
    /// no progress is not lost. The entry is about no particular item.
    ProgressAssumed { deviation: u16 },
    /// The hub confirmed that it has the item.
    Acknowledged,
    /// The hub rejected the item, which ends it.
    Refused,
    /// The connection ended before the answer came: the hub may have the item or not.
    Unsure,
    /// The hub gave the job to `party`.
    Assigned,
    /// The hub gave the job to `party`, none of whose steps could take it.
    NotTaken,
    /// `party` no longer has the job: it reported a failure that may be retried, returned it, or disconnected. Recorded
    /// when the party sends that, or when the connection ends. The hub may take `back_ms` milliseconds to assign the
    /// job again.
    Released { back_ms: u32 },
    /// The run ended while `party` still had the job, so the hub cannot have completed it.
    Held,
    /// The hub confirmed a cancellation, which ends the item.
    Cancelled,
    /// `party`, a receiver, got the message.
    Delivered,
    /// The client that made the request was notified of the completion, by `party` if the message names it; ends the
    /// item.
    Completed,
    /// The client that made the request was notified of a final failure, which ends the item.
    Failed,
}

impl LedgerMark {
    /// Whether the hub owes an answer or deliveries after this mark.
    pub(crate) fn expects_answer(self) -> bool {
        matches!(self, Self::Attempted | Self::Requested | Self::Published { .. })
    }
}

/// The settings of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerConfig {
    /// The largest time difference between reports of one event on two connections.
    pub slack: Nanos,
    /// If no item has progressed for this time when the run ends, open items are lost; otherwise they are only
    /// unfinished.
    pub quiet: Nanos,
    /// Whether messages of one sender must reach a receiver in the order in which they were sent.
    pub ordered: bool,
    /// The number of violations of each kind kept with their history.
    pub most_histories: usize,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self { slack: SECOND, quiet: 2 * SECOND, ordered: false, most_histories: 10 }
    }
}

/// Derives keys from ids. The seed is secret, so that a hub cannot choose colliding ids. The hash is the same on every
/// machine, since the shares of a run have one seed.
#[derive(Clone, Copy, Debug)]
pub struct IdHasher {
    seed: u64,
}

impl IdHasher {
    /// Returns a hasher with a seed of its own.
    pub fn random() -> Self {
        Self::seeded(uuid::Uuid::new_v4().as_u64_pair().0)
    }

    pub fn seeded(seed: u64) -> Self {
        Self { seed }
    }

    /// Returns the key of an item with this id.
    pub fn item_key(&self, id: &[u8]) -> u64 {
        xxh3_64_with_seed(id, self.seed)
    }

    /// Returns the number of the party with this id; never [`NO_PARTY`]. With a thousand parties, two of them share a
    /// number in about one run of ten thousand; only a violation between those two would be missed.
    pub fn party_number(&self, id: &[u8]) -> u32 {
        (self.item_key(id) as u32).max(1)
    }
}
