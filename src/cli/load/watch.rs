//! `hubproof watch`: shows a load run whose shares report over a NATS server, holds it, and ends it.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::super::{CliError, build_runtime, exit, print_to_stderr, print_to_stdout, uses_color};
use super::over::{NatsCredentials, refuse};
use super::progress::Dashboard;
use super::start_live_page;
use crate::cli::merge::parse_thresholds;
use crate::cli::signals::SignalListener;
use crate::load::metrics::MetricInterval;
use crate::load::metrics::selector::{Metric, RunMeasurements};
use crate::load::nats::{NatsServer, RunMessages};
use crate::load::pages::{LiveFeed, LiveSnapshot, parse_address, stopped_on};
use crate::load::plan::threshold::ThresholdWatch;
use crate::load::report::{LoadReport, LoadRunMetadata, live};
use crate::load::shares::name::RunName;
use crate::load::shares::over::message::{HoldRequest, Message, RunFacts, StopRequest, Tick};
use crate::load::shares::over::roster::{Roster, StatusOutcome};
use crate::load::shares::over::totals::LiveTotals;
use crate::load::shares::over::{EARLIEST, MAX_LEADERLESS};
use crate::load::{Nanos, SECOND};
use crate::report::html::live::LiveState;
use crate::report::terminal_page::{RED, paint};
use crate::syntax::source::Sources;

/// How long a run may take to answer, and to appear.
const ANSWER_TIME: Duration = Duration::from_secs(5);
const APPEARANCE_TIME: Duration = Duration::from_secs(60);

/// Show a load run that several generators share, while they run
#[derive(Args)]
pub struct WatchArgs {
    /// NATS server over which the shares report: nats://HOST:4222
    #[arg(value_name = "SERVER")]
    server: String,
    /// Name of the run
    #[arg(value_name = "NAME")]
    run: RunName,
    /// End the run instead: no new journeys begin, and running ones finish
    #[arg(long)]
    stop: bool,
    /// Pause all shares at the same second: no new journeys begin
    #[arg(long, conflicts_with_all = ["stop", "resume"])]
    hold: bool,
    /// End a hold
    #[arg(long, conflicts_with = "stop")]
    resume: bool,
    /// Do not wait for running journeys
    #[arg(long, requires = "stop")]
    now: bool,
    /// Serve a page of the whole run: a port on this machine, or IP:PORT
    #[arg(long, value_name = "ADDR", value_parser = parse_address, conflicts_with_all = ["stop", "hold", "resume"])]
    live: Option<SocketAddr>,
    #[command(flatten)]
    credentials: NatsCredentials,
}

/// Runs the command. Returns the exit code.
pub fn run_watch(arguments: &WatchArgs) -> Result<u8, CliError> {
    build_runtime()?.block_on(async {
        let server = arguments.credentials.connect(&arguments.server).await?;
        let mut ticks = server.subscribe(&arguments.run, "tick").await.map_err(refuse)?;
        let asks = arguments.stop || arguments.hold || arguments.resume;
        let patience = if asks { ANSWER_TIME } else { APPEARANCE_TIME };
        let first = timeout(patience, next_tick(&mut ticks, |_| true)).await;
        let Ok(first) = first else {
            let message = format!("no run {} reports at {}", arguments.run, server.address());
            return Err(CliError::usage(
                message,
                "`hubproof load ... --over URL --run NAME --share 1/4` starts a share of one",
            ));
        };
        match asks {
            true => change_run(arguments, &server, &mut ticks).await,
            false => watch_run(arguments, &server, ticks, first).await,
        }
    })
}

async fn next_tick(ticks: &mut RunMessages, is_wanted: impl Fn(&Tick) -> bool) -> Tick {
    loop {
        match ticks.next().await {
            Some(Message::Tick(tick)) if is_wanted(&tick) => return *tick,
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

/// Stops, holds or resumes the run, and waits for its leader to confirm.
async fn change_run(arguments: &WatchArgs, server: &NatsServer, ticks: &mut RunMessages) -> Result<u8, CliError> {
    let (run, at_once, begins) = (&arguments.run, arguments.now, arguments.hold);
    let (request, done, failed) = match arguments.stop {
        true => {
            let request = StopRequest { at_once, by_threshold: false, reason: "hubproof watch --stop".to_owned() };
            (Message::Stop(request), "ends", "did not confirm its end")
        }
        false if begins => (Message::Hold(HoldRequest { begins }), "is held", "cannot be held now"),
        false => (Message::Hold(HoldRequest { begins }), "goes on", "did not confirm that it goes on"),
    };
    server.publish(run, request).await;
    let is_confirmed = |tick: &Tick| match arguments.stop {
        true => tick.stop.as_ref().is_some_and(|stop| stop.at_once || !at_once),
        false => is_held(tick) == begins,
    };
    match timeout(ANSWER_TIME, next_tick(ticks, is_confirmed)).await {
        Ok(_) => {
            print_to_stdout(&format!("the run {run} {done}\n"));
            Ok(exit::PASSED)
        }
        Err(_) => Err(CliError::usage(format!("the run {run} {failed}"), "try again while it measures")),
    }
}

fn is_held(tick: &Tick) -> bool {
    tick.hold_changes.len() % 2 == 1
}

/// What is known of a run, once its facts are.
struct WatchedRun {
    facts: RunFacts,
    roster: Roster,
    totals: LiveTotals,
    dashboard: Option<Dashboard>,
    /// What was shown last.
    printed: String,
    page: Option<WatchedPage>,
}

/// The live page of a run.
struct WatchedPage {
    feed: LiveFeed,
    /// The thresholds, apart from those on items, which nothing follows here.
    thresholds: ThresholdWatch,
    about: LoadRunMetadata,
    /// How often the page was updated, and the number of intervals then.
    sent: (u64, usize),
}

/// Shows the run until it ends.
async fn watch_run(
    arguments: &WatchArgs,
    server: &NatsServer,
    mut ticks: RunMessages,
    first: Tick,
) -> Result<u8, CliError> {
    let run = &arguments.run;
    let mut facts = server.subscribe(run, "facts").await.map_err(refuse)?;
    let mut statuses = server.subscribe(run, "share.*").await.map_err(refuse)?;
    let mut signals = SignalListener::listen()?;
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let page = match arguments.live {
        Some(address) => Some(start_live_page(address, "hubproof watch", "A running load run").await?),
        None => None,
    };
    let (switch, mut switched) = mpsc::unbounded_channel();
    let mut asked = 0;
    let began = Instant::now();
    let now = || began.elapsed().as_nanos() as Nanos;
    let mut watched: Option<WatchedRun> = None;
    let (mut tick, mut ticked) = (first, now());
    let ending = loop {
        tokio::select! {
            message = facts.next() => if let (Some(Message::Facts(facts)), None) = (message, &watched) {
                let feed = page.as_ref().map(|page| {
                    let switch = switch.clone();
                    page.follow_run(Some(Arc::new(move |begins| switch.send(HoldRequest { begins }).is_ok())))
                });
                watched = Some(WatchedRun::new(*facts, now(), feed)?);
            },
            Some(change) = switched.recv() => server.publish(run, Message::Hold(change)).await,
            () = stopped_on(page.as_ref()) => {
                asked += 1;
                let (at_once, reason) = (asked > 1, "the live page of hubproof watch".to_owned());
                server.publish(run, Message::Stop(StopRequest { at_once, by_threshold: false, reason })).await;
            }
            message = statuses.next() => if let (Some(Message::Status(status)), Some(watched)) = (message, &mut watched) {
                let outcome = watched.roster.take_status(now(), *status, tick.start.is_none());
                if let StatusOutcome::Known(added, request) = outcome {
                    added.iter().for_each(|added| watched.totals.add(added));
                    if let Some(request) = request {
                        server.publish(run, request).await;
                    }
                }
            },
            next = next_tick(&mut ticks, |_| true) => {
                (tick, ticked) = (next, now());
                if tick.over || tick.refused.is_some() {
                    break tick.refused.clone().map_or(Ok(exit::PASSED), |text| Err(CliError::new(text)));
                }
            }
            _ = seconds.tick() => {
                if now() >= ticked + MAX_LEADERLESS {
                    print_to_stderr(&format!("the run {run} has been silent for {} s", MAX_LEADERLESS / SECOND));
                    break Ok(exit::INCONCLUSIVE);
                }
                if let Some(watched) = &mut watched {
                    watched.show(&tick);
                }
            }
            () = signals.wait_for_signal() => break Ok(exit::PASSED),
        }
    };
    if let Some(dashboard) = watched.as_ref().and_then(|watched| watched.dashboard.as_ref()) {
        dashboard.clear();
    }
    if tick.over {
        print_to_stdout(&format!("the run {run} has ended{}\n", describe_lost(&tick)));
    }
    ending
}

impl WatchedPage {
    /// # Errors
    /// The run has a threshold that this version does not know.
    fn new(facts: &RunFacts, feed: LiveFeed) -> Result<Self, CliError> {
        let common = &facts.common;
        let mut thresholds = parse_thresholds(common, &mut Sources::default())?;
        thresholds.retain(|threshold| !matches!(threshold.metric, Metric::Ledger(_)));
        let about = LoadRunMetadata {
            tool_version: common.version.clone(),
            protocol: common.protocol.clone(),
            plan: common.plan.clone(),
            title: format!("The run {}", common.run),
            target: format!("{} shares", facts.shares),
            seed: common.seed,
            ..LoadRunMetadata::default()
        };
        Ok(Self { feed, thresholds: ThresholdWatch::new(thresholds, &common.layout(&[])), about, sent: (0, 0) })
    }

    /// Shows the state of the run, described by this text.
    fn show(&mut self, tick: &Tick, text: &str, state: RunMeasurements<'_>) {
        let (number, known) = self.sent;
        self.sent = (number + 1, state.intervals.len());
        if state.intervals.len() != known + 1 || known == 0 {
            self.feed.begin_anew();
        }
        let (about, thresholds) = (&mut self.about, &self.thresholds);
        about.started = tick.start.map_or(0, |start| (start / 1_000_000).unsigned_abs());
        about.holds = holds_of(tick);
        self.feed.send(|whole| {
            let shown = if whole { 0 } else { state.intervals.len().saturating_sub(1) };
            let intervals: Vec<MetricInterval> = state.intervals[shown..].iter().map(since_start).collect();
            about.duration = Duration::from_nanos(intervals.last().map_or(0, |last| last.to));
            let report = LoadReport {
                about: about.clone(),
                layout: state.layout.clone(),
                total: state.total.clone(),
                intervals,
                account: state.account.clone(),
                thresholds: thresholds.results_so_far(state),
                judgement: Default::default(),
                deviations: Vec::new(),
                ends: Default::default(),
                waits: Vec::new(),
            };
            let (held, can_hold) = (is_held(tick), tick.stop.is_none());
            let phase = text.to_owned();
            let state = LiveState { phase, held, can_hold, begin_s: Some(0.0), ..LiveState::default() };
            LiveSnapshot { report, state, number, is_next: !whole }
        });
    }
}

/// Returns an interval whose times are those since the start; what came before counts as its first second.
fn since_start(interval: &MetricInterval) -> MetricInterval {
    let length = interval.to - interval.from;
    let to = interval.to.saturating_sub(EARLIEST.unsigned_abs()).max(length);
    MetricInterval { from: to - length, to, ..interval.clone() }
}

/// Returns the times in which the run was held, since its start.
fn holds_of(tick: &Tick) -> Vec<Range<Nanos>> {
    let since = |at: &i64| Nanos::try_from(at.saturating_sub(tick.start.unwrap_or_default())).unwrap_or_default();
    let ended = |change: &[i64]| change.iter().map(since).collect::<Vec<_>>();
    tick.hold_changes.chunks_exact(2).map(ended).map(|times| times[0]..times[1]).collect()
}

impl WatchedRun {
    /// # Errors
    /// The run has a threshold that this version does not know.
    fn new(facts: RunFacts, now: Nanos, feed: Option<LiveFeed>) -> Result<Self, CliError> {
        let shown = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let dashboard = shown.then(|| Dashboard::new(Duration::from_secs(facts.seconds)));
        Ok(Self {
            roster: Roster::new(now),
            totals: LiveTotals::new(&facts.common),
            dashboard,
            page: feed.map(|feed| WatchedPage::new(&facts, feed)).transpose()?,
            facts,
            printed: String::new(),
        })
    }

    /// Shows the seconds that are complete.
    fn show(&mut self, tick: &Tick) {
        let shares = self.facts.shares;
        if tick.start.is_none() {
            return self.print(0, &format!("{} of {shares} shares are ready", tick.ready), &[]);
        }
        if !self.totals.complete() {
            return;
        }
        let state = self.totals.measurements(false);
        let Some(last) = state.intervals.last().map(since_start) else { return };
        let lost = tick.lost.len();
        let text = format!(
            "{} of {shares} shares{}; {}{}",
            shares as usize - lost.min(shares as usize),
            describe_lost(tick),
            last.phase.name(),
            if is_held(tick) { ", held" } else { "" }
        );
        if let Some(page) = &mut self.page {
            page.show(tick, &text, state);
        }
        let done = state.total.time / SECOND;
        let lines = match &self.dashboard {
            Some(_) => {
                let color = uses_color();
                let lines = live::dashboard(state, &last, None, |text| paint(color, RED, text));
                // Items are followed when the shares are merged.
                lines.into_iter().filter(|line| !line.starts_with("ledger")).collect()
            }
            None => vec![live::interval_line(state.layout, &last, state.account)],
        };
        self.print(done, &text, &lines);
    }

    fn print(&mut self, done: u64, text: &str, lines: &[String]) {
        match &mut self.dashboard {
            Some(dashboard) => dashboard.show(done, text, lines),
            None if self.printed == text && lines.is_empty() => {}
            None => print_to_stdout(&format!("{}\n", format!("{text}  {}", lines.concat().trim_start()).trim_end())),
        }
        self.printed = text.to_owned();
    }
}

/// Names the shares that are silent.
fn describe_lost(tick: &Tick) -> String {
    let named: Vec<String> = tick.lost.iter().take(10).map(|lost| lost.share.to_string()).collect();
    if named.is_empty() { String::new() } else { format!(" without {}", named.join(", ")) }
}
