//! Checks the shape of a file: which keys a mapping has, and the kind of value of each.

use serde_json::Value;

use crate::scenario::template::Template;
use crate::syntax::diagnostic::{Diagnostic, suggest_one};
use crate::syntax::yaml::{Key, Kind, Node};

/// Returns the entries of a mapping; none for other values, which the caller reports.
pub fn entries(node: Option<&Node>) -> &[(Key, Node)] {
    node.and_then(Node::map).unwrap_or_default()
}

/// Returns the entries of an optional mapping; reports other values.
pub fn mapping<'n>(node: Option<&'n Node>, what: &str, diagnostics: &mut Vec<Diagnostic>) -> &'n [(Key, Node)] {
    let Some(node) = node.filter(|node| !node.is_null()) else { return &[] };
    node.map().unwrap_or_else(|| {
        diagnostics.push(
            Diagnostic::error(node.span, format!("{what} is a mapping, not {}", node.what()))
                .help("write `{ name: value }`, or `name: value` on lines of their own"),
        );
        &[]
    })
}

/// Returns the items of an optional list; reports other values.
pub fn list<'n>(node: Option<&'n Node>, what: &str, example: &str, diagnostics: &mut Vec<Diagnostic>) -> &'n [Node] {
    let Some(node) = node.filter(|node| !node.is_null()) else { return &[] };
    node.list().unwrap_or_else(|| {
        diagnostics.push(
            Diagnostic::error(node.span, format!("{what} is a list, not {}", node.what()))
                .help(format!("write `{example}`")),
        );
        &[]
    })
}

/// Returns an optional text; reports other values.
pub fn text<'n>(node: Option<&'n Node>, what: &str, diagnostics: &mut Vec<Diagnostic>) -> Option<&'n str> {
    let node = node?;
    let text = node.text().filter(|text| !text.trim().is_empty());
    if text.is_none() {
        let found = if node.text().is_some() { "nothing" } else { node.what() };
        let help =
            if matches!(node.kind, Kind::Number(_) | Kind::Bool(_)) { "quote it if it is meant as text" } else { "" };
        diagnostics.push(Diagnostic::error(node.span, format!("{what} is text, not {found}")).help(help));
    }
    text
}

/// Returns an optional boolean, false by default; reports other values.
pub fn flag(node: Option<&Node>, what: &str, diagnostics: &mut Vec<Diagnostic>) -> bool {
    match node.map(|node| (node, &node.kind)) {
        None => false,
        Some((_, Kind::Bool(flag))) => *flag,
        Some((node, _)) => {
            diagnostics.push(
                Diagnostic::error(node.span, format!("{what} is true or false, not {}", node.what()))
                    .help("write `true`, or leave it out"),
            );
            false
        }
    }
}

pub fn number(node: &Node) -> Option<usize> {
    match &node.kind {
        Kind::Number(n) => n.as_u64().and_then(|n| usize::try_from(n).ok()),
        _ => None,
    }
}

/// Reports unknown keys.
pub fn keys(node: &Node, known: &[&str], what: &str, diagnostics: &mut Vec<Diagnostic>) {
    for (key, _) in entries(Some(node)) {
        if !known.contains(&key.name.as_str()) {
            let help = suggest_one(&key.name, known.iter().copied(), "its keys are");
            diagnostics.push(Diagnostic::error(key.span, format!("{what} has no key `{}`", key.name)).help(help));
        }
    }
}

/// Whether a value may be of some kind: a constant that is, or an expression.
pub fn may_be(template: &Template, is: impl Fn(&Value) -> bool) -> bool {
    match template {
        Template::Constant(value) => is(value),
        Template::Expression(_) => true,
        Template::Text(_) => is(&Value::String(String::new())),
        Template::List(_) => is(&Value::Array(Vec::new())),
        Template::Map(_) => is(&Value::Object(serde_json::Map::new())),
    }
}
