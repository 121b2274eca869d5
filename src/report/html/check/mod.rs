//! The page of check reports: verdict and reach, root causes, the grid of rules and runs, every rule with its checks.

mod details;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use minijinja::value::Value;
use serde::Serialize;

use self::rules::{RuleGroup, RuleView, about_rule, count_statuses, rule_link};
use super::conversation::{Diagram, diagram};
use super::diff::{JsonDiff, json_diff};
use super::page::{Anchors, PageError, Templates, format_ms, list_some, view};
use crate::outcome::{FindingDetail, Verdict};
use crate::report::document::check::{Finding, Protocol, RootCause, RunDocument, Scenario};
use crate::report::fuzz::ShrunkFinding;
use crate::report::text::format_count;

/// The most findings of a page that are shown in full; the others have a line each.
const MAX_FULL: usize = 60;
/// The most lines of root causes.
const MAX_CAUSES: usize = 40;

/// A page of `check` or `fuzz`.
#[derive(Serialize)]
pub struct RunPage {
    pub title: String,
    /// `pass`, `fail`, `mistake` or `inconclusive`.
    pub verdict: &'static str,
    pub kind: &'static str,
    pub runs: Vec<Value>,
    pub protocols: Vec<ProtocolView>,
}

/// A protocol in all runs that have it.
#[derive(Serialize)]
pub struct ProtocolView {
    pub name: String,
    anchor: String,
    document: String,
    pub results: Vec<Value>,
    /// Root causes that accuse the hub.
    pub causes: Vec<CauseView>,
    /// Root causes that only keep rules from being judged.
    pub blocked: Vec<CauseView>,
    more_causes: usize,
    groups: Vec<RuleGroup>,
    pub findings: Vec<Value>,
    pub brief: Vec<Value>,
    /// The statuses that occur, with their numbers of rules.
    statuses: BTreeMap<&'static str, usize>,
    rules: Vec<RuleView>,
    pub details: Vec<Value>,
    /// Figures of fuzzing, one for each run; empty for check.
    pub fuzzed: Vec<Value>,
}

/// A root cause, with its finding in full.
#[derive(Serialize)]
pub struct CauseView {
    /// Where a link to the cause leads.
    anchor: String,
    #[serde(skip)]
    accuses: bool,
    pub run: Option<String>,
    title: String,
    blocks: String,
    scenarios: String,
    expected: bool,
    unreachable: bool,
    /// The rendered finding.
    finding: Option<Value>,
    /// For a precondition, its evidence.
    plain: bool,
    place: String,
}

/// A finding in full.
#[derive(Default, Serialize)]
pub struct FindingView {
    anchor: String,
    verdict: &'static str,
    run: Option<String>,
    heading: String,
    message: String,
    rules: Vec<RuleText>,
    scenario: String,
    scenario_title: String,
    check: String,
    step: String,
    place: String,
    flaky: String,
    repetition: String,
    known: Option<String>,
    detail: Option<FindingDetail>,
    diff: Option<JsonDiff>,
    diagram: Option<Value>,
    shrunk: Option<ShrunkView>,
    reproduce: String,
    seen: String,
}

/// The smallest conversation that shows a finding of fuzz.
#[derive(Serialize)]
struct ShrunkView {
    diagram: Option<Value>,
    path: String,
    attempts: usize,
    reproduce: String,
}

#[derive(Serialize)]
struct RuleText {
    id: String,
    /// `None` if the pack has no such rule.
    anchor: Option<String>,
    text: String,
    about: String,
    link: Option<String>,
}

/// Renders the page of check reports, each with its name.
pub fn render(reports: Vec<(String, RunDocument)>) -> Result<String, PageError> {
    let templates = Templates::new()?;
    let page = build("check", &reports, &templates, &mut |_, _, _| Ok(None))?;
    let body = templates.part("check", &page)?;
    templates.page(&page.title, &body, None)
}

/// Returns additional figures of a protocol in a run.
pub type Figures<'a> = dyn FnMut(&Templates, &Protocol, &mut Anchors) -> Result<Option<Value>, PageError> + 'a;

/// Builds the view of a page from reports of `check` or `fuzz`.
pub fn build(
    kind: &'static str,
    reports: &[(String, RunDocument)],
    templates: &Templates,
    figures: &mut Figures<'_>,
) -> Result<RunPage, PageError> {
    let mut builder = PageBuilder {
        templates,
        anchors: Anchors::default(),
        several: reports.len() > 1,
        full: 0,
        labels: run_labels(reports),
    };
    builder.anchors.reserve(["main", "verdict", "verdict-title", "plot-data"].map(str::to_owned));
    let mut names: Vec<&str> = Vec::new();
    for protocol in reports.iter().flat_map(|(_, report)| &report.protocols) {
        if !names.contains(&protocol.name.as_str()) {
            names.push(&protocol.name);
        }
    }
    let mut protocols = Vec::new();
    for name in names {
        let of_name = |(at, (_, report)): (usize, &'_ (String, RunDocument))| {
            let index = report.protocols.iter().position(|protocol| protocol.name == name)?;
            Some((at, index))
        };
        let runs: Vec<(usize, &Protocol)> = reports
            .iter()
            .enumerate()
            .filter_map(|(at, report)| of_name((at, report)).map(|(at, index)| (at, &reports[at].1.protocols[index])))
            .collect();
        protocols.push(builder.protocol(name, &runs, figures)?);
    }
    let worst = reports
        .iter()
        .map(|(_, report)| report.run.exit_code)
        .max_by_key(|code| [0, 3, 2, 1][usize::from(*code).min(3)]);
    let title = match reports.iter().flat_map(|(_, report)| &report.protocols).collect::<Vec<_>>().as_slice() {
        [one] => one.summary.clone(),
        _ => {
            let exit = verdict_of(worst.unwrap_or(3));
            let runs = format_count(reports.len(), "run");
            let names = protocols.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ");
            format!("{}: {names} in {runs}", exit.to_uppercase())
        }
    };
    let runs = reports.iter().zip(&builder.labels).map(|((_, report), label)| run_view(report, label)).collect();
    Ok(RunPage { title, verdict: verdict_of(worst.unwrap_or(3)), kind, runs, protocols })
}

fn run_labels(reports: &[(String, RunDocument)]) -> Vec<String> {
    let mut labels: Vec<String> = Vec::new();
    for (name, _) in reports {
        let mut label = name.clone();
        let mut number = 1;
        while labels.contains(&label) {
            number += 1;
            label = format!("{name} ({number})");
        }
        labels.push(label);
    }
    labels
}

fn run_view(report: &RunDocument, label: &str) -> Value {
    let quoted: Vec<_> = report.run.command.iter().map(|word| crate::report::text::quote_for_shell(word)).collect();
    let run = &report.run;
    view! {
        name => label, target => run.target, started => run.started, duration => format_ms(run.duration_ms),
        command => quoted.join(" "), version => report.tool.version, strict => run.strict,
        interrupted => run.interrupted, verdict => verdict_of(run.exit_code),
    }
}

fn verdict_of(exit_code: u8) -> &'static str {
    match exit_code {
        0 => "pass",
        1 => "fail",
        2 => "mistake",
        _ => "inconclusive",
    }
}

struct PageBuilder<'a> {
    templates: &'a Templates,
    anchors: Anchors,
    several: bool,
    /// The number of findings shown in full so far.
    full: usize,
    labels: Vec<String>,
}

impl PageBuilder<'_> {
    fn protocol(
        &mut self,
        name: &str,
        runs: &[(usize, &Protocol)],
        figures: &mut Figures<'_>,
    ) -> Result<ProtocolView, PageError> {
        let anchor = self.anchors.element(name);
        let parts = ["causes", "blocked", "tried", "grid", "findings", "checks", "details"];
        self.anchors
            .reserve(parts.iter().flat_map(|part| [format!("{anchor}.{part}"), format!("{anchor}.{part}-title")]));
        let document = runs.first().map(|(_, protocol)| protocol.pack.document.clone()).unwrap_or_default();
        let results = runs.iter().map(|(at, protocol)| result(&self.labels[*at], protocol)).collect();
        let (mut causes, mut findings, mut brief, mut details, mut fuzzed) = (vec![], vec![], vec![], vec![], vec![]);
        let mut more_causes = 0;
        for (at, protocol) in runs {
            let mut shown = BTreeSet::new();
            for cause in &protocol.root_causes {
                if causes.len() >= MAX_CAUSES {
                    more_causes += 1;
                    continue;
                }
                causes.push(self.cause(*at, protocol, cause, &mut shown)?);
            }
            for (index, finding) in protocol.findings.iter().enumerate() {
                if shown.contains(&index) {
                    continue;
                }
                if matches!(finding.verdict, Verdict::Fail | Verdict::Warn) && self.full < MAX_FULL {
                    findings.push(self.finding(*at, protocol, finding)?.1);
                } else {
                    brief.push(self.brief(*at, finding));
                }
            }
            details.push(self.details(*at, protocol)?);
            fuzzed.extend(figures(self.templates, protocol, &mut self.anchors)?);
        }
        let rules = self.rules(name, runs);
        let groups = self.groups(name, runs, &rules);
        let statuses = count_statuses(&groups);
        let (causes, blocked): (Vec<_>, Vec<_>) = causes.into_iter().partition(|cause: &CauseView| cause.accuses);
        let name = name.to_owned();
        Ok(ProtocolView {
            name,
            anchor,
            document,
            results,
            causes,
            blocked,
            more_causes,
            groups,
            findings,
            brief,
            statuses,
            rules,
            details,
            fuzzed,
        })
    }

    fn run_name(&self, at: usize) -> Option<String> {
        self.several.then(|| self.labels[at].clone())
    }

    fn finding_anchor(&mut self, at: usize, scenario: &str, check: &str) -> String {
        self.anchors.id(&format!("{}finding.{scenario}.{check}", self.prefix(at)))
    }

    fn finding_element(&mut self, at: usize, finding: &Finding) -> String {
        self.anchors.element(&format!("{}finding.{}.{}", self.prefix(at), finding.scenario, finding.check))
    }

    /// Returns the beginning of the ids of a run; empty for the first one, so that links do not depend on the others.
    fn prefix(&self, at: usize) -> String {
        if at == 0 { String::new() } else { format!("run{}.", at + 1) }
    }

    fn cause(
        &mut self,
        at: usize,
        protocol: &Protocol,
        cause: &RootCause,
        shown: &mut BTreeSet<usize>,
    ) -> Result<CauseView, PageError> {
        let found = protocol.findings.iter().enumerate().find(|(index, finding)| {
            !shown.contains(index)
                && Some(&finding.check) == cause.check.as_ref()
                && finding.message == cause.message
                && cause.scenarios.contains(&finding.scenario)
        });
        let finding = match found {
            Some((index, finding)) if self.full < MAX_FULL => {
                shown.insert(index);
                Some(self.finding(at, protocol, finding)?)
            }
            _ if cause.check.is_none() => self.precondition(at, protocol, cause)?.map(|view| (String::new(), view)),
            _ => None,
        };
        let (anchor, finding) = finding.map_or((String::new(), None), |(anchor, view)| (anchor, Some(view)));
        // A cause without a finding of its own is among its rules.
        let anchor = match (anchor.is_empty(), cause.rules.first()) {
            (true, Some(rule)) => self.anchors.id(&format!("rule.{}.{rule}", protocol.name)),
            (true, None) => format!("{}.causes", self.anchors.id(&protocol.name)),
            (false, _) => anchor,
        };
        let title = match (cause.rules.is_empty(), cause.step.is_empty()) {
            (false, _) => format!("{}: {}", cause.rules.join(", "), cause.message),
            (true, true) => cause.message.clone(),
            (true, false) => format!("{}: {}", cause.step, cause.message),
        };
        let mut blocks = String::new();
        if cause.blocks.checks > 0 {
            blocks = format!(
                "blocks {} of {}",
                format_count(cause.blocks.checks, "check"),
                list_some(cause.blocks.rules.iter(), 12)
            );
        }
        Ok(CauseView {
            anchor,
            accuses: cause.check.is_some(),
            run: self.run_name(at),
            title,
            blocks,
            scenarios: list_some(cause.scenarios.iter(), 6),
            expected: cause.expected,
            unreachable: cause.unreachable,
            plain: finding.is_none(),
            finding,
            place: cause.place.describe(),
        })
    }

    /// Shows a step without rules that failed like a finding.
    fn precondition(&mut self, at: usize, protocol: &Protocol, cause: &RootCause) -> Result<Option<Value>, PageError> {
        let Some(scenario) = protocol.scenarios.list.iter().find(|scenario| cause.scenarios.contains(&scenario.id))
        else {
            return Ok(None);
        };
        let shared = protocol.causes.iter().find(|shared| shared.message == cause.message && shared.step == cause.step);
        let detail = shared.and_then(|shared| shared.detail.clone());
        let of_scenario = protocol.findings.iter().find(|finding| finding.scenario == scenario.id);
        self.full += 1;
        let diagram = self.diagram(scenario, detail.as_ref().map(|detail| (detail, cause.message.as_str())))?;
        let view = FindingView {
            anchor: self.anchors.element(&format!("{}cause.{}.{}", self.prefix(at), scenario.id, cause.step)),
            verdict: Verdict::Inconclusive.name(),
            run: self.run_name(at),
            heading: "a step without a rule failed".to_owned(),
            message: cause.message.clone(),
            scenario: scenario.id.clone(),
            scenario_title: scenario.title.clone(),
            step: cause.step.clone(),
            place: cause.place.describe(),
            diff: detail.as_ref().and_then(|detail| json_diff(detail, &cause.step, &scenario.history)),
            detail,
            diagram,
            reproduce: of_scenario.map(|finding| finding.reproduce.clone()).unwrap_or_default(),
            ..FindingView::default()
        };
        Ok(Some(self.templates.part("finding", view)?))
    }

    fn diagram(&self, scenario: &Scenario, found: Option<(&FindingDetail, &str)>) -> Result<Option<Value>, PageError> {
        self.render_diagram(diagram(&scenario.history, scenario.history_dropped, found))
    }

    fn render_diagram(&self, built: Option<Diagram>) -> Result<Option<Value>, PageError> {
        built.map(|diagram| self.templates.part("conversation", diagram)).transpose()
    }

    fn shrunk(&self, of: &ShrunkFinding) -> Result<ShrunkView, PageError> {
        let found = of.detail.as_ref().map(|detail| (detail, of.message.as_str()));
        Ok(ShrunkView {
            diagram: self.render_diagram(diagram(&of.history, of.history_dropped, found))?,
            path: of.path.clone(),
            attempts: of.attempts,
            reproduce: of.reproduce.clone(),
        })
    }

    /// Returns the anchor of a finding, and the finding.
    fn finding(&mut self, at: usize, protocol: &Protocol, finding: &Finding) -> Result<(String, Value), PageError> {
        self.full += 1;
        let scenarios = &protocol.scenarios.list;
        let index = scenarios.iter().position(|scenario| scenario.id == finding.scenario);
        let scenario = index.map(|index| &scenarios[index]);
        // The report has the frames of one repetition only.
        let history = scenario.filter(|scenario| scenario.repetition == finding.repetition);
        let no_detail = FindingDetail::default();
        let detail = finding.detail.as_ref();
        let diff = detail
            .and_then(|detail| json_diff(detail, &finding.step, history.map_or(&[][..], |scenario| &scenario.history)));
        let evidence = (detail.unwrap_or(&no_detail), finding.message.as_str());
        let diagram = history.map(|scenario| self.diagram(scenario, Some(evidence))).transpose()?.flatten();
        let tally = protocol.fuzzed.as_ref().zip(index).and_then(|(fuzzed, index)| fuzzed.causes.get(index));
        let rules = finding.rules.iter().map(|id| self.rule_text(&protocol.name, id, protocol)).collect();
        let anchor = self.finding_element(at, finding);
        let view = FindingView {
            anchor: anchor.clone(),
            verdict: finding.verdict.name(),
            run: self.run_name(at),
            heading: if finding.rules.is_empty() { finding.check.clone() } else { finding.rules.join(", ") },
            message: finding.message.clone(),
            rules,
            scenario: finding.scenario.clone(),
            scenario_title: scenario.map(|scenario| scenario.title.clone()).unwrap_or_default(),
            check: finding.check.clone(),
            step: finding.step.clone(),
            place: finding.place.describe(),
            flaky: finding.flaky.map(|flaky| flaky.shown()).unwrap_or_default(),
            repetition: scenario
                .filter(|scenario| scenario.repetitions > 1)
                .map(|scenario| format!("{} of {}", finding.repetition, scenario.repetitions))
                .unwrap_or_default(),
            known: finding.expected.then(|| finding.reason.clone().unwrap_or_default()),
            detail: finding.detail.clone(),
            diff,
            diagram,
            shrunk: tally.and_then(|tally| tally.shrunk.as_ref()).map(|shrunk| self.shrunk(shrunk)).transpose()?,
            reproduce: finding.reproduce.clone(),
            seen: tally
                .filter(|tally| tally.cases > 1)
                .map(|tally| {
                    let numbers: Vec<String> = tally.numbers.iter().map(u64::to_string).collect();
                    let more = if tally.cases as usize > numbers.len() { ", …" } else { "" };
                    format!("{} cases: {}{more}", tally.cases, numbers.join(", "))
                })
                .unwrap_or_default(),
        };
        Ok((anchor, self.templates.part("finding", view)?))
    }

    fn rule_text(&mut self, protocol: &str, id: &str, of: &Protocol) -> RuleText {
        let rule = of.rules.by_id.get(id);
        RuleText {
            id: id.to_owned(),
            anchor: rule.map(|_| self.anchors.id(&format!("rule.{protocol}.{id}"))),
            text: rule.map(|rule| rule.text.clone()).unwrap_or_default(),
            about: rule.map(|rule| about_rule(rule, &of.pack.document)).unwrap_or_default(),
            link: rule.and_then(|rule| rule_link(rule, of.pack.link.as_deref())),
        }
    }

    fn brief(&mut self, at: usize, finding: &Finding) -> Value {
        view! {
            anchor => self.finding_element(at, finding), verdict => finding.verdict, run => self.run_name(at),
            rules => finding.rules.join(", "), scenario => finding.scenario, check => finding.check,
            message => finding.message, place => finding.place.describe(), expected => finding.expected,
        }
    }
}

fn result(run: &str, protocol: &Protocol) -> Value {
    let reach = &protocol.reach;
    let not_judged: Vec<String> = reach.not_judged.iter().map(|one| format!("{} {}", one.musts, one.why)).collect();
    let order =
        [Verdict::Pass, Verdict::Fail, Verdict::Warn, Verdict::Info, Verdict::Inconclusive, Verdict::NotTestable];
    let counts = order.map(|verdict| (verdict.name(), protocol.checks.verdicts.count(verdict)));
    let checks: Vec<_> = counts.into_iter().filter(|(_, number)| *number > 0).collect();
    let pack = format!("{} ({})", protocol.pack.version, protocol.pack.hash);
    view! {
        run, verdict => verdict_of(protocol.exit_code), summary => protocol.summary, doubt => protocol.doubt, notes => protocol.notes, pack,
        musts => reach.musts, judged => reach.judged, enough => reach.enough, not_judged => not_judged.join(", "),
        percent => (reach.judged * 100).checked_div(reach.musts).unwrap_or(0),
        rules_proven => protocol.rules.proven, rules_total => protocol.rules.total, checks,
    }
}
