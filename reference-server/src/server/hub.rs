//! A machine and who is connected to it, shared by all tasks that have something to say to it.
//!
//! Whoever has read a message hands it to the machine itself and goes on: no task in between, no queue, and every core
//! reads, writes and frames. Only the machine's own step is done by one task at a time, under a lock that is held for
//! nothing else: outputs go into outboxes, and their owners are woken, and write, once it is free again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::machine::{Conn, EventError, Handshake, Input, Machine, Output};
use crate::server::outbox::{Item, Outbox};

/// How many connections that the machine has asked for may wait to be made.
const MOST_CALLS: usize = 256;

/// The machine has said its last words.
#[derive(Debug)]
pub struct ShutDown;

/// A connection that the machine asks for.
pub struct Call {
    pub conn: Conn,
    pub url: String,
    pub outbox: Arc<Outbox>,
}

/// A machine in company.
pub struct Hub {
    owned: Mutex<Owned>,
    start: Instant,
    /// The machine wants to be woken earlier than was known.
    earlier: Notify,
}

struct Owned {
    machine: Box<dyn Machine>,
    outboxes: HashMap<Conn, Arc<Outbox>>,
    out: Vec<Output>,
    calls: mpsc::Sender<Call>,
    /// Who is to be woken once the lock is free.
    woken: Vec<Waker>,
    /// When the machine is going to be woken.
    alarm: Option<Duration>,
    over: bool,
}

impl Hub {
    /// A machine that nobody is connected to, and the connections that it will ask for.
    pub fn new(machine: Box<dyn Machine>) -> (Arc<Hub>, mpsc::Receiver<Call>) {
        let (calls, wanted) = mpsc::channel(MOST_CALLS);
        let owned = Owned {
            machine,
            outboxes: HashMap::new(),
            out: Vec::new(),
            calls,
            woken: Vec::new(),
            alarm: None,
            over: false,
        };
        (Arc::new(Hub { owned: Mutex::new(owned), start: Instant::now(), earlier: Notify::new() }), wanted)
    }

    /// Somebody asks for an upgrade; answers go to the outbox.
    ///
    /// # Errors
    /// [`ShutDown`]: there is nobody to be asked any more.
    pub fn open(&self, conn: Conn, handshake: Handshake, outbox: Arc<Outbox>) -> Result<(), ShutDown> {
        self.with(|owned, now| {
            owned.outboxes.insert(conn, outbox);
            owned.hear(now, Input::Open { conn, handshake });
        })
    }

    /// Hands the machine an input. One of a connection that is over is not heard.
    ///
    /// # Errors
    /// [`ShutDown`]: there is nobody to hear it any more.
    pub fn hear(&self, input: Input) -> Result<(), ShutDown> {
        self.with(|owned, now| {
            let known = match &input {
                Input::Closed { conn } | Input::ConnectFailed { conn, .. } => owned.outboxes.remove(conn).is_some(),
                other => other.conn().is_none_or(|conn| owned.outboxes.contains_key(&conn)),
            };
            if known {
                owned.hear(now, input);
            }
        })
    }

    /// What the machine knows.
    ///
    /// # Errors
    /// [`ShutDown`].
    pub fn state(&self) -> Result<Value, ShutDown> {
        self.with(|owned, _| owned.machine.state())
    }

    /// An event from outside the sockets, and the machine's answer.
    ///
    /// # Errors
    /// [`ShutDown`].
    pub fn event(&self, event: &Value) -> Result<Result<Value, EventError>, ShutDown> {
        self.with(|owned, now| {
            let answer = owned.machine.event(now, event, &mut owned.out);
            owned.deliver(now);
            answer
        })
    }

    /// Wakes the machine whenever it wants to be; does not end by itself.
    pub async fn keep_time(&self) {
        loop {
            let alarm = {
                let mut owned = self.owned();
                owned.alarm = if owned.over { None } else { owned.machine.deadline() };
                owned.alarm
            };
            let tick = async {
                match alarm {
                    Some(alarm) => sleep_until(self.start + alarm).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tick => drop(self.hear(Input::Tick)),
                () = self.earlier.notified() => {}
            }
        }
    }

    /// Lets the machine say goodbye and closes whoever is left. Those who are still there after a while may be
    /// [cut](Outbox::cut).
    pub fn last_words(&self) -> Vec<Arc<Outbox>> {
        let said = self.with(|owned, now| {
            let listening: Vec<_> = owned.outboxes.values().cloned().collect();
            owned.machine.shutdown(now, &mut owned.out);
            owned.deliver(now);
            for (_, outbox) in owned.outboxes.drain() {
                // An end always fits.
                owned.woken.extend(outbox.push(Item::Close(1001, "the hub shuts down".to_owned())).unwrap_or_default());
            }
            owned.over = true;
            listening
        });
        said.unwrap_or_default()
    }

    fn owned(&self) -> MutexGuard<'_, Owned> {
        // A machine that has panicked is a bug whose connection has gone; the others go on.
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One step of the machine; wakes whom it concerns once the lock is free.
    fn with<T>(&self, step: impl FnOnce(&mut Owned, Duration) -> T) -> Result<T, ShutDown> {
        let (result, woken, earlier) = {
            let mut owned = self.owned();
            if owned.over {
                return Err(ShutDown);
            }
            // Behind the lock, so that time never goes back.
            let result = step(&mut owned, self.start.elapsed());
            let wanted = owned.machine.deadline();
            let earlier = wanted.is_some_and(|wanted| owned.alarm.is_none_or(|alarm| wanted < alarm));
            if earlier {
                owned.alarm = wanted;
            }
            (result, std::mem::take(&mut owned.woken), earlier)
        };
        if earlier {
            self.earlier.notify_one();
        }
        woken.into_iter().for_each(Waker::wake);
        Ok(result)
    }
}

impl Owned {
    fn hear(&mut self, now: Duration, input: Input) {
        self.machine.handle(now, input, &mut self.out);
        self.deliver(now);
    }

    /// Puts outputs into outboxes. Whose outbox is full is cut off, which the machine hears of in turn.
    fn deliver(&mut self, now: Duration) {
        let mut lost = VecDeque::new();
        loop {
            for output in self.out.drain(..) {
                let conn = output.conn();
                let (item, last) = match output {
                    Output::Text { text, .. } => (Item::Text(text), false),
                    Output::Binary { data, .. } => (Item::Binary(data), false),
                    Output::Accept { subprotocol, .. } => (Item::Accept(subprotocol), false),
                    Output::Refuse { status, body, .. } => (Item::Refuse(status, body), true),
                    Output::Close { code, reason, .. } => (Item::Close(code, reason), true),
                    Output::Drop { .. } => (Item::Drop, true),
                    Output::Connect { url, .. } => {
                        let outbox = Arc::new(Outbox::default());
                        match self.calls.try_send(Call { conn, url, outbox: outbox.clone() }) {
                            Ok(()) => drop(self.outboxes.insert(conn, outbox)),
                            Err(_) => lost.push_back(Input::ConnectFailed {
                                conn,
                                reason: "too many connections are being made".to_owned(),
                            }),
                        }
                        continue;
                    }
                };
                let Some(outbox) = self.outboxes.get(&conn) else {
                    continue;
                };
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
                        lost.push_back(Input::Closed { conn });
                    }
                }
            }
            let Some(input) = lost.pop_front() else { break };
            self.machine.handle(now, input, &mut self.out);
        }
    }
}
