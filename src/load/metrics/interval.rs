//! A second of a run: what was timed, counted and observed in it, in a form that hours of them can be kept in.

use std::ops::Range;

use super::histogram::{Compact, HIGHEST};
use super::registry::Gauge;
use crate::load::Nanos;
use crate::load::buffer_pool::PooledVec;

/// What the generator is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Populations come up; nothing of it is in any total.
    Warmup,
    /// What the report is about.
    Measured,
    /// Nothing new is due; what is under way comes to its end.
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

/// How time is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phases {
    /// How long an interval is.
    pub interval: Nanos,
    /// What is due in it is measured.
    pub measured: Range<Nanos>,
}

impl Phases {
    /// The warm-up is rounded up to whole intervals, so that none is half of each. `duration`: `None` until told.
    pub fn new(interval: Nanos, warmup: Nanos, duration: Option<Nanos>) -> Self {
        let interval = interval.max(1);
        let from = warmup.div_ceil(interval).saturating_mul(interval);
        Self { interval, measured: from..duration.map_or(Nanos::MAX, |duration| from.saturating_add(duration)) }
    }

    /// Of an interval: one that the end of the measured time cuts is part of the drain, since its rates are half rates.
    pub fn of(&self, from: Nanos, to: Nanos) -> Phase {
        match () {
            () if from < self.measured.start => Phase::Warmup,
            () if to <= self.measured.end => Phase::Measured,
            () => Phase::Drain,
        }
    }
}

/// A level: where it was last, and its highest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    pub last: u64,
    pub highest: u64,
}

/// How busy one of the machine's cores was: 0 idle, 1 all the time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Core {
    pub core: usize,
    pub busy: f64,
}

/// How long something took, and which histogram it belongs into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample(u64);

/// Bits of a sample that are its nanoseconds: more than an hour, the longest that a histogram holds.
const TIME: u32 = 48;

impl Sample {
    /// `timing` is a place in the [`super::MetricRegistry`]; longer than [`HIGHEST`] is as long as that.
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

/// What happened from `from` until before `to`. Histograms and counts stand where the [`super::MetricRegistry`] says.
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

/// What one shard has noted in an interval: its times become histograms when all shards have told theirs.
pub type Tally = Interval<PooledVec<Sample>>;

impl<T> Interval<T> {
    /// How long it is, in seconds.
    pub fn seconds(&self) -> f64 {
        (self.to - self.from) as f64 / crate::load::SECOND as f64
    }

    /// The same with other times, and its own.
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
    /// Takes in what another shard did in the same time: levels add up, and of a core the higher tale is believed.
    pub fn beside(&mut self, other: Tally) {
        self.sum(&other);
        for (level, other) in self.gauges.iter_mut().zip(&other.gauges) {
            level.last += other.last;
            level.highest += other.highest;
        }
        self.timings.push(other.timings);
    }
}

impl Interval {
    /// Takes in the interval behind it.
    pub fn behind(&mut self, next: &Self) {
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
