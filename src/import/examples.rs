//! Samples of a message: the valid examples of the document, and generated payloads. Generated payloads are simple,
//! because findings show them: every member of the schema, with its default, the first of its allowed values, or else a
//! word or a number.

use std::collections::BTreeSet;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use super::document::DocumentMessage;
use crate::generate::rng::RandomSource;
use crate::generate::schema_shape::{BranchChoice, SchemaShape};
use crate::generate::value;
use crate::syntax::source::Span;

/// The seed of the generated payloads, so that they are always the same.
const SEED: u64 = 0;
/// The number of simple payloads to try, and of random ones to try if no simple one is valid.
const SIMPLE_ATTEMPTS: u64 = 24;
const RANDOM_ATTEMPTS: u64 = 60;
/// The number of payloads that are kept for a message.
const MAX_SAMPLES: usize = 24;
/// The most levels and the most values of a simple payload.
const MAX_DEPTH: usize = 12;
const MAX_VALUES: usize = 400;

/// Returns valid payloads, with whether each comes from the document, and the places of the document's invalid
/// examples.
pub fn valid_samples(
    message: &DocumentMessage<'_>,
    source: &Value,
    validator: &Validator,
) -> (Vec<(Value, bool)>, Vec<Span>) {
    let mut kept = SampleCollector { validator, samples: Vec::new(), seen: BTreeSet::new() };
    let mut wrong = Vec::new();
    for (value, at) in documented_examples(message) {
        if !validator.is_valid(&value) {
            wrong.push(at);
        }
        kept.add_if_valid(value, true);
    }
    for number in 0..SIMPLE_ATTEMPTS {
        let mut dice = RandomSource::for_case(SEED, number);
        let shape = SchemaShape::from_schema(source, &mut BranchChoice::One(&mut dice));
        let mut left = MAX_VALUES;
        // First with all members, then with only the required ones.
        let all = number < SIMPLE_ATTEMPTS / 2;
        // The first payload of each kind is the most ordinary one; the others vary.
        let members = MemberChoice { all, ordinary: number % (SIMPLE_ATTEMPTS / 2) == 0 };
        kept.add_if_valid(simple_value(&shape, "text", members, 0, &mut left, &mut dice), false);
    }
    for number in 0..RANDOM_ATTEMPTS {
        if kept.samples.len() > 1 {
            break;
        }
        let mut dice = RandomSource::for_case(SEED, SIMPLE_ATTEMPTS + number);
        let shape = SchemaShape::from_schema(source, &mut BranchChoice::One(&mut dice));
        kept.add_if_valid(value::draw_value(&shape, &mut dice), false);
    }
    (kept.samples, wrong)
}

struct SampleCollector<'v> {
    validator: &'v Validator,
    samples: Vec<(Value, bool)>,
    seen: BTreeSet<String>,
}

impl SampleCollector<'_> {
    fn add_if_valid(&mut self, value: Value, shown: bool) {
        if self.samples.len() < MAX_SAMPLES && self.validator.is_valid(&value) && self.seen.insert(value.to_string()) {
            self.samples.push((value, shown));
        }
    }
}

/// Returns the examples of the message and of its payload, with their places.
fn documented_examples(message: &DocumentMessage<'_>) -> Vec<(Value, Span)> {
    let mut found = Vec::new();
    for place in &message.examples {
        // Newer versions of AsyncAPI name the payload; older ones have only the payload itself, or only the headers.
        match (place.node.get("payload"), place.node.get("headers")) {
            (Some(payload), _) => found.push(payload),
            (None, Some(_)) => {}
            (None, None) => found.push(place.node),
        }
    }
    if let Some(payload) = &message.payload {
        found.extend(payload.node.get("examples").and_then(|list| list.list()).into_iter().flatten());
        found.extend(payload.node.get("example"));
    }
    found.into_iter().map(|node| (node.to_json(), node.span)).collect()
}

/// How to fill the members of a simple payload.
#[derive(Clone, Copy)]
struct MemberChoice {
    /// Whether to write optional members, too.
    all: bool,
    /// Whether to use defaults and the first of several allowed values.
    ordinary: bool,
}

fn simple_value(
    shape: &SchemaShape<'_>,
    name: &str,
    members: MemberChoice,
    depth: usize,
    left: &mut usize,
    dice: &mut RandomSource,
) -> Value {
    *left = left.saturating_sub(1);
    if let Some(default) = shape.default_value().filter(|_| members.ordinary) {
        return default.clone();
    }
    if let Some(values) = shape.allowed_values() {
        let chosen = if members.ordinary { values.first() } else { dice.pick(&values) };
        return chosen.map_or(Value::Null, |value| (*value).clone());
    }
    let types = shape.types();
    let kind = match types.iter().find(|kind| **kind != "null").or(types.first()) {
        Some(kind) => *kind,
        None if !shape.member_names().is_empty() => "object",
        None if shape.lower_bound("minItems").is_some() => "array",
        None if shape.keyword_text("pattern").is_some() || shape.keyword_text("format").is_some() => "string",
        None if shape.lower_bound("minimum").is_some() || shape.upper_bound("maximum").is_some() => "number",
        None => return json!({}),
    };
    // A payload that must be deeper than this is infinite; null makes it invalid.
    if depth >= MAX_DEPTH {
        return Value::Null;
    }
    match kind {
        "null" => Value::Null,
        "boolean" => json!(true),
        "integer" | "number" => simple_number(shape, dice),
        "array" => {
            let least = shape.lower_bound("minItems").map_or(0, |least| least as usize);
            let some =
                usize::from(members.all && *left > 0 && shape.upper_bound("maxItems").is_none_or(|most| most >= 1.0));
            let wanted = least.max(some).min(MAX_VALUES);
            (0..wanted)
                .map_while(|index| {
                    let inner = shape.item(index, &mut BranchChoice::One(dice));
                    (*left > 0 || index < least).then(|| simple_value(&inner, name, members, depth + 1, left, dice))
                })
                .collect()
        }
        "object" => {
            let required = shape.required_members();
            let mut object = Map::new();
            for member in shape.member_names() {
                if required.contains(member) || members.all && *left > 0 && depth < 4 {
                    let inner = shape.member(member, &mut BranchChoice::One(dice));
                    object.insert(member.to_owned(), simple_value(&inner, member, members, depth + 1, left, dice));
                }
                if *left == 0 && object.len() > MAX_VALUES {
                    break;
                }
            }
            Value::Object(object)
        }
        _ if shape.keyword_text("pattern").is_some() || shape.keyword_text("format").is_some() => {
            value::draw_value(shape, dice)
        }
        _ => json!(simple_word(shape, name)),
    }
}

/// Returns 1, or a number within the bounds of the schema.
fn simple_number(shape: &SchemaShape<'_>, dice: &mut RandomSource) -> Value {
    let bounds = ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"];
    if bounds.iter().all(|name| shape.lower_bound(name).is_none()) { json!(1) } else { value::draw_value(shape, dice) }
}

/// Returns the name of the member as its value, adapted to the allowed length.
fn simple_word(shape: &SchemaShape<'_>, name: &str) -> String {
    let least = shape.lower_bound("minLength").map_or(0, |least| least as usize).min(1 << 16);
    let most = shape.upper_bound("maxLength").map_or(usize::MAX, |most| most as usize);
    let mut word = name.to_owned();
    let missing = least.saturating_sub(word.chars().count());
    word.extend(std::iter::repeat_n('x', missing));
    word.chars().take(most).collect()
}
