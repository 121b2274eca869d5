//! How a client connects to a channel: the path with the parameters of the address, and the query and headers of its
//! binding. Values that the document leaves open become settings of the target.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::document::{DocumentChannel, to_word};
use super::references::{DocumentLibrary, DocumentRef};
use crate::redact::is_secret_name;
use crate::scenario::template::escape_expressions;
use crate::websocket::endpoint::decode_query_part;

/// Returns the step that connects to a channel, and declares the settings that the step needs.
pub fn connect_step(
    library: &DocumentLibrary,
    channel: &DocumentChannel<'_>,
    settings: &mut Map<String, Value>,
) -> Value {
    let mut step = Map::new();
    let AddressParts { path, query: addressed } = address_parts(library, channel, settings);
    step.insert("connects".to_owned(), path);
    let binding = resolved_member(library, &channel.place, "bindings")
        .and_then(|bindings| resolved_member(library, &bindings, "ws"));
    let bound = |name: &str| resolved_member(library, binding.as_ref()?, name);
    let mut query = binding_members(library, bound("query"), settings);
    let mut headers = binding_members(library, bound("headers"), settings);
    for (name, scheme) in &channel.security {
        add_security(name, scheme, &mut query, &mut headers, settings);
    }
    for (name, value) in addressed {
        query.entry(name).or_insert(value);
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

/// The path and query of a channel, with its parameters and the variables of its server replaced by settings.
struct AddressParts {
    /// With the constant part of the query; null means the hub's own address.
    path: Value,
    query: Map<String, Value>,
}

fn address_parts(
    library: &DocumentLibrary,
    channel: &DocumentChannel<'_>,
    settings: &mut Map<String, Value>,
) -> AddressParts {
    let described = described_names(library, channel);
    let mut fill = |text: &str| fill_names(text, &described, settings);
    let (mut constant, mut query) = (Vec::new(), Map::new());
    let parts = channel.query();
    for part in parts.split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=').filter(|(name, value)| value.contains('{') && !name.contains('{')) {
            Some((name, value)) => {
                query.insert(decode_query_part(name), json!(fill(&decode_query_part(value))));
            }
            None => constant.push(fill(part)),
        }
    }
    let path = channel.path();
    let mut path = if path == "/" { String::new() } else { fill(&path) };
    if !constant.is_empty() {
        path = format!("{path}?{}", constant.join("&"));
    }
    AddressParts { path: if path.is_empty() { Value::Null } else { json!(path) }, query }
}

/// Returns the parameters of a channel and the variables of its server, each with a description of its kind.
fn described_names<'a>(
    library: &'a DocumentLibrary,
    channel: &DocumentChannel<'a>,
) -> BTreeMap<String, (DocumentRef<'a>, &'static str)> {
    let sources = [
        (channel.server.as_ref(), "variables", "a variable of the server"),
        (Some(&channel.place), "parameters", "a parameter of the address"),
    ];
    let mut described = BTreeMap::new();
    for (place, key, about) in sources {
        let found = place.and_then(|place| resolved_member(library, place, key));
        for (key, one) in found.iter().flat_map(DocumentRef::members) {
            if let Ok(one) = library.follow_reference(one) {
                described.insert(key.name.clone(), (one, about));
            }
        }
    }
    described
}

/// Replaces the names in braces by settings.
fn fill_names(
    text: &str,
    described: &BTreeMap<String, (DocumentRef<'_>, &'static str)>,
    settings: &mut Map<String, Value>,
) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, opened)) = rest.split_once('{') {
        let Some((name, after)) = opened.split_once('}') else { break };
        filled.push_str(&escape_expressions(before));
        let (place, about) = match described.get(name) {
            Some((place, about)) => (Some(place), *about),
            None => (None, "a parameter of the address"),
        };
        let setting = declare_setting(name, place, about, false, settings);
        filled.push_str(&format!("${{hub.{setting}}}"));
        rest = after;
    }
    filled.push_str(&escape_expressions(rest));
    filled
}

/// Returns the query members or headers of an upgrade that the schema of a binding describes. An optional one is sent only
/// if the document allows a single value or the target has a value: a document's example is not the user's token.
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
        let optional = !required.contains(&key.name.as_str()) && member.get("const").is_none();
        let about = if optional { "sent when the socket is opened" } else { "required when the socket is opened" };
        let setting = declare_setting(&key.name, Some(&member), about, optional, settings);
        members.insert(key.name.clone(), json!(format!("${{hub.{setting}}}")));
    }
    members
}

/// Declares a setting for a value that the document describes, and returns the setting's name. An optional setting has no
/// default.
fn declare_setting(
    name: &str,
    place: Option<&DocumentRef<'_>>,
    about: &str,
    optional: bool,
    settings: &mut Map<String, Value>,
) -> String {
    let described = place.and_then(|place| place.text("description")).map(str::trim).filter(|text| !text.is_empty());
    let about = described.map_or_else(|| about.to_owned(), |text| text.lines().next().unwrap_or_default().to_owned());
    let mut declared = Map::from_iter([("about".to_owned(), json!(crate::syntax::matcher::shorten(&about, 100)))]);
    if optional {
        declared.insert("optional".to_owned(), json!(true));
    } else if let Some(default) = place.and_then(default) {
        declared.insert("default".to_owned(), default);
    }
    let hidden = |place: &DocumentRef<'_>| place.text("format") == Some("password");
    if place.is_some_and(hidden) || is_secret_name(name) {
        declared.insert("secret".to_owned(), json!(true));
    }
    add_setting(name, declared, settings)
}

/// Adds a setting under the closest free name and returns that name. Equal values of several channels share a setting.
fn add_setting(name: &str, declared: Map<String, Value>, settings: &mut Map<String, Value>) -> String {
    let mut name = to_identifier(name);
    // Keys of a target file cannot be settings.
    if crate::config::top_level_keys().contains(&name.as_str()) || name == "headers" {
        name = format!("{name}_value");
    }
    let differs = |known: &Value| ["default", "optional"].iter().any(|key| known.get(*key) != declared.get(*key));
    let again = settings.get(&name).is_some_and(differs);
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
