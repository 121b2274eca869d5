//! The fuzzer, case by case and on the reference server.

pub mod cases;
pub mod differential;
pub mod fuzz_only_faults;
mod own_protocol;
pub mod random_walk;
pub mod shrink;
pub mod values;
