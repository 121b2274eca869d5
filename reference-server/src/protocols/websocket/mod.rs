//! A hub that is nothing but WebSocket (RFC 6455): it greets nobody, answers control frames and lets everything else go.
//!
//! The other protocols leave upgrades and frames to libraries, which cannot be made to break RFC 6455 on purpose. Here
//! both are our own: [`Session`] takes the bytes of one connection and gives those that answer them, without sockets, so
//! that every fault below messages can be had, over TCP or in a loop.

mod frame;
mod handshake;
mod session;
#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::fault::Broken;
use crate::machine::settings::{Settings, SettingsError};
use crate::machine::{EventError, Input, Machine, Output};

pub use session::Session;

/// Its name.
pub const PROTOCOL: &str = "websocket";

/// There is nothing to configure.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

pub(crate) fn build(settings: &Settings, _broken: Broken) -> Result<Box<dyn Machine>, SettingsError> {
    let Nothing {} = settings.read(PROTOCOL)?;
    Ok(Box::new(Idle))
}

/// The machine of this hub has nothing to do: whatever happens, happens below messages.
struct Idle;

impl Machine for Idle {
    fn handle(&mut self, _now: Duration, _input: Input, _out: &mut Vec<Output>) {}

    fn deadline(&self) -> Option<Duration> {
        None
    }

    fn state(&self) -> Value {
        json!({})
    }

    fn event(&mut self, _now: Duration, _event: &Value, _out: &mut Vec<Output>) -> Result<Value, EventError> {
        Err(EventError::Unsupported(PROTOCOL))
    }
}
