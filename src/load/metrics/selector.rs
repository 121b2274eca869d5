//! Metrics by name: `submit_job.response.p99`, `jobs.completed.rate`, `errors.timeout`, `ledger.lost`. Thresholds,
//! reports and comparisons use the same names.

use std::ops::Range;

use super::uncertainty::saturated_cores;
use super::{
    CounterId, DenseHistogram, Gauge, GeneratorCount, GeneratorTime, JourneyCount, LoadErrorKind, MessageCount,
    MessageTime, MetricInterval, MetricRegistry, MetricTotals, TimingId,
};
use crate::load::engine::ValidationSummary;
use crate::load::ledger::{LedgerTotals, LedgerViolationKind};
use crate::syntax::diagnostic::nearest;

/// The measurements of a run, finished or running.
#[derive(Clone, Copy)]
pub struct RunMeasurements<'a> {
    pub layout: &'a MetricRegistry,
    pub total: &'a MetricTotals,
    pub account: &'a LedgerTotals,
    /// Complete intervals only.
    pub intervals: &'a [MetricInterval],
    /// The result of validation; `None` while the run is in progress.
    pub validated: Option<&'a ValidationSummary>,
    /// Whether the plan changes its load on purpose; if so, response times are not tested for a trend.
    pub changing_load: bool,
}

impl RunMeasurements<'_> {
    /// Whether no message was sent and no client was connected.
    pub fn is_idle(&self) -> bool {
        let mut messages = 0..self.layout.names.messages.len();
        let sent = |message| self.total.count(self.layout, CounterId::Message(message, MessageCount::Sent)) > 0;
        !messages.any(sent) && !self.intervals.iter().any(|one| one.gauges[Gauge::Connections as usize].highest > 0)
    }
}

/// One number of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Metric {
    Time(TimingId, Statistic),
    /// A count in the whole run.
    Count(CounterId),
    /// A count per second of the measured time.
    Rate(CounterId),
    /// Deliveries of a message as a share of those due.
    DeliveryRatio(usize),
    /// Errors of all kinds, in the whole run.
    Errors,
    /// A count of the ledger, by its index in [`LedgerTotals::counts`].
    Ledger(usize),
    /// The highest value of a gauge in the run.
    Level(Gauge),
    /// Received messages that break their schema, among those that were validated: of one kind, or all.
    Invalid(Option<usize>),
}

/// One number of a histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Statistic {
    Count,
    Min,
    Mean,
    Max,
    /// A quantile between 0 and 1.
    Quantile(f64),
}

/// The unit of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricUnit {
    /// Nanoseconds.
    Time,
    Number,
    /// Between 0 and 1.
    Share,
}

/// An unknown metric name: the location of the error, and the valid names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownMetricError {
    pub at: Range<usize>,
    pub message: String,
    pub help: String,
}

/// The subjects apart from messages and journeys.
const OTHER_SUBJECTS: [&str; 5] = ["schedule", "frames", "errors", "ledger", "levels"];
const STATISTIC_NAMES: &str = "p50, p90, p99, p99.9 (any percentile), min, mean, max, count";

impl Metric {
    /// # Errors
    ///
    /// [`UnknownMetricError`], with a list of the valid names.
    pub fn parse(name: &str, layout: &MetricRegistry) -> Result<Self, UnknownMetricError> {
        let subjects = || {
            let names = layout.names.messages.iter().chain(&layout.names.journeys).map(String::as_str);
            names.chain(OTHER_SUBJECTS)
        };
        // The longest, in case one name is a prefix of another.
        let fits = |subject: &&str| name.strip_prefix(subject).is_some_and(|rest| rest.starts_with('.'));
        let Some(subject) = subjects().filter(fits).max_by_key(|subject| subject.len()) else {
            let end = name.find('.').unwrap_or(name.len());
            if subjects().any(|subject| subject == name) {
                let help = list_metrics(&subject_metrics(name, layout));
                let message = format!("`{name}` alone is not a metric");
                return Err(UnknownMetricError { at: 0..name.len(), message, help: format!("{name} has {help}") });
            }
            return Err(unknown_metric("the plan measures no", &name[..end], 0, subjects().collect()));
        };
        let rest = &name[subject.len() + 1..];
        let at = subject.len() + 1;
        let (kind, stat) = rest.split_once('.').unwrap_or((rest, ""));
        let kinds = subject_metrics(subject, layout);
        let Some((_, found)) = kinds.iter().find(|(known, _)| *known == kind) else {
            let known = kinds.iter().map(|(known, _)| *known).collect();
            return Err(unknown_metric(&format!("`{subject}` has no"), kind, at, known));
        };
        let wrong = |message: String, help: &str| {
            let from = if stat.is_empty() { 0 } else { at + kind.len() + 1 };
            Err(UnknownMetricError { at: from..name.len(), message, help: help.to_owned() })
        };
        match (*found, stat) {
            (Self::Time(timing, _), stat) => match Statistic::parse(stat) {
                Some(stat) => Ok(Self::Time(timing, stat)),
                None if stat.is_empty() => {
                    wrong(format!("`{name}` is a histogram"), &format!("add one of {STATISTIC_NAMES}"))
                }
                None => wrong(format!("a histogram has no `{stat}`"), &format!("it has {STATISTIC_NAMES}")),
            },
            (Self::Count(count), "rate") => Ok(Self::Rate(count)),
            (metric, "") => Ok(metric),
            (Self::Count(_), stat) => wrong(format!("a count has no `{stat}`"), "it only has `.rate`, per second"),
            (_, stat) => wrong(format!("this metric has no `{stat}`"), "it is a single number: remove the last part"),
        }
    }

    pub fn unit(&self) -> MetricUnit {
        match self {
            Self::Time(_, Statistic::Count) | Self::Count(_) | Self::Rate(_) => MetricUnit::Number,
            Self::Errors | Self::Ledger(_) | Self::Level(_) | Self::Invalid(_) => MetricUnit::Number,
            Self::Time(..) => MetricUnit::Time,
            Self::DeliveryRatio(_) => MetricUnit::Share,
        }
    }

    /// Returns the value of the metric; `None` if there are no samples.
    pub fn value(&self, state: RunMeasurements<'_>) -> Option<f64> {
        let RunMeasurements { layout, total, account, intervals, .. } = state;
        match *self {
            Self::Time(timing, Statistic::Count) => {
                Some(total.timing(layout, timing).map_or(0, DenseHistogram::len) as f64)
            }
            Self::Time(timing, stat) => total.timing(layout, timing).map(|histogram| stat.value(histogram)),
            Self::Count(count) => Some(total.count(layout, count) as f64),
            Self::Rate(count) => (total.time > 0).then(|| total.rate(layout, count)),
            Self::DeliveryRatio(message) => delivery_ratio(layout, total, message),
            Self::Errors => Some(error_count(layout, total) as f64),
            Self::Ledger(place) => account.counts().get(place).map(|(_, count)| *count as f64),
            Self::Invalid(message) => state.validated.map(|validated| match message {
                Some(message) => {
                    validated.invalid_by_message.get(&layout.names.messages[message]).copied().unwrap_or(0) as f64
                }
                None => validated.invalid as f64,
            }),
            Self::Level(gauge) => intervals.iter().map(|i| i.gauges[gauge as usize].highest as f64).reduce(f64::max),
        }
    }

    /// Returns the reason why a value of 0, or no value, says nothing about the hub: the run gave no occasion for what
    /// the metric counts. `None` if the metric was observed.
    pub fn unobserved(&self, state: RunMeasurements<'_>) -> Option<String> {
        if let Some(why) = self.assumed_instead(state) {
            return Some(why);
        }
        let value = self.value(state);
        if value.is_some_and(|value| value != 0.0) {
            return None;
        }
        let RunMeasurements { layout, total, account, .. } = state;
        let (messages, journeys) = (&layout.names.messages, &layout.names.journeys);
        let none = |number: u64, text: String| (number == 0).then_some(text);
        let sent = |message| total.count(layout, CounterId::Message(message, MessageCount::Sent));
        let impossible = match *self {
            Self::Time(TimingId::Message(message, MessageTime::Response | MessageTime::Service), _)
            | Self::Count(CounterId::Message(message, MessageCount::Answered | MessageCount::Unanswered))
            | Self::Rate(CounterId::Message(message, MessageCount::Answered | MessageCount::Unanswered)) => {
                none(sent(message), format!("no {} was sent", messages[message]))
            }
            Self::Time(TimingId::Message(message, MessageTime::Delivery), _)
            | Self::DeliveryRatio(message)
            | Self::Count(CounterId::Message(message, MessageCount::Delivered))
            | Self::Rate(CounterId::Message(message, MessageCount::Delivered)) => none(
                total.count(layout, CounterId::Message(message, MessageCount::Due)),
                format!("no {} was published", messages[message]),
            ),
            Self::Time(TimingId::Journey(journey), _)
            | Self::Count(CounterId::Journey(journey, JourneyCount::Completed | JourneyCount::Failed))
            | Self::Rate(CounterId::Journey(journey, JourneyCount::Completed | JourneyCount::Failed)) => none(
                total.count(layout, CounterId::Journey(journey, JourneyCount::Started)),
                format!("no journey {} began", journeys[journey]),
            ),
            Self::Ledger(_) if account.attempted == 0 => Some("the ledger had no items".to_owned()),
            Self::Ledger(_) if self.violation() == Some(LedgerViolationKind::Lost) => none(
                account.acknowledged + account.deliveries_due,
                "no item was acknowledged or published, so none could be lost".to_owned(),
            ),
            Self::Invalid(_) => {
                none(state.validated.map_or(0, |validated| validated.checked), "no message was validated".to_owned())
            }
            _ => state.is_idle().then(|| "no client was connected".to_owned()),
        };
        impossible.or_else(|| value.is_none().then(|| "no samples".to_owned()))
    }

    /// Returns why messages that clients only assumed make the value meaningless: the metric might have counted them,
    /// too.
    fn assumed_instead(&self, state: RunMeasurements<'_>) -> Option<String> {
        let RunMeasurements { layout, total, account, .. } = state;
        let (messages, journeys) = (&layout.names.messages, &layout.names.journeys);
        let some = |count: CounterId, what: &str, name: &str| {
            let number = total.count(layout, count);
            (number > 0).then(|| format!("{number} {what} {name} were only assumed"))
        };
        match *self {
            Self::Time(TimingId::Message(message, MessageTime::Response | MessageTime::Service), Statistic::Count)
            | Self::Count(CounterId::Message(message, MessageCount::Answered))
            | Self::Rate(CounterId::Message(message, MessageCount::Answered)) => {
                let count = CounterId::Message(message, MessageCount::AnswersAssumed);
                some(count, "answers to", &messages[message])
            }
            // Every answer that might have failed to come was assumed.
            Self::Count(CounterId::Message(message, MessageCount::Unanswered))
            | Self::Rate(CounterId::Message(message, MessageCount::Unanswered)) => {
                let counted = |count| total.count(layout, CounterId::Message(message, count));
                let judged = counted(MessageCount::Answered) + counted(MessageCount::Unanswered) > 0;
                let count = CounterId::Message(message, MessageCount::AnswersAssumed);
                some(count, "answers to", &messages[message]).filter(|_| !judged)
            }
            Self::Count(CounterId::Message(message, MessageCount::Received))
            | Self::Rate(CounterId::Message(message, MessageCount::Received)) => {
                some(CounterId::Message(message, MessageCount::Assumed), "messages", &messages[message])
            }
            Self::Time(TimingId::Journey(journey), Statistic::Count)
            | Self::Count(CounterId::Journey(journey, JourneyCount::Completed))
            | Self::Rate(CounterId::Journey(journey, JourneyCount::Completed)) => {
                some(CounterId::Journey(journey, JourneyCount::Assumed), "ends of", &journeys[journey])
            }
            Self::Count(failed @ CounterId::Journey(journey, JourneyCount::Failed))
            | Self::Rate(failed @ CounterId::Journey(journey, JourneyCount::Failed)) => {
                let count = CounterId::Journey(journey, JourneyCount::Assumed);
                some(count, "ends of", &journeys[journey]).filter(|_| total.count(layout, failed) == 0)
            }
            Self::Ledger(place) if account.assumed_items() > 0 => {
                let (name, value) = *account.counts().get(place)?;
                let assumed = account.assumed_items();
                let followed = match self.violation() {
                    Some(LedgerViolationKind::Unexpected) => value > 0,
                    Some(_) => value > 0 || assumed < account.attempted,
                    None => matches!(name, "attempted" | "assumed" | "late" | "unfollowed"),
                };
                (!followed).then(|| format!("the ledger could not follow {assumed} items, which were only assumed"))
            }
            _ => None,
        }
    }

    /// Returns how much of a time may be the generator's own delay, see [`own_delay`].
    pub fn own_delay(&self, state: RunMeasurements<'_>) -> Option<f64> {
        match *self {
            Self::Time(_, Statistic::Count) => None,
            Self::Time(timing, stat) => own_delay(state, timing, stat),
            _ => None,
        }
    }

    /// Returns the kind of violation that the metric counts, if it counts one.
    pub fn violation(&self) -> Option<LedgerViolationKind> {
        let Self::Ledger(place) = self else { return None };
        let (name, _) = *LedgerTotals::default().counts().get(*place)?;
        LedgerViolationKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Returns the metric that counts violations of this kind.
    pub fn for_violations(kind: LedgerViolationKind) -> Option<Self> {
        let place = LedgerTotals::default().counts().iter().position(|(name, _)| *name == kind.name())?;
        Some(Self::Ledger(place))
    }

    /// Whether there are enough samples: ten must lie beyond a percentile.
    pub fn is_supported(&self, state: RunMeasurements<'_>) -> bool {
        match self {
            Self::Time(timing, Statistic::Quantile(quantile)) => is_sample_sufficient(
                state.total.timing(state.layout, *timing).map_or(0, DenseHistogram::len),
                *quantile,
            ),
            _ => true,
        }
    }
}

/// Returns how much of a time may be the generator's own delay, so that the hub's part may be that much smaller. `None`
/// for a time without such a part.
///
/// If the generator's cores were too busy, received frames waited, too: about as long as timers did.
pub fn own_delay(state: RunMeasurements<'_>, timing: TimingId, stat: Statistic) -> Option<f64> {
    let TimingId::Message(message, kind) = timing else { return None };
    let value = |timing| state.total.timing(state.layout, timing).map(|histogram| stat.value(histogram));
    let of = |kind| value(TimingId::Message(message, kind));
    let busy = !saturated_cores(state.intervals).is_empty();
    let waited = value(TimingId::Run(GeneratorTime::Lag)).filter(|_| busy);
    match kind {
        MessageTime::SendDelay => return None,
        MessageTime::Service => return Some(waited?.min(of(kind)?)),
        MessageTime::Response | MessageTime::Delivery => {}
    }
    let (whole, delay) = (of(kind)?, of(MessageTime::SendDelay)?);
    // A percentile of sums may exceed the sum of the percentiles, so the time that the delay adds to the response
    // counts as well.
    let added =
        of(MessageTime::Response).zip(of(MessageTime::Service)).map_or(0.0, |(response, service)| response - service);
    Some((delay.max(added) + waited.unwrap_or_default()).min(whole))
}

/// Whether this number of samples suffices for a percentile: ten of them must lie beyond it.
pub fn is_sample_sufficient(samples: u64, quantile: f64) -> bool {
    // A little less than ten, because a p99 is not exactly 0.99 in floating point and 1000 samples must suffice.
    samples as f64 * (1.0 - quantile) >= 10.0 - 1e-6
}

/// Returns the deliveries made as a share of those due; `None` if none were due.
pub fn delivery_ratio(layout: &MetricRegistry, total: &MetricTotals, message: usize) -> Option<f64> {
    let count = |count| total.count(layout, CounterId::Message(message, count)) as f64;
    let due = count(MessageCount::Due);
    (due > 0.0).then(|| count(MessageCount::Delivered) / due)
}

/// Returns the number of errors of all kinds in the whole run.
pub fn error_count(layout: &MetricRegistry, total: &MetricTotals) -> u64 {
    LoadErrorKind::ALL.iter().map(|kind| total.count(layout, CounterId::Error(*kind))).sum()
}

impl Statistic {
    /// Parses `p50`, `p99.9` and also `p999`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "count" => return Some(Self::Count),
            "min" => return Some(Self::Min),
            "mean" => return Some(Self::Mean),
            "max" => return Some(Self::Max),
            _ => {}
        }
        let digits = text.strip_prefix('p')?;
        if !digits.starts_with(|c: char| c.is_ascii_digit()) || digits.ends_with('.') || digits.len() > 12 {
            return None;
        }
        let written = match digits.split_at_checked(2) {
            Some(("99", part)) if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) => format!("99.{part}"),
            _ => digits.to_owned(),
        };
        let percent: f64 = written.parse().ok()?;
        (percent > 0.0 && percent <= 100.0).then_some(Self::Quantile(percent / 100.0))
    }

    pub fn value(self, histogram: &DenseHistogram) -> f64 {
        match self {
            Self::Count => histogram.len() as f64,
            Self::Min => histogram.min() as f64,
            Self::Mean => histogram.mean(),
            Self::Max => histogram.max() as f64,
            Self::Quantile(quantile) => histogram.value_at_quantile(quantile) as f64,
        }
    }
}

/// Returns the metrics of a subject, in the order in which help lists them.
fn subject_metrics(subject: &str, layout: &MetricRegistry) -> Vec<(&'static str, Metric)> {
    let time = |timing| Metric::Time(timing, Statistic::Count);
    let mut kinds = Vec::new();
    if let Some(message) = layout.names.messages.iter().position(|name| name == subject) {
        kinds.extend(MessageTime::ALL.iter().map(|kind| (kind.name(), time(TimingId::Message(message, *kind)))));
        let counts = MessageCount::ALL.iter();
        kinds.extend(counts.map(|kind| (kind.name(), Metric::Count(CounterId::Message(message, *kind)))));
        kinds.push(("delivery_ratio", Metric::DeliveryRatio(message)));
        kinds.push(("invalid", Metric::Invalid(Some(message))));
    }
    if let Some(journey) = layout.names.journeys.iter().position(|name| name == subject) {
        kinds.push(("duration", time(TimingId::Journey(journey))));
        let counts = JourneyCount::ALL.iter();
        kinds.extend(counts.map(|kind| (kind.name(), Metric::Count(CounterId::Journey(journey, *kind)))));
    }
    match subject {
        "schedule" => {
            kinds.extend(GeneratorTime::ALL.iter().map(|kind| (kind.name(), time(TimingId::Run(*kind)))));
            kinds.extend(GeneratorCount::ALL.iter().map(|kind| (kind.name(), Metric::Count(CounterId::Run(*kind)))));
        }
        "frames" => {
            kinds.push(("undocumented", Metric::Count(CounterId::Undocumented)));
            kinds.push(("invalid", Metric::Invalid(None)));
        }
        "errors" => {
            kinds.push(("total", Metric::Errors));
            kinds.extend(LoadErrorKind::ALL.iter().map(|kind| (kind.name(), Metric::Count(CounterId::Error(*kind)))));
        }
        "ledger" => {
            let counts = LedgerTotals::default().counts();
            kinds.extend(counts.iter().enumerate().map(|(place, (name, _))| (*name, Metric::Ledger(place))));
        }
        "levels" => kinds.extend(Gauge::ALL.iter().map(|gauge| (gauge.name(), Metric::Level(*gauge)))),
        _ => {}
    }
    kinds
}

fn list_metrics(kinds: &[(&str, Metric)]) -> String {
    kinds.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

fn unknown_metric(what: &str, name: &str, at: usize, known: Vec<&str>) -> UnknownMetricError {
    let meant = nearest(name, known.iter().copied()).map(|name| format!("did you mean `{name}`? "));
    UnknownMetricError {
        at: at..at + name.len(),
        message: format!("{what} `{name}`"),
        help: format!("{}the names are {}", meant.unwrap_or_default(), known.join(", ")),
    }
}
