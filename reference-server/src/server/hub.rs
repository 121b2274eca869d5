//! A machine and its connections, shared by all tasks.
//!
//! The task that reads a message passes it to the machine itself, without a queue or another task in between, so that
//! all cores read, parse and write frames. Only the machine's step is exclusive, under a lock: its outputs go into
//! outboxes, whose tasks are woken once the lock is free.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::machine::{ConnectionId, EventError, Handshake, Machine, MachineInput, MachineOutput};
use crate::server::outbox::{Outbox, OutboxItem};

/// The largest number of outgoing connections that wait to be made.
const MAX_CALLS: usize = 256;

/// The hub has shut down.
#[derive(Debug)]
pub struct ShutDownError;

/// An outgoing connection of the machine.
pub struct OutgoingConnection {
    pub conn: ConnectionId,
    pub url: String,
    pub outbox: Arc<Outbox>,
}

/// A machine with its connections.
pub struct Hub {
    /// A panic of the machine only ends the connection that caused it, and leaves the state usable.
    state: Mutex<HubState>,
    start: Instant,
    /// Signals an earlier deadline of the machine.
    earlier: Notify,
}

struct HubState {
    machine: Box<dyn Machine>,
    outboxes: HashMap<ConnectionId, Arc<Outbox>>,
    out: Vec<MachineOutput>,
    calls: mpsc::Sender<OutgoingConnection>,
    /// The tasks to wake once the lock is free.
    woken: Vec<Waker>,
    /// When the machine will be woken.
    alarm: Option<Duration>,
    over: bool,
}

impl Hub {
    /// A hub without connections, and the channel of its outgoing ones.
    pub fn new(machine: Box<dyn Machine>) -> (Arc<Hub>, mpsc::Receiver<OutgoingConnection>) {
        let (calls, wanted) = mpsc::channel(MAX_CALLS);
        let state = HubState {
            machine,
            outboxes: HashMap::new(),
            out: Vec::new(),
            calls,
            woken: Vec::new(),
            alarm: None,
            over: false,
        };
        (Arc::new(Hub { state: Mutex::new(state), start: Instant::now(), earlier: Notify::new() }), wanted)
    }

    /// Passes an upgrade request to the machine; answers go to the outbox.
    pub fn open(&self, conn: ConnectionId, handshake: Handshake, outbox: Arc<Outbox>) -> Result<(), ShutDownError> {
        self.step_machine(|state, now| {
            state.outboxes.insert(conn, outbox);
            state.handle(now, MachineInput::Open { conn, handshake });
        })
    }

    /// Passes an input to the machine, unless its connection has ended.
    pub fn handle(&self, input: MachineInput) -> Result<(), ShutDownError> {
        self.step_machine(|state, now| {
            let known = match &input {
                MachineInput::Closed { conn } | MachineInput::ConnectFailed { conn, .. } => {
                    state.outboxes.remove(conn).is_some()
                }
                other => other.conn().is_none_or(|conn| state.outboxes.contains_key(&conn)),
            };
            if known {
                state.handle(now, input);
            }
        })
    }

    /// Returns the machine's state.
    pub fn state(&self) -> Result<Value, ShutDownError> {
        self.step_machine(|state, _| state.machine.state())
    }

    /// Passes an event of the admin side to the machine and returns its answer.
    pub fn event(&self, event: &Value) -> Result<Result<Value, EventError>, ShutDownError> {
        self.step_machine(|state, now| {
            let answer = state.machine.event(now, event, &mut state.out);
            state.deliver(now);
            answer
        })
    }

    /// Sends the machine a tick at each of its deadlines; never returns.
    pub async fn keep_time(&self) {
        loop {
            let alarm = {
                let mut state = self.state.lock();
                state.alarm = if state.over { None } else { state.machine.deadline() };
                state.alarm
            };
            let tick = async {
                match alarm {
                    Some(alarm) => sleep_until(self.start + alarm).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tick => drop(self.handle(MachineInput::Tick)),
                () = self.earlier.notified() => {}
            }
        }
    }

    /// Shuts the machine down and closes all connections. Returns their outboxes, to [cut](Outbox::cut) those that do
    /// not end in time.
    pub fn shut_down(&self) -> Vec<Arc<Outbox>> {
        let open = self.step_machine(|state, now| {
            let listening: Vec<_> = state.outboxes.values().cloned().collect();
            state.machine.shutdown(now, &mut state.out);
            state.deliver(now);
            for (_, outbox) in state.outboxes.drain() {
                // A close is never refused.
                state
                    .woken
                    .extend(outbox.push(OutboxItem::Close(1001, "the hub shuts down".to_owned())).unwrap_or_default());
            }
            state.over = true;
            listening
        });
        open.unwrap_or_default()
    }

    /// Does one step of the machine, and wakes tasks once the lock is free.
    fn step_machine<T>(&self, step: impl FnOnce(&mut HubState, Duration) -> T) -> Result<T, ShutDownError> {
        let (result, woken, earlier) = {
            let mut state = self.state.lock();
            if state.over {
                return Err(ShutDownError);
            }
            // The time is taken under the lock, so that it never goes back.
            let result = step(&mut state, self.start.elapsed());
            let wanted = state.machine.deadline();
            let earlier = wanted.is_some_and(|wanted| state.alarm.is_none_or(|alarm| wanted < alarm));
            if earlier {
                state.alarm = wanted;
            }
            (result, std::mem::take(&mut state.woken), earlier)
        };
        if earlier {
            self.earlier.notify_one();
        }
        woken.into_iter().for_each(Waker::wake);
        Ok(result)
    }
}

impl HubState {
    fn handle(&mut self, now: Duration, input: MachineInput) {
        self.machine.handle(now, input, &mut self.out);
        self.deliver(now);
    }

    /// Puts outputs into outboxes. A connection whose outbox is full is cut, and its end is passed to the machine.
    fn deliver(&mut self, now: Duration) {
        let mut lost = VecDeque::new();
        loop {
            for output in self.out.drain(..) {
                let conn = output.conn();
                let (item, last) = match output {
                    MachineOutput::Text { text, .. } => (OutboxItem::Text(text), false),
                    MachineOutput::Binary { data, .. } => (OutboxItem::Binary(data), false),
                    MachineOutput::Accept { subprotocol, .. } => (OutboxItem::Accept(subprotocol), false),
                    MachineOutput::Refuse { status, body, .. } => (OutboxItem::Refuse(status, body), true),
                    MachineOutput::Close { code, reason, .. } => (OutboxItem::Close(code, reason), true),
                    MachineOutput::Drop { .. } => (OutboxItem::Drop, true),
                    MachineOutput::Connect { url, .. } => {
                        let outbox = Arc::new(Outbox::default());
                        match self.calls.try_send(OutgoingConnection { conn, url, outbox: outbox.clone() }) {
                            Ok(()) => drop(self.outboxes.insert(conn, outbox)),
                            Err(_) => lost.push_back(MachineInput::ConnectFailed {
                                conn,
                                reason: "too many outgoing connections are pending".to_owned(),
                            }),
                        }
                        continue;
                    }
                };
                let Some(outbox) = self.outboxes.get(&conn) else { continue };
                match outbox.push(item) {
                    Ok(waker) => {
                        self.woken.extend(waker);
                        if last {
                            self.outboxes.remove(&conn);
                        }
                    }
                    Err(_) => {
                        self.woken.extend(outbox.cut());
                        self.outboxes.remove(&conn);
                        lost.push_back(MachineInput::Closed { conn });
                    }
                }
            }
            let Some(input) = lost.pop_front() else { break };
            self.machine.handle(now, input, &mut self.out);
        }
    }
}
