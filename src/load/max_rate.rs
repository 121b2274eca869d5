//! The search for the highest rate that a hub sustains: doubles until it does not, then halves what lies between.

use std::fmt::Write as _;

use super::ledger::Totals;
use super::metrics::{Count, JourneyCount, MetricRegistry, RunCount, Total};
use super::plan::Plan;
use super::plan::schedule::Schedule;

/// A search begins no higher than this: a rate far beyond what a hub carries leaves it with work that takes long to end.
const FIRST: f64 = 500.0;
/// The search ends when what lies between is smaller than this share of the rate.
const CLOSE: f64 = 0.05;
/// More tries are not made: from any beginning, twelve doublings and five halvings lead a long way.
const MOST: usize = 18;
/// Completions keep up if they are at least this share of what was offered.
const KEPT_UP: f64 = 0.98;

/// One try.
#[derive(Clone, Debug, PartialEq)]
pub struct Try {
    /// Journeys that were due in a second.
    pub rate: f64,
    /// Why it was not sustained; `None`: it was.
    pub failed: Option<String>,
    /// What the threshold's metric came to, as people read it.
    pub observed: String,
    /// Journeys that came to their end in a second.
    pub completed: f64,
}

/// Decides what to try next.
#[derive(Clone, Debug)]
pub struct Search {
    first: f64,
    pub tries: Vec<Try>,
}

impl Search {
    /// Begins at this rate, which is above 0, or at [`FIRST`].
    pub fn new(first: f64) -> Self {
        Self { first: first.min(FIRST), tries: Vec::new() }
    }

    /// The highest rate that was sustained.
    pub fn found(&self) -> Option<&Try> {
        let sustained = self.tries.iter().filter(|one| one.failed.is_none());
        sustained.max_by(|one, other| one.rate.total_cmp(&other.rate))
    }

    /// The rate to try next; `None`: it is over.
    pub fn next_rate(&self) -> Option<f64> {
        if self.tries.len() >= MOST {
            return None;
        }
        let low = self.found().map(|one| one.rate);
        let failed = self.tries.iter().filter(|one| one.failed.is_some()).map(|one| one.rate);
        // A rate below one that was sustained failed by bad luck, and bounds nothing.
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

    /// The search, line by line, and what it found.
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
                let bound = bound.map_or_else(String::new, |rate| format!("; {rate:.1}/s was not"));
                let _ = writeln!(text, "The highest rate sustained: {:.1}/s{bound}", best.rate);
            }
            None => text.push_str("No rate was sustained.\n"),
        }
        text
    }
}

/// A rate that is easily said.
fn rounded(rate: f64) -> f64 {
    if rate >= 100.0 { rate.round() } else { rate }
}

/// Journeys in a second of the measured time.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// That the plan has due, on average.
    pub offered: f64,
    /// That really began: where arrivals are by chance, they are never quite as many as on average.
    pub begun: f64,
    pub completed: f64,
    /// How long the measured time is.
    pub seconds: f64,
}

/// How far chance may take the number of arrivals from their average, in standard deviations of a Poisson process.
const CHANCE: f64 = 5.0;

/// Why a run did not keep up with what it was offered, if so. `undrained` at its end.
pub fn fell_behind(
    layout: &MetricRegistry,
    total: &Total,
    account: &Totals,
    pace: Pace,
    undrained: u64,
) -> Option<String> {
    let count = |count| total.measured(layout, count);
    if count(Count::Run(RunCount::NoClient)) > 0 {
        return Some(format!("{} arrivals found no free client", count(Count::Run(RunCount::NoClient))));
    }
    if undrained > 0 {
        return Some(format!("{undrained} journeys were still under way after the drain"));
    }
    if !account.is_clean() {
        return Some("the ledger is not clean".to_owned());
    }
    pace.shortfall()
}

impl Pace {
    /// Of these journeys, which have a schedule.
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
            return Some(format!("only {begun:.1}/s of {offered:.1}/s were begun"));
        }
        (completed < begun * KEPT_UP).then(|| format!("completions did not keep up ({completed:.1}/s of {begun:.1}/s)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    /// Searches on a hub that sustains up to `limit`.
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
        fn the_limit_is_found_to_a_twentieth(first in 1.0..2000.0_f64, limit in 10.0..20_000.0_f64) {
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
    #[case::too_few_to_be_chance(900.0, 900.0, Some("only 900.0/s of 1000.0/s were begun"))]
    #[case::behind(960.0, 930.0, Some("completions did not keep up (930.0/s of 960.0/s)"))]
    fn completions_keep_up_with_what_began(#[case] begun: f64, #[case] completed: f64, #[case] why: Option<&str>) {
        let pace = Pace { offered: 1000.0, begun, completed, seconds: 10.0 };
        assert_eq!(pace.shortfall().as_deref(), why);
    }

    #[test]
    fn a_hub_that_sustains_nothing_ends_the_search() {
        let search = search(100.0, 0.0);
        assert!(search.found().is_none() && search.tries.len() <= MOST);
        assert!(search.shown("x").ends_with("No rate was sustained.\n"));
    }

    #[test]
    fn what_was_found_is_shown_with_its_bound() {
        let shown = search(100.0, 330.0).shown("a < 5ms");
        assert!(shown.starts_with("Search for the highest rate with a < 5ms\n"), "{shown}");
        assert!(shown.contains("not sustained: too much"), "{shown}");
        assert!(
            shown.contains("The highest rate sustained: 325.0/s; 338.0/s was not") || shown.contains("/s was not"),
            "{shown}"
        );
    }
}
