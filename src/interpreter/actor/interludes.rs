//! What variations put between the steps of a conversation, and ends of conversations whose clients leave early.

use std::collections::{BTreeMap, BTreeSet};

use super::Overlap;
use crate::interpreter::Conversation;
use crate::interpreter::active_step::ActiveStep;
use crate::interpreter::blocks::{BlockFrame, BlockKind, ConversationFlow, Phase};
use crate::scenario::model::{ActorId, MessageName, Program, Step, StepAction};
use crate::scenario::variation::{PreludePlace, Variation};

/// How many times a prelude is played on a connection, besides after its opening. A hub may lose its patience with a client
/// that is refused again and again.
const MOST_PRELUDES: usize = 3;
/// How many pauses a conversation makes at most.
pub const MOST_PAUSES: u32 = 2;

/// When all clients leave before the end of a conversation, which then has nothing more to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyEnd {
    /// Once this many more messages were sent. All connections are reset.
    AfterSends(usize),
    /// Once the clients that join first have joined, and have played their preludes. The connections are closed.
    AfterOpenings,
    /// Once a message of a prelude was sent. The connections are reset or closed.
    InPrelude { resets: bool },
}

#[derive(Default)]
pub struct Interludes {
    early_end: Option<EarlyEnd>,
    /// The number of pauses so far.
    pauses: u32,
    /// The roles that have begun to play a prelude many times at once.
    batches: BTreeSet<String>,
    /// How far the dialogue on each connection is.
    dialogues: BTreeMap<u32, Dialogue>,
    /// The latest request that was written together with one of a prelude.
    pub(super) overlap: Option<Overlap>,
    /// Whether a step may have taken the answer to a prelude, so that the scenario may continue with wrong values.
    pub(super) is_ambiguous: bool,
}

/// The requests and answers of the steps on a connection, apart from openings and preludes.
#[derive(Default)]
struct Dialogue {
    /// The number of requests for whose answers no step has waited.
    unanswered: usize,
    /// Whether an answer has come since the last interlude.
    has_answer: bool,
    preludes: usize,
}

impl Interludes {
    pub fn new(early_end: Option<EarlyEnd>) -> Self {
        Self { early_end, ..Self::default() }
    }

    /// Whether no actor of a role has played a prelude many times at once; from now on, one has.
    pub(in crate::interpreter) fn begins_batch(&mut self, role: &str) -> bool {
        self.batches.insert(role.to_owned())
    }
}

impl Conversation {
    /// Begins what the variation puts before a step, or ends the conversation there; `None` if there is nothing to do.
    pub(in crate::interpreter) fn begin_interlude(
        &mut self,
        program: &Program,
        step: &Step,
    ) -> Option<ConversationFlow> {
        if self.interludes.early_end == Some(EarlyEnd::AfterOpenings)
            && self.blocks.stack.len() == 1
            && !matches!(step.act, StepAction::Join { .. })
        {
            self.leave_early(false);
            return Some(ConversationFlow::Continue);
        }
        let blocks = &self.blocks;
        let may = blocks.phase == Phase::Main
            && self.judgement.doubt().is_none()
            && matches!(step.act, StepAction::Send(_) | StepAction::SendRaw(_))
            && !(blocks.is_in_opening() || blocks.is_in_attempt() || blocks.is_in_prelude());
        let members = if may { blocks.members(&step.who) } else { return None };
        let [id] = members[..] else { return None };
        let may_overlap = matches!(step.act, StepAction::Send(_)) && self.fence_end(step).is_none();
        let connection = self.actors.open_connection(id)?;
        let dialogue = self.interludes.dialogues.get_mut(&connection)?;
        if dialogue.unanswered > 0 || !dialogue.has_answer {
            return None;
        }
        match self.variation.as_ref()? {
            Variation::Prelude(PreludePlace::Amid, name) if dialogue.preludes < MOST_PRELUDES => {
                let block = *program.roles.get(&program.actors[id].role)?.preludes.get(&**name)?;
                dialogue.preludes += 1;
                dialogue.has_answer = false;
                let kind = BlockKind::Interlude;
                self.blocks.push(BlockFrame { kind, me: Some(id), ..BlockFrame::body(block) });
                Some(ConversationFlow::Continue)
            }
            Variation::Prelude(PreludePlace::Pipelined, name) if dialogue.preludes < MOST_PRELUDES && may_overlap => {
                let block = *program.roles.get(&program.actors[id].role)?.preludes.get(&**name)?;
                // Which of both comes first changes from one to the next, and from scenario to scenario.
                let turn = program.id.len() + name.len() + dialogue.preludes;
                dialogue.preludes += 1;
                dialogue.has_answer = false;
                self.begin_overlap(block, (id, connection), turn.is_multiple_of(2));
                Some(ConversationFlow::Continue)
            }
            Variation::Pauses(time) if self.interludes.pauses < MOST_PAUSES => {
                // A client that has received nothing may have a deadline.
                let greeted =
                    |id| self.actors.open_connection(id).is_none() || self.actors[id].latest.first_message.is_some();
                if !self.actors.ids().all(greeted) {
                    return None;
                }
                dialogue.has_answer = false;
                self.interludes.pauses += 1;
                self.blocks.active = Some(ActiveStep::pause(self.clock.now + *time));
                Some(ConversationFlow::Waiting)
            }
            _ => None,
        }
    }

    /// Lets the first request after an opening be written together with one of a prelude.
    pub(in crate::interpreter) fn allow_overlap(&mut self, id: ActorId) {
        let is_pipelined = self.variation.as_ref().is_some_and(Variation::is_pipelined);
        if let Some(connection) = self.actors.open_connection(id).filter(|_| is_pipelined) {
            self.interludes.dialogues.entry(connection).or_default().has_answer = true;
        }
    }

    /// Records what a completed step means for the dialogues of its actors.
    pub(in crate::interpreter) fn record_exchange_of_step(&mut self, step: &Step) {
        let varies = match &self.variation {
            Some(Variation::Prelude(place, _)) => matches!(place, PreludePlace::Amid | PreludePlace::Pipelined),
            Some(Variation::Pauses(_)) => true,
            _ => false,
        };
        if !varies || self.blocks.is_in_opening() || self.blocks.is_in_prelude() {
            self.record_answer_in_overlap(step);
            return;
        }
        self.interludes.is_ambiguous |= self.may_share_answers(step);
        let pack = &self.program.pack;
        let may_be_answered = |name: &str| pack.message(name).is_none_or(|message| !message.replies.is_empty());
        let (asks, answers) = match &step.act {
            StepAction::Send(compose) => match &compose.message {
                MessageName::Named(name) => (pack.names_no_replies() || may_be_answered(name), false),
                _ => (true, false),
            },
            StepAction::SendRaw(_) => (true, false),
            StepAction::Expect(expect) => (false, expect.count.is_none_or(|count| count.min > 0)),
            StepAction::ExpectOneOf { .. } => (false, true),
            _ => return,
        };
        for id in self.blocks.members(&step.who) {
            let Some(connection) = self.actors.open_connection(id) else { continue };
            let dialogue = self.interludes.dialogues.entry(connection).or_default();
            dialogue.unanswered = (dialogue.unanswered + usize::from(asks)).saturating_sub(usize::from(answers));
            dialogue.has_answer |= answers;
        }
    }

    /// Ends the conversation once enough was sent, if its clients leave early.
    pub(in crate::interpreter) fn count_send(&mut self) {
        match &mut self.interludes.early_end {
            Some(EarlyEnd::AfterSends(left)) => {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.leave_early(true);
                }
            }
            Some(EarlyEnd::InPrelude { resets }) if self.blocks.is_in_prelude() => {
                let resets = *resets;
                self.leave_early(resets);
            }
            _ => {}
        }
    }

    /// Ends the conversation: all connections are reset or closed, and `finally` is not played, which may concern others.
    fn leave_early(&mut self, resets: bool) {
        if resets {
            for id in self.actors.ids() {
                self.drop_connection(id, true);
            }
        }
        self.blocks.stop();
        self.blocks.phase = Phase::LastPings;
    }
}
