//! Writes a target as TOML, for `serve --target-file`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use toml::Value as Toml;

use super::{HookSpec, Instance, ONLY_INSTANCE, Target, format_duration};

pub(super) fn to_toml(target: &Target) -> String {
    let (only, several) = match target.instances.as_slice() {
        [only] if only.name == ONLY_INSTANCE => (Some(instance_table(only, &target.hooks)), &[][..]),
        several => (None, several),
    };
    let named = several.iter().map(|one| merged(&[json!({ "name": one.name }), instance_table(one, &target.hooks)]));
    let values = json!({
        "protocol": target.protocol,
        "connections": target.connections,
        "patience": format_duration(target.patience),
        "quiet": format_duration(target.quiet),
        "restartable": target.restartable,
        "exec": target.exec.as_ref().map(|exec| &exec.text),
    });
    let tables = json!({
        "instance": unless_empty(named.collect()),
        "tls": unless_empty(merged(&[
            target.tls.files().map(|(name, path)| (name.to_owned(), json!(path.to_string_lossy()))).collect(),
            json!({ "insecure": target.tls.insecure.then_some(true) }),
        ])),
        "hooks": hooks_table(target.hooks.iter()),
        "deviation": unless_empty(target.deviations.iter().map(|declared| declared.0.to_json()).collect()),
    });
    match to_toml_value(&merged(&[values, only.unwrap_or_default(), tables])) {
        Some(Toml::Table(file)) => file.to_string(),
        _ => String::new(),
    }
}

/// Returns the table of an instance, without hooks that equal the hook of the same name `of_all` instances.
fn instance_table(instance: &Instance, of_all: &BTreeMap<String, HookSpec>) -> Value {
    let settings = |secret: bool| -> Value {
        let chosen = instance.settings.iter().filter(|(_, setting)| setting.secret == secret);
        unless_empty(chosen.map(|(name, setting)| (name.clone(), setting.value.clone())).collect())
    };
    json!({
        "url": instance.url.to_string(),
        "exec": instance.exec.as_ref().map(|exec| &exec.text),
        "provides": unless_empty(instance.provides.iter().cloned().collect()),
        "settings": settings(false),
        "secrets": settings(true),
        "hooks": hooks_table(instance.hooks.iter().filter(|(name, spec)| of_all.get(*name) != Some(*spec))),
    })
}

fn hooks_table<'t>(hooks: impl Iterator<Item = (&'t String, &'t HookSpec)>) -> Value {
    unless_empty(hooks.map(|(name, spec)| (name.clone(), hook_table(spec))).collect())
}

fn hook_table(spec: &HookSpec) -> Value {
    match spec {
        HookSpec::Http { method, url, headers, body, timeout } => json!({ "http": {
            "method": method,
            "url": url,
            "headers": unless_empty(headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect()),
            "body": body,
            "timeout": timeout.map(format_duration),
        } }),
        HookSpec::Command { words, timeout } => json!({ "command": words, "timeout": timeout.map(format_duration) }),
    }
}

/// Joins the members of several mappings.
fn merged(mappings: &[Value]) -> Value {
    let members = mappings.iter().filter_map(Value::as_object).flatten();
    members.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Returns null, which is not written, for an empty list or mapping, or one whose members all are null.
fn unless_empty(value: Value) -> Value {
    let empty = match &value {
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(Value::is_null),
        _ => false,
    };
    if empty { Value::Null } else { value }
}

/// Converts a value; `None` for null, which TOML does not have.
fn to_toml_value(value: &Value) -> Option<Toml> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(b) => Toml::Boolean(*b),
        Value::Number(n) => match n.as_i64() {
            Some(n) => Toml::Integer(n),
            // Beyond 63 bits, or with a decimal point.
            None => Toml::Float(n.as_f64().unwrap_or(f64::MAX)),
        },
        Value::String(s) => Toml::String(s.clone()),
        Value::Array(items) => Toml::Array(items.iter().filter_map(to_toml_value).collect()),
        Value::Object(map) => {
            Toml::Table(map.iter().filter_map(|(k, v)| Some((k.clone(), to_toml_value(v)?))).collect())
        }
    })
}
