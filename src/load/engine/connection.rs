//! One connection: from the first byte of the upgrade to the last frame, without waiting and without keeping what it need not.

use std::io;

use super::frames::{self, Front};
use super::shard::slot::is_not_now;
use super::stream::Stream;
use crate::load::client::io::End;
use crate::websocket::frame::Received;
use crate::websocket::handshake;

/// Read at once, into memory that all connections of a shard share.
pub const SCRATCH: usize = 64 << 10;
/// Reads of one connection in a row, before the others get their turn.
const READS: usize = 8;
/// The longest frame, and the longest message in pieces: what tungstenite takes of a frame.
const MESSAGE: usize = 16 << 20;
/// Answers with 100, 102 or 103 before the real one.
const INTERIM_ANSWERS: u32 = 8;

/// A piece of what the hub says.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The upgrade succeeded.
    Opened,
    /// A whole text or binary message.
    Message(&'a [u8]),
    Ping(&'a [u8]),
    Close(u16),
}

/// What reading has come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing more is there.
    All,
    /// More may be there; others first.
    Some,
    /// The connection is of no use any more.
    Ended(End, Why),
}

/// What a connection ended of, where that is more than its [`End`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The other side, or the network.
    Plain,
    /// The answer to the upgrade was no such answer.
    Upgrade,
    /// The handshake of TLS, or a record.
    Tls,
    /// What came breaks RFC 6455, or is too much for us.
    Protocol,
}

/// A connection, from when it is dialled.
pub struct Connection {
    pub stream: Stream,
    /// Until it is upgraded.
    upgrade: Option<Box<Upgrade>>,
    /// A frame, or a head, that has not come whole.
    rest: Vec<u8>,
    /// A message in pieces, so far, and what it began as.
    message: Vec<u8>,
    in_pieces: Option<u8>,
    /// Nothing is read after a close.
    closed: bool,
}

/// Why a connection is of no use.
struct Useless(End, Why);

const PROTOCOL: Useless = Useless(End::Dropped, Why::Protocol);
/// What came is no HTTP that we take.
const NO_UPGRADE: Useless = Useless(End::Unreachable, Why::Upgrade);

struct Upgrade {
    key: String,
    subprotocols: Vec<String>,
    interim: u32,
}

/// A whole message, if it may be one: a text must be UTF-8 (RFC 6455, section 8.1). What is captured of it is sent again, so
/// it is ours to see to that.
fn whole(opcode: u8, message: &[u8]) -> Result<&[u8], Useless> {
    if opcode == frames::TEXT && std::str::from_utf8(message).is_err() {
        return Err(PROTOCOL);
    }
    Ok(message)
}

impl Connection {
    /// A stream that is about to be connected. The request for the upgrade is the caller's to send.
    pub fn new(stream: Stream, key: String, subprotocols: Vec<String>) -> Self {
        let upgrade = Some(Box::new(Upgrade { key, subprotocols, interim: 0 }));
        Self { stream, upgrade, rest: Vec::new(), message: Vec::new(), in_pieces: None, closed: false }
    }

    pub fn is_open(&self) -> bool {
        self.upgrade.is_none()
    }

    /// Bytes that have been read and wait for the rest of their frame.
    pub fn held(&self) -> usize {
        self.rest.len() + self.message.len()
    }

    /// Reads what is there and hands it on piece by piece. `to_the_end`: the system has said that the other side is done,
    /// so that a short read does not mean that nothing more is there.
    pub fn read(&mut self, scratch: &mut [u8], to_the_end: bool, each: &mut impl FnMut(Piece<'_>)) -> Heard {
        for _ in 0..READS {
            let count = match self.stream.read(scratch) {
                Ok(0) => return self.ended(Why::Plain),
                Ok(count) => count,
                Err(error) if is_not_now(&error) => return Heard::All,
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
                    // An idle connection holds nothing.
                    if !rest.is_empty() {
                        self.rest = rest;
                    }
                })
            };
            if let Err(Useless(end, why)) = taken {
                return Heard::Ended(end, why);
            }
            if count < scratch.len() && !to_the_end && self.stream.is_drained_by_short_read() {
                return Heard::All;
            }
        }
        Heard::Some
    }

    /// What the end of the stream means at this point.
    fn ended(&self, why: Why) -> Heard {
        Heard::Ended(if self.is_open() { End::Dropped } else { End::Unreachable }, why)
    }

    /// Takes what is whole off the front of `bytes`; how many bytes that are.
    fn take(&mut self, bytes: &[u8], each: &mut impl FnMut(Piece<'_>)) -> Result<usize, Useless> {
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
    ) -> Result<(), Useless> {
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
            // A pong is an answer to nothing: we ping nobody.
            _ => {}
        }
        Ok(())
    }

    /// Reads the answer to the upgrade; how many bytes it took so far.
    fn upgraded(&mut self, bytes: &[u8]) -> Result<usize, Useless> {
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
                _ => return Err(Useless(End::Refused(status), Why::Upgrade)),
            }
        }
        Ok(taken)
    }
}
