//! Cases that use the same exclusive resource of a hub are played one after the other. A worker that finds it in use
//! leaves its case to the worker that uses it, and plays other cases meanwhile.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The resources in use, by name, with the numbers of the cases that wait for each.
#[derive(Default)]
pub struct ResourceQueues(Mutex<HashMap<String, VecDeque<u64>>>);

impl ResourceQueues {
    fn lock_queues(&self) -> MutexGuard<'_, HashMap<String, VecDeque<u64>>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a resource if it is free; otherwise queues the number of the case, and returns false.
    pub fn take_or_queue(&self, resource: &str, number: u64) -> bool {
        let mut taken = self.lock_queues();
        match taken.get_mut(resource) {
            Some(waiting) => waiting.push_back(number),
            None => return taken.insert(resource.to_owned(), VecDeque::new()).is_none(),
        }
        false
    }

    /// Returns the case number that has waited longest, for the worker that uses the resource; without one, frees the
    /// resource.
    pub fn next_waiting(&self, resource: &str) -> Option<u64> {
        let mut taken = self.lock_queues();
        let next = taken.get_mut(resource).and_then(VecDeque::pop_front);
        if next.is_none() {
            taken.remove(resource);
        }
        next
    }

    /// Takes the numbers of all cases that still wait, after the run.
    pub fn take_waiting(&self) -> Vec<u64> {
        std::mem::take(&mut *self.lock_queues()).into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_that_waits_for_a_resource_is_played_by_the_worker_that_uses_it() {
        let queues = ResourceQueues::default();
        assert!(queues.take_or_queue("queue", 1));
        assert!(queues.take_or_queue("parent", 2));
        assert!(!queues.take_or_queue("queue", 3));
        assert!(!queues.take_or_queue("queue", 4));
        assert_eq!((queues.next_waiting("queue"), queues.next_waiting("parent")), (Some(3), None));
        assert!(queues.take_or_queue("parent", 5));
        assert_eq!((queues.next_waiting("queue"), queues.next_waiting("queue")), (Some(4), None));
        assert!(queues.take_or_queue("queue", 6));
        assert!(!queues.take_or_queue("queue", 7));
        assert_eq!(queues.take_waiting(), [7]);
    }
}
