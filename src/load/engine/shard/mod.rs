//! A shard: one thread with its connections and clients.
//!
//! A turn of its loop handles due events, reads incoming data, and waits. It never blocks on another thread, takes no
//! locks, and shares only the atomics of the [`PhaseTimeline`] with other shards.

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

use self::context::{ClientActions, ShardContext};
use self::outbox::ShardReport;
use self::slot::ClientSlot;
use super::connection::READ_BUFFER_BYTES;
use super::dialer::Dialer;
use super::phases::PhaseTimeline;
use super::poller::{Poller, TIMER_TOKEN, WAKER_TOKEN};
use super::self_monitor::SelfMonitor;
use super::stream::ClientTls;
use super::translation::{AssumedMessage, ShardTranslator};
use super::validator::MessageSampler;
use crate::load::client::VirtualClient;
use crate::load::client::io::ClientEvent;
use crate::load::compile::program::CompiledPlan;
use crate::load::metrics::Gauge;
use crate::load::plan::Plan;
use crate::load::plan::schedule::{ArrivalSchedule, ShardPlace};
use crate::load::provenance::DeliveredFrame;
use crate::load::{Nanos, SECOND};
use crate::transport::Endpoint;

/// The timeout for TCP, TLS and upgrade.
const CONNECT_TIMEOUT: Nanos = 10 * SECOND;
/// The timeout of a closing handshake.
const CLOSING_TIMEOUT: Nanos = 2 * SECOND;
/// The most due events handled per turn, before sockets are read.
const MAX_DUE_PER_TURN: usize = 256;
/// Connections started per turn.
const MAX_DIALS_PER_TURN: usize = 64;
/// The longest wait of a turn.
const MAX_WAIT: Nanos = SECOND / 20;
/// The limit of buffered bytes of incomplete messages per shard; a connection that exceeds it is dropped.
const MAX_INCOMPLETE_BYTES: usize = 256 << 20;
/// The limit of unwritten bytes per shard; a connection that adds more is dropped.
const MAX_SHARD_UNWRITTEN: usize = 64 << 20;
/// With more unwritten bytes than this, pings are not answered.
const MAX_UNWRITTEN_FOR_PONGS: usize = 64 << 10;
/// A longer turn counts as a stall: it delayed other clients' messages.
const STALL_TIME: Nanos = SECOND / 100;

/// What a shard is built from.
pub struct ShardParts {
    pub place: ShardPlace,
    pub plan: Arc<Plan>,
    pub prepared: Arc<CompiledPlan>,
    pub endpoint: Arc<Endpoint>,
    pub tls: Option<ClientTls>,
    pub dialer: Dialer,
    pub seed: u64,
    pub context: ShardContext,
    pub sampler: MessageSampler,
    pub poll: Poll,
    pub watch: Poller,
}

pub struct Shard {
    parts: ShardParts,
    timeline: Arc<PhaseTimeline>,
    slots: Vec<ClientSlot>,
    populations: Vec<ShardPopulation>,
    scratch: Vec<u8>,
    /// Connections that may have more to read.
    hot: VecDeque<u32>,
    /// Deadlines of connections that are opening, and closing; each queue in order of time.
    opening: VecDeque<(Nanos, u32, u32)>,
    closing: VecDeque<(Nanos, u32, u32)>,
    /// A slot whose bytes are not written yet, because more may follow.
    unflushed: Option<u32>,
    connections: u64,
    /// Buffered bytes of incomplete frames, of all connections.
    held: usize,
    /// Unwritten bytes of all connections.
    unwritten: usize,
    stage: ShardStage,
    /// Whether arrivals have begun.
    begun: bool,
    /// The number of beginnings and ends of holds that clients know, and the number that the recorder knows.
    hold_changes: usize,
    holds_recorded: usize,
    self_monitor: SelfMonitor,
}

/// The state of a role in a shard.
struct ShardPopulation {
    /// The slots of the role, in the order in which they connect.
    slots: std::ops::Range<u32>,
    /// The number of slots of the role that have been started.
    started: u32,
    /// When the role began to connect.
    since: Option<Nanos>,
    /// The schedule of journeys, and the next due time.
    arrivals: Option<ArrivalSchedule>,
    coming: Option<Nanos>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ShardStage {
    Running,
    Draining,
    Leaving,
}

impl Shard {
    pub fn new(parts: ShardParts) -> Self {
        let mut slots = Vec::new();
        let mut populations = Vec::new();
        for (index, (role, planned)) in parts.prepared.roles.iter().zip(&parts.plan.roles).enumerate() {
            let first = slots.len() as u32;
            let clients = parts.place.clients();
            let own = (clients.first..planned.population.number).step_by(clients.step as usize);
            slots.extend(own.map(|number| ClientSlot::new(VirtualClient::new(role, number), index as u16)));
            populations.push(ShardPopulation {
                slots: first..slots.len() as u32,
                started: 0,
                since: None,
                arrivals: None,
                coming: None,
            });
        }
        let timeline = Arc::clone(&parts.context.timeline);
        Self {
            timeline,
            slots,
            populations,
            scratch: vec![0; READ_BUFFER_BYTES],
            hot: VecDeque::new(),
            opening: VecDeque::new(),
            closing: VecDeque::new(),
            unflushed: None,
            connections: 0,
            held: 0,
            unwritten: 0,
            stage: ShardStage::Running,
            begun: false,
            hold_changes: 0,
            holds_recorded: 0,
            self_monitor: SelfMonitor::new(parts.place.number as usize),
            parts,
        }
    }

    /// Runs until every client has disconnected.
    ///
    /// # Errors
    /// Errors of the poller.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut now = self.timeline.clock.now();
        while !self.is_done(now) {
            self.follow_phases(now);
            let more = self.handle_due_events() | self.continue_reads();
            self.drop_overdue();
            self.flush_last();
            self.report_state(self.timeline.clock.now());

            let begun = self.timeline.clock.now();
            if begun - now > STALL_TIME {
                self.parts.context.recorder.stall(begun - now, begun);
            }
            let until = if more { begun } else { self.next_due(begun) };
            self.parts.watch.wait(&mut self.parts.poll, &mut events, begun, until)?;
            now = self.timeline.clock.now();
            for event in &events {
                match event.token() {
                    TIMER_TOKEN => {}
                    WAKER_TOKEN => self.pass_hook_answers(),
                    slot => self.handle_socket_event(slot.0 as u32, event.is_read_closed() || event.is_error()),
                }
            }
        }
        let now = self.timeline.clock.now();
        // No more entries follow.
        self.parts.context.outbox.flush(Nanos::MAX);
        self.parts.sampler.close();
        let ShardContext { recorder, outbox, translation, details, .. } = self.parts.context;
        outbox.send(ShardReport::Intervals(recorder.finish(now)));
        outbox.send(ShardReport::Details(Box::new(details)));
        outbox.send(ShardReport::Ended { deviations: translation.map(ShardTranslator::into_seen).unwrap_or_default() });
        Ok(())
    }

    fn is_done(&self, now: Nanos) -> bool {
        if self.timeline.stopped() {
            return true;
        }
        let gone = self.connections == 0 && self.parts.context.dials.is_empty();
        self.stage == ShardStage::Leaving && (gone || now > self.timeline.finish().saturating_add(CLOSING_TIMEOUT))
    }

    /// Follows the phases of the run.
    fn follow_phases(&mut self, now: Nanos) {
        let begin = self.timeline.begin();
        if self.stage == ShardStage::Running {
            let measured = self.timeline.measured();
            // A hold moves the measured time.
            self.parts.context.recorder.set_measured(measured..self.timeline.drain());
            while let Some(at) = self.timeline.holds.change(self.hold_changes).filter(|at| *at <= now) {
                self.hold_changes += 1;
                let event = if self.hold_changes % 2 == 1 {
                    ClientEvent::Hold { since: at }
                } else {
                    ClientEvent::Resume { until: at }
                };
                for slot in 0..self.slots.len() as u32 {
                    self.handle_event(slot, event);
                }
            }
            let changes = self.timeline.holds.change_count();
            if changes > self.holds_recorded {
                self.holds_recorded = changes;
                self.parts.context.recorder.set_holds(self.timeline.holds.all());
            }
        }
        if begin != Nanos::MAX && !std::mem::replace(&mut self.begun, true) {
            // Arrivals that are due in the drain are left out when their time comes.
            let end = self.parts.plan.phases.longest_warm_up() + self.parts.plan.phases.duration;
            for (index, (population, role)) in self.populations.iter_mut().zip(&self.parts.plan.roles).enumerate() {
                // Every role has its own arrivals.
                let seed = self.parts.seed.wrapping_add(index as u64);
                let Some(arrivals) = &role.arrivals else { continue };
                let Some(own) = self.parts.place.arrivals(role.population.number) else { continue };
                let mut schedule = ArrivalSchedule::new(arrivals, end, seed, own);
                population.coming = schedule.next();
                population.arrivals = Some(schedule);
            }
        }
        if self.stage < ShardStage::Draining && now >= self.timeline.drain() {
            self.stage = ShardStage::Draining;
            self.parts.context.recorder.drain_from(self.timeline.drain());
            for slot in 0..self.slots.len() as u32 {
                self.handle_event(slot, ClientEvent::Drain);
            }
        }
        if self.stage < ShardStage::Leaving && now >= self.timeline.finish() {
            self.stage = ShardStage::Leaving;
            self.parts.context.dials.clear();
            for slot in 0..self.slots.len() as u32 {
                self.handle_event(slot, ClientEvent::Finish);
                if !self.slots[slot as usize].output.open {
                    self.disconnect(slot);
                }
            }
        }
    }

    /// Passes the answers of hooks to clients.
    fn pass_hook_answers(&mut self) {
        while let Some((slot, answer)) = self.parts.context.calls.next_answer() {
            self.handle_event(slot, ClientEvent::Answer(answer.as_deref()));
        }
    }

    /// Passes an event to a client and writes its frames.
    ///
    /// Consecutive frames of one slot are written together.
    fn handle_event(&mut self, number: u32, input: ClientEvent<'_>) {
        if self.unflushed != Some(number) {
            self.flush_last();
        }
        let now = self.timeline.clock.now();
        let slot = &mut self.slots[number as usize];
        let was_closing = slot.output.closing;
        handle_input(slot, number, &mut self.parts.context, &self.parts.prepared, now, input);
        if slot.output.closing && !was_closing {
            self.closing.push_back((now + CLOSING_TIMEOUT, number, slot.serial));
        }
        self.unflushed = Some(number);
    }

    fn flush_last(&mut self) {
        if let Some(number) = self.unflushed.take() {
            self.flush(number);
        }
    }

    fn flush(&mut self, number: u32) {
        let slot = &self.slots[number as usize];
        let has_output = slot.connection.is_some() && (slot.output.open || !slot.output.out.is_empty());
        if has_output
            && !slot.output.broken
            && let Err(error) = self.write_connection(number)
        {
            self.handle_write_error(number, &error);
        }
    }

    /// Reports gauges and intervals once a second.
    fn report_state(&mut self, now: Nanos) {
        if !self.self_monitor.is_due(now) {
            return;
        }
        let unwritten = self.unwritten as u64;
        let unread = self.self_monitor.estimate_unread(&self.slots);
        let context = &mut self.parts.context;
        context.recorder.gauge(Gauge::Connections, self.connections, now);
        context.recorder.gauge(Gauge::Unwritten, unwritten, now);
        context.recorder.gauge(Gauge::Unread, unread, now);
        context.recorder.gauge(Gauge::Journeys, context.under_way, now);
        self.self_monitor.record_resources(&mut context.recorder, now);
        let intervals = context.recorder.take_intervals(now);
        context.outbox.flush(now);
        self.parts.sampler.queue_batch();
        if !context.details.is_empty() {
            let details = std::mem::take(&mut context.details);
            context.outbox.send(ShardReport::Details(Box::new(details)));
        }
        context
            .outbox
            .send(ShardReport::UnderWay { shard: self.parts.place.number as usize, journeys: context.under_way });
        if !intervals.is_empty() {
            context.outbox.send(ShardReport::Intervals(intervals));
        }
    }
}

/// Passes an event to a client.
fn handle_input(
    slot: &mut ClientSlot,
    number: u32,
    context: &mut ShardContext,
    prepared: &CompiledPlan,
    now: Nanos,
    input: ClientEvent<'_>,
) {
    let role = &prepared.roles[usize::from(slot.role)];
    let mut actions = ClientActions {
        context,
        slot: number,
        client: slot.client.party() - role.first,
        role: slot.role,
        now,
        output: &mut slot.output,
        alarm: &mut slot.alarm,
        queued: &mut slot.queued,
        drains: role.drains,
        counted: &mut slot.counted,
        failed: &mut slot.failed,
        received: &mut slot.received,
    };
    let opened = matches!(input, ClientEvent::Opened);
    slot.client.handle(role, now, input, &mut actions);
    if let (true, Some(translation)) = (opened, &mut actions.context.translation) {
        actions.context.assumed.extend(translation.count_opened(number, &role.upgrade_deviations, now));
    }
    while let Some(AssumedMessage { text, deviation }) = actions.context.assumed.pop_front() {
        let frame = DeliveredFrame::assumed(&text, deviation);
        slot.client.handle(role, now, ClientEvent::Frame(frame), &mut actions);
    }
}
