//! `check-client` against the reference clients.

pub mod matrix;
