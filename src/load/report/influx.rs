//! The intervals in InfluxDB's line protocol: a point per interval and series, at the end of the interval. Counts are
//! per interval, and times are in seconds.

use std::fmt::Write;

use super::LoadReport;
use super::series_names::{counter_series, is_named, time_series};
use crate::load::SECOND;
use crate::load::metrics::Gauge;
use crate::report::text::escape_unprintable;

/// Renders one point per line. Series without samples in an interval are omitted.
pub fn render(report: &LoadReport) -> String {
    let layout = &report.layout;
    let (times, counters) = (time_series(layout), counter_series(layout));
    let mut out = String::new();
    for interval in &report.intervals {
        let at = report.about.started.saturating_mul(1_000_000).saturating_add(interval.to);
        let about = [("protocol", &report.about.protocol), ("plan", &report.about.plan)];
        let about = about.map(|(name, value)| (name, value.clone()));
        let phase = ("phase", interval.phase.name().to_owned());
        let mut line = |measurement: &str, labels: &[(&str, String)], fields: &str| {
            out.push_str(measurement);
            for (name, value) in labels.iter().chain(&about).chain([&phase]).filter(|(_, value)| !value.is_empty()) {
                let _ = write!(out, ",{name}={}", escape_tag(value));
            }
            let _ = writeln!(out, " {fields} {at}");
        };
        for ((_, series), compact) in times.iter().zip(&interval.timings) {
            let Some(histogram) = compact.histogram() else { continue };
            let seconds = |nanos: f64| nanos / SECOND as f64;
            let mut fields = format!("count={}i,mean={}", histogram.len(), seconds(histogram.mean()));
            for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)] {
                let _ = write!(fields, ",{name}={}", seconds(histogram.value_at_quantile(quantile) as f64));
            }
            line(&format!("hubproof_{}_seconds", series.family), &series.labels, &fields);
        }
        for ((count, series), number) in counters.iter().zip(&interval.counts) {
            if *number > 0 && is_named(layout, *count) {
                line(&format!("hubproof_{}", series.family), &series.labels, &format!("count={number}i"));
            }
        }
        for gauge in Gauge::ALL {
            let level = &interval.gauges[*gauge as usize];
            let fields = format!("last={}i,highest={}i", level.last, level.highest);
            line("hubproof_level", &[("what", gauge.name().to_owned())], &fields);
        }
        for core in &interval.cores {
            let fields = format!("busy={}", core.busy);
            line("hubproof_core_busy_ratio", &[("core", core.core.to_string())], &fields);
        }
    }
    out
}

/// Escapes the separators of tags. A backslash at the end would escape the next separator, so there are none.
fn escape_tag(text: &str) -> String {
    let mut out = String::new();
    for c in escape_unprintable(text).chars() {
        match c {
            '\\' => out.push('/'),
            ',' | '=' | ' ' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::fixture::{JOBS, SyntheticRun};
    use super::*;

    #[test]
    fn the_counts_of_all_points_add_up() {
        let text = render(&SyntheticRun::troubled().report());
        let sent: u64 = text
            .lines()
            .filter_map(|line| line.strip_prefix("hubproof_messages,message=submit_job,what=sent,"))
            .map(|line| line.split_once(" count=").unwrap().1.split_once('i').unwrap().0.parse::<u64>().unwrap())
            .sum();
        assert_eq!(sent, JOBS);
    }

    #[test]
    fn the_points_of_an_interval_match_the_snapshot() {
        let text = render(&SyntheticRun::troubled().report());
        // 12 s after the start.
        let lines: Vec<&str> = text.lines().filter(|line| line.ends_with(" 1642248612000000000")).collect();
        insta::assert_snapshot!("influx", lines.join("\n"));
    }

    #[rstest]
    #[case("a b,c=d", r"a\ b\,c\=d")]
    #[case("a\nb\\", "a\\ b/")]
    fn separators_of_tags_are_escaped(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(escape_tag(text), expected);
    }
}
