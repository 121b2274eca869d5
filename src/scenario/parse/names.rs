//! Names: their scopes, the keys that bind them, and the names that an expression may use.

use std::collections::BTreeMap;

use super::shapes::ValueShape;
use super::verbs::is_verb_word;
use super::{ScenarioParser, StepPlace};
use crate::scenario::functions::{self, JWT_SECRET};
use crate::scenario::model::{ActorId, Need, SettingDeclaration, StepActors};
use crate::scenario::template::{ENGINE_FUNCTIONS, Template, TemplateExpression};
use crate::syntax::diagnostic::{Diagnostic, has_errors, suggest};
use crate::syntax::fields::wrong_kind;
use crate::syntax::source::Span;
use crate::syntax::yaml::{NodeKey, SyntaxNode};

/// The connections on which the frames of a name are sent or received, as far as known before the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameOrigin {
    Unknown,
    /// No connection: a value of `let`, `given` or `each`.
    Computed,
    One(ActorId),
    /// The connections of several actors.
    Several,
}

impl NameOrigin {
    pub fn of_actors(who: &StepActors) -> Self {
        match who {
            StepActors::One(id) => Self::One(*id),
            StepActors::Group { members, .. } => match members.as_slice() {
                [id] => Self::One(*id),
                _ => Self::Several,
            },
            StepActors::NoActor | StepActors::Myself => Self::Unknown,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct NameBinding {
    /// Where the name is bound; `None` for a name without a line, such as `index`.
    pub at: Option<Span>,
    pub origin: NameOrigin,
}

impl NameBinding {
    /// Returns the binding of a name whose value hubproof computes, such as `index`.
    pub const fn computed() -> Self {
        Self { at: None, origin: NameOrigin::Computed }
    }
}

/// The names of a block.
#[derive(Default)]
pub struct BlockScope {
    pub names: BTreeMap<String, NameBinding>,
    /// What is known about the values of names.
    pub shapes: BTreeMap<String, ValueShape>,
    /// Whether names of outer scopes are hidden, as in a scene or an opening.
    pub isolated: bool,
}

impl BlockScope {
    pub fn isolated() -> Self {
        Self { isolated: true, ..Self::default() }
    }
}

/// Whether a name is reserved.
fn is_reserved(name: &str) -> bool {
    matches!(name, "hub" | "self" | "index")
        || functions::FUNCTION_NAMES.contains(&name)
        || ENGINE_FUNCTIONS.contains(&name)
}

const IDENTIFIER_HELP: &str = "a name consists of letters, digits and `_`, and starts with a letter";

pub fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Collects the names that these steps bind, and where. Names bound in scenes of shared.yaml are left out.
pub fn collect_bound_names(node: &SyntaxNode, found: &mut BTreeMap<String, Span>) {
    for item in node.list().unwrap_or_default() {
        for (key, value) in item.map().unwrap_or_default() {
            match (key.name.as_str(), value.text()) {
                ("as" | "either", Some(name)) => drop(found.entry(name.to_owned()).or_insert(value.span)),
                ("do", _) => collect_bound_names(value, found),
                (name, _) if name.ends_with(" one of") => collect_bound_names(value, found),
                _ => {}
            }
        }
    }
}

impl<'a> ScenarioParser<'a> {
    pub(super) fn bind_name(&mut self, name: &str, at: Option<Span>, origin: NameOrigin) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.names.insert(name.to_owned(), NameBinding { at, origin });
            scope.shapes.remove(name);
        }
    }

    pub(super) fn find_binding(&self, name: &str) -> Option<NameBinding> {
        for scope in self.scopes.iter().rev() {
            if let Some(bound) = scope.names.get(name) {
                return Some(*bound);
            }
            if scope.isolated {
                return None;
            }
        }
        None
    }

    pub(super) fn is_in_scope(&self, name: &str) -> bool {
        self.find_binding(name).is_some()
    }

    /// Parses a name to be bound; `None` after an error.
    pub(super) fn parse_free_name(&mut self, node: &SyntaxNode) -> Option<String> {
        let Some(name) = node.text().filter(|name| is_identifier(name)) else {
            self.error(node.span, "this is not a name", IDENTIFIER_HELP);
            return None;
        };
        self.check_name_is_free(name, node.span);
        Some(name.to_owned())
    }

    pub(super) fn check_name_is_free(&mut self, name: &str, span: Span) {
        if let Some(bound) = self.find_binding(name) {
            let error = Diagnostic::error(span, format!("`{name}` is already bound"))
                .help("a name can be bound only once; choose another");
            self.diagnostics.push(match bound.at {
                Some(at) => error.also(at, "first bound here"),
                None => error,
            });
        } else if is_reserved(name) {
            self.error(span, format!("`{name}` is a reserved name"), "choose another name");
        } else if !self.scopes.iter().any(|scope| scope.isolated) && self.find_actors(name).is_some() {
            self.error(span, format!("`{name}` is already an actor"), "choose another name");
        }
    }

    /// Checks the name of an actor, which is used in heads and in expressions.
    pub(super) fn check_actor_name(&mut self, key: &NodeKey) {
        let name = key.name.as_str();
        if is_reserved(name) || is_verb_word(name) {
            self.error(
                key.span,
                format!("an actor cannot be called `{name}`"),
                "that word is reserved; choose another name",
            );
        } else if !is_identifier(name) {
            self.error(key.span, format!("an actor cannot be called `{name}`"), IDENTIFIER_HELP);
        }
    }

    /// Parses a mapping of values that are evaluated from top to bottom: `let`, `given`.
    pub(super) fn parse_values(&mut self, entries: &[(NodeKey, SyntaxNode)]) -> Vec<(String, Template)> {
        let mut values = Vec::new();
        for (key, node) in entries {
            let template = self.parse_template(node);
            if is_identifier(&key.name) {
                self.check_name_is_free(&key.name, key.span);
            } else {
                self.error(key.span, "this is not a name", IDENTIFIER_HELP);
            }
            self.bind_name(&key.name, Some(key.span), NameOrigin::Computed);
            if self.place == StepPlace::Scenario {
                self.bind_shape(&key.name, ValueShape::of_template(&template));
            }
            values.push((key.name.clone(), template));
        }
        values
    }

    /// Parses a reference to a name bound by `as`.
    pub(super) fn parse_bound_name(&mut self, node: &SyntaxNode, option: &str) -> Option<String> {
        let Some(name) = node.text() else {
            let help = format!("write `{option}: NAME` with a name bound by `as`");
            self.diagnostics.push(wrong_kind(node, &format!("`{option}`"), "a name", &help));
            return None;
        };
        if self.is_in_scope(name) {
            return Some(name.to_owned());
        }
        let help = format!("`{option}` takes a name bound by `as`");
        if self.find_actors(name).is_some() {
            self.error(node.span, format!("`{name}` is an actor"), help);
        } else {
            self.report_unknown_name(name, node.span, Vec::new(), &help);
        }
        None
    }

    /// Reports a name that is not in scope. `others` are names to suggest besides those in scope.
    fn report_unknown_name(&mut self, name: &str, span: Span, others: Vec<String>, help: &str) {
        let outside = matches!(self.place, StepPlace::Scenario | StepPlace::Finally);
        if let Some(at) = self.later.get(name).filter(|_| outside).copied() {
            let above = at.file == span.file && at.range().start < span.range().start;
            if above && has_errors(&self.diagnostics) {
                // The step that binds the name has a mistake, which is reported.
                return;
            }
            self.diagnostics.push(
                Diagnostic::error(span, format!("`{name}` is not bound yet"))
                    .also(at, "it is bound here")
                    .help("steps and values are evaluated from top to bottom; move the binding above this use"),
            );
            return;
        }
        let mut known = others;
        for scope in self.scopes.iter().rev() {
            known.extend(scope.names.keys().cloned());
            if scope.isolated {
                break;
            }
        }
        let help = suggest(name, known.iter().map(String::as_str).collect::<Vec<_>>(), help);
        self.error(span, format!("no name `{name}` is in scope"), help);
    }

    /// Parses a value of a file, and checks its names.
    pub(super) fn parse_template(&mut self, node: &SyntaxNode) -> Template {
        let mut diagnostics = Vec::new();
        let template = Template::from_node(node, &mut diagnostics);
        self.diagnostics.append(&mut diagnostics);
        let mut used = Vec::new();
        template.visit_expressions(&mut |expression| {
            used.extend(expression.uses.iter().map(|name| NameUse::in_expression(name, expression)));
        });
        let before = self.diagnostics.len();
        for name in used {
            self.check_name(&name);
        }
        if self.diagnostics.len() == before {
            template.visit_expressions(&mut |expression| self.check_members(expression));
        }
        template
    }

    fn check_name(&mut self, used: &NameUse) {
        let mut pieces = used.dotted.split('.');
        let root = pieces.next().unwrap_or_default();
        let member = pieces.next();
        if self.is_in_scope(root) {
            return;
        }
        if functions::FUNCTION_NAMES.contains(&root) || ENGINE_FUNCTIONS.contains(&root) {
            if used.bare {
                self.error(used.root, format!("`{root}` is a function"), format!("call it: write `${{{root}(...)}}`"));
            }
            return;
        }
        match root {
            "hub" => {
                // The settings that `jwt()` uses besides the key are optional.
                let declared = |name: &str| self.file.shared.settings.contains_key(name);
                if used.implied && member.is_some_and(|name| name != JWT_SECRET && !declared(name)) {
                    return;
                }
                if let Some(setting) = self.find_setting(used)
                    && !setting.optional
                    && setting.default.is_none()
                    && !used.asks
                {
                    let name = member.unwrap_or_default();
                    if !self.needs.iter().any(|need| matches!(need, Need::Setting(known) if known == name)) {
                        self.needs.push(Need::Setting(name.to_owned()));
                    }
                }
                return;
            }
            "self" => {
                if let (Some(role), Some(member)) = (self.myself.clone(), member) {
                    self.check_member(&role, member, used);
                }
                return;
            }
            _ => {}
        }
        if let Some(members) = self.find_actors(root) {
            let role = self.actors.get(members.first().copied().unwrap_or_default()).map(|actor| actor.role.clone());
            if let (Some(role), Some(member)) = (role, member)
                && !self.groups.contains_key(root)
            {
                self.check_member(&role, member, used);
            }
            return;
        }
        // Without the scenario that plays it, the other actors of a scene are not known.
        if self.any_actor && member.is_some() {
            return;
        }
        let actors = self.actors.iter().map(|actor| actor.name.clone());
        let others = actors.chain(functions::FUNCTION_NAMES.iter().map(|name| (*name).to_owned())).collect();
        self.report_unknown_name(root, used.root, others, "names come from `let`, `as`, `each`, actors and `hub`");
    }

    /// Returns the setting that `hub.NAME` refers to.
    pub(super) fn find_setting(&mut self, used: &NameUse) -> Option<&'a SettingDeclaration> {
        let file = self.file;
        let known: Vec<&str> = file.shared.settings.keys().map(String::as_str).collect();
        let Some(name) = used.dotted.split('.').nth(1) else {
            self.error(used.root, "`hub` stands for all settings, not for one", "write `hub.NAME`");
            return None;
        };
        let setting = file.shared.settings.get(name);
        if setting.is_none() {
            let help = suggest(name, known, "settings are declared under `hub` in shared.yaml");
            self.error(used.member, format!("{} has no setting `{name}`", self.pack.name), help);
        }
        setting
    }

    fn check_member(&mut self, role: &str, member: &str, used: &NameUse) {
        let Some(role) = self.roles.get(role) else { return };
        let mut known: Vec<String> =
            role.given.iter().map(|(name, _)| name.clone()).chain(role.binds.iter().cloned()).collect();
        known.push("url".to_owned());
        // While the role's own opening is parsed, the names that it binds are in scope instead.
        if known.iter().any(|name| name == member) || self.is_in_scope(member) {
            return;
        }
        let help = suggest(member, known.iter().map(String::as_str).collect::<Vec<_>>(), "");
        self.error(
            used.member,
            format!("`{}`: the name is neither `given` to the role nor bound in its opening", used.dotted),
            help,
        );
    }
}

/// A name that an expression uses.
pub struct NameUse {
    pub dotted: String,
    /// The span of the first piece of the name.
    pub root: Span,
    /// The span of the second piece of the name.
    member: Span,
    /// Whether the expression tests if the name is defined, so that it may be undefined.
    asks: bool,
    /// Whether the expression consists of this name only.
    bare: bool,
    /// Whether the name is used only by a function that the expression calls.
    implied: bool,
}

impl NameUse {
    pub fn in_expression(dotted: &str, expression: &TemplateExpression) -> Self {
        let implied = expression.implies(dotted);
        // An expression that tests for the key need not test for the other settings that `jwt()` uses.
        let asked = if implied { &format!("hub.{JWT_SECRET}") } else { dotted };
        Self {
            dotted: dotted.to_owned(),
            root: expression.place(dotted, 0),
            member: expression.place(dotted, 1),
            asks: expression.asks(asked),
            bare: expression.bare_name().is_some(),
            implied,
        }
    }
}
