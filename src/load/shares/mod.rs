//! One run on several machines: each runs a share of the plan, and writes what it saw to a file; one report is made of
//! all files.
//!
//! Nothing needs to be agreed upon during the run. The name of the run gives all shares the same seed, so that clients have the
//! names, and journeys the due times, that they would have on one machine. A share does not judge: an item that one
//! share's client requests is worked on by another's. So the file holds every entry of the ledger, in the order of the
//! run, and [`merge`] passes the entries of all shares to one ledger, as a run passes those of its threads. Histograms
//! are added, second by second.
//!
//! ```text
//! name    what all shares of a run derive from its name
//! record  the lines of a share's file: header, entries, intervals, end
//! file    writes and reads them
//! merge   makes one report of all files
//! over    shares that agree on their start, and report while they run
//! ```

pub mod file;
pub mod merge;
pub mod name;
pub mod over;
pub mod record;

#[cfg(test)]
mod tests;
