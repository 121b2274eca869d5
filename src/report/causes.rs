//! The root causes of a run. Each is listed once, no matter how many scenarios it was found in, with the checks that it
//! blocked.
//!
//! A cause is a failed check, or a failed step without rules (a precondition). The same step of a shared scene or
//! opening is one cause in all scenarios, and so is the same violation of a schema at the same place of the same
//! message.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::text::without_variable_parts;
use super::{CheckResult, KnownFailure, ProtocolReport, ScenarioResult};
use crate::outcome::{CheckReport, FindingDetail, HANG_CHECK, PreconditionFailure, ScenarioReport, Verdict};
use crate::syntax::explanation::Explanation;
use crate::syntax::source::Span;

/// Explains the causes that are not failed checks.
pub const CAUSE_EXPLANATIONS: [Explanation; 3] = [
    Explanation::new(
        "precondition",
        "A step without a rule failed, so the scenario could not start or continue. The checks after it are inconclusive, and `blocks` counts them.",
    )
    .usually("The hub does not send an expected message, or sends it to another client, in another form or too late.")
    .next("Play one of the stopped scenarios with the command after `reproduce`, and add `--trace`. A deviation in the target file lets a run continue past a difference that is there on purpose."),
    Explanation::new("unreachable", "No connection to the hub could be opened, so nothing could be checked.")
        .usually("The hub is not running, or listens at another address, port or path.")
        .next("Try the address with any other WebSocket client. `--exec CMD` lets hubproof start the hub."),
    Explanation::new("unauthenticated", "The hub refused the client's credentials, so all scenarios that need them stopped.")
        .usually("A missing or outdated secret, or a token signed with another key.")
        .next("Set the secrets that the report names: `--set secrets.NAME=VALUE`, or the target file."),
];

/// A failed precondition, with all scenarios that it stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedPreconditionFailure {
    pub span: Option<Span>,
    pub step: String,
    /// The most frequent message.
    pub message: String,
    pub detail: Option<FindingDetail>,
    pub unreachable: bool,
    /// Whether the hub refused the client's credentials.
    pub unauthenticated: bool,
    pub scenarios: Vec<String>,
    /// Whether no check of any of these scenarios was evaluated.
    pub at_once: bool,
    pub blocks: BlockedChecks,
}

/// The checks that a cause kept from being evaluated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BlockedChecks {
    pub checks: usize,
    /// The rules of these checks.
    pub rules: BTreeSet<String>,
}

impl BlockedChecks {
    /// Returns the checks of a scenario that were never evaluated.
    fn blocked_in(scenario: &ScenarioResult) -> Self {
        let mut blocks = Self::default();
        for check in scenario.checks.iter().filter(|check| check.verdict == Verdict::Inconclusive) {
            let report = scenario.check_report(check);
            if report.asked == 0 {
                blocks.checks += 1;
                blocks.rules.extend(report.rules.iter().map(|(used, _)| used.id.clone()));
            }
        }
        blocks
    }

    pub fn merge(&mut self, other: Self) {
        self.checks = self.checks.saturating_add(other.checks);
        self.rules.extend(other.rules);
    }
}

/// A check with its scenario, the other scenarios with the same failure, and the checks that it blocks in all of them.
pub struct FailureGroup<'a> {
    pub scenario: &'a ScenarioResult,
    pub check: &'a CheckResult,
    pub also: Vec<String>,
    pub blocks: BlockedChecks,
}

/// A root cause: a group of failed checks that are alike, or a failed precondition, with the failed checks that have the
/// same cause.
pub enum RootCause<'a> {
    Check(FailureGroup<'a>),
    Precondition(&'a SharedPreconditionFailure, Vec<FailureGroup<'a>>),
}

impl<'a> RootCause<'a> {
    fn failures(&self) -> &[FailureGroup<'a>] {
        match self {
            Self::Check(alike) => std::slice::from_ref(alike),
            Self::Precondition(_, failures) => failures,
        }
    }

    pub fn blocked_checks(&self) -> BlockedChecks {
        let mut blocks = match self {
            Self::Check(_) => BlockedChecks::default(),
            Self::Precondition(cause, _) => cause.blocks.clone(),
        };
        self.failures().iter().for_each(|alike| blocks.merge(alike.blocks.clone()));
        blocks
    }

    /// Returns the scenarios in which the cause was found.
    pub fn scenarios(&self) -> Vec<String> {
        let mut scenarios = match self {
            Self::Check(_) => Vec::new(),
            Self::Precondition(cause, _) => cause.scenarios.clone(),
        };
        for alike in self.failures() {
            for id in std::iter::once(&alike.scenario.id).chain(&alike.also) {
                if !scenarios.contains(id) {
                    scenarios.push(id.clone());
                }
            }
        }
        scenarios
    }

    /// Returns the rules that the hub breaks.
    pub fn broken_rules(&self) -> Vec<&'a str> {
        let mut rules = Vec::new();
        for alike in self.failures() {
            for used in alike.scenario.check_report(alike.check).rules_of_verdict() {
                if !rules.contains(&used.id.as_str()) {
                    rules.push(used.id.as_str());
                }
            }
        }
        rules
    }
}

impl FailureGroup<'_> {
    /// Whether the check failed because the hub refused the client's credentials.
    fn is_unauthenticated(&self) -> bool {
        let stop = first_stop(self.scenario);
        stop.is_some_and(|(_, cause, name)| cause.unauthenticated && name == Some(self.check.name.as_str()))
    }
}

impl ProtocolReport {
    /// Whether the baseline expects a failed precondition, in all scenarios that it stopped.
    pub fn is_expected_cause(&self, cause: &SharedPreconditionFailure) -> bool {
        let mut stopped = self.scenarios.iter().filter(|scenario| cause.scenarios.contains(&scenario.id));
        stopped.all(|scenario| scenario.known_cause.is_some())
    }

    /// Returns the causes of all failed and blocked checks, most blocking first. They include failures that the
    /// baseline expects.
    pub fn root_causes(&self) -> Vec<RootCause<'_>> {
        let mut failed = group_failures(checks_with_verdict(self, Verdict::Fail));
        let mut all: Vec<RootCause<'_>> = Vec::new();
        for cause in &self.causes {
            let alike = failed.extract_if(.., |alike| cause.unauthenticated && alike.is_unauthenticated());
            all.push(RootCause::Precondition(cause, alike.collect()));
        }
        all.extend(failed.into_iter().map(RootCause::Check));
        let unreachable =
            |cause: &RootCause<'_>| matches!(cause, RootCause::Precondition(cause, _) if cause.unreachable);
        // A hub that hangs blocks whatever comes after.
        let hangs = |cause: &RootCause<'_>| matches!(cause, RootCause::Check(alike) if alike.check.name == HANG_CHECK);
        all.sort_by_key(|cause| {
            (
                !unreachable(cause),
                !hangs(cause),
                std::cmp::Reverse((cause.blocked_checks().checks, cause.scenarios().len())),
            )
        });
        all
    }
}

/// Returns the name of the failed or warning check that stopped a scenario, if there is one. It may belong to an outer
/// step such as `joins`, and then has the same detail as the cause.
fn accused_check<'a>(run: &'a ScenarioReport, cause: &PreconditionFailure) -> Option<&'a str> {
    let judged = |check: &&CheckReport| matches!(check.verdict, Verdict::Fail | Verdict::Warn);
    let is_it = |check: &&CheckReport| {
        (check.span.is_some() && check.span == cause.span) || (check.detail.is_some() && check.detail == cause.detail)
    };
    run.checks.iter().filter(judged).find(is_it).map(|check| check.name.as_str())
}

/// Returns the first repetition that was stopped, its cause, and the failed check that stopped it, if any.
fn first_stop(scenario: &ScenarioResult) -> Option<(&ScenarioReport, &PreconditionFailure, Option<&str>)> {
    let (run, cause) = scenario.runs.iter().find_map(|run| Some((run, run.cause.as_ref()?)))?;
    Some((run, cause, accused_check(run, cause)))
}

/// Returns the known failure that stopped a scenario: a failed check in the baseline, or a precondition for which
/// `known` returns an entry. Returns `None` if a repetition is undecided for another reason, or if an evaluated check
/// is undecided.
pub fn known_stop(
    scenario: &ScenarioResult,
    known: &dyn Fn(&PreconditionFailure) -> Option<KnownFailure>,
) -> Option<KnownFailure> {
    let explained = |run: &ScenarioReport| {
        let cause = run.cause.as_ref()?;
        match accused_check(run, cause) {
            Some(name) => scenario.checks.iter().find(|check| check.name == name)?.known.clone(),
            None if cause.unreachable => None,
            None => known(cause),
        }
    };
    let mut first = None;
    for run in scenario.runs.iter().filter(|run| run.verdict == Verdict::Inconclusive) {
        if run.checks.iter().any(|check| check.verdict == Verdict::Inconclusive && check.asked > 0) {
            return None;
        }
        let known = explained(run)?;
        first.get_or_insert(known);
    }
    first
}

/// Returns each failed precondition of a protocol that a baseline can contain, with its scenario: the hub was reached,
/// and no failed check reports the same.
pub fn failed_preconditions(
    protocol: &ProtocolReport,
) -> impl Iterator<Item = (&ScenarioResult, &PreconditionFailure)> {
    let runs = protocol.scenarios.iter().flat_map(|scenario| scenario.runs.iter().map(move |run| (scenario, run)));
    let causes = runs.filter_map(|(scenario, run)| Some((scenario, run, run.cause.as_ref()?)));
    causes
        .filter(|(_, run, cause)| !cause.unreachable && accused_check(run, cause).is_none())
        .map(|(scenario, _, cause)| (scenario, cause))
}

/// Groups the failed preconditions of scenarios by their step's place: openings and scenes are shared by scenarios.
pub fn group_preconditions(scenarios: &[ScenarioResult]) -> Vec<SharedPreconditionFailure> {
    #[derive(PartialEq)]
    enum PreconditionKey<'a> {
        Unreachable,
        Unauthenticated,
        Place(Span),
        Step(&'a str, &'a str),
    }
    /// A cause with its messages, each with its number of occurrences, and whether all its waits were shortened.
    type PreconditionGroup<'a> = (PreconditionKey<'a>, SharedPreconditionFailure, Vec<(&'a str, usize)>, bool);
    let mut groups: Vec<PreconditionGroup<'_>> = Vec::new();
    for scenario in scenarios {
        // A failed check that ended its scenario is a cause of its own.
        let Some((run, cause, None)) = first_stop(scenario) else { continue };
        let message = cause.message.as_str();
        let key = match cause {
            cause if cause.unreachable => PreconditionKey::Unreachable,
            cause if cause.unauthenticated => PreconditionKey::Unauthenticated,
            PreconditionFailure { span: Some(span), .. } => PreconditionKey::Place(*span),
            cause => PreconditionKey::Step(&cause.step, message),
        };
        // Schemas and framing are checked without a step.
        let at_once = !run.checks.iter().any(|check| check.span.is_some() && check.asked > 0);
        let place = groups.iter().position(|(known, ..)| *known == key).unwrap_or_else(|| {
            let first = SharedPreconditionFailure {
                span: cause.span,
                step: cause.step.clone(),
                message: String::new(),
                detail: cause.detail.clone(),
                unreachable: cause.unreachable,
                unauthenticated: cause.unauthenticated,
                scenarios: Vec::new(),
                at_once: true,
                blocks: BlockedChecks::default(),
            };
            groups.push((key, first, Vec::new(), true));
            groups.len() - 1
        });
        let (_, group, messages, shortened) = &mut groups[place];
        // A wait in full shows more than shortened ones.
        if *shortened && !cause.shortened {
            (*shortened, group.detail) = (false, cause.detail.clone());
            messages.clear();
        }
        match messages.iter_mut().find(|(known, _)| *known == message) {
            Some((_, times)) => *times += 1,
            None if cause.shortened && !*shortened => {}
            None => messages.push((message, 1)),
        }
        group.scenarios.push(scenario.id.clone());
        group.at_once &= at_once;
        group.blocks.merge(BlockedChecks::blocked_in(scenario));
    }
    let mut causes: Vec<SharedPreconditionFailure> = Vec::new();
    for (_, mut cause, messages, _) in groups {
        // The first of the most frequent: max_by_key would take the last.
        let frequent = messages.iter().rev().max_by_key(|(_, times)| *times);
        cause.message = frequent.map(|(message, _)| (*message).to_owned()).unwrap_or_default();
        // Different steps may have failed for the same reason, such as a refused upgrade.
        match causes.iter_mut().find(|known| message_and_detail(known) == message_and_detail(&cause)) {
            Some(known) => {
                known.scenarios.append(&mut cause.scenarios);
                known.at_once &= cause.at_once;
                known.blocks.merge(cause.blocks);
            }
            None => causes.push(cause),
        }
    }
    causes.sort_by_key(|cause| (!cause.unreachable, std::cmp::Reverse(cause.scenarios.len())));
    causes
}

fn message_and_detail(cause: &SharedPreconditionFailure) -> (&str, Option<(&str, &str)>) {
    (&cause.message, cause.detail.as_ref().map(|detail| (detail.expected.as_str(), detail.received.as_str())))
}

/// Groups checks: those of a shared place (a scene, an opening, an entry of `always`), those of the same rules whose
/// steps and messages are alike, and those without a place (schemas, framing) whose messages are alike.
pub fn group_failures<'a>(checks: Vec<(&'a ScenarioResult, &'a CheckResult)>) -> Vec<FailureGroup<'a>> {
    #[derive(PartialEq, Eq, Hash)]
    enum FailureKey<'a> {
        Place(Span),
        Rules(Vec<&'a str>, String, String),
        Frame(&'a str, String),
    }
    let mut places: HashMap<FailureKey<'a>, usize> = HashMap::new();
    let mut all: Vec<FailureGroup<'a>> = Vec::new();
    for (scenario, check) in checks {
        let report = scenario.check_report(check);
        let stops = first_stop(scenario).is_some_and(|(.., name)| name == Some(check.name.as_str()));
        let blocks = if stops { BlockedChecks::blocked_in(scenario) } else { BlockedChecks::default() };
        let message = without_found_values(&report.message);
        let rules: Vec<&str> = report.rules_of_verdict().map(|used| used.id.as_str()).collect();
        let keys = match report.span {
            Some(span) if rules.is_empty() => vec![FailureKey::Place(span)],
            Some(span) => {
                vec![FailureKey::Place(span), FailureKey::Rules(rules, without_actor(&report.step), message)]
            }
            None => vec![FailureKey::Frame(&check.name, message)],
        };
        match keys.iter().find_map(|key| places.get(key)).and_then(|at| all.get_mut(*at)) {
            Some(first) if !std::ptr::eq(first.scenario, scenario) => {
                if first.also.last() != Some(&scenario.id) {
                    first.also.push(scenario.id.clone());
                }
                first.blocks.merge(blocks);
            }
            Some(_) => all.push(FailureGroup { scenario, check, also: Vec::new(), blocks }),
            None => {
                places.extend(keys.into_iter().map(|key| (key, all.len())));
                all.push(FailureGroup { scenario, check, also: Vec::new(), blocks });
            }
        }
    }
    all
}

/// Returns a message without what was found, and without values.
fn without_found_values(message: &str) -> String {
    without_variable_parts(message.split_once(", found ").map_or(message, |(expected, _)| expected))
}

/// Returns the text of a step without values and without the actor that plays it.
fn without_actor(step: &str) -> String {
    without_variable_parts(step.find("expects").map_or(step, |verb| &step[verb..]))
}

pub fn checks_with_verdict(protocol: &ProtocolReport, verdict: Verdict) -> Vec<(&ScenarioResult, &CheckResult)> {
    let all = protocol.scenarios.iter().flat_map(|scenario| scenario.checks.iter().map(move |check| (scenario, check)));
    all.filter(|(_, check)| check.verdict == verdict).collect()
}

/// Returns the message with which at least half of the played scenarios failed, and their number, at least three. Their
/// checks differ, so they are not grouped as one failure, but they probably have one cause.
pub fn common_symptom<'a>(failures: &'a [FailureGroup<'a>], played: usize) -> Option<(&'a str, usize)> {
    let mut scenarios = BTreeMap::<&'a str, BTreeSet<&'a str>>::new();
    for one in failures {
        let report = one.scenario.check_report(one.check);
        let failed = scenarios.entry(report.message_or_step()).or_default();
        failed.insert(&one.scenario.id);
        failed.extend(one.also.iter().map(String::as_str));
    }
    let (message, failed) = scenarios.into_iter().max_by_key(|(_, failed)| failed.len())?;
    (failed.len() >= 3 && failed.len() * 2 >= played).then_some((message, failed.len()))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{RunFixture, options};
    use super::*;

    fn root_cause_lines(run: &RunFixture) -> Vec<String> {
        let report = run.report(options());
        let line = |cause: &RootCause<'_>| {
            let what = match cause {
                RootCause::Check(one) => one.check.name.clone(),
                RootCause::Precondition(cause, _) => cause.step.clone(),
            };
            let BlockedChecks { checks, rules } = cause.blocked_checks();
            format!(
                "{what} breaks {:?} in {}, blocks {checks} of {rules:?}",
                cause.broken_rules(),
                cause.scenarios().len()
            )
        };
        report.protocols[0].root_causes().iter().map(line).collect()
    }

    #[test]
    fn root_causes_are_listed_once_with_the_most_blocking_first() {
        assert_eq!(
            root_cause_lines(&RunFixture::greeting_broken()),
            [
                r#"GRE-001 breaks ["GRE-001"] in 1, blocks 3 of {"GRE-002", "GRE-003", "GRE-004"}"#,
                r#"expects: welcome breaks [] in 2, blocks 2 of {"GRE-006", "GRE-009"}"#,
            ]
        );
        assert_eq!(
            root_cause_lines(&RunFixture::unreachable()),
            [
                r#"connects breaks [] in 3, blocks 6 of {"GRE-001", "GRE-002", "GRE-003", "GRE-004", "GRE-006", "GRE-009"}"#
            ]
        );
        assert!(root_cause_lines(&RunFixture::all_pass()).is_empty());
    }

    /// No check of its own scenario is blocked, but no client is served any more.
    #[test]
    fn a_hang_comes_first_although_other_causes_block_more() {
        let mut run = RunFixture::greeting_broken();
        run.reports[1].checks.push(CheckReport::new(HANG_CHECK, Verdict::Fail));
        let lines = root_cause_lines(&run);
        assert_eq!(lines[0], "hang breaks [] in 1, blocks 0 of {}");
        assert_eq!(lines.len(), 3, "{lines:?}");
    }

    #[test]
    fn refused_credentials_are_one_cause() {
        assert_eq!(
            root_cause_lines(&RunFixture::refused_credentials()),
            [
                r#"expects: welcome breaks ["GRE-001"] in 3, blocks 5 of {"GRE-002", "GRE-003", "GRE-004", "GRE-006", "GRE-009"}"#
            ]
        );
    }

    #[test]
    fn a_wait_in_full_gives_a_cause_its_message() {
        let report = RunFixture::shortened().report(options());
        let causes: Vec<&str> = report.protocols[0].causes.iter().map(|cause| cause.message.as_str()).collect();
        assert_eq!(causes, ["no welcome received"]);
    }

    /// What was found does not matter, whether it is a text, an object or nothing.
    #[test]
    fn failures_of_a_rule_share_a_cause_whatever_values_were_found() {
        let found = |value: &str| format!("`welcome` breaks its schema at /at: expected a number, found {value}");
        let [a, b, c] = [found("\"now\""), found("null"), found(r#"{"year":2024}"#)];
        let one = r#"schema:welcome:GRE-004 breaks ["GRE-004"] in 3, blocks 0 of {}"#;
        assert_eq!(root_cause_lines(&RunFixture::schema_broken_with([&a, &b, &c])), [one]);
    }

    /// The value that was found does not matter, the place does.
    #[test]
    fn violations_at_the_same_place_in_a_message_share_a_cause() {
        let of = |messages: [&str; 3]| root_cause_lines(&RunFixture::schema_broken_with(messages));
        let one = r#"schema:welcome:GRE-004 breaks ["GRE-004"] in 3, blocks 0 of {}"#;
        let at = |place: &str, found: &str| {
            format!("`welcome` breaks its schema at {place}: expected a number, found {found}")
        };
        let [a, b, c] = [at("/at", "\"now\""), at("/at", "\"then\""), at("/until", "\"now\"")];
        assert_eq!(of([&a, &a, &b]), [one]);
        let two = [one.replace("in 3", "in 2"), one.replace("in 3", "in 1")];
        assert_eq!(of([&a, &c, &b]), two);
    }
}
