//! Requests that stay outstanding until the admin side releases their command.

use std::collections::BTreeSet;

use crate::fault::MachineFault;
use crate::machine::json::{optional_member, split_members};
use crate::machine::{ConnectionId, Utf8Bytes};

/// The largest number of held requests; further ones are answered at once.
const MAX_HELD: usize = 1000;

#[derive(Default)]
pub struct HeldRequests {
    commands: BTreeSet<String>,
    requests: Vec<HeldRequest>,
}

struct HeldRequest {
    conn: ConnectionId,
    command: String,
    text: Utf8Bytes,
}

impl HeldRequests {
    /// Holds requests for a command from now on.
    pub fn hold(&mut self, command: String) {
        self.commands.insert(command);
    }

    /// Keeps a request if its command is held.
    pub fn keep(&mut self, conn: ConnectionId, text: &Utf8Bytes, broken: MachineFault) -> bool {
        if self.commands.is_empty() || self.requests.len() >= MAX_HELD {
            return false;
        }
        let Some(command) = text_member(text, "command").filter(|command| self.commands.contains(command)) else {
            return false;
        };
        if broken.is("qi-held-fifth-evicts-first") && self.requests.len() == 4 {
            self.requests.remove(0);
        }
        self.requests.push(HeldRequest { conn, command, text: text.clone() });
        true
    }

    /// No longer holds a command, and returns the requests for it, oldest first.
    pub fn release(&mut self, command: &str) -> Vec<(ConnectionId, Utf8Bytes)> {
        self.commands.remove(command);
        let released = self.requests.extract_if(.., |request| request.command == command);
        released.map(|request| (request.conn, request.text)).collect()
    }

    /// Drops the requests of a connection that has ended; returns whether there were any.
    pub fn forget(&mut self, conn: ConnectionId) -> bool {
        self.requests.extract_if(.., |request| request.conn == conn).count() > 0
    }

    /// For a fault: the connections of all requests.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        self.requests.iter().map(|request| request.conn)
    }

    /// For a fault: the session of the first request of a connection that has one.
    pub fn first_session(&self, conn: ConnectionId) -> Option<String> {
        let mut own = self.requests.iter().filter(|request| request.conn == conn);
        own.find_map(|request| text_member(&request.text, "session_id"))
    }

    pub fn count(&self) -> usize {
        self.requests.len()
    }
}

fn text_member(text: &str, name: &str) -> Option<String> {
    optional_member(&split_members(text).ok()?, name).ok().flatten()
}
