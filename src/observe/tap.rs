//! Turns the bytes of both directions of connections into the lines of a recording.

use std::collections::HashMap;

use crate::import::recording::{RecordedEvent, RecordedLine, SentFrame, Side};
use crate::websocket::codec::{ConnectionSide, FrameDecoder, PeerLimits};
use crate::websocket::frame::ConnectionEvent;
use crate::websocket::handshake::{
    RequestHead, judge_response, parse_request_head, parse_response_head, request_fault,
};

/// The longest message that is read, in bytes.
const MAX_MESSAGE: usize = 16 << 20;
/// The most bytes of incomplete messages that all connections keep, and those that each may keep in any case.
const MAX_KEPT: usize = 64 << 20;
const MAX_OWN: usize = 16 << 10;

/// Taps on all connections of a relay.
#[derive(Default)]
pub struct WireTap {
    connections: HashMap<u64, ConnectionTap>,
    /// The number of bytes that all connections keep.
    kept: usize,
}

impl WireTap {
    /// Reads bytes that one side of a connection sent at a time (Unix time in milliseconds).
    pub fn read_bytes(&mut self, time: i64, connection: u64, by: Side, bytes: &[u8]) -> Vec<RecordedLine> {
        let tap = self.connections.entry(connection).or_insert_with(ConnectionTap::new);
        let before = tap.kept_bytes();
        let mut events = tap.read_bytes(by, bytes);
        self.kept = self.kept + tap.kept_bytes() - before;
        if self.kept > MAX_KEPT && tap.kept_bytes() > MAX_OWN {
            self.kept -= tap.kept_bytes();
            tap.stage = TapStage::Ignored;
            let what = "too many incomplete messages, hubproof's limit".to_owned();
            events.push(sent(by, SentFrame::Broken { what, section: "10.4".to_owned(), bound: true }));
        }
        events.into_iter().map(|event| RecordedLine { time, connection, event }).collect()
    }

    /// Forgets a connection on which nothing more passes.
    pub fn end(&mut self, connection: u64) {
        if let Some(tap) = self.connections.remove(&connection) {
            self.kept -= tap.kept_bytes();
        }
    }
}

fn sent(by: Side, what: SentFrame) -> RecordedEvent {
    RecordedEvent::Sent { by, what }
}

/// One connection.
struct ConnectionTap {
    stage: TapStage,
}

enum TapStage {
    /// The request for an upgrade is incomplete.
    Request(Vec<u8>),
    /// So is the answer. `early` is what the client sent after its request.
    Answer {
        request: Box<RequestHead>,
        answer: Vec<u8>,
        early: Vec<u8>,
    },
    Open(Box<[FrameDecoder; 2]>),
    /// It is not a WebSocket connection, or is not read any more.
    Ignored,
}

impl ConnectionTap {
    fn new() -> Self {
        Self { stage: TapStage::Request(Vec::new()) }
    }

    fn kept_bytes(&self) -> usize {
        match &self.stage {
            TapStage::Request(bytes) => bytes.len(),
            TapStage::Answer { answer, early, .. } => answer.len() + early.len(),
            TapStage::Open(decoders) => decoders.iter().map(FrameDecoder::kept_bytes).sum(),
            TapStage::Ignored => 0,
        }
    }

    fn read_bytes(&mut self, by: Side, bytes: &[u8]) -> Vec<RecordedEvent> {
        match (&mut self.stage, by) {
            (TapStage::Request(request), Side::Client) => {
                request.extend_from_slice(bytes);
                match parse_request_head(request) {
                    Ok(None) => {}
                    Ok(Some(head)) => {
                        let early = request.split_off(head.length);
                        self.stage = TapStage::Answer { request: Box::new(head), answer: Vec::new(), early };
                    }
                    Err(_) => self.stage = TapStage::Ignored,
                }
                Vec::new()
            }
            (TapStage::Answer { early, .. }, Side::Client) => {
                early.extend_from_slice(bytes);
                Vec::new()
            }
            (TapStage::Answer { answer, .. }, Side::Hub) => {
                answer.extend_from_slice(bytes);
                self.read_answer()
            }
            (TapStage::Open(decoders), _) => read_frames(decoders, by, bytes),
            (TapStage::Request(_), Side::Hub) | (TapStage::Ignored, _) => Vec::new(),
        }
    }

    /// Reads the answer to the upgrade once it is complete, and what both sides have sent after it.
    fn read_answer(&mut self) -> Vec<RecordedEvent> {
        let TapStage::Answer { answer, .. } = &self.stage else { return Vec::new() };
        let head = match parse_response_head(answer) {
            Ok(None) => return Vec::new(),
            Ok(Some(head)) if head.status == 101 => head,
            // A refusal judges itself, and what is not HTTP has no frames.
            _ => {
                self.stage = TapStage::Ignored;
                return Vec::new();
            }
        };
        let TapStage::Answer { request, answer, early } = std::mem::replace(&mut self.stage, TapStage::Ignored) else {
            return Vec::new();
        };
        let (length, offered) = (head.length, request.subprotocols());
        let broken =
            |what: String, section: &str| SentFrame::Broken { what, section: section.to_owned(), bound: false };
        let fault = request_fault(&request).map(|what| sent(Side::Client, broken(what, "4.1")));
        let (subprotocols, refused) = match judge_response(head, request.key(), &offered) {
            ConnectionEvent::Upgraded { subprotocol: Some(selected), .. } => (vec![selected], None),
            // After an invalid request, no answer is the right one.
            ConnectionEvent::Refused { reason, .. } if fault.is_none() => {
                (offered, Some(sent(Side::Hub, broken(reason, "4.2.2"))))
            }
            _ => (offered, None),
        };
        let mut events = vec![RecordedEvent::Opened { target: request.target, subprotocols }];
        events.extend(fault);
        if let Some(refused) = refused {
            events.push(refused);
            return events;
        }
        let limits = PeerLimits { message: MAX_MESSAGE, ..PeerLimits::default() };
        let sides = [ConnectionSide::Client, ConnectionSide::Server];
        let mut decoders = Box::new(sides.map(|side| FrameDecoder::new(side, limits)));
        events.extend(read_frames(&mut decoders, Side::Client, &early));
        events.extend(read_frames(&mut decoders, Side::Hub, &answer[length..]));
        self.stage = TapStage::Open(decoders);
        events
    }
}

/// Reads frames of one side; the first decoder is that of the hub's frames.
fn read_frames(decoders: &mut [FrameDecoder; 2], by: Side, mut bytes: &[u8]) -> Vec<RecordedEvent> {
    let decoder = &mut decoders[usize::from(by == Side::Client)];
    let mut events = Vec::new();
    while let Some(event) = decoder.next_event(&mut bytes) {
        let what = match event {
            ConnectionEvent::Message(message) if message.binary => SentFrame::Binary(message.payload.len()),
            ConnectionEvent::Message(message) => match String::from_utf8(message.payload) {
                Ok(text) => SentFrame::Text(text),
                // The decoder reports such a message as a violation.
                Err(_) => continue,
            },
            ConnectionEvent::Close { code, reason } => SentFrame::Close { code, reason },
            ConnectionEvent::Violation { what, section, bound } => {
                SentFrame::Broken { what, section: section.to_owned(), bound }
            }
            _ => continue,
        };
        events.push(sent(by, what));
    }
    events
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::websocket::codec::encode;
    use crate::websocket::frame::Frame;

    const REQUEST: &str = "GET /ws?a=b HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: p, q\r\n\r\n";
    const ANSWER: &str = "HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: q\r\n\r\n";

    fn bytes_of(frames: &[Frame]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| encode(frame, [1, 2, 3, 4], &mut bytes));
        bytes
    }

    /// What a tap reads of a connection whose bytes arrive in pieces.
    fn read(parts: &[(Side, &[u8])], step: usize) -> Vec<RecordedEvent> {
        let mut tap = WireTap::default();
        let mut events = Vec::new();
        for (by, bytes) in parts {
            for piece in bytes.chunks(step) {
                events.extend(tap.read_bytes(0, 1, *by, piece).into_iter().map(|line| line.event));
            }
        }
        tap.end(1);
        assert_eq!((tap.kept, tap.connections.len()), (0, 0));
        events
    }

    #[rstest]
    fn frames_of_both_sides_are_read_however_they_are_cut(#[values(1, 7, 10_000)] step: usize) {
        let early = [REQUEST.as_bytes(), &bytes_of(&[Frame::text("early")])].concat();
        let of_hub = bytes_of(&[Frame::text("hello").unmasked(), Frame::ping("x").unmasked()]);
        let of_hub = [ANSWER.as_bytes(), &of_hub].concat();
        let last = bytes_of(&[Frame::binary("abc"), Frame::close(Some(1000), "bye")]);
        let events = read(&[(Side::Client, &early), (Side::Hub, &of_hub), (Side::Client, &last)], step);
        let expected = [
            RecordedEvent::Opened { target: "/ws?a=b".to_owned(), subprotocols: vec!["q".to_owned()] },
            sent(Side::Client, SentFrame::Text("early".to_owned())),
            sent(Side::Hub, SentFrame::Text("hello".to_owned())),
            sent(Side::Client, SentFrame::Binary(3)),
            sent(Side::Client, SentFrame::Close { code: Some(1000), reason: "bye".to_owned() }),
        ];
        assert_eq!(events, expected);
    }

    #[rstest]
    #[case::unmasked_client(REQUEST, ANSWER, Side::Client, &bytes_of(&[Frame::text("a").unmasked()]), Some((Side::Client, "5.1")))]
    #[case::masked_hub(REQUEST, ANSWER, Side::Hub, &bytes_of(&[Frame::text("a")]), Some((Side::Hub, "5.1")))]
    #[case::not_utf8(REQUEST, ANSWER, Side::Hub, b"\x81\x01\xff", Some((Side::Hub, "8.1")))]
    #[case::wrong_accept(REQUEST, &ANSWER.replace("s3pP", "xxxx"), Side::Hub, b"", Some((Side::Hub, "4.2.2")))]
    #[case::old_version(&REQUEST.replace("13", "8"), &ANSWER.replace("s3pP", "xxxx"), Side::Hub, b"", Some((Side::Client, "4.1")))]
    #[case::refused(REQUEST, "HTTP/1.1 403 No\r\n\r\n", Side::Hub, b"\xff\xff\xff", None)]
    #[case::not_http("hello\r\n\r\n", "\x15\x03\x03", Side::Hub, b"\xff\xff\xff", None)]
    fn violations_are_those_of_the_side_that_sent_them(
        #[case] request: &str,
        #[case] answer: &str,
        #[case] by: Side,
        #[case] bytes: &[u8],
        #[case] expected: Option<(Side, &str)>,
    ) {
        let events = read(&[(Side::Client, request.as_bytes()), (Side::Hub, answer.as_bytes()), (by, bytes)], 10_000);
        let broken = events.iter().find_map(|event| match event {
            RecordedEvent::Sent { by, what: SentFrame::Broken { section, .. } } => Some((*by, section.as_str())),
            _ => None,
        });
        assert_eq!(broken, expected, "{events:?}");
    }

    /// Of many connections with incomplete messages, some are no longer read; the others are.
    #[test]
    fn all_connections_together_keep_a_limited_number_of_bytes() {
        let mut tap = WireTap::default();
        let (piece, mut ended) = (vec![b'x'; 1 << 20], 0);
        for connection in 1..=12 {
            tap.read_bytes(0, connection, Side::Client, REQUEST.as_bytes());
            tap.read_bytes(0, connection, Side::Hub, ANSWER.as_bytes());
            tap.read_bytes(0, connection, Side::Hub, b"\x01\x7f\0\0\0\0\0\xf0\0\0");
            for _ in 0..10 {
                ended += tap.read_bytes(0, connection, Side::Hub, &piece).len();
            }
            assert!(tap.kept <= MAX_KEPT + piece.len());
        }
        assert!(ended > 3, "{ended}");
        let text = bytes_of(&[Frame::text("a").unmasked()]);
        tap.read_bytes(0, 99, Side::Client, REQUEST.as_bytes());
        let lines = tap.read_bytes(0, 99, Side::Hub, &[ANSWER.as_bytes(), &text].concat());
        assert_eq!(lines.len(), 2);
    }
}
