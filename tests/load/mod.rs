//! The load generator: its plans, and whether its numbers are right.

pub mod accuracy;
pub mod accuracy_simulated;
pub mod hostile;
pub mod plan_language;
pub mod plans;
