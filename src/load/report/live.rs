//! One line per second for the terminal.

use crate::load::ledger::{Totals, ViolationKind};
use crate::load::metrics::selector::supports;
use crate::load::metrics::{
    Count, ErrorKind, Gauge, Interval, JourneyCount, MessageCount, MessageTime, MetricRegistry, Phase, RunCount, Timing,
};

use crate::load::format::{grouped, nanos, percent, rate};

/// Renders one interval as one line without a newline:
///
/// ```text
///    12 s  measured  2 200 conns  submit_job 1 667/s p50 1.20 ms p99 4.31 ms  jobs 1 660/s  open 312  lag p99 80 µs  cpu 61 %
/// ```
///
/// At most two messages are shown, those with the most answers.
pub fn line(layout: &MetricRegistry, interval: &Interval, account: &Totals) -> String {
    let seconds = interval.seconds();
    let count = |count: Count| interval.counts[layout.count(count)];
    let mut parts = vec![format!("{:>5.0} s", interval.to as f64 / 1e9)];
    parts.push(format!("{:<8}", interval.phase.name()));
    parts.push(format!("{} conns", grouped(interval.gauges[Gauge::Connections as usize].last)));
    for message in busiest(layout, interval) {
        let answered = count(Count::Message(message, MessageCount::Answered)) as f64 / seconds;
        let mut part = format!("{} {}", layout.names.messages[message], rate(answered));
        part.push_str(&percentiles(layout, interval, Timing::Message(message, MessageTime::Response)));
        parts.push(part);
    }
    for (journey, name) in layout.names.journeys.iter().enumerate() {
        let completed = count(Count::Journey(journey, JourneyCount::Completed)) as f64 / seconds;
        if completed > 0.0 {
            parts.push(format!("{name} {}", rate(completed)));
        }
    }
    parts.push(format!("open {}", grouped(account.open)));
    for kind in ViolationKind::ALL.into_iter().filter(|kind| account.of(*kind) > 0) {
        parts.push(format!("{} {}", kind.name().to_uppercase(), grouped(account.of(kind))));
    }
    let errors: u64 = ErrorKind::ALL.iter().map(|kind| count(Count::Error(*kind))).sum();
    let faults = [
        ("errors", errors),
        ("missed", count(Count::Run(RunCount::Missed))),
        ("no client", count(Count::Run(RunCount::NoClient))),
    ];
    parts.extend(faults.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name} {}", grouped(*n))));
    let lag = Timing::Run(crate::load::metrics::RunTime::Lag);
    if let Some(histogram) = interval.timings[layout.timing(lag)].histogram() {
        parts.push(format!("lag p99 {}", nanos(histogram.value_at_quantile(0.99) as f64)));
    }
    if let Some(busy) = interval.cores.iter().map(|core| core.busy).reduce(f64::max) {
        parts.push(format!("cpu {}", percent(busy)));
    }
    parts.join("  ")
}

fn percentiles(layout: &MetricRegistry, interval: &Interval, timing: Timing) -> String {
    let Some(histogram) = interval.timings[layout.timing(timing)].histogram() else { return String::new() };
    let mut text = format!(" p50 {}", nanos(histogram.value_at_quantile(0.5) as f64));
    // An interval seldom has ten samples beyond the p99; a live line shows it from one sample beyond.
    if supports(histogram.len() * 10, 0.99) {
        text.push_str(&format!(" p99 {}", nanos(histogram.value_at_quantile(0.99) as f64)));
    }
    text
}

fn busiest(layout: &MetricRegistry, interval: &Interval) -> Vec<usize> {
    let answered = |message: usize| interval.counts[layout.count(Count::Message(message, MessageCount::Answered))];
    let mut messages: Vec<usize> = (0..layout.names.messages.len()).filter(|message| answered(*message) > 0).collect();
    messages.sort_by_key(|message| std::cmp::Reverse(answered(*message)));
    messages.truncate(2);
    messages
}

/// Returns the heading at the beginning of a phase.
pub fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Warmup => "warm-up, not part of any total",
        Phase::Measured => "measured",
        Phase::Drain => "drain: no new journeys start",
    }
}
