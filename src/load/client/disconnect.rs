//! The tasks of a client when its connection ends, when it has reconnected, and when the run is over.

use super::VirtualClient;
use super::task::TaskState;
use crate::load::Nanos;
use crate::load::client::io::{ClientFault, ClientIo, JourneyWait};
use crate::load::compile::program::{CompiledRole, ProgramOperation};
use crate::load::metrics::{JourneyCount, Measurement, MessageCount};
use crate::load::plan::ReconnectPolicy;

impl VirtualClient {
    /// Handles the end of the connection. A task may still receive a frame on the next connection if the frame has a
    /// value that only this task knows.
    pub(super) fn handle_disconnect(&mut self, role: &CompiledRole, task: usize, now: Nanos, io: &mut impl ClientIo) {
        let one = &self.tasks[task];
        let code = &role.programs[one.program];
        let correlated = matches!(code.ops.get(one.journey_position()), Some(ProgramOperation::Expect(expect)) if expect.early.is_some());
        let journey = code.journey.is_some();
        let keeps = role.reconnect != ReconnectPolicy::Never && !self.finished;
        if one.is_active() {
            self.note_disconnect(role, task, now, io);
        }
        match self.tasks[task].state {
            TaskState::Waiting if journey && correlated && keeps => {
                let one = &mut self.tasks[task];
                // Answers to steps of `resumes` on the ended connection will not come.
                if let Some(back) = one.back.take()
                    && let Some(ProgramOperation::Expect(expect)) = code.ops.get(back)
                {
                    one.at = back;
                    one.wake = now.saturating_add(expect.within);
                }
            }
            TaskState::Idle => {}
            TaskState::Between => self.tasks[task].become_idle(),
            _ if journey => {
                self.fail_program(role, task, Some(ClientFault::Aborted), now, io);
            }
            _ => self.tasks[task].become_idle(),
        }
    }

    /// Handles a new connection: runs the steps of `resumes`, which ask again for the frame that the task waits for.
    pub(super) fn resume(&mut self, role: &CompiledRole, task: usize, now: Nanos, io: &mut impl ClientIo) {
        let one = &mut self.tasks[task];
        let Some(at) = role.programs[one.program].resumes.filter(|_| one.state == TaskState::Waiting) else { return };
        one.back = Some(one.at);
        one.at = at;
        // Frames that came early on the previous connection do not answer requests on this one.
        let asked = role.programs[one.program].ops[at..].iter();
        let bits = asked.filter_map(|op| if let ProgramOperation::Expect(expect) = op { expect.early } else { None });
        one.early &= !bits.fold(0, |all, bit| all | 1 << bit);
        one.due = now;
        one.wake = Nanos::MAX;
        one.state = TaskState::Running;
        self.run(role, task, now, io);
    }

    /// Aborts a task at the end of the run.
    pub(super) fn abort(&mut self, role: &CompiledRole, task: usize, now: Nanos, io: &mut impl ClientIo) {
        let one = &self.tasks[task];
        let code = &role.programs[one.program];
        let optional =
            matches!(code.ops.get(one.at), Some(ProgramOperation::Expect(expect)) if expect.may_stay_unanswered);
        if let Some(journey) = code.journey.filter(|_| one.is_active()) {
            let waiting = one.state == TaskState::Waiting;
            let pending = match code.ops.get(one.at) {
                Some(ProgramOperation::Expect(expect)) if waiting && !optional => expect.answers,
                _ => None,
            };
            let assumed = one.source.is_assumed() || self.rests_on_assumption(role, task);
            if !(optional && waiting) {
                self.note_held(role, task, now, io);
            }
            if let Some((message, _)) = pending.filter(|_| !assumed) {
                io.record(Measurement::Messages(message, MessageCount::Pending, 1), now);
            }
            // No message has begun a journey that waits for one.
            let untouched = waiting && one.at == 0;
            if assumed && !(optional && waiting) {
                io.record(Measurement::Journeys(journey, JourneyCount::Assumed, 1), now);
            } else if role.drains || untouched || (optional && waiting) {
                // A role that drains continues until the run ends, so one of its journeys is always cut short.
                io.record(Measurement::JourneyEndedEarly(journey), now);
            } else {
                if waiting {
                    io.journey_waited(JourneyWait { program: one.program, at: one.at, timed_out: false });
                }
                io.fault(ClientFault::Aborted, now);
                io.record(Measurement::Journeys(journey, JourneyCount::Unfinished, 1), now);
            }
        }
        self.tasks[task].become_idle();
    }
}
