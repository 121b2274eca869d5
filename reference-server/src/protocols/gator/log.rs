//! Log entries (lines 71 to 96) and where they are kept.

use std::collections::VecDeque;

use serde::Serialize;
use serde_json::{Number, Value};

use crate::machine::json::{self, Members};

/// How much text the store in memory keeps, in bytes; beyond, the oldest entries go.
const MAX_BYTES: usize = 64 << 20;
/// What an entry takes up beside its text, roughly.
const ENTRY_BYTES: usize = 64;
/// How many entries a question is answered with, the newest.
pub const MAX_FOUND: usize = 10_000;

/// The severities (line 95).
pub const SEVERITIES: [&str; 5] = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];

/// What the store keeps and a parent hub is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Unix seconds, whole or not, as they were given.
    pub timestamp: Number,
    pub severity: String,
    pub message: String,
}

/// What a `log` request says; what it leaves out is `None`.
#[derive(Debug)]
pub struct Said {
    pub timestamp: Option<Number>,
    pub severity: Option<String>,
    pub message: Option<String>,
}

/// Reads the payload of a `log`.
///
/// # Errors
/// A sentence about a member of a wrong type.
pub fn read(payload: Option<&Members<'_>>) -> Result<Said, String> {
    let Some(payload) = payload else {
        return Ok(Said { timestamp: None, severity: None, message: None });
    };
    Ok(Said {
        timestamp: json::optional(payload, "timestamp")?,
        severity: json::optional(payload, "severity")?,
        message: json::optional(payload, "message")?,
    })
}

/// An entry was not kept, or cannot be found again.
#[derive(Debug, thiserror::Error)]
#[error("the log store failed: {0}")]
pub struct StoreError(pub String);

/// Where entries are kept.
pub trait Store: Send {
    /// Keeps an entry.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written; then it is not kept.
    fn add(&mut self, entry: &Entry) -> Result<(), StoreError>;

    /// The entries with this message, or all, oldest first; at most the newest [`MAX_FOUND`].
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    fn find(&self, message: Option<&str>) -> Result<Vec<Entry>, StoreError>;

    /// What it is, for the admin side.
    fn show(&self) -> Value;
}

/// A store that ends with the hub.
#[derive(Debug, Default)]
pub struct Memory {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Store for Memory {
    fn add(&mut self, entry: &Entry) -> Result<(), StoreError> {
        self.bytes += ENTRY_BYTES + entry.message.len();
        self.entries.push_back(entry.clone());
        while self.bytes > MAX_BYTES
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= ENTRY_BYTES + oldest.message.len();
        }
        Ok(())
    }

    fn find(&self, message: Option<&str>) -> Result<Vec<Entry>, StoreError> {
        let fits = |entry: &&Entry| message.is_none_or(|message| entry.message == message);
        let mut found: Vec<Entry> = self.entries.iter().rev().filter(fits).take(MAX_FOUND).cloned().collect();
        found.reverse();
        Ok(found)
    }

    fn show(&self) -> Value {
        "memory".into()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// What every store does.
    pub fn check(store: &mut dyn Store) {
        let entry = |timestamp: &str, message: &str| Entry {
            timestamp: serde_json::from_str(timestamp).unwrap(),
            severity: "INFO".to_owned(),
            message: message.to_owned(),
        };
        let entries = [
            entry("1684696137", "a"),
            entry("5.0", "b"),
            entry("-1.5", "a"),
            entry("18446744073709551615", "größe \u{0}'\""),
            entry("1e300", ""),
        ];
        assert_eq!(store.find(None).unwrap(), []);
        for entry in &entries {
            store.add(entry).unwrap();
        }
        assert_eq!(store.find(None).unwrap(), entries);
        assert_eq!(store.find(Some("a")).unwrap(), [entries[0].clone(), entries[2].clone()]);
        assert_eq!(store.find(Some("")).unwrap(), [entries[4].clone()]);
        assert_eq!(store.find(Some("%")).unwrap(), []);
        for _ in 0..=MAX_FOUND {
            store.add(&entries[0]).unwrap();
        }
        assert_eq!(store.find(Some("a")).unwrap().len(), MAX_FOUND);
    }

    #[test]
    fn memory_keeps_entries() {
        check(&mut Memory::default());
    }

    #[test]
    fn memory_is_bounded() {
        let mut store = Memory::default();
        for number in 0..20 {
            let entry = Entry { timestamp: number.into(), severity: String::new(), message: "x".repeat(8 << 20) };
            store.add(&entry).unwrap();
        }
        assert_eq!(store.find(None).unwrap().first().unwrap().timestamp, 13.into());
    }
}
