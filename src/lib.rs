//! hubproof
pub mod frame;
