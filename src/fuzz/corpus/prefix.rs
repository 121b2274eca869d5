//! What comes before the odd message, and who says it: an opening, or a conversation of the scenarios up to some moment.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Corpus, Moment, head, spoken_by};
use crate::fuzz::actors::{FORERUNNER, INNOCENT, NEWCOMER, SENDER};
use crate::fuzz::mutate::schema::{self, Site};
use crate::fuzz::placement::Placement;
use crate::protocol::{Level, MessageType, Pack};
use crate::scenario::compose;
use crate::scenario::parse::verbs::Verb;

/// What comes before the odd message, and who says it.
#[derive(Clone)]
pub struct Prefix {
    pub(crate) sender: String,
    pub(crate) role: String,
    /// The role of those who look on.
    pub(crate) bystander: String,
    pub(crate) actors: Map<String, Value>,
    /// Other keys of the scenario: needs, exclusive.
    pub(crate) keys: Map<String, Value>,
    pub(crate) lets: Option<Value>,
    pub(crate) steps: Vec<Value>,
    /// How it goes on without the odd message.
    pub(crate) rest: Vec<Next>,
    /// What the scenario puts into the message.
    pub(crate) with: Value,
    pub(crate) without: Vec<String>,
    /// Where the message can be mutated.
    pub(crate) sites: Arc<[Site]>,
}

/// A step behind the odd message, and what the document demands of it, if it is judged.
#[derive(Clone)]
pub struct Next {
    pub step: Value,
    pub demand: Option<Level>,
}

/// Where a message can be mutated, who it is from being a matter of whoever looks on.
pub(crate) fn sites(material: &Corpus, message: &MessageType) -> Arc<[Site]> {
    schema::sites(message, &material.identities(material.bystander().unwrap_or_default())).into()
}

impl Prefix {
    /// The message as it is said here where nothing is odd.
    pub(crate) fn base(&self, material: &Corpus, message: &MessageType) -> Value {
        let mut base = material.example(message, &self.role, &self.sender);
        compose::merge(&mut base, &self.with);
        compose::remove(&mut base, &self.without);
        material.without_optional(&mut base);
        base
    }
}

/// All scenes in which a message can be said at such a moment.
pub fn scenes(material: &Corpus, message: &MessageType, placement: Placement) -> Vec<Prefix> {
    let sites = sites(material, message);
    match placement {
        Placement::First | Placement::Joined | Placement::Repeated | Placement::Kept | Placement::Anew => {
            let mut roles = material.speakers(&message.name);
            // Whoever connects by hand alone says nothing where nobody's hand is.
            roles.retain(|role| placement == Placement::First || material.joins(role));
            if roles.is_empty() {
                roles.extend(material.bystander());
            }
            roles.into_iter().filter_map(|role| alone(material, message, placement, role, &sites)).collect()
        }
        Placement::Within | Placement::Outside => material
            .moments(&message.name)
            .into_iter()
            .filter_map(|moment| within(material, moment, placement, &sites))
            .collect(),
        // Every walk is made anew.
        Placement::Walk => Vec::new(),
    }
}

/// A conversation of its own: the socket is opened, or the opening played.
fn alone(
    material: &Corpus,
    message: &MessageType,
    placement: Placement,
    role: &str,
    sites: &Arc<[Site]>,
) -> Option<Prefix> {
    let role = role.to_owned();
    let mut steps = vec![json!({ "innocent joins": null })];
    let (mut with, mut without) = (Value::Null, Vec::new());
    let opening = material.opening(&role);
    let its_own = opening.iter().find(|step| {
        head(step).is_some_and(|(head, what)| head.verb == Verb::Sends && what.as_str() == Some(&message.name))
    });
    if let Some(step) = its_own {
        (with, without) = overrides(step, SENDER);
    }
    match placement {
        Placement::First => {
            let connects = |step: &Value| head(step).is_some_and(|(head, _)| head.verb == Verb::Connects);
            match opening.iter().position(connects) {
                Some(last) => steps.extend(opening[..=last].iter().map(|step| by(step, SENDER))),
                None => steps.push(json!({ "sender connects": null })),
            }
        }
        Placement::Anew => steps.push(json!({ "forerunner joins": null })),
        _ => steps.push(json!({ "sender joins": null })),
    }
    let mut actors = Map::from_iter([(SENDER.to_owned(), json!(role))]);
    if placement == Placement::Anew {
        actors.insert(FORERUNNER.to_owned(), json!(role));
    }
    Some(Prefix {
        sender: SENDER.to_owned(),
        bystander: material.bystander()?.to_owned(),
        role,
        actors,
        keys: Map::new(),
        lets: None,
        steps,
        rest: Vec::new(),
        with,
        without,
        sites: Arc::clone(sites),
    })
}

/// A scenario up to the moment, without what it judges and without its silences.
fn within(material: &Corpus, moment: Moment, placement: Placement, sites: &Arc<[Site]>) -> Option<Prefix> {
    let script = material.scenarios.get(moment.script)?;
    let step = script.steps.get(moment.step)?;
    let (spoken, _) = head(step)?;
    let names = script.names();
    let taken = [INNOCENT, NEWCOMER, SENDER].iter().any(|name| names.contains(name));
    if taken || script.root.contains_key("destructive") || script.root.get("exclusive") == Some(&json!("hub")) {
        return None;
    }
    let mut steps = vec![json!({ "innocent joins": null })];
    for step in &script.steps[..moment.step] {
        let (head, _) = head(step)?;
        match head.verb {
            // Time that passes is the scenarios' business.
            Verb::Wait | Verb::Retry | Verb::Either => return None,
            // Whoever may be gone, or is not listening, has nothing to say.
            _ if head.actor == spoken.actor && may_end(step, head.verb) => return None,
            _ => steps.extend(unjudged(step)),
        }
    }
    let bystander = material.bystander()?.to_owned();
    let role = match script.role(spoken.actor) {
        // Who could not come in by himself has no part in it.
        role if placement == Placement::Outside && !material.joins(role) => bystander.clone(),
        role => role.to_owned(),
    };
    let (with, without) = overrides(step, spoken.actor);
    let mut actors = script.root.get("actors").and_then(Value::as_object).cloned().unwrap_or_default();
    for name in names.iter().filter(|name| !name.contains('[')) {
        if !actors.contains_key(*name) && material.roles().contains(name) {
            actors.insert((*name).to_owned(), json!(name));
        }
    }
    let sender = match placement {
        Placement::Outside => {
            // Somebody of the same role, who has no part in it.
            actors.insert(SENDER.to_owned(), json!(role));
            steps.push(json!({ "sender joins": null }));
            SENDER.to_owned()
        }
        // Several at once have no id that one message could name.
        _ if actors.get(spoken.actor).is_some_and(Value::is_array) => return None,
        _ => spoken.actor.to_owned(),
    };
    let keys =
        ["needs", "exclusive"].into_iter().filter_map(|key| Some((key.to_owned(), script.root.get(key)?.clone())));
    Some(Prefix {
        sender,
        bystander,
        role,
        actors,
        keys: keys.collect(),
        lets: script.root.get("let").cloned(),
        steps,
        rest: rest(&material.pack, &script.steps[moment.step..]),
        with,
        without,
        sites: Arc::clone(sites),
    })
}

/// Whether whoever does this step may have no connection afterwards, or does not listen to it.
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

/// How long an answer that need not come is waited for before the odd message.
const SILENCE: &str = "300ms";

/// So many steps of a conversation are played to its end.
const REST: usize = 8;

/// How a conversation goes on, as far as that takes no time: what it expects must come.
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
            // What is only allowed need not come, without anybody's disturbing.
            Some(Level::May) if verb == Some(Verb::ExpectsOneOf) => None,
            Some(Level::May) if step.get("as").is_none() => continue,
            Some(Level::May) => break,
            demanded => demanded,
        };
        rest.push(Next { step: plain, demand });
    }
    // What follows the last thing that is judged shows nothing.
    let judged = rest.iter().rposition(|next| next.demand.is_some()).map_or(0, |last| last + 1);
    rest.truncate(judged);
    rest
}

/// The most that a step's rules demand.
fn demand(pack: &Pack, rules: &Value) -> Level {
    let names = rules.as_array().into_iter().flatten().filter_map(Value::as_str);
    let of = |name: &str| pack.rules.get(name).map_or(Level::May, |rule| rule.level);
    // What is lowered has its level behind its name.
    let level = |written: &str| match written.split_once(" as ") {
        Some((name, "should")) => of(name).min(Level::Should),
        Some(_) => Level::May,
        None => of(written),
    };
    names.map(level).max().unwrap_or(Level::May)
}

pub(crate) fn overrides(step: &Value, actor: &str) -> (Value, Vec<String>) {
    let with = step.get("with").map_or(Value::Null, |with| deep(with, &|text| spoken_by(text, actor)));
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

/// A step in the first person, done by `actor`.
pub(crate) fn by(step: &Value, actor: &str) -> Value {
    let Some(members) = step.as_object() else { return step.clone() };
    let change = |value: &Value| deep(value, &|text| spoken_by(text, actor));
    let acts = head(step).is_some_and(|(head, _)| !head.word);
    let name = |(index, key): (usize, &String)| if index == 0 && acts { format!("{actor} {key}") } else { key.clone() };
    members.iter().enumerate().map(|(index, (key, value))| (name((index, key)), change(value))).collect()
}

/// A step without what it accuses of: what goes wrong here, the scenarios tell. `None` for one that does nothing else.
fn unjudged(step: &Value) -> Option<Value> {
    if head(step).is_some_and(|(head, _)| head.verb.only_judges()) {
        return None;
    }
    let mut members = step.as_object()?.clone();
    members.retain(|key, _| !matches!(key.as_str(), "rules" | "has"));
    // Without its rules, which may only allow it, an answer that need not come would be waited for as one that must.
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
