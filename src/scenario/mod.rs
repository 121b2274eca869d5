//! The scenario language: read, checked and compiled before any socket opens.

pub mod functions;
pub mod template;
pub mod value;
