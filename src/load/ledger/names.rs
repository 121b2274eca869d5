//! What items and parties are called, for people: the ledger itself counts with numbers. Names come in passing, are kept
//! for as long as there is room, and are looked for only where a violation is told.

use std::collections::HashMap;

use super::recent::Mixing;

/// Bytes of items' names that are kept at least, if there are as many, and at most twice.
const KEPT: usize = 8 << 20;
/// Parties that are known by name.
const MOST_PARTIES: usize = 1 << 17;
/// The longest name, in bytes.
const LONGEST: usize = 200;

/// Who or what is called something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// By its key.
    Item(u64),
    /// By its number.
    Party(u32),
}

/// Names on their way to the ledger, end to end: a tag, a number, a length, a name.
#[derive(Debug, Default)]
pub struct Names(Vec<u8>);

const HEAD: usize = 10;
const ITEM: u8 = 0;
const PARTY: u8 = 1;

impl Names {
    pub fn push(&mut self, called: Called, name: &[u8]) {
        let name = &name[..name.len().min(LONGEST)];
        let (tag, number) = match called {
            Called::Item(key) => (ITEM, key),
            Called::Party(number) => (PARTY, number.into()),
        };
        self.0.push(tag);
        self.0.extend_from_slice(&number.to_le_bytes());
        self.0.push(name.len() as u8);
        self.0.extend_from_slice(name);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = (Called, &[u8])> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (head, behind) = rest.split_first_chunk::<HEAD>()?;
            let (name, later) = behind.split_at_checked(head[HEAD - 1].into())?;
            rest = later;
            let number = u64::from_le_bytes(head[1..HEAD - 1].try_into().ok()?);
            Some((if head[0] == ITEM { Called::Item(number) } else { Called::Party(number as u32) }, name))
        })
    }
}

/// The names that the ledger remembers.
#[derive(Default)]
pub(super) struct Known {
    newer: Names,
    older: Names,
    parties: HashMap<u32, Box<str>, Mixing>,
}

impl Known {
    pub fn learn(&mut self, names: &Names) {
        for (called, name) in names.iter() {
            match called {
                Called::Item(_) => self.newer.push(called, name),
                Called::Party(number) if self.parties.len() < MOST_PARTIES => {
                    self.parties.entry(number).or_insert_with(|| String::from_utf8_lossy(name).into());
                }
                Called::Party(_) => {}
            }
        }
        if self.newer.0.len() >= KEPT {
            self.older = std::mem::take(&mut self.newer);
        }
    }

    /// What an item is called, if that is still known.
    pub fn item(&self, key: u64) -> Option<String> {
        let mut all = self.newer.iter().chain(self.older.iter());
        let (_, name) = all.find(|(called, _)| *called == Called::Item(key))?;
        Some(String::from_utf8_lossy(name).into_owned())
    }

    pub fn party(&self, number: u32) -> Option<&str> {
        self.parties.get(&number).map(AsRef::as_ref)
    }

    pub fn bytes(&self) -> usize {
        self.newer.0.capacity()
            + self.older.0.capacity()
            + super::recent::table_bytes(self.parties.capacity(), size_of::<(u32, Box<str>)>())
            + self.parties.values().map(|name| name.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_until_there_is_no_room() {
        let mut known = Known::default();
        let mut names = Names::default();
        names.push(Called::Item(7), b"job-7");
        names.push(Called::Party(3), b"worker-3");
        names.push(Called::Item(8), &[b'x'; 1000]);
        known.learn(&names);
        assert_eq!((known.item(7).as_deref(), known.party(3)), (Some("job-7"), Some("worker-3")));
        assert_eq!(known.item(8).map(|name| name.len()), Some(LONGEST));
        assert_eq!((known.item(3), known.party(7)), (None, None));
        let mut many = Names::default();
        (0..KEPT as u64 / 100).for_each(|n| many.push(Called::Item(1_000 + n), &[b'y'; 100]));
        known.learn(&many);
        assert!(known.item(7).is_some(), "of the last generation");
        known.learn(&many);
        assert!(known.item(7).is_none() && known.item(1_000).is_some() && known.bytes() < 5 * KEPT);
    }
}
