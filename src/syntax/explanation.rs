//! Explanations of the names that hubproof prints, such as `not-testable` or `wrong-type`. Each is written beside the
//! type that has the name, and `hubproof explain` shows it.

/// The explanation of a printed name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub name: &'static str,
    /// The meaning of the name, in sentences.
    pub means: &'static str,
    /// How this usually comes about; may be empty.
    pub usually: &'static str,
    /// What to do about it; may be empty.
    pub next: &'static str,
}

impl Explanation {
    pub const fn new(name: &'static str, means: &'static str) -> Self {
        Self { name, means, usually: "", next: "" }
    }

    pub const fn usually(self, usually: &'static str) -> Self {
        Self { usually, ..self }
    }

    pub const fn next(self, next: &'static str) -> Self {
        Self { next, ..self }
    }
}
