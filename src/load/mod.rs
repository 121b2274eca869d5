//! Load: how much a hub carries, and what becomes of every item on the way. Everything but the engine is pure.

pub mod ledger;
pub mod measure;

/// Nanoseconds since the origin of a run. Every shard counts from the same origin.
pub type Nanos = u64;

/// Nanoseconds in a second.
pub const SECOND: Nanos = 1_000_000_000;
