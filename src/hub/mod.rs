//! The hub under test, apart from its sockets: its hooks, its process, and the supervisor that restarts it.

pub mod client;
pub mod hook;
pub mod prepare;
pub mod process;
pub mod supervisor;
