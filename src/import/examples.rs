//! Samples of a message: the valid examples of the document, and generated payloads. Generated payloads are simple,
//! because findings show them: every member of the schema, with a word or a number.

use std::collections::BTreeSet;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use super::document::Message;
use crate::generate::rng::Dice;
use crate::generate::schema_shape::{Branches, Shape};
use crate::generate::value;
use crate::syntax::source::Span;

/// The seed of the generated payloads, so that they are always the same.
const SEED: u64 = 0;
/// The number of simple payloads to try, and of random ones to try if no simple one is valid.
const PLAIN: u64 = 24;
const OTHER: u64 = 60;
/// The number of payloads that are kept for a message.
const ENOUGH: usize = 24;
/// The most levels and the most values of a simple payload.
const DEPTH: usize = 12;
const VALUES: usize = 400;

/// Returns valid payloads, with whether each comes from the document, and the places of the document's invalid
/// examples.
pub fn samples(message: &Message<'_>, source: &Value, validator: &Validator) -> (Vec<(Value, bool)>, Vec<Span>) {
    let mut kept = Kept { validator, samples: Vec::new(), seen: BTreeSet::new() };
    let mut wrong = Vec::new();
    for (value, at) in shown(message) {
        if !validator.is_valid(&value) {
            wrong.push(at);
        }
        kept.add(value, true);
    }
    for number in 0..PLAIN {
        let mut dice = Dice::of(SEED, number);
        let shape = Shape::of(source, &mut Branches::One(&mut dice));
        let mut left = VALUES;
        // First with all members, then with only the required ones.
        let all = number < PLAIN / 2;
        kept.add(plain(&shape, "text", all, 0, &mut left, &mut dice), false);
    }
    for number in 0..OTHER {
        if kept.samples.len() > 1 {
            break;
        }
        let mut dice = Dice::of(SEED, PLAIN + number);
        let shape = Shape::of(source, &mut Branches::One(&mut dice));
        kept.add(value::value(&shape, &mut dice), false);
    }
    (kept.samples, wrong)
}

struct Kept<'v> {
    validator: &'v Validator,
    samples: Vec<(Value, bool)>,
    seen: BTreeSet<String>,
}

impl Kept<'_> {
    fn add(&mut self, value: Value, shown: bool) {
        if self.samples.len() < ENOUGH && self.validator.is_valid(&value) && self.seen.insert(value.to_string()) {
            self.samples.push((value, shown));
        }
    }
}

/// Returns the examples of the message and of its payload, with their places.
fn shown(message: &Message<'_>) -> Vec<(Value, Span)> {
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

fn plain(shape: &Shape<'_>, name: &str, all: bool, depth: usize, left: &mut usize, dice: &mut Dice) -> Value {
    *left = left.saturating_sub(1);
    if let Some(values) = shape.values() {
        return dice.pick(&values).map_or(Value::Null, |value| (*value).clone());
    }
    let types = shape.types();
    let kind = match types.iter().find(|kind| **kind != "null").or(types.first()) {
        Some(kind) => *kind,
        None if !shape.members().is_empty() => "object",
        None if shape.least("minItems").is_some() => "array",
        None if shape.text("pattern").is_some() || shape.text("format").is_some() => "string",
        None if shape.least("minimum").is_some() || shape.most("maximum").is_some() => "number",
        None => return json!({}),
    };
    // A payload that must be deeper than this is infinite; null makes it invalid.
    if depth >= DEPTH {
        return Value::Null;
    }
    match kind {
        "null" => Value::Null,
        "boolean" => json!(true),
        "integer" | "number" => number(shape, dice),
        "array" => {
            let least = shape.least("minItems").map_or(0, |least| least as usize);
            let some = usize::from(all && *left > 0 && shape.most("maxItems").is_none_or(|most| most >= 1.0));
            let wanted = least.max(some).min(VALUES);
            (0..wanted)
                .map_while(|index| {
                    let inner = shape.item(index, &mut Branches::One(dice));
                    (*left > 0 || index < least).then(|| plain(&inner, name, all, depth + 1, left, dice))
                })
                .collect()
        }
        "object" => {
            let required = shape.required();
            let mut members = Map::new();
            for member in shape.members() {
                if required.contains(member) || all && *left > 0 && depth < 4 {
                    let inner = shape.member(member, &mut Branches::One(dice));
                    members.insert(member.to_owned(), plain(&inner, member, all, depth + 1, left, dice));
                }
                if *left == 0 && members.len() > VALUES {
                    break;
                }
            }
            Value::Object(members)
        }
        _ if shape.text("pattern").is_some() || shape.text("format").is_some() => value::value(shape, dice),
        _ => json!(word(shape, name)),
    }
}

/// Returns 1, or a number within the bounds of the schema.
fn number(shape: &Shape<'_>, dice: &mut Dice) -> Value {
    let bounds = ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"];
    if bounds.iter().all(|name| shape.least(name).is_none()) { json!(1) } else { value::value(shape, dice) }
}

/// Returns the name of the member as its value, adapted to the allowed length.
fn word(shape: &Shape<'_>, name: &str) -> String {
    let least = shape.least("minLength").map_or(0, |least| least as usize).min(1 << 16);
    let most = shape.most("maxLength").map_or(usize::MAX, |most| most as usize);
    let mut word = name.to_owned();
    let missing = least.saturating_sub(word.chars().count());
    word.extend(std::iter::repeat_n('x', missing));
    word.chars().take(most).collect()
}
