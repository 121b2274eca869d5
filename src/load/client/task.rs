//! One thing that a client does, and how far it has come in its program.

use rand::RngExt;

use super::{Client, Life};
use crate::load::Nanos;
use crate::load::client::io::{ClientFault, ClientIo};
use crate::load::compile::message_template::{EmptySlotError, Sight, Texts, scratch};
use crate::load::compile::program::{Captures, Connect, Dial, Op, Role, Send, Slot};
use crate::load::plan::schedule::{exponential, normal};
use crate::load::plan::script::Think;

/// Late answers that a client goes on with beside its journeys.
const MOST_OWED: u32 = 64;

#[derive(Debug)]
pub struct Task {
    pub program: usize,
    /// The operation that it is at.
    pub at: usize,
    pub state: State,
    /// When something happens by itself: the end of a wait, of a thought, the next journey.
    pub wake: Nanos,
    /// When what it does next is due, and when what it does was due as a whole.
    pub due: Nanos,
    pub begun: Nanos,
    /// The first tick of a client that paces itself, and the one it waits for.
    pub base: Nanos,
    pub tick: Nanos,
    /// Whose turn it is: the one that has waited longest.
    pub order: u32,
    /// Where it waited when its connection ended, while it makes sure that it is still waited for.
    pub back: Option<usize>,
    /// It began with an answer that nobody waited for any more, beside the journeys of its client.
    pub extra: bool,
    /// Steps whose frame came before it was their turn.
    pub early: u64,
    /// A step whose answer may stay out, and came to nothing: a late answer goes on from there.
    pub late: Option<usize>,
    /// The item it is about, in the ledger, and what has been noted of it.
    pub item: u64,
    pub noted: u8,
    /// What is made ahead of time is made.
    pub prepared: bool,
    /// The number of the journey among those of its client, from 1.
    pub turn: u32,
    pub texts: Texts,
    /// When messages whose answers are timed were due, and sent.
    pub times: Box<[(Nanos, Nanos)]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Idle,
    /// Until it is time for the next journey.
    Between,
    Running,
    Connecting,
    Waiting,
    Thinking,
    Hooking,
}

impl Task {
    pub fn new(role: &Role, program: usize) -> Self {
        let code = &role.programs[program];
        Self {
            program,
            at: 0,
            state: State::Idle,
            wake: Nanos::MAX,
            due: 0,
            begun: 0,
            base: 0,
            tick: 0,
            order: 0,
            back: None,
            extra: false,
            early: 0,
            late: None,
            item: 0,
            noted: 0,
            prepared: false,
            turn: 0,
            texts: Texts::new(code.texts),
            times: vec![(0, 0); code.times].into(),
        }
    }

    /// It has begun and is not at its end.
    pub fn is_active(&self) -> bool {
        !matches!(self.state, State::Idle | State::Between)
    }

    /// It has something to do, now or later.
    pub fn is_taken(&self) -> bool {
        self.state != State::Idle
    }

    pub fn rest(&mut self) {
        self.state = State::Idle;
        (self.back, self.extra) = (None, false);
        self.wake = Nanos::MAX;
        self.late = None;
    }

    /// How far it has come in its journey, whatever it does to go on with it.
    pub fn reached(&self) -> usize {
        self.back.unwrap_or(self.at)
    }

    /// The operation it waited at is over.
    pub fn go_on(&mut self) {
        self.at += 1;
        self.state = State::Running;
        self.wake = Nanos::MAX;
    }
}

impl Client {
    /// An idle task for a program: one that has played it before, one that nobody needs any more, or a new one.
    pub(super) fn spare(&mut self, role: &Role, program: usize) -> usize {
        let idle = |task: &Task| task.state == State::Idle;
        if let Some(task) = self.tasks.iter().position(|task| idle(task) && task.program == program) {
            return task;
        }
        if let Some(task) = self.tasks.iter().position(|task| idle(task) && task.program == role.opening) {
            self.tasks[task] = Task::new(role, program);
            return task;
        }
        // One at a time: most clients have two or three.
        self.tasks.reserve_exact(1);
        self.tasks.push(Task::new(role, program));
        self.tasks.len() - 1
    }

    /// Makes what can be made before a program is due.
    pub(super) fn prepare(&mut self, role: &Role, task: usize, now: Nanos) {
        if Some(self.tasks[task].program) == role.journey {
            self.journeys += 1;
            self.tasks[task].turn = self.journeys;
        }
        self.tasks[task].texts.clear();
        for (slot, fill) in &role.programs[self.tasks[task].program].ahead {
            scratch(|text| {
                if self.fill(role, fill, Some(task), now, text).is_ok() {
                    self.tasks[task].texts.set(*slot, text);
                }
            });
        }
        self.tasks[task].prepared = true;
    }

    /// Begins a program that was due at this time.
    pub(super) fn start(&mut self, role: &Role, task: usize, due: Nanos, now: Nanos, port: &mut impl ClientIo) {
        let journey = role.programs[self.tasks[task].program].journey;
        if let Some(journey) = journey {
            port.begun(journey, now);
        }
        self.begin_at(role, task, due);
        self.run(role, task, now, port);
    }

    pub(super) fn begin_at(&mut self, role: &Role, task: usize, due: Nanos) {
        let item = self.unnamed_item(role);
        let task = &mut self.tasks[task];
        task.at = 0;
        task.back = None;
        (task.due, task.begun) = (due, due);
        (task.early, task.late, task.noted, task.item) = (0, None, 0, item);
        task.prepared = false;
        task.wake = Nanos::MAX;
        task.state = State::Running;
    }

    /// Walks on until there is something to wait for.
    pub(super) fn run(&mut self, role: &Role, task: usize, now: Nanos, port: &mut impl ClientIo) {
        while self.tasks[task].state == State::Running {
            let program = &role.programs[self.tasks[task].program];
            let Some(op) = program.ops.get(self.tasks[task].at) else { return self.done(role, task, now, port) };
            match op {
                Op::Connect(connect) => return self.connect(role, task, connect, now, port),
                Op::Send(send) => {
                    if self.send(role, task, send, now, port).is_err() {
                        port.trouble(ClientFault::Unusable(send.message), now);
                        return self.fail(role, task, now, port);
                    }
                }
                Op::Expect(expect) => {
                    let waits = self.waits;
                    let one = &mut self.tasks[task];
                    if expect.early.is_some_and(|bit| one.early & (1 << bit) != 0) {
                        one.at += 1;
                        continue;
                    }
                    one.state = State::Waiting;
                    one.wake = now.saturating_add(expect.within);
                    one.order = waits;
                    self.waits = waits.wrapping_add(1);
                }
                Op::Work { text, fill } => {
                    let made = scratch(|made| {
                        self.fill(role, fill, Some(task), now, made)?;
                        self.tasks[task].texts.set(*text, made);
                        Ok::<_, EmptySlotError>(())
                    });
                    if made.is_err() {
                        port.trouble(ClientFault::Internal, now);
                        return self.fail(role, task, now, port);
                    }
                    self.tasks[task].at += 1;
                }
                Op::Think(think) => {
                    let time = self.time(*think);
                    let one = &mut self.tasks[task];
                    one.wake = one.due.saturating_add(time);
                    one.state = State::Thinking;
                    if one.wake <= now {
                        one.due = one.wake;
                        one.go_on();
                    }
                }
                Op::Chance { share, otherwise } => {
                    let hit = self.random.random::<f64>() < *share;
                    self.tasks[task].at = if hit { self.tasks[task].at + 1 } else { *otherwise };
                }
                Op::Jump(at) => self.tasks[task].at = *at,
                Op::Back => {
                    let one = &mut self.tasks[task];
                    one.at = one.back.take().unwrap_or(one.at + 1);
                }
                Op::Hook(hook) => {
                    let mut call = Vec::new();
                    let mut sight = self.sight(role, task, now);
                    if hook.template.write(&mut sight, &mut call).is_err() {
                        port.trouble(ClientFault::Hook, now);
                        return self.fail(role, task, now, port);
                    }
                    port.hook(hook.hook, |out| out.extend_from_slice(&call));
                    if let Some(marking) = &hook.marking {
                        self.mark(role, task, marking, None, now, port);
                    }
                    let one = &mut self.tasks[task];
                    one.state = State::Hooking;
                    one.wake = now.saturating_add(hook.within);
                }
                Op::Close(code) => {
                    self.life = Life::Leaving;
                    port.close(*code);
                    self.tasks[task].at += 1;
                }
            }
        }
    }

    fn sight<'a>(&'a mut self, role: &'a Role, task: usize, now: Nanos) -> Sight<'a> {
        let task = &self.tasks[task];
        Sight {
            own: &self.own,
            texts: &task.texts,
            index: self.party - role.first,
            turn: task.turn,
            party: self.party,
            due: task.due,
            now,
            run: &role.common.run,
            random: &mut self.random,
            uniques: &mut self.uniques,
        }
    }

    fn connect(&mut self, role: &Role, task: usize, connect: &Connect, now: Nanos, port: &mut impl ClientIo) {
        self.tasks[task].state = State::Connecting;
        match connect {
            Connect::Ready(dial) => port.open(dial),
            Connect::Filled(template) => {
                let mut text = Vec::new();
                let written = template.write(&mut self.sight(role, task, now), &mut text);
                match written.ok().and_then(|()| Dial::from_json(&text)) {
                    Some(dial) => port.open(&dial),
                    None => {
                        port.trouble(ClientFault::Internal, now);
                        self.fail(role, task, now, port);
                    }
                }
            }
        }
    }

    fn send(
        &mut self,
        role: &Role,
        task: usize,
        send: &Send,
        now: Nanos,
        port: &mut impl ClientIo,
    ) -> Result<(), EmptySlotError> {
        let connected = matches!(self.life, Life::Opening | Life::Joined);
        if !connected || !send.template.is_ready(&self.own, &self.tasks[task].texts) {
            return Err(EmptySlotError);
        }
        let due = self.tasks[task].due;
        let sent = match &send.captures {
            None => {
                let mut sight = self.sight(role, task, now);
                port.send(send.message, due, |out| {
                    // It is ready, so there is nothing that it lacks.
                    let _ = send.template.write(&mut sight, out);
                })
            }
            Some(captures) => scratch(|text| {
                send.template.write(&mut self.sight(role, task, now), text)?;
                self.capture(task, captures, text);
                Ok::<_, EmptySlotError>(port.send(send.message, due, |out| out.extend_from_slice(text)))
            })?,
        };
        if let Some(times) = send.times {
            self.tasks[task].times[times] = (due, sent);
        }
        if let Some(marking) = &send.marking {
            self.mark(role, task, marking, Some(send.message), sent, port);
        }
        self.tasks[task].at += 1;
        Ok(())
    }

    /// Keeps members of a text.
    pub(super) fn capture(&mut self, task: usize, captures: &Captures, text: &[u8]) {
        let Ok(found) = captures.paths.find(text) else { return };
        for (number, slot) in &captures.slots {
            if let Some(member) = found[*number] {
                self.keep(task, *slot, member);
            }
        }
    }

    /// Nothing from before may stand in for what did not come.
    pub(super) fn lack(&mut self, task: usize, slot: Slot) {
        match slot {
            Slot::Text(slot) => self.tasks[task].texts.unset(slot),
            Slot::Own(slot) => self.own.unset(slot),
        }
    }

    pub(super) fn keep(&mut self, task: usize, slot: Slot, text: &[u8]) {
        match slot {
            Slot::Text(slot) => self.tasks[task].texts.set(slot, text),
            Slot::Own(slot) => self.own.set(slot, text),
        }
    }

    fn time(&mut self, think: Think) -> Nanos {
        let random = &mut self.random;
        let seconds = match think {
            Think::Constant(time) => return time.as_nanos() as Nanos,
            Think::Uniform(least, most) => least.as_secs_f64() + random.random::<f64>() * (most - least).as_secs_f64(),
            Think::Exponential(mean) => mean.as_secs_f64() * exponential(random),
            Think::LogNormal { median, sigma } => median.as_secs_f64() * (sigma * normal(random)).exp(),
        };
        // Casting keeps within bounds whatever is drawn.
        (seconds * 1e9) as Nanos
    }

    /// The time of a task has come.
    pub(super) fn expired(&mut self, role: &Role, task: usize, now: Nanos, port: &mut impl ClientIo) {
        let one = &mut self.tasks[task];
        match one.state {
            State::Between => {
                let due = one.wake;
                self.start(role, task, due, now, port);
            }
            State::Thinking => {
                one.due = one.wake;
                one.go_on();
                self.run(role, task, now, port);
            }
            State::Waiting => self.unanswered(role, task, now, port),
            State::Hooking => {
                port.trouble(ClientFault::Hook, now);
                self.fail(role, task, now, port);
            }
            State::Idle | State::Running | State::Connecting => one.wake = Nanos::MAX,
        }
    }

    /// What was waited for did not come in time.
    fn unanswered(&mut self, role: &Role, task: usize, now: Nanos, port: &mut impl ClientIo) {
        let (program, at) = (self.tasks[task].program, self.tasks[task].at);
        let Some(Op::Expect(expect)) = role.programs[program].ops.get(at) else { return };
        match (expect.answers, expect.may_stay_unanswered) {
            (Some((asked, _)), true) => port.unanswered(asked, now),
            (None, true) => {}
            (Some((asked, _)), false) => port.trouble(ClientFault::Timeout(asked), now),
            (None, false) => {
                if let Some(message) = expect.message {
                    port.trouble(ClientFault::Missing(message), now);
                }
            }
        }
        if !expect.may_stay_unanswered {
            return self.fail(role, task, now, port);
        }
        if let Some(journey) = role.programs[program].journey {
            port.idle(journey, now);
        }
        self.over(role, task, now, port);
        self.owed = (self.owed + 1).min(MOST_OWED);
        if self.tasks[task].state == State::Between {
            self.tasks[task].late = Some(at);
        }
    }

    /// A program came to its end.
    fn done(&mut self, role: &Role, task: usize, now: Nanos, port: &mut impl ClientIo) {
        let program = self.tasks[task].program;
        if program == role.opening {
            self.tasks[task].rest();
            return self.joined(role, now, port);
        }
        if let Some(journey) = role.programs[program].journey {
            port.journey(journey, self.tasks[task].begun, now);
        }
        self.over(role, task, now, port);
    }

    /// A program came to nothing.
    pub(super) fn fail(&mut self, role: &Role, task: usize, now: Nanos, port: &mut impl ClientIo) {
        let program = self.tasks[task].program;
        if let Some(journey) = role.programs[program].journey {
            port.failed(journey, now);
        }
        if program == role.opening {
            self.tasks[task].rest();
            if self.life == Life::Opening {
                // Tried again when the connection has ended, after a while.
                port.close(1000);
            }
            return;
        }
        self.over(role, task, now, port);
    }

    /// A journey is over, however it ended: the next one.
    fn over(&mut self, role: &Role, task: usize, now: Nanos, port: &mut impl ClientIo) {
        if Some(self.tasks[task].program) != role.journey {
            return self.tasks[task].rest();
        }
        if !role.arrivals && !self.tasks[task].extra {
            return self.again(role, task, now, port);
        }
        if !role.arrivals {
            return self.tasks[task].rest();
        }
        self.tasks[task].rest();
        if self.life == Life::Joined && !self.draining {
            self.prepare(role, task, now);
            port.room();
        }
    }
}
