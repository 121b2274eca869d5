//! Writes a plain document as the files of a starter pack: asyncapi.yaml from the hub's point of view, a schema for
//! each message, the rules that the document states, and a scenario for each operation.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::document::{DocumentOperation, DocumentOutline, to_word, unique_name};
use super::references::DocumentRef;
use super::scenarios::{ClientRole, ScenarioGenerator, titled_scenario};
use super::{ImportedDocument, normative_sentences};
use crate::protocol::asyncapi::{MessageDeclaration, PayloadSchema};
use crate::scenario::writer::{block, write_scenario};
use crate::syntax::printable::escape_unprintable;
use crate::syntax::source::Sources;
use crate::syntax::yaml;

/// Returns the files by path.
pub fn pack_files(imported: &ImportedDocument<'_>, sources: &Sources) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for message in &imported.messages {
        let PayloadSchema::Inline { node } = &message.payload else { continue };
        let mut schema =
            Map::from_iter([("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"))]);
        schema.extend(node.to_json().as_object().cloned().unwrap_or_default());
        files.insert(schema_path(&message.name), format!("{:#}\n", Value::Object(schema)));
    }
    files.insert("asyncapi.yaml".to_owned(), block(&pack_document(imported)));
    files.insert("rules.yaml".to_owned(), block(&rules_file(imported, sources)));
    let generator = imported.scenario_generator();
    files.insert("scenarios/shared.yaml".to_owned(), block(&Value::Object(generator.shared_file())));
    files.extend(scenario_files(imported, &generator, sources));
    files
}

fn schema_path(message: &str) -> String {
    format!("messages/{message}.schema.json")
}

// ---- asyncapi.yaml

fn pack_document(imported: &ImportedDocument<'_>) -> Value {
    let outline = &imported.outline;
    let names = channel_names(outline);
    let name_of = |place: &DocumentRef<'_>| {
        let index = outline.channels.iter().position(|channel| channel.place.identity() == place.identity());
        index.and_then(|index| names.get(index)).or(names.first()).cloned().unwrap_or_else(|| "hub".to_owned())
    };
    let mut channels: Map<String, Value> = outline
        .channels
        .iter()
        .zip(&names)
        .map(|(channel, name)| (name.clone(), json!({ "address": channel.path(), "messages": {} })))
        .collect();
    if channels.is_empty() {
        channels.insert("hub".to_owned(), json!({ "address": "/", "messages": {} }));
    }
    // Lists messages in a channel and returns the references to them.
    let mut listed = |channel: &str, messages: Vec<&str>| -> Value {
        let references = messages.into_iter().map(|message| {
            let reference = json!({ "$ref": format!("#/components/messages/{message}") });
            channels[channel]["messages"][message] = reference;
            json!({ "$ref": format!("#/channels/{channel}/messages/{message}") })
        });
        references.collect()
    };
    let mut operations = Map::new();
    for operation in &outline.operations {
        let messages = imported.kept_message_names(&operation.messages);
        if messages.is_empty() {
            continue;
        }
        let channel = name_of(&operation.channel);
        let mut written = Map::new();
        written.insert("action".to_owned(), json!(if operation.to_hub { "receive" } else { "send" }));
        if !operation.summary.is_empty() {
            written.insert("summary".to_owned(), json!(operation.summary));
        }
        written.insert("channel".to_owned(), json!({ "$ref": format!("#/channels/{channel}") }));
        written.insert("messages".to_owned(), listed(&channel, messages));
        if let Some(reply) = &operation.reply {
            let channel = name_of(&reply.channel);
            let messages = imported.kept_message_names(&reply.messages);
            if !messages.is_empty() {
                let reference = json!({ "$ref": format!("#/channels/{channel}") });
                written.insert(
                    "reply".to_owned(),
                    json!({ "channel": reference, "messages": listed(&channel, messages) }),
                );
            }
        }
        operations.insert(operation.name.clone(), Value::Object(written));
    }
    for unlisted in imported.messages.iter().filter(|message| message.abstract_) {
        let channel = names.first().map_or("hub", String::as_str).to_owned();
        let reference = json!({ "$ref": format!("#/channels/{channel}") });
        let messages = listed(&channel, vec![&unlisted.name]);
        operations
            .insert(unlisted.name.clone(), json!({ "action": "send", "channel": reference, "messages": messages }));
    }
    let messages: Map<String, Value> =
        imported.messages.iter().map(|declared| (declared.name.clone(), message_entry(imported, declared))).collect();
    let text = |text: &str| if text.is_empty() { json!("untitled") } else { json!(text) };
    json!({
        "asyncapi": "3.0.0",
        "info": { "title": text(&outline.title), "version": text(&outline.version), "description": outline.description.trim() },
        "servers": { "hub": { "host": "localhost", "protocol": "ws" } },
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages }
    })
}

/// Returns names for the channels, in order, that are valid in references.
fn channel_names(outline: &DocumentOutline<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for channel in &outline.channels {
        let name = Some(to_word(&channel.name)).filter(|name| !name.is_empty()).unwrap_or_else(|| "hub".to_owned());
        names.push(unique_name(&name, '_', |name| names.iter().any(|known| known == name)));
    }
    names
}

fn message_entry(imported: &ImportedDocument<'_>, declared: &MessageDeclaration) -> Value {
    let mut written = Map::new();
    for (key, text) in [("title", &declared.title), ("summary", &declared.summary)] {
        if !text.is_empty() {
            written.insert(key.to_owned(), json!(text));
        }
    }
    if let Some(pointer) = &declared.correlation {
        written.insert("correlationId".to_owned(), json!({ "location": format!("$message.payload#{pointer}") }));
    }
    written.insert("payload".to_owned(), json!({ "$ref": format!("./{}", schema_path(&declared.name)) }));
    let candidate = imported.candidates.iter().find(|one| one.name == declared.name);
    let mut extension = Map::new();
    if let Some(matches) = candidate.map(|one| &one.matches).filter(|matches| !matches.is_empty()) {
        extension.insert("match".to_owned(), Value::Object(matches.clone()));
    }
    if declared.abstract_ {
        extension.insert("abstract".to_owned(), json!(true));
    }
    if !declared.roles.is_empty() {
        extension.insert("roles".to_owned(), json!(declared.roles));
    }
    if !extension.is_empty() {
        written.insert("x-hubproof".to_owned(), Value::Object(extension));
    }
    Value::Object(written)
}

// ---- rules.yaml

fn rules_file(imported: &ImportedDocument<'_>, sources: &Sources) -> Value {
    // The rules of every document come with the program.
    let every = yaml::parse_text(include_str!("rules.yaml"), imported.outline.span.file).map(|node| node.to_json());
    let mut rules = every.ok().and_then(|every| every["rules"].as_object().cloned()).unwrap_or_default();
    for reply in &imported.replies {
        rules.insert(reply.id.clone(), Value::Object(reply.entry()));
    }
    for sentence in normative_sentences::normative_sentences(imported.library, sources) {
        let id = unique_name(&format!("LINE-{}", sentence.place.line), '-', |id| rules.contains_key(id));
        let entry = |name: &str, value: &str| (name.to_owned(), json!(value));
        let rule = Map::from_iter([
            entry("level", sentence.level.name()),
            entry("basis", "stated"),
            sentence.place.entry(),
            entry("text", &sentence.text),
        ]);
        rules.insert(id, Value::Object(rule));
    }
    json!({ "document": imported.library.root, "rules": rules })
}

// ---- scenarios

fn scenario_files(
    imported: &ImportedDocument<'_>,
    generator: &ScenarioGenerator<'_>,
    sources: &Sources,
) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for (index, operation) in imported.outline.operations.iter().enumerate() {
        let judged = imported.replies.iter().any(|reply| reply.operation == index);
        let role = generator.role_of_channel(&operation.channel);
        let Some(role) = role else { continue };
        let (line, file) = (sources.line_column(operation.span).0, &imported.library.root);
        let mut head = format!("# Operation {} of {file}, line {line}", escape_unprintable(&operation.name));
        head.push_str(if operation.summary.is_empty() { ".\n" } else { ":\n" });
        head.extend(operation.summary.lines().map(|line| format!("# {}\n", escape_unprintable(line))));
        for (name, root) in scenario_stubs(imported, generator, operation, role) {
            let more = if judged {
                "# What else does the document say about this operation? Add each such sentence as a rule to a step or `has`.\n"
            } else {
                "# No step proves a rule yet: expect the messages that must come, and add `rules: [RULE]` to those steps.\n"
            };
            files.insert(format!("scenarios/{name}.yaml"), format!("{head}{more}{}", write_scenario(&root)));
        }
    }
    if imported.replies.is_empty() {
        files.insert("scenarios/something-arrives.yaml".to_owned(), write_scenario(&generator.any_frame_scenario()));
    }
    files
}

/// Returns the scenarios of an operation by name.
fn scenario_stubs(
    imported: &ImportedDocument<'_>,
    generator: &ScenarioGenerator<'_>,
    operation: &DocumentOperation<'_>,
    role: &ClientRole,
) -> Vec<(String, Map<String, Value>)> {
    let free = if operation.name == "shared" { "shared_operation" } else { operation.name.as_str() };
    if !operation.to_hub {
        let what = imported.kept_message_names(&operation.messages).join(", ");
        let title = format!("The hub sends {what} only as the document says");
        return vec![(free.to_owned(), titled_scenario(title, generator.listen_steps(role)))];
    }
    let messages: Vec<usize> = operation
        .messages
        .iter()
        .copied()
        .filter(|index| imported.candidates.iter().any(|one| one.message == *index))
        .collect();
    let mut stubs = Vec::new();
    for &index in &messages {
        let message = &imported.outline.messages[index].name;
        let examples = generator.payload_count(index);
        for number in 0..examples {
            let mut name = free.to_owned();
            if messages.len() > 1 {
                name.push_str(&format!("-{message}"));
            }
            if examples > 1 {
                name.push_str(&format!("-{}", number + 1));
            }
            let title = generator.scenario_title(role, index, number);
            stubs.push((name, titled_scenario(title, generator.exchange_steps(role, index, number))));
        }
    }
    stubs
}
