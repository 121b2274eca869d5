//! A run of `check` in rounds. With `explore`, the first round is followed by pairs: a round that tries each proposed
//! deviation alone, on a few scenarios, and a round that assumes those that were confirmed and replays the scenarios
//! that they explain. The rounds end when no new proposal is confirmed, or when the run has played about as much, or
//! lasted about as long, as three plain checks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::job::promptness_for_trial;
use super::{PlayOptions, VariationChoice, stamp};
use crate::deviation::Deviations;
use crate::deviation::proposal::{
    DeviationProposal, MissedExpectationKind, is_respelled_name, join_absent_replies, upgrade_candidates,
};
use crate::hub::prepare::TestedHub;
use crate::judge::proposal::{self, EntryTrial, ScenarioTrial, TrialOutcome, TrialPlay};
use crate::judge::service;
use crate::outcome::{ProcessReport, ScenarioReport};
use crate::protocol::{MessageType, Pack};
use crate::report::{
    DeviationReport, EntryStanding, ProposalReport, ProtocolOutline, ReportAggregator, RunOptions, RunReport,
};
use crate::scenario::variation::{self, Variation};
use crate::scenario::{Isolation, Program};
use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::source::{Sources, Span};
use crate::syntax::yaml::SyntaxNode;

/// All further rounds together may play this many times the scenarios of the first round, plus [`SPARE_PLAYS`].
const FURTHER_PLAYS: usize = 2;
/// A selection of a single scenario may need several entries.
const SPARE_PLAYS: usize = 16;
/// No further round begins once the run has lasted this many times as long as its first round, plus [`SPARE_TIME`].
const MAX_CHECKS: u32 = 3;
const SPARE_TIME: Duration = Duration::from_secs(30);

/// What a round plays, see [`super::run_scenarios`].
pub struct Round {
    pub hubs: Vec<TestedHub>,
    /// Scenarios to play in addition, each with its own deviations.
    pub trials: Vec<ScenarioTrial>,
    pub options: PlayOptions,
}

impl Round {
    /// Returns the number of scenarios to play, repetitions included.
    pub fn count_plays(&self) -> usize {
        let programs = self.hubs.iter().map(|hub| hub.programs.len()).sum::<usize>();
        programs * self.options.repeat + self.trials.len()
    }
}

/// The rounds of a run, with the reports so far.
pub struct Rounds {
    /// The protocols with all their scenarios, and with the deviations that are declared or assumed so far.
    hubs: Vec<TestedHub>,
    options: PlayOptions,
    explore: bool,
    /// Number of rounds so far.
    played: usize,
    /// Number of scenarios that further rounds may play.
    plays_left: usize,
    /// Time after which no further round begins, since the start of the run.
    limit: Duration,
    /// The trials of the current round.
    trials: Vec<EntryTrial>,
    /// The entries that were tried, each with the index of its hub and the number of deviations at that time.
    tried: Vec<TriedEntry>,
    begun: Instant,
    /// When the current round began, relative to the start of the run.
    round_begun: Duration,
    reports: ReportAggregator,
    /// Ids of scenarios that may leave the hub unusable.
    destructive: BTreeSet<String>,
}

/// An entry that was tried, with the number of deviations of the hub at that time.
struct TriedEntry {
    hub: usize,
    entry: Value,
    base: usize,
    /// Whether the hub was lost in the trial, which then proved nothing.
    open: bool,
}

/// How often an entry is tried if the hub is lost meanwhile.
const OPEN_TRIALS: usize = 2;

impl Rounds {
    pub fn new(hubs: Vec<TestedHub>, outlines: Vec<ProtocolOutline>, options: PlayOptions, explore: bool) -> Self {
        let programs = hubs.iter().flat_map(|hub| &hub.programs);
        let destructive = programs.filter(|program| program.isolation == Isolation::Destructive);
        let destructive = destructive.map(|program| program.id.clone()).collect();
        let mut reports = ReportAggregator::new(outlines);
        for hub in &hubs {
            reports.set_deviations(&hub.pack.name, Arc::clone(&hub.deviations));
        }
        if matches!(options.variations, VariationChoice::Spare | VariationChoice::All) {
            for program in hubs.iter().flat_map(|hub| &hub.programs) {
                let varied = VariationChoice::All.of_program(program, 0, "");
                for prelude in varied.iter().filter_map(Variation::prelude) {
                    reports.add_prelude(&program.pack.name, &program.id, prelude);
                }
            }
        }
        Self {
            hubs,
            options,
            explore,
            played: 0,
            plays_left: 0,
            limit: Duration::MAX,
            trials: Vec::new(),
            tried: Vec::new(),
            begun: Instant::now(),
            round_begun: Duration::ZERO,
            reports,
            destructive,
        }
    }

    /// Returns the next round; `None` after the last one.
    ///
    /// # Errors
    ///
    /// A proposed deviation is not valid.
    pub fn next_round(&mut self, sources: &mut Sources) -> Result<Option<Round>, Vec<Diagnostic>> {
        if self.played == 0 {
            let round = self.begin_round(self.hubs.clone(), Vec::new());
            self.plays_left = FURTHER_PLAYS * round.count_plays() + SPARE_PLAYS;
            return Ok(Some(round));
        }
        if !self.explore {
            return Ok(None);
        }
        if self.played == 1 {
            self.limit = self.begun.elapsed() * MAX_CHECKS + SPARE_TIME;
        } else if self.begun.elapsed() > self.limit {
            return Ok(None);
        }
        let ended = std::mem::take(&mut self.trials);
        let (again, joint) = self.judge_trials(ended, sources)?;
        let nothing = joint.is_empty() && again.iter().all(|hub| hub.programs.is_empty());
        self.trials = if nothing { self.propose_trials(sources)? } else { joint };
        let of_trial = |trial: &EntryTrial| scenario_trials(trial, &self.hubs[trial.hub].pack);
        let trials: Vec<ScenarioTrial> = self.trials.iter().flat_map(of_trial).collect();
        let upgrades = self.trials.iter().filter(|trial| is_about_upgrade(&trial.proposals));
        let upgrades: usize = upgrades.map(|trial| trial.plays.len()).sum();
        if nothing && trials.is_empty() {
            return Ok(None);
        }
        let round = self.begin_round(again, trials);
        self.plays_left = self.plays_left.saturating_sub(round.count_plays() - upgrades);
        Ok(Some(round))
    }

    fn begin_round(&mut self, hubs: Vec<TestedHub>, trials: Vec<ScenarioTrial>) -> Round {
        // A hub may remember the names of earlier rounds.
        let stamp = if self.played == 0 { self.options.stamp.clone() } else { stamp() };
        // Further rounds are about deviations only.
        let variations = if self.played == 0 { self.options.variations.clone() } else { super::VariationChoice::None };
        self.played += 1;
        self.round_begun = self.begun.elapsed();
        Round { hubs, trials, options: PlayOptions { stamp, variations, ..self.options.clone() } }
    }

    /// Returns a trial for each proposed entry that was not tried before with the deviations of its hub.
    fn propose_trials(&mut self, sources: &mut Sources) -> Result<Vec<EntryTrial>, Vec<Diagnostic>> {
        let mut trials: Vec<EntryTrial> = Vec::new();
        // At least half is left to replay scenarios with the entries that are confirmed.
        let mut plays_left = self.plays_left / 2;
        for (index, proposals) in self.proposals().into_iter().enumerate() {
            let base = self.hubs[index].deviations.entries().len();
            for proposal in proposals.into_iter().chain(self.upgrade_candidates(index)) {
                let known = |one: &&TriedEntry| one.hub == index && one.base == base && one.entry == proposal.entry;
                let tried = self.tried.iter().filter(known);
                if tried.clone().any(|one| !one.open) || tried.count() >= OPEN_TRIALS {
                    continue;
                }
                let number = trials.len();
                let trial = self.entry_trial(index, number, std::slice::from_ref(&proposal), sources)?;
                let cost = if is_about_upgrade(&trial.proposals) { 0 } else { trial.plays.len() };
                if !trial.plays.is_empty() && cost <= plays_left {
                    plays_left -= cost;
                    trials.push(trial);
                }
            }
        }
        Ok(trials)
    }

    /// Returns the complete proposals of all rounds so far, by hub.
    fn proposals(&self) -> Vec<Vec<DeviationProposal>> {
        let so_far = self.reports.clone().finish(RunOptions::default(), 0, Duration::ZERO, false);
        let complete = |protocol: crate::report::ProtocolReport| {
            let all = protocol.proposals.into_iter().map(|proposed| proposed.proposal);
            all.filter(|proposal| proposal.complete).collect()
        };
        so_far.protocols.into_iter().map(complete).collect()
    }

    /// Returns entries to try on a hub that refuses upgrades, unless an entry about them is known: those that change two
    /// things once those that change one have been tried.
    fn upgrade_candidates(&mut self, hub: usize) -> Vec<DeviationProposal> {
        let TestedHub { pack, shared, programs, deviations, .. } = &self.hubs[hub];
        let reports = self.reports.reports_mut(&pack.name);
        if deviations.upgrade_entries().next().is_some() || !reports.iter().any(|one| proposal::misses_upgrade(one)) {
            return Vec::new();
        }
        let answers = reports.iter().filter_map(|report| match &report.missed.as_ref()?.what {
            MissedExpectationKind::Upgrade { answer, .. } => Some(answer.as_str()),
            MissedExpectationKind::Message { .. } => None,
        });
        let [single, both] = upgrade_candidates(shared, programs, answers);
        let base = deviations.entries().len();
        let was_tried = |proposal: &DeviationProposal| {
            self.tried.iter().any(|one| one.hub == hub && one.base == base && one.entry == proposal.entry)
        };
        if single.iter().all(was_tried) { both } else { single }
    }

    /// Returns the trial of entries that belong together, on the shortest scenarios whose failure they explain.
    fn entry_trial(
        &mut self,
        hub: usize,
        number: usize,
        proposals: &[DeviationProposal],
        sources: &mut Sources,
    ) -> Result<EntryTrial, Vec<Diagnostic>> {
        let entries: Vec<Value> = proposals.iter().map(|proposal| proposal.entry.clone()).collect();
        let TestedHub { pack, programs, .. } = &self.hubs[hub];
        let reports: Vec<ScenarioReport> = self
            .reports
            .reports_mut(&pack.name)
            .into_iter()
            .filter(|report| {
                report.repetition == 1 && proposals.iter().any(|proposal| proposal::explains(pack, proposal, report))
            })
            .map(|report| report.clone())
            .collect();
        let missed = |report: &ScenarioReport| {
            proposals.iter().any(|proposal| proposal::explains_missed(pack, proposal, report))
        };
        // One play is enough if the deviation stops no scenario, or if the hub's frames prove it.
        let is_upgrade = |entry: &Value| entry.get("upgrade").is_some();
        let is_clear = entries.iter().all(is_respelled_name) || !reports.iter().any(missed);
        let is_clear = is_clear && !entries.iter().any(is_upgrade);
        let changes = |entry: &Value| entry.get("upgrade").and_then(Value::as_object).map_or(0, serde_json::Map::len);
        let changes_two = |entry: &Value| changes(entry) > 1;
        let most = if is_clear || entries.iter().any(changes_two) { 1 } else { proposal::MAX_PLAYS };
        let play = |before: ScenarioReport| {
            let program = programs.iter().find(|program| program.id == before.id)?;
            let id = format!("{} with proposal {}", before.id, number + 1);
            Some(TrialPlay { id, program: Arc::clone(program), before, after: None })
        };
        let mut plays: Vec<TrialPlay> = reports.into_iter().filter_map(play).collect();
        // Scenarios that need the hub alone are played one after another.
        let cost = |program: &Program| match &program.isolation {
            Isolation::Shared => 0,
            Isolation::Exclusive(_) => 1,
            Isolation::Destructive => 2,
        };
        let shows = |report: &ScenarioReport| proposals.iter().any(|proposal| proposal::shows_name(proposal, report));
        plays.sort_by_key(|TrialPlay { before, program, .. }| {
            (!shows(before), !missed(before), cost(program), before.duration)
        });
        plays.truncate(most);
        let messages = proposals.iter().flat_map(|proposal| &proposal.messages).copied().collect();
        let deviations = self.deviations_with(hub, &entries, sources)?;
        Ok(EntryTrial { hub, proposals: proposals.to_vec(), messages, deviations, plays })
    }

    /// Returns the deviations of a hub, followed by entries that are assumed.
    fn deviations_with(
        &self,
        hub: usize,
        entries: &[Value],
        sources: &mut Sources,
    ) -> Result<Arc<Deviations>, Vec<Diagnostic>> {
        let file = sources.add("assumed deviations", "");
        let nodes: Vec<SyntaxNode> =
            entries.iter().map(|entry| SyntaxNode::from_json(entry, Span::new(file, 0..0))).collect();
        let TestedHub { pack, shared, deviations, .. } = &self.hubs[hub];
        Ok(Arc::new(deviations.chain(Deviations::parse(&nodes, pack, shared, true)?)))
    }

    /// Assumes the entries that trials confirmed. Returns the hubs with the scenarios to replay, and joint trials of
    /// entries none of which let a scenario get further alone.
    fn judge_trials(
        &mut self,
        ended: Vec<EntryTrial>,
        sources: &mut Sources,
    ) -> Result<(Vec<TestedHub>, Vec<EntryTrial>), Vec<Diagnostic>> {
        let (mut again, mut joint) = (Vec::new(), Vec::new());
        for index in 0..self.hubs.len() {
            let own: Vec<&EntryTrial> = ended.iter().filter(|trial| trial.hub == index).collect();
            let base = self.hubs[index].deviations.entries().len();
            let pack = Arc::clone(&self.hubs[index].pack);
            for trial in &own {
                let open = trial.outcome(&pack) == TrialOutcome::Open;
                let entries = trial.proposals.iter().map(|proposal| proposal.entry.clone());
                self.tried.extend(entries.map(|entry| TriedEntry { hub: index, entry, base, open }));
            }
            let of_outcome = |outcome: TrialOutcome| -> Vec<DeviationProposal> {
                let fitting = own.iter().filter(|trial| trial.outcome(&pack) == outcome);
                let mut found: Vec<DeviationProposal> = Vec::new();
                for proposal in fitting.flat_map(|trial| &trial.proposals) {
                    if found.iter().all(|known| known.entry != proposal.entry) {
                        found.push(proposal.clone());
                    }
                }
                found
            };
            let mut confirmed = of_outcome(TrialOutcome::Confirmed);
            // A hub that takes credentials in several places needs them in one.
            let mut upgrades = 0;
            confirmed.retain(|one| {
                upgrades += usize::from(one.entry.get("upgrade").is_some());
                upgrades < 2 || one.entry.get("upgrade").is_none()
            });
            let applied = of_outcome(TrialOutcome::Applied);
            let mut programs = Vec::new();
            if !confirmed.is_empty() {
                programs = self.explained_programs(index, &confirmed);
                let awaited = awaited_messages(confirmed.iter().flat_map(|one| &one.messages), &pack);
                self.hubs[index].promptness = promptness_for_trial(&self.hubs[index].promptness, &awaited);
                let confirmed = join_absent_replies(&pack, confirmed);
                let entries: Vec<Value> = confirmed.into_iter().map(|proposal| proposal.entry).collect();
                self.hubs[index].deviations = self.deviations_with(index, &entries, sources)?;
                self.reports.set_deviations(&pack.name, Arc::clone(&self.hubs[index].deviations));
            } else {
                let together = applied.len() > 1 && own.iter().all(|trial| trial.proposals.len() == 1);
                let applied = together.then_some(applied);
                let links = own.iter().filter(|trial| trial.outcome(&pack) == TrialOutcome::Applied);
                let links: Vec<Vec<DeviationProposal>> = links.filter_map(|trial| trial.next_link(&pack)).collect();
                for proposals in applied.into_iter().chain(links) {
                    let trial = self.entry_trial(index, joint.len(), &proposals, sources)?;
                    joint.extend((trial.plays.len() <= self.plays_left).then_some(trial));
                }
            }
            again.push(TestedHub { programs, ..self.hubs[index].clone() });
        }
        Ok((again, joint))
    }

    /// Returns the scenarios that departed from the document and that proposals explain, as many as may still be played.
    fn explained_programs(&mut self, hub: usize, proposals: &[DeviationProposal]) -> Vec<Arc<Program>> {
        let TestedHub { pack, programs, .. } = &self.hubs[hub];
        let departs = |report: &ScenarioReport| report.cause.is_some() || report.evidence.shows_another_form();
        // An entry for all messages also changes what the hub receives, so it may explain any failure.
        let explains = |report: &ScenarioReport| {
            let is_about_all = |entry: &Value| entry.get("message").or(entry.get("absent")).is_none();
            let explained = |one: &DeviationProposal| is_about_all(&one.entry) || proposal::explains(pack, one, report);
            departs(report) && proposals.iter().any(explained)
        };
        let own = self.reports.reports_mut(&pack.name);
        let again: BTreeSet<&str> =
            own.iter().filter(|report| explains(report)).map(|report| report.id.as_str()).collect();
        let most = self.plays_left / self.options.repeat.max(1);
        programs.iter().filter(|program| again.contains(program.id.as_str())).take(most).cloned().collect()
    }

    /// Records that a scenario was played with a variation; `id` names both.
    pub fn add_varied(&mut self, id: &str) {
        let (scenario, variation) = variation::split_id(id);
        let variation = variation.and_then(|name| name.parse::<Variation>().ok());
        if let Some(prelude) = variation.as_ref().and_then(Variation::prelude) {
            let protocol = scenario.split('/').next().unwrap_or_default();
            self.reports.add_played_prelude(protocol, scenario, prelude);
        }
    }

    /// Adds the report of a scenario of the current round.
    pub fn add(&mut self, mut report: ScenarioReport) {
        report.begun += self.round_begun;
        self.add_varied(&report.id);
        let mut plays = self.trials.iter_mut().flat_map(|trial| &mut trial.plays);
        match plays.find(|play| play.id == report.id) {
            Some(play) => play.after = Some(report),
            None => {
                // A play that lost the hub says less than the one before.
                let known = self.reports.reports_mut(&report.protocol);
                let known = known.iter().find(|one| one.id == report.id && one.repetition == report.repetition);
                let is_lost = known.is_some_and(|before| proposal::has_lost_hub(before, &report));
                if !is_lost || report.checks.iter().any(|check| check.accuses_hub()) {
                    self.reports.add_report(report);
                }
            }
        }
    }

    /// Detects hangs of the hub, and returns the report of the run. `processes` are the reports of the hubs that the
    /// run started, each with its protocol.
    pub fn finish(
        mut self,
        processes: Vec<(String, ProcessReport)>,
        shown: RunOptions,
        interrupted: bool,
    ) -> RunReport {
        for hub in &self.hubs {
            let mut own = self.reports.reports_mut(&hub.pack.name);
            // Silence after a scenario that may leave the hub unusable does not prove a hang.
            own.retain(|report| !self.destructive.contains(&report.id));
            service::report_hangs(&mut own);
        }
        for (protocol, process) in processes {
            self.reports.add_process(&protocol, process);
        }
        for (index, one) in self.tried.iter().enumerate() {
            let again = |later: &TriedEntry| later.open && (later.hub, &later.entry) == (one.hub, &one.entry);
            if !self.tried[index..].iter().any(again) {
                self.reports.add_rejected(&self.hubs[one.hub].pack.name, one.entry.clone());
            }
        }
        let started = u64::try_from(self.options.now_ms).unwrap_or(0);
        let mut report = self.reports.finish(shown, started, self.begun.elapsed(), interrupted);
        for (protocol, hub) in report.protocols.iter_mut().zip(&self.hubs) {
            protocol.proposals = join_proposals(&hub.pack, std::mem::take(&mut protocol.proposals));
            join_assumed(&hub.pack, &mut protocol.deviations);
        }
        report
    }
}

/// Joins the entries to write for replies that never come and were assumed one after another.
fn join_assumed(pack: &Pack, deviations: &mut [DeviationReport]) {
    let shown = |one: &DeviationReport| one.standing != EntryStanding::Stale;
    let entries = deviations.iter().filter(|one| shown(one)).filter_map(|one| one.entry.clone());
    let entries = entries.map(|entry| DeviationProposal { entry, complete: true, messages: BTreeSet::new() });
    let mut joined = join_absent_replies(pack, entries.collect()).into_iter();
    for one in deviations.iter_mut().filter(|one| shown(one) && one.entry.is_some()) {
        one.entry = joined.next().map(|proposal| proposal.entry);
    }
}

/// Joins the proposals for replies that never come.
fn join_proposals(pack: &Pack, proposals: Vec<ProposalReport>) -> Vec<ProposalReport> {
    let joined = join_absent_replies(pack, proposals.iter().map(|one| one.proposal.clone()).collect());
    let reported = |proposal: DeviationProposal| {
        let is_part = |one: &&ProposalReport| {
            one.proposal == proposal
                || proposal.entry.get("message").is_none()
                    && one.proposal.entry.get("absent").is_some()
                    && one.proposal.messages.is_subset(&proposal.messages)
        };
        let unblocks = proposals.iter().filter(is_part).flat_map(|one| one.unblocks.iter().cloned()).collect();
        ProposalReport { proposal, unblocks }
    };
    joined.into_iter().map(reported).collect()
}

/// Whether proposals are about upgrades. There are few of these, and a hub refuses an upgrade at once.
fn is_about_upgrade(proposals: &[DeviationProposal]) -> bool {
    proposals.iter().all(|proposal| proposal.entry.get("upgrade").is_some())
}

/// Returns the plays of a trial.
fn scenario_trials(trial: &EntryTrial, pack: &Pack) -> Vec<ScenarioTrial> {
    let awaited = awaited_messages(&trial.messages, pack);
    let play = |play: &TrialPlay| ScenarioTrial {
        hub: trial.hub,
        id: play.id.clone(),
        program: Arc::clone(&play.program),
        deviations: Arc::clone(&trial.deviations),
        awaited: awaited.clone(),
    };
    trial.plays.iter().map(play).collect()
}

/// Returns the names of the messages that deviations change, and of their replies; all names for changed upgrades.
fn awaited_messages<'m>(messages: impl IntoIterator<Item = &'m usize>, pack: &Pack) -> BTreeSet<String> {
    let named: Vec<&MessageType> = messages.into_iter().map(|index| &pack.messages[*index]).collect();
    let named = if named.is_empty() { pack.messages.iter().collect() } else { named };
    named.into_iter().flat_map(|message| std::iter::once(&message.name).chain(&message.replies)).cloned().collect()
}
