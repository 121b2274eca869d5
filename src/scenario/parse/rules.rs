//! Parses checks: their rules, matchers and schemas.

use std::sync::Arc;

use serde_json::Value;

use super::ScenarioParser;
use crate::protocol::schema_places::{ImpossiblePlace, PlaceStep, can_have_value, impossible_place};
use crate::protocol::{RuleBasis, RuleLevel};
use crate::scenario::model::{
    Check, CheckId, CompiledPattern, HasCheck, MatchPattern, MessageName, RuleUse, ValueTest,
};
use crate::scenario::template::{Template, TemplateExpression};
use crate::syntax::diagnostic::{Diagnostic, Severity, suggest};
use crate::syntax::fields::{entries, list, mapping, text};
use crate::syntax::json_schema;
use crate::syntax::matcher::{self, Matcher};
use crate::syntax::source::Span;
use crate::syntax::yaml::{NodeKey, NodeKind, SyntaxNode};

/// The subject of a matcher, as far as its members are known.
pub enum MatcherSubject {
    Anything,
    /// A message, in any of its forms.
    Message(String),
    /// An object that hubproof makes: its name, and its members.
    Members(&'static str, &'static [&'static str]),
}

impl MatcherSubject {
    pub const CLOSE: Self = Self::Members("a close", &["code", "reason", "clean", "after"]);
    pub const REFUSAL: Self = Self::Members("a refusal", &["status", "headers", "body"]);
    pub const END: Self = Self::Members("an end", &["reset", "reason", "after"]);
    pub const UPGRADE: Self = Self::Members("an upgrade", &["status", "headers", "subprotocol", "wrong"]);
    pub const WIRE: Self = Self::Members("a received frame", &["kind", "size", "section", "wrong"]);
    pub const CONTROL: Self = Self::Members("a control frame", &["opcode", "data", "hex", "size"]);

    pub fn from_message_name(message: &MessageName) -> Self {
        match message {
            MessageName::Named(name) => Self::Message(name.clone()),
            MessageName::Any | MessageName::Computed(_) => Self::Anything,
        }
    }
}

impl ScenarioParser<'_> {
    /// Reports rules in a place that has no checks.
    fn check_rules_allowed(&mut self, key: &str, span: Span) {
        if !self.place.takes_rules() {
            let what = format!("{} cannot have checks, so `{key}` does not belong here", self.place.name());
            self.error(span, what, format!("move `{key}` to the steps of a scenario"));
        }
    }

    pub(super) fn parse_rules(&mut self, node: Option<&SyntaxNode>) -> Vec<RuleUse> {
        let Some(node) = node else { return Vec::new() };
        self.check_rules_allowed("rules", node.span);
        let id = node.text().filter(|id| !id.contains(' ')).unwrap_or("ABC-001");
        let items = list(Some(node), "`rules`", &format!("rules: [{id}]"), &mut self.diagnostics);
        if node.is_null() || node.list().is_some_and(<[_]>::is_empty) {
            self.error(
                node.span,
                "the list of rules is empty, so it proves nothing",
                "name a rule, or leave `rules` out",
            );
        }
        let mut rules: Vec<RuleUse> = Vec::new();
        for item in items {
            if let Some(rule) = self.parse_rule_entry(item) {
                self.add_rule(&mut rules, rule, item.span);
            }
        }
        rules
    }

    fn add_rule(&mut self, rules: &mut Vec<RuleUse>, rule: RuleUse, span: Span) {
        if rules.iter().any(|known| known.id == rule.id) {
            self.error(span, format!("{} is listed twice", rule.id), "keep one of the two");
        } else {
            rules.push(rule);
        }
    }

    fn parse_rule_entry(&mut self, node: &SyntaxNode) -> Option<RuleUse> {
        let text = text(Some(node), "a rule", &mut self.diagnostics)?;
        if !text.contains("${") {
            return self.parse_rule_use(text, node.span);
        }
        let row = self.row_text(text, node.span);
        if row.is_none() {
            self.error(
                node.span,
                "a rule id must be written out, or come from a case or from a row of a literal `each`",
                "the rules that a scenario proves must be known before the run",
            );
        }
        self.parse_rule_use(&row?, node.span)
    }

    /// Returns the text to which a `${...}` leads in the constants of `let` and the enclosing literal rows.
    pub(super) fn row_text(&self, text: &str, span: Span) -> Option<String> {
        let source = text.strip_prefix("${")?.strip_suffix('}')?;
        let expression = TemplateExpression::compile(source, span, None).ok()?;
        let (root, pointer) = expression.pointer()?;
        let (_, row) = self.rows.iter().rev().find(|(name, _)| name == root)?;
        row.pointer(&pointer)?.as_str().map(str::to_owned)
    }

    fn parse_rule_use(&mut self, text: &str, span: Span) -> Option<RuleUse> {
        let (id, lowered) = match text.split_once(" as ") {
            Some((id, level)) => match RuleLevel::from_name(level.trim()) {
                Some(level) => (id.trim(), Some(level)),
                None => {
                    let help = "write `as should` or `as may` to lower the rule for this check";
                    self.error(span, format!("`{}` is not a level", level.trim()), help);
                    return None;
                }
            },
            None => (text.trim(), None),
        };
        if self.pack.rules.is_empty() {
            let level = lowered.unwrap_or(RuleLevel::Must);
            return Some(RuleUse { id: id.to_owned(), level, basis: RuleBasis::Stated, lowered: lowered.is_some() });
        }
        let Some(rule) = self.pack.rules.get(id) else {
            let help = suggest(
                id,
                self.pack.rules.keys().map(String::as_str).collect::<Vec<_>>(),
                &format!("`hubproof packs show {} --rules` lists the rules", self.pack.name),
            );
            self.error(span, format!("{} has no rule `{id}`", self.pack.name), help);
            return None;
        };
        let (level, basis) = (rule.level, rule.basis);
        match lowered {
            Some(to) if to == level => {
                self.error(span, format!("{id} is already a {}", level.name()), format!("write `{id}`"));
                None
            }
            Some(to) if to > level => {
                self.error(
                    span,
                    format!("{id} is a {} and cannot be raised to {}", level.name(), to.name()),
                    "a check can lower its rule, but not raise it",
                );
                None
            }
            Some(to) => Some(RuleUse { id: id.to_owned(), level: to, basis, lowered: true }),
            None => Some(RuleUse { id: id.to_owned(), level, basis, lowered: false }),
        }
    }

    pub(super) fn declare_check(&mut self, rules: Vec<RuleUse>, span: Span) -> CheckId {
        let mut name = rules.iter().map(|rule| rule.id.as_str()).collect::<Vec<_>>().join(",");
        let count = self.check_counts.entry(name.clone()).or_insert(0);
        *count += 1;
        if *count > 1 {
            name = format!("{name}#{count}");
        }
        self.checks.push(Check { name, rules, span });
        self.checks.len() - 1
    }

    pub(super) fn parse_has(&mut self, node: Option<&SyntaxNode>, subject: &MatcherSubject) -> Vec<HasCheck> {
        let Some(node) = node else { return Vec::new() };
        self.check_rules_allowed("has", node.span);
        let example = "write `has: { ABC-001: { priority: 90 } }`";
        let entries = mapping(Some(node), "`has`", "has: { ABC-001: { priority: 90 } }", &mut self.diagnostics);
        if node.is_null() || node.map().is_some_and(<[_]>::is_empty) {
            self.error(node.span, "`has` is empty, so it checks nothing", example);
        }
        entries.iter().filter_map(|(key, node)| self.parse_has_line(key, node, subject)).collect()
    }

    fn parse_has_line(&mut self, key: &NodeKey, node: &SyntaxNode, subject: &MatcherSubject) -> Option<HasCheck> {
        if key.name.contains("${") {
            self.error(
                key.span,
                "a key cannot contain an expression",
                "write the rule out; only `rules` can take it from a case or from a row of a literal `each`",
            );
            return None;
        }
        // Several rules may share one line: "ABC-001, ABC-002".
        let mut rules = Vec::new();
        for text in key.name.split(',') {
            if let Some(rule) = self.parse_rule_use(text, super::actors::key_part_span(key, text.trim())) {
                self.add_rule(&mut rules, rule, key.span);
            }
        }
        if node.map().is_some_and(<[_]>::is_empty) || node.is_null() {
            self.error(
                key.span,
                format!("there is no condition for {}", key.name),
                "write what must be true; to check only that it was received, `rules` is enough",
            );
            return None;
        }
        let pattern = self.parse_demand(node, subject);
        let check = self.declare_check(rules, key.span);
        Some(HasCheck { check, pattern })
    }

    /// Parses a matcher that need not match anything, and warns about undocumented members.
    pub(super) fn parse_pattern(&mut self, node: &SyntaxNode, subject: &MatcherSubject) -> MatchPattern {
        self.parse_matcher(node, subject, false)
    }

    /// Parses a matcher that a correct hub must meet. A condition that no valid message can meet is an error.
    pub(super) fn parse_demand(&mut self, node: &SyntaxNode, subject: &MatcherSubject) -> MatchPattern {
        self.parse_matcher(node, subject, true)
    }

    fn parse_matcher(&mut self, node: &SyntaxNode, subject: &MatcherSubject, demanded: bool) -> MatchPattern {
        let template = self.parse_template(node);
        let ready = template.constant().and_then(|value| Matcher::compile(value).ok());
        // Looking for mistakes compiles regular expressions again, and a compiled matcher has none.
        let mistakes = if ready.is_some() { Vec::new() } else { matcher::find_matcher_mistakes(&node.to_json()) };
        if mistakes.is_empty() {
            self.check_documented(node, subject, demanded);
        }
        self.diagnostics.extend(mistakes.into_iter().map(|mistake| mistake.into_diagnostic(node)));
        let ready = ready.map(|matcher| CompiledPattern::Matcher(Arc::new(matcher)));
        MatchPattern { template, ready, schema: false, span: node.span }
    }

    /// Parses `equals`, `fits`, or neither.
    pub(super) fn parse_test(&mut self, equals: Option<&SyntaxNode>, fits: Option<&SyntaxNode>) -> ValueTest {
        let Some(fits) = fits else {
            return equals.map_or(ValueTest::True, |equals| ValueTest::Equals(self.parse_template(equals)));
        };
        if equals.is_some() {
            self.error(fits.span, "`equals` or `fits`, not both", "write a second `check` for the other one");
            return ValueTest::True;
        }
        let template = self.parse_template(fits);
        let mistakes = json_schema::find_schema_mistakes(&fits.to_json(), &["like"]);
        self.diagnostics.extend(mistakes.into_iter().map(|mistake| mistake.into_diagnostic(fits)));
        let ready = template.constant().and_then(|schema| json_schema::build_validator(schema).ok());
        let ready = ready.map(|validator| CompiledPattern::Schema(Box::new(validator)));
        ValueTest::Fits(MatchPattern { template, ready, schema: true, span: fits.span })
    }

    /// Parses the text that a failed check shows.
    pub(super) fn parse_says(&mut self, node: Option<&SyntaxNode>) -> Option<Template> {
        let node = node?;
        let says = self.template_of(node, Value::is_string, "`says`", "text", "says: what is wrong");
        if says.constant().and_then(Value::as_str).is_some_and(|text| text.trim().is_empty()) {
            self.error(node.span, "`says` is empty", "write what a failure means, or leave `says` out");
        }
        Some(says)
    }

    /// Parses the value of a `check`, which must not be constant.
    pub(super) fn parse_checked_value(&mut self, node: &SyntaxNode) -> Template {
        let template = self.parse_template(node);
        if let Some(constant) = template.constant()
            && !constant.as_str().is_some_and(|text| text.contains("${"))
        {
            let help = match node.text() {
                Some(text) => format!("names are only looked up inside `${{}}`: write `check: \"${{{text}}}\"`"),
                None => "write `check: \"${...}\"`".to_owned(),
            };
            self.error(node.span, "this value is constant, so the check proves nothing", help);
        }
        template
    }

    // ---- undocumented members

    fn check_documented(&mut self, matcher: &SyntaxNode, subject: &MatcherSubject, demanded: bool) {
        for MatchedPlace { path, span, value, optional } in matched_places(matcher) {
            if path.iter().any(|name| name.contains("${")) {
                continue;
            }
            match subject {
                MatcherSubject::Anything => {}
                MatcherSubject::Members(what, known) => {
                    let first = path.first().map_or("", String::as_str);
                    if !known.contains(&first) {
                        self.diagnostics.push(
                            Diagnostic::warning(span, format!("{what} has no member `{first}`")).help(suggest(
                                first,
                                known.iter().copied(),
                                &format!("it has {}", known.join(", ")),
                            )),
                        );
                    }
                }
                MatcherSubject::Message(name) => {
                    let severity = if demanded && !optional { Severity::Error } else { Severity::Warning };
                    self.check_received_place(name, &path, value, span, severity);
                }
            }
        }
    }

    /// Reports a place that no valid form of a received message has, or where it never has a value. Warns if no form
    /// documents the place.
    fn check_received_place(
        &mut self,
        name: &str,
        path: &[String],
        value: Option<&SyntaxNode>,
        span: Span,
        severity: Severity,
    ) {
        let pack = self.pack;
        let Some(message) = pack.message(name) else { return };
        let schemas: Vec<&Value> = pack.forms_of(message).map(|form| &form.schema.source).collect();
        let steps = PlaceStep::names(path.iter().map(String::as_str));
        let (what, at) = match impossible_place(&schemas, &steps) {
            Some(found) => (describe_impossible(name, path, &found), span),
            None => {
                let is_scalar = |node: &&SyntaxNode| !matches!(node.kind, NodeKind::Map(_) | NodeKind::List(_));
                let is_forbidden = |json: &Value| {
                    !json_schema::has_expressions(json)
                        && !schemas.iter().any(|schema| can_have_value(schema, &steps, json))
                };
                let value = value.filter(is_scalar).map(|node| (node, node.to_json()));
                let Some((node, json)) = value.filter(|(_, json)| is_forbidden(json)) else {
                    return self.warn_unless_documented(name, path, span, true);
                };
                (format!("the schema of `{name}` does not allow {json} at `{}`", join_pointer(path)), node.span)
            }
        };
        let help = format!("no valid `{name}` matches this; correct the condition, or the schema");
        self.diagnostics.push(Diagnostic { severity, ..Diagnostic::error(at, what).help(help) });
    }

    /// Reports a place that a message to send cannot have. Warns if no form of the message documents it.
    pub(super) fn check_sent_place(&mut self, name: &str, path: &[String], span: Span) {
        let Some(message) = self.pack.message(name) else { return };
        let steps = PlaceStep::names(path.iter().map(String::as_str));
        match impossible_place(&[&message.schema.source], &steps) {
            Some(found) => {
                let what = describe_impossible(name, path, &found);
                self.error(span, what, "add `breaks: REASON` if the message is meant to be invalid");
            }
            None => self.warn_unless_documented(name, path, span, false),
        }
    }

    /// Warns if no form of a message documents a member. For a received message, its envelope may also document it.
    fn warn_unless_documented(&mut self, name: &str, path: &[String], span: Span, received: bool) {
        let pack = self.pack;
        let Some(message) = pack.message(name) else { return };
        let forms: Vec<_> =
            pack.messages.iter().filter(|m| m.name == name || message.abstract_ || received && m.abstract_).collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        if forms.iter().any(|form| form.schema.documents_path(&path)) {
            return;
        }
        let (last, parent) = path.split_last().map_or(("", &path[..]), |(last, parent)| (*last, parent));
        let members: Vec<String> = forms.iter().flat_map(|form| form.schema.member_names(parent)).collect();
        let shown = format!("`hubproof packs show {}` lists the messages", pack.name);
        let help = suggest(last, members.iter().map(String::as_str).collect::<Vec<_>>(), &shown);
        // A name like no other is hardly misspelt.
        let only_lint = help == shown;
        let what = format!("no form of `{name}` documents a member `{}`", path.join("/"));
        self.diagnostics.push(Diagnostic { only_lint, ..Diagnostic::warning(span, what).help(help) });
    }
}

/// Returns a sentence such as "`/a` of `hello` is a string, which has no members".
fn describe_impossible(name: &str, path: &[String], found: &ImpossiblePlace) -> String {
    let inside = match found.depth {
        0 => format!("`{name}`"),
        depth => format!("`{}` of `{name}`", join_pointer(&path[..depth])),
    };
    format!("{inside} {}", found.describe(&PlaceStep::Name(path[found.depth].clone())))
}

fn join_pointer(path: &[String]) -> String {
    path.iter().map(|name| matcher::member_pointer(name)).collect()
}

/// A place that a matcher is about.
struct MatchedPlace<'n> {
    path: Vec<String>,
    span: Span,
    /// The value that the place must have.
    value: Option<&'n SyntaxNode>,
    /// Whether the place may be absent.
    optional: bool,
}

/// Returns the member paths of a `with` or a matcher, with their spans.
pub fn member_paths(node: &SyntaxNode) -> Vec<(Vec<String>, Span)> {
    all_places(node).into_iter().map(|place| (place.path, place.span)).collect()
}

fn all_places(node: &SyntaxNode) -> Vec<MatchedPlace<'_>> {
    fn walk<'n>(node: &'n SyntaxNode, path: &[String], found: &mut Vec<MatchedPlace<'n>>) {
        for (key, value) in entries(Some(node)) {
            let mut path = path.to_vec();
            // The empty pointer stands for the whole value, not for a member.
            if key.name.is_empty() {
                continue;
            }
            if let Some(pointer) = key.name.strip_prefix('/') {
                let optional = pointer.ends_with(" or absent");
                let pointer = pointer.trim_end_matches(" or absent");
                path.extend(pointer.split('/').map(crate::syntax::matcher::unescape));
                let only = value.map().filter(|keywords| keywords.len() == 1).and_then(|_| value.get("const"));
                found.push(MatchedPlace { path, span: key.span, value: only, optional });
                continue;
            }
            path.push(key.name.clone());
            match value.map() {
                Some(inner) if !inner.is_empty() => walk(value, &path, found),
                _ => found.push(MatchedPlace { path, span: key.span, value: Some(value), optional: false }),
            }
        }
    }
    let mut found = Vec::new();
    walk(node, &[], &mut found);
    found
}

/// Returns the places of a matcher, without those that must be absent.
fn matched_places(matcher: &SyntaxNode) -> Vec<MatchedPlace<'_>> {
    let denied = |span: Span| {
        entries(Some(matcher)).iter().any(|(key, value)| {
            key.span == span && matches!(value.kind, NodeKind::Bool(false)) && key.name.starts_with('/')
        })
    };
    all_places(matcher).into_iter().filter(|place| !denied(place.span)).collect()
}
