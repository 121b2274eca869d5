//! Loads packs and scenarios: built-in ones, a user's folder, or a plain AsyncAPI document.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, LazyLock};

use clap::{Args, ValueEnum};
use flate2::read::DeflateDecoder;

use super::CliError;
use crate::import::{self, DocumentLibrary, Perspective};
use crate::protocol::{OF_CLIENTS, Pack, PackFolder};
use crate::reference::setup::ReferenceSetups;
use crate::scenario::ScenarioSet;
use crate::scenario::dialect::{self, Dialect};
use crate::syntax::diagnostic::{Diagnostic, has_errors, render_all, suggest};
use crate::syntax::printable::is_unprintable;
use crate::syntax::source::{FileId, MAX_FILE, Sources};
use crate::transport::files::read_text;

include!(concat!(env!("OUT_DIR"), "/embedded_files.rs"));

/// A loaded protocol, with all of its errors and warnings.
pub struct LoadedProtocol {
    pub folder: PackFolder,
    pub pack: Option<Arc<Pack>>,
    pub scenarios: Option<ScenarioSet>,
    pub diagnostics: Vec<Diagnostic>,
}

/// The options that select the user's own pack.
#[derive(Args)]
pub struct PackArgs {
    /// Use your own pack instead of a built-in one: a folder with asyncapi.yaml, messages/, rules.yaml and scenarios/;
    /// a dialect (a folder with dialect.yaml); or a plain AsyncAPI document, version 2 or 3
    #[arg(long, value_name = "PATH")]
    pub pack: Option<PathBuf>,
    /// Whose operations a plain AsyncAPI document describes
    #[arg(long, value_name = "WHO", value_enum, default_value_t = DescribedParty::Hub)]
    pub perspective: DescribedParty,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DescribedParty {
    Hub,
    Client,
}

impl DescribedParty {
    pub fn perspective(self) -> Perspective {
        match self {
            Self::Hub => Perspective::Hub,
            Self::Client => Perspective::Client,
        }
    }
}

impl PackArgs {
    /// Returns the path given by `--pack`, or else `named`.
    pub fn path_or(&self, named: Option<String>) -> String {
        self.pack.as_ref().map(|path| path.display().to_string()).or(named).unwrap_or_default()
    }

    /// Returns the options again.
    pub fn to_arguments(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(path) = &self.pack {
            words.extend(["--pack".to_owned(), path.display().to_string()]);
        }
        if self.perspective == DescribedParty::Client {
            words.extend(["--perspective", "client"].map(str::to_owned));
        }
        words
    }
}

/// Loads the user's pack or plain AsyncAPI document at a path.
pub fn load_user_pack(
    path: &Path,
    described: DescribedParty,
    sources: &mut Sources,
) -> Result<LoadedProtocol, CliError> {
    match find_plain_document(path) {
        Some(document) => load_plain_document(&document, described, sources),
        None => Ok(load_folder(read_folder(folder_of_pack(path), sources)?, sources)),
    }
}

/// Returns the plain AsyncAPI document at a path, which may be its folder; `None` if the path is not one.
pub fn find_plain_document(path: &Path) -> Option<PathBuf> {
    match folder_of_pack(path) {
        path if path.is_file() => Some(path.to_owned()),
        path if path.is_dir() && !is_pack_folder(path) => {
            DOCUMENT_NAMES.iter().map(|name| path.join(name)).find(|path| path.is_file())
        }
        _ => None,
    }
}

/// Returns the folder of a pack: the path of the document in a pack stands for the pack.
fn folder_of_pack(path: &Path) -> &Path {
    let of_pack = [DOCUMENT_NAMES[0], dialect::DIALECT_FILE].iter().any(|name| path.ends_with(name));
    let folder = path.parent().filter(|_| path.is_file() && of_pack);
    folder.filter(|folder| is_pack_folder(folder)).unwrap_or(path)
}

/// File names of a plain document in a folder.
const DOCUMENT_NAMES: [&str; 3] = ["asyncapi.yaml", "asyncapi.yml", "asyncapi.json"];

/// Whether a folder is a hubproof pack rather than the folder of a plain document.
fn is_pack_folder(folder: &Path) -> bool {
    let ours = || read_text(&folder.join(DOCUMENT_NAMES[0]), MAX_FILE).is_ok_and(|text| text.contains("x-hubproof"));
    let has = |name: &str| folder.join(name).exists();
    has(dialect::DIALECT_FILE) || has("rules.yaml") || has("scenarios") || ours()
}

/// Reads a plain document with the files that it refers to. Returns it with its name, which is that of the file or its
/// folder.
pub fn read_plain_document(document: &Path, sources: &mut Sources) -> Result<(String, DocumentLibrary), CliError> {
    let file = read_file(document, sources)?;
    let full = document.canonicalize().unwrap_or_else(|_| document.to_owned());
    let text =
        |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default();
    let name = match text(full.file_stem()) {
        stem if stem != "asyncapi" => stem,
        _ => text(full.parent().and_then(Path::file_name)),
    };
    let base = document.parent().unwrap_or(Path::new(""));
    let root = readable_root(base);
    let mut fetch = |path: &str, sources: &mut Sources| {
        read_file_within(&base.join(path), &root, sources).map_err(|error| error.to_string())
    };
    let library = DocumentLibrary::read_files(&text(document.file_name()), file, sources, &mut fetch)
        .map_err(|diagnostic| CliError::from_diagnostics(&[diagnostic], sources))?;
    Ok((if name.is_empty() { "pack".to_owned() } else { name }, library))
}

fn load_plain_document(
    document: &Path,
    described: DescribedParty,
    sources: &mut Sources,
) -> Result<LoadedProtocol, CliError> {
    let (name, library) = read_plain_document(document, sources)?;
    let (folder, mut diagnostics) = import::import_folder(&name, &library, described.perspective(), sources);
    let mut pack = None;
    if !has_errors(&diagnostics) {
        let (made, more) = Pack::load(&folder, sources);
        diagnostics.extend(more);
        pack = made;
    }
    Ok(load_scenarios(folder, pack, diagnostics, sources))
}

/// Returns the names of the built-in protocols.
pub fn built_in_names() -> Vec<&'static str> {
    FILES.iter().filter_map(|(path, _)| path.strip_prefix("schemas/")?.strip_suffix("/asyncapi.yaml")).collect()
}

/// Returns path and text of every embedded file.
fn embedded_files() -> impl Iterator<Item = (&'static str, &'static str)> {
    static ALL: LazyLock<String> = LazyLock::new(|| {
        let mut text = String::new();
        // Cannot fail: the build script compressed text.
        let _ = DeflateDecoder::new(TEXTS).read_to_string(&mut text);
        text
    });
    FILES.iter().scan(ALL.as_str(), |rest, (path, size)| {
        let (text, after) = rest.split_at_checked(*size)?;
        *rest = after;
        Some((*path, text))
    })
}

/// Reads a built-in pack from the binary.
fn read_embedded_folder(name: &str, sources: &mut Sources) -> PackFolder {
    let within = |path: &str, root: &str| {
        Some(path.strip_prefix(root)?.strip_prefix('/')?.strip_prefix(name)?.strip_prefix('/')?.to_owned())
    };
    let files = embedded_files().filter_map(|(path, text)| {
        let inner = within(path, SCHEMAS_FOLDER)
            .or_else(|| within(path, SCENARIOS_FOLDER).map(|inner| format!("{SCENARIOS_FOLDER}/{inner}")))?;
        Some((inner, sources.add(path, text)))
    });
    PackFolder::from_files(name, files)
}

const SCHEMAS_FOLDER: &str = "schemas";
const SCENARIOS_FOLDER: &str = "scenarios";

/// Reads a pack from disk. A pack is a folder with asyncapi.yaml, messages/, rules.yaml and scenarios/; or
/// `schemas/NAME` with scenarios in `scenarios/NAME`, as in this repository; or a dialect, which is read with the pack
/// that it extends.
///
/// # Errors
///
/// The path is not a folder, a file in it cannot be read, or it is a dialect of a pack that does not exist.
pub fn read_folder(directory: &Path, sources: &mut Sources) -> Result<PackFolder, CliError> {
    read_extending_folder(directory, &[], sources)
}

/// Reads a pack from disk. `extending` are the folders of the dialects that extend it.
fn read_extending_folder(
    directory: &Path,
    extending: &[PathBuf],
    sources: &mut Sources,
) -> Result<PackFolder, CliError> {
    let shown = directory.display();
    if !directory.is_dir() {
        return Err(CliError::usage(
            format!("{shown} is not a folder"),
            "a pack is a folder with asyncapi.yaml, messages/, rules.yaml and scenarios/",
        ));
    }
    let full = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let name = full.file_name().map_or_else(|| "pack".to_owned(), |name| name.to_string_lossy().into_owned());
    let mut files = BTreeMap::new();
    collect_files(directory, directory, "", sources, &mut files)?;
    let tree = directory.parent().filter(|tree| tree.ends_with(SCHEMAS_FOLDER));
    if let Some(scenarios) =
        tree.map(|tree| tree.with_file_name(SCENARIOS_FOLDER).join(&name)).filter(|path| path.is_dir())
    {
        collect_files(&scenarios, &scenarios, &format!("{SCENARIOS_FOLDER}/"), sources, &mut files)?;
    }
    let inlined = import::inline_references(&files, sources);
    if let Some(file) = inlined.map_err(|found| CliError::from_diagnostics(&[found], sources))? {
        files.insert(DOCUMENT_NAMES[0].to_owned(), file);
    }
    let Some(file) = files.get(dialect::DIALECT_FILE) else { return Ok(PackFolder::from_files(&name, files)) };
    let dialect = Dialect::parse(*file, sources).map_err(|found| CliError::from_diagnostics(&found, sources))?;
    let extending = [extending, &[full]].concat();
    let base = read_base_folder(&dialect, directory, &extending, sources)?;
    Ok(dialect.apply(&name, &base, &files, sources))
}

/// Reads the pack that the dialect in a folder extends.
fn read_base_folder(
    dialect: &Dialect,
    directory: &Path,
    extending: &[PathBuf],
    sources: &mut Sources,
) -> Result<PackFolder, CliError> {
    let (name, known) = (dialect.extends.as_str(), built_in_names());
    if known.contains(&name) {
        return Ok(read_embedded_folder(name, sources));
    }
    let path = directory.join(name);
    let wrong = |message: String, help: String, sources: &Sources| {
        let diagnostic = Diagnostic::error(dialect.extends_span, message).help(help);
        Err(CliError::from_diagnostics(&[diagnostic], sources))
    };
    match path.canonicalize() {
        Ok(full) if extending.contains(&full) => {
            let help = "name the pack to extend: a built-in pack, or the path of a folder".to_owned();
            wrong("a dialect cannot extend itself".to_owned(), help, sources)
        }
        Ok(full) if full.is_dir() && check_within(&full, &readable_root(&directory.join(".."))).is_ok() => {
            read_extending_folder(&path, extending, sources)
        }
        _ => {
            let otherwise =
                format!("built in: {}; or the path of a pack's folder, relative to this one", known.join(", "));
            let help = suggest(name, known.iter().copied(), &otherwise);
            wrong(format!("there is no pack `{name}`"), help, sources)
        }
    }
}

/// Greatest depth of the folders of a pack that are read.
const MAX_DEPTH: usize = 6;

fn collect_files(
    directory: &Path,
    root: &Path,
    prefix: &str,
    sources: &mut Sources,
    files: &mut BTreeMap<String, FileId>,
) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::failed(format!("failed to read {}", directory.display()), error);
    if prefix.matches('/').count() > MAX_DEPTH {
        return Ok(());
    }
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name.chars().any(is_unprintable) {
            return Err(CliError::new(format!("the file {name:?} of {} needs a printable name", directory.display())));
        }
        if path.is_dir() {
            collect_files(&path, root, &format!("{prefix}{name}/"), sources, files)?;
        } else if ["yaml", "yml", "json", "toml"].iter().any(|end| name.ends_with(&format!(".{end}"))) {
            let file = read_file_within(&path, root, sources)?;
            files.insert(format!("{prefix}{name}"), file);
        }
    }
    Ok(())
}

/// Reads a file that a pack or document names, which must be inside a folder as in [`check_within`].
fn read_file_within(path: &Path, root: &Path, sources: &mut Sources) -> Result<FileId, CliError> {
    let failed = |error| CliError::failed(format!("failed to read {}", path.display()), error);
    check_within(path, root).map_err(failed)?;
    read_file(path, sources)
}

/// Checks that a file is inside `root` with all links resolved, and not hidden there: a pack may be a stranger's.
pub fn check_within(path: &Path, root: &Path) -> std::io::Result<()> {
    let (full, root) = (path.canonicalize()?, root.canonicalize()?);
    let hidden = |part: Component<'_>| part.as_os_str().to_string_lossy().starts_with('.');
    match full.strip_prefix(&root) {
        Ok(inside) if !inside.components().any(hidden) => Ok(()),
        Ok(_) => Err(std::io::Error::other("it is, or links to, a hidden file")),
        Err(_) => Err(std::io::Error::other(format!("it is, or links to, a file outside {}", root.display()))),
    }
}

/// Returns the folder with the files that a document or plan in `folder` may name: its repository, or only `folder`.
pub fn readable_root(folder: &Path) -> PathBuf {
    let full = if folder.as_os_str().is_empty() { Path::new(".") } else { folder }.canonicalize().unwrap_or_default();
    full.ancestors().find(|folder| folder.join(".git").exists()).unwrap_or(&full).to_owned()
}

/// Reads a user's file as text.
pub fn read_file(path: &Path, sources: &mut Sources) -> Result<FileId, CliError> {
    let shown = path.display().to_string();
    let text = read_text(path, MAX_FILE).map_err(|error| CliError::failed(format!("failed to read {shown}"), error))?;
    Ok(sources.add(shown, text))
}

pub fn load_folder(folder: PackFolder, sources: &Sources) -> LoadedProtocol {
    let (pack, diagnostics) = Pack::load(&folder, sources);
    load_scenarios(folder, pack, diagnostics, sources)
}

fn load_scenarios(
    folder: PackFolder,
    pack: Option<Pack>,
    mut diagnostics: Vec<Diagnostic>,
    sources: &Sources,
) -> LoadedProtocol {
    diagnostics.splice(0..0, folder.diagnostics.iter().cloned());
    let pack = pack.map(Arc::new);
    let scenarios = pack.as_ref().map(|pack| ScenarioSet::load(&folder, sources, pack));
    if let Some(scenarios) = &scenarios {
        diagnostics.extend(scenarios.diagnostics.iter().cloned());
    }
    if let Err(diagnostic) = ReferenceSetups::from_folder(&folder, sources) {
        diagnostics.push(diagnostic);
    }
    LoadedProtocol { folder, pack, scenarios, diagnostics }
}

/// A protocol without errors, ready for use.
pub struct ValidProtocol {
    pub folder: PackFolder,
    pub pack: Arc<Pack>,
    pub scenarios: ScenarioSet,
    pub setups: ReferenceSetups,
}

impl LoadedProtocol {
    /// Returns the same protocol as it judges clients of the hub; `None` if it does not.
    pub fn of_clients(&self, sources: &Sources) -> Option<Self> {
        Some(load_folder(self.folder.of_clients()?, sources))
    }

    /// Prints the warnings, or returns the errors.
    pub fn into_valid(self, sources: &Sources) -> Result<ValidProtocol, CliError> {
        match (self.pack, self.scenarios) {
            (Some(pack), Some(scenarios)) if !has_errors(&self.diagnostics) => {
                print_warnings(self.diagnostics, sources);
                let setups = ReferenceSetups::from_folder(&self.folder, sources)
                    .map_err(|d| CliError::from_diagnostics(&[d], sources))?;
                Ok(ValidProtocol { folder: self.folder, pack, scenarios, setups })
            }
            _ => Err(CliError::from_diagnostics(&self.diagnostics, sources)),
        }
    }
}

/// Prints the warnings that not only `packs lint` shows.
pub fn print_warnings(mut diagnostics: Vec<Diagnostic>, sources: &Sources) {
    diagnostics.retain(|diagnostic| !diagnostic.only_lint);
    if !diagnostics.is_empty() {
        eprintln!("{}", render_all(&diagnostics, sources, super::uses_color()));
    }
}

/// Loads a built-in protocol; `NAME-clients` is that which judges clients.
pub fn load_built_in(name: &str, sources: &mut Sources) -> Result<LoadedProtocol, CliError> {
    let known = built_in_names();
    let of_clients = name.strip_suffix(OF_CLIENTS).filter(|hub| known.contains(hub));
    if let Some(folder) = of_clients.and_then(|hub| read_embedded_folder(hub, sources).of_clients()) {
        return Ok(load_folder(folder, sources));
    }
    if !known.contains(&name) {
        let help = suggest(
            name,
            known.iter().copied(),
            &format!("built in: {}; for your own pack or an AsyncAPI document: --pack PATH", known.join(", ")),
        );
        return Err(CliError::usage(format!("there is no protocol `{name}`"), help));
    }
    let folder = read_embedded_folder(name, sources);
    Ok(load_folder(folder, sources))
}
