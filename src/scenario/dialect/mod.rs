//! Dialects: a folder that overrides single files, messages, rules, roles and steps of a pack that it extends.
//!
//! All of it is done with the trees of the files, before packs and scenarios are parsed: the result is a [`Folder`] like
//! any other, whose trees still have the places where their parts stand. What no longer applies to the pack is an error.

mod overrides;
mod rules;
mod steps;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::Folder;
use crate::syntax::diagnostic::{Diagnostic, suggest, suggest_one};
use crate::syntax::source::{FileId, Sources, Span};
use crate::syntax::yaml::{self, Kind, Node};

/// The file that makes a folder a dialect.
pub const FILE: &str = "dialect.yaml";

/// A dialect.yaml.
pub struct Dialect {
    /// The name of a built-in pack, or a path to the folder of a pack.
    pub extends: String,
    pub extends_span: Span,
    pub name: Option<String>,
    /// What the dialect has and the pack has not, such as `rule ABC-001`.
    added: Vec<(String, Span)>,
}

const KEYS: [&str; 4] = ["extends", "name", "reason", "add"];

impl Dialect {
    /// Parses dialect.yaml.
    ///
    /// # Errors
    /// All mistakes, with their places.
    pub fn read(file: FileId, sources: &Sources) -> Result<Self, Vec<Diagnostic>> {
        let root = yaml::parse(sources, file).map_err(|diagnostic| vec![diagnostic])?;
        let mut diagnostics = Vec::new();
        let mut wrong = |span, what: String, help: String| diagnostics.push(Diagnostic::error(span, what).help(help));
        let mut extends = None;
        let mut name = None;
        let mut added = Vec::new();
        for (key, node) in root.map().unwrap_or_default() {
            match (key.name.as_str(), &node.kind) {
                ("extends", Kind::Text(text)) => extends = Some((text.value.clone(), node.span)),
                ("name", Kind::Text(text)) if is_name(&text.value) => name = Some(text.value.clone()),
                ("name", _) => {
                    let help = "letters, digits, `-` and `_`, such as `name: our-hub`";
                    wrong(node.span, "`name` is no name of a pack".to_owned(), help.to_owned());
                }
                ("reason", Kind::Text(_)) => {}
                ("add", Kind::List(items)) => {
                    for item in items {
                        match item.text() {
                            Some(text) => added.push((text.to_owned(), item.span)),
                            None => wrong(item.span, format!("`add` names what is new, not {}", item.what()), ADD.into()),
                        }
                    }
                }
                ("add", _) => wrong(node.span, format!("`add` is a list, not {}", node.what()), ADD.into()),
                (known, _) if KEYS.contains(&known) => {
                    wrong(node.span, format!("`{known}` is text, not {}", node.what()), format!("write `{known}: TEXT`"));
                }
                (unknown, _) => {
                    let help = suggest_one(unknown, KEYS, "it has");
                    wrong(key.span, format!("{FILE} has no key `{unknown}`"), help);
                }
            }
        }
        if root.get("extends").is_none() {
            let help = "name a built-in pack, or the path of a pack's folder: write `extends: NAME`";
            wrong(root.span, format!("{FILE} does not say what it extends"), help.to_owned());
        }
        match extends {
            Some((extends, extends_span)) if diagnostics.is_empty() => Ok(Self { extends, extends_span, name, added }),
            _ => Err(diagnostics),
        }
    }

    /// Returns the pack `base` as the files of the dialect override it, with all that no longer applies to it. `files` are
    /// those of the dialect, by path within its folder.
    pub fn apply(
        &self,
        name: &str,
        base: &Folder,
        files: &BTreeMap<String, FileId>,
        sources: &mut Sources,
    ) -> (Folder, Vec<Diagnostic>) {
        let stale = Stale::new(self, &base.name);
        let mut merged: BTreeMap<String, FileId> = base.pack.iter().map(|(path, file)| (path.clone(), *file)).collect();
        merged.extend(base.scenarios.iter().map(|(path, file)| (format!("scenarios/{path}"), *file)));
        rules::remove(files.get("rules.yaml").copied(), &mut merged, sources);
        let before = schemas_in_use(&merged, sources);
        for (path, file) in files.iter().filter(|(path, _)| *path != FILE) {
            let start = Span::new(*file, 0..0);
            let parsed = path.ends_with(".toml").then(|| Ok(None)).unwrap_or_else(|| yaml::parse(sources, *file).map(Some));
            let over = match parsed {
                Ok(over) => over,
                Err(diagnostic) => {
                    stale.report(diagnostic);
                    continue;
                }
            };
            let of_base = merged.get(path).map(|file| (*file, yaml::parse(sources, *file).ok()));
            if let Some(over) = &over
                && overrides::has_entries(path)
                && !over.is_null()
            {
                let of_base = of_base.and_then(|(_, tree)| tree);
                let tree = overrides::merged(path, of_base, over, &stale);
                merged.insert(path.clone(), sources.add_tree(sources.file(*file).path.clone(), tree));
                continue;
            }
            let removes = over.as_ref().is_some_and(Node::is_null);
            let Some((old, old_tree)) = of_base else {
                if stale.is_added(path, path, start, removes, &merged.keys().map(String::as_str).collect::<Vec<_>>()) {
                    merged.insert(path.clone(), *file);
                }
                continue;
            };
            stale.overrides(path);
            match (over, old_tree) {
                (Some(over), _) if over.is_null() => drop(merged.remove(path)),
                (Some(over), Some(old)) => match steps::changed(path, &old, &over, &stale) {
                    Some(tree) => {
                        let path_shown = sources.file(*file).path.clone();
                        merged.insert(path.clone(), sources.add_tree(path_shown, tree));
                    }
                    None => {
                        stale.differs(path, start, old.to_json() != over.to_json());
                        merged.insert(path.clone(), *file);
                    }
                },
                _ => {
                    stale.differs(path, start, sources.file(old).text != sources.file(*file).text);
                    merged.insert(path.clone(), *file);
                }
            }
        }
        // A schema that only overridden or removed messages had is of no use.
        let after = schemas_in_use(&merged, sources);
        merged.retain(|path, _| files.contains_key(path) || after.contains(path) || !before.contains(path));
        let mut folder = Folder::of(name, merged.clone());
        folder.name = name.to_owned();
        (folder, stale.finish(&merged))
    }
}

const ADD: &str = "such as `add: [rule ABC-001, role admin, scenarios/more.yaml]`";

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
}

/// Returns the schema files that messages refer to.
fn schemas_in_use(files: &BTreeMap<String, FileId>, sources: &Sources) -> BTreeSet<String> {
    let document = files.get("asyncapi.yaml").and_then(|file| yaml::parse(sources, *file).ok());
    let messages = document.as_ref().map(|document| document.at_pointer("/components/messages"));
    let payloads = messages.and_then(Node::map).unwrap_or_default().iter().filter_map(|(_, message)| message.get("payload"));
    let paths = payloads.filter_map(|payload| payload.get("$ref")?.text());
    paths.map(|path| path.trim_start_matches("./").to_owned()).collect()
}

/// Collects what no longer applies, and which additions were found.
struct Stale<'d> {
    dialect: &'d Dialect,
    base: &'d str,
    diagnostics: RefCell<Vec<Diagnostic>>,
    added: RefCell<BTreeSet<String>>,
}

impl<'d> Stale<'d> {
    fn new(dialect: &'d Dialect, base: &'d str) -> Self {
        Self { dialect, base, diagnostics: RefCell::default(), added: RefCell::default() }
    }

    fn report(&self, diagnostic: Diagnostic) {
        self.diagnostics.borrow_mut().push(diagnostic);
    }

    /// Whether `what`, which the base does not have, is declared as new; reports it otherwise. `known` are the names that
    /// the base has instead of `name`.
    fn is_added(&self, what: &str, name: &str, span: Span, removes: bool, known: &[&str]) -> bool {
        if !removes && self.dialect.added.iter().any(|(added, _)| added == what) {
            self.added.borrow_mut().insert(what.to_owned());
            return true;
        }
        let otherwise = match removes {
            true => "nothing is left to remove".to_owned(),
            false => format!("if it is new, write `add: [{what}]` in {FILE}"),
        };
        let verb = if removes { "remove" } else { "override" };
        let shown = shown(what);
        self.report(
            Diagnostic::error(span, format!("`{}` has no {shown} to {verb}", self.base))
                .help(suggest(name, known.iter().copied(), &otherwise)),
        );
        false
    }

    /// Reports `what` if it is declared as new, although the base has it.
    fn overrides(&self, what: &str) {
        if let Some((_, span)) = self.dialect.added.iter().find(|(added, _)| added == what) {
            self.added.borrow_mut().insert(what.to_owned());
            let message = format!("`{}` has {} of its own, so it is not new", self.base, shown(what));
            self.report(Diagnostic::error(*span, message).help("leave it out of `add`, and what stands here overrides it"));
        }
    }

    /// Reports an override of `what` that changes nothing.
    fn differs(&self, what: &str, span: Span, differs: bool) {
        if !differs {
            let message = format!("{} is the same in `{}`", shown(what), self.base);
            self.report(Diagnostic::error(span, message).help("delete it here: a dialect holds only what differs"));
        }
    }

    /// Returns all diagnostics, with those of additions that do not exist.
    fn finish(self, files: &BTreeMap<String, FileId>) -> Vec<Diagnostic> {
        let found = self.added.into_inner();
        let mut diagnostics = self.diagnostics.into_inner();
        for (what, span) in self.dialect.added.iter().filter(|(what, _)| !found.contains(what)) {
            let kinds = overrides::kinds();
            let known: Vec<&str> = files.keys().map(String::as_str).collect();
            let help = match what.split_once(' ') {
                Some((kind, _)) if !kinds.contains(&kind) => suggest_one(kind, kinds, "there are"),
                _ if what.contains(' ') => "write it into its file, or delete it here".to_owned(),
                _ => suggest(what, known, "name a file of this folder, or a KIND and a NAME, such as `rule ABC-001`"),
            };
            diagnostics.push(Diagnostic::error(*span, format!("the dialect adds no {}", shown(what))).help(help));
        }
        diagnostics
    }
}

/// Returns what is overridden for a sentence: "rule `ABC-001`", "file scenarios/x.yaml".
fn shown(what: &str) -> String {
    match what.split_once(' ') {
        Some((kind, name)) => format!("{kind} `{name}`"),
        None => format!("file {what}"),
    }
}
