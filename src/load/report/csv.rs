//! The intervals as a table: one line per interval and metric, so that a new message changes no column.

use ::csv::{Terminator, WriterBuilder};

use super::LoadReport;
use crate::load::metrics::Gauge;

/// Renders `from_s,to_s,phase,metric,value`: RFC 4180 with a header. Times are in milliseconds, counts are per
/// interval, and gauges are the highest values of the interval. Metrics without samples are omitted.
pub fn render(report: &LoadReport) -> String {
    let mut table = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new());
    // Writing into memory cannot fail.
    let mut write = |line: [&str; 5]| drop(table.write_record(line));
    write(["from_s", "to_s", "phase", "metric", "value"]);
    let layout = &report.layout;
    let (timings, counts) = (layout.timings(), layout.counts());
    for interval in &report.intervals {
        let [from, to] = [interval.from, interval.to].map(|time| (time as f64 / 1e9).to_string());
        let mut line = |metric: String, value: f64| {
            write([&from, &to, interval.phase.name(), &metric, &value.to_string()]);
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
    table.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}
