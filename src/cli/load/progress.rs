//! Shows the progress of a load run and watches its thresholds. On a terminal, it shows a dashboard of a few lines,
//! elsewhere plain lines.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use crate::cli::report_sink::EventLog;
use crate::load::SECOND;
use crate::load::engine::{RunSnapshot, WatchDecision};
use crate::load::metrics::selector::RunMeasurements;
use crate::load::metrics::{CounterId, JourneyCount, MessageCount, MetricRegistry, RunPhase};
use crate::load::pages::{LiveFeed, LiveSnapshot};
use crate::load::plan::Plan;
use crate::load::plan::schedule::rate_at;
use crate::load::plan::threshold::{MetricThreshold, ThresholdOutcome, ThresholdWatch};
use crate::load::report::{LoadReport, LoadRunMetadata, events, live, prometheus};
use crate::load::shares::over::MeasurementReporter;
use crate::load::shares::record::{PackedInterval, ShareProgress};
use crate::redact::SecretMasker;
use crate::report::html::live::LiveState;
use crate::report::terminal_page::{RED, paint};
use crate::report::text::format_time;
use crate::syntax::printable::defuse_output;

/// Where the progress of a run is shown, once a second.
#[derive(Default)]
pub struct ProgressSinks {
    /// Whether to print a line every second if stderr is not a terminal.
    pub lines: bool,
    /// Whether to show only errors.
    pub quiet: bool,
    /// The page of `--metrics`.
    pub metrics: Option<Arc<Mutex<String>>>,
    /// The page of `--live`.
    pub live: Option<LiveFeed>,
    pub log: EventLog,
    /// Takes what a share of a run measures, and by how much its times are moved. Then all shares are judged together.
    pub together: Option<(MeasurementReporter, i64)>,
}

/// Handles every second of a run.
pub struct LoadProgress {
    watch: ThresholdWatch,
    /// The threshold that ended the run.
    aborted: Option<String>,
    dashboard: Option<Dashboard>,
    phase: Option<RunPhase>,
    /// How long the plan measures.
    duration: Duration,
    /// What is known of the run before it begins.
    about: LoadRunMetadata,
    masker: Arc<SecretMasker>,
    sinks: ProgressSinks,
    /// The number of intervals so far, and the length of the series, which merges intervals.
    intervals: (u64, usize),
}

impl LoadProgress {
    /// Creates a watcher.
    pub fn new(
        plan: &Plan,
        (thresholds, layout): (Vec<MetricThreshold>, &MetricRegistry),
        about: LoadRunMetadata,
        masker: Arc<SecretMasker>,
        sinks: ProgressSinks,
    ) -> Self {
        let duration = plan.phases.duration;
        let shown = std::io::stderr().is_terminal() && !sinks.quiet;
        Self {
            watch: ThresholdWatch::new(thresholds, layout),
            aborted: None,
            dashboard: shown.then(|| Dashboard::new(duration)),
            phase: None,
            duration,
            about,
            masker,
            sinks,
            intervals: (0, 0),
        }
    }

    /// Handles the next second. Returns whether the run continues.
    pub fn handle_second(&mut self, seen: &RunSnapshot<'_>) -> WatchDecision {
        let state = RunMeasurements {
            layout: &seen.series.layout,
            total: seen.series.total(),
            account: seen.account,
            intervals: seen.series.intervals(),
            validated: None,
            changing_load: self.about.changing_load,
        };
        if let Some(page) = &self.sinks.metrics {
            // The page is replaced as a whole, so it is valid after a panic.
            let text = prometheus::render(state, &seen.details.ends);
            *page.lock() = self.masker.mask(&text).into_owned();
        }
        self.sinks.log.write(|| self.masker.mask(&events::interval(state.layout, seen.interval)).into_owned());
        self.show_live(seen, state);
        self.draw(seen, state);
        if let Some((report, shift)) = &mut self.sinks.together {
            let mut packed = PackedInterval::pack(seen.interval);
            packed.shift(*shift);
            report(packed, done_so_far(state, self.intervals.0));
            return WatchDecision::Continue;
        }
        if seen.interval.phase != RunPhase::Measured || self.aborted.is_some() {
            return WatchDecision::Continue;
        }
        let Some(threshold) = self.watch.broken_threshold(seen.interval.to, state) else {
            return WatchDecision::Continue;
        };
        let text = threshold.text.clone();
        self.print_line(&format!("threshold broken for too long: {text}; draining"));
        self.aborted = Some(text);
        WatchDecision::Drain
    }

    /// Sends the state to the live page.
    fn show_live(&mut self, seen: &RunSnapshot<'_>, state: RunMeasurements<'_>) {
        let (number, known) = self.intervals;
        self.intervals = (number + 1, state.intervals.len());
        let Some(live) = &self.sinks.live else { return };
        // The first interval, or all of them after some were merged.
        if state.intervals.len() != known + 1 || known == 0 {
            live.begin_anew();
        }
        live.send(|whole| {
            let intervals = if whole { state.intervals } else { std::slice::from_ref(seen.interval) };
            let mut about = self.about.clone();
            about.duration = Duration::from_nanos(seen.interval.to);
            about.warm_up = match (seen.begin, seen.measured) {
                (Some(begin), Some(measured)) => Duration::from_nanos(measured.saturating_sub(begin)),
                _ => Duration::ZERO,
            };
            let ends = |hold: &std::ops::Range<u64>| hold.start..hold.end.min(seen.interval.to.max(hold.start));
            about.holds = seen.holds.iter().map(ends).collect();
            let mut ends = seen.details.ends.clone();
            ends.map_details(|detail| self.masker.mask(detail).into_owned());
            let report = LoadReport {
                about,
                layout: state.layout.clone(),
                total: state.total.clone(),
                intervals: intervals.to_vec(),
                account: state.account.clone(),
                thresholds: self.watch.results_so_far(state),
                judgement: Default::default(),
                deviations: Vec::new(),
                ends,
                waits: Vec::new(),
            };
            LiveSnapshot { report, state: self.describe(seen), number, is_next: !whole }
        });
    }

    /// Describes where the run is.
    fn describe(&self, seen: &RunSnapshot<'_>) -> LiveState {
        let (phase, next) = self.phase_and_next(seen);
        LiveState {
            phase,
            next,
            held: seen.is_held(),
            can_hold: seen.begin.is_some() && seen.interval.phase != RunPhase::Drain,
            begin_s: seen.begin.map(|begin| begin as f64 / 1e9),
        }
    }

    /// Returns where the run is, `measured, 12 s of 60 s`, and what comes next.
    fn phase_and_next(&self, seen: &RunSnapshot<'_>) -> (String, String) {
        let to = seen.interval.to;
        let seconds = |nanos: u64| format!("{} s", nanos.div_ceil(SECOND));
        let next = match (seen.drain, seen.measured) {
            _ if seen.is_held() || seen.interval.phase == RunPhase::Drain => String::new(),
            (_, Some(measured)) if measured > to => format!("{} until the measured time", seconds(measured - to)),
            (Some(drain), _) if drain > to => format!("{} until the drain", seconds(drain - to)),
            _ => String::new(),
        };
        let phase = match seen.interval.phase {
            _ if seen.joined < seen.clients && seen.begin.is_none() => {
                format!("{} of {} clients have joined", seen.joined, seen.clients)
            }
            RunPhase::Warmup => "warm-up".to_owned(),
            RunPhase::Measured => {
                let done = Duration::from_nanos(seen.series.total().time);
                format!("measured, {} s of {} s", done.as_secs(), self.duration.as_secs())
            }
            RunPhase::Held => {
                let since = seen.holds.last().map_or(to, |hold| hold.start);
                format!("held for {}", format_time(Duration::from_nanos(to.saturating_sub(since))))
            }
            RunPhase::Drain => "drain: running journeys finish".to_owned(),
        };
        (phase, next)
    }

    fn draw(&mut self, seen: &RunSnapshot<'_>, state: RunMeasurements<'_>) {
        let phase = seen.interval.phase;
        if self.phase != Some(phase) {
            self.phase = Some(phase);
            self.print_line(live::phase_heading(phase));
        }
        if self.dashboard.is_some() {
            let scheduled = seen.plan_time().filter(|_| phase < RunPhase::Drain && !self.about.schedules.is_empty());
            let scheduled =
                scheduled.map(|at| self.about.schedules.iter().map(|(_, segments)| rate_at(segments, at)).sum());
            let color = super::super::uses_color();
            let lines = live::dashboard(state, seen.interval, scheduled, |text| paint(color, RED, text));
            let (phase, next) = self.phase_and_next(seen);
            let text = if next.is_empty() { phase } else { format!("{phase}; {next}") };
            if let Some(dashboard) = &mut self.dashboard {
                dashboard.show(state.total.time / SECOND, &text, &lines);
            }
        } else if self.sinks.lines {
            self.print_line(&live::interval_line(&seen.series.layout, seen.interval, seen.account));
        }
    }

    fn print_line(&self, text: &str) {
        match &self.dashboard {
            _ if self.sinks.quiet => {}
            Some(dashboard) => dashboard.print_line(text),
            None => eprintln!("{text}"),
        }
    }

    pub fn finish(&self) {
        if let Some(dashboard) = &self.dashboard {
            dashboard.clear();
        }
    }

    /// Returns the final results of the thresholds.
    pub fn outcomes(self, state: RunMeasurements<'_>, interrupted: bool) -> Vec<ThresholdOutcome> {
        self.watch.finish(state, self.aborted.as_deref(), interrupted)
    }
}

/// Returns what a share has done in this number of seconds.
fn done_so_far(state: RunMeasurements<'_>, seconds: u64) -> ShareProgress {
    let names = &state.layout.names;
    let count = |count| state.total.count(state.layout, count);
    ShareProgress {
        seconds,
        journeys: (0..names.journeys.len()).map(|at| count(CounterId::Journey(at, JourneyCount::Started))).sum(),
        sent: (0..names.messages.len()).map(|at| count(CounterId::Message(at, MessageCount::Sent))).sum(),
    }
}

/// The lines at the bottom of a terminal: a bar, and text below it.
pub struct Dashboard {
    all: MultiProgress,
    bar: ProgressBar,
    lines: Vec<ProgressBar>,
}

impl Dashboard {
    pub fn new(duration: Duration) -> Self {
        let all = MultiProgress::new();
        let bar = all.add(ProgressBar::new(duration.as_secs().max(1)));
        if let Ok(style) = ProgressStyle::with_template("{bar:28} {wide_msg}") {
            bar.set_style(style);
        }
        Self { all, bar, lines: Vec::new() }
    }

    pub fn show(&mut self, done: u64, phase: &str, lines: &[String]) {
        self.bar.set_position(done);
        self.bar.set_message(phase.to_owned());
        while self.lines.len() < lines.len() {
            let line = self.all.add(ProgressBar::no_length());
            if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                line.set_style(style);
            }
            self.lines.push(line);
        }
        // The number of busy messages may fall.
        let texts = lines.iter().map(String::as_str).chain(std::iter::repeat(""));
        self.lines.iter().zip(texts).for_each(|(line, text)| line.set_message(text.to_owned()));
    }

    fn print_line(&self, text: &str) {
        // Printing fails only if the terminal is gone.
        let _ = self.all.println(defuse_output(text));
    }

    pub fn clear(&self) {
        self.bar.finish_and_clear();
        self.lines.iter().for_each(ProgressBar::finish_and_clear);
        let _ = self.all.clear();
    }
}
