//! The reference server as the hub under test: how it is set up, how it is started, and what its relay must know of a
//! pack. Only this room and the command line name its crate.

pub mod hubs;
pub mod relay_facts;
pub mod setup;
