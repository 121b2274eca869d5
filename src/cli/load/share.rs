//! `--share`: this process runs a part of the plan, and writes what only all shares together can judge to a file.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use sha2::{Digest, Sha256};

use super::super::CliError;
use crate::load::engine::RunClock;
use crate::load::shares::file::{ShareWriter, file_name};
use crate::load::shares::name::RunName;
use crate::load::shares::record::{ShareEnd, ShareHeader};
use crate::load::{Nanos, SECOND};
use crate::syntax::share::Share;

/// The options of a run that several generators share.
#[derive(Args)]
pub struct ShareArgs {
    /// Run a part of the plan, such as 3/16 for the third of sixteen generators; `hubproof merge` makes one report
    #[arg(long, value_name = "N/ALL", requires = "run", conflicts_with_all = ["find_max", "reports", "open"])]
    pub share: Option<Share>,
    /// Name of the run, the same for all shares: it decides the names of clients and, without `--seed`, the schedule
    #[arg(long, value_name = "NAME", requires = "share")]
    pub run: Option<RunName>,
    /// Folder for the file of the share
    #[arg(long, value_name = "FOLDER", default_value = ".", requires = "share")]
    to: PathBuf,
    /// When journeys begin at the earliest: 2026-01-31T12:00:00Z, or Unix time in seconds; the same for all shares
    #[arg(long, value_name = "TIME", requires = "share", value_parser = parse_start)]
    start_at: Option<i64>,
}

/// Parses a point in time as Unix time in seconds.
fn parse_start(text: &str) -> Result<i64, String> {
    let seconds = text.parse().ok().or_else(|| Some(text.parse::<jiff::Timestamp>().ok()?.as_second()));
    seconds.ok_or_else(|| "write a time such as 2026-01-31T12:00:00Z, or Unix time in seconds".to_owned())
}

impl ShareArgs {
    /// Returns how long after the origin journeys may begin; warns if that has passed.
    pub fn start_after(&self, origin_ns: i64, clock: RunClock) -> Nanos {
        let Some(start) = self.start_at else { return 0 };
        let after = start.saturating_mul(SECOND as i64).saturating_sub(origin_ns);
        let after = Nanos::try_from(after).unwrap_or(0);
        if after < clock.now() {
            eprintln!("warning: the time of `--start-at` has passed, so this share may begin later than others");
        }
        after
    }

    /// Creates the file of the share.
    ///
    /// # Errors
    /// The folder does not exist, or has such a file already.
    pub fn create_file(&self, header: ShareHeader) -> Result<ShareWriter, CliError> {
        let path = self.path(&header.common.run, header.share);
        ShareWriter::create(&path, header).map_err(|error| {
            let help = "give the run another name with --run, or another folder with --to";
            CliError::failed_with_help(format!("failed to create {}", path.display()), error, help)
        })
    }

    /// Checks that the folder has no such file yet.
    ///
    /// # Errors
    /// It has one.
    pub fn check_free(&self) -> Result<(), CliError> {
        let (Some(run), Some(share)) = (&self.run, self.share) else { return Ok(()) };
        let path = self.path(&run.to_string(), share);
        let help = "give the run another name with --run, or another folder with --to";
        if path.exists() { Err(CliError::usage(format!("{} exists", path.display()), help)) } else { Ok(()) }
    }

    /// Writes the end of the file, and says what to do with it. Returns its path.
    ///
    /// # Errors
    /// The file could not be written completely.
    pub fn finish_file(&self, writer: ShareWriter, end: ShareEnd, is_quiet: bool) -> Result<PathBuf, CliError> {
        let (Some(run), Some(share)) = (&self.run, self.share) else { return Ok(PathBuf::new()) };
        let path = self.path(&run.to_string(), share);
        let interrupted = if end.about.interrupted { ", interrupted" } else { "" };
        let written = writer.finish(end);
        written.map_err(|error| CliError::failed(format!("failed to write {}", path.display()), error))?;
        if !is_quiet {
            let folder = self.to.display();
            eprintln!(
                "share {share} of {run} is in {}{interrupted}; once all are there: hubproof merge {folder}",
                path.display()
            );
        }
        Ok(path)
    }

    fn path(&self, run: &str, share: Share) -> PathBuf {
        self.to.join(file_name(run, share))
    }
}

/// Returns a hash that distinguishes texts, as hexadecimal digits.
pub fn short_hash(text: &str) -> String {
    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Returns a name for this machine that changes when it is booted, since shares are compared only during a run.
pub fn machine_name() -> String {
    let boot = std::fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id"));
    let unknown = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string();
    short_hash(&boot.unwrap_or_else(|_| unknown()))
}

/// Describes where this process runs, for people.
pub fn place() -> String {
    let host = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default();
    let host = if host.trim().is_empty() { "unknown" } else { host.trim() };
    format!("{host} (process {})", std::process::id())
}
