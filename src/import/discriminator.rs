//! How a frame is recognised, which AsyncAPI does not say. Where two messages differ for sure in a place (the value of
//! `type`, an array instead of an object, a member that the other forbids), that tells them apart, and a frame that is
//! wrong otherwise is still known as what it was meant to be. Where nothing does, a frame is the message that it is valid
//! as, the most specific first.

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use super::document::Message;
use super::examples;
use super::schema_facts::{self, Fact, Facts};
use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::matcher::{Matcher, same, unescape};
use crate::syntax::source::Span;
use crate::syntax::yaml::Node;

/// A message with all that is known about it.
pub struct Candidate {
    /// Index into the outline.
    pub message: usize,
    pub name: String,
    pub span: Span,
    pub to_hub: bool,
    pub from_hub: bool,
    pub payload: Node,
    pub source: Value,
    /// `None` where the schema is none.
    pub validator: Option<Validator>,
    /// What recognises it, as the source of a matcher.
    pub matches: Map<String, Value>,
    /// A payload, and whether the document shows it.
    pub example: Option<(Value, bool)>,
    /// What the document shows and its schema allows, then what was made.
    samples: Vec<(Value, bool)>,
    /// Where the document shows what its schema does not allow.
    misfits: Vec<Span>,
    facts: Facts,
    /// How many others allow whatever this one allows, as far as samples tell.
    narrow: usize,
}

impl Candidate {
    pub fn new(index: usize, message: &Message<'_>, payload: Node, source: Value, validator: Validator) -> Self {
        let (samples, misfits) = examples::samples(message, &source, &validator);
        let facts = schema_facts::of(&source);
        Self { validator: Some(validator), samples, misfits, facts, ..Self::broken(index, message, payload, source) }
    }

    /// One whose schema is none.
    pub fn broken(index: usize, message: &Message<'_>, payload: Node, source: Value) -> Self {
        Self {
            message: index,
            name: message.name.clone(),
            span: message.span,
            to_hub: message.directions.to_hub,
            from_hub: message.directions.from_hub,
            payload,
            source,
            validator: None,
            matches: Map::new(),
            example: None,
            samples: Vec::new(),
            misfits: Vec::new(),
            facts: Facts::new(),
            narrow: 0,
        }
    }

    fn allows(&self, value: &Value) -> bool {
        self.validator.as_ref().is_some_and(|validator| validator.is_valid(value))
    }

    fn meets(&self, other: &Self) -> bool {
        self.to_hub && other.to_hub || self.from_hub && other.from_hub
    }
}

/// Gives every message its matcher and its example. Messages that go nowhere, of which there is no payload, or that nothing
/// tells from another are taken away, each with a note.
pub fn tell_apart(candidates: &mut Vec<Candidate>, diagnostics: &mut Vec<Diagnostic>) {
    candidates.retain(|one| one.to_hub || one.from_hub);
    for (one, at) in candidates.iter().flat_map(|one| one.misfits.iter().map(move |at| (one, at))) {
        diagnostics.push(
            Diagnostic::warning(
                *at,
                format!("this example of `{}` does not fit its schema, and is passed over", one.name),
            )
            .help("change whichever of the two is wrong"),
        );
    }
    candidates.retain(|one| {
        let has = one.validator.is_none() || !one.samples.is_empty();
        if !has {
            diagnostics.push(
                Diagnostic::warning(
                    one.span,
                    format!("`{}` is passed over: no payload was found that fits its schema", one.name),
                )
                .help("give it one under `examples`, or see whether its schema contradicts itself"),
            );
        }
        has
    });
    for one in candidates.iter_mut() {
        one.matches = discriminators(&one.facts);
    }
    let mut by_validity = vec![false; candidates.len()];
    for first in 0..candidates.len() {
        for second in first + 1..candidates.len() {
            if !candidates[first].meets(&candidates[second]) {
                continue;
            }
            match difference(&candidates[first].facts, &candidates[second].facts) {
                Some((here, there)) => {
                    add(&mut candidates[first].matches, here);
                    add(&mut candidates[second].matches, there);
                }
                None => (by_validity[first], by_validity[second]) = (true, true),
            }
        }
    }
    for index in 0..candidates.len() {
        let others = candidates
            .iter()
            .enumerate()
            .filter(|(other, one)| *other != index && by_validity[*other] && one.meets(&candidates[index]));
        let narrow = others
            .filter(|(_, other)| candidates[index].samples.iter().all(|(sample, _)| other.allows(sample)))
            .count();
        candidates[index].narrow = if by_validity[index] { narrow } else { 0 };
        if by_validity[index] {
            let source = candidates[index].source.clone();
            candidates[index].matches.insert(String::new(), source);
        }
    }
    // Of those that a frame is valid as, the first with most conditions counts.
    candidates.sort_by_key(|one| std::cmp::Reverse(one.narrow));
    choose_examples(candidates, diagnostics);
    candidates.sort_by_key(|one| (std::cmp::Reverse(one.narrow), one.message));
}

/// Each message gets the first sample that is recognised as it.
fn choose_examples(candidates: &mut Vec<Candidate>, diagnostics: &mut Vec<Diagnostic>) {
    let matchers: Vec<Matcher> = candidates
        .iter()
        .map(|one| Matcher::compile(&Value::Object(one.matches.clone())).unwrap_or_default())
        .collect();
    let recognised = |value: &Value, to_hub: bool| {
        let mut best: Option<usize> = None;
        for (index, (one, matcher)) in candidates.iter().zip(&matchers).enumerate() {
            let goes = if to_hub { one.to_hub } else { one.from_hub };
            let better = goes
                && matcher.fits(value)
                && best.is_none_or(|best| matcher.conditions() > matchers[best].conditions());
            if better {
                best = Some(index);
            }
        }
        best
    };
    let mut chosen = Vec::new();
    for (index, one) in candidates.iter().enumerate() {
        let itself = |value: &Value| {
            [(true, one.to_hub), (false, one.from_hub)]
                .into_iter()
                .all(|(way, goes)| !goes || recognised(value, way) == Some(index))
        };
        let example = one.samples.iter().find(|(value, _)| itself(value)).cloned();
        if example.is_none() && one.validator.is_some() {
            let taken_for = one.samples.first().and_then(|(value, _)| recognised(value, one.to_hub));
            let other = taken_for.map_or("another", |other| candidates[other].name.as_str());
            diagnostics.push(
                Diagnostic::warning(
                    one.span,
                    format!("`{}` is passed over: nothing tells it from `{other}`", one.name),
                )
                .help("a member with a `const` of its own in each would"),
            );
        }
        chosen.push(example);
    }
    for (one, example) in candidates.iter_mut().zip(chosen) {
        one.example = example;
    }
    candidates.retain(|one| one.example.is_some() || one.validator.is_none());
}

/// The members of the message that have one value and are always there.
fn discriminators(facts: &Facts) -> Map<String, Value> {
    let mut matches = Map::new();
    for (pointer, fact) in facts {
        if let (true, Some([value])) = (fact.present, fact.values.as_deref())
            && let Some(name) = plain_member(pointer)
            && !value.is_object()
        {
            matches.insert(name, value.clone());
        }
    }
    matches
}

/// The name of a member of the whole message, where a matcher would take it as such.
fn plain_member(pointer: &str) -> Option<String> {
    let name = unescape(pointer.strip_prefix('/').filter(|rest| !rest.contains('/'))?);
    let plain =
        !name.is_empty() && !name.starts_with('/') && !name.ends_with(" or absent") && name.parse::<usize>().is_err();
    plain.then_some(name)
}

type Clause = (String, Value);

/// What both of two messages have to be asked so that no payload is taken for both; `None` where nothing is known.
fn difference(first: &Facts, second: &Facts) -> Option<(Clause, Clause)> {
    let shared = |weak: bool| {
        let both = first.iter().filter_map(|(pointer, fact)| Some((pointer, fact, second.get(pointer)?)));
        let mut both: Vec<_> = both.filter(|(_, first, second)| weak || first.present || second.present).collect();
        both.sort_by_key(|(pointer, first, second)| (!first.present && !second.present, pointer.matches('/').count()));
        both
    };
    for (pointer, first, second) in shared(true) {
        if let (Some(mine), Some(theirs)) = (&first.values, &second.values)
            && !mine.iter().any(|value| theirs.iter().any(|other| same(value, other)))
        {
            // Many forget to require what tells their messages apart. A payload without it could be either, and is neither:
            // of the hub it is judged by all of them.
            let forgotten = !first.present && !second.present;
            let clause = |fact: &Fact, values| {
                if forgotten { (pointer.clone(), values) } else { clause(pointer, fact, values) }
            };
            return Some((clause(first, values(mine)), clause(second, values(theirs))));
        }
    }
    // Where neither has to have it, its type tells nothing.
    for (pointer, first, second) in shared(false) {
        if let (Some(mine), Some(theirs)) = (first.kinds(), second.kinds())
            && mine.is_disjoint(&theirs)
        {
            return Some((
                clause(pointer, first, json!({ "type": mine })),
                clause(pointer, second, json!({ "type": theirs })),
            ));
        }
    }
    forbidden(first, second).or_else(|| forbidden(second, first).map(|(there, here)| (here, there)))
}

/// A member that the first has to have and the second must not have.
fn forbidden(first: &Facts, second: &Facts) -> Option<(Clause, Clause)> {
    first.iter().filter(|(_, fact)| fact.present).find_map(|(pointer, _)| {
        let (parent, name) = pointer.rsplit_once('/')?;
        let only = second.get(parent)?.only.as_ref()?;
        let clear = !only.contains(&unescape(name)) && !pointer.ends_with(" or absent");
        clear.then(|| ((pointer.clone(), json!(true)), (pointer.clone(), json!(false))))
    })
}

fn values(values: &[Value]) -> Value {
    match values {
        [value] => json!({ "const": value }),
        values => json!({ "enum": values }),
    }
}

fn clause(pointer: &str, fact: &Fact, schema: Value) -> Clause {
    if fact.present { (pointer.to_owned(), schema) } else { (format!("{pointer} or absent"), schema) }
}

/// One more condition, unless the plain member says it already.
fn add(matches: &mut Map<String, Value>, (pointer, schema): Clause) {
    let said = plain_member(&pointer)
        .and_then(|name| matches.get(&name))
        .is_some_and(|value| schema.get("const") == Some(value));
    if said {
        return;
    }
    match matches.get_mut(&pointer) {
        None => drop(matches.insert(pointer, schema)),
        Some(before) if *before != schema => {
            let both = json!({ "allOf": [before.clone(), schema.clone()] });
            // That something is there, or is not, says less than what it is.
            *before = match (&*before, &schema) {
                (Value::Bool(true), _) => schema,
                (_, Value::Bool(_)) => return,
                _ => both,
            };
        }
        Some(_) => {}
    }
}
