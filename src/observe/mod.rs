//! Judges live or recorded traffic between clients and a hub by a pack, without sending anything.
//!
//! ```text
//! tap       turns the bytes of connections into the lines of a recording
//! ledger    the requests of one side, as far as they are answered by id
//! kept      the first messages of a connection, for the checks about all of them
//! jobs      what became of each job, on all connections together
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
pub mod jobs;
pub mod judge;
mod kept;
mod ledger;
pub mod report;
pub mod tap;
