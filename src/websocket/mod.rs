//! RFC 6455 on bytes, without sockets: frames, their encoding, the opening handshake.

pub mod codec;
pub mod frame;
pub mod handshake;
