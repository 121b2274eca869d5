//! The measurements of all shares so far, second by second.
