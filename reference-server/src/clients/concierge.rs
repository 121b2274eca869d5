//! The client of document 002: it identifies, then sends messages to clients by name, or owns a group.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::{ClientInput, ClientMachine, ClientOutput, ClientSetup, ReceivedMessage, send};
use crate::machine::settings::{SettingsError, secret};

pub const PROTOCOL: &str = "concierge";
pub const WORDS: &[&str] = &["message", "group"];

/// Another client has the name (line 31).
const DUPLICATE_AUTH: u16 = 4005;
/// How many names the client tries.
const MAX_NAMES: u32 = 5;

pub fn build(setup: ClientSetup) -> Result<Box<dyn ClientMachine>, SettingsError> {
    let settings = setup.settings.deserialize(PROTOCOL)?;
    let steps = setup.does.clone().into();
    Ok(Box::new(ConciergeClient { setup, settings, steps, names: 1, stage: Stage::Identifying }))
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ConciergeSettings {
    /// The client's name.
    name: String,
    /// The hub's secret, if it has one.
    #[serde(deserialize_with = "secret")]
    secret: Option<String>,
    /// The name of the client that a message is for.
    to: String,
    /// The name of its group.
    group: String,
}

impl Default for ConciergeSettings {
    fn default() -> ConciergeSettings {
        let text = str::to_owned;
        ConciergeSettings { name: text("anthony"), secret: None, to: text("brendan"), group: text("simulation1_data") }
    }
}

struct ConciergeClient {
    setup: ClientSetup,
    settings: ConciergeSettings,
    /// The words still to be done.
    steps: VecDeque<String>,
    /// How many names the client has tried, and as many names of groups.
    names: u32,
    stage: Stage,
}

/// What the client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Identifying,
    Idle,
    Sending,
    Creating,
    Subscribing,
    Deleting,
}

impl ClientMachine for ConciergeClient {
    fn connect(&self) -> ClientOutput {
        let subprotocol = (!self.setup.is_broken("no-subprotocol")).then_some("ert-concierge");
        ClientOutput::Connect { url: self.setup.url.clone(), subprotocol }
    }

    fn handle(&mut self, _now: Duration, input: ClientInput<'_>, out: &mut Vec<ClientOutput>) {
        match input {
            ClientInput::Opened => {
                self.stage = Stage::Identifying;
                let mut message = json!({ "type": "IDENTIFY", "name": self.name(), "version": "0.1.0" });
                if let Some(secret) = &self.settings.secret {
                    message["secret"] = secret.as_str().into();
                }
                out.push(send(&message));
            }
            ClientInput::Text(text) => {
                self.receive(&ReceivedMessage::read(text), out);
                if self.stage == Stage::Idle {
                    self.begin_next_step(out);
                }
            }
            ClientInput::Closed(Ok(DUPLICATE_AUTH)) if self.names < MAX_NAMES => {
                self.names += 1;
                out.push(self.connect());
            }
            _ => {}
        }
    }

    fn is_done(&self) -> bool {
        self.stage == Stage::Idle && self.steps.is_empty()
    }
}

impl ConciergeClient {
    fn name(&self) -> String {
        match self.names {
            2.. if !self.setup.is_broken("same-name-again") => format!("{}-{}", self.settings.name, self.names),
            _ => self.settings.name.clone(),
        }
    }

    fn group(&self) -> String {
        if self.names == 1 { self.settings.group.clone() } else { format!("{}-{}", self.settings.group, self.names) }
    }

    fn begin_next_step(&mut self, out: &mut Vec<ClientOutput>) {
        match self.steps.pop_front().as_deref() {
            Some("message") => {
                let target = json!({ "type": "NAME", "name": self.settings.to });
                out.push(send(&json!({ "type": "MESSAGE", "target": target, "data": { "foo": "bar" } })));
                self.stage = Stage::Sending;
            }
            Some(_) => self.create_group(out),
            None => {}
        }
    }

    fn create_group(&mut self, out: &mut Vec<ClientOutput>) {
        if self.setup.is_broken("subscribes-early") {
            self.subscribe(out);
        }
        out.push(send(&json!({ "type": "GROUP_CREATE", "name": self.group(), "nickname": "The First Simulation" })));
        self.stage = Stage::Creating;
    }

    fn subscribe(&mut self, out: &mut Vec<ClientOutput>) {
        out.push(send(&json!({ "type": "SELF_SUBSCRIBE", "name": self.group() })));
        self.stage = Stage::Subscribing;
    }

    fn receive(&mut self, message: &ReceivedMessage<'_>, out: &mut Vec<ClientOutput>) {
        // A status without a sequence number answers nothing (line 18).
        let answers = message.0.contains_key("seq");
        let own_group = message.text("name") == self.group();
        match (self.stage, message.text("type").as_str(), message.text("code").as_str()) {
            (Stage::Identifying, "HELLO", _) => self.stage = Stage::Idle,
            (Stage::Sending, "STATUS", "MESSAGE_SENT" | "NO_SUCH_NAME") if answers => self.stage = Stage::Idle,
            (Stage::Creating, "STATUS", "GROUP_CREATED") if answers && own_group => self.subscribe(out),
            // Only its owner can delete the group (line 39).
            (Stage::Creating, "STATUS", "GROUP_ALREADY_CREATED") if self.setup.is_broken("deletes-foreign-group") => {
                self.delete_group(out);
            }
            (Stage::Creating, "STATUS", "GROUP_ALREADY_CREATED") if answers && self.names < MAX_NAMES => {
                self.names += 1;
                self.create_group(out);
            }
            (Stage::Subscribing, "STATUS", "SUBSCRIBED") if answers && own_group => self.delete_group(out),
            (Stage::Deleting, "STATUS", "GROUP_DELETED") if answers && own_group => self.stage = Stage::Idle,
            _ => {}
        }
    }

    fn delete_group(&mut self, out: &mut Vec<ClientOutput>) {
        out.push(send(&json!({ "type": "GROUP_DELETE", "name": self.group() })));
        self.stage = Stage::Deleting;
    }
}
