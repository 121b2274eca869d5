//! The report in the Common Test Report Format (<https://ctrf.io>). Undecided checks have the status `other`.

use serde_json::{Map, Value, json};

use super::test_results::{TestCase, TestResults, TestStatus, TestSuite};
use super::text::format_timestamp;

/// The version of the format's schema.
const SPEC_VERSION: &str = "0.0.0";

/// Renders JSON; ends with a newline.
pub fn render(results: &TestResults) -> String {
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let test = |(suite, case): (&TestSuite, &TestCase)| {
        let mut test = json!({
            "name": case.name,
            "suite": [suite.name],
            "status": status_name(case.status),
            "duration": case.duration.map_or(0, millis),
            "rawStatus": case.kind,
        });
        let mut add =
            |name: &str, value: Value| drop(test.as_object_mut().map(|test| test.insert(name.to_owned(), value)));
        if !case.is_plain_pass() {
            add("message", case.message.as_str().into());
        }
        if !case.details.is_empty() {
            add("trace", case.details.join("\n").into());
        }
        if let Some((path, line)) = &case.place {
            add("filePath", path.as_str().into());
            add("line", (*line).into());
        }
        if case.flaky {
            add("flaky", true.into());
        }
        if !case.rules.is_empty() {
            add("tags", case.rules.clone().into());
        }
        let mut extra = properties(&case.properties);
        if let Some(reason) = &case.expected {
            extra.insert("expected".to_owned(), reason.as_str().into());
        }
        if !extra.is_empty() {
            add("extra", extra.into());
        }
        test
    };
    let suite = |suite: &TestSuite| (suite.name.clone(), Value::from(properties(&suite.properties)));
    let (start, duration) = (results.started, millis(results.duration));
    let report = json!({
        "reportFormat": "CTRF",
        "specVersion": SPEC_VERSION,
        "timestamp": format_timestamp(start),
        "generatedBy": format!("hubproof {}", results.tool_version),
        "results": {
            "tool": { "name": results.name, "version": results.tool_version },
            "summary": {
                "tests": results.cases().count(),
                "passed": results.count(TestStatus::Passed),
                "failed": results.count(TestStatus::Failed),
                "skipped": results.count(TestStatus::Skipped),
                "pending": 0,
                "other": results.count(TestStatus::Undecided),
                "flaky": results.cases().filter(|(_, case)| case.flaky).count(),
                "suites": results.suites.len(),
                "start": start,
                "stop": start.saturating_add(duration),
                "duration": duration,
            },
            "tests": results.cases().map(test).collect::<Vec<_>>(),
            "environment": { "testEnvironment": results.target },
            "extra": {
                "exitCode": results.exit_code,
                "suites": results.suites.iter().map(suite).collect::<Map<_, _>>(),
            },
        },
    });
    format!("{report:#}\n")
}

fn properties(all: &[(&'static str, String)]) -> Map<String, Value> {
    let mut map = Map::new();
    for (name, value) in all {
        // A name that occurs twice, such as `connections`, has a value per line.
        match map.get_mut(*name) {
            Some(Value::String(text)) => *text = format!("{text}\n{value}"),
            _ => drop(map.insert((*name).to_owned(), value.as_str().into())),
        }
    }
    map
}

fn status_name(status: TestStatus) -> &'static str {
    match status {
        TestStatus::Passed => "passed",
        TestStatus::Failed => "failed",
        TestStatus::Skipped => "skipped",
        TestStatus::Undecided => "other",
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::fixture::{RunFixture, options};
    use super::*;

    fn render_run(run: &RunFixture) -> String {
        render(&TestResults::from_run(&run.report(options()), &run.sources))
    }

    #[test]
    fn the_ctrf_report_of_a_flaky_check_matches_the_snapshot() {
        insta::assert_snapshot!("flaky", render_run(&RunFixture::flaky()));
    }

    #[rstest]
    #[case::all_pass(RunFixture::all_pass(), [7, 7, 0, 0, 0])]
    #[case::failure(RunFixture::one_failure(), [7, 6, 1, 0, 0])]
    #[case::hostile(RunFixture::hostile(), [7, 6, 1, 0, 0])]
    #[case::greeting_broken(RunFixture::greeting_broken(), [6, 0, 1, 0, 5])]
    #[case::interrupted(RunFixture::interrupted(), [6, 4, 0, 2, 0])]
    #[case::nothing_selected(RunFixture::nothing_selected(), [0; 5])]
    fn the_summary_counts_every_test_once(#[case] run: RunFixture, #[case] expected: [usize; 5]) {
        let report: Value = serde_json::from_str(&render_run(&run)).unwrap();
        let counts = ["tests", "passed", "failed", "skipped", "other"]
            .map(|name| report["results"]["summary"][name].as_u64().unwrap() as usize);
        assert_eq!(counts, expected);
        assert_eq!(report["results"]["tests"].as_array().unwrap().len(), expected[0]);
    }
}
