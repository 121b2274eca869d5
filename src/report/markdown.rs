//! The report in GitHub-flavored Markdown, for job summaries and comments. Text of a hub stands in code spans and code
//! blocks only, so it forms no markup.

use std::fmt::Write;

use super::terminal::verdict_parts;
use super::terminal_page::verdict_word;
use super::test_results::{Problem, TestResults};
use super::text::{escape_unprintable, format_time, format_timestamp, shorten};
use super::{RunReport, exit_code};
use crate::outcome::Verdict;
use crate::syntax::source::Sources;

/// Most problems that are shown. A job summary of GitHub has at most 1 MiB.
const MAX_PROBLEMS: usize = 50;
/// Most characters of a line in a code block.
const MAX_LINE: usize = 1_000;
/// Most lines of a problem.
const MAX_LINES: usize = 30;

/// Renders a table of the protocols, and the problems.
pub fn render(report: &RunReport, sources: &Sources) -> String {
    let results = TestResults::from_run(report, sources);
    let mut out = heading(&results, exit_code(report));
    let verdicts = Verdict::ALL.map(|verdict| verdict.name().replace('-', " ")).join(" | ");
    // Writing into a String cannot fail.
    let _ = writeln!(out, "| protocol | verdict | | rules proven | checks | {verdicts} |");
    let _ = writeln!(out, "|---|---|---|--:|--:|{}", "--:|".repeat(Verdict::ALL.len()));
    for protocol in &report.protocols {
        let (tally, rules) = (protocol.check_tally(), protocol.rule_totals());
        let word = verdict_word(protocol.exit_code(&report.options));
        let parts = escape(&verdict_parts(protocol, &report.options).join(", "));
        let _ = write!(out, "| {} | **{word}** | {parts} ", code_span(&protocol.name));
        let _ = write!(out, "| {} of {} | {} |", rules.proven, rules.total, tally.total());
        for verdict in Verdict::ALL {
            let _ = write!(out, " {} |", tally.count(verdict));
        }
        out.push('\n');
    }
    write_problems(&mut out, &results.problems);
    out
}

/// Returns the heading, with target, version, time and duration.
pub fn heading(results: &TestResults, exit_code: u8) -> String {
    format!(
        "## {}: {}\n\n{} · hubproof {} · {} · {}\n\n",
        results.name,
        verdict_word(exit_code),
        code_span(&results.target),
        escape(&results.tool_version),
        code_span(&format_timestamp(results.started)),
        format_time(results.duration),
    )
}

/// Writes each problem with its place and evidence.
pub fn write_problems(out: &mut String, problems: &[Problem]) {
    if !problems.is_empty() {
        out.push_str("\n### Problems\n");
    }
    for problem in problems.iter().take(MAX_PROBLEMS) {
        let _ = write!(out, "\n#### {} {}\n\n", if problem.is_error { "❌" } else { "⚠️" }, escape(&problem.title));
        let _ = write!(out, "{}", code_span(&shorten(&problem.message, MAX_LINE)));
        if let Some((path, line)) = &problem.place {
            let _ = write!(out, " at {}", code_span(&format!("{path}:{line}")));
        }
        out.push('\n');
        if !problem.details.is_empty() {
            write_code_block(out, &problem.details);
        }
    }
    if problems.len() > MAX_PROBLEMS {
        let _ = writeln!(out, "\n… and {} more", problems.len() - MAX_PROBLEMS);
    }
}

fn write_code_block(out: &mut String, lines: &[String]) {
    let fence = "`".repeat(lines.iter().map(|line| longest_backticks(line) + 1).max().unwrap_or(0).max(3));
    let _ = write!(out, "\n{fence}text\n");
    for line in lines.iter().take(MAX_LINES) {
        let _ = writeln!(out, "{}", shorten(line, MAX_LINE));
    }
    if lines.len() > MAX_LINES {
        let _ = writeln!(out, "… and {} more lines", lines.len() - MAX_LINES);
    }
    let _ = writeln!(out, "{fence}");
}

fn longest_backticks(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// Returns a code span that shows the text as it is, in a table too.
pub fn code_span(text: &str) -> String {
    let text = escape_unprintable(text);
    if text.trim().is_empty() {
        return String::new();
    }
    let fence = "`".repeat(longest_backticks(&text) + 1);
    let pad = if text.starts_with(['`', ' ']) || text.ends_with(['`', ' ']) { " " } else { "" };
    // Outside tables, a vertical bar needs no backslash, and would show it.
    format!("{fence}{pad}{text}{pad}{fence}")
}

/// Returns a code span for a cell of a table.
pub fn table_code(text: &str) -> String {
    code_span(text).replace('|', "\\|")
}

/// Escapes a text so that it forms no markup, neither links nor mentions.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in escape_unprintable(text).chars() {
        if r"\`*_[]<>|~&@$:#".contains(c) || (c == '.' && out.ends_with("www")) {
            out.push('\\');
        }
        out.push(c);
    }
    out
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
    fn the_markdown_report_of_a_broken_greeting_matches_the_snapshot() {
        insta::assert_snapshot!("greeting_broken", render_run(&RunFixture::greeting_broken()));
    }

    #[test]
    fn the_markdown_report_of_hostile_text_matches_the_snapshot() {
        insta::assert_snapshot!("hostile", render_run(&RunFixture::hostile()));
    }

    #[test]
    fn a_passed_run_has_no_problems() {
        let text = render_run(&RunFixture::all_pass());
        assert!(text.starts_with("## hubproof check: PASS\n") && !text.contains("Problems"), "{text}");
    }

    #[rstest]
    #[case("a", "`a`")]
    #[case("a`b", "``a`b``")]
    #[case("`", "`` ` ``")]
    #[case(" a", "`  a `")]
    #[case("a\n</code><b>", "`a </code><b>`")]
    #[case(" ", "")]
    fn code_spans_contain_any_text(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(code_span(text), expected);
    }

    #[rstest]
    #[case("<img src=x>", r"\<img src=x\>")]
    #[case("[a](b) www.c.d https://e", r"\[a\](b) www\.c.d https\://e")]
    fn markup_is_escaped(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(escape(text), expected);
    }
}
