//! The place of one client in its shard: the client itself, its connection, its alarm.

use super::timers::Alarm;
use crate::load::client::Client;
use crate::load::engine::connection::Connection;

/// Bytes that may wait for a hub that does not read, before we give it up.
pub const UNWRITTEN: usize = 16 << 20;
/// A buffer that has been larger is given back once it is empty.
const KEPT: usize = 4 << 10;

pub struct ClientSlot {
    pub client: Client,
    /// Its place among the roles.
    pub role: u16,
    /// It stands in the queue of those that have room for a journey.
    pub queued: bool,
    /// It has joined before.
    pub counted: bool,
    pub alarm: Alarm,
    pub wire: Option<Box<Connection>>,
    pub line: Line,
    /// Counts its connections, so that a deadline of an earlier one is known as such.
    pub serial: u32,
}

/// What goes out on a connection.
#[derive(Default)]
pub struct Line {
    pub out: Vec<u8>,
    /// How much of it was left when it was last written.
    pub left: usize,
    /// Frames may be sent.
    pub open: bool,
    /// We have said goodbye.
    pub closing: bool,
}

impl ClientSlot {
    pub fn new(client: Client, role: u16) -> Self {
        Self {
            client,
            role,
            queued: false,
            counted: false,
            alarm: Alarm::default(),
            wire: None,
            line: Line::default(),
            serial: 0,
        }
    }

    /// Writes as much as goes.
    ///
    /// # Errors
    /// What ends the connection.
    pub fn flush(&mut self) -> std::io::Result<()> {
        let Some(wire) = &mut self.wire else { return Ok(()) };
        let mut done = 0;
        while done < self.line.out.len() {
            match wire.stream.write(&self.line.out[done..]) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(error) if is_not_now(&error) => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.line.written(done);
        self.line.left = self.line.out.len();
        if self.line.out.len() > UNWRITTEN {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        wire.stream.flush()
    }

    /// The connection is no more.
    pub fn hang_up(&mut self) {
        self.wire = None;
        self.line = Line::default();
        self.serial = self.serial.wrapping_add(1);
    }
}

/// Nothing is wrong, it is only too early: some systems have a word of their own for a connection that is on its way.
pub fn is_not_now(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::NotConnected)
}

impl Line {
    fn written(&mut self, count: usize) {
        if count < self.out.len() {
            self.out.drain(..count);
        } else if self.out.capacity() > KEPT {
            self.out = Vec::new();
        } else {
            self.out.clear();
        }
    }
}
