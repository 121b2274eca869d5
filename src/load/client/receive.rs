//! Handles a received frame: an answer, an expected message, a trigger of a reaction, or none of these.

use super::task::State;
use super::{Client, Life};
use crate::load::Nanos;
use crate::load::client::io::{ClientFault, ClientIo};
use crate::load::compile::classifier::hold;
use crate::load::compile::json_scan::{Found, NotJsonError, same};
use crate::load::compile::message_template::Source;
use crate::load::compile::program::{Lookup, Measured, Op, Role, Slot, Wanted};
use crate::load::ids::MessageId;

impl Client {
    pub(super) fn receive(&mut self, role: &Role, now: Nanos, bytes: &[u8], io: &mut impl ClientIo) {
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
        if !matches!(self.life, Life::Opening | Life::Joined) {
            return;
        }
        let lookup = &role.lookups[usize::from(message.0)];
        // No step uses this message or a member of it.
        let Ok(found) = lookup.paths.find(bytes) else { return };
        let reacted = self.react(role, now, lookup, &found, io);
        let oldest = self.oldest(lookup, &found);
        if let Some((_, wanted)) = oldest.filter(|(task, wanted)| self.names_other_item(role, *task, wanted, &found)) {
            self.stray(role, wanted, &found, now, io);
        } else if let Some((task, wanted)) = oldest {
            self.claim(role, task, wanted, &found, now, io);
        } else if let Some(wanted) = self.late(role, lookup, &found) {
            self.accept_late(role, wanted, &found, now, io);
        } else if let Some((task, wanted)) = self.early_waiter(role, lookup, &found) {
            self.keep_early(role, task, wanted, &found, now, io);
        } else if !self.refused(role, message, now, io) {
            let mut fitting = lookup.entries.iter().filter(|wanted| hold(&wanted.tests, &found));
            if !reacted && fitting.clone().any(|wanted| self.takes_any(wanted, &found)) {
                io.fault(ClientFault::NotTaken(message), now);
            }
            if let Some(wanted) = fitting.find(|wanted| wanted.stray.is_some()) {
                self.stray(role, wanted, &found, now, io);
            }
        }
    }

    /// Whether a waiting step would take this frame whatever the values of its journey are.
    fn takes_any(&self, wanted: &Wanted, found: &Found<'_>) -> bool {
        wanted.equal.iter().all(|(_, source)| matches!(source, Source::Own(_)))
            && self.holds(None, &wanted.equal, found)
    }

    fn holds(&self, task: Option<usize>, wanted_equal: &[(usize, Source)], found: &Found<'_>) -> bool {
        wanted_equal.iter().all(|(number, source)| {
            let text = match source {
                Source::Text(slot) => task.and_then(|task| self.tasks[task].texts.get(*slot)),
                Source::Own(slot) => self.own.get(*slot),
                _ => None,
            };
            matches!((text, found[*number]), (Some(text), Some(member)) if same(text, member))
        })
    }

    fn fits(&self, task: usize, wanted: &Wanted, found: &Found<'_>) -> bool {
        hold(&wanted.tests, found) && self.holds(Some(task), &wanted.equal, found)
    }

    /// Returns the task that has waited longest for such a frame or, if none waits, one whose wait for it has just
    /// timed out.
    fn oldest<'l>(&self, lookup: &'l Lookup, found: &Found<'_>) -> Option<(usize, &'l Wanted)> {
        let mut best: Option<(bool, u32, usize, &Wanted)> = None;
        for wanted in &lookup.entries {
            for (place, task) in self.tasks.iter().enumerate().filter(|(_, task)| task.program == wanted.program) {
                let late = match task.state {
                    State::Waiting if task.at == wanted.op => false,
                    State::Between if task.late == Some(wanted.op) => true,
                    _ => continue,
                };
                // Order numbers wrap around; they are never more than half the range apart.
                let older = |known: u32| (task.order.wrapping_sub(known) as i32) < 0;
                let better = best.is_none_or(|(was_late, known, ..)| match (late, was_late) {
                    (false, true) => true,
                    (true, false) => false,
                    _ => older(known),
                });
                if better && self.fits(place, wanted, found) {
                    best = Some((late, task.order, place, wanted));
                }
            }
        }
        best.map(|(_, _, place, wanted)| (place, wanted))
    }

    /// Returns a task that has a value of this frame and will wait for the frame at a later step.
    fn early_waiter<'l>(&self, role: &Role, lookup: &'l Lookup, found: &Found<'_>) -> Option<(usize, &'l Wanted)> {
        for wanted in &lookup.entries {
            let Some(Op::Expect(expect)) = role.programs[wanted.program].ops.get(wanted.op) else { continue };
            let Some(bit) = expect.early else { continue };
            let place = self.tasks.iter().enumerate().find(|(place, task)| {
                task.program == wanted.program
                    && task.is_active()
                    && task.reached() <= wanted.op
                    && (task.at < wanted.op || task.back.is_some())
                    && task.early & (1 << bit) == 0
                    && self.fits(*place, wanted, found)
            });
            if let Some((place, _)) = place {
                return Some((place, wanted));
            }
        }
        None
    }

    /// Returns a step whose request timed out and is answered by this frame, when every task has moved on.
    fn late<'l>(&self, role: &Role, lookup: &'l Lookup, found: &Found<'_>) -> Option<&'l Wanted> {
        if self.owed == 0 || role.arrivals {
            return None;
        }
        lookup.entries.iter().find(|wanted| {
            Some(wanted.program) == role.journey
                && wanted.equal.is_empty()
                && matches!(role.programs[wanted.program].ops.get(wanted.op), Some(Op::Expect(e)) if e.may_stay_unanswered)
                && hold(&wanted.tests, found)
                && !self.is_known(role, wanted, found)
        })
    }

    /// Handles a late answer, such as a job assigned after its claim timed out, in an extra task next to the running
    /// ones.
    fn accept_late(&mut self, role: &Role, wanted: &Wanted, found: &Found<'_>, now: Nanos, io: &mut impl ClientIo) {
        self.owed -= 1;
        let asked = self.tasks.iter().position(|task| task.program == wanted.program && task.is_taken());
        let task = self.spare(role, wanted.program);
        self.prepare(role, task, now);
        self.begin_at(role, task, now);
        if let Some(journey) = role.programs[wanted.program].journey {
            io.begun(journey, now);
        }
        self.tasks[task].extra = true;
        self.tasks[task].at = wanted.op;
        if let Some(asked) = asked.filter(|asked| *asked != task) {
            // It is unknown which request the frame answers, so its time counts from the latest one.
            self.tasks[task].times = self.tasks[asked].times.clone();
        }
        self.came(role, task, wanted, found, now, io);
        self.tasks[task].go_on();
        self.run(role, task, now, io);
    }

    fn claim(
        &mut self,
        role: &Role,
        task: usize,
        wanted: &Wanted,
        found: &Found<'_>,
        now: Nanos,
        io: &mut impl ClientIo,
    ) {
        if self.tasks[task].state == State::Between {
            // The journey continues at the step that had timed out.
            self.tasks[task].at = wanted.op;
            self.tasks[task].late = None;
            self.tasks[task].noted = 0;
            self.owed = self.owed.saturating_sub(1);
            self.tasks[task].item = self.unnamed_item(role);
            self.tasks[task].prepared = false;
        }
        self.came(role, task, wanted, found, now, io);
        let one = &mut self.tasks[task];
        one.due = now;
        one.go_on();
        self.run(role, task, now, io);
    }

    fn keep_early(
        &mut self,
        role: &Role,
        task: usize,
        wanted: &Wanted,
        found: &Found<'_>,
        now: Nanos,
        io: &mut impl ClientIo,
    ) {
        if let Some(Op::Expect(expect)) = role.programs[wanted.program].ops.get(wanted.op)
            && let Some(bit) = expect.early
        {
            self.tasks[task].early |= 1 << bit;
        }
        self.came(role, task, wanted, found, now, io);
    }

    /// Completes a step with its frame: captures values, records times and marks.
    fn came(
        &mut self,
        role: &Role,
        task: usize,
        wanted: &Wanted,
        found: &Found<'_>,
        now: Nanos,
        io: &mut impl ClientIo,
    ) {
        for (number, slot) in &wanted.captures {
            match found[*number] {
                Some(member) => self.keep(task, *slot, member),
                None => self.lack(task, *slot),
            }
        }
        let Some(Op::Expect(expect)) = role.programs[wanted.program].ops.get(wanted.op) else { return };
        if let Some((asked, times)) = expect.answers {
            let (due, sent) = self.tasks[task].times[times];
            io.answered(asked, due, sent, now);
        }
        self.measured(role, task, &expect.measured, now, io);
    }

    /// Records the delivery and the mark of a frame.
    fn measured(&mut self, role: &Role, task: usize, measured: &Measured, now: Nanos, io: &mut impl ClientIo) {
        if let Some((message, source)) = &measured.delivers
            && let Some(due) = self.number(task, source)
        {
            io.delivered(*message, due, now);
        }
        if let Some(marking) = &measured.marking {
            self.mark(role, task, marking, None, now, io);
        }
    }

    fn number(&self, task: usize, source: &Source) -> Option<u64> {
        let text = match source {
            Source::Text(slot) => self.tasks[task].texts.get(*slot)?,
            Source::Own(slot) => self.own.get(*slot)?,
            _ => return None,
        };
        std::str::from_utf8(text).ok()?.parse().ok()
    }

    /// Handles a documented answer other than the expected one: the task that has waited longest is refused.
    fn refused(&mut self, role: &Role, message: MessageId, now: Nanos, io: &mut impl ClientIo) -> bool {
        let waits = |task: &super::task::Task| match role.programs[task.program].ops.get(task.at) {
            Some(Op::Expect(expect)) => task.state == State::Waiting && expect.refusals.contains(&message),
            _ => false,
        };
        let waiting = self.tasks.iter().enumerate().filter(|(_, task)| waits(task));
        let oldest = waiting.reduce(|a, b| if (b.1.order.wrapping_sub(a.1.order) as i32) < 0 { b } else { a });
        let Some((task, _)) = oldest else { return false };
        self.note_refusal(role, task, now, io);
        self.fail(role, task, Some(ClientFault::Refused(message)), now, io);
        true
    }

    /// Runs the reactions to a frame; returns whether there was one.
    fn react(&mut self, role: &Role, now: Nanos, lookup: &Lookup, found: &Found<'_>, io: &mut impl ClientIo) -> bool {
        let mut reacted = false;
        for reaction in &lookup.reactions {
            if hold(&reaction.tests, found) && self.holds(None, &reaction.equal, found) {
                let task = self.spare(role, reaction.program);
                self.prepare(role, task, now);
                for (number, slot) in &reaction.captures {
                    if let (Some(member), Slot::Text(_)) = (found[*number], slot) {
                        self.keep(task, *slot, member);
                    }
                }
                self.begin_at(role, task, now);
                self.measured(role, task, &reaction.measured, now, io);
                self.run(role, task, now, io);
                reacted = true;
            }
        }
        reacted
    }

    /// Handles the answer of a hook; answers come in the order of the calls.
    pub(super) fn answered(&mut self, role: &Role, now: Nanos, answer: Option<&[u8]>, io: &mut impl ClientIo) {
        let Some(task) = self.tasks.iter().position(|task| task.state == State::Hooking) else { return };
        let (program, at) = (self.tasks[task].program, self.tasks[task].at);
        let Some(Op::Hook(hook)) = role.programs[program].ops.get(at) else { return };
        let Some(answer) = answer else {
            return self.fail(role, task, Some(ClientFault::Hook), now, io);
        };
        self.capture(task, &hook.captures, answer);
        self.tasks[task].due = now;
        self.tasks[task].go_on();
        self.run(role, task, now, io);
    }
}
