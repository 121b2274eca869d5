//! One binary for all integration tests, so that they link once.
#![allow(clippy::unwrap_used)]

mod cli;
mod clients;
mod conformance;
mod conventions;
mod fuzz;
mod language;
mod load;
mod support;
