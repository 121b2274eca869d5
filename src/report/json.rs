//! The JSON report of `check` and `fuzz`: builds its [document](super::document::check) from the report of a run.

use std::collections::BTreeMap;

use super::document::Tool;
use super::document::check::{
    Cause, Check, Deviating, Entry, FORMAT, FORMAT_VERSION, Finding, Margin, NotJudged, Pack, Place, Process, Proposed,
    Protocol, Reach, RootCause, Rule, Rules, Run, RunDocument, RunMargin, Scenario, Scenarios, SharedCause, Shortened,
    Status, Totals, UsedRule,
};
use super::{
    CheckResult, ProtocolReport, RuleStatus, RunReport, ScenarioResult, VerdictTally, causes, exit_code,
    reproduce_command,
};
use crate::outcome::{ProcessReport, TimingMargin, Verdict, ms};
use crate::protocol::{RuleBasis, RulePlace};
use crate::scenario::model::RuleUse;
use crate::syntax::source::{Sources, Span};

/// Returns the whole report, pretty-printed; ends with a newline. `sources` has the files of the report's spans.
pub fn render(report: &RunReport, sources: &Sources) -> String {
    render_document(&document(report, sources))
}

/// Like [`render`], of a report that was read.
pub fn render_document(document: &RunDocument) -> String {
    // Cannot fail: strings, numbers and maps with text as keys.
    let mut text = serde_json::to_string_pretty(document).unwrap_or_default();
    text.push('\n');
    text
}

fn document(report: &RunReport, sources: &Sources) -> RunDocument {
    RunDocument {
        format: FORMAT.to_owned(),
        format_version: FORMAT_VERSION,
        tool: Tool { name: "hubproof".to_owned(), version: report.tool_version.clone() },
        run: Run {
            started: super::text::format_timestamp(report.started),
            duration_ms: ms(report.duration),
            target: report.options.target.clone(),
            command: report.options.command.clone(),
            strict: report.options.strict,
            stated_only: report.options.stated_only,
            min_judged: report.options.min_judged,
            selected: report.options.selected,
            share: report.options.share,
            interrupted: report.interrupted,
            exit_code: exit_code(report),
            slimmest: report
                .slimmest_margin()
                .map(|(scenario, of)| RunMargin { scenario: scenario.to_owned(), margin: margin(of) }),
        },
        protocols: report
            .protocols
            .iter()
            .map(|protocol| JsonReportWriter { report, protocol, sources }.protocol())
            .collect(),
    }
}

fn shortened_waits(protocol: &ProtocolReport) -> Vec<Shortened> {
    let all = protocol.shortened_waits().into_iter();
    all.map(|(awaited, waits)| Shortened { awaited: awaited.to_owned(), times: waits.times, saved_ms: ms(waits.saved) })
        .collect()
}

struct JsonReportWriter<'a> {
    report: &'a RunReport,
    protocol: &'a ProtocolReport,
    sources: &'a Sources,
}

impl JsonReportWriter<'_> {
    fn protocol(&self) -> Protocol {
        let protocol = self.protocol;
        let options = &self.report.options;
        Protocol {
            name: protocol.name.clone(),
            pack: Pack {
                version: protocol.pack_version.clone(),
                hash: protocol.pack_hash.clone(),
                link: protocol.link.clone(),
                document: protocol.document.clone(),
            },
            exit_code: protocol.exit_code(options),
            summary: super::terminal::verdict_line(protocol, options),
            notes: protocol.subprotocol_note().into_iter().collect(),
            doubt: protocol.doubt.map(|doubt| super::terminal::describe_doubt(&protocol.name, doubt)),
            root_causes: protocol.root_causes().iter().map(|cause| self.root_cause(cause)).collect(),
            causes: protocol.causes.iter().map(|cause| self.shared_cause(cause)).collect(),
            processes: protocol.processes.iter().map(process).collect(),
            baseline: protocol.baseline.iter().map(|entry| self.entry(entry)).collect(),
            shortened_waits: shortened_waits(protocol),
            deviations: protocol.deviations.iter().map(|one| self.deviating(one)).collect(),
            proposals: protocol.proposals.iter().map(proposed).collect(),
            scenarios: Scenarios {
                totals: totals(protocol.scenario_tally()),
                unplayed: protocol.unplayed.clone(),
                list: protocol.scenarios.iter().map(|scenario| self.scenario_member(scenario)).collect(),
            },
            checks: totals(protocol.check_tally()),
            expected: protocol.expected_count(),
            rules: self.rules(),
            reach: self.reach(),
            fuzzed: protocol.fuzzed.clone(),
            preludes: protocol.preludes,
            findings: self.findings(),
        }
    }

    fn root_cause(&self, cause: &causes::RootCause<'_>) -> RootCause {
        let rules = cause.broken_rules().into_iter().map(str::to_owned).collect();
        let blocks = cause.blocked_checks();
        let scenarios = cause.scenarios();
        match cause {
            causes::RootCause::Check(one) => {
                let report = one.scenario.check_report(one.check);
                RootCause {
                    check: Some(one.check.name.clone()),
                    step: report.step.clone(),
                    message: report.message.clone(),
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
                step: precondition.step.clone(),
                message: precondition.message.clone(),
                unreachable: precondition.unreachable,
                place: self.place(precondition.span),
                scenarios,
                rules,
                blocks,
                expected: self.protocol.is_expected_cause(precondition),
            },
        }
    }

    fn shared_cause(&self, cause: &super::SharedPreconditionFailure) -> SharedCause {
        SharedCause {
            step: cause.step.clone(),
            message: cause.message.clone(),
            unreachable: cause.unreachable,
            place: self.place(cause.span),
            detail: cause.detail.clone(),
            scenarios: cause.scenarios.clone(),
        }
    }

    fn scenario_member(&self, scenario: &ScenarioResult) -> Scenario {
        let run = scenario.deciding_run();
        let mut leftovers = BTreeMap::<String, usize>::new();
        for (message, n) in &run.leftovers {
            *leftovers.entry(message.clone()).or_default() += n;
        }
        Scenario {
            id: scenario.id.clone(),
            title: scenario.title.clone(),
            place: self.place(Some(scenario.place())),
            verdict: scenario.verdict,
            needs: scenario.unmet_needs().into_iter().map(|need| need.name.clone()).collect(),
            mistake: scenario.mistake().map(str::to_owned),
            repetitions: scenario.runs.len(),
            checks: scenario.checks.iter().map(|check| self.check(scenario, check)).collect(),
            repetition: run.repetition,
            instance: run.instance.clone(),
            duration_ms: ms(run.duration),
            cause: run.cause.as_ref().map(|cause| Cause {
                step: cause.step.clone(),
                message: cause.with_actor(),
                unreachable: cause.unreachable,
                place: self.place(cause.span),
            }),
            leftovers,
            slimmest: run.waits.slimmest.as_ref().map(margin),
            history: run.history.clone(),
            history_dropped: run.history_dropped,
        }
    }

    fn check(&self, scenario: &ScenarioResult, check: &CheckResult) -> Check {
        let report = scenario.check_report(check);
        let used = |(used, verdict): &(RuleUse, Verdict)| UsedRule {
            id: used.id.clone(),
            level: used.level.name().to_owned(),
            basis: used.basis.name().to_owned(),
            lowered: used.lowered,
            verdict: *verdict,
        };
        Check {
            name: check.name.clone(),
            verdict: check.verdict,
            rules: report.rules.iter().map(used).collect(),
            place: self.place(report.span),
            asked: report.asked,
            message: report.message.clone(),
            flaky: check.flaky,
            expected: check.known.is_some(),
        }
    }

    fn deviating(&self, one: &super::DeviationReport) -> Deviating {
        Deviating {
            name: one.name.clone(),
            text: one.text.clone(),
            reason: one.reason.clone(),
            rules: one.rules.iter().cloned().collect(),
            standing: one.standing,
            observed: one.observed,
            contradicted: one.contradicted,
            assumed: one.span.is_none(),
            file: one.span.map(|span| self.sources.file(span.file).path.clone()),
            line: one.span.map(|span| self.sources.lines(span).0),
        }
    }

    fn entry(&self, entry: &super::BaselineMatch) -> Entry {
        let (first_line, last_line) = self.sources.lines(entry.span);
        Entry {
            failure: entry.failure.clone(),
            reason: entry.reason.clone(),
            standing: entry.standing,
            file: self.sources.file(entry.span.file).path.clone(),
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
            not_offered: reach.not_offered,
            enough: self.protocol.reach_shortfall(&self.report.options).is_none(),
            not_judged: gaps.map(|(gap, musts)| NotJudged { musts: *musts, why: gap.describe().to_owned() }).collect(),
        }
    }

    fn rules(&self) -> Rules {
        let totals = self.protocol.rule_totals();
        let rule = |rule: &super::RuleReport| {
            let (mut needs, mut reason, mut scenarios) = (Vec::new(), None, Vec::new());
            let status = match &rule.status {
                RuleStatus::Judged { verdict, scenarios: named_by, .. } => {
                    scenarios = named_by.iter().cloned().collect();
                    Status::from(*verdict)
                }
                RuleStatus::NotTestable { needs: unmet } => {
                    needs = unmet.iter().map(|need| need.name.clone()).collect();
                    Status::NotTestable
                }
                RuleStatus::OutOfScope(why) => {
                    reason = Some(why.clone());
                    Status::OutOfScope
                }
                RuleStatus::NotOffered => Status::NotOffered,
                RuleStatus::NotAsked => Status::NotAsked,
                RuleStatus::NoCheck => Status::NoCheck,
            };
            let (line, section) = match &rule.place {
                RulePlace::Line(line) => (Some(*line), None),
                RulePlace::Section(section) => (None, Some(section.clone())),
                RulePlace::Oracle => (None, None),
            };
            Rule {
                level: rule.level.name().to_owned(),
                basis: rule.basis.name().to_owned(),
                line,
                section,
                text: rule.text.clone(),
                from: rule.from.clone(),
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
            by_id: self.protocol.rules.iter().map(|(id, report)| (id.clone(), rule(report))).collect(),
        }
    }

    fn findings(&self) -> Vec<Finding> {
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
                    scenario: scenario.id.clone(),
                    check: check.name.clone(),
                    verdict: check.verdict,
                    rules: report.rules_of_verdict().map(|used| used.id.clone()).collect(),
                    // Stated comes before implied, and implied before silent.
                    basis: report
                        .rules_of_verdict()
                        .map(|used| used.basis)
                        .min_by_key(|basis| *basis as u8)
                        .map(|basis| RuleBasis::name(basis).to_owned()),
                    message: report.message.clone(),
                    place: self.place(report.span),
                    step: report.step.clone(),
                    repetition: scenario.run_of_check(check).repetition,
                    flaky: check.flaky,
                    expected: check.known.is_some(),
                    reason: check.known.as_ref().map(|known| known.reason.clone()),
                    detail: report.detail.clone(),
                    reproduce: reproduce_command(&self.report.options, &self.protocol.name, &scenario.again, repeat),
                }
            })
            .collect()
    }

    fn place(&self, span: Option<Span>) -> Place {
        Place {
            file: span.map(|span| self.sources.path(span).to_owned()),
            line: span.map(|span| self.sources.line_column(span).0),
        }
    }
}

fn process(process: &ProcessReport) -> Process {
    Process {
        command: process.command.clone(),
        instances: process.instances.clone(),
        starts: process.starts,
        restarts: process.starts.saturating_sub(1),
        crashes: process.crashes.clone(),
        given_up: process.given_up.clone(),
        log: process.log.clone(),
    }
}

fn margin(margin: &TimingMargin) -> Margin {
    let TimingMargin { step, waited, bound } = margin;
    Margin { step: step.clone(), waited_ms: ms(*waited), bound_ms: ms(*bound), left_ms: ms(margin.remaining()) }
}

fn totals(verdicts: VerdictTally) -> Totals {
    Totals { total: verdicts.total(), verdicts }
}

fn proposed(proposed: &super::ProposalReport) -> Proposed {
    Proposed {
        entry: proposed.proposal.entry.clone(),
        complete: proposed.proposal.complete,
        unblocks: proposed.unblocks.iter().cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::super::fixture::{self, assert_schema_is_derived, options};
    use super::*;
    use crate::report::RunOptions;

    const SCHEMA: &str = include_str!("../../schemas/hubproof/report.schema.json");

    fn schema() -> Value {
        serde_json::from_str(SCHEMA).unwrap()
    }

    fn render_run(run: &fixture::RunFixture) -> Value {
        serde_json::from_str(&render(&run.report(options()), &run.sources)).unwrap()
    }

    #[test]
    fn the_published_schema_is_derived_from_the_types_of_the_report() {
        assert_schema_is_derived::<RunDocument>("report.schema.json");
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
