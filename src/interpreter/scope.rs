//! The names that an expression sees: those bound by steps and `let`, actors, `self` and `hub`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::actor::Actors;
use super::blocks::BlockStack;
use crate::redact::SecretMasker;
use crate::scenario::functions::{FunctionContext, NameForm};
use crate::scenario::model::{ActorId, Program, setting_value};
use crate::scenario::template::EvalContext;
use crate::scenario::value::BoundValue;

/// The parts of the target and the run that expressions can use, apart from names.
pub struct Environment {
    pub functions: Arc<FunctionContext>,
    hub: BoundValue,
}

impl Environment {
    /// Creates an environment; `stamp` distinguishes this conversation from all others, `turn` is its number.
    pub fn new(
        stamp: String,
        turn: usize,
        names: NameForm,
        masker: Arc<SecretMasker>,
        settings: &BTreeMap<String, Value>,
    ) -> Self {
        let shown = |(name, value): (&String, &Value)| (name.clone(), BoundValue::from_value(setting_value(value)));
        Self {
            functions: Arc::new(FunctionContext::new(stamp).with_turn(turn).with_names(names).with_masker(masker)),
            hub: BoundValue::Scene(settings.iter().map(shown).collect()),
        }
    }
}

pub struct ConversationContext<'a> {
    pub program: &'a Program,
    pub environment: &'a Environment,
    pub blocks: &'a BlockStack,
    pub actors: &'a Actors,
    /// The actor that `self` stands for.
    pub me: Option<ActorId>,
}

impl EvalContext for ConversationContext<'_> {
    fn lookup(&self, name: &str) -> Option<BoundValue> {
        match name {
            "hub" => Some(self.environment.hub.clone()),
            "self" => self.me.map(|id| self.actors[id].to_bound()),
            _ => self.blocks.name(name).cloned().or_else(|| self.actor(name)),
        }
    }

    fn member(&self, name: &str, member: &str) -> Option<BoundValue> {
        match name {
            "hub" => self.environment.hub.member(member),
            "self" => self.actors[self.me?].member(member),
            _ => match self.blocks.name(name) {
                Some(bound) => bound.member(member),
                None => self.actor_member(name, member),
            },
        }
    }

    fn function_context(&self) -> &Arc<FunctionContext> {
        &self.environment.functions
    }

    fn omits(&self, setting: &str) -> bool {
        self.program.shared.settings.get(setting).is_some_and(|declared| declared.optional)
            && self.environment.hub.member(setting).is_none()
    }
}

impl ConversationContext<'_> {
    fn actor_member(&self, name: &str, member: &str) -> Option<BoundValue> {
        // A group is a list and has no members of its own.
        if self.program.groups.contains_key(name) {
            return None;
        }
        self.actor_named(name).and_then(|id| self.actors[id].member(member))
    }

    fn actor(&self, name: &str) -> Option<BoundValue> {
        if let Some(members) = self.program.groups.get(name) {
            let items = members.iter().map(|id| self.actors[*id].to_bound()).collect();
            return Some(BoundValue::Many { items, ordered: false });
        }
        self.actor_named(name).map(|id| self.actors[id].to_bound())
    }

    fn actor_named(&self, name: &str) -> Option<ActorId> {
        self.program.actors.iter().position(|actor| actor.name == name)
    }
}

/// The names that a need can see: only the settings.
pub struct SettingsContext {
    environment: Environment,
    /// Optional settings without a value.
    omitted: BTreeSet<String>,
}

impl SettingsContext {
    pub fn new(program: &Program, settings: &BTreeMap<String, Value>) -> Self {
        let optional = program.shared.settings.iter().filter(|(_, declared)| declared.optional);
        let omitted = optional.map(|(name, _)| name).filter(|name| !settings.contains_key(*name)).cloned().collect();
        Self {
            environment: Environment::new(program.id.clone(), 0, NameForm::default(), Arc::default(), settings),
            omitted,
        }
    }
}

impl EvalContext for SettingsContext {
    fn lookup(&self, name: &str) -> Option<BoundValue> {
        (name == "hub").then(|| self.environment.hub.clone())
    }

    fn function_context(&self) -> &Arc<FunctionContext> {
        &self.environment.functions
    }

    fn omits(&self, setting: &str) -> bool {
        self.omitted.contains(setting)
    }
}
