//! The state machine of one virtual client, sans-IO: [`ClientEvent`]s go in, actions come out through its [`ClientIo`].
//!
//! A client does several things concurrently: its opening, journeys, heartbeats, reactions. Each is a task that runs a
//! program until it has to wait. There are thousands of clients, so a client holds little; data common to a role is in
//! its [`CompiledRole`]. All times are absolute: a late message keeps its due time, and its response time counts from
//! it. A client that falls behind its pace, because the hub did not answer in time, begins the journeys that became due
//! meanwhile one after another, each with its own due time.
//!
//! A frame goes to the task that has waited for it longest: replies without an id belong to requests in order. A frame
//! may come before the step that asks for it; it is kept for that step.

mod disconnect;
mod early_frames;
pub mod io;
mod ledger_marks;
mod receive;
mod task;

use std::ops::Range;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use self::early_frames::EarlyFrames;
use self::io::{ClientEvent, ClientFault, ClientIo, Disconnection};
use self::task::{ClientTask, TaskState};
use super::Nanos;
use super::compile::message_template::{EmptySlotError, SlotTexts, SlotValues};
use super::compile::program::{ClientProgram, CompiledRole, ProgramOperation, SlotFill};
use super::metrics::{JourneyCount, Measurement, MessageCount};
use super::plan::ReconnectPolicy;
use super::plan::script::{JourneyPace, MissedTicks};
use super::provenance::{Provenance, SourcedText};

const NO_HOLD: Range<Nanos> = Nanos::MAX..Nanos::MAX;

/// One client of a population.
#[derive(Debug)]
pub struct VirtualClient {
    /// The client's number among all clients of the run.
    party: u32,
    state: ClientState,
    /// The beginning of the drain; `Nanos::MAX` before.
    drain: Nanos,
    /// The last hold; its end is `Nanos::MAX` while it lasts.
    hold: Range<Nanos>,
    finished: bool,
    /// Whether the client has closed its connection because its opening failed.
    gave_up: bool,
    /// Consecutive failed connections.
    attempts: u8,
    counts: ClientCounts,
    /// The number of unanswered requests whose late answers may still come.
    owed: u32,
    random: SmallRng,
    own: SlotTexts,
    tasks: Vec<ClientTask>,
    early_frames: EarlyFrames,
    periodic: Box<[PeriodicTimer]>,
    /// When the client reconnects.
    retry: Nanos,
    /// The time at which the client has asked to be woken.
    asked: Nanos,
}

/// How often a client has done something, to number each.
#[derive(Debug, Default)]
struct ClientCounts {
    /// Unique texts generated.
    uniques: u32,
    journeys: u32,
    /// Items created for the ledger.
    items: u32,
    waits: u32,
    programs: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientState {
    /// Not yet due to connect.
    Pending,
    /// Not connected, or waiting to reconnect.
    Disconnected,
    /// Connecting or in its opening.
    Opening,
    Joined,
    /// The client has sent its close frame.
    Leaving,
}

/// A periodic task: its due time on the grid, and with jitter.
#[derive(Clone, Copy, Debug)]
struct PeriodicTimer {
    grid: Nanos,
    due: Nanos,
}

impl VirtualClient {
    /// Creates the client with this number in its role, from 0.
    pub fn new(role: &CompiledRole, number: u32) -> Self {
        let party = role.first + number;
        // Neighbouring seeds would give correlated random numbers.
        let seed = (role.common.seed ^ u64::from(party)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            party,
            state: ClientState::Pending,
            drain: Nanos::MAX,
            hold: NO_HOLD,
            finished: false,
            gave_up: false,
            attempts: 0,
            counts: ClientCounts::default(),
            owed: 0,
            random: SmallRng::seed_from_u64(seed),
            own: SlotTexts::new(0),
            tasks: Vec::new(),
            early_frames: EarlyFrames::default(),
            periodic: vec![PeriodicTimer { grid: Nanos::MAX, due: Nanos::MAX }; role.periodic.len()].into(),
            retry: Nanos::MAX,
            asked: Nanos::MAX,
        }
    }

    pub fn party(&self) -> u32 {
        self.party
    }

    /// Returns the number of frames that the client keeps for later steps.
    pub fn kept_frames(&self) -> usize {
        self.early_frames.len()
    }

    /// Whether the client can take another scheduled journey.
    pub fn has_room(&self, role: &CompiledRole) -> bool {
        self.state == ClientState::Joined
            && role.arrivals
            && !self.finished
            && self.running_journeys(role) < role.at_a_time
    }

    /// Returns the number of the client's running journeys.
    pub fn running_journeys(&self, role: &CompiledRole) -> usize {
        self.tasks.iter().filter(|task| Some(task.program) == role.journey && task.is_active()).count()
    }

    /// Handles one event.
    pub fn handle(&mut self, role: &CompiledRole, now: Nanos, input: ClientEvent<'_>, io: &mut impl ClientIo) {
        match input {
            ClientEvent::Start if self.state == ClientState::Pending => self.begin_opening(role, now, io),
            ClientEvent::Opened => self.handle_opened(role, now, io),
            ClientEvent::Frame(frame) => {
                self.receive(role, now, frame, io);
                self.begin_due_journey(role, now, io);
            }
            ClientEvent::Closed(end) => self.handle_closed(role, now, end, io),
            ClientEvent::Wake => {
                self.asked = Nanos::MAX;
                self.run_due_tasks(role, now, io);
            }
            ClientEvent::Arrival { due } => self.handle_arrival(role, now, due, io),
            ClientEvent::Answer(answer) => self.handle_hook_answer(role, now, answer, io),
            ClientEvent::Hold { since } => self.begin_hold(role, since),
            ClientEvent::Resume { until } => self.end_hold(role, until, now, io),
            ClientEvent::Drain => self.begin_drain(role, now),
            ClientEvent::Finish => self.finish(role, now, io),
            ClientEvent::Start => {}
        }
        if !self.early_frames.is_empty() {
            self.drop_stale_frames(role, now, io);
        }
        self.update_wake(io);
    }

    /// Updates the wake-up time if it has changed.
    fn update_wake(&mut self, io: &mut impl ClientIo) {
        let tasks = self.tasks.iter().map(|task| task.wake);
        let ticks = self.periodic.iter().map(|tick| tick.due);
        let wake = tasks.chain(ticks).min().unwrap_or(Nanos::MAX).min(self.retry);
        if wake != self.asked {
            self.asked = wake;
            io.wake_at(wake);
        }
    }

    fn begin_opening(&mut self, role: &CompiledRole, now: Nanos, io: &mut impl ClientIo) {
        if self.state == ClientState::Pending {
            self.own = SlotTexts::new(role.own);
            for (slot, fill) in &role.identity {
                let mut text = Vec::new();
                if self.append_fill(role, fill, None, now, &mut text).is_ok() {
                    self.own.set(*slot, SourcedText { bytes: &text, source: Provenance::Observed });
                }
            }
        }
        self.state = ClientState::Opening;
        self.retry = Nanos::MAX;
        let task = self.idle_task(role, role.opening);
        self.prepare(role, task, now);
        self.start(role, task, now, now, io);
    }

    /// Appends a value that is computed before the journey is due.
    fn append_fill(
        &mut self,
        role: &CompiledRole,
        fill: &SlotFill,
        task: Option<usize>,
        now: Nanos,
        out: &mut Vec<u8>,
    ) -> Result<(), EmptySlotError> {
        let empty = SlotTexts::new(0);
        let mut slot_values = SlotValues {
            own: &self.own,
            texts: task.map_or(&empty, |task| &self.tasks[task].texts),
            index: self.party - role.first,
            turn: task.map_or(0, |task| self.tasks[task].turn),
            party: self.party,
            due: task.map_or(now, |task| self.tasks[task].due),
            now,
            run: &role.common.run,
            random: &mut self.random,
            uniques: &mut self.counts.uniques,
        };
        match fill {
            SlotFill::Template(template) => template.write(&mut slot_values, out),
            SlotFill::Computed(computed) => {
                let value = computed.eval(&mut slot_values)?;
                out.extend_from_slice(value.to_string().as_bytes());
                Ok(())
            }
            SlotFill::Column { feeder, column } => {
                let count = feeder.rows.len();
                // Rows are assigned in turn over all clients of the role, independent of shards.
                let before = slot_values.turn.saturating_sub(1) as usize;
                let turn = before * role.population as usize + (self.party - role.first) as usize;
                let row = if feeder.random { slot_values.random.random_range(0..count) } else { turn % count };
                out.extend_from_slice(&feeder.rows[row][*column]);
                Ok(())
            }
        }
    }

    /// Handles the end of the opening.
    fn handle_joined(&mut self, role: &CompiledRole, now: Nanos, io: &mut impl ClientIo) {
        self.state = ClientState::Joined;
        self.attempts = 0;
        io.joined();
        self.report_name(role, io);
        for (place, periodic) in role.periodic.iter().enumerate() {
            // A random phase, so that the heartbeats of a population are spread over the interval.
            let grid = now + (periodic.every as f64 * self.random.random::<f64>()) as Nanos;
            self.periodic[place] = PeriodicTimer { grid, due: grid };
        }
        for task in 0..self.tasks.len() {
            self.resume(role, task, now, io);
        }
        let Some(journey) = role.journey else { return };
        if role.arrivals {
            io.capacity_freed();
            if self.running_journeys(role) == 0 {
                let task = self.idle_task(role, journey);
                self.prepare(role, task, now);
            }
            return;
        }
        self.begin_journeys(role, now, io);
    }

    /// Starts or schedules journeys of a client that paces itself, as many as it makes at a time.
    fn begin_journeys(&mut self, role: &CompiledRole, now: Nanos, io: &mut impl ClientIo) {
        let Some(journey) = role.journey else { return };
        while self.tasks.iter().filter(|task| task.program == journey && task.is_taken()).count() < role.at_a_time {
            let task = self.idle_task(role, journey);
            // The ticks continue where they were before a reconnect.
            if let (JourneyPace::Every { interval, .. }, 0) = (role.pace, self.tasks[task].tick) {
                let phase = (interval.as_nanos() as f64 * self.random.random::<f64>()) as Nanos;
                self.tasks[task].tick = now.max(1) + phase;
            }
            self.next_journey(role, task, now, io);
            if self.tasks[task].state == TaskState::Idle {
                break;
            }
        }
    }

    /// Starts or schedules the next journey of a client that paces itself.
    fn next_journey(&mut self, role: &CompiledRole, task: usize, now: Nanos, io: &mut impl ClientIo) {
        let over = role.times.is_some_and(|times| self.counts.journeys >= times);
        let due = match role.pace {
            _ if over || self.state != ClientState::Joined => Nanos::MAX,
            JourneyPace::Again => now,
            JourneyPace::Every { interval, jitter, missed } => {
                let interval = interval.as_nanos() as Nanos;
                if missed == MissedTicks::Skipped {
                    self.leave_out_ticks(role, task, now, io);
                }
                let offset = (self.random.random::<f64>() * 2.0 - 1.0) * jitter * interval as f64;
                let due = (self.tasks[task].tick as f64 + offset) as Nanos;
                // Nothing is due before a client has joined, or while it leaves ticks out.
                let begins = missed == MissedTicks::Skipped || self.tasks[task].ready == 0;
                if begins { due.max(now) } else { due }
            }
        };
        // A tick before the drain is worked off in it.
        let last = if role.drains { Nanos::MAX } else { self.drain };
        let grid = if role.pace == JourneyPace::Again { due } else { self.tasks[task].tick };
        if due == Nanos::MAX || grid >= last {
            self.tasks[task].become_idle();
            return;
        }
        let first = role.programs[self.tasks[task].program].ops.first();
        let waits = role.pace == JourneyPace::Again && matches!(first, Some(ProgramOperation::Expect(_)));
        if self.is_held() && grid >= self.hold.start && !waits {
            self.tasks[task].become_idle();
            return;
        }
        self.prepare(role, task, now);
        if waits {
            // A journey whose first step waits starts at once: its message may come at any time, and the journey cannot
            // proceed without it.
            return self.start(role, task, now, now, io);
        }
        let task = &mut self.tasks[task];
        task.state = TaskState::Between;
        (task.due, task.ready, task.wake) = (due, due.max(now), due.max(now));
    }

    /// Returns how many ticks of a task have passed before `end` without a journey.
    fn passed_ticks(&self, role: &CompiledRole, task: usize, end: Nanos) -> u64 {
        let one = &self.tasks[task];
        let JourneyPace::Every { interval, .. } = role.pace else { return 0 };
        // No tick passes during a hold.
        let end = match &self.hold {
            hold if one.tick >= hold.start && self.is_held() => return 0,
            hold if one.tick >= hold.start || end <= hold.start => end,
            hold if end < hold.end => hold.start,
            hold => end - (hold.end - hold.start),
        };
        if Some(one.program) != role.journey || one.tick == 0 || one.tick >= end {
            return 0;
        }
        (end - one.tick).div_ceil(interval.as_nanos() as Nanos)
    }

    /// Leaves out the ticks that have passed.
    fn leave_out_ticks(&mut self, role: &CompiledRole, task: usize, now: Nanos, io: &mut impl ClientIo) {
        let JourneyPace::Every { interval, .. } = role.pace else { return };
        let passed = self.passed_ticks(role, task, now);
        // Ticks after the beginning of the drain are not due.
        let last = if role.drains { now } else { now.min(self.drain) };
        let skipped = self.passed_ticks(role, task, last);
        self.tasks[task].tick += passed * interval.as_nanos() as Nanos;
        if let Some(journey) = role.programs[self.tasks[task].program].journey.filter(|_| skipped > 0) {
            io.record(Measurement::Journeys(journey, JourneyCount::Skipped, skipped), now);
        }
    }

    /// Reports the journeys that were due until the end of the run, or of the measured time, and did not begin.
    fn report_missed_journeys(&mut self, role: &CompiledRole, now: Nanos, io: &mut impl ClientIo) {
        let JourneyPace::Every { missed, .. } = role.pace else { return };
        let Some(program) = role.journey.map(|journey| &role.programs[journey]) else { return };
        let last = if role.drains { now } else { now.min(self.drain) };
        let passed: u64 = (0..self.tasks.len()).map(|task| self.passed_ticks(role, task, last)).sum();
        let left = role.times.map_or(u64::MAX, |times| u64::from(times.saturating_sub(self.counts.journeys)));
        match (program.journey, passed.min(left)) {
            (None, _) | (_, 0) => {}
            (Some(journey), times) if missed == MissedTicks::Skipped => {
                io.record(Measurement::Journeys(journey, JourneyCount::Skipped, times), now);
            }
            (_, times) => report_missed(program, times, now, io),
        }
    }

    fn handle_arrival(&mut self, role: &CompiledRole, now: Nanos, due: Nanos, io: &mut impl ClientIo) {
        let Some(journey) = role.journey else { return };
        if !self.has_room(role) {
            return report_missed(&role.programs[journey], 1, now, io);
        }
        let task = self.idle_task(role, journey);
        if !self.tasks[task].prepared {
            self.prepare(role, task, now);
        }
        self.start(role, task, due, now, io);
    }

    /// Runs everything that is due.
    fn run_due_tasks(&mut self, role: &CompiledRole, now: Nanos, io: &mut impl ClientIo) {
        if self.state == ClientState::Disconnected && self.retry <= now {
            self.begin_opening(role, now, io);
        }
        for place in 0..self.periodic.len() {
            self.run_periodic(role, place, now, io);
        }
        // Tasks added in this loop have just begun.
        for task in 0..self.tasks.len() {
            if self.tasks[task].wake <= now {
                self.handle_wake(role, task, now, io);
            }
        }
    }

    /// Begins the next journey of a client, if it is due, without a timer; only one per turn, so that other clients get
    /// theirs.
    fn begin_due_journey(&mut self, role: &CompiledRole, now: Nanos, io: &mut impl ClientIo) {
        if role.arrivals {
            return;
        }
        for task in 0..self.tasks.len() {
            if self.tasks[task].state == TaskState::Between && self.tasks[task].wake <= now {
                self.handle_wake(role, task, now, io);
            }
        }
    }

    fn run_periodic(&mut self, role: &CompiledRole, place: usize, now: Nanos, io: &mut impl ClientIo) {
        let PeriodicTimer { grid, due } = self.periodic[place];
        if due > now {
            return;
        }
        let periodic = &role.periodic[place];
        // Missed ticks are counted, not caught up.
        let skipped = now.saturating_sub(due) / periodic.every;
        let busy = self.tasks.iter().any(|task| task.program == periodic.program && task.is_active());
        let missed = skipped + u64::from(busy);
        if missed > 0 {
            io.record(Measurement::Messages(periodic.message, MessageCount::Missed, missed), now);
        }
        let next = grid + (skipped + 1) * periodic.every;
        let offset = (self.random.random::<f64>() * 2.0 - 1.0) * periodic.jitter * periodic.every as f64;
        self.periodic[place] = PeriodicTimer { grid: next, due: (next as f64 + offset).max(now as f64 + 1.0) as Nanos };
        if !busy {
            let task = self.idle_task(role, periodic.program);
            self.prepare(role, task, now);
            self.start(role, task, due + skipped * periodic.every, now, io);
        }
    }

    fn handle_opened(&mut self, role: &CompiledRole, now: Nanos, io: &mut impl ClientIo) {
        if self.state != ClientState::Opening {
            return;
        }
        if let Some(task) = self.tasks.iter().position(|task| task.state == TaskState::Connecting) {
            self.tasks[task].due = now;
            self.tasks[task].advance();
            self.run(role, task, now, io);
        }
    }

    fn handle_closed(&mut self, role: &CompiledRole, now: Nanos, end: Disconnection, io: &mut impl ClientIo) {
        let meant = self.state == ClientState::Leaving || self.finished;
        if !std::mem::take(&mut self.gave_up) && !meant {
            let opens = |task: &&ClientTask| task.program == role.opening && task.is_active();
            if let Some(opening) = self.tasks.iter().find(opens).filter(|_| self.state == ClientState::Opening) {
                io.not_joined(opening.at, Some(ClientFault::Ended(end)));
            }
            io.fault(ClientFault::Ended(end), now);
        }
        self.state = ClientState::Disconnected;
        self.owed = 0;
        self.periodic.fill(PeriodicTimer { grid: Nanos::MAX, due: Nanos::MAX });
        for task in 0..self.tasks.len() {
            self.handle_disconnect(role, task, now, io);
        }
        self.retry = match role.reconnect {
            _ if self.finished => Nanos::MAX,
            // The client has made all its journeys.
            _ if meant && role.times.is_some_and(|times| self.counts.journeys >= times) => Nanos::MAX,
            ReconnectPolicy::Never => Nanos::MAX,
            ReconnectPolicy::After { .. } if meant => now,
            ReconnectPolicy::After { first, most } => {
                let time = first.saturating_mul(1 << self.attempts.min(16)).min(most).as_nanos() as f64;
                self.attempts = self.attempts.saturating_add(1);
                now + (time * (0.5 + 0.5 * self.random.random::<f64>())) as Nanos
            }
        };
    }

    fn is_held(&self) -> bool {
        self.hold.start != Nanos::MAX && self.hold.end == Nanos::MAX
    }

    /// Holds back new journeys that are due from `since` on. A role that continues in the drain continues.
    fn begin_hold(&mut self, role: &CompiledRole, since: Nanos) {
        if role.drains || role.arrivals {
            return;
        }
        self.hold = since..Nanos::MAX;
        let due = |task: &ClientTask| role.pace != JourneyPace::Again && task.tick < since;
        let between = self.tasks.iter_mut().filter(|task| task.state == TaskState::Between && !due(task));
        between.for_each(|task| task.wake = Nanos::MAX);
    }

    /// Begins or schedules the journeys that were held back.
    fn end_hold(&mut self, role: &CompiledRole, until: Nanos, now: Nanos, io: &mut impl ClientIo) {
        if !self.is_held() {
            return;
        }
        self.hold.end = until;
        let length = until - self.hold.start;
        for task in self.tasks.iter_mut().filter(|task| Some(task.program) == role.journey) {
            let skips = matches!(role.pace, JourneyPace::Every { missed: MissedTicks::Skipped, .. });
            // Ticks before the hold that are still to be worked off stay where they are.
            if task.tick > 0 && (skips || task.tick >= self.hold.start) {
                task.tick += length;
            }
            if task.state == TaskState::Between && task.wake == Nanos::MAX {
                task.due = if role.pace == JourneyPace::Again { now } else { task.due + length };
                task.ready = task.due.max(now);
                task.wake = task.ready;
            }
        }
        if self.state == ClientState::Joined && self.drain == Nanos::MAX {
            self.begin_journeys(role, now, io);
        }
    }

    /// Returns the tick after one, which a hold may have moved.
    fn next_tick(&self, tick: Nanos, interval: Nanos) -> Nanos {
        let next = tick + interval;
        let crosses = tick < self.hold.start && next >= self.hold.start && !self.is_held();
        if crosses { next + (self.hold.end - self.hold.start) } else { next }
    }

    /// Stops new journeys.
    fn begin_drain(&mut self, role: &CompiledRole, now: Nanos) {
        self.drain = now;
        let due = |task: &ClientTask| role.pace != JourneyPace::Again && task.tick < now;
        if !role.drains {
            let between = self.tasks.iter_mut().filter(|task| task.state == TaskState::Between && !due(task));
            between.for_each(ClientTask::become_idle);
        }
    }

    fn finish(&mut self, role: &CompiledRole, now: Nanos, io: &mut impl ClientIo) {
        self.finished = true;
        self.retry = Nanos::MAX;
        self.periodic.fill(PeriodicTimer { grid: Nanos::MAX, due: Nanos::MAX });
        self.report_missed_journeys(role, now, io);
        for task in 0..self.tasks.len() {
            self.abort(role, task, now, io);
        }
        if matches!(self.state, ClientState::Opening | ClientState::Joined) {
            self.state = ClientState::Leaving;
            io.close(1000);
        }
    }
}

/// Reports journeys that were due but never began, and the messages that they would have sent.
fn report_missed(program: &ClientProgram, times: u64, now: Nanos, io: &mut impl ClientIo) {
    if let Some(journey) = program.journey {
        io.record(Measurement::Journeys(journey, JourneyCount::Missed, times), now);
    }
    for message in program.sent_messages() {
        io.record(Measurement::Messages(message, MessageCount::Missed, times), now);
    }
}
