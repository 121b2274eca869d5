//! Tells tasks to end.

use tokio::sync::watch;

/// Tells tasks that the hubs shut down, which they do when `Running` goes.
#[derive(Clone)]
pub(crate) struct Shutdown(pub(super) watch::Receiver<()>);

impl Shutdown {
    /// Waits for it.
    pub async fn wait(&mut self) {
        // Nothing is ever sent; the sender's end is the message.
        while self.0.changed().await.is_ok() {}
    }
}
