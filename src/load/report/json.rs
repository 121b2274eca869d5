//! The JSON report, which `hubproof compare` reads. Its types are separate from those of a run; a change to them
//! changes [`FORMAT_VERSION`] and `schemas/hubproof/load-report.schema.json`. Maps have an entry for each metric with
//! samples; all other members are always present, null where they do not apply.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::terminal::mark_word;
use super::{LoadReport, WaitReport};
use crate::deviation::entry_name;
use crate::load::details::ConnectionEnd;
use crate::load::ledger::{LedgerViolationKind, NO_PARTY};
use crate::load::metrics::selector::{
    MetricUnit, Statistic, delivery_ratio, error_count, is_sample_sufficient, own_delay,
};
use crate::load::metrics::uncertainty::{FigureBounds, figure_bounds};
use crate::load::metrics::{
    CompactHistogram, DenseHistogram, Gauge, MetricInterval, MetricRegistry, RunPhase, TimingId,
};
use crate::load::plan::schedule::RateSegment;
use crate::load::plan::script::Workload;
use crate::load::plan::threshold::ThresholdStanding;
use crate::load::validity::RunValidity;
use crate::report::text::format_timestamp;
use crate::report::{self, DeviationReport};

pub const FORMAT: &str = "hubproof-load-report";
/// Incremented when a member is removed, renamed or changes its meaning; new members may be added without notice.
pub const FORMAT_VERSION: u32 = 1;

/// What one run of `hubproof load` measured.
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(title = "hubproof load report"))]
pub struct LoadReportDocument {
    /// Always `hubproof-load-report`.
    #[cfg_attr(test, schemars(extend("const" = FORMAT)))]
    pub format: String,
    /// Incremented when a member is removed, renamed or changes its meaning; new members may be added without notice.
    #[cfg_attr(test, schemars(extend("const" = FORMAT_VERSION)))]
    pub format_version: u32,
    pub tool: Tool,
    pub run: Run,
    pub validity: Validity,
    pub thresholds: Vec<Threshold>,
    /// The deviations of the hub that the target declares.
    #[serde(default)]
    pub deviations: Vec<Deviation>,
    /// Times by name, such as `submit_job.response`: the samples due in the measured time, whenever the answer came.
    pub times: BTreeMap<String, Times>,
    /// Counts by name, such as `submit_job.sent`, `jobs.completed` or `errors.timeout`; only those above 0.
    pub counts: BTreeMap<String, Counted>,
    /// The journeys that a schedule or a pace made due, by name.
    #[serde(default)]
    pub due_journeys: BTreeMap<String, DueJourneys>,
    /// Deliveries made, as a share of those due, by the name of the message that fans out.
    pub delivery_ratios: BTreeMap<String, f64>,
    /// Errors of all kinds.
    pub errors: u64,
    /// How connections ended unexpectedly, or why they were not opened; the most frequent first.
    #[serde(default)]
    pub connections: Vec<EndedConnections>,
    /// The steps at which journeys ended while they waited for a message.
    #[serde(default)]
    pub waits: Vec<Wait>,
    pub ledger: Ledger,
    /// The intervals, in order. A long run has longer intervals.
    pub intervals: Vec<Interval>,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tool {
    pub name: String,
    pub version: String,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Run {
    /// The start time: RFC 3339, UTC.
    pub started: String,
    pub duration_s: f64,
    /// The length of the measured time.
    pub measured_s: f64,
    /// The length of the warm-up before it, without holds.
    #[serde(default)]
    pub warm_up_s: f64,
    /// The times in which new journeys were held back. The schedule waited meanwhile.
    #[serde(default)]
    pub holds: Vec<Hold>,
    pub protocol: String,
    pub plan: String,
    pub title: String,
    /// The URL of the hub, or `embedded reference server`.
    pub target: String,
    /// The arguments of the command, without secrets.
    pub command: Vec<String>,
    pub seed: u64,
    /// Whether the run was interrupted.
    pub interrupted: bool,
    /// 0 every threshold holds, 1 a threshold is broken or a deviation is stale, 3 the run is not valid or was interrupted, or a threshold was not observed.
    pub exit_code: u8,
    /// The rates at which journeys were due by a schedule, by the journey's name.
    #[serde(default)]
    pub schedules: BTreeMap<String, Vec<ScheduledRate>>,
    /// The verdict line of the terminal page.
    #[serde(default)]
    pub summary: String,
    /// Further facts for the reader, by name.
    pub facts: BTreeMap<String, String>,
}

/// A time in which new journeys were held back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Hold {
    pub from_s: f64,
    pub to_s: f64,
}

/// A time over which the scheduled rate changes linearly. Times count from the beginning of the warm-up, which ends where
/// the first measured interval begins, and leave out holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ScheduledRate {
    pub from_s: f64,
    pub to_s: f64,
    pub from_per_second: f64,
    pub to_per_second: f64,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Validity {
    pub verdict: RunValidity,
    pub reasons: Vec<Reason>,
    /// Notes for the reader that change no conclusion.
    #[serde(default)]
    pub notes: Vec<Note>,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Note {
    /// A stable code for this kind of note.
    pub code: String,
    pub text: String,
}

/// The journeys of a role that were due in the whole run.
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DueJourneys {
    pub workload: Workload,
    /// The sum of `started`, `missed` and `skipped`.
    pub due: u64,
    pub started: u64,
    /// Started journeys that began late because their client was still busy. Their times count from when they were due.
    pub late: u64,
    /// Journeys that never began: no client was free, or the clients had not caught up when the run ended.
    pub missed: u64,
    /// Ticks that the client skipped, as the plan allows.
    pub skipped: u64,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Reason {
    /// A stable code for this kind of reason.
    pub code: String,
    pub verdict: RunValidity,
    pub text: String,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Threshold {
    pub text: String,
    pub standing: ThresholdStanding,
    /// Milliseconds if the metric is a time; null if there were no samples.
    pub observed: Option<f64>,
    /// The value that the threshold compares with, in the unit of `observed`.
    pub bound: f64,
    /// Whether at least ten samples lie beyond the threshold's percentile.
    pub supported: bool,
    /// Whether the broken threshold ended the run.
    pub aborted: bool,
    /// Whether neither plan nor command line states it; such a default threshold is listed where it is broken.
    #[serde(default)]
    pub default: bool,
    /// Why nothing was observed; null if something was.
    pub unobserved: Option<String>,
    /// How much of `observed` may be the generator's own delay, in the same unit; null if none.
    pub uncertainty: Option<f64>,
    /// The range in which the true value lies, in the unit of `observed`; null if `observed` is exact.
    #[serde(default)]
    pub range: Option<Range>,
    /// Whether the threshold has another result somewhere in that range. It then neither passes nor fails the run.
    #[serde(default)]
    pub uncertain: bool,
    /// The first items whose violations break the threshold.
    #[serde(default)]
    pub items: Vec<String>,
}

/// A declared deviation, with how often the run observed it.
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Deviation {
    /// Its number among the entries of the target file, such as `deviation:1`.
    pub name: String,
    /// What is different, in one line.
    pub text: String,
    pub reason: String,
    /// The rules that its entry names, if it was observed.
    pub rules: Vec<String>,
    pub standing: report::EntryStanding,
    /// How often the deviation applied.
    pub observed: usize,
    /// How often the documented form was seen instead.
    pub contradicted: usize,
    /// How many messages clients assumed because of the deviation. They are in no other count of messages of the hub.
    #[serde(default)]
    pub assumed: usize,
}

/// A histogram in figures, to three significant digits.
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Times {
    pub count: u64,
    pub min_ms: f64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p95_ms: f64,
    /// The 99th percentile; null if fewer than ten samples lie beyond it, likewise for the higher percentiles.
    pub p99_ms: Option<f64>,
    pub p999_ms: Option<f64>,
    pub max_ms: f64,
    /// Upper bound of the generator's own delay in each figure; null for times without such a part.
    pub uncertainty: Option<Uncertainty>,
    /// The range in which each true figure lies.
    #[serde(default)]
    pub ranges: Ranges,
    /// The whole histogram: HdrHistogram's V2 encoding, not compressed, in base64. Values are nanoseconds.
    pub histogram: String,
}

/// Upper bound of the generator's part of the figures of [`Times`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Uncertainty {
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p95_ms: f64,
    /// Null if the percentile is null.
    pub p99_ms: Option<f64>,
    pub p999_ms: Option<f64>,
    pub max_ms: f64,
}

impl Uncertainty {
    /// Returns the generator's part of a percentile by its name, such as `p90`.
    pub fn percentile(&self, name: &str) -> Option<f64> {
        match name {
            "p50" => Some(self.p50_ms),
            "p90" => Some(self.p90_ms),
            "p95" => Some(self.p95_ms),
            "p99" => self.p99_ms,
            "p99.9" => self.p999_ms,
            _ => None,
        }
    }
}

/// The ranges of the figures of [`Times`]: 95 % confidence intervals, whose lower ends are without the generator's own
/// delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Ranges {
    pub mean_ms: Range,
    pub p50_ms: Range,
    pub p90_ms: Range,
    pub p95_ms: Range,
    /// Null if the percentile is null.
    pub p99_ms: Option<Range>,
    pub p999_ms: Option<Range>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Range {
    pub low: f64,
    /// Null if there are too few samples for an upper bound.
    pub high: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Counted {
    /// The count of the whole run, warm-up and drain included.
    pub whole_run: u64,
    pub measured: u64,
    /// The count per second of the measured time.
    pub per_second: f64,
}

/// Connections that ended in the same way.
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EndedConnections {
    /// closed, reset, dropped, unread, violation, refused, not-http, tls, unreachable, resources, internal or other.
    pub how: String,
    /// The code of the close frame, or the HTTP status of the refusal; null if there is none.
    pub code: Option<u16>,
    /// The reason of the close frame, the description of the refusal, or the error; printable, and shortened.
    pub reason: String,
    pub count: u64,
}

/// Journeys that ended while they waited for a message.
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Wait {
    pub journey: String,
    pub message: String,
    /// The file and line of the step.
    pub place: String,
    /// Whether the message did not come in time; otherwise the run ended first.
    pub timed_out: bool,
    pub journeys: u64,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Ledger {
    /// Counts of items by name: attempted, acknowledged, completed, lost, duplicated and so on.
    pub counts: BTreeMap<String, u64>,
    /// The items that cannot be followed because their id or progress is only assumed, by the name of the deviation.
    #[serde(default)]
    pub assumed: BTreeMap<String, u64>,
    /// The first violations of each kind.
    pub violations: Vec<Violation>,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Violation {
    pub kind: String,
    pub at_s: f64,
    /// The item's id; if it is no longer known, its hash with 16 hexadecimal digits.
    pub item: String,
    pub history: Vec<Step>,
    /// The number of steps that were not kept, before the last one.
    pub omitted: u64,
    /// For a lost message: who did not get it; otherwise null.
    #[serde(default)]
    pub missed: Option<Missed>,
}

/// The deliveries that a lost message lacks.
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Missed {
    pub deliveries: usize,
    /// The number of parties that may have missed the message. More than `deliveries` if it is not known who was
    /// addressed.
    pub candidates: usize,
    /// The names of the first of these parties.
    pub receivers: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Step {
    pub at_s: f64,
    pub what: String,
    /// The party's id, or its role and number; null if no party is known.
    pub party: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Interval {
    pub from_s: f64,
    pub to_s: f64,
    pub phase: RunPhase,
    pub times: BTreeMap<String, IntervalTimes>,
    /// Counts in the interval by name; only those above 0.
    pub counts: BTreeMap<String, u64>,
    /// The highest value of each gauge.
    pub levels: BTreeMap<String, u64>,
    /// Utilisation of each core, 0 to 1.
    pub cores: BTreeMap<String, f64>,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct IntervalTimes {
    pub count: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Encoded as in the times of the whole run.
    pub histogram: String,
}

/// Renders the report in one line, since most of it is histograms; ends with a newline.
pub fn render(report: &LoadReport) -> String {
    // Only strings, finite numbers and maps with text keys, which serde_json always accepts.
    let mut text = serde_json::to_string(&build_document(report)).unwrap_or_default();
    text.push('\n');
    text
}

/// Builds the JSON document of a report.
pub fn build_document(report: &LoadReport) -> LoadReportDocument {
    let about = &report.about;
    let (layout, total) = (&report.layout, &report.total);
    LoadReportDocument {
        format: FORMAT.to_owned(),
        format_version: FORMAT_VERSION,
        tool: Tool { name: "hubproof".to_owned(), version: about.tool_version.clone() },
        run: Run {
            started: format_timestamp(about.started),
            duration_s: about.duration.as_secs_f64(),
            measured_s: to_seconds(total.time),
            warm_up_s: about.warm_up.as_secs_f64(),
            holds: about
                .holds
                .iter()
                .map(|hold| Hold { from_s: to_seconds(hold.start), to_s: to_seconds(hold.end) })
                .collect(),
            protocol: about.protocol.clone(),
            plan: about.plan.clone(),
            title: about.title.clone(),
            target: about.target.clone(),
            command: about.command.clone(),
            seed: about.seed,
            interrupted: about.interrupted,
            exit_code: report.exit_code(),
            schedules: about
                .schedules
                .iter()
                .map(|(journey, segments)| (journey.clone(), segments.iter().map(scheduled_rate).collect()))
                .collect(),
            summary: super::terminal::verdict_line(report),
            facts: about.facts.iter().cloned().collect(),
        },
        validity: validity(report),
        thresholds: thresholds(report),
        deviations: report.deviations.iter().map(deviation).collect(),
        times: layout
            .timings()
            .into_iter()
            .filter_map(|timing| Some((layout.timing_name(timing), times(report, timing)?)))
            .collect(),
        counts: layout
            .counts()
            .into_iter()
            .filter(|count| total.count(layout, *count) > 0)
            .map(|count| {
                let (whole_run, measured) = (total.count(layout, count), total.measured(layout, count));
                (layout.count_name(count), Counted { whole_run, measured, per_second: total.rate(layout, count) })
            })
            .collect(),
        due_journeys: report.due_journeys().into_iter().map(due_journeys).collect(),
        delivery_ratios: (0..layout.names.messages.len())
            .filter_map(|m| Some((layout.names.messages[m].clone(), delivery_ratio(layout, total, m)?)))
            .collect(),
        errors: error_count(layout, total),
        connections: connections(report),
        waits: report.waits.iter().map(wait).collect(),
        ledger: ledger(report),
        intervals: report.intervals.iter().map(|interval| build_interval(layout, interval)).collect(),
    }
}

fn scheduled_rate(segment: &RateSegment) -> ScheduledRate {
    let RateSegment { start, length, from, to } = *segment;
    ScheduledRate { from_s: start, to_s: start + length, from_per_second: from, to_per_second: to }
}

fn to_seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn to_milliseconds(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

fn validity(report: &LoadReport) -> Validity {
    let reasons = report.judgement.reasons.iter().map(|reason| Reason {
        code: reason.code.name().to_owned(),
        verdict: reason.validity,
        text: reason.text.clone(),
    });
    let notes =
        report.judgement.notes.iter().map(|note| Note { code: note.code.name().to_owned(), text: note.text.clone() });
    Validity { verdict: report.validity(), reasons: reasons.collect(), notes: notes.collect() }
}

fn due_journeys(found: super::DueJourneys) -> (String, DueJourneys) {
    let super::DueJourneys { name, workload, due, started, late, missed, skipped } = found;
    (name, DueJourneys { workload, due, started, late, missed, skipped })
}

fn thresholds(report: &LoadReport) -> Vec<Threshold> {
    let threshold = |outcome: &crate::load::plan::threshold::ThresholdOutcome| {
        let unit = if outcome.threshold.metric.unit() == MetricUnit::Time { 1e6 } else { 1.0 };
        Threshold {
            text: outcome.threshold.text.clone(),
            standing: outcome.standing,
            observed: outcome.observed.map(|value| value / unit),
            bound: outcome.threshold.bound / unit,
            supported: outcome.supported,
            aborted: outcome.aborted,
            default: outcome.threshold.default,
            unobserved: outcome.unobserved.clone(),
            uncertainty: outcome.own_delay.map(|own| own / unit),
            range: outcome.bounds.map(|bounds| range(bounds, unit)),
            uncertain: outcome.is_uncertain(),
            items: report.example_items(outcome),
        }
    };
    report.thresholds.iter().map(threshold).collect()
}

fn deviation(one: &DeviationReport) -> Deviation {
    Deviation {
        name: one.name.clone(),
        text: one.text.clone(),
        reason: one.reason.clone(),
        rules: one.rules.iter().cloned().collect(),
        standing: one.standing,
        observed: one.observed,
        contradicted: one.contradicted,
        assumed: one.assumed,
    }
}

fn times(report: &LoadReport, timing: TimingId) -> Option<Times> {
    let histogram = report.total.timing(&report.layout, timing)?;
    let quantile = |quantile| to_milliseconds(histogram.value_at_quantile(quantile));
    let supported = |q| is_sample_sufficient(histogram.len(), q).then(|| quantile(q));
    Some(Times {
        count: histogram.len(),
        min_ms: to_milliseconds(histogram.min()),
        mean_ms: histogram.mean() / 1e6,
        p50_ms: quantile(0.5),
        p90_ms: quantile(0.9),
        p95_ms: quantile(0.95),
        p99_ms: supported(0.99),
        p999_ms: supported(0.999),
        max_ms: to_milliseconds(histogram.max()),
        uncertainty: uncertainty(report, timing, histogram.len()),
        ranges: ranges(report, timing, histogram.len())?,
        histogram: encode_histogram(&CompactHistogram::new(histogram)),
    })
}

fn uncertainty(report: &LoadReport, timing: TimingId, samples: u64) -> Option<Uncertainty> {
    let own = |stat| Some(own_delay(report.measurements(), timing, stat)? / 1e6);
    let supported = |q| own(Statistic::Quantile(q)).filter(|_| is_sample_sufficient(samples, q));
    Some(Uncertainty {
        mean_ms: own(Statistic::Mean)?,
        p50_ms: own(Statistic::Quantile(0.5))?,
        p90_ms: own(Statistic::Quantile(0.9))?,
        p95_ms: own(Statistic::Quantile(0.95))?,
        p99_ms: supported(0.99),
        p999_ms: supported(0.999),
        max_ms: own(Statistic::Max)?,
    })
}

fn ranges(report: &LoadReport, timing: TimingId, samples: u64) -> Option<Ranges> {
    let of = |stat| Some(range(figure_bounds(report.measurements(), timing, stat)?, 1e6));
    let supported = |q| of(Statistic::Quantile(q)).filter(|_| is_sample_sufficient(samples, q));
    Some(Ranges {
        mean_ms: of(Statistic::Mean)?,
        p50_ms: of(Statistic::Quantile(0.5))?,
        p90_ms: of(Statistic::Quantile(0.9))?,
        p95_ms: of(Statistic::Quantile(0.95))?,
        p99_ms: supported(0.99),
        p999_ms: supported(0.999),
    })
}

fn range(bounds: FigureBounds, unit: f64) -> Range {
    Range { low: bounds.low / unit, high: bounds.high.map(|high| high / unit) }
}

fn encode_histogram(histogram: &CompactHistogram) -> String {
    BASE64.encode(histogram.bytes())
}

fn connections(report: &LoadReport) -> Vec<EndedConnections> {
    let ended = |(end, count): (&ConnectionEnd, u64)| EndedConnections {
        how: end.how.name().to_owned(),
        code: end.how.code(),
        reason: end.detail.to_string(),
        count,
    };
    let others = Some(report.ends.others()).filter(|count| *count > 0).map(|count| EndedConnections {
        how: "other".to_owned(),
        code: None,
        reason: String::new(),
        count,
    });
    report.ends.by_frequency().into_iter().map(ended).chain(others).collect()
}

fn wait(wait: &WaitReport) -> Wait {
    Wait {
        journey: wait.journey.clone(),
        message: wait.message.clone(),
        place: wait.place.clone(),
        timed_out: wait.timed_out,
        journeys: wait.journeys,
    }
}

fn ledger(report: &LoadReport) -> Ledger {
    let violations = report.account.violations.iter().map(|violation| Violation {
        kind: violation.kind.name().to_owned(),
        at_s: to_seconds(violation.at),
        item: violation.item_name(),
        history: violation
            .history
            .iter()
            .map(|step| Step {
                at_s: to_seconds(step.at),
                what: mark_word(step.what).to_owned(),
                party: Some(step.party)
                    .filter(|party| *party != NO_PARTY)
                    .map(|party| report.account.party_name(party)),
            })
            .collect(),
        omitted: violation.omitted,
        missed: violation.missed.as_ref().map(|missed| Missed {
            deliveries: missed.number,
            candidates: missed.candidates,
            receivers: missed.receivers.iter().map(|party| report.account.party_name(*party)).collect(),
        }),
    });
    let counts = report.account.counts().iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    let assumed = report.account.assumed.iter().map(|(index, count)| (entry_name((*index).into()), *count)).collect();
    Ledger { counts, assumed, violations: violations.collect() }
}

/// Builds the JSON document of an interval.
pub fn build_interval(layout: &MetricRegistry, interval: &MetricInterval) -> Interval {
    let timings = layout.timings().into_iter().zip(&interval.timings);
    let times = timings.filter_map(|(timing, compact)| {
        Some((layout.timing_name(timing), interval_times(&compact.histogram()?, compact)))
    });
    let counts = layout.counts().into_iter().zip(&interval.counts).filter(|(_, count)| **count > 0);
    let levels = Gauge::ALL.iter();
    Interval {
        from_s: to_seconds(interval.from),
        to_s: to_seconds(interval.to),
        phase: interval.phase,
        times: times.collect(),
        counts: counts.map(|(count, number)| (layout.count_name(count), *number)).collect(),
        levels: levels.map(|gauge| (gauge.name().to_owned(), interval.gauges[*gauge as usize].highest)).collect(),
        cores: interval.cores.iter().map(|core| (core.core.to_string(), core.busy)).collect(),
    }
}

fn interval_times(histogram: &DenseHistogram, compact: &CompactHistogram) -> IntervalTimes {
    IntervalTimes {
        count: histogram.len(),
        p50_ms: to_milliseconds(histogram.value_at_quantile(0.5)),
        p99_ms: to_milliseconds(histogram.value_at_quantile(0.99)),
        max_ms: to_milliseconds(histogram.max()),
        histogram: encode_histogram(compact),
    }
}

/// An error of [`parse_load_report`].
#[derive(Debug, thiserror::Error)]
pub enum LoadReportError {
    #[error("it is not JSON: {0}")]
    Syntax(serde_json::Error),
    #[error("it is a report of `hubproof check`; only reports of `hubproof load` can be compared")]
    CheckReport,
    #[error("it is JSON, but not a report of `hubproof load`: it has no `format: {FORMAT}`")]
    OtherFormat,
    #[error("it is a report of format version {0}, but this hubproof reads version {FORMAT_VERSION}")]
    OtherVersion(String),
    #[error("it claims to be a load report, but hubproof did not write it: {0}")]
    Shape(serde_json::Error),
    #[error("the histogram of {name} is invalid: {reason}")]
    Histogram { name: String, reason: String },
}

/// Parses the output of [`render`].
///
/// # Errors
///
/// [`LoadReportError`], worded to follow "failed to read FILE: ".
pub fn parse_load_report(text: &str) -> Result<LoadReportDocument, LoadReportError> {
    let head: ReportHead = serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => LoadReportError::OtherFormat,
        _ => LoadReportError::Syntax(error),
    })?;
    match head.format.as_str() {
        FORMAT => {}
        crate::report::json::FORMAT => return Err(LoadReportError::CheckReport),
        _ => return Err(LoadReportError::OtherFormat),
    }
    if head.format_version != FORMAT_VERSION {
        return Err(LoadReportError::OtherVersion(head.format_version.to_string()));
    }
    serde_json::from_str(text).map_err(LoadReportError::Shape)
}

/// The first members of any hubproof report.
#[derive(Deserialize)]
struct ReportHead {
    format: String,
    format_version: serde_json::Value,
}

/// Decodes a histogram of a report; `name` is for the error.
///
/// # Errors
///
/// [`LoadReportError::Histogram`].
pub fn decode_histogram(name: &str, histogram: &str) -> Result<CompactHistogram, LoadReportError> {
    let broken = |reason: String| LoadReportError::Histogram { name: name.to_owned(), reason };
    let bytes = BASE64.decode(histogram).map_err(|error| broken(error.to_string()))?;
    CompactHistogram::decode(&bytes).map_err(|error| broken(error.to_string()))
}

/// Whether a ledger count with this name counts violations.
pub fn is_violation(name: &str) -> bool {
    LedgerViolationKind::ALL.iter().any(|kind| kind.name() == name)
}
