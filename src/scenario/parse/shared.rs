//! Parses shared.yaml: settings and hooks once, and roles, scenes, reactions and `always` for each scenario that uses
//! them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::actors::StepActorNames;
use super::lifecycles::LIFECYCLE_KEYS;
use super::names::{BlockScope, NameOrigin};
use super::rules::MatcherSubject;
use super::shapes::ValueShape;
use super::{ScenarioParser, StepPlace};
use crate::protocol::Pack;
use crate::scenario::compose;
use crate::scenario::model::{
    AlwaysEntry, BlockId, HookDeclaration, MessageName, Reaction, Role, SettingDeclaration, SharedDefinitions,
    StepAction, VariationExclusion, duration,
};
use crate::scenario::template::Template;
use crate::scenario::variation::{PreludePlace, Variation};
use crate::syntax::diagnostic::{Diagnostic, ValueError, suggest};
use crate::syntax::fields::{check_name, choice, entries, flag, integer, line_text, list, mapping, named, table, text};
use crate::syntax::grammar::FileFormat;
use crate::syntax::source::Span;
use crate::syntax::yaml::{NodeKey, SyntaxNode};

/// shared.yaml: the parts that are parsed once, and the tree of the parts that each scenario compiles.
pub struct SharedFile {
    pub shared: Arc<SharedDefinitions>,
    pub(super) root: SyntaxNode,
}

const GIVEN: &str = "given: { NAME: VALUE }";
const PRELUDES: &str = "preludes: { NAME: { ROLE: SCENE } }";

impl SharedFile {
    /// Parses settings, hooks and `ignore`, and checks only the shape of the rest.
    pub fn parse(root: SyntaxNode, pack: &Pack, diagnostics: &mut Vec<Diagnostic>) -> Self {
        let mut shared = SharedDefinitions::default();
        table(&root, &FileFormat::Shared.keys(""), "shared.yaml", diagnostics);
        for (key, node) in named(root.get("hub"), "`hub`", "a setting", "hub: { NAME: { about: ... } }", diagnostics) {
            shared.settings.insert(key.name.clone(), parse_setting(key, node, diagnostics));
        }
        for (key, node) in named(root.get("hooks"), "`hooks`", "a hook", "hooks: { NAME: { about: ... } }", diagnostics)
        {
            shared.hooks.insert(key.name.clone(), parse_hook_declaration(node, diagnostics));
        }
        for node in list(root.get("ignore"), "`ignore`", "ignore: [MESSAGE]", diagnostics) {
            match node.text() {
                Some(name) if pack.message(name).is_some() => shared.ignore.push(name.to_owned()),
                _ => diagnostics.push(unknown_message_error(node, pack)),
            }
        }
        for name in ["reactions", "roles", "scenes"] {
            let example = format!("{name}: {{ NAME: {{ ... }} }}");
            named(root.get(name), &format!("`{name}`"), "a role, scene or reaction", &example, diagnostics);
        }
        check_fills_used(root.get("fills"), pack, diagnostics);
        for (name, role) in entries(root.get("roles")) {
            check_fills_used(role.get("fills"), pack, diagnostics);
            let given = entries(role.get("given")).iter().map(|(key, _)| key.name.clone());
            shared.roles.insert(name.name.clone(), given.collect());
            let steps = role.get("opening").and_then(SyntaxNode::list).unwrap_or_default();
            let sent = steps.iter().filter_map(|step| Some(step.get("sends")?.text()?.to_owned()));
            shared.opening_messages.insert(name.name.clone(), sent.collect());
        }
        parse_variations(&root, &mut shared, diagnostics);
        Self { shared: Arc::new(shared), root }
    }

    /// Checks that the exceptions of `variations` name scenarios of the pack.
    pub fn check_exceptions(&self, scenarios: &[&str]) -> Vec<Diagnostic> {
        let named = self.shared.unvaried.iter().flat_map(|entry| &entry.scenarios);
        let unknown = named.filter(|(name, _)| !scenarios.contains(&name.as_str()));
        let mistake = |(name, at): &(String, Span)| {
            let help = suggest(name, scenarios.iter().copied(), "a scenario has the name of its file");
            Diagnostic::error(*at, format!("there is no scenario `{name}`")).help(help)
        };
        unknown.map(mistake).collect()
    }

    /// Returns where a role is declared.
    pub fn role_span(&self, name: &str) -> Option<Span> {
        entries(self.root.get("roles")).iter().find(|(key, _)| key.name == name).map(|(key, _)| key.span)
    }

    /// Returns the diagnostics of roles, scenes, reactions and `always`, whether or not a scenario uses them.
    pub fn check(&self, pack: &Arc<Pack>) -> Vec<Diagnostic> {
        let mut parser = ScenarioParser::new(self, pack);
        for (key, _) in entries(self.root.get("roles")) {
            parser.parse_role(&key.name, key.span);
        }
        for (key, _) in entries(self.root.get("reactions")) {
            parser.parse_reaction(&key.name, key.span);
        }
        parser.parse_always();
        // The actors of a scene are not known here.
        parser.any_actor = true;
        for (key, _) in entries(self.root.get("scenes")) {
            parser.parse_scene(&key.name, key.span);
        }
        parser.check_fuzz();
        crate::syntax::diagnostic::without_duplicates(parser.diagnostics)
    }
}

/// Parses `variations` apart from the scenes that preludes name.
fn parse_variations(root: &SyntaxNode, shared: &mut SharedDefinitions, diagnostics: &mut Vec<Diagnostic>) {
    let Some(node) = root.get("variations") else { return };
    shared.declares_variations = true;
    table(node, &["preludes", "except"], "`variations`", diagnostics);
    for (key, roles) in named(node.get("preludes"), "`preludes`", "a prelude", PRELUDES, diagnostics) {
        shared.preludes.insert(key.name.clone());
        for (role, _) in mapping(Some(roles), "a prelude", PRELUDES, diagnostics) {
            if !shared.roles.contains_key(&role.name) {
                let known = shared.roles.keys().map(String::as_str);
                let help = suggest(&role.name, known, "roles are declared under `roles`");
                diagnostics.push(Diagnostic::error(role.span, format!("there is no role `{}`", role.name)).help(help));
            }
        }
    }
    let example = "except: [ { variations: [NAME], scenarios: [NAME], because: REASON } ]";
    for entry in list(node.get("except"), "`except`", example, diagnostics) {
        let members = table(entry, &["variations", "scenarios", "because"], "an entry of `except`", diagnostics);
        let because = members.required("because", "say what the document leaves open here", diagnostics);
        text(because, "`because`", diagnostics);
        let mut names = |key: &str| -> Vec<(String, Span)> {
            let nodes = list(entry.get(key), &format!("`{key}`"), &format!("{key}: [NAME]"), diagnostics);
            let named = nodes.iter().map(|node| (text(Some(node), "a name", diagnostics), node.span));
            named.filter_map(|(name, span)| Some((name?.to_owned(), span))).collect()
        };
        let (variations, scenarios) = (names("variations"), names("scenarios"));
        for (name, at) in &variations {
            let known = match name.parse() {
                Ok(Variation::Prelude(_, prelude)) => shared.preludes.contains(&*prelude),
                Ok(_) => true,
                // The variations of all preludes.
                Err(_) => PreludePlace::from_word(name).is_some(),
            };
            if !known {
                let help = "`hubproof check --list` lists the variations";
                diagnostics.push(Diagnostic::error(*at, format!("there is no variation `{name}`")).help(help));
            }
        }
        let variations = variations.into_iter().map(|(name, _)| name).collect();
        shared.unvaried.push(VariationExclusion { variations, scenarios });
    }
}

fn parse_setting(key: &NodeKey, node: &SyntaxNode, diagnostics: &mut Vec<Diagnostic>) -> SettingDeclaration {
    let before = diagnostics.len();
    table(node, &["default", "secret", "optional", "about", "line"], "a setting", diagnostics);
    if let Some(default) = node.get("default")
        && let Some(error) = default.text().and_then(time_error)
    {
        diagnostics.push(error.at(default.span));
    }
    let setting = SettingDeclaration {
        default: node.get("default").map(SyntaxNode::to_json),
        secret: flag(node.get("secret"), "`secret`", diagnostics),
        optional: flag(node.get("optional"), "`optional`", diagnostics),
        about: line_text(node.get("about"), "`about`", diagnostics).unwrap_or_default(),
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
fn time_error(text: &str) -> Option<ValueError> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (amount, unit) = text.split_at(at);
    let unit = unit.trim_end_matches('s');
    let meant = matches!(
        unit,
        "h" | "hr" | "hour" | "min" | "minute" | "sec" | "second" | "d" | "day" | "milli" | "u" | "m" | ""
    );
    (meant && amount.trim().parse::<f64>().is_ok()).then(|| duration(text).err()).flatten()
}

fn parse_hook_declaration(node: &SyntaxNode, diagnostics: &mut Vec<Diagnostic>) -> HookDeclaration {
    table(node, &["message", "args", "returns", "about"], "a hook", diagnostics);
    let mut names = |key: &str, what: &str| -> Vec<String> {
        let items = list(node.get(key), &format!("`{key}`"), &format!("{key}: [name]"), diagnostics);
        let named = items.iter().filter_map(|item| Some((item.span, text(Some(item), what, diagnostics)?)));
        let named: Vec<_> = named.collect();
        named.iter().for_each(|(at, name)| check_name(name, what, *at, diagnostics));
        named.into_iter().map(|(_, name)| name.to_owned()).collect()
    };
    let (args, returns) = (names("args", "an argument"), names("returns", "a member of the answer"));
    HookDeclaration {
        message: flag(node.get("message"), "`message`", diagnostics),
        args,
        returns,
        about: line_text(node.get("about"), "`about`", diagnostics).unwrap_or_default(),
    }
}

pub fn unknown_message_error(node: &SyntaxNode, pack: &Pack) -> Diagnostic {
    let lists = format!("`hubproof packs show {}` lists all {} messages", pack.name, pack.messages.len());
    let Some(name) = node.text() else {
        let found = if node.is_null() {
            "a message is missing".to_owned()
        } else {
            format!("expected the name of a message, found {}", node.describe_kind())
        };
        return Diagnostic::error(node.span, found).help(lists);
    };
    let known: Vec<&str> = pack.messages.iter().map(|m| m.name.as_str()).collect();
    Diagnostic::error(node.span, format!("{} has no message `{name}`", pack.name)).help(suggest(name, known, &lists))
}

/// Warns about a member under `fills` that no example has.
fn check_fills_used(fills: Option<&SyntaxNode>, pack: &Pack, diagnostics: &mut Vec<Diagnostic>) {
    let members = mapping(fills, "`fills`", "fills: { MEMBER: VALUE }", diagnostics);
    if members.is_empty() {
        return;
    }
    let examples: Vec<Value> = pack.messages.iter().map(|message| message.starting_value()).collect();
    for (key, _) in members {
        let (only, _) = compose::fill_place(&key.name);
        if let Some(name) = only.filter(|name| pack.message(name).is_none()) {
            let known: Vec<&str> = pack.messages.iter().map(|message| message.name.as_str()).collect();
            let help = suggest(name, known, "write `MEMBER`, `/pointer` or `MESSAGE/pointer`");
            diagnostics.push(Diagnostic::error(key.span, format!("{} has no message `{name}`", pack.name)).help(help));
            continue;
        }
        let named = pack.messages.iter().zip(&examples);
        if named.clone().any(|(message, example)| compose::filled_member(&key.name, &message.name, example).is_some()) {
            continue;
        }
        let known: Vec<&str> = examples
            .iter()
            .filter_map(Value::as_object)
            .flat_map(|example| example.keys())
            .map(String::as_str)
            .collect();
        diagnostics.push(
            Diagnostic::warning(
                key.span,
                format!("no example has a member `{}`, so `fills` has no effect on it", key.name),
            )
            .help(suggest(&key.name, known, "write a member that the example of some message has")),
        );
    }
}

impl ScenarioParser<'_> {
    pub(super) fn parse_role(&mut self, name: &str, span: Span) {
        if self.roles.contains_key(name) {
            return;
        }
        let file = self.file;
        let roles = entries(file.root.get("roles"));
        let Some((_, node)) = roles.iter().find(|(key, _)| key.name == name) else {
            let known: Vec<&str> = roles.iter().map(|(key, _)| key.name.as_str()).collect();
            let declared = match known.as_slice() {
                [] => "declare it under `roles` in shared.yaml".to_owned(),
                names => format!("shared.yaml declares {}", names.join(", ")),
            };
            self.error(span, format!("{} has no role `{name}`", self.pack.name), suggest(name, known, &declared));
            return;
        };
        let keys = ["side", "subprotocols", "given", "fills", "opening", "reacts", "fence"];
        table(node, &keys, "a role", &mut self.diagnostics);
        let sides = [("client", false), ("server", true)];
        let server = choice(node.get("side"), "`side`", &sides, &mut self.diagnostics).unwrap_or(false);
        let offered = list(node.get("subprotocols"), "`subprotocols`", "subprotocols: [NAME]", &mut self.diagnostics);
        let subprotocols: Vec<String> = offered
            .iter()
            .filter_map(|node| text(Some(node), "a subprotocol", &mut self.diagnostics).map(str::to_owned))
            .collect();
        if let Some(first) = offered.first().filter(|_| !server) {
            self.error(first.span, "only a server selects a subprotocol", "a client offers them in `connects`");
        }
        let place = std::mem::replace(&mut self.place, StepPlace::Opening);
        let myself = self.myself.replace(name.to_owned());
        // Declared before its opening is parsed, so that `self.name` is known there.
        self.roles.insert(
            name.to_owned(),
            Role {
                server,
                subprotocols: subprotocols.clone(),
                given: Vec::new(),
                fills: Vec::new(),
                opening: 0,
                binds: Vec::new(),
                reacts: Vec::new(),
                fenced_by_pauses: false,
                preludes: BTreeMap::new(),
            },
        );
        self.scopes.push(BlockScope::isolated());
        let mut given = Vec::new();
        for (key, node) in mapping(node.get("given"), "`given`", GIVEN, &mut self.diagnostics) {
            let template = self.parse_template(node);
            given.push((key.name.clone(), template));
            if let Some(role) = self.roles.get_mut(name) {
                role.given.push((key.name.clone(), Template::Constant(Value::Null)));
            }
        }
        let fills = self.parse_fills(node.get("fills"));
        let opening = match node.get("opening") {
            Some(steps) => self.parse_block(steps),
            None => self.push_block(Vec::new()),
        };
        let opened = self.scopes.pop().unwrap_or_default();
        let binds = opened.names.into_keys().collect();
        self.opening_shapes.insert(name.to_owned(), opened.shapes);
        let preludes = self.parse_preludes(name);
        self.place = place;
        self.myself = None;
        let mut reacts = Vec::new();
        for node in list(node.get("reacts"), "`reacts`", "reacts: [REACTION]", &mut self.diagnostics) {
            if let Some(reaction) = text(Some(node), "a reaction", &mut self.diagnostics) {
                self.parse_reaction(reaction, node.span);
                reacts.push(reaction.to_owned());
            }
        }
        self.myself = myself;
        let fence = choice(node.get("fence"), "`fence`", &[("pause", true)], &mut self.diagnostics);
        let fenced_by_pauses = fence.is_some();
        let role = Role { server, subprotocols, given, fills, opening, binds, reacts, fenced_by_pauses, preludes };
        self.roles.insert(name.to_owned(), role);
    }

    /// Parses the scenes that variations play after the opening of a role.
    fn parse_preludes(&mut self, role: &str) -> BTreeMap<String, BlockId> {
        let file = self.file;
        let preludes = entries(file.root.get("variations").and_then(|node| node.get("preludes")));
        let mut parsed = BTreeMap::new();
        for (key, roles) in preludes {
            let Some(scene) = roles.get(role) else { continue };
            if let Some(name) = text(Some(scene), "a scene", &mut self.diagnostics)
                && let Some((block, _)) = self.parse_scene(name, scene.span)
            {
                parsed.insert(key.name.clone(), block);
            }
        }
        parsed
    }

    /// Parses the protocol's `fills`, then the role's.
    fn parse_fills(&mut self, node: Option<&SyntaxNode>) -> Vec<(String, Template)> {
        let file = self.file;
        let mut fills = Vec::new();
        for (key, node) in entries(file.root.get("fills")).iter().chain(entries(node)) {
            let template = self.parse_template(node);
            fills.push((key.name.clone(), template));
        }
        fills
    }

    pub(super) fn parse_reaction(&mut self, name: &str, span: Span) {
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
        let message = self.parse_message_name(whenever, None);
        let MessageName::Named(message_name) = &message else {
            self.error(whenever.span, "`whenever` must name one message", "write `whenever: MESSAGE`");
            return;
        };
        let servers = entries(file.root.get("roles")).iter().any(|(_, role)| role.get("side").is_some());
        if !servers && self.pack.message(message_name).is_some_and(|message| !message.directions.from_hub) {
            let what = format!("a hub never sends `{message_name}`, so this reaction never happens");
            self.diagnostics.push(Diagnostic::warning(whenever.span, what).help("name a message that a hub sends"));
        }
        self.scopes.push(BlockScope::isolated());
        let place = std::mem::replace(&mut self.place, StepPlace::Reaction);
        let as_ = node.get("as").and_then(|node| self.parse_free_name(node).map(|name| (name, node.span)));
        if let Some((name, at)) = &as_ {
            self.bind_name(name, Some(*at), NameOrigin::Unknown);
        }
        let pattern = node.get("where").map(|n| self.parse_pattern(n, &MatcherSubject::from_message_name(&message)));
        let block = match node.get("do") {
            Some(steps) => self.parse_block(steps),
            None => self.push_block(Vec::new()),
        };
        self.place = place;
        self.scopes.pop();
        if let Some(step) = self.blocks[block].iter().find(|s| {
            !matches!(
                s.act,
                StepAction::Send(_) | StepAction::SendRaw(_) | StepAction::Close { .. } | StepAction::Drop { .. }
            )
        }) {
            let at = step.span;
            self.error(at, "a reaction cannot have this step", "write only `sends`, `sends raw`, `closes` and `drops`");
        }
        self.reactions.insert(
            name.to_owned(),
            Reaction { whenever: message_name.clone(), pattern, as_: as_.map(|(name, _)| name), block },
        );
    }

    /// Parses a scene that is played at `span`. Returns its steps, which are parsed only once, and its `given` values.
    pub(super) fn parse_scene(&mut self, name: &str, span: Span) -> Option<(BlockId, Vec<(String, Template)>)> {
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
        for actor in StepActorNames::from_steps(node.get("steps")).named {
            if self.resolve_actors(&actor, span).is_none() {
                self.error(
                    span,
                    format!("the scene `{name}` needs an actor `{actor}`, which the scenario does not have"),
                    format!("write `actors: {{ {actor}: ROLE }}`"),
                );
                return None;
            }
        }
        self.scopes.push(BlockScope::isolated());
        let place = std::mem::replace(&mut self.place, StepPlace::Scene);
        self.playing.push(name.to_owned());
        let given = mapping(node.get("given"), "`given`", GIVEN, &mut self.diagnostics);
        let given = self.parse_values(given);
        let block = match (self.scenes.get(name), node.get("steps")) {
            (Some(block), _) => *block,
            (None, Some(steps)) => self.parse_block(steps),
            (None, None) => self.push_block(Vec::new()),
        };
        self.playing.pop();
        self.place = place;
        let scope = self.scopes.pop().unwrap_or_default();
        if self.scenes.insert(name.to_owned(), block).is_none() {
            let member = |bound: &String| (bound.clone(), scope.shapes.get(bound).cloned().unwrap_or_default());
            let members = scope.names.keys().map(member).collect();
            self.scene_results.insert(block, ValueShape::Result { of: format!("the scene `{name}`"), members });
        }
        Some((block, given))
    }

    pub(super) fn parse_always(&mut self) -> Vec<AlwaysEntry> {
        let file = self.file;
        let place = std::mem::replace(&mut self.place, StepPlace::Always);
        let mut always = Vec::new();
        for node in list(file.root.get("always"), "`always`", "- every: MESSAGE", &mut self.diagnostics) {
            let what = "an entry of `always`";
            let members =
                table(node, &FileFormat::Shared.keys("/properties/always/items"), what, &mut self.diagnostics);
            let help =
                "write `every: MESSAGE`, `every: frame` or `every: close`, `opens: MESSAGE`, or `check: \"${...}\"`";
            match members.one_of(&["every", "check", "opens"], help, &mut self.diagnostics) {
                Some(("every", every)) => self.parse_every(every, node, &mut always),
                Some(("opens", opens)) => {
                    self.check_always_keys(node, "opens", &["has", "equals", "fits", "says", "rules"]);
                    self.parse_lifecycle(opens, node, &mut always);
                }
                Some((_, check)) => self.parse_always_check(check, node, &mut always),
                None => {}
            }
        }
        self.place = place;
        always
    }

    fn parse_every(&mut self, every: &SyntaxNode, entry: &SyntaxNode, always: &mut Vec<AlwaysEntry>) {
        self.check_always_keys(entry, "every", &LIFECYCLE_KEYS);
        for key in ["equals", "fits", "says", "rules"] {
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
            Some("frame") => MatcherSubject::Members("a frame", &["opcode", "size", "text", "json"]),
            Some("close") => MatcherSubject::CLOSE,
            Some("upgrade") => MatcherSubject::UPGRADE,
            Some("wire") => MatcherSubject::WIRE,
            Some(name) if self.pack.message(name).is_some() => {
                self.check_framed_message(name, every.span);
                MatcherSubject::Message(name.to_owned())
            }
            _ => {
                let error = unknown_message_error(every, self.pack);
                self.diagnostics.push(error);
                MatcherSubject::Anything
            }
        };
        for has in self.parse_has(entry.get("has"), &subject) {
            always.push(match every.text().unwrap_or_default() {
                "frame" => AlwaysEntry::Frame { check: has.check, pattern: has.pattern },
                "close" => AlwaysEntry::Close { check: has.check, pattern: has.pattern },
                "upgrade" => AlwaysEntry::Upgrade { check: has.check, pattern: has.pattern },
                "wire" => AlwaysEntry::Wire { check: has.check, pattern: has.pattern },
                name => AlwaysEntry::Message { message: name.to_owned(), check: has.check, pattern: has.pattern },
            });
        }
    }

    fn parse_always_check(&mut self, value: &SyntaxNode, entry: &SyntaxNode, always: &mut Vec<AlwaysEntry>) {
        self.check_always_keys(entry, "check", &LIFECYCLE_KEYS);
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
        let value = self.parse_checked_value(value);
        let test = self.parse_test(entry.get("equals"), entry.get("fits"));
        let says = self.parse_says(entry.get("says"));
        let rules = self.parse_rules(entry.get("rules"));
        let check = self.declare_check(rules, span);
        always.push(AlwaysEntry::Check { check, value, test, says, span });
    }
}
