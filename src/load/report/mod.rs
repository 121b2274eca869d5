//! The results of a load run and their formats. Every format is a pure function of one [`LoadReport`]; [`live`] and
//! [`prometheus`] render a running one.

pub mod csv;
pub mod hlog;
pub mod json;
pub mod junit;
pub mod live;
pub mod prometheus;
pub mod terminal;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::ledger::{Totals, Violation};
use super::metrics::selector::State;
use super::metrics::{Interval, MetricRegistry, Series, Total};
use super::plan::threshold::Outcome;
use super::validity::{Judgement, Validity};
use crate::report::Deviating;

/// The number of item ids shown per kind of violation.
const EXAMPLES: usize = 3;

/// Where and how a run was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    pub tool_version: String,
    pub protocol: String,
    /// The plan's id, followed by its title.
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
    /// Further facts for the reader, by name: populations, threads, source addresses, validation.
    pub facts: Vec<(String, String)>,
}

/// The results of one load run.
pub struct LoadReport {
    pub about: About,
    pub layout: MetricRegistry,
    pub total: Total,
    /// The intervals in order, warm-up and drain included.
    pub intervals: Vec<Interval>,
    pub account: Totals,
    pub thresholds: Vec<Outcome>,
    pub judgement: Judgement,
    /// The deviations that the target declares.
    pub deviations: Vec<Deviating>,
}

impl LoadReport {
    /// Builds the report from a finished series, the ledger's totals and the judgement.
    pub fn new(about: About, series: Series, account: Totals, thresholds: Vec<Outcome>, judgement: Judgement) -> Self {
        let (layout, intervals, total) = series.into_parts();
        Self { about, layout, total, intervals, account, thresholds, judgement, deviations: Vec::new() }
    }

    pub fn state(&self) -> State<'_> {
        State { layout: &self.layout, total: &self.total, account: &self.account, intervals: &self.intervals }
    }

    pub fn validity(&self) -> Validity {
        self.judgement.validity()
    }

    /// Returns the exit code: 0 if every threshold holds; 1 if a threshold is broken or a declared deviation is stale;
    /// 3 if the run is not valid, or a threshold was not observed or is uncertain. The times of an invalid run break no
    /// threshold, since they do not describe the hub; violations in the ledger and stale deviations do not depend on
    /// times.
    pub fn exit_code(&self) -> u8 {
        let any = |is: fn(&Outcome) -> bool| self.thresholds.iter().any(is);
        match self.validity() {
            _ if any(Outcome::is_violated) || self.deviations.iter().any(Deviating::is_stale) => 1,
            Validity::Invalid => 3,
            _ if any(Outcome::is_broken) => 1,
            Validity::Valid if self.thresholds.iter().all(Outcome::is_met) => 0,
            Validity::Valid | Validity::Suspect => 3,
        }
    }

    /// Returns the ids of the first items whose violations break a threshold.
    pub fn examples(&self, outcome: &Outcome) -> Vec<String> {
        let Some(kind) = outcome.threshold.metric.violation().filter(|_| outcome.is_violated()) else {
            return Vec::new();
        };
        let violations = self.account.violations.iter().filter(|violation| violation.kind == kind);
        violations.map(Violation::called).take(EXAMPLES).collect()
    }
}
