//! The reducer: takes entries, keeps the state of every item, and returns totals.

use std::collections::VecDeque;

use super::item::{Item, Stage};
use super::item_table::{ItemTable, Place};
use super::name_table::NameTable;
use super::state::State;
use super::totals::{Step, Totals, ViolationKind};
use super::{CLOSED_KEPT, Config, Entry, MOST_OPEN, Mark, NO_PARTY};
use crate::load::Nanos;

/// The most named requests that may remain queued behind an unnamed one.
const REQUESTS_KEPT: usize = 1 << 12;
/// The most entries queued until older ones can no longer arrive; beyond this, the older half is processed at once.
const MOST_PENDING: usize = 1 << 19;
/// Entries whose items are prefetched together.
const AHEAD: usize = 32;

/// Tracks every item from its request to its end.
pub struct Ledger {
    state: State,
    /// Entries that are not processed yet.
    pending: Vec<Entry>,
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

impl Ledger {
    pub fn new(config: Config) -> Self {
        Self {
            state: State::new(config),
            pending: Vec::new(),
            settled: 0,
            items: ItemTable::default(),
            closed: VecDeque::new(),
            unrequested: VecDeque::new(),
            unrequested_count: 0,
        }
    }

    /// Queues a batch of one shard, in its recorded order. It is processed once [`Ledger::reach`] rules out older
    /// entries.
    pub fn add(&mut self, entries: &[Entry]) {
        self.pending.extend_from_slice(entries);
        if self.pending.len() > MOST_PENDING {
            self.sort();
            self.settle(self.pending.len() / 2);
        }
    }

    /// Processes entries before `upto`; every shard must have reported everything older.
    pub fn reach(&mut self, upto: Nanos) {
        if upto >= self.settled {
            self.sort();
            self.settle(self.pending.partition_point(|entry| entry.at < upto));
            self.settled = upto;
            self.report_unrequested(upto);
        }
    }

    /// Stores the names of items and parties; they come before or with the entries about them.
    pub fn add_names(&mut self, names: NameTable) {
        self.state.names.add_names(names);
    }

    /// Returns the totals so far, excluding queued entries.
    pub fn account(&self) -> &Totals {
        &self.state.account
    }

    /// Records that the run was stopped before its drain was over: open items are unfinished, not lost.
    pub fn cut_short(&mut self) {
        self.state.moved = Nanos::MAX;
    }

    /// Ends the run at `now`: open items become lost, unfinished or unanswered.
    pub fn finish(mut self, now: Nanos) -> Totals {
        self.reach(Nanos::MAX);
        let rested = now.saturating_sub(self.state.moved) >= self.state.config.quiet;
        let mut open: Vec<u64> = self.items.iter().filter(|(_, item)| !item.is_closed()).map(|(key, _)| key).collect();
        open.sort_unstable();
        for key in open {
            let Some(item) = self.items.get(key) else { continue };
            self.state.account.open -= 1;
            if item.stage == Stage::Unrequested {
                // The item belongs to one of the unanswered requests.
                continue;
            }
            let owed = item.acknowledged || item.published && !item.unsure;
            // The hub announced a retry at a later time, or a worker still had the job.
            let waits = item.holder == NO_PARTY && item.back() > now;
            match (owed, rested && !waits) {
                (false, _) => self.state.account.unanswered += 1,
                (true, false) => self.state.account.unfinished += 1,
                (true, true) if item.not_taken => {}
                (true, true) => self.state.violation(ViolationKind::Lost, key, &item, now),
            }
        }
        self.state.account.violations.sort_by_key(|violation| violation.kind);
        let parties =
            self.state.account.violations.iter().flat_map(|violation| &violation.history).map(|step| step.party);
        let named = |party: u32| Some((party, self.state.names.party(party)?.to_owned()));
        self.state.account.parties = parties.filter_map(named).collect();
        self.state.account
    }

    /// Returns the number of bytes allocated now.
    pub fn bytes(&self) -> usize {
        self.state.bytes()
            + self.items.bytes()
            + self.closed.capacity() * size_of::<u64>()
            + self.unrequested.capacity() * size_of::<(Nanos, u64)>()
            + self.pending.capacity() * size_of::<Entry>()
    }

    /// Sorts stably, so that entries of equal time keep their order within a batch.
    fn sort(&mut self) {
        self.pending.sort_by_key(|entry| entry.at);
    }

    /// Processes the first `ripe` queued entries, which are sorted.
    fn settle(&mut self, ripe: usize) {
        let mut pending = std::mem::take(&mut self.pending);
        for (number, entry) in pending[..ripe].iter().enumerate() {
            if number % AHEAD == 0 {
                self.look_ahead(&pending[number..ripe.min(number + AHEAD)]);
            }
            self.state.account.late += u64::from(entry.at < self.settled);
            self.settled = self.settled.max(entry.at);
            self.report_unrequested(entry.at);
            self.take(*entry);
        }
        pending.drain(..ripe);
        self.pending = pending;
    }

    /// Prefetches the items of the next entries and those about to be forgotten: looking all of them up together
    /// overlaps their cache misses.
    fn look_ahead(&self, entries: &[Entry]) {
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
            let Some(place) = self.items.find(key).filter(|place| self.items[*place].stage == Stage::Unrequested)
            else {
                self.unrequested.pop_front();
                continue;
            };
            let requested = self.oldest_request().is_some_and(|at| at <= since.saturating_add(self.state.config.slack));
            if requested && self.unrequested_count <= self.state.nameless {
                break;
            }
            self.unrequested.pop_front();
            self.unrequested_count -= 1;
            self.items[place].stage = Stage::Unexpected;
            let item = self.items[place];
            self.state.account.open -= 1;
            if self.state.account.unfollowed == 0 {
                self.state.violation(ViolationKind::Unexpected, key, &item, since);
            }
            self.close(key);
        }
    }

    fn take(&mut self, entry: Entry) {
        let Entry { at, item: key, party, what } = entry;
        if let Mark::Named(name) = what {
            return self.name(entry, name);
        }
        let Some(place) = self.items.find(key).or_else(|| self.enter(key, at, what.asks())) else {
            self.state.account.unfollowed += 1;
            return;
        };
        // Updated in place: copying the item would wait for all its cache lines.
        let (state, item) = (&mut self.state, &mut self.items[place]);
        let was_closed = item.is_closed();
        state.histories.push(&mut item.history, Step { at, party, what });
        if item.stage == Stage::Unrequested && what.asks() {
            // Earlier entries of the item count from now on.
            let heard = state.histories.steps(&item.history);
            *item = item.as_asked();
            self.unrequested_count -= 1;
            state.apply(key, item, at, party, what);
            for step in heard.iter().filter(|step| !step.what.asks()) {
                state.apply(key, item, step.at, step.party, step.what);
            }
        } else if item.stage != Stage::Unrequested {
            state.apply(key, item, at, party, what);
        }
        if item.is_closed() && !was_closed {
            state.account.open -= 1;
            self.close(key);
        }
    }

    /// Inserts an unknown item if there is room.
    fn enter(&mut self, key: u64, at: Nanos, asked: bool) -> Option<Place> {
        if self.state.account.open >= MOST_OPEN as u64 {
            return None;
        }
        self.state.account.open += 1;
        if asked {
            return Some(self.items.insert(key, Item::new(Stage::Open)));
        }
        self.unrequested.push_back((at, key));
        self.unrequested_count += 1;
        Some(self.items.insert(key, Item::new(Stage::Unrequested)))
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
    fn name(&mut self, entry: Entry, name: u64) {
        let Entry { at, item: key, party, what } = entry;
        let Some(place) = self.items.find(key) else {
            self.state.account.unfollowed += 1;
            return;
        };
        let mut item = self.items[place];
        self.state.is_named(&mut item);
        let heard = match self.items.get(name) {
            None => Vec::new(),
            Some(mut early) if early.stage == Stage::Unrequested => {
                let heard = self.state.histories.steps(&early.history);
                self.state.histories.forget(&mut early.history);
                self.items.remove(name);
                self.state.account.open -= 1;
                self.unrequested_count -= 1;
                heard
            }
            // The id only arrived late.
            Some(mut late) if late.stage == Stage::Unexpected => {
                let heard = self.state.histories.steps(&late.history);
                self.state.histories.forget(&mut late.history);
                self.items.remove(name);
                self.state.account.unexpected = self.state.account.unexpected.saturating_sub(1);
                self.state.take_back(ViolationKind::Unexpected, name);
                heard
            }
            Some(other) => {
                // The hub gave two items one id; the first keeps it.
                self.state.histories.push(&mut item.history, Step { at, party, what });
                self.items[place] = item;
                return self.state.violation(ViolationKind::Unexpected, name, &other, at);
            }
        };
        self.items.remove(key);
        self.state.histories.push(&mut item.history, Step { at, party, what });
        self.items.insert(name, item);
        for step in heard {
            self.take(Entry { at: step.at, item: name, party: step.party, what: step.what });
        }
    }

    /// Queues a closed item to be forgotten later.
    fn close(&mut self, key: u64) {
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
