//! The measurements of a run, from single samples to the series of intervals.
//!
//! A [`MetricRecorder`] belongs to one shard and takes nanoseconds per sample. It divides time into intervals of a
//! second, each a [`ShardInterval`]; a [`MetricSeries`] turns them into histograms, merges those of all shards into
//! [`MetricInterval`]s, and these into the run's [`MetricTotals`]. Percentiles come from merged histograms only, never
//! from an average of percentiles.
//!
//! Three times are distinguished, all in nanoseconds: *response time* (due to answer: what a user waits), *send delay*
//! (from when the client could send to sent: the generator's) and *service time* (the response time without the send
//! delay). A client that is still busy when a message is due waits for the hub, so that wait is a part of the response
//! time and not of the send delay. A sample belongs to its due time, so a
//! stalled hub cannot hide delayed messages (coordinated omission): the total holds exactly the samples that were due
//! in the measured time, whenever their answers came. Counts belong to the interval in which the event happened.

mod histogram;
mod interval;
mod measurement;
mod operations;
mod recorder;
mod registry;
pub mod selector;
mod series;
mod steady;
mod trend;
pub mod uncertainty;

#[cfg(test)]
mod tests;

pub use histogram::{
    CompactHistogram, DenseHistogram, HIGHEST_TIME, LOWEST_TIME, SIGNIFICANT_DIGITS, new_dense_histogram,
};
pub use interval::{CoreUtilisation, GaugeLevel, MetricInterval, RunPhase, RunPhases, ShardInterval, TimingSample};
pub use measurement::Measurement;
pub use operations::{MAX_OPERATIONS, OperationTable};
pub use recorder::MetricRecorder;
pub use registry::{
    CounterId, Gauge, GeneratorCount, GeneratorTime, JourneyCount, LoadErrorKind, MessageCount, MessageTime,
    MetricRegistry, MetricSubjects, OperationCount, OperationTime, TimingId,
};
pub use series::{MAX_INTERVALS, MetricSeries, MetricTotals};
pub use steady::is_steady;
