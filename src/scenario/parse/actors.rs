//! Parses the actors of a scenario and their groups, and resolves the actors of a step.

use super::verbs::{self, StepHead};
use super::{ScenarioParser, StepPlace};
use crate::scenario::model::{Actor, ActorId, StepActors};
use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::fields::{entries, integer, mapping, table, wrong_kind};
use crate::syntax::source::Span;
use crate::syntax::yaml::{NodeKey, NodeKind, SyntaxNode};

/// Maximum number of members of a group.
const MAX_MEMBERS: u64 = 10_000;

impl ScenarioParser<'_> {
    pub(super) fn parse_actors(&mut self, node: Option<&SyntaxNode>) {
        for (key, node) in mapping(node, "`actors`", "actors: { anna: client }", &mut self.diagnostics) {
            self.check_actor_name(key);
            match &node.kind {
                NodeKind::Text(role) => self.declare_actor(&key.name, &role.value, node.span),
                NodeKind::Map(_) => self.parse_crowd(key, node),
                NodeKind::List(items) => self.parse_group(key, node, items),
                _ => {
                    let help = "write the name of a role, `{ role: client, count: 10 }`, or a list of actors";
                    self.diagnostics.push(wrong_kind(node, "an actor", "given a role", help));
                }
            }
        }
    }

    fn parse_crowd(&mut self, key: &NodeKey, node: &SyntaxNode) {
        table(node, &["role", "count"], "an actor", &mut self.diagnostics);
        let (role, at) = match node.get("role") {
            None => (key.name.clone(), key.span),
            Some(role) => (role.text().unwrap_or_default().to_owned(), role.span),
        };
        let count = integer(node.get("count"), "`count`", 1..=MAX_MEMBERS, &mut self.diagnostics).unwrap_or(1);
        let mut members = Vec::new();
        for index in 0..count {
            members.push(self.actors.len());
            self.declare_actor(&format!("{}[{index}]", key.name), &role, at);
        }
        self.groups.insert(key.name.clone(), members);
    }

    fn parse_group(&mut self, key: &NodeKey, node: &SyntaxNode, items: &[SyntaxNode]) {
        let mut members = Vec::new();
        for item in items {
            match item.text().and_then(|name| self.find_actors(name)) {
                Some(found) => members.extend(found),
                None => {
                    let name = item.text().unwrap_or_default();
                    let known = self.known_actor_names();
                    let help = suggest(
                        name,
                        known.iter().map(String::as_str).collect::<Vec<_>>(),
                        "a group consists of actors declared above it",
                    );
                    self.error(item.span, format!("there is no actor `{name}`"), help);
                }
            }
        }
        if items.is_empty() {
            self.error(node.span, "this group has no actors", "write a role, or a list of actors declared above it");
        }
        self.groups.insert(key.name.clone(), members);
    }

    fn declare_actor(&mut self, name: &str, role: &str, role_span: Span) {
        self.parse_role(role, role_span);
        self.actors.push(Actor { name: name.to_owned(), role: role.to_owned() });
    }

    /// Returns the actors of a name: one actor, or the members of a group.
    pub(super) fn find_actors(&self, name: &str) -> Option<Vec<ActorId>> {
        match self.groups.get(name) {
            Some(members) => Some(members.clone()),
            None => self.actors.iter().position(|actor| actor.name == name).map(|id| vec![id]),
        }
    }

    /// Returns the actors of a name. An actor named like its role needs no line under `actors` and is declared here.
    pub(super) fn resolve_actors(&mut self, name: &str, span: Span) -> Option<Vec<ActorId>> {
        if self.find_actors(name).is_none()
            && entries(self.file.root.get("roles")).iter().any(|(role, _)| role.name == name)
        {
            if let Some(at) = self.find_binding(name).and_then(|bound| bound.at) {
                self.diagnostics.push(
                    Diagnostic::error(span, format!("`{name}` is both a bound name and an actor"))
                        .also(at, "it is bound here")
                        .help("choose another name, or declare an actor with another name under `actors`"),
                );
            }
            self.declare_actor(name, name, span);
        }
        if self.any_actor && self.find_actors(name).is_none() {
            self.actors.push(Actor { name: name.to_owned(), role: String::new() });
        }
        self.find_actors(name)
    }

    fn known_actor_names(&self) -> Vec<String> {
        let roles = entries(self.file.root.get("roles")).iter().map(|(role, _)| role.name.clone());
        self.actors.iter().map(|actor| actor.name.clone()).chain(self.groups.keys().cloned()).chain(roles).collect()
    }

    /// Returns the actors of a step; `None` after an error.
    pub(super) fn resolve_step_actors(&mut self, head: &StepHead<'_>, key: &NodeKey) -> Option<StepActors> {
        if head.verb.is_word() {
            return Some(StepActors::NoActor);
        }
        if head.actor.is_empty() {
            if !self.place.omits_actor() {
                self.error(
                    key.span,
                    format!("`{}` names no actor", key.name),
                    format!(
                        "write `anna {}`; only steps of scenes, openings and reactions may leave the actor out",
                        key.name
                    ),
                );
                return None;
            }
            return Some(StepActors::Myself);
        }
        let span = key_part_span(key, head.actor);
        if matches!(self.place, StepPlace::Opening | StepPlace::Reaction | StepPlace::Journey) {
            let verb = key.name.rsplit_once(head.actor).map_or("", |(_, verb)| verb.trim());
            self.error(
                span,
                format!("steps of {} cannot name an actor", self.place.name()),
                format!("write `{verb}` without an actor"),
            );
            return None;
        }
        let Some(members) = self.resolve_actors(head.actor, span) else {
            let known = self.known_actor_names();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let help =
                suggest(head.actor, known, "actors are declared under `actors`, unless they are named like their role");
            self.error(span, format!("there is no actor `{}`", head.actor), help);
            return None;
        };
        if head.quantity.is_some() && !head.verb.can_be_counted() {
            let help = "only `expect` and `expect frame` count actors, as in `exactly 1 of crowd expect: hello`";
            self.error(key.span, "this step cannot count actors", help);
        }
        if self.groups.contains_key(head.actor) {
            return Some(StepActors::Group { members, quantity: head.quantity });
        }
        if head.quantity.is_some() && head.verb.can_be_counted() {
            self.error(span, format!("`{}` is one actor, not a group", head.actor), "leave the number out");
        }
        members.first().map(|id| StepActors::One(*id))
    }

    /// Records that actors connect here, for `each` and for the connection budget.
    pub(super) fn record_connect(&mut self, who: &StepActors) {
        let members: Vec<ActorId> = match who {
            StepActors::One(id) => vec![*id],
            StepActors::Group { members, .. } => members.clone(),
            _ => Vec::new(),
        };
        for id in members {
            if self.connected.insert(id)
                && let Some(fresh) = self.fresh.last_mut()
            {
                fresh.insert(id);
            }
        }
    }
}

/// The actors that steps name, and the first step that names none.
#[derive(Default)]
pub struct StepActorNames {
    pub named: Vec<String>,
    pub without_actor: Option<Span>,
}

impl StepActorNames {
    pub fn from_steps(steps: Option<&SyntaxNode>) -> Self {
        let mut actors = Self::default();
        actors.add_steps(steps);
        actors
    }

    fn add_steps(&mut self, steps: Option<&SyntaxNode>) {
        for step in steps.and_then(SyntaxNode::list).unwrap_or_default() {
            for (key, value) in entries(Some(step)) {
                match verbs::parse_head(&key.name) {
                    _ if key.name == "do" => self.add_steps(Some(value)),
                    Some(head) if head.verb.is_word() => {}
                    Some(head) if head.actor.is_empty() => self.without_actor = self.without_actor.or(Some(key.span)),
                    Some(head) if !self.named.iter().any(|name| name == head.actor) => {
                        self.named.push(head.actor.to_owned());
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Returns the span of a part of a key.
pub fn key_part_span(key: &NodeKey, part: &str) -> Span {
    let quote = match key.span.range().len().checked_sub(key.name.len()) {
        Some(0) => 0,
        Some(2) => 1,
        _ => return key.span,
    };
    key.name.find(part).map_or(key.span, |at| key.span.subspan(quote + at..quote + at + part.len()))
}
