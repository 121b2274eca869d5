//! ZMTP 3.0, the wire protocol of ZeroMQ (RFC 23 of its specifications), as a client that needs no authentication.
//!
//! The crate `zeromq` reserves the length that a frame announces before it arrives, so a hostile hub could take all memory.

use super::Carrier;

/// The length of the greeting.
const GREETING: usize = 64;
/// The most parts of a message.
const MAX_PARTS: usize = 64;
/// The most bytes of a command.
const MAX_COMMAND: usize = 4096;
/// The bits of a frame's first byte.
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;
/// The longest text of the hub that an error repeats, in characters.
const MAX_SHOWN: usize = 100;

/// The kind of the client's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    /// Sends requests to a REP or ROUTER socket, and may send several before the first answer.
    Dealer,
    /// Receives everything that a PUB socket publishes.
    Sub,
}

/// The state of a connection.
pub struct Zmtp {
    kind: SocketKind,
    /// The most bytes of a message.
    most: usize,
    stage: ZmtpStage,
    /// Bytes that are not yet a whole greeting or frame.
    buffer: Vec<u8>,
    /// The parts of the unfinished message.
    parts: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ZmtpStage {
    Greeting,
    /// The hub has not yet sent READY, which names the kind of its socket.
    Handshake,
    Ready,
}

impl Zmtp {
    /// Creates a new connection that refuses messages longer than `most` bytes.
    pub fn new(kind: SocketKind, most: usize) -> Self {
        Self { kind, most, stage: ZmtpStage::Greeting, buffer: Vec::new(), parts: Vec::new() }
    }

    /// Reads the greeting, if it is whole. Returns its length.
    fn read_greeting(&mut self) -> Result<Option<usize>, String> {
        let bytes = &self.buffer;
        if bytes.first().is_some_and(|byte| *byte != 0xff) || bytes.get(9).is_some_and(|byte| *byte != 0x7f) {
            return Err(format!("no ZeroMQ socket answers: `{}`", shown(bytes)));
        }
        if bytes.get(10).is_some_and(|version| *version < 3) {
            return Err(format!("the hub speaks version {} of ZMTP, and hubproof needs 3", bytes[10]));
        }
        let Some(greeting) = bytes.get(..GREETING) else { return Ok(None) };
        let mechanism = greeting[12..32].split(|byte| *byte == 0).next().unwrap_or_default();
        if mechanism != b"NULL" {
            return Err(format!("the hub demands the mechanism {}, and hubproof knows only NULL", shown(mechanism)));
        }
        self.stage = ZmtpStage::Handshake;
        Ok(Some(GREETING))
    }

    /// Reads a frame from the position in the buffer, if it is whole. Returns the flags, and where its body is.
    fn find_frame(&self, at: usize) -> Result<Option<(u8, std::ops::Range<usize>)>, String> {
        let bytes = &self.buffer[at..];
        let Some(flags) = bytes.first().copied() else { return Ok(None) };
        if flags & !(MORE | LONG | COMMAND) != 0 || flags & COMMAND != 0 && flags & MORE != 0 {
            return Err(format!("a frame begins with 0x{flags:02x}, which ZMTP does not define"));
        }
        let (length, head) = if flags & LONG == 0 {
            let Some(length) = bytes.get(1) else { return Ok(None) };
            (u64::from(*length), 2)
        } else {
            let Some(length) = bytes.get(1..9).and_then(|length| length.try_into().ok()) else { return Ok(None) };
            (u64::from_be_bytes(length), 9)
        };
        let is_command = flags & COMMAND != 0;
        let before: usize = self.parts.iter().map(Vec::len).sum();
        let most = if is_command { MAX_COMMAND } else { self.most.saturating_sub(before) };
        let length = usize::try_from(length).ok().filter(|length| *length <= most);
        let Some(length) = length else {
            return Err(format!("a {} of more than {most} bytes", if is_command { "command" } else { "message" }));
        };
        let body = at + head..at + head + length;
        Ok((body.end <= self.buffer.len()).then_some((flags, body)))
    }

    fn take_command(&mut self, body: &[u8], answers: &mut Vec<u8>) -> Result<(), String> {
        let named = body.split_first().filter(|(length, rest)| rest.len() >= usize::from(**length));
        let Some((length, rest)) = named else { return Err("a command without a whole name".to_owned()) };
        let (name, content) = rest.split_at(usize::from(*length));
        match (name, self.stage) {
            (b"READY", ZmtpStage::Handshake) => {
                let found = property(content, b"socket-type")
                    .ok_or_else(|| "the hub's READY names no kind of socket".to_owned())?;
                let fits = match self.kind {
                    SocketKind::Dealer => matches!(found, b"REP" | b"ROUTER"),
                    SocketKind::Sub => matches!(found, b"PUB" | b"XPUB"),
                };
                if !fits {
                    let wanted = if self.kind == SocketKind::Dealer { "REP or ROUTER" } else { "PUB or XPUB" };
                    return Err(format!("the hub's socket is {}, not {wanted}", shown(found)));
                }
                if self.kind == SocketKind::Sub {
                    // Everything: a subscription with an empty prefix.
                    answers.extend([0, 1, 1]);
                }
                self.stage = ZmtpStage::Ready;
            }
            (b"ERROR", _) => {
                return Err(format!("the hub refuses the connection: {}", shown(content.get(1..).unwrap_or_default())));
            }
            // ZMTP 3.1: two bytes of time to live, then what the answer repeats.
            (b"PING", ZmtpStage::Ready) => {
                let context = content.get(2..).unwrap_or_default();
                append_frame(COMMAND, &[b"\x04PONG", context].concat(), answers);
            }
            _ => {}
        }
        Ok(())
    }

    fn take_part(&mut self, more: bool, body: &[u8], messages: &mut Vec<Vec<u8>>) -> Result<(), String> {
        if self.stage != ZmtpStage::Ready {
            return Err("a message before READY".to_owned());
        }
        if self.parts.len() == MAX_PARTS {
            return Err(format!("a message of more than {MAX_PARTS} parts"));
        }
        self.parts.push(body.to_vec());
        if more {
            return Ok(());
        }
        let mut parts = std::mem::take(&mut self.parts);
        let is_delimited = parts.len() > 1 && parts[0].is_empty();
        if self.kind == SocketKind::Dealer && !is_delimited {
            return Err("an answer without the empty part before it".to_owned());
        }
        // What comes before is the topic of a publication.
        messages.extend(parts.pop());
        Ok(())
    }
}

impl Carrier for Zmtp {
    fn opening(&self) -> Vec<u8> {
        let mut bytes = vec![0; GREETING];
        (bytes[0], bytes[9], bytes[10]) = (0xff, 0x7f, 3);
        bytes[12..16].copy_from_slice(b"NULL");
        let kind: &[u8] = if self.kind == SocketKind::Dealer { b"\x06DEALER" } else { b"\x03SUB" };
        // The length of a value has four bytes.
        let ready = [b"\x05READY\x0bSocket-Type\0\0\0", kind].concat();
        append_frame(COMMAND, &ready, &mut bytes);
        bytes
    }

    fn receive(&mut self, bytes: &[u8], messages: &mut Vec<Vec<u8>>, answers: &mut Vec<u8>) -> Result<(), String> {
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        if self.stage == ZmtpStage::Greeting {
            let Some(length) = self.read_greeting()? else { return Ok(()) };
            at = length;
        }
        while let Some((flags, body)) = self.find_frame(at)? {
            at = body.end;
            let content = self.buffer[body].to_vec();
            match flags & COMMAND {
                0 => self.take_part(flags & MORE != 0, &content, messages)?,
                _ => self.take_command(&content, answers)?,
            }
        }
        self.buffer.drain(..at);
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.stage == ZmtpStage::Ready
    }

    fn encode(&self, message: &[u8], out: &mut Vec<u8>) {
        append_frame(MORE, &[], out);
        append_frame(0, message, out);
    }
}

fn append_frame(flags: u8, body: &[u8], out: &mut Vec<u8>) {
    match u8::try_from(body.len()) {
        Ok(length) => out.extend([flags, length]),
        Err(_) => {
            out.push(flags | LONG);
            out.extend((body.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(body);
}

/// Returns the value of a property; names are compared without regard to case.
fn property<'a>(mut properties: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    loop {
        let (length, rest) = properties.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        properties = rest;
    }
}

/// Returns the beginning of what the hub sent, with what is not printable escaped.
fn shown(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(MAX_SHOWN)].escape_ascii().to_string()
}
