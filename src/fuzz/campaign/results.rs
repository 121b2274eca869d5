//! Folds the reports of cases, in whatever order they end. It keeps the first case of each fingerprint and counts the
//! others, so its size does not grow with the run.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::confirm::DoubtfulFinding;
use super::fingerprint::{Fingerprint, NO_MUTATION, broken_checks, oracle_name};
use super::{Campaign, HubLost, pauses};
use crate::fuzz::actors::{NEW_CLIENT, OBSERVER};
use crate::fuzz::case::FuzzCell;
use crate::fuzz::corpus::{Corpus, prefix};
use crate::fuzz::placement::Placement;
use crate::hub::process::RESTART_HOOK;
use crate::interpreter::shorten_frame;
use crate::judge::service::HubOutage;
use crate::judge::{Evidence, Ruling, makers_of_names};
use crate::outcome::{
    CheckReport, FindingDetail, FrameKind, HistoryDirection, HubCrash, Lack, ProcessReport, ScenarioReport, Verdict,
};
use crate::report::fuzz::{self, FuzzReport, NewClientLatency, OracleTally, PauseTally, ShrunkFinding};
use crate::report::text::format_count;
use crate::report::{ProtocolReport, aggregator};
use crate::scenario::model::RuleUse;
use crate::syntax::source::Sources;

/// How many case numbers are kept of each fingerprint.
const KEPT_CASE_NUMBERS: usize = 8;
/// How many fingerprints are kept.
const MAX_FINGERPRINTS: usize = 1000;
/// The most frames of a finding's conversation that are kept, at its beginning and at its end.
const KEPT_FIRST_FRAMES: usize = 40;
const KEPT_LAST_FRAMES: usize = 80;
/// The most bytes that the conversations of all findings of a report may take; further findings keep only the last
/// [`SHORT_HISTORY`] frames, shortened.
const MAX_HISTORY_BYTES: usize = 2 << 20;
const SHORT_HISTORY: usize = 10;
/// Number of cases after which a run ends if none of them could be played.
const MAX_HOPELESS_CASES: u64 = 500;
/// Steps with their errors that are kept of undecided cases.
const MAX_OBSTACLES: usize = 200;
/// Oracles that only check whether the hub is alive and serves.
const SURVIVAL_ORACLES: [&str; 3] = ["FUZZ-SERVES-OLD", "FUZZ-SERVES-NEW", PROCESS_ORACLE];
/// The oracle that holds even if the hub sends nothing.
const SILENCE_ORACLE: &str = "FUZZ-ISOLATES";
/// The check that the hub keeps to RFC 6455, which also fails when a hub that ends cuts a closing handshake short.
const WEBSOCKET_CHECK: &str = "websocket";
/// The oracle of a hub's own process.
pub const PROCESS_ORACLE: &str = "FUZZ-LIVES";

/// The results of the cases so far.
#[derive(Default)]
pub struct CampaignResults {
    /// The stamp of the run, which is in all names that cases make.
    stamp: String,
    cases: u64,
    decided: u64,
    after_opening: u64,
    judged: u64,
    answered: u64,
    oracles: BTreeMap<String, OracleTally>,
    cells: HashMap<FuzzCell, u64>,
    causes: BTreeMap<Fingerprint, CauseGroup>,
    obstacles: BTreeMap<(String, String, bool), u64>,
    /// Cases that need something that the target lacks.
    unmet: u64,
    mistakes: Vec<ScenarioReport>,
    pub ended: Option<String>,
    /// A case whose conversation still fails at the end of the run, without the mutated message.
    pub stuck: Option<u64>,
    pub slower: Option<NewClientLatency>,
    /// How often and how long the hub paused, and this machine stalled.
    pub pauses: [Option<PauseTally>; 2],
    /// Number of findings that were due to a hub that did not serve clients, or to a slow one, and did not occur again.
    unconfirmed: u64,
    /// Number of cases that were being played when the run ended.
    cut: u64,
}

struct CauseGroup {
    /// The report with the lowest `order`: of a case with a single mutated message if there is one, and with the lowest
    /// number, so that it does not depend on which case ended first.
    first: ScenarioReport,
    order: (bool, u64),
    /// Whether the first case failed because the hub did not send something in time.
    is_silent: bool,
    numbers: Vec<u64>,
    cases: u64,
    /// Whether only all of them together are known to cause it.
    together: bool,
    /// Another case, to which a message belongs that the first case received.
    beside: Option<u64>,
    /// Whether the first case, with the other one, showed the finding again.
    recurs: bool,
    shrunk: Option<ShrunkFinding>,
}

impl CampaignResults {
    /// Creates the results of a run with this stamp.
    pub fn new(stamp: &str) -> Self {
        Self { stamp: stamp.to_owned(), ..Self::default() }
    }

    /// Returns the case, other than that with this number, to which the message belongs that an uninvolved client received.
    fn other_case(&self, number: u64, check: &CheckReport) -> Option<u64> {
        let is_leak = check.accuses_hub() && check.rules.iter().any(|(rule, _)| rule.id == SILENCE_ORACLE);
        let received = &check.detail.as_ref().filter(|_| is_leak)?.received;
        let makers: Vec<u64> = makers_of_names(received, &self.stamp).collect();
        makers.first().copied().filter(|_| !makers.contains(&number))
    }

    /// Adds the report of a case.
    pub fn add_report(&mut self, campaign: &Campaign, report: ScenarioReport) {
        let Some((number, cell)) = case_number(&report.id).and_then(|n| Some((n, campaign.scheduler.cell(n)?))) else {
            return;
        };
        // What the end of the run prevented is no result.
        if report.interrupted && broken_checks(&report).next().is_none() {
            self.cut += 1;
            return;
        }
        self.cases += 1;
        if report.mistake.is_some() {
            return if self.mistakes.len() < KEPT_CASE_NUMBERS {
                self.mistakes.push(report)
            };
        }
        self.unmet += u64::from(!report.unmet.is_empty());
        if self.cases >= MAX_HOPELESS_CASES && self.unmet == self.cases {
            self.ended = Some("the target lacks what every case needs".to_owned());
        }
        let is_decided = |verdict: &Verdict| matches!(verdict, Verdict::Pass | Verdict::Fail | Verdict::Warn);
        let mut seen: BTreeMap<&str, Verdict> = BTreeMap::new();
        // A rule may be not testable in one step of a case and decided in another.
        let asked =
            |(used, verdict): &&(RuleUse, Verdict)| *verdict != Verdict::NotTestable && campaign.is_oracle(&used.id);
        for (used, verdict) in report.checks.iter().flat_map(|check| &check.rules).filter(asked) {
            let worst = seen.entry(used.id.as_str()).or_insert(*verdict);
            *worst = (*worst).max(*verdict);
        }
        seen.retain(|_, verdict| is_decided(verdict));
        for (rule, verdict) in &seen {
            self.oracles.entry((*rule).to_owned()).or_default().add_verdict(*verdict);
        }
        // A running process alone does not decide a case that was never played.
        if seen.iter().any(|(rule, verdict)| *rule != PROCESS_ORACLE || *verdict != Verdict::Pass) {
            self.decided += 1;
            self.after_opening += u64::from(cell.placement != Placement::First);
            let is_answered = is_answered(&campaign.corpus, &report);
            let judges = |(rule, verdict): (&&str, &Verdict)| {
                let holds_by_silence = *rule == SILENCE_ORACLE && *verdict == Verdict::Pass && !is_answered;
                !SURVIVAL_ORACLES.contains(rule) && !holds_by_silence
            };
            self.judged += u64::from(seen.iter().any(judges));
            self.answered += u64::from(is_answered);
            *self.cells.entry(cell).or_default() += 1;
        } else if let Some(obstacle) = case_obstacle(&report)
            && (self.obstacles.len() < MAX_OBSTACLES || self.obstacles.contains_key(&obstacle))
        {
            *self.obstacles.entry(obstacle).or_default() += 1;
        }
        let cause = |check: &CheckReport| {
            let beside = self.other_case(number, check);
            // A message that belongs to another case was caused by that case.
            let cell = beside.and_then(|other| campaign.scheduler.cell(other)).unwrap_or(cell);
            (Fingerprint::of_check(campaign.pack(), cell, check), check.name.clone(), beside)
        };
        let mut causes: Vec<(Fingerprint, String, Option<u64>)> = broken_checks(&report).map(cause).collect();
        causes.sort();
        causes.dedup_by(|a, b| a.0 == b.0);
        for (cause, check, beside) in causes {
            self.add_to_group(cause, (&check, beside), (cell.placement.sends_many(), number), &report);
        }
    }

    fn add_to_group(
        &mut self,
        cause: Fingerprint,
        (check, beside): (&str, Option<u64>),
        order: (bool, u64),
        report: &ScenarioReport,
    ) {
        if self.causes.len() >= MAX_FINGERPRINTS && !self.causes.contains_key(&cause) {
            return;
        }
        let alone = || {
            let mut alone = report.clone();
            alone.checks.retain(|one| one.name == check);
            if let Some(other) = beside {
                let tells = |check: &mut CheckReport| check.message.push_str(&format!("; it belongs to case {other}"));
                alone.checks.iter_mut().for_each(tells);
            }
            drop_middle_frames(&mut alone, KEPT_FIRST_FRAMES, KEPT_LAST_FRAMES);
            alone
        };
        let is_silent = report.waits.silent_checks.contains(check);
        let new = || CauseGroup {
            first: alone(),
            order,
            is_silent,
            numbers: Vec::new(),
            cases: 0,
            together: false,
            beside,
            recurs: true,
            shrunk: None,
        };
        let group = self.causes.entry(cause.clone()).or_insert_with(new);
        group.cases += 1;
        if order < group.order {
            (group.first, group.order, group.is_silent, group.beside) = (alone(), order, is_silent, beside);
        }
        let at = group.numbers.partition_point(|known| *known < order.1);
        group.numbers.insert(at, order.1);
        group.numbers.truncate(KEPT_CASE_NUMBERS);
    }

    /// Returns the findings that a play of one case shows by itself: fingerprint, number of the first case, and the
    /// check that failed.
    pub fn first_findings(&self) -> impl Iterator<Item = (&Fingerprint, u64, &CheckReport)> {
        let first = |(cause, group)| {
            let CauseGroup { first, beside: None, .. }: &CauseGroup = group else { return None };
            Some((cause, case_number(&first.id)?, first.checks.first()?))
        };
        self.causes.iter().filter_map(first).filter(|(_, _, check)| !pauses::is_freeze(check))
    }

    /// Returns the findings to replay: those that may only mean that the hub served no clients then, or was slow, and the
    /// others, to know whether their cases show them again.
    pub fn doubtful_findings(&self, outages: &[HubOutage], is_slow: bool) -> Vec<DoubtfulFinding> {
        let during = |report: &ScenarioReport, outage: &HubOutage| {
            report.begun + report.duration >= outage.since && report.begun <= outage.noticed
        };
        // What only warns has had its trial: a control run, or a comparison that was made again.
        let evidence = |group: &CauseGroup| match group.is_silent {
            _ if group.first.verdict != Verdict::Fail => None,
            true if is_slow => Some(Evidence::Lateness),
            true => Some(Evidence::Crowd),
            false => outages.iter().any(|outage| during(&group.first, outage)).then_some(Evidence::Crowd),
        };
        let findings = self.causes.iter().filter(|(cause, _)| cause.oracle != PROCESS_ORACLE);
        let finding = |(cause, group): (&Fingerprint, &CauseGroup)| {
            let (number, evidence, beside) = (case_number(&group.first.id)?, evidence(group), group.beside);
            let stands_anyway = evidence.is_none();
            let evidence = evidence.unwrap_or(Evidence::Crowd);
            Some(DoubtfulFinding { cause: cause.clone(), number, beside, evidence, stands_anyway })
        };
        let mut doubtful: Vec<DoubtfulFinding> = findings.filter_map(finding).collect();
        doubtful.sort_by_key(|finding| finding.stands_anyway);
        doubtful
    }

    /// Records that the case of a finding, played alone, did not show it again.
    pub fn mark_not_seen_again(&mut self, cause: &Fingerprint, ruling: Ruling) {
        let Some(group) = self.causes.get_mut(cause) else { return };
        group.recurs = false;
        // The frame that was received stands by itself; without a replay, there is nothing to add.
        if ruling != Ruling::Open {
            let tells = |check: &mut CheckReport| check.message.push_str("; seen only in the whole run");
            group.first.checks.iter_mut().for_each(tells);
        }
    }

    /// Records that a finding is made without the mutated message, too: the conversation shows it, and not the mutation. The
    /// same finding of other mutations is part of it.
    pub fn clear_mutation(&mut self, cause: &Fingerprint) {
        let Some(mut group) = self.causes.remove(cause) else { return };
        let why = Ruling::Anyway.describe();
        group.first.checks.iter_mut().for_each(|check| check.message.push_str(&format!("; {why}")));
        let is_same =
            |other: &Fingerprint, _: &mut CauseGroup| (&other.oracle, &other.shape) == (&cause.oracle, &cause.shape);
        for (_, other) in self.causes.extract_if(.., is_same) {
            group.cases += other.cases;
            group.numbers.extend(other.numbers);
        }
        group.numbers.sort_unstable();
        group.numbers.dedup();
        group.numbers.truncate(KEPT_CASE_NUMBERS);
        self.causes.insert(Fingerprint { mutation: NO_MUTATION.to_owned(), ..cause.clone() }, group);
    }

    /// Removes a finding that did not occur again.
    pub fn remove_unconfirmed(&mut self, cause: &Fingerprint) {
        let Some(group) = self.causes.remove(cause) else { return };
        self.unconfirmed += 1;
        for oracle in cause.oracle.split(',') {
            if let Some(tally) = self.oracles.get_mut(oracle) {
                tally.broken = tally.broken.saturating_sub(group.cases);
            }
        }
    }

    /// Adds the finding that the hub is gone, or hangs. Failed survival oracles of the cases that were being played
    /// then, and connections that ended, are the same finding.
    pub fn add_lost_hub(&mut self, campaign: &Campaign, gone: HubLost) {
        let HubLost { mut report, under_way, hangs } = gone;
        let Some(cell) = case_number(&report.id).and_then(|number| campaign.scheduler.cell(number)) else { return };
        let of_these = |group: &CauseGroup| group.numbers.iter().all(|number| under_way.contains(number));
        let follows = |oracle: &str| SURVIVAL_ORACLES.contains(&oracle) || oracle == WEBSOCKET_CHECK;
        self.causes.retain(|cause, group| !(follows(&cause.oracle) && of_these(group)));
        let numbers: Vec<String> = under_way.iter().map(u64::to_string).collect();
        let (what, received) = match (hangs, report.cause.as_ref()) {
            (true, _) => {
                ("the hub is unresponsive", "it accepts connections and sends nothing to a new client".to_owned())
            }
            (false, Some(cause)) => ("the hub is gone", cause.with_actor()),
            (false, None) => ("the hub is gone", "no client can connect any more".to_owned()),
        };
        let check = process_check(campaign, Verdict::Fail, what.to_owned(), Some(received));
        let cause = Fingerprint::of_check(campaign.pack(), cell, &check);
        report.checks = vec![check];
        let cases = under_way.len() as u64;
        let group = CauseGroup {
            first: report,
            order: (false, 0),
            is_silent: false,
            numbers: under_way,
            cases,
            together: true,
            beside: None,
            recurs: true,
            shrunk: None,
        };
        self.causes.insert(cause, group);
        self.ended = Some(format!(
            "{what}; under way were the cases {}. With --exec, or a hook `{RESTART_HOOK}` in the target file, it is started again \
             and each of them is played alone",
            numbers.join(", ")
        ));
    }

    /// Adds the smallest conversation with this fingerprint.
    pub fn add_shrunk(&mut self, cause: &Fingerprint, shrunk: ShrunkFinding) {
        if let Some(group) = self.causes.get_mut(cause) {
            group.shrunk = Some(shrunk);
        }
    }

    /// Returns the number of fingerprints found.
    pub fn fingerprint_count(&self) -> usize {
        self.causes.len()
    }

    /// Returns the number of causes found, as reports count them: findings of the same oracle with an answer of the same
    /// shape are one. Findings for whose scenario and check `known` is true do not count, nor do those that rest on
    /// silence, which may not be confirmed.
    pub fn finding_count(&self, protocol: &str, known: &dyn Fn(&str, &str) -> bool) -> usize {
        let certain = self.causes.iter().filter(|(_, group)| !group.is_silent).map(|(cause, _)| cause);
        let new = certain.filter(|cause| !known(&cause.scenario_name(protocol), &cause.oracle));
        new.map(|cause| (&cause.oracle, &cause.shape)).collect::<BTreeSet<_>>().len()
    }

    /// Records that findings were left out because the run ended before they could be confirmed.
    pub fn end_before_confirmation(&mut self, findings: usize) {
        let findings = format_count(findings, "finding");
        self.ended.get_or_insert_with(|| format!("the time was over before {findings} could be confirmed"));
    }

    pub fn case_count(&self) -> u64 {
        self.cases
    }

    /// Returns the number of cells with at least one decided case.
    pub fn covered_cell_count(&self) -> usize {
        self.cells.len()
    }

    /// Returns the report of the run; the files of the cases that it shows are added to `sources`.
    pub fn finish(self, campaign: &Campaign, processes: Vec<ProcessReport>, sources: &mut Sources) -> ProtocolReport {
        let pack = campaign.pack();
        let mut oracles = self.oracles;
        count_crashes(&mut oracles, &processes);
        let mut findings = Vec::new();
        let (mut first, mut history_bytes) = (Vec::new(), 0);
        let mut add =
            |report: ScenarioReport, name: Option<String>, together: Option<&[u64]>, sources: &mut Sources| {
                let number = case_number(&report.id).unwrap_or_default();
                let mut report = name_case(campaign, report, number, name, sources);
                let bytes =
                    |report: &ScenarioReport| report.history.iter().map(|frame| frame.text.len()).sum::<usize>();
                if history_bytes + bytes(&report) > MAX_HISTORY_BYTES {
                    drop_middle_frames(&mut report, 0, SHORT_HISTORY);
                    report.history.iter_mut().for_each(shorten_frame);
                }
                history_bytes += bytes(&report);
                let single = [number];
                let cases = together.unwrap_or(&single);
                first.push((report, cases.iter().flat_map(|case| ["--case".to_owned(), case.to_string()]).collect()));
            };
        for (cause, group) in self.causes {
            let pair = group.beside.zip(case_number(&group.first.id)).map(<[u64; 2]>::from);
            let together = match &pair {
                // Only the whole run is known to show it.
                _ if !group.recurs => Some(&[][..]),
                Some(pair) => Some(&pair[..]),
                None => group.together.then_some(group.numbers.as_slice()),
            };
            add(group.first, Some(cause.scenario_name(&pack.name)), together, sources);
            findings.push(fuzz::FindingTally {
                shape: cause.shape,
                cases: group.cases,
                numbers: group.numbers,
                shrunk: group.shrunk,
            });
        }
        for report in self.mistakes {
            let numbers = case_number(&report.id).into_iter().collect();
            add(report, None, None, sources);
            findings.push(fuzz::FindingTally { shape: String::new(), cases: 1, numbers, shrunk: None });
        }
        let [pauses, stalls] = self.pauses;
        let obstacles = self.obstacles.into_iter();
        let obstacles = obstacles.map(|((step, message, unreachable), cases)| fuzz::CaseObstacle {
            step,
            message,
            unreachable,
            cases,
        });
        let mut fuzzed = FuzzReport {
            seed: campaign.scheduler.seed,
            cases: self.cases,
            decided: self.decided,
            after_opening_percent: FuzzReport::percent_of_decided(self.decided, self.after_opening),
            judged_percent: FuzzReport::percent_of_decided(self.decided, self.judged),
            answered: pack.messages.iter().any(|message| message.directions.from_hub).then_some(self.answered),
            omitted: list_omitted(campaign),
            unused_steps: prefix::unused_steps(&campaign.corpus),
            oracles,
            cells: count_cells(campaign, &self.cells),
            causes: findings,
            obstacles: obstacles.collect(),
            ended: self.ended,
            stuck: self.stuck,
            slower: self.slower,
            pauses,
            stalls,
            unconfirmed: self.unconfirmed,
            cut: self.cut,
        };
        fuzzed.obstacles.sort_by_key(|obstacle| std::cmp::Reverse(obstacle.cases));
        aggregator::fuzz_protocol_report(pack, first, processes, fuzzed)
    }
}

/// Returns the report of a case with the places of its scenario, and with the names that baselines know.
fn name_case(
    campaign: &Campaign,
    mut report: ScenarioReport,
    number: u64,
    name: Option<String>,
    sources: &mut Sources,
) -> ScenarioReport {
    if let Some(case) = campaign.scheduler.case(&campaign.corpus, number) {
        campaign.place_report(&mut report, &case.scenario, sources);
    }
    for check in &mut report.checks {
        check.name = oracle_name(check).to_owned();
    }
    report.id = name.unwrap_or(report.id);
    report
}

fn count_cells(campaign: &Campaign, played: &HashMap<FuzzCell, u64>) -> Vec<fuzz::CellTally> {
    let cells = campaign.scheduler.cells.iter().map(|cell| fuzz::CellTally {
        message: campaign.pack().messages[cell.message].name.clone(),
        mutation: cell.mutation.name().into(),
        placement: cell.placement.name().into(),
        cases: played.get(cell).copied().unwrap_or(0),
    });
    cells.collect()
}

fn list_omitted(campaign: &Campaign) -> Vec<fuzz::OmittedMutation> {
    let omitted = campaign.scheduler.omitted.iter().map(|omitted| fuzz::OmittedMutation {
        message: campaign.pack().messages[omitted.message].name.clone(),
        mutation: omitted.mutation.name().into(),
        why: omitted.why.into(),
    });
    omitted.collect()
}

/// Drops the frames of a report between the first and the last.
fn drop_middle_frames(report: &mut ScenarioReport, first: usize, last: usize) {
    let dropped = report.history.len().saturating_sub(first + last);
    if dropped > 0 {
        report.history.drain(first..first + dropped);
        report.history_dropped += dropped;
    }
}

/// Whether the hub sent a message on some connection after the client had sent more than its opening.
fn is_answered(corpus: &Corpus, report: &ScenarioReport) -> bool {
    let observer = corpus.observer_role().unwrap_or_default();
    let most = corpus.roles().into_iter().map(|role| corpus.opening_length(role)).max().unwrap_or(0);
    let opening = |actor: &str| match actor {
        OBSERVER | NEW_CLIENT => corpus.opening_length(observer),
        _ => most,
    };
    // By connection, how many messages the client sent.
    let mut sent: HashMap<u32, usize> = HashMap::new();
    report.history.iter().any(|frame| {
        let is_message = matches!(frame.kind, FrameKind::Text | FrameKind::Binary | FrameKind::Frames);
        let count = sent.entry(frame.connection).or_default();
        match frame.direction {
            HistoryDirection::Sent => {
                *count += usize::from(is_message);
                false
            }
            HistoryDirection::Received => is_message && *count > opening(&frame.actor),
            HistoryDirection::Neither => false,
        }
    })
}

/// Counts the crashes and hangs that no case reproduces as violations of [`PROCESS_ORACLE`]. The oracle did not hold in
/// the cases under way, even if the hub survived them when they were played again.
fn count_crashes(oracles: &mut BTreeMap<String, OracleTally>, processes: &[ProcessReport]) {
    let crashes: Vec<&HubCrash> = processes.iter().flat_map(ProcessReport::unexplained_crashes).collect();
    if crashes.is_empty() {
        return;
    }
    let under_way: BTreeSet<&String> = crashes.iter().flat_map(|crash| &crash.during).collect();
    let tally = oracles.entry(PROCESS_ORACLE.to_owned()).or_default();
    tally.broken += crashes.len() as u64;
    tally.held = tally.held.saturating_sub(under_way.len() as u64);
}

/// Returns the check that the hub's process keeps running, with this verdict.
pub fn process_check(campaign: &Campaign, verdict: Verdict, message: String, received: Option<String>) -> CheckReport {
    let used = campaign.pack().rules.get(PROCESS_ORACLE).map(|rule| RuleUse {
        id: rule.id.clone(),
        level: rule.level,
        basis: rule.basis,
        lowered: false,
    });
    CheckReport {
        rules: used.into_iter().map(|used| (used, verdict)).collect(),
        step: "the hub keeps running".to_owned(),
        message,
        detail: received.map(|received| FindingDetail {
            expected: "a hub that keeps running, whatever input it receives".to_owned(),
            received,
            ..FindingDetail::default()
        }),
        ..CheckReport::new(PROCESS_ORACLE, verdict)
    }
}

/// Returns the number in an id made by [`Campaign::id`].
pub fn case_number(id: &str) -> Option<u64> {
    id.rsplit_once("/case-")?.1.parse().ok()
}

/// Returns the step that failed and its error, or what the target lacks; and whether the hub could not be reached.
fn case_obstacle(report: &ScenarioReport) -> Option<(String, String, bool)> {
    match &report.cause {
        // The same of every client.
        Some(cause) if cause.unreachable => Some((cause.step.clone(), cause.message.clone(), true)),
        Some(cause) => Some((cause.step.clone(), cause.with_actor(), false)),
        None => {
            let unmet = report.unmet.first()?;
            let lacks = match unmet.lacks {
                Lack::Hook => "the target has none: give it in a target file, under [hooks]",
                Lack::Setting | Lack::Property => "the target has none: give it with --set NAME=VALUE",
            };
            Some((unmet.name.clone(), lacks.to_owned(), false))
        }
    }
}
