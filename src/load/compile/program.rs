//! A compiled plan: flat programs, one list of operations per activity of a client, that run without look-ups by name,
//! parsing or allocation. [`crate::load::compile`] makes them from a plan and its script, once per target.

use std::sync::Arc;

use super::classifier::{Classifier, Test};
use super::json_scan::Paths;
use super::message_template::{Computed, Run, Source, Template};
use crate::load::Nanos;
use crate::load::ids::{HookId, JourneyId, MessageId};
use crate::load::ledger::Keys;
use crate::load::plan::script::{Pace, Think};
use crate::load::plan::{MarkName, Reconnect};
use crate::syntax::source::Span;
use crate::websocket::handshake::Dial;

/// A compiled plan.
#[derive(Debug)]
pub struct Prepared {
    /// Names of all messages of the protocol, in its order.
    pub messages: Vec<String>,
    pub journeys: Vec<String>,
    pub hooks: Vec<String>,
    /// The roles, in the order of the plan.
    pub roles: Vec<Role>,
    /// Expressions that are evaluated during the run.
    pub remarks: Vec<Remark>,
}

/// A remark on an expression that is evaluated during the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    pub span: Span,
    pub text: String,
}

/// Data shared by all clients of a run.
#[derive(Debug)]
pub struct Common {
    pub classifier: Classifier,
    pub run: Run,
    pub keys: Keys,
    pub seed: u64,
}

/// Data shared by all clients of a role.
#[derive(Debug)]
pub struct Role {
    pub name: String,
    /// The number of the role's first client among all clients of the run.
    pub first: u32,
    pub population: u32,
    pub common: Arc<Common>,
    /// The number of texts per client; the texts of its identity come first, in the order of evaluation.
    pub own: usize,
    pub identity: Vec<(u16, Fill)>,
    pub programs: Vec<Program>,
    pub opening: usize,
    pub journey: Option<usize>,
    /// Whether journeys are scheduled.
    pub arrivals: bool,
    pub at_a_time: usize,
    pub pace: Pace,
    pub times: Option<u32>,
    pub drains: bool,
    pub reconnect: Reconnect,
    pub periodic: Vec<Periodic>,
    /// The members to look up in a frame, by its message.
    pub lookups: Vec<Lookup>,
    /// The source of a client's party id, where the protocol has one.
    pub party: Option<Source>,
}

#[derive(Debug)]
pub struct Periodic {
    pub program: usize,
    pub every: Nanos,
    pub jitter: f64,
    /// The message that is counted as missed.
    pub message: MessageId,
}

/// An activity of a client: its opening, a journey, a heartbeat, a reaction.
#[derive(Debug, Default)]
pub struct Program {
    pub ops: Vec<Op>,
    /// The number of the program's texts; those computed in advance come first.
    pub texts: usize,
    pub ahead: Vec<(u16, Fill)>,
    /// The number of the program's messages whose answers are timed.
    pub times: usize,
    pub journey: Option<JourneyId>,
    /// The operation at which the program continues after a reconnect.
    pub resumes: Option<usize>,
    /// The source of the key of the program's item.
    pub item: Option<Source>,
}

/// How a text is computed in advance.
#[derive(Debug)]
pub enum Fill {
    Template(Template),
    Computed(Arc<Computed>),
    Column { feeder: Arc<Rows>, column: usize },
}

/// The rows of a feeder as JSON texts.
#[derive(Debug)]
pub struct Rows {
    pub rows: Vec<Box<[Box<[u8]>]>>,
    pub random: bool,
}

#[derive(Debug)]
pub enum Op {
    Connect(Box<Connect>),
    Send(Box<Send>),
    Expect(Box<Expect>),
    /// Evaluates an expression over received values.
    Evaluate {
        text: u16,
        fill: Fill,
    },
    Think(Think),
    /// Continues with the next operation for this share of the journeys, and jumps to `otherwise` for the rest.
    Chance {
        share: f64,
        otherwise: usize,
    },
    Jump(usize),
    /// Returns a resumed journey to the operation where it waited.
    Back,
    Hook(Box<Hook>),
    Close(u16),
}

#[derive(Debug)]
pub enum Connect {
    Ready(Dial),
    /// JSON with the members of a [`Dial`].
    Filled(Template),
}

#[derive(Debug)]
pub struct Send {
    pub message: MessageId,
    pub template: Template,
    /// The index of the message's times, if an answer is timed.
    pub times: Option<usize>,
    /// Members of the sent message that later steps use.
    pub captures: Option<Captures>,
    pub marking: Option<Marking>,
}

/// Members of a text, and the slots they go to.
#[derive(Debug, Default)]
pub struct Captures {
    pub paths: Paths,
    pub slots: Vec<(usize, Slot)>,
}

/// The slot of a captured text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    Text(u16),
    Own(u16),
}

#[derive(Debug)]
pub struct Expect {
    /// The location of the step in its file.
    pub span: Span,
    /// The expected message; `None` for any.
    pub message: Option<MessageId>,
    pub within: Nanos,
    /// The request that the expected message answers, and the index of the request's times.
    pub answers: Option<(MessageId, usize)>,
    pub may_stay_unanswered: bool,
    /// Documented answers after which the expected one will not come.
    pub refusals: Vec<MessageId>,
    /// The step's bit in `Task::early`, if its frame is identified by a value and may come before the step.
    pub early: Option<u8>,
    pub measured: Measured,
}

/// The measurements and ledger marks that follow from a matched frame.
#[derive(Debug, Default)]
pub struct Measured {
    pub marking: Option<Marking>,
    /// The message of another client that the frame delivers, and the source of that message's due time.
    pub delivers: Option<(MessageId, Source)>,
}

#[derive(Debug)]
pub struct Marking {
    pub mark: MarkName,
    pub item: Option<Source>,
    pub by: Option<Source>,
    /// For released items: how long the hub may keep the item, in milliseconds.
    pub back_ms: u32,
    /// For published items: how many clients should receive them.
    pub receivers: Option<Receivers>,
}

#[derive(Debug)]
pub enum Receivers {
    Always(u32),
    Filled(Source),
}

#[derive(Debug)]
pub struct Hook {
    pub hook: HookId,
    /// The arguments of the call as JSON: `{ "args": {...}, "message": {...} }`.
    pub template: Template,
    pub captures: Captures,
    pub within: Nanos,
    pub marking: Option<Marking>,
}

/// The members to look up in frames of one message, and the steps that use them.
#[derive(Debug, Default)]
pub struct Lookup {
    pub paths: Paths,
    pub entries: Vec<Wanted>,
    pub reactions: Vec<Reaction>,
}

/// A step that waits for such a frame.
#[derive(Debug)]
pub struct Wanted {
    pub program: usize,
    pub op: usize,
    pub tests: Vec<(usize, Test)>,
    /// Members that must equal a text.
    pub equal: Vec<(usize, Source)>,
    pub captures: Vec<(usize, Slot)>,
    pub stray: Option<Stray>,
}

/// The mark of an expected frame when no task waits for it. Such a frame names its item, so the ledger can tell whether
/// the frame was repeated, came late, or went to a busy or wrong client.
#[derive(Debug)]
pub struct Stray {
    pub mark: MarkName,
    /// The indexes of the members that hold the key of the item and the party.
    pub item: usize,
    pub by: Option<usize>,
}

#[derive(Debug)]
pub struct Reaction {
    pub program: usize,
    pub measured: Arc<Measured>,
    pub tests: Vec<(usize, Test)>,
    /// Members that must equal a text.
    pub equal: Vec<(usize, Source)>,
    pub captures: Vec<(usize, Slot)>,
}
