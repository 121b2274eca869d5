//! The reference hub as a program of its own.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use hubproof_reference::{Running, ServeArgs, run};

/// The reference hub of hubproof: speaks its protocols as documented, and breaks them on demand.
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

/// One line per address, at once; whoever started us may have closed our stdout and still want the hub.
fn announce(running: &Running) {
    let mut stdout = std::io::stdout().lock();
    for line in running.lines() {
        let _ = writeln!(stdout, "{line}");
    }
    let _ = stdout.flush();
}
