//! The metrics of a run as an export request of the OpenTelemetry protocol (OTLP) in JSON: a data point per interval and
//! series, cumulative since the start. If a collector exports them to Prometheus, they have the names of the page that
//! `--metrics` serves.

use serde_json::{Value, json};

use super::LoadReport;
use super::series_names::{
    BUCKET_BOUNDS, CONNECTIONS_HELP, CORE_HELP, COUNTER_FAMILIES, LEDGER_HELP, LEVEL_HELP, SeriesName, TIME_FAMILIES,
    counter_series, is_named, time_series,
};
use crate::load::SECOND;
use crate::load::metrics::{DenseHistogram, Gauge, RunPhase};

/// The value of `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u8 = 2;

/// Renders one line, as the collector's `otlpjsonfile` receiver reads it. Integers of 64 bits are strings.
pub fn render(report: &LoadReport) -> String {
    let about = &report.about;
    let resource = [
        ("service.name", "hubproof".to_owned()),
        ("service.version", about.tool_version.clone()),
        ("hubproof.protocol", about.protocol.clone()),
        ("hubproof.plan", about.plan.clone()),
        ("hubproof.target", about.target.clone()),
        ("hubproof.seed", about.seed.to_string()),
    ];
    let mut metrics = time_metrics(report);
    metrics.extend(counter_metrics(report));
    metrics.extend(other_metrics(report));
    let request = json!({ "resourceMetrics": [{
        "resource": { "attributes": attributes(&resource) },
        "scopeMetrics": [{ "scope": { "name": "hubproof", "version": about.tool_version }, "metrics": metrics }],
    }] });
    format!("{request}\n")
}

fn attributes(labels: &[(&str, String)]) -> Vec<Value> {
    labels.iter().map(|(key, value)| json!({ "key": key, "value": { "stringValue": value } })).collect()
}

/// Returns a data point at a time of the run.
fn point(report: &LoadReport, at: u64, labels: &[(&str, String)]) -> Value {
    let start = report.about.started.saturating_mul(1_000_000);
    json!({
        "attributes": attributes(labels),
        "startTimeUnixNano": start.to_string(),
        "timeUnixNano": start.saturating_add(at).to_string(),
    })
}

/// A sum of histograms.
#[derive(Default)]
struct Buckets {
    count: u64,
    sum: f64,
    /// One per bound, and one for all greater values.
    counts: [u64; BUCKET_BOUNDS.len() + 1],
}

impl Buckets {
    fn add(&mut self, histogram: &DenseHistogram) {
        let mut below = 0;
        for (bound, count) in BUCKET_BOUNDS.iter().zip(&mut self.counts) {
            let up_to = histogram.count_between(0, (bound * SECOND as f64) as u64);
            *count += up_to - below;
            below = up_to;
        }
        self.counts[BUCKET_BOUNDS.len()] += histogram.len() - below;
        self.count += histogram.len();
        self.sum += histogram.mean() * histogram.len() as f64 / SECOND as f64;
    }
}

/// Returns the times of messages due in the measured time, so without the warm-up.
fn time_metrics(report: &LoadReport) -> Vec<Value> {
    let series = time_series(&report.layout);
    let points = |index: usize, SeriesName { labels, .. }: &SeriesName| {
        let mut total = Buckets::default();
        let mut points = Vec::new();
        for interval in report.intervals.iter().filter(|interval| interval.phase != RunPhase::Warmup) {
            if let Some(histogram) = interval.timings.get(index).and_then(|compact| compact.histogram()) {
                total.add(&histogram);
            }
            if total.count > 0 {
                let mut point = point(report, interval.to, labels);
                point["count"] = total.count.to_string().into();
                point["sum"] = total.sum.into();
                point["bucketCounts"] = total.counts.map(|count| count.to_string()).to_vec().into();
                point["explicitBounds"] = BUCKET_BOUNDS.to_vec().into();
                points.push(point);
            }
        }
        points
    };
    let metric = |(family, help): (&str, &str)| {
        let all = series.iter().enumerate().filter(|(_, (_, series))| series.family == family);
        let points: Vec<Value> = all.flat_map(|(index, (_, series))| points(index, series)).collect();
        let histogram = json!({ "aggregationTemporality": CUMULATIVE, "dataPoints": points });
        let name = format!("hubproof.{family}.seconds");
        (!points.is_empty()).then(|| json!({ "name": name, "description": help, "unit": "s", "histogram": histogram }))
    };
    TIME_FAMILIES.into_iter().filter_map(metric).collect()
}

/// Returns the counters that are above 0 at the end.
fn counter_metrics(report: &LoadReport) -> Vec<Value> {
    let layout = &report.layout;
    let series = counter_series(layout);
    let metric = |(family, help): (&str, &str)| {
        let all = series.iter().enumerate();
        let all = all.filter(|(_, (count, series))| {
            series.family == family && is_named(layout, *count) && report.total.count(layout, *count) > 0
        });
        let points: Vec<Value> = all
            .flat_map(|(index, (_, series))| {
                let mut total = 0;
                report.intervals.iter().map(move |interval| {
                    total += interval.counts.get(index).copied().unwrap_or(0);
                    integer_point(report, interval.to, &series.labels, total)
                })
            })
            .collect();
        (!points.is_empty()).then(|| sum(&format!("hubproof.{family}"), help, &points))
    };
    COUNTER_FAMILIES.into_iter().filter_map(metric).collect()
}

/// Returns gauges of every interval, and what is known only at the end: the ledger and lost connections.
fn other_metrics(report: &LoadReport) -> Vec<Value> {
    let end = report.intervals.last().map_or(0, |interval| interval.to);
    let levels = report.intervals.iter().flat_map(|interval| {
        Gauge::ALL.iter().map(move |gauge| {
            let level = interval.gauges[*gauge as usize].last;
            integer_point(report, interval.to, &[("what", gauge.name().to_owned())], level)
        })
    });
    let cores = report.intervals.iter().flat_map(|interval| {
        interval.cores.iter().map(move |core| {
            let mut point = point(report, interval.to, &[("core", core.core.to_string())]);
            point["asDouble"] = core.busy.into();
            point
        })
    });
    let counts = report.account.counts().into_iter();
    let ledger = counts.map(|(name, count)| integer_point(report, end, &[("what", name.to_string())], count));
    let mut metrics = vec![
        gauge("hubproof.level", LEVEL_HELP, "", levels.collect()),
        gauge("hubproof.core.busy", CORE_HELP, "1", cores.collect()),
        gauge("hubproof.ledger", LEDGER_HELP, "", ledger.collect()),
    ];
    let mut ends: Vec<Value> = Vec::new();
    for (ended, count) in report.ends.by_frequency() {
        let code = ended.how.code().map(|code| code.to_string()).unwrap_or_default();
        let labels = [("how", ended.how.name().to_owned()), ("code", code), ("reason", ended.detail.to_string())];
        ends.push(integer_point(report, end, &labels, count));
    }
    if report.ends.others() > 0 {
        ends.push(integer_point(report, end, &[("how", "other".to_owned())], report.ends.others()));
    }
    if !ends.is_empty() {
        metrics.push(sum("hubproof.connections.ended", CONNECTIONS_HELP, &ends));
    }
    metrics
}

fn integer_point(report: &LoadReport, at: u64, labels: &[(&str, String)], value: u64) -> Value {
    let mut point = point(report, at, labels);
    point["asInt"] = value.to_string().into();
    point
}

fn sum(name: &str, help: &str, points: &[Value]) -> Value {
    let sum = json!({ "aggregationTemporality": CUMULATIVE, "isMonotonic": true, "dataPoints": points });
    json!({ "name": name, "description": help, "sum": sum })
}

fn gauge(name: &str, help: &str, unit: &str, points: Vec<Value>) -> Value {
    json!({ "name": name, "description": help, "unit": unit, "gauge": { "dataPoints": points } })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{JOBS, SyntheticRun};
    use super::*;
    use crate::load::metrics::{MessageTime, TimingId};

    fn last_point<'a>(request: &'a Value, metric: &str, labels: &[(&str, &str)]) -> &'a Value {
        let metrics = request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap();
        let metric = metrics.iter().find(|found| found["name"] == metric).unwrap();
        let data = ["sum", "histogram", "gauge"].iter().find_map(|kind| metric.get(*kind)).unwrap();
        let labels: Vec<(&str, String)> = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let wanted = Value::from(attributes(&labels));
        data["dataPoints"].as_array().unwrap().iter().rfind(|point| point["attributes"] == wanted).unwrap()
    }

    #[test]
    fn the_last_points_are_the_totals_of_the_run() {
        let report = SyntheticRun::troubled().report();
        let request: Value = serde_json::from_str(&render(&report)).unwrap();
        let labels = [("message", "submit_job"), ("kind", "response")];
        let response = last_point(&request, "hubproof.message.seconds", &labels);
        let total = report.total.timing(&report.layout, TimingId::Message(0, MessageTime::Response)).unwrap();
        assert_eq!(response["count"], total.len().to_string());
        let sum = total.mean() * total.len() as f64 / 1e9;
        assert!((response["sum"].as_f64().unwrap() - sum).abs() < sum / 1e6, "{response}");
        let counts = response["bucketCounts"].as_array().unwrap().iter();
        let counts: Vec<u64> = counts.map(|count| count.as_str().unwrap().parse().unwrap()).collect();
        assert_eq!((counts.len(), counts.iter().sum()), (BUCKET_BOUNDS.len() + 1, total.len()));
        // Up to 100 ms.
        assert_eq!(counts[..10].iter().sum::<u64>(), total.count_between(0, 100_000_000));
        let sent = last_point(&request, "hubproof.messages", &[("message", "submit_job"), ("what", "sent")]);
        assert_eq!(sent["asInt"], JOBS.to_string());
        let labels = [("how", "closed"), ("code", "1011"), ("reason", "oops")];
        assert_eq!(last_point(&request, "hubproof.connections.ended", &labels)["asInt"], "100");
        assert_eq!(last_point(&request, "hubproof.ledger", &[("what", "lost")])["asInt"], "220");
    }
}
