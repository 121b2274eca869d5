//! The intervals of a run, merged over all shards.

use std::collections::VecDeque;

use super::histogram::{DenseHistogram, HistogramEncoder, new_dense_histogram};
use super::interval::{MetricInterval, RunPhase, ShardInterval, TimingSample};
use super::registry::{CounterId, MetricRegistry, TimingId};
use crate::load::buffer_pool::PooledVec;
use crate::load::{Nanos, SECOND};

/// The most intervals kept: beyond this, each pair is merged into one of twice the length, so that a long run has a
/// coarser series instead of an unbounded one.
pub const MAX_INTERVALS: usize = 1_200;

/// The measurements of a run so far.
pub struct MetricSeries {
    pub layout: MetricRegistry,
    shards: usize,
    /// Intervals that some shard has not reported yet, with the samples received so far.
    awaited: VecDeque<MetricInterval<Vec<PooledVec<TimingSample>>>>,
    intervals: Vec<MetricInterval>,
    total: MetricTotals,
    /// Scratch histograms in which the samples of one interval are collected.
    timings: Vec<Option<Box<DenseHistogram>>>,
    press: HistogramEncoder,
}

/// The sum of all intervals.
#[derive(Clone)]
pub struct MetricTotals {
    /// Samples due in the measured time; `None` if there are none.
    timings: Vec<Option<Box<DenseHistogram>>>,
    /// Counts of the measured intervals: for rates.
    measured: Vec<u64>,
    /// Counts of the whole run.
    counts: Vec<u64>,
    /// The total length of the measured intervals.
    pub time: Nanos,
}

impl MetricSeries {
    pub fn new(layout: MetricRegistry, shards: usize) -> Self {
        let (timings, counts) = (layout.timings().len(), layout.counts().len());
        let total =
            MetricTotals { timings: vec![None; timings], measured: vec![0; counts], counts: vec![0; counts], time: 0 };
        Self {
            layout,
            shards: shards.max(1),
            awaited: VecDeque::new(),
            intervals: Vec::new(),
            total,
            timings: vec![None; timings],
            press: HistogramEncoder::default(),
        }
    }

    /// Adds an interval of one shard and returns the merged interval that it completes. Every shard must add all of its
    /// intervals in order.
    pub fn add(&mut self, tally: ShardInterval) -> Option<&MetricInterval> {
        match self.awaited.iter_mut().find(|awaited| awaited.from == tally.from) {
            Some(awaited) => awaited.add_shard(tally),
            None => {
                let (mut awaited, samples) = tally.replace_timings(Vec::new());
                awaited.timings.push(samples);
                self.awaited.push_back(awaited);
            }
        }
        if self.awaited.front()?.timings.len() < self.shards {
            return None;
        }
        self.complete_oldest();
        self.intervals.last()
    }

    /// Completes the oldest of the intervals that some shard has not reported, since it has ended, and returns it;
    /// `None` once there is none left.
    pub fn finish_next(&mut self) -> Option<&MetricInterval> {
        self.awaited.make_contiguous().sort_by_key(|awaited| awaited.from);
        self.awaited.front()?;
        self.complete_oldest();
        self.intervals.last()
    }

    /// Adds an interval of several runs that ran beside each other, merged from theirs.
    pub fn add_merged(&mut self, parts: Vec<MetricInterval>) {
        let Some((interval, timings)) = MetricInterval::merge_beside(parts) else { return };
        for timing in &timings {
            for (sum, more) in self.timings.iter_mut().zip(timing) {
                if let Some(more) = more.histogram() {
                    // The bounds are the same.
                    let _ = sum.get_or_insert_with(|| Box::new(new_dense_histogram())).add(more);
                }
            }
        }
        self.total.add_interval(&interval, &self.timings);
        self.push(interval);
    }

    /// Returns the intervals in order; their lengths may differ, see [`MAX_INTERVALS`].
    pub fn intervals(&self) -> &[MetricInterval] {
        &self.intervals
    }

    pub fn total(&self) -> &MetricTotals {
        &self.total
    }

    /// Splits a finished series.
    pub fn into_parts(self) -> (MetricRegistry, Vec<MetricInterval>, MetricTotals) {
        (self.layout, self.intervals, self.total)
    }

    fn complete_oldest(&mut self) {
        let Some(awaited) = self.awaited.pop_front() else { return };
        let (interval, samples) = awaited.replace_timings(Vec::new());
        for sample in samples.iter().flat_map(|samples| samples.iter()) {
            let histogram = self.timings[sample.timing()].get_or_insert_with(|| Box::new(new_dense_histogram()));
            histogram.saturating_record(sample.took());
        }
        self.total.add_interval(&interval, &self.timings);
        self.push(interval);
    }

    /// Adds an interval, with the samples collected in `timings`, which are empty afterwards.
    fn push(&mut self, mut interval: MetricInterval) {
        for timing in &mut self.timings {
            let timed = timing.as_deref_mut().filter(|histogram| !histogram.is_empty());
            interval.timings.push(timed.as_deref().map(|histogram| self.press.encode(histogram)).unwrap_or_default());
            if let Some(histogram) = timed {
                histogram.reset();
            }
        }
        if self.intervals.len() >= MAX_INTERVALS {
            self.merge_pairs();
        }
        self.intervals.push(interval);
    }

    /// Merges neighbours of the same phase in pairs.
    fn merge_pairs(&mut self) {
        let mut joined: Vec<MetricInterval> = Vec::with_capacity(MAX_INTERVALS);
        let mut pending: Option<MetricInterval> = None;
        for interval in self.intervals.drain(..) {
            pending = match pending.take() {
                Some(mut first) if first.phase == interval.phase => {
                    first.add_next(&interval);
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

impl MetricTotals {
    fn add_interval(&mut self, interval: &MetricInterval, timings: &[Option<Box<DenseHistogram>>]) {
        for (total, more) in self.counts.iter_mut().zip(&interval.counts) {
            *total += more;
        }
        // A hold may come before the measured time.
        if interval.phase == RunPhase::Warmup || interval.phase == RunPhase::Held && self.time == 0 {
            return;
        }
        for (total, more) in self.timings.iter_mut().zip(timings) {
            if let Some(more) = more.as_deref().filter(|more| !more.is_empty()) {
                // The bounds are the same.
                let _ = total.get_or_insert_with(|| Box::new(new_dense_histogram())).add(more);
            }
        }
        if interval.phase == RunPhase::Measured {
            self.time += interval.to - interval.from;
            for (total, more) in self.measured.iter_mut().zip(&interval.counts) {
                *total += more;
            }
        }
    }

    /// Returns all samples due in the measured time; `None` if there are none.
    pub fn timing(&self, layout: &MetricRegistry, timing: TimingId) -> Option<&DenseHistogram> {
        self.timings[layout.timing(timing)].as_deref()
    }

    /// Returns the count of the whole run, warm-up and drain included.
    pub fn count(&self, layout: &MetricRegistry, count: CounterId) -> u64 {
        self.counts[layout.count(count)]
    }

    /// Returns the count of the measured intervals.
    pub fn measured(&self, layout: &MetricRegistry, count: CounterId) -> u64 {
        self.measured[layout.count(count)]
    }

    /// Returns a count per second of the measured time; 0 before it begins.
    pub fn rate(&self, layout: &MetricRegistry, count: CounterId) -> f64 {
        if self.time == 0 { 0.0 } else { self.measured(layout, count) as f64 * SECOND as f64 / self.time as f64 }
    }
}
