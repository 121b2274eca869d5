//! Compares two runs. The difference of each metric comes with a confidence interval, computed from the runs' own
//! intervals: these are resampled in blocks, because neighbours are correlated, and each draw gives the metric of its
//! merged histograms.

mod bootstrap;
mod text;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::metrics::RunPhase;
use super::report::json::{LoadReportError, decode_histogram, is_violation};
use super::validity::RunValidity;
use crate::report::EntryStanding;
use crate::report::document::comparison::{BetterDirection, LoadComparison, MetricDifference, MetricKind};
use crate::report::document::load::{LoadDocument, Uncertainty};
use bootstrap::interval_samples;

pub use text::{REMARK_EXPLANATIONS, render};

/// Options of a comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompareOptions {
    /// The seed of the draws: the same seed gives the same confidence intervals.
    pub seed: u64,
    /// A metric that is significantly worse, and by more than this share, is a regression.
    pub fail_on_regression: Option<f64>,
}

const DECIDED_BY_OUR_DELAY: &str =
    "not worse without the generator's own delay: repeat both runs on a less busy or faster machine";
const TOO_FEW_INTERVALS: &str = "too few measured intervals to exclude chance: measure longer";

/// Returns the exit code for the comparison of these runs: 0 without a regression, 1 with one, 3 if a run is invalid or a
/// difference undecided.
pub fn exit_code(comparison: &LoadComparison, runs: [&LoadDocument; 2]) -> u8 {
    let invalid = runs.iter().any(|run| run.validity.verdict == RunValidity::Invalid);
    match (comparison.has_regression(), invalid || comparison.is_undecided()) {
        (_, true) => 3,
        (regression, false) => u8::from(regression),
    }
}

/// Percentiles that are compared if both runs have enough samples.
const COMPARED_QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];
/// Counts whose rates are compared.
const COMPARED_RATES: [(&str, BetterDirection); 6] = [
    ("sent", BetterDirection::Neither),
    ("answered", BetterDirection::Higher),
    ("received", BetterDirection::Neither),
    ("delivered", BetterDirection::Higher),
    ("completed", BetterDirection::Higher),
    ("started", BetterDirection::Neither),
];
/// The fewest measured intervals that give a confidence interval.
pub const MIN_INTERVALS: usize = 8;

/// Compares run `b` with the earlier run `a`.
///
/// # Errors
///
/// [`LoadReportError::Histogram`] if a report is corrupted.
pub fn compare(a: &LoadDocument, b: &LoadDocument, options: CompareOptions) -> Result<LoadComparison, LoadReportError> {
    let mut differences = compare_times(a, b, options)?;
    differences.extend(compare_rates(a, b, options));
    differences.extend(compare_counts(a, b, options));
    Ok(LoadComparison { differences, notes: comparison_notes(a, b) })
}

fn compare_times(
    a: &LoadDocument,
    b: &LoadDocument,
    options: CompareOptions,
) -> Result<Vec<MetricDifference>, LoadReportError> {
    let mut differences = Vec::new();
    for (name, before) in &a.times {
        let Some(after) = b.times.get(name) else { continue };
        let kind = name.rsplit('.').next().unwrap_or_default();
        // Decodes all intervals, so that a corrupted report is an error even if these samples are not compared.
        let samples = (interval_samples(a, name)?, interval_samples(b, name)?);
        let own_delays = (before.uncertainty, after.uncertainty);
        let whole = (
            decode_histogram(name, &before.histogram)?.histogram(),
            decode_histogram(name, &after.histogram)?.histogram(),
        );
        let (Some(before), Some(after)) = whole else { continue };
        let supported = |q: f64| super::metrics::selector::is_sample_sufficient(before.len().min(after.len()), q);
        let quantiles: Vec<_> = COMPARED_QUANTILES.iter().filter(|(_, q)| supported(*q)).collect();
        let quantile_values: Vec<f64> = quantiles.iter().map(|(_, q)| *q).collect();
        let intervals = bootstrap::quantile_changes(&samples.0, &samples.1, &quantile_values, options.seed);
        for (at, (word, quantile)) in quantiles.iter().enumerate() {
            let better = match kind {
                "send_delay" | "lag" | "stall" => BetterDirection::Neither,
                _ => BetterDirection::Lower,
            };
            let value =
                |histogram: &super::metrics::DenseHistogram| histogram.value_at_quantile(*quantile) as f64 / 1e6;
            let interval = intervals.as_ref().and_then(|intervals| intervals.get(at).copied());
            let metric = format!("{name}.{word}");
            let (a, b) = (value(&before), value(&after));
            let own = |of: Option<Uncertainty>| of.and_then(|own| own.percentile(word)).unwrap_or_default();
            let hub = (a - own(own_delays.0), b - own(own_delays.1));
            let mut found = difference(metric, MetricKind::Time, better, (a, b), interval, options);
            // If the hub's part alone is not worse, the generator may be the cause.
            if found.regression && !options.fail_on_regression.is_some_and(|most| hub.1 > hub.0 * (1.0 + most)) {
                (found.regression, found.undecided) = (false, Some(DECIDED_BY_OUR_DELAY));
            }
            differences.push(found);
        }
    }
    Ok(differences)
}

fn compare_rates(a: &LoadDocument, b: &LoadDocument, options: CompareOptions) -> Vec<MetricDifference> {
    let mut differences = Vec::new();
    for (name, before) in &a.counts {
        let kind = name.rsplit('.').next().unwrap_or_default();
        let Some((_, better)) = COMPARED_RATES.iter().find(|(rate, _)| *rate == kind) else { continue };
        let after = b.counts.get(name).map_or(0.0, |count| count.per_second);
        let per_second = |document: &LoadDocument| -> Vec<f64> {
            let measured = document.intervals.iter().filter(|interval| interval.phase == RunPhase::Measured);
            measured
                .map(|i| i.counts.get(name).copied().unwrap_or(0) as f64 / (i.to_s - i.from_s).max(f64::MIN_POSITIVE))
                .collect()
        };
        let interval = bootstrap::mean_change(&per_second(a), &per_second(b), options.seed);
        let metric = format!("{name}.rate");
        let values = (before.per_second, after);
        differences.push(difference(metric, MetricKind::PerSecond, *better, values, interval, options));
    }
    differences
}

/// Compares errors and ledger violations. They are not random: the first one after a run without any is a regression.
fn compare_counts(a: &LoadDocument, b: &LoadDocument, options: CompareOptions) -> Vec<MetricDifference> {
    let mut differences = Vec::new();
    let errors = ("errors.total".to_owned(), a.errors, b.errors);
    let names: BTreeSet<&String> = a.ledger.counts.keys().chain(b.ledger.counts.keys()).collect();
    let of = |document: &LoadDocument, name: &str| document.ledger.counts.get(name).copied().unwrap_or(0);
    let ledger = names
        .into_iter()
        .filter(|name| is_violation(name))
        .map(|name| (format!("ledger.{name}"), of(a, name), of(b, name)));
    for (metric, before, after) in std::iter::once(errors).chain(ledger).filter(|(_, a, b)| a + b > 0) {
        let values = (before as f64, after as f64);
        let mut found = difference(metric, MetricKind::Count, BetterDirection::Lower, values, None, options);
        found.regression = options.fail_on_regression.is_some() && before == 0 && after > 0;
        differences.push(found);
    }
    differences
}

fn difference(
    metric: String,
    kind: MetricKind,
    better: BetterDirection,
    (a, b): (f64, f64),
    interval: Option<(f64, f64)>,
    options: CompareOptions,
) -> MetricDifference {
    let change = (a > 0.0).then(|| (b - a) / a);
    let (regression, undecided) = (false, None);
    let mut difference = MetricDifference { metric, kind, better, a, b, change, interval, regression, undecided };
    let worse = match better {
        BetterDirection::Lower => change,
        BetterDirection::Higher => change.map(|change| -change),
        BetterDirection::Neither => None,
    };
    if let (Some(most), Some(worse)) = (options.fail_on_regression, worse)
        && worse > most
    {
        difference.regression = difference.is_significant();
        difference.undecided = (interval.is_none() && kind != MetricKind::Count).then_some(TOO_FEW_INTERVALS);
    }
    difference
}

fn comparison_notes(a: &LoadDocument, b: &LoadDocument) -> Vec<String> {
    let mut notes = Vec::new();
    for (name, of) in [("plan", (&a.run.plan, &b.run.plan)), ("protocol", (&a.run.protocol, &b.run.protocol))] {
        if of.0 != of.1 {
            notes.push(format!("the runs have different {name}s: {} and {}", of.0, of.1));
        }
    }
    for (which, document) in [("A", a), ("B", b)] {
        let validity = document.validity.verdict;
        if validity != RunValidity::Valid {
            let reasons: Vec<&str> = document.validity.reasons.iter().map(|reason| reason.text.as_str()).collect();
            notes.push(format!("{which} is {}: {}", validity.name(), reasons.join("; ")));
        }
        let measured = document.intervals.iter().filter(|interval| interval.phase == RunPhase::Measured).count();
        if measured < MIN_INTERVALS {
            notes.push(format!(
                "run {which} has {measured} measured intervals; confidence intervals need at least {MIN_INTERVALS}"
            ));
        }
    }
    notes.extend(deviation_notes(a, b));
    notes
}

/// Returns a note for each declared deviation: how often each run observed it.
fn deviation_notes(a: &LoadDocument, b: &LoadDocument) -> Vec<String> {
    let known: BTreeSet<&String> = a.deviations.iter().chain(&b.deviations).map(|one| &one.text).collect();
    let seen = |document: &LoadDocument, text: &String| {
        document.deviations.iter().find(|one| one.text == *text).map_or_else(
            || "not declared".to_owned(),
            |one| match one.standing {
                EntryStanding::Stale => "stale".to_owned(),
                _ => format!("{} times", one.observed),
            },
        )
    };
    known.into_iter().map(|text| format!("deviation: {text}: A {}, B {}", seen(a, text), seen(b, text))).collect()
}
