//! The tasks of a client when its connection ends, when it has reconnected, and when the run is over.

use super::Client;
use super::task::State;
use crate::load::Nanos;
use crate::load::client::io::{ClientFault, ClientIo};
use crate::load::compile::program::{Op, Role};
use crate::load::plan::Reconnect;

impl Client {
    /// Handles the end of the connection: a task that waits for a frame with a value only it knows may receive it on
    /// the next connection.
    pub(super) fn disconnected(&mut self, role: &Role, task: usize, now: Nanos, io: &mut impl ClientIo) {
        let one = &self.tasks[task];
        let code = &role.programs[one.program];
        let correlated = matches!(code.ops.get(one.reached()), Some(Op::Expect(expect)) if expect.early.is_some());
        let journey = code.journey.is_some();
        let keeps = role.reconnect != Reconnect::Never && !self.finished;
        if one.is_active() {
            self.note_disconnect(role, task, now, io);
        }
        match self.tasks[task].state {
            State::Waiting if journey && correlated && keeps => {
                let one = &mut self.tasks[task];
                // Answers to steps of `resumes` on the ended connection will not come.
                if let Some(back) = one.back.take()
                    && let Some(Op::Expect(expect)) = code.ops.get(back)
                {
                    one.at = back;
                    one.wake = now.saturating_add(expect.within);
                }
            }
            State::Idle => {}
            State::Between => self.tasks[task].rest(),
            _ if journey => {
                self.fail(role, task, Some(ClientFault::Aborted), now, io);
            }
            _ => self.tasks[task].rest(),
        }
    }

    /// Handles a new connection: runs the steps of `resumes`, which ask again for the frame that the task waits for.
    pub(super) fn resume(&mut self, role: &Role, task: usize, now: Nanos, io: &mut impl ClientIo) {
        let one = &mut self.tasks[task];
        let Some(at) = role.programs[one.program].resumes.filter(|_| one.state == State::Waiting) else { return };
        one.back = Some(one.at);
        one.at = at;
        // Frames that came early on the previous connection do not answer requests on this one.
        let asked = role.programs[one.program].ops[at..].iter();
        let bits = asked.filter_map(|op| if let Op::Expect(expect) = op { expect.early } else { None });
        one.early &= !bits.fold(0, |all, bit| all | 1 << bit);
        one.due = now;
        one.wake = Nanos::MAX;
        one.state = State::Running;
        self.run(role, task, now, io);
    }

    /// Aborts a task at the end of the run.
    pub(super) fn abort(&mut self, role: &Role, task: usize, now: Nanos, io: &mut impl ClientIo) {
        let one = &self.tasks[task];
        let code = &role.programs[one.program];
        let optional = matches!(code.ops.get(one.at), Some(Op::Expect(expect)) if expect.may_stay_unanswered);
        if let Some(journey) = code.journey.filter(|_| one.is_active()) {
            if optional && one.state == State::Waiting {
                io.idle(journey, now);
            } else {
                self.note_held(role, task, now, io);
                io.fault(ClientFault::Aborted, now);
                io.failed(journey, now);
            }
        }
        self.tasks[task].rest();
    }
}
