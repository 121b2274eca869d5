//! Payloads with exactly one error, generated from facts about the fields.
//!
//! tests/fixtures/facts/<protocol>.json has the documents' statements about each member. It was written independently
//! of the schemas, so that a gap in a schema is detected. Every mutant differs from a valid payload in one place, so a
//! validator rejects it for that place or not at all.

use std::collections::BTreeSet;
use std::fs;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::support::disk;

/// The document's statements about a message.
#[derive(Deserialize)]
pub struct MessageFacts {
    pub name: String,
    /// By path: a JSON pointer, with `*` for the items of an array.
    pub field_types: Map<String, Value>,
    /// The document's example; null if it has none.
    pub example: Value,
}

/// The document's statements about a member.
#[derive(Deserialize)]
struct FieldFacts {
    #[serde(rename = "type")]
    kinds: Value,
    #[serde(rename = "const")]
    constant: Option<Value>,
    /// One value of a closed `enum`, the only one in this message.
    expected: Option<Value>,
    #[serde(rename = "enum", default)]
    closed: Vec<Value>,
    format: Option<String>,
    minimum: Option<Value>,
    presence: String,
    basis: String,
    /// Types accepted with a warning although the document states another: readings of an ambiguity.
    #[serde(default)]
    tolerated: Vec<String>,
}

/// A payload, and the change that was made.
pub struct NamedPayload {
    pub mutation: String,
    pub payload: Value,
}

/// Reads the facts of a protocol, one entry per message.
pub fn facts(protocol: &str) -> Vec<MessageFacts> {
    let path = disk::root().join(format!("tests/fixtures/facts/{protocol}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl MessageFacts {
    /// Returns the paths of members that the document declares as required.
    pub fn required_paths(&self) -> Vec<&str> {
        let fields = self
            .fields()
            .into_iter()
            .filter(|(path, field)| field.presence == "stated_required" && !path.ends_with("/*"));
        fields.map(|(path, _)| path).collect()
    }

    /// Whether a member may have any value.
    pub fn allows_any_value(&self, path: &str) -> bool {
        self.fields().iter().any(|(other, field)| *other == path && field.kinds() == ["any"])
    }

    fn fields(&self) -> Vec<(&str, FieldFacts)> {
        self.field_types
            .iter()
            .map(|(path, field)| {
                (
                    path.as_str(),
                    FieldFacts::deserialize(field).unwrap_or_else(|error| panic!("{} {path}: {error}", self.name)),
                )
            })
            .collect()
    }

    /// Returns payloads that the document allows: its example, the schema's, and one with every documented member.
    pub fn valid_payloads(&self, schema_example: &Value) -> Vec<NamedPayload> {
        let mut found = Vec::new();
        if !self.example.is_null() {
            found.push(NamedPayload { mutation: "the documented example".to_owned(), payload: self.example.clone() });
        }
        found.push(NamedPayload { mutation: "the example of the schema".to_owned(), payload: schema_example.clone() });
        found.push(NamedPayload { mutation: "all members".to_owned(), payload: self.full_payload(schema_example) });
        found
    }

    fn full_payload(&self, example: &Value) -> Value {
        let mut payload = example.clone();
        let mut fields = self.fields();
        fields.sort_by_key(|(path, _)| path.matches('/').count());
        for (path, field) in fields {
            for pointer in existing_places(&payload, path) {
                let (parent, token) = pointer.rsplit_once('/').unwrap();
                match payload.pointer_mut(parent) {
                    Some(Value::Object(members)) if !members.contains_key(token) => {
                        members.insert(token.to_owned(), field.valid_value(path));
                    }
                    Some(Value::Array(items)) if items.is_empty() => items.push(field.valid_value(path)),
                    _ => {}
                }
            }
        }
        payload
    }

    /// Returns payloads with a type that the document does not state, but an ambiguity allows.
    pub fn tolerated_payloads(&self, schema_example: &Value) -> Vec<NamedPayload> {
        let full = self.full_payload(schema_example);
        let mut found = Vec::new();
        for (path, field) in self.fields() {
            for pointer in existing_places(&full, path) {
                for value in value_of_each_type()
                    .into_iter()
                    .filter(|value| field.tolerated.iter().any(|kind| has_type(value, kind)))
                {
                    let mutation = format!("{pointer} is {value}");
                    let mut payload = full.clone();
                    *payload.pointer_mut(&pointer).unwrap() = value;
                    found.push(NamedPayload { mutation, payload });
                }
            }
        }
        found
    }

    /// Returns each valid payload with each stated requirement broken, one at a time. If the document only shows a
    /// message (gator's three formats), inferred requirements count as stated.
    pub fn mutants(&self, schema_example: &Value) -> Vec<NamedPayload> {
        let stated = self.broken_payloads(schema_example, |field| field.basis == "stated");
        if !stated.is_empty() {
            return stated;
        }
        self.broken_payloads(schema_example, |field| field.basis == "inferred" && field.presence == "implied_required")
    }

    fn broken_payloads(&self, schema_example: &Value, binding: impl Fn(&FieldFacts) -> bool) -> Vec<NamedPayload> {
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for base in self.valid_payloads(schema_example) {
            for (path, field) in self.fields() {
                for pointer in existing_places(&base.payload, path)
                    .into_iter()
                    .filter(|pointer| base.payload.pointer(pointer).is_some())
                {
                    if field.presence == "stated_required" && !path.ends_with("/*") {
                        let mut payload = base.payload.clone();
                        remove_member(&mut payload, &pointer);
                        found.push(NamedPayload { mutation: format!("{pointer} removed"), payload });
                    }
                    for wrong in binding(&field).then(|| field.wrong_values()).into_iter().flatten() {
                        let mutation = format!("{pointer} is {wrong}");
                        let mut payload = base.payload.clone();
                        *payload.pointer_mut(&pointer).unwrap() = wrong;
                        found.push(NamedPayload { mutation, payload });
                    }
                }
            }
        }
        found.retain(|mutant| seen.insert(mutant.payload.to_string()));
        found
    }
}

impl FieldFacts {
    fn kinds(&self) -> Vec<&str> {
        match &self.kinds {
            Value::String(kind) => vec![kind],
            Value::Array(kinds) => kinds.iter().map(|kind| kind.as_str().unwrap()).collect(),
            other => panic!("a type is a word or a list of words, not {other}"),
        }
    }

    /// Returns a valid value.
    fn valid_value(&self, path: &str) -> Value {
        if let Some(value) = self.constant.as_ref().or(self.expected.as_ref()).or(self.closed.first()) {
            return value.clone();
        }
        match (self.kinds()[0], self.format.as_deref()) {
            // Some facts take the format from the table of all messages.
            ("string", None) if path == "/timestamp" => json!("2024-01-15T10:30:00Z"),
            ("string", Some("date-time")) => json!("2024-01-15T10:30:00Z"),
            ("string", Some("uri")) => json!("https://example.com/a"),
            ("string", Some("base64")) => json!("eA=="),
            ("string", _) => json!("some"),
            ("integer" | "number", _) => self.minimum.clone().unwrap_or(json!(1)),
            ("boolean", _) => json!(true),
            ("array", _) => json!([]),
            ("object" | "any", _) => json!({}),
            (other, _) => panic!("no such type: {other}"),
        }
    }

    /// Returns values that the document rules out: of every other type, and other than the constant or the closed list.
    fn wrong_values(&self) -> Vec<Value> {
        let mut wrong: Vec<Value> = value_of_each_type()
            .into_iter()
            .filter(|value| {
                !self
                    .kinds()
                    .into_iter()
                    .chain(self.tolerated.iter().map(String::as_str))
                    .any(|kind| has_type(value, kind))
            })
            .collect();
        let only = self.constant.as_ref().or(self.expected.as_ref());
        let allowed: Vec<&Value> = only.map_or_else(|| self.closed.iter().collect(), |only| vec![only]);
        let mut others: Vec<Value> = self.closed.clone();
        for text in allowed.iter().filter_map(|value| value.as_str()) {
            others.extend([json!(format!("{text}x")), json!(text.to_lowercase()), json!(text.to_uppercase())]);
        }
        if !allowed.is_empty() {
            wrong.extend(others.into_iter().filter(|value| !allowed.contains(&value)));
        }
        wrong
    }
}

/// One value of each type.
fn value_of_each_type() -> [Value; 7] {
    [json!(null), json!(true), json!(7), json!(1.5), json!("x"), json!([]), json!({})]
}

fn has_type(value: &Value, kind: &str) -> bool {
    match kind {
        "any" => true,
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no such type: {other}"),
    }
}

/// Returns JSON pointers to the places of a path whose parents exist; the place itself may be missing. The items of an
/// empty array have one place, the first.
fn existing_places(payload: &Value, path: &str) -> Vec<String> {
    let (parent, last) = path.rsplit_once('/').unwrap();
    let parents = if parent.is_empty() { vec![String::new()] } else { existing_places(payload, parent) };
    parents
        .into_iter()
        .flat_map(|parent| match (payload.pointer(&parent), last) {
            (Some(Value::Array(items)), "*") => (0..items.len().max(1)).map(|i| format!("{parent}/{i}")).collect(),
            (Some(Value::Object(_)), name) if name != "*" => vec![format!("{parent}/{name}")],
            _ => Vec::new(),
        })
        .collect()
}

fn remove_member(payload: &mut Value, pointer: &str) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    payload.pointer_mut(parent).and_then(Value::as_object_mut).unwrap().shift_remove(name).unwrap();
}

#[test]
fn payload_mutants_break_every_stated_requirement_once() {
    let field = |kind: &str, presence: &str, basis: &str| json!({ "type": kind, "presence": presence, "basis": basis });
    let facts: MessageFacts = serde_json::from_value(json!({
        "name": "list",
        "field_types": {
            "/type": { "type": "string", "const": "LIST", "presence": "stated_required", "basis": "stated" },
            "/items": field("array", "optional", "stated"),
            "/items/*": field("object", "optional", "example"),
            "/items/*/id": { "type": ["integer", "null"], "tolerated": ["string"], "presence": "stated_required", "basis": "stated" },
            "/items/*/note": field("string", "implied_required", "inferred"),
        },
        "example": null,
    }))
    .unwrap();
    let example = json!({ "type": "LIST", "items": [] });
    let made: Vec<String> =
        facts.mutants(&example).iter().map(|mutant| format!("{}: {}", mutant.mutation, mutant.payload)).collect();
    insta::assert_snapshot!(made.join("\n"));
}
