//! A simulated connection between a conversation and a state machine of the reference server: a queue and a simulated
//! clock instead of sockets, timers and threads. Deterministic, and fast enough to play every scenario against every
//! fault.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use hubproof::config::HookSpec;
use hubproof::deviation::Deviations;
use hubproof::event::ScenarioReport;
use hubproof::interpreter::{Conversation, ConversationConfig, ConversationInput, ConversationOutput};
use hubproof::protocol::{Pack, PackFolder};
use hubproof::reference::setup::{ReferenceAddresses, ReferenceSetups};
use hubproof::scenario::{Program, ScenarioSet};
use hubproof::syntax::source::Sources;
use hubproof::websocket::frame::{AssembledMessage, ConnectionEvent, Frame, Opcode};
use hubproof_reference as reference;
use reference::machine;
use serde_json::Value;

pub mod websocket;

/// One protocol, loaded from the repository.
pub struct SimulatedProtocol {
    pub sources: Sources,
    pub pack: Arc<Pack>,
    pub scenarios: ScenarioSet,
    pub setups: ReferenceSetups,
    /// Whether it is the protocol of WebSocket itself.
    pub habit: websocket::WebSocketHabit,
    targets: Vec<InstanceConfig>,
    hooks: BTreeMap<String, HookSpec>,
}

struct InstanceConfig {
    settings: BTreeMap<String, Value>,
    provides: BTreeSet<String>,
}

impl SimulatedProtocol {
    pub fn load(name: &str) -> Self {
        let mut sources = Sources::default();
        let folder = super::disk::protocol_folder(name, &mut sources);
        Self::from_folder(&folder, sources)
    }

    pub fn from_folder(folder: &PackFolder, mut sources: Sources) -> Self {
        let (pack, diagnostics) = Pack::load(folder, &sources);
        assert!(diagnostics.is_empty(), "{}", hubproof::syntax::diagnostic::render_all(&diagnostics, &sources, false));
        let pack = Arc::new(pack.unwrap());
        let scenarios = ScenarioSet::load(folder, &sources, &pack);
        assert!(
            scenarios.diagnostics.is_empty(),
            "{}",
            hubproof::syntax::diagnostic::render_all(&scenarios.diagnostics, &sources, false)
        );
        let setups =
            ReferenceSetups::from_folder(folder, &sources).unwrap_or_else(|d| panic!("{}", d.render(&sources, false)));
        let urls = setups.instances.iter().map(|_| "ws://virtual".to_owned()).collect();
        let text = setups.render_target_file(
            &folder.name,
            &ReferenceAddresses { urls, admin: Some("http://virtual".to_owned()), ca: None },
        );
        let file = sources.add("target.toml", text);
        let target = hubproof::config::parse(&mut sources, file, &[], &|_| None, &|_| Ok(String::new()))
            .unwrap_or_else(|d| panic!("{}", hubproof::syntax::diagnostic::render_all(&d, &sources, false)));
        let defaults: BTreeMap<String, Value> = scenarios
            .shared
            .settings
            .iter()
            .filter_map(|(name, setting)| Some((name.clone(), setting.default.clone()?)))
            .collect();
        let targets = target
            .instances
            .iter()
            .zip(&setups.instances)
            .map(|(instance, setup)| {
                let mut settings = defaults.clone();
                settings.extend(instance.settings.iter().map(|(name, setting)| (name.clone(), setting.value.clone())));
                let mut provides = instance.provides.clone();
                provides.extend(instance.settings.keys().cloned());
                provides.extend(setup.tls.then(|| "tls".to_owned()));
                InstanceConfig { settings, provides }
            })
            .collect();
        Self { sources, pack, scenarios, setups, habit: websocket::WebSocketHabit::None, targets, hooks: target.hooks }
    }

    /// Returns the settings of the first instance that meets the needs of a scenario; otherwise of the first instance.
    pub fn settings(&self, program: &Program) -> BTreeMap<String, Value> {
        self.targets[self.matching_instance(program).unwrap_or(0)].settings.clone()
    }

    fn matching_instance(&self, program: &Program) -> Option<usize> {
        self.targets.iter().position(|target| {
            let provides = |word: &str| target.provides.contains(word);
            let hooks = |name: &str| self.hooks.contains_key(name);
            hubproof::interpreter::unmet_needs(program, &target.settings, &provides, &hooks).unwrap().is_empty()
        })
    }

    /// Sets a setting in every instance: of the server (`serve`), if given, and of its target.
    pub fn set(&mut self, serve: Option<&str>, setting: &str, value: impl Into<Value>) {
        let value = value.into();
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        for (instance, target) in self.setups.instances.iter_mut().zip(&mut self.targets) {
            instance.serve.extend(serve.map(|serve| (serve.to_owned(), text.clone())));
            target.settings.insert(setting.to_owned(), value.clone());
        }
    }

    /// Plays a scenario on the first instance that meets its needs; `None` if none does.
    pub fn play(&self, program: &Arc<Program>, fault: Option<&str>) -> Option<ScenarioReport> {
        self.play_on(program, fault, &|machine| machine, SendingManner::default())
    }

    /// Like [`Self::play`], with a wrapper around the machine and a way of sending frames.
    pub fn play_on(
        &self,
        program: &Arc<Program>,
        fault: Option<&str>,
        around: &dyn Fn(Box<dyn reference::Machine>) -> Box<dyn reference::Machine>,
        manner: SendingManner,
    ) -> Option<ScenarioReport> {
        self.play_deviating(program, fault, around, manner, Arc::default())
    }

    /// Like [`Self::play_on`], with declared deviations of the hub.
    pub fn play_deviating(
        &self,
        program: &Arc<Program>,
        fault: Option<&str>,
        around: &dyn Fn(Box<dyn reference::Machine>) -> Box<dyn reference::Machine>,
        manner: SendingManner,
        deviations: Arc<Deviations>,
    ) -> Option<ScenarioReport> {
        let index = self.matching_instance(program)?;
        let mut settings = reference::Settings::default();
        for (name, value) in &self.setups.instances[index].serve {
            settings.set(name, value).unwrap();
        }
        // A hub with a clock starts at the time of the conversation; the others do not have this setting.
        let mut timed = settings.clone();
        timed.set("epoch_ms", &EPOCH_MS.to_string()).unwrap();
        let machine = reference::build_machine(&self.pack.name, &timed, fault)
            .or_else(|_| reference::build_machine(&self.pack.name, &settings, fault))
            .unwrap_or_else(|error| panic!("{error}"));
        let config = ConversationConfig { deviations, ..conversation_config(self.targets[index].settings.clone()) };
        let admin = AdminInterface {
            protocol: self.pack.name.clone(),
            hooks: self.hooks.clone(),
            settings: self.targets[index].settings.clone(),
        };
        let conversation = Conversation::new(Arc::clone(program), config);
        let mut report = if self.pack.name == reference::protocols::websocket::PROTOCOL {
            websocket::play(conversation, fault, self.habit)
        } else {
            SimulatedConversation { manner, ..SimulatedConversation::new(conversation, around(machine), admin) }.play()
        };
        report.instance.clone_from(&self.setups.instances[index].name);
        Some(report)
    }
}

/// Plays a fuzz case on a state machine that is not the reference server's; the protocol has no hooks.
pub fn play_on_machine(program: Program, machine: Box<dyn reference::Machine>) -> ScenarioReport {
    let defaults = program.shared.settings.iter();
    let settings: BTreeMap<String, Value> =
        defaults.filter_map(|(name, setting)| Some((name.clone(), setting.default.clone()?))).collect();
    let (protocol, hooks) = (program.pack.name.clone(), BTreeMap::new());
    let config = ConversationConfig { persistent: false, ..conversation_config(settings.clone()) };
    let conversation = Conversation::new(Arc::new(program), config);
    SimulatedConversation::new(conversation, machine, AdminInterface { protocol, hooks, settings }).play()
}

/// Returns the default configuration of a conversation.
pub fn conversation_config(settings: BTreeMap<String, Value>) -> ConversationConfig {
    ConversationConfig {
        turn: 0,
        hub: "ws://hub".parse().unwrap(),
        settings,
        stamp: "test".to_owned(),
        epoch_ms: EPOCH_MS,
        patience: Duration::from_secs(5),
        quiet: Duration::from_millis(300),
        stretch: 1.0,
        stated_only: false,
        trace: false,
        kept: 1 << 16,
        instead: None,
        masker: Arc::default(),
        deviations: Arc::default(),
        persistent: true,
        pace: Arc::default(),
    }
}

/// How a hub sends frames where RFC 6455 leaves a choice.
#[derive(Clone, Copy, Default)]
pub struct SendingManner {
    /// A ping is sent before every message.
    pub pings: bool,
    /// Every message is sent in three frames.
    pub fragments: bool,
}

/// The start of every conversation, in Unix milliseconds.
const EPOCH_MS: i64 = 1_700_000_000_000;

struct SimulatedConversation {
    manner: SendingManner,
    conversation: Conversation,
    machine: Box<dyn reference::Machine>,
    admin: AdminInterface,
    now: Duration,
    to_conversation: VecDeque<ConversationInput>,
    to_machine: VecDeque<QueuedMachineInput>,
    connections: BTreeMap<u32, SimulatedConnection>,
    /// The conversation's numbers of the machine's connections.
    numbers: BTreeMap<machine::ConnectionId, u32>,
}

enum QueuedMachineInput {
    Input(machine::MachineInput),
    /// An event that a hook posts to the admin interface.
    Event {
        call: u32,
        event: Value,
    },
}

/// The admin interface for hooks: a post to `/events/PROTOCOL` is an event.
struct AdminInterface {
    protocol: String,
    hooks: BTreeMap<String, HookSpec>,
    settings: BTreeMap<String, Value>,
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
                hubproof::config::template::fill_template(body, &context).map_err(|error| error.to_string())?
            }
        };
        serde_json::from_str(&text).map_err(|error| format!("`{text}`: {error}"))
    }
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

/// A conversation with more turns than this hangs.
const MAX_TURNS: usize = 1_000_000;

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
        }
    }

    fn play(mut self) -> ScenarioReport {
        let outputs = self.conversation.start(self.now);
        self.carry_out(outputs);
        for _ in 0..MAX_TURNS {
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
                return self.conversation.into_report();
            } else {
                self.advance_clock();
            }
        }
        panic!("the conversation never ends");
    }

    /// Advances the clock to the next deadline: nothing is queued.
    fn advance_clock(&mut self) {
        let next = [self.conversation.deadline(), self.machine.deadline()].into_iter().flatten().min();
        self.now = self.now.max(next.expect("there is a deadline"));
        if self.machine.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.send_to_machine(machine::MachineInput::Tick);
        }
        if self.conversation.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.to_conversation.push_back(ConversationInput::Tick);
        }
    }

    fn carry_out(&mut self, outputs: Vec<ConversationOutput>) {
        for output in outputs {
            match output {
                ConversationOutput::Open { connection, dial } => {
                    let conn = connection.into();
                    self.numbers.insert(conn, connection);
                    self.connections.insert(connection, SimulatedConnection { conn, ..SimulatedConnection::default() });
                    let peer =
                        dial.from.as_deref().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |from| from.parse().unwrap());
                    let handshake = machine::Handshake {
                        path: dial.path.unwrap_or_else(|| "/".to_owned()),
                        query: dial.query,
                        headers: dial.headers.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect(),
                        subprotocols: dial.subprotocols,
                        peer,
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
                ConversationOutput::SendBytes { .. }
                | ConversationOutput::Trace(_)
                | ConversationOutput::Waiting { .. } => {}
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
        let number = FIRST_HUB_CONNECTION + u32::try_from(self.numbers.len()).unwrap();
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
