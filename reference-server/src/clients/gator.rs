//! The client of document 000: a task or tier below the hub, which sends requests up and answers those that come down.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{ClientInput, ClientMachine, ClientOutput, ClientSetup, NoSettings, ReceivedMessage, send};
use crate::machine::json::{Members, optional_member, required_member, split_members};
use crate::machine::settings::SettingsError;

pub const PROTOCOL: &str = "gator";
pub const WORDS: &[&str] = &["request", "two-requests", "log"];

/// The severities of a log entry (line 95).
const SEVERITIES: [&str; 5] = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];

pub fn build(setup: ClientSetup) -> Result<Box<dyn ClientMachine>, SettingsError> {
    let _: NoSettings = setup.settings.deserialize(PROTOCOL)?;
    Ok(Box::new(GatorClient { setup, ids: 0, outstanding: Vec::new(), opened: false }))
}

struct GatorClient {
    setup: ClientSetup,
    /// The last identifier of a request.
    ids: u64,
    /// The requests without an answer.
    outstanding: Vec<u64>,
    opened: bool,
}

/// A response; the members that it omits are `None`.
#[derive(Serialize)]
struct Response<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rsp_id: Option<&'a RawValue>,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Value>,
}

/// A request of the hub.
struct Request<'a> {
    action: String,
    posted: bool,
    payload: Members<'a>,
}

impl ClientMachine for GatorClient {
    fn connect(&self) -> ClientOutput {
        ClientOutput::Connect { url: self.setup.url.clone(), subprotocol: None }
    }

    fn handle(&mut self, now: Duration, input: ClientInput<'_>, out: &mut Vec<ClientOutput>) {
        match input {
            ClientInput::Opened => {
                self.opened = true;
                if self.setup.does("log") {
                    self.log(now, true, out);
                }
                let requests = 2 * u8::from(self.setup.does("two-requests")) + u8::from(self.setup.does("request"));
                (0..requests).for_each(|_| self.log(now, false, out));
            }
            ClientInput::Text(text) => self.receive(text, out),
            _ => {}
        }
    }

    fn is_done(&self) -> bool {
        self.opened && self.outstanding.is_empty()
    }
}

impl GatorClient {
    /// Sends a log entry (line 77), posted as recommended (line 100), or not if the client wants an answer.
    fn log(&mut self, now: Duration, posted: bool, out: &mut Vec<ClientOutput>) {
        self.ids += 1;
        if !posted {
            self.outstanding.push(self.ids);
        }
        let milliseconds = self.setup.clock.unix_ms(now);
        let timestamp =
            if self.setup.is_broken("timestamp-in-milliseconds") { milliseconds } else { milliseconds / 1000 };
        out.push(send(&json!({
            "action": "log",
            "req_id": self.ids,
            "posted": posted,
            "payload": { "timestamp": timestamp, "severity": "INFO", "message": "The task is running" },
        })));
    }

    fn receive(&mut self, text: &str, out: &mut Vec<ClientOutput>) {
        let message = ReceivedMessage::read(text);
        // A message with a result is a response, which nothing answers.
        if message.0.contains_key("result") {
            let id = message.get::<u64>("rsp_id");
            self.outstanding.retain(|outstanding| Some(*outstanding) != id);
            return;
        }
        let rsp_id = message.0.get("req_id").copied();
        let done = match read_request(text) {
            // Line 34: an undecodable message gets a response even if it was meant to be posted.
            Err(_) if self.setup.is_broken("undecodable-unanswered") => return,
            Err(reason) => Err(format!("failed to decode the message: {reason}")),
            Ok(request) => {
                let done = self.carry_out(&request);
                if request.posted && !self.setup.is_broken("posted-answered") {
                    return;
                }
                done.map(|()| request.action)
            }
        };
        let response = match &done {
            Ok(action) => {
                let payload = Some(json!({}));
                Response { action: Some(action), rsp_id, result: "success", reason: None, payload }
            }
            Err(reason) => {
                Response { action: None, rsp_id, result: "error", reason: Some(reason.clone()), payload: None }
            }
        };
        // Strings and raw JSON always serialise.
        out.push(ClientOutput::Text(serde_json::to_string(&response).unwrap_or_default()));
    }

    /// Carries out a request. There is no job to stop and no log to keep, so success is all that shows.
    fn carry_out(&self, request: &Request<'_>) -> Result<(), String> {
        match request.action.as_str() {
            "stop" if self.setup.is_broken("stop-unknown") => Err("there is no action stop".to_owned()),
            "stop" if request.payload.is_empty() && self.setup.is_broken("stop-payload-demanded") => {
                Err("the payload is empty".to_owned())
            }
            "stop" => Ok(()),
            "log" => {
                required_member::<String>(&request.payload, "message")?;
                optional_member::<serde_json::Number>(&request.payload, "timestamp")?;
                match optional_member::<String>(&request.payload, "severity")? {
                    Some(severity) if !SEVERITIES.contains(&severity.as_str()) => {
                        Err(format!("severity must be one of {}", SEVERITIES.join(", ")))
                    }
                    _ => Ok(()),
                }
            }
            _ if self.setup.is_broken("unknown-action-succeeds") => Ok(()),
            _ => Err("the actions are log and stop".to_owned()),
        }
    }
}

/// Reads a request; an error says why it cannot be decoded.
fn read_request(text: &str) -> Result<Request<'_>, String> {
    let members = split_members(text)?;
    Ok(Request {
        action: required_member(&members, "action")?,
        posted: optional_member(&members, "posted")?.unwrap_or_default(),
        payload: match members.get("payload").map(|payload| payload.get()) {
            None | Some("null") => Members::default(),
            Some(payload) => split_members(payload)?,
        },
    })
}
