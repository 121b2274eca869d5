//! `--over`: shares agree on their start over a NATS server, report while they run, and leave their files there.

use std::path::{Path, PathBuf};

use clap::Args;

use super::super::{CliError, print_to_stderr};
use crate::cli::signals::SignalListener;
use crate::load::nats::{NatsError, NatsServer, Participation};
use crate::load::shares::name::RunName;
use crate::load::shares::over::member::AgreedStart;
use crate::load::shares::over::{MeasurementReporter, MemberEvent, ParticipationSettings};
use crate::load::shares::record::LostShare;
use crate::report::text::{format_count, format_time};
use crate::syntax::share::Share;

/// The NATS server that a command uses.
#[derive(Args)]
pub struct NatsCredentials {
    /// File with the credentials of a NATS user, as `nsc` writes it
    #[arg(long, value_name = "FILE")]
    nats_creds: Option<PathBuf>,
}

impl NatsCredentials {
    /// Connects to a server.
    ///
    /// # Errors
    /// There is none, or it refuses the credentials.
    pub async fn connect(&self, address: &str) -> Result<NatsServer, CliError> {
        NatsServer::connect(address, self.nats_creds.as_deref()).await.map_err(refuse)
    }
}

/// Turns the error of a server into one of the command.
pub fn refuse(error: NatsError) -> CliError {
    let help = error.help();
    CliError::usage(error, help)
}

/// The options of shares that agree on their start.
#[derive(Args)]
pub struct OverArgs {
    /// NATS server over which the shares agree on their start and report: nats://HOST:4222
    #[arg(long, value_name = "URL", requires = "share", conflicts_with = "start_at")]
    over: Option<String>,
    /// Begin once this number of shares are ready, ten seconds later without the others (default: all)
    #[arg(long, value_name = "N", requires = "over", value_parser = clap::value_parser!(u32).range(1..))]
    quorum: Option<u32>,
    #[command(flatten)]
    credentials: NatsCredentials,
}

/// A share that has agreed with the others on the start of its run.
pub struct Joined {
    server: NatsServer,
    run: RunName,
    share: Share,
    participation: Participation,
    start: AgreedStart,
}

impl OverArgs {
    pub fn is_given(&self) -> bool {
        self.over.is_some()
    }

    /// Connects to the server, announces the share, and waits until all shares have agreed on a start. Returns `None` if
    /// the user interrupts that.
    ///
    /// # Errors
    /// No server answers, or the shares belong to different runs.
    pub async fn join(
        &self,
        mut settings: ParticipationSettings,
        signals: &mut SignalListener,
        is_quiet: bool,
    ) -> Result<Option<Joined>, CliError> {
        let share = settings.member.share;
        let server = self.credentials.connect(self.over.as_deref().unwrap_or_default()).await?;
        server.check_unstored(&settings.run, share).await.map_err(refuse)?;
        settings.member.quorum = self.quorum.unwrap_or(share.of()).min(share.of());
        let run = settings.run.clone();
        let mut participation = Participation::begin(server.clone(), settings).await.map_err(refuse)?;
        let mut known = None;
        let start = loop {
            let event = tokio::select! {
                event = participation.next_event() => event,
                () = signals.wait_for_signal() => return Ok(None),
            };
            match event {
                MemberEvent::Ready(ready) if known != Some(ready) && !is_quiet => {
                    known = Some(ready);
                    eprintln!("{ready} of {} shares of {run} are ready", share.of());
                }
                MemberEvent::Begin(start) => break start,
                MemberEvent::Refuse(text) => {
                    let help = "all shares of a run need the same plan, options, name (--run), seed and version of hubproof, and each another number";
                    return Err(CliError::usage(text, help));
                }
                MemberEvent::Warn(text) => print_to_stderr(&format!("warning: {text}")),
                MemberEvent::Ready(_) | MemberEvent::Stop(_) | MemberEvent::Hold(_) => {}
            }
        };
        if !is_quiet {
            let without = match start.absent {
                0 => String::new(),
                absent => format!(" without {}", format_count(absent, "share")),
            };
            let clock = match start.error {
                0 => "by this clock".to_owned(),
                error => format!("by a clock known within {}", format_time(std::time::Duration::from_nanos(error))),
            };
            eprintln!("the run {run} begins{without}, {clock}");
        }
        Ok(Some(Joined { server, run, share, participation, start }))
    }
}

impl Joined {
    pub fn start(&self) -> &AgreedStart {
        &self.start
    }

    pub fn reporter(&self) -> MeasurementReporter {
        self.participation.reporter()
    }

    pub async fn next_event(&mut self) -> MemberEvent {
        self.participation.next_event().await
    }

    /// Waits until the load of all others has ended. Returns the shares that are lost, and the server.
    pub async fn end(self) -> (Vec<LostShare>, FileStore) {
        let Self { server, run, share, participation, .. } = self;
        (participation.end().await, FileStore { server, run, share })
    }
}

/// Where a share leaves its file.
pub struct FileStore {
    server: NatsServer,
    run: RunName,
    share: Share,
}

impl FileStore {
    /// Copies the file of the share to the server, if that keeps files, and says what to do next.
    pub async fn store(&self, path: &Path, is_quiet: bool) {
        match self.server.store(&self.run, self.share, path).await {
            Ok(()) if is_quiet => {}
            Ok(()) => {
                let server = self.server.address();
                eprintln!("it is stored there, too; once all are there: hubproof merge {server} {}", self.run);
            }
            Err(error) => print_to_stderr(&format!("warning: the file stays here: {error}\n  help: {}", error.help())),
        }
    }
}
