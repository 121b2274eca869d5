//! The names that an expression sees: those bound by steps and `let`, actors, `self` and `hub`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::Conversation;
use crate::scenario::functions::World;
use crate::scenario::model::{ActorId, Program, setting_value};
use crate::scenario::template::Names;
use crate::scenario::value::Bound;

pub fn hub(settings: &BTreeMap<String, Value>) -> Bound {
    Bound::Scene(settings.iter().map(|(name, value)| (name.clone(), Bound::plain(setting_value(value)))).collect())
}

pub struct View<'a> {
    pub conversation: &'a Conversation,
    /// The actor that `self` is.
    pub me: Option<ActorId>,
}

impl Names for View<'_> {
    fn lookup(&self, name: &str) -> Option<Bound> {
        let c = self.conversation;
        match name {
            "hub" => return Some(c.hub.clone()),
            "self" => return self.me.map(|id| c.actors[id].bound()),
            _ => {}
        }
        for frame in c.stack.iter().rev() {
            if let Some(bound) = frame.names.get(name) {
                return Some(bound.clone());
            }
            if frame.is_isolated() {
                return self.actor(name);
            }
        }
        c.lets.get(name).cloned().or_else(|| self.actor(name))
    }

    fn member(&self, name: &str, member: &str) -> Option<Bound> {
        let c = self.conversation;
        match name {
            "hub" => return c.hub.member(member),
            "self" => return c.actors[self.me?].member(member),
            _ => {}
        }
        for frame in c.stack.iter().rev() {
            if let Some(bound) = frame.names.get(name) {
                return bound.member(member);
            }
            if frame.is_isolated() {
                return self.actor_member(name, member);
            }
        }
        match c.lets.get(name) {
            Some(bound) => bound.member(member),
            None => self.actor_member(name, member),
        }
    }

    fn world(&self) -> &Arc<World> {
        &self.conversation.world
    }

    fn omits(&self, setting: &str) -> bool {
        self.conversation.program.shared.settings.get(setting).is_some_and(|declared| declared.optional)
            && !self.conversation.config.settings.contains_key(setting)
    }
}

impl View<'_> {
    fn actor_member(&self, name: &str, member: &str) -> Option<Bound> {
        let c = self.conversation;
        // A group is a list and has no members of its own.
        if c.program.groups.contains_key(name) {
            return None;
        }
        c.program.actors.iter().position(|actor| actor.name == name).and_then(|id| c.actors[id].member(member))
    }

    fn actor(&self, name: &str) -> Option<Bound> {
        let c = self.conversation;
        if let Some(members) = c.program.groups.get(name) {
            return Some(Bound::Many {
                items: members.iter().map(|id| c.actors[*id].bound()).collect(),
                ordered: false,
            });
        }
        c.program.actors.iter().position(|actor| actor.name == name).map(|id| c.actors[id].bound())
    }
}

/// The names that a need sees: only the settings.
pub struct Settings {
    hub: Bound,
    world: Arc<World>,
}

impl Settings {
    pub fn new(program: &Program, settings: &BTreeMap<String, Value>) -> Self {
        Self { hub: hub(settings), world: Arc::new(World::new(program.id.clone())) }
    }
}

impl Names for Settings {
    fn lookup(&self, name: &str) -> Option<Bound> {
        (name == "hub").then(|| self.hub.clone())
    }

    fn world(&self) -> &Arc<World> {
        &self.world
    }
}
