//! How much load this machine can generate, and what limits it.

pub mod findings;
pub mod measure;
