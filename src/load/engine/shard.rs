//! One thread, its connections and its clients: the loop that everything of a load run goes through.
//!
//! A turn does what is due, reads what has come, and waits. Nothing in it waits for anything else, locks, or looks at what
//! other shards do, but for the atomics of the [`Course`].

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use mio::{Events, Poll};

use super::check::Sampler;
use super::course::Course;
use super::desk::{Desk, Hands};
use super::dial::Dialer;
use super::frames;
use super::seat::Seat;
use super::selfwatch::Selfwatch;
use super::stream::{Stream, Tls};
use super::tell::Parcel;
use super::watch::{ALARM, WAKER, Watch};
use super::wire::{Heard, Piece, SCRATCH, Why, Wire};
use crate::load::client::Client;
use crate::load::measure::{ErrorKind, Gauge};
use crate::load::plan::Plan;
use crate::load::port::{Dial, End, Input};
use crate::load::program::Prepared;
use crate::load::schedule::Schedule;
use crate::load::{Nanos, SECOND};
use crate::transport::{Endpoint, handshake};

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
    pub desk: Desk,
    pub sampler: Sampler,
    pub poll: Poll,
    pub watch: Watch,
}

pub struct Shard {
    parts: Parts,
    course: Arc<Course>,
    seats: Vec<Seat>,
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
    stage: Stage,
    /// Arrivals have begun.
    begun: bool,
    selfwatch: Selfwatch,
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
            seats.extend(own.map(|number| Seat::new(Client::new(role, number), index as u16)));
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
            stage: Stage::Running,
            begun: false,
            selfwatch: Selfwatch::new(parts.number),
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
        self.parts.desk.tell.flush();
        self.parts.sampler.hand_over();
        let Desk { recorder, tell, .. } = self.parts.desk;
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
                let left = &mut self.seats[seat as usize];
                if !left.line.open && left.wire.is_some() {
                    left.hang_up();
                    self.connections -= 1;
                }
            }
        }
    }

    /// Does what is due; whether more is.
    fn due(&mut self) -> bool {
        let mut left = DUE;
        self.starts(&mut left);
        self.dial();
        while left > 0 {
            let now = self.course.clock.now();
            let Some((seat, entry)) = self.parts.desk.timers.pop(now) else { break };
            let alarm = &mut self.seats[seat as usize].alarm;
            if let Some(since) = self.parts.desk.timers.fires(seat, alarm, entry, now) {
                self.parts.desk.recorder.lag(now - since, now);
                self.drive(seat, Input::Wake);
                left -= 1;
            }
        }
        for role in 0..self.populations.len() {
            self.arrivals(role, &mut left);
        }
        left == 0 || !self.parts.desk.dials.is_empty()
    }

    /// Those whose turn to connect has come.
    fn starts(&mut self, left: &mut usize) {
        let now = self.course.clock.now();
        for index in 0..self.populations.len() {
            let planned = &self.parts.plan.roles[index];
            let ready = planned
                .after
                .is_none_or(|other| self.course.joined(other) >= self.parts.plan.roles[other].population.number);
            let population = &mut self.populations[index];
            if population.since.is_none() && ready {
                population.since = Some(now);
            }
            while *left > 0 && self.stage == Stage::Running && self.start_of(index).is_some_and(|start| start <= now) {
                let population = &mut self.populations[index];
                let seat = population.seats.start + population.started;
                population.started += 1;
                *left -= 1;
                self.drive(seat, Input::Start);
            }
        }
    }

    /// When the next client of a role is to connect.
    fn start_of(&self, index: usize) -> Option<Nanos> {
        let population = &self.populations[index];
        if population.started >= population.seats.len() as u32 {
            return None;
        }
        let number = self.parts.number as u32 + population.started * self.parts.shards as u32;
        let start = self.parts.plan.roles[index].population.start(number);
        Some(population.since? + start.as_nanos() as Nanos)
    }

    /// Journeys of a role that are due, each for whoever is free.
    fn arrivals(&mut self, role: usize, left: &mut usize) {
        let begin = self.course.begin();
        if begin == Nanos::MAX {
            return;
        }
        let drain = self.course.drain();
        while *left > 0 {
            let now = self.course.clock.now();
            let population = &mut self.populations[role];
            let Some(offset) = population.coming else { return };
            let due = begin.saturating_add(offset);
            if due > now {
                return;
            }
            population.coming = population.arrivals.as_mut().and_then(Iterator::next);
            if due >= drain {
                continue;
            }
            *left -= 1;
            self.parts.desk.recorder.lag(now - due, now);
            match self.free(role) {
                Some(seat) => {
                    self.drive(seat, Input::Arrival { due });
                    self.requeue(role, seat);
                }
                None => self.parts.desk.recorder.no_client(now),
            }
        }
    }

    /// Somebody with room for a journey: whoever has waited longest.
    fn free(&mut self, role: usize) -> Option<u32> {
        while let Some(number) = self.parts.desk.free[role].pop_front() {
            let seat = &mut self.seats[number as usize];
            seat.queued = false;
            if seat.client.has_room(&self.parts.prepared.roles[role]) {
                return Some(number);
            }
        }
        None
    }

    fn requeue(&mut self, role: usize, number: u32) {
        let seat = &mut self.seats[number as usize];
        if !seat.queued && seat.client.has_room(&self.parts.prepared.roles[role]) {
            seat.queued = true;
            self.parts.desk.free[role].push_back(number);
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
        let seat = &mut self.seats[number as usize];
        if seat.wire.is_some() && (seat.line.open || !seat.line.out.is_empty()) && seat.flush().is_err() {
            let end = if seat.line.open { End::Dropped } else { End::Unreachable };
            self.ended(number, end, None);
        }
    }

    /// Begins to connect whoever wants to.
    fn dial(&mut self) {
        for _ in 0..DIALS {
            let Some((number, dial)) = self.parts.desk.dials.pop_front() else { return };
            if let Err(kind) = self.connect(number, &dial) {
                self.parts.desk.cause = Some(kind);
                self.drive(number, Input::Closed(End::Unreachable));
                self.parts.desk.cause = None;
            }
        }
    }

    fn connect(&mut self, number: u32, dial: &Dial) -> Result<(), ErrorKind> {
        let Parts { endpoint, headers, dialer, tls, poll, .. } = &mut self.parts;
        let tcp = dialer
            .connect()
            .map_err(|error| if is_ours(&error) { ErrorKind::Resources } else { ErrorKind::Connect })?;
        let mut stream = Stream::new(tcp, tls.as_ref()).map_err(|_| ErrorKind::Tls)?;
        stream.register(poll.registry(), number).map_err(|_| ErrorKind::Resources)?;
        let fresh = handshake::key();
        let mut all = headers.as_ref().clone();
        all.extend(dial.headers.iter().cloned());
        let key = handshake::key_of(&all, &fresh);
        let request = handshake::request(&handshake::Request {
            host: &endpoint.host_header(),
            target: &handshake::target(&endpoint.path, dial.path.as_deref().unwrap_or_default(), &dial.query),
            key,
            headers: &all,
            subprotocols: &dial.subprotocols,
            ..handshake::Request::default()
        });
        let seat = &mut self.seats[number as usize];
        seat.hang_up();
        seat.line.out = request.map_err(|_| ErrorKind::Internal)?;
        seat.wire = Some(Box::new(Wire::new(stream, key.to_owned(), dial.subprotocols.clone())));
        self.connections += 1;
        self.opening.push_back((self.course.clock.now() + CONNECT, number, seat.serial));
        Ok(())
    }

    /// Something has happened to a connection.
    fn ready(&mut self, number: u32, to_the_end: bool) {
        let connected = self.seats.get(number as usize).is_some_and(|seat| seat.wire.is_some());
        if connected && self.read(number, to_the_end) {
            self.hot.push_back(number);
        }
    }

    /// Those whose turn to read ended before there was nothing more; whether any is left.
    fn read_hot(&mut self) -> bool {
        for _ in 0..self.hot.len() {
            let Some(number) = self.hot.pop_front() else { break };
            if self.seats[number as usize].wire.is_some() && self.read(number, true) {
                self.hot.push_back(number);
            }
        }
        !self.hot.is_empty()
    }

    /// Reads what has come on a connection and writes what follows from it; whether more may be there.
    fn read(&mut self, number: u32, to_the_end: bool) -> bool {
        self.flush_last();
        let course = &self.course;
        let Parts { desk, prepared, sampler, .. } = &mut self.parts;
        let seat = &mut self.seats[number as usize];
        let Some(mut wire) = seat.wire.take() else { return false };
        let (mut closed, was_closing) = (None, seat.line.closing);
        let heard = wire.read(&mut self.scratch, to_the_end, &mut |piece| {
            let now = course.clock.now();
            match piece {
                Piece::Opened => {
                    seat.line.open = true;
                    hand(seat, number, desk, prepared, now, Input::Opened);
                }
                Piece::Message(bytes) => {
                    desk.recognised = None;
                    hand(seat, number, desk, prepared, now, Input::Text(bytes));
                    sampler.see(desk.recognised, bytes);
                }
                Piece::Ping(bytes) => {
                    frames::append(&mut seat.line.out, frames::PONG, &mut desk.masks, |out| {
                        out.extend_from_slice(bytes)
                    });
                }
                Piece::Close(code) => {
                    if !seat.line.closing {
                        frames::append(&mut seat.line.out, frames::CLOSE, &mut desk.masks, |out| {
                            // 1005 is how we say that none was given; it must not be sent.
                            if code != 1005 {
                                out.extend_from_slice(&code.to_be_bytes());
                            }
                        });
                    }
                    closed = Some(code);
                }
            }
        });
        seat.wire = Some(wire);
        if seat.line.closing && !was_closing {
            self.closing.push_back((course.clock.now() + CLOSING, number, seat.serial));
        }
        match (closed, heard) {
            (Some(code), _) => {
                let _ = seat.flush();
                self.ended(number, End::Close(code), None);
                false
            }
            (None, Heard::Ended(end, why)) => {
                let cause = match why {
                    Why::Plain => None,
                    Why::Upgrade => Some(ErrorKind::Upgrade),
                    Why::Tls => Some(ErrorKind::Tls),
                    Why::Protocol => Some(ErrorKind::Protocol),
                };
                self.ended(number, end, cause);
                false
            }
            (None, heard) => {
                self.flush(number);
                heard == Heard::Some
            }
        }
    }

    /// A connection is over.
    fn ended(&mut self, number: u32, end: End, cause: Option<ErrorKind>) {
        let seat = &mut self.seats[number as usize];
        if seat.wire.is_none() {
            return;
        }
        seat.hang_up();
        self.connections -= 1;
        self.parts.desk.cause = cause;
        self.drive(number, Input::Closed(end));
        self.parts.desk.cause = None;
    }

    /// Connections that have not come about, or not ended, in time.
    fn overdue(&mut self) {
        let now = self.course.clock.now();
        while let Some((at, number, serial)) = self.opening.front().copied().filter(|(at, ..)| *at <= now) {
            self.opening.pop_front();
            let seat = &self.seats[number as usize];
            if at <= now && seat.serial == serial && seat.wire.is_some() && !seat.line.open {
                self.ended(number, End::Unreachable, None);
            }
        }
        while let Some((_, number, serial)) = self.closing.front().copied().filter(|(at, ..)| *at <= now) {
            self.closing.pop_front();
            if self.seats[number as usize].serial == serial {
                self.ended(number, End::Dropped, None);
            }
        }
    }

    /// When something is due next.
    fn next_due(&self, now: Nanos) -> Nanos {
        let mut next = now + LONGEST_WAIT;
        next = next.min(self.parts.desk.timers.next().unwrap_or(Nanos::MAX));
        let begin = self.course.begin();
        for (index, population) in self.populations.iter().enumerate() {
            if self.stage == Stage::Running {
                next = next.min(self.start_of(index).unwrap_or(Nanos::MAX));
            }
            next = next.min(begin.saturating_add(population.coming.unwrap_or(Nanos::MAX)));
        }
        next.max(now)
    }

    /// Once a second: how we are.
    fn look_around(&mut self, now: Nanos) {
        if !self.selfwatch.is_due(now) {
            return;
        }
        let unwritten = self.seats.iter().map(|seat| seat.line.out.len() as u64).sum();
        let unread = self.selfwatch.unread(&self.seats);
        let desk = &mut self.parts.desk;
        desk.recorder.gauge(Gauge::Connections, self.connections, now);
        desk.recorder.gauge(Gauge::Unwritten, unwritten, now);
        desk.recorder.gauge(Gauge::Unread, unread, now);
        desk.recorder.gauge(Gauge::Journeys, desk.under_way, now);
        self.selfwatch.tell(&mut desk.recorder, now);
        let intervals = desk.recorder.intervals(now);
        desk.tell.flush();
        self.parts.sampler.hand_over();
        desk.tell.say(Parcel::UnderWay { shard: self.parts.number, journeys: desk.under_way });
        if !intervals.is_empty() {
            desk.tell.say(Parcel::Intervals(intervals));
        }
    }
}

/// Hands one thing that happens to a client.
fn hand(seat: &mut Seat, number: u32, desk: &mut Desk, prepared: &Prepared, now: Nanos, input: Input<'_>) {
    let role = &prepared.roles[usize::from(seat.role)];
    let mut hands = Hands {
        desk,
        seat: number,
        role: seat.role,
        now,
        line: &mut seat.line,
        alarm: &mut seat.alarm,
        queued: &mut seat.queued,
        counted: &mut seat.counted,
    };
    seat.client.handle(role, now, input, &mut hands);
}

/// Whether it is our side that has run out of something: descriptors, ports, memory.
fn is_ours(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        let ours = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::ADDRINUSE, Errno::NOBUFS, Errno::NOMEM];
        error.raw_os_error().is_some_and(|code| ours.iter().any(|errno| errno.raw_os_error() == code))
    }
    #[cfg(not(unix))]
    {
        matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory)
    }
}
