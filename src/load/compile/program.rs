//! A plan prepared: flat programs, one list of operations per thing a client does, that need no look-ups by name, no
//! parsing and no allocation while they run. [`crate::load::compile`] makes them of a plan and its script, once per target.

use serde_json::Value;
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

/// A plan, ready to be run.
#[derive(Debug)]
pub struct Prepared {
    /// Names of all messages of the protocol, in its order.
    pub messages: Vec<String>,
    pub journeys: Vec<String>,
    pub hooks: Vec<String>,
    /// In the order of the plan's roles.
    pub roles: Vec<Role>,
    /// What is worked out while the run goes on.
    pub remarks: Vec<Remark>,
}

/// What is to be known of how a plan was prepared: an expression that is worked out while the run goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    pub span: Span,
    pub text: String,
}

/// What all clients of a run have in common.
#[derive(Debug)]
pub struct Common {
    pub recogniser: Classifier,
    pub run: Run,
    pub keys: Keys,
    pub seed: u64,
}

/// What every client of a role is and does; shared by all of them.
#[derive(Debug)]
pub struct Role {
    pub name: String,
    /// The number of its first client among all clients of the run.
    pub first: u32,
    pub population: u32,
    pub common: Arc<Common>,
    /// How many texts a client has of its own, and those that it has from the beginning, in the order in which they are made.
    pub own: usize,
    pub identity: Vec<(u16, Fill)>,
    pub programs: Vec<Program>,
    pub opening: usize,
    pub journey: Option<usize>,
    /// Journeys come by schedule.
    pub arrivals: bool,
    pub at_a_time: usize,
    pub pace: Pace,
    pub times: Option<u32>,
    pub drains: bool,
    pub reconnect: Reconnect,
    pub periodic: Vec<Periodic>,
    /// What is looked for in a frame, by the message it is.
    pub lookups: Vec<Lookup>,
    /// Who its clients are in the ledger, where the protocol names them.
    pub party: Option<Source>,
}

#[derive(Debug)]
pub struct Periodic {
    pub program: usize,
    pub every: Nanos,
    pub jitter: f64,
    /// What is counted as missed.
    pub message: MessageId,
}

/// Something a client does: its opening, a journey, a heartbeat, a reaction.
#[derive(Debug, Default)]
pub struct Program {
    pub ops: Vec<Op>,
    /// How many texts it has, and those that are made before it is due.
    pub texts: usize,
    pub ahead: Vec<(u16, Fill)>,
    /// How many of its messages wait for answers that are timed.
    pub times: usize,
    pub journey: Option<JourneyId>,
    /// Where the steps begin with which it goes on after another connection was made.
    pub resumes: Option<usize>,
    /// The key of the item it is about.
    pub item: Option<Source>,
}

/// How a text is made ahead of time.
#[derive(Debug)]
pub enum Fill {
    Template(Template),
    Computed(Arc<Computed>),
    Column { feeder: Arc<Rows>, column: usize },
}

/// The rows of a feeder, as JSON texts.
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
    /// Works out a text that needs what has just come.
    Work {
        text: u16,
        fill: Fill,
    },
    Think(Think),
    /// Goes on at `otherwise` for all but this share.
    Chance {
        share: f64,
        otherwise: usize,
    },
    Jump(usize),
    /// A journey that has been resumed waits again where it waited.
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
    /// Where its times are kept, if an answer is waited for.
    pub times: Option<usize>,
    /// What later steps need of the message itself.
    pub captures: Option<Captures>,
    pub marking: Option<Marking>,
}

/// Members of a text, and the slots they go to.
#[derive(Debug, Default)]
pub struct Captures {
    pub paths: Paths,
    pub slots: Vec<(usize, Slot)>,
}

/// Where a captured text is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    Text(u16),
    Own(u16),
}

#[derive(Debug)]
pub struct Expect {
    /// `None` for any.
    pub message: Option<MessageId>,
    pub within: Nanos,
    /// What it answers: the message, and where its times are kept.
    pub answers: Option<(MessageId, usize)>,
    pub may_stay_unanswered: bool,
    /// Documented answers that mean that the one waited for will not come.
    pub refusals: Vec<MessageId>,
    /// Its bit among steps that may be over before it is their turn, because it is known which frame they wait for.
    pub early: Option<u8>,
    pub measured: Measured,
}

/// What a frame that was waited for is for measurement and ledger.
#[derive(Debug, Default)]
pub struct Measured {
    pub marking: Option<Marking>,
    /// The message of ours that another client sent, and where it says when.
    pub delivers: Option<(MessageId, Source)>,
}

#[derive(Debug)]
pub struct Marking {
    pub mark: MarkName,
    pub item: Option<Source>,
    pub by: Option<Source>,
    /// Of what is released: how long the hub may keep it, in milliseconds.
    pub back_ms: u32,
    /// Of what is published.
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
    /// JSON: `{ "args": {...}, "message": {...} }`.
    pub template: Template,
    pub captures: Captures,
    pub within: Nanos,
    pub marking: Option<Marking>,
}

/// What is looked for in frames that are one message.
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
    /// Members that are equal to a text.
    pub equal: Vec<(usize, Source)>,
    pub captures: Vec<(usize, Slot)>,
    pub stray: Option<Stray>,
}

/// What is noted of such a frame where nobody waits for it: it names its item, so it came twice, late, or to the wrong
/// client, and the ledger can tell which.
#[derive(Debug)]
pub struct Stray {
    pub mark: MarkName,
    /// The member that is the key of the item, and the one that says whom it is about.
    pub item: usize,
    pub by: Option<usize>,
}

#[derive(Debug)]
pub struct Reaction {
    pub program: usize,
    pub measured: Arc<Measured>,
    pub tests: Vec<(usize, Test)>,
    /// Members that are equal to a text.
    pub equal: Vec<(usize, Source)>,
    pub captures: Vec<(usize, Slot)>,
}

/// How a client connects; whatever is not named here is as the target says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dial {
    pub path: Option<String>,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub subprotocols: Vec<String>,
    pub from: Option<String>,
}

impl Dial {
    /// From JSON with the members of a dial; what is null is not there. `None` where it is something else.
    pub fn from_json(text: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(text).ok()?;
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let one = |name: &str| value.get(name).filter(|value| !value.is_null()).map(text);
        let pairs = |name: &str| {
            let members = value.get(name).and_then(Value::as_object).into_iter().flatten();
            members.filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.clone(), text(value))).collect()
        };
        let subprotocols =
            value.get("subprotocols").and_then(Value::as_array).into_iter().flatten().map(text).collect();
        Some(Self {
            path: one("path"),
            query: pairs("query"),
            headers: pairs("headers"),
            subprotocols,
            from: one("from"),
        })
    }
}
