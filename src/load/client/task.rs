//! One concurrent activity of a client, and its position in its program.

use rand::RngExt;

use super::{Client, Life};
use crate::load::Nanos;
use crate::load::client::io::{ClientFault, ClientIo};
use crate::load::compile::message_template::{EmptySlotError, SlotValues, Texts, scratch};
use crate::load::compile::program::{Captures, Connect, Op, Role, Send, Slot};
use crate::load::plan::schedule::{exponential, normal};
use crate::load::plan::script::Think;
use crate::websocket::handshake::Dial;

/// The most late answers that a client handles in extra tasks at a time.
const MOST_OWED: u32 = 64;

#[derive(Debug)]
pub struct Task {
    pub program: usize,
    /// The index of the current operation.
    pub at: usize,
    pub state: State,
    /// When the task continues by itself: a timeout, the end of a pause, the next journey.
    pub wake: Nanos,
    /// The due times of the next step and of the whole journey.
    pub due: Nanos,
    pub begun: Nanos,
    /// The first tick of a client that paces itself, and the next one.
    pub base: Nanos,
    pub tick: Nanos,
    /// Order of waiting: the lowest number has waited longest.
    pub order: u32,
    /// The operation at which the task waited when the connection ended, while it runs the steps of `resumes`.
    pub back: Option<usize>,
    /// Whether the task handles a late answer in addition to the journeys of its client.
    pub extra: bool,
    /// A bit set of steps whose frame came early.
    pub early: u64,
    /// A step whose optional answer timed out: a late answer continues there.
    pub late: Option<usize>,
    /// The key of the task's item in the ledger, and the marks recorded of the item.
    pub item: u64,
    pub noted: u8,
    /// Whether values computed in advance are ready.
    pub prepared: bool,
    /// The number of the task's journey among those of its client, from 1.
    pub turn: u32,
    pub texts: Texts,
    /// Due and send times of messages whose answers are timed.
    pub times: Box<[(Nanos, Nanos)]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Idle,
    /// Waits for the start of the next journey.
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

    /// Whether the task's program is running.
    pub fn is_active(&self) -> bool {
        !matches!(self.state, State::Idle | State::Between)
    }

    /// Whether the task runs or is scheduled.
    pub fn is_taken(&self) -> bool {
        self.state != State::Idle
    }

    pub fn rest(&mut self) {
        self.state = State::Idle;
        (self.back, self.extra) = (None, false);
        self.wake = Nanos::MAX;
        self.late = None;
    }

    /// Returns the task's position in the journey, also while it runs the steps of `resumes`.
    pub fn reached(&self) -> usize {
        self.back.unwrap_or(self.at)
    }

    /// Continues the task after the operation at which it waited.
    pub fn go_on(&mut self) {
        self.at += 1;
        self.state = State::Running;
        self.wake = Nanos::MAX;
    }
}

impl Client {
    /// Returns an idle task for a program: one that ran it before, any idle one, or a new one.
    pub(super) fn spare(&mut self, role: &Role, program: usize) -> usize {
        let idle = |task: &Task| task.state == State::Idle;
        if let Some(task) = self.tasks.iter().position(|task| idle(task) && task.program == program) {
            return task;
        }
        if let Some(task) = self.tasks.iter().position(|task| idle(task) && task.program == role.opening) {
            self.tasks[task] = Task::new(role, program);
            return task;
        }
        // Reserves exactly one more: most clients have two or three tasks.
        self.tasks.reserve_exact(1);
        self.tasks.push(Task::new(role, program));
        self.tasks.len() - 1
    }

    /// Computes the values of a program that can be computed before it is due.
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

    /// Starts a program that was due at this time.
    pub(super) fn start(&mut self, role: &Role, task: usize, due: Nanos, now: Nanos, io: &mut impl ClientIo) {
        let journey = role.programs[self.tasks[task].program].journey;
        if let Some(journey) = journey {
            io.begun(journey, now);
        }
        self.begin_at(role, task, due);
        self.run(role, task, now, io);
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

    /// Runs operations until one has to wait.
    pub(super) fn run(&mut self, role: &Role, task: usize, now: Nanos, io: &mut impl ClientIo) {
        while self.tasks[task].state == State::Running {
            let program = &role.programs[self.tasks[task].program];
            let Some(op) = program.ops.get(self.tasks[task].at) else { return self.done(role, task, now, io) };
            match op {
                Op::Connect(connect) => return self.connect(role, task, connect, now, io),
                Op::Send(send) => {
                    if self.send(role, task, send, now, io).is_err() {
                        return self.fail(role, task, Some(ClientFault::Unusable(send.message)), now, io);
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
                Op::Evaluate { text, fill } => {
                    let made = scratch(|made| {
                        self.fill(role, fill, Some(task), now, made)?;
                        self.tasks[task].texts.set(*text, made);
                        Ok::<_, EmptySlotError>(())
                    });
                    if made.is_err() {
                        return self.fail(role, task, Some(ClientFault::Internal), now, io);
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
                    let mut slot_values = self.slot_values(role, task, now);
                    if hook.template.write(&mut slot_values, &mut call).is_err() {
                        return self.fail(role, task, Some(ClientFault::Hook), now, io);
                    }
                    io.hook(hook.hook, |out| out.extend_from_slice(&call));
                    if let Some(marking) = &hook.marking {
                        self.mark(role, task, marking, None, now, io);
                    }
                    let one = &mut self.tasks[task];
                    one.state = State::Hooking;
                    one.wake = now.saturating_add(hook.within);
                }
                Op::Close(code) => {
                    self.life = Life::Leaving;
                    io.close(*code);
                    self.tasks[task].at += 1;
                }
            }
        }
    }

    fn slot_values<'a>(&'a mut self, role: &'a Role, task: usize, now: Nanos) -> SlotValues<'a> {
        let task = &self.tasks[task];
        SlotValues {
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

    fn connect(&mut self, role: &Role, task: usize, connect: &Connect, now: Nanos, io: &mut impl ClientIo) {
        self.tasks[task].state = State::Connecting;
        match connect {
            Connect::Ready(dial) => io.open(dial),
            Connect::Filled(template) => {
                let mut text = Vec::new();
                let written = template.write(&mut self.slot_values(role, task, now), &mut text);
                let members = written.ok().and_then(|()| serde_json::from_slice(&text).ok());
                match members.map(|members| Dial::from_json(&members)) {
                    Some(Ok(dial)) => io.open(&dial),
                    _ => self.fail(role, task, Some(ClientFault::Internal), now, io),
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
        io: &mut impl ClientIo,
    ) -> Result<(), EmptySlotError> {
        let connected = matches!(self.life, Life::Opening | Life::Joined);
        if !connected || !send.template.is_ready(&self.own, &self.tasks[task].texts) {
            return Err(EmptySlotError);
        }
        let due = self.tasks[task].due;
        let sent = match &send.captures {
            None => {
                let mut slot_values = self.slot_values(role, task, now);
                io.send(send.message, due, |out| {
                    // Readiness was checked, so no slot is empty.
                    let _ = send.template.write(&mut slot_values, out);
                })
            }
            Some(captures) => scratch(|text| {
                send.template.write(&mut self.slot_values(role, task, now), text)?;
                self.capture(task, captures, text);
                Ok::<_, EmptySlotError>(io.send(send.message, due, |out| out.extend_from_slice(text)))
            })?,
        };
        if let Some(times) = send.times {
            self.tasks[task].times[times] = (due, sent);
        }
        if let Some(marking) = &send.marking {
            self.mark(role, task, marking, Some(send.message), sent, io);
        }
        self.tasks[task].at += 1;
        Ok(())
    }

    /// Captures members of a frame.
    pub(super) fn capture(&mut self, task: usize, captures: &Captures, text: &[u8]) {
        let Ok(found) = captures.paths.find(text) else { return };
        for (number, slot) in &captures.slots {
            if let Some(member) = found[*number] {
                self.keep(task, *slot, member);
            }
        }
    }

    /// Empties a slot, so that a value of an earlier frame is not used.
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
        // The cast saturates.
        (seconds * 1e9) as Nanos
    }

    /// Handles the wake-up time of a task.
    pub(super) fn expired(&mut self, role: &Role, task: usize, now: Nanos, io: &mut impl ClientIo) {
        let one = &mut self.tasks[task];
        match one.state {
            State::Between => {
                let due = one.wake;
                self.start(role, task, due, now, io);
            }
            State::Thinking => {
                one.due = one.wake;
                one.go_on();
                self.run(role, task, now, io);
            }
            State::Waiting => self.unanswered(role, task, now, io),
            State::Hooking => self.fail(role, task, Some(ClientFault::Hook), now, io),
            State::Idle | State::Running | State::Connecting => one.wake = Nanos::MAX,
        }
    }

    /// Handles a timeout.
    fn unanswered(&mut self, role: &Role, task: usize, now: Nanos, io: &mut impl ClientIo) {
        let (program, at) = (self.tasks[task].program, self.tasks[task].at);
        let Some(Op::Expect(expect)) = role.programs[program].ops.get(at) else { return };
        let asked = expect.answers.map(|(asked, _)| asked);
        if !expect.may_stay_unanswered {
            let fault = asked.map(ClientFault::Timeout).or(expect.message.map(ClientFault::Missing));
            return self.fail(role, task, fault, now, io);
        }
        if let Some(asked) = asked {
            io.unanswered(asked, now);
        }
        if let Some(journey) = role.programs[program].journey {
            io.idle(journey, now);
        }
        self.over(role, task, now, io);
        self.owed = (self.owed + 1).min(MOST_OWED);
        if self.tasks[task].state == State::Between {
            self.tasks[task].late = Some(at);
        }
    }

    /// Handles the end of a program.
    fn done(&mut self, role: &Role, task: usize, now: Nanos, io: &mut impl ClientIo) {
        let program = self.tasks[task].program;
        if program == role.opening {
            self.tasks[task].rest();
            return self.joined(role, now, io);
        }
        if let Some(journey) = role.programs[program].journey {
            io.journey(journey, self.tasks[task].begun, now);
        }
        self.over(role, task, now, io);
    }

    /// Handles the failure of a program.
    pub(super) fn fail(
        &mut self,
        role: &Role,
        task: usize,
        fault: Option<ClientFault>,
        now: Nanos,
        io: &mut impl ClientIo,
    ) {
        if let Some(fault) = fault {
            io.fault(fault, now);
        }
        let program = self.tasks[task].program;
        if let Some(journey) = role.programs[program].journey {
            io.failed(journey, now);
        }
        if program == role.opening {
            let at = self.tasks[task].at;
            self.tasks[task].rest();
            if self.life == Life::Opening {
                io.not_joined(at, fault);
                // The client tries again after a reconnect with backoff.
                io.close(1000);
            }
            return;
        }
        self.over(role, task, now, io);
    }

    /// Schedules the next journey after one has ended.
    fn over(&mut self, role: &Role, task: usize, now: Nanos, io: &mut impl ClientIo) {
        if Some(self.tasks[task].program) != role.journey {
            return self.tasks[task].rest();
        }
        if !role.arrivals && !self.tasks[task].extra {
            return self.next_journey(role, task, now, io);
        }
        if !role.arrivals {
            return self.tasks[task].rest();
        }
        self.tasks[task].rest();
        if self.life == Life::Joined && !self.draining {
            self.prepare(role, task, now);
            io.room();
        }
    }
}
