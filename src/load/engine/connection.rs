//! One WebSocket connection, from the answer to the upgrade request to the last frame; non-blocking, with minimal
//! buffers.

use std::io;

use super::frames::{self, Front};
use super::shard::slot::is_not_now;
use super::stream::Stream;
use crate::load::client::io::End;
use crate::websocket::frame::Received;
use crate::websocket::handshake;

/// Bytes per read, into a buffer shared by all connections of a shard.
pub const SCRATCH: usize = 64 << 10;
/// Consecutive reads of one connection before others get their turn.
const READS: usize = 8;
/// The longest frame and the longest fragmented message: tungstenite's default for frames.
const MESSAGE: usize = 16 << 20;
/// The most interim answers (100, 102, 103) before the final one.
const INTERIM_ANSWERS: u32 = 8;

/// An event on a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The upgrade succeeded.
    Opened,
    /// A whole text or binary message.
    Message(&'a [u8]),
    Ping(&'a [u8]),
    Close(u16),
}

/// The result of a read.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadState {
    /// All available bytes have been read.
    All,
    /// More bytes may be available; other connections come first.
    Some,
    /// The connection has ended or must be dropped.
    Ended(End, Why),
}

/// The cause of an end, as detail of [`End`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The peer or the network ended the connection.
    Plain,
    /// The answer to the upgrade request is invalid.
    Upgrade,
    /// The TLS handshake or a TLS record failed.
    Tls,
    /// The hub violated RFC 6455 or exceeded a limit.
    Protocol,
}

/// A connection, from the beginning of its TCP handshake.
pub struct Connection {
    pub stream: Stream,
    /// Present until the upgrade has succeeded.
    upgrade: Option<Box<Upgrade>>,
    /// An incomplete frame or HTTP head.
    rest: Vec<u8>,
    /// The fragments received of a message, and its opcode.
    message: Vec<u8>,
    in_pieces: Option<u8>,
    /// Whether a close frame has been received; nothing is read after it.
    closed: bool,
}

/// An error after which a connection must be dropped.
struct ConnectionError(End, Why);

const PROTOCOL: ConnectionError = ConnectionError(End::Dropped, Why::Protocol);
/// The answer is not a valid HTTP response to the upgrade.
const NO_UPGRADE: ConnectionError = ConnectionError(End::Unreachable, Why::Upgrade);

struct Upgrade {
    key: String,
    subprotocols: Vec<String>,
    interim: u32,
}

/// Checks a whole message: a text must be UTF-8 (RFC 6455, section 8.1). Parts of it may be sent again, so invalid text
/// must be rejected here.
fn whole(opcode: u8, message: &[u8]) -> Result<&[u8], ConnectionError> {
    if opcode == frames::TEXT && std::str::from_utf8(message).is_err() {
        return Err(PROTOCOL);
    }
    Ok(message)
}

impl Connection {
    /// Wraps a stream that is connecting. The caller sends the upgrade request.
    pub fn new(stream: Stream, key: String, subprotocols: Vec<String>) -> Self {
        let upgrade = Some(Box::new(Upgrade { key, subprotocols, interim: 0 }));
        Self { stream, upgrade, rest: Vec::new(), message: Vec::new(), in_pieces: None, closed: false }
    }

    pub fn is_open(&self) -> bool {
        self.upgrade.is_none()
    }

    /// Returns the number of buffered bytes of incomplete frames and messages.
    pub fn held(&self) -> usize {
        self.rest.len() + self.message.len()
    }

    /// Reads available bytes and passes each event to `each`. `to_the_end`: the peer has closed its side, so a short
    /// read does not mean that everything has been read.
    pub fn read(&mut self, scratch: &mut [u8], to_the_end: bool, each: &mut impl FnMut(Piece<'_>)) -> ReadState {
        for _ in 0..READS {
            let count = match self.stream.read(scratch) {
                Ok(0) => return self.ended(Why::Plain),
                Ok(count) => count,
                Err(error) if is_not_now(&error) => return ReadState::All,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let of_tls = error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>());
                    return self.ended(if of_tls { Why::Tls } else { Why::Plain });
                }
            };
            let taken = if self.rest.is_empty() {
                self.take(&scratch[..count], each).map(|taken| self.rest.extend_from_slice(&scratch[taken..count]))
            } else {
                let mut rest = std::mem::take(&mut self.rest);
                rest.extend_from_slice(&scratch[..count]);
                self.take(&rest, each).map(|taken| {
                    rest.drain(..taken);
                    // Idle connections hold no buffer.
                    if !rest.is_empty() {
                        self.rest = rest;
                    }
                })
            };
            if let Err(ConnectionError(end, why)) = taken {
                return ReadState::Ended(end, why);
            }
            if count < scratch.len() && !to_the_end && self.stream.is_drained_by_short_read() {
                return ReadState::All;
            }
        }
        ReadState::Some
    }

    /// Interprets the end of the stream in the current state.
    fn ended(&self, why: Why) -> ReadState {
        ReadState::Ended(if self.is_open() { End::Dropped } else { End::Unreachable }, why)
    }

    /// Consumes the complete frames at the beginning of `bytes`; returns how many bytes they take.
    fn take(&mut self, bytes: &[u8], each: &mut impl FnMut(Piece<'_>)) -> Result<usize, ConnectionError> {
        let mut taken = 0;
        if self.upgrade.is_some() {
            taken = self.upgraded(bytes)?;
            if self.upgrade.is_some() {
                return Ok(taken);
            }
            each(Piece::Opened);
        }
        while !self.closed {
            match frames::front(&bytes[taken..], MESSAGE) {
                Front::Partial(_) => return Ok(taken),
                Front::Wrong(_) => return Err(PROTOCOL),
                Front::Frame { opcode, fin, payload } => {
                    let end = payload.end;
                    self.frame(opcode, fin, &bytes[taken..][payload], each)?;
                    taken += end;
                }
            }
        }
        Ok(bytes.len())
    }

    fn frame(
        &mut self,
        opcode: u8,
        fin: bool,
        payload: &[u8],
        each: &mut impl FnMut(Piece<'_>),
    ) -> Result<(), ConnectionError> {
        match opcode {
            frames::PING => each(Piece::Ping(payload)),
            frames::CLOSE => {
                self.closed = true;
                each(Piece::Close(frames::close_code(payload)));
            }
            frames::TEXT | frames::BINARY if self.in_pieces.is_some() => return Err(PROTOCOL),
            frames::TEXT | frames::BINARY if fin => each(Piece::Message(whole(opcode, payload)?)),
            frames::TEXT | frames::BINARY => {
                self.in_pieces = Some(opcode);
                self.message.extend_from_slice(payload);
            }
            frames::CONTINUATION => {
                let began = self.in_pieces.filter(|_| self.message.len() + payload.len() <= MESSAGE).ok_or(PROTOCOL)?;
                self.message.extend_from_slice(payload);
                if fin {
                    self.in_pieces = None;
                    let message = std::mem::take(&mut self.message);
                    each(Piece::Message(whole(began, &message)?));
                }
            }
            // A pong needs no answer; the client sends no pings.
            _ => {}
        }
        Ok(())
    }

    /// Parses the answer to the upgrade request; returns how many bytes it took so far.
    fn upgraded(&mut self, bytes: &[u8]) -> Result<usize, ConnectionError> {
        let mut taken = 0;
        while let Some(upgrade) = &mut self.upgrade {
            let Some(head) = handshake::response_head(&bytes[taken..]).map_err(|_| NO_UPGRADE)? else {
                return Ok(taken);
            };
            taken += head.length;
            if (100..200).contains(&head.status) && head.status != 101 {
                upgrade.interim += 1;
                if upgrade.interim > INTERIM_ANSWERS {
                    return Err(NO_UPGRADE);
                }
                continue;
            }
            let status = head.status;
            match handshake::judge_response(head, &upgrade.key, &upgrade.subprotocols) {
                Received::Upgraded { .. } => self.upgrade = None,
                _ => return Err(ConnectionError(End::Refused(status), Why::Upgrade)),
            }
        }
        Ok(taken)
    }
}
