//! Shows the progress of a load run and watches its thresholds. On a terminal, it shows a bar and a line per second,
//! elsewhere plain lines.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::load::SECOND;
use crate::load::engine::{Live, Order};
use crate::load::metrics::Phase;
use crate::load::metrics::selector::State;
use crate::load::plan::Plan;
use crate::load::plan::threshold::{Outcome, Threshold, Watch};
use crate::load::report::{live, prometheus};

/// Handles every second of a run.
pub struct Watcher {
    watch: Watch,
    /// The threshold that ended the run.
    aborted: Option<String>,
    bar: ProgressBar,
    lines: bool,
    terminal: bool,
    phase: Option<Phase>,
    /// The length of the measured time, as the maximum of the bar.
    duration: Duration,
    page: Option<Arc<Mutex<String>>>,
}

impl Watcher {
    /// Creates a watcher. `lines` tells whether to show every second, and `page` is the page of `--metrics` to keep up
    /// to date.
    pub fn new(plan: &Plan, thresholds: Vec<Threshold>, lines: bool, page: Option<Arc<Mutex<String>>>) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(plan.phases.duration.as_secs().max(1)), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:28} {pos}/{len} s  {wide_msg}") {
            bar.set_style(style);
        }
        let duration = plan.phases.duration;
        Self { watch: Watch::new(thresholds), aborted: None, bar, lines, terminal, phase: None, duration, page }
    }

    /// Handles the next second. Returns whether the run continues.
    pub fn see(&mut self, seen: &Live<'_>) -> Order {
        let state = State {
            layout: &seen.series.layout,
            total: seen.series.total(),
            account: seen.account,
            intervals: seen.series.intervals(),
        };
        if let Some(page) = &self.page {
            // The page is replaced as a whole, so it is valid after a panic.
            *page.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = prometheus::render(state);
        }
        self.show(seen);
        if seen.interval.phase != Phase::Measured || self.aborted.is_some() {
            return Order::GoOn;
        }
        let Some(threshold) = self.watch.look(seen.interval.to, state) else { return Order::GoOn };
        let text = threshold.text.clone();
        self.line(&format!("threshold broken for too long: {text}; draining"));
        self.aborted = Some(text);
        Order::Drain
    }

    fn show(&mut self, seen: &Live<'_>) {
        let phase = seen.interval.phase;
        if self.phase != Some(phase) {
            self.phase = Some(phase);
            self.line(live::phase(phase));
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
            self.line(&live::line(&seen.series.layout, seen.interval, seen.account));
        }
    }

    fn line(&self, text: &str) {
        if self.terminal { self.bar.println(text) } else { eprintln!("{text}") }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Returns the final results of the thresholds.
    pub fn outcomes(self, state: State<'_>) -> Vec<Outcome> {
        self.watch.finish(state, self.aborted.as_deref())
    }
}
