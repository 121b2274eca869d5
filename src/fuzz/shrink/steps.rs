//! The steps of a scenario, including inner steps, and what shrinking needs to know about them.

use std::collections::BTreeSet;

use crate::fuzz::case_scenario::{CaseScenario, CaseStep, StepOption};
use crate::scenario::parse::verbs::StepVerb;

/// A step with its position.
pub struct LocatedStep<'a> {
    /// The index of the top-level step that contains this step, and those of the inner steps down to it.
    pub path: Vec<usize>,
    pub step: &'a CaseStep,
}

impl LocatedStep<'_> {
    /// Returns the index of the top-level step that contains this step.
    pub fn top(&self) -> usize {
        self.path[0]
    }
}

/// Returns all steps except those inside a step with rules, since shrinking does not change how an oracle checks.
pub fn shrinkable_steps(scenario: &CaseScenario) -> Vec<LocatedStep<'_>> {
    let mut places: Vec<LocatedStep<'_>> = Vec::new();
    for (index, step) in scenario.steps.iter().enumerate() {
        let mut open = vec![LocatedStep { path: vec![index], step }];
        while let Some(place) = open.pop() {
            if !has_rules(place.step) {
                let path = |at| place.path.iter().copied().chain([at]).collect();
                open.extend(
                    place.step.inner().iter().enumerate().map(|(at, step)| LocatedStep { path: path(at), step }),
                );
            }
            places.push(place);
        }
    }
    places
}

/// Returns the `sends raw` steps, in order.
pub fn raw_sends(scenario: &CaseScenario) -> Vec<LocatedStep<'_>> {
    let mut raw = shrinkable_steps(scenario);
    raw.retain(|place| place.step.verb == StepVerb::SendsRaw);
    raw
}

/// Returns the steps that send the mutated input on which a check depends: those named in its `after`, or else all
/// `sends raw` steps.
pub fn mutated_sends<'a>(scenario: &'a CaseScenario, check: &str) -> Vec<LocatedStep<'a>> {
    let mut mutated = raw_sends(scenario);
    let asks = scenario.steps.iter().filter(|step| makes_check(step, check));
    let after: Vec<&str> = asks.filter_map(CaseStep::answered).collect();
    let named = |place: &LocatedStep<'_>| place.step.name().is_some_and(|name| after.contains(&name));
    if mutated.iter().any(named) {
        mutated.retain(named);
    }
    mutated
}

/// Whether a step, or a step inside it, has rules.
pub fn has_rules(step: &CaseStep) -> bool {
    !step.rules().is_empty() || step.inner().iter().any(has_rules)
}

/// Whether a step, or a step inside it, makes the check with this name, as reports show it.
pub fn makes_check(step: &CaseStep, check: &str) -> bool {
    let name = step.rules().iter().map(|rule| &*rule.id).collect::<Vec<_>>().join(",");
    (!name.is_empty() && name == check) || step.inner().iter().any(|inner| makes_check(inner, check))
}

/// Whether a step only connects an actor.
pub fn only_connects(step: &CaseStep) -> bool {
    matches!(step.verb, StepVerb::Joins | StepVerb::Connects | StepVerb::TriesToConnect | StepVerb::Accepts)
}

/// Whether every actor connects before it acts. A scenario with an unconnected actor would fail for that reason alone.
pub fn actors_connect_first(scenario: &CaseScenario) -> bool {
    let who = |name: &str| match scenario.actors.get(name) {
        Some(serde_json::Value::Array(_)) => scenario.group(name).map(str::to_owned).collect(),
        _ => vec![name.to_owned()],
    };
    let mut inside = BTreeSet::new();
    let mut steps: Vec<&CaseStep> = scenario.steps.iter().rev().collect();
    while let Some(step) = steps.pop() {
        steps.extend(step.inner().iter().rev());
        let who = who(step.actor_or_group());
        if step.actor.is_empty() {
            continue;
        } else if only_connects(step) {
            inside.extend(who);
        } else if !who.iter().all(|name| inside.contains(name)) {
            return false;
        }
    }
    true
}

/// Returns the number of top-level steps that do more than connect an actor.
pub fn count_beyond_opening(scenario: &CaseScenario) -> usize {
    scenario.steps.iter().filter(|step| !only_connects(step) && step.verb != StepVerb::Wait).count()
}

/// Returns the control run: the scenario without its mutated input, in which the check must pass. `None` if there is no
/// mutated input.
pub fn control_run(scenario: &CaseScenario, check: &str) -> Option<CaseScenario> {
    let mutated: BTreeSet<usize> = mutated_sends(scenario, check).iter().map(LocatedStep::top).collect();
    if mutated.is_empty() {
        return None;
    }
    let mut control = scenario.clone();
    let mut names: Vec<String> = Vec::new();
    let mut index = 0;
    control.steps.retain_mut(|step| {
        index += 1;
        let known = |name: Option<&str>| name.is_some_and(|name| names.iter().any(|known| known == name));
        // A step that depends on an answer to the input only by its `if`, without using the answer, becomes
        // unconditional.
        if known(step.condition()) {
            let mut plain = step.clone();
            plain.options.retain(|option| !matches!(option, StepOption::If(_)));
            let mut words = Vec::new();
            super::cleanup::collect_words(&plain.to_json(), &mut words);
            if !names.iter().any(|name| words.contains(name)) {
                *step = plain;
            }
        }
        // Without the input its answer cannot come, and the step that expects it would end the conversation before the
        // check.
        let owed = !makes_check(step, check) && (known(step.answered()) || known(step.condition()));
        let goes = owed || mutated.contains(&(index - 1));
        if goes {
            let alternatives = step.argument.as_array().into_iter().flatten();
            let bound = alternatives.filter_map(|alternative| alternative.get("as")?.as_str()).chain(step.name());
            names.extend(bound.map(str::to_owned));
        }
        !goes
    });
    Some(control)
}
