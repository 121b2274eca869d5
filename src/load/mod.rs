//! Load tests: thousands of virtual clients of a protocol against one hub, with response times free of coordinated
//! omission and a ledger of every item.
//!
//! A *plan* describes populations and what their clients do, in the steps of the scenario language. The scenario parser
//! reads it, with the same diagnostics, and then it is compiled: the interpreter of `check` keeps histories, parses
//! every frame into a tree and evaluates expressions as it runs, which is too slow for a load generator. A compiled
//! plan consists of flat programs. Their messages are byte templates, and a scan of the raw text classifies received
//! frames. A small state machine, the [`client::VirtualClient`], runs the programs.
//!
//! ```text
//! buffer_pool, format, ids   reusable lists; number formats; indexes of messages and journeys
//! holds       the times in which a run holds back new journeys
//! ledger      the history and outcome of every item
//! provenance  whether a frame or a value was observed or only assumed
//! metrics     histograms, counts and gauges per second, and their names
//! plan        the plan file: roles, populations, arrivals, phases, thresholds; the schedule of due times
//! compile     a plan compiled for a target: flat lists of operations, message templates, the classifier of frames
//! client      the state machine of one virtual client, sans-IO: (now, input) -> calls to its `io`
//! details     how connections ended, and where journeys waited
//! opening     clients that fail to join, and when a run is abandoned because of them
//! engine      sockets and threads: the only part that is not pure
//! validity    whether the numbers of a run can be trusted;  max_rate: the search for the highest sustained rate
//! report      the report formats;  compare: the differences between two runs
//! shares      a run that several machines share: what each writes, and one report of it all
//! nats        a NATS server over which shares agree and report
//! ```
//!
//! Times are [`Nanos`] since the origin of the run and are passed in; everything but the engine is pure.

pub mod buffer_pool;
pub mod client;
pub mod compare;
pub mod compile;
pub mod details;
pub mod engine;
pub mod format;
pub mod holds;
pub mod ids;
pub mod ledger;
pub mod machine;
pub mod max_rate;
pub mod metrics;
#[cfg(feature = "nats")]
pub mod nats;
pub mod opening;
pub mod pages;
pub mod plan;
pub mod provenance;
pub mod report;
pub mod shares;
pub mod validity;

/// Nanoseconds since the origin of the run.
pub type Nanos = u64;

/// Nanoseconds in a second.
pub const SECOND: Nanos = 1_000_000_000;
