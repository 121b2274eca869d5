//! Plays one scenario against one hub: passes events between a [`Conversation`] and its sockets, timers and hooks.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::hub::client::{TestedClient, end_client};
use crate::hub::hook::{self, HookCall, HookSpec};
use crate::hub::prepare::{MAX_MESSAGE_BYTES, PreparedInstance};
use crate::hub::process::LaunchedHub;
use crate::interpreter::{Conversation, ConversationConfig, ConversationInput, ConversationOutput};
use crate::outcome::{PreconditionFailure, ScenarioReport, Verdict};
use crate::report::events::ScenarioEvent;
use crate::report::text::format_time;
use crate::scenario::Program;
use crate::scenario::model::{ActorId, setting_value};
use crate::transport::{
    self, ConnectRequest, Connection, ConnectionCommand, ConnectionId, IncomingEvent, Listener, PeerLimits,
};
use crate::websocket::dial::Dial;

/// Most events of a scenario's connections that can be queued; reading pauses while the queue is full.
const MAX_WAITING_EVENTS: usize = 1024;
/// Most requests of hooks that a scenario sends at once, and how many of them a command counts as.
const MAX_HOOK_REQUESTS: usize = 32;
const REQUESTS_OF_COMMAND: u32 = 4;
/// First number of connections that were accepted rather than opened.
const FIRST_ACCEPTED_NUMBER: u32 = 1 << 20;

/// The fraction of the patience in which an upgrade must be answered. It is less than 1, so that the report names the
/// missing answer rather than a step that timed out.
const UPGRADE_PATIENCE: f64 = 0.9;
/// How long connections may take to close at the end of a scenario.
const CLOSE_WAIT: Duration = Duration::from_millis(100);

/// An event that does not come from a connection's socket.
enum SideEvent {
    Answer { call: u32, answer: Result<Value, String> },
    Accepted { actor: ActorId, connection: Connection },
}

/// Plays a scenario until it ends, reaches the limit, or is interrupted.
pub async fn play_conversation(
    program: Arc<Program>,
    config: ConversationConfig,
    site: Arc<PreparedInstance>,
    limit: Duration,
    events: mpsc::Sender<ScenarioEvent>,
    mut interrupt: watch::Receiver<bool>,
) -> ScenarioReport {
    // `finally` may take this long once the limit has passed.
    let patience = config.patience.mul_f64(config.stretch);
    let mut driver = ConversationDriver::new(&program, site, events, patience, &config);
    let mut conversation = Conversation::new(Arc::clone(&program), config);
    driver.listen(&mut conversation).await;
    let mut client = None;
    let mut connected = None;
    if let Some(tested) = driver.site.client.clone() {
        let listening = conversation.listeners().into_iter().find_map(|actor| conversation.listen_url(actor));
        let url = listening.map(str::to_owned);
        match driver.bring_client(&tested, &program, url, &mut interrupt).await {
            Ok((process, first)) => (client, connected) = (process, Some(first)),
            Err(why) => {
                let mut report = conversation.into_report();
                report.cause = Some(PreconditionFailure::without_step(why));
                report.interrupted = *interrupt.borrow();
                return report;
            }
        }
        // What a scenario measures begins when its client connects.
        driver.started = Instant::now();
    }
    let outputs = conversation.start(Duration::ZERO);
    driver.perform(outputs).await;
    if let Some(SideEvent::Accepted { actor, connection }) = connected {
        let input = driver.add_accepted(actor, connection);
        driver.handle(&mut conversation, Duration::ZERO, input).await;
        driver.deliver_early(&mut conversation).await;
    }
    let mut interrupted = false;
    let mut late = false;
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
                if interrupted { ConversationInput::Interrupt } else { ConversationInput::Tick }
            }
            Some(incoming) = driver.incoming.recv() => match driver.receive(&mut conversation, incoming).await {
                Some(input) => input,
                None if driver.started.elapsed() < limit => continue,
                None => {
                    (limit, late) = (limit + patience, true);
                    ConversationInput::Interrupt
                }
            },
            Some(side) = driver.side_events.recv() => driver.handle_side(side),
            () = tokio::time::sleep_until((driver.started + wake).into()) => {
                if driver.started.elapsed() >= limit {
                    (limit, late) = (limit + patience, true);
                    ConversationInput::Interrupt
                } else {
                    ConversationInput::Tick
                }
            }
        };
        let accepted = matches!(input, ConversationInput::Accepted { .. });
        driver.handle(&mut conversation, driver.started.elapsed(), input).await;
        if accepted {
            driver.deliver_early(&mut conversation).await;
        }
    }
    driver.close().await;
    let mut report = conversation.into_report();
    if let Some(client) = client {
        end_client(client, &mut report).await;
    }
    report.interrupted = interrupted;
    if late {
        record_stop(&mut report, format!("it did not finish within the `--timeout` of {}", format_time(timeout)));
    } else if interrupted {
        record_stop(&mut report, "the run was interrupted".to_owned());
    }
    report
}

/// Records why a scenario was stopped, once rather than at every undecided check.
fn record_stop(report: &mut ScenarioReport, message: String) {
    if report.cause.is_none() && report.checks.iter().any(|check| check.verdict == Verdict::Inconclusive) {
        report.cause = Some(PreconditionFailure::without_step(message));
    }
}

struct ConversationDriver {
    id: String,
    started: Instant,
    site: Arc<PreparedInstance>,
    patience: Duration,
    settings: Map<String, Value>,
    connections: HashMap<u32, Connection>,
    sender: mpsc::Sender<IncomingEvent>,
    incoming: mpsc::Receiver<IncomingEvent>,
    /// Frames of accepted connections whose `Accepted` event has not been handled yet.
    early: Vec<IncomingEvent>,
    side: mpsc::Sender<SideEvent>,
    side_events: mpsc::Receiver<SideEvent>,
    /// Running hooks and listening actors; they end with the scenario.
    tasks: JoinSet<()>,
    hook_requests: Arc<Semaphore>,
    events: mpsc::Sender<ScenarioEvent>,
}

impl ConversationDriver {
    fn new(
        program: &Program,
        site: Arc<PreparedInstance>,
        events: mpsc::Sender<ScenarioEvent>,
        patience: Duration,
        config: &ConversationConfig,
    ) -> Self {
        let (sender, incoming) = mpsc::channel(MAX_WAITING_EVENTS);
        let (side, side_events) = mpsc::channel(16);
        let settings = config.settings.iter().map(|(name, value)| (name.clone(), setting_value(value))).collect();
        Self {
            id: program.id.clone(),
            started: Instant::now(),
            site,
            patience,
            settings,
            connections: HashMap::new(),
            sender,
            incoming,
            early: Vec::new(),
            side,
            side_events,
            tasks: JoinSet::new(),
            hook_requests: Arc::new(Semaphore::new(MAX_HOOK_REQUESTS)),
            events,
        }
    }

    async fn listen(&mut self, conversation: &mut Conversation) {
        for (index, actor) in conversation.listeners().into_iter().enumerate() {
            let subprotocols = conversation.supported_subprotocols(actor);
            let mut request = transport::ListenRequest { subprotocols, ..transport::ListenRequest::default() };
            if let Some(client) = self.site.client.as_ref().filter(|_| index == 0) {
                request.address = client.listen;
            }
            // If the port cannot be bound, the actor has no address, and the step that needs it reports that.
            let Ok(listener) = transport::listen(request).await else { continue };
            conversation.set_listen_url(actor, listener.url());
            self.tasks.spawn(accept_connections(listener, actor, self.side.clone(), self.sender.clone()));
        }
    }

    /// Starts the client under test, and waits until it connects. Returns its process, unless it runs elsewhere, and its
    /// first connection.
    ///
    /// # Errors
    ///
    /// Why there is no client to test.
    async fn bring_client(
        &mut self,
        tested: &TestedClient,
        program: &Program,
        url: Option<String>,
        interrupt: &mut watch::Receiver<bool>,
    ) -> Result<(Option<LaunchedHub>, SideEvent), String> {
        let Some(url) = url else {
            return Err(format!("hubproof cannot listen on {}: another process may use the port", tested.listen));
        };
        let process = tested.start(program, &url).map_err(|error| error.to_string())?;
        let ended = process.as_ref().map(LaunchedHub::wait_for_end);
        let patience = tested.patience();
        let end = tokio::select! {
            biased;
            Some(first) = self.side_events.recv() => {
                tested.has_come.store(true, Ordering::Relaxed);
                return Ok((process, first));
            }
            _ = interrupt.wait_for(|stop| *stop) => return Err("the run was interrupted".to_owned()),
            status = async { match ended { Some(ended) => ended.await, None => std::future::pending().await } } => Some(status),
            () = tokio::time::sleep(patience) => None,
        };
        tested.was_missed.store(true, Ordering::Relaxed);
        let log = match process {
            Some(process) => Some(process.terminate(Duration::ZERO).await),
            None => None,
        };
        Err(tested.explain_absence(&url, patience, end.as_deref(), log.as_ref()))
    }

    async fn handle(&mut self, conversation: &mut Conversation, at: Duration, input: ConversationInput) {
        let outputs = conversation.handle(at, input);
        self.perform(outputs).await;
    }

    /// Passes an event of a connection to the conversation. Returns the input that comes first if the connection is new.
    async fn receive(&mut self, conversation: &mut Conversation, incoming: IncomingEvent) -> Option<ConversationInput> {
        if incoming.what.is_service() {
            self.site.last_sign.record(incoming.at);
        }
        if incoming.conn.0 >= FIRST_ACCEPTED_NUMBER && !self.connections.contains_key(&incoming.conn.0) {
            self.early.push(incoming);
            // Its `Accepted` event is about to arrive, so few frames are early.
            let side = self.side_events.recv().await?;
            return Some(self.handle_side(side));
        }
        let at = incoming.at.saturating_duration_since(self.started);
        let what = self.site.judge_contact(incoming.what);
        self.handle(conversation, at, ConversationInput::Received { connection: incoming.conn.0, what }).await;
        None
    }

    /// Passes on the early frames of connections that are accepted by now.
    async fn deliver_early(&mut self, conversation: &mut Conversation) {
        let known = |incoming: &mut IncomingEvent| self.connections.contains_key(&incoming.conn.0);
        for incoming in self.early.extract_if(.., known).collect::<Vec<_>>() {
            let at = incoming.at.saturating_duration_since(self.started);
            let input = ConversationInput::Received { connection: incoming.conn.0, what: incoming.what };
            self.handle(conversation, at, input).await;
        }
    }

    fn handle_side(&mut self, side: SideEvent) -> ConversationInput {
        match side {
            SideEvent::Answer { call, answer } => ConversationInput::HookAnswer { call, answer },
            SideEvent::Accepted { actor, connection } => self.add_accepted(actor, connection),
        }
    }

    fn add_accepted(&mut self, actor: ActorId, connection: Connection) -> ConversationInput {
        let number = connection.conn().0;
        self.connections.insert(number, connection);
        ConversationInput::Accepted { actor, connection: number }
    }

    async fn perform(&mut self, outputs: Vec<ConversationOutput>) {
        for output in outputs {
            match output {
                ConversationOutput::Open { connection, dial } => self.open(connection, dial),
                ConversationOutput::Send { connection, frames } => {
                    self.send(connection, ConnectionCommand::Frames(frames))
                }
                ConversationOutput::SendBytes { connection, bytes } => {
                    self.send(connection, ConnectionCommand::Bytes(bytes))
                }
                ConversationOutput::End { connection, reset } => {
                    self.send(connection, if reset { ConnectionCommand::Reset } else { ConnectionCommand::Fin })
                }
                ConversationOutput::StopReading { connection } => self.send(connection, ConnectionCommand::StopReading),
                ConversationOutput::ReadAgain { connection } => self.send(connection, ConnectionCommand::ReadAgain),
                ConversationOutput::Hook { call, name, args, message } => self.hook(call, name, args, message),
                ConversationOutput::Trace(frame) => {
                    let _ = self.events.send(ScenarioEvent::Frame { id: self.id.clone(), frame }).await;
                }
                ConversationOutput::Waiting { because, time } => {
                    let _ = self.events.send(ScenarioEvent::Waiting { id: self.id.clone(), because, time }).await;
                }
            }
        }
    }

    fn open(&mut self, connection: u32, dial: Dial) {
        let request = ConnectRequest {
            dial,
            tls: self.site.tls.clone(),
            timeout: self.patience.mul_f64(UPGRADE_PATIENCE),
            limits: PeerLimits {
                message: MAX_MESSAGE_BYTES,
                // A step that waits for the end of the stream times out before the harness ends it.
                linger: self.patience.mul_f64(2.0),
                ..PeerLimits::default()
            },
            memory: self.site.memory.clone(),
            ..ConnectRequest::new(self.site.endpoint.clone())
        };
        let opened = transport::open_connection(ConnectionId(connection), request, self.sender.clone());
        self.connections.insert(connection, opened);
    }

    fn send(&self, connection: u32, what: ConnectionCommand) {
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
        let (trust, requests) = (self.site.trust.clone(), Arc::clone(&self.hook_requests));
        self.tasks.spawn(async move {
            let weight = if matches!(spec, HookSpec::Command { .. }) { REQUESTS_OF_COMMAND } else { 1 };
            let _permit = requests.acquire_many(weight).await;
            let (message, trust) = (message.as_ref(), trust.as_ref());
            let asked = HookCall { name: &name, args: &args, message, settings: &settings, trust };
            let answer = hook::run_hook(&spec, &asked, patience).await;
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

async fn accept_connections(
    listener: Listener,
    actor: ActorId,
    side: mpsc::Sender<SideEvent>,
    sender: mpsc::Sender<IncomingEvent>,
) {
    let base = FIRST_ACCEPTED_NUMBER + (actor as u32) * 0x1000;
    for number in 0..0x1000 {
        match listener.accept(ConnectionId(base + number), sender.clone()).await {
            Ok(connection) => {
                if side.send(SideEvent::Accepted { actor, connection }).await.is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}
