//! The JSON report of `load`, which `compare` and pages read: builds its [document](crate::report::document::load), and
//! reads it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use super::LoadReport;
use super::terminal::mark_word;
use crate::deviation::entry_name;
use crate::load::details::ConnectionEnd;
use crate::load::ledger::{LedgerViolationKind, NO_PARTY};
use crate::load::metrics::selector::{
    MetricUnit, Statistic, delivery_ratio, error_count, is_sample_sufficient, own_delay,
};
use crate::load::metrics::uncertainty::{FigureBounds, figure_bounds};
use crate::load::metrics::{CompactHistogram, DenseHistogram, Gauge, MetricInterval, MetricRegistry, TimingId};
use crate::load::plan::schedule::RateSegment;
use crate::report::DeviationReport;
use crate::report::document::load::{
    Counted, Deviation, EndedConnections, FORMAT, FORMAT_VERSION, Hold, Interval, IntervalTimes, Ledger, LoadDocument,
    Missed, Note, Range, Ranges, Reason, Run, ScheduledRate, Step, Threshold, Times, Uncertainty, Validity, Violation,
};
use crate::report::document::{Tool, check};
use crate::report::text::format_timestamp;

/// Renders the report in one line, since most of it is histograms; ends with a newline.
pub fn render(report: &LoadReport) -> String {
    // Only strings, finite numbers and maps with text keys, which serde_json always accepts.
    let mut text = serde_json::to_string(&build_document(report)).unwrap_or_default();
    text.push('\n');
    text
}

/// Builds the JSON document of a report.
pub fn build_document(report: &LoadReport) -> LoadDocument {
    let about = &report.about;
    let (layout, total) = (&report.layout, &report.total);
    LoadDocument {
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
        due_journeys: report.due_journeys().into_iter().collect(),
        delivery_ratios: (0..layout.names.messages.len())
            .filter_map(|m| Some((layout.names.messages[m].clone(), delivery_ratio(layout, total, m)?)))
            .collect(),
        errors: error_count(layout, total),
        connections: connections(report),
        waits: report.waits.clone(),
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
pub fn parse_load_report(text: &str) -> Result<LoadDocument, LoadReportError> {
    let head: ReportHead = serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => LoadReportError::OtherFormat,
        _ => LoadReportError::Syntax(error),
    })?;
    match head.format.as_str() {
        FORMAT => {}
        check::FORMAT => return Err(LoadReportError::CheckReport),
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
