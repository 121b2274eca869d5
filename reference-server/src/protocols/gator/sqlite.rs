//! A log store in a SQLite file, as wrappers have it (line 73).

use std::path::{Path, PathBuf};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};
use serde_json::{Number, Value};

use super::log::{LogEntry, LogStore, LogStoreError, MAX_FOUND};

/// The largest size of the file in pages of 4 KiB, which is 1 GiB. Beyond it, entries are refused.
const MAX_PAGES: u32 = 262_144;

/// The schema. Timestamps have no declared type, so that SQLite distinguishes 5.0 and 5.
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS log (
    id INTEGER PRIMARY KEY,
    timestamp NOT NULL,
    severity TEXT NOT NULL,
    message TEXT NOT NULL
)";

/// A store in a file.
pub struct SqliteLogStore {
    file: PathBuf,
    connection: Connection,
}

impl SqliteLogStore {
    /// Opens or creates the file.
    pub fn open(file: &Path) -> Result<SqliteLogStore, LogStoreError> {
        let open = || {
            let connection = Connection::open(file)?;
            // Entries survive a crash of the hub, but a crash of the machine may lose the last ones: no entry waits for
            // the disk.
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.pragma_update(None, "max_page_count", MAX_PAGES)?;
            connection.execute(SCHEMA, [])?;
            Ok(SqliteLogStore { file: file.to_owned(), connection })
        };
        open().map_err(|error: rusqlite::Error| LogStoreError(format!("{}: {error}", file.display())))
    }
}

impl LogStore for SqliteLogStore {
    fn add(&mut self, entry: &LogEntry) -> Result<(), LogStoreError> {
        let mut add = self
            .connection
            .prepare_cached("INSERT INTO log (timestamp, severity, message) VALUES (?1, ?2, ?3)")
            .map_err(store_error)?;
        let (severity, message) = (&entry.severity, &entry.message);
        let timestamp = &entry.timestamp;
        match (timestamp.as_i64(), timestamp.as_u64(), timestamp.as_f64()) {
            (Some(whole), ..) => add.execute(params![whole, severity, message]),
            // SQLite has no integers beyond i64.
            (None, Some(_), _) => add.execute(params![timestamp.to_string(), severity, message]),
            (None, None, float) => add.execute(params![float, severity, message]),
        }
        .map(drop)
        .map_err(store_error)
    }

    fn find(&self, message: Option<&str>) -> Result<Vec<LogEntry>, LogStoreError> {
        let mut find = self
            .connection
            .prepare_cached(
                "SELECT timestamp, severity, message FROM log WHERE ?1 IS NULL OR message = ?1 ORDER BY id DESC LIMIT ?2",
            )
            .map_err(store_error)?;
        let limit = i64::try_from(MAX_FOUND).unwrap_or(i64::MAX);
        let rows = find.query_map(params![message, limit], entry_from_row).map_err(store_error)?;
        let mut found = rows.collect::<Result<Vec<LogEntry>, _>>().map_err(store_error)?;
        found.reverse();
        Ok(found)
    }

    fn describe(&self) -> Value {
        self.file.display().to_string().into()
    }
}

fn entry_from_row(row: &Row<'_>) -> rusqlite::Result<LogEntry> {
    let timestamp = match row.get_ref(0)? {
        ValueRef::Integer(whole) => Some(whole.into()),
        ValueRef::Real(float) => Number::from_f64(float),
        other => other.as_str().ok().and_then(|text| text.parse().ok()),
    };
    let timestamp = timestamp.ok_or_else(|| rusqlite::Error::IntegralValueOutOfRange(0, 0))?;
    Ok(LogEntry { timestamp, severity: row.get(1)?, message: row.get(2)? })
}

fn store_error(error: rusqlite::Error) -> LogStoreError {
    LogStoreError(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_entries_survive_reopening_the_database_file() {
        let file = std::env::temp_dir().join(format!("hubproof-reference-{}.sqlite", std::process::id()));
        let mut store = SqliteLogStore::open(&file).unwrap();
        super::super::log::tests::check(&mut store);
        let kept = store.find(None).unwrap();
        drop(store);
        assert_eq!(SqliteLogStore::open(&file).unwrap().find(None).unwrap(), kept);
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", file.display()));
        }
    }

    #[test]
    fn an_error_names_the_database_file_that_cannot_be_opened() {
        let error = SqliteLogStore::open(Path::new("no/such/folder/log.sqlite")).map(drop).unwrap_err();
        assert!(error.to_string().contains("no/such/folder"), "{error}");
    }
}
