//! The items, and the hash table that finds them by key. Both are split into parts, since growing one large allocation
//! needs memory for the old and the new size at the same time. The table holds indexes only, because most of the
//! ledger's time goes into cache misses; an item stays in its slot until it is removed, and the next item reuses that
//! slot, which is still in the cache.

use std::hash::Hasher as _;
use std::ops::{Index, IndexMut};

use hashbrown::HashTable;

use super::item::LedgerItem;
use super::recent_set::KeyHasher;

/// The number of parts of the table.
const TABLE_PARTS: usize = 32;
/// Slots per chunk.
const SLOTS_PER_CHUNK: usize = 1 << 12;

#[derive(Default)]
pub(super) struct ItemTable {
    places: [HashTable<SlotIndex>; TABLE_PARTS],
    chunks: SlotChunks,
    free: Vec<SlotIndex>,
}

#[derive(Default)]
struct SlotChunks(Vec<Vec<ItemSlot>>);

/// An item with its key; one cache line.
#[repr(align(64))]
struct ItemSlot {
    key: u64,
    item: LedgerItem,
}

/// The slot of an item, valid until the item is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotIndex(u32);

/// Spreads keys: they are hashes in a run, but small numbers in tests.
fn hash(key: u64) -> u64 {
    let mut hash = KeyHasher::default();
    hash.write_u64(key);
    hash.finish()
}

/// Returns the part for a hash, from its middle bits: the hash table uses the lowest and the highest.
fn part_index(hash: u64) -> usize {
    (hash >> 40) as usize % TABLE_PARTS
}

impl ItemTable {
    pub fn find(&self, key: u64) -> Option<SlotIndex> {
        let hash = hash(key);
        self.places[part_index(hash)].find(hash, |place| self.chunks.slot_at(*place).key == key).copied()
    }

    pub fn get(&self, key: u64) -> Option<LedgerItem> {
        self.find(key).map(|place| self[place])
    }

    /// Inserts an item whose key is not in the table.
    pub fn insert(&mut self, key: u64, item: LedgerItem) -> SlotIndex {
        let place = match self.free.pop() {
            Some(place) => {
                *self.chunks.slot_at_mut(place) = ItemSlot { key, item };
                place
            }
            None => self.chunks.append(ItemSlot { key, item }),
        };
        let (hashed, chunks) = (hash(key), &self.chunks);
        self.places[part_index(hashed)].insert_unique(hashed, place, |place| hash(chunks.slot_at(*place).key));
        place
    }

    pub fn remove(&mut self, key: u64) {
        let (hash, chunks) = (hash(key), &self.chunks);
        if let Ok(found) = self.places[part_index(hash)].find_entry(hash, |place| chunks.slot_at(*place).key == key) {
            self.free.push(found.remove().0);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &LedgerItem)> {
        self.places.iter().flatten().map(|place| self.chunks.slot_at(*place)).map(|slot| (slot.key, &slot.item))
    }

    pub fn bytes(&self) -> usize {
        self.places.iter().map(HashTable::allocation_size).sum::<usize>()
            + self.chunks.0.len() * SLOTS_PER_CHUNK * size_of::<ItemSlot>()
            + self.free.capacity() * size_of::<SlotIndex>()
    }
}

impl Index<SlotIndex> for ItemTable {
    type Output = LedgerItem;

    fn index(&self, place: SlotIndex) -> &LedgerItem {
        &self.chunks.slot_at(place).item
    }
}

impl IndexMut<SlotIndex> for ItemTable {
    fn index_mut(&mut self, place: SlotIndex) -> &mut LedgerItem {
        &mut self.chunks.slot_at_mut(place).item
    }
}

impl SlotChunks {
    fn slot_at(&self, SlotIndex(place): SlotIndex) -> &ItemSlot {
        &self.0[place as usize / SLOTS_PER_CHUNK][place as usize % SLOTS_PER_CHUNK]
    }

    fn slot_at_mut(&mut self, SlotIndex(place): SlotIndex) -> &mut ItemSlot {
        &mut self.0[place as usize / SLOTS_PER_CHUNK][place as usize % SLOTS_PER_CHUNK]
    }

    fn append(&mut self, slot: ItemSlot) -> SlotIndex {
        let last = match self.0.pop() {
            Some(last) if last.len() < SLOTS_PER_CHUNK => last,
            full => {
                self.0.extend(full);
                Vec::with_capacity(SLOTS_PER_CHUNK)
            }
        };
        // MAX_OPEN + CLOSED_KEPT is far below 2^32.
        let place = SlotIndex((self.0.len() * SLOTS_PER_CHUNK + last.len()) as u32);
        self.0.push(last);
        self.0[place.0 as usize / SLOTS_PER_CHUNK].push(slot);
        place
    }
}
