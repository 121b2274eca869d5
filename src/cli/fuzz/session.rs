//! The hub on which saved and new findings are played, and the signals that interrupt this.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::{mpsc, watch};

use crate::check::PlayOptions;
use crate::check::comparison::SecondHub;
use crate::cli::CliError;
use crate::cli::hub::{self, RunInput, TimeLimit};
use crate::cli::progress::RunProgress;
use crate::cli::signals::SignalListener;
use crate::fuzz::campaign::PlayEnvironment;
use crate::hub::prepare::PreparedHub;
use crate::report::events::ScenarioEvent;

pub struct PlaySession<'a> {
    pub hub: &'a Arc<PreparedHub>,
    pub options: &'a Arc<PlayOptions>,
    pub signals: &'a mut SignalListener,
    /// The counter that numbers the plays.
    pub numbers: Arc<AtomicU64>,
    /// When the time of the protocol is over.
    pub limit: Option<TimeLimit>,
    /// Whether no progress is shown.
    pub quiet: bool,
}

impl PlaySession<'_> {
    /// Runs `work` on the hub and shows the number of plays so far. Returns how often the user interrupted, and the
    /// result unless the work was aborted or the time was over before.
    ///
    /// # Errors
    ///
    /// A defect of hubproof.
    pub async fn run_work<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &mut self,
        what: String,
        work: impl FnOnce(PlayEnvironment) -> F,
    ) -> Result<(usize, Option<T>), CliError> {
        if self.limit.is_some_and(TimeLimit::is_over) {
            return Ok((0, None));
        }
        let mut progress = RunProgress::new(None, "plays", self.quiet);
        progress.set_note(what);
        let hear = |heard| match heard {
            RunInput::Event(ScenarioEvent::Started { .. }) => progress.count_finished(),
            RunInput::Event(event) => progress.handle_event(&event),
            RunInput::Stopping => {
                progress.print_line("stopping: waiting for the current play; Ctrl-C again to stop at once")
            }
        };
        let followed = self.follow(None, work, hear).await;
        progress.finish();
        followed
    }

    /// Runs `work` on the hub, which is compared with `against`. `handle` gets its events, and the requests to stop it.
    ///
    /// # Errors
    ///
    /// A defect of hubproof.
    pub async fn follow<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &mut self,
        against: Option<SecondHub>,
        work: impl FnOnce(PlayEnvironment) -> F,
        handle: impl FnMut(RunInput),
    ) -> Result<(usize, Option<T>), CliError> {
        let (events, inbox) = mpsc::channel(256);
        let (stop, interrupt) = watch::channel(false);
        let (hub, options) = (Arc::clone(self.hub), Arc::clone(self.options));
        let doing = work(PlayEnvironment { hub, options, against, service_probes: None, events, interrupt });
        let running = tokio::spawn(async move { Ok(doing.await) });
        hub::follow_run(running, inbox, &stop, self.signals, self.limit, handle).await
    }
}
