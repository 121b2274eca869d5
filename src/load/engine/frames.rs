//! Reads and writes WebSocket frames in place.
//!
//! Unlike [`crate::websocket::codec`], which reports errors in a frame in detail, this module is made for speed: only
//! incomplete frames are copied.

use std::ops::Range;

/// The header size of a masked frame of 126 to 65,535 bytes, the most common one.
const HEADER: usize = 8;
/// The longest payload of a control frame in bytes (RFC 6455, section 5.5).
const CONTROL_PAYLOAD: u64 = 125;

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The result of looking at the beginning of the received bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Front {
    /// A whole frame with its payload at this range; the frame ends with the payload.
    Frame { opcode: u8, fin: bool, payload: Range<usize> },
    /// An incomplete frame; at least this many bytes are needed to continue.
    Partial(usize),
    /// A protocol error of the hub, or a frame that is too large.
    Wrong(&'static str),
}

/// Parses the first frame of `bytes`; a payload may have at most `limit` bytes.
pub fn front(bytes: &[u8], limit: usize) -> Front {
    let [first, second, ..] = *bytes else { return Front::Partial(2) };
    let opcode = first & 0x0f;
    if first & 0x70 != 0 {
        return Front::Wrong("reserved bits are set");
    }
    if second & 0x80 != 0 {
        return Front::Wrong("the hub sent a masked frame");
    }
    let (length, start) = match second & 0x7f {
        126 => match bytes.get(2..4) {
            Some(&[high, low]) => (u64::from(u16::from_be_bytes([high, low])), 4),
            _ => return Front::Partial(4),
        },
        127 => match bytes.get(2..10).and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => (u64::from_be_bytes(bytes), 10),
            None => return Front::Partial(10),
        },
        short => (u64::from(short), 2),
    };
    let fin = first & 0x80 != 0;
    match opcode {
        CONTINUATION | TEXT | BINARY => {}
        CLOSE | PING | PONG if fin && length <= CONTROL_PAYLOAD => {}
        CLOSE | PING | PONG => return Front::Wrong("a control frame is too long or fragmented"),
        _ => return Front::Wrong("a reserved opcode"),
    }
    let Some(length) = usize::try_from(length).ok().filter(|length| *length <= limit) else {
        return Front::Wrong("a frame exceeds the size limit");
    };
    let end = start + length;
    if bytes.len() < end { Front::Partial(end) } else { Front::Frame { opcode, fin, payload: start..end } }
}

/// A generator of mask keys. RFC 6455 requires them to be unpredictable, to protect caches from scripts in browsers;
/// that does not concern a load generator.
#[derive(Clone, Debug)]
pub struct Masks(u64);

impl Masks {
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
pub fn append(out: &mut Vec<u8>, opcode: u8, masks: &mut Masks, write: impl FnOnce(&mut Vec<u8>)) -> usize {
    let begin = out.len();
    out.extend_from_slice(&[0; HEADER]);
    write(out);
    let length = out.len() - begin - HEADER;
    let key = masks.next();
    mask(&mut out[begin + HEADER..], key);
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
    if header.len() == HEADER {
        out[begin..begin + HEADER].copy_from_slice(header);
    } else {
        out.splice(begin..begin + HEADER, header.iter().copied());
    }
    length
}

fn mask(bytes: &mut [u8], key: [u8; 4]) {
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
    use crate::transport::{Limits, Role};
    use crate::websocket::codec::{self, Decoder};
    use crate::websocket::frame::{Frame, Received};
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
        assert_eq!(append(&mut out, TEXT, &mut Masks::new(7), |out| out.extend_from_slice(&payload)), length);
        let mut input = &out[6..];
        let Some(Received::Message(message)) = Decoder::new(Role::Server, Limits::default()).next(&mut input) else {
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
            let Front::Partial(need) = front(&bytes[..cut.min(bytes.len() - 1)], LIMIT) else { panic!("cut at {cut}") };
            assert!(need <= bytes.len());
        }
        let length = bytes.len();
        bytes.extend(b"next");
        let payload = length - frame.payload.len()..length;
        assert_eq!(front(&bytes, LIMIT), Front::Frame { opcode, fin: true, payload });
    }

    #[rstest]
    #[case(&[0xc1, 0])]
    #[case(&[0x83, 0])]
    #[case(&[0x81, 0x80])]
    #[case(&[0x09, 0])]
    #[case(&[0x89, 126, 0, 126])]
    #[case(&[0x81, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])]
    fn protocol_errors_are_rejected(#[case] bytes: &[u8]) {
        assert!(matches!(front(bytes, LIMIT), Front::Wrong(_)));
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
            if let Front::Frame { payload, .. } = front(&bytes, LIMIT) {
                prop_assert!(payload.end <= bytes.len());
            }
        }
    }
}
