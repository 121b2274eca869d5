//! Handles a received frame: an answer, an expected message, a trigger of a reaction, or none of these.

use super::task::{ClientTask, RequestTimes, TaskState};
use super::{ClientState, VirtualClient};
use crate::load::Nanos;
use crate::load::client::io::{ClientFault, ClientIo};
use crate::load::compile::classifier::all_tests_hold;
use crate::load::compile::json_scan::{FoundMembers, NotJsonError, have_equal_values};
use crate::load::compile::message_template::SlotSource;
use crate::load::compile::program::{
    AwaitedFrame, CaptureSlot, CompiledRole, FrameMeasurement, MessageLookup, ProgramOperation,
};
use crate::load::ids::MessageId;
use crate::load::metrics::{JourneyCount, Measurement, MessageCount};
use crate::load::plan::MarkName;
use crate::load::provenance::{DeliveredFrame, Provenance, SourcedText};

/// The time of a received or sent frame, and the known facts about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameOrigin {
    pub source: Provenance,
    pub at: Nanos,
    /// The mark of the frame that the ledger already has.
    pub recorded: Option<MarkName>,
}

impl FrameOrigin {
    pub fn observed(at: Nanos) -> Self {
        Self { source: Provenance::Observed, at, recorded: None }
    }
}

/// A frame with its members that are used.
pub(super) struct ScannedFrame<'a> {
    pub delivered: DeliveredFrame<'a>,
    pub found: FoundMembers<'a>,
    pub origin: FrameOrigin,
}

impl<'a> ScannedFrame<'a> {
    /// Scans a frame; `None` if it is not JSON.
    pub fn new(delivered: DeliveredFrame<'a>, lookup: &MessageLookup, origin: FrameOrigin) -> Option<Self> {
        Some(Self { delivered, found: lookup.paths.find(delivered.text).ok()?, origin })
    }

    /// Returns a member by its number.
    pub fn member(&self, number: usize) -> Option<SourcedText<'a>> {
        let bytes = self.found[number]?;
        Some(SourcedText { bytes, source: self.delivered.source_of(bytes) })
    }

    /// Whether the hub never sends the frame.
    pub fn is_assumed(&self) -> bool {
        self.delivered.source.is_assumed()
    }
}

/// Whether a task has waited longer than another. Order numbers wrap around; they are never more than half the range
/// apart.
fn is_older(task: &ClientTask, other: &ClientTask) -> bool {
    (task.order.wrapping_sub(other.order) as i32) < 0
}

impl VirtualClient {
    pub(super) fn receive(
        &mut self,
        role: &CompiledRole,
        now: Nanos,
        delivered: DeliveredFrame<'_>,
        io: &mut impl ClientIo,
    ) {
        let bytes = delivered.text;
        let classified = role.common.classifier.classify(bytes);
        let recognised = classified.ok().flatten();
        match delivered.source {
            Provenance::Observed => {
                io.record(Measurement::Received { message: recognised, bytes: bytes.len() }, now);
            }
            Provenance::Assumed { .. } => {
                let assumed = recognised.map(|message| Measurement::Messages(message, MessageCount::Assumed, 1));
                assumed.into_iter().for_each(|assumed| io.record(assumed, now));
            }
        }
        let message = match classified {
            Ok(Some(message)) => message,
            // A pack without messages classifies none.
            _ if role.lookups.is_empty() || delivered.source.is_assumed() => return,
            Ok(None) if bytes.trim_ascii_start().starts_with(b"{") => {
                return io.fault(ClientFault::Undocumented, now);
            }
            Ok(None) | Err(NotJsonError) => return io.fault(ClientFault::NoObject, now),
        };
        if !matches!(self.state, ClientState::Opening | ClientState::Joined) {
            return;
        }
        let lookup = &role.lookups[usize::from(message.0)];
        // No step uses this message or a member of it.
        let origin = FrameOrigin { source: delivered.source, ..FrameOrigin::observed(now) };
        let Some(frame) = &ScannedFrame::new(delivered, lookup, origin) else { return };
        let reacted = self.run_reactions(role, now, lookup, frame, io);
        let oldest = self.longest_waiting(lookup, frame);
        if let Some((_, awaited)) = oldest.filter(|(task, awaited)| self.names_other_item(role, *task, awaited, frame))
        {
            self.record_stray(role, awaited, frame, now, io);
        } else if let Some((task, awaited)) = oldest {
            self.claim_frame(role, task, awaited, frame, now, io);
        } else if let Some(awaited) = self.late_step(role, lookup, frame) {
            self.accept_late(role, awaited, frame, now, io);
        } else if let Some((task, awaited)) = self.early_waiter(role, lookup, frame) {
            self.keep_early_frame(role, task, awaited, frame, now, io);
        } else if !frame.is_assumed() && self.is_asked_later(role, message, lookup, frame) {
            self.keep_frame(role, message, frame, now, io);
        } else if !self.handle_refusal(role, message, frame, now, io) && !frame.is_assumed() {
            self.leave_frame(role, message, frame, reacted, now, io);
        }
    }

    /// Records a frame that no task takes. `reacted`: whether a reaction has handled it.
    pub(super) fn leave_frame(
        &self,
        role: &CompiledRole,
        message: MessageId,
        frame: &ScannedFrame<'_>,
        reacted: bool,
        now: Nanos,
        io: &mut impl ClientIo,
    ) {
        if self.follows_assumption() {
            return;
        }
        let entries = role.lookups[usize::from(message.0)].entries.iter();
        let mut fitting = entries.filter(|awaited| all_tests_hold(&awaited.tests, &frame.found));
        if !reacted && fitting.clone().any(|awaited| self.accepts_for_any_journey(awaited, frame)) {
            io.fault(ClientFault::NotTaken(message), now);
        }
        if let Some(awaited) =
            fitting.find(|awaited| awaited.stray.is_some()).filter(|_| frame.origin.recorded.is_none())
        {
            self.record_stray(role, awaited, frame, now, io);
        }
    }

    /// Whether a task is where it is because of an assumed frame. A frame that no task takes then says nothing: its
    /// task might have waited for it.
    fn follows_assumption(&self) -> bool {
        self.tasks.iter().any(|task| task.is_active() && task.source.is_assumed())
    }

    /// Whether a waiting step would take this frame whatever the values of its journey are.
    fn accepts_for_any_journey(&self, awaited: &AwaitedFrame, frame: &ScannedFrame<'_>) -> bool {
        awaited.equal.iter().all(|(_, source)| matches!(source, SlotSource::Own(_)))
            && self.equal_values_match(None, &awaited.equal, frame)
    }

    pub(super) fn equal_values_match(
        &self,
        task: Option<usize>,
        wanted_equal: &[(usize, SlotSource)],
        frame: &ScannedFrame<'_>,
    ) -> bool {
        wanted_equal.iter().all(|(number, source)| {
            let text = match source {
                SlotSource::Text(slot) => task.and_then(|task| self.tasks[task].texts.get(*slot)),
                SlotSource::Own(slot) => self.own.get(*slot),
                _ => None,
            };
            let member = frame.found[*number];
            matches!((text, member), (Some(text), Some(member)) if have_equal_values(text.bytes, member))
        })
    }

    pub(super) fn step_accepts(&self, task: usize, awaited: &AwaitedFrame, frame: &ScannedFrame<'_>) -> bool {
        all_tests_hold(&awaited.tests, &frame.found) && self.equal_values_match(Some(task), &awaited.equal, frame)
    }

    /// Returns the task that has waited longest for such a frame or, if none waits, one whose wait for it has just
    /// timed out. An assumed frame follows its request at once, so it goes to the task that has begun to wait last.
    fn longest_waiting<'l>(
        &self,
        lookup: &'l MessageLookup,
        frame: &ScannedFrame<'_>,
    ) -> Option<(usize, &'l AwaitedFrame)> {
        let mut best: Option<(bool, &ClientTask, usize, &AwaitedFrame)> = None;
        for awaited in &lookup.entries {
            for (place, task) in self.tasks.iter().enumerate().filter(|(_, task)| task.program == awaited.program) {
                let late = match task.state {
                    TaskState::Waiting if task.at == awaited.op => false,
                    TaskState::Between if task.late == Some(awaited.op) && !frame.is_assumed() => true,
                    _ => continue,
                };
                let better = best.is_none_or(|(was_late, known, ..)| match (late, was_late) {
                    (false, true) => true,
                    (true, false) => false,
                    _ => is_older(task, known) != frame.is_assumed(),
                });
                if better && self.step_accepts(place, awaited, frame) {
                    best = Some((late, task, place, awaited));
                }
            }
        }
        best.map(|(_, _, place, awaited)| (place, awaited))
    }

    /// Returns a task that has a value of this frame and will wait for the frame at a later step.
    fn early_waiter<'l>(
        &self,
        role: &CompiledRole,
        lookup: &'l MessageLookup,
        frame: &ScannedFrame<'_>,
    ) -> Option<(usize, &'l AwaitedFrame)> {
        for awaited in &lookup.entries {
            let Some(ProgramOperation::Expect(expect)) = role.programs[awaited.program].ops.get(awaited.op) else {
                continue;
            };
            let Some(bit) = expect.early else { continue };
            let place = self.tasks.iter().enumerate().find(|(place, task)| {
                task.program == awaited.program
                    && task.is_active()
                    && task.journey_position() <= awaited.op
                    && (task.at < awaited.op || task.back.is_some())
                    && task.early & (1 << bit) == 0
                    && self.step_accepts(*place, awaited, frame)
            });
            if let Some((place, _)) = place {
                return Some((place, awaited));
            }
        }
        None
    }

    /// Returns a step whose request timed out and is answered by this frame, when every task has moved on.
    fn late_step<'l>(
        &self,
        role: &CompiledRole,
        lookup: &'l MessageLookup,
        frame: &ScannedFrame<'_>,
    ) -> Option<&'l AwaitedFrame> {
        if self.owed == 0 || role.arrivals || frame.is_assumed() {
            return None;
        }
        lookup.entries.iter().find(|awaited| {
            Some(awaited.program) == role.journey
                && awaited.equal.is_empty()
                && matches!(role.programs[awaited.program].ops.get(awaited.op), Some(ProgramOperation::Expect(e)) if e.may_stay_unanswered)
                && all_tests_hold(&awaited.tests, &frame.found)
                && !self.names_known_item(role, awaited, frame)
        })
    }

    /// Handles a late answer, such as a job assigned after its claim timed out, in an extra task next to the running
    /// ones.
    fn accept_late(
        &mut self,
        role: &CompiledRole,
        awaited: &AwaitedFrame,
        frame: &ScannedFrame<'_>,
        now: Nanos,
        io: &mut impl ClientIo,
    ) {
        self.owed -= 1;
        let asked = self.tasks.iter().position(|task| task.program == awaited.program && task.is_taken());
        let task = self.idle_task(role, awaited.program);
        // It is unknown which request the frame answers, so its time counts from the latest one.
        let times = self.tasks[asked.unwrap_or(task)].times.clone();
        self.prepare(role, task, now);
        self.begin_at(role, task, now);
        if let Some(journey) = role.programs[awaited.program].journey {
            io.record(Measurement::Journeys(journey, JourneyCount::Started, 1), now);
        }
        self.tasks[task].extra = true;
        self.tasks[task].at = awaited.op;
        self.tasks[task].times = times;
        self.complete_step(role, task, awaited, frame, now, io);
        self.tasks[task].advance();
        self.run(role, task, now, io);
    }

    fn claim_frame(
        &mut self,
        role: &CompiledRole,
        task: usize,
        awaited: &AwaitedFrame,
        frame: &ScannedFrame<'_>,
        now: Nanos,
        io: &mut impl ClientIo,
    ) {
        if self.tasks[task].state == TaskState::Between {
            // The journey continues at the step that had timed out.
            self.tasks[task].at = awaited.op;
            self.tasks[task].late = None;
            self.tasks[task].noted = 0;
            self.tasks[task].source = Provenance::Observed;
            self.owed = self.owed.saturating_sub(1);
            self.tasks[task].item = self.unnamed_item(role);
            self.tasks[task].prepared = false;
        }
        self.complete_step(role, task, awaited, frame, now, io);
        let one = &mut self.tasks[task];
        one.due = now;
        one.advance();
        self.run(role, task, now, io);
    }

    fn keep_early_frame(
        &mut self,
        role: &CompiledRole,
        task: usize,
        awaited: &AwaitedFrame,
        frame: &ScannedFrame<'_>,
        now: Nanos,
        io: &mut impl ClientIo,
    ) {
        if let Some(ProgramOperation::Expect(expect)) = role.programs[awaited.program].ops.get(awaited.op)
            && let Some(bit) = expect.early
        {
            self.tasks[task].early |= 1 << bit;
        }
        self.complete_step(role, task, awaited, frame, now, io);
    }

    /// Completes a step with its frame: captures values, records times and marks.
    pub(super) fn complete_step(
        &mut self,
        role: &CompiledRole,
        task: usize,
        awaited: &AwaitedFrame,
        frame: &ScannedFrame<'_>,
        now: Nanos,
        io: &mut impl ClientIo,
    ) {
        let source = frame.delivered.source;
        for (number, slot) in &awaited.captures {
            match frame.member(*number) {
                Some(member) => self.set_slot(task, *slot, member),
                None => self.clear_slot(task, *slot, source),
            }
        }
        self.tasks[task].source = self.tasks[task].source.join(source);
        let Some(ProgramOperation::Expect(expect)) = role.programs[awaited.program].ops.get(awaited.op) else { return };
        match expect.answers {
            Some((asked, _)) if frame.is_assumed() => {
                io.record(Measurement::Messages(asked, MessageCount::AnswersAssumed, 1), now);
            }
            Some((asked, times)) => {
                let RequestTimes { due, delay, operation, .. } = self.tasks[task].times[times];
                io.record(Measurement::Answered { message: asked, due, delay }, frame.origin.at);
                if let Some(operation) = operation {
                    io.record(Measurement::OperationAnswered { operation, due, delay }, frame.origin.at);
                }
            }
            None => {}
        }
        self.record_measurement(role, task, &expect.measured, frame.origin, now, io);
    }

    /// Records the delivery and the mark of a frame.
    fn record_measurement(
        &mut self,
        role: &CompiledRole,
        task: usize,
        measured: &FrameMeasurement,
        frame: FrameOrigin,
        now: Nanos,
        io: &mut impl ClientIo,
    ) {
        if let Some((message, source)) = measured.delivers.as_ref().filter(|_| !frame.source.is_assumed())
            && let Some(due) = self.observed_number(task, source)
        {
            let due = due.saturating_sub(role.common.run.origin_ns());
            io.record(Measurement::Delivered { message: *message, due }, frame.at);
        }
        if let Some(marking) = &measured.marking {
            self.record_mark(role, task, marking, frame, now, io);
        }
    }

    /// Returns the number in a slot, if it is not assumed.
    fn observed_number(&self, task: usize, source: &SlotSource) -> Option<u64> {
        let text = match source {
            SlotSource::Text(slot) => self.tasks[task].texts.get(*slot)?,
            SlotSource::Own(slot) => self.own.get(*slot)?,
            _ => return None,
        };
        std::str::from_utf8(text.observed()?).ok()?.parse().ok()
    }

    /// Handles a documented answer other than the expected answer: it refuses the task that has waited longest. Tasks
    /// that have sent assumed values come first, because a hub most likely refuses their requests.
    fn handle_refusal(
        &mut self,
        role: &CompiledRole,
        message: MessageId,
        frame: &ScannedFrame<'_>,
        now: Nanos,
        io: &mut impl ClientIo,
    ) -> bool {
        let Some(task) = self.refused_task(role, message) else { return false };
        if frame.is_assumed() {
            self.tasks[task].source = frame.delivered.source;
            self.fail_program(role, task, None, now, io);
        } else {
            self.note_refusal(role, task, now, io);
            self.fail_program(role, task, Some(ClientFault::Refused(message)), now, io);
        }
        true
    }

    /// Returns the task whose request a message refuses.
    pub(super) fn refused_task(&self, role: &CompiledRole, message: MessageId) -> Option<usize> {
        let waits = |task: &ClientTask| match role.programs[task.program].ops.get(task.at) {
            Some(ProgramOperation::Expect(expect)) => {
                task.state == TaskState::Waiting && expect.refusals.contains(&message)
            }
            _ => false,
        };
        let waiting = || self.tasks.iter().enumerate().filter(|(_, task)| waits(task));
        let older = |a: (usize, _), b: (usize, _)| if is_older(b.1, a.1) { b } else { a };
        let assuming = waiting().filter(|(place, _)| self.rests_on_assumption(role, *place)).reduce(older);
        assuming.or_else(|| waiting().reduce(older)).map(|(task, _)| task)
    }

    /// Runs the reactions to a frame; returns whether there was one.
    fn run_reactions(
        &mut self,
        role: &CompiledRole,
        now: Nanos,
        lookup: &MessageLookup,
        frame: &ScannedFrame<'_>,
        io: &mut impl ClientIo,
    ) -> bool {
        let mut reacted = false;
        for reaction in &lookup.reactions {
            if all_tests_hold(&reaction.tests, &frame.found) && self.equal_values_match(None, &reaction.equal, frame) {
                let task = self.idle_task(role, reaction.program);
                self.prepare(role, task, now);
                for (number, slot) in &reaction.captures {
                    if let (Some(member), CaptureSlot::Text(_)) = (frame.member(*number), slot) {
                        self.set_slot(task, *slot, member);
                    }
                }
                self.begin_at(role, task, now);
                self.tasks[task].source = frame.delivered.source;
                self.record_measurement(role, task, &reaction.measured, frame.origin, now, io);
                self.run(role, task, now, io);
                reacted = true;
            }
        }
        reacted
    }

    /// Handles the answer of a hook; answers come in the order of the calls.
    pub(super) fn handle_hook_answer(
        &mut self,
        role: &CompiledRole,
        now: Nanos,
        answer: Option<&[u8]>,
        io: &mut impl ClientIo,
    ) {
        let Some(task) = self.tasks.iter().position(|task| task.state == TaskState::Hooking) else { return };
        let (program, at) = (self.tasks[task].program, self.tasks[task].at);
        let Some(ProgramOperation::Hook(hook)) = role.programs[program].ops.get(at) else { return };
        let Some(answer) = answer else {
            return self.fail_program(role, task, Some(ClientFault::Hook), now, io);
        };
        self.capture(task, &hook.captures, answer, Provenance::Observed);
        self.tasks[task].due = now;
        self.tasks[task].advance();
        self.run(role, task, now, io);
    }
}
