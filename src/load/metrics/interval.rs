//! One interval (a second) of a run: times, counts and gauges, compact enough for hours of them.

use std::ops::Range;

use super::histogram::{CompactHistogram, HIGHEST_TIME};
use super::registry::Gauge;
use crate::load::Nanos;
use crate::load::buffer_pool::PooledVec;
pub use crate::report::document::load::RunPhase;

/// The division of a run into intervals and phases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunPhases {
    /// The length of an interval.
    pub interval: Nanos,
    /// Samples due in this range are measured, unless they are due in a hold.
    pub measured: Range<Nanos>,
    /// The holds so far, which begin and end with an interval.
    pub holds: Vec<Range<Nanos>>,
}

impl RunPhases {
    /// Rounds the warm-up up to whole intervals. `duration` is `None` until it is known.
    pub fn new(interval: Nanos, warmup: Nanos, duration: Option<Nanos>) -> Self {
        let interval = interval.max(1);
        let from = warmup.div_ceil(interval).saturating_mul(interval);
        let measured = from..duration.map_or(Nanos::MAX, |duration| from.saturating_add(duration));
        Self { interval, measured, holds: Vec::new() }
    }

    /// Whether new journeys are held back at this time.
    pub fn is_held(&self, at: Nanos) -> bool {
        self.holds.iter().any(|hold| hold.contains(&at))
    }

    /// Returns the phase of an interval: one cut by the end of the measured time belongs to the drain, since it is
    /// incomplete.
    pub fn phase_of_interval(&self, from: Nanos, to: Nanos) -> RunPhase {
        match () {
            () if self.is_held(from) && to <= self.measured.end => RunPhase::Held,
            () if from < self.measured.start => RunPhase::Warmup,
            () if to <= self.measured.end => RunPhase::Measured,
            () => RunPhase::Drain,
        }
    }
}

/// A gauge: its last and its highest value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GaugeLevel {
    pub last: u64,
    pub highest: u64,
}

/// The utilisation of one CPU core, from 0 (idle) to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CoreUtilisation {
    pub core: usize,
    pub busy: f64,
}

/// A duration and the histogram it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimingSample(u64);

/// Bits of a sample for its nanoseconds: enough for [`HIGHEST_TIME`].
const TIME_BITS: u32 = 48;

impl TimingSample {
    /// Makes a sample for a place in the [`super::MetricRegistry`]; times above [`HIGHEST_TIME`] are capped.
    pub fn new(timing: usize, took: Nanos) -> Self {
        Self((timing as u64) << TIME_BITS | took.min(HIGHEST_TIME))
    }

    pub fn timing(self) -> usize {
        (self.0 >> TIME_BITS) as usize
    }

    pub fn took(self) -> Nanos {
        self.0 & ((1 << TIME_BITS) - 1)
    }
}

/// The measurements from `from` (included) to `to` (excluded). [`super::MetricRegistry`] defines the places of
/// histograms and counts.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricInterval<T = Vec<CompactHistogram>> {
    pub from: Nanos,
    pub to: Nanos,
    pub phase: RunPhase,
    pub timings: T,
    pub counts: Vec<u64>,
    pub gauges: [GaugeLevel; Gauge::ALL.len()],
    pub cores: Vec<CoreUtilisation>,
}

/// The records of one shard in an interval; samples become histograms when all shards have reported theirs.
pub type ShardInterval = MetricInterval<PooledVec<TimingSample>>;

impl<T> MetricInterval<T> {
    /// Returns the length in seconds.
    pub fn seconds(&self) -> f64 {
        (self.to - self.from) as f64 / crate::load::SECOND as f64
    }

    /// Replaces the times and returns the old ones.
    pub fn replace_timings<U>(self, timings: U) -> (MetricInterval<U>, T) {
        let Self { from, to, phase, timings: own, counts, gauges, cores } = self;
        (MetricInterval { from, to, phase, timings, counts, gauges, cores }, own)
    }

    fn add_gauges(&mut self, others: &[GaugeLevel]) {
        for (level, other) in self.gauges.iter_mut().zip(others) {
            level.last += other.last;
            level.highest += other.highest;
        }
    }

    fn extend_by<U>(&mut self, other: &MetricInterval<U>) {
        self.from = self.from.min(other.from);
        self.to = self.to.max(other.to);
        self.phase = self.phase.max(other.phase);
        for (count, other) in self.counts.iter_mut().zip(&other.counts) {
            *count += other;
        }
        for other in &other.cores {
            match self.cores.iter_mut().find(|core| core.core == other.core) {
                Some(core) => core.busy = core.busy.max(other.busy),
                None => self.cores.push(*other),
            }
        }
    }
}

impl MetricInterval<Vec<PooledVec<TimingSample>>> {
    /// Merges the tally of another shard for the same interval: gauges add up, and the higher utilisation of each core
    /// counts.
    pub fn add_shard(&mut self, other: ShardInterval) {
        self.extend_by(&other);
        self.add_gauges(&other.gauges);
        self.timings.push(other.timings);
    }
}

impl MetricInterval {
    /// Merges what several runs measured at the same time, and returns the histograms of each apart; `None` if there
    /// are no runs.
    pub fn merge_beside(parts: Vec<Self>) -> Option<(Self, Vec<Vec<CompactHistogram>>)> {
        let mut parts = parts.into_iter().map(|part| part.replace_timings(Vec::new()));
        let (mut merged, timings) = parts.next()?;
        let mut all = vec![timings];
        for (part, timings) in parts {
            merged.extend_by(&part);
            merged.add_gauges(&part.gauges);
            all.push(timings);
        }
        Some((merged, all))
    }

    /// Merges the interval that follows.
    pub fn add_next(&mut self, next: &Self) {
        self.extend_by(next);
        for (timing, next) in self.timings.iter_mut().zip(&next.timings) {
            if !next.is_empty() {
                *timing = timing.merged(next);
            }
        }
        for (level, next) in self.gauges.iter_mut().zip(&next.gauges) {
            level.last = next.last;
            level.highest = level.highest.max(next.highest);
        }
    }
}
