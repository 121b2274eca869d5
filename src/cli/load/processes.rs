//! `--processes`: runs the shares of a plan in several processes of this machine, and merges them.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::super::{CliError, build_runtime, exit};
use crate::check;
use crate::cli::merge::write_merged;
use crate::cli::report_sink::ReportSinks;
use crate::cli::signals::SignalListener;
use crate::load::plan::Plan;
use crate::load::report::LoadReport;
use crate::report::text::format_time;
use crate::syntax::share::Share;

/// How long all processes may take to start, beside the ramps of the plan.
const START_TIME: Duration = Duration::from_secs(5);
/// The options that are for this process, and whether they have a value.
const OWN_OPTIONS: [(&str, bool); 5] =
    [("--processes", true), ("--report", true), ("--run", true), ("--open", false), ("--quiet", false)];

/// Runs the plan in this number of processes, and reports the whole. Returns the exit code.
///
/// # Errors
///
/// A process could not be started, or ended with a mistake of the user, which it has printed.
pub fn run_processes(
    number: u32,
    plan: &Plan,
    is_quiet: bool,
    sinks: &ReportSinks<LoadReport>,
) -> Result<u8, CliError> {
    let folder =
        tempfile::tempdir().map_err(|error| CliError::failed("failed to create a folder for the shares", error))?;
    let arguments: Vec<OsString> = shared_arguments(std::env::args_os().skip(1)).collect();
    let ramps: Duration = plan.roles.iter().map(|role| role.population.ramp_time()).sum();
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + START_TIME + ramps;
    let phases = plan.phases;
    let planned = START_TIME + ramps + phases.longest_warm_up() + phases.duration + phases.drain;
    if !is_quiet {
        eprintln!("{number} processes run the plan, which takes at most {}", format_time(planned));
    }
    let run = format!("processes-{}", check::stamp());
    let codes = build_runtime()?.block_on(async {
        let mut signals = SignalListener::listen()?;
        let mut children = JoinSet::new();
        let mut stops = Vec::new();
        for share in Share::all(number) {
            let mut child = start_share(&arguments, share, &run, folder.path(), start.as_secs())?;
            stops.extend(child.id());
            children.spawn(async move { child.wait().await });
        }
        let mut codes = Vec::new();
        loop {
            tokio::select! {
                ended = children.join_next() => match ended {
                    None => return Ok::<_, CliError>(codes),
                    Some(ended) => codes.push(exit_code(ended)),
                },
                // Each process drains at the first signal, and stops at the second.
                () = signals.wait_for_signal() => stops.iter().for_each(|process| interrupt(*process)),
            }
        }
    })?;
    let mistakes = codes.iter().any(|code| ![exit::PASSED, exit::INCONCLUSIVE].contains(code));
    let written = std::fs::read_dir(folder.path()).map_or(0, Iterator::count);
    if mistakes || written < number as usize {
        // The processes have printed why.
        return Ok(if mistakes { exit::USAGE } else { exit::INCONCLUSIVE });
    }
    write_merged(&[folder.path().to_owned()], sinks)
}

/// Starts one share.
fn start_share(arguments: &[OsString], share: Share, run: &str, folder: &Path, start: u64) -> Result<Child, CliError> {
    let failed = |error| CliError::failed("failed to start a process", error);
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(arguments).args(["--share", &share.to_string(), "--run", run, "--start-at", &start.to_string()]);
    command.args(["--quiet", "--to"]).arg(folder).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    // Ctrl-C reaches only this process, which passes it on once.
    #[cfg(unix)]
    command.process_group(0);
    command.spawn().map_err(failed)
}

/// Returns the arguments that each process gets, too.
fn shared_arguments(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut skips_value = false;
    arguments.filter(move |argument| {
        if std::mem::take(&mut skips_value) {
            return false;
        }
        let text = argument.to_string_lossy();
        let own = OWN_OPTIONS.iter().find(|(name, _)| text.split('=').next() == Some(name));
        skips_value = own.is_some_and(|(_, has_value)| *has_value && !text.contains('='));
        own.is_none() && argument != OsStr::new("-q")
    })
}

fn exit_code(ended: Result<std::io::Result<std::process::ExitStatus>, tokio::task::JoinError>) -> u8 {
    let code = ended.ok().and_then(Result::ok).and_then(|status| status.code());
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::USAGE)
}

#[cfg(unix)]
fn interrupt(process: u32) {
    let process = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    // A process that has ended needs no signal.
    let _ = process.map(|process| rustix::process::kill_process(process, rustix::process::Signal::INT));
}

#[cfg(not(unix))]
fn interrupt(_process: u32) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_parent_are_left_out() {
        let words = "load ws://h --processes 4 --plan p --report json=a.json --report=csv=b.csv --open -q --seed 7";
        let shared: Vec<OsString> = shared_arguments(words.split(' ').map(OsString::from)).collect();
        assert_eq!(shared, ["load", "ws://h", "--plan", "p", "--seed", "7"]);
    }
}
