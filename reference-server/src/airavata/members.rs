//! Airavata without a member that its messages must have, or with one of another type.

use super::PROTOCOL as P;
use crate::fault::{Act, Cond, Fault, frame, outside};

/// All of them.
pub static MEMBERS: &[Fault] = &[
    outside(
        P,
        "airavata-type-gone",
        "Messages have no type.",
        &["AIR-015", "AIR-022", "AIR-027", "AIR-062", "AIR-065"],
        const { &[frame(&[Cond::Has("/type")]).does(Act::Remove("/type"))] },
    ),
    outside(
        P,
        "airavata-type-in-array",
        "The type of a message is an array.",
        &["AIR-015", "AIR-018", "AIR-022", "AIR-027", "AIR-062", "AIR-065"],
        const { &[frame(&[Cond::Has("/type")]).does(Act::Retype("/type"))] },
    ),
    outside(
        P,
        "airavata-id-gone",
        "Messages have no id.",
        &["AIR-023", "AIR-029", "AIR-030", "AIR-031", "AIR-032", "AIR-034", "AIR-039"],
        const { &[frame(&[Cond::Has("/id")]).does(Act::Remove("/id"))] },
    ),
    outside(
        P,
        "airavata-timestamp-gone",
        "Messages have no timestamp.",
        &["AIR-024", "AIR-034"],
        const { &[frame(&[Cond::Has("/timestamp")]).does(Act::Remove("/timestamp"))] },
    ),
];
