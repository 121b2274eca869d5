//! One binary for all integration tests, so that they link once.
#![allow(clippy::unwrap_used)]

mod diagnostics;
mod editor_schema;
mod interpreter;
mod language;
mod legal_habits;
mod matrix;
mod mutants;
mod on_disk;
mod packs;
#[allow(dead_code)]
mod virtual_wire;
