//! What a comparison or a computation found.

/// What `has`, `check` and `fits` say of a value.
pub enum Finding {
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
