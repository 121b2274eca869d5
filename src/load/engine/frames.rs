//! Reads and writes WebSocket frames in place.
//!
//! Unlike [`crate::websocket::codec`], which reports errors in a frame in detail, this module is made for speed: only
//! incomplete frames are copied.

use std::ops::Range;

/// The header size of a masked frame of 126 to 65,535 bytes, the most common one.
const HEADER_BYTES: usize = 8;
/// The longest payload of a control frame in bytes (RFC 6455, section 5.5).
const MAX_CONTROL_PAYLOAD: u64 = 125;

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The result of looking at the beginning of the received bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameParse {
    /// A whole frame with its payload at this range; the frame ends with the payload.
    Frame { opcode: u8, fin: bool, payload: Range<usize> },
    /// An incomplete frame; at least this many bytes are needed to continue.
    Partial(usize),
    /// A protocol error of the hub, or a frame that is too large.
    Wrong(&'static str),
}

/// Parses the first frame of `bytes`; a payload may have at most `limit` bytes.
pub fn parse_first_frame(bytes: &[u8], limit: usize) -> FrameParse {
    let [first, second, ..] = *bytes else { return FrameParse::Partial(2) };
    let opcode = first & 0x0f;
    if first & 0x70 != 0 {
        return FrameParse::Wrong("reserved bits are set");
    }
    if second & 0x80 != 0 {
        return FrameParse::Wrong("the hub sent a masked frame");
    }
    let (length, start) = match second & 0x7f {
        126 => match bytes.get(2..4) {
            Some(&[high, low]) => (u64::from(u16::from_be_bytes([high, low])), 4),
            _ => return FrameParse::Partial(4),
        },
        127 => match bytes.get(2..10).and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => (u64::from_be_bytes(bytes), 10),
            None => return FrameParse::Partial(10),
        },
        short => (u64::from(short), 2),
    };
    let fin = first & 0x80 != 0;
    match opcode {
        CONTINUATION | TEXT | BINARY => {}
        CLOSE | PING | PONG if fin && length <= MAX_CONTROL_PAYLOAD => {}
        CLOSE | PING | PONG => return FrameParse::Wrong("a control frame is too long or fragmented"),
        _ => return FrameParse::Wrong("a reserved opcode"),
    }
    let Some(length) = usize::try_from(length).ok().filter(|length| *length <= limit) else {
        return FrameParse::Wrong("a frame exceeds the size limit");
    };
    let end = start + length;
    if bytes.len() < end { FrameParse::Partial(end) } else { FrameParse::Frame { opcode, fin, payload: start..end } }
}

/// A generator of mask keys. RFC 6455 requires them to be unpredictable, to protect caches from scripts in browsers;
/// that does not concern a load generator.
#[derive(Clone, Debug)]
pub struct MaskKeys(u64);

impl MaskKeys {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> [u8; 4] {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) as u32).to_ne_bytes()
    }
}

/// Appends one masked frame whose payload `write` appends; returns the length of the payload.
pub fn append_frame(out: &mut Vec<u8>, opcode: u8, masks: &mut MaskKeys, write: impl FnOnce(&mut Vec<u8>)) -> usize {
    let begin = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    write(out);
    let length = out.len() - begin - HEADER_BYTES;
    let key = masks.next();
    mask_in_place(&mut out[begin + HEADER_BYTES..], key);
    let mut header = [0x80 | opcode, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let size = match length {
        0..=125 => {
            header[1] = 0x80 | length as u8;
            2
        }
        126..=0xffff => {
            header[1] = 0x80 | 126;
            header[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            4
        }
        _ => {
            header[1] = 0x80 | 127;
            header[2..10].copy_from_slice(&(length as u64).to_be_bytes());
            10
        }
    };
    header[size..size + 4].copy_from_slice(&key);
    let header = &header[..size + 4];
    if header.len() == HEADER_BYTES {
        out[begin..begin + HEADER_BYTES].copy_from_slice(header);
    } else {
        out.splice(begin..begin + HEADER_BYTES, header.iter().copied());
    }
    length
}

fn mask_in_place(bytes: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut();
    for eight in words {
        *eight = (u64::from_ne_bytes(*eight) ^ word).to_ne_bytes();
    }
    for (index, byte) in rest.iter_mut().enumerate() {
        *byte ^= key[index % 4];
    }
}

/// Returns the code in a close frame's payload, or 1005 if there is none (RFC 6455, section 7.1.5).
pub fn close_code(payload: &[u8]) -> u16 {
    match payload {
        [high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 1005,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{ConnectionSide, PeerLimits};
    use crate::websocket::codec::{self, FrameDecoder};
    use crate::websocket::frame::{ConnectionEvent, Frame};
    use proptest::prelude::*;
    use rstest::rstest;

    const LIMIT: usize = 1 << 20;

    #[rstest]
    #[case(0)]
    #[case(125)]
    #[case(126)]
    #[case(0xffff)]
    #[case(0x1_0000)]
    fn frames_of_the_load_engine_are_valid_for_the_strict_codec(#[case] length: usize) {
        let payload: Vec<u8> = (0..length).map(|index| b'a' + (index % 26) as u8).collect();
        let mut out = b"before".to_vec();
        assert_eq!(append_frame(&mut out, TEXT, &mut MaskKeys::new(7), |out| out.extend_from_slice(&payload)), length);
        let mut input = &out[6..];
        let Some(ConnectionEvent::Message(message)) =
            FrameDecoder::new(ConnectionSide::Server, PeerLimits::default()).next_event(&mut input)
        else {
            panic!("no message in {:?}", &out[..16]);
        };
        assert_eq!((message.payload == payload, message.binary, input.len()), (true, false, 0));
    }

    #[rstest]
    #[case(Frame::text("x".repeat(300)).unmasked(), TEXT)]
    #[case(Frame::text("x").unmasked(), TEXT)]
    #[case(Frame::binary("x".repeat(70_000)).unmasked(), BINARY)]
    #[case(Frame::ping("x").unmasked(), PING)]
    fn a_frame_of_a_hub_is_found_once_it_is_complete(#[case] frame: Frame, #[case] opcode: u8) {
        let mut bytes = Vec::new();
        codec::encode(&frame, [0; 4], &mut bytes);
        for cut in [0, 1, 2, 3, 5, bytes.len() - 1] {
            let FrameParse::Partial(need) = parse_first_frame(&bytes[..cut.min(bytes.len() - 1)], LIMIT) else {
                panic!("cut at {cut}")
            };
            assert!(need <= bytes.len());
        }
        let length = bytes.len();
        bytes.extend(b"next");
        let payload = length - frame.payload.len()..length;
        assert_eq!(parse_first_frame(&bytes, LIMIT), FrameParse::Frame { opcode, fin: true, payload });
    }

    #[rstest]
    #[case(&[0xc1, 0])]
    #[case(&[0x83, 0])]
    #[case(&[0x81, 0x80])]
    #[case(&[0x09, 0])]
    #[case(&[0x89, 126, 0, 126])]
    #[case(&[0x81, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])]
    fn protocol_errors_are_rejected(#[case] bytes: &[u8]) {
        assert!(matches!(parse_first_frame(bytes, LIMIT), FrameParse::Wrong(_)));
    }

    #[rstest]
    #[case(&[], 1005)]
    #[case(&[3], 1005)]
    #[case(&[3, 0xe8, b'x'], 1000)]
    fn the_close_code_is_read_from_the_payload_or_is_1005(#[case] payload: &[u8], #[case] code: u16) {
        assert_eq!(close_code(payload), code);
    }

    proptest! {
        #[test]
        fn the_parsed_payload_lies_within_the_received_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let FrameParse::Frame { payload, .. } = parse_first_frame(&bytes, LIMIT) {
                prop_assert!(payload.end <= bytes.len());
            }
        }
    }
}
