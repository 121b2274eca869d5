//! The scenario language: scenarios are parsed, checked and compiled before any socket opens. Its reference is
//! docs/src/scenario-language.md.

pub mod compose;
pub mod dialect;
pub mod expression;
pub mod functions;
pub mod model;
pub mod parse;
pub mod template;
pub mod value;
pub mod writer;

use std::sync::Arc;

use crate::protocol::{Folder, Pack};
use crate::syntax::diagnostic::{Diagnostic, distinct};
use crate::syntax::source::Sources;
use crate::syntax::yaml;

pub use model::{Isolation, Need, Program, Shared};
pub use parse::SharedFile;

/// All scenarios of a folder in the order of their names, with all diagnostics.
pub struct Scenarios {
    pub shared: Arc<Shared>,
    pub programs: Vec<Arc<Program>>,
    pub diagnostics: Vec<Diagnostic>,
}

impl Scenarios {
    pub fn load(folder: &Folder, sources: &Sources, pack: &Arc<Pack>) -> Self {
        let mut diagnostics = Vec::new();
        let shared = shared(folder, sources, pack, &mut diagnostics);
        diagnostics.extend(shared.check(pack));
        let mut programs = Vec::new();
        for (path, file) in &folder.scenarios {
            let Some(name) = path.strip_suffix(".yaml").filter(|name| *name != "shared" && !name.contains('/')) else {
                continue;
            };
            match yaml::parse(sources, *file) {
                Err(diagnostic) => diagnostics.push(diagnostic),
                Ok(root) => {
                    let (program, found) = parse::read(&format!("{}/{name}", folder.name), &root, &shared, pack);
                    diagnostics.extend(found);
                    programs.extend(program.map(Arc::new));
                }
            }
        }
        // Every scenario that uses shared.yaml reports its mistakes again.
        Self { shared: Arc::clone(&shared.shared), programs, diagnostics: distinct(diagnostics) }
    }
}

/// Reads shared.yaml of a folder, or returns an empty one if there is none.
pub fn shared(folder: &Folder, sources: &Sources, pack: &Pack, diagnostics: &mut Vec<Diagnostic>) -> SharedFile {
    let root = match folder.scenarios.get("shared.yaml").map(|file| yaml::parse(sources, *file)) {
        Some(Ok(root)) => root,
        Some(Err(diagnostic)) => {
            diagnostics.push(diagnostic);
            empty()
        }
        None => empty(),
    };
    SharedFile::read(root, pack, diagnostics)
}

fn empty() -> yaml::Node {
    let mut sources = Sources::default();
    let file = sources.add("shared.yaml", "");
    yaml::Node { span: crate::syntax::source::Span::new(file, 0..0), kind: yaml::Kind::Null }
}
