//! `--scenario FILE`: scenarios outside a pack, such as saved findings.

use std::path::Path;
use std::sync::Arc;

use super::CliError;
use super::protocol_files::{self, ValidProtocol};
use crate::fuzz::oracle;
use crate::protocol::Pack;
use crate::scenario::{self, ScenarioSet, parse};
use crate::syntax::source::{FileId, Sources};
use crate::syntax::yaml;

/// Whether the argument names a file; no scenario's name has such an ending.
pub fn is_scenario_file(text: &str) -> bool {
    text.ends_with(".yaml") || text.ends_with(".yml")
}

/// Adds scenarios from files to a protocol, and returns their names. A scenario from a file replaces one of the
/// protocol with the same name. It may check the fuzzer's oracles, which are not rules of a pack.
///
/// # Errors
///
/// A file has an error, or its protocol is not known.
pub fn add_scenario_files(
    protocols: &mut [ValidProtocol],
    paths: &[&String],
    sources: &mut Sources,
) -> Result<Vec<String>, CliError> {
    let Some(first) = paths.first() else { return Ok(Vec::new()) };
    let [protocol] = protocols else {
        let help = format!("--protocol {}", protocol_files::built_in_names().join(" | "));
        return Err(CliError::usage(format!("the protocol of {first} is not known"), help));
    };
    let read: Result<Vec<FileId>, CliError> =
        paths.iter().map(|path| protocol_files::read_file(Path::new(path), sources)).collect();
    let read = read?;
    let (Some(mut pack), _) = Pack::load(&protocol.folder, sources) else { return Ok(Vec::new()) };
    let mut oracles = oracle::oracle_rules(sources);
    // Oracles that no file names are left out of the report.
    oracles.retain(|rule| read.iter().any(|file| sources.file(*file).text.contains(&rule.id)));
    pack.rules.extend(oracles.into_iter().map(|rule| (rule.id.clone(), rule)));
    let pack = Arc::new(pack);
    let mut scenarios = ScenarioSet::load(&protocol.folder, sources, &pack);
    let shared = scenario::load_shared(&protocol.folder, sources, &pack, &mut Vec::new());
    let mut ids = Vec::new();
    for (path, file) in paths.iter().zip(read) {
        let stem = Path::new(path).file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let id = format!("{}/{stem}", pack.name);
        let root = yaml::parse(sources, file).map_err(|found| CliError::from_diagnostics(&[found], sources))?;
        let (programs, found) = parse::parse_scenario_file(&id, &root, &shared, &pack);
        if programs.is_empty() {
            return Err(CliError::from_diagnostics(&found, sources));
        }
        let replaced =
            |known: &str| known.strip_prefix(&id).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        scenarios.programs.retain(|known| !replaced(&known.id));
        scenarios.programs.extend(programs.into_iter().map(Arc::new));
        ids.push(id);
    }
    protocol.pack = pack;
    protocol.scenarios = scenarios;
    Ok(ids)
}
