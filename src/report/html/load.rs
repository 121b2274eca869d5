//! The page of one load report.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::value::Value;

use super::live::LiveState;
use super::page::{PageError, Templates, format_ms, format_number, glyph, view};
use super::plots::{Plot, Plots, RateLine};
use crate::report::document::load::{LoadDocument, Range, Threshold, ThresholdStanding, Times};

/// The most metrics that have plots over time; those with the most samples come first.
const MAX_PLOTTED: usize = 8;
/// The most violations of the ledger that are listed.
const MAX_VIOLATIONS: usize = 60;
/// Kinds of violations in the ledger, which hubs must not cause.
const VIOLATIONS: &[(&str, &str)] = &[
    ("lost", "lost"),
    ("duplicated", "duplicated"),
    ("unexpected", "unexpected"),
    ("reordered", "reordered"),
    ("assigned_twice", "assigned twice"),
    ("assigned_after_cancellation", "assigned after cancellation"),
    ("wrong_worker", "reported by the wrong worker"),
    ("not_taken", "not taken"),
];
/// Other ends of items.
const ENDS: &[(&str, &str)] = &[
    ("refused", "refused"),
    ("failed", "failed"),
    ("cancelled", "cancelled"),
    ("recovered", "recovered"),
    ("open", "still open at the end"),
    ("unfinished", "unfinished"),
    ("unanswered", "unanswered"),
    ("late", "late"),
    ("unfollowed", "not followed"),
    ("assumed", "only assumed"),
];

/// Whether a metric measures the hub, not the generator.
pub fn is_of_hub(metric: &str) -> bool {
    !matches!(metric.rsplit('.').next(), Some("send_delay" | "lag" | "stall"))
}

/// Returns the metrics of the hub that have plots.
pub fn plotted_metrics(times: &BTreeMap<String, Times>) -> Vec<&str> {
    // The service time shows the same as the response time, unless the generator was late.
    let of_hub = times.iter().filter(|(name, _)| is_of_hub(name) && !name.ends_with(".service"));
    let mut metrics: Vec<(&str, u64)> = of_hub.map(|(name, times)| (name.as_str(), times.count)).collect();
    metrics.sort_by_key(|(name, count)| (!name.ends_with(".response"), std::cmp::Reverse(*count)));
    let mut plotted: Vec<&str> = Vec::new();
    for (name, _) in metrics {
        if plotted.len() < MAX_PLOTTED && !plotted.iter().any(|known| are_alike(&times[*known], &times[name])) {
            plotted.push(name);
        }
    }
    plotted
}

/// Whether two metrics show the same thing, such as a request and the journey that consists of it.
fn are_alike(one: &Times, other: &Times) -> bool {
    let close = |a: f64, b: f64| (a - b).abs() <= 0.02 * a.max(b);
    one.count == other.count
        && close(one.mean_ms, other.mean_ms)
        && close(one.p50_ms, other.p50_ms)
        && close(one.max_ms, other.max_ms)
}

/// Returns the metric and statistic of a threshold: `jobs.response` and `p99` for `jobs.response.p99 < 50ms`.
fn threshold_metric(text: &str) -> (&str, &str) {
    let name = text.split(['<', '>', '=', '!', ' ']).next().unwrap_or_default();
    match name.rsplit_once('.') {
        // Of `p99.9`, the last dot is a decimal point.
        Some((front, digits)) if digits.chars().all(|c| c.is_ascii_digit()) => {
            front.rsplit_once('.').map_or((name, ""), |(metric, _)| (metric, &name[metric.len() + 1..]))
        }
        Some(parts) => parts,
        None => (name, ""),
    }
}

/// Returns the thresholds of a metric for its plots: the bound, its text, and whether it is broken.
fn thresholds_of<'a>(document: &'a LoadDocument, metric: &str) -> Vec<(f64, &'a str, bool)> {
    let of_metric = document.thresholds.iter().filter(|threshold| threshold_metric(&threshold.text).0 == metric);
    of_metric
        .map(|threshold| (threshold.bound, threshold.text.as_str(), threshold.standing == ThresholdStanding::Broken))
        .collect()
}

/// Renders the page of a load report.
pub fn render(document: &LoadDocument) -> Result<String, PageError> {
    let templates = Templates::new()?;
    let parts = render_parts(&templates, document, None)?;
    templates.page(&parts.title, &parts.body, Some(&parts.plots))
}

/// The parts of a page that depend on its report.
pub struct PageParts {
    pub title: String,
    pub body: Value,
    /// The data of the plots.
    pub plots: serde_json::Value,
}

/// Renders what a page shows of a load report; `live` is the state of a run that has not ended.
pub fn render_parts(
    templates: &Templates,
    document: &LoadDocument,
    live: Option<&LiveState>,
) -> Result<PageParts, PageError> {
    let mut plots = Plots::default();
    let metrics = plotted_metrics(&document.times);
    let latency = plots.add(Plot::by_percentile(
        "Latency by percentile",
        metrics.iter().map(|metric| (*metric, document.times[*metric].histogram.as_str(), false)),
        metrics.iter().flat_map(|metric| thresholds_of(document, metric)).collect(),
    ));
    let over_time: Vec<_> = metrics
        .iter()
        .map(|metric| {
            let thresholds = thresholds_of(document, metric);
            let lines = plots.add(Plot::times(&format!("{metric} over time"), metric, document, thresholds.clone()));
            let heat = plots.add(Plot::heatmap(&format!("{metric}: how many samples took how long"), metric, document));
            view! { metric, plots => lines.into_iter().chain(heat).collect::<Vec<_>>() }
        })
        .collect();
    // The plot of each metric, or of the one that it equals.
    let plot_of = |name: &str| {
        let times = document.times.get(name)?;
        let place = metrics
            .iter()
            .position(|metric| *metric == name || is_of_hub(name) && are_alike(&document.times[*metric], times))?;
        over_time[place]
            .get_attr("plots")
            .ok()?
            .get_item_by_index(0)
            .ok()?
            .get_attr("id")
            .ok()
            .filter(|id| !id.is_undefined())
    };
    let throughput = throughput_plots(&mut plots, document, live);
    let joins = connection_plots(&mut plots, document);
    let generator: Vec<_> = [
        Plot::times("How late the generator was", "schedule.lag", document, Vec::new()),
        Plot::cores("Utilisation of the cores", document),
        Plot::levels("Memory of the generator", document, &["memory"], 1e6, "MB"),
    ]
    .into_iter()
    .filter_map(|plot| plots.add(plot))
    .collect();

    let title = live.map_or_else(|| title(document), |_| format!("{}: running", document.run.plan));
    let verdict = if live.is_some() { "running" } else { verdict(document.run.exit_code) };
    let body = templates.part(
        "load",
        view! {
            title, verdict, live, run => run_view(document),
            validity => &document.validity.verdict,
            reasons => document.validity.reasons,
            notes => document.validity.notes,
            thresholds => document.thresholds.iter().map(|one| {
                threshold_view(one, plot_of(threshold_metric(&one.text).0))
            }).collect::<Vec<_>>(),
            times => document.times.iter().map(|(name, times)| times_view(name, times, plot_of(name))).collect::<Vec<_>>(),
            latency, over_time, throughput, joins, generator,
            due => document.due_journeys,
            ratios => document.delivery_ratios.iter().map(|(name, ratio)| view! {
                name, percent => format!("{:.3} %", ratio * 100.0)
            }).collect::<Vec<_>>(),
            errors => errors_view(document),
            deviations => document.deviations,
            ledger => ledger(templates, document, live.is_some())?,
            counts => document.counts,
            version => &document.tool.version,
        },
    )?;
    Ok(PageParts { title, body, plots: plots.data() })
}

fn throughput_plots(plots: &mut Plots, document: &LoadDocument, live: Option<&LiveState>) -> Vec<Value> {
    let started = document.counts.keys().filter_map(|name| name.strip_suffix(".started"));
    let journeys: BTreeSet<&str> = started.chain(document.run.schedules.keys().map(String::as_str)).collect();
    let all = |ending: &'static str| -> RateLine<'_> {
        (ending[1..].to_owned(), Box::new(move |name| name.ends_with(ending)))
    };
    let begin = live.and_then(|state| state.begin_s);
    let journeys = Plot::journeys("Journeys per second, and the schedule", &journeys, document, begin);
    let messages = [all(".sent"), all(".answered"), all(".received")];
    let messages = Plot::rates("Messages per second", document, &messages);
    [journeys, messages].into_iter().filter_map(|plot| plots.add(plot)).collect()
}

/// Plots open connections and running journeys, and errors.
fn connection_plots(plots: &mut Plots, document: &LoadDocument) -> Vec<Value> {
    let counts = document.intervals.iter().flat_map(|interval| interval.counts.keys());
    let kinds: BTreeSet<&str> = counts.filter_map(|name| name.strip_prefix("errors.")).collect();
    let line = |kind: &&str| -> RateLine<'_> {
        let name = format!("errors.{kind}");
        ((*kind).to_owned(), Box::new(move |count| count == name))
    };
    let errors: Vec<RateLine<'_>> = kinds.iter().map(line).collect();
    let gauges = ["connections", "journeys"];
    let levels = Plot::levels("Open connections and running journeys", document, &gauges, 1.0, "");
    let errors = Plot::rates("Errors per second by kind", document, &errors);
    [levels, errors].into_iter().filter_map(|plot| plots.add(plot)).collect()
}

/// Returns the verdict line of a run.
pub fn title(document: &LoadDocument) -> String {
    if document.run.summary.is_empty() {
        let word = match verdict(document.run.exit_code) {
            "pass" => "PASS",
            "fail" => "FAIL",
            _ => "INCONCLUSIVE",
        };
        format!("{word} {}: the run is {}", document.run.plan, document.validity.verdict.name())
    } else {
        document.run.summary.clone()
    }
}

pub fn verdict(exit_code: u8) -> &'static str {
    match exit_code {
        0 => "pass",
        1 => "fail",
        _ => "inconclusive",
    }
}

/// Returns what a page shows about a run.
pub fn run_view(document: &LoadDocument) -> Value {
    let run = &document.run;
    let quoted: Vec<_> = run.command.iter().map(|word| crate::report::text::quote_for_shell(word)).collect();
    view! {
        plan => run.plan, title => run.title, target => run.target, started => run.started,
        duration => format_ms(run.duration_s * 1e3), measured => format_ms(run.measured_s * 1e3),
        command => quoted.join(" "), interrupted => run.interrupted, version => document.tool.version,
        facts => run.facts.iter().collect::<Vec<_>>(),
    }
}

fn threshold_view(threshold: &Threshold, plot: Option<Value>) -> Value {
    let time = matches!(threshold_metric(&threshold.text).1, "min" | "mean" | "max")
        || threshold_metric(&threshold.text).1.starts_with('p');
    let format = |value: f64| if time { format_ms(value) } else { format_number(value) };
    let mut observed = threshold.observed.map(format).unwrap_or_default();
    if let Some(range) = threshold.range {
        let high = range.high.map_or("?".to_owned(), format);
        observed.push_str(&format!(" ({} to {high})", format(range.low)));
    }
    if let Some(why) = &threshold.unobserved {
        observed.push_str(why);
    }
    let standing = if threshold.uncertain { "uncertain" } else { threshold.standing.name() };
    view! { text => threshold.text, standing, glyph => glyph(standing), observed, items => threshold.items.join(", "), plot }
}

fn times_view(name: &str, times: &Times, plot: Option<Value>) -> Value {
    let figure = |value: Option<f64>, range: Option<Range>| {
        view! {
            value => value.map_or("–".to_owned(), format_ms),
            range => value.and(range).filter(|range| range.low > 0.0).map(|range| {
                format!("{} to {}", format_ms(range.low), range.high.map_or("?".to_owned(), format_ms))
            }),
        }
    };
    let ranges = &times.ranges;
    view! {
        name, plot, count => times.count, of_hub => is_of_hub(name),
        figures => [
            figure(Some(times.mean_ms), None),
            figure(Some(times.p50_ms), Some(ranges.p50_ms)),
            figure(Some(times.p90_ms), Some(ranges.p90_ms)),
            figure(Some(times.p95_ms), Some(ranges.p95_ms)),
            figure(times.p99_ms, ranges.p99_ms),
            figure(times.p999_ms, ranges.p999_ms),
            figure(Some(times.max_ms), None),
        ],
    }
}

fn errors_view(document: &LoadDocument) -> Value {
    let kinds: Vec<_> = document
        .counts
        .iter()
        .filter_map(|(name, count)| Some((name.strip_prefix("errors.")?, count.whole_run)))
        .collect();
    view! { total => document.errors, kinds, connections => document.connections, waits => document.waits }
}

fn ledger(templates: &Templates, document: &LoadDocument, live: bool) -> Result<Value, PageError> {
    let ledger = &document.ledger;
    let count = |name: &str| ledger.counts.get(name).copied().unwrap_or(0);
    let some = |names: &'static [(&'static str, &'static str)]| -> Vec<(&str, u64)> {
        names.iter().map(|(name, words)| (*words, count(name))).filter(|(_, number)| *number > 0).collect()
    };
    let attempted = count("attempted");
    let mut flow = vec![("attempted", attempted)];
    flow.extend([("acknowledged", count("acknowledged"))].into_iter().filter(|(_, number)| *number > 0));
    flow.push(("completed", count("completed")));
    let deliveries = (count("deliveries_due"), count("delivered"));
    let violations: Vec<_> = ledger
        .violations
        .iter()
        .take(MAX_VIOLATIONS)
        .map(|violation| {
            let steps: Vec<_> = violation
                .history
                .iter()
                .map(|step| view! { at => format!("{:.3} s", step.at_s), what => step.what, party => step.party })
                .collect();
            let words = VIOLATIONS.iter().find(|(kind, _)| *kind == violation.kind).map(|(_, words)| *words);
            view! {
                kind => words.unwrap_or(&violation.kind), at => format!("{:.3} s", violation.at_s), item => violation.item,
                steps, omitted => violation.omitted, missed => violation.missed,
            }
        })
        .collect();
    templates.part(
        "ledger",
        view! {
            flow, deliveries, live, ends => some(ENDS), violated => some(VIOLATIONS), violations,
            more => ledger.violations.len().saturating_sub(MAX_VIOLATIONS),
            assumed => ledger.assumed.iter().collect::<Vec<_>>(),
        },
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// A journey of one request takes as long as the request; the page links both to one plot.
    #[test]
    fn equal_metrics_have_one_plot_to_which_thresholds_and_times_link() {
        let report = include_str!("../../../tests/fixtures/reports/load.json");
        let mut document: LoadDocument = serde_json::from_str(report).unwrap();
        let name = plotted_metrics(&document.times)[0].to_owned();
        let threshold = format!("{name}.p99 < 1s");
        let threshold = serde_json::json!({
            "text": threshold, "standing": "holds", "observed": 1.0, "bound": 1000.0, "supported": true, "aborted": false,
        });
        document.thresholds.push(serde_json::from_value(threshold).unwrap());
        let alike: Times = serde_json::from_value(serde_json::to_value(&document.times[&name]).unwrap()).unwrap();
        document.times.insert("other.response".to_owned(), alike);
        assert_eq!(
            plotted_metrics(&document.times)
                .iter()
                .filter(|one| [name.as_str(), "other.response"].contains(one))
                .count(),
            1
        );
        let page = render(&document).unwrap();
        let figure = |text: &str| {
            let (before, _) = page.split_once(text).unwrap_or_else(|| panic!("{text}: {page}"));
            before.rsplit_once("href=\"#").unwrap().1.split('"').next().unwrap().to_owned()
        };
        let links = [figure(">other.response</a>"), figure(&format!(">{name}</a>")), figure("p99 &lt; 1s</code></a>")];
        assert_eq!(links[0], links[1]);
        assert_eq!(links[0], links[2]);
        assert!(page.contains(&format!("id=\"{}\"", links[0])), "{}", links[0]);
    }

    #[rstest]
    #[case("submit_job.response.p99 < 50ms", "submit_job.response", "p99")]
    #[case("submit_job.response.p99.9<50ms", "submit_job.response", "p99.9")]
    #[case("ledger.lost == 0", "ledger", "lost")]
    #[case("jobs.completed.rate >= 3", "jobs.completed", "rate")]
    fn the_metric_of_a_threshold_is_found(#[case] text: &str, #[case] metric: &str, #[case] statistic: &str) {
        assert_eq!(threshold_metric(text), (metric, statistic));
    }
}
