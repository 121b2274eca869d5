//! The items themselves, and the table that finds them by their keys. Both in parts: what grows as one needs its old and its
//! new size at once. The table holds places only, since most of a ledger's time goes into waiting for memory; an item stays
//! in its place until it is forgotten, and whoever comes next gets that place, which is still in the cache.

use std::hash::Hasher as _;
use std::ops::{Index, IndexMut};

use hashbrown::HashTable;

use super::item::Item;
use super::recent_set::Mixed;

/// Of the table.
const PARTS: usize = 32;
/// Items in a part of the others.
const CHUNK: usize = 1 << 12;

#[derive(Default)]
pub(super) struct ItemTable {
    places: [HashTable<Place>; PARTS],
    chunks: Chunks,
    free: Vec<Place>,
}

#[derive(Default)]
struct Chunks(Vec<Vec<Slot>>);

/// An item with its key, in a cache line of its own.
#[repr(align(64))]
struct Slot {
    key: u64,
    item: Item,
}

/// Where an item is, until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

/// Keys are hashes, but those of tests are small numbers.
fn hash(key: u64) -> u64 {
    let mut hash = Mixed::default();
    hash.write_u64(key);
    hash.finish()
}

/// By bits in the middle: the table looks at the lowest and the highest.
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

    /// Puts an item where there was none of this key.
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
        // As many as are followed and remembered at most are far fewer than four thousand million.
        let place = Place((self.0.len() * CHUNK + last.len()) as u32);
        self.0.push(last);
        self.0[place.0 as usize / CHUNK].push(slot);
        place
    }
}
