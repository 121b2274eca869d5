//! Failures that the author of a hub knows and keeps in a file of their own: what fails as expected does not fail the
//! run, what does not fail any more has to leave the file.
//!
//! The format is published as `schemas/hubproof/baseline.schema.json`. Everything here is pure: texts come in, a report is
//! marked, a text goes out.

mod apply;
mod names;
mod parse;
mod write;

pub use apply::{apply, standing};
pub use names::Names;
pub use parse::read;
pub use write::{REASON, rewritten};

use crate::report::speaks_of;
use crate::syntax::source::Span;

/// The published JSON Schema of the file, for editors.
pub const SCHEMA: &str = include_str!("../../schemas/hubproof/baseline.schema.json");

/// One `[[known]]` of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// `scenario`, for whatever fails in it, or `scenario:check`, as reports name them.
    pub failure: String,
    /// Where `failure` stands.
    pub place: Span,
    /// Why it fails; never empty.
    pub reason: String,
    /// It fails only now and then.
    pub flaky: bool,
    /// All lines of the entry.
    pub span: Span,
}

impl Entry {
    pub fn scenario(&self) -> &str {
        self.failure.split_once(':').map_or(self.failure.as_str(), |(scenario, _)| scenario)
    }

    pub fn check(&self) -> Option<&str> {
        self.failure.split_once(':').map(|(_, check)| check)
    }

    /// Whether it speaks of a check of a scenario.
    pub fn names(&self, scenario: &str, check: &str) -> bool {
        speaks_of(&self.failure, scenario, check)
    }
}

#[cfg(test)]
mod tests;
