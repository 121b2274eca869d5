//! The hub on which saved and new findings are played, and the signals that interrupt this.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::{mpsc, watch};

use crate::check::Options;
use crate::cli::CliError;
use crate::cli::hub::{self, RunEvent};
use crate::cli::progress::Progress;
use crate::cli::signals::Signals;
use crate::event::Event;
use crate::fuzz::campaign::Stage;
use crate::hub::prepare::Prepared;

pub struct Session<'a> {
    pub hub: &'a Arc<Prepared>,
    pub options: &'a Arc<Options>,
    pub signals: &'a mut Signals,
    /// The counter that numbers the plays.
    pub numbers: Arc<AtomicU64>,
}

impl Session<'_> {
    /// Runs `work` on the hub and shows the number of plays so far. Returns how often the user interrupted, and the
    /// result unless the work was aborted.
    ///
    /// # Errors
    ///
    /// A defect of hubproof.
    pub async fn work<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &mut self,
        what: String,
        work: impl FnOnce(Stage) -> F,
    ) -> Result<(usize, Option<T>), CliError> {
        let (events, inbox) = mpsc::channel(256);
        let (stop, interrupt) = watch::channel(false);
        let stage = Stage {
            hub: Arc::clone(self.hub),
            options: Arc::clone(self.options),
            against: None,
            pulses: None,
            events,
            interrupt,
        };
        let doing = work(stage);
        let running = tokio::spawn(async move { Ok(doing.await) });
        let mut progress = Progress::new(None, "plays");
        progress.note(what);
        let hear = |heard| match heard {
            RunEvent::Event(Event::Started { .. }) => progress.count(),
            RunEvent::Event(event) => progress.see(&event),
            RunEvent::Stopping => progress.line("stopping: waiting for the current play; Ctrl-C again to stop at once"),
        };
        let followed = hub::follow(running, inbox, &stop, self.signals, hear).await;
        progress.finish();
        followed
    }
}
