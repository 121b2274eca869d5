//! Hooks of a load run: HTTP requests and commands, carried out outside the shards' threads.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use mio::Waker;
use tokio::sync::mpsc as bounded;

use crate::load::ids::HookId;

/// The most queued calls; further ones fail at once.
const WAITING: usize = 4096;

/// An answer: the slot of the client, and JSON or `None` if the hook failed.
pub type Answer = (u32, Option<Vec<u8>>);

/// A call with the channel for its answer.
pub struct Call {
    pub hook: HookId,
    /// The arguments of the call, as JSON text.
    pub arguments: Vec<u8>,
    slot: u32,
    answers: Sender<Answer>,
    waker: Arc<Waker>,
}

impl Call {
    /// Sends the answer.
    pub fn answer(self, answer: Option<Vec<u8>>) {
        // The shard may have ended.
        drop(self.answers.send((self.slot, answer)));
        drop(self.waker.wake());
    }
}

/// A shard's end of the channel of hook calls.
pub struct Calls {
    to: bounded::Sender<Call>,
    answers: Receiver<Answer>,
    back: Sender<Answer>,
    waker: Arc<Waker>,
    /// Calls that wait for the answer to an earlier call of the same slot, so that a client's calls are made in order.
    waiting: HashMap<u32, VecDeque<(HookId, Vec<u8>)>>,
}

/// Creates the queue of calls; the receiver's owner carries them out.
pub fn queue() -> (bounded::Sender<Call>, bounded::Receiver<Call>) {
    bounded::channel(WAITING)
}

impl Calls {
    pub fn new(to: bounded::Sender<Call>, waker: Arc<Waker>) -> Self {
        // Bounded by the number of calls under way.
        let (back, answers) = channel();
        Self { to, answers, back, waker, waiting: HashMap::new() }
    }

    /// Makes a call as soon as the earlier ones of the same slot have been answered.
    pub fn make(&mut self, slot: u32, hook: HookId, arguments: Vec<u8>) {
        match self.waiting.entry(slot) {
            Entry::Occupied(mut busy) => busy.get_mut().push_back((hook, arguments)),
            Entry::Vacant(idle) => {
                idle.insert(VecDeque::new());
                self.pass_on(slot, hook, arguments);
            }
        }
    }

    fn pass_on(&self, slot: u32, hook: HookId, arguments: Vec<u8>) {
        let call = Call { hook, arguments, slot, answers: self.back.clone(), waker: Arc::clone(&self.waker) };
        if let Err(bounded::error::TrySendError::Full(call) | bounded::error::TrySendError::Closed(call)) =
            self.to.try_send(call)
        {
            call.answer(None);
        }
    }

    /// Returns the next answer.
    pub fn answered(&mut self) -> Option<Answer> {
        let (slot, answer) = self.answers.try_recv().ok()?;
        match self.waiting.get_mut(&slot).and_then(VecDeque::pop_front) {
            Some((hook, arguments)) => self.pass_on(slot, hook, arguments),
            None => drop(self.waiting.remove(&slot)),
        }
        Some((slot, answer))
    }
}
