//! The command line: arguments, progress and exit codes. Only this module prints.

/// Prints a line to stderr like the macro of the standard library, which it replaces here, made safe for terminals.
macro_rules! eprintln {
    ($($words:tt)*) => { $crate::cli::print_to_stderr(&format!($($words)*)) };
}

mod baseline;
mod check;
mod client;
mod compare;
mod doctor;
mod error;
mod exec;
mod explain;
mod fuzz;
mod hub;
mod init;
mod load;
mod merge;
mod packs;
mod progress;
pub mod protocol_files;
mod proxy;
mod report;
mod report_sink;
mod scenario_files;
mod serve;
mod shell;
mod signals;
mod tls_args;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{Parser, Subcommand};
use proxy::{observe, record, relay};

pub use self::error::CliError;
use crate::redact::mask_credentials;
use crate::report::terminal_page::Style;
use crate::syntax::printable::{defuse_documents, defuse_output};

/// Conformance tests, fuzzing and load tests for message hubs (JSON over WebSocket).
#[derive(Parser)]
#[command(name = "hubproof", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: CliCommand,
}

const EXIT_CODES: &str = "Exit codes: 0 pass; 1 the hub failed; 2 wrong usage, or an error in a scenario, pack or target; 3 inconclusive: nothing ran, or the hub cannot be reached. `hubproof explain` explains these, and every rule, finding and outcome by its name";

#[derive(Subcommand)]
enum CliCommand {
    /// Test a hub against its protocol; without a URL, the built-in reference server
    Check(Box<check::CheckArgs>),
    CheckClient(Box<check::clients::CheckClientArgs>),
    /// Send mutated messages to a hub and check that it stays correct; without a URL, the built-in reference server
    Fuzz(Box<fuzz::FuzzArgs>),
    /// Load a hub with many virtual clients and measure it; without a URL, the built-in reference server
    Load(Box<load::LoadArgs>),
    /// Recognise the protocol of a hub, and write a target file and a GitHub workflow for it
    Init(init::InitArgs),
    /// Run the reference server
    Serve(Box<serve::ServeArgs>),
    Client(Box<hubproof_reference::clients::args::ClientArgs>),
    Relay(Box<relay::RelayArgs>),
    Record(Box<record::RecordArgs>),
    Observe(Box<observe::ObserveArgs>),
    Merge(merge::MergeArgs),
    #[cfg(feature = "nats")]
    Watch(load::watch::WatchArgs),
    Compare(compare::CompareArgs),
    Report(report::ReportArgs),
    Explain(explain::ExplainArgs),
    Doctor(doctor::DoctorArgs),
    /// Work with protocol packs: list, show, lint, init, validate
    Packs(packs::PacksArgs),
    Completions(shell::CompletionsArgs),
    Man(shell::ManArgs),
}

/// Exit codes.
pub mod exit {
    use crate::syntax::explanation::Explanation;

    /// The hub passed.
    pub const PASSED: u8 = 0;
    /// The hub failed.
    pub const FAILED: u8 = 1;
    /// Wrong usage, or an error in a user's file.
    pub const USAGE: u8 = 2;
    /// Nothing ran, or nothing could be decided.
    pub const INCONCLUSIVE: u8 = 3;

    pub const ALL: [u8; 4] = [PASSED, FAILED, USAGE, INCONCLUSIVE];

    pub fn explanation(code: u8) -> Explanation {
        match code {
            PASSED => Explanation::new("0", "The hub passed (PASS): no MUST is broken, and all thresholds hold."),
            FAILED => Explanation::new(
                "1",
                "The hub failed (FAIL): a broken MUST, a finding of fuzz, a broken threshold, an item lost under load, a regression in `compare`, or an entry of the baseline or target file that is stale.",
            )
            .next("Explain the rule or oracle of the first failure, whose name is in brackets: hubproof explain NAME"),
            USAGE => Explanation::new(
                "2",
                "A mistake of the user (MISTAKE): a wrong option, or an error in a scenario, pack, plan, target or baseline. This says nothing about the hub.",
            )
            .next("Correct the place that the message shows; `help:` says how."),
            _ => Explanation::new(
                "3",
                "Inconclusive (INCONCLUSIVE): nothing ran, or what ran does not decide. It is neither a pass nor a failure.",
            )
            .usually("The hub cannot be reached, a precondition of many checks failed, too few of the MUSTs were judged, a load run is not valid, or the run was interrupted.")
            .next("Correct the first cause that the report names, and run again."),
        }
    }
}

/// Returns the word that stands where a command is expected.
fn misplaced_command(error: &clap::Error) -> Option<&str> {
    match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) => Some(word),
        _ => None,
    }
}

/// Runs a command line. Returns the exit code of the process.
pub fn run_command_line(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) if matches!(misplaced_command(&error), Some("lint" | "list" | "show" | "validate")) => {
            let word = misplaced_command(&error).unwrap_or_default();
            let help = format!("write `hubproof packs {word}`");
            print_to_stderr(&CliError::usage(format!("there is no command `{word}`"), help).render());
            return ExitCode::from(exit::USAGE);
        }
        Err(error) => {
            let text = error.render();
            let text = if uses_color() { text.ansi().to_string() } else { text.to_string() };
            // Help and version are not errors. An error quotes the argument, which may be an address with a password.
            if error.use_stderr() {
                print_to_stderr(mask_credentials(&text).trim_end());
            } else {
                // Fails only if the reader is gone.
                let _ = error.print();
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE));
        }
    };
    let done = match arguments.command {
        CliCommand::Check(arguments) => check::run_check(*arguments),
        CliCommand::CheckClient(arguments) => check::clients::run_check_client(*arguments),
        CliCommand::Fuzz(arguments) => fuzz::run_fuzz(*arguments),
        CliCommand::Load(arguments) => load::run_load(*arguments),
        CliCommand::Init(arguments) => init::run_init(&arguments),
        CliCommand::Serve(arguments) => serve::run_serve(*arguments),
        CliCommand::Client(arguments) => client::run_client_command(*arguments),
        CliCommand::Relay(arguments) => relay::run_relay(*arguments),
        CliCommand::Record(arguments) => record::run_record(*arguments),
        CliCommand::Observe(arguments) => observe::run_observe(*arguments),
        CliCommand::Merge(arguments) => merge::run_merge(&arguments),
        #[cfg(feature = "nats")]
        CliCommand::Watch(arguments) => load::watch::run_watch(&arguments),
        CliCommand::Compare(arguments) => compare::run_compare(arguments),
        CliCommand::Report(arguments) => report::run_report(arguments),
        CliCommand::Explain(arguments) => explain::run_explain(arguments),
        CliCommand::Doctor(arguments) => doctor::run_doctor(&arguments),
        CliCommand::Packs(arguments) => packs::run_packs(arguments),
        CliCommand::Completions(arguments) => Ok(shell::run_completions(&arguments)),
        CliCommand::Man(arguments) => shell::run_man(&arguments),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{}", error.render());
            ExitCode::from(exit::USAGE)
        }
    }
}

/// Whether diagnostics may use color.
fn uses_color() -> bool {
    may_color(std::io::stderr().is_terminal())
}

/// Whether text may use color: it goes to a terminal that is not `dumb`, and NO_COLOR is not set.
fn may_color(terminal: bool) -> bool {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    terminal && !plain && std::env::var_os("TERM").is_none_or(|name| name != "dumb")
}

/// Returns the style of pages on stdout, or on stderr: their width is `COLUMNS`, or that of the terminal, up to 100.
fn page_style(to_stderr: bool) -> Style {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let size = match to_stderr {
        true => terminal_size::terminal_size_of(std::io::stderr()),
        false => terminal_size::terminal_size_of(std::io::stdout()),
    };
    let width = columns.or(size.map(|(width, _)| usize::from(width.0)));
    let widest = Style::default().width;
    let terminal = if to_stderr { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
    Style { color: may_color(terminal), width: width.map_or(widest, |width| width.clamp(40, widest)), verbose: false }
}

/// Prints text for people to stdout, made safe for terminals and logs; a reader that is gone is not an error.
fn print_to_stdout(text: &str) {
    write_to_stdout(&defuse_output(text));
}

/// Prints a line to stderr, made safe for terminals and logs.
fn print_to_stderr(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", defuse_output(text));
}

/// Prints a document for programs to stdout: a report, a script, JSON.
fn print_document(text: &str) {
    write_to_stdout(&defuse_documents(text));
}

fn write_to_stdout(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

fn build_runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed("failed to start", error))
}
