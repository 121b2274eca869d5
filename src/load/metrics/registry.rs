//! The times and counts of a run, with their names and their places in arrays: names are resolved once, so that
//! recording needs no look-up.

use std::sync::Arc;

use super::histogram::CompactHistogram;
use super::interval::MetricInterval;
use super::operations::OperationTable;
use crate::syntax::explanation::Explanation;

/// The messages and journeys of a plan; an index into these lists identifies one everywhere else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricSubjects {
    pub messages: Vec<String>,
    pub journeys: Vec<String>,
    pub operations: OperationTable,
}

/// The times measured per message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageTime {
    /// From when the client could send to sent: the delay of the generator itself.
    SendDelay,
    /// From due to answered.
    Response,
    /// The response time without the send delay.
    Service,
    /// From published to received, per subscriber.
    Delivery,
}

/// The counts per message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageCount {
    Sent,
    Answered,
    /// Messages without an answer where the document allows that.
    Unanswered,
    /// Messages whose answer clients assumed, since the hub never sends it.
    AnswersAssumed,
    Received,
    /// Messages that the hub never sends, as a declared deviation says, and that clients assumed.
    Assumed,
    /// Payload bytes received.
    Bytes,
    Delivered,
    /// Deliveries that should have been made.
    Due,
    /// Messages received while no step was waiting for them, though the role has steps that take any such message.
    NotTaken,
    /// Messages that were due but never sent, because their client was busy or not connected.
    Missed,
    /// Messages whose answer was still due when the run ended.
    Pending,
}

/// The times measured per operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationTime {
    /// From due to answered.
    Response,
    /// The response time without the send delay.
    Service,
}

/// The counts per operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationCount {
    Sent,
    Answered,
}

/// The counts per journey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JourneyCount {
    Started,
    Completed,
    /// Journeys that ended early.
    Failed,
    /// Journeys whose end says nothing about the hub, since their client assumed a message.
    Assumed,
    /// Journeys of those started that began late, because their client was busy or not connected when they were due.
    Late,
    /// Journeys that were due but never began.
    Missed,
    /// Ticks that clients left out, as their plan says, because they were busy or not connected.
    Skipped,
    /// Journeys that were still running when the run ended.
    Unfinished,
}

/// The lateness of the generator itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeneratorTime {
    /// How late a timer fired.
    Lag,
    /// How long one turn of the event loop took.
    Stall,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeneratorCount {
    /// Times above the upper bound of the histograms, recorded as that bound.
    Clamped,
    /// Samples that were due outside the measured time and are not in any total.
    Outside,
}

/// The kinds of errors in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoadErrorKind {
    /// No connection could be opened.
    Connect,
    /// The upgrade was refused or malformed.
    Upgrade,
    Tls,
    /// A connection ended unexpectedly.
    Lost,
    /// A required answer did not come in time.
    Timeout,
    /// The hub answered with an error.
    Refused,
    /// The hub violated RFC 6455.
    Protocol,
    /// The hub sent a frame that is not a JSON object, or that lacks a value needed by a later step.
    Invalid,
    /// The generator had no file descriptors, ports or memory left.
    Resources,
    /// Any other fault of the generator.
    Internal,
}

/// A metric with a current value; the values of all shards add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge {
    /// Open connections.
    Connections,
    /// Bytes received and not processed yet.
    Unread,
    /// Bytes waiting to be written.
    Unwritten,
    /// Running journeys.
    Journeys,
    /// Resident memory of this process in bytes; one shard reports it.
    Memory,
}

/// The identifier of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimingId {
    Message(usize, MessageTime),
    /// From the due time of the first message to the journey's end.
    Journey(usize),
    Run(GeneratorTime),
    Operation(usize, OperationTime),
}

/// The identifier of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterId {
    Message(usize, MessageCount),
    Journey(usize, JourneyCount),
    Error(LoadErrorKind),
    Run(GeneratorCount),
    /// Objects that match no message of the pack. Not an error: a hub may send more than is documented.
    Undocumented,
    Operation(usize, OperationCount),
}

/// The names of a plan's metrics and their places in arrays; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricRegistry {
    pub names: Arc<MetricSubjects>,
}

macro_rules! listed {
    ($type:ident: $($variant:ident = $name:literal),+) => {
        impl $type {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the name in thresholds and reports.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

listed!(MessageTime: SendDelay = "send_delay", Response = "response", Service = "service", Delivery = "delivery");
listed!(MessageCount: Sent = "sent", Answered = "answered", Unanswered = "unanswered", AnswersAssumed = "answers_assumed", Received = "received", Assumed = "assumed", Bytes = "bytes", Delivered = "delivered", Due = "deliveries_due", NotTaken = "not_taken", Missed = "missed", Pending = "pending");
listed!(JourneyCount: Started = "started", Completed = "completed", Failed = "failed", Assumed = "assumed", Late = "late", Missed = "missed", Skipped = "skipped", Unfinished = "unfinished");
listed!(OperationTime: Response = "response", Service = "service");
listed!(OperationCount: Sent = "sent", Answered = "answered");
listed!(GeneratorTime: Lag = "lag", Stall = "stall");
listed!(GeneratorCount: Clamped = "clamped", Outside = "outside");
listed!(LoadErrorKind: Connect = "connect", Upgrade = "upgrade", Tls = "tls", Lost = "lost", Timeout = "timeout", Refused = "refused", Protocol = "protocol", Invalid = "invalid", Resources = "resources", Internal = "internal");
listed!(Gauge: Connections = "connections", Unread = "unread", Unwritten = "unwritten", Journeys = "journeys", Memory = "memory");

impl LoadErrorKind {
    pub fn explanation(self) -> Explanation {
        const OWN: &str =
            "The hub's log shows its side; `--find-max` finds the highest rate at which a threshold holds.";
        let (means, usually, next) = match self {
            Self::Connect => (
                "A client could not open a TCP connection.",
                "The hub's queue of connections to accept is full, or it has no file descriptors left.",
                "Lengthen `ramp`, or raise the hub's limits.",
            ),
            Self::Upgrade => (
                "The hub refused the WebSocket upgrade, or answered it with something that is not an upgrade.",
                "A limit of connections, a wrong path, or a proxy in between.",
                OWN,
            ),
            Self::Tls => (
                "The TLS handshake failed.",
                "An untrusted certificate, or too many handshakes at a time.",
                "Trust the certificate with `--ca FILE`, or lengthen `ramp`.",
            ),
            Self::Lost => ("A connection ended unexpectedly.", "The hub closes slow clients, or crashed.", OWN),
            Self::Timeout => {
                ("A required answer did not come in time.", "The hub is overloaded, or lost the request.", OWN)
            }
            Self::Refused => ("The hub answered with an error.", "A rate limit, or a queue that is full.", OWN),
            Self::Protocol => (
                "The hub violated RFC 6455.",
                "",
                "Check the hub against the RFC: hubproof check URL --protocol websocket",
            ),
            Self::Invalid => (
                "The hub sent a frame that is not a JSON object, or that lacks a value needed by a later step.",
                "A message that is cut off or mixed with another message under load.",
                "Validate all messages: `--validate all`.",
            ),
            Self::Resources => (
                "The machine of the load generator ran out of file descriptors, ports or memory. This is not the hub's fault.",
                "Limits that are too low for the number of clients.",
                "See what this machine can do: hubproof doctor",
            ),
            Self::Internal => ("An internal error of the load generator.", "", "Please report it."),
        };
        Explanation::new(self.name(), means).usually(usually).next(next)
    }

    /// Whether the generator failed, not the hub.
    pub fn is_generator_error(self) -> bool {
        matches!(self, Self::Resources | Self::Internal)
    }
}

impl MetricRegistry {
    pub fn new(names: MetricSubjects) -> Self {
        Self { names: Arc::new(names) }
    }

    /// Returns every histogram, in the order of [`MetricRegistry::timing`].
    pub fn timings(&self) -> Vec<TimingId> {
        let messages = 0..self.names.messages.len();
        let of_messages = messages.flat_map(|m| MessageTime::ALL.iter().map(move |time| TimingId::Message(m, *time)));
        let of_journeys = (0..self.names.journeys.len()).map(TimingId::Journey);
        let of_run = GeneratorTime::ALL.iter().map(|time| TimingId::Run(*time));
        let operations = 0..self.names.operations.capacity();
        let of_operations =
            operations.flat_map(|one| OperationTime::ALL.iter().map(move |time| TimingId::Operation(one, *time)));
        of_messages.chain(of_journeys).chain(of_run).chain(of_operations).collect()
    }

    /// Returns every counter, in the order of [`MetricRegistry::count`].
    pub fn counts(&self) -> Vec<CounterId> {
        let messages = 0..self.names.messages.len();
        let of_messages =
            messages.flat_map(|m| MessageCount::ALL.iter().map(move |count| CounterId::Message(m, *count)));
        let journeys = 0..self.names.journeys.len();
        let of_journeys =
            journeys.flat_map(|j| JourneyCount::ALL.iter().map(move |count| CounterId::Journey(j, *count)));
        let operations = 0..self.names.operations.capacity();
        let of_operations =
            operations.flat_map(|one| OperationCount::ALL.iter().map(move |count| CounterId::Operation(one, *count)));
        let errors = LoadErrorKind::ALL.iter().map(|kind| CounterId::Error(*kind));
        of_messages
            .chain(of_journeys)
            .chain(errors)
            .chain(GeneratorCount::ALL.iter().map(|count| CounterId::Run(*count)))
            .chain([CounterId::Undocumented])
            .chain(of_operations)
            .collect()
    }

    /// Returns the index of a histogram.
    pub fn timing(&self, timing: TimingId) -> usize {
        let messages = self.names.messages.len() * MessageTime::ALL.len();
        match timing {
            TimingId::Message(message, time) => message * MessageTime::ALL.len() + time as usize,
            TimingId::Journey(journey) => messages + journey,
            TimingId::Run(time) => messages + self.names.journeys.len() + time as usize,
            TimingId::Operation(operation, time) => {
                let run = messages + self.names.journeys.len() + GeneratorTime::ALL.len();
                run + operation * OperationTime::ALL.len() + time as usize
            }
        }
    }

    /// Returns the index of a counter.
    pub fn count(&self, count: CounterId) -> usize {
        let messages = self.names.messages.len() * MessageCount::ALL.len();
        let journeys = messages + self.names.journeys.len() * JourneyCount::ALL.len();
        match count {
            CounterId::Message(message, count) => message * MessageCount::ALL.len() + count as usize,
            CounterId::Journey(journey, count) => messages + journey * JourneyCount::ALL.len() + count as usize,
            CounterId::Error(kind) => journeys + kind as usize,
            CounterId::Run(count) => journeys + LoadErrorKind::ALL.len() + count as usize,
            CounterId::Undocumented => journeys + LoadErrorKind::ALL.len() + GeneratorCount::ALL.len(),
            CounterId::Operation(operation, count) => {
                let undocumented = journeys + LoadErrorKind::ALL.len() + GeneratorCount::ALL.len();
                undocumented + 1 + operation * OperationCount::ALL.len() + count as usize
            }
        }
    }

    /// Moves the operations of an interval, which was measured with another table of operations, to their places in this
    /// one.
    pub fn move_operations(&self, mut interval: MetricInterval, places: &[usize]) -> MetricInterval {
        let (timings, counts) = (interval.timings.clone(), interval.counts.clone());
        let all = 0..self.names.operations.capacity();
        for time in OperationTime::ALL {
            let at = |operation: usize| self.timing(TimingId::Operation(operation, *time));
            all.clone().for_each(|operation| interval.timings[at(operation)] = CompactHistogram::default());
            for (from, to) in places.iter().enumerate() {
                interval.timings[at(*to)] = interval.timings[at(*to)].merged(&timings[at(from)]);
            }
        }
        for count in OperationCount::ALL {
            let at = |operation: usize| self.count(CounterId::Operation(operation, *count));
            all.clone().for_each(|operation| interval.counts[at(operation)] = 0);
            for (from, to) in places.iter().enumerate() {
                interval.counts[at(*to)] += counts[at(from)];
            }
        }
        interval
    }

    /// Returns the name of a histogram, such as `submit_job.response`, `jobs.duration`, `schedule.lag`.
    pub fn timing_name(&self, timing: TimingId) -> String {
        match timing {
            TimingId::Message(message, time) => format!("{}.{}", self.names.messages[message], time.name()),
            TimingId::Journey(journey) => format!("{}.duration", self.names.journeys[journey]),
            TimingId::Run(time) => format!("schedule.{}", time.name()),
            TimingId::Operation(operation, time) => format!("{}.{}", self.operation_name(operation), time.name()),
        }
    }

    /// Returns the name of a counter, such as `submit_job.sent`, `jobs.completed`, `errors.timeout`, `schedule.clamped`.
    pub fn count_name(&self, count: CounterId) -> String {
        match count {
            CounterId::Message(message, count) => format!("{}.{}", self.names.messages[message], count.name()),
            CounterId::Journey(journey, count) => format!("{}.{}", self.names.journeys[journey], count.name()),
            CounterId::Error(kind) => format!("errors.{}", kind.name()),
            CounterId::Run(count) => format!("schedule.{}", count.name()),
            CounterId::Undocumented => "frames.undocumented".to_owned(),
            CounterId::Operation(operation, count) => format!("{}.{}", self.operation_name(operation), count.name()),
        }
    }

    /// Returns the name of an operation, such as `call[add]`.
    pub fn operation_name(&self, operation: usize) -> String {
        let (message, label) = self.names.operations.get(operation).unwrap_or_default();
        format!("{}[{label}]", self.names.messages[message])
    }
}
