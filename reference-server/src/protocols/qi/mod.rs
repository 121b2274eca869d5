//! The messages between systems 2200 and 2300 (document 003): commands, each answered, in order.
//!
//! The document names only the command `execute`. Here `initialize`, `execute`, `terminate` and `get_static` are built
//! in, and further commands are configured with fixed answers. The document does not name a transport (the original
//! uses ZeroMQ, REQ and REP; there, connections have either requests or what is published).
//!
//! Where the document is silent: a failure's payload is a string; a malformed request is answered with a failure, with
//! the session if it could be read; `session_id: null` means none; another major version, or before 1.0 another minor
//! one, is refused. `execute` outside a session succeeds, as in the documented example, unless `execute_needs_session`.
//! The admin side can hold a command, so that requests for it stay outstanding until it is released, define further
//! commands, and publish to all clients: a base message with a command, as a request has (line 11).

mod fault_state;
mod held;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use self::fault_state::QiFaultState;
use self::held::HeldRequests;
use crate::fault::MachineFault;
use crate::machine::json::{self, Members};
use crate::machine::settings::{Settings, SettingsError};
use crate::machine::{ConnectionId, EventError, Machine, MachineInput, MachineOutput, Traffic, Utf8Bytes};

pub const PROTOCOL: &str = "qi";
/// The longest session id that can be initialized, in bytes; longer ones are still copied into replies.
const MAX_SESSION_NAME: usize = 4096;
/// The largest number of commands that the admin side can define.
const MAX_DEFINED: usize = 1000;

#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct QiConfig {
    /// The version of the message format that replies carry and requests must be compatible with.
    #[serde(deserialize_with = "crate::machine::settings::version")]
    version: Version,
    /// Whether `execute` fails outside an initialized session.
    execute_needs_session: bool,
    /// The largest number of open sessions; beyond it `initialize` fails.
    max_sessions: usize,
    /// Commands with fixed answers, in addition to the built-in and default ones.
    commands: BTreeMap<String, Command>,
}

impl Default for QiConfig {
    fn default() -> QiConfig {
        QiConfig {
            version: Version::new(0, 1, 0),
            execute_needs_session: false,
            max_sessions: 10_000,
            commands: BTreeMap::new(),
        }
    }
}

/// A JSON object.
type Values = serde_json::Map<String, Value>;

/// A command with a fixed answer.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Command {
    /// Whether the command fails without arguments: without a payload or with an empty one.
    needs_arguments: bool,
    /// The return values of a success.
    returns: Option<Values>,
    /// Whether the command returns its arguments.
    echo: bool,
    /// If set, the command always fails with this text.
    fails: Option<String>,
}

/// Returns the default commands with fixed answers.
fn default_commands() -> BTreeMap<String, Command> {
    BTreeMap::from([
        ("ping".to_owned(), Command::default()),
        ("echo".to_owned(), Command { needs_arguments: true, echo: true, ..Command::default() }),
        ("fail".to_owned(), Command { fails: Some("this command always fails".to_owned()), ..Command::default() }),
    ])
}

pub fn build(settings: &Settings, broken: MachineFault) -> Result<Box<dyn Machine>, SettingsError> {
    let mut config: QiConfig = settings.deserialize(PROTOCOL)?;
    for name in BUILT_IN_COMMANDS {
        if config.commands.contains_key(*name) {
            let reason = format!("command {name:?} is built in and cannot be configured");
            return Err(SettingsError::Invalid { protocol: PROTOCOL, reason });
        }
    }
    let mut commands = default_commands();
    commands.append(&mut config.commands);
    config.commands = commands;
    let version = config.version.to_string();
    Ok(Box::new(Qi {
        config,
        version,
        broken,
        open: BTreeSet::new(),
        subscribers: BTreeSet::new(),
        sessions: BTreeMap::new(),
        first_sessions: BTreeMap::new(),
        failed: BTreeSet::new(),
        defined: BTreeMap::new(),
        held: HeldRequests::default(),
        faults: QiFaultState::default(),
        answered: 0,
    }))
}

/// The built-in commands.
const BUILT_IN_COMMANDS: &[&str] = &["initialize", "execute", "terminate", "get_static"];

struct Qi {
    config: QiConfig,
    version: String,
    broken: MachineFault,
    /// The connections that may send requests.
    open: BTreeSet<ConnectionId>,
    /// The connections to which messages are published.
    subscribers: BTreeSet<ConnectionId>,
    /// Open sessions with the number of their executions. A session may be used over several connections.
    sessions: BTreeMap<String, u64>,
    /// For a fault: the first session of each connection.
    first_sessions: BTreeMap<ConnectionId, String>,
    /// For faults: connections on which a request failed.
    failed: BTreeSet<ConnectionId>,
    /// Commands with fixed answers that the admin side has defined.
    defined: BTreeMap<String, Command>,
    held: HeldRequests,
    faults: QiFaultState,
    answered: u64,
}

/// The result of a command: nothing, values, or the reason of its failure.
type CommandOutcome = Result<Option<Box<RawValue>>, String>;

/// A reply (lines 37 to 39, 61 and 78).
#[derive(Serialize)]
struct QiReply<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    version: &'a str,
}

/// A published message (lines 11 and 19 to 21).
#[derive(Serialize)]
struct QiPublication<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    command: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a Values>,
    version: &'a str,
}

impl Machine for Qi {
    fn handle(&mut self, _: Duration, input: MachineInput, out: &mut Vec<MachineOutput>) {
        match input {
            MachineInput::Open { conn, .. } if self.broken.is("qi-upgrade-refused") => {
                out.push(MachineOutput::Refuse { conn, status: 400, body: String::new() });
            }
            MachineInput::Open { conn, handshake } => {
                if handshake.traffic != Traffic::Publications {
                    self.open.insert(conn);
                }
                if handshake.traffic != Traffic::Requests {
                    self.subscribers.insert(conn);
                }
                out.push(MachineOutput::Accept { conn, subprotocol: None });
            }
            MachineInput::Text { conn, text } if self.open.contains(&conn) => {
                let is_held = self.held.keep(conn, &text, self.broken);
                if !is_held {
                    let before = out.len();
                    self.answer_request(conn, &text, out);
                    if self.broken.is("qi-fuzz-infinity") {
                        fault_state::write_infinity(&mut out[before..]);
                    }
                }
            }
            MachineInput::Closed { conn } => {
                let left_some = self.held.forget(conn);
                if left_some && self.broken.is("qi-held-fail-with-leaver") {
                    self.faults.doomed.extend(self.held.connections());
                }
                if left_some && self.broken.is("qi-held-lost-with-leaver") {
                    self.held = HeldRequests::default();
                }
                self.open.remove(&conn);
                self.subscribers.remove(&conn);
                self.first_sessions.remove(&conn);
                self.failed.remove(&conn);
            }
            _ => {}
        }
    }

    fn state(&self) -> Value {
        json!({
            "version": self.version,
            "connections": self.open.union(&self.subscribers).count(),
            "answered": self.answered,
            "held": self.held.count(),
            "sessions": self.sessions,
            "commands": self.commands().collect::<Vec<_>>(),
        })
    }

    fn event(&mut self, _: Duration, event: &Value, out: &mut Vec<MachineOutput>) -> Result<Value, EventError> {
        let event = QiEvent::deserialize(event).map_err(|error| EventError::Invalid(error.to_string()))?;
        let is_known = |command: &String| self.commands().any(|known| known == command);
        match event {
            QiEvent::Hold { command } | QiEvent::Release { command } if !is_known(&command) => {
                Err(EventError::Invalid(format!("there is no command {command:?}")))
            }
            QiEvent::Publish { command, payload } => {
                self.publish(&command, payload, out);
                Ok(json!({ "published": self.subscribers.len() }))
            }
            QiEvent::Define { command, values, failure } => {
                self.define(command, Command { returns: values, fails: failure, ..Command::default() })?;
                Ok(json!({ "defined": self.defined.len() }))
            }
            QiEvent::Hold { command } => {
                self.held.hold(command);
                Ok(json!({}))
            }
            QiEvent::Release { command } => {
                let requests = self.held.release(&command);
                let answer = json!({ "released": requests.len() });
                self.answer_together(requests, out);
                Ok(answer)
            }
        }
    }
}

/// An event from the admin side.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum QiEvent {
    /// Requests for this command stay outstanding from now on.
    Hold { command: String },
    /// Ends this, and answers those that are outstanding.
    Release { command: String },
    /// Sends a message to all clients.
    Publish { command: String, payload: Option<Values> },
    /// Gives a command, which may be new, a fixed answer.
    Define { command: String, values: Option<Values>, failure: Option<String> },
}

impl Qi {
    fn commands(&self) -> impl Iterator<Item = &str> {
        BUILT_IN_COMMANDS.iter().copied().chain(self.config.commands.keys().map(String::as_str))
    }

    /// Sends a base message to all clients (line 11), once and outside any session (line 13).
    fn publish(&mut self, command: &str, mut payload: Option<Values>, out: &mut Vec<MachineOutput>) {
        if self.broken.is("qi-published-payload-kept") {
            payload = self.faults.published.entry(command.to_owned()).or_insert(payload).clone();
        }
        let session = self.open.iter().find_map(|&conn| self.held.first_session(conn));
        let session = session.filter(|_| self.broken.is("qi-published-in-session"));
        let (session_id, payload) = (session.as_deref(), payload.as_ref());
        let message = QiPublication { session_id, command, payload, version: &self.version };
        // Strings and JSON objects always serialise.
        let text = Utf8Bytes::from(serde_json::to_string(&message).unwrap_or_default());
        for (place, &conn) in self.subscribers.iter().enumerate() {
            let times = match place {
                2 if self.broken.is("qi-published-to-third-twice") => 2,
                1.. if self.broken.is("qi-published-to-one") => 0,
                _ => 1,
            };
            out.extend(std::iter::repeat_n(MachineOutput::Text { conn, text: text.clone() }, times));
        }
        if self.broken.is("qi-published-instead-of-replies") {
            self.held = HeldRequests::default();
        }
    }

    /// Defines a command, or defines it again.
    fn define(&mut self, name: String, command: Command) -> Result<(), EventError> {
        if self.commands().any(|known| known == name) {
            return Err(EventError::Invalid(format!("the command {name:?} cannot be defined again")));
        }
        let name = self.name_of_defined(&name);
        if self.defined.len() == MAX_DEFINED && !self.defined.contains_key(&name) {
            return Err(EventError::Invalid(format!("there are {MAX_DEFINED} defined commands already")));
        }
        if self.broken.is("qi-defined-once") && self.defined.contains_key(&name) {
            return Ok(());
        }
        self.defined.insert(name, command);
        Ok(())
    }

    /// Returns the name under which a defined command is kept: its own, except as a fault.
    fn name_of_defined(&self, name: &str) -> String {
        if self.broken.is("qi-defined-by-prefix") {
            return name.chars().take(32).collect();
        }
        if self.broken.is("qi-defined-in-any-case") {
            return name.to_lowercase();
        }
        name.to_owned()
    }

    /// Answers requests that were held.
    fn answer_together(&mut self, requests: Vec<(ConnectionId, Utf8Bytes)>, out: &mut Vec<MachineOutput>) {
        let mut replies = Vec::new();
        for (conn, text) in requests {
            self.answer_request(conn, &text, &mut replies);
        }
        fault_state::spoil_replies(self.broken, &mut replies);
        out.append(&mut replies);
    }

    /// Answers a request (line 13).
    fn answer_request(&mut self, conn: ConnectionId, text: &str, out: &mut Vec<MachineOutput>) {
        if self.broken.is("qi-deaf-after-failure") && self.failed.contains(&conn) {
            return;
        }
        let mut version = None;
        let unread = self.broken.is("qi-leading-space-refused") && text.starts_with([' ', '\t', '\n', '\r']);
        let (session, outcome) = match json::split_members(text) {
            Ok(_) if unread => (None, Err("the request cannot be read: it begins with white space".to_owned())),
            Ok(members) if self.broken.is("qi-keys-renamed") && members.contains_key("command") => return,
            Ok(members) => {
                let session = json::optional_member::<String>(&members, "session_id");
                let outcome = session.clone().and_then(|session| self.run_command(&members, session.as_deref()));
                if self.broken.is("qi-version-echoed") {
                    version = json::optional_member::<String>(&members, "version").ok().flatten();
                }
                if self.broken.is("qi-version-of-others") && outcome.is_ok() {
                    let own = json::required_member::<String>(&members, "version").unwrap_or_default();
                    version = self.faults.versions.values().find(|other| **other != own).cloned();
                    self.faults.versions.insert(conn, own);
                }
                let outcome =
                    self.faulty_outcome(conn, &members, session.as_ref().ok().and_then(Option::as_deref), outcome);
                (session.ok().flatten(), outcome)
            }
            Err(_) if self.broken.is("qi-garbage-succeeds") => (None, Ok(None)),
            Err(reason) => (None, Err(format!("the request cannot be read: {reason}"))),
        };
        if let (Some(session), Ok(_)) = (&session, &outcome)
            && !self.faulty_is_answered(conn, session)
        {
            return;
        }
        let session = self.faulty_session(conn, session, outcome.is_ok());
        let (status, payload) = match outcome {
            Ok(values) => ("success", values),
            // A string always serialises.
            Err(reason) => {
                self.failed.insert(conn);
                ("failure", serde_json::value::to_raw_value(&reason).ok())
            }
        };
        let version = version.as_deref().unwrap_or(&self.version);
        let reply = QiReply { session_id: session.as_deref(), status, payload: payload.as_deref(), version };
        // Strings and raw JSON always serialise.
        let text = Utf8Bytes::from(serde_json::to_string(&reply).unwrap_or_default());
        self.answered += 1;
        if self.broken.is("qi-replies-published") {
            out.extend(self.subscribers.iter().map(|&conn| MachineOutput::Text { conn, text: text.clone() }));
        } else {
            out.push(MachineOutput::Text { conn: self.recipient(conn, session), text });
        }
    }

    /// Returns the connection that gets a reply: the requester, except as a fault.
    fn recipient(&mut self, conn: ConnectionId, session: Option<String>) -> ConnectionId {
        match session {
            Some(session) if self.broken.is("qi-session-kept-by-first") => {
                *self.faults.owners.entry(session).or_insert(conn)
            }
            _ => conn,
        }
    }

    /// Returns the outcome, as changed by faults that depend on earlier messages.
    fn faulty_outcome(
        &mut self,
        conn: ConnectionId,
        members: &Members<'_>,
        session: Option<&str>,
        outcome: CommandOutcome,
    ) -> CommandOutcome {
        if let Some(values) = self.faults.refused_arguments(self.broken, conn, members, &outcome) {
            return Ok(Some(values));
        }
        if self.broken.is("qi-twelve-failures-last") && self.faults.has_failed_often(conn, outcome.is_err()) {
            return Err("nothing is left to carry out the command with".to_owned());
        }
        if self.broken.is("qi-failure-sticks") && self.failed.contains(&conn) && matches!(outcome, Ok(None)) {
            return Err("the command before this one failed".to_owned());
        }
        if self.broken.is("qi-arguments-linger")
            && let Some(arguments) = members.get("payload")
            && let Ok(Some(_)) = outcome
            && json::optional_member::<String>(members, "command")
                .is_ok_and(|command| command.as_deref() == Some("echo"))
        {
            let arguments = serde_json::from_str::<BTreeMap<String, Value>>(arguments.get());
            self.faults.arguments.extend(arguments.unwrap_or_default());
            return returned_values(&json!(self.faults.arguments));
        }
        if self.faults.doomed.remove(&conn) {
            return Err("a client has left".to_owned());
        }
        if self.broken.is("qi-failure-lasts") && self.failed.contains(&conn) && outcome.is_ok() {
            return Err("a command before this one failed".to_owned());
        }
        if self.broken.is("qi-values-of-the-request-before")
            && let Ok(Some(values)) = outcome
        {
            let before = self.faults.values.insert(conn, values.clone());
            return Ok(Some(before.unwrap_or(values)));
        }
        let outcome = match json::optional_member::<String>(members, "command") {
            Ok(Some(command)) => self.remembered_outcome(conn, command, outcome),
            _ => outcome,
        };
        let Some(session) = session else { return outcome };
        if self.broken.is("qi-session-never-freed")
            && *self.faults.owners.entry(session.to_owned()).or_insert(conn) != conn
        {
            return Err("the session is in use".to_owned());
        }
        if self.broken.is("qi-session-replayed")
            && let Ok(values) = outcome
        {
            return Ok(self.faults.returned.entry(session.to_owned()).or_insert(values).clone());
        }
        outcome
    }

    /// Returns the outcome of a command, or as a fault what its connection has had before.
    fn remembered_outcome(&mut self, conn: ConnectionId, command: String, outcome: CommandOutcome) -> CommandOutcome {
        let is_defined = self.defined.contains_key(&command);
        let is_unknown = !is_defined && !self.commands().any(|known| known == command);
        let asked = (conn, command);
        if self.broken.is("qi-unknown-command-remembered") && (is_unknown || self.faults.unknown.contains(&asked)) {
            self.faults.unknown.insert(asked);
            return Err("there is no such command".to_owned());
        }
        match outcome {
            Ok(values) if is_defined && self.broken.is("qi-defined-values-kept") => {
                Ok(self.faults.defined_values.entry(asked).or_insert(values).clone())
            }
            outcome => outcome,
        }
    }

    /// Whether to send the reply to a request that succeeded in a session: always, unless a fault drops it.
    fn faulty_is_answered(&mut self, conn: ConnectionId, session: &str) -> bool {
        let of_client = [(3, "qi-session-of-third-client-unanswered"), (4, "qi-session-of-fourth-client-unanswered")];
        let lost = of_client.into_iter().find_map(|(number, fault)| self.broken.is(fault).then_some(number));
        let once = self.broken.is("qi-session-answered-once");
        if lost.is_none() && !once {
            return true;
        }
        let is_new = self.faults.answered.insert((conn, session.to_owned()));
        let clients = self.faults.answered.iter().filter(|(_, other)| other == session).count();
        if once { is_new } else { !is_new || lost != Some(clients) }
    }

    /// Returns the session of the reply: that of the request (line 61), except as a fault.
    fn faulty_session(&mut self, conn: ConnectionId, session: Option<String>, succeeds: bool) -> Option<String> {
        if session.is_none() && self.broken.is("qi-session-clings") {
            return self.first_sessions.get(&conn).cloned();
        }
        if session.is_none() && self.broken.is("qi-held-base-joins-session") {
            return self.held.first_session(conn);
        }
        let session = session?;
        if self.broken.is("qi-session-clings") {
            self.first_sessions.entry(conn).or_insert_with(|| session.clone());
        }
        if self.broken.is("qi-session-of-the-failure") {
            if succeeds {
                return self.faults.failed_sessions.remove(&conn).or(Some(session));
            }
            self.faults.failed_sessions.insert(conn, session.clone());
        }
        if self.broken.is("qi-session-renamed") && *self.faults.owners.entry(session.clone()).or_insert(conn) != conn {
            return Some(session + "-2");
        }
        if self.broken.is("qi-session-canonical") {
            return Some(fault_state::canonical_uuid(session));
        }
        if self.broken.is("qi-session-trimmed") {
            return Some(session.trim().to_owned());
        }
        if self.broken.is("qi-session-composed") {
            return Some(session.replace("e\u{301}", "\u{e9}"));
        }
        if self.broken.is("qi-session-stale") {
            return Some(self.first_sessions.entry(conn).or_insert(session).clone());
        }
        if self.broken.is("qi-session-truncated") {
            return Some(session.chars().take(36).collect());
        }
        if self.broken.is("qi-session-ascii") {
            return Some(session.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect());
        }
        if self.broken.is("qi-session-empty-dropped") && session.is_empty() {
            return None;
        }
        Some(session)
    }

    fn run_command(&mut self, members: &Members<'_>, session: Option<&str>) -> CommandOutcome {
        let mut command: String = match json::required_member(members, "command") {
            Err(_) if !members.contains_key("command") && self.broken.is("qi-command-optional") => "ping".to_owned(),
            read => read?,
        };
        if self.broken.is("qi-arguments-spread")
            && let Some(payload) = members.get("payload")
            && let Ok(arguments) = json::split_members(payload.get())
            && let Ok(Some(other)) = json::optional_member::<String>(&arguments, "command")
        {
            command = other;
        }
        self.check_version(members)?;
        let arguments = self.request_arguments(members)?;
        let given = members.contains_key("payload");
        let takes_none = match self.config.commands.get(&command) {
            Some(command) => !command.needs_arguments,
            None => command == "get_static",
        };
        if takes_none && !given && self.broken.is("qi-payload-demanded") {
            return Err(format!("command {command:?} needs a payload"));
        }
        if given && arguments.is_none() && command == "ping" && self.broken.is("qi-empty-payload-refused") {
            return Err("the payload is empty".to_owned());
        }
        if session.is_none() && self.broken.is("qi-session-demanded") {
            return Err("a request needs a session_id".to_owned());
        }
        let outcome = self.execute(&command, arguments, session);
        match outcome {
            Ok(_) if self.broken.is("qi-command-ignored") => self.get_static(),
            _ if self.broken.is("qi-command-never-read") => self.get_static(),
            Err(_) if self.broken.is("qi-failure-reported-as-success") => Ok(None),
            Ok(_) if self.broken.is("qi-success-reported-as-failure") => Err("the command succeeded".to_owned()),
            outcome => outcome,
        }
    }

    /// Refuses requests of an incompatible message format (line 21).
    fn check_version(&self, members: &Members<'_>) -> Result<(), String> {
        if !members.contains_key("version") && self.broken.is("qi-version-optional") {
            return Ok(());
        }
        let version: String = json::required_member(members, "version")?;
        let parsed =
            Version::parse(&version).map_err(|error| format!("{version:?} is not a semantic version: {error}"))?;
        let ours = &self.config.version;
        let mut compatible = parsed.major == ours.major && (ours.major > 0 || parsed.minor == ours.minor);
        if self.broken.is("qi-version-unchecked") {
            compatible = true;
        }
        if self.broken.is("qi-version-must-equal") {
            compatible = parsed == *ours;
        }
        if compatible { Ok(()) } else { Err(format!("version {version} is not compatible with {ours}")) }
    }

    /// Returns the arguments: an object or nothing (line 20).
    fn request_arguments<'a>(&self, members: &Members<'a>) -> Result<Option<&'a RawValue>, String> {
        let Some(payload) = members.get("payload").copied() else { return Ok(None) };
        match json::split_members(payload.get()) {
            Ok(_) if self.broken.is("qi-arguments-lost") => Ok(None),
            Ok(arguments) => Ok((!arguments.is_empty()).then_some(payload)),
            Err(_) if self.broken.is("qi-payload-type-unchecked") => Ok(None),
            Err(reason) => Err(format!("member \"payload\": {reason}")),
        }
    }

    fn execute(&mut self, command: &str, arguments: Option<&RawValue>, session: Option<&str>) -> CommandOutcome {
        match (command, session) {
            ("initialize", None) => Ok(None),
            ("initialize", Some(session)) => self.initialize_session(session),
            ("execute", session) => self.execute_in_session(session),
            ("terminate", None) => Err("terminate needs the session_id of an initialized session".to_owned()),
            ("terminate", Some(session)) => match self.sessions.remove(session) {
                Some(_) => Ok(None),
                None => Err("there is no such session to terminate".to_owned()),
            },
            ("get_static", _) => self.get_static(),
            (other, _) => self.answer_fixed(other, arguments),
        }
    }

    fn initialize_session(&mut self, session: &str) -> CommandOutcome {
        if self.sessions.contains_key(session) {
            return Err("the session is initialized already".to_owned());
        }
        if self.sessions.len() >= self.config.max_sessions {
            return Err(format!("there are {} sessions already, terminate one first", self.sessions.len()));
        }
        if session.len() > MAX_SESSION_NAME {
            return Err(format!("a session_id to be remembered has at most {MAX_SESSION_NAME} bytes"));
        }
        self.sessions.insert(session.to_owned(), 0);
        Ok(None)
    }

    /// Runs `execute`, which returns its number of executions in an initialized session.
    fn execute_in_session(&mut self, session: Option<&str>) -> CommandOutcome {
        match session.and_then(|session| self.sessions.get_mut(session)) {
            Some(executions) => {
                *executions += 1;
                returned_values(&json!({ "executions": *executions }))
            }
            None if self.config.execute_needs_session => {
                Err("execute needs the session_id of an initialized session".to_owned())
            }
            None => returned_values(&json!({})),
        }
    }

    fn get_static(&self) -> CommandOutcome {
        let commands: Vec<&str> = self.commands().collect();
        returned_values(&json!({ "system": "hubproof reference hub", "format": self.version, "commands": commands }))
    }

    fn answer_fixed(&self, name: &str, arguments: Option<&RawValue>) -> CommandOutcome {
        let defined = || self.defined.get(&self.name_of_defined(name));
        let Some(command) = self.config.commands.get(name).or_else(defined) else {
            let private = name.starts_with("__") && self.broken.is("qi-private-commands");
            if private || self.broken.is("qi-unknown-command-succeeds") {
                return Ok(None);
            }
            let shown: String = name.chars().take(64).collect();
            return Err(format!("there is no command {shown:?}"));
        };
        if let Some(reason) = &command.fails {
            return Err(reason.clone());
        }
        match arguments {
            None if command.needs_arguments => Err(format!("command {name:?} needs arguments")),
            Some(arguments) if command.echo => Ok(Some(arguments.to_owned())),
            _ => command.returns.as_ref().map_or(Ok(None), |returns| returned_values(&Value::Object(returns.clone()))),
        }
    }
}

fn returned_values(values: &Value) -> CommandOutcome {
    serde_json::value::to_raw_value(values).map(Some).map_err(|error| error.to_string())
}
