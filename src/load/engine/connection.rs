//! One WebSocket connection, from the answer to the upgrade request to the last frame; non-blocking, with minimal
//! buffers.

use std::io;

use super::frames::{self, FrameParse};
use super::shard::slot::is_not_ready;
use super::stream::ClientStream;
use crate::load::client::io::Disconnection;
use crate::transport::tls::explain_handshake_error;
use crate::websocket::frame::ConnectionEvent;
use crate::websocket::handshake::{self, ResponseHead};

/// Bytes per read, into a buffer shared by all connections of a shard.
pub const READ_BUFFER_BYTES: usize = 64 << 10;
/// Consecutive reads of one connection before others get their turn.
const MAX_READS_PER_TURN: usize = 8;
/// The longest frame and the longest fragmented message: tungstenite's default for frames.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// The most interim answers (100, 102, 103) before the final one.
const MAX_INTERIM_ANSWERS: u32 = 8;

/// An event on a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum SocketEvent<'a> {
    /// The upgrade succeeded.
    Opened,
    /// A whole text or binary message.
    Message(&'a [u8]),
    Ping(&'a [u8]),
    /// A close frame, with its code, or 1005, and its reason.
    Close(u16, &'a [u8]),
}

/// The result of a read.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadResult {
    /// All available bytes have been read.
    All,
    /// More bytes may be available; other connections come first.
    Some,
    /// The connection has ended or must be dropped; the text has the details.
    Ended(Disconnection, String),
}

/// A connection, from the beginning of its TCP handshake.
pub struct LoadConnection {
    pub stream: ClientStream,
    /// Present until the upgrade has succeeded.
    upgrade: Option<Box<PendingUpgrade>>,
    /// The refusal of the upgrade, while its body is received.
    refusal: Option<Box<PendingRefusal>>,
    /// An incomplete frame or HTTP head.
    rest: Vec<u8>,
    /// The fragments received of a message, and its opcode.
    message: Vec<u8>,
    in_pieces: Option<u8>,
    /// Whether a close frame has been received; nothing is read after it.
    closed: bool,
}

/// An error after which a connection must be dropped.
struct FatalConnectionError(Disconnection, String);

fn violation(what: &str) -> FatalConnectionError {
    FatalConnectionError(Disconnection::Violation, what.to_owned())
}

struct PendingUpgrade {
    key: String,
    subprotocols: Vec<String>,
    interim: u32,
}

struct PendingRefusal {
    head: ResponseHead,
    reason: String,
    /// The bytes after the head.
    body: Vec<u8>,
}

impl PendingRefusal {
    /// Describes the refusal by what has been received of it.
    fn describe(&self) -> String {
        let (body, _) = handshake::refusal_body(&self.head, &self.body);
        handshake::describe_refusal(&self.reason, self.head.status, &self.head.headers, &body)
    }
}

/// Checks a whole message: a text must be UTF-8 (RFC 6455, section 8.1). Parts of it may be sent again, so invalid text
/// must be rejected here.
fn check_message(opcode: u8, message: &[u8]) -> Result<&[u8], FatalConnectionError> {
    if opcode == frames::TEXT && std::str::from_utf8(message).is_err() {
        return Err(violation("a text is not UTF-8"));
    }
    Ok(message)
}

impl LoadConnection {
    /// Wraps a stream that is connecting. The caller sends the upgrade request.
    pub fn new(stream: ClientStream, key: String, subprotocols: Vec<String>) -> Self {
        let upgrade = Some(Box::new(PendingUpgrade { key, subprotocols, interim: 0 }));
        Self { stream, upgrade, refusal: None, rest: Vec::new(), message: Vec::new(), in_pieces: None, closed: false }
    }

    pub fn is_open(&self) -> bool {
        self.upgrade.is_none()
    }

    /// Returns the number of buffered bytes of incomplete frames, messages and refusals.
    pub fn buffered_bytes(&self) -> usize {
        self.rest.len() + self.message.len() + self.refusal.as_ref().map_or(0, |refusal| refusal.body.len())
    }

    /// Returns how the connection ended if it ends now, by this error or by the end of the stream.
    pub fn ending(&self, error: Option<&io::Error>) -> (Disconnection, String) {
        let of_tls = |error: &io::Error| error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>());
        let resets = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionAborted];
        match (&self.refusal, error) {
            (Some(refusal), _) => (Disconnection::Refused(refusal.head.status), refusal.describe()),
            (None, _)
                if !self.is_open()
                    && let Some(why) = self.stream.explain_end(error) =>
            {
                (Disconnection::Tls, why.to_owned())
            }
            (None, Some(error)) if of_tls(error) => (Disconnection::Tls, explain_handshake_error(error)),
            (None, Some(error)) if error.kind() == io::ErrorKind::StorageFull => (Disconnection::Unread, String::new()),
            (None, Some(error)) if self.is_open() && resets.contains(&error.kind()) => {
                (Disconnection::Reset, String::new())
            }
            (None, None) if self.is_open() => (Disconnection::Dropped, String::new()),
            (None, Some(error)) if self.is_open() => (Disconnection::Dropped, error.to_string()),
            (None, Some(error)) => (Disconnection::Unreachable, error.to_string()),
            (None, None) => (Disconnection::Unreachable, "the connection ended before the upgrade".to_owned()),
        }
    }

    /// Reads available bytes and passes each event to `each`. `to_the_end`: the peer has closed its side, so a short
    /// read does not mean that everything has been read.
    pub fn read(&mut self, scratch: &mut [u8], to_the_end: bool, each: &mut impl FnMut(SocketEvent<'_>)) -> ReadResult {
        for _ in 0..MAX_READS_PER_TURN {
            let count = match self.stream.read(scratch) {
                Ok(0) => {
                    let (end, detail) = self.ending(None);
                    return ReadResult::Ended(end, detail);
                }
                Ok(count) => count,
                Err(error) if is_not_ready(&error) => return ReadResult::All,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let (end, detail) = self.ending(Some(&error));
                    return ReadResult::Ended(end, detail);
                }
            };
            let taken = if self.rest.is_empty() {
                self.consume_frames(&scratch[..count], each)
                    .map(|taken| self.rest.extend_from_slice(&scratch[taken..count]))
            } else {
                let mut rest = std::mem::take(&mut self.rest);
                rest.extend_from_slice(&scratch[..count]);
                self.consume_frames(&rest, each).map(|taken| {
                    rest.drain(..taken);
                    // Idle connections hold no buffer.
                    if !rest.is_empty() {
                        self.rest = rest;
                    }
                })
            };
            if let Err(FatalConnectionError(end, why)) = taken {
                return ReadResult::Ended(end, why);
            }
            if count < scratch.len() && !to_the_end && self.stream.is_drained_by_short_read() {
                return ReadResult::All;
            }
        }
        ReadResult::Some
    }

    /// Consumes the complete frames at the beginning of `bytes`; returns how many bytes they take.
    fn consume_frames(
        &mut self,
        bytes: &[u8],
        each: &mut impl FnMut(SocketEvent<'_>),
    ) -> Result<usize, FatalConnectionError> {
        let mut taken = 0;
        if let Some(refusal) = &mut self.refusal {
            refusal.body.extend_from_slice(bytes);
            return self.check_refusal().map(|()| bytes.len());
        }
        if self.upgrade.is_some() {
            taken = self.parse_upgrade_answer(bytes)?;
            if let Some(refusal) = &mut self.refusal {
                refusal.body.extend_from_slice(&bytes[taken..]);
                return self.check_refusal().map(|()| bytes.len());
            }
            if self.upgrade.is_some() {
                return Ok(taken);
            }
            each(SocketEvent::Opened);
        }
        while !self.closed {
            match frames::parse_first_frame(&bytes[taken..], MAX_MESSAGE_BYTES) {
                FrameParse::Partial(_) => return Ok(taken),
                FrameParse::Wrong(what) => return Err(violation(what)),
                FrameParse::Frame { opcode, fin, payload } => {
                    let end = payload.end;
                    self.handle_frame(opcode, fin, &bytes[taken..][payload], each)?;
                    taken += end;
                }
            }
        }
        Ok(bytes.len())
    }

    fn handle_frame(
        &mut self,
        opcode: u8,
        fin: bool,
        payload: &[u8],
        each: &mut impl FnMut(SocketEvent<'_>),
    ) -> Result<(), FatalConnectionError> {
        match opcode {
            frames::PING => each(SocketEvent::Ping(payload)),
            frames::CLOSE => {
                self.closed = true;
                each(SocketEvent::Close(frames::close_code(payload), payload.get(2..).unwrap_or_default()));
            }
            frames::TEXT | frames::BINARY if self.in_pieces.is_some() => {
                return Err(violation("a message begins within another"));
            }
            frames::TEXT | frames::BINARY if fin => each(SocketEvent::Message(check_message(opcode, payload)?)),
            frames::TEXT | frames::BINARY => {
                self.in_pieces = Some(opcode);
                self.message.extend_from_slice(payload);
            }
            frames::CONTINUATION => {
                let began = self
                    .in_pieces
                    .filter(|_| self.message.len() + payload.len() <= MAX_MESSAGE_BYTES)
                    .ok_or_else(|| violation("a fragment of no message, or of one that exceeds the size limit"))?;
                self.message.extend_from_slice(payload);
                if fin {
                    self.in_pieces = None;
                    let message = std::mem::take(&mut self.message);
                    each(SocketEvent::Message(check_message(began, &message)?));
                }
            }
            // A pong needs no answer; the client sends no pings.
            _ => {}
        }
        Ok(())
    }

    /// Parses the answer to the upgrade request; returns how many bytes it took so far.
    fn parse_upgrade_answer(&mut self, bytes: &[u8]) -> Result<usize, FatalConnectionError> {
        let mut taken = 0;
        while let Some(upgrade) = &mut self.upgrade {
            let head = handshake::parse_response_head(&bytes[taken..]);
            let head = head.map_err(|error| FatalConnectionError(Disconnection::NotHttp, error.to_string()))?;
            let Some(head) = head else { return Ok(taken) };
            taken += head.length;
            if (100..200).contains(&head.status) && head.status != 101 {
                upgrade.interim += 1;
                if upgrade.interim > MAX_INTERIM_ANSWERS {
                    return Err(FatalConnectionError(Disconnection::NotHttp, "too many interim answers".to_owned()));
                }
                continue;
            }
            match handshake::judge_response(head.clone(), &upgrade.key, &upgrade.subprotocols) {
                ConnectionEvent::Refused { reason, .. } => {
                    self.refusal = Some(Box::new(PendingRefusal { head, reason, body: Vec::new() }));
                    return Ok(taken);
                }
                _ => self.upgrade = None,
            }
        }
        Ok(taken)
    }

    /// Ends the connection once the body of a refusal is complete, or long enough.
    fn check_refusal(&self) -> Result<(), FatalConnectionError> {
        let Some(refusal) = &self.refusal else { return Ok(()) };
        let (_, complete) = handshake::refusal_body(&refusal.head, &refusal.body);
        if complete || refusal.body.len() > 8 * handshake::MAX_BODY_BYTES {
            return Err(FatalConnectionError(Disconnection::Refused(refusal.head.status), refusal.describe()));
        }
        Ok(())
    }
}
