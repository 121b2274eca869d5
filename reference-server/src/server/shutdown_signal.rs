//! The signal to all tasks that the server shuts down.

use tokio::sync::watch;

/// A receiver of the signal, which is sent when `Running` is dropped.
#[derive(Clone)]
pub(crate) struct Shutdown(pub(super) watch::Receiver<()>);

impl Shutdown {
    /// Waits for the signal.
    pub async fn wait(&mut self) {
        // Nothing is ever sent; the channel ends with its sender.
        while self.0.changed().await.is_ok() {}
    }
}
