//! What the scenarios of `qi` do not prove: limits, settings, admin events and random input.

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use crate::machine::test_player::TestPlayer;

fn reply_to(sets: &[&str], text: &str) -> Value {
    let mut hub = TestPlayer::new("qi", sets);
    hub.open(1);
    hub.only_answer(1, text)
}

#[test]
fn a_session_spans_connections_and_ends_when_terminated() {
    let mut hub = TestPlayer::new("qi", &["execute_needs_session=true", "max_sessions=1"]);
    hub.open(1);
    hub.open(2);
    let mut run = |conn, command: &str, session: &str| {
        hub.only_answer(conn, &json!({"session_id":session,"command":command,"version":"0.1.0"}).to_string())
    };
    assert_eq!(run(1, "execute", "s")["status"], "failure");
    assert_eq!(run(1, "initialize", "s")["status"], "success");
    assert_eq!(run(1, "initialize", "s")["status"], "failure");
    assert_eq!(run(2, "initialize", "t")["status"], "failure");
    assert_eq!(run(1, "execute", "s")["payload"], json!({"executions":1}));
    assert_eq!(run(2, "execute", "s")["payload"], json!({"executions":2}));
    assert_eq!(run(2, "terminate", "s")["status"], "success");
    assert_eq!(run(2, "terminate", "s")["status"], "failure");
    assert_eq!(run(1, "execute", "s")["status"], "failure");
}

#[test]
fn settings_can_give_commands_fixed_answers() {
    let sets = ["commands.answer.returns={ n = 42 }", "commands.ping.fails=not today", "version=\"1.2.0\""];
    assert_eq!(reply_to(&sets, r#"{"command":"answer","version":"1.9.0"}"#)["payload"], json!({"n":42}));
    assert_eq!(reply_to(&sets, r#"{"command":"ping","version":"1.2.0"}"#)["payload"], "not today");
    assert_eq!(reply_to(&sets, r#"{"command":"fail","version":"1.2.0"}"#)["version"], "1.2.0");
}

#[test]
fn a_command_is_answered_as_it_was_defined_last() {
    let mut hub = TestPlayer::new("qi", &[]);
    hub.open(1);
    let mut reply = |event: Value| {
        hub.event(&event).unwrap();
        hub.only_answer(1, r#"{"command":"mine","payload":{"any":1},"version":"0.1.0"}"#)
    };
    let first = reply(json!({"define":{"command":"mine","values":{"n":1}}}));
    assert_eq!((&first["status"], &first["payload"]), (&json!("success"), &json!({"n":1})));
    assert_eq!(reply(json!({"define":{"command":"mine","values":{"n":2},"failure":null}}))["payload"], json!({"n":2}));
    assert_eq!(reply(json!({"define":{"command":"mine","failure":"as asked"}}))["payload"], "as asked");
}

#[rstest]
#[case(json!({}), "expected")]
#[case(json!({ "hold": {} }), "missing field `command`")]
#[case(json!({ "hold": { "command": "dance" } }), "no command \"dance\"")]
#[case(json!({ "define": { "command": "echo" } }), "cannot be defined again")]
#[case(json!({ "publish": { "command": "news", "payload": 1 } }), "expected a map")]
#[case(json!({ "dance": { "command": "echo" } }), "unknown variant")]
fn the_error_for_a_wrong_admin_event_says_what_is_wrong(#[case] event: Value, #[case] why: &str) {
    let error = TestPlayer::new("qi", &[]).event(&event).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

proptest! {
    /// Every text has exactly one reply of the documented form.
    #[test]
    fn every_received_text_gets_exactly_one_reply(texts in prop::collection::vec(prop_oneof![
        ".{0,40}",
        prop::sample::select(vec!["initialize", "execute", "terminate", "get_static", "echo", "x"])
            .prop_map(|command| json!({"session_id":"s","command":command,"payload":{"a":1},"version":"0.1.0"}).to_string()),
    ], 1..20)) {
        let mut hub = TestPlayer::new("qi", &[]);
        hub.open(1);
        for text in texts {
            let reply = hub.only_answer(1, &text);
            prop_assert!(reply["status"] == "success" || reply["payload"].is_string(), "{}", reply);
            prop_assert_eq!(&reply["version"], "0.1.0");
        }
    }
}
