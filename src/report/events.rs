//! The events of a run as JSON Lines, one line per event as it happens. `schemas/hubproof/events.schema.json` describes
//! the lines.

use std::time::Duration;

use serde::Serialize;

use super::text::format_timestamp;
use super::{RunReport, VerdictTally, exit_code, scenario_verdict, terminal};
use crate::outcome::{CheckReport, FrameReport, ScenarioReport, Verdict, ms};
use crate::syntax::source::{Sources, Span};

/// An event that the runs send to the loop that shows progress and collects reports.
#[derive(Debug)]
pub enum ScenarioEvent {
    Started {
        id: String,
    },
    /// A frame was sent or received; reported only with `--trace`.
    Frame {
        id: String,
        frame: FrameReport,
    },
    /// A `wait` step began; it is shown while it lasts.
    Waiting {
        id: String,
        because: String,
        time: Duration,
    },
    Finished(Box<ScenarioReport>),
    /// A scenario was played with a variation, which made no difference; `id` names both.
    Varied {
        id: String,
    },
}

/// A line of the events of `hubproof check` or `hubproof fuzz`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(title = "hubproof events"))]
struct EventLine<'a> {
    /// Milliseconds since the run began.
    at_ms: f64,
    #[serde(flatten)]
    event: RunEvent<'a>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "kebab-case")]
enum RunEvent<'a> {
    /// The first line.
    RunStarted {
        tool: &'static str,
        version: &'a str,
        /// When the run began, RFC 3339, UTC.
        started: String,
        /// The URL of the hub, or `embedded reference server`.
        target: &'a str,
        /// The command line, without secrets and without options that select scenarios or report files.
        command: &'a [String],
    },
    /// A scenario or a case began.
    ScenarioStarted { scenario: &'a str },
    /// A scenario waits on purpose.
    Waiting { scenario: &'a str, because: &'a str, time_ms: f64 },
    /// A frame was sent or received; only with `--trace`.
    Frame { scenario: &'a str, frame: &'a FrameReport },
    /// A scenario was played with a variation, which made no difference; `scenario` names both.
    ScenarioVaried { scenario: &'a str },
    /// A scenario or a case ended. A scenario may end more than once: it is repeated after a crash of the hub.
    ScenarioFinished {
        scenario: &'a str,
        protocol: &'a str,
        repetition: usize,
        /// The verdict before the baseline applies.
        verdict: Verdict,
        duration_ms: f64,
        /// The evaluated checks.
        checks: Vec<Check<'a>>,
        /// The precondition that failed, or the mistake in the scenario.
        cause: Option<String>,
        /// Unmet needs; if there are any, the scenario was not played.
        needs: Vec<&'a str>,
    },
    /// The last line.
    RunFinished { exit_code: u8, interrupted: bool, protocols: Vec<Protocol<'a>> },
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Check<'a> {
    name: &'a str,
    verdict: Verdict,
    /// The rules with this verdict.
    rules: Vec<&'a str>,
    /// What was wrong; empty if the check passed.
    message: &'a str,
    file: Option<&'a str>,
    line: Option<usize>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Protocol<'a> {
    name: &'a str,
    exit_code: u8,
    summary: String,
    checks: VerdictTally,
}

/// Returns a value as one line of JSON with a newline.
pub fn to_line(value: &impl Serialize) -> String {
    // Cannot fail: strings, numbers and maps with text as keys.
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

/// Renders the first line. `started` is Unix time in milliseconds.
pub fn run_started(started: u64, target: &str, command: &[String]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let started = format_timestamp(started);
    to_line(&EventLine {
        at_ms: 0.0,
        event: RunEvent::RunStarted { tool: "hubproof", version, started, target, command },
    })
}

/// Renders an event, `at` after the start of the run. `sources` has the files of its spans.
pub fn scenario_event(event: &ScenarioEvent, at: Duration, sources: &Sources) -> String {
    let event = match event {
        ScenarioEvent::Started { id } => RunEvent::ScenarioStarted { scenario: id },
        ScenarioEvent::Waiting { id, because, time } => RunEvent::Waiting { scenario: id, because, time_ms: ms(*time) },
        ScenarioEvent::Frame { id, frame } => RunEvent::Frame { scenario: id, frame },
        ScenarioEvent::Finished(report) => finished(report, sources),
        ScenarioEvent::Varied { id } => RunEvent::ScenarioVaried { scenario: id },
    };
    to_line(&EventLine { at_ms: ms(at), event })
}

fn finished<'a>(report: &'a ScenarioReport, sources: &'a Sources) -> RunEvent<'a> {
    let check = |check: &'a CheckReport| {
        let place = check.span.map(|span: Span| (sources.path(span), sources.line_column(span).0));
        Check {
            name: &check.name,
            verdict: check.verdict,
            rules: check.rules_of_verdict().map(|used| used.id.as_str()).collect(),
            message: &check.message,
            file: place.map(|(path, _)| path),
            line: place.map(|(_, line)| line),
        }
    };
    let cause = report.cause.as_ref().map(|cause| format!("`{}` failed: {}", cause.step, cause.with_actor()));
    RunEvent::ScenarioFinished {
        scenario: &report.id,
        protocol: &report.protocol,
        repetition: report.repetition,
        verdict: scenario_verdict(report),
        duration_ms: ms(report.duration),
        checks: report.checks.iter().map(check).collect(),
        cause: report.mistake.clone().or(cause),
        needs: report.unmet.iter().map(|need| need.name.as_str()).collect(),
    }
}

/// Renders the last line.
pub fn render(report: &RunReport) -> String {
    let protocols = report.protocols.iter().map(|protocol| Protocol {
        name: &protocol.name,
        exit_code: protocol.exit_code(&report.options),
        summary: terminal::verdict_line(protocol, &report.options),
        checks: protocol.check_tally(),
    });
    let protocols = protocols.collect();
    let event = RunEvent::RunFinished { exit_code: exit_code(report), interrupted: report.interrupted, protocols };
    to_line(&EventLine { at_ms: ms(report.duration), event })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::fixture::{RunFixture, TARGET, assert_schema_is_derived, options};
    use super::*;

    const SCHEMA: &str = include_str!("../../schemas/hubproof/events.schema.json");

    #[test]
    fn the_published_schema_is_derived_from_the_types_of_the_events() {
        assert_schema_is_derived::<EventLine<'_>>("events.schema.json");
    }

    /// The events of a run, as `check` sends them.
    fn events_of(run: &RunFixture) -> String {
        let mut text = run_started(1_790_000_000_123, TARGET, &options().command);
        for report in &run.reports {
            let id = report.id.clone();
            let mut events = vec![ScenarioEvent::Started { id: id.clone() }];
            events.extend(
                report.history.iter().map(|frame| ScenarioEvent::Frame { id: id.clone(), frame: frame.clone() }),
            );
            let time = Duration::from_millis(1_500);
            events.push(ScenarioEvent::Waiting { id, because: "to see whether more comes".to_owned(), time });
            events.push(ScenarioEvent::Finished(Box::new(report.clone())));
            for event in &events {
                text.push_str(&scenario_event(event, Duration::from_millis(12), &run.sources));
            }
        }
        text + &render(&run.report(options()))
    }

    #[test]
    fn every_event_is_a_line_that_conforms_to_the_published_schema() {
        let validator = jsonschema::draft202012::new(&serde_json::from_str(SCHEMA).unwrap()).unwrap();
        for run in
            [RunFixture::greeting_broken(), RunFixture::hostile(), RunFixture::mistake(), RunFixture::not_testable()]
        {
            let text = events_of(&run);
            for line in text.lines() {
                let event: Value = serde_json::from_str(line).unwrap();
                let errors: Vec<String> = validator.iter_errors(&event).map(|error| error.to_string()).collect();
                assert!(errors.is_empty(), "{line}: {errors:?}");
            }
        }
        assert!(!validator.is_valid(&serde_json::json!({ "at_ms": 1.0, "event": "stopped" })));
    }

    #[test]
    fn the_events_of_a_broken_greeting_match_the_snapshot() {
        insta::assert_snapshot!("greeting_broken", events_of(&RunFixture::greeting_broken()));
    }
}
