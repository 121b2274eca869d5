//! The interval log of HdrHistogram for its own tools: one tag per message and kind, such as `submit_job.response`.

use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::LoadReport;

/// Renders all intervals from the warm-up to the drain. Values are nanoseconds; the maximum of a line is in
/// milliseconds, as tools for interval logs of HdrHistogram expect.
pub fn render(report: &LoadReport) -> String {
    let mut out = Vec::new();
    // Writing into a vector cannot fail, and the histograms are valid.
    let _ = write(report, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

fn write(report: &LoadReport, out: &mut Vec<u8>) -> std::io::Result<()> {
    let start = SystemTime::UNIX_EPOCH + Duration::from_millis(report.about.started);
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(&format!("[hubproof {}: {}]", report.about.tool_version, report.about.plan))
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(1e6)
        .begin_log_with(out, &mut serializer)?;
    let names: Vec<String> =
        report.layout.timings().into_iter().map(|timing| tag_name(&report.layout.timing_name(timing))).collect();
    for interval in &report.intervals {
        let (from, length) = (Duration::from_nanos(interval.from), Duration::from_nanos(interval.to - interval.from));
        for (name, compact) in names.iter().zip(&interval.timings) {
            if let Some(histogram) = compact.histogram() {
                log.write_histogram(&histogram, from, length, Tag::new(name)).map_err(std::io::Error::other)?;
            }
        }
    }
    Ok(())
}

/// Replaces commas, spaces and line ends, which a tag must not contain.
fn tag_name(name: &str) -> String {
    name.replace(|c: char| c == ',' || c.is_whitespace() || c.is_control(), "_")
}
