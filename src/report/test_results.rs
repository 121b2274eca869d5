//! A run as build servers see it: suites of test cases, and the problems that decide the exit code. JUnit, TAP, CTRF
//! and GitHub annotations are rendered from it, for `check`, `fuzz` and `load` alike.
//!
//! Build servers know neither warnings nor inconclusive results. A warning passes with a note (with `strict`, it fails),
//! and an inconclusive check is undecided. A failure that the baseline expects passes with a note; a stale entry is a
//! failed case of its own.

use std::time::Duration;

use super::causes::{FailureGroup, RootCause, checks_with_verdict, group_failures};
use super::terminal_page::list;
use super::text::{escape_unprintable, format_count, format_time, format_timestamp};
use super::{CheckResult, ProtocolReport, RunReport, ScenarioResult, exit_code, reproduce_command, terminal};
use crate::outcome::{CheckReport, FindingDetail, LogExcerpt, Verdict};
use crate::protocol::RulePlace;
use crate::scenario::model::RuleUse;
use crate::syntax::source::{Sources, Span};

/// All texts are free of control characters and line breaks; `\n` is only in `output`.
pub struct TestResults {
    /// The command: `hubproof check`, `hubproof fuzz` or `hubproof load`.
    pub name: &'static str,
    pub tool_version: String,
    /// Unix time in milliseconds.
    pub started: u64,
    pub duration: Duration,
    /// The URL of the hub, or `embedded reference server`.
    pub target: String,
    pub exit_code: u8,
    pub suites: Vec<TestSuite>,
    /// Each cause once, those that fail the run first.
    pub problems: Vec<Problem>,
}

pub struct TestSuite {
    pub name: String,
    pub properties: Vec<(&'static str, String)>,
    pub cases: Vec<TestCase>,
    pub duration: Duration,
    /// The output of the hub, if hubproof started it and the run failed; otherwise empty.
    pub output: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestStatus {
    Passed,
    Failed,
    /// It could not be decided.
    Undecided,
    Skipped,
}

#[derive(Clone)]
pub struct TestCase {
    /// Unique within its suite, and stable between runs.
    pub name: String,
    /// The protocol.
    pub class: String,
    pub status: TestStatus,
    /// The verdict, or why there is none: `fail`, `stale`, `uncertain`.
    pub kind: &'static str,
    /// What was wrong, in one line.
    pub message: String,
    /// The evidence, one fact per line: `expected: welcome`.
    pub details: Vec<String>,
    /// The reason that a baseline or a deviation gives for a failure that is expected.
    pub expected: Option<String>,
    pub flaky: bool,
    /// The rules with the verdict of the check.
    pub rules: Vec<String>,
    /// File and line.
    pub place: Option<(String, usize)>,
    pub properties: Vec<(&'static str, String)>,
    pub duration: Option<Duration>,
    /// How often the check was evaluated.
    pub assertions: Option<usize>,
}

/// Something that fails the run or keeps it from passing, or a warning.
pub struct Problem {
    /// Whether it fails the run or keeps it from passing.
    pub is_error: bool,
    pub title: String,
    pub message: String,
    pub details: Vec<String>,
    pub place: Option<(String, usize)>,
}

impl TestCase {
    /// Creates a case with nothing but its result. The texts may contain any characters.
    pub fn new(class: &str, name: &str, status: TestStatus, kind: &'static str, message: &str) -> Self {
        Self {
            name: escape_unprintable(name).into_owned(),
            class: escape_unprintable(class).into_owned(),
            status,
            kind,
            message: escape_unprintable(message).into_owned(),
            details: Vec::new(),
            expected: None,
            flaky: false,
            rules: Vec::new(),
            place: None,
            properties: Vec::new(),
            duration: None,
            assertions: None,
        }
    }

    /// Whether it passed without a note.
    pub fn is_plain_pass(&self) -> bool {
        self.status == TestStatus::Passed && matches!(self.kind, "pass" | "holds")
    }
}

impl From<TestCase> for Problem {
    fn from(case: TestCase) -> Self {
        let TestCase { name, message, details, place, .. } = case;
        Self { is_error: true, title: name, message, details, place }
    }
}

impl TestResults {
    /// Returns the number of cases with this status.
    pub fn count(&self, status: TestStatus) -> usize {
        self.cases().filter(|(_, case)| case.status == status).count()
    }

    /// Returns all cases, each with its suite.
    pub fn cases(&self) -> impl Iterator<Item = (&TestSuite, &TestCase)> {
        self.suites.iter().flat_map(|suite| suite.cases.iter().map(move |case| (suite, case)))
    }

    /// Returns the results of `check` or `fuzz`. `sources` has the files of the report's spans.
    pub fn from_run(report: &RunReport, sources: &Sources) -> Self {
        let readers = || report.protocols.iter().map(|protocol| ResultReader { report, protocol, sources });
        let mut problems: Vec<Problem> = readers().flat_map(|reader| reader.problems()).collect();
        problems.sort_by_key(|problem| !problem.is_error);
        Self {
            name: command_name(report),
            tool_version: report.tool_version.clone(),
            started: report.started,
            duration: report.duration,
            target: escape_unprintable(&report.options.target).into_owned(),
            exit_code: exit_code(report),
            suites: readers().map(|reader| reader.suite()).collect(),
            problems,
        }
    }
}

/// Returns the command that made the report.
pub fn command_name(report: &RunReport) -> &'static str {
    let fuzzed = report.protocols.iter().any(|protocol| protocol.fuzzed.is_some());
    if fuzzed { "hubproof fuzz" } else { "hubproof check" }
}

struct ResultReader<'a> {
    report: &'a RunReport,
    protocol: &'a ProtocolReport,
    sources: &'a Sources,
}

impl ResultReader<'_> {
    fn suite(&self) -> TestSuite {
        let protocol = self.protocol;
        let rules = protocol.rule_totals();
        let mut properties = vec![
            ("tool.version", self.report.tool_version.clone()),
            ("started", format_timestamp(self.report.started)),
            ("target", escape_unprintable(&self.report.options.target).into_owned()),
            ("document", escape_unprintable(&protocol.document).into_owned()),
            ("pack.version", protocol.pack_version.clone()),
            ("pack.hash", protocol.pack_hash.clone()),
            ("rules.total", rules.total.to_string()),
            ("rules.testable", rules.testable.to_string()),
            ("rules.proven", rules.proven.to_string()),
        ];
        if let Some(fuzzed) = &protocol.fuzzed {
            properties.push(("seed", fuzzed.seed.to_string()));
            properties.push(("cases", fuzzed.cases.to_string()));
        }
        let mut cases: Vec<TestCase> =
            protocol.scenarios.iter().flat_map(|scenario| self.scenario_cases(scenario)).collect();
        cases.extend(self.stale_cases());
        cases.extend(self.crash_cases());
        let unplayed = "not played: the run was interrupted";
        cases.extend(protocol.unplayed.iter().map(|id| self.case(id, TestStatus::Skipped, "not-played", unplayed)));
        TestSuite {
            name: escape_unprintable(&protocol.name).into_owned(),
            properties,
            cases,
            duration: protocol.scenarios.iter().flat_map(|scenario| &scenario.runs).map(|run| run.duration).sum(),
            output: self.output(),
        }
    }

    fn case(&self, name: &str, status: TestStatus, kind: &'static str, message: &str) -> TestCase {
        TestCase::new(&self.protocol.name, name, status, kind, message)
    }

    fn scenario_cases(&self, scenario: &ScenarioResult) -> Vec<TestCase> {
        // A mistake in the scenario, or the cause that stopped one without checks, is a test case of its own.
        let stopped = match (scenario.mistake(), &scenario.deciding_run().cause) {
            (Some(mistake), _) => Some((format!("the scenario has a mistake: {mistake}"), scenario.place())),
            (None, Some(cause)) if scenario.checks.is_empty() => {
                Some((format!("`{}` failed: {}", cause.step, cause.with_actor()), cause.span.unwrap_or(scenario.span)))
            }
            _ => None,
        };
        let mut cases = Vec::new();
        if let Some((message, span)) = stopped {
            let case = self.case(&scenario.id, TestStatus::Undecided, "inconclusive", &message);
            cases.push(TestCase { place: Some(self.place(span)), ..case });
        }
        let checks = u32::try_from(scenario.checks.len()).unwrap_or(u32::MAX).max(1);
        // Equal shares, so that the times of the cases add up to that of their scenario.
        let time = scenario.runs.iter().map(|run| run.duration).sum::<Duration>() / checks;
        let all = scenario.checks.iter();
        cases.extend(all.map(|check| TestCase { duration: Some(time), ..self.check_case(scenario, check) }));
        cases
    }

    fn check_case(&self, scenario: &ScenarioResult, check: &CheckResult) -> TestCase {
        let report = scenario.check_report(check);
        let status = match check.verdict {
            Verdict::Pass | Verdict::Info => TestStatus::Passed,
            Verdict::Fail | Verdict::Warn if check.known.is_some() => TestStatus::Passed,
            Verdict::Warn if !self.report.options.strict => TestStatus::Passed,
            Verdict::Fail | Verdict::Warn => TestStatus::Failed,
            Verdict::NotTestable => TestStatus::Skipped,
            Verdict::Inconclusive => TestStatus::Undecided,
        };
        let silent = matches!(check.verdict, Verdict::Pass | Verdict::NotTestable);
        TestCase {
            details: if silent { Vec::new() } else { self.evidence(scenario, check, report) },
            expected: check.known.as_ref().map(|known| escape_unprintable(&known.reason).into_owned()),
            flaky: check.flaky.is_some(),
            rules: report.rules_of_verdict().map(|used| used.id.clone()).collect(),
            place: Some(self.place(report.span.unwrap_or(scenario.span))),
            properties: self.rule_properties(report),
            assertions: Some(report.asked),
            ..self.case(
                &format!("{}:{}", scenario.id, check.name),
                status,
                check.verdict.name(),
                &failure_message(check, report),
            )
        }
    }

    /// Returns id, level, basis and place in the document of the check's rules, each as a list in the same order.
    fn rule_properties(&self, report: &CheckReport) -> Vec<(&'static str, String)> {
        let used: Vec<_> = report.rules.iter().map(|(used, _)| used).collect();
        if used.is_empty() {
            return Vec::new();
        }
        let place = |id: &str| match self.protocol.rules.get(id).map(|rule| &rule.place) {
            Some(RulePlace::Line(line)) => line.to_string(),
            Some(RulePlace::Section(section)) => section.clone(),
            Some(place) => place.to_string(),
            None => String::new(),
        };
        let is_line = |used: &&RuleUse| {
            self.protocol.rules.get(&used.id).is_none_or(|rule| !matches!(rule.place, RulePlace::Section(_)))
        };
        let line_or_section = if used.iter().all(is_line) { "document.line" } else { "document.section" };
        let join = |texts: Vec<String>| escape_unprintable(&texts.join(", ")).into_owned();
        vec![
            ("rule", join(used.iter().map(|used| used.id.clone()).collect())),
            ("level", join(used.iter().map(|used| used.level.name().to_owned()).collect())),
            ("basis", join(used.iter().map(|used| used.basis.name().to_owned()).collect())),
            (line_or_section, join(used.iter().map(|used| place(&used.id)).collect())),
        ]
    }

    /// Returns a failed case for each entry of the baseline, and each declared deviation, that no longer applies.
    fn stale_cases(&self) -> Vec<TestCase> {
        let failed = |name: &str, message: &str| self.case(name, TestStatus::Failed, "stale", message);
        let entries = self.protocol.stale_entries().map(|entry| {
            let (first, last) = self.sources.lines(entry.span);
            let place = self.place(entry.span);
            TestCase {
                details: vec![format!("delete: lines {first} to {last} of {}", place.0)],
                place: Some(place),
                ..failed(&format!("baseline {}", entry.failure), "this baseline entry no longer fails: delete it")
            }
        });
        let deviations = self.protocol.stale_deviations().map(|one| TestCase {
            details: vec![format!("{}; seen: {}", escape_unprintable(&one.text), one.describe_sightings())],
            place: one.span.map(|span| self.place(span)),
            ..failed(&one.name, "the hub behaves as documented: delete this entry from the target file")
        });
        entries.chain(deviations).collect()
    }

    /// Returns a failed case for each crash that no scenario reproduced.
    fn crash_cases(&self) -> Vec<TestCase> {
        let crashes = self.protocol.processes.iter().flat_map(|process| {
            process.unexplained_crashes().map(|crash| {
                let message = format!("the hub {}: {}", crash.describe_end(), crash.status);
                TestCase {
                    details: crash.log.lines.iter().map(|line| escape_unprintable(line).into_owned()).collect(),
                    ..self.case(&format!("process {}", process.command), TestStatus::Failed, "crash", &message)
                }
            })
        });
        crashes.collect()
    }

    /// Returns how each hub ended, and the end of its output, if the run failed.
    fn output(&self) -> String {
        let mut out = String::new();
        if self.protocol.exit_code(&self.report.options) == 0 {
            return out;
        }
        for process in &self.protocol.processes {
            for crash in &process.crashes {
                out.push_str(&format!("the hub {}: {}\n", crash.describe_end(), escape_unprintable(&crash.status)));
                out.push_str(&format_log(&crash.log));
            }
            out.push_str(&format_log(&process.log));
        }
        out
    }

    /// Returns the evidence of a check, one fact per line.
    fn evidence(&self, scenario: &ScenarioResult, check: &CheckResult, report: &CheckReport) -> Vec<String> {
        let mut facts: Vec<(&str, String)> = Vec::new();
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
        facts.extend(report.detail.iter().flat_map(detail_facts));
        let repeat = check.flaky.map_or(1, |flaky| flaky.decided);
        facts
            .push(("reproduce", reproduce_command(&self.report.options, &self.protocol.name, &scenario.again, repeat)));
        format_facts(&facts)
    }

    fn place(&self, span: Span) -> (String, usize) {
        let path = escape_unprintable(self.sources.path(span)).into_owned();
        (path, self.sources.line_column(span).0)
    }

    /// Returns what fails the run or keeps it from passing, and the warnings. Failures that the baseline expects are no
    /// problem.
    fn problems(&self) -> Vec<Problem> {
        let protocol = self.protocol;
        let options = &self.report.options;
        let mut problems = Vec::new();
        for scenario in &protocol.scenarios {
            if scenario.mistake().is_some() {
                problems.extend(self.scenario_cases(scenario).into_iter().take(1).map(Problem::from));
            }
        }
        for cause in protocol.root_causes() {
            match &cause {
                RootCause::Check(group) if group.check.known.is_none() => problems.push(self.group(group, true)),
                RootCause::Precondition(stop, _) if !protocol.is_expected_cause(stop) => {
                    let mut facts: Vec<(&str, String)> = Vec::new();
                    let broken = cause.broken_rules().join(", ");
                    facts.extend((!broken.is_empty()).then_some(("rules", broken)));
                    facts.extend(stop.detail.iter().flat_map(detail_facts));
                    facts.push(("in", list(&cause.scenarios(), MAX_SCENARIOS)));
                    facts.push(("blocks", format_count(cause.blocked_checks().checks, "check")));
                    problems.push(Problem {
                        is_error: true,
                        title: escape_unprintable(&format!("{}: `{}` failed", protocol.name, stop.step)).into_owned(),
                        message: escape_unprintable(&stop.message).into_owned(),
                        details: format_facts(&facts),
                        place: stop.span.map(|span| self.place(span)),
                    });
                }
                _ => {}
            }
        }
        let mut warned = checks_with_verdict(protocol, Verdict::Warn);
        warned.retain(|(_, check)| check.known.is_none());
        problems.extend(group_failures(warned).iter().map(|group| self.group(group, options.strict)));
        problems.extend(self.stale_cases().into_iter().chain(self.crash_cases()).map(Problem::from));
        if protocol.exit_code(options) != 0 && !problems.iter().any(|problem| problem.is_error) {
            problems.push(Problem {
                is_error: true,
                title: escape_unprintable(&protocol.name).into_owned(),
                message: escape_unprintable(&terminal::verdict_line(protocol, options)).into_owned(),
                details: Vec::new(),
                place: None,
            });
        }
        problems
    }

    /// Returns the problem of a group of checks that are alike.
    fn group(&self, group: &FailureGroup<'_>, is_error: bool) -> Problem {
        let FailureGroup { scenario, check, also, .. } = group;
        let rules: Vec<&str> = scenario.check_report(check).rules_of_verdict().map(|used| used.id.as_str()).collect();
        let what = if rules.is_empty() { check.name.clone() } else { rules.join(", ") };
        let mut problem = Problem::from(self.check_case(scenario, check));
        problem.is_error = is_error;
        problem.title = escape_unprintable(&format!("{what}: {}", scenario.id)).into_owned();
        if !also.is_empty() {
            problem.details.push(escape_unprintable(&format!("also in: {}", list(also, MAX_SCENARIOS))).into_owned());
        }
        problem
    }
}

/// Most scenarios that a problem lists.
const MAX_SCENARIOS: usize = 5;

fn detail_facts(detail: &FindingDetail) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    facts.extend(detail.sent.iter().map(|sent| ("sent", sent.clone())));
    facts.extend(detail.round.iter().map(|round| ("round", round.clone())));
    facts.push(("expected", detail.expected.clone()));
    facts.push(("received", detail.received.clone()));
    facts.extend(detail.waited.map(|waited| ("waited", format_time(waited))));
    facts
}

fn format_facts(facts: &[(&str, String)]) -> Vec<String> {
    facts.iter().map(|(name, fact)| format!("{name}: {}", escape_unprintable(fact))).collect()
}

fn format_log(log: &LogExcerpt) -> String {
    log.lines.iter().map(|line| format!("{}\n", escape_unprintable(line))).collect()
}

fn failure_message(check: &CheckResult, report: &CheckReport) -> String {
    let flaky = check.flaky.map(|flaky| format!("flaky, {}: ", flaky.shown())).unwrap_or_default();
    format!("{flaky}{}", report.message_or_step())
}
