//! Judges live or recorded traffic between clients and a hub by a pack, without sending anything.
//!
//! ```text
//! tap       turns the bytes of connections into the lines of a recording
//! ledger    the requests of one side, as far as they are answered by id
//! judge     judges lines: schemas, `always`, lifecycles, replies, RFC 6455
//! findings  what both sides did wrong, each kind once
//! report    the page, test cases and events
//! explanations  what the checks are that only observed traffic has
//! ```
//!
//! A finding rests only on what was observed. What came before the first observed frame of a connection, and what an
//! endpoint may have understood otherwise, is unknown, so no finding rests on it.

pub mod explanations;
pub mod findings;
pub mod judge;
mod ledger;
pub mod report;
pub mod tap;
