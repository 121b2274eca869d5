//! The reference server as a standalone program.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use hubproof_reference::{RunningServer, ServeArgs, run_server};

/// The reference server of hubproof: hubs that follow their specifications, and break them on demand
#[derive(Parser)]
#[command(name = "hubproof-reference", version)]
struct Cli {
    #[command(flatten)]
    serve: ServeArgs,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: failed to start: {error}");
            return ExitCode::from(2);
        }
    };
    match runtime.block_on(run_server(cli.serve, announce)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Prints one line per address. A closed stdout is not an error: the hubs continue to serve.
fn announce(running: &RunningServer) {
    let mut stdout = std::io::stdout().lock();
    for line in running.address_lines() {
        let _ = writeln!(stdout, "{line}");
    }
    let _ = stdout.flush();
}
