//! A scene that is played many times at once: all rounds send before the first one waits for its answer, and so on with the
//! next requests of the scene. What the rounds send at once is written at once.
//!
//! A single round may send together with the scenario. Then the hub has two requests of one connection before it has answered
//! either. It may answer in any order, and may refuse one of them in a way that no document states. So all that counts against it
//! is that the scenario's request gets no answer although the prelude's did, and nothing came that may be a refusal.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{InboxFrame, InboxFrameKind};
use crate::interpreter::active_step::{StepFailure, StepFailureKind};
use crate::interpreter::blocks::{BlockFrame, BlockKind, BlockStack};
use crate::interpreter::matching::ExpectedFrame;
use crate::interpreter::{Conversation, ConversationOutput};
use crate::protocol::RuleLevel;
use crate::scenario::model::{ActorId, BlockId, CheckId, ExpectedEvent, Program, Step, StepAction};
use crate::syntax::source::Span;
use crate::websocket::frame::Frame;

#[derive(Default)]
pub struct Batch {
    /// The actors whose openings are played afterwards; `None` between two steps of the scenario.
    rest: Option<Vec<ActorId>>,
    /// How many rounds there are.
    times: usize,
    /// The blocks of the rounds that have a turn before the phase changes.
    ready: VecDeque<Vec<BlockFrame>>,
    /// The blocks of the rounds that continue when the phase changes.
    parked: VecDeque<Vec<BlockFrame>>,
    /// Whether the rounds receive in this phase, rather than send.
    receives: bool,
    /// The position of the latest event before the batch.
    since: u64,
    /// How many rounds have received what a step waits for, for each such step.
    received: Vec<(Span, usize)>,
    /// Whether the scenario sends after the rounds, before these receive anything.
    is_first: bool,
}

/// A request of the scenario and one of a prelude that were written at once.
pub struct Overlap {
    actor: ActorId,
    connection: u32,
    /// The position of the latest event before both.
    since: u64,
    /// What the prelude has received.
    answers: Vec<InboxFrame>,
    /// What the prelude expected, where that identifies its request.
    own: Vec<ExpectedFrame>,
}

impl Batch {
    /// Returns the block that plays a scene many times at once, and then the openings of the other actors.
    pub fn block(
        scene: BlockId,
        times: usize,
        (id, rest): (ActorId, Vec<ActorId>),
        since: u64,
        missed: Option<String>,
    ) -> BlockFrame {
        let round = || vec![BlockFrame { kind: BlockKind::Interlude, me: Some(id), ..BlockFrame::body(scene) }];
        let ready = (0..times).map(|_| round()).collect();
        Self { rest: Some(rest), ready, times, since, ..Self::default() }.into_frame(Some(id), missed)
    }

    /// Returns the block that plays a scene once, together with the next requests of the scenario.
    fn overlapping(scene: BlockId, id: ActorId, is_first: bool) -> BlockFrame {
        let round = vec![BlockFrame { kind: BlockKind::Interlude, me: Some(id), ..BlockFrame::body(scene) }];
        Self { ready: [round].into(), is_first, times: 1, ..Self::default() }.into_frame(Some(id), None)
    }

    /// Returns the block, which has no steps of its own.
    fn into_frame(self, me: Option<ActorId>, missed: Option<String>) -> BlockFrame {
        BlockFrame { kind: BlockKind::Batch(self), position: usize::MAX, me, missed, ..BlockFrame::body(0) }
    }

    /// Returns the blocks of the round that continues; `None` if all have ended.
    fn next_round(&mut self) -> Option<Vec<BlockFrame>> {
        if self.ready.is_empty() {
            self.receives = !self.receives;
            self.ready = std::mem::take(&mut self.parked);
            if !self.receives {
                // What was made in the middle is ended first.
                self.ready.rotate_left(self.ready.len() / 2);
            }
        }
        self.ready.pop_front()
    }
}

/// Whether a step receives something; `None` if it neither sends nor receives.
fn receives(step: &Step) -> Option<bool> {
    match &step.act {
        StepAction::Send(_) | StepAction::SendRaw(_) => Some(false),
        StepAction::Expect(_) | StepAction::ExpectOneOf { .. } => Some(true),
        _ => None,
    }
}

impl BlockStack {
    fn batch(&self) -> Option<(usize, &Batch)> {
        self.stack.iter().enumerate().rev().find_map(|(place, frame)| match &frame.kind {
            BlockKind::Batch(batch) => Some((place, batch)),
            _ => None,
        })
    }

    fn batch_mut(&mut self) -> Option<&mut Batch> {
        let (place, _) = self.batch()?;
        match &mut self.stack[place].kind {
            BlockKind::Batch(batch) => Some(batch),
            _ => None,
        }
    }

    /// Leaves a step of a round to the next phase of its batch. Returns whether that is where it belongs.
    pub(in crate::interpreter) fn park_round(&mut self, step: &Step) -> bool {
        let Some((place, batch)) = self.batch() else { return false };
        if receives(step).is_none_or(|receives| receives == batch.receives) {
            return false;
        }
        let round = self.stack.split_off(place + 1);
        if let Some(batch) = self.batch_mut() {
            batch.parked.push_back(round);
        }
        true
    }

    /// Records that a round has received what a step waits for.
    pub(in crate::interpreter) fn record_answer_of_round(&mut self, step: &Step) {
        let Some(batch) = self.batch_mut().filter(|_| receives(step) == Some(true)) else { return };
        match batch.received.iter_mut().find(|(span, _)| *span == step.span) {
            Some((_, count)) => *count += 1,
            None => batch.received.push((step.span, 1)),
        }
    }
}

impl Conversation {
    /// Begins to play a prelude together with the next requests of the scenario.
    pub(in crate::interpreter) fn begin_overlap(
        &mut self,
        scene: BlockId,
        (actor, connection): (ActorId, u32),
        is_first: bool,
    ) {
        let since = self.history.position();
        self.interludes.overlap = Some(Overlap { actor, connection, since, answers: Vec::new(), own: Vec::new() });
        let batch = Batch::overlapping(scene, actor, is_first);
        if is_first {
            self.blocks.push(batch);
        } else {
            self.blocks.held = Some(batch);
        }
    }

    /// Continues the prelude that waits for requests of the scenario, unless the next step is another one of its client.
    pub(in crate::interpreter) fn resume_overlap(&mut self, program: &Program) -> bool {
        let Some(me) = self.blocks.held.as_ref().map(|held| held.me) else { return false };
        let is_another = |step: &Step| {
            matches!(step.act, StepAction::Send(_))
                && self.blocks.members(&step.who).as_slice() == me.as_slice()
                && self.fence_end(step).is_none()
        };
        if self.blocks.step(program).is_some_and(is_another) {
            return false;
        }
        let held = self.blocks.held.take();
        held.map(|held| self.blocks.push(held)).is_some()
    }

    /// Continues a batch with its next round, or with the openings of other actors.
    pub(in crate::interpreter) fn continue_batch(
        &mut self,
        program: &Arc<Program>,
        mut batch: Batch,
        me: Option<ActorId>,
        missed: Option<String>,
    ) {
        if batch.ready.is_empty() && std::mem::take(&mut batch.is_first) {
            self.blocks.held = Some(batch.into_frame(me, missed));
            return;
        }
        match (batch.next_round(), batch.rest.take()) {
            (Some(round), rest) => {
                batch.rest = rest;
                self.blocks.push(batch.into_frame(me, missed));
                self.blocks.stack.extend(round);
            }
            (None, Some(rest)) => self.play_opening(program, rest, missed),
            (None, None) => {}
        }
    }

    /// Returns the latest overlap, what a step of its client waits for, and the name of the event after which it comes; `None` if
    /// it waits for nothing on that connection.
    fn awaited_in_overlap<'s>(&self, step: &'s Step) -> Option<(&Overlap, Vec<&'s ExpectedEvent>, Option<&'s str>)> {
        let overlap = self.interludes.overlap.as_ref()?;
        let (wanted, after) = match &step.act {
            StepAction::Expect(expect) => (vec![&expect.want], &expect.after),
            StepAction::ExpectOneOf { alternatives, after, .. } => {
                (alternatives.iter().filter_map(|one| one.want.as_ref()).collect(), after)
            }
            _ => return None,
        };
        let is_there = self.actors.open_connection(overlap.actor) == Some(overlap.connection)
            && self.blocks.members(&step.who) == [overlap.actor];
        is_there.then_some((overlap, wanted, after.as_deref()))
    }

    /// Whether the conditions of an expectation use a request of an overlap, such as its id.
    fn identifies_request(&self, overlap: &Overlap, want: &ExpectedEvent) -> bool {
        let ExpectedEvent::Message { pattern: Some(pattern), .. } = want else { return false };
        let wires = pattern.template.wires(&self.eval_context(Some(overlap.actor)));
        wires.iter().any(|wire| wire.sequence > overlap.since)
    }

    /// Records what a step of a prelude has received in an overlap: the scenario has received nothing meanwhile.
    pub(in crate::interpreter) fn record_answer_in_overlap(&mut self, step: &Step) {
        let Some((overlap, wanted, after)) = self.awaited_in_overlap(step) else { return };
        let after = self.position_after(after).unwrap_or_default();
        let own = wanted.into_iter().filter(|want| self.identifies_request(overlap, want));
        let own = own.filter_map(|want| self.expected_frame(&self.program, overlap.actor, want, after).ok());
        let own: Vec<ExpectedFrame> = own.collect();
        let frames = self.actors[overlap.actor].latest.inbox.frames.iter();
        let claimed = frames.filter(|frame| frame.claimed && frame.wire.sequence > overlap.since);
        let answers = claimed.map(|frame| InboxFrame { claimed: false, ..frame.clone() }).collect();
        if let Some(overlap) = &mut self.interludes.overlap {
            overlap.answers = answers;
            overlap.own.extend(own);
        }
    }

    /// Whether a step of the scenario would also take what the latest prelude has received, so that each may have taken the
    /// answer to the other.
    pub(in crate::interpreter) fn may_share_answers(&self, step: &Step) -> bool {
        let Some((overlap, wanted, after)) = self.awaited_in_overlap(step) else { return false };
        let Program { pack, shared, .. } = &*self.program;
        let after = self.position_after(after).unwrap_or_default();
        wanted.into_iter().any(|want| {
            let awaited = self.expected_frame(&self.program, overlap.actor, want, after);
            awaited.is_ok_and(|awaited| overlap.answers.iter().any(|frame| awaited.fits(frame, pack, &shared.ignore)))
        })
    }

    /// Returns the failure of a step that the scenario needs if it shows that the hub left a request without an answer that came
    /// together with that of a prelude: the step waits for the answer to this request, the prelude has received its own, the
    /// connection is open, and the hub has sent nothing else, except what certainly belongs to the prelude.
    fn lack_of_overlap(&self, program: &Program, step: &Step, failure: &StepFailure) -> Option<String> {
        let (overlap, wanted, after) = self.awaited_in_overlap(step)?;
        let Program { pack, shared, .. } = program;
        let is_own = |want: &&ExpectedEvent| self.identifies_request(overlap, want);
        let waits = self.position_after(after).is_ok_and(|after| after > overlap.since) || wanted.iter().any(is_own);
        let is_answer = |frame: &InboxFrame| {
            overlap.answers.iter().any(|answer| answer.wire.sequence == frame.wire.sequence)
                || overlap.own.iter().any(|own| own.fits(frame, pack, &shared.ignore))
        };
        let is_must = |check: CheckId| program.checks[check].rules.iter().any(|rule| rule.level == RuleLevel::Must);
        let is_needed = step.check.is_none_or(is_must) && !self.blocks.is_attempt(program);
        let is_lack = waits
            && is_needed
            && !overlap.answers.is_empty()
            && self.is_silent(overlap.actor, overlap.since, is_answer)
            && !(self.blocks.is_in_prelude() || self.interludes.is_ambiguous || self.may_share_answers(step))
            && self.judgement.doubt().is_none();
        is_lack.then(|| format!("the prelude received its answer; {}", failure.message))
    }

    /// Whether the connection of an actor is open and has received nothing since a position, apart from known frames.
    fn is_silent(&self, id: ActorId, since: u64, is_known: impl Fn(&InboxFrame) -> bool) -> bool {
        let actor = &self.actors[id];
        let is_other = |frame: &InboxFrame| {
            let is_control = matches!(frame.kind, InboxFrameKind::Control { .. });
            frame.wire.sequence > since && frame.is_observed() && !is_control && !is_known(frame)
        };
        actor.is_open() && !actor.latest.inbox.has_dropped && !actor.latest.inbox.frames.iter().any(is_other)
    }

    /// Returns the failure of a step if it shows that the hub left one of the requests without an answer that came at once.
    pub(in crate::interpreter) fn lack_of_answer(
        &self,
        program: &Program,
        step: &Step,
        failure: &StepFailure,
    ) -> Option<String> {
        if !matches!(failure.kind, StepFailureKind::Broken) {
            return None;
        }
        self.lack_of_round(step, failure).or_else(|| self.lack_of_overlap(program, step, failure))
    }

    /// Returns the failure of a round if other rounds have received their answers, the connection is open, and the hub has sent
    /// nothing else that may be a refusal.
    fn lack_of_round(&self, step: &Step, failure: &StepFailure) -> Option<String> {
        let (_, batch) = self.blocks.batch()?;
        let (_, received) = batch.received.iter().find(|(span, _)| *span == step.span)?;
        let is_silent = |id: &ActorId| self.is_silent(*id, batch.since, |frame| frame.claimed);
        let is_lack = self.blocks.members(&step.who).iter().all(is_silent);
        is_lack.then(|| format!("received {received} of {} times; {}", batch.times, failure.message))
    }

    /// Adds frames to those that a batch, or the scenario beside one, is about to send on a connection. Returns them if there
    /// are none yet.
    pub(in crate::interpreter) fn join_frames(&mut self, connection: u32, frames: Vec<Frame>) -> Option<Vec<Frame>> {
        let is_at_once = self.blocks.held.is_some() || self.blocks.batch().is_some();
        let is_written = |output: &&mut ConversationOutput| !matches!(output, ConversationOutput::Trace(_));
        match self.out.iter_mut().rev().find(is_written).filter(|_| is_at_once) {
            Some(ConversationOutput::Send { connection: last, frames: all }) if *last == connection => {
                all.extend(frames);
                None
            }
            _ => Some(frames),
        }
    }
}
