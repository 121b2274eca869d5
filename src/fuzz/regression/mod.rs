//! The files of saved findings.

pub mod finding_file;
