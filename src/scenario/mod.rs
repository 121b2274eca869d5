//! The scenario language: scenarios are parsed, checked and compiled before any socket opens. Its reference is
//! docs/src/scenario-language.md.

pub mod compose;
pub mod dialect;
pub mod expression;
pub mod fences;
pub mod functions;
mod handshake;
pub mod model;
pub mod parse;
mod size_limits;
pub mod template;
pub mod unusual_values;
pub mod value;
pub mod variation;
pub mod writer;

use std::sync::Arc;

use crate::protocol::{Pack, PackFolder};
use crate::syntax::diagnostic::{Diagnostic, suggest, without_duplicates};
use crate::syntax::fields::check_name;
use crate::syntax::source::{Sources, Span};
use crate::syntax::yaml;

pub use model::{Isolation, Need, Program, SharedDefinitions, first_cases_first};
pub use parse::SharedFile;

/// All scenarios of a folder in the order of their names, with all diagnostics.
pub struct ScenarioSet {
    pub shared: Arc<SharedDefinitions>,
    pub programs: Vec<Arc<Program>>,
    pub diagnostics: Vec<Diagnostic>,
    /// Warnings that only `packs lint` shows.
    pub hints: Vec<Diagnostic>,
}

impl ScenarioSet {
    pub fn load(folder: &PackFolder, sources: &Sources, pack: &Arc<Pack>) -> Self {
        let mut diagnostics = Vec::new();
        let shared = load_shared(folder, sources, pack, &mut diagnostics);
        diagnostics.extend(shared.check(pack));
        for message in &pack.messages {
            for role in message.roles.iter().filter(|role| !shared.shared.roles.contains_key(*role)) {
                let what = format!("`{}` goes to the role `{role}`, which shared.yaml does not have", message.name);
                let known = shared.shared.roles.keys().map(String::as_str);
                diagnostics.push(Diagnostic::error(message.span, what).help(suggest(role, known, "")));
            }
        }
        let named = folder.scenarios.iter().filter_map(|(path, file)| {
            let name = path.strip_suffix(".yaml").filter(|name| *name != "shared" && !name.contains('/'))?;
            Some((name, file))
        });
        for (name, file) in named.clone() {
            check_name(name, "a scenario", Span::new(*file, 0..0), &mut diagnostics);
        }
        diagnostics.extend(shared.check_exceptions(&named.clone().map(|(name, _)| name).collect::<Vec<_>>()));
        let mut programs = Vec::new();
        for (name, file) in named {
            match yaml::parse(sources, *file) {
                Err(diagnostic) => diagnostics.push(diagnostic),
                Ok(root) => {
                    let (parsed, found) =
                        parse::parse_scenario_file(&format!("{}/{name}", folder.name), &root, &shared, pack);
                    diagnostics.extend(found);
                    programs.extend(parsed.into_iter().map(Arc::new));
                }
            }
        }
        diagnostics.extend(handshake::missing_handshakes(&programs, &shared, pack));
        let hints = fences::missing_fences(&programs, &shared);
        // Every scenario that uses shared.yaml reports its mistakes again.
        Self { shared: Arc::clone(&shared.shared), programs, diagnostics: without_duplicates(diagnostics), hints }
    }
}

/// Parses the shared.yaml of a folder; a folder without one has an empty one.
pub fn load_shared(
    folder: &PackFolder,
    sources: &Sources,
    pack: &Pack,
    diagnostics: &mut Vec<Diagnostic>,
) -> SharedFile {
    let root = match folder.scenarios.get("shared.yaml").map(|file| yaml::parse(sources, *file)) {
        Some(Ok(root)) => root,
        Some(Err(diagnostic)) => {
            diagnostics.push(diagnostic);
            empty_mapping()
        }
        None => empty_mapping(),
    };
    SharedFile::parse(root, pack, diagnostics)
}

fn empty_mapping() -> yaml::SyntaxNode {
    let mut sources = Sources::default();
    let file = sources.add("shared.yaml", "");
    yaml::SyntaxNode { span: crate::syntax::source::Span::new(file, 0..0), kind: yaml::NodeKind::Null }
}
