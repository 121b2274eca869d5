//! The TAP report, version 14: one test point per check or threshold. A failure that the baseline expects is a `TODO`,
//! and a check that could not run is skipped. Evidence is in YAML blocks.

use std::fmt::Write;

use super::test_results::{TestCase, TestResults, TestStatus};
use super::text::format_timestamp;

/// Renders TAP 14. Strings in YAML blocks are written as JSON, which YAML contains.
pub fn render(results: &TestResults) -> String {
    let mut out = "TAP version 14\n".to_owned();
    // Writing into a String cannot fail.
    let _ = writeln!(out, "1..{}", results.cases().count());
    let started = format_timestamp(results.started);
    let _ = writeln!(out, "# {} {} against {}, {started}", results.name, results.tool_version, results.target);
    for (number, (_, case)) in results.cases().enumerate() {
        let expected = case.expected.as_ref().filter(|_| matches!(case.kind, "fail" | "warn"));
        let is_ok = matches!(case.status, TestStatus::Passed | TestStatus::Skipped) && expected.is_none();
        let word = if is_ok { "ok" } else { "not ok" };
        let _ = write!(out, "{word} {} - {}", number + 1, escape(&case.name));
        if case.status == TestStatus::Skipped {
            let _ = write!(out, " # SKIP {}", escape(&case.message));
        } else if let Some(reason) = expected {
            let _ = write!(out, " # TODO {}", escape(reason));
        }
        out.push('\n');
        if case.status != TestStatus::Skipped && !case.is_plain_pass() {
            write_diagnostics(&mut out, case);
        }
    }
    out
}

fn write_diagnostics(out: &mut String, case: &TestCase) {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let _ = writeln!(out, "  ---\n  message: {}\n  severity: {}", quote(&case.message), case.kind);
    if let Some((path, line)) = &case.place {
        let _ = writeln!(out, "  at:\n    file: {}\n    line: {line}", quote(path));
    }
    if !case.rules.is_empty() {
        let rules: Vec<String> = case.rules.iter().map(|id| quote(id)).collect();
        let _ = writeln!(out, "  rules: [{}]", rules.join(", "));
    }
    if !case.details.is_empty() {
        out.push_str("  details:\n");
        for line in &case.details {
            let _ = writeln!(out, "    - {}", quote(line));
        }
    }
    out.push_str("  ...\n");
}

/// Escapes the characters that begin a directive.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('#', "\\#")
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{RunFixture, options};
    use super::*;

    fn render_run(run: &RunFixture) -> String {
        render(&TestResults::from_run(&run.report(options()), &run.sources))
    }

    #[test]
    fn the_tap_report_of_a_broken_greeting_matches_the_snapshot() {
        insta::assert_snapshot!("greeting_broken", render_run(&RunFixture::greeting_broken()));
    }

    #[test]
    fn the_tap_report_of_hostile_text_matches_the_snapshot() {
        insta::assert_snapshot!("hostile", render_run(&RunFixture::hostile()));
    }

    #[test]
    fn unplayed_scenarios_and_unmet_needs_are_skipped() {
        for run in [RunFixture::interrupted(), RunFixture::not_testable()] {
            let text = render_run(&run);
            assert!(text.lines().filter(|line| line.contains("# SKIP ")).all(|line| line.starts_with("ok ")), "{text}");
            assert!(text.contains("# SKIP "), "{text}");
        }
    }

    #[test]
    fn number_signs_and_backslashes_of_names_begin_no_directive() {
        assert_eq!(escape(r"a\ # TODO no"), r"a\\ \# TODO no");
    }
}
