//! The recorder of one shard. No locks: a record is an addition, or a push onto a list.

use super::histogram::HIGHEST;
use super::interval::{Core, Level, Phases, Sample, Tally};
use super::registry::{
    Count, ErrorKind, Gauge, JourneyCount, MessageCount, MessageTime, MetricRegistry, RunCount, RunTime, Timing,
};
use crate::load::Nanos;
use crate::load::buffer_pool::PooledVec;

/// Records the events of one shard. Messages and journeys are indexes into [`super::Names`]; a wrong index is a bug of
/// the plan's compiler and panics. Times must be passed in order; a late one is counted into the open interval.
pub struct Recorder {
    layout: MetricRegistry,
    phases: Phases,
    from: Nanos,
    /// Samples due earlier are not in any total; they are only shown during the warm-up.
    due_from: Nanos,
    /// Samples of the open interval. Histograms are made of them on another thread, so that the end of an interval
    /// delays no message.
    samples: PooledVec<Sample>,
    counts: Vec<u64>,
    gauges: [Level; Gauge::ALL.len()],
    cores: Vec<Core>,
    ended: Vec<Tally>,
}

impl Recorder {
    pub fn new(layout: MetricRegistry, phases: Phases) -> Self {
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
        recorder.open(0);
        recorder
    }

    /// Records that a message was handed to the socket at `at`.
    pub fn sent(&mut self, message: usize, due: Nanos, at: Nanos) {
        self.upto(at);
        self.time(Timing::Message(message, MessageTime::SendDelay), due, due, at);
        self.add(Count::Message(message, MessageCount::Sent), 1);
    }

    /// Records the answer to `message`, which was due and sent earlier.
    pub fn answered(&mut self, message: usize, due: Nanos, sent: Nanos, at: Nanos) {
        self.upto(at);
        self.time(Timing::Message(message, MessageTime::Response), due, due, at);
        self.time(Timing::Message(message, MessageTime::Service), due, sent, at);
        self.add(Count::Message(message, MessageCount::Answered), 1);
    }

    /// Records that no answer came to a message that requires none, such as a claim without a match.
    pub fn unanswered(&mut self, message: usize, at: Nanos) {
        self.upto(at);
        self.add(Count::Message(message, MessageCount::Unanswered), 1);
    }

    pub fn received(&mut self, message: usize, at: Nanos, bytes: usize) {
        self.upto(at);
        self.add(Count::Message(message, MessageCount::Received), 1);
        self.add(Count::Message(message, MessageCount::Bytes), bytes as u64);
    }

    /// Records that no step was waiting for a received message.
    pub fn not_taken(&mut self, message: usize, at: Nanos) {
        self.upto(at);
        self.add(Count::Message(message, MessageCount::NotTaken), 1);
    }

    /// Records that a message was published to this number of subscribers.
    pub fn published(&mut self, message: usize, subscribers: u64, at: Nanos) {
        self.upto(at);
        self.add(Count::Message(message, MessageCount::Due), subscribers);
    }

    /// Records that one subscriber received a message; its due time is the time of its publication.
    pub fn delivered(&mut self, message: usize, published: Nanos, at: Nanos) {
        self.upto(at);
        self.time(Timing::Message(message, MessageTime::Delivery), published, published, at);
        self.add(Count::Message(message, MessageCount::Delivered), 1);
    }

    /// Records the delivery to the last subscriber.
    pub fn delivered_to_all(&mut self, message: usize, published: Nanos, at: Nanos) {
        self.upto(at);
        self.time(Timing::Message(message, MessageTime::LastDelivery), published, published, at);
    }

    pub fn journey_started(&mut self, journey: usize, at: Nanos) {
        self.upto(at);
        self.add(Count::Journey(journey, JourneyCount::Started), 1);
    }

    /// Records a completed journey; `due` is the due time of its first message.
    pub fn journey(&mut self, journey: usize, due: Nanos, at: Nanos) {
        self.upto(at);
        self.time(Timing::Journey(journey), due, due, at);
        self.add(Count::Journey(journey, JourneyCount::Completed), 1);
    }

    pub fn journey_failed(&mut self, journey: usize, at: Nanos) {
        self.upto(at);
        self.add(Count::Journey(journey, JourneyCount::Failed), 1);
    }

    pub fn error(&mut self, kind: ErrorKind, at: Nanos) {
        self.upto(at);
        self.add(Count::Error(kind), 1);
    }

    /// Records a frame that matches no message of the pack.
    pub fn undocumented(&mut self, at: Nanos) {
        self.upto(at);
        self.add(Count::Undocumented, 1);
    }

    /// Records how late a timer fired.
    pub fn lag(&mut self, lag: Nanos, at: Nanos) {
        self.upto(at);
        self.time(Timing::Run(RunTime::Lag), at, at, at.saturating_add(lag));
    }

    /// Records how long the event loop was blocked.
    pub fn stall(&mut self, stall: Nanos, at: Nanos) {
        self.upto(at);
        self.time(Timing::Run(RunTime::Stall), at, at, at.saturating_add(stall));
    }

    /// Records arrivals or ticks that were skipped.
    pub fn missed(&mut self, count: u64, at: Nanos) {
        self.upto(at);
        self.add(Count::Run(RunCount::Missed), count);
    }

    /// Records an arrival that found no free client.
    pub fn no_client(&mut self, at: Nanos) {
        self.upto(at);
        self.add(Count::Run(RunCount::NoClient), 1);
    }

    pub fn gauge(&mut self, gauge: Gauge, value: u64, at: Nanos) {
        self.upto(at);
        let level = &mut self.gauges[gauge as usize];
        *level = Level { last: value, highest: level.highest.max(value) };
    }

    /// Records the utilisation (0 to 1) of a core since the last call; each core is reported by one shard.
    pub fn core(&mut self, core: usize, busy: f64, at: Nanos) {
        self.upto(at);
        match self.cores.iter_mut().find(|known| known.core == core) {
            Some(known) => known.busy = known.busy.max(busy),
            None => self.cores.push(Core { core, busy }),
        }
    }

    /// Sets the measured time; must be called before it begins.
    pub fn measured(&mut self, measured: std::ops::Range<Nanos>) {
        self.phases.measured = measured;
    }

    /// Ends the measured time early: after an interruption or a broken threshold.
    pub fn drain_from(&mut self, at: Nanos) {
        self.phases.measured.end = self.phases.measured.end.min(at.max(self.phases.measured.start));
    }

    /// Returns the intervals that have ended by `now`, empty ones included, each once.
    pub fn intervals(&mut self, now: Nanos) -> Vec<Tally> {
        self.upto(now);
        std::mem::take(&mut self.ended)
    }

    /// Returns the remaining intervals; the open one ends at `now`.
    pub fn finish(mut self, now: Nanos) -> Vec<Tally> {
        self.upto(now);
        if now > self.from {
            self.close(now);
        }
        self.ended
    }

    /// Records the time from `begin` to `end` of something that was due at `due`.
    fn time(&mut self, timing: Timing, due: Nanos, begin: Nanos, end: Nanos) {
        if due < self.due_from || due >= self.phases.measured.end {
            self.add(Count::Run(RunCount::Outside), 1);
            return;
        }
        let took = end.saturating_sub(begin);
        if took > HIGHEST {
            self.add(Count::Run(RunCount::Clamped), 1);
        }
        self.samples.push(Sample::new(self.layout.timing(timing), took));
    }

    fn add(&mut self, count: Count, more: u64) {
        let index = self.layout.count(count);
        self.counts[index] += more;
    }

    /// Closes every interval that has ended by `at`.
    fn upto(&mut self, at: Nanos) {
        while at >= self.from.saturating_add(self.phases.interval) {
            self.close(self.from.saturating_add(self.phases.interval));
        }
    }

    fn close(&mut self, to: Nanos) {
        let counts = vec![0; self.counts.len()];
        // A gauge keeps its value until it is set again.
        let kept = self.gauges.map(|level| Level { last: level.last, highest: level.last });
        self.ended.push(Tally {
            from: self.from,
            to,
            phase: self.phases.of(self.from, to),
            timings: self.samples.take(),
            counts: std::mem::replace(&mut self.counts, counts),
            gauges: std::mem::replace(&mut self.gauges, kept),
            cores: std::mem::take(&mut self.cores),
        });
        self.open(to);
    }

    fn open(&mut self, from: Nanos) {
        self.from = from;
        self.due_from = if from >= self.phases.measured.start { self.phases.measured.start } else { 0 };
    }
}
