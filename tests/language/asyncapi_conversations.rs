//! Judges conversations by plain AsyncAPI documents: replies, examples, several channels, and values from a target.

use std::fs;
use std::sync::{Arc, Mutex};

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::hostile_servers::{PathHub, ScriptedHub};
use crate::support::process::{ProcessResult, hubproof};

/// A document in its own folder, which is removed on drop.
struct DocumentFolder {
    folder: tempfile::TempDir,
}

impl DocumentFolder {
    fn new(document: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("hub.yaml"), document).unwrap();
        Self { folder }
    }

    fn path(&self) -> String {
        self.folder.path().join("hub.yaml").to_str().unwrap().to_owned()
    }

    fn check(&self, url: &str, more: &[&str]) -> ProcessResult {
        hubproof([&["check", url, "--pack", &self.path(), "--stretch", "0.3"], more].concat())
    }
}

// ---- replies

/// Written for the hub, or, with `send` instead of `receive`, for a client.
fn asking_document(action: &str, correlated: bool) -> String {
    let correlation = if correlated { "correlationId: { location: '$message.payload#/id' }," } else { "" };
    format!(
        "asyncapi: 3.0.0
info: {{ title: Sums, version: '1' }}
channels:
  hub: {{ address: /, messages: {{ ask: {{ $ref: '#/components/messages/ask' }}, sum: {{ $ref: '#/components/messages/sum' }}, wrong: {{ $ref: '#/components/messages/wrong' }} }} }}
operations:
  addUp:
    action: {action}
    channel: {{ $ref: '#/channels/hub' }}
    messages: [ {{ $ref: '#/channels/hub/messages/ask' }} ]
    reply: {{ messages: [ {{ $ref: '#/channels/hub/messages/sum' }}, {{ $ref: '#/channels/hub/messages/wrong' }} ] }}
components:
  messages:
    ask: {{ {correlation} payload: {{ type: object, required: [op, id, n], properties: {{ op: {{ const: ask }}, id: {{ type: string }}, n: {{ type: integer }} }} }}, examples: [ {{ payload: {{ op: ask, id: one, n: 20 }} }} ] }}
    sum: {{ {correlation} payload: {{ type: object, required: [op, id, n], properties: {{ op: {{ const: sum }}, id: {{ type: string }}, n: {{ type: integer }} }} }} }}
    wrong: {{ {correlation} payload: {{ type: object, required: [op, id], properties: {{ op: {{ const: wrong }}, id: {{ type: string }} }} }} }}
"
    )
}

/// Answers with these operations, each with this id or the request's.
fn start_answering_hub(with: &'static [&'static str], id: Option<&'static str>) -> ScriptedHub {
    ScriptedHub::start(move |_, _, text| {
        let ask: Value = serde_json::from_str(text).unwrap();
        let id = id.or(ask["id"].as_str()).unwrap();
        with.iter().map(|op| json!({ "op": op, "id": id, "n": 21 }).to_string()).collect()
    })
}

#[rstest]
#[case::right(&["sum"], None, true, 0, "PASS")]
#[case::the_other_reply(&["wrong"], None, true, 0, "PASS")]
#[case::by_order(&["sum"], Some("other"), false, 0, "PASS")]
#[case::another_id(&["sum"], Some("other"), true, 1, "REPLY-addUp")]
#[case::none(&[], None, true, 1, "REPLY-addUp")]
#[case::none_by_order(&[], None, false, 1, "REPLY-addUp")]
fn a_reply_is_required_and_correlated(
    #[case] with: &'static [&'static str],
    #[case] id: Option<&'static str>,
    #[case] correlated: bool,
    #[case] code: i32,
    #[case] says: &str,
    #[values("receive", "send")] action: &str,
) {
    let document = DocumentFolder::new(&asking_document(action, correlated));
    let perspective = if action == "send" { "client" } else { "hub" };
    let done =
        document.check(&start_answering_hub(with, id).url(), &["--perspective", perspective]).assert_exit_code(code);
    assert!(done.out.contains(says), "{}", done.out);
}

/// The rule of a reply has the reply's line in the document.
#[test]
fn a_reply_rule_points_at_its_line_in_the_document() {
    let document = DocumentFolder::new(&asking_document("receive", true));
    let rules = hubproof(["packs", "show", &document.path(), "--rules", "--format", "json"]).assert_exit_code(0).out;
    let rules: Value = serde_json::from_str(&rules).unwrap();
    let rule = &rules["REPLY-addUp"];
    assert_eq!((&rule["level"], &rule["basis"], &rule["line"]), (&json!("must"), &json!("stated"), &json!(10)));
    assert_eq!(rule["checked_by"], json!(["hub/ask"]), "{rules}");
    let text = rule["text"].as_str().unwrap();
    assert_eq!(text, "A client that sends ask receives sum or wrong (operation addUp).");
}

/// Every connection sends its own id, so that a reply to another client does not count.
#[test]
fn each_correlation_id_is_new_if_the_schema_allows() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let ids = Arc::clone(&seen);
    let hub = ScriptedHub::start(move |_, _, text| {
        let ask: Value = serde_json::from_str(text).unwrap();
        ids.lock().unwrap().push(ask["id"].as_str().unwrap().to_owned());
        vec![json!({ "op": "sum", "id": ask["id"], "n": 1 }).to_string()]
    });
    DocumentFolder::new(&asking_document("receive", true)).check(&hub.url(), &["--repeat", "2"]).assert_exit_code(0);
    let seen = seen.lock().unwrap();
    assert!(seen.len() == 2 && seen[0] != seen[1] && !seen.contains(&"one".to_owned()), "{seen:?}");
}

/// If one form of a reply cannot be recognised, any reply may have that form, so it is not required.
#[test]
fn an_unrecognisable_reply_is_not_required() {
    let text = asking_document("receive", true).replace("    wrong: {", "    wrong: { contentType: text/plain,");
    let done = DocumentFolder::new(&text).check(&start_answering_hub(&[], None).url(), &[]).assert_exit_code(3);
    assert!(!done.out.contains("REPLY-addUp"), "{}", done.out);
}

const TWO_CHANNELS: &str = "asyncapi: 3.0.0
info: { title: Two, version: '1' }
channels:
  orders: { address: /orders, messages: { order: { payload: { type: object, required: [buy], properties: { buy: { type: string } } } } } }
  receipts:
    address: /receipts
    messages: { receipt: { payload: { type: object, required: [bought], properties: { bought: { type: string } } } } }
    bindings: { ws: { query: { type: object, required: [desk], properties: { desk: { type: integer, enum: [7, 8] } } } } }
operations:
  buys:
    action: receive
    channel: { $ref: '#/channels/orders' }
    reply: { channel: { $ref: '#/channels/receipts' } }
";

/// A reply on another channel comes over the connection to that channel's address.
#[rstest]
#[case::there("/receipts?desk=7", 0)]
#[case::here("/orders", 1)]
fn a_reply_may_come_over_another_channel(#[case] replies_at: &'static str, #[case] code: i32) {
    let hub = PathHub::start(move |path, text| {
        let bought = json!({ "bought": serde_json::from_str::<Value>(text).unwrap()["buy"] }).to_string();
        (path == "/orders").then(|| (replies_at.to_owned(), bought)).into_iter().collect()
    });
    let done = DocumentFolder::new(TWO_CHANNELS)
        .check(&hub.url(), &["--scenario", "hub/on_orders-order"])
        .assert_exit_code(code);
    assert_eq!(done.out.contains("REPLY-buys"), code == 1, "{}", done.out);
}

const TWO_LISTS: &str = "asyncapi: 2.6.0
info: { title: Two, version: '1' }
channels:
  /a:
    publish: { message: { name: askA, payload: { type: object, required: [ask], properties: { ask: { const: a } } } } }
    subscribe: { message: { name: statusA, payload: { type: object, required: [type, level], properties: { type: { const: status }, level: { type: integer } } } } }
  /b:
    publish: { message: { name: askB, payload: { type: object, required: [ask], properties: { ask: { const: b } } } } }
    subscribe: { message: { name: statusB, payload: { type: object, required: [type, text], properties: { type: { const: status }, text: { type: string } } } } }
";

/// A message is listed for its channel, and its constant recognises it there. A pack that is made of the document judges
/// in the same way.
#[rstest]
#[case::right(r#"{"type":"status","text":"x"}"#, 0, "PASS")]
#[case::of_the_other_channel(r#"{"type":"status","level":1}"#, 1, "DOC-LISTED")]
#[case::a_wrong_member(r#"{"type":"status","text":5}"#, 1, "`statusB` breaks its schema at /text")]
fn a_message_is_listed_for_its_channel(#[case] at_b: &'static str, #[case] code: i32, #[case] says: &str) {
    let hub = PathHub::start(move |path, _| {
        let status = if path == "/b" { at_b } else { r#"{"type":"status","level":1}"# };
        vec![(path.to_owned(), status.to_owned())]
    });
    let document = DocumentFolder::new(TWO_LISTS);
    let done = document.check(&hub.url(), &[]).assert_exit_code(code);
    assert!(done.out.contains(says), "{}", done.out);
    let pack = document.folder.path().join("pack");
    let pack = pack.to_str().unwrap();
    hubproof(["packs", "init", &document.path(), "--to", pack]).assert_exit_code(0);
    let done = hubproof(["check", &hub.url(), "--pack", pack, "--stretch", "0.3"]).assert_exit_code(code);
    assert!(done.out.contains(says), "{}", done.out);
}

#[test]
fn an_unknown_role_of_a_message_is_a_mistake() {
    let document = DocumentFolder::new(TWO_LISTS);
    let pack = document.folder.path().join("pack");
    hubproof(["packs", "init", &document.path(), "--to", pack.to_str().unwrap()]).assert_exit_code(0);
    let file = pack.join("asyncapi.yaml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("on_b]"), "{text}");
    fs::write(&file, text.replace("on_b]", "on_bb]")).unwrap();
    let done = hubproof(["packs", "lint", pack.to_str().unwrap()]).assert_exit_code(2);
    let said = format!("{}{}", done.out, done.err);
    assert!(said.contains("`statusB` goes to the role `on_bb`, which shared.yaml does not have"), "{said}");
    assert!(said.contains("did you mean `on_b`?"), "{said}");
}

/// A listed message with a wrong member is that message, not an unlisted one.
#[test]
fn a_wrong_member_is_reported_in_its_message() {
    let document = "asyncapi: 2.6.0
info: { title: M, version: '1' }
channels:
  /:
    publish: { message: { name: ask, payload: { type: object, required: [ask], properties: { ask: { type: string } } } } }
    subscribe:
      message:
        oneOf:
          - { name: test, payload: { type: object, required: [kind, id], properties: { kind: { const: test }, id: { type: string, format: uuid } } } }
          - { name: news, payload: { type: object, required: [news], properties: { news: { type: string } } } }
";
    let hub = ScriptedHub::start(|_, _, _| vec![r#"{"kind":"test","id":"not-a-uuid"}"#.to_owned()]);
    let done = DocumentFolder::new(document).check(&hub.url(), &[]).assert_exit_code(1);
    assert!(done.out.contains("`test` breaks its schema at /id"), "{}", done.out);
    assert!(done.out.contains("DOC-FITS") && !done.out.contains("DOC-LISTED#"), "{}", done.out);
}

/// No hub can send this message, so the document does not say what the hub may send.
#[test]
fn a_payload_that_nothing_satisfies_is_not_testable() {
    let document = NEWS.replace(
        "payload: { type: object, required: [op], properties: { op: { const: news } } }",
        "payload: { allOf: [ { type: string }, { type: integer } ] }",
    );
    assert!(document.contains("allOf"));
    let hub = ScriptedHub::start(|_, _, _| vec![json!({ "op": "news" }).to_string()]);
    let done = DocumentFolder::new(&document).check(&hub.url(), &[]).assert_exit_code(3);
    assert!(!done.out.contains("fail["), "{}", done.out);
}

// ---- what the hub sends

fn fixture(name: &str) -> DocumentFolder {
    DocumentFolder::new(&fs::read_to_string(format!("tests/fixtures/documents/{name}.yaml")).unwrap())
}

/// Every frame is judged, whatever it is made of; one that is wrong in a part is judged by the schema of its message. A
/// pack made from the document judges in the same way.
#[rstest]
#[case::a_word("commands", "oops", 1, "fail[DOC-LISTED]: hub/connect: the frame is not JSON")]
#[case::a_page("commands", "<html>", 1, "DOC-LISTED")]
#[case::two_objects("commands", r#"{"a":1}{"b":2}"#, 1, "DOC-LISTED")]
#[case::half_an_object("commands", r#"{"a":"#, 1, "DOC-LISTED")]
#[case::no_number("commands", "NaN", 1, "DOC-LISTED")]
#[case::binary("commands", "\0\u{1}", 1, "DOC-LISTED")]
#[case::another_message("commands", r#"{"pull":{}}"#, 1, "expected one of the forms connected, push")]
#[case::a_listed_message("commands", r#"{"push":{}}"#, 0, "PASS")]
#[case::a_pattern("prices", r#"{"type":"price","value":"abc"}"#, 1, "`price` breaks its schema at /value")]
#[case::a_price("prices", r#"{"type":"price","value":"1.50"}"#, 0, "PASS")]
#[case::a_constant("versions", r#"{"type":"start","v":3}"#, 1, "`start` breaks its schema at /v: expected 1, found 3")]
#[case::the_type("versions", r#"{"type":"begin","v":1}"#, 1, "DOC-LISTED")]
#[case::json_beside_audio("audio", r#"{"tell":"x"}"#, 0, "PASS")]
#[case::audio("audio", "\0\u{1}", 0, "PASS")]
#[case::a_word_beside_audio("audio", "oops", 1, "the frame is not JSON")]
#[case::wrong_beside_audio("audio", r#"{"tell":1}"#, 1, "`tell` breaks its schema at /tell")]
#[case::an_unlisted_one_beside_a_nested_one(
    "nested",
    r#"{"timeout":12}"#,
    1,
    "expected one of the forms signup, login"
)]
#[case::a_nested_one("nested", r#"{"email":"a@example.org"}"#, 0, "PASS")]
#[case::a_name_of_no_form("pets", r#"{"petType":"Cow","name":"a","claws":1}"#, 1, r#"expected one of ["Cat","Dog"]"#)]
#[case::the_name_of_another_form("pets", r#"{"petType":"Dog","name":"a","claws":1}"#, 1, "expected a member `bark`")]
#[case::a_name("pets", r#"{"petType":"Cat","name":"a","claws":1}"#, 0, "PASS")]
fn every_frame_of_the_hub_is_judged(
    #[case] document: &str,
    #[case] sent: &'static str,
    #[case] code: i32,
    #[case] says: &str,
) {
    let hub = ScriptedHub::start(move |_, _, text| {
        let request: Value = serde_json::from_str(text).unwrap();
        let reply = request.get("connect").map(|_| json!({ "id": request["id"], "connect": { "client": "c" } }));
        reply.map(|reply| reply.to_string()).into_iter().chain([sent.to_owned()]).collect()
    });
    let document = fixture(document);
    let done = document.check(&hub.url(), &[]).assert_exit_code(code);
    assert!(done.out.contains(says), "{}", done.out);
    assert!(code == 0 || done.out.matches("\nfail[").count() == 1, "{}", done.out);
    let pack = document.folder.path().join("pack");
    let pack = pack.to_str().unwrap();
    hubproof(["packs", "init", &document.path(), "--to", pack]).assert_exit_code(0);
    let done = hubproof(["check", &hub.url(), "--pack", pack, "--stretch", "0.3"]).assert_exit_code(code);
    assert!(done.out.contains(says.replace("fail[DOC-LISTED]: hub/connect: ", "").as_str()), "{}", done.out);
}

/// A document that does not say that its messages are JSON may mean plain text.
#[rstest]
#[case::stated("defaultContentType: application/json\n", 1)]
#[case::left_out("", 0)]
fn plain_text_is_judged_as_json_only_if_the_document_says_so(#[case] states: &str, #[case] code: i32) {
    let document = NEWS.replace(
        "payload: { type: object, required: [op], properties: { op: { const: news } } }",
        "payload: { type: string }",
    );
    let document = document.replace("info:", &format!("{states}info:"));
    let hub = ScriptedHub::start(|_, _, _| vec!["\"news\"".to_owned(), "news".to_owned()]);
    DocumentFolder::new(&document).check(&hub.url(), &[]).assert_exit_code(code);
}

#[test]
fn a_document_of_unsupported_payloads_says_so() {
    let done = hubproof(["packs", "lint", &fixture("avro").path()]).assert_exit_code(2);
    let says = "error: no message of the document can be judged: Avro payloads are not supported\n";
    assert!(done.out.contains(says), "{}", done.out);
}

/// The scenarios of a document are in no file, so reports show the document.
#[rstest]
#[case::annotations("github", "file=FILE,line=6")]
#[case::sarif("sarif", r#""uri": "file://FILE""#)]
#[case::junit("junit", "at: FILE:6")]
#[case::ctrf("ctrf", "FILE")]
fn reports_point_into_the_document(#[case] format: &str, #[case] says: &str) {
    let hub = ScriptedHub::start(|_, _, _| vec![r#"{"type":"price","value":"abc"}"#.to_owned()]);
    let document = fixture("prices");
    let report = format!("{format}=-");
    let done = document.check(&hub.url(), &["--report", &report]).assert_exit_code(1);
    let path = document.path();
    assert!(done.out.contains(&says.replace("FILE", &path)), "{}", done.out);
    assert!(!done.out.contains("hub/ask.yaml") && !done.out.contains("hub/shared.yaml"), "{}", done.out);
    assert!(format != "junit" || done.out.contains(r#"name="document.section" value="payload""#), "{}", done.out);
}

#[test]
fn a_binding_without_properties_is_reported() {
    let document = NEWS.replace(
        "    publish:",
        "    bindings: { ws: { headers: { Authorization: { type: string } } } }\n    publish:",
    );
    let done = hubproof(["packs", "lint", &DocumentFolder::new(&document).path()]).assert_exit_code(0);
    assert!(done.out.contains("`headers` of the WebSocket binding is ignored: it has no `properties`"), "{}", done.out);
}

/// Lint lists what no check judges.
#[test]
fn lint_lists_what_is_not_judged() {
    let payload = "headers: { type: object }, payload: { type: object, required: [op], discriminator: kind, properties: { op: { const: news }, text: { type: string, format: markdown, contentEncoding: base64 } } }, allOf: []";
    let document =
        NEWS.replace("payload: { type: object, required: [op], properties: { op: { const: news } } }", payload);
    let done = hubproof(["packs", "lint", &DocumentFolder::new(&document).path()]).assert_exit_code(0);
    let unjudged = "Not judged: `contentEncoding`, `discriminator: kind`, `format: markdown`, `headers` of messages, which WebSocket frames do not have\n";
    assert!(done.out.contains(unjudged), "{}", done.out);
    assert!(done.out.contains("`allOf` is ignored: a message of AsyncAPI has no such key"), "{}", done.out);
}

// ---- nothing to check

const NEWS: &str = "asyncapi: 2.6.0
info: { title: News, version: '1' }
channels:
  /:
    publish:
      message:
        oneOf:
          - { name: subscribe, payload: { type: object, required: [op], properties: { op: { const: subscribe } } } }
          - { name: typing, payload: { type: object, required: [op], properties: { op: { const: typing } } } }
    subscribe:
      message: { name: news, payload: { type: object, required: [op], properties: { op: { const: news } } } }
";

/// Version 2 has no replies. A hub that answers only some messages passes; one that never sends anything is
/// inconclusive.
#[rstest]
#[case::silent(false, 3, "expect: any")]
#[case::answers_one_of_two(true, 0, "PASS")]
fn a_run_without_any_check_is_inconclusive(#[case] answers: bool, #[case] code: i32, #[case] says: &str) {
    let hub = ScriptedHub::start(move |_, _, text| {
        let news = answers && serde_json::from_str::<Value>(text).is_ok_and(|frame| frame["op"] == "subscribe");
        news.then(|| json!({ "op": "news" }).to_string()).into_iter().collect()
    });
    let done = DocumentFolder::new(NEWS).check(&hub.url(), &[]).assert_exit_code(code);
    assert!(done.out.contains(says), "{}", done.out);
}

/// Where the answer may be binary, no step can expect one, but the frames that come are judged.
#[rstest]
#[case::silent(None, 3, "INCONCLUSIVE")]
#[case::as_documented(Some("news"), 0, "PASS")]
fn json_beside_binary_messages_is_judged(#[case] op: Option<&'static str>, #[case] code: i32, #[case] says: &str) {
    let listed =
        "message: { name: news, payload: { type: object, required: [op], properties: { op: { const: news } } } }";
    let audio = "{ name: audio, payload: { type: string, format: binary } }";
    let document =
        NEWS.replace(listed, &format!("message: {{ oneOf: [ {}, {audio} ] }}", &listed["message: ".len()..]));
    assert!(document.contains("audio"));
    let hub = ScriptedHub::start(move |_, _, _| op.map(|op| json!({ "op": op }).to_string()).into_iter().collect());
    let done = DocumentFolder::new(&document).check(&hub.url(), &[]).assert_exit_code(code);
    assert!(done.out.contains(says), "{}", done.out);
}

/// A step that only fails with a variation is a warning. It leaves nothing undecided, since the step holds without it.
#[rstest]
#[case::reads_no_escapes("escapes", "", |text: &str| text.contains("subscribe"))]
#[case::loses_full_buffers("padding", "", |text: &str| text.contains("subscribe") && text.len() != 4096)]
#[case::knows_one_spelling("upgrade", "Connection: Upgrade\r\n", |text: &str| text.contains("subscribe"))]
fn a_variation_that_stops_a_scenario_only_warns(
    #[case] variation: &str,
    #[case] needs: &'static str,
    #[case] answers: fn(&str) -> bool,
) {
    let admits = move |head: &str| head.contains(needs);
    let hub = ScriptedHub::guarded(admits, move |_, _, text| {
        answers(text).then(|| json!({ "op": "news" }).to_string()).into_iter().collect()
    });
    let done = DocumentFolder::new(NEWS).check(&hub.url(), &["--variation", variation]).assert_exit_code(0);
    assert!(done.out.contains("warn[same-result]"), "{}", done.out);
    assert!(done.out.contains("PASS"), "{}", done.out);
    let other = DocumentFolder::new(NEWS).check(&hub.url(), &["--variation", "member-order"]).assert_exit_code(0);
    assert!(!other.out.contains("warn["), "{}", other.out);
}

// ---- examples and directions

/// All examples of a message are sent unchanged, each over its own connection.
#[test]
fn the_examples_of_the_document_are_sent() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let frames = Arc::clone(&seen);
    let hub = ScriptedHub::start(move |_, number, text| {
        frames.lock().unwrap().push((number, serde_json::from_str::<Value>(text).unwrap()));
        vec![json!({ "op": "news" }).to_string()]
    });
    let examples = "examples: [ { payload: { op: subscribe, to: [a], deep: { x: 1 } } }, { payload: { op: subscribe, cost: '${5}' } } ], payload: { type: object, required: [op], properties: { op: { const: subscribe }, to: { type: array }, deep: { type: object }, cost: { type: string } } }";
    let document = NEWS.replace(
        "{ name: subscribe, payload: { type: object, required: [op], properties: { op: { const: subscribe } } } }",
        &format!("{{ name: subscribe, {examples} }}"),
    );
    let done = DocumentFolder::new(&document)
        .check(&hub.url(), &["--scenario", "hub/subscribe*", "-j", "1"])
        .assert_exit_code(0);
    assert!(done.out.contains("2 pass"), "{}", done.out);
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_by_key(|(_, frame)| frame.to_string());
    let expected =
        [json!({ "op": "subscribe", "cost": "${5}" }), json!({ "op": "subscribe", "to": ["a"], "deep": { "x": 1 } })];
    assert_eq!(seen, expected.map(|frame| (0, frame)));
}

/// People confuse `publish` and `subscribe`, so lint prints who sends what.
#[rstest]
#[case::hub("hub", "clients send: subscribe, typing\nthe hub sends: news\n", "`publish` is what clients send to it")]
#[case::client(
    "client",
    "clients send: news\nthe hub sends: subscribe, typing\n",
    "`publish` is what the hub sends to it"
)]
fn lint_lists_the_sender_of_each_message(#[case] perspective: &str, #[case] lists: &str, #[case] explains: &str) {
    let document = DocumentFolder::new(NEWS);
    let done = hubproof(["packs", "lint", &document.path(), "--perspective", perspective]).assert_exit_code(0);
    assert!(done.out.contains(lists) && done.out.contains(explains), "{}", done.out);
    let done = hubproof(["packs", "show", &document.path(), "--perspective", perspective]).assert_exit_code(0);
    assert!(done.out.contains(explains), "{}", done.out);
}

// ---- values from a target

/// A document of one message, with this server and security scheme.
fn secured_document(version: &str, server: &str, scheme: &str) -> String {
    let payload = "payload: { type: object, required: [op], properties: { op: { const: a } } }";
    let channels = match version {
        "2.6.0" => format!(
            "  /feed: {{ publish: {{ message: {{ name: a, {payload} }} }}, subscribe: {{ message: {{ name: b, payload: {{ const: b }} }} }} }}\n"
        ),
        _ => format!(
            "  feed: {{ address: /feed, messages: {{ a: {{ {payload} }}, b: {{ payload: {{ const: b }} }} }} }}\noperations:\n  takes: {{ action: receive, channel: {{ $ref: '#/channels/feed' }}, messages: [ {{ $ref: '#/channels/feed/messages/a' }} ], reply: {{ messages: [ {{ $ref: '#/channels/feed/messages/b' }} ] }} }}\n"
        ),
    };
    format!(
        "asyncapi: {version}\ninfo: {{ title: Feed, version: '1' }}\nservers: {{ hub: {server} }}\nchannels:\n{channels}components: {{ securitySchemes: {{ who: {scheme} }} }}\n"
    )
}

const V3: (&str, &str) =
    ("3.0.0", "{ host: x, protocol: ws, security: [ { $ref: '#/components/securitySchemes/who' } ] }");
const V2: (&str, &str) = ("2.6.0", "{ url: 'ws://x', protocol: ws, security: [ { who: [] } ] }");

#[rstest]
#[case::bearer("{ type: http, scheme: bearer }", &["secrets.token=t0p"], "Authorization: Bearer t0p", "setting token")]
#[case::oauth("{ type: oauth2, flows: {} }", &["secrets.token=t0p"], "Authorization: Bearer t0p", "setting token")]
#[case::user_password("{ type: userPassword }", &["username=anna", "secrets.password=pw"], "Authorization: Basic YW5uYTpwdw==", "setting password")]
#[case::key_in_header("{ type: httpApiKey, in: header, name: X-Api-Key }", &["secrets.x_api_key=k1"], "X-Api-Key: k1", "setting x_api_key")]
#[case::key_in_query("{ type: httpApiKey, in: query, name: api_key }", &["secrets.api_key=k1"], "GET /feed?api_key=k1 ", "setting api_key")]
fn security_schemes_become_settings(
    #[case] scheme: &str,
    #[case] sets: &[&str],
    #[case] head: &'static str,
    #[case] need: &str,
    #[values(V2, V3)] version: (&str, &str),
) {
    let hub = ScriptedHub::guarded(
        move |given| given.to_ascii_lowercase().contains(&head.to_ascii_lowercase()),
        |_, _, _| vec![json!("b").to_string()],
    );
    let document = DocumentFolder::new(&secured_document(version.0, version.1, scheme));
    let set: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    document.check(&hub.url(), &set).assert_exit_code(0);
    let done = document.check(&hub.url(), &[]).assert_exit_code(3);
    assert!(done.out.contains(need), "{}", done.out);
    // A value is never shown.
    let shown = document.check(&hub.url(), &[&set[..], &["--trace"]].concat()).out;
    assert!(!shown.contains("t0p") && !shown.contains("YW5uYTpwdw"), "{shown}");
}

/// Only the server's path counts: the host is the target's.
#[rstest]
#[case::version_3(
    "3.0.0",
    "{ host: '{region}.example.com', pathname: '/{stage}/api', protocol: wss, variables: { region: {}, stage: { default: live } } }"
)]
#[case::version_2(
    "2.6.0",
    "{ url: '{region}.example.com/{stage}/api', protocol: wss, variables: { region: {}, stage: { default: live } } }"
)]
fn server_variables_become_settings(#[case] version: &str, #[case] server: &str) {
    let at = |path: &'static str| {
        ScriptedHub::guarded(
            move |head| head.starts_with(&format!("GET {path} ")),
            |_, _, _| vec![json!("b").to_string()],
        )
    };
    let document = DocumentFolder::new(&secured_document(version, server, "{ type: X509 }"));
    document.check(&at("/live/api/feed").url(), &[]).assert_exit_code(0);
    document.check(&at("/test/api/feed").url(), &["--set", "stage=test"]).assert_exit_code(0);
    document.check(&at("/test/api/feed").url(), &[]).assert_exit_code(3);
}
