//! `hubproof check-client`: clients and workers are judged.

mod engine;
pub mod matrix;
