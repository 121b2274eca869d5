//! Sockets: listeners, one task per connection around one machine, the admin side, the command line.

pub mod admin;
pub mod args;
mod connection;
mod hub;
mod outbox;
pub(crate) mod serve;
mod shutdown_signal;
pub mod tls;
pub(crate) mod websocket_io;
