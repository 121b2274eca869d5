//! The ids of items and parties as text: the ledger itself uses numbers. They are stored while there is room, and
//! looked up only to report a violation.

use std::collections::{HashMap, VecDeque};

use super::recent_set::BuildKeyHasher;
use crate::load::buffer_pool::PooledVec;

/// Bytes of item names that are kept.
const MAX_NAME_BYTES: usize = 8 << 20;
/// Parties whose names are kept.
const MAX_PARTIES: usize = 1 << 17;
/// The longest name, in bytes.
const MAX_NAME_LENGTH: usize = 200;

/// The item or party that a name belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameOwner {
    /// The item with this key.
    Item(u64),
    /// The party with this number.
    Party(u32),
    /// The party with this number, which should receive messages of others.
    Receiver(u32),
}

/// Names on their way to the ledger. Item names are concatenated, each as key, length and name.
#[derive(Debug, Default)]
pub struct NameTable {
    items: PooledVec<u8>,
    parties: Vec<NamedParty>,
}

#[derive(Debug)]
struct NamedParty {
    number: u32,
    receives: bool,
    name: Box<[u8]>,
}

impl NameTable {
    /// Takes the names collected so far and leaves the table empty.
    pub fn take(&mut self) -> Self {
        Self { items: self.items.take(), parties: std::mem::take(&mut self.parties) }
    }

    pub fn push(&mut self, of: NameOwner, name: &[u8]) {
        let name = &name[..name.len().min(MAX_NAME_LENGTH)];
        match of {
            NameOwner::Item(key) => {
                self.items.extend_from_slice(&key.to_le_bytes());
                self.items.push(name.len() as u8);
                self.items.extend_from_slice(name);
            }
            NameOwner::Party(number) => self.parties.push(NamedParty { number, receives: false, name: name.into() }),
            NameOwner::Receiver(number) => self.parties.push(NamedParty { number, receives: true, name: name.into() }),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.parties.is_empty()
    }

    /// Returns all names with what they belong to.
    pub fn iter(&self) -> impl Iterator<Item = (NameOwner, &[u8])> {
        let mut rest = &self.items[..];
        let items = std::iter::from_fn(move || {
            let (key, name, later) = Self::split_item_name(rest)?;
            rest = later;
            Some((NameOwner::Item(key), name))
        });
        let parties = self.parties.iter().map(|party| {
            let owner = if party.receives { NameOwner::Receiver } else { NameOwner::Party };
            (owner(party.number), &*party.name)
        });
        items.chain(parties)
    }

    /// Reads the first of several concatenated names. Returns its key, the name, and the bytes that follow.
    fn split_item_name(items: &[u8]) -> Option<(u64, &[u8], &[u8])> {
        let (key, behind) = items.split_first_chunk()?;
        let (length, behind) = behind.split_first()?;
        let (name, later) = behind.split_at_checked((*length).into())?;
        Some((u64::from_le_bytes(*key), name, later))
    }

    /// Finds the name of an item in concatenated names.
    fn find_item_name(items: &[u8], key: u64) -> Option<&[u8]> {
        let mut rest = items;
        while let Some((found, name, later)) = Self::split_item_name(rest) {
            if found == key {
                return Some(name);
            }
            rest = later;
        }
        None
    }
}

/// The names that the ledger remembers.
#[derive(Default)]
pub(super) struct RememberedNames {
    /// Batches of item names in order of arrival, the latest last.
    items: VecDeque<PooledVec<u8>>,
    /// The size of `items` in bytes.
    size: usize,
    parties: HashMap<u32, Box<str>, BuildKeyHasher>,
    /// The parties that should receive messages, in the order in which they joined.
    receivers: Vec<u32>,
}

impl RememberedNames {
    pub fn add_names(&mut self, names: NameTable) {
        for NamedParty { number, receives, name } in names.parties {
            if self.parties.len() < MAX_PARTIES && !self.parties.contains_key(&number) {
                self.parties.insert(number, String::from_utf8_lossy(&name).into());
                self.receivers.extend(receives.then_some(number));
            }
        }
        if !names.items.is_empty() {
            self.size += names.items.capacity();
            self.items.push_back(names.items);
        }
        while let Some(oldest) =
            self.items.front().map(|items| items.capacity()).filter(|oldest| self.size - oldest >= MAX_NAME_BYTES)
        {
            self.size -= oldest;
            self.items.pop_front();
        }
    }

    /// Returns the name of an item if it is still known.
    pub fn item_name(&self, key: u64) -> Option<String> {
        let name = self.items.iter().rev().find_map(|names| NameTable::find_item_name(names, key))?;
        Some(String::from_utf8_lossy(name).into_owned())
    }

    /// Returns the parties that should receive messages of others.
    pub fn receivers(&self) -> &[u32] {
        &self.receivers
    }

    pub fn party_name(&self, number: u32) -> Option<&str> {
        self.parties.get(&number).map(AsRef::as_ref)
    }

    pub fn bytes(&self) -> usize {
        self.size
            + super::recent_set::table_bytes(self.parties.capacity(), size_of::<(u32, Box<str>)>())
            + self.parties.values().map(|name| name.len()).sum::<usize>()
            + self.receivers.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_names_are_forgotten_when_the_table_is_full() {
        let mut known = RememberedNames::default();
        let mut names = NameTable::default();
        names.push(NameOwner::Item(7), b"job-7");
        names.push(NameOwner::Party(3), b"worker-3");
        names.push(NameOwner::Item(8), &[b'x'; 1000]);
        known.add_names(names);
        assert_eq!((known.item_name(7).as_deref(), known.party_name(3)), (Some("job-7"), Some("worker-3")));
        assert_eq!(known.item_name(8).map(|name| name.len()), Some(MAX_NAME_LENGTH));
        assert_eq!((known.item_name(3), known.party_name(7)), (None, None));
        let mut learn = |from: u64| {
            let mut many = NameTable::default();
            (from..from + MAX_NAME_BYTES as u64 / 200).for_each(|n| many.push(NameOwner::Item(n), &[b'y'; 100]));
            known.add_names(many);
            (known.item_name(7).is_some(), known.item_name(from).is_some(), known.bytes() < 3 * MAX_NAME_BYTES)
        };
        assert_eq!(learn(1_000), (true, true, true));
        assert_eq!(learn(1_000_000), (false, true, true));
        assert_eq!(learn(2_000_000), (false, true, true));
    }
}
