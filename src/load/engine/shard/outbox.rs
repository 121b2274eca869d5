//! The reports of a shard to the aggregator: batches of ledger entries, and intervals.

use std::sync::mpsc::SyncSender;

use crate::deviation::SightingsByEntry;
use crate::load::Nanos;
use crate::load::buffer_pool::PooledVec;
use crate::load::details::RunDetails;
use crate::load::ledger::{LedgerEntry, NameOwner, NameTable};
use crate::load::metrics::ShardInterval;
use crate::load::opening::FailedOpening;

/// Entries per batch.
const ENTRIES_PER_BATCH: usize = 1024;
/// The most queued reports of all shards. A shard that finds the queue full waits, which is recorded as a stall.
pub const MAX_REPORTS: usize = 1024;

/// A report to the aggregator.
#[derive(Debug)]
pub enum ShardReport {
    /// The entries since the last batch, with names; the shard has now reported everything before `upto`.
    Entries {
        shard: usize,
        entries: PooledVec<LedgerEntry>,
        names: NameTable,
        upto: Nanos,
    },
    Intervals(Vec<ShardInterval>),
    /// The number of running journeys of a shard that the drain waits for.
    UnderWay {
        shard: usize,
        journeys: u64,
    },
    /// Details since the last report.
    Details(Box<RunDetails>),
    /// An example of a client that did not join.
    NotJoined(FailedOpening),
    /// The shard has ended; the message carries its sightings of the hub's deviations.
    Ended {
        deviations: SightingsByEntry,
    },
}

pub struct ReportOutbox {
    shard: usize,
    to: SyncSender<ShardReport>,
    entries: PooledVec<LedgerEntry>,
    names: NameTable,
}

impl ReportOutbox {
    pub fn new(shard: usize, to: SyncSender<ShardReport>) -> Self {
        Self { shard, to, entries: PooledVec::default(), names: NameTable::default() }
    }

    /// Adds an entry; times must not decrease.
    pub fn add_entry(&mut self, entry: LedgerEntry) {
        self.entries.push(entry);
        if self.entries.len() >= ENTRIES_PER_BATCH {
            self.flush(entry.at);
        }
    }

    pub fn add_name(&mut self, of: NameOwner, name: &[u8]) {
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
