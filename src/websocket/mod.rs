//! RFC 6455 on bytes, without sockets: addresses, frames, their encoding, the opening handshake.

pub mod codec;
pub mod dial;
pub mod endpoint;
pub mod frame;
pub mod handshake;
