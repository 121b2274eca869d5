//! hubproof
pub mod source;
pub mod diagnostic;
pub mod yaml;
pub mod json_schema;
pub mod matcher;
pub mod pack;
pub mod scenario;
pub mod event;
pub mod report;
pub mod frame;
