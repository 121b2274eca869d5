//! Imports a plain AsyncAPI document as a pack. Such a document may have version 2 or 3, its schemas may be in other
//! files, it does not say how to recognise a frame, and examples may be missing. The result is the same structures that
//! a pack is parsed into, plus scenario files, so that the rest of hubproof does not have to distinguish them.
//!
//! ```text
//! references      the files of the document, and the targets of references
//! inlined         the references and traits of a pack's document
//! document        channels, operations and messages, of either version
//! schema          converts schemas of older drafts to 2020-12
//! polymorphism    what `discriminator` demands
//! schema_facts    the demands of a schema on the values of a message
//! discriminator   the matchers that recognise the messages of a hub
//! examples        generates payloads if the document has no examples
//! reply_rules     the replies that the document demands, and their rules
//! connection      how a client connects to a channel
//! scenarios       generates roles and scenarios
//! warnings        merges warnings that say the same
//! normative_sentences  the sentences in descriptions that are rules
//! pack_files      writes a document as the files of a pack
//! recording       the lines of a recording
//! from_recording  drafts a pack from recorded frames
//! ```

mod connection;
mod discriminator;
mod document;
mod examples;
pub mod from_recording;
mod inlined;
mod normative_sentences;
mod pack_files;
mod polymorphism;
pub mod recording;
mod references;
mod reply_rules;
mod scenarios;
mod schema;
mod schema_facts;
#[cfg(test)]
mod tests;
mod warnings;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

pub use inlined::inline_references;
pub use references::{DocumentLibrary, FileFetcher};

use crate::protocol::asyncapi::{AsyncApiDocument, MessageDeclaration, PayloadSchema};
use crate::protocol::{MessageDirections, PackExtension, PackFolder};
use crate::scenario::writer::flow_text;
use crate::syntax::diagnostic::{Diagnostic, has_errors};
use crate::syntax::matcher::Matcher;
use crate::syntax::source::Sources;
use crate::syntax::yaml::{NodeKey, NodeKind, SyntaxNode};
use discriminator::MessageCandidate;
use reply_rules::ReplyRule;
use scenarios::{DocumentClients, ScenarioGenerator};

/// Whether a document describes the hub or a client: AsyncAPI does not say which application sends and receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Perspective {
    /// The document describes the hub, which gets the messages under `publish` (version 2) or `receive` (version 3).
    #[default]
    Hub,
    /// The document describes a client of the hub, so all directions are reversed.
    Client,
}

/// The message that stands for all frames that are not a message of the document.
const OTHER_MESSAGE: &str = "no_message_of_the_document";
/// The rules of every plain document: the hub may send only listed messages.
const FITS_RULE: &str = "DOC-FITS";
const LISTED_RULE: &str = "DOC-LISTED";

/// A document that was read without errors.
struct ImportedDocument<'a> {
    library: &'a DocumentLibrary,
    outline: document::DocumentOutline<'a>,
    candidates: Vec<MessageCandidate>,
    clients: DocumentClients,
    replies: Vec<ReplyRule>,
    messages: Vec<MessageDeclaration>,
    /// The matcher of every frame of the hub; `None` if the document lists frames of all kinds.
    frames: Option<Value>,
}

/// Imports a document. Returns the folder of its pack, with scenarios, and all diagnostics; if one of them is an error,
/// the folder has no pack.
pub fn import_folder(
    name: &str,
    library: &DocumentLibrary,
    perspective: Perspective,
    sources: &mut Sources,
) -> (PackFolder, Vec<Diagnostic>) {
    let mut folder = PackFolder { name: name.to_owned(), ..PackFolder::default() };
    folder.pack = library.files().map(|(path, file)| (path.to_owned(), file)).collect();
    let mut diagnostics = Vec::new();
    let Some(imported) = ImportedDocument::from_library(library, perspective, sources, &mut diagnostics) else {
        return (folder, diagnostics);
    };
    for (path, (text, origin)) in imported.scenario_generator().scenario_files() {
        let file = sources.add_generated(format!("{name}/{path}"), text, origin);
        folder.scenarios.insert(path, file);
    }
    let rules = sources.add(format!("{name}/rules.yaml"), render_rules(&imported.replies));
    folder.pack.insert("rules.yaml".to_owned(), rules);
    let ImportedDocument { outline, messages, .. } = imported;
    folder.unjudged = outline.unjudged;
    let document = AsyncApiDocument {
        title: outline.title,
        version: outline.version,
        description: outline.description,
        messages,
        extension: PackExtension::default(),
        files: Vec::new(),
        files_known: false,
    };
    folder.document = Some(Arc::new(document));
    (folder, diagnostics)
}

/// Imports a document as the files of a starter pack, by path; returns no files if there is an error.
pub fn import_pack(
    library: &DocumentLibrary,
    perspective: Perspective,
    sources: &Sources,
) -> (BTreeMap<String, String>, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let imported = ImportedDocument::from_library(library, perspective, sources, &mut diagnostics);
    let imported = imported.filter(|_| !has_errors(&diagnostics));
    (imported.map(|imported| pack_files::pack_files(&imported, sources)).unwrap_or_default(), diagnostics)
}

impl<'a> ImportedDocument<'a> {
    /// Reads a document; returns `None` if it is unusable.
    fn from_library(
        library: &'a DocumentLibrary,
        perspective: Perspective,
        sources: &Sources,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<Self> {
        let read = Self::read(library, perspective, sources, diagnostics);
        warnings::merge_warnings(diagnostics);
        read
    }

    fn read(
        library: &'a DocumentLibrary,
        perspective: Perspective,
        sources: &Sources,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<Self> {
        let mut outline = document::read_outline(library, perspective, diagnostics)?;
        let mut budget = schema::SchemaBudget::of_library(library);
        let mut candidates = message_candidates(library, &outline, &mut budget, diagnostics);
        if has_errors(diagnostics) {
            return None;
        }
        let clients = DocumentClients::of_document(library, &outline);
        for one in &mut candidates {
            one.roles = clients.roles_receiving(one.message);
        }
        outline.unknown_frames.json |= discriminator::assign_matchers(&mut candidates, diagnostics);
        let messages = declare_messages(library, &outline, &candidates, &clients, &mut budget, diagnostics);
        if candidates.is_empty() && !has_errors(diagnostics) {
            diagnostics.push(no_messages_error(&outline));
        }
        if !candidates.iter().any(|one| one.to_hub) && !has_errors(diagnostics) {
            diagnostics.push(one_way_warning(&outline, perspective));
        }
        let replies = reply_rules::reply_rules(library, &outline, &candidates, sources);
        outline.unjudged.append(&mut budget.unjudged);
        let frames = discriminator::listed_frames(&outline, &candidates);
        Some(Self { library, outline, candidates, clients, replies, messages, frames })
    }

    fn scenario_generator(&self) -> ScenarioGenerator<'_> {
        let frames = self.frames.as_ref();
        ScenarioGenerator::new(&self.clients, &self.outline, &self.candidates, &self.replies, frames)
    }

    /// Returns the names of the given messages that were not ignored.
    fn kept_message_names(&self, messages: &[usize]) -> Vec<&str> {
        let named = messages.iter().filter_map(|index| self.candidates.iter().find(|one| one.message == *index));
        named.map(|one| one.name.as_str()).collect()
    }
}

/// Returns rules.yaml: the rules of every document, and the rules about this document's replies.
fn render_rules(replies: &[ReplyRule]) -> String {
    let mut text = include_str!("rules.yaml").to_owned();
    for reply in replies {
        text.push_str(&format!("  {}: {}\n", reply.id, flow_text(&Value::Object(reply.entry()))));
    }
    text
}

/// Returns the error of a document without a message that can be judged.
fn no_messages_error(outline: &document::DocumentOutline<'_>) -> Diagnostic {
    if !outline.messages.is_empty() || !outline.ignored.is_empty() {
        let reasons: Vec<&str> = outline.ignored.iter().map(String::as_str).collect();
        let reasons = if reasons.is_empty() { "see the warnings".to_owned() } else { reasons.join("; ") };
        return Diagnostic::error(outline.span, format!("no message of the document can be judged: {reasons}"));
    }
    Diagnostic::error(outline.span, "the document does not say who sends which message").help(
        "declare it in version 2 with `publish` and `subscribe` under `channels`, in version 3 under `operations`",
    )
}

fn one_way_warning(outline: &document::DocumentOutline<'_>, perspective: Perspective) -> Diagnostic {
    let help = match perspective {
        Perspective::Hub => "if the document describes a client of the hub, add --perspective client",
        Perspective::Client => "if the document describes the hub, leave out --perspective client",
    };
    Diagnostic::warning(outline.span, "according to this document, clients send no message to the hub").help(help)
}

/// Returns the messages of the document with schemas and examples, except those whose schema cannot be read.
fn message_candidates<'a>(
    library: &'a DocumentLibrary,
    outline: &document::DocumentOutline<'a>,
    budget: &mut schema::SchemaBudget<'a>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<MessageCandidate> {
    let mut found = Vec::new();
    for (index, message) in outline.messages.iter().enumerate() {
        let Some(payload) = schema::convert_payload_schema(library, message, budget, diagnostics) else { continue };
        let source = payload.to_json();
        let Ok(validator) = crate::syntax::json_schema::build_validator(&source) else {
            // Assembling the pack reports the invalid schema with its place.
            found.push(MessageCandidate::with_invalid_schema(index, message, payload, source));
            continue;
        };
        found.push(MessageCandidate::new(index, message, payload, source, validator));
    }
    found
}

/// Returns the messages as a pack declares them, and a message that stands for all other frames the hub might send.
fn declare_messages<'a>(
    library: &'a DocumentLibrary,
    outline: &document::DocumentOutline<'a>,
    candidates: &[MessageCandidate],
    clients: &DocumentClients,
    budget: &mut schema::SchemaBudget<'a>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<MessageDeclaration> {
    let name_of: BTreeMap<usize, &str> = candidates.iter().map(|one| (one.message, one.name.as_str())).collect();
    let mut messages: Vec<MessageDeclaration> = Vec::new();
    for one in candidates {
        let message = &outline.messages[one.message];
        let matcher = match Matcher::compile(&Value::Object(one.matches.clone())) {
            Ok(matcher) => matcher,
            Err(_) if one.validator.is_none() => Matcher::default(),
            Err(error) => {
                diagnostics.push(Diagnostic::error(message.span, error.message));
                continue;
            }
        };
        let mut payload = one.payload.clone();
        if let Some((example, documented)) = &one.example {
            put_member(&mut payload, "examples", &json!([example]), message.span);
            put_member(
                &mut payload,
                "x-example",
                &json!(if *documented { "documented" } else { "composed" }),
                message.span,
            );
        }
        if one.from_hub {
            put_member(&mut payload, "x-rules", &json!([FITS_RULE]), message.span);
        }
        messages.push(MessageDeclaration {
            name: one.name.clone(),
            span: message.span,
            title: message.title.clone(),
            summary: message.summary.clone(),
            directions: MessageDirections {
                to_hub: one.to_hub,
                from_hub: one.from_hub,
                unasked: message.directions.unasked && one.from_hub,
            },
            payload: PayloadSchema::Inline { node: payload },
            matcher,
            abstract_: false,
            replies: message
                .replies
                .iter()
                .filter_map(|reply| name_of.get(reply))
                .map(|&name| name.to_owned())
                .collect(),
            correlation: message.correlation.clone(),
            roles: one.roles.clone(),
        });
    }
    let from_hub: Vec<&MessageCandidate> = candidates.iter().filter(|one| one.from_hub).collect();
    let all_known = !outline.unknown_frames.json && !from_hub.is_empty();
    if all_known && from_hub.iter().all(|one| !one.matches.is_empty()) {
        for unlisted in unlisted_messages(outline, clients) {
            messages.extend(declare_unlisted_message(library, outline, &unlisted, &from_hub, budget, diagnostics));
        }
    }
    messages
}

/// The frames that the hub must not send to the clients of some roles.
struct UnlistedMessage {
    name: String,
    /// Empty for all roles.
    roles: Vec<String>,
    /// Indices of the messages that the hub may send to these clients.
    listed: Vec<usize>,
}

/// Returns an unlisted message for each different list of messages that clients receive.
fn unlisted_messages(outline: &document::DocumentOutline<'_>, clients: &DocumentClients) -> Vec<UnlistedMessage> {
    let from_hub = |(_, message): &(usize, &document::DocumentMessage<'_>)| message.directions.from_hub;
    let all: Vec<usize> = outline.messages.iter().enumerate().filter(from_hub).map(|(index, _)| index).collect();
    let mut found: Vec<UnlistedMessage> = Vec::new();
    for role in &clients.roles {
        let listed = if role.receives.is_empty() { &all } else { &role.receives };
        match found.iter_mut().find(|known| known.listed == *listed) {
            Some(known) => known.roles.push(role.name.clone()),
            None => {
                let name = format!("{OTHER_MESSAGE}_{}", role.name);
                found.push(UnlistedMessage { name, roles: vec![role.name.clone()], listed: listed.clone() });
            }
        }
    }
    if found.len() < 2 {
        return vec![UnlistedMessage { name: OTHER_MESSAGE.to_owned(), roles: Vec::new(), listed: all }];
    }
    found
}

/// Returns the message for frames that the hub must not send. Its schema allows only frames that are valid as one of
/// the listed messages, including ignored ones; other frames break it.
fn declare_unlisted_message<'a>(
    library: &'a DocumentLibrary,
    outline: &document::DocumentOutline<'a>,
    unlisted: &UnlistedMessage,
    from_hub: &[&MessageCandidate],
    budget: &mut schema::SchemaBudget<'a>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<MessageDeclaration> {
    let messages: Vec<_> = unlisted.listed.iter().map(|index| &outline.messages[*index]).collect();
    let mut payload = schema::convert_any_of(library, &messages, budget, diagnostics)?;
    let listed = from_hub.iter().filter(|one| unlisted.listed.contains(&one.message));
    let example = &listed.into_iter().find_map(|one| one.example.as_ref())?.0;
    put_member(&mut payload, "examples", &json!([example]), outline.span);
    put_member(&mut payload, "x-example", &json!("composed"), outline.span);
    put_member(&mut payload, "x-rules", &json!([LISTED_RULE]), outline.span);
    let of = match unlisted.roles.as_slice() {
        [] => "that the document does not list".to_owned(),
        roles => format!("that the document does not list for the channels of {}", roles.join(", ")),
    };
    Some(MessageDeclaration {
        name: unlisted.name.clone(),
        span: outline.span,
        title: "Unlisted message".to_owned(),
        summary: format!("A message {of}, so the hub must not send it."),
        directions: MessageDirections { to_hub: false, from_hub: true, unasked: true },
        payload: PayloadSchema::Inline { node: payload },
        matcher: Matcher::default(),
        abstract_: true,
        replies: Vec::new(),
        correlation: None,
        roles: unlisted.roles.clone(),
    })
}

/// Adds a member to a schema.
fn put_member(schema: &mut SyntaxNode, name: &str, value: &Value, span: crate::syntax::source::Span) {
    if let NodeKind::Map(entries) = &mut schema.kind {
        entries.push((NodeKey { name: name.to_owned(), span }, SyntaxNode::from_json(value, span)));
    }
}
