//! A compiled plan: flat programs, one list of operations per activity of a client, that run without look-ups by name,
//! parsing or allocation. [`crate::load::compile`] makes them from a plan and its script, once per target.

use std::sync::Arc;

use super::classifier::{FrameClassifier, RawMemberTests};
use super::json_scan::MemberPaths;
use super::message_template::{MessageTemplate, RunConstants, RuntimeExpression, SlotSource, SlotTexts};
use crate::load::Nanos;
use crate::load::ids::{HookId, JourneyId, MessageId, OperationId};
use crate::load::ledger::IdHasher;
use crate::load::metrics::OperationTable;
use crate::load::plan::script::{JourneyPace, ThinkTime};
use crate::load::plan::{MarkName, ReconnectPolicy};
use crate::load::provenance::Provenance;
use crate::syntax::source::Span;
use crate::websocket::dial::Dial;

/// A compiled plan.
#[derive(Debug)]
pub struct CompiledPlan {
    /// Names of all messages of the protocol, in its order.
    pub messages: Vec<String>,
    pub journeys: Vec<String>,
    pub hooks: Vec<String>,
    pub operations: OperationTable,
    /// The roles, in the order of the plan.
    pub roles: Vec<CompiledRole>,
    /// Expressions that are evaluated during the run.
    pub remarks: Vec<ExpressionRemark>,
}

/// A remark on an expression that is evaluated during the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionRemark {
    pub span: Span,
    pub text: String,
}

/// Data shared by all clients of a run.
#[derive(Debug)]
pub struct RunContext {
    pub classifier: FrameClassifier,
    pub operations: OperationTable,
    pub run: RunConstants,
    pub keys: IdHasher,
    pub seed: u64,
}

/// Data shared by all clients of a role.
#[derive(Debug)]
pub struct CompiledRole {
    pub name: String,
    /// The number of the role's first client among all clients of the run.
    pub first: u32,
    pub population: u32,
    pub common: Arc<RunContext>,
    /// The number of texts per client; the texts of its identity come first, in the order of evaluation.
    pub own: usize,
    pub identity: Vec<(u16, SlotFill)>,
    pub programs: Vec<ClientProgram>,
    pub opening: usize,
    pub journey: Option<usize>,
    /// Whether journeys are scheduled.
    pub arrivals: bool,
    pub at_a_time: usize,
    pub pace: JourneyPace,
    pub times: Option<u32>,
    pub drains: bool,
    pub reconnect: ReconnectPolicy,
    /// The declared deviations that the upgrade requests of the role follow, by index.
    pub upgrade_deviations: Vec<usize>,
    pub periodic: Vec<CompiledPeriodic>,
    /// The members to look up in a frame, by its message.
    pub lookups: Vec<MessageLookup>,
    /// Whether steps or reactions of the role mark messages as delivered.
    pub receives: bool,
    /// The source of a client's party id, where the protocol has one.
    pub party: Option<SlotSource>,
}

#[derive(Debug)]
pub struct CompiledPeriodic {
    pub program: usize,
    pub every: Nanos,
    pub jitter: f64,
    /// The message that is counted as missed.
    pub message: MessageId,
}

impl ClientProgram {
    /// Returns the messages that the program sends, each as often as it sends it.
    pub fn sent_messages(&self) -> impl Iterator<Item = MessageId> {
        self.ops.iter().filter_map(|op| match op {
            ProgramOperation::Send(send) => Some(send.message),
            _ => None,
        })
    }
}

/// An activity of a client: its opening, a journey, a heartbeat, a reaction.
#[derive(Debug, Default)]
pub struct ClientProgram {
    pub ops: Vec<ProgramOperation>,
    /// The number of the program's texts; those computed in advance come first.
    pub texts: usize,
    pub ahead: Vec<(u16, SlotFill)>,
    /// The number of the program's messages whose answers are timed.
    pub times: usize,
    pub journey: Option<JourneyId>,
    /// The operation at which the program continues after a reconnect.
    pub resumes: Option<usize>,
    /// The source of the key of the program's item.
    pub item: Option<SlotSource>,
}

/// How a text is computed in advance.
#[derive(Debug)]
pub enum SlotFill {
    Template(MessageTemplate),
    Computed(Arc<RuntimeExpression>),
    Column { feeder: Arc<FeederRows>, column: usize },
}

impl CompiledRole {
    /// Returns the feeders from which clients of the role take rows.
    pub fn feeders(&self) -> Vec<&Arc<FeederRows>> {
        let ahead = self.programs.iter().flat_map(|program| &program.ahead);
        let mut found: Vec<&Arc<FeederRows>> = Vec::new();
        for (_, fill) in ahead.chain(&self.identity) {
            if let SlotFill::Column { feeder, .. } = fill
                && !found.iter().any(|known| Arc::ptr_eq(known, feeder))
            {
                found.push(feeder);
            }
        }
        found
    }
}

impl SlotFill {
    /// Returns the joint source of the texts from which the text is made.
    pub fn source(&self, own: &SlotTexts, texts: &SlotTexts) -> Provenance {
        match self {
            Self::Template(template) => template.source(own, texts),
            Self::Computed(computed) => computed.source(own, texts),
            Self::Column { .. } => Provenance::Observed,
        }
    }
}

/// The rows of a feeder as JSON texts.
#[derive(Debug)]
pub struct FeederRows {
    pub name: String,
    pub rows: Vec<Box<[Box<[u8]>]>>,
    pub random: bool,
}

#[derive(Debug)]
pub enum ProgramOperation {
    Connect(Box<ConnectOperation>),
    Send(Box<SendOperation>),
    Expect(Box<ExpectOperation>),
    /// Evaluates an expression over received values.
    Evaluate {
        text: u16,
        fill: SlotFill,
    },
    Think(ThinkTime),
    /// Continues with the next operation for this share of the journeys, and jumps to `otherwise` for the rest.
    Chance {
        share: f64,
        otherwise: usize,
    },
    Jump(usize),
    /// Returns a resumed journey to the operation where it waited.
    Back,
    Hook(Box<HookOperation>),
    Close(u16),
}

#[derive(Debug)]
pub enum ConnectOperation {
    Ready(Dial),
    /// JSON with the members of a [`Dial`].
    Filled(MessageTemplate),
}

#[derive(Debug)]
pub struct SendOperation {
    pub message: MessageId,
    pub template: MessageTemplate,
    /// The index of the message's times, if an answer is timed.
    pub times: Option<usize>,
    /// Members of the sent message that later steps use.
    pub captures: Option<MemberCaptures>,
    pub marking: Option<LedgerMarking>,
    pub label: Option<OperationLabel>,
}

/// The operation that a sent message stands for.
#[derive(Debug)]
pub enum OperationLabel {
    Fixed(OperationId),
    /// The label as JSON.
    Filled(MessageTemplate),
}

/// Members of a text, and the slots they go to.
#[derive(Debug, Default)]
pub struct MemberCaptures {
    pub paths: MemberPaths,
    pub slots: Vec<(usize, CaptureSlot)>,
}

/// The slot of a captured text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureSlot {
    Text(u16),
    Own(u16),
}

impl CaptureSlot {
    /// Returns the slot that a source reads; `None` if the source is not a slot.
    pub fn of(source: &SlotSource) -> Option<Self> {
        match source {
            SlotSource::Text(slot) => Some(Self::Text(*slot)),
            SlotSource::Own(slot) => Some(Self::Own(*slot)),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub struct ExpectOperation {
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
    /// The step's bit in `ClientTask::early`, if its frame is identified by a value and may come before the step.
    pub early: Option<u8>,
    pub measured: FrameMeasurement,
}

/// The measurements and ledger marks that follow from a matched frame.
#[derive(Debug, Default)]
pub struct FrameMeasurement {
    pub marking: Option<LedgerMarking>,
    /// The message of another client that the frame delivers, and the source of that message's due time.
    pub delivers: Option<(MessageId, SlotSource)>,
}

#[derive(Debug)]
pub struct LedgerMarking {
    pub mark: MarkName,
    pub item: Option<SlotSource>,
    pub by: Option<SlotSource>,
    /// For released items: how long the hub may keep the item, in milliseconds.
    pub back_ms: u32,
    /// For published items: how many clients should receive them.
    pub receivers: Option<ReceiverCount>,
}

#[derive(Debug)]
pub enum ReceiverCount {
    Always(u32),
    Filled(SlotSource),
}

#[derive(Debug)]
pub struct HookOperation {
    pub hook: HookId,
    /// The arguments of the call as JSON: `{ "args": {...}, "message": {...} }`.
    pub template: MessageTemplate,
    pub captures: MemberCaptures,
    pub within: Nanos,
    pub marking: Option<LedgerMarking>,
}

/// The members to look up in frames of one message, and the steps that use them.
#[derive(Debug, Default)]
pub struct MessageLookup {
    pub paths: MemberPaths,
    pub entries: Vec<AwaitedFrame>,
    pub reactions: Vec<CompiledReaction>,
}

/// A step that waits for such a frame.
#[derive(Debug)]
pub struct AwaitedFrame {
    pub program: usize,
    pub op: usize,
    pub tests: RawMemberTests,
    /// Members that must equal a text.
    pub equal: Vec<(usize, SlotSource)>,
    /// The texts of `equal` that are only known once earlier frames have been received.
    pub received: Vec<CaptureSlot>,
    pub captures: Vec<(usize, CaptureSlot)>,
    pub stray: Option<StrayMark>,
}

/// The mark of an expected frame when no task waits for it. Such a frame names its item, so the ledger can tell whether
/// the frame was repeated, came late, or went to a busy or wrong client.
#[derive(Debug)]
pub struct StrayMark {
    pub mark: MarkName,
    /// The indexes of the members that hold the key of the item and the party.
    pub item: usize,
    pub by: Option<usize>,
}

#[derive(Debug)]
pub struct CompiledReaction {
    pub program: usize,
    pub measured: Arc<FrameMeasurement>,
    pub tests: RawMemberTests,
    /// Members that must equal a text.
    pub equal: Vec<(usize, SlotSource)>,
    pub captures: Vec<(usize, CaptureSlot)>,
}
