//! Dialects: a folder that overrides single files, messages, rules, roles and steps of a pack that it extends.
//!
//! Overrides work on the trees of the files, before packs and scenarios are parsed. The result is a [`PackFolder`] like
//! any other, and the spans in its trees still point to the file that each part comes from. An override that no longer
//! applies to the pack is an error.

mod overrides;
mod rules;
mod steps;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::PackFolder;
use crate::syntax::diagnostic::{Diagnostic, nearest, suggest, suggest_or_list};
use crate::syntax::fields::{entries, list, table, text};
use crate::syntax::source::{FileId, Sources, Span};
use crate::syntax::yaml;

/// The file that makes a folder a dialect.
pub const DIALECT_FILE: &str = "dialect.yaml";

/// The contents of a dialect.yaml.
pub struct Dialect {
    /// The name of a built-in pack, or a path to the folder of a pack.
    pub extends: String,
    pub extends_span: Span,
    pub name: Option<String>,
    /// The parts that the dialect adds to the pack, such as `rule ABC-001`.
    added: Vec<(String, Span)>,
}

const DIALECT_KEYS: [&str; 4] = ["extends", "name", "reason", "add"];

impl Dialect {
    /// Parses dialect.yaml.
    ///
    /// # Errors
    /// All mistakes, with their places.
    pub fn parse(file: FileId, sources: &Sources) -> Result<Self, Vec<Diagnostic>> {
        let root = yaml::parse(sources, file).map_err(|diagnostic| vec![diagnostic])?;
        let mut errors = Vec::new();
        let dialect = table(&root, &DIALECT_KEYS, DIALECT_FILE, &mut errors);
        let help = "write `extends: NAME` with the name of a built-in pack, or the path to the folder of a pack";
        let extends = dialect.required("extends", help, &mut errors);
        let base = text(extends, "`extends`", &mut errors).map(str::to_owned);
        text(root.get("reason"), "`reason`", &mut errors);
        let name = text(root.get("name"), "`name`", &mut errors).map(str::to_owned);
        if let (Some(name), Some(node)) = (&name, root.get("name"))
            && !is_name(name)
        {
            let help = "write letters, digits, `-` and `_`, such as `name: our-hub`";
            errors.push(Diagnostic::error(node.span, format!("`{name}` is not a valid name for a pack")).help(help));
        }
        let mut added = Vec::new();
        for item in list(root.get("add"), "`add`", ADD_EXAMPLE, &mut errors) {
            added.extend(text(Some(item), "an entry of `add`", &mut errors).map(|text| (text.to_owned(), item.span)));
        }
        match (base, extends) {
            (Some(base), Some(node)) if errors.is_empty() => {
                Ok(Self { extends: base, extends_span: node.span, name, added })
            }
            _ => Err(errors),
        }
    }

    /// Returns the pack `base` with the overrides of the dialect applied. Overrides that no longer apply are reported
    /// in the diagnostics of the folder. `name` is the name of the dialect's folder, `files` are its files by path.
    pub fn apply(
        &self,
        name: &str,
        base: &PackFolder,
        files: &BTreeMap<String, FileId>,
        sources: &mut Sources,
    ) -> PackFolder {
        let stale = StaleOverrides::new(self, &base.name);
        let mut merged: BTreeMap<String, FileId> = base.pack.iter().map(|(path, file)| (path.clone(), *file)).collect();
        merged.extend(base.scenarios.iter().map(|(path, file)| (format!("scenarios/{path}"), *file)));
        rules::remove_rules(files.get("rules.yaml").copied(), &mut merged, sources);
        let before = schemas_in_use(&merged, sources);
        for (path, file) in files.iter().filter(|(path, _)| *path != DIALECT_FILE) {
            if !PackFolder::is_pack_path(path) {
                stale.report_misnamed(path, Span::new(*file, 0..0));
            } else if let Err(diagnostic) = override_file(path, *file, &mut merged, &stale, sources) {
                stale.report(diagnostic);
            }
        }
        // Drop schemas that only overridden or removed messages referred to.
        let after = schemas_in_use(&merged, sources);
        merged.retain(|path, _| files.contains_key(path) || after.contains(path) || !before.contains(path));
        let diagnostics = base.diagnostics.iter().cloned().chain(stale.finish(&merged)).collect();
        PackFolder { diagnostics, ..PackFolder::from_files(self.name.as_deref().unwrap_or(name), merged) }
    }
}

/// Overrides the pack's file `path` with that of the dialect.
fn override_file(
    path: &str,
    file: FileId,
    merged: &mut BTreeMap<String, FileId>,
    stale: &StaleOverrides<'_>,
    sources: &mut Sources,
) -> Result<(), Diagnostic> {
    let start = Span::new(file, 0..0);
    let shown = sources.file(file).path.clone();
    let old = merged.get(path).copied();
    let added = |stale: &StaleOverrides<'_>, removes: bool| {
        stale.check_added(path, path, start, removes, &merged.keys().map(String::as_str).collect::<Vec<_>>())
    };
    if path.ends_with(".toml") {
        match old {
            Some(old) => stale.check_override(path, start, sources.file(old).text != sources.file(file).text),
            None if !added(stale, false) => return Ok(()),
            None => {}
        }
        merged.insert(path.to_owned(), file);
        return Ok(());
    }
    let over = yaml::parse(sources, file)?;
    let old_tree = old.map(|old| yaml::parse(sources, old)).transpose()?;
    if overrides::is_overridden_by_entry(path) && over.map().is_some() {
        let tree = overrides::merge_file(path, old_tree, &over, stale);
        merged.insert(path.to_owned(), sources.add_tree(shown, tree));
        return Ok(());
    }
    let Some(old_tree) = old_tree else {
        if added(stale, over.is_null()) {
            merged.insert(path.to_owned(), file);
        }
        return Ok(());
    };
    if over.is_null() {
        stale.check_override(path, start, true);
        merged.remove(path);
        return Ok(());
    }
    let before = stale.diagnostic_count();
    let (new, file) = match steps::change_steps(path, &old_tree, &over, stale) {
        Some(tree) => (tree.to_json(), sources.add_tree(shown, tree)),
        None => (over.to_json(), file),
    };
    stale.check_override(path, start, new != old_tree.to_json() || stale.diagnostic_count() > before);
    merged.insert(path.to_owned(), file);
    Ok(())
}

/// The help for an override that changes nothing.
const UNCHANGED_HELP: &str = "delete this override: a dialect contains only differences";

const ADD_EXAMPLE: &str = "add: [rule ABC-001, role admin, scenarios/more.yaml]";

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
}

/// Returns the schema files that messages refer to.
fn schemas_in_use(files: &BTreeMap<String, FileId>, sources: &Sources) -> BTreeSet<String> {
    let document = files.get("asyncapi.yaml").and_then(|file| yaml::parse(sources, *file).ok());
    let messages = document.as_ref().map(|document| document.at_pointer("/components/messages"));
    let payloads = entries(messages).iter().filter_map(|(_, message)| message.get("payload"));
    let paths = payloads.filter_map(|payload| payload.get("$ref")?.text());
    paths.map(|path| path.trim_start_matches("./").to_owned()).collect()
}

/// Collects overrides that no longer apply, and the additions that were found.
struct StaleOverrides<'d> {
    dialect: &'d Dialect,
    base: &'d str,
    diagnostics: RefCell<Vec<Diagnostic>>,
    added: RefCell<BTreeSet<String>>,
}

impl<'d> StaleOverrides<'d> {
    fn new(dialect: &'d Dialect, base: &'d str) -> Self {
        Self { dialect, base, diagnostics: RefCell::default(), added: RefCell::default() }
    }

    fn report(&self, diagnostic: Diagnostic) {
        self.diagnostics.borrow_mut().push(diagnostic);
    }

    /// Returns the number of diagnostics so far. An override with a mistake need not change anything.
    fn diagnostic_count(&self) -> usize {
        self.diagnostics.borrow().len()
    }

    /// Whether `what`, which the base does not have, is declared as an addition; reports an error if not. `known` are
    /// the names that the base has, to suggest one of them for `name`.
    fn check_added(&self, what: &str, name: &str, span: Span, removes: bool, known: &[&str]) -> bool {
        if !removes && self.dialect.added.iter().any(|(added, _)| added == what) {
            self.added.borrow_mut().insert(what.to_owned());
            return true;
        }
        let otherwise = match removes {
            true => "delete this entry if there is nothing to remove".to_owned(),
            false => format!("if it is new, write `add: [{what}]` in {DIALECT_FILE}"),
        };
        let verb = if removes { "remove" } else { "override" };
        let shown = describe_overridden(what);
        self.report(Diagnostic::error(span, format!("`{}` has no {shown} to {verb}", self.base)).help(suggest(
            name,
            known.iter().copied(),
            &otherwise,
        )));
        false
    }

    /// Reports a file that packs do not have, if its name is similar to one that they have.
    fn report_misnamed(&self, path: &str, start: Span) {
        let known = ["asyncapi.yaml", "rules.yaml", "scenarios/shared.yaml", DIALECT_FILE];
        if let Some(near) = nearest(path, known) {
            let message = format!("no pack has a file {path}");
            self.report(Diagnostic::error(start, message).help(format!("did you mean {near}?")));
        }
    }

    /// Reports an override of `what`, which the base has, if it changes nothing or is declared as an addition.
    fn check_override(&self, what: &str, span: Span, changes: bool) {
        if let Some((_, span)) = self.dialect.added.iter().find(|(added, _)| added == what) {
            self.added.borrow_mut().insert(what.to_owned());
            let message =
                format!("`{}` already has {}, so it is not an addition", self.base, describe_overridden(what));
            self.report(Diagnostic::error(*span, message).help("remove it from `add`; the dialect then overrides it"));
        }
        if !changes {
            let message = format!("{} is the same in `{}`", describe_overridden(what), self.base);
            self.report(Diagnostic::error(span, message).help(UNCHANGED_HELP));
        }
    }

    /// Returns all diagnostics, including those about additions that do not exist.
    fn finish(self, files: &BTreeMap<String, FileId>) -> Vec<Diagnostic> {
        let found = self.added.into_inner();
        let mut diagnostics = self.diagnostics.into_inner();
        for (what, span) in self.dialect.added.iter().filter(|(what, _)| !found.contains(what)) {
            let kinds = overrides::addition_kinds();
            let known: Vec<&str> = files.keys().map(String::as_str).collect();
            let help = match what.split_once(' ') {
                Some((kind, _)) if !kinds.contains(&kind) => suggest_or_list(kind, kinds, "the kinds are"),
                _ if what.contains(' ') => "define it in its file, or remove it from `add`".to_owned(),
                _ => suggest(what, known, "name a file of this folder, or a KIND and a NAME, such as `rule ABC-001`"),
            };
            diagnostics.push(
                Diagnostic::error(*span, format!("the dialect adds no {}", describe_overridden(what))).help(help),
            );
        }
        diagnostics
    }
}

/// Returns the words for an overridden part in a sentence: "rule `ABC-001`", "file scenarios/x.yaml".
fn describe_overridden(what: &str) -> String {
    match what.split_once(' ') {
        Some((kind, name)) => format!("{kind} `{name}`"),
        None => format!("file {what}"),
    }
}

#[cfg(test)]
mod tests;
