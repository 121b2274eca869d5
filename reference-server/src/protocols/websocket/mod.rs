//! A hub that speaks only WebSocket (RFC 6455): it answers control frames and ignores messages.
//!
//! For the other protocols, libraries handle upgrades and frames and cannot be made to break RFC 6455. Here [`Session`]
//! does both: it takes the bytes of one connection and returns the bytes of the answer, without sockets, so that faults
//! of upgrades and frames are possible, over TCP or within a process.

mod frame;
mod handshake;
mod session;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::fault::MachineFault;
use crate::machine::settings::{Settings, SettingsError};
use crate::machine::{Machine, MachineInput, MachineOutput};

pub use session::Session;

/// The protocol's name.
pub const PROTOCOL: &str = "websocket";

/// The settings: this hub has none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoSettings {}

pub(crate) fn build(settings: &Settings, _broken: MachineFault) -> Result<Box<dyn Machine>, SettingsError> {
    let NoSettings {} = settings.deserialize(PROTOCOL)?;
    Ok(Box::new(IdleMachine))
}

/// A machine that does nothing: [`Session`] handles the connections of this hub.
struct IdleMachine;

impl Machine for IdleMachine {
    fn handle(&mut self, _now: Duration, _input: MachineInput, _out: &mut Vec<MachineOutput>) {}

    fn state(&self) -> Value {
        json!({})
    }
}
