//! hubproof
pub mod diagnostic;
pub mod embedded;
pub mod event;
pub mod frame;
pub mod hook;
pub mod interpret;
pub mod json_schema;
pub mod matcher;
pub mod pack;
pub mod report;
pub mod scenario;
pub mod secret;
pub mod source;
pub mod target;
pub mod transport;
pub mod check;
pub mod yaml;
