//! Applies marks to an item and to the totals.

use std::collections::{HashMap, VecDeque};

use super::history::ItemHistories;
use super::item::{ItemStage, LedgerItem, MILLISECOND};
use super::name_table::RememberedNames;
use super::recent_set::{self, BuildKeyHasher, RecentSet};
use super::totals::{LedgerTotals, LedgerViolation, LedgerViolationKind};
use super::{LedgerConfig, LedgerMark, NO_PARTY};
use crate::load::Nanos;

/// Deliveries remembered to detect a second one to the same receiver.
const DELIVERIES_KEPT: usize = 1 << 20;
/// Pairs of sender and receiver whose order is checked.
const MAX_PAIRS: usize = 1 << 20;

/// The ledger's state apart from the items.
pub(super) struct LedgerState {
    pub config: LedgerConfig,
    pub account: LedgerTotals,
    pub names: RememberedNames,
    pub histories: ItemHistories,
    /// When an item last progressed.
    pub moved: Nanos,
    /// Requests in order of time; some may have been given an id since.
    pub requests: VecDeque<(Nanos, u64)>,
    pub nameless: usize,
    /// The deviation because of which a client first assumed that it was given a job or a message.
    pub progress_assumed: Option<u16>,
    deliveries: RecentSet,
    /// The number of messages published per sender.
    published: HashMap<u32, u32, BuildKeyHasher>,
    /// The latest message of each sender that has reached each receiver.
    order: HashMap<(u32, u32), u32, BuildKeyHasher>,
}

impl LedgerState {
    pub fn new(config: LedgerConfig) -> Self {
        Self {
            config,
            account: LedgerTotals::default(),
            names: RememberedNames::default(),
            histories: ItemHistories::default(),
            moved: 0,
            requests: VecDeque::new(),
            nameless: 0,
            progress_assumed: None,
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
    pub fn apply_mark(&mut self, key: u64, item: &mut LedgerItem, at: Nanos, party: u32, what: LedgerMark) {
        match what {
            LedgerMark::Named(_) | LedgerMark::ProgressAssumed { .. } => {}
            // Requested again, perhaps after a reconnect: it is the same item.
            _ if what.expects_answer() && item.asked => {}
            LedgerMark::Attempted | LedgerMark::Requested => {
                self.account.attempted += 1;
                (item.asked, item.sender) = (true, party);
                if what == LedgerMark::Requested {
                    item.nameless = true;
                    self.nameless += 1;
                    self.requests.push_back((at, key));
                }
            }
            LedgerMark::Published { receivers } => {
                self.account.attempted += 1;
                self.account.deliveries_due += u64::from(receivers);
                let number = self.published.entry(party).or_default();
                *number += 1;
                item.publish(*number);
                (item.asked, item.sender, item.receivers) = (true, party, receivers);
                if receivers == 0 {
                    self.end_item(item, at, ItemStage::Completed);
                }
            }
            // One violation per item is enough.
            _ if matches!(item.stage, ItemStage::Unexpected | ItemStage::Assumed) => {}
            LedgerMark::Assumed { .. } if item.is_closed() => {}
            LedgerMark::Assumed { deviation } => {
                self.end_item(item, at, ItemStage::Assumed);
                self.account.add_assumed(deviation);
            }
            LedgerMark::Acknowledged if item.acknowledged => {
                self.record_violation(LedgerViolationKind::Duplicated, key, item, at)
            }
            LedgerMark::Acknowledged => {
                item.acknowledged = true;
                self.account.acknowledged += 1;
                // The completion arrived first, on another connection.
                if item.stage == ItemStage::Completed && !item.published {
                    self.account.recovered -= 1;
                }
            }
            LedgerMark::Unsure => item.unsure = true,
            LedgerMark::Refused => self.finish_item(key, item, at, ItemStage::Refused),
            LedgerMark::Failed => self.finish_item(key, item, at, ItemStage::Failed),
            LedgerMark::Cancelled => {
                if !item.is_closed() {
                    item.set_since(at);
                    self.end_item(item, at, ItemStage::Cancelled);
                }
            }
            LedgerMark::Assigned => self.apply_assignment(key, item, at, party),
            LedgerMark::NotTaken => self.apply_not_taken(key, item, at, party),
            LedgerMark::Released { back_ms } => self.apply_release(key, item, at, party, back_ms),
            LedgerMark::Held if item.holder == party => {
                item.holder = NO_PARTY;
                item.set_reassign_by(Nanos::MAX);
            }
            LedgerMark::Held => {}
            LedgerMark::Delivered => self.apply_delivery(key, item, at, party),
            LedgerMark::Completed => {
                let wrong = party != NO_PARTY && item.holder != NO_PARTY && party != item.holder;
                if wrong && !item.is_closed() {
                    self.record_violation(LedgerViolationKind::WrongWorker, key, item, at);
                }
                self.finish_item(key, item, at, ItemStage::Completed);
            }
        }
    }

    /// Ends an item, or reports a second end.
    fn finish_item(&mut self, key: u64, item: &mut LedgerItem, at: Nanos, stage: ItemStage) {
        match item.stage {
            ItemStage::Open => self.end_item(item, at, stage),
            ItemStage::Completed | ItemStage::Failed => {
                self.record_violation(LedgerViolationKind::Duplicated, key, item, at)
            }
            ItemStage::Refused if stage == ItemStage::Refused => {
                self.record_violation(LedgerViolationKind::Duplicated, key, item, at)
            }
            ItemStage::Refused => self.record_violation(LedgerViolationKind::Unexpected, key, item, at),
            // The end may have crossed the confirmation of the cancellation.
            ItemStage::Cancelled | ItemStage::Assumed | ItemStage::Unexpected | ItemStage::Unrequested => {}
        }
    }

    fn end_item(&mut self, item: &mut LedgerItem, at: Nanos, stage: ItemStage) {
        item.stage = stage;
        self.end_naming(item);
        self.moved = self.moved.max(at);
        match stage {
            ItemStage::Completed => {
                self.account.completed += 1;
                self.account.recovered += u64::from(!item.acknowledged && !item.published);
            }
            ItemStage::Failed => self.account.failed += 1,
            ItemStage::Refused => self.account.refused += 1,
            ItemStage::Cancelled => self.account.cancelled += 1,
            ItemStage::Open | ItemStage::Unrequested | ItemStage::Assumed | ItemStage::Unexpected => {}
        }
    }

    fn apply_assignment(&mut self, key: u64, item: &mut LedgerItem, at: Nanos, party: u32) {
        self.moved = self.moved.max(at);
        match item.stage {
            ItemStage::Cancelled if at > item.since().saturating_add(self.config.slack) => {
                self.record_violation(LedgerViolationKind::AssignedAfterCancellation, key, item, at);
            }
            // Assigned again after its completion.
            ItemStage::Completed => self.record_violation(LedgerViolationKind::AssignedTwice, key, item, at),
            ItemStage::Open if item.holder != NO_PARTY => {
                self.record_violation(LedgerViolationKind::AssignedTwice, key, item, at);
                (item.doubled, item.before) = (true, item.holder);
                item.set_since(at);
            }
            _ => {}
        }
        item.holder = party;
        item.not_taken = false;
    }

    /// Applies an assignment that its worker could not take.
    fn apply_not_taken(&mut self, key: u64, item: &mut LedgerItem, at: Nanos, party: u32) {
        let holder = item.holder;
        if item.is_closed() || holder != NO_PARTY {
            // The assignment came twice, or after the end of the item; the item remains with the worker that took it.
            self.apply_assignment(key, item, at, party);
            item.holder = holder;
            return;
        }
        self.moved = self.moved.max(at);
        item.not_taken = true;
        self.record_violation(LedgerViolationKind::NotTaken, key, item, at);
    }

    /// Applies a release. The previous worker may have released the job before its reassignment, reported later.
    fn apply_release(&mut self, key: u64, item: &mut LedgerItem, at: Nanos, party: u32, back_ms: u32) {
        if item.doubled && item.before == party && at <= item.since().saturating_add(self.config.slack) {
            item.doubled = false;
            self.account.assigned_twice -= 1;
            self.withdraw_violation(LedgerViolationKind::AssignedTwice, key);
        } else if item.holder == party {
            item.holder = NO_PARTY;
            item.set_reassign_by(
                at.saturating_add(Nanos::from(back_ms) * MILLISECOND).saturating_add(self.config.slack),
            );
        }
    }

    /// Withdraws a violation that a later entry has explained.
    pub fn withdraw_violation(&mut self, kind: LedgerViolationKind, key: u64) {
        let matches = |v: &LedgerViolation| v.kind == kind && v.item == key;
        if let Some(last) = self.account.violations.iter().rposition(matches) {
            self.account.violations.remove(last);
        }
    }

    /// Ends the wait for a request's id.
    pub fn end_naming(&mut self, item: &mut LedgerItem) {
        self.nameless -= usize::from(std::mem::take(&mut item.nameless));
    }

    fn apply_delivery(&mut self, key: u64, item: &mut LedgerItem, at: Nanos, party: u32) {
        if item.stage == ItemStage::Refused {
            return self.finish_item(key, item, at, ItemStage::Completed);
        }
        if !self.deliveries.insert(recent_set::delivery_key(key, party)) || item.delivered >= item.receivers {
            return self.record_violation(LedgerViolationKind::Duplicated, key, item, at);
        }
        item.delivered += 1;
        self.account.delivered += 1;
        self.moved = self.moved.max(at);
        if self.config.ordered {
            self.check_order(key, item, at, party);
        }
        if item.delivered == item.receivers && item.stage == ItemStage::Open {
            self.end_item(item, at, ItemStage::Completed);
        }
    }

    /// Whether a party has received an item, as far as this is remembered.
    pub fn has_received(&self, key: u64, party: u32) -> bool {
        self.deliveries.contains(recent_set::delivery_key(key, party))
    }

    fn check_order(&mut self, key: u64, item: &LedgerItem, at: Nanos, receiver: u32) {
        let pair = (item.sender, receiver);
        if self.order.len() >= MAX_PAIRS && !self.order.contains_key(&pair) {
            self.account.unfollowed += 1;
            return;
        }
        let latest = self.order.entry(pair).or_default();
        if *latest > item.number() {
            self.record_violation(LedgerViolationKind::Reordered, key, item, at);
        } else {
            *latest = item.number();
        }
    }

    pub fn record_violation(&mut self, kind: LedgerViolationKind, key: u64, item: &LedgerItem, at: Nanos) {
        *self.account.violations_of_kind_mut(kind) += 1;
        let kept = self.account.violations.iter().filter(|violation| violation.kind == kind).count();
        if kept >= self.config.most_histories {
            return;
        }
        let mut history = self.histories.steps(&item.history);
        for step in &mut history {
            if matches!(step.what, LedgerMark::Published { .. }) {
                step.party = item.sender;
            }
        }
        let omitted = ItemHistories::omitted(&item.history);
        let name = self.names.item_name(key);
        self.account.violations.push(LedgerViolation { kind, at, item: key, name, history, omitted, missed: None });
    }
}
