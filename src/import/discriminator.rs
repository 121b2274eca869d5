//! Finds matchers that recognise frames, because AsyncAPI has none. If two messages always differ in a place (the value
//! of `type`, an array instead of an object, a member that the other forbids), that place distinguishes them, and a
//! frame that is otherwise invalid is still recognised. Of several such places, the one that distinguishes the most
//! messages counts; the schema judges the others. Without such a place, a frame is the message whose schema it
//! meets, the most specific first; an invalid frame is the only message whose constant members it has.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::document::{DocumentMessage, DocumentOutline};
use super::examples;
use super::schema_facts::{self, SchemaFact, SchemaFacts};
use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::json_schema::{self, SchemaValidator};
use crate::syntax::matcher::{Matcher, are_equal, only_token, unescape};
use crate::syntax::source::Span;
use crate::syntax::yaml::SyntaxNode;

/// A message of the document with its schema, samples and matcher.
pub struct MessageCandidate {
    /// The index of the message in the outline.
    pub message: usize,
    pub name: String,
    pub span: Span,
    pub to_hub: bool,
    pub from_hub: bool,
    /// The roles whose clients receive the message; empty for all.
    pub roles: Vec<String>,
    pub payload: SyntaxNode,
    pub source: Value,
    /// `None` if the schema is invalid.
    pub validator: Option<SchemaValidator>,
    /// The source of the message's matcher.
    pub matches: Map<String, Value>,
    /// An example payload, and whether it comes from the document.
    pub example: Option<(Value, bool)>,
    /// All of the document's examples that are recognised as this message.
    pub documented: Vec<Value>,
    /// Valid payloads, and whether each comes from the document: the document's examples, then generated ones.
    samples: Vec<(Value, bool)>,
    /// Invalid examples of the document, each with the reason.
    misfits: Vec<(Span, String)>,
    facts: SchemaFacts,
    /// How many schemas of other messages allow all samples of this one.
    narrow: usize,
}

impl MessageCandidate {
    pub fn new(
        index: usize,
        message: &DocumentMessage<'_>,
        payload: SyntaxNode,
        source: Value,
        validator: SchemaValidator,
    ) -> Self {
        let (samples, misfits) = examples::valid_samples(message, &source, &validator);
        let facts = schema_facts::schema_facts(&source);
        Self {
            validator: Some(validator),
            samples,
            misfits,
            facts,
            ..Self::with_invalid_schema(index, message, payload, source)
        }
    }

    /// Creates a candidate whose schema is invalid.
    pub fn with_invalid_schema(
        index: usize,
        message: &DocumentMessage<'_>,
        payload: SyntaxNode,
        source: Value,
    ) -> Self {
        Self {
            message: index,
            name: message.name.clone(),
            span: message.span,
            to_hub: message.directions.to_hub,
            from_hub: message.directions.from_hub,
            roles: Vec::new(),
            payload,
            source,
            validator: None,
            matches: Map::new(),
            example: None,
            documented: Vec::new(),
            samples: Vec::new(),
            misfits: Vec::new(),
            facts: SchemaFacts::new(),
            narrow: 0,
        }
    }

    /// Whether a payload is valid by the schema of this message.
    pub fn allows(&self, value: &Value) -> bool {
        self.validator.as_ref().is_some_and(|validator| validator.is_valid(value))
    }

    fn shares_direction(&self, other: &Self) -> bool {
        self.to_hub && other.to_hub || self.from_hub && other.from_hub
    }

    /// Whether a client may receive or send both messages.
    fn shares_role(&self, other: &Self) -> bool {
        let all = self.roles.is_empty() || other.roles.is_empty();
        self.to_hub && other.to_hub || all || self.roles.iter().any(|role| other.roles.contains(role))
    }

    /// Returns the members that are always present with one of a few values: their names and values.
    fn constants(&self) -> Vec<(String, &[Value])> {
        let constant = |(pointer, fact): (&String, &SchemaFact)| {
            let values = self.facts.get(pointer)?.values.as_deref()?;
            (fact.present && values.len() <= MAX_CONSTANTS).then_some((plain_member_name(pointer)?, values))
        };
        self.facts.iter().filter_map(constant).collect()
    }

    /// Returns the constant members by which the message is recognised; all of them if it is recognised by none.
    fn recognising_constants(&self) -> Vec<(String, &[Value])> {
        let (used, others): (Vec<_>, _) =
            self.constants().into_iter().partition(|(name, _)| self.matches.contains_key(name));
        if used.is_empty() { others } else { used }
    }

    /// Whether every frame of the other message may have the constant members by which this one is recognised.
    fn shares_constants(&self, other: &Self) -> bool {
        let theirs = other.constants();
        self.recognising_constants().iter().all(|(name, values)| {
            let others = theirs.iter().find(|(other, _)| other == name).map(|(_, values)| *values);
            others.is_some_and(|others| values.iter().any(|one| others.iter().any(|other| are_equal(one, other))))
        })
    }
}

/// The most values of a member that counts as constant.
const MAX_CONSTANTS: usize = 16;
/// The most messages, and the most bytes of their schemas, with which an invalid frame is compared.
const MAX_COMPARED: usize = 8;
const MAX_COMPARED_BYTES: usize = 64 << 10;

/// Returns the schema of the frames that are recognised as a message: those that meet its schema, and those that have its
/// constant members and are not valid as one of the messages with which it can be confused.
fn recognised_schema(one: &MessageCandidate, others: &[&MessageCandidate]) -> Value {
    let constants = one.recognising_constants();
    let bytes: usize = others.iter().map(|other| other.source.to_string().len()).sum();
    let ambiguous = others.iter().any(|other| one.shares_role(other) && one.shares_constants(other));
    if constants.is_empty()
        || others.is_empty()
        || ambiguous
        || others.len() > MAX_COMPARED
        || bytes > MAX_COMPARED_BYTES
    {
        return one.source.clone();
    }
    let mut defs = Map::new();
    let mut embed = |source: &Value| {
        let prefix = format!("s{}_", defs.len());
        let mut schema = rename_definitions(source, &prefix);
        let own = schema.as_object_mut().and_then(|schema| schema.remove("$defs"));
        for (name, schema) in own.as_ref().and_then(Value::as_object).into_iter().flatten() {
            defs.insert(format!("{prefix}{name}"), schema.clone());
        }
        schema
    };
    let valid = embed(&one.source);
    let elsewhere: Vec<Value> = others.iter().map(|other| embed(&other.source)).collect();
    let names: Vec<&String> = constants.iter().map(|(name, _)| name).collect();
    let members: Map<String, Value> =
        constants.iter().map(|(name, values)| (name.clone(), json!({ "enum": values }))).collect();
    let similar = json!({ "required": names, "properties": members, "not": { "anyOf": elsewhere } });
    let mut schema = json!({ "anyOf": [valid, similar] });
    if !defs.is_empty() {
        schema["$defs"] = Value::Object(defs);
    }
    schema
}

/// Returns a schema whose references to `$defs` have a prefix before their names.
fn rename_definitions(schema: &Value, prefix: &str) -> Value {
    let mut renamed = json_schema::map_subschemas(schema, "", &mut |inner, _| rename_definitions(inner, prefix));
    if let Some(to) = schema.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix("#/$defs/")) {
        renamed["$ref"] = json!(format!("#/$defs/{prefix}{to}"));
    }
    renamed
}

/// Gives every message its matcher and its example. Returns whether a message of the hub was removed that may look like
/// anything. Removes messages without a direction and, with a warning for each,
/// messages without a valid payload or that cannot be distinguished from another.
pub fn assign_matchers(candidates: &mut Vec<MessageCandidate>, diagnostics: &mut Vec<Diagnostic>) -> bool {
    candidates.retain(|one| one.to_hub || one.from_hub);
    for (one, (at, why)) in candidates.iter().flat_map(|one| one.misfits.iter().map(move |misfit| (one, misfit))) {
        let what = format!("this example of `{}` is ignored: it does not match its schema: {why}", one.name);
        diagnostics.push(Diagnostic::warning(*at, what).help("correct the example or the schema"));
    }
    let mut unknown = false;
    candidates.retain(|one| {
        let has = one.validator.is_none() || !one.samples.is_empty();
        if !has {
            unknown |= one.from_hub;
            diagnostics.push(
                Diagnostic::warning(
                    one.span,
                    format!("`{}` is ignored: no payload was found that matches its schema", one.name),
                )
                .help("add one under `examples`, or check whether the schema contradicts itself"),
            );
        }
        has
    });
    let order = order_places(candidates);
    let mut by_validity = vec![false; candidates.len()];
    for first in 0..candidates.len() {
        for second in first + 1..candidates.len() {
            if !candidates[first].shares_direction(&candidates[second]) {
                continue;
            }
            match distinguishing_clauses(&candidates[first].facts, &candidates[second].facts, &order) {
                Some((here, there)) => {
                    add_condition(&mut candidates[first].matches, here);
                    add_condition(&mut candidates[second].matches, there);
                }
                None => (by_validity[first], by_validity[second]) = (true, true),
            }
        }
    }
    for (one, by_validity) in candidates.iter_mut().zip(&by_validity) {
        let recognised = !by_validity && !one.matches.is_empty();
        one.matches.extend(constant_member(&one.facts, &order).filter(|_| !recognised));
    }
    for index in 0..candidates.len() {
        let others = candidates
            .iter()
            .enumerate()
            .filter(|(other, one)| *other != index && by_validity[*other] && one.shares_direction(&candidates[index]));
        let others: Vec<&MessageCandidate> = others.map(|(_, other)| other).collect();
        let allows =
            |other: &&&MessageCandidate| candidates[index].samples.iter().all(|(sample, _)| other.allows(sample));
        let narrow = others.iter().filter(allows).count();
        let schema = by_validity[index].then(|| recognised_schema(&candidates[index], &others));
        candidates[index].narrow = if by_validity[index] { narrow } else { 0 };
        candidates[index].matches.extend(schema.map(|schema| (String::new(), schema)));
    }
    // If a frame matches several messages, the first with the most conditions counts.
    candidates.sort_by_key(|one| Reverse(one.narrow));
    choose_examples(candidates, diagnostics);
    candidates.sort_by_key(|one| (Reverse(one.narrow), one.message));
    unknown
}

/// Gives each message the first of its samples that is recognised as this message.
fn choose_examples(candidates: &mut Vec<MessageCandidate>, diagnostics: &mut Vec<Diagnostic>) {
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
                && best.is_none_or(|best| matcher.condition_count() > matchers[best].condition_count());
            if better {
                best = Some(index);
            }
        }
        best
    };
    /// The example of a message with its origin, and the documented examples.
    type ExampleChoice = (Option<(Value, bool)>, Vec<Value>);
    let mut chosen: Vec<ExampleChoice> = Vec::new();
    for (index, one) in candidates.iter().enumerate() {
        let itself = |value: &Value| {
            [(true, one.to_hub), (false, one.from_hub)]
                .into_iter()
                .all(|(way, goes)| !goes || recognised(value, way) == Some(index))
        };
        let own: Vec<&(Value, bool)> = one.samples.iter().filter(|(value, _)| itself(value)).collect();
        let example = own.first().map(|first| (*first).clone());
        let documented = own.iter().filter(|(_, documented)| *documented).map(|(value, _)| value.clone()).collect();
        if example.is_none() && one.validator.is_some() {
            let taken_for = one.samples.first().and_then(|(value, _)| recognised(value, one.to_hub));
            let other = taken_for.map_or("another", |other| candidates[other].name.as_str());
            diagnostics.push(
                Diagnostic::warning(
                    one.span,
                    format!("`{}` is ignored: it cannot be distinguished from `{other}`", one.name),
                )
                .help("give each of them a member with a different `const`"),
            );
        }
        chosen.push((example, documented));
    }
    for (one, (example, documented)) in candidates.iter_mut().zip(chosen) {
        (one.example, one.documented) = (example, documented);
    }
    candidates.retain(|one| one.example.is_some() || one.validator.is_none());
}

/// The rank of each place whose values are known, by its JSON pointer: the place that best tells the messages apart first.
type PlaceOrder = BTreeMap<String, usize>;

/// Ranks places by how many pairs of messages they distinguish. Among equals, the place that looks most like the type of a
/// message comes first: one with many different values, with texts, and not in every message, as a version is.
fn order_places(candidates: &[MessageCandidate]) -> PlaceOrder {
    let mut pairs: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, first) in candidates.iter().enumerate() {
        for second in candidates[index + 1..].iter().filter(|second| first.shares_direction(second)) {
            let differing = first.facts.iter().filter(|(pointer, fact)| {
                second.facts.get(*pointer).is_some_and(|other| have_different_values(fact, other))
            });
            differing.for_each(|(pointer, _)| *pairs.entry(pointer).or_default() += 1);
        }
    }
    let mut values: BTreeMap<&str, Vec<&[Value]>> = BTreeMap::new();
    for (pointer, fact) in candidates.iter().flat_map(|one| &one.facts) {
        values.entry(pointer).or_default().extend(fact.values.as_deref());
    }
    let mut places: Vec<_> = values.into_iter().filter(|(_, values)| !values.is_empty()).collect();
    places.sort_by_cached_key(|(pointer, values)| {
        let different: BTreeSet<String> = values.iter().copied().flatten().map(Value::to_string).collect();
        let texts = values.iter().copied().flatten().all(Value::is_string);
        let pairs = pairs.get(pointer).copied().unwrap_or_default();
        (Reverse(pairs), Reverse(different.len()), !texts, values.len(), pointer.matches('/').count(), *pointer)
    });
    places.into_iter().enumerate().map(|(rank, (pointer, _))| (pointer.to_owned(), rank)).collect()
}

/// Whether a place has no value in both messages.
fn have_different_values(first: &SchemaFact, second: &SchemaFact) -> bool {
    let (Some(mine), Some(theirs)) = (&first.values, &second.values) else { return false };
    !mine.iter().any(|value| theirs.iter().any(|other| are_equal(value, other)))
}

/// Returns the member that best identifies a message among those that are always present with the same value.
fn constant_member(facts: &SchemaFacts, order: &PlaceOrder) -> Option<(String, Value)> {
    let constant = |(pointer, fact): (&String, &SchemaFact)| match (fact.present, fact.values.as_deref()) {
        (true, Some([value])) if !value.is_object() => {
            Some((order.get(pointer)?, (plain_member_name(pointer)?, value.clone())))
        }
        _ => None,
    };
    facts.iter().filter_map(constant).min_by_key(|(rank, _)| **rank).map(|(_, member)| member)
}

/// Returns the matcher of the frames that the hub may send, by what they are made of; `None` if it may send any, or if the
/// document lists no message of the hub.
pub fn listed_frames(outline: &DocumentOutline<'_>, candidates: &[MessageCandidate]) -> Option<Value> {
    let mut from_hub = candidates.iter().filter(|one| one.from_hub).peekable();
    from_hub.peek()?;
    // A document that does not say that a text is JSON may mean the text itself.
    let plain = from_hub.any(|one| {
        let kinds = one.facts.get("").and_then(|fact| fact.types.as_ref());
        let text = kinds.map_or(one.facts.len() <= 1, |kinds| kinds.contains("string"));
        text && !outline.messages[one.message].states_json
    });
    match (outline.unknown_frames.text || plain, outline.unknown_frames.binary) {
        (false, false) => Some(json!({ "opcode": "text", "/json": true })),
        (true, false) => Some(json!({ "opcode": "text" })),
        (false, true) => Some(json!({
            "": { "anyOf": [{ "properties": { "opcode": { "const": "binary" } } }, { "required": ["json"] }] }
        })),
        (true, true) => None,
    }
}

/// Returns the name of a top-level member, if it can be the key of a matcher.
fn plain_member_name(pointer: &str) -> Option<String> {
    let name = only_token(pointer)?;
    let plain = !name.is_empty() && !name.starts_with('/') && !name.ends_with(" or absent");
    plain.then_some(name)
}

type SchemaClause = (String, Value);

/// Returns a clause for each of two messages so that no payload matches both; `None` if there are no such clauses.
fn distinguishing_clauses(
    first: &SchemaFacts,
    second: &SchemaFacts,
    order: &PlaceOrder,
) -> Option<(SchemaClause, SchemaClause)> {
    let shared = |weak: bool| {
        let both = first.iter().filter_map(|(pointer, fact)| Some((pointer, fact, second.get(pointer)?)));
        let mut both: Vec<_> = both.filter(|(_, first, second)| weak || first.present || second.present).collect();
        both.sort_by_key(|(pointer, first, second)| {
            let rank = order.get(*pointer).copied().unwrap_or(usize::MAX);
            (!first.present && !second.present, rank, pointer.matches('/').count())
        });
        both
    };
    for (pointer, first, second) in shared(true) {
        if let (Some(mine), Some(theirs)) = (&first.values, &second.values)
            && have_different_values(first, second)
        {
            // Many documents forget to require the distinguishing member. A payload without it is recognised as neither
            // message; one from the hub is checked against the schemas of all messages.
            let forgotten = !first.present && !second.present;
            let clause = |fact: &SchemaFact, values| {
                if forgotten { (pointer.clone(), values) } else { schema_clause(pointer, fact, values) }
            };
            return Some((clause(first, values_schema(mine)), clause(second, values_schema(theirs))));
        }
    }
    // If neither message requires the member, its type does not distinguish them.
    for (pointer, first, second) in shared(false) {
        if let (Some(mine), Some(theirs)) = (&first.types, &second.types)
            && mine.is_disjoint(theirs)
        {
            return Some((
                schema_clause(pointer, first, json!({ "type": mine })),
                schema_clause(pointer, second, json!({ "type": theirs })),
            ));
        }
    }
    absent_member_clauses(first, second)
        .or_else(|| absent_member_clauses(second, first).map(|(there, here)| (here, there)))
}

/// Returns the clauses for a member that the first must have and the second must not have.
fn absent_member_clauses(first: &SchemaFacts, second: &SchemaFacts) -> Option<(SchemaClause, SchemaClause)> {
    first.iter().filter(|(_, fact)| fact.present).find_map(|(pointer, _)| {
        let (parent, name) = pointer.rsplit_once('/')?;
        let only = second.get(parent)?.only.as_ref()?;
        let clear = !only.contains(&unescape(name)) && !pointer.ends_with(" or absent");
        clear.then(|| ((pointer.clone(), json!(true)), (pointer.clone(), json!(false))))
    })
}

fn values_schema(values: &[Value]) -> Value {
    match values {
        [value] => json!({ "const": value }),
        values => json!({ "enum": values }),
    }
}

fn schema_clause(pointer: &str, fact: &SchemaFact, schema: Value) -> SchemaClause {
    if fact.present { (pointer.to_owned(), schema) } else { (format!("{pointer} or absent"), schema) }
}

/// Adds a condition; one that demands a value of a member at the top as a plain member.
fn add_condition(matches: &mut Map<String, Value>, (pointer, schema): SchemaClause) {
    if let Some(name) = plain_member_name(&pointer) {
        if let Some(value) = schema.get("const").filter(|value| !value.is_object()) {
            matches.insert(name, value.clone());
            matches.remove(&pointer);
            return;
        }
        if matches.contains_key(&name) {
            return;
        }
    }
    match matches.get_mut(&pointer) {
        None => drop(matches.insert(pointer, schema)),
        Some(before) if *before != schema => {
            let both = json!({ "allOf": [before.clone(), schema.clone()] });
            // A schema implies that the member is present.
            *before = match (&*before, &schema) {
                (Value::Bool(true), _) => schema,
                (_, Value::Bool(_)) => return,
                _ => both,
            };
        }
        Some(_) => {}
    }
}
