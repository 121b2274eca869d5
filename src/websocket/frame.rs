//! Frames and the events of a connection as plain data. The codec fills these types, the interpreter reads them, and
//! tests build them by hand, without a network.

use std::fmt;

/// The number of a connection within a run, assigned by the code that opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u32);

/// The opcode of a WebSocket frame (RFC 6455, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
    /// 3 to 7 and 11 to 15: a hub must never send one; a scenario may.
    Reserved(u8),
}

impl Opcode {
    pub fn from_bits(bits: u8) -> Self {
        match bits & 0x0f {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            other => Self::Reserved(other),
        }
    }

    pub fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
            Self::Reserved(bits) => bits & 0x0f,
        }
    }

    pub fn is_control(self) -> bool {
        self.bits() & 0x08 != 0
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Continuation => f.write_str("continuation"),
            Self::Text => f.write_str("text"),
            Self::Binary => f.write_str("binary"),
            Self::Close => f.write_str("close"),
            Self::Ping => f.write_str("ping"),
            Self::Pong => f.write_str("pong"),
            Self::Reserved(bits) => write!(f, "reserved {bits:#x}"),
        }
    }
}

/// A WebSocket frame with its payload unmasked, including the header bits that libraries hide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    /// The three reserved bits, 0 to 7.
    pub rsv: u8,
    pub opcode: Opcode,
    /// Whether the frame is (or was) masked on the wire.
    pub masked: bool,
    pub payload: Vec<u8>,
}

impl Frame {
    /// A text message in one masked frame, as a client sends it.
    pub fn text(text: impl Into<Vec<u8>>) -> Self {
        Self { fin: true, rsv: 0, opcode: Opcode::Text, masked: true, payload: text.into() }
    }

    pub fn binary(bytes: impl Into<Vec<u8>>) -> Self {
        Self { opcode: Opcode::Binary, ..Self::text(bytes) }
    }

    pub fn ping(data: impl Into<Vec<u8>>) -> Self {
        Self { opcode: Opcode::Ping, ..Self::text(data) }
    }

    pub fn pong(data: impl Into<Vec<u8>>) -> Self {
        Self { opcode: Opcode::Pong, ..Self::text(data) }
    }

    /// A close frame; `None` sends one with an empty body.
    pub fn close(code: Option<u16>, reason: &str) -> Self {
        let mut payload = Vec::new();
        if let Some(code) = code {
            payload.extend_from_slice(&code.to_be_bytes());
            payload.extend_from_slice(reason.as_bytes());
        }
        Self { opcode: Opcode::Close, ..Self::text(payload) }
    }

    /// Returns the frame as a server sends it: an actor that listens must not mask (RFC 6455, section 5.1).
    pub fn unmasked(self) -> Self {
        Self { masked: false, ..self }
    }

    pub fn info(&self) -> FrameHeader {
        FrameHeader {
            fin: self.fin,
            rsv: self.rsv,
            opcode: self.opcode,
            masked: self.masked,
            size: self.payload.len() as u64,
        }
    }
}

/// A frame's header, for traces. `size` is the length of its payload in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub fin: bool,
    pub rsv: u8,
    pub opcode: Opcode,
    pub masked: bool,
    pub size: u64,
}

/// A message assembled from one or more data frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssembledMessage {
    pub binary: bool,
    /// Valid UTF-8 if the message is text: the codec reports anything else as a [`ConnectionEvent::Violation`].
    pub payload: Vec<u8>,
    /// How many frames carried the message, at least 1.
    pub frames: u32,
}

/// A command of an actor to its open connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionCommand {
    /// Writes frames unchanged, valid or not; masked only if `masked`.
    Frames(Vec<Frame>),
    /// Writes raw bytes to the stream, bypassing WebSocket framing.
    Bytes(Vec<u8>),
    /// Ends hubproof's half of the stream after everything sent so far, without a close frame.
    Fin,
    /// Resets the connection (TCP RST) after writing as much of the queue as the kernel accepts.
    Reset,
    /// Stops reading and answering pings, until `ReadAgain`.
    StopReading,
    ReadAgain,
}

/// The start of the reason of [`ConnectionEvent::NoUpgrade`] when the hub accepted the connection but sent nothing.
pub const NO_ANSWER: &str = "no answer to the upgrade";

/// An event of a connection.
///
/// The first is `Upgraded`, `Refused`, `NoUpgrade` or `Unreachable`. After `Upgraded` come any number of messages,
/// pings and pongs, at most one `Close`, at most one `Violation`, and `End` last. Nothing follows `Refused`,
/// `NoUpgrade` and `Unreachable`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// The hub answered the upgrade with 101 and a valid accept key. For a listening actor: the actor accepted the
    /// hub's upgrade, and `headers` are those of the request, preceded by one named `:path` with path and query
    /// unchanged.
    Upgraded {
        status: u16,
        headers: Vec<(String, String)>,
        subprotocol: Option<String>,
    },
    /// The hub answered with HTTP, but not with a valid upgrade; `reason` says why. `body` is cut at 4 KiB.
    Refused {
        status: u16,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
        reason: String,
    },
    /// A TCP connection was made, but the answer to the upgrade is missing or is not HTTP; or, with `bound: true`, it
    /// exceeds a limit.
    NoUpgrade {
        reason: String,
        bound: bool,
    },
    /// No connection: the address did not resolve, the port was closed, or TLS failed.
    Unreachable {
        reason: String,
    },
    Message(AssembledMessage),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// A close frame arrived; `code` is `None` if its body was empty.
    Close {
        code: Option<u16>,
        reason: String,
    },
    /// The peer violated RFC 6455 or, with `bound: true`, exceeded a limit; the connection is dropped right after.
    /// `section` is the section of RFC 6455, such as `5.4`. A listening actor gets this event first if the upgrade
    /// request was invalid.
    Violation {
        what: String,
        section: &'static str,
        bound: bool,
    },
    /// The stream has ended; nothing follows. `reset`: whether an error ended it rather than an orderly end of stream.
    End {
        reset: bool,
        reason: String,
    },
}

impl ConnectionEvent {
    /// Whether the peer's program sent something; its WebSocket library may answer pings while the program is blocked.
    pub fn is_service(&self) -> bool {
        matches!(self, Self::Upgraded { .. } | Self::Refused { .. } | Self::Message(_) | Self::Close { .. })
    }
}
