//! A hub over ZeroMQ, with a client that is a plain TCP stream.

use hubproof_reference::{HubConfig, RunningServer, ServeConfig, start_server};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Duration, SocketAddr, admin_request, connect, receive, start};

const TIME: Duration = Duration::from_secs(10);

/// A connection to a ZeroMQ socket, after the handshake.
struct Peer(TcpStream);

impl Peer {
    async fn connect(address: SocketAddr, socket_type: &str) -> Peer {
        let mut peer = Peer(TcpStream::connect(address).await.unwrap());
        let mut greeting = [0; 64];
        greeting[..16].copy_from_slice(b"\xff\0\0\0\0\0\0\0\0\x7f\x03\x01NULL");
        peer.0.write_all(&greeting).await.unwrap();
        let ready = format!("\x05READY\x0bSocket-Type\0\0\0{}{socket_type}", socket_type.len() as u8 as char);
        peer.send(4, ready.as_bytes()).await;
        let mut received = [0; 64];
        timeout(TIME, peer.0.read_exact(&mut received)).await.expect("no greeting").unwrap();
        assert_eq!(received[10..17], *b"\x03\0NULL\0");
        assert_eq!(peer.receive().await.0, 4);
        peer
    }

    async fn send(&mut self, flags: u8, body: &[u8]) {
        let head = [&[flags | 2], &(body.len() as u64).to_be_bytes()[..]].concat();
        self.0.write_all(&[&head, body].concat()).await.unwrap();
    }

    /// Receives a frame, and returns its flags without LONG, and its body.
    async fn receive(&mut self) -> (u8, Vec<u8>) {
        let frame = async {
            let flags = self.0.read_u8().await?;
            let size = if flags & 2 == 0 { self.0.read_u8().await?.into() } else { self.0.read_u64().await? };
            let mut body = vec![0; size as usize];
            self.0.read_exact(&mut body).await?;
            Ok::<_, std::io::Error>((flags & !2, body))
        };
        timeout(TIME, frame).await.expect("the hub sends nothing").unwrap()
    }

    /// Sends a request with an envelope of one identity.
    async fn ask(&mut self, session: &str, command: &str) {
        self.send(1, b"proxy").await;
        self.send(1, b"").await;
        let request = json!({ "session_id": session, "command": command, "version": "0.1.0" });
        self.send(0, request.to_string().as_bytes()).await;
    }

    /// Receives a reply with this envelope.
    async fn reply(&mut self) -> Value {
        assert_eq!(self.receive().await, (1, b"proxy".to_vec()));
        assert_eq!(self.receive().await, (1, Vec::new()));
        self.message().await
    }

    /// Receives a message of one frame.
    async fn message(&mut self) -> Value {
        let (flags, body) = self.receive().await;
        assert_eq!(flags, 0);
        serde_json::from_slice(&body).unwrap()
    }

    /// Waits until the hub has handled everything before.
    async fn settle(&mut self) {
        self.send(4, b"\x04PING\0\0").await;
        assert_eq!(self.receive().await, (4, b"\x04PONG".to_vec()));
    }

    async fn wait_for_end(mut self) {
        let mut rest = Vec::new();
        // A reset ends it, too.
        let _ = timeout(TIME, self.0.read_to_end(&mut rest)).await.expect("the connection stays open");
    }
}

/// A hub with its ZeroMQ addresses.
async fn hub(fault: Option<&str>) -> (RunningServer, [SocketAddr; 2]) {
    let config = HubConfig {
        zeromq: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        fault: fault.map(str::to_owned),
        max_message: 1000,
        ..HubConfig::new("qi")
    };
    let running = start(vec![config]).await;
    let addresses = running.hubs[0].zeromq.unwrap();
    (running, addresses)
}

async fn event(running: &RunningServer, event: Value) -> Value {
    let (status, answer) = admin_request(running, "POST", "/events/qi", &event.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test]
async fn requests_of_a_connection_are_answered_in_order() {
    let (running, [replies, _]) = hub(None).await;
    let mut dealer = Peer::connect(replies, "DEALER").await;
    event(&running, json!({ "hold": { "command": "get_static" } })).await;
    for number in 0..50 {
        dealer.ask(&number.to_string(), if number == 7 { "get_static" } else { "ping" }).await;
    }
    for number in 0..7 {
        assert_eq!(dealer.reply().await["session_id"], number.to_string());
    }
    // Another connection does not wait for the request that is held. Anything but a text is an unreadable request.
    let mut req = Peer::connect(replies, "REQ").await;
    for body in [&b"{}"[..], b"\xff", b""] {
        req.send(1, b"").await;
        req.send(0, body).await;
        assert_eq!(req.receive().await, (1, Vec::new()));
        assert_eq!(req.message().await["status"], "failure");
    }
    event(&running, json!({ "release": { "command": "get_static" } })).await;
    for number in 7..50 {
        assert_eq!(dealer.reply().await["session_id"], number.to_string());
    }
}

#[tokio::test]
async fn published_messages_go_once_to_each_subscriber() {
    let (running, [replies, publishes]) = hub(None).await;
    let mut requester = Peer::connect(replies, "DEALER").await;
    let mut websocket = connect(&running, 0).await;
    let [mut all, mut some, mut none] = [
        Peer::connect(publishes, "SUB").await,
        Peer::connect(publishes, "XSUB").await,
        Peer::connect(publishes, "SUB").await,
    ];
    all.send(0, b"\x01").await;
    all.send(0, b"\x01{").await;
    some.send(4, b"\x09SUBSCRIBE{\"command\":\"b").await;
    for subscriber in [&mut all, &mut some, &mut none] {
        subscriber.settle().await;
    }
    for command in ["a", "b"] {
        // The one without a subscription is not a client.
        assert_eq!(event(&running, json!({ "publish": { "command": command } })).await, json!({ "published": 3 }));
    }
    let names = |message: Value| message["command"].as_str().unwrap().to_owned();
    assert_eq!([names(all.message().await), names(all.message().await)], ["a", "b"]);
    assert_eq!(names(some.message().await), "b");
    assert_eq!([names(receive(&mut websocket).await), names(receive(&mut websocket).await)], ["a", "b"]);
    for subscriber in [&mut all, &mut some, &mut none] {
        subscriber.settle().await;
    }
    requester.ask("s", "ping").await;
    assert_eq!(requester.reply().await["session_id"], "s");
    running.shutdown().await;
    for peer in [all, some, none, requester] {
        peer.wait_for_end().await;
    }
}

#[tokio::test]
async fn faults_of_messages_show_over_zeromq() {
    let (_running, [replies, _]) = hub(Some("qi-reply-version-short")).await;
    let mut dealer = Peer::connect(replies, "DEALER").await;
    dealer.ask("s", "ping").await;
    assert_eq!(dealer.reply().await["version"], "0.1");
    let (running, [_, publishes]) = hub(Some("qi-published-to-one")).await;
    let mut subscribers = [Peer::connect(publishes, "SUB").await, Peer::connect(publishes, "SUB").await];
    for subscriber in &mut subscribers {
        subscriber.send(0, b"\x01").await;
        subscriber.settle().await;
    }
    event(&running, json!({ "publish": { "command": "news" } })).await;
    assert_eq!(subscribers[0].message().await["command"], "news");
    subscribers[1].settle().await;
}

#[rstest]
#[case::garbage(b"\xf8garbage")]
#[case::long_message(b"\x02\0\0\0\0\0\0\x03\xe9")]
#[case::endless_message(b"\x02\x7f\xff\xff\xff\xff\xff\xff\xff")]
#[tokio::test]
async fn a_peer_that_breaks_the_rules_is_disconnected_and_others_are_served(#[case] bytes: &[u8]) {
    let (running, [replies, publishes]) = hub(None).await;
    let mut other = Peer::connect(replies, "DEALER").await;
    let mut peer = Peer::connect(replies, "DEALER").await;
    peer.ask("s", "ping").await;
    peer.0.write_all(bytes).await.unwrap();
    assert_eq!(peer.reply().await["session_id"], "s", "what came before is answered");
    peer.wait_for_end().await;
    let mut subscriber = Peer::connect(publishes, "SUB").await;
    subscriber.0.write_all(b"\x02\0\0\0\0\0\x01\0\x01").await.unwrap();
    subscriber.wait_for_end().await;
    other.ask("t", "ping").await;
    assert_eq!(other.reply().await["session_id"], "t");
    let (_, state) = admin_request(&running, "GET", "/state/qi", "").await;
    assert_eq!(state["connections"], 1);
}

#[tokio::test]
async fn other_protocols_are_not_served_over_zeromq() {
    let zeromq = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let config = ServeConfig { hubs: vec![HubConfig { zeromq, ..HubConfig::new("gator") }], ..ServeConfig::default() };
    let error = start_server(config).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("gator cannot be served over ZeroMQ"), "{error}");
}
