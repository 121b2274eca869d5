//! Airavata as documented, conversation by conversation; numbers in brackets are lines of the document.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use super::token::tests::sign;

use crate::machine::test_player::TestPlayer;
use crate::machine::{ConnectionId, Handshake, MachineInput};

const KEY: &str = "the key of the reference hub";
/// The hub's start, as [`TestPlayer`] sets it.
const START: u64 = 1_705_314_600;

fn hub(sets: &[&str]) -> TestPlayer {
    TestPlayer::new("airavata", sets, None)
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

/// The events of the document, about experiment e of user u in project p, its task t and worker w.
pub fn events() -> Vec<Value> {
    let mut events = Vec::new();
    for (name, status) in
        [("created", "CREATED"), ("updated", "RUNNING"), ("completed", "COMPLETED"), ("failed", "FAILED")]
    {
        let experiment = json!({ "id": "e", "name": "Sweep", "status": status, "ownerId": "u", "projectId": "p" });
        let summary = json!({ "id": "e", "name": "Sweep", "status": status, "ownerId": "u" });
        let data = json!({ "experiment": experiment, "summary": summary });
        events.push(json!({ "message": { "type": format!("experiment_{name}"), "data": data } }));
        let mut task = json!({ "id": "t", "experimentId": "e", "status": status, "command": "x", "workerId": null });
        let mut summary = json!({ "id": "t", "experimentId": "e", "status": status, "workerId": null });
        if name == "failed" {
            task["error"] = json!("it broke");
            summary["error"] = json!("it broke");
        }
        let data = json!({ "task": task, "summary": summary });
        let args = json!({ "project": "p", "user": "u" });
        events.push(json!({ "message": { "type": format!("task_{name}"), "data": data }, "args": args }));
    }
    let args = json!({ "project": "p", "user": "u" });
    let counts = json!({ "experimentId": "e", "totalTasks": 100, "completedTasks": 45, "failedTasks": 5, "runningTasks": 10, "progressPercent": 45.0 });
    events.push(json!({ "message": { "type": "experiment_progress", "data": counts }, "args": args }));
    let progress = json!({ "taskId": "t", "experimentId": "e", "status": "RUNNING", "progressPercent": 75.0 });
    events.push(json!({ "message": { "type": "task_progress", "data": progress }, "args": args }));
    for (name, status) in [("registered", "RUNNING"), ("updated", "RUNNING"), ("offline", "OFFLINE")] {
        let worker = json!({ "id": "w", "computeResourceId": "c", "experimentId": "e", "status": status, "currentTaskId": null });
        let summary = json!({ "id": "w", "computeResourceId": "c", "experimentId": "e", "status": status });
        let data = json!({ "worker": worker, "summary": summary });
        events.push(json!({ "message": { "type": format!("worker_{name}"), "data": data } }));
    }
    let status = json!({ "totalConnections": 150, "activeConnections": 120, "totalMessages": 15420, "messagesPerSecond": 25.5, "averageLatency": "0.05s", "uptime": "2h 30m 15s" });
    events.push(json!({ "message": { "type": "system_status", "id": "x", "timestamp": "y", "data": status } }));
    events
}

/// [43 to 65]
#[rstest]
#[case("/ws/experiments/exp-123", &["accept "])]
#[case("/ws/tasks/a%20b", &["accept "])]
#[case("/ws/projects/p", &["accept "])]
#[case("/ws/user", &["accept "])]
#[case("/ws/user/u", &["refuse 404"])]
#[case("/ws/experiments/", &["refuse 404"])]
#[case("/ws/experiments/a/b", &["refuse 404"])]
#[case("/ws/experiments/%ff", &["refuse 404"])]
#[case("/ws/workers/w", &["refuse 404"])]
#[case("/", &["refuse 404"])]
fn upgrades_are_accepted_only_at_the_four_documented_paths(#[case] path: &str, #[case] want: &[&str]) {
    assert_eq!(open(&mut hub(&[]), 1, path, "u"), want);
}

/// [80 to 115]
#[rstest]
#[case::none(None, "Authentication required")]
#[case::empty(Some(String::new()), "Authentication required")]
#[case::garbage(Some("not.a.token".to_owned()), "Invalid or expired token")]
#[case::forged(Some(sign(&json!({ "sub": "u", "exp": START + 1 }), "another", "HS256")), "Invalid or expired token")]
#[case::other_algorithm(Some(sign(&json!({ "sub": "u", "exp": START + 1 }), KEY, "HS512")), "Invalid or expired token")]
#[case::unsigned(Some("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJ1In0.".to_owned()), "Invalid or expired token")]
#[case::expired(Some(sign(&json!({ "sub": "u", "exp": START }), KEY, "HS256")), "Invalid or expired token")]
#[case::nameless(Some(sign(&json!({ "name": "u", "exp": START + 1 }), KEY, "HS256")), "Invalid or expired token")]
fn a_connection_without_a_valid_token_is_sent_the_reason_and_closed(#[case] token: Option<String>, #[case] want: &str) {
    let mut hub = hub(&[]);
    hub.input(MachineInput::Open { conn: 1, handshake: request("/ws/user", token.as_deref()) });
    let received = hub.received(1);
    let error: Value = serde_json::from_str(&received[1]).unwrap();
    assert_eq!(error, json!({ "type": "error", "id": "error-1", "timestamp": "2024-01-15T10:30:00Z", "error": want }));
    assert_eq!((received.len(), &*received[0], &*received[2]), (3, "accept ", "close 1008"));
    assert_eq!(hub.send_and_receive(1, r#"{"type":"ping"}"#), [""; 0]);
    hub.event(events().last().unwrap()).unwrap();
    assert_eq!(hub.received(1), [""; 0], "a refused connection gets no events");
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

#[test]
fn a_token_is_accepted_until_it_expires() {
    let mut hub = hub(&["ping_interval_ms=0"]);
    hub.advance(Duration::from_secs(3599));
    join(&mut hub, 1, "/ws/user", "u");
    hub.advance(Duration::from_secs(1));
    assert_eq!(open(&mut hub, 2, "/ws/user", "u").len(), 3);
    assert_eq!(hub.only_answer(1, r#"{"type":"ping"}"#)["type"], "pong", "an open connection outlives its token");
}

/// [515 to 571] The answer repeats the resource as the client wrote it.
#[rstest]
#[case("experiment", Some("exp-123"), Some("exp-123"))]
#[case("task", Some("t"), Some("t"))]
#[case("project", Some("p"), Some("p"))]
#[case("user", Some("me"), Some("me"))]
#[case("user", Some("another"), Some("another"))]
#[case("user", None, Some("u"))]
#[case("system", Some("whatever"), Some("whatever"))]
#[case("system", None, Some(""))]
#[case("worker", Some("w"), Some("w"))]
#[case("experiment", None, None)]
#[case("task", Some(""), None)]
#[case("galaxy", Some("milky way"), None)]
fn subscriptions_are_answered(#[case] kind: &str, #[case] id: Option<&str>, #[case] want: Option<&str>) {
    let mut hub = hub(&[]);
    join(&mut hub, 1, "/ws/user", "u");
    for (action, answered) in
        [("subscribe", "subscribed"), ("subscribe", "subscribed"), ("unsubscribe", "unsubscribed")]
    {
        let answer = hub.only_answer(1, &subscription(action, kind, id));
        match want {
            None => assert_eq!(answer["error"], "Invalid message format"),
            Some(id) => assert_eq!(
                (&answer["type"], &answer["data"]),
                (
                    &json!("system_status"),
                    &json!({ "action": answered, "resourceType": kind, "resourceId": id, "status": "success" })
                )
            ),
        }
    }
}

/// [642 to 660]
#[rstest]
#[case("not json", "Invalid message format")]
#[case("[]", "Invalid message format")]
#[case("{}", "Invalid message format")]
#[case(r#"{"type":5}"#, "Invalid message format")]
#[case(r#"{"type":"ping","data":"x"}"#, "Invalid message format")]
#[case(r#"{"type":"no_such","id":"1","timestamp":"2024-01-15T10:30:00Z"}"#, "Unknown message type")]
#[case(r#"{"type":"experiment_created","data":{}}"#, "Unknown message type")]
fn wrong_messages_are_answered_with_errors_and_the_connection_stays_open(#[case] text: &str, #[case] want: &str) {
    let mut hub = hub(&[]);
    join(&mut hub, 1, "/ws/user", "u");
    let error = hub.only_answer(1, text);
    assert_eq!((&error["type"], &error["error"]), (&json!("error"), &json!(want)));
    let pong = hub.only_answer(1, r#"{"type":"ping","id":"ping-1","timestamp":"2024-01-15T10:30:00Z"}"#);
    assert_eq!(pong, json!({ "type": "pong", "id": "pong-2", "timestamp": "2024-01-15T10:30:00Z" }));
    assert_eq!(hub.send_and_receive(1, r#"{"type":"pong"}"#), [""; 0]);
    hub.input(MachineInput::Binary { conn: 1, data: b"{}".to_vec() });
    assert_eq!(hub.received(1), [""; 0]);
}

/// [573 to 591] The routing table.
#[test]
fn events_go_to_the_subscribers_that_the_routing_table_names() {
    let mut hub = hub(&["max_per_user=100"]);
    let subscribers =
        ["experiment e", "task t", "project p", "user u", "system x", "worker w", "experiment f", "user v"];
    for (conn, resource) in (1..).zip(subscribers) {
        join(&mut hub, conn, "/ws/projects/another", "other-user");
        let (kind, id) = resource.split_once(' ').unwrap();
        subscribe(&mut hub, conn, kind, id);
    }
    join(&mut hub, 9, "/ws/projects/another", "other-user");
    for event in events() {
        let answer = hub.event(&event).unwrap();
        let kind = event["message"]["type"].as_str().unwrap();
        let want: &[ConnectionId] = match kind.split_once('_').unwrap().0 {
            "experiment" => &[1, 3, 4],
            "task" => &[1, 2, 3, 4],
            "worker" => &[5, 6],
            _ => &[1, 2, 3, 4, 5, 6, 7, 8, 9],
        };
        let mut got = Vec::new();
        for conn in 1..=9 {
            for message in hub.received_json(conn) {
                assert_eq!(message["type"], kind);
                assert_eq!(message["data"], event["message"]["data"]);
                assert_eq!((&message["id"], &message["timestamp"]), (&answer["id"], &answer["timestamp"]));
                got.push(conn);
            }
        }
        assert_eq!(got, want, "{kind}");
        assert_eq!(answer["recipients"], want.len());
    }
}

/// [145 to 151, 595] Ids have the documented form and are unique, and timestamps do not decrease, however fast events
/// arrive.
#[test]
fn ids_are_unique_and_timestamps_do_not_decrease() {
    let mut hub = hub(&[]);
    join(&mut hub, 1, "/ws/experiments/e", "u");
    subscribe(&mut hub, 1, "system", "");
    for _ in 0..3 {
        for event in events() {
            hub.event(&event).unwrap();
        }
        hub.advance(Duration::from_millis(5));
        hub.send(1, r#"{"type":"ping"}"#);
    }
    let received = hub.received_json(1);
    let mut ids: Vec<&str> = received.iter().map(|message| message["id"].as_str().unwrap()).collect();
    let times: Vec<&str> = received.iter().map(|message| message["timestamp"].as_str().unwrap()).collect();
    let times: Vec<jiff::Timestamp> = times.iter().map(|time| time.parse().unwrap()).collect();
    assert!(times.is_sorted());
    assert_eq!(ids[0], "exp_e_1705314600001");
    for (message, id) in received.iter().zip(&ids) {
        let prefix = match message["type"].as_str().unwrap().split_once('_').map_or("pong", |(kind, _)| kind) {
            "experiment" => "exp_e_",
            "task" => "task_t_",
            "worker" => "worker_w_",
            "system" => "system_",
            _ => "pong-",
        };
        assert!(id.strip_prefix(prefix).is_some_and(|rest| rest.parse::<u64>().is_ok()), "{message}");
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), received.len());
}

#[test]
fn unsubscribing_ends_the_subscription_that_came_with_the_path() {
    let mut hub = hub(&[]);
    join(&mut hub, 1, "/ws/experiments/e", "u");
    hub.event(&events()[0]).unwrap();
    assert_eq!(hub.received(1).len(), 1);
    hub.only_answer(1, &subscription("unsubscribe", "experiment", Some("e")));
    hub.event(&events()[0]).unwrap();
    assert_eq!(hub.received(1), [""; 0]);
}

#[test]
fn clients_of_the_user_endpoint_get_only_events_of_their_own_user() {
    let mut hub = hub(&[]);
    join(&mut hub, 1, "/ws/user", "u");
    join(&mut hub, 2, "/ws/user", "v");
    hub.event(&events()[0]).unwrap();
    assert_eq!((hub.received(1).len(), hub.received(2).len()), (1, 0));
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

/// [697]
#[test]
fn clients_are_pinged_at_the_interval_and_need_not_answer() {
    let mut hub = hub(&[]);
    join(&mut hub, 1, "/ws/user", "u");
    hub.advance(Duration::from_millis(10_000));
    join(&mut hub, 2, "/ws/user", "u");
    hub.advance(Duration::from_millis(19_999));
    assert_eq!(hub.received(1), [""; 0]);
    hub.advance(Duration::from_millis(1));
    assert_eq!(hub.received_json(1), [json!({ "type": "ping", "id": "ping-1", "timestamp": "2024-01-15T10:30:30Z" })]);
    hub.advance(Duration::from_secs(300));
    assert_eq!((hub.received(1).len(), hub.received(2).len()), (10, 10), "clients that do not answer are kept");
    hub.input(MachineInput::Closed { conn: 1 });
    hub.advance(Duration::from_secs(60));
    assert_eq!(hub.received(1), [""; 0]);
    let mut silent = self::hub(&["ping_interval_ms=0"]);
    join(&mut silent, 1, "/ws/user", "u");
    silent.advance(Duration::from_secs(300));
    assert_eq!(silent.received(1), [""; 0]);
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
        events in prop::collection::vec(0usize..14, 0..5),
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

/// One long conversation in which every fault shows.
pub fn conversation(fault: Option<&str>) -> Vec<String> {
    let mut sent = limits(fault);
    let mut hub = TestPlayer::new("airavata", &["max_per_user=100"], fault);
    for (conn, path) in (1..).zip(["/ws/experiments/e", "/ws/tasks/t", "/ws/projects/p", "/ws/user"]) {
        hub.input(MachineInput::Open { conn, handshake: request(path, Some(&token("u"))) });
    }
    let expired = sign(&json!({ "sub": "u", "exp": START }), KEY, "HS256");
    let forged = sign(&json!({ "sub": "u" }), "another", "HS256");
    for (conn, token) in (11..).zip([None, Some("x"), Some(forged.as_str()), Some(expired.as_str())]) {
        hub.input(MachineInput::Open { conn, handshake: request("/ws/user", token) });
    }
    let headers = vec![("authorization".to_owned(), format!("Bearer {}", token("u")))];
    hub.input(MachineInput::Open { conn: 20, handshake: Handshake { headers, ..request("/ws/user", None) } });
    for (conn, resource) in (21..).zip(["experiment e", "task t", "project p", "user u", "system x", "worker w"]) {
        hub.input(MachineInput::Open { conn, handshake: request("/ws/projects/another", Some(&token("other-user"))) });
        let (kind, id) = resource.split_once(' ').unwrap();
        hub.send(conn, &subscription("subscribe", kind, Some(id)));
    }
    hub.input(MachineInput::Open { conn: 27, handshake: request("/ws/user", Some(&token("v"))) });
    hub.send(
        27,
        r#"{"type":"system_status","id":"s","data":{"action":"subscribe","resourceType":"task","resourceId":"z"}}"#,
    );
    hub.send(27, &subscription("subscribe", "galaxy", Some("x")));
    for text in [
        r#"{"type":"ping"}"#,
        r#"{"type":"ping","id":"p"}"#,
        "{",
        "[]",
        "{}",
        r#"{"type":"nope"}"#,
        r#"{"type":"ping"}"#,
    ] {
        hub.send(27, text);
    }
    for _ in 0..2 {
        for event in events() {
            // A hub with a fault accepts these events, too.
            hub.event(&event).unwrap();
            hub.advance(Duration::from_millis(2));
        }
        hub.send(21, &subscription("unsubscribe", "experiment", Some("e")));
    }
    hub.advance(Duration::from_secs(61));
    hub.input(MachineInput::Closed { conn: 27 });
    hub.input(MachineInput::Open { conn: 28, handshake: request("/ws/user", Some(&token("v"))) });
    hub.input(MachineInput::Closed { conn: 22 });
    hub.input(MachineInput::Open { conn: 29, handshake: request("/ws/projects/another", Some(&token("other-user"))) });
    for event in events() {
        hub.event(&event).unwrap();
    }
    hub.input(MachineInput::Closed { conn: 1 });
    sent.append(&mut hub.sent);
    sent
}

fn limits(fault: Option<&str>) -> Vec<String> {
    let mut sent = Vec::new();
    for sets in
        [["max_per_user=1", "rate_limit=1"], ["max_per_ip=1", "rate_limit=0"], ["max_connections=1", "rate_limit=0"]]
    {
        let mut hub = TestPlayer::new("airavata", &sets, fault);
        for conn in 1..3 {
            hub.input(MachineInput::Open { conn, handshake: request("/ws/user", Some(&token("u"))) });
        }
        hub.send(1, r#"{"type":"ping"}"#);
        hub.send(1, r#"{"type":"ping"}"#);
        hub.input(MachineInput::Closed { conn: 1 });
        hub.input(MachineInput::Open { conn: 3, handshake: request("/ws/user", Some(&token("u"))) });
        sent.append(&mut hub.sent);
    }
    sent
}
