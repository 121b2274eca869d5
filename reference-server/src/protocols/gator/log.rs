//! Log entries (lines 71 to 96) and their store.

use std::collections::VecDeque;

use serde::Serialize;
use serde_json::{Number, Value};

use crate::machine::json::{self, Members};

/// The capacity of the store in memory in bytes; beyond it the oldest entries are dropped.
const MAX_BYTES: usize = 64 << 20;
/// The approximate size of an entry without its text, in bytes.
const ENTRY_BYTES: usize = 64;
/// The largest number of entries in an answer; the newest ones are kept.
pub const MAX_FOUND: usize = 10_000;

/// The severities (line 95).
pub const SEVERITIES: [&str; 5] = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];

/// A log entry, as it is stored and sent to parents.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogEntry {
    /// Unix seconds, whole or not, as they were sent.
    pub timestamp: Number,
    pub severity: String,
    pub message: String,
}

/// The payload of a `log` request.
#[derive(Debug)]
pub struct LogPayload {
    pub timestamp: Option<Number>,
    pub severity: Option<String>,
    pub message: Option<String>,
}

/// Reads the payload of a `log`.
pub fn parse_log_payload(payload: Option<&Members<'_>>) -> Result<LogPayload, String> {
    let Some(payload) = payload else { return Ok(LogPayload { timestamp: None, severity: None, message: None }) };
    Ok(LogPayload {
        timestamp: json::optional_member(payload, "timestamp")?,
        severity: json::optional_member(payload, "severity")?,
        message: json::optional_member(payload, "message")?,
    })
}

/// An entry could not be stored, or the store could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the log store failed: {0}")]
pub struct LogStoreError(pub String);

/// A store of log entries.
pub trait LogStore: Send {
    /// Stores an entry.
    fn add(&mut self, entry: &LogEntry) -> Result<(), LogStoreError>;

    /// Returns the entries with this message, or all, oldest first; at most the newest [`MAX_FOUND`].
    fn find(&self, message: Option<&str>) -> Result<Vec<LogEntry>, LogStoreError>;

    /// Describes the store to the admin side.
    fn describe(&self) -> Value;
}

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryLogStore {
    entries: VecDeque<LogEntry>,
    bytes: usize,
}

impl LogStore for MemoryLogStore {
    fn add(&mut self, entry: &LogEntry) -> Result<(), LogStoreError> {
        self.bytes += ENTRY_BYTES + entry.message.len();
        self.entries.push_back(entry.clone());
        while self.bytes > MAX_BYTES
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= ENTRY_BYTES + oldest.message.len();
        }
        Ok(())
    }

    fn find(&self, message: Option<&str>) -> Result<Vec<LogEntry>, LogStoreError> {
        let fits = |entry: &&LogEntry| message.is_none_or(|message| entry.message == message);
        let mut found: Vec<LogEntry> = self.entries.iter().rev().filter(fits).take(MAX_FOUND).cloned().collect();
        found.reverse();
        Ok(found)
    }

    fn describe(&self) -> Value {
        "memory".into()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Checks what every store must do.
    pub fn check(store: &mut dyn LogStore) {
        let entry = |timestamp: &str, message: &str| LogEntry {
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
    fn the_log_store_in_memory_finds_its_entries() {
        check(&mut MemoryLogStore::default());
    }

    #[test]
    fn the_log_store_in_memory_drops_its_oldest_entries_when_full() {
        let mut store = MemoryLogStore::default();
        for number in 0..20 {
            let entry = LogEntry { timestamp: number.into(), severity: String::new(), message: "x".repeat(8 << 20) };
            store.add(&entry).unwrap();
        }
        assert_eq!(store.find(None).unwrap().first().unwrap().timestamp, 13.into());
    }
}
