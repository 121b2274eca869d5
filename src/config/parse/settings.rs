//! Parses the settings and secrets of each layer (target, instance, overrides), and merges the layers.

use std::collections::{BTreeMap, BTreeSet};

use super::super::SettingValue;
use super::super::overrides::insert_at_path;
use super::TargetParser;
use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::fields::{entries, mapping, table, text};
use crate::syntax::yaml::{NodeKey, NodeKind, NodeText, SyntaxNode};

const SECRET_KEYS: [&str; 2] = ["env", "file"];
/// The secrets that are tables: one text for each user, or for each header.
pub(in crate::config) const SECRET_TABLES: [&str; 2] = ["tokens", "headers"];

/// A setting of one layer. A setting of an instance overrides one of the target, and `--set` overrides both.
pub(super) struct LayeredSetting {
    /// The name, and for an override the path into its value.
    path: Vec<NodeKey>,
    value: SyntaxNode,
    secret: bool,
}

/// Whether a table stands for one secret: `{ env = "NAME" }`.
fn is_secret_reference(node: &SyntaxNode) -> bool {
    node.map().is_some_and(|entries| entries.len() == 1) && SECRET_KEYS.iter().any(|name| node.get(name).is_some())
}

/// Merges layers: the last one that has a setting wins; a setting that is secret in one layer stays secret.
pub(super) fn merge_layers(layers: &[&[LayeredSetting]]) -> BTreeMap<String, SettingValue> {
    let mut merged: BTreeMap<String, (SyntaxNode, bool)> = BTreeMap::new();
    for layered in layers.iter().copied().flatten() {
        let (name, rest) = (&layered.path[0], &layered.path[1..]);
        let empty = || (SyntaxNode { span: name.span, kind: NodeKind::Map(Vec::new()) }, false);
        let (node, secret) = merged.entry(name.name.clone()).or_insert_with(empty);
        insert_at_path(node, rest, layered.value.clone());
        *secret |= layered.secret;
    }
    let setting =
        |(name, (node, secret)): (String, (SyntaxNode, bool))| (name, SettingValue { value: node.to_json(), secret });
    merged.into_iter().map(setting).collect()
}

impl TargetParser<'_> {
    /// Parses the settings and secrets of the target or of one instance.
    pub(super) fn parse_layer(&mut self, node: &SyntaxNode) -> Vec<LayeredSetting> {
        let mut layer: Vec<LayeredSetting> = Vec::new();
        let plain: BTreeSet<&str> = entries(node.get("settings")).iter().map(|(key, _)| key.name.as_str()).collect();
        for (table, secret) in [("settings", false), ("secrets", true)] {
            let (what, example) = (format!("`{table}`"), format!("{table} = {{ NAME = VALUE }}"));
            for (key, value) in mapping(node.get(table), &what, &example, &mut self.errors) {
                self.check_identifier(key, "a setting");
                if secret && plain.contains(key.name.as_str()) {
                    let error = Diagnostic::error(
                        key.span,
                        format!("`{}` is listed under settings and under secrets", key.name),
                    );
                    self.errors.push(error.help("keep the one under secrets: it is never printed"));
                }
                let value = if secret { self.resolve_secret(key, value) } else { Some(value.clone()) };
                layer.extend(value.map(|value| LayeredSetting { path: vec![key.clone()], value, secret }));
            }
        }
        layer
    }

    /// Parses the override of a setting or of a part of it; `path` begins with `settings` or `secrets`.
    pub(super) fn parse_override(&mut self, mut path: Vec<NodeKey>, value: SyntaxNode) -> Option<LayeredSetting> {
        let table = path.remove(0);
        self.check_identifier(&path[0], "a setting");
        if table.name != "secrets" {
            return Some(LayeredSetting { path, value, secret: false });
        }
        if path.len() > 1 {
            let key = path.remove(1);
            let error = Diagnostic::error(key.span, format!("a secret is one text: `{}` has no parts", path[0].name));
            self.errors.push(error.help(format!("write secrets.{}=VALUE", path[0].name)));
            return None;
        }
        let value = self.resolve_secret(&path[0], &value)?;
        Some(LayeredSetting { path, value, secret: true })
    }

    /// Returns the secret's text, read from the environment or a file if necessary.
    pub(super) fn resolve_secret(&mut self, key: &NodeKey, node: &SyntaxNode) -> Option<SyntaxNode> {
        let text = match &node.kind {
            NodeKind::Null => return None,
            NodeKind::Text(text) => text.value.clone(),
            NodeKind::Map(entries) if SECRET_TABLES.contains(&&*key.name) && !is_secret_reference(node) => {
                let read =
                    |(name, node): &(NodeKey, SyntaxNode)| Some((name.clone(), self.resolve_secret(name, node)?));
                let entries = entries.iter().filter_map(read).collect();
                return Some(SyntaxNode { span: node.span, kind: NodeKind::Map(entries) });
            }
            NodeKind::Map(_) => {
                let secret = table(node, &SECRET_KEYS, &format!("the secret `{}`", key.name), &mut self.errors);
                let help = "write { env = \"NAME\" } or { file = \"path\" }";
                match secret.one_of(&SECRET_KEYS, help, &mut self.errors)? {
                    ("env", env) => self.read_environment(env)?,
                    (_, file) => self.read_secret_file(file)?,
                }
            }
            _ => {
                let help = "put it in quotes, or write { env = \"NAME\" } or { file = \"path\" }";
                self.report_error(
                    node,
                    &format!("the secret `{}` must be text, not {}", key.name, node.describe_kind()),
                    help,
                );
                return None;
            }
        };
        if text.is_empty() {
            self.report_error(
                node,
                &format!("the secret `{}` is empty", key.name),
                "leave it out if the hub has no such secret",
            );
            return None;
        }
        Some(SyntaxNode { span: node.span, kind: NodeKind::Text(NodeText { value: text, inner: None }) })
    }

    fn read_environment(&mut self, node: &SyntaxNode) -> Option<String> {
        let name = text(Some(node), "`env`", &mut self.errors)?;
        let value = (self.environment)(name);
        if value.is_none() {
            let help = format!("set it: export {name}=...");
            self.report_error(node, &format!("the environment variable `{name}` is not set"), &help);
        }
        value
    }

    fn read_secret_file(&mut self, node: &SyntaxNode) -> Option<String> {
        let path = self.parse_path(node, "`file`")?;
        match (self.read)(&path.to_string_lossy()) {
            // Editors add a newline at the end of a file.
            Ok(text) => Some(text.trim_end_matches(['\n', '\r']).to_owned()),
            Err(error) => {
                let help = "paths are relative to the folder of the target file";
                self.report_error(node, &format!("`{}` cannot be read: {error}", path.display()), help);
                None
            }
        }
    }
}
