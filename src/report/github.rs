//! Annotations of GitHub Actions: a workflow command per problem, errors first. GitHub shows them at the lines of a
//! commit, at most ten errors and ten warnings per step.

use std::fmt::Write;

use super::test_results::TestResults;

/// Renders one workflow command per line, such as `::error file=a.yaml,line=3,title=CON-042::no reply`.
pub fn render(results: &TestResults) -> String {
    let mut out = String::new();
    for problem in &results.problems {
        let _ = write!(out, "::{} ", if problem.is_error { "error" } else { "warning" });
        if let Some((path, line)) = &problem.place {
            let _ = write!(out, "file={},line={line},", escape_property(path));
        }
        let lines = std::iter::once(&problem.message).chain(&problem.details);
        let message = lines.map(String::as_str).collect::<Vec<_>>().join("\n");
        let _ = writeln!(out, "title={}::{}", escape_property(&problem.title), escape_data(&message));
    }
    out
}

fn escape_data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn escape_property(text: &str) -> String {
    escape_data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::super::RunOptions;
    use super::super::fixture::{RunFixture, options};
    use super::*;

    fn render_run(run: &RunFixture, strict: bool) -> String {
        render(&TestResults::from_run(&run.report(RunOptions { strict, ..options() }), &run.sources))
    }

    #[test]
    fn the_annotations_of_broken_greetings_and_warnings_match_the_snapshot() {
        let runs = [RunFixture::greeting_broken(), RunFixture::warning(), RunFixture::schema_broken()];
        let texts = runs.map(|run| render_run(&run, false));
        insta::assert_snapshot!("annotations", texts.join("\n"));
    }

    #[test]
    fn the_annotation_of_hostile_text_is_one_line() {
        let text = render_run(&RunFixture::hostile(), false);
        assert_eq!(text.lines().count(), 1, "{text}");
        insta::assert_snapshot!("hostile", text);
    }

    #[test]
    fn warnings_are_errors_in_strict_runs() {
        let run = RunFixture::warning();
        assert!(render_run(&run, false).lines().all(|line| line.starts_with("::warning ")));
        assert!(render_run(&run, true).lines().all(|line| line.starts_with("::error ")));
    }

    #[test]
    fn a_failed_run_has_an_error_even_if_no_check_failed() {
        for run in [RunFixture::unreachable(), RunFixture::nothing_testable(), RunFixture::hub_ended(None)] {
            assert!(render_run(&run, false).starts_with("::error "));
        }
        assert_eq!(render_run(&RunFixture::all_pass(), false), "");
    }

    #[test]
    fn separators_of_properties_are_escaped() {
        assert_eq!(escape_property("a:b,c%\n"), "a%3Ab%2Cc%25%0A");
    }
}
