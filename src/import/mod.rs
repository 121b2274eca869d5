//! A plain AsyncAPI document as a pack. Whoever wrote it knew nothing of this harness: it may be of version 2 or 3, its
//! schemas stand wherever its references lead, nothing says how a frame is recognised, and examples may be missing. What
//! comes out are the same structures that a pack of ours is read into, and scenarios as files, so that everything after it
//! knows no difference.
//!
//! ```text
//! references      the files of the document, and what references lead to
//! document        channels, operations and messages, whichever version wrote them
//! schema          draft-07 and its relatives as the 2020-12 that everything else reads
//! schema_facts    what a schema says for sure about places of a message
//! discriminator   from that, what tells the messages of a hub apart
//! examples        a payload where the document shows none
//! scenarios       who connects where, and sends what
//! ```

mod discriminator;
mod document;
mod examples;
mod references;
mod scenarios;
mod schema;
mod schema_facts;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

pub use references::{Fetch, Library};

use crate::protocol::asyncapi::{Declared, Document, Payload};
use crate::protocol::{Directions, Folder, Ours};
use crate::syntax::diagnostic::{Diagnostic, has_errors};
use crate::syntax::matcher::Matcher;
use crate::syntax::source::Sources;
use crate::syntax::yaml::{Key, Kind, Node, Text};
use discriminator::Candidate;

/// Whom a document describes. AsyncAPI says what an application sends and receives, and leaves open which one that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Perspective {
    /// The hub receives what others `publish` (version 2), or what it `receive`s (version 3).
    #[default]
    Hub,
    /// The other way round: the document describes one of the hub's clients.
    Client,
}

/// The name of the form that a frame falls to which is no message of the document.
const OTHER: &str = "no_message_of_the_document";
/// The rules that a plain document makes: what it lists is what the hub may say.
const FITS: &str = "DOC-FITS";
const LISTED: &str = "DOC-LISTED";

/// The folder of the pack that a document is, with its scenarios, and everything that is wrong with it. With an error
/// there is no pack in it.
pub fn folder(
    name: &str,
    library: &Library,
    perspective: Perspective,
    sources: &mut Sources,
) -> (Folder, Vec<Diagnostic>) {
    let mut folder = Folder { name: name.to_owned(), ..Folder::default() };
    folder.pack = library.files().map(|(path, file)| (path.to_owned(), file)).collect();
    let mut diagnostics = Vec::new();
    let Some(outline) = document::read(library, perspective, &mut diagnostics) else {
        return (folder, diagnostics);
    };
    let mut room = schema::Room::default();
    let mut candidates = candidates(library, &outline, &mut room, &mut diagnostics);
    if has_errors(&diagnostics) {
        return (folder, diagnostics);
    }
    discriminator::tell_apart(&mut candidates, &mut diagnostics);
    let messages = declared(library, &outline, &candidates, &mut room, &mut diagnostics);
    if candidates.is_empty() && !has_errors(&diagnostics) {
        diagnostics.push(nothing(&outline));
    }
    let names: Vec<&str> = candidates.iter().filter(|one| one.to_hub).map(|one| one.name.as_str()).collect();
    if names.is_empty() && !has_errors(&diagnostics) {
        diagnostics.push(one_way(&outline));
    }
    for (path, text) in scenarios::files(&outline, &names) {
        let file = sources.add(format!("{name}/{path}"), text);
        folder.scenarios.insert(path, file);
    }
    folder.pack.insert("rules.yaml".to_owned(), sources.add(format!("{name}/rules.yaml"), include_str!("rules.yaml")));
    let document = Document {
        title: outline.title,
        version: outline.version,
        description: outline.description,
        messages,
        ours: Ours::default(),
        files: Vec::new(),
        files_known: false,
    };
    folder.document = Some(Arc::new(document));
    (folder, diagnostics)
}

fn nothing(outline: &document::Outline<'_>) -> Diagnostic {
    Diagnostic::error(outline.span, "nothing in this document says who sends which message")
        .help("version 2 says it under `channels` with `publish` and `subscribe`, version 3 under `operations`")
}

fn one_way(outline: &document::Outline<'_>) -> Diagnostic {
    Diagnostic::warning(outline.span, "by this document, nobody sends the hub anything")
        .help("where it describes a client of the hub, say --perspective client")
}

/// The messages of the document with schemas and examples; those for which there is none are passed over.
fn candidates(
    library: &Library,
    outline: &document::Outline<'_>,
    room: &mut schema::Room,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Candidate> {
    let mut found = Vec::new();
    for (index, message) in outline.messages.iter().enumerate() {
        let Some(payload) = schema::of(library, message, room, diagnostics) else { continue };
        let source = payload.to_json();
        let Ok(validator) = crate::syntax::json_schema::validator(&source) else {
            // Told with its place when the pack is put together.
            found.push(Candidate::broken(index, message, payload, source));
            continue;
        };
        found.push(Candidate::new(index, message, payload, source, validator));
    }
    found
}

/// The messages as a pack declares them, and the form for everything else that the hub might say.
fn declared(
    library: &Library,
    outline: &document::Outline<'_>,
    candidates: &[Candidate],
    room: &mut schema::Room,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Declared> {
    let name_of: BTreeMap<usize, &str> = candidates.iter().map(|one| (one.message, one.name.as_str())).collect();
    let mut messages: Vec<Declared> = Vec::new();
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
            put(&mut payload, "examples", &json!([example]), message.span);
            put(&mut payload, "x-example", &json!(if *documented { "documented" } else { "composed" }), message.span);
        }
        if one.from_hub {
            put(&mut payload, "x-rules", &json!([FITS]), message.span);
        }
        messages.push(Declared {
            name: one.name.clone(),
            span: message.span,
            title: message.title.clone(),
            summary: message.summary.clone(),
            directions: Directions {
                to_hub: one.to_hub,
                from_hub: one.from_hub,
                unasked: message.directions.unasked && one.from_hub,
            },
            payload: Payload::Inline { node: payload },
            matcher,
            abstract_: false,
            replies: message
                .replies
                .iter()
                .filter_map(|reply| name_of.get(reply))
                .map(|&name| name.to_owned())
                .collect(),
            correlation: message.correlation.clone(),
        });
    }
    let spoken: Vec<&Candidate> = candidates.iter().filter(|one| one.from_hub).collect();
    let all_known = !outline.unknown_from_hub && !spoken.is_empty();
    if all_known && spoken.iter().all(|one| !one.matches.is_empty()) {
        messages.extend(other(library, outline, &spoken, room, diagnostics));
    }
    messages
}

/// The form of what the hub must not say: it is valid as none of the messages, or would be recognised as one. Messages
/// that were passed over count, too.
fn other(
    library: &Library,
    outline: &document::Outline<'_>,
    spoken: &[&Candidate],
    room: &mut schema::Room,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Declared> {
    let messages: Vec<_> = outline.messages.iter().filter(|message| message.directions.from_hub).collect();
    let mut payload = schema::any_of(library, &messages, room, diagnostics)?;
    let example = &spoken.iter().find_map(|one| one.example.as_ref())?.0;
    put(&mut payload, "examples", &json!([example]), outline.span);
    put(&mut payload, "x-example", &json!("composed"), outline.span);
    put(&mut payload, "x-rules", &json!([LISTED]), outline.span);
    Some(Declared {
        name: OTHER.to_owned(),
        span: outline.span,
        title: "None of them".to_owned(),
        summary: "What the document does not list, and no hub of it says.".to_owned(),
        directions: Directions { to_hub: false, from_hub: true, unasked: true },
        payload: Payload::Inline { node: payload },
        matcher: Matcher::default(),
        abstract_: true,
        replies: Vec::new(),
        correlation: None,
    })
}

/// Puts a member into a schema that was read from somewhere else.
fn put(schema: &mut Node, name: &str, value: &Value, span: crate::syntax::source::Span) {
    if let Kind::Map(entries) = &mut schema.kind {
        entries.push((Key { name: name.to_owned(), span }, node(value, span)));
    }
}

/// A value as a node that stands at `span`.
fn node(value: &Value, span: crate::syntax::source::Span) -> Node {
    let kind = match value {
        Value::Null => Kind::Null,
        Value::Bool(value) => Kind::Bool(*value),
        Value::Number(number) => Kind::Number(number.clone()),
        Value::String(text) => Kind::Text(Text { value: text.clone(), inner: None }),
        Value::Array(items) => Kind::List(items.iter().map(|item| node(item, span)).collect()),
        Value::Object(members) => Kind::Map(
            members.iter().map(|(name, member)| (Key { name: name.clone(), span }, node(member, span))).collect(),
        ),
    };
    Node { span, kind }
}
