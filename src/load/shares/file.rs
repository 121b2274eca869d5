//! Writes and reads the file of a share: one record a line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::record::{FORMAT, FORMAT_VERSION, PackedEntries, PackedInterval, ShareEnd, ShareHeader, ShareRecord};
use crate::load::Nanos;
use crate::load::ledger::{LedgerEntry, NameTable};
use crate::load::metrics::MetricInterval;
use crate::syntax::share::Share;

/// How the names of share files end.
pub const EXTENSION: &str = "share";
/// The longest line in bytes.
const MAX_LINE: u64 = 16 << 20;

/// Returns the name of a share's file.
pub fn file_name(run: &str, share: Share) -> String {
    format!("{run}.{}-of-{}.{EXTENSION}", share.index() + 1, share.of())
}

/// Writes the file of a share during its run.
pub struct ShareWriter {
    out: BufWriter<File>,
    hash: Sha256,
    records: u64,
    line: Vec<u8>,
    /// The first error; nothing is written after it.
    failure: Option<io::Error>,
}

impl ShareWriter {
    /// Creates the file and writes its header.
    ///
    /// # Errors
    /// The file cannot be created, or exists: it may be another run's result.
    pub fn create(path: &Path, header: ShareHeader) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).open(path)?;
        let (hash, line) = (Sha256::new(), Vec::new());
        let mut writer = Self { out: BufWriter::new(file), hash, records: 0, line, failure: None };
        writer.write(&ShareRecord::Header(Box::new(header)));
        match writer.failure.take() {
            Some(error) => Err(error),
            None => Ok(writer),
        }
    }

    pub fn write_entries(&mut self, thread: usize, upto: Nanos, entries: &[LedgerEntry], names: &NameTable) {
        self.write(&ShareRecord::Entries(PackedEntries::pack(thread as u16, upto, entries, names)));
    }

    pub fn write_interval(&mut self, interval: &MetricInterval) {
        self.write(&ShareRecord::Interval(PackedInterval::pack(interval)));
    }

    /// Writes the end.
    ///
    /// # Errors
    /// The file could not be written completely.
    pub fn finish(mut self, mut end: ShareEnd) -> io::Result<()> {
        (end.records, end.sha256) = (self.records, hex(self.hash.clone()));
        self.write(&ShareRecord::End(Box::new(end)));
        match self.failure {
            Some(error) => Err(error),
            None => self.out.flush(),
        }
    }

    fn write(&mut self, record: &ShareRecord) {
        if self.failure.is_some() {
            return;
        }
        self.line.clear();
        let written = serde_json::to_writer(&mut self.line, record).map_err(io::Error::from).and_then(|()| {
            self.line.push(b'\n');
            self.hash.update(&self.line);
            self.records += 1;
            self.out.write_all(&self.line)
        });
        self.failure = written.err();
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Why a share's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ShareFileError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error("line {0} is not a record of a share: {1}")]
    Record(u64, String),
    #[error("it does not begin with the header of a share")]
    NoHeader,
    #[error("it has version {0} of the format, and this hubproof reads version {FORMAT_VERSION}")]
    Version(u32),
    #[error("it has no end: the share is still running, or was killed")]
    NoEnd,
    #[error("it has {found} records of {written}, or they were changed")]
    Changed { written: u64, found: u64 },
}

/// The file of a share, read from its beginning.
pub struct ShareReader {
    input: BufReader<File>,
    line: Vec<u8>,
    number: u64,
}

impl ShareReader {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// The file cannot be read, or no share has written it.
    pub fn open(path: &Path) -> Result<(Self, ShareHeader), ShareFileError> {
        let mut reader = Self { input: BufReader::new(File::open(path)?), line: Vec::new(), number: 0 };
        match reader.read_record() {
            Ok(Some(ShareRecord::Header(header))) if header.format == FORMAT => match header.format_version {
                FORMAT_VERSION => Ok((reader, *header)),
                other => Err(ShareFileError::Version(other)),
            },
            Err(ShareFileError::Read(error)) => Err(error.into()),
            _ => Err(ShareFileError::NoHeader),
        }
    }

    /// Reads the next record; `None` at the end of the file.
    ///
    /// # Errors
    /// The line is not a record, or is too long to be one.
    pub fn read_record(&mut self) -> Result<Option<ShareRecord>, ShareFileError> {
        self.line.clear();
        let read = (&mut self.input).take(MAX_LINE).read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        let damaged = |why: String| ShareFileError::Record(self.number, why);
        if self.line.last() != Some(&b'\n') {
            return Err(if read as u64 == MAX_LINE {
                damaged("it is too long".to_owned())
            } else {
                ShareFileError::NoEnd
            });
        }
        serde_json::from_slice(&self.line).map(Some).map_err(|error| damaged(error.to_string()))
    }
}

/// A complete file of a share.
#[derive(Debug)]
pub struct ShareFile {
    pub path: PathBuf,
    pub header: ShareHeader,
    pub end: ShareEnd,
}

impl ShareFile {
    /// Reads a file from beginning to end and checks that it is complete; keeps only header and end.
    ///
    /// # Errors
    /// [`ShareFileError`]
    pub fn verify(path: &Path) -> Result<Self, ShareFileError> {
        let (mut reader, header) = ShareReader::open(path)?;
        let (mut hash, mut found) = (Sha256::new(), 0);
        loop {
            hash.update(&reader.line);
            found += 1;
            let end = match reader.read_record()? {
                Some(ShareRecord::End(end)) => *end,
                Some(_) => continue,
                None => return Err(ShareFileError::NoEnd),
            };
            let is_whole = end.records == found && end.sha256 == hex(hash) && reader.read_record()?.is_none();
            if !is_whole || !header.common.has_place_for(&end.operations) {
                return Err(ShareFileError::Changed { written: end.records, found });
            }
            return Ok(Self { path: path.to_owned(), header, end });
        }
    }
}
