//! The JSON report. It consists of the types of this module, and of types of [`event`] that are written unchanged. A
//! change to any of them changes `schemas/hubproof/report.schema.json`, and perhaps [`FORMAT_VERSION`]. Every member is
//! always present, and null if it does not apply.

mod fuzz;

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    CheckResult, ProtocolReport, RuleStatus, RunReport, ScenarioResult, VerdictTally, causes, exit_code,
    reproduce_command,
};
use crate::event::{self, ScenarioReport, Verdict, ms};
use crate::protocol;
use crate::syntax::source::{Sources, Span};

pub const FORMAT: &str = "hubproof-report";
/// Incremented when a member is removed, renamed or changes its meaning; new members may be added without notice.
pub const FORMAT_VERSION: u32 = 1;

/// Returns the whole report, pretty-printed; ends with a newline. `sources` has the files of the report's spans.
pub fn render(report: &RunReport, sources: &Sources) -> String {
    // Cannot fail: strings, numbers and maps with text as keys.
    let mut text = serde_json::to_string_pretty(&document(report, sources)).unwrap_or_default();
    text.push('\n');
    text
}

/// The report of a run of `hubproof check` or `hubproof fuzz`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(title = "hubproof report"))]
struct ReportDocument<'a> {
    /// Always `hubproof-report`.
    #[cfg_attr(test, schemars(extend("const" = FORMAT)))]
    format: &'static str,
    /// Incremented when a member is removed, renamed or changes its meaning; new members may be added without notice.
    #[cfg_attr(test, schemars(extend("const" = FORMAT_VERSION)))]
    format_version: u32,
    tool: Tool<'a>,
    run: Run<'a>,
    protocols: Vec<Protocol<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Tool<'a> {
    name: &'static str,
    version: &'a str,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Run<'a> {
    /// When the run began, RFC 3339, UTC.
    started: String,
    duration_ms: f64,
    /// The URL of the hub, or `embedded reference server`.
    target: &'a str,
    /// The command line, without secrets and without options that select scenarios or report files.
    command: &'a [String],
    /// Whether warnings fail the run.
    strict: bool,
    /// Whether rules that the document only implies warn instead of failing.
    stated_only: bool,
    /// The percentage of the musts that `--min-judged` demands.
    min_judged: Option<u8>,
    /// Whether the run was stopped before everything was played.
    interrupted: bool,
    /// 0 pass, 1 the hub failed, 2 a scenario has a mistake, 3 inconclusive.
    exit_code: u8,
    /// The successful wait with the largest share of its timeout in the whole run; null without waits.
    slimmest: Option<RunMargin<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Protocol<'a> {
    name: &'a str,
    pack: Pack<'a>,
    /// The exit code of a run with this protocol alone.
    exit_code: u8,
    /// The verdict line of the terminal page.
    summary: String,
    /// Why the hub may implement another protocol, in one sentence.
    doubt: Option<String>,
    /// Failed checks and failed preconditions, each once for all scenarios. Those that block most come first.
    root_causes: Vec<RootCause<'a>>,
    /// Failed preconditions that blocked checks, each once.
    causes: Vec<SharedCause<'a>>,
    /// The hubs that the run started with a command.
    processes: Vec<Process<'a>>,
    /// The results of the baseline's entries for this protocol.
    baseline: Vec<Entry<'a>>,
    /// Waits that were shortened because what they awaited did not arrive in three conversations, or because the hub
    /// sent nothing of its document. A check whose wait was shortened is inconclusive.
    shortened_waits: Vec<Shortened<'a>>,
    /// The deviations of the hub that the target declares.
    deviations: Vec<Deviating<'a>>,
    /// Deviations past which the run could have continued. The one that would let most rules be judged comes first.
    proposals: Vec<Proposed<'a>>,
    scenarios: Scenarios<'a>,
    checks: Totals,
    /// Checks that fail or warn as the baseline expects; they are included in the totals.
    expected: usize,
    rules: Rules<'a>,
    /// How many of the pack's musts were judged.
    reach: Reach,
    /// Figures of `hubproof fuzz`, else null. With them, each scenario is the first case of a cause.
    fuzzed: Option<fuzz::Fuzzed<'a>>,
    /// Every check that did not pass, in the order of the scenarios: failed, warned, recorded or inconclusive.
    findings: Vec<Finding<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Shortened<'a> {
    /// The message that was awaited, or `the answer to the upgrade`, `the end of the connection`, `a control frame`,
    /// `any message`.
    awaited: &'a str,
    /// The number of shortened waits that ran out.
    times: usize,
    /// By how much they were shortened in all, in milliseconds.
    saved_ms: f64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Pack<'a> {
    version: &'a str,
    /// SHA-256 over all files of the pack and its scenarios, first twelve digits.
    hash: &'a str,
    /// The document that the lines of the rules refer to.
    document: &'a str,
}

/// Counts; a repeated scenario counts once.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Totals {
    total: usize,
    verdicts: Verdicts,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
struct Verdicts {
    pass: usize,
    fail: usize,
    warn: usize,
    info: usize,
    not_testable: usize,
    inconclusive: usize,
}

/// A check or a step without rules that failed, with all scenarios in which it was found.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct RootCause<'a> {
    /// Name of the failed check; null for a precondition.
    check: Option<&'a str>,
    step: &'a str,
    message: &'a str,
    /// Whether no connection could be made.
    unreachable: bool,
    place: Place<'a>,
    scenarios: Vec<String>,
    /// The rules that the hub breaks.
    rules: Vec<&'a str>,
    blocks: causes::BlockedChecks,
    /// Whether the baseline expects the failure: for a check in the first scenario, for a precondition in all.
    expected: bool,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct SharedCause<'a> {
    step: &'a str,
    message: &'a str,
    /// Whether no connection could be made.
    unreachable: bool,
    place: Place<'a>,
    detail: Option<&'a event::FindingDetail>,
    /// The scenarios that could not start or continue.
    scenarios: &'a [String],
}

/// A hub that the run started, over all its starts.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Process<'a> {
    /// The command, without secrets.
    command: &'a str,
    /// The instances of the target that the hub serves.
    instances: &'a [String],
    /// Number of times the hub was started and listened.
    starts: usize,
    /// Number of starts after the first: the hub had ended, was destroyed, or had to be fresh for one scenario.
    restarts: usize,
    /// Each time the hub ended by itself or hung.
    crashes: &'a [event::HubCrash],
    /// Why the hub was not started again although scenarios needed it.
    given_up: Option<&'a str>,
    log: &'a event::LogExcerpt,
}

/// An entry of the baseline.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Entry<'a> {
    /// `scenario`, or `scenario:check`.
    failure: &'a str,
    reason: &'a str,
    standing: super::EntryStanding,
    file: &'a str,
    /// The first line of the entry, from 1.
    first_line: usize,
    last_line: usize,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Proposed<'a> {
    /// The entry `[[deviation]]` of a target file, as JSON, with a reason to fill in.
    entry: &'a serde_json::Value,
    /// Whether the entry is complete: no value in it is known only to the user.
    complete: bool,
    /// Rules that were not judged but might be with this deviation.
    unblocks: Vec<&'a str>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Deviating<'a> {
    /// The name of its finding, such as `deviation:1`.
    name: &'a str,
    /// What is different, in one line.
    text: &'a str,
    reason: &'a str,
    /// The rules that the hub breaks.
    rules: Vec<&'a str>,
    /// `stale`: the hub behaves as documented. Delete the entry; until then the run fails.
    standing: super::EntryStanding,
    /// How often the deviation applied.
    observed: usize,
    /// How often the documented form was seen instead.
    contradicted: usize,
    /// Whether the run assumed the deviation, instead of the target declaring it.
    assumed: bool,
    /// The file that declares the deviation; null if the run assumed it.
    file: Option<&'a str>,
    /// The line in that file, from 1.
    line: Option<usize>,
}

/// A place in the files of the pack; null members if there is no particular place.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Place<'a> {
    file: Option<&'a str>,
    /// The line of the place, from 1.
    line: Option<usize>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Scenarios<'a> {
    /// The played scenarios.
    #[serde(flatten)]
    totals: Totals,
    /// Selected scenarios that were not played because of an interruption.
    unplayed: &'a [String],
    list: Vec<Scenario<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Scenario<'a> {
    id: &'a str,
    title: &'a str,
    #[serde(flatten)]
    place: Place<'a>,
    verdict: Verdict,
    /// Unmet needs; if there are any, the scenario was not played.
    needs: Vec<&'a str>,
    /// The mistake in the scenario itself.
    mistake: Option<&'a str>,
    repetitions: usize,
    checks: Vec<Check<'a>>,
    /// The repetition that the following members describe: the first with the verdict of the whole.
    repetition: usize,
    /// The instance of the target; empty if the scenario was not played.
    instance: &'a str,
    duration_ms: f64,
    cause: Option<Cause<'a>>,
    /// Frames that no step expected, by message.
    leftovers: BTreeMap<&'a str, usize>,
    /// The successful wait that took the largest share of its timeout.
    slimmest: Option<Margin<'a>>,
    history: &'a [event::FrameReport],
    /// Number of frames that did not fit into the bounded history.
    history_dropped: usize,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Check<'a> {
    /// Unique within its scenario and stable between runs.
    name: &'a str,
    verdict: Verdict,
    rules: Vec<UsedRule<'a>>,
    #[serde(flatten)]
    place: Place<'a>,
    /// How often the check was evaluated in the repetition that is shown.
    asked: usize,
    /// What was wrong; empty if the check passed.
    message: &'a str,
    flaky: Option<super::FlakyTally>,
    /// Whether the check fails or warns as the baseline expects, and so does not fail the run.
    expected: bool,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct UsedRule<'a> {
    id: &'a str,
    /// The level at which this check applies the rule.
    level: &'static str,
    basis: &'static str,
    /// Whether `level` is below the rule's own level: such a check does not prove the rule.
    lowered: bool,
    verdict: Verdict,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Cause<'a> {
    step: &'a str,
    message: String,
    unreachable: bool,
    #[serde(flatten)]
    place: Place<'a>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Margin<'a> {
    step: &'a str,
    waited_ms: f64,
    /// The timeout of the wait.
    bound_ms: f64,
    left_ms: f64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct RunMargin<'a> {
    scenario: &'a str,
    #[serde(flatten)]
    margin: Margin<'a>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Rules<'a> {
    /// Number of rules in the pack.
    total: usize,
    /// Number of rules with a check that could run on this target.
    testable: usize,
    /// Number of rules that a check at the rule's own level proves and no check breaks.
    proven: usize,
    by_id: BTreeMap<&'a str, Rule<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Reach {
    /// Rules of level must, stated or implied, that a hub can break.
    musts: usize,
    /// Number of these with a check at the rule's own level that resulted in pass, fail, warn or info.
    judged: usize,
    /// Whether this is enough to pass, see `--min-judged`.
    enough: bool,
    /// The others, by the reason why they were not judged.
    not_judged: Vec<NotJudged>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct NotJudged {
    musts: usize,
    /// The reason in a few words, such as `need a hook`.
    why: &'static str,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Rule<'a> {
    level: &'static str,
    basis: &'static str,
    /// Line of the document; null if the document has sections, and for oracles of this tool.
    line: Option<usize>,
    /// Section of a document that has sections.
    section: Option<&'a str>,
    text: &'a str,
    /// For an implied rule: what it follows from.
    from: Option<&'a str>,
    status: Status,
    /// Whether a check at the rule's own level was decided.
    decided: bool,
    /// Whether a check at the rule's own level passed and no check broke the rule.
    proven: bool,
    /// With `not-testable`: the unmet needs. If empty, no check of the rule was reached.
    needs: Vec<&'a str>,
    /// With `out-of-scope`: why no hub can break the rule.
    reason: Option<&'a str>,
    /// Scenarios with checks of this rule.
    scenarios: Vec<&'a str>,
}

/// A verdict, or the reason why there is none.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
enum Status {
    Pass,
    Fail,
    Warn,
    Info,
    Inconclusive,
    NotTestable,
    OutOfScope,
    /// No check of the rule was selected, or the run was interrupted first.
    NotAsked,
    NoCheck,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Finding<'a> {
    scenario: &'a str,
    check: &'a str,
    verdict: Verdict,
    /// The rules with this verdict; empty if the check has none.
    rules: Vec<&'a str>,
    /// `stated` if one of them is; null without rules.
    basis: Option<&'static str>,
    message: &'a str,
    #[serde(flatten)]
    place: Place<'a>,
    step: &'a str,
    repetition: usize,
    flaky: Option<super::FlakyTally>,
    /// Whether the baseline expects the finding, so that it does not fail the run.
    expected: bool,
    /// The reason that the baseline gives for an expected finding.
    reason: Option<&'a str>,
    detail: Option<&'a event::FindingDetail>,
    /// A command line that plays this scenario alone.
    reproduce: String,
}

fn document<'a>(report: &'a RunReport, sources: &'a Sources) -> ReportDocument<'a> {
    ReportDocument {
        format: FORMAT,
        format_version: FORMAT_VERSION,
        tool: Tool { name: "hubproof", version: &report.tool_version },
        run: Run {
            started: super::text::format_timestamp(report.started),
            duration_ms: ms(report.duration),
            target: &report.options.target,
            command: &report.options.command,
            strict: report.options.strict,
            stated_only: report.options.stated_only,
            min_judged: report.options.min_judged,
            interrupted: report.interrupted,
            exit_code: exit_code(report),
            slimmest: report.slimmest_margin().map(|(scenario, of)| RunMargin { scenario, margin: margin(of) }),
        },
        protocols: report
            .protocols
            .iter()
            .map(|protocol| JsonReportWriter { report, protocol, sources }.protocol())
            .collect(),
    }
}

fn shortened_waits(protocol: &ProtocolReport) -> Vec<Shortened<'_>> {
    let all = protocol.shortened_waits().into_iter();
    all.map(|(awaited, waits)| Shortened { awaited, times: waits.times, saved_ms: ms(waits.saved) }).collect()
}

struct JsonReportWriter<'a> {
    report: &'a RunReport,
    protocol: &'a ProtocolReport,
    sources: &'a Sources,
}

impl<'a> JsonReportWriter<'a> {
    fn protocol(&self) -> Protocol<'a> {
        let protocol = self.protocol;
        let options = &self.report.options;
        Protocol {
            name: &protocol.name,
            pack: Pack { version: &protocol.pack_version, hash: &protocol.pack_hash, document: &protocol.document },
            exit_code: protocol.exit_code(options),
            summary: super::terminal::verdict_line(protocol, options),
            doubt: protocol.doubt.map(|doubt| super::terminal::describe_doubt(&protocol.name, doubt)),
            root_causes: protocol.root_causes().iter().map(|cause| self.root_cause(cause)).collect(),
            causes: protocol.causes.iter().map(|cause| self.shared_cause(cause)).collect(),
            processes: protocol.processes.iter().map(process).collect(),
            baseline: protocol.baseline.iter().map(|entry| self.entry(entry)).collect(),
            shortened_waits: shortened_waits(protocol),
            deviations: protocol.deviations.iter().map(|one| self.deviating(one)).collect(),
            proposals: protocol.proposals.iter().map(proposed).collect(),
            scenarios: Scenarios {
                totals: totals(&protocol.scenario_tally()),
                unplayed: &protocol.unplayed,
                list: protocol.scenarios.iter().map(|scenario| self.scenario_member(scenario)).collect(),
            },
            checks: totals(&protocol.check_tally()),
            expected: protocol.expected_count(),
            rules: self.rules(),
            reach: self.reach(),
            fuzzed: protocol.fuzzed.as_ref().map(fuzz::to_json),
            findings: self.findings(),
        }
    }

    fn root_cause(&self, cause: &causes::RootCause<'a>) -> RootCause<'a> {
        let rules = cause.broken_rules();
        let blocks = cause.blocked_checks();
        let scenarios = cause.scenarios();
        match cause {
            causes::RootCause::Check(one) => {
                let report = one.scenario.check_report(one.check);
                RootCause {
                    check: Some(&one.check.name),
                    step: &report.step,
                    message: &report.message,
                    unreachable: false,
                    place: self.place(report.span),
                    scenarios,
                    rules,
                    blocks,
                    expected: one.check.known.is_some(),
                }
            }
            causes::RootCause::Precondition(precondition, _) => RootCause {
                check: None,
                step: &precondition.step,
                message: &precondition.message,
                unreachable: precondition.unreachable,
                place: self.place(precondition.span),
                scenarios,
                rules,
                blocks,
                expected: self.protocol.is_expected_cause(precondition),
            },
        }
    }

    fn shared_cause(&self, cause: &'a super::SharedPreconditionFailure) -> SharedCause<'a> {
        SharedCause {
            step: &cause.step,
            message: &cause.message,
            unreachable: cause.unreachable,
            place: self.place(cause.span),
            detail: cause.detail.as_ref(),
            scenarios: &cause.scenarios,
        }
    }

    fn scenario_member(&self, scenario: &'a ScenarioResult) -> Scenario<'a> {
        let run: &ScenarioReport = scenario.deciding_run();
        let mut leftovers = BTreeMap::new();
        for (message, n) in &run.leftovers {
            *leftovers.entry(message.as_str()).or_default() += n;
        }
        Scenario {
            id: &scenario.id,
            title: &scenario.title,
            place: self.place(Some(scenario.place())),
            verdict: scenario.verdict,
            needs: scenario.unmet_needs().into_iter().map(|need| need.name.as_str()).collect(),
            mistake: scenario.mistake(),
            repetitions: scenario.runs.len(),
            checks: scenario.checks.iter().map(|check| self.check(scenario, check)).collect(),
            repetition: run.repetition,
            instance: &run.instance,
            duration_ms: ms(run.duration),
            cause: run.cause.as_ref().map(|cause| Cause {
                step: &cause.step,
                message: cause.with_actor(),
                unreachable: cause.unreachable,
                place: self.place(cause.span),
            }),
            leftovers,
            slimmest: run.slimmest.as_ref().map(margin),
            history: &run.history,
            history_dropped: run.history_dropped,
        }
    }

    fn check(&self, scenario: &'a ScenarioResult, check: &'a CheckResult) -> Check<'a> {
        let report = scenario.check_report(check);
        let used = |(used, verdict): &'a (crate::scenario::model::RuleUse, Verdict)| UsedRule {
            id: &used.id,
            level: used.level.name(),
            basis: used.basis.name(),
            lowered: used.lowered,
            verdict: *verdict,
        };
        Check {
            name: &check.name,
            verdict: check.verdict,
            rules: report.rules.iter().map(used).collect(),
            place: self.place(report.span),
            asked: report.asked,
            message: &report.message,
            flaky: check.flaky,
            expected: check.known.is_some(),
        }
    }

    fn deviating(&self, one: &'a super::DeviationReport) -> Deviating<'a> {
        Deviating {
            name: &one.name,
            text: &one.text,
            reason: &one.reason,
            rules: one.rules.iter().map(String::as_str).collect(),
            standing: one.standing,
            observed: one.observed,
            contradicted: one.contradicted,
            assumed: one.span.is_none(),
            file: one.span.map(|span| self.sources.file(span.file).path.as_str()),
            line: one.span.map(|span| self.sources.lines(span).0),
        }
    }

    fn entry(&self, entry: &'a super::BaselineMatch) -> Entry<'a> {
        let (first_line, last_line) = self.sources.lines(entry.span);
        Entry {
            failure: &entry.failure,
            reason: &entry.reason,
            standing: entry.standing,
            file: &self.sources.file(entry.span.file).path,
            first_line,
            last_line,
        }
    }

    fn reach(&self) -> Reach {
        let reach = self.protocol.reach();
        let gaps = reach.gaps.iter();
        Reach {
            musts: reach.musts,
            judged: reach.judged,
            enough: self.protocol.reach_shortfall(&self.report.options).is_none(),
            not_judged: gaps.map(|(gap, musts)| NotJudged { musts: *musts, why: gap.describe() }).collect(),
        }
    }

    fn rules(&self) -> Rules<'a> {
        let totals = self.protocol.rule_totals();
        let rule = |rule: &'a super::RuleReport| {
            let (mut needs, mut reason, mut scenarios) = (Vec::new(), None, Vec::new());
            let status = match &rule.status {
                RuleStatus::Judged { verdict, scenarios: named_by, .. } => {
                    scenarios = named_by.iter().map(String::as_str).collect();
                    match verdict {
                        Verdict::Pass => Status::Pass,
                        Verdict::Fail => Status::Fail,
                        Verdict::Warn => Status::Warn,
                        Verdict::Info => Status::Info,
                        Verdict::Inconclusive => Status::Inconclusive,
                        Verdict::NotTestable => Status::NotTestable,
                    }
                }
                RuleStatus::NotTestable { needs: unmet } => {
                    needs = unmet.iter().map(|need| need.name.as_str()).collect();
                    Status::NotTestable
                }
                RuleStatus::OutOfScope(why) => {
                    reason = Some(why.as_str());
                    Status::OutOfScope
                }
                RuleStatus::NotAsked => Status::NotAsked,
                RuleStatus::NoCheck => Status::NoCheck,
            };
            let (line, section) = match &rule.place {
                protocol::RulePlace::Line(line) => (Some(*line), None),
                protocol::RulePlace::Section(section) => (None, Some(section.as_str())),
                protocol::RulePlace::Oracle => (None, None),
            };
            Rule {
                level: rule.level.name(),
                basis: rule.basis.name(),
                line,
                section,
                text: &rule.text,
                from: rule.from.as_deref(),
                status,
                decided: matches!(rule.status, RuleStatus::Judged { decided: true, .. }),
                proven: rule.status.is_proven(),
                needs,
                reason,
                scenarios,
            }
        };
        Rules {
            total: totals.total,
            testable: totals.testable,
            proven: totals.proven,
            by_id: self.protocol.rules.iter().map(|(id, report)| (id.as_str(), rule(report))).collect(),
        }
    }

    fn findings(&self) -> Vec<Finding<'a>> {
        let checks = self
            .protocol
            .scenarios
            .iter()
            .flat_map(|scenario| scenario.checks.iter().map(move |check| (scenario, check)));
        checks
            .filter(|(_, check)| !matches!(check.verdict, Verdict::Pass | Verdict::NotTestable))
            .map(|(scenario, check)| {
                let report = scenario.check_report(check);
                let repeat = check.flaky.map_or(1, |flaky| flaky.decided);
                Finding {
                    scenario: &scenario.id,
                    check: &check.name,
                    verdict: check.verdict,
                    rules: report.rules_of_verdict().map(|used| used.id.as_str()).collect(),
                    // Stated comes before implied, and implied before silent.
                    basis: report
                        .rules_of_verdict()
                        .map(|used| used.basis)
                        .min_by_key(|basis| *basis as u8)
                        .map(crate::protocol::RuleBasis::name),
                    message: &report.message,
                    place: self.place(report.span),
                    step: &report.step,
                    repetition: scenario.run_of_check(check).repetition,
                    flaky: check.flaky,
                    expected: check.known.is_some(),
                    reason: check.known.as_ref().map(|known| known.reason.as_str()),
                    detail: report.detail.as_ref(),
                    reproduce: reproduce_command(&self.report.options, &self.protocol.name, &scenario.again, repeat),
                }
            })
            .collect()
    }

    fn place(&self, span: Option<Span>) -> Place<'a> {
        Place {
            file: span.map(|span| self.sources.file(span.file).path.as_str()),
            line: span.map(|span| self.sources.line_column(span).0),
        }
    }
}

fn process(process: &event::ProcessReport) -> Process<'_> {
    Process {
        command: &process.command,
        instances: &process.instances,
        starts: process.starts,
        restarts: process.starts.saturating_sub(1),
        crashes: &process.crashes,
        given_up: process.given_up.as_deref(),
        log: &process.log,
    }
}

fn margin(margin: &event::TimingMargin) -> Margin<'_> {
    let event::TimingMargin { step, waited, bound } = margin;
    Margin { step, waited_ms: ms(*waited), bound_ms: ms(*bound), left_ms: ms(margin.remaining()) }
}

fn totals(tally: &VerdictTally) -> Totals {
    Totals {
        total: tally.total(),
        verdicts: Verdicts {
            pass: tally.count(Verdict::Pass),
            fail: tally.count(Verdict::Fail),
            warn: tally.count(Verdict::Warn),
            info: tally.count(Verdict::Info),
            not_testable: tally.count(Verdict::NotTestable),
            inconclusive: tally.count(Verdict::Inconclusive),
        },
    }
}

fn proposed(proposed: &super::ProposalReport) -> Proposed<'_> {
    Proposed {
        entry: &proposed.proposal.entry,
        complete: proposed.proposal.complete,
        unblocks: proposed.unblocks.iter().map(String::as_str).collect(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::super::fixture::{self, assert_schema_is_derived, options};
    use super::*;
    use crate::report::RunOptions;

    const SCHEMA: &str = include_str!("../../../schemas/hubproof/report.schema.json");

    fn schema() -> Value {
        serde_json::from_str(SCHEMA).unwrap()
    }

    fn render_run(run: &fixture::RunFixture) -> Value {
        serde_json::from_str(&render(&run.report(options()), &run.sources)).unwrap()
    }

    #[test]
    fn the_published_schema_is_derived_from_the_types_of_the_report() {
        assert_schema_is_derived::<ReportDocument<'_>>("report.schema.json");
    }

    #[rstest]
    #[case(fixture::RunFixture::all_pass())]
    #[case(fixture::RunFixture::one_failure())]
    #[case(fixture::RunFixture::warning())]
    #[case(fixture::RunFixture::flaky())]
    #[case(fixture::RunFixture::greeting_broken())]
    #[case(fixture::RunFixture::unreachable())]
    #[case(fixture::RunFixture::not_testable())]
    #[case(fixture::RunFixture::other_protocol())]
    #[case(fixture::RunFixture::interrupted())]
    #[case(fixture::RunFixture::mistake())]
    #[case(fixture::RunFixture::nothing_selected())]
    #[case(fixture::RunFixture::hostile())]
    #[case(fixture::RunFixture::hub_ended(Some("greeter/bye")))]
    fn every_report_conforms_to_the_published_schema(#[case] run: fixture::RunFixture) {
        let validator = jsonschema::draft202012::new(&schema()).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&render_run(&run))
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:#?}");
    }

    /// All members are required, except those of maps with free keys.
    #[test]
    fn removing_any_member_violates_the_published_schema() {
        let validator = jsonschema::draft202012::new(&schema()).unwrap();
        let whole = render_run(&fixture::RunFixture::flaky());
        let mut pointers = Vec::new();
        collect_members(&whole, String::new(), &mut pointers);
        let mut removed = 0;
        for (parent, name) in pointers {
            if parent.ends_with("/by_id") || parent.ends_with("/leftovers") {
                continue;
            }
            let mut mutant = whole.clone();
            mutant.pointer_mut(&parent).unwrap().as_object_mut().unwrap().remove(&name);
            assert!(!validator.is_valid(&mutant), "without {parent}/{name}");
            removed += 1;
        }
        assert!(removed > 200, "{removed}");
    }

    fn collect_members(value: &Value, at: String, into: &mut Vec<(String, String)>) {
        match value {
            Value::Object(map) => {
                for (name, child) in map {
                    into.push((at.clone(), name.clone()));
                    collect_members(child, format!("{at}/{name}"), into);
                }
            }
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(i, child)| collect_members(child, format!("{at}/{i}"), into))
            }
            _ => {}
        }
    }

    #[rstest]
    #[case("/format", json!(FORMAT_VERSION))]
    #[case("/format_version", json!(99))]
    #[case("/protocols/0/scenarios/list/0/verdict", json!("good"))]
    #[case("/protocols/0/rules/by_id/GRE-001/status", json!("fine"))]
    fn a_report_with_a_wrong_value_violates_the_published_schema(#[case] pointer: &str, #[case] wrong: Value) {
        let validator = jsonschema::draft202012::new(&schema()).unwrap();
        let mut mutant = render_run(&fixture::RunFixture::all_pass());
        *mutant.pointer_mut(pointer).unwrap() = wrong;
        assert!(!validator.is_valid(&mutant));
    }

    #[test]
    fn the_json_report_of_one_failure_matches_the_snapshot() {
        let run = fixture::RunFixture::one_failure();
        insta::assert_snapshot!(
            "one_failure",
            render(&run.report(RunOptions { strict: true, ..options() }), &run.sources)
        );
    }
}
