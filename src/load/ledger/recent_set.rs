//! A bounded set that keeps its latest members.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// A hasher for keys that are hashes already.
#[derive(Clone, Copy, Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, key: u64) {
        // The odd factor spreads small keys, as in tests, to the high bits too.
        self.0 = (self.0.rotate_left(5) ^ key).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }

    fn write_u32(&mut self, key: u32) {
        self.write_u64(u64::from(key));
    }
}

pub(super) type BuildKeyHasher = BuildHasherDefault<KeyHasher>;

/// Combines an item's key and a party into one key.
pub(super) fn delivery_key(key: u64, party: u32) -> u64 {
    let mut both = KeyHasher(key);
    both.write_u32(party);
    both.finish()
}

/// Estimates the bytes of a hash table: at most seven eighths full, with one control byte per slot.
pub(super) fn table_bytes(capacity: usize, entry: usize) -> usize {
    capacity * 8 / 7 * (entry + 1)
}

#[derive(Debug)]
pub(super) struct RecentSet {
    most: usize,
    members: HashSet<u64, BuildKeyHasher>,
    order: VecDeque<u64>,
}

impl RecentSet {
    pub fn new(most: usize) -> Self {
        Self { most, members: HashSet::default(), order: VecDeque::new() }
    }

    /// Adds a member; returns whether it was new.
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

    pub fn contains(&self, member: u64) -> bool {
        self.members.contains(&member)
    }

    pub fn bytes(&self) -> usize {
        table_bytes(self.members.capacity(), size_of::<u64>()) + self.order.capacity() * size_of::<u64>()
    }
}
