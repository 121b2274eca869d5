//! The hub's deliberate defects, in the order of the document.

use crate::fault::Fault;

/// All of them.
pub static FAULTS: &[Fault] = &[];
