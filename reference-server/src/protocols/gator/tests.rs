//! Gator as documented, conversation by conversation; numbers in brackets are lines of the document.

use std::time::Duration;

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use crate::machine::test_player::TestPlayer;
use crate::machine::{ConnectionId, FIRST_OUTGOING, Handshake, MachineInput};

/// The hub's start in Unix seconds, as [`TestPlayer`] sets it.
const START: u64 = 1_705_314_600;

fn hub(sets: &[&str]) -> TestPlayer {
    TestPlayer::new("gator", sets, None)
}

fn open(hub: &mut TestPlayer, conn: ConnectionId, path: &str) -> Vec<String> {
    hub.input(MachineInput::Open { conn, handshake: Handshake { path: path.to_owned(), ..Handshake::default() } });
    hub.received(conn)
}

fn child(hub: &mut TestPlayer, conn: ConnectionId, name: &str) {
    let place = hub.event(&json!({ "register_child": { "name": name } })).unwrap();
    assert_eq!(open(hub, conn, place["path"].as_str().unwrap()), ["accept "]);
}

/// Connects the hub to its parent with this number.
fn parent(hub: &mut TestPlayer, number: u64) -> ConnectionId {
    let conn = FIRST_OUTGOING + number;
    hub.event(&json!({ "connect_up": { "url": "ws://parent" } })).unwrap();
    assert_eq!(hub.received(conn), ["connect ws://parent"]);
    hub.input(MachineInput::Connected { conn });
    conn
}

fn entries(hub: &mut TestPlayer, message: &str) -> Value {
    hub.event(&json!({ "log_entries": { "message": message } })).unwrap()
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

/// [33 to 35] Posted requests have no answer unless they are undecodable.
#[rstest]
#[case(r#"{"action":"log","req_id":1,"posted":true,"payload":{"message":"m"}}"#, None)]
#[case(r#"{"action":"log","req_id":1,"posted":true,"payload":{}}"#, None)]
#[case(r#"{"action":"dance","req_id":1,"posted":true}"#, None)]
#[case(r#"{"action":"stop","req_id":1,"posted":true}"#, None)]
#[case(r#"{"action":"log","posted":true,"payload":{"mess"#, Some(json!(null)))]
#[case("[]", Some(json!(null)))]
#[case(r#"{"req_id":1,"posted":true}"#, Some(json!(1)))]
#[case(r#"{"action":7,"req_id":1,"posted":true}"#, Some(json!(1)))]
#[case(r#"{"action":"log","req_id":1,"posted":"true"}"#, Some(json!(1)))]
#[case(r#"{"action":"log","req_id":1,"posted":true,"payload":"m"}"#, Some(json!(1)))]
#[case(r#"{"action":"log","result":"success","rsp_id":1,"payload":{}}"#, None)]
#[case(r#"{"result":"error","rsp_id":1}"#, None)]
fn posted_requests_are_not_answered(#[case] text: &str, #[case] failure: Option<Value>) {
    let mut hub = hub(&[]);
    open(&mut hub, 1, "/");
    let received = hub.send_and_receive_json(1, text);
    match failure {
        None => assert_eq!(received, [Value::Null; 0]),
        Some(id) => {
            assert_eq!((received.len(), &received[0]["result"]), (1, &json!("error")));
            assert_eq!(received[0].get("rsp_id").unwrap_or(&Value::Null), &id);
            assert!(received[0]["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
        }
    }
    let after = hub.only_answer(1, r#"{"action":"log","req_id":2,"payload":{"message":"m"}}"#);
    assert_eq!(after, json!({ "action": "log", "rsp_id": 2, "result": "success", "payload": {} }));
}

/// [71 to 96]
#[rstest]
#[case(json!({ "timestamp": 1684696137, "severity": "WARNING", "message": "m" }), Some((json!(1684696137), "WARNING")))]
#[case(json!({ "timestamp": 0.5, "severity": "DEBUG", "message": "m" }), Some((json!(0.5), "DEBUG")))]
#[case(json!({ "severity": "ERROR", "message": "m" }), Some((json!(START + 1), "ERROR")))]
#[case(json!({ "timestamp": null, "severity": null, "message": "m", "more": 1 }), Some((json!(START + 1), "INFO")))]
#[case(json!({ "severity": "CRITICAL", "message": "" }), Some((json!(START + 1), "CRITICAL")))]
#[case(json!({ "severity": "critical", "message": "m" }), None)]
#[case(json!({ "severity": "FATAL", "message": "m" }), None)]
#[case(json!({ "severity": 7, "message": "m" }), None)]
#[case(json!({ "timestamp": "now", "message": "m" }), None)]
#[case(json!({ "message": 7 }), None)]
#[case(json!({}), None)]
#[case(Value::Null, None)]
fn log_entries_are_stored_with_the_default_values(#[case] payload: Value, #[case] want: Option<(Value, &str)>) {
    let mut hub = hub(&[]);
    open(&mut hub, 1, "/");
    hub.advance(Duration::from_millis(1700));
    let answer = hub.only_answer(1, &json!({ "action": "log", "req_id": 1, "payload": payload }).to_string());
    assert_eq!(answer["result"], if want.is_some() { "success" } else { "error" });
    let entries = hub.event(&json!({ "log_entries": {} })).unwrap();
    let want =
        want.map(|(time, severity)| json!({ "timestamp": time, "severity": severity, "message": payload["message"] }));
    assert_eq!(entries, json!(want.into_iter().collect::<Vec<_>>()));
}

/// [74] Logs of tasks and children go to all parents with their defaults filled in, but not back to their sender.
#[test]
fn log_entries_are_sent_to_the_parents() {
    let mut hub = hub(&[]);
    open(&mut hub, 1, "/");
    child(&mut hub, 2, "c");
    let (a, b) = (parent(&mut hub, 0), parent(&mut hub, 1));
    let up = |id: u64, time: u64, severity: &str, message: &str| json!({ "action": "log", "req_id": id, "posted": true, "payload": { "timestamp": time, "severity": severity, "message": message } });
    hub.send(1, r#"{"action":"log","posted":true,"payload":{"timestamp":5,"severity":"ERROR","message":"x"}}"#);
    hub.send(2, r#"{"action":"log","posted":true,"payload":{"message":"y"}}"#);
    for parent in [a, b] {
        assert_eq!(hub.received_json(parent), [up(1, 5, "ERROR", "x"), up(2, START, "INFO", "y")]);
    }
    let answer = hub.only_answer(a, r#"{"action":"log","req_id":9,"payload":{"timestamp":6,"message":"z"}}"#);
    assert_eq!(answer["rsp_id"], 9);
    assert_eq!(hub.received_json(b), [up(3, 6, "INFO", "z")]);
    hub.input(MachineInput::Closed { conn: a });
    hub.send(1, r#"{"action":"log","payload":{"message":"z"}}"#);
    assert_eq!((hub.received(a).len(), hub.received(b).len()), (0, 1));
    assert_eq!(entries(&mut hub, "z").as_array().unwrap().len(), 2);
    assert_eq!(hub.state()["parents"], json!([{ "url": "ws://parent", "there": true }]));
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
    assert_eq!(hub.sent.iter().filter(|line| line.contains("ws://other")).count(), 1);
}

/// [103 to 120] A stop, of a task or of a parent, is sent to every child before it is answered.
#[rstest]
#[case(r#""payload":{}"#)]
#[case(r#""posted":false"#)]
#[case(r#""payload":null"#)]
fn a_stop_is_sent_to_every_child_before_it_is_answered(#[case] member: &str) {
    let mut hub = hub(&[]);
    open(&mut hub, 1, "/");
    child(&mut hub, 2, "a");
    child(&mut hub, 3, "b");
    hub.event(&json!({ "register_child": { "name": "never comes" .replace(' ', "-") } })).unwrap();
    let above = parent(&mut hub, 0);
    for (conn, id) in [(1, 1), (above, 3)] {
        let before = hub.sent.len();
        hub.send(conn, &format!(r#"{{"action":"stop","req_id":7,{member}}}"#));
        let receivers: Vec<&str> = hub.sent[before..].iter().map(|line| line.split(' ').nth(1).unwrap()).collect();
        assert_eq!(receivers, ["2", "3", &conn.to_string()]);
        for (child, id) in [(2, id), (3, id + 1)] {
            assert_eq!(
                hub.received_json(child),
                [json!({ "action": "stop", "req_id": id, "posted": false, "payload": {} })]
            );
        }
        assert_eq!(
            hub.received_json(conn),
            [json!({ "action": "stop", "rsp_id": 7, "result": "success", "payload": {} })]
        );
    }
    hub.send(2, r#"{"action":"stop","rsp_id":1,"result":"success","payload":{}}"#);
    assert_eq!(hub.received(2), [""; 0], "a response is not answered");
    hub.send(1, r#"{"action":"stop","posted":true}"#);
    assert_eq!((hub.received(1).len(), hub.received(2).len(), hub.received(3).len()), (0, 1, 1));
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

/// One long conversation in which every fault shows.
pub fn conversation(fault: Option<&str>) -> Vec<String> {
    let mut hub = TestPlayer::new("gator", &[], fault);
    let log = |payload: Value| json!({ "action": "log", "req_id": 5, "payload": payload });
    open(&mut hub, 1, "/");
    open(&mut hub, 4, "/");
    child(&mut hub, 2, "a");
    child(&mut hub, 3, "b");
    hub.event(&json!({ "connect_up": { "url": "ws://parent" } })).unwrap();
    hub.input(MachineInput::Connected { conn: FIRST_OUTGOING });
    hub.event(&json!({ "start_job": { "name": "j", "tasks": 3 } })).unwrap();
    let mut texts = vec![
        log(json!({ "timestamp": 5, "severity": "DEBUG", "message": "dated" })),
        log(json!({ "severity": "CRITICAL", "message": "critical" })),
        log(json!({ "message": "bare" })),
        log(json!({ "timestamp": 7, "message": "undated" })),
        log(json!({ "severity": "ERROR" })),
        log(json!({ "severity": "FATAL", "message": "fatal" })),
        json!({ "action": "dance", "req_id": 6 }),
        json!({ "action": "dance", "req_id": 6, "posted": true }),
        json!({ "action": "log", "posted": true, "req_id": 9, "payload": { "message": "posted" } }),
        json!({ "action": "log", "payload": { "message": "no id" } }),
        json!({ "action": "stop", "posted": true }),
        json!({ "action": "stop", "req_id": 8, "payload": {} }),
        json!({ "action": "stop", "req_id": 8 }),
        json!([]),
        log(json!({ "message": "still there" })),
    ];
    for id in [json!(0), json!("text"), json!(9_007_199_254_740_993_u64)] {
        texts.push(json!({ "action": "log", "req_id": id, "payload": { "message": "id" } }));
    }
    for text in &texts {
        hub.send(1, &text.to_string());
        // One after another, so that delayed answers show.
        hub.advance(Duration::from_millis(50));
    }
    for _ in 0..2 {
        hub.send(4, &log(json!({ "message": "at once" })).to_string());
    }
    hub.send(2, &log(json!({ "message": "from below" })).to_string());
    let mut answers = Vec::new();
    for event in [json!({ "log_entries": {} }), json!({ "job": { "name": "j" } })] {
        answers.push(hub.event(&event).unwrap().to_string());
    }
    hub.input(MachineInput::Closed { conn: 2 });
    hub.input(MachineInput::Closed { conn: 3 });
    hub.advance(Duration::from_secs(2));
    [answers, hub.sent].concat()
}
