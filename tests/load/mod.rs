//! Tests of the load generator: its plans, and the accuracy of its numbers.

pub mod accuracy;
pub mod accuracy_simulated;
pub mod assumed;
pub mod hostile;
pub mod kept_frames;
pub mod operations;
#[cfg(feature = "nats")]
pub mod over;
pub mod plan_language;
pub mod plans;
