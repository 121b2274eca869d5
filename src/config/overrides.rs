//! `--set KEY=VALUE`: an override of the target file.

use toml::Spanned;
use toml::de::DeValue;

use super::tree;
use crate::syntax::diagnostic::{Diagnostic, ValueError};
use crate::syntax::source::{FileId, Sources, Span};
use crate::syntax::yaml::{NodeKey, NodeKind, NodeText, SyntaxNode};

/// Maximum number of parts in a path. A path in the file has at most five; a path into a setting may have more.
const MAX_PARTS: usize = 32;

/// A parsed `KEY=VALUE`. Its `Debug` never shows the value.
#[derive(Clone, PartialEq, Eq)]
pub struct Override {
    path: Vec<String>,
    value: String,
}

impl std::fmt::Debug for Override {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Override({}=…)", self.path.join("."))
    }
}

/// Parses `KEY=VALUE`. A plain name is a top-level key of the file if there is one of that name (`patience`), otherwise
/// a setting. A dotted name is a path in the file (`settings.url`, `hooks.emit.http.url`, `instance.NAME.url`). The
/// value of `secrets.NAME` is never printed. The value is parsed as TOML if possible, otherwise it is text.
///
/// # Errors
///
/// A missing `=`, or an empty part of the key. The error does not repeat the value.
pub fn parse_override(text: &str) -> Result<Override, ValueError> {
    let Some((key, value)) = text.split_once('=') else {
        // The text may be a secret whose name was forgotten, so it is not shown.
        return Err(ValueError::new("a `=` is missing", "write NAME=VALUE, such as identify_timeout=2s"));
    };
    let path: Vec<String> = key.trim().split('.').map(|part| part.trim().to_owned()).collect();
    if path.iter().any(String::is_empty) || path.len() > MAX_PARTS {
        let help = "write NAME=VALUE, or a path with dots such as hooks.emit.http.url=VALUE";
        return Err(ValueError::new(format!("`{key}` is not a name"), help));
    }
    Ok(Override { path, value: value.to_owned() })
}

/// An override as a path in the target and the value to set.
pub(super) struct TargetEdit {
    pub path: Vec<NodeKey>,
    pub value: SyntaxNode,
}

impl Override {
    /// Adds the override to the sources, with secrets masked, so that diagnostics can point into it.
    ///
    /// `any` is an arbitrary file, for spans of which only the range is used.
    pub(super) fn to_edit(
        &self,
        sources: &mut Sources,
        any: FileId,
        top_level: &[&str],
        errors: &mut Vec<Diagnostic>,
    ) -> TargetEdit {
        let key = self.path.join(".");
        let start = key.len() + 1;
        let secret = self.path.iter().any(|part| part == "secrets");
        let parsed = DeValue::parse(&self.value).ok().filter(|value| is_toml_value(value, secret));
        let text = format!("{key}={}", self.value);
        let node = |file, errors: &mut Vec<Diagnostic>| match &parsed {
            Some(value) => tree::convert_value(file, start, &self.value, value, errors),
            None => self.as_text(file, start, secret),
        };
        let shown = if secret {
            let mut spans = Vec::new();
            tree::secret_leaves(&node(any, &mut Vec::new()), &mut spans);
            tree::mask_spans(&text, &spans)
        } else {
            text
        };
        let file = sources.add("--set", shown);
        let value = node(file, errors);
        TargetEdit { path: self.keys(file, top_level), value }
    }

    fn as_text(&self, file: FileId, start: usize, secret: bool) -> SyntaxNode {
        let span = Span::new(file, start..start + self.value.len());
        let text = NodeText { value: self.value.clone(), inner: (!secret).then_some(span) };
        SyntaxNode { span, kind: NodeKind::Text(text) }
    }

    fn keys(&self, file: FileId, top_level: &[&str]) -> Vec<NodeKey> {
        let mut at = 0;
        let mut keys: Vec<NodeKey> = Vec::with_capacity(self.path.len() + 1);
        for part in &self.path {
            keys.push(NodeKey { name: part.clone(), span: Span::new(file, at..at + part.len()) });
            at += part.len() + 1;
        }
        if let [only] = self.path.as_slice()
            && !top_level.contains(&only.as_str())
        {
            keys.insert(0, NodeKey { name: "settings".to_owned(), span: keys[0].span });
        }
        keys
    }
}

/// Whether to read the value as TOML. Dates, `nan` and numbers beyond 64 bits count as text; so does a secret, unless
/// it is a table that names a variable or file.
fn is_toml_value(value: &Spanned<DeValue<'_>>, secret: bool) -> bool {
    match value.get_ref() {
        DeValue::Datetime(_) => false,
        DeValue::Float(n) => !secret && n.as_str().parse().is_ok_and(f64::is_finite),
        DeValue::Integer(n) => !secret && tree::parse_integer(n.as_str(), n.radix()).is_some(),
        DeValue::Boolean(_) | DeValue::Array(_) => !secret,
        DeValue::String(_) | DeValue::Table(_) => true,
    }
}

/// Sets the value at a path and creates missing tables. An item of a list is found by its `name`.
pub(super) fn insert_at_path(node: &mut SyntaxNode, path: &[NodeKey], value: SyntaxNode) {
    let Some((key, rest)) = path.split_first() else {
        *node = value;
        return;
    };
    if let NodeKind::List(items) = &mut node.kind
        && let Some(item) = items.iter_mut().find(|i| i.get("name").and_then(SyntaxNode::text) == Some(&key.name))
    {
        return insert_at_path(item, rest, value);
    }
    if !matches!(node.kind, NodeKind::Map(_)) {
        *node = SyntaxNode { span: key.span, kind: NodeKind::Map(Vec::new()) };
    }
    if let NodeKind::Map(entries) = &mut node.kind {
        let at = entries.iter().position(|(k, _)| k.name == key.name).unwrap_or_else(|| {
            entries.push((key.clone(), SyntaxNode { span: key.span, kind: NodeKind::Map(Vec::new()) }));
            entries.len() - 1
        });
        if rest.is_empty() {
            entries[at].0 = key.clone();
        }
        insert_at_path(&mut entries[at].1, rest, value);
    }
}
