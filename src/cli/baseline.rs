//! `--baseline` and `--write-baseline`: files of known failures, read before the run and written after it.

use std::path::{Path, PathBuf};

use clap::Args;

use super::CliError;
use super::protocol_files::{self, ValidProtocol};
use crate::hub::supervisor::PROCESS_CHECK;
use crate::judge::baseline::{self, BaselineEntry, FailureNames};
use crate::report::RunReport;
use crate::syntax::source::{FileId, Sources};

#[derive(Args)]
pub struct BaselineArgs {
    /// File of known failures (TOML) that do not fail the run; an entry that no longer fails is itself a failure
    #[arg(long = "baseline", value_name = "FILE")]
    read: Option<PathBuf>,
    /// Write the current failures to this baseline file; existing entries keep their reasons
    #[arg(long = "write-baseline", value_name = "FILE")]
    write: Option<PathBuf>,
}

/// Returns the names that the entries of a file may use.
type FailureNameSource<'a> = dyn Fn(&[BaselineEntry], &mut Sources) -> Result<FailureNames, CliError> + 'a;

/// The baseline to compare with and the baseline to write, both read and validated.
pub struct Baselines {
    known: Vec<BaselineEntry>,
    write: Option<PathBuf>,
    /// The current content of the file to write, if it exists.
    before: Option<(FileId, Vec<BaselineEntry>)>,
}

impl BaselineArgs {
    pub fn is_used(&self) -> bool {
        self.read.is_some() || self.write.is_some()
    }

    /// Returns the arguments of a command that reproduces a finding.
    pub fn to_arguments(&self) -> Vec<String> {
        self.read.iter().flat_map(|path| ["--baseline".to_owned(), path.display().to_string()]).collect()
    }

    /// Reads the files and checks that all entries name existing scenarios and checks.
    pub fn read_baselines(&self, protocols: &[ValidProtocol], sources: &mut Sources) -> Result<Baselines, CliError> {
        self.read_baselines_with(sources, &|entries, sources| failure_names(entries, protocols, sources))
    }

    /// Reads the files; `names` returns the names that their entries may use.
    pub fn read_baselines_with(
        &self,
        sources: &mut Sources,
        names: &FailureNameSource<'_>,
    ) -> Result<Baselines, CliError> {
        let mut read = |path: &Path| read_entries(path, names, sources);
        let known = self.read.as_deref().map(&mut read).transpose()?.map(|(_, entries)| entries).unwrap_or_default();
        let before = self.write.as_deref().filter(|path| path.exists()).map(&mut read).transpose()?;
        if let Some(path) = &self.write {
            // Reported before the run rather than after it.
            super::report_sink::check_writable(path).map_err(|error| {
                CliError::failed(format!("a baseline cannot be written to {}", path.display()), error)
            })?;
        }
        Ok(Baselines { known, write: self.write.clone(), before })
    }
}

impl Baselines {
    /// Whether the baseline has an entry for this check.
    pub fn contains(&self, scenario: &str, check: &str) -> bool {
        self.known.iter().any(|entry| entry.covers_check(scenario, check))
    }

    /// Marks expected failures in the report, and writes the new baseline.
    pub fn apply_and_write(&self, report: &mut RunReport, sources: &Sources) -> Result<(), CliError> {
        baseline::apply_baseline(report, &self.known);
        let Some(path) = &self.write else { return Ok(()) };
        let before =
            self.before.as_ref().map(|(file, entries)| (sources.file(*file).text.as_str(), entries.as_slice()));
        std::fs::write(path, baseline::rewrite_baseline(report, before))
            .map_err(|error| CliError::failed(format!("failed to write {}", path.display()), error))
    }
}

fn read_entries(
    path: &Path,
    names: &FailureNameSource<'_>,
    sources: &mut Sources,
) -> Result<(FileId, Vec<BaselineEntry>), CliError> {
    let file = protocol_files::read_file(path, sources)?;
    let entries =
        baseline::parse_baseline(sources, file).map_err(|found| CliError::from_diagnostics(&found, sources))?;
    let unknown = names(&entries, sources)?.unknown_name_errors(&entries);
    if unknown.is_empty() { Ok((file, entries)) } else { Err(CliError::from_diagnostics(&unknown, sources)) }
}

/// Returns the names of the scenarios and checks of these protocols, and of other protocols that the entries name.
fn failure_names(
    entries: &[BaselineEntry],
    protocols: &[ValidProtocol],
    sources: &mut Sources,
) -> Result<FailureNames, CliError> {
    let mut names = FailureNames::default();
    // `websocket` and `process` are checked in every scenario.
    let mut add = |protocol: &ValidProtocol| {
        let programs = protocol.scenarios.programs.iter().map(AsRef::as_ref);
        names.add_protocol(&protocol.pack, programs, &["websocket", PROCESS_CHECK]);
    };
    protocols.iter().for_each(&mut add);
    // A file may have entries for protocols that this run leaves out.
    let loaded = |name: &str| protocols.iter().any(|protocol| protocol.pack.name == name);
    for name in protocol_files::built_in_names().into_iter().filter(|name| !loaded(name)) {
        if entries.iter().any(|entry| entry.scenario().split('/').next() == Some(name)) {
            add(&protocol_files::load_built_in(name, sources)?.into_valid(sources)?);
        }
    }
    Ok(names)
}
