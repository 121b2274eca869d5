//! One binary for all integration tests, so that they link once.
#![allow(clippy::unwrap_used)]

mod diagnostics;
mod editor_schema;
mod mutants;
mod on_disk;
mod packs;
