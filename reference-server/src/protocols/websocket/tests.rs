//! The answers of this hub to valid and invalid bytes from clients.

use rstest::rstest;

use super::Session;

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\nSec-WebSocket-Version: 13\r\n";

/// Returns the answer to these pieces of a stream, and whether the hub ends the stream.
fn answer_to_pieces(fault: Option<&str>, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
    let mut session = Session::new(fault).unwrap();
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

/// Returns the answer to frames after an upgrade, and whether the hub ends the stream.
fn answer_to_frames(fault: Option<&str>, sent: &[Vec<u8>]) -> (Vec<u8>, bool) {
    let head = format!("{UPGRADE}\r\n");
    let upgrade = answer_to_pieces(fault, &[head.as_bytes()]).0;
    let (answer, over) = answer_to_pieces(fault, &[&[head.as_bytes(), &sent.concat()].concat()]);
    (answer[upgrade.len()..].to_vec(), over)
}

/// Returns the answers on all connections in which a fault can show, as text.
pub(crate) fn conversation(fault: Option<&str>) -> Vec<String> {
    let heads = [
        format!("{UPGRADE}Sec-WebSocket-Protocol: a, b\r\n"),
        UPGRADE.to_owned(),
        UPGRADE.replace("GET", "POST"),
        UPGRADE.replace("HTTP/1.1", "HTTP/1.0"),
        UPGRADE.replace("Host: h\r\n", ""),
        UPGRADE.replace("Upgrade: websocket\r\n", ""),
        UPGRADE.replace("Upgrade: websocket\r\n", "Upgrade: h2c\r\n"),
        UPGRADE.replace("Connection: Upgrade\r\n", ""),
        UPGRADE.replace("Connection: Upgrade\r\n", "Connection: close\r\n"),
        UPGRADE.replace("Connection: Upgrade\r\n", "Connection: keep-alive, Upgrade\r\n"),
        UPGRADE.replace("websocket", "WebSocket"),
        UPGRADE.to_lowercase().replacen("get / http", "GET / HTTP", 1),
        UPGRADE.replace("Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n", ""),
        UPGRADE.replace("AAECAwQFBgcICQoLDA0ODw==", "AAEC"),
        UPGRADE.replace("Version: 13", "Version: 12"),
        UPGRADE.replace("Sec-WebSocket-Version: 13\r\n", ""),
    ];
    let ping = masked_frame(0x89, b"\xff!");
    let reason = b"\x03\xe8\xff";
    let streams: Vec<Vec<Vec<u8>>> = vec![
        vec![
            masked_frame(0x81, b"{}"),
            ping.clone(),
            masked_frame(0x89, b""),
            masked_frame(0x89, &[b'x'; 125]),
            masked_frame(0x8a, b"unasked"),
        ],
        vec![b"\x81\x02{}".to_vec(), ping.clone()],
        vec![masked_frame(0xc1, b""), ping.clone()],
        vec![masked_frame(0xd9, b""), ping.clone()],
        vec![masked_frame(0x83, b""), ping.clone()],
        vec![masked_frame(0x8b, b""), ping.clone()],
        vec![masked_frame(0x82, &[b'x'; 300]), ping.clone()],
        vec![masked_frame(0x82, &[b'x'; 70_000]), ping.clone()],
        vec![b"\x82\xff\x80\0\0\0\0\0\0\x01\0\0\0\0".to_vec()],
        vec![b"\x82\xfe\0\x01\0\0\0\0x".to_vec(), ping.clone()],
        vec![masked_frame(0x01, b"{"), ping.clone(), masked_frame(0x80, b"}")],
        vec![masked_frame(0x01, b"{"), masked_frame(0x00, b""), masked_frame(0x80, b"}"), ping.clone()],
        vec![masked_frame(0x01, b"\xc3"), masked_frame(0x80, b"\xa9"), ping.clone()],
        vec![masked_frame(0x01, b"\xc3"), masked_frame(0x80, b"("), ping.clone()],
        vec![masked_frame(0x80, b"}"), ping.clone()],
        vec![masked_frame(0x01, b"{"), masked_frame(0x81, b"{}"), ping.clone()],
        vec![masked_frame(0x09, b""), ping.clone()],
        vec![masked_frame(0x89, &[b'x'; 126]), ping.clone()],
        vec![masked_frame(0x81, b"\xc3("), ping.clone()],
        vec![masked_frame(0x81, b"\xc3"), ping.clone()],
        vec![masked_frame(0x81, b"\xed\xa0\x80"), ping.clone()],
        vec![masked_frame(0x81, b"\xc0\xaf"), ping.clone()],
        vec![masked_frame(0x81, b"\xf4\x90\x80\x80"), ping.clone()],
        vec![masked_frame(0x01, b"{"), masked_frame(0x88, b"\x03\xe8")],
    ];
    let longest = [b"\x03\xe8".as_slice(), &[b'x'; 123]].concat();
    let closes: [&[u8]; 9] =
        [b"", b"\x03", b"\x03\xe8", b"\x03\xe9", b"\x0f\xa0", b"\x03\xed", b"\0\0", reason, &longest];
    let upgrades = heads.iter().map(|head| answer_to_pieces(fault, &[format!("{head}\r\n").as_bytes()]));
    let streams = streams.iter().map(|sent| answer_to_frames(fault, sent));
    let closes = closes.iter().map(|body| answer_to_frames(fault, &[masked_frame(0x88, body), ping.clone()]));
    upgrades.chain(streams).chain(closes).map(|(answer, over)| format!("{} {over}", answer.escape_ascii())).collect()
}

#[rstest]
#[case(&[masked_frame(0x89, b"a")], b"\x8a\x01a", false)]
#[case(&[masked_frame(0x81, b"a"), masked_frame(0x82, b"\xff"), masked_frame(0x8a, b"")], b"", false)]
#[case(&[masked_frame(0x88, b"\x03\xe9why")], b"\x88\x02\x03\xe9", true)]
#[case(&[masked_frame(0x88, b"")], b"\x88\x00", true)]
#[case(&[masked_frame(0x88, b"\x03\xed")], b"\x88\x02\x03\xea", true)]
#[case(&[b"\x81\x00".to_vec()], b"\x88\x02\x03\xea", true)]
#[case(&[masked_frame(0x01, b"\xc3"), masked_frame(0x89, b""), masked_frame(0x80, b"\xa9"), masked_frame(0x89, b"b")], b"\x8a\x00\x8a\x01b", false)]
#[case(&[masked_frame(0x81, b"\xff")], b"\x88\x02\x03\xef", true)]
#[case(&[b"\x82\xff\0\0\0\0\x7f\xff\xff\xff".to_vec(), vec![0; 4]], b"\x88\x02\x03\xf1", true)]
fn pings_and_closes_are_answered_and_invalid_frames_close_the_connection(
    #[case] sent: &[Vec<u8>],
    #[case] answer: &[u8],
    #[case] over: bool,
) {
    assert_eq!(answer_to_frames(None, sent), (answer.to_vec(), over));
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
    let whole = answer_to_pieces(None, &[&all]);
    let bytes: Vec<&[u8]> = all.chunks(1).collect();
    assert_eq!(answer_to_pieces(None, &bytes), whole);
    assert!(whole.0.ends_with(b"\x8a\x01x\x88\x02\x03\xe8") && whole.1);
}

#[test]
fn an_upgrade_request_that_never_ends_is_cut_off() {
    let endless = vec![b'x'; 20_000];
    assert_eq!(answer_to_pieces(None, &[&endless]), (Vec::new(), true));
}

proptest::proptest! {
    #[test]
    fn random_bytes_from_a_client_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        answer_to_frames(None, std::slice::from_ref(&bytes));
        answer_to_pieces(None, &[&bytes]);
    }
}
