//! The reference server as the hub under test: its configuration, its start, and the facts about a pack that its relay
//! needs. Only this module and the command line use its crate.

pub mod hubs;
pub mod model;
pub mod relay_facts;
pub mod setup;
