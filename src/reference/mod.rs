//! The reference server as the hub under test: its configuration, its start, and the facts of a pack for its relay. Only
//! this module and the command line use its crate.

pub mod hubs;
pub mod relay_facts;
pub mod setup;
