//! Tests against small raw TCP hubs, each of which does one thing, right or wrong.

use std::io;
use std::time::Duration;

use rstest::rstest;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::config::TlsOptions;
use crate::websocket::codec::{FrameDecoder, encode};
use crate::websocket::frame::{AssembledMessage, Frame, Opcode};

/// Limit for every wait.
const GUARD: Duration = Duration::from_secs(20);
/// How long to wait for an event that must not come.
const QUIET: Duration = Duration::from_millis(100);

/// Starts a hub for one connection.
async fn start_hub<F, R>(script: impl FnOnce(TcpStream) -> F + Send + 'static) -> (ConnectRequest, JoinHandle<R>)
where
    F: Future<Output = R> + Send + 'static,
    R: Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap();
    let hub = tokio::spawn(async move { script(listener.accept().await.unwrap().0).await });
    (ConnectRequest::new(endpoint), hub)
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> crate::websocket::handshake::RequestHead {
    let mut bytes = Vec::new();
    loop {
        bytes.push(stream.read_u8().await.unwrap());
        if let Some(head) = crate::websocket::handshake::parse_request_head(&bytes).unwrap() {
            return head;
        }
    }
}

/// The hub's side of an upgraded connection.
struct TestPeer<S> {
    stream: S,
    decoder: FrameDecoder,
    head: crate::websocket::handshake::RequestHead,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TestPeer<S> {
    async fn upgrade(mut stream: S, spoken: &[&str], along: &[Frame]) -> Self {
        let head = read_request(&mut stream).await;
        let spoken: Vec<_> = spoken.iter().map(|&name| name.to_owned()).collect();
        let (mut answer, _) = crate::websocket::handshake::answer_request(head.clone(), &spoken);
        along.iter().for_each(|frame| encode(frame, [0; 4], &mut answer));
        stream.write_all(&answer).await.unwrap();
        Self { stream, decoder: FrameDecoder::new(ConnectionSide::Server, PeerLimits::default()), head }
    }

    async fn send(&mut self, frame: Frame) -> io::Result<()> {
        let mut bytes = Vec::new();
        encode(&frame, [1, 2, 3, 4], &mut bytes);
        self.stream.write_all(&bytes).await
    }

    /// Returns the next event of the other side; `None` at an orderly end. Reads byte by byte, so never too much.
    async fn next_event(&mut self) -> io::Result<Option<ConnectionEvent>> {
        loop {
            let mut byte = [0];
            if self.stream.read(&mut byte).await? == 0 {
                return Ok(None);
            }
            if let Some(received) = self.decoder.next_event(&mut &byte[..]) {
                return Ok(Some(received));
            }
        }
    }
}

fn server_text(text: &str) -> Frame {
    Frame::text(text).unmasked()
}

fn message(text: &str) -> ConnectionEvent {
    ConnectionEvent::Message(AssembledMessage { binary: false, payload: text.into(), frames: 1 })
}

fn close(code: u16) -> ConnectionEvent {
    ConnectionEvent::Close { code: Some(code), reason: String::new() }
}

struct TestClient {
    connection: Connection,
    events: mpsc::Receiver<IncomingEvent>,
}

impl TestClient {
    fn open(request: ConnectRequest) -> Self {
        let (sender, events) = mpsc::channel(8);
        Self { connection: open_connection(ConnectionId(7), request, sender), events }
    }

    async fn open_upgraded(request: ConnectRequest) -> Self {
        let mut client = Self::open(request);
        let first = client.next_event().await;
        assert!(matches!(first, ConnectionEvent::Upgraded { .. }), "{first:?}");
        client
    }

    fn send(&self, frame: Frame) {
        self.connection.send(ConnectionCommand::Frames(vec![frame])).unwrap();
    }

    async fn next_event(&mut self) -> ConnectionEvent {
        let incoming = timeout(GUARD, self.events.recv()).await.unwrap().unwrap();
        assert_eq!(incoming.conn, ConnectionId(7));
        incoming.what
    }

    /// Returns all remaining events.
    async fn remaining_events(&mut self) -> Vec<ConnectionEvent> {
        let mut all = Vec::new();
        while let Some(incoming) = timeout(GUARD, self.events.recv()).await.unwrap() {
            all.push(incoming.what);
        }
        all
    }

    async fn assert_quiet(&mut self) {
        assert!(timeout(QUIET, self.events.recv()).await.is_err());
    }
}

fn assert_end(events: &[ConnectionEvent], expected_reset: bool, about: &str) {
    let Some(ConnectionEvent::End { reset, reason }) = events.last() else { panic!("{events:?}") };
    assert!(reason.contains(about), "{reason}");
    assert_eq!(*reset, expected_reset, "{reason}");
}

async fn join_hub<T>(hub: JoinHandle<T>) -> T {
    timeout(GUARD, hub).await.unwrap().unwrap()
}

#[tokio::test]
async fn messages_go_both_ways_after_a_valid_upgrade() {
    let (mut request, hub) = start_hub(async |stream| {
        // One frame arrives together with the answer.
        let mut peer = TestPeer::upgrade(stream, &["v2"], &[server_text("hello")]).await;
        let echo = peer.next_event().await.unwrap();
        peer.send(server_text("bye")).await.unwrap();
        (peer.head, echo)
    })
    .await;
    request.dial.path = Some("/ws?x=1".to_owned());
    request.dial.query = vec![("token".to_owned(), "a b".to_owned())];
    request.dial.headers = vec![("Authorization".to_owned(), "Bearer t".to_owned())];
    request.dial.subprotocols = vec!["v1".to_owned(), "v2".to_owned()];
    let host = request.endpoint.authority();
    let mut client = TestClient::open(request);
    client.send(Frame::text("early"));
    let ConnectionEvent::Upgraded { status: 101, subprotocol, .. } = client.next_event().await else { panic!() };
    assert_eq!(subprotocol.as_deref(), Some("v2"));
    let events = client.remaining_events().await;
    assert_eq!(events[..2], [message("hello"), message("bye")]);
    assert_end(&events, false, "the hub ended the stream without a close frame");
    let (head, echo) = join_hub(hub).await;
    assert_eq!((head.target.as_str(), echo), ("/ws?x=1&token=a%20b", Some(message("early"))));
    for (name, value) in [("Host", host.as_str()), ("Authorization", "Bearer t")] {
        assert!(head.headers.contains(&(name.to_owned(), value.to_owned())), "{head:?}");
    }
    assert_eq!(client.connection.send(ConnectionCommand::Fin), Err(SendError));
}

#[rstest]
#[case(
    "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: bm8=\r\n\r\n",
    101,
    "",
    "101, but with `Sec-WebSocket-Accept: bm8=` instead of"
)]
#[case("HTTP/1.1 500 Oops\r\n\r\nit broke", 500, "it broke", "HTTP 500 instead of 101")]
#[case(
    "HTTP/1.1 307 There\r\nLocation: ws://there/\r\nContent-Length: 0\r\n\r\n",
    307,
    "",
    "redirects to ws://there/, but redirects are not followed"
)]
#[case("HTTP/1.1 103 Hint\r\nLink: x\r\n\r\nHTTP/1.1 404 No\r\n\r\n", 404, "", "is the path right?")]
#[tokio::test]
async fn a_refused_upgrade_is_reported_with_its_body(
    #[case] answer: &'static str,
    #[case] status: u16,
    #[case] body: &str,
    #[case] about: &str,
) {
    let (request, _hub) = start_hub(async move |mut stream| {
        read_request(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let events = TestClient::open(request).remaining_events().await;
    let [ConnectionEvent::Refused { status: found, body: found_body, reason, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((*found, found_body.as_slice()), (status, body.as_bytes()));
    assert!(reason.contains(about), "{reason}");
}

#[tokio::test]
async fn the_body_of_an_endless_refusal_is_cut() {
    let (request, hub) = start_hub(async move |mut stream| {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 400 Bad\r\n\r\n").await.unwrap();
        while stream.write_all(&[b'x'; 10_000]).await.is_ok() {}
    })
    .await;
    let events = TestClient::open(request).remaining_events().await;
    assert!(
        matches!(&events[..], [ConnectionEvent::Refused { body, .. }] if body.len() == crate::websocket::handshake::MAX_BODY_BYTES),
        "{events:?}"
    );
    join_hub(hub).await;
}

#[rstest]
#[case(
    "",
    "the hub closed the connection before answering the upgrade (if it expects TLS, use wss:// instead of ws://)"
)]
#[case("HTTP/1.1 101 Switch", "the hub closed the connection in the middle of its answer to the upgrade")]
#[case(
    "220 mail.example ESMTP\r\n",
    "the answer to the upgrade cannot be understood: it begins with \"220 mail.example ESMTP\\r\\n\", which is not HTTP"
)]
#[case(
    "\x15\x03\x01\0\x02\x02\x46",
    "the answer to the upgrade cannot be understood: it is TLS, not plain text: should the address be wss:// instead of ws://?"
)]
#[tokio::test]
async fn an_answer_without_http_is_reported(#[case] answer: &'static str, #[case] expected: &str) {
    let (request, _hub) = start_hub(async move |mut stream| {
        read_request(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    assert_eq!(
        TestClient::open(request).remaining_events().await,
        [ConnectionEvent::NoUpgrade { reason: expected.to_owned(), bound: false }]
    );
}

#[tokio::test]
async fn a_flood_of_interim_answers_is_cut_off() {
    let (request, hub) = start_hub(async move |mut stream| {
        read_request(&mut stream).await;
        while stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_ok() {}
    })
    .await;
    let reason = "more than 8 interim answers (HTTP 100) to the upgrade".to_owned();
    assert_eq!(
        TestClient::open(request).remaining_events().await,
        [ConnectionEvent::NoUpgrade { reason, bound: true }]
    );
    join_hub(hub).await;
}

#[rstest]
#[case("ws", "no answer to the upgrade within 150 ms")]
#[case("wss", "no TLS handshake with 127.0.0.1:PORT within 150 ms: should the address be ws:// instead of wss://?")]
#[tokio::test]
async fn an_unanswered_upgrade_times_out(#[case] scheme: &str, #[case] expected: &str) {
    let (mut request, hub) = start_hub(async |mut stream| {
        let mut all = Vec::new();
        // Ends when the client closes.
        let _ = stream.read_to_end(&mut all).await;
    })
    .await;
    request.endpoint.tls = scheme == "wss";
    request.timeout = Duration::from_millis(150);
    request.tls = Some(tls::client_config(&TlsOptions { insecure: true, ..TlsOptions::default() }).unwrap());
    let reason = expected.replace("PORT", &request.endpoint.port.to_string());
    let expected = if scheme == "ws" {
        ConnectionEvent::NoUpgrade { reason, bound: false }
    } else {
        ConnectionEvent::Unreachable { reason }
    };
    assert_eq!(TestClient::open(request).remaining_events().await, [expected]);
    join_hub(hub).await;
}

#[tokio::test]
async fn a_port_without_listener_is_reported_as_unreachable() {
    // Bound but not listening, so that no other process can take the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let request = ConnectRequest::new(format!("ws://{address}").parse().unwrap());
    let reason = format!("nothing listens at {address} (connection refused)");
    assert_eq!(TestClient::open(request).remaining_events().await, [ConnectionEvent::Unreachable { reason }]);
}

#[tokio::test]
async fn a_request_that_cannot_be_written_is_reported() {
    let (mut request, _hub) = start_hub(async |_| ()).await;
    request.dial.headers = vec![("X".to_owned(), "a\r\nb".to_owned())];
    let reason = "the upgrade request cannot be written: the value of header `X` contains a line break or another control character";
    assert_eq!(
        TestClient::open(request).remaining_events().await,
        [ConnectionEvent::Unreachable { reason: reason.to_owned() }]
    );
}

#[rstest]
#[case(Frame::text("masked"), "5.1", 1002)]
#[case(Frame { opcode: Opcode::Reserved(5), ..server_text("") }, "5.2", 1002)]
#[case(Frame { payload: vec![0xff], ..server_text("") }, "8.1", 1007)]
#[tokio::test]
async fn a_violation_of_rfc_6455_ends_the_connection(#[case] frame: Frame, #[case] expected: &str, #[case] code: u16) {
    let (request, hub) = start_hub(async move |stream| {
        let mut peer = TestPeer::upgrade(stream, &[], &[]).await;
        peer.send(frame).await.unwrap();
        (peer.next_event().await.unwrap(), peer.next_event().await.unwrap())
    })
    .await;
    let events = TestClient::open_upgraded(request).await.remaining_events().await;
    assert!(
        matches!(&events[0], ConnectionEvent::Violation { section, bound: false, .. } if *section == expected),
        "{events:?}"
    );
    assert_end(&events, true, "dropped after the violation");
    assert_eq!((join_hub(hub).await, events.len()), ((Some(close(code)), None), 2));
}

#[tokio::test]
async fn a_message_above_the_size_limit_is_reported_as_a_limit_violation() {
    let (mut request, hub) = start_hub(async |stream| {
        let mut peer = TestPeer::upgrade(stream, &[], &[]).await;
        peer.send(server_text("12345")).await.unwrap();
        peer.next_event().await.unwrap()
    })
    .await;
    request.limits.message = 4;
    let events = TestClient::open_upgraded(request).await.remaining_events().await;
    assert!(matches!(events[0], ConnectionEvent::Violation { bound: true, section: "10.4", .. }), "{events:?}");
    assert_eq!(join_hub(hub).await, Some(close(1009)));
}

#[tokio::test]
async fn a_flooding_hub_is_slowed_by_backpressure() {
    const MESSAGES: usize = 30_000;
    let (request, mut hub) = start_hub(async |stream| {
        let mut peer = TestPeer::upgrade(stream, &[], &[]).await;
        let text = "x".repeat(1000);
        for _ in 0..MESSAGES {
            peer.send(server_text(&text)).await.unwrap();
        }
    })
    .await;
    let mut client = TestClient::open_upgraded(request).await;
    // 30 MB are more than both kernel buffers hold, so the hub must wait.
    assert!(timeout(QUIET, &mut hub).await.is_err());
    assert_eq!(client.remaining_events().await.len(), MESSAGES + 1);
    join_hub(hub).await;
}

#[tokio::test]
async fn dropping_a_connection_ends_a_flood() {
    let (request, hub) = start_hub(async |stream| {
        let mut peer = TestPeer::upgrade(stream, &[], &[]).await;
        while peer.send(server_text("x")).await.is_ok() {}
    })
    .await;
    let mut client = TestClient::open_upgraded(request).await;
    for _ in 0..100 {
        assert_eq!(client.next_event().await, message("x"));
    }
    drop(client.connection);
    join_hub(hub).await;
}

#[tokio::test]
async fn dropping_a_connection_writes_queued_frames() {
    let (request, hub) = start_hub(async |stream| {
        let mut peer = TestPeer::upgrade(stream, &[], &[]).await;
        (peer.next_event().await.unwrap(), peer.next_event().await.unwrap())
    })
    .await;
    let mut client = TestClient::open_upgraded(request).await;
    client.send(Frame::text("last words"));
    client.connection.finish().await;
    assert!(client.events.recv().await.is_none());
    assert_eq!(join_hub(hub).await, (Some(message("last words")), None));
}

#[tokio::test]
async fn a_reset_inside_a_frame_is_reported() {
    let (request, hub) = start_hub(async |stream| {
        let mut peer = TestPeer::upgrade(stream, &[], &[]).await;
        peer.stream.write_all(b"\x81\x05Hel").await.unwrap();
        peer.stream.set_zero_linger().unwrap();
    })
    .await;
    let events = TestClient::open_upgraded(request).await.remaining_events().await;
    assert_end(&events, true, "the hub reset the connection in the middle of a message");
    join_hub(hub).await;
}

#[rstest]
#[case(Some(4004), Some(4004))]
#[case(Some(1005), Some(1002))]
#[case(None, None)]
#[tokio::test]
async fn a_close_from_the_hub_is_answered_and_reported(#[case] code: Option<u16>, #[case] echoed: Option<u16>) {
    let (request, hub) = start_hub(async move |stream| {
        let mut peer = TestPeer::upgrade(stream, &[], &[]).await;
        peer.send(Frame::close(code, "").unmasked()).await.unwrap();
        peer.next_event().await.unwrap()
    })
    .await;
    let events = TestClient::open_upgraded(request).await.remaining_events().await;
    assert_eq!(events[0], ConnectionEvent::Close { code, reason: String::new() });
    assert_end(&events, false, "the hub closed the connection after the closing handshake");
    assert_eq!(join_hub(hub).await, Some(ConnectionEvent::Close { code: echoed, reason: String::new() }));
}

#[tokio::test]
async fn closing_a_connection_waits_for_the_hubs_answer() {
    let (request, hub) = start_hub(async |stream| {
        let mut peer = TestPeer::upgrade(stream, &[], &[]).await;
        let first = peer.next_event().await.unwrap();
        // Between the two close frames a hub may still send.
        peer.send(server_text("one more")).await.unwrap();
        peer.send(Frame::close(Some(1000), "").unmasked()).await.unwrap();
        peer.stream.shutdown().await.unwrap();
        (first, peer.next_event().await.unwrap())
    })
    .await;
    let mut client = TestClient::open_upgraded(request).await;
    client.send(Frame::close(Some(1000), ""));
    let events = client.remaining_events().await;
    assert_eq!(events[..2], [message("one more"), close(1000)]);
    assert_end(&events, false, "after the closing handshake");
    assert_eq!(join_hub(hub).await, (Some(close(1000)), None), "and no second close frame");
}

#[tokio::test]
async fn a_hub_that_does_not_end_the_stream_is_disconnected() {
    let (request, hub) = start_hub(async |stream| {
        let mut peer = TestPeer::upgrade(stream, &[], &[Frame::close(Some(1001), "").unmasked()]).await;
        (peer.next_event().await.unwrap(), peer.next_event().await.unwrap())
    })
    .await;
    let events = TestClient::open_upgraded(request).await.remaining_events().await;
    assert_end(&events, false, "the hub kept the connection open for 1 s after the closing handshake");
    assert_eq!(join_hub(hub).await, (Some(close(1001)), None));
}

#[tokio::test]
async fn pings_are_answered_unless_we_stop_reading() {
    let (told, telling) = oneshot::channel();
    let (request, hub) = start_hub(async |stream| {
        let mut peer = TestPeer::upgrade(stream, &[], &[]).await;
        peer.send(Frame::ping("1").unmasked()).await.unwrap();
        let mut answers = vec![peer.next_event().await.unwrap(), peer.next_event().await.unwrap()];
        peer.send(Frame::ping("2").unmasked()).await.unwrap();
        peer.send(server_text("unheard")).await.unwrap();
        told.send(()).unwrap();
        answers.push(peer.next_event().await.unwrap());
        answers.push(peer.next_event().await.unwrap());
        answers
    })
    .await;
    let mut client = TestClient::open_upgraded(request).await;
    assert_eq!(client.next_event().await, ConnectionEvent::Ping(b"1".to_vec()));
    client.connection.send(ConnectionCommand::StopReading).unwrap();
    client.send(Frame::text("paused"));
    telling.await.unwrap();
    client.assert_quiet().await;
    client.send(Frame::text("still paused"));
    client.assert_quiet().await;
    client.connection.send(ConnectionCommand::ReadAgain).unwrap();
    assert_eq!(client.next_event().await, ConnectionEvent::Ping(b"2".to_vec()));
    assert_eq!(client.next_event().await, message("unheard"));
    let pong = |data: &str| Some(ConnectionEvent::Pong(data.into()));
    assert_eq!(join_hub(hub).await, [pong("1"), Some(message("paused")), Some(message("still paused")), pong("2")]);
}

#[tokio::test]
async fn an_orderly_end_without_a_close_frame_is_reported() {
    let (request, hub) = start_hub(async |stream| {
        let mut peer = TestPeer::upgrade(stream, &[], &[]).await;
        let received = (peer.next_event().await.unwrap(), peer.next_event().await.unwrap());
        peer.send(server_text("late")).await.unwrap();
        received
    })
    .await;
    let mut client = TestClient::open_upgraded(request).await;
    client.send(Frame::text("x"));
    client.connection.send(ConnectionCommand::Fin).unwrap();
    assert_eq!(client.connection.send(ConnectionCommand::Bytes(vec![1])), Err(SendError));
    let events = client.remaining_events().await;
    assert_eq!(events[0], message("late"));
    assert_end(&events, false, "the hub ended the stream after we had ended ours");
    assert_eq!(join_hub(hub).await, (Some(message("x")), None));
}

#[tokio::test]
async fn a_connection_can_be_reset() {
    let (request, hub) = start_hub(async |stream| {
        let mut peer = TestPeer::upgrade(stream, &[], &[]).await;
        (peer.next_event().await.unwrap(), peer.next_event().await.unwrap_err().kind())
    })
    .await;
    let mut client = TestClient::open_upgraded(request).await;
    client.send(Frame::text("x"));
    client.connection.send(ConnectionCommand::Reset).unwrap();
    assert_end(&client.remaining_events().await, true, "we reset the connection");
    assert_eq!(join_hub(hub).await, (Some(message("x")), io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn frames_and_bytes_are_written_unchanged() {
    let (request, hub) = start_hub(async |stream| {
        let mut peer = TestPeer::upgrade(stream, &[], &[]).await;
        let mut all = Vec::new();
        peer.stream.read_to_end(&mut all).await.unwrap();
        all
    })
    .await;
    let client = TestClient::open_upgraded(request).await;
    let odd = Frame { fin: false, rsv: 7, opcode: Opcode::Reserved(0xf), masked: false, payload: b"ab".to_vec() };
    client.connection.send(ConnectionCommand::Frames(vec![odd.clone(), odd])).unwrap();
    client.connection.send(ConnectionCommand::Bytes(b"raw".to_vec())).unwrap();
    client.connection.send(ConnectionCommand::Fin).unwrap();
    assert_eq!(join_hub(hub).await, b"\x7f\x02ab\x7f\x02abraw");
}

#[tokio::test]
async fn frames_are_received_from_a_hub_that_does_not_read() {
    let (received, waiting) = oneshot::channel::<()>();
    let (request, hub) = start_hub(async |stream| {
        let mut peer = TestPeer::upgrade(stream, &[], &[]).await;
        peer.send(server_text("I do not read")).await.unwrap();
        waiting.await.unwrap();
        let mut all = Vec::new();
        peer.stream.read_to_end(&mut all).await.unwrap();
        all.len()
    })
    .await;
    let mut client = TestClient::open_upgraded(request).await;
    // More than both kernel buffers hold.
    client.send(Frame::binary(vec![0; 30 << 20]));
    assert_eq!(client.next_event().await, message("I do not read"));
    received.send(()).unwrap();
    client.connection.send(ConnectionCommand::Fin).unwrap();
    assert_eq!(join_hub(hub).await, 14 + (30 << 20));
}

#[tokio::test]
async fn too_many_unsent_bytes_are_reported_as_a_limit_violation() {
    let (mut request, _hub) = start_hub(async |stream| {
        let peer = TestPeer::upgrade(stream, &[], &[]).await;
        std::future::pending::<()>().await;
        drop(peer);
    })
    .await;
    request.limits.unsent = 1 << 20;
    let mut client = TestClient::open_upgraded(request).await;
    let frame = || ConnectionCommand::Frames(vec![Frame::binary(vec![0; 30 << 20])]);
    client.connection.send(frame()).unwrap();
    assert_eq!(client.connection.send(frame()), Err(SendError));
    let events = client.remaining_events().await;
    let ConnectionEvent::Violation { what, section: "10.4", bound: true } = &events[0] else { panic!("{events:?}") };
    assert_eq!(what, "more than 1048576 bytes wait to be sent: the hub does not read");
    assert_end(&events, true, "does not read");
}

#[tokio::test]
async fn a_trace_includes_automatic_answers() {
    let (request, hub) = start_hub(async |stream| {
        let along = [Frame::ping("1").unmasked(), Frame::close(None, "").unmasked()];
        let mut peer = TestPeer::upgrade(stream, &[], &along).await;
        peer.next_event().await.unwrap();
        peer.next_event().await.unwrap();
    })
    .await;
    let (sender, seen) = std::sync::mpsc::channel();
    let trace: Arc<dyn Fn(ConnectionId, TraceDirection, FrameHeader) + Send + Sync> =
        Arc::new(move |_, direction, info| sender.send((direction, info.opcode, info.masked)).unwrap());
    let request = ConnectRequest { trace: Some(FrameTrace(trace)), ..request };
    TestClient::open_upgraded(request).await.remaining_events().await;
    join_hub(hub).await;
    use TraceDirection::{In, Out};
    let expected =
        [(In, Opcode::Ping, false), (Out, Opcode::Pong, true), (In, Opcode::Close, false), (Out, Opcode::Close, true)];
    assert_eq!(seen.try_iter().collect::<Vec<_>>(), expected);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_configured_source_address_is_used() {
    let (mut request, hub) = start_hub(async |stream| stream.peer_addr().unwrap().ip()).await;
    request.dial.from = Some("127.0.0.2".to_owned());
    let events = TestClient::open(request).remaining_events().await;
    assert!(matches!(events[..], [ConnectionEvent::NoUpgrade { .. }]));
    assert_eq!(join_hub(hub).await.to_string(), "127.0.0.2");
}

#[rstest]
#[case::with_ca(true, false, "localhost", None)]
#[case::insecure(false, true, "localhost", None)]
#[case::insecure_by_address(false, true, "127.0.0.1", None)]
#[case::unknown(
    false,
    false,
    "localhost",
    Some("TLS: certificate not trusted: its issuer is unknown (use --ca FILE or --insecure)")
)]
#[case::wrong_name(
    true,
    false,
    "127.0.0.1",
    Some("TLS: certificate not trusted: certificate not valid for name \"127.0.0.1\"")
)]
#[tokio::test]
async fn tls_trusts_the_configured_certificates(
    #[case] ca: bool,
    #[case] insecure: bool,
    #[case] host: &str,
    #[case] refused: Option<&str>,
) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca_parameters = rcgen::CertificateParams::default();
    ca_parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca_parameters.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca_parameters, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private).unwrap();
    let (mut request, hub) = start_hub(async move |stream| {
        let Ok(stream) = tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(stream).await else { return None };
        let mut peer = TestPeer::upgrade(stream, &[], &[]).await;
        let received = peer.next_event().await.unwrap();
        peer.send(server_text("over TLS")).await.unwrap();
        received
    })
    .await;

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca_certificate.pem()).unwrap();
    request.tls = Some(
        tls::client_config(&TlsOptions { ca: ca.then(|| file.path().to_owned()), insecure, ..TlsOptions::default() })
            .unwrap(),
    );
    request.endpoint.tls = true;
    request.endpoint.host = host.to_owned();
    let mut client = TestClient::open(request);
    client.send(Frame::text("hello"));
    let events = client.remaining_events().await;
    match refused {
        Some(expected) => {
            let [ConnectionEvent::Unreachable { reason }] = &events[..] else { panic!("{events:?}") };
            assert!(reason.starts_with(expected), "{reason}");
        }
        None => {
            assert_eq!(events[1], message("over TLS"), "{events:?}");
            assert_end(&events, false, "without a close frame, without TLS's close_notify");
            assert_eq!(join_hub(hub).await, Some(message("hello")));
        }
    }
}

/// A certificate of the kind that `openssl req -x509` makes: that of a certificate authority, without names of hosts.
fn self_signed_certificate(expired: bool) -> (rcgen::Certificate, rcgen::KeyPair) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    if expired {
        parameters.not_after = rcgen::date_time_ymd(2020, 1, 1);
    }
    (parameters.self_signed(&key).unwrap(), key)
}

fn pem_file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

/// Opens a connection with these options to a hub with this certificate, which demands a client certificate of `asks`.
async fn open_with_certificates(
    (certificate, key): &(rcgen::Certificate, rcgen::KeyPair),
    asks: Option<&rcgen::Certificate>,
    options: &TlsOptions,
) -> Vec<ConnectionEvent> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
    let server = server.with_safe_default_protocol_versions().unwrap();
    let server = match asks {
        None => server.with_no_client_auth(),
        Some(root) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(root.der().clone()).unwrap();
            let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            server.with_client_cert_verifier(clients.build().unwrap())
        }
    };
    let server = server.with_single_cert(vec![certificate.der().clone()], private).unwrap();
    let (mut request, _hub) = start_hub(async move |stream| {
        let Ok(stream) = tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(stream).await else { return };
        let mut peer = TestPeer::upgrade(stream, &[], &[]).await;
        peer.send(server_text("over TLS")).await.unwrap();
    })
    .await;
    request.tls = Some(tls::client_config(options).unwrap());
    request.endpoint.tls = true;
    request.endpoint.host = "localhost".to_owned();
    TestClient::open(request).remaining_events().await
}

/// Asserts that the hub's message arrived, or that the connection failed for the reason `refused`.
fn assert_over_tls(events: &[ConnectionEvent], refused: Option<&str>) {
    match refused {
        None => assert_eq!(events[1], message("over TLS"), "{events:?}"),
        Some(expected) => {
            let [ConnectionEvent::Unreachable { reason }] = events else { panic!("{events:?}") };
            assert!(reason.contains(expected), "{reason}");
        }
    }
}

/// As with curl.
#[rstest]
#[case::given(true, false, None)]
#[case::another(false, false, Some("it is the certificate of a certificate authority, not of a server"))]
#[case::expired(true, true, Some("certificate not trusted: certificate expired"))]
#[tokio::test]
async fn a_given_certificate_is_trusted_itself(
    #[case] given: bool,
    #[case] expired: bool,
    #[case] refused: Option<&str>,
) {
    let own = self_signed_certificate(expired);
    let other = self_signed_certificate(false);
    let file = pem_file(&if given { &own.0 } else { &other.0 }.pem());
    let options = TlsOptions { ca: Some(file.path().to_owned()), ..TlsOptions::default() };
    assert_over_tls(&open_with_certificates(&own, None, &options).await, refused);
}

#[rstest]
#[case::none(None, false, Some("the hub asks for a client certificate: give it with --cert FILE and --key FILE"))]
#[case::right(Some(true), false, None)]
#[case::both_in_one_file(Some(true), true, None)]
#[case::wrong(Some(false), false, Some("the hub does not accept the client certificate of --cert"))]
#[tokio::test]
async fn a_client_certificate_is_presented_to_a_hub_that_asks(
    #[case] right: Option<bool>,
    #[case] one_file: bool,
    #[case] refused: Option<&str>,
) {
    let hub = self_signed_certificate(false);
    let (root, root_key) = self_signed_certificate(false);
    let mut issuing = rcgen::CertificateParams::default();
    issuing.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = rcgen::Issuer::new(issuing, root_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(["client".to_owned()]).unwrap();
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let client = match right {
        Some(false) => parameters.self_signed(&key).unwrap(),
        _ => parameters.signed_by(&key, &issuer).unwrap(),
    };
    let (certificate, key) = (client.pem(), key.serialize_pem());
    let cert = pem_file(&if one_file { format!("{certificate}{key}") } else { certificate });
    let key = pem_file(&key);
    let (cert, key) = (Some(cert.path().to_owned()), Some(key.path().to_owned()));
    let options = TlsOptions {
        cert: cert.filter(|_| right.is_some()),
        key: key.filter(|_| right.is_some() && !one_file),
        insecure: true,
        ..TlsOptions::default()
    };
    assert_over_tls(&open_with_certificates(&hub, Some(&root), &options).await, refused);
}

#[tokio::test]
async fn tls_to_a_plain_text_server_is_explained() {
    let (mut request, _hub) =
        start_hub(async |mut stream| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await).await;
    request.endpoint.tls = true;
    request.tls = Some(tls::client_config(&TlsOptions { insecure: true, ..TlsOptions::default() }).unwrap());
    let reason = "TLS: the answer is not TLS: should the address be ws:// instead of wss://?".to_owned();
    assert_eq!(TestClient::open(request).remaining_events().await, [ConnectionEvent::Unreachable { reason }]);
}

/// An actor that listens, and a client connected to it.
async fn listening_actor_with_client() -> (TestClient, TestClient) {
    let listener =
        listen(ListenRequest { subprotocols: vec!["v1".to_owned()], ..ListenRequest::default() }).await.unwrap();
    let mut request = ConnectRequest::new(listener.url().parse().unwrap());
    request.dial.path = Some("/child?id=1".to_owned());
    request.dial.subprotocols = vec!["v0".to_owned(), "v1".to_owned()];
    let client = TestClient::open(request);
    let (sender, events) = mpsc::channel(8);
    let connection = timeout(GUARD, listener.accept(ConnectionId(7), sender)).await.unwrap().unwrap();
    (TestClient { connection, events }, client)
}

#[tokio::test]
async fn a_listening_actor_accepts_a_connection_of_the_hub() {
    let (mut actor, mut client) = listening_actor_with_client().await;
    let ConnectionEvent::Upgraded { headers, subprotocol, .. } = actor.next_event().await else { panic!() };
    assert_eq!(headers[0], (":path".to_owned(), "/child?id=1".to_owned()));
    assert_eq!(subprotocol.as_deref(), Some("v1"));
    assert!(matches!(client.next_event().await, ConnectionEvent::Upgraded { subprotocol: Some(_), .. }));
    client.send(Frame::text("to the actor"));
    client.send(Frame::ping("p"));
    assert_eq!(actor.next_event().await, message("to the actor"));
    assert_eq!(actor.next_event().await, ConnectionEvent::Ping(b"p".to_vec()));
    assert_eq!(client.next_event().await, ConnectionEvent::Pong(b"p".to_vec()));
    actor.send(server_text("from the actor"));
    assert_eq!(client.next_event().await, message("from the actor"));
}

#[rstest]
#[tokio::test]
async fn either_side_of_an_accepted_connection_can_close_it(#[values(true, false)] actor_first: bool) {
    let (mut actor, mut client) = listening_actor_with_client().await;
    actor.next_event().await;
    client.next_event().await;
    if actor_first {
        actor.send(Frame::close(Some(4001), "").unmasked());
    } else {
        client.send(Frame::close(Some(4001), ""));
    }
    for side in [&mut actor, &mut client] {
        let events = side.remaining_events().await;
        assert_eq!((&events[0], events.len()), (&close(4001), 2));
        assert_end(&events, false, "the hub closed the connection after the closing handshake");
    }
}

#[rstest]
#[case("GET / HTTP/1.1\r\nHost: h\r\n\r\n", "an invalid upgrade request: the header `Upgrade: websocket` is missing")]
#[case("\0\0\0", "the upgrade request cannot be understood: it begins with \"\\x00\\x00\\x00\", which is not HTTP")]
#[case("GET / HT", "the connection ended before a complete upgrade request was received")]
#[tokio::test]
async fn a_listening_actor_refuses_an_invalid_upgrade(#[case] request: &str, #[case] expected: &str) {
    let listener = listen(ListenRequest::default()).await.unwrap();
    let mut stream = TcpStream::connect(listener.url().trim_start_matches("ws://")).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let (sender, events) = mpsc::channel(8);
    let connection = listener.accept(ConnectionId(7), sender).await.unwrap();
    let events = TestClient { connection, events }.remaining_events().await;
    assert!(
        matches!(&events[0], ConnectionEvent::Violation { what, section: "4.1", bound: false } if what == expected),
        "{events:?}"
    );
    assert_end(&events, true, "dropped after the violation");
}
