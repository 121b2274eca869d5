//! A run that is under way, in the text format of Prometheus. Times are native summaries' poor relation, classic histograms,
//! whose buckets add up over several generators; their bounds are a coarse choice out of our finer ones.

use std::fmt::Write;

use crate::load::SECOND;
use crate::load::measure::{Count, Dense, Gauge, Timing};
use crate::load::metric::State;

/// Upper bounds of the buckets, in seconds.
const BUCKETS: [f64; 18] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The exposition, version 0.0.4: counters and histograms since the run's origin, levels of the latest interval.
pub fn render(state: State<'_>) -> String {
    let mut out = String::new();
    let (layout, total) = (state.layout, state.total);
    let names = &layout.names;
    family(&mut out, "hubproof_time_seconds", "histogram", "Times of what was due in the measured time.");
    for timing in layout.timings() {
        let Some(histogram) = total.timing(layout, timing) else { continue };
        let labels = match timing {
            Timing::Message(message, kind) => {
                format!("message=\"{}\",kind=\"{}\"", label(&names.messages[message]), kind.name())
            }
            Timing::Journey(journey) => format!("journey=\"{}\",kind=\"duration\"", label(&names.journeys[journey])),
            Timing::Run(kind) => format!("kind=\"schedule_{}\"", kind.name()),
        };
        times(&mut out, &labels, histogram);
    }
    family(&mut out, "hubproof_messages_total", "counter", "Messages by what became of them, in the whole run.");
    family(&mut out, "hubproof_journeys_total", "counter", "Journeys by what became of them.");
    family(&mut out, "hubproof_errors_total", "counter", "Errors by kind.");
    family(&mut out, "hubproof_schedule_total", "counter", "What the schedule could not keep.");
    for count in layout.counts() {
        let value = total.count(layout, count);
        let (name, labels) = match count {
            Count::Message(message, kind) => {
                ("messages", format!("message=\"{}\",what=\"{}\"", label(&names.messages[message]), kind.name()))
            }
            Count::Journey(journey, kind) => {
                ("journeys", format!("journey=\"{}\",what=\"{}\"", label(&names.journeys[journey]), kind.name()))
            }
            Count::Error(kind) => ("errors", format!("kind=\"{}\"", kind.name())),
            Count::Run(kind) => ("schedule", format!("what=\"{}\"", kind.name())),
        };
        line(&mut out, &format!("hubproof_{name}_total{{{labels}}}"), value as f64);
    }
    family(&mut out, "hubproof_ledger", "gauge", "Items by what became of them.");
    for (name, count) in state.account.counts() {
        line(&mut out, &format!("hubproof_ledger{{what=\"{name}\"}}"), count as f64);
    }
    if let Some(latest) = state.intervals.last() {
        family(&mut out, "hubproof_level", "gauge", "Levels at the end of the latest interval.");
        for gauge in Gauge::ALL {
            let level = latest.gauges[*gauge as usize].last as f64;
            line(&mut out, &format!("hubproof_level{{what=\"{}\"}}", gauge.name()), level);
        }
        family(&mut out, "hubproof_core_busy_ratio", "gauge", "How busy a core was.");
        for core in &latest.cores {
            line(&mut out, &format!("hubproof_core_busy_ratio{{core=\"{}\"}}", core.core), core.busy);
        }
    }
    out
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing into a String cannot fail.
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn line(out: &mut String, series: &str, value: f64) {
    let _ = writeln!(out, "{series} {value}");
}

fn times(out: &mut String, labels: &str, histogram: &Dense) {
    for bound in BUCKETS {
        let below = histogram.count_between(0, (bound * SECOND as f64) as u64);
        line(out, &format!("hubproof_time_seconds_bucket{{{labels},le=\"{bound}\"}}"), below as f64);
    }
    line(out, &format!("hubproof_time_seconds_bucket{{{labels},le=\"+Inf\"}}"), histogram.len() as f64);
    let sum = histogram.mean() * histogram.len() as f64 / SECOND as f64;
    line(out, &format!("hubproof_time_seconds_sum{{{labels}}}"), sum);
    line(out, &format!("hubproof_time_seconds_count{{{labels}}}"), histogram.len() as f64);
}

fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
