//! The values of entries that TOML cannot write: `{ json = "null" }` stands for the JSON value null.

use serde_json::Value;

use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::yaml::{NodeKind, SyntaxNode};

/// The only member of a mapping that stands for its JSON.
const JSON_KEY: &str = "json";
/// The keys of an entry whose values are parts of messages.
const VALUE_KEYS: [&str; 6] = ["instead", "value", "spelled", "added", "where", "assume"];

/// Returns an entry in which each `{ json = "TEXT" }` is replaced by the JSON value that it stands for. If a user wrote
/// the entry (`written`), the text `null` is a mistake.
pub fn replace_json_forms(entry: &SyntaxNode, written: bool, errors: &mut Vec<Diagnostic>) -> SyntaxNode {
    let mut entry = entry.clone();
    if let NodeKind::Map(members) = &mut entry.kind {
        for (_, value) in members.iter_mut().filter(|(key, _)| VALUE_KEYS.contains(&key.name.as_str())) {
            replace(value, written, errors);
        }
    }
    entry
}

fn replace(node: &mut SyntaxNode, written: bool, errors: &mut Vec<Diagnostic>) {
    match &mut node.kind {
        NodeKind::Text(text) if written && text.value == "null" => {
            let help = "write { json = \"null\" } for null, or { json = '\"null\"' } for the text";
            errors.push(Diagnostic::error(node.span, "\"null\" is the text, not the value null").help(help));
        }
        NodeKind::List(items) => items.iter_mut().for_each(|item| replace(item, written, errors)),
        NodeKind::Map(members) => match &members[..] {
            [(key, value)] if written && key.name == JSON_KEY => {
                let json = value.text().map(serde_json::from_str::<Value>);
                match json {
                    Some(Ok(json)) => *node = SyntaxNode::from_json(&json, node.span),
                    _ => errors.push(not_json(value, json.and_then(Result::err))),
                }
            }
            _ => members.iter_mut().for_each(|(_, member)| replace(member, written, errors)),
        },
        _ => {}
    }
}

/// Returns an entry as a user writes it in TOML, which has no null.
pub fn with_json_forms(entry: &Value) -> Value {
    let mut entry = entry.clone();
    let members = entry.as_object_mut().into_iter().flatten();
    members.filter(|(key, _)| VALUE_KEYS.contains(&key.as_str())).for_each(|(_, value)| write_json_forms(value));
    entry
}

fn write_json_forms(value: &mut Value) {
    let is_form = match &*value {
        Value::Null => true,
        Value::String(text) => text == "null",
        Value::Object(members) => members.len() == 1 && members.contains_key(JSON_KEY),
        _ => false,
    };
    if is_form {
        *value = serde_json::json!({ JSON_KEY: value.to_string() });
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(write_json_forms),
        Value::Object(members) => members.values_mut().for_each(write_json_forms),
        _ => {}
    }
}

fn not_json(node: &SyntaxNode, error: Option<serde_json::Error>) -> Diagnostic {
    let message = match error {
        Some(error) => format!("`json` must be the text of a JSON value: {error}"),
        None => format!("`json` must be the text of a JSON value, not {}", node.describe_kind()),
    };
    let help = "write { json = \"null\" }; for a member named `json`, write { json = '{\"json\": \"VALUE\"}' }";
    Diagnostic::error(node.span, message).help(help)
}
