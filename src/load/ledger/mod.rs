//! What becomes of every job, message and subscription under load.
//!
//! Clients note [`Entry`]s: somebody did something about an item at a time. A [`Ledger`] folds them, item by item, into an
//! [`Totals`]: counts, and the first violations of each kind with the item's own history. Its words are Jepsen's and
//! Maelstrom's: *lost* was acknowledged and never came to its end, *recovered* came to its end though it was never
//! acknowledged, *unexpected* was never asked for.
//!
//! **An answer that is late is no item that nobody asked for.** A hub under load may give a job to a worker long before whoever
//! submitted it hears its name, or after that client has given up. So something unheard-of is held against the hub only if
//! there are more of its kind than requests whose name is still not known.
//!
//! **Order.** Entries come from several shards, and one shard's batch may be behind another's. They are sorted by time, and
//! accounted for once every shard has [told](Ledger::reach) what is older. What waits is bounded, so a shard that is far
//! behind the others may come too late: that is counted as `late`, and makes the account doubtful. Within one batch, equal
//! times keep their order.
//!
//! **Cross-connection order is not proof.** What two connections hear of one hub may cross on its way, so nothing is held against the
//! hub that could be explained by [`Config::slack`] of difference between them.
//!
//! **Items are 64-bit hashes** of what the protocol calls them ([`Keys`]). Two ids with the same hash would be one item, and
//! look like a duplicate; with a million items remembered, one in some eighteen million million new ids does.
//!
//! **Bounds.** An open item with three steps takes some 160 bytes, see [`Ledger::bytes`]. Of what is closed, the latest
//! [`CLOSED_KEPT`] items are remembered so that a repetition is seen as one; later than that it is `unexpected`, which is no
//! less a violation. Beyond [`MOST_OPEN`] open items, new ones are counted as `unfollowed`.

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

use ahash::RandomState;

use crate::load::{Nanos, SECOND};

pub use name_table::{Called, NameTable};
pub use reducer::Ledger;
pub use totals::{Step, Totals, Violation, ViolationKind};

/// Closed items that are remembered.
pub const CLOSED_KEPT: usize = 1 << 18;
/// Open items that are followed at most.
pub const MOST_OPEN: usize = 1 << 22;

/// No party in particular, or one that a message does not name.
pub const NOBODY: u32 = 0;

/// One fact about one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was seen or done.
    pub at: Nanos,
    /// The item's key, see [`Keys`].
    pub item: u64,
    /// Who: the sender, the worker, the receiver; [`NOBODY`] where that is not told. Any number that means the same party
    /// throughout the run, such as [`Keys::party`] of a worker's id.
    pub party: u32,
    pub what: Mark,
}

/// What can be noted about an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A job, or a subscription, was asked for by `party`. It has to be acknowledged and then to come to its end.
    Attempted,
    /// The same, and the hub has yet to name it: until it does, the item goes by a key that nobody else knows.
    Requested,
    /// A message was sent by `party` and should reach so many receivers. It needs no acknowledgement.
    Published { receivers: u32 },
    /// The hub has named an item that was attempted: `item` is from now on this key. What other connections
    /// have already heard under it is taken over.
    Named(u64),
    /// The hub has said that it has it.
    Acknowledged,
    /// The hub has said that it will not do it: the item's end.
    Refused,
    /// The connection it was sent on has ended before an answer came: the hub may have it, or not.
    Unsure,
    /// `party` was given the job.
    Assigned,
    /// `party` no longer has it: it failed so that it may be tried again, gave it back, or has gone. Noted when it is sent,
    /// or when the connection is seen to end. The hub may take so many milliseconds until it gives it to somebody again.
    Released { back_ms: u32 },
    /// The hub has confirmed a cancellation: the item's end.
    Cancelled,
    /// `party`, a receiver, got the message.
    Delivered,
    /// Whoever asked was told that it is done, by `party` if it says so: the item's end.
    Completed,
    /// Whoever asked was told that it has failed for good: the item's end.
    Failed,
}

impl Mark {
    /// Whether somebody asks for something that the hub then owes.
    pub(crate) fn asks(self) -> bool {
        matches!(self, Self::Attempted | Self::Requested | Self::Published { .. })
    }
}

/// How a ledger judges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How far apart two connections may hear of the same thing.
    pub slack: Nanos,
    /// At the end: if nothing has moved for so long, what is still open is lost, else only unfinished.
    pub quiet: Nanos,
    /// Whether messages of one sender must reach a receiver in the order they were sent in.
    pub ordered: bool,
    /// How many violations of each kind are kept with their history.
    pub kept: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { slack: SECOND, quiet: 2 * SECOND, ordered: false, kept: 10 }
    }
}

/// Makes keys of ids. Keyed at random, so that no hub can choose ids that collide; all shards share one by cloning it.
#[derive(Clone, Debug, Default)]
pub struct Keys(RandomState);

impl Keys {
    /// The key of an item by the bytes of its id.
    pub fn item(&self, id: &[u8]) -> u64 {
        self.0.hash_one(id)
    }

    /// The number of a party by the bytes of its id; never [`NOBODY`]. With a thousand parties, one run in some ten
    /// thousand has two with the same number; a violation between just these two would not be seen.
    pub fn party(&self, id: &[u8]) -> u32 {
        (self.0.hash_one(id) as u32).max(1)
    }
}
