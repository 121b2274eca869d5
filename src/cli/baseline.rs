//! `--baseline` and `--write-baseline`: files of known failures, read before the run and written after it.

use std::path::{Path, PathBuf};

use clap::Args;

use super::CliError;
use super::protocol_files::{self, Protocol};
use crate::baseline::{self, Entry, Names};
use crate::hub::supervisor::PROCESS_CHECK;
use crate::report::RunReport;
use crate::syntax::source::{FileId, Sources};

#[derive(Args)]
pub struct BaselineArgs {
    /// Failures that are known (TOML): they do not fail the run, but those that do not fail any more do
    #[arg(long = "baseline", value_name = "FILE")]
    read: Option<PathBuf>,
    /// Write what fails now as such a file; entries that are there already keep their reasons
    #[arg(long = "write-baseline", value_name = "FILE")]
    write: Option<PathBuf>,
}

/// Says what entries may name; those of a file are given to it.
type Naming<'a> = dyn Fn(&[Entry], &mut Sources) -> Result<Names, CliError> + 'a;

/// Both files, read and without a mistake.
pub struct Baselines {
    known: Vec<Entry>,
    write: Option<PathBuf>,
    /// What stands in the file that is written anew, where it exists.
    before: Option<(FileId, Vec<Entry>)>,
}

impl BaselineArgs {
    /// The words that ask for the same again.
    pub fn words(&self) -> Vec<String> {
        self.read.iter().flat_map(|path| ["--baseline".to_owned(), path.display().to_string()]).collect()
    }

    /// Reads the files; all their entries name a scenario and a check that exist.
    pub fn read(&self, protocols: &[Protocol], sources: &mut Sources) -> Result<Baselines, CliError> {
        self.read_with(sources, &|entries, sources| names(entries, protocols, sources))
    }

    /// Reads the files; `names` says what their entries may name.
    pub fn read_with(&self, sources: &mut Sources, names: &Naming<'_>) -> Result<Baselines, CliError> {
        let mut read = |path: &Path| read(path, names, sources);
        let known = self.read.as_deref().map(&mut read).transpose()?.map(|(_, entries)| entries).unwrap_or_default();
        let before = self.write.as_deref().filter(|path| path.exists()).map(&mut read).transpose()?;
        if let Some(path) = &self.write {
            // Found now rather than after the run.
            super::report_sink::writable(path).map_err(|error| {
                CliError::new(format!("a baseline cannot be written to {}: {error}", path.display()))
            })?;
        }
        Ok(Baselines { known, write: self.write.clone(), before })
    }
}

impl Baselines {
    /// Whether a failure is known.
    pub fn knows(&self, scenario: &str, check: &str) -> bool {
        self.known.iter().any(|entry| entry.names(scenario, check))
    }

    /// Marks what was expected, and writes what is to be expected from now on.
    pub fn settle(&self, report: &mut RunReport, sources: &Sources) -> Result<(), CliError> {
        baseline::apply(report, &self.known);
        let Some(path) = &self.write else { return Ok(()) };
        let before =
            self.before.as_ref().map(|(file, entries)| (sources.file(*file).text.as_str(), entries.as_slice()));
        std::fs::write(path, baseline::rewritten(report, before))
            .map_err(|error| CliError::new(format!("failed to write {}: {error}", path.display())))
    }
}

fn read(path: &Path, names: &Naming<'_>, sources: &mut Sources) -> Result<(FileId, Vec<Entry>), CliError> {
    let file = protocol_files::read(path, sources)?;
    let entries = baseline::read(sources, file).map_err(|found| CliError::from_diagnostics(&found, sources))?;
    let unknown = names(&entries, sources)?.unknown(&entries);
    if unknown.is_empty() { Ok((file, entries)) } else { Err(CliError::from_diagnostics(&unknown, sources)) }
}

/// The scenarios and checks of these protocols, and of others that the entries speak of.
fn names(entries: &[Entry], protocols: &[Protocol], sources: &mut Sources) -> Result<Names, CliError> {
    let mut names = Names::default();
    // `websocket` and `process` are judged in every scenario.
    let mut add = |protocol: &Protocol| {
        let programs = protocol.scenarios.programs.iter().map(AsRef::as_ref);
        names.add(&protocol.pack, programs, &["websocket", PROCESS_CHECK]);
    };
    protocols.iter().for_each(&mut add);
    // A file may speak of protocols that this run leaves out.
    let loaded = |name: &str| protocols.iter().any(|protocol| protocol.pack.name == name);
    for name in protocol_files::built_in().into_iter().filter(|name| !loaded(name)) {
        if entries.iter().any(|entry| entry.scenario().split('/').next() == Some(name)) {
            add(&protocol_files::built_in_protocol(name, sources)?.usable(sources)?);
        }
    }
    Ok(names)
}
