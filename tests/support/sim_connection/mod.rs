//! A simulated connection between a conversation and a state machine of the reference server: a queue and a simulated
//! clock instead of sockets, timers and threads. Deterministic, and fast enough to play every scenario against every
//! fault.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use hubproof::config::HookSpec;
use hubproof::event::ScenarioReport;
use hubproof::interpreter::{Config, Conversation, Input, Output};
use hubproof::protocol::{Folder, Pack};
use hubproof::reference::setup::{Addresses, Setups};
use hubproof::scenario::{Program, Scenarios};
use hubproof::syntax::source::Sources;
use hubproof::websocket::frame::{Frame, Message, Opcode, Received};
use hubproof_reference as reference;
use reference::machine;
use serde_json::Value;

pub mod websocket;

/// One protocol, loaded from the repository.
pub struct Protocol {
    pub sources: Sources,
    pub pack: Arc<Pack>,
    pub scenarios: Scenarios,
    pub setups: Setups,
    /// Whether it is the protocol of WebSocket itself.
    pub habit: websocket::Habit,
    targets: Vec<Instance>,
    hooks: BTreeMap<String, HookSpec>,
}

struct Instance {
    settings: BTreeMap<String, Value>,
    provides: BTreeSet<String>,
}

impl Protocol {
    pub fn load(name: &str) -> Self {
        let mut sources = Sources::default();
        let folder = super::disk::folder(name, &mut sources);
        Self::of(&folder, sources)
    }

    pub fn of(folder: &Folder, mut sources: Sources) -> Self {
        let (pack, diagnostics) = Pack::load(folder, &sources);
        assert!(diagnostics.is_empty(), "{}", hubproof::syntax::diagnostic::render_all(&diagnostics, &sources, false));
        let pack = Arc::new(pack.unwrap());
        let scenarios = Scenarios::load(folder, &sources, &pack);
        assert!(
            scenarios.diagnostics.is_empty(),
            "{}",
            hubproof::syntax::diagnostic::render_all(&scenarios.diagnostics, &sources, false)
        );
        let setups = Setups::read(folder, &sources).unwrap_or_else(|d| panic!("{}", d.render(&sources, false)));
        let urls = setups.instances.iter().map(|_| "ws://virtual".to_owned()).collect();
        let text =
            setups.target_file(&folder.name, &Addresses { urls, admin: Some("http://virtual".to_owned()), ca: None });
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
                Instance { settings, provides }
            })
            .collect();
        Self { sources, pack, scenarios, setups, habit: websocket::Habit::None, targets, hooks: target.hooks }
    }

    /// Returns the settings of the first instance that meets the needs of a scenario; otherwise of the first instance.
    pub fn settings(&self, program: &Program) -> BTreeMap<String, Value> {
        self.targets[self.instance(program).unwrap_or(0)].settings.clone()
    }

    fn instance(&self, program: &Program) -> Option<usize> {
        self.targets.iter().position(|target| {
            let provides = |word: &str| target.provides.contains(word);
            let hooks = |name: &str| self.hooks.contains_key(name);
            hubproof::interpreter::unmet(program, &target.settings, &provides, &hooks).unwrap().is_empty()
        })
    }

    /// Sets a setting in every instance: of the server (`serve`), if given, and of its target.
    pub fn set(&mut self, serve: Option<&str>, setting: &str, value: impl Into<Value>) {
        let value = value.into();
        let told = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        for (instance, target) in self.setups.instances.iter_mut().zip(&mut self.targets) {
            instance.serve.extend(serve.map(|serve| (serve.to_owned(), told.clone())));
            target.settings.insert(setting.to_owned(), value.clone());
        }
    }

    /// Plays a scenario on the first instance that meets its needs; `None` if none does.
    pub fn play(&self, program: &Arc<Program>, fault: Option<&str>) -> Option<ScenarioReport> {
        self.play_on(program, fault, &|machine| machine, Manner::default())
    }

    /// Like [`Self::play`], with a wrapper around the machine and a way of sending frames.
    pub fn play_on(
        &self,
        program: &Arc<Program>,
        fault: Option<&str>,
        around: &dyn Fn(Box<dyn reference::Machine>) -> Box<dyn reference::Machine>,
        manner: Manner,
    ) -> Option<ScenarioReport> {
        let index = self.instance(program)?;
        let mut settings = reference::Settings::default();
        for (name, value) in &self.setups.instances[index].serve {
            settings.set(name, value).unwrap();
        }
        // A hub with a clock starts at the time of the conversation; the others do not have this setting.
        let mut timed = settings.clone();
        timed.set("epoch_ms", &EPOCH_MS.to_string()).unwrap();
        let machine = reference::machine(&self.pack.name, &timed, fault)
            .or_else(|_| reference::machine(&self.pack.name, &settings, fault))
            .unwrap_or_else(|error| panic!("{error}"));
        let config = config(self.targets[index].settings.clone());
        let admin = Admin {
            protocol: self.pack.name.clone(),
            hooks: self.hooks.clone(),
            settings: self.targets[index].settings.clone(),
        };
        let conversation = Conversation::new(Arc::clone(program), config);
        let mut report = if self.pack.name == reference::protocols::websocket::PROTOCOL {
            websocket::play(conversation, fault, self.habit)
        } else {
            Wire { manner, ..Wire::new(conversation, around(machine), admin) }.play()
        };
        report.instance.clone_from(&self.setups.instances[index].name);
        Some(report)
    }
}

/// Returns the default configuration of a conversation.
pub fn config(settings: BTreeMap<String, Value>) -> Config {
    Config {
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
    }
}

/// How a hub sends frames where RFC 6455 leaves a choice.
#[derive(Clone, Copy, Default)]
pub struct Manner {
    /// A ping is sent before every message.
    pub pings: bool,
    /// Every message is sent in three frames.
    pub fragments: bool,
}
/// The start of every conversation, in Unix milliseconds.
const EPOCH_MS: i64 = 1_700_000_000_000;

struct Wire {
    manner: Manner,
    conversation: Conversation,
    machine: Box<dyn reference::Machine>,
    admin: Admin,
    now: Duration,
    to_conversation: VecDeque<Input>,
    to_machine: VecDeque<ToMachine>,
    connections: BTreeMap<u32, Connection>,
    /// The conversation's numbers of the machine's connections.
    numbers: BTreeMap<machine::Conn, u32>,
}

enum ToMachine {
    Input(machine::Input),
    /// An event that a hook posts to the admin interface.
    Event {
        call: u32,
        event: Value,
    },
}

/// The admin interface for hooks: a post to `/events/PROTOCOL` is an event.
struct Admin {
    protocol: String,
    hooks: BTreeMap<String, HookSpec>,
    settings: BTreeMap<String, Value>,
}

impl Admin {
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
                hubproof::config::template::fill(body, &context).map_err(|error| error.to_string())?
            }
        };
        serde_json::from_str(&text).map_err(|error| format!("`{text}`: {error}"))
    }
}

/// First number of connections that the hub opens.
const ACCEPTED: u32 = 1 << 20;

#[derive(Default)]
struct Connection {
    conn: machine::Conn,
    open: bool,
    /// Frames of an incomplete message.
    partial: Option<(bool, Vec<u8>, u32)>,
    /// Frames received while the actor does not read.
    held: Option<Vec<Received>>,
}

/// A conversation with more turns than this hangs.
const MOST_TURNS: usize = 1_000_000;

impl Wire {
    fn new(mut conversation: Conversation, machine: Box<dyn reference::Machine>, admin: Admin) -> Self {
        for actor in conversation.listeners() {
            conversation.listens(actor, address(actor));
        }
        Self {
            manner: Manner::default(),
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
        self.carry(outputs);
        for _ in 0..MOST_TURNS {
            if let Some(next) = self.to_machine.pop_front() {
                let mut out = Vec::new();
                match next {
                    ToMachine::Input(input) => {
                        self.machine.handle(self.now, input, &mut out);
                        out.into_iter().for_each(|output| self.handle_output(output));
                    }
                    ToMachine::Event { call, event } => {
                        let answer = self.machine.event(self.now, &event, &mut out).map_err(|error| error.to_string());
                        // Frames may overtake the hook's answer, so allow that.
                        out.into_iter().for_each(|output| self.handle_output(output));
                        self.to_conversation.push_back(Input::HookAnswer { call, answer });
                    }
                }
            } else if let Some(input) = self.to_conversation.pop_front() {
                let outputs = self.conversation.handle(self.now, input);
                self.carry(outputs);
            } else if self.conversation.is_finished() {
                return self.conversation.into_report();
            } else {
                self.wait();
            }
        }
        panic!("the conversation never ends");
    }

    /// Advances the clock to the next deadline: nothing is queued.
    fn wait(&mut self) {
        let next = [self.conversation.deadline(), self.machine.deadline()].into_iter().flatten().min();
        self.now = self.now.max(next.expect("there is a deadline"));
        if self.machine.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.ask(machine::Input::Tick);
        }
        if self.conversation.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.to_conversation.push_back(Input::Tick);
        }
    }

    fn carry(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Open { connection, dial } => {
                    let conn = connection.into();
                    self.numbers.insert(conn, connection);
                    self.connections.insert(connection, Connection { conn, ..Connection::default() });
                    let peer =
                        dial.from.as_deref().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |from| from.parse().unwrap());
                    let handshake = machine::Handshake {
                        path: dial.path.unwrap_or_else(|| "/".to_owned()),
                        query: dial.query,
                        headers: dial.headers.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect(),
                        subprotocols: dial.subprotocols,
                        peer,
                    };
                    self.ask(machine::Input::Open { conn, handshake });
                }
                Output::Send { connection, frames } => {
                    frames.into_iter().for_each(|frame| self.frame(connection, frame))
                }
                Output::End { connection, .. } => self.closed(connection),
                Output::StopReading { connection } => {
                    if let Some(connection) = self.connections.get_mut(&connection) {
                        connection.held.get_or_insert_default();
                    }
                }
                Output::ReadAgain { connection } => {
                    let held = self.connections.get_mut(&connection).and_then(|connection| connection.held.take());
                    for what in held.into_iter().flatten() {
                        self.to_conversation.push_back(Input::Received { connection, what });
                    }
                }
                Output::Hook { call, name, args, message } => match self.admin.event(&name, &args, message.as_ref()) {
                    Ok(event) => self.to_machine.push_back(ToMachine::Event { call, event }),
                    Err(error) => self.to_conversation.push_back(Input::HookAnswer { call, answer: Err(error) }),
                },
                Output::SendBytes { .. } | Output::Trace(_) | Output::Waiting { .. } => {}
            }
        }
    }

    fn ask(&mut self, input: machine::Input) {
        self.to_machine.push_back(ToMachine::Input(input));
    }

    fn tell(&mut self, connection: u32, what: Received) {
        match self.connections.get_mut(&connection).and_then(|connection| connection.held.as_mut()) {
            Some(held) => held.push(what),
            None => self.to_conversation.push_back(Input::Received { connection, what }),
        }
    }

    /// Handles a frame as a server's WebSocket layer does.
    fn frame(&mut self, connection: u32, frame: Frame) {
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
                    self.ask(machine::Input::Binary { conn, data: payload });
                } else {
                    match String::from_utf8(payload) {
                        Ok(text) => self.ask(machine::Input::Text { conn, text: text.into() }),
                        Err(_) => {
                            self.tell(connection, Received::Close { code: Some(1007), reason: String::new() });
                            self.closed(connection);
                        }
                    }
                }
            }
            Opcode::Ping => {
                self.ask(machine::Input::Ping { conn });
                self.tell(connection, Received::Pong(frame.payload));
            }
            Opcode::Close => {
                let code = frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                self.tell(connection, Received::Close { code, reason: String::new() });
                self.closed(connection);
            }
            Opcode::Pong => {}
            Opcode::Reserved(_) => {
                self.tell(connection, Received::Close { code: Some(1002), reason: String::new() });
                self.closed(connection);
            }
        }
    }

    fn closed(&mut self, connection: u32) {
        if let Some(state) = self.connections.get_mut(&connection).filter(|state| state.open) {
            state.open = false;
            let conn = state.conn;
            self.ask(machine::Input::Closed { conn });
            self.tell(connection, Received::End { reset: false, reason: String::new() });
        }
    }

    fn handle_output(&mut self, output: machine::Output) {
        if let machine::Output::Connect { conn, url } = output {
            return self.connect(conn, &url);
        }
        let Some(connection) = self.numbers.get(&output.conn()).copied() else { return };
        match output {
            machine::Output::Accept { subprotocol, .. } => {
                if let Some(state) = self.connections.get_mut(&connection) {
                    state.open = true;
                }
                self.tell(connection, Received::Upgraded { status: 101, headers: Vec::new(), subprotocol });
            }
            machine::Output::Refuse { status, body, .. } => {
                let reason = format!("HTTP {status} instead of 101");
                self.tell(
                    connection,
                    Received::Refused { status, headers: Vec::new(), body: body.into_bytes(), reason },
                );
            }
            machine::Output::Text { text, .. } => self.message(connection, false, text.as_bytes().to_vec()),
            machine::Output::Binary { data, .. } => self.message(connection, true, data),
            machine::Output::Close { code, reason, .. } => {
                self.tell(connection, Received::Close { code: Some(code), reason });
                self.end(connection);
            }
            machine::Output::Drop { .. } => self.end(connection),
            machine::Output::Connect { .. } => {}
        }
    }

    fn message(&mut self, connection: u32, binary: bool, payload: Vec<u8>) {
        if self.connections.get(&connection).is_some_and(|state| state.open) {
            if self.manner.pings {
                self.tell(connection, Received::Ping(b"are you there?".to_vec()));
            }
            let frames = if self.manner.fragments { 3 } else { 1 };
            self.tell(connection, Received::Message(Message { binary, payload, frames }));
        }
    }

    /// Connects the hub to a listening actor.
    fn connect(&mut self, conn: machine::Conn, url: &str) {
        let Some(actor) = self.conversation.listeners().into_iter().find(|actor| address(*actor) == url) else {
            return self.ask(machine::Input::ConnectFailed { conn, reason: format!("nothing listens at {url}") });
        };
        let number = ACCEPTED + u32::try_from(self.numbers.len()).unwrap();
        self.numbers.insert(conn, number);
        self.connections.insert(number, Connection { conn, open: true, ..Connection::default() });
        self.to_conversation.push_back(Input::Accepted { actor, connection: number });
        self.tell(number, Received::Upgraded { status: 101, headers: Vec::new(), subprotocol: None });
        self.ask(machine::Input::Connected { conn });
    }

    fn end(&mut self, connection: u32) {
        if let Some(state) = self.connections.get_mut(&connection) {
            state.open = false;
        }
        self.tell(connection, Received::End { reset: false, reason: String::new() });
    }
}

/// Returns the address of a listening actor.
fn address(actor: usize) -> String {
    format!("ws://virtual/actors/{actor}")
}
