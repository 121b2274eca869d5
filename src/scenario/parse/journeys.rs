//! Parses the steps, values and roles of a load plan like those of a scenario, with the same errors. `load::plan`
//! parses the keys of the plan itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::names::{BlockScope, NameOrigin};
use super::rules::MatcherSubject;
use super::{ScenarioParser, SharedFile, StepPlace};
use crate::protocol::{FrameDirection, Pack};
use crate::scenario::model::{AlwaysEntry, MatchPattern, MessageName, Need, Reaction, Role, Step};
use crate::scenario::template::Template;
use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::fields::entries;
use crate::syntax::source::Span;
use crate::syntax::yaml::{NodeKey, SyntaxNode};

/// Options of a step that only a load plan has. The plan parses them.
pub const JOURNEY_STEP_KEYS: [&str; 13] = [
    "marks",
    "item",
    "to",
    "by",
    "back within",
    "answers",
    "carries",
    "or",
    "or where",
    "delivers",
    "sent at",
    "may stay unanswered",
    "label",
];

/// A parser for the parts of one load plan.
pub struct JourneyParser<'a>(ScenarioParser<'a>);

/// The declarations that the plan's steps refer to.
pub struct JourneyParts {
    pub blocks: Vec<Vec<Step>>,
    pub roles: BTreeMap<String, Role>,
    pub reactions: BTreeMap<String, Reaction>,
    pub needs: Vec<Need>,
    pub always: Vec<AlwaysEntry>,
    pub diagnostics: Vec<Diagnostic>,
}

impl<'a> JourneyParser<'a> {
    pub fn new(file: &'a SharedFile, pack: &'a Arc<Pack>) -> Self {
        let mut parser = ScenarioParser::new(file, pack);
        parser.place = StepPlace::Journey;
        Self(parser)
    }

    pub fn finish(self) -> JourneyParts {
        let ScenarioParser { file, pack, blocks, roles, reactions, needs, diagnostics, .. } = self.0;
        // A plan uses only its lifecycles; the pack reports mistakes in it.
        let always = ScenarioParser::new(file, pack).parse_always();
        JourneyParts {
            blocks,
            roles,
            reactions,
            needs,
            always,
            diagnostics: crate::syntax::diagnostic::without_duplicates(diagnostics),
        }
    }

    pub fn error(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.0.error(span, message, help);
    }

    pub fn diagnostics(&mut self) -> &mut Vec<Diagnostic> {
        &mut self.0.diagnostics
    }

    pub fn pack(&self) -> &'a Arc<Pack> {
        self.0.pack
    }

    /// Whether shared.yaml has a role of this name.
    pub fn has_role(&self, name: &str) -> bool {
        entries(self.0.file.root.get("roles")).iter().any(|(key, _)| key.name == name)
    }

    /// Calls `read` for clients of this role of shared.yaml or, without a role, for clients without `given` values.
    /// `self.index` and `self.turn` are always in scope.
    pub fn parse_as_role<T>(&mut self, role: Option<(&str, Span)>, read: impl FnOnce(&mut Self) -> T) -> T {
        // No role of shared.yaml can have this name.
        let name = role.map_or(" none", |(name, _)| name);
        match role {
            Some((name, span)) => self.0.parse_role(name, span),
            None => {
                self.0.roles.entry(name.to_owned()).or_insert_with(|| Role {
                    preludes: BTreeMap::new(),
                    server: false,
                    subprotocols: Vec::new(),
                    given: Vec::new(),
                    fills: Vec::new(),
                    opening: usize::MAX,
                    binds: Vec::new(),
                    reacts: Vec::new(),
                    fenced_by_pauses: false,
                });
            }
        }
        if let Some(role) = self.0.roles.get_mut(name) {
            for own in ["index", "turn"] {
                if !role.binds.iter().any(|known| known == own) {
                    role.binds.push(own.to_owned());
                }
            }
        }
        let outer = self.0.myself.replace(name.to_owned());
        let value = self.parse_in_scope(read);
        self.0.myself = outer;
        value
    }

    /// Calls `read` with its own scope, whose names are dropped afterwards.
    pub fn parse_in_scope<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        self.0.scopes.push(BlockScope::default());
        let value = read(self);
        self.0.scopes.pop();
        value
    }

    /// Declares a name with a value from the plan.
    pub fn bind_name(&mut self, name: &str, at: Option<Span>) {
        self.0.bind_name(name, at, NameOrigin::Unknown);
    }

    pub fn parse_free_name(&mut self, node: &SyntaxNode) -> Option<String> {
        self.0.parse_free_name(node)
    }

    /// Parses the values of `let`, which are evaluated from top to bottom.
    pub fn parse_values(&mut self, entries: &[(NodeKey, SyntaxNode)]) -> Vec<(String, Template)> {
        self.0.parse_values(entries)
    }

    /// Parses overrides of the `given` values of the current role.
    pub fn parse_overrides(&mut self, node: Option<&SyntaxNode>) -> Vec<(String, Template)> {
        self.0.parse_role_overrides(node)
    }

    /// Parses a step of the scenario language.
    pub fn parse_step(&mut self, node: &SyntaxNode) -> Option<Step> {
        self.0.parse_step(node)
    }

    pub fn parse_template(&mut self, node: &SyntaxNode) -> Template {
        self.0.parse_template(node)
    }

    /// Parses the name of a message that is documented in this direction.
    pub fn parse_message_name(&mut self, node: &SyntaxNode, way: FrameDirection) -> Option<String> {
        match self.0.parse_message_name(node, Some(way).filter(|way| *way == FrameDirection::FromHub)) {
            MessageName::Named(name) => Some(name),
            _ => {
                if node.text().is_some_and(|name| name == "any" || name.contains("${")) {
                    self.error(
                        node.span,
                        "this must name one message",
                        "write `MESSAGE`: a load plan cannot use `any` or an expression here",
                    );
                }
                None
            }
        }
    }

    /// Parses a `where` for this message.
    pub fn parse_pattern(&mut self, node: &SyntaxNode, message: &str) -> MatchPattern {
        self.0.parse_pattern(node, &MatcherSubject::Message(message.to_owned()))
    }
}
