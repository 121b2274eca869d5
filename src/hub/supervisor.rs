//! Supervises a hub that the run starts, or that a hook can restart: restarts it after a crash or a hang, and finds the
//! scenario that caused the crash.
//!
//! Several scenarios share a hub, so a crash cannot be attributed at once. All scenarios that were running are played
//! again, each alone on a fresh hub; after a hang, only those that sent the last frames before it, and the others
//! beside each other. A scenario that crashes the hub again fails its `process` check. Only the second play counts. If
//! no scenario reproduces a crash, the run still fails, but no scenario is blamed. After each crash, fewer scenarios run
//! in parallel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::hub::process::{
    self, HubLaunch, HubStartError, LaunchMethod, LaunchedHub, TERMINATION_GRACE, TerminationReceiver,
};
use crate::outcome::{
    CheckReport, FindingDetail, FrameKind, FrameReport, HistoryDirection, HubCrash, LogExcerpt, PreconditionFailure,
    ProcessReport, ScenarioReport, Verdict,
};
use crate::syntax::explanation::Explanation;

/// The name of the check that the hub's process keeps running during a scenario.
pub const PROCESS_CHECK: &str = "process";
/// Explains [`PROCESS_CHECK`].
pub const PROCESS_EXPLANATION: Explanation = Explanation::new(
    PROCESS_CHECK,
    "The hub ended, or stopped serving clients, during this scenario, and did so again when the scenario was played alone.",
)
.usually("An exception in the handler of one message that nothing catches, an assertion, or memory that runs out.")
.next("Read the end of the hub's output in the report, and play the scenario alone with the command after `reproduce`. `--exec-log FILE` keeps the whole output.");
/// The check that the hub keeps to RFC 6455, which also fails when a hub that ends cuts a handshake short.
const WEBSOCKET_CHECK: &str = "websocket";
/// Why a hub that the run cannot start is given up.
const NOT_BACK: &str = "it did not come back";
/// The number of crashes after which the hub is not started again in this run.
const MAX_CRASHES: usize = 10;
/// The number of starts in a row after which the hub is not started again if it hung before any scenario passed.
const MAX_VAIN_STARTS: usize = 3;
/// The number of scenarios that are played at a time after the first crash, and after all others.
const PLAYS_AFTER_CRASHES: [usize; 2] = [4, 1];
/// The number of scenarios that are played again alone after a hang.
const MAX_SUSPECTS: usize = 4;
/// How long after the last frame of a hub that hangs a frame may have been sent that made it hang.
const UNNOTICED: Duration = Duration::from_millis(100);
/// How long to wait for the process to end after a failure: its connections may close a moment earlier.
const PROCESS_END_WAIT: Duration = Duration::from_millis(250);
/// The same after a failure in which a connection ended without a close frame, or was refused, as when a process ends.
const LIKELY_END_WAIT: Duration = Duration::from_secs(2);
/// The pause between attempts to start the hub again: connections of the previous process may keep its port for a
/// while.
const RESTART_PAUSE: Duration = Duration::from_millis(250);
/// The number of lines of the hub's log in the report of a crash, and in that of the run.
const CRASH_LOG_LINES: usize = 20;
const RUN_LOG_LINES: usize = 200;

/// A hub that the run can start, supervised for the whole run.
pub struct HubProcess {
    launch: HubLaunch,
    /// Held while the hub is started or stopped.
    switching: tokio::sync::Mutex<()>,
    state: Mutex<SupervisorState>,
    /// Notified when a scenario has ended.
    ended: tokio::sync::Notify,
}

/// How a scenario uses the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HubUse {
    /// On a hub that other scenarios have used or are using.
    Shared,
    /// Alone on a fresh hub.
    Alone,
    /// On a hub that may end and that no other scenario uses afterwards.
    Destructive,
}

/// A scenario that is being played on the hub.
pub struct ActivePlay {
    number: usize,
    generation: usize,
    kind: HubUse,
}

/// An end of the hub's process during a scenario.
pub struct ProcessEnd {
    /// Whether no other scenario was played on the process.
    pub alone: bool,
    crash: HubCrash,
    generation: usize,
}

/// What a scenario did on a process that crashed, relative to the start of the run.
struct CrashWitness {
    id: String,
    /// When it sent frames, and which.
    sent: Vec<(Duration, String)>,
    /// When it last received a message.
    received: Option<Duration>,
}

struct PlayingScenario {
    id: String,
    generation: usize,
    kind: HubUse,
}

#[derive(Default)]
struct SupervisorState {
    running: Option<LaunchedHub>,
    /// Started processes that may still be running.
    terminating: Vec<TerminationReceiver>,
    /// The number of starts.
    generation: usize,
    /// Whether the current process has ended by itself.
    crashed: bool,
    /// Whether a scenario has passed on the current process.
    served: bool,
    /// The number of processes up to the latest that hung before any scenario passed.
    vain_starts: usize,
    /// The number of scenarios played on the current process.
    played: usize,
    /// The scenarios being played.
    playing: BTreeMap<usize, PlayingScenario>,
    numbers: usize,
    last: Option<String>,
    lenient: bool,
    /// Indices into the report's crashes, by generation.
    crashes: BTreeMap<usize, usize>,
    /// What scenarios did on the processes that crashed, by generation.
    witnesses: BTreeMap<usize, Vec<CrashWitness>>,
    report: ProcessReport,
}

impl HubProcess {
    /// Creates a hub that is not yet started; `command` is its command as reports show it.
    pub fn new(launch: HubLaunch, command: String, instances: Vec<String>) -> Arc<Self> {
        let elsewhere = !matches!(launch.by, LaunchMethod::Command(_));
        let report = ProcessReport { command, instances, elsewhere, ..ProcessReport::default() };
        let state = Mutex::new(SupervisorState { report, ..SupervisorState::default() });
        Arc::new(Self { launch, switching: tokio::sync::Mutex::default(), state, ended: tokio::sync::Notify::new() })
    }

    /// Whether the run starts the hub with a command. A hub that a hook restarts is already running when the run
    /// begins.
    pub fn is_by_command(&self) -> bool {
        matches!(self.launch.by, LaunchMethod::Command(_))
    }

    /// Whether the run can start the hub again. Any other hub is only watched.
    pub fn is_restartable(&self) -> bool {
        !matches!(self.launch.by, LaunchMethod::None)
    }

    /// Starts the process.
    ///
    /// # Errors
    ///
    /// [`HubStartError`]; in that case no process of the hub is left.
    pub async fn start(self: &Arc<Self>) -> Result<(), HubStartError> {
        let _switching = self.switching.lock().await;
        if !self.is_by_command() {
            self.state.lock().running = Some(LaunchedHub::remote());
            return Ok(());
        }
        self.start_process().await
    }

    /// Registers a scenario; first restarts the hub if it has crashed or must be fresh.
    ///
    /// # Errors
    ///
    /// The reason why the hub is not started again.
    pub async fn begin_play(self: &Arc<Self>, id: &str, kind: HubUse) -> Result<ActivePlay, String> {
        let _switching = loop {
            let ended = self.ended.notified();
            let switching = self.switching.lock().await;
            if self.state.lock().has_room() {
                break switching;
            }
            drop(switching);
            ended.await;
        };
        let stale = {
            let state = self.state.lock();
            let used = kind == HubUse::Alone && state.played > 0 && self.is_restartable();
            state.running.is_none() || state.crashed || used
        };
        if stale {
            self.stop(TERMINATION_GRACE).await;
            self.restart_process().await?;
        }
        let mut state = self.state.lock();
        state.numbers += 1;
        state.played += 1;
        state.lenient = kind == HubUse::Destructive;
        let number = state.numbers;
        let generation = state.generation;
        state.playing.insert(number, PlayingScenario { id: id.to_owned(), generation, kind });
        Ok(ActivePlay { number, generation, kind })
    }

    /// Removes a scenario; returns how the hub ended, if it ended while the scenario was played. `wrong`: whether a
    /// check did not pass.
    pub async fn end_play(&self, play: ActivePlay, report: &ScenarioReport, wrong: bool) -> Option<ProcessEnd> {
        let ended = self.state.lock().running.as_ref().map(LaunchedHub::wait_for_end);
        if let (Some(ended), true) = (ended, wrong || play.kind != HubUse::Shared) {
            let wait = if wrong && has_lost_connection(report) { LIKELY_END_WAIT } else { PROCESS_END_WAIT };
            let _ = tokio::time::timeout(wait, ended).await;
        }
        let log = {
            let mut state = self.state.lock();
            state.served |= !wrong && state.generation == play.generation;
            state.record_crash();
            state.last = state.playing.remove(&play.number).map(|playing| playing.id);
            self.ended.notify_waiters();
            state.add_evidence(play.generation, report);
            // If another process is running by now, the log of the crashed one was recorded when it was replaced.
            let crashed = state.crashes.contains_key(&play.generation) && state.generation == play.generation;
            state.running.as_ref().filter(|_| crashed).map(LaunchedHub::wait_for_log)
        };
        if play.kind == HubUse::Destructive {
            let _switching = self.switching.lock().await;
            self.stop(TERMINATION_GRACE).await;
            return None;
        }
        if let Some(log) = log {
            let log = log.await.last_lines(CRASH_LOG_LINES);
            self.state.lock().set_log(play.generation, log);
        }
        let state = self.state.lock();
        let crash = state.report.crashes[*state.crashes.get(&play.generation)?].clone();
        Some(ProcessEnd { alone: crash.blamed.is_some(), crash, generation: play.generation })
    }

    /// Whether a scenario may have caused the end of a process, once all that were played on it have ended: it must be
    /// played again alone.
    pub fn is_suspect(&self, end: &ProcessEnd, id: &str) -> bool {
        let state = self.state.lock();
        !end.crash.hung || state.suspects(end.generation, true).iter().take(MAX_SUSPECTS).any(|(_, one, _)| *one == id)
    }

    /// Records that the hub has not served any client since a scenario was played, and stops it so that it is
    /// restarted. `hung`: whether it still accepts connections.
    pub async fn record_unserved_play(&self, play: &ActivePlay, report: &ScenarioReport, hung: bool) {
        let _switching = self.switching.lock().await;
        {
            let mut state = self.state.lock();
            if state.generation != play.generation || state.crashed {
                return;
            }
            if play.kind == HubUse::Alone && !hung && !self.is_restartable() && !report.has_frame(FrameKind::Open) {
                // Only a proxy in front of the hub accepts connections again.
                state.report.given_up = Some(NOT_BACK.to_owned());
                state.crashed = true;
                return;
            }
            // A process may end a moment after its connections.
            state.record_crash();
            let status = if hung { "it accepted connections and sent nothing" } else { "it accepts no connections" };
            state.record_end(status.to_owned(), hung);
        }
        self.stop(TERMINATION_GRACE).await;
    }

    /// Stops the hub for good.
    pub async fn stop_for_good(&self, grace: Duration) {
        let _switching = self.switching.lock().await;
        self.stop(grace).await;
        // Processes killed by an interrupted start or stop may take a moment to end.
        let terminating = std::mem::take(&mut self.state.lock().terminating);
        for mut gone in terminating {
            let _ = tokio::time::timeout(TERMINATION_GRACE, gone.wait_for(|gone| *gone)).await;
        }
    }

    /// Whether the hub will not be started again.
    pub fn is_given_up(&self) -> bool {
        self.state.lock().report.given_up.is_some()
    }

    /// Returns the report, unless a hub that runs elsewhere was never started.
    pub fn report(&self) -> Option<ProcessReport> {
        let report = self.state.lock().report.clone();
        (self.is_by_command() || report.starts > 0 || !report.crashes.is_empty()).then_some(report)
    }

    async fn start_process(self: &Arc<Self>) -> Result<(), HubStartError> {
        let spawned = |gone| {
            let mut state = self.state.lock();
            state.terminating.retain(|gone| !*gone.borrow());
            state.terminating.push(gone);
        };
        let running = process::start_hub(&self.launch, spawned).await?;
        let ended = running.wait_for_end();
        let generation = {
            let mut state = self.state.lock();
            state.generation += 1;
            state.report.starts += 1;
            (state.crashed, state.served, state.played) = (false, false, 0);
            state.running = Some(running);
            state.generation
        };
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            ended.await;
            if let Some(this) = this.upgrade() {
                let mut state = this.state.lock();
                if state.generation == generation {
                    state.record_crash();
                }
            }
        });
        Ok(())
    }

    async fn restart_process(self: &Arc<Self>) -> Result<(), String> {
        let given_up = self.state.lock().report.given_up.clone();
        if let Some(why) = given_up {
            return Err(why);
        }
        let why = if self.state.lock().report.crashes.len() >= MAX_CRASHES {
            format!("it has ended by itself or hung {MAX_CRASHES} times in this run and is not started again")
        } else if self.state.lock().vain_starts >= MAX_VAIN_STARTS {
            format!(
                "it hung after each of {MAX_VAIN_STARTS} starts before it served a scenario, and is not started again"
            )
        } else {
            let last = Instant::now() + self.launch.wait;
            loop {
                match self.start_process().await {
                    Ok(()) => return Ok(()),
                    Err(HubStartError::Ended { .. } | HubStartError::Taken(_)) if Instant::now() < last => {
                        tokio::time::sleep(RESTART_PAUSE).await;
                    }
                    Err(_) if !self.is_restartable() => break NOT_BACK.to_owned(),
                    Err(error) => {
                        let mut state = self.state.lock();
                        if let Some(log) = error.log() {
                            state.report.log = log.last_lines(RUN_LOG_LINES);
                        }
                        break format!("it could not be started again: {error}");
                    }
                }
            }
        };
        self.state.lock().report.given_up = Some(why.clone());
        Err(why)
    }

    async fn stop(&self, grace: Duration) {
        let (running, generation) = {
            let mut state = self.state.lock();
            state.record_crash();
            (state.running.take(), state.generation)
        };
        let Some(running) = running else { return };
        let log = running.terminate(grace).await;
        let mut state = self.state.lock();
        state.set_log(generation, log.last_lines(CRASH_LOG_LINES));
        state.report.log = log.last_lines(RUN_LOG_LINES);
    }
}

impl SupervisorState {
    /// Records a crash, at most once per process, if the current process has ended by itself.
    fn record_crash(&mut self) {
        let Some(status) = self.running.as_ref().and_then(LaunchedHub::end_status) else { return };
        self.record_end(status, false);
    }

    fn record_end(&mut self, status: String, hung: bool) {
        if std::mem::replace(&mut self.crashed, true) || self.lenient {
            return;
        }
        self.vain_starts = if hung && !self.served { self.vain_starts + 1 } else { 0 };
        let here = self.playing.values().filter(|playing| playing.generation == self.generation);
        let here: Vec<&PlayingScenario> = here.collect();
        let blamed = match here.as_slice() {
            [only] if self.played == 1 || only.kind == HubUse::Alone => Some(only.id.clone()),
            _ => None,
        };
        let during = here.iter().map(|playing| playing.id.clone()).collect();
        self.crashes.insert(self.generation, self.report.crashes.len());
        let after = self.last.clone();
        let crash = HubCrash { status, hung, during, after, blamed, ..HubCrash::default() };
        self.report.crashes.push(crash);
    }

    /// Adds to the crash of a process what the report of a scenario played on it shows: the last frame that was sent.
    /// A scenario that could not connect was not played on it after all.
    fn add_evidence(&mut self, generation: usize, report: &ScenarioReport) {
        let Some(place) = self.crashes.get(&generation) else { return };
        let crash = &mut self.report.crashes[*place];
        if !report.has_frame(FrameKind::Open) && crash.during.len() > 1 {
            crash.during.retain(|id| *id != report.id);
        }
        let (place, hung) = (*place, crash.hung);
        let of = |direction| {
            report.history.iter().filter(move |frame| frame.direction == direction && !frame.text.is_empty())
        };
        let sent = of(HistoryDirection::Sent)
            .map(|frame| (report.begun + frame.at, format!("{} of {}: {}", frame.actor, report.id, frame.text)));
        let received = of(HistoryDirection::Received).filter(|frame| frame.kind.is_message());
        let received = received.map(|frame| report.begun + frame.at).max();
        let witness = CrashWitness { id: report.id.clone(), sent: sent.collect(), received };
        self.witnesses.entry(generation).or_default().push(witness);
        let last = self.suspects(generation, hung).first().map(|(.., frame)| (*frame).to_owned());
        self.report.crashes[place].last_sent = last.or(self.report.crashes[place].last_sent.take());
    }

    /// Returns the scenarios of a process that crashed, each with the last frame that it sent before: the latest first. A
    /// hub that hangs is sent frames long after it has begun to.
    fn suspects(&self, generation: usize, hung: bool) -> Vec<(Duration, &str, &str)> {
        let witnesses = self.witnesses.get(&generation).map(Vec::as_slice).unwrap_or_default();
        let served = witnesses.iter().filter_map(|one| one.received).max().filter(|_| hung);
        let until = served.map_or(Duration::MAX, |served| served + UNNOTICED);
        let last = |one: &'_ CrashWitness| one.sent.iter().rposition(|(at, _)| *at <= until);
        let mut found: Vec<(Duration, &str, &str)> = witnesses
            .iter()
            .filter_map(|one| last(one).map(|index| (one.sent[index].0, one.id.as_str(), one.sent[index].1.as_str())))
            .collect();
        found.sort_by_key(|(at, ..)| std::cmp::Reverse(*at));
        found
    }

    /// Whether another scenario may be played at the same time.
    fn has_room(&self) -> bool {
        let crashes = self.report.crashes.len();
        let last = PLAYS_AFTER_CRASHES.len().min(crashes);
        last == 0 || self.playing.len() < PLAYS_AFTER_CRASHES[last - 1]
    }

    fn set_log(&mut self, generation: usize, log: LogExcerpt) {
        if let Some(place) = self.crashes.get(&generation) {
            self.report.crashes[*place].log = log;
        }
    }
}

/// Whether a connection ended without a close frame, or was refused.
fn has_lost_connection(report: &ScenarioReport) -> bool {
    report
        .history
        .iter()
        .any(|frame| frame.kind == FrameKind::End || (frame.kind == FrameKind::Refused && frame.status.is_none()))
}

/// Returns the last frame that was sent in a scenario, and when.
fn last_sent_frame(report: &ScenarioReport) -> Option<(Duration, &FrameReport)> {
    let is_sent = |frame: &&FrameReport| frame.direction == HistoryDirection::Sent && !frame.text.is_empty();
    report.history.iter().rfind(is_sent).map(|frame| (frame.at, frame))
}

/// Adds the `process` check to a scenario's report: whether the hub kept running, or how it ended.
pub fn add_process_check(report: &mut ScenarioReport, end: Option<ProcessEnd>) {
    let step = "the hub's process keeps running".to_owned();
    let mut check = CheckReport { step, ..CheckReport::new(PROCESS_CHECK, Verdict::Pass) };
    if let Some(end) = end {
        check.verdict = Verdict::Fail;
        let status = &end.crash.status;
        check.message = format!("the hub {}: {status}", end.crash.describe_end());
        let received = match end.crash.log.lines.last() {
            Some(line) => format!("{status}; the last line of its output: {line}"),
            None => format!("{status}, without any output"),
        };
        check.detail = Some(FindingDetail {
            expected: "a hub that keeps running, whatever it is sent".to_owned(),
            received,
            sent: last_sent_frame(report).map(|(_, frame)| frame.text.clone()),
            ..FindingDetail::default()
        });
        blame_end_only(report, &check);
    }
    report.checks.push(check);
}

/// Makes a scenario's checks inconclusive if the end of the hub may have broken them: checks that missed a frame, or
/// judged how and when a connection ended. Received frames are still judged.
fn blame_end_only(report: &mut ScenarioReport, end: &CheckReport) {
    let is_of_frame = |check: &CheckReport| check.always || (check.span.is_none() && check.name != WEBSOCKET_CHECK);
    for check in report.checks.iter_mut().filter(|check| check.accuses_hub() && !is_of_frame(check)) {
        check.make_inconclusive();
        check.message = format!("{}: {}", end.message, check.message);
    }
    if let Some(cause) = &mut report.cause {
        // The same as the check, so that reports do not list it as another cause.
        *cause = PreconditionFailure {
            step: end.step.clone(),
            detail: end.detail.clone(),
            ..PreconditionFailure::without_step(end.message.clone())
        };
    }
    report.missed = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hub that hangs is sent frames long after; those do not count.
    #[test]
    fn a_hang_is_blamed_on_the_last_frames_before_it() {
        let witness = |id: &str, sent: &[u64], received: Option<u64>| CrashWitness {
            id: id.to_owned(),
            sent: sent.iter().map(|at| (Duration::from_millis(*at), format!("{id} at {at}"))).collect(),
            received: received.map(Duration::from_millis),
        };
        let witnesses = vec![
            witness("early", &[100, 900], Some(1000)),
            witness("last", &[1050, 3000], Some(1040)),
            witness("late", &[1200, 4000], None),
        ];
        let state = SupervisorState { witnesses: [(1, witnesses)].into(), ..SupervisorState::default() };
        let frames = |hung| state.suspects(1, hung).into_iter().map(|(.., frame)| frame).collect::<Vec<_>>();
        assert_eq!(frames(true), ["last at 1050", "early at 900"]);
        assert_eq!(frames(false), ["late at 4000", "last at 3000", "early at 900"]);
    }

    #[test]
    fn fewer_scenarios_are_played_at_a_time_after_each_crash() {
        let mut state = SupervisorState::default();
        let mut most = Vec::new();
        for _ in 0..4 {
            state.playing.clear();
            while state.has_room() && state.playing.len() < 16 {
                let playing = PlayingScenario { id: String::new(), generation: 0, kind: HubUse::Shared };
                state.playing.insert(state.playing.len(), playing);
            }
            most.push(state.playing.len());
            state.report.crashes.push(HubCrash::default());
        }
        assert_eq!(most, [16, 4, 1, 1]);
    }
}
