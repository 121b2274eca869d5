//! A dry run that finds out which faults would change a conversation, so that the fault matrix skips the others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

use super::{ChangeMatcher, Trigger};
use crate::fault::OutputChange;
use crate::machine::{EventError, Machine, MachineInput, MachineOutput};

/// A correct machine that records which lists of changes would have changed one of its outputs. A list that is not
/// recorded would have left the whole conversation as it is.
pub struct RehearsalMachine {
    inner: Box<dyn Machine>,
    parts: Vec<ChangeMatcher>,
    acted: Arc<Mutex<BTreeSet<usize>>>,
}

impl RehearsalMachine {
    /// `acted` receives the indices into `lists`.
    pub fn new(
        inner: Box<dyn Machine>,
        lists: &[&'static [OutputChange]],
        acted: Arc<Mutex<BTreeSet<usize>>>,
    ) -> RehearsalMachine {
        RehearsalMachine { inner, parts: lists.iter().map(|changes| ChangeMatcher::new(*changes)).collect(), acted }
    }

    fn record(&mut self, cause: &Trigger, outputs: &[MachineOutput]) {
        let mut acted = self.acted.lock();
        for output in outputs {
            let mut parsed = None;
            for (index, part) in self.parts.iter_mut().enumerate() {
                if part.next_action(cause, output, &mut parsed).is_some() {
                    acted.insert(index);
                }
            }
        }
    }
}

impl Machine for RehearsalMachine {
    fn handle(&mut self, now: Duration, input: MachineInput, out: &mut Vec<MachineOutput>) {
        let cause = Trigger::from_input(&input, true);
        let before = out.len();
        self.inner.handle(now, input, out);
        self.record(&cause, &out[before..]);
    }

    fn deadline(&self) -> Option<Duration> {
        self.inner.deadline()
    }

    fn state(&self) -> Value {
        self.inner.state()
    }

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<MachineOutput>) -> Result<Value, EventError> {
        let before = out.len();
        let answer = self.inner.event(now, event, out)?;
        self.record(&Trigger::Other(None), &out[before..]);
        Ok(answer)
    }

    fn shutdown(&mut self, now: Duration, out: &mut Vec<MachineOutput>) {
        let before = out.len();
        self.inner.shutdown(now, out);
        self.record(&Trigger::Other(None), &out[before..]);
    }
}
