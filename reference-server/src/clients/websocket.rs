//! A client that is WebSocket only: it returns each text.

use std::time::Duration;

use super::fault::ANY_PROTOCOL;
use super::{ClientInput, ClientMachine, ClientOutput, ClientSetup, NoSettings};
use crate::machine::settings::SettingsError;

pub const PROTOCOL: &str = ANY_PROTOCOL;
pub const WORDS: &[&str] = &[];

pub fn build(setup: ClientSetup) -> Result<Box<dyn ClientMachine>, SettingsError> {
    let _: NoSettings = setup.settings.deserialize(PROTOCOL)?;
    Ok(Box::new(WebSocketClient { setup, opened: false }))
}

struct WebSocketClient {
    setup: ClientSetup,
    opened: bool,
}

impl ClientMachine for WebSocketClient {
    fn connect(&self) -> ClientOutput {
        ClientOutput::Connect { url: self.setup.url.clone(), subprotocol: None }
    }

    fn handle(&mut self, _now: Duration, input: ClientInput<'_>, out: &mut Vec<ClientOutput>) {
        match input {
            ClientInput::Opened => self.opened = true,
            ClientInput::Text(text) => out.push(ClientOutput::Text(text.to_owned())),
            _ => {}
        }
    }

    fn is_done(&self) -> bool {
        self.opened
    }
}
