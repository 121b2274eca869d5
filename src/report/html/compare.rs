//! The page that compares two load reports.

use minijinja::value::Value;

use super::load::{plotted_metrics, run_view, title, verdict};
use super::page::{PageError, Templates, format_ms, format_number, view};
use super::plots::{Plot, Plots};
use crate::report::document::comparison::{BetterDirection, LoadComparison, MetricDifference, MetricKind};
use crate::report::document::load::LoadDocument;
use crate::report::text::format_count;

/// Returns what a difference means, and the class with which it is shown.
fn conclusion(of: &MetricDifference) -> (&'static str, &'static str) {
    let significant = of.is_significant();
    let worse = match of.better {
        BetterDirection::Lower => Some(of.b > of.a),
        BetterDirection::Higher => Some(of.b < of.a),
        BetterDirection::Neither => None,
    };
    match worse {
        _ if of.undecided.is_some() => ("undecided", "inconclusive"),
        _ if of.regression => ("regression", "fail"),
        Some(true) if significant => ("worse", "warn"),
        Some(false) if significant => ("better", "pass"),
        None if significant => ("different", "info"),
        _ if of.kind == MetricKind::Count && of.a != of.b => ("different", "info"),
        _ if of.interval.is_none() && of.kind != MetricKind::Count => ("unknown", "inconclusive"),
        _ => ("no difference shown", "none"),
    }
}

fn format_value(value: f64, kind: MetricKind) -> String {
    match kind {
        MetricKind::Time => format_ms(value),
        MetricKind::PerSecond => format!("{}/s", format_number(value)),
        MetricKind::Count => format_number(value),
    }
}

/// The width of a drawn confidence interval. Its middle stands for no change.
const INTERVAL_WIDTH: f64 = 160.0;

/// Renders the comparison of two reports, each with its name.
pub fn render(
    a: &(String, LoadDocument),
    b: &(String, LoadDocument),
    compared: &LoadComparison,
) -> Result<String, PageError> {
    let templates = Templates::new()?;
    let mut plots = Plots::default();
    let both = [("A", &a.1), ("B", &b.1)];
    let plotted = metric_plots(&mut plots, &both);
    let others: Vec<_> = [
        Plot::rates_of_both("Completed journeys per second", ".completed", &both),
        Plot::rates_of_both("Messages sent per second", ".sent", &both),
        Plot::times_of_both("How late the generators were: p50 and p99", "schedule.lag", &both),
    ]
    .into_iter()
    .filter_map(|plot| plots.add(plot))
    .collect();
    // The scale of all drawings: large changes are cut.
    let largest = compared
        .differences
        .iter()
        .filter_map(|one| one.interval)
        .map(|(low, high)| low.abs().max(high.abs()))
        .filter(|change| change.is_finite())
        .fold(0.05, f64::max)
        .min(1.0);
    let place = |change: f64| {
        format!("{:.1}", (change / largest).clamp(-1.0, 1.0).mul_add(INTERVAL_WIDTH / 2.0 - 4.0, INTERVAL_WIDTH / 2.0))
    };
    let differences: Vec<_> = compared
        .differences
        .iter()
        .map(|one| {
            let (conclusion, class) = conclusion(one);
            view! {
                metric => one.metric, a => format_value(one.a, one.kind), b => format_value(one.b, one.kind),
                change => one.change.map_or(if one.b > 0.0 { "new".to_owned() } else { String::new() }, format_share),
                interval => one.interval.map(|(low, high)| view! {
                    text => format!("{} to {}", format_share(low), format_share(high)),
                    low => place(low), high => place(high), middle => place(one.change.unwrap_or(0.0)),
                }),
                conclusion, class, undecided => one.undecided,
            }
        })
        .collect();
    let count = |class: &str| compared.differences.iter().filter(|one| conclusion(one).1 == class).count();
    let (regressions, worse, better) = (count("fail"), count("warn"), count("pass"));
    let heading = format!("{}: B compared with A", describe_counts(regressions, worse, better));
    let run = |label: &str, (name, document): &(String, LoadDocument)| {
        view! {
            label, name, title => title(document), verdict => verdict(document.run.exit_code), run => run_view(document),
            validity => document.validity.verdict,
        }
    };
    let body = templates.part(
        "compare",
        view! {
            heading, verdict => if regressions > 0 { "fail" } else if worse > 0 { "warn" } else { "pass" },
            runs => [run("A", a), run("B", b)], notes => compared.notes, differences, plotted, others,
            scale => format_share(largest), middle => place(0.0), width => INTERVAL_WIDTH, version => b.1.tool.version,
        },
    )?;
    templates.page(&heading, &body, Some(&plots.data()))
}

/// Plots each metric that both runs have.
fn metric_plots(plots: &mut Plots, both: &[(&str, &LoadDocument); 2]) -> Vec<Value> {
    let [(_, a), (_, b)] = both;
    let metrics = plotted_metrics(&a.times).into_iter().filter(|metric| b.times.contains_key(*metric));
    let plot = |metric: &str| {
        let histograms =
            both.iter().map(|(run, document)| (*run, document.times[metric].histogram.as_str(), *run == "B"));
        let percentiles = plots.add(Plot::by_percentile(&format!("{metric} by percentile"), histograms, Vec::new()));
        let over_time =
            plots.add(Plot::times_of_both(&format!("{metric}: p50 and p99 over the measured time"), metric, both));
        view! { metric, plots => percentiles.into_iter().chain(over_time).collect::<Vec<_>>() }
    };
    metrics.map(plot).collect()
}

fn describe_counts(regressions: usize, worse: usize, better: usize) -> String {
    match (regressions, worse, better) {
        (0, 0, 0) => "No significant difference".to_owned(),
        (0, _, _) => format!("{} worse, {better} better", format_count(worse, "metric")),
        _ => {
            let (regressions, metrics) = (format_count(regressions, "regression"), format_count(worse, "other metric"));
            format!("{regressions}, {metrics} worse, {better} better")
        }
    }
}

fn format_share(share: f64) -> String {
    let sign = if share < 0.0 { "−" } else { "+" };
    format!("{sign}{:.1} %", share.abs() * 100.0)
}
