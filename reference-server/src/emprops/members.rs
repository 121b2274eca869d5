//! The EmProps hub without a member that its messages must have, or with one of another type.

use super::PROTOCOL as P;
use crate::fault::{Act, Cond, Fault, frame, outside};

/// All of them.
pub static MEMBERS: &[Fault] = &[
    outside(
        P,
        "emprops-type-gone",
        "Messages have no type.",
        &["EMP-004", "EMP-012", "EMP-015"],
        const { &[frame(&[Cond::Has("/type")]).does(Act::Remove("/type"))] },
    ),
    outside(
        P,
        "emprops-type-in-array",
        "The type of a message is an array.",
        &["EMP-004", "EMP-012", "EMP-015"],
        const { &[frame(&[Cond::Has("/type")]).does(Act::Retype("/type"))] },
    ),
    outside(
        P,
        "emprops-timestamp-text-everywhere",
        "Timestamps are strings.",
        &["EMP-005", "EMP-052", "EMP-085", "EMP-103", "EMP-137"],
        const { &[frame(&[Cond::Has("/timestamp")]).does(Act::Retype("/timestamp"))] },
    ),
];
