//! One protocol as data: its messages with their schemas, and its rules. A pack is loaded from a map of files (embedded
//! ones or the user's), so nothing here touches a disk.

pub mod asyncapi;
pub mod recognition;
pub mod rules;
pub mod schema;
pub mod schema_places;
mod typed_replies;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

pub use asyncapi::{MessageDirections, PackExtension};
pub use rules::{Rule, RuleBasis, RuleLevel, RulePlace, RuleSet};
pub use schema::{MessageSchema, SchemaViolation};

use crate::syntax::diagnostic::{Diagnostic, has_errors, suggest};
use crate::syntax::json_schema;
use crate::syntax::matcher::{MatchCondition, Matcher, unescape};
use crate::syntax::source::{FileId, Sources, Span};
use crate::syntax::yaml::{self, SyntaxNode};

/// The files of one protocol, by their paths within the pack (`asyncapi.yaml`, `messages/x.schema.json`, `rules.yaml`)
/// and within its scenarios (`shared.yaml`, `x.yaml`).
#[derive(Clone, Debug, Default)]
pub struct PackFolder {
    pub name: String,
    pub pack: BTreeMap<String, FileId>,
    pub scenarios: BTreeMap<String, FileId>,
    /// The document, if it is an imported one instead of the asyncapi.yaml of a pack.
    pub document: Option<Arc<asyncapi::AsyncApiDocument>>,
    /// Problems found while combining the files: parts of a dialect that no longer apply to its pack.
    pub diagnostics: Vec<Diagnostic>,
    /// The parts of an imported document that no check judges.
    pub unjudged: BTreeSet<String>,
    /// The files that judge clients of the hub: `rules.yaml`, and scenarios by their paths within `scenarios/clients/`.
    pub clients: ClientFiles,
    /// The rules of the hub, if this folder is that of its clients.
    pub hub_rules: Option<FileId>,
    /// Whether this folder judges clients.
    pub judges_clients: bool,
}

/// The files of a pack that judge clients and workers rather than hubs.
#[derive(Clone, Debug, Default)]
pub struct ClientFiles {
    rules: Option<FileId>,
    scenarios: BTreeMap<String, FileId>,
}

/// What the name of the pack of a hub's clients adds to that of the hub.
pub const OF_CLIENTS: &str = "-clients";
/// The folder of the files that judge clients.
const CLIENTS_FOLDER: &str = "clients/";

impl PackFolder {
    /// Whether a pack can have a file at this path.
    pub fn is_pack_path(path: &str) -> bool {
        path.starts_with("scenarios/")
            || matches!(path, "asyncapi.yaml" | "rules.yaml" | "clients/rules.yaml")
            || path.ends_with(".schema.json")
    }

    /// Sorts the files of a pack, from disk or embedded, by their paths within its folder. Files under `scenarios/` are
    /// scenarios; files that do not belong to a pack are left out.
    pub fn from_files(name: &str, files: impl IntoIterator<Item = (String, FileId)>) -> Self {
        let mut folder = Self { name: name.to_owned(), ..Self::default() };
        for (path, file) in files.into_iter().filter(|(path, _)| Self::is_pack_path(path)) {
            let scenario = path.strip_prefix("scenarios/");
            match (scenario, scenario.unwrap_or(&path).strip_prefix(CLIENTS_FOLDER)) {
                (Some(_), Some(inner)) => drop(folder.clients.scenarios.insert(inner.to_owned(), file)),
                (None, Some("rules.yaml")) => folder.clients.rules = Some(file),
                (Some(inner), None) => drop(folder.scenarios.insert(inner.to_owned(), file)),
                (None, _) => drop(folder.pack.insert(path, file)),
            }
        }
        folder
    }

    /// Returns the folder that judges the clients of the hub: the same messages, with rules and scenarios of its own.
    /// `None` if the pack has none.
    pub fn of_clients(&self) -> Option<Self> {
        let ClientFiles { rules, scenarios } = &self.clients;
        if scenarios.is_empty() {
            return None;
        }
        let mut pack = self.pack.clone();
        let hub_rules = pack.remove("rules.yaml");
        pack.extend(rules.map(|file| ("rules.yaml".to_owned(), file)));
        Some(Self {
            name: format!("{}{OF_CLIENTS}", self.name),
            pack,
            scenarios: scenarios.clone(),
            document: self.document.clone(),
            hub_rules,
            judges_clients: true,
            ..Self::default()
        })
    }
}

pub struct Pack {
    pub name: String,
    pub title: String,
    pub version: String,
    pub description: String,
    /// The `x-hubproof` extension of the document.
    pub extension: PackExtension,
    /// The messages, in the order of the document.
    pub messages: Vec<MessageType>,
    /// The places of the texts by which messages are recognised, as JSON pointers.
    pub distinguishing_places: BTreeSet<String>,
    pub rules: BTreeMap<String, Rule>,
    /// The document to which the lines of the rules refer.
    pub document: String,
    /// As in [`rules::RuleSet::link`].
    pub link: Option<String>,
    /// The first twelve digits of the SHA-256 over all its files.
    pub hash: String,
    /// Whether clients are judged. Then hubproof plays the hub, and the party under test is called the hub wherever the
    /// direction of a message is meant.
    pub judges_clients: bool,
}

pub struct MessageType {
    pub name: String,
    pub title: String,
    pub summary: String,
    pub directions: MessageDirections,
    pub matcher: Matcher,
    pub abstract_: bool,
    pub replies: Vec<String>,
    /// JSON pointer of the correlation id.
    pub correlation: Option<String>,
    /// Whether the message is a reply that looks like a reply to another request, so that only its request identifies
    /// it.
    pub typed_by_request: bool,
    /// The only roles to whose clients the hub sends the message; empty for all.
    pub roles: Vec<String>,
    pub schema: MessageSchema,
    pub span: Span,
}

/// The direction of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameDirection {
    ToHub,
    FromHub,
}

impl Pack {
    /// Loads a pack and returns all diagnostics; the pack is `None` if one of them is an error.
    pub fn load(folder: &PackFolder, sources: &Sources) -> (Option<Self>, Vec<Diagnostic>) {
        let mut diagnostics = Vec::new();
        if let Some(document) = &folder.document {
            return Self::assemble(folder, asyncapi::AsyncApiDocument::clone(document), sources, diagnostics);
        }
        let Some(file) = folder.pack.get("asyncapi.yaml") else {
            diagnostics.push(
                Diagnostic::without_place(format!("the pack `{}` has no asyncapi.yaml", folder.name))
                    .help("a pack is a folder with asyncapi.yaml, messages/, rules.yaml and scenarios/"),
            );
            return (None, diagnostics);
        };
        match yaml::parse(sources, *file) {
            Ok(root) => {
                let document = asyncapi::parse_document(&root, &mut diagnostics);
                Self::assemble(folder, document, sources, diagnostics)
            }
            Err(diagnostic) => {
                diagnostics.push(diagnostic);
                (None, diagnostics)
            }
        }
    }

    /// Builds a pack from a parsed document and the schemas and rules of its folder; adds to `diagnostics`.
    fn assemble(
        folder: &PackFolder,
        document: asyncapi::AsyncApiDocument,
        sources: &Sources,
        mut diagnostics: Vec<Diagnostic>,
    ) -> (Option<Self>, Vec<Diagnostic>) {
        let rules = match folder.pack.get("rules.yaml").map(|file| yaml::parse(sources, *file)) {
            None => rules::RuleSet::default(),
            Some(Ok(root)) => rules::parse_rules(&root, &mut diagnostics),
            Some(Err(diagnostic)) => {
                diagnostics.push(diagnostic);
                return (None, diagnostics);
            }
        };
        let own_rules: BTreeSet<String> = rules.rules.keys().cloned().collect();
        let mut rules = rules;
        if let Some(Ok(root)) = folder.hub_rules.map(|file| yaml::parse(sources, file)) {
            // Its mistakes are reported with the pack of the hub.
            let of_hub = rules::parse_rules(&root, &mut Vec::new());
            if own_rules.is_empty() {
                (rules.document, rules.link) = (of_hub.document, of_hub.link);
            }
            for (id, rule) in of_hub.rules {
                // Clients send none of the messages that it demands of the hub.
                rules.rules.entry(id).or_insert(Rule { demands: Vec::new(), ..rule });
            }
        }
        let mut messages = Vec::new();
        let mut used = document.files;
        used.extend(["asyncapi.yaml".to_owned(), "rules.yaml".to_owned()]);
        // If a file is missing, unused files are not reported: one of them is probably the missing one, misspelt.
        let all_there =
            document.files_known && used.iter().all(|path| folder.pack.contains_key(path) || path == "rules.yaml");
        for declared in document.messages {
            let loaded = load_payload(folder, &declared, sources, &rules, &mut diagnostics);
            let Some(schema) = loaded else { continue };
            messages.push(MessageType {
                name: declared.name,
                title: declared.title,
                summary: declared.summary,
                directions: if folder.judges_clients { declared.directions.turned() } else { declared.directions },
                matcher: declared.matcher,
                abstract_: declared.abstract_,
                replies: declared.replies,
                correlation: declared.correlation,
                typed_by_request: false,
                roles: declared.roles,
                schema,
                span: declared.span,
            });
        }
        for (path, file) in &folder.pack {
            if all_there && !used.contains(path) {
                let start = Span::new(*file, 0..0);
                diagnostics.push(
                    Diagnostic::error(start, format!("no message of asyncapi.yaml refers to {path}"))
                        .help("refer to it under components.messages, or remove the file"),
                );
            }
        }
        if folder.judges_clients {
            // Of the hub's rules, the formats bind clients, too.
            let sent = messages.iter().filter(|message| message.directions.from_hub);
            let formats: BTreeSet<String> = sent
                .flat_map(|message| schema::referenced_rules(&message.schema.source))
                .map(|reference| reference.rule)
                .collect();
            rules.rules.retain(|id, _| own_rules.contains(id) || formats.contains(id));
        }
        typed_replies::mark_typed_replies(&mut messages);
        let conditions = messages.iter().flat_map(|message: &MessageType| message.matcher.member_conditions());
        let texts = conditions.filter_map(|condition| match condition {
            MatchCondition::Is(place, Value::String(_)) => Some(place),
            _ => None,
        });
        let pack = Self {
            distinguishing_places: texts.collect(),
            name: folder.name.clone(),
            title: if folder.judges_clients { format!("Clients of {}", document.title) } else { document.title },
            version: document.version,
            description: document.description,
            extension: document.extension,
            messages,
            rules: rules.rules,
            document: rules.document,
            link: rules.link,
            hash: pack_hash(folder, sources),
            judges_clients: folder.judges_clients,
        };
        pack.lint_examples(&mut diagnostics);
        pack.check_demands(&mut diagnostics);
        pack.check_correlations(&mut diagnostics);
        if has_errors(&diagnostics) { (None, diagnostics) } else { (Some(pack), diagnostics) }
    }

    pub fn message(&self, name: &str) -> Option<&MessageType> {
        self.messages.iter().find(|message| message.name == name)
    }

    /// Returns the messages whose frames are also frames of this one: the message itself, those for whose envelope it
    /// stands, and those whose example it recognises. A frame that is checked as this message is valid under the schema
    /// of one of them.
    pub fn forms_of<'p>(&'p self, message: &'p MessageType) -> impl Iterator<Item = &'p MessageType> {
        self.messages.iter().filter(move |other| {
            let special = || other.schema.example.as_ref().is_some_and(|example| message.matcher.fits(example));
            other.name == message.name || message.abstract_ || special()
        })
    }

    /// Returns the position of a message in `messages`.
    pub fn message_index(&self, name: &str) -> Option<usize> {
        self.messages.iter().position(|message| message.name == name)
    }

    /// Returns the message as which a payload is recognised: the matching message with the most conditions, where
    /// concrete messages take precedence over abstract messages. Among replies that look alike, it is a reply whose
    /// schema the payload meets.
    pub fn recognise(&self, payload: &Value, way: FrameDirection) -> Option<&MessageType> {
        self.recognise_among(payload, way, &|_| true)
    }

    /// Returns the message that a payload from the hub is recognised as if a client of this role receives it.
    pub fn recognise_for_role(&self, payload: &Value, role: &str) -> Option<&MessageType> {
        let names = |message: &MessageType| message.roles.iter().any(|name| name == role);
        // Nothing is known about a role that no message names.
        let known = self.messages.iter().any(names);
        self.recognise_among(payload, FrameDirection::FromHub, &|message| {
            !known || message.roles.is_empty() || names(message)
        })
    }

    fn recognise_among(
        &self,
        payload: &Value,
        way: FrameDirection,
        belongs: &dyn Fn(&MessageType) -> bool,
    ) -> Option<&MessageType> {
        let mut best: Option<&MessageType> = None;
        let goes = |message: &&MessageType| message.can_go(way) && belongs(message);
        for message in self.messages.iter().filter(goes).filter(|message| message.matcher.fits(payload)) {
            let better = best.is_none_or(|b| {
                (!message.abstract_, message.matcher.condition_count()) > (!b.abstract_, b.matcher.condition_count())
            });
            if better {
                best = Some(message);
            }
        }
        let found = best.filter(|best| best.typed_by_request);
        let valid =
            found.and_then(|found| self.look_alikes(found, payload, way).find(|reply| reply.schema.is_valid(payload)));
        valid.or(best)
    }

    /// Whether a rule demands a message. If the pack names no rule that does, each rule may.
    pub fn demands(&self, rule: &str, message: usize) -> bool {
        let name = &self.messages[message].name;
        let demands = |rule: &Rule| rule.demands.iter().any(|(demanded, _)| demanded == name);
        self.rules.get(rule).is_some_and(demands) || !self.rules.values().any(demands)
    }

    /// Whether no message is known to be a reply.
    pub fn names_no_replies(&self) -> bool {
        self.messages.iter().all(|message| message.replies.is_empty())
    }

    /// Whether a message is a reply to another.
    pub fn is_reply(&self, name: &str) -> bool {
        self.messages.iter().any(|other| other.replies.iter().any(|reply| reply == name))
    }

    /// Returns how to tell a message apart from the message that its example is mistaken for.
    fn telling_apart(&self, message: &MessageType, found: Option<&MessageType>) -> String {
        let replies = |one: &MessageType| self.is_reply(&one.name);
        let advice = "make `x-hubproof: match` more specific";
        if !replies(message) || !found.is_some_and(replies) {
            return advice.to_owned();
        }
        format!(
            "{advice}; or, if only the request tells the replies apart, give both and their requests a `correlationId`"
        )
    }

    /// Reports places of correlation ids whose names resemble members of the message, but are none.
    fn check_correlations(&self, diagnostics: &mut Vec<Diagnostic>) {
        for message in &self.messages {
            let Some(pointer) = &message.correlation else { continue };
            let path: Vec<String> = pointer.split('/').skip(1).map(unescape).collect();
            if let Some((depth, similar)) = message.schema.misspelt_name(&path) {
                let what = format!(
                    "the `correlationId` of `{}` is at `{pointer}`, but the payload has no `{}`",
                    message.name, path[depth]
                );
                let help = format!("did you mean `{similar}`?");
                diagnostics.push(Diagnostic::warning(message.span, what).help(help));
            }
        }
    }

    /// Reports messages that rules demand although the hub sends no such message.
    fn check_demands(&self, diagnostics: &mut Vec<Diagnostic>) {
        let sent: Vec<&str> =
            self.messages.iter().filter(|message| message.directions.from_hub).map(|message| &*message.name).collect();
        let party = if self.judges_clients { "a client" } else { "the hub" };
        for (id, rule) in &self.rules {
            for (name, span) in rule.demands.iter().filter(|(name, _)| !sent.contains(&name.as_str())) {
                let what = format!("{id} demands `{name}`, which is not a message of {party}");
                diagnostics.push(Diagnostic::error(*span, what).help(suggest(name, sent.iter().copied(), "")));
            }
        }
    }

    /// Reports examples that are missing or recognised as another message.
    fn lint_examples(&self, diagnostics: &mut Vec<Diagnostic>) {
        for message in &self.messages {
            let Some(example) = &message.schema.example else {
                diagnostics.push(
                    Diagnostic::error(message.span, format!("the schema of `{}` has no example", message.name)).help(
                        "add one under `examples`: the documented one, or your own with `\"x-example\": \"composed\"`",
                    ),
                );
                continue;
            };
            for (way, goes) in [
                (FrameDirection::ToHub, message.directions.to_hub),
                (FrameDirection::FromHub, message.directions.from_hub),
            ] {
                let recognised = goes.then(|| self.recognise(example, way)).flatten();
                let right = |found: &MessageType| {
                    found.name == message.name
                        || message.abstract_
                        || found.typed_by_request && message.typed_by_request
                };
                let wrong = goes && !recognised.is_some_and(right);
                if wrong {
                    let other = recognised.map_or("no message".to_owned(), |m| format!("`{}`", m.name));
                    diagnostics.push(
                        Diagnostic::error(
                            message.span,
                            format!("the example of `{}` is recognised as {other}", message.name),
                        )
                        .help(self.telling_apart(message, recognised)),
                    );
                }
            }
        }
    }
}

impl MessageType {
    pub fn can_go(&self, way: FrameDirection) -> bool {
        match way {
            FrameDirection::ToHub => self.directions.to_hub,
            FrameDirection::FromHub => self.directions.from_hub,
        }
    }

    /// Whether a payload is this message or one of its special forms.
    pub fn recognises(&self, payload: &Value, way: FrameDirection) -> bool {
        self.can_go(way) && self.matcher.fits(payload)
    }

    /// Returns the message from which a scenario starts: the example, or the members by which it is recognised.
    pub fn starting_value(&self) -> Value {
        self.schema.example.clone().unwrap_or_else(|| Value::Object(self.matcher.literal_members()))
    }
}

/// Compiles the schema of a message, which is in the document or in a file of the pack.
fn load_payload(
    folder: &PackFolder,
    declared: &asyncapi::MessageDeclaration,
    sources: &Sources,
    rules: &RuleSet,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<MessageSchema> {
    match &declared.payload {
        asyncapi::PayloadSchema::Inline { node } => {
            compile_schema(&declared.name, node.to_json(), node, rules, diagnostics)
        }
        asyncapi::PayloadSchema::File { path, span } => match folder.pack.get(path) {
            Some(file) => load_schema(&declared.name, *file, sources, rules, diagnostics),
            None => {
                let known = folder.pack.keys().map(String::as_str).collect::<Vec<_>>();
                diagnostics.push(
                    Diagnostic::error(*span, format!("there is no file {path} in the pack")).help(suggest(
                        path,
                        known,
                        "paths are relative to asyncapi.yaml",
                    )),
                );
                None
            }
        },
    }
}

fn load_schema(
    name: &str,
    file: FileId,
    sources: &Sources,
    rules: &RuleSet,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<MessageSchema> {
    // serde_json keeps exact values; the YAML tree has the positions.
    let text = &sources.file(file).text;
    let source: Value = match serde_json::from_str(text) {
        Ok(source) => source,
        Err(error) => {
            let line_start =
                text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
            let at = (line_start + error.column().saturating_sub(1)).min(text.len());
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            let help = "JSON has no comments and no trailing commas, and its keys and strings are in double quotes";
            diagnostics.push(Diagnostic::error(Span::new(file, at..at), format!("not valid JSON: {what}")).help(help));
            return None;
        }
    };
    match yaml::parse(sources, file) {
        Ok(tree) => compile_schema(name, source, &tree, rules, diagnostics),
        Err(diagnostic) => {
            diagnostics.push(diagnostic);
            None
        }
    }
}

/// Compiles the schema of the message `name`, whose parsed source is `tree`, and checks its example.
fn compile_schema(
    name: &str,
    source: Value,
    tree: &SyntaxNode,
    rules: &RuleSet,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<MessageSchema> {
    let before = diagnostics.len();
    let mistakes = json_schema::find_schema_mistakes(&source, &schema::EXTRA_KEYWORDS);
    diagnostics.extend(mistakes.into_iter().map(|mistake| mistake.into_diagnostic(tree)));
    for named in schema::referenced_rules(&source) {
        let at = tree.at_pointer(&named.pointer).span;
        match rules.rules.get(&named.rule) {
            None if rules.contains(&named.rule) => {}
            None => diagnostics.push(Diagnostic::error(at, format!("there is no rule {}", named.rule)).help(suggest(
                &named.rule,
                rules.rules.keys().map(String::as_str),
                "rules are declared in rules.yaml",
            ))),
            Some(rule) if named.should && rule.level == RuleLevel::May => diagnostics.push(
                Diagnostic::error(at, format!("the level of {} is `may`, so `x-should` cannot demand it", named.rule))
                    .help("a scenario can record it instead: under `has`, or as an alternative with `info`"),
            ),
            Some(_) => {}
        }
    }
    let mut schema = None;
    if diagnostics.len() == before {
        diagnostics.extend(json_schema::find_costly_patterns(&source).iter().map(|pointer| {
            let what = "this pattern takes too many steps for some texts, which then count as matching";
            Diagnostic::warning(tree.at_pointer(pointer).span, what)
                .help("write it without a repetition inside a repetition, or without looking around and referring back")
        }));
        match MessageSchema::compile(source) {
            Ok(compiled) => schema = Some(compiled),
            Err(message) => diagnostics.push(Diagnostic::error(tree.span, message)),
        }
    }
    let broken = schema.as_ref().and_then(|s| s.violations(s.example.as_ref()?).into_iter().find(|v| !v.should));
    if let Some(broken) = broken {
        let what = format!(
            "the example of `{name}` breaks its own schema at {}: expected {}, found {}",
            broken.describe_place(),
            broken.expected,
            broken.found
        );
        diagnostics.push(
            Diagnostic::error(tree.at_pointer(&format!("/examples/0{}", broken.path)).span, what)
                .help("correct the one that differs from the document"),
        );
        return None;
    }
    schema
}

fn pack_hash(folder: &PackFolder, sources: &Sources) -> String {
    let mut hasher = Sha256::new();
    for (path, file) in folder.pack.iter().chain(&folder.scenarios) {
        hasher.update(path.as_bytes());
        hasher.update([0]);
        hasher.update(sources.file(*file).text.as_bytes());
        hasher.update([0]);
    }
    hasher.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
