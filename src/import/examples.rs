//! Samples of a message: the valid examples of the document, and generated payloads. Generated payloads are plain,
//! because findings show them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::document::DocumentMessage;
use crate::generate::rng::RandomSource;
use crate::generate::schema_shape::SchemaShape;
use crate::generate::value::{ValueStyle, make_value};
use crate::syntax::json_schema::{SchemaValidator, describe_expected};
use crate::syntax::matcher::{shorten, to_json_text};
use crate::syntax::source::Span;

/// The most characters of an expectation, or of a wrong value, in a warning.
const MAX_SHOWN: usize = 100;
/// The seed of the generated payloads, so that they are always the same.
const SEED: u64 = 0;
/// The number of simple payloads to try, and of random ones to try if no simple one is valid.
const SIMPLE_ATTEMPTS: u64 = 24;
const RANDOM_ATTEMPTS: u64 = 60;
/// The number of payloads that are kept for a message.
const MAX_SAMPLES: usize = 24;

/// The place of an invalid example, and the reason.
pub type ExampleMistake = (Span, String);

/// Returns valid payloads, with whether each comes from the document, and the places of the document's invalid
/// examples, each with the reason.
pub fn valid_samples(
    message: &DocumentMessage<'_>,
    source: &Value,
    validator: &SchemaValidator,
) -> (Vec<(Value, bool)>, Vec<ExampleMistake>) {
    let mut kept = SampleCollector { validator, samples: Vec::new(), seen: BTreeSet::new() };
    let mut wrong = Vec::new();
    for (value, at) in documented_examples(message) {
        if let Some(error) = validator.iter_errors(&value).next() {
            let place = error.instance_path().as_str();
            let expected = describe_expected(&error, source).unwrap_or_else(|| error.to_string());
            let found = shorten(&to_json_text(error.instance()), MAX_SHOWN);
            let at_place = if place.is_empty() { String::new() } else { format!(" at {place}") };
            wrong.push((at, format!("expected {}{at_place}, found {found}", shorten(&expected, MAX_SHOWN))));
        }
        kept.add_if_valid(value, true);
    }
    let make = |number, style| {
        let mut dice = RandomSource::for_case(SEED, number);
        let shape = SchemaShape::draw_form(source, &mut dice);
        make_value(&shape, style, &mut dice)
    };
    // First plain ones with all members, then plain ones with only the required ones, then any.
    let half = SIMPLE_ATTEMPTS / 2;
    let mut too_large = [false; 3];
    for number in 0..SIMPLE_ATTEMPTS + RANDOM_ATTEMPTS {
        let kind = usize::try_from(number / half).unwrap_or(usize::MAX).min(2);
        if too_large[kind] || kind == 2 && kept.samples.len() > 1 {
            continue;
        }
        // The first payload of each kind is the most ordinary one; the others vary.
        let plain = ValueStyle::Plain { all: kind == 0, ordinary: number % half == 0 };
        match make(number, if kind == 2 { ValueStyle::Varied } else { plain }) {
            Some(value) => kept.add_if_valid(value, false),
            None => too_large[kind] = true,
        }
    }
    (kept.samples, wrong)
}

struct SampleCollector<'v> {
    validator: &'v SchemaValidator,
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
