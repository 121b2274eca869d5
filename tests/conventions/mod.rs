//! What holds of the repository's files themselves.

pub mod architecture;
