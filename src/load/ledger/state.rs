//! Applies marks to an item and to the totals.

use std::collections::{HashMap, VecDeque};

use super::history::Histories;
use super::item::{Item, MILLISECOND, Stage};
use super::name_table::KnownNames;
use super::recent_set::{self, Mixing, RecentSet};
use super::totals::{Totals, Violation, ViolationKind};
use super::{Config, Mark, NO_PARTY};
use crate::load::Nanos;

/// Deliveries remembered to detect a second one to the same receiver.
const DELIVERIES_KEPT: usize = 1 << 20;
/// Pairs of sender and receiver whose order is checked.
const MOST_PAIRS: usize = 1 << 20;

/// The ledger's state apart from the items.
pub(super) struct State {
    pub config: Config,
    pub account: Totals,
    pub names: KnownNames,
    pub histories: Histories,
    /// When an item last progressed.
    pub moved: Nanos,
    /// Requests in order of time; some may have been given an id since.
    pub requests: VecDeque<(Nanos, u64)>,
    pub nameless: usize,
    deliveries: RecentSet,
    /// The number of messages published per sender.
    published: HashMap<u32, u32, Mixing>,
    /// The latest message of each sender that has reached each receiver.
    order: HashMap<(u32, u32), u32, Mixing>,
}

impl State {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            account: Totals::default(),
            names: KnownNames::default(),
            histories: Histories::default(),
            moved: 0,
            requests: VecDeque::new(),
            nameless: 0,
            deliveries: RecentSet::new(DELIVERIES_KEPT),
            published: HashMap::default(),
            order: HashMap::default(),
        }
    }

    /// Returns the number of bytes allocated now.
    pub fn bytes(&self) -> usize {
        let table = recent_set::table_bytes;
        table(self.published.capacity(), size_of::<(u32, u32)>())
            + table(self.order.capacity(), size_of::<((u32, u32), u32)>())
            + self.histories.bytes()
            + self.names.bytes()
            + self.requests.capacity() * size_of::<(Nanos, u64)>()
            + self.deliveries.bytes()
    }

    /// Applies one mark to a known item.
    pub fn apply(&mut self, key: u64, item: &mut Item, at: Nanos, party: u32, what: Mark) {
        use ViolationKind as Kind;
        match what {
            Mark::Named(_) => {}
            // Requested again, perhaps after a reconnect: it is the same item.
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
            // One violation per item is enough.
            _ if item.stage == Stage::Unexpected => {}
            Mark::Acknowledged if item.acknowledged => self.violation(Kind::Duplicated, key, item, at),
            Mark::Acknowledged => {
                item.acknowledged = true;
                self.account.acknowledged += 1;
                // The completion arrived first, on another connection.
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
            Mark::NotTaken => self.not_taken(key, item, at, party),
            Mark::Released { back_ms } => self.released(key, item, at, party, back_ms),
            Mark::Held if item.holder == party => {
                item.holder = NO_PARTY;
                item.set_back(Nanos::MAX);
            }
            Mark::Held => {}
            Mark::Delivered => self.delivered(key, item, at, party),
            Mark::Completed => {
                let wrong = party != NO_PARTY && item.holder != NO_PARTY && party != item.holder;
                if wrong && !item.is_closed() {
                    self.violation(Kind::WrongWorker, key, item, at);
                }
                self.finish_as(key, item, at, Stage::Completed);
            }
        }
    }

    /// Ends an item, or reports a second end.
    fn finish_as(&mut self, key: u64, item: &mut Item, at: Nanos, stage: Stage) {
        match item.stage {
            Stage::Open => self.end(item, at, stage),
            Stage::Completed | Stage::Failed => self.violation(ViolationKind::Duplicated, key, item, at),
            Stage::Refused if stage == Stage::Refused => self.violation(ViolationKind::Duplicated, key, item, at),
            Stage::Refused => self.violation(ViolationKind::Unexpected, key, item, at),
            // The end may have crossed the confirmation of the cancellation.
            Stage::Cancelled | Stage::Unexpected | Stage::Unrequested => {}
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
            Stage::Open | Stage::Unrequested | Stage::Unexpected => {}
        }
    }

    fn assigned(&mut self, key: u64, item: &mut Item, at: Nanos, party: u32) {
        self.moved = self.moved.max(at);
        match item.stage {
            Stage::Cancelled if at > item.since().saturating_add(self.config.slack) => {
                self.violation(ViolationKind::AssignedAfterCancellation, key, item, at);
            }
            // Assigned again after its completion.
            Stage::Completed => self.violation(ViolationKind::AssignedTwice, key, item, at),
            Stage::Open if item.holder != NO_PARTY => {
                self.violation(ViolationKind::AssignedTwice, key, item, at);
                (item.doubled, item.before) = (true, item.holder);
                item.set_since(at);
            }
            _ => {}
        }
        item.holder = party;
        item.not_taken = false;
    }

    /// Applies an assignment that its worker could not take.
    fn not_taken(&mut self, key: u64, item: &mut Item, at: Nanos, party: u32) {
        let holder = item.holder;
        if item.is_closed() || holder != NO_PARTY {
            // The assignment came twice, or after the end of the item; the item remains with the worker that took it.
            self.assigned(key, item, at, party);
            item.holder = holder;
            return;
        }
        self.moved = self.moved.max(at);
        item.not_taken = true;
        self.violation(ViolationKind::NotTaken, key, item, at);
    }

    /// Applies a release. The previous worker may have released the job before its reassignment, reported later.
    fn released(&mut self, key: u64, item: &mut Item, at: Nanos, party: u32, back_ms: u32) {
        if item.doubled && item.before == party && at <= item.since().saturating_add(self.config.slack) {
            item.doubled = false;
            self.account.assigned_twice -= 1;
            self.take_back(ViolationKind::AssignedTwice, key);
        } else if item.holder == party {
            item.holder = NO_PARTY;
            item.set_back(at.saturating_add(Nanos::from(back_ms) * MILLISECOND).saturating_add(self.config.slack));
        }
    }

    /// Withdraws a violation that a later entry has explained.
    pub fn take_back(&mut self, kind: ViolationKind, key: u64) {
        let matches = |v: &Violation| v.kind == kind && v.item == key;
        if let Some(last) = self.account.violations.iter().rposition(matches) {
            self.account.violations.remove(last);
        }
    }

    /// Ends the wait for a request's id.
    pub fn is_named(&mut self, item: &mut Item) {
        self.nameless -= usize::from(std::mem::take(&mut item.nameless));
    }

    fn delivered(&mut self, key: u64, item: &mut Item, at: Nanos, party: u32) {
        if item.stage == Stage::Refused {
            return self.finish_as(key, item, at, Stage::Completed);
        }
        if !self.deliveries.insert(recent_set::mixed(key, party)) || item.delivered >= item.receivers {
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

    pub fn violation(&mut self, kind: ViolationKind, key: u64, item: &Item, at: Nanos) {
        *self.account.of_mut(kind) += 1;
        let kept = self.account.violations.iter().filter(|violation| violation.kind == kind).count();
        if kept >= self.config.kept {
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
