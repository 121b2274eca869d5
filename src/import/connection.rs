//! How a client connects to a channel: the path with the parameters of the address, and the query and headers of its
//! binding. Values that the document leaves open become settings of the target.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::document::{DocumentChannel, to_word};
use super::references::{DocumentLibrary, DocumentRef};
use crate::scenario::template::escape_expressions;

/// Returns the step that connects to a channel, and declares the settings that the step needs.
pub fn connect_step(
    library: &DocumentLibrary,
    channel: &DocumentChannel<'_>,
    settings: &mut Map<String, Value>,
) -> Value {
    let mut step = Map::new();
    step.insert("connects".to_owned(), channel_path(library, channel, settings));
    let binding = resolved_member(library, &channel.place, "bindings")
        .and_then(|bindings| resolved_member(library, &bindings, "ws"));
    let bound = |name: &str| resolved_member(library, binding.as_ref()?, name);
    let mut query = binding_members(library, bound("query"), settings);
    let mut headers = binding_members(library, bound("headers"), settings);
    for (name, scheme) in &channel.security {
        add_security(name, scheme, &mut query, &mut headers, settings);
    }
    if !query.is_empty() {
        step.insert("query".to_owned(), Value::Object(query));
    }
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

/// Returns a member of a place, with references followed.
fn resolved_member<'a>(library: &'a DocumentLibrary, place: &DocumentRef<'a>, name: &str) -> Option<DocumentRef<'a>> {
    library.follow_reference(place.get(name)?).ok()
}

/// Adds the header or query member that a security scheme demands of the upgrade. Schemes beyond HTTP are left to the
/// target, with certificates or its `headers`.
fn add_security(
    name: &str,
    scheme: &DocumentRef<'_>,
    query: &mut Map<String, Value>,
    headers: &mut Map<String, Value>,
    settings: &mut Map<String, Value>,
) {
    let mut secret = |wanted: &str, about: &str| {
        let described = scheme.text("description").map_or(about, |text| text.trim().lines().next().unwrap_or(about));
        let of = if name.is_empty() { String::new() } else { format!(" ({name})") };
        let about = crate::syntax::matcher::shorten(&format!("{described}{of}"), 100);
        add_setting(
            wanted,
            Map::from_iter([("about".to_owned(), json!(about)), ("secret".to_owned(), json!(true))]),
            settings,
        )
    };
    let http = scheme.text("scheme").unwrap_or_default().to_ascii_lowercase();
    match (scheme.text("type").unwrap_or_default(), http.as_str()) {
        ("userPassword" | "plain", _) | ("http", "basic") => {
            let (user, password) = (secret("username", "user name"), secret("password", "password"));
            let pair = format!("Basic ${{base64(hub.{user} ~ ':' ~ hub.{password})}}");
            headers.insert("Authorization".to_owned(), json!(pair));
        }
        ("http", "bearer") | ("oauth2" | "openIdConnect", _) => {
            let token = secret("token", "bearer token");
            headers.insert("Authorization".to_owned(), json!(format!("Bearer ${{hub.{token}}}")));
        }
        ("httpApiKey" | "apiKey", _) => {
            let member = scheme.text("name").unwrap_or("api_key");
            let value = |setting: String| json!(format!("${{hub.{setting}}}"));
            match scheme.text("in") {
                Some("query") => drop(query.insert(member.to_owned(), value(secret(member, "API key")))),
                Some("header") => drop(headers.insert(member.to_owned(), value(secret(member, "API key")))),
                Some("cookie") => {
                    let key = secret(member, "API key");
                    headers
                        .insert("Cookie".to_owned(), json!(format!("{}=${{hub.{key}}}", escape_expressions(member))));
                }
                _ => {}
            }
        }
        _ => {}
    }
}

/// Returns the path of a channel, with its parameters and the variables of its server replaced by settings; null means
/// the path of the hub's own address.
fn channel_path(library: &DocumentLibrary, channel: &DocumentChannel<'_>, settings: &mut Map<String, Value>) -> Value {
    // Some documents give the whole URL; the host is for the user to give.
    let address = match channel.address.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or(String::new(), |(_, path)| format!("/{path}")),
        None => channel.address.clone(),
    };
    let own = !matches!(address.as_str(), "" | "/");
    let base = if channel.address.contains("://") { "" } else { channel.base.as_str() };
    // A channel without its own address is at the address that the user gives, unless its server's path has a variable.
    if !own && !base.contains('{') {
        return Value::Null;
    }
    let variables =
        fill_parameters(library, base, channel.server.as_ref(), "variables", "a variable of the server", settings);
    let rest = if own { address.as_str() } else { "" };
    let separator = if base.is_empty() || rest.is_empty() || rest.starts_with('/') { "" } else { "/" };
    let parameters =
        fill_parameters(library, rest, Some(&channel.place), "parameters", "a parameter of the address", settings);
    json!(format!("{variables}{separator}{parameters}"))
}

/// Replaces the names in braces, which are described under `key`, by settings.
fn fill_parameters(
    library: &DocumentLibrary,
    text: &str,
    place: Option<&DocumentRef<'_>>,
    key: &str,
    about: &str,
    settings: &mut Map<String, Value>,
) -> String {
    let described: BTreeMap<String, DocumentRef<'_>> = place
        .and_then(|place| resolved_member(library, place, key))
        .iter()
        .flat_map(DocumentRef::members)
        .filter_map(|(key, one)| Some((key.name.clone(), library.follow_reference(one).ok()?)))
        .collect();
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, opened)) = rest.split_once('{') {
        let Some((name, after)) = opened.split_once('}') else { break };
        filled.push_str(&escape_expressions(before));
        let setting = declare_setting(name, described.get(name), about, settings);
        filled.push_str(&format!("${{hub.{setting}}}"));
        rest = after;
    }
    filled.push_str(&escape_expressions(rest));
    filled
}

/// Returns the query members or headers of an upgrade that the schema of a binding demands.
fn binding_members(
    library: &DocumentLibrary,
    schema: Option<DocumentRef<'_>>,
    settings: &mut Map<String, Value>,
) -> Map<String, Value> {
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
    for (key, member) in schema.get("properties").iter().flat_map(DocumentRef::members) {
        let Ok(member) = library.follow_reference(member) else { continue };
        // Optional members without a value are left out.
        if !required.contains(&key.name.as_str()) && default(&member).is_none() {
            continue;
        }
        let setting = declare_setting(&key.name, Some(&member), "required when the socket is opened", settings);
        members.insert(key.name.clone(), json!(format!("${{hub.{setting}}}")));
    }
    members
}

/// Declares a setting for a value that the document describes, and returns the setting's name.
fn declare_setting(
    name: &str,
    place: Option<&DocumentRef<'_>>,
    about: &str,
    settings: &mut Map<String, Value>,
) -> String {
    let described = place.and_then(|place| place.text("description")).map(str::trim).filter(|text| !text.is_empty());
    let about = described.map_or_else(|| about.to_owned(), |text| text.lines().next().unwrap_or_default().to_owned());
    let mut declared = Map::from_iter([("about".to_owned(), json!(crate::syntax::matcher::shorten(&about, 100)))]);
    if let Some(default) = place.and_then(default) {
        declared.insert("default".to_owned(), default);
    }
    let hidden = |place: &DocumentRef<'_>| place.text("format") == Some("password");
    if place.is_some_and(hidden) || matches!(name.to_ascii_lowercase().as_str(), "authorization" | "cookie") {
        declared.insert("secret".to_owned(), json!(true));
    }
    add_setting(name, declared, settings)
}

/// Adds a setting under the closest free name and returns that name. Equal values of several channels share a setting.
fn add_setting(name: &str, declared: Map<String, Value>, settings: &mut Map<String, Value>) -> String {
    let mut name = to_identifier(name);
    // Keys of a target file cannot be settings.
    if crate::config::TOP_LEVEL_KEYS.contains(&name.as_str()) || name == "headers" {
        name = format!("{name}_value");
    }
    let again = settings.get(&name).is_some_and(|known| known.get("default") != declared.get("default"));
    if again {
        name = (2..).map(|n| format!("{name}_{n}")).find(|name| !settings.contains_key(name)).unwrap_or(name);
    }
    let known = settings.get(&name).and_then(|known| known.get("secret")).is_some();
    let setting = settings.entry(name.clone()).or_insert(Value::Null);
    *setting = Value::Object(declared);
    // A value that is secret in one place is secret everywhere.
    if known {
        setting["secret"] = json!(true);
    }
    name
}

/// Returns the document's default or example for a parameter, if there is one.
fn default(place: &DocumentRef<'_>) -> Option<Value> {
    let schema = place.get("schema");
    [schema.as_ref(), Some(place)].into_iter().flatten().find_map(|place| {
        let first = |name: &str| place.node.get(name)?.list()?.first().cloned();
        let found = place.node.get("const").or(place.node.get("default")).cloned().or_else(|| first("enum"));
        let found = found.or_else(|| first("examples")).or_else(|| place.node.get("example").cloned())?;
        Some(found.to_json()).filter(|value| !value.is_object() && !value.is_array() && !value.is_null())
    })
}

/// Converts a name to one that expressions can use: lower case, digits, `_`.
pub fn to_identifier(name: &str) -> String {
    let name = to_word(name).to_ascii_lowercase().replace(['-', '.'], "_");
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("p_{name}") }
}
