//! An arena for the histories of all items: sixteen bytes per step, linked lists, freed when an item is forgotten.

use super::totals::Step;
use super::{Mark, NO_PARTY};

/// Steps kept per item: the first ones and the last.
const MOST_STEPS: u8 = 12;
/// Steps kept for all items in total; when the arena is full, new steps are only counted.
const MOST_IN_ALL: usize = 1 << 22;

const NONE: u32 = u32::MAX;

/// The steps of one item.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    first: u32,
    last: u32,
    kept: u8,
    /// A saturating count of the steps that were not kept.
    omitted: u16,
}

impl Default for Chain {
    fn default() -> Self {
        Self { first: NONE, last: NONE, kept: 0, omitted: 0 }
    }
}

/// A stored step; microseconds and the mark share eight bytes.
#[derive(Clone, Copy, Debug)]
struct Link {
    at_and_mark: u64,
    party: u32,
    next: u32,
}

#[derive(Debug)]
pub(super) struct Histories {
    links: Vec<Link>,
    free: u32,
}

impl Default for Histories {
    fn default() -> Self {
        Self { links: Vec::new(), free: NONE }
    }
}

impl Histories {
    pub fn push(&mut self, chain: &mut Chain, step: Step) {
        let party = match step.what {
            Mark::Published { receivers } => receivers,
            _ => step.party,
        };
        let link = Link { at_and_mark: (step.at / 1_000) << 8 | u64::from(code(step.what)), party, next: NONE };
        if chain.kept >= MOST_STEPS {
            // Replaces the last step, so that the history shows how the item ended.
            self.links[chain.last as usize] = link;
            chain.omitted = chain.omitted.saturating_add(1);
            return;
        }
        let Some(index) = self.place(link) else {
            chain.omitted = chain.omitted.saturating_add(1);
            return;
        };
        match chain.last {
            NONE => chain.first = index,
            last => self.links[last as usize].next = index,
        }
        chain.last = index;
        chain.kept += 1;
    }

    fn place(&mut self, link: Link) -> Option<u32> {
        if self.free != NONE {
            let index = self.free;
            self.free = self.links[index as usize].next;
            self.links[index as usize] = link;
            return Some(index);
        }
        if self.links.len() >= MOST_IN_ALL {
            return None;
        }
        self.links.push(link);
        Some(self.links.len() as u32 - 1)
    }

    pub fn steps(&self, chain: &Chain) -> Vec<Step> {
        let mut steps = Vec::with_capacity(chain.kept.into());
        let mut index = chain.first;
        while index != NONE {
            let link = self.links[index as usize];
            steps.push(step(link));
            index = link.next;
        }
        steps
    }

    pub fn omitted(chain: &Chain) -> u64 {
        chain.omitted.into()
    }

    /// Frees the steps.
    pub fn forget(&mut self, chain: &mut Chain) {
        if chain.last != NONE {
            self.links[chain.last as usize].next = self.free;
            self.free = chain.first;
        }
        *chain = Chain::default();
    }

    pub fn bytes(&self) -> usize {
        self.links.capacity() * size_of::<Link>()
    }
}

const MARKS: [Mark; 14] = [
    Mark::Attempted,
    Mark::Requested,
    Mark::Acknowledged,
    Mark::Refused,
    Mark::Unsure,
    Mark::Assigned,
    Mark::Released { back_ms: 0 },
    Mark::Cancelled,
    Mark::Delivered,
    Mark::Completed,
    Mark::Failed,
    Mark::Named(0),
    Mark::Held,
    Mark::NotTaken,
];
const PUBLISHED: u8 = MARKS.len() as u8;

fn code(mark: Mark) -> u8 {
    let like = |known: &Mark| match (known, mark) {
        (Mark::Named(_), Mark::Named(_)) | (Mark::Released { .. }, Mark::Released { .. }) => true,
        (known, mark) => *known == mark,
    };
    MARKS.iter().position(like).map_or(PUBLISHED, |at| at as u8)
}

fn step(link: Link) -> Step {
    let at = (link.at_and_mark >> 8) * 1_000;
    match MARKS.get((link.at_and_mark & 0xff) as usize) {
        Some(what) => Step { at, party: link.party, what: *what },
        // For `Published` the field holds the number of receivers; the sender is in the item.
        None => Step { at, party: NO_PARTY, what: Mark::Published { receivers: link.party } },
    }
}
