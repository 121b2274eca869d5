//! Opens, reads, writes and ends the connections of a shard.

use std::io;

use super::super::connection::{LoadConnection, ReadResult, SocketEvent};
use super::super::frames;
use super::super::stream::ClientStream;
use super::{
    CLOSING_TIMEOUT, CONNECT_TIMEOUT, MAX_DIALS_PER_TURN, MAX_INCOMPLETE_BYTES, MAX_SHARD_UNWRITTEN,
    MAX_UNWRITTEN_FOR_PONGS, Shard, ShardParts, handle_input,
};
use crate::load::client::io::{ClientEvent, Disconnection};
use crate::load::provenance::DeliveredFrame;
use crate::websocket::dial::Dial;
use crate::websocket::handshake;

impl Shard {
    /// Opens requested connections.
    pub(super) fn open_requested(&mut self) {
        for _ in 0..MAX_DIALS_PER_TURN {
            let Some((number, dial)) = self.parts.context.dials.pop_front() else { return };
            if let Err((end, detail)) = self.connect(number, &dial) {
                self.report_end(number, end, detail);
            }
        }
    }

    pub(super) fn connect(&mut self, number: u32, dial: &Dial) -> Result<(), (Disconnection, String)> {
        self.disconnect(number);
        let ShardParts { endpoint, dialer, tls, poll, .. } = &mut self.parts;
        let from = dial.from.as_deref().map(str::parse).transpose();
        let from = from.map_err(|_| (Disconnection::Internal, "invalid local address".to_owned()))?;
        let tcp = dialer.connect(from).map_err(|error| {
            let end = if is_resource_error(&error) { Disconnection::Resources } else { Disconnection::Unreachable };
            (end, error.to_string())
        })?;
        let stream = ClientStream::new(tcp, tls.as_ref());
        let mut stream = stream.map_err(|error| (Disconnection::Tls, error.to_string()))?;
        let registered = stream.register(poll.registry(), number);
        registered.map_err(|error| (Disconnection::Resources, error.to_string()))?;
        let fresh = handshake::generate_key();
        let key = dial.key(&fresh);
        // A shard connects to one host only.
        let address = dial.address(endpoint).ok().filter(|address| address.authority() == endpoint.authority());
        let address = address.ok_or((Disconnection::Internal, "an address of another host".to_owned()))?;
        let request = dial.request(&address, key);
        let slot = &mut self.slots[number as usize];
        slot.output.out = request.map_err(|error| (Disconnection::Internal, error.to_string()))?;
        slot.connection = Some(Box::new(LoadConnection::new(stream, key.to_owned(), dial.subprotocols.clone())));
        self.connections += 1;
        self.opening.push_back((self.timeline.clock.now() + CONNECT_TIMEOUT, number, slot.serial));
        Ok(())
    }

    /// Handles an event of a socket.
    pub(super) fn handle_socket_event(&mut self, number: u32, to_the_end: bool) {
        let connected = self.slots.get(number as usize).is_some_and(|slot| slot.connection.is_some());
        if connected && self.read_connection(number, to_the_end) {
            self.hot.push_back(number);
        }
    }

    /// Continues reads that were cut short to let other connections have their turn; returns whether any are left.
    pub(super) fn continue_reads(&mut self) -> bool {
        for _ in 0..self.hot.len() {
            let Some(number) = self.hot.pop_front() else { break };
            if self.slots[number as usize].connection.is_some() && self.read_connection(number, true) {
                self.hot.push_back(number);
            }
        }
        !self.hot.is_empty()
    }

    /// Reads a connection and writes the resulting frames; returns whether more may be available.
    pub(super) fn read_connection(&mut self, number: u32, to_the_end: bool) -> bool {
        self.flush_last();
        let timeline = &self.timeline;
        let ShardParts { context, prepared, sampler, .. } = &mut self.parts;
        let slot = &mut self.slots[number as usize];
        let Some(mut connection) = slot.connection.take() else { return false };
        let held = connection.buffered_bytes();
        let (mut closed, was_closing) = (None, slot.output.closing);
        let result = connection.read(&mut self.scratch, to_the_end, &mut |piece| {
            let now = timeline.clock.now();
            match piece {
                SocketEvent::Opened => {
                    slot.output.open = true;
                    handle_input(slot, number, context, prepared, now, ClientEvent::Opened);
                }
                SocketEvent::Message(bytes) => {
                    context.classified = None;
                    slot.keep_received(bytes);
                    let documented = context
                        .translation
                        .as_mut()
                        .and_then(|translation| translation.translate_received(number, bytes, now));
                    let frame = documented.as_ref().map_or(DeliveredFrame::observed(bytes), |text| text.frame());
                    handle_input(slot, number, context, prepared, now, ClientEvent::Frame(frame));
                    sampler.offer(context.classified, frame.text);
                }
                // While a hub sends pings and does not read, only the latest that fit are answered (RFC 6455, section
                // 5.5.3).
                SocketEvent::Ping(_) if slot.output.out.len() > MAX_UNWRITTEN_FOR_PONGS => {}
                SocketEvent::Ping(bytes) => {
                    frames::append_frame(&mut slot.output.out, frames::PONG, &mut context.masks, |out| {
                        out.extend_from_slice(bytes)
                    });
                }
                SocketEvent::Close(code, reason) => {
                    if !slot.output.closing {
                        frames::append_frame(&mut slot.output.out, frames::CLOSE, &mut context.masks, |out| {
                            // 1005 stands for "no code" and must not be sent.
                            if code != 1005 {
                                out.extend_from_slice(&code.to_be_bytes());
                            }
                        });
                    }
                    closed = Some((code, String::from_utf8_lossy(reason).into_owned()));
                }
            }
        });
        self.held = self.held + connection.buffered_bytes() - held;
        slot.connection = Some(connection);
        if slot.output.closing && !was_closing {
            self.closing.push_back((timeline.clock.now() + CLOSING_TIMEOUT, number, slot.serial));
        }
        match (closed, result) {
            (Some((code, reason)), _) => {
                let _ = self.write_connection(number);
                self.handle_end(number, Disconnection::Close(code), reason);
                false
            }
            (None, ReadResult::Ended(end, detail)) => {
                self.handle_end(number, end, detail);
                false
            }
            (None, _) if self.held > MAX_INCOMPLETE_BYTES => {
                let detail = "too many incomplete messages".to_owned();
                self.handle_end(number, Disconnection::Violation, detail);
                false
            }
            (None, result) => {
                self.flush(number);
                result == ReadResult::Some
            }
        }
    }

    /// Writes as much as the socket takes.
    ///
    /// # Errors
    /// The connection must end: an error of the system, or too many unwritten bytes.
    pub(super) fn write_connection(&mut self, number: u32) -> io::Result<()> {
        let slot = &mut self.slots[number as usize];
        let before = slot.output.left;
        let written = slot.flush();
        self.unwritten = self.unwritten - before + slot.output.left;
        // A connection without unwritten bytes is not at fault.
        let too_much = slot.output.left > 0 && self.unwritten > MAX_SHARD_UNWRITTEN;
        if too_much { written.and(Err(io::ErrorKind::StorageFull.into())) } else { written }
    }

    /// Handles a write error: the hub's last data may explain why it ended the connection.
    pub(super) fn handle_write_error(&mut self, number: u32, error: &io::Error) {
        let slot = &mut self.slots[number as usize];
        if error.kind() != io::ErrorKind::StorageFull && !std::mem::replace(&mut slot.output.broken, true) {
            self.read_connection(number, true);
        }
        if let Some(connection) = &self.slots[number as usize].connection {
            let (end, detail) = connection.ending(Some(error));
            self.handle_end(number, end, detail);
        }
    }

    /// Handles the end of a connection.
    pub(super) fn handle_end(&mut self, number: u32, end: Disconnection, detail: String) {
        let slot = &mut self.slots[number as usize];
        if slot.connection.is_none() {
            return;
        }
        self.disconnect(number);
        self.report_end(number, end, detail);
    }

    fn report_end(&mut self, number: u32, end: Disconnection, detail: String) {
        self.parts.context.ending = detail;
        self.handle_event(number, ClientEvent::Closed(end));
        self.parts.context.ending = String::new();
    }

    /// Drops a connection and its buffers.
    pub(super) fn disconnect(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        if let Some(connection) = &slot.connection {
            self.held -= connection.buffered_bytes();
            self.unwritten -= slot.output.left;
            self.connections -= 1;
        }
        slot.disconnect();
    }

    /// Drops connections that were not opened or closed in time.
    pub(super) fn drop_overdue(&mut self) {
        let now = self.timeline.clock.now();
        while let Some((_, number, serial)) = self.opening.front().copied().filter(|(at, ..)| *at <= now) {
            self.opening.pop_front();
            let slot = &self.slots[number as usize];
            let connection = slot.connection.as_ref().filter(|_| slot.serial == serial && !slot.output.open);
            if let Some(connection) = connection {
                let timeout = io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
                let (end, detail) = connection.ending(Some(&timeout));
                self.handle_end(number, end, detail);
            }
        }
        while let Some((_, number, serial)) = self.closing.front().copied().filter(|(at, ..)| *at <= now) {
            self.closing.pop_front();
            if self.slots[number as usize].serial == serial {
                self.handle_end(number, Disconnection::Dropped, String::new());
            }
        }
    }
}

/// Whether this machine has run out of descriptors, ports or memory.
fn is_resource_error(error: &io::Error) -> bool {
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
