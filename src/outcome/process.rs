//! The process of a hub that hubproof started.

use serde::{Deserialize, Serialize};

/// The name of the check under which a hang is reported.
pub const HANG_CHECK: &str = "hang";

/// The process of a hub that hubproof started with a command, over a whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessReport {
    /// The command as written, with secrets masked.
    pub command: String,
    /// The instances of the target that the hub serves.
    pub instances: Vec<String>,
    /// How often the hub was started: once, and again after each end of its process, after each destructive scenario,
    /// and whenever a fresh hub was needed.
    pub starts: usize,
    pub crashes: Vec<HubCrash>,
    /// Why the hub was not started again although scenarios still needed it.
    pub given_up: Option<String>,
    /// The last lines that the last process printed.
    pub log: LogExcerpt,
    /// Whether the hub runs elsewhere, so that its output is not known.
    pub elsewhere: bool,
}

/// An end of a hub's process that hubproof did not cause, or a hang after which the hub was started again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HubCrash {
    /// `exit status 3` or `killed by signal 11 (SIGSEGV)`; for a hang, how it was noticed.
    pub status: String,
    /// Whether the process still ran but no longer sent anything.
    pub hung: bool,
    /// The scenarios that were being played on the hub when it ended.
    pub during: Vec<String>,
    /// The scenario that was the last to end before the crash, if any had ended.
    pub after: Option<String>,
    /// The scenario that caused the crash: no other was played on this process, or at the same time.
    pub blamed: Option<String>,
    /// The last frame that was sent before: `ACTOR of SCENARIO: FRAME`.
    pub last_sent: Option<String>,
    pub log: LogExcerpt,
}

impl HubCrash {
    /// Returns what the hub did: `ended by itself` or `hung`.
    pub fn describe_end(&self) -> &'static str {
        if self.hung { "hung" } else { "ended by itself" }
    }
}

/// Lines of stdout and stderr of a hub's process, secrets masked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LogExcerpt {
    pub lines: Vec<String>,
    /// The number of earlier lines that are not shown.
    pub left_out: usize,
}

impl ProcessReport {
    /// Returns the crashes without a known cause: no scenario is blamed for them, and no scenario that was being played
    /// during them is blamed for a crash when played again alone.
    pub fn unexplained_crashes(&self) -> impl Iterator<Item = &HubCrash> {
        let blamed = |id: &String| self.crashes.iter().any(|crash| crash.blamed.as_ref() == Some(id));
        self.crashes.iter().filter(move |crash| crash.blamed.is_none() && !crash.during.iter().any(blamed))
    }
}
