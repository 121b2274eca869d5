//! One line per second for the terminal.

use crate::load::format::{format_grouped, format_nanos, format_percent, format_rate};
use crate::load::ledger::{LedgerTotals, LedgerViolationKind};
use crate::load::metrics::selector::is_sample_sufficient;
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
        RunPhase::Drain => "drain: no new journeys start",
    }
}
