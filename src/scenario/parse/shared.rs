//! Parses shared.yaml: settings and hooks once, and roles, scenes, reactions and `always` for each scenario that uses
//! them.

use std::sync::Arc;

use serde_json::Value;

use super::actors::ActorsOfSteps;
use super::names::{Origin, Scope};
use super::rules::Subject;
use super::{Place, Reader};
use crate::protocol::Pack;
use crate::scenario::model::{
    Act, Always, BlockId, HookDeclaration, MessageName, Reaction, Role, Setting, Shared, duration,
};
use crate::scenario::template::Template;
use crate::syntax::diagnostic::{Diagnostic, ValueError, suggest};
use crate::syntax::fields::{choice, entries, flag, integer, list, mapping, table, text};
use crate::syntax::matcher::escape;
use crate::syntax::source::Span;
use crate::syntax::yaml::{Key, Node};

/// shared.yaml: the parts that are parsed once, and the tree of the parts that each scenario compiles.
pub struct SharedFile {
    pub shared: Arc<Shared>,
    pub(super) root: Node,
}

const GIVEN: &str = "given: { NAME: VALUE }";
const KEYS: [&str; 9] = ["hub", "hooks", "ignore", "fills", "reactions", "roles", "scenes", "always", "fuzz"];

impl SharedFile {
    /// Parses settings, hooks and `ignore`, and checks only the shape of the rest.
    pub fn read(root: Node, pack: &Pack, diagnostics: &mut Vec<Diagnostic>) -> Self {
        let mut shared = Shared::default();
        table(&root, &KEYS, "shared.yaml", diagnostics);
        for (key, node) in mapping(root.get("hub"), "`hub`", "hub: { NAME: { about: ... } }", diagnostics) {
            shared.settings.insert(key.name.clone(), setting(key, node, diagnostics));
        }
        for (key, node) in mapping(root.get("hooks"), "`hooks`", "hooks: { NAME: { about: ... } }", diagnostics) {
            shared.hooks.insert(key.name.clone(), hook(node, diagnostics));
        }
        for node in list(root.get("ignore"), "`ignore`", "ignore: [MESSAGE]", diagnostics) {
            match node.text() {
                Some(name) if pack.message(name).is_some() => shared.ignore.push(name.to_owned()),
                _ => diagnostics.push(unknown_message(node, pack)),
            }
        }
        for name in ["reactions", "roles", "scenes"] {
            mapping(root.get(name), &format!("`{name}`"), &format!("{name}: {{ NAME: {{ ... }} }}"), diagnostics);
        }
        fills_somewhere(root.get("fills"), pack, diagnostics);
        for (_, role) in entries(root.get("roles")) {
            fills_somewhere(role.get("fills"), pack, diagnostics);
        }
        Self { shared: Arc::new(shared), root }
    }

    /// Returns the diagnostics of roles, scenes, reactions and `always`, whether or not a scenario uses them.
    pub fn check(&self, pack: &Arc<Pack>) -> Vec<Diagnostic> {
        let mut reader = Reader::new(self, pack);
        for (key, _) in entries(self.root.get("roles")) {
            reader.role(&key.name, key.span);
        }
        for (key, _) in entries(self.root.get("reactions")) {
            reader.reaction(&key.name, key.span);
        }
        reader.always();
        // The actors of a scene are not known here.
        reader.any_actor = true;
        for (key, _) in entries(self.root.get("scenes")) {
            reader.scene(&key.name, key.span);
        }
        reader.fuzz();
        crate::syntax::diagnostic::distinct(reader.diagnostics)
    }
}

fn setting(key: &Key, node: &Node, diagnostics: &mut Vec<Diagnostic>) -> Setting {
    let before = diagnostics.len();
    table(node, &["default", "secret", "optional", "about", "line"], "a setting", diagnostics);
    if let Some(default) = node.get("default")
        && let Some(error) = default.text().and_then(wrong_time)
    {
        diagnostics.push(error.at(default.span));
    }
    let setting = Setting {
        default: node.get("default").map(Node::to_json),
        secret: flag(node.get("secret"), "`secret`", diagnostics),
        optional: flag(node.get("optional"), "`optional`", diagnostics),
        about: text(node.get("about"), "`about`", diagnostics).unwrap_or_default().to_owned(),
        line: integer(node.get("line"), "`line`", 1..=u64::MAX, diagnostics)
            .and_then(|line| usize::try_from(line).ok()),
    };
    if setting.about.is_empty() && diagnostics.len() == before {
        diagnostics.push(
            Diagnostic::error(key.span, format!("setting `{}` has no `about`", key.name))
                .help("describe the setting in one line; `hubproof packs show` prints it"),
        );
    }
    setting
}

/// Returns the error for a text that can only be meant as a time: `5 h`, `10 seconds`.
fn wrong_time(text: &str) -> Option<ValueError> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (amount, unit) = text.split_at(at);
    let unit = unit.trim_end_matches('s');
    let meant = matches!(
        unit,
        "h" | "hr" | "hour" | "min" | "minute" | "sec" | "second" | "d" | "day" | "milli" | "u" | "m" | ""
    );
    (meant && amount.trim().parse::<f64>().is_ok()).then(|| duration(text).err()).flatten()
}

fn hook(node: &Node, diagnostics: &mut Vec<Diagnostic>) -> HookDeclaration {
    table(node, &["message", "args", "about"], "a hook", diagnostics);
    let args = list(node.get("args"), "`args`", "args: [name]", diagnostics);
    HookDeclaration {
        message: flag(node.get("message"), "`message`", diagnostics),
        args: args.iter().filter_map(|arg| text(Some(arg), "an argument", diagnostics)).map(str::to_owned).collect(),
        about: text(node.get("about"), "`about`", diagnostics).unwrap_or_default().to_owned(),
    }
}

pub fn unknown_message(node: &Node, pack: &Pack) -> Diagnostic {
    let lists = format!("`hubproof packs show {}` lists all {} messages", pack.name, pack.messages.len());
    let Some(name) = node.text() else {
        let found = if node.is_null() {
            "a message is missing".to_owned()
        } else {
            format!("expected the name of a message, found {}", node.what())
        };
        return Diagnostic::error(node.span, found).help(lists);
    };
    let known: Vec<&str> = pack.messages.iter().map(|m| m.name.as_str()).collect();
    Diagnostic::error(node.span, format!("{} has no message `{name}`", pack.name)).help(suggest(name, known, &lists))
}

/// Warns about a member under `fills` that no example has.
fn fills_somewhere(fills: Option<&Node>, pack: &Pack, diagnostics: &mut Vec<Diagnostic>) {
    for (key, _) in mapping(fills, "`fills`", "fills: { MEMBER: VALUE }", diagnostics) {
        let pointer = if key.name.starts_with('/') { key.name.clone() } else { format!("/{}", escape(&key.name)) };
        let templates: Vec<Value> = pack.messages.iter().map(|message| message.template()).collect();
        if templates.iter().any(|template| template.pointer(&pointer).is_some()) {
            continue;
        }
        let known: Vec<&str> =
            templates.iter().filter_map(Value::as_object).flat_map(|t| t.keys()).map(String::as_str).collect();
        diagnostics.push(
            Diagnostic::warning(
                key.span,
                format!("no example has a member `{}`, so `fills` has no effect on it", key.name),
            )
            .help(suggest(&key.name, known, "write a member that the example of some message has")),
        );
    }
}

impl Reader<'_> {
    pub(super) fn role(&mut self, name: &str, span: Span) {
        if self.roles.contains_key(name) {
            return;
        }
        let file = self.file;
        let roles = entries(file.root.get("roles"));
        let Some((_, node)) = roles.iter().find(|(key, _)| key.name == name) else {
            let known: Vec<&str> = roles.iter().map(|(key, _)| key.name.as_str()).collect();
            self.error(
                span,
                format!("{} has no role `{name}`", self.pack.name),
                suggest(name, known, "roles are declared in shared.yaml"),
            );
            return;
        };
        table(node, &["side", "given", "fills", "opening", "reacts"], "a role", &mut self.diagnostics);
        let sides = [("client", false), ("server", true)];
        let server = choice(node.get("side"), "`side`", &sides, &mut self.diagnostics).unwrap_or(false);
        let place = std::mem::replace(&mut self.place, Place::Opening);
        let myself = self.myself.replace(name.to_owned());
        // Declared before its opening is parsed, so that `self.name` is known there.
        self.roles.insert(
            name.to_owned(),
            Role { server, given: Vec::new(), fills: Vec::new(), opening: 0, binds: Vec::new(), reacts: Vec::new() },
        );
        self.scopes.push(Scope::isolated());
        let mut given = Vec::new();
        for (key, node) in mapping(node.get("given"), "`given`", GIVEN, &mut self.diagnostics) {
            let template = self.template(node);
            given.push((key.name.clone(), template));
            if let Some(role) = self.roles.get_mut(name) {
                role.given.push((key.name.clone(), Template::Constant(Value::Null)));
            }
        }
        let fills = self.fills(node.get("fills"));
        let opening = match node.get("opening") {
            Some(steps) => self.block(steps),
            None => self.push_block(Vec::new()),
        };
        let binds = self.scopes.pop().map(|scope| scope.names.into_keys().collect()).unwrap_or_default();
        self.place = place;
        self.myself = None;
        let mut reacts = Vec::new();
        for node in list(node.get("reacts"), "`reacts`", "reacts: [REACTION]", &mut self.diagnostics) {
            if let Some(reaction) = text(Some(node), "a reaction", &mut self.diagnostics) {
                self.reaction(reaction, node.span);
                reacts.push(reaction.to_owned());
            }
        }
        self.myself = myself;
        self.roles.insert(name.to_owned(), Role { server, given, fills, opening, binds, reacts });
    }

    /// Parses the protocol's `fills`, then the role's.
    fn fills(&mut self, node: Option<&Node>) -> Vec<(String, Template)> {
        let file = self.file;
        let mut fills = Vec::new();
        for (key, node) in entries(file.root.get("fills")).iter().chain(entries(node)) {
            let template = self.template(node);
            fills.push((key.name.clone(), template));
        }
        fills
    }

    pub(super) fn reaction(&mut self, name: &str, span: Span) {
        if self.reactions.contains_key(name) {
            return;
        }
        let file = self.file;
        let reactions = entries(file.root.get("reactions"));
        let Some((key, node)) = reactions.iter().find(|(key, _)| key.name == name) else {
            let known: Vec<&str> = reactions.iter().map(|(key, _)| key.name.as_str()).collect();
            self.error(
                span,
                format!("there is no reaction `{name}`"),
                suggest(name, known, "reactions are declared under `reactions` in shared.yaml"),
            );
            return;
        };
        let what = format!("the reaction `{name}`");
        let known = ["whenever", "where", "as", "do"];
        let members = table(node, &known, &what, &mut self.diagnostics).at(key.span);
        let whenever = members.required("whenever", "write `whenever: MESSAGE`", &mut self.diagnostics);
        let Some(whenever) = whenever else { return };
        let message = self.message_name(whenever, None);
        let MessageName::Named(message_name) = &message else {
            self.error(whenever.span, "`whenever` must name one message", "write `whenever: MESSAGE`");
            return;
        };
        self.scopes.push(Scope::isolated());
        let place = std::mem::replace(&mut self.place, Place::Reaction);
        let as_ = node.get("as").and_then(|node| self.free_name(node).map(|name| (name, node.span)));
        if let Some((name, at)) = &as_ {
            self.bind_name(name, Some(*at), Origin::Unknown);
        }
        let pattern = node.get("where").map(|n| self.pattern(n, &Subject::of(&message)));
        let block = match node.get("do") {
            Some(steps) => self.block(steps),
            None => self.push_block(Vec::new()),
        };
        self.place = place;
        self.scopes.pop();
        if let Some(step) = self.blocks[block]
            .iter()
            .find(|s| !matches!(s.act, Act::Send(_) | Act::SendRaw(_) | Act::Close { .. } | Act::Drop { .. }))
        {
            let at = step.span;
            self.error(at, "a reaction cannot have this step", "write only `sends`, `sends raw`, `closes` and `drops`");
        }
        self.reactions.insert(
            name.to_owned(),
            Reaction { whenever: message_name.clone(), pattern, as_: as_.map(|(name, _)| name), block },
        );
    }

    /// Parses a scene that is played at `span`. Returns its steps, which are parsed only once, and its `given` values.
    pub(super) fn scene(&mut self, name: &str, span: Span) -> Option<(BlockId, Vec<(String, Template)>)> {
        let file = self.file;
        let scenes = entries(file.root.get("scenes"));
        let Some((_, node)) = scenes.iter().find(|(key, _)| key.name == name) else {
            let known: Vec<&str> = scenes.iter().map(|(key, _)| key.name.as_str()).collect();
            self.error(
                span,
                format!("{} has no scene `{name}`", self.pack.name),
                suggest(name, known, "scenes are declared in shared.yaml"),
            );
            return None;
        };
        if self.playing.iter().any(|playing| playing == name) {
            self.error(span, format!("the scene `{name}` plays itself"), "to repeat steps, write `each` or `retry`");
            return None;
        }
        table(node, &["given", "steps"], "a scene", &mut self.diagnostics);
        for actor in ActorsOfSteps::of(node.get("steps")).named {
            if self.actors_named(&actor, span).is_none() {
                self.error(
                    span,
                    format!("the scene `{name}` needs an actor `{actor}`, which the scenario does not have"),
                    format!("write `actors: {{ {actor}: ROLE }}`"),
                );
                return None;
            }
        }
        self.scopes.push(Scope::isolated());
        let place = std::mem::replace(&mut self.place, Place::Scene);
        self.playing.push(name.to_owned());
        let given = mapping(node.get("given"), "`given`", GIVEN, &mut self.diagnostics);
        let given = self.values(given);
        let block = match (self.scenes.get(name), node.get("steps")) {
            (Some(block), _) => *block,
            (None, Some(steps)) => self.block(steps),
            (None, None) => self.push_block(Vec::new()),
        };
        self.playing.pop();
        self.place = place;
        self.scopes.pop();
        self.scenes.insert(name.to_owned(), block);
        Some((block, given))
    }

    pub(super) fn always(&mut self) -> Vec<Always> {
        let file = self.file;
        let place = std::mem::replace(&mut self.place, Place::Always);
        let mut always = Vec::new();
        for node in list(file.root.get("always"), "`always`", "- every: MESSAGE", &mut self.diagnostics) {
            let what = "an entry of `always`";
            let known = ["every", "has", "check", "equals", "fits", "rules"];
            let members = table(node, &known, what, &mut self.diagnostics);
            let help = "write `every: MESSAGE`, `every: frame` or `every: close`, or `check: \"${...}\"`";
            match members.one_of(&["every", "check"], help, &mut self.diagnostics) {
                Some(("every", every)) => self.every(every, node, &mut always),
                Some((_, check)) => self.always_check(check, node, &mut always),
                None => {}
            }
        }
        self.place = place;
        always
    }

    fn every(&mut self, every: &Node, entry: &Node, always: &mut Vec<Always>) {
        for key in ["equals", "fits", "rules"] {
            if entry.get(key).is_some() {
                let at = entry.key_at_pointer(&format!("/{key}"));
                self.error(
                    at,
                    format!("`{key}` belongs to `check`, not to `every`"),
                    "write the rules of `every` as keys of `has`",
                );
            }
        }
        if entry.get("has").is_none() {
            self.error(
                every.span,
                "`every` without `has` checks nothing",
                "write `has: { ABC-001: { /member: true } }`",
            );
        }
        let subject = match every.text() {
            Some("frame") => Subject::Members("a frame", &["opcode", "size", "text", "json"]),
            Some("close") => Subject::CLOSE,
            Some("upgrade") => Subject::UPGRADE,
            Some("wire") => Subject::WIRE,
            Some(name) if self.pack.message(name).is_some() => Subject::Message(name.to_owned()),
            _ => {
                let error = unknown_message(every, self.pack);
                self.diagnostics.push(error);
                Subject::Anything
            }
        };
        for has in self.has(entry.get("has"), &subject) {
            always.push(match every.text().unwrap_or_default() {
                "frame" => Always::Frame { check: has.check, pattern: has.pattern },
                "close" => Always::Close { check: has.check, pattern: has.pattern },
                "upgrade" => Always::Upgrade { check: has.check, pattern: has.pattern },
                "wire" => Always::Wire { check: has.check, pattern: has.pattern },
                name => Always::Message { message: name.to_owned(), check: has.check, pattern: has.pattern },
            });
        }
    }

    fn always_check(&mut self, value: &Node, entry: &Node, always: &mut Vec<Always>) {
        if entry.get("has").is_some() {
            let at = entry.key_at_pointer("/has");
            self.error(at, "`has` belongs to `every`, not to `check`", "write `equals: VALUE` or `fits: { ... }`");
        }
        if entry.get("rules").is_none() {
            self.error(
                value.span,
                "`check` without rules proves nothing",
                "name the rules it proves: write `rules: [ABC-001]`",
            );
        }
        let span = value.span;
        let value = self.checked_value(value);
        let test = self.test(entry.get("equals"), entry.get("fits"));
        let rules = self.rules(entry.get("rules"));
        let check = self.declare(rules, span);
        always.push(Always::Check { check, value, test, span });
    }
}
