//! Gator without a member that its messages must have, or with one of another type.

use super::PROTOCOL as P;
use crate::fault::{Act, Cond, Fault, frame, outside};

/// All of them.
pub static MEMBERS: &[Fault] = &[outside(
    P,
    "gator-forwarded-message-number",
    "The message of a log on its way up is a number.",
    &["GAT-025", "GAT-034"],
    const { &[frame(&[Cond::Is("/action", "log"), Cond::Lacks("/result")]).does(Act::Set("/payload/message", "7"))] },
)];
