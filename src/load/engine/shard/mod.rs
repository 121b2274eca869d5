//! One thread, its connections and its clients: the loop that everything of a load run goes through.
//!
//! A turn does what is due, reads what has come, and waits. Nothing in it waits for anything else, locks, or looks at what
//! other shards do, but for the atomics of the [`Course`].

mod connections;
pub(super) mod context;
mod due;
pub(super) mod outbox;
pub(super) mod slot;
pub(super) mod timers;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use mio::{Events, Poll};

use self::context::{Hands, ShardContext};
use self::outbox::Parcel;
use self::slot::ClientSlot;
use super::connection::SCRATCH;
use super::dialer::Dialer;
use super::phases::Course;
use super::poller::{ALARM, Poller, WAKER};
use super::self_monitor::SelfMonitor;
use super::stream::Tls;
use super::validator::Sampler;
use crate::load::client::Client;
use crate::load::client::io::{End, Input};
use crate::load::compile::program::Prepared;
use crate::load::metrics::Gauge;
use crate::load::plan::Plan;
use crate::load::plan::schedule::Schedule;
use crate::load::{Nanos, SECOND};
use crate::transport::Endpoint;

/// How long a connection may take to be there: TCP, TLS and upgrade.
const CONNECT: Nanos = 10 * SECOND;
/// How long a closing handshake may take.
const CLOSING: Nanos = 2 * SECOND;
/// Things that are due, done in one turn; then it is the hub's turn again.
const DUE: usize = 256;
/// Connections begun in one turn.
const DIALS: usize = 64;
/// At least so often we look around.
const LONGEST_WAIT: Nanos = SECOND / 20;
/// Bytes of unfinished messages that are kept, of all connections of a shard; who has one more is hung up on.
const HELD: usize = 256 << 20;
/// Bytes that wait for a hub that does not read, of all connections of a shard; who has one more is hung up on.
const UNWRITTEN: usize = 64 << 20;
/// Bytes that wait to be written beside which no pong is due.
const PONGS: usize = 64 << 10;
/// A turn that takes longer is a stall: somebody else's message waited for it.
const STALL: Nanos = SECOND / 100;

/// Everything that a shard is made of.
pub struct Parts {
    pub number: usize,
    pub shards: usize,
    pub plan: Arc<Plan>,
    pub prepared: Arc<Prepared>,
    pub endpoint: Arc<Endpoint>,
    /// Sent with every upgrade.
    pub headers: Arc<Vec<(String, String)>>,
    pub tls: Option<Tls>,
    pub dialer: Dialer,
    pub seed: u64,
    pub desk: ShardContext,
    pub sampler: Sampler,
    pub poll: Poll,
    pub watch: Poller,
}

pub struct Shard {
    parts: Parts,
    course: Arc<Course>,
    seats: Vec<ClientSlot>,
    populations: Vec<Population>,
    scratch: Vec<u8>,
    /// Connections that may have more to read.
    hot: VecDeque<u32>,
    /// When connections have to be open, or closed: each queue in the order of time.
    opening: VecDeque<(Nanos, u32, u32)>,
    closing: VecDeque<(Nanos, u32, u32)>,
    /// A seat whose bytes are not written yet, because more may follow.
    unflushed: Option<u32>,
    connections: u64,
    /// Bytes that wait for the rest of their frames, of all connections.
    held: usize,
    /// Bytes that wait to be written, of all connections.
    unwritten: usize,
    stage: Stage,
    /// Arrivals have begun.
    begun: bool,
    selfwatch: SelfMonitor,
}

/// What a shard has of a role.
struct Population {
    /// Its seats, in the order in which they connect.
    seats: std::ops::Range<u32>,
    /// How many of them have been told to.
    started: u32,
    /// Since when the role connects.
    since: Option<Nanos>,
    /// When journeys are due, from the beginning on, and when the next one is.
    arrivals: Option<Schedule>,
    coming: Option<Nanos>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    Draining,
    Leaving,
}

impl Shard {
    pub fn new(parts: Parts) -> Self {
        let mut seats = Vec::new();
        let mut populations = Vec::new();
        for (index, (role, planned)) in parts.prepared.roles.iter().zip(&parts.plan.roles).enumerate() {
            let first = seats.len() as u32;
            let own = (0..planned.population.number).skip(parts.number).step_by(parts.shards);
            seats.extend(own.map(|number| ClientSlot::new(Client::new(role, number), index as u16)));
            populations.push(Population {
                seats: first..seats.len() as u32,
                started: 0,
                since: None,
                arrivals: None,
                coming: None,
            });
        }
        let course = Arc::clone(&parts.desk.course);
        Self {
            course,
            seats,
            populations,
            scratch: vec![0; SCRATCH],
            hot: VecDeque::new(),
            opening: VecDeque::new(),
            closing: VecDeque::new(),
            unflushed: None,
            connections: 0,
            held: 0,
            unwritten: 0,
            stage: Stage::Running,
            begun: false,
            selfwatch: SelfMonitor::new(parts.number),
            parts,
        }
    }

    /// Runs until everybody has left.
    ///
    /// # Errors
    /// The system does not let us wait.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut now = self.course.clock.now();
        while !self.is_done(now) {
            self.follow(now);
            let more = self.due() | self.read_hot();
            self.overdue();
            self.flush_last();
            self.look_around(self.course.clock.now());

            let begun = self.course.clock.now();
            if begun - now > STALL {
                self.parts.desk.recorder.stall(begun - now, begun);
            }
            let until = if more { begun } else { self.next_due(begun) };
            self.parts.watch.wait(&mut self.parts.poll, &mut events, begun, until)?;
            now = self.course.clock.now();
            for event in &events {
                match event.token() {
                    ALARM => {}
                    WAKER => self.answers(),
                    seat => self.ready(seat.0 as u32, event.is_read_closed() || event.is_error()),
                }
            }
        }
        let now = self.course.clock.now();
        // Nothing more comes.
        self.parts.desk.tell.flush(Nanos::MAX);
        self.parts.sampler.close();
        let ShardContext { recorder, tell, .. } = self.parts.desk;
        tell.say(Parcel::Intervals(recorder.finish(now)));
        tell.say(Parcel::Ended);
        Ok(())
    }

    fn is_done(&self, now: Nanos) -> bool {
        if self.course.stopped() {
            return true;
        }
        let gone = self.connections == 0 && self.parts.desk.dials.is_empty();
        self.stage == Stage::Leaving && (gone || now > self.course.finish().saturating_add(CLOSING))
    }

    /// Goes where the course has gone.
    fn follow(&mut self, now: Nanos) {
        let begin = self.course.begin();
        if begin != Nanos::MAX && !std::mem::replace(&mut self.begun, true) {
            self.parts.desk.recorder.measured(self.course.measured()..self.course.drain());
            let end = std::time::Duration::from_nanos(self.course.drain().saturating_sub(begin));
            for (index, (population, role)) in self.populations.iter_mut().zip(&self.parts.plan.roles).enumerate() {
                // Roles have arrivals of their own.
                let seed = self.parts.seed.wrapping_add(index as u64);
                let Some(arrivals) = &role.arrivals else { continue };
                let (shard, shards) = (self.parts.number as u32, self.parts.shards as u32);
                let mut schedule = Schedule::new(arrivals, end, seed, shard, shards);
                population.coming = schedule.next();
                population.arrivals = Some(schedule);
            }
        }
        if self.stage < Stage::Draining && now >= self.course.drain() {
            self.stage = Stage::Draining;
            self.parts.desk.recorder.drain_from(self.course.drain());
            for seat in 0..self.seats.len() as u32 {
                self.drive(seat, Input::Drain);
            }
        }
        if self.stage < Stage::Leaving && now >= self.course.finish() {
            self.stage = Stage::Leaving;
            self.parts.desk.dials.clear();
            for seat in 0..self.seats.len() as u32 {
                self.drive(seat, Input::Finish);
                if !self.seats[seat as usize].line.open {
                    self.hang_up(seat);
                }
            }
        }
    }

    /// Answers to hooks.
    fn answers(&mut self) {
        while let Some((seat, answer)) = self.parts.desk.calls.answered() {
            self.drive(seat, Input::Answer(answer.as_deref()));
        }
    }

    /// Hands one thing that happens to a client, and what follows from it to the socket.
    ///
    /// Several messages of one seat that are due together go out with one write.
    fn drive(&mut self, number: u32, input: Input<'_>) {
        if self.unflushed != Some(number) {
            self.flush_last();
        }
        let now = self.course.clock.now();
        let seat = &mut self.seats[number as usize];
        let was_closing = seat.line.closing;
        hand(seat, number, &mut self.parts.desk, &self.parts.prepared, now, input);
        if seat.line.closing && !was_closing {
            self.closing.push_back((now + CLOSING, number, seat.serial));
        }
        self.unflushed = Some(number);
    }

    fn flush_last(&mut self) {
        if let Some(number) = self.unflushed.take() {
            self.flush(number);
        }
    }

    fn flush(&mut self, number: u32) {
        let seat = &self.seats[number as usize];
        let speaks = seat.wire.is_some() && (seat.line.open || !seat.line.out.is_empty());
        if speaks && self.write(number).is_err() {
            let end = if self.seats[number as usize].line.open { End::Dropped } else { End::Unreachable };
            self.ended(number, end, None);
        }
    }

    /// Once a second: how we are.
    fn look_around(&mut self, now: Nanos) {
        if !self.selfwatch.is_due(now) {
            return;
        }
        let unwritten = self.unwritten as u64;
        let unread = self.selfwatch.unread(&self.seats);
        let desk = &mut self.parts.desk;
        desk.recorder.gauge(Gauge::Connections, self.connections, now);
        desk.recorder.gauge(Gauge::Unwritten, unwritten, now);
        desk.recorder.gauge(Gauge::Unread, unread, now);
        desk.recorder.gauge(Gauge::Journeys, desk.under_way, now);
        self.selfwatch.tell(&mut desk.recorder, now);
        let intervals = desk.recorder.intervals(now);
        desk.tell.flush(now);
        self.parts.sampler.hand_over();
        desk.tell.say(Parcel::UnderWay { shard: self.parts.number, journeys: desk.under_way });
        if !intervals.is_empty() {
            desk.tell.say(Parcel::Intervals(intervals));
        }
    }
}

/// Hands one thing that happens to a client.
fn hand(
    seat: &mut ClientSlot,
    number: u32,
    desk: &mut ShardContext,
    prepared: &Prepared,
    now: Nanos,
    input: Input<'_>,
) {
    let role = &prepared.roles[usize::from(seat.role)];
    let mut hands = Hands {
        desk,
        seat: number,
        role: seat.role,
        now,
        line: &mut seat.line,
        alarm: &mut seat.alarm,
        queued: &mut seat.queued,
        drains: role.drains,
        counted: &mut seat.counted,
    };
    seat.client.handle(role, now, input, &mut hands);
}
