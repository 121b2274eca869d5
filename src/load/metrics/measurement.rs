//! What the clients of a load run measure.

use super::registry::{JourneyCount, LoadErrorKind, MessageCount};
use crate::load::Nanos;
use crate::load::ids::{JourneyId, MessageId, OperationId};

/// One thing that a client measures: counts, or an event with its times. The time at which it happened is passed
/// beside it. Metrics that are only counted need no variant of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measurement {
    /// A number of messages that have this count in common.
    Messages(MessageId, MessageCount, u64),
    /// A number of journeys that have this count in common.
    Journeys(JourneyId, JourneyCount, u64),
    /// A message that was handed to the socket. `ready` is when its client could send it.
    Sent {
        message: MessageId,
        due: Nanos,
        ready: Nanos,
    },
    /// A received frame; `message` is `None` if it matches no message of the protocol, or none that the plan uses.
    Received {
        message: Option<MessageId>,
        bytes: usize,
    },
    /// The answer to a message sent as `message`. `delay` is the generator's own: from when the client could send the
    /// message to when it did.
    Answered {
        message: MessageId,
        due: Nanos,
        delay: Nanos,
    },
    /// A message of an operation that was sent.
    OperationSent(OperationId),
    /// The answer to a message of an operation.
    OperationAnswered {
        operation: OperationId,
        due: Nanos,
        delay: Nanos,
    },
    /// The delivery of a message that another client published at `due`.
    Delivered {
        message: MessageId,
        due: Nanos,
    },
    /// A completed journey; `due` is the due time of its first message.
    JourneyCompleted {
        journey: JourneyId,
        due: Nanos,
    },
    /// A journey that ended early in a way that its plan allows; no metric counts it.
    JourneyEndedEarly(JourneyId),
    Error(LoadErrorKind),
    /// A frame that matches no message of the pack.
    Undocumented,
}
