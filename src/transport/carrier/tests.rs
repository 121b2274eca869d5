use std::time::Duration;

use rstest::rstest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use super::lines::Lines;
use super::zmtp::{SocketKind, Zmtp};
use super::*;
use crate::transport::{ConnectionCommand, ConnectionId, IncomingEvent, open_connection};
use crate::websocket::frame::Opcode;

/// The bytes of a REP or PUB socket: greeting and READY.
fn hub_opening(kind: &str) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    (bytes[0], bytes[9], bytes[10], bytes[11]) = (0xff, 0x7f, 3, 1);
    bytes[12..16].copy_from_slice(b"NULL");
    let body =
        [b"\x05READY\x08Identity\0\0\0\0\x0bSocket-Type\0\0\0", &[kind.len() as u8][..], kind.as_bytes()].concat();
    bytes.extend([4, body.len() as u8]);
    bytes.extend(body);
    bytes
}

fn long_frame(body: &[u8]) -> Vec<u8> {
    [&[2][..], &(body.len() as u64).to_be_bytes(), body].concat()
}

/// Gives the bytes to a carrier in pieces. Returns the messages and the answers, or what is wrong.
fn received(mut carrier: impl Carrier, bytes: &[u8], piece: usize) -> Result<(Vec<String>, Vec<u8>), String> {
    let (mut messages, mut answers) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        carrier.receive(piece, &mut messages, &mut answers)?;
    }
    Ok((messages.into_iter().map(|message| String::from_utf8(message).unwrap()).collect(), answers))
}

#[test]
fn messages_are_the_same_however_the_bytes_are_split() {
    let long = "x".repeat(300);
    let bytes = [
        hub_opening("REP"),
        b"\x01\0\0\x02{}".to_vec(),
        // A ping of version 3.1, and an unknown command.
        b"\x04\x09\x04PING\0\x0aab\x04\x04\x03NEW".to_vec(),
        b"\x01\0".to_vec(),
        long_frame(long.as_bytes()),
    ]
    .concat();
    for piece in 1..bytes.len() {
        let zmtp = Zmtp::new(SocketKind::Dealer, 1000);
        let (messages, answers) = received(zmtp, &bytes, piece).unwrap();
        assert_eq!(messages, ["{}", &long], "{piece}");
        assert_eq!(answers, b"\x04\x07\x04PONGab", "{piece}");
    }
    for piece in 1..9 {
        let lines = received(Lines::new(9), b"{\"a\":1}\r\n\n\n[2]\n{", piece).unwrap();
        assert_eq!(lines.0, ["{\"a\":1}", "[2]"], "{piece}");
    }
}

#[test]
fn a_publication_is_the_part_after_its_topic() {
    let bytes = [hub_opening("PUB"), b"\0\x02{}".to_vec(), b"\x01\x03top\0\x02[]".to_vec()].concat();
    let (messages, answers) = received(Zmtp::new(SocketKind::Sub, 100), &bytes, 7).unwrap();
    assert_eq!((messages, answers), (vec!["{}".to_owned(), "[]".to_owned()], vec![0, 1, 1]));
}

#[rstest]
#[case::old(vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 1], "the hub speaks version 1 of ZMTP, and hubproof needs 3")]
#[case::wrong_socket(hub_opening("PULL"), "the hub's socket is PULL, not REP or ROUTER")]
#[case::refused([&hub_opening("REP")[..64], b"\x04\x0a\x05ERROR\x03no\x1b"].concat(), "the hub refuses the connection: no\\x1b")]
#[case::early([&hub_opening("REP")[..64], b"\0\x02{}"].concat(), "a message before READY")]
#[case::undelimited([hub_opening("REP"), b"\0\x02{}".to_vec()].concat(), "an answer without the empty part before it")]
#[case::flags([hub_opening("REP"), vec![0x80]].concat(), "a frame begins with 0x80, which ZMTP does not define")]
#[case::huge([hub_opening("REP"), vec![2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]].concat(), "a message of more than 100 bytes")]
#[case::in_parts([hub_opening("REP"), [&[1, 60][..], &[7; 60]].concat(), vec![0, 60]].concat(), "a message of more than 40 bytes")]
#[case::command([hub_opening("REP"), vec![6, 0, 0, 0, 0, 0, 0, 0xff, 0xff]].concat(), "a command of more than 4096 bytes")]
#[case::many_parts([hub_opening("REP"), [1, 0].repeat(65)].concat(), "a message of more than 64 parts")]
fn what_breaks_zmtp_is_named(#[case] bytes: Vec<u8>, #[case] expected: &str) {
    for piece in [1, 5, bytes.len()] {
        assert_eq!(received(Zmtp::new(SocketKind::Dealer, 100), &bytes, piece).unwrap_err(), expected, "{piece}");
    }
}

#[test]
fn an_unknown_mechanism_is_named_and_a_line_has_a_limit() {
    let mut bytes = hub_opening("REP");
    bytes[12..17].copy_from_slice(b"CURVE");
    let error = received(Zmtp::new(SocketKind::Dealer, 100), &bytes, 64).unwrap_err();
    assert_eq!(error, "the hub demands the mechanism CURVE, and hubproof knows only NULL");
    assert_eq!(received(Lines::new(9), b"0123456789", 3).unwrap_err(), "a line of more than 9 bytes");
}

#[test]
fn what_is_sent_has_an_empty_part_or_a_line_end() {
    let mut out = Vec::new();
    Zmtp::new(SocketKind::Dealer, 100).encode(b"{\n}", &mut out);
    Lines::new(100).encode(b"{\r\n}", &mut out);
    assert_eq!(out, b"\x01\0\0\x03{\n}{  }\n");
}

/// Serves one connection of a hub.
async fn hub_on<F: Future<Output = ()> + Send>(serve: impl FnOnce(TcpStream) -> F + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { serve(listener.accept().await.unwrap().0).await });
    address
}

async fn opened(address: String) -> (super::super::Connection, mpsc::Receiver<IncomingEvent>) {
    let (to, events) = mpsc::channel(10);
    let request = ConnectRequest { timeout: Duration::from_secs(20), ..ConnectRequest::new(address.parse().unwrap()) };
    (open_connection(ConnectionId(0), request, to), events)
}

#[tokio::test]
async fn a_request_and_its_answer_pass_both_ways_and_a_close_ends_the_stream() {
    let (received, seen) = oneshot::channel();
    let address = hub_on(async move |mut stream: TcpStream| {
        let mut head = [0; 64 + 30];
        stream.write_all(&hub_opening("REP")).await.unwrap();
        stream.read_exact(&mut head).await.unwrap();
        let mut request = [0; 6];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(b"\x01\0\0\x07{\"a\":1}").await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        received.send((request, rest)).unwrap();
    })
    .await;
    let (connection, mut events) = opened(format!("tcp://{address}")).await;
    assert!(matches!(events.recv().await.unwrap().what, ConnectionEvent::Upgraded { .. }));
    let frames = [Frame::text("{"), Frame::ping("p")];
    let continued = [
        Frame { fin: false, ..frames[0].clone() },
        frames[1].clone(),
        Frame { opcode: Opcode::Continuation, ..Frame::text("}") },
    ];
    connection.send(ConnectionCommand::Frames(continued.to_vec())).unwrap();
    assert!(matches!(events.recv().await.unwrap().what, ConnectionEvent::Pong(data) if data == b"p"));
    let ConnectionEvent::Message(answer) = events.recv().await.unwrap().what else { panic!("no message") };
    assert_eq!(answer.payload, b"{\"a\":1}");
    connection.send(ConnectionCommand::Frames(vec![Frame::close(Some(1000), "")])).unwrap();
    assert!(matches!(events.recv().await.unwrap().what, ConnectionEvent::Close { code: Some(1000), .. }));
    assert!(matches!(events.recv().await.unwrap().what, ConnectionEvent::End { .. }));
    assert_eq!(seen.await.unwrap(), (*b"\x01\0\0\x02{}", Vec::new()));
}

#[tokio::test]
async fn a_hub_that_breaks_the_protocol_or_speaks_another_is_named() {
    let address = hub_on(async |mut stream: TcpStream| {
        let opening = [hub_opening("REP"), b"\x01\0\0\x02{}\x7f".to_vec()].concat();
        stream.write_all(&opening).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let (_connection, mut events) = opened(format!("tcp://{address}")).await;
    assert!(
        matches!(events.recv().await.unwrap().what, ConnectionEvent::NoUpgrade { reason, .. } if reason.contains("0x7f"))
    );
    let address = hub_on(async |mut stream: TcpStream| stream.write_all(b"SSH-2.0-x\r\n").await.unwrap()).await;
    let (_connection, mut events) = opened(format!("tcp://{address}")).await;
    let reason = "no ZeroMQ socket answers: `SSH-2.0-x\\r\\n`";
    assert!(
        matches!(events.recv().await.unwrap().what, ConnectionEvent::NoUpgrade { reason: why, .. } if why == reason)
    );
    let address = hub_on(async |mut stream: TcpStream| {
        stream.write_all(b"{}\n").await.unwrap();
        stream.write_all(&[b'x'; 70_000]).await.unwrap();
    })
    .await;
    let (_connection, mut events) = opened(format!("tcp+lines://{address}")).await;
    assert!(matches!(events.recv().await.unwrap().what, ConnectionEvent::Upgraded { .. }));
    assert!(matches!(events.recv().await.unwrap().what, ConnectionEvent::Message(message) if message.payload == b"{}"));
    assert!(matches!(events.recv().await.unwrap().what, ConnectionEvent::End { .. }));
}
