//! The hub on which saved and new findings are played, and the signals that interrupt this.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::{mpsc, watch};

use crate::check::PlayOptions;
use crate::cli::CliError;
use crate::cli::hub::{self, RunEvent};
use crate::cli::progress::RunProgress;
use crate::cli::signals::SignalListener;
use crate::event::ScenarioEvent;
use crate::fuzz::campaign::PlayEnvironment;
use crate::hub::prepare::PreparedHub;

pub struct PlaySession<'a> {
    pub hub: &'a Arc<PreparedHub>,
    pub options: &'a Arc<PlayOptions>,
    pub signals: &'a mut SignalListener,
    /// The counter that numbers the plays.
    pub numbers: Arc<AtomicU64>,
}

impl PlaySession<'_> {
    /// Runs `work` on the hub and shows the number of plays so far. Returns how often the user interrupted, and the
    /// result unless the work was aborted.
    ///
    /// # Errors
    ///
    /// A defect of hubproof.
    pub async fn run_work<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &mut self,
        what: String,
        work: impl FnOnce(PlayEnvironment) -> F,
    ) -> Result<(usize, Option<T>), CliError> {
        let (events, inbox) = mpsc::channel(256);
        let (stop, interrupt) = watch::channel(false);
        let stage = PlayEnvironment {
            hub: Arc::clone(self.hub),
            options: Arc::clone(self.options),
            against: None,
            pulses: None,
            events,
            interrupt,
        };
        let doing = work(stage);
        let running = tokio::spawn(async move { Ok(doing.await) });
        let mut progress = RunProgress::new(None, "plays");
        progress.set_note(what);
        let hear = |heard| match heard {
            RunEvent::Event(ScenarioEvent::Started { .. }) => progress.count_finished(),
            RunEvent::Event(event) => progress.handle_event(&event),
            RunEvent::Stopping => {
                progress.print_line("stopping: waiting for the current play; Ctrl-C again to stop at once")
            }
        };
        let followed = hub::follow_run(running, inbox, &stop, self.signals, hear).await;
        progress.finish();
        followed
    }
}
