//! The replies that a document demands: those of operations whose messages clients send. Each reply has its own rule,
//! which the scenarios of the operation's messages prove.

use serde_json::{Map, Value, json};

use super::discriminator::MessageCandidate;
use super::document::DocumentOutline;
use super::references::DocumentLibrary;
use crate::syntax::source::{Sources, Span};

/// The place of a rule in a document: a line, with a path if it is in another file than the document itself.
pub struct RuleLine {
    path: Option<String>,
    pub line: usize,
}

impl RuleLine {
    pub fn from_span(library: &DocumentLibrary, sources: &Sources, span: Span) -> Self {
        let path = library.files().find(|(path, id)| *id == span.file && *path != library.root);
        Self { path: path.map(|(path, _)| path.to_owned()), line: sources.line_column(span).0 }
    }

    /// Returns the key of rules.yaml and its value.
    pub fn entry(&self) -> (String, Value) {
        match &self.path {
            None => ("line".to_owned(), json!(self.line)),
            Some(path) => ("section".to_owned(), json!(format!("{path}, line {}", self.line))),
        }
    }
}

/// The reply of an operation, and its rule.
pub struct ReplyRule {
    pub id: String,
    /// The place of `reply`.
    pub place: RuleLine,
    /// The sentence of the rule.
    pub text: String,
    /// The index of the operation.
    pub operation: usize,
    /// Indices of the messages that clients send.
    pub asked: Vec<usize>,
    /// Indices of the messages that may be the answer.
    pub answers: Vec<usize>,
    /// The identity of the channel on which the reply comes, if the channel has an address.
    pub channel: Option<(String, String)>,
}

/// Returns the demanded replies. A reply with an ignored message is left out, because the answer might be that message.
pub fn reply_rules(
    library: &DocumentLibrary,
    outline: &DocumentOutline<'_>,
    candidates: &[MessageCandidate],
    sources: &Sources,
) -> Vec<ReplyRule> {
    let kept = |index: &usize| candidates.iter().any(|one| one.message == *index);
    let mut rules = Vec::new();
    for (index, operation) in outline.operations.iter().enumerate().filter(|(_, operation)| operation.to_hub) {
        let Some(reply) = &operation.reply else { continue };
        let asked: Vec<usize> = operation.messages.iter().copied().filter(kept).collect();
        if asked.is_empty() || reply.messages.is_empty() || !reply.complete || !reply.messages.iter().all(kept) {
            continue;
        }
        rules.push(ReplyRule {
            id: format!("REPLY-{}", operation.name),
            place: RuleLine::from_span(library, sources, reply.span),
            text: format!(
                "A client that sends {} receives {} (operation {}).",
                list_alternatives(outline, &asked),
                list_alternatives(outline, &reply.messages),
                operation.name
            ),
            operation: index,
            asked,
            answers: reply.messages.clone(),
            channel: reply
                .channel
                .text("address")
                .filter(|address| !address.is_empty())
                .map(|_| reply.channel.identity()),
        });
    }
    rules
}

/// Joins the names of messages: `a, b or c`.
pub fn list_alternatives(outline: &DocumentOutline<'_>, messages: &[usize]) -> String {
    let names: Vec<&str> = messages.iter().map(|index| outline.messages[*index].name.as_str()).collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

impl ReplyRule {
    /// Returns the rule as an entry of rules.yaml.
    pub fn entry(&self) -> Map<String, Value> {
        let entry = |name: &str, value: &str| (name.to_owned(), json!(value));
        Map::from_iter([
            entry("level", "must"),
            entry("basis", "stated"),
            self.place.entry(),
            entry("text", &self.text),
            entry("sees", "the connection of a client that sends the request"),
        ])
    }
}
