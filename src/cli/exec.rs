//! `--exec`: the hub that is started for a check, from its command to its end.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::signals::Signals;
use super::{CliError, exit};
use crate::config::{self, Exec, Target};
use crate::hub::prepare::{Subject, masker};
use crate::hub::process::{DEFAULT_WAIT, GRACE, Launch, LogFile, StartError};
use crate::hub::supervisor::HubProcess;
use crate::report::text::printable;

/// Lines of its log that are shown when a hub does not come up.
const SHOWN: usize = 20;

#[derive(Args)]
pub struct ExecArgs {
    /// Start the hub with this command, wait until it listens, end it after the run; without a shell: 'sh -c "..."' for one
    #[arg(long = "exec", value_name = "CMD", conflicts_with = "fault")]
    command: Option<String>,
    /// How long the hub may take until it listens
    #[arg(long = "exec-wait", value_name = "TIME", default_value = "30s", value_parser = config::parse_duration)]
    wait: Duration,
    /// Write what the hub says on stdout and stderr to this file
    #[arg(long = "exec-log", value_name = "FILE")]
    log: Option<PathBuf>,
}

/// Why the run ends before it has begun.
pub enum Ending {
    Trouble(CliError),
    /// What is to be said on stderr; the exit code is 3.
    Inconclusive(String),
}

impl ExecArgs {
    /// Goes over whatever commands the target names.
    ///
    /// # Errors
    ///
    /// The command has no words, or there is no address at which the hub will listen.
    pub fn over(&self, target: Option<&mut Target>) -> Result<(), CliError> {
        let Some(text) = &self.command else { return Ok(()) };
        let Some(target) = target else {
            return Err(CliError::new(
                "where will the hub listen that `--exec` starts?\n  help: hubproof check ws://127.0.0.1:4000 --exec ...",
            ));
        };
        let exec = Exec::parse(text).map_err(|error| CliError::new(format!("--exec: {error}")))?;
        target.exec = Some(exec);
        target.instances.iter_mut().for_each(|instance| instance.exec = None);
        Ok(())
    }

    /// The words that ask for the same again.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(command) = &self.command {
            words.extend(["--exec".to_owned(), command.clone()]);
        }
        if self.wait != DEFAULT_WAIT {
            words.extend(["--exec-wait".to_owned(), config::format_duration(self.wait)]);
        }
        words
    }

    /// The processes that the target of a subject needs, not yet started; the subject knows them then.
    ///
    /// # Errors
    ///
    /// The log file cannot be written, or an address cannot be read.
    pub fn prepare(&self, subject: &mut Subject) -> Result<Vec<Arc<HubProcess>>, CliError> {
        let launches = subject.target.launches();
        if launches.is_empty() {
            return Ok(Vec::new());
        }
        let masker = Arc::new(masker(subject));
        let log = match &self.log {
            None => None,
            Some(path) => {
                let trouble =
                    |error| CliError::new(format!("the hub's log cannot be written to {}: {error}", path.display()));
                Some(LogFile::new(File::create(path).map_err(trouble)?))
            }
        };
        for (exec, places) in launches {
            let instances = || places.iter().map(|place| &subject.target.instances[*place]);
            let endpoints = instances()
                .map(|instance| {
                    instance.url.parse().map_err(|error| CliError::new(format!("{}: {error}", instance.url)))
                })
                .collect::<Result<Vec<_>, CliError>>()?;
            let names = instances().map(|instance| instance.name.clone()).collect();
            let command = masker.mask(&exec.text).into_owned();
            let mask = Arc::clone(&masker);
            let mask = Arc::new(move |line: &str| mask.mask(line).into_owned());
            let launch = Launch { exec, endpoints, wait: self.wait, mask, log: log.clone() };
            subject.processes.push((HubProcess::new(launch, command, names), places));
        }
        Ok(subject.processes.iter().map(|(process, _)| Arc::clone(process)).collect())
    }
}

/// Starts all of them; those that came up before one that does not are ended.
///
/// # Errors
///
/// [`Ending`]; then none of them runs.
pub async fn start(processes: &[Arc<HubProcess>], signals: &mut Signals) -> Result<(), Ending> {
    for process in processes {
        let why = tokio::select! {
            started = process.start() => match started {
                Ok(()) => continue,
                Err(error) => ending(&error),
            },
            () = signals.next() => Ending::Inconclusive("interrupted before the hub listened; nothing was checked".to_owned()),
        };
        end(processes, GRACE, signals).await;
        return Err(why);
    }
    Ok(())
}

/// Ends all of them, at once when one more signal asks for it.
pub async fn end(processes: &[Arc<HubProcess>], grace: Duration, signals: &mut Signals) {
    for process in processes {
        tokio::select! {
            () = process.end(grace) => {}
            () = signals.next() => process.end(Duration::ZERO).await,
        }
    }
}

impl Ending {
    /// Says so on stderr; the exit code of the run.
    pub fn told(self) -> Result<u8, CliError> {
        match self {
            Self::Trouble(trouble) => Err(trouble),
            Self::Inconclusive(text) => {
                eprintln!("{text}");
                Ok(exit::INCONCLUSIVE)
            }
        }
    }
}

/// In full sentences, with what the hub said.
fn ending(error: &StartError) -> Ending {
    let Some(log) = error.log() else {
        let help = match error {
            StartError::Taken(_) => "end it, or let the hub listen elsewhere",
            _ => {
                "the command is split into words as a shell does, but no shell reads it; for one: --exec 'sh -c \"...\"'"
            }
        };
        return Ending::Trouble(CliError::new(format!("{error}\n  help: {help}")));
    };
    let mut text = format!("Nothing was checked: {error}.\n");
    let log = log.tail(SHOWN);
    text.push_str(match (log.lines.len(), log.left_out) {
        (0, _) => "It said nothing, neither on stdout nor on stderr.",
        (_, 0) => "All that it said:",
        _ => "Its last words:",
    });
    for line in &log.lines {
        text.push_str(&format!("\n  | {}", printable(line)));
    }
    if matches!(error, StartError::Silent { .. }) {
        text.push_str("\n  help: is that the address on which it listens? --exec-wait gives it more time");
    }
    Ending::Inconclusive(text)
}
