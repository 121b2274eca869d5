//! The 2200/2300 hub without a member that its messages must have, or with one of another type.

use super::PROTOCOL as P;
use crate::fault::{Act, Cond, Fault, frame, outside};

/// All of them.
pub static MEMBERS: &[Fault] = &[outside(
    P,
    "qi-status-gone",
    "Replies have no status.",
    &["QI-003", "QI-009", "QI-020"],
    const { &[frame(&[Cond::Has("/status")]).does(Act::Remove("/status"))] },
)];
