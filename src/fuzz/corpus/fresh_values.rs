//! Values that a client must not use twice, such as request ids and object ids: members that a reply repeats, and
//! members that the pack's scenarios always fill with a new value.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::Corpus;
use super::prefix;
use crate::fuzz::case_scenario::CaseStep;
use crate::fuzz::expressions;
use crate::protocol::MessageType;
use crate::scenario::compose;
use crate::scenario::expression::PathSegment;
use crate::scenario::parse::verbs::StepVerb;
use crate::syntax::matcher::{array_index, child, key_pointer, member_pointer, members_of, unescape};

/// A member of a message that needs a new value each time.
#[derive(Clone, Debug, PartialEq)]
pub struct FreshValue {
    /// JSON pointer to the member.
    pub pointer: String,
    /// A text of a scenario that makes a new value; `None` for numbers, and where the schema allows no generated text.
    pub maker: Option<String>,
}

/// The members that need new values, by the name of the message.
pub type FreshValues = BTreeMap<String, Vec<FreshValue>>;

/// How the scenarios of a pack fill a member: the texts that make a new value, one for each use, and how many steps use a
/// value that is already known. Some do so on purpose, to see that the hub refuses it.
#[derive(Default)]
struct MemberUse {
    makers: Vec<String>,
    references: usize,
    /// The number of steps that fill the member.
    steps: usize,
}

/// The uses of members, by message and JSON pointer, and the number of steps that send each message.
#[derive(Default)]
struct MemberUses {
    members: BTreeMap<(String, String), MemberUse>,
    sends: BTreeMap<String, usize>,
}

/// The values that the schema of an id is tested with.
const TEXT_MAKERS: [(&str, &str); 2] =
    [("${unique('id')}", "id-t3st1x1"), ("${uuid()}", "b2b1c9a0-6f0e-4c7e-9d55-0a4f7d1c2e3b")];

/// Returns the members of all messages to the hub that need new values.
pub fn find_fresh_values(corpus: &Corpus) -> FreshValues {
    let mut uses = MemberUses::default();
    for scenario in &corpus.scenarios {
        collect_uses(&scenario.steps, &scenario.lets, &mut BTreeSet::new(), &mut uses);
    }
    let shared = corpus.scenes.iter().chain(&corpus.openings);
    shared.for_each(|(_, steps)| collect_uses(steps, &Map::new(), &mut BTreeSet::new(), &mut uses));
    for (place, text) in corpus.all_fills().filter(|(_, text)| is_maker(text)) {
        for message in corpus.messages() {
            let filled = compose::filled_member(place, &message.name, &message.starting_value());
            let Some(pointer) = filled else { continue };
            let member = uses.members.entry((message.name.clone(), pointer)).or_default();
            let sends = uses.sends.get(&message.name).copied().unwrap_or_default();
            let filled = sends.saturating_sub(member.steps).max(usize::from(sends == 0));
            member.makers.extend(std::iter::repeat_n(text.to_owned(), filled));
        }
    }
    let mut found = FreshValues::new();
    for message in corpus.messages() {
        let example = message.starting_value();
        let is_request = !message.replies.is_empty() && !corpus.pack.is_reply(&message.name);
        let correlation = message.correlation.as_ref().filter(|_| is_request);
        let of_message = uses.members.iter().filter(|((name, _), _)| *name == message.name);
        let made = of_message.filter(|(_, member)| !member.makers.is_empty()).map(|((_, pointer), _)| pointer);
        let pointers: BTreeSet<&String> = made.chain(correlation).collect();
        let fresh = |pointer: &String| {
            let value = example.pointer(pointer)?;
            let member = uses.members.get(&(message.name.clone(), pointer.clone()));
            // A number names no object, so each request has its own.
            let is_named =
                member.is_some_and(|member| member.references > 0 && member.references >= member.makers.len());
            let maker = value.is_string().then(|| pick_maker(message, pointer, member)).flatten();
            let is_fresh = value.is_number() || value.is_string() && !is_named;
            is_fresh.then(|| FreshValue { pointer: pointer.clone(), maker })
        };
        let fresh: Vec<FreshValue> = pointers.into_iter().filter_map(fresh).collect();
        if !fresh.is_empty() {
            found.insert(message.name.clone(), fresh);
        }
    }
    found
}

/// Returns a text that makes a value: one of the scenarios, else one that the schema allows.
fn pick_maker(message: &MessageType, pointer: &str, member: Option<&MemberUse>) -> Option<String> {
    let known = member.and_then(|member| member.makers.first().cloned());
    let allowed = || {
        let is_allowed = |sample: &str| {
            let mut probe = message.starting_value();
            probe.pointer_mut(pointer).into_iter().for_each(|member| *member = Value::from(sample));
            message.schema.violations(&probe).is_empty()
        };
        TEXT_MAKERS.iter().find(|(_, sample)| is_allowed(sample)).map(|(maker, _)| (*maker).to_owned())
    };
    known.or_else(allowed)
}

/// Whether a text makes a new value wherever it is evaluated, and uses nothing but settings and the actor itself.
pub fn is_maker(text: &str) -> bool {
    let has_known_names = |name: &str| matches!(name, "hub" | "self");
    let value = Value::from(text);
    expressions::makes_new(&value)
        && !expressions::any(&value, &|expression| {
            let is_call = |name: &str| expression.calls(name);
            let root = |used: &String| used.split('.').next().unwrap_or_default().to_owned();
            expression.uses.iter().map(root).any(|root| !has_known_names(&root) && !is_call(&root))
        })
}

/// Collects how steps fill the members of the messages that they send. `used` are the names of `lets` that an earlier
/// step has sent: from then on they name something that is known.
fn collect_uses(steps: &[CaseStep], lets: &Map<String, Value>, used: &mut BTreeSet<String>, uses: &mut MemberUses) {
    for step in steps {
        if let (Some(message), None) = (step.message(StepVerb::Sends), step.option("breaks")) {
            *uses.sends.entry(message.to_owned()).or_default() += 1;
            for (pointer, text) in filled_texts(step) {
                let member = uses.members.entry((message.to_owned(), pointer)).or_default();
                member.steps += 1;
                let name = expressions::only(&text).and_then(|only| only.bare_name().map(str::to_owned));
                let made = name.as_ref().and_then(|name| lets.get(name)?.as_str()).filter(|text| is_maker(text));
                match (made, name) {
                    _ if is_maker(&text) => member.makers.push(text),
                    (Some(made), Some(name)) if used.insert(name.clone()) => member.makers.push(made.to_owned()),
                    _ => member.references += 1,
                }
            }
        }
        collect_uses(step.inner(), lets, used, uses);
    }
}

/// Returns the texts with expressions that a step puts into its message, by JSON pointer.
pub fn filled_texts(step: &CaseStep) -> Vec<(String, String)> {
    let (with, _) = prefix::step_overrides(step, "");
    let mut found = Vec::new();
    let mut open: Vec<(String, &Value)> = Vec::new();
    for (key, value) in with.as_object().into_iter().flatten() {
        open.push((key_pointer(key), value));
    }
    while let Some((pointer, value)) = open.pop() {
        match value {
            Value::String(text) if !expressions::is_literal(text) => found.push((pointer, text.clone())),
            _ => open.extend(
                members_of(value).into_iter().map(|(name, part)| (format!("{pointer}{}", member_pointer(&name)), part)),
            ),
        }
    }
    found
}

/// Returns the expression for the value at a JSON pointer of a message to which `name` is bound. `example` tells items
/// from members.
pub fn part_expression(name: &str, pointer: &str, example: &Value) -> String {
    let mut path = Vec::new();
    let mut value = Some(example);
    for token in pointer.split('/').skip(1).map(unescape) {
        let index = value.filter(|value| value.is_array()).and_then(|_| array_index(&token));
        value = value.and_then(|value| child(value, &token));
        path.push(index.map_or(PathSegment::Member(token), PathSegment::Index));
    }
    expressions::member(name, &path)
}
