//! Values made from JSON Schemas by a seeded random number generator.

pub mod pattern;
pub mod rng;
pub mod schema_shape;
pub mod value;
