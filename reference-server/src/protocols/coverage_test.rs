//! Every fault that is not `occasional` shows: in one long conversation per protocol, a hub with the fault sends other
//! outputs than a correct one. Occasional faults need particular conversations, which the harness's scenarios have. A
//! machine with a fault must not panic either.

use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};

use crate::machine::test_player::TestPlayer;
use crate::machine::{Handshake, MachineInput};

/// Returns everything that a hub sends in the protocol's conversation.
fn conversation(protocol: &str, fault: Option<&str>) -> Vec<String> {
    match protocol {
        "qi" => qi(fault),
        "concierge" => [concierge(fault), secret(fault)].concat(),
        "airavata" => crate::protocols::airavata::tests::conversation(fault),
        "gator" => crate::protocols::gator::tests::conversation(fault),
        "emprops" => crate::protocols::emprops::test_conversation::play_conversation(fault),
        "websocket" => crate::protocols::websocket::tests::conversation(fault),
        other => panic!("the conversation of {other} is not written"),
    }
}

fn qi(fault: Option<&str>) -> Vec<String> {
    let mut hub = TestPlayer::new("qi", &[], fault);
    hub.open(2);
    hub.open(1);
    let sessions = [None, Some(""), Some("größe"), Some("s"), Some("a string longer than the 36 characters of a UUID")];
    for session in sessions {
        for (command, payload, version) in [
            ("initialize", Some(json!({})), "0.1.0"),
            ("execute", Some(json!({})), "0.1.0"),
            ("ping", None, "0.1.0"),
            ("ping", None, "0.1.9"),
            ("ping", None, "0.2.0"),
            ("echo", Some(json!({ "a": 1 })), "0.1.0"),
            ("get_static", Some(json!([])), "0.1.0"),
            ("fail", None, "0.1.0"),
            ("unheard_of", None, "0.1.0"),
        ] {
            let mut request = json!({ "command": command, "version": version });
            for (name, value) in [("session_id", session.map(Value::from)), ("payload", payload)] {
                if let Some(value) = value {
                    request[name] = value;
                }
            }
            hub.send(1, &request.to_string());
        }
    }
    hub.send(1, r#"{"version":"0.1.0"}"#);
    hub.send(1, r#"{"command":"ping"}"#);
    hub.send(1, "{");
    hub.send(1, r#"{"command":"ping","version":"0.1.0"}"#);
    hub.sent
}

fn secret(fault: Option<&str>) -> Vec<String> {
    let mut hub = TestPlayer::new("concierge", &["secret=right"], fault);
    for (conn, secret) in [(1, json!("right")), (2, json!("wrong")), (3, Value::Null)] {
        hub.open(conn);
        let name = format!("n{conn}");
        hub.send(conn, &json!({ "type": "IDENTIFY", "name": name, "version": "0.1.0", "secret": secret }).to_string());
    }
    hub.sent
}

fn concierge(fault: Option<&str>) -> Vec<String> {
    let mut hub = TestPlayer::new("concierge", &[], fault);
    let subprotocols = vec!["ert-concierge".to_owned()];
    hub.input(MachineInput::Open { conn: 1, handshake: Handshake { subprotocols, ..Handshake::default() } });
    let identify = |name: &str, version: &str| {
        json!({ "type": "IDENTIFY", "name": name, "version": version, "tags": [name] }).to_string()
    };
    hub.send(1, &identify("a", "0.1.0"));
    hub.advance(Duration::from_millis(10));
    for (conn, first) in [
        (2, identify("b", "0.1.0")),
        (3, identify("c", "0.1.0")),
        (11, r#"{"type":"GROUP_FETCH_ALL"}"#.to_owned()),
        (12, "{".to_owned()),
        (13, r#"{"type":"IDENTIFY"}"#.to_owned()),
        (14, identify("x", "9.0.0")),
        (15, identify("x", "0.9.0")),
        (16, identify("x", "abc")),
        (17, r#"{"type":"SELF_FETCH"}"#.to_owned()),
    ] {
        hub.open(conn);
        hub.send(conn, &first);
    }
    hub.open(19);
    hub.input(MachineInput::Open { conn: 21, handshake: Default::default() });
    hub.open(22);
    hub.send(22, &json!({ "type": "IDENTIFY", "name": "s", "version": "0.1.0", "secret": "needless" }).to_string());
    let message = |target: Value, data: Value| json!({ "type": "MESSAGE", "target": target, "data": data }).to_string();
    hub.input(MachineInput::Binary { conn: 1, data: vec![1] });
    hub.input(MachineInput::Ping { conn: 2 });
    let uuid = hub.state()["clients"]
        .as_array()
        .unwrap()
        .iter()
        .find(|client| client["name"] == "b")
        .map(|b| b["uuid"].clone());
    let group = |kind: &str, name: &str| json!({ "type": kind, "name": name }).to_string();
    let script = [
        (22, group("SELF_FETCH", "")),
        (1, json!({ "type": "GROUP_CREATE", "name": "g", "nickname": "G" }).to_string()),
        (2, group("GROUP_CREATE", "g")),
        (2, group("SELF_UNSUBSCRIBE", "g")),
        (2, group("SELF_SUBSCRIBE", "g")),
        (3, group("SELF_SUBSCRIBE", "g")),
        (1, message(json!({ "type": "GROUP", "group": "g" }), json!(9_007_199_254_740_993_u64))),
        (2, message(json!({ "type": "GROUP", "group": "g" }), json!("own copy"))),
        (3, group("SELF_UNSUBSCRIBE", "g")),
        (1, message(json!({ "type": "GROUP", "group": "g" }), Value::Null)),
        (1, message(json!({ "type": "NAME", "name": "b", "tags": [] }), json!("x"))),
        (1, message(json!({ "type": "UUID", "uuid": uuid }), json!("x"))),
        (1, message(json!({ "type": "ALL" }), json!("x"))),
        (1, message(json!({ "type": "NAME", "name": "z" }), json!("x"))),
        (1, message(json!({ "type": "UUID", "uuid": "z" }), json!("x"))),
        (1, message(json!({ "type": "GROUP", "group": "z" }), json!("x"))),
        (1, message(json!({ "type": "PLANET" }), json!("x"))),
        (
            1,
            json!({ "type": "MESSAGE", "origin": { "name": "z" }, "target": { "type": "ALL" }, "data": 0 }).to_string(),
        ),
        (3, group("SELF_SUBSCRIBE", "z")),
        (3, group("SELF_UNSUBSCRIBE", "z2")),
        (3, group("GROUP_DELETE", "z2")),
        (3, group("GROUP_FETCH", "z2")),
        (3, group("GROUP_DELETE", "g")),
        (3, group("GROUP_FETCH", "g")),
        (3, group("GROUP_FETCH_ALL", "")),
        (3, group("CLIENT_FETCH_ALL", "")),
        (2, group("SELF_FETCH", "")),
        (2, identify("q", "0.1.0")),
        (2, group("SELF_FETCH", "")),
        (2, "{".to_owned()),
        (2, group("NOPE", "")),
        (2, json!({ "type": "MESSAGE", "target": { "type": "ALL" } }).to_string()),
        (2, message(json!({ "type": "NAME", "name": "b" }), json!("to itself"))),
        (2, group("SELF_FETCH", "")),
        (2, group("SELF_FETCH", "")),
        (2, group("SELF_FETCH", "")),
        (2, group("HELLO", "")),
        (2, group("STATUS", "")),
        (2, group("SELF_FETCH", "")),
        (1, group("SELF_SUBSCRIBE", "g")),
        (1, group("GROUP_DELETE", "g")),
        (1, message(json!({ "type": "GROUP", "group": "g" }), json!("x"))),
        (1, group("GROUP_CREATE", "g")),
        (1, message(json!({ "type": "GROUP", "group": "g" }), json!("no receiver"))),
        (1, group("SELF_SUBSCRIBE", "g")),
        (2, group("SELF_SUBSCRIBE", "g")),
        (3, group("SELF_SUBSCRIBE", "g")),
        (1, group("SELF_UNSUBSCRIBE", "g")),
        (1, group("GROUP_FETCH", "g")),
        (2, group("GROUP_CREATE", "h")),
        (2, group("GROUP_DELETE", "h")),
        (1, group("GROUP_CREATE", "h")),
    ];
    for (conn, text) in &script {
        hub.send(*conn, text);
    }
    for number in 0..12 {
        hub.send(1, &message(json!({ "type": "NAME", "name": "c" }), json!(number)));
    }
    hub.open(18);
    hub.send(18, &identify("a", "0.1.0"));
    hub.input(MachineInput::Closed { conn: 3 });
    hub.send(2, r#"{"type":"CLIENT_FETCH_ALL"}"#);
    hub.send(2, r#"{"type":"GROUP_FETCH","name":"g"}"#);
    hub.open(20);
    hub.send(20, &identify("c", "0.1.0"));
    hub.input(MachineInput::Closed { conn: 1 });
    hub.send(2, r#"{"type":"GROUP_FETCH_ALL"}"#);
    hub.advance(Duration::from_secs(30));
    hub.send(2, r#"{"type":"SELF_FETCH"}"#);
    hub.sent
}

#[test]
fn every_fault_changes_what_the_hub_sends() {
    let mut correct = Vec::new();
    for protocol in super::protocols().iter().filter(|name| super::faults().any(|fault| fault.protocol == **name)) {
        correct.push((*protocol, conversation(protocol, None)));
        assert_eq!(correct.last().unwrap().1, conversation(protocol, None), "{protocol} is deterministic");
    }
    let hidden: Vec<&str> = super::faults()
        .filter(|fault| !fault.is_for_fuzzing() && !fault.occasional)
        .filter(|fault| {
            let (_, sent) = correct.iter().find(|(protocol, _)| *protocol == fault.protocol).unwrap();
            conversation(fault.protocol, Some(fault.id)) == *sent
        })
        .map(|fault| fault.id)
        .collect();
    assert_eq!(hidden, [""; 0], "these change nothing; add `occasional: true` if the conversation cannot show them");
}

/// The effect of faults that do not show clearly as a change.
#[rstest]
#[case("concierge-timeout-late", "15010 19 close 4004")]
#[case("concierge-timeout-early", "2010 19 close 4004")]
#[case("concierge-no-auth-slow", "3010 11 close 4003")]
#[case("concierge-timer-outlives-identify", "5010 2 close 4004")]
#[case("concierge-conflict-kicks-holder", "10 1 close 4005")]
#[case("concierge-unidentified-ignored", "5010 11 close 4004")]
#[case("concierge-messages-overtake", "160 3 ")]
fn seven_faults_send_messages_a_correct_hub_never_sends(#[case] fault: &str, #[case] want: &str) {
    let sent = concierge(Some(fault));
    let correct = concierge(None);
    assert!(sent.iter().any(|line| line.starts_with(want)), "{fault}: {sent:#?}");
    assert!(!correct.iter().any(|line| line.starts_with(want)), "a correct hub does not");
}

#[rstest]
#[case("qi", "concierge-hello-missing", "it belongs to concierge")]
#[case("qi", "nothing", "--list-faults")]
fn unknown_faults_are_refused(#[case] protocol: &str, #[case] id: &str, #[case] why: &str) {
    let error = super::build_machine(protocol, &Default::default(), Some(id)).map(drop).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}
