//! Reads the declarations of a document of version 2 or 3: its channels with their addresses, and its messages with
//! their directions and replies.

use std::collections::{BTreeMap, BTreeSet};

use super::Perspective;
use super::references::{DocumentLibrary, DocumentRef};
use crate::protocol::MessageDirections;
use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::source::Span;
use crate::syntax::yaml::NodeKey;
use crate::websocket::endpoint::{join_paths, join_queries, split_query};

/// The most messages read from one document.
const MAX_MESSAGES: usize = 400;
/// The keys of a message in versions 2 and 3.
const MESSAGE_KEYS: [&str; 15] = [
    "name",
    "title",
    "summary",
    "description",
    "payload",
    "headers",
    "contentType",
    "schemaFormat",
    "correlationId",
    "tags",
    "externalDocs",
    "bindings",
    "examples",
    "traits",
    "messageId",
];

pub struct DocumentOutline<'a> {
    pub title: String,
    pub version: String,
    pub description: String,
    /// The key `asyncapi`, with which the document begins.
    pub span: Span,
    pub messages: Vec<DocumentMessage<'a>>,
    pub channels: Vec<DocumentChannel<'a>>,
    pub operations: Vec<DocumentOperation<'a>>,
    /// The frames that ignored messages of the hub may have.
    pub unknown_frames: UnknownFrames,
    /// Why messages were ignored, each reason once.
    pub ignored: BTreeSet<String>,
    /// Parts of messages and schemas that no check judges, as lint lists them.
    pub unjudged: BTreeSet<String>,
}

/// The frames of the hub that may be a message which hubproof does not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnknownFrames {
    pub json: bool,
    /// Text that is not JSON.
    pub text: bool,
    pub binary: bool,
}

impl UnknownFrames {
    const ALL: Self = Self { json: true, text: true, binary: true };

    fn join(self, other: Self) -> Self {
        let Self { json, text, binary } = other;
        Self { json: self.json || json, text: self.text || text, binary: self.binary || binary }
    }
}

/// The message at a place of the document.
#[derive(Clone, Copy)]
enum KnownMessage {
    /// The index of the message.
    Read(usize),
    /// The message is ignored, and may have these frames.
    Ignored(UnknownFrames),
}

pub struct DocumentMessage<'a> {
    pub name: String,
    pub title: String,
    pub summary: String,
    pub span: Span,
    pub directions: MessageDirections,
    /// Indices of the messages that may answer this message.
    pub replies: Vec<usize>,
    /// JSON pointer of the correlation id in the payload.
    pub correlation: Option<String>,
    /// Whether the document says that the payload is JSON.
    pub states_json: bool,
    /// `None` if any JSON is valid.
    pub payload: Option<DocumentRef<'a>>,
    /// The version of JSON Schema as the document names it; empty for AsyncAPI's own.
    pub schema_format: String,
    /// The examples as written in the document.
    pub examples: Vec<DocumentRef<'a>>,
}

pub struct DocumentChannel<'a> {
    pub name: String,
    pub address: String,
    pub place: DocumentRef<'a>,
    /// The path and query of the channel's server, to which the address is relative.
    pub base: String,
    /// The channel's server, if it is known.
    pub server: Option<DocumentRef<'a>>,
    /// The security schemes that a client must meet, each with its name in the document.
    pub security: Vec<(String, DocumentRef<'a>)>,
    /// Indices of the messages that a client sends on this channel, in ascending order.
    pub to_hub: Vec<usize>,
    /// Indices of the messages that the hub sends on this channel, in ascending order.
    pub from_hub: Vec<usize>,
}

/// The channels of a document of version 3 while its operations are read: each with its name and place, and the indices
/// of the messages to the hub and from the hub.
type OpenChannel<'a> = (String, DocumentRef<'a>, [Vec<usize>; 2]);

impl DocumentChannel<'_> {
    /// Returns the path and query of the address. Some documents give the whole URL; its host is for the user to give.
    fn address_target(&self) -> (&str, &str) {
        let address = match self.address.split_once("://") {
            Some((_, rest)) => rest.find(['/', '?']).map_or("", |at| &rest[at..]),
            None => self.address.as_str(),
        };
        split_query(address)
    }

    /// Returns the path and query of the server, unless the address is a whole URL.
    fn server_target(&self) -> (&str, &str) {
        split_query(if self.address.contains("://") { "" } else { &self.base })
    }

    /// Returns the path of the channel at the hub, parameters included: that of the server joined with the address.
    pub fn path(&self) -> String {
        join_paths(self.server_target().0, self.address_target().0)
    }

    /// Returns the query of server and address.
    pub fn query(&self) -> String {
        join_queries(self.server_target().1, self.address_target().1)
    }

    /// Whether the address repeats the path of the server or its end.
    fn repeats_server(&self) -> bool {
        let (server, address) = (self.server_target().0.trim_end_matches('/'), self.address_target().0);
        !address.trim_matches('/').is_empty() && self.path().len() < server.len() + address.trim_end_matches('/').len()
    }
}

/// An operation: one of version 3, or `publish` or `subscribe` of a channel of version 2.
pub struct DocumentOperation<'a> {
    pub name: String,
    pub span: Span,
    pub summary: String,
    /// Whether clients send its messages.
    pub to_hub: bool,
    /// Indices of its messages.
    pub messages: Vec<usize>,
    pub channel: DocumentRef<'a>,
    pub reply: Option<OperationReply<'a>>,
}

pub struct OperationReply<'a> {
    pub span: Span,
    /// Indices of the messages that may be the answer.
    pub messages: Vec<usize>,
    /// Whether no message of the reply was ignored.
    pub complete: bool,
    pub channel: DocumentRef<'a>,
}

/// Reads the declarations of the document; returns `None` if it is not AsyncAPI.
pub fn read_outline<'a>(
    library: &'a DocumentLibrary,
    perspective: Perspective,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<DocumentOutline<'a>> {
    let root = library.document()?;
    let version = match root.node.get("asyncapi") {
        Some(node) => node.text().map_or_else(|| node.to_json().to_string(), str::to_owned),
        None => {
            let other = ["openapi", "swagger"].into_iter().find(|name| root.node.get(name).is_some());
            let what = other.map_or("not an AsyncAPI document: `asyncapi` is missing".to_owned(), |name| {
                format!("not an AsyncAPI document: `{name}` describes HTTP")
            });
            diagnostics.push(
                Diagnostic::error(root.node.span, what).help("an AsyncAPI document begins with `asyncapi: 3.0.0`"),
            );
            return None;
        }
    };
    let info = |name: &str| {
        let found = root.get("info").and_then(|info| info.node.get(name).cloned());
        found.map(|n| n.text().map_or_else(|| n.to_json().to_string(), str::to_owned)).unwrap_or_default()
    };
    let outline = DocumentOutline {
        title: info("title"),
        version: info("version"),
        description: info("description"),
        span: root.node.key_at_pointer("/asyncapi"),
        messages: Vec::new(),
        channels: Vec::new(),
        operations: Vec::new(),
        unknown_frames: UnknownFrames::default(),
        ignored: BTreeSet::new(),
        unjudged: BTreeSet::new(),
    };
    let content_type = root.text("defaultContentType").unwrap_or_default().to_owned();
    let mut reader = DocumentReader { library, outline, seen: BTreeMap::new(), content_type, perspective, diagnostics };
    reader.check_servers(&root);
    match version.split('.').next() {
        Some("2") => reader.read_version_2(&root),
        Some("3") => reader.read_version_3(&root),
        _ => reader.error(
            root.node.at_pointer("/asyncapi").span,
            format!("AsyncAPI {version} is not supported"),
            "hubproof reads versions 2 and 3",
        ),
    }
    Some(reader.outline)
}

impl<'a> DocumentOperation<'a> {
    fn on_channel(channel: DocumentRef<'a>) -> Self {
        let span = channel.node.span;
        let (name, summary) = (String::new(), String::new());
        Self { name, span, summary, to_hub: false, messages: Vec::new(), channel, reply: None }
    }
}

struct DocumentReader<'a, 'd> {
    library: &'a DocumentLibrary,
    outline: DocumentOutline<'a>,
    /// Each message by its place; `None` after an error.
    seen: BTreeMap<(String, String), Option<KnownMessage>>,
    /// The content type of messages that do not name one; empty if the document does not state it.
    content_type: String,
    perspective: Perspective,
    diagnostics: &'d mut Vec<Diagnostic>,
}

impl<'a> DocumentReader<'a, '_> {
    fn error(&mut self, span: Span, message: String, help: &str) {
        self.diagnostics.push(Diagnostic::error(span, message).help(help));
    }

    fn warning(&mut self, span: Span, message: String, help: &str) {
        self.diagnostics.push(Diagnostic::warning(span, message).help(help));
    }

    /// Follows the reference at a place, if there is one; reports a broken one.
    fn follow_reference(&mut self, place: DocumentRef<'a>) -> Option<DocumentRef<'a>> {
        match self.library.follow_reference(place) {
            Ok(place) => Some(place),
            Err(diagnostic) => {
                self.diagnostics.push(diagnostic);
                None
            }
        }
    }

    // ---- servers

    fn check_servers(&mut self, root: &DocumentRef<'a>) {
        let Some(servers) = root.get("servers") else { return };
        let all: Vec<_> =
            servers.members().filter_map(|(_, server)| self.library.follow_reference(server).ok()).collect();
        if !all.is_empty() && !all.iter().any(uses_websocket) {
            let protocols: Vec<&str> = all.iter().filter_map(|server| server.text("protocol")).collect();
            self.warning(
                servers.node.span,
                format!("no server of this document uses WebSocket, only {}", protocols.join(", ")),
                "hubproof sends its messages over WebSocket anyway",
            );
        }
    }

    /// Returns the servers that a channel names.
    fn named_servers(&self, root: &DocumentRef<'a>, channel: &DocumentRef<'a>) -> Vec<DocumentRef<'a>> {
        let servers = channel.get("servers");
        let named = servers.iter().flat_map(DocumentRef::items).filter_map(|server| match server.node.text() {
            Some(name) => root.get("servers")?.get(name),
            None => Some(server),
        });
        named.filter_map(|server| self.library.follow_reference(server).ok()).collect()
    }

    /// Whether a channel is only for servers that do not use WebSocket.
    fn uses_other_transport(&self, root: &DocumentRef<'a>, channel: &DocumentRef<'a>) -> bool {
        let named = self.named_servers(root, channel);
        !named.is_empty() && !named.iter().any(uses_websocket)
    }

    /// Returns the server of a channel: the first that uses WebSocket, among the channel's own or else the document's.
    fn channel_server(&self, root: &DocumentRef<'a>, channel: &DocumentRef<'a>) -> Option<DocumentRef<'a>> {
        let named = self.named_servers(root, channel);
        let all = root.get("servers");
        let any = all
            .iter()
            .flat_map(DocumentRef::members)
            .filter_map(|(_, server)| self.library.follow_reference(server).ok());
        named.into_iter().chain(any).find(uses_websocket)
    }

    /// Returns the security schemes of a server. If it lists alternatives, the first one counts; if one of them is
    /// empty, no scheme is needed.
    fn security_schemes(&self, root: &DocumentRef<'a>, server: &DocumentRef<'a>) -> Vec<(String, DocumentRef<'a>)> {
        let schemes = root.get("components").and_then(|components| components.get("securitySchemes"));
        let found =
            |name: &str, place: DocumentRef<'a>| Some((name.to_owned(), self.library.follow_reference(place).ok()?));
        let mut choices =
            server.get("security").into_iter().flat_map(|list| list.items().collect::<Vec<_>>()).map(|one| {
                if one.node.get("$ref").is_some() || one.node.get("type").is_some() {
                    let name = one.node.get("$ref").and_then(|to| to.text()).and_then(|to| to.rsplit('/').next());
                    return found(name.unwrap_or_default(), one.clone()).into_iter().collect::<Vec<_>>();
                }
                let named = one.members().filter_map(|(key, _)| found(&key.name, schemes.as_ref()?.get(&key.name)?));
                named.collect()
            });
        let first = choices.next().unwrap_or_default();
        if choices.any(|choice| choice.is_empty()) { Vec::new() } else { first }
    }

    // ---- version 2

    fn read_version_2(&mut self, root: &DocumentRef<'a>) {
        let channels = root.get("channels");
        for (key, channel) in channels.iter().flat_map(DocumentRef::members) {
            let Some(channel) = self.follow_reference(channel) else { continue };
            if self.uses_other_transport(root, &channel) {
                self.warning(key.span, format!("the channel `{}` is ignored: it is not for WebSocket", key.name), "");
                continue;
            }
            let mut sent = [Vec::new(), Vec::new()];
            for (action, published) in [("publish", true), ("subscribe", false)] {
                let Some(operation) = channel.get(action) else { continue };
                let Some(message) = operation.get("message") else { continue };
                let here = operation.text("operationId").map_or_else(|| key.name.clone(), str::to_owned);
                let received = published == (self.perspective == Perspective::Hub);
                let messages = self.read_messages(vec![message], &here, !received);
                for &index in &messages {
                    self.add_direction(index, received, true);
                }
                sent[usize::from(!received)].extend(&messages);
                let id = operation.text("operationId").map_or_else(|| format!("{action}_{}", key.name), str::to_owned);
                self.add_operation(
                    &id,
                    channel.node.key_at_pointer(&format!("/{action}")),
                    &operation,
                    DocumentOperation { to_hub: received, messages, ..DocumentOperation::on_channel(channel.clone()) },
                );
            }
            self.add_channel(root, &key.name, key.name.clone(), key.span, channel, sent);
        }
    }

    // ---- version 3

    fn read_version_3(&mut self, root: &DocumentRef<'a>) {
        let mut channels: Vec<OpenChannel<'a>> = Vec::new();
        for (key, channel) in root.get("channels").iter().flat_map(DocumentRef::members) {
            if let Some(place) = self.follow_reference(channel) {
                channels.push((key.name.clone(), place, Default::default()));
            }
        }
        let operations = root.get("operations");
        for (key, operation) in operations.iter().flat_map(DocumentRef::members) {
            self.read_operation_3(root, key, operation, &mut channels);
        }
        for (name, place, mut sent) in channels {
            // A channel may list a message that only an operation of another channel names.
            let listed = place.get("messages").into_iter().flat_map(|list| list.members().collect::<Vec<_>>());
            let listed = listed.filter_map(|(_, message)| self.library.follow_reference(message).ok());
            let listed = listed.filter_map(|message| match self.seen.get(&message.identity()) {
                Some(Some(KnownMessage::Read(index))) => Some(*index),
                _ => None,
            });
            sent[1].extend(listed.filter(|index| self.outline.messages[*index].directions.from_hub));
            let address = place.text("address").unwrap_or_default().to_owned();
            let span = place.node.at_pointer("/address").span;
            self.add_channel(root, &name, address, span, place, sent);
        }
    }

    fn read_operation_3(
        &mut self,
        root: &DocumentRef<'a>,
        key: &NodeKey,
        operation: DocumentRef<'a>,
        channels: &mut Vec<OpenChannel<'a>>,
    ) {
        let Some(operation) = self.follow_reference(operation) else { return };
        let received = match operation.text("action") {
            Some("receive") => self.perspective == Perspective::Hub,
            Some("send") => self.perspective == Perspective::Client,
            _ => {
                let help =
                    "write `action: receive` if the application receives the messages, `action: send` if it sends them";
                self.error(key.span, format!("operation `{}` has no action", key.name), help);
                return;
            }
        };
        let channel = operation.get("channel").and_then(|channel| self.follow_reference(channel));
        let Some(channel) = channel else {
            if operation.get("channel").is_none() {
                self.error(
                    key.span,
                    format!("operation `{}` has no channel", key.name),
                    "write `channel: { $ref: '#/channels/NAME' }`",
                );
            }
            return;
        };
        if self.uses_other_transport(root, &channel) {
            self.warning(key.span, format!("the operation `{}` is ignored: it is not for WebSocket", key.name), "");
            return;
        }
        let places = self.message_refs(&operation, &channel);
        let asked = self.read_messages(places, "", !received);
        for &index in &asked {
            self.add_direction(index, received, true);
        }
        add_sent_messages(channels, &channel, received, &asked);
        let declared = DocumentOperation {
            to_hub: received,
            messages: asked.clone(),
            ..DocumentOperation::on_channel(channel.clone())
        };
        let reply = operation.get("reply").and_then(|reply| self.follow_reference(reply));
        let answered = reply.as_ref().and_then(|reply| match reply.get("channel") {
            Some(place) => self.follow_reference(place),
            None => Some(channel.clone()),
        });
        let (Some(reply), Some(answered)) = (reply, answered) else {
            self.add_operation(&key.name, key.span, &operation, declared);
            return;
        };
        let places = self.message_refs(&reply, &answered);
        let places = self.alternatives(places);
        let declared_answers = places.len();
        let answers = self.read_messages(places, "", received);
        let complete = answers.len() == declared_answers;
        let span = operation.node.key_at_pointer("/reply");
        let replied = OperationReply { span, messages: answers.clone(), complete, channel: answered.clone() };
        self.add_operation(&key.name, key.span, &operation, DocumentOperation { reply: Some(replied), ..declared });
        for &index in &answers {
            self.add_direction(index, !received, false);
        }
        if received {
            for &index in &asked {
                let replies = &mut self.outline.messages[index].replies;
                let more: Vec<usize> = answers.iter().copied().filter(|one| !replies.contains(one)).collect();
                replies.extend(more);
            }
        }
        add_sent_messages(channels, &answered, !received, &answers);
    }

    /// Returns the places of the messages of an operation or reply: those it lists, or else all of its channel.
    fn message_refs(&self, operation: &DocumentRef<'a>, channel: &DocumentRef<'a>) -> Vec<DocumentRef<'a>> {
        match operation.get("messages") {
            Some(list) => list.items().collect(),
            None => channel.get("messages").iter().flat_map(DocumentRef::members).map(|(_, message)| message).collect(),
        }
    }

    /// Returns the places of messages, with every `oneOf` replaced by its messages.
    fn alternatives(&mut self, messages: Vec<DocumentRef<'a>>) -> Vec<DocumentRef<'a>> {
        let (mut found, mut expanded) = (Vec::new(), BTreeSet::new());
        let mut open: Vec<_> = messages.into_iter().rev().collect();
        while let Some(message) = open.pop() {
            let Some(target) = self.follow_reference(message.clone()) else { continue };
            match target.get("oneOf") {
                // A `oneOf` may refer to itself.
                Some(list) if expanded.insert(target.identity()) => {
                    open.extend(list.items().collect::<Vec<_>>().into_iter().rev())
                }
                Some(_) => {}
                None => found.push(message),
            }
        }
        found
    }

    /// Returns the indices of messages and of their alternatives. `here` names messages without a name; `from_hub` is
    /// whether the hub sends them.
    fn read_messages(&mut self, places: Vec<DocumentRef<'a>>, here: &str, from_hub: bool) -> Vec<usize> {
        let places = self.alternatives(places);
        let mut indices = Vec::new();
        for place in places {
            match self.known_message(place, here) {
                Some(KnownMessage::Read(index)) => indices.push(index),
                Some(KnownMessage::Ignored(frames)) if from_hub => {
                    self.outline.unknown_frames = self.outline.unknown_frames.join(frames);
                }
                _ => {}
            }
        }
        indices
    }

    // ---- both

    /// Adds an operation under a unique name.
    fn add_operation(&mut self, name: &str, span: Span, place: &DocumentRef<'a>, operation: DocumentOperation<'a>) {
        let name = Some(to_word(name)).filter(|name| !name.is_empty()).unwrap_or_else(|| "operation".to_owned());
        let name = unique_name(&name, '_', |name| self.outline.operations.iter().any(|one| one.name == name));
        let summary = ["summary", "description"].into_iter().find_map(|key| place.text(key)).unwrap_or_default();
        self.outline.operations.push(DocumentOperation { name, span, summary: summary.trim().to_owned(), ..operation });
    }

    fn add_channel(
        &mut self,
        root: &DocumentRef<'a>,
        name: &str,
        address: String,
        span: Span,
        place: DocumentRef<'a>,
        sent: [Vec<usize>; 2],
    ) {
        let server = self.channel_server(root, &place);
        let security = server.as_ref().map(|server| self.security_schemes(root, server)).unwrap_or_default();
        let base = server.as_ref().map(server_path).unwrap_or_default();
        let name = name.to_owned();
        let [to_hub, from_hub] = sent.map(|mut messages| {
            messages.sort_unstable();
            messages.dedup();
            messages
        });
        let channel = DocumentChannel { name, address, place, base, server, security, to_hub, from_hub };
        let binding = channel.place.get("bindings").and_then(|bindings| self.follow_reference(bindings)?.get("ws"));
        for part in ["query", "headers"] {
            let schema = binding.as_ref().and_then(|binding| self.follow_reference(binding.get(part)?));
            if let Some(schema) = schema.filter(|schema| schema.get("properties").is_none()) {
                let what = format!("`{part}` of the WebSocket binding is ignored: it has no `properties`");
                let help = "write a schema: `{ type: object, properties: { NAME: { type: string } } }`";
                self.warning(schema.node.span, what, help);
            }
        }
        if channel.repeats_server() {
            let (address, server) = (channel.address_target().0, channel.server_target().0);
            let what = format!("the address `{address}` repeats the path of its server, `{server}`");
            let help =
                format!("hubproof connects to `{}`; write the path in one of the two places only", channel.path());
            self.warning(span, what, &help);
        }
        self.outline.channels.push(channel);
    }

    fn add_direction(&mut self, index: usize, received: bool, unasked: bool) {
        let directions = &mut self.outline.messages[index].directions;
        if received {
            directions.to_hub = true;
        } else {
            directions.from_hub = true;
            directions.unasked |= unasked;
        }
    }

    /// Reads the message at a place; returns `None` if a reference is broken. `here` names a message that has no name.
    fn known_message(&mut self, place: DocumentRef<'a>, here: &str) -> Option<KnownMessage> {
        let called = place.name();
        let place = self.follow_reference(place)?;
        let id = place.identity();
        if let Some(known) = self.seen.get(&id) {
            return *known;
        }
        let message = self.read_message(place, &called, here);
        self.seen.insert(id, message);
        message
    }

    fn read_message(&mut self, place: DocumentRef<'a>, called: &str, here: &str) -> Option<KnownMessage> {
        let traits = place.get("traits");
        let traits: Vec<_> =
            traits.iter().flat_map(DocumentRef::items).filter_map(|one| self.follow_reference(one)).collect();
        // Members of the message itself override those of its traits.
        let member = |name: &str| place.get(name).or_else(|| traits.iter().rev().find_map(|one| one.get(name)));
        let text = |name: &str| member(name).and_then(|found| found.node.text()).unwrap_or_default().to_owned();
        let under = place.pointer.rsplit_once('/').is_some_and(|(above, _)| above.ends_with("/messages"));
        let own = Some(text("name")).filter(|name| !name.is_empty());
        let stem = place.file.rsplit('/').next().and_then(|file| file.split('.').next()).unwrap_or_default();
        let name = match own {
            Some(own) => own,
            None if under => place.name(),
            None if !text("messageId").is_empty() => text("messageId"),
            // The name of a list item is its index, which is useless as a message name.
            None if called.parse::<usize>().is_err() && !matches!(called, "message" | "") => called.to_owned(),
            None if place.pointer.is_empty() => stem.to_owned(),
            None if !text("title").is_empty() => text("title"),
            None => here.to_owned(),
        };
        let span = place.node.span;
        let mut payload = match place.get("payload") {
            Some(payload) => Some(self.follow_reference(payload)?),
            None => None,
        };
        let mut format = text("schemaFormat");
        if let Some(inner) = payload.as_ref().and_then(|payload| payload.get("schema"))
            && let Some(named) = payload.as_ref().and_then(|payload| payload.text("schemaFormat"))
        {
            format = named.to_owned();
            payload = Some(self.follow_reference(inner)?);
        }
        let content = Some(text("contentType")).filter(|text| !text.is_empty());
        let content = content.unwrap_or_else(|| self.content_type.clone()).to_ascii_lowercase();
        let binary = payload.as_ref().is_some_and(|payload| payload.text("format") == Some("binary"));
        let skipped = self.unsupported_reason(binary, &content, &format);
        if let Some((why, reason, frames)) = skipped {
            self.warning(span, format!("`{name}` is ignored because {why}"), "");
            self.outline.ignored.insert(reason);
            return Some(KnownMessage::Ignored(frames));
        }
        self.note_unused_keys(&place, &traits);
        if payload.is_none() {
            self.outline.unjudged.insert(format!("the payload of `{name}`, for which the document has no schema"));
        }
        let correlation = member("correlationId").and_then(|id| self.follow_reference(id));
        let correlation =
            correlation.and_then(|id| id.text("location")?.strip_prefix("$message.payload#").map(str::to_owned));
        let examples = member("examples").iter().flat_map(DocumentRef::items).collect();
        let (title, summary) = (text("title"), text("summary"));
        let name = self.free_name(&name);
        self.outline.messages.push(DocumentMessage {
            name,
            title,
            summary,
            span,
            directions: MessageDirections::default(),
            replies: Vec::new(),
            correlation,
            states_json: content.contains("json"),
            payload,
            schema_format: format,
            examples,
        });
        Some(KnownMessage::Read(self.outline.messages.len() - 1))
    }

    /// Returns why a message is ignored, why none of several is judged, and the frames it may have, if hubproof cannot send
    /// and check it.
    fn unsupported_reason(&self, binary: bool, content: &str, format: &str) -> Option<(String, String, UnknownFrames)> {
        let only_binary = UnknownFrames { binary: true, ..UnknownFrames::default() };
        if binary {
            let why = "its payload is binary: hubproof sends and checks only JSON".to_owned();
            Some((why, "binary payloads are not supported".to_owned(), only_binary))
        } else if !content.is_empty() && !content.contains("json") {
            let is_text = ["text/", "xml", "yaml", "csv"].iter().any(|kind| content.contains(kind));
            let frames = if is_text { UnknownFrames { binary: false, ..UnknownFrames::ALL } } else { only_binary };
            let why = format!("it is {content}: hubproof sends and checks only JSON");
            Some((why, format!("{content} is not supported"), frames))
        } else if !super::schema::is_supported_format(format) {
            let why = format!("its payload is described in {format}: hubproof reads only JSON Schema");
            let called = ["avro", "protobuf", "raml"].into_iter().find(|name| format.contains(name));
            let called = called.map_or(format.to_owned(), |name| format!("{}{}", name[..1].to_uppercase(), &name[1..]));
            Some((why, format!("{called} payloads are not supported"), UnknownFrames::ALL))
        } else if self.outline.messages.len() >= MAX_MESSAGES {
            let why = format!("hubproof reads at most {MAX_MESSAGES} messages per document");
            Some((why.clone(), why, UnknownFrames::ALL))
        } else {
            None
        }
    }

    /// Notes the keys of a message that have no meaning in hubproof.
    fn note_unused_keys(&mut self, place: &DocumentRef<'a>, traits: &[DocumentRef<'a>]) {
        let inherited = traits.iter().flat_map(DocumentRef::members).filter(|(key, _)| key.name == "headers");
        for (key, _) in place.members().chain(inherited) {
            match key.name.as_str() {
                "headers" => {
                    self.outline
                        .unjudged
                        .insert("`headers` of messages, which WebSocket frames do not have".to_owned());
                }
                known if MESSAGE_KEYS.contains(&known) || known.starts_with("x-") => {}
                other => {
                    let help = suggest(other, MESSAGE_KEYS.iter().copied(), "the message is read without it");
                    let what = format!("`{other}` is ignored: a message of AsyncAPI has no such key");
                    self.diagnostics.push(Diagnostic::warning(key.span, what).help(help));
                }
            }
        }
    }

    /// Returns a unique message name that scenarios can use.
    fn free_name(&self, wanted: &str) -> String {
        let mut name = to_word(wanted);
        if matches!(name.as_str(), "" | "any" | "nothing" | "frame" | "close" | "upgrade" | "wire")
            || name.starts_with(super::OTHER_MESSAGE)
        {
            name = format!("{name}_message").trim_start_matches('_').to_owned();
        }
        unique_name(&name, '_', |name| self.outline.messages.iter().any(|message| message.name == name))
    }
}

/// Adds messages that are sent on a channel; adds the channel too, if only an operation of a client refers to it.
fn add_sent_messages<'a>(
    channels: &mut Vec<OpenChannel<'a>>,
    place: &DocumentRef<'a>,
    to_hub: bool,
    messages: &[usize],
) {
    if to_hub && !channels.iter().any(|(_, known, _)| known.identity() == place.identity()) {
        channels.push((place.name(), place.clone(), Default::default()));
    }
    for (_, _, sent) in channels.iter_mut().filter(|(_, known, _)| known.identity() == place.identity()) {
        sent[usize::from(!to_hub)].extend(messages);
    }
}

/// Returns the path and query of a server's address: `pathname` in version 3, or the part after the host of `url` in
/// version 2.
fn server_path(server: &DocumentRef<'_>) -> String {
    let path = match (server.text("pathname"), server.text("url")) {
        (Some(path), _) => path,
        (None, Some(url)) => {
            let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
            rest.find(['/', '?']).map_or("", |at| &rest[at..])
        }
        (None, None) => "",
    };
    path.to_owned()
}

fn uses_websocket(server: &DocumentRef<'_>) -> bool {
    let protocol = server.text("protocol").unwrap_or_default().to_ascii_lowercase();
    matches!(protocol.as_str(), "ws" | "wss" | "websocket" | "websockets" | "")
}

/// Returns the name, followed by the first number from 2 on that makes it unique if it is taken: `name_2`.
pub fn unique_name(name: &str, separator: char, is_taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2..).map(|number| format!("{name}{separator}{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(|name| !is_taken(name)).unwrap_or_default()
}

/// The most characters of a name.
const MAX_NAME: usize = 48;

/// Converts a text to one word of letters, digits, `_`, `-` and `.` that begins with a letter or digit.
pub fn to_word(text: &str) -> String {
    let mut word = String::new();
    for letter in text.chars() {
        let fits = letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.');
        if fits {
            word.push(letter);
        } else if !word.is_empty() && !word.ends_with('_') {
            word.push('_');
        }
        if word.len() == MAX_NAME {
            break;
        }
    }
    word.trim_matches(['_', '-', '.']).to_owned()
}
