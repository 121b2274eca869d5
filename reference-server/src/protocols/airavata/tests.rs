//! What the scenarios of `airavata` do not prove: limits, settings, admin events and random input. Numbers in brackets are
//! lines of the document.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::token::tests::sign;

use crate::machine::test_player::TestPlayer;
use crate::machine::{ConnectionId, Handshake, MachineInput};

const KEY: &str = "the key of the reference hub";
/// The hub's start, as [`TestPlayer`] sets it.
const START: u64 = 1_705_314_600;

fn hub(sets: &[&str]) -> TestPlayer {
    TestPlayer::new("airavata", sets)
}

fn token(user: &str) -> String {
    sign(&json!({ "sub": user, "exp": START + 3600 }), KEY, "HS256")
}

fn request(path: &str, token: Option<&str>) -> Handshake {
    let query = token.map(|token| ("token".to_owned(), token.to_owned()));
    Handshake { path: path.to_owned(), query: query.into_iter().collect(), ..Handshake::default() }
}

/// Opens a connection of a user and returns what it receives.
fn open(hub: &mut TestPlayer, conn: ConnectionId, path: &str, user: &str) -> Vec<String> {
    hub.input(MachineInput::Open { conn, handshake: request(path, Some(&token(user))) });
    hub.received(conn)
}

fn join(hub: &mut TestPlayer, conn: ConnectionId, path: &str, user: &str) {
    assert_eq!(open(hub, conn, path, user), ["accept "]);
}

fn subscription(action: &str, kind: &str, id: Option<&str>) -> String {
    let mut data = json!({ "action": action, "resourceType": kind });
    if let Some(id) = id {
        data["resourceId"] = json!(id);
    }
    json!({ "type": "system_status", "data": data }).to_string()
}

fn subscribe(hub: &mut TestPlayer, conn: ConnectionId, kind: &str, id: &str) {
    let answer = hub.only_answer(conn, &subscription("subscribe", kind, Some(id)));
    assert_eq!(answer["data"]["status"], "success", "{answer}");
}

/// An event about each kind of resource: experiment e of user u in project p, its task t and worker w.
fn events() -> [Value; 4] {
    let args = json!({ "project": "p", "user": "u" });
    let experiment = json!({ "id": "e", "name": "Sweep", "status": "CREATED", "ownerId": "u", "projectId": "p" });
    let task = json!({ "id": "t", "experimentId": "e", "status": "CREATED", "command": "x", "workerId": null });
    let worker = json!({ "id": "w", "computeResourceId": "c", "experimentId": "e", "status": "RUNNING" });
    let summary = |of: &Value, members: &[&str]| Value::from_iter(members.iter().map(|name| (*name, of[name].clone())));
    let experiment_data =
        json!({ "experiment": experiment, "summary": summary(&experiment, &["id", "name", "status", "ownerId"]) });
    let task_data = json!({ "task": task, "summary": summary(&task, &["id", "experimentId", "status", "workerId"]) });
    let members = ["id", "computeResourceId", "experimentId", "status"];
    let worker_data = json!({ "worker": worker, "summary": summary(&worker, &members) });
    let progress = json!({ "taskId": "t", "experimentId": "e", "status": "RUNNING", "progressPercent": 75.0 });
    [
        json!({ "message": { "type": "experiment_created", "data": experiment_data } }),
        json!({ "message": { "type": "task_created", "data": task_data }, "args": args }),
        json!({ "message": { "type": "task_progress", "data": progress }, "args": args }),
        json!({ "message": { "type": "worker_registered", "data": worker_data } }),
    ]
}

#[test]
fn a_token_may_come_in_a_header_and_the_configured_claim_names_the_user() {
    let mut hub = hub(&["jwt_secret=s", "user_claim=name"]);
    let token = sign(&json!({ "name": "u" }), "s", "HS256");
    let headers = vec![("authorization".to_owned(), format!("Bearer {token}"))];
    hub.input(MachineInput::Open { conn: 1, handshake: Handshake { headers, ..request("/ws/user", None) } });
    assert_eq!(hub.received(1), ["accept "]);
    assert_eq!(hub.state()["users"], json!({ "u": 1 }));
    assert!(!hub.state().to_string().contains(&token));
}

/// [763 to 767]
#[test]
fn connections_are_limited_and_a_closed_one_makes_room_for_another() {
    let mut hub = hub(&["max_per_user=2", "max_per_ip=3", "max_connections=4"]);
    let from = |hub: &mut TestPlayer, conn: ConnectionId, user: &str, host: u8| {
        let peer = IpAddr::V4(Ipv4Addr::new(127, 0, 0, host));
        hub.input(MachineInput::Open {
            conn,
            handshake: Handshake { peer, ..request("/ws/user", Some(&token(user))) },
        });
        hub.received(conn).len() == 1
    };
    assert!(from(&mut hub, 1, "a", 1) && from(&mut hub, 2, "a", 1));
    assert!(!from(&mut hub, 3, "a", 2), "the user has two");
    assert!(from(&mut hub, 4, "b", 1));
    assert!(!from(&mut hub, 5, "c", 1), "the address has three");
    assert!(from(&mut hub, 6, "c", 2));
    assert!(!from(&mut hub, 7, "d", 3), "the hub has four");
    hub.input(MachineInput::Closed { conn: 3 });
    hub.input(MachineInput::Closed { conn: 1 });
    hub.input(MachineInput::Closed { conn: 1 });
    assert!(from(&mut hub, 8, "a", 1));
    assert!(!from(&mut hub, 9, "e", 9));
    for conn in 1..10 {
        hub.input(MachineInput::Closed { conn });
    }
    assert_eq!(hub.state()["users"], json!({}));
    assert_eq!(hub.state()["subscriptions"], json!({}));
}

#[test]
fn the_documented_limits_are_the_defaults() {
    let mut hub = hub(&[]);
    let peer = |conn: ConnectionId| IpAddr::V4(Ipv4Addr::new(127, 0, u8::try_from(conn / 50).unwrap(), 1));
    let mut joined = 0;
    for conn in 0..1100 {
        let user = format!("u{}", conn / 10);
        hub.input(MachineInput::Open {
            conn,
            handshake: Handshake { peer: peer(conn), ..request("/ws/user", Some(&token(&user))) },
        });
        joined += usize::from(hub.received(conn).len() == 1);
    }
    assert_eq!(joined, 1000);
    for (limit, users) in [(10, 1), (50, 100)] {
        let mut hub = self::hub(&[]);
        let joined = (0..100).filter(|conn| open(&mut hub, *conn, "/ws/user", &(conn % users).to_string()).len() == 1);
        assert_eq!(joined.count(), limit);
    }
}

#[test]
fn the_message_rate_is_limited_if_configured() {
    let mut hub = hub(&["rate_limit=3", "rate_window_ms=1000"]);
    join(&mut hub, 1, "/ws/user", "u");
    join(&mut hub, 2, "/ws/user", "u");
    let ask = |conn: ConnectionId, hub: &mut TestPlayer| {
        hub.only_answer(conn, r#"{"type":"ping"}"#)["type"].as_str().unwrap().to_owned()
    };
    let four: Vec<String> = (0..4).map(|_| ask(1, &mut hub)).collect();
    assert_eq!(four, ["pong", "pong", "pong", "error"]);
    assert_eq!(ask(2, &mut hub), "pong", "each connection has a limit of its own");
    hub.advance(Duration::from_millis(1000));
    assert_eq!(ask(1, &mut hub), "pong");
    assert_eq!(self::hub(&[]).state()["connections"], 0);
}

#[test]
fn the_number_of_subscriptions_of_a_connection_is_limited() {
    let mut hub = hub(&["max_subscriptions=2"]);
    join(&mut hub, 1, "/ws/user", "u");
    subscribe(&mut hub, 1, "task", "a");
    assert_eq!(hub.only_answer(1, &subscription("subscribe", "task", Some("b")))["error"], "Rate limit exceeded");
    subscribe(&mut hub, 1, "task", "a");
}

proptest! {
    /// The hub answers any text with at most one message of the documented form, sends it to no other client, and keeps
    /// no state of clients that have left.
    #[test]
    fn any_received_text_gets_at_most_one_answer(
        texts in prop::collection::vec((1u64..4, prop_oneof![
            ".*",
            Just(r#"{"type":"ping"}"#.to_owned()),
            ("(subscribe|unsubscribe|x)", "(task|user|system|galaxy)", "[a-c]?")
                .prop_map(|(action, kind, id)| subscription(&action, &kind, Some(&id))),
            (".{0,3}", ".{0,3}").prop_map(|(kind, data)| json!({ "type": kind, "data": data }).to_string()),
        ]), 0..30),
        events in prop::collection::vec(0usize..4, 0..5),
    ) {
        let mut hub = hub(&[]);
        for conn in 1..4 {
            join(&mut hub, conn, "/ws/tasks/t", "u");
        }
        for (conn, text) in texts {
            let received = hub.send_and_receive_json(conn, &text);
            prop_assert!(received.len() <= 1);
            for message in received {
                prop_assert!(["pong", "system_status", "error"].contains(&message["type"].as_str().unwrap()));
                prop_assert!(message["id"].is_string() && message["timestamp"].is_string());
                prop_assert_eq!(message["type"] == "error", message["error"].is_string());
            }
            for other in (1..4).filter(|other| *other != conn) {
                prop_assert_eq!(hub.received(other), [""; 0]);
            }
        }
        for index in events {
            let event = &self::events()[index];
            let answer = hub.event(event).unwrap();
            let copies: Vec<usize> = (1..4).map(|conn| hub.received(conn).len()).collect();
            prop_assert!(copies.iter().all(|count| *count <= 1), "one copy each");
            prop_assert_eq!(json!(copies.iter().sum::<usize>()), answer["recipients"].clone());
        }
        for conn in 1..4 {
            hub.input(MachineInput::Closed { conn });
        }
        prop_assert_eq!(&hub.state()["subscriptions"], &json!({}));
        prop_assert_eq!(&hub.state()["users"], &json!({}));
    }
}
