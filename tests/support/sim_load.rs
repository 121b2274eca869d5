//! A simulated load run against a state machine of the reference server: a queue of timed events instead of sockets,
//! timers and threads. Measured by the same recorder and ledger as real runs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hubproof::deviation::Deviations;
use hubproof::load::client::VirtualClient;
use hubproof::load::client::io::{ClientEvent, ClientFault, ClientIo, Disconnection, JourneyWait};
use hubproof::load::compile::program::CompiledPlan;
use hubproof::load::compile::{PlanTarget, compile_plan};
use hubproof::load::engine::translation::{AssumedMessage, ShardTranslator};
use hubproof::load::holds::Holds;
use hubproof::load::ids::{HookId, JourneyId, MessageId, OperationId};
use hubproof::load::ledger::{self, ItemLedger, LedgerEntry, LedgerTotals, NameOwner, NameTable};
use hubproof::load::metrics::{
    JourneyCount, Measurement, MessageCount, MetricRecorder, MetricRegistry, MetricSeries, MetricSubjects, RunPhases,
};
use hubproof::load::plan::schedule::{ArrivalSchedule, EveryNth};
use hubproof::load::plan::{Plan, PlanOverrides, PlanScript, WarmUp, threshold};
use hubproof::load::provenance::DeliveredFrame;
use hubproof::load::report::{LoadReport, LoadRunMetadata};
use hubproof::load::validity::{RunCircumstances, judge_run};
use hubproof::load::{Nanos, SECOND};
use hubproof::protocol::{Pack, PackFolder};
use hubproof::syntax::source::{Sources, Span};
use hubproof::websocket::dial::Dial;
use hubproof_reference as reference;
use reference::machine;
use serde_json::Value;

/// A parsed and compiled plan.
pub struct CompiledTestPlan {
    pub plan: Plan,
    pub prepared: CompiledPlan,
    pub protocol: String,
    script: PlanScript,
    /// Settings of the reference server, by name.
    serve: Vec<(String, String)>,
    hooks: BTreeMap<String, hubproof::config::HookSpec>,
}

/// A plan of a protocol's folder by its name, or a text.
pub enum PlanSource<'a> {
    Named(&'a str),
    Text(&'a str),
}

/// Parses a plan that must be valid.
pub fn parse_test_plan(protocol: &str, which: &PlanSource<'_>) -> (Plan, PlanScript, Sources, PackFolder) {
    let mut sources = Sources::default();
    let folder = super::disk::protocol_folder(protocol, &mut sources);
    let (pack, diagnostics) = Pack::load(&folder, &sources);
    assert!(diagnostics.is_empty(), "{}", hubproof::syntax::diagnostic::render_all(&diagnostics, &sources, false));
    let pack = Arc::new(pack.unwrap());
    let mut diagnostics = Vec::new();
    let shared = hubproof::scenario::load_shared(&folder, &sources, &pack, &mut diagnostics);
    let file = match which {
        PlanSource::Named(name) => folder.scenarios[&format!("load/{name}.yaml")],
        PlanSource::Text(text) => sources.add("plan.yaml", *text),
    };
    let root = hubproof::syntax::yaml::parse(&sources, file).unwrap();
    let files = |path: &str| match path {
        "rows.csv" => Ok("name,weight\nfirst,1\nsecond,2\nthird,3\n".to_owned()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    let (read, diagnostics) = hubproof::load::plan::parse_load_plan("test", &root, &shared, &pack, &files);
    assert!(diagnostics.is_empty(), "{}", hubproof::syntax::diagnostic::render_all(&diagnostics, &sources, false));
    let (plan, script) = read.unwrap();
    (plan, script, sources, folder)
}

impl CompiledTestPlan {
    pub fn new(protocol: &str, which: &PlanSource<'_>, overrides: &PlanOverrides) -> Self {
        Self::of_deviating_hub("[]", protocol, which, overrides)
    }

    /// Compiles a plan for a hub with the deviations of a YAML list.
    pub fn of_deviating_hub(
        deviations: &str,
        protocol: &str,
        which: &PlanSource<'_>,
        overrides: &PlanOverrides,
    ) -> Self {
        let (plan, script, mut sources, folder) = parse_test_plan(protocol, which);
        let plan = plan.with_overrides(overrides).unwrap();
        let setups = hubproof::reference::setup::ReferenceSetups::from_folder(&folder, &sources).unwrap();
        let urls = setups.instances.iter().map(|_| "ws://virtual".to_owned()).collect();
        let addresses =
            hubproof::reference::setup::ReferenceAddresses { urls, admin: Some("http://virtual".to_owned()), ca: None };
        let file = sources.add("target.toml", setups.render_target_file(protocol, &addresses));
        let target = hubproof::config::parse(&mut sources, file, &[], &|_| None, &|_| Ok(String::new())).unwrap();
        let defaults = script.shared.settings.iter();
        let mut settings: BTreeMap<String, Value> =
            defaults.filter_map(|(name, setting)| Some((name.clone(), setting.default.clone()?))).collect();
        let stated = target.instances[0].settings.iter();
        settings.extend(stated.map(|(name, setting)| (name.clone(), setting.value.clone())));
        let file = sources.add("hub.yaml", deviations);
        let nodes = hubproof::syntax::yaml::parse(&sources, file).unwrap();
        let deviations = Deviations::parse(nodes.list().unwrap(), &script.pack, &script.shared, false)
            .unwrap_or_else(|found| panic!("{}", hubproof::syntax::diagnostic::render_all(&found, &sources, false)));
        let wanted = PlanTarget {
            settings,
            stamp: "test".to_owned(),
            epoch_ms: EPOCH_MS,
            seed: 1,
            keys: ledger::IdHasher::random(),
            deviations: std::sync::Arc::new(deviations),
            masker: std::sync::Arc::default(),
        };
        let prepared = compile_plan(&plan, &script, &wanted)
            .unwrap_or_else(|found| panic!("{}", hubproof::syntax::diagnostic::render_all(&found, &sources, false)));
        let serve = setups.instances[0].serve.clone();
        Self { plan, prepared, protocol: protocol.to_owned(), script, serve, hooks: target.hooks }
    }

    /// Reads the deviations of a hub, and prepares to translate its messages.
    fn translator(&self, entries: &str) -> ShardTranslator {
        let mut sources = Sources::default();
        let file = sources.add("hub.yaml", entries);
        let nodes = hubproof::syntax::yaml::parse(&sources, file).unwrap();
        let pack = &self.script.pack;
        let read = Deviations::parse(nodes.list().unwrap(), pack, &self.script.shared, false).unwrap();
        ShardTranslator::new(&Arc::new(read), pack, 0, EPOCH_MS).unwrap()
    }

    pub fn message(&self, name: &str) -> MessageId {
        MessageId(self.prepared.messages.iter().position(|message| message == name).unwrap() as u16)
    }
}

const EPOCH_MS: i64 = 1_700_000_000_000;

/// The network from hub to client: returns the arrival time of each copy of a frame to a client of a role.
pub type Downlink<'a> = &'a mut dyn FnMut(Nanos, &str, &str) -> Vec<Nanos>;

/// The results of a run.
#[derive(Default)]
pub struct SimulationResults {
    pub account: LedgerTotals,
    /// Client faults, with their counts.
    pub faults: BTreeMap<ClientFault, u64>,
    pub sent: BTreeMap<MessageId, u64>,
    /// Response times since the due time, by request.
    pub answered: BTreeMap<MessageId, Vec<Nanos>>,
    /// Frames of the hub, and frames that clients assumed, by message.
    pub received: BTreeMap<Option<MessageId>, u64>,
    pub assumed: BTreeMap<MessageId, u64>,
    pub answers_assumed: BTreeMap<MessageId, u64>,
    pub assumed_texts: Vec<String>,
    pub journeys_assumed: u64,
    pub delivered: Vec<Nanos>,
    pub published: u64,
    pub journeys: BTreeMap<JourneyId, Vec<Nanos>>,
    /// How many messages of each operation were sent and answered.
    pub operations: BTreeMap<OperationId, (u64, u64)>,
    /// How many journeys ended in each wait.
    pub waits: BTreeMap<JourneyWait, u64>,
    /// The most frames that a client has kept.
    pub most_kept: usize,
    pub failed: u64,
    /// Journeys that were due but never began, and messages that were due but never sent.
    pub missed: u64,
    pub messages_missed: u64,
    pub late: u64,
    pub skipped: u64,
    pub unfinished: u64,
    /// The measurements of the recorder.
    series: Option<MetricSeries>,
    pub joined: u64,
    /// Failed openings: the operation, and the reason.
    pub not_joined: Vec<(usize, Option<ClientFault>)>,
    pub entries: Vec<LedgerEntry>,
    pub names: NameTable,
}

impl SimulationResults {
    /// Builds the report of the run, as `hubproof load` does.
    pub fn into_report(mut self, ready: &CompiledTestPlan, thresholds: &[&str]) -> LoadReport {
        let (series, account) = (self.series.take().unwrap(), std::mem::take(&mut self.account));
        let parse = |text: &&str| {
            let mut sources = Sources::default();
            let file = sources.add("--threshold", *text);
            threshold::parse_threshold(text, Span::new(file, 0..text.len()), &series.layout).unwrap()
        };
        let watch = threshold::ThresholdWatch::new(thresholds.iter().map(parse).collect(), &series.layout);
        let workloads = ready.script.workloads(&ready.plan);
        let (clients, changing_load) =
            (ready.plan.roles.iter().map(|role| u64::from(role.population.number)).sum(), ready.plan.changes_load());
        let circumstances = RunCircumstances { workloads: workloads.clone(), clients, ..RunCircumstances::default() };
        let about = LoadRunMetadata { workloads, changing_load, ..LoadRunMetadata::default() };
        let mut report = LoadReport::new(about, series, account, Vec::new(), Default::default());
        report.thresholds = watch.finish(report.measurements(), None, false);
        report.judgement = judge_run(report.measurements(), &report.thresholds, circumstances);
        report
    }
}

fn nanos(time: Duration) -> Nanos {
    time.as_nanos() as Nanos
}

enum SimulatedEvent {
    Start(usize),
    Wake(usize),
    Arrivals,
    ToHub(machine::MachineInput),
    ToClient(usize, ClientInput),
    Tick,
    /// All connections are cut without a close frame.
    Cut,
    /// The hub is killed and started again.
    Kill,
    /// New journeys are held back until this time.
    Hold(Nanos),
    Resume,
    Drain,
    Finish,
}

#[derive(Clone, Debug)]
enum ClientInput {
    Opened,
    Text(Vec<u8>),
    Closed(Disconnection),
    Answer(Option<Vec<u8>>),
}

/// A simulated run: frames take `travel` from a client to the hub, and `downlink` is the network back.
pub struct SimulatedRun<'a> {
    ready: &'a CompiledTestPlan,
    machine: Box<dyn reference::Machine>,
    travel: Nanos,
    downlink: Downlink<'a>,
    now: Nanos,
    /// The number orders events with equal times by creation.
    queue: BinaryHeap<Reverse<(Nanos, u64, usize)>>,
    events: Vec<Option<SimulatedEvent>>,
    clients: Vec<(usize, VirtualClient)>,
    lines: Vec<Option<machine::ConnectionId>>,
    owners: BTreeMap<machine::ConnectionId, usize>,
    wakes: Vec<Nanos>,
    room: Vec<VecDeque<usize>>,
    arrivals: Vec<(usize, std::iter::Peekable<ArrivalSchedule>)>,
    begin: Nanos,
    holds: Holds,
    conns: machine::ConnectionId,
    ticked: Option<Duration>,
    translator: Option<ShardTranslator>,
    form: Option<HubForm<'a>>,
    recorder: MetricRecorder,
    results: SimulationResults,
}

/// The latest time by which all clients have joined.
const MAX_JOIN_TIME: Nanos = 2 * SECOND;

pub fn run(ready: &CompiledTestPlan, travel: Nanos, downlink: Downlink<'_>) -> SimulationResults {
    run_and_cut(ready, travel, downlink, None)
}

/// Like [`run`], but cuts all connections at a given time.
pub fn run_and_cut(
    ready: &CompiledTestPlan,
    travel: Nanos,
    downlink: Downlink<'_>,
    cut: Option<Nanos>,
) -> SimulationResults {
    run_with_accident(ready, travel, downlink, cut.map(|cut| (cut, SimulatedEvent::Cut)))
}

/// Like [`run`], but kills the hub, with all its state, at a given time and starts it again.
pub fn run_and_kill(ready: &CompiledTestPlan, travel: Nanos, downlink: Downlink<'_>, kill: Nanos) -> SimulationResults {
    run_with_accident(ready, travel, downlink, Some((kill, SimulatedEvent::Kill)))
}

/// Like [`run`], but holds back new journeys in a range of time.
pub fn run_and_hold(
    ready: &CompiledTestPlan,
    travel: Nanos,
    downlink: Downlink<'_>,
    hold: std::ops::Range<Nanos>,
) -> SimulationResults {
    run_with_accident(ready, travel, downlink, Some((hold.start, SimulatedEvent::Hold(hold.end))))
}

/// Like [`run`], with a hub that has this fault.
pub fn run_with_fault(ready: &CompiledTestPlan, travel: Nanos, fault: &str) -> SimulationResults {
    let machine = hub_of(ready, 1, Some(fault));
    run_on_machine(ready, machine, travel, &mut |now, _, _| vec![now + travel], None, None)
}

/// Returns a text in the form of a hub that deviates; `None` if it never sends such a text.
pub type HubForm<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Like [`run`], with a hub that deviates, and the entries that declare this (a YAML list).
pub fn run_with_deviations(
    ready: &CompiledTestPlan,
    travel: Nanos,
    form: HubForm<'_>,
    entries: &str,
) -> SimulationResults {
    let deviates = Some((ready.translator(entries), form));
    run_on_machine(ready, hub_of(ready, 1, None), travel, &mut |now, _, _| vec![now + travel], None, deviates)
}

fn run_with_accident(
    ready: &CompiledTestPlan,
    travel: Nanos,
    downlink: Downlink<'_>,
    accident: Option<(Nanos, SimulatedEvent)>,
) -> SimulationResults {
    run_on_machine(ready, hub_of(ready, 1, None), travel, downlink, accident, None)
}

fn run_on_machine(
    ready: &CompiledTestPlan,
    machine: Box<dyn reference::Machine>,
    travel: Nanos,
    downlink: Downlink<'_>,
    accident: Option<(Nanos, SimulatedEvent)>,
    deviates: Option<(ShardTranslator, HubForm<'_>)>,
) -> SimulationResults {
    let (translator, form) = deviates.unzip();
    let roles = ready.plan.roles.len();
    let subjects = MetricSubjects {
        messages: ready.prepared.messages.clone(),
        journeys: ready.prepared.journeys.clone(),
        operations: ready.prepared.operations.clone(),
    };
    let layout = MetricRegistry::new(subjects);
    let mut this = SimulatedRun {
        ready,
        machine,
        travel,
        downlink,
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
        holds: Holds::default(),
        conns: 0,
        ticked: None,
        translator,
        form,
        recorder: MetricRecorder::new(
            layout.clone(),
            RunPhases { interval: SECOND, measured: u64::MAX..u64::MAX, holds: Vec::new() },
        ),
        results: SimulationResults::default(),
    };
    if let Some((at, accident)) = accident {
        this.schedule(at, accident);
    }
    this.play();
    let mut series = MetricSeries::new(layout, 1);
    for interval in this.recorder.finish(this.now + 1) {
        series.add(interval);
    }
    this.results.series = Some(series);
    let mut ledger = ItemLedger::new(ledger::LedgerConfig {
        ordered: ready.plan.roles.iter().any(|r| r.name == "publisher"),
        ..ledger::LedgerConfig::default()
    });
    this.results.entries.sort_by_key(|entry| entry.at);
    ledger.add_names(std::mem::take(&mut this.results.names));
    ledger.queue_entries(&this.results.entries);
    this.results.account = ledger.finish(this.now);
    this.results
}

/// Creates the hub of a protocol, with the clock of the run, if it has one, and deterministic ids.
fn hub_of(ready: &CompiledTestPlan, seed: u32, fault: Option<&str>) -> Box<dyn reference::Machine> {
    let protocol = &*ready.protocol;
    let (epoch, seed) = (EPOCH_MS.to_string(), seed.to_string());
    let both = [("seed", seed.as_str()), ("epoch_ms", epoch.as_str())];
    for wanted in [&both[..], &both[1..], &both[..1], &[]] {
        let mut settings = reference::Settings::default();
        let stated = ready.serve.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let set = stated.chain(wanted.iter().copied()).all(|(name, value)| settings.set(name, value).is_ok());
        if let (true, Ok(machine)) = (set, reference::build_machine(protocol, &settings, fault)) {
            return machine;
        }
    }
    panic!("there is no hub of {protocol}");
}

impl SimulatedRun<'_> {
    fn schedule(&mut self, at: Nanos, event: SimulatedEvent) {
        let number = self.events.len();
        self.events.push(Some(event));
        self.queue.push(Reverse((at.max(self.now), number as u64, number)));
    }

    fn play(&mut self) {
        let mut starts: Vec<Nanos> = Vec::new();
        for (place, role) in self.ready.plan.roles.iter().enumerate() {
            let from = role.after.map_or(0, |after| starts[after]);
            let prepared = &self.ready.prepared.roles[place];
            for number in 0..role.population.number {
                self.clients.push((place, VirtualClient::new(prepared, number)));
                self.lines.push(None);
                self.wakes.push(Nanos::MAX);
                self.schedule(
                    from + nanos(role.population.connect_time(number)),
                    SimulatedEvent::Start(self.clients.len() - 1),
                );
            }
            starts.push(from + nanos(role.population.ramp_time()) + MAX_JOIN_TIME);
        }
        self.begin = starts.iter().copied().max().unwrap();
        let phases = self.ready.plan.phases;
        let end = phases.longest_warm_up() + phases.duration;
        let measured = self.begin + nanos(phases.longest_warm_up());
        self.recorder.set_measured(measured..self.begin + nanos(end));
        for (place, role) in self.ready.plan.roles.iter().enumerate() {
            if let Some(arrivals) = &role.arrivals {
                self.arrivals
                    .push((place, ArrivalSchedule::new(arrivals, end, 7, EveryNth { first: 0, step: 1 }).peekable()));
            }
        }
        self.schedule(self.begin, SimulatedEvent::Arrivals);
        self.schedule(self.begin + nanos(end), SimulatedEvent::Drain);
        self.schedule(self.begin + nanos(end + phases.drain), SimulatedEvent::Finish);
        while let Some(Reverse((at, _, number))) = self.queue.pop() {
            self.now = at;
            match self.events[number].take() {
                Some(SimulatedEvent::Finish) if self.is_over(self.ready.plan.phases.drain) => {
                    return self.drive_all(ClientEvent::Finish);
                }
                Some(event) => self.handle_event(event),
                None => {}
            }
        }
    }

    /// Whether the measured time has been over for so long.
    fn is_over(&self, drain: Duration) -> bool {
        let phases = self.ready.plan.phases;
        let end = self.begin + nanos(phases.longest_warm_up() + phases.duration);
        self.now >= self.holds.shifted(end).saturating_add(nanos(drain))
    }

    fn drive_all(&mut self, input: ClientEvent<'_>) {
        for client in 0..self.clients.len() {
            self.drive(client, input);
        }
    }

    fn handle_event(&mut self, event: SimulatedEvent) {
        match event {
            SimulatedEvent::Start(client) => self.drive(client, ClientEvent::Start),
            SimulatedEvent::Wake(client) => {
                if self.wakes[client] <= self.now {
                    self.wakes[client] = Nanos::MAX;
                    self.drive(client, ClientEvent::Wake);
                }
            }
            SimulatedEvent::Arrivals => self.assign_arrivals(),
            SimulatedEvent::ToHub(input) => self.send_to_machine(input),
            SimulatedEvent::ToClient(client, what) => match what {
                ClientInput::Opened => self.drive(client, ClientEvent::Opened),
                ClientInput::Text(text) => {
                    let translator = self.translator.as_mut();
                    let documented =
                        translator.and_then(|translator| translator.translate_received(client as u32, &text, self.now));
                    let frame = documented.as_ref().map_or(DeliveredFrame::observed(&text), |text| text.frame());
                    self.drive(client, ClientEvent::Frame(frame));
                }
                ClientInput::Closed(end) => {
                    self.lines[client] = None;
                    self.drive(client, ClientEvent::Closed(end));
                }
                ClientInput::Answer(answer) => self.drive(client, ClientEvent::Answer(answer.as_deref())),
            },
            SimulatedEvent::Tick => self.send_to_machine(machine::MachineInput::Tick),
            SimulatedEvent::Cut => {
                for client in 0..self.clients.len() {
                    if let Some(conn) = self.lines[client].take() {
                        self.send_to_machine(machine::MachineInput::Closed { conn });
                        self.drive(client, ClientEvent::Closed(Disconnection::Dropped));
                    }
                }
            }
            SimulatedEvent::Kill => {
                // The hub's queued frames are lost, and the new hub generates other ids.
                self.machine = hub_of(self.ready, 2, None);
                self.ticked = None;
                self.handle_event(SimulatedEvent::Cut);
            }
            SimulatedEvent::Hold(until) => {
                let since = self.now;
                self.holds.begin(since).unwrap();
                self.schedule(until, SimulatedEvent::Resume);
                self.recorder.set_holds(self.holds.all());
                self.drive_all(ClientEvent::Hold { since });
            }
            SimulatedEvent::Resume => {
                let until = self.holds.end(self.now, 0).unwrap();
                self.recorder.set_holds(self.holds.all());
                let (begin, phases) = (self.begin, self.ready.plan.phases);
                let end = self.holds.shifted(begin + nanos(phases.longest_warm_up() + phases.duration));
                self.recorder.set_measured(begin + nanos(phases.longest_warm_up())..end);
                self.schedule(end, SimulatedEvent::Drain);
                self.schedule(end + nanos(phases.drain), SimulatedEvent::Finish);
                self.drive_all(ClientEvent::Resume { until });
                self.assign_arrivals();
            }
            // A hold has moved it.
            SimulatedEvent::Drain if !self.is_over(Duration::ZERO) => {}
            SimulatedEvent::Drain => self.drive_all(ClientEvent::Drain),
            SimulatedEvent::Finish => {}
        }
    }

    fn assign_arrivals(&mut self) {
        let mut next = Nanos::MAX;
        for place in 0..self.arrivals.len() {
            let role = self.arrivals[place].0;
            let (begin, now) = (self.begin, self.now);
            while let Some(due) = self.arrivals[place].1.next_if(|due| self.holds.shifted(begin + due) <= now) {
                let due = self.holds.shifted(begin + due);
                let free = loop {
                    match self.room[role].pop_front() {
                        Some(client) if !self.clients[client].1.has_room(&self.ready.prepared.roles[role]) => {}
                        other => break other,
                    }
                };
                match free {
                    Some(client) => {
                        self.drive(client, ClientEvent::Arrival { due });
                        if self.clients[client].1.has_room(&self.ready.prepared.roles[role]) {
                            self.room[role].push_back(client);
                        }
                    }
                    None => self.results.missed += 1,
                }
            }
            next = next.min(self.arrivals[place].1.peek().map_or(Nanos::MAX, |due| self.holds.shifted(begin + due)));
        }
        if next < Nanos::MAX {
            self.schedule(next, SimulatedEvent::Arrivals);
        }
    }

    fn drive(&mut self, client: usize, input: ClientEvent<'_>) {
        let (place, mut machine) = (
            self.clients[client].0,
            std::mem::replace(&mut self.clients[client].1, VirtualClient::new(&self.ready.prepared.roles[0], 0)),
        );
        let role = &self.ready.prepared.roles[place];
        let mut io = RecordingIo {
            now: self.now,
            slot: client as u32,
            translator: self.translator.as_mut(),
            assumed: VecDeque::new(),
            results: &mut self.results,
            recorder: &mut self.recorder,
            did: Vec::new(),
        };
        machine.handle(role, self.now, input, &mut io);
        if let (ClientEvent::Opened, Some(translator)) = (input, &mut io.translator) {
            io.assumed.extend(translator.count_opened(client as u32, &[], self.now));
        }
        while let Some(AssumedMessage { text, deviation }) = io.assumed.pop_front() {
            io.results.assumed_texts.push(String::from_utf8(text.clone()).unwrap());
            let frame = DeliveredFrame::assumed(&text, deviation);
            machine.handle(role, self.now, ClientEvent::Frame(frame), &mut io);
        }
        let did = io.did;
        self.results.most_kept = self.results.most_kept.max(machine.kept_frames());
        self.clients[client].1 = machine;
        for action in did {
            self.carry_out(client, place, action);
        }
    }

    fn carry_out(&mut self, client: usize, place: usize, action: ClientAction) {
        let later = self.now + self.travel;
        match action {
            ClientAction::Open(dial) => {
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
                self.schedule(later, SimulatedEvent::ToHub(machine::MachineInput::Open { conn, handshake }));
            }
            ClientAction::Send(text) => {
                if let Some(conn) = self.lines[client] {
                    let text = String::from_utf8(text).unwrap();
                    let _: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
                    self.schedule(
                        later,
                        SimulatedEvent::ToHub(machine::MachineInput::Text { conn, text: text.into() }),
                    );
                }
            }
            ClientAction::Close => {
                if let Some(conn) = self.lines[client] {
                    self.schedule(later, SimulatedEvent::ToHub(machine::MachineInput::Closed { conn }));
                    self.schedule(
                        later + self.travel,
                        SimulatedEvent::ToClient(client, ClientInput::Closed(Disconnection::Close(1000))),
                    );
                }
            }
            ClientAction::Wake(at) => {
                self.wakes[client] = at;
                if at < Nanos::MAX {
                    self.schedule(at, SimulatedEvent::Wake(client));
                }
            }
            ClientAction::Room => self.room[place].push_back(client),
            ClientAction::Hook(hook, call) => {
                let answer = self.call_hook(hook, &call);
                self.schedule(later + self.travel, SimulatedEvent::ToClient(client, ClientInput::Answer(answer)));
            }
        }
    }

    fn call_hook(&mut self, hook: HookId, call: &[u8]) -> Option<Vec<u8>> {
        let name = &self.ready.prepared.hooks[usize::from(hook.0)];
        let hubproof::config::HookSpec::Http { body, .. } = self.ready.hooks.get(name)? else { return None };
        let call: Value = serde_json::from_slice(call).unwrap();
        let event = match body {
            None => call["message"].clone(),
            Some(body) => {
                serde_json::from_str(&hubproof::config::template::fill_template(body, &call).unwrap()).unwrap()
            }
        };
        let mut out = Vec::new();
        let answer = self.machine.event(Duration::from_nanos(self.now), &event, &mut out).ok();
        self.handle_output(out);
        answer.map(|answer| answer.to_string().into_bytes())
    }

    fn send_to_machine(&mut self, input: machine::MachineInput) {
        let mut out = Vec::new();
        self.machine.handle(Duration::from_nanos(self.now), input, &mut out);
        self.handle_output(out);
        // One pending tick at a time, or another one if it is earlier.
        let next = self.machine.deadline();
        if let Some(deadline) = next
            && self.ticked.is_none_or(|ticked| deadline < ticked || ticked.as_nanos() as Nanos <= self.now)
        {
            self.ticked = Some(deadline);
            self.schedule(deadline.as_nanos() as Nanos, SimulatedEvent::Tick);
        }
    }

    fn handle_output(&mut self, out: Vec<machine::MachineOutput>) {
        for output in out {
            let Some(client) = self.owners.get(&output.conn()).copied() else { continue };
            if self.lines[client] != Some(output.conn()) {
                continue;
            }
            let what = match output {
                machine::MachineOutput::Accept { .. } => ClientInput::Opened,
                machine::MachineOutput::Refuse { status, .. } => ClientInput::Closed(Disconnection::Refused(status)),
                machine::MachineOutput::Text { text, .. } => {
                    let text = text.as_str();
                    let Some(text) = self.form.map_or(Some(text.to_owned()), |form| form(text)) else { continue };
                    let role = &self.ready.plan.roles[self.clients[client].0].name;
                    for at in (self.downlink)(self.now, role, text.as_str()) {
                        self.schedule(
                            at,
                            SimulatedEvent::ToClient(client, ClientInput::Text(text.clone().into_bytes())),
                        );
                    }
                    continue;
                }
                machine::MachineOutput::Close { code, .. } => ClientInput::Closed(Disconnection::Close(code)),
                machine::MachineOutput::Drop { .. } => ClientInput::Closed(Disconnection::Dropped),
                machine::MachineOutput::Binary { .. } | machine::MachineOutput::Connect { .. } => continue,
            };
            self.schedule(self.now + self.travel, SimulatedEvent::ToClient(client, what));
        }
    }
}

enum ClientAction {
    Open(Dial),
    Send(Vec<u8>),
    Close,
    Wake(Nanos),
    Room,
    Hook(HookId, Vec<u8>),
}

struct RecordingIo<'a> {
    now: Nanos,
    slot: u32,
    translator: Option<&'a mut ShardTranslator>,
    assumed: VecDeque<AssumedMessage>,
    results: &'a mut SimulationResults,
    recorder: &'a mut MetricRecorder,
    did: Vec<ClientAction>,
}

impl ClientIo for RecordingIo<'_> {
    fn open(&mut self, dial: &Dial) {
        self.did.push(ClientAction::Open(dial.clone()));
    }

    fn close(&mut self, _code: u16) {
        self.did.push(ClientAction::Close);
    }

    fn send(&mut self, message: MessageId, due: Nanos, ready: Nanos, write: impl FnOnce(&mut Vec<u8>)) -> Nanos {
        assert!(due <= ready && ready <= self.now, "{due} {ready} {}", self.now);
        self.recorder.record(Measurement::Sent { message, due, ready }, self.now);
        *self.results.sent.entry(message).or_default() += 1;
        let mut text = Vec::new();
        write(&mut text);
        if let Some(translator) = &mut self.translator {
            let (of_hub, absent) = translator.translate_sent(self.slot, &text, self.now);
            text = of_hub.unwrap_or(text);
            self.assumed.extend(absent);
        }
        self.did.push(ClientAction::Send(text));
        self.now
    }

    fn wake_at(&mut self, at: Nanos) {
        self.did.push(ClientAction::Wake(at));
    }

    fn call_hook(&mut self, hook: HookId, arguments: Vec<u8>) {
        self.did.push(ClientAction::Hook(hook, arguments));
    }

    fn joined(&mut self) {
        self.results.joined += 1;
    }

    fn not_joined(&mut self, at: usize, fault: Option<ClientFault>) {
        self.results.not_joined.push((at, fault));
    }

    fn capacity_freed(&mut self) {
        self.did.push(ClientAction::Room);
    }

    fn record(&mut self, measurement: Measurement, at: Nanos) {
        self.recorder.record(measurement, at);
        let results = &mut *self.results;
        match measurement {
            Measurement::Received { message, .. } => *results.received.entry(message).or_default() += 1,
            Measurement::Answered { message, due, delay } => {
                assert!(due + delay <= at, "{due} {delay} {at}");
                results.answered.entry(message).or_default().push(at - due);
            }
            Measurement::OperationSent(operation) => results.operations.entry(operation).or_default().0 += 1,
            Measurement::OperationAnswered { operation, due, delay } => {
                assert!(due + delay <= at, "{due} {delay} {at}");
                results.operations.entry(operation).or_default().1 += 1;
            }
            Measurement::Delivered { due, .. } => results.delivered.push(at - due),
            Measurement::JourneyCompleted { journey, due } => {
                results.journeys.entry(journey).or_default().push(at - due);
            }
            Measurement::Messages(message, count, times) => match count {
                MessageCount::Assumed => *results.assumed.entry(message).or_default() += times,
                MessageCount::AnswersAssumed => *results.answers_assumed.entry(message).or_default() += times,
                MessageCount::Due => results.published += times,
                MessageCount::Missed => results.messages_missed += times,
                _ => {}
            },
            Measurement::Journeys(_, count, times) => match count {
                JourneyCount::Failed => results.failed += times,
                JourneyCount::Assumed => results.journeys_assumed += times,
                JourneyCount::Late => results.late += times,
                JourneyCount::Missed => results.missed += times,
                JourneyCount::Skipped => results.skipped += times,
                JourneyCount::Unfinished => results.unfinished += times,
                JourneyCount::Started | JourneyCount::Completed => {}
            },
            Measurement::Sent { .. }
            | Measurement::JourneyEndedEarly(_)
            | Measurement::Error(_)
            | Measurement::Undocumented => {}
        }
    }

    fn journey_waited(&mut self, wait: JourneyWait) {
        *self.results.waits.entry(wait).or_default() += 1;
    }

    fn fault(&mut self, fault: ClientFault, _at: Nanos) {
        *self.results.faults.entry(fault).or_default() += 1;
    }

    fn record_entry(&mut self, entry: LedgerEntry) {
        self.results.entries.push(entry);
    }

    fn report_name(&mut self, of: NameOwner, name: &[u8]) {
        self.results.names.push(of, name);
    }
}

/// Returns a plan of jobs with few workers and clients; only think times are random.
pub fn job_plan() -> CompiledTestPlan {
    let overrides = PlanOverrides {
        population: vec![("worker".to_owned(), 40), ("client".to_owned(), 4)],
        rate: Some(40.0),
        warm_up: Some(WarmUp::Fixed(Duration::ZERO)),
        duration: Some(Duration::from_secs(5)),
        drain: Some(Duration::from_secs(70)),
        ..PlanOverrides::default()
    };
    CompiledTestPlan::new("emprops", &PlanSource::Named("jobs"), &overrides)
}
