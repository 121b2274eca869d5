//! The result of a comparison or a computation.

use crate::scenario::template::{EvalContext, Template};
use crate::scenario::value::Provenance;

/// The result of comparing a value with a `has`, `check` or `fits`.
pub enum ComparisonOutcome {
    Holds,
    Broken {
        expected: String,
        found: String,
        message: String,
        /// A JSON pointer to the wrong part of the value, if it is known.
        place: Option<String>,
    },
    NotReached(String),
    /// An expression cannot use a value that came from the hub.
    Undecided(String),
    /// The result would depend on a message that the deviation with this index assumes.
    Assumed {
        deviation: u16,
    },
    /// A mistake in the scenario.
    Mistake(String),
}

impl ComparisonOutcome {
    /// Returns the result with the text that the scenario shows for a failure. If the text cannot be computed, the
    /// result stands for itself.
    pub fn saying(self, says: Option<&Template>, names: &dyn EvalContext) -> Self {
        match (self, says.and_then(|says| says.eval_text(names).ok())) {
            (Self::Broken { expected, found, message, place }, Some(says)) => {
                Self::Broken { expected, found, message: format!("{says} ({message})"), place }
            }
            (outcome, _) => outcome,
        }
    }

    /// Returns the result of comparing a value of this provenance: nothing assumed can hold or be broken.
    pub fn of(self, provenance: Provenance) -> Self {
        match (provenance, self) {
            (Provenance::Assumed { deviation }, Self::Holds | Self::Broken { .. }) => Self::Assumed { deviation },
            (_, outcome) => outcome,
        }
    }
}
