//! The history of a conversation: frames, and changes of connections.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::milliseconds;

/// Words with which hubs refuse clients that ask for too much.
const WORDS_OF_LIMITS: [&str; 11] = [
    "rate limit",
    "rate_limit",
    "ratelimit",
    "limit exceeded",
    "limit reached",
    "too many",
    "too fast",
    "busy",
    "overload",
    "quota",
    "throttl",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum HistoryDirection {
    Sent,
    Received,
    /// Neither sent nor received: the connection opened or ended.
    Neither,
}

/// What a line of the history is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameKind {
    Open,
    /// The server refused the upgrade.
    Refused,
    /// The server does not speak WebSocket, or did not answer.
    #[serde(rename = "no upgrade")]
    NoUpgrade,
    Unreachable,
    Text,
    Binary,
    /// Raw frames that a step lists.
    Frames,
    /// Raw bytes that a step lists.
    Bytes,
    Ping,
    Pong,
    Close,
    /// Bytes that break RFC 6455.
    #[serde(rename = "broken frame")]
    Broken,
    /// The client closed its side of the TCP connection.
    Fin,
    /// The client reset the TCP connection.
    Reset,
    /// The connection ended without a close frame.
    End,
    /// A message that the hub did not send, but that a declared deviation allows to assume.
    Assumed,
}

impl FrameKind {
    /// Returns the name that reports show.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Refused => "refused",
            Self::NoUpgrade => "no upgrade",
            Self::Unreachable => "unreachable",
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Frames => "frames",
            Self::Bytes => "bytes",
            Self::Ping => "ping",
            Self::Pong => "pong",
            Self::Close => "close",
            Self::Broken => "broken frame",
            Self::Fin => "fin",
            Self::Reset => "reset",
            Self::End => "end",
            Self::Assumed => "assumed",
        }
    }

    /// Whether it is a whole message that the codec assembled.
    pub fn is_message(self) -> bool {
        matches!(self, Self::Text | Self::Binary)
    }
}

/// A call of a hook, with what it passed to the hub: JSON texts, with secrets masked.
#[derive(Clone, Debug, PartialEq)]
pub struct HookCallReport {
    /// How many frames were recorded before the call.
    pub after: usize,
    pub args: String,
    pub message: Option<String>,
}

/// A line of the history: a frame that was sent or received, or a change of a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FrameReport {
    /// The time since the scenario began.
    #[serde(rename = "at_ms", with = "milliseconds")]
    #[cfg_attr(test, schemars(with = "f64"))]
    pub at: Duration,
    pub actor: String,
    pub connection: u32,
    pub direction: HistoryDirection,
    /// open, refused, no upgrade, unreachable, text, binary, frames, bytes, ping, pong, close, broken frame, fin, reset,
    /// end, assumed.
    #[cfg_attr(test, schemars(with = "String"))]
    pub kind: FrameKind,
    /// The payload, shortened, with secrets masked.
    pub text: String,
    /// The size of the whole payload in bytes.
    pub size: usize,
    /// The first twelve digits of the SHA-256 of the whole payload, if it was shortened.
    pub hash: Option<String>,
    /// The HTTP status with which a connection was refused.
    #[serde(skip)]
    pub status: Option<u16>,
}

impl FrameReport {
    /// Whether this frame seems to turn a client away for asking too much.
    pub fn names_a_limit(&self) -> bool {
        if self.direction != HistoryDirection::Received {
            return false;
        }
        match self.kind {
            FrameKind::Close => self.text.starts_with("1008") || self.text.starts_with("1013"),
            FrameKind::Text => {
                // JSON may spell any letter as an escape.
                let plain = serde_json::from_str::<Value>(&self.text).map(|json| json.to_string());
                let text = plain.unwrap_or_else(|_| self.text.clone()).to_lowercase();
                WORDS_OF_LIMITS.iter().any(|word| text.contains(word))
            }
            _ => false,
        }
    }

    /// Whether a connection was not established, or refused for the number of clients rather than for this one.
    pub fn is_lack_of_capacity(&self) -> bool {
        const TOO_MANY_REQUESTS: u16 = 429;
        self.kind == FrameKind::NoUpgrade || self.is_server_error() || self.status == Some(TOO_MANY_REQUESTS)
    }

    /// Whether a connection was refused with HTTP 5xx, by the hub or by a proxy in front of it.
    pub fn is_server_error(&self) -> bool {
        matches!(self.status, Some(500..600))
    }
}
