//! A load run as build servers see it: one test case per threshold and declared deviation, and one for the validity of
//! the run.

use super::LoadReport;
use crate::load::metrics::CounterId;
use crate::load::metrics::selector::Metric;
use crate::load::plan::threshold::{ThresholdOutcome, ThresholdStanding};
use crate::load::validity::RunValidity;
use crate::report::DeviationReport;
use crate::report::document::load::Wait;
use crate::report::test_results::{Problem, TestCase, TestResults, TestStatus, TestSuite};
use crate::report::text::{escape_unprintable, format_timestamp};
use crate::syntax::source::{Sources, Span};

impl TestResults {
    /// Returns the results of `load`. `sources` has the files of the report's spans.
    pub fn from_load(report: &LoadReport, sources: &Sources) -> Self {
        let about = &report.about;
        let mut properties = vec![
            ("tool.version", about.tool_version.clone()),
            ("started", format_timestamp(about.started)),
            ("target", escape_unprintable(&about.target).into_owned()),
            ("seed", about.seed.to_string()),
            ("validity", report.validity().name().to_owned()),
        ];
        let waits = report.waits.iter().map(Wait::describe);
        for (name, lines) in [("connections", report.ends.describe()), ("waiting", waits.collect())] {
            properties.extend(lines.iter().map(|line| (name, escape_unprintable(line).into_owned())));
        }
        let mut cases: Vec<TestCase> =
            report.thresholds.iter().map(|outcome| threshold_case(report, outcome, sources)).collect();
        cases.extend(report.deviations.iter().map(|one| deviation_case(report, one, sources)));
        cases.push(validity_case(report));
        let undecided = |case: &&TestCase| matches!(case.status, TestStatus::Failed | TestStatus::Undecided);
        let problem = |case: &TestCase| {
            let is_failure = case.status == TestStatus::Failed;
            let title = if is_failure { case.name.clone() } else { format!("{}: {}", case.kind, case.name) };
            Problem { title, ..Problem::from(case.clone()) }
        };
        Self {
            name: "hubproof load",
            tool_version: about.tool_version.clone(),
            started: about.started,
            duration: about.duration,
            target: escape_unprintable(&about.target).into_owned(),
            exit_code: report.exit_code(),
            problems: cases.iter().filter(undecided).map(problem).collect(),
            suites: vec![TestSuite {
                name: escape_unprintable(&about.plan).into_owned(),
                properties,
                cases,
                duration: about.duration,
                output: String::new(),
            }],
        }
    }
}

fn threshold_case(report: &LoadReport, outcome: &ThresholdOutcome, sources: &Sources) -> TestCase {
    let (status, kind) = match outcome.standing {
        _ if outcome.is_uncertain() => (TestStatus::Undecided, "uncertain"),
        ThresholdStanding::Holds => (TestStatus::Passed, "holds"),
        ThresholdStanding::Broken => (TestStatus::Failed, "broken"),
        ThresholdStanding::NotObserved => (TestStatus::Undecided, "not-observed"),
    };
    let ended = if outcome.aborted { "; it ended the run" } else { "" };
    let prefix = if outcome.unobserved.is_some() { "not observed" } else { "observed" };
    let message = format!("{prefix}: {}{ended}", outcome.format_observed_with_uncertainty());
    let mut details = Vec::new();
    let ends = matches!(outcome.threshold.metric, Metric::Errors | Metric::Count(CounterId::Error(_)));
    if ends && status != TestStatus::Passed {
        details.extend(report.ends.describe());
    }
    let items = report.example_items(outcome);
    if !items.is_empty() {
        details.push(format!("the first items: {}", items.join(", ")));
    }
    TestCase {
        details: details.iter().map(|line| escape_unprintable(line).into_owned()).collect(),
        place: outcome.threshold.span.and_then(|span| file_place(span, sources)),
        ..TestCase::new(&report.about.protocol, &outcome.threshold.text, status, kind, &message)
    }
}

fn deviation_case(report: &LoadReport, one: &DeviationReport, sources: &Sources) -> TestCase {
    let (status, kind, message) = match one.is_stale() {
        true => (TestStatus::Failed, "stale", "the hub behaves as documented: delete this entry from the target file"),
        false => (TestStatus::Passed, "holds", ""),
    };
    TestCase {
        details: vec![format!("seen: {}", one.describe_sightings())],
        place: one.span.and_then(|span| file_place(span, sources)),
        ..TestCase::new(&report.about.protocol, &format!("{}: {}", one.name, one.text), status, kind, message)
    }
}

fn validity_case(report: &LoadReport) -> TestCase {
    let (status, kind, message) = match report.validity() {
        RunValidity::Valid if !report.about.interrupted => (TestStatus::Passed, "holds", String::new()),
        RunValidity::Valid => (TestStatus::Undecided, "interrupted", "the run was interrupted".to_owned()),
        other => (TestStatus::Undecided, other.name(), format!("the run is {}", other.name())),
    };
    let reasons = report.judgement.reasons.iter();
    TestCase {
        details: reasons.map(|reason| escape_unprintable(&reason.text).into_owned()).collect(),
        ..TestCase::new(&report.about.protocol, "the run is valid", status, kind, &message)
    }
}

/// Returns file and line of a span, unless it is in an option of the command line.
fn file_place(span: Span, sources: &Sources) -> Option<(String, usize)> {
    let path = &sources.file(span.file).path;
    let is_option = path.starts_with("--");
    (!is_option).then(|| (escape_unprintable(path).into_owned(), sources.line_column(span).0))
}
