//! Handles a received frame: an answer, an expected message, a trigger of a reaction, or none of these.

use super::task::TaskState;
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

impl VirtualClient {
    pub(super) fn receive(&mut self, role: &CompiledRole, now: Nanos, bytes: &[u8], io: &mut impl ClientIo) {
        let classified = role.common.classifier.classify(bytes);
        io.received(classified.ok().flatten(), now, bytes.len());
        let message = match classified {
            Ok(Some(message)) => message,
            // A pack without messages classifies none.
            _ if role.lookups.is_empty() => return,
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
        let Ok(found) = lookup.paths.find(bytes) else { return };
        let reacted = self.run_reactions(role, now, lookup, &found, io);
        let oldest = self.longest_waiting(lookup, &found);
        if let Some((_, wanted)) = oldest.filter(|(task, wanted)| self.names_other_item(role, *task, wanted, &found)) {
            self.record_stray(role, wanted, &found, now, io);
        } else if let Some((task, wanted)) = oldest {
            self.claim_frame(role, task, wanted, &found, now, io);
        } else if let Some(wanted) = self.late_step(role, lookup, &found) {
            self.accept_late(role, wanted, &found, now, io);
        } else if let Some((task, wanted)) = self.early_waiter(role, lookup, &found) {
            self.keep_early_frame(role, task, wanted, &found, now, io);
        } else if !self.handle_refusal(role, message, now, io) {
            let mut fitting = lookup.entries.iter().filter(|wanted| all_tests_hold(&wanted.tests, &found));
            if !reacted && fitting.clone().any(|wanted| self.accepts_for_any_journey(wanted, &found)) {
                io.fault(ClientFault::NotTaken(message), now);
            }
            if let Some(wanted) = fitting.find(|wanted| wanted.stray.is_some()) {
                self.record_stray(role, wanted, &found, now, io);
            }
        }
    }

    /// Whether a waiting step would take this frame whatever the values of its journey are.
    fn accepts_for_any_journey(&self, wanted: &AwaitedFrame, found: &FoundMembers<'_>) -> bool {
        wanted.equal.iter().all(|(_, source)| matches!(source, SlotSource::Own(_)))
            && self.equal_values_match(None, &wanted.equal, found)
    }

    fn equal_values_match(
        &self,
        task: Option<usize>,
        wanted_equal: &[(usize, SlotSource)],
        found: &FoundMembers<'_>,
    ) -> bool {
        wanted_equal.iter().all(|(number, source)| {
            let text = match source {
                SlotSource::Text(slot) => task.and_then(|task| self.tasks[task].texts.get(*slot)),
                SlotSource::Own(slot) => self.own.get(*slot),
                _ => None,
            };
            matches!((text, found[*number]), (Some(text), Some(member)) if have_equal_values(text, member))
        })
    }

    fn step_accepts(&self, task: usize, wanted: &AwaitedFrame, found: &FoundMembers<'_>) -> bool {
        all_tests_hold(&wanted.tests, found) && self.equal_values_match(Some(task), &wanted.equal, found)
    }

    /// Returns the task that has waited longest for such a frame or, if none waits, one whose wait for it has just
    /// timed out.
    fn longest_waiting<'l>(
        &self,
        lookup: &'l MessageLookup,
        found: &FoundMembers<'_>,
    ) -> Option<(usize, &'l AwaitedFrame)> {
        let mut best: Option<(bool, u32, usize, &AwaitedFrame)> = None;
        for wanted in &lookup.entries {
            for (place, task) in self.tasks.iter().enumerate().filter(|(_, task)| task.program == wanted.program) {
                let late = match task.state {
                    TaskState::Waiting if task.at == wanted.op => false,
                    TaskState::Between if task.late == Some(wanted.op) => true,
                    _ => continue,
                };
                // Order numbers wrap around; they are never more than half the range apart.
                let older = |known: u32| (task.order.wrapping_sub(known) as i32) < 0;
                let better = best.is_none_or(|(was_late, known, ..)| match (late, was_late) {
                    (false, true) => true,
                    (true, false) => false,
                    _ => older(known),
                });
                if better && self.step_accepts(place, wanted, found) {
                    best = Some((late, task.order, place, wanted));
                }
            }
        }
        best.map(|(_, _, place, wanted)| (place, wanted))
    }

    /// Returns a task that has a value of this frame and will wait for the frame at a later step.
    fn early_waiter<'l>(
        &self,
        role: &CompiledRole,
        lookup: &'l MessageLookup,
        found: &FoundMembers<'_>,
    ) -> Option<(usize, &'l AwaitedFrame)> {
        for wanted in &lookup.entries {
            let Some(ProgramOperation::Expect(expect)) = role.programs[wanted.program].ops.get(wanted.op) else {
                continue;
            };
            let Some(bit) = expect.early else { continue };
            let place = self.tasks.iter().enumerate().find(|(place, task)| {
                task.program == wanted.program
                    && task.is_active()
                    && task.journey_position() <= wanted.op
                    && (task.at < wanted.op || task.back.is_some())
                    && task.early & (1 << bit) == 0
                    && self.step_accepts(*place, wanted, found)
            });
            if let Some((place, _)) = place {
                return Some((place, wanted));
            }
        }
        None
    }

    /// Returns a step whose request timed out and is answered by this frame, when every task has moved on.
    fn late_step<'l>(
        &self,
        role: &CompiledRole,
        lookup: &'l MessageLookup,
        found: &FoundMembers<'_>,
    ) -> Option<&'l AwaitedFrame> {
        if self.owed == 0 || role.arrivals {
            return None;
        }
        lookup.entries.iter().find(|wanted| {
            Some(wanted.program) == role.journey
                && wanted.equal.is_empty()
                && matches!(role.programs[wanted.program].ops.get(wanted.op), Some(ProgramOperation::Expect(e)) if e.may_stay_unanswered)
                && all_tests_hold(&wanted.tests, found)
                && !self.names_known_item(role, wanted, found)
        })
    }

    /// Handles a late answer, such as a job assigned after its claim timed out, in an extra task next to the running
    /// ones.
    fn accept_late(
        &mut self,
        role: &CompiledRole,
        wanted: &AwaitedFrame,
        found: &FoundMembers<'_>,
        now: Nanos,
        io: &mut impl ClientIo,
    ) {
        self.owed -= 1;
        let asked = self.tasks.iter().position(|task| task.program == wanted.program && task.is_taken());
        let task = self.idle_task(role, wanted.program);
        self.prepare(role, task, now);
        self.begin_at(role, task, now);
        if let Some(journey) = role.programs[wanted.program].journey {
            io.journey_begun(journey, now);
        }
        self.tasks[task].extra = true;
        self.tasks[task].at = wanted.op;
        if let Some(asked) = asked.filter(|asked| *asked != task) {
            // It is unknown which request the frame answers, so its time counts from the latest one.
            self.tasks[task].times = self.tasks[asked].times.clone();
        }
        self.complete_step(role, task, wanted, found, now, io);
        self.tasks[task].advance();
        self.run(role, task, now, io);
    }

    fn claim_frame(
        &mut self,
        role: &CompiledRole,
        task: usize,
        wanted: &AwaitedFrame,
        found: &FoundMembers<'_>,
        now: Nanos,
        io: &mut impl ClientIo,
    ) {
        if self.tasks[task].state == TaskState::Between {
            // The journey continues at the step that had timed out.
            self.tasks[task].at = wanted.op;
            self.tasks[task].late = None;
            self.tasks[task].noted = 0;
            self.owed = self.owed.saturating_sub(1);
            self.tasks[task].item = self.unnamed_item(role);
            self.tasks[task].prepared = false;
        }
        self.complete_step(role, task, wanted, found, now, io);
        let one = &mut self.tasks[task];
        one.due = now;
        one.advance();
        self.run(role, task, now, io);
    }

    fn keep_early_frame(
        &mut self,
        role: &CompiledRole,
        task: usize,
        wanted: &AwaitedFrame,
        found: &FoundMembers<'_>,
        now: Nanos,
        io: &mut impl ClientIo,
    ) {
        if let Some(ProgramOperation::Expect(expect)) = role.programs[wanted.program].ops.get(wanted.op)
            && let Some(bit) = expect.early
        {
            self.tasks[task].early |= 1 << bit;
        }
        self.complete_step(role, task, wanted, found, now, io);
    }

    /// Completes a step with its frame: captures values, records times and marks.
    fn complete_step(
        &mut self,
        role: &CompiledRole,
        task: usize,
        wanted: &AwaitedFrame,
        found: &FoundMembers<'_>,
        now: Nanos,
        io: &mut impl ClientIo,
    ) {
        for (number, slot) in &wanted.captures {
            match found[*number] {
                Some(member) => self.set_slot(task, *slot, member),
                None => self.clear_slot(task, *slot),
            }
        }
        let Some(ProgramOperation::Expect(expect)) = role.programs[wanted.program].ops.get(wanted.op) else { return };
        if let Some((asked, times)) = expect.answers {
            let (due, sent) = self.tasks[task].times[times];
            io.answered(asked, due, sent, now);
        }
        self.record_measurement(role, task, &expect.measured, now, io);
    }

    /// Records the delivery and the mark of a frame.
    fn record_measurement(
        &mut self,
        role: &CompiledRole,
        task: usize,
        measured: &FrameMeasurement,
        now: Nanos,
        io: &mut impl ClientIo,
    ) {
        if let Some((message, source)) = &measured.delivers
            && let Some(due) = self.parse_number(task, source)
        {
            io.delivered(*message, due, now);
        }
        if let Some(marking) = &measured.marking {
            self.record_mark(role, task, marking, None, now, io);
        }
    }

    fn parse_number(&self, task: usize, source: &SlotSource) -> Option<u64> {
        let text = match source {
            SlotSource::Text(slot) => self.tasks[task].texts.get(*slot)?,
            SlotSource::Own(slot) => self.own.get(*slot)?,
            _ => return None,
        };
        std::str::from_utf8(text).ok()?.parse().ok()
    }

    /// Handles a documented answer other than the expected one: the task that has waited longest is refused.
    fn handle_refusal(&mut self, role: &CompiledRole, message: MessageId, now: Nanos, io: &mut impl ClientIo) -> bool {
        let waits = |task: &super::task::ClientTask| match role.programs[task.program].ops.get(task.at) {
            Some(ProgramOperation::Expect(expect)) => {
                task.state == TaskState::Waiting && expect.refusals.contains(&message)
            }
            _ => false,
        };
        let waiting = self.tasks.iter().enumerate().filter(|(_, task)| waits(task));
        let oldest = waiting.reduce(|a, b| if (b.1.order.wrapping_sub(a.1.order) as i32) < 0 { b } else { a });
        let Some((task, _)) = oldest else { return false };
        self.note_refusal(role, task, now, io);
        self.fail_program(role, task, Some(ClientFault::Refused(message)), now, io);
        true
    }

    /// Runs the reactions to a frame; returns whether there was one.
    fn run_reactions(
        &mut self,
        role: &CompiledRole,
        now: Nanos,
        lookup: &MessageLookup,
        found: &FoundMembers<'_>,
        io: &mut impl ClientIo,
    ) -> bool {
        let mut reacted = false;
        for reaction in &lookup.reactions {
            if all_tests_hold(&reaction.tests, found) && self.equal_values_match(None, &reaction.equal, found) {
                let task = self.idle_task(role, reaction.program);
                self.prepare(role, task, now);
                for (number, slot) in &reaction.captures {
                    if let (Some(member), CaptureSlot::Text(_)) = (found[*number], slot) {
                        self.set_slot(task, *slot, member);
                    }
                }
                self.begin_at(role, task, now);
                self.record_measurement(role, task, &reaction.measured, now, io);
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
        self.capture(task, &hook.captures, answer);
        self.tasks[task].due = now;
        self.tasks[task].advance();
        self.run(role, task, now, io);
    }
}
