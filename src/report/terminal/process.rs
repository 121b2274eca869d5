//! The hub's process on the page: its starts, crashes and output.

use super::super::text::{count, cut, printable};
use super::super::{ProtocolReport, RunReport};
use super::{DIM, Page, list};
use crate::event::{Crash, Excerpt, ProcessReport};

/// How many of the last lines of a log are shown.
const LAST_LINES: usize = 10;

/// Formats `the hub ended by itself twice`, for crashes that no check reports.
pub(super) fn verdict(protocol: &ProtocolReport) -> Option<String> {
    let unexplained: Vec<&Crash> = protocol.processes.iter().flat_map(ProcessReport::unexplained).collect();
    (!unexplained.is_empty()).then(|| format!("the hub {}", often(unexplained)))
}

/// Formats `ended by itself twice, hung once`.
fn often<'a>(crashes: impl IntoIterator<Item = &'a Crash>) -> String {
    let mut counts = std::collections::BTreeMap::new();
    crashes.into_iter().for_each(|crash| *counts.entry(crash.verb()).or_insert(0) += 1);
    counts.into_iter().map(|(verb, n)| format!("{verb} {}", times(n))).collect::<Vec<_>>().join(", ")
}

/// Formats `started 3 times by ./hub --port 4000, ended by itself once`.
pub(super) fn starts(process: &ProcessReport) -> String {
    let crashes = match process.crashes.len() {
        0 => String::new(),
        _ => format!(", {}", often(&process.crashes)),
    };
    format!("started {} by `{}`{crashes}", times(process.starts), printable(&process.command))
}

fn times(n: usize) -> String {
    match n {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        n => format!("{n} times"),
    }
}

impl Page<'_, RunReport> {
    pub(super) fn crashes(&mut self, protocol: &ProtocolReport) {
        for process in &protocol.processes {
            let unexplained: Vec<&Crash> = process.unexplained().collect();
            for crash in process.crashes.iter().take(self.most()) {
                // A crash that a scenario reproduced alone is shown with that scenario's crash.
                let open = unexplained.iter().any(|one| std::ptr::eq(*one, crash));
                if crash.blamed.is_some() || open {
                    self.crash(crash, process.elsewhere);
                }
            }
            self.more(process.crashes.len(), "crash");
            if let Some(why) = &process.given_up {
                self.gap();
                self.wrapped("", &format!("The hub was not started again: {}.", printable(why)));
            }
        }
    }

    fn crash(&mut self, crash: &Crash, elsewhere: bool) {
        self.gap();
        let when = match (&crash.blamed, crash.during.as_slice()) {
            (Some(id), _) => format!("while {id} was running alone"),
            (None, []) => match &crash.after {
                Some(id) => format!("after {id} had ended, while no scenario was running"),
                None => "before any scenario had started".to_owned(),
            },
            (None, [only]) => format!("while {only} was running, but not when it was played again"),
            (None, several) => format!(
                "while {} were running: {}; when each was played again alone, none crashed it",
                count(several.len(), "scenario"),
                list(several, self.names())
            ),
        };
        self.wrapped("", &format!("The hub {} ({}) {when}.", crash.verb(), printable(&crash.status)));
        if !elsewhere {
            self.excerpt(&crash.log);
        }
    }

    /// Shows the end of the hub's output if the run failed and no crash has shown it.
    pub(super) fn log(&mut self, protocol: &ProtocolReport) {
        if protocol.exit_code(&self.report.options) == 0 {
            return;
        }
        for process in protocol.processes.iter().filter(|process| process.crashes.is_empty()) {
            if !process.log.lines.is_empty() {
                self.gap();
                self.excerpt(&process.log);
            }
        }
    }

    fn excerpt(&mut self, log: &Excerpt) {
        let most = if self.style.verbose { usize::MAX } else { LAST_LINES };
        let skipped = log.lines.len().saturating_sub(most);
        let before = log.left_out + skipped;
        let head = match (log.lines.len() - skipped, before) {
            (0, _) => "It wrote nothing to stdout or stderr.".to_owned(),
            (shown, 0) => format!("All output of the hub ({}):", count(shown, "line")),
            (shown, before) => format!("The hub's output, last {shown} of {}:", count(shown + before, "line")),
        };
        self.line(&format!("  {head}"));
        for line in &log.lines[skipped..] {
            let line = cut(&format!("  | {}", printable(line)), self.style.width.max(40)).into_owned();
            self.line(&self.paint(DIM, &line));
        }
    }
}
