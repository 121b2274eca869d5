//! The measurements of a run, from single samples to the series of intervals.
//!
//! A [`Recorder`] belongs to one shard and takes nanoseconds per sample. It divides time into intervals of a second,
//! each a [`Tally`]; a [`Series`] turns them into histograms, merges those of all shards into [`Interval`]s, and these
//! into the run's [`Total`]. Percentiles come from merged histograms only, never from an average of percentiles.
//!
//! Three times are distinguished, all in nanoseconds: *send delay* (due to sent: the generator's), *service time* (sent
//! to answer: the hub's) and *response time* (due to answer: what a user waits). A sample belongs to its due time, so a
//! stalled hub cannot hide delayed messages (coordinated omission): the total holds exactly the samples that were due
//! in the measured time, whenever their answers came. Counts belong to the interval in which the event happened.

mod histogram;
mod interval;
mod recorder;
mod registry;
pub mod selector;
mod series;

#[cfg(test)]
mod tests;

pub use histogram::{Compact, Dense, HIGHEST, LOWEST, SIGNIFICANT_DIGITS, dense};
pub use interval::{Core, Interval, Level, Phase, Phases, Sample, Tally};
pub use recorder::Recorder;
pub use registry::{
    Count, ErrorKind, Gauge, JourneyCount, MessageCount, MessageTime, MetricRegistry, Names, RunCount, RunTime, Timing,
};
pub use series::{MOST_INTERVALS, Series, Total};
