//! One shard's notebook. Owned by the shard, so nothing is locked; a record is an addition, or a number at the end of a list.

use super::histogram::HIGHEST;
use super::interval::{Core, Level, Phases, Sample, Tally};
use super::registry::{
    Count, ErrorKind, Gauge, JourneyCount, MessageCount, MessageTime, MetricRegistry, RunCount, RunTime, Timing,
};
use crate::load::Nanos;
use crate::load::buffer_pool::PooledVec;

/// Records of one shard. Messages and journeys are indexes into [`super::Names`]; a wrong one is a panic, since it is a
/// mistake of the plan's compiler. Times of one recorder come in order; what comes late is counted into the open interval.
pub struct Recorder {
    layout: MetricRegistry,
    phases: Phases,
    from: Nanos,
    /// Samples due before are in no total; during the warm-up itself they are shown.
    due_from: Nanos,
    /// Histograms are made of them elsewhere: a second that ends must not hold up what is due in the next.
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

    /// Handed to the socket at `at`.
    pub fn sent(&mut self, message: usize, due: Nanos, at: Nanos) {
        self.upto(at);
        self.time(Timing::Message(message, MessageTime::SendDelay), due, due, at);
        self.add(Count::Message(message, MessageCount::Sent), 1);
    }

    /// The answer to a message that was due and sent earlier. `message` is what was asked, not the answer.
    pub fn answered(&mut self, message: usize, due: Nanos, sent: Nanos, at: Nanos) {
        self.upto(at);
        self.time(Timing::Message(message, MessageTime::Response), due, due, at);
        self.time(Timing::Message(message, MessageTime::Service), due, sent, at);
        self.add(Count::Message(message, MessageCount::Answered), 1);
    }

    /// It was not answered, and need not be: a claim without a match.
    pub fn unanswered(&mut self, message: usize, at: Nanos) {
        self.upto(at);
        self.add(Count::Message(message, MessageCount::Unanswered), 1);
    }

    pub fn received(&mut self, message: usize, at: Nanos, bytes: usize) {
        self.upto(at);
        self.add(Count::Message(message, MessageCount::Received), 1);
        self.add(Count::Message(message, MessageCount::Bytes), bytes as u64);
    }

    /// A message was published to so many subscribers.
    pub fn published(&mut self, message: usize, subscribers: u64, at: Nanos) {
        self.upto(at);
        self.add(Count::Message(message, MessageCount::Due), subscribers);
    }

    /// One subscriber got a message that was published (that is: due) at `published`.
    pub fn delivered(&mut self, message: usize, published: Nanos, at: Nanos) {
        self.upto(at);
        self.time(Timing::Message(message, MessageTime::Delivery), published, published, at);
        self.add(Count::Message(message, MessageCount::Delivered), 1);
    }

    /// The last subscriber got it.
    pub fn delivered_to_all(&mut self, message: usize, published: Nanos, at: Nanos) {
        self.upto(at);
        self.time(Timing::Message(message, MessageTime::LastDelivery), published, published, at);
    }

    pub fn journey_started(&mut self, journey: usize, at: Nanos) {
        self.upto(at);
        self.add(Count::Journey(journey, JourneyCount::Started), 1);
    }

    /// A journey came to its end; `due` is when its first message was.
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

    /// A frame of no kind that the pack has.
    pub fn undocumented(&mut self, at: Nanos) {
        self.upto(at);
        self.add(Count::Undocumented, 1);
    }

    /// A timer fired so much later than it should have.
    pub fn lag(&mut self, lag: Nanos, at: Nanos) {
        self.upto(at);
        self.time(Timing::Run(RunTime::Lag), at, at, at.saturating_add(lag));
    }

    /// The runtime was held up for so long.
    pub fn stall(&mut self, stall: Nanos, at: Nanos) {
        self.upto(at);
        self.time(Timing::Run(RunTime::Stall), at, at, at.saturating_add(stall));
    }

    /// So many arrivals or ticks could not be served at all.
    pub fn missed(&mut self, count: u64, at: Nanos) {
        self.upto(at);
        self.add(Count::Run(RunCount::Missed), count);
    }

    /// An arrival found no free client.
    pub fn no_client(&mut self, at: Nanos) {
        self.upto(at);
        self.add(Count::Run(RunCount::NoClient), 1);
    }

    pub fn gauge(&mut self, gauge: Gauge, value: u64, at: Nanos) {
        self.upto(at);
        let level = &mut self.gauges[gauge as usize];
        *level = Level { last: value, highest: level.highest.max(value) };
    }

    /// How busy a core of the machine was since it was asked last: 0 to 1. One shard tells it of each core.
    pub fn core(&mut self, core: usize, busy: f64, at: Nanos) {
        self.upto(at);
        match self.cores.iter_mut().find(|known| known.core == core) {
            Some(known) => known.busy = known.busy.max(busy),
            None => self.cores.push(Core { core, busy }),
        }
    }

    /// What is due in this time is measured; told while it is still to come.
    pub fn measured(&mut self, measured: std::ops::Range<Nanos>) {
        self.phases.measured = measured;
    }

    /// Nothing new is due from now on, though more was planned: an interruption, or a broken threshold.
    pub fn drain_from(&mut self, at: Nanos) {
        self.phases.measured.end = self.phases.measured.end.min(at.max(self.phases.measured.start));
    }

    /// The intervals that have ended by `now`, empty ones included, each once.
    pub fn intervals(&mut self, now: Nanos) -> Vec<Tally> {
        self.upto(now);
        std::mem::take(&mut self.ended)
    }

    /// Those that are left, with the open one, which ends at `now`.
    pub fn finish(mut self, now: Nanos) -> Vec<Tally> {
        self.upto(now);
        if now > self.from {
            self.close(now);
        }
        self.ended
    }

    /// What was due at `due`, from `begin` to `end`.
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

    /// Ends every interval that is over at `at`.
    fn upto(&mut self, at: Nanos) {
        while at >= self.from.saturating_add(self.phases.interval) {
            self.close(self.from.saturating_add(self.phases.interval));
        }
    }

    fn close(&mut self, to: Nanos) {
        let counts = vec![0; self.counts.len()];
        // A level stays where it is until it is told anew.
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
