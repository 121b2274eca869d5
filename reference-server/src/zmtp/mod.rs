//! ZeroMQ's transport protocol, ZMTP 3.0 (RFC 23 of ZeroMQ), as REP and PUB sockets speak it (RFCs 28 and 29): bytes in,
//! bytes out, without sockets.
//!
//! The mechanism is NULL. Peers may also send the commands of ZMTP 3.1 (RFC 37): SUBSCRIBE, CANCEL, PING and PONG. A
//! library would read frames of any announced length; here, everything that a peer sends has a limit.

mod bytes;
#[cfg(test)]
mod tests;

pub use self::bytes::ZmtpError;
use self::bytes::{COMMAND, MORE};

/// The largest number of frames of a message, the envelope's included.
const MAX_FRAMES: usize = 64;
/// The longest command, and the longest message to a PUB socket, in bytes.
const MAX_COMMAND: usize = 64 << 10;
/// The longest context of a PING in bytes (RFC 37).
const MAX_PING_CONTEXT: usize = 16;
/// What a subscription counts beside its own length; with that, all subscriptions of a peer are limited to
/// [`MAX_COMMAND`] bytes.
const SUBSCRIPTION_COST: usize = 32;

/// The type of a socket of the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketKind {
    /// Answers requests.
    Rep,
    /// Sends messages to subscribers.
    Pub,
}

impl SocketKind {
    fn name(self) -> &'static [u8] {
        match self {
            SocketKind::Rep => b"REP",
            SocketKind::Pub => b"PUB",
        }
    }

    fn accepts(self, peer: &[u8]) -> bool {
        match self {
            SocketKind::Rep => matches!(peer, b"REQ" | b"DEALER"),
            SocketKind::Pub => matches!(peer, b"SUB" | b"XSUB"),
        }
    }
}

/// A request to a REP socket.
#[derive(Debug, PartialEq, Eq)]
pub struct ZmtpRequest {
    /// The frames that precede the request and will precede the reply; the last one is the empty delimiter.
    pub envelope: Vec<Vec<u8>>,
    /// The data frames, at least one.
    pub data: Vec<Vec<u8>>,
}

/// The hub's side of one connection.
pub struct ZmtpSession {
    kind: SocketKind,
    max_message: usize,
    greeted: bool,
    ready: bool,
    /// Received bytes, of which the first `taken` are done with.
    received: Vec<u8>,
    taken: usize,
    /// The frames of an incomplete message.
    frames: Vec<Vec<u8>>,
    subscriptions: Vec<Vec<u8>>,
    /// Bytes for the peer: handshakes and heartbeats.
    out: Vec<u8>,
}

impl ZmtpSession {
    /// A new connection to a socket of this kind, which takes messages of at most `max_message` bytes.
    pub fn new(kind: SocketKind, max_message: usize) -> ZmtpSession {
        let max_message = if kind == SocketKind::Pub { MAX_COMMAND } else { max_message };
        let mut out = Vec::new();
        bytes::write_greeting(&mut out);
        ZmtpSession {
            kind,
            max_message,
            greeted: false,
            ready: false,
            received: Vec::new(),
            taken: 0,
            frames: Vec::new(),
            subscriptions: Vec::new(),
            out,
        }
    }

    /// Adds received bytes.
    pub fn receive(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.received.drain(..self.taken);
            self.received.shrink_to(MAX_COMMAND);
            self.taken = 0;
        }
        self.received.extend_from_slice(bytes);
    }

    /// Handles received bytes up to the next request, which only a REP socket has. Bytes for the peer are appended to
    /// [`out`](Self::take_out).
    ///
    /// # Errors
    /// [`ZmtpError`]; then the connection ends, after the bytes for the peer are sent.
    pub fn next_request(&mut self) -> Result<Option<ZmtpRequest>, ZmtpError> {
        if !self.greeted {
            let Some(length) = bytes::read_greeting(&self.received)? else { return Ok(None) };
            self.taken = length;
            self.greeted = true;
            let mut properties = Vec::new();
            bytes::write_property("Socket-Type", self.kind.name(), &mut properties);
            bytes::write_command("READY", &properties, &mut self.out);
        }
        while let Some((flags, body)) = self.take_frame()? {
            if flags & COMMAND != 0 {
                self.handle_command(&body)?;
                continue;
            }
            self.frames.push(body);
            if flags & MORE != 0 {
                continue;
            }
            let frames = std::mem::take(&mut self.frames);
            match self.kind {
                SocketKind::Pub => self.handle_subscription(&frames)?,
                SocketKind::Rep => {
                    if let Some(request) = split_request(frames) {
                        return Ok(Some(request));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Takes the next frame once it is complete; returns its flags and body.
    fn take_frame(&mut self) -> Result<Option<(u8, Vec<u8>)>, ZmtpError> {
        let Some(frame) = bytes::read_head(&self.received[self.taken..])? else { return Ok(None) };
        let limit = if frame.flags & COMMAND != 0 {
            MAX_COMMAND
        } else if !self.ready {
            return Err(ZmtpError::Handshake);
        } else if self.frames.len() == MAX_FRAMES {
            return Err(ZmtpError::TooLong);
        } else {
            self.max_message - self.frames.iter().map(Vec::len).sum::<usize>()
        };
        if frame.body > limit {
            return Err(ZmtpError::TooLong);
        }
        let start = self.taken + frame.head;
        let Some(body) = self.received.get(start..start + frame.body) else { return Ok(None) };
        self.taken = start + frame.body;
        Ok(Some((frame.flags, body.to_vec())))
    }

    fn handle_command(&mut self, body: &[u8]) -> Result<(), ZmtpError> {
        let (name, data) = bytes::split_name(body)?;
        match (name, self.ready) {
            (b"ERROR", _) => return Err(ZmtpError::Refused),
            (b"READY", false) => {
                let peer = bytes::read_property(data, "Socket-Type")?;
                if peer.is_some_and(|peer| !self.kind.accepts(peer)) {
                    let reason = b"\x13Invalid socket type";
                    bytes::write_command("ERROR", reason, &mut self.out);
                    return Err(ZmtpError::SocketType);
                }
                self.ready = true;
            }
            (b"READY", true) | (_, false) => return Err(ZmtpError::Handshake),
            (b"PING", true) => match data.split_at_checked(2) {
                Some((_, context)) if context.len() <= MAX_PING_CONTEXT => {
                    bytes::write_command("PONG", context, &mut self.out);
                }
                _ => return Err(ZmtpError::Command),
            },
            (b"SUBSCRIBE", true) if self.kind == SocketKind::Pub => self.subscribe(data)?,
            (b"CANCEL", true) if self.kind == SocketKind::Pub => self.cancel(data),
            // PONG, and commands of later versions.
            _ => {}
        }
        Ok(())
    }

    /// Handles a message to a PUB socket, which ignores any but subscriptions.
    fn handle_subscription(&mut self, frames: &[Vec<u8>]) -> Result<(), ZmtpError> {
        let [only] = frames else { return Ok(()) };
        match only.split_first() {
            Some((1, prefix)) => self.subscribe(prefix)?,
            Some((0, prefix)) => self.cancel(prefix),
            _ => {}
        }
        Ok(())
    }

    fn subscribe(&mut self, prefix: &[u8]) -> Result<(), ZmtpError> {
        self.subscriptions.push(prefix.to_vec());
        let all: usize = self.subscriptions.iter().map(|prefix| prefix.len() + SUBSCRIPTION_COST).sum();
        if all > MAX_COMMAND { Err(ZmtpError::TooLong) } else { Ok(()) }
    }

    /// Cancels one subscription of this prefix; others of the same prefix stay.
    fn cancel(&mut self, prefix: &[u8]) {
        if let Some(place) = self.subscriptions.iter().position(|known| known == prefix) {
            self.subscriptions.swap_remove(place);
        }
    }

    /// Takes the bytes for the peer.
    pub fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Whether the handshake is complete.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether the peer takes part: it may send requests, or has subscribed to something.
    pub fn is_client(&self) -> bool {
        self.ready && (self.kind == SocketKind::Rep || !self.subscriptions.is_empty())
    }

    /// Returns the number of bytes that are received and not handled.
    pub fn unhandled(&self) -> usize {
        self.received.len() - self.taken + self.frames.iter().map(Vec::len).sum::<usize>()
    }

    /// Appends a message, after the envelope of its request, if the peer of a PUB socket has subscribed to it.
    pub fn write_message(&self, envelope: &[Vec<u8>], data: &[u8], out: &mut Vec<u8>) {
        if self.kind == SocketKind::Pub && !self.subscriptions.iter().any(|prefix| data.starts_with(prefix)) {
            return;
        }
        for frame in envelope {
            bytes::write_frame(MORE, frame, out);
        }
        bytes::write_frame(0, data, out);
    }
}

/// Splits a message after its delimiter. One without a delimiter or without data is not a request.
fn split_request(mut frames: Vec<Vec<u8>>) -> Option<ZmtpRequest> {
    let delimiter = frames.iter().position(Vec::is_empty)?;
    let data = frames.split_off(delimiter + 1);
    (!data.is_empty()).then_some(ZmtpRequest { envelope: frames, data })
}
