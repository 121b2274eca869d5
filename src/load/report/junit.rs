//! The JUnit report for CI servers: one test case per threshold and declared deviation, and one for the validity of the
//! run.

use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};

use super::{LoadReport, WaitReport};
use crate::load::metrics::CounterId;
use crate::load::metrics::selector::Metric;
use crate::load::plan::threshold::{ThresholdOutcome, ThresholdStanding};
use crate::load::validity::RunValidity;
use crate::report::DeviationReport;
use crate::report::text::{escape_unprintable, format_timestamp};

/// Renders XML 1.0 in UTF-8.
pub fn render(report: &LoadReport) -> String {
    let about = &report.about;
    let mut suite = TestSuite::new(escape_unprintable(&about.plan).into_owned());
    for (name, value) in [
        ("tool.version", about.tool_version.clone()),
        ("started", format_timestamp(about.started)),
        ("target", escape_unprintable(&about.target).into_owned()),
        ("validity", report.validity().name().to_owned()),
    ] {
        suite.add_property(Property::new(name, value));
    }
    let waits = report.waits.iter().map(WaitReport::describe);
    for (name, lines) in [("connections", report.ends.describe()), ("waiting", waits.collect())] {
        for line in lines {
            suite.add_property(Property::new(name, escape_unprintable(&line).into_owned()));
        }
    }
    for outcome in &report.thresholds {
        suite.add_test_case(case(report, &outcome.threshold.text, threshold(report, outcome)));
    }
    for one in &report.deviations {
        suite.add_test_case(case(report, &format!("{}: {}", one.name, one.text), deviation(one)));
    }
    suite.add_test_case(case(report, "the run is valid", validity_case(report)));
    suite.set_time(about.duration);
    let mut all = Report::new("hubproof load");
    all.set_time(about.duration);
    all.add_test_suite(suite);
    // Writes into memory, and escapes any text.
    all.to_string().unwrap_or_default()
}

fn case(report: &LoadReport, name: &str, status: TestCaseStatus) -> TestCase {
    let mut case = TestCase::new(escape_unprintable(name), status);
    case.set_classname(escape_unprintable(&report.about.protocol));
    case
}

fn threshold(report: &LoadReport, outcome: &ThresholdOutcome) -> TestCaseStatus {
    let (kind, word) = match outcome.standing {
        _ if outcome.is_uncertain() => (NonSuccessKind::Error, "uncertain"),
        ThresholdStanding::Holds => return TestCaseStatus::success(),
        ThresholdStanding::Broken => (NonSuccessKind::Failure, "broken"),
        ThresholdStanding::NotObserved => (NonSuccessKind::Error, "not-observed"),
    };
    let mut status = TestCaseStatus::non_success(kind);
    let ended = if outcome.aborted { "; it ended the run" } else { "" };
    let items = report.example_items(outcome);
    if matches!(outcome.threshold.metric, Metric::Errors | Metric::Count(CounterId::Error(_))) {
        status.set_description(escape_unprintable(&report.ends.describe().join("; ")).into_owned());
    }
    if !items.is_empty() {
        status.set_description(format!("the first items: {}", escape_unprintable(&items.join(", "))));
    }
    let prefix = if outcome.unobserved.is_some() { "not observed" } else { "observed" };
    status.set_message(format!("{prefix}: {}{ended}", outcome.format_observed_with_uncertainty())).set_type(word);
    status
}

fn deviation(one: &DeviationReport) -> TestCaseStatus {
    if !one.is_stale() {
        return TestCaseStatus::success();
    }
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    status
        .set_message("the hub behaves as documented: delete this entry from the target file")
        .set_type("stale")
        .set_description(format!("seen: {}", one.describe_sightings()));
    status
}

fn validity_case(report: &LoadReport) -> TestCaseStatus {
    let (word, kind) = match report.validity() {
        RunValidity::Valid if !report.about.interrupted => return TestCaseStatus::success(),
        RunValidity::Valid => ("the run was interrupted".to_owned(), "interrupted"),
        other => (format!("the run is {}", other.name()), other.name()),
    };
    let reasons: Vec<String> =
        report.judgement.reasons.iter().map(|reason| escape_unprintable(&reason.text).into_owned()).collect();
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
    status.set_message(word).set_type(kind);
    status.set_description(reasons.join("\n"));
    status
}
