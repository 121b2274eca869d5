//! A scene that is played many times at once: all rounds send before the first one waits for its answer, and so on with the
//! next requests of the scene. What the rounds send at once is written at once.

use std::collections::VecDeque;
use std::sync::Arc;

use super::InboxFrameKind;
use crate::interpreter::active_step::{StepFailure, StepFailureKind};
use crate::interpreter::blocks::{BlockFrame, BlockKind, BlockStack};
use crate::interpreter::{Conversation, ConversationOutput};
use crate::scenario::model::{ActorId, BlockId, Program, Step, StepAction};
use crate::syntax::source::Span;
use crate::websocket::frame::Frame;

pub struct Batch {
    /// The actors whose openings are played afterwards.
    rest: Vec<ActorId>,
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
        let (parked, received) = (VecDeque::new(), Vec::new());
        Self { rest, times, ready, parked, receives: false, since, received }.into_frame(Some(id), missed)
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
    /// Continues a batch with its next round, or with the openings of other actors.
    pub(in crate::interpreter) fn continue_batch(
        &mut self,
        program: &Arc<Program>,
        mut batch: Batch,
        me: Option<ActorId>,
        missed: Option<String>,
    ) {
        match batch.next_round() {
            Some(round) => {
                self.blocks.push(batch.into_frame(me, missed));
                self.blocks.stack.extend(round);
            }
            None => self.play_opening(program, batch.rest, missed),
        }
    }

    /// Returns the failure of a round if it shows that the hub left one request of many without an answer: other rounds have
    /// received theirs, the connection is open, and the hub has sent nothing else that may be a refusal.
    pub(in crate::interpreter) fn lack_of_round(&self, step: &Step, failure: &StepFailure) -> Option<String> {
        let (_, batch) = self.blocks.batch()?;
        let (_, received) = batch.received.iter().find(|(span, _)| *span == step.span)?;
        let is_silent = |id: &ActorId| {
            let actor = &self.actors[*id];
            let is_other = |kind: &InboxFrameKind| !matches!(kind, InboxFrameKind::Control { .. });
            let mut frames = actor.latest.inbox.frames.iter();
            let refused = frames.any(|frame| {
                !frame.claimed && frame.is_observed() && frame.wire.sequence > batch.since && is_other(&frame.kind)
            });
            actor.is_open() && !actor.latest.inbox.has_dropped && !refused
        };
        let is_lack =
            matches!(failure.kind, StepFailureKind::Broken) && self.blocks.members(&step.who).iter().all(is_silent);
        is_lack.then(|| format!("received {received} of {} times; {}", batch.times, failure.message))
    }

    /// Adds frames to those that a batch is about to send on a connection. Returns them if there are none yet.
    pub(in crate::interpreter) fn join_frames(&mut self, connection: u32, frames: Vec<Frame>) -> Option<Vec<Frame>> {
        let is_written = |output: &&mut ConversationOutput| !matches!(output, ConversationOutput::Trace(_));
        match self.out.iter_mut().rev().find(is_written).filter(|_| self.blocks.batch().is_some()) {
            Some(ConversationOutput::Send { connection: last, frames: all }) if *last == connection => {
                all.extend(frames);
                None
            }
            _ => Some(frames),
        }
    }
}
