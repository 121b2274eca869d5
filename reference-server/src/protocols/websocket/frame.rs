//! Frames, read and written according to RFC 6455, section 5.

use crate::fault::MachineFault;

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The longest message in bytes.
pub const MAX_MESSAGE: usize = 16 << 20;

/// One frame, unmasked.
pub struct Frame {
    pub fin: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

/// A violation of RFC 6455, as a close code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolError(pub u16);

const PROTOCOL_ERROR: ProtocolError = ProtocolError(1002);

/// Takes the first frame from `bytes`, if it is complete. Errors of its header are returned at once.
pub fn take_frame(bytes: &mut Vec<u8>, broken: MachineFault) -> Result<Option<Frame>, ProtocolError> {
    let [first, second, rest @ ..] = bytes.as_slice() else { return Ok(None) };
    let (fin, rsv, opcode) = (first & 0x80 != 0, first >> 4 & 7, first & 0x0f);
    let (masked, short) = (second & 0x80 != 0, second & 0x7f);
    let control = opcode & 8 != 0;
    let rsv = if broken.is("websocket-rsv-unread") || (broken.is("websocket-rsv-of-control-unread") && control) {
        0
    } else if broken.is("websocket-rsv1-unread") {
        rsv & 3
    } else {
        rsv
    };
    if rsv != 0 {
        return Err(PROTOCOL_ERROR);
    }
    let accepted = match opcode {
        3..=7 => broken.is("websocket-reserved-data-skipped"),
        11..=15 => broken.is("websocket-reserved-control-skipped"),
        _ => true,
    };
    if !accepted {
        return Err(PROTOCOL_ERROR);
    }
    if !masked && !broken.is("websocket-unmasked-taken") {
        return Err(PROTOCOL_ERROR);
    }
    if control && !fin && !broken.is("websocket-control-fragment-taken") {
        return Err(PROTOCOL_ERROR);
    }
    if control && short > 125 && !broken.is("websocket-long-control-taken") {
        return Err(PROTOCOL_ERROR);
    }
    let width = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let header = width + if masked { 4 } else { 0 };
    if rest.len() < header {
        return Ok(None);
    }
    let length = match width {
        0 => u64::from(short),
        2 if broken.is("websocket-length-little-endian") => u64::from(rest[0]) | u64::from(rest[1]) << 8,
        _ => rest[..width].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
    };
    let shortest = match width {
        0 => 0,
        2 => 126,
        _ => 65536,
    };
    if length < shortest && !broken.is("websocket-padded-length-taken") && !broken.is("websocket-length-little-endian")
    {
        return Err(PROTOCOL_ERROR);
    }
    if width == 8 && broken.is("websocket-64-bit-length-refused") {
        return Err(PROTOCOL_ERROR);
    }
    if length >> 63 != 0 {
        // As a fault: the hub waits for more bytes than can ever arrive.
        return if broken.is("websocket-high-bit-taken") { Ok(None) } else { Err(PROTOCOL_ERROR) };
    }
    if length > MAX_MESSAGE as u64 {
        return Err(ProtocolError(1009));
    }
    let start = 2 + header;
    let end = start + length as usize;
    if bytes.len() < end {
        return Ok(None);
    }
    let mut payload = bytes[start..end].to_vec();
    if masked && !(opcode == PING && broken.is("websocket-pings-kept-masked")) {
        let key = [bytes[start - 4], bytes[start - 3], bytes[start - 2], bytes[start - 1]];
        payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    }
    bytes.drain(..end);
    Ok(Some(Frame { fin, opcode, payload }))
}

/// Writes a frame as a server does: unmasked, with the shortest length.
pub fn write_frame(fin: bool, opcode: u8, payload: &[u8], broken: MachineFault, out: &mut Vec<u8>) {
    let rsv = if broken.is("websocket-sends-reserved-bit") { 0x40 } else { 0 };
    let mask = if broken.is("websocket-masks") { 0x80 } else { 0 };
    out.push(u8::from(fin) << 7 | rsv | opcode);
    match payload.len() {
        short @ 0..=125 => out.push(mask | short as u8),
        medium @ 126..=65535 => {
            out.push(mask | 126);
            out.extend((medium as u16).to_be_bytes());
        }
        long => {
            out.push(mask | 127);
            out.extend((long as u64).to_be_bytes());
        }
    }
    if mask != 0 {
        // The key 0 leaves the payload as it is.
        out.extend([0; 4]);
    }
    out.extend(payload);
}
