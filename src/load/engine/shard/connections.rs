//! The connections of a shard: begun, read, ended.

use std::io;

use super::super::connection::{Connection, Heard, Piece, Why};
use super::super::frames;
use super::super::stream::Stream;
use super::{CLOSING, CONNECT, DIALS, HELD, PONGS, Parts, Shard, UNWRITTEN, hand};
use crate::load::client::io::{End, Input};
use crate::load::compile::program::Dial;
use crate::load::metrics::ErrorKind;
use crate::websocket::handshake;

impl Shard {
    /// Begins to connect whoever wants to.
    pub(super) fn dial(&mut self) {
        for _ in 0..DIALS {
            let Some((number, dial)) = self.parts.desk.dials.pop_front() else { return };
            if let Err(kind) = self.connect(number, &dial) {
                self.parts.desk.cause = Some(kind);
                self.drive(number, Input::Closed(End::Unreachable));
                self.parts.desk.cause = None;
            }
        }
    }

    pub(super) fn connect(&mut self, number: u32, dial: &Dial) -> Result<(), ErrorKind> {
        self.hang_up(number);
        let Parts { endpoint, headers, dialer, tls, poll, .. } = &mut self.parts;
        let from = dial.from.as_deref().map(str::parse).transpose().map_err(|_| ErrorKind::Internal)?;
        let tcp = dialer
            .connect(from)
            .map_err(|error| if is_ours(&error) { ErrorKind::Resources } else { ErrorKind::Connect })?;
        let mut stream = Stream::new(tcp, tls.as_ref()).map_err(|_| ErrorKind::Tls)?;
        stream.register(poll.registry(), number).map_err(|_| ErrorKind::Resources)?;
        let fresh = handshake::key();
        let mut all = headers.as_ref().clone();
        all.extend(dial.headers.iter().cloned());
        let key = handshake::key_of(&all, &fresh);
        let request = handshake::request(&handshake::Request {
            host: &endpoint.host_header(),
            target: &handshake::target(&endpoint.path, dial.path.as_deref().unwrap_or_default(), &dial.query),
            key,
            headers: &all,
            subprotocols: &dial.subprotocols,
            ..handshake::Request::default()
        });
        let seat = &mut self.seats[number as usize];
        seat.line.out = request.map_err(|_| ErrorKind::Internal)?;
        seat.wire = Some(Box::new(Connection::new(stream, key.to_owned(), dial.subprotocols.clone())));
        self.connections += 1;
        self.opening.push_back((self.course.clock.now() + CONNECT, number, seat.serial));
        Ok(())
    }

    /// Something has happened to a connection.
    pub(super) fn ready(&mut self, number: u32, to_the_end: bool) {
        let connected = self.seats.get(number as usize).is_some_and(|seat| seat.wire.is_some());
        if connected && self.read(number, to_the_end) {
            self.hot.push_back(number);
        }
    }

    /// Those whose turn to read ended before there was nothing more; whether any is left.
    pub(super) fn read_hot(&mut self) -> bool {
        for _ in 0..self.hot.len() {
            let Some(number) = self.hot.pop_front() else { break };
            if self.seats[number as usize].wire.is_some() && self.read(number, true) {
                self.hot.push_back(number);
            }
        }
        !self.hot.is_empty()
    }

    /// Reads what has come on a connection and writes what follows from it; whether more may be there.
    pub(super) fn read(&mut self, number: u32, to_the_end: bool) -> bool {
        self.flush_last();
        let course = &self.course;
        let Parts { desk, prepared, sampler, .. } = &mut self.parts;
        let seat = &mut self.seats[number as usize];
        let Some(mut wire) = seat.wire.take() else { return false };
        let held = wire.held();
        let (mut closed, was_closing) = (None, seat.line.closing);
        let heard = wire.read(&mut self.scratch, to_the_end, &mut |piece| {
            let now = course.clock.now();
            match piece {
                Piece::Opened => {
                    seat.line.open = true;
                    hand(seat, number, desk, prepared, now, Input::Opened);
                }
                Piece::Message(bytes) => {
                    desk.recognised = None;
                    hand(seat, number, desk, prepared, now, Input::Text(bytes));
                    sampler.see(desk.recognised, bytes);
                }
                // Who pours pings out and reads no pong gets the latest of what finds a place (RFC 6455, section 5.5.3).
                Piece::Ping(_) if seat.line.out.len() > PONGS => {}
                Piece::Ping(bytes) => {
                    frames::append(&mut seat.line.out, frames::PONG, &mut desk.masks, |out| {
                        out.extend_from_slice(bytes)
                    });
                }
                Piece::Close(code) => {
                    if !seat.line.closing {
                        frames::append(&mut seat.line.out, frames::CLOSE, &mut desk.masks, |out| {
                            // 1005 is how we say that none was given; it must not be sent.
                            if code != 1005 {
                                out.extend_from_slice(&code.to_be_bytes());
                            }
                        });
                    }
                    closed = Some(code);
                }
            }
        });
        self.held = self.held + wire.held() - held;
        seat.wire = Some(wire);
        if seat.line.closing && !was_closing {
            self.closing.push_back((course.clock.now() + CLOSING, number, seat.serial));
        }
        match (closed, heard) {
            (Some(code), _) => {
                let _ = self.write(number);
                self.ended(number, End::Close(code), None);
                false
            }
            (None, Heard::Ended(end, why)) => {
                let cause = match why {
                    Why::Plain => None,
                    Why::Upgrade => Some(ErrorKind::Upgrade),
                    Why::Tls => Some(ErrorKind::Tls),
                    Why::Protocol => Some(ErrorKind::Protocol),
                };
                self.ended(number, end, cause);
                false
            }
            (None, _) if self.held > HELD => {
                self.ended(number, End::Dropped, Some(ErrorKind::Protocol));
                false
            }
            (None, heard) => {
                self.flush(number);
                heard == Heard::Some
            }
        }
    }

    /// Writes as much as goes of what is to be said on a connection.
    ///
    /// # Errors
    /// What ends the connection: the system's error, or a hub that reads so slowly that too much waits for it.
    pub(super) fn write(&mut self, number: u32) -> io::Result<()> {
        let seat = &mut self.seats[number as usize];
        let before = seat.line.left;
        let written = seat.flush();
        self.unwritten = self.unwritten - before + seat.line.left;
        // Who leaves nothing behind has no part in it.
        let too_much = seat.line.left > 0 && self.unwritten > UNWRITTEN;
        if too_much { written.and(Err(io::ErrorKind::StorageFull.into())) } else { written }
    }

    /// A connection is over.
    pub(super) fn ended(&mut self, number: u32, end: End, cause: Option<ErrorKind>) {
        let seat = &mut self.seats[number as usize];
        if seat.wire.is_none() {
            return;
        }
        self.hang_up(number);
        self.parts.desk.cause = cause;
        self.drive(number, Input::Closed(end));
        self.parts.desk.cause = None;
    }

    /// A connection goes, with what was held for it.
    pub(super) fn hang_up(&mut self, number: u32) {
        let seat = &mut self.seats[number as usize];
        if let Some(wire) = &seat.wire {
            self.held -= wire.held();
            self.unwritten -= seat.line.left;
            self.connections -= 1;
        }
        seat.hang_up();
    }

    /// Connections that have not come about, or not ended, in time.
    pub(super) fn overdue(&mut self) {
        let now = self.course.clock.now();
        while let Some((at, number, serial)) = self.opening.front().copied().filter(|(at, ..)| *at <= now) {
            self.opening.pop_front();
            let seat = &self.seats[number as usize];
            if at <= now && seat.serial == serial && seat.wire.is_some() && !seat.line.open {
                self.ended(number, End::Unreachable, None);
            }
        }
        while let Some((_, number, serial)) = self.closing.front().copied().filter(|(at, ..)| *at <= now) {
            self.closing.pop_front();
            if self.seats[number as usize].serial == serial {
                self.ended(number, End::Dropped, None);
            }
        }
    }
}

/// Whether it is our side that has run out of something: descriptors, ports, memory.
fn is_ours(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        let ours = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::ADDRINUSE, Errno::NOBUFS, Errno::NOMEM];
        error.raw_os_error().is_some_and(|code| ours.iter().any(|errno| errno.raw_os_error() == code))
    }
    #[cfg(not(unix))]
    {
        matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory)
    }
}
