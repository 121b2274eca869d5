//! Conventions of the repository's files.

pub mod architecture;
pub mod recipes;
pub mod tiers;
