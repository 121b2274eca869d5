//! The reports of a shard to the aggregator: batches of ledger entries, and intervals.

use std::sync::mpsc::SyncSender;

use crate::deviation::Seen;
use crate::load::Nanos;
use crate::load::buffer_pool::PooledVec;
use crate::load::ledger::{Entry, NameOf, NameTable};
use crate::load::metrics::Tally;
use crate::load::opening::FailedOpening;

/// Entries per batch.
const BATCH: usize = 1024;
/// The most queued reports of all shards. A shard that finds the queue full waits, which is recorded as a stall.
pub const MOST_REPORTS: usize = 1024;

/// A report to the aggregator.
#[derive(Debug)]
pub enum ShardReport {
    /// The entries since the last batch, with names; the shard has now reported everything before `upto`.
    Entries {
        shard: usize,
        entries: PooledVec<Entry>,
        names: NameTable,
        upto: Nanos,
    },
    Intervals(Vec<Tally>),
    /// The number of running journeys of a shard that the drain waits for.
    UnderWay {
        shard: usize,
        journeys: u64,
    },
    /// An example of a client that did not join.
    NotJoined(FailedOpening),
    /// The shard has ended; the message carries its sightings of the hub's deviations.
    Ended {
        deviations: Seen,
    },
}

pub struct Outbox {
    shard: usize,
    to: SyncSender<ShardReport>,
    entries: PooledVec<Entry>,
    names: NameTable,
}

impl Outbox {
    pub fn new(shard: usize, to: SyncSender<ShardReport>) -> Self {
        Self { shard, to, entries: PooledVec::default(), names: NameTable::default() }
    }

    /// Adds an entry; times must not decrease.
    pub fn note(&mut self, entry: Entry) {
        self.entries.push(entry);
        if self.entries.len() >= BATCH {
            self.flush(entry.at);
        }
    }

    pub fn name(&mut self, of: NameOf, name: &[u8]) {
        self.names.push(of, name);
    }

    /// Sends the entries so far, none of which is later than `upto`.
    pub fn flush(&mut self, upto: Nanos) {
        let (entries, names) = (self.entries.take(), self.names.take());
        self.send(ShardReport::Entries { shard: self.shard, entries, names, upto });
    }

    /// Sends a report; if the aggregator has ended, the report is dropped.
    pub fn send(&self, report: ShardReport) {
        drop(self.to.send(report));
    }
}
