//! The relay over real sockets: it makes its one change, all other bytes arrive unchanged, and a disconnect or reset
//! on one side becomes one on the other.

#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hubproof_reference::fault::{ChangeAction, FrameCondition, OutputChange, select_frames};
use hubproof_reference::relay::mutation::FRAME_DELAY;
use hubproof_reference::relay::{
    Relay, RelayConfig, RelayEventKind, RelayObserver, RelayTask, RelayedHub, start_relay,
};
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

/// Longer than any test takes unless it hangs.
const TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST: &[u8] = b"GET /ws?a=%20b HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nX-Mine: 1\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 101 Odd Words\r\nSec-WebSocket-Protocol: p\r\nX-Theirs: 2\r\n\r\n";

/// A relay, a client of it, and the hub's side of that connection.
struct RelayedConnection {
    relay: Relay,
    client: TcpStream,
    hub: TcpStream,
}

/// The hub at an address, with `path` before the path of each request.
fn relayed_hub(address: SocketAddr, path: &'static str) -> RelayedHub {
    RelayedHub {
        authority: address.to_string(),
        host: address.ip().to_string(),
        port: address.port(),
        tls: None,
        refuses_pages: false,
        target: std::sync::Arc::new(move |asked| format!("{path}{asked}")),
    }
}

async fn start_relayed_connection(change: Option<OutputChange>) -> RelayedConnection {
    start_connection(change.map_or(RelayTask::Pass, RelayTask::Change)).await
}

async fn start_connection(task: RelayTask) -> RelayedConnection {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hub = relayed_hub(listener.local_addr().unwrap(), "/api");
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let relay = start_relay(RelayConfig { hub, listen, task }).await.unwrap();
    let mut client = TcpStream::connect(relay.url.strip_prefix("ws://").unwrap()).await.unwrap();
    client.write_all(REQUEST).await.unwrap();
    let (hub, _) = timeout(TIMEOUT, listener.accept()).await.unwrap().unwrap();
    RelayedConnection { relay, client, hub }
}

async fn start_upgraded_connection(change: Option<OutputChange>) -> RelayedConnection {
    upgrade(start_relayed_connection(change).await).await
}

async fn upgrade(mut three: RelayedConnection) -> RelayedConnection {
    let addr = three.hub.local_addr().unwrap();
    let want = format!("GET /api/ws?a=%20b HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nX-Mine: 1\r\n\r\n");
    assert_eq!(read_bytes(&mut three.hub, want.len()).await, want.as_bytes());
    three.hub.write_all(ANSWER).await.unwrap();
    assert_eq!(read_bytes(&mut three.client, ANSWER.len()).await, ANSWER);
    three
}

async fn read_bytes(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    timeout(TIMEOUT, stream.read_exact(&mut bytes)).await.expect("the bytes do not come").unwrap();
    bytes
}

/// Reads to the end of the stream.
async fn read_to_end(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    timeout(TIMEOUT, stream.read_to_end(&mut bytes)).await.expect("the stream does not end")?;
    Ok(bytes)
}

/// Builds a frame of a server: FIN and opcode, then the payload.
fn server_frame(first: u8, payload: &str) -> Vec<u8> {
    [&[first, u8::try_from(payload.len()).unwrap()], payload.as_bytes()].concat()
}

const MESSAGE_A: &str = r#"{"t":"a","n":1}"#;
const MESSAGE_B: &str = r#"{"t":"b"}"#;
fn message_a() -> Vec<FrameCondition> {
    vec![FrameCondition::Is("/t".into(), "a".into())]
}

#[rstest]
#[case::nothing(None)]
#[case::elsewhere(Some(select_frames(vec![FrameCondition::Has("/absent".into())]).with_action(ChangeAction::Drop)))]
#[case::no_such_member(Some(select_frames(message_a()).with_action(ChangeAction::Remove("/absent".into()))))]
#[tokio::test]
async fn traffic_without_a_matching_change_passes_unmodified(#[case] change: Option<OutputChange>) {
    let is_parsed = change.is_some();
    let mut three = start_upgraded_connection(change).await;
    let sent = [
        server_frame(0x81, MESSAGE_A),
        server_frame(0x01, r#"{"t":"#),
        server_frame(0x89, "ping"),
        server_frame(0x00, ""),
        server_frame(0x80, r#""a"}"#),
        server_frame(0x82, "\0\u{1}"),
        server_frame(0x8a, ""),
        server_frame(0x81, "no JSON"),
        // The close code 999, which libraries do not send.
        vec![0x88, 4, 0x03, 0xe7, b'o', b'k'],
        b"and what follows".to_vec(),
    ]
    .concat();
    three.hub.write_all(&sent).await.unwrap();
    three.client.write_all(b"\x89\x80abcdmasked").await.unwrap();
    // Where frames may change, a ping within a message is passed on before it; everything else keeps its order.
    let within = server_frame(0x89, "ping");
    let begun = server_frame(0x01, r#"{"t":"#);
    let mut expected = sent.clone();
    let at = server_frame(0x81, MESSAGE_A).len();
    if is_parsed {
        expected.splice(at..at + begun.len() + within.len(), [within, begun].concat());
    }
    assert_eq!(read_bytes(&mut three.client, sent.len()).await, expected);
    assert_eq!(read_bytes(&mut three.hub, 12).await, b"\x89\x80abcdmasked");
    assert_eq!(timeout(TIMEOUT, three.relay.shutdown()).await.unwrap(), 0);
}

#[rstest]
#[case::drop(ChangeAction::Drop, &[server_frame(0x81, MESSAGE_B)], 1)]
#[case::double(ChangeAction::Double, &[server_frame(0x81, MESSAGE_A), server_frame(0x81, MESSAGE_A), server_frame(0x81, MESSAGE_B)], 1)]
#[case::swap(ChangeAction::Swap, &[server_frame(0x81, MESSAGE_B), server_frame(0x81, MESSAGE_A)], 1)]
#[case::delay(ChangeAction::Delay(FRAME_DELAY), &[server_frame(0x81, MESSAGE_B), server_frame(0x81, MESSAGE_A)], 1)]
#[case::remove(ChangeAction::Remove("/n".into()), &[server_frame(0x81, r#"{"t":"a"}"#), server_frame(0x81, MESSAGE_B)], 1)]
#[case::retype(ChangeAction::Retype("/n".into()), &[server_frame(0x81, r#"{"t":"a","n":"1"}"#), server_frame(0x81, MESSAGE_B)], 1)]
#[case::alter(ChangeAction::Alter("/n".into()), &[server_frame(0x81, r#"{"t":"a","n":-2}"#), server_frame(0x81, MESSAGE_B)], 1)]
#[tokio::test]
async fn the_configured_change_is_applied(
    #[case] act: ChangeAction,
    #[case] expected: &[Vec<u8>],
    #[case] applied: u64,
) {
    let mut three = start_upgraded_connection(Some(select_frames(message_a()).with_action(act))).await;
    three.hub.write_all(&[server_frame(0x81, MESSAGE_A), server_frame(0x81, MESSAGE_B)].concat()).await.unwrap();
    let expected = expected.concat();
    assert_eq!(read_bytes(&mut three.client, expected.len()).await, expected);
    assert_eq!(three.relay.changed_frames(), applied);
    // No other frame was kept.
    three.hub.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut three.client).await.unwrap(), b"");
}

/// Frames are counted across all connections.
#[tokio::test]
async fn the_nth_frame_is_counted_over_all_connections() {
    let hub = hubproof_reference::start_server(hubproof_reference::ServeConfig {
        hubs: vec![hubproof_reference::HubConfig::new("emprops")],
        ..Default::default()
    });
    let hub = hub.await.unwrap();
    let change = select_frames(vec![FrameCondition::Is("/type".into(), "connection_established".into())])
        .nth_only(2)
        .with_action(ChangeAction::Remove("/type".into()));
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let to = relayed_hub(hub.hubs[0].url.strip_prefix("ws://").unwrap().parse().unwrap(), "");
    let relay = start_relay(RelayConfig { hub: to, listen, task: RelayTask::Change(change) }).await.unwrap();
    let mut greeted = Vec::new();
    for _ in 0..3 {
        let (mut client, _) = tokio_tungstenite::connect_async(&relay.url).await.unwrap();
        let text = futures_util::StreamExt::next(&mut client).await.unwrap().unwrap();
        greeted.push(text.to_text().unwrap().contains("connection_established"));
    }
    assert_eq!(greeted, [true, false, true]);
    assert_eq!(relay.shutdown().await, 1);
    hub.shutdown().await;
}

#[tokio::test]
async fn a_delayed_frame_is_sent_before_the_close() {
    let mut three =
        start_upgraded_connection(Some(select_frames(message_a()).with_action(ChangeAction::Delay(TIMEOUT)))).await;
    let close = vec![0x88, 2, 0x03, 0xe8];
    three.hub.write_all(&[server_frame(0x81, MESSAGE_A), close.clone()].concat()).await.unwrap();
    let expected = [server_frame(0x81, MESSAGE_A), close].concat();
    assert_eq!(read_bytes(&mut three.client, expected.len()).await, expected);
}

#[tokio::test]
async fn a_refused_upgrade_is_relayed() {
    let mut three = start_relayed_connection(None).await;
    let refusal = b"HTTP/1.1 401 Not You\r\nContent-Length: 2\r\n\r\nno";
    three.hub.write_all(refusal).await.unwrap();
    three.hub.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut three.client).await.unwrap(), refusal);
}

#[tokio::test]
async fn an_unreachable_hub_is_reported_as_bad_gateway() {
    // The bound socket keeps other programs off the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let hub = relayed_hub(socket.local_addr().unwrap(), "");
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let relay = start_relay(RelayConfig { hub, listen, task: RelayTask::Pass }).await.unwrap();
    let mut client = TcpStream::connect(relay.url.strip_prefix("ws://").unwrap()).await.unwrap();
    client.write_all(REQUEST).await.unwrap();
    let answer = String::from_utf8(read_to_end(&mut client).await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("failed to reach the hub"), "{answer}");
}

/// How one side disconnects.
#[derive(Clone, Copy, Debug, PartialEq)]
enum DisconnectKind {
    Ends,
    IsCutOff,
}

async fn disconnect(stream: TcpStream, how: DisconnectKind) {
    if how == DisconnectKind::IsCutOff {
        stream.set_zero_linger().unwrap();
    }
    drop(stream);
}

#[rstest]
#[tokio::test]
async fn a_disconnect_of_the_hub_is_passed_on(
    #[values(DisconnectKind::Ends, DisconnectKind::IsCutOff)] how: DisconnectKind,
) {
    let mut three = start_upgraded_connection(None).await;
    three.hub.write_all(b"\x81\x05ha").await.unwrap();
    if how == DisconnectKind::IsCutOff {
        // Bytes before a reset may be lost.
        disconnect(three.hub, how).await;
        assert_eq!(read_to_end(&mut three.client).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    } else {
        disconnect(three.hub, how).await;
        assert_eq!(read_to_end(&mut three.client).await.unwrap(), b"\x81\x05ha");
    }
}

#[rstest]
#[tokio::test]
async fn a_disconnect_of_the_client_is_passed_on(
    #[values(DisconnectKind::Ends, DisconnectKind::IsCutOff)] how: DisconnectKind,
) {
    let mut three = start_upgraded_connection(None).await;
    disconnect(three.client, how).await;
    // The hub has to see either an end or a reset.
    let _ = read_to_end(&mut three.hub).await;
    assert_eq!(timeout(TIMEOUT, three.relay.shutdown()).await.unwrap(), 0);
}

/// A hub that sends without end to a client that does not read is held back, not stored.
#[tokio::test]
async fn a_client_that_does_not_read_slows_the_hub_down() {
    let mut three = start_upgraded_connection(Some(select_frames(message_a()).with_action(ChangeAction::Double))).await;
    let many = server_frame(0x81, MESSAGE_A).repeat(10_000);
    let mut sent = 0;
    let started = Instant::now();
    while let Ok(done) = timeout(Duration::from_secs(1), three.hub.write_all(&many)).await {
        done.unwrap();
        sent += many.len();
        assert!(sent < 64 << 20 && started.elapsed() < TIMEOUT, "{sent} bytes are somewhere");
    }
    disconnect(three.client, DisconnectKind::IsCutOff).await;
    timeout(TIMEOUT, three.relay.shutdown()).await.unwrap();
}

/// Sends this many times 64 KiB to the client through a relay; returns whether all arrive.
async fn pass_bytes(three: &mut RelayedConnection, times: usize) -> bool {
    let bytes: Vec<u8> = (0..64 << 10).map(|at| at as u8).collect();
    for _ in 0..times {
        three.hub.write_all(&bytes).await.unwrap();
        if read_bytes(&mut three.client, bytes.len()).await != bytes {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn an_observer_gets_all_bytes_of_both_sides_in_order() {
    let (channel, mut events) = tokio::sync::mpsc::channel(1000);
    let observer = RelayObserver { channel, left_out: None };
    let mut three = upgrade(start_connection(RelayTask::Observe(observer)).await).await;
    three.client.write_all(b"up").await.unwrap();
    assert_eq!(read_bytes(&mut three.hub, 2).await, b"up");
    assert!(pass_bytes(&mut three, 1).await);
    drop((three.client, three.hub));
    let (mut of_client, mut of_hub) = (Vec::new(), Vec::new());
    while let Some(event) = timeout(TIMEOUT, events.recv()).await.unwrap() {
        match event.what {
            RelayEventKind::Bytes { to_hub: true, bytes } => {
                assert!(of_client.is_empty() || of_hub == ANSWER, "the request comes before its answer");
                of_client.extend(bytes);
            }
            RelayEventKind::Bytes { bytes, .. } => of_hub.extend(bytes),
            RelayEventKind::Ended => break,
        }
    }
    assert!(of_client.starts_with(b"GET /api/ws?a=%20b ") && of_client.ends_with(b"\r\n\r\nup"));
    assert_eq!(of_hub.len(), ANSWER.len() + (64 << 10));
}

/// Neither an observer that reads nothing nor one that has ended stops the bytes.
#[rstest]
#[tokio::test]
async fn bytes_pass_whatever_the_observer_does(#[values(true, false)] has_ended: bool) {
    let (channel, events) = tokio::sync::mpsc::channel(2);
    let left_out = std::sync::Arc::default();
    let observer = RelayObserver { channel, left_out: Some(std::sync::Arc::clone(&left_out)) };
    let events = (!has_ended).then_some(events);
    let mut three = upgrade(start_connection(RelayTask::Observe(observer)).await).await;
    assert!(pass_bytes(&mut three, 20).await);
    assert_eq!(*left_out.lock(), if has_ended { vec![] } else { vec![1] });
    drop(events);
}
