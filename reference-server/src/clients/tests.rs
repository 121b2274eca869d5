//! Clients without sockets, against scripts; and over sockets, against the reference hub.

use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_tungstenite::accept_async;

use super::tampering::{ClientFrame, take_frame};
use super::*;
use crate::{HubConfig, RunningServer, ServeConfig, start_server};

fn options(protocol: &str, does: &[&str], fault: Option<&str>, sets: &[&str]) -> ClientOptions {
    let mut settings = Settings::default();
    for set in sets {
        settings.set_pair(set).unwrap();
    }
    ClientOptions {
        protocol: protocol.to_owned(),
        url: "ws://hub".to_owned(),
        does: does.iter().map(|word| (*word).to_owned()).collect(),
        fault: fault.map(str::to_owned),
        settings,
        leaves: true,
    }
}

/// A client in simulated time, and what it has sent, a line per output.
struct Player {
    client: Client,
    now: Duration,
    sent: Vec<String>,
}

impl Player {
    fn start(options: &ClientOptions) -> Player {
        let client = Client::build(options, Some(1)).unwrap();
        let connect = client.connect();
        let mut player = Player { client, now: Duration::ZERO, sent: Vec::new() };
        player.record(vec![connect]);
        player
    }

    /// Starts a client that has connected, and forgets what it has sent so far.
    fn open(protocol: &str, does: &[&str]) -> Player {
        let mut player = Player::start(&options(protocol, does, None, &[]));
        player.input(ClientInput::Opened);
        player
    }

    fn record(&mut self, out: Vec<ClientOutput>) {
        let now = self.now.as_millis();
        self.sent.extend(out.into_iter().map(|output| match output {
            ClientOutput::Text(text) => text,
            ClientOutput::Connect { url, subprotocol } => {
                format!("{now} connect {url} {}", subprotocol.unwrap_or_default())
            }
            ClientOutput::Die => "die".to_owned(),
        }));
    }

    fn input(&mut self, input: ClientInput<'_>) {
        let out = self.client.handle(self.now, input);
        self.record(out);
    }

    fn receive(&mut self, message: &Value) {
        self.input(ClientInput::Text(&message.to_string()));
    }

    /// Lets time pass, with all ticks that fall due.
    fn wait(&mut self, seconds: f64) {
        let until = self.now + Duration::from_secs_f64(seconds);
        while let Some(due) = self.client.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.input(ClientInput::Tick);
        }
        self.now = until;
    }

    /// Takes what was sent, without connections.
    fn take(&mut self) -> Vec<Value> {
        let sent = std::mem::take(&mut self.sent);
        sent.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Takes one member of each message.
    fn take_members(&mut self, name: &str) -> Vec<Value> {
        self.take().iter().map(|message| message[name].clone()).collect()
    }
}

async fn hub(protocol: &str) -> RunningServer {
    start_server(ServeConfig { hubs: vec![HubConfig::new(protocol)], ..ServeConfig::default() }).await.unwrap()
}

async fn run_to_end(running: &RunningServer, mut options: ClientOptions) -> Result<(), ClientError> {
    options.url.clone_from(&running.hubs[0].url);
    timeout(Duration::from_secs(20), run(options)).await.expect("the client does not end")
}

#[rstest]
#[case("websocket", "")]
#[case("qi", "")]
#[case("qi", "request")]
#[case("qi", "session")]
#[case("qi", "two-sessions")]
#[case("qi", "request,session")]
#[case("concierge", "")]
#[case("concierge", "message")]
#[case("concierge", "group")]
#[case("gator", "")]
#[case("gator", "request")]
#[case("gator", "two-requests")]
#[case("gator", "log")]
#[case("airavata", "")]
#[case("airavata", "subscribe")]
#[case("airavata", "unsubscribe")]
#[case("airavata", "ping")]
#[case("emprops", "")]
#[case("emprops", "cancel")]
#[case("emprops", "status")]
#[case("emprops", "monitor")]
#[case("emprops", "upload")]
#[tokio::test]
async fn a_client_does_what_its_words_say(#[case] protocol: &str, #[case] does: &str) {
    let running = hub(protocol).await;
    let does: Vec<&str> = does.split_terminator(',').collect();
    run_to_end(&running, options(protocol, &does, None, &[])).await.unwrap();
    running.shutdown().await;
}

#[rstest]
#[case("work")]
#[case("fail")]
#[tokio::test]
async fn a_worker_does_the_job_that_a_client_submits(#[case] word: &str) {
    let running = hub("emprops").await;
    let worker = run_to_end(&running, options("emprops", &[word], None, &["step=0.01"]));
    let submitted = if word == "work" { "submit" } else { "status" };
    let (worker, client) = tokio::join!(worker, run_to_end(&running, options("emprops", &[submitted], None, &[])));
    worker.unwrap();
    client.unwrap();
    running.shutdown().await;
}

#[tokio::test]
async fn a_client_whose_work_is_not_done_reports_the_close() {
    let running = hub("concierge").await;
    let mut wrong = options("concierge", &[], Some("concierge-client-identifies-second"), &[]);
    wrong.leaves = false;
    let error = run_to_end(&running, wrong).await.unwrap_err().to_string();
    assert_eq!(error, "the hub closed the connection with 4003");
    running.shutdown().await;
}

#[rstest]
#[case(r#"{"action":"stop","req_id":23,"posted":false,"payload":{}}"#, &[r#"{"action":"stop","rsp_id":23,"result":"success","payload":{}}"#])]
#[case(r#"{"posted":null,"more":[1],"req_id":12345678901234567890123,"action":"stop"}"#, &[r#"{"action":"stop","rsp_id":12345678901234567890123,"result":"success","payload":{}}"#])]
#[case(r#"{"action":"stop"}"#, &[r#"{"action":"stop","result":"success","payload":{}}"#])]
#[case(r#"{"action":"stop","req_id":1,"posted":true}"#, &[])]
#[case(r#"{"action":"dance","req_id":1,"posted":true}"#, &[])]
#[case(r#"{"action":"dance","req_id":"a"}"#, &[r#"{"rsp_id":"a","result":"error","reason":"the actions are log and stop"}"#])]
#[case(r#"{"action":"log","req_id":2,"payload":{"message":"m"}}"#, &[r#"{"action":"log","rsp_id":2,"result":"success","payload":{}}"#])]
#[case(r#"{"action":"log","req_id":2,"payload":{"message":"m","severity":"LOUD"}}"#, &[r#"{"rsp_id":2,"result":"error","reason":"severity must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL"}"#])]
#[case(r#"{"posted":true,"req_id":3}"#, &[r#"{"rsp_id":3,"result":"error","reason":"failed to decode the message: member \"action\" is missing"}"#])]
#[case(r#"{"result":"error","rsp_id":77,"reason":"late"}"#, &[])]
fn gator_requests_of_the_hub_are_answered(#[case] request: &str, #[case] want: &[&str]) {
    let mut player = Player::open("gator", &[]);
    player.sent.clear();
    player.input(ClientInput::Text(request));
    assert_eq!(player.sent, want);
}

#[test]
fn a_gator_client_takes_answers_in_any_order() {
    let mut player = Player::open("gator", &["two-requests"]);
    assert_eq!(player.take_members("req_id"), [1, 2]);
    player.receive(&json!({ "result": "error", "rsp_id": 2, "reason": "no" }));
    assert!(!player.client.is_done());
    player.receive(&json!({ "payload": {}, "result": "success", "rsp_id": 1, "action": "log" }));
    assert!(player.client.is_done());
    assert!(player.sent.is_empty());
}

#[test]
fn a_qi_client_waits_for_the_replies_of_its_sessions() {
    let mut player = Player::open("qi", &["request", "two-sessions"]);
    assert_eq!(player.take_members("command"), ["get_static"]);
    player.receive(&json!({ "command": "news", "payload": {}, "version": "0.1.0" }));
    player.receive(&json!({ "session_id": "another", "status": "success", "version": "0.1.0" }));
    assert!(player.sent.is_empty());
    player.receive(&json!({ "status": "failure", "payload": "no", "version": "0.1.0" }));
    let sessions = player.take_members("session_id");
    assert!(sessions.len() == 2 && sessions[0] != sessions[1], "{sessions:?}");
    for session in sessions.iter().rev() {
        assert!(!player.client.is_done());
        player.receive(&json!({ "session_id": session, "status": "success", "version": "0.1.0" }));
    }
    assert!(player.client.is_done());
}

#[test]
fn a_concierge_client_picks_another_name_after_a_conflict() {
    let mut player = Player::open("concierge", &[]);
    player.input(ClientInput::Closed(Ok(4005)));
    player.input(ClientInput::Opened);
    assert_eq!(player.take_members("name"), ["anthony", "anthony-2"]);
    player.input(ClientInput::Closed(Ok(4007)));
    assert!(player.sent.is_empty(), "another version does not help");
}

#[test]
fn a_concierge_client_deletes_only_its_own_group() {
    let mut player = Player::open("concierge", &["group"]);
    player.receive(&json!({ "type": "HELLO", "uuid": "u", "version": "0.1.0" }));
    let status = |code: &str, name: &str| json!({ "type": "STATUS", "code": code, "name": name, "seq": 2 });
    let mut foreign = status("GROUP_CREATED", "simulation1_data");
    foreign.as_object_mut().unwrap().shift_remove("seq");
    player.receive(&foreign);
    player.receive(&status("GROUP_ALREADY_CREATED", "simulation1_data"));
    for code in ["GROUP_CREATED", "SUBSCRIBED", "UNSUBSCRIBED"] {
        player.receive(&status(code, "simulation1_data-2"));
    }
    let sent: Vec<String> = player.take().iter().map(|m| format!("{} {}", m["type"], m["name"])).collect();
    let group = "\"simulation1_data-2\"";
    let want = ["IDENTIFY", "GROUP_CREATE", "GROUP_CREATE", "SELF_SUBSCRIBE", "GROUP_DELETE"];
    let names = ["\"anthony\"", "\"simulation1_data\"", group, group, group];
    assert_eq!(sent, want.iter().zip(names).map(|(kind, name)| format!("\"{kind}\" {name}")).collect::<Vec<_>>());
    assert!(!player.client.is_done());
    player.receive(&status("GROUP_DELETED", "simulation1_data-2"));
    assert!(player.client.is_done());
}

#[test]
fn an_airavata_client_connects_again_after_growing_delays() {
    let mut player = Player::open("airavata", &["subscribe"]);
    for _ in 0..6 {
        player.input(ClientInput::Closed(Err("lost")));
        player.wait(20.0);
    }
    let connects: Vec<&str> = player.sent.iter().filter_map(|line| line.split_once(" connect")).map(|c| c.0).collect();
    assert_eq!(connects, ["0", "1000", "22000", "44000", "68000", "96000"]);
    assert!(player.sent[0].ends_with(&format!("/ws/experiments/exp-123?token={} ", token())), "{}", player.sent[0]);
    // A connection that was established counts anew, and needs a new subscription.
    let mut player = Player::open("airavata", &["subscribe"]);
    for _ in 0..6 {
        player.input(ClientInput::Closed(Ok(1001)));
        player.wait(1.0);
        player.input(ClientInput::Opened);
    }
    assert_eq!(player.take().len(), 7);
}

fn token() -> &'static str {
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1In0.V8IrrCE9HOkpwVnOwn0mXzCTwpZge3ca3FL2B7kI0yI"
}

#[rstest]
#[case("ws://h:1", "ws://h:1/ws/experiments/exp-123?token=T")]
#[case("ws://h:1/", "ws://h:1/ws/experiments/exp-123?token=T")]
#[case("ws://h:1/ws/user", "ws://h:1/ws/user?token=T")]
#[case("ws://h:1/ws/user?a=1", "ws://h:1/ws/user?a=1&token=T")]
#[case("ws://h:1/ws/user?token=U", "ws://h:1/ws/user?token=U")]
fn an_airavata_client_adds_path_and_token_where_they_are_missing(#[case] url: &str, #[case] want: &str) {
    let mut options = options("airavata", &[], None, &["token=T"]);
    options.url = url.to_owned();
    let ClientOutput::Connect { url, .. } = Client::build(&options, None).unwrap().connect() else { panic!() };
    assert_eq!(url, want);
}

#[test]
fn an_airavata_client_answers_each_ping_once() {
    let mut player = Player::open("airavata", &[]);
    for id in ["ping-1", "ping-2"] {
        player.receive(&json!({ "timestamp": "2024-01-15T10:30:00Z", "id": id, "type": "ping", "data": {} }));
    }
    player.receive(&json!({ "type": "pong", "id": "pong-1", "timestamp": "2024-01-15T10:30:00Z" }));
    player.receive(&json!({ "type": "error", "id": "error-1", "timestamp": "2024-01-15T10:30:00Z", "error": "no" }));
    assert_eq!(player.take_members("type"), ["pong", "pong"]);
}

/// Starts a worker that has been assigned a job.
fn busy_worker() -> Player {
    let mut player = Player::open("emprops", &["work"]);
    player.receive(&json!({ "type": "connection_established", "timestamp": 1 }));
    player.receive(&json!({ "type": "worker_registered", "worker_id": "worker-gpu-01", "timestamp": 1 }));
    player.receive(&json!({ "type": "job_available", "job_id": "j", "job_type": "t", "timestamp": 1 }));
    player.receive(&json!({ "type": "job_assigned", "job_id": "j", "worker_id": "worker-gpu-01", "timestamp": 1 }));
    player
}

#[test]
fn an_emprops_worker_claims_reports_and_completes() {
    let mut player = busy_worker();
    player.receive(&json!({ "type": "job_available", "job_id": "k", "job_type": "t", "timestamp": 1 }));
    player.wait(1.0);
    let steps = player.take();
    let steps: Vec<_> = steps.iter().map(|m| (m["type"].as_str().unwrap(), m["progress"].as_u64())).collect();
    let progress = |progress| ("update_job_progress", Some(progress));
    let want = [
        ("register_worker", None),
        ("claim_job", None),
        ("job_accepted_by_worker", None),
        progress(25),
        progress(50),
        progress(75),
        ("complete_job", None),
        ("claim_job", None),
    ];
    assert_eq!(steps, want);
}

#[test]
fn an_emprops_worker_that_is_not_registered_claims_nothing() {
    let mut player = Player::open("emprops", &["work"]);
    player.receive(&json!({ "type": "connection_established", "timestamp": 1 }));
    player.receive(&json!({ "type": "error", "error": "Invalid worker token", "timestamp": 1 }));
    player.receive(&json!({ "type": "job_available", "job_id": "j", "job_type": "t", "timestamp": 1 }));
    assert_eq!(player.take_members("type"), ["register_worker"]);
}

#[rstest]
#[case::cancelled(json!({ "type": "job_cancelled", "job_id": "j", "status": "cancelled" }))]
#[case::update(json!({ "type": "job_update", "job_id": "j", "status": "cancelled", "worker_id": "worker-gpu-01" }))]
#[case::queued_again(json!({ "type": "job_update", "job_id": "j", "status": "queued" }))]
#[case::another_worker(json!({ "type": "job_update", "job_id": "j", "status": "assigned", "worker_id": "w" }))]
#[case::error(json!({ "type": "error", "error": "not yours", "details": { "job_id": "j" } }))]
fn an_emprops_worker_reports_nothing_on_a_job_it_lost(#[case] loss: Value) {
    let mut player = busy_worker();
    player.wait(0.3);
    player.take();
    player.receive(&loss);
    player.wait(5.0);
    assert_eq!(player.take(), [Value::Null; 0]);
    // News of other jobs, or of its own progress, change nothing.
    let mut player = busy_worker();
    player.receive(&json!({ "type": "job_update", "job_id": "other", "status": "cancelled" }));
    player.receive(&json!({ "type": "job_update", "job_id": "j", "status": "in_progress", "progress": 25 }));
    player.wait(5.0);
    assert_eq!(player.take_members("type").last().unwrap(), "complete_job");
}

#[test]
fn an_emprops_worker_sends_heartbeats_before_they_are_expected() {
    let mut player = busy_worker();
    player.wait(29.0);
    player.take();
    player.wait(2.0);
    assert_eq!(player.take_members("status"), ["idle"]);
    // In 10 s of the client's clock, which started at this time.
    let expected = 1_705_312_345_000_u64 + 31_000 + 10_000;
    player.receive(&json!({ "type": "worker_heartbeat_ack", "next_heartbeat_expected": expected }));
    player.wait(9.0);
    assert_eq!(player.take().len(), 1);
    player.receive(&json!({ "type": "worker_heartbeat_ack", "next_heartbeat_expected": 5 }));
    player.wait(25.0);
    assert_eq!(player.take().len(), 0, "a time in the past says nothing");
}

#[test]
fn an_emprops_client_returns_when_the_hub_wants_it_back() {
    let mut player = busy_worker();
    let after = 1_705_312_345_000_u64 + 5_000;
    player.receive(&json!({ "type": "server_disconnect", "reconnect_after": after, "timestamp": 1 }));
    player.input(ClientInput::Closed(Ok(1001)));
    player.sent.clear();
    player.wait(60.0);
    assert_eq!(player.sent, ["5000 connect ws://hub "]);
    let mut player = busy_worker();
    player.input(ClientInput::Closed(Ok(1011)));
    assert_eq!(player.client.deadline(), None);
}

#[rstest]
#[case("qi", "dance", &[], "it can do request, session, two-sessions")]
#[case("qi", "", &["x=1"], "unknown field")]
#[case("airavata", "", &["reconnect=-1"], "negative")]
#[case("mqtt", "", &[], "there are clients for qi, ")]
fn a_wrong_option_is_explained(#[case] protocol: &str, #[case] word: &str, #[case] sets: &[&str], #[case] why: &str) {
    let does: &[&str] = if word.is_empty() { &[] } else { &[word] };
    let error = Client::build(&options(protocol, does, None, sets), None).map(drop).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

/// One step of a script.
enum Step {
    Opened,
    Receive(&'static str),
    Lose,
    /// Seconds.
    Wait(f64),
}

use Step::{Lose, Opened, Receive, Wait};

/// Scripts in which every fault of the protocol shows: the words, and the hub's side.
fn scripts(protocol: &str) -> Vec<(&'static [&'static str], Vec<Step>)> {
    const HELLO: Step = Receive(r#"{"type":"HELLO","uuid":"u","version":"0.1.0"}"#);
    const ESTABLISHED: Step = Receive(r#"{"type":"connection_established"}"#);
    const REGISTERED: Step = Receive(r#"{"type":"client_registered"}"#);
    const ACCEPTED: Step = Receive(r#"{"type":"job_accepted","job_id":"j"}"#);
    const PING: Step = Receive(r#"{"type":"ping","id":"ping-1"}"#);
    let second_session = || {
        let mut ids = UuidStream::new(Some(1));
        let id = [ids.next_uuid(), ids.next_uuid()][1];
        Receive(format!(r#"{{"status":"success","session_id":"{id}"}}"#).leak())
    };
    let assigned = || {
        [
            Opened,
            ESTABLISHED,
            Receive(r#"{"type":"worker_registered"}"#),
            Receive(r#"{"type":"job_available","job_id":"j","job_type":"t"}"#),
            Receive(r#"{"type":"job_assigned","job_id":"j"}"#),
            Wait(0.3),
        ]
    };
    match protocol {
        "qi" => vec![
            (&["request"], vec![Opened, Receive("{\"status\":\"failure\",\"version\":\"0.1.0\"}\r\n")]),
            (&["two-sessions"], vec![Opened, second_session()]),
        ],
        "concierge" => vec![
            (
                &[],
                vec![
                    Opened,
                    Receive("{\"type\":\"HELLO\",\"motd\":1}\r\n"),
                    Receive(r#"{"type":"MESSAGE"}"#),
                    Receive(r#"{"type":"STATUS","code":"BAD"}"#),
                ],
            ),
            (&["message"], vec![Opened, Wait(6.0), HELLO]),
            (&[], vec![Opened, Lose, Opened]),
            (
                &["group"],
                vec![
                    Opened,
                    HELLO,
                    Receive(r#"{"type":"STATUS","code":"GROUP_ALREADY_CREATED","name":"simulation1_data","seq":2}"#),
                ],
            ),
        ],
        "gator" => vec![
            (&["log"], vec![Opened]),
            (
                &["two-requests"],
                vec![
                    Opened,
                    Receive(r#"{"action":"stop","req_id":5}"#),
                    Receive(r#"{"action":"stop","req_id":6,"posted":true}"#),
                    Receive(r#"{"action":"dance","req_id":7}"#),
                    Receive("{"),
                    Receive(r#"{"action":"stop"}"#),
                    Receive(r#"{"action":"stop","req_id":"a"}"#),
                    Receive("{\"result\":\"error\",\"rsp_id\":1}\r\n"),
                ],
            ),
            (&[], (0..12).map(|_| Receive(r#"{"action":"stop","req_id":8}"#)).collect()),
        ],
        "airavata" => vec![
            (
                &["unsubscribe"],
                vec![
                    Opened,
                    PING,
                    Receive(
                        r#"{"type":"system_status","data":{"action":"subscribed","resourceType":"experiment","resourceId":"exp-123","status":"success"}}"#,
                    ),
                ],
            ),
            (
                &[],
                vec![
                    Receive("{\"type\":\"pong\",\"id\":\"p\"}\r\n"),
                    Receive(r#"{"type":"error"}"#),
                    Receive(r#"{"type":"task_created"}"#),
                ],
            ),
            (&[], (0..7).flat_map(|_| [Lose, Wait(40.0)]).collect()),
        ],
        "emprops" => vec![
            (&["cancel", "status"], vec![Opened, ESTABLISHED, PING, REGISTERED, ACCEPTED]),
            (
                &[],
                vec![
                    Receive("{\"type\":\"client_registered\",\"x_further\":1}\r\n"),
                    Receive(r#"{"type":"error"}"#),
                    Receive(r#"{"type":"ack"}"#),
                ],
            ),
            (&["upload"], vec![Opened, ESTABLISHED, REGISTERED]),
            (&["work"], assigned().into_iter().chain([Wait(100.0)]).collect()),
            (&["fail"], assigned().into_iter().chain([Wait(100.0)]).collect()),
            (
                &["work"],
                assigned()
                    .into_iter()
                    .chain([Receive(r#"{"type":"job_cancelled","job_id":"j","status":"cancelled"}"#), Wait(5.0)])
                    .collect(),
            ),
            (
                &[],
                vec![
                    Opened,
                    Receive(r#"{"type":"server_disconnect","reconnect_after":1705312405000}"#),
                    Lose,
                    Wait(90.0),
                ],
            ),
        ],
        _ => Vec::new(),
    }
}

/// Returns what a client sends in the scripts of its protocol.
fn play_scripts(protocol: &str, fault: Option<&str>) -> Vec<String> {
    let mut sent = Vec::new();
    for (does, steps) in scripts(protocol) {
        let mut player = Player::start(&options(protocol, does, fault, &[]));
        for step in steps {
            match step {
                Opened => player.input(ClientInput::Opened),
                Receive(text) => player.input(ClientInput::Text(text)),
                // A conflict of names in concierge, some loss elsewhere.
                Lose => player.input(ClientInput::Closed(Ok(4005))),
                Wait(seconds) => player.wait(seconds),
            }
        }
        sent.push(format!("{} at {}", does.join(","), player.now.as_millis()));
        sent.append(&mut player.sent);
    }
    sent
}

#[test]
fn each_fault_changes_what_its_client_sends() {
    let below =
        |fault: &&ClientFault| matches!(fault.effect, ClientFaultEffect::Frames(_) | ClientFaultEffect::Upgrade(..));
    for fault in faults().iter().filter(|fault| !below(fault)) {
        assert_ne!(play_scripts(fault.protocol, Some(&fault.id)), play_scripts(fault.protocol, None), "{}", fault.id);
    }
}

#[test]
fn machines_check_for_exactly_the_faults_declared_as_code() {
    let code = [
        include_str!("airavata.rs"),
        include_str!("concierge.rs"),
        include_str!("emprops.rs"),
        include_str!("gator.rs"),
        include_str!("qi.rs"),
    ];
    for (protocol, code) in ["airavata", "concierge", "emprops", "gator", "qi"].iter().zip(code) {
        let mut checked: Vec<&str> =
            code.split("is_broken(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        checked.sort_unstable();
        checked.dedup();
        let inside = |fault: &&ClientFault| matches!(fault.effect, ClientFaultEffect::Inside);
        let mut declared: Vec<&str> = faults()
            .iter()
            .filter(|fault| fault.protocol == *protocol)
            .filter(inside)
            .map(|fault| fault.name)
            .collect();
        declared.sort_unstable();
        assert_eq!(checked, declared, "{protocol}");
    }
}

/// Plays a hub that pings, waits for a text, closes with 1000, and returns what the client has sent, a line per frame.
async fn play_frames(fault: Option<&str>) -> Vec<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = options("qi", &["request"], fault, &[]);
    options.url = format!("ws://{}", listener.local_addr().unwrap());
    let client = tokio::spawn(run(options));
    let (stream, _) = listener.accept().await.unwrap();
    // The client sends no frame before the upgrade is granted, so nothing is lost here.
    let mut stream = accept_async(stream).await.unwrap().into_inner();
    stream.write_all(b"\x89\x02hi").await.unwrap();
    let (mut bytes, mut frames, mut closed) = (Vec::new(), Vec::new(), false);
    while let Ok(1..) = timeout(Duration::from_secs(10), stream.read_buf(&mut bytes)).await.unwrap() {
        while let Some(ClientFrame { header, payload }) = take_frame(&mut bytes) {
            let masked = if header.mask.is_some() { "masked" } else { "unmasked" };
            let reserved = if header.rsv1 { " reserved" } else { "" };
            let half = if header.is_final { "" } else { " half" };
            let payload = String::from_utf8(payload).unwrap_or_else(|_| "not UTF-8".to_owned());
            let payload = if payload.contains("command") { "request" } else { &payload };
            frames.push(format!("{masked}{reserved}{half} {} {payload}", header.opcode));
        }
        if !closed && frames.iter().any(|frame| !frame.contains("PONG")) {
            closed = true;
            stream.write_all(b"\x81\x26{\"status\":\"success\",\"version\":\"0.1.0\"}").await.unwrap();
            stream.write_all(b"\x88\x02\x03\xe8").await.unwrap();
        }
    }
    let _ = client.await.unwrap();
    frames
}

#[rstest]
#[case::none("", ["masked TEXT request", "masked PONG hi", "masked CLOSE not UTF-8"])]
#[case::unmasked("unmasked", ["unmasked TEXT request", "unmasked PONG hi", "unmasked CLOSE not UTF-8"])]
#[case::bit("reserved-bit", ["masked reserved TEXT request", "masked PONG hi", "masked CLOSE not UTF-8"])]
#[case::no_close("no-close", ["masked TEXT request", "masked PONG hi", ""])]
#[case::late_text("text-after-close", ["masked PONG hi", "masked CLOSE not UTF-8", "masked TEXT {}"])]
#[case::no_pong("no-pong", ["masked TEXT request", "masked CLOSE not UTF-8", ""])]
#[case::other_pong("other-pong", ["masked TEXT request", "masked PONG another payload", "masked CLOSE not UTF-8"])]
#[case::not_utf8("not-utf-8", ["masked TEXT not UTF-8", "masked PONG hi", "masked CLOSE not UTF-8"])]
#[case::opcode("reserved-opcode", ["masked RESERVED_DATA_3 request", "masked PONG hi", "masked CLOSE not UTF-8"])]
#[case::stray("stray-continuation", ["masked CONTINUE request", "masked PONG hi", "masked CLOSE not UTF-8"])]
#[case::half_ping("half-ping", ["masked TEXT request", "masked half PING ", "masked PONG hi"])]
#[case::short_close("short-close", ["masked TEXT request", "masked PONG hi", "masked CLOSE \u{3}"])]
#[case::close_1005("close-1005", ["masked TEXT request", "masked PONG hi", "masked CLOSE not UTF-8"])]
#[case::binary("binary", ["masked TEXT request", "masked BINARY request", "masked PONG hi"])]
#[tokio::test]
async fn a_fault_of_frames_changes_only_these_frames(#[case] fault: &str, #[case] want: [&str; 3]) {
    let protocol = if fault == "binary" { "qi" } else { fault::ANY_PROTOCOL };
    let id = format!("{protocol}-client-{fault}");
    let mut frames = play_frames(Some(id.as_str()).filter(|_| !fault.is_empty())).await;
    if fault == "text-after-close" {
        assert_eq!(frames.remove(0), "masked TEXT request");
    }
    frames.resize(3, String::new());
    assert_eq!(frames, want);
}

#[rstest]
#[case::masked("takes-masked", b"\x81\x80\x01\x02\x03\x04", 1002)]
#[case::bit("takes-reserved", b"\x91\x00", 1002)]
#[case::opcode("takes-reserved", b"\x83\x00", 1002)]
#[case::stray("takes-stray", b"\x80\x00", 1002)]
#[case::half_ping("takes-wrong-control", b"\x09\x00", 1002)]
#[case::not_utf8("takes-not-utf8", b"\x81\x01\xff", 1007)]
#[case::pong("refuses-pong", b"\x8a\x00", 1002)]
#[tokio::test]
async fn a_client_fails_the_connection_after_an_invalid_frame_unless_it_has_the_fault(
    #[case] fault: &str,
    #[case] frame: &[u8],
    #[case] code: u16,
    #[values(false, true)] broken: bool,
) {
    // Only the fault takes a pong for an error.
    let fails = broken == (fault == "refuses-pong");
    let fault = broken.then(|| format!("{}-client-{fault}", fault::ANY_PROTOCOL));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = options("qi", &[], fault.as_deref(), &[]);
    options.url = format!("ws://{}", listener.local_addr().unwrap());
    options.leaves = false;
    let client = tokio::spawn(run(options));
    let mut stream = accept_async(listener.accept().await.unwrap().0).await.unwrap().into_inner();
    stream.write_all(frame).await.unwrap();
    stream.write_all(b"\x88\x02\x03\xe8").await.unwrap();
    let mut bytes = Vec::new();
    let close = loop {
        let read = timeout(Duration::from_secs(10), stream.read_buf(&mut bytes)).await.unwrap();
        assert!(matches!(read, Ok(1..)), "no close frame");
        if let Some(frame) = take_frame(&mut bytes) {
            break frame;
        }
    };
    assert_eq!(close.payload, if fails { code } else { 1000 }.to_be_bytes());
    drop(stream);
    assert_eq!(client.await.unwrap().is_err(), fails);
}
