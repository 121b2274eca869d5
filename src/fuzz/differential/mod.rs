//! Differential testing: compares what two hubs answer to the same input.

pub mod compare;
pub mod equivalence;
pub mod transcript;
