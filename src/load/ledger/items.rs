//! The table of items. In parts, since a hash table that grows needs its old and its new size at once: so only one small part
//! of it does.

use std::collections::HashMap;

use super::item::Item;
use super::recent::Mixing;

const PARTS: usize = 32;

#[derive(Default)]
pub(super) struct Items {
    parts: [HashMap<u64, Item, Mixing>; PARTS],
}

/// Keys are hashes; their highest bits are as good as any.
fn part(key: u64) -> usize {
    (key >> 59) as usize % PARTS
}

impl Items {
    pub fn get(&self, key: u64) -> Option<Item> {
        self.parts[part(key)].get(&key).copied()
    }

    pub fn insert(&mut self, key: u64, item: Item) {
        self.parts[part(key)].insert(key, item);
    }

    pub fn remove(&mut self, key: u64) -> Option<Item> {
        self.parts[part(key)].remove(&key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &Item)> {
        self.parts.iter().flatten().map(|(key, item)| (*key, item))
    }

    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| super::recent::table_bytes(part.capacity(), size_of::<(u64, Item)>())).sum()
    }
}
