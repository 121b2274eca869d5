//! The items, and the hash table that finds them by key. Both are split into parts, since growing one large allocation
//! needs memory for the old and the new size at the same time. The table holds indexes only, because most of the
//! ledger's time goes into cache misses; an item stays in its slot until it is removed, and the next item reuses that
//! slot, which is still in the cache.

use std::hash::Hasher as _;
use std::ops::{Index, IndexMut};

use hashbrown::HashTable;

use super::item::Item;
use super::recent_set::Mixed;

/// The number of parts of the table.
const PARTS: usize = 32;
/// Slots per chunk.
const CHUNK: usize = 1 << 12;

#[derive(Default)]
pub(super) struct ItemTable {
    places: [HashTable<Place>; PARTS],
    chunks: Chunks,
    free: Vec<Place>,
}

#[derive(Default)]
struct Chunks(Vec<Vec<Slot>>);

/// An item with its key; one cache line.
#[repr(align(64))]
struct Slot {
    key: u64,
    item: Item,
}

/// The slot of an item, valid until the item is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

/// Spreads keys: they are hashes in a run, but small numbers in tests.
fn hash(key: u64) -> u64 {
    let mut hash = Mixed::default();
    hash.write_u64(key);
    hash.finish()
}

/// Returns the part for a hash, from its middle bits: the hash table uses the lowest and the highest.
fn part(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}

impl ItemTable {
    pub fn find(&self, key: u64) -> Option<Place> {
        let hash = hash(key);
        self.places[part(hash)].find(hash, |place| self.chunks.at(*place).key == key).copied()
    }

    pub fn get(&self, key: u64) -> Option<Item> {
        self.find(key).map(|place| self[place])
    }

    /// Inserts an item whose key is not in the table.
    pub fn insert(&mut self, key: u64, item: Item) -> Place {
        let place = match self.free.pop() {
            Some(place) => {
                *self.chunks.at_mut(place) = Slot { key, item };
                place
            }
            None => self.chunks.append(Slot { key, item }),
        };
        let (hashed, chunks) = (hash(key), &self.chunks);
        self.places[part(hashed)].insert_unique(hashed, place, |place| hash(chunks.at(*place).key));
        place
    }

    pub fn remove(&mut self, key: u64) {
        let (hash, chunks) = (hash(key), &self.chunks);
        if let Ok(found) = self.places[part(hash)].find_entry(hash, |place| chunks.at(*place).key == key) {
            self.free.push(found.remove().0);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &Item)> {
        self.places.iter().flatten().map(|place| self.chunks.at(*place)).map(|slot| (slot.key, &slot.item))
    }

    pub fn bytes(&self) -> usize {
        self.places.iter().map(HashTable::allocation_size).sum::<usize>()
            + self.chunks.0.len() * CHUNK * size_of::<Slot>()
            + self.free.capacity() * size_of::<Place>()
    }
}

impl Index<Place> for ItemTable {
    type Output = Item;

    fn index(&self, place: Place) -> &Item {
        &self.chunks.at(place).item
    }
}

impl IndexMut<Place> for ItemTable {
    fn index_mut(&mut self, place: Place) -> &mut Item {
        &mut self.chunks.at_mut(place).item
    }
}

impl Chunks {
    fn at(&self, Place(place): Place) -> &Slot {
        &self.0[place as usize / CHUNK][place as usize % CHUNK]
    }

    fn at_mut(&mut self, Place(place): Place) -> &mut Slot {
        &mut self.0[place as usize / CHUNK][place as usize % CHUNK]
    }

    fn append(&mut self, slot: Slot) -> Place {
        let last = match self.0.pop() {
            Some(last) if last.len() < CHUNK => last,
            full => {
                self.0.extend(full);
                Vec::with_capacity(CHUNK)
            }
        };
        // MOST_OPEN + CLOSED_KEPT is far below 2^32.
        let place = Place((self.0.len() * CHUNK + last.len()) as u32);
        self.0.push(last);
        self.0[place.0 as usize / CHUNK].push(slot);
        place
    }
}
