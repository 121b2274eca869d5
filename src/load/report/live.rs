//! A running load run in a terminal: one line per second, or a dashboard of a few lines.

use crate::load::format::{format_grouped, format_nanos, format_percent, format_rate};
use crate::load::ledger::{LedgerTotals, LedgerViolationKind};
use crate::load::metrics::selector::{RunMeasurements, is_sample_sufficient};
use crate::load::metrics::{
    CounterId, Gauge, JourneyCount, LoadErrorKind, MessageCount, MessageTime, MetricInterval, MetricRegistry, RunPhase,
    TimingId,
};

/// Renders one interval as one line without a newline:
///
/// ```text
///    12 s  measured  2 200 conns  submit_job 1 667/s p50 1.20 ms p99 4.31 ms  jobs 1 660/s  open 312  lag p99 80 µs  cpu 61 %
/// ```
///
/// At most two messages are shown, those with the most answers.
pub fn interval_line(layout: &MetricRegistry, interval: &MetricInterval, account: &LedgerTotals) -> String {
    let seconds = interval.seconds();
    let count = |count: CounterId| interval.counts[layout.count(count)];
    let mut parts = vec![format!("{:>5.0} s", interval.to as f64 / 1e9)];
    parts.push(format!("{:<8}", interval.phase.name()));
    parts.push(format!("{} conns", format_grouped(interval.gauges[Gauge::Connections as usize].last)));
    for message in busiest_messages(layout, interval) {
        let answered = count(CounterId::Message(message, MessageCount::Answered)) as f64 / seconds;
        let mut part = format!("{} {}", layout.names.messages[message], format_rate(answered));
        part.push_str(&percentiles(layout, interval, TimingId::Message(message, MessageTime::Response)));
        parts.push(part);
    }
    for (journey, name) in layout.names.journeys.iter().enumerate() {
        let completed = count(CounterId::Journey(journey, JourneyCount::Completed)) as f64 / seconds;
        if completed > 0.0 {
            parts.push(format!("{name} {}", format_rate(completed)));
        }
    }
    parts.push(format!("open {}", format_grouped(account.open)));
    for kind in LedgerViolationKind::ALL.into_iter().filter(|kind| account.violations_of_kind(*kind) > 0) {
        parts.push(format!("{} {}", kind.name().to_uppercase(), format_grouped(account.violations_of_kind(kind))));
    }
    let errors: u64 = LoadErrorKind::ALL.iter().map(|kind| count(CounterId::Error(*kind))).sum();
    let messages = 0..layout.names.messages.len();
    let assumed: u64 = messages.map(|message| count(CounterId::Message(message, MessageCount::Assumed))).sum();
    let journeys =
        |kind| (0..layout.names.journeys.len()).map(|journey| count(CounterId::Journey(journey, kind))).sum();
    let faults = [
        ("errors", errors),
        ("assumed", assumed),
        ("late", journeys(JourneyCount::Late)),
        ("missed", journeys(JourneyCount::Missed)),
    ];
    parts.extend(faults.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name} {}", format_grouped(*n))));
    let lag = TimingId::Run(crate::load::metrics::GeneratorTime::Lag);
    if let Some(histogram) = interval.timings[layout.timing(lag)].histogram() {
        parts.push(format!("lag p99 {}", format_nanos(histogram.value_at_quantile(0.99) as f64)));
    }
    if let Some(busy) = interval.cores.iter().map(|core| core.busy).reduce(f64::max) {
        parts.push(format!("cpu {}", format_percent(busy)));
    }
    parts.join("  ")
}

/// Renders the lines of the dashboard: rates, times of the busiest messages, ledger and errors. `scheduled` is the
/// number of journeys per second that are due now; `None` if no schedule says so.
///
/// ```text
/// journeys    998/s of 1 000/s scheduled, 996/s completed, 12 running
/// submit_job  last second p50 1.20 ms p99 4.31 ms max 9.02 ms; so far p50 1.13 ms p99 4.02 ms max 80.1 ms
/// ledger      12 010 sent, 11 950 completed, 60 open, 0 lost, 0 duplicated
/// errors      3 timeout, 1 reset
/// ```
pub fn dashboard(
    state: RunMeasurements<'_>,
    interval: &MetricInterval,
    scheduled: Option<f64>,
    paint: impl Fn(&str) -> String,
) -> Vec<String> {
    let layout = state.layout;
    let journeys = |kind| -> u64 {
        (0..layout.names.journeys.len())
            .map(|journey| interval.counts[layout.count(CounterId::Journey(journey, kind))])
            .sum()
    };
    let rate = |kind| format_rate(journeys(kind) as f64 / interval.seconds());
    let intent = scheduled.map(|rate| format!(" of {} scheduled", format_rate(rate))).unwrap_or_default();
    let running = format_grouped(interval.gauges[Gauge::Journeys as usize].last);
    let mut rates = format!(
        "{}{intent}, {} completed, {running} running",
        rate(JourneyCount::Started),
        rate(JourneyCount::Completed)
    );
    for (name, kind) in [("late", JourneyCount::Late), ("missed", JourneyCount::Missed)] {
        if journeys(kind) > 0 {
            rates.push_str(&format!(", {} {name}", format_grouped(journeys(kind))));
        }
    }
    let mut lines = vec![("journeys".to_owned(), rates)];
    for message in busiest_messages(layout, interval) {
        let timing = TimingId::Message(message, MessageTime::Response);
        let last = interval.timings[layout.timing(timing)].histogram();
        let times = [("last second", last.as_ref()), ("so far", state.total.timing(layout, timing))];
        let times = times.into_iter().filter_map(|(when, histogram)| {
            let histogram = histogram?;
            let at = |quantile| format_nanos(histogram.value_at_quantile(quantile) as f64);
            Some(format!("{when} p50 {} p99 {} max {}", at(0.5), at(0.99), format_nanos(histogram.max() as f64)))
        });
        lines.push((layout.names.messages[message].clone(), times.collect::<Vec<_>>().join("; ")));
    }
    let account = state.account;
    let mut ledger = format!(
        "{} sent, {} completed, {} open",
        format_grouped(account.attempted),
        format_grouped(account.completed),
        format_grouped(account.open)
    );
    for kind in LedgerViolationKind::ALL {
        let number = account.violations_of_kind(kind);
        if number > 0 {
            ledger.push_str(&format!(", {}", paint(&format!("{} {}", format_grouped(number), kind.name()))));
        } else if matches!(kind, LedgerViolationKind::Lost | LedgerViolationKind::Duplicated) {
            ledger.push_str(&format!(", 0 {}", kind.name()));
        }
    }
    lines.push(("ledger".to_owned(), ledger));
    let errors: Vec<String> = LoadErrorKind::ALL
        .iter()
        .map(|kind| CounterId::Error(*kind))
        .filter(|count| state.total.count(layout, *count) > 0)
        .map(|count| {
            let name = layout.count_name(count);
            let kind = name.strip_prefix("errors.").unwrap_or(&name);
            paint(&format!("{} {kind}", format_grouped(state.total.count(layout, count))))
        })
        .collect();
    lines.push(("errors".to_owned(), if errors.is_empty() { "none".to_owned() } else { errors.join(", ") }));
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    lines.iter().map(|(name, text)| format!("{name:<width$}  {text}")).collect()
}

fn percentiles(layout: &MetricRegistry, interval: &MetricInterval, timing: TimingId) -> String {
    let Some(histogram) = interval.timings[layout.timing(timing)].histogram() else { return String::new() };
    let mut text = format!(" p50 {}", format_nanos(histogram.value_at_quantile(0.5) as f64));
    // An interval seldom has ten samples beyond the p99; a live line shows it from one sample beyond.
    if is_sample_sufficient(histogram.len() * 10, 0.99) {
        text.push_str(&format!(" p99 {}", format_nanos(histogram.value_at_quantile(0.99) as f64)));
    }
    text
}

fn busiest_messages(layout: &MetricRegistry, interval: &MetricInterval) -> Vec<usize> {
    let answered = |message: usize| interval.counts[layout.count(CounterId::Message(message, MessageCount::Answered))];
    let mut messages: Vec<usize> = (0..layout.names.messages.len()).filter(|message| answered(*message) > 0).collect();
    messages.sort_by_key(|message| std::cmp::Reverse(answered(*message)));
    messages.truncate(2);
    messages
}

/// Returns the heading at the beginning of a phase.
pub fn phase_heading(phase: RunPhase) -> &'static str {
    match phase {
        RunPhase::Warmup => "warm-up, not part of any total",
        RunPhase::Measured => "measured",
        RunPhase::Held => "held: no new journeys start until the run is resumed, and its schedule waits",
        RunPhase::Drain => "drain: no new journeys start",
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::SyntheticRun;
    use super::*;

    fn dashboard_of(run: &SyntheticRun, scheduled: Option<f64>) -> String {
        let report = run.report();
        dashboard(report.measurements(), &report.intervals[12], scheduled, |text| format!("!{text}!")).join("\n")
    }

    #[test]
    fn the_dashboard_shows_rates_times_ledger_and_errors() {
        insta::assert_snapshot!("dashboard", dashboard_of(&SyntheticRun::calm(), Some(1_000.0)));
    }

    #[test]
    fn the_dashboard_marks_violations_and_errors() {
        let run = SyntheticRun { internal: 3, ..SyntheticRun::troubled() };
        insta::assert_snapshot!("dashboard_troubled", dashboard_of(&run, None));
    }
}
