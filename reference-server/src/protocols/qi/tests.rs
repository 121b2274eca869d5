//! The 2200/2300 hub as documented.

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use crate::machine::MachineInput;
use crate::machine::test_player::TestPlayer;

fn reply_to(sets: &[&str], text: &str) -> Value {
    let mut hub = TestPlayer::new("qi", sets, None);
    hub.open(1);
    hub.only_answer(1, text)
}

/// The documented requests, unchanged.
#[rstest]
#[case(r#"{"command":"execute","payload":{},"version":"0.1.0"}"#, json!({"status":"success","payload":{},"version":"0.1.0"}))]
#[case(
    r#"{"session_id":"eb4fdc2c-755b-47d8-af76-bbca2dce554d","command":"execute","payload":{},"version":"0.1.0"}"#,
    json!({"session_id":"eb4fdc2c-755b-47d8-af76-bbca2dce554d","status":"success","payload":{},"version":"0.1.0"})
)]
fn documented_requests_get_documented_replies(#[case] request: &str, #[case] want: Value) {
    assert_eq!(reply_to(&[], request), want);
}

#[rstest]
#[case(json!({"command":"ping","version":"0.1.0"}), json!({"status":"success","version":"0.1.0"}))]
#[case(json!({"command":"ping","payload":{},"version":"0.1.5"}), json!({"status":"success","version":"0.1.0"}))]
#[case(json!({"command":"echo","payload":{"a":[1]},"version":"0.1.0"}), json!({"status":"success","payload":{"a":[1]},"version":"0.1.0"}))]
#[case(json!({"command":"echo","payload":{},"version":"0.1.0"}), "needs arguments".into())]
#[case(json!({"command":"fail","version":"0.1.0"}), "always fails".into())]
#[case(json!({"command":"no_such_command","version":"0.1.0"}), "no command".into())]
#[case(json!({"command":"terminate","version":"0.1.0"}), "needs the session_id".into())]
#[case(json!({"command":"ping","payload":[],"version":"0.1.0"}), "payload".into())]
#[case(json!({"command":"ping","payload":null,"version":"0.1.0"}), "payload".into())]
#[case(json!({"command":7,"version":"0.1.0"}), "command".into())]
#[case(json!({"version":"0.1.0"}), "command".into())]
#[case(json!({"command":"ping"}), "version".into())]
#[case(json!({"command":"ping","version":"1"}), "semantic version".into())]
#[case(json!({"command":"ping","version":"0.2.0"}), "not compatible".into())]
#[case(json!({"command":"ping","version":"999.0.0"}), "not compatible".into())]
#[case(json!({"command":"ping","version":"0.1.0","session_id":7}), "session_id".into())]
#[case(json!({"command":"ping","version":"0.1.0","session_id":null}), json!({"status":"success","version":"0.1.0"}))]
#[case(json!([]), "JSON object".into())]
fn valid_requests_succeed_and_invalid_ones_fail_with_a_reason(#[case] request: Value, #[case] want: Value) {
    let got = reply_to(&[], &request.to_string());
    match want {
        Value::String(why) => {
            assert_eq!((&got["status"], &got["version"]), (&json!("failure"), &json!("0.1.0")));
            assert!(got["payload"].as_str().unwrap().contains(&why), "{got}");
            assert!(got.get("session_id").is_none());
        }
        want => assert_eq!(got, want),
    }
}

/// Line 61: any string is copied.
#[rstest]
#[case("x")]
#[case("")]
#[case("größe ☃ \"quoted\" \u{1}")]
#[case(&"s".repeat(10_000))]
fn a_reply_repeats_the_session_id_of_its_request(
    #[case] session: &str,
    #[values("ping", "fail", "nope")] command: &str,
) {
    let got = reply_to(&[], &json!({"session_id":session,"command":command,"version":"0.1.0"}).to_string());
    assert_eq!(got["session_id"], session);
    assert_eq!(got["status"], if command == "ping" { "success" } else { "failure" });
}

#[test]
fn a_session_spans_connections_and_ends_when_terminated() {
    let mut hub = TestPlayer::new("qi", &["execute_needs_session=true", "max_sessions=1"], None);
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
fn requests_for_a_held_command_are_answered_when_it_is_released() {
    let mut hub = TestPlayer::new("qi", &[], None);
    hub.open(1);
    hub.open(2);
    let request = |command: &str, session: &str| {
        json!({"session_id":session,"command":command,"payload":{"of":session},"version":"0.1.0"}).to_string()
    };
    hub.event(&json!({"hold":{"command":"echo"}})).unwrap();
    assert!(hub.send_and_receive(1, &request("echo", "a")).is_empty());
    assert!(hub.send_and_receive(2, &request("echo", "b")).is_empty());
    assert!(hub.send_and_receive(1, &request("echo", "c")).is_empty());
    assert_eq!(hub.only_answer(1, &request("ping", "d"))["session_id"], "d");
    hub.input(MachineInput::Closed { conn: 2 });
    assert_eq!(hub.event(&json!({"release":{"command":"echo"}})), Ok(json!({"released":2})));
    let replies = hub.received_json(1);
    let sessions: Vec<_> = replies.iter().map(|reply| (&reply["session_id"], &reply["payload"]["of"])).collect();
    assert_eq!(sessions, [(&json!("a"), &json!("a")), (&json!("c"), &json!("c"))]);
    assert!(hub.received(2).is_empty());
    assert_eq!(hub.only_answer(1, &request("echo", "e"))["session_id"], "e");
}

#[test]
fn a_published_message_goes_to_all_clients_without_a_session() {
    let mut hub = TestPlayer::new("qi", &[], None);
    hub.open(1);
    hub.open(2);
    let event = json!({"publish":{"command":"news","payload":{"at":1}}});
    assert_eq!(hub.event(&event), Ok(json!({"published":2})));
    let expected = [json!({"command":"news","payload":{"at":1},"version":"0.1.0"})];
    assert_eq!((hub.received_json(1), hub.received_json(2)), (expected.to_vec(), expected.to_vec()));
    hub.event(&json!({"publish":{"command":"news"}})).unwrap();
    assert_eq!(hub.received_json(1), [json!({"command":"news","version":"0.1.0"})]);
}

#[test]
fn a_command_is_answered_as_it_was_defined_last() {
    let mut hub = TestPlayer::new("qi", &[], None);
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
    let error = TestPlayer::new("qi", &[], None).event(&event).unwrap_err().to_string();
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
        let mut hub = TestPlayer::new("qi", &[], None);
        hub.open(1);
        for text in texts {
            let reply = hub.only_answer(1, &text);
            prop_assert!(reply["status"] == "success" || reply["payload"].is_string(), "{}", reply);
            prop_assert_eq!(&reply["version"], "0.1.0");
        }
    }
}
