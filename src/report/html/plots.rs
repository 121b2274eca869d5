//! The data of plots, which uPlot draws, and a text for readers who cannot see them.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use minijinja::value::Value;
use serde_json::json;

use super::page::{Anchors, format_ms, format_number, view, visible};
use crate::report::document::load::{Interval, LoadDocument, RunPhase};

/// The most points of a line over time; more intervals are merged.
const MAX_POINTS: usize = 600;
/// The most columns of a heatmap.
const MAX_COLUMNS: usize = 180;
/// The number of rows of a heatmap for a factor of ten.
const ROWS_PER_DECADE: f64 = 8.0;

/// All plots of a page.
#[derive(Default)]
pub struct Plots {
    all: Vec<serde_json::Value>,
    /// The ids of plots, which follow from their titles.
    ids: Anchors,
}

/// A plot that has something to show.
pub struct Plot {
    title: String,
    /// What the plot shows, in words.
    words: String,
    data: serde_json::Value,
}

struct Line {
    label: String,
    values: Vec<Option<f64>>,
    /// The index of its color.
    color: usize,
    dashed: bool,
    /// Whether it changes in steps, such as a schedule.
    thin: bool,
}

/// The label of a line, and whether a count belongs to it.
pub type RateLine<'a> = (String, Box<dyn Fn(&str) -> bool + 'a>);

type Thresholds<'a> = Vec<(f64, &'a str, bool)>;

impl Plots {
    /// Adds a plot. Returns what its template needs.
    pub fn add(&mut self, plot: Option<Plot>) -> Option<Value> {
        let mut plot = plot?;
        let id = self.ids.element(&format!("plot-{}", plot.title));
        plot.data["id"] = json!(id);
        self.all.push(plot.data);
        Some(view! { id, title => plot.title, words => plot.words })
    }

    /// Returns the data for the page's script.
    pub fn data(self) -> serde_json::Value {
        serde_json::Value::Array(self.all)
    }
}

impl Plot {
    /// Plots times by percentile: for each series a label, a histogram, and whether its line is dashed.
    pub fn by_percentile<'a>(
        title: &str,
        series: impl Iterator<Item = (&'a str, &'a str, bool)>,
        thresholds: Thresholds<'_>,
    ) -> Option<Self> {
        let histograms: Vec<(&str, Histogram<u64>, bool)> = series
            .filter_map(|(label, histogram, dashed)| Some((label, decode(histogram)?, dashed)))
            .filter(|(_, histogram, _)| !histogram.is_empty())
            .collect();
        let most = histograms.iter().map(|(_, histogram, _)| histogram.len()).max()?;
        // x is the number of nines: 0 is the minimum, 1 is p90, 2 is p99.
        let steps = ((most as f64).log10() * 20.0).ceil() as usize;
        let x: Vec<f64> = (0..=steps.clamp(20, 200)).map(|step| step as f64 / 20.0).collect();
        let lines = histograms
            .iter()
            .enumerate()
            .map(|(color, (label, histogram, dashed))| Line {
                label: (*label).to_owned(),
                values: x
                    .iter()
                    .map(|nines| {
                        let beyond = 10f64.powf(-nines);
                        (histogram.len() as f64 * beyond >= 1.0)
                            .then(|| histogram.value_at_quantile(1.0 - beyond) as f64 / 1e6)
                    })
                    .collect(),
                color,
                dashed: *dashed,
                thin: false,
            })
            .collect();
        let words = histograms.iter().map(|(label, histogram, _)| {
            let at = |quantile| format_ms(histogram.value_at_quantile(quantile) as f64 / 1e6);
            format!(
                "{label}: median {}, p99 {}, longest {}",
                at(0.5),
                at(0.99),
                format_ms(histogram.max() as f64 / 1e6)
            )
        });
        let words = words.collect::<Vec<_>>().join("; ");
        Some(Self::new(title, &words, "nines", "ms", true, &x, lines, Vec::new(), thresholds))
    }

    /// Plots the median, p99 and longest time of a metric in each interval.
    pub fn times(title: &str, metric: &str, document: &LoadDocument, thresholds: Thresholds<'_>) -> Option<Self> {
        let bins = Bins::new(&document.intervals);
        let figures = bins.figures(metric);
        figures.iter().flatten().next()?;
        let line = |label: &str, color, of: fn(&[f64; 3]) -> f64| Line {
            label: label.to_owned(),
            values: figures.iter().map(|figures| figures.as_ref().map(of)).collect(),
            color,
            dashed: false,
            thin: label == "longest",
        };
        let lines = vec![line("median", 0, |f| f[0]), line("p99", 1, |f| f[1]), line("longest", 5, |f| f[2])];
        let words = describe_lines(&lines, &bins.middle(), format_ms);
        Some(Self::new(title, &words, "s", "ms", true, &bins.middle(), lines, bins.phases(), thresholds))
    }

    /// Plots the number of samples by time and duration.
    pub fn heatmap(title: &str, metric: &str, document: &LoadDocument) -> Option<Self> {
        let bins = Bins::with(&document.intervals, MAX_COLUMNS);
        let mut cells: BTreeMap<(usize, i64), u64> = BTreeMap::new();
        for (column, group) in bins.groups.iter().enumerate() {
            for interval in group {
                let Some(histogram) = interval.times.get(metric).and_then(|times| decode(&times.histogram)) else {
                    continue;
                };
                for value in histogram.iter_recorded() {
                    let ms = (value.value_iterated_to() as f64 / 1e6).max(1e-6);
                    let row = (ms.log10() * ROWS_PER_DECADE).floor() as i64;
                    *cells.entry((column, row)).or_default() += value.count_since_last_iteration();
                }
            }
        }
        let lowest = cells.keys().map(|(_, row)| *row).min()?;
        let highest = cells.keys().map(|(_, row)| *row).max()?;
        let (fullest, most) = cells.iter().max_by_key(|(_, count)| **count)?;
        let ms = |row: i64| 10f64.powf(row as f64 / ROWS_PER_DECADE);
        let words = format!(
            "samples from {} to {}; most, {most}, of {} to {} in one interval",
            format_ms(ms(lowest)),
            format_ms(ms(highest + 1)),
            format_ms(ms(fullest.1)),
            format_ms(ms(fullest.1 + 1)),
        );
        let cells: Vec<[i64; 3]> = cells
            .iter()
            .map(|((column, row), count)| [*column as i64, *row, i64::try_from(*count).unwrap_or(i64::MAX)])
            .collect();
        let edges: Vec<f64> = bins.edges().into_iter().map(round).collect();
        // A row begins at 10^(row / rows per decade) milliseconds.
        let data = json!({
            "kind": "heat", "title": visible(title), "x": edges, "xUnit": "s", "rows": [lowest, highest],
            "rowsPerDecade": ROWS_PER_DECADE, "cells": cells, "most": most, "phases": phases_json(&bins.phases()),
        });
        Some(Self { title: title.to_owned(), words, data })
    }

    /// Plots rates: for each line a label, and which counts belong to it.
    pub fn rates(title: &str, document: &LoadDocument, lines: &[RateLine<'_>]) -> Option<Self> {
        let bins = Bins::new(&document.intervals);
        let lines: Vec<Line> = lines
            .iter()
            .enumerate()
            .map(|(color, (label, is_of))| bins.rate(label, color, false, is_of))
            .filter(|line| line.values.iter().flatten().any(|rate| *rate > 0.0))
            .collect();
        Self::of_rates(title, &bins, lines)
    }

    /// Plots the journeys that started and completed, with their schedules.
    /// `begin` is the beginning of the warm-up in seconds, if it is known before the measured time begins.
    pub fn journeys(
        title: &str,
        journeys: &BTreeSet<&str>,
        document: &LoadDocument,
        begin: Option<f64>,
    ) -> Option<Self> {
        let bins = Bins::new(&document.intervals);
        let x = bins.middle();
        let measured = document.intervals.iter().find(|interval| interval.phase == RunPhase::Measured);
        // The schedule waits during a hold.
        let plan_time = |at: f64| {
            let held = document.run.holds.iter().map(|hold| (at.min(hold.to_s) - hold.from_s).max(0.0));
            at - held.sum::<f64>()
        };
        let is_held = |at: f64| document.run.holds.iter().any(|hold| (hold.from_s..hold.to_s).contains(&at));
        let begin = begin.or_else(|| Some(plan_time(measured?.from_s) - document.run.warm_up_s));
        let begin = begin.unwrap_or(0.0);
        let mut lines = Vec::new();
        for (color, journey) in journeys.iter().take(6).enumerate() {
            for (what, dashed) in [("started", false), ("completed", true)] {
                let name = format!("{journey}.{what}");
                let line = bins.rate(&format!("{journey} {what}"), color, dashed, &|count| count == name);
                lines.push(line);
            }
            if let Some(stages) = document.run.schedules.get(*journey) {
                let due = |at: f64| {
                    if is_held(at) {
                        return Some(0.0);
                    }
                    let at = plan_time(at);
                    let stage = stages.iter().find(|stage| (stage.from_s..stage.to_s).contains(&(at - begin)))?;
                    let share = (at - begin - stage.from_s) / (stage.to_s - stage.from_s).max(f64::MIN_POSITIVE);
                    Some(stage.from_per_second + (stage.to_per_second - stage.from_per_second) * share)
                };
                lines.push(Line {
                    label: format!("{journey} scheduled"),
                    values: x.iter().map(|at| due(*at)).collect(),
                    color: color + 3,
                    dashed: false,
                    thin: true,
                });
            }
        }
        lines.retain(|line| line.values.iter().flatten().any(|rate| *rate > 0.0));
        Self::of_rates(title, &bins, lines)
    }

    fn of_rates(title: &str, bins: &Bins<'_>, lines: Vec<Line>) -> Option<Self> {
        if lines.is_empty() {
            return None;
        }
        let words = describe_lines(&lines, &bins.middle(), |rate| format!("{}/s", format_number(rate.round())));
        Some(Self::new(title, &words, "s", "/s", false, &bins.middle(), lines, bins.phases(), Vec::new()))
    }

    /// Plots the highest values of gauges, divided by a unit.
    pub fn levels(title: &str, document: &LoadDocument, gauges: &[&str], by: f64, unit: &str) -> Option<Self> {
        let bins = Bins::new(&document.intervals);
        let line = |(color, gauge): (usize, &&str)| Line {
            label: (*gauge).to_owned(),
            values: bins
                .groups
                .iter()
                .map(|group| Some(group.iter().filter_map(|one| one.levels.get(*gauge)).copied().max()? as f64 / by))
                .collect(),
            color,
            dashed: false,
            thin: false,
        };
        let lines: Vec<Line> = gauges.iter().enumerate().map(line).collect();
        if !lines.iter().any(|line| line.values.iter().flatten().any(|value| *value > 0.0)) {
            return None;
        }
        let words = describe_lines(&lines, &bins.middle(), |value| format!("{} {unit}", format_number(value.round())));
        Some(Self::new(title, &words, "s", unit, false, &bins.middle(), lines, bins.phases(), Vec::new()))
    }

    /// Plots the utilisation of each core, in percent.
    pub fn cores(title: &str, document: &LoadDocument) -> Option<Self> {
        let bins = Bins::new(&document.intervals);
        let cores: BTreeSet<&String> = document.intervals.iter().flat_map(|interval| interval.cores.keys()).collect();
        let line = |(color, core): (usize, &&String)| Line {
            label: format!("core {core}"),
            values: bins
                .groups
                .iter()
                .map(|group| {
                    let busy = group.iter().filter_map(|one| one.cores.get(*core)).copied();
                    busy.reduce(f64::max).map(|busy| busy * 100.0)
                })
                .collect(),
            color,
            dashed: false,
            thin: false,
        };
        let lines: Vec<Line> = cores.iter().take(16).enumerate().map(line).collect();
        if lines.is_empty() {
            return None;
        }
        let words = describe_lines(&lines, &bins.middle(), |value| format!("{value:.1} %"));
        Some(Self::new(title, &words, "s", "%", false, &bins.middle(), lines, bins.phases(), Vec::new()))
    }

    /// Plots the median and p99 of a metric in two runs, over their measured times.
    pub fn times_of_both(title: &str, metric: &str, both: &[(&str, &LoadDocument)]) -> Option<Self> {
        let mut joined = JoinedRuns::default();
        for (at, (run, document)) in both.iter().enumerate() {
            let measured: Vec<&Interval> = measured(document);
            let bins = Bins::of(&measured, MAX_POINTS);
            let figures = bins.figures(metric);
            joined.add(&bins, &format!("{run} median"), 0, at == 1, figures.iter().map(|f| f.as_ref().map(|f| f[0])));
            joined.add(&bins, &format!("{run} p99"), 1, at == 1, figures.iter().map(|f| f.as_ref().map(|f| f[1])));
        }
        joined.plot(title, "ms", true, format_ms)
    }

    /// Plots the sum of the rates of all counts with an ending, in two runs.
    pub fn rates_of_both(title: &str, ending: &str, both: &[(&str, &LoadDocument)]) -> Option<Self> {
        let mut joined = JoinedRuns::default();
        for (at, (run, document)) in both.iter().enumerate() {
            let measured: Vec<&Interval> = measured(document);
            let bins = Bins::of(&measured, MAX_POINTS);
            let line = bins.rate("", 0, false, &|count| count.ends_with(ending));
            joined.add(&bins, run, at, at == 1, line.values.into_iter());
        }
        joined.plot(title, "/s", false, |rate| format!("{}/s", format_number(rate.round())))
    }

    #[expect(clippy::too_many_arguments, reason = "only called by the constructors above")]
    fn new(
        title: &str,
        words: &str,
        x_unit: &str,
        y_unit: &str,
        log: bool,
        x: &[f64],
        lines: Vec<Line>,
        phases: Vec<(f64, f64, RunPhase)>,
        thresholds: Thresholds<'_>,
    ) -> Self {
        let series: Vec<_> = lines
            .iter()
            .map(|line| {
                let values: Vec<Option<f64>> = line.values.iter().map(|value| value.map(round)).collect();
                json!({
                    "label": visible(&line.label), "color": line.color, "dashed": line.dashed, "thin": line.thin,
                    "values": values,
                })
            })
            .collect();
        let thresholds: Vec<_> = thresholds
            .iter()
            .map(|(bound, text, broken)| json!({ "value": round(*bound), "text": visible(text), "broken": broken }))
            .collect();
        let data = json!({
            "kind": "lines", "title": visible(title), "xUnit": x_unit, "yUnit": y_unit, "log": log,
            "x": x.iter().map(|x| round(*x)).collect::<Vec<_>>(), "series": series,
            "phases": phases_json(&phases), "thresholds": thresholds,
        });
        Self { title: title.to_owned(), words: words.to_owned(), data }
    }
}

fn phases_json(phases: &[(f64, f64, RunPhase)]) -> serde_json::Value {
    phases.iter().map(|(from, to, phase)| json!([round(*from), round(*to), phase])).collect()
}

fn measured(document: &LoadDocument) -> Vec<&Interval> {
    document.intervals.iter().filter(|interval| interval.phase == RunPhase::Measured).collect()
}

/// Rounds to four significant digits, which is finer than a pixel.
fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let digits = 3.0 - value.abs().log10().floor();
    let factor = 10f64.powf(digits);
    (value * factor).round() / factor
}

/// Decodes a histogram of a report; `None` if it is not one.
fn decode(histogram: &str) -> Option<Histogram<u64>> {
    let bytes = BASE64.decode(histogram).ok()?;
    Deserializer::new().deserialize(&mut bytes.as_slice()).ok()
}

/// Intervals in groups: one for each point of a plot.
struct Bins<'a> {
    groups: Vec<Vec<&'a Interval>>,
}

impl<'a> Bins<'a> {
    fn new(intervals: &'a [Interval]) -> Self {
        Self::with(intervals, MAX_POINTS)
    }

    fn with(intervals: &'a [Interval], most: usize) -> Self {
        Self::of(&intervals.iter().collect::<Vec<_>>(), most)
    }

    fn of(intervals: &[&'a Interval], most: usize) -> Self {
        let size = intervals.len().div_ceil(most).max(1);
        Self { groups: intervals.chunks(size).map(<[&Interval]>::to_vec).collect() }
    }

    /// Returns the middle of each group, in seconds.
    fn middle(&self) -> Vec<f64> {
        self.groups.iter().map(|group| f64::midpoint(group[0].from_s, group[group.len() - 1].to_s)).collect()
    }

    /// Returns the beginning of each group, and the end of the last.
    fn edges(&self) -> Vec<f64> {
        let ends = self.groups.last().map(|group| group[group.len() - 1].to_s);
        self.groups.iter().map(|group| group[0].from_s).chain(ends).collect()
    }

    /// Returns the beginning, the end and the name of each phase.
    fn phases(&self) -> Vec<(f64, f64, RunPhase)> {
        let mut phases: Vec<(f64, f64, RunPhase)> = Vec::new();
        for interval in self.groups.iter().flatten() {
            match phases.last_mut() {
                Some((_, to, phase)) if *phase == interval.phase => *to = interval.to_s,
                _ => phases.push((interval.from_s, interval.to_s, interval.phase)),
            }
        }
        phases
    }

    /// Returns the median, p99 and maximum of a metric in each group.
    fn figures(&self, metric: &str) -> Vec<Option<[f64; 3]>> {
        let one = |group: &Vec<&Interval>| {
            let times: Vec<_> = group.iter().filter_map(|interval| interval.times.get(metric)).collect();
            if let [one] = times.as_slice() {
                return Some([one.p50_ms, one.p99_ms, one.max_ms]);
            }
            let merged = times.iter().filter_map(|times| decode(&times.histogram)).reduce(|mut sum, other| {
                // Both have the same range, so that adding them cannot fail.
                let _ = sum.add(&other);
                sum
            })?;
            let at = |quantile| merged.value_at_quantile(quantile) as f64 / 1e6;
            Some([at(0.5), at(0.99), merged.max() as f64 / 1e6])
        };
        self.groups.iter().map(one).collect()
    }

    /// Returns the rate per second of all counts that belong to a line.
    fn rate(&self, label: &str, color: usize, dashed: bool, is_of: &dyn Fn(&str) -> bool) -> Line {
        let one = |group: &Vec<&Interval>| {
            let counts = group.iter().flat_map(|interval| &interval.counts);
            let sum: u64 = counts.filter(|(name, _)| is_of(name)).map(|(_, count)| *count).sum();
            let time: f64 = group.iter().map(|interval| interval.to_s - interval.from_s).sum();
            // The run's end may cut the last interval to nearly nothing.
            (time >= 0.2).then(|| sum as f64 / time)
        };
        Line { label: label.to_owned(), values: self.groups.iter().map(one).collect(), color, dashed, thin: false }
    }
}

/// Lines of two runs with a common time: seconds since the measured time began.
#[derive(Default)]
struct JoinedRuns {
    runs: Vec<(Vec<f64>, Line)>,
}

impl JoinedRuns {
    fn add(
        &mut self,
        bins: &Bins<'_>,
        label: &str,
        color: usize,
        dashed: bool,
        values: impl Iterator<Item = Option<f64>>,
    ) {
        let begin = bins.groups.first().map_or(0.0, |group| group[0].from_s);
        let x = bins.middle().into_iter().map(|at| round(at - begin)).collect();
        self.runs.push((x, Line { label: label.to_owned(), values: values.collect(), color, dashed, thin: false }));
    }

    fn plot(self, title: &str, unit: &str, log: bool, format: impl Fn(f64) -> String) -> Option<Plot> {
        let mut x: Vec<f64> = self.runs.iter().flat_map(|(x, _)| x).copied().collect();
        x.sort_by(f64::total_cmp);
        x.dedup();
        let lines: Vec<Line> = self
            .runs
            .into_iter()
            .map(|(own, line)| {
                let value = |at: &f64| own.iter().position(|own| own == at).and_then(|index| line.values[index]);
                Line { values: x.iter().map(value).collect(), ..line }
            })
            .collect();
        if !lines.iter().any(|line| line.values.iter().flatten().any(|value| *value > 0.0)) {
            return None;
        }
        let words = describe_lines(&lines, &x, format);
        Some(Plot::new(title, &words, "s", unit, log, &x, lines, Vec::new(), Vec::new()))
    }
}

/// Describes each line: its lowest and highest value, and when the highest was reached.
fn describe_lines(lines: &[Line], x: &[f64], format: impl Fn(f64) -> String) -> String {
    let one = |line: &Line| {
        let values = line.values.iter().zip(x).filter_map(|(value, at)| Some(((*value)?, *at)));
        let lowest = values.clone().map(|(value, _)| value).reduce(f64::min)?;
        let (highest, at) = values.clone().reduce(|a, b| if b.0 > a.0 { b } else { a })?;
        if values.count() == 1 {
            return Some(format!("{}: {} at {at:.0} s", line.label, format(highest)));
        }
        Some(format!("{}: {} to {}, highest at {at:.0} s", line.label, format(lowest), format(highest)))
    };
    lines.iter().filter_map(one).collect::<Vec<_>>().join("; ")
}
