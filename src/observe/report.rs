//! The report of observed traffic: a page for the terminal, test cases for build servers, and events as JSON Lines.

use std::time::Duration;

use serde::Serialize;

use super::findings::{ObservedFinding, ShownFrame};
use super::jobs::JobTotals;
use crate::import::recording::{self, Side};
use crate::outcome::Verdict;
use crate::report::events::to_line;
use crate::report::html::observed::{FindingView, ObservedView};
use crate::report::terminal_page::{DIM, Page, Style, verdict_line};
use crate::report::test_results::{Problem, TestCase, TestResults, TestStatus, TestSuite};
use crate::report::text::{escape_unprintable, format_count, format_time, format_timestamp, shorten};
use crate::syntax::source::Sources;

/// How much was observed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficTotals {
    pub connections: usize,
    /// Connections of which the beginning was not observed.
    pub joined: usize,
    /// Connections that were not judged to their end, because the judge did not keep up.
    pub left_out: usize,
    /// Messages, close frames and violations of the hub, and of clients.
    pub frames: [usize; 2],
}

/// What was observed and found.
#[derive(Clone, Debug)]
pub struct ObservedTraffic {
    pub protocol: String,
    pub pack_version: String,
    pub pack_hash: String,
    /// The side that was judged; both if there is none.
    pub only: Option<Side>,
    pub totals: TrafficTotals,
    /// `None` if the pack does not say which messages are about jobs.
    pub jobs: Option<JobTotals>,
    pub findings: Vec<ObservedFinding>,
    /// The number of findings beyond the most that are kept.
    pub dropped_findings: usize,
}

/// A run of `observe`.
#[derive(Clone, Debug)]
pub struct ObservedRun {
    pub traffic: ObservedTraffic,
    /// The URL of the hub, or the path of the recordings.
    pub target: String,
    /// Unix time in milliseconds.
    pub started: u64,
    pub duration: Duration,
    /// Whether warnings fail the run.
    pub strict: bool,
    /// Why not all that was observed was judged.
    pub failure: Option<String>,
}

impl ObservedTraffic {
    /// Renders the totals in Prometheus' text format.
    pub fn metrics(&self) -> String {
        let totals = &self.totals;
        let mut out = String::new();
        let mut family = |name: &str, help: &str, samples: &[(String, usize)]| {
            out.push_str(&format!("# HELP hubproof_observed_{name} {help}\n# TYPE hubproof_observed_{name} counter\n"));
            for (labels, value) in samples {
                out.push_str(&format!("hubproof_observed_{name}{labels} {value}\n"));
            }
        };
        let plain = |value| [(String::new(), value)];
        family("connections_total", "Connections that were observed.", &plain(totals.connections));
        let left_out = "Connections that were not judged to their end.";
        family("connections_left_out_total", left_out, &plain(totals.left_out));
        let frames = Side::BOTH.map(|side| (format!("{{side=\"{side}\"}}"), totals.frames[side as usize]));
        family("frames_total", "Frames that each side sent.", &frames);
        let verdicts = [Verdict::Fail, Verdict::Warn, Verdict::Info];
        let kinds = Side::BOTH.into_iter().flat_map(|side| verdicts.map(|verdict| (side, verdict)));
        let findings: Vec<(String, usize)> = kinds
            .map(|(side, verdict)| {
                let of_kind = self.findings.iter().filter(|one| one.side == side && one.verdict == verdict);
                let labels = format!("{{side=\"{side}\",verdict=\"{}\"}}", verdict.name());
                (labels, of_kind.map(|finding| finding.times).sum())
            })
            .collect();
        family("findings_total", "Frames with which a side broke a rule, by the verdict.", &findings);
        if let Some(jobs) = &self.jobs {
            let jobs = jobs.named().map(|(name, number)| (format!("{{state=\"{name}\"}}"), number));
            family("jobs_total", "Jobs by what became of them.", &jobs);
        }
        out
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The most findings that a page in HTML shows.
const MAX_SHOWN: usize = 200;

impl TrafficTotals {
    /// Formats the share of connections that were judged to their end.
    fn judged(&self) -> Option<String> {
        let judged = self.connections.saturating_sub(self.left_out);
        (self.left_out > 0).then(|| format!("{judged} of {} judged", format_count(self.connections, "connection")))
    }
}

impl ObservedRun {
    /// Returns 1 if a must is broken, 3 if nothing was observed or the judge failed, otherwise 0.
    pub fn exit_code(&self) -> u8 {
        let fails = |finding: &ObservedFinding| match finding.verdict {
            Verdict::Fail => true,
            Verdict::Warn => self.strict,
            _ => false,
        };
        let totals = &self.traffic.totals;
        match () {
            () if self.traffic.findings.iter().any(fails) => 1,
            () if self.failure.is_some() || totals.frames == [0, 0] => 3,
            () => 0,
        }
    }

    /// Returns the verdict on the run in one line.
    pub fn verdict_line(&self) -> String {
        verdict_line(self.exit_code(), &self.traffic.protocol, &self.verdict_parts())
    }

    fn sides(&self) -> impl Iterator<Item = Side> + '_ {
        Side::BOTH.into_iter().filter(|side| self.traffic.only.is_none_or(|only| only == *side))
    }

    fn verdict_parts(&self) -> Vec<String> {
        let of_side = |side: Side| {
            let count =
                |verdict| self.traffic.findings.iter().filter(|one| one.side == side && one.verdict == verdict).count();
            let (failed, warned) = (count(Verdict::Fail), count(Verdict::Warn));
            let failures = (failed > 0).then(|| format_count(failed, "failure"));
            let warnings = (warned > 0).then(|| format_count(warned, "warning"));
            let found: Vec<String> = failures.into_iter().chain(warnings).collect();
            let found = if found.is_empty() { "no finding".to_owned() } else { found.join(" and ") };
            format!("{found} about the {side}")
        };
        let TrafficTotals { connections, frames, .. } = &self.traffic.totals;
        let observed = format_count(frames.iter().sum(), "frame");
        let mut parts: Vec<String> = self.sides().map(of_side).collect();
        parts.push(format!("{observed} on {}", format_count(*connections, "connection")));
        parts.extend(self.traffic.totals.judged());
        parts
    }

    /// Renders the page; ends with a newline.
    pub fn page(&self, sources: &Sources, style: Style) -> String {
        let mut page = Page::new(VERSION, &self.target, self, sources, style);
        let traffic = &self.traffic;
        let findings = self.sorted_findings();
        let most = page.most();
        for finding in findings.iter().take(most) {
            page.gap();
            page.wrapped("", &escape_unprintable(&finding.headline()));
            if finding.times > 1 {
                page.field("seen", &finding.seen());
            }
            if finding.verdict == Verdict::Info {
                continue;
            }
            for line in finding.frame_lines() {
                let line = format!("  {}", escape_unprintable(&line));
                let line = shorten(&line, style.width).into_owned();
                let is_judged = line.starts_with("  >");
                page.line(&if is_judged { line } else { page.paint(DIM, &line) });
            }
        }
        let more = (findings.len() + traffic.dropped_findings).saturating_sub(most);
        if more > 0 {
            page.gap();
            page.line(&format!("... and {}; see `--report events=FILE`", format_count(more, "more finding")));
        }
        page.gap();
        if let Some(jobs) = &traffic.jobs {
            page.field("jobs", &jobs.describe());
        }
        if traffic.totals.joined > 0 {
            let joined = format_count(traffic.totals.joined, "connection");
            page.field("joined", &format!("{joined} after the beginning: what came before is unknown"));
        }
        if traffic.totals.left_out > 0 {
            let left = format_count(traffic.totals.left_out, "connection");
            page.field("left out", &format!("{left}, because the judge did not keep up"));
        }
        if let Some(failure) = &self.failure {
            page.field("not judged", &escape_unprintable(failure));
        }
        page.verdict(self.exit_code(), &escape_unprintable(&traffic.protocol), &self.verdict_parts());
        page.out
    }

    /// Returns what a page shows of the run, which has not ended if it is live.
    pub fn view(&self, is_live: bool) -> ObservedView {
        let Self { traffic, target, .. } = self;
        let (verdict, title) = match (is_live, self.exit_code()) {
            (true, _) => ("running", format!("{}: observing", traffic.protocol)),
            (false, 0) => ("pass", self.verdict_line()),
            (false, 1) => ("fail", self.verdict_line()),
            (false, _) => ("inconclusive", self.verdict_line()),
        };
        let totals = &traffic.totals;
        let mut facts = vec![
            ("Hub", target.clone()),
            ("Started", format_timestamp(self.started)),
            (if is_live { "Runs for" } else { "Took" }, format_time(self.duration)),
            ("Connections", totals.connections.to_string()),
            ("Frames of the hub", totals.frames[Side::Hub as usize].to_string()),
            ("Frames of clients", totals.frames[Side::Client as usize].to_string()),
        ];
        facts.extend(totals.judged().map(|judged| ("Judged", judged)));
        facts.extend(traffic.jobs.map(|jobs| ("Jobs", jobs.describe())));
        facts.extend(self.failure.clone().map(|why| ("Not judged", why)));
        facts.push(("hubproof", VERSION.to_owned()));
        let sorted = self.sorted_findings();
        let view = |finding: &&ObservedFinding| FindingView {
            verdict: finding.verdict.name(),
            headline: finding.headline(),
            seen: finding.seen(),
            frames: finding.frames.iter().map(|frame| frame.is_judged).zip(finding.frame_lines()).collect(),
        };
        let findings: Vec<FindingView> = sorted.iter().take(MAX_SHOWN).map(view).collect();
        let more = sorted.len() + traffic.dropped_findings - findings.len();
        ObservedView { title, verdict, facts, findings, more }
    }

    /// Returns the findings, the worst first.
    fn sorted_findings(&self) -> Vec<&ObservedFinding> {
        let mut findings: Vec<&ObservedFinding> = self.traffic.findings.iter().collect();
        findings.sort_by_key(|finding| (std::cmp::Reverse(finding.verdict), finding.side));
        findings
    }

    /// Renders the last event.
    pub fn last_event(&self) -> String {
        let totals = &self.traffic.totals;
        let finding = |finding| FindingLine::new(finding, &[]);
        to_line(&ObserveEvent::ObservingFinished {
            exit_code: self.exit_code(),
            summary: self.verdict_line(),
            connections: totals.connections,
            joined: totals.joined,
            left_out: totals.left_out,
            frames_from_hub: totals.frames[Side::Hub as usize],
            frames_to_hub: totals.frames[Side::Client as usize],
            jobs: self.traffic.jobs,
            findings: self.traffic.findings.iter().map(finding).collect(),
        })
    }

    /// Returns the findings as test cases, one suite for each side.
    pub fn test_results(&self) -> TestResults {
        let case = |finding: &ObservedFinding| {
            let status = match finding.verdict {
                Verdict::Fail => TestStatus::Failed,
                Verdict::Warn if self.strict => TestStatus::Failed,
                _ => TestStatus::Passed,
            };
            let name = match finding.place.as_str() {
                "" => format!("{}:{}", finding.side, finding.check),
                place => format!("{}:{}:{place}", finding.side, finding.check),
            };
            let lines = finding.frame_lines();
            TestCase {
                details: lines.iter().map(|line| escape_unprintable(line).into_owned()).collect(),
                rules: finding.rules.iter().map(|rule| rule.id.clone()).collect(),
                assertions: Some(finding.times),
                ..TestCase::new(&self.traffic.protocol, &name, status, finding.verdict.name(), &finding.message)
            }
        };
        let suite = |side: Side| {
            let mut cases: Vec<TestCase> =
                self.traffic.findings.iter().filter(|finding| finding.side == side).map(case).collect();
            if cases.is_empty() {
                let (status, kind) = match self.exit_code() {
                    3 => (TestStatus::Undecided, "inconclusive"),
                    _ => (TestStatus::Passed, "pass"),
                };
                let message = self.failure.as_deref().unwrap_or_default();
                cases.push(TestCase::new(&self.traffic.protocol, &format!("{side}:frames"), status, kind, message));
            }
            TestSuite {
                name: format!("{}: {side}", escape_unprintable(&self.traffic.protocol)),
                properties: vec![
                    ("tool.version", VERSION.to_owned()),
                    ("started", format_timestamp(self.started)),
                    ("target", escape_unprintable(&self.target).into_owned()),
                    ("pack.version", self.traffic.pack_version.clone()),
                    ("pack.hash", self.traffic.pack_hash.clone()),
                    ("frames", self.traffic.totals.frames[side as usize].to_string()),
                ],
                cases,
                duration: self.duration,
                output: String::new(),
            }
        };
        let suites: Vec<TestSuite> = self.sides().map(suite).collect();
        let found = |case: &&TestCase| matches!(case.kind, "fail" | "warn" | "inconclusive");
        let problem = |case: &TestCase| {
            let is_error = case.status != TestStatus::Passed;
            Problem { is_error, ..Problem::from(case.clone()) }
        };
        let problems = suites.iter().flat_map(|suite| &suite.cases).filter(found).map(problem).collect();
        TestResults {
            name: "hubproof observe",
            tool_version: VERSION.to_owned(),
            started: self.started,
            duration: self.duration,
            target: escape_unprintable(&self.target).into_owned(),
            exit_code: self.exit_code(),
            suites,
            problems,
        }
    }
}

/// A line of the events of `hubproof observe`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(title = "hubproof observe events"))]
#[serde(tag = "event", rename_all = "kebab-case")]
enum ObserveEvent<'a> {
    /// The first line.
    ObservingStarted {
        tool: &'static str,
        version: &'static str,
        /// RFC 3339, UTC.
        started: String,
        protocol: &'a str,
        /// The URL of the hub, or the path of the recordings.
        target: &'a str,
    },
    /// Something that one side did wrong for the first time.
    Finding(FindingLine<'a>),
    /// The last line.
    ObservingFinished {
        exit_code: u8,
        summary: String,
        connections: usize,
        /// Connections of which the beginning was not observed.
        joined: usize,
        /// Connections that the judge dropped because it fell behind.
        left_out: usize,
        frames_from_hub: usize,
        frames_to_hub: usize,
        /// Null if the pack does not say which messages are about jobs.
        jobs: Option<JobTotals>,
        /// All findings, without frames.
        findings: Vec<FindingLine<'a>>,
    },
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct FindingLine<'a> {
    /// hub or client.
    side: &'static str,
    check: &'a str,
    rules: Vec<&'a str>,
    verdict: Verdict,
    message: &'a str,
    /// The connection of the first occurrence.
    connection: u64,
    times: usize,
    connections: usize,
    /// The frames up to the wrong one, which is the last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    frames: Vec<FrameLine<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct FrameLine<'a> {
    /// RFC 3339, UTC.
    time: String,
    /// to-hub or from-hub; null for the opening of the connection.
    direction: Option<&'static str>,
    text: &'a str,
}

impl<'a> FindingLine<'a> {
    fn new(finding: &'a ObservedFinding, frames: &'a [ShownFrame]) -> Self {
        let frame = |frame: &'a ShownFrame| FrameLine {
            time: recording::format_time(frame.time),
            direction: frame.by.map(Side::direction),
            text: &frame.text,
        };
        Self {
            side: finding.side.name(),
            check: &finding.check,
            rules: finding.rules.iter().map(|rule| rule.id.as_str()).collect(),
            verdict: finding.verdict,
            message: &finding.message,
            connection: finding.connection,
            times: finding.times,
            connections: finding.connections,
            frames: frames.iter().map(frame).collect(),
        }
    }
}

/// Renders the first event. `started` is Unix time in milliseconds.
pub fn first_event(started: u64, protocol: &str, target: &str) -> String {
    let started = format_timestamp(started);
    to_line(&ObserveEvent::ObservingStarted { tool: "hubproof", version: VERSION, started, protocol, target })
}

/// Renders the event of a finding.
pub fn finding_event(finding: &ObservedFinding) -> String {
    to_line(&ObserveEvent::Finding(FindingLine::new(finding, &finding.frames)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::assert_schema_is_derived;

    #[test]
    fn the_published_schema_is_derived_from_the_types_of_the_events() {
        assert_schema_is_derived::<ObserveEvent<'_>>("observe-events.schema.json");
    }
}
