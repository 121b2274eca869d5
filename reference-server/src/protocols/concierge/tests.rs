//! The concierge as documented, conversation by conversation; numbers in brackets are lines of the document.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use crate::machine::test_player::TestPlayer;
use crate::machine::{ConnectionId, MachineInput};

fn hub(sets: &[&str]) -> TestPlayer {
    TestPlayer::new("concierge", sets, None)
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
#[case::offered(&["x", "ert-concierge"], "accept ert-concierge")]
#[case::not_offered(&["x"], "accept ")]
#[case::none(&[], "accept ")]
fn the_subprotocol_is_selected_if_offered(#[case] offer: &[&str], #[case] want: &str) {
    let mut hub = hub(&[]);
    let subprotocols = offer.iter().map(|offer| (*offer).to_owned()).collect();
    hub.input(MachineInput::Open {
        conn: 1,
        handshake: crate::machine::Handshake { subprotocols, ..Default::default() },
    });
    assert_eq!(hub.received(1), [want]);
}

const IDENTIFY: &str = r#"{"type":"IDENTIFY","name":"a","version":"0.1.0"}"#;

/// [24 to 33]
#[rstest]
#[case("{", 4002)]
#[case("[]", 4002)]
#[case("{}", 4002)]
#[case(r#"{"type":7}"#, 4002)]
#[case(r#"{"type":"NOPE"}"#, 4002)]
#[case(r#"{"type":"IDENTIFY"}"#, 4002)]
#[case(r#"{"type":"IDENTIFY","name":"","version":"0.1.0"}"#, 4002)]
#[case(r#"{"type":"IDENTIFY","name":"a","version":1}"#, 4002)]
#[case(r#"{"type":"IDENTIFY","name":"a","version":"0.1.0","tags":"x"}"#, 4002)]
#[case(r#"{"type":"IDENTIFY","name":"a","version":"0.1.0",}"#, 4002)]
#[case(r#"{"type":"GROUP_FETCH_ALL"}"#, 4003)]
#[case(r#"{"type":"GROUP_FETCH"}"#, 4003)]
#[case(r#"{"type":"HELLO"}"#, 4003)]
#[case(r#"{"type":"IDENTIFY","name":"taken","version":"0.1.0"}"#, 4005)]
#[case(r#"{"type":"IDENTIFY","name":"a","version":"999.0.0"}"#, 4007)]
#[case(r#"{"type":"IDENTIFY","name":"a","version":"0.2.0"}"#, 4007)]
#[case(r#"{"type":"IDENTIFY","name":"a","version":"abc"}"#, 4007)]
#[case(r#"{"type":"IDENTIFY","name":"taken","version":"abc"}"#, 4007)]
fn a_failed_identification_closes_at_once(#[case] first: &str, #[case] code: u16) {
    let mut hub = hub(&[]);
    join(&mut hub, 1, "taken");
    hub.open(2);
    assert_eq!(hub.send_and_receive(2, first), [format!("close {code}")]);
    assert_eq!(hub.send_and_receive(2, IDENTIFY), [""; 0], "a closed connection gets no answer");
    assert_eq!(hub.only_answer(1, r#"{"type":"SELF_FETCH"}"#)["name"], "taken", "the others are untouched");
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

/// [24, 30]
#[test]
fn a_connection_that_does_not_identify_in_time_is_closed() {
    let mut hub = hub(&[]);
    hub.open(1);
    hub.advance(Duration::from_millis(2000));
    hub.open(2);
    hub.input(MachineInput::Binary { conn: 1, data: vec![1] });
    hub.advance(Duration::from_millis(2999));
    assert_eq!(hub.received(1), [""; 0]);
    hub.advance(Duration::from_millis(1));
    assert_eq!(hub.received(1), ["close 4004"]);
    assert!(hub.send_and_receive(2, IDENTIFY)[0].contains("HELLO"));
    hub.advance(Duration::from_secs(100));
    assert_eq!(hub.only_answer(2, r#"{"type":"SELF_FETCH"}"#)["seq"], 1, "an identified client stays connected");
}

/// [17, 18]
#[test]
fn seq_counts_the_text_payloads_of_the_connection() {
    let mut hub = hub(&[]);
    join(&mut hub, 1, "a");
    join(&mut hub, 2, "b");
    assert_eq!(hub.only_answer(1, r#"{"type":"SELF_FETCH"}"#)["seq"], 1);
    hub.input(MachineInput::Binary { conn: 1, data: vec![1] });
    hub.input(MachineInput::Ping { conn: 1 });
    assert_eq!(hub.only_answer(1, "{")["seq"], 2);
    assert_eq!(hub.only_answer(2, r#"{"type":"SELF_FETCH"}"#)["seq"], 1);
    assert_eq!(
        hub.only_answer(1, r#"{"type":"GROUP_FETCH_ALL"}"#),
        json!({"type":"GROUP_FETCH_ALL_RESULT","groups":[],"seq":3})
    );
}

/// [71 to 84, 118, 136]
#[test]
fn the_example_message_of_the_document_is_relayed() {
    let mut hub = hub(&[]);
    let anthony = join(&mut hub, 1, "anthony");
    join(&mut hub, 2, "brendan");
    join(&mut hub, 3, "bystander");
    let sent =
        r#"{"type":"MESSAGE","target":{"type":"NAME","name":"brendan","tags":["babylon"]},"data":{"foo":"bar"}}"#;
    assert_eq!(hub.only_answer(1, sent), json!({"type":"STATUS","code":"MESSAGE_SENT","seq":1}));
    assert_eq!(
        hub.received_json(2),
        [json!({
            "type": "MESSAGE",
            "origin": {"name": "anthony", "uuid": anthony, "tags": []},
            "target": {"type": "NAME", "name": "brendan"},
            "data": {"foo": "bar"},
        })]
    );
    assert_eq!(hub.received(3), [""; 0]);
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

/// [37, 80, 82, 106]
#[rstest]
#[case(r#"{"type":"NAME","name":"b"}"#, &[2])]
#[case(r#"{"type":"NAME","name":"a"}"#, &[1])]
#[case(r#"{"type":"UUID","uuid":"$b"}"#, &[2])]
#[case(r#"{"type":"UUID","uuid":"$B"}"#, &[2])]
#[case(r#"{"type":"GROUP","group":"g"}"#, &[1, 3])]
#[case(r#"{"type":"GROUP","group":"other"}"#, &[3])]
#[case(r#"{"type":"GROUP","group":"empty"}"#, &[])]
#[case(r#"{"type":"ALL"}"#, &[2, 3])]
fn messages_reach_exactly_their_targets(#[case] target: &str, #[case] want: &[ConnectionId]) {
    let mut hub = hub(&[]);
    join(&mut hub, 1, "a");
    let uuid = join(&mut hub, 2, "b");
    join(&mut hub, 3, "c");
    hub.open(4);
    for group in ["g", "other", "empty"] {
        hub.send(2, &json!({ "type": "GROUP_CREATE", "name": group }).to_string());
    }
    for (conn, group) in [(1, "g"), (3, "g"), (3, "g"), (3, "other")] {
        hub.send(conn, &json!({ "type": "SELF_SUBSCRIBE", "name": group }).to_string());
    }
    for conn in 1..=4 {
        hub.received(conn);
    }
    let target = target.replace("$b", &uuid).replace("$B", &uuid.to_uppercase());
    let forged = r#"{"name":"another","uuid":"else"}"#;
    hub.send(1, &format!(r#"{{"type":"MESSAGE","origin":{forged},"target":{target},"data":0}}"#));
    let mut got = Vec::new();
    for conn in 1..=4 {
        for received in hub.received_json(conn) {
            match received["type"].as_str() {
                Some("MESSAGE") => {
                    assert_eq!(received["origin"]["name"], "a");
                    assert_eq!(received["origin"].get("group").is_some(), target.contains("GROUP"));
                    got.push(conn);
                }
                _ => assert_eq!((conn, &received["code"]), (1, &json!("MESSAGE_SENT"))),
            }
        }
    }
    assert_eq!(got, want);
}

/// [537 to 562]
#[rstest]
#[case(r#"{"type":"MESSAGE","target":{"type":"NAME","name":"x"},"data":0}"#, json!({"code":"NO_SUCH_NAME","name":"x"}))]
#[case(r#"{"type":"MESSAGE","target":{"type":"UUID","uuid":"x"},"data":0}"#, json!({"code":"NO_SUCH_UUID","uuid":"x"}))]
#[case(r#"{"type":"MESSAGE","target":{"type":"GROUP","group":"x"},"data":0}"#, json!({"code":"NO_SUCH_GROUP","group":"x"}))]
#[case(r#"{"type":"SELF_SUBSCRIBE","name":"x"}"#, json!({"code":"NO_SUCH_GROUP","group":"x"}))]
#[case(r#"{"type":"SELF_UNSUBSCRIBE","name":"x"}"#, json!({"code":"NO_SUCH_GROUP","group":"x"}))]
#[case(r#"{"type":"GROUP_DELETE","name":"x"}"#, json!({"code":"NO_SUCH_GROUP","group":"x"}))]
#[case(r#"{"type":"GROUP_FETCH","name":"x"}"#, json!({"code":"NO_SUCH_GROUP","group":"x"}))]
#[case(r#"{"type":"HELLO"}"#, json!({"code":"UNSUPORTED"}))]
#[case(r#"{"type":"STATUS"}"#, json!({"code":"UNSUPORTED"}))]
#[case(r#"{"type":"GROUP_FETCH_RESULT"}"#, json!({"code":"UNSUPORTED"}))]
#[case(r#"{"type":"GROUP_FETCH_ALL_RESULT"}"#, json!({"code":"UNSUPORTED"}))]
#[case(r#"{"type":"CLIENT_FETCH_ALL_RESULT"}"#, json!({"code":"UNSUPORTED"}))]
#[case(r#"{"type":"SELF_FETCH_RESULT"}"#, json!({"code":"UNSUPORTED"}))]
#[case(r#"{"type":"IDENTIFY","name":"z","version":"0.1.0"}"#, json!({"code":"UNSUPORTED"}))]
#[case(r#"{"type":"NOPE"}"#, json!({"code":"PROTOCOL"}))]
#[case("{", json!({"code":"PROTOCOL"}))]
#[case("[]", json!({"code":"PROTOCOL"}))]
#[case(r#"{"type":"GROUP_CREATE","name":7}"#, json!({"code":"PROTOCOL"}))]
#[case(r#"{"type":"GROUP_CREATE","name":""}"#, json!({"code":"PROTOCOL"}))]
#[case(r#"{"type":"MESSAGE","data":0}"#, json!({"code":"PROTOCOL"}))]
#[case(r#"{"type":"MESSAGE","target":{"type":"PLANET"},"data":0}"#, json!({"code":"PROTOCOL"}))]
#[case(r#"{"type":"MESSAGE","target":{"type":"ALL"}}"#, json!({"code":"PROTOCOL"}))]
fn refusals_have_the_documented_codes_and_keep_the_connection_open(#[case] text: &str, #[case] want: Value) {
    let mut hub = hub(&[]);
    join(&mut hub, 1, "a");
    let mut got = hub.only_answer(1, text);
    assert_eq!(got["type"], "STATUS");
    assert_eq!(got["seq"], 1);
    if want["code"] == "PROTOCOL" {
        assert!(got["desc"].as_str().is_some_and(|desc| !desc.is_empty()));
        got.as_object_mut().unwrap().remove("desc");
    }
    for member in ["type", "seq"] {
        got.as_object_mut().unwrap().remove(member);
    }
    assert_eq!(got, want);
    assert_eq!(hub.only_answer(1, r#"{"type":"SELF_FETCH"}"#)["name"], "a");
}

/// [39, 517 to 533]
#[rstest]
#[case::deleted(true)]
#[case::left(false)]
fn a_group_ends_when_it_is_deleted_or_its_owner_leaves(#[case] deleted: bool) {
    let mut hub = hub(&[]);
    let owner = join(&mut hub, 1, "owner");
    let member = join(&mut hub, 2, "member");
    join(&mut hub, 3, "bystander");
    let group = |code: &str, subscribers: &[&str], seq: Option<u64>| {
        let mut status = json!({
            "type": "STATUS", "code": code, "name": "g", "nickname": "G", "owner_uuid": owner, "subscribers": subscribers,
        });
        if let Some(seq) = seq {
            status["seq"] = json!(seq);
        }
        status
    };
    let created = hub.only_answer(1, r#"{"type":"GROUP_CREATE","name":"g","nickname":"G"}"#);
    assert_eq!(created, group("GROUP_CREATED", &[], Some(1)));
    assert_eq!(hub.received_json(2), [group("GROUP_CREATED", &[], None)]);
    assert_eq!(hub.received_json(3), [group("GROUP_CREATED", &[], None)]);
    let again = hub.only_answer(2, r#"{"type":"GROUP_CREATE","name":"g","nickname":"H"}"#);
    assert_eq!(again, group("GROUP_ALREADY_CREATED", &[], Some(1)));
    assert_eq!(hub.received(3), [""; 0]);
    let subscribed = hub.only_answer(2, r#"{"type":"SELF_SUBSCRIBE","name":"g"}"#);
    assert_eq!(subscribed, group("SUBSCRIBED", &[&member], Some(2)));
    assert_eq!(hub.only_answer(2, r#"{"type":"SELF_FETCH"}"#)["subscriptions"], json!(["g"]));
    assert_eq!(
        hub.only_answer(2, r#"{"type":"GROUP_DELETE","name":"g"}"#),
        json!({"type":"STATUS","code":"BAD","seq":4})
    );
    if deleted {
        assert_eq!(hub.only_answer(1, r#"{"type":"GROUP_DELETE","name":"g"}"#), group("GROUP_DELETED", &[], Some(2)));
    } else {
        hub.input(MachineInput::Closed { conn: 1 });
        assert_eq!(hub.received(1), [""; 0]);
    }
    let announced = [group("UNSUBSCRIBED", &[], None), group("GROUP_DELETED", &[], None)];
    assert_eq!(hub.received_json(2), announced);
    assert_eq!(hub.received_json(3), announced[1..]);
    assert_eq!(hub.only_answer(2, r#"{"type":"SELF_FETCH"}"#)["subscriptions"], json!([]));
    assert_eq!(hub.only_answer(2, r#"{"type":"GROUP_CREATE","name":"g"}"#)["code"], "GROUP_CREATED");
    assert_eq!(hub.only_answer(3, r#"{"type":"GROUP_FETCH","name":"g"}"#)["subscribers"], json!([]));
}

#[test]
fn unsubscribing_and_leaving_shrink_a_group_but_never_end_it() {
    let mut hub = hub(&[]);
    let owner = join(&mut hub, 1, "owner");
    join(&mut hub, 2, "member");
    hub.send(1, r#"{"type":"GROUP_CREATE","name":"g"}"#);
    hub.send(1, r#"{"type":"SELF_SUBSCRIBE","name":"g"}"#);
    hub.send(2, r#"{"type":"SELF_SUBSCRIBE","name":"g"}"#);
    hub.input(MachineInput::Closed { conn: 2 });
    assert_eq!(hub.only_answer(1, r#"{"type":"GROUP_FETCH","name":"g"}"#)["subscribers"], json!([owner]));
    let left = hub.only_answer(1, r#"{"type":"SELF_UNSUBSCRIBE","name":"g"}"#);
    assert_eq!((&left["code"], &left["subscribers"]), (&json!("UNSUBSCRIBED"), &json!([])));
    assert_eq!(hub.only_answer(1, r#"{"type":"SELF_UNSUBSCRIBE","name":"g"}"#)["code"], "UNSUBSCRIBED");
    assert_eq!(hub.only_answer(1, r#"{"type":"GROUP_FETCH","name":"g"}"#)["subscribers"], json!([]));
}

#[test]
fn clients_are_listed_with_their_identify_members() {
    let mut hub = hub(&[]);
    hub.open(1);
    hub.send(1, r#"{"type":"IDENTIFY","name":"a","version":"0.1.0","tags":["t"],"nickname":"A","secret":null}"#);
    let b = join(&mut hub, 2, "b");
    hub.open(3);
    let clients = hub.only_answer(2, r#"{"type":"CLIENT_FETCH_ALL"}"#)["clients"].take();
    assert_eq!(clients[0]["nickname"], "A");
    assert_eq!(clients[0]["tags"], json!(["t"]));
    assert_eq!(clients[1], json!({"name":"b","uuid":b,"tags":[]}));
    assert_eq!(clients.as_array().unwrap().len(), 2);
    hub.input(MachineInput::Closed { conn: 1 });
    assert_eq!(hub.only_answer(2, r#"{"type":"CLIENT_FETCH_ALL"}"#)["clients"].as_array().unwrap().len(), 1);
    join(&mut hub, 4, "a");
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
