//! What both sides have sent on a connection, as far as later frames depend on it: the requests that are answered by
//! id, the lifecycles of ids, and the messages that `sent_frames` and `all_frames` return.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use crate::interpreter::Conversation;
use crate::interpreter::checks::ALWAYS_STEP;
use crate::interpreter::decode::memory_weight;
use crate::interpreter::finding::ComparisonOutcome;
use crate::protocol::{FrameDirection, Pack};
use crate::scenario::model::{ActorId, AlwaysEntry, CheckId, Lifecycle, Program};
use crate::scenario::value::Wire;
use crate::syntax::matcher::shorten;

/// The most ids of a connection that are remembered, in each lifecycle and for replies.
const MAX_IDS: usize = 10_000;
/// The longest id that is remembered, in bytes.
const MAX_ID_BYTES: usize = 1 << 10;
/// The characters of an id that a finding shows.
const MAX_ID_CHARS: usize = 100;
/// The most messages sent on a connection that are kept, and their approximate limit in bytes.
const MAX_SENT: usize = 10_000;
const MAX_SENT_BYTES: usize = 16 << 20;

/// The exchange on one connection.
#[derive(Default)]
pub struct Exchange {
    /// The messages, by index, that were sent with a correlation id.
    requests: HashMap<String, Vec<usize>>,
    /// The ids of `requests`, oldest first.
    requested: VecDeque<String>,
    /// The state of each id, for each lifecycle of the program.
    lifecycles: Vec<HashMap<OperationKey, OperationState>>,
    /// Whether it is uncertain what the hub has read, because a step sent raw data or a deliberately wrong message, or
    /// exceeded a limit. Sent messages then cannot make a hub message wrong.
    pub unknown: bool,
    /// The messages sent, oldest first, if an entry of `always` uses them.
    pub sent: VecDeque<SentMessage>,
    sent_bytes: usize,
    /// The types of the messages that were dropped from `sent`, by index in the pack.
    pub dropped: BTreeSet<usize>,
}

/// A message that was sent, in the documented form.
pub struct SentMessage {
    pub message: usize,
    pub value: Value,
    pub wire: Arc<Wire>,
}

/// An id, and whether the hub chose it: both sides may use the same ids.
#[derive(PartialEq, Eq, Hash)]
struct OperationKey {
    by_hub: bool,
    id: String,
}

#[derive(Default)]
struct OperationState {
    /// How often the id was opened and not yet closed.
    open: usize,
    /// Whether the other side closed it, so that messages may still be on their way.
    left: bool,
}

impl Exchange {
    /// Returns the messages, by index, that were sent with this correlation id.
    pub fn requests(&self, id: &str) -> Vec<usize> {
        self.requests.get(id).cloned().unwrap_or_default()
    }

    fn record_request(&mut self, pack: &Pack, message: usize, value: &Value) {
        let Some(id) = pack.messages[message].correlation_key(value).filter(|id| id.len() <= MAX_ID_BYTES) else {
            return;
        };
        if self.requested.len() == MAX_IDS
            && let Some(oldest) = self.requested.pop_front()
        {
            self.requests.remove(&oldest);
        }
        let asked = self.requests.entry(id.clone()).or_default();
        if asked.is_empty() {
            self.requested.push_back(id);
        }
        if !asked.contains(&message) {
            asked.push(message);
        }
    }

    fn keep_sent(&mut self, sent: SentMessage) {
        self.sent_bytes += memory_weight(&sent.wire.text);
        self.sent.push_back(sent);
        while self.sent.len() > MAX_SENT || self.sent_bytes > MAX_SENT_BYTES && self.sent.len() > 1 {
            if let Some(oldest) = self.sent.pop_front() {
                self.sent_bytes -= memory_weight(&oldest.wire.text);
                self.dropped.insert(oldest.message);
            }
        }
    }

    /// Returns the state of an id in the lifecycle with this number; `None` if there are too many ids.
    fn state(&mut self, lifecycle: usize, key: OperationKey) -> Option<&mut OperationState> {
        if self.lifecycles.len() <= lifecycle {
            self.lifecycles.resize_with(lifecycle + 1, HashMap::new);
        }
        let states = &mut self.lifecycles[lifecycle];
        if key.id.len() > MAX_ID_BYTES || states.len() >= MAX_IDS && !states.contains_key(&key) {
            self.unknown = true;
            return None;
        }
        Some(states.entry(key).or_default())
    }

    fn known_state(&mut self, lifecycle: usize, by_hub: bool, id: &str) -> Option<&mut OperationState> {
        self.lifecycles.get_mut(lifecycle)?.get_mut(&OperationKey { by_hub, id: id.to_owned() })
    }

    /// Returns the number of ids that are remembered.
    pub fn id_count(&self) -> usize {
        self.requests.len() + self.lifecycles.iter().map(HashMap::len).sum::<usize>()
    }

    /// Records the ids of a message that was sent as the pack demands.
    pub fn send_ids(&mut self, program: &Program, message: usize, value: &Value) {
        for (number, lifecycle) in lifecycles(program).enumerate() {
            if let Some((role, id)) = lifecycle.role_of(&program.pack, Some(message), value) {
                self.record_sent(number, role, &id);
            }
        }
    }

    /// Records the ids of a message of the hub. Returns the checks of the lifecycles that judge it.
    pub fn judge_ids(
        &mut self,
        program: &Program,
        message: Option<usize>,
        json: &Value,
    ) -> Vec<(CheckId, ComparisonOutcome)> {
        let mut judged = Vec::new();
        for (number, lifecycle) in lifecycles(program).enumerate() {
            let Some((role, id)) = lifecycle.role_of(&program.pack, message, json) else { continue };
            let fault = self.record_received(number, role, &id);
            if self.unknown || role == LifecycleRole::Opens {
                continue;
            }
            for (check, of, expected) in [
                (lifecycle.opened, LifecycleFault::Unopened, "an id that was opened on this connection"),
                (lifecycle.ended, LifecycleFault::Ended, "no message for an id that has ended"),
            ] {
                let Some(check) = check else { continue };
                // An id that was never opened has not ended either.
                if of == LifecycleFault::Ended && fault == Some(LifecycleFault::Unopened) {
                    continue;
                }
                let finding = if fault == Some(of) {
                    let name = message.map_or("a message", |message| &program.pack.messages[message].name);
                    let id = shorten(&id, MAX_ID_CHARS);
                    let why = match of {
                        LifecycleFault::Unopened => format!("no message on this connection opened the id {id}"),
                        LifecycleFault::Ended => format!("the id {id} has already ended on this connection"),
                    };
                    ComparisonOutcome::Broken {
                        expected: expected.to_owned(),
                        found: id,
                        message: format!("`{name}`: {why}"),
                        place: None,
                    }
                } else {
                    ComparisonOutcome::Holds
                };
                judged.push((check, finding));
            }
        }
        judged
    }

    fn record_sent(&mut self, number: usize, role: LifecycleRole, id: &str) {
        match role {
            LifecycleRole::Opens => {
                if let Some(state) = self.state(number, OperationKey { by_hub: false, id: id.to_owned() }) {
                    state.open += 1;
                }
            }
            LifecycleRole::Carries => {}
            LifecycleRole::Closes => {
                if let Some(state) = self.known_state(number, true, id) {
                    state.open = state.open.saturating_sub(1);
                }
                if let Some(state) = self.known_state(number, false, id) {
                    state.left = true;
                }
            }
        }
    }

    /// Records a message of the hub, and returns what is wrong with its id.
    fn record_received(&mut self, number: usize, role: LifecycleRole, id: &str) -> Option<LifecycleFault> {
        if role == LifecycleRole::Opens {
            if let Some(state) = self.state(number, OperationKey { by_hub: true, id: id.to_owned() }) {
                state.open += 1;
            }
            return None;
        }
        let mut known = false;
        let mut fine = false;
        for by_hub in [false, true] {
            let Some(state) = self.known_state(number, by_hub, id) else { continue };
            known = true;
            fine |= state.left || state.open > 0;
            if role == LifecycleRole::Closes && state.open > 0 {
                state.open -= 1;
                break;
            }
        }
        match (known, fine) {
            (_, true) => None,
            (true, false) => Some(LifecycleFault::Ended),
            (false, false) => Some(LifecycleFault::Unopened),
        }
    }
}

/// What a message does to the id that it contains.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LifecycleRole {
    Opens,
    Carries,
    Closes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LifecycleFault {
    Unopened,
    Ended,
}

impl Lifecycle {
    /// Returns what a message does in the lifecycle, and the id that it contains.
    fn role_of(&self, pack: &Pack, message: Option<usize>, json: &Value) -> Option<(LifecycleRole, String)> {
        let lists = [
            (LifecycleRole::Opens, &self.opens),
            (LifecycleRole::Carries, &self.carries),
            (LifecycleRole::Closes, &self.closes),
        ];
        let is = |listed: &usize| {
            let general = &pack.messages[*listed];
            message == Some(*listed) || general.abstract_ && general.matcher.fits(json)
        };
        let (role, listed) =
            lists.iter().find_map(|(role, messages)| Some((*role, *messages.iter().find(|listed| is(listed))?)))?;
        Some((role, pack.messages[listed].correlation_key(json)?))
    }
}

/// Returns the lifecycles of a program, in the order of `always`.
fn lifecycles(program: &Program) -> impl Iterator<Item = &Lifecycle> {
    program.always.iter().filter_map(|entry| match entry {
        AlwaysEntry::Lifecycle(lifecycle) => Some(lifecycle),
        _ => None,
    })
}

impl Conversation {
    /// Records a message that was sent on the current connection of an actor. `exact`: it is a message of the pack, and
    /// valid or at least not wrong on purpose.
    pub(in crate::interpreter) fn record_exchange(
        &mut self,
        id: ActorId,
        message: Option<usize>,
        value: &Value,
        exact: bool,
        wire: &Arc<Wire>,
    ) {
        let program = Arc::clone(&self.program);
        let exchange = &mut self.actors[id].latest.exchange;
        exchange.unknown |= !exact;
        let Some(message) = message else { return };
        exchange.record_request(&program.pack, message, value);
        if exact {
            exchange.send_ids(&program, message, value);
        }
        if self.actors.keeps_sent {
            let sent = SentMessage { message, value: value.clone(), wire: Arc::clone(wire) };
            self.actors[id].latest.exchange.keep_sent(sent);
        }
    }

    /// Records that a step sent raw text; a text that is a message of the pack is a request whose reply is recognised.
    pub(in crate::interpreter) fn record_raw_exchange(&mut self, id: ActorId, text: Option<&str>) {
        self.actors[id].latest.exchange.unknown = true;
        let json = text.and_then(|text| serde_json::from_str::<Value>(text).ok());
        let Some(json) = json else { return };
        let program = Arc::clone(&self.program);
        let message = program.pack.recognise(&json, FrameDirection::ToHub);
        if let Some(index) = message.and_then(|message| program.pack.message_index(&message.name)) {
            self.actors[id].latest.exchange.record_request(&program.pack, index, &json);
        }
    }

    /// Judges a received message by the lifecycles of `always`.
    pub(in crate::interpreter) fn judge_lifecycles(
        &mut self,
        actor: ActorId,
        message: Option<usize>,
        json: &Value,
        wire: &Wire,
    ) {
        if wire.is_assumed() {
            return;
        }
        let program = Arc::clone(&self.program);
        let judged = self.actors[actor].latest.exchange.judge_ids(&program, message, json);
        if has_assumed_id(&program.pack, message, wire) {
            return;
        }
        for (check, finding) in judged {
            self.record_outcome(check, ALWAYS_STEP, Some(actor), &wire.text, finding);
        }
    }
}

/// Whether the correlation id of a message is only assumed, because the hub left it out.
fn has_assumed_id(pack: &Pack, message: Option<usize>, wire: &Wire) -> bool {
    let place = message.and_then(|message| pack.messages[message].correlation.as_ref());
    place.is_some_and(|place| wire.assumed_places.iter().any(|(assumed, _)| place.starts_with(assumed.as_str())))
}
