//! The recorder of one shard. No locks: a record is an addition, or a push onto a list.

use super::histogram::HIGHEST_TIME;
use super::interval::{CoreUtilisation, GaugeLevel, RunPhases, ShardInterval, TimingSample};
use super::measurement::Measurement;
use super::registry::{
    CounterId, Gauge, GeneratorCount, GeneratorTime, JourneyCount, MessageCount, MessageTime, MetricRegistry,
    OperationCount, OperationTime, TimingId,
};
use crate::load::Nanos;
use crate::load::buffer_pool::PooledVec;
use crate::load::ids::{JourneyId, MessageId};

/// Records the events of one shard. Messages and journeys are indexes into [`super::MetricSubjects`]; a wrong index is a
/// bug of the plan's compiler and panics. Times must be passed in order; a late one is counted into the open interval.
pub struct MetricRecorder {
    layout: MetricRegistry,
    phases: RunPhases,
    from: Nanos,
    /// Samples due earlier are not in any total; they are only shown during the warm-up.
    due_from: Nanos,
    /// Samples of the open interval. Another thread turns them into histograms, so that the end of an interval delays
    /// no message.
    samples: PooledVec<TimingSample>,
    counts: Vec<u64>,
    gauges: [GaugeLevel; Gauge::ALL.len()],
    cores: Vec<CoreUtilisation>,
    ended: Vec<ShardInterval>,
}

impl MetricRecorder {
    pub fn new(layout: MetricRegistry, phases: RunPhases) -> Self {
        let counts = layout.counts().len();
        let mut recorder = Self {
            layout,
            phases,
            from: 0,
            due_from: 0,
            samples: PooledVec::default(),
            counts: vec![0; counts],
            gauges: Default::default(),
            cores: Vec::new(),
            ended: Vec::new(),
        };
        recorder.open_interval(0);
        recorder
    }

    /// Records what a client measured at `at`. It is inlined so that the compiler resolves the match at each call.
    #[inline(always)]
    pub fn record(&mut self, measurement: Measurement, at: Nanos) {
        self.close_until(at);
        match measurement {
            Measurement::Messages(message, count, times) => self.add_message(message, count, times),
            Measurement::Journeys(journey, count, times) => self.add_journey(journey, count, times),
            Measurement::Sent { message, due, ready } => {
                self.record_message_time(message, MessageTime::SendDelay, due, ready, at);
                self.add_message(message, MessageCount::Sent, 1);
            }
            Measurement::Received { message: None, .. } | Measurement::JourneyEndedEarly(_) => {}
            Measurement::Received { message: Some(message), bytes } => {
                self.add_message(message, MessageCount::Received, 1);
                self.add_message(message, MessageCount::Bytes, bytes as u64);
            }
            Measurement::Answered { message, due, delay } => {
                self.record_message_time(message, MessageTime::Response, due, due, at);
                self.record_message_time(message, MessageTime::Service, due, due.saturating_add(delay), at);
                self.add_message(message, MessageCount::Answered, 1);
            }
            Measurement::OperationSent(operation) => {
                self.add_count(CounterId::Operation(operation.0.into(), OperationCount::Sent), 1);
            }
            Measurement::OperationAnswered { operation, due, delay } => {
                let index = usize::from(operation.0);
                self.record_time(TimingId::Operation(index, OperationTime::Response), due, due, at);
                let sent = due.saturating_add(delay);
                self.record_time(TimingId::Operation(index, OperationTime::Service), due, sent, at);
                self.add_count(CounterId::Operation(index, OperationCount::Answered), 1);
            }
            Measurement::Delivered { message, due } => {
                self.record_message_time(message, MessageTime::Delivery, due, due, at);
                self.add_message(message, MessageCount::Delivered, 1);
            }
            Measurement::JourneyCompleted { journey, due } => {
                self.record_time(TimingId::Journey(journey.0.into()), due, due, at);
                self.add_journey(journey, JourneyCount::Completed, 1);
            }
            Measurement::Error(kind) => self.add_count(CounterId::Error(kind), 1),
            Measurement::Undocumented => self.add_count(CounterId::Undocumented, 1),
        }
    }

    fn add_message(&mut self, message: MessageId, count: MessageCount, more: u64) {
        self.add_count(CounterId::Message(message.0.into(), count), more);
    }

    fn add_journey(&mut self, journey: JourneyId, count: JourneyCount, more: u64) {
        self.add_count(CounterId::Journey(journey.0.into(), count), more);
    }

    fn record_message_time(&mut self, message: MessageId, time: MessageTime, due: Nanos, begin: Nanos, end: Nanos) {
        self.record_time(TimingId::Message(message.0.into(), time), due, begin, end);
    }

    /// Records how late a timer fired.
    pub fn lag(&mut self, lag: Nanos, at: Nanos) {
        self.close_until(at);
        self.record_time(TimingId::Run(GeneratorTime::Lag), at, at, at.saturating_add(lag));
    }

    /// Records how long the event loop was blocked.
    pub fn stall(&mut self, stall: Nanos, at: Nanos) {
        self.close_until(at);
        self.record_time(TimingId::Run(GeneratorTime::Stall), at, at, at.saturating_add(stall));
    }

    pub fn gauge(&mut self, gauge: Gauge, value: u64, at: Nanos) {
        self.close_until(at);
        let level = &mut self.gauges[gauge as usize];
        *level = GaugeLevel { last: value, highest: level.highest.max(value) };
    }

    /// Records the utilisation (0 to 1) of a core since the last call; each core is reported by one shard.
    pub fn core(&mut self, core: usize, busy: f64, at: Nanos) {
        self.close_until(at);
        match self.cores.iter_mut().find(|known| known.core == core) {
            Some(known) => known.busy = known.busy.max(busy),
            None => self.cores.push(CoreUtilisation { core, busy }),
        }
    }

    /// Sets the measured time; must be called before it begins.
    pub fn set_measured(&mut self, measured: std::ops::Range<Nanos>) {
        self.phases.measured = measured;
    }

    /// Sets the holds so far; must be called before the first one that is new.
    pub fn set_holds(&mut self, holds: Vec<std::ops::Range<Nanos>>) {
        self.phases.holds = holds;
    }

    /// Ends the measured time early: after an interruption or a broken threshold.
    pub fn drain_from(&mut self, at: Nanos) {
        self.phases.measured.end = self.phases.measured.end.min(at.max(self.phases.measured.start));
    }

    /// Returns the intervals that have ended by `now`, empty ones included, each once.
    pub fn take_intervals(&mut self, now: Nanos) -> Vec<ShardInterval> {
        self.close_until(now);
        std::mem::take(&mut self.ended)
    }

    /// Returns the remaining intervals; the open one ends at `now`.
    pub fn finish(mut self, now: Nanos) -> Vec<ShardInterval> {
        self.close_until(now);
        if now > self.from {
            self.close_interval(now);
        }
        self.ended
    }

    /// Records the time from `begin` to `end` of something that was due at `due`.
    fn record_time(&mut self, timing: TimingId, due: Nanos, begin: Nanos, end: Nanos) {
        if due < self.due_from || due >= self.phases.measured.end || self.phases.is_held(due) {
            self.add_count(CounterId::Run(GeneratorCount::Outside), 1);
            return;
        }
        let took = end.saturating_sub(begin);
        if took > HIGHEST_TIME {
            self.add_count(CounterId::Run(GeneratorCount::Clamped), 1);
        }
        self.samples.push(TimingSample::new(self.layout.timing(timing), took));
    }

    fn add_count(&mut self, count: CounterId, more: u64) {
        let index = self.layout.count(count);
        self.counts[index] += more;
    }

    /// Closes every interval that has ended by `at`.
    fn close_until(&mut self, at: Nanos) {
        while at >= self.from.saturating_add(self.phases.interval) {
            self.close_interval(self.from.saturating_add(self.phases.interval));
        }
    }

    fn close_interval(&mut self, to: Nanos) {
        let counts = vec![0; self.counts.len()];
        // A gauge keeps its value until it is set again.
        let kept = self.gauges.map(|level| GaugeLevel { last: level.last, highest: level.last });
        self.ended.push(ShardInterval {
            from: self.from,
            to,
            phase: self.phases.phase_of_interval(self.from, to),
            timings: self.samples.take(),
            counts: std::mem::replace(&mut self.counts, counts),
            gauges: std::mem::replace(&mut self.gauges, kept),
            cores: std::mem::take(&mut self.cores),
        });
        self.open_interval(to);
    }

    fn open_interval(&mut self, from: Nanos) {
        self.from = from;
        self.due_from = if from >= self.phases.measured.start { self.phases.measured.start } else { 0 };
    }
}
