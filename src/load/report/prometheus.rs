//! A running load run in Prometheus' text format. Times are classic histograms, which can be summed over several
//! generators; their buckets are coarser than the run's histograms.

use std::fmt::Write;

use crate::load::SECOND;
use crate::load::details::ConnectionEnds;
use crate::load::metrics::selector::RunMeasurements;
use crate::load::metrics::{CounterId, DenseHistogram, Gauge, MetricSubjects, TimingId};

/// Upper bounds of the buckets in seconds.
const BUCKET_BOUNDS: [f64; 18] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The families of times, with help.
const TIME_FAMILIES: [(&str, &str); 4] = [
    ("message", "Times of messages due in the measured time."),
    ("journey", "Times of journeys, from due to end."),
    ("schedule", "Lag and stalls of the generator."),
    ("operation", "Times of operations, by message and label."),
];

/// The families of counts, with help.
const COUNTER_FAMILIES: [(&str, &str); 6] = [
    ("messages", "Messages by outcome, in the whole run."),
    ("journeys", "Journeys by outcome."),
    ("errors", "Errors by kind."),
    ("schedule", "Deviations from the schedule."),
    ("frames", "Frames that match no message of the protocol."),
    ("operations", "Messages of operations by outcome, by message and label."),
];

/// Renders exposition format 0.0.4: counters and histograms since the run's origin, gauges of the latest interval.
pub fn render(state: RunMeasurements<'_>, ends: &ConnectionEnds) -> String {
    let mut out = String::new();
    let (layout, total) = (state.layout, state.total);
    let names = &layout.names;
    // The format requires each family in one block with the same label names.
    for (family_name, help) in TIME_FAMILIES {
        write_family(&mut out, &format!("hubproof_{family_name}_seconds"), "histogram", help);
        for timing in layout.timings() {
            let (name, labels) = match timing {
                TimingId::Message(message, kind) => (
                    "message",
                    format!("message=\"{}\",kind=\"{}\"", escape_label(&names.messages[message]), kind.name()),
                ),
                TimingId::Journey(journey) => {
                    ("journey", format!("journey=\"{}\"", escape_label(&names.journeys[journey])))
                }
                TimingId::Run(kind) => ("schedule", format!("kind=\"{}\"", kind.name())),
                TimingId::Operation(operation, kind) => {
                    ("operation", format!("{},kind=\"{}\"", operation_labels(names, operation), kind.name()))
                }
            };
            if let Some(histogram) = total.timing(layout, timing).filter(|_| name == family_name) {
                write_histogram(&mut out, name, &labels, histogram);
            }
        }
    }
    for (family_name, help) in COUNTER_FAMILIES {
        write_family(&mut out, &format!("hubproof_{family_name}_total"), "counter", help);
        for count in layout.counts() {
            let (name, labels) = match count {
                CounterId::Message(message, kind) => (
                    "messages",
                    format!("message=\"{}\",what=\"{}\"", escape_label(&names.messages[message]), kind.name()),
                ),
                CounterId::Journey(journey, kind) => (
                    "journeys",
                    format!("journey=\"{}\",what=\"{}\"", escape_label(&names.journeys[journey]), kind.name()),
                ),
                CounterId::Error(kind) => ("errors", format!("kind=\"{}\"", kind.name())),
                CounterId::Run(kind) => ("schedule", format!("what=\"{}\"", kind.name())),
                CounterId::Undocumented => ("frames", "what=\"undocumented\"".to_owned()),
                CounterId::Operation(operation, _) if names.operations.get(operation).is_none() => continue,
                CounterId::Operation(operation, kind) => {
                    ("operations", format!("{},what=\"{}\"", operation_labels(names, operation), kind.name()))
                }
            };
            if name == family_name {
                let value = total.count(layout, count);
                write_sample(&mut out, &format!("hubproof_{name}_total{{{labels}}}"), value as f64);
            }
        }
    }
    write_family(&mut out, "hubproof_connections_ended_total", "counter", "Connections that ended unexpectedly.");
    for (end, count) in ends.by_frequency() {
        let code = end.how.code().map(|code| code.to_string()).unwrap_or_default();
        let labels = format!("how=\"{}\",code=\"{code}\",reason=\"{}\"", end.how.name(), escape_label(&end.detail));
        write_sample(&mut out, &format!("hubproof_connections_ended_total{{{labels}}}"), count as f64);
    }
    if ends.others() > 0 {
        let labels = "how=\"other\",code=\"\",reason=\"\"";
        write_sample(&mut out, &format!("hubproof_connections_ended_total{{{labels}}}"), ends.others() as f64);
    }
    write_family(&mut out, "hubproof_ledger", "gauge", "Items and events of the ledger by kind.");
    for (name, count) in state.account.counts() {
        write_sample(&mut out, &format!("hubproof_ledger{{what=\"{name}\"}}"), count as f64);
    }
    if let Some(latest) = state.intervals.last() {
        write_family(&mut out, "hubproof_level", "gauge", "Gauges at the end of the latest interval.");
        for gauge in Gauge::ALL {
            let level = latest.gauges[*gauge as usize].last as f64;
            write_sample(&mut out, &format!("hubproof_level{{what=\"{}\"}}", gauge.name()), level);
        }
        write_family(&mut out, "hubproof_core_busy_ratio", "gauge", "Utilisation of a core.");
        for core in &latest.cores {
            write_sample(&mut out, &format!("hubproof_core_busy_ratio{{core=\"{}\"}}", core.core), core.busy);
        }
    }
    out
}

fn operation_labels(names: &MetricSubjects, operation: usize) -> String {
    let (message, label) = names.operations.get(operation).unwrap_or_default();
    format!("message=\"{}\",label=\"{}\"", escape_label(&names.messages[message]), escape_label(label))
}

fn write_family(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing into a String cannot fail.
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn write_sample(out: &mut String, series: &str, value: f64) {
    let _ = writeln!(out, "{series} {value}");
}

fn write_histogram(out: &mut String, name: &str, labels: &str, histogram: &DenseHistogram) {
    for bound in BUCKET_BOUNDS {
        let below = histogram.count_between(0, (bound * SECOND as f64) as u64);
        write_sample(out, &format!("hubproof_{name}_seconds_bucket{{{labels},le=\"{bound}\"}}"), below as f64);
    }
    write_sample(out, &format!("hubproof_{name}_seconds_bucket{{{labels},le=\"+Inf\"}}"), histogram.len() as f64);
    let sum = histogram.mean() * histogram.len() as f64 / SECOND as f64;
    write_sample(out, &format!("hubproof_{name}_seconds_sum{{{labels}}}"), sum);
    write_sample(out, &format!("hubproof_{name}_seconds_count{{{labels}}}"), histogram.len() as f64);
}

fn escape_label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
