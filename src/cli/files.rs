//! Where packs and scenarios come from: built in, or a folder of the user's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::Trouble;
use crate::diagnostic::{Diagnostic, has_errors, render_all, suggest};
use crate::embedded::Setups;
use crate::pack::{Folder, Pack};
use crate::scenario::Scenarios;
use crate::source::{FileId, Sources};

include!(concat!(env!("OUT_DIR"), "/embedded_files.rs"));

/// A protocol, loaded, with all that is wrong with it.
pub struct Loaded {
    pub folder: Folder,
    pub pack: Option<Arc<Pack>>,
    pub scenarios: Option<Scenarios>,
    pub diagnostics: Vec<Diagnostic>,
}

/// Names of the protocols that are built in.
pub fn built_in() -> Vec<&'static str> {
    FILES.iter().filter_map(|(path, _)| path.strip_prefix("schemas/")?.strip_suffix("/asyncapi.yaml")).collect()
}

fn embedded_folder(name: &str, sources: &mut Sources) -> Folder {
    let mut folder = Folder { name: name.to_owned(), ..Folder::default() };
    for (path, text) in FILES {
        let within = |root: &str| path.strip_prefix(root)?.strip_prefix(name)?.strip_prefix('/');
        if let Some(inner) = within("schemas/") {
            folder.pack.insert(inner.to_owned(), sources.add(*path, *text));
        } else if let Some(inner) = within("scenarios/") {
            folder.scenarios.insert(inner.to_owned(), sources.add(*path, *text));
        }
    }
    folder
}

/// A pack of the user's: asyncapi.yaml, messages/, rules.yaml, and its scenarios under scenarios/.
pub fn user_folder(directory: &Path, sources: &mut Sources) -> Result<Folder, Trouble> {
    let shown = directory.display();
    if !directory.is_dir() {
        return Err(Trouble::new(format!(
            "{shown} is not a folder\n  help: a pack is a folder with asyncapi.yaml, messages/, rules.yaml and scenarios/"
        )));
    }
    let full = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let name = full.file_name().map_or_else(|| "pack".to_owned(), |name| name.to_string_lossy().into_owned());
    let mut folder = Folder { name, ..Folder::default() };
    let mut files = BTreeMap::new();
    walk(directory, "", sources, &mut files)?;
    for (path, file) in files {
        match path.strip_prefix("scenarios/") {
            Some(inner) => folder.scenarios.insert(inner.to_owned(), file),
            None => folder.pack.insert(path, file),
        };
    }
    // What else lies in the folder is not ours to judge.
    folder
        .pack
        .retain(|path, _| matches!(path.as_str(), "asyncapi.yaml" | "rules.yaml") || path.ends_with(".schema.json"));
    Ok(folder)
}

/// Deepest folder of a pack that is looked into.
const MAX_DEPTH: usize = 6;

fn walk(
    directory: &Path,
    prefix: &str,
    sources: &mut Sources,
    files: &mut BTreeMap<String, FileId>,
) -> Result<(), Trouble> {
    let trouble = |error: std::io::Error| Trouble::new(format!("failed to read {}: {error}", directory.display()));
    if prefix.matches('/').count() > MAX_DEPTH {
        return Ok(());
    }
    for entry in std::fs::read_dir(directory).map_err(trouble)? {
        let path = entry.map_err(trouble)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if path.is_dir() {
            walk(&path, &format!("{prefix}{name}/"), sources, files)?;
        } else if ["yaml", "yml", "json", "toml"].iter().any(|end| name.ends_with(&format!(".{end}"))) {
            let file = read(&path, sources)?;
            files.insert(format!("{prefix}{name}"), file);
        }
    }
    Ok(())
}

/// A file of the user's, as text.
pub fn read(path: &Path, sources: &mut Sources) -> Result<FileId, Trouble> {
    let shown = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| Trouble::new(format!("failed to read {shown}: {error}")))?;
    if bytes.len() > crate::source::MAX_FILE {
        return Err(Trouble::new(format!("{shown} is larger than {} MiB", crate::source::MAX_FILE >> 20)));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(sources.add(shown, text)),
        Err(error) => Err(Trouble::new(format!("{shown} is not UTF-8 (byte {})", error.utf8_error().valid_up_to()))),
    }
}

pub fn load(folder: Folder, sources: &Sources) -> Loaded {
    let (pack, mut diagnostics) = Pack::load(&folder, sources);
    let pack = pack.map(Arc::new);
    let scenarios = pack.as_ref().map(|pack| Scenarios::load(&folder, sources, pack));
    if let Some(scenarios) = &scenarios {
        diagnostics.extend(scenarios.diagnostics.iter().cloned());
    }
    if let Err(diagnostic) = Setups::read(&folder, sources) {
        diagnostics.push(diagnostic);
    }
    Loaded { folder, pack, scenarios, diagnostics }
}

/// A protocol that can be used: nothing is wrong with it.
pub struct Protocol {
    pub folder: Folder,
    pub pack: Arc<Pack>,
    pub scenarios: Scenarios,
    pub setups: Setups,
}

impl Loaded {
    /// Prints warnings; errors end the command.
    pub fn usable(self, sources: &Sources) -> Result<Protocol, Trouble> {
        match (self.pack, self.scenarios) {
            (Some(pack), Some(scenarios)) if !has_errors(&self.diagnostics) => {
                if !self.diagnostics.is_empty() {
                    eprintln!("{}", render_all(&self.diagnostics, sources, super::colored()));
                }
                let setups =
                    Setups::read(&self.folder, sources).map_err(|d| Trouble::from_diagnostics(&[d], sources))?;
                Ok(Protocol { folder: self.folder, pack, scenarios, setups })
            }
            _ => Err(Trouble::from_diagnostics(&self.diagnostics, sources)),
        }
    }
}

/// One of the built-in protocols.
pub fn built_in_protocol(name: &str, sources: &mut Sources) -> Result<Loaded, Trouble> {
    let known = built_in();
    if !known.contains(&name) {
        let help = suggest(
            name,
            known.iter().copied(),
            &format!("built in: {}; a folder of yours: --pack DIR", known.join(", ")),
        );
        return Err(Trouble::new(format!("there is no protocol `{name}`\n  help: {help}")));
    }
    let folder = embedded_folder(name, sources);
    Ok(load(folder, sources))
}
