//! Parses the asyncapi.yaml of a pack (AsyncAPI 3, from the hub's point of view): its messages, who sends them, their
//! replies, and how to recognise them.

use std::collections::BTreeMap;

use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::fields::{check_name, choice, entries, flag, integer, list, table};
use crate::syntax::matcher::Matcher;
use crate::syntax::printable::escape_unprintable;
use crate::syntax::source::Span;
use crate::syntax::yaml::{NodeKey, SyntaxNode};

/// Who sends a message; it may go both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageDirections {
    pub to_hub: bool,
    pub from_hub: bool,
    /// Whether the hub sends the message unasked, not only as a reply.
    pub unasked: bool,
}

impl MessageDirections {
    /// Returns the directions as seen by one who plays the hub and tests a client.
    pub fn turned(self) -> Self {
        Self { to_hub: self.from_hub, from_hub: self.to_hub, unasked: true }
    }
}

#[derive(Clone, Debug)]
pub struct MessageDeclaration {
    pub name: String,
    pub span: Span,
    pub title: String,
    pub summary: String,
    pub directions: MessageDirections,
    /// Path of the schema file relative to the document, or the schema itself.
    pub payload: PayloadSchema,
    pub matcher: Matcher,
    pub abstract_: bool,
    /// Messages that may answer this message.
    pub replies: Vec<String>,
    /// JSON pointer of the correlation id.
    pub correlation: Option<String>,
    /// The only roles to whose clients the hub sends the message; empty for all.
    pub roles: Vec<String>,
}

#[derive(Clone, Debug)]
pub enum PayloadSchema {
    File { path: String, span: Span },
    Inline { node: SyntaxNode },
}

#[derive(Clone, Debug)]
pub struct AsyncApiDocument {
    pub title: String,
    pub version: String,
    pub description: String,
    pub messages: Vec<MessageDeclaration>,
    pub extension: PackExtension,
    /// Files that any message refers to, even an invalid message.
    pub files: Vec<String>,
    /// Whether every message has a payload, so that `files` lists all files in use.
    pub files_known: bool,
}

/// The `x-hubproof` extension of the document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackExtension {
    /// The number of connections that a hub of this protocol must accept from one machine; a target may override it.
    pub connections: Option<usize>,
    /// The words among `NaN`, `Infinity` and `-Infinity` that hubs of this protocol may send as numbers, although JSON
    /// does not allow them. They are read as `null`; scenarios check the text.
    pub numbers: Vec<String>,
}

const NON_JSON_NUMBERS: [(&str, &str); 3] = [("NaN", "NaN"), ("Infinity", "Infinity"), ("-Infinity", "-Infinity")];
const MAX_CONNECTIONS: u64 = 1_000_000;

fn parse_extension(root: &SyntaxNode, diagnostics: &mut Vec<Diagnostic>) -> PackExtension {
    let Some(node) = root.get("x-hubproof") else { return PackExtension::default() };
    table(node, &["connections", "numbers"], "`x-hubproof`", diagnostics);
    let connections = integer(node.get("connections"), "`connections`", 1..=MAX_CONNECTIONS, diagnostics);
    let listed = list(node.get("numbers"), "`numbers`", "numbers: [NaN]", diagnostics);
    let numbers =
        listed.iter().filter_map(|item| choice(Some(item), "an entry of `numbers`", &NON_JSON_NUMBERS, diagnostics));
    let numbers = numbers.map(str::to_owned).collect();
    PackExtension { connections: connections.and_then(|number| usize::try_from(number).ok()), numbers }
}

pub fn parse_document(root: &SyntaxNode, diagnostics: &mut Vec<Diagnostic>) -> AsyncApiDocument {
    let info = |name: &str| {
        root.get("info")
            .and_then(|i| i.get(name))
            .map(|n| n.text().map_or_else(|| n.to_json().to_string(), str::to_owned))
            .map(|text| text.trim().lines().map(escape_unprintable).collect::<Vec<_>>().join("\n"))
            .unwrap_or_default()
    };
    match root.get("asyncapi").and_then(SyntaxNode::text) {
        Some(version) if version.starts_with("3.") => {}
        Some(version) => diagnostics.push(
            Diagnostic::error(
                root.at_pointer("/asyncapi").span,
                format!("AsyncAPI {version} is not supported in a pack"),
            )
            .help("write the document in AsyncAPI 3"),
        ),
        None => diagnostics.push(
            Diagnostic::error(root.span, "not an AsyncAPI document: `asyncapi` is missing")
                .help("begin it with `asyncapi: 3.0.0`"),
        ),
    }
    let before = diagnostics.len();
    let (directions, replies) = parse_operations(root, diagnostics);
    // If a reference is broken, the operations are incomplete.
    let complete = diagnostics.len() == before;
    let mut messages = Vec::new();
    let mut files = Vec::new();
    let listed = entries(root.at_path("components/messages"));
    for (key, node) in listed {
        check_name(&key.name, "a message", key.span, diagnostics);
        files.extend(node.get("payload").and_then(payload_file).map(|(path, _)| path));
        match directions.get(&key.name) {
            None if !complete => {}
            None => diagnostics.push(
                Diagnostic::error(key.span, format!("no operation sends or receives `{}`", key.name))
                    .help("add it to an operation under `operations`, which gives its direction"),
            ),
            Some(direction) => {
                let declared = parse_message(key, node, *direction, &replies, diagnostics);
                messages.extend(
                    declared.map(|declared| MessageDeclaration {
                        correlation: correlation_pointer(root, node),
                        ..declared
                    }),
                );
            }
        }
    }
    let files_known = listed.iter().all(|(_, node)| node.get("payload").is_some());
    // An explicitly empty mapping is allowed: a protocol may have no messages.
    if listed.is_empty() && root.at_path("components/messages").is_none_or(|node| node.map().is_none()) {
        diagnostics.push(
            Diagnostic::error(root.span, "the document declares no messages")
                .help("declare them under components.messages"),
        );
    }
    AsyncApiDocument {
        title: info("title").replace('\n', " "),
        version: info("version").replace('\n', " "),
        description: info("description"),
        messages,
        extension: parse_extension(root, diagnostics),
        files,
        files_known,
    }
}

/// Returns the file a payload refers to, relative to the document.
fn payload_file(payload: &SyntaxNode) -> Option<(String, Span)> {
    let reference = payload.get("$ref")?;
    Some((reference.text()?.trim_start_matches("./").to_owned(), reference.span))
}

type RepliesByMessage = BTreeMap<String, Vec<String>>;

fn parse_operations(
    root: &SyntaxNode,
    diagnostics: &mut Vec<Diagnostic>,
) -> (BTreeMap<String, MessageDirections>, RepliesByMessage) {
    let mut directions: BTreeMap<String, MessageDirections> = BTreeMap::new();
    let mut replies = RepliesByMessage::new();
    for (key, operation) in entries(root.get("operations")) {
        let received = match operation.get("action").and_then(SyntaxNode::text) {
            Some("receive") => true,
            Some("send") => false,
            _ => {
                diagnostics.push(
                    Diagnostic::error(key.span, format!("operation `{}` has no action", key.name)).help(
                        "write `action: receive` if the hub receives the messages, `action: send` if it sends them",
                    ),
                );
                continue;
            }
        };
        let asked = operation_messages(root, operation, diagnostics);
        for name in &asked {
            let entry = directions.entry(name.clone()).or_default();
            if received { entry.to_hub = true } else { (entry.from_hub, entry.unasked) = (true, true) }
        }
        if let Some(reply) = operation.get("reply") {
            for name in operation_messages(root, reply, diagnostics) {
                let entry = directions.entry(name.clone()).or_default();
                if received {
                    entry.from_hub = true
                } else {
                    entry.to_hub = true
                }
                for asked in &asked {
                    replies.entry(asked.clone()).or_default().push(name.clone());
                }
            }
        }
    }
    (directions, replies)
}

/// Returns the messages of an operation or reply: those it lists, or else all messages of its channel.
fn operation_messages(root: &SyntaxNode, operation: &SyntaxNode, diagnostics: &mut Vec<Diagnostic>) -> Vec<String> {
    let references: Vec<&SyntaxNode> = match operation.get("messages").and_then(SyntaxNode::list) {
        Some(list) => list.iter().collect(),
        None => {
            let channel = operation
                .get("channel")
                .and_then(|c| c.get("$ref"))
                .and_then(SyntaxNode::text)
                .and_then(|r| root.at_path(r.trim_start_matches("#/")));
            entries(channel.and_then(|channel| channel.get("messages"))).iter().map(|(_, node)| node).collect()
        }
    };
    references.into_iter().filter_map(|node| resolve_message_name(root, node, diagnostics)).collect()
}

/// Follows references to a message under components.messages, and returns its name.
fn resolve_message_name(root: &SyntaxNode, node: &SyntaxNode, diagnostics: &mut Vec<Diagnostic>) -> Option<String> {
    let mut node = node;
    for _ in 0..8 {
        let reference = node.get("$ref")?;
        let path = reference.text()?.trim_start_matches("#/");
        if let Some(name) = path.strip_prefix("components/messages/") {
            if root.at_path(path).is_none() {
                let declared = entries(root.at_path("components/messages"));
                let names: Vec<&str> = declared.iter().map(|(key, _)| key.name.as_str()).collect();
                diagnostics.push(
                    Diagnostic::error(reference.span, format!("there is no message `{name}`")).help(suggest(
                        name,
                        names,
                        "messages are declared under components.messages",
                    )),
                );
                return None;
            }
            return Some(name.to_owned());
        }
        match root.at_path(path) {
            Some(next) => node = next,
            None => {
                let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
                let names: Vec<&str> = entries(root.at_path(parent)).iter().map(|(key, _)| key.name.as_str()).collect();
                diagnostics.push(
                    Diagnostic::error(reference.span, format!("`{path}` is not in this document"))
                        .help(suggest(last, names, "")),
                );
                return None;
            }
        }
    }
    None
}

fn parse_message(
    key: &NodeKey,
    node: &SyntaxNode,
    directions: MessageDirections,
    replies: &RepliesByMessage,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<MessageDeclaration> {
    let name = key.name.clone();
    let Some(payload) = node.get("payload") else {
        diagnostics.push(
            Diagnostic::error(key.span, format!("message `{name}` has no payload"))
                .help(format!("write `payload: {{ $ref: ./messages/{name}.schema.json }}`")),
        );
        return None;
    };
    let payload = match payload_file(payload) {
        Some((path, span)) => PayloadSchema::File { path, span },
        None => PayloadSchema::Inline { node: payload.clone() },
    };
    let extension = node.get("x-hubproof");
    if let Some(extension) = extension {
        table(extension, &["match", "abstract", "roles"], "`x-hubproof` of a message", diagnostics);
    }
    let abstract_ = flag(extension.and_then(|members| members.get("abstract")), "`abstract`", diagnostics);
    let matcher = match extension.and_then(|members| members.get("match")) {
        None => Matcher::default(),
        Some(node) => {
            let source = node.to_json();
            let mistakes = crate::syntax::matcher::find_matcher_mistakes(&source);
            diagnostics.extend(mistakes.into_iter().map(|mistake| mistake.into_diagnostic(node)));
            Matcher::compile(&source).ok()?
        }
    };
    let roles = extension.and_then(|members| members.get("roles"));
    let roles = list(roles, "`roles`", "roles: [ROLE]", diagnostics).iter().filter_map(SyntaxNode::text);
    let roles = roles.map(str::to_owned).collect();
    let text = |name: &str| {
        let text = node.get(name).and_then(SyntaxNode::text).unwrap_or_default();
        escape_unprintable(text.trim()).into_owned()
    };
    Some(MessageDeclaration {
        title: text("title"),
        summary: text("summary"),
        span: key.span,
        directions,
        payload,
        matcher,
        abstract_,
        replies: replies.get(&name).cloned().unwrap_or_default(),
        correlation: None,
        roles,
        name,
    })
}

/// Returns the JSON pointer of a message's correlation id, if the payload contains it.
fn correlation_pointer(root: &SyntaxNode, message: &SyntaxNode) -> Option<String> {
    let id = message.get("correlationId")?;
    let id = match id.get("$ref").and_then(SyntaxNode::text) {
        Some(reference) => root.at_path(reference.trim_start_matches("#/"))?,
        None => id,
    };
    Some(id.get("location")?.text()?.strip_prefix("$message.payload#")?.to_owned())
}

impl SyntaxNode {
    /// Returns the node at a path of names: `components/messages`.
    fn at_path(&self, path: &str) -> Option<&SyntaxNode> {
        path.split('/').try_fold(self, |node, name| node.get(&crate::syntax::matcher::unescape(name)))
    }
}
