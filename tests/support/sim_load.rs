//! A simulated load run against a state machine of the reference server: a queue of timed events instead of sockets,
//! timers and threads. Measured by the same recorder and ledger as real runs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use hubproof::load::client::Client;
use hubproof::load::client::io::{ClientFault, ClientIo, End, Input};
use hubproof::load::compile::program::Prepared;
use hubproof::load::compile::{Target, prepare};
use hubproof::load::ids::{HookId, JourneyId, MessageId};
use hubproof::load::ledger::{self, Entry, Ledger, NameOf, NameTable, Totals};
use hubproof::load::plan::schedule::Schedule;
use hubproof::load::plan::{Overrides, Plan, Script};
use hubproof::load::{Nanos, SECOND};
use hubproof::protocol::{Folder, Pack};
use hubproof::syntax::source::Sources;
use hubproof::websocket::handshake::Dial;
use hubproof_reference as reference;
use reference::machine;
use serde_json::Value;

/// A parsed and compiled plan.
pub struct Ready {
    pub plan: Plan,
    pub prepared: Prepared,
    pub protocol: String,
    hooks: BTreeMap<String, hubproof::config::HookSpec>,
}

/// A plan of a protocol's folder by its name, or a text.
pub enum Which<'a> {
    Named(&'a str),
    Text(&'a str),
}

/// Parses a plan that must be valid.
pub fn read(protocol: &str, which: &Which<'_>) -> (Plan, Script, Sources, Folder) {
    let mut sources = Sources::default();
    let folder = super::disk::folder(protocol, &mut sources);
    let (pack, diagnostics) = Pack::load(&folder, &sources);
    assert!(diagnostics.is_empty(), "{}", hubproof::syntax::diagnostic::render_all(&diagnostics, &sources, false));
    let pack = std::sync::Arc::new(pack.unwrap());
    let mut diagnostics = Vec::new();
    let shared = hubproof::scenario::shared(&folder, &sources, &pack, &mut diagnostics);
    let file = match which {
        Which::Named(name) => folder.scenarios[&format!("load/{name}.yaml")],
        Which::Text(text) => sources.add("plan.yaml", *text),
    };
    let root = hubproof::syntax::yaml::parse(&sources, file).unwrap();
    let files = |path: &str| match path {
        "rows.csv" => Ok("name,weight\nfirst,1\nsecond,2\nthird,3\n".to_owned()),
        _ => Err("there is no such file".to_owned()),
    };
    let (read, diagnostics) = hubproof::load::plan::read("test", &root, &shared, &pack, &files);
    assert!(diagnostics.is_empty(), "{}", hubproof::syntax::diagnostic::render_all(&diagnostics, &sources, false));
    let (plan, script) = read.unwrap();
    (plan, script, sources, folder)
}

impl Ready {
    pub fn new(protocol: &str, which: &Which<'_>, overrides: &Overrides) -> Self {
        let (plan, script, mut sources, folder) = read(protocol, which);
        let plan = plan.with(overrides).unwrap();
        let setups = hubproof::reference::setup::Setups::read(&folder, &sources).unwrap();
        let urls = setups.instances.iter().map(|_| "ws://virtual".to_owned()).collect();
        let addresses =
            hubproof::reference::setup::Addresses { urls, admin: Some("http://virtual".to_owned()), ca: None };
        let file = sources.add("target.toml", setups.target_file(protocol, &addresses));
        let target = hubproof::config::parse(&mut sources, file, &[], &|_| None, &|_| Ok(String::new())).unwrap();
        let defaults = script.shared.settings.iter();
        let mut settings: BTreeMap<String, Value> =
            defaults.filter_map(|(name, setting)| Some((name.clone(), setting.default.clone()?))).collect();
        let stated = target.instances[0].settings.iter();
        settings.extend(stated.map(|(name, setting)| (name.clone(), setting.value.clone())));
        let wanted =
            Target { settings, stamp: "test".to_owned(), epoch_ms: EPOCH_MS, seed: 1, keys: ledger::Keys::default() };
        let prepared = prepare(&plan, &script, &wanted)
            .unwrap_or_else(|found| panic!("{}", hubproof::syntax::diagnostic::render_all(&found, &sources, false)));
        Self { plan, prepared, protocol: protocol.to_owned(), hooks: target.hooks }
    }

    pub fn message(&self, name: &str) -> MessageId {
        MessageId(self.prepared.messages.iter().position(|message| message == name).unwrap() as u16)
    }
}

const EPOCH_MS: i64 = 1_700_000_000_000;

/// The network from hub to client: returns the arrival time of each copy of a frame to a client of a role.
pub type Way<'a> = &'a mut dyn FnMut(Nanos, &str, &str) -> Vec<Nanos>;

/// The results of a run.
pub struct RunResults {
    pub account: Totals,
    /// Client faults, with their counts.
    pub faults: BTreeMap<ClientFault, u64>,
    pub sent: BTreeMap<MessageId, u64>,
    /// Response times since the due time, by request.
    pub answered: BTreeMap<MessageId, Vec<Nanos>>,
    pub unanswered: BTreeMap<MessageId, u64>,
    pub delivered: Vec<Nanos>,
    pub published: u64,
    pub journeys: BTreeMap<JourneyId, Vec<Nanos>>,
    pub failed: u64,
    pub missed: u64,
    pub joined: u64,
    /// Failed openings: the operation, and the reason.
    pub not_joined: Vec<(usize, Option<ClientFault>)>,
    pub entries: Vec<Entry>,
    pub names: NameTable,
}

impl RunResults {
    fn new() -> Self {
        Self {
            account: Totals::default(),
            faults: BTreeMap::new(),
            sent: BTreeMap::new(),
            answered: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            delivered: Vec::new(),
            published: 0,
            journeys: BTreeMap::new(),
            failed: 0,
            missed: 0,
            joined: 0,
            not_joined: Vec::new(),
            entries: Vec::new(),
            names: NameTable::default(),
        }
    }
}

enum Event {
    Start(usize),
    Wake(usize),
    Arrivals,
    ToHub(machine::Input),
    ToClient(usize, What),
    Tick,
    /// All connections are cut without a close frame.
    Cut,
    /// The hub is killed and started again.
    Kill,
    Drain,
    Finish,
}

#[derive(Clone, Debug)]
enum What {
    Opened,
    Text(Vec<u8>),
    Closed(End),
    Answer(Option<Vec<u8>>),
}

/// A simulated run: frames take `travel` from a client to the hub, and `way` is the network back.
pub struct Virtual<'a> {
    ready: &'a Ready,
    machine: Box<dyn reference::Machine>,
    travel: Nanos,
    way: Way<'a>,
    now: Nanos,
    /// The number orders events with equal times by creation.
    queue: BinaryHeap<Reverse<(Nanos, u64, usize)>>,
    events: Vec<Option<Event>>,
    clients: Vec<(usize, Client)>,
    lines: Vec<Option<machine::Conn>>,
    owners: BTreeMap<machine::Conn, usize>,
    wakes: Vec<Nanos>,
    room: Vec<VecDeque<usize>>,
    arrivals: Vec<(usize, std::iter::Peekable<Schedule>)>,
    begin: Nanos,
    conns: machine::Conn,
    ticked: Option<Duration>,
    results: RunResults,
}

/// The latest time by which all clients have joined.
const SETTLED: Nanos = 2 * SECOND;

pub fn run(ready: &Ready, travel: Nanos, way: Way<'_>) -> RunResults {
    run_and_cut(ready, travel, way, None)
}

/// Like [`run`], but cuts all connections at a given time.
pub fn run_and_cut(ready: &Ready, travel: Nanos, way: Way<'_>, cut: Option<Nanos>) -> RunResults {
    run_and(ready, travel, way, cut.map(|cut| (cut, Event::Cut)))
}

/// Like [`run`], but kills the hub, with all its state, at a given time and starts it again.
pub fn run_and_kill(ready: &Ready, travel: Nanos, way: Way<'_>, kill: Nanos) -> RunResults {
    run_and(ready, travel, way, Some((kill, Event::Kill)))
}

/// Like [`run`], with a hub that has this fault.
pub fn run_with_fault(ready: &Ready, travel: Nanos, fault: &str) -> RunResults {
    let machine = hub_of(&ready.protocol, 1, Some(fault));
    run_on(ready, machine, travel, &mut |now, _, _| vec![now + travel], None)
}

fn run_and(ready: &Ready, travel: Nanos, way: Way<'_>, accident: Option<(Nanos, Event)>) -> RunResults {
    run_on(ready, hub_of(&ready.protocol, 1, None), travel, way, accident)
}

fn run_on(
    ready: &Ready,
    machine: Box<dyn reference::Machine>,
    travel: Nanos,
    way: Way<'_>,
    accident: Option<(Nanos, Event)>,
) -> RunResults {
    let roles = ready.plan.roles.len();
    let mut this = Virtual {
        ready,
        machine,
        travel,
        way,
        now: 0,
        queue: BinaryHeap::new(),
        events: Vec::new(),
        clients: Vec::new(),
        lines: Vec::new(),
        owners: BTreeMap::new(),
        wakes: Vec::new(),
        room: vec![VecDeque::new(); roles],
        arrivals: Vec::new(),
        begin: 0,
        conns: 0,
        ticked: None,
        results: RunResults::new(),
    };
    if let Some((at, accident)) = accident {
        this.at(at, accident);
    }
    this.play();
    let mut ledger = Ledger::new(ledger::Config {
        ordered: ready.plan.roles.iter().any(|r| r.name == "publisher"),
        ..ledger::Config::default()
    });
    this.results.entries.sort_by_key(|entry| entry.at);
    ledger.add_names(std::mem::take(&mut this.results.names));
    ledger.add(&this.results.entries);
    this.results.account = ledger.finish(this.now);
    this.results
}

/// Creates the hub of a protocol, with the clock of the run, if it has one, and deterministic ids.
fn hub_of(protocol: &str, seed: u32, fault: Option<&str>) -> Box<dyn reference::Machine> {
    let (epoch, seed) = (EPOCH_MS.to_string(), seed.to_string());
    let both = [("seed", seed.as_str()), ("epoch_ms", epoch.as_str())];
    for wanted in [&both[..], &both[1..], &both[..1], &[]] {
        let mut settings = reference::Settings::default();
        let set = wanted.iter().all(|(name, value)| settings.set(name, value).is_ok());
        if let (true, Ok(machine)) = (set, reference::machine(protocol, &settings, fault)) {
            return machine;
        }
    }
    panic!("there is no hub of {protocol}");
}

impl Virtual<'_> {
    fn at(&mut self, at: Nanos, event: Event) {
        let number = self.events.len();
        self.events.push(Some(event));
        self.queue.push(Reverse((at.max(self.now), number as u64, number)));
    }

    fn play(&mut self) {
        let mut starts: Vec<Nanos> = Vec::new();
        let nanos = |time: Duration| time.as_nanos() as Nanos;
        for (place, role) in self.ready.plan.roles.iter().enumerate() {
            let from = role.after.map_or(0, |after| starts[after]);
            let prepared = &self.ready.prepared.roles[place];
            for number in 0..role.population.number {
                self.clients.push((place, Client::new(prepared, number)));
                self.lines.push(None);
                self.wakes.push(Nanos::MAX);
                self.at(from + nanos(role.population.start(number)), Event::Start(self.clients.len() - 1));
            }
            starts.push(from + nanos(role.population.ramp()) + SETTLED);
        }
        self.begin = starts.iter().copied().max().unwrap();
        let phases = self.ready.plan.phases;
        let end = phases.warm_up + phases.duration;
        for (place, role) in self.ready.plan.roles.iter().enumerate() {
            if let Some(arrivals) = &role.arrivals {
                self.arrivals.push((place, Schedule::new(arrivals, end, 7, 0, 1).peekable()));
            }
        }
        self.at(self.begin, Event::Arrivals);
        self.at(self.begin + nanos(end), Event::Drain);
        self.at(self.begin + nanos(end + phases.drain), Event::Finish);
        while let Some(Reverse((at, _, number))) = self.queue.pop() {
            self.now = at;
            match self.events[number].take() {
                Some(Event::Finish) => return self.each(Input::Finish),
                Some(event) => self.happens(event),
                None => {}
            }
        }
    }

    fn each(&mut self, input: Input<'_>) {
        for client in 0..self.clients.len() {
            self.drive(client, input);
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Start(client) => self.drive(client, Input::Start),
            Event::Wake(client) => {
                if self.wakes[client] <= self.now {
                    self.wakes[client] = Nanos::MAX;
                    self.drive(client, Input::Wake);
                }
            }
            Event::Arrivals => self.arrive(),
            Event::ToHub(input) => self.ask(input),
            Event::ToClient(client, what) => match what {
                What::Opened => self.drive(client, Input::Opened),
                What::Text(text) => self.drive(client, Input::Text(&text)),
                What::Closed(end) => {
                    self.lines[client] = None;
                    self.drive(client, Input::Closed(end));
                }
                What::Answer(answer) => self.drive(client, Input::Answer(answer.as_deref())),
            },
            Event::Tick => self.ask(machine::Input::Tick),
            Event::Cut => {
                for client in 0..self.clients.len() {
                    if let Some(conn) = self.lines[client].take() {
                        self.ask(machine::Input::Closed { conn });
                        self.drive(client, Input::Closed(End::Dropped));
                    }
                }
            }
            Event::Kill => {
                // The hub's queued frames are lost, and the new hub generates other ids.
                self.machine = hub_of(&self.ready.protocol, 2, None);
                self.ticked = None;
                self.happens(Event::Cut);
            }
            Event::Drain => self.each(Input::Drain),
            Event::Finish => {}
        }
    }

    fn arrive(&mut self) {
        let mut next = Nanos::MAX;
        for place in 0..self.arrivals.len() {
            let role = self.arrivals[place].0;
            while let Some(due) = self.arrivals[place].1.next_if(|due| self.begin + due <= self.now) {
                let due = self.begin + due;
                let free = loop {
                    match self.room[role].pop_front() {
                        Some(client) if !self.clients[client].1.has_room(&self.ready.prepared.roles[role]) => {}
                        other => break other,
                    }
                };
                match free {
                    Some(client) => {
                        self.drive(client, Input::Arrival { due });
                        if self.clients[client].1.has_room(&self.ready.prepared.roles[role]) {
                            self.room[role].push_back(client);
                        }
                    }
                    None => *self.results.faults.entry(ClientFault::NoFreeClient).or_default() += 1,
                }
            }
            next = next.min(self.arrivals[place].1.peek().map_or(Nanos::MAX, |due| self.begin + due));
        }
        if next < Nanos::MAX {
            self.at(next, Event::Arrivals);
        }
    }

    fn drive(&mut self, client: usize, input: Input<'_>) {
        let (place, mut machine) = (
            self.clients[client].0,
            std::mem::replace(&mut self.clients[client].1, Client::new(&self.ready.prepared.roles[0], 0)),
        );
        let mut hands = Hands { now: self.now, results: &mut self.results, did: Vec::new() };
        machine.handle(&self.ready.prepared.roles[place], self.now, input, &mut hands);
        let did = hands.did;
        self.clients[client].1 = machine;
        for deed in did {
            self.carry(client, place, deed);
        }
    }

    fn carry(&mut self, client: usize, place: usize, deed: Deed) {
        let later = self.now + self.travel;
        match deed {
            Deed::Open(dial) => {
                let conn = self.conns;
                self.conns += 1;
                self.owners.insert(conn, client);
                self.lines[client] = Some(conn);
                let handshake = machine::Handshake {
                    path: dial.path.unwrap_or_else(|| "/".to_owned()),
                    query: dial.query,
                    headers: dial.headers,
                    subprotocols: dial.subprotocols,
                    ..machine::Handshake::default()
                };
                self.at(later, Event::ToHub(machine::Input::Open { conn, handshake }));
            }
            Deed::Send(text) => {
                if let Some(conn) = self.lines[client] {
                    let text = String::from_utf8(text).unwrap();
                    let _: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
                    self.at(later, Event::ToHub(machine::Input::Text { conn, text: text.into() }));
                }
            }
            Deed::Close => {
                if let Some(conn) = self.lines[client] {
                    self.at(later, Event::ToHub(machine::Input::Closed { conn }));
                    self.at(later + self.travel, Event::ToClient(client, What::Closed(End::Close(1000))));
                }
            }
            Deed::Wake(at) => {
                self.wakes[client] = at;
                if at < Nanos::MAX {
                    self.at(at, Event::Wake(client));
                }
            }
            Deed::Room => self.room[place].push_back(client),
            Deed::Hook(hook, call) => {
                let answer = self.hook(hook, &call);
                self.at(later + self.travel, Event::ToClient(client, What::Answer(answer)));
            }
        }
    }

    fn hook(&mut self, hook: HookId, call: &[u8]) -> Option<Vec<u8>> {
        let name = &self.ready.prepared.hooks[usize::from(hook.0)];
        let hubproof::config::HookSpec::Http { body, .. } = self.ready.hooks.get(name)? else { return None };
        let call: Value = serde_json::from_slice(call).unwrap();
        let event = match body {
            None => call["message"].clone(),
            Some(body) => serde_json::from_str(&hubproof::config::template::fill(body, &call).unwrap()).unwrap(),
        };
        let mut out = Vec::new();
        let answer = self.machine.event(Duration::from_nanos(self.now), &event, &mut out).ok();
        self.handle_output(out);
        answer.map(|answer| answer.to_string().into_bytes())
    }

    fn ask(&mut self, input: machine::Input) {
        let mut out = Vec::new();
        self.machine.handle(Duration::from_nanos(self.now), input, &mut out);
        self.handle_output(out);
        // One pending tick at a time, or another one if it is earlier.
        let next = self.machine.deadline();
        if let Some(deadline) = next
            && self.ticked.is_none_or(|ticked| deadline < ticked || ticked.as_nanos() as Nanos <= self.now)
        {
            self.ticked = Some(deadline);
            self.at(deadline.as_nanos() as Nanos, Event::Tick);
        }
    }

    fn handle_output(&mut self, out: Vec<machine::Output>) {
        for output in out {
            let Some(client) = self.owners.get(&output.conn()).copied() else { continue };
            if self.lines[client] != Some(output.conn()) {
                continue;
            }
            let what = match output {
                machine::Output::Accept { .. } => What::Opened,
                machine::Output::Refuse { status, .. } => What::Closed(End::Refused(status)),
                machine::Output::Text { text, .. } => {
                    let role = &self.ready.plan.roles[self.clients[client].0].name;
                    for at in (self.way)(self.now, role, text.as_str()) {
                        self.at(at, Event::ToClient(client, What::Text(text.as_bytes().to_vec())));
                    }
                    continue;
                }
                machine::Output::Close { code, .. } => What::Closed(End::Close(code)),
                machine::Output::Drop { .. } => What::Closed(End::Dropped),
                machine::Output::Binary { .. } | machine::Output::Connect { .. } => continue,
            };
            self.at(self.now + self.travel, Event::ToClient(client, what));
        }
    }
}

enum Deed {
    Open(Dial),
    Send(Vec<u8>),
    Close,
    Wake(Nanos),
    Room,
    Hook(HookId, Vec<u8>),
}

struct Hands<'a> {
    now: Nanos,
    results: &'a mut RunResults,
    did: Vec<Deed>,
}

impl ClientIo for Hands<'_> {
    fn open(&mut self, dial: &Dial) {
        self.did.push(Deed::Open(dial.clone()));
    }

    fn close(&mut self, _code: u16) {
        self.did.push(Deed::Close);
    }

    fn send(&mut self, message: MessageId, _due: Nanos, write: impl FnOnce(&mut Vec<u8>)) -> Nanos {
        *self.results.sent.entry(message).or_default() += 1;
        let mut text = Vec::new();
        write(&mut text);
        self.did.push(Deed::Send(text));
        self.now
    }

    fn wake(&mut self, at: Nanos) {
        self.did.push(Deed::Wake(at));
    }

    fn hook(&mut self, hook: HookId, write: impl FnOnce(&mut Vec<u8>)) {
        let mut call = Vec::new();
        write(&mut call);
        self.did.push(Deed::Hook(hook, call));
    }

    fn joined(&mut self) {
        self.results.joined += 1;
    }

    fn not_joined(&mut self, at: usize, fault: Option<ClientFault>) {
        self.results.not_joined.push((at, fault));
    }

    fn room(&mut self) {
        self.did.push(Deed::Room);
    }

    fn received(&mut self, _message: Option<MessageId>, _at: Nanos, _bytes: usize) {}

    fn answered(&mut self, message: MessageId, due: Nanos, sent: Nanos, at: Nanos) {
        assert!(due <= sent && sent <= at, "{due} {sent} {at}");
        self.results.answered.entry(message).or_default().push(at - due);
    }

    fn unanswered(&mut self, message: MessageId, _at: Nanos) {
        *self.results.unanswered.entry(message).or_default() += 1;
    }

    fn delivered(&mut self, _message: MessageId, due: Nanos, at: Nanos) {
        self.results.delivered.push(at - due);
    }

    fn published(&mut self, _message: MessageId, receivers: u32, _at: Nanos) {
        self.results.published += u64::from(receivers);
    }

    fn begun(&mut self, _journey: JourneyId, _at: Nanos) {}

    fn idle(&mut self, _journey: JourneyId, _at: Nanos) {}

    fn failed(&mut self, _journey: JourneyId, _at: Nanos) {
        self.results.failed += 1;
    }

    fn journey(&mut self, journey: JourneyId, due: Nanos, at: Nanos) {
        self.results.journeys.entry(journey).or_default().push(at - due);
    }

    fn missed(&mut self, _message: MessageId, times: u64, _at: Nanos) {
        self.results.missed += times;
    }

    fn fault(&mut self, fault: ClientFault, _at: Nanos) {
        *self.results.faults.entry(fault).or_default() += 1;
    }

    fn note(&mut self, entry: Entry) {
        self.results.entries.push(entry);
    }

    fn name(&mut self, of: NameOf, name: &[u8]) {
        self.results.names.push(of, name);
    }
}
