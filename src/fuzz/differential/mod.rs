//! Differential testing: what two hubs answered to the same input, compared up to what may differ.

pub mod compare;
pub mod equivalence;
pub mod transcript;
