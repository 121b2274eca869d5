//! A running load run in Prometheus' text format. Times are classic histograms, which can be summed over several
//! generators; their buckets are coarser than the run's histograms.

use std::fmt::Write;

use super::series_names::{
    BUCKET_BOUNDS, CONNECTIONS_HELP, CORE_HELP, COUNTER_FAMILIES, LEDGER_HELP, LEVEL_HELP, TIME_FAMILIES,
    counter_series, is_named, time_series,
};
use crate::load::SECOND;
use crate::load::details::ConnectionEnds;
use crate::load::metrics::selector::RunMeasurements;
use crate::load::metrics::{DenseHistogram, Gauge};

/// Renders exposition format 0.0.4: counters and histograms since the run's origin, gauges of the latest interval.
pub fn render(state: RunMeasurements<'_>, ends: &ConnectionEnds) -> String {
    let mut out = String::new();
    let (layout, total) = (state.layout, state.total);
    let (times, counters) = (time_series(layout), counter_series(layout));
    // The format requires each family in one block with the same label names.
    for (family, help) in TIME_FAMILIES {
        write_family(&mut out, &format!("hubproof_{family}_seconds"), "histogram", help);
        for (timing, series) in times.iter().filter(|(_, series)| series.family == family) {
            if let Some(histogram) = total.timing(layout, *timing) {
                write_histogram(&mut out, family, &format_labels(&series.labels), histogram);
            }
        }
    }
    for (family, help) in COUNTER_FAMILIES {
        write_family(&mut out, &format!("hubproof_{family}_total"), "counter", help);
        let of_family = counters.iter().filter(|(count, series)| series.family == family && is_named(layout, *count));
        for (count, series) in of_family {
            let labels = format_labels(&series.labels);
            write_sample(&mut out, &format!("hubproof_{family}_total{{{labels}}}"), total.count(layout, *count) as f64);
        }
    }
    write_family(&mut out, "hubproof_connections_ended_total", "counter", CONNECTIONS_HELP);
    for (end, count) in ends.by_frequency() {
        let code = end.how.code().map(|code| code.to_string()).unwrap_or_default();
        let labels = format!("how=\"{}\",code=\"{code}\",reason=\"{}\"", end.how.name(), escape_label(&end.detail));
        write_sample(&mut out, &format!("hubproof_connections_ended_total{{{labels}}}"), count as f64);
    }
    if ends.others() > 0 {
        let labels = "how=\"other\",code=\"\",reason=\"\"";
        write_sample(&mut out, &format!("hubproof_connections_ended_total{{{labels}}}"), ends.others() as f64);
    }
    write_family(&mut out, "hubproof_ledger", "gauge", LEDGER_HELP);
    for (name, count) in state.account.counts() {
        write_sample(&mut out, &format!("hubproof_ledger{{what=\"{name}\"}}"), count as f64);
    }
    if let Some(latest) = state.intervals.last() {
        write_family(&mut out, "hubproof_level", "gauge", LEVEL_HELP);
        for gauge in Gauge::ALL {
            let level = latest.gauges[*gauge as usize].last as f64;
            write_sample(&mut out, &format!("hubproof_level{{what=\"{}\"}}", gauge.name()), level);
        }
        write_family(&mut out, "hubproof_core_busy_ratio", "gauge", CORE_HELP);
        for core in &latest.cores {
            write_sample(&mut out, &format!("hubproof_core_busy_ratio{{core=\"{}\"}}", core.core), core.busy);
        }
    }
    out
}

fn format_labels(labels: &[(&str, String)]) -> String {
    labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape_label(value))).collect::<Vec<_>>().join(",")
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
