//! Gator over real sockets: a tree of hubs, outgoing connections, a log file.

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::{accept_async, connect_async};

use super::*;

async fn hub(sets: &[&str]) -> RunningServer {
    super::hub("gator", sets).await
}

async fn connect(hub: &RunningServer, path: &str) -> WebSocketClient {
    connect_async(format!("{}{path}", hub.hubs[0].url)).await.unwrap().0
}

async fn ask(client: &mut WebSocketClient, request: Value) -> Value {
    send(client, &request.to_string()).await;
    receive(client).await
}

async fn event(hub: &RunningServer, event: Value) -> Value {
    admin_request(hub, "POST", "/events/gator", &event.to_string()).await.1
}

/// Waits until the hub's state has this value.
async fn wait_for_state(hub: &RunningServer, pointer: &str, want: Value) {
    let wait = async {
        while admin_request(hub, "GET", "/state/gator", "").await.1.pointer(pointer) != Some(&want) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), wait).await.expect("the hub gets to this state");
}

#[tokio::test]
async fn logs_go_up_and_stops_go_down_a_tree_of_hubs() {
    let top = hub(&[]).await;
    let middle = hub(&[&format!("parent={}", top.hubs[0].url)]).await;
    wait_for_state(&middle, "/parents/0/there", json!(true)).await;
    let bottom = hub(&[]).await;
    let place = event(&middle, json!({ "register_child": { "name": "bottom" } })).await["path"].clone();
    let url = format!("{}{}", middle.hubs[0].url, place.as_str().unwrap());
    event(&bottom, json!({ "connect_up": { "url": url } })).await;
    wait_for_state(&middle, "/children/bottom", json!(true)).await;

    let mut task = connect(&bottom, "/").await;
    let mut watcher = connect(&middle, "/").await;
    let log =
        json!({ "action": "log", "req_id": 1, "payload": { "timestamp": 5, "severity": "ERROR", "message": "x" } });
    assert_eq!(ask(&mut task, log).await["result"], "success");
    wait_for_state(&top, "/logged", json!(1)).await;
    let entries = event(&top, json!({ "log_entries": { "message": "x" } })).await;
    assert_eq!(entries, json!([{ "timestamp": 5, "severity": "ERROR", "message": "x" }]));

    assert_eq!(ask(&mut watcher, json!({ "action": "stop", "req_id": 2 })).await["rsp_id"], 2);
    wait_for_state(&bottom, "/stops", json!(1)).await;
    for hub in [bottom, middle, top] {
        timeout(Duration::from_secs(5), hub.shutdown()).await.expect("shutdown ends");
    }
}

#[tokio::test]
async fn a_hub_connects_to_its_parent_as_a_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hub = hub(&[]).await;
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let answer = event(&hub, json!({ "connect_up": { "url": url } })).await;
    assert_eq!(answer, json!({ "url": url, "parents": 1 }));
    let mut parent = accept_async(listener.accept().await.unwrap().0).await.unwrap();
    let mut task = connect(&hub, "/").await;
    ask(&mut task, json!({ "action": "log", "payload": { "message": "up" } })).await;
    assert_eq!(receive(&mut parent).await["payload"]["message"], "up");
    send(&mut parent, r#"{"action":"stop","req_id":1}"#).await;
    assert_eq!(receive(&mut parent).await["rsp_id"], 1);
    parent.close(None).await.unwrap();
    wait_for_state(&hub, "/parents", json!([])).await;
    hub.shutdown().await;
}

#[tokio::test]
async fn a_missing_parent_is_harmless() {
    // A port without a listener.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let hub = hub(&[]).await;
    event(&hub, json!({ "connect_up": { "url": format!("ws://{free}") } })).await;
    wait_for_state(&hub, "/parents", json!([])).await;
    // A parent that never answers must not keep the hub from shutting down.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    event(&hub, json!({ "connect_up": { "url": format!("ws://{}", silent.local_addr().unwrap()) } })).await;
    let mut task = connect(&hub, "/").await;
    ask(&mut task, json!({ "action": "log", "payload": { "message": "x" } })).await;
    timeout(Duration::from_secs(5), hub.shutdown()).await.expect("shutdown ends");
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn the_log_file_outlives_the_hub() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.sqlite", std::process::id()));
    let set = format!("database={}", file.display());
    let first = hub(&[&set]).await;
    let mut task = connect(&first, "/").await;
    ask(&mut task, json!({ "action": "log", "payload": { "timestamp": 5.5, "message": "x" } })).await;
    first.shutdown().await;
    let second = hub(&[&set]).await;
    let entries = event(&second, json!({ "log_entries": { "message": "x" } })).await;
    assert_eq!(entries, json!([{ "timestamp": 5.5, "severity": "INFO", "message": "x" }]));
    second.shutdown().await;
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", file.display()));
    }
}
