//! Which faults have anything to do in a conversation, found out in one go: so a matrix need not play what cannot differ.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::{Choice, Spoken};
use crate::fault::Change;
use crate::machine::{EventError, Input, Machine, Output};

/// A correct machine that notes which lists of changes would have acted on what it says. Up to the first time that one
/// acts, a machine mangled by it says the same; where it never does, to the end.
pub struct Rehearsal {
    inner: Box<dyn Machine>,
    parts: Vec<Choice>,
    acted: Arc<Mutex<BTreeSet<usize>>>,
}

impl Rehearsal {
    /// `acted` gets the indices into `lists`.
    pub fn new(inner: Box<dyn Machine>, lists: &[&'static [Change]], acted: Arc<Mutex<BTreeSet<usize>>>) -> Rehearsal {
        Rehearsal { inner, parts: lists.iter().map(|changes| Choice::new(changes)).collect(), acted }
    }

    fn note(&mut self, cause: &Spoken, said: &[Output]) {
        let mut acted = self.acted.lock().unwrap_or_else(PoisonError::into_inner);
        for output in said {
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
        let cause = Spoken::of(&input, true);
        let before = out.len();
        self.inner.handle(now, input, out);
        self.note(&cause, &out[before..]);
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
        self.note(&Spoken::Other(None), &out[before..]);
        Ok(answer)
    }

    fn shutdown(&mut self, now: Duration, out: &mut Vec<Output>) {
        let before = out.len();
        self.inner.shutdown(now, out);
        self.note(&Spoken::Other(None), &out[before..]);
    }
}
