//! Conventions of the repository's files.

#[cfg(unix)]
pub mod action;
pub mod architecture;
pub mod recipes;
pub mod tiers;
