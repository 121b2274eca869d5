//! The hub's own command: started in a process group of its own, watched, and ended with all that it started.
//!
//! What came of it is data for the report; who is to blame when it ends by itself is decided in [`crate::hub::supervisor`].

mod log;
mod ports;
mod process_group;

use std::fs::File;
use std::io::Write as _;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use log::Log;
pub use ports::open as listening;

use crate::config::Exec;
use crate::report::text::time;
use crate::transport::Endpoint;
use log::Lines;
use process_group::Group;

/// How long a hub may take to accept connections, unless the user says otherwise.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(30);
/// How long a hub may take to end when it is asked to, before it is killed.
pub const GRACE: Duration = Duration::from_secs(5);
/// How long output is awaited after the hub has ended: what it started may hold the pipe open for ever.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Most bytes that are written to a log file. A hub that says more than this in one run is caught in a loop.
const MOST_LOGGED: usize = 64 << 20;

/// What is done to every line of the hub's output before anybody sees it.
pub type Mask = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// Everything that is needed to start a hub, again and again.
pub struct Launch {
    pub exec: Exec,
    /// All of them accept connections before the hub counts as started.
    pub endpoints: Vec<Endpoint>,
    /// How long that may take.
    pub wait: Duration,
    pub mask: Mask,
    /// Gets all that the hub says, up to [`MOST_LOGGED`].
    pub log: Option<LogFile>,
}

/// Why a hub does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("`{program}` cannot be started: {source}")]
    Spawn { program: String, source: std::io::Error },
    #[error("something listens on {0} already: it would be judged in place of the hub that `--exec` starts")]
    Taken(String),
    #[error("the hub ended before it listened on {address} ({status})")]
    Ended { address: String, status: String, log: Box<Log> },
    #[error("the hub did not listen on {address} within {}", time(*after))]
    Silent { address: String, after: Duration, log: Box<Log> },
}

impl StartError {
    /// What the hub said until then.
    pub fn log(&self) -> Option<&Log> {
        match self {
            Self::Ended { log, .. } | Self::Silent { log, .. } => Some(log),
            Self::Spawn { .. } | Self::Taken(_) => None,
        }
    }
}

/// A hub that has been started; it ends with the value at the latest.
pub struct Running {
    group: Group,
    /// How the process that was started ended.
    exited: watch::Receiver<Option<String>>,
    /// Whether all that it started has gone too, and all that it said has been read.
    gone: Gone,
    log: Arc<Mutex<Log>>,
}

/// A file that all starts of a hub write to, in their order.
#[derive(Clone)]
pub struct LogFile(Arc<Mutex<(File, usize)>>);

impl LogFile {
    pub fn new(file: File) -> Self {
        Self(Arc::new(Mutex::new((file, MOST_LOGGED))))
    }

    /// What cannot be written is no reason to end a run: the report has the log too.
    fn line(&self, line: &str) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
                writeln!(file, "... this log ends here, at {} MiB; the hub said more", MOST_LOGGED >> 20)
            }
        };
    }
}

/// Turns true when nothing of a started hub is left.
pub type Gone = watch::Receiver<bool>;

/// Starts the hub and waits until it accepts connections on all its addresses. Who drops this while it waits has killed
/// the hub; `spawned` is told how to know when it is gone.
///
/// # Errors
///
/// [`StartError`]; then nothing of it runs any more.
pub async fn start(launch: &Launch, spawned: impl FnOnce(Gone)) -> Result<Running, StartError> {
    if let Some(address) = ports::taken(&launch.endpoints).await {
        return Err(StartError::Taken(address));
    }
    let running = spawn(launch)?;
    spawned(running.gone.clone());
    let waited = tokio::select! {
        // An end is told as such even where the port answers: then it is not the hub's.
        biased;
        status = running.ended() => Err(Some(status)),
        open = tokio::time::timeout(launch.wait, ports::open(&launch.endpoints)) => open.map_err(|_| None),
    };
    let Err(why) = waited else { return Ok(running) };
    let address = ports::closed(&launch.endpoints).await;
    let log = Box::new(running.end(GRACE).await);
    Err(match why {
        Some(status) => StartError::Ended { address, status, log },
        None => StartError::Silent { address, after: launch.wait, log },
    })
}

fn spawn(launch: &Launch) -> Result<Running, StartError> {
    let mut command = Command::new(&launch.exec.words[0]);
    command.args(&launch.exec.words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C on the terminal is for us: we end the hub once the scenarios have ended.
    #[cfg(unix)]
    command.process_group(0);
    command.kill_on_drop(true);
    let program = || launch.exec.words[0].clone();
    let mut child = command.spawn().map_err(|source| StartError::Spawn { program: program(), source })?;
    let group = Group::of(&child);
    let log = Arc::new(Mutex::new(Log::default()));
    let mut readers = JoinSet::new();
    if let Some(pipe) = child.stdout.take() {
        readers.spawn(read(pipe, Arc::clone(&log), Arc::clone(&launch.mask), launch.log.clone()));
    }
    if let Some(pipe) = child.stderr.take() {
        readers.spawn(read(pipe, Arc::clone(&log), Arc::clone(&launch.mask), launch.log.clone()));
    }
    let (says, exited) = watch::channel(None);
    let (went, gone) = watch::channel(false);
    let left = group.clone();
    tokio::spawn(async move {
        let status = child.wait().await;
        let _ = says.send(Some(status.map_or_else(|error| error.to_string(), describe)));
        // What it started must not hold its port, or speak for it.
        left.orphaned().await;
        let all = async { while readers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_WORDS, all).await;
        let _ = went.send(true);
    });
    Ok(Running { group, exited, gone, log })
}

impl Running {
    /// How it ended, once it has.
    pub fn exited(&self) -> Option<String> {
        self.exited.borrow().clone()
    }

    /// Waits until it has ended, and says how.
    pub fn ended(&self) -> impl Future<Output = String> + Send + use<> {
        let mut exited = self.exited.clone();
        // The sender says so before it goes, unless the runtime ends first: then there is nothing to wait for.
        async move { exited.wait_for(Option::is_some).await.ok().and_then(|status| status.clone()).unwrap_or_default() }
    }

    /// Waits until nothing of it is left, and gives all that it said.
    pub fn last_words(&self) -> impl Future<Output = Log> + Send + use<> {
        let (mut gone, log) = (self.gone.clone(), Arc::clone(&self.log));
        async move {
            let _ = gone.wait_for(|gone| *gone).await;
            snapshot(&log)
        }
    }

    /// What it has said until now.
    pub fn log(&self) -> Log {
        snapshot(&self.log)
    }

    /// Asks it to end, and kills it when it has not after `grace`. Nothing of it runs any more afterwards.
    pub async fn end(self, grace: Duration) -> Log {
        if self.exited().is_none() {
            self.group.ask();
            if tokio::time::timeout(grace, self.ended()).await.is_err() {
                self.group.kill();
            }
        }
        self.last_words().await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.group.kill();
    }
}

fn snapshot(log: &Mutex<Log>) -> Log {
    log.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

async fn read(mut pipe: impl AsyncRead + Unpin, log: Arc<Mutex<Log>>, mask: Mask, file: Option<LogFile>) {
    let mut lines = Lines::default();
    let mut buffer = vec![0; 8 << 10];
    loop {
        let read = pipe.read(&mut buffer).await.unwrap_or(0);
        let complete = if read == 0 { lines.rest().into_iter().collect() } else { lines.take(&buffer[..read]) };
        for line in complete {
            let line = log::cut(mask(&line));
            if let Some(file) = &file {
                file.line(&line);
            }
            log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
        if read == 0 {
            return;
        }
    }
}

/// `exit status 3`, `killed by signal 11 (SIGSEGV)`.
fn describe(status: ExitStatus) -> String {
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
