//! The JUnit report: one test suite per protocol or load plan, one test case per check or threshold.

use quick_junit::{NonSuccessKind, Property, Report, TestCase as JunitCase, TestCaseStatus, TestSuite as JunitSuite};

use super::test_results::{TestCase, TestResults, TestStatus, TestSuite};

/// Returns valid XML 1.0 in UTF-8, even if the hub sent characters that XML forbids.
pub fn render(results: &TestResults) -> String {
    let mut all = Report::new(results.name);
    all.set_time(results.duration);
    all.add_test_suites(results.suites.iter().map(junit_suite));
    // Cannot fail: it writes into memory and escapes every text.
    all.to_string().unwrap_or_default()
}

fn junit_suite(suite: &TestSuite) -> JunitSuite {
    let mut junit = JunitSuite::new(suite.name.as_str());
    junit.set_time(suite.duration);
    junit.add_properties(suite.properties.iter().map(|(name, value)| Property::new(*name, value.as_str())));
    junit.add_test_cases(suite.cases.iter().map(junit_case));
    if !suite.output.is_empty() {
        junit.set_system_out(suite.output.as_str());
    }
    junit
}

fn junit_case(case: &TestCase) -> JunitCase {
    let mut status = match case.status {
        TestStatus::Passed => TestCaseStatus::success(),
        TestStatus::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
        TestStatus::Undecided => TestCaseStatus::non_success(NonSuccessKind::Error),
        TestStatus::Skipped => TestCaseStatus::skipped(),
    };
    let place = case.place.iter().map(|(path, line)| format!("at: {path}:{line}"));
    let details = place.chain(case.details.iter().cloned()).collect::<Vec<_>>().join("\n");
    if case.status != TestStatus::Passed {
        status.set_message(case.message.as_str()).set_type(case.kind);
        if case.status != TestStatus::Skipped && !details.is_empty() {
            status.set_description(details.as_str());
        }
    }
    let mut junit = JunitCase::new(case.name.as_str(), status);
    junit.set_classname(case.class.as_str());
    junit.add_properties(case.properties.iter().map(|(name, value)| Property::new(*name, value.as_str())));
    if let Some(time) = case.duration {
        junit.set_time(time);
    }
    if let Some(asked) = case.assertions {
        junit.set_assertions(asked);
    }
    if case.status == TestStatus::Passed && !case.is_plain_pass() {
        let known = case.expected.as_ref().map(|reason| format!("expected: {reason}\n")).unwrap_or_default();
        let note = format!("{known}{}: {}\n{details}", case.kind, case.message);
        junit.set_system_out(note.trim_end());
    }
    junit
}

#[cfg(test)]
mod tests {
    use quick_xml::events::Event;
    use quick_xml::{Reader, XmlVersion};
    use rstest::rstest;

    use super::super::fixture::{RunFixture, options};
    use super::*;
    use crate::report::RunOptions;

    fn render_run(run: &RunFixture, strict: bool) -> String {
        render(&TestResults::from_run(&run.report(RunOptions { strict, ..options() }), &run.sources))
    }

    /// Parses strictly: nesting, attributes, entities, and that all characters are allowed.
    fn parse_elements(xml: &str) -> Vec<String> {
        assert!(
            xml.chars().all(
                |c| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
            ),
            "{xml}"
        );
        let mut reader = Reader::from_str(xml);
        let config = reader.config_mut();
        config.check_comments = true;
        config.check_end_names = true;
        config.expand_empty_elements = true;
        let (mut depth, mut names) = (0, Vec::new());
        loop {
            match reader.read_event().unwrap() {
                Event::Start(start) => {
                    depth += 1;
                    names.push(String::from_utf8(start.name().0.to_vec()).unwrap());
                    for attribute in start.attributes() {
                        attribute.unwrap().normalized_value(XmlVersion::Implicit1_0).unwrap();
                    }
                }
                Event::End(_) => depth -= 1,
                Event::Text(text) => {
                    text.decode().unwrap();
                    assert!(!text.contains(&b'<'));
                }
                Event::GeneralRef(reference) => assert!(
                    ["lt", "gt", "amp", "quot", "apos"].map(str::as_bytes).contains(&&*reference)
                        || reference.is_char_ref()
                ),
                Event::Eof => break,
                _ => {}
            }
        }
        assert_eq!(depth, 0);
        names
    }

    #[rstest]
    #[case::all_pass(RunFixture::all_pass(), false, [7, 0, 0, 0])]
    #[case::failure(RunFixture::one_failure(), false, [7, 1, 0, 0])]
    #[case::hostile(RunFixture::hostile(), false, [7, 1, 0, 0])]
    #[case::flaky(RunFixture::flaky(), false, [7, 1, 0, 0])]
    #[case::warning(RunFixture::warning(), false, [7, 0, 0, 0])]
    #[case::strict_warning(RunFixture::warning(), true, [7, 2, 0, 0])]
    #[case::greeting_broken(RunFixture::greeting_broken(), false, [6, 1, 5, 0])]
    #[case::unreachable(RunFixture::unreachable(), false, [6, 0, 6, 0])]
    #[case::not_testable(RunFixture::not_testable(), false, [7, 0, 0, 1])]
    #[case::interrupted(RunFixture::interrupted(), false, [6, 0, 0, 2])]
    #[case::mistake(RunFixture::mistake(), false, [7, 0, 2, 0])]
    #[case::nothing_selected(RunFixture::nothing_selected(), false, [0, 0, 0, 0])]
    #[case::fallen(RunFixture::hub_ended(None), false, [8, 1, 0, 0])]
    fn junit_has_a_test_case_per_check_and_passes_a_strict_parser(
        #[case] run: RunFixture,
        #[case] strict: bool,
        #[case] expected: [usize; 4],
    ) {
        let names = parse_elements(&render_run(&run, strict));
        let counts =
            ["testcase", "failure", "error", "skipped"].map(|name| names.iter().filter(|n| *n == name).count());
        assert_eq!(counts, expected);
    }

    #[test]
    fn the_junit_report_of_a_broken_greeting_matches_the_snapshot() {
        insta::assert_snapshot!("greeting_broken", render_run(&RunFixture::greeting_broken(), false));
    }

    #[test]
    fn the_junit_report_of_hostile_text_matches_the_snapshot() {
        insta::assert_snapshot!("hostile", render_run(&RunFixture::hostile(), false));
    }
}
