//! Trials of proposed deviations: each entry is assumed alone, in a few scenarios whose failure it explains. It is kept
//! only if these scenarios get further with it and the hub shows it.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use crate::deviation::proposal::{
    DeviationEvidence, DeviationProposal, MissedExpectation, MissedExpectationKind, is_respelled_name,
    join_absent_replies, propose,
};
use crate::deviation::{Deviation, DeviationChange, Deviations, SightingsByEntry, add_seen};
use crate::outcome::{FrameKind, HistoryDirection, ScenarioReport, Verdict};
use crate::protocol::Pack;
use crate::scenario::Program;

/// The most scenarios on which an entry is tried.
pub const MAX_PLAYS: usize = 3;
/// The most messages that are assumed to be absent together: the greeting, and the answers to a client's first requests.
const MAX_LINKS: usize = 4;

/// A scenario to play again with deviations that are only tried.
#[derive(Clone)]
pub struct ScenarioTrial {
    /// Index of the hub in the round.
    pub hub: usize,
    /// Distinguishes this play from the others of the run; its report has this id.
    pub id: String,
    pub program: Arc<Program>,
    pub deviations: Arc<Deviations>,
    /// Names of the messages that may come with these deviations. Waits for them are not shortened.
    pub awaited: BTreeSet<String>,
}

/// Proposed entries that are tried together, usually one.
pub struct EntryTrial {
    pub hub: usize,
    pub proposals: Vec<DeviationProposal>,
    /// The messages that the proposals explain.
    pub messages: BTreeSet<usize>,
    /// The deviations of the hub so far, followed by the entries.
    pub deviations: Arc<Deviations>,
    pub plays: Vec<TrialPlay>,
}

/// A scenario of a trial.
pub struct TrialPlay {
    pub id: String,
    pub program: Arc<Program>,
    /// Its report without the entries.
    pub before: ScenarioReport,
    /// Its report with them, once it has been played.
    pub after: Option<ScenarioReport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialOutcome {
    /// The hub shows the difference, and the scenarios got further, or the entry is certain anyway.
    Confirmed,
    /// The hub shows the difference, but no scenario got further: perhaps another entry is needed, too.
    Applied,
    /// The hub does not show the difference, or shows the documented form.
    Refuted,
    /// The hub was lost in a trial that did not confirm the entry.
    Open,
}

impl EntryTrial {
    /// Returns what the reports of its scenarios prove.
    pub fn outcome(&self, pack: &Pack) -> TrialOutcome {
        let is_open = |play: &TrialPlay| play.after.as_ref().is_none_or(|after| has_lost_hub(&play.before, after));
        match self.outcome_of_reports(pack) {
            TrialOutcome::Applied | TrialOutcome::Refuted if self.plays.iter().any(is_open) => TrialOutcome::Open,
            outcome => outcome,
        }
    }

    fn outcome_of_reports(&self, pack: &Pack) -> TrialOutcome {
        let played = || self.plays.iter().filter_map(|play| Some((&play.before, play.after.as_ref()?)));
        let mut seen = SightingsByEntry::new();
        played().for_each(|(_, after)| add_seen(&mut seen, &after.deviations));
        let all = self.deviations.entries();
        let base = all.len() - self.proposals.len();
        let is_shown = |index: usize| {
            let seen = seen.get(&index).copied().unwrap_or_default();
            seen.observed > 0 && !all[index].is_stale(seen)
        };
        if !(base..all.len()).all(is_shown) {
            return TrialOutcome::Refuted;
        }
        let progress = |(before, after): (&ScenarioReport, &ScenarioReport)| {
            let progress = progress_between(pack, &self.messages, &all[base..], before, after);
            if has_lost_hub(before, after) { progress.max(0) } else { progress }
        };
        let is_certain = self.proposals.iter().all(|proposal| is_respelled_name(&proposal.entry));
        if is_certain || played().map(progress).sum::<i32>() > 0 {
            TrialOutcome::Confirmed
        } else {
            TrialOutcome::Applied
        }
    }
}

impl EntryTrial {
    /// Returns the proposals with another one, for a message that was missing next. A hub without acknowledgements
    /// shows nothing until all of them are assumed.
    pub fn next_link(&self, pack: &Pack) -> Option<Vec<DeviationProposal>> {
        let is_absence = |proposal: &DeviationProposal| proposal.entry.get("absent").is_some();
        if self.messages.len() >= MAX_LINKS || !self.proposals.iter().all(is_absence) {
            return None;
        }
        let after: Vec<&ScenarioReport> = self.plays.iter().filter_map(|play| play.after.as_ref()).collect();
        let mut evidence = DeviationEvidence::default();
        after.iter().for_each(|report| evidence.merge(&report.evidence));
        let missed: Vec<&MissedExpectation> = after.iter().filter_map(|report| report.missed.as_ref()).collect();
        let mut next = propose(pack, &missed, &evidence, &self.deviations).into_iter();
        let next = next.find(|proposal| proposal.complete && is_absence(proposal))?;
        Some(join_absent_replies(pack, self.proposals.iter().cloned().chain([next]).collect()))
    }
}

/// Whether a scenario lost the hub, or did not reach it, unlike an earlier play: it shows nothing about a deviation.
pub fn has_lost_hub(before: &ScenarioReport, after: &ScenarioReport) -> bool {
    let is_lost = |report: &ScenarioReport| {
        let is_unplayed = report.cause.is_some() && report.history.is_empty() && report.history_dropped == 0;
        is_unplayed || report.interrupted || report.unserved.is_some() || report.activity.cut.is_some()
    };
    is_lost(after) && !is_lost(before)
}

/// Returns 1 if a scenario got further with these entries about these messages than without them, -1 if it got less
/// far, and 0 otherwise.
fn progress_between(
    pack: &Pack,
    messages: &BTreeSet<usize>,
    entries: &[Arc<Deviation>],
    before: &ScenarioReport,
    after: &ScenarioReport,
) -> i32 {
    let undecided = [before, after].map(|report| count_checks(report, Verdict::Inconclusive));
    if undecided[1] > undecided[0] {
        return -1;
    }
    // If a message is assumed, its absence stops no scenario any more, even if the hub ignored the request.
    if entries.iter().all(|entry| matches!(entry.change, DeviationChange::Absent { .. })) && !goes_on(after) {
        return 0;
    }
    let place = |report: &ScenarioReport| report.cause.as_ref().map(|cause| (cause.span, cause.step.clone()));
    let moved = before.cause.is_some() && place(before) != place(after);
    let fewer = count_signs(pack, messages, after) < count_signs(pack, messages, before);
    i32::from(undecided[1] < undecided[0] || moved || fewer)
}

/// Whether the hub sent a message after one was assumed.
fn goes_on(report: &ScenarioReport) -> bool {
    let since = report.history.iter().skip_while(|frame| frame.kind != FrameKind::Assumed);
    since.into_iter().any(|frame| frame.direction == HistoryDirection::Received && frame.kind == FrameKind::Text)
}

fn count_checks(report: &ScenarioReport, verdict: Verdict) -> usize {
    report.checks.iter().filter(|check| check.verdict == verdict).count()
}

/// Returns how many differences in these messages a scenario shows.
fn count_signs(pack: &Pack, messages: &BTreeSet<usize>, report: &ScenarioReport) -> usize {
    let evidence = &report.evidence;
    let missed = usize::from(missed_message(report.missed.as_ref()).is_some_and(|message| messages.contains(&message)));
    let broken = evidence.broken.iter().filter(|(message, _)| messages.contains(message));
    let violations = broken.map(|(message, json)| pack.messages[*message].schema.violations(json).len());
    let unfit = evidence.unfit.values().filter(|unfit| messages.contains(&unfit.message));
    let ungreeted = evidence.ungreeted.keys().filter(|message| messages.contains(message));
    missed + violations.sum::<usize>() + unfit.count() + ungreeted.count()
}

fn missed_message(missed: Option<&MissedExpectation>) -> Option<usize> {
    match missed?.what {
        MissedExpectationKind::Message { message, .. } => Some(message),
        MissedExpectationKind::Upgrade { .. } => None,
    }
}

/// Whether a proposal explains why a scenario departed from the document.
pub fn explains(pack: &Pack, proposal: &DeviationProposal, report: &ScenarioReport) -> bool {
    if proposal.entry.get("upgrade").is_some() {
        return misses_upgrade(report);
    }
    match proposal.entry.get("after") {
        Some(_) => explains_missed(pack, proposal, report),
        None => count_signs(pack, &proposal.messages, report) > 0,
    }
}

/// Whether a scenario stopped because the hub refused a connection or the client's credentials.
pub fn misses_upgrade(report: &ScenarioReport) -> bool {
    let missed = report.missed.as_ref().map(|missed| &missed.what);
    let is_refused = matches!(missed, Some(MissedExpectationKind::Upgrade { status: 400 | 401 | 403 | 404 | 426, .. }));
    is_refused || report.cause.as_ref().is_some_and(|cause| cause.unauthenticated)
}

/// Whether a scenario received a member under the name that a proposal says the hub uses.
pub fn shows_name(proposal: &DeviationProposal, report: &ScenarioReport) -> bool {
    let Some(name) = proposal.entry.get("renamed").and_then(Value::as_str) else { return false };
    let near = match report.missed.as_ref().map(|missed| &missed.what) {
        Some(MissedExpectationKind::Message { near, .. }) => near.as_slice(),
        _ => &[],
    };
    let evidence = &report.evidence;
    let unfit = evidence.unfit.values().map(|unfit| &unfit.json);
    evidence.broken.values().chain(unfit).chain(near).any(|json| json.pointer(name).is_some())
}

/// Whether a proposal explains why a scenario missed a message: for an absent one, after the same request.
pub fn explains_missed(pack: &Pack, proposal: &DeviationProposal, report: &ScenarioReport) -> bool {
    let Some(MissedExpectation { what: MissedExpectationKind::Message { message, origin, .. }, .. }) = &report.missed
    else {
        return false;
    };
    let after = || origin.map(|origin| origin.name(pack));
    proposal.messages.contains(message)
        && proposal.entry.get("after").is_none_or(|name| name.as_str().is_some_and(|name| after() == Some(name)))
}
