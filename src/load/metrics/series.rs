//! The seconds of a run, of all shards together, and their merge.

use std::collections::VecDeque;

use super::histogram::{Compact, Dense, Press, dense};
use super::interval::{Interval, Phase, Sample, Tally};
use super::registry::{Count, MetricRegistry, Timing};
use crate::load::buffer_pool::PooledVec;
use crate::load::{Nanos, SECOND};

/// More intervals are not kept: each pair becomes one of twice the length, so that a long run has a coarser series rather
/// than an unbounded one.
pub const MOST_INTERVALS: usize = 1_200;

/// What a run has measured so far.
pub struct Series {
    pub layout: MetricRegistry,
    shards: usize,
    /// Intervals that some shard has still to tell, with the samples of each that has.
    awaited: VecDeque<Interval<Vec<PooledVec<Sample>>>>,
    intervals: Vec<Interval>,
    total: Total,
    /// Where the times of one interval are sorted, and made compact.
    timings: Vec<Option<Box<Dense>>>,
    press: Press,
}

/// The merge of the intervals.
#[derive(Clone)]
pub struct Total {
    /// What was due in the measured time; empty histograms are `None`.
    timings: Vec<Option<Box<Dense>>>,
    /// In measured intervals only: for rates.
    measured: Vec<u64>,
    /// In the whole run.
    counts: Vec<u64>,
    /// How long the measured intervals are together.
    pub time: Nanos,
}

impl Series {
    pub fn new(layout: MetricRegistry, shards: usize) -> Self {
        let (timings, counts) = (layout.timings().len(), layout.counts().len());
        let total = Total { timings: vec![None; timings], measured: vec![0; counts], counts: vec![0; counts], time: 0 };
        Self {
            layout,
            shards: shards.max(1),
            awaited: VecDeque::new(),
            intervals: Vec::new(),
            total,
            timings: vec![None; timings],
            press: Press::default(),
        }
    }

    /// Takes an interval of one shard, and gives the merged one that it completes. Every shard gives all of its intervals,
    /// in order, and in step with the others.
    pub fn add(&mut self, tally: Tally) -> Option<&Interval> {
        match self.awaited.iter_mut().find(|awaited| awaited.from == tally.from) {
            Some(awaited) => awaited.beside(tally),
            None => {
                let (mut awaited, samples) = tally.with(Vec::new());
                awaited.timings.push(samples);
                self.awaited.push_back(awaited);
            }
        }
        if self.awaited.front()?.timings.len() < self.shards {
            return None;
        }
        self.shift();
        self.intervals.last()
    }

    /// Takes what some shard has not told as told: it has ended.
    pub fn finish(&mut self) {
        self.awaited.make_contiguous().sort_by_key(|awaited| awaited.from);
        while !self.awaited.is_empty() {
            self.shift();
        }
    }

    /// In order; their lengths may differ, see [`MOST_INTERVALS`].
    pub fn intervals(&self) -> &[Interval] {
        &self.intervals
    }

    pub fn total(&self) -> &Total {
        &self.total
    }

    /// What is left of a series that has been finished.
    pub fn into_parts(self) -> (MetricRegistry, Vec<Interval>, Total) {
        (self.layout, self.intervals, self.total)
    }

    fn shift(&mut self) {
        let Some(awaited) = self.awaited.pop_front() else { return };
        let (mut interval, samples) = awaited.with(Vec::new());
        for sample in samples.iter().flat_map(|samples| samples.iter()) {
            let histogram = self.timings[sample.timing()].get_or_insert_with(|| Box::new(dense()));
            histogram.saturating_record(sample.took());
        }
        self.total.take(&interval, &self.timings);
        for timing in &mut self.timings {
            let timed = timing.as_deref_mut().filter(|histogram| !histogram.is_empty());
            interval.timings.push(timed.as_deref().map(|histogram| self.press.compact(histogram)).unwrap_or_default());
            if let Some(histogram) = timed {
                histogram.reset();
            }
        }
        if self.intervals.len() >= MOST_INTERVALS {
            self.halve();
        }
        self.intervals.push(interval);
    }

    /// Joins neighbours of the same phase two by two.
    fn halve(&mut self) {
        let mut joined: Vec<Interval> = Vec::with_capacity(MOST_INTERVALS);
        let mut pending: Option<Interval> = None;
        for interval in self.intervals.drain(..) {
            pending = match pending.take() {
                Some(mut first) if first.phase == interval.phase => {
                    first.behind(&interval);
                    joined.push(first);
                    None
                }
                Some(first) => {
                    joined.push(first);
                    Some(interval)
                }
                None => Some(interval),
            };
        }
        joined.extend(pending);
        self.intervals = joined;
    }
}

impl Total {
    fn take(&mut self, interval: &Interval, timings: &[Option<Box<Dense>>]) {
        for (total, more) in self.counts.iter_mut().zip(&interval.counts) {
            *total += more;
        }
        if interval.phase == Phase::Warmup {
            return;
        }
        for (total, more) in self.timings.iter_mut().zip(timings) {
            if let Some(more) = more.as_deref().filter(|more| !more.is_empty()) {
                // The bounds are the same.
                let _ = total.get_or_insert_with(|| Box::new(dense())).add(more);
            }
        }
        if interval.phase == Phase::Measured {
            self.time += interval.to - interval.from;
            for (total, more) in self.measured.iter_mut().zip(&interval.counts) {
                *total += more;
            }
        }
    }

    /// Everything that was due in the measured time; `None` where there was nothing.
    pub fn timing(&self, layout: &MetricRegistry, timing: Timing) -> Option<&Dense> {
        self.timings[layout.timing(timing)].as_deref()
    }

    /// In the whole run, warm-up and drain included.
    pub fn count(&self, layout: &MetricRegistry, count: Count) -> u64 {
        self.counts[layout.count(count)]
    }

    /// In the measured intervals.
    pub fn measured(&self, layout: &MetricRegistry, count: Count) -> u64 {
        self.measured[layout.count(count)]
    }

    /// Per second of the measured time; 0 before there is any.
    pub fn rate(&self, layout: &MetricRegistry, count: Count) -> f64 {
        if self.time == 0 { 0.0 } else { self.measured(layout, count) as f64 * SECOND as f64 / self.time as f64 }
    }

    /// The same histogram, compact.
    pub fn compact(&self, layout: &MetricRegistry, timing: Timing) -> Compact {
        self.timing(layout, timing).map(Compact::new).unwrap_or_default()
    }
}
