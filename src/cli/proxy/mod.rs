//! The commands that stand between clients and a hub: `relay`, `record` and `observe`.

pub mod observe;
pub mod record;
pub mod relay;
