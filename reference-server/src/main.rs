//! The reference server as a standalone program.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use hubproof_reference::{Running, ServeArgs, run};

/// The reference server of hubproof: hubs that do what their documents say, and break them on demand
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
    match runtime.block_on(run(cli.serve, announce)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Prints one line per address. A closed stdout is not an error: the hubs keep running.
fn announce(running: &Running) {
    let mut stdout = std::io::stdout().lock();
    for line in running.lines() {
        let _ = writeln!(stdout, "{line}");
    }
    let _ = stdout.flush();
}
