//! Where saved and new findings are played: a hub, and whoever may interrupt.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::{mpsc, watch};

use crate::check::Options;
use crate::cli::CliError;
use crate::cli::hub::{self, Heard};
use crate::cli::progress::Progress;
use crate::cli::signals::Signals;
use crate::event::Event;
use crate::fuzz::campaign::Stage;
use crate::hub::prepare::Prepared;

pub struct Session<'a> {
    pub hub: &'a Arc<Prepared>,
    pub options: &'a Arc<Options>,
    pub signals: &'a mut Signals,
    /// Numbers for plays, so that none has that of another.
    pub numbers: Arc<AtomicU64>,
}

impl Session<'_> {
    /// Plays something there, and shows how often so far. How often somebody asked to stop, and what came of it, unless it
    /// was cut off.
    ///
    /// # Errors
    ///
    /// A mistake of ours.
    pub async fn work<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &mut self,
        what: String,
        work: impl FnOnce(Stage) -> F,
    ) -> Result<(usize, Option<T>), CliError> {
        let (events, inbox) = mpsc::channel(256);
        let (stop, interrupt) = watch::channel(false);
        let stage =
            Stage { hub: Arc::clone(self.hub), options: Arc::clone(self.options), against: None, events, interrupt };
        let doing = work(stage);
        let running = tokio::spawn(async move { Ok(doing.await) });
        let mut progress = Progress::new(None, "plays");
        progress.note(what);
        let hear = |heard| match heard {
            Heard::Event(Event::Started { .. }) => progress.count(),
            Heard::Event(event) => progress.see(&event),
            Heard::Stopping => progress.line("stopping: what is being played ends first; Ctrl-C again to stop at once"),
        };
        let followed = hub::follow(running, inbox, &stop, self.signals, hear).await;
        progress.finish();
        followed
    }
}
