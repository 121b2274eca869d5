//! Differential testing: compares the answers of two hubs to the same input.

pub mod compare;
pub mod difference;
pub mod equivalence;
pub mod transcript;
