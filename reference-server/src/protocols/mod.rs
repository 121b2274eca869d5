//! The protocols, one folder each, with their faults.

pub(crate) mod airavata;
pub(crate) mod concierge;
#[cfg(test)]
mod coverage_test;
pub(crate) mod emprops;
pub(crate) mod gator;
pub(crate) mod qi;
pub mod websocket;
