//! Aggregates the reports of single scenarios, in any order, into the result of each protocol and each of its rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{
    CheckResult, DeviationReport, FlakyTally, FuzzReport, KnownFailure, PreludeShare, ProposalReport, ProtocolDoubt,
    ProtocolReport, RuleReport, RuleStatus, RunOptions, RunReport, ScenarioResult, causes::group_preconditions,
    scenario_verdict, worst_verdict,
};
use crate::deviation::proposal::{
    DeviationEvidence, DeviationProposal, MissedExpectation, MissedExpectationKind, is_same_claim, propose,
};
use crate::deviation::{Deviation, Deviations, SightingsByEntry, add_seen};
use crate::outcome::{CheckReport, FrameKind, FrameReport, HistoryDirection, ProcessReport, ScenarioReport, Verdict};
use crate::protocol::{FrameDirection, Pack, Rule};
use crate::scenario::Program;
use crate::scenario::model::RuleUse;
use crate::syntax::source::Span;

/// Most repetitions of a scenario, after the first, whose history is kept because they failed, warned or were
/// undecided.
const MAX_KEPT_HISTORIES: usize = 4;
/// The protocol is doubted if at least this many scenarios were played, and in this percentage of them no check passed.
const MIN_PLAYED_FOR_DOUBT: usize = 3;
const BROKEN_PERCENT_FOR_DOUBT: usize = 75;
/// The protocol is also doubted if no check passed in more than this percentage of the scenarios, and more than this
/// percentage of the kinds of messages match no message of the pack.
const UNKNOWN_PERCENT_FOR_DOUBT: usize = 50;
/// Most kinds of messages of a hub that are counted.
const MAX_MESSAGE_KINDS: usize = 1000;

/// A protocol before its scenarios are played.
#[derive(Clone)]
pub struct ProtocolOutline {
    pub pack: Arc<Pack>,
    /// All scenarios of the pack, selected or not.
    pub scenarios: Vec<PlannedScenario>,
    /// The names of the settings that are secret: the credentials of clients.
    pub secrets: Vec<String>,
}

/// A scenario before it is played.
#[derive(Clone, Debug)]
pub struct PlannedScenario {
    pub id: String,
    pub selected: bool,
    pub checks: Vec<PlannedCheck>,
}

#[derive(Clone, Debug)]
pub struct PlannedCheck {
    pub name: String,
    pub rules: Vec<RuleUse>,
    pub span: Span,
    /// Whether the check is an entry of `always`, which checks frames as they arrive and so counts only if one arrived.
    pub always: bool,
}

impl ProtocolOutline {
    /// Creates the outline of a protocol with at least one selected scenario; a report omits protocols without one.
    pub fn new(pack: Arc<Pack>, programs: &[Arc<Program>], selected: impl Fn(&Program) -> bool) -> Self {
        let scenarios = programs
            .iter()
            .map(|program| PlannedScenario {
                id: program.id.clone(),
                selected: selected(program),
                checks: program
                    .checks
                    .iter()
                    .enumerate()
                    .map(|(id, check)| PlannedCheck {
                        name: check.name.clone(),
                        rules: check.rules.clone(),
                        span: check.span,
                        always: program.always.iter().any(|entry| entry.checks().contains(&id)),
                    })
                    .collect(),
            })
            .collect();
        let settings = programs.first().into_iter().flat_map(|program| &program.shared.settings);
        let secrets = settings.filter(|(_, setting)| setting.secret).map(|(name, _)| name.clone()).collect();
        Self { pack, scenarios, secrets }
    }

    fn planned_scenario(&self, id: &str) -> Option<&PlannedScenario> {
        self.scenarios.iter().find(|planned| planned.id == id)
    }
}

/// A collector of scenario reports; [`ReportAggregator::finish`] returns the report of the run.
#[derive(Clone)]
pub struct ReportAggregator {
    protocols: Vec<ProtocolAggregator>,
}

#[derive(Clone)]
struct ProtocolAggregator {
    outline: ProtocolOutline,
    runs: BTreeMap<String, Vec<ScenarioReport>>,
    /// The kinds of messages that the hub sent, and whether each is one of the pack's. Frames are not counted, because
    /// a message that is sent all the time would decide alone.
    kinds: BTreeMap<String, bool>,
    processes: Vec<ProcessReport>,
    deviations: Arc<Deviations>,
    /// Proposed entries that a trial did not confirm.
    rejected: Vec<Value>,
    /// The pairs of a scenario and a prelude that can be played, and whether each has been.
    preludes: BTreeMap<(String, String), bool>,
}

impl ReportAggregator {
    pub fn new(outlines: Vec<ProtocolOutline>) -> Self {
        let gathered = |outline| ProtocolAggregator {
            outline,
            runs: BTreeMap::new(),
            kinds: BTreeMap::new(),
            processes: Vec::new(),
            deviations: Arc::default(),
            rejected: Vec::new(),
            preludes: BTreeMap::new(),
        };
        Self { protocols: outlines.into_iter().map(gathered).collect() }
    }

    /// Returns the reports of a protocol that have been added so far.
    pub fn reports_mut(&mut self, protocol: &str) -> Vec<&mut ScenarioReport> {
        let own = self.protocol_mut(protocol).into_iter();
        own.flat_map(|gathered| gathered.runs.values_mut().flatten()).collect()
    }

    fn protocol_mut(&mut self, name: &str) -> Option<&mut ProtocolAggregator> {
        self.protocols.iter_mut().find(|gathered| gathered.outline.pack.name == name)
    }

    /// Adds a scenario report. It replaces an earlier report of the same repetition. A report of a protocol without an
    /// outline is dropped.
    pub fn add_report(&mut self, report: ScenarioReport) {
        if let Some(gathered) = self.protocol_mut(&report.protocol) {
            gathered.add_report(report);
        }
    }

    /// Adds the report of a hub that the run started.
    pub fn add_process(&mut self, protocol: &str, process: ProcessReport) {
        if let Some(gathered) = self.protocol_mut(protocol) {
            gathered.processes.push(process);
        }
    }

    /// Sets the deviations of the hub of a protocol.
    pub fn set_deviations(&mut self, protocol: &str, deviations: Arc<Deviations>) {
        if let Some(gathered) = self.protocol_mut(protocol) {
            gathered.deviations = deviations;
        }
    }

    /// Removes a proposed entry from the report of a protocol.
    pub fn add_rejected(&mut self, protocol: &str, entry: Value) {
        if let Some(gathered) = self.protocol_mut(protocol) {
            gathered.rejected.push(entry);
        }
    }

    /// Adds a pair of a scenario and a prelude that can be played.
    pub fn add_prelude(&mut self, protocol: &str, scenario: &str, prelude: &str) {
        if let Some(gathered) = self.protocol_mut(protocol) {
            gathered.preludes.insert((scenario.to_owned(), prelude.to_owned()), false);
        }
    }

    /// Records that a pair of a scenario and a prelude was played.
    pub fn add_played_prelude(&mut self, protocol: &str, scenario: &str, prelude: &str) {
        let pair = (scenario.to_owned(), prelude.to_owned());
        let known = self.protocol_mut(protocol).and_then(|gathered| gathered.preludes.get_mut(&pair));
        known.into_iter().for_each(|played| *played = true);
    }

    /// Returns the report of the run. `started` is Unix time in milliseconds.
    pub fn finish(self, options: RunOptions, started: u64, duration: Duration, interrupted: bool) -> RunReport {
        RunReport {
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            started,
            duration,
            options,
            protocols: self.protocols.into_iter().map(ProtocolAggregator::into_report).collect(),
            interrupted,
        }
    }
}

impl ProtocolAggregator {
    fn add_report(&mut self, mut report: ScenarioReport) {
        if let Some(planned) = self.outline.planned_scenario(&report.id) {
            add_unevaluated_checks(&mut report, planned);
        }
        report.verdict = scenario_verdict(&report);
        for frame in &report.history {
            // A shortened text cannot be parsed.
            let judgeable = frame.kind == FrameKind::Binary || (frame.kind == FrameKind::Text && frame.hash.is_none());
            if frame.direction == HistoryDirection::Received && judgeable && self.kinds.len() < MAX_MESSAGE_KINDS {
                let (kind, known) = message_kind(&self.outline.pack, frame);
                self.kinds.insert(kind, known);
            }
        }
        let runs = self.runs.entry(report.id.clone()).or_default();
        runs.retain(|run| run.repetition != report.repetition);
        let telling = runs.iter().skip(1).filter(|run| !run.history.is_empty()).count() < MAX_KEPT_HISTORIES
            && matches!(report.verdict, Verdict::Fail | Verdict::Warn | Verdict::Inconclusive);
        if !runs.is_empty() && !telling {
            report.history_dropped += report.history.len();
            report.history = Vec::new();
        }
        runs.push(report);
    }

    fn into_report(mut self) -> ProtocolReport {
        let order: Vec<String> = self.outline.scenarios.iter().map(|planned| planned.id.clone()).collect();
        let mut played: Vec<Vec<ScenarioReport>> = order.iter().filter_map(|id| self.runs.remove(id)).collect();
        let unplayed = self
            .outline
            .scenarios
            .iter()
            .filter(|planned| {
                planned.selected && !played.iter().any(|runs| runs.iter().any(|run| run.id == planned.id))
            })
            .map(|planned| planned.id.clone())
            .collect();
        played.extend(std::mem::take(&mut self.runs).into_values());
        let scenarios: Vec<ScenarioResult> = played.into_iter().map(merge_repetitions).collect();
        let causes = group_preconditions(&scenarios);
        let unknown = self.kinds.values().filter(|known| !**known).count();
        // In a pack without messages, any message is right.
        let speaks = self.outline.pack.messages.iter().any(|message| message.directions.from_hub);
        let doubt = if speaks { protocol_doubt(&scenarios, self.kinds.len(), unknown) } else { None };
        let deviations = deviation_reports(&self.deviations, &self.outline.pack, &scenarios);
        let processes = self.processes;
        let report = judge_rules(&self.outline, scenarios, &self.deviations);
        let mut proposals = proposal_reports(&self.outline.pack, &report, &self.deviations);
        let rejected = |entry: &Value| self.rejected.iter().any(|one| is_same_claim(one, entry));
        proposals.retain(|proposed| !rejected(&proposed.proposal.entry));
        let is_testable =
            |id: &String| report.scenarios.iter().all(|one| one.id != *id || one.unmet_needs().is_empty());
        self.preludes.retain(|(scenario, _), _| is_testable(scenario));
        let played = self.preludes.values().filter(|played| **played).count();
        let preludes = PreludeShare { played, possible: self.preludes.len() };
        ProtocolReport { unplayed, causes, doubt, processes, deviations, proposals, preludes, ..report }
    }
}

/// Returns the report of a protocol that was fuzzed. Each scenario is the first case of one cause, with the
/// command-line arguments that select it.
pub fn fuzz_protocol_report(
    pack: &Arc<Pack>,
    first: Vec<(ScenarioReport, Vec<String>)>,
    processes: Vec<ProcessReport>,
    fuzzed: FuzzReport,
) -> ProtocolReport {
    let one = |(mut report, again): (ScenarioReport, Vec<String>)| {
        report.verdict = scenario_verdict(&report);
        ScenarioResult { again, ..merge_repetitions(vec![report]) }
    };
    let scenarios: Vec<ScenarioResult> = first.into_iter().map(one).collect();
    let nothing = ProtocolOutline { pack: Arc::clone(pack), scenarios: Vec::new(), secrets: Vec::new() };
    ProtocolReport { processes, fuzzed: Some(fuzzed), ..judge_rules(&nothing, scenarios, &Deviations::default()) }
}

/// Returns each deviation with what the scenarios observed, and with the rules that it broke.
fn deviation_reports(deviations: &Deviations, pack: &Pack, scenarios: &[ScenarioResult]) -> Vec<DeviationReport> {
    let runs = || scenarios.iter().flat_map(|scenario| &scenario.runs);
    let mut seen = SightingsByEntry::new();
    runs().for_each(|run| add_seen(&mut seen, &run.deviations));
    let mut all = DeviationReport::list_all(deviations, pack, &seen);
    for (entry, one) in all.iter_mut().enumerate() {
        let breaks = |check: &&CheckReport| {
            check.accuses_hub() && check.deviation.as_ref().is_some_and(|known| known.entry == entry)
        };
        let broken = runs().flat_map(|run| &run.checks).filter(breaks);
        one.rules.extend(broken.flat_map(|check| &check.rules).map(|(used, _)| used.id.clone()));
    }
    all
}

/// Returns the deviations that would let more rules be judged.
fn proposal_reports(pack: &Pack, report: &ProtocolReport, known: &Deviations) -> Vec<ProposalReport> {
    let runs = || report.scenarios.iter().flat_map(|scenario| &scenario.runs);
    let missed: Vec<&MissedExpectation> = runs().filter_map(|run| run.missed.as_ref()).collect();
    let mut evidence = DeviationEvidence::default();
    runs().for_each(|run| evidence.merge(&run.evidence));
    let open: BTreeSet<&String> = report
        .rules
        .iter()
        .filter(|(_, rule)| matches!(rule.status, RuleStatus::Judged { decided: false, .. }))
        .map(|(id, _)| id)
        .collect();
    let about = |proposal: &DeviationProposal, missed: &MissedExpectation| match &missed.what {
        MissedExpectationKind::Message { message, .. } => proposal.messages.contains(message),
        MissedExpectationKind::Upgrade { .. } => proposal.messages.is_empty(),
    };
    let mut proposals: Vec<ProposalReport> = propose(pack, &missed, &evidence, known)
        .into_iter()
        .map(|proposal| {
            let blocked = runs().filter(|run| run.missed.as_ref().is_some_and(|missed| about(&proposal, missed)));
            let checks = blocked.flat_map(|run| &run.checks).filter(|check| check.verdict == Verdict::Inconclusive);
            let rules = checks.flat_map(|check| &check.rules).map(|(used, _)| &used.id);
            let unblocks = rules.filter(|id| open.contains(id)).cloned().collect();
            ProposalReport { proposal, unblocks }
        })
        .collect();
    proposals.sort_by_key(|proposed| std::cmp::Reverse(proposed.unblocks.len()));
    proposals
}

/// Derives the status of all rules from the results of scenarios.
fn judge_rules(outline: &ProtocolOutline, scenarios: Vec<ScenarioResult>, deviations: &Deviations) -> ProtocolReport {
    let pack = &outline.pack;
    let judge = |rule: &Rule| judge_rule(rule, outline, &scenarios, deviations);
    ProtocolReport {
        name: pack.name.clone(),
        pack_version: pack.version.clone(),
        pack_hash: pack.hash.clone(),
        document: pack.document.clone(),
        link: pack.link.clone(),
        unplayed: Vec::new(),
        rules: pack.rules.values().map(|rule| (rule.id.clone(), judge(rule))).collect(),
        scenarios,
        causes: Vec::new(),
        secrets: outline.secrets.clone(),
        doubt: None,
        processes: Vec::new(),
        baseline: Vec::new(),
        deviations: Vec::new(),
        proposals: Vec::new(),
        fuzzed: None,
        preludes: PreludeShare::default(),
    }
}

/// Adds the checks of a scenario that were never evaluated, each with the reason. Removes those of `always` instead:
/// they apply only to frames that arrived.
fn add_unevaluated_checks(report: &mut ScenarioReport, planned: &PlannedScenario) {
    let (verdict, message) = if !report.unmet.is_empty() {
        let needs: Vec<&str> = report.unmet.iter().map(|need| need.name.as_str()).collect();
        (Verdict::NotTestable, format!("needs {}", needs.join(", ")))
    } else if let Some(mistake) = &report.mistake {
        (Verdict::Inconclusive, format!("not evaluated: {mistake}"))
    } else if let Some(cause) = &report.cause {
        (Verdict::Inconclusive, format!("not evaluated, because `{}` failed", cause.step))
    } else {
        (Verdict::NotTestable, "not reached".to_owned())
    };
    let (always, asked): (Vec<_>, Vec<_>) = planned.checks.iter().partition(|check| check.always);
    let is_undecided = |check: &CheckReport| check.verdict == Verdict::Inconclusive;
    let is_always = |check: &CheckReport| always.iter().any(|entry| entry.name == check.name);
    report.checks.retain(|check| check.asked > 0 || is_undecided(check) || !is_always(check));
    for check in asked {
        if !report.checks.iter().any(|known| known.name == check.name) {
            report.checks.push(CheckReport {
                rules: check.rules.iter().map(|used| (used.clone(), verdict)).collect(),
                span: Some(check.span),
                asked: 0,
                message: message.clone(),
                ..CheckReport::new(&check.name, verdict)
            });
        }
    }
}

/// Returns the kind of message that a frame is, and whether a hub of this pack sends it. An envelope does not count,
/// because it matches too much. The kind of a frame that matches no message is given by the members by which the pack
/// distinguishes its messages, or else by the names of its members.
fn message_kind(pack: &Pack, frame: &FrameReport) -> (String, bool) {
    let Some(payload) = Some(&frame.text).filter(|_| frame.kind != FrameKind::Binary) else {
        return ("binary".to_owned(), false);
    };
    let Ok(payload) = serde_json::from_str::<Value>(payload) else {
        // JSON beyond the limits of decoding may be a message of the pack.
        return ("text".to_owned(), serde_json::from_str::<serde::de::IgnoredAny>(payload).is_ok());
    };
    if let Some(message) = pack.recognise(&payload, FrameDirection::FromHub).filter(|message| !message.abstract_) {
        return (format!("message {}", message.name), true);
    }
    let places = pack.distinguishing_places.iter();
    let values: Vec<&str> = places.filter_map(|place| payload.pointer(place)?.as_str()).collect();
    let names = || payload.as_object().map(|members| members.keys().map(String::as_str).collect::<Vec<_>>().join(", "));
    match names() {
        _ if !values.is_empty() => (format!("as {}", values.join(", ")), false),
        Some(names) => (format!("with {names}"), false),
        None => ("no object".to_owned(), false),
    }
}

/// The index of a repetition, the index of a check in it, and the check's verdict.
type JudgedRepetition = (usize, usize, Verdict);

/// Merges the repetitions of a scenario, at least one.
fn merge_repetitions(mut runs: Vec<ScenarioReport>) -> ScenarioResult {
    runs.sort_by_key(|run| run.repetition);
    let mut places: Vec<(&str, Vec<JudgedRepetition>)> = Vec::new();
    for (run, report) in runs.iter().enumerate() {
        for (place, check) in report.checks.iter().enumerate() {
            let seen: JudgedRepetition = (run, place, check.verdict);
            match places.iter_mut().find(|(name, _)| *name == check.name) {
                Some((_, all)) => all.push(seen),
                None => places.push((&check.name, vec![seen])),
            }
        }
    }
    let checks = places
        .into_iter()
        .map(|(name, seen)| {
            let verdict = worst_verdict(seen.iter().map(|(_, _, verdict)| *verdict)).unwrap_or(Verdict::NotTestable);
            // Failures that are not known come first.
            let known = |(run, place, _): &JudgedRepetition| {
                let check = &runs[*run].checks[*place];
                check.deviation.as_ref().filter(|_| check.accuses_hub())
            };
            let mut telling = seen.iter().filter(|(_, _, v)| *v == verdict);
            let first = telling.clone().next();
            let (run, place, _) = telling.find(|seen| known(seen).is_none()).or(first).copied().unwrap_or(seen[0]);
            let known =
                known(&(run, place, verdict)).map(|known| KnownFailure { reason: known.reason.clone(), flaky: false });
            let broken = seen.iter().filter(|(_, _, v)| *v == verdict).count();
            let decided =
                seen.iter().filter(|(_, _, v)| !matches!(v, Verdict::NotTestable | Verdict::Inconclusive)).count();
            let flaky = (matches!(verdict, Verdict::Fail | Verdict::Warn) && broken < decided)
                .then_some(FlakyTally { broken, decided });
            CheckResult { name: name.to_owned(), verdict, flaky, known, run, place }
        })
        .collect();
    ScenarioResult {
        id: runs[0].id.clone(),
        title: runs[0].title.clone(),
        span: runs[0].span,
        verdict: worst_verdict(runs.iter().map(|run| run.verdict)).unwrap_or(Verdict::NotTestable),
        checks,
        again: super::selection_arguments(&runs[0].id),
        known_cause: None,
        runs,
    }
}

fn judge_rule(
    rule: &Rule,
    outline: &ProtocolOutline,
    scenarios: &[ScenarioResult],
    deviations: &Deviations,
) -> RuleReport {
    let status = match &rule.out_of_scope {
        Some(reason) => RuleStatus::OutOfScope(reason.clone()),
        None if is_not_offered(&rule.id, outline, scenarios, deviations) => RuleStatus::NotOffered,
        None => rule_status(&rule.id, outline, scenarios),
    };
    RuleReport {
        level: rule.level,
        basis: rule.basis,
        place: rule.place.clone(),
        text: rule.text.clone(),
        from: rule.from.clone(),
        status,
    }
}

/// Whether all that a run shows about a rule is that the messages of its checks are declared absent.
fn is_not_offered(
    rule: &str,
    outline: &ProtocolOutline,
    scenarios: &[ScenarioResult],
    deviations: &Deviations,
) -> bool {
    let is_absence = |entry: &Arc<Deviation>| entry.declares_absence() && !entry.is_assumed();
    let explains = |check: &CheckReport| {
        check.deviation.as_ref().is_some_and(|known| deviations.entries().get(known.entry).is_some_and(is_absence))
    };
    let checks = scenarios.iter().flat_map(|scenario| &scenario.runs).flat_map(|run| &run.checks);
    let mut asked = checks
        .filter(|check| check.rules.iter().any(|(used, verdict)| used.id == rule && *verdict != Verdict::NotTestable))
        .peekable();
    if asked.peek().is_some() {
        return asked.all(explains);
    }
    let planned = outline.scenarios.iter().flat_map(|planned| &planned.checks);
    let is_planned = planned.flat_map(|check| &check.rules).any(|used| used.id == rule);
    let messages = outline.pack.messages.iter().enumerate();
    let mut named = messages
        .filter(|(_, message)| message.directions.from_hub && message.schema.names_rule(rule))
        .map(|(index, _)| deviations.absence_of(index))
        .peekable();
    !is_planned
        && named.peek().is_some()
        && named.all(|absent| absent.is_some_and(|entry| is_absence(&deviations.entries()[entry])))
}

fn rule_status(rule: &str, outline: &ProtocolOutline, scenarios: &[ScenarioResult]) -> RuleStatus {
    let mut verdicts = Vec::new();
    let mut named_by = BTreeSet::new();
    let mut needs = BTreeSet::new();
    let mut decided = false;
    for run in scenarios.iter().flat_map(|scenario| &scenario.runs) {
        for (used, verdict) in run.checks.iter().flat_map(|check| &check.rules).filter(|(used, _)| used.id == rule) {
            named_by.insert(run.id.clone());
            needs.extend(run.unmet.iter().cloned());
            verdicts.push(*verdict);
            decided |=
                !used.lowered && matches!(verdict, Verdict::Pass | Verdict::Fail | Verdict::Warn | Verdict::Info);
        }
    }
    if decided {
        verdicts.retain(|verdict| *verdict != Verdict::Inconclusive);
    }
    match worst_verdict(verdicts) {
        Some(Verdict::NotTestable) => RuleStatus::NotTestable { needs },
        Some(verdict) => RuleStatus::Judged { verdict, decided, scenarios: named_by },
        None => unjudged_status(rule, outline, scenarios),
    }
}

/// Returns the status of a rule that no played scenario checked: its frames did not arrive, or its scenarios were not
/// selected.
fn unjudged_status(rule: &str, outline: &ProtocolOutline, scenarios: &[ScenarioResult]) -> RuleStatus {
    let names = |always: bool| {
        let checks = outline.scenarios.iter().flat_map(|planned| &planned.checks);
        checks.filter(|check| check.always == always).flat_map(|check| &check.rules).any(|used| used.id == rule)
    };
    let (planned, always) = (names(false), names(true));
    let by_schema = outline
        .pack
        .messages
        .iter()
        .filter(|message| message.directions.from_hub)
        .any(|message| message.schema.names_rule(rule));
    if planned {
        return RuleStatus::NotAsked;
    }
    if !by_schema && !always {
        return RuleStatus::NoCheck;
    }
    let ran: Vec<&ScenarioResult> =
        scenarios.iter().filter(|scenario| scenario.verdict != Verdict::NotTestable).collect();
    if scenarios.is_empty() {
        RuleStatus::NotAsked
    } else if ran.iter().any(|scenario| scenario.runs.iter().any(|run| run.cause.is_some())) {
        // The frame might have arrived if the scenarios had been completed.
        RuleStatus::Judged { verdict: Verdict::Inconclusive, decided: false, scenarios: BTreeSet::new() }
    } else if ran.is_empty() {
        RuleStatus::NotTestable { needs: scenarios.iter().flat_map(ScenarioResult::unmet_needs).cloned().collect() }
    } else {
        RuleStatus::NotTestable { needs: BTreeSet::new() }
    }
}

fn was_admitted(run: &ScenarioReport) -> bool {
    let opened = |frame: &FrameReport| frame.direction != HistoryDirection::Neither || frame.kind == FrameKind::Open;
    // If the wait for the upgrade was shortened, nothing happened at all.
    let refused = run
        .cause
        .as_ref()
        .is_some_and(|cause| cause.unreachable || cause.unauthenticated || cause.shortened && run.history.is_empty());
    !refused && (run.history.is_empty() || run.history.iter().any(opened))
}

/// Returns the doubt, if there is one; `received` and `unknown` are numbers of kinds of messages.
fn protocol_doubt(scenarios: &[ScenarioResult], received: usize, unknown: usize) -> Option<ProtocolDoubt> {
    let reached: Vec<&ScenarioResult> = scenarios
        .iter()
        .filter(|scenario| {
            // Without a connection, nothing is known about the hub's protocol, nor if it refuses the client.
            scenario.verdict != Verdict::NotTestable && scenario.runs.iter().any(was_admitted)
        })
        .collect();
    let broken = reached.iter().filter(|scenario| no_check_passed(scenario)).count();
    if broken * 100 <= reached.len() * UNKNOWN_PERCENT_FOR_DOUBT {
        None
    } else if unknown * 100 > received * UNKNOWN_PERCENT_FOR_DOUBT {
        Some(ProtocolDoubt::Unrecognised { unknown, received })
    } else if unknown == received
        && reached.len() >= MIN_PLAYED_FOR_DOUBT
        && broken * 100 >= reached.len() * BROKEN_PERCENT_FOR_DOUBT
    {
        Some(ProtocolDoubt::NothingWorks { broken, played: reached.len() })
    } else {
        None
    }
}

/// Whether none of the scenario's own checks passed.
fn no_check_passed(scenario: &ScenarioResult) -> bool {
    // Only checks of steps count: schema checks and `always` also apply to frames that no step expects.
    let passed = |check: &CheckReport| check.is_of_step() && check.verdict == Verdict::Pass;
    matches!(scenario.verdict, Verdict::Fail | Verdict::Inconclusive)
        && !scenario.deciding_run().checks.iter().any(passed)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{RunFixture, options};
    use super::*;
    use crate::outcome::{KnownDeviation, Lack, UnmetNeed};
    use crate::syntax::yaml;

    fn status_of(run: RunFixture, rule: &str) -> RuleStatus {
        run.report(options()).protocols[0].rules[rule].status.clone()
    }

    fn name_set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn needs() -> BTreeSet<UnmetNeed> {
        let need = |name: &str, lacks| UnmetNeed { name: name.to_owned(), lacks };
        BTreeSet::from([need("hook stop", Lack::Hook), need("setting secret", Lack::Setting)])
    }

    #[test]
    fn each_rule_has_the_status_of_its_checks() {
        use RuleStatus::*;
        let hello = || name_set(&["greeter/hello"]);
        let cases = [
            (RunFixture::all_pass(), "GRE-001", Judged { verdict: Verdict::Pass, decided: true, scenarios: hello() }),
            (
                RunFixture::one_failure(),
                "GRE-002",
                Judged { verdict: Verdict::Fail, decided: true, scenarios: hello() },
            ),
            (RunFixture::all_pass(), "GRE-005", OutOfScope("only a client can break it".to_owned())),
            (RunFixture::all_pass(), "GRE-007", NoCheck),
            (RunFixture::not_testable(), "GRE-006", NotTestable { needs: needs() }),
            (RunFixture::interrupted(), "GRE-006", NotAsked),
            (RunFixture::selection(), "GRE-006", NotAsked),
            // Only the schema of `echo` names it, and no echo arrived.
            (RunFixture::selection(), "GRE-008", NotTestable { needs: BTreeSet::new() }),
            (
                RunFixture::unreachable(),
                "GRE-001",
                Judged { verdict: Verdict::Inconclusive, decided: false, scenarios: hello() },
            ),
            (
                RunFixture::unreachable(),
                "GRE-008",
                Judged { verdict: Verdict::Inconclusive, decided: false, scenarios: BTreeSet::new() },
            ),
        ];
        for (run, rule, expected) in cases {
            assert_eq!(status_of(run, rule), expected, "{rule}");
        }
    }

    #[test]
    fn a_check_below_the_rules_level_proves_nothing_but_can_warn() {
        let report = RunFixture::warning().report(options());
        let RuleStatus::Judged { verdict, decided, .. } = &report.protocols[0].rules["GRE-004"].status else {
            panic!()
        };
        assert_eq!((*verdict, *decided), (Verdict::Warn, false));
    }

    /// The reasons of several entries may be equal.
    #[test]
    fn a_deviation_lists_only_the_rules_that_it_broke() {
        let RunFixture { mut sources, pack, programs, .. } = RunFixture::all_pass();
        let entries = "[{ reason: x, member: /a, renamed: /b }, { reason: x, member: /c, renamed: /d }]";
        let file = sources.add("hub.yaml", entries);
        let nodes = yaml::parse(&sources, file).unwrap();
        let declared = Deviations::parse(nodes.list().unwrap(), &pack, &programs[0].shared, false).unwrap();
        let mut report = RunFixture::one_failure().report(options());
        let scenario = &mut report.protocols[0].scenarios[0];
        let check = scenario.runs[0].checks.iter_mut().find(|check| check.name == "GRE-002").unwrap();
        check.deviation = Some(KnownDeviation { entry: 1, reason: "x".to_owned() });
        let rules = |found: &[DeviationReport]| found.iter().map(|one| one.rules.clone()).collect::<Vec<_>>();
        let found = deviation_reports(&declared, &pack, std::slice::from_ref(scenario));
        assert_eq!(rules(&found), [name_set(&[]), name_set(&["GRE-002"])]);
        // A check that is undecided because of a deviation does not show that its rule is broken.
        let check = scenario.runs[0].checks.iter_mut().find(|check| check.name == "GRE-002").unwrap();
        check.verdict = Verdict::Inconclusive;
        let found = deviation_reports(&declared, &pack, std::slice::from_ref(scenario));
        assert_eq!(rules(&found), [name_set(&[]), name_set(&[])]);
    }

    #[test]
    fn a_repeated_scenario_counts_once_and_keeps_first_and_failed_histories() {
        let report = RunFixture::flaky().report(options());
        let protocol = &report.protocols[0];
        let hello = &protocol.scenarios[0];
        assert_eq!((protocol.scenario_tally().total(), hello.runs.len()), (3, 3));
        let check = hello.checks.iter().find(|check| check.name == "GRE-002").unwrap();
        assert_eq!((check.verdict, check.flaky), (Verdict::Fail, Some(FlakyTally { broken: 1, decided: 3 })));
        assert_eq!(hello.run_of_check(check).repetition, 2);
        let kept: Vec<bool> = hello.runs.iter().map(|run| !run.history.is_empty()).collect();
        assert_eq!(kept, [true, true, false]);
    }

    #[test]
    fn the_protocol_is_doubted_for_a_wrong_hub_but_not_for_one_defect() {
        let doubt = |run: RunFixture| run.report(options()).protocols[0].doubt;
        assert_eq!(doubt(RunFixture::other_protocol()), Some(ProtocolDoubt::Unrecognised { unknown: 1, received: 1 }));
        // A message that is sent all the time counts as one kind, and a documented one shows the protocol.
        assert_eq!(doubt(RunFixture::chatty()), None);
        assert_eq!(doubt(RunFixture::without_messages()), None);
        assert_eq!(doubt(RunFixture::greeting_broken()), Some(ProtocolDoubt::NothingWorks { broken: 3, played: 3 }));
        assert_eq!(doubt(RunFixture::one_failure()), None);
        assert_eq!(doubt(RunFixture::schema_broken()), None);
        assert_eq!(doubt(RunFixture::unreachable()), None);
        assert_eq!(doubt(RunFixture::refused_credentials()), None);
    }
}
