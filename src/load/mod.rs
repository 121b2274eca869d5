//! Load: thousands of virtual clients of a protocol against one hub, honest about latency and about every item's fate.
//!
//! A *plan* says which populations there are and what one of their clients does, in the steps of the scenario language.
//! It is read by the same reader as scenarios, with the same diagnostics, and then departs from them: the interpreter of
//! `check` keeps histories, parses every frame into a tree and evaluates expressions as it goes, which a load generator
//! cannot afford. So a plan is prepared into flat programs, whose messages are bytes with slots and whose frames are
//! recognised by a scan of the raw text, for a small machine of its own, the [`client::Client`].
//!
//! ```text
//! buffer_pool, format, ids   lists that are used again; numbers as they are shown; messages and journeys by number
//! ledger      what became of every item
//! metrics     histograms, counts and levels by the second; all of them by name
//! plan        what a plan file says: roles, populations, arrivals, phases, thresholds; when things are due
//! compile     a plan compiled for a target: flat lists of operations, message templates, the classifier of frames
//! client      the machine of one virtual client, sans-IO: (now, input) -> calls of its `io`
//! engine      sockets and threads: the only part that is not pure
//! validity    whether the numbers of a run can be believed;  max_rate: the search for the highest rate that keeps to them
//! report      the formats a run is shown in;  compare: two runs, and whether they differ
//! ```
//!
//! Times are [`Nanos`] since the origin of the run and are passed in; everything but the engine is pure.

pub mod buffer_pool;
pub mod client;
pub mod compare;
pub mod compile;
pub mod engine;
pub mod format;
pub mod ids;
pub mod ledger;
pub mod max_rate;
pub mod metrics;
pub mod plan;
pub mod report;
pub mod validity;

/// Nanoseconds since the origin of the run.
pub type Nanos = u64;

/// Nanoseconds in a second.
pub const SECOND: Nanos = 1_000_000_000;
