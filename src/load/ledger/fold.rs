//! The fold: entries in, account out.

use std::collections::{HashMap, VecDeque};

use super::account::{Account, Step, Violation, ViolationKind};
use super::history::Histories;
use super::item::{Item, MILLISECOND, Stage};
use super::items::Items;
use super::names::{Known, Names};
use super::recent::{self, Mixing, Recent};
use super::{CLOSED_KEPT, Config, Entry, MOST_OPEN, Mark, NOBODY};
use crate::load::Nanos;

/// Deliveries that are remembered, to see a second one to the same receiver.
const DELIVERIES_KEPT: usize = 1 << 20;
/// Pairs of sender and receiver whose order is watched.
const MOST_PAIRS: usize = 1 << 20;
/// Requests that have got a name, and are remembered behind one that has not.
const REQUESTS_KEPT: usize = 1 << 12;
/// Entries that wait for the window to pass; beyond, the older half of them does not wait.
const MOST_PENDING: usize = 1 << 19;

/// Follows every item to its end.
pub struct Ledger {
    config: Config,
    account: Account,
    /// Not accounted for yet.
    pending: Vec<Entry>,
    newest: Nanos,
    /// Everything before is accounted for.
    settled: Nanos,
    /// When an item last came closer to its end.
    moved: Nanos,
    items: Items,
    names: Known,
    histories: Histories,
    /// Closed items in the order in which they are forgotten.
    closed: VecDeque<u64>,
    /// Items that nobody has asked for yet, with when they were first heard of.
    strangers: VecDeque<(Nanos, u64)>,
    /// How many of them there are: some in the queue may have turned out to be known.
    unheard_of: usize,
    /// Requests whose name is not known, with when they were made; some may have got one.
    requests: VecDeque<(Nanos, u64)>,
    nameless: usize,
    deliveries: Recent,
    /// How many messages a sender has published.
    published: HashMap<u32, u32, Mixing>,
    /// The latest message of a sender that has reached a receiver.
    order: HashMap<(u32, u32), u32, Mixing>,
}

impl Ledger {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            account: Account::default(),
            pending: Vec::new(),
            newest: 0,
            settled: 0,
            moved: 0,
            items: Items::default(),
            names: Known::default(),
            histories: Histories::default(),
            closed: VecDeque::new(),
            strangers: VecDeque::new(),
            unheard_of: 0,
            requests: VecDeque::new(),
            nameless: 0,
            deliveries: Recent::new(DELIVERIES_KEPT),
            published: HashMap::default(),
            order: HashMap::default(),
        }
    }

    /// Takes a batch of one shard, in the order in which it noted them. Batches of several shards may come in any order, as
    /// long as none is older than the window.
    pub fn fold(&mut self, entries: &[Entry]) {
        self.pending.extend_from_slice(entries);
        self.newest = entries.iter().map(|entry| entry.at).fold(self.newest, Nanos::max);
        let upto = self.newest.saturating_sub(self.config.window);
        // Sorting costs; a quarter of a window at a time is often enough.
        if upto >= self.settled.saturating_add(self.config.window / 4) || self.pending.len() > MOST_PENDING {
            self.settle(upto);
        }
    }

    /// What items and parties are called, told before or with the entries about them.
    pub fn learn(&mut self, names: &Names) {
        self.names.learn(names);
    }

    /// Time goes on, though nothing may be noted: what is older than the window is accounted for.
    pub fn rest(&mut self, now: Nanos) {
        self.newest = self.newest.max(now);
        self.settle(self.newest.saturating_sub(self.config.window));
    }

    /// Where things stand. Entries within the window are not in it yet.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The run has ended at `now`: what is still open is lost, unfinished or unanswered.
    pub fn finish(mut self, now: Nanos) -> Account {
        self.settle(Nanos::MAX);
        self.expose(Nanos::MAX);
        let rested = now.saturating_sub(self.moved) >= self.config.quiet;
        let mut open: Vec<u64> = self.items.iter().filter(|(_, item)| !item.is_closed()).map(|(key, _)| key).collect();
        open.sort_unstable();
        for key in open {
            let Some(item) = self.items.get(key) else { continue };
            self.account.open -= 1;
            if item.stage == Stage::Stranger {
                // It is one of the unanswered requests.
                continue;
            }
            let owed = item.acknowledged || item.published && !item.unsure;
            // The hub has said that it will try again, and when.
            let waits = item.holder == NOBODY && item.back() > now;
            match (owed, rested && !waits) {
                (false, _) => self.account.unanswered += 1,
                (true, false) => self.account.unfinished += 1,
                (true, true) => self.violation(ViolationKind::Lost, key, &item, now),
            }
        }
        self.account.violations.sort_by_key(|violation| violation.kind);
        let told = self.account.violations.iter().flat_map(|violation| &violation.history).map(|step| step.party);
        let named = |party: u32| Some((party, self.names.party(party)?.to_owned()));
        self.account.parties = told.filter_map(named).collect();
        self.account
    }

    /// Bytes that are taken now.
    pub fn bytes(&self) -> usize {
        let table = recent::table_bytes;
        self.items.bytes()
            + table(self.published.capacity(), size_of::<(u32, u32)>())
            + table(self.order.capacity(), size_of::<((u32, u32), u32)>())
            + self.histories.bytes()
            + self.names.bytes()
            + self.closed.capacity() * size_of::<u64>()
            + (self.strangers.capacity() + self.requests.capacity()) * size_of::<(Nanos, u64)>()
            + self.deliveries.bytes()
            + self.pending.capacity() * size_of::<Entry>()
    }

    fn settle(&mut self, upto: Nanos) {
        // Stable, so that equal times of one batch keep their order.
        self.pending.sort_by_key(|entry| entry.at);
        let mut ripe = self.pending.partition_point(|entry| entry.at < upto);
        if self.pending.len() > MOST_PENDING {
            ripe = ripe.max(self.pending.len() / 2);
        }
        let pending = std::mem::take(&mut self.pending);
        for entry in &pending[..ripe] {
            self.account.late += u64::from(entry.at < self.settled);
            self.settled = self.settled.max(entry.at);
            self.expose(entry.at);
            self.take(*entry);
        }
        self.pending = pending;
        self.pending.drain(..ripe);
        self.settled = self.settled.max(upto.min(self.newest));
        self.expose(self.settled);
    }

    /// Strangers that nobody has asked for within the slack are unexpected, unless they may be what requests without a name
    /// have come to.
    fn expose(&mut self, now: Nanos) {
        while let Some((since, key)) = self.strangers.front().copied() {
            if since.saturating_add(self.config.slack) >= now {
                break;
            }
            let Some(mut item) = self.items.get(key).filter(|item| item.stage == Stage::Stranger) else {
                self.strangers.pop_front();
                continue;
            };
            let requested = self.oldest_request().is_some_and(|at| at <= since.saturating_add(self.config.slack));
            if requested && self.unheard_of <= self.nameless {
                break;
            }
            self.strangers.pop_front();
            self.unheard_of -= 1;
            item.stage = Stage::Unexpected;
            self.items.insert(key, item);
            self.account.open -= 1;
            if self.account.unfollowed == 0 {
                self.violation(ViolationKind::Unexpected, key, &item, since);
            }
            self.close(key);
        }
    }

    fn take(&mut self, entry: Entry) {
        let Entry { at, item: key, party, what } = entry;
        if let Mark::Named(name) = what {
            return self.name(entry, name);
        }
        let Some(mut item) = self.items.get(key).or_else(|| self.enter(key, at, what.asks())) else {
            self.account.unfollowed += 1;
            return;
        };
        self.histories.push(&mut item.history, Step { at, party, what });
        if item.stage == Stage::Stranger && what.asks() {
            // What was heard of it before counts now.
            let heard = self.histories.steps(&item.history);
            item = item.as_asked();
            self.unheard_of -= 1;
            self.apply(key, &mut item, at, party, what);
            for step in heard.iter().filter(|step| !step.what.asks()) {
                self.apply(key, &mut item, step.at, step.party, step.what);
            }
        } else if item.stage != Stage::Stranger {
            self.apply(key, &mut item, at, party, what);
        }
        let closes = item.is_closed() && self.items.get(key).is_none_or(|known| !known.is_closed());
        self.items.insert(key, item);
        if closes {
            self.account.open -= 1;
            self.close(key);
        }
    }

    /// Room for an item that was not known, if there is any. Whoever takes it puts it back.
    fn enter(&mut self, key: u64, at: Nanos, asked: bool) -> Option<Item> {
        if self.account.open >= MOST_OPEN as u64 {
            return None;
        }
        self.account.open += 1;
        if asked {
            return Some(Item::new(Stage::Open));
        }
        self.strangers.push_back((at, key));
        self.unheard_of += 1;
        Some(Item::new(Stage::Stranger))
    }

    fn apply(&mut self, key: u64, item: &mut Item, at: Nanos, party: u32, what: Mark) {
        use ViolationKind as Kind;
        match what {
            Mark::Named(_) => {}
            // Asked for once more, after a connection broke perhaps: it is the same item.
            _ if what.asks() && item.asked => {}
            Mark::Attempted | Mark::Requested => {
                self.account.attempted += 1;
                (item.asked, item.sender) = (true, party);
                if what == Mark::Requested {
                    item.nameless = true;
                    self.nameless += 1;
                    self.requests.push_back((at, key));
                }
            }
            Mark::Published { receivers } => {
                self.account.attempted += 1;
                self.account.deliveries_due += u64::from(receivers);
                let number = self.published.entry(party).or_default();
                *number += 1;
                item.publish(*number);
                (item.asked, item.sender, item.receivers) = (true, party, receivers);
                if receivers == 0 {
                    self.end(item, at, Stage::Completed);
                }
            }
            // One violation is enough.
            _ if item.stage == Stage::Unexpected => {}
            Mark::Acknowledged if item.acknowledged => self.violation(Kind::Duplicated, key, item, at),
            Mark::Acknowledged => {
                item.acknowledged = true;
                self.account.acknowledged += 1;
                // It was heard of on another connection first.
                if item.stage == Stage::Completed && !item.published {
                    self.account.recovered -= 1;
                }
            }
            Mark::Unsure => item.unsure = true,
            Mark::Refused => self.finish_as(key, item, at, Stage::Refused),
            Mark::Failed => self.finish_as(key, item, at, Stage::Failed),
            Mark::Cancelled => {
                if !item.is_closed() {
                    item.set_since(at);
                    self.end(item, at, Stage::Cancelled);
                }
            }
            Mark::Assigned => self.assigned(key, item, at, party),
            Mark::Released { back_ms } => self.released(key, item, at, party, back_ms),
            Mark::Delivered => self.delivered(key, item, at, party),
            Mark::Completed => {
                let wrong = party != NOBODY && item.holder != NOBODY && party != item.holder;
                if wrong && !item.is_closed() {
                    self.violation(Kind::WrongWorker, key, item, at);
                }
                self.finish_as(key, item, at, Stage::Completed);
            }
        }
    }

    /// An end, the first or another one.
    fn finish_as(&mut self, key: u64, item: &mut Item, at: Nanos, stage: Stage) {
        match item.stage {
            Stage::Open => self.end(item, at, stage),
            Stage::Completed | Stage::Failed => self.violation(ViolationKind::Duplicated, key, item, at),
            Stage::Refused if stage == Stage::Refused => self.violation(ViolationKind::Duplicated, key, item, at),
            Stage::Refused => self.violation(ViolationKind::Unexpected, key, item, at),
            // The end may have been on its way when the cancellation was confirmed.
            Stage::Cancelled | Stage::Unexpected | Stage::Stranger => {}
        }
    }

    fn end(&mut self, item: &mut Item, at: Nanos, stage: Stage) {
        item.stage = stage;
        self.is_named(item);
        self.moved = self.moved.max(at);
        match stage {
            Stage::Completed => {
                self.account.completed += 1;
                self.account.recovered += u64::from(!item.acknowledged && !item.published);
            }
            Stage::Failed => self.account.failed += 1,
            Stage::Refused => self.account.refused += 1,
            Stage::Cancelled => self.account.cancelled += 1,
            Stage::Open | Stage::Stranger | Stage::Unexpected => {}
        }
    }

    fn assigned(&mut self, key: u64, item: &mut Item, at: Nanos, party: u32) {
        self.moved = self.moved.max(at);
        match item.stage {
            Stage::Cancelled if at > item.since().saturating_add(self.config.slack) => {
                self.violation(ViolationKind::AssignedAfterCancellation, key, item, at);
            }
            // It was done, so somebody has had it.
            Stage::Completed => self.violation(ViolationKind::AssignedTwice, key, item, at),
            Stage::Open if item.holder != NOBODY => {
                self.violation(ViolationKind::AssignedTwice, key, item, at);
                (item.doubled, item.before) = (true, item.holder);
                item.set_since(at);
            }
            _ => {}
        }
        item.holder = party;
    }

    /// Who has had it may have given it back before another got it, and only be heard of later.
    fn released(&mut self, key: u64, item: &mut Item, at: Nanos, party: u32, back_ms: u32) {
        if item.doubled && item.before == party && at <= item.since().saturating_add(self.config.slack) {
            item.doubled = false;
            self.account.assigned_twice -= 1;
            self.take_back(ViolationKind::AssignedTwice, key);
        } else if item.holder == party {
            item.holder = NOBODY;
            item.set_back(at.saturating_add(Nanos::from(back_ms) * MILLISECOND).saturating_add(self.config.slack));
        }
    }

    /// What was told of an item has turned out to be right.
    fn take_back(&mut self, kind: ViolationKind, key: u64) {
        let told = |v: &Violation| v.kind == kind && v.item == key;
        if let Some(last) = self.account.violations.iter().rposition(told) {
            self.account.violations.remove(last);
        }
    }

    /// A request has got its name, or its end.
    fn is_named(&mut self, item: &mut Item) {
        self.nameless -= usize::from(std::mem::take(&mut item.nameless));
    }

    /// When the oldest request was made that has no name yet.
    fn oldest_request(&mut self) -> Option<Nanos> {
        let (items, nameless) = (&self.items, self.nameless);
        let waits = |key: u64| items.get(key).is_some_and(|item| item.nameless);
        // One that is never answered keeps the others from being forgotten at the front.
        if self.requests.len() > 2 * nameless + REQUESTS_KEPT {
            self.requests.retain(|(_, key)| waits(*key));
        }
        while let Some((at, key)) = self.requests.front() {
            if waits(*key) {
                return Some(*at);
            }
            self.requests.pop_front();
        }
        None
    }

    fn delivered(&mut self, key: u64, item: &mut Item, at: Nanos, party: u32) {
        if item.stage == Stage::Refused {
            return self.finish_as(key, item, at, Stage::Completed);
        }
        if !self.deliveries.insert(recent::mixed(key, party)) || item.delivered >= item.receivers {
            return self.violation(ViolationKind::Duplicated, key, item, at);
        }
        item.delivered += 1;
        self.account.delivered += 1;
        self.moved = self.moved.max(at);
        if self.config.ordered {
            self.ordered(key, item, at, party);
        }
        if item.delivered == item.receivers && item.stage == Stage::Open {
            self.end(item, at, Stage::Completed);
        }
    }

    fn ordered(&mut self, key: u64, item: &Item, at: Nanos, receiver: u32) {
        let pair = (item.sender, receiver);
        if self.order.len() >= MOST_PAIRS && !self.order.contains_key(&pair) {
            self.account.unfollowed += 1;
            return;
        }
        let latest = self.order.entry(pair).or_default();
        if *latest > item.number() {
            self.violation(ViolationKind::Reordered, key, item, at);
        } else {
            *latest = item.number();
        }
    }

    /// An attempted item gets the name under which everybody else speaks of it.
    fn name(&mut self, entry: Entry, name: u64) {
        let Entry { at, item: key, party, what } = entry;
        let Some(mut item) = self.items.get(key) else {
            self.account.unfollowed += 1;
            return;
        };
        self.is_named(&mut item);
        let heard = match self.items.get(name) {
            None => Vec::new(),
            Some(mut stranger) if stranger.stage == Stage::Stranger => {
                let heard = self.histories.steps(&stranger.history);
                self.histories.forget(&mut stranger.history);
                self.items.remove(name);
                self.account.open -= 1;
                self.unheard_of -= 1;
                heard
            }
            // Its name was only late.
            Some(mut accused) if accused.stage == Stage::Unexpected => {
                let heard = self.histories.steps(&accused.history);
                self.histories.forget(&mut accused.history);
                self.items.remove(name);
                self.account.unexpected = self.account.unexpected.saturating_sub(1);
                self.take_back(ViolationKind::Unexpected, name);
                heard
            }
            Some(other) => {
                // Two items got one name. The first keeps it.
                self.histories.push(&mut item.history, Step { at, party, what });
                self.items.insert(key, item);
                return self.violation(ViolationKind::Unexpected, name, &other, at);
            }
        };
        self.items.remove(key);
        self.histories.push(&mut item.history, Step { at, party, what });
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
            && let Some(mut item) = self.items.get(oldest).filter(Item::is_closed)
        {
            self.items.remove(oldest);
            self.histories.forget(&mut item.history);
        }
    }

    fn violation(&mut self, kind: ViolationKind, key: u64, item: &Item, at: Nanos) {
        *self.account.of_mut(kind) += 1;
        let told = self.account.violations.iter().filter(|violation| violation.kind == kind).count();
        if told >= self.config.kept {
            return;
        }
        let mut history = self.histories.steps(&item.history);
        for step in &mut history {
            if matches!(step.what, Mark::Published { .. }) {
                step.party = item.sender;
            }
        }
        let omitted = Histories::omitted(&item.history);
        let name = self.names.item(key);
        self.account.violations.push(Violation { kind, at, item: key, name, history, omitted });
    }
}
