//! The first messages of a connection, kept for the checks of `always` that are about all of them.

use serde_json::Value;

use crate::interpreter::ObservedMessage;
use crate::interpreter::decode::memory_weight;
use crate::redact::MASK;

/// The most messages of a connection that are kept, and the most memory that they take.
const MAX_MESSAGES: usize = 1_000;
const MAX_BYTES: usize = 256 << 10;

/// The messages of a connection from its beginning.
#[derive(Default)]
pub struct KeptMessages {
    messages: Vec<ObservedMessage>,
    bytes: usize,
    /// Whether no more messages are kept.
    is_over: bool,
}

impl KeptMessages {
    /// Keeps a message with this text.
    pub fn keep(&mut self, by_client: bool, json: &Value, message: Option<usize>, text: &str) {
        // What was masked may be equal to something else, or not.
        if by_client && text.contains(MASK) {
            self.give_up();
        }
        if !self.is_over {
            self.bytes += memory_weight(text);
            self.messages.push(ObservedMessage { by_client, json: json.clone(), message });
        }
    }

    /// Whether there is no room for further messages.
    pub fn is_full(&self) -> bool {
        self.messages.len() >= MAX_MESSAGES || self.bytes > MAX_BYTES
    }

    /// Drops all messages: not all that came before is known.
    pub fn give_up(&mut self) {
        drop(self.take());
    }

    /// Returns the messages so far; there are no further ones.
    pub fn take(&mut self) -> Vec<ObservedMessage> {
        self.is_over = true;
        self.bytes = 0;
        std::mem::take(&mut self.messages)
    }

    /// Returns the memory that the messages take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
