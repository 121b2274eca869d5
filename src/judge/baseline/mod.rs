//! A baseline: a file that lists the known failures of a hub. A listed failure does not fail the run. An entry that no
//! longer fails makes the run fail until it is removed.
//!
//! The format is published as `schemas/hubproof/baseline.schema.json`. This room is pure: it reads and writes no files.

mod matching;
mod names;
mod parse;
mod write;

pub use matching::{apply_baseline, entry_standing};
pub use names::FailureNames;
pub use parse::parse_baseline;
pub use write::{REASON_PLACEHOLDER, rewrite_baseline};

use crate::outcome::PreconditionFailure;
use crate::report::entry_covers;
use crate::report::text::without_variable_parts;
use crate::syntax::source::Span;

/// One entry of a baseline file: a `[[known]]` table.
#[derive(Clone, Debug, PartialEq)]
pub struct BaselineEntry {
    /// The failure as reports name it: `scenario` for any failure in a scenario, `scenario:check` for one check, or
    /// `protocol: step: message` for a step without rules whose failure stops scenarios before their end.
    pub failure: String,
    /// Span of `failure`.
    pub place: Span,
    /// Why the check fails, in the words of the entry's author; never empty.
    pub reason: String,
    /// Whether the check fails only sometimes.
    pub flaky: bool,
    /// All lines of the entry.
    pub span: Span,
}

impl BaselineEntry {
    pub fn scenario(&self) -> &str {
        self.failure.split_once(':').map_or(self.failure.as_str(), |(scenario, _)| scenario)
    }

    pub fn check(&self) -> Option<&str> {
        self.failure.split_once(':').map(|(_, check)| check)
    }

    /// Returns the step and message of a failed precondition, if the entry names one.
    pub fn precondition(&self) -> Option<&str> {
        self.failure.split_once(": ").filter(|(protocol, _)| !protocol.contains(['/', ':'])).map(|(_, cause)| cause)
    }

    /// Whether the entry covers this failed precondition of its protocol. Numbers and quoted parts of the message may
    /// differ.
    pub fn covers_precondition(&self, cause: &PreconditionFailure) -> bool {
        self.precondition()
            .is_some_and(|named| without_variable_parts(named) == without_variable_parts(&cause.with_step()))
    }

    /// Whether the entry covers this check of this scenario.
    pub fn covers_check(&self, scenario: &str, check: &str) -> bool {
        entry_covers(&self.failure, scenario, check)
    }
}

#[cfg(test)]
mod tests;
