//! Ctrl-C, and the signals that an init system or a CI runner sends instead.

use super::CliError;

/// A listener for signals. It is active from its creation, so that no signal between two waits is lost.
pub struct SignalListener {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hangup: Option<tokio::signal::unix::Signal>,
}

impl SignalListener {
    #[cfg(unix)]
    pub fn listen() -> Result<Self, CliError> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).map_err(|error| CliError::new(format!("failed to wait for signals: {error}")));
        let (interrupt, terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, hangup: None })
    }

    /// Also listens for the end of the terminal, for runs with child processes that must not outlive it.
    #[cfg(unix)]
    pub fn with_hangup(mut self) -> Result<Self, CliError> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = signal(SignalKind::hangup());
        self.hangup = Some(listen.map_err(|error| CliError::new(format!("failed to wait for signals: {error}")))?);
        Ok(self)
    }

    #[cfg(not(unix))]
    pub fn with_hangup(self) -> Result<Self, CliError> {
        Ok(self)
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
