//! The steps of a scenario, including inner steps, and what shrinking needs to know about them.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::fuzz::corpus::head;
use crate::fuzz::step_rule::StepRule;
use crate::scenario::parse::verbs::{Head, Verb};
use crate::syntax::matcher::escape;

/// A step with its position.
pub struct Place<'a> {
    pub pointer: String,
    pub step: &'a Value,
    /// The index of the top-level step that contains this step.
    pub top: usize,
}

impl<'a> Place<'a> {
    /// Returns the head and the argument of the step, with the pointer to the argument.
    pub fn act(&self) -> Option<(Head<'a>, String, &'a Value)> {
        let (head, what) = head(self.step)?;
        let key = self.step.as_object()?.keys().next()?;
        Some((head, format!("{}/{}", self.pointer, escape(key)), what))
    }
}

pub fn top(scenario: &Map<String, Value>) -> &[Value] {
    scenario.get("steps").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Returns all steps except those inside a step with rules, since shrinking does not change how an oracle checks.
pub fn places(scenario: &Map<String, Value>) -> Vec<Place<'_>> {
    let mut places: Vec<Place<'_>> = Vec::new();
    for (index, step) in top(scenario).iter().enumerate() {
        let mut open = vec![(format!("/steps/{index}"), step)];
        while let Some((pointer, step)) = open.pop() {
            if !has_rules(step) {
                let inner = step.get("do").and_then(Value::as_array).into_iter().flatten().enumerate();
                open.extend(inner.map(|(at, inner)| (format!("{pointer}/do/{at}"), inner)));
            }
            places.push(Place { pointer, step, top: index });
        }
    }
    places
}

/// Returns the `sends raw` steps, in order.
pub fn raw(scenario: &Map<String, Value>) -> Vec<Place<'_>> {
    let mut raw = places(scenario);
    raw.retain(|place| place.act().is_some_and(|(head, ..)| head.verb == Verb::SendsRaw));
    raw
}

/// Returns the steps that send the mutated input on which a check depends: those named in its `after`, or else all
/// `sends raw` steps.
pub fn mutated<'a>(scenario: &'a Map<String, Value>, check: &str) -> Vec<Place<'a>> {
    let mut mutated = raw(scenario);
    let asks = top(scenario).iter().filter(|step| is_check(step, check));
    let after: Vec<&Value> = asks.filter_map(|step| step.get("after")).collect();
    let named = |place: &Place<'_>| place.step.get("as").is_some_and(|name| after.contains(&name));
    if mutated.iter().any(named) {
        mutated.retain(named);
    }
    mutated
}

/// Whether a step, or a step inside it, has rules.
pub fn has_rules(step: &Value) -> bool {
    step.get("rules").is_some() || within(step).any(has_rules)
}

/// Whether a step, or a step inside it, makes the check with this name, as reports show it.
pub fn is_check(step: &Value, check: &str) -> bool {
    let name = StepRule::read_all(step.get("rules")).into_iter().map(|rule| rule.id).collect::<Vec<_>>().join(",");
    (!name.is_empty() && name == check) || within(step).any(|inner| is_check(inner, check))
}

fn within(step: &Value) -> impl Iterator<Item = &Value> {
    step.get("do").and_then(Value::as_array).into_iter().flatten()
}

/// Whether a step only connects an actor.
pub fn opens(step: &Value) -> bool {
    let connects = |verb| matches!(verb, Verb::Joins | Verb::Connects | Verb::TriesToConnect | Verb::Accepts);
    head(step).is_some_and(|(head, _)| connects(head.verb))
}

/// Whether every actor connects before it acts. A scenario with an unconnected actor would fail for that reason alone.
pub fn connects_first(scenario: &Map<String, Value>) -> bool {
    let groups = scenario.get("actors").and_then(Value::as_object);
    let of_group = |name: &str| {
        let members = groups.and_then(|groups| groups.get(name)).and_then(Value::as_array);
        members.map(|members| members.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>())
    };
    let who = |actor: &str| {
        let name = actor.split('[').next().unwrap_or_default();
        of_group(name).unwrap_or_else(|| vec![name.to_owned()])
    };
    let mut inside = BTreeSet::new();
    let mut steps: Vec<&Value> = top(scenario).iter().rev().collect();
    while let Some(step) = steps.pop() {
        steps.extend(within(step).collect::<Vec<_>>().into_iter().rev());
        let Some((head, _)) = head(step).filter(|(head, _)| !head.actor.is_empty()) else { continue };
        if opens(step) {
            inside.extend(who(head.actor));
        } else if !who(head.actor).iter().all(|name| inside.contains(name)) {
            return false;
        }
    }
    true
}

/// Returns the number of top-level steps that do more than connect an actor.
pub fn beyond_opening(scenario: &Map<String, Value>) -> usize {
    top(scenario).iter().filter(|step| !opens(step)).count()
}

/// Returns the control run: the scenario without its mutated input, in which the check must pass. `None` if there is no
/// mutated input.
pub fn control(scenario: &Map<String, Value>, check: &str) -> Option<Map<String, Value>> {
    let mutated: BTreeSet<usize> = mutated(scenario, check).iter().map(|place| place.top).collect();
    if mutated.is_empty() {
        return None;
    }
    let mut control = scenario.clone();
    let steps = control.get_mut("steps")?.as_array_mut()?;
    let mut names: Vec<String> = Vec::new();
    let mut index = 0;
    steps.retain_mut(|step| {
        index += 1;
        let known = |step: &Value, key| {
            step.get(key).and_then(Value::as_str).is_some_and(|name| names.iter().any(|known| known == name))
        };
        // A step that depends on an answer to the input only by its `if`, without using the answer, becomes
        // unconditional.
        if known(step, "if") {
            let mut plain = step.clone();
            plain.as_object_mut().and_then(|members| members.shift_remove("if"));
            let mut words = Vec::new();
            super::cleanup::words(&plain, &mut words);
            if !names.iter().any(|name| words.contains(name)) {
                *step = plain;
            }
        }
        // Without the input its answer cannot come, and the step that expects it would end the conversation before the
        // check.
        let owed = !is_check(step, check) && (known(step, "after") || known(step, "if"));
        let goes = owed || mutated.contains(&(index - 1));
        if goes {
            let alternatives = head(step).and_then(|(_, what)| what.as_array()).into_iter().flatten();
            let bound = alternatives.chain([&*step]).filter_map(|place| place.get("as")?.as_str());
            names.extend(bound.map(str::to_owned));
        }
        !goes
    });
    Some(control)
}
