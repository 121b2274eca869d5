//! Files, places in them, and the languages they are written in: YAML, JSON Schema, matchers, durations.

pub mod diagnostic;
pub mod duration;
pub mod explanation;
pub mod fields;
pub mod grammar;
pub mod json_schema;
pub mod matcher;
pub mod printable;
pub mod share;
pub mod source;
pub mod yaml;
