//! Invariants over both directions: the lifecycles of ids under `always`, and the functions `sent_frames` and `all_frames`.

use hubproof::outcome::{ScenarioReport, Verdict};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::mini_protocol::{
    HubActions, HubInput, PLAIN_ROLES, changed_scenario_diagnostics, play_changed, text_received, worst_verdict,
};

/// A protocol with operations: `ask` opens an id, `tick` carries it, `answer` closes it, and so does `stop` of a client.
fn with_operations(_: &str) -> String {
    include_str!("../fixtures/documents/operations.yaml").to_owned()
}

const OPERATIONS: &str = "roles: { client: { opening: [ { connects: } ] } }
always:
  - opens: ask
    carries: tick
    closes: [answer, stop]
    opened: [MUST]
    ended: [MUST-2]
";

/// The hub calls, too, with ids of its own: `notice` is answered by `done`.
const CALLS_OF_BOTH: &str = "roles: { client: { opening: [ { connects: } ] } }
always:
  - opens: [ask, notice]
    closes: [answer, done]
    opened: [MUST]
    ended: [MUST-2]
";

/// Plays steps of a client with a hub that sends the listed frames after each text that it receives.
fn converse(shared: &str, steps: &[&str], replies: &Value) -> ScenarioReport {
    let steps: String = steps.iter().map(|step| format!("  - anna {step}\n")).collect();
    let scenario = format!(
        "title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n{steps}  - wait: 1s\n    because: frames may come\n"
    );
    let mut received = 0;
    play_changed(with_operations, shared, &scenario, move |input: &HubInput<'_>| -> HubActions {
        if input.text.is_none() {
            return Vec::new();
        }
        received += 1;
        let frames = replies[received - 1].as_array().into_iter().flatten();
        frames.map(|frame| (10, input.connection, text_received(frame.to_string()))).collect()
    })
}

fn tick(id: u64) -> Value {
    json!({ "type": "tick", "id": id })
}

fn answer(id: u64) -> Value {
    json!({ "type": "answer", "id": id })
}

fn notice(id: u64) -> Value {
    json!({ "type": "notice", "id": id })
}

const ASK: &str = "sends: ask";
const STOP: &str = "sends: stop";
const WAIT: &str = "expects nothing: notice\n    rules: [SHOULD]";

#[rstest]
#[case::items_and_an_end(&[ASK], json!([[tick(1), tick(1), answer(1)]]), [Verdict::Pass, Verdict::Pass])]
#[case::end_at_once(&[ASK], json!([[answer(1)]]), [Verdict::Pass, Verdict::Pass])]
#[case::number_written_as_a_fraction(&[ASK], json!([[json!({ "type": "answer", "id": 1.0 })]]), [Verdict::Pass, Verdict::Pass])]
#[case::without_an_id(&[ASK], json!([[json!({ "type": "answer" })]]), [Verdict::NotTestable, Verdict::NotTestable])]
#[case::null_for_an_id(&[ASK], json!([[json!({ "type": "answer", "id": null })]]), [Verdict::NotTestable, Verdict::NotTestable])]
#[case::other_id(&[ASK], json!([[answer(2)]]), [Verdict::Fail, Verdict::NotTestable])]
#[case::text_for_a_number(&[ASK], json!([[json!({ "type": "answer", "id": "1" })]]), [Verdict::Fail, Verdict::NotTestable])]
#[case::item_of_another_id(&[ASK], json!([[tick(1), tick(2)]]), [Verdict::Fail, Verdict::Pass])]
#[case::second_answer(&[ASK], json!([[answer(1), answer(1)]]), [Verdict::Pass, Verdict::Fail])]
#[case::item_after_the_end(&[ASK], json!([[answer(1), tick(1)]]), [Verdict::Pass, Verdict::Fail])]
#[case::id_used_again(&[ASK, WAIT, ASK], json!([[answer(1)], [tick(1), answer(1)]]), [Verdict::Pass, Verdict::Pass])]
#[case::id_used_again_and_answered_twice(
    &[ASK, WAIT, ASK], json!([[answer(1)], [answer(1), answer(1)]]), [Verdict::Pass, Verdict::Fail]
)]
#[case::two_requests_at_once(&[ASK, ASK], json!([[], [answer(1), answer(1)]]), [Verdict::Pass, Verdict::Pass])]
#[case::items_on_their_way_when_the_client_stops(
    &[ASK, STOP], json!([[], [tick(1), answer(1), tick(1)]]), [Verdict::Pass, Verdict::Pass]
)]
#[case::item_for_an_id_that_the_client_only_stopped(&[STOP], json!([[tick(1)]]), [Verdict::Fail, Verdict::NotTestable])]
#[case::raw_request(&["sends raw: { text: '{\"type\":\"ask\",\"id\":7}' }"], json!([[answer(7)]]), [Verdict::Pass, Verdict::Pass])]
#[case::raw_request_answered_twice(&["sends raw: { text: '{\"type\":\"ask\",\"id\":7}' }"], json!([[answer(7), answer(7)]]), [Verdict::Pass, Verdict::Fail])]
#[case::raw_request_with_an_inexact_id(&["sends raw: { text: '{\"type\":\"ask\",\"id\":9007199254740993}' }"], json!([[answer(7)]]), [Verdict::NotTestable, Verdict::NotTestable])]
#[case::garbage(&["sends raw: { text: '{\"type\":\"ask\",\"id\":7' }"], json!([[answer(7), answer(9)]]), [Verdict::NotTestable, Verdict::NotTestable])]
#[case::bytes(&["sends raw: { frames: [ { opcode: text, data: '{}' } ] }"], json!([[answer(7)]]), [Verdict::NotTestable, Verdict::NotTestable])]
fn the_lifecycle_of_an_id_is_judged_on_every_frame(
    #[case] steps: &[&str],
    #[case] replies: Value,
    #[case] expected: [Verdict; 2],
) {
    let report = converse(OPERATIONS, steps, &replies);
    let found = [worst_verdict(&report, "MUST"), worst_verdict(&report, "MUST-2")];
    assert_eq!(found, expected, "{:#?}", report.checks);
}

#[rstest]
#[case::each_answers_the_other(
    &["sends: ask\n    with: { id: 1 }", "expects: notice", "sends: done"],
    json!([[notice(1), answer(1)], []]), [Verdict::Pass, Verdict::Pass]
)]
#[case::answer_to_its_own_call(&["sends: stop"], json!([[notice(5), answer(6)]]), [Verdict::Fail, Verdict::NotTestable])]
#[case::ping_frames_are_not_raw_data(
    &["sends raw: { frames: [ { opcode: ping, data: x } ] }", "sends: ask"],
    json!([[answer(1), answer(1)]]), [Verdict::Pass, Verdict::Fail]
)]
#[case::wrong_on_purpose(
    &["sends: notice\n    breaks: only the hub sends it", "sends: ask"],
    json!([[answer(3)], [answer(1), answer(1)]]), [Verdict::NotTestable, Verdict::NotTestable]
)]
fn both_sides_may_open_ids(#[case] steps: &[&str], #[case] replies: Value, #[case] expected: [Verdict; 2]) {
    let report = converse(CALLS_OF_BOTH, steps, &replies);
    let found = [worst_verdict(&report, "MUST"), worst_verdict(&report, "MUST-2")];
    assert_eq!(found, expected, "{:#?}", report.checks);
}

#[test]
fn a_finding_names_the_id_and_the_message() {
    let report = converse(OPERATIONS, &[ASK], &json!([[answer(1), tick(1), tick(9)]]));
    let messages: Vec<&str> = report.checks.iter().map(|check| check.message.as_str()).collect();
    assert_eq!(
        messages.iter().filter(|message| !message.is_empty()).copied().collect::<Vec<_>>(),
        [
            "`tick`: no message on this connection opened the id 9",
            "`tick`: the id 1 has already ended on this connection"
        ]
    );
}

#[test]
fn ids_belong_to_their_connection() {
    let scenario = "title: T\nactors: { anna: client, ben: client }\nsteps:\n  - anna joins:\n  - ben joins:\n  - anna sends: ask\n  - wait: 1s\n    because: frames may come\n";
    let hub = |input: &HubInput<'_>| -> HubActions {
        // The answer for anna goes to ben.
        input.text.map(|_| (10, 1, text_received(answer(1).to_string()))).into_iter().collect()
    };
    let report = play_changed(with_operations, OPERATIONS, scenario, hub);
    assert_eq!(worst_verdict(&report, "MUST"), Verdict::Fail, "{:#?}", report.checks);
}

const BOTH_DIRECTIONS: &str = "roles: { client: { opening: [ { connects: } ] } }
always:
  - check: \"${frames('answer') | map(attribute='id') | reject('in', sent_frames('ask') | map(attribute='id') | list) | list}\"
    equals: []
    says: an answer has an id that was not asked
    rules: [MUST]
  - check: \"${all_frames() | map(attribute='direction') | list}\"
    equals: [sent, received, received]
    rules: [MUST-2]
";

#[rstest]
#[case::right(&[ASK], json!([[tick(1), answer(1)]]), [Verdict::Pass, Verdict::Pass])]
#[case::wrong_id(&[ASK], json!([[tick(1), answer(2)]]), [Verdict::Fail, Verdict::Pass])]
#[case::one_too_many(&[ASK], json!([[tick(1), tick(1), answer(1)]]), [Verdict::Pass, Verdict::Fail])]
#[case::after_raw_data(
    &["sends raw: { text: '{}' }", "sends: ask"],
    json!([[answer(3)], [answer(1)]]), [Verdict::NotTestable, Verdict::NotTestable]
)]
fn checks_of_a_connection_see_both_directions(
    #[case] steps: &[&str],
    #[case] replies: Value,
    #[case] expected: [Verdict; 2],
) {
    let report = converse(BOTH_DIRECTIONS, steps, &replies);
    let found = [worst_verdict(&report, "MUST"), worst_verdict(&report, "MUST-2")];
    assert_eq!(found, expected, "{:#?}", report.checks);
    if expected[0] == Verdict::Fail {
        let message = &report.checks.iter().find(|check| check.verdict == Verdict::Fail).unwrap().message;
        assert_eq!(message, "an answer has an id that was not asked (expected [], found [2])");
    }
}

/// The frames to compare with may be in the value that is expected.
#[rstest]
#[case::as_many(&["sends: ask"], json!([[answer(1)]]), Verdict::Pass)]
#[case::one_too_many(&["sends: ask"], json!([[answer(1), tick(1)]]), Verdict::Fail)]
#[case::after_raw_data(&["sends raw: { text: '{}' }", "sends: ask"], json!([[], [tick(1)]]), Verdict::NotTestable)]
fn received_frames_are_compared_with_sent_ones(
    #[case] steps: &[&str],
    #[case] replies: Value,
    #[case] expected: Verdict,
) {
    let entry =
        "check: \"${frames('any') | length}\"\n    equals: \"${sent_frames('ask') | length}\"\n    rules: [MUST]\n";
    let shared = format!("{PLAIN_ROLES}always:\n  - {entry}");
    let report = converse(&shared, steps, &replies);
    assert_eq!(worst_verdict(&report, "MUST"), expected, "{:#?}", report.checks);
}

#[rstest]
#[case::frames("frames")]
#[case::sent_frames("sent_frames")]
#[case::all_frames("all_frames")]
fn frames_of_a_connection_are_only_for_always(#[case] function: &str) {
    let step = format!("  - check: \"${{{function}('ask') | length}}\"\n    equals: 0\n    rules: [MUST]\n");
    let step = if function == "all_frames" { step.replace("'ask'", "") } else { step };
    let scenario = format!("title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n{step}");
    let found = changed_scenario_diagnostics(with_operations, PLAIN_ROLES, &scenario);
    assert!(found.contains(&format!("`{function}()` works only under `always`")), "{found}");
}

#[rstest]
#[case::unknown_in_an_expression(
    "{ check: \"${sent_frames('aks')}\", equals: [], rules: [MUST] }",
    "small has no message `aks`"
)]
#[case::no_correlation_id("{ opens: ask, closes: answer, opened: [MUST] }", "`ask` has no `correlationId`")]
#[case::unknown("{ opens: aks, closes: answer, opened: [MUST] }", "small has no message `aks`")]
#[case::no_rules("{ opens: ask, closes: answer }", "this lifecycle has no rules")]
#[case::no_end("{ opens: ask, carries: answer, ended: [MUST] }", "nothing closes the id")]
#[case::twice("{ opens: ask, carries: ask, opened: [MUST] }", "`ask` is listed twice")]
#[case::nothing_of_the_hub("{ opens: notice, closes: ask, opened: [MUST] }", "no message of the hub")]
#[case::with_rules("{ opens: ask, closes: answer, rules: [MUST] }", "`rules` belongs to `check`, not to `opens`")]
#[case::check_that_ends(
    "{ check: \"${frames('answer')}\", equals: [], rules: [MUST], ended: [MUST] }",
    "`ended` belongs to `opens`, not to `check`"
)]
fn mistakes_in_a_lifecycle_are_reported(#[case] entry: &str, #[case] expected: &str) {
    let shared = format!("{PLAIN_ROLES}always:\n  - {entry}\n");
    let without = expected.contains("correlationId");
    let change = |document: &str| if without { document.to_owned() } else { with_operations(document) };
    let found = changed_scenario_diagnostics(change, &shared, "title: T\nsteps: []\n");
    assert!(found.contains(expected), "{found}");
}
