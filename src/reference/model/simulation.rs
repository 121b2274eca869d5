//! A simulated connection between a conversation and a state machine of the reference server: a queue and a simulated
//! clock instead of sockets, timers and threads. It is deterministic, and fast enough to play every scenario against every
//! fault, and to repeat every case of `fuzz` on the model.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use hubproof_reference as reference;
use reference::machine;
use serde_json::Value;

use crate::config::HookSpec;
use crate::config::template::fill_template;
use crate::interpreter::{Conversation, ConversationInput, ConversationOutput};
use crate::outcome::ScenarioReport;
use crate::websocket::frame::{AssembledMessage, ConnectionEvent, Frame, Opcode};

/// How a hub sends frames where RFC 6455 leaves a choice.
#[derive(Clone, Copy, Default)]
pub struct SendingManner {
    /// Whether the hub pings before every message.
    pub pings: bool,
    /// Whether the hub sends every message in three frames.
    pub fragments: bool,
}

/// The admin interface for hooks: a post to `/events/PROTOCOL` is an event.
pub struct AdminInterface {
    pub protocol: String,
    pub hooks: BTreeMap<String, HookSpec>,
    pub settings: BTreeMap<String, Value>,
}

impl AdminInterface {
    fn event(&self, name: &str, args: &Value, message: Option<&Value>) -> Result<Value, String> {
        let Some(HookSpec::Http { url, body, .. }) = self.hooks.get(name) else {
            return Err(format!("no hook `{name}` without sockets"));
        };
        if !url.ends_with(&format!("/events/{}", self.protocol)) {
            return Err(format!("`{url}` is not where events go"));
        }
        let text = match body {
            None => message.unwrap_or(args).to_string(),
            Some(body) => {
                let context = serde_json::json!({ "args": args, "message": message, "hub": self.settings });
                fill_template(body, &context).map_err(|error| error.to_string())?
            }
        };
        serde_json::from_str(&text).map_err(|error| format!("`{text}`: {error}"))
    }
}

/// A conversation that was played on a machine.
pub struct SimulatedPlay {
    pub report: ScenarioReport,
    /// Whether everything that the conversation did reached the machine. Bytes that are not frames do not.
    pub complete: bool,
}

/// Plays a conversation on a machine. Returns `None` if it takes more than `turns` inputs, or waits for nothing.
pub fn play_on_machine(
    conversation: Conversation,
    machine: Box<dyn reference::Machine>,
    admin: AdminInterface,
    manner: SendingManner,
    turns: usize,
) -> Option<SimulatedPlay> {
    SimulatedConversation { manner, ..SimulatedConversation::new(conversation, machine, admin) }.play(turns)
}

struct SimulatedConversation {
    manner: SendingManner,
    conversation: Conversation,
    machine: Box<dyn reference::Machine>,
    admin: AdminInterface,
    now: Duration,
    to_conversation: VecDeque<ConversationInput>,
    to_machine: VecDeque<QueuedMachineInput>,
    connections: BTreeMap<u32, SimulatedConnection>,
    /// The number that the conversation gives to each connection of the machine.
    numbers: BTreeMap<machine::ConnectionId, u32>,
    complete: bool,
}

enum QueuedMachineInput {
    Input(machine::MachineInput),
    /// An event that a hook posts to the admin interface.
    Event {
        call: u32,
        event: Value,
    },
}

/// First number of connections that the hub opens.
const FIRST_HUB_CONNECTION: u32 = 1 << 20;

#[derive(Default)]
struct SimulatedConnection {
    conn: machine::ConnectionId,
    open: bool,
    /// Frames of an incomplete message.
    partial: Option<(bool, Vec<u8>, u32)>,
    /// Frames received while the actor does not read.
    held: Option<Vec<ConnectionEvent>>,
}

impl SimulatedConversation {
    fn new(mut conversation: Conversation, machine: Box<dyn reference::Machine>, admin: AdminInterface) -> Self {
        for actor in conversation.listeners() {
            conversation.set_listen_url(actor, actor_address(actor));
        }
        Self {
            manner: SendingManner::default(),
            conversation,
            machine,
            admin,
            now: Duration::ZERO,
            to_conversation: VecDeque::new(),
            to_machine: VecDeque::new(),
            connections: BTreeMap::new(),
            numbers: BTreeMap::new(),
            complete: true,
        }
    }

    fn play(mut self, turns: usize) -> Option<SimulatedPlay> {
        let outputs = self.conversation.start(self.now);
        self.carry_out(outputs);
        for _ in 0..turns {
            if let Some(next) = self.to_machine.pop_front() {
                let mut out = Vec::new();
                match next {
                    QueuedMachineInput::Input(input) => {
                        self.machine.handle(self.now, input, &mut out);
                        out.into_iter().for_each(|output| self.handle_output(output));
                    }
                    QueuedMachineInput::Event { call, event } => {
                        let answer = self.machine.event(self.now, &event, &mut out).map_err(|error| error.to_string());
                        // Frames may overtake the hook's answer, so allow that.
                        out.into_iter().for_each(|output| self.handle_output(output));
                        self.to_conversation.push_back(ConversationInput::HookAnswer { call, answer });
                    }
                }
            } else if let Some(input) = self.to_conversation.pop_front() {
                let outputs = self.conversation.handle(self.now, input);
                self.carry_out(outputs);
            } else if self.conversation.is_finished() {
                let complete = self.complete;
                return Some(SimulatedPlay { report: self.conversation.into_report(), complete });
            } else {
                self.advance_clock()?;
            }
        }
        None
    }

    /// Advances the clock to the next deadline, since nothing is queued. Returns `None` without a deadline.
    fn advance_clock(&mut self) -> Option<()> {
        let next = [self.conversation.deadline(), self.machine.deadline()].into_iter().flatten().min();
        self.now = self.now.max(next?);
        if self.machine.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.send_to_machine(machine::MachineInput::Tick);
        }
        if self.conversation.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.to_conversation.push_back(ConversationInput::Tick);
        }
        Some(())
    }

    fn carry_out(&mut self, outputs: Vec<ConversationOutput>) {
        for output in outputs {
            match output {
                ConversationOutput::Open { connection, dial } => {
                    let conn = connection.into();
                    self.numbers.insert(conn, connection);
                    self.connections.insert(connection, SimulatedConnection { conn, ..SimulatedConnection::default() });
                    let peer = dial.from.as_deref().and_then(|from| from.parse().ok());
                    let handshake = machine::Handshake {
                        path: dial.path.unwrap_or_else(|| "/".to_owned()),
                        query: dial.query,
                        headers: dial.headers.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect(),
                        subprotocols: dial.subprotocols,
                        peer: peer.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                        ..machine::Handshake::default()
                    };
                    self.send_to_machine(machine::MachineInput::Open { conn, handshake });
                }
                ConversationOutput::Send { connection, frames } => {
                    frames.into_iter().for_each(|frame| self.handle_frame(connection, frame))
                }
                ConversationOutput::End { connection, .. } => self.handle_closed(connection),
                ConversationOutput::StopReading { connection } => {
                    if let Some(connection) = self.connections.get_mut(&connection) {
                        connection.held.get_or_insert_default();
                    }
                }
                ConversationOutput::ReadAgain { connection } => {
                    let held = self.connections.get_mut(&connection).and_then(|connection| connection.held.take());
                    for what in held.into_iter().flatten() {
                        self.to_conversation.push_back(ConversationInput::Received { connection, what });
                    }
                }
                ConversationOutput::Hook { call, name, args, message } => {
                    match self.admin.event(&name, &args, message.as_ref()) {
                        Ok(event) => self.to_machine.push_back(QueuedMachineInput::Event { call, event }),
                        Err(error) => {
                            self.to_conversation.push_back(ConversationInput::HookAnswer { call, answer: Err(error) })
                        }
                    }
                }
                ConversationOutput::SendBytes { .. } => self.complete = false,
                ConversationOutput::Trace(_) | ConversationOutput::Waiting { .. } => {}
            }
        }
    }

    fn send_to_machine(&mut self, input: machine::MachineInput) {
        self.to_machine.push_back(QueuedMachineInput::Input(input));
    }

    fn send_to_conversation(&mut self, connection: u32, what: ConnectionEvent) {
        match self.connections.get_mut(&connection).and_then(|connection| connection.held.as_mut()) {
            Some(held) => held.push(what),
            None => self.to_conversation.push_back(ConversationInput::Received { connection, what }),
        }
    }

    /// Handles a frame as a server's WebSocket layer does.
    fn handle_frame(&mut self, connection: u32, frame: Frame) {
        let Some(state) = self.connections.get_mut(&connection).filter(|state| state.open) else { return };
        let conn = state.conn;
        match frame.opcode {
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                let (binary, mut payload, count) =
                    state.partial.take().unwrap_or((frame.opcode == Opcode::Binary, Vec::new(), 0));
                payload.extend_from_slice(&frame.payload);
                if !frame.fin {
                    state.partial = Some((binary, payload, count + 1));
                } else if binary {
                    self.send_to_machine(machine::MachineInput::Binary { conn, data: payload });
                } else {
                    match String::from_utf8(payload) {
                        Ok(text) => self.send_to_machine(machine::MachineInput::Text { conn, text: text.into() }),
                        Err(_) => {
                            self.send_to_conversation(
                                connection,
                                ConnectionEvent::Close { code: Some(1007), reason: String::new() },
                            );
                            self.handle_closed(connection);
                        }
                    }
                }
            }
            Opcode::Ping => {
                self.send_to_machine(machine::MachineInput::Ping { conn });
                self.send_to_conversation(connection, ConnectionEvent::Pong(frame.payload));
            }
            Opcode::Close => {
                let code = frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                self.send_to_conversation(connection, ConnectionEvent::Close { code, reason: String::new() });
                self.handle_closed(connection);
            }
            Opcode::Pong => {}
            Opcode::Reserved(_) => {
                self.send_to_conversation(
                    connection,
                    ConnectionEvent::Close { code: Some(1002), reason: String::new() },
                );
                self.handle_closed(connection);
            }
        }
    }

    fn handle_closed(&mut self, connection: u32) {
        if let Some(state) = self.connections.get_mut(&connection).filter(|state| state.open) {
            state.open = false;
            let conn = state.conn;
            self.send_to_machine(machine::MachineInput::Closed { conn });
            self.send_to_conversation(connection, ConnectionEvent::End { reset: false, reason: String::new() });
        }
    }

    fn handle_output(&mut self, output: machine::MachineOutput) {
        if let machine::MachineOutput::Connect { conn, url } = output {
            return self.connect(conn, &url);
        }
        let Some(connection) = self.numbers.get(&output.conn()).copied() else { return };
        match output {
            machine::MachineOutput::Accept { subprotocol, .. } => {
                if let Some(state) = self.connections.get_mut(&connection) {
                    state.open = true;
                }
                self.send_to_conversation(
                    connection,
                    ConnectionEvent::Upgraded { status: 101, headers: Vec::new(), subprotocol },
                );
            }
            machine::MachineOutput::Refuse { status, body, .. } => {
                let reason = format!("HTTP {status} instead of 101");
                self.send_to_conversation(
                    connection,
                    ConnectionEvent::Refused { status, headers: Vec::new(), body: body.into_bytes(), reason },
                );
            }
            machine::MachineOutput::Text { text, .. } => {
                self.handle_message(connection, false, text.as_bytes().to_vec())
            }
            machine::MachineOutput::Binary { data, .. } => self.handle_message(connection, true, data),
            machine::MachineOutput::Close { code, reason, .. } => {
                self.send_to_conversation(connection, ConnectionEvent::Close { code: Some(code), reason });
                self.end_connection(connection);
            }
            machine::MachineOutput::Drop { .. } => self.end_connection(connection),
            machine::MachineOutput::Connect { .. } => {}
        }
    }

    fn handle_message(&mut self, connection: u32, binary: bool, payload: Vec<u8>) {
        if self.connections.get(&connection).is_some_and(|state| state.open) {
            if self.manner.pings {
                self.send_to_conversation(connection, ConnectionEvent::Ping(b"are you there?".to_vec()));
            }
            let frames = if self.manner.fragments { 3 } else { 1 };
            self.send_to_conversation(
                connection,
                ConnectionEvent::Message(AssembledMessage { binary, payload, frames }),
            );
        }
    }

    /// Connects the hub to a listening actor.
    fn connect(&mut self, conn: machine::ConnectionId, url: &str) {
        let Some(actor) = self.conversation.listeners().into_iter().find(|actor| actor_address(*actor) == url) else {
            return self.send_to_machine(machine::MachineInput::ConnectFailed {
                conn,
                reason: format!("nothing listens at {url}"),
            });
        };
        let number = FIRST_HUB_CONNECTION + u32::try_from(self.numbers.len()).unwrap_or(u32::MAX >> 1);
        self.numbers.insert(conn, number);
        self.connections.insert(number, SimulatedConnection { conn, open: true, ..SimulatedConnection::default() });
        self.to_conversation.push_back(ConversationInput::Accepted { actor, connection: number });
        self.send_to_conversation(
            number,
            ConnectionEvent::Upgraded { status: 101, headers: Vec::new(), subprotocol: None },
        );
        self.send_to_machine(machine::MachineInput::Connected { conn });
    }

    fn end_connection(&mut self, connection: u32) {
        if let Some(state) = self.connections.get_mut(&connection) {
            state.open = false;
        }
        self.send_to_conversation(connection, ConnectionEvent::End { reset: false, reason: String::new() });
    }
}

/// Returns the address of a listening actor.
fn actor_address(actor: usize) -> String {
    format!("ws://virtual/actors/{actor}")
}
