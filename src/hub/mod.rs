//! The hub under test beside its sockets: hooks, its process, and the supervisor that restarts it.

pub mod hook;
pub mod prepare;
pub mod process;
pub mod supervisor;
