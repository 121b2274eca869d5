//! What the scenarios of `concierge` do not prove: limits, settings, admin events and random input. Numbers in brackets are
//! lines of the document.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use crate::machine::test_player::TestPlayer;
use crate::machine::{ConnectionId, MachineInput};

fn hub(sets: &[&str]) -> TestPlayer {
    TestPlayer::new("concierge", sets)
}

/// Opens a connection and identifies; returns the uuid.
fn join(hub: &mut TestPlayer, conn: ConnectionId, name: &str) -> String {
    hub.open(conn);
    let hello = hub.only_answer(conn, &json!({ "type": "IDENTIFY", "name": name, "version": "0.1.0" }).to_string());
    assert_eq!(hello["type"], "HELLO");
    assert_eq!(hello["version"], "0.1.0");
    assert!(hello.get("seq").is_none());
    hello["uuid"].as_str().unwrap().to_owned()
}

#[rstest]
#[case(Some("right"), true)]
#[case(Some("wrong"), false)]
#[case(None, false)]
fn clients_with_a_wrong_secret_are_refused(#[case] secret: Option<&str>, #[case] welcome: bool) {
    let mut hub = hub(&["secret=right"]);
    join_with(&mut hub, secret, welcome, 4006);
    // A hub without a secret ignores any secret.
    join_with(&mut self::hub(&[]), secret, true, 4006);
    assert!(!hub.state().to_string().contains("right"));
}

fn join_with(hub: &mut TestPlayer, secret: Option<&str>, welcome: bool, code: u16) {
    hub.open(1);
    let text = json!({ "type": "IDENTIFY", "name": "a", "version": "bad if secret is wrong", "secret": secret });
    let received = hub.send_and_receive(1, &text.to_string());
    assert_eq!(received, [format!("close {}", if welcome { 4007 } else { code })], "secret before version");
}

#[rstest]
#[case("0.1.0", "0.1.0", true)]
#[case("0.1.0", "0.1.7", true)]
#[case("0.1.3", "0.1.0", false)]
#[case("0.1.0", "0.2.0", false)]
#[case("1.2.0", "1.3.0", true)]
#[case("1.2.0", "2.0.0", false)]
#[case("1.2.0-rc.1", "1.2.0-rc.1", true)]
fn only_clients_with_a_caret_compatible_version_are_accepted(
    #[case] ours: &str,
    #[case] theirs: &str,
    #[case] welcome: bool,
) {
    let mut hub = hub(&[&format!("version=\"{ours}\"")]);
    hub.open(1);
    let received = hub.send_and_receive(1, &json!({ "type": "IDENTIFY", "name": "a", "version": theirs }).to_string());
    assert_eq!(received[0] != "close 4007", welcome, "{received:?}");
}

/// [84] Data arrives byte for byte as it was sent.
#[rstest]
#[case("null")]
#[case("false")]
#[case("9007199254740993")]
#[case("1e400")]
#[case(r#""\u00e9\ud83d\ude00 \/""#)]
#[case(r#"{ "b" : 1, "a" : [ 1.0, 1 ] }"#)]
#[case(r#"{"k":1,"k":2}"#)]
fn the_data_of_a_message_is_relayed_verbatim(#[case] data: &str) {
    let mut hub = hub(&[]);
    join(&mut hub, 1, "a");
    join(&mut hub, 2, "b");
    hub.send(1, &format!(r#"{{"type":"MESSAGE","data":{data},"target":{{"type":"NAME","name":"b"}}}}"#));
    let received = hub.received(2);
    assert!(received[0].ends_with(&format!(r#","data":{data}}}"#)), "{}", received[0]);
}

#[test]
fn the_number_of_groups_is_limited() {
    let mut hub = hub(&["max_groups=2"]);
    join(&mut hub, 1, "a");
    let codes = ["g1", "g2", "g3"]
        .map(|name| hub.only_answer(1, &json!({ "type": "GROUP_CREATE", "name": name }).to_string())["code"].take());
    assert_eq!(codes, ["GROUP_CREATED", "GROUP_CREATED", "BAD"]);
}

fn command() -> impl Strategy<Value = (u8, ConnectionId, String)> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let kind = prop::sample::select(
        "IDENTIFY MESSAGE SELF_SUBSCRIBE SELF_UNSUBSCRIBE GROUP_CREATE GROUP_DELETE GROUP_FETCH GROUP_FETCH_ALL CLIENT_FETCH_ALL \
         SELF_FETCH HELLO ?"
            .split(' ')
            .collect::<Vec<_>>(),
    );
    let target = prop::sample::select(vec!["NAME", "UUID", "GROUP", "ALL"]);
    let text = (kind, name, target).prop_map(|(kind, name, target)| {
        json!({
            "type": kind, "name": name, "version": "0.1.0", "data": 0,
            "target": { "type": target, "name": name, "uuid": name, "group": name },
        })
        .to_string()
    });
    (0u8..12, 1u64..6, prop_oneof![9 => text, 1 => ".{0,20}"])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// After any sequence of inputs, the owners of groups are connected, subscriptions of clients and groups agree,
    /// names and uuids are unique, and a payload has at most one answer with a seq.
    #[test]
    fn the_state_is_consistent_after_any_sequence_of_inputs(commands in prop::collection::vec(command(), 1..80)) {
        let mut hub = hub(&[]);
        let mut open = BTreeSet::new();
        for (kind, conn, text) in commands {
            match kind {
                0 => {
                    hub.input(MachineInput::Closed { conn });
                    open.remove(&conn);
                }
                1 => hub.advance(Duration::from_millis(1700)),
                2 => hub.input(MachineInput::Binary { conn, data: vec![0; 3] }),
                _ => {
                    if open.insert(conn) {
                        hub.open(conn);
                        hub.send(conn, &json!({ "type": "IDENTIFY", "name": format!("n{conn}"), "version": "0.1.0" }).to_string());
                        hub.received(conn);
                    }
                    let received = hub.send_and_receive(conn, &text);
                    prop_assert!(received.iter().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{:?}", received);
                    let answers = received.iter().filter(|line| line.contains("\"seq\":")).count();
                    prop_assert!(answers <= 1, "{:?}", received);
                }
            }
            check_state(&hub.state());
        }
    }
}

fn check_state(state: &Value) {
    let clients = state["clients"].as_array().unwrap();
    let uuids: BTreeSet<&str> = clients.iter().map(|client| client["uuid"].as_str().unwrap()).collect();
    let names: BTreeSet<&str> = clients.iter().map(|client| client["name"].as_str().unwrap()).collect();
    assert_eq!((uuids.len(), names.len()), (clients.len(), clients.len()));
    for group in state["groups"].as_array().unwrap() {
        assert!(uuids.contains(group["owner_uuid"].as_str().unwrap()), "{state}");
        let mut subscribers: Vec<&Value> = group["subscribers"].as_array().unwrap().iter().collect();
        let mut want: Vec<&Value> = (clients.iter())
            .filter(|client| client["subscriptions"].as_array().unwrap().contains(&group["name"]))
            .map(|client| &client["uuid"])
            .collect();
        subscribers.sort_by_key(|uuid| uuid.to_string());
        want.sort_by_key(|uuid| uuid.to_string());
        assert_eq!(subscribers, want, "{state}");
    }
    let groups = state["groups"].as_array().unwrap();
    for client in clients {
        for name in client["subscriptions"].as_array().unwrap() {
            assert!(groups.iter().any(|group| group["name"] == *name), "{state}");
        }
    }
}
