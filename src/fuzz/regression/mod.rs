//! Saved findings: their files, and playing them again.

pub mod finding_file;
pub mod replay;
