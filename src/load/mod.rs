//! Load: thousands of virtual clients of a protocol against one hub, honest about latency and about every item's fate.
//!
//! A *plan* says which populations there are and what one of their clients does, in the steps of the scenario language.
//! It is read by the same reader as scenarios, with the same diagnostics, and then departs from them: the interpreter of
//! `check` keeps histories, parses every frame into a tree and evaluates expressions as it goes, which a load generator
//! cannot afford. So a plan is prepared into flat programs, whose messages are bytes with slots and whose frames are
//! recognised by a scan of the raw text, for a small machine of its own, the [`client::Client`].
//!
//! ```text
//! plan        what a plan file says: roles, populations, arrivals, phases, thresholds; flags override its numbers
//! schedule    when things are due: absolute times from a rate and a seed
//! ledger      what became of every item
//! port        what a virtual client may do, and what happens to it: the seam to sockets, clocks and measurement
//! measure     histograms, counts and levels by the second;  reused: the lists that they, and the ledger's entries, come in
//! scan, recognise   members of a frame and the message it is, from its raw text
//! template    messages as bytes and slots
//! program     a plan prepared for a target: flat lists of operations;  lint: what of it is more than a slot
//! metric      all of that by name;  threshold: what must be true of it;  verdict: whether it can be believed
//! report      the formats a run is told in;  compare: two runs, and whether they differ
//! client      the machine of one virtual client, sans-IO: (now, input) -> calls of the port
//! engine      sockets and threads: the only part that is not pure
//! ```
//!
//! Times are [`Nanos`] since the origin of the run and are passed in; everything but the engine is pure.

pub mod buffer_pool;
pub mod client;
pub mod compare;
pub mod compile;
pub mod engine;
pub mod format;
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
