//! The prefix of a case: an opening, or a scenario up to some step.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Corpus, SendPosition, fresh_values};
use crate::fuzz::actors::{NEW_CLIENT, OBSERVER, PROBE, SENDER};
use crate::fuzz::case_scenario::{CaseStep, StepOption};
use crate::fuzz::expressions::{self, with_self_as};
use crate::fuzz::mutate::schema::{self, MutationSite};
use crate::fuzz::placement::Placement;
use crate::fuzz::step_rule::StepRule;
use crate::protocol::{MessageType, Pack, RuleLevel};
use crate::report::fuzz::UnusedStep;
use crate::scenario::compose;
use crate::scenario::parse::verbs::StepVerb;

/// Actors and steps before the mutated message, and how the conversation continues.
#[derive(Clone)]
pub struct CasePrefix {
    pub(crate) sender: String,
    pub(crate) role: String,
    /// The role of the observer client and of the new client.
    pub(crate) observer_role: String,
    pub(crate) actors: Map<String, Value>,
    pub(crate) needs: Option<Value>,
    pub(crate) exclusive: Option<String>,
    pub(crate) lets: Map<String, Value>,
    pub(crate) steps: Vec<CaseStep>,
    /// The steps with which the conversation continues, beginning with the valid message.
    pub(crate) rest: Vec<RemainingStep>,
    /// The valid message that the mutation starts from.
    pub(crate) message: Value,
    /// Where the message can be mutated.
    pub(crate) sites: Arc<[MutationSite]>,
    /// Expressions for the ids that only this case uses.
    pub(crate) ids: Vec<String>,
}

/// A step after the mutated message, and the highest level of its rules, if it has any.
#[derive(Clone)]
pub struct RemainingStep {
    pub step: CaseStep,
    pub demand: Option<RuleLevel>,
}

/// Returns the sites at which a message can be mutated; identities are those of the observer client's role.
pub(crate) fn mutation_sites(corpus: &Corpus, message: &MessageType) -> Arc<[MutationSite]> {
    let foreign = corpus.identities(message, corpus.observer_role().unwrap_or_default(), OBSERVER);
    let pointers: Vec<&str> = foreign.iter().map(|(pointer, _)| pointer.as_str()).collect();
    schema::message_sites(message, &pointers).into()
}

/// Returns the valid message as a step of an actor sends it, with its overrides.
fn valid(corpus: &Corpus, message: &MessageType, role: &str, actor: &str, overrides: Overrides) -> Value {
    let (with, without) = overrides;
    let mut valid = corpus.example(message, role, actor);
    compose::merge_overrides(&mut valid, &with);
    compose::remove_members(&mut valid, &without);
    corpus.without_optional(&mut valid);
    valid
}

/// Gives a message new values where it needs them, each with a name of `lets`, so that answers can be compared with it.
pub(crate) fn put_fresh_values(
    corpus: &Corpus,
    message: &MessageType,
    valid: &mut Value,
    lets: &mut Map<String, Value>,
    actor: &str,
) {
    for fresh in corpus.fresh_values(message) {
        let Some(Value::String(now)) = valid.pointer(&fresh.pointer) else { continue };
        let own = Some(now).filter(|now| fresh_values::is_maker(now));
        let maker = own.or(fresh.maker.as_ref().filter(|_| expressions::is_literal(now)));
        let Some(maker) = maker.cloned() else { continue };
        let written = match expressions::uses(&json!(maker), "self") || expressions::uses(&json!(maker), actor) {
            true => with_self_as(&json!(maker), actor),
            false => json!(name_fresh_value(lets, maker)),
        };
        compose::put_at_pointer(valid, &fresh.pointer, written);
    }
}

/// Adds a name for a new value that `maker` makes. Returns the expression for it.
pub(crate) fn name_fresh_value(lets: &mut Map<String, Value>, maker: String) -> String {
    let mut numbers = 1..;
    let name = numbers.find_map(|number| Some(format!("fresh_{number}")).filter(|name| !lets.contains_key(name)));
    let name = name.unwrap_or_default();
    let written = format!("${{{name}}}");
    lets.insert(name, json!(maker));
    written
}

/// Returns expressions for the ids that a case makes: names of new values, and members of sent messages.
pub(crate) fn created_ids(corpus: &Corpus, lets: &Map<String, Value>, steps: &[CaseStep]) -> Vec<String> {
    let is_new = |value: &Value| value.as_str().is_some_and(fresh_values::is_maker);
    let mut ids: Vec<String> =
        lets.iter().filter(|(_, made)| is_new(made)).map(|(name, _)| format!("${{{name}}}")).collect();
    for step in steps.iter().filter(|step| step.condition().is_none()) {
        let message = step.message(StepVerb::Sends).and_then(|name| corpus.pack.message(name));
        let (Some(message), Some(name)) = (message, step.name()) else { continue };
        let fresh = corpus.fresh_values(message);
        let made = fresh_values::filled_texts(step).into_iter().filter(|(_, text)| fresh_values::is_maker(text));
        let made = made.filter(|(pointer, _)| fresh.iter().any(|fresh| fresh.pointer == *pointer));
        let example = message.starting_value();
        ids.extend(made.map(|(pointer, _)| fresh_values::part_expression(name, &pointer, &example)));
    }
    ids
}

/// Returns all prefixes with which a message can be sent at this placement.
pub fn prefixes(corpus: &Corpus, message: &MessageType, placement: Placement) -> Vec<CasePrefix> {
    let sites = mutation_sites(corpus, message);
    match placement {
        Placement::First | Placement::Joined | Placement::Repeated | Placement::Kept | Placement::Anew => {
            let mut roles = corpus.senders(&message.name);
            // A role without an automatic opening cannot send anything after `joins`.
            roles.retain(|role| placement == Placement::First || corpus.can_join(role));
            // A hub may send a request to any client, so any client may send an answer.
            let is_missing = roles.is_empty() || corpus.pack.is_reply(&message.name);
            let observer = corpus.observer_role().filter(|role| is_missing && !roles.contains(role));
            roles.extend(observer);
            roles.into_iter().filter_map(|role| opening_prefix(corpus, message, placement, role, &sites)).collect()
        }
        Placement::Within | Placement::Outside => corpus
            .send_positions(&message.name)
            .into_iter()
            .filter_map(|position| scenario_prefix(corpus, message, position, placement, &sites).ok())
            .collect(),
        // `random_walk` makes a new prefix for each case.
        Placement::Walk => Vec::new(),
    }
}

/// Returns a prefix that only connects the sender (`first`), or plays its opening.
fn opening_prefix(
    corpus: &Corpus,
    message: &MessageType,
    placement: Placement,
    role: &str,
    sites: &Arc<[MutationSite]>,
) -> Option<CasePrefix> {
    let role = role.to_owned();
    let mut steps = vec![CaseStep::new(OBSERVER, StepVerb::Joins, ())];
    let opening = corpus.opening(&role);
    let its_own = opening.iter().find(|step| step.message(StepVerb::Sends) == Some(&message.name));
    let overrides = its_own.map_or((Value::Null, Vec::new()), |step| step_overrides(step, SENDER));
    match placement {
        Placement::First => match opening.iter().position(|step| step.verb == StepVerb::Connects) {
            Some(last) => steps.extend(opening[..=last].iter().map(|step| step_of_actor(step, SENDER))),
            None => steps.push(CaseStep::new(SENDER, StepVerb::Connects, ())),
        },
        Placement::Anew => steps.push(CaseStep::new(PROBE, StepVerb::Joins, ())),
        _ => steps.push(CaseStep::new(SENDER, StepVerb::Joins, ())),
    }
    let mut actors = Map::from_iter([(SENDER.to_owned(), json!(role))]);
    if placement == Placement::Anew {
        actors.insert(PROBE.to_owned(), json!(role));
    }
    let mut lets = Map::new();
    let mut valid = valid(corpus, message, &role, SENDER, overrides);
    put_fresh_values(corpus, message, &mut valid, &mut lets, SENDER);
    Some(CasePrefix {
        sender: SENDER.to_owned(),
        observer_role: corpus.observer_role()?.to_owned(),
        message: valid,
        role,
        actors,
        needs: None,
        exclusive: None,
        ids: created_ids(corpus, &lets, &steps),
        lets,
        steps,
        rest: Vec::new(),
        sites: Arc::clone(sites),
    })
}

/// Returns the steps of scenarios that send a message to the hub, but in whose place no mutated message is sent.
pub fn unused_steps(corpus: &Corpus) -> Vec<UnusedStep> {
    let mut found = Vec::new();
    for (index, (scenario, name)) in corpus.scenarios.iter().zip(&corpus.scenario_names).enumerate() {
        for (step, outer) in scenario.steps.iter().enumerate() {
            let mut open = vec![outer];
            while let Some(sending) = open.pop() {
                open.extend(sending.inner());
                let message = sending.message(StepVerb::Sends).and_then(|name| corpus.pack.message(name));
                let Some(message) = message.filter(|message| message.directions.to_hub) else { continue };
                let why = match std::ptr::eq(sending, outer) {
                    true => {
                        let position = SendPosition { scenario: index, step };
                        let sites = Arc::from(Vec::new());
                        scenario_prefix(corpus, message, position, Placement::Within, &sites).err()
                    }
                    false => Some("the step is inside another step"),
                };
                let (scenario, message) = (name.clone(), message.name.clone());
                found.extend(why.map(|why| UnusedStep { scenario, step: step + 1, message, why: why.into() }));
            }
        }
    }
    found
}

/// Returns a prefix that plays a scenario up to a step, without its checks.
///
/// # Errors
///
/// Why no mutated message can take the place of the step.
fn scenario_prefix(
    corpus: &Corpus,
    message: &MessageType,
    position: SendPosition,
    placement: Placement,
    sites: &Arc<[MutationSite]>,
) -> Result<CasePrefix, &'static str> {
    let scenario = corpus.scenarios.get(position.scenario).ok_or("there is no such scenario")?;
    let spoken = scenario.steps.get(position.step).ok_or("there is no such step")?;
    let names = scenario.actor_names();
    let taken = [OBSERVER, NEW_CLIENT, SENDER].iter().any(|name| names.contains(name));
    let refusals = [
        (taken, "an actor has the name of one of the fuzzer's own clients"),
        (scenario.others.contains_key("destructive"), "the scenario is destructive"),
        (scenario.exclusive.as_deref() == Some("hub"), "the scenario needs the hub for itself"),
        (spoken.actor.is_empty(), "the step names no actor"),
        (spoken.condition().is_some(), "the step depends on a condition"),
        (spoken.option("breaks").is_some(), "the scenario itself sends a wrong message"),
    ];
    if let Some((_, why)) = refusals.into_iter().find(|(applies, _)| *applies) {
        return Err(why);
    }
    let mut steps = vec![CaseStep::new(OBSERVER, StepVerb::Joins, ())];
    for step in &scenario.steps[..position.step] {
        match step.verb {
            // Cases do not wait for time to pass.
            StepVerb::Wait | StepVerb::Retry | StepVerb::Either => {
                return Err("the conversation waits or retries before");
            }
            // The sender might have no connection any more, or not read from it.
            _ if step.actor == spoken.actor && may_end_connection(step) => {
                return Err("the sender may have no connection by then");
            }
            _ => steps.extend(without_rules(step)),
        }
    }
    let observer_role = corpus.observer_role().ok_or("no role connects to the hub")?.to_owned();
    let role = match scenario.role_of(&spoken.actor) {
        // A role that cannot connect by itself is replaced by that of the observer client.
        role if placement == Placement::Outside && !corpus.can_join(role) => observer_role.clone(),
        role => role.to_owned(),
    };
    let overrides = step_overrides(spoken, &spoken.actor);
    let mut actors = scenario.actors.clone();
    for name in names.iter().filter(|name| !name.contains('[')) {
        if !actors.contains_key(*name) && corpus.roles().contains(name) {
            actors.insert((*name).to_owned(), json!(name));
        }
    }
    let sender = match placement {
        Placement::Outside => {
            // Another client of the same role, which takes no part in the conversation.
            actors.insert(SENDER.to_owned(), json!(role));
            steps.push(CaseStep::new(SENDER, StepVerb::Joins, ()));
            SENDER.to_owned()
        }
        // A group has no single id that one message could name.
        _ if actors.get(&spoken.actor).is_some_and(Value::is_array) => return Err("several clients send it"),
        _ => spoken.actor.clone(),
    };
    let mut lets = scenario.lets.clone();
    let mut valid = valid(corpus, message, &role, &sender, overrides);
    put_fresh_values(corpus, message, &mut valid, &mut lets, &sender);
    Ok(CasePrefix {
        message: valid,
        ids: created_ids(corpus, &lets, &steps),
        sender,
        observer_role,
        role,
        actors,
        needs: scenario.others.get("needs").cloned(),
        exclusive: scenario.exclusive.clone(),
        lets,
        steps,
        rest: remaining_steps(&corpus.pack, &scenario.steps[position.step..]),
        sites: Arc::clone(sites),
    })
}

/// Whether the actor of this step may have no connection afterwards, or does not read from it.
fn may_end_connection(step: &CaseStep) -> bool {
    let ends = |alternative: &Value| alternative.get("close").is_some() || alternative.get("refusal").is_some();
    match step.verb {
        StepVerb::Closes | StepVerb::Drops | StepVerb::StopsReading => true,
        StepVerb::ExpectsClose | StepVerb::ExpectsEnd | StepVerb::ExpectsRefusal => true,
        _ => step.alternatives().iter().any(ends),
    }
}

/// How long a prefix waits for an optional answer.
const OPTIONAL_ANSWER_WAIT: &str = "300ms";

/// Most steps after the mutated message.
const MAX_REMAINING_STEPS: usize = 8;

/// Returns the steps after the mutated message up to the last with rules, as far as they do not wait for time to pass.
fn remaining_steps(pack: &Pack, steps: &[CaseStep]) -> Vec<RemainingStep> {
    let timeless = |step: &&CaseStep| {
        !matches!(step.verb, StepVerb::Wait | StepVerb::Retry | StepVerb::Either) && step.option("for").is_none()
    };
    let mut rest = Vec::new();
    for step in steps.iter().take_while(timeless).take(MAX_REMAINING_STEPS) {
        let Some(plain) = without_rules(step) else { continue };
        let is_demand = matches!(step.verb, StepVerb::Expects | StepVerb::ExpectsOneOf) && !step.rules().is_empty();
        let demand = match is_demand.then(|| highest_level(pack, step.rules())) {
            // An answer that is only allowed may be absent without a disturbance.
            Some(RuleLevel::May) if step.verb == StepVerb::ExpectsOneOf => None,
            Some(RuleLevel::May) if step.name().is_none() => continue,
            Some(RuleLevel::May) => break,
            demanded => demanded,
        };
        rest.push(RemainingStep { step: plain, demand });
    }
    // Steps after the last one with rules check nothing.
    let judged = rest.iter().rposition(|next| next.demand.is_some()).map_or(0, |last| last + 1);
    rest.truncate(judged);
    rest
}

/// Returns the highest level of a step's rules.
fn highest_level(pack: &Pack, rules: &[StepRule]) -> RuleLevel {
    rules.iter().filter_map(|rule| rule.level(pack)).max().unwrap_or(RuleLevel::May)
}

/// Members that a step puts into an example, and members that it removes.
pub type Overrides = (Value, Vec<String>);

pub(crate) fn step_overrides(step: &CaseStep, actor: &str) -> Overrides {
    let with = step.option("with").map_or(Value::Null, |with| map_texts(with, &|text| with_self_as(text, actor)));
    let without = step.option("without").and_then(Value::as_array).into_iter().flatten();
    (with, without.filter_map(Value::as_str).map(str::to_owned).collect())
}

fn map_texts(value: &Value, change: &dyn Fn(&Value) -> Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| map_texts(item, change)).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, member)| (name.clone(), map_texts(member, change))).collect()
        }
        other => change(other),
    }
}

/// Rewrites a step of an opening, which names no actor, as a step of `actor`.
pub(crate) fn step_of_actor(step: &CaseStep, actor: &str) -> CaseStep {
    let change = |value: &Value| map_texts(value, &|text| with_self_as(text, actor));
    let mut step = step.clone();
    if !step.verb.is_word() {
        actor.clone_into(&mut step.actor);
    }
    step.argument = change(&step.argument);
    for option in &mut step.options {
        match option {
            StepOption::Do(inner) => inner.iter_mut().for_each(|step| *step = step_of_actor(step, actor)),
            StepOption::Other(_, value) => *value = change(value),
            StepOption::As(_) | StepOption::After(_) | StepOption::If(_) | StepOption::Rules(_) => {}
        }
    }
    step
}

/// Removes the rules of a step, which `hubproof check` covers; `None` for a step that only checks.
fn without_rules(step: &CaseStep) -> Option<CaseStep> {
    if step.verb.only_judges() {
        return None;
    }
    let mut step = step.clone();
    step.options.retain(|option| match option {
        StepOption::Rules(_) => false,
        StepOption::Other(key, _) => key != "has",
        _ => true,
    });
    // Without its rules, the step would wait for an optional answer as long as for a required one.
    if step.alternatives().iter().any(|alternative| alternative.get("nothing").is_some())
        && step.option("within").is_none()
    {
        step = step.with("within", OPTIONAL_ANSWER_WAIT);
    }
    if let Some(inner) = step.inner_mut() {
        *inner = inner.iter().filter_map(without_rules).collect();
    }
    Some(step)
}
