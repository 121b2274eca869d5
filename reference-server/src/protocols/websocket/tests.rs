//! What the scenarios of `websocket` do not prove: streams in pieces, endless ones and random bytes.

use super::Session;

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\nSec-WebSocket-Version: 13\r\n";

/// Returns the answer to these pieces of a stream, and whether the hub ends the stream.
fn answer_to_pieces(pieces: &[&[u8]]) -> (Vec<u8>, bool) {
    let mut session = Session::new(None).unwrap();
    let mut out = Vec::new();
    for piece in pieces {
        session.receive(piece, &mut out);
    }
    (out, session.is_over())
}

/// Builds a frame with this first byte, masked with a key that is not 0.
fn masked_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [1, 2, 3, 4];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        medium @ 126..=65535 => frame.extend([[0xfe].as_slice(), &(medium as u16).to_be_bytes()].concat()),
        long => frame.extend([[0xff].as_slice(), &(long as u64).to_be_bytes()].concat()),
    }
    frame.extend(key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// The answer is the same however the stream is cut into pieces.
#[test]
fn the_answer_does_not_depend_on_how_the_stream_is_split() {
    let all = [
        format!("{UPGRADE}\r\n").into_bytes(),
        masked_frame(0x01, b"{"),
        masked_frame(0x89, b"x"),
        masked_frame(0x80, &[b'x'; 300]),
    ];
    let all = [all.concat(), masked_frame(0x88, b"\x03\xe8")].concat();
    let whole = answer_to_pieces(&[&all]);
    let bytes: Vec<&[u8]> = all.chunks(1).collect();
    assert_eq!(answer_to_pieces(&bytes), whole);
    assert!(whole.0.ends_with(b"\x8a\x01x\x88\x02\x03\xe8") && whole.1);
}

#[test]
fn an_upgrade_request_that_never_ends_is_cut_off() {
    let endless = vec![b'x'; 20_000];
    assert_eq!(answer_to_pieces(&[&endless]), (Vec::new(), true));
}

proptest::proptest! {
    #[test]
    fn random_bytes_from_a_client_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        answer_to_pieces(&[format!("{UPGRADE}\r\n").as_bytes(), &bytes]);
        answer_to_pieces(&[&bytes]);
    }
}
