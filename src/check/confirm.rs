//! Replays scenarios whose failure rests on what did not happen. A frame that breaks a rule stands by itself; a message
//! that is missing once may have been delayed by other scenarios, or by the machine, or the hub did not know the client
//! yet. Replays scenarios, too, in which a message was missing that they only need.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::job::{PlayPhase, ScenarioJob, crowding_refusal, is_silent, too_many_connections_report};
use super::permits::CONNECTION_RELEASE_DELAY;
use super::{PlayOptions, play_in_order};
use crate::judge::{Evidence, PlayId, Ruling};
use crate::outcome::{CheckReport, ScenarioReport, Verdict};
use crate::report::events::ScenarioEvent;
use crate::report::scenario_verdict;
use crate::syntax::source::Span;

/// How many scenarios are replayed in vain that stopped at the same step.
const VAIN_REPLAYS: usize = 2;
/// How many scenarios that could not go on are replayed at a time: fewer than were played at first, since these may have
/// been the reason.
const REPLAYS_AT_ONCE: usize = 6;
/// How many failures are replayed even after the time for replays, if nothing accuses the hub yet: on a slow machine, what
/// may be its only defect would otherwise stay undecided.
const OVERTIME_REPLAYS: usize = 2;
/// How long each of these may take.
const OVERTIME: Duration = Duration::from_secs(60);

/// A scenario that failed, or could not go on, only because something did not come in time, or did not reach a client.
pub struct DoubtfulFailure {
    pub job: ScenarioJob,
    pub id: PlayId,
    pub evidence: Evidence,
    pub report: ScenarioReport,
}

impl DoubtfulFailure {
    /// Returns the rules that the failure accuses the hub of breaking.
    fn accused(&self) -> impl Iterator<Item = &String> {
        accused_rules(&self.report)
    }

    /// Returns the checks that accuse the hub, but perhaps only because of time or chance.
    fn doubted(&self) -> impl Iterator<Item = &CheckReport> {
        accusing_checks(&self.report).filter(|check| !stands(self.evidence, &self.report, check))
    }

    /// Returns how much a replay may decide: how many rules that nothing has `decided`, for each second that it may take.
    fn weight(&self, decided: &BTreeSet<String>) -> f64 {
        let checks = self.report.checks.iter().filter(|check| check.verdict >= Verdict::Warn);
        let open = checks.flat_map(CheckReport::rules_of_verdict).filter(|used| !decided.contains(&used.id));
        let seconds = self.report.duration.as_secs_f64().max(0.1);
        // What decides nothing new comes last, the shortest first.
        (open.count() as f64 + 0.01) / seconds
    }

    /// Returns the step at which the scenario stopped.
    fn stopped_at(&self) -> Option<Span> {
        self.report.cause.as_ref().and_then(|cause| cause.span)
    }

    /// Whether another play fails in the same way.
    fn is_seen_in(&self, again: &ScenarioReport) -> bool {
        // On a slow hub, a failure may accuse no rule.
        match self.doubted().next() {
            None if self.evidence == Evidence::Refusal => crowding_refusal(again).is_some(),
            None => is_silent(again),
            Some(_) => accusing_checks(again).any(|check| self.doubted().any(|first| is_same(first, check))),
        }
    }

    /// Returns the rules that it accuses the hub of breaking, but perhaps only because of time or chance.
    fn doubted_rules(&self) -> impl Iterator<Item = &String> {
        self.doubted().flat_map(CheckReport::rules_of_verdict).map(|used| &used.id)
    }

    /// Whether replays of other scenarios have shown that the hub breaks each of its rules.
    fn is_settled(&self, broken: &BTreeSet<String>) -> bool {
        self.doubted_rules().next().is_some() && self.doubted_rules().all(|rule| broken.contains(rule))
    }

    /// Whether everything that is missing was also missing in a scenario that was replayed, and never came in this run.
    fn is_explained(&self, missing: &BTreeSet<String>) -> bool {
        let own = &self.report.waits.missed;
        !own.is_empty() && own.is_subset(missing) && own.iter().all(|name| self.job.has_never_come(name))
    }
}

/// The time for replays after a phase of a run.
pub struct ReplayTime<'a> {
    pub limit: Duration,
    /// Whether scenarios for which no time is left have no other chance.
    pub is_last: bool,
    /// Whether the hub is shown to break a rule, in this phase or before.
    pub is_accused: &'a AtomicBool,
}

/// Replays scenarios until the limit has passed, and sends their final reports on `events`. Those that accuse the hub come
/// first, one at a time; then, in the end, those that could not go on, beside each other, which may accuse it, too.
/// Returns the scenarios to replay after the next phase.
pub async fn confirm_failures(
    failures: Vec<DoubtfulFailure>,
    time: ReplayTime<'_>,
    options: &PlayOptions,
    events: &mpsc::Sender<ScenarioEvent>,
    interrupt: &watch::Receiver<bool>,
) -> Vec<DoubtfulFailure> {
    let until = Instant::now() + time.limit;
    let (mut blocked, accusing): (Vec<_>, Vec<_>) =
        failures.into_iter().partition(|failure| failure.evidence == Evidence::Blockage);
    let overtime = if time.is_last { OVERTIME_REPLAYS } else { 0 };
    let (is_accused, shown) = (time.is_accused, ShownSoFar::default());
    let mut confirmation = Confirmation { until, overtime, is_accused, options, events, interrupt, shown };
    let mut open = confirmation.confirm(accusing).await;
    if !time.is_last && !*interrupt.borrow() {
        open.append(&mut blocked);
        return open;
    }
    let mut accusing = Vec::new();
    for mut failure in replay_blocked(blocked, until, options, interrupt).await {
        let accuses = accusing_checks(&failure.report).next().is_some();
        let evidence = failure.job.evidence_of_failure(&failure.report, options).filter(|_| accuses);
        match evidence {
            Some(evidence) => {
                failure.id = failure.id.replay(0);
                accusing.push(DoubtfulFailure { evidence, ..failure });
            }
            None => send(events, &failure.job, failure.report).await,
        }
    }
    open.extend(confirmation.confirm(accusing).await);
    for failure in open {
        send(events, &failure.job, leave_open(&failure)).await;
    }
    Vec::new()
}

/// What replays have shown so far.
#[derive(Default)]
struct ShownSoFar {
    /// What was missing in a scenario that was replayed alone.
    missing: BTreeSet<String>,
    /// The rules that were in question in it, and those that it broke.
    decided: BTreeSet<String>,
    broken: BTreeSet<String>,
}

/// The replays of scenarios that accuse the hub.
struct Confirmation<'a> {
    until: Instant,
    /// How many failures may still be replayed after that, unless the hub is accused.
    overtime: usize,
    is_accused: &'a AtomicBool,
    options: &'a PlayOptions,
    events: &'a mpsc::Sender<ScenarioEvent>,
    interrupt: &'a watch::Receiver<bool>,
    shown: ShownSoFar,
}

impl Confirmation<'_> {
    /// Replays scenarios, those first that decide most rules for the time that they take, and sends their reports. Returns
    /// those for which no time is left.
    async fn confirm(&mut self, mut failures: Vec<DoubtfulFailure>) -> Vec<DoubtfulFailure> {
        let mut open = Vec::new();
        while !failures.is_empty() {
            let weight = |index: &usize| failures[*index].weight(&self.shown.decided);
            let best =
                (0..failures.len()).max_by(|one, other| weight(one).total_cmp(&weight(other))).unwrap_or_default();
            let failure = failures.swap_remove(best);
            let shown = &mut self.shown;
            let overtime = if self.is_accused.load(Ordering::Relaxed) { 0 } else { self.overtime };
            let until = if overtime > 0 { self.until.max(Instant::now() + OVERTIME) } else { self.until };
            let is_over = *self.interrupt.borrow() || Instant::now() >= until;
            let report = if failure.is_explained(&shown.missing) {
                let why = "the same message was missing in a scenario that was replayed alone";
                conclude(failure.evidence, &failure.report, failure.report.clone(), why)
            } else if failure.is_settled(&shown.broken) {
                let why = "the same rule was broken in a scenario that was replayed alone";
                conclude(failure.evidence, &failure.report, failure.report.clone(), why)
            } else if is_over {
                open.push(failure);
                continue;
            } else {
                self.overtime -= usize::from(overtime > 0 && Instant::now() >= self.until);
                match replay(&failure, until, self.options, self.interrupt).await {
                    Some(report) => report,
                    None => {
                        open.push(failure);
                        continue;
                    }
                }
            };
            if accusing_checks(&report).next().is_some() {
                shown.missing.extend(report.waits.missed.iter().cloned());
                shown.decided.extend(failure.accused().cloned());
                let still = |rule: &&String| accused_rules(&report).any(|other| other == *rule);
                shown.broken.extend(failure.doubted_rules().filter(still).cloned());
                if report.verdict == Verdict::Fail {
                    self.is_accused.store(true, Ordering::Relaxed);
                }
            }
            send(self.events, &failure.job, report).await;
        }
        open
    }
}

async fn send(events: &mpsc::Sender<ScenarioEvent>, job: &ScenarioJob, mut report: ScenarioReport) {
    job.id().clone_into(&mut report.id);
    let _ = events.send(ScenarioEvent::Finished(Box::new(report))).await;
}

/// Replays scenarios that could not go on, several at a time. Returns them with the reports of their last plays.
async fn replay_blocked(
    mut blocked: Vec<DoubtfulFailure>,
    until: Instant,
    options: &PlayOptions,
    interrupt: &watch::Receiver<bool>,
) -> Vec<DoubtfulFailure> {
    let (mut done, mut crowded) = (Vec::new(), Vec::new());
    // How many scenarios were replayed in vain, by the step at which they stopped.
    let mut vain: HashMap<Option<Span>, usize> = HashMap::new();
    let shared = Arc::new(options.clone());
    loop {
        // Those that stopped at the same step may have blocked one another.
        let mut chosen = HashSet::new();
        let is_over = *interrupt.borrow() || Instant::now() >= until;
        // Those that need the hub for themselves are not played beside others.
        let (mut shared_ones, mut lone_one) = (false, false);
        let waits = |failure: &mut DoubtfulFailure| {
            let is_lone = failure.job.phase() != PlayPhase::Shared;
            if lone_one || is_lone && shared_ones {
                return false;
            }
            let step = failure.stopped_at();
            let is_vain = vain.get(&step).is_some_and(|count| *count >= VAIN_REPLAYS);
            let may_wait = !is_over && !is_vain && failure.job.is_blocked(&failure.report, options);
            let waits = may_wait && chosen.insert(step);
            (shared_ones, lone_one) = (shared_ones || waits && !is_lone, waits && is_lone);
            waits
        };
        let mut next: Vec<DoubtfulFailure> = blocked.extract_if(.., waits).collect();
        if next.is_empty() {
            done.append(&mut blocked);
            done.extend(replay_crowded(crowded, until, options, interrupt).await);
            return done;
        }
        let played = Arc::new(Mutex::new(Vec::new()));
        let play = |failure: DoubtfulFailure| {
            let (played, options, interrupt) = (Arc::clone(&played), Arc::clone(&shared), interrupt.clone());
            async move {
                let report = replay(&failure, until, &options, &interrupt).await;
                let report = report.unwrap_or_else(|| leave_open(&failure));
                played.lock().push((failure, report));
            }
        };
        play_in_order(|| next.pop(), REPLAYS_AT_ONCE, interrupt, play).await;
        done.append(&mut next);
        let played = std::mem::take(&mut *played.lock());
        let is_crowd = played.len() > 1;
        for (mut failure, report) in played {
            let is_vain = report.verdict == Verdict::Inconclusive;
            if is_vain {
                *vain.entry(failure.stopped_at()).or_default() += 1;
            }
            failure.report = report;
            if is_vain && is_crowd { crowded.push(failure) } else { done.push(failure) }
        }
    }
}

/// Replays scenarios one at a time that got stuck while others were playing, since the others may be to blame. Gives up
/// after a few that get stuck again.
async fn replay_crowded(
    mut crowded: Vec<DoubtfulFailure>,
    until: Instant,
    options: &PlayOptions,
    interrupt: &watch::Receiver<bool>,
) -> Vec<DoubtfulFailure> {
    let mut vain = 0;
    for failure in &mut crowded {
        let is_over = *interrupt.borrow() || Instant::now() >= until || vain >= VAIN_REPLAYS;
        if !is_over && failure.job.is_blocked(&failure.report, options) {
            failure.id = failure.id.replay(0);
            let report = replay(failure, until, options, interrupt).await;
            failure.report = report.unwrap_or_else(|| leave_open(failure));
            vain += usize::from(failure.report.verdict == Verdict::Inconclusive);
        }
    }
    crowded
}

fn accusing_checks(report: &ScenarioReport) -> impl Iterator<Item = &CheckReport> {
    report.checks.iter().filter(|check| check.accuses_hub())
}

fn accused_rules(report: &ScenarioReport) -> impl Iterator<Item = &String> {
    accusing_checks(report).flat_map(CheckReport::rules_of_verdict).map(|used| &used.id)
}

/// Plays a scenario again. Returns the report of the replay, in which silence accuses the hub only by checks that accused
/// it in the first play, too, or `None` if no time was left to decide that.
async fn replay(
    failure: &DoubtfulFailure,
    until: Instant,
    options: &PlayOptions,
    interrupt: &watch::Receiver<bool>,
) -> Option<ScenarioReport> {
    let mut trial = failure.evidence.trial(failure.id);
    let mut last = None;
    while let Some(replay) = trial.next_replay() {
        if last.is_some() && Instant::now() >= until {
            break;
        }
        if failure.evidence == Evidence::Refusal && last.is_some() {
            tokio::time::sleep(CONNECTION_RELEASE_DELAY).await;
        }
        let unread = mpsc::channel(1).0;
        let job = failure.job.clone().for_replay(&replay);
        let again = job.play_once(replay.id, options, &unread, interrupt.clone()).await;
        let Some(again) = again.filter(|again| !again.interrupted) else { break };
        trial.record(failure.is_seen_in(&again));
        last = Some(again);
    }
    match (trial.ruling(), last) {
        // The conversation is judged for the first time.
        (_, Some(again)) if failure.evidence == Evidence::Blockage => Some(again),
        (Ruling::Open, _) | (_, None) => None,
        (Ruling::Stands { .. }, Some(again)) if failure.evidence == Evidence::Refusal => match crowding_refusal(&again)
        {
            Some(connections @ 2..) => Some(too_many_connections_report(&failure.job, connections)),
            _ => Some(again),
        },
        (ruling, Some(again)) => Some(conclude(failure.evidence, &failure.report, again, &ruling.describe())),
    }
}

/// Whether a finding of a replay is that of the first play: the same check, or another step at which the same rule is
/// broken, since chance decides where a message is missing first.
fn is_same(first: &CheckReport, again: &CheckReport) -> bool {
    let mut rules = first.rules_of_verdict();
    first.name == again.name || rules.any(|used| again.rules_of_verdict().any(|other| other.id == used.id))
}

/// Whether a finding of the first play needs no replay.
fn stands(evidence: Evidence, first: &ScenarioReport, check: &CheckReport) -> bool {
    let is_unfenced = evidence == Evidence::UnknownClient && !check.rests_on_unfenced.is_empty();
    !is_unfenced && !first.rests_on_time(check)
}

/// Adds to the findings of a replay why they stand. What is missing or late for the first time in it is undecided, and what
/// stood by itself in the first play still stands.
fn conclude(evidence: Evidence, first: &ScenarioReport, mut again: ScenarioReport, why: &str) -> ScenarioReport {
    let late = accusing_checks(&again).filter(|check| again.rests_on_time(check)).map(|check| check.name.clone());
    let late: BTreeSet<String> = late.collect();
    for check in again.checks.iter_mut().filter(|check| check.accuses_hub()) {
        if accusing_checks(first).any(|known| is_same(known, check)) {
            check.message = format!("{}; {why}", check.message_or_step());
        } else if late.contains(&check.name) {
            check.make_inconclusive();
        }
    }
    for standing in accusing_checks(first).filter(|check| stands(evidence, first, check)) {
        match again.checks.iter_mut().find(|check| check.name == standing.name) {
            Some(check) if check.accuses_hub() => {}
            Some(check) => *check = standing.clone(),
            None => again.checks.push(standing.clone()),
        }
    }
    again.verdict = scenario_verdict(&again);
    again
}

/// Makes findings inconclusive that were not replayed.
fn leave_open(failure: &DoubtfulFailure) -> ScenarioReport {
    let first = &failure.report;
    let mut report = first.clone();
    for check in report.checks.iter_mut().filter(|check| check.accuses_hub()) {
        if stands(failure.evidence, first, check) {
            continue;
        }
        check.make_inconclusive();
        check.message = format!(
            "{}; not confirmed: no time was left to play it again alone. `--scenario '{}'` or `--depth thorough` decides it",
            check.message_or_step(),
            first.id
        );
    }
    report.verdict = scenario_verdict(&report);
    report
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::protocol::{RuleBasis, RuleLevel};
    use crate::scenario::model::RuleUse;
    use crate::syntax::source::{Sources, Span};

    /// A report with these checks that fail, each under the rule after `of`; names that begin with `silent` rest on time.
    fn failing(checks: &[&str]) -> ScenarioReport {
        let span = Span::new(Sources::default().add("one.yaml", ""), 0..0);
        let mut report = ScenarioReport::new("qi", "qi/one", "One", span);
        for name in checks {
            let mut check = CheckReport::new(*name, Verdict::Fail);
            if let Some((_, id)) = name.split_once(" of ") {
                let rule =
                    RuleUse { id: id.to_owned(), level: RuleLevel::Must, basis: RuleBasis::Stated, lowered: false };
                check.rules.push((rule, Verdict::Fail));
            }
            report.checks.push(check);
            if name.starts_with("silent") {
                report.waits.silent_checks.insert((*name).to_owned());
            }
        }
        report
    }

    /// Chance decides at which step a message is missing first.
    #[rstest]
    #[case::same_check("silent-1 of ONE", Verdict::Fail)]
    #[case::same_rule("silent-2 of ONE", Verdict::Fail)]
    #[case::other_rule("silent-2 of TWO", Verdict::Inconclusive)]
    fn a_replay_confirms_what_breaks_the_same_rule(#[case] again: &str, #[case] verdict: Verdict) {
        let judged = conclude(Evidence::Silence, &failing(&["silent-1 of ONE"]), failing(&[again]), "seen again");
        assert_eq!(judged.checks.iter().map(|check| check.verdict).collect::<Vec<_>>(), [verdict]);
    }

    #[test]
    fn a_replay_clears_what_rests_on_time_and_keeps_what_a_frame_has_shown() {
        let first = failing(&["schema:reply", "silent"]);
        let judged = conclude(Evidence::Silence, &first, failing(&["silent-too"]), "seen again");
        let found = |name: &str| judged.checks.iter().find(|check| check.name == name).map(|check| check.verdict);
        assert_eq!(found("schema:reply"), Some(Verdict::Fail));
        assert_eq!(found("silent"), None);
        assert_eq!(found("silent-too"), Some(Verdict::Inconclusive));
        assert_eq!(judged.verdict, Verdict::Fail);
    }
}
