//! Tests of single parts of a document: schemas of older drafts, discriminators, connection settings.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::protocol::{FrameDirection, Pack};
use crate::scenario::ScenarioSet;
use crate::syntax::yaml;

struct ImportedPack {
    sources: Sources,
    folder: PackFolder,
    pack: Pack,
    notes: Vec<String>,
}

/// The pack of a document without mistakes; `files` are next to the document.
fn import_document(document: &str, perspective: Perspective, files: &[(&str, &str)]) -> ImportedPack {
    let mut sources = Sources::default();
    let file = sources.add("asyncapi.yaml", document);
    let mut fetch = |path: &str, sources: &mut Sources| {
        let found = files.iter().find(|(name, _)| *name == path).ok_or_else(|| format!("there is no {path}"))?;
        Ok(sources.add(path, found.1))
    };
    let library = DocumentLibrary::read_files("asyncapi.yaml", file, &mut sources, &mut fetch).unwrap();
    let (folder, mut diagnostics) = super::import_folder("made", &library, perspective, &mut sources);
    let (pack, more) = Pack::load(&folder, &sources);
    diagnostics.extend(more);
    let rendered = crate::syntax::diagnostic::render_all(&diagnostics, &sources, false);
    let pack = pack.unwrap_or_else(|| panic!("{rendered}"));
    let notes = diagnostics.into_iter().map(|note| note.message).collect();
    ImportedPack { sources, folder, pack, notes }
}

fn with_payload(payload: &str) -> String {
    format!(
        "asyncapi: 2.6.0\nchannels: {{ /: {{ publish: {{ message: {{ name: m, payload: {payload} }} }} }} }}\ncomponents: {{ schemas: {{ id: {{ type: integer }}, tree: {{ properties: {{ below: {{ items: {{ $ref: '#/components/schemas/tree' }} }} }} }} }} }}\n"
    )
}

#[rstest]
#[case::digits(r"^\d{4}$")]
#[case::word_characters(r"^\w+$")]
#[case::class(r"[\w-]")]
#[case::date(r"^\d{4}-[01]\d-[0-3]\d$")]
#[case::look_ahead(r"^(?=.*[A-Z])(?=.*\d).{8,}$")]
fn messages_with_patterns_get_a_payload(#[case] pattern: &str) {
    let payload = format!("{{ required: [v], properties: {{ v: {{ type: string, pattern: '{pattern}' }} }} }}");
    let made = import_document(&with_payload(&payload), Perspective::Hub, &[]);
    let schema = &made.pack.message("m").unwrap().schema;
    assert!(schema.is_valid(schema.example.as_ref().unwrap()), "{:?}", made.notes);
}

/// A schema of a few hundred bytes that needs gigabytes of memory, or hours, if all of it is followed.
#[rstest]
#[case::nested_lists(
    "{ type: array, minItems: 150, items: { type: array, minItems: 150, items: { type: array, minItems: 150 } } }",
    "",
    "no payload was found"
)]
#[case::nested_alternatives(
    "{ $ref: '#/components/schemas/d0' }",
    &(0..40).map(|n| format!("d{n}: {{ anyOf: [ {{ $ref: '#/components/schemas/d{0}' }}, {{ $ref: '#/components/schemas/d{0}' }} ] }}, ", n + 1)).collect::<String>(),
    "combinations of alternatives"
)]
fn a_schema_that_explodes_is_reported(#[case] payload: &str, #[case] definitions: &str, #[case] expected: &str) {
    let document =
        with_payload(payload).replace("schemas: { ", &format!("schemas: {{ {definitions}d40: {{ type: string }}, "));
    let mut sources = Sources::default();
    let file = sources.add("asyncapi.yaml", document);
    let library =
        DocumentLibrary::read_files("asyncapi.yaml", file, &mut sources, &mut |path, _| Err(path.to_owned())).unwrap();
    let (folder, mut diagnostics) = super::import_folder("made", &library, Perspective::Hub, &mut sources);
    diagnostics.extend(Pack::load(&folder, &sources).1);
    let rendered = crate::syntax::diagnostic::render_all(&diagnostics, &sources, false);
    assert!(rendered.contains(expected), "{rendered}");
}

#[rstest]
#[case::as_it_is("{ type: object, required: [a], properties: { a: { const: 1 } } }", json!({"type": "object", "required": ["a"], "properties": {"a": {"const": 1}}}))]
#[case::draft_4_above("{ minimum: 0, exclusiveMinimum: true }", json!({"exclusiveMinimum": 0}))]
#[case::draft_4_not_above("{ minimum: 0, exclusiveMinimum: false }", json!({"minimum": 0}))]
#[case::draft_4_below("{ exclusiveMaximum: true, maximum: 9 }", json!({"exclusiveMaximum": 9}))]
#[case::draft_6("{ minimum: 0, exclusiveMaximum: 9 }", json!({"minimum": 0, "exclusiveMaximum": 9}))]
#[case::tuple("{ items: [ { type: string }, {} ], additionalItems: false }", json!({"prefixItems": [{"type": "string"}, {}], "items": false}))]
#[case::list("{ items: { type: string }, additionalItems: false }", json!({"items": {"type": "string"}}))]
#[case::dependencies("{ dependencies: { a: [b], c: { required: [d] } } }", json!({"dependentRequired": {"a": ["b"]}, "dependentSchemas": {"c": {"required": ["d"]}}}))]
#[case::reference("{ $ref: '#/components/schemas/id' }", json!({"type": "integer"}))]
#[case::beside_a_reference_nothing_counts("{ properties: { a: { $ref: '#/components/schemas/id', minimum: 3 } } }", json!({"properties": {"a": {"$ref": "#/$defs/id"}}, "$defs": {"id": {"type": "integer"}}}))]
#[case::newer_dialects_count_it("{ $schema: 'https://json-schema.org/draft/2020-12/schema', properties: { a: { $ref: '#/components/schemas/id', minimum: 3 } } }", json!({"properties": {"a": {"$ref": "#/$defs/id", "minimum": 3}}, "$defs": {"id": {"type": "integer"}}}))]
#[case::itself("{ $ref: '#/components/schemas/tree' }", json!({"properties": {"below": {"items": {"$ref": "#/$defs/tree"}}}, "$defs": {"tree": {"properties": {"below": {"items": {"$ref": "#/$defs/tree"}}}}}}))]
#[case::nullable("{ properties: { a: { type: string, nullable: true } } }", json!({"properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}))]
#[case::formats_that_say_nothing("{ type: integer, format: int64 }", json!({"type": "integer"}))]
#[case::formats("{ type: string, format: date-time }", json!({"type": "string", "format": "date-time"}))]
#[case::words_beside("{ default: 1, readOnly: true, x-y: 1, discriminator: type, externalDocs: {}, type: any }", json!({"default": 1}))]
#[case::anything("true", json!({}))]
#[case::in_a_file("{ $ref: 'sub/x.json#/definitions/a' }", json!({"items": {"$ref": "#/$defs/b"}, "$defs": {"b": {"type": "null"}}}))]
fn schemas_of_older_drafts_are_converted_to_2020_12(#[case] payload: &str, #[case] expected: Value) {
    let files = [
        ("sub/x.json", r##"{"definitions": {"a": {"items": {"$ref": "../y.yaml#/b"}}}}"##),
        ("y.yaml", "b: { type: 'null' }\n"),
    ];
    let made = import_document(&with_payload(payload), Perspective::Hub, &files);
    let mut schema = made.pack.messages[0].schema.source.clone();
    for added in ["examples", "x-example"] {
        schema.as_object_mut().unwrap().remove(added);
    }
    assert_eq!(schema, expected);
    assert_eq!(made.notes, Vec::<String>::new());
}

/// Payloads of messages a, b, ... of the hub, and frames with the message that each is recognised as; `-` means none of
/// them.
#[rstest]
#[case::by_a_value(&["{ required: [t], properties: { t: { const: x } } }", "{ required: [t], properties: { t: { const: y } } }"],
    &[(json!({"t": "x"}), "a"), (json!({"t": "y", "z": 1}), "b"), (json!({"t": "z"}), "-")])]
#[case::wrong_otherwise(&["{ required: [t, n], properties: { t: { const: x }, n: { type: integer } } }", "{ required: [t], properties: { t: { const: y } } }"],
    &[(json!({"t": "x", "n": "no"}), "a")])]
#[case::forgotten_to_be_required(&["{ properties: { t: { const: x }, n: { type: integer } } }", "{ properties: { t: { enum: [y, z] } } }"],
    &[(json!({"t": "x", "n": "no"}), "a"), (json!({"t": "z"}), "b"), (json!({}), "-")])]
#[case::deeper(&["{ required: [d], properties: { d: { required: [t], properties: { t: { const: x } } } } }", "{ required: [d], properties: { d: { required: [t], properties: { t: { const: y } } } } }"],
    &[(json!({"d": {"t": "y"}}), "b")])]
#[case::by_type(&["{ type: object }", "{ type: array }", "{ type: string }"],
    &[(json!({}), "a"), (json!([]), "b"), (json!("c"), "c"), (json!(1), "-")])]
#[case::by_an_item(&["{ type: array, minItems: 2, items: [ {}, { const: x } ] }", "{ type: array, minItems: 2, items: [ {}, { const: y } ] }"],
    &[(json!([0, "x"]), "a"), (json!([{}, "y", 1]), "b")])]
#[case::by_what_is_forbidden(&["{ type: object, required: [result] }", "{ type: object, required: [error], additionalProperties: false, properties: { error: {} } }"],
    &[(json!({"result": 1}), "a"), (json!({"error": 1}), "b")])]
#[case::through_forms(&["{ oneOf: [ { required: [t], properties: { t: { const: x } } }, { required: [t], properties: { t: { const: w } } } ] }", "{ allOf: [ { required: [t] }, { properties: { t: { const: y } } } ] }"],
    &[(json!({"t": "w"}), "a"), (json!({"t": "y"}), "b")])]
#[case::by_validity(&["{ type: object, required: [a], properties: { a: { minimum: 5 } } }", "{ type: object, required: [b] }"],
    &[(json!({"a": 5}), "a"), (json!({"b": 1}), "b"), (json!({"a": 1}), "-")])]
#[case::by_its_constant_although_invalid(&["{ type: object, required: [kind, id], properties: { kind: { const: test }, id: { type: string, format: uuid } } }", "{ type: object, required: [news], properties: { news: { type: string } } }"],
    &[(json!({"kind": "test", "id": "no"}), "a"), (json!({"kind": "test", "news": "x"}), "b"), (json!({"kind": "other"}), "-"), (json!({"news": 1}), "-")])]
#[case::by_no_constant_that_two_have(&["{ type: object, required: [kind, id], properties: { kind: { const: test } } }", "{ type: object, required: [kind, news], properties: { kind: { enum: [test, news] } } }"],
    &[(json!({"kind": "test", "id": 1}), "a"), (json!({"kind": "test"}), "-")])]
#[case::the_most_specific_first(&["{ type: object }", "{ type: object, required: [a] }"],
    &[(json!({"a": 5}), "b"), (json!({"b": 1}), "a")])]
fn messages_are_distinguished_by_their_discriminator(#[case] payloads: &[&str], #[case] frames: &[(Value, &str)]) {
    let list =
        payloads.iter().zip('a'..).map(|(payload, name)| format!("      - {{ name: {name}, payload: {payload} }}\n"));
    let list: String = list.collect();
    let document = format!("asyncapi: 2.0.0\nchannels:\n  /:\n    subscribe:\n     message:\n      oneOf:\n{list}");
    let made = import_document(&document, Perspective::Hub, &[]);
    for (frame, expected) in frames {
        let found = made.pack.recognise(frame, FrameDirection::FromHub).filter(|found| found.name != OTHER_MESSAGE);
        assert_eq!(found.map_or("-", |found| found.name.as_str()), *expected, "{frame}");
    }
}

#[test]
fn a_message_that_cannot_be_distinguished_from_another_is_ignored_with_a_warning() {
    let made = import_document(
        "asyncapi: 2.0.0\nchannels: { /: { publish: { message: { oneOf: [ { name: a, payload: {} }, { name: b, payload: {} } ] } } } }\n",
        Perspective::Hub,
        &[],
    );
    assert_eq!(made.notes, ["`b` is ignored: it cannot be distinguished from `a`"]);
    assert_eq!(made.pack.messages.len(), 1);
}

/// The schemas of two messages refer to definitions of the same name and to members that are called like keywords.
#[test]
fn an_invalid_frame_is_recognised_by_its_constant_through_references() {
    let document = "asyncapi: 2.0.0
channels:
  /:
    subscribe:
      message:
        oneOf:
          - { name: a, payload: { type: object, required: [kind, default], properties: { kind: { const: a }, default: { $ref: '#/components/schemas/id' } } } }
          - { name: b, payload: { type: object, required: [id], properties: { id: { $ref: '#/components/schemas/id' } } } }
components: { schemas: { id: { type: integer } } }
";
    let made = import_document(document, Perspective::Hub, &[]);
    let name = |frame: Value| made.pack.recognise(&frame, FrameDirection::FromHub).unwrap().name.clone();
    assert_eq!(name(json!({ "kind": "a", "default": "x" })), "a");
    assert_eq!(name(json!({ "kind": "a", "default": "x", "id": 1 })), "b");
    assert_eq!(name(json!({ "kind": "a", "default": "x", "id": "y" })), "a");
    assert_eq!(name(json!({ "id": "y" })), OTHER_MESSAGE);
}

#[test]
fn a_generated_payload_has_defaults_and_the_first_of_several_values() {
    let made = import_document(
        &with_payload(
            "{ type: object, required: [cmd], properties: { cmd: { enum: [subscribe, unsubscribe, ping] }, channel: { enum: [ticker, depth, trade], default: depth }, wrong: { type: integer, default: x } } }",
        ),
        Perspective::Hub,
        &[],
    );
    // The document contradicts itself in `wrong`, so only the payload without optional members is ordinary.
    assert_eq!(made.pack.messages[0].starting_value()["wrong"], json!(1));
    let made = import_document(
        &with_payload(
            "{ type: object, required: [cmd], properties: { cmd: { enum: [subscribe, unsubscribe, ping] }, channel: { enum: [ticker, depth, trade], default: depth } } }",
        ),
        Perspective::Hub,
        &[],
    );
    assert_eq!(made.pack.messages[0].starting_value(), json!({ "cmd": "subscribe", "channel": "depth" }));
}

#[test]
fn a_message_has_its_own_name() {
    let document = "asyncapi: 3.0.0
channels: { hub: { address: /, messages: { key: { name: Own name, payload: { const: 1 } }, other: { payload: { const: 2 } } } } }
operations: { takes: { action: receive, channel: { $ref: '#/channels/hub' } } }
";
    let made = import_document(document, Perspective::Hub, &[]);
    let names: Vec<&str> = made.pack.messages.iter().map(|message| message.name.as_str()).collect();
    assert_eq!(names, ["Own_name", "other"]);
}

/// Binary messages are ignored, and any frame of the hub may be one of them.
#[test]
fn warnings_that_say_the_same_are_merged() {
    let document = "asyncapi: 2.0.0
channels:
  /:
    subscribe:
      message:
        oneOf:
          - { name: a, payload: { type: string, format: binary } }
          - { name: b, payload: { type: string, format: binary } }
          - { name: c, contentType: application/octet-stream }
          - { name: d, contentType: application/octet-stream }
          - { name: e, payload: { allOf: [ { type: string }, { type: integer } ] } }
          - { name: f, payload: { type: object, required: [x], properties: { x: { type: string, odd: 1 }, y: { even: 1 } } } }
          - { name: g, payload: { const: 1 }, examples: [ { payload: 2 } ] }
          - { name: h, payload: { const: 3 }, examples: [ { payload: 2 } ] }
";
    let made = import_document(document, Perspective::Hub, &[]);
    let notes = [
        "`a`, `b` are ignored because their payloads are binary: hubproof sends and checks only JSON",
        "`c`, `d` are ignored because they are application/octet-stream: hubproof sends and checks only JSON",
        "`odd`, `even` are ignored: JSON Schema has no such keyword",
        "this example of `g` is ignored: it does not match its schema: expected 1, found 2",
        "this example of `h` is ignored: it does not match its schema: expected 3, found 2",
        "`e` is ignored: no payload was found that matches its schema",
        "according to this document, clients send no message to the hub",
    ];
    assert_eq!(made.notes, notes);
    assert_eq!(made.pack.messages.iter().filter(|message| message.abstract_).count(), 0);
}

/// A slash in a name must be escaped in a pointer.
#[rstest]
#[case::at_the_beginning("'#/channels//feed/messages/a'", "'/feed'", "#/channels/~1feed/messages/a")]
#[case::left_out("'#/channels/feed/messages/a'", "'/feed'", "#/channels/~1feed/messages/a")]
#[case::within("'#/channels/x/feed/messages/a'", "x/feed", "#/channels/x~1feed/messages/a")]
fn the_escaped_form_of_a_reference_is_suggested(#[case] reference: &str, #[case] key: &str, #[case] suggested: &str) {
    let document = format!(
        "asyncapi: 3.0.0\nchannels: {{ {key}: {{ messages: {{ a: {{ payload: {{}} }} }} }} }}\noperations: {{ o: {{ action: receive, channel: {{ $ref: {reference} }} }} }}\n"
    );
    let mut sources = Sources::default();
    let file = sources.add("asyncapi.yaml", document);
    let library =
        DocumentLibrary::read_files("asyncapi.yaml", file, &mut sources, &mut |_, _| Err("none".to_owned())).unwrap();
    let (_, diagnostics) = super::import_folder("made", &library, Perspective::Hub, &mut sources);
    let help = format!("a slash within a name is written as ~1: `{suggested}`");
    assert!(diagnostics.iter().any(|one| one.help.as_ref() == Some(&help)), "{diagnostics:?}");
}

/// A client receives only the messages of its own channel.
#[test]
fn a_message_is_recognised_only_on_its_channel() {
    let channel = |name: &str, member: &str| {
        format!(
            "  /{name}:\n    publish: {{ message: {{ name: ask_{name}, payload: {{ type: object, required: [ask], properties: {{ ask: {{ const: {name} }} }} }} }} }}\n    subscribe: {{ message: {{ name: status_{name}, payload: {{ type: object, required: [type, {member}], properties: {{ type: {{ const: status }}, {member}: {{ type: integer }} }} }} }} }}\n"
        )
    };
    let document = format!("asyncapi: 2.0.0\nchannels:\n{}{}", channel("a", "level"), channel("b", "count"));
    let made = import_document(&document, Perspective::Hub, &[]);
    let on = |role: &str, frame: &Value| made.pack.recognise_for_role(frame, role).map(|message| message.name.as_str());
    let (level, count) = (json!({ "type": "status", "level": 1 }), json!({ "type": "status", "count": 1 }));
    assert_eq!((on("on_a", &level), on("on_b", &count)), (Some("status_a"), Some("status_b")));
    let unlisted = made.pack.message("no_message_of_the_document_on_b").unwrap();
    assert_eq!(on("on_b", &level), Some("no_message_of_the_document_on_b"));
    assert!(!unlisted.schema.is_valid(&level) && unlisted.schema.is_valid(&count));
    // The constant is enough where only one message of the channel has it.
    assert_eq!(on("on_b", &json!({ "type": "status", "count": "x" })), Some("status_b"));
    // Nothing is known about a role that the document does not have.
    assert_eq!(on("other", &level), Some("status_a"));
}

#[test]
fn documented_examples_are_used_if_they_are_valid() {
    let example = |examples: &str, payload: &str| {
        let made = import_document(
            &format!(
                "asyncapi: 2.0.0\nchannels: {{ /: {{ publish: {{ message: {{ name: m, examples: {examples}, payload: {payload} }} }} }} }}\n"
            ),
            Perspective::Hub,
            &[],
        );
        (made.pack.messages[0].starting_value(), made.notes.len())
    };
    let payload = "{ type: object, required: [a], properties: { a: { type: integer } } }";
    assert_eq!(example("[ { name: x, payload: { a: 7 } } ]", payload), (json!({"a": 7}), 0));
    assert_eq!(example("[ { a: 7 } ]", payload), (json!({"a": 7}), 0));
    assert_eq!(example("[ { headers: {} } ]", payload), (json!({"a": 1}), 0));
    assert_eq!(example("[ { payload: { a: x } } ]", payload), (json!({"a": 1}), 1));
    assert_eq!(
        example("[]", "{ type: object, properties: { a: { const: 3 } }, examples: [ { a: 3, b: 4 } ] }"),
        (json!({"a": 3, "b": 4}), 0)
    );
}

/// The step that opens the socket of a channel, and the defaults of its settings.
#[rstest]
#[case::nothing("/: {}", json!({"connects": null, "headers": "${hub.headers}"}), json!({"headers": {}}))]
#[case::path("/a/b: {}", json!({"connects": "/a/b", "headers": "${hub.headers}"}), json!({"headers": {}}))]
#[case::parameters("'/a/{x}/{Y-z}': { parameters: { x: { schema: { enum: [one, two] } } } }",
    json!({"connects": "/a/${hub.x}/${hub.y_z}", "headers": "${hub.headers}"}), json!({"x": "one", "y_z": null, "headers": {}}))]
#[case::url("'wss://host/a?b=1': {}", json!({"connects": "/a?b=1", "headers": "${hub.headers}"}), json!({"headers": {}}))]
#[case::query("/: { bindings: { ws: { query: { required: [k], properties: { k: {}, d: { default: 5 }, o: {} } } } } }",
    json!({"connects": null, "query": {"k": "${hub.k}", "d": "${hub.d}", "o": "${hub.o}"}, "headers": "${hub.headers}"}),
    json!({"k": null, "d": null, "o": null, "headers": {}}))]
#[case::query_of_one_value("/: { bindings: { ws: { query: { required: [k], properties: { k: { enum: [a, b], default: b }, v: { const: 2 } } } } } }",
    json!({"connects": null, "query": {"k": "${hub.k}", "v": "${hub.v}"}, "headers": "${hub.headers}"}), json!({"k": "b", "v": 2, "headers": {}}))]
#[case::query_of_the_address("'/a?b=1&t={t}&c': { bindings: { ws: { query: { required: [t], properties: { t: { default: x } } } } } }",
    json!({"connects": "/a?b=1&c", "query": {"t": "${hub.t_2}"}, "headers": "${hub.headers}"}), json!({"t": null, "t_2": "x", "headers": {}}))]
#[case::headers("/: { bindings: { ws: { headers: { required: [X-Key], properties: { X-Key: {}, Sec-WebSocket-Protocol: { const: v1 } } } } } }",
    json!({"connects": null, "subprotocols": ["${hub.sec_websocket_protocol}"], "headers": {"X-Key": "${hub.x_key}"}}), json!({"x_key": null, "sec_websocket_protocol": "v1"}))]
#[case::a_key_of_targets("'/{url}': {}", json!({"connects": "/${hub.url_value}", "headers": "${hub.headers}"}), json!({"url_value": null, "headers": {}}))]
#[case::no_expression("'/${x}': {}", json!({"connects": "/$${hub.x}", "headers": "${hub.headers}"}), json!({"x": null, "headers": {}}))]
fn channel_address_and_bindings_become_the_connects_step(
    #[case] channel: &str,
    #[case] step: Value,
    #[case] defaults: Value,
) {
    let channel = channel.replacen("{}", "{ publish: { message: { payload: {} } } }", 1);
    let channel = if channel.contains("publish") {
        channel
    } else {
        channel.replacen(": {", ": { publish: { message: { payload: {} } },", 1)
    };
    let made = import_document(&format!("asyncapi: 2.0.0\nchannels:\n  {channel}\n"), Perspective::Hub, &[]);
    let shared = yaml::parse(&made.sources, made.folder.scenarios["shared.yaml"]).unwrap().to_json();
    assert_eq!(shared["roles"]["client"]["opening"][0], step);
    let settings = shared["hub"].as_object().unwrap();
    let found: Value = settings.iter().map(|(name, setting)| (name.clone(), setting["default"].clone())).collect();
    assert_eq!(found, defaults);
    let scenarios = ScenarioSet::load(&made.folder, &made.sources, &Arc::new(made.pack));
    assert_eq!(scenarios.diagnostics, []);
}

const CHANNELS: &str = "asyncapi: 3.0.0
channels:
  ask: { address: /ask, messages: { q: { payload: { const: q } }, r: { payload: { const: r } } } }
  news: { address: '/news/{of}', messages: { n: { payload: { const: n } } } }
operations:
  asks:
    action: receive
    channel: { $ref: '#/channels/ask' }
    messages: [ { $ref: '#/channels/ask/messages/q' } ]
    reply: { channel: { $ref: '#/channels/ask' }, messages: [ { $ref: '#/channels/ask/messages/r' } ] }
  tells: { action: send, channel: { $ref: '#/channels/news' } }
";

#[rstest]
#[case::hub(Perspective::Hub, &[("q", true), ("r", false), ("n", false)], &["on_ask-q", "on_news-hears", "shared"])]
#[case::client(Perspective::Client, &[("q", false), ("r", true), ("n", true)], &["on_ask-r", "on_news-n", "shared", "something-arrives"])]
fn each_channel_gets_scenarios_with_directions_set_by_the_perspective(
    #[case] perspective: Perspective,
    #[case] to_hub: &[(&str, bool)],
    #[case] files: &[&str],
) {
    let made = import_document(CHANNELS, perspective, &[]);
    for (name, to_hub) in to_hub {
        let message = made.pack.message(name).unwrap();
        assert_eq!(
            (message.can_go(FrameDirection::ToHub), message.can_go(FrameDirection::FromHub)),
            (*to_hub, !to_hub),
            "{name}"
        );
    }
    let found: Vec<&str> = made.folder.scenarios.keys().map(|path| path.trim_end_matches(".yaml")).collect();
    assert_eq!(found, files);
    // A reply belongs only to messages to the hub.
    let replies = &made.pack.message("q").unwrap().replies;
    assert_eq!(replies.is_empty(), perspective == Perspective::Client);
}

#[test]
fn anchors_and_merge_keys_are_resolved_and_yes_is_text() {
    let document = "x-common: &common { type: object, required: [on] }\nasyncapi: 2.0.0\nchannels:\n  /:\n    publish:\n      message:\n        payload:\n          <<: *common\n          properties: { on: { enum: [yes, no] } }\n";
    let made = import_document(document, Perspective::Hub, &[]);
    let schema = &made.pack.messages[0].schema;
    assert!(
        schema.is_valid(&json!({"on": "yes"}))
            && !schema.is_valid(&json!({}))
            && !schema.is_valid(&json!({"on": true}))
    );
}

/// Aliases that stand for too many values, an infinite payload, and a schema beyond the limit.
#[rstest]
#[case::laughs(&(0..40).fold("a0: &a0 [x]\n".to_owned(), |text, n| format!("{text}a{}: &a{} [*a{n}, *a{n}, *a{n}]\n", n + 1, n + 1)), "aliases expand to more than")]
#[case::forever(&with_payload("{ $ref: '#/components/schemas/tree2' }").replace("schemas: {", "schemas: { tree2: { type: object, required: [a, b], properties: { a: { $ref: '#/components/schemas/tree2' }, b: { $ref: '#/components/schemas/tree2' } } },"), "no payload was found")]
#[case::huge(&with_payload(&format!("{{ allOf: [ {} ] }}", "{}, ".repeat(5000))), "is too large")]
fn documents_beyond_a_limit_are_reported(#[case] document: &str, #[case] says: &str) {
    let mut sources = Sources::default();
    let file = sources.add("asyncapi.yaml", document);
    let found =
        match DocumentLibrary::read_files("asyncapi.yaml", file, &mut sources, &mut |_, _| Err("none".to_owned())) {
            Err(diagnostic) => diagnostic.message,
            Ok(library) => {
                let (_, diagnostics) = super::import_folder("made", &library, Perspective::Hub, &mut sources);
                diagnostics.into_iter().map(|diagnostic| diagnostic.message).collect::<Vec<_>>().join("\n")
            }
        };
    assert!(found.contains(says), "{found}");
}
