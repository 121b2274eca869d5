//! The results of a load run and their formats. Every format is a pure function of one [`LoadReport`]; [`live`] and
//! [`prometheus`] render a running one.

pub mod badge;
pub mod csv;
pub mod events;
pub mod hlog;
pub mod influx;
pub mod json;
pub mod live;
pub mod markdown;
pub mod otlp;
pub mod prometheus;
mod series_names;
pub mod terminal;
mod test_results;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Nanos;
use super::details::ConnectionEnds;
use super::format::format_grouped;
use super::ledger::{LedgerTotals, LedgerViolation};
use super::metrics::selector::RunMeasurements;
use super::metrics::{CounterId, JourneyCount, MetricInterval, MetricRegistry, MetricSeries, MetricTotals};
use super::plan::schedule::RateSegment;
use super::plan::script::JourneyWorkload;
use super::plan::threshold::ThresholdOutcome;
use super::validity::{RunValidity, ValidityJudgement};
use crate::report::DeviationReport;
use crate::report::document::load::{DueJourneys, Wait};

/// The number of item ids shown per kind of violation.
const MAX_EXAMPLE_ITEMS: usize = 3;

/// Where and how a run was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadRunMetadata {
    pub tool_version: String,
    pub protocol: String,
    /// The plan's id.
    pub plan: String,
    pub title: String,
    /// The URL of the hub, or `embedded reference server`; without secrets.
    pub target: String,
    /// The arguments of the command, without secrets.
    pub command: Vec<String>,
    /// Unix time in milliseconds at the run's origin.
    pub started: u64,
    pub seed: u64,
    /// How long the run took, from its origin to the end of the last connection.
    pub duration: Duration,
    /// Whether the run was interrupted.
    pub interrupted: bool,
    /// How long the warm-up took, without holds.
    pub warm_up: Duration,
    /// The times in which new journeys were held back.
    pub holds: Vec<Range<Nanos>>,
    /// When the journeys of each role begin.
    pub workloads: Vec<JourneyWorkload>,
    /// The scheduled rates of the journeys that begin by a schedule, by their name.
    pub schedules: Vec<(String, Vec<RateSegment>)>,
    /// Whether the plan changes its load on purpose.
    pub changing_load: bool,
    /// Further facts for the reader, by name: populations, threads, source addresses, validation.
    pub facts: Vec<(String, String)>,
}

/// The results of one load run.
pub struct LoadReport {
    pub about: LoadRunMetadata,
    pub layout: MetricRegistry,
    pub total: MetricTotals,
    /// The intervals in order, warm-up and drain included.
    pub intervals: Vec<MetricInterval>,
    pub account: LedgerTotals,
    pub thresholds: Vec<ThresholdOutcome>,
    pub judgement: ValidityJudgement,
    /// The deviations that the target declares.
    pub deviations: Vec<DeviationReport>,
    /// How connections ended unexpectedly.
    pub ends: ConnectionEnds,
    /// The waits in which journeys ended.
    pub waits: Vec<Wait>,
}

impl Wait {
    /// Describes the wait: `13 journeys of buyer still waited for done (plan.yaml:20) at the end of the run`.
    pub fn describe(&self) -> String {
        let Self { journey, message, place, .. } = self;
        let journeys = if self.journeys == 1 { "journey" } else { "journeys" };
        let number = format_grouped(self.journeys);
        if self.timed_out {
            format!("{number} {journeys} of {journey} waited in vain for {message} ({place})")
        } else {
            format!("{number} {journeys} of {journey} still waited for {message} ({place}) at the end of the run")
        }
    }
}

impl LoadReport {
    /// Builds the report from a finished series, the ledger's totals and the judgement.
    pub fn new(
        about: LoadRunMetadata,
        series: MetricSeries,
        account: LedgerTotals,
        thresholds: Vec<ThresholdOutcome>,
        judgement: ValidityJudgement,
    ) -> Self {
        let (layout, intervals, total) = series.into_parts();
        Self {
            about,
            layout,
            total,
            intervals,
            account,
            thresholds,
            judgement,
            deviations: Vec::new(),
            ends: ConnectionEnds::default(),
            waits: Vec::new(),
        }
    }

    pub fn measurements(&self) -> RunMeasurements<'_> {
        RunMeasurements {
            layout: &self.layout,
            total: &self.total,
            account: &self.account,
            intervals: &self.intervals,
            validated: None,
            changing_load: self.about.changing_load,
        }
    }

    /// Returns how many journeys of each role with due times were due, and what became of them.
    pub fn due_journeys(&self) -> Vec<(String, DueJourneys)> {
        let known = self.about.workloads.iter().filter(|known| known.workload.has_due_times());
        let journey = |known: &JourneyWorkload| {
            let journey = self.layout.names.journeys.iter().position(|name| *name == known.journey)?;
            let count = |count| self.total.count(&self.layout, CounterId::Journey(journey, count));
            let (started, missed) = (count(JourneyCount::Started), count(JourneyCount::Missed));
            let (late, skipped) = (count(JourneyCount::Late), count(JourneyCount::Skipped));
            let (name, due) = (known.journey.clone(), started + missed + skipped);
            Some((name, DueJourneys { workload: known.workload, due, started, late, missed, skipped }))
        };
        known.filter_map(journey).collect()
    }

    pub fn validity(&self) -> RunValidity {
        self.judgement.validity()
    }

    /// Returns the exit code: 0 if every threshold holds; 1 if a threshold is broken or a declared deviation is stale;
    /// 3 if the run is not valid or was interrupted, or a threshold was not observed or is uncertain. The times of an invalid run break no
    /// threshold, since they do not describe the hub; violations in the ledger and stale deviations do not depend on
    /// times.
    pub fn exit_code(&self) -> u8 {
        let any = |is: fn(&ThresholdOutcome) -> bool| self.thresholds.iter().any(is);
        match self.validity() {
            _ if any(ThresholdOutcome::is_violated) || self.deviations.iter().any(DeviationReport::is_stale) => 1,
            RunValidity::Invalid => 3,
            _ if any(ThresholdOutcome::is_broken) => 1,
            RunValidity::Valid if !self.about.interrupted && self.thresholds.iter().all(ThresholdOutcome::is_met) => 0,
            RunValidity::Valid | RunValidity::Suspect => 3,
        }
    }

    /// Returns the ids of the first items whose violations break a threshold.
    pub fn example_items(&self, outcome: &ThresholdOutcome) -> Vec<String> {
        let Some(kind) = outcome.threshold.metric.violation().filter(|_| outcome.is_violated()) else {
            return Vec::new();
        };
        let violations = self.account.violations.iter().filter(|violation| violation.kind == kind);
        violations.map(LedgerViolation::item_name).take(MAX_EXAMPLE_ITEMS).collect()
    }
}
