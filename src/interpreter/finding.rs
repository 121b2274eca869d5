//! The result of a comparison or a computation.

/// The result of comparing a value with a `has`, `check` or `fits`.
pub enum ComparisonOutcome {
    Holds,
    Broken {
        expected: String,
        found: String,
        message: String,
    },
    NotReached(String),
    /// A mistake in the scenario.
    Mistake(String),
}
