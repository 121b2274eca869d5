//! The report of a load run in GitHub-flavored Markdown, for job summaries and comments.

use std::fmt::Write;

use super::LoadReport;
use super::json::build_document;
use super::terminal::verdict_parts;
use crate::load::format::{format_grouped, format_nanos, format_rate};
use crate::report::markdown::{code_span, escape, heading, table_code, write_problems};
use crate::report::test_results::{TestResults, TestStatus};
use crate::report::text::escape_unprintable;
use crate::syntax::source::Sources;

/// Renders the thresholds, the times, lost connections, and the problems.
pub fn render(report: &LoadReport, sources: &Sources) -> String {
    let results = TestResults::from_load(report, sources);
    let document = build_document(report);
    let mut out = heading(&results, results.exit_code);
    // Writing into a String cannot fail.
    let parts = escape(&verdict_parts(report).join(", "));
    let _ = writeln!(out, "{}, seed {}: {parts}", code_span(&report.about.plan), report.about.seed);
    out.push_str("\n| | threshold | result |\n|---|---|---|\n");
    for (_, case) in results.cases() {
        let sign = match case.status {
            TestStatus::Passed => "✅",
            TestStatus::Failed => "❌",
            TestStatus::Undecided | TestStatus::Skipped => "❔",
        };
        let _ = writeln!(out, "| {sign} {} | {} | {} |", case.kind, table_code(&case.name), escape(&case.message));
    }
    if !document.times.is_empty() {
        out.push_str("\n| time | samples | p50 | p90 | p99 | p99.9 | max |\n|---|--:|--:|--:|--:|--:|--:|\n");
    }
    for (name, times) in &document.times {
        let _ = write!(out, "| {} | {} |", table_code(name), format_grouped(times.count));
        let figures = [Some(times.p50_ms), Some(times.p90_ms), times.p99_ms, times.p999_ms, Some(times.max_ms)];
        for figure in figures {
            let _ = write!(out, " {} |", figure.map_or("-".to_owned(), |ms| format_nanos(ms * 1e6)));
        }
        out.push('\n');
    }
    if !document.counts.is_empty() {
        out.push_str("\n| count | whole run | measured |\n|---|--:|--:|\n");
    }
    for (name, count) in &document.counts {
        let (whole, rate) = (format_grouped(count.whole_run), format_rate(count.per_second));
        let _ = writeln!(out, "| {} | {whole} | {rate} |", table_code(name));
    }
    let lines = report.ends.describe();
    if !lines.is_empty() {
        out.push_str("\nLost connections:\n\n");
    }
    for line in lines {
        let _ = writeln!(out, "- {}", code_span(&escape_unprintable(&line)));
    }
    write_problems(&mut out, &results.problems);
    out
}

#[cfg(test)]
mod tests {
    use super::super::fixture::SyntheticRun;
    use super::*;

    #[test]
    fn the_markdown_report_of_a_run_with_every_problem_matches_the_snapshot() {
        insta::assert_snapshot!("markdown", render(&SyntheticRun::troubled().report(), &Sources::default()));
    }
}
