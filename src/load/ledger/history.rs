//! An arena for the histories of all items: sixteen bytes per step, linked lists, freed when an item is forgotten.

use super::totals::HistoryStep;
use super::{LedgerMark, NO_PARTY};

/// Steps kept per item: the first ones and the last.
const MAX_STEPS: u8 = 12;
/// Steps kept for all items in total; when the arena is full, new steps are only counted.
const MAX_IN_ALL: usize = 1 << 22;

const NO_STEP: u32 = u32::MAX;

/// The steps of one item.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepChain {
    first: u32,
    last: u32,
    kept: u8,
    /// A saturating count of the steps that were not kept.
    omitted: u16,
}

impl Default for StepChain {
    fn default() -> Self {
        Self { first: NO_STEP, last: NO_STEP, kept: 0, omitted: 0 }
    }
}

/// A stored step; microseconds and the mark share eight bytes.
#[derive(Clone, Copy, Debug)]
struct StoredStep {
    at_and_mark: u64,
    party: u32,
    next: u32,
}

#[derive(Debug)]
pub(super) struct ItemHistories {
    links: Vec<StoredStep>,
    free: u32,
}

impl Default for ItemHistories {
    fn default() -> Self {
        Self { links: Vec::new(), free: NO_STEP }
    }
}

impl ItemHistories {
    pub fn push(&mut self, chain: &mut StepChain, step: HistoryStep) {
        let party = match step.what {
            LedgerMark::Published { receivers } => receivers,
            LedgerMark::Assumed { deviation } => deviation.into(),
            _ => step.party,
        };
        let link =
            StoredStep { at_and_mark: (step.at / 1_000) << 8 | u64::from(mark_code(step.what)), party, next: NO_STEP };
        if chain.kept >= MAX_STEPS {
            // Replaces the last step, so that the history shows how the item ended.
            self.links[chain.last as usize] = link;
            chain.omitted = chain.omitted.saturating_add(1);
            return;
        }
        let Some(index) = self.store_step(link) else {
            chain.omitted = chain.omitted.saturating_add(1);
            return;
        };
        match chain.last {
            NO_STEP => chain.first = index,
            last => self.links[last as usize].next = index,
        }
        chain.last = index;
        chain.kept += 1;
    }

    fn store_step(&mut self, link: StoredStep) -> Option<u32> {
        if self.free != NO_STEP {
            let index = self.free;
            self.free = self.links[index as usize].next;
            self.links[index as usize] = link;
            return Some(index);
        }
        if self.links.len() >= MAX_IN_ALL {
            return None;
        }
        self.links.push(link);
        Some(self.links.len() as u32 - 1)
    }

    pub fn steps(&self, chain: &StepChain) -> Vec<HistoryStep> {
        let mut steps = Vec::with_capacity(chain.kept.into());
        let mut index = chain.first;
        while index != NO_STEP {
            let link = self.links[index as usize];
            steps.push(unpack_step(link));
            index = link.next;
        }
        steps
    }

    pub fn omitted(chain: &StepChain) -> u64 {
        chain.omitted.into()
    }

    /// Frees the steps.
    pub fn forget(&mut self, chain: &mut StepChain) {
        if chain.last != NO_STEP {
            self.links[chain.last as usize].next = self.free;
            self.free = chain.first;
        }
        *chain = StepChain::default();
    }

    pub fn bytes(&self) -> usize {
        self.links.capacity() * size_of::<StoredStep>()
    }
}

const MARKS: [LedgerMark; 15] = [
    LedgerMark::Attempted,
    LedgerMark::Requested,
    LedgerMark::Acknowledged,
    LedgerMark::Refused,
    LedgerMark::Unsure,
    LedgerMark::Assigned,
    LedgerMark::Released { back_ms: 0 },
    LedgerMark::Cancelled,
    LedgerMark::Delivered,
    LedgerMark::Completed,
    LedgerMark::Failed,
    LedgerMark::Named(0),
    LedgerMark::Held,
    LedgerMark::NotTaken,
    LedgerMark::Assumed { deviation: 0 },
];
const PUBLISHED_CODE: u8 = MARKS.len() as u8;

fn mark_code(mark: LedgerMark) -> u8 {
    let like = |known: &LedgerMark| match (known, mark) {
        (LedgerMark::Named(_), LedgerMark::Named(_))
        | (LedgerMark::Released { .. }, LedgerMark::Released { .. })
        | (LedgerMark::Assumed { .. }, LedgerMark::Assumed { .. }) => true,
        (known, mark) => *known == mark,
    };
    MARKS.iter().position(like).map_or(PUBLISHED_CODE, |at| at as u8)
}

fn unpack_step(link: StoredStep) -> HistoryStep {
    let at = (link.at_and_mark >> 8) * 1_000;
    match MARKS.get((link.at_and_mark & 0xff) as usize) {
        Some(LedgerMark::Assumed { .. }) => {
            HistoryStep { at, party: NO_PARTY, what: LedgerMark::Assumed { deviation: link.party as u16 } }
        }
        Some(what) => HistoryStep { at, party: link.party, what: *what },
        // For `Published` the field holds the number of receivers; the sender is in the item.
        None => HistoryStep { at, party: NO_PARTY, what: LedgerMark::Published { receivers: link.party } },
    }
}
