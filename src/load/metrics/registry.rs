//! Which times and counts a run keeps, what they are called, and where they stand: names become indexes once, so that a
//! record needs no look-up.

use std::sync::Arc;

/// What the plan measures. An index into these lists is how everybody speaks of a message or a journey.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub messages: Vec<String>,
    pub journeys: Vec<String>,
}

/// What is timed per message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageTime {
    /// Due to sent: what the generator itself has added.
    SendDelay,
    /// Due to answer.
    Response,
    /// Sent to answer.
    Service,
    /// Published to received, for each subscriber.
    Delivery,
    /// Published to received by the last subscriber.
    LastDelivery,
}

/// What is counted per message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageCount {
    Sent,
    Answered,
    /// Stayed without an answer where that is legal.
    Unanswered,
    Received,
    /// Payload bytes of what was received.
    Bytes,
    Delivered,
    /// Deliveries that there should have been.
    Due,
}

/// What is counted per journey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JourneyCount {
    Started,
    Completed,
    /// Ended without getting to its end.
    Failed,
}

/// How late the generator itself is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunTime {
    /// A timer was to fire, and fired.
    Lag,
    /// The runtime did nothing but one thing.
    Stall,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunCount {
    /// Arrivals and ticks that could not be served at all.
    Missed,
    /// Arrivals that found no free client.
    NoClient,
    /// Times that were longer than the histograms reach, and are recorded as their upper bound.
    Clamped,
    /// Times of what was due outside the measured time, and is in no total.
    Outside,
}

/// What went wrong, as a user would sort it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// No connection came about.
    Connect,
    /// The upgrade was refused, or wrong.
    Upgrade,
    Tls,
    /// A connection ended unasked.
    Lost,
    /// An answer that had to come did not come in time.
    Timeout,
    /// The hub answered with an error.
    Refused,
    /// What came breaks RFC 6455.
    Protocol,
    /// What came is no JSON object, or lacks what a later step needs.
    Invalid,
    /// We had no more file descriptors, ports or memory.
    Resources,
    /// Anything else that is our own fault.
    Internal,
}

/// What has a level rather than a sum: each shard tells its own, and they add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge {
    /// Open connections.
    Connections,
    /// Bytes that have arrived and are not handled yet.
    Unread,
    /// Bytes that wait to be written.
    Unwritten,
    /// Journeys under way.
    Journeys,
    /// Resident bytes of this process. One shard tells it.
    Memory,
}

/// A histogram of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    Message(usize, MessageTime),
    /// Due of the first message to the journey's end.
    Journey(usize),
    Run(RunTime),
}

/// A counter of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Message(usize, MessageCount),
    Journey(usize, JourneyCount),
    Error(ErrorKind),
    Run(RunCount),
    /// Objects of no kind that the pack has. No error: a hub may say more than it must.
    Undocumented,
}

/// Names and the places of what is kept for them; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricRegistry {
    pub names: Arc<Names>,
}

macro_rules! listed {
    ($type:ident: $($variant:ident = $name:literal),+) => {
        impl $type {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As thresholds and reports spell it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

listed!(MessageTime: SendDelay = "send_delay", Response = "response", Service = "service", Delivery = "delivery", LastDelivery = "last_delivery");
listed!(MessageCount: Sent = "sent", Answered = "answered", Unanswered = "unanswered", Received = "received", Bytes = "bytes", Delivered = "delivered", Due = "deliveries_due");
listed!(JourneyCount: Started = "started", Completed = "completed", Failed = "failed");
listed!(RunTime: Lag = "lag", Stall = "stall");
listed!(RunCount: Missed = "missed", NoClient = "no_client", Clamped = "clamped", Outside = "outside");
listed!(ErrorKind: Connect = "connect", Upgrade = "upgrade", Tls = "tls", Lost = "lost", Timeout = "timeout", Refused = "refused", Protocol = "protocol", Invalid = "invalid", Resources = "resources", Internal = "internal");
listed!(Gauge: Connections = "connections", Unread = "unread", Unwritten = "unwritten", Journeys = "journeys", Memory = "memory");

impl ErrorKind {
    /// Whether it is the generator that failed, not the hub.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Resources | Self::Internal)
    }
}

impl MetricRegistry {
    pub fn new(names: Names) -> Self {
        Self { names: Arc::new(names) }
    }

    /// Every histogram, in the order of [`MetricRegistry::timing`].
    pub fn timings(&self) -> Vec<Timing> {
        let messages = 0..self.names.messages.len();
        let of_messages = messages.flat_map(|m| MessageTime::ALL.iter().map(move |time| Timing::Message(m, *time)));
        let of_journeys = (0..self.names.journeys.len()).map(Timing::Journey);
        of_messages.chain(of_journeys).chain(RunTime::ALL.iter().map(|time| Timing::Run(*time))).collect()
    }

    /// Every counter, in the order of [`MetricRegistry::count`].
    pub fn counts(&self) -> Vec<Count> {
        let messages = 0..self.names.messages.len();
        let of_messages = messages.flat_map(|m| MessageCount::ALL.iter().map(move |count| Count::Message(m, *count)));
        let journeys = 0..self.names.journeys.len();
        let of_journeys = journeys.flat_map(|j| JourneyCount::ALL.iter().map(move |count| Count::Journey(j, *count)));
        let errors = ErrorKind::ALL.iter().map(|kind| Count::Error(*kind));
        of_messages
            .chain(of_journeys)
            .chain(errors)
            .chain(RunCount::ALL.iter().map(|count| Count::Run(*count)))
            .chain([Count::Undocumented])
            .collect()
    }

    /// Where a histogram stands.
    pub fn timing(&self, timing: Timing) -> usize {
        let messages = self.names.messages.len() * MessageTime::ALL.len();
        match timing {
            Timing::Message(message, time) => message * MessageTime::ALL.len() + time as usize,
            Timing::Journey(journey) => messages + journey,
            Timing::Run(time) => messages + self.names.journeys.len() + time as usize,
        }
    }

    /// Where a counter stands.
    pub fn count(&self, count: Count) -> usize {
        let messages = self.names.messages.len() * MessageCount::ALL.len();
        let journeys = messages + self.names.journeys.len() * JourneyCount::ALL.len();
        match count {
            Count::Message(message, count) => message * MessageCount::ALL.len() + count as usize,
            Count::Journey(journey, count) => messages + journey * JourneyCount::ALL.len() + count as usize,
            Count::Error(kind) => journeys + kind as usize,
            Count::Run(count) => journeys + ErrorKind::ALL.len() + count as usize,
            Count::Undocumented => journeys + ErrorKind::ALL.len() + RunCount::ALL.len(),
        }
    }

    /// `submit_job.response`, `jobs.duration`, `schedule.lag`.
    pub fn timing_name(&self, timing: Timing) -> String {
        match timing {
            Timing::Message(message, time) => format!("{}.{}", self.names.messages[message], time.name()),
            Timing::Journey(journey) => format!("{}.duration", self.names.journeys[journey]),
            Timing::Run(time) => format!("schedule.{}", time.name()),
        }
    }

    /// `submit_job.sent`, `jobs.completed`, `errors.timeout`, `schedule.missed`.
    pub fn count_name(&self, count: Count) -> String {
        match count {
            Count::Message(message, count) => format!("{}.{}", self.names.messages[message], count.name()),
            Count::Journey(journey, count) => format!("{}.{}", self.names.journeys[journey], count.name()),
            Count::Error(kind) => format!("errors.{}", kind.name()),
            Count::Run(count) => format!("schedule.{}", count.name()),
            Count::Undocumented => "frames.undocumented".to_owned(),
        }
    }
}
