//! What a ledger says in the end, and at any time before.

use std::collections::BTreeMap;

use super::Mark;
use crate::load::Nanos;

/// What a hub may do wrong with an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ViolationKind {
    Lost,
    Duplicated,
    Unexpected,
    Reordered,
    AssignedTwice,
    AssignedAfterCancellation,
    WrongWorker,
}

impl ViolationKind {
    pub const ALL: [Self; 7] = [
        Self::Lost,
        Self::Duplicated,
        Self::Unexpected,
        Self::Reordered,
        Self::AssignedTwice,
        Self::AssignedAfterCancellation,
        Self::WrongWorker,
    ];

    /// As thresholds and reports spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::Unexpected => "unexpected",
            Self::Reordered => "reordered",
            Self::AssignedTwice => "assigned_twice",
            Self::AssignedAfterCancellation => "assigned_after_cancellation",
            Self::WrongWorker => "wrong_worker",
        }
    }
}

/// One line of an item's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// To the microsecond.
    pub at: Nanos,
    pub party: u32,
    pub what: Mark,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub kind: ViolationKind,
    pub at: Nanos,
    pub item: u64,
    /// What the protocol calls the item, where that is still known.
    pub name: Option<String>,
    /// What was noted about the item until then, the first and the last of it.
    pub history: Vec<Step>,
    /// Steps between them that were not kept.
    pub omitted: u64,
}

/// Counts of items, if nothing else is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub attempted: u64,
    pub acknowledged: u64,
    pub refused: u64,
    /// Came to the end that was asked for.
    pub completed: u64,
    pub failed: u64,
    pub cancelled: u64,
    /// Completed though never acknowledged; among the completed.
    pub recovered: u64,
    /// Acknowledged (or published) and never completed, though the hub had come to rest.
    pub lost: u64,
    /// The same, but the hub was still at work when the run ended.
    pub unfinished: u64,
    /// Attempted, and nothing was ever heard of it.
    pub unanswered: u64,
    /// Not at their end yet.
    pub open: u64,
    /// Events: ends, acknowledgements and deliveries that came once more.
    pub duplicated: u64,
    /// Items that nobody had asked for, and ends of what had been refused.
    pub unexpected: u64,
    /// Deliveries of a message after a later one of the same sender had reached the same receiver.
    pub reordered: u64,
    /// Assignments while another was standing, or after the job was done.
    pub assigned_twice: u64,
    /// Assignments after a confirmed cancellation.
    pub assigned_after_cancellation: u64,
    /// Completed by a worker other than the one it was assigned to.
    pub wrong_worker: u64,
    /// Deliveries, each receiver once.
    pub delivered: u64,
    /// Deliveries that published messages should have had.
    pub deliveries_due: u64,
    /// Entries that came when later ones had been accounted for: the account is doubtful.
    pub late: u64,
    /// Entries about items that there was no room for: the account is incomplete.
    pub unfollowed: u64,
    /// Sorted by kind, then as they were found; at most [`super::Config::kept`] of a kind.
    pub violations: Vec<Violation>,
    /// What the parties in their histories are called.
    pub parties: BTreeMap<u32, String>,
}

impl Violation {
    /// The item's name, or the hash of it where it is not known any more.
    pub fn called(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("{:016x}", self.item))
    }
}

impl Totals {
    /// What a party is called, or its number.
    pub fn party(&self, number: u32) -> String {
        self.parties.get(&number).cloned().unwrap_or_else(|| number.to_string())
    }

    pub fn of(&self, kind: ViolationKind) -> u64 {
        match kind {
            ViolationKind::Lost => self.lost,
            ViolationKind::Duplicated => self.duplicated,
            ViolationKind::Unexpected => self.unexpected,
            ViolationKind::Reordered => self.reordered,
            ViolationKind::AssignedTwice => self.assigned_twice,
            ViolationKind::AssignedAfterCancellation => self.assigned_after_cancellation,
            ViolationKind::WrongWorker => self.wrong_worker,
        }
    }

    pub(super) fn of_mut(&mut self, kind: ViolationKind) -> &mut u64 {
        match kind {
            ViolationKind::Lost => &mut self.lost,
            ViolationKind::Duplicated => &mut self.duplicated,
            ViolationKind::Unexpected => &mut self.unexpected,
            ViolationKind::Reordered => &mut self.reordered,
            ViolationKind::AssignedTwice => &mut self.assigned_twice,
            ViolationKind::AssignedAfterCancellation => &mut self.assigned_after_cancellation,
            ViolationKind::WrongWorker => &mut self.wrong_worker,
        }
    }

    /// All counts under the names that thresholds and reports use.
    pub fn counts(&self) -> [(&'static str, u64); 21] {
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
            ("open", self.open),
            ("duplicated", self.duplicated),
            ("unexpected", self.unexpected),
            ("reordered", self.reordered),
            ("assigned_twice", self.assigned_twice),
            ("assigned_after_cancellation", self.assigned_after_cancellation),
            ("wrong_worker", self.wrong_worker),
            ("delivered", self.delivered),
            ("deliveries_due", self.deliveries_due),
            ("late", self.late),
            ("unfollowed", self.unfollowed),
        ]
    }

    /// Whether the hub has done nothing wrong.
    pub fn is_clean(&self) -> bool {
        ViolationKind::ALL.iter().all(|kind| self.of(*kind) == 0)
    }
}
