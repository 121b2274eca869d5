//! Hooks of a load run: what happens outside the sockets, away from the shards' threads.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use mio::Waker;
use tokio::sync::mpsc as bounded;

use crate::load::ids::HookId;

/// Calls that may wait; more are refused at once, and counted as hooks that failed.
const WAITING: usize = 4096;

/// An answer: whose, and JSON, or `None` where the hook failed.
pub type Answer = (u32, Option<Vec<u8>>);

/// A call on its way, with where its answer goes.
pub struct Call {
    pub hook: HookId,
    /// JSON.
    pub arguments: Vec<u8>,
    seat: u32,
    answers: Sender<Answer>,
    waker: Arc<Waker>,
}

impl Call {
    /// Answers it.
    pub fn answer(self, answer: Option<Vec<u8>>) {
        // A shard that is gone does not mind.
        drop(self.answers.send((self.seat, answer)));
        drop(self.waker.wake());
    }
}

/// A shard's side of it.
pub struct Calls {
    to: bounded::Sender<Call>,
    answers: Receiver<Answer>,
    back: Sender<Answer>,
    waker: Arc<Waker>,
    /// What waits for the answer to an earlier call of the same seat, so that a client's calls are made in their order.
    waiting: HashMap<u32, VecDeque<(HookId, Vec<u8>)>>,
}

/// Where calls come in: whoever carries them out takes them from the receiver.
pub fn desk() -> (bounded::Sender<Call>, bounded::Receiver<Call>) {
    bounded::channel(WAITING)
}

impl Calls {
    pub fn new(to: bounded::Sender<Call>, waker: Arc<Waker>) -> Self {
        // Bounded by the calls that wait and those under way.
        let (back, answers) = channel();
        Self { to, answers, back, waker, waiting: HashMap::new() }
    }

    /// Makes a call, as soon as the earlier ones of the same seat have been answered.
    pub fn make(&mut self, seat: u32, hook: HookId, arguments: Vec<u8>) {
        match self.waiting.entry(seat) {
            Entry::Occupied(mut busy) => busy.get_mut().push_back((hook, arguments)),
            Entry::Vacant(idle) => {
                idle.insert(VecDeque::new());
                self.pass_on(seat, hook, arguments);
            }
        }
    }

    fn pass_on(&self, seat: u32, hook: HookId, arguments: Vec<u8>) {
        let call = Call { hook, arguments, seat, answers: self.back.clone(), waker: Arc::clone(&self.waker) };
        if let Err(bounded::error::TrySendError::Full(call) | bounded::error::TrySendError::Closed(call)) =
            self.to.try_send(call)
        {
            call.answer(None);
        }
    }

    /// The next answer that has come.
    pub fn answered(&mut self) -> Option<Answer> {
        let (seat, answer) = self.answers.try_recv().ok()?;
        match self.waiting.get_mut(&seat).and_then(VecDeque::pop_front) {
            Some((hook, arguments)) => self.pass_on(seat, hook, arguments),
            None => drop(self.waiting.remove(&seat)),
        }
        Some((seat, answer))
    }
}
