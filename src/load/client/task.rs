//! One concurrent activity of a client, and its position in its program.

use rand::RngExt;

use super::receive::FrameOrigin;
use super::{ClientState, VirtualClient};
use crate::load::Nanos;
use crate::load::client::io::{ClientFault, ClientIo, JourneyWait};
use crate::load::compile::json_scan::unquoted_text;
use crate::load::compile::message_template::{EmptySlotError, SlotTexts, SlotValues, with_scratch_buffer};
use crate::load::compile::program::{
    CaptureSlot, CompiledRole, ConnectOperation, ExpectOperation, MemberCaptures, OperationLabel, ProgramOperation,
    SendOperation,
};
use crate::load::ids::{MessageId, OperationId};
use crate::load::metrics::{JourneyCount, Measurement, MessageCount};
use crate::load::plan::MarkName;
use crate::load::plan::schedule::{exponential, normal};
use crate::load::plan::script::{JourneyPace, ThinkTime};
use crate::load::provenance::{Provenance, SourcedText};
use crate::websocket::dial::Dial;

/// The most late answers that a client handles in extra tasks at a time.
const MAX_OWED: u32 = 64;

/// The times of a message whose answer is timed.
#[derive(Clone, Copy, Debug)]
pub struct RequestTimes {
    pub due: Nanos,
    pub sent: Nanos,
    /// The generator's own delay: from when the client could send the message to when it did.
    pub delay: Nanos,
    /// The message's operation, if it has a label.
    pub operation: Option<OperationId>,
}

/// The times of a message that has not been sent.
const NOT_SENT: RequestTimes = RequestTimes { due: 0, sent: Nanos::MAX, delay: 0, operation: None };

#[derive(Debug)]
pub struct ClientTask {
    pub program: usize,
    /// The index of the current operation.
    pub at: usize,
    pub state: TaskState,
    /// When the task continues by itself: a timeout, the end of a pause, the next journey.
    pub wake: Nanos,
    /// The due times of the next step and of the whole journey.
    pub due: Nanos,
    pub begun: Nanos,
    /// When the client could begin the journey: its due time, or later if the client was busy until then.
    pub ready: Nanos,
    /// The next tick on which no journey has begun yet, for a client that paces itself; 0 before it has joined.
    pub tick: Nanos,
    /// The number of the running program among those of its client.
    pub number: u32,
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
    /// The source of the frames that the running program has taken: assumed if one of them is.
    pub source: Provenance,
    /// Whether values computed in advance are ready.
    pub prepared: bool,
    /// The number of the task's journey among those of its client, from 1.
    pub turn: u32,
    pub texts: SlotTexts,
    /// Due and send times of messages whose answers are timed; [`NOT_SENT`] if the program has not sent one yet.
    pub times: Box<[RequestTimes]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    Idle,
    /// Waits for the start of the next journey.
    Between,
    Running,
    Connecting,
    Waiting,
    Thinking,
    Hooking,
}

impl ClientTask {
    pub fn new(role: &CompiledRole, program: usize) -> Self {
        let code = &role.programs[program];
        Self {
            program,
            at: 0,
            state: TaskState::Idle,
            wake: Nanos::MAX,
            due: 0,
            begun: 0,
            ready: 0,
            tick: 0,
            number: 0,
            order: 0,
            back: None,
            extra: false,
            early: 0,
            late: None,
            item: 0,
            noted: 0,
            source: Provenance::Observed,
            prepared: false,
            turn: 0,
            texts: SlotTexts::new(code.texts),
            times: vec![NOT_SENT; code.times].into(),
        }
    }

    /// Whether the task's program is running.
    pub fn is_active(&self) -> bool {
        !matches!(self.state, TaskState::Idle | TaskState::Between)
    }

    /// Whether the task runs or is scheduled.
    pub fn is_taken(&self) -> bool {
        self.state != TaskState::Idle
    }

    pub fn become_idle(&mut self) {
        self.state = TaskState::Idle;
        (self.back, self.extra) = (None, false);
        self.wake = Nanos::MAX;
        self.late = None;
    }

    /// Returns the task's position in the journey, also while it runs the steps of `resumes`.
    pub fn journey_position(&self) -> usize {
        self.back.unwrap_or(self.at)
    }

    /// Continues the task after the operation at which it waited.
    pub fn advance(&mut self) {
        self.at += 1;
        self.state = TaskState::Running;
        self.wake = Nanos::MAX;
    }
}

impl VirtualClient {
    /// Returns an idle task for a program: one that ran it before, any idle one, or a new one.
    pub(super) fn idle_task(&mut self, role: &CompiledRole, program: usize) -> usize {
        let idle = |task: &ClientTask| task.state == TaskState::Idle;
        if let Some(task) = self.tasks.iter().position(|task| idle(task) && task.program == program) {
            return task;
        }
        if let Some(task) = self.tasks.iter().position(|task| idle(task) && task.program == role.opening) {
            self.tasks[task] = ClientTask::new(role, program);
            return task;
        }
        // Reserves exactly one more: most clients have two or three tasks.
        self.tasks.reserve_exact(1);
        self.tasks.push(ClientTask::new(role, program));
        self.tasks.len() - 1
    }

    /// Computes the values of a program that can be computed before it is due.
    pub(super) fn prepare(&mut self, role: &CompiledRole, task: usize, now: Nanos) {
        if Some(self.tasks[task].program) == role.journey {
            self.counts.journeys += 1;
            self.tasks[task].turn = self.counts.journeys;
        }
        self.tasks[task].texts.clear();
        for (slot, fill) in &role.programs[self.tasks[task].program].ahead {
            with_scratch_buffer(|text| {
                if self.append_fill(role, fill, Some(task), now, text).is_ok() {
                    let source = fill.source(&self.own, &self.tasks[task].texts);
                    self.tasks[task].texts.set(*slot, SourcedText { bytes: text, source });
                }
            });
        }
        self.tasks[task].prepared = true;
    }

    /// Starts a program that was due at this time.
    pub(super) fn start(&mut self, role: &CompiledRole, task: usize, due: Nanos, now: Nanos, io: &mut impl ClientIo) {
        let journey = role.programs[self.tasks[task].program].journey;
        if let Some(journey) = journey {
            io.record(Measurement::Journeys(journey, JourneyCount::Started, 1), now);
        }
        self.begin_at(role, task, due);
        self.run(role, task, now, io);
    }

    pub(super) fn begin_at(&mut self, role: &CompiledRole, task: usize, due: Nanos) {
        let item = self.unnamed_item(role);
        self.counts.programs = self.counts.programs.wrapping_add(1);
        let task = &mut self.tasks[task];
        task.number = self.counts.programs;
        task.times.fill(NOT_SENT);
        task.at = 0;
        task.back = None;
        (task.due, task.begun) = (due, due);
        (task.early, task.late, task.noted, task.item) = (0, None, 0, item);
        task.source = Provenance::Observed;
        task.prepared = false;
        task.wake = Nanos::MAX;
        task.state = TaskState::Running;
    }

    /// Runs operations until one has to wait.
    pub(super) fn run(&mut self, role: &CompiledRole, task: usize, now: Nanos, io: &mut impl ClientIo) {
        while self.tasks[task].state == TaskState::Running {
            let program = &role.programs[self.tasks[task].program];
            let Some(op) = program.ops.get(self.tasks[task].at) else {
                return self.finish_program(role, task, now, io);
            };
            match op {
                ProgramOperation::Connect(connect) => return self.connect(role, task, connect, now, io),
                ProgramOperation::Send(send) => {
                    if self.send(role, task, send, now, io).is_err() {
                        return self.fail_program(role, task, Some(ClientFault::Unusable(send.message)), now, io);
                    }
                }
                ProgramOperation::Expect(expect) => self.expect_frame(role, task, expect, now, io),
                ProgramOperation::Evaluate { text, fill } => {
                    let made = with_scratch_buffer(|made| {
                        self.append_fill(role, fill, Some(task), now, made)?;
                        let source = fill.source(&self.own, &self.tasks[task].texts);
                        self.tasks[task].texts.set(*text, SourcedText { bytes: made, source });
                        Ok::<_, EmptySlotError>(())
                    });
                    if made.is_err() {
                        return self.fail_program(role, task, Some(ClientFault::Internal), now, io);
                    }
                    self.tasks[task].at += 1;
                }
                ProgramOperation::Think(think) => {
                    let time = self.draw_think_time(*think);
                    let one = &mut self.tasks[task];
                    one.wake = one.due.saturating_add(time);
                    one.state = TaskState::Thinking;
                    if one.wake <= now {
                        one.due = one.wake;
                        one.advance();
                    }
                }
                ProgramOperation::Chance { share, otherwise } => {
                    let hit = self.random.random::<f64>() < *share;
                    self.tasks[task].at = if hit { self.tasks[task].at + 1 } else { *otherwise };
                }
                ProgramOperation::Jump(at) => self.tasks[task].at = *at,
                ProgramOperation::Back => {
                    let one = &mut self.tasks[task];
                    one.at = one.back.take().unwrap_or(one.at + 1);
                }
                ProgramOperation::Hook(hook) => {
                    let mut call = Vec::new();
                    let mut slot_values = self.slot_values(role, task, now);
                    if hook.template.write(&mut slot_values, &mut call).is_err() {
                        return self.fail_program(role, task, Some(ClientFault::Hook), now, io);
                    }
                    io.call_hook(hook.hook, call);
                    if let Some(marking) = &hook.marking {
                        self.record_mark(role, task, marking, FrameOrigin::observed(now), now, io);
                    }
                    let one = &mut self.tasks[task];
                    one.state = TaskState::Hooking;
                    one.wake = now.saturating_add(hook.within);
                }
                ProgramOperation::Close(code) => {
                    self.state = ClientState::Leaving;
                    io.close(*code);
                    self.tasks[task].at += 1;
                }
            }
        }
    }

    /// Takes a frame that came early, or begins to wait for one.
    fn expect_frame(
        &mut self,
        role: &CompiledRole,
        task: usize,
        expect: &ExpectOperation,
        now: Nanos,
        io: &mut impl ClientIo,
    ) {
        let is_early = expect.early.is_some_and(|bit| self.tasks[task].early & (1 << bit) != 0);
        if is_early || self.claim_kept_frame(role, task, now, io) {
            self.tasks[task].at += 1;
            return;
        }
        let one = &mut self.tasks[task];
        one.state = TaskState::Waiting;
        one.wake = now.saturating_add(expect.within);
        one.order = self.counts.waits;
        self.counts.waits = self.counts.waits.wrapping_add(1);
    }

    fn slot_values<'a>(&'a mut self, role: &'a CompiledRole, task: usize, now: Nanos) -> SlotValues<'a> {
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
            uniques: &mut self.counts.uniques,
        }
    }

    fn connect(
        &mut self,
        role: &CompiledRole,
        task: usize,
        connect: &ConnectOperation,
        now: Nanos,
        io: &mut impl ClientIo,
    ) {
        self.tasks[task].state = TaskState::Connecting;
        match connect {
            ConnectOperation::Ready(dial) => io.open(dial),
            ConnectOperation::Filled(template) => {
                let mut text = Vec::new();
                let written = template.write(&mut self.slot_values(role, task, now), &mut text);
                let members = written.ok().and_then(|()| serde_json::from_slice(&text).ok());
                match members.map(|members| Dial::from_json(&members)) {
                    Some(Ok(dial)) => io.open(&dial),
                    _ => self.fail_program(role, task, Some(ClientFault::Internal), now, io),
                }
            }
        }
    }

    fn send(
        &mut self,
        role: &CompiledRole,
        task: usize,
        send: &SendOperation,
        now: Nanos,
        io: &mut impl ClientIo,
    ) -> Result<(), EmptySlotError> {
        let connected = matches!(self.state, ClientState::Opening | ClientState::Joined);
        if !connected || !send.template.is_ready(&self.own, &self.tasks[task].texts) {
            return Err(EmptySlotError);
        }
        let due = self.tasks[task].due;
        // The time of a next journey may be known while a late answer continues the last one.
        let ready = self.tasks[task].ready.min(now).max(due);
        let sent = match &send.captures {
            None => {
                let mut slot_values = self.slot_values(role, task, now);
                io.send(send.message, due, ready, |out| {
                    // Readiness was checked, so no slot is empty.
                    let _ = send.template.write(&mut slot_values, out);
                })
            }
            Some(captures) => with_scratch_buffer(|text| {
                send.template.write(&mut self.slot_values(role, task, now), text)?;
                let source = send.template.source(&self.own, &self.tasks[task].texts);
                self.capture(task, captures, text, source);
                Ok::<_, EmptySlotError>(io.send(send.message, due, ready, |out| out.extend_from_slice(text)))
            })?,
        };
        let operation = send.label.as_ref().map(|label| self.operation(role, task, send.message, label, now));
        if let Some(operation) = operation {
            io.record(Measurement::OperationSent(operation), sent);
        }
        if let Some(times) = send.times {
            let delay = sent.saturating_sub(ready);
            self.tasks[task].times[times] = RequestTimes { due, sent, delay, operation };
        }
        if let Some(marking) = &send.marking {
            if let (MarkName::Published, Some(number)) = (marking.mark, self.observed_receivers(role, task, marking)) {
                io.record(Measurement::Messages(send.message, MessageCount::Due, number.into()), sent);
            }
            self.record_mark(role, task, marking, FrameOrigin::observed(sent), sent, io);
        }
        self.tasks[task].at += 1;
        Ok(())
    }

    /// Returns the operation that a sent message stands for.
    fn operation(
        &mut self,
        role: &CompiledRole,
        task: usize,
        message: MessageId,
        label: &OperationLabel,
        now: Nanos,
    ) -> OperationId {
        let message = usize::from(message.0);
        let template = match label {
            OperationLabel::Fixed(operation) => return *operation,
            OperationLabel::Filled(template) => template,
        };
        with_scratch_buffer(|text| {
            let operations = &role.common.operations;
            let operation = match template.write(&mut self.slot_values(role, task, now), text) {
                Ok(()) => operations.find_or_add(message, &String::from_utf8_lossy(&unquoted_text(text))),
                Err(EmptySlotError) => operations.other(message),
            };
            OperationId(operation as u16)
        })
    }

    /// Captures members of a sent message or of a hook's answer.
    pub(super) fn capture(&mut self, task: usize, captures: &MemberCaptures, text: &[u8], source: Provenance) {
        let Ok(found) = captures.paths.find(text) else { return };
        for (number, slot) in &captures.slots {
            if let Some(bytes) = found[*number] {
                self.set_slot(task, *slot, SourcedText { bytes, source });
            }
        }
    }

    /// Empties a slot, so that no earlier frame's value is used; `source` is the source of the frame that lacks the
    /// value.
    pub(super) fn clear_slot(&mut self, task: usize, slot: CaptureSlot, source: Provenance) {
        match slot {
            CaptureSlot::Text(slot) => self.tasks[task].texts.unset(slot, source),
            CaptureSlot::Own(slot) => self.own.unset(slot, source),
        }
    }

    pub(super) fn set_slot(&mut self, task: usize, slot: CaptureSlot, text: SourcedText<'_>) {
        // A hub that repeats a client's assumed value does not confirm it.
        let assumed = || {
            let repeated = self.tasks[task].texts.repeated_assumption(text.bytes);
            repeated.or_else(|| self.own.repeated_assumption(text.bytes))
        };
        let source = text.source.join(assumed().unwrap_or_default());
        let text = SourcedText { source, ..text };
        match slot {
            CaptureSlot::Text(slot) => self.tasks[task].texts.set(slot, text),
            CaptureSlot::Own(slot) => self.own.set(slot, text),
        }
    }

    /// Whether the operation at which a task is rests on something assumed: the request, or the values that its answer
    /// must have. If it fails, that says nothing about the hub.
    pub(super) fn rests_on_assumption(&self, role: &CompiledRole, task: usize) -> bool {
        let one = &self.tasks[task];
        let program = &role.programs[one.program];
        let source = |send: &SendOperation| send.template.source(&self.own, &one.texts);
        let expect = match program.ops.get(one.at) {
            Some(ProgramOperation::Send(send)) => return source(send).is_assumed(),
            Some(ProgramOperation::Expect(expect)) => expect,
            _ => return false,
        };
        let is_request = |send: &SendOperation| expect.answers.is_some_and(|(_, times)| send.times == Some(times));
        let requests = program.ops.iter().filter_map(|op| match op {
            ProgramOperation::Send(send) if is_request(send) => Some(source(send)),
            _ => None,
        });
        let waits = role.lookups.iter().flat_map(|lookup| &lookup.entries);
        let waits = waits.filter(|awaited| (awaited.program, awaited.op) == (one.program, one.at));
        let compared =
            waits.flat_map(|awaited| &awaited.equal).map(|(_, value)| value.provenance(&self.own, &one.texts));
        Provenance::join_all(requests.chain(compared)).is_assumed()
    }

    /// Reports that the journey of a task, if it has one, has failed.
    pub(super) fn report_failed_journey(&self, role: &CompiledRole, task: usize, now: Nanos, io: &mut impl ClientIo) {
        let one = &self.tasks[task];
        let Some(journey) = role.programs[one.program].journey else { return };
        if one.source.is_assumed() || self.rests_on_assumption(role, task) {
            io.record(Measurement::Journeys(journey, JourneyCount::Assumed, 1), now);
        } else {
            io.record(Measurement::Journeys(journey, JourneyCount::Failed, 1), now);
        }
    }

    fn draw_think_time(&mut self, think: ThinkTime) -> Nanos {
        let random = &mut self.random;
        let seconds = match think {
            ThinkTime::Constant(time) => return time.as_nanos() as Nanos,
            ThinkTime::Uniform(least, most) => {
                least.as_secs_f64() + random.random::<f64>() * (most - least).as_secs_f64()
            }
            ThinkTime::Exponential(mean) => mean.as_secs_f64() * exponential(random),
            ThinkTime::LogNormal { median, sigma } => median.as_secs_f64() * (sigma * normal(random)).exp(),
        };
        // The cast saturates.
        (seconds * 1e9) as Nanos
    }

    /// Handles the wake-up time of a task.
    pub(super) fn handle_wake(&mut self, role: &CompiledRole, task: usize, now: Nanos, io: &mut impl ClientIo) {
        let tick = self.tasks[task].tick;
        let next = match role.pace {
            JourneyPace::Every { interval, .. } => self.next_tick(tick, interval.as_nanos() as Nanos),
            JourneyPace::Again => tick,
        };
        let one = &mut self.tasks[task];
        match one.state {
            TaskState::Between => {
                let due = one.due;
                if let JourneyPace::Every { .. } = role.pace {
                    one.tick = next;
                    if one.ready > due
                        && let Some(journey) = role.programs[one.program].journey
                    {
                        io.record(Measurement::Journeys(journey, JourneyCount::Late, 1), now);
                    }
                }
                self.start(role, task, due, now, io);
            }
            TaskState::Thinking => {
                one.due = one.wake;
                one.advance();
                self.run(role, task, now, io);
            }
            TaskState::Waiting => self.handle_timeout(role, task, now, io),
            TaskState::Hooking => self.fail_program(role, task, Some(ClientFault::Hook), now, io),
            TaskState::Idle | TaskState::Running | TaskState::Connecting => one.wake = Nanos::MAX,
        }
    }

    /// Handles a timeout.
    fn handle_timeout(&mut self, role: &CompiledRole, task: usize, now: Nanos, io: &mut impl ClientIo) {
        let (program, at) = (self.tasks[task].program, self.tasks[task].at);
        let Some(ProgramOperation::Expect(expect)) = role.programs[program].ops.get(at) else { return };
        let asked = expect.answers.map(|(asked, _)| asked);
        if !expect.may_stay_unanswered {
            if role.programs[program].journey.is_some() && !self.rests_on_assumption(role, task) {
                io.journey_waited(JourneyWait { program, at, timed_out: true });
            }
            let fault = asked.map(ClientFault::Timeout).or(expect.message.map(ClientFault::Missing));
            return self.fail_program(role, task, fault, now, io);
        }
        if let Some(asked) = asked {
            io.record(Measurement::Messages(asked, MessageCount::Unanswered, 1), now);
        }
        if let Some(journey) = role.programs[program].journey {
            io.record(Measurement::JourneyEndedEarly(journey), now);
        }
        self.schedule_after_journey(role, task, now, io);
        self.owed = (self.owed + 1).min(MAX_OWED);
        if self.tasks[task].state == TaskState::Between {
            self.tasks[task].late = Some(at);
        }
    }

    /// Handles the end of a program.
    fn finish_program(&mut self, role: &CompiledRole, task: usize, now: Nanos, io: &mut impl ClientIo) {
        let program = self.tasks[task].program;
        if program == role.opening {
            self.tasks[task].become_idle();
            return self.handle_joined(role, now, io);
        }
        if let Some(journey) = role.programs[program].journey {
            if self.tasks[task].source.is_assumed() {
                io.record(Measurement::Journeys(journey, JourneyCount::Assumed, 1), now);
            } else {
                io.record(Measurement::JourneyCompleted { journey, due: self.tasks[task].begun }, now);
            }
        }
        self.schedule_after_journey(role, task, now, io);
    }

    /// Handles the failure of a program.
    pub(super) fn fail_program(
        &mut self,
        role: &CompiledRole,
        task: usize,
        fault: Option<ClientFault>,
        now: Nanos,
        io: &mut impl ClientIo,
    ) {
        let assumed = fault.is_some() && self.rests_on_assumption(role, task);
        match fault {
            Some(ClientFault::Timeout(_) | ClientFault::Missing(_) | ClientFault::Refused(_)) if assumed => {}
            // The target file assumes too little.
            Some(ClientFault::Unusable(_)) if assumed => io.fault(ClientFault::Internal, now),
            Some(fault) => io.fault(fault, now),
            None => {}
        }
        self.report_failed_journey(role, task, now, io);
        let program = self.tasks[task].program;
        if program == role.opening {
            let at = self.tasks[task].at;
            self.tasks[task].become_idle();
            if self.state == ClientState::Opening {
                io.not_joined(at, fault);
                // The client tries again after a reconnect with backoff.
                self.gave_up = true;
                io.close(1000);
            }
            return;
        }
        self.schedule_after_journey(role, task, now, io);
    }

    /// Schedules the next journey after one has ended.
    fn schedule_after_journey(&mut self, role: &CompiledRole, task: usize, now: Nanos, io: &mut impl ClientIo) {
        if Some(self.tasks[task].program) != role.journey {
            return self.tasks[task].become_idle();
        }
        if !role.arrivals && !self.tasks[task].extra {
            return self.next_journey(role, task, now, io);
        }
        if !role.arrivals {
            return self.tasks[task].become_idle();
        }
        self.tasks[task].become_idle();
        if self.state == ClientState::Joined && self.drain == Nanos::MAX {
            self.prepare(role, task, now);
            io.capacity_freed();
        }
    }
}
