//! The steps of a scenario, those within others included, and what shrinking has to know of them.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::fuzz::corpus::head;
use crate::scenario::parse::verbs::{Head, Verb};
use crate::syntax::matcher::escape;

/// A step, and where it stands.
pub struct Place<'a> {
    pub pointer: String,
    pub step: &'a Value,
    /// Index of the step at the top level that it belongs to.
    pub top: usize,
}

impl<'a> Place<'a> {
    /// What the step does, with the pointer to what it is about.
    pub fn act(&self) -> Option<(Head<'a>, String, &'a Value)> {
        let (head, what) = head(self.step)?;
        let key = self.step.as_object()?.keys().next()?;
        Some((head, format!("{}/{}", self.pointer, escape(key)), what))
    }
}

pub fn top(scenario: &Map<String, Value>) -> &[Value] {
    scenario.get("steps").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// All steps but those within one that accuses: what an oracle asks, and how, is its own affair.
pub fn places(scenario: &Map<String, Value>) -> Vec<Place<'_>> {
    let mut places: Vec<Place<'_>> = Vec::new();
    for (index, step) in top(scenario).iter().enumerate() {
        let mut open = vec![(format!("/steps/{index}"), step)];
        while let Some((pointer, step)) = open.pop() {
            if !accuses(step) {
                let inner = step.get("do").and_then(Value::as_array).into_iter().flatten().enumerate();
                open.extend(inner.map(|(at, inner)| (format!("{pointer}/do/{at}"), inner)));
            }
            places.push(Place { pointer, step, top: index });
        }
    }
    places
}

/// What is said raw, in its order.
pub fn raw(scenario: &Map<String, Value>) -> Vec<Place<'_>> {
    let mut raw = places(scenario);
    raw.retain(|place| place.act().is_some_and(|(head, ..)| head.verb == Verb::SendsRaw));
    raw
}

/// What is odd, as far as a check asks: what it comes after, or else all that is said raw.
pub fn odd<'a>(scenario: &'a Map<String, Value>, check: &str) -> Vec<Place<'a>> {
    let mut odd = raw(scenario);
    let asks = top(scenario).iter().filter(|step| is_check(step, check));
    let after: Vec<&Value> = asks.filter_map(|step| step.get("after")).collect();
    let named = |place: &Place<'_>| place.step.get("as").is_some_and(|name| after.contains(&name));
    if odd.iter().any(named) {
        odd.retain(named);
    }
    odd
}

/// Whether a step, or one within it, accuses of anything.
pub fn accuses(step: &Value) -> bool {
    step.get("rules").is_some() || within(step).any(accuses)
}

/// Whether a step, or one within it, is a check of this name, as reports have it.
pub fn is_check(step: &Value, check: &str) -> bool {
    let ids = step.get("rules").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let name = ids.map(|id| id.split(" as ").next().unwrap_or(id)).collect::<Vec<_>>().join(",");
    (!name.is_empty() && name == check) || within(step).any(|inner| is_check(inner, check))
}

fn within(step: &Value) -> impl Iterator<Item = &Value> {
    step.get("do").and_then(Value::as_array).into_iter().flatten()
}

/// Whether a step only lets somebody in.
pub fn opens(step: &Value) -> bool {
    let lets_in = |verb| matches!(verb, Verb::Joins | Verb::Connects | Verb::TriesToConnect | Verb::Accepts);
    head(step).is_some_and(|(head, _)| lets_in(head.verb))
}

/// Whether nobody acts who has not been let in before. Whoever does makes a scenario wait for nothing, and fail.
pub fn is_orderly(scenario: &Map<String, Value>) -> bool {
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

/// Steps beyond those that only let somebody in.
pub fn beyond_opening(scenario: &Map<String, Value>) -> usize {
    top(scenario).iter().filter(|step| !opens(step)).count()
}

/// The same conversation without what is odd: the check has to hold there, or it is not the oddity that breaks it. `None`
/// where nothing is said raw.
pub fn control(scenario: &Map<String, Value>, check: &str) -> Option<Map<String, Value>> {
    let odd: BTreeSet<usize> = odd(scenario, check).iter().map(|place| place.top).collect();
    if odd.is_empty() {
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
        // What is only done once the oddity was answered, but says nothing of that answer, is done anyway.
        if known(step, "if") {
            let mut plain = step.clone();
            plain.as_object_mut().and_then(|members| members.shift_remove("if"));
            let text = plain.to_string();
            if !names.iter().any(|name| text.contains(name)) {
                *step = plain;
            }
        }
        // What is owed to the oddity cannot come without it, and would end the conversation before the check.
        let owed = !is_check(step, check) && (known(step, "after") || known(step, "if"));
        let goes = owed || odd.contains(&(index - 1));
        if goes {
            let alternatives = head(step).and_then(|(_, what)| what.as_array()).into_iter().flatten();
            let bound = alternatives.chain([&*step]).filter_map(|place| place.get("as")?.as_str());
            names.extend(bound.map(str::to_owned));
        }
        !goes
    });
    Some(control)
}
