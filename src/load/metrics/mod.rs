//! What a run measures, from the single record to the series of its seconds.
//!
//! A [`Recorder`] belongs to one shard and costs nanoseconds a record. It cuts time into seconds, each a [`Tally`]; a
//! [`Series`] makes histograms of them, merges those of all shards to [`Interval`]s, and these to the run's [`Total`].
//! Percentiles come from merged histograms only, never from an average of percentiles.
//!
//! Three times are told apart, all in nanoseconds: *send delay* (due to sent: ours), *service* (sent to answer: the hub's)
//! and *response* (due to answer: what a user waits). A sample belongs to the time it was due at, so a hub that stalls
//! cannot hide what it delayed: the total holds exactly the samples that were due in the measured time, whenever their
//! answers came. Counts, unlike times, belong to the interval in which the thing really happened.

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
