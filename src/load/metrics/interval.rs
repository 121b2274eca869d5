//! One interval (a second) of a run: times, counts and gauges, compact enough for hours of them.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::histogram::{Compact, HIGHEST};
use super::registry::Gauge;
use crate::load::Nanos;
use crate::load::buffer_pool::PooledVec;

/// What the generator is doing in an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Populations connect; not part of any total.
    Warmup,
    /// The time that the report covers.
    Measured,
    /// No new journey is due; running ones finish.
    Drain,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Warmup => "warmup",
            Self::Measured => "measured",
            Self::Drain => "drain",
        }
    }
}

/// The division of a run into intervals and phases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phases {
    /// How long an interval is.
    pub interval: Nanos,
    /// Samples due in this range are measured.
    pub measured: Range<Nanos>,
}

impl Phases {
    /// Rounds the warm-up up to whole intervals. `duration` is `None` until it is known.
    pub fn new(interval: Nanos, warmup: Nanos, duration: Option<Nanos>) -> Self {
        let interval = interval.max(1);
        let from = warmup.div_ceil(interval).saturating_mul(interval);
        Self { interval, measured: from..duration.map_or(Nanos::MAX, |duration| from.saturating_add(duration)) }
    }

    /// Returns the phase of an interval: one cut by the end of the measured time belongs to the drain, since it is
    /// incomplete.
    pub fn of(&self, from: Nanos, to: Nanos) -> Phase {
        match () {
            () if from < self.measured.start => Phase::Warmup,
            () if to <= self.measured.end => Phase::Measured,
            () => Phase::Drain,
        }
    }
}

/// A gauge: its last and its highest value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    pub last: u64,
    pub highest: u64,
}

/// The utilisation of one CPU core, from 0 (idle) to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Core {
    pub core: usize,
    pub busy: f64,
}

/// A duration and the histogram it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample(u64);

/// Bits of a sample for its nanoseconds: enough for [`HIGHEST`].
const TIME: u32 = 48;

impl Sample {
    /// Makes a sample for a place in the [`super::MetricRegistry`]; times above [`HIGHEST`] are cut to it.
    pub fn new(timing: usize, took: Nanos) -> Self {
        Self((timing as u64) << TIME | took.min(HIGHEST))
    }

    pub fn timing(self) -> usize {
        (self.0 >> TIME) as usize
    }

    pub fn took(self) -> Nanos {
        self.0 & ((1 << TIME) - 1)
    }
}

/// What happened from `from` until before `to`. [`super::MetricRegistry`] defines the places of histograms and counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval<T = Vec<Compact>> {
    pub from: Nanos,
    pub to: Nanos,
    pub phase: Phase,
    pub timings: T,
    pub counts: Vec<u64>,
    pub gauges: [Level; Gauge::ALL.len()],
    pub cores: Vec<Core>,
}

/// What one shard recorded in an interval; samples become histograms when all shards have reported theirs.
pub type Tally = Interval<PooledVec<Sample>>;

impl<T> Interval<T> {
    /// The length in seconds.
    pub fn seconds(&self) -> f64 {
        (self.to - self.from) as f64 / crate::load::SECOND as f64
    }

    /// Replaces the times and returns the old ones.
    pub fn with<U>(self, timings: U) -> (Interval<U>, T) {
        let Self { from, to, phase, timings: own, counts, gauges, cores } = self;
        (Interval { from, to, phase, timings, counts, gauges, cores }, own)
    }

    fn sum<U>(&mut self, other: &Interval<U>) {
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

impl Interval<Vec<PooledVec<Sample>>> {
    /// Merges the tally of another shard for the same interval: gauges add up, and of a core the higher utilisation
    /// counts.
    pub fn add_shard(&mut self, other: Tally) {
        self.sum(&other);
        for (level, other) in self.gauges.iter_mut().zip(&other.gauges) {
            level.last += other.last;
            level.highest += other.highest;
        }
        self.timings.push(other.timings);
    }
}

impl Interval {
    /// Merges the interval that follows.
    pub fn add_next(&mut self, next: &Self) {
        self.sum(next);
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
