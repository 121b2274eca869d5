//! Parses the tree into a [`Target`]: one function per table, each of which continues after an error.

mod hooks;
mod settings;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use self::settings::Level;
use super::overrides::{Change, Override, insert};
use super::{DEFAULT_PATIENCE, DEFAULT_QUIET, Declared, HookSpec, Instance, ONLY_INSTANCE, Target, TlsOptions};
use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::fields::{Table, flag, integer, list, table, time_above_zero};
use crate::syntax::source::{FileId, Sources, Span};
use crate::syntax::yaml::{Key, Node};

/// Keys of a target file; anything else that `--set` names is a setting.
pub const TOP_LEVEL: [&str; 14] = [
    "protocol",
    "url",
    "connections",
    "patience",
    "quiet",
    "restartable",
    "exec",
    "provides",
    "settings",
    "secrets",
    "tls",
    "instance",
    "hooks",
    "deviation",
];
const INSTANCE: [&str; 7] = ["name", "url", "exec", "provides", "settings", "secrets", "hooks"];
const TLS: [&str; 2] = ["ca", "insecure"];

/// Maximum value of `connections`.
const MOST_CONNECTIONS: u64 = 1_000_000;
/// Maximum number of instances of a target.
const MOST_INSTANCES: usize = 1000;
/// Maximum number of errors that are reported.
const MOST_ERRORS: usize = 200;

pub(super) fn target(
    sources: &mut Sources,
    mut root: Node,
    complete: bool,
    overrides: &[Override],
    environment: &dyn Fn(&str) -> Option<String>,
    read: &dyn Fn(&str) -> io::Result<String>,
    mut errors: Vec<Diagnostic>,
) -> Result<Target, Vec<Diagnostic>> {
    errors.truncate(MOST_ERRORS);
    let home = root.span;
    let changes: Vec<Change> =
        overrides.iter().map(|o| o.change(sources, home.file, &TOP_LEVEL, &mut errors)).collect();
    let broken_lines: BTreeSet<_> = errors.iter().filter_map(|e| Some(line(sources, e.span?))).collect();
    let first = errors.len();
    let own_settings = apply(&mut root, changes, &mut errors);

    let mut reading = Reading { sources, environment, read, home, complete, errors };
    let over = own_settings.into_iter().filter_map(|change| reading.overriding(change.path, change.value)).collect();
    let target = reading.target(&root, over);
    let Reading { mut errors, .. } = reading;
    // Report a syntax error once, without further errors from the same line.
    let mut echoes = errors.split_off(first);
    echoes.truncate(MOST_ERRORS);
    errors
        .extend(echoes.into_iter().filter(|e| e.span.is_none_or(|span| !broken_lines.contains(&line(sources, span)))));
    errors.sort_by_cached_key(|e| (e.span.map(|span| (span.file != home.file, span.start)), e.message.clone()));
    errors.dedup();
    match target {
        Some(target) if errors.is_empty() => Ok(target),
        _ => Err(errors),
    }
}

/// Applies overrides to the file's tree. Returns the overrides of settings, which apply to every instance.
fn apply(root: &mut Node, changes: Vec<Change>, errors: &mut Vec<Diagnostic>) -> Vec<Change> {
    let mut own_settings = Vec::new();
    for change in changes {
        match change.path[0].name.as_str() {
            "settings" | "secrets" if change.path.len() > 1 => own_settings.push(change),
            "instance" => match no_such_instance(root, &change.path) {
                Some(error) => errors.push(error),
                None => insert(root, &change.path, change.value),
            },
            "url" => {
                for path in urls_of_instances(root, &change.path[0]) {
                    insert(root, &path, change.value.clone());
                }
                insert(root, &change.path, change.value);
            }
            key if TOP_LEVEL.contains(&key) => insert(root, &change.path, change.value),
            _ => errors.push(no_such_path(&change.path)),
        }
    }
    own_settings
}

/// Returns the path of each instance's URL.
fn urls_of_instances(root: &Node, url: &Key) -> Vec<[Key; 3]> {
    let key = |name: &str| Key { name: name.to_owned(), span: url.span };
    let instances = root.get("instance").and_then(Node::list).unwrap_or_default();
    let names = instances.iter().filter_map(|i| i.get("name")?.text());
    names.map(|name| [key("instance"), key(name), key("url")]).collect()
}

/// Returns the error for an override with dots whose first part is not a key.
fn no_such_path(path: &[Key]) -> Diagnostic {
    let names: Vec<&str> = path.iter().map(|key| key.name.as_str()).collect();
    let help =
        suggest(names[0], TOP_LEVEL, &format!("to set a part of a setting, write settings.{}=VALUE", names.join(".")));
    Diagnostic::error(path[0].span, format!("a target has no key `{}`", names[0])).help(help)
}

/// Returns an error if an override names an instance that does not exist, or a whole instance.
fn no_such_instance(root: &Node, path: &[Key]) -> Option<Diagnostic> {
    let items = root.get("instance").and_then(Node::list).unwrap_or_default();
    let names = items.iter().filter_map(|item| item.get("name")?.text());
    let key = path.get(1).filter(|_| path.len() > 2).unwrap_or(&path[0]);
    if path.len() < 3 {
        let error = Diagnostic::error(key.span, "an override sets one key of an instance, not the whole instance");
        return Some(error.help("write instance.NAME.KEY=VALUE"));
    }
    if names.clone().any(|name| name == key.name) {
        return None;
    }
    let error = Diagnostic::error(key.span, format!("no instance is named `{}`", key.name));
    Some(error.help(suggest(&key.name, names, "")))
}

fn line(sources: &Sources, span: Span) -> (FileId, usize) {
    (span.file, sources.line_column(span).0)
}

struct Reading<'a> {
    sources: &'a Sources,
    environment: &'a dyn Fn(&str) -> Option<String>,
    read: &'a dyn Fn(&str) -> io::Result<String>,
    /// The span of the file's root; spans in other files come from overrides.
    home: Span,
    /// Whether the whole file could be parsed, so that an absent key really is missing.
    complete: bool,
    errors: Vec<Diagnostic>,
}

impl Reading<'_> {
    fn target(&mut self, root: &Node, over: Vec<Level>) -> Option<Target> {
        let before = self.errors.len();
        let target = table(root, &TOP_LEVEL, "a target", &mut self.errors).at(self.home.part(0..0));
        let protocol = root.get("protocol").and_then(|node| self.name(node, "a protocol"));
        let connections = integer(root.get("connections"), "`connections`", 1..=MOST_CONNECTIONS, &mut self.errors);
        let patience = time_above_zero(root.get("patience"), "`patience`", &mut self.errors);
        let quiet = time_above_zero(root.get("quiet"), "`quiet`", &mut self.errors);
        let restartable = flag(root.get("restartable"), "`restartable`", &mut self.errors);
        let exec = root.get("exec").and_then(|node| self.exec(node));
        let tls = root.get("tls").map(|node| self.tls(node)).unwrap_or_default();
        let hooks = root.get("hooks").map(|node| self.hooks(node)).unwrap_or_default();
        let instances = self.instances(&target, &over, &hooks);
        let (deviations, deviation_secrets) = self.deviations(root);
        (self.errors.len() == before).then(|| Target {
            protocol,
            instances,
            connections: connections.and_then(|number| usize::try_from(number).ok()),
            patience: patience.unwrap_or(DEFAULT_PATIENCE),
            quiet: quiet.unwrap_or(DEFAULT_QUIET),
            restartable,
            exec,
            hooks,
            tls,
            deviations,
            deviation_secrets,
        })
    }

    /// Returns the `[[deviation]]` entries, and the secrets that their upgrades send.
    fn deviations(&mut self, root: &Node) -> (Vec<Declared>, Vec<String>) {
        let (mut declared, mut secrets) = (Vec::new(), Vec::new());
        for item in list(root.get("deviation"), "`deviation`", "[[deviation]]", &mut self.errors) {
            let mut item = item.clone();
            for part in ["headers", "query"] {
                let Some(pairs) = item.get("upgrade").and_then(|upgrade| upgrade.get(part)).and_then(Node::map) else {
                    continue;
                };
                for (key, value) in pairs.to_vec().iter().filter(|(_, value)| value.map().is_some()) {
                    let Some(value) = self.secret(key, value) else { continue };
                    secrets.extend(value.text().map(str::to_owned));
                    let named = |name: &str| Key { name: name.to_owned(), span: key.span };
                    insert(&mut item, &[named("upgrade"), named(part), key.clone()], value);
                }
            }
            declared.push(Declared(item));
        }
        (declared, secrets)
    }

    fn instances(&mut self, target: &Table<'_>, over: &[Level], hooks: &BTreeMap<String, HookSpec>) -> Vec<Instance> {
        let root = target.node;
        let url = root.get("url").and_then(|node| self.url(node));
        let provides = self.provides(root);
        let levels = self.levels(root);
        let Some(listed) = root.get("instance") else {
            if self.complete {
                let help = "write where the hub listens: url = \"ws://127.0.0.1:4000\"";
                target.required("url", help, &mut self.errors);
            }
            let settings = self.merged(&[&levels, over]);
            let (name, hooks) = (ONLY_INSTANCE.to_owned(), hooks.clone());
            return url.map(|url| Instance { name, url, provides, settings, exec: None, hooks }).into_iter().collect();
        };
        let items = list(Some(listed), "`instance`", "[[instance]]", &mut self.errors);
        if !(1..=MOST_INSTANCES).contains(&items.len()) && listed.list().is_some() {
            let message = format!("a target has 1 to {MOST_INSTANCES} instances, not {}", items.len());
            self.wrong(listed, &message, "begin each with [[instance]], or leave them out");
            return Vec::new();
        }
        let (mut instances, mut names) = (Vec::new(), BTreeSet::new());
        for item in items {
            let instance = table(item, &INSTANCE, "an instance", &mut self.errors);
            if item.map().is_none() {
                continue;
            }
            let named = item.get("name");
            let name = named.and_then(|node| self.name(node, "an instance"));
            if self.complete {
                let help = "name the instance for reports: name = \"with-secret\"";
                instance.required("name", help, &mut self.errors);
            }
            if let (Some(name), Some(node)) = (&name, named)
                && !names.insert(name.clone())
            {
                self.wrong(node, &format!("there are two instances named `{name}`"), "give each instance its own name");
            }
            let own_url = item.get("url").and_then(|node| self.url(node));
            if self.complete && root.get("url").is_none() {
                let help =
                    "write a `url` for this instance, or one at the top level for all instances without their own";
                instance.required("url", help, &mut self.errors);
            }
            let mut provides = provides.clone();
            provides.extend(self.provides(item));
            let own_levels = self.levels(item);
            let mut hooks = hooks.clone();
            hooks.extend(item.get("hooks").map(|node| self.hooks(node)).unwrap_or_default());
            let exec = item.get("exec").and_then(|node| self.exec(node));
            let settings = self.merged(&[&levels, &own_levels, over]);
            if let (Some(name), Some(url)) = (name, own_url.or_else(|| url.clone())) {
                instances.push(Instance { name, url, provides, settings, hooks, exec });
            }
        }
        instances
    }

    fn tls(&mut self, node: &Node) -> TlsOptions {
        table(node, &TLS, "`tls`", &mut self.errors);
        TlsOptions {
            ca: node.get("ca").and_then(|node| self.path(node, "`ca`")),
            insecure: flag(node.get("insecure"), "`insecure`", &mut self.errors),
        }
    }

    /// Returns the capabilities that the target or an instance provides.
    fn provides(&mut self, node: &Node) -> BTreeSet<String> {
        let items = list(node.get("provides"), "`provides`", "provides = [\"tls\"]", &mut self.errors);
        items.iter().filter_map(|item| self.name(item, "a capability")).collect()
    }
}
