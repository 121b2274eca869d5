//! Reads the protocols of this repository from disk, not from the binary, so that edits take effect at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use hubproof::cli::protocol_files::read_folder;
use hubproof::protocol::{Pack, PackFolder};
use hubproof::scenario::{SharedFile, load_shared};
use hubproof::syntax::diagnostic::render_all;
use hubproof::syntax::source::Sources;

pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The package in fuzz/ has this module, too.
    if package.ends_with("fuzz") { package.parent().unwrap() } else { package }
}

/// Returns the names of all protocols, sorted: folders of schemas/ with an asyncapi.yaml.
pub fn protocols() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root().join("schemas"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("asyncapi.yaml").is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 2, "{names:?}");
    names
}

/// Returns the protocols with messages; WebSocket itself has none.
pub fn protocols_with_messages() -> Vec<String> {
    protocols().into_iter().filter(|name| root().join("schemas").join(name).join("messages").is_dir()).collect()
}

/// Reads the files of a protocol, as `--pack schemas/NAME` does.
pub fn protocol_folder(protocol: &str, sources: &mut Sources) -> PackFolder {
    assert!(std::env::current_dir().unwrap().ends_with(root()), "tests run in the folder of their package");
    read_folder(&Path::new("schemas").join(protocol), sources).unwrap()
}

/// Parses a pack that must be valid.
pub fn pack(protocol: &str) -> Arc<Pack> {
    let mut sources = Sources::default();
    let folder = protocol_folder(protocol, &mut sources);
    let (pack, diagnostics) = Pack::load(&folder, &sources);
    assert!(diagnostics.is_empty(), "{}", render_all(&diagnostics, &sources, false));
    Arc::new(pack.unwrap())
}

/// The concierge pack, read once for the tests of the language.
pub struct ConciergePack {
    /// A test adds its own file to a clone.
    pub sources: Sources,
    pub pack: Arc<Pack>,
    pub shared: SharedFile,
}

pub static CONCIERGE: LazyLock<ConciergePack> = LazyLock::new(|| {
    let mut sources = Sources::default();
    let folder = protocol_folder("concierge", &mut sources);
    let pack = pack("concierge");
    let mut diagnostics = Vec::new();
    let shared = load_shared(&folder, &sources, &pack, &mut diagnostics);
    assert!(diagnostics.is_empty(), "{}", render_all(&diagnostics, &sources, false));
    ConciergePack { sources, pack, shared }
});

/// Returns every file below a folder; none if the folder is missing.
pub fn files_under(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(files_under(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Copies a built-in protocol into a user's folder, as a pack with its scenarios.
pub fn copy_pack(protocol: &str, to: &Path) {
    for (from, to) in [("schemas", to.to_owned()), ("scenarios", to.join("scenarios"))] {
        copy_folder(&root().join(from).join(protocol), &to);
    }
}

pub fn copy_folder(from: &Path, to: &Path) {
    for file in files_under(from) {
        let copy = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(&file, copy).unwrap();
    }
}

/// Returns the protocol that a file or folder belongs to: `qi` for `schemas/qi/messages`. Tests that hold for every
/// protocol take their cases from the folders of schemas/, so that a new protocol is in all of them.
pub fn protocol_name(path: &Path) -> String {
    let inner = path.strip_prefix(root().join("schemas")).unwrap();
    inner.iter().next().unwrap().to_str().unwrap().to_owned()
}
