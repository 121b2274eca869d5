//! Finds text messages in the bytes that a hub sends. All other bytes pass unchanged: control frames,
//! binary messages, long messages, and everything after an invalid frame.

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The longest message that is parsed, in bytes; longer ones pass unchanged.
const MAX_TEXT: usize = crate::server::serve::MAX_MESSAGE;
/// The most bytes that the parsers of all connections keep of incomplete messages. Beyond it, a message passes unchanged
/// unless it is short.
const MAX_KEPT: usize = 64 << 20;
/// The bytes that each parser may keep in any case.
const MAX_OWN: usize = 16 << 10;

/// The number of bytes that all parsers of a relay keep.
pub type KeptBytes = Arc<AtomicUsize>;

/// A piece of what the hub sends.
#[derive(Debug, PartialEq, Eq)]
pub enum StreamPiece {
    /// Bytes to pass on unchanged.
    Raw(Vec<u8>),
    /// A close frame.
    Close(Vec<u8>),
    /// A whole text message, and the bytes of its frames.
    Text { text: String, raw: Vec<u8> },
}

/// A parser of incoming bytes.
#[derive(Default)]
pub struct TextParser {
    bytes: Vec<u8>,
    /// The number of bytes already returned.
    done: usize,
    /// The fragments of an incomplete text.
    partial: Option<PartialText>,
    /// The number of bytes of the current frame that still pass unchanged.
    passing: u64,
    /// Whether the rest of the current message passes unchanged.
    unread: bool,
    /// Whether an invalid frame has arrived, after which all bytes pass unchanged.
    blind: bool,
    /// How many bytes all parsers keep, and how many of them this one does.
    all_kept: KeptBytes,
    kept: usize,
}

impl Drop for TextParser {
    fn drop(&mut self) {
        self.all_kept.fetch_sub(self.kept, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct PartialText {
    payload: Vec<u8>,
    raw: Vec<u8>,
}

impl TextParser {
    /// Creates a parser of a hub's bytes.
    pub fn new(all_kept: &KeptBytes) -> Self {
        let mut parser = Self::default();
        parser.all_kept.clone_from(all_kept);
        parser
    }

    /// Adds received bytes. The caller takes all pieces before it adds more.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.done);
        self.done = 0;
        if self.bytes.is_empty() {
            self.bytes.shrink_to(4 * MAX_OWN);
        }
        self.bytes.extend_from_slice(bytes);
        self.count_kept();
    }

    fn count_kept(&mut self) {
        let partial = self.partial.as_ref().map_or(0, |partial| partial.payload.len() + partial.raw.len());
        let before = std::mem::replace(&mut self.kept, self.bytes.len() - self.done + partial);
        self.all_kept.fetch_add(self.kept, Ordering::Relaxed);
        self.all_kept.fetch_sub(before, Ordering::Relaxed);
    }

    /// Whether an incomplete message must not be kept.
    fn is_crowded(&self) -> bool {
        self.kept > MAX_OWN && self.all_kept.load(Ordering::Relaxed) > MAX_KEPT
    }

    /// Returns the bytes not returned yet; called at the end of the stream.
    pub fn take_rest(&mut self) -> Vec<u8> {
        let mut rest = self.partial.take().unwrap_or_default().raw;
        rest.append(&mut self.take_bytes(self.bytes.len() - self.done));
        rest
    }

    /// Returns the next piece, if one is complete.
    pub fn next_piece(&mut self) -> Option<StreamPiece> {
        let piece = self.parse_piece();
        self.count_kept();
        piece
    }

    fn parse_piece(&mut self) -> Option<StreamPiece> {
        loop {
            let bytes = &self.bytes[self.done..];
            if bytes.is_empty() {
                return None;
            }
            if self.blind {
                return Some(StreamPiece::Raw(self.take_rest()));
            }
            if self.passing > 0 {
                let now = usize::try_from(self.passing).unwrap_or(usize::MAX).min(bytes.len());
                self.passing -= now as u64;
                return Some(StreamPiece::Raw(self.take_bytes(now)));
            }
            let mut cursor = Cursor::new(bytes);
            let (header, length) = match FrameHeader::parse(&mut cursor) {
                Ok(Some(parsed)) => parsed,
                Ok(None) => return None,
                Err(_) => {
                    self.blind = true;
                    continue;
                }
            };
            let head = cursor.position() as usize;
            let held = self.partial.as_ref().map_or(0, |partial| partial.raw.len());
            let plain = header.mask.is_none() && !(header.rsv1 || header.rsv2 || header.rsv3);
            let kept = usize::try_from(length).ok().filter(|length| plain && held.saturating_add(*length) <= MAX_TEXT);
            let incomplete = |length: &usize| !header.is_final || held > 0 || bytes.len() < head + length;
            let kept = kept.filter(|length| !(self.is_crowded() && incomplete(length)));
            let Some(length) = kept else {
                // This frame passes unchanged, together with the kept fragments of its message.
                self.passing = length;
                let mut raw = self.partial.take().unwrap_or_default().raw;
                raw.append(&mut self.take_bytes(head));
                if matches!(header.opcode, OpCode::Data(_)) {
                    self.unread = !header.is_final;
                }
                return Some(StreamPiece::Raw(raw));
            };
            if bytes.len() < head + length {
                return None;
            }
            let frame = self.take_bytes(head + length);
            match header.opcode {
                OpCode::Control(Control::Close) => return Some(StreamPiece::Close(frame)),
                OpCode::Data(Data::Continue) if self.unread => self.unread = !header.is_final,
                OpCode::Data(data @ (Data::Text | Data::Continue))
                    if (data == Data::Text) == self.partial.is_none() =>
                {
                    let partial = self.partial.take().unwrap_or_default();
                    if let Some(piece) = self.keep_fragment(partial, frame, head, header.is_final) {
                        return Some(piece);
                    }
                    continue;
                }
                // A message within a message is invalid.
                OpCode::Data(_) if self.partial.is_some() => {
                    self.done -= frame.len();
                    self.blind = true;
                    continue;
                }
                OpCode::Data(_) => self.unread = !header.is_final,
                OpCode::Control(_) => {}
            }
            return Some(StreamPiece::Raw(frame));
        }
    }

    fn keep_fragment(
        &mut self,
        mut partial: PartialText,
        mut frame: Vec<u8>,
        head: usize,
        is_final: bool,
    ) -> Option<StreamPiece> {
        partial.payload.extend_from_slice(&frame[head..]);
        partial.raw.append(&mut frame);
        if !is_final {
            self.partial = Some(partial);
            return None;
        }
        Some(match String::from_utf8(partial.payload) {
            Ok(text) => StreamPiece::Text { text, raw: partial.raw },
            Err(_) => StreamPiece::Raw(partial.raw),
        })
    }

    fn take_bytes(&mut self, length: usize) -> Vec<u8> {
        let taken = self.bytes[self.done..self.done + length].to_vec();
        self.done += length;
        taken
    }
}

/// Builds the frame of a text message from a hub.
pub(super) fn text_frame(text: &str) -> Vec<u8> {
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    let mut frame = Vec::with_capacity(text.len() + 10);
    // Writing to memory cannot fail.
    let _ = header.format(text.len() as u64, &mut frame);
    frame.extend_from_slice(text.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn frame_bytes(first: u8, payload: &[u8]) -> Vec<u8> {
        [&[first, u8::try_from(payload.len()).unwrap()], payload].concat()
    }

    fn text_piece(text: &str, raw: &[u8]) -> StreamPiece {
        StreamPiece::Text { text: text.to_owned(), raw: raw.to_vec() }
    }

    /// The pieces are the same however the bytes are cut, and no byte is lost.
    #[rstest]
    #[case::text(&[frame_bytes(0x81, b"a"), frame_bytes(0x81, b"b")], &[text_piece("a", b"\x81\x01a"), text_piece("b", b"\x81\x01b")])]
    #[case::fragments(
        &[frame_bytes(0x01, b"a"), frame_bytes(0x89, b"p"), frame_bytes(0x80, b"b")],
        &[StreamPiece::Raw(frame_bytes(0x89, b"p")), text_piece("ab", b"\x01\x01a\x80\x01b")]
    )]
    #[case::binary(
        &[frame_bytes(0x02, b"a"), frame_bytes(0x80, b"b"), frame_bytes(0x81, b"c")],
        &[StreamPiece::Raw(frame_bytes(0x02, b"a")), StreamPiece::Raw(frame_bytes(0x80, b"b")), text_piece("c", b"\x81\x01c")]
    )]
    #[case::no_utf8(&[frame_bytes(0x81, b"\xff")], &[StreamPiece::Raw(frame_bytes(0x81, b"\xff"))])]
    #[case::close(&[frame_bytes(0x88, b"\x03\xe8")], &[StreamPiece::Close(frame_bytes(0x88, b"\x03\xe8"))])]
    fn text_messages_are_found_in_the_stream(
        #[case] frames: &[Vec<u8>],
        #[case] expected: &[StreamPiece],
        #[values(1, 2, 3, 100)] at_a_time: usize,
    ) {
        let mut texts = TextParser::default();
        let mut found = Vec::new();
        for bytes in frames.concat().chunks(at_a_time) {
            texts.push_bytes(bytes);
            found.extend(std::iter::from_fn(|| texts.next_piece()));
        }
        assert_eq!(found, expected);
        assert!(texts.take_rest().is_empty());
    }

    #[rstest]
    #[case::reserved_opcode(&[frame_bytes(0x83, b"a"), frame_bytes(0x81, b"b")].concat())]
    #[case::compressed(&frame_bytes(0xc1, b"abc"))]
    #[case::masked(b"\x81\x81aaaab")]
    #[case::text_within_text(&[frame_bytes(0x01, b"a"), frame_bytes(0x81, b"b"), frame_bytes(0x80, b"c")].concat())]
    #[case::too_long(&[&b"\x81\x7f\0\0\0\0\x10\0\0\0"[..], &[b'x'; 5000]].concat())]
    #[case::endless_fragment(b"\x01\x01a\x80\x7f\xff\xff\xff\xff\xff\xff\xff\xffxxx")]
    #[case::endless(b"\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xffxxx")]
    fn invalid_and_long_frames_pass_the_relay_unchanged(
        #[case] bytes: &[u8],
        #[values(1, 7, 10_000)] at_a_time: usize,
    ) {
        let mut texts = TextParser::default();
        let mut passed = Vec::new();
        for some in bytes.chunks(at_a_time) {
            texts.push_bytes(some);
            while let Some(piece) = texts.next_piece() {
                match piece {
                    StreamPiece::Raw(raw) => passed.extend(raw),
                    other => panic!("{other:?}"),
                }
            }
        }
        passed.extend(texts.take_rest());
        assert_eq!(passed, bytes);
    }

    /// Beyond the limit of all connections, long messages pass without being kept.
    #[test]
    fn all_parsers_together_keep_a_limited_number_of_bytes() {
        let kept = KeptBytes::default();
        let mut parsers: Vec<TextParser> = (0..40).map(|_| TextParser::new(&kept)).collect();
        let (head, piece) = (*b"\x01\x7f\0\0\0\0\0\xf0\0\0", vec![b'x'; 64 << 10]);
        let mut passed = 0;
        parsers.iter_mut().for_each(|parser| parser.push_bytes(&head));
        for parser in &mut parsers {
            for _ in 0..(15 << 20) / piece.len() {
                parser.push_bytes(&piece);
                while let Some(StreamPiece::Raw(raw)) = parser.next_piece() {
                    passed += raw.len();
                }
            }
        }
        let all = kept.load(Ordering::Relaxed);
        assert!(all <= MAX_KEPT + 40 * MAX_OWN && all + passed > 40 * (15 << 20), "{all} {passed}");
        // A short message is still read, and memory comes back.
        let mut other = TextParser::new(&kept);
        other.push_bytes(&text_frame("a"));
        assert_eq!(other.next_piece(), Some(text_piece("a", &text_frame("a"))));
        drop((parsers, other));
        assert_eq!(kept.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_written_text_frame_is_parsed_as_one_text() {
        let long = "x".repeat(70_000);
        for one in ["", "a", &long] {
            let mut texts = TextParser::default();
            texts.push_bytes(&text_frame(one));
            assert_eq!(texts.next_piece(), Some(text_piece(one, &text_frame(one))));
        }
    }
}
