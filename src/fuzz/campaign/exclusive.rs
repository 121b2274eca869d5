//! Cases that need something of the hub for themselves are played one after the other. Whoever finds it taken leaves his
//! number to whoever has it, so that those that need nothing have their turn meanwhile.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is taken, by its word, with the numbers of the cases that wait for it.
#[derive(Default)]
pub struct Lanes(Mutex<HashMap<String, VecDeque<u64>>>);

impl Lanes {
    fn taken(&self) -> MutexGuard<'_, HashMap<String, VecDeque<u64>>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what is free; a number that finds it taken waits.
    pub fn enter(&self, word: &str, number: u64) -> bool {
        let mut taken = self.taken();
        match taken.get_mut(word) {
            Some(waiting) => waiting.push_back(number),
            None => return taken.insert(word.to_owned(), VecDeque::new()).is_none(),
        }
        false
    }

    /// The number that waits longest, which is played by whoever has the word; without one it is free.
    pub fn next(&self, word: &str) -> Option<u64> {
        let mut taken = self.taken();
        let next = taken.get_mut(word).and_then(VecDeque::pop_front);
        if next.is_none() {
            taken.remove(word);
        }
        next
    }

    /// All that wait still, once nothing is played any more.
    pub fn left(&self) -> Vec<u64> {
        std::mem::take(&mut *self.taken()).into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_finds_it_taken_is_played_by_whoever_has_it() {
        let lanes = Lanes::default();
        assert!(lanes.enter("queue", 1));
        assert!(lanes.enter("parent", 2));
        assert!(!lanes.enter("queue", 3));
        assert!(!lanes.enter("queue", 4));
        assert_eq!((lanes.next("queue"), lanes.next("parent")), (Some(3), None));
        assert!(lanes.enter("parent", 5));
        assert_eq!((lanes.next("queue"), lanes.next("queue")), (Some(4), None));
        assert!(lanes.enter("queue", 6));
        assert!(!lanes.enter("queue", 7));
        assert_eq!(lanes.left(), [7]);
    }
}
