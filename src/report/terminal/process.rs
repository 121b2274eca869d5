//! The hub's process on the page: its starts, crashes and output.

use super::super::text::{escape_unprintable, format_count, shorten};
use super::super::{ProtocolReport, RunReport};
use super::{DIM, Page, list};
use crate::outcome::{HubCrash, LogExcerpt, ProcessReport};

/// Most characters of the last frame before a crash.
const MAX_SENT_CHARS: usize = 200;
/// How many of the last lines of a log are shown.
const SHOWN_LOG_LINES: usize = 10;

/// Formats `the hub ended by itself twice`, for crashes that no check reports.
pub(super) fn describe_unreported_crashes(protocol: &ProtocolReport) -> Option<String> {
    let unexplained: Vec<&HubCrash> = protocol.processes.iter().flat_map(ProcessReport::unexplained_crashes).collect();
    (!unexplained.is_empty()).then(|| format!("the hub {}", describe_crashes(unexplained)))
}

/// Formats `ended by itself twice, hung once`.
fn describe_crashes<'a>(crashes: impl IntoIterator<Item = &'a HubCrash>) -> String {
    let mut counts = std::collections::BTreeMap::new();
    crashes.into_iter().for_each(|crash| *counts.entry(crash.describe_end()).or_insert(0) += 1);
    counts.into_iter().map(|(verb, n)| format!("{verb} {}", describe_times(n))).collect::<Vec<_>>().join(", ")
}

/// Formats `started 3 times by ./hub --port 4000, ended by itself once`. Says how many crashes have no finding.
pub(super) fn describe_starts(process: &ProcessReport) -> String {
    let crashes = match (process.crashes.len(), process.unexplained_crashes().count()) {
        (0, _) => String::new(),
        (_, 0) => format!(", {}", describe_crashes(&process.crashes)),
        (all, open) if all == open => format!(", {} (no finding: not reproduced)", describe_crashes(&process.crashes)),
        (_, open) => {
            format!(", {} (no finding for {open} of them: not reproduced)", describe_crashes(&process.crashes))
        }
    };
    if process.command.is_empty() {
        return format!("not started by hubproof{crashes}");
    }
    format!("started {} by `{}`{crashes}", describe_times(process.starts), escape_unprintable(&process.command))
}

fn describe_times(n: usize) -> String {
    match n {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        n => format!("{n} times"),
    }
}

impl Page<'_, RunReport> {
    pub(super) fn write_crashes(&mut self, protocol: &ProtocolReport) {
        for process in &protocol.processes {
            let unexplained: Vec<&HubCrash> = process.unexplained_crashes().collect();
            for crash in process.crashes.iter().take(self.most()) {
                // A crash that a scenario reproduced alone is shown with that scenario's crash.
                let open = unexplained.iter().any(|one| std::ptr::eq(*one, crash));
                if crash.blamed.is_some() || open {
                    self.write_crash(crash, process);
                }
            }
            self.more(process.crashes.len(), "crash report");
            if let Some(why) = &process.given_up {
                self.gap();
                let what = if process.command.is_empty() { "is gone" } else { "was not started again" };
                self.wrapped("", &format!("The hub {what}: {}.", escape_unprintable(why)));
            }
        }
    }

    fn write_crash(&mut self, crash: &HubCrash, process: &ProcessReport) {
        self.gap();
        // After the last crash of a hub that was given up, nothing was played again.
        let is_last = process.crashes.last().is_some_and(|last| std::ptr::eq(last, crash));
        let again = process.given_up.is_none() || !is_last;
        let when = match (&crash.blamed, crash.during.as_slice()) {
            (Some(id), _) => format!("while {id} was running alone"),
            (None, []) => match &crash.after {
                Some(id) => format!("after {id} had ended, while no scenario was running"),
                None => "before any scenario had started".to_owned(),
            },
            (None, [only]) if again => format!("while {only} was running, but not when it was played again"),
            (None, [only]) => format!("while {only} was running"),
            (None, several) => format!(
                "while {} were running: {}{}",
                format_count(several.len(), "scenario"),
                list(several, self.names()),
                match (again, crash.hung) {
                    (true, true) => "; when each was played again, none made it hang",
                    (true, false) => "; when each was played again alone, none crashed it",
                    (false, _) => "",
                }
            ),
        };
        self.wrapped("", &format!("The hub {} ({}) {when}.", crash.describe_end(), escape_unprintable(&crash.status)));
        if let Some(sent) = &crash.last_sent {
            self.field("last sent", &shorten(&escape_unprintable(sent), MAX_SENT_CHARS));
        }
        if !process.elsewhere {
            self.write_excerpt(&crash.log);
        }
    }

    /// Shows the end of the hub's output if the run failed and no crash has shown it.
    pub(super) fn write_log(&mut self, protocol: &ProtocolReport) {
        if protocol.exit_code(&self.report.options) == 0 {
            return;
        }
        for process in protocol.processes.iter().filter(|process| process.crashes.is_empty()) {
            if !process.log.lines.is_empty() {
                self.gap();
                self.write_excerpt(&process.log);
            }
        }
    }

    fn write_excerpt(&mut self, log: &LogExcerpt) {
        let skipped = log.lines.len().saturating_sub(self.limit(SHOWN_LOG_LINES));
        let before = log.left_out + skipped;
        let head = match (log.lines.len() - skipped, before) {
            (0, _) => "It wrote nothing to stdout or stderr.".to_owned(),
            (shown, 0) => format!("All output of the hub ({}):", format_count(shown, "line")),
            (shown, before) => format!("The hub's output, last {shown} of {}:", format_count(shown + before, "line")),
        };
        self.line(&format!("  {head}"));
        for line in &log.lines[skipped..] {
            let line = shorten(&format!("  | {}", escape_unprintable(line)), self.style.width.max(40)).into_owned();
            self.line(&self.paint(DIM, &line));
        }
    }
}
