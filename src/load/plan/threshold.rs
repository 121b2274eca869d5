//! Thresholds: `submit_job.response.p99 < 50ms`, `ledger.lost == 0`, `jobs.completed.rate > 1000`. Each is a metric, a
//! comparison and a bound; all thresholds of a plan must hold. The expressions of scenarios are not used, because they
//! have no times with units.

use std::ops::Range;
use std::time::Duration;

use crate::load::ledger::LedgerViolationKind;
use crate::load::metrics::MetricRegistry;
use crate::load::metrics::selector::{Metric, MetricUnit, RunMeasurements, Statistic, UnknownMetricError};
use crate::load::metrics::uncertainty::{FigureBounds, UncertaintySource};
use crate::load::{Nanos, plan};
pub use crate::report::document::load::ThresholdStanding;
use crate::syntax::diagnostic::{Diagnostic, ValueError};
use crate::syntax::duration::parse_duration;
use crate::syntax::explanation::Explanation;
use crate::syntax::source::Span;

#[derive(Clone, Debug, PartialEq)]
pub struct MetricThreshold {
    /// The source text.
    pub text: String,
    pub metric: Metric,
    pub comparison: ComparisonOperator,
    /// The value to compare with; in nanoseconds if the metric is a time.
    pub bound: f64,
    /// Ends the run when the threshold has been broken for this time.
    pub abort_after: Option<Duration>,
    /// Whether this is a default, stated by neither the plan nor the command line: each kind of violation has the
    /// threshold 0.
    pub default: bool,
    /// Where the threshold is written; `None` for a default.
    pub span: Option<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComparisonOperator {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    Unequal,
}

/// The comparison operators, longer ones first, since shorter ones are prefixes of them.
const COMPARISON_OPERATORS: [(&str, ComparisonOperator); 6] = [
    ("<=", ComparisonOperator::LessOrEqual),
    (">=", ComparisonOperator::GreaterOrEqual),
    ("==", ComparisonOperator::Equal),
    ("!=", ComparisonOperator::Unequal),
    ("<", ComparisonOperator::Less),
    (">", ComparisonOperator::Greater),
];

impl ComparisonOperator {
    pub fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Less => value < bound,
            Self::LessOrEqual => value <= bound,
            Self::Greater => value > bound,
            Self::GreaterOrEqual => value >= bound,
            Self::Equal => value == bound,
            Self::Unequal => value != bound,
        }
    }
}

/// Explains a threshold whose result could be different.
pub const UNCERTAIN: Explanation = Explanation::new(
    "uncertain",
    "The result of a threshold could be different, by chance or because of the generator's own delay, so the run ends with exit code 3.",
)
.usually("Too few samples for the percentile, or a generator that is as busy as the hub.")
.next("Measure longer with `--duration`, or give the generator more cores: hubproof doctor shows what it has.");

#[derive(Clone, Debug, PartialEq)]
pub struct ThresholdOutcome {
    pub threshold: MetricThreshold,
    /// The observed value, in the unit of the metric.
    pub observed: Option<f64>,
    pub standing: ThresholdStanding,
    /// Why nothing was observed.
    pub unobserved: Option<String>,
    /// How much of `observed` may be the generator's own delay.
    pub own_delay: Option<f64>,
    /// The bounds of `observed`, unless it is exact.
    pub bounds: Option<FigureBounds>,
    /// Why the result could be different; `None` if it is certain.
    pub doubt: Option<UncertaintySource>,
    /// Whether there were enough samples for the threshold's percentile.
    pub supported: bool,
    /// Whether the broken threshold ended the run.
    pub aborted: bool,
}

/// Parses one threshold. `span` is its source: byte for byte, or the whole scalar if that is quoted and has escapes.
///
/// # Errors
///
/// A diagnostic that points at the error and lists the valid names.
pub fn parse_threshold(text: &str, span: Span, layout: &MetricRegistry) -> Result<MetricThreshold, Diagnostic> {
    let exact = span.range().len() == text.len();
    let place = |range: Range<usize>| if exact { span.subspan(range) } else { span };
    let Some((at, sign, comparison)) = find_comparison(text) else {
        return Err(Diagnostic::error(span, "a threshold needs a comparison").label("no comparison found").help(
            "write `METRIC < VALUE`, as in `submit_job.response.p99 < 50ms`; valid are <, <=, >, >=, == and !=",
        ));
    };
    let left = trim_range(text, 0..at);
    let right = trim_range(text, at + sign.len()..text.len());
    let metric = Metric::parse(&text[left.clone()], layout).map_err(|unknown| {
        let UnknownMetricError { at, message, help } = unknown;
        Diagnostic::error(place(left.start + at.start..left.start + at.end), message).help(help)
    })?;
    let bound = parse_bound(&text[right.clone()], metric).map_err(|error| error.at(place(right)))?;
    Ok(MetricThreshold {
        text: text.trim().to_owned(),
        metric,
        comparison,
        bound,
        abort_after: None,
        default: false,
        span: Some(span),
    })
}

/// Parses the thresholds of a plan. `ordered` says whether the plan checks the order of messages.
///
/// # Errors
///
/// A diagnostic for each invalid threshold.
pub fn parse_plan_thresholds(
    thresholds: &[plan::ThresholdText],
    ordered: bool,
    layout: &MetricRegistry,
) -> Result<Vec<MetricThreshold>, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let mut parsed = Vec::new();
    for plan::ThresholdText { text, span, abort_after } in thresholds {
        match parse_threshold(text, *span, layout) {
            Ok(threshold) if threshold.metric.violation() == Some(LedgerViolationKind::Reordered) && !ordered => {
                let error = Diagnostic::error(*span, "the plan does not check the order of messages");
                diagnostics.push(error.help("add `ordered: true` to the plan, or remove this threshold"));
            }
            Ok(threshold) => parsed.push(MetricThreshold { abort_after: *abort_after, ..threshold }),
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
    }
    if diagnostics.is_empty() { Ok(parsed) } else { Err(diagnostics) }
}

/// Finds the first comparison: its offset, its text, and its kind.
fn find_comparison(text: &str) -> Option<(usize, &'static str, ComparisonOperator)> {
    let found =
        COMPARISON_OPERATORS.iter().filter_map(|(sign, comparison)| Some((text.find(sign)?, *sign, *comparison)));
    // Of two comparisons at the same offset, takes the longer one.
    found.min_by_key(|(at, sign, _)| (*at, std::cmp::Reverse(sign.len())))
}

fn trim_range(text: &str, range: Range<usize>) -> Range<usize> {
    let inside = &text[range.clone()];
    let start = range.start + (inside.len() - inside.trim_start().len());
    start..start + inside.trim().len()
}

fn parse_bound(text: &str, metric: Metric) -> Result<f64, ValueError> {
    match metric.unit() {
        MetricUnit::Time => parse_duration(text).map(|time| time.as_nanos() as f64),
        MetricUnit::Share if text.ends_with('%') => {
            Ok(parse_bound_number(text.trim_end_matches('%').trim_end())? / 100.0)
        }
        MetricUnit::Number | MetricUnit::Share => parse_bound_number(text),
    }
}

fn parse_bound_number(text: &str) -> Result<f64, ValueError> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'_')) && !text.is_empty();
    let number = text.replace('_', "").parse().ok().filter(|_| plain);
    number.ok_or_else(|| ValueError::new(format!("`{text}` is not a number"), "the metric is a number, without a unit"))
}

impl MetricThreshold {
    /// Evaluates the threshold for a finished or running run.
    pub fn evaluate(&self, state: RunMeasurements<'_>) -> ThresholdOutcome {
        let observed = self.metric.value(state);
        let unobserved = self.metric.unobserved(state);
        let standing = match observed {
            Some(value) if unobserved.is_none() && self.comparison.holds(value, self.bound) => ThresholdStanding::Holds,
            Some(_) if unobserved.is_none() => ThresholdStanding::Broken,
            _ => ThresholdStanding::NotObserved,
        };
        let (supported, own_delay) = (self.metric.is_supported(state), self.metric.own_delay(state));
        let uncertainty = self.metric.uncertainty(state).filter(|_| standing != ThresholdStanding::NotObserved);
        let doubt = observed.zip(uncertainty.as_ref()).and_then(|(value, found)| {
            let mut sources = found.sources.iter().filter(|(_, bounds)| self.differs_within(value, *bounds));
            let together = || self.differs_within(value, found.bounds).then(|| found.sources.first()).flatten();
            sources.next().or_else(together).map(|(source, _)| *source)
        });
        let bounds = uncertainty.map(|found| found.bounds);
        let threshold = self.clone();
        let aborted = false;
        ThresholdOutcome { threshold, observed, standing, unobserved, own_delay, bounds, doubt, supported, aborted }
    }

    /// Whether the result for some value within the bounds is different from that for this value.
    fn differs_within(&self, value: f64, FigureBounds { low, high }: FigureBounds) -> bool {
        let high = high.unwrap_or(f64::INFINITY);
        let inside = low < high && (low..=high).contains(&self.bound);
        let holds = |value| self.comparison.holds(value, self.bound);
        match self.comparison {
            ComparisonOperator::Equal | ComparisonOperator::Unequal => inside,
            _ => [low, high].iter().any(|end| holds(*end) != holds(value)),
        }
    }
}

/// Returns a threshold of 0 for each kind of violation that has none, and for messages that break their schema: for all
/// of them, or, if there is a threshold for some messages, for each of the others.
fn default_thresholds(stated: &[MetricThreshold], layout: &MetricRegistry) -> Vec<MetricThreshold> {
    let missing = LedgerViolationKind::ALL.into_iter().filter(|kind| {
        let states = |threshold: &MetricThreshold| threshold.metric.violation() == Some(*kind);
        !stated.iter().any(states)
    });
    let zero = |subject: String, metric: Metric| MetricThreshold {
        text: format!("{subject} == 0"),
        metric,
        comparison: ComparisonOperator::Equal,
        bound: 0.0,
        abort_after: None,
        default: true,
        span: None,
    };
    let violations =
        missing.filter_map(|kind| Some(zero(format!("ledger.{}", kind.name()), Metric::for_violations(kind)?)));
    let states = |metric: Metric| stated.iter().any(|threshold| threshold.metric == metric);
    let invalid = Metric::Invalid(None);
    let messages = layout.names.messages.iter().enumerate();
    let messages = messages.map(|(message, name)| (format!("{name}.invalid"), Metric::Invalid(Some(message))));
    let invalid: Vec<(String, Metric)> = if states(invalid) {
        Vec::new()
    } else if messages.clone().any(|(_, metric)| states(metric)) {
        messages.filter(|(_, metric)| !states(*metric)).collect()
    } else {
        vec![("frames.invalid".to_owned(), invalid)]
    };
    violations.chain(invalid.into_iter().map(|(subject, metric)| zero(subject, metric))).collect()
}

/// The thresholds of a run in progress, each with the time since which it has been broken.
pub struct ThresholdWatch {
    thresholds: Vec<(MetricThreshold, Option<Nanos>)>,
}

impl ThresholdWatch {
    /// Watches these thresholds, and one of 0 for each kind of violation, and for invalid messages, that has none among
    /// them.
    pub fn new(mut thresholds: Vec<MetricThreshold>, layout: &MetricRegistry) -> Self {
        thresholds.extend(default_thresholds(&thresholds, layout));
        Self { thresholds: thresholds.into_iter().map(|threshold| (threshold, None)).collect() }
    }

    /// Returns the first threshold that has been broken for longer than it allows, which ends the run.
    pub fn broken_threshold(&mut self, now: Nanos, state: RunMeasurements<'_>) -> Option<&MetricThreshold> {
        // Evaluating a threshold takes time.
        for (threshold, since) in self.thresholds.iter_mut().filter(|(threshold, _)| threshold.abort_after.is_some()) {
            *since = if threshold.evaluate(state).is_broken() { since.or(Some(now)) } else { None };
        }
        let over = |(threshold, since): &&(MetricThreshold, Option<Nanos>)| match (threshold.abort_after, since) {
            (Some(delay), Some(since)) => u128::from(now - since) >= delay.as_nanos(),
            _ => false,
        };
        self.thresholds.iter().find(over).map(|(threshold, _)| threshold)
    }

    /// Returns the results so far; default thresholds are included only if they are broken.
    pub fn results_so_far(&self, state: RunMeasurements<'_>) -> Vec<ThresholdOutcome> {
        let outcomes = self.thresholds.iter().map(|(threshold, _)| threshold.evaluate(state));
        outcomes.filter(|outcome| !outcome.threshold.default || outcome.is_broken()).collect()
    }

    /// Returns the final results; default thresholds are included only if they are broken. `aborted_by` is the text of
    /// the threshold that ended the run; `interrupted`: whether the user ended it.
    pub fn finish(
        self,
        state: RunMeasurements<'_>,
        aborted_by: Option<&str>,
        interrupted: bool,
    ) -> Vec<ThresholdOutcome> {
        let outcome = |(threshold, _): (MetricThreshold, _)| {
            let aborted = aborted_by == Some(threshold.text.as_str());
            let outcome = ThresholdOutcome { aborted, ..threshold.evaluate(state) };
            if interrupted { outcome.excused_by_interruption() } else { outcome }
        };
        let outcomes = self.thresholds.into_iter().map(outcome);
        outcomes.filter(|outcome| !outcome.threshold.default || outcome.is_broken()).collect()
    }
}

impl ThresholdOutcome {
    /// Returns the result for an interrupted run: a count that is too low might have been reached.
    fn excused_by_interruption(self) -> Self {
        let counts = matches!(self.threshold.metric, Metric::Count(_) | Metric::Time(_, Statistic::Count))
            || matches!(self.threshold.metric, Metric::Ledger(_)) && self.threshold.metric.violation().is_none();
        let too_low = self.observed.is_some_and(|value| value < self.threshold.bound);
        if !counts || !too_low || self.standing != ThresholdStanding::Broken {
            return self;
        }
        let unobserved = Some(format!("the run was interrupted at {}", self.format_observed()));
        Self { standing: ThresholdStanding::NotObserved, unobserved, ..self }
    }

    /// Formats the observed value: `12.3 ms`, `1042`, `99.9 %`.
    pub fn format_observed(&self) -> String {
        if let Some(why) = &self.unobserved {
            return why.clone();
        }
        match (self.observed, self.threshold.metric.unit()) {
            (None, _) => "no samples".to_owned(),
            (Some(value), MetricUnit::Time) => crate::load::format::format_nanos(value),
            (Some(value), MetricUnit::Share) => format!("{:.2} %", value * 100.0),
            (Some(value), MetricUnit::Number) if matches!(self.threshold.metric, Metric::Rate(_)) => {
                format!("{value:.1}/s")
            }
            (Some(value), MetricUnit::Number) => crate::load::format::format_grouped(value as u64),
        }
    }

    /// Formats the observed value with its bounds, and the part of it that may be the generator's: `313 µs (229 µs to 340
    /// µs; up to 82 µs of it is ours)`.
    pub fn format_observed_with_uncertainty(&self) -> String {
        use crate::load::format::{format_grouped, format_nanos};
        let time = self.threshold.metric.unit() == MetricUnit::Time;
        let format = |value: f64| if time { format_nanos(value) } else { format_grouped(value.max(0.0) as u64) };
        let bounds = self.bounds.map(|FigureBounds { low, high }| match high {
            Some(high) => format!("{} to {}", format(low), format(high)),
            None => format!("{} or more", format(low)),
        });
        let own = self.own_delay.map(|own| format!("up to {} of it is ours", format_nanos(own)));
        let remarks: Vec<String> = bounds.into_iter().chain(own).collect();
        match &remarks[..] {
            [] => self.format_observed(),
            remarks => format!("{} ({})", self.format_observed(), remarks.join("; ")),
        }
    }

    /// Whether the result could be different.
    pub fn is_uncertain(&self) -> bool {
        self.doubt.is_some()
    }

    /// Whether the threshold is certainly broken.
    pub fn is_broken(&self) -> bool {
        self.standing == ThresholdStanding::Broken && !self.is_uncertain()
    }

    /// Whether the threshold certainly holds.
    pub fn is_met(&self) -> bool {
        self.standing == ThresholdStanding::Holds && !self.is_uncertain()
    }

    /// Whether violations in the ledger break the threshold.
    pub fn is_violated(&self) -> bool {
        self.is_broken() && self.threshold.metric.violation().is_some()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::load::SECOND;
    use crate::load::ledger::LedgerTotals;
    use crate::load::metrics::MetricSeries;
    use crate::load::report::fixture::{self, SyntheticRun, layout};
    use crate::syntax::source::Sources;

    fn rendered(text: &str) -> String {
        let mut sources = Sources::default();
        let file = sources.add("plan.yaml", format!("  - {text}\n"));
        let span = Span::new(file, 4..4 + text.len());
        parse_threshold(text, span, &layout()).unwrap_err().render(&sources, false)
    }

    /// Against the calm run: 20 000 measured samples, evenly from 1.02 ms to 10.02 ms.
    #[rstest]
    #[case("submit_job.response.p99 < 50ms", ThresholdStanding::Holds)]
    #[case("submit_job.response.p50 > 5ms", ThresholdStanding::Holds)]
    #[case("submit_job.response.p50 > 6ms", ThresholdStanding::Broken)]
    #[case("submit_job.response.p99.9 <= 10.1ms", ThresholdStanding::Holds)]
    #[case("submit_job.response.p999<=10.1ms", ThresholdStanding::Holds)]
    #[case("submit_job.response.count == 20_000", ThresholdStanding::Holds)]
    #[case("submit_job.sent == 22000", ThresholdStanding::Holds)]
    #[case("submit_job.sent.rate >= 1000", ThresholdStanding::Holds)]
    #[case("jobs.completed.rate > 1000", ThresholdStanding::Broken)]
    #[case("jobs.duration.max < 31ms", ThresholdStanding::Holds)]
    #[case("announce.delivery_ratio >= 100%", ThresholdStanding::Holds)]
    #[case("announce.delivery_ratio < 1", ThresholdStanding::Broken)]
    #[case("errors.total != 0", ThresholdStanding::Broken)]
    #[case("errors.timeout == 0", ThresholdStanding::Holds)]
    #[case("schedule.lag.p99 < 1ms", ThresholdStanding::Holds)]
    #[case("jobs.missed == 0", ThresholdStanding::Holds)]
    #[case("ledger.lost == 0", ThresholdStanding::Holds)]
    #[case("levels.connections == 2200", ThresholdStanding::Holds)]
    #[case("claim_job.response.p99 < 50ms", ThresholdStanding::NotObserved)]
    #[case("claim_job.response.count == 0", ThresholdStanding::NotObserved)]
    #[case("claim_job.answered == 0", ThresholdStanding::NotObserved)]
    #[case("claim_job.answered.rate > 5", ThresholdStanding::NotObserved)]
    #[case("claim_job.delivered == 0", ThresholdStanding::NotObserved)]
    #[case("claim_job.delivery_ratio >= 100%", ThresholdStanding::NotObserved)]
    #[case("jobs.failed == 0", ThresholdStanding::Holds)]
    #[case("claim_job.received == 0", ThresholdStanding::Holds)]
    #[case("claim_job.sent == 0", ThresholdStanding::Holds)]
    fn thresholds_are_evaluated_for_a_run(#[case] text: &str, #[case] expected: ThresholdStanding) {
        let report = SyntheticRun::default().report();
        assert_eq!(fixture::parse_fixture_threshold(text).evaluate(report.measurements()).standing, expected);
    }

    /// All jobs, or one of ten, are accepted only by assumption.
    #[rstest]
    #[case("submit_job.response.p99 < 50ms", ThresholdStanding::NotObserved, ThresholdStanding::Holds)]
    #[case("submit_job.service.count == 0", ThresholdStanding::NotObserved, ThresholdStanding::NotObserved)]
    #[case("submit_job.answered > 100", ThresholdStanding::NotObserved, ThresholdStanding::NotObserved)]
    #[case("submit_job.unanswered == 0", ThresholdStanding::NotObserved, ThresholdStanding::Holds)]
    #[case("submit_job.sent == 22000", ThresholdStanding::Holds, ThresholdStanding::Holds)]
    #[case("job_accepted.received > 0", ThresholdStanding::NotObserved, ThresholdStanding::NotObserved)]
    #[case("job_accepted.assumed > 0", ThresholdStanding::Holds, ThresholdStanding::Holds)]
    #[case("jobs.completed.rate > 5", ThresholdStanding::NotObserved, ThresholdStanding::NotObserved)]
    #[case("jobs.failed == 0", ThresholdStanding::NotObserved, ThresholdStanding::NotObserved)]
    #[case("jobs.duration.p50 < 1s", ThresholdStanding::NotObserved, ThresholdStanding::Holds)]
    #[case("ledger.lost == 0", ThresholdStanding::NotObserved, ThresholdStanding::Holds)]
    #[case("ledger.unexpected == 0", ThresholdStanding::NotObserved, ThresholdStanding::NotObserved)]
    #[case("ledger.acknowledged > 5", ThresholdStanding::NotObserved, ThresholdStanding::NotObserved)]
    #[case("ledger.attempted == 22000", ThresholdStanding::Holds, ThresholdStanding::Holds)]
    fn a_threshold_on_something_assumed_is_not_observed(
        #[case] text: &str,
        #[case] all: ThresholdStanding,
        #[case] some: ThresholdStanding,
    ) {
        for (assumed, expected) in [(fixture::JOBS, all), (fixture::JOBS / 10, some)] {
            let report = SyntheticRun { assumed, ..SyntheticRun::default() }.report();
            let outcome = fixture::parse_fixture_threshold(text).evaluate(report.measurements());
            assert_eq!(outcome.standing, expected, "{assumed}: {:?}", outcome.unobserved);
        }
    }

    #[rstest]
    #[case::subject(
        "submit_jobb.response.p99 < 50ms",
        "submit_jobb",
        "did you mean `submit_job`? the names are submit_job, claim_job, announce, job_accepted, jobs, schedule, frames, errors, ledger, levels"
    )]
    #[case::kind("submit_job.reply.p99 < 50ms", "reply", "the names are send_delay, response, service, delivery, sent")]
    #[case::stat(
        "submit_job.response.q99 < 50ms",
        "q99",
        "it has p50, p90, p99, p99.9 (any percentile), min, mean, max, count"
    )]
    #[case::no_stat("submit_job.response < 50ms", "submit_job.response", "add one of p50")]
    #[case::percentile("submit_job.response.p101 < 50ms", "p101", "it has p50")]
    #[case::ledger("ledger.lots == 0", "lots", "did you mean `lost`?")]
    #[case::subject_alone("ledger == 0", "ledger", "ledger has attempted")]
    #[case::rate_of_a_time("submit_job.response.rate > 5", "rate", "it has p50")]
    #[case::no_unit("submit_job.response.p99 < 50", "50", "write 50s for seconds or 50ms for milliseconds")]
    #[case::unit("ledger.lost < 5ms", "5ms", "the metric is a number, without a unit")]
    #[case::no_comparison("ledger.lost", "ledger.lost", "write `METRIC < VALUE`")]
    #[case::assignment("ledger.lost = 0", "ledger.lost = 0", "valid are <, <=, >, >=, == and !=")]
    #[case::empty("", "", "write `METRIC < VALUE`")]
    fn an_invalid_threshold_is_reported_with_its_place_and_the_valid_names(
        #[case] text: &str,
        #[case] under: &str,
        #[case] help: &str,
    ) {
        let shown = rendered(text);
        assert!(shown.contains(help), "{shown}");
        assert!(shown.contains(&"^".repeat(under.len())), "{shown}");
    }

    /// A run in which nothing happened: none of its counts says anything about the hub.
    #[rstest]
    #[case("ledger.lost == 0", "the ledger had no items")]
    #[case("errors.total == 0", "no client was connected")]
    #[case("errors.timeout == 0", "no client was connected")]
    #[case("jobs.completed > 5", "no journey jobs began")]
    #[case("submit_job.unanswered == 0", "no submit_job was sent")]
    #[case("announce.delivered == 0", "no announce was published")]
    #[case("submit_job.response.p50 < 1s", "no submit_job was sent")]
    #[case("jobs.completed.rate == 0", "no journey jobs began")]
    #[case("levels.connections == 0", "no client was connected")]
    fn a_threshold_on_an_unobserved_metric_does_not_hold(#[case] text: &str, #[case] why: &str) {
        let (series, account) = (MetricSeries::new(layout(), 1), LedgerTotals::default());
        let state = RunMeasurements {
            layout: &series.layout,
            total: series.total(),
            account: &account,
            intervals: &[],
            validated: None,
            changing_load: false,
        };
        let outcome = fixture::parse_fixture_threshold(text).evaluate(state);
        assert_eq!((outcome.standing, outcome.format_observed().as_str()), (ThresholdStanding::NotObserved, why));
        // Default thresholds are not reported for a ledger without items.
        assert_eq!(ThresholdWatch::new(Vec::new(), &layout()).finish(state, None, false), []);
    }

    #[test]
    fn a_threshold_that_stays_broken_ends_the_run() {
        let report = SyntheticRun::default().report();
        let abort_after = Some(Duration::from_secs(3));
        let broken = MetricThreshold { abort_after, ..fixture::parse_fixture_threshold("ledger.attempted < 5") };
        let patient = fixture::parse_fixture_threshold("ledger.attempted < 6");
        let mut watch = ThresholdWatch::new(vec![patient, broken.clone()], &layout());
        assert_eq!(watch.broken_threshold(10 * SECOND, report.measurements()), None);
        assert_eq!(watch.broken_threshold(12 * SECOND, report.measurements()), None);
        assert_eq!(watch.broken_threshold(13 * SECOND, report.measurements()), Some(&broken));
        let aborted: Vec<bool> = watch
            .finish(report.measurements(), Some(&broken.text), false)
            .iter()
            .map(|outcome| outcome.aborted)
            .collect();
        assert_eq!(aborted, [false, true]);
    }

    /// A count that an interrupted run has not reached says nothing about the hub; one that it exceeds does.
    #[rstest]
    #[case("jobs.completed >= 1000000", ThresholdStanding::Broken, ThresholdStanding::NotObserved)]
    #[case("ledger.completed == 1000000", ThresholdStanding::Broken, ThresholdStanding::NotObserved)]
    #[case("jobs.completed < 5", ThresholdStanding::Broken, ThresholdStanding::Broken)]
    #[case("jobs.completed > 5", ThresholdStanding::Holds, ThresholdStanding::Holds)]
    #[case("submit_job.response.p50 > 1s", ThresholdStanding::Broken, ThresholdStanding::Broken)]
    fn an_interrupted_run_breaks_no_lower_bound_of_a_count(
        #[case] text: &str,
        #[case] complete: ThresholdStanding,
        #[case] interrupted: ThresholdStanding,
    ) {
        let report = SyntheticRun::default().report();
        let standing = |interrupted: bool| {
            let watch = ThresholdWatch::new(vec![fixture::parse_fixture_threshold(text)], &layout());
            watch.finish(report.measurements(), None, interrupted)[0].standing
        };
        assert_eq!((standing(false), standing(true)), (complete, interrupted));
    }
}
