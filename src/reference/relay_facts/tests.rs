use super::*;
use crate::syntax::source::Sources;
use rstest::rstest;
use serde_json::json;

const ASYNCAPI: &str = r#"
asyncapi: 3.0.0
info: { title: T, version: 1.0.0 }
channels: { hub: { messages: { ask: { $ref: '#/components/messages/ask' }, answer: { $ref: '#/components/messages/answer' }, any: { $ref: '#/components/messages/any' }, odd: { $ref: '#/components/messages/odd' } } } }
operations:
  ask:
    action: receive
    channel: { $ref: '#/channels/hub' }
    messages: [ { $ref: '#/channels/hub/messages/ask' } ]
    reply: { messages: [ { $ref: '#/channels/hub/messages/answer' } ] }
  say:
    action: send
    channel: { $ref: '#/channels/hub' }
    messages: [ { $ref: '#/channels/hub/messages/any' }, { $ref: '#/channels/hub/messages/odd' } ]
components:
  correlationIds: { id: { location: '$message.payload#/id' } }
  messages:
    ask: { payload: { examples: [ { type: ask } ] }, x-hubproof: { match: { type: ask } } }
    answer:
      correlationId: { $ref: '#/components/correlationIds/id' }
      payload:
        required: [type]
        properties:
          type: { const: answer }
          list: { items: { required: [name], properties: { name: { x-should: [ { rules: [], schema: { enum: [a, b] } } ] } } } }
        anyOf: [ { required: [never] }, {} ]
        examples: [ { type: answer, id: 3, list: [ { name: a } ] } ]
      x-hubproof: { match: { type: answer, /gone or absent: { type: "null" } } }
    any: { payload: { examples: [ { type: whatever } ] }, x-hubproof: { match: {}, abstract: true } }
    odd: { payload: { examples: [ { type: odd } ] }, x-hubproof: { match: { /type: { minLength: 3, maxLength: 3 } } } }
"#;

fn facts_of_document(asyncapi: &str) -> RelayFacts {
    let mut sources = Sources::default();
    let file = sources.add("asyncapi.yaml", asyncapi);
    let folder = crate::protocol::PackFolder {
        name: "t".to_owned(),
        pack: [("asyncapi.yaml".to_owned(), file)].into(),
        ..Default::default()
    };
    let (pack, diagnostics) = Pack::load(&folder, &sources);
    relay_facts(
        &pack.unwrap_or_else(|| panic!("{}", crate::syntax::diagnostic::render_all(&diagnostics, &sources, false))),
    )
}

#[test]
fn properties_of_members_are_derived_from_the_document() {
    let known = facts_of_document(ASYNCAPI);
    let answer = known.messages.iter().find(|message| message.name == "answer").unwrap();
    let facts: Vec<String> =
        answer.facts.iter().map(|fact| format!("{} {:?} {}", fact.member, fact.of, fact.must)).collect();
    let expected = [
        "/id Echoed false",
        "/list/*/name Closed false",
        "/list/*/name Required true",
        "/type Constant true",
        "/type Required true",
    ];
    assert_eq!(facts, expected);
    // `odd` cannot be recognised and precedes the envelope, which is therefore uncertain too.
    assert_eq!(known.strange, ["any", "odd"]);
}

/// Elements with a schema of their own are like members; those of a list are not.
#[test]
fn properties_of_elements_are_derived_from_the_document() {
    let document = ASYNCAPI.replace(
        "any: { payload: { examples: [ { type: whatever } ] }, x-hubproof: { match: {}, abstract: true } }",
        "any: { payload: { type: array, minItems: 2, prefixItems: [ { const: 3 }, { type: string }, { enum: [a, b] } ], examples: [ [ 3, x ] ] }, x-hubproof: { match: { 0: 3 } } }",
    );
    let known = facts_of_document(&document.replace("{ minLength: 3, maxLength: 3 }", "{ const: odd }"));
    let any = known.messages.iter().find(|message| message.name == "any").unwrap();
    let facts: Vec<String> = any.facts.iter().map(|fact| format!("{} {:?}", fact.member, fact.of)).collect();
    assert_eq!(facts, ["/0 Constant", "/0 Required", "/1 Required", "/2 Closed"]);
    assert!(hubproof_reference::fault::injector::conditions_hold(&any.when, Some(&json!([3, "x"]))));
    assert!(!hubproof_reference::fault::injector::conditions_hold(&any.when, Some(&json!([4, "x"]))));
}

#[rstest]
#[case(json!({"type": "answer"}), &["answer"])]
#[case(json!({"type": "answer", "gone": null}), &["answer"])]
#[case(json!({"type": "answer", "gone": 1}), &["any"])]
#[case(json!({"type": "else"}), &["any"])]
fn message_conditions_match_a_frame_to_exactly_one_message(#[case] frame: Value, #[case] expected: &[&str]) {
    let known = facts_of_document(&ASYNCAPI.replace("{ minLength: 3, maxLength: 3 }", "{ const: odd }"));
    assert_eq!(known.strange, [""; 0]);
    let fitting = known
        .messages
        .iter()
        .filter(|message| hubproof_reference::fault::injector::conditions_hold(&message.when, Some(&frame)));
    assert_eq!(fitting.map(|message| message.name.as_str()).collect::<Vec<_>>(), expected);
}
