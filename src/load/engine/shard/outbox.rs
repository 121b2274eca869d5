//! What a shard tells the thread that folds: ledger entries by the batch, intervals by the second.

use std::sync::mpsc::SyncSender;

use crate::load::Nanos;
use crate::load::buffer_pool::PooledVec;
use crate::load::ledger::{Called, Entry, NameTable};
use crate::load::metrics::Tally;

/// Entries that are told together.
const BATCH: usize = 1024;
/// How many parcels may wait for the fold, of all shards. A shard that finds no place waits, which shows as a stall.
pub const PARCELS: usize = 1024;

/// One letter to the fold.
#[derive(Debug)]
pub enum Parcel {
    /// What a shard has noted since it told last, and what that is called: now it has told everything before `upto`.
    Entries {
        shard: usize,
        entries: PooledVec<Entry>,
        names: NameTable,
        upto: Nanos,
    },
    Intervals(Vec<Tally>),
    /// Journeys that are under way in a shard, and are waited for at the end.
    UnderWay {
        shard: usize,
        journeys: u64,
    },
    /// A shard is done.
    Ended,
}

pub struct Outbox {
    shard: usize,
    to: SyncSender<Parcel>,
    entries: PooledVec<Entry>,
    names: NameTable,
}

impl Outbox {
    pub fn new(shard: usize, to: SyncSender<Parcel>) -> Self {
        Self { shard, to, entries: PooledVec::default(), names: NameTable::default() }
    }

    /// Each is as late as those before it, or later.
    pub fn note(&mut self, entry: Entry) {
        self.entries.push(entry);
        if self.entries.len() >= BATCH {
            self.flush(entry.at);
        }
    }

    pub fn call(&mut self, called: Called, name: &[u8]) {
        self.names.push(called, name);
    }

    /// Tells what has been noted so far, of the time before `upto` and perhaps of that moment.
    pub fn flush(&mut self, upto: Nanos) {
        let (entries, names) = (self.entries.take(), self.names.take());
        self.say(Parcel::Entries { shard: self.shard, entries, names, upto });
    }

    /// A fold that is gone has been told to be: nobody wants to know.
    pub fn say(&self, parcel: Parcel) {
        drop(self.to.send(parcel));
    }
}
