//! A dry run that finds out which faults would change a conversation, so that the fault matrix skips the others.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::{Choice, Trigger};
use crate::fault::Change;
use crate::machine::{EventError, Input, Machine, Output};

/// A correct machine that records which lists of changes would have changed one of its outputs. A list that is not
/// recorded would have left the whole conversation as it is.
pub struct Rehearsal {
    inner: Box<dyn Machine>,
    parts: Vec<Choice>,
    acted: Arc<Mutex<BTreeSet<usize>>>,
}

impl Rehearsal {
    /// `acted` receives the indices into `lists`.
    pub fn new(inner: Box<dyn Machine>, lists: &[&'static [Change]], acted: Arc<Mutex<BTreeSet<usize>>>) -> Rehearsal {
        Rehearsal { inner, parts: lists.iter().map(|changes| Choice::new(changes)).collect(), acted }
    }

    fn record(&mut self, cause: &Trigger, outputs: &[Output]) {
        let mut acted = self.acted.lock().unwrap_or_else(PoisonError::into_inner);
        for output in outputs {
            let mut parsed = None;
            for (index, part) in self.parts.iter_mut().enumerate() {
                if part.act_on(cause, output, &mut parsed).is_some() {
                    acted.insert(index);
                }
            }
        }
    }
}

impl Machine for Rehearsal {
    fn handle(&mut self, now: Duration, input: Input, out: &mut Vec<Output>) {
        let cause = Trigger::of(&input, true);
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

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<Output>) -> Result<Value, EventError> {
        let before = out.len();
        let answer = self.inner.event(now, event, out)?;
        self.record(&Trigger::Other(None), &out[before..]);
        Ok(answer)
    }

    fn shutdown(&mut self, now: Duration, out: &mut Vec<Output>) {
        let before = out.len();
        self.inner.shutdown(now, out);
        self.record(&Trigger::Other(None), &out[before..]);
    }
}
