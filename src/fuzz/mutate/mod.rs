//! Mutators: each makes one right thing wrong, in a payload, in the text of a message, in its frames.

pub mod frames;
pub mod json_text;
pub mod payload;
pub mod schema;
