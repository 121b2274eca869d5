//! The hub that was started for this run: there for every scenario, started again when it is not, and who is to blame
//! when it ends by itself.
//!
//! Several scenarios are played on one hub, so when it ends by itself nobody knows at first which of them did it. All that
//! were under way are played once more, each alone on a hub that has played nothing else; one that brings such a hub
//! down answers for it, with a check of its own and with whatever else it found then. The others keep what they find
//! when played again. A crash that none of them repeats is nobody's in particular and still fails the run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::event::{CheckReport, Crash, Detail, Excerpt, ProcessReport, ScenarioReport, Verdict};
use crate::hub::process::{self, GRACE, Gone, Launch, Running, StartError};

/// The name of the check that a hub's process goes on while a scenario is played on it.
pub const PROCESS_CHECK: &str = "process";
/// After so many ends of its own it is not started again in this run: a hub that falls whenever it stands proves no more.
pub const MOST_CRASHES: usize = 10;
/// How long the end of a process is awaited after connections went wrong: they may close a moment before.
const SETTLE: Duration = Duration::from_millis(250);
/// Between attempts to start it again: its port may be kept for a while by connections of the one before.
const PAUSE: Duration = Duration::from_millis(250);
/// Lines of its log that a crash is told with, and a whole run.
const CRASH_LINES: usize = 20;
const RUN_LINES: usize = 200;

/// A hub that runs as long as the check does.
pub struct HubProcess {
    launch: Launch,
    /// Held while it is started or ended.
    turning: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// How a scenario is played on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// Beside others, or not; it has played other scenarios before.
    Usual,
    /// On one that has played nothing else.
    Alone,
    /// It may end, and is not used again.
    Destructive,
}

/// A scenario that is being played on it.
pub struct Visitor {
    number: usize,
    generation: usize,
    visit: Visit,
}

/// It ended by itself while a scenario was played on it.
pub struct Fall {
    /// It had played nothing else.
    pub alone: bool,
    status: String,
    log: Excerpt,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    /// Of those that were started and may still be there.
    leaving: Vec<Gone>,
    /// Counts starts.
    generation: usize,
    /// The running one has ended by itself.
    fallen: bool,
    /// Scenarios that the running one has played.
    visited: usize,
    /// Scenarios that are being played, with the start on which they are.
    inside: BTreeMap<usize, (usize, String)>,
    numbers: usize,
    last: Option<String>,
    lenient: bool,
    /// Which of the crashes in the report was that of which start.
    crashes: BTreeMap<usize, usize>,
    report: ProcessReport,
}

impl HubProcess {
    /// `command` is how a report names it.
    pub fn new(launch: Launch, command: String, instances: Vec<String>) -> Arc<Self> {
        let report = ProcessReport { command, instances, ..ProcessReport::default() };
        let state = Mutex::new(State { report, ..State::default() });
        Arc::new(Self { launch, turning: tokio::sync::Mutex::default(), state })
    }

    /// Starts it for the first time.
    ///
    /// # Errors
    ///
    /// [`StartError`]; then it does not run.
    pub async fn start(self: &Arc<Self>) -> Result<(), StartError> {
        let _turning = self.turning.lock().await;
        self.begin().await
    }

    /// Lets a scenario in, on a hub that listens: it is started again where it has to be.
    ///
    /// # Errors
    ///
    /// Why it does not run and will not run any more.
    pub async fn enter(self: &Arc<Self>, id: &str, visit: Visit) -> Result<Visitor, String> {
        let _turning = self.turning.lock().await;
        let stale = {
            let state = self.state();
            state.running.is_none() || state.fallen || (visit == Visit::Alone && state.visited > 0)
        };
        if stale {
            self.stop(GRACE).await;
            self.begin_again().await?;
        }
        let mut state = self.state();
        state.numbers += 1;
        state.visited += 1;
        state.lenient = visit == Visit::Destructive;
        let number = state.numbers;
        let generation = state.generation;
        state.inside.insert(number, (generation, id.to_owned()));
        Ok(Visitor { number, generation, visit })
    }

    /// Lets it out again, and says whether the hub ended by itself under it. `wrong`: something did not go as it should.
    pub async fn leave(&self, visitor: Visitor, wrong: bool) -> Option<Fall> {
        let ended = self.state().running.as_ref().map(Running::ended);
        if let (Some(ended), true) = (ended, wrong || visitor.visit != Visit::Usual) {
            let _ = tokio::time::timeout(SETTLE, ended).await;
        }
        let words = {
            let mut state = self.state();
            state.notice();
            state.last = state.inside.remove(&visitor.number).map(|(_, id)| id);
            // Another may run by now; what the fallen one said was written down when it was replaced.
            let fallen = state.crashes.contains_key(&visitor.generation) && state.generation == visitor.generation;
            state.running.as_ref().filter(|_| fallen).map(Running::last_words)
        };
        if visitor.visit == Visit::Destructive {
            let _turning = self.turning.lock().await;
            self.stop(GRACE).await;
            return None;
        }
        if let Some(words) = words {
            let log = words.await.tail(CRASH_LINES);
            self.state().said(visitor.generation, log);
        }
        let state = self.state();
        let crash = &state.report.crashes[*state.crashes.get(&visitor.generation)?];
        Some(Fall { alone: crash.blamed.is_some(), status: crash.status.clone(), log: crash.log.clone() })
    }

    /// Ends it for good.
    pub async fn end(&self, grace: Duration) {
        let _turning = self.turning.lock().await;
        self.stop(grace).await;
        // What an interrupted start or stop has killed may take a moment to go.
        let leaving = std::mem::take(&mut self.state().leaving);
        for mut gone in leaving {
            let _ = tokio::time::timeout(GRACE, gone.wait_for(|gone| *gone)).await;
        }
    }

    /// Whether it is not started any more.
    pub fn is_given_up(&self) -> bool {
        self.state().report.given_up.is_some()
    }

    pub fn report(&self) -> ProcessReport {
        self.state().report.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics while it holds the lock, and half a change harms nobody.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn begin(self: &Arc<Self>) -> Result<(), StartError> {
        let spawned = |gone| {
            let mut state = self.state();
            state.leaving.retain(|gone| !*gone.borrow());
            state.leaving.push(gone);
        };
        let running = process::start(&self.launch, spawned).await?;
        let ended = running.ended();
        let generation = {
            let mut state = self.state();
            state.generation += 1;
            state.report.starts += 1;
            (state.fallen, state.visited) = (false, 0);
            state.running = Some(running);
            state.generation
        };
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            ended.await;
            if let Some(this) = this.upgrade() {
                let mut state = this.state();
                if state.generation == generation {
                    state.notice();
                }
            }
        });
        Ok(())
    }

    async fn begin_again(self: &Arc<Self>) -> Result<(), String> {
        let given_up = self.state().report.given_up.clone();
        if let Some(why) = given_up {
            return Err(why);
        }
        let why = if self.state().report.crashes.len() >= MOST_CRASHES {
            format!("it has ended by itself {MOST_CRASHES} times in this run and is not started again")
        } else {
            let last = Instant::now() + self.launch.wait;
            loop {
                match self.begin().await {
                    Ok(()) => return Ok(()),
                    Err(StartError::Ended { .. } | StartError::Taken(_)) if Instant::now() < last => {
                        tokio::time::sleep(PAUSE).await;
                    }
                    Err(error) => {
                        let mut state = self.state();
                        if let Some(log) = error.log() {
                            state.report.log = log.tail(RUN_LINES);
                        }
                        break format!("it could not be started again: {error}");
                    }
                }
            }
        };
        self.state().report.given_up = Some(why.clone());
        Err(why)
    }

    async fn stop(&self, grace: Duration) {
        let (running, generation) = {
            let mut state = self.state();
            state.notice();
            (state.running.take(), state.generation)
        };
        let Some(running) = running else { return };
        let log = running.end(grace).await;
        let mut state = self.state();
        state.said(generation, log.tail(CRASH_LINES));
        state.report.log = log.tail(RUN_LINES);
    }
}

impl State {
    /// Writes it down if the running one has ended by itself, once.
    fn notice(&mut self) {
        let Some(status) = self.running.as_ref().and_then(Running::exited) else { return };
        if std::mem::replace(&mut self.fallen, true) || self.lenient {
            return;
        }
        let here = self.inside.values().filter(|(generation, _)| *generation == self.generation);
        let during: Vec<String> = here.map(|(_, id)| id.clone()).collect();
        let blamed = match during.as_slice() {
            [only] if self.visited == 1 => Some(only.clone()),
            _ => None,
        };
        self.crashes.insert(self.generation, self.report.crashes.len());
        self.report.crashes.push(Crash { status, during, after: self.last.clone(), blamed, log: Excerpt::default() });
    }

    fn said(&mut self, generation: usize, log: Excerpt) {
        if let Some(place) = self.crashes.get(&generation) {
            self.report.crashes[*place].log = log;
        }
    }
}

/// Adds what is said of the hub's process to a scenario that was played on it: that it went on, or how it ended.
pub fn judge(report: &mut ScenarioReport, fall: Option<Fall>) {
    let mut check = CheckReport {
        name: PROCESS_CHECK.to_owned(),
        rules: Vec::new(),
        verdict: Verdict::Pass,
        span: None,
        step: "the hub's process goes on".to_owned(),
        asked: 1,
        message: String::new(),
        detail: None,
    };
    if let Some(fall) = fall {
        check.verdict = Verdict::Fail;
        check.message = format!("the hub ended by itself: {}", fall.status);
        let said = match fall.log.lines.last() {
            Some(line) => format!("{}; its last words: {line}", fall.status),
            None => format!("{}, without a word", fall.status),
        };
        check.detail = Some(Detail {
            expected: "a hub that goes on, whatever it is sent".to_owned(),
            received: said,
            ..Detail::default()
        });
    }
    report.checks.push(check);
}
