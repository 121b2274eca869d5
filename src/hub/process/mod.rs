//! Runs the command that starts a hub, in its own process group, which is ended as a whole; or calls the hook that
//! starts a hub elsewhere; or waits for a hub that the run cannot start.
//!
//! Restarts and the attribution of crashes are in [`crate::hub::supervisor`].

mod log;
mod ports;
mod process_group;

use std::fs::File;
use std::io::Write as _;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use log::ProcessLog;

use super::hook::{self, HookCall, HookSpec, TrustedCertificates};
use crate::config::ExecCommand;
use crate::report::text::format_time;
use crate::transport::Endpoint;
use log::LineSplitter;
use process_group::ProcessGroup;

/// The default time limit for a hub to accept connections.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(30);
/// How long a hub may take to end after SIGTERM before it is killed.
pub const TERMINATION_GRACE: Duration = Duration::from_secs(5);
/// How long to read output after the hub has ended: one of its children may keep the pipe open forever.
const OUTPUT_DRAIN: Duration = Duration::from_millis(200);
/// The most bytes written to a log file.
const MAX_LOGGED: usize = 64 << 20;

/// Masks a line of the hub's output before it is kept or shown.
pub type LineMask = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// Everything needed to start a hub, any number of times.
pub struct HubLaunch {
    pub by: LaunchMethod,
    /// The hub's addresses; it counts as started when all of them accept connections.
    pub endpoints: Vec<Endpoint>,
    /// How long the hub may take to accept connections.
    pub wait: Duration,
    pub mask: LineMask,
    /// Receives the hub's output, up to [`MAX_LOGGED`].
    pub log: Option<LogFile>,
}

/// The means to start a hub.
pub enum LaunchMethod {
    /// A command, which keeps running as long as the hub.
    Command(ExecCommand),
    /// The hook [`RESTART_HOOK`] of a hub that runs elsewhere.
    Hook { spec: HookSpec, settings: serde_json::Map<String, serde_json::Value>, trust: Option<TrustedCertificates> },
    /// Nothing that the run can do: the hub runs elsewhere, and may be started again there.
    None,
}

/// The name of the hook that starts a hub again.
pub const RESTART_HOOK: &str = "restart";

/// A failed start of a hub.
#[derive(Debug, thiserror::Error)]
pub enum HubStartError {
    #[error("`{program}` cannot be started: {source}")]
    Spawn { program: String, source: std::io::Error },
    #[error("something already listens on {0} and would be tested instead of the hub that `--exec` starts")]
    Taken(String),
    #[error("the hub ended before it listened on {address} ({status})")]
    Ended { address: String, status: String, log: Box<ProcessLog> },
    #[error("{0}")]
    Hook(String),
    #[error("the hub did not listen on {address} within {}", format_time(*after))]
    Silent { address: String, after: Duration, log: Box<ProcessLog> },
}

impl HubStartError {
    /// Returns what to do about it.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Taken(_) => Some("stop it, or use another port"),
            Self::Silent { .. } => {
                Some("check that the hub listens on this address, or give it more time with --exec-wait")
            }
            Self::Spawn { .. } | Self::Hook(_) => {
                Some("the command does not run in a shell; if you need one: --exec 'sh -c \"...\"'")
            }
            Self::Ended { .. } => None,
        }
    }

    /// Returns the hub's output before the failure, if it ran.
    pub fn log(&self) -> Option<&ProcessLog> {
        match self {
            Self::Ended { log, .. } | Self::Silent { log, .. } => Some(log),
            Self::Spawn { .. } | Self::Taken(_) | Self::Hook(_) => None,
        }
    }
}

/// A started hub; dropping it kills the process group.
pub struct LaunchedHub {
    group: ProcessGroup,
    /// How the process ended, once it has.
    exited: watch::Receiver<Option<String>>,
    /// Whether the hub's whole process group has ended and all output has been read.
    gone: TerminationReceiver,
    log: Arc<Mutex<ProcessLog>>,
}

/// A log file for the output of all starts of a hub.
#[derive(Clone)]
pub struct LogFile(Arc<Mutex<(File, usize)>>);

impl LogFile {
    pub fn new(file: File) -> Self {
        Self(Arc::new(Mutex::new((file, MAX_LOGGED))))
    }

    /// Writes a line. A failed write does not end the run: the report contains the log as well.
    fn write_line(&self, line: &str) {
        let mut guard = self.0.lock();
        let (file, left) = &mut *guard;
        if *left == 0 {
            return;
        }
        let _ = match left.checked_sub(line.len() + 1) {
            Some(rest) => {
                *left = rest;
                writeln!(file, "{line}")
            }
            None => {
                *left = 0;
                writeln!(file, "... this log ends here, at {} MiB; the hub wrote more", MAX_LOGGED >> 20)
            }
        };
    }
}

/// Becomes true when no process of a started hub is left.
pub type TerminationReceiver = watch::Receiver<bool>;

/// Starts the hub and waits until it accepts connections on all its addresses. Dropping the future kills the hub;
/// `spawned` receives a signal that becomes true once the hub is gone.
///
/// # Errors
///
/// [`HubStartError`]; in that case no process of the hub is left.
pub async fn start_hub(
    launch: &HubLaunch,
    spawned: impl FnOnce(TerminationReceiver),
) -> Result<LaunchedHub, HubStartError> {
    let exec = match &launch.by {
        LaunchMethod::Command(exec) => exec,
        LaunchMethod::Hook { spec, settings, trust } => {
            return call_start_hook(launch, spec, settings, trust.as_ref()).await;
        }
        LaunchMethod::None => return wait_until_listening(launch).await,
    };
    if let Some(address) = ports::first_taken(&launch.endpoints).await {
        return Err(HubStartError::Taken(address));
    }
    let running = spawn_command(exec, &launch.mask, launch.log.as_ref())?;
    spawned(running.gone.clone());
    let waited = tokio::select! {
        // Checked first: if the hub has ended but the port accepts connections, the port is another process's.
        biased;
        status = running.wait_for_end() => Err(Some(status)),
        open = tokio::time::timeout(launch.wait, ports::wait_until_open(&launch.endpoints)) => open.map_err(|_| None),
    };
    let Err(why) = waited else { return Ok(running) };
    let address = ports::first_closed(&launch.endpoints).await;
    let log = Box::new(running.terminate(TERMINATION_GRACE).await);
    Err(match why {
        Some(status) => HubStartError::Ended { address, status, log },
        None => HubStartError::Silent { address, after: launch.wait, log },
    })
}

/// Calls the hook and waits until the hub accepts connections.
async fn call_start_hook(
    launch: &HubLaunch,
    spec: &HookSpec,
    settings: &serde_json::Map<String, serde_json::Value>,
    trust: Option<&TrustedCertificates>,
) -> Result<LaunchedHub, HubStartError> {
    let args = serde_json::json!({});
    let call = HookCall { name: RESTART_HOOK, args: &args, message: None, settings, trust };
    let failed = |error: hook::HookError| HubStartError::Hook((launch.mask)(&error.to_string()));
    hook::run_hook(spec, &call, launch.wait).await.map_err(failed)?;
    wait_until_listening(launch).await
}

/// Waits until a hub that runs elsewhere accepts connections.
async fn wait_until_listening(launch: &HubLaunch) -> Result<LaunchedHub, HubStartError> {
    match tokio::time::timeout(launch.wait, ports::wait_until_open(&launch.endpoints)).await {
        Ok(()) => Ok(LaunchedHub::remote()),
        Err(_) => {
            let (address, log) = (ports::first_closed(&launch.endpoints).await, Box::default());
            Err(HubStartError::Silent { address, after: launch.wait, log })
        }
    }
}

/// Runs a command in a process group of its own, and keeps the end of its output.
///
/// # Errors
///
/// [`HubStartError::Spawn`].
pub(super) fn spawn_command(
    exec: &ExecCommand,
    mask: &LineMask,
    file: Option<&LogFile>,
) -> Result<LaunchedHub, HubStartError> {
    let mut command = Command::new(&exec.words[0]);
    command.args(&exec.words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C must reach only hubproof, which stops the hub when the scenarios have ended.
    #[cfg(unix)]
    command.process_group(0);
    command.kill_on_drop(true);
    let program = || exec.words[0].clone();
    let mut child = command.spawn().map_err(|source| HubStartError::Spawn { program: program(), source })?;
    let group = ProcessGroup::of_child(&child);
    let guard = group.spawn_guard();
    let log = Arc::new(Mutex::new(ProcessLog::default()));
    let mut readers = JoinSet::new();
    if let Some(pipe) = child.stdout.take() {
        readers.spawn(read_output(pipe, Arc::clone(&log), Arc::clone(mask), file.cloned()));
    }
    if let Some(pipe) = child.stderr.take() {
        readers.spawn(read_output(pipe, Arc::clone(&log), Arc::clone(mask), file.cloned()));
    }
    let (says, exited) = watch::channel(None);
    let (went, gone) = watch::channel(false);
    let left = group.clone();
    tokio::spawn(async move {
        let status = child.wait().await;
        let _ = says.send(Some(status.map_or_else(|error| error.to_string(), describe_exit)));
        // Children of the hub must not keep its port or answer on it.
        left.end_orphans().await;
        if let Some(guard) = guard {
            guard.dismiss().await;
        }
        let all = async { while readers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(OUTPUT_DRAIN, all).await;
        let _ = went.send(true);
    });
    Ok(LaunchedHub { group, exited, gone, log })
}

impl LaunchedHub {
    /// Returns a hub that runs elsewhere: the run sees neither its end nor its output.
    pub fn remote() -> Self {
        let ((_, exited), (_, gone)) = (watch::channel(None), watch::channel(true));
        Self { group: ProcessGroup::without_processes(), exited, gone, log: Arc::default() }
    }

    /// Returns how the hub ended, once it has.
    pub fn end_status(&self) -> Option<String> {
        self.exited.borrow().clone()
    }

    /// Waits until the hub has ended, and returns how.
    pub fn wait_for_end(&self) -> impl Future<Output = String> + Send + use<> {
        let mut exited = self.exited.clone();
        // The sender sets the status before it is dropped, unless the runtime ends first.
        async move { exited.wait_for(Option::is_some).await.ok().and_then(|status| status.clone()).unwrap_or_default() }
    }

    /// Waits until the hub's process group is gone, and returns its output.
    pub fn wait_for_log(&self) -> impl Future<Output = ProcessLog> + Send + use<> {
        let (mut gone, log) = (self.gone.clone(), Arc::clone(&self.log));
        async move {
            let _ = gone.wait_for(|gone| *gone).await;
            log_snapshot(&log)
        }
    }

    /// Sends SIGTERM, and SIGKILL after `grace`. Returns when no process of the hub is left.
    pub async fn terminate(self, grace: Duration) -> ProcessLog {
        if self.end_status().is_none() {
            self.group.terminate();
            if tokio::time::timeout(grace, self.wait_for_end()).await.is_err() {
                self.group.kill();
            }
        }
        self.wait_for_log().await
    }
}

impl Drop for LaunchedHub {
    fn drop(&mut self) {
        self.group.kill();
    }
}

fn log_snapshot(log: &Mutex<ProcessLog>) -> ProcessLog {
    log.lock().clone()
}

async fn read_output(
    mut pipe: impl AsyncRead + Unpin,
    log: Arc<Mutex<ProcessLog>>,
    mask: LineMask,
    file: Option<LogFile>,
) {
    let mut lines = LineSplitter::default();
    let mut buffer = vec![0; 8 << 10];
    loop {
        let read = pipe.read(&mut buffer).await.unwrap_or(0);
        let complete =
            if read == 0 { lines.take_rest().into_iter().collect() } else { lines.take_lines(&buffer[..read]) };
        for line in complete {
            let line = log::cut_line(mask(&line));
            if let Some(file) = &file {
                file.write_line(&line);
            }
            log.lock().push(line);
        }
        if read == 0 {
            return;
        }
    }
}

/// Formats a status as `exit status 3` or `killed by signal 11 (SIGSEGV)`.
fn describe_exit(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("killed by signal {signal}{}", process_group::signal_name(signal));
    }
    match status.code() {
        Some(code) => format!("exit status {code}"),
        None => status.to_string(),
    }
}

#[cfg(test)]
mod tests;
