//! Progress of a run: a bar on a terminal, occasional lines elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::outcome::{CheckReport, FrameReport, HistoryDirection, ScenarioReport, Verdict};
use crate::report::events::ScenarioEvent;
use crate::report::text::{escape_unprintable, format_count, shorten};
use crate::scenario::variation;
use crate::syntax::printable::defuse_output;

/// Minimum time between two lines of progress if there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(3);

/// How many scenarios have their failure printed during the run; the report at its end has all.
const MAX_PRINTED_FAILURES: usize = 5;
/// The most characters of such a line.
const MAX_FAILURE_CHARS: usize = 240;

pub struct RunProgress {
    bar: ProgressBar,
    terminal: bool,
    /// Whether nothing is shown.
    quiet: bool,
    last_line: Instant,
    done: usize,
    /// The number of items; `None` if it is not known.
    total: Option<usize>,
    /// The name of the counted items.
    unit: &'static str,
    /// A text to show instead of the running scenarios.
    note: Option<String>,
    failed: usize,
    /// The number of scenarios whose failure was printed.
    printed: usize,
    /// The number of scenarios that were played with a variation.
    varied: usize,
    running: BTreeMap<String, Option<String>>,
    started: Instant,
}

impl RunProgress {
    pub fn new(total: Option<usize>, unit: &'static str, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal() && !quiet;
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total.map(|total| total as u64), target);
        let template = match total {
            Some(_) => format!("{{bar:28}} {{pos}}/{{len}} {unit}  {{elapsed}}  {{wide_msg}}"),
            None => format!("{{pos}} {unit}  {{elapsed}}  {{wide_msg}}"),
        };
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        if terminal {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        if let (false, false, Some(total)) = (terminal, quiet, total) {
            // A bar shows the number at once.
            eprintln!("playing {}", format_count(total, unit.trim_end_matches('s')));
        }
        let now = Instant::now();
        let (note, running) = (None, BTreeMap::new());
        Self {
            bar,
            terminal,
            quiet,
            last_line: now,
            done: 0,
            total,
            unit,
            note,
            failed: 0,
            printed: 0,
            varied: 0,
            running,
            started: now,
        }
    }

    pub fn handle_event(&mut self, event: &ScenarioEvent) {
        match event {
            ScenarioEvent::Started { .. } if self.note.is_some() => {}
            ScenarioEvent::Started { id } => {
                self.running.insert(id.clone(), None);
            }
            ScenarioEvent::Waiting { id, because, time } => {
                self.running.insert(id.clone(), Some(format!("{because} ({:.1} s)", time.as_secs_f64())));
            }
            ScenarioEvent::Frame { id, frame } => self.print_line(&frame_line(id, frame)),
            ScenarioEvent::Varied { .. } => self.varied += 1,
            ScenarioEvent::Finished(report) => {
                self.done += usize::from(variation::split_id(&report.id).1.is_none());
                self.failed += usize::from(matches!(report.verdict, Verdict::Fail | Verdict::Inconclusive));
                self.running.remove(&report.id);
                self.bar.set_position(self.done as u64);
                self.print_first_failure(report);
            }
        }
        self.draw();
    }

    /// Prints the first failure of a scenario as soon as it stands, in one line, for the first scenarios that fail.
    fn print_first_failure(&mut self, report: &ScenarioReport) {
        let failed = |check: &&CheckReport| check.verdict == Verdict::Fail && check.deviation.is_none();
        let Some(check) = report.checks.iter().find(failed).filter(|_| self.printed < MAX_PRINTED_FAILURES) else {
            return;
        };
        self.printed += 1;
        let rules: Vec<&str> = check.rules_of_verdict().map(|used| used.id.as_str()).collect();
        let rules = if rules.is_empty() { check.name.clone() } else { rules.join(",") };
        let after = self.started.elapsed().as_secs_f64();
        let line = format!("{after:.1} s: fail[{rules}] {}: {}", report.id, check.message_or_step());
        self.print_line(&shorten(&escape_unprintable(&line), MAX_FAILURE_CHARS));
    }

    /// Counts a finished item.
    pub fn count_finished(&mut self) {
        self.done += 1;
        self.bar.set_position(self.done as u64);
    }

    /// Shows this text instead of the running scenarios.
    pub fn set_note(&mut self, text: String) {
        self.note = Some(text);
        self.draw();
    }

    fn draw(&mut self) {
        if self.quiet {
            return;
        }
        let waiting = self.running.iter().find_map(|(id, why)| why.as_ref().map(|why| format!("{id}: {why}")));
        let doing = self.note.clone().or(waiting);
        let varied = (self.varied > 0).then(|| format!("{} more with variations", self.varied));
        let doing = doing.or_else(|| self.running.keys().next().cloned()).or(varied).unwrap_or_default();
        let failed = if self.failed > 0 && self.note.is_none() {
            format!("{} not passed  ", self.failed)
        } else {
            String::new()
        };
        if self.terminal {
            self.bar.set_message(defuse_output(&format!("{failed}{doing}")).into_owned());
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            let total = self.total.map(|total| format!("/{total}")).unwrap_or_default();
            eprintln!(
                "{}{total} {} after {:.0} s  {failed}{doing}",
                self.done,
                self.unit,
                self.started.elapsed().as_secs_f64()
            );
        }
    }

    /// Prints a line above the bar.
    pub fn print_line(&self, text: &str) {
        match (self.quiet, self.terminal) {
            (true, _) => {}
            (false, true) => self.bar.println(defuse_output(text)),
            (false, false) => eprintln!("{text}"),
        }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn frame_line(id: &str, frame: &FrameReport) -> String {
    let arrow = match frame.direction {
        HistoryDirection::Sent => "->",
        HistoryDirection::Received => "<-",
        HistoryDirection::Neither => "--",
    };
    format!(
        "{:9.3} {id} {} {arrow} {} {}",
        frame.at.as_secs_f64(),
        frame.actor,
        frame.kind.name(),
        frame.text.replace(['\n', '\r'], " ")
    )
}
