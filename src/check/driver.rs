//! Plays one scenario against one hub: passes events between a [`Conversation`] and its sockets, timers and hooks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::event::{Cause, Event, ScenarioReport, Verdict};
use crate::hub::hook::{self, HookCall};
use crate::hub::prepare::LONGEST_MESSAGE;
use crate::hub::prepare::Site;
use crate::interpreter::{Config, Conversation, Input, Output};
use crate::report::text::time;
use crate::scenario::Program;
use crate::scenario::model::{ActorId, setting_value};
use crate::transport::{self, ConnId, ConnectRequest, Connection, Incoming, Limits, Listener, Outgoing};
use crate::websocket::handshake::Dial;

/// Most events of a scenario's connections that can be queued; reading pauses while the queue is full.
const INCOMING: usize = 1024;
/// First number of connections that were accepted rather than opened.
const ACCEPTED: u32 = 1 << 20;

/// The fraction of the patience in which an upgrade must be answered. It is less than 1, so that the report names the
/// missing answer rather than a step that timed out.
const UPGRADE: f64 = 0.9;
/// How long connections may take to close at the end of a scenario.
const CLOSE_WAIT: Duration = Duration::from_millis(100);

/// An event that does not come from a connection's socket.
enum SideEvent {
    Answer { call: u32, answer: Result<Value, String> },
    Accepted { actor: ActorId, connection: Connection },
}

/// Plays a scenario until it ends, reaches the limit, or is interrupted.
pub async fn play(
    program: Arc<Program>,
    config: Config,
    site: Arc<Site>,
    limit: Duration,
    events: mpsc::Sender<Event>,
    mut interrupt: watch::Receiver<bool>,
) -> ScenarioReport {
    let started = Instant::now();
    // How long `finally` may take once the limit has passed.
    let cleanup = config.patience.mul_f64(config.stretch);
    let mut driver = Driver::new(&program, site, events, config.patience.mul_f64(config.stretch), &config);
    let mut conversation = Conversation::new(Arc::clone(&program), config);
    driver.listen(&mut conversation).await;
    let outputs = conversation.start(Duration::ZERO);
    driver.perform(outputs).await;
    let mut interrupted = false;
    let mut late = false;
    // Frames of accepted connections whose `Accepted` event has not been handled yet.
    let mut early: Vec<Incoming> = Vec::new();
    let timeout = limit;
    let mut limit = limit;
    while !conversation.is_finished() {
        let wake = conversation.deadline().map_or(limit, |deadline| deadline.min(limit));
        let input = tokio::select! {
            // An interrupt comes first, even during a flood. Frames come before timeouts, because a frame counts
            // from the moment when it was read.
            biased;
            changed = interrupt.changed(), if !interrupted => {
                interrupted = changed.is_err() || *interrupt.borrow();
                if interrupted { Input::Interrupt } else { Input::Tick }
            }
            Some(incoming) = driver.incoming.recv() => {
                if incoming.conn.0 >= ACCEPTED && !driver.connections.contains_key(&incoming.conn.0) {
                    early.push(incoming);
                    // Its `Accepted` event is about to arrive, so few frames are early.
                    let Some(side) = driver.side_events.recv().await else { continue };
                    driver.handle_side(side)
                } else {
                    let at = incoming.at.saturating_duration_since(started);
                    let input = Input::Received { connection: incoming.conn.0, what: incoming.what };
                    let outputs = conversation.handle(at, input);
                    driver.perform(outputs).await;
                    if started.elapsed() < limit {
                        continue;
                    }
                    (limit, late) = (limit + cleanup, true);
                    Input::Interrupt
                }
            }
            Some(side) = driver.side_events.recv() => driver.handle_side(side),
            () = tokio::time::sleep_until((started + wake).into()) => {
                if started.elapsed() >= limit {
                    (limit, late) = (limit + cleanup, true);
                    Input::Interrupt
                } else {
                    Input::Tick
                }
            }
        };
        let accepted = matches!(input, Input::Accepted { .. });
        let outputs = conversation.handle(started.elapsed(), input);
        driver.perform(outputs).await;
        if accepted {
            let (known, rest): (Vec<_>, Vec<_>) =
                early.into_iter().partition(|incoming| driver.connections.contains_key(&incoming.conn.0));
            early = rest;
            for incoming in known {
                let at = incoming.at.saturating_duration_since(started);
                let input = Input::Received { connection: incoming.conn.0, what: incoming.what };
                let outputs = conversation.handle(at, input);
                driver.perform(outputs).await;
            }
        }
    }
    driver.close().await;
    let mut report = conversation.into_report();
    if late {
        stopped(&mut report, format!("it did not finish within the `--timeout` of {}", time(timeout)));
    } else if interrupted {
        stopped(&mut report, "the run was interrupted".to_owned());
    }
    report
}

/// Records why a scenario was stopped, once rather than at every undecided check.
fn stopped(report: &mut ScenarioReport, message: String) {
    if report.cause.is_none() && report.checks.iter().any(|check| check.verdict == Verdict::Inconclusive) {
        report.cause = Some(Cause::without_step(message));
    }
}

struct Driver {
    id: String,
    site: Arc<Site>,
    patience: Duration,
    settings: Map<String, Value>,
    connections: HashMap<u32, Connection>,
    accepted: u32,
    sender: mpsc::Sender<Incoming>,
    incoming: mpsc::Receiver<Incoming>,
    side: mpsc::Sender<SideEvent>,
    side_events: mpsc::Receiver<SideEvent>,
    /// Running hooks and listening actors; they end with the scenario.
    tasks: JoinSet<()>,
    events: mpsc::Sender<Event>,
}

impl Driver {
    fn new(
        program: &Program,
        site: Arc<Site>,
        events: mpsc::Sender<Event>,
        patience: Duration,
        config: &Config,
    ) -> Self {
        let (sender, incoming) = mpsc::channel(INCOMING);
        let (side, side_events) = mpsc::channel(16);
        let settings = config.settings.iter().map(|(name, value)| (name.clone(), setting_value(value))).collect();
        Self {
            id: program.id.clone(),
            site,
            patience,
            settings,
            connections: HashMap::new(),
            accepted: 0,
            sender,
            incoming,
            side,
            side_events,
            tasks: JoinSet::new(),
            events,
        }
    }

    async fn listen(&mut self, conversation: &mut Conversation) {
        for actor in conversation.listeners() {
            // If a free loopback port cannot be bound, the actor has no address, and the step that needs it reports that.
            let Ok(listener) = transport::listen(transport::ListenRequest::default()).await else { continue };
            conversation.listens(actor, listener.url());
            self.tasks.spawn(accept(listener, actor, self.side.clone(), self.sender.clone()));
        }
    }

    fn handle_side(&mut self, side: SideEvent) -> Input {
        match side {
            SideEvent::Answer { call, answer } => Input::HookAnswer { call, answer },
            SideEvent::Accepted { actor, connection } => self.accepted(actor, connection),
        }
    }

    fn accepted(&mut self, actor: ActorId, connection: Connection) -> Input {
        let number = connection.conn().0;
        self.accepted += 1;
        self.connections.insert(number, connection);
        Input::Accepted { actor, connection: number }
    }

    async fn perform(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Open { connection, dial } => self.open(connection, dial),
                Output::Send { connection, frames } => self.send(connection, Outgoing::Frames(frames)),
                Output::SendBytes { connection, bytes } => self.send(connection, Outgoing::Bytes(bytes)),
                Output::End { connection, reset } => {
                    self.send(connection, if reset { Outgoing::Reset } else { Outgoing::Fin })
                }
                Output::StopReading { connection } => self.send(connection, Outgoing::StopReading),
                Output::ReadAgain { connection } => self.send(connection, Outgoing::ReadAgain),
                Output::Hook { call, name, args, message } => self.hook(call, name, args, message),
                Output::Trace(frame) => {
                    let _ = self.events.send(Event::Frame { id: self.id.clone(), frame }).await;
                }
                Output::Waiting { because, time } => {
                    let _ = self.events.send(Event::Waiting { id: self.id.clone(), because, time }).await;
                }
            }
        }
    }

    fn open(&mut self, connection: u32, dial: Dial) {
        let request = ConnectRequest {
            dial,
            tls: self.site.tls.clone(),
            timeout: self.patience.mul_f64(UPGRADE),
            limits: Limits {
                message: LONGEST_MESSAGE,
                // A step that waits for the end of the stream times out before the harness ends it.
                linger: self.patience.mul_f64(2.0),
                ..Limits::default()
            },
            room: self.site.room.clone(),
            ..ConnectRequest::new(self.site.endpoint.clone())
        };
        let opened = transport::open(ConnId(connection), request, self.sender.clone());
        self.connections.insert(connection, opened);
    }

    fn send(&self, connection: u32, what: Outgoing) {
        // A connection that has ended reports that itself.
        let _ = self.connections.get(&connection).map(|connection| connection.send(what));
    }

    fn hook(&mut self, call: u32, name: String, args: Value, message: Option<Value>) {
        let Some(spec) = self.site.hooks.get(&name).cloned() else {
            let answer = Err(format!("the target has no hook `{name}`"));
            let side = self.side.clone();
            self.tasks.spawn(async move {
                let _ = side.send(SideEvent::Answer { call, answer }).await;
            });
            return;
        };
        let (side, settings, patience) = (self.side.clone(), self.settings.clone(), self.patience);
        let trust = self.site.trust.clone();
        self.tasks.spawn(async move {
            let (message, trust) = (message.as_ref(), trust.as_ref());
            let asked = HookCall { name: &name, args: &args, message, settings: &settings, trust };
            let answer = hook::run(&spec, &asked, patience).await;
            let _ = side.send(SideEvent::Answer { call, answer: answer.map_err(|error| error.to_string()) }).await;
        });
    }

    /// Closes all connections, waits up to [`CLOSE_WAIT`] for them to end, then drops them.
    async fn close(mut self) {
        self.tasks.abort_all();
        let all = std::mem::take(&mut self.connections).into_values();
        let mut closing: JoinSet<()> = all.map(Connection::finish).collect();
        let incoming = &mut self.incoming;
        let _ = tokio::time::timeout(CLOSE_WAIT, async {
            loop {
                tokio::select! {
                    ended = closing.join_next() => if ended.is_none() { break },
                    // A full channel must not keep connections from ending.
                    _ = incoming.recv() => {}
                }
            }
        })
        .await;
    }
}

async fn accept(listener: Listener, actor: ActorId, side: mpsc::Sender<SideEvent>, sender: mpsc::Sender<Incoming>) {
    let base = ACCEPTED + (actor as u32) * 0x1000;
    for number in 0..0x1000 {
        match listener.accept(ConnId(base + number), sender.clone()).await {
            Ok(connection) => {
                if side.send(SideEvent::Accepted { actor, connection }).await.is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}
