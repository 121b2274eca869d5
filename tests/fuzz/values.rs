//! What expressions in messages stand for, and messages and members that have unusual forms and names.

use std::collections::BTreeMap;

use hubproof::fuzz::case::FuzzCase;
use hubproof::fuzz::mutate::payload::PayloadClass;
use hubproof::fuzz::scheduler::CaseScheduler;
use hubproof::import::{self, DocumentLibrary, Perspective};
use hubproof::protocol::PackFolder;
use hubproof::syntax::source::Sources;
use rstest::rstest;
use serde_json::{Map, Value, json};

use crate::fuzz::cases::FuzzProtocol;

/// Returns the protocol of a document with one message, which is answered with the same message.
fn echo_protocol(schema: &Value, example: &Value) -> FuzzProtocol {
    let echo = json!({ "payload": schema, "examples": [{ "payload": example }] });
    let channel = json!({ "$ref": "#/channels/echo" });
    let document = json!({
        "asyncapi": "3.0.0",
        "info": { "title": "Echo", "version": "1.0.0" },
        "channels": { "echo": { "address": "/", "messages": { "echo.back": echo } } },
        "operations": { "send": { "action": "receive", "channel": channel, "reply": { "channel": channel } } },
    });
    let mut sources = Sources::default();
    let file = sources.add("echo.json", document.to_string());
    let library =
        DocumentLibrary::read_files("echo.json", file, &mut sources, &mut |_, _| Err("no other file".to_owned()));
    let (folder, _) = import::import_folder("echo", &library.unwrap(), Perspective::Hub, &mut sources);
    FuzzProtocol::from_folder(&folder, sources, Map::new())
}

/// Returns the cases of the first rounds over all cells, those with a wanted mutation.
fn cases(protocol: &FuzzProtocol, rounds: u64, wanted: impl Fn(&str) -> bool) -> Vec<FuzzCase> {
    let scheduler = CaseScheduler::new(&protocol.corpus, 1, &|_| true);
    let numbers = 0..rounds * scheduler.cells.len() as u64;
    let is_wanted = |number: &u64| scheduler.cell(*number).is_some_and(|cell| wanted(cell.mutation.name()));
    numbers.filter(is_wanted).filter_map(|number| scheduler.case(&protocol.corpus, number)).collect()
}

#[rstest]
#[case::any_value(json!({}), json!("test"))]
#[case::text(json!({ "type": "string" }), json!("test"))]
#[case::number(json!({ "type": "integer" }), json!(1234))]
#[case::list(json!({ "type": "array", "items": { "type": "string" } }), json!(["a", "b"]))]
#[case::odd_names(
    json!({
        "type": "object", "additionalProperties": { "type": "string" },
        "required": ["", "a b", "c.d", "e\"f", "g'h", "0", "${i}", "j}"],
    }),
    json!({ "": "1", "a b": "2", "c.d": "3", "e\"f": "4", "g'h": "5", "0": "6", "${i}": "7", "j}": "8" }),
)]
fn every_case_of_a_message_with_an_unusual_form_is_a_scenario(#[case] schema: Value, #[case] example: Value) {
    let mut protocol = echo_protocol(&schema, &example);
    let cases = cases(&protocol, 3, |_| true);
    assert!(cases.len() > 100, "{} cases", cases.len());
    for case in &cases {
        let (program, diagnostics) = protocol.parse("echo/case", &case.scenario);
        assert!(program.is_some(), "{diagnostics}\n{}", case.scenario.text());
    }
}

#[test]
fn a_message_that_may_be_anything_is_never_wrong() {
    let cases = cases(&echo_protocol(&json!({}), &json!(1234)), 4, |_| true);
    assert!(cases.iter().all(|case| !matches!(case.class, PayloadClass::Invalid | PayloadClass::Unknown)));
    let valid =
        |name: &str| cases.iter().any(|case| case.class == PayloadClass::Valid && case.cell.mutation.name() == name);
    assert!(valid("explored") && valid("no-object"));
    // A number cut in two is a number, and no case demands that it is refused.
    assert!(valid("truncated"));
}

/// Returns a protocol whose scenario sends a message with the setting `p` as its payload.
fn protocol_with_setting(default: &Value, given: Option<Value>) -> FuzzProtocol {
    let mut sources = Sources::default();
    let hello = json!({
        "type": "object", "required": ["type"], "examples": [{ "type": "hello" }],
        "properties": { "type": { "const": "hello" }, "payload": { "type": "object" } },
    });
    let ack = json!({
        "type": "object", "required": ["type"], "examples": [{ "type": "ack" }],
        "properties": { "type": { "const": "ack" } },
    });
    let message = |name: &str| json!({ "$ref": format!("#/channels/hub/messages/{name}") });
    let component = |name: &str| json!({ "payload": { "$ref": format!("./messages/{name}.schema.json") }, "x-hubproof": { "match": { "type": name } } });
    let document = json!({
        "asyncapi": "3.1.0",
        "info": { "title": "tiny", "version": "1.0.0" },
        "channels": { "hub": { "address": "/", "messages": {
            "hello": { "$ref": "#/components/messages/hello" }, "ack": { "$ref": "#/components/messages/ack" },
        } } },
        "operations": { "greet": {
            "action": "receive", "channel": { "$ref": "#/channels/hub" }, "messages": [message("hello")],
            "reply": { "channel": { "$ref": "#/channels/hub" }, "messages": [message("ack")] },
        } },
        "components": { "messages": { "hello": component("hello"), "ack": component("ack") } },
    });
    let rules = "document: tiny\nrules:\n  T-1: { level: must, basis: stated, line: 1, text: A hello is acknowledged., sees: one connection }\n";
    let shared = json!({
        "hub": { "p": { "default": default, "about": "a payload" } },
        "roles": { "client": { "opening": [{ "connects": null }] } },
    });
    let greets = json!({
        "title": "Hello", "actors": { "client": "client" },
        "steps": [
            { "client joins": null }, { "client sends": "hello", "with": { "/payload": "${hub.p}" } },
            { "client expects": "ack", "rules": ["T-1"] },
        ],
    });
    let mut add = |path: &str, text: String| (path.to_owned(), sources.add(path, text));
    let pack = BTreeMap::from([
        add("asyncapi.yaml", document.to_string()),
        add("rules.yaml", rules.to_owned()),
        add("messages/hello.schema.json", hello.to_string()),
        add("messages/ack.schema.json", ack.to_string()),
    ]);
    let scenarios = BTreeMap::from([add("shared.yaml", shared.to_string()), add("greets.yaml", greets.to_string())]);
    let folder = PackFolder { name: "tiny".to_owned(), pack, scenarios, ..PackFolder::default() };
    FuzzProtocol::from_folder(&folder, sources, given.into_iter().map(|value| ("p".to_owned(), value)).collect())
}

#[rstest]
#[case::default(json!({ "a": 1 }), None, PayloadClass::Valid)]
#[case::wrong_default(json!("text"), None, PayloadClass::Invalid)]
#[case::of_the_target(json!("text"), Some(json!({ "a": 1 })), PayloadClass::Valid)]
#[case::wrong_of_the_target(json!({ "a": 1 }), Some(json!("text")), PayloadClass::Invalid)]
fn the_class_of_a_message_is_that_of_what_is_sent(
    #[case] default: Value,
    #[case] given: Option<Value>,
    #[case] expected: PayloadClass,
) {
    let protocol = protocol_with_setting(&default, given);
    // A fragmented message is the same message.
    let cases = cases(&protocol, 1, |mutation| mutation == "fragments");
    let sends = |case: &&FuzzCase| case.scenario.text().contains("json(hub.p)");
    let classes: Vec<PayloadClass> = cases.iter().filter(sends).map(|case| case.class).collect();
    assert!(!classes.is_empty() && classes.iter().all(|class| *class == expected), "{classes:?}");
}
