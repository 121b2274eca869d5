//! The client of document 003: base requests, which are answered once, and extended ones, whose replies repeat their
//! session id.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::json;

use super::{ClientInput, ClientMachine, ClientOutput, ClientSetup, NoSettings, ReceivedMessage, send};
use crate::machine::settings::SettingsError;

pub const PROTOCOL: &str = "qi";
pub const WORDS: &[&str] = &["request", "session", "two-sessions"];

/// The version of the message format.
const VERSION: &str = "0.1.0";

pub fn build(setup: ClientSetup) -> Result<Box<dyn ClientMachine>, SettingsError> {
    let _: NoSettings = setup.settings.deserialize(PROTOCOL)?;
    let steps = setup.does.clone().into();
    Ok(Box::new(QiClient { setup, steps, base: false, sessions: Vec::new(), opened: false }))
}

struct QiClient {
    setup: ClientSetup,
    /// The words still to be done.
    steps: VecDeque<String>,
    /// Whether a base request is outstanding.
    base: bool,
    /// The sessions of outstanding extended requests.
    sessions: Vec<String>,
    opened: bool,
}

impl ClientMachine for QiClient {
    fn connect(&self) -> ClientOutput {
        ClientOutput::Connect { url: self.setup.url.clone(), subprotocol: None }
    }

    fn handle(&mut self, _now: Duration, input: ClientInput<'_>, out: &mut Vec<ClientOutput>) {
        match input {
            ClientInput::Opened => self.opened = true,
            ClientInput::Text(text) => self.receive(&ReceivedMessage::read(text), out),
            _ => return,
        }
        if !self.base && self.sessions.is_empty() {
            self.begin_next_step(out);
        }
    }

    fn is_done(&self) -> bool {
        self.opened && self.steps.is_empty() && !self.base && self.sessions.is_empty()
    }
}

impl QiClient {
    fn begin_next_step(&mut self, out: &mut Vec<ClientOutput>) {
        let requests = match self.steps.pop_front().as_deref() {
            Some("request") => {
                self.base = true;
                out.push(send(&json!({ "command": "get_static", "version": VERSION })));
                return;
            }
            Some("session") => 1,
            Some(_) => 2,
            None => return,
        };
        for _ in 0..requests {
            let id = match self.sessions.first() {
                Some(first) if self.setup.is_broken("session-reused") => first.clone(),
                _ => self.setup.next_uuid(),
            };
            out.push(send(
                &json!({ "session_id": id, "command": "execute", "payload": { "job": "demo" }, "version": VERSION }),
            ));
            self.sessions.push(id);
        }
    }

    /// Finds the request that a reply answers (lines 37 and 78). Published messages have no status.
    fn receive(&mut self, message: &ReceivedMessage<'_>, out: &mut Vec<ClientOutput>) {
        if !matches!(message.text("status").as_str(), "success" | "failure") {
            return;
        }
        match message.get::<String>("session_id") {
            None => self.base = false,
            Some(id) => {
                if let Some(index) = self.sessions.iter().position(|session| *session == id) {
                    if index > 0 && self.setup.is_broken("replies-in-order") {
                        out.push(ClientOutput::Die);
                    }
                    self.sessions.swap_remove(index);
                }
            }
        }
    }
}
