//! From the tree of a file to a program: a reader per construct that knows its keys, and says everything that is wrong
//! before any socket opens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::compose;
use super::functions;
use super::model::*;
use super::template::{BUILTIN, Expr, Template};
use crate::diagnostic::{Diagnostic, suggest};
use crate::json_schema;
use crate::matcher::Matcher;
use crate::pack::{Basis, Level, Pack, Way};
use crate::source::Span;
use crate::yaml::{Key, Kind, Node};

/// Reads one scenario. The program is there only where nothing is wrong with it.
pub fn read(id: &str, root: &Node, shared: &SharedFile, pack: &Arc<Pack>) -> (Option<Program>, Vec<Diagnostic>) {
    let mut reader = Reader::new(shared, pack);
    let program = reader.scenario(id, root);
    let errors = crate::diagnostic::has_errors(&reader.diagnostics);
    (program.filter(|_| !errors), reader.diagnostics)
}

/// shared.yaml: what is read once, and the tree of what each scenario compiles for itself.
pub struct SharedFile {
    pub shared: Arc<Shared>,
    root: Node,
}

const SHARED_KEYS: [&str; 8] = ["hub", "hooks", "ignore", "fills", "reactions", "roles", "scenes", "always"];
const SCENARIO_KEYS: [&str; 9] =
    ["title", "needs", "exclusive", "destructive", "actors", "let", "steps", "finally", "description"];

impl SharedFile {
    pub fn read(root: Node, pack: &Pack, diagnostics: &mut Vec<Diagnostic>) -> Self {
        let mut shared = Shared::default();
        keys(&root, &SHARED_KEYS, "shared.yaml", diagnostics);
        for (key, node) in entries(root.get("hub")) {
            keys(node, &["default", "secret", "optional", "about", "line"], "a setting", diagnostics);
            let flag = |name: &str| matches!(node.get(name).map(|n| &n.kind), Some(Kind::Bool(true)));
            let line = match node.get("line").map(|n| &n.kind) {
                Some(Kind::Number(n)) => n.as_u64().map(|n| n as usize),
                _ => None,
            };
            let setting = Setting {
                default: node.get("default").map(Node::to_json),
                secret: flag("secret"),
                optional: flag("optional"),
                about: node.get("about").and_then(Node::text).unwrap_or_default().to_owned(),
                line,
            };
            if setting.about.is_empty() {
                diagnostics.push(
                    Diagnostic::error(key.span, format!("setting `{}` has no `about`", key.name))
                        .help("one line for `hubproof check --list`"),
                );
            }
            shared.settings.insert(key.name.clone(), setting);
        }
        for (key, node) in entries(root.get("hooks")) {
            keys(node, &["message", "args", "about"], "a hook", diagnostics);
            let args = node
                .get("args")
                .and_then(Node::list)
                .unwrap_or_default()
                .iter()
                .filter_map(|n| n.text().map(str::to_owned))
                .collect();
            let message = matches!(node.get("message").map(|n| &n.kind), Some(Kind::Bool(true)));
            let about = node.get("about").and_then(Node::text).unwrap_or_default().to_owned();
            shared.hooks.insert(key.name.clone(), HookDeclaration { message, args, about });
        }
        for node in root.get("ignore").and_then(Node::list).unwrap_or_default() {
            match node.text() {
                Some(name) if pack.message(name).is_some() => shared.ignore.push(name.to_owned()),
                _ => diagnostics.push(unknown_message(node, pack)),
            }
        }
        Self { shared: Arc::new(shared), root }
    }
}

fn entries(node: Option<&Node>) -> &[(Key, Node)] {
    node.and_then(Node::map).unwrap_or_default()
}

fn keys(node: &Node, known: &[&str], what: &str, diagnostics: &mut Vec<Diagnostic>) {
    for (key, _) in entries(Some(node)) {
        if !known.contains(&key.name.as_str()) {
            diagnostics.push(Diagnostic::error(key.span, format!("{what} has no key `{}`", key.name)).help(suggest(
                &key.name,
                known.iter().copied(),
                "",
            )));
        }
    }
}

fn unknown_message(node: &Node, pack: &Pack) -> Diagnostic {
    let name = node.text().unwrap_or_default();
    Diagnostic::error(node.span, format!("{} has no message `{name}`", pack.name)).help(suggest(
        name,
        pack.messages.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(),
        &format!("`hubproof packs show {}` lists all {}", pack.name, pack.messages.len()),
    ))
}

/// The verbs, with both their forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Joins,
    Connects,
    TriesToConnect,
    Accepts,
    Sends,
    SendsRaw,
    Closes,
    Drops,
    StopsReading,
    ReadsAgain,
    Expects,
    ExpectsNothing,
    ExpectsOneOf,
    ExpectsClose,
    ExpectsRefusal,
    ExpectsFrame,
    Plays,
    Play,
    Compose,
    Hook,
    Wait,
    Check,
    Order,
    Each,
    Either,
    Retry,
}

const VERBS: [(&str, &str, Verb); 17] = [
    ("joins", "join", Verb::Joins),
    ("connects", "connect", Verb::Connects),
    ("tries to connect", "try to connect", Verb::TriesToConnect),
    ("accepts", "accept", Verb::Accepts),
    ("sends raw", "send raw", Verb::SendsRaw),
    ("sends", "send", Verb::Sends),
    ("closes", "close", Verb::Closes),
    ("drops", "drop", Verb::Drops),
    ("stops reading", "stop reading", Verb::StopsReading),
    ("reads again", "read again", Verb::ReadsAgain),
    ("expects nothing", "expect nothing", Verb::ExpectsNothing),
    ("expects one of", "expect one of", Verb::ExpectsOneOf),
    ("expects close", "expect close", Verb::ExpectsClose),
    ("expects refusal", "expect refusal", Verb::ExpectsRefusal),
    ("expects frame", "expect frame", Verb::ExpectsFrame),
    ("expects", "expect", Verb::Expects),
    ("plays", "play", Verb::Plays),
];

const WORDS: [(&str, Verb); 9] = [
    ("play", Verb::Play),
    ("compose", Verb::Compose),
    ("hook", Verb::Hook),
    ("wait", Verb::Wait),
    ("check", Verb::Check),
    ("order", Verb::Order),
    ("each", Verb::Each),
    ("either", Verb::Either),
    ("retry", Verb::Retry),
];

impl Verb {
    /// Keys that may stand beside it, besides `as`, `if`.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Joins => &["with", "rules"],
            Self::Connects | Self::TriesToConnect => &["query", "headers", "subprotocols", "from", "rules"],
            Self::Accepts => &["within", "rules"],
            Self::Sends => &["with", "without", "fragments", "breaks"],
            Self::SendsRaw | Self::Drops | Self::StopsReading | Self::ReadsAgain => &[],
            Self::Closes => &["reason"],
            Self::Expects => &["where", "after", "within", "count", "for", "rules", "has"],
            Self::ExpectsNothing => &["where", "after", "for", "rules"],
            Self::ExpectsOneOf => &["after", "within", "rules"],
            Self::ExpectsClose | Self::ExpectsRefusal => &["within", "rules", "has"],
            Self::ExpectsFrame => &["where", "within", "rules", "has"],
            Self::Plays | Self::Play => &["with"],
            Self::Compose => &["with", "without", "breaks"],
            Self::Hook => &["args", "message", "with", "without", "where", "within", "rules", "has"],
            Self::Wait => &["because"],
            Self::Check => &["equals", "fits", "rules"],
            Self::Order => &["slack", "rules"],
            Self::Each | Self::Either => &["in", "do"],
            Self::Retry => &["do", "rules"],
        }
    }

    fn accuses(self) -> bool {
        self.options().contains(&"rules")
    }
}

struct Head<'a> {
    verb: Verb,
    actor: &'a str,
    quantity: Option<(Quantity, usize)>,
}

/// `[exactly|at least|at most N of] ACTOR VERB`, or a word.
fn head(key: &str) -> Option<Head<'_>> {
    if let Some((_, verb)) = WORDS.iter().find(|(word, _)| *word == key) {
        return Some(Head { verb: *verb, actor: "", quantity: None });
    }
    for (singular, plural, verb) in VERBS {
        for form in [singular, plural] {
            let Some(rest) = key.strip_suffix(form) else { continue };
            if rest.is_empty() {
                return Some(Head { verb, actor: "", quantity: None });
            }
            let Some(subject) = rest.strip_suffix(' ') else { continue };
            for (words, quantity) in
                [("exactly ", Quantity::Exactly), ("at least ", Quantity::AtLeast), ("at most ", Quantity::AtMost)]
            {
                if let Some((number, actor)) = subject.strip_prefix(words).and_then(|rest| rest.split_once(" of ")) {
                    return Some(Head {
                        verb,
                        actor: actor.trim(),
                        quantity: Some((quantity, number.trim().parse().ok()?)),
                    });
                }
            }
            if subject.contains(' ') {
                continue;
            }
            return Some(Head { verb, actor: subject, quantity: None });
        }
    }
    None
}

/// Names in sight, innermost last.
#[derive(Default)]
struct Sight {
    names: BTreeSet<String>,
    /// Nothing outside is in sight: a scene or an opening.
    isolated: bool,
}

struct Reader<'a> {
    file: &'a SharedFile,
    pack: &'a Arc<Pack>,
    diagnostics: Vec<Diagnostic>,
    blocks: Vec<Vec<Step>>,
    checks: Vec<Check>,
    check_counts: BTreeMap<String, usize>,
    actors: Vec<Actor>,
    groups: BTreeMap<String, Vec<ActorId>>,
    roles: BTreeMap<String, Role>,
    scenes: BTreeMap<String, BlockId>,
    reactions: BTreeMap<String, Reaction>,
    needs: Vec<Need>,
    sight: Vec<Sight>,
    /// Literal rows of the `each` blocks around, for rule ids in rows.
    rows: Vec<(String, Value)>,
    connected: BTreeSet<ActorId>,
    /// Actors first connected in each of the `each` blocks around.
    fresh: Vec<BTreeSet<ActorId>>,
    /// Inside a scene, an opening, a reaction or `finally`: nothing accuses.
    quiet: Option<&'static str>,
    /// The role of the first person, where steps have one.
    myself: Option<String>,
}

impl<'a> Reader<'a> {
    fn new(file: &'a SharedFile, pack: &'a Arc<Pack>) -> Self {
        Self {
            file,
            pack,
            diagnostics: Vec::new(),
            blocks: Vec::new(),
            checks: Vec::new(),
            check_counts: BTreeMap::new(),
            actors: Vec::new(),
            groups: BTreeMap::new(),
            roles: BTreeMap::new(),
            scenes: BTreeMap::new(),
            reactions: BTreeMap::new(),
            needs: Vec::new(),
            sight: vec![Sight::default()],
            rows: Vec::new(),
            connected: BTreeSet::new(),
            fresh: Vec::new(),
            quiet: None,
            myself: None,
        }
    }

    fn error(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        let help = help.into();
        let diagnostic = Diagnostic::error(span, message);
        self.diagnostics.push(if help.is_empty() { diagnostic } else { diagnostic.help(help) });
    }

    fn scenario(&mut self, id: &str, root: &Node) -> Option<Program> {
        if root.map().is_none() {
            self.error(
                root.span,
                "a scenario is a mapping with `title` and `steps`",
                "scenarios/README.md shows a small one",
            );
            return None;
        }
        keys(root, &SCENARIO_KEYS, "a scenario", &mut self.diagnostics);
        let title = match root.get("title").and_then(Node::text) {
            Some(title) => title.to_owned(),
            None => {
                self.error(
                    root.span,
                    "the scenario has no `title`",
                    "one sentence that is true of the hub if every check passes",
                );
                String::new()
            }
        };
        self.read_actors(root.get("actors"));
        self.read_needs(root.get("needs"));
        let isolation = self.isolation(root);
        let lets = self.lets(root.get("let"));
        let always = self.always();
        let main = match root.get("steps") {
            Some(steps) => self.block(steps),
            None => {
                self.error(root.span, "the scenario has no `steps`", "");
                return None;
            }
        };
        let finally = match root.get("finally") {
            Some(steps) => {
                self.quiet = Some("`finally`");
                let block = self.block(steps);
                self.quiet = None;
                block
            }
            None => self.push_block(Vec::new()),
        };
        Some(Program {
            id: id.to_owned(),
            title,
            span: root.span,
            pack: Arc::clone(self.pack),
            shared: Arc::clone(&self.file.shared),
            needs: std::mem::take(&mut self.needs),
            isolation,
            actors: std::mem::take(&mut self.actors),
            groups: std::mem::take(&mut self.groups),
            roles: std::mem::take(&mut self.roles),
            lets,
            blocks: std::mem::take(&mut self.blocks),
            main,
            finally,
            checks: std::mem::take(&mut self.checks),
            always,
            reactions: std::mem::take(&mut self.reactions),
            connections: self.connected.len(),
        })
    }

    fn isolation(&mut self, root: &Node) -> Isolation {
        if matches!(root.get("destructive").map(|n| &n.kind), Some(Kind::Bool(true))) {
            return Isolation::Destructive;
        }
        match root.get("exclusive") {
            None => Isolation::Shared,
            Some(node) => match node.text() {
                Some(word) => Isolation::Exclusive(word.to_owned()),
                None => {
                    self.error(
                        node.span,
                        "`exclusive` takes a word",
                        "`hub` for a scenario that must be alone on the hub",
                    );
                    Isolation::Shared
                }
            },
        }
    }

    fn read_needs(&mut self, node: Option<&Node>) {
        let Some(node) = node else { return };
        let Some(items) = node.list() else {
            self.error(node.span, "`needs` is a list of words and expressions", "");
            return;
        };
        for item in items {
            let Some(text) = item.text() else {
                self.error(item.span, "a need is a word or an expression", "");
                continue;
            };
            if text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
                self.needs.push(Need::Word(text.to_owned()));
                continue;
            }
            match Expr::compile(text, item.span, None) {
                Ok(expr) => {
                    for used in expr.uses.clone() {
                        self.setting_exists(&used, item.span);
                    }
                    self.needs.push(Need::Expression { text: text.to_owned(), expr });
                }
                Err(diagnostic) => self.diagnostics.push(diagnostic),
            }
        }
    }

    /// Whether `hub.NAME` is declared; other names are not settings.
    fn setting_exists(&mut self, used: &str, span: Span) -> Option<&'a Setting> {
        let name = used.strip_prefix("hub.")?.split('.').next()?;
        match self.file.shared.settings.get(name) {
            Some(setting) => Some(setting),
            None => {
                let known: Vec<&str> = self.file.shared.settings.keys().map(String::as_str).collect();
                self.error(
                    span,
                    format!("{} has no setting `{name}`", self.pack.name),
                    suggest(name, known, "settings are declared under `hub` of shared.yaml"),
                );
                None
            }
        }
    }

    // ---- actors, roles, scenes

    fn read_actors(&mut self, node: Option<&Node>) {
        let Some(node) = node else { return };
        let Some(entries) = node.map() else {
            self.error(node.span, "`actors` is a mapping of names and roles", "");
            return;
        };
        for (key, node) in entries {
            match &node.kind {
                Kind::Text(role) => self.actor(&key.name, &role.value, key.span, node.span),
                Kind::Map(_) => {
                    keys(node, &["role", "count"], "an actor", &mut self.diagnostics);
                    let role = node.get("role").and_then(Node::text).unwrap_or(&key.name).to_owned();
                    let count = match node.get("count").map(|n| &n.kind) {
                        Some(Kind::Number(n)) if n.as_u64().is_some_and(|n| (1..=10_000).contains(&n)) => {
                            n.as_u64().unwrap_or(1) as usize
                        }
                        Some(_) => {
                            self.error(node.at_pointer("/count").span, "`count` is a number from 1 to 10000", "");
                            1
                        }
                        None => 1,
                    };
                    let mut members = Vec::new();
                    for index in 0..count {
                        let name = format!("{}[{index}]", key.name);
                        members.push(self.actors.len());
                        self.actor(&name, &role, key.span, node.span);
                    }
                    self.groups.insert(key.name.clone(), members);
                }
                Kind::List(items) => {
                    let mut members = Vec::new();
                    for item in items {
                        match item.text().and_then(|name| self.members(name)) {
                            Some(found) => members.extend(found),
                            None => self.error(
                                item.span,
                                format!("there is no actor `{}`", item.text().unwrap_or_default()),
                                "a group is made of actors that stand above it",
                            ),
                        }
                    }
                    self.groups.insert(key.name.clone(), members);
                }
                _ => self.error(node.span, "an actor takes a role, `{ role, count }`, or a list of actors", ""),
            }
        }
    }

    fn actor(&mut self, name: &str, role: &str, span: Span, role_span: Span) {
        if matches!(name, "hub" | "self" | "index") || WORDS.iter().any(|(word, _)| *word == name) {
            self.error(span, format!("an actor cannot be called `{name}`"), "that word has a meaning of its own");
        }
        self.role(role, role_span);
        self.actors.push(Actor { name: name.to_owned(), role: role.to_owned() });
    }

    /// The members of an actor's or a group's name.
    fn members(&self, name: &str) -> Option<Vec<ActorId>> {
        match self.groups.get(name) {
            Some(members) => Some(members.clone()),
            None => self.actors.iter().position(|actor| actor.name == name).map(|id| vec![id]),
        }
    }

    fn role(&mut self, name: &str, span: Span) {
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
        keys(node, &["side", "given", "fills", "opening", "reacts"], "a role", &mut self.diagnostics);
        let server = match node.get("side").and_then(Node::text) {
            None | Some("client") => false,
            Some("server") => true,
            Some(_) => {
                self.error(node.at_pointer("/side").span, "a side is client or server", "");
                false
            }
        };
        let quiet = self.quiet.replace("an opening");
        let myself = self.myself.replace(name.to_owned());
        // Declared before its opening is read, so that `self.name` is known there.
        self.roles.insert(
            name.to_owned(),
            Role { server, given: Vec::new(), fills: Vec::new(), opening: 0, binds: Vec::new(), reacts: Vec::new() },
        );
        self.sight.push(Sight { names: BTreeSet::new(), isolated: true });
        let mut given = Vec::new();
        for (key, node) in entries(node.get("given")) {
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
        let binds = self.sight.pop().map(|sight| sight.names.into_iter().collect()).unwrap_or_default();
        self.quiet = quiet;
        self.myself = myself;
        let reacts: Vec<String> = node
            .get("reacts")
            .and_then(Node::list)
            .unwrap_or_default()
            .iter()
            .filter_map(|n| n.text().map(str::to_owned))
            .collect();
        for reaction in &reacts {
            self.reaction(reaction, node.span);
        }
        self.roles.insert(name.to_owned(), Role { server, given, fills, opening, binds, reacts });
    }

    /// The protocol's `fills`, then the role's.
    fn fills(&mut self, node: Option<&Node>) -> Vec<(String, Template)> {
        let file = self.file;
        let mut fills = Vec::new();
        for (key, node) in entries(file.root.get("fills")).iter().chain(entries(node)) {
            let template = self.template(node);
            fills.push((key.name.clone(), template));
        }
        fills
    }

    fn reaction(&mut self, name: &str, span: Span) {
        if self.reactions.contains_key(name) {
            return;
        }
        let file = self.file;
        let Some(node) = file.root.get("reactions").and_then(|r| r.get(name)) else {
            let known: Vec<&str> =
                entries(file.root.get("reactions")).iter().map(|(key, _)| key.name.as_str()).collect();
            self.error(span, format!("there is no reaction `{name}`"), suggest(name, known, ""));
            return;
        };
        keys(node, &["whenever", "where", "as", "do"], "a reaction", &mut self.diagnostics);
        let whenever = node.get("whenever").map(|n| self.message_name(n, None));
        let Some(MessageName::Named(whenever)) = whenever else {
            self.error(node.span, "a reaction has `whenever: MESSAGE`", "");
            return;
        };
        let as_ = node.get("as").and_then(Node::text).map(str::to_owned);
        self.sight.push(Sight { names: as_.iter().cloned().collect(), isolated: true });
        let quiet = self.quiet.replace("a reaction");
        let pattern = node.get("where").map(|n| self.pattern(n));
        let block = match node.get("do") {
            Some(steps) => self.block(steps),
            None => self.push_block(Vec::new()),
        };
        self.quiet = quiet;
        self.sight.pop();
        if let Some(step) = self.blocks[block]
            .iter()
            .find(|s| !matches!(s.act, Act::Send(_) | Act::SendRaw(_) | Act::Close { .. } | Act::Drop { .. }))
        {
            let at = step.span;
            self.error(at, "a reaction sends, closes or drops; it waits for nothing", "");
        }
        self.reactions.insert(name.to_owned(), Reaction { whenever, pattern, as_, block });
    }

    fn scene(&mut self, name: &str, span: Span) -> Option<(BlockId, Vec<(String, Template)>)> {
        let file = self.file;
        let Some(node) = file.root.get("scenes").and_then(|s| s.get(name)) else {
            let known: Vec<&str> = entries(file.root.get("scenes")).iter().map(|(key, _)| key.name.as_str()).collect();
            self.error(
                span,
                format!("{} has no scene `{name}`", self.pack.name),
                suggest(name, known, "scenes are declared in shared.yaml"),
            );
            return None;
        };
        keys(node, &["given", "steps"], "a scene", &mut self.diagnostics);
        self.sight.push(Sight { names: BTreeSet::new(), isolated: true });
        let quiet = self.quiet.replace("a scene");
        let mut given = Vec::new();
        for (key, node) in entries(node.get("given")) {
            let template = self.template(node);
            self.see(&key.name);
            given.push((key.name.clone(), template));
        }
        let block = match (self.scenes.get(name), node.get("steps")) {
            (Some(block), _) => *block,
            (None, Some(steps)) => self.block(steps),
            (None, None) => self.push_block(Vec::new()),
        };
        self.quiet = quiet;
        self.sight.pop();
        self.scenes.insert(name.to_owned(), block);
        Some((block, given))
    }

    fn always(&mut self) -> Vec<Always> {
        let file = self.file;
        let mut always = Vec::new();
        for node in file.root.get("always").and_then(Node::list).unwrap_or_default() {
            keys(
                node,
                &["every", "has", "check", "equals", "fits", "rules"],
                "an entry of `always`",
                &mut self.diagnostics,
            );
            if let Some(every) = node.get("every") {
                let name = every.text().unwrap_or_default().to_owned();
                if !matches!(name.as_str(), "frame" | "close") && self.pack.message(&name).is_none() {
                    self.diagnostics.push(unknown_message(every, self.pack));
                }
                for has in self.has(node.get("has")) {
                    always.push(match name.as_str() {
                        "frame" => Always::Frame { check: has.check, pattern: has.pattern },
                        "close" => Always::Close { check: has.check, pattern: has.pattern },
                        _ => Always::Message { message: name.clone(), check: has.check, pattern: has.pattern },
                    });
                }
            } else if let Some(value) = node.get("check") {
                let span = value.span;
                let value = self.template(value);
                let test = self.test(node.get("equals"), node.get("fits"));
                let rules = self.rules(node.get("rules"));
                let check = self.declare(rules, span);
                always.push(Always::Check { check, value, test, span });
            } else {
                self.error(node.span, "an entry of `always` has `every` or `check`", "");
            }
        }
        always
    }

    fn lets(&mut self, node: Option<&Node>) -> Vec<(String, Template)> {
        let mut lets = Vec::new();
        for (key, node) in entries(node) {
            if self.members(&key.name).is_some() {
                self.error(key.span, format!("`{}` is an actor already", key.name), "");
            }
            let template = self.template(node);
            self.bind(&key.name, key.span);
            lets.push((key.name.clone(), template));
        }
        lets
    }

    // ---- names

    fn see(&mut self, name: &str) {
        if let Some(sight) = self.sight.last_mut() {
            sight.names.insert(name.to_owned());
        }
    }

    fn bind(&mut self, name: &str, span: Span) {
        if self.in_sight(name) {
            self.error(span, format!("`{name}` is bound already"), "a name is bound once; choose another");
        } else if matches!(name, "hub" | "self" | "index") || functions::NAMES.contains(&name) {
            self.error(span, format!("`{name}` has a meaning of its own"), "choose another name");
        }
        self.see(name);
    }

    fn in_sight(&self, name: &str) -> bool {
        for sight in self.sight.iter().rev() {
            if sight.names.contains(name) {
                return true;
            }
            if sight.isolated {
                return false;
            }
        }
        false
    }

    fn template(&mut self, node: &Node) -> Template {
        let mut diagnostics = Vec::new();
        let template = Template::read(node, &mut diagnostics);
        self.diagnostics.append(&mut diagnostics);
        let mut used = Vec::new();
        template.expressions(&mut |expression| {
            used.extend(
                expression
                    .uses
                    .iter()
                    .map(|name| (name.clone(), expression.span, expression.source.contains(" defined"))),
            )
        });
        for (name, span, asks) in used {
            self.check_name(&name, span, asks);
        }
        template
    }

    fn check_name(&mut self, dotted: &str, span: Span, asks: bool) {
        let mut pieces = dotted.split('.');
        let root = pieces.next().unwrap_or_default();
        if functions::NAMES.contains(&root) || BUILTIN.contains(&root) || self.in_sight(root) {
            return;
        }
        match root {
            "hub" => {
                if let Some(setting) = self.setting_exists(dotted, span) {
                    let name = pieces.next().unwrap_or_default();
                    let named = |need: &Need| matches!(need, Need::Setting(known) if known == name);
                    if !setting.optional && setting.default.is_none() && !asks && !self.needs.iter().any(named) {
                        self.needs.push(Need::Setting(name.to_owned()));
                    }
                }
                return;
            }
            "self" => {
                if let (Some(role), Some(member)) = (self.myself.clone(), pieces.next()) {
                    self.check_member(&role, member, dotted, span);
                }
                return;
            }
            _ => {}
        }
        if let Some(members) = self.members(root) {
            let role = self.actors.get(members.first().copied().unwrap_or_default()).map(|actor| actor.role.clone());
            if let (Some(role), Some(member)) = (role, pieces.next())
                && !self.groups.contains_key(root)
            {
                self.check_member(&role, member, dotted, span);
            }
            return;
        }
        let mut known: Vec<String> = self.sight.iter().flat_map(|sight| sight.names.iter().cloned()).collect();
        known.extend(self.actors.iter().map(|actor| actor.name.clone()));
        known.extend(functions::NAMES.iter().map(|name| (*name).to_owned()));
        let help = suggest(
            root,
            known.iter().map(String::as_str).collect::<Vec<_>>(),
            "names come from let, `as`, each, actors, and hub",
        );
        self.error(span, format!("nothing here is called `{root}`"), help);
    }

    fn check_member(&mut self, role: &str, member: &str, dotted: &str, span: Span) {
        let Some(role) = self.roles.get(role) else { return };
        let mut known: Vec<String> =
            role.given.iter().map(|(name, _)| name.clone()).chain(role.binds.iter().cloned()).collect();
        known.push("url".to_owned());
        // While its own opening is being read, what it binds is in sight instead.
        if known.iter().any(|name| name == member) || self.in_sight(member) {
            return;
        }
        let help = suggest(member, known.iter().map(String::as_str).collect::<Vec<_>>(), "");
        self.error(
            span,
            format!("`{dotted}`: nothing of that name is given to the role or bound in its opening"),
            help,
        );
    }

    // ---- rules and checks

    fn rules(&mut self, node: Option<&Node>) -> Vec<RuleUse> {
        let Some(node) = node else { return Vec::new() };
        if let Some(place) = self.quiet {
            self.error(node.span, format!("{place} accuses nobody"), "put the rules into a scenario");
        }
        let Some(items) = node.list() else {
            self.error(node.span, "`rules` is a list", "rules: [ABC-001]");
            return Vec::new();
        };
        items.iter().filter_map(|item| self.rule_text(item)).collect()
    }

    fn rule_text(&mut self, node: &Node) -> Option<RuleUse> {
        let Some(text) = node.text() else {
            self.error(node.span, "a rule is named by its id", "");
            return None;
        };
        let resolved;
        let text = if text.contains("${") {
            let row = text.strip_prefix("${").and_then(|t| t.strip_suffix('}')).and_then(|path| self.row(path));
            match row {
                Some(row) => {
                    resolved = row;
                    resolved.as_str()
                }
                None => {
                    self.error(
                        node.span,
                        "a rule id is literal, or stands in a row of a literal `each`",
                        "coverage has to be known before anything runs",
                    );
                    return None;
                }
            }
        } else {
            text
        };
        self.rule(text, node.span)
    }

    /// The text a path leads to in the literal rows around.
    fn row(&self, path: &str) -> Option<String> {
        let mut pieces = path.trim().split('.');
        let root = pieces.next()?;
        let (_, row) = self.rows.iter().rev().find(|(name, _)| name == root)?;
        let value = pieces.try_fold(row, |value, name| value.get(name))?;
        value.as_str().map(str::to_owned)
    }

    fn rule(&mut self, text: &str, span: Span) -> Option<RuleUse> {
        let (id, lowered) = match text.split_once(" as ") {
            Some((id, level)) => match Level::from_name(level.trim()) {
                Some(level) => (id.trim(), Some(level)),
                None => {
                    self.error(
                        span,
                        format!("`{level}` is not a level"),
                        "`as should` or `as may` lowers a rule for this check",
                    );
                    return None;
                }
            },
            None => (text.trim(), None),
        };
        if self.pack.rules.is_empty() {
            return Some(RuleUse {
                id: id.to_owned(),
                level: lowered.unwrap_or(Level::Must),
                basis: Basis::Stated,
                lowered: lowered.is_some(),
            });
        }
        let Some(rule) = self.pack.rules.get(id) else {
            let help = suggest(
                id,
                self.pack.rules.keys().map(String::as_str).collect::<Vec<_>>(),
                &format!("`hubproof packs show {} --rules` lists them", self.pack.name),
            );
            self.error(span, format!("{} has no rule `{id}`", self.pack.name), help);
            return None;
        };
        let (level, basis) = (rule.level, rule.basis);
        match lowered {
            Some(to) if to >= level => {
                self.error(
                    span,
                    format!("{id} is a {} already", level.name()),
                    "a check may lower its rule, never raise it",
                );
                None
            }
            Some(to) => Some(RuleUse { id: id.to_owned(), level: to, basis, lowered: true }),
            None => Some(RuleUse { id: id.to_owned(), level, basis, lowered: false }),
        }
    }

    fn declare(&mut self, rules: Vec<RuleUse>, span: Span) -> CheckId {
        let mut name = rules.iter().map(|rule| rule.id.as_str()).collect::<Vec<_>>().join(",");
        let count = self.check_counts.entry(name.clone()).or_insert(0);
        *count += 1;
        if *count > 1 {
            name = format!("{name}#{count}");
        }
        self.checks.push(Check { name, rules, span });
        self.checks.len() - 1
    }

    fn has(&mut self, node: Option<&Node>) -> Vec<Has> {
        let Some(node) = node else { return Vec::new() };
        if let Some(place) = self.quiet {
            self.error(node.span, format!("{place} accuses nobody"), "put the check into a scenario");
        }
        let Some(entries) = node.map() else {
            self.error(
                node.span,
                "`has` is a mapping of rules and what must be true",
                "has: { ABC-001: { priority: 90 } }",
            );
            return Vec::new();
        };
        let mut has = Vec::new();
        for (key, node) in entries {
            // Several rules may share one line: "ABC-001, ABC-002".
            let rules: Vec<RuleUse> = key.name.split(',').filter_map(|text| self.rule(text, key.span)).collect();
            let pattern = self.pattern(node);
            let check = self.declare(rules, key.span);
            has.push(Has { check, pattern });
        }
        has
    }

    fn pattern(&mut self, node: &Node) -> Pattern {
        let template = self.template(node);
        let mut ready = None;
        if let Some(value) = template.constant() {
            match Matcher::compile(value) {
                Ok(matcher) => ready = Some(Ready::Matcher(matcher)),
                Err(bad) => {
                    let at =
                        if bad.key.is_empty() { node.span } else { node.get(&bad.key).map_or(node.span, |n| n.span) };
                    self.error(at, bad.message, "a name takes a value, a /pointer takes a JSON Schema");
                }
            }
        } else if node.map().is_none() {
            self.error(node.span, "a matcher is a mapping of names and /pointers", "");
        } else {
            for (key, value) in entries(Some(node)) {
                if key.name.starts_with('/')
                    && !matches!(value.kind, Kind::Bool(_) | Kind::Map(_))
                    && value.text().is_none_or(|t| !t.starts_with("${"))
                {
                    self.error(
                        value.span,
                        "a /pointer takes a JSON Schema, true or false",
                        format!("for the value itself write {{ const: {} }}", value.to_json()),
                    );
                } else if key.name.starts_with('/')
                    && let Some(unknown) = json_schema::unknown_keywords(&value.to_json(), &["like"])
                        .into_iter()
                        .find(|u| !u.keyword.contains("${"))
                {
                    let help = suggest(&unknown.keyword, json_schema::KEYWORDS.iter().copied(), "");
                    self.error(value.span, format!("JSON Schema has no `{}`", unknown.keyword), help);
                }
            }
        }
        Pattern { template, ready, schema: false, span: node.span }
    }

    fn test(&mut self, equals: Option<&Node>, fits: Option<&Node>) -> Test {
        match (equals, fits) {
            (Some(equals), None) => Test::Equals(self.template(equals)),
            (None, Some(fits)) => {
                let template = self.template(fits);
                let mut ready = None;
                if let Some(schema) = template.constant() {
                    if let Some(unknown) = json_schema::unknown_keywords(schema, &["like"]).first() {
                        let help = suggest(&unknown.keyword, json_schema::KEYWORDS.iter().copied(), "");
                        self.error(fits.span, format!("JSON Schema has no `{}`", unknown.keyword), help);
                    }
                    match json_schema::validator(schema) {
                        Ok(validator) => ready = Some(Ready::Schema(Box::new(validator))),
                        Err(message) => self.error(fits.span, message, ""),
                    }
                }
                Test::Fits(Pattern { template, ready, schema: true, span: fits.span })
            }
            (None, None) => Test::True,
            (Some(_), Some(fits)) => {
                self.error(fits.span, "`equals` or `fits`, not both", "");
                Test::True
            }
        }
    }

    // ---- steps

    fn push_block(&mut self, steps: Vec<Step>) -> BlockId {
        self.blocks.push(steps);
        self.blocks.len() - 1
    }

    fn block(&mut self, node: &Node) -> BlockId {
        let Some(items) = node.list() else {
            if !node.is_null() {
                self.error(node.span, format!("steps are a list, not {}", node.what()), "each step begins with `- `");
            }
            return self.push_block(Vec::new());
        };
        let steps = items.iter().filter_map(|item| self.step(item)).collect();
        self.push_block(steps)
    }

    /// A block with names of its own; those it binds are known afterwards.
    fn inner(&mut self, node: &Node, names: &[&str]) -> BlockId {
        self.sight.push(Sight { names: names.iter().map(|n| (*n).to_owned()).collect(), isolated: false });
        let block = self.block(node);
        if let Some(sight) = self.sight.pop() {
            for name in sight.names {
                if !names.contains(&name.as_str()) {
                    self.see(&name);
                }
            }
        }
        block
    }

    fn step(&mut self, node: &Node) -> Option<Step> {
        let Some(all) = node.map().filter(|entries| !entries.is_empty()) else {
            self.error(
                node.span,
                format!("a step is a mapping that begins with who does what, not {}", node.what()),
                "- anna sends: hello",
            );
            return None;
        };
        let Some((position, head)) =
            all.iter().enumerate().find_map(|(i, (key, _))| head(&key.name).map(|head| (i, head)))
        else {
            let key = &all[0].0;
            let verb = key.name.split_once(' ').map_or(key.name.as_str(), |(_, verb)| verb);
            let verbs: Vec<&str> = VERBS.iter().map(|v| v.0).chain(WORDS.iter().map(|w| w.0)).collect();
            self.error(
                key.span,
                format!("`{}` is not a step", key.name),
                suggest(verb, verbs, "a step begins with `ACTOR VERB`; scenarios/README.md lists the verbs"),
            );
            return None;
        };
        let (key, value) = &all[position];
        if position != 0 {
            self.error(key.span, "the head of a step comes first", "");
        }
        let options: Vec<(&Key, &Node)> =
            all.iter().enumerate().filter(|(i, _)| *i != position).map(|(_, (key, node))| (key, node)).collect();
        for (option, _) in &options {
            let name = option.name.as_str();
            if !matches!(name, "as" | "if") && !head.verb.options().contains(&name) {
                let known: Vec<&str> = head.verb.options().iter().copied().chain(["as", "if"]).collect();
                let verb = key.name.trim_start_matches(head.actor).trim().to_owned();
                self.error(option.span, format!("`{name}` does not belong to `{verb}`"), suggest(name, known, ""));
            }
        }
        let get = |name: &str| options.iter().find(|(key, _)| key.name == name).map(|(_, node)| *node);
        let who = self.who(&head, key)?;
        if let Some(node) = get("if") {
            match node.text() {
                Some(name) if self.in_sight(name) => {}
                Some(name) => self.error(
                    node.span,
                    format!("nothing here is called `{name}`"),
                    "`if` takes the name that an `as` may have bound",
                ),
                None => self.error(node.span, "`if` takes a name", ""),
            }
        }
        let rules = self.rules(get("rules"));
        let act = self.act(head.verb, key, value, &get, &who);
        let needs_rules = matches!(head.verb, Verb::ExpectsNothing | Verb::Check | Verb::Order);
        if needs_rules && rules.is_empty() && self.quiet.is_none() {
            self.error(
                key.span,
                format!("`{}` without rules judges nothing", key.name),
                "name the rules it proves: `rules: [ABC-001]`",
            );
        }
        let check = (!rules.is_empty() && head.verb.accuses()).then(|| self.declare(rules, key.span));
        let as_ = match get("as") {
            Some(node) => match node.text() {
                Some(name) if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {
                    let name = name.to_owned();
                    self.bind(&name, node.span);
                    Some(name)
                }
                _ => {
                    self.error(node.span, "`as` takes a name of letters, digits and _", "");
                    None
                }
            },
            None => None,
        };
        let if_ = get("if").and_then(Node::text).map(str::to_owned);
        let text = match value.text() {
            Some(value) => format!("{}: {}", key.name, crate::matcher::cut(value, 80)),
            None => key.name.clone(),
        };
        Some(Step { span: key.span, text, who, as_, if_, check, act: act? })
    }

    fn who(&mut self, head: &Head<'_>, key: &Key) -> Option<Who> {
        if WORDS.iter().any(|(word, _)| *word == key.name) {
            return Some(Who::Nobody);
        }
        if head.actor.is_empty() {
            return Some(Who::Myself);
        }
        if self.members(head.actor).is_none() {
            // An actor named like its role needs no line.
            let roles = entries(self.file.root.get("roles"));
            if roles.iter().any(|(role, _)| role.name == head.actor) {
                self.actor(head.actor, head.actor, key.span, key.span);
            }
        }
        let Some(members) = self.members(head.actor) else {
            let known: Vec<String> =
                self.actors.iter().map(|a| a.name.clone()).chain(self.groups.keys().cloned()).collect();
            let help = suggest(
                head.actor,
                known.iter().map(String::as_str).collect::<Vec<_>>(),
                "actors stand under `actors`",
            );
            self.error(key.span, format!("there is no actor `{}`", head.actor), help);
            return None;
        };
        if self.groups.contains_key(head.actor) {
            return Some(Who::Group { members, quantity: head.quantity });
        }
        if head.quantity.is_some() {
            self.error(key.span, format!("`{}` is one actor", head.actor), "a number counts the members of a group");
        }
        members.first().map(|id| Who::One(*id))
    }

    /// Notes that actors connect here, for `each` and for the connection budget.
    fn connects(&mut self, who: &Who) {
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

    fn act<'n>(
        &mut self,
        verb: Verb,
        key: &Key,
        value: &'n Node,
        get: &dyn Fn(&str) -> Option<&'n Node>,
        who: &Who,
    ) -> Option<Act> {
        let role = match who {
            Who::One(id) => self.actors.get(*id).map(|actor| actor.role.clone()),
            Who::Group { members, .. } => {
                members.first().and_then(|id| self.actors.get(*id)).map(|actor| actor.role.clone())
            }
            Who::Myself => self.myself.clone(),
            Who::Nobody => None,
        };
        let outer = std::mem::replace(&mut self.myself, role);
        let act = self.act_of(verb, key, value, get, who);
        self.myself = outer;
        act
    }

    fn act_of<'n>(
        &mut self,
        verb: Verb,
        key: &Key,
        value: &'n Node,
        get: &dyn Fn(&str) -> Option<&'n Node>,
        who: &Who,
    ) -> Option<Act> {
        Some(match verb {
            Verb::Joins => {
                self.empty(value, key);
                self.connects(who);
                let with = entries(get("with")).iter().map(|(key, node)| (key, node)).collect::<Vec<_>>();
                let given: Vec<String> = self
                    .myself
                    .as_ref()
                    .and_then(|role| self.roles.get(role))
                    .map(|role| role.given.iter().map(|(name, _)| name.clone()).collect())
                    .unwrap_or_default();
                let mut overrides = Vec::new();
                for (key, node) in with {
                    if !given.contains(&key.name) {
                        let help = suggest(&key.name, given.iter().map(String::as_str).collect::<Vec<_>>(), "");
                        self.error(key.span, format!("the role is given no `{}`", key.name), help);
                    }
                    overrides.push((key.name.clone(), self.template(node)));
                }
                Act::Join { with: overrides }
            }
            Verb::Connects | Verb::TriesToConnect => {
                self.connects(who);
                let path = (!value.is_null()).then(|| self.template(value));
                let mut option = |name: &str| get(name).map(|node| self.template(node));
                Act::Connect(Box::new(Connect {
                    path,
                    query: option("query"),
                    headers: option("headers"),
                    subprotocols: option("subprotocols"),
                    from: option("from"),
                    tries: verb == Verb::TriesToConnect,
                }))
            }
            Verb::Accepts => {
                self.empty(value, key);
                self.connects(who);
                Act::Accept
            }
            Verb::Sends | Verb::Compose => {
                let compose = self.compose(value, get)?;
                if verb == Verb::Sends { Act::Send(Box::new(compose)) } else { Act::Compose(Box::new(compose)) }
            }
            Verb::SendsRaw => {
                keys(value, &["text", "binary", "frames", "bytes"], "`sends raw`", &mut self.diagnostics);
                if value.map().is_none_or(|entries| entries.len() != 1) {
                    self.error(
                        value.span,
                        "`sends raw` takes one of text, binary, frames, bytes",
                        "sends raw: { text: '{' }",
                    );
                }
                Act::SendRaw(self.template(value))
            }
            Verb::Closes => {
                Act::Close { code: self.template(value), reason: get("reason").map(|node| self.template(node)) }
            }
            Verb::Drops => Act::Drop {
                reset: match value.text() {
                    Some("reset") => true,
                    Some("fin") => false,
                    None if value.is_null() => false,
                    _ => {
                        self.error(
                            value.span,
                            "`drops` takes reset or fin",
                            "reset breaks the connection, fin ends it without a close frame",
                        );
                        false
                    }
                },
            },
            Verb::StopsReading => {
                self.empty(value, key);
                Act::StopReading
            }
            Verb::ReadsAgain => {
                self.empty(value, key);
                Act::ReadAgain
            }
            Verb::Expects => {
                let message = self.message_name(value, Some(Way::FromHub));
                let pattern = get("where").map(|node| self.pattern(node));
                let want = Want::Message { message, pattern };
                Act::Expect(Box::new(self.expect(want, get)))
            }
            Verb::ExpectsClose => {
                let codes = self.codes(value);
                Act::Expect(Box::new(self.expect(Want::Close(codes), get)))
            }
            Verb::ExpectsRefusal => {
                let codes = self.codes(value);
                Act::Expect(Box::new(self.expect(Want::Refusal(codes), get)))
            }
            Verb::ExpectsFrame => {
                let pong = match value.text() {
                    Some("pong") => true,
                    Some("ping") => false,
                    _ => {
                        self.error(value.span, "`expects frame` takes ping or pong", "");
                        true
                    }
                };
                let pattern = get("where").map(|node| self.pattern(node));
                Act::Expect(Box::new(self.expect(Want::Control { pong, pattern }, get)))
            }
            Verb::ExpectsNothing => {
                let message = self.message_name(value, Some(Way::FromHub));
                let pattern = get("where").map(|node| self.pattern(node));
                Act::ExpectNothing {
                    message,
                    pattern,
                    after: self.after(get("after")),
                    for_: get("for").map(|node| self.time(node)),
                }
            }
            Verb::ExpectsOneOf => Act::ExpectOneOf {
                alternatives: self.alternatives(value),
                after: self.after(get("after")),
                within: get("within").map(|node| self.time(node)),
            },
            Verb::Plays | Verb::Play => {
                let name = value.text().unwrap_or_default().to_owned();
                let (scene, given) = self.scene(&name, value.span)?;
                let mut with = Vec::new();
                for (key, node) in entries(get("with")) {
                    if !given.iter().any(|(known, _)| *known == key.name) {
                        let help = suggest(&key.name, given.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), "");
                        self.error(key.span, format!("the scene `{name}` is given no `{}`", key.name), help);
                    }
                    with.push((key.name.clone(), self.template(node)));
                }
                Act::Play { scene, given, with }
            }
            Verb::Hook => self.hook(value, get)?,
            Verb::Wait => {
                if get("because").and_then(Node::text).is_none() {
                    self.error(key.span, "`wait` needs a reason", "because: what the hub is given time for");
                }
                Act::Wait { time: self.time(value) }
            }
            Verb::Check => Act::Check { value: self.template(value), test: self.test(get("equals"), get("fits")) },
            Verb::Order => {
                let mut names = Vec::new();
                for node in value.list().unwrap_or_default() {
                    match node.text() {
                        Some(name) if self.in_sight(name) => names.push(name.to_owned()),
                        _ => self.error(
                            node.span,
                            format!("nothing here is called `{}`", node.text().unwrap_or_default()),
                            "`order` takes names bound by `as`",
                        ),
                    }
                }
                if names.len() < 2 {
                    self.error(value.span, "`order` takes at least two names", "order: [first, second]");
                }
                Act::Order(Order { names, slack: get("slack").map(|node| self.time(node)) })
            }
            Verb::Each => self.each(value, get)?,
            Verb::Either => {
                let name = self.new_name(value)?;
                let values = {
                    let node = self.needed(key, "in", get)?;
                    self.template(node)
                };
                let steps = self.needed(key, "do", get)?;
                let body = self.inner(steps, &[&name]);
                self.see(&name);
                Act::Either { name, values, body }
            }
            Verb::Retry => {
                let time = self.time(value);
                let steps = self.needed(key, "do", get)?;
                let body = self.inner(steps, &[]);
                Act::Retry { time, body }
            }
        })
    }

    fn needed<'n>(&mut self, key: &Key, option: &str, get: &dyn Fn(&str) -> Option<&'n Node>) -> Option<&'n Node> {
        let node = get(option);
        if node.is_none() {
            self.error(key.span, format!("`{}` has no `{option}`", key.name), "");
        }
        node
    }

    fn empty(&mut self, value: &Node, key: &Key) {
        if !value.is_null() {
            self.error(
                value.span,
                format!("`{}` takes no value", key.name),
                "options stand under the first letter of the step",
            );
        }
    }

    fn after(&mut self, node: Option<&Node>) -> Option<String> {
        let node = node?;
        match node.text() {
            Some(name) if self.in_sight(name) => Some(name.to_owned()),
            other => {
                self.error(
                    node.span,
                    format!("nothing here is called `{}`", other.unwrap_or_default()),
                    "`after` takes a name bound by `as`",
                );
                None
            }
        }
    }

    fn new_name(&mut self, node: &Node) -> Option<String> {
        match node.text() {
            Some(name) if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.is_empty() => {
                if self.in_sight(name) {
                    self.error(node.span, format!("`{name}` is bound already"), "choose another name");
                }
                Some(name.to_owned())
            }
            _ => {
                self.error(node.span, "a name of letters, digits and _ belongs here", "");
                None
            }
        }
    }

    fn time(&mut self, node: &Node) -> Template {
        let template = self.template(node);
        if let Some(value) = template.constant() {
            let problem = match value {
                Value::String(text) => duration(text).err(),
                other => Some(format!("`{other}` has no unit: write {other}s or {other}ms")),
            };
            if let Some(problem) = problem {
                self.error(node.span, problem, "");
            }
        }
        template
    }

    fn codes(&mut self, node: &Node) -> Codes {
        let mut codes = Codes::default();
        let single = std::slice::from_ref(node);
        for item in node.list().unwrap_or(single) {
            match &item.kind {
                Kind::Number(n) if n.as_u64().is_some_and(|n| n <= 4999) => {
                    codes.codes.push(n.as_u64().unwrap_or_default() as u16)
                }
                Kind::Text(text) if text.value == "any" => codes.any = true,
                Kind::Text(text) if text.value == "drop" => codes.drop = true,
                _ => self.error(item.span, "a code is a number, any or drop", "expects close: [4004, drop]"),
            }
        }
        codes
    }

    fn expect<'n>(&mut self, want: Want, get: &dyn Fn(&str) -> Option<&'n Node>) -> Expect {
        let count = get("count").and_then(|node| self.count(node));
        Expect {
            want,
            after: self.after(get("after")),
            within: get("within").map(|node| self.time(node)),
            count,
            for_: get("for").map(|node| self.time(node)),
            has: self.has(get("has")),
        }
    }

    fn count(&mut self, node: &Node) -> Option<Count> {
        let number = |node: &Node| match &node.kind {
            Kind::Number(n) => n.as_u64().map(|n| n as usize),
            _ => None,
        };
        if let Some(n) = number(node) {
            return Some(Count { min: n, max: Some(n) });
        }
        keys(node, &["min", "max"], "`count`", &mut self.diagnostics);
        let bounds = (node.get("min").and_then(number), node.get("max").and_then(number));
        if bounds == (None, None) {
            self.error(node.span, "`count` is a number, or { min, max }", "");
            return None;
        }
        Some(Count { min: bounds.0.unwrap_or(0), max: bounds.1 })
    }

    fn alternatives(&mut self, node: &Node) -> Vec<Alternative> {
        let Some(items) = node.list() else {
            self.error(node.span, "`expects one of` takes a list", "- message: hello");
            return Vec::new();
        };
        let mut alternatives = Vec::new();
        for item in items {
            keys(
                item,
                &["message", "close", "refusal", "nothing", "where", "as", "warn", "info"],
                "an alternative",
                &mut self.diagnostics,
            );
            let pattern = item.get("where").map(|n| self.pattern(n));
            let (want, text) = if let Some(message) = item.get("message") {
                (
                    Some(Want::Message { message: self.message_name(message, Some(Way::FromHub)), pattern }),
                    format!("message {}", message.text().unwrap_or_default()),
                )
            } else if let Some(codes) = item.get("close") {
                (Some(Want::Close(self.codes(codes))), format!("close {}", codes.to_json()))
            } else if let Some(codes) = item.get("refusal") {
                (Some(Want::Refusal(self.codes(codes))), format!("refusal {}", codes.to_json()))
            } else if item.get("nothing").is_some() {
                (None, "nothing".to_owned())
            } else {
                self.error(item.span, "an alternative is a message, a close, a refusal or nothing", "");
                continue;
            };
            let as_ = item.get("as").and_then(Node::text).map(str::to_owned);
            if let Some(name) = &as_ {
                self.see(name);
            }
            let text_of = |name: &str| item.get(name).and_then(Node::text).map(str::to_owned);
            alternatives.push(Alternative { want, as_, warn: text_of("warn"), info: text_of("info"), text });
        }
        alternatives
    }

    fn message_name(&mut self, node: &Node, way: Option<Way>) -> MessageName {
        let Some(name) = node.text() else {
            self.error(
                node.span,
                "a message is named here",
                &*format!("`hubproof packs show {}` lists them", self.pack.name),
            );
            return MessageName::Any;
        };
        if name.contains("${") {
            return MessageName::Computed(self.template(node));
        }
        if name == "any" && way.is_some() {
            return MessageName::Any;
        }
        match self.pack.message(name) {
            None => self.diagnostics.push(unknown_message(node, self.pack)),
            Some(message) => {
                let server = self.myself.as_ref().and_then(|role| self.roles.get(role)).is_some_and(|role| role.server);
                if way == Some(Way::FromHub) && !message.directions.from_hub && !server {
                    let other: Vec<&str> =
                        self.pack.messages.iter().filter(|m| m.directions.from_hub).map(|m| m.name.as_str()).collect();
                    let help = suggest(name, other, "");
                    self.error(node.span, format!("a hub never sends `{name}`"), help);
                }
            }
        }
        MessageName::Named(name.to_owned())
    }

    fn compose<'n>(&mut self, value: &'n Node, get: &dyn Fn(&str) -> Option<&'n Node>) -> Option<Compose> {
        let message = self.message_name(value, None);
        let breaks = get("breaks").map(|node| match node.text() {
            Some(reason) => reason.to_owned(),
            None => {
                self.error(node.span, "`breaks` takes a reason", "what is wrong with the message, in words");
                String::new()
            }
        });
        let with = get("with").map(|node| self.template(node));
        let mut without = Vec::new();
        for node in get("without").and_then(Node::list).unwrap_or_default() {
            match node.text() {
                Some(pointer) if pointer.starts_with('/') => without.push(pointer.to_owned()),
                _ => self.error(node.span, "`without` takes pointers", "without: [/timestamp]"),
            }
        }
        let fragments = match get("fragments").map(|node| (node, &node.kind)) {
            None => 1,
            Some((_, Kind::Number(n))) if n.as_u64().is_some_and(|n| (1..=10_000).contains(&n)) => {
                n.as_u64().unwrap_or(1) as usize
            }
            Some((node, _)) => {
                self.error(node.span, "`fragments` is a number from 1 to 10000", "");
                1
            }
        };
        let compose = Compose { message, with, without, fragments, breaks };
        self.check_composed(&compose, value, get("with"));
        Some(compose)
    }

    /// What can be said about a message of ours before it is sent.
    fn check_composed(&mut self, compose: &Compose, name_node: &Node, with: Option<&Node>) {
        let MessageName::Named(name) = &compose.message else { return };
        let pack = Arc::clone(self.pack);
        let Some(message) = pack.message(name) else { return };
        let server = self.myself.as_ref().and_then(|role| self.roles.get(role)).is_some_and(|role| role.server);
        let wrong_way = if server { !message.directions.from_hub } else { !message.directions.to_hub };
        if compose.breaks.is_none() {
            if wrong_way && self.quiet != Some("a reaction") {
                self.error(
                    name_node.span,
                    format!("only a hub sends `{name}`"),
                    "say why with `breaks: ...` if that is meant",
                );
            }
            for (path, span) in with.map(override_paths).unwrap_or_default() {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                let known = pack
                    .messages
                    .iter()
                    .filter(|m| m.name == *name || message.abstract_)
                    .any(|m| m.schema.documents(&path));
                if !known {
                    let (last, parent) = path.split_last().map_or(("", &path[..]), |(last, parent)| (*last, parent));
                    let members = message.schema.members(parent);
                    self.diagnostics.push(
                        Diagnostic::warning(
                            span,
                            format!("no form of `{name}` documents a member `{}`", path.join("/")),
                        )
                        .help(suggest(
                            last,
                            members.iter().map(String::as_str).collect::<Vec<_>>(),
                            "",
                        )),
                    );
                }
            }
        }
        // Only where nothing is computed; the rest is checked when it is sent.
        let Some(overrides) = compose.with.as_ref().map_or(Some(Value::Null), |with| with.constant().cloned()) else {
            return;
        };
        let mut built = message.template();
        compose::merge(&mut built, &overrides);
        compose::remove(&mut built, &compose.without);
        let broken = message.schema.judge(&built).into_iter().find(|v| !v.should);
        match (&compose.breaks, broken) {
            (None, Some(violation)) => self.error(
                name_node.span,
                format!(
                    "`{name}` as it would be sent breaks its schema at `{}`: expected {}, found {}",
                    violation.path, violation.expected, violation.found
                ),
                "say why with `breaks: ...` if that is meant",
            ),
            (Some(_), None) if !wrong_way => self.error(
                name_node.span,
                format!("`{name}` is right as it is, so nothing is broken"),
                "remove `breaks`, or break it",
            ),
            _ => {}
        }
    }

    fn hook<'n>(&mut self, value: &'n Node, get: &dyn Fn(&str) -> Option<&'n Node>) -> Option<Act> {
        let name = value.text().unwrap_or_default().to_owned();
        let file = self.file;
        let Some(declaration) = file.shared.hooks.get(&name) else {
            let known: Vec<&str> = file.shared.hooks.keys().map(String::as_str).collect();
            self.error(
                value.span,
                format!("{} has no hook `{name}`", self.pack.name),
                suggest(&name, known, "hooks are declared in shared.yaml"),
            );
            return None;
        };
        for (key, _) in entries(get("args")) {
            if !declaration.args.contains(&key.name) {
                let help = suggest(&key.name, declaration.args.iter().map(String::as_str).collect::<Vec<_>>(), "");
                self.error(key.span, format!("the hook `{name}` takes no `{}`", key.name), help);
            }
        }
        if !self.needs.iter().any(|need| matches!(need, Need::Hook(known) if *known == name)) {
            self.needs.push(Need::Hook(name.clone()));
        }
        let args = get("args").map(|node| self.template(node));
        let message = match get("message") {
            Some(node) => {
                if !declaration.message {
                    self.error(node.span, format!("the hook `{name}` takes no message"), "");
                }
                let message = self.message_name(node, None);
                let with = get("with").map(|node| self.template(node));
                let without = get("without")
                    .and_then(Node::list)
                    .unwrap_or_default()
                    .iter()
                    .filter_map(|n| n.text().map(str::to_owned))
                    .collect();
                Some(Compose { message, with, without, fragments: 1, breaks: None })
            }
            None => None,
        };
        let pattern = get("where").map(|node| self.pattern(node));
        Some(Act::Hook(Box::new(Hook {
            name,
            args,
            message,
            pattern,
            within: get("within").map(|node| self.time(node)),
            has: self.has(get("has")),
        })))
    }

    fn each<'n>(&mut self, value: &'n Node, get: &dyn Fn(&str) -> Option<&'n Node>) -> Option<Act> {
        let name = self.new_name(value)?;
        let (Some(list), Some(steps)) = (get("in"), get("do")) else {
            self.error(value.span, "`each` has `in` and `do`", "each: x, in: [a, b], do: [...]");
            return None;
        };
        let values = self.template(list);
        self.fresh.push(BTreeSet::new());
        let names = [name.as_str(), "index"];
        let bodies = if uses_rows(steps) {
            let Some(rows) = list.list() else {
                self.error(list.span, "rule ids in rows need a literal list", "");
                return None;
            };
            let mut bodies = Vec::new();
            // Names bound inside become lists once, however many bodies there are.
            let seen: BTreeSet<String> = self.sight.last().map(|sight| sight.names.clone()).unwrap_or_default();
            for row in rows {
                if let Some(sight) = self.sight.last_mut() {
                    sight.names.clone_from(&seen);
                }
                self.rows.push((name.clone(), row.to_json()));
                bodies.push(self.inner(steps, &names));
                self.rows.pop();
                // The same actors are fresh in every row.
                if let Some(fresh) = self.fresh.last() {
                    for id in fresh.clone() {
                        self.connected.remove(&id);
                    }
                }
            }
            bodies
        } else {
            vec![self.inner(steps, &names)]
        };
        let fresh: Vec<ActorId> = self.fresh.pop().unwrap_or_default().into_iter().collect();
        self.connected.extend(fresh.iter().copied());
        Some(Act::Each { name, values, bodies, fresh })
    }
}

/// Whether any step inside names its rules by a row.
fn uses_rows(node: &Node) -> bool {
    match &node.kind {
        Kind::List(items) => items.iter().any(uses_rows),
        Kind::Map(entries) => entries.iter().any(|(key, node)| {
            if key.name == "rules" {
                return node
                    .list()
                    .unwrap_or_default()
                    .iter()
                    .any(|item| item.text().is_some_and(|t| t.contains("${")));
            }
            key.name == "do" && uses_rows(node)
                || !matches!(key.name.as_str(), "with" | "where" | "has") && node.list().is_some() && uses_rows(node)
        }),
        _ => false,
    }
}

/// The member paths that a `with` touches, with where each stands.
fn override_paths(with: &Node) -> Vec<(Vec<String>, Span)> {
    fn walk(node: &Node, path: &[String], found: &mut Vec<(Vec<String>, Span)>) {
        for (key, value) in entries(Some(node)) {
            let mut path = path.to_vec();
            if let Some(pointer) = key.name.strip_prefix('/') {
                path.extend(pointer.split('/').map(str::to_owned));
                found.push((path, key.span));
                continue;
            }
            path.push(key.name.clone());
            match value.map() {
                Some(inner) if !inner.is_empty() => walk(value, &path, found),
                _ => found.push((path, key.span)),
            }
        }
    }
    let mut found = Vec::new();
    walk(with, &[], &mut found);
    found
}
