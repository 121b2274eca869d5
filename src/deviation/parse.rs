//! Parses `[[deviation]]` entries and checks them against the pack.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::json_form::replace_json_forms;
use super::proposal::absence_entry;
use super::upgrade::ROLE_MEMBER;
use super::{Absence, AbsenceTrigger, Deviation, DeviationChange, Deviations, FreshMembers, UpgradeChange, place};
use crate::protocol::{MessageDirections, MessageType, Pack, Rule, RulePlace};
use crate::scenario::SharedDefinitions;
use crate::scenario::model::{ExpectedCodes, RuleUse};
use crate::scenario::template::Template;
use crate::syntax::diagnostic::{Diagnostic, suggest, suggest_or_list};
use crate::syntax::fields::{Table, choice, entries, flag, list, mapping, table, text, text_or_blank};
use crate::syntax::grammar::FileFormat;
use crate::syntax::matcher::Matcher;
use crate::syntax::source::Span;
use crate::syntax::yaml::{NodeKey, NodeKind, SyntaxNode};

/// The keys that say what is different, each with the other keys of its kind. `from_hub` and `to_hub` are one kind.
const KIND_KEYS: [(&str, &[&str]); 11] = [
    ("instead", &["message", "direction"]),
    ("spelled", &["message", "member", "value", "direction"]),
    ("renamed", &["message", "member", "direction"]),
    ("missing", &["message", "member", "assume", "direction"]),
    ("added", &["message", "member", "direction"]),
    ("from_hub", &["message", "member", "to_hub"]),
    ("to_hub", &["message", "member", "from_hub"]),
    ("absent", &["message", "after", "where", "assume"]),
    ("closes", &["message", "after", "where"]),
    ("upgrade", &[]),
    ("setting", &["value"]),
];
const CHANGE_HELP: &str = "say what is different: instead, spelled, renamed, missing, added, from_hub, to_hub, absent, \
    closes, upgrade or setting";
/// The value of `after` for a message that follows the connection itself.
pub(super) const AFTER_CONNECTION: &str = "connection";

fn entry_keys() -> Vec<&'static str> {
    FileFormat::Target.keys("/$defs/deviation")
}

impl Deviations {
    /// Parses the entries of a target file, or entries that hubproof assumes itself (`assumed`).
    ///
    /// # Errors
    ///
    /// All mistakes, each with its place.
    pub fn parse(
        nodes: &[SyntaxNode],
        pack: &Pack,
        shared: &SharedDefinitions,
        assumed: bool,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut parser = DeviationParser { pack, shared, errors: Vec::new() };
        let entries = nodes.iter().filter_map(|node| parser.parse_entry(node, assumed).map(Arc::new)).collect();
        if parser.errors.is_empty() { Ok(Self::new(entries)) } else { Err(parser.errors) }
    }

    /// Returns these entries followed by the entries of `others`.
    #[must_use]
    pub fn chain(&self, others: Self) -> Self {
        Self::new(self.entries.iter().cloned().chain(others.entries).collect())
    }
}

struct DeviationParser<'a> {
    pack: &'a Pack,
    shared: &'a SharedDefinitions,
    errors: Vec<Diagnostic>,
}

impl DeviationParser<'_> {
    fn report_error<T>(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) -> Option<T> {
        self.errors.push(Diagnostic::error(span, message).help(help));
        None
    }

    fn parse_entry(&mut self, node: &SyntaxNode, assumed: bool) -> Option<Deviation> {
        let before = self.errors.len();
        let node = &replace_json_forms(node, !assumed, &mut self.errors);
        let entry = table(node, &entry_keys(), "a deviation", &mut self.errors);
        let reason = entry.required("reason", "reports show it: reason = \"...\"", &mut self.errors);
        let reason = text(reason, "`reason`", &mut self.errors).map(str::to_owned);
        let Some((kind, others)) = KIND_KEYS.iter().find(|(name, _)| node.get(name).is_some()) else {
            return self.report_error(node.span, "this deviation does not say what is different", CHANGE_HELP);
        };
        for (key, _) in entries(Some(node)) {
            let fits = [*kind, "reason", "rules"].contains(&key.name.as_str()) || others.contains(&key.name.as_str());
            if !fits && entry_keys().contains(&key.name.as_str()) {
                let help = "one entry says one thing: make it two, or remove this key";
                self.report_error::<()>(key.span, format!("`{}` does not go with `{kind}`", key.name), help);
            }
        }
        let change = self.parse_change(kind, &entry)?;
        let way = self.parse_directions(node, &change);
        let mut rules = self.parse_rules(node);
        if let (DeviationChange::Setting { setting, .. }, true) = (&change, rules.is_empty()) {
            rules = self.rules_of_setting(setting);
        }
        let span = (!assumed).then_some(node.span);
        (self.errors.len() == before).then_some(())?;
        Some(Deviation { reason: reason?, rules, span, entry: node.to_json(), change, way: way? })
    }

    fn parse_change(&mut self, kind: &str, entry: &Table<'_>) -> Option<DeviationChange> {
        let node = entry.node;
        let message = match kind {
            "absent" if node.get(kind).is_some_and(|absent| absent.list().is_some()) => None,
            "instead" | "absent" | "closes" => {
                entry.required("message", "name a message of the pack: message = \"NAME\"", &mut self.errors)
            }
            _ => node.get("message"),
        };
        let message = message.map(|named| self.parse_message(named).ok_or(())).transpose().ok()?;
        let value = node.get(kind)?;
        Some(match kind {
            "instead" => {
                mapping(Some(value), "`instead`", "instead = { type = \"WELCOME\" }", &mut self.errors);
                let Value::Object(like) = value.to_json() else { return None };
                DeviationChange::Instead { message: message?, like }
            }
            "spelled" => {
                let help = "write value = what the document has, spelled = what the hub has";
                let documented = entry.required("value", help, &mut self.errors)?;
                let member = self.parse_member(entry)?;
                DeviationChange::Spelled { message, member, value: documented.to_json(), spelled: value.to_json() }
            }
            "renamed" => {
                let (member, renamed) = (self.parse_inner_member(kind, entry)?, self.parse_pointer(value)?);
                if place::split_at_innermost_list(&member).0 != place::split_at_innermost_list(&renamed).0 {
                    let help = "renamed = \"/LIST/*/OTHER\" belongs to member = \"/LIST/*/NAME\"";
                    return self.report_error(value.span, "both places must be in the same list", help);
                }
                DeviationChange::Renamed { message, member, renamed }
            }
            "missing" => {
                self.parse_true(value)?;
                let assume = node.get("assume").map(|node| self.parse_template(node, &["message"])).transpose().ok()?;
                let assume = assume.map(Arc::new);
                DeviationChange::Missing { message, member: self.parse_inner_member(kind, entry)?, assume }
            }
            "added" => DeviationChange::Added {
                message,
                member: self.parse_inner_member(kind, entry)?,
                added: value.to_json(),
            },
            "from_hub" | "to_hub" => {
                let member = self.parse_member(entry)?;
                let mut conversion = |key| {
                    let template = node.get(key).map(|node| self.parse_template(node, &["value", "message"]));
                    template.transpose().map(|template| template.map(Arc::new))
                };
                let (from_hub, to_hub) = (conversion("from_hub").ok()?, conversion("to_hub").ok()?);
                DeviationChange::Converted { message, member, from_hub, to_hub }
            }
            "absent" => match value.list() {
                Some(names) => self.parse_absent_replies(names, node)?,
                None => self.parse_absence(value, message?, node)?,
            },
            "closes" => {
                let codes = self.parse_codes(value)?;
                let message = self.parse_message_of_hub(message?, node)?;
                let after = self.parse_trigger(node).transpose().ok()?;
                let when = self.parse_request_pattern(node).transpose().ok()?;
                DeviationChange::Closes { message, codes, after, when }
            }
            "upgrade" => self.parse_upgrade(value)?,
            _ => self.parse_size(value, entry)?,
        })
    }

    /// Reads a message that the hub never sends, or does not send after a trigger.
    fn parse_absence(&mut self, value: &SyntaxNode, message: usize, node: &SyntaxNode) -> Option<DeviationChange> {
        self.parse_true(value)?;
        let message = self.parse_message_of_hub(message, node)?;
        let Some(after) = self.parse_trigger(node).transpose().ok()? else {
            return Some(DeviationChange::NeverSent { message });
        };
        let nothing = SyntaxNode { span: node.span, kind: NodeKind::Map(Vec::new()) };
        let assume = node.get("assume").unwrap_or(&nothing);
        let assume = Arc::new(self.parse_template(assume, &["request"]).ok()?);
        let when = self.parse_request_pattern(node).transpose().ok()?;
        let fresh = FreshMembers::of(&self.pack.messages[message], &assume);
        let absences = vec![Absence { message, after, when, assume, fresh }];
        Some(DeviationChange::Absent { absences })
    }

    /// Reads a list of replies that the hub never sends, whatever request they answer.
    fn parse_absent_replies(&mut self, names: &[SyntaxNode], entry: &SyntaxNode) -> Option<DeviationChange> {
        for (key, _) in entries(Some(entry)) {
            if ["message", "after", "where", "assume"].contains(&key.name.as_str()) {
                let help =
                    "a list names replies of all requests; for a single one, write message = \"NAME\", absent = true";
                self.report_error::<()>(key.span, format!("`{}` does not go with a list of messages", key.name), help);
            }
        }
        if names.is_empty() {
            return self.report_error(entry.span, "`absent` names no message", "absent = [\"NAME\", \"OTHER\"]");
        }
        let mut absences = Vec::new();
        for node in names {
            let message = self.parse_message(node)?;
            let message = self.parse_message_of_hub(message, node)?;
            let name = &self.pack.messages[message].name;
            let requests = (0..self.pack.messages.len()).filter(|one| self.pack.messages[*one].replies.contains(name));
            let of_message = absences.len();
            for request in requests.collect::<Vec<_>>() {
                let after = AbsenceTrigger::Message(request);
                let assumed = absence_entry(self.pack, message, after).remove("assume").unwrap_or_else(|| json!({}));
                let assumed = SyntaxNode::from_json(&assumed, node.span);
                let assume = Arc::new(self.parse_template(&assumed, &["request"]).ok()?);
                let fresh = FreshMembers::of(&self.pack.messages[message], &assume);
                absences.push(Absence { message, after, when: None, assume, fresh });
            }
            if absences.len() == of_message {
                let help =
                    "declare it alone: message = \"NAME\", absent = true, with `after` if something should cause it";
                return self.report_error(node.span, format!("`{name}` is not a documented reply"), help);
            }
        }
        Some(DeviationChange::Absent { absences })
    }

    /// Reads another value of a setting of the protocol.
    fn parse_size(&mut self, value: &SyntaxNode, entry: &Table<'_>) -> Option<DeviationChange> {
        let setting = text(Some(value), "`setting`", &mut self.errors)?.to_owned();
        if !self.shared.settings.contains_key(&setting) {
            let known = self.shared.settings.keys().map(String::as_str);
            let help = suggest(&setting, known, "`hubproof check --list` lists the settings of the protocol");
            return self.report_error(value.span, format!("there is no setting `{setting}`"), help);
        }
        let value = entry.required("value", "write value = the size that this hub has", &mut self.errors)?;
        Some(DeviationChange::Setting { setting, value: value.to_json() })
    }

    /// Returns the message that a hub does not send.
    fn parse_message_of_hub(&mut self, message: usize, entry: &SyntaxNode) -> Option<usize> {
        let named = &self.pack.messages[message];
        if named.directions.from_hub {
            return Some(message);
        }
        let what = format!("`{}` is not sent by a hub", named.name);
        self.report_error(entry.span, what, "only what a hub should send can be missing")
    }

    /// Returns the event after which the message should have come; `None` if the entry names none.
    fn parse_trigger(&mut self, entry: &SyntaxNode) -> Option<Result<AbsenceTrigger, ()>> {
        let Some(after) = entry.get("after") else {
            // Without the request there is nothing to compare, and nothing to take values from.
            for key in ["where", "assume"] {
                if let Some(node) = entry.get(key) {
                    let help = "write after = \"connection\", or the message that it answers";
                    self.report_error::<()>(node.span, format!("`{key}` needs `after`"), help);
                }
            }
            return None;
        };
        if after.text() == Some(AFTER_CONNECTION) {
            return Some(Ok(AbsenceTrigger::Connection));
        }
        Some(self.parse_message(after).map(AbsenceTrigger::Message).ok_or(()))
    }

    fn parse_request_pattern(&mut self, entry: &SyntaxNode) -> Option<Result<Matcher, ()>> {
        let node = entry.get("where")?;
        let compiled = Matcher::compile(&node.to_json()).map_err(|error| {
            let message = format!("`{}`: {error}", error.key);
            self.report_error::<()>(node.span, message, "where = { posted = false }");
        });
        Some(compiled)
    }

    /// Returns the hub's close codes: `true` stands for any code, or none.
    fn parse_codes(&mut self, node: &SyntaxNode) -> Option<ExpectedCodes> {
        if let NodeKind::Bool(true) = node.kind {
            return Some(ExpectedCodes { any: true, drop: true, codes: Vec::new() });
        }
        let items = node.list().unwrap_or(std::slice::from_ref(node));
        let code = |item: &SyntaxNode| item.integer().and_then(|code| u16::try_from(code).ok());
        let codes: Option<Vec<u16>> = items.iter().map(code).collect();
        match codes.filter(|codes| !codes.is_empty()) {
            Some(codes) => Some(ExpectedCodes { codes, ..ExpectedCodes::default() }),
            None => {
                let help = "write true for any code, a code such as 1008, or a list of codes";
                self.report_error(node.span, "`closes` is not a close code", help)
            }
        }
    }

    fn parse_upgrade(&mut self, node: &SyntaxNode) -> Option<DeviationChange> {
        table(node, &FileFormat::Target.keys("/$defs/deviation/properties/upgrade"), "`upgrade`", &mut self.errors);
        let changes = ["path", "headers", "query", "subprotocols"];
        if node.map().is_some() && !changes.iter().any(|key| node.get(key).is_some()) {
            let help = "write upgrade = { headers = { X-Api-Key = \"...\" } }";
            return self.report_error(node.span, "`upgrade` changes nothing", help);
        }
        let (headers, query) = (self.parse_pairs(node, "headers"), self.parse_pairs(node, "query"));
        let path = node.get("path").and_then(|path| {
            text(Some(path), "`path`", &mut self.errors)?;
            self.parse_upgrade_value(path)
        });
        let listed = list(node.get("subprotocols"), "`subprotocols`", "subprotocols = [\"NAME\"]", &mut self.errors);
        let subprotocols = listed
            .iter()
            .filter_map(|item| {
                let written = text(Some(item), "a subprotocol", &mut self.errors)?.to_owned();
                Some((written, self.parse_upgrade_value(item)?))
            })
            .collect();
        let role = node.get("role").and_then(|role| self.parse_role(role));
        let everyone = flag(node.get("everyone"), "`everyone`", &mut self.errors);
        Some(DeviationChange::Upgrade(UpgradeChange { role, everyone, path, headers, query, subprotocols }))
    }

    fn parse_pairs(&mut self, upgrade: &SyntaxNode, name: &str) -> Vec<(String, Template)> {
        let (what, example) = (format!("`{name}`"), format!("{name} = {{ NAME = \"...\" }}"));
        let pairs = mapping(upgrade.get(name), &what, &example, &mut self.errors);
        let pair = |(key, value): &(NodeKey, SyntaxNode)| {
            text_or_blank(Some(value), &format!("`{}`", key.name), &mut self.errors)?;
            Some((key.name.clone(), self.parse_upgrade_value(value)?))
        };
        pairs.iter().filter_map(pair).collect()
    }

    /// Parses a value of the upgrade: it may use values that some role gives to its clients, and settings.
    fn parse_upgrade_value(&mut self, node: &SyntaxNode) -> Option<Template> {
        let before = self.errors.len();
        let value = self.parse_template(node, &["self", "hub"]).ok()?;
        let shared = self.shared;
        let own: BTreeSet<&str> = shared.roles.values().flatten().map(String::as_str).chain([ROLE_MEMBER]).collect();
        let settings: BTreeSet<&str> = shared.settings.keys().map(String::as_str).collect();
        value.visit_expressions(&mut |expression| {
            for used in &expression.uses {
                let mut pieces = used.split('.');
                let (what, known) = match pieces.next() {
                    Some("self") => ("no role gives its clients a value", &own),
                    Some("hub") => ("there is no setting", &settings),
                    _ => continue,
                };
                let unknown = pieces.next().filter(|name| !known.contains(name));
                if let Some(name) = unknown {
                    let help = suggest_or_list(name, known.iter().copied(), "known are");
                    let place = expression.place(used, 1);
                    self.report_error::<()>(place, format!("{what} `{name}`"), help);
                }
            }
        });
        (self.errors.len() == before).then_some(value)
    }

    fn parse_role(&mut self, node: &SyntaxNode) -> Option<String> {
        let name = text(Some(node), "`role`", &mut self.errors)?;
        if !self.shared.roles.contains_key(name) {
            let known = self.shared.roles.keys().map(String::as_str);
            let help = suggest_or_list(name, known, "the roles are");
            return self.report_error(node.span, format!("{} has no role `{name}`", self.pack.name), help);
        }
        Some(name.to_owned())
    }

    fn parse_directions(&mut self, node: &SyntaxNode, change: &DeviationChange) -> Option<MessageDirections> {
        let (to_hub, from_hub) = match change {
            DeviationChange::Converted { from_hub, to_hub, .. } => (to_hub.is_some(), from_hub.is_some()),
            DeviationChange::Absent { .. } | DeviationChange::NeverSent { .. } | DeviationChange::Closes { .. } => {
                (false, true)
            }
            _ => (true, true),
        };
        let Some(direction) = node.get("direction") else {
            return Some(MessageDirections { to_hub, from_hub, ..MessageDirections::default() });
        };
        let words = [("to-hub", (true, false)), ("from-hub", (false, true))];
        let (to_hub, from_hub) = choice(Some(direction), "`direction`", &words, &mut self.errors)?;
        Some(MessageDirections { to_hub, from_hub, ..MessageDirections::default() })
    }

    fn parse_rules(&mut self, node: &SyntaxNode) -> Vec<RuleUse> {
        let mut rules = Vec::new();
        for item in list(node.get("rules"), "`rules`", "rules = [\"ABC-001\"]", &mut self.errors) {
            let Some(id) = text(Some(item), "a rule", &mut self.errors) else { continue };
            match self.pack.rules.get(id) {
                Some(rule) => rules.push(rule_use(rule)),
                None => {
                    let known = self.pack.rules.keys().map(String::as_str);
                    let otherwise = format!("`hubproof packs show {} --rules` lists them", self.pack.name);
                    let help = suggest(id, known, &otherwise);
                    self.report_error::<()>(item.span, format!("there is no rule {id}"), help);
                }
            }
        }
        rules
    }

    /// Returns the rules in the line of the document that states the default of a setting.
    fn rules_of_setting(&self, setting: &str) -> Vec<RuleUse> {
        let line = self.shared.settings.get(setting).and_then(|setting| setting.line);
        let there = |rule: &&Rule| line.is_some_and(|line| rule.place == RulePlace::Line(line));
        self.pack.rules.values().filter(there).map(rule_use).collect()
    }

    fn parse_message(&mut self, node: &SyntaxNode) -> Option<usize> {
        let name = text(Some(node), "the name of a message", &mut self.errors)?;
        let found = self.pack.messages.iter().position(|message| message.name == name);
        found.or_else(|| {
            let known = self.pack.messages.iter().map(|message: &MessageType| message.name.as_str());
            let otherwise = format!("`hubproof packs show {}` lists the messages", self.pack.name);
            let help = suggest(name, known.collect::<Vec<_>>(), &otherwise);
            self.report_error(node.span, format!("{} has no message `{name}`", self.pack.name), help)
        })
    }

    fn parse_member(&mut self, entry: &Table<'_>) -> Option<String> {
        let member = entry.required("member", "write a JSON pointer: member = \"/type\"", &mut self.errors)?;
        self.parse_pointer(member)
    }

    /// Returns the place of a member that is added, missing or renamed, but not of whole list items.
    fn parse_inner_member(&mut self, kind: &str, entry: &Table<'_>) -> Option<String> {
        let member = self.parse_member(entry)?;
        if member.ends_with("/*") {
            let message = format!("`{member}` means every item of the list, and `{kind}` is about a member");
            let span = entry.node.at_pointer("/member").span;
            return self.report_error(span, message, format!("name a member of the items: \"{member}/NAME\""));
        }
        Some(member)
    }

    fn parse_pointer(&mut self, node: &SyntaxNode) -> Option<String> {
        let text = text(Some(node), "the place of a member", &mut self.errors)?.to_owned();
        if text.len() > 1 && text.starts_with('/') {
            return Some(text);
        }
        self.report_error(node.span, format!("`{text}` is not the place of a member"), format!("write \"/{text}\""))
    }

    fn parse_true(&mut self, node: &SyntaxNode) -> Option<()> {
        match node.kind {
            NodeKind::Bool(true) => Some(()),
            _ => self.report_error(node.span, "this can only be true", "write true, or remove the entry"),
        }
    }

    /// Parses a template that may use only these names.
    fn parse_template(&mut self, node: &SyntaxNode, names: &[&'static str]) -> Result<Template, ()> {
        let before = self.errors.len();
        let template = Template::from_node(node, &mut self.errors);
        let mut unknown = Vec::new();
        template.visit_expressions(&mut |expression| {
            for name in &expression.uses {
                let root = name.split('.').next().unwrap_or_default();
                if !names.contains(&root) && !crate::scenario::functions::FUNCTION_NAMES.contains(&root) {
                    unknown.push((expression.span, root.to_owned()));
                }
            }
        });
        for (span, name) in unknown {
            let help = suggest(&name, names.iter().copied(), &format!("here are {}", names.join(" and ")));
            self.report_error::<()>(span, format!("`{name}` is not known here"), help);
        }
        if self.errors.len() == before { Ok(template) } else { Err(()) }
    }
}

fn rule_use(rule: &Rule) -> RuleUse {
    RuleUse { id: rule.id.clone(), level: rule.level, basis: rule.basis, lowered: false }
}
