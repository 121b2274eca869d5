//! Replies that only their request identifies, as in OCPP and JSON-RPC; and members that are filled per message.

use hubproof::outcome::Verdict;
use rstest::rstest;
use serde_json::Value;

use crate::support::mini_protocol::{
    HubActions, HubInput, PLAIN_ROLES, changed_scenario_diagnostics, mini_pack_diagnostics, play_changed,
    text_received, worst_verdict,
};

/// Two calls, each with a result that contains only the id of its call: `[2, "id", "Boot", {}]`, `[3, "id", {}]`.
const CALLS: &str = include_str!("../fixtures/documents/calls.yaml");

const FRESH_IDS: &str = "roles: { client: { opening: [ { connects: } ] } }\nfills: { /1: \"${unique('call')}\" }\n";

/// Answers each call with its id and this content, by the name of the call.
fn result_of(boot: &'static str, beat: &'static str) -> impl FnMut(&HubInput<'_>) -> HubActions {
    move |input| {
        let Some(call) = input.text.and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
            return Vec::new();
        };
        let content = if call[2] == "Boot" { boot } else { beat };
        vec![(1, input.connection, text_received(format!("[3,{},{content}]", call[1])))]
    }
}

const BOTH_CALLS: &str = "title: T
actors: { anna: client }
steps:
  - anna joins:
  - anna sends: boot
  - anna sends: beat
  - anna expects: beaten
    rules: [SHOULD]
  - anna expects: booted
    rules: [SHOULD]
";

#[rstest]
#[case::right(r#"{"status":"Accepted"}"#, r#"{"time":7}"#, [Verdict::Pass, Verdict::Pass])]
#[case::wrong_boot(r#"{"time":7}"#, r#"{"time":7}"#, [Verdict::Fail, Verdict::Pass])]
#[case::wrong_beat(r#"{"status":"Accepted"}"#, r#"{"status":"Accepted"}"#, [Verdict::Pass, Verdict::Fail])]
#[case::swapped(r#"{"time":7}"#, r#"{"status":"Accepted"}"#, [Verdict::Fail, Verdict::Fail])]
fn a_result_is_the_reply_to_the_call_with_its_id(
    #[case] boot: &'static str,
    #[case] beat: &'static str,
    #[case] expected: [Verdict; 2],
) {
    let report = play_changed(|_| CALLS.to_owned(), FRESH_IDS, BOTH_CALLS, result_of(boot, beat));
    let found = [worst_verdict(&report, "MUST"), worst_verdict(&report, "MUST-2")];
    assert_eq!(found, expected, "{:#?}", report.checks);
    // Each step claims the reply to its call, right or wrong.
    assert_eq!(worst_verdict(&report, "SHOULD"), Verdict::Pass, "{:#?}", report.checks);
}

#[rstest]
#[case::raw_call("sends raw: { text: '[2,\"x\",\"Beat\",{}]' }", r#"[3,"x",{"time":7}]"#, "beaten", Verdict::Pass)]
#[case::wrong_reply_to_a_raw_call(
    "sends raw: { text: '[2,\"x\",\"Beat\",{}]' }",
    r#"[3,"x",{}]"#,
    "beaten",
    Verdict::Pass
)]
#[case::other_reply_than_that_to_the_call("sends: boot", r#"[3,"one",{"time":7}]"#, "beaten", Verdict::Warn)]
#[case::unknown_call_and_valid_as_one_reply("sends: boot", r#"[3,"y",{"time":7}]"#, "beaten", Verdict::Pass)]
#[case::unknown_call_and_valid_as_none("sends: boot", r#"[3,"y",{}]"#, "booted", Verdict::Warn)]
#[case::error("sends: boot", r#"[4,"one","Wrong"]"#, "failed", Verdict::Pass)]
fn a_result_is_recognised_by_what_was_sent(
    #[case] step: &str,
    #[case] reply: &'static str,
    #[case] expects: &str,
    #[case] expected: Verdict,
) {
    let scenario = format!(
        "title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n  - anna {step}\n  - anna expects: {expects}\n    rules: [SHOULD]\n"
    );
    let hub = |input: &HubInput<'_>| -> HubActions {
        input.text.map(|_| (1, input.connection, text_received(reply))).into_iter().collect()
    };
    let report = play_changed(|_| CALLS.to_owned(), PLAIN_ROLES, &scenario, hub);
    assert_eq!(worst_verdict(&report, "SHOULD"), expected, "{:#?}", report.checks);
}

#[test]
fn replies_that_nothing_tells_apart_are_reported_with_both_ways_out() {
    let without_ids = |_: &str| CALLS.replace("      correlationId: { location: '$message.payload#/1' }\n", "");
    let found = mini_pack_diagnostics(without_ids);
    assert!(found.contains("the example of `beaten` is recognised as `booted`"), "{found}");
    assert!(found.contains("give both and their requests a `correlationId`"), "{found}");
    assert_eq!(mini_pack_diagnostics(|_| CALLS.to_owned()), "");
}

/// Returns the texts that a client sends in these steps.
fn sent_texts(shared: &str, steps: &str) -> Vec<Value> {
    let scenario = format!("title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n{steps}");
    let mut sent = Vec::new();
    let report = play_changed(
        |_| CALLS.to_owned(),
        shared,
        &scenario,
        |input| {
            sent.extend(input.text.map(|text| serde_json::from_str::<Value>(text).unwrap()));
            Vec::new()
        },
    );
    assert_eq!(report.mistake, None);
    sent
}

#[test]
fn a_fill_of_one_message_leaves_the_others_alone_and_yields_to_with() {
    let shared = format!("{PLAIN_ROLES}fills: {{ boot/1: \"${{unique('call')}}\", /3: {{ filled: true }} }}\n");
    let steps = "  - anna sends: boot\n  - anna sends: boot\n  - anna sends: boot\n    with: { /1: mine }\n  - anna sends: beat\n";
    let sent = sent_texts(&shared, steps);
    let ids: Vec<&str> = sent.iter().map(|call| call[1].as_str().unwrap()).collect();
    assert!(ids[0].starts_with("call") && ids[1].starts_with("call") && ids[0] != ids[1], "{ids:?}");
    assert_eq!(ids[2..], ["mine", "one"]);
    assert!(sent.iter().all(|call| call[3]["filled"] == true), "{sent:?}");
}

#[test]
fn next_number_is_another_number_in_each_message() {
    let shared = format!("{PLAIN_ROLES}fills: {{ /1: \"${{next_number()}}\" }}\n");
    let sent = sent_texts(&shared, "  - anna sends: boot\n  - anna sends: beat\n  - anna sends: beat\n");
    assert_eq!(sent.iter().map(|call| call[1].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
}

#[rstest]
#[case::unknown_message("bot/1", "small has no message `bot`")]
#[case::missing_member("boot/7", "no example has a member `boot/7`, so `fills` has no effect on it")]
fn mistakes_in_fills_are_reported(#[case] key: &str, #[case] expected: &str) {
    let shared = format!("{PLAIN_ROLES}fills: {{ {key}: 1 }}\n");
    let found = changed_scenario_diagnostics(|_| CALLS.to_owned(), &shared, "title: T\nsteps: []\n");
    assert!(found.contains(expected), "{found}");
}
