//! A running load run in Prometheus' text format. Times are classic histograms, which can be summed over several
//! generators; their buckets are coarser than the run's histograms.

use std::fmt::Write;

use crate::load::SECOND;
use crate::load::metrics::selector::State;
use crate::load::metrics::{Count, Dense, Gauge, Timing};

/// Upper bounds of the buckets in seconds.
const BUCKETS: [f64; 18] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The families of times, with help.
const TIMES: [(&str, &str); 3] = [
    ("message", "Times of messages due in the measured time."),
    ("journey", "Times of journeys, from due to end."),
    ("schedule", "Lag and stalls of the generator."),
];

/// The families of counts, with help.
const COUNTERS: [(&str, &str); 5] = [
    ("messages", "Messages by outcome, in the whole run."),
    ("journeys", "Journeys by outcome."),
    ("errors", "Errors by kind."),
    ("schedule", "Deviations from the schedule."),
    ("frames", "Frames that match no message of the protocol."),
];

/// Renders exposition format 0.0.4: counters and histograms since the run's origin, gauges of the latest interval.
pub fn render(state: State<'_>) -> String {
    let mut out = String::new();
    let (layout, total) = (state.layout, state.total);
    let names = &layout.names;
    // The format requires each family in one block with the same label names.
    for (family_name, help) in TIMES {
        family(&mut out, &format!("hubproof_{family_name}_seconds"), "histogram", help);
        for timing in layout.timings() {
            let (name, labels) = match timing {
                Timing::Message(message, kind) => {
                    ("message", format!("message=\"{}\",kind=\"{}\"", label(&names.messages[message]), kind.name()))
                }
                Timing::Journey(journey) => ("journey", format!("journey=\"{}\"", label(&names.journeys[journey]))),
                Timing::Run(kind) => ("schedule", format!("kind=\"{}\"", kind.name())),
            };
            if let Some(histogram) = total.timing(layout, timing).filter(|_| name == family_name) {
                times(&mut out, name, &labels, histogram);
            }
        }
    }
    for (family_name, help) in COUNTERS {
        family(&mut out, &format!("hubproof_{family_name}_total"), "counter", help);
        for count in layout.counts() {
            let (name, labels) = match count {
                Count::Message(message, kind) => {
                    ("messages", format!("message=\"{}\",what=\"{}\"", label(&names.messages[message]), kind.name()))
                }
                Count::Journey(journey, kind) => {
                    ("journeys", format!("journey=\"{}\",what=\"{}\"", label(&names.journeys[journey]), kind.name()))
                }
                Count::Error(kind) => ("errors", format!("kind=\"{}\"", kind.name())),
                Count::Run(kind) => ("schedule", format!("what=\"{}\"", kind.name())),
                Count::Undocumented => ("frames", "what=\"undocumented\"".to_owned()),
            };
            if name == family_name {
                let value = total.count(layout, count);
                line(&mut out, &format!("hubproof_{name}_total{{{labels}}}"), value as f64);
            }
        }
    }
    family(&mut out, "hubproof_ledger", "gauge", "Items and events of the ledger by kind.");
    for (name, count) in state.account.counts() {
        line(&mut out, &format!("hubproof_ledger{{what=\"{name}\"}}"), count as f64);
    }
    if let Some(latest) = state.intervals.last() {
        family(&mut out, "hubproof_level", "gauge", "Gauges at the end of the latest interval.");
        for gauge in Gauge::ALL {
            let level = latest.gauges[*gauge as usize].last as f64;
            line(&mut out, &format!("hubproof_level{{what=\"{}\"}}", gauge.name()), level);
        }
        family(&mut out, "hubproof_core_busy_ratio", "gauge", "Utilisation of a core.");
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

fn times(out: &mut String, name: &str, labels: &str, histogram: &Dense) {
    for bound in BUCKETS {
        let below = histogram.count_between(0, (bound * SECOND as f64) as u64);
        line(out, &format!("hubproof_{name}_seconds_bucket{{{labels},le=\"{bound}\"}}"), below as f64);
    }
    line(out, &format!("hubproof_{name}_seconds_bucket{{{labels},le=\"+Inf\"}}"), histogram.len() as f64);
    let sum = histogram.mean() * histogram.len() as f64 / SECOND as f64;
    line(out, &format!("hubproof_{name}_seconds_sum{{{labels}}}"), sum);
    line(out, &format!("hubproof_{name}_seconds_count{{{labels}}}"), histogram.len() as f64);
}

fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
