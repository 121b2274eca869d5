//! The times in which a run holds back new journeys. They belong to no schedule: everything still to come is delayed by
//! the length of the hold.

use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use parking_lot::Mutex;

use super::Nanos;

/// The most holds of a run.
pub const MAX_HOLDS: usize = 64;

/// The holds of a run, as all threads know them: reading takes no lock. A time of the plan is a time without holds, so
/// [`Holds::shifted`] says when it comes.
#[derive(Debug)]
pub struct Holds {
    /// The beginning of the first hold, its end, the beginning of the second hold, and so on.
    changes: [AtomicU64; 2 * MAX_HOLDS],
    known: AtomicUsize,
    /// Held while a change is added.
    adding: Mutex<()>,
}

impl Default for Holds {
    fn default() -> Self {
        Self {
            changes: std::array::from_fn(|_| AtomicU64::new(Nanos::MAX)),
            known: AtomicUsize::new(0),
            adding: Mutex::new(()),
        }
    }
}

impl Holds {
    /// Begins a hold at `at`, or when the last one has ended. Returns its beginning; `None` if there is a hold, or there
    /// were too many.
    pub fn begin(&self, at: Nanos) -> Option<Nanos> {
        self.add(at, false)
    }

    /// Ends the current hold at `at`, or `least` after it began if that is later. Returns the time at which it ends, or
    /// `None` if there is no hold.
    pub fn end(&self, at: Nanos, least: Nanos) -> Option<Nanos> {
        let since = self.open()?;
        self.add(at.max(since.saturating_add(least)), true)
    }

    fn add(&self, at: Nanos, ends: bool) -> Option<Nanos> {
        // Nothing panics while the lock is held.
        let _adding = self.adding.lock();
        let known = self.known.load(Relaxed);
        if (known % 2 == 1) != ends {
            return None;
        }
        let at = self.change(known.wrapping_sub(1)).map_or(at, |last| at.max(last));
        self.changes.get(known)?.store(at, Relaxed);
        self.known.store(known + 1, Release);
        Some(at)
    }

    /// Returns the time of a change, from 0: the beginning of a hold if the number is even, its end if it is odd.
    pub fn change(&self, number: usize) -> Option<Nanos> {
        (number < self.known.load(Acquire)).then(|| self.changes[number].load(Relaxed))
    }

    /// Returns the number of changes so far.
    pub fn change_count(&self) -> usize {
        self.known.load(Acquire)
    }

    /// Returns the beginning of the hold that has not ended.
    pub fn open(&self) -> Option<Nanos> {
        let known = self.known.load(Acquire);
        if known % 2 == 1 { self.change(known - 1) } else { None }
    }

    /// Returns all holds: the end of an open one is `Nanos::MAX`.
    pub fn all(&self) -> Vec<std::ops::Range<Nanos>> {
        let known = self.known.load(Acquire);
        let hold = |first: usize| self.changes[first].load(Relaxed)..self.change(first + 1).unwrap_or(Nanos::MAX);
        (0..known).step_by(2).map(hold).collect()
    }

    /// Returns when a time of the plan comes; `Nanos::MAX` if it is held back, or not known.
    pub fn shifted(&self, time: Nanos) -> Nanos {
        let known = self.known.load(Acquire);
        let mut time = time;
        for first in (0..known).step_by(2) {
            let since = self.changes[first].load(Relaxed);
            if time < since {
                break;
            }
            match self.change(first + 1) {
                Some(until) => time = time.saturating_add(until - since),
                None => return Nanos::MAX,
            }
        }
        time
    }

    /// Returns the length of all holds that have ended.
    pub fn total(&self) -> Nanos {
        self.all().iter().filter(|hold| hold.end != Nanos::MAX).map(|hold| hold.end - hold.start).sum()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::before(9, Some(9))]
    #[case::at_the_beginning(10, Some(15))]
    #[case::after_the_first(12, Some(17))]
    #[case::before_the_second(24, Some(29))]
    #[case::after_both(25, Some(33))]
    #[case::in_the_open_one(92, None)]
    #[case::unknown(Nanos::MAX, None)]
    fn what_was_to_come_comes_later_by_the_holds(#[case] plan: Nanos, #[case] comes: Option<Nanos>) {
        let holds = Holds::default();
        assert_eq!((holds.begin(10), holds.end(15, 1)), (Some(10), Some(15)));
        assert_eq!((holds.begin(30), holds.end(33, 1)), (Some(30), Some(33)));
        assert_eq!(holds.begin(100), Some(100));
        assert_eq!(Some(holds.shifted(plan)).filter(|at| *at != Nanos::MAX), comes);
        assert_eq!(holds.total(), 8);
    }

    #[test]
    fn holds_do_not_overlap_and_their_number_is_limited() {
        let holds = Holds::default();
        assert_eq!(holds.end(5, 1), None);
        assert_eq!((holds.begin(10), holds.begin(11)), (Some(10), None));
        assert_eq!((holds.end(10, 3), holds.end(20, 3)), (Some(13), None));
        assert_eq!((holds.begin(12), holds.end(12, 3)), (Some(13), Some(16)));
        let more = (0..2 * MAX_HOLDS).filter(|_| holds.begin(100).and_then(|_| holds.end(100, 1)).is_some());
        assert_eq!(more.count(), MAX_HOLDS - 2);
    }
}
