//! The seam between a virtual client and its surroundings: what happens to it, and what it may do.
//!
//! A shell with sockets implements [`ClientIo`] for load; a virtual queue implements it for tests. The port is generic in the
//! client's code, so a call is a direct call and nothing is allocated to make it.

use crate::load::Nanos;
use crate::load::compile::program::Dial;
use crate::load::ids::{HookId, JourneyId, MessageId};
use crate::load::ledger::{Called, Entry};

/// What happens to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// Its turn to connect has come, by the ramp of its population.
    Start,
    /// The upgrade that it asked for by [`ClientIo::open`] succeeded.
    Opened,
    /// A whole text or binary message, as it was on the wire.
    Text(&'a [u8]),
    /// The connection is gone, or never came about.
    Closed(End),
    /// The time that it named by [`ClientIo::wake`] has come.
    Wake,
    /// A journey begins that was due at this time, which may be earlier than now. Only for a client that
    /// [has room](super::Client::has_room); on any other it is counted as [`ClientFault::NoFreeClient`].
    Arrival { due: Nanos },
    /// A hook that it called has answered, with JSON; `None` where it failed.
    Answer(Option<&'a [u8]>),
    /// The measured time is over: nothing new is begun, what is under way goes on.
    Drain,
    /// The run is over: the connection is closed in good order.
    Finish,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// The hub answered the upgrade, and did not agree to it.
    Refused(u16),
    /// No connection came about at all: refused by the kernel, no free port, TLS, timed out.
    Unreachable,
    /// A close frame with this code.
    Close(u16),
    /// Without a close frame.
    Dropped,
}

/// What went wrong for a client, counted by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientFault {
    /// The answer to this message did not come in time.
    Timeout(MessageId),
    /// This message was waited for in time and did not come, and is no answer to anything.
    Missing(MessageId),
    /// This came instead of what was waited for: a documented answer, but not the one of the plan.
    Refused(MessageId),
    /// A connection that was not meant to end.
    Ended(End),
    /// A frame that is no JSON object, and no message of the pack.
    NoObject,
    /// An object of no kind that the pack has, as a hub may send beside what it must.
    Undocumented,
    /// What came has no member that a later step needs.
    Unusable(MessageId),
    /// A hook failed.
    Hook,
    /// A text that a step needs could not be worked out.
    Internal,
    /// A journey was due, and no client was free to begin it.
    NoFreeClient,
    /// A journey was under way when the connection ended, or when the run did.
    Aborted,
}

/// What a client may do.
pub trait ClientIo {
    /// Opens its connection. Answered by [`Input::Opened`] or [`Input::Closed`].
    fn open(&mut self, dial: &Dial);

    /// Closes its connection in good order. Answered by [`Input::Closed`].
    fn close(&mut self, code: u16);

    /// Sends a text message that was due at this time. `write` appends its payload to the buffer of the connection and
    /// nothing else; it is called once. Gives the time at which it was sent.
    fn send(&mut self, message: MessageId, due: Nanos, write: impl FnOnce(&mut Vec<u8>)) -> Nanos;

    /// Calls for [`Input::Wake`] at this time, or as soon as it has passed. A later call replaces the time;
    /// [`Nanos::MAX`] wants none.
    fn wake(&mut self, at: Nanos);

    /// Makes something happen outside the socket; `write` appends JSON: `args`, and `message` where one goes along.
    /// Answered by [`Input::Answer`], calls of one client in their order.
    fn hook(&mut self, hook: HookId, write: impl FnOnce(&mut Vec<u8>));

    /// The opening went through, for the first time or again.
    fn joined(&mut self);

    /// There is room for another journey.
    fn room(&mut self);

    /// A frame came that is this message; `None` where it is none of the protocol, or none that the plan knows.
    fn received(&mut self, message: Option<MessageId>, at: Nanos, bytes: usize);

    /// What was sent as this message got its answer.
    fn answered(&mut self, message: MessageId, due: Nanos, sent: Nanos, at: Nanos);

    /// What was sent as this message got no answer in time, which the document allows.
    fn unanswered(&mut self, message: MessageId, at: Nanos);

    /// A message of ours that was published at this time, by the clock of the run, was delivered to this client.
    fn delivered(&mut self, message: MessageId, due: Nanos, at: Nanos);

    /// A message of ours went out to so many.
    fn published(&mut self, message: MessageId, receivers: u32, at: Nanos);

    /// A journey began.
    fn begun(&mut self, journey: JourneyId, at: Nanos);

    /// A journey came to nothing, and that is all right: what it asked for may stay unanswered.
    fn idle(&mut self, journey: JourneyId, at: Nanos);

    /// A journey came to nothing.
    fn failed(&mut self, journey: JourneyId, at: Nanos);

    /// A journey came to its end.
    fn journey(&mut self, journey: JourneyId, due: Nanos, at: Nanos);

    /// Something periodic was due this many times while it could not be done.
    fn missed(&mut self, message: MessageId, times: u64, at: Nanos);

    fn trouble(&mut self, trouble: ClientFault, at: Nanos);

    fn note(&mut self, entry: Entry);

    /// What people call an item or a party that entries are about; told before or with them, perhaps several times.
    fn call(&mut self, called: Called, name: &[u8]);
}
