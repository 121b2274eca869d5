//! Generates roles and scenarios for a plain document: a role for each address, which only connects, and for each message
//! to the hub a scenario that sends it and receives what follows. The scenarios have no rules of their own: the schemas
//! check every frame.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::document::{Channel, Outline, word};
use super::references::Place;
use crate::scenario::writer::{flow, scenario};

/// Most addresses, and most scenarios, that are generated.
const MAX_ROLES: usize = 32;
const MAX_SCENARIOS: usize = 200;
/// How long a scenario receives frames: after a message it sent, and where it sends none.
const LISTEN: &str = "300ms";
const LISTEN_ONLY: &str = "2s";

/// Returns the files of the scenarios by path; `to_hub` are the names of the messages that clients send.
pub fn files(outline: &Outline<'_>, to_hub: &[&str]) -> BTreeMap<String, String> {
    let mut settings = Map::new();
    let mut roles: Vec<(String, Value, Vec<usize>, String)> = Vec::new();
    for channel in &outline.channels {
        let connects = connects(channel, &mut settings);
        let sent = channel.to_hub.iter().filter(|index| to_hub.contains(&outline.messages[**index].name.as_str()));
        match roles.iter().position(|(_, known, ..)| *known == connects) {
            Some(index) => roles[index].2.extend(sent),
            None if roles.len() < MAX_ROLES => {
                let name = format!("on_{}", identifier(&channel.name));
                let name = if roles.iter().any(|(other, ..)| *other == name) {
                    format!("{name}_{}", roles.len())
                } else {
                    name
                };
                roles.push((name, connects, sent.copied().collect(), channel.address.clone()));
            }
            None => {}
        }
    }
    if let [(name, ..)] = roles.as_mut_slice() {
        "client".clone_into(name);
    }
    let mut files = BTreeMap::new();
    let declared: Map<String, Value> =
        roles.iter().map(|(name, connects, ..)| (name.clone(), json!({ "opening": [connects] }))).collect();
    let mut shared = Map::new();
    if !settings.is_empty() {
        shared.insert("hub".to_owned(), Value::Object(settings));
    }
    shared.insert("roles".to_owned(), Value::Object(declared));
    let shared: String = shared.iter().map(|(key, value)| format!("{key}: {}\n", flow(value))).collect();
    files.insert("shared.yaml".to_owned(), shared);
    for (role, _, messages, address) in &roles {
        let at = if roles.len() > 1 && !address.is_empty() { format!(" at {address}") } else { String::new() };
        let listens = |time: &str| json!({ format!("{role} expects"): "any", "count": { "min": 0 }, "for": time });
        let mut add = |name: String, title: String, steps: Vec<Value>| {
            if files.len() <= MAX_SCENARIOS {
                let root = Map::from_iter([("title".to_owned(), json!(title)), ("steps".to_owned(), json!(steps))]);
                files.insert(format!("{name}.yaml"), scenario(&root));
            }
        };
        let joins = json!({ format!("{role} joins"): null });
        if messages.is_empty() {
            let title = format!("A client that connects{at} receives only what the document lists");
            add(format!("{role}-hears"), title, vec![joins.clone(), listens(LISTEN_ONLY)]);
        }
        let mut sent: Vec<usize> = messages.clone();
        sent.sort_unstable();
        sent.dedup();
        for index in sent {
            let message = &outline.messages[index].name;
            let title = format!("A client that sends {message}{at} receives only what the document lists");
            let sends = json!({ format!("{role} sends"): message });
            let name = if roles.len() > 1 { format!("{role}-{message}") } else { message.clone() };
            add(name, title, vec![joins.clone(), sends, listens(LISTEN)]);
        }
    }
    files
}

/// Returns the step that connects to a channel, and adds the settings that it needs.
fn connects(channel: &Channel<'_>, settings: &mut Map<String, Value>) -> Value {
    let place = &channel.place;
    let parameters: BTreeMap<String, Place<'_>> =
        place.get("parameters").iter().flat_map(Place::members).map(|(key, one)| (key.name.clone(), one)).collect();
    let mut step = Map::new();
    step.insert("connects".to_owned(), path(&channel.address, &parameters, settings));
    let binding = place.get("bindings").and_then(|bindings| bindings.get("ws"));
    let bound = |name: &str| binding.as_ref().and_then(|ws| ws.get(name));
    let query = members(bound("query"), settings);
    if !query.is_empty() {
        step.insert("query".to_owned(), Value::Object(query));
    }
    let mut headers = members(bound("headers"), settings);
    let subprotocol = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Sec-WebSocket-Protocol"));
    if let Some((name, value)) = subprotocol.map(|(name, value)| (name.clone(), value.clone())) {
        headers.remove(&name);
        step.insert("subprotocols".to_owned(), json!([value]));
    }
    if headers.is_empty() {
        settings.entry("headers").or_insert_with(|| {
            json!({ "secret": true, "default": {}, "about": "headers that the hub requires, such as { Authorization = \"Bearer ...\" }" })
        });
        step.insert("headers".to_owned(), json!("${hub.headers}"));
    } else {
        step.insert("headers".to_owned(), Value::Object(headers));
    }
    Value::Object(step)
}

/// Returns the address with settings in place of its parameters; null for that of the hub itself.
fn path(address: &str, parameters: &BTreeMap<String, Place<'_>>, settings: &mut Map<String, Value>) -> Value {
    // Some documents have the whole URL; the user gives the host.
    let address = match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or(String::new(), |(_, path)| format!("/{path}")),
        None => address.to_owned(),
    };
    let mut path = String::new();
    let mut rest = address.as_str();
    while let Some((before, behind)) = rest.split_once('{') {
        let Some((name, after)) = behind.split_once('}') else { break };
        path.push_str(&literal(before));
        let setting = setting(name, parameters.get(name), "a parameter of the address", settings);
        path.push_str(&format!("${{hub.{setting}}}"));
        rest = after;
    }
    path.push_str(&literal(rest));
    if path.is_empty() || path == "/" { Value::Null } else { json!(path) }
}

/// Escapes a text for a scenario.
fn literal(text: &str) -> String {
    text.replace("${", "${'${'}")
}

/// Returns the members of a query or the headers of an upgrade, by the schema of a binding.
fn members(schema: Option<Place<'_>>, settings: &mut Map<String, Value>) -> Map<String, Value> {
    let mut members = Map::new();
    let Some(schema) = schema else { return members };
    let required: Vec<&str> = schema
        .node
        .get("required")
        .and_then(|list| list.list())
        .into_iter()
        .flatten()
        .filter_map(|one| one.text())
        .collect();
    for (key, member) in schema.get("properties").iter().flat_map(Place::members) {
        // Optional members without a value are left out.
        if !required.contains(&key.name.as_str()) && default(&member).is_none() {
            continue;
        }
        let setting = setting(&key.name, Some(&member), "required when the socket is opened", settings);
        members.insert(key.name.clone(), json!(format!("${{hub.{setting}}}")));
    }
    members
}

/// Declares a setting and returns its name.
fn setting(name: &str, place: Option<&Place<'_>>, about: &str, settings: &mut Map<String, Value>) -> String {
    let described = place.and_then(|place| place.text("description")).map(str::trim).filter(|text| !text.is_empty());
    let about = described.map_or_else(|| about.to_owned(), |text| text.lines().next().unwrap_or_default().to_owned());
    let mut declared = Map::from_iter([("about".to_owned(), json!(crate::syntax::matcher::cut(&about, 100)))]);
    if let Some(default) = place.and_then(default) {
        declared.insert("default".to_owned(), default);
    }
    let mut name = identifier(name);
    // Keys of a target file cannot be settings.
    if crate::config::TOP_LEVEL.contains(&name.as_str()) || name == "headers" {
        name = format!("{name}_value");
    }
    let again = settings.get(&name).is_some_and(|known| known.get("default") != declared.get("default"));
    if again {
        name = (2..).map(|n| format!("{name}_{n}")).find(|name| !settings.contains_key(name)).unwrap_or(name);
    }
    settings.insert(name.clone(), Value::Object(declared));
    name
}

/// Returns the value of a parameter for which the document has a default or an example.
fn default(place: &Place<'_>) -> Option<Value> {
    let schema = place.get("schema");
    [schema.as_ref(), Some(place)].into_iter().flatten().find_map(|place| {
        let first = |name: &str| place.node.get(name)?.list()?.first().cloned();
        let found = place.node.get("const").or(place.node.get("default")).cloned().or_else(|| first("enum"));
        let found = found.or_else(|| first("examples")).or_else(|| place.node.get("example").cloned())?;
        Some(found.to_json()).filter(|value| !value.is_object() && !value.is_array() && !value.is_null())
    })
}

/// Converts a name to one that expressions can use: lower case, digits, `_`.
fn identifier(name: &str) -> String {
    let name = word(name).to_ascii_lowercase().replace(['-', '.'], "_");
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("p_{name}") }
}
