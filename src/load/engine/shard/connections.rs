//! Opens, reads, writes and ends the connections of a shard.

use std::io;

use super::super::connection::{Connection, Piece, ReadState, Why};
use super::super::frames;
use super::super::stream::Stream;
use super::{CLOSING, CONNECT, DIALS, HELD, PONGS, Parts, Shard, UNWRITTEN, handle_input};
use crate::load::client::io::{End, Input};
use crate::load::metrics::ErrorKind;
use crate::websocket::handshake::{self, Dial};

impl Shard {
    /// Opens requested connections.
    pub(super) fn dial(&mut self) {
        for _ in 0..DIALS {
            let Some((number, dial)) = self.parts.context.dials.pop_front() else { return };
            if let Err(kind) = self.connect(number, &dial) {
                self.parts.context.cause = Some(kind);
                self.drive(number, Input::Closed(End::Unreachable));
                self.parts.context.cause = None;
            }
        }
    }

    pub(super) fn connect(&mut self, number: u32, dial: &Dial) -> Result<(), ErrorKind> {
        self.disconnect(number);
        let Parts { endpoint, context, dialer, tls, poll, .. } = &mut self.parts;
        let upgraded = context.translation.as_ref().and_then(|translation| translation.upgrade(dial));
        let dial = upgraded.as_ref().unwrap_or(dial);
        let from = dial.from.as_deref().map(str::parse).transpose().map_err(|_| ErrorKind::Internal)?;
        let tcp = dialer
            .connect(from)
            .map_err(|error| if is_ours(&error) { ErrorKind::Resources } else { ErrorKind::Connect })?;
        let mut stream = Stream::new(tcp, tls.as_ref()).map_err(|_| ErrorKind::Tls)?;
        stream.register(poll.registry(), number).map_err(|_| ErrorKind::Resources)?;
        let fresh = handshake::key();
        let key = dial.key(&fresh);
        let request = dial.request(&endpoint.host_header(), &endpoint.path, key);
        let slot = &mut self.slots[number as usize];
        slot.output.out = request.map_err(|_| ErrorKind::Internal)?;
        slot.connection = Some(Box::new(Connection::new(stream, key.to_owned(), dial.subprotocols.clone())));
        self.connections += 1;
        self.opening.push_back((self.timeline.clock.now() + CONNECT, number, slot.serial));
        Ok(())
    }

    /// Handles an event of a socket.
    pub(super) fn ready(&mut self, number: u32, to_the_end: bool) {
        let connected = self.slots.get(number as usize).is_some_and(|slot| slot.connection.is_some());
        if connected && self.read(number, to_the_end) {
            self.hot.push_back(number);
        }
    }

    /// Continues reads that were cut short to let other connections have their turn; returns whether any are left.
    pub(super) fn read_hot(&mut self) -> bool {
        for _ in 0..self.hot.len() {
            let Some(number) = self.hot.pop_front() else { break };
            if self.slots[number as usize].connection.is_some() && self.read(number, true) {
                self.hot.push_back(number);
            }
        }
        !self.hot.is_empty()
    }

    /// Reads a connection and writes the resulting frames; returns whether more may be available.
    pub(super) fn read(&mut self, number: u32, to_the_end: bool) -> bool {
        self.flush_last();
        let timeline = &self.timeline;
        let Parts { context, prepared, sampler, .. } = &mut self.parts;
        let slot = &mut self.slots[number as usize];
        let Some(mut connection) = slot.connection.take() else { return false };
        let held = connection.held();
        let (mut closed, was_closing) = (None, slot.output.closing);
        let heard = connection.read(&mut self.scratch, to_the_end, &mut |piece| {
            let now = timeline.clock.now();
            match piece {
                Piece::Opened => {
                    slot.output.open = true;
                    handle_input(slot, number, context, prepared, now, Input::Opened);
                }
                Piece::Message(bytes) => {
                    context.classified = None;
                    slot.keep_received(bytes);
                    let documented =
                        context.translation.as_mut().and_then(|translation| translation.received(number, bytes, now));
                    let bytes = documented.as_deref().unwrap_or(bytes);
                    handle_input(slot, number, context, prepared, now, Input::Text(bytes));
                    sampler.see(context.classified, bytes);
                }
                // While a hub sends pings and does not read, only the latest that fit are answered (RFC 6455, section
                // 5.5.3).
                Piece::Ping(_) if slot.output.out.len() > PONGS => {}
                Piece::Ping(bytes) => {
                    frames::append(&mut slot.output.out, frames::PONG, &mut context.masks, |out| {
                        out.extend_from_slice(bytes)
                    });
                }
                Piece::Close(code) => {
                    if !slot.output.closing {
                        frames::append(&mut slot.output.out, frames::CLOSE, &mut context.masks, |out| {
                            // 1005 stands for "no code" and must not be sent.
                            if code != 1005 {
                                out.extend_from_slice(&code.to_be_bytes());
                            }
                        });
                    }
                    closed = Some(code);
                }
            }
        });
        self.held = self.held + connection.held() - held;
        slot.connection = Some(connection);
        if slot.output.closing && !was_closing {
            self.closing.push_back((timeline.clock.now() + CLOSING, number, slot.serial));
        }
        match (closed, heard) {
            (Some(code), _) => {
                let _ = self.write(number);
                self.ended(number, End::Close(code), None);
                false
            }
            (None, ReadState::Ended(end, why)) => {
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
                heard == ReadState::Some
            }
        }
    }

    /// Writes as much as the socket takes.
    ///
    /// # Errors
    /// The connection must end: an error of the system, or too many unwritten bytes.
    pub(super) fn write(&mut self, number: u32) -> io::Result<()> {
        let slot = &mut self.slots[number as usize];
        let before = slot.output.left;
        let written = slot.flush();
        self.unwritten = self.unwritten - before + slot.output.left;
        // A connection without unwritten bytes is not at fault.
        let too_much = slot.output.left > 0 && self.unwritten > UNWRITTEN;
        if too_much { written.and(Err(io::ErrorKind::StorageFull.into())) } else { written }
    }

    /// Handles the end of a connection.
    pub(super) fn ended(&mut self, number: u32, end: End, cause: Option<ErrorKind>) {
        let slot = &mut self.slots[number as usize];
        if slot.connection.is_none() {
            return;
        }
        self.disconnect(number);
        self.parts.context.cause = cause;
        self.drive(number, Input::Closed(end));
        self.parts.context.cause = None;
    }

    /// Drops a connection and its buffers.
    pub(super) fn disconnect(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        if let Some(connection) = &slot.connection {
            self.held -= connection.held();
            self.unwritten -= slot.output.left;
            self.connections -= 1;
        }
        slot.disconnect();
    }

    /// Drops connections that were not opened or closed in time.
    pub(super) fn overdue(&mut self) {
        let now = self.timeline.clock.now();
        while let Some((at, number, serial)) = self.opening.front().copied().filter(|(at, ..)| *at <= now) {
            self.opening.pop_front();
            let slot = &self.slots[number as usize];
            if at <= now && slot.serial == serial && slot.connection.is_some() && !slot.output.open {
                self.ended(number, End::Unreachable, None);
            }
        }
        while let Some((_, number, serial)) = self.closing.front().copied().filter(|(at, ..)| *at <= now) {
            self.closing.pop_front();
            if self.slots[number as usize].serial == serial {
                self.ended(number, End::Dropped, None);
            }
        }
    }
}

/// Whether this machine has run out of descriptors, ports or memory.
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
