//! The report in SARIF 2.1.0, for code scanning: a run per protocol, with all rules of its document, and a result per
//! failed check and warning, at the line of the scenario. SARIF has no result for what could not be judged, so failed
//! preconditions and mistakes are notifications.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::test_results::{TestCase, TestResults, command_name};
use super::text::{escape_unprintable, format_timestamp, quote_for_shell};
use super::{ProtocolReport, RuleReport, RunReport};
use crate::protocol::{RuleLevel, RulePlace};
use crate::syntax::source::{Sources, Span};

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// The characters that a path of a URI must not contain.
const NOT_IN_PATHS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b':')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Renders JSON; ends with a newline. `sources` has the files of the report's spans.
pub fn render(report: &RunReport, sources: &Sources) -> String {
    let results = TestResults::from_run(report, sources);
    let runs = report.protocols.iter().zip(&results.suites);
    let runs: Vec<Value> =
        runs.map(|(protocol, suite)| SarifWriter { report, protocol, sources }.run(&suite.cases)).collect();
    format!("{:#}\n", json!({ "$schema": SCHEMA, "version": "2.1.0", "runs": runs }))
}

struct SarifWriter<'a> {
    report: &'a RunReport,
    protocol: &'a ProtocolReport,
    sources: &'a Sources,
}

impl SarifWriter<'_> {
    fn run(&self, cases: &[TestCase]) -> Value {
        let reported: Vec<&TestCase> = cases.iter().filter(|case| level(case).is_some()).collect();
        let mut rules: BTreeMap<String, Value> =
            self.protocol.rules.iter().map(|(id, rule)| (id.clone(), self.rule(id, rule))).collect();
        for case in &reported {
            let id = rule_id(case);
            rules.entry(id.to_owned()).or_insert_with(|| self.other_rule(id, case));
        }
        let index = |id: &str| rules.keys().position(|known| known == id);
        let results = reported.iter().map(|case| self.result(case, index(rule_id(case))));
        let results = results.collect::<Vec<_>>();
        let options = &self.report.options;
        let code = self.protocol.exit_code(options);
        let command: Vec<_> = options.command.iter().map(|word| quote_for_shell(word)).collect();
        let duration = u64::try_from(self.report.duration.as_millis()).unwrap_or(u64::MAX);
        json!({
            "tool": { "driver": {
                "name": "hubproof",
                "semanticVersion": self.report.tool_version,
                "rules": rules.into_values().collect::<Vec<_>>(),
            } },
            "automationDetails": { "id": format!("{}/{}/", command_name(self.report), self.protocol.name) },
            "invocations": [{
                "commandLine": escape_unprintable(&command.join(" ")),
                "startTimeUtc": format_timestamp(self.report.started),
                "endTimeUtc": format_timestamp(self.report.started.saturating_add(duration)),
                "exitCode": code,
                // 1 means that the hub failed, not hubproof.
                "executionSuccessful": code < 2,
                "toolExecutionNotifications": self.notifications(),
            }],
            "results": results,
            "columnKind": "unicodeCodePoints",
            "properties": {
                "target": escape_unprintable(&options.target),
                "document": escape_unprintable(&self.protocol.document),
                "packVersion": self.protocol.pack_version,
                "packHash": self.protocol.pack_hash,
                "seed": self.protocol.fuzzed.as_ref().map(|fuzzed| fuzzed.seed),
            },
        })
    }

    fn rule(&self, id: &str, rule: &RuleReport) -> Value {
        let document = &self.protocol.document;
        let place = match &rule.place {
            RulePlace::Oracle => rule.place.to_string(),
            place => format!("{document}, {place}"),
        };
        let from = rule.from.as_ref().map(|from| format!(" It follows from: {from}.")).unwrap_or_default();
        let level = match rule.level {
            RuleLevel::Must => "error",
            RuleLevel::Should => "warning",
            RuleLevel::May => "note",
        };
        let mut properties = json!({ "level": rule.level.name(), "basis": rule.basis.name(), "document": document });
        match &rule.place {
            RulePlace::Line(line) => properties["line"] = (*line).into(),
            RulePlace::Section(section) => properties["section"] = section.as_str().into(),
            RulePlace::Oracle => {}
        }
        json!({
            "id": id,
            "shortDescription": { "text": rule.text },
            "fullDescription": { "text": rule.text },
            "help": { "text": format!("{place} ({}, {}).{from}", rule.level.name(), rule.basis.name()) },
            "defaultConfiguration": { "level": level },
            "properties": properties,
        })
    }

    /// Returns the rule of a result that has none in the document: a check without rules, a stale entry or a crash.
    fn other_rule(&self, id: &str, case: &TestCase) -> Value {
        let text = match case.kind {
            "stale" => "An entry of a baseline or target file no longer applies.",
            "crash" => "The hub ends or hangs, and no single scenario explains why.",
            _ => "A check of the pack that the document has no rule for.",
        };
        json!({ "id": id, "shortDescription": { "text": text }, "fullDescription": { "text": text } })
    }

    fn result(&self, case: &TestCase, rule: Option<usize>) -> Value {
        let lines = std::iter::once(&case.message).chain(&case.details);
        let message = lines.map(String::as_str).collect::<Vec<_>>().join("\n");
        // Code scanning accepts no result without a place.
        let first = || self.protocol.scenarios.first().map(|scenario| self.place(scenario.span));
        let place = case.place.clone().or_else(first);
        let mut location = Map::new();
        if let Some((path, line)) = place {
            location.insert("physicalLocation".to_owned(), physical_location(&path, line));
        }
        location.insert("logicalLocations".to_owned(), json!([{ "fullyQualifiedName": case.name }]));
        let mut result = json!({
            "ruleId": rule_id(case),
            "ruleIndex": rule,
            "kind": "fail",
            "level": level(case),
            "message": { "text": message },
            "locations": [location],
            "partialFingerprints": { "check/v1": case.name },
            "properties": { "check": case.name, "verdict": case.kind, "rules": case.rules, "flaky": case.flaky },
        });
        if let Some(reason) = &case.expected {
            result["suppressions"] = json!([{ "kind": "external", "status": "accepted", "justification": reason }]);
        }
        result
    }

    /// Returns the failed preconditions, and the mistakes in scenarios.
    fn notifications(&self) -> Vec<Value> {
        let notification = |level: &str, text: String, span: Option<Span>| {
            let place = span.map(|span| self.place(span));
            let locations: Vec<Value> = place
                .into_iter()
                .map(|(path, line)| json!({ "physicalLocation": physical_location(&path, line) }))
                .collect();
            json!({ "level": level, "message": { "text": escape_unprintable(&text) }, "locations": locations })
        };
        let causes = self.protocol.causes.iter().map(|cause| {
            let text = format!("`{}` failed: {}", cause.step, cause.message);
            notification("warning", text, cause.span)
        });
        let mistakes = self.protocol.scenarios.iter().filter_map(|scenario| {
            let text = format!("{} has a mistake: {}", scenario.id, scenario.mistake()?);
            Some(notification("error", text, Some(scenario.place())))
        });
        causes.chain(mistakes).collect()
    }

    fn place(&self, span: Span) -> (String, usize) {
        (self.sources.path(span).to_owned(), self.sources.line_column(span).0)
    }
}

/// Returns the level of a case's result; `None` if the case is not a result.
fn level(case: &TestCase) -> Option<&'static str> {
    match case.kind {
        "fail" | "stale" | "crash" => Some("error"),
        "warn" => Some("warning"),
        _ => None,
    }
}

/// Returns the first broken rule, or the name of the check.
fn rule_id(case: &TestCase) -> &str {
    match case.kind {
        "stale" | "crash" => case.kind,
        _ => {
            case.rules.first().map_or_else(|| case.name.split_once(':').map_or("", |(_, check)| check), String::as_str)
        }
    }
}

fn physical_location(path: &str, line: usize) -> Value {
    json!({ "artifactLocation": { "uri": to_uri(path) }, "region": { "startLine": line } })
}

/// Returns a relative URI for a relative path.
fn to_uri(path: &str) -> String {
    let encoded = utf8_percent_encode(path, NOT_IN_PATHS).to_string();
    if path.starts_with('/') { format!("file://{encoded}") } else { encoded }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::fixture::{RunFixture, options};
    use super::*;

    fn render_run(run: &RunFixture) -> String {
        render(&run.report(options()), &run.sources)
    }

    #[test]
    fn the_sarif_report_of_a_broken_greeting_matches_the_snapshot() {
        insta::assert_snapshot!("greeting_broken", render_run(&RunFixture::greeting_broken()));
    }

    #[rstest]
    #[case::all_pass(RunFixture::all_pass(), &[])]
    #[case::failure(RunFixture::one_failure(), &["error"])]
    #[case::hostile(RunFixture::hostile(), &["error"])]
    #[case::warning(RunFixture::warning(), &["warning", "warning"])]
    #[case::greeting_broken(RunFixture::greeting_broken(), &["error"])]
    #[case::unreachable(RunFixture::unreachable(), &[])]
    #[case::fallen(RunFixture::hub_ended(None), &["error"])]
    fn every_failure_and_warning_is_a_result_with_a_rule_and_a_place(#[case] run: RunFixture, #[case] levels: &[&str]) {
        let log: Value = serde_json::from_str(&render_run(&run)).unwrap();
        let rules = log["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
        assert!(rules.len() >= run.pack.rules.len());
        let results = log["runs"][0]["results"].as_array().unwrap();
        assert_eq!(results.iter().map(|result| result["level"].as_str().unwrap()).collect::<Vec<_>>(), levels);
        for result in results {
            let rule = &rules[usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap()];
            assert_eq!(rule["id"], result["ruleId"]);
            let place = &result["locations"][0]["physicalLocation"];
            assert!(place["artifactLocation"]["uri"].as_str().unwrap().starts_with("scenarios/greeter/"), "{place}");
        }
    }

    #[rstest]
    #[case("scenarios/a b.yaml", "scenarios/a%20b.yaml")]
    #[case("/tmp/100%.yaml", "file:///tmp/100%25.yaml")]
    #[case("a:b/ü.yaml", "a%3Ab/%C3%BC.yaml")]
    fn paths_become_uris(#[case] path: &str, #[case] expected: &str) {
        assert_eq!(to_uri(path), expected);
    }
}
