//! The search for the highest rate that a hub sustains: doubles the rate until it is not sustained, then bisects.

use std::fmt::Write as _;

use super::ledger::Totals;
use super::metrics::{Count, JourneyCount, MetricRegistry, RunCount, Total};
use super::plan::Plan;
use super::plan::schedule::Schedule;
use super::plan::threshold::{Standing, Threshold};
use super::report::LoadReport;
use super::validity::{Reason, Validity};

/// The highest starting rate: a rate far beyond the hub's capacity leaves a backlog that takes long to drain.
const FIRST: f64 = 500.0;
/// The search ends when the remaining interval is smaller than this share of the rate.
const CLOSE: f64 = 0.05;
/// The maximum number of tries: from any starting rate, twelve doublings and five bisections are enough.
const MOST: usize = 18;
/// Completions keep up if they are at least this share of the offered rate.
const KEPT_UP: f64 = 0.98;

/// One run of the search.
#[derive(Clone, Debug, PartialEq)]
pub struct Try {
    /// Journeys due per second.
    pub rate: f64,
    /// Why the rate was not sustained; `None` if it was.
    pub failed: Option<String>,
    /// The value of the threshold's metric, formatted.
    pub observed: String,
    /// Journeys completed per second.
    pub completed: f64,
}

impl Try {
    /// Judges the run of a plan at a rate: whether the goal holds, and the journeys that have a schedule keep up.
    pub fn of(rate: f64, goal: &Threshold, report: &LoadReport, plan: &Plan, scheduled: &[&str]) -> Self {
        let outcome = goal.check(report.state());
        let pace = Pace::of(&report.layout, &report.total, plan, scheduled);
        // The response time includes the send delay: if it holds the threshold, the hub's share does too.
        let holds = outcome.standing == Standing::Holds;
        let ours = |reason: &&Reason| reason.validity == Validity::Invalid && !(holds && reason.code == "send-delay");
        let failed = match outcome.standing {
            _ if let Some(reason) = report.judgement.reasons.iter().find(ours) => {
                Some(format!("this machine was the limit: {}", reason.text))
            }
            Standing::Broken if outcome.uncertain => {
                Some(format!("this machine was the limit: {}", outcome.explained()))
            }
            Standing::Broken => Some("the threshold is broken".to_owned()),
            Standing::NotObserved => Some(format!("the threshold was not observed: {}", outcome.shown())),
            Standing::Holds => fell_behind(&report.layout, &report.total, &report.account, pace),
        };
        Self { rate, failed, observed: outcome.shown(), completed: pace.completed }
    }
}

/// The state of the search, which decides the next rate.
#[derive(Clone, Debug)]
pub struct Search {
    first: f64,
    pub tries: Vec<Try>,
}

impl Search {
    /// Starts at this rate (above 0), at most [`FIRST`].
    pub fn new(first: f64) -> Self {
        Self { first: first.min(FIRST), tries: Vec::new() }
    }

    /// Returns the try with the highest sustained rate.
    pub fn found(&self) -> Option<&Try> {
        let sustained = self.tries.iter().filter(|one| one.failed.is_none());
        sustained.max_by(|one, other| one.rate.total_cmp(&other.rate))
    }

    /// Returns the rate to try next; `None` when the search is over.
    pub fn next_rate(&self) -> Option<f64> {
        if self.tries.len() >= MOST {
            return None;
        }
        let low = self.found().map(|one| one.rate);
        let failed = self.tries.iter().filter(|one| one.failed.is_some()).map(|one| one.rate);
        // A failure below a sustained rate happened by chance and is not a bound.
        let high = failed.filter(|rate| low.is_none_or(|low| *rate > low)).reduce(f64::min);
        match (low, high) {
            (None, None) => Some(self.first),
            (Some(low), None) => Some(low * 2.0),
            (None, Some(high)) if high < self.first / 1000.0 => None,
            (None, Some(high)) => Some(high / 2.0),
            (Some(low), Some(high)) if (high - low) / low < CLOSE => None,
            (Some(low), Some(high)) => Some(rounded(f64::midpoint(low, high))),
        }
    }

    /// Formats the tries and the result.
    pub fn shown(&self, threshold: &str) -> String {
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
        match self.found() {
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
fn rounded(rate: f64) -> f64 {
    if rate >= 100.0 { rate.round() } else { rate }
}

/// Journeys per second of the measured time.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The average rate of the plan's schedule.
    pub offered: f64,
    /// Journeys started; with Poisson arrivals this differs from the offered average.
    pub begun: f64,
    pub completed: f64,
    /// The length of the measured time.
    pub seconds: f64,
}

/// The accepted random deviation of the number of arrivals, in standard deviations of a Poisson process.
const CHANCE: f64 = 5.0;

/// Returns why a run did not sustain its offered load, or `None`.
fn fell_behind(layout: &MetricRegistry, total: &Total, account: &Totals, pace: Pace) -> Option<String> {
    let count = |count| total.measured(layout, count);
    if count(Count::Run(RunCount::NoClient)) > 0 {
        return Some(format!("{} arrivals found no free client", count(Count::Run(RunCount::NoClient))));
    }
    if account.unfinished > 0 {
        return Some(format!("{} journeys were unfinished after the drain", account.unfinished));
    }
    if !account.is_clean() {
        return Some("the ledger is not clean".to_owned());
    }
    pace.shortfall()
}

impl Pace {
    /// Computes the rates of the journeys that have a schedule, listed in `scheduled`.
    pub fn of(layout: &MetricRegistry, total: &Total, plan: &Plan, scheduled: &[&str]) -> Self {
        let rate = |count| {
            let named = layout.names.journeys.iter().enumerate().filter(|(_, name)| scheduled.contains(&name.as_str()));
            named.map(|(journey, _)| total.rate(layout, Count::Journey(journey, count))).sum()
        };
        let (from, time) = (plan.phases.warm_up, plan.phases.duration);
        let arrivals = plan.roles.iter().filter_map(|role| role.arrivals.as_ref());
        let due = arrivals.map(|arrivals| Schedule::offered(arrivals, from + time) - Schedule::offered(arrivals, from));
        let seconds = time.as_secs_f64().max(f64::MIN_POSITIVE);
        let (begun, completed) = (rate(JourneyCount::Started), rate(JourneyCount::Completed));
        Self { offered: due.sum::<f64>() / seconds, begun, completed, seconds }
    }

    fn shortfall(self) -> Option<String> {
        let Self { offered, begun, completed, seconds } = self;
        let chance = CHANCE * (offered * seconds).sqrt() / seconds;
        if begun < offered * KEPT_UP - chance {
            return Some(format!("only {begun:.1}/s of {offered:.1}/s were started"));
        }
        (completed < begun * KEPT_UP).then(|| format!("completions did not keep up ({completed:.1}/s of {begun:.1}/s)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    /// Searches on a simulated hub that sustains up to `limit`.
    fn search(first: f64, limit: f64) -> Search {
        let mut search = Search::new(first);
        while let Some(rate) = search.next_rate() {
            let failed = (rate > limit).then(|| "too much".to_owned());
            search.tries.push(Try { rate, failed, observed: "1 ms".to_owned(), completed: rate.min(limit) });
        }
        search
    }

    proptest! {
        #[test]
        fn the_search_finds_the_highest_rate_to_a_few_percent(first in 1.0..2000.0_f64, limit in 10.0..20_000.0_f64) {
            let first = first.min(FIRST);
            prop_assume!(limit < first * 2000.0 && limit > first / 500.0);
            let search = search(first, limit);
            let found = search.found().map_or(0.0, |one| one.rate);
            prop_assert!(found <= limit && found > limit * 0.93, "{}", search.shown("x"));
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
        let pace = Pace { offered: 1000.0, begun, completed, seconds: 10.0 };
        assert_eq!(pace.shortfall().as_deref(), why);
    }

    #[test]
    fn the_search_ends_for_a_hub_that_sustains_no_rate() {
        let search = search(100.0, 0.0);
        assert!(search.found().is_none() && search.tries.len() <= MOST);
        assert!(search.shown("x").ends_with("No rate was sustained.\n"));
    }

    #[test]
    fn the_search_shows_the_highest_sustained_rate_and_the_one_that_failed() {
        let shown = search(100.0, 330.0).shown("a < 5ms");
        assert!(shown.starts_with("Search for the highest rate with a < 5ms\n"), "{shown}");
        assert!(shown.contains("not sustained: too much"), "{shown}");
        assert!(
            shown.contains("Highest sustained rate: 325.0/s; 338.0/s was not") || shown.contains("/s was not"),
            "{shown}"
        );
    }
}
