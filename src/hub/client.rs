//! The client under test, to which hubproof plays the hub: a command that is started for each scenario, or a client that
//! runs elsewhere and connects by itself.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::process::{HubStartError, LaunchedHub, LineMask, LogFile, ProcessLog, spawn_command};
use super::supervisor::PROCESS_CHECK;
use crate::config::ExecCommand;
use crate::outcome::{CheckReport, FindingDetail, ScenarioReport, Verdict};
use crate::report::text::format_time;
use crate::scenario::{Need, Program};

/// How long a client may take to end after SIGTERM before it is killed.
const TERMINATION_GRACE: Duration = Duration::from_secs(1);
/// The signals of a process that did something that the system forbids.
const CRASH_SIGNALS: [&str; 5] = ["SIGSEGV", "SIGABRT", "SIGILL", "SIGBUS", "SIGFPE"];

/// The client under test.
pub struct TestedClient {
    /// The command that starts it; `None` if it runs elsewhere.
    pub command: Option<ExecCommand>,
    /// Where hubproof listens; port 0 picks a free one for each scenario.
    pub listen: SocketAddr,
    /// What the client does, among the words that scenarios need; `None` if the command passes them on.
    pub does: Option<BTreeSet<String>>,
    /// How long the client may take to connect once it has been started.
    pub wait: Duration,
    /// Masks a line of its output.
    pub mask: LineMask,
    /// Receives its output.
    pub log: Option<LogFile>,
    /// Whether it has connected in some scenario.
    pub has_come: AtomicBool,
    /// Whether it was awaited for the whole time in vain.
    pub was_missed: AtomicBool,
}

/// The placeholders in a command: the address at which hubproof listens, the words that the scenario needs, and its id.
pub const PLACEHOLDERS: [&str; 3] = ["${url}", "${needs}", "${scenario}"];

impl TestedClient {
    /// Whether the client does what this word of a scenario's `needs` stands for.
    pub fn does(&self, word: &str) -> bool {
        match (&self.does, &self.command) {
            (Some(words), _) => words.contains(word),
            (None, Some(command)) => command.words.iter().any(|part| part.contains("${needs}")),
            (None, None) => false,
        }
    }

    /// Starts the client for a scenario. Returns `None` if it runs elsewhere.
    ///
    /// # Errors
    ///
    /// The program cannot be started.
    pub fn start(&self, program: &Program, url: &str) -> Result<Option<LaunchedHub>, HubStartError> {
        let Some(command) = &self.command else { return Ok(None) };
        let needs: Vec<&str> = program
            .needs
            .iter()
            .filter_map(|need| match need {
                Need::Word(word) => Some(word.as_str()),
                _ => None,
            })
            .collect();
        let values = [url.to_owned(), needs.join(","), program.id.clone()];
        let fill = |word: &String| {
            let filled = PLACEHOLDERS.iter().zip(&values);
            filled.fold(word.clone(), |word, (name, value)| word.replace(name, value))
        };
        let command = ExecCommand { text: command.text.clone(), words: command.words.iter().map(fill).collect() };
        spawn_command(&command, &self.mask, self.log.as_ref()).map(Some)
    }

    /// Returns how long to wait for the client to connect: not again in full if it never came.
    pub fn patience(&self) -> Duration {
        let hopeless = self.was_missed.load(Ordering::Relaxed) && !self.has_come.load(Ordering::Relaxed);
        if hopeless { self.wait.min(Duration::from_secs(1)) } else { self.wait }
    }

    /// Returns why a scenario could not be played: the client did not connect.
    pub fn explain_absence(&self, url: &str, waited: Duration, end: Option<&str>, log: Option<&ProcessLog>) -> String {
        let what = if self.command.is_some() { "the client" } else { "no client" };
        let verb = if self.command.is_some() { "did not connect" } else { "connected" };
        let within = match end {
            Some(status) => format!(": it ended ({status})"),
            None => format!(" within {}", format_time(waited)),
        };
        format!("{what} {verb} to {url}{within}{}", last_line(log))
    }
}

/// Ends a client, and adds to the report of its scenario how it ended by itself, if it did.
pub async fn end_client(client: LaunchedHub, report: &mut ScenarioReport) {
    let end = client.end_status();
    let log = client.terminate(TERMINATION_GRACE).await;
    let Some(status) = end else { return };
    let crashed = CRASH_SIGNALS.iter().any(|signal| status.contains(signal));
    if crashed {
        let mut check = CheckReport::new(PROCESS_CHECK, Verdict::Fail);
        check.step = "the client's process keeps running".to_owned();
        check.message = format!("the client crashed: {status}");
        check.detail = Some(FindingDetail {
            expected: "a client that keeps running, whatever it is sent".to_owned(),
            received: format!("{status}{}", last_line(Some(&log))),
            ..FindingDetail::default()
        });
        report.checks.push(check);
    }
    if let Some(cause) = &mut report.cause {
        cause.message += &format!("; the client has ended ({status}){}", last_line(Some(&log)));
    }
}

fn last_line(log: Option<&ProcessLog>) -> String {
    let line = log.and_then(|log| log.last_lines(1).lines.pop());
    line.map_or(String::new(), |line| format!("; the last line of its output: {line}"))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::syntax::source::{Sources, Span};

    #[tokio::test]
    async fn a_client_that_crashes_fails_its_scenario() {
        let command = ExecCommand::parse("sh -c 'echo reading a frame; kill -SEGV $$'").unwrap();
        let mask: LineMask = std::sync::Arc::new(str::to_owned);
        let client = spawn_command(&command, &mask, None).unwrap();
        client.wait_for_end().await;
        let file = Sources::default().add("s.yaml", "");
        let mut report = ScenarioReport::new("p", "p/s", "", Span::new(file, 0..0));
        end_client(client, &mut report).await;
        let [check] = report.checks.as_slice() else { panic!("{:?}", report.checks) };
        assert_eq!((check.name.as_str(), check.verdict), (PROCESS_CHECK, Verdict::Fail));
        let received = &check.detail.as_ref().unwrap().received;
        assert!(received.contains("SIGSEGV") && received.contains("reading a frame"), "{received}");
    }
}
