//! Notices when the hub serves no client at all, or when this machine stalls. Every connection falls silent at the same
//! time then, so a case that was played meanwhile accuses no hub: it is played again. A case that sent a frame just
//! before the hub froze is played alone. If the hub freezes each time, the frame is the reason, and the only finding.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{RwLock, watch};
use tokio::time::Instant;

use super::latency_drift::LatencyProbe;
use super::{Campaign, PlayEnvironment, results};
use crate::fuzz::actors::SENDER;
use crate::fuzz::case::FuzzCase;
use crate::judge::{Evidence, PlayId};
use crate::outcome::{CheckReport, FrameReport, HistoryDirection, ScenarioReport, Verdict};
use crate::report::fuzz::PauseTally;
use crate::report::scenario_verdict;
use crate::report::text::format_time;

/// The time between two looks at the hub and at this machine.
const TICK: Duration = Duration::from_millis(50);
/// After this time in which no client received anything, a new client asks whether the hub serves it.
const SUSPICIOUS_SILENCE: Duration = Duration::from_millis(500);
/// The frame that made the hub freeze may have been sent this long before the hub last served a client.
const BEFORE_LAST_SERVICE: Duration = Duration::from_millis(200);
/// A pause this many times the patience long is a hang: the hub is given up.
const HANG_FACTOR: u32 = 4;

/// A time in which no client was served, relative to the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pause {
    /// When the hub last sent something to any client.
    since: Duration,
    /// When it was asked whether it serves a new client.
    asked: Duration,
    until: Duration,
    /// Whether this machine stalled, and not the hub.
    is_own: bool,
}

impl Pause {
    fn length(&self) -> Duration {
        self.until.saturating_sub(self.since)
    }
}

/// Watches for pauses while cases are played.
pub struct PauseWatch {
    /// The shortest pause that counts; a shorter one fails no case.
    least: Duration,
    /// How long the hub may pause before it is given up.
    most: Duration,
    state: Mutex<PauseState>,
    /// Since when nothing has been received, while a new client waits to be served.
    asking: watch::Sender<Option<Duration>>,
    /// Cases hold this for reading. A case that is played alone, to find out whether it makes the hub freeze, holds it
    /// for writing.
    turns: RwLock<()>,
}

#[derive(Default)]
struct PauseState {
    pauses: Vec<Pause>,
    /// The mutations that have made the hub freeze.
    freezing: BTreeSet<&'static str>,
    given_up: bool,
}

impl PauseWatch {
    pub fn new(probe: &LatencyProbe, environment: &PlayEnvironment) -> Self {
        let patience = environment.hub.target.patience.mul_f64(environment.options.stretch);
        Self {
            least: (probe.duration_before() * 4).clamp(patience / 2, patience),
            most: patience * HANG_FACTOR,
            state: Mutex::default(),
            asking: watch::channel(None).0,
            turns: RwLock::default(),
        }
    }

    /// Watches the hub and this machine; never returns unless the hub hangs.
    pub async fn follow(&self, campaign: &Campaign, environment: &PlayEnvironment, probe: &LatencyProbe) {
        tokio::join!(self.follow_machine(environment), self.follow_hub(campaign, environment, probe));
    }

    /// Records when this machine woke the watch up late.
    async fn follow_machine(&self, environment: &PlayEnvironment) {
        loop {
            let since = environment.hub.begun.elapsed();
            tokio::time::sleep(TICK).await;
            let until = environment.hub.begun.elapsed();
            if until.saturating_sub(since) >= TICK + self.least / 2 {
                self.state.lock().pauses.push(Pause { since, asked: since, until, is_own: true });
            }
        }
    }

    /// Records when a new client was not served, after none had received anything for a while.
    async fn follow_hub(&self, campaign: &Campaign, environment: &PlayEnvironment, probe: &LatencyProbe) {
        let hub = &environment.hub;
        // The watch itself looks for hangs.
        let unwatched = PlayEnvironment { service_probes: None, ..environment.clone() };
        let mut index = 0;
        loop {
            tokio::time::sleep(TICK).await;
            let since = hub.last_sign();
            if hub.begun.elapsed().saturating_sub(since) < self.least.div_f64(4.0).min(SUSPICIOUS_SILENCE) {
                continue;
            }
            self.asking.send_replace(Some(since));
            let (asked, starts) = (hub.begun.elapsed(), hub.process_starts());
            let mut is_served = false;
            let silent = || hub.begun.elapsed().saturating_sub(asked + self.stalled_since(asked));
            while !is_served && silent() < self.most {
                let begun = Instant::now();
                is_served = probe.is_served(campaign, &unwatched, index).await;
                index += 1;
                // A refusal says nothing about other clients, and a hub that is gone does not pause.
                if !is_served && begun.elapsed() < self.least || *environment.interrupt.borrow() {
                    break;
                }
            }
            let until = hub.begun.elapsed();
            let is_pause = until.saturating_sub(asked) >= self.least && hub.process_starts() == starts;
            let is_hang = !is_served && silent() >= self.most;
            {
                let mut state = self.state.lock();
                let overlaps = |pause: &Pause| pause.is_own && pause.until > asked;
                if is_pause && is_served && !state.pauses.iter().any(overlaps) {
                    state.pauses.push(Pause { since, asked, until, is_own: false });
                }
                state.given_up |= is_hang;
            }
            if is_served && is_pause {
                for probe in environment.service_probes.iter().flat_map(|probes| probes.iter()) {
                    probe.reset().await;
                }
            }
            self.asking.send_replace(None);
            if is_hang {
                return;
            }
        }
    }

    /// Returns how long this machine has stalled since then: the hub need not answer meanwhile.
    fn stalled_since(&self, asked: Duration) -> Duration {
        let state = self.state.lock();
        state.pauses.iter().filter(|pause| pause.is_own && pause.until > asked).map(Pause::length).sum()
    }

    /// Returns a pause that a case may have noticed, once it is over.
    async fn disturbing(&self, report: &ScenarioReport) -> Option<Pause> {
        if scenario_verdict(report) == Verdict::Pass && report.duration < self.least {
            return None;
        }
        // The watch may notice a stall only now, too.
        tokio::time::sleep(TICK * 2).await;
        let _ = self.asking.subscribe().wait_for(Option::is_none).await;
        let state = self.state.lock();
        let end = report.begun + report.duration;
        let overlaps = |pause: &&Pause| report.begun <= pause.until && end >= pause.since;
        state.pauses.iter().rfind(overlaps).copied().filter(|_| !state.given_up)
    }

    /// Plays a case, and again if no client was served meanwhile. `play` returns `None` if the run was interrupted. The
    /// second value says whether the report is the finding that the case makes the hub freeze, or undecided for pauses.
    pub async fn play_case<F: Future<Output = Option<ScenarioReport>>>(
        &self,
        campaign: &Campaign,
        case: &FuzzCase,
        play: impl Fn(PlayId) -> F,
    ) -> Option<(ScenarioReport, bool)> {
        let mutation = case.cell.mutation.name();
        let mut trial = Evidence::Freeze.trial(PlayId::first(case.number));
        let mut report = {
            let _beside = self.turns.read().await;
            play(PlayId::first(case.number)).await?
        };
        while let Some(pause) = self.disturbing(&report).await {
            let frame = frame_before(&report, &pause);
            let replay = trial.next_replay();
            let is_known = trial.is_confirmed_once() && self.state.lock().freezing.contains(mutation);
            if let Some(frame) = frame.filter(|_| is_known || trial.ruling().stands()) {
                self.state.lock().freezing.insert(mutation);
                return Some((freeze_report(campaign, report.clone(), frame, &pause), true));
            }
            let Some(replay) = replay else {
                report.checks.iter_mut().filter(|check| check.accuses_hub()).for_each(|check| {
                    check.make_inconclusive();
                    check.message.push_str("; no client was served meanwhile");
                });
                report.verdict = scenario_verdict(&report);
                return Some((report, true));
            };
            // What is played alone shows whether this case is the reason.
            let (mut alone, mut beside) = (None, None);
            match frame {
                Some(_) => alone = Some(self.turns.write().await),
                None => beside = Some(self.turns.read().await),
            }
            report = play(replay.id).await?;
            let pause = self.disturbing(&report).await;
            drop((alone.take(), beside.take()));
            trial.record(pause.is_some_and(|pause| frame_before(&report, &pause).is_some()));
        }
        Some((report, false))
    }

    /// Returns how often and how long the hub paused, and this machine stalled.
    pub fn tallies(&self) -> [Option<PauseTally>; 2] {
        let state = self.state.lock();
        [false, true].map(|is_own| {
            let lengths = || state.pauses.iter().filter(|pause| pause.is_own == is_own).map(Pause::length);
            Some(PauseTally { count: lengths().count() as u64, longest: lengths().max()? })
        })
    }
}

/// Returns the frame of a case after which the hub may have frozen, preferably one of its sender: the first that it sent
/// after the hub last served a client, and before the hub was found to serve none; or else the last one right before.
fn frame_before<'a>(report: &'a ScenarioReport, pause: &Pause) -> Option<&'a FrameReport> {
    let at = |frame: &FrameReport| report.begun + frame.at;
    let sent = || report.history.iter().filter(|frame| frame.direction == HistoryDirection::Sent);
    let may_be_meant =
        |frame: &&FrameReport| at(frame) + BEFORE_LAST_SERVICE >= pause.since && at(frame) <= pause.asked;
    let suspects = |of_sender: bool| {
        sent().filter(may_be_meant).filter(move |frame| !pause.is_own && (!of_sender || frame.actor == SENDER))
    };
    let meant = |of_sender| {
        suspects(of_sender).find(|frame| at(frame) >= pause.since).or_else(|| suspects(of_sender).next_back())
    };
    meant(true).or_else(|| meant(false))
}

/// Whether a check says that a case makes the hub freeze. Playing the case alone does not make this check.
pub fn is_freeze(check: &CheckReport) -> bool {
    check.name == results::PROCESS_ORACLE && check.detail.as_ref().is_some_and(|detail| detail.waited.is_some())
}

fn freeze_report(
    campaign: &Campaign,
    mut report: ScenarioReport,
    frame: &FrameReport,
    pause: &Pause,
) -> ScenarioReport {
    let message = format!("the hub froze for everyone {} after this frame", format_time(pause.length()));
    let received = "nothing, on any connection, and no answer to a new client".to_owned();
    let mut check = results::process_check(campaign, Verdict::Fail, message, Some(received));
    if let Some(detail) = &mut check.detail {
        detail.actor.clone_from(&frame.actor);
        detail.sent = Some(frame.text.clone());
        detail.waited = Some(pause.length());
    }
    report.checks = vec![check];
    report.unserved = None;
    report.verdict = Verdict::Fail;
    report
}
