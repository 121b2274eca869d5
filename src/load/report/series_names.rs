//! The names of time series in Prometheus, OTLP and InfluxDB: families with labels.

use crate::load::metrics::{CounterId, MetricRegistry, MetricSubjects, TimingId};

/// The families of times, with help.
pub const TIME_FAMILIES: [(&str, &str); 4] = [
    ("message", "Times of messages due in the measured time."),
    ("journey", "Times of journeys, from due to end."),
    ("schedule", "Lag and stalls of the generator."),
    ("operation", "Times of operations, by message and label."),
];

/// The families of counts, with help.
pub const COUNTER_FAMILIES: [(&str, &str); 6] = [
    ("messages", "Messages by outcome, in the whole run."),
    ("journeys", "Journeys by outcome."),
    ("errors", "Errors by kind."),
    ("schedule", "Deviations from the schedule."),
    ("frames", "Frames that match no message of the protocol."),
    ("operations", "Messages of operations by outcome, by message and label."),
];

/// The help of the other families.
pub const CONNECTIONS_HELP: &str = "Connections that ended unexpectedly.";
pub const LEDGER_HELP: &str = "Items and events of the ledger by kind.";
pub const LEVEL_HELP: &str = "Gauges at the end of the latest interval.";
pub const CORE_HELP: &str = "Utilisation of a core.";

/// Upper bounds of the buckets of times in seconds.
pub const BUCKET_BOUNDS: [f64; 18] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// A time series: its family, and its labels with their values.
pub struct SeriesName {
    pub family: &'static str,
    pub labels: Vec<(&'static str, String)>,
}

/// Returns the names of all times, in the order of the registry.
pub fn time_series(layout: &MetricRegistry) -> Vec<(TimingId, SeriesName)> {
    let names = &layout.names;
    let series = |timing| match timing {
        TimingId::Message(message, kind) => {
            ("message", vec![("message", names.messages[message].clone()), ("kind", kind.name().to_owned())])
        }
        TimingId::Journey(journey) => ("journey", vec![("journey", names.journeys[journey].clone())]),
        TimingId::Run(kind) => ("schedule", vec![("kind", kind.name().to_owned())]),
        TimingId::Operation(operation, kind) => {
            let [message, label] = operation_labels(names, operation);
            ("operation", vec![message, label, ("kind", kind.name().to_owned())])
        }
    };
    let named = |timing| {
        let (family, labels) = series(timing);
        (timing, SeriesName { family, labels })
    };
    layout.timings().into_iter().map(named).collect()
}

/// Returns the names of all counters, in the order of the registry.
pub fn counter_series(layout: &MetricRegistry) -> Vec<(CounterId, SeriesName)> {
    let names = &layout.names;
    let series = |count| match count {
        CounterId::Message(message, kind) => {
            ("messages", vec![("message", names.messages[message].clone()), ("what", kind.name().to_owned())])
        }
        CounterId::Journey(journey, kind) => {
            ("journeys", vec![("journey", names.journeys[journey].clone()), ("what", kind.name().to_owned())])
        }
        CounterId::Error(kind) => ("errors", vec![("kind", kind.name().to_owned())]),
        CounterId::Run(kind) => ("schedule", vec![("what", kind.name().to_owned())]),
        CounterId::Undocumented => ("frames", vec![("what", "undocumented".to_owned())]),
        CounterId::Operation(operation, kind) => {
            let [message, label] = operation_labels(names, operation);
            ("operations", vec![message, label, ("what", kind.name().to_owned())])
        }
    };
    let named = |count| {
        let (family, labels) = series(count);
        (count, SeriesName { family, labels })
    };
    layout.counts().into_iter().map(named).collect()
}

fn operation_labels(names: &MetricSubjects, operation: usize) -> [(&'static str, String); 2] {
    let (message, label) = names.operations.get(operation).unwrap_or_default();
    [("message", names.messages[message].clone()), ("label", label.to_owned())]
}

/// Whether a counter of an operation has a label yet: labels are found during the run.
pub fn is_named(layout: &MetricRegistry, count: CounterId) -> bool {
    !matches!(count, CounterId::Operation(operation, _) if layout.names.operations.get(operation).is_none())
}
