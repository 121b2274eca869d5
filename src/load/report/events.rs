//! The events of a load run as JSON Lines, one line per event as it happens. `schemas/hubproof/load-events.schema.json`
//! describes the lines.

use serde::Serialize;

use super::LoadReport;
use super::json::build_interval;
use super::terminal::verdict_parts;
use crate::load::metrics::{MetricInterval, MetricRegistry};
use crate::load::plan::threshold::ThresholdStanding;
use crate::load::validity::RunValidity;
use crate::outcome::ms;
use crate::report::document::load::Interval;
use crate::report::events::to_line;
use crate::report::terminal_page;
use crate::report::text::format_timestamp;

/// A line of the events of `hubproof load`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(title = "hubproof load events"))]
#[serde(tag = "event", rename_all = "kebab-case")]
enum LoadEvent<'a> {
    /// The first line of a run; `--find-max` makes several.
    RunStarted {
        tool: &'static str,
        version: &'static str,
        /// The start time: RFC 3339, UTC.
        started: String,
        plan: &'a str,
        target: &'a str,
        /// The arguments of the command, without secrets.
        command: &'a [String],
        seed: u64,
    },
    /// What was measured since the last line; written every second.
    Interval(Interval),
    /// The last line.
    RunFinished {
        /// Milliseconds since the run began.
        at_ms: f64,
        exit_code: u8,
        interrupted: bool,
        validity: RunValidity,
        summary: String,
        thresholds: Vec<Threshold<'a>>,
    },
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Threshold<'a> {
    text: &'a str,
    standing: ThresholdStanding,
    /// Whether it would have another result within the uncertainty of the figure.
    uncertain: bool,
}

/// Renders the first line of a run. `started` is Unix time in milliseconds.
pub fn run_started(started: u64, plan: &str, target: &str, command: &[String], seed: u64) -> String {
    let (tool, version) = ("hubproof", env!("CARGO_PKG_VERSION"));
    to_line(&LoadEvent::RunStarted { tool, version, started: format_timestamp(started), plan, target, command, seed })
}

/// Renders an interval.
pub fn interval(layout: &MetricRegistry, interval: &MetricInterval) -> String {
    to_line(&LoadEvent::Interval(build_interval(layout, interval)))
}

/// Renders the last line.
pub fn render(report: &LoadReport) -> String {
    let thresholds = report.thresholds.iter().map(|outcome| Threshold {
        text: &outcome.threshold.text,
        standing: outcome.standing,
        uncertain: outcome.is_uncertain(),
    });
    to_line(&LoadEvent::RunFinished {
        at_ms: ms(report.about.duration),
        exit_code: report.exit_code(),
        interrupted: report.about.interrupted,
        validity: report.validity(),
        summary: terminal_page::verdict_line(report.exit_code(), &report.about.plan, &verdict_parts(report)),
        thresholds: thresholds.collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fixture::SyntheticRun;
    use super::*;
    use crate::report::fixture::assert_schema_is_derived;

    const SCHEMA: &str = include_str!("../../../schemas/hubproof/load-events.schema.json");

    #[test]
    fn the_published_schema_is_derived_from_the_types_of_the_events() {
        assert_schema_is_derived::<LoadEvent<'_>>("load-events.schema.json");
    }

    #[test]
    fn every_event_is_a_line_that_conforms_to_the_published_schema() {
        let report = SyntheticRun::troubled().report();
        let about = &report.about;
        let mut text = run_started(about.started, &about.plan, &about.target, &about.command, about.seed);
        text.extend(report.intervals.iter().map(|each| interval(&report.layout, each)));
        text.push_str(&render(&report));
        let validator = jsonschema::draft202012::new(&serde_json::from_str(SCHEMA).unwrap()).unwrap();
        let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for event in &events {
            let errors: Vec<String> = validator.iter_errors(event).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{event}: {errors:?}");
        }
        assert_eq!(events.len(), report.intervals.len() + 2);
        let sent = |event: &Value| event["counts"]["submit_job.sent"].as_u64().unwrap_or(0);
        assert_eq!(events.iter().map(sent).sum::<u64>(), super::super::fixture::JOBS);
        let last = events.last().unwrap();
        assert_eq!((&last["event"], &last["exit_code"]), (&json!("run-finished"), &json!(1)));
        assert_eq!(last["thresholds"][0]["standing"], "broken");
    }
}
