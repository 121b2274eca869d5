//! Drafts a pack from recorded frames: messages, grouped by the member that distinguishes them best; schemas that all
//! recorded frames match; and a scenario that replays the conversation.
//!
//! ```text
//! connections        the addresses at which the recorded clients connected
//! frame_groups       groups frames that are the same message
//! sample_schema      a schema that matches all samples of a message
//! replayed_scenario  the recorded conversation as a scenario
//! ```

mod connections;
mod frame_groups;
mod replayed_scenario;
mod sample_schema;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::recording::{self, RecordedEvent, RecordedLine, SentFrame, Side};
use super::{DocumentLibrary, Perspective};
use crate::protocol::{Pack, PackFolder};
use crate::scenario::writer::{flow_text, write_scenario};
use crate::syntax::diagnostic::{Diagnostic, has_errors};
use crate::syntax::source::{FileId, Sources, Span};
use connections::RecordedConnections;

/// The most frames that are read.
const MAX_FRAMES: usize = 20_000;

/// A recorded frame.
struct RecordedFrame {
    /// Unix time in milliseconds.
    time: i64,
    connection: u64,
    to_hub: bool,
    value: Value,
}

/// Drafts the files of a pack, by path, from a recording of `hubproof record`; returns no files if there is an error.
pub fn pack_from_recording(
    name: &str,
    file: FileId,
    sources: &mut Sources,
) -> (BTreeMap<String, String>, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let Recording { frames, connections } = read_recording(file, sources, &mut diagnostics);
    if frames.is_empty() && !has_errors(&diagnostics) {
        let start = Span::new(file, 0..0);
        diagnostics.push(
            Diagnostic::error(start, "this recording contains no JSON message")
                .help("record one with `hubproof record --listen 127.0.0.1:4001 HUB_URL --to FILE`"),
        );
    }
    if has_errors(&diagnostics) {
        return (BTreeMap::new(), diagnostics);
    }
    let draft = format!("{:#}\n", draft_document(name, &frames, &connections));
    let draft = sources.add("asyncapi.yaml", draft);
    let library =
        match DocumentLibrary::read_files(
            "asyncapi.yaml",
            draft,
            sources,
            &mut |_, _| Err("it has one file".to_owned()),
        ) {
            Ok(library) => library,
            Err(diagnostic) => return (BTreeMap::new(), vec![diagnostic]),
        };
    let (mut files, more) = super::import_pack(&library, Perspective::Hub, sources);
    diagnostics.extend(more);
    let made: Vec<(String, FileId)> =
        files.iter().map(|(path, text)| (path.clone(), sources.add(path.clone(), text.clone()))).collect();
    let (pack, more) = Pack::load(&PackFolder::from_files(name, made), sources);
    diagnostics.extend(more);
    let Some(pack) = pack.map(Arc::new) else { return (BTreeMap::new(), diagnostics) };
    let replayed = replayed_scenario::replay_scenario(&pack, &frames, &connections, RECORDED_RULE);
    let head = "# The recorded conversation. Ids and times are new in each run; ids of clients that the hub repeats must be equal.\n";
    files.insert("scenarios/recorded.yaml".to_owned(), format!("{head}{}", write_scenario(&replayed)));
    let rule = json!({
        "level": "should", "basis": "implied", "line": 1, "from": "the recording",
        "text": "The hub answers as it did when it was recorded.", "sees": "the recorded conversation, replayed"
    });
    if let Some(rules) = files.get_mut("rules.yaml") {
        rules.push_str(&format!("  {RECORDED_RULE}: {}\n", flow_text(&rule)));
    }
    (files, diagnostics)
}

/// The rule of the replayed conversation.
const RECORDED_RULE: &str = "RECORDED";

struct Recording {
    frames: Vec<RecordedFrame>,
    connections: RecordedConnections,
}

/// Reads a recording; leaves out frames that are not JSON.
fn read_recording(file: FileId, sources: &Sources, diagnostics: &mut Vec<Diagnostic>) -> Recording {
    let (mut frames, mut connections) = (Vec::new(), RecordedConnections::default());
    let mut other = 0;
    let lines = recording::read_lines(file, sources).unwrap_or_else(|diagnostic| {
        diagnostics.push(diagnostic);
        Vec::new()
    });
    for RecordedLine { time, connection, event } in lines {
        let (to_hub, text) = match event {
            RecordedEvent::Opened { target, subprotocols } => {
                connections.add(connection, &target, subprotocols);
                continue;
            }
            RecordedEvent::Sent { by, what: SentFrame::Text(text) } => (by == Side::Client, text),
            RecordedEvent::Sent { .. } => continue,
        };
        match serde_json::from_str(&text) {
            Ok(value) if frames.len() < MAX_FRAMES => frames.push(RecordedFrame { time, connection, to_hub, value }),
            Ok(_) => {}
            Err(_) => other += 1,
        }
    }
    if other > 0 {
        let start = Span::new(file, 0..0);
        diagnostics.push(Diagnostic::warning(start, format!("{other} recorded texts are ignored: they are not JSON")));
    }
    connections.complete();
    Recording { frames, connections }
}

/// Returns the draft as an AsyncAPI document, from the hub's point of view.
fn draft_document(name: &str, frames: &[RecordedFrame], connections: &RecordedConnections) -> Value {
    let mut messages = Map::new();
    let mut listed = Map::new();
    let mut operations = Map::new();
    let channel_of = |channel: &str| json!({ "$ref": format!("#/channels/{channel}") });
    let listed_in = |channel: &str, name: &str| json!({ "$ref": format!("#/channels/{channel}/messages/{name}") });
    let mut unasked: Vec<String> = Vec::new();
    for group in frame_groups::group_frames(frames) {
        let name = group.name;
        let mut schema = sample_schema::schema_of_samples(&group.samples);
        if !group.keys.is_empty() && group.samples[0].is_array() {
            schema = sample_schema::schema_of_records(&group.samples);
        }
        for (pointer, value) in &group.keys {
            sample_schema::make_constant(&mut schema, pointer, value);
        }
        listed.insert(name.clone(), json!({ "$ref": format!("#/components/messages/{name}") }));
        messages.insert(name.clone(), json!({ "payload": schema, "examples": [{ "payload": group.samples[0] }] }));
        if group.to_hub {
            // A client sends the message where it was recorded first.
            let first = frames.iter().find(|frame| frame.to_hub && std::ptr::eq(&frame.value, group.samples[0]));
            let channel = connections.channel_name(first.map_or(0, |frame| frame.connection));
            let list = [listed_in(channel, &name)];
            operations.insert(name, json!({ "action": "receive", "channel": channel_of(channel), "messages": list }));
        } else {
            unasked.push(name);
        }
    }
    let channels = connections.channels();
    // A recording does not show which messages belong to which channel, so every channel lists all messages.
    for channel in channels.iter().map(|channel| &channel.name).filter(|_| !unasked.is_empty()) {
        let list: Vec<Value> = unasked.iter().map(|name| listed_in(channel, name)).collect();
        let operation = if channels.len() == 1 { "sent_by_hub".to_owned() } else { format!("sent_by_hub_{channel}") };
        operations.insert(operation, json!({ "action": "send", "channel": channel_of(channel), "messages": list }));
    }
    let channels: Map<String, Value> =
        channels.iter().map(|channel| (channel.name.clone(), channel.declaration(&listed))).collect();
    json!({
        "asyncapi": "3.0.0",
        "info": { "title": format!("Draft of {name}"), "version": "0.1.0", "description": "Made of a recording." },
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages }
    })
}

/// Whether a text is a UUID.
fn is_uuid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

/// Whether a text is an RFC 3339 time.
fn is_time(text: &str) -> bool {
    let plain = text.len() >= 20 && text.as_bytes().get(10) == Some(&b'T') && !text.contains('[');
    plain && text.parse::<jiff::Timestamp>().is_ok()
}

/// Returns all values in a message that are neither objects nor lists, in order, with their JSON pointers.
fn scalar_members(value: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    let mut open = vec![(String::new(), value)];
    while let Some((pointer, value)) = open.pop() {
        let below: Vec<(String, &Value)> = match value {
            Value::Object(members) => {
                let escape = crate::syntax::matcher::escape;
                members.iter().map(|(name, inner)| (format!("{pointer}/{}", escape(name)), inner)).collect()
            }
            Value::Array(items) => {
                items.iter().enumerate().map(|(index, inner)| (format!("{pointer}/{index}"), inner)).collect()
            }
            _ => {
                found.push((pointer, value));
                continue;
            }
        };
        open.extend(below.into_iter().rev());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded_frames(frames: &[(u64, bool, Value)]) -> Vec<RecordedFrame> {
        let frames = frames.iter().enumerate().map(|(index, (connection, to_hub, value))| RecordedFrame {
            time: 1_700_000_000_000 + 100 * index as i64,
            connection: *connection,
            to_hub: *to_hub,
            value: value.clone(),
        });
        frames.collect()
    }

    fn group_names(frames: &[RecordedFrame]) -> Vec<String> {
        frame_groups::group_frames(frames).into_iter().map(|group| group.name).collect()
    }

    #[test]
    fn frames_are_grouped_by_the_member_that_explains_their_shape() {
        let chat = recorded_frames(&[
            (1, true, json!({ "user": "anna", "kind": "join", "room": "a" })),
            (1, true, json!({ "user": "anna", "kind": "text", "text": "hello" })),
            (2, true, json!({ "user": "ben", "kind": "join", "room": "a" })),
            (2, true, json!({ "user": "ben", "kind": "text", "text": "hi" })),
            (1, false, json!({ "kind": "text", "by": "ben", "text": "hi" })),
            (1, false, json!({ "error": "no such room", "code": 4 })),
        ]);
        assert_eq!(group_names(&chat), ["join", "text", "text_from_hub", "code_error"]);
        // An id is not a discriminator, even if every frame has one.
        let calls = recorded_frames(&[
            (1, true, json!({ "id": "1a", "method": "add", "params": [1, 2] })),
            (1, true, json!({ "id": "2b", "method": "close", "params": [] })),
            (1, true, json!({ "id": "3c", "method": "add", "params": [3] })),
            (1, false, json!({ "id": "1a", "result": 3 })),
            (1, false, json!({ "id": "2b", "result": 0 })),
        ]);
        assert_eq!(group_names(&calls), ["add", "close", "id_result"]);
        // Nor is a UUID that several frames have, even if it has few digits.
        let session = "bdeeabcd-efab-4aab-8abc-abcdefabcdef";
        let sessions = recorded_frames(&[
            (1, true, json!({ "session": session, "opens": 1 })),
            (1, true, json!({ "session": session, "opens": 2 })),
            (2, true, json!({ "session": "other", "closes": 1 })),
            (2, true, json!({ "session": "other", "closes": 1 })),
        ]);
        assert!(!group_names(&sessions).iter().any(|name| name.contains("bdee")), "{:?}", group_names(&sessions));
    }

    #[test]
    fn arrays_are_grouped_by_their_elements() {
        let ocpp = recorded_frames(&[
            (1, true, json!([2, "boot1", "BootNotification", { "model": "x" }])),
            (1, false, json!([3, "boot1", { "status": "Accepted" }])),
            (1, true, json!([2, "beat1", "Heartbeat", {}])),
            (1, false, json!([3, "beat1", { "currentTime": "2026-01-01T00:00:00Z" }])),
            (1, false, json!([2, "reset1", "Reset", { "type": "Soft" }])),
            (1, true, json!([3, "reset1", { "status": "Accepted" }])),
            (1, true, json!([2, "beat2", "Heartbeat", {}])),
            (1, false, json!([4, "beat2", "InternalError", "", {}])),
        ]);
        assert_eq!(
            group_names(&ocpp),
            ["BootNotification", "Heartbeat", "message_3", "message_3_from_hub", "Reset", "InternalError"]
        );
        let mut connections = RecordedConnections::default();
        connections.complete();
        let document = draft_document("t", &ocpp, &connections);
        let schema = &document["components"]["messages"]["Heartbeat"]["payload"];
        let expected = json!({
            "type": "array",
            "prefixItems": [{ "const": 2 }, { "type": "string" }, { "const": "Heartbeat" }, { "type": "object" }],
            "minItems": 4, "maxItems": 4
        });
        assert_eq!(*schema, expected);
        // Batches are lists of any length.
        let batches = recorded_frames(&[
            (1, true, json!([{ "id": 1, "method": "add" }, { "id": 2, "method": "sub" }])),
            (1, true, json!([{ "id": 3, "method": "add" }])),
        ]);
        assert_eq!(group_names(&batches), ["list"]);
        let numbers = recorded_frames(&[(1, true, json!([1, 2])), (1, true, json!([2, 3])), (1, true, json!([3, 9]))]);
        assert_eq!(group_names(&numbers), ["list"]);
    }

    #[test]
    fn a_recording_of_arrays_becomes_a_pack_without_mistakes() {
        let line = |(second, to_hub, text): (usize, bool, Value)| {
            let direction = if to_hub { "to-hub" } else { "from-hub" };
            let time = format!("2026-01-01T00:00:0{second}Z");
            json!({ "time": time, "connection": 1, "direction": direction, "text": text.to_string() }).to_string()
        };
        let id = |number: usize| format!("b2b1c9a0-6f0e-4c7e-9d55-0a4f7d1c2e3{number}");
        let frames = [
            (1, true, json!([2, id(1), "BootNotification", { "model": "x" }])),
            (2, false, json!([3, id(1), { "status": "Accepted" }])),
            (3, true, json!([2, id(2), "Heartbeat", {}])),
            (4, false, json!([3, id(2), { "currentTime": "2026-01-01T00:00:00Z" }])),
        ];
        let text = frames.into_iter().map(line).collect::<Vec<_>>().join("\n");
        let mut sources = Sources::default();
        let file = sources.add("recording.jsonl", text);
        let (files, diagnostics) = pack_from_recording("ocpp", file, &mut sources);
        let rendered = crate::syntax::diagnostic::render_all(&diagnostics, &sources, false);
        assert_eq!(rendered, "");
        let all: Vec<(String, FileId)> =
            files.iter().map(|(path, text)| (path.clone(), sources.add(path.clone(), text.clone()))).collect();
        let folder = PackFolder::from_files("ocpp", all);
        let (pack, diagnostics) = Pack::load(&folder, &sources);
        assert_eq!(crate::syntax::diagnostic::render_all(&diagnostics, &sources, false), "");
        let pack = Arc::new(pack.unwrap());
        let recognised = |frame: Value, way| pack.recognise(&frame, way).map(|message| message.name.clone());
        let to_hub = crate::protocol::FrameDirection::ToHub;
        assert_eq!(recognised(json!([2, "9", "Heartbeat", {}]), to_hub).as_deref(), Some("Heartbeat"));
        assert_eq!(recognised(json!([2, "9", "BootNotification", {}]), to_hub).as_deref(), Some("BootNotification"));
        let scenarios = crate::scenario::ScenarioSet::load(&folder, &sources, &pack);
        assert_eq!(crate::syntax::diagnostic::render_all(&scenarios.diagnostics, &sources, false), "");
        let scenario = &files["scenarios/recorded.yaml"];
        assert!(scenario.contains("'/1': '${uuid()}'") && scenario.contains("'/1': { const: '${sent_"), "{scenario}");
    }

    #[test]
    fn a_sampled_schema_accepts_all_samples_and_requires_common_members() {
        let of = |samples: &[Value]| sample_schema::schema_of_samples(&samples.iter().collect::<Vec<_>>());
        let found = of(&[
            json!({ "id": "b2b1c9a0-6f0e-4c7e-9d55-0a4f7d1c2e3b", "at": "2026-01-02T03:04:05Z", "n": 1, "list": [{ "a": 1 }] }),
            json!({ "id": "c2b1c9a0-6f0e-4c7e-9d55-0a4f7d1c2e3b", "at": "2026-01-02T03:04:06.5Z", "n": 1.5, "list": [], "extra": null }),
        ]);
        let expected = json!({
            "type": "object",
            "properties": {
                "at": { "type": "string", "format": "date-time" },
                "extra": { "type": "null" },
                "id": { "type": "string", "format": "uuid" },
                "list": { "type": "array", "items": { "type": "object", "properties": { "a": { "type": "integer" } }, "required": ["a"] } },
                "n": { "type": "number" }
            },
            "required": ["at", "id", "list", "n"]
        });
        assert_eq!(found, expected);
        // A single text that is not a UUID removes the format.
        assert_eq!(of(&[json!("b2b1c9a0-6f0e-4c7e-9d55-0a4f7d1c2e3b"), json!("x")]), json!({ "type": "string" }));
        // Words are an enumeration only if they are few and repeated.
        let words = |words: &[&str]| of(&words.iter().map(|word| json!(word)).collect::<Vec<_>>());
        assert_eq!(words(&["up", "down", "up", "up", "down", "up"]), json!({ "enum": ["down", "up"] }));
        assert_eq!(words(&["anna", "ben", "carl", "anna"]), json!({ "type": "string" }));
    }
}
