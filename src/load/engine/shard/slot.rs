//! The slot of one client in its shard: the client, its connection, its timer.

use super::timers::SlotTimer;
use crate::load::client::VirtualClient;
use crate::load::engine::connection::LoadConnection;

/// Unwritten bytes after which a hub that does not read is disconnected.
pub const MAX_CONNECTION_UNWRITTEN: usize = 16 << 20;
/// A buffer of more bytes than this is freed once it is empty.
const MAX_KEPT_BUFFER: usize = 4 << 10;

/// Messages kept for a client that has not joined yet, and bytes kept of each.
const KEPT_MESSAGES: usize = 3;
const KEPT_MESSAGE_BYTES: usize = 200;

pub struct ClientSlot {
    pub client: VirtualClient,
    /// The index of the client's role.
    pub role: u16,
    /// Whether the client is queued among those that can take a journey.
    pub queued: bool,
    /// Whether the client has joined before.
    pub counted: bool,
    /// Whether an attempt to join has failed before the client first joined.
    pub failed: bool,
    /// The beginning of each of the latest messages, until the client joins or fails to.
    pub received: Vec<Box<[u8]>>,
    pub alarm: SlotTimer,
    pub connection: Option<Box<LoadConnection>>,
    pub output: OutgoingBytes,
    /// Counts the client's connections, so that a deadline of an earlier one can be recognised.
    pub serial: u32,
}

/// The outgoing bytes of a connection.
#[derive(Default)]
pub struct OutgoingBytes {
    pub out: Vec<u8>,
    /// Bytes left after the last write.
    pub left: usize,
    /// Whether frames may be sent.
    pub open: bool,
    /// Whether a close frame has been sent.
    pub closing: bool,
    /// Whether writing has failed.
    pub broken: bool,
}

impl ClientSlot {
    pub fn new(client: VirtualClient, role: u16) -> Self {
        Self {
            client,
            role,
            queued: false,
            counted: false,
            failed: false,
            received: Vec::new(),
            alarm: SlotTimer::default(),
            connection: None,
            output: OutgoingBytes::default(),
            serial: 0,
        }
    }

    /// Keeps a message for the report of a client that does not join.
    pub fn keep_received(&mut self, message: &[u8]) {
        if self.counted || self.failed {
            return;
        }
        if self.received.len() >= KEPT_MESSAGES {
            self.received.remove(0);
        }
        self.received.push(message[..message.len().min(KEPT_MESSAGE_BYTES)].into());
    }

    /// Writes as many bytes as the socket takes.
    ///
    /// # Errors
    /// The error that ends the connection.
    pub fn flush(&mut self) -> std::io::Result<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let mut done = 0;
        while done < self.output.out.len() {
            match connection.stream.write(&self.output.out[done..]) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(error) if is_not_ready(&error) => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.advance(done);
        self.output.left = self.output.out.len();
        if self.output.out.len() > MAX_CONNECTION_UNWRITTEN {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        connection.stream.flush()
    }

    /// Drops the connection.
    pub fn disconnect(&mut self) {
        self.connection = None;
        self.output = OutgoingBytes::default();
        self.serial = self.serial.wrapping_add(1);
    }
}

/// Whether the connection is just not ready yet: some systems use an error code of their own while connecting.
pub fn is_not_ready(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::NotConnected)
}

impl OutgoingBytes {
    fn advance(&mut self, count: usize) {
        if count < self.out.len() {
            self.out.drain(..count);
        } else if self.out.capacity() > MAX_KEPT_BUFFER {
            self.out = Vec::new();
        } else {
            self.out.clear();
        }
    }
}
