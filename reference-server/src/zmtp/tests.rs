//! Conversations in pieces, limits and random bytes.

use proptest::prelude::*;
use rstest::rstest;

use super::bytes::{COMMAND, MORE, write_command, write_frame, write_greeting, write_property};
use super::*;

const LONG: &[u8] = &[b'x'; 300];

/// The bytes of a peer: its greeting, READY with its type, and frames with their flags.
fn peer(socket_type: &str, frames: &[(u8, &[u8])]) -> Vec<u8> {
    let (mut bytes, mut properties) = (Vec::new(), Vec::new());
    write_greeting(&mut bytes);
    write_property("Identity", b"", &mut properties);
    write_property("socket-type", socket_type.as_bytes(), &mut properties);
    write_command("READY", &properties, &mut bytes);
    frames.iter().for_each(|(flags, body)| write_frame(*flags, body, &mut bytes));
    bytes
}

#[derive(Debug, PartialEq)]
struct Conversation {
    requests: Vec<ZmtpRequest>,
    error: Option<ZmtpError>,
    out: Vec<u8>,
    /// Whether each of a few messages would be sent.
    wanted: [bool; 3],
}

/// Plays a conversation whose bytes arrive in these pieces.
fn play<'a>(kind: SocketKind, pieces: impl IntoIterator<Item = &'a [u8]>) -> Conversation {
    let mut session = ZmtpSession::new(kind, 1000);
    let (mut requests, mut error) = (Vec::new(), None);
    for piece in pieces {
        session.receive(piece);
        while error.is_none() {
            match session.next_request() {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break,
                Err(failed) => error = Some(failed),
            }
        }
        assert!(session.received.capacity() < 3 * MAX_COMMAND, "{}", session.received.capacity());
    }
    let wanted = [b"abc", b"bcd", b"xyz"].map(|data| {
        let mut out = Vec::new();
        session.write_message(&[], data, &mut out);
        !out.is_empty()
    });
    Conversation { requests, error, out: session.take_out(), wanted }
}

#[rstest]
#[case::req(SocketKind::Rep, peer("REQ", &[(MORE, b""), (0, b"{}"), (COMMAND, b"\x04PING\0\x01ctx"), (MORE, b""), (0, LONG)]))]
#[case::dealer(SocketKind::Rep, peer("DEALER", &[(MORE, b"a"), (MORE, LONG), (MORE, b""), (MORE, b"1"), (0, b""), (0, b"x"), (0, b"")]))]
#[case::wrong(SocketKind::Rep, peer("PUSH", &[]))]
#[case::sub(SocketKind::Pub, peer("SUB", &[(0, b"\x01a"), (0, b"\x01a"), (0, b"\0a"), (COMMAND, b"\x09SUBSCRIBEb"), (COMMAND, b"\x04JOINg")]))]
#[case::xsub(SocketKind::Pub, peer("XSUB", &[(0, b"\x01"), (COMMAND, b"\x06CANCEL"), (0, b"\x02a"), (0, b""), (MORE, b"\x01"), (0, b"")]))]
fn a_conversation_does_not_depend_on_how_its_bytes_are_split(#[case] kind: SocketKind, #[case] bytes: Vec<u8>) {
    let whole = play(kind, [&bytes[..]]);
    assert_eq!(play(kind, bytes.chunks(1)), whole);
    for place in 0..bytes.len() {
        let (first, second) = bytes.split_at(place);
        assert_eq!(play(kind, [first, second]), whole, "split at {place}");
    }
}

#[test]
fn a_reply_has_the_envelope_of_its_request() {
    let frames: &[(u8, &[u8])] = &[(MORE, b"proxy"), (MORE, b""), (0, b"{}"), (COMMAND, b"\x04PING\0\0ctx")];
    let got = play(SocketKind::Rep, [&peer("DEALER", frames)[..]]);
    let envelope = vec![b"proxy".to_vec(), Vec::new()];
    assert_eq!(got.requests, [ZmtpRequest { envelope: envelope.clone(), data: vec![b"{}".to_vec()] }]);
    assert!(got.out.ends_with(b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03REP\x04\x08\x04PONGctx"), "{:?}", got.out);
    let mut reply = Vec::new();
    ZmtpSession::new(SocketKind::Rep, 1000).write_message(&envelope, LONG, &mut reply);
    assert_eq!(reply, [b"\x01\x05proxy\x01\0\x02\0\0\0\0\0\0\x01\x2c", LONG].concat());
}

#[rstest]
#[case(peer("SUB", &[]), [false, false, false])]
#[case(peer("SUB", &[(0, b"\x01ab")]), [true, false, false])]
#[case(peer("SUB", &[(0, b"\x01a"), (COMMAND, b"\x09SUBSCRIBEa"), (0, b"\0a")]), [true, false, false])]
#[case(peer("SUB", &[(0, b"\x01a"), (COMMAND, b"\x09SUBSCRIBEb"), (COMMAND, b"\x06CANCELa")]), [false, true, false])]
#[case(peer("SUB", &[(COMMAND, b"\x09SUBSCRIBE")]), [true, true, true])]
#[case(peer("SUB", &[(0, b"\x01"), (0, b"\0")]), [false, false, false])]
fn subscribers_get_what_begins_with_a_subscription(#[case] bytes: Vec<u8>, #[case] wanted: [bool; 3]) {
    assert_eq!(play(SocketKind::Pub, [&bytes[..]]).wanted, wanted);
}

/// The bytes of a peer that follow its handshake.
fn then(bytes: &[u8]) -> Vec<u8> {
    [peer("REQ", &[]), bytes.to_vec()].concat()
}

/// A greeting with another octet at this place.
fn greeting_with(place: usize, octet: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_greeting(&mut bytes);
    bytes[place] = octet;
    bytes
}

#[rstest]
#[case::http(b"GET / HTTP/1.1".to_vec(), ZmtpError::Signature)]
#[case::not_the_signature(greeting_with(9, 0), ZmtpError::Signature)]
#[case::version_2(b"\xff\0\0\0\0\0\0\0\0\x7f\x02".to_vec(), ZmtpError::Version)]
#[case::other_mechanism(greeting_with(12, b'C'), ZmtpError::Mechanism)]
#[case::longer_mechanism(greeting_with(16, b'1'), ZmtpError::Mechanism)]
#[case::message_first([greeting_with(9, 0x7f), b"\0\0".to_vec()].concat(), ZmtpError::Handshake)]
#[case::error_first([greeting_with(9, 0x7f), b"\x04\x07\x05ERROR\0".to_vec()].concat(), ZmtpError::Refused)]
#[case::cut_properties([greeting_with(9, 0x7f), b"\x04\x0c\x05READY\x01X\0\0\0\x01".to_vec()].concat(), ZmtpError::Command)]
#[case::ready_twice(then(b"\x04\x06\x05READY"), ZmtpError::Handshake)]
#[case::other_socket(peer("SUB", &[]), ZmtpError::SocketType)]
#[case::reserved_flag(then(b"\x08"), ZmtpError::Flags)]
#[case::command_with_more(then(b"\x05"), ZmtpError::Flags)]
#[case::nameless_command(then(b"\x04\x01\0"), ZmtpError::Command)]
#[case::long_ping(then(b"\x04\x18\x04PING\0\0aaaabbbbccccddddx"), ZmtpError::Command)]
#[case::huge_frame(then(b"\x02\xff\xff\xff\xff\xff\xff\xff\xff"), ZmtpError::TooLong)]
#[case::long_command(then(b"\x06\0\0\0\0\0\x01\0\x01"), ZmtpError::TooLong)]
#[case::long_frame(then(b"\x02\0\0\0\0\0\0\x03\xe9"), ZmtpError::TooLong)]
#[case::long_message(peer("REQ", &[(MORE, &[b'x'; 600]), (0, &[b'x'; 401])]), ZmtpError::TooLong)]
#[case::many_frames(peer("REQ", &[(MORE, &b""[..]); MAX_FRAMES + 1]), ZmtpError::TooLong)]
fn what_is_not_allowed_ends_the_connection(#[case] bytes: Vec<u8>, #[case] error: ZmtpError) {
    let got = play(SocketKind::Rep, [&bytes[..]]);
    assert_eq!((got.error, got.requests), (Some(error), Vec::new()));
    let refused = got.out.ends_with(b"\x04\x1a\x05ERROR\x13Invalid socket type");
    assert_eq!(refused, error == ZmtpError::SocketType, "{:?}", got.out);
}

#[test]
fn subscriptions_of_a_peer_have_a_limit() {
    let most = MAX_COMMAND / SUBSCRIPTION_COST;
    let error = |count: usize| play(SocketKind::Pub, peer("SUB", &vec![(0, &b"\x01"[..]); count]).chunks(4096)).error;
    assert_eq!((error(most), error(most + 1)), (None, Some(ZmtpError::TooLong)));
}

proptest! {
    #[test]
    fn random_bytes_from_a_peer_never_panic(
        kind in prop::sample::select(vec![SocketKind::Rep, SocketKind::Pub]),
        frames in prop::collection::vec((0..8u8, prop::collection::vec(any::<u8>(), 0..40)), 0..20),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let frames: Vec<_> = frames.iter().map(|(flags, body)| (*flags, &body[..])).collect();
        let socket_type = if kind == SocketKind::Rep { "DEALER" } else { "XSUB" };
        play(kind, [&peer(socket_type, &frames)[..], &bytes]);
        play(kind, [&bytes[..]]);
    }
}
