//! Messages that are arrays, as in OCPP-J (`[2, "17", "Heartbeat", {}]`), or any other JSON value: a number is an index
//! where an array stands, and `""` is the whole value.

use hubproof::outcome::Verdict;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::mini_protocol::{
    HubActions, HubInput, PLAIN_ROLES, changed_scenario_diagnostics, play_changed, play_changed_deviating,
    proposed_deviations, text_received, worst_verdict,
};

/// Returns a document with calls `[2, ID, NAME, {...}]`, results `[3, ID, {...}]`, and a text as a message.
fn calls_document(_: &str) -> String {
    include_str!("../fixtures/documents/arrays.yaml").to_owned()
}

/// Answers each heartbeat; `answer` makes the result of the call.
fn calls_hub(answer: impl Fn(&Value) -> Value) -> impl FnMut(&HubInput<'_>) -> HubActions {
    move |input| {
        let call: Option<Value> = input.text.and_then(|text| serde_json::from_str(text).ok());
        let answered = call.filter(Value::is_array).map(|call| text_received(answer(&call).to_string()));
        answered.map(|text| (0, input.connection, text)).into_iter().collect()
    }
}

fn scenario(steps: &str) -> String {
    format!("title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n{steps}")
}

const HEARTBEAT: &str = "  - anna sends: heartbeat
    with: { 1: \"${unique('beat')}\", 3: { at: 1 } }
    as: call
  - anna expects: result
    where: { 1: \"${call[1]}\" }
    rules: [MUST]
    has:
      MUST-2: { 2: { currentTime: noon }, /2/currentTime: { type: string } }
";

#[rstest]
#[case::right(|call: &Value| json!([3, call[1], { "currentTime": "noon" }]), Verdict::Pass, Verdict::Pass)]
#[case::wrong_id(|_: &Value| json!([3, "other", { "currentTime": "noon" }]), Verdict::Fail, Verdict::Inconclusive)]
#[case::wrong_member(|call: &Value| json!([3, call[1], { "currentTime": "dusk" }]), Verdict::Pass, Verdict::Fail)]
#[case::elements_arrive(|call: &Value| json!([3, call[1], { "currentTime": if call[3]["at"] == 1 && call[2] == "Heartbeat" { "noon" } else { "never" } }]), Verdict::Pass, Verdict::Pass)]
fn a_number_is_an_index_where_an_array_stands(
    #[case] answer: impl Fn(&Value) -> Value,
    #[case] comes: Verdict,
    #[case] has: Verdict,
) {
    let report = play_changed(calls_document, PLAIN_ROLES, &scenario(HEARTBEAT), calls_hub(answer));
    assert_eq!(
        (worst_verdict(&report, "MUST"), worst_verdict(&report, "MUST-2")),
        (comes, has),
        "{:#?}",
        report.checks
    );
}

/// `fills` and `always` follow the same rule.
#[test]
fn fills_and_always_name_elements_by_their_indices() {
    let shared = format!(
        "{PLAIN_ROLES}fills: {{ 1: \"${{unique('beat')}}\" }}\nalways:\n  - every: result\n    has: {{ MUST: {{ 2: {{ currentTime: noon }} }} }}\n  - check: \"${{frames('result') | map(attribute='1')}}\"\n    fits: {{ uniqueItems: true }}\n    rules: [MUST-2]\n"
    );
    let steps =
        "  - anna sends: heartbeat\n  - anna expects: result\n  - anna sends: heartbeat\n  - anna expects: result\n";
    let hub = |time: &'static str| calls_hub(move |call| json!([3, call[1], { "currentTime": time }]));
    let right = play_changed(calls_document, &shared, &scenario(steps), hub("noon"));
    assert_eq!((worst_verdict(&right, "MUST"), worst_verdict(&right, "MUST-2")), (Verdict::Pass, Verdict::Pass));
    let wrong = play_changed(calls_document, &shared, &scenario(steps), hub("dusk"));
    assert_eq!(worst_verdict(&wrong, "MUST"), Verdict::Fail);
}

#[rstest]
#[case::whole("sends: word\n    with: { \"\": bye }", "\"bye\"")]
#[case::whole_array("sends: heartbeat\n    with: { \"\": [2, x, Heartbeat, {}] }", "[2,\"x\",\"Heartbeat\",{}]")]
#[case::element_removed("sends: heartbeat\n    without: [/3, /1]\n    breaks: too short", "[2,\"Heartbeat\"]")]
#[case::element_appended(
    "sends: heartbeat\n    with: { 4: x }\n    breaks: too long",
    "[2,\"id\",\"Heartbeat\",{},\"x\"]"
)]
#[case::member_with_an_empty_name(
    "sends: heartbeat\n    with: { 3: { /: x } }",
    "[2,\"id\",\"Heartbeat\",{\"\":\"x\"}]"
)]
fn the_empty_name_is_the_whole_message(#[case] step: &str, #[case] expected: &str) {
    let mut sent = Vec::new();
    let scenario = scenario(&format!("  - anna {step}\n"));
    let report = play_changed(calls_document, PLAIN_ROLES, &scenario, |input| {
        sent.extend(input.text.map(str::to_owned));
        Vec::new()
    });
    assert_eq!(report.mistake, None);
    assert_eq!(sent, [expected]);
}

#[test]
fn mistakes_about_elements_are_reported_at_their_place() {
    let mistakes = [
        ("an element beyond the end", "  - anna sends: heartbeat\n    with: { 9: x }\n    breaks: too long\n"),
        ("an element that the schema excludes", "  - anna sends: heartbeat\n    with: { 4: \"${unique('x')}\" }\n"),
        ("a member of an array", "  - anna sends: heartbeat\n    with: { id: x }\n    breaks: it is an object\n"),
        ("a member of a text", "  - anna sends: heartbeat\n    with: { /1/id: \"${unique('x')}\" }\n"),
        ("the whole message left out", "  - anna sends: heartbeat\n    without: [\"\"]\n"),
        ("an element that no message has", "  - anna expects: result\n    where: { 3: 1 }\n    rules: [MUST]\n"),
        ("a value that no message has", "  - anna expects: event\n    where: { 1: paused }\n    rules: [MUST]\n"),
        (
            "a type that no message has",
            "  - anna expects: event\n    rules: [MUST]\n    has:\n      MUST-2: { /2/a: true }\n",
        ),
        (
            "only a warning where nothing need come",
            "  - anna expects nothing: event\n    where: { 1: paused }\n    rules: [MUST]\n",
        ),
        (
            "a warning about an undocumented element",
            "  - anna expects: event\n    where: { 5: x }\n    rules: [MUST]\n",
        ),
    ];
    let one = |(what, steps): &(&str, &str)| {
        let found = changed_scenario_diagnostics(calls_document, PLAIN_ROLES, &scenario(steps));
        assert!(!found.is_empty(), "not noticed: {what}");
        format!("## {what}\n\n{found}")
    };
    insta::assert_snapshot!(mistakes.iter().map(one).collect::<Vec<_>>().join("\n\n\n"));
}

/// Conditions that a correct hub may meet are accepted.
#[rstest]
#[case("  - anna expects: event\n    where: { 1: stopped, /2: { minimum: 3 } }\n    rules: [MUST]\n")]
#[case("  - anna expects: result\n    where: { /3: false }\n    rules: [MUST]\n")]
#[case("  - anna expects: result\n    where: { 2: { currentTime: noon } }\n    rules: [MUST]\n")]
fn possible_conditions_are_accepted(#[case] steps: &str) {
    assert_eq!(changed_scenario_diagnostics(calls_document, PLAIN_ROLES, &scenario(steps)), "");
}

#[rstest]
#[case::instead("- { reason: R, message: result, instead: { 0: 33 } }", json!([33, "ID", { "currentTime": "noon" }]))]
#[case::spelled("- { reason: R, message: result, member: /0, value: 3, spelled: 33 }", json!([33, "ID", { "currentTime": "noon" }]))]
#[case::renamed("- { reason: R, message: result, member: /2/currentTime, renamed: /2/time }", json!([3, "ID", { "time": "noon" }]))]
#[case::missing("- { reason: R, message: result, member: /2, missing: true }", json!([3, "ID"]))]
#[case::added("- { reason: R, message: result, member: /3, added: x }", json!([3, "ID", { "currentTime": "noon" }, "x"]))]
#[case::converted("- { reason: R, message: result, member: /1, from_hub: \"${value | string}\" }", json!([3, 7, { "currentTime": "noon" }]))]
#[case::absent("- { reason: R, message: result, absent: true, after: heartbeat, assume: { 1: \"${request[1]}\" } }", json!([5, "started", 1]))]
fn deviations_translate_elements(#[case] deviation: &str, #[case] sent: Value) {
    let steps = "  - anna sends: heartbeat
    with: { 1: \"7\" }
  - anna expects: result
    where: { 1: \"7\", 2: { currentTime: noon } }
    rules: [MUST]
";
    let text = sent.to_string().replace("\"ID\"", "\"7\"");
    let report = play_changed_deviating(
        calls_document,
        deviation,
        &scenario(steps),
        calls_hub(|_| serde_json::from_str(&text).unwrap()),
    );
    assert!(report.mistake.is_none() && report.cause.is_none(), "{:?} {:?}", report.mistake, report.cause);
    assert!(report.deviations.values().any(|seen| seen.observed > 0), "{:#?}", report.deviations);
    // The absence of the message itself breaks the rule; a message that matches by a missing element proves nothing.
    let expected = match deviation {
        absent if absent.contains("absent") => Verdict::Fail,
        missing if missing.contains("missing") => Verdict::Inconclusive,
        _ => Verdict::Pass,
    };
    assert_eq!(worst_verdict(&report, "MUST"), expected, "{:#?}", report.checks);
}

#[rstest]
#[case::another_type(
    |call: &Value| json!([3, call[1], { "currentTime": 5 }]),
    json!({ "message": "result", "member": "/2/currentTime", "from_hub": "${value | string}", "to_hub": "${value | int}" })
)]
#[case::another_lead(
    |call: &Value| json!([33, call[1], { "currentTime": "noon" }]),
    json!({ "message": "result", "instead": { "0": 33 } })
)]
fn proposed_deviations_name_elements_by_their_indices(
    #[case] answer: impl Fn(&Value) -> Value,
    #[case] expected: Value,
) {
    let steps = "  - anna sends: heartbeat
  - anna expects: result
    where: { 2: { currentTime: noon } }
    rules: [MUST]
";
    let proposed = proposed_deviations(calls_document, &scenario(steps), calls_hub(answer));
    let mut claims = proposed.into_iter().map(|mut entry| {
        for key in ["reason", "rules", "direction"] {
            entry.as_object_mut().unwrap().shift_remove(key);
        }
        entry
    });
    let all: Vec<Value> = claims.by_ref().collect();
    assert!(all.contains(&expected), "{all:#?}");
}

/// The assumed result repeats the id of the call, as the examples do.
#[test]
fn a_proposed_absence_assumes_the_elements_that_both_messages_share() {
    let steps = "  - anna sends: heartbeat\n  - anna expects: result\n    rules: [MUST]\n";
    let proposed = proposed_deviations(calls_document, &scenario(steps), |_| Vec::new());
    assert_eq!(proposed.len(), 1, "{proposed:#?}");
    assert_eq!(proposed[0]["assume"], json!({ "1": "${request[1]}" }));
}
