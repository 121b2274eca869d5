//! Cases that use the same exclusive resource of a hub are played one after the other. A worker that finds it in use
//! leaves its case to the worker that uses it, and plays other cases meanwhile.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The resources in use, by name, with the numbers of the cases that wait for each.
#[derive(Default)]
pub struct Lanes(Mutex<HashMap<String, VecDeque<u64>>>);

impl Lanes {
    fn taken(&self) -> MutexGuard<'_, HashMap<String, VecDeque<u64>>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a resource if it is free; otherwise queues the number of the case, and returns false.
    pub fn enter(&self, resource: &str, number: u64) -> bool {
        let mut taken = self.taken();
        match taken.get_mut(resource) {
            Some(waiting) => waiting.push_back(number),
            None => return taken.insert(resource.to_owned(), VecDeque::new()).is_none(),
        }
        false
    }

    /// Returns the case number that has waited longest, for the worker that uses the resource; without one, frees the
    /// resource.
    pub fn next(&self, resource: &str) -> Option<u64> {
        let mut taken = self.taken();
        let next = taken.get_mut(resource).and_then(VecDeque::pop_front);
        if next.is_none() {
            taken.remove(resource);
        }
        next
    }

    /// Takes the numbers of all cases that still wait, after the run.
    pub fn left(&self) -> Vec<u64> {
        std::mem::take(&mut *self.taken()).into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_that_waits_for_a_resource_is_played_by_the_worker_that_uses_it() {
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
