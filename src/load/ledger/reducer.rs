//! The reducer: takes entries, keeps the state of every item, and returns totals.

use std::collections::VecDeque;

use super::item::{ItemStage, LedgerItem};
use super::item_table::{ItemTable, SlotIndex};
use super::name_table::NameTable;
use super::state::LedgerState;
use super::totals::{HistoryStep, LedgerTotals, LedgerViolationKind, MissedDeliveries};
use super::{CLOSED_KEPT, LedgerConfig, LedgerEntry, LedgerMark, MAX_OPEN, NO_PARTY};
use crate::load::Nanos;

/// The most named requests that may remain queued behind an unnamed one.
const REQUESTS_KEPT: usize = 1 << 12;
/// The most entries queued until older ones can no longer arrive; beyond this, the older half is processed at once.
const MAX_PENDING: usize = 1 << 19;
/// Messages of a sender that are compared to find the receivers whom the sender addresses.
const MAX_COMPARED_MESSAGES: usize = 64;
/// The most parties that are named as not reached by a message.
const MAX_NAMED_RECEIVERS: usize = 10;
/// Entries whose items are prefetched together.
const PREFETCHED_ENTRIES: usize = 32;

/// Tracks every item from its request to its end.
pub struct ItemLedger {
    state: LedgerState,
    /// Entries that are not processed yet.
    pending: Vec<LedgerEntry>,
    /// Everything before this time has been processed.
    settled: Nanos,
    items: ItemTable,
    /// Closed items in the order in which they will be forgotten.
    closed: VecDeque<u64>,
    /// Items that no client has requested yet, with the time of their first entry.
    unrequested: VecDeque<(Nanos, u64)>,
    /// The number of items in the queue `unrequested` that no client has requested since.
    unrequested_count: usize,
}

impl ItemLedger {
    pub fn new(config: LedgerConfig) -> Self {
        Self {
            state: LedgerState::new(config),
            pending: Vec::new(),
            settled: 0,
            items: ItemTable::default(),
            closed: VecDeque::new(),
            unrequested: VecDeque::new(),
            unrequested_count: 0,
        }
    }

    /// Queues a batch of one shard, in its recorded order. It is processed once [`ItemLedger::process_until`] rules out
    /// older entries.
    pub fn queue_entries(&mut self, entries: &[LedgerEntry]) {
        self.pending.extend_from_slice(entries);
        if self.pending.len() > MAX_PENDING {
            self.sort();
            self.process_oldest(self.pending.len() / 2);
        }
    }

    /// Processes entries before `upto`; every shard must have reported everything older.
    pub fn process_until(&mut self, upto: Nanos) {
        if upto >= self.settled {
            self.sort();
            self.process_oldest(self.pending.partition_point(|entry| entry.at < upto));
            self.settled = upto;
            self.report_unrequested(upto);
        }
    }

    /// Stores the names of items and parties; they come before or with the entries about them.
    pub fn add_names(&mut self, names: NameTable) {
        self.state.names.add_names(names);
    }

    /// Returns the totals so far, excluding queued entries.
    pub fn totals(&self) -> &LedgerTotals {
        &self.state.account
    }

    /// Records that the run was stopped before its drain was over: open items are unfinished, not lost.
    pub fn mark_cut_short(&mut self) {
        self.state.moved = Nanos::MAX;
    }

    /// Ends the run at `now`: open items become lost, unfinished or unanswered.
    pub fn finish(mut self, now: Nanos) -> LedgerTotals {
        self.process_until(Nanos::MAX);
        let rested = now.saturating_sub(self.state.moved) >= self.state.config.quiet;
        let mut open: Vec<u64> = self.items.iter().filter(|(_, item)| !item.is_closed()).map(|(key, _)| key).collect();
        open.sort_unstable();
        for key in open {
            let Some(item) = self.items.get(key) else { continue };
            self.state.account.open -= 1;
            if item.stage == ItemStage::Unrequested {
                // The item belongs to one of the unanswered requests.
                continue;
            }
            let owed = item.acknowledged || item.published && !item.unsure;
            // The hub announced a retry at a later time, or a worker still had the job.
            let waits = item.holder == NO_PARTY && item.reassign_by() > now;
            match (owed, rested && !waits) {
                (false, _) => self.state.account.unanswered += 1,
                (true, false) => self.state.account.unfinished += 1,
                (true, true) if item.not_taken => {}
                (true, true)
                    if item.holder == NO_PARTY
                        && let Some(deviation) = self.state.progress_assumed =>
                {
                    self.state.account.add_assumed(deviation);
                }
                (true, true) => {
                    self.state.record_violation(LedgerViolationKind::Lost, key, &item, now);
                    self.add_missed_deliveries(key, &item);
                }
            }
        }
        self.state.account.violations.sort_by_key(|violation| violation.kind);
        let violations = || self.state.account.violations.iter();
        let missed =
            violations().filter_map(|violation| violation.missed.as_ref()).flat_map(|missed| &missed.receivers);
        let parties = violations().flat_map(|violation| &violation.history).map(|step| step.party);
        let parties = parties.chain(missed.copied());
        let named = |party: u32| Some((party, self.state.names.party_name(party)?.to_owned()));
        self.state.account.parties = parties.filter_map(named).collect();
        self.state.account
    }

    /// Adds to the violation of a lost message who did not get it.
    fn add_missed_deliveries(&mut self, key: u64, item: &LedgerItem) {
        if !item.published || self.state.account.violations.last().is_none_or(|last| last.item != key) {
            return;
        }
        let number = (item.receivers - item.delivered) as usize;
        let mut parties = self.state.names.receivers().to_vec();
        parties.retain(|party| !self.state.has_received(key, *party));
        if parties.len() > number {
            // A sender may address only some of the receivers: those that other messages of the sender have reached.
            let same_sender = |other: &LedgerItem| other.published && other.sender == item.sender;
            let others = self.items.iter().filter(|(other, one)| *other != key && same_sender(one));
            let others: Vec<u64> = others.map(|(other, _)| other).take(MAX_COMPARED_MESSAGES).collect();
            let reached = |party: &u32| others.iter().any(|other| self.state.has_received(*other, *party));
            let addressed: Vec<u32> = parties.iter().copied().filter(reached).collect();
            if addressed.len() >= number {
                parties = addressed;
            }
        }
        let candidates = parties.len();
        parties.truncate(MAX_NAMED_RECEIVERS);
        if let Some(violation) = self.state.account.violations.last_mut() {
            violation.missed = Some(MissedDeliveries { number, candidates, receivers: parties });
        }
    }

    /// Returns the number of bytes allocated now.
    pub fn bytes(&self) -> usize {
        self.state.bytes()
            + self.items.bytes()
            + self.closed.capacity() * size_of::<u64>()
            + self.unrequested.capacity() * size_of::<(Nanos, u64)>()
            + self.pending.capacity() * size_of::<LedgerEntry>()
    }

    /// Sorts stably, so that entries of equal time keep their order within a batch.
    fn sort(&mut self) {
        self.pending.sort_by_key(|entry| entry.at);
    }

    /// Processes the first `ripe` queued entries, which are sorted.
    fn process_oldest(&mut self, ripe: usize) {
        let mut pending = std::mem::take(&mut self.pending);
        for (number, entry) in pending[..ripe].iter().enumerate() {
            if number % PREFETCHED_ENTRIES == 0 {
                self.prefetch_items(&pending[number..ripe.min(number + PREFETCHED_ENTRIES)]);
            }
            self.state.account.late += u64::from(entry.at < self.settled);
            self.settled = self.settled.max(entry.at);
            self.report_unrequested(entry.at);
            self.process_entry(*entry);
        }
        pending.drain(..ripe);
        self.pending = pending;
    }

    /// Prefetches the items of the next entries and those about to be forgotten: looking all of them up together
    /// overlaps their cache misses.
    fn prefetch_items(&self, entries: &[LedgerEntry]) {
        let full = self.closed.len() + entries.len() > CLOSED_KEPT;
        let forgotten = self.closed.iter().take(if full { entries.len() } else { 0 });
        for key in entries.iter().map(|entry| entry.item).chain(forgotten.copied()) {
            std::hint::black_box(self.items.get(key).map(|item| item.stage));
        }
    }

    /// Reports items that no client requested within the slack as unexpected, unless they may belong to unnamed
    /// requests.
    fn report_unrequested(&mut self, now: Nanos) {
        while let Some((since, key)) = self.unrequested.front().copied() {
            if since.saturating_add(self.state.config.slack) >= now {
                break;
            }
            let Some(place) = self.items.find(key).filter(|place| self.items[*place].stage == ItemStage::Unrequested)
            else {
                self.unrequested.pop_front();
                continue;
            };
            // The item may be one of those whose id is only assumed.
            if !self.state.account.assumed.is_empty() {
                break;
            }
            let requested = self.oldest_request().is_some_and(|at| at <= since.saturating_add(self.state.config.slack));
            if requested && self.unrequested_count <= self.state.nameless {
                break;
            }
            self.unrequested.pop_front();
            self.unrequested_count -= 1;
            self.items[place].stage = ItemStage::Unexpected;
            let item = self.items[place];
            self.state.account.open -= 1;
            if self.state.account.unfollowed == 0 {
                self.state.record_violation(LedgerViolationKind::Unexpected, key, &item, since);
            }
            self.queue_closed(key);
        }
    }

    fn process_entry(&mut self, entry: LedgerEntry) {
        let LedgerEntry { at, item: key, party, what } = entry;
        match what {
            LedgerMark::Named(name) => return self.rename_item(entry, name),
            LedgerMark::ProgressAssumed { deviation } => {
                self.state.progress_assumed.get_or_insert(deviation);
                return;
            }
            LedgerMark::Assumed { .. } if self.items.find(key).is_none() => return,
            _ => {}
        }
        let Some(place) = self.items.find(key).or_else(|| self.insert_item(key, at, what.expects_answer())) else {
            self.state.account.unfollowed += 1;
            return;
        };
        // Updated in place: copying the item would wait for all its cache lines.
        let (state, item) = (&mut self.state, &mut self.items[place]);
        let was_closed = item.is_closed();
        state.histories.push(&mut item.history, HistoryStep { at, party, what });
        if item.stage == ItemStage::Unrequested && what.expects_answer() {
            // Earlier entries of the item count from now on.
            let heard = state.histories.steps(&item.history);
            *item = item.as_requested();
            self.unrequested_count -= 1;
            state.apply_mark(key, item, at, party, what);
            for step in heard.iter().filter(|step| !step.what.expects_answer()) {
                state.apply_mark(key, item, step.at, step.party, step.what);
            }
        } else if item.stage != ItemStage::Unrequested {
            state.apply_mark(key, item, at, party, what);
        }
        if item.is_closed() && !was_closed {
            state.account.open -= 1;
            self.queue_closed(key);
        }
    }

    /// Inserts an unknown item if there is room.
    fn insert_item(&mut self, key: u64, at: Nanos, asked: bool) -> Option<SlotIndex> {
        if self.state.account.open >= MAX_OPEN as u64 {
            return None;
        }
        self.state.account.open += 1;
        if asked {
            return Some(self.items.insert(key, LedgerItem::new(ItemStage::Open)));
        }
        self.unrequested.push_back((at, key));
        self.unrequested_count += 1;
        Some(self.items.insert(key, LedgerItem::new(ItemStage::Unrequested)))
    }

    /// Returns the time of the oldest request that is still unnamed.
    fn oldest_request(&mut self) -> Option<Nanos> {
        let (items, nameless) = (&self.items, self.state.nameless);
        let waits = |key: u64| items.get(key).is_some_and(|item| item.nameless);
        // An unnamed request at the front would otherwise keep the named ones in the queue.
        if self.state.requests.len() > 2 * nameless + REQUESTS_KEPT {
            self.state.requests.retain(|(_, key)| waits(*key));
        }
        while let Some((at, key)) = self.state.requests.front() {
            if waits(*key) {
                return Some(*at);
            }
            self.state.requests.pop_front();
        }
        None
    }

    /// Moves a requested item to the key of the id that the hub assigned.
    fn rename_item(&mut self, entry: LedgerEntry, name: u64) {
        let LedgerEntry { at, item: key, party, what } = entry;
        let Some(place) = self.items.find(key) else {
            self.state.account.unfollowed += 1;
            return;
        };
        let mut item = self.items[place];
        self.state.end_naming(&mut item);
        let heard = match self.items.get(name) {
            None => Vec::new(),
            Some(mut early) if early.stage == ItemStage::Unrequested => {
                let heard = self.state.histories.steps(&early.history);
                self.state.histories.forget(&mut early.history);
                self.items.remove(name);
                self.state.account.open -= 1;
                self.unrequested_count -= 1;
                heard
            }
            // The id only arrived late.
            Some(mut late) if late.stage == ItemStage::Unexpected => {
                let heard = self.state.histories.steps(&late.history);
                self.state.histories.forget(&mut late.history);
                self.items.remove(name);
                self.state.account.unexpected = self.state.account.unexpected.saturating_sub(1);
                self.state.withdraw_violation(LedgerViolationKind::Unexpected, name);
                heard
            }
            Some(other) => {
                // The hub gave two items one id; the first keeps it.
                self.state.histories.push(&mut item.history, HistoryStep { at, party, what });
                self.items[place] = item;
                return self.state.record_violation(LedgerViolationKind::Unexpected, name, &other, at);
            }
        };
        self.items.remove(key);
        self.state.histories.push(&mut item.history, HistoryStep { at, party, what });
        self.items.insert(name, item);
        for step in heard {
            self.process_entry(LedgerEntry { at: step.at, item: name, party: step.party, what: step.what });
        }
    }

    /// Queues a closed item to be forgotten later.
    fn queue_closed(&mut self, key: u64) {
        self.closed.push_back(key);
        if self.closed.len() > CLOSED_KEPT
            && let Some(oldest) = self.closed.pop_front()
            && let Some(place) = self.items.find(oldest).filter(|place| self.items[*place].is_closed())
        {
            self.state.histories.forget(&mut self.items[place].history);
            self.items.remove(oldest);
        }
    }
}
