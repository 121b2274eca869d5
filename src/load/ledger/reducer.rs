//! The fold: entries in, account out.

use std::collections::VecDeque;

use super::item::{Item, Stage};
use super::item_table::{ItemTable, Place};
use super::name_table::NameTable;
use super::state::State;
use super::totals::{Step, Totals, ViolationKind};
use super::{CLOSED_KEPT, Config, Entry, MOST_OPEN, Mark, NOBODY};
use crate::load::Nanos;

/// Requests that have got a name, and are remembered behind one that has not.
const REQUESTS_KEPT: usize = 1 << 12;
/// Entries that wait for others that may be older; beyond, the older half of them does not wait.
const MOST_PENDING: usize = 1 << 19;
/// Entries whose items are looked for at once.
const AHEAD: usize = 32;

/// Follows every item to its end.
pub struct Ledger {
    books: State,
    /// Not accounted for yet.
    pending: Vec<Entry>,
    /// Everything before is accounted for.
    settled: Nanos,
    items: ItemTable,
    /// Closed items in the order in which they are forgotten.
    closed: VecDeque<u64>,
    /// Items that nobody has asked for yet, with when they were first heard of.
    strangers: VecDeque<(Nanos, u64)>,
    /// How many of them there are: some in the queue may have turned out to be known.
    unheard_of: usize,
}

impl Ledger {
    pub fn new(config: Config) -> Self {
        Self {
            books: State::new(config),
            pending: Vec::new(),
            settled: 0,
            items: ItemTable::default(),
            closed: VecDeque::new(),
            strangers: VecDeque::new(),
            unheard_of: 0,
        }
    }

    /// Takes a batch of one shard, in the order in which it noted them. It is accounted for once [`Ledger::reach`] says that
    /// nothing older comes.
    pub fn fold(&mut self, entries: &[Entry]) {
        self.pending.extend_from_slice(entries);
        if self.pending.len() > MOST_PENDING {
            self.sort();
            self.settle(self.pending.len() / 2);
        }
    }

    /// Every shard has told what it had to tell before `upto`.
    pub fn reach(&mut self, upto: Nanos) {
        if upto >= self.settled {
            self.sort();
            self.settle(self.pending.partition_point(|entry| entry.at < upto));
            self.settled = upto;
            self.expose(upto);
        }
    }

    /// What items and parties are called, told before or with the entries about them.
    pub fn learn(&mut self, names: NameTable) {
        self.books.names.learn(names);
    }

    /// Where things stand. Entries that still wait for older ones are not in it.
    pub fn account(&self) -> &Totals {
        &self.books.account
    }

    /// The run has ended at `now`: what is still open is lost, unfinished or unanswered.
    pub fn finish(mut self, now: Nanos) -> Totals {
        self.reach(Nanos::MAX);
        let rested = now.saturating_sub(self.books.moved) >= self.books.config.quiet;
        let mut open: Vec<u64> = self.items.iter().filter(|(_, item)| !item.is_closed()).map(|(key, _)| key).collect();
        open.sort_unstable();
        for key in open {
            let Some(item) = self.items.get(key) else { continue };
            self.books.account.open -= 1;
            if item.stage == Stage::Stranger {
                // It is one of the unanswered requests.
                continue;
            }
            let owed = item.acknowledged || item.published && !item.unsure;
            // The hub has said that it will try again, and when.
            let waits = item.holder == NOBODY && item.back() > now;
            match (owed, rested && !waits) {
                (false, _) => self.books.account.unanswered += 1,
                (true, false) => self.books.account.unfinished += 1,
                (true, true) => self.books.violation(ViolationKind::Lost, key, &item, now),
            }
        }
        self.books.account.violations.sort_by_key(|violation| violation.kind);
        let told = self.books.account.violations.iter().flat_map(|violation| &violation.history).map(|step| step.party);
        let named = |party: u32| Some((party, self.books.names.party(party)?.to_owned()));
        self.books.account.parties = told.filter_map(named).collect();
        self.books.account
    }

    /// Bytes that are taken now.
    pub fn bytes(&self) -> usize {
        self.books.bytes()
            + self.items.bytes()
            + self.closed.capacity() * size_of::<u64>()
            + self.strangers.capacity() * size_of::<(Nanos, u64)>()
            + self.pending.capacity() * size_of::<Entry>()
    }

    /// Stable, so that equal times of one batch keep their order.
    fn sort(&mut self) {
        self.pending.sort_by_key(|entry| entry.at);
    }

    /// Accounts for so many of those that wait, which are sorted.
    fn settle(&mut self, ripe: usize) {
        let mut pending = std::mem::take(&mut self.pending);
        for (number, entry) in pending[..ripe].iter().enumerate() {
            if number % AHEAD == 0 {
                self.look_ahead(&pending[number..ripe.min(number + AHEAD)]);
            }
            self.books.account.late += u64::from(entry.at < self.settled);
            self.settled = self.settled.max(entry.at);
            self.expose(entry.at);
            self.take(*entry);
        }
        pending.drain(..ripe);
        self.pending = pending;
    }

    /// Touches what the next entries are about, and what will be forgotten in its turn: where all of it is looked for at once,
    /// the processor waits for the memory once, and not for each in turn.
    fn look_ahead(&self, entries: &[Entry]) {
        let full = self.closed.len() + entries.len() > CLOSED_KEPT;
        let forgotten = self.closed.iter().take(if full { entries.len() } else { 0 });
        for key in entries.iter().map(|entry| entry.item).chain(forgotten.copied()) {
            std::hint::black_box(self.items.get(key).map(|item| item.stage));
        }
    }

    /// Strangers that nobody has asked for within the slack are unexpected, unless they may be what requests without a name
    /// have come to.
    fn expose(&mut self, now: Nanos) {
        while let Some((since, key)) = self.strangers.front().copied() {
            if since.saturating_add(self.books.config.slack) >= now {
                break;
            }
            let Some(place) = self.items.find(key).filter(|place| self.items[*place].stage == Stage::Stranger) else {
                self.strangers.pop_front();
                continue;
            };
            let requested = self.oldest_request().is_some_and(|at| at <= since.saturating_add(self.books.config.slack));
            if requested && self.unheard_of <= self.books.nameless {
                break;
            }
            self.strangers.pop_front();
            self.unheard_of -= 1;
            self.items[place].stage = Stage::Unexpected;
            let item = self.items[place];
            self.books.account.open -= 1;
            if self.books.account.unfollowed == 0 {
                self.books.violation(ViolationKind::Unexpected, key, &item, since);
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
            self.books.account.unfollowed += 1;
            return;
        };
        // In its place: writing it anew would wait for all of it to be written.
        let (books, item) = (&mut self.books, &mut self.items[place]);
        let was_closed = item.is_closed();
        books.histories.push(&mut item.history, Step { at, party, what });
        if item.stage == Stage::Stranger && what.asks() {
            // What was heard of it before counts now.
            let heard = books.histories.steps(&item.history);
            *item = item.as_asked();
            self.unheard_of -= 1;
            books.apply(key, item, at, party, what);
            for step in heard.iter().filter(|step| !step.what.asks()) {
                books.apply(key, item, step.at, step.party, step.what);
            }
        } else if item.stage != Stage::Stranger {
            books.apply(key, item, at, party, what);
        }
        if item.is_closed() && !was_closed {
            books.account.open -= 1;
            self.close(key);
        }
    }

    /// The place of an item that was not known, if there is room for it.
    fn enter(&mut self, key: u64, at: Nanos, asked: bool) -> Option<Place> {
        if self.books.account.open >= MOST_OPEN as u64 {
            return None;
        }
        self.books.account.open += 1;
        if asked {
            return Some(self.items.insert(key, Item::new(Stage::Open)));
        }
        self.strangers.push_back((at, key));
        self.unheard_of += 1;
        Some(self.items.insert(key, Item::new(Stage::Stranger)))
    }

    /// When the oldest request was made that has no name yet.
    fn oldest_request(&mut self) -> Option<Nanos> {
        let (items, nameless) = (&self.items, self.books.nameless);
        let waits = |key: u64| items.get(key).is_some_and(|item| item.nameless);
        // One that is never answered keeps the others from being forgotten at the front.
        if self.books.requests.len() > 2 * nameless + REQUESTS_KEPT {
            self.books.requests.retain(|(_, key)| waits(*key));
        }
        while let Some((at, key)) = self.books.requests.front() {
            if waits(*key) {
                return Some(*at);
            }
            self.books.requests.pop_front();
        }
        None
    }

    /// An attempted item gets the name under which everybody else speaks of it.
    fn name(&mut self, entry: Entry, name: u64) {
        let Entry { at, item: key, party, what } = entry;
        let Some(place) = self.items.find(key) else {
            self.books.account.unfollowed += 1;
            return;
        };
        let mut item = self.items[place];
        self.books.is_named(&mut item);
        let heard = match self.items.get(name) {
            None => Vec::new(),
            Some(mut stranger) if stranger.stage == Stage::Stranger => {
                let heard = self.books.histories.steps(&stranger.history);
                self.books.histories.forget(&mut stranger.history);
                self.items.remove(name);
                self.books.account.open -= 1;
                self.unheard_of -= 1;
                heard
            }
            // Its name was only late.
            Some(mut accused) if accused.stage == Stage::Unexpected => {
                let heard = self.books.histories.steps(&accused.history);
                self.books.histories.forget(&mut accused.history);
                self.items.remove(name);
                self.books.account.unexpected = self.books.account.unexpected.saturating_sub(1);
                self.books.take_back(ViolationKind::Unexpected, name);
                heard
            }
            Some(other) => {
                // Two items got one name. The first keeps it.
                self.books.histories.push(&mut item.history, Step { at, party, what });
                self.items[place] = item;
                return self.books.violation(ViolationKind::Unexpected, name, &other, at);
            }
        };
        self.items.remove(key);
        self.books.histories.push(&mut item.history, Step { at, party, what });
        self.items.insert(name, item);
        for step in heard {
            self.take(Entry { at: step.at, item: name, party: step.party, what: step.what });
        }
    }

    /// A closed item is remembered for a while.
    fn close(&mut self, key: u64) {
        self.closed.push_back(key);
        if self.closed.len() > CLOSED_KEPT
            && let Some(oldest) = self.closed.pop_front()
            && let Some(place) = self.items.find(oldest).filter(|place| self.items[*place].is_closed())
        {
            self.books.histories.forget(&mut self.items[place].history);
            self.items.remove(oldest);
        }
    }
}
