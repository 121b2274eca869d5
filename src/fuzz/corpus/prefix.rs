//! The prefix of a case: an opening, or a scenario up to some step.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Corpus, Moment, head};
use crate::fuzz::actors::{NEW_CLIENT, OBSERVER, PROBE, SENDER};
use crate::fuzz::expressions::with_self_as;
use crate::fuzz::mutate::schema::{self, Site};
use crate::fuzz::placement::Placement;
use crate::fuzz::step_rule::StepRule;
use crate::protocol::{Level, MessageType, Pack};
use crate::scenario::compose;
use crate::scenario::parse::verbs::Verb;

/// Actors and steps before the mutated message, and how the conversation continues.
#[derive(Clone)]
pub struct Prefix {
    pub(crate) sender: String,
    pub(crate) role: String,
    /// The role of the observer client and of the new client.
    pub(crate) observer_role: String,
    pub(crate) actors: Map<String, Value>,
    /// Other keys of the scenario: `needs`, `exclusive`.
    pub(crate) keys: Map<String, Value>,
    pub(crate) lets: Option<Value>,
    pub(crate) steps: Vec<Value>,
    /// The steps after the mutated message, had it not been sent.
    pub(crate) rest: Vec<Next>,
    /// The valid message that the mutation starts from.
    pub(crate) message: Value,
    /// Where the message can be mutated.
    pub(crate) sites: Arc<[Site]>,
}

/// A step after the mutated message, and the highest level of its rules, if it has any.
#[derive(Clone)]
pub struct Next {
    pub step: Value,
    pub demand: Option<Level>,
}

/// Returns the sites at which a message can be mutated; identities are those of the observer client's role.
pub(crate) fn sites(corpus: &Corpus, message: &MessageType) -> Arc<[Site]> {
    let foreign = corpus.identities(corpus.observer_role().unwrap_or_default(), OBSERVER);
    let pointers: Vec<&str> = foreign.iter().map(|(pointer, _)| pointer.as_str()).collect();
    schema::sites(message, &pointers).into()
}

/// Returns the valid message as a step of an actor sends it, with its overrides.
fn valid(corpus: &Corpus, message: &MessageType, role: &str, actor: &str, overrides: Overrides) -> Value {
    let (with, without) = overrides;
    let mut valid = corpus.example(message, role, actor);
    compose::merge(&mut valid, &with);
    compose::remove(&mut valid, &without);
    corpus.without_optional(&mut valid);
    valid
}

/// Returns all prefixes with which a message can be sent at this placement.
pub fn prefixes(corpus: &Corpus, message: &MessageType, placement: Placement) -> Vec<Prefix> {
    let sites = sites(corpus, message);
    match placement {
        Placement::First | Placement::Joined | Placement::Repeated | Placement::Kept | Placement::Anew => {
            let mut roles = corpus.senders(&message.name);
            // A role without an automatic opening cannot send anything after `joins`.
            roles.retain(|role| placement == Placement::First || corpus.joins(role));
            if roles.is_empty() {
                roles.extend(corpus.observer_role());
            }
            roles.into_iter().filter_map(|role| alone(corpus, message, placement, role, &sites)).collect()
        }
        Placement::Within | Placement::Outside => corpus
            .moments(&message.name)
            .into_iter()
            .filter_map(|moment| within(corpus, message, moment, placement, &sites))
            .collect(),
        // `random_walk` makes a new prefix for each case.
        Placement::Walk => Vec::new(),
    }
}

/// Returns a prefix that only connects the sender (`first`), or plays its opening.
fn alone(
    corpus: &Corpus,
    message: &MessageType,
    placement: Placement,
    role: &str,
    sites: &Arc<[Site]>,
) -> Option<Prefix> {
    let role = role.to_owned();
    let mut steps = vec![json!({ format!("{OBSERVER} joins"): null })];
    let opening = corpus.opening(&role);
    let its_own = opening.iter().find(|step| {
        head(step).is_some_and(|(head, what)| head.verb == Verb::Sends && what.as_str() == Some(&message.name))
    });
    let overrides = its_own.map_or((Value::Null, Vec::new()), |step| overrides(step, SENDER));
    match placement {
        Placement::First => {
            let connects = |step: &Value| head(step).is_some_and(|(head, _)| head.verb == Verb::Connects);
            match opening.iter().position(connects) {
                Some(last) => steps.extend(opening[..=last].iter().map(|step| by(step, SENDER))),
                None => steps.push(json!({ format!("{SENDER} connects"): null })),
            }
        }
        Placement::Anew => steps.push(json!({ format!("{PROBE} joins"): null })),
        _ => steps.push(json!({ format!("{SENDER} joins"): null })),
    }
    let mut actors = Map::from_iter([(SENDER.to_owned(), json!(role))]);
    if placement == Placement::Anew {
        actors.insert(PROBE.to_owned(), json!(role));
    }
    Some(Prefix {
        sender: SENDER.to_owned(),
        observer_role: corpus.observer_role()?.to_owned(),
        message: valid(corpus, message, &role, SENDER, overrides),
        role,
        actors,
        keys: Map::new(),
        lets: None,
        steps,
        rest: Vec::new(),
        sites: Arc::clone(sites),
    })
}

/// Returns a prefix that plays a scenario up to a step, without its checks.
fn within(
    corpus: &Corpus,
    message: &MessageType,
    moment: Moment,
    placement: Placement,
    sites: &Arc<[Site]>,
) -> Option<Prefix> {
    let script = corpus.scenarios.get(moment.script)?;
    let step = script.steps.get(moment.step)?;
    let (spoken, _) = head(step)?;
    let names = script.names();
    let taken = [OBSERVER, NEW_CLIENT, SENDER].iter().any(|name| names.contains(name));
    if taken || script.root.contains_key("destructive") || script.root.get("exclusive") == Some(&json!("hub")) {
        return None;
    }
    let mut steps = vec![json!({ format!("{OBSERVER} joins"): null })];
    for step in &script.steps[..moment.step] {
        let (head, _) = head(step)?;
        match head.verb {
            // Cases do not wait for time to pass.
            Verb::Wait | Verb::Retry | Verb::Either => return None,
            // The sender might have no connection any more, or not read from it.
            _ if head.actor == spoken.actor && may_end(step, head.verb) => return None,
            _ => steps.extend(unjudged(step)),
        }
    }
    let observer_role = corpus.observer_role()?.to_owned();
    let role = match script.role(spoken.actor) {
        // A role that cannot connect by itself is replaced by that of the observer client.
        role if placement == Placement::Outside && !corpus.joins(role) => observer_role.clone(),
        role => role.to_owned(),
    };
    let overrides = overrides(step, spoken.actor);
    let mut actors = script.root.get("actors").and_then(Value::as_object).cloned().unwrap_or_default();
    for name in names.iter().filter(|name| !name.contains('[')) {
        if !actors.contains_key(*name) && corpus.roles().contains(name) {
            actors.insert((*name).to_owned(), json!(name));
        }
    }
    let sender = match placement {
        Placement::Outside => {
            // Another client of the same role, which takes no part in the conversation.
            actors.insert(SENDER.to_owned(), json!(role));
            steps.push(json!({ format!("{SENDER} joins"): null }));
            SENDER.to_owned()
        }
        // A group has no single id that one message could name.
        _ if actors.get(spoken.actor).is_some_and(Value::is_array) => return None,
        _ => spoken.actor.to_owned(),
    };
    let keys =
        ["needs", "exclusive"].into_iter().filter_map(|key| Some((key.to_owned(), script.root.get(key)?.clone())));
    Some(Prefix {
        message: valid(corpus, message, &role, &sender, overrides),
        sender,
        observer_role,
        role,
        actors,
        keys: keys.collect(),
        lets: script.root.get("let").cloned(),
        steps,
        rest: rest(&corpus.pack, &script.steps[moment.step..]),
        sites: Arc::clone(sites),
    })
}

/// Whether the actor of this step may have no connection afterwards, or does not read from it.
fn may_end(step: &Value, verb: Verb) -> bool {
    let ends = |alternative: &Value| alternative.get("close").is_some() || alternative.get("refusal").is_some();
    match verb {
        Verb::Closes | Verb::Drops | Verb::StopsReading => true,
        Verb::ExpectsClose | Verb::ExpectsEnd | Verb::ExpectsRefusal => true,
        Verb::ExpectsOneOf => {
            let alternatives = head(step).and_then(|(_, alternatives)| alternatives.as_array());
            alternatives.is_some_and(|alternatives| alternatives.iter().any(ends))
        }
        _ => false,
    }
}

/// How long a prefix waits for an optional answer.
const SILENCE: &str = "300ms";

/// Most steps after the mutated message.
const REST: usize = 8;

/// Returns the steps after the mutated message up to the last with rules, as far as they do not wait for time to pass.
fn rest(pack: &Pack, steps: &[Value]) -> Vec<Next> {
    let timeless = |step: &&Value| {
        head(step).is_some_and(|(head, _)| {
            !matches!(head.verb, Verb::Wait | Verb::Retry | Verb::Either) && step.get("for").is_none()
        })
    };
    let mut rest = Vec::new();
    for step in steps.iter().take_while(timeless).take(REST) {
        let Some(plain) = unjudged(step) else { continue };
        let verb = head(step).map(|(head, _)| head.verb);
        let rules = step.get("rules").filter(|_| matches!(verb, Some(Verb::Expects | Verb::ExpectsOneOf)));
        let demand = match rules.map(|rules| demand(pack, rules)) {
            // An answer that is only allowed may be absent without a disturbance.
            Some(Level::May) if verb == Some(Verb::ExpectsOneOf) => None,
            Some(Level::May) if step.get("as").is_none() => continue,
            Some(Level::May) => break,
            demanded => demanded,
        };
        rest.push(Next { step: plain, demand });
    }
    // Steps after the last one with rules check nothing.
    let judged = rest.iter().rposition(|next| next.demand.is_some()).map_or(0, |last| last + 1);
    rest.truncate(judged);
    rest
}

/// Returns the highest level of a step's rules.
fn demand(pack: &Pack, rules: &Value) -> Level {
    let rules = StepRule::read_all(Some(rules));
    rules.iter().filter_map(|rule| rule.level(pack)).max().unwrap_or(Level::May)
}

/// Members that a step puts into an example, and members that it removes.
pub type Overrides = (Value, Vec<String>);

pub(crate) fn overrides(step: &Value, actor: &str) -> Overrides {
    let with = step.get("with").map_or(Value::Null, |with| deep(with, &|text| with_self_as(text, actor)));
    let without = step.get("without").and_then(Value::as_array).into_iter().flatten();
    (with, without.filter_map(Value::as_str).map(str::to_owned).collect())
}

fn deep(value: &Value, change: &dyn Fn(&Value) -> Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| deep(item, change)).collect(),
        Value::Object(members) => members.iter().map(|(name, member)| (name.clone(), deep(member, change))).collect(),
        other => change(other),
    }
}

/// Rewrites a step of an opening, which names no actor, as a step of `actor`.
pub(crate) fn by(step: &Value, actor: &str) -> Value {
    let Some(members) = step.as_object() else { return step.clone() };
    let change = |value: &Value| deep(value, &|text| with_self_as(text, actor));
    let acts = head(step).is_some_and(|(head, _)| !head.word);
    let name = |(index, key): (usize, &String)| if index == 0 && acts { format!("{actor} {key}") } else { key.clone() };
    members.iter().enumerate().map(|(index, (key, value))| (name((index, key)), change(value))).collect()
}

/// Removes the rules of a step, which `hubproof check` covers; `None` for a step that only checks.
fn unjudged(step: &Value) -> Option<Value> {
    if head(step).is_some_and(|(head, _)| head.verb.only_judges()) {
        return None;
    }
    let mut members = step.as_object()?.clone();
    members.retain(|key, _| !matches!(key.as_str(), "rules" | "has"));
    // Without its rules, an optional answer would be waited for as long as a required one.
    let silence = |alternative: &Value| alternative.get("nothing").is_some();
    let optional = head(step).is_some_and(|(head, what)| {
        head.verb == Verb::ExpectsOneOf && what.as_array().is_some_and(|alternatives| alternatives.iter().any(silence))
    });
    if optional {
        members.entry("within").or_insert_with(|| json!(SILENCE));
    }
    if let Some(Value::Array(inner)) = members.get_mut("do") {
        *inner = inner.iter().filter_map(unjudged).collect();
    }
    Some(Value::Object(members))
}
