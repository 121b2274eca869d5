//! The totals of a ledger, during a run and at its end.

use std::collections::BTreeMap;

use super::LedgerMark;
use crate::load::Nanos;
use crate::syntax::explanation::Explanation;

/// The kinds of violations that a hub can commit on an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LedgerViolationKind {
    Lost,
    Duplicated,
    Unexpected,
    Reordered,
    AssignedTwice,
    AssignedAfterCancellation,
    WrongWorker,
    NotTaken,
}

impl LedgerViolationKind {
    pub const ALL: [Self; 8] = [
        Self::Lost,
        Self::Duplicated,
        Self::Unexpected,
        Self::Reordered,
        Self::AssignedTwice,
        Self::AssignedAfterCancellation,
        Self::WrongWorker,
        Self::NotTaken,
    ];

    pub fn explanation(self) -> Explanation {
        let (means, usually) = match self {
            Self::Lost => (
                "An item that the hub acknowledged was never completed, or a message was not delivered to a client that should have received it.",
                "A worker that leaves with an assigned job that no other worker gets, or a queue that drops messages for slow clients.",
            ),
            Self::Duplicated => (
                "An item was completed twice, or a message was delivered twice to the same client.",
                "A retry after a timeout that does not check whether the first try arrived, or a client that is subscribed twice.",
            ),
            Self::Unexpected => (
                "The hub sent an item that no client had requested, or a message to a client that should not receive it.",
                "A routing table that still has clients that have left, or ids that are used twice.",
            ),
            Self::Reordered => (
                "Messages of one sender arrived in another order than they were sent. Only plans with `ordered: true` count this.",
                "One task per message, or several workers that read from the same queue.",
            ),
            Self::AssignedTwice => (
                "A job was assigned to a second worker while the first still had it.",
                "A race between two requests for work.",
            ),
            Self::AssignedAfterCancellation => (
                "A job was assigned to a worker after it had been cancelled.",
                "A cancelled job that stays in the queue.",
            ),
            Self::WrongWorker => (
                "A job was completed or reported by a worker to which it was not assigned, and the hub accepted that.",
                "The hub does not check which worker reports.",
            ),
            Self::NotTaken => (
                "The hub assigned a job to a worker that was busy or not waiting for one, so the worker could not take it.",
                "The hub assigns more than a worker has asked for. If the protocol allows that, raise `at_a_time` in the plan.",
            ),
        };
        Explanation::new(self.name(), means)
            .usually(usually)
            .next("Follow one item: the report shows its history with times and clients. `hubproof check` tests the same without load.")
    }

    /// Returns the name of the violation in thresholds and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::Unexpected => "unexpected",
            Self::Reordered => "reordered",
            Self::AssignedTwice => "assigned_twice",
            Self::AssignedAfterCancellation => "assigned_after_cancellation",
            Self::WrongWorker => "wrong_worker",
            Self::NotTaken => "not_taken",
        }
    }
}

/// One entry of an item's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryStep {
    /// When the step happened, with microsecond precision.
    pub at: Nanos,
    pub party: u32,
    pub what: LedgerMark,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerViolation {
    pub kind: LedgerViolationKind,
    pub at: Nanos,
    pub item: u64,
    /// The item's id, if it is still known.
    pub name: Option<String>,
    /// The item's history until the violation: its first and its last steps.
    pub history: Vec<HistoryStep>,
    /// The number of steps between the first and the last ones that were not kept.
    pub omitted: u64,
    /// For a lost message: who did not get it.
    pub missed: Option<MissedDeliveries>,
}

/// The deliveries that a published message lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissedDeliveries {
    /// The number of deliveries that the message lacks.
    pub number: usize,
    /// The number of parties that should receive messages like this one and did not get it. If there are more than
    /// missed deliveries, some of them may not have been addressed.
    pub candidates: usize,
    /// The first of these parties.
    pub receivers: Vec<u32>,
}

/// Counts of items, unless noted otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerTotals {
    pub attempted: u64,
    pub acknowledged: u64,
    pub refused: u64,
    /// Completed as requested.
    pub completed: u64,
    pub failed: u64,
    pub cancelled: u64,
    /// Completed without an acknowledgement; included in `completed`.
    pub recovered: u64,
    /// Acknowledged (or published) and never completed, though the hub was idle at the end.
    pub lost: u64,
    /// Like `lost`, but the hub was still completing others when the run ended.
    pub unfinished: u64,
    /// Attempted, without any answer.
    pub unanswered: u64,
    /// Items that cannot be judged, since their id or their progress is only assumed, by the index of the declared
    /// deviation.
    pub assumed: BTreeMap<u16, u64>,
    /// Items that have not ended yet.
    pub open: u64,
    /// Events: repeated ends, acknowledgements and deliveries.
    pub duplicated: u64,
    /// Items that no client requested, and completions of refused items.
    pub unexpected: u64,
    /// Deliveries after a later message of the same sender had reached the same receiver.
    pub reordered: u64,
    /// Assignments while another was open, or after the job was completed.
    pub assigned_twice: u64,
    /// Assignments after a confirmed cancellation.
    pub assigned_after_cancellation: u64,
    /// Completed by a worker other than the assigned one.
    pub wrong_worker: u64,
    /// Assignments to a worker that was busy or had not asked for one: none of its steps could take the job. The item
    /// is not counted as lost.
    pub not_taken: u64,
    /// Deliveries, each receiver counted once.
    pub delivered: u64,
    /// Deliveries due for the published messages.
    pub deliveries_due: u64,
    /// Entries that came after later ones had been processed: the totals may be wrong.
    pub late: u64,
    /// Entries dropped because the ledger was full: the totals are incomplete.
    pub unfollowed: u64,
    /// The violations by kind, then in order of detection; at most [`super::LedgerConfig::most_histories`] of each kind.
    pub violations: Vec<LedgerViolation>,
    /// The names of the parties in the histories of violations, by number.
    pub parties: BTreeMap<u32, String>,
}

impl LedgerViolation {
    /// Returns the item's id, or its hash if the id is no longer known.
    pub fn item_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("{:016x}", self.item))
    }
}

impl LedgerTotals {
    /// Describes who did not get a lost message: `not delivered to listener 3`.
    pub fn describe_missed(&self, missed: &MissedDeliveries) -> String {
        let names: Vec<String> = missed.receivers.iter().map(|party| self.party_name(*party)).collect();
        let more = match missed.candidates - names.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        match (names.join(", "), missed.candidates > missed.number) {
            (names, _) if names.is_empty() => format!("{} not delivered", missed.number),
            (names, false) => format!("not delivered to {names}{more}"),
            (names, true) => format!("{} not delivered, of those to {names}{more}", missed.number),
        }
    }

    /// Returns the name of a party, or its number.
    pub fn party_name(&self, number: u32) -> String {
        self.parties.get(&number).cloned().unwrap_or_else(|| number.to_string())
    }

    pub fn violations_of_kind(&self, kind: LedgerViolationKind) -> u64 {
        match kind {
            LedgerViolationKind::Lost => self.lost,
            LedgerViolationKind::Duplicated => self.duplicated,
            LedgerViolationKind::Unexpected => self.unexpected,
            LedgerViolationKind::Reordered => self.reordered,
            LedgerViolationKind::AssignedTwice => self.assigned_twice,
            LedgerViolationKind::AssignedAfterCancellation => self.assigned_after_cancellation,
            LedgerViolationKind::WrongWorker => self.wrong_worker,
            LedgerViolationKind::NotTaken => self.not_taken,
        }
    }

    pub(super) fn violations_of_kind_mut(&mut self, kind: LedgerViolationKind) -> &mut u64 {
        match kind {
            LedgerViolationKind::Lost => &mut self.lost,
            LedgerViolationKind::Duplicated => &mut self.duplicated,
            LedgerViolationKind::Unexpected => &mut self.unexpected,
            LedgerViolationKind::Reordered => &mut self.reordered,
            LedgerViolationKind::AssignedTwice => &mut self.assigned_twice,
            LedgerViolationKind::AssignedAfterCancellation => &mut self.assigned_after_cancellation,
            LedgerViolationKind::WrongWorker => &mut self.wrong_worker,
            LedgerViolationKind::NotTaken => &mut self.not_taken,
        }
    }

    /// Returns all counts with their names in thresholds and reports.
    pub fn counts(&self) -> [(&'static str, u64); 23] {
        [
            ("attempted", self.attempted),
            ("acknowledged", self.acknowledged),
            ("refused", self.refused),
            ("completed", self.completed),
            ("failed", self.failed),
            ("cancelled", self.cancelled),
            ("recovered", self.recovered),
            ("lost", self.lost),
            ("unfinished", self.unfinished),
            ("unanswered", self.unanswered),
            ("assumed", self.assumed_items()),
            ("open", self.open),
            ("duplicated", self.duplicated),
            ("unexpected", self.unexpected),
            ("reordered", self.reordered),
            ("assigned_twice", self.assigned_twice),
            ("assigned_after_cancellation", self.assigned_after_cancellation),
            ("wrong_worker", self.wrong_worker),
            ("not_taken", self.not_taken),
            ("delivered", self.delivered),
            ("deliveries_due", self.deliveries_due),
            ("late", self.late),
            ("unfollowed", self.unfollowed),
        ]
    }

    /// Returns the number of items that cannot be judged, since their id or their progress is only assumed.
    pub fn assumed_items(&self) -> u64 {
        self.assumed.values().sum()
    }

    pub(super) fn add_assumed(&mut self, deviation: u16) {
        *self.assumed.entry(deviation).or_default() += 1;
    }

    /// Whether there are no violations.
    pub fn is_clean(&self) -> bool {
        LedgerViolationKind::ALL.iter().all(|kind| self.violations_of_kind(*kind) == 0)
    }
}
