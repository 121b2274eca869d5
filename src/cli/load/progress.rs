//! Shows the progress of a load run and watches its thresholds. On a terminal, it shows a bar and a line per second,
//! elsewhere plain lines.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::report_sink::EventLog;
use crate::load::SECOND;
use crate::load::engine::{RunSnapshot, WatchDecision};
use crate::load::metrics::RunPhase;
use crate::load::metrics::selector::RunMeasurements;
use crate::load::plan::Plan;
use crate::load::plan::threshold::{MetricThreshold, ThresholdOutcome, ThresholdWatch};
use crate::load::report::{events, live, prometheus};
use crate::redact::SecretMasker;

/// Handles every second of a run.
pub struct LoadProgress {
    watch: ThresholdWatch,
    /// The threshold that ended the run.
    aborted: Option<String>,
    bar: ProgressBar,
    lines: bool,
    terminal: bool,
    phase: Option<RunPhase>,
    /// The length of the measured time, as the maximum of the bar.
    duration: Duration,
    page: Option<Arc<Mutex<String>>>,
    changing_load: bool,
    masker: Arc<SecretMasker>,
    log: EventLog,
}

impl LoadProgress {
    /// Creates a watcher. `lines` tells whether to show every second, and `page` is the page of `--metrics` to keep up
    /// to date; `log` receives a line per second.
    pub fn new(
        plan: &Plan,
        thresholds: Vec<MetricThreshold>,
        lines: bool,
        page: Option<Arc<Mutex<String>>>,
        masker: Arc<SecretMasker>,
        log: EventLog,
    ) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(plan.phases.duration.as_secs().max(1)), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:28} {pos}/{len} s  {wide_msg}") {
            bar.set_style(style);
        }
        let duration = plan.phases.duration;
        Self {
            watch: ThresholdWatch::new(thresholds),
            aborted: None,
            bar,
            lines,
            terminal,
            phase: None,
            duration,
            page,
            changing_load: plan.changes_load(),
            masker,
            log,
        }
    }

    /// Handles the next second. Returns whether the run continues.
    pub fn handle_second(&mut self, seen: &RunSnapshot<'_>) -> WatchDecision {
        let state = RunMeasurements {
            layout: &seen.series.layout,
            total: seen.series.total(),
            account: seen.account,
            intervals: seen.series.intervals(),
            changing_load: self.changing_load,
        };
        if let Some(page) = &self.page {
            // The page is replaced as a whole, so it is valid after a panic.
            let text = prometheus::render(state, &seen.details.ends);
            *page.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = self.masker.mask(&text).into_owned();
        }
        self.log.write(|| self.masker.mask(&events::interval(state.layout, seen.interval)).into_owned());
        self.draw(seen);
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

    fn draw(&mut self, seen: &RunSnapshot<'_>) {
        let phase = seen.interval.phase;
        if self.phase != Some(phase) {
            self.phase = Some(phase);
            self.print_line(live::phase_heading(phase));
        }
        if let Some(measured) = seen.measured {
            let done = seen.interval.to.saturating_sub(measured) / SECOND;
            self.bar.set_position(done.min(self.duration.as_secs()));
        }
        if seen.joined < seen.clients {
            self.bar.set_message(format!("{} of {} have joined", seen.joined, seen.clients));
        } else {
            self.bar.set_message("");
        }
        if self.lines {
            self.print_line(&live::interval_line(&seen.series.layout, seen.interval, seen.account));
        }
    }

    fn print_line(&self, text: &str) {
        if self.terminal { self.bar.println(text) } else { eprintln!("{text}") }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Returns the final results of the thresholds.
    pub fn outcomes(self, state: RunMeasurements<'_>, interrupted: bool) -> Vec<ThresholdOutcome> {
        self.watch.finish(state, self.aborted.as_deref(), interrupted)
    }
}
