//! The intervals as a table: one line per interval and metric, so that a new message changes no column.

use std::fmt::Write;

use super::LoadReport;
use crate::load::metrics::Gauge;

/// Renders `from_s,to_s,phase,metric,value`: RFC 4180 with a header. Times are in milliseconds, counts are per
/// interval, and gauges are the highest values of the interval. Metrics without samples are omitted.
pub fn render(report: &LoadReport) -> String {
    let mut out = String::from("from_s,to_s,phase,metric,value\r\n");
    let layout = &report.layout;
    let (timings, counts) = (layout.timings(), layout.counts());
    for interval in &report.intervals {
        let (from, to) = (interval.from as f64 / 1e9, interval.to as f64 / 1e9);
        let mut line = |metric: String, value: f64| {
            // Writing into a String cannot fail.
            let _ = write!(out, "{from},{to},{},{},{value}\r\n", interval.phase.name(), field(&metric));
        };
        for (timing, compact) in timings.iter().zip(&interval.timings) {
            let Some(histogram) = compact.histogram() else { continue };
            let name = layout.timing_name(*timing);
            let ms = |time: u64| time as f64 / 1e6;
            line(format!("{name}.count"), histogram.len() as f64);
            line(format!("{name}.mean_ms"), histogram.mean() / 1e6);
            for (stat, quantile) in [("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99)] {
                line(format!("{name}.{stat}"), ms(histogram.value_at_quantile(quantile)));
            }
            line(format!("{name}.max_ms"), ms(histogram.max()));
        }
        for (count, number) in counts.iter().zip(&interval.counts).filter(|(_, number)| **number > 0) {
            line(layout.count_name(*count), *number as f64);
        }
        for gauge in Gauge::ALL {
            line(format!("levels.{}", gauge.name()), interval.gauges[*gauge as usize].highest as f64);
        }
        for core in &interval.cores {
            line(format!("cores.{}", core.core), core.busy);
        }
    }
    out
}

fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
