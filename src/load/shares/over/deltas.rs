//! What a member has reported, kept for a leader or watcher that missed it or came later.

use std::collections::VecDeque;

use super::message::Delta;

/// How many deltas of one second are kept apart; older ones are folded.
const KEPT: usize = 64;

/// What a share measures in one second, or in several.
pub trait Measured: Clone {
    /// Adds the next seconds' measurements if they belong to the same phase. Returns whether it did.
    fn absorb(&mut self, next: &Self) -> bool;
}

/// The deltas of a member, in order.
#[derive(Debug)]
pub struct DeltaBuffer<D> {
    kept: VecDeque<Delta<D>>,
    /// The number of seconds so far, and how many of them were published.
    measured: u64,
    published: u64,
}

impl<D> Default for DeltaBuffer<D> {
    fn default() -> Self {
        Self { kept: VecDeque::new(), measured: 0, published: 0 }
    }
}

impl<D: Measured> DeltaBuffer<D> {
    pub fn push(&mut self, content: D) {
        self.kept.push_back(Delta { first: self.measured, count: 1, content });
        self.measured += 1;
        if self.kept.len() > KEPT {
            self.fold_oldest();
        }
    }

    /// Returns the deltas to publish next, at most this many.
    pub fn take_unpublished(&mut self, most: usize) -> Vec<Delta<D>> {
        let next: Vec<Delta<D>> = self.from(self.published).take(most).cloned().collect();
        self.published = next.last().map_or(self.published, |last| last.first + last.count);
        next
    }

    /// Returns what was published from this second on, once more.
    pub fn published_from(&self, from: u64) -> impl Iterator<Item = &Delta<D>> {
        self.from(from).take_while(|delta| delta.first < self.published)
    }

    fn from(&self, from: u64) -> impl Iterator<Item = &Delta<D>> {
        self.kept.iter().filter(move |delta| delta.first + delta.count > from)
    }

    /// Folds the oldest two deltas that can be, but none that was published into one that was not: a receiver that
    /// follows needs the latter alone.
    fn fold_oldest(&mut self) {
        for at in 1..self.kept.len() {
            let next = self.kept[at].clone();
            let older = &mut self.kept[at - 1];
            let is_apart = older.first < self.published && next.first >= self.published;
            if !is_apart && older.content.absorb(&next.content) {
                older.count += next.count;
                self.kept.remove(at);
                return;
            }
        }
    }
}
