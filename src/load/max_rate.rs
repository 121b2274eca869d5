//! The search for the highest rate that a hub sustains: doubles the rate until it is not sustained, then bisects.

use std::fmt::Write as _;

use super::ledger::LedgerTotals;
use super::metrics::uncertainty::UncertaintySource;
use super::metrics::{CounterId, JourneyCount, MetricRegistry, MetricTotals};
use super::plan::Plan;
use super::plan::schedule::ArrivalSchedule;
use super::plan::threshold::{MetricThreshold, ThresholdStanding};
use super::report::LoadReport;
use super::validity::{RunValidity, ValidityCode, ValidityReason};

/// The highest starting rate: a rate far beyond the hub's capacity leaves a backlog that takes long to drain.
const MAX_FIRST_RATE: f64 = 500.0;
/// The search ends when the remaining interval is smaller than this share of the rate.
const SEARCH_PRECISION: f64 = 0.05;
/// The maximum number of tries: from any starting rate, twelve doublings and five bisections are enough.
const MAX_TRIES: usize = 18;
/// Completions keep up if they are at least this share of the offered rate.
const SUSTAINED_SHARE: f64 = 0.98;

/// One run of the search.
#[derive(Clone, Debug, PartialEq)]
pub struct RateTrial {
    /// Journeys due per second.
    pub rate: f64,
    /// Why the rate was not sustained; `None` if it was.
    pub failed: Option<String>,
    /// The value of the threshold's metric, formatted.
    pub observed: String,
    /// Journeys completed per second.
    pub completed: f64,
}

impl RateTrial {
    /// Judges the run of a plan at a rate: whether the goal holds, and the journeys that have a schedule keep up.
    pub fn of(rate: f64, goal: &MetricThreshold, report: &LoadReport, plan: &Plan, scheduled: &[&str]) -> Self {
        let outcome = goal.evaluate(report.measurements());
        let pace = JourneyRates::measure(&report.layout, &report.total, plan, scheduled);
        // The response time includes the send delay: if it holds the threshold, the hub's share does too.
        let holds = outcome.standing == ThresholdStanding::Holds;
        let ours = |reason: &&ValidityReason| {
            reason.validity == RunValidity::Invalid && !(holds && reason.code == ValidityCode::SendDelay)
        };
        let failed = match outcome.standing {
            _ if let Some(reason) = report.judgement.reasons.iter().find(ours) => {
                Some(format!("this machine was the limit: {}", reason.text))
            }
            ThresholdStanding::Broken if matches!(outcome.doubt, Some(UncertaintySource::OwnDelay(_))) => {
                Some(format!("this machine was the limit: {}", outcome.format_observed_with_uncertainty()))
            }
            ThresholdStanding::Broken => Some("the threshold is broken".to_owned()),
            ThresholdStanding::NotObserved => {
                Some(format!("the threshold was not observed: {}", outcome.format_observed()))
            }
            ThresholdStanding::Holds if let Some(journey) = assumed_journey(report, scheduled) => Some(format!(
                "the hub may not have completed journeys {journey}, which continued past assumed messages"
            )),
            ThresholdStanding::Holds => shortfall_reason(&report.layout, &report.total, &report.account, pace),
        };
        Self { rate, failed, observed: outcome.format_observed(), completed: pace.completed }
    }
}

/// The state of the search, which decides the next rate.
#[derive(Clone, Debug)]
pub struct RateSearch {
    first: f64,
    pub tries: Vec<RateTrial>,
}

impl RateSearch {
    /// Starts at this rate (above 0), at most [`MAX_FIRST_RATE`].
    pub fn new(first: f64) -> Self {
        Self { first: first.min(MAX_FIRST_RATE), tries: Vec::new() }
    }

    /// Returns the try with the highest sustained rate.
    pub fn highest_sustained(&self) -> Option<&RateTrial> {
        let sustained = self.tries.iter().filter(|one| one.failed.is_none());
        sustained.max_by(|one, other| one.rate.total_cmp(&other.rate))
    }

    /// Returns the rate to try next; `None` when the search is over.
    pub fn next_rate(&self) -> Option<f64> {
        if self.tries.len() >= MAX_TRIES {
            return None;
        }
        let low = self.highest_sustained().map(|one| one.rate);
        let failed = self.tries.iter().filter(|one| one.failed.is_some()).map(|one| one.rate);
        // A failure below a sustained rate happened by chance and is not a bound.
        let high = failed.filter(|rate| low.is_none_or(|low| *rate > low)).reduce(f64::min);
        match (low, high) {
            (None, None) => Some(self.first),
            (Some(low), None) => Some(low * 2.0),
            (None, Some(high)) if high < self.first / 1000.0 => None,
            (None, Some(high)) => Some(high / 2.0),
            (Some(low), Some(high)) if (high - low) / low < SEARCH_PRECISION => None,
            (Some(low), Some(high)) => Some(round_rate(f64::midpoint(low, high))),
        }
    }

    /// Formats the tries and the result.
    pub fn summary(&self, threshold: &str) -> String {
        let mut text = format!("Search for the highest rate with {threshold}\n");
        for one in &self.tries {
            let verdict =
                one.failed.as_ref().map_or_else(|| "sustained".to_owned(), |why| format!("not sustained: {why}"));
            let _ = writeln!(
                text,
                "  {:>9.1}/s  completed {:>9.1}/s  {:>10}  {verdict}",
                one.rate, one.completed, one.observed
            );
        }
        match self.highest_sustained() {
            Some(best) => {
                let bound = self.tries.iter().filter(|one| one.failed.is_some() && one.rate > best.rate);
                let bound = bound.map(|one| one.rate).reduce(f64::min);
                let bound = bound.map_or_else(String::new, |rate| format!("; {rate:.1}/s was not sustained"));
                let _ = writeln!(text, "Highest sustained rate: {:.1}/s{bound}", best.rate);
            }
            None => text.push_str("No rate was sustained.\n"),
        }
        text
    }
}

/// Rounds a rate of three digits or more to a whole number.
fn round_rate(rate: f64) -> f64 {
    if rate >= 100.0 { rate.round() } else { rate }
}

/// Journeys per second of the measured time.
#[derive(Clone, Copy, Debug)]
pub struct JourneyRates {
    /// The average rate of the plan's schedule.
    pub offered: f64,
    /// Journeys started; with Poisson arrivals this differs from the offered average.
    pub begun: f64,
    pub completed: f64,
    /// The length of the measured time.
    pub seconds: f64,
}

/// The accepted random deviation of the number of arrivals, in standard deviations of a Poisson process.
const ACCEPTED_DEVIATIONS: f64 = 5.0;

/// Returns a scheduled journey that clients continued past a message that the hub never sent.
fn assumed_journey<'a>(report: &LoadReport, scheduled: &[&'a str]) -> Option<&'a str> {
    let assumed = |name: &&&str| {
        let journey = report.layout.names.journeys.iter().position(|known| known == **name);
        let count = |journey| report.total.count(&report.layout, CounterId::Journey(journey, JourneyCount::Assumed));
        journey.map_or(0, count) > 0
    };
    scheduled.iter().find(assumed).copied()
}

/// Returns why a run did not sustain its offered load, or `None`.
fn shortfall_reason(
    layout: &MetricRegistry,
    total: &MetricTotals,
    account: &LedgerTotals,
    pace: JourneyRates,
) -> Option<String> {
    let missed = |journey| total.measured(layout, CounterId::Journey(journey, JourneyCount::Missed));
    let missed: u64 = (0..layout.names.journeys.len()).map(missed).sum();
    if missed > 0 {
        return Some(format!("{missed} journeys were due but never began"));
    }
    if account.unfinished > 0 {
        return Some(format!("{} journeys were unfinished after the drain", account.unfinished));
    }
    if !account.is_clean() {
        return Some("the ledger is not clean".to_owned());
    }
    pace.shortfall()
}

impl JourneyRates {
    /// Computes the rates of the journeys that have a schedule, listed in `scheduled`.
    pub fn measure(layout: &MetricRegistry, total: &MetricTotals, plan: &Plan, scheduled: &[&str]) -> Self {
        let rate = |count| {
            let named = layout.names.journeys.iter().enumerate().filter(|(_, name)| scheduled.contains(&name.as_str()));
            named.map(|(journey, _)| total.rate(layout, CounterId::Journey(journey, count))).sum()
        };
        let (from, time) = (plan.phases.longest_warm_up(), plan.phases.duration);
        let arrivals = plan.roles.iter().filter_map(|role| role.arrivals.as_ref());
        let due = arrivals.map(|arrivals| {
            ArrivalSchedule::expected_arrivals(arrivals, from + time)
                - ArrivalSchedule::expected_arrivals(arrivals, from)
        });
        let seconds = time.as_secs_f64().max(f64::MIN_POSITIVE);
        let (begun, completed) = (rate(JourneyCount::Started), rate(JourneyCount::Completed));
        Self { offered: due.sum::<f64>() / seconds, begun, completed, seconds }
    }

    fn shortfall(self) -> Option<String> {
        let Self { offered, begun, completed, seconds } = self;
        let chance = ACCEPTED_DEVIATIONS * (offered * seconds).sqrt() / seconds;
        if begun < offered * SUSTAINED_SHARE - chance {
            return Some(format!("only {begun:.1}/s of {offered:.1}/s were started"));
        }
        (completed < begun * SUSTAINED_SHARE)
            .then(|| format!("completions did not keep up ({completed:.1}/s of {begun:.1}/s)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    /// Searches on a simulated hub that sustains up to `limit`.
    fn search(first: f64, limit: f64) -> RateSearch {
        let mut search = RateSearch::new(first);
        while let Some(rate) = search.next_rate() {
            let failed = (rate > limit).then(|| "too much".to_owned());
            search.tries.push(RateTrial { rate, failed, observed: "1 ms".to_owned(), completed: rate.min(limit) });
        }
        search
    }

    proptest! {
        #[test]
        fn the_search_finds_the_highest_rate_within_a_few_percent(first in 1.0..2000.0_f64, limit in 10.0..20_000.0_f64) {
            let first = first.min(MAX_FIRST_RATE);
            prop_assume!(limit < first * 2000.0 && limit > first / 500.0);
            let search = search(first, limit);
            let found = search.highest_sustained().map_or(0.0, |one| one.rate);
            prop_assert!(found <= limit && found > limit * 0.93, "{}", search.summary("x"));
        }
    }

    #[rstest]
    #[case::all(1000.0, 1000.0, None)]
    #[case::fewer_by_chance(960.0, 958.0, None)]
    #[case::too_few_to_be_chance(900.0, 900.0, Some("only 900.0/s of 1000.0/s were started"))]
    #[case::behind(960.0, 930.0, Some("completions did not keep up (930.0/s of 960.0/s)"))]
    fn a_rate_is_sustained_if_completions_keep_up_with_arrivals(
        #[case] begun: f64,
        #[case] completed: f64,
        #[case] why: Option<&str>,
    ) {
        let pace = JourneyRates { offered: 1000.0, begun, completed, seconds: 10.0 };
        assert_eq!(pace.shortfall().as_deref(), why);
    }

    #[test]
    fn the_search_ends_for_a_hub_that_sustains_no_rate() {
        let search = search(100.0, 0.0);
        assert!(search.highest_sustained().is_none() && search.tries.len() <= MAX_TRIES);
        assert!(search.summary("x").ends_with("No rate was sustained.\n"));
    }

    #[test]
    fn the_search_shows_the_highest_sustained_rate_and_the_one_that_failed() {
        let shown = search(100.0, 330.0).summary("a < 5ms");
        assert!(shown.starts_with("Search for the highest rate with a < 5ms\n"), "{shown}");
        assert!(shown.contains("not sustained: too much"), "{shown}");
        assert!(
            shown.contains("Highest sustained rate: 325.0/s; 338.0/s was not") || shown.contains("/s was not"),
            "{shown}"
        );
    }
}
