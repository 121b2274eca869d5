//! Ctrl-C, and the signals that an init system or a CI runner sends instead.

use super::CliError;

/// A listener for signals. It is active from its creation, so that no signal between two waits is lost.
pub struct SignalListener {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    /// The end of the terminal; `None` if it is ignored, as under `nohup`.
    #[cfg(unix)]
    hangup: Option<tokio::signal::unix::Signal>,
}

impl SignalListener {
    #[cfg(unix)]
    pub fn listen() -> Result<Self, CliError> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).map_err(|error| CliError::failed("failed to wait for signals", error));
        let (interrupt, terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let hangup = if is_hangup_ignored() { None } else { Some(listen(SignalKind::hangup())?) };
        Ok(Self { interrupt, terminate, hangup })
    }

    #[cfg(not(unix))]
    pub fn listen() -> Result<Self, CliError> {
        Ok(Self {})
    }

    /// Waits for the next signal.
    pub async fn wait_for_signal(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = wait_for_hangup(&mut self.hangup) => {}
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            // No signals on this platform.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
async fn wait_for_hangup(hangup: &mut Option<tokio::signal::unix::Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether the process was started so that it survives its terminal: listening would undo that. Only Linux says so.
#[cfg(unix)]
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Signal 1 is the lowest bit.
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
