//! The measurements of all shares so far, second by second, as their leader and watchers know them.

use std::collections::BTreeMap;

use crate::load::ledger::LedgerTotals;
use crate::load::metrics::selector::RunMeasurements;
use crate::load::metrics::{MetricInterval, MetricSeries, RunPhase};
use crate::load::plan::threshold::{MetricThreshold, ThresholdWatch};
use crate::load::shares::record::{CommonFacts, PackedInterval};
use crate::load::{Nanos, SECOND};

/// How long a second waits for the shares that have not reported it.
const REPORTING_TIME: Nanos = 3 * SECOND;
/// The latest time of a run that is believed.
const MAX_TIME: Nanos = 400 * 86_400 * SECOND;

/// The sum of what shares measured.
pub struct LiveTotals {
    series: MetricSeries,
    /// Seconds that some share may not have reported, by their beginning.
    awaited: BTreeMap<Nanos, Vec<MetricInterval>>,
    newest: Nanos,
    account: LedgerTotals,
}

impl LiveTotals {
    pub fn new(facts: &CommonFacts) -> Self {
        // Shares number their operations differently, so the sum has none.
        let series = MetricSeries::new(facts.layout(&[]), 1);
        Self { series, awaited: BTreeMap::new(), newest: 0, account: LedgerTotals::default() }
    }

    /// Adds what a share measured; what is damaged is passed over.
    pub fn add(&mut self, packed: &PackedInterval) {
        let Some(interval) = packed.unpack(&self.series.layout).ok().filter(|interval| interval.to < MAX_TIME) else {
            return;
        };
        self.newest = self.newest.max(interval.from);
        let interval = self.series.layout.move_operations(interval, &[]);
        self.awaited.entry(interval.from).or_default().push(interval);
    }

    /// Adds up the seconds that are complete. Returns whether there were any.
    pub fn complete(&mut self) -> bool {
        let later = self.awaited.split_off(&self.newest.saturating_sub(REPORTING_TIME));
        let complete = std::mem::replace(&mut self.awaited, later);
        let any = !complete.is_empty();
        complete.into_values().for_each(|parts| self.series.add_merged(parts));
        any
    }

    /// Returns the state of the run; shares follow no items, so the ledger is empty.
    pub fn measurements(&self, changing_load: bool) -> RunMeasurements<'_> {
        RunMeasurements {
            layout: &self.series.layout,
            total: self.series.total(),
            account: &self.account,
            intervals: self.series.intervals(),
            validated: None,
            changing_load,
        }
    }
}

/// The thresholds of a run that end it, judged over all shares.
pub struct LiveThresholds {
    totals: LiveTotals,
    facts: CommonFacts,
    thresholds: Vec<MetricThreshold>,
    watch: ThresholdWatch,
    changing_load: bool,
}

impl LiveThresholds {
    pub fn new(facts: &CommonFacts, thresholds: Vec<MetricThreshold>, changing_load: bool) -> Self {
        let totals = LiveTotals::new(facts);
        let aborting = thresholds.into_iter().filter(|threshold| threshold.abort_after.is_some());
        let thresholds: Vec<MetricThreshold> = aborting.collect();
        let watch = ThresholdWatch::new(thresholds.clone(), &totals.series.layout);
        Self { totals, facts: facts.clone(), thresholds, watch, changing_load }
    }

    /// Forgets what was measured, which comes again.
    pub fn begin_anew(&mut self) {
        *self = Self::new(&self.facts, std::mem::take(&mut self.thresholds), self.changing_load);
    }

    pub fn add(&mut self, interval: &PackedInterval) {
        if !self.thresholds.is_empty() {
            self.totals.add(interval);
        }
    }

    /// Returns the text of a threshold that has been broken for too long.
    pub fn broken_threshold(&mut self) -> Option<String> {
        if !self.totals.complete() {
            return None;
        }
        let state = self.totals.measurements(self.changing_load);
        let last = state.intervals.last().filter(|last| last.phase == RunPhase::Measured)?;
        self.watch.broken_threshold(last.to, state).map(|threshold| threshold.text.clone())
    }
}
