//! Saved findings: their files and their replay.

pub mod finding_file;
pub mod replay;
