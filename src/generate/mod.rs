//! What JSON Schemas allow, and values made from them by a seeded random number generator.

pub mod pattern;
pub mod rng;
pub mod schema_shape;
pub mod value;
