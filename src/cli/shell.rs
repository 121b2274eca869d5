//! `hubproof completions` and `hubproof man`: what a shell knows about the command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{CliError, print_document};

/// Print a script that completes the command line in a shell
#[derive(Args)]
#[command(after_help = "For bash: hubproof completions bash > ~/.local/share/bash-completion/completions/hubproof")]
pub struct CompletionsArgs {
    /// Shell that runs the script
    shell: Shell,
}

/// Write a man page for each command
#[derive(Args)]
#[command(after_help = "To read a page: hubproof man ~/.local/share/man/man1 && man hubproof-check")]
pub struct ManArgs {
    /// Folder to write the pages to, created if it does not exist
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub fn run_completions(arguments: &CompletionsArgs) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), "hubproof", &mut script);
    print_document(&String::from_utf8_lossy(&script));
    0
}

pub fn run_man(arguments: &ManArgs) -> Result<u8, CliError> {
    let folder = &arguments.folder;
    let written =
        std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(super::Arguments::command(), folder));
    match written {
        Ok(()) => Ok(0),
        Err(error) => Err(CliError::failed(format!("failed to write man pages to {}", folder.display()), error)),
    }
}
