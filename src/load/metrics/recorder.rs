//! The recorder of one shard. No locks: a record is an addition, or a push onto a list.

use super::histogram::HIGHEST_TIME;
use super::interval::{CoreUtilisation, GaugeLevel, RunPhases, ShardInterval, TimingSample};
use super::registry::{
    CounterId, Gauge, GeneratorCount, GeneratorTime, JourneyCount, LoadErrorKind, MessageCount, MessageTime,
    MetricRegistry, OperationCount, OperationTime, TimingId,
};
use crate::load::Nanos;
use crate::load::buffer_pool::PooledVec;

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

    /// Records that a message was handed to the socket at `at`, which its client could do from `ready` on.
    pub fn sent(&mut self, message: usize, due: Nanos, ready: Nanos, at: Nanos) {
        self.close_until(at);
        self.record_time(TimingId::Message(message, MessageTime::SendDelay), due, ready, at);
        self.add_count(CounterId::Message(message, MessageCount::Sent), 1);
    }

    /// Records the answer to `message`, which was due earlier and sent with this delay of the generator.
    pub fn answered(&mut self, message: usize, due: Nanos, delay: Nanos, at: Nanos) {
        self.close_until(at);
        self.record_time(TimingId::Message(message, MessageTime::Response), due, due, at);
        self.record_time(TimingId::Message(message, MessageTime::Service), due, due.saturating_add(delay), at);
        self.add_count(CounterId::Message(message, MessageCount::Answered), 1);
    }

    /// Records that a message of an operation was handed to the socket.
    pub fn operation_sent(&mut self, operation: usize, at: Nanos) {
        self.close_until(at);
        self.add_count(CounterId::Operation(operation, OperationCount::Sent), 1);
    }

    /// Records the answer to a message of an operation.
    pub fn operation_answered(&mut self, operation: usize, due: Nanos, delay: Nanos, at: Nanos) {
        self.close_until(at);
        self.record_time(TimingId::Operation(operation, OperationTime::Response), due, due, at);
        self.record_time(TimingId::Operation(operation, OperationTime::Service), due, due.saturating_add(delay), at);
        self.add_count(CounterId::Operation(operation, OperationCount::Answered), 1);
    }

    /// Records that a client assumed the answer to `message`, which the hub never sends.
    pub fn answer_assumed(&mut self, message: usize, at: Nanos) {
        self.close_until(at);
        self.add_count(CounterId::Message(message, MessageCount::AnswersAssumed), 1);
    }

    /// Records that no answer came to a message that requires none, such as a claim without a match.
    pub fn unanswered(&mut self, message: usize, at: Nanos) {
        self.close_until(at);
        self.add_count(CounterId::Message(message, MessageCount::Unanswered), 1);
    }

    pub fn received(&mut self, message: usize, at: Nanos, bytes: usize) {
        self.close_until(at);
        self.add_count(CounterId::Message(message, MessageCount::Received), 1);
        self.add_count(CounterId::Message(message, MessageCount::Bytes), bytes as u64);
    }

    /// Records that a client assumed a message that the hub never sends.
    pub fn assumed(&mut self, message: usize, at: Nanos) {
        self.close_until(at);
        self.add_count(CounterId::Message(message, MessageCount::Assumed), 1);
    }

    /// Records that no step was waiting for a received message.
    pub fn not_taken(&mut self, message: usize, at: Nanos) {
        self.close_until(at);
        self.add_count(CounterId::Message(message, MessageCount::NotTaken), 1);
    }

    /// Records that a message was published to this number of subscribers.
    pub fn published(&mut self, message: usize, subscribers: u64, at: Nanos) {
        self.close_until(at);
        self.add_count(CounterId::Message(message, MessageCount::Due), subscribers);
    }

    /// Records that one subscriber received a message; its due time is the time of its publication.
    pub fn delivered(&mut self, message: usize, published: Nanos, at: Nanos) {
        self.close_until(at);
        self.record_time(TimingId::Message(message, MessageTime::Delivery), published, published, at);
        self.add_count(CounterId::Message(message, MessageCount::Delivered), 1);
    }

    /// Records the delivery to the last subscriber.
    pub fn delivered_to_all(&mut self, message: usize, published: Nanos, at: Nanos) {
        self.close_until(at);
        self.record_time(TimingId::Message(message, MessageTime::LastDelivery), published, published, at);
    }

    pub fn journey_started(&mut self, journey: usize, at: Nanos) {
        self.close_until(at);
        self.add_count(CounterId::Journey(journey, JourneyCount::Started), 1);
    }

    /// Records a completed journey; `due` is the due time of its first message.
    pub fn journey_completed(&mut self, journey: usize, due: Nanos, at: Nanos) {
        self.close_until(at);
        self.record_time(TimingId::Journey(journey), due, due, at);
        self.add_count(CounterId::Journey(journey, JourneyCount::Completed), 1);
    }

    pub fn journey_failed(&mut self, journey: usize, at: Nanos) {
        self.close_until(at);
        self.add_count(CounterId::Journey(journey, JourneyCount::Failed), 1);
    }

    /// Records the end of a journey in which a client assumed a message.
    pub fn journey_assumed(&mut self, journey: usize, at: Nanos) {
        self.close_until(at);
        self.add_count(CounterId::Journey(journey, JourneyCount::Assumed), 1);
    }

    /// Records journeys that ended, or did not begin, in another way.
    pub fn journeys(&mut self, journey: usize, count: JourneyCount, times: u64, at: Nanos) {
        self.close_until(at);
        self.add_count(CounterId::Journey(journey, count), times);
    }

    /// Records messages without a time.
    pub fn untimed(&mut self, message: usize, count: MessageCount, times: u64, at: Nanos) {
        self.close_until(at);
        self.add_count(CounterId::Message(message, count), times);
    }

    pub fn error(&mut self, kind: LoadErrorKind, at: Nanos) {
        self.close_until(at);
        self.add_count(CounterId::Error(kind), 1);
    }

    /// Records a frame that matches no message of the pack.
    pub fn undocumented(&mut self, at: Nanos) {
        self.close_until(at);
        self.add_count(CounterId::Undocumented, 1);
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
