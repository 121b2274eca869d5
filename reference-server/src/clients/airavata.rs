//! The client of document 001: it connects with its token, subscribes, answers pings, and connects again after a loss.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::reconnection::{Reconnection, seconds};
use super::{ClientInput, ClientMachine, ClientOutput, ClientSetup, ReceivedMessage, send};
use crate::machine::settings::SettingsError;

pub const PROTOCOL: &str = "airavata";
pub const WORDS: &[&str] = &["subscribe", "unsubscribe", "ping"];

/// `{"sub":"u"}`, signed with the default key of the reference hub.
const TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1In0.V8IrrCE9HOkpwVnOwn0mXzCTwpZge3ca3FL2B7kI0yI";

pub fn build(setup: ClientSetup) -> Result<Box<dyn ClientMachine>, SettingsError> {
    let settings: AiravataSettings = setup.settings.deserialize(PROTOCOL)?;
    let attempts = if setup.is_broken("reconnects-for-ever") { u32::MAX } else { settings.attempts };
    let attempts = if setup.is_broken("never-reconnects") { 0 } else { attempts };
    let delay = if setup.is_broken("reconnects-at-once") { Duration::ZERO } else { settings.reconnect };
    Ok(Box::new(AiravataClient {
        subscribes: setup.does("subscribe") || setup.does("unsubscribe"),
        unsubscribes: setup.does("unsubscribe"),
        pings: setup.does("ping"),
        reconnection: Reconnection::new(delay, attempts),
        subscribed: false,
        messages: 0,
        opened: false,
        settings,
        setup,
    }))
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AiravataSettings {
    /// The delay before the first attempt to connect again, in seconds.
    #[serde(deserialize_with = "seconds")]
    reconnect: Duration,
    /// The largest number of attempts.
    attempts: u32,
    token: String,
    /// The path, unless the URL has one.
    path: String,
}

impl Default for AiravataSettings {
    fn default() -> AiravataSettings {
        AiravataSettings {
            reconnect: Duration::from_secs(1),
            attempts: 5,
            token: TOKEN.to_owned(),
            path: "/ws/experiments/exp-123".to_owned(),
        }
    }
}

struct AiravataClient {
    setup: ClientSetup,
    settings: AiravataSettings,
    /// Whether the client wants to be subscribed, to unsubscribe once it is, and to have its ping answered.
    subscribes: bool,
    unsubscribes: bool,
    pings: bool,
    /// Whether the hub has confirmed the subscription of this connection.
    subscribed: bool,
    reconnection: Reconnection,
    /// The number of messages sent.
    messages: u64,
    opened: bool,
}

impl ClientMachine for AiravataClient {
    fn connect(&self) -> ClientOutput {
        let (scheme, rest) = self.setup.url.split_once("://").unwrap_or(("ws", &self.setup.url));
        let has_path = rest.split_once('/').is_some_and(|(_, path)| !path.is_empty());
        let path = if has_path { "" } else { &self.settings.path };
        let mut url = format!("{scheme}://{}{path}", if has_path { rest } else { rest.trim_end_matches('/') });
        if !url.contains("token=") && !self.setup.is_broken("token-missing") {
            let token = if self.setup.is_broken("token-not-jwt") { "let-me-in" } else { &self.settings.token };
            url.push_str(&format!("{}token={token}", if url.contains('?') { '&' } else { '?' }));
        }
        ClientOutput::Connect { url, subprotocol: None }
    }

    fn handle(&mut self, now: Duration, input: ClientInput<'_>, out: &mut Vec<ClientOutput>) {
        match input {
            ClientInput::Opened => {
                self.opened = true;
                self.reconnection.reset();
                if self.subscribes {
                    self.change_subscription(now, "subscribe", out);
                }
                if self.pings {
                    self.send_message(now, "ping", None, out);
                }
            }
            ClientInput::Text(text) => self.receive(now, &ReceivedMessage::read(text), out),
            ClientInput::Closed(_) => {
                self.subscribed = false;
                self.reconnection.schedule(now, Duration::ZERO);
                if self.setup.is_broken("reconnects-without-backoff") {
                    self.reconnection.reset();
                }
            }
            ClientInput::Tick if self.reconnection.take(now) => out.push(self.connect()),
            ClientInput::Tick | ClientInput::Leaving => {}
        }
    }

    fn deadline(&self) -> Option<Duration> {
        self.reconnection.due()
    }

    fn is_done(&self) -> bool {
        self.opened && self.subscribes == self.subscribed && !self.unsubscribes && !self.pings
    }
}

impl AiravataClient {
    /// Sends a message with an id of its own and the current time (lines 137 to 139).
    fn send_message(&mut self, now: Duration, kind: &str, data: Option<Value>, out: &mut Vec<ClientOutput>) {
        self.messages += 1;
        let clock = self.setup.clock;
        let id = format!("{kind}-{}-{}", clock.unix_ms(now), self.messages);
        let mut message = json!({ "type": kind, "id": id, "timestamp": clock.iso_at(now) });
        if let Some(data) = data {
            message["data"] = data;
        }
        out.push(send(&message));
    }

    fn change_subscription(&mut self, now: Duration, action: &str, out: &mut Vec<ClientOutput>) {
        let data = json!({ "action": action, "resourceType": "experiment", "resourceId": "exp-123" });
        self.send_message(now, "system_status", Some(data), out);
    }

    fn receive(&mut self, now: Duration, message: &ReceivedMessage<'_>, out: &mut Vec<ClientOutput>) {
        match message.text("type").as_str() {
            "ping" => self.send_message(now, "pong", None, out),
            "pong" => self.pings = false,
            "system_status" => {
                let data: Value = message.get("data").unwrap_or_default();
                let ours = data["resourceType"] == "experiment" && data["resourceId"] == "exp-123";
                if !ours || data["status"] != "success" {
                    return;
                }
                match data["action"].as_str() {
                    Some("subscribed") => {
                        self.subscribed = true;
                        if self.unsubscribes && self.subscribes {
                            self.subscribes = false;
                            self.change_subscription(now, "unsubscribe", out);
                        }
                    }
                    Some("unsubscribed") => {
                        self.subscribed = false;
                        self.unsubscribes = false;
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
}
