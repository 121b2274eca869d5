//! The JUnit report: one test suite per protocol, one test case per check. JUnit has neither warnings nor an
//! inconclusive result, so a warning passes with a note (with `strict`, it fails), and an inconclusive check is an
//! error. A failure that the baseline expects passes with a note; a stale entry is a separate failure.

use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};

use super::text::{escape_unprintable, format_time, format_timestamp};
use super::{CheckResult, ProtocolReport, RunReport, ScenarioResult, reproduce_command};
use crate::event::{CheckReport, LogExcerpt, Verdict};
use crate::syntax::source::Sources;

/// Returns valid XML 1.0 in UTF-8, even if the hub sent characters that XML forbids. `sources` has the files of the
/// report's spans.
pub fn render(report: &RunReport, sources: &Sources) -> String {
    let mut all = Report::new("hubproof");
    all.set_time(report.duration);
    for protocol in &report.protocols {
        all.add_test_suite(JunitWriter { report, protocol, sources }.test_suite());
    }
    // Cannot fail: it writes into memory and escapes every text.
    all.to_string().unwrap_or_default()
}

struct JunitWriter<'a> {
    report: &'a RunReport,
    protocol: &'a ProtocolReport,
    sources: &'a Sources,
}

impl JunitWriter<'_> {
    fn test_suite(&self) -> TestSuite {
        let mut suite = TestSuite::new(self.protocol.name.as_str());
        let rules = self.protocol.rule_totals();
        let properties = [
            ("tool.version", self.report.tool_version.clone()),
            ("started", format_timestamp(self.report.started)),
            ("target", escape_unprintable(&self.report.options.target).into_owned()),
            ("pack.version", self.protocol.pack_version.clone()),
            ("pack.hash", self.protocol.pack_hash.clone()),
            ("rules.total", rules.total.to_string()),
            ("rules.testable", rules.testable.to_string()),
            ("rules.proven", rules.proven.to_string()),
        ];
        for (name, value) in properties {
            suite.add_property(Property::new(name, value));
        }
        for scenario in &self.protocol.scenarios {
            self.add_scenario(scenario, &mut suite);
        }
        self.add_baseline(&mut suite);
        self.add_deviations(&mut suite);
        self.add_processes(&mut suite);
        for id in &self.protocol.unplayed {
            let mut status = TestCaseStatus::skipped();
            status.set_message("not played: the run was interrupted");
            suite.add_test_case(self.test_case(id, "", status));
        }
        suite
            .set_time(self.protocol.scenarios.iter().flat_map(|scenario| &scenario.runs).map(|run| run.duration).sum());
        suite
    }

    fn add_scenario(&self, scenario: &ScenarioResult, suite: &mut TestSuite) {
        // A mistake in the scenario, or the cause that stopped one without checks, is a test case of its own.
        let stopped = match (scenario.mistake(), &scenario.deciding_run().cause) {
            (Some(mistake), _) => Some(format!("the scenario has a mistake: {mistake}")),
            (None, Some(cause)) if scenario.checks.is_empty() => {
                Some(format!("`{}` failed: {}", cause.step, cause.with_actor()))
            }
            _ => None,
        };
        if let Some(message) = stopped {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_message(escape_unprintable(&message)).set_type("inconclusive");
            suite.add_test_case(self.test_case(&scenario.id, "", status));
        }
        let cases = u32::try_from(scenario.checks.len()).unwrap_or(u32::MAX).max(1);
        let time = scenario.runs.iter().map(|run| run.duration).sum::<std::time::Duration>();
        for check in &scenario.checks {
            let report = scenario.check_report(check);
            let mut case = self.test_case(&scenario.id, &check.name, self.test_status(scenario, check, report));
            // Equal shares, so that the times of the cases add up to that of their scenario.
            case.set_time(time / cases).set_assertions(report.asked);
            if matches!(check.verdict, Verdict::Warn | Verdict::Info) || check.known.is_some() {
                let known =
                    check.known.as_ref().map(|known| format!("expected: {}\n", escape_unprintable(&known.reason)));
                let note = format!(
                    "{}{}: {}\n{}",
                    known.unwrap_or_default(),
                    check.verdict.name(),
                    failure_message(check, report),
                    self.explanation(scenario, check, report)
                );
                case.set_system_out(note.trim_end());
            }
            suite.add_test_case(case);
        }
    }

    fn add_baseline(&self, suite: &mut TestSuite) {
        for entry in self.protocol.stale_entries() {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            let (first, last) = self.sources.lines(entry.span);
            let file = escape_unprintable(&self.sources.file(entry.span.file).path).into_owned();
            status
                .set_message("this baseline entry no longer fails: delete it")
                .set_type("stale")
                .set_description(format!("delete: lines {first} to {last} of {file}"));
            suite.add_test_case(self.test_case(&format!("baseline {}", entry.failure), "", status));
        }
    }

    fn add_deviations(&self, suite: &mut TestSuite) {
        for one in self.protocol.stale_deviations() {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status
                .set_message("the hub behaves as documented: delete this entry from the target file")
                .set_type("stale")
                .set_description(format!("{}; seen: {}", escape_unprintable(&one.text), one.describe_sightings()));
            suite.add_test_case(self.test_case(&one.name, "", status));
        }
    }

    /// Adds crashes that no scenario reproduced and, if the run failed, the end of each hub's output.
    fn add_processes(&self, suite: &mut TestSuite) {
        let mut out = String::new();
        for process in &self.protocol.processes {
            for crash in process.unexplained_crashes() {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status
                    .set_message(format!("the hub {}: {}", crash.describe_end(), escape_unprintable(&crash.status)))
                    .set_type("crash")
                    .set_description(format_log(&crash.log));
                suite.add_test_case(self.test_case(&format!("process {}", process.command), "", status));
            }
            for crash in &process.crashes {
                out.push_str(&format!(
                    "the hub {}: {}\n{}",
                    crash.describe_end(),
                    escape_unprintable(&crash.status),
                    format_log(&crash.log)
                ));
            }
            out.push_str(&format_log(&process.log));
        }
        if !out.is_empty() && self.protocol.exit_code(&self.report.options) != 0 {
            suite.set_system_out(out);
        }
    }

    fn test_case(&self, scenario: &str, check: &str, status: TestCaseStatus) -> TestCase {
        let name = if check.is_empty() { scenario.to_owned() } else { format!("{scenario}:{check}") };
        let mut case = TestCase::new(escape_unprintable(&name), status);
        case.set_classname(self.protocol.name.as_str());
        case
    }

    fn test_status(&self, scenario: &ScenarioResult, check: &CheckResult, report: &CheckReport) -> TestCaseStatus {
        let kind = match check.verdict {
            Verdict::Pass | Verdict::Info => return TestCaseStatus::success(),
            Verdict::Fail | Verdict::Warn if check.known.is_some() => return TestCaseStatus::success(),
            Verdict::Warn if !self.report.options.strict => return TestCaseStatus::success(),
            Verdict::NotTestable => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(failure_message(check, report)).set_type("not-testable");
                return status;
            }
            Verdict::Fail | Verdict::Warn => NonSuccessKind::Failure,
            Verdict::Inconclusive => NonSuccessKind::Error,
        };
        let mut status = TestCaseStatus::non_success(kind);
        status
            .set_message(failure_message(check, report))
            .set_type(check.verdict.name())
            .set_description(self.explanation(scenario, check, report));
        status
    }

    /// Returns the explanation of a check, one fact per line.
    fn explanation(&self, scenario: &ScenarioResult, check: &CheckResult, report: &CheckReport) -> String {
        let mut facts: Vec<(&str, String)> = Vec::new();
        facts.push(("at", self.sources.path_and_line(report.span.unwrap_or(scenario.span))));
        for used in report.rules_of_verdict() {
            let text = self.protocol.rules.get(&used.id).map(|rule| format!(", {}): {}", rule.place, rule.text));
            facts.push((
                "rule",
                format!(
                    "{} ({}, {}{}",
                    used.id,
                    used.level.name(),
                    used.basis.name(),
                    text.unwrap_or_else(|| ")".to_owned())
                ),
            ));
        }
        if let Some(detail) = &report.detail {
            facts.extend(detail.sent.iter().map(|sent| ("sent", sent.clone())));
            facts.extend(detail.round.iter().map(|round| ("round", round.clone())));
            facts.push(("expected", detail.expected.clone()));
            facts.push(("received", detail.received.clone()));
            facts.extend(detail.waited.map(|waited| ("waited", format_time(waited))));
        }
        let repeat = check.flaky.map_or(1, |flaky| flaky.decided);
        facts
            .push(("reproduce", reproduce_command(&self.report.options, &self.protocol.name, &scenario.again, repeat)));
        facts.iter().map(|(name, fact)| format!("{name}: {}", escape_unprintable(fact))).collect::<Vec<_>>().join("\n")
    }
}

fn format_log(log: &LogExcerpt) -> String {
    log.lines.iter().map(|line| format!("{}\n", escape_unprintable(line))).collect()
}

fn failure_message(check: &CheckResult, report: &CheckReport) -> String {
    let flaky = check.flaky.map(|flaky| format!("flaky, {}: ", flaky.shown())).unwrap_or_default();
    format!("{flaky}{}", escape_unprintable(report.message_or_step()))
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
        render(&run.report(RunOptions { strict, ..options() }), &run.sources)
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
