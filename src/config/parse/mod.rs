//! Parses the tree into a [`Target`]: one function per table, each of which continues after an error.

mod hooks;
pub(super) mod settings;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde_json::Value;

use self::settings::{LayeredSetting, merge_layers};
use super::overrides::{Override, TargetEdit, insert_at_path};
use super::{DEFAULT_PATIENCE, DEFAULT_QUIET, DeviationEntry, HookSpec, Instance, ONLY_INSTANCE, Target, TlsOptions};
use crate::scenario::template::escape_expressions;
use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::fields::{Table, flag, integer, list, table, time_above_zero};
use crate::syntax::grammar::FileFormat;
use crate::syntax::source::{FileId, Sources, Span};
use crate::syntax::yaml::{NodeKey, SyntaxNode};

/// Returns the keys of a target file; anything else that `--set` names is a setting.
pub fn top_level_keys() -> Vec<&'static str> {
    FileFormat::Target.keys("")
}

/// Maximum value of `connections`.
const MAX_CONNECTIONS: u64 = 1_000_000;
/// Maximum number of instances of a target.
const MAX_INSTANCES: usize = 1000;
/// Maximum number of errors that are reported.
const MAX_ERRORS: usize = 200;

pub(super) fn parse_target_tree(
    sources: &mut Sources,
    mut root: SyntaxNode,
    complete: bool,
    overrides: &[Override],
    environment: &dyn Fn(&str) -> Option<String>,
    read: &dyn Fn(&str) -> io::Result<String>,
    mut errors: Vec<Diagnostic>,
) -> Result<Target, Vec<Diagnostic>> {
    errors.truncate(MAX_ERRORS);
    let home = root.span;
    let changes: Vec<TargetEdit> =
        overrides.iter().map(|o| o.to_edit(sources, home.file, &top_level_keys(), &mut errors)).collect();
    let broken_lines: BTreeSet<_> = errors.iter().filter_map(|e| Some(file_and_line(sources, e.span?))).collect();
    let first = errors.len();
    let own_settings = apply_overrides(&mut root, changes, &mut errors);

    let mut parser = TargetParser { sources, environment, read, home, complete, errors };
    let over = own_settings.into_iter().filter_map(|change| parser.parse_override(change.path, change.value)).collect();
    let target = parser.parse_target(&root, over);
    let TargetParser { mut errors, .. } = parser;
    // Report a syntax error once, without further errors from the same line.
    let mut echoes = errors.split_off(first);
    echoes.truncate(MAX_ERRORS);
    errors.extend(
        echoes.into_iter().filter(|e| e.span.is_none_or(|span| !broken_lines.contains(&file_and_line(sources, span)))),
    );
    errors.sort_by_cached_key(|e| (e.span.map(|span| (span.file != home.file, span.start)), e.message.clone()));
    errors.dedup();
    match target {
        Some(target) if errors.is_empty() => Ok(target),
        _ => Err(errors),
    }
}

/// Applies overrides to the file's tree. Returns the overrides of settings, which apply to every instance.
fn apply_overrides(root: &mut SyntaxNode, changes: Vec<TargetEdit>, errors: &mut Vec<Diagnostic>) -> Vec<TargetEdit> {
    let mut own_settings = Vec::new();
    for change in changes {
        match change.path[0].name.as_str() {
            "settings" | "secrets" if change.path.len() > 1 => own_settings.push(change),
            "instance" => match unknown_instance_error(root, &change.path) {
                Some(error) => errors.push(error),
                None => insert_at_path(root, &change.path, change.value),
            },
            "url" => {
                for path in instance_url_paths(root, &change.path[0]) {
                    insert_at_path(root, &path, change.value.clone());
                }
                insert_at_path(root, &change.path, change.value);
            }
            key if top_level_keys().contains(&key) => insert_at_path(root, &change.path, change.value),
            _ => errors.push(unknown_path_error(&change.path)),
        }
    }
    own_settings
}

/// Returns the path of each instance's URL.
fn instance_url_paths(root: &SyntaxNode, url: &NodeKey) -> Vec<[NodeKey; 3]> {
    let key = |name: &str| NodeKey { name: name.to_owned(), span: url.span };
    let instances = root.get("instance").and_then(SyntaxNode::list).unwrap_or_default();
    let names = instances.iter().filter_map(|i| i.get("name")?.text());
    names.map(|name| [key("instance"), key(name), key("url")]).collect()
}

/// Returns the error for an override with dots whose first part is not a key.
fn unknown_path_error(path: &[NodeKey]) -> Diagnostic {
    let names: Vec<&str> = path.iter().map(|key| key.name.as_str()).collect();
    let help = suggest(
        names[0],
        top_level_keys(),
        &format!("to set a part of a setting, write settings.{}=VALUE", names.join(".")),
    );
    Diagnostic::error(path[0].span, format!("a target has no key `{}`", names[0])).help(help)
}

/// Returns an error if an override names an instance that does not exist, or a whole instance.
fn unknown_instance_error(root: &SyntaxNode, path: &[NodeKey]) -> Option<Diagnostic> {
    let items = root.get("instance").and_then(SyntaxNode::list).unwrap_or_default();
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

fn file_and_line(sources: &Sources, span: Span) -> (FileId, usize) {
    (span.file, sources.line_column(span).0)
}

struct TargetParser<'a> {
    sources: &'a Sources,
    environment: &'a dyn Fn(&str) -> Option<String>,
    read: &'a dyn Fn(&str) -> io::Result<String>,
    /// The span of the file's root; spans in other files come from overrides.
    home: Span,
    /// Whether the whole file could be parsed, so that an absent key really is missing.
    complete: bool,
    errors: Vec<Diagnostic>,
}

impl TargetParser<'_> {
    fn parse_target(&mut self, root: &SyntaxNode, over: Vec<LayeredSetting>) -> Option<Target> {
        let before = self.errors.len();
        let target = table(root, &top_level_keys(), "a target", &mut self.errors).at(self.home.subspan(0..0));
        let protocol = root.get("protocol").and_then(|node| self.parse_name(node, "a protocol"));
        let connections = integer(root.get("connections"), "`connections`", 1..=MAX_CONNECTIONS, &mut self.errors);
        let patience = time_above_zero(root.get("patience"), "`patience`", &mut self.errors);
        let quiet = time_above_zero(root.get("quiet"), "`quiet`", &mut self.errors);
        let restartable = flag(root.get("restartable"), "`restartable`", &mut self.errors);
        let exec = root.get("exec").and_then(|node| self.parse_exec(node));
        let tls = root.get("tls").map(|node| self.parse_tls(node)).unwrap_or_default();
        let hooks = root.get("hooks").map(|node| self.parse_hooks(node)).unwrap_or_default();
        let instances = self.parse_instances(&target, &over, &hooks);
        let (deviations, deviation_secrets) = self.parse_deviations(root);
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
    fn parse_deviations(&mut self, root: &SyntaxNode) -> (Vec<DeviationEntry>, Vec<String>) {
        let (mut declared, mut secrets) = (Vec::new(), Vec::new());
        for item in list(root.get("deviation"), "`deviation`", "[[deviation]]", &mut self.errors) {
            let mut item = item.clone();
            for part in ["headers", "query"] {
                let Some(pairs) = item.get("upgrade").and_then(|upgrade| upgrade.get(part)).and_then(SyntaxNode::map)
                else {
                    continue;
                };
                for (key, value) in pairs.to_vec().iter().filter(|(_, value)| value.map().is_some()) {
                    let Some(value) = self.resolve_secret(key, value) else { continue };
                    let Some(secret) = value.text().map(str::to_owned) else { continue };
                    // The value is a template, and a secret is not.
                    let value = SyntaxNode::from_json(&Value::from(escape_expressions(&secret)), value.span);
                    secrets.push(secret);
                    let named = |name: &str| NodeKey { name: name.to_owned(), span: key.span };
                    insert_at_path(&mut item, &[named("upgrade"), named(part), key.clone()], value);
                }
            }
            declared.push(DeviationEntry(item));
        }
        (declared, secrets)
    }

    fn parse_instances(
        &mut self,
        target: &Table<'_>,
        over: &[LayeredSetting],
        hooks: &BTreeMap<String, HookSpec>,
    ) -> Vec<Instance> {
        let root = target.node;
        let url = root.get("url").and_then(|node| self.parse_url(node));
        let provides = self.provides(root);
        let layer = self.parse_layer(root);
        let Some(listed) = root.get("instance") else {
            if self.complete {
                let help = "write where the hub listens: url = \"ws://127.0.0.1:4000\"";
                target.required("url", help, &mut self.errors);
            }
            let settings = merge_layers(&[&layer, over]);
            let (name, hooks) = (ONLY_INSTANCE.to_owned(), hooks.clone());
            return url.map(|url| Instance { name, url, provides, settings, exec: None, hooks }).into_iter().collect();
        };
        let items = list(Some(listed), "`instance`", "[[instance]]", &mut self.errors);
        if !(1..=MAX_INSTANCES).contains(&items.len()) && listed.list().is_some() {
            let message = format!("a target has 1 to {MAX_INSTANCES} instances, not {}", items.len());
            self.report_error(listed, &message, "begin each with [[instance]], or leave them out");
            return Vec::new();
        }
        let (mut instances, mut names) = (Vec::new(), BTreeSet::new());
        for item in items {
            let instance =
                table(item, &FileFormat::Target.keys("/properties/instance/items"), "an instance", &mut self.errors);
            if item.map().is_none() {
                continue;
            }
            let named = item.get("name");
            let name = named.and_then(|node| self.parse_name(node, "an instance"));
            if self.complete {
                let help = "name the instance for reports: name = \"with-secret\"";
                instance.required("name", help, &mut self.errors);
            }
            if let (Some(name), Some(node)) = (&name, named)
                && !names.insert(name.clone())
            {
                self.report_error(
                    node,
                    &format!("there are two instances named `{name}`"),
                    "give each instance its own name",
                );
            }
            let own_url = item.get("url").and_then(|node| self.parse_url(node));
            if self.complete && root.get("url").is_none() {
                let help =
                    "write a `url` for this instance, or one at the top level for all instances without their own";
                instance.required("url", help, &mut self.errors);
            }
            let mut provides = provides.clone();
            provides.extend(self.provides(item));
            let own_layer = self.parse_layer(item);
            let mut hooks = hooks.clone();
            hooks.extend(item.get("hooks").map(|node| self.parse_hooks(node)).unwrap_or_default());
            let exec = item.get("exec").and_then(|node| self.parse_exec(node));
            let settings = merge_layers(&[&layer, &own_layer, over]);
            if let (Some(name), Some(url)) = (name, own_url.or_else(|| url.clone())) {
                instances.push(Instance { name, url, provides, settings, hooks, exec });
            }
        }
        instances
    }

    fn parse_tls(&mut self, node: &SyntaxNode) -> TlsOptions {
        table(node, &FileFormat::Target.keys("/properties/tls"), "`tls`", &mut self.errors);
        TlsOptions {
            ca: node.get("ca").and_then(|node| self.parse_path(node, "`ca`")),
            cert: node.get("cert").and_then(|node| self.parse_path(node, "`cert`")),
            key: node.get("key").and_then(|node| self.parse_path(node, "`key`")),
            insecure: flag(node.get("insecure"), "`insecure`", &mut self.errors),
        }
    }

    /// Returns the capabilities that the target or an instance provides.
    fn provides(&mut self, node: &SyntaxNode) -> BTreeSet<String> {
        let items = list(node.get("provides"), "`provides`", "provides = [\"tls\"]", &mut self.errors);
        items.iter().filter_map(|item| self.parse_name(item, "a capability")).collect()
    }
}
