//! The greeting, frames and commands of ZMTP as bytes.

/// The reason for which a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZmtpError {
    /// The bytes do not begin as a greeting does.
    Signature,
    /// The peer speaks a version before 3.0.
    Version,
    /// The peer wants a mechanism other than NULL.
    Mechanism,
    /// A flags octet has reserved bits, or a command announces more frames.
    Flags,
    /// A frame, a message or all subscriptions are too long, or a message has too many frames.
    TooLong,
    /// A message precedes READY, or READY comes twice.
    Handshake,
    /// The body of a command does not have the documented form.
    Command,
    /// The peer's socket cannot talk to this one.
    SocketType,
    /// The peer has sent ERROR.
    Refused,
}

/// The bits of a flags octet.
pub const MORE: u8 = 1;
const LONG: u8 = 2;
pub const COMMAND: u8 = 4;

const GREETING: usize = 64;
/// Signature with padding, version 3.0, and the mechanism, padded to 20 octets; the rest is zero.
const GREETING_HEAD: &[u8; 32] = b"\xff\0\0\0\0\0\0\0\0\x7f\x03\0NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Appends the greeting of a peer.
pub fn write_greeting(out: &mut Vec<u8>) {
    out.extend_from_slice(GREETING_HEAD);
    out.resize(out.len() + GREETING - GREETING_HEAD.len(), 0);
}

/// Returns the length of the peer's greeting once it is complete. A wrong one is refused as early as possible.
pub fn read_greeting(bytes: &[u8]) -> Result<Option<usize>, ZmtpError> {
    let wrong = |at: usize, accepts: fn(u8) -> bool| bytes.get(at).is_some_and(|byte| !accepts(*byte));
    if wrong(0, |byte| byte == 0xff) || wrong(9, |byte| byte == 0x7f) {
        return Err(ZmtpError::Signature);
    }
    if wrong(10, |major| major >= 3) {
        return Err(ZmtpError::Version);
    }
    match bytes.get(12..GREETING) {
        None => Ok(None),
        Some(rest) if rest[..20] == GREETING_HEAD[12..] => Ok(Some(GREETING)),
        Some(_) => Err(ZmtpError::Mechanism),
    }
}

/// The flags and the size of a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct FrameHead {
    pub flags: u8,
    /// The length of the flags and the size themselves.
    pub head: usize,
    /// The length of the body.
    pub body: usize,
}

/// Reads the head of a frame once it is complete.
pub fn read_head(bytes: &[u8]) -> Result<Option<FrameHead>, ZmtpError> {
    let Some((&flags, rest)) = bytes.split_first() else { return Ok(None) };
    if flags > COMMAND | LONG | MORE || flags & (COMMAND | MORE) == COMMAND | MORE {
        return Err(ZmtpError::Flags);
    }
    if flags & LONG == 0 {
        return Ok(rest.first().map(|size| FrameHead { flags, head: 2, body: usize::from(*size) }));
    }
    let Some(size) = rest.first_chunk() else { return Ok(None) };
    let body = usize::try_from(u64::from_be_bytes(*size)).map_err(|_| ZmtpError::TooLong)?;
    Ok(Some(FrameHead { flags, head: 9, body }))
}

/// Appends a frame, long only if it must be.
pub fn write_frame(flags: u8, body: &[u8], out: &mut Vec<u8>) {
    match u8::try_from(body.len()) {
        Ok(size) => out.extend([flags, size]),
        Err(_) => {
            out.push(flags | LONG);
            out.extend((body.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(body);
}

/// Appends a command; `name` is at most 255 octets long.
pub fn write_command(name: &str, data: &[u8], out: &mut Vec<u8>) {
    write_frame(COMMAND, &[&[name.len() as u8], name.as_bytes(), data].concat(), out);
}

/// Splits the body of a command, or a property of READY, after the name at its beginning.
pub fn split_name(body: &[u8]) -> Result<(&[u8], &[u8]), ZmtpError> {
    let (&length, rest) = body.split_first().ok_or(ZmtpError::Command)?;
    match rest.split_at_checked(usize::from(length)) {
        Some((name @ [_, ..], rest)) => Ok((name, rest)),
        _ => Err(ZmtpError::Command),
    }
}

/// Appends a property of READY.
pub fn write_property(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
    out.extend((value.len() as u32).to_be_bytes());
    out.extend_from_slice(value);
}

/// Returns the value of a property of READY, if there is one; names are compared regardless of case.
pub fn read_property<'a>(mut properties: &'a [u8], wanted: &str) -> Result<Option<&'a [u8]>, ZmtpError> {
    let mut found = None;
    while !properties.is_empty() {
        let (name, rest) = split_name(properties)?;
        let (size, rest) = rest.split_first_chunk().ok_or(ZmtpError::Command)?;
        let value = rest.split_at_checked(u32::from_be_bytes(*size) as usize).ok_or(ZmtpError::Command)?;
        if name.eq_ignore_ascii_case(wanted.as_bytes()) {
            found = Some(value.0);
        }
        properties = value.1;
    }
    Ok(found)
}
