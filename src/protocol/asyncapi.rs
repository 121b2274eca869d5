//! Parses the asyncapi.yaml of a pack (AsyncAPI 3, from the hub's point of view): its messages, who sends them, their
//! replies, and how to recognise them.

use std::collections::BTreeMap;

use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::fields::{choice, integer, list, table};
use crate::syntax::matcher::Matcher;
use crate::syntax::source::Span;
use crate::syntax::yaml::{Key, Kind, Node};

/// Who sends a message; it may go both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directions {
    pub to_hub: bool,
    pub from_hub: bool,
    /// Whether the hub sends the message unasked, not only as a reply.
    pub unasked: bool,
}

#[derive(Clone, Debug)]
pub struct Declared {
    pub name: String,
    pub span: Span,
    pub title: String,
    pub summary: String,
    pub directions: Directions,
    /// Path of the schema file relative to the document, or the schema itself.
    pub payload: Payload,
    pub matcher: Matcher,
    pub abstract_: bool,
    /// Messages that may answer this message.
    pub replies: Vec<String>,
    /// JSON pointer of the correlation id.
    pub correlation: Option<String>,
}

#[derive(Clone, Debug)]
pub enum Payload {
    File { path: String, span: Span },
    Inline { node: Node },
}

#[derive(Clone, Debug)]
pub struct Document {
    pub title: String,
    pub version: String,
    pub description: String,
    pub messages: Vec<Declared>,
    pub extension: Extension,
    /// Files that any message refers to, even an invalid message.
    pub files: Vec<String>,
    /// Whether every message has a payload, so that `files` lists all files in use.
    pub files_known: bool,
}

/// The `x-hubproof` extension of the document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extension {
    /// The number of connections that a hub of this protocol must accept from one machine; a target may override it.
    pub connections: Option<usize>,
    /// The words among `NaN`, `Infinity` and `-Infinity` that hubs of this protocol may send as numbers, although JSON
    /// does not allow them. They are read as `null`; scenarios check the text.
    pub numbers: Vec<String>,
}

const NO_NUMBERS: [(&str, &str); 3] = [("NaN", "NaN"), ("Infinity", "Infinity"), ("-Infinity", "-Infinity")];
const MOST_CONNECTIONS: u64 = 1_000_000;

fn extension(root: &Node, diagnostics: &mut Vec<Diagnostic>) -> Extension {
    let Some(node) = root.get("x-hubproof") else { return Extension::default() };
    table(node, &["connections", "numbers"], "`x-hubproof`", diagnostics);
    let connections = integer(node.get("connections"), "`connections`", 1..=MOST_CONNECTIONS, diagnostics);
    let listed = list(node.get("numbers"), "`numbers`", "numbers: [NaN]", diagnostics);
    let numbers =
        listed.iter().filter_map(|item| choice(Some(item), "an entry of `numbers`", &NO_NUMBERS, diagnostics));
    let numbers = numbers.map(str::to_owned).collect();
    Extension { connections: connections.and_then(|number| usize::try_from(number).ok()), numbers }
}

pub fn parse(root: &Node, diagnostics: &mut Vec<Diagnostic>) -> Document {
    let info = |name: &str| {
        root.get("info")
            .and_then(|i| i.get(name))
            .map(|n| n.text().map_or_else(|| n.to_json().to_string(), str::to_owned))
            .unwrap_or_default()
    };
    match root.get("asyncapi").and_then(Node::text) {
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
    let (directions, replies) = operations(root, diagnostics);
    // If a reference is broken, the operations are incomplete.
    let complete = diagnostics.len() == before;
    let mut messages = Vec::new();
    let mut files = Vec::new();
    let entries = root.at("components/messages").and_then(Node::map).unwrap_or_default();
    for (key, node) in entries {
        files.extend(node.get("payload").and_then(payload_file).map(|(path, _)| path));
        match directions.get(&key.name) {
            None if !complete => {}
            None => diagnostics.push(
                Diagnostic::error(key.span, format!("no operation sends or receives `{}`", key.name))
                    .help("add it to an operation under `operations`, which gives its direction"),
            ),
            Some(direction) => {
                let declared = message(key, node, *direction, &replies, diagnostics);
                messages.extend(declared.map(|declared| Declared { correlation: correlation(root, node), ..declared }));
            }
        }
    }
    let files_known = entries.iter().all(|(_, node)| node.get("payload").is_some());
    // An explicitly empty mapping is allowed: a protocol may have no messages.
    if entries.is_empty() && root.at("components/messages").is_none_or(|node| node.map().is_none()) {
        diagnostics.push(
            Diagnostic::error(root.span, "the document declares no messages")
                .help("declare them under components.messages"),
        );
    }
    Document {
        title: info("title"),
        version: info("version"),
        description: info("description"),
        messages,
        extension: extension(root, diagnostics),
        files,
        files_known,
    }
}

/// Returns the file a payload refers to, relative to the document.
fn payload_file(payload: &Node) -> Option<(String, Span)> {
    let reference = payload.get("$ref")?;
    Some((reference.text()?.trim_start_matches("./").to_owned(), reference.span))
}

type Replies = BTreeMap<String, Vec<String>>;

fn operations(root: &Node, diagnostics: &mut Vec<Diagnostic>) -> (BTreeMap<String, Directions>, Replies) {
    let mut directions: BTreeMap<String, Directions> = BTreeMap::new();
    let mut replies = Replies::new();
    for (key, operation) in root.get("operations").and_then(Node::map).unwrap_or_default() {
        let received = match operation.get("action").and_then(Node::text) {
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
        let asked = named(root, operation, diagnostics);
        for name in &asked {
            let entry = directions.entry(name.clone()).or_default();
            if received { entry.to_hub = true } else { (entry.from_hub, entry.unasked) = (true, true) }
        }
        if let Some(reply) = operation.get("reply") {
            for name in named(root, reply, diagnostics) {
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
fn named(root: &Node, operation: &Node, diagnostics: &mut Vec<Diagnostic>) -> Vec<String> {
    let references: Vec<&Node> = match operation.get("messages").and_then(Node::list) {
        Some(list) => list.iter().collect(),
        None => {
            let channel = operation
                .get("channel")
                .and_then(|c| c.get("$ref"))
                .and_then(Node::text)
                .and_then(|r| root.at(r.trim_start_matches("#/")));
            channel
                .and_then(|c| c.get("messages"))
                .and_then(Node::map)
                .unwrap_or_default()
                .iter()
                .map(|(_, node)| node)
                .collect()
        }
    };
    references.into_iter().filter_map(|node| component(root, node, diagnostics)).collect()
}

/// Follows references to a message under components.messages, and returns its name.
fn component(root: &Node, node: &Node, diagnostics: &mut Vec<Diagnostic>) -> Option<String> {
    let mut node = node;
    for _ in 0..8 {
        let reference = node.get("$ref")?;
        let path = reference.text()?.trim_start_matches("#/");
        if let Some(name) = path.strip_prefix("components/messages/") {
            if root.at(path).is_none() {
                let names: Vec<&str> = root
                    .at("components/messages")
                    .and_then(Node::map)
                    .unwrap_or_default()
                    .iter()
                    .map(|(k, _)| k.name.as_str())
                    .collect();
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
        match root.at(path) {
            Some(next) => node = next,
            None => {
                let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
                let names = root.at(parent).and_then(Node::map).unwrap_or_default();
                let names: Vec<&str> = names.iter().map(|(key, _)| key.name.as_str()).collect();
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

fn message(
    key: &Key,
    node: &Node,
    directions: Directions,
    replies: &Replies,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Declared> {
    let name = key.name.clone();
    let Some(payload) = node.get("payload") else {
        diagnostics.push(
            Diagnostic::error(key.span, format!("message `{name}` has no payload"))
                .help(format!("write `payload: {{ $ref: ./messages/{name}.schema.json }}`")),
        );
        return None;
    };
    let payload = match payload_file(payload) {
        Some((path, span)) => Payload::File { path, span },
        None => Payload::Inline { node: payload.clone() },
    };
    let extension = node.get("x-hubproof");
    for (key, _) in extension.and_then(Node::map).unwrap_or_default() {
        if !matches!(key.name.as_str(), "match" | "abstract") {
            diagnostics.push(
                Diagnostic::error(key.span, format!("`x-hubproof` of a message has no `{}`", key.name))
                    .help("it has `match` and `abstract`"),
            );
        }
    }
    let matcher = match extension.and_then(|o| o.get("match")) {
        None => Matcher::default(),
        Some(node) => {
            let source = node.to_json();
            let mistakes = crate::syntax::matcher::mistakes(&source);
            diagnostics.extend(mistakes.into_iter().map(|mistake| mistake.within(node)));
            Matcher::compile(&source).ok()?
        }
    };
    let abstract_ = matches!(extension.and_then(|o| o.get("abstract")).map(|n| &n.kind), Some(Kind::Bool(true)));
    let text = |name: &str| node.get(name).and_then(Node::text).unwrap_or_default().to_owned();
    Some(Declared {
        title: text("title"),
        summary: text("summary"),
        span: key.span,
        directions,
        payload,
        matcher,
        abstract_,
        replies: replies.get(&name).cloned().unwrap_or_default(),
        correlation: None,
        name,
    })
}

/// Returns the JSON pointer of a message's correlation id, if the payload contains it.
fn correlation(root: &Node, message: &Node) -> Option<String> {
    let id = message.get("correlationId")?;
    let id = match id.get("$ref").and_then(Node::text) {
        Some(reference) => root.at(reference.trim_start_matches("#/"))?,
        None => id,
    };
    Some(id.get("location")?.text()?.strip_prefix("$message.payload#")?.to_owned())
}

impl Node {
    /// Returns the node at a path of names: `components/messages`.
    fn at(&self, path: &str) -> Option<&Node> {
        path.split('/').try_fold(self, |node, name| node.get(&crate::syntax::matcher::unescape(name)))
    }
}
