//! Parses the actors of a scenario and their groups, and resolves the actors of a step.

use super::verbs::{self, Head};
use super::{Place, Reader};
use crate::scenario::model::{Actor, ActorId, Who};
use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::fields::{entries, integer, mapping, table, wrong_kind};
use crate::syntax::source::Span;
use crate::syntax::yaml::{Key, Kind, Node};

/// Maximum number of members of a group.
const MOST_MEMBERS: u64 = 10_000;

impl Reader<'_> {
    pub(super) fn read_actors(&mut self, node: Option<&Node>) {
        for (key, node) in mapping(node, "`actors`", "actors: { anna: client }", &mut self.diagnostics) {
            self.actor_name(key);
            match &node.kind {
                Kind::Text(role) => self.actor(&key.name, &role.value, node.span),
                Kind::Map(_) => self.crowd(key, node),
                Kind::List(items) => self.group(key, node, items),
                _ => {
                    let help = "write the name of a role, `{ role: client, count: 10 }`, or a list of actors";
                    self.diagnostics.push(wrong_kind(node, "an actor", "given a role", help));
                }
            }
        }
    }

    fn crowd(&mut self, key: &Key, node: &Node) {
        table(node, &["role", "count"], "an actor", &mut self.diagnostics);
        let (role, at) = match node.get("role") {
            None => (key.name.clone(), key.span),
            Some(role) => (role.text().unwrap_or_default().to_owned(), role.span),
        };
        let count = integer(node.get("count"), "`count`", 1..=MOST_MEMBERS, &mut self.diagnostics).unwrap_or(1);
        let mut members = Vec::new();
        for index in 0..count {
            members.push(self.actors.len());
            self.actor(&format!("{}[{index}]", key.name), &role, at);
        }
        self.groups.insert(key.name.clone(), members);
    }

    fn group(&mut self, key: &Key, node: &Node, items: &[Node]) {
        let mut members = Vec::new();
        for item in items {
            match item.text().and_then(|name| self.members(name)) {
                Some(found) => members.extend(found),
                None => {
                    let name = item.text().unwrap_or_default();
                    let known = self.known_actors();
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

    fn actor(&mut self, name: &str, role: &str, role_span: Span) {
        self.role(role, role_span);
        self.actors.push(Actor { name: name.to_owned(), role: role.to_owned() });
    }

    /// Returns the actors of a name: one actor, or the members of a group.
    pub(super) fn members(&self, name: &str) -> Option<Vec<ActorId>> {
        match self.groups.get(name) {
            Some(members) => Some(members.clone()),
            None => self.actors.iter().position(|actor| actor.name == name).map(|id| vec![id]),
        }
    }

    /// Returns the actors of a name. An actor named like its role needs no line under `actors` and is declared here.
    pub(super) fn actors_named(&mut self, name: &str, span: Span) -> Option<Vec<ActorId>> {
        if self.members(name).is_none()
            && entries(self.file.root.get("roles")).iter().any(|(role, _)| role.name == name)
        {
            if let Some(at) = self.bound(name).and_then(|bound| bound.at) {
                self.diagnostics.push(
                    Diagnostic::error(span, format!("`{name}` is both a bound name and an actor"))
                        .also(at, "it is bound here")
                        .help("choose another name, or declare an actor with another name under `actors`"),
                );
            }
            self.actor(name, name, span);
        }
        if self.any_actor && self.members(name).is_none() {
            self.actors.push(Actor { name: name.to_owned(), role: String::new() });
        }
        self.members(name)
    }

    fn known_actors(&self) -> Vec<String> {
        let roles = entries(self.file.root.get("roles")).iter().map(|(role, _)| role.name.clone());
        self.actors.iter().map(|actor| actor.name.clone()).chain(self.groups.keys().cloned()).chain(roles).collect()
    }

    /// Returns the actors of a step; `None` after an error.
    pub(super) fn who(&mut self, head: &Head<'_>, key: &Key) -> Option<Who> {
        if head.verb.is_word() {
            return Some(Who::NoActor);
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
            return Some(Who::Myself);
        }
        let span = part_of(key, head.actor);
        if matches!(self.place, Place::Opening | Place::Reaction | Place::Journey) {
            let verb = key.name.rsplit_once(head.actor).map_or("", |(_, verb)| verb.trim());
            self.error(
                span,
                format!("steps of {} cannot name an actor", self.place.name()),
                format!("write `{verb}` without an actor"),
            );
            return None;
        }
        let Some(members) = self.actors_named(head.actor, span) else {
            let known = self.known_actors();
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
            return Some(Who::Group { members, quantity: head.quantity });
        }
        if head.quantity.is_some() && head.verb.can_be_counted() {
            self.error(span, format!("`{}` is one actor, not a group", head.actor), "leave the number out");
        }
        members.first().map(|id| Who::One(*id))
    }

    /// Records that actors connect here, for `each` and for the connection budget.
    pub(super) fn connects(&mut self, who: &Who) {
        let members: Vec<ActorId> = match who {
            Who::One(id) => vec![*id],
            Who::Group { members, .. } => members.clone(),
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
pub struct ActorsOfSteps {
    pub named: Vec<String>,
    pub without_actor: Option<Span>,
}

impl ActorsOfSteps {
    pub fn of(steps: Option<&Node>) -> Self {
        let mut actors = Self::default();
        actors.add(steps);
        actors
    }

    fn add(&mut self, steps: Option<&Node>) {
        for step in steps.and_then(Node::list).unwrap_or_default() {
            for (key, value) in entries(Some(step)) {
                match verbs::head(&key.name) {
                    _ if key.name == "do" => self.add(Some(value)),
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
pub fn part_of(key: &Key, part: &str) -> Span {
    let quote = match key.span.range().len().checked_sub(key.name.len()) {
        Some(0) => 0,
        Some(2) => 1,
        _ => return key.span,
    };
    key.name.find(part).map_or(key.span, |at| key.span.part(quote + at..quote + at + part.len()))
}
