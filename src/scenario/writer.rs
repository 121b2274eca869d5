//! Writes YAML: scenarios with a line for each member of a step, other files as a block, and values in flow style.

use serde_json::{Map, Value, json};

/// Maximum number of characters of a value on one line of a block.
const WIDTH: usize = 100;

/// Returns the text of a scenario file. Equal scenarios give equal texts.
pub fn write_scenario(root: &Map<String, Value>) -> String {
    let mut text = String::new();
    for (key, value) in root {
        match value.as_array().filter(|_| matches!(key.as_str(), "steps" | "finally")) {
            Some(steps) => {
                text.push_str(&format!("{key}:\n"));
                steps.iter().for_each(|one| write_step(one, &mut text));
            }
            None => text.push_str(&format!("{key}: {}\n", flow_text(value))),
        }
    }
    text
}

fn write_step(step: &Value, text: &mut String) {
    for (index, (key, value)) in step.as_object().into_iter().flatten().enumerate() {
        text.push_str(if index == 0 { "  - " } else { "    " });
        text.push_str(key);
        text.push(':');
        if !value.is_null() {
            text.push(' ');
            text.push_str(&flow_text(value));
        }
        text.push('\n');
    }
}

/// Returns a mapping with one entry per line. A long entry takes several lines.
pub fn block(value: &Value) -> String {
    let mut text = String::new();
    write_block(value, 0, &mut text);
    text
}

fn write_block(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    let fits = |value: &Value| {
        let nested = value.as_object().is_some_and(|members| members.values().any(|member| member.is_object()));
        let flat = flow_text(value);
        (depth > 0 && !nested || !value.is_object() && !value.is_array()) && flat.len() + indent.len() <= WIDTH
            || value.as_object().is_some_and(Map::is_empty)
            || value.as_array().is_some_and(Vec::is_empty)
            || value.is_string()
    };
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let key = flow_text(&json!(name));
                if fits(member) {
                    text.push_str(&format!("{indent}{key}: {}\n", flow_text(member)));
                } else {
                    text.push_str(&format!("{indent}{key}:\n"));
                    write_block(member, depth + 1, text);
                }
            }
        }
        Value::Array(items) => text.extend(items.iter().map(|item| format!("{indent}- {}\n", flow_text(item)))),
        other => text.push_str(&format!("{indent}{}\n", flow_text(other))),
    }
}

/// Returns a value in YAML's flow style: JSON, with everything beyond ASCII escaped.
pub fn flow_text(value: &Value) -> String {
    let mut text = String::new();
    write_flow(value, &mut text);
    text
}

fn write_flow(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => write_quoted(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_flow(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push_str("{ ");
            for (index, (name, member)) in members.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                if is_plain_scalar(name) {
                    out.push_str(name)
                } else {
                    write_quoted(name, out)
                }
                out.push_str(": ");
                write_flow(member, out);
            }
            out.push_str(" }");
        }
        other => out.push_str(&other.to_string()),
    }
}

/// Whether YAML reads the text back unquoted.
fn is_plain_scalar(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n"
        )
}

fn write_quoted(text: &str, out: &mut String) {
    if is_plain_scalar(text) {
        return out.push_str(text);
    }
    // Where nothing needs an escape, single quotes leave the JSON inside legible.
    if text.chars().all(|c| (' '..='~').contains(&c)) {
        out.push('\'');
        out.push_str(&text.replace('\'', "''"));
        return out.push('\'');
    }
    // JSON's escapes are valid in YAML, except that YAML escapes a surrogate pair as one character.
    for letter in json!(text).to_string().chars() {
        match letter {
            ' '..='~' => out.push(letter),
            other if u32::from(other) <= 0xffff => out.push_str(&format!("\\u{:04x}", u32::from(other))),
            other => out.push_str(&format!("\\U{:08x}", u32::from(other))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::source::Sources;
    use crate::syntax::yaml;
    use proptest::prelude::*;
    use serde_json::json;

    fn read_back(text: &str) -> Value {
        let mut sources = Sources::default();
        let file = sources.add("case.yaml", text);
        yaml::parse(&sources, file).unwrap_or_else(|error| panic!("{}: {text}", error.message)).to_json()
    }

    #[test]
    fn a_scenario_with_unusual_texts_round_trips() {
        for text in crate::generate::value::UNUSUAL_TEXTS {
            let value = json!({ "title": text, "steps": [{ "a sends raw": { "text": text, text: [text] } }] });
            assert_eq!(read_back(&write_scenario(value.as_object().unwrap())), value);
        }
    }

    proptest! {
        #[test]
        fn a_written_mapping_with_any_text_is_read_back_equal(text: String) {
            let value = json!({ "k": text, "list": [text, [text]], "deep": { "deeper": { (text.as_str()): text } } });
            prop_assert_eq!(read_back(&format!("a: {}\n", flow_text(&value))), json!({ "a": value }));
            prop_assert_eq!(read_back(&block(&value)), value);
        }
    }
}
