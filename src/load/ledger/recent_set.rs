//! A set that forgets: the latest so many members.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// For keys that are hashes already.
#[derive(Clone, Copy, Default)]
pub(super) struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, key: u64) {
        // An odd factor spreads keys of tests, which are small numbers, to the high bits too.
        self.0 = (self.0.rotate_left(5) ^ key).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }

    fn write_u32(&mut self, key: u32) {
        self.write_u64(u64::from(key));
    }
}

pub(super) type Mixing = BuildHasherDefault<Mixed>;

/// One key for both.
pub(super) fn mixed(key: u64, party: u32) -> u64 {
    let mut both = Mixed(key);
    both.write_u32(party);
    both.finish()
}

/// What a hash table takes: it is at most seven eighths full, and has a byte of its own per place.
pub(super) fn table_bytes(capacity: usize, entry: usize) -> usize {
    capacity * 8 / 7 * (entry + 1)
}

#[derive(Debug)]
pub(super) struct RecentSet {
    most: usize,
    members: HashSet<u64, Mixing>,
    order: VecDeque<u64>,
}

impl RecentSet {
    pub fn new(most: usize) -> Self {
        Self { most, members: HashSet::default(), order: VecDeque::new() }
    }

    /// Whether it was not there yet.
    pub fn insert(&mut self, member: u64) -> bool {
        if !self.members.insert(member) {
            return false;
        }
        self.order.push_back(member);
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.members.remove(&oldest);
        }
        true
    }

    pub fn bytes(&self) -> usize {
        table_bytes(self.members.capacity(), size_of::<u64>()) + self.order.capacity() * size_of::<u64>()
    }
}
