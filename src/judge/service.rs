//! Detects that a hub no longer serves clients: it hangs, or it is gone.
//!
//! After a conversation that failed while an answer of the hub was due, or whose connection was cut off, a conversation
//! that the hub served before is played again, as a probe. If the hub does not send what it sent before, twice, it
//! hangs: whatever else it still sends (refusals, close frames, pongs) is not service. Failures after that moment are not
//! separate findings. If the probe cannot connect, the hub is gone.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::{Evidence, PlayId, has_passed};
use crate::outcome::{
    AnswerTimes, CheckReport, FindingDetail, FrameKind, FrameReport, HANG_CHECK, HistoryDirection, HubAnswer,
    MessageKind, ScenarioReport, UnservedProbe, Verdict,
};
use crate::report::scenario_verdict;
use crate::scenario::{Isolation, Program};
use crate::syntax::explanation::Explanation;

/// Explains [`HANG_CHECK`].
pub const HANG_EXPLANATION: Explanation = Explanation::new(
    HANG_CHECK,
    "The hub still accepts connections, but no longer serves clients: twice in a row it did not send what it had sent in an earlier conversation.",
)
.usually("A lock that a handler never releases, a blocking call in an event loop, or a worker pool in which every worker waits for a client that has left.")
.next("Look at the last conversation before the hang, which the finding names, and play it alone: hubproof check URL --protocol NAME --scenario SCENARIO. If hubproof can restart the hub (`--exec`, or the hook `restart`), the other scenarios are judged, too; with `-j 1`, parallel clients cause no hang.");
/// If the hub sent something this shortly before a conversation ended, it still served that client.
const RECENT: Duration = Duration::from_millis(100);
/// Pause between attempts to reach a hub that accepts no connections, or to find a probe.
const PROBE_PAUSE: Duration = Duration::from_millis(250);
/// How many times a probe is sent again that the hub was too busy for (HTTP 503), before the hub counts as gone.
const MAX_REFUSALS: u32 = 10;
/// How long failed scenarios wait, once per run, for a scenario that shows what the hub sends to clients it serves.
const PROBE_WAIT: Duration = Duration::from_secs(2);
/// A hub that ends a probe's connection sooner than this refuses it, for example because of a limit on connections: a
/// factor for the time that the hub needed for all answers before, and a constant.
const REFUSAL_TIME: (u32, Duration) = (4, Duration::from_millis(250));

/// Detects whether an instance of a hub still serves clients.
#[derive(Default)]
pub struct ServiceProbe {
    state: Mutex<ServiceState>,
    /// The upgrade deviations that have been tested for whether the hub still needs them.
    upgrades_tried: Mutex<BTreeSet<usize>>,
    /// Whether no other scenario may become the probe.
    is_fixed: bool,
}

#[derive(Default)]
struct ServiceState {
    /// The scenario that passed and is the best probe.
    passed: Option<Probe>,
    /// A scenario that failed, but to which the hub sent an answer; the probe expects only the first one.
    answered: Option<Probe>,
    /// A scenario that could connect. It only shows whether the hub is gone, or answers no upgrade any more.
    connected: Option<Probe>,
    /// When the last probe began, relative to the start of the run, and how the hub failed to serve it, if it did.
    probed: Option<(Duration, Option<ServiceLoss>)>,
    /// When a scenario last received what the probe receives, relative to the start of the run.
    served: Duration,
    losses: Vec<HubOutage>,
    /// Until when scenarios that failed wait for others to become a probe; set by the first of them.
    probe_due: Option<Instant>,
}

/// A conversation that can be played again, and what the hub sent in it.
#[derive(Clone)]
struct Probe {
    program: Arc<Program>,
    duration: Duration,
    /// When the hub sent the last answer.
    answered: Duration,
    /// The kinds of messages that the hub sent, in their order.
    answers: Vec<MessageKind>,
}

/// How a hub fails to serve a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceLoss {
    /// It accepts the connection, but does not give this answer, which it gave before.
    Hangs { missing: HubAnswer },
    /// It accepts no connection, although a proxy in front of it may.
    Gone,
}

/// A time in which a hub did not serve clients, relative to the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubOutage {
    /// When the hub last served a client.
    pub since: Duration,
    /// When it was noticed.
    pub noticed: Duration,
}

/// A scenario that a hub served before, but no longer does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnservedScenario {
    pub probe: String,
    pub lost: ServiceLoss,
}

impl UnservedScenario {
    /// Returns the probe if the hub hangs.
    pub fn into_hang(self) -> Option<UnservedProbe> {
        match self.lost {
            ServiceLoss::Hangs { missing } => Some(UnservedProbe { id: self.probe, missing }),
            ServiceLoss::Gone => None,
        }
    }
}

/// How a hub handled a probe.
enum ProbeResult {
    Served,
    /// The hub answered at once, but not as before. That proves nothing: it may limit clients.
    Refused,
    Lost(ServiceLoss),
}

impl Probe {
    fn new(program: &Arc<Program>, report: &ScenarioReport, answers: Vec<MessageKind>) -> Self {
        let (program, answered) = (Arc::clone(program), last_answer(report));
        Self { program, duration: report.duration, answered, answers }
    }

    /// Returns the order in which probes are preferred: first those with several answers, since one may be a refusal.
    fn rank(&self) -> (Reverse<usize>, Duration) {
        (Reverse(self.answers.len().min(2)), self.duration)
    }

    fn judge(&self, again: &ScenarioReport) -> ProbeResult {
        let received = &again.activity.answers;
        if is_sound(again) {
            return ProbeResult::Served;
        }
        if is_gone(again) {
            return ProbeResult::Lost(ServiceLoss::Gone);
        }
        let missing = match self.answers.iter().copied().find(|kind| !received.contains_key(kind)) {
            Some(kind) => HubAnswer::Message(kind),
            None if self.answers.is_empty() && !again.has_frame(FrameKind::Open) => HubAnswer::Upgrade,
            None => return ProbeResult::Served,
        };
        let others = solicited_kinds(&self.program, again).any(|(kind, _)| !self.answers.contains(&kind));
        let waited = again.duration.saturating_sub(last_answer(again));
        let ended = again.has_frame(FrameKind::Close) || again.has_frame(FrameKind::End);
        let at_once = ended && waited < self.answered * REFUSAL_TIME.0 + REFUSAL_TIME.1;
        if again.has_frame(FrameKind::Refused) || others || at_once {
            return ProbeResult::Refused;
        }
        ProbeResult::Lost(ServiceLoss::Hangs { missing })
    }
}

impl ServiceProbe {
    /// Creates a detector that uses only this scenario, which the hub has served, as a probe; `report` is that of the
    /// scenario. Returns `None` if the hub sent nothing in it.
    pub fn for_program(program: &Arc<Program>, report: &ScenarioReport) -> Option<Self> {
        let answers: Vec<MessageKind> = solicited_kinds(program, report).map(|(kind, _)| kind).collect();
        let passed = (!answers.is_empty()).then(|| Probe::new(program, report, answers))?;
        let state = ServiceState { passed: Some(passed), ..ServiceState::default() };
        Some(Self { state: Mutex::new(state), is_fixed: true, ..Self::default() })
    }

    /// Returns the upgrade deviations to test now. Each deviation is tested once: after the first conversation that
    /// followed it, passed and received an answer.
    pub async fn untried_upgrades(
        &self,
        program: &Program,
        report: &ScenarioReport,
        followed: impl Iterator<Item = usize>,
    ) -> Vec<usize> {
        let served = has_passed(report) && program.isolation == Isolation::Shared;
        if self.is_fixed || !served || report.activity.answers.is_empty() {
            return Vec::new();
        }
        let mut tried = self.upgrades_tried.lock().await;
        followed.filter(|index| tried.insert(*index)).collect()
    }

    /// Forgets the last probe, because the hub was restarted.
    pub async fn reset(&self) {
        self.state.lock().await.probed = None;
    }

    /// Returns the times in which the hub did not serve clients.
    pub async fn outages(&self) -> Vec<HubOutage> {
        self.state.lock().await.losses.clone()
    }

    /// Waits a moment for a scenario that shows what the hub sends to clients that it serves. The first scenarios of a
    /// run fail at about the same time if the hub hangs early.
    async fn wait_for_probe<'a>(&'a self, mut state: MutexGuard<'a, ServiceState>) -> MutexGuard<'a, ServiceState> {
        while state.proven_probe().is_none() {
            let now = Instant::now();
            if now >= *state.probe_due.get_or_insert(now + PROBE_WAIT) {
                break;
            }
            drop(state);
            tokio::time::sleep(PROBE_PAUSE).await;
            state = self.state.lock().await;
        }
        state
    }

    /// Records the play of a scenario. If it failed, or was cut off, this calls `play` to play a probe until the hub has
    /// sent messages of the given kinds, and returns the probe if the hub no longer serves it.
    pub async fn record_play<F: Future<Output = Option<ScenarioReport>>>(
        &self,
        program: &Arc<Program>,
        id: PlayId,
        report: &ScenarioReport,
        play: impl Fn(Arc<Program>, PlayId, Vec<MessageKind>) -> F,
    ) -> Option<UnservedScenario> {
        let mut state = self.state.lock().await;
        state.add_service(report);
        if !self.is_fixed && program.isolation == Isolation::Shared {
            state.add_candidate(program, report);
        }
        let cut = report.activity.cut.is_some();
        // A hub that sent the last frame still serves. A fixed probe belongs to cases for which a hub may end a connection
        // in any way.
        let mut latest = report.history.iter().rev().take_while(|frame| frame.at + RECENT >= report.duration);
        let last_word = report.history.last().is_some_and(is_message) || latest.any(is_message);
        if is_sound(report) && (!cut || self.is_fixed) || last_word && !cut {
            return None;
        }
        if !cut {
            state = self.wait_for_probe(state).await;
        }
        let probe = state.proven_probe().or(state.connected.as_ref())?.clone();
        let unserved = |lost| UnservedScenario { probe: probe.program.id.clone(), lost };
        if let Some((begun, lost)) = state.probed {
            let ended_before = report.begun + report.duration <= begun;
            // A hub that was lost and has not served since is still lost.
            if ended_before || lost.is_some_and(|lost| !shows_service(report, lost)) {
                return lost.map(unserved);
            }
        }
        let mut lost = None;
        let mut refusals = 0;
        let mut trial = Evidence::LostService.trial(id);
        while let Some(replay) = trial.next_replay() {
            if lost == Some(ServiceLoss::Gone) {
                tokio::time::sleep(PROBE_PAUSE).await;
            }
            let again = play(Arc::clone(&probe.program), replay.id, probe.answers.clone()).await?;
            // Other scenarios may have taken all connections of a hub that limits them.
            if again.history.iter().any(|frame| frame.status == Some(503)) && refusals < MAX_REFUSALS {
                refusals += 1;
                tokio::time::sleep(PROBE_PAUSE).await;
                continue;
            }
            lost = match probe.judge(&again) {
                ProbeResult::Lost(now) => Some(now),
                // A hub that was gone when it cut the connection off has been started again.
                ProbeResult::Served if cut && lost == Some(ServiceLoss::Gone) => break,
                ProbeResult::Served | ProbeResult::Refused => None,
            };
            state.probed = Some((again.begun, lost));
            trial.record(lost.is_some());
        }
        let lost = lost?;
        // Other scenarios may have noticed the end a moment earlier.
        let ended = |cut: Duration| (report.begun + cut).saturating_sub(PROBE_PAUSE);
        let since = report.activity.cut.filter(|_| lost == ServiceLoss::Gone).map_or(state.served, ended);
        let (noticed, _) = state.probed?;
        state.losses.push(HubOutage { since: since.min(noticed), noticed });
        Some(unserved(lost))
    }
}

impl ServiceState {
    fn proven_probe(&self) -> Option<&Probe> {
        self.passed.as_ref().or(self.answered.as_ref())
    }

    /// Records when a scenario received what the probe receives.
    fn add_service(&mut self, report: &ScenarioReport) {
        let Some(probe) = &self.passed else { return };
        let times = probe.answers.iter().filter_map(|kind| report.activity.answers.get(kind));
        self.served = times.map(|times| report.begun + times.last).fold(self.served, Duration::max);
    }

    /// Records a scenario as a probe, if it is a better one.
    fn add_candidate(&mut self, program: &Arc<Program>, report: &ScenarioReport) {
        if self.connected.is_none() && report.has_frame(FrameKind::Open) {
            self.connected = Some(Probe::new(program, report, Vec::new()));
        }
        let mut answers: Vec<MessageKind> = solicited_kinds(program, report).map(|(kind, _)| kind).collect();
        if has_passed(report) && report.activity.cut.is_none() {
            if answers.is_empty() {
                answers = ordered_kinds(report).map(|(kind, _)| kind).collect();
            }
            let probe = Probe::new(program, report, answers);
            let better = self.passed.as_ref().is_none_or(|known| probe.rank() < known.rank());
            if better && !probe.answers.is_empty() {
                self.passed = Some(probe);
            }
        } else if self.answered.is_none() && !answers.is_empty() {
            // Other conversations may have caused the later ones.
            answers.truncate(1);
            self.answered = Some(Probe::new(program, report, answers));
        }
    }
}

/// Returns the kinds of messages that the hub sent in a scenario, in the order of their first ones.
fn ordered_kinds(report: &ScenarioReport) -> impl Iterator<Item = (MessageKind, AnswerTimes)> {
    let mut kinds: Vec<(MessageKind, AnswerTimes)> =
        report.activity.answers.iter().map(|(kind, times)| (*kind, *times)).collect();
    kinds.sort_by_key(|(_, times)| times.greeting);
    kinds.into_iter()
}

/// Returns the kinds of messages in a scenario that a hub sends only as answers.
fn solicited_kinds(program: &Program, report: &ScenarioReport) -> impl Iterator<Item = (MessageKind, AnswerTimes)> {
    let message = |kind: MessageKind| program.pack.messages.get(kind?);
    ordered_kinds(report).filter(move |(kind, _)| !message(*kind).is_some_and(|message| message.directions.unasked))
}

/// Returns when the hub sent the last message of a scenario.
fn last_answer(report: &ScenarioReport) -> Duration {
    report.activity.answers.values().map(|times| times.last).max().unwrap_or_default()
}

fn is_message(frame: &FrameReport) -> bool {
    frame.direction == HistoryDirection::Received && frame.kind.is_message()
}

/// Whether a scenario could not connect, or only to a proxy in front of the hub.
fn is_gone(report: &ScenarioReport) -> bool {
    let connected = report.has_frame(FrameKind::Open);
    let failed = report.has_frame(FrameKind::Unreachable) || report.has_frame(FrameKind::NoUpgrade);
    let cut = report.activity.cut.is_some() && failed;
    (cut && !connected) || report.is_refused_by_proxy()
}

/// Whether a scenario shows that a hub that was lost serves clients again.
fn shows_service(report: &ScenarioReport, lost: ServiceLoss) -> bool {
    match lost {
        ServiceLoss::Hangs { missing: HubAnswer::Message(kind) } => report.activity.answers.contains_key(&kind),
        ServiceLoss::Hangs { missing: HubAnswer::Upgrade } | ServiceLoss::Gone => report.has_frame(FrameKind::Open),
    }
}

/// Whether a conversation was completed, and nothing in it accuses the hub.
fn is_sound(report: &ScenarioReport) -> bool {
    matches!(scenario_verdict(report), Verdict::Pass | Verdict::Info)
}

/// Looks for hangs in the reports of a run, which must not include scenarios that may leave the hub unusable. For each
/// instance that hangs, adds a finding to the conversation that received the last answer, and makes later findings
/// inconclusive. Returns whether an instance hangs.
pub fn report_hangs(reports: &mut [&mut ScenarioReport]) -> bool {
    let instances: BTreeSet<String> = reports.iter().map(|report| report.instance.clone()).collect();
    let found = instances.iter().filter(|instance| {
        let own = reports.iter_mut().filter(|report| report.instance == **instance);
        report_instance_hang(&mut own.map(|report| &mut **report).collect::<Vec<_>>())
    });
    found.count() > 0
}

/// A hang of an instance, by the reports of its conversations.
struct Hang {
    probe: UnservedProbe,
    /// When a connection last received its first answer of the kind that the hub no longer gives. Older connections may
    /// have been served longer.
    greeted: Duration,
    /// When the hub last sent an answer, and the index of the conversation that received it.
    last: (Duration, usize),
    /// Whether the hub still sends something, such as refusals, or answers to older connections.
    sends: bool,
}

impl Hang {
    fn find(reports: &[&mut ScenarioReport]) -> Option<Self> {
        let unserved = reports.iter().filter_map(|report| Some((end_of(report), report.unserved.clone()?)));
        let (found, probe) = unserved.min_by_key(|(end, _)| *end)?;
        let all = || {
            reports.iter().enumerate().flat_map(|(place, report)| {
                report.activity.answers.iter().map(move |(kind, times)| (place, report.begun, *kind, *times))
            })
        };
        let missing = match probe.missing {
            HubAnswer::Message(kind) => Some(kind),
            HubAnswer::Upgrade => None,
        };
        let of_message = all().filter(|(_, _, kind, _)| Some(*kind) == missing);
        let of_message = of_message.map(|(place, begun, _, times)| (begun + times.greeting, place));
        let upgrades = reports.iter().enumerate().filter(|_| missing.is_none()).flat_map(|(place, report)| {
            let opened = report.history.iter().filter(|frame| frame.kind == FrameKind::Open);
            opened.map(move |frame| (report.begun + frame.at, place))
        });
        // A hub that never gave the answer does not hang. A hub that gives it to a later client no longer hangs.
        let latest = of_message.chain(upgrades).max().filter(|(at, _)| *at <= found)?;
        // What a hub sends while it hangs is no sign of service.
        let still: BTreeSet<MessageKind> =
            all().filter(|(_, begun, _, times)| *begun + times.last > found).map(|(_, _, kind, _)| kind).collect();
        let answers = all().filter(|(_, _, kind, _)| !still.contains(kind) || Some(*kind) == missing);
        let at = |(place, begun, kind, times): (usize, Duration, MessageKind, AnswerTimes)| {
            (begun + if still.contains(&kind) { times.greeting } else { times.last }, place)
        };
        let last = answers.map(at).fold(latest, Ord::max);
        Some(Self { probe, greeted: latest.0, last, sends: !still.is_empty() })
    }
}

fn end_of(report: &ScenarioReport) -> Duration {
    report.begun + report.duration
}

fn report_instance_hang(reports: &mut [&mut ScenarioReport]) -> bool {
    let Some(Hang { probe, greeted, last: (since, place), sends }) = Hang::find(reports) else { return false };
    let under_way = |(other, report): &(usize, &&mut ScenarioReport)| {
        *other != place && report.begun <= since && end_of(report) > since
    };
    let beside: Vec<&str> =
        reports.iter().enumerate().filter(under_way).map(|(_, report)| report.id.as_str()).collect();
    let beside = if beside.is_empty() { String::new() } else { format!(" (also running: {})", beside.join(", ")) };
    let why = format!("the hub has been unresponsive since {:.1} s into the run", since.as_secs_f64());
    let mut silent = 0;
    for report in reports.iter_mut().filter(|report| end_of(report) > greeted) {
        silent += usize::from(report.activity.answers.is_empty() && report.begun > since);
        // Silence proves nothing from then on.
        let mut undecided = end_of(report) > since;
        for check in &mut report.checks {
            // A frame that was received is still judged.
            if (report.begun > since || !check.always) && check.accuses_hub() {
                check.make_inconclusive();
                check.message = format!("{why}: {}", check.message);
                undecided = true;
            }
        }
        if undecided && report.verdict != Verdict::NotTestable {
            report.verdict = Verdict::Inconclusive;
            report.missed = None;
        }
    }
    let what = match probe.missing {
        HubAnswer::Upgrade => "answers no upgrade",
        HubAnswer::Message(_) if sends => "serves no new client",
        HubAnswer::Message(_) => "sends nothing",
    };
    let last = &mut reports[place];
    last.verdict = Verdict::Fail;
    last.checks.push(CheckReport {
        step: "the hub keeps serving clients".to_owned(),
        message: format!(
            "{why}: it accepts connections but {what}; it served {} before, but not when that was played again",
            probe.id
        ),
        detail: Some(FindingDetail {
            expected: "a hub that keeps serving clients".to_owned(),
            received: format!("the last answer in this conversation{beside}, then nothing in {silent} conversations"),
            ..FindingDetail::default()
        }),
        ..CheckReport::new(HANG_CHECK, Verdict::Fail)
    });
    true
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rstest::rstest;

    use super::*;
    use crate::report::fixture::RunFixture;

    const SECOND: Duration = Duration::from_secs(1);

    /// The kinds of messages that the hub sends: a greeting and an answer to clients that it serves, refusals to others.
    const GREETING: MessageKind = Some(0);
    const ANSWER: MessageKind = Some(1);
    const REFUSAL: MessageKind = None;

    fn answers(kinds: &[(MessageKind, u32)]) -> BTreeMap<MessageKind, AnswerTimes> {
        let times = |after: &u32| AnswerTimes { last: SECOND * *after, greeting: SECOND * *after };
        kinds.iter().map(|(kind, after)| (*kind, times(after))).collect()
    }

    /// Returns the report of a failed conversation that began `begun` seconds into the run, lasted five, and received
    /// each of these messages after the given number of seconds. If there is no greeting among them, the probe that followed
    /// received none either.
    fn conversation_report(begun: u32, received: &[(MessageKind, u32)]) -> ScenarioReport {
        let mut report = RunFixture::one_failure().reports.swap_remove(0);
        report.begun = SECOND * begun;
        report.duration = SECOND * 5;
        report.activity.answers = answers(received);
        report.verdict = Verdict::Fail;
        report.history.truncate(2);
        let missing = UnservedProbe { id: "greeter/hello".to_owned(), missing: HubAnswer::Message(GREETING) };
        report.unserved = (!report.activity.answers.contains_key(&GREETING)).then_some(missing);
        report
    }

    fn judge_reports(mut reports: Vec<ScenarioReport>) -> (bool, Vec<ScenarioReport>) {
        let found = report_hangs(&mut reports.iter_mut().collect::<Vec<_>>());
        (found, reports)
    }

    fn failed_checks(report: &ScenarioReport) -> Vec<&str> {
        let failed = report.checks.iter().filter(|check| check.verdict == Verdict::Fail);
        failed.map(|check| check.name.as_str()).collect()
    }

    /// Refusals that the hub still sends do not hide the hang.
    #[rstest]
    #[case::silent(&[], "sends nothing")]
    #[case::refuses(&[(REFUSAL, 1)], "serves no new client")]
    fn a_hang_is_one_finding_and_later_checks_are_inconclusive(
        #[case] later: &[(MessageKind, u32)],
        #[case] what: &str,
    ) {
        let served = |begun, after| conversation_report(begun, &[(GREETING, after)]);
        let reports = vec![served(0, 1), served(4, 2), conversation_report(7, later), conversation_report(13, later)];
        let before = failed_checks(&reports[0]).join(" ");
        assert!(!before.is_empty());
        let (found, reports) = judge_reports(reports);
        assert!(found);
        // The first had ended by then; the second was under way.
        assert_eq!(failed_checks(&reports[0]).join(" "), before);
        assert_eq!(failed_checks(&reports[1]), [HANG_CHECK]);
        assert!(reports[2..].iter().all(|report| failed_checks(report).is_empty()), "{reports:#?}");
        let message = &reports[1].checks.last().unwrap().message;
        assert!(message.contains("since 6.0 s") && message.contains(what), "{message}");
    }

    /// The hub still serves older connections; the second conversation was the last new one that it greeted.
    #[test]
    fn a_hub_that_stops_greeting_new_clients_is_a_hang() {
        let mut old = conversation_report(0, &[(GREETING, 1), (ANSWER, 30)]);
        old.duration = SECOND * 30;
        let (found, reports) =
            judge_reports(vec![old, conversation_report(4, &[(GREETING, 2)]), conversation_report(7, &[])]);
        assert!(found);
        assert_eq!(failed_checks(&reports[1]), [HANG_CHECK]);
        let message = &reports[1].checks.last().unwrap().message;
        assert!(message.contains("serves no new client"), "{message}");
    }

    #[rstest]
    #[case::greeted_again(&[Some(1), None, None, Some(1)])]
    #[case::never_served(&[None, None, None])]
    fn other_silence_is_not_a_hang(#[case] received: &[Option<u32>]) {
        let greeting = |received: &Option<u32>| received.map(|after| (GREETING, after));
        let all = received.iter().zip(0..);
        let all = all.map(|(received, n)| conversation_report(n * 6, greeting(received).as_slice()));
        assert!(!judge_reports(all.collect()).0);
    }

    /// Records a scenario that passed with a greeting and an answer, then `failed`; `probes` are the reports of the
    /// probes after it. Returns how the hub was lost, and the number of probes.
    async fn record_and_probe(failed: ScenarioReport, probes: &[ScenarioReport]) -> (Option<ServiceLoss>, usize) {
        let service_probe = ServiceProbe::default();
        let program = Arc::clone(&RunFixture::all_pass().programs[0]);
        let mut passed = RunFixture::all_pass().reports.swap_remove(1);
        passed.activity.answers = answers(&[(GREETING, 0), (ANSWER, 0)]);
        let played = AtomicUsize::new(0);
        let play = |_, _: PlayId, _| std::future::ready(probes.get(played.fetch_add(1, Ordering::Relaxed)).cloned());
        let id = PlayId::first(1);
        assert_eq!(service_probe.record_play(&program, id, &passed, play).await, None);
        let found = service_probe.record_play(&program, id, &failed, play).await;
        // A scenario that ended before the last probe does not cause another probe.
        let earlier = ScenarioReport { begun: failed.begun - SECOND, ..failed };
        assert_eq!(service_probe.record_play(&program, id, &earlier, play).await, found);
        assert_eq!(service_probe.outages().await.len(), usize::from(found.is_some()));
        (found.map(|found| found.lost), played.into_inner())
    }

    fn frame(kind: FrameKind, direction: HistoryDirection) -> FrameReport {
        let frame = RunFixture::one_failure().reports[0].history[0].clone();
        FrameReport { kind, direction, ..frame }
    }

    fn with_event(report: ScenarioReport, kind: FrameKind) -> ScenarioReport {
        let direction = if kind == FrameKind::Close { HistoryDirection::Received } else { HistoryDirection::Neither };
        let history = vec![frame(kind, direction)];
        ScenarioReport { history, ..report }
    }

    #[tokio::test]
    async fn a_hub_is_lost_only_after_failing_to_serve_twice() {
        let failed = || conversation_report(9, &[]);
        let of = |begun, received: &[(MessageKind, u32)]| conversation_report(begun, received);
        let hangs = |kind| Some(ServiceLoss::Hangs { missing: HubAnswer::Message(kind) });
        assert_eq!(record_and_probe(failed(), &[of(20, &[]), of(26, &[])]).await, (hangs(GREETING), 2));
        // A greeting alone is no service, nor are a close frame and the end of a connection after a while.
        let greeted = [of(20, &[(GREETING, 1)]), of(26, &[(GREETING, 1)])];
        assert_eq!(record_and_probe(failed(), &greeted).await, (hangs(ANSWER), 2));
        let closed = [with_event(of(20, &[]), FrameKind::Close), with_event(of(26, &[]), FrameKind::End)];
        assert_eq!(record_and_probe(failed(), &closed).await, (hangs(GREETING), 2));
        let slow = [of(20, &[]), of(26, &[(GREETING, 1), (ANSWER, 1)])];
        assert_eq!(record_and_probe(failed(), &slow).await, (None, 2));
    }

    /// A hub may limit clients: refusals at once, and messages other than before, prove nothing.
    #[rstest]
    #[case::status(with_event(conversation_report(20, &[]), FrameKind::Refused))]
    #[case::message(conversation_report(20, &[(REFUSAL, 0)]))]
    #[case::close(ScenarioReport { duration: Duration::from_millis(50), ..with_event(conversation_report(20, &[]), FrameKind::Close) })]
    #[tokio::test]
    async fn a_refused_probe_is_no_sign_of_a_hang(#[case] probe: ScenarioReport) {
        assert_eq!(record_and_probe(conversation_report(9, &[]), &[probe.clone(), probe]).await, (None, 1));
    }

    /// Other scenarios may have all connections of a hub that limits them; a proxy without a hub refuses for good.
    #[tokio::test]
    async fn a_hub_that_is_too_busy_for_a_probe_is_asked_again() {
        let mut busy = with_event(conversation_report(20, &[]), FrameKind::Refused);
        busy.history[0].status = Some(503);
        let served = conversation_report(26, &[(GREETING, 1), (ANSWER, 1)]);
        let probes = [busy.clone(), busy.clone(), busy.clone(), served];
        assert_eq!(record_and_probe(conversation_report(9, &[]), &probes).await, (None, 4));
        let asked = MAX_REFUSALS as usize + 2;
        let refused = record_and_probe(conversation_report(9, &[]), &vec![busy; asked]).await;
        assert_eq!(refused, (Some(ServiceLoss::Gone), asked));
    }

    #[tokio::test]
    async fn a_hub_that_accepts_no_connections_is_gone() {
        let cut = |begun: u32, kind| {
            let mut report = with_event(conversation_report(begun, &[]), kind);
            report.activity.cut = Some(SECOND);
            report
        };
        let gone = || cut(20, FrameKind::Unreachable);
        let lost = Some(ServiceLoss::Gone);
        assert_eq!(record_and_probe(conversation_report(9, &[]), &[gone(), gone()]).await, (lost, 2));
        assert_eq!(record_and_probe(cut(9, FrameKind::End), &[gone(), gone()]).await, (lost, 2));
        // A hub that cut a connection off and was gone has been started again since.
        let served = conversation_report(26, &[(GREETING, 1), (ANSWER, 1)]);
        assert_eq!(record_and_probe(cut(9, FrameKind::End), &[gone(), served.clone()]).await, (lost, 2));
        assert_eq!(record_and_probe(conversation_report(9, &[]), &[gone(), served]).await, (None, 2));
    }
}
