//! Parses settings and secrets of each level, and merges the levels.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Setting;
use super::super::overrides::insert;
use super::Reading;
use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::fields::{mapping, table, text};
use crate::syntax::yaml::{Key, Kind, Node, Text};

const SECRET: [&str; 2] = ["env", "file"];
/// The secret that is a table, with one text for each user.
const BY_USER: &str = "tokens";

/// A setting of one level; from lowest to highest: target, instance, overrides.
pub(super) struct Level {
    /// The name, and for an override the path into its value.
    path: Vec<Key>,
    value: Node,
    secret: bool,
}

/// Whether a table stands for one secret: `{ env = "NAME" }`.
fn is_one_secret(node: &Node) -> bool {
    node.map().is_some_and(|entries| entries.len() == 1) && SECRET.iter().any(|name| node.get(name).is_some())
}

impl Reading<'_> {
    /// Parses the settings and secrets of the target or of one instance.
    pub(super) fn levels(&mut self, node: &Node) -> Vec<Level> {
        let mut levels: Vec<Level> = Vec::new();
        let plain: BTreeSet<&str> =
            node.get("settings").and_then(Node::map).into_iter().flatten().map(|(k, _)| k.name.as_str()).collect();
        for (table, secret) in [("settings", false), ("secrets", true)] {
            let (what, example) = (format!("`{table}`"), format!("{table} = {{ NAME = VALUE }}"));
            for (key, value) in mapping(node.get(table), &what, &example, &mut self.errors) {
                self.identifier(key, "a setting");
                if secret && plain.contains(key.name.as_str()) {
                    let error = Diagnostic::error(
                        key.span,
                        format!("`{}` is listed under settings and under secrets", key.name),
                    );
                    self.errors.push(error.help("keep the one under secrets: it is never printed"));
                }
                let value = if secret { self.secret(key, value) } else { Some(value.clone()) };
                levels.extend(value.map(|value| Level { path: vec![key.clone()], value, secret }));
            }
        }
        levels
    }

    pub(super) fn overriding(&mut self, mut path: Vec<Key>, value: Node) -> Option<Level> {
        let table = path.remove(0);
        self.identifier(&path[0], "a setting");
        if table.name != "secrets" {
            return Some(Level { path, value, secret: false });
        }
        if path.len() > 1 {
            let key = path.remove(1);
            let error = Diagnostic::error(key.span, format!("a secret is one text: `{}` has no parts", path[0].name));
            self.errors.push(error.help(format!("write secrets.{}=VALUE", path[0].name)));
            return None;
        }
        let value = self.secret(&path[0], &value)?;
        Some(Level { path, value, secret: true })
    }

    /// Merges levels: later ones win; a setting that is secret in one level stays secret.
    pub(super) fn merged(&self, levels: &[&[Level]]) -> BTreeMap<String, Setting> {
        let mut merged: BTreeMap<String, (Node, bool)> = BTreeMap::new();
        for level in levels.iter().copied().flatten() {
            let (name, rest) = (&level.path[0], &level.path[1..]);
            let empty = || (Node { span: name.span, kind: Kind::Map(Vec::new()) }, false);
            let (node, secret) = merged.entry(name.name.clone()).or_insert_with(empty);
            insert(node, rest, level.value.clone());
            *secret |= level.secret;
        }
        let setting =
            |(name, (node, secret)): (String, (Node, bool))| (name, Setting { value: node.to_json(), secret });
        merged.into_iter().map(setting).collect()
    }

    /// Returns the secret's text, read from the environment or a file if necessary.
    pub(super) fn secret(&mut self, key: &Key, node: &Node) -> Option<Node> {
        let text = match &node.kind {
            Kind::Null => return None,
            Kind::Text(text) => text.value.clone(),
            Kind::Map(entries) if key.name == BY_USER && !is_one_secret(node) => {
                let read = |(name, node): &(Key, Node)| Some((name.clone(), self.secret(name, node)?));
                let entries = entries.iter().filter_map(read).collect();
                return Some(Node { span: node.span, kind: Kind::Map(entries) });
            }
            Kind::Map(_) => {
                let secret = table(node, &SECRET, &format!("the secret `{}`", key.name), &mut self.errors);
                let help = "write { env = \"NAME\" } or { file = \"path\" }";
                match secret.one_of(&SECRET, help, &mut self.errors)? {
                    ("env", env) => self.environment_text(env)?,
                    (_, file) => self.file_text(file)?,
                }
            }
            _ => {
                let help = "put it in quotes, or write { env = \"NAME\" } or { file = \"path\" }";
                self.wrong(node, &format!("the secret `{}` must be text, not {}", key.name, node.what()), help);
                return None;
            }
        };
        if text.is_empty() {
            self.wrong(
                node,
                &format!("the secret `{}` is empty", key.name),
                "leave it out if the hub has no such secret",
            );
            return None;
        }
        Some(Node { span: node.span, kind: Kind::Text(Text { value: text, inner: None }) })
    }

    fn environment_text(&mut self, node: &Node) -> Option<String> {
        let name = text(Some(node), "`env`", &mut self.errors)?;
        let value = (self.environment)(name);
        if value.is_none() {
            let help = format!("set it: export {name}=...");
            self.wrong(node, &format!("the environment variable `{name}` is not set"), &help);
        }
        value
    }

    fn file_text(&mut self, node: &Node) -> Option<String> {
        let path = self.path(node, "`file`")?;
        match (self.read)(&path.to_string_lossy()) {
            // Editors add a newline at the end of a file.
            Ok(text) => Some(text.trim_end_matches(['\n', '\r']).to_owned()),
            Err(error) => {
                let help = "paths are relative to the folder of the target file";
                self.wrong(node, &format!("`{}` cannot be read: {error}", path.display()), help);
                None
            }
        }
    }
}
