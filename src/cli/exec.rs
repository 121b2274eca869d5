//! `--exec`: starts the hub for a run, and stops it afterwards. The hook `restart` restarts it.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::signals::SignalListener;
use super::{CliError, exit};
use crate::config::{self, ExecCommand, Target};
use crate::hub::prepare::{self, TestedHub, secret_masker};
use crate::hub::process::{
    DEFAULT_WAIT, HubLaunch, HubStartError, LaunchMethod, LogFile, RESTART_HOOK, TERMINATION_GRACE,
};
use crate::hub::supervisor::HubProcess;
use crate::report::text::escape_unprintable;

/// How long to wait for a hub that has gone and that the run cannot start.
const RETURN_WAIT: Duration = Duration::from_secs(3);
/// Number of log lines to show if a hub does not start.
const SHOWN_LOG_LINES: usize = 20;

#[derive(Args)]
pub struct ExecArgs {
    /// Start the hub with this command and stop it after the run; not run in a shell, so use 'sh -c "..."' if you need
    /// one
    #[arg(long = "exec", value_name = "CMD", conflicts_with = "fault")]
    command: Option<String>,
    /// How long to wait until the hub that `--exec` starts is listening
    #[arg(long = "exec-wait", value_name = "TIME", default_value = "30s", value_parser = config::parse_duration)]
    wait: Duration,
    /// Write the stdout and stderr of the hub that `--exec` starts to this file
    #[arg(long = "exec-log", value_name = "FILE")]
    log: Option<PathBuf>,
}

/// A failed start of the hubs of a run.
pub enum StartFailure {
    Error(CliError),
    /// A message for stderr; the exit code is 3.
    Inconclusive(String),
}

impl ExecArgs {
    /// Returns no command: hubproof does not start the hub.
    pub fn none() -> Self {
        Self { command: None, wait: DEFAULT_WAIT, log: None }
    }

    /// Whether hubproof starts the hub.
    pub fn is_given(&self) -> bool {
        self.command.is_some()
    }

    /// Overrides the commands of the target with `--exec`.
    ///
    /// # Errors
    ///
    /// The command is empty, or there is no URL for the hub to listen on.
    pub fn override_commands(&self, target: Option<&mut Target>) -> Result<(), CliError> {
        let Some(text) = &self.command else { return Ok(()) };
        let Some(target) = target else {
            return Err(CliError::usage(
                "`--exec` needs the URL the hub will listen on",
                "hubproof check ws://127.0.0.1:4000 --exec ...",
            ));
        };
        let exec = ExecCommand::parse(text).map_err(|error| CliError::failed("--exec", error))?;
        target.exec = Some(exec);
        target.instances.iter_mut().for_each(|instance| instance.exec = None);
        Ok(())
    }

    /// Returns the arguments of a command that reproduces a finding.
    pub fn to_arguments(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(command) = &self.command {
            words.extend(["--exec".to_owned(), command.clone()]);
        }
        if self.wait != DEFAULT_WAIT {
            words.extend(["--exec-wait".to_owned(), config::format_duration(self.wait)]);
        }
        words
    }

    /// Creates the hub processes that a hub's target needs and adds them to the hub, without starting them.
    ///
    /// # Errors
    ///
    /// The log file cannot be written, or an address cannot be read.
    pub fn prepare_processes(&self, hub: &mut TestedHub) -> Result<Vec<Arc<HubProcess>>, CliError> {
        let launches = hub.target.launch_commands();
        let masker = Arc::new(secret_masker(hub));
        let log = match self.log.as_ref().filter(|_| !launches.is_empty()) {
            None => None,
            Some(path) => {
                let failed =
                    |error| CliError::failed(format!("the hub's log cannot be written to {}", path.display()), error);
                Some(LogFile::new(File::create(path).map_err(failed)?))
            }
        };
        let own: Vec<usize> = launches.iter().flat_map(|(_, places)| places).copied().collect();
        let launches =
            launches.into_iter().map(|(exec, places)| (exec.text.clone(), LaunchMethod::Command(exec), places));
        let trust = prepare::trusted_certificates(&hub.target)?;
        let elsewhere = hub.target.instances.iter().enumerate().filter(|(place, _)| !own.contains(place));
        let hooks: Vec<_> = elsewhere
            .filter_map(|(place, instance)| {
                let (spec, trust) = (instance.hooks.get(RESTART_HOOK)?.clone(), trust.clone());
                let settings = prepare::instance_settings(hub, instance).into_iter().collect();
                Some((format!("hook {RESTART_HOOK}"), LaunchMethod::Hook { spec, settings, trust }, vec![place]))
            })
            .collect();
        for (command, by, places) in launches.chain(hooks) {
            let instances = || places.iter().map(|place| &hub.target.instances[*place]);
            let endpoints = instances().map(|instance| instance.url.clone()).collect();
            let names = instances().map(|instance| instance.name.clone()).collect();
            let command = masker.mask(&command).into_owned();
            let mask = Arc::clone(&masker);
            let mask = Arc::new(move |line: &str| mask.mask(line).into_owned());
            let launch = HubLaunch { by, endpoints, wait: self.wait, mask, log: log.clone() };
            hub.processes.push((HubProcess::new(launch, command, names), places));
        }
        Ok(hub.processes.iter().map(|(process, _)| Arc::clone(process)).collect())
    }
}

/// Watches the instances of a hub that the run can neither start nor restart, and adds them to the hub.
pub fn watch_instances(hub: &mut TestedHub) -> Vec<Arc<HubProcess>> {
    if hub.embedded.is_some() {
        return Vec::new();
    }
    let mut watched = Vec::new();
    for (place, instance) in hub.target.instances.iter().enumerate() {
        if hub.processes.iter().all(|(_, places)| !places.contains(&place)) {
            let (by, endpoints) = (LaunchMethod::None, vec![instance.url.clone()]);
            let launch = HubLaunch { by, endpoints, wait: RETURN_WAIT, mask: Arc::new(str::to_owned), log: None };
            let process = HubProcess::new(launch, String::new(), vec![instance.name.clone()]);
            watched.push((process, vec![place]));
        }
    }
    hub.processes.extend(watched.iter().cloned());
    watched.into_iter().map(|(process, _)| process).collect()
}

/// Starts all processes; if one fails, the others are stopped.
///
/// # Errors
///
/// [`StartFailure`]; then none of them runs.
pub async fn start_processes(processes: &[Arc<HubProcess>], signals: &mut SignalListener) -> Result<(), StartFailure> {
    for process in processes {
        let why = tokio::select! {
            started = process.start() => match started {
                Ok(()) => continue,
                Err(error) => explain_start_error(error),
            },
            () = signals.wait_for_signal() => StartFailure::Inconclusive("interrupted before the hub listened; nothing was checked".to_owned()),
        };
        stop_processes(processes, TERMINATION_GRACE, signals).await;
        return Err(why);
    }
    Ok(())
}

/// Stops all processes within `grace`, or immediately on another signal.
pub async fn stop_processes(processes: &[Arc<HubProcess>], grace: Duration, signals: &mut SignalListener) {
    for process in processes {
        tokio::select! {
            () = process.stop_for_good(grace) => {}
            () = signals.wait_for_signal() => process.stop_for_good(Duration::ZERO).await,
        }
    }
}

impl StartFailure {
    /// Prints the reason for an inconclusive start on stderr. Returns the exit code of the run.
    pub fn report(self) -> Result<u8, CliError> {
        match self {
            Self::Error(error) => Err(error),
            Self::Inconclusive(text) => {
                eprintln!("{text}");
                Ok(exit::INCONCLUSIVE)
            }
        }
    }
}

/// Explains a failed start, with the end of the hub's output.
fn explain_start_error(error: HubStartError) -> StartFailure {
    let Some(log) = error.log() else {
        return StartFailure::Error(error.into());
    };
    let mut text = format!("Nothing was checked: {error}.\n");
    let log = log.last_lines(SHOWN_LOG_LINES);
    text.push_str(match (log.lines.len(), log.left_out) {
        (0, _) => "It wrote nothing to stdout or stderr.",
        (_, 0) => "All of its output:",
        _ => "The end of its output:",
    });
    for line in &log.lines {
        text.push_str(&format!("\n  | {}", escape_unprintable(line)));
    }
    if let Some(help) = error.help() {
        text.push_str(&format!("\n  help: {help}"));
    }
    StartFailure::Inconclusive(text)
}
