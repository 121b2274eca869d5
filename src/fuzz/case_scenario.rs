//! Scenarios and steps in the form in which cases build, read and shrink them. Sent and expected values stay JSON.

use serde_json::{Map, Value, json};

use super::step_rule::StepRule;
use crate::scenario::model::GroupQuantity;
use crate::scenario::parse::verbs::{self, StepHead, StepVerb};
use crate::scenario::writer;

/// A scenario: a case, or one derived from a case.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CaseScenario {
    pub title: String,
    /// Other keys, such as `needs`.
    pub others: Map<String, Value>,
    pub exclusive: Option<String>,
    pub actors: Map<String, Value>,
    pub lets: Map<String, Value>,
    pub steps: Vec<CaseStep>,
    pub finally: Vec<CaseStep>,
}

#[cfg(test)]
impl CaseScenario {
    /// Reads a valid scenario.
    pub fn of(root: &Value) -> Self {
        Self::read(root.as_object().unwrap().clone()).unwrap()
    }
}

impl CaseScenario {
    /// Returns the scenario of a file.
    ///
    /// # Errors
    ///
    /// A message that names the first item of `steps` or `finally` that is not a step.
    pub fn read(root: Map<String, Value>) -> Result<Self, String> {
        let mut scenario = Self::default();
        for (key, value) in root {
            match (key.as_str(), value) {
                ("title", Value::String(title)) => scenario.title = title,
                ("exclusive", Value::String(resource)) => scenario.exclusive = Some(resource),
                ("actors", Value::Object(actors)) => scenario.actors = actors,
                ("let", Value::Object(lets)) => scenario.lets = lets,
                ("steps", Value::Array(steps)) => scenario.steps = read_all(&steps)?,
                ("finally", Value::Array(steps)) => scenario.finally = read_all(&steps)?,
                (_, value) => drop(scenario.others.insert(key, value)),
            }
        }
        Ok(scenario)
    }

    /// Returns the content of the scenario's file.
    pub fn to_map(&self) -> Map<String, Value> {
        let mut root = Map::from_iter([("title".to_owned(), json!(self.title))]);
        root.extend(self.others.clone());
        root.extend(self.exclusive.as_ref().map(|resource| ("exclusive".to_owned(), json!(resource))));
        for (key, members) in [("actors", &self.actors), ("let", &self.lets)] {
            root.extend((!members.is_empty()).then(|| (key.to_owned(), Value::Object(members.clone()))));
        }
        root.insert("steps".to_owned(), to_json(&self.steps));
        root.extend((!self.finally.is_empty()).then(|| ("finally".to_owned(), to_json(&self.finally))));
        root
    }

    /// Returns the text of the scenario's file.
    pub fn text(&self) -> String {
        writer::write_scenario(&self.to_map())
    }

    /// Returns the members of a group of other actors; none for any other actor.
    pub fn group(&self, actor: &str) -> impl Iterator<Item = &str> {
        self.actors.get(actor).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    /// Returns the step at this path: its index, and those of inner steps.
    pub fn step_mut(&mut self, path: &[usize]) -> Option<&mut CaseStep> {
        let (first, inner) = path.split_first()?;
        inner.iter().try_fold(self.steps.get_mut(*first)?, |step, index| step.inner_mut()?.get_mut(*index))
    }
}

/// A step of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseStep {
    /// The actor's name, perhaps with an index; empty where it is left out, and for steps without an actor.
    pub actor: String,
    pub verb: StepVerb,
    /// Whether the verb is in the plural, for a group.
    plural: bool,
    quantity: Option<(GroupQuantity, usize)>,
    /// The value of the key that names the actor and the verb.
    pub argument: Value,
    /// The other keys, in their order.
    pub options: Vec<StepOption>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum StepOption {
    As(String),
    After(String),
    If(String),
    Rules(Vec<StepRule>),
    Do(Vec<CaseStep>),
    /// Any other, by its key.
    Other(String, Value),
}

impl CaseStep {
    /// Returns a step without options; for a verb without an actor, `actor` is empty.
    pub fn new(actor: &str, verb: StepVerb, argument: impl Into<Value>) -> Self {
        let (plural, quantity) = (false, None);
        Self { actor: actor.to_owned(), verb, plural, quantity, argument: argument.into(), options: Vec::new() }
    }

    /// Reads a step of a file; `None` if no key of it is the head of a step.
    pub fn read(step: &Value) -> Option<Self> {
        let members = step.as_object()?;
        let (key, StepHead { verb, actor, plural, quantity }) =
            members.keys().find_map(|key| Some((key, verbs::parse_head(key)?)))?;
        let argument = &members[key];
        let others = members.iter().filter(|(other, _)| *other != key);
        let options = others.map(|(key, value)| StepOption::read(key, value)).collect();
        Some(Self { actor: actor.to_owned(), verb, plural, quantity, argument: argument.clone(), options })
    }

    pub fn to_json(&self) -> Value {
        let Self { actor, verb, plural, quantity, argument, options } = self;
        let head = StepHead { verb: *verb, actor, plural: *plural, quantity: *quantity };
        let options = options.iter().map(StepOption::to_json);
        std::iter::once((head.to_string(), argument.clone())).chain(options).collect()
    }

    fn and(mut self, option: StepOption) -> Self {
        self.options.push(option);
        self
    }

    pub fn named(self, name: impl Into<String>) -> Self {
        self.and(StepOption::As(name.into()))
    }

    pub fn after(self, name: impl Into<String>) -> Self {
        self.and(StepOption::After(name.into()))
    }

    pub fn only_if(self, name: &str) -> Self {
        self.and(StepOption::If(name.to_owned()))
    }

    pub fn judged_by(self, rules: impl Into<Vec<StepRule>>) -> Self {
        self.and(StepOption::Rules(rules.into()))
    }

    pub fn doing(self, steps: impl Into<Vec<CaseStep>>) -> Self {
        self.and(StepOption::Do(steps.into()))
    }

    pub fn with(self, key: &str, value: impl Into<Value>) -> Self {
        self.and(StepOption::Other(key.to_owned(), value.into()))
    }

    /// Changes the steps within this one.
    pub fn inside(mut self, change: impl Fn(Self) -> Self) -> Self {
        if let Some(inner) = self.inner_mut() {
            *inner = std::mem::take(inner).into_iter().map(change).collect();
        }
        self
    }

    /// Returns the name that the step binds.
    pub fn name(&self) -> Option<&str> {
        self.options.iter().find_map(|option| if let StepOption::As(name) = option { Some(&**name) } else { None })
    }

    /// Returns the name of the step whose answer this one expects.
    pub fn answered(&self) -> Option<&str> {
        self.options.iter().find_map(|option| if let StepOption::After(name) = option { Some(&**name) } else { None })
    }

    /// Returns the name without which the step is skipped.
    pub fn condition(&self) -> Option<&str> {
        self.options.iter().find_map(|option| if let StepOption::If(name) = option { Some(&**name) } else { None })
    }

    pub fn rules(&self) -> &[StepRule] {
        let rules = self.options.iter().find_map(|option| match option {
            StepOption::Rules(rules) => Some(&**rules),
            _ => None,
        });
        rules.unwrap_or_default()
    }

    /// Returns the steps within this one.
    pub fn inner(&self) -> &[Self] {
        let inner = self.options.iter().find_map(|option| match option {
            StepOption::Do(steps) => Some(&**steps),
            _ => None,
        });
        inner.unwrap_or_default()
    }

    pub fn inner_mut(&mut self) -> Option<&mut Vec<Self>> {
        self.options.iter_mut().find_map(|option| if let StepOption::Do(steps) = option { Some(steps) } else { None })
    }

    /// Returns the value of an option without a type of its own.
    pub fn option(&self, key: &str) -> Option<&Value> {
        self.options.iter().find_map(|option| match option {
            StepOption::Other(name, value) if name == key => Some(value),
            _ => None,
        })
    }

    pub fn option_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.options.iter_mut().find_map(|option| match option {
            StepOption::Other(name, value) if name == key => Some(value),
            _ => None,
        })
    }

    /// Returns the alternatives of a step that expects one of several.
    pub fn alternatives(&self) -> &[Value] {
        self.argument.as_array().filter(|_| self.verb == StepVerb::ExpectsOneOf).map_or(&[], Vec::as_slice)
    }

    /// Returns the actor without its index.
    pub fn actor_or_group(&self) -> &str {
        self.actor.split('[').next().unwrap_or_default()
    }

    /// Returns the message that the step sends or expects by name.
    pub fn message(&self, verb: StepVerb) -> Option<&str> {
        self.argument.as_str().filter(|_| self.verb == verb)
    }
}

impl StepOption {
    fn read(key: &str, value: &Value) -> Self {
        let other = || Self::Other(key.to_owned(), value.clone());
        match (key, value) {
            ("as", Value::String(name)) => Self::As(name.clone()),
            ("after", Value::String(name)) => Self::After(name.clone()),
            ("if", Value::String(name)) => Self::If(name.clone()),
            // A list with anything else stays as it is, so that the scenario parser reports it.
            ("rules", Value::Array(rules)) => {
                rules.iter().map(StepRule::read).collect::<Option<_>>().map_or_else(other, Self::Rules)
            }
            ("do", Value::Array(steps)) => read_all(steps).map_or_else(|_| other(), Self::Do),
            _ => other(),
        }
    }

    fn to_json(&self) -> (String, Value) {
        let (key, value) = match self {
            Self::As(name) => ("as", json!(name)),
            Self::After(name) => ("after", json!(name)),
            Self::If(name) => ("if", json!(name)),
            Self::Rules(rules) => ("rules", json!(rules)),
            Self::Do(steps) => ("do", to_json(steps)),
            Self::Other(key, value) => (&**key, value.clone()),
        };
        (key.to_owned(), value)
    }
}

/// Reads the steps of a list.
///
/// # Errors
///
/// The first item that is not a step.
pub fn read_all(steps: &[Value]) -> Result<Vec<CaseStep>, String> {
    steps.iter().map(|step| CaseStep::read(step).ok_or_else(|| format!("{step} is not a step"))).collect()
}

fn to_json(steps: &[CaseStep]) -> Value {
    steps.iter().map(CaseStep::to_json).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_that_is_read_is_written_the_same() {
        let root = json!({
            "title": "All kinds of steps",
            "needs": ["tls"],
            "exclusive": "queue",
            "actors": { "a": "client", "crowd": { "role": "client", "count": 3 } },
            "let": { "name": "${unique('name')}" },
            "steps": [
                { "crowd join": null, "rules": ["R-1 as should", "R-2"] },
                { "a sends": "x", "rules": ["R-1 as nonsense", 1] },
                { "at least 2 of crowd expect": "x", "within": "1s", "as": "got", "where": { "n": 1 }, "after": "sent" },
                { "retry": "5s", "do": [{ "a tries to connect": "/", "headers": {} }], "if": "got", "rules": ["R-1"] },
                { "expects close": "any" },
            ],
            "finally": [{ "wait": "1s" }],
        });
        assert_eq!(Value::Object(CaseScenario::of(&root).to_map()).to_string(), root.to_string());
    }

    #[test]
    fn a_key_that_is_not_the_head_of_a_step_is_reported() {
        let root = json!({ "steps": [{ "a sends": "x" }, { "a dances": null }] });
        let error = CaseScenario::read(root.as_object().unwrap().clone()).unwrap_err();
        assert_eq!(error, r#"{"a dances":null} is not a step"#);
    }
}
