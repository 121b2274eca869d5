//! Derives a schema that all samples of a message match. It requires only their common features.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{is_time, is_uuid};
use crate::syntax::json_schema;
use crate::syntax::matcher::{array_index, unescape};

/// The depth to which values are described.
const MAX_DEPTH: usize = 12;
/// The most members of an object that are described one by one; the keys of a larger object are data.
const MAX_MEMBERS: usize = 100;
/// The most values of an enumeration, and how often each has to occur on average.
const MAX_ENUM: usize = 6;
const MIN_REPETITIONS: usize = 3;
const MAX_WORD: usize = 32;

/// Returns the schema of the samples.
pub fn schema_of_samples(samples: &[&Value]) -> Value {
    describe_samples(samples, 0)
}

/// Returns the schema of samples that are arrays whose elements have meanings of their own, like members.
pub fn schema_of_records(samples: &[&Value]) -> Value {
    let arrays: Vec<&Vec<Value>> = samples.iter().filter_map(|sample| sample.as_array()).collect();
    let longest = arrays.iter().map(|array| array.len()).max().unwrap_or_default();
    let shortest = arrays.iter().map(|array| array.len()).min().unwrap_or_default();
    let element = |index: usize| {
        let found: Vec<&Value> = arrays.iter().filter_map(|array| array.get(index)).collect();
        describe_samples(&found, 1)
    };
    let elements: Vec<Value> = (0..longest).map(element).collect();
    json!({ "type": "array", "prefixItems": elements, "minItems": shortest, "maxItems": longest })
}

fn describe_samples(samples: &[&Value], depth: usize) -> Value {
    let mut types: BTreeSet<&str> = samples.iter().map(|sample| sample_type(sample)).collect();
    if types.contains("number") {
        types.remove("integer");
    }
    let mut schema = Map::new();
    match types.iter().collect::<Vec<_>>().as_slice() {
        [] => return json!({}),
        [one] => schema.insert("type".to_owned(), json!(one)),
        many => schema.insert("type".to_owned(), json!(many)),
    };
    if depth >= MAX_DEPTH {
        return Value::Object(schema);
    }
    let texts: Vec<&str> = samples.iter().filter_map(|sample| sample.as_str()).collect();
    if types.len() == 1
        && texts.len() == samples.len()
        && let Some(words) = enumerated_words(&texts)
    {
        return json!({ "enum": words });
    }
    if let Some(format) = common_format(&texts) {
        schema.insert("format".to_owned(), json!(format));
    }
    let lists: Vec<&Vec<Value>> = samples.iter().filter_map(|sample| sample.as_array()).collect();
    let items: Vec<&Value> = lists.into_iter().flatten().collect();
    if !items.is_empty() {
        schema.insert("items".to_owned(), describe_samples(&items, depth + 1));
    }
    let objects: Vec<&Map<String, Value>> = samples.iter().filter_map(|sample| sample.as_object()).collect();
    let mut members: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for (name, member) in objects.iter().copied().flatten() {
        members.entry(name).or_default().push(member);
    }
    if members.len() > MAX_MEMBERS {
        let all: Vec<&Value> = members.values().flatten().copied().collect();
        schema.insert("additionalProperties".to_owned(), describe_samples(&all, depth + 1));
    } else if !members.is_empty() {
        let required: Vec<&str> =
            members.iter().filter(|(_, found)| found.len() == objects.len()).map(|(name, _)| *name).collect();
        let properties: Map<String, Value> =
            members.iter().map(|(name, found)| ((*name).to_owned(), describe_samples(found, depth + 1))).collect();
        schema.insert("properties".to_owned(), Value::Object(properties));
        if !required.is_empty() {
            schema.insert("required".to_owned(), json!(required));
        }
    }
    Value::Object(schema)
}

/// Returns the JSON type of a value; a number without a decimal point is an integer.
fn sample_type(value: &Value) -> &'static str {
    match value {
        Value::Number(number) if !number.is_f64() => "integer",
        other => json_schema::json_type(other),
    }
}

/// Returns the distinct words, if they are few and repeated.
fn enumerated_words<'t>(texts: &[&'t str]) -> Option<BTreeSet<&'t str>> {
    let words: BTreeSet<&str> = texts.iter().copied().collect();
    let plain = |word: &&str| {
        !word.is_empty()
            && word.len() <= MAX_WORD
            && word.chars().all(|c| c.is_ascii_alphabetic() || matches!(c, '_' | '-' | '.' | ':'))
    };
    let repeated = words.len() <= MAX_ENUM && texts.len() >= MIN_REPETITIONS * words.len() && words.len() > 1;
    (repeated && words.iter().all(plain)).then_some(words)
}

/// Returns the format that all texts have.
fn common_format(texts: &[&str]) -> Option<&'static str> {
    let date = |text: &str| text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok();
    let uri = |text: &str| {
        let scheme = ["http://", "https://", "ws://", "wss://"].into_iter().any(|scheme| text.starts_with(scheme));
        scheme && text.parse::<http::Uri>().is_ok()
    };
    type TextPredicate<'a> = &'a dyn Fn(&str) -> bool;
    let formats: [(&str, TextPredicate<'_>); 4] =
        [("uuid", &is_uuid), ("date-time", &is_time), ("date", &date), ("uri", &uri)];
    let all = |test: &dyn Fn(&str) -> bool| !texts.is_empty() && texts.iter().all(|text| test(text));
    formats.into_iter().find(|(_, test)| all(test)).map(|(name, _)| name)
}

/// Makes the member constant that distinguishes the message.
pub fn make_constant(schema: &mut Value, pointer: &str, value: &Value) {
    let mut place = schema;
    for token in pointer.split('/').skip(1).map(unescape) {
        place = match array_index(&token).filter(|_| place.get("prefixItems").is_some()) {
            Some(index) => &mut place["prefixItems"][index],
            None => &mut place["properties"][token.as_str()],
        };
    }
    *place = json!({ "const": value });
}
