//! The first contact with a hub whose protocol is not known: listens to what the hub sends first, and plays the
//! beginnings of scenarios of several packs, each on a connection of its own. All of it is limited in time, frames and
//! bytes, whatever the hub does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::driver::play_conversation;
use crate::hub::prepare::{PreparedHub, PreparedInstance};
use crate::interpreter::{ConversationConfig, SETTLE_AFTER_CONNECT, unmet_needs};
use crate::outcome::{FrameKind, FrameReport, HistoryDirection};
use crate::report::events::ScenarioEvent;
use crate::scenario::model::{BlockId, MessageName, StepAction, StepActors};
use crate::scenario::{Isolation, Program, SharedDefinitions};
use crate::transport::{
    self, ConnectRequest, Connection, ConnectionCommand, ConnectionEvent, ConnectionId, IncomingEvent, PeerLimits,
};
use crate::websocket::frame::Frame;

/// How long the hub may take to accept the first connection.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// How long to wait for what the hub sends on its own, and for its answer to a message.
const LISTEN_TIME: Duration = Duration::from_millis(700);
/// How long to continue after the first message of the hub.
const SETTLE_TIME: Duration = Duration::from_millis(100);
/// The same after an answer. The client of a scenario then continues, so this is short.
const ANSWERED_TIME: Duration = Duration::from_millis(30);
/// How long the messages of all packs may take together.
const PROBES_TIME: Duration = Duration::from_millis(2600);
/// A hub that accepts connections and stays silent costs less than five seconds.
const _: () = assert!(2 * LISTEN_TIME.as_millis() + PROBES_TIME.as_millis() < 5000);
/// The most scenarios of a pack whose beginnings are played.
const PROBES_PER_PACK: usize = 3;
/// The most data frames of a connection that are kept.
const MAX_FRAMES: usize = 12;
/// The most characters of a frame that are kept; a longer frame is not evidence.
const MAX_CHARS: usize = 16 << 10;
/// The most bytes of a message that is accepted.
const MAX_BYTES: usize = 1 << 20;
/// A message that belongs to no protocol.
const NONSENSE: &str = r#"{"hubproof":"is this a message?"}"#;

/// What happened on one connection: frames in both directions, and what became of the connection.
#[derive(Clone, Debug, Default)]
pub struct ContactRecord {
    pub frames: Vec<FrameReport>,
    /// Whether the hub's secrets were not known, so that invented ones were sent.
    pub invented_secrets: bool,
}

impl ContactRecord {
    /// Returns the data frames that the hub sent.
    pub fn received(&self) -> impl Iterator<Item = &FrameReport> {
        self.frames.iter().filter(|frame| frame.kind.is_message() && frame.direction == HistoryDirection::Received)
    }

    /// Returns the text messages that were sent.
    pub fn sent(&self) -> impl Iterator<Item = &FrameReport> {
        self.frames.iter().filter(|frame| frame.kind == FrameKind::Text && frame.direction == HistoryDirection::Sent)
    }

    /// Returns the last line of one of these kinds.
    pub fn last_of(&self, kinds: &[FrameKind]) -> Option<&FrameReport> {
        self.frames.iter().rfind(|frame| kinds.contains(&frame.kind))
    }

    /// Returns the frame that says why the connection failed.
    pub fn refusal(&self) -> Option<&FrameReport> {
        self.last_of(&[FrameKind::Refused, FrameKind::NoUpgrade, FrameKind::Unreachable])
    }

    pub fn is_open(&self) -> bool {
        self.last_of(&[FrameKind::Open]).is_some()
    }

    /// Whether the hub, or a proxy in front of it, asked for credentials.
    pub fn wants_credentials(&self) -> bool {
        matches!(self.refusal().and_then(|frame| frame.status), Some(401 | 403))
    }
}

/// A connection to the URL of the hub itself, without the path or headers of any protocol.
pub struct PlainConnection {
    connection: Connection,
    incoming: mpsc::Receiver<IncomingEvent>,
    hub: Arc<PreparedHub>,
    begun: Instant,
    record: ContactRecord,
    /// Whether nothing can be received any more.
    ended: bool,
}

impl PlainConnection {
    /// Connects, and listens to what the hub sends first.
    pub async fn open(hub: &Arc<PreparedHub>) -> Self {
        let site = hub.first_instance();
        let request = ConnectRequest {
            tls: site.tls.clone(),
            timeout: CONNECT_TIME,
            limits: PeerLimits { message: MAX_BYTES, linger: SETTLE_TIME, ..PeerLimits::default() },
            memory: site.memory.clone(),
            ..ConnectRequest::new(site.endpoint.clone())
        };
        let (sender, incoming) = mpsc::channel(MAX_FRAMES);
        let connection = transport::open_connection(ConnectionId(0), request, sender);
        let mut opened = Self {
            connection,
            incoming,
            hub: Arc::clone(hub),
            begun: Instant::now(),
            record: ContactRecord::default(),
            ended: false,
        };
        // The upgrade has a time limit of its own.
        if let Some(event) = opened.incoming.recv().await {
            opened.add_event(event);
        }
        opened.listen().await;
        opened
    }

    pub fn record(&self) -> &ContactRecord {
        &self.record
    }

    /// Sends a message that belongs to no protocol, and waits for the answer.
    pub async fn send_nonsense(&mut self) {
        let frame = Frame::text(NONSENSE);
        if self.ended || self.connection.send(ConnectionCommand::Frames(vec![frame])).is_err() {
            return;
        }
        self.add_line(HistoryDirection::Sent, FrameKind::Text, NONSENSE, None);
        self.listen().await;
    }

    /// Closes the connection, and returns what happened on it.
    pub async fn close(self) -> ContactRecord {
        let _ = self.connection.send(ConnectionCommand::Frames(vec![Frame::close(Some(1000), "")]));
        self.connection.finish().await;
        self.record
    }

    async fn listen(&mut self) {
        let mut until = Instant::now() + LISTEN_TIME;
        let enough = self.record.received().count() + MAX_FRAMES;
        while !self.ended && self.record.received().count() < enough {
            match tokio::time::timeout_at(until.into(), self.incoming.recv()).await {
                Err(_) => break,
                Ok(None) => self.ended = true,
                Ok(Some(event)) => {
                    if matches!(event.what, ConnectionEvent::Message(_)) {
                        until = until.min(Instant::now() + SETTLE_TIME);
                    }
                    self.add_event(event);
                }
            }
        }
    }

    fn add_event(&mut self, event: IncomingEvent) {
        use HistoryDirection::{Neither, Received};
        let ends = !matches!(
            event.what,
            ConnectionEvent::Upgraded { .. }
                | ConnectionEvent::Message(_)
                | ConnectionEvent::Ping(_)
                | ConnectionEvent::Pong(_)
        );
        match event.what {
            ConnectionEvent::Upgraded { .. } => {
                let address = self.hub.first_instance().endpoint.to_string();
                self.add_line(Neither, FrameKind::Open, &address, None);
            }
            ConnectionEvent::Refused { status, reason, .. } => {
                self.add_line(Neither, FrameKind::Refused, &reason, Some(status))
            }
            ConnectionEvent::NoUpgrade { reason, .. } => self.add_line(Neither, FrameKind::NoUpgrade, &reason, None),
            ConnectionEvent::Unreachable { reason } => self.add_line(Neither, FrameKind::Unreachable, &reason, None),
            ConnectionEvent::Message(message) => {
                let kind = if message.binary { FrameKind::Binary } else { FrameKind::Text };
                let text = String::from_utf8_lossy(&message.payload).into_owned();
                self.add_line(Received, kind, &text, None);
            }
            ConnectionEvent::Ping(_) | ConnectionEvent::Pong(_) => {}
            ConnectionEvent::Close { code, reason } => {
                let text = code.map_or_else(String::new, |code| format!("{code} {reason}"));
                self.add_line(Received, FrameKind::Close, text.trim_end(), None);
            }
            ConnectionEvent::Violation { what, .. } => self.add_line(Received, FrameKind::Broken, &what, None),
            ConnectionEvent::End { reason, .. } => self.add_line(Neither, FrameKind::End, &reason, None),
        }
        self.ended |= ends;
    }

    fn add_line(&mut self, direction: HistoryDirection, kind: FrameKind, text: &str, status: Option<u16>) {
        let masked = self.hub.masker.mask(text);
        let long = masked.chars().nth(MAX_CHARS).is_some();
        self.record.frames.push(FrameReport {
            at: self.begun.elapsed(),
            actor: String::new(),
            connection: 0,
            direction,
            kind,
            text: masked.chars().take(MAX_CHARS).collect(),
            size: text.len(),
            hash: long.then(String::new),
            status,
        });
    }
}

/// A pack whose messages are tried on a hub.
#[derive(Clone)]
pub struct TriedPack {
    /// The hub, with the settings of the pack.
    pub hub: Arc<PreparedHub>,
    pub shared: Arc<SharedDefinitions>,
    pub programs: Vec<Arc<Program>>,
}

/// Plays the beginnings of scenarios of several packs at the same time. Returns what happened on the connections of each
/// pack. `convincing` decides from a record whether the pack needs no further try.
pub async fn try_packs(
    packs: &[TriedPack],
    stamp: &str,
    now_ms: i64,
    convincing: impl Fn(usize, &ContactRecord) -> bool + Send + Sync + 'static,
) -> Vec<Vec<ContactRecord>> {
    let until = Instant::now() + PROBES_TIME;
    let convincing = Arc::new(convincing);
    let mut tries = JoinSet::new();
    for (index, pack) in packs.iter().enumerate() {
        let (pack, convincing, stamp) = (pack.clone(), Arc::clone(&convincing), format!("{stamp}{index}"));
        tries.spawn(async move {
            let mut records = Vec::new();
            for (turn, opening) in choose_openings(&pack).into_iter().enumerate() {
                if Instant::now() >= until {
                    break;
                }
                let record = play_opening(&opening, &pack.hub, &format!("{stamp}x{turn}"), turn, now_ms, until).await;
                let enough = convincing(index, &record);
                records.push(record);
                if enough {
                    break;
                }
            }
            (index, records)
        });
    }
    let mut all = vec![Vec::new(); packs.len()];
    while let Some(done) = tries.join_next().await {
        match done {
            Ok((index, records)) => all[index] = records,
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
    all
}

/// A scenario whose beginning can be played on an unknown hub.
struct Opening {
    program: Arc<Program>,
    settings: BTreeMap<String, Value>,
    invented_secrets: bool,
}

/// Chooses scenarios whose clients begin with different messages: first those that need no invented secrets, then those with the
/// fewest clients.
fn choose_openings(pack: &TriedPack) -> Vec<Opening> {
    let site = pack.hub.first_instance();
    let mut invented = site.settings.clone();
    for (name, setting) in &pack.shared.settings {
        if setting.secret && !setting.optional {
            invented.entry(name.clone()).or_insert_with(|| Value::from("hubproof"));
        }
    }
    let provides = |word: &str| site.provides.contains(word);
    let met = |program: &Program, settings: &BTreeMap<String, Value>| {
        unmet_needs(program, settings, &provides, &|_| false).is_ok_and(|unmet| unmet.is_empty())
    };
    let mut candidates = Vec::new();
    for program in &pack.programs {
        if !matches!(program.isolation, Isolation::Shared) {
            continue;
        }
        let Some(first) = first_message(program) else { continue };
        let invented_secrets = if met(program, &site.settings) {
            false
        } else if met(program, &invented) {
            true
        } else {
            continue;
        };
        let steps: usize = program.blocks.iter().map(Vec::len).sum();
        candidates.push(((invented_secrets, first.is_none(), program.actors.len(), steps), first, program));
    }
    candidates.sort_by_key(|(order, ..)| *order);
    let mut seen: Vec<Option<String>> = Vec::new();
    let mut chosen = Vec::new();
    for ((invented_secrets, ..), first, program) in candidates {
        if chosen.len() < PROBES_PER_PACK && !seen.contains(&first) {
            seen.push(first);
            let settings = if invented_secrets { invented.clone() } else { site.settings.clone() };
            chosen.push(Opening { program: Arc::clone(program), settings, invented_secrets });
        }
    }
    chosen
}

/// Returns the message with which the first client of a scenario begins; the inner `None` if the client only listens. `None` if the scenario begins with anything else, such as an invalid message, a hook or a pause.
fn first_message(program: &Program) -> Option<Option<String>> {
    first_message_of_block(program, program.main, None)
}

fn first_message_of_block(program: &Program, block: BlockId, role: Option<&str>) -> Option<Option<String>> {
    for step in &program.blocks[block] {
        let actor = match &step.who {
            StepActors::One(id) => Some(*id),
            StepActors::Group { members, .. } => members.first().copied(),
            StepActors::NoActor | StepActors::Myself => None,
        };
        let of_step = actor.and_then(|id| program.actors.get(id)).map(|actor| actor.role.as_str()).or(role);
        match &step.act {
            StepAction::Join { .. } => {
                let known = of_step.and_then(|name| program.roles.get(name))?;
                if known.server {
                    return None;
                }
                if let Some(first) = first_message_of_block(program, known.opening, of_step)? {
                    return Some(Some(first));
                }
            }
            StepAction::Play { scene, .. } => {
                if let Some(first) = first_message_of_block(program, *scene, of_step)? {
                    return Some(Some(first));
                }
            }
            StepAction::Connect(connect) if !connect.tries && connect.method.is_none() => {}
            StepAction::Expect(_) | StepAction::ExpectOneOf { .. } | StepAction::Compose(_) => {}
            StepAction::Send(message) if message.breaks.is_none() => {
                let MessageName::Named(name) = &message.message else { return None };
                return Some(Some(name.clone()));
            }
            _ => return None,
        }
    }
    Some(None)
}

/// Plays a scenario until the hub has answered, or the time is up.
async fn play_opening(
    opening: &Opening,
    hub: &Arc<PreparedHub>,
    stamp: &str,
    turn: usize,
    now_ms: i64,
    until: Instant,
) -> ContactRecord {
    let site = Arc::new(PreparedInstance {
        settings: opening.settings.clone(),
        ..PreparedInstance::clone(hub.first_instance())
    });
    let config = ConversationConfig {
        hub: site.endpoint.clone(),
        settings: site.settings.clone(),
        stamp: stamp.to_owned(),
        turn,
        epoch_ms: now_ms,
        patience: hub.target.patience,
        quiet: hub.target.quiet,
        settle_after_connect: SETTLE_AFTER_CONNECT,
        stretch: 1.0,
        stated_only: false,
        trace: true,
        kept_chars: MAX_CHARS,
        injected_input: None,
        masker: Arc::clone(&hub.masker),
        deviations: Arc::clone(&hub.deviations),
        persistent: false,
        promptness: Arc::default(),
        variation: None,
        early_end: None,
    };
    let mut record = ContactRecord { invented_secrets: opening.invented_secrets, ..ContactRecord::default() };
    let mut until = until.min(Instant::now() + LISTEN_TIME + SETTLE_TIME);
    let (events, mut inbox) = mpsc::channel(MAX_FRAMES);
    let (_stop, interrupt) = watch::channel(false);
    let play = play_conversation(Arc::clone(&opening.program), config, site, PROBES_TIME, events, interrupt);
    tokio::pin!(play);
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(until.into()) => break,
            Some(event) = inbox.recv() => until = until.min(Instant::now() + add_event(event, &mut record)),
            _ = &mut play => break,
        }
    }
    while let Ok(event) = inbox.try_recv() {
        add_event(event, &mut record);
    }
    record
}

/// Adds the frame of an event to a record. Returns how long to continue.
fn add_event(event: ScenarioEvent, record: &mut ContactRecord) -> Duration {
    let ScenarioEvent::Frame { frame, .. } = event else { return PROBES_TIME };
    let received = frame.kind.is_message() && frame.direction == HistoryDirection::Received;
    record.frames.push(frame);
    match record.received().count() {
        MAX_FRAMES.. => Duration::ZERO,
        _ if received && record.sent().next().is_some() => ANSWERED_TIME,
        _ => PROBES_TIME,
    }
}
