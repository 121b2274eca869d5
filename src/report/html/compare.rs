//! The page that compares two load reports.

use serde::Deserialize;

use super::load::{LoadDocument, plotted_metrics, run_view, title, verdict};
use super::page::{PageError, Templates, format_ms, format_number, view};
use super::plots::{Plot, Plots};
use crate::report::text::format_count;

/// The output of a comparison.
#[derive(Debug, Deserialize)]
pub struct Differences {
    pub differences: Vec<Difference>,
    pub notes: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub struct Difference {
    pub metric: String,
    /// `time`, `per-second` or `count`.
    pub kind: String,
    /// `lower`, `higher` or `neither`.
    pub better: String,
    pub a: f64,
    pub b: f64,
    pub change: Option<f64>,
    pub interval: Option<(f64, f64)>,
    pub regression: bool,
    pub undecided: Option<String>,
}

impl Difference {
    /// Returns what the difference means, and the class with which it is shown.
    fn conclusion(&self) -> (&'static str, &'static str) {
        let significant = self.interval.is_some_and(|(low, high)| low > 0.0 || high < 0.0);
        let worse = match self.better.as_str() {
            "lower" => Some(self.b > self.a),
            "higher" => Some(self.b < self.a),
            _ => None,
        };
        match worse {
            _ if self.undecided.is_some() => ("undecided", "inconclusive"),
            _ if self.regression => ("regression", "fail"),
            Some(true) if significant => ("worse", "warn"),
            Some(false) if significant => ("better", "pass"),
            None if significant => ("different", "info"),
            _ if self.kind == "count" && self.a != self.b => ("different", "info"),
            _ if self.interval.is_none() && self.kind != "count" => ("unknown", "inconclusive"),
            _ => ("no difference shown", "none"),
        }
    }

    fn format(&self, value: f64) -> String {
        match self.kind.as_str() {
            "time" => format_ms(value),
            "per-second" => format!("{}/s", format_number(value)),
            _ => format_number(value),
        }
    }
}

/// The width of a drawn confidence interval. Its middle stands for no change.
const INTERVAL_WIDTH: f64 = 160.0;

/// Renders the comparison of two reports, each with its name.
pub fn render(
    a: &(String, LoadDocument),
    b: &(String, LoadDocument),
    compared: &Differences,
) -> Result<String, PageError> {
    let templates = Templates::new()?;
    let mut plots = Plots::default();
    let metrics: Vec<&str> =
        plotted_metrics(&a.1.times).into_iter().filter(|metric| b.1.times.contains_key(*metric)).collect();
    let both = [("A", &a.1), ("B", &b.1)];
    let plotted: Vec<_> = metrics
        .iter()
        .map(|metric| {
            let histograms =
                both.iter().map(|(run, document)| (*run, document.times[*metric].histogram.as_str(), *run == "B"));
            let percentiles =
                plots.add(Plot::by_percentile(&format!("{metric} by percentile"), histograms, Vec::new()));
            let over_time =
                plots.add(Plot::times_of_both(&format!("{metric}: p50 and p99 over the measured time"), metric, &both));
            view! { metric, plots => percentiles.into_iter().chain(over_time).collect::<Vec<_>>() }
        })
        .collect();
    let others: Vec<_> = [
        plots.add(Plot::rates_of_both("Completed journeys per second", ".completed", &both)),
        plots.add(Plot::rates_of_both("Messages sent per second", ".sent", &both)),
        plots.add(Plot::times_of_both("How late the generators were: p50 and p99", "schedule.lag", &both)),
    ]
    .into_iter()
    .flatten()
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
            let (conclusion, class) = one.conclusion();
            view! {
                metric => one.metric, a => one.format(one.a), b => one.format(one.b),
                change => one.change.map_or(if one.b > 0.0 { "new".to_owned() } else { String::new() }, format_share),
                interval => one.interval.map(|(low, high)| view! {
                    text => format!("{} to {}", format_share(low), format_share(high)),
                    low => place(low), high => place(high), middle => place(one.change.unwrap_or(0.0)),
                }),
                conclusion, class, undecided => one.undecided,
            }
        })
        .collect();
    let count = |class: &str| compared.differences.iter().filter(|one| one.conclusion().1 == class).count();
    let (regressions, worse, better) = (count("fail"), count("warn"), count("pass"));
    let heading = match (regressions, worse, better) {
        (0, 0, 0) => "No significant difference".to_owned(),
        (0, _, _) => format!("{} worse, {better} better", format_count(worse, "metric")),
        _ => {
            let (regressions, metrics) = (format_count(regressions, "regression"), format_count(worse, "other metric"));
            format!("{regressions}, {metrics} worse, {better} better")
        }
    };
    let heading = format!("{heading}: B compared with A");
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

fn format_share(share: f64) -> String {
    let sign = if share < 0.0 { "−" } else { "+" };
    format!("{sign}{:.1} %", share.abs() * 100.0)
}
