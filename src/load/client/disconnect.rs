//! What becomes of what a client was doing when its connection ends, when it has another one, and when the run is over.

use super::Client;
use super::task::State;
use crate::load::Nanos;
use crate::load::client::io::{ClientFault, ClientIo};
use crate::load::compile::program::{Op, Role};
use crate::load::plan::Reconnect;

impl Client {
    /// The connection is gone: a task that waits for what only it knows may get that on the next one.
    pub(super) fn cut_off(&mut self, role: &Role, task: usize, now: Nanos, port: &mut impl ClientIo) {
        let one = &self.tasks[task];
        let code = &role.programs[one.program];
        let correlated = matches!(code.ops.get(one.reached()), Some(Op::Expect(expect)) if expect.early.is_some());
        let journey = code.journey.is_some();
        let keeps = role.reconnect != Reconnect::Never && !self.finished;
        if one.is_active() {
            self.separated(role, task, now, port);
        }
        match self.tasks[task].state {
            State::Waiting if journey && correlated && keeps => {
                let one = &mut self.tasks[task];
                // It does not wait for answers of the connection that is gone.
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
                port.trouble(ClientFault::Aborted, now);
                self.fail(role, task, now, port);
            }
            _ => self.tasks[task].rest(),
        }
    }

    /// There is another connection: what is waited for is asked for once more.
    pub(super) fn resume(&mut self, role: &Role, task: usize, now: Nanos, port: &mut impl ClientIo) {
        let one = &mut self.tasks[task];
        let Some(at) = role.programs[one.program].resumes.filter(|_| one.state == State::Waiting) else { return };
        one.back = Some(one.at);
        one.at = at;
        // What came early on another connection is no answer on this one.
        let asked = role.programs[one.program].ops[at..].iter();
        let bits = asked.filter_map(|op| if let Op::Expect(expect) = op { expect.early } else { None });
        one.early &= !bits.fold(0, |all, bit| all | 1 << bit);
        one.due = now;
        one.wake = Nanos::MAX;
        one.state = State::Running;
        self.run(role, task, now, port);
    }

    /// The run is over.
    pub(super) fn abandon(&mut self, role: &Role, task: usize, now: Nanos, port: &mut impl ClientIo) {
        let one = &self.tasks[task];
        let code = &role.programs[one.program];
        let optional = matches!(code.ops.get(one.at), Some(Op::Expect(expect)) if expect.may_stay_unanswered);
        if let Some(journey) = code.journey.filter(|_| one.is_active()) {
            if optional && one.state == State::Waiting {
                port.idle(journey, now);
            } else {
                port.trouble(ClientFault::Aborted, now);
                port.failed(journey, now);
            }
        }
        self.tasks[task].rest();
    }
}
