//! The addresses at which the recorded clients connected: each different one is a channel of the draft.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::connection::to_identifier;
use super::super::document::unique_name;
use crate::websocket::endpoint::{decode_query_part, split_query};

/// Maximum number of channels. Connections to other addresses are assigned to the first channel.
const MAX_CHANNELS: usize = 32;
/// Maximum length of a channel's name, in bytes.
const MAX_NAME: usize = 40;

/// The channels of a recording, and the connections that belong to them.
#[derive(Default)]
pub struct RecordedConnections {
    /// The channel of each connection, by the number of the connection.
    channel_of: BTreeMap<u64, usize>,
    channels: Vec<RecordedChannel>,
}

pub struct RecordedChannel {
    pub name: String,
    /// Path and query.
    target: String,
    subprotocols: Vec<String>,
}

impl RecordedConnections {
    /// Adds a connection.
    pub fn add(&mut self, connection: u64, target: &str, subprotocols: Vec<String>) {
        let same = |known: &RecordedChannel| known.target == target && known.subprotocols == subprotocols;
        let index = match self.channels.iter().position(same) {
            Some(index) => index,
            None if self.channels.len() < MAX_CHANNELS => {
                let path = split_query(target).0.trim_matches('/');
                let mut name = if path.is_empty() { "hub".to_owned() } else { to_identifier(path) };
                // The number of a unique name must not be cut off.
                name.truncate(MAX_NAME);
                let name = unique_name(&name, '_', |name| self.channels.iter().any(|known| known.name == name));
                self.channels.push(RecordedChannel { name, target: target.to_owned(), subprotocols });
                self.channels.len() - 1
            }
            None => 0,
        };
        self.channel_of.insert(connection, index);
    }

    /// Adds a channel without a path, if the recording does not show any connection being opened.
    pub fn complete(&mut self) {
        if self.channels.is_empty() {
            let (name, target) = ("hub".to_owned(), "/".to_owned());
            self.channels.push(RecordedChannel { name, target, subprotocols: Vec::new() });
        }
    }

    /// Returns the channels; there is always one.
    pub fn channels(&self) -> &[RecordedChannel] {
        &self.channels
    }

    /// Returns the name of a connection's channel.
    pub fn channel_name(&self, connection: u64) -> &str {
        &self.channels[self.channel_of.get(&connection).copied().unwrap_or(0)].name
    }

    /// Returns the role of the client of a connection.
    pub fn role(&self, connection: u64) -> String {
        if self.channels.len() == 1 { "client".to_owned() } else { format!("on_{}", self.channel_name(connection)) }
    }
}

impl RecordedChannel {
    /// Returns the channel as an AsyncAPI document declares it.
    pub fn declaration(&self, messages: &Map<String, Value>) -> Value {
        let (path, query) = split_query(&self.target);
        let (mut constant, mut settings) = (Vec::new(), Map::new());
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=').map(|(name, value)| (decode_query_part(name), decode_query_part(value))) {
                Some((name, value)) if !settings.contains_key(&name) => {
                    settings.insert(name, json!({ "type": "string", "default": value }));
                }
                _ => constant.push(part),
            }
        }
        // Braces would be parameters of the address.
        let braces = |text: &str| text.replace('{', "%7B").replace('}', "%7D");
        let path = if path.is_empty() { "/" } else { path };
        let constant = constant.join("&");
        let address = if constant.is_empty() { braces(path) } else { braces(&format!("{path}?{constant}")) };
        let mut declared = Map::from_iter([
            ("address".to_owned(), json!(address)),
            ("messages".to_owned(), Value::Object(messages.clone())),
        ]);
        let mut binding = Map::new();
        let mut bind = |kind: &str, members: Map<String, Value>| {
            let required: Vec<&String> = members.keys().collect();
            let schema = json!({ "type": "object", "required": required, "properties": members });
            binding.insert(kind.to_owned(), schema);
        };
        if !settings.is_empty() {
            bind("query", settings);
        }
        if !self.subprotocols.is_empty() {
            let header = json!({ "type": "string", "default": self.subprotocols.join(", ") });
            bind("headers", Map::from_iter([("Sec-WebSocket-Protocol".to_owned(), header)]));
        }
        if !binding.is_empty() {
            declared.insert("bindings".to_owned(), json!({ "ws": binding }));
        }
        Value::Object(declared)
    }
}
