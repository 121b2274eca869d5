//! The machine of one virtual client, sans-IO: what happens to it goes in, what it does comes out through its [`ClientIo`].
//!
//! A client does several things at a time: its opening, its journeys, a heartbeat, a reaction. Each is a task that walks
//! through one program until it has to wait. There are thousands of clients, so a client holds little; what all of a role
//! have in common stands in their [`Role`]. Every time is absolute: what is due is due, and is timed from then.
//!
//! A frame goes to the oldest task that waits for it: replies that name nothing belong to their requests in their order.
//! One that names what only one task knows may come before it is that task's turn, and is kept for it.

mod disconnect;
pub mod io;
mod ledger_marks;
mod receive;
mod task;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use self::io::{ClientFault, ClientIo, End, Input};
use self::task::{State, Task};
use super::Nanos;
use super::compile::message_template::{EmptySlotError, Sight, Texts};
use super::compile::program::{Fill, Op, Role};
use super::plan::Reconnect;
use super::plan::script::Pace;

/// One client of a population.
#[derive(Debug)]
pub struct Client {
    /// Among all clients of the run.
    party: u32,
    life: Life,
    draining: bool,
    finished: bool,
    /// Connections in a row that came to nothing.
    attempts: u8,
    /// How many unique texts it has made, journeys it has prepared, items it has begun to deal with, and times it has
    /// begun to wait.
    uniques: u32,
    journeys: u32,
    items: u32,
    waits: u32,
    /// Questions whose answer may stay out, and has so far: it may still come.
    owed: u32,
    random: SmallRng,
    own: Texts,
    tasks: Vec<Task>,
    periodic: Box<[Tick]>,
    /// When it connects again.
    retry: Nanos,
    /// The time it has asked to be woken at.
    asked: Nanos,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Its turn has not come.
    Unborn,
    /// Not connected any more, or not yet again.
    Apart,
    /// On the way to being joined.
    Opening,
    Joined,
    /// It has closed its connection, as it meant to.
    Leaving,
}

/// Something periodic: when it is due on its grid, and with its jitter.
#[derive(Clone, Copy, Debug)]
struct Tick {
    grid: Nanos,
    due: Nanos,
}

impl Client {
    /// The client of this number in its role, from 0.
    pub fn new(role: &Role, number: u32) -> Self {
        let party = role.first + number;
        // Neighbouring seeds would give neighbouring numbers.
        let seed = (role.common.seed ^ u64::from(party)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            party,
            life: Life::Unborn,
            draining: false,
            finished: false,
            attempts: 0,
            uniques: 0,
            journeys: 0,
            items: 0,
            waits: 0,
            owed: 0,
            random: SmallRng::seed_from_u64(seed),
            own: Texts::new(0),
            tasks: Vec::new(),
            periodic: vec![Tick { grid: Nanos::MAX, due: Nanos::MAX }; role.periodic.len()].into(),
            retry: Nanos::MAX,
            asked: Nanos::MAX,
        }
    }

    /// Its number among all clients of the run.
    pub fn party(&self) -> u32 {
        self.party
    }

    /// Whether it would begin another journey now, by schedule.
    pub fn has_room(&self, role: &Role) -> bool {
        self.life == Life::Joined && role.arrivals && !self.finished && self.under_way(role) < role.at_a_time
    }

    /// Journeys that have begun and are not at their end.
    pub fn under_way(&self, role: &Role) -> usize {
        self.tasks.iter().filter(|task| Some(task.program) == role.journey && task.is_active()).count()
    }

    /// One thing happens to it.
    pub fn handle(&mut self, role: &Role, now: Nanos, input: Input<'_>, port: &mut impl ClientIo) {
        match input {
            Input::Start if self.life == Life::Unborn => self.begin(role, now, port),
            Input::Opened => self.opened(role, now, port),
            Input::Text(bytes) => {
                self.hear(role, now, bytes, port);
                self.go_on_at_once(role, now, port);
            }
            Input::Closed(end) => self.closed(role, now, end, port),
            Input::Wake => {
                self.asked = Nanos::MAX;
                self.wake(role, now, port);
            }
            Input::Arrival { due } => self.arrival(role, now, due, port),
            Input::Answer(answer) => self.answered(role, now, answer, port),
            Input::Drain => self.drain(role),
            Input::Finish => self.finish(role, now, port),
            Input::Start => {}
        }
        self.ask(port);
    }

    /// Says when it wants to be woken, if that has changed.
    fn ask(&mut self, port: &mut impl ClientIo) {
        let tasks = self.tasks.iter().map(|task| task.wake);
        let ticks = self.periodic.iter().map(|tick| tick.due);
        let wake = tasks.chain(ticks).min().unwrap_or(Nanos::MAX).min(self.retry);
        if wake != self.asked {
            self.asked = wake;
            port.wake(wake);
        }
    }

    fn begin(&mut self, role: &Role, now: Nanos, port: &mut impl ClientIo) {
        if self.life == Life::Unborn {
            self.own = Texts::new(role.own);
            for (slot, fill) in &role.identity {
                let mut text = Vec::new();
                if self.fill(role, fill, None, now, &mut text).is_ok() {
                    self.own.set(*slot, &text);
                }
            }
        }
        self.life = Life::Opening;
        self.retry = Nanos::MAX;
        let task = self.spare(role, role.opening);
        self.prepare(role, task, now);
        self.start(role, task, now, now, port);
    }

    /// Appends a text that is made ahead of time.
    fn fill(
        &mut self,
        role: &Role,
        fill: &Fill,
        task: Option<usize>,
        now: Nanos,
        out: &mut Vec<u8>,
    ) -> Result<(), EmptySlotError> {
        let empty = Texts::new(0);
        let mut sight = Sight {
            own: &self.own,
            texts: task.map_or(&empty, |task| &self.tasks[task].texts),
            index: self.party - role.first,
            turn: task.map_or(0, |task| self.tasks[task].turn),
            party: self.party,
            due: task.map_or(now, |task| self.tasks[task].due),
            now,
            run: &role.common.run,
            random: &mut self.random,
            uniques: &mut self.uniques,
        };
        match fill {
            Fill::Template(template) => template.write(&mut sight, out),
            Fill::Computed(computed) => {
                let value = computed.eval(&mut sight)?;
                out.extend_from_slice(value.to_string().as_bytes());
                Ok(())
            }
            Fill::Column { feeder, column } => {
                let count = feeder.rows.len();
                // In turn over all clients of the role, whichever shard they are in: each has rows of its own.
                let before = sight.turn.saturating_sub(1) as usize;
                let turn = before * role.population as usize + (self.party - role.first) as usize;
                let row = if feeder.random { sight.random.random_range(0..count) } else { turn % count };
                out.extend_from_slice(&feeder.rows[row][*column]);
                Ok(())
            }
        }
    }

    /// The opening went through.
    fn joined(&mut self, role: &Role, now: Nanos, port: &mut impl ClientIo) {
        self.life = Life::Joined;
        self.attempts = 0;
        port.joined();
        self.introduce(role, port);
        for (place, periodic) in role.periodic.iter().enumerate() {
            // Spread over the interval, so that a population does not beat as one heart.
            let grid = now + (periodic.every as f64 * self.random.random::<f64>()) as Nanos;
            self.periodic[place] = Tick { grid, due: grid };
        }
        for task in 0..self.tasks.len() {
            self.resume(role, task, now, port);
        }
        let Some(journey) = role.journey else { return };
        if role.arrivals {
            port.room();
            if self.under_way(role) == 0 {
                let task = self.spare(role, journey);
                self.prepare(role, task, now);
            }
            return;
        }
        while self.tasks.iter().filter(|task| task.program == journey && task.is_taken()).count() < role.at_a_time {
            let task = self.spare(role, journey);
            self.tasks[task].base = match role.pace {
                Pace::Again => now,
                Pace::Every { interval, .. } => {
                    now + (interval.as_nanos() as f64 * self.random.random::<f64>()) as Nanos
                }
            };
            self.again(role, task, now, port);
            if self.tasks[task].state == State::Idle {
                break;
            }
        }
    }

    /// A client that makes journeys by itself is to begin the next one.
    fn again(&mut self, role: &Role, task: usize, now: Nanos, port: &mut impl ClientIo) {
        let over = role.times.is_some_and(|times| self.journeys >= times);
        if over || self.life != Life::Joined || (self.draining && !role.drains) {
            self.tasks[task].rest();
            return;
        }
        self.prepare(role, task, now);
        let waits = matches!(role.programs[self.tasks[task].program].ops.first(), Some(Op::Expect(_)));
        if role.pace == Pace::Again && waits {
            // At once, since what it waits for may come at any time; it cannot go on by itself.
            return self.start(role, task, now, now, port);
        }
        let wake = match role.pace {
            Pace::Again => now,
            Pace::Every { interval, jitter } => {
                let interval = interval.as_nanos() as Nanos;
                let base = self.tasks[task].base;
                // The first tick that is still to come, on a grid that is never moved.
                let tick = if base > now { base } else { base + ((now - base) / interval + 1) * interval };
                let offset = (self.random.random::<f64>() * 2.0 - 1.0) * jitter * interval as f64;
                // The grid may bring the same tick again where jitter had brought it forward.
                let tick = if tick == self.tasks[task].tick { tick + interval } else { tick };
                self.tasks[task].tick = tick;
                (tick as f64 + offset).max(now as f64) as Nanos
            }
        };
        let task = &mut self.tasks[task];
        task.state = State::Between;
        task.wake = wake;
    }

    fn arrival(&mut self, role: &Role, now: Nanos, due: Nanos, port: &mut impl ClientIo) {
        let Some(journey) = role.journey.filter(|_| self.has_room(role)) else {
            return port.trouble(ClientFault::NoFreeClient, now);
        };
        let task = self.spare(role, journey);
        if !self.tasks[task].prepared {
            self.prepare(role, task, now);
        }
        self.start(role, task, due, now, port);
    }

    /// Everything whose time has come.
    fn wake(&mut self, role: &Role, now: Nanos, port: &mut impl ClientIo) {
        if self.life == Life::Apart && self.retry <= now {
            self.begin(role, now, port);
        }
        for place in 0..self.periodic.len() {
            self.tick(role, place, now, port);
        }
        // Tasks that are added meanwhile have just begun.
        for task in 0..self.tasks.len() {
            if self.tasks[task].wake <= now {
                self.expired(role, task, now, port);
            }
        }
    }

    /// A client that makes one journey after the other begins the next one without the detour of an alarm; one only, as
    /// others want their turn.
    fn go_on_at_once(&mut self, role: &Role, now: Nanos, port: &mut impl ClientIo) {
        if role.arrivals || role.pace != Pace::Again {
            return;
        }
        for task in 0..self.tasks.len() {
            if self.tasks[task].state == State::Between && self.tasks[task].wake <= now {
                self.expired(role, task, now, port);
            }
        }
    }

    fn tick(&mut self, role: &Role, place: usize, now: Nanos, port: &mut impl ClientIo) {
        let Tick { grid, due } = self.periodic[place];
        if due > now {
            return;
        }
        let periodic = &role.periodic[place];
        // What was due since then and could not be done is counted, not made up for.
        let skipped = now.saturating_sub(due) / periodic.every;
        let busy = self.tasks.iter().any(|task| task.program == periodic.program && task.is_active());
        let missed = skipped + u64::from(busy);
        if missed > 0 {
            port.missed(periodic.message, missed, now);
        }
        let next = grid + (skipped + 1) * periodic.every;
        let offset = (self.random.random::<f64>() * 2.0 - 1.0) * periodic.jitter * periodic.every as f64;
        self.periodic[place] = Tick { grid: next, due: (next as f64 + offset).max(now as f64 + 1.0) as Nanos };
        if !busy {
            let task = self.spare(role, periodic.program);
            self.prepare(role, task, now);
            self.start(role, task, due + skipped * periodic.every, now, port);
        }
    }

    fn opened(&mut self, role: &Role, now: Nanos, port: &mut impl ClientIo) {
        if self.life != Life::Opening {
            return;
        }
        if let Some(task) = self.tasks.iter().position(|task| task.state == State::Connecting) {
            self.tasks[task].due = now;
            self.tasks[task].go_on();
            self.run(role, task, now, port);
        }
    }

    fn closed(&mut self, role: &Role, now: Nanos, end: End, port: &mut impl ClientIo) {
        let meant = self.life == Life::Leaving || self.finished;
        if !meant {
            port.trouble(ClientFault::Ended(end), now);
        }
        self.life = Life::Apart;
        self.owed = 0;
        self.periodic.fill(Tick { grid: Nanos::MAX, due: Nanos::MAX });
        for task in 0..self.tasks.len() {
            self.cut_off(role, task, now, port);
        }
        self.retry = match role.reconnect {
            _ if self.finished => Nanos::MAX,
            // It has done what it was there for.
            _ if meant && role.times.is_some_and(|times| self.journeys >= times) => Nanos::MAX,
            Reconnect::Never => Nanos::MAX,
            Reconnect::After { .. } if meant => now,
            Reconnect::After { first, most } => {
                let time = first.saturating_mul(1 << self.attempts.min(16)).min(most).as_nanos() as f64;
                self.attempts = self.attempts.saturating_add(1);
                now + (time * (0.5 + 0.5 * self.random.random::<f64>())) as Nanos
            }
        };
    }

    /// Nothing new is begun.
    fn drain(&mut self, role: &Role) {
        self.draining = true;
        if !role.drains {
            self.tasks.iter_mut().filter(|task| task.state == State::Between).for_each(Task::rest);
        }
    }

    fn finish(&mut self, role: &Role, now: Nanos, port: &mut impl ClientIo) {
        self.finished = true;
        self.retry = Nanos::MAX;
        self.periodic.fill(Tick { grid: Nanos::MAX, due: Nanos::MAX });
        for task in 0..self.tasks.len() {
            self.abandon(role, task, now, port);
        }
        if matches!(self.life, Life::Opening | Life::Joined) {
            self.life = Life::Leaving;
            port.close(1000);
        }
    }
}
