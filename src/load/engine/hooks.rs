//! Hooks of a load run: HTTP requests and commands, carried out outside the shards' threads.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use mio::Waker;
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, mpsc as bounded};

use crate::config::DEFAULT_PATIENCE;
use crate::hub::hook::{self, HookCall};
use crate::hub::prepare::PreparedInstance;
use crate::load::compile::program::CompiledPlan;
use crate::load::ids::HookId;

/// The most queued calls; further ones fail at once.
const MAX_QUEUED_CALLS: usize = 4096;

/// The most concurrent hooks.
const AT_ONCE: usize = 64;

/// An answer: the slot of the client, and JSON or `None` if the hook failed.
pub type HookAnswer = (u32, Option<Vec<u8>>);

/// A call with the channel for its answer.
pub struct QueuedHookCall {
    pub hook: HookId,
    /// The arguments of the call, as JSON text.
    pub arguments: Vec<u8>,
    slot: u32,
    answers: Sender<HookAnswer>,
    waker: Arc<Waker>,
}

impl QueuedHookCall {
    /// Sends the answer.
    pub fn answer(self, answer: Option<Vec<u8>>) {
        // The shard may have ended.
        drop(self.answers.send((self.slot, answer)));
        drop(self.waker.wake());
    }
}

/// A shard's end of the channel of hook calls.
pub struct HookCallChannel {
    to: bounded::Sender<QueuedHookCall>,
    answers: Receiver<HookAnswer>,
    back: Sender<HookAnswer>,
    waker: Arc<Waker>,
    /// Calls that wait for the answer to an earlier call of the same slot, so that a client's calls are made in order.
    waiting: HashMap<u32, VecDeque<(HookId, Vec<u8>)>>,
}

/// Creates the queue of calls; the receiver's owner carries them out.
pub fn hook_call_queue() -> (bounded::Sender<QueuedHookCall>, bounded::Receiver<QueuedHookCall>) {
    bounded::channel(MAX_QUEUED_CALLS)
}

impl HookCallChannel {
    pub fn new(to: bounded::Sender<QueuedHookCall>, waker: Arc<Waker>) -> Self {
        // Bounded by the number of calls under way.
        let (back, answers) = channel();
        Self { to, answers, back, waker, waiting: HashMap::new() }
    }

    /// Makes a call as soon as the earlier ones of the same slot have been answered.
    pub fn make_call(&mut self, slot: u32, hook: HookId, arguments: Vec<u8>) {
        match self.waiting.entry(slot) {
            Entry::Occupied(mut busy) => busy.get_mut().push_back((hook, arguments)),
            Entry::Vacant(idle) => {
                idle.insert(VecDeque::new());
                self.queue_call(slot, hook, arguments);
            }
        }
    }

    fn queue_call(&self, slot: u32, hook: HookId, arguments: Vec<u8>) {
        let call = QueuedHookCall { hook, arguments, slot, answers: self.back.clone(), waker: Arc::clone(&self.waker) };
        if let Err(bounded::error::TrySendError::Full(call) | bounded::error::TrySendError::Closed(call)) =
            self.to.try_send(call)
        {
            call.answer(None);
        }
    }

    /// Returns the next answer.
    pub fn next_answer(&mut self) -> Option<HookAnswer> {
        let (slot, answer) = self.answers.try_recv().ok()?;
        match self.waiting.get_mut(&slot).and_then(VecDeque::pop_front) {
            Some((hook, arguments)) => self.queue_call(slot, hook, arguments),
            None => drop(self.waiting.remove(&slot)),
        }
        Some((slot, answer))
    }
}

/// Carries out the hook calls of clients, those of each client in order.
pub async fn carry_out(
    mut calls: bounded::Receiver<QueuedHookCall>,
    prepared: Arc<CompiledPlan>,
    instance: Arc<PreparedInstance>,
) {
    let settings = instance.settings.iter().map(|(name, value)| (name.clone(), value.clone()));
    let settings: Arc<Map<String, Value>> = Arc::new(settings.collect());
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    while let Some(call) = calls.recv().await {
        let Ok(permit) = Arc::clone(&at_once).acquire_owned().await else { return };
        let (prepared, instance, settings) = (Arc::clone(&prepared), Arc::clone(&instance), Arc::clone(&settings));
        tokio::spawn(async move {
            let _permit = permit;
            let answer = run_hook(&call, &prepared, &instance, &settings).await;
            call.answer(answer);
        });
    }
}

/// Returns the answer of a hook as JSON text; `None` if it failed.
async fn run_hook(
    call: &QueuedHookCall,
    prepared: &CompiledPlan,
    instance: &PreparedInstance,
    settings: &Map<String, Value>,
) -> Option<Vec<u8>> {
    let name = prepared.hooks.get(usize::from(call.hook.0))?;
    let spec = instance.hooks.get(name)?;
    let arguments: Value = serde_json::from_slice(&call.arguments).ok()?;
    let hook_call = HookCall {
        name,
        args: &arguments["args"],
        message: arguments.get("message"),
        settings,
        trust: instance.trust.as_ref(),
    };
    let answer = hook::run_hook(spec, &hook_call, DEFAULT_PATIENCE).await.ok()?;
    serde_json::to_vec(&answer).ok()
}
