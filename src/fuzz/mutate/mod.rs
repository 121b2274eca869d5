//! Mutations of a valid message: of its payload, its JSON text, its frames.

pub mod frames;
pub mod json_text;
pub mod payload;
pub mod schema;
