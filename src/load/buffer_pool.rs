//! Lists that one thread fills and another reads: each returns to its pool when dropped, so that a run does not
//! allocate them again every interval.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::Mutex;

/// Limits of the pool, in lists and in bytes of all of them: a short peak must not hold memory for the rest of the run.
const KEPT: usize = 16;
const KEPT_BYTES: usize = 16 << 20;

/// A list that returns to its pool when it is dropped.
#[derive(Debug)]
pub struct PooledVec<T> {
    list: Vec<T>,
    /// Empty lists with their capacity.
    spare: Arc<Mutex<Vec<Vec<T>>>>,
}

impl<T> Default for PooledVec<T> {
    fn default() -> Self {
        Self { list: Vec::new(), spare: Arc::default() }
    }
}

impl<T> PooledVec<T> {
    /// Takes the contents and leaves an empty list of similar capacity.
    pub fn take(&mut self) -> Self {
        let spare = self.spare.lock().pop();
        let next = spare.unwrap_or_else(|| Vec::with_capacity(self.list.len()));
        Self { list: std::mem::replace(&mut self.list, next), spare: Arc::clone(&self.spare) }
    }
}

impl<T> Drop for PooledVec<T> {
    fn drop(&mut self) {
        self.list.clear();
        let mut spare = self.spare.lock();
        let room: usize = spare.iter().chain([&self.list]).map(Vec::capacity).sum();
        if spare.len() < KEPT && room.saturating_mul(size_of::<T>()) <= KEPT_BYTES {
            spare.push(std::mem::take(&mut self.list));
        }
    }
}

impl<T> Deref for PooledVec<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.list
    }
}

impl<T> DerefMut for PooledVec<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_a_list_returns_its_memory_to_the_pool() {
        let mut lists = PooledVec::default();
        lists.extend(0..100);
        let first = lists.take();
        let (room, place) = (first.capacity(), first.as_ptr());
        lists.push(100);
        let second = lists.take();
        assert_eq!((first.len(), second.as_slice(), lists.as_slice()), (100, &[100][..], &[][..]));
        drop(first);
        drop(lists.take());
        assert_eq!((lists.len(), lists.capacity(), lists.as_ptr()), (0, room, place));
    }

    #[test]
    fn the_list_pool_has_a_memory_limit() {
        let mut lists = PooledVec::default();
        let room = |lists: &PooledVec<u64>| lists.spare.lock().iter().map(Vec::capacity).sum::<usize>();
        let long = [(); 3].map(|()| {
            lists.reserve(KEPT_BYTES / size_of::<u64>() / 2);
            lists.take()
        });
        drop(long);
        assert!((1..=KEPT_BYTES / size_of::<u64>()).contains(&room(&lists)));
        let many: Vec<_> = (0..3 * KEPT).map(|_| lists.take()).collect();
        drop(many);
        assert_eq!(lists.spare.lock().len(), KEPT);
    }
}
