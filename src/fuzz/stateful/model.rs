//! What random walks need to know of a protocol: which roles send which messages, which members are names of objects,
//! and how the scenarios vary the examples. Computed once for a run.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::fuzz::case_scenario::{CaseScenario, CaseStep};
use crate::fuzz::corpus::Corpus;
use crate::fuzz::corpus::prefix::{self, Overrides};
use crate::fuzz::expressions;
use crate::fuzz::mutate::payload;
use crate::generate::schema_shape::SchemaShape;
use crate::protocol::MessageType;
use crate::scenario::expression::PathSegment;
use crate::scenario::parse::verbs::StepVerb;

pub struct WalkModel {
    /// Roles that take part in walks: clients with an opening.
    pub roles: Vec<WalkRole>,
    /// Messages by which a hub may refuse any input.
    pub errors: Vec<String>,
    leaves: BTreeMap<String, Vec<TextLeaf>>,
    variants: BTreeMap<String, Vec<Overrides>>,
    /// What a walk with a message must have for itself, by the message's name.
    exclusive: BTreeMap<String, String>,
    /// Indices of the messages that create an object (their reply names it, they do not), by the name of the object in
    /// the documented examples.
    makers: BTreeMap<String, Vec<usize>>,
}

pub struct WalkRole {
    pub name: String,
    /// Indices of the messages that the role sends.
    pub sends: Vec<usize>,
}

/// A text member without a fixed set of values: perhaps the name of an object.
pub struct TextLeaf {
    /// JSON pointer of the member.
    pub pointer: String,
    /// The members and items that lead to it.
    pub path: Vec<PathSegment>,
    /// Name of the member, or of the member whose list it is in.
    pub name: String,
    /// The member's value in the documented example. Equal values in the examples of a document name the same object.
    pub example: String,
    /// Whether the schema requires the member and all members around it.
    pub required: bool,
    /// Whether other messages have the same member, or the same value in their example.
    pub shared: bool,
    /// Whether the schema has a pattern or format for the member, so that a generated name may not fit.
    pub formed: bool,
}

impl WalkModel {
    pub fn from_corpus(corpus: &Corpus) -> Self {
        let pack = &corpus.pack;
        let senders: Vec<(usize, Vec<&str>)> = pack
            .messages
            .iter()
            .enumerate()
            .filter(|(_, message)| message.directions.to_hub && !message.abstract_)
            .map(|(index, message)| (index, corpus.senders(&message.name)))
            .collect();
        let sends = |role| senders.iter().filter(move |(_, roles)| roles.contains(&role)).map(|(index, _)| *index);
        let (exclusive, destructive) = find_exclusive(corpus);
        let is_safe = |index: &usize| !destructive.contains(&pack.messages[*index].name);
        let sends = |role| sends(role).filter(is_safe);
        let roles = corpus.roles().into_iter().filter(|role| !corpus.opening(role).is_empty());
        let roles = roles.map(|role| WalkRole { name: role.to_owned(), sends: sends(role).collect() });
        let mut leaves: BTreeMap<String, Vec<TextLeaf>> =
            pack.messages.iter().map(|message| (message.name.clone(), find_leaves(message))).collect();
        mark_shared(&mut leaves);
        let envelopes = pack.messages.iter().filter(|message| message.abstract_ && message.directions.to_hub);
        let mut errors: Vec<String> = envelopes.flat_map(|envelope| envelope.replies.clone()).collect();
        errors.sort();
        errors.dedup();
        let makers = find_creating_messages(corpus, &leaves);
        let variants = find_variants(corpus, &exclusive);
        Self { roles: roles.collect(), errors, leaves, variants, exclusive, makers }
    }

    pub fn leaves(&self, message: &MessageType) -> &[TextLeaf] {
        self.leaves.get(&message.name).map_or(&[], Vec::as_slice)
    }

    pub fn variants(&self, message: &MessageType) -> &[Overrides] {
        self.variants.get(&message.name).map_or(&[], Vec::as_slice)
    }

    /// Returns what a walk with these messages must have for itself; `None` if it is safe for its neighbours.
    pub fn exclusive<'a>(&self, messages: impl IntoIterator<Item = &'a MessageType>) -> Option<String> {
        let words = messages.into_iter().filter_map(|message| self.exclusive.get(&message.name));
        words.fold(None, |known, word| match known {
            Some(known) if known != *word => Some(WHOLE_HUB.to_owned()),
            _ => Some(word.clone()),
        })
    }

    /// Returns the messages whose reply may name the object that this member names.
    pub fn creating_messages(&self, leaf: &TextLeaf) -> &[usize] {
        self.makers.get(&leaf.example).map_or(&[], Vec::as_slice)
    }
}

/// The resource that is the whole hub.
const WHOLE_HUB: &str = "hub";

/// Returns, by the message's name, the resource that a walk needs for itself to send a message, and the messages that only
/// destructive scenarios send. A message needs a part of the hub, such as a queue, if any scenario that sends it does. It
/// needs the whole hub only if all of them do, since a scenario may need the whole hub for another reason.
fn find_exclusive(corpus: &Corpus) -> (BTreeMap<String, String>, BTreeSet<String>) {
    let mut parts: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let [mut shared, mut alone, mut destructive] = [const { BTreeSet::new() }; 3];
    for scenario in &corpus.scenarios {
        visit_steps(&scenario.steps, &mut |step| {
            let Some(message) = step.message(StepVerb::Sends).map(str::to_owned) else { return };
            match scenario.exclusive.as_deref() {
                _ if scenario.others.contains_key("destructive") => drop(destructive.insert(message)),
                Some(WHOLE_HUB) => drop(alone.insert(message)),
                Some(part) => drop(parts.entry(message).or_default().insert(part)),
                None => drop(shared.insert(message)),
            }
        });
    }
    destructive.retain(|message| !shared.contains(message) && !alone.contains(message) && !parts.contains_key(message));
    let word = |parts: BTreeSet<&str>| match parts.first() {
        Some(part) if parts.len() == 1 => (*part).to_owned(),
        _ => WHOLE_HUB.to_owned(),
    };
    alone.retain(|message| !shared.contains(message) && !parts.contains_key(message));
    let alone = alone.into_iter().map(|message| (message, WHOLE_HUB.to_owned()));
    let exclusive = parts.into_iter().map(|(message, parts)| (message, word(parts))).chain(alone).collect();
    (exclusive, destructive)
}

fn find_creating_messages(corpus: &Corpus, leaves: &BTreeMap<String, Vec<TextLeaf>>) -> BTreeMap<String, Vec<usize>> {
    let mut makers: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let of = |name: &str| leaves.get(name).map_or(&[][..], Vec::as_slice);
    for (index, message) in corpus.pack.messages.iter().enumerate() {
        let sends = |example: &str| of(&message.name).iter().any(|leaf| leaf.example == example);
        for leaf in message.replies.iter().flat_map(|reply| of(reply)) {
            let makers = makers.entry(leaf.example.clone()).or_default();
            if leaf.shared && leaf.required && !sends(&leaf.example) && !makers.contains(&index) {
                makers.push(index);
            }
        }
    }
    makers
}

fn find_leaves(message: &MessageType) -> Vec<TextLeaf> {
    let mut found = Vec::new();
    let shape = SchemaShape::from_schema(&message.schema.source);
    collect_leaves(&message.starting_value(), &shape, &mut Vec::new(), true, &mut found);
    let fixed = payload::literal_values(&message.matcher);
    found.retain(|leaf| !fixed.contains_key(&leaf.pointer));
    found
}

fn collect_leaves(
    example: &Value,
    shape: &SchemaShape<'_>,
    path: &mut Vec<PathSegment>,
    required: bool,
    found: &mut Vec<TextLeaf>,
) {
    match example {
        Value::String(text) if shape.allowed_values().is_none() => {
            found.push(TextLeaf {
                pointer: expressions::pointer(path),
                path: path.clone(),
                name: leaf_name(path),
                example: text.clone(),
                required,
                shared: false,
                formed: ["pattern", "format"].iter().any(|word| shape.keyword_text(word).is_some()),
            });
        }
        Value::Object(members) => {
            let needed = shape.required_members();
            for (name, member) in members {
                path.push(PathSegment::Member(name.clone()));
                let inner = shape.member(name);
                collect_leaves(member, &inner, path, required && needed.contains(name.as_str()), found);
                path.pop();
            }
        }
        Value::Array(items) => {
            let least = shape.lower_bound("minItems").unwrap_or(0.0);
            for (index, item) in items.iter().enumerate() {
                path.push(PathSegment::Index(index));
                let inner = shape.item(index);
                collect_leaves(item, &inner, path, required && (index as f64) < least, found);
                path.pop();
            }
        }
        _ => {}
    }
}

/// Returns the name of the last member of a path; without one, the path as a pointer, since the same item of other
/// messages may name the same object.
fn leaf_name(path: &[PathSegment]) -> String {
    let name = |segment: &PathSegment| match segment {
        PathSegment::Member(name) => Some(name.clone()),
        PathSegment::Index(_) => None,
    };
    path.iter().rev().find_map(name).unwrap_or_else(|| expressions::pointer(path))
}

/// Marks the members that messages have in common: by name, or by the value in the example.
fn mark_shared(leaves: &mut BTreeMap<String, Vec<TextLeaf>>) {
    let mut users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (message, leaves) in leaves.iter() {
        for word in leaves.iter().flat_map(|leaf| [leaf.name.as_str(), leaf.example.as_str()]) {
            let users = users.entry(word).or_default();
            if users.last() != Some(&message.as_str()) {
                users.push(message);
            }
        }
    }
    let common: BTreeSet<String> =
        users.into_iter().filter(|(_, users)| users.len() > 1).map(|(word, _)| word.to_owned()).collect();
    for leaf in leaves.values_mut().flatten() {
        leaf.shared = common.contains(&leaf.name) || common.contains(&leaf.example);
    }
}

/// Returns the overrides of scenes, openings, and scenarios that have no more of the hub for themselves than a walk with
/// the message, as far as their expressions use only settings with a default.
fn find_variants(corpus: &Corpus, exclusive: &BTreeMap<String, String>) -> BTreeMap<String, Vec<Overrides>> {
    let mut found: BTreeMap<String, Vec<Overrides>> = BTreeMap::new();
    let mut take = |step: &CaseStep, of: Option<&CaseScenario>| {
        let Some(message) = step.message(StepVerb::Sends) else { return };
        let is_safe = |scenario: &CaseScenario| {
            let word = scenario.exclusive.as_ref();
            !scenario.others.contains_key("destructive") && (word.is_none() || word == exclusive.get(message))
        };
        if !of.is_none_or(is_safe) {
            return;
        }
        let (with, without) = prefix::step_overrides(step, "");
        let plain = step.option("breaks").is_none() && uses_only_default_settings(corpus, &with);
        if plain && (!with.is_null() || !without.is_empty()) {
            let variants = found.entry(message.to_owned()).or_default();
            if !variants.contains(&(with.clone(), without.clone())) {
                variants.push((with, without));
            }
        }
    };
    for (_, steps) in &corpus.scenes {
        visit_steps(steps, &mut |step| take(step, None));
    }
    for scenario in &corpus.scenarios {
        visit_steps(&scenario.steps, &mut |step| take(step, Some(scenario)));
    }
    found
}

fn visit_steps(steps: &[CaseStep], take: &mut dyn FnMut(&CaseStep)) {
    for step in steps {
        take(step);
        visit_steps(step.inner(), take);
    }
}

/// Whether all expressions are settings that every target has.
fn uses_only_default_settings(corpus: &Corpus, value: &Value) -> bool {
    match value {
        Value::String(text) if !expressions::is_literal(text) => {
            let known = |name: &str| corpus.shared.get("hub")?.get(name)?.get("default");
            expressions::only(text).is_some_and(|only| only.setting().is_some_and(|name| known(name).is_some()))
        }
        Value::Array(items) => items.iter().all(|item| uses_only_default_settings(corpus, item)),
        Value::Object(members) => members.values().all(|member| uses_only_default_settings(corpus, member)),
        _ => true,
    }
}
