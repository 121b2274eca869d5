//! Whether and when a hub answered on any connection of a conversation.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::websocket::frame::{ConnectionEvent, NO_ANSWER};

#[derive(Default)]
pub struct HubContact {
    /// Whether the hub accepted a connection.
    connected: bool,
    /// Whether the hub answered by refusing or ending a connection.
    ended: bool,
    pub last_received: Option<Duration>,
    /// The latest time at which a connection received its first frame.
    pub last_greeted: Option<Duration>,
    /// The connections that have received a frame.
    greeted: BTreeSet<u32>,
}

impl HubContact {
    pub fn add(&mut self, connection: u32, what: &ConnectionEvent, now: Duration) {
        match what {
            ConnectionEvent::Upgraded { .. } => self.connected = true,
            ConnectionEvent::NoUpgrade { reason, .. } if reason.starts_with(NO_ANSWER) => self.connected = true,
            ConnectionEvent::NoUpgrade { .. }
            | ConnectionEvent::Refused { .. }
            | ConnectionEvent::Unreachable { .. }
            | ConnectionEvent::Violation { .. }
            | ConnectionEvent::End { .. } => self.ended = true,
            ConnectionEvent::Message(_)
            | ConnectionEvent::Ping(_)
            | ConnectionEvent::Pong(_)
            | ConnectionEvent::Close { .. } => {
                self.last_received = Some(now);
                if self.greeted.insert(connection) {
                    self.last_greeted = self.last_received;
                }
            }
        }
    }

    /// Whether the hub accepted a connection and then sent nothing.
    pub fn is_silent(&self) -> bool {
        self.connected && !self.ended && self.last_received.is_none()
    }
}
