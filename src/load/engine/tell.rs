//! What a shard tells the thread that folds: ledger entries by the batch, intervals by the second.

use std::sync::mpsc::SyncSender;

use crate::load::ledger::{Called, Entry, Names};
use crate::load::measure::Tally;

/// Entries that are told together.
const BATCH: usize = 1024;
/// How many parcels may wait for the fold, of all shards. A shard that finds no place waits, which shows as a stall.
pub const PARCELS: usize = 1024;

/// One letter to the fold.
#[derive(Debug)]
pub enum Parcel {
    /// What they are about goes by these names.
    Entries(Vec<Entry>, Names),
    Intervals(Vec<Tally>),
    /// Journeys that are under way in a shard, and are waited for at the end.
    UnderWay {
        shard: usize,
        journeys: u64,
    },
    /// A shard is done.
    Ended,
}

pub struct Tell {
    to: SyncSender<Parcel>,
    entries: Vec<Entry>,
    names: Names,
}

impl Tell {
    pub fn new(to: SyncSender<Parcel>) -> Self {
        Self { to, entries: Vec::new(), names: Names::default() }
    }

    pub fn note(&mut self, entry: Entry) {
        self.entries.push(entry);
        if self.entries.len() >= BATCH {
            self.flush();
        }
    }

    pub fn call(&mut self, called: Called, name: &[u8]) {
        self.names.push(called, name);
    }

    /// Tells what has been noted so far.
    pub fn flush(&mut self) {
        if !self.entries.is_empty() || !self.names.is_empty() {
            let entries = std::mem::replace(&mut self.entries, Vec::with_capacity(BATCH));
            let names = std::mem::take(&mut self.names);
            self.say(Parcel::Entries(entries, names));
        }
    }

    /// A fold that is gone has been told to be: nobody wants to know.
    pub fn say(&self, parcel: Parcel) {
        drop(self.to.send(parcel));
    }
}
