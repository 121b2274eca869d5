//! Reads `[[deviation]]` entries and checks them against the pack.

use std::sync::Arc;

use serde_json::Value;

use super::{After, Change, Deviation, Deviations, place};
use crate::protocol::{Directions, MessageType, Pack, Place, Rule};
use crate::scenario::Shared;
use crate::scenario::model::RuleUse;
use crate::scenario::template::Template;
use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::matcher::Matcher;
use crate::syntax::source::Span;
use crate::syntax::yaml::{Kind, Node};

const KEYS: [&str; 19] = [
    "reason",
    "rules",
    "direction",
    "message",
    "member",
    "instead",
    "value",
    "spelled",
    "renamed",
    "missing",
    "assume",
    "added",
    "from_hub",
    "to_hub",
    "absent",
    "after",
    "where",
    "upgrade",
    "setting",
];
/// The keys that say what is different, each with the other keys of its kind. `from_hub` and `to_hub` are one kind.
const KINDS: [(&str, &[&str]); 10] = [
    ("instead", &["message", "direction"]),
    ("spelled", &["message", "member", "value", "direction"]),
    ("renamed", &["message", "member", "direction"]),
    ("missing", &["message", "member", "assume", "direction"]),
    ("added", &["message", "member", "direction"]),
    ("from_hub", &["message", "member", "to_hub"]),
    ("to_hub", &["message", "member", "from_hub"]),
    ("absent", &["message", "after", "where", "assume"]),
    ("upgrade", &[]),
    ("setting", &["value"]),
];
const UPGRADE: [&str; 3] = ["headers", "query", "subprotocols"];
const WHAT: &str =
    "say what is different: instead, spelled, renamed, missing, added, from_hub, to_hub, absent, upgrade or setting";
/// The value of `after` for a message that follows the connection itself.
pub(super) const CONNECTION: &str = "connection";

impl Deviations {
    /// Reads entries of a target file, or such as the tool assumes.
    ///
    /// # Errors
    ///
    /// All mistakes, each with its place.
    pub fn read(nodes: &[Node], pack: &Pack, shared: &Shared, assumed: bool) -> Result<Self, Vec<Diagnostic>> {
        let mut reader = Reader { pack, shared, errors: Vec::new() };
        let entries = nodes.iter().filter_map(|node| reader.entry(node, assumed).map(Arc::new)).collect();
        if reader.errors.is_empty() { Ok(Self::new(entries)) } else { Err(reader.errors) }
    }

    /// Returns these entries and those of `others` behind them.
    #[must_use]
    pub fn and(&self, others: Self) -> Self {
        Self::new(self.entries.iter().cloned().chain(others.entries).collect())
    }
}

struct Reader<'a> {
    pack: &'a Pack,
    shared: &'a Shared,
    errors: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn wrong<T>(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) -> Option<T> {
        self.errors.push(Diagnostic::error(span, message).help(help));
        None
    }

    fn entry(&mut self, node: &Node, assumed: bool) -> Option<Deviation> {
        let before = self.errors.len();
        let Some(entries) = node.map() else {
            return self.wrong(node.span, format!("a deviation must be a table, not {}", node.what()), WHAT);
        };
        for (key, _) in entries.iter().filter(|(key, _)| !KEYS.contains(&key.name.as_str())) {
            let help = suggest(&key.name, KEYS, WHAT);
            self.wrong::<()>(key.span, format!("a deviation has no key `{}`", key.name), help);
        }
        let reason = match node.get("reason") {
            Some(reason) => self.text(reason).map(str::to_owned),
            None => self.wrong(node.span, "this deviation has no `reason`", "reports show it: reason = \"...\""),
        };
        let kinds: Vec<_> = KINDS.iter().filter(|(name, _)| node.get(name).is_some()).collect();
        let Some((kind, others)) = kinds.first() else {
            return self.wrong(node.span, "this deviation does not say what is different", WHAT);
        };
        for (key, _) in entries {
            let fits = [*kind, "reason", "rules"].contains(&key.name.as_str()) || others.contains(&key.name.as_str());
            if !fits && KEYS.contains(&key.name.as_str()) {
                let help = "one entry says one thing: make it two, or remove this key";
                self.wrong::<()>(key.span, format!("`{}` does not go with `{kind}`", key.name), help);
            }
        }
        let change = self.change(kind, node)?;
        let way = self.directions(node, &change);
        let mut rules = self.rules(node);
        if let (Change::Setting { setting, .. }, true) = (&change, rules.is_empty()) {
            rules = self.rules_of_setting(setting);
        }
        let span = (!assumed).then_some(node.span);
        (self.errors.len() == before).then_some(())?;
        Some(Deviation { reason: reason?, rules, span, entry: node.to_json(), change, way: way? })
    }

    fn change(&mut self, kind: &str, node: &Node) -> Option<Change> {
        let message = match node.get("message") {
            Some(named) => Some(self.message(named)?),
            None => None,
        };
        let needed = |reader: &mut Self| match message {
            Some(message) => Some(message),
            None => reader.wrong(node.span, format!("`{kind}` needs a `message`"), "name a message of the pack"),
        };
        let value = node.get(kind)?;
        Some(match kind {
            "instead" => {
                let message = needed(self)?;
                let Value::Object(like) = value.to_json() else {
                    return self.wrong(value.span, "`instead` takes members", "instead = { type = \"WELCOME\" }");
                };
                Change::Instead { message, like }
            }
            "spelled" => {
                let Some(documented) = node.get("value") else {
                    let help = "value = what the document has, spelled = what the hub has";
                    return self.wrong(node.span, "`spelled` needs a `value`", help);
                };
                let member = self.member(kind, node)?;
                Change::Spelled { message, member, value: documented.to_json(), spelled: value.to_json() }
            }
            "renamed" => {
                let (member, renamed) = (self.inside(kind, node)?, self.pointer(value)?);
                if place::innermost(&member).0 != place::innermost(&renamed).0 {
                    let help = "renamed = \"/LIST/*/OTHER\" belongs to member = \"/LIST/*/NAME\"";
                    return self.wrong(value.span, "both places must be in the same list", help);
                }
                Change::Renamed { message, member, renamed }
            }
            "missing" => {
                self.yes(value)?;
                let assume = node.get("assume").map(|node| self.template(node, &["message"])).transpose().ok()?;
                Change::Missing { message, member: self.inside(kind, node)?, assume }
            }
            "added" => Change::Added { message, member: self.inside(kind, node)?, added: value.to_json() },
            "from_hub" | "to_hub" => {
                let member = self.member(kind, node)?;
                let [from_hub, to_hub] = ["from_hub", "to_hub"].map(|key| node.get(key));
                let from_hub = from_hub.map(|node| self.template(node, &["value", "message"])).transpose().ok()?;
                let to_hub = to_hub.map(|node| self.template(node, &["value", "message"])).transpose().ok()?;
                Change::Converted { message, member, from_hub, to_hub }
            }
            "absent" => {
                self.yes(value)?;
                let message = needed(self)?;
                if !self.pack.messages[message].directions.from_hub {
                    let named = &self.pack.messages[message].name;
                    let help = "only what a hub should send can be absent";
                    return self.wrong(node.span, format!("`{named}` is not sent by a hub"), help);
                }
                let Some(after) = node.get("after") else {
                    let help = "after = \"connection\", or the message that it answers";
                    return self.wrong(node.span, "`absent` needs an `after`", help);
                };
                let after = if after.text() == Some(CONNECTION) {
                    After::Connection
                } else {
                    After::Message(self.message(after)?)
                };
                let nothing = Node { span: node.span, kind: Kind::Map(Vec::new()) };
                let assume = node.get("assume").unwrap_or(&nothing);
                let assume = self.template(assume, &["request"]).ok()?;
                let when = match node.get("where").map(|node| (node.span, Matcher::compile(&node.to_json()))) {
                    None => None,
                    Some((_, Ok(matcher))) => Some(matcher),
                    Some((span, Err(error))) => {
                        return self.wrong(span, format!("`{}`: {error}", error.key), "where = { posted = false }");
                    }
                };
                Change::Absent { message, after, when, assume }
            }
            "upgrade" => self.upgrade(value)?,
            _ => {
                let setting = self.text(value)?.to_owned();
                if !self.shared.settings.contains_key(&setting) {
                    let known = self.shared.settings.keys().map(String::as_str);
                    let help = suggest(&setting, known, "`hubproof check --list` lists the settings of the protocol");
                    return self.wrong(value.span, format!("there is no setting `{setting}`"), help);
                }
                let Some(value) = node.get("value") else {
                    return self.wrong(node.span, "`setting` needs a `value`", "the size that this hub has");
                };
                Change::Setting { setting, value: value.to_json() }
            }
        })
    }

    fn upgrade(&mut self, node: &Node) -> Option<Change> {
        let Some(entries) = node.map().filter(|entries| !entries.is_empty()) else {
            return self.wrong(node.span, "`upgrade` takes a table", "upgrade = { headers = { X-Api-Key = \"...\" } }");
        };
        for (key, _) in entries.iter().filter(|(key, _)| !UPGRADE.contains(&key.name.as_str())) {
            self.wrong::<()>(key.span, format!("`upgrade` has no key `{}`", key.name), suggest(&key.name, UPGRADE, ""));
        }
        let mut pairs = |name: &str| {
            let entries = node.get(name).and_then(Node::map).unwrap_or_default();
            let pairs = entries.iter().map(|(key, value)| (key.name.clone(), self.text(value).map(str::to_owned)));
            pairs.filter_map(|(name, value)| Some((name, value?))).collect::<Vec<_>>()
        };
        let (headers, query) = (pairs("headers"), pairs("query"));
        let listed = node.get("subprotocols").and_then(Node::list).unwrap_or_default();
        let subprotocols = listed.iter().filter_map(|item| self.text(item).map(str::to_owned)).collect();
        Some(Change::Upgrade { headers, query, subprotocols })
    }

    fn directions(&mut self, node: &Node, change: &Change) -> Option<Directions> {
        let (to_hub, from_hub) = match change {
            Change::Converted { from_hub, to_hub, .. } => (to_hub.is_some(), from_hub.is_some()),
            Change::Absent { .. } => (false, true),
            _ => (true, true),
        };
        Some(match node.get("direction").map(|node| (node.span, node.text())) {
            None => Directions { to_hub, from_hub, ..Directions::default() },
            Some((_, Some("to-hub"))) => Directions { to_hub: true, ..Directions::default() },
            Some((_, Some("from-hub"))) => Directions { from_hub: true, ..Directions::default() },
            Some((span, _)) => {
                return self.wrong(span, "this is not a direction", "to-hub or from-hub; without it, both");
            }
        })
    }

    fn rules(&mut self, node: &Node) -> Vec<RuleUse> {
        let Some(listed) = node.get("rules") else { return Vec::new() };
        let Some(items) = listed.list() else {
            self.wrong::<()>(listed.span, "`rules` must be a list", "rules = [\"ABC-001\"]");
            return Vec::new();
        };
        let mut rules = Vec::new();
        for item in items {
            let Some(id) = self.text(item) else { continue };
            match self.pack.rules.get(id) {
                Some(rule) => rules.push(used(rule)),
                None => {
                    let known = self.pack.rules.keys().map(String::as_str);
                    let otherwise = format!("`hubproof packs show {} --rules` lists them", self.pack.name);
                    let help = suggest(id, known, &otherwise);
                    self.wrong::<()>(item.span, format!("there is no rule {id}"), help);
                }
            }
        }
        rules
    }

    /// Returns the rules in the line of the document that states the default of a setting.
    fn rules_of_setting(&self, setting: &str) -> Vec<RuleUse> {
        let line = self.shared.settings.get(setting).and_then(|setting| setting.line);
        let there = |rule: &&Rule| line.is_some_and(|line| rule.place == Place::Line(line));
        self.pack.rules.values().filter(there).map(used).collect()
    }

    fn message(&mut self, node: &Node) -> Option<usize> {
        let name = self.text(node)?;
        let found = self.pack.messages.iter().position(|message| message.name == name);
        found.or_else(|| {
            let known = self.pack.messages.iter().map(|message: &MessageType| message.name.as_str());
            let otherwise = format!("`hubproof packs show {}` lists the messages", self.pack.name);
            let help = suggest(name, known.collect::<Vec<_>>(), &otherwise);
            self.wrong(node.span, format!("{} has no message `{name}`", self.pack.name), help)
        })
    }

    fn member(&mut self, kind: &str, node: &Node) -> Option<String> {
        match node.get("member") {
            Some(member) => self.pointer(member),
            None => self.wrong(node.span, format!("`{kind}` needs a `member`"), "a JSON pointer: member = \"/type\""),
        }
    }

    /// Returns the place of a member that comes, goes or moves: not that of whole items of a list.
    fn inside(&mut self, kind: &str, node: &Node) -> Option<String> {
        let member = self.member(kind, node)?;
        if member.ends_with("/*") {
            let message = format!("`{member}` means every item of the list, and `{kind}` is about a member");
            let span = node.get("member").map_or(node.span, |member| member.span);
            return self.wrong(span, message, format!("name a member of the items: \"{member}/NAME\""));
        }
        Some(member)
    }

    fn pointer(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node)?.to_owned();
        if text.len() > 1 && text.starts_with('/') {
            return Some(text);
        }
        self.wrong(node.span, format!("`{text}` is not the place of a member"), format!("write \"/{text}\""))
    }

    fn yes(&mut self, node: &Node) -> Option<()> {
        match node.kind {
            Kind::Bool(true) => Some(()),
            _ => self.wrong(node.span, "this can only be true", "write true, or remove the entry"),
        }
    }

    fn text<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        node.text().or_else(|| self.wrong(node.span, format!("this must be text, not {}", node.what()), "in quotes"))
    }

    /// Reads a template that may use only these names.
    fn template(&mut self, node: &Node, names: &[&'static str]) -> Result<Arc<Template>, ()> {
        let before = self.errors.len();
        let template = Template::read(node, &mut self.errors);
        let mut unknown = Vec::new();
        template.expressions(&mut |expression| {
            for name in &expression.uses {
                let root = name.split('.').next().unwrap_or_default();
                if !names.contains(&root) && !crate::scenario::functions::NAMES.contains(&root) {
                    unknown.push((expression.span, root.to_owned()));
                }
            }
        });
        for (span, name) in unknown {
            let help = suggest(&name, names.iter().copied(), &format!("here are {}", names.join(" and ")));
            self.wrong::<()>(span, format!("`{name}` is not known here"), help);
        }
        if self.errors.len() == before { Ok(Arc::new(template)) } else { Err(()) }
    }
}

fn used(rule: &Rule) -> RuleUse {
    RuleUse { id: rule.id.clone(), level: rule.level, basis: rule.basis, lowered: false }
}
