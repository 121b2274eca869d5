//! What the scenarios of `gator` do not prove: limits, settings, admin events and random input. Numbers in brackets are
//! lines of the document.

use std::time::Duration;

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use crate::machine::test_player::TestPlayer;
use crate::machine::{ConnectionId, FIRST_OUTGOING, Handshake, MachineInput};

fn hub(sets: &[&str]) -> TestPlayer {
    TestPlayer::new("gator", sets)
}

fn open(hub: &mut TestPlayer, conn: ConnectionId, path: &str) -> Vec<String> {
    hub.input(MachineInput::Open { conn, handshake: Handshake { path: path.to_owned(), ..Handshake::default() } });
    hub.received(conn)
}

fn child(hub: &mut TestPlayer, conn: ConnectionId, name: &str) {
    let place = hub.event(&json!({ "register_child": { "name": name } })).unwrap();
    assert_eq!(open(hub, conn, place["path"].as_str().unwrap()), ["accept "]);
}

/// [20 to 64] Ids are copied as they were written, whatever their type.
#[rstest]
#[case(Some("0"))]
#[case(Some("23"))]
#[case(Some("9007199254740993"))]
#[case(Some("1.50"))]
#[case(Some("1e400"))]
#[case(Some(r#""id-7""#))]
#[case(Some(r#"{ "a" : [1] }"#))]
#[case(Some("null"))]
#[case(None)]
fn an_answer_repeats_the_id_of_its_request_as_written(#[case] id: Option<&str>) {
    let mut hub = hub(&[]);
    open(&mut hub, 1, "/");
    let member = |name: &str| id.map(|id| format!(r#""{name}":{id},"#)).unwrap_or_default();
    let ask = |action: &str| format!(r#"{{{}"action":"{action}","payload":{{"message":"m"}}}}"#, member("req_id"));
    let success = format!(r#"{{"action":"log",{}"result":"success","payload":{{}}}}"#, member("rsp_id"));
    assert_eq!(hub.send_and_receive(1, &ask("log")), [success]);
    let failure = format!(r#"{{"result":"error",{}"reason":"#, member("rsp_id"));
    assert!(hub.send_and_receive(1, &ask("dance"))[0].starts_with(&failure));
}

#[test]
fn log_entries_wait_for_a_parent_that_is_not_connected_yet() {
    let mut hub = hub(&[]);
    open(&mut hub, 1, "/");
    hub.event(&json!({ "connect_up": { "url": "ws://parent" } })).unwrap();
    hub.received(FIRST_OUTGOING);
    for number in 0..1100 {
        hub.send(
            1,
            &json!({ "action": "log", "posted": true, "payload": { "message": number.to_string() } }).to_string(),
        );
    }
    assert_eq!(hub.received(FIRST_OUTGOING), [""; 0]);
    hub.input(MachineInput::Connected { conn: FIRST_OUTGOING });
    let received = hub.received_json(FIRST_OUTGOING);
    assert_eq!((received.len(), &received[0]["payload"]["message"]), (1000, &json!("100")));
}

#[test]
fn the_hub_reconnects_only_to_its_configured_parent() {
    let mut hub = hub(&["parent=ws://above", "reconnect_ms=500"]);
    hub.advance(Duration::ZERO);
    assert_eq!(hub.received(FIRST_OUTGOING), ["connect ws://above"]);
    hub.input(MachineInput::ConnectFailed { conn: FIRST_OUTGOING, reason: "refused".to_owned() });
    hub.advance(Duration::from_millis(499));
    assert_eq!(hub.received(FIRST_OUTGOING + 1), [""; 0]);
    hub.advance(Duration::from_millis(1));
    assert_eq!(hub.received(FIRST_OUTGOING + 1), ["connect ws://above"]);
    hub.input(MachineInput::Connected { conn: FIRST_OUTGOING + 1 });
    hub.input(MachineInput::Closed { conn: FIRST_OUTGOING + 1 });
    hub.advance(Duration::from_millis(500));
    assert_eq!(hub.received(FIRST_OUTGOING + 2), ["connect ws://above"]);
    hub.event(&json!({ "connect_up": { "url": "ws://other" } })).unwrap();
    assert_eq!(hub.received(FIRST_OUTGOING + 3), ["connect ws://other"]);
    hub.input(MachineInput::ConnectFailed { conn: FIRST_OUTGOING + 3, reason: "refused".to_owned() });
    hub.advance(Duration::from_secs(60));
    assert_eq!(hub.received(FIRST_OUTGOING + 4), [""; 0]);
}

#[test]
fn only_registered_children_may_connect_and_only_once() {
    let mut hub = hub(&["max_children=2"]);
    assert_eq!(open(&mut hub, 1, "/child/a"), ["refuse 404"]);
    child(&mut hub, 2, "a");
    assert_eq!(open(&mut hub, 3, "/child/a"), ["refuse 409"]);
    hub.event(&json!({ "register_child": { "name": "b" } })).unwrap();
    hub.event(&json!({ "register_child": { "name": "b" } })).unwrap();
    assert!(hub.event(&json!({ "register_child": { "name": "c" } })).is_err());
    hub.input(MachineInput::Closed { conn: 2 });
    assert_eq!(hub.state()["children"], json!({ "b": false }));
    assert_eq!(open(&mut hub, 4, "/child/a"), ["refuse 404"]);
    child(&mut hub, 5, "c");
}

#[test]
fn a_stop_ends_jobs() {
    let mut hub = hub(&[]);
    open(&mut hub, 1, "/");
    let job = |hub: &mut TestPlayer, event: Value| hub.event(&event).unwrap()["tasks"].clone();
    let start = json!({ "start_job": { "name": "j", "tasks": 3 } });
    assert_eq!(job(&mut hub, start.clone()), json!(["running", "queued", "queued"]));
    let finish = json!({ "finish_task": { "job": "j", "task": 0 } });
    assert_eq!(job(&mut hub, finish), json!(["finished", "running", "queued"]));
    hub.send(1, r#"{"action":"stop","posted":true}"#);
    assert_eq!(job(&mut hub, json!({ "job": { "name": "j" } })), json!(["finished", "stopped", "cancelled"]));
    assert!(hub.event(&start).is_err());
}

#[rstest]
#[case(json!(7), "one member")]
#[case(json!({}), "one member")]
#[case(json!({ "job": {}, "start_job": {} }), "one member")]
#[case(json!({ "dance": {} }), "register_child")]
#[case(json!({ "register_child": {} }), "missing field `name`")]
#[case(json!({ "register_child": { "name": "a/b" } }), "letters")]
#[case(json!({ "connect_up": { "url": "http://x" } }), "ws://")]
#[case(json!({ "log_entries": { "text": "x" } }), "unknown field `text`")]
#[case(json!({ "job": { "name": "x" } }), "no job \"x\"")]
#[case(json!({ "start_job": { "name": "x", "tasks": 1, "concurrency": 0 } }), "concurrency")]
#[case(json!({ "finish_task": { "job": "x", "task": 0 } }), "no job \"x\"")]
fn the_error_for_a_wrong_admin_event_says_what_is_wrong(#[case] event: Value, #[case] why: &str) {
    let error = hub(&[]).event(&event).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

proptest! {
    /// Any text has at most one answer, sent to its sender with its id; posted requests that can be decoded have none.
    #[test]
    fn any_received_text_gets_at_most_one_answer(
        texts in prop::collection::vec(prop_oneof![
            ".*".prop_map(|text| (text, None)),
            (0u64..9, "(log|stop|x)", any::<Option<bool>>(), any::<bool>()).prop_map(|(id, action, posted, full)| {
                let payload = if full { json!({ "message": action }) } else { json!({}) };
                let text = json!({ "action": action, "req_id": id, "posted": posted, "payload": payload }).to_string();
                (text, Some((id, posted == Some(true), full && action == "log" || action == "stop")))
            }),
        ], 0..30),
    ) {
        let mut hub = hub(&[]);
        open(&mut hub, 1, "/");
        child(&mut hub, 2, "c");
        for (text, known) in texts {
            let received = hub.send_and_receive_json(1, &text);
            prop_assert!(received.len() <= 1);
            if let Some((id, posted, good)) = known {
                prop_assert_eq!(received.is_empty(), posted);
                for answer in &received {
                    prop_assert_eq!(&answer["rsp_id"], &json!(id));
                    prop_assert_eq!(&answer["result"], if good { "success" } else { "error" });
                }
            }
            for stop in hub.received_json(2) {
                prop_assert_eq!(&stop["action"], "stop");
            }
        }
    }
}
