//! Writes a target as TOML, for `serve --target-file`.

use std::collections::BTreeMap;

use serde_json::Value;
use toml::{Table, Value as Toml};

use super::{HookSpec, Instance, ONLY_INSTANCE, Target, format_duration};

pub(super) fn to_toml(target: &Target) -> String {
    let mut file = Table::new();
    let mut put = |key: &str, value: Toml| drop(file.insert(key.to_owned(), value));
    if let Some(protocol) = &target.protocol {
        put("protocol", protocol.as_str().into());
    }
    if let Some(connections) = target.connections {
        put("connections", Toml::Integer(i64::try_from(connections).unwrap_or(i64::MAX)));
    }
    put("patience", format_duration(target.patience).into());
    put("quiet", format_duration(target.quiet).into());
    put("restartable", target.restartable.into());
    if let Some(exec) = &target.exec {
        put("exec", exec.text.as_str().into());
    }
    match target.instances.as_slice() {
        [only] if only.name == ONLY_INSTANCE => file.extend(instance(only, &target.hooks)),
        several => {
            let named = several.iter().map(|i| {
                let mut table = Table::new();
                table.insert("name".to_owned(), i.name.as_str().into());
                table.extend(instance(i, &target.hooks));
                Toml::Table(table)
            });
            file.insert("instance".to_owned(), Toml::Array(named.collect()));
        }
    }
    let mut tls = Table::new();
    if let Some(ca) = &target.tls.ca {
        tls.insert("ca".to_owned(), ca.to_string_lossy().into_owned().into());
    }
    if target.tls.insecure {
        tls.insert("insecure".to_owned(), true.into());
    }
    if !tls.is_empty() {
        file.insert("tls".to_owned(), tls.into());
    }
    if !target.hooks.is_empty() {
        file.insert("hooks".to_owned(), hooks(target.hooks.iter()));
    }
    if !target.deviations.is_empty() {
        let declared = target.deviations.iter().filter_map(|declared| toml(&declared.0.to_json()));
        file.insert("deviation".to_owned(), Toml::Array(declared.collect()));
    }
    file.to_string()
}

/// Returns the table of an instance, without hooks that are equal to those `of_all` instances.
fn instance(instance: &Instance, of_all: &BTreeMap<String, HookSpec>) -> Table {
    let mut table = Table::new();
    table.insert("url".to_owned(), instance.url.to_string().into());
    if let Some(exec) = &instance.exec {
        table.insert("exec".to_owned(), exec.text.as_str().into());
    }
    if !instance.provides.is_empty() {
        let words = instance.provides.iter().map(|word| word.as_str().into());
        table.insert("provides".to_owned(), Toml::Array(words.collect()));
    }
    for (key, secret) in [("settings", false), ("secrets", true)] {
        let chosen = instance.settings.iter().filter(|(_, setting)| setting.secret == secret);
        let level: Table = chosen.filter_map(|(name, setting)| Some((name.clone(), toml(&setting.value)?))).collect();
        if !level.is_empty() {
            table.insert(key.to_owned(), Toml::Table(level));
        }
    }
    let own: Vec<_> = instance.hooks.iter().filter(|(name, spec)| of_all.get(*name) != Some(*spec)).collect();
    if !own.is_empty() {
        table.insert("hooks".to_owned(), hooks(own.into_iter()));
    }
    table
}

fn hooks<'t>(hooks: impl Iterator<Item = (&'t String, &'t HookSpec)>) -> Toml {
    Toml::Table(hooks.map(|(name, spec)| (name.clone(), Toml::Table(hook(spec)))).collect())
}

fn hook(spec: &HookSpec) -> Table {
    let mut table = Table::new();
    match spec {
        HookSpec::Http { method, url, headers, body, timeout } => {
            let mut http = Table::new();
            http.insert("method".to_owned(), method.as_str().into());
            http.insert("url".to_owned(), url.as_str().into());
            if !headers.is_empty() {
                let headers = headers.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
                http.insert("headers".to_owned(), Toml::Table(headers.collect()));
            }
            if let Some(body) = body {
                http.insert("body".to_owned(), body.as_str().into());
            }
            if let Some(timeout) = timeout {
                http.insert("timeout".to_owned(), format_duration(*timeout).into());
            }
            table.insert("http".to_owned(), Toml::Table(http));
        }
        HookSpec::Command { words, timeout } => {
            let words = words.iter().map(|word| word.as_str().into());
            table.insert("command".to_owned(), Toml::Array(words.collect()));
            if let Some(timeout) = timeout {
                table.insert("timeout".to_owned(), format_duration(*timeout).into());
            }
        }
    }
    table
}

/// Converts a value; `None` for null, which TOML does not have.
fn toml(value: &Value) -> Option<Toml> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(b) => Toml::Boolean(*b),
        Value::Number(n) => match n.as_i64() {
            Some(n) => Toml::Integer(n),
            // Beyond 63 bits, or with a decimal point.
            None => Toml::Float(n.as_f64().unwrap_or(f64::MAX)),
        },
        Value::String(s) => Toml::String(s.clone()),
        Value::Array(items) => Toml::Array(items.iter().filter_map(toml).collect()),
        Value::Object(map) => Toml::Table(map.iter().filter_map(|(k, v)| Some((k.clone(), toml(v)?))).collect()),
    })
}
