//! The relay over real sockets: it makes its one change, all other bytes arrive unchanged, and a disconnect or reset
//! on one side becomes one on the other.

#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hubproof_reference::fault::{Act, Change, Cond, frame};
use hubproof_reference::relay::mutation::DELAY;
use hubproof_reference::relay::{Hub, Relay, RelayConfig, relay};
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

/// Longer than any test takes unless it hangs.
const LONG: Duration = Duration::from_secs(10);
const REQUEST: &[u8] = b"GET /ws?a=%20b HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nX-Mine: 1\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 101 Odd Words\r\nSec-WebSocket-Protocol: p\r\nX-Theirs: 2\r\n\r\n";

/// A relay, a client of it, and the hub's side of that connection.
struct Three {
    relay: Relay,
    client: TcpStream,
    hub: TcpStream,
}

async fn three(change: Option<Change>) -> Three {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/api", listener.local_addr().unwrap());
    let hub = Hub::at(&url, || None).unwrap();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let relay = relay(RelayConfig { hub, listen, change, observer: None }).await.unwrap();
    let mut client = TcpStream::connect(relay.url.strip_prefix("ws://").unwrap()).await.unwrap();
    client.write_all(REQUEST).await.unwrap();
    let (hub, _) = timeout(LONG, listener.accept()).await.unwrap().unwrap();
    Three { relay, client, hub }
}

async fn upgraded(change: Option<Change>) -> Three {
    let mut three = three(change).await;
    let addr = three.hub.local_addr().unwrap();
    let want = format!("GET /api/ws?a=%20b HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nX-Mine: 1\r\n\r\n");
    assert_eq!(read(&mut three.hub, want.len()).await, want.as_bytes());
    three.hub.write_all(ANSWER).await.unwrap();
    assert_eq!(read(&mut three.client, ANSWER.len()).await, ANSWER);
    three
}

async fn read(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    timeout(LONG, stream.read_exact(&mut bytes)).await.expect("the bytes do not come").unwrap();
    bytes
}

/// Reads to the end of the stream.
async fn rest(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the stream does not end")?;
    Ok(bytes)
}

/// Builds a frame of a server: FIN and opcode, then the payload.
fn of(first: u8, payload: &str) -> Vec<u8> {
    [&[first, u8::try_from(payload.len()).unwrap()], payload.as_bytes()].concat()
}

const A: &str = r#"{"t":"a","n":1}"#;
const B: &str = r#"{"t":"b"}"#;
const IS_A: &[Cond] = &[Cond::Is("/t", "a")];

#[rstest]
#[case::nothing(None)]
#[case::elsewhere(Some(frame(&[Cond::Has("/absent")]).does(Act::Drop)))]
#[case::no_such_member(Some(frame(IS_A).does(Act::Remove("/absent"))))]
#[tokio::test]
async fn unchanged_bytes_pass_as_they_are(#[case] change: Option<Change>) {
    let mut three = upgraded(change).await;
    let sent = [
        of(0x81, A),
        of(0x01, r#"{"t":"#),
        of(0x89, "ping"),
        of(0x00, ""),
        of(0x80, r#""a"}"#),
        of(0x82, "\0\u{1}"),
        of(0x8a, ""),
        of(0x81, "no JSON"),
        // The close code 999, which libraries do not send.
        vec![0x88, 4, 0x03, 0xe7, b'o', b'k'],
        b"and what follows".to_vec(),
    ]
    .concat();
    three.hub.write_all(&sent).await.unwrap();
    three.client.write_all(b"\x89\x80abcdmasked").await.unwrap();
    // A ping within a message is passed on before it; everything else keeps its order.
    let within = of(0x89, "ping");
    let begun = of(0x01, r#"{"t":"#);
    let mut expected = sent.clone();
    let at = of(0x81, A).len();
    expected.splice(at..at + begun.len() + within.len(), [within, begun].concat());
    assert_eq!(read(&mut three.client, sent.len()).await, expected);
    assert_eq!(read(&mut three.hub, 12).await, b"\x89\x80abcdmasked");
    assert_eq!(timeout(LONG, three.relay.shutdown()).await.unwrap(), 0);
}

#[rstest]
#[case::drop(Act::Drop, &[of(0x81, B)], 1)]
#[case::double(Act::Double, &[of(0x81, A), of(0x81, A), of(0x81, B)], 1)]
#[case::swap(Act::Swap, &[of(0x81, B), of(0x81, A)], 1)]
#[case::delay(Act::Delay(DELAY), &[of(0x81, B), of(0x81, A)], 1)]
#[case::remove(Act::Remove("/n"), &[of(0x81, r#"{"t":"a"}"#), of(0x81, B)], 1)]
#[case::retype(Act::Retype("/n"), &[of(0x81, r#"{"t":"a","n":"1"}"#), of(0x81, B)], 1)]
#[case::alter(Act::Alter("/n"), &[of(0x81, r#"{"t":"a","n":-2}"#), of(0x81, B)], 1)]
#[tokio::test]
async fn a_change_is_made(#[case] act: Act, #[case] expected: &[Vec<u8>], #[case] applied: u64) {
    let mut three = upgraded(Some(frame(IS_A).does(act))).await;
    three.hub.write_all(&[of(0x81, A), of(0x81, B)].concat()).await.unwrap();
    let expected = expected.concat();
    assert_eq!(read(&mut three.client, expected.len()).await, expected);
    assert_eq!(three.relay.applied(), applied);
    // No other frame was kept.
    three.hub.shutdown().await.unwrap();
    assert_eq!(rest(&mut three.client).await.unwrap(), b"");
}

/// Frames are counted across all connections.
#[tokio::test]
async fn the_nth_frame_is_that_of_the_hub() {
    let hub = hubproof_reference::serve(hubproof_reference::ServeConfig {
        hubs: vec![hubproof_reference::HubConfig::new("emprops")],
        admin: None,
    });
    let hub = hub.await.unwrap();
    let change = frame(&[Cond::Is("/type", "connection_established")]).only(2).does(Act::Remove("/type"));
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let to = Hub::at(&hub.hubs[0].url, || None).unwrap();
    let relay = relay(RelayConfig { hub: to, listen, change: Some(change), observer: None }).await.unwrap();
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
async fn a_late_frame_comes_before_the_end() {
    let mut three = upgraded(Some(frame(IS_A).does(Act::Delay(LONG)))).await;
    let close = vec![0x88, 2, 0x03, 0xe8];
    three.hub.write_all(&[of(0x81, A), close.clone()].concat()).await.unwrap();
    let expected = [of(0x81, A), close].concat();
    assert_eq!(read(&mut three.client, expected.len()).await, expected);
}

#[tokio::test]
async fn a_refusal_passes() {
    let mut three = three(None).await;
    let refusal = b"HTTP/1.1 401 Not You\r\nContent-Length: 2\r\n\r\nno";
    three.hub.write_all(refusal).await.unwrap();
    three.hub.shutdown().await.unwrap();
    assert_eq!(rest(&mut three.client).await.unwrap(), refusal);
}

#[tokio::test]
async fn a_hub_that_is_not_there_is_a_bad_gateway() {
    // The bound socket keeps other programs off the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let url = format!("ws://{}", socket.local_addr().unwrap());
    let hub = Hub::at(&url, || None).unwrap();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let relay = relay(RelayConfig { hub, listen, change: None, observer: None }).await.unwrap();
    let mut client = TcpStream::connect(relay.url.strip_prefix("ws://").unwrap()).await.unwrap();
    client.write_all(REQUEST).await.unwrap();
    let answer = String::from_utf8(rest(&mut client).await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("failed to reach the hub"), "{answer}");
}

/// How one side disconnects.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Leaving {
    Ends,
    IsCutOff,
}

async fn leave(stream: TcpStream, how: Leaving) {
    if how == Leaving::IsCutOff {
        stream.set_zero_linger().unwrap();
    }
    drop(stream);
}

#[rstest]
#[tokio::test]
async fn a_disconnect_of_the_hub_is_passed_on(#[values(Leaving::Ends, Leaving::IsCutOff)] how: Leaving) {
    let mut three = upgraded(None).await;
    three.hub.write_all(b"\x81\x05ha").await.unwrap();
    if how == Leaving::IsCutOff {
        // Bytes before a reset may be lost.
        leave(three.hub, how).await;
        assert_eq!(rest(&mut three.client).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    } else {
        leave(three.hub, how).await;
        assert_eq!(rest(&mut three.client).await.unwrap(), b"\x81\x05ha");
    }
}

#[rstest]
#[tokio::test]
async fn a_disconnect_of_the_client_is_passed_on(#[values(Leaving::Ends, Leaving::IsCutOff)] how: Leaving) {
    let mut three = upgraded(None).await;
    leave(three.client, how).await;
    // The hub has to see either an end or a reset.
    let _ = rest(&mut three.hub).await;
    assert_eq!(timeout(LONG, three.relay.shutdown()).await.unwrap(), 0);
}

/// A hub that sends without end to a client that does not read is held back, not stored.
#[tokio::test]
async fn a_client_that_does_not_read_slows_the_hub_down() {
    let mut three = upgraded(Some(frame(IS_A).does(Act::Double))).await;
    let many = of(0x81, A).repeat(10_000);
    let mut sent = 0;
    let started = Instant::now();
    while let Ok(done) = timeout(Duration::from_secs(1), three.hub.write_all(&many)).await {
        done.unwrap();
        sent += many.len();
        assert!(sent < 64 << 20 && started.elapsed() < LONG, "{sent} bytes are somewhere");
    }
    leave(three.client, Leaving::IsCutOff).await;
    timeout(LONG, three.relay.shutdown()).await.unwrap();
}
