//! Long walks of several clients: valid messages in any order, repeated, in other JSON forms, with values at the edge of
//! what the schema allows and names that look alike, of clients that leave and come back under the same name. Nothing in
//! them is mutated, so a hub may be compared with another until the document leaves a choice.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::model::WalkModel;
use super::random_walk::{ActorPresence, RandomWalk, WalkActor, received_names, reply_name, sent_names};
use crate::fuzz::actors::OBSERVER;
use crate::fuzz::case::message::{self, SentMessage};
use crate::fuzz::case_scenario::{CaseScenario, CaseStep};
use crate::fuzz::corpus::Corpus;
use crate::fuzz::corpus::prefix;
use crate::fuzz::mutate::frames::FramingMutation;
use crate::fuzz::mutate::payload::{PayloadChange, PayloadClass, PayloadEdit};
use crate::generate::rng::RandomSource;
use crate::protocol::MessageType;
use crate::scenario::compose;
use crate::scenario::parse::verbs::StepVerb;
use crate::scenario::variation::TextForm;

/// The actors of a long walk.
const ACTOR_NAMES: [&str; 5] = ["anna", "ben", "carl", "dora", "emil"];
const LEAST_ACTORS: usize = 3;
const LEAST_STEPS: usize = 20;
const MOST_STEPS: usize = 60;
/// The number of first messages that are followed by a ping, whose pong shows that the hub has read them. A WebSocket
/// library may drop a peer that pings more often.
const PINGED_MESSAGES: usize = 8;
/// How long a walk waits for an answer if no ping follows the message.
const ANSWER_WAIT: &str = "150ms";
/// How long a walk pauses after a message that gets no answer, so that the hub handles it before the next client acts.
const PAUSE: &str = "25ms";
/// How long a walk waits at its end for messages that may still come.
const LAST_WAIT: &str = "100ms";

/// Which messages have followed which in the walks so far: each pair with whether one client sent both.
#[derive(Default)]
pub struct WalkCoverage(BTreeSet<(usize, bool, usize)>);

impl WalkCoverage {
    /// Counts the pairs that were covered.
    pub fn covered(&self) -> usize {
        self.0.len()
    }

    /// Counts the pairs that walks can cover.
    pub fn coverable(model: &WalkModel) -> usize {
        let all: BTreeSet<usize> = model.roles.iter().flat_map(|role| &role.sends).copied().collect();
        let pairs = |sends: &[usize]| -> Vec<(usize, usize)> {
            sends.iter().flat_map(|first| sends.iter().map(|then| (*first, *then))).collect()
        };
        let by_one: BTreeSet<(usize, usize)> = model.roles.iter().flat_map(|role| pairs(&role.sends)).collect();
        by_one.len() + all.len().pow(2)
    }
}

/// Makes the walk of this number, which prefers pairs of messages that no walk has covered; `None` for a protocol without a
/// role that connects.
pub fn make_long_walk(
    corpus: &Corpus,
    model: &WalkModel,
    seed: u64,
    number: u64,
    coverage: &mut WalkCoverage,
) -> Option<CaseScenario> {
    let dice = &mut RandomSource::for_case(seed, number);
    let mut walk = LongWalk::new(corpus, model, coverage, dice)?;
    for _ in 0..LEAST_STEPS + dice.draw_below(MOST_STEPS - LEAST_STEPS + 1) {
        walk.add_step(dice);
    }
    walk.base.steps.push(pause(LAST_WAIT, "messages may still come"));
    let LongWalk { base, .. } = walk;
    let mut actors: Map<String, Value> =
        base.actors.iter().map(|actor| (actor.name.to_owned(), json!(actor.role))).collect();
    // An actor that never joined is not part of the scenario.
    let joined = |name: &str| base.steps.iter().any(|step| step.actor == name);
    actors.retain(|name, _| joined(name));
    actors.insert(OBSERVER.to_owned(), json!(corpus.observer_role()?));
    let title = format!("Walk {number}: {} messages of {} clients in any order", base.sent, actors.len());
    let exclusive = model.exclusive(base.sent_messages);
    Some(CaseScenario { title, exclusive, actors, lets: base.lets, steps: base.steps, ..CaseScenario::default() })
}

struct LongWalk<'a> {
    base: RandomWalk<'a>,
    /// What each actor has sent: the argument of `sends raw`, and the index of the message.
    sent: Vec<(usize, Value, usize)>,
    /// The name from which names that look alike are made, if there is one.
    family: Option<String>,
    /// The names of what may differ between hubs.
    open: Vec<String>,
    coverage: &'a mut WalkCoverage,
}

fn pause(time: &str, because: &str) -> CaseStep {
    CaseStep::new("", StepVerb::Wait, time).with("because", because)
}

impl<'a> LongWalk<'a> {
    fn new(
        corpus: &'a Corpus,
        model: &'a WalkModel,
        coverage: &'a mut WalkCoverage,
        dice: &mut RandomSource,
    ) -> Option<Self> {
        let roles: Vec<&str> = model.roles.iter().map(|role| role.name.as_str()).collect();
        let first = dice.draw_below(roles.len());
        let count = LEAST_ACTORS + dice.draw_below(ACTOR_NAMES.len() - LEAST_ACTORS + 1);
        let mut actors = Vec::new();
        for (index, name) in ACTOR_NAMES.iter().take(count).enumerate() {
            // Each role in turn, then any.
            let next = roles.get((first + index) % roles.len().max(1)).filter(|_| index < roles.len());
            let role = next.or_else(|| dice.pick(&roles))?;
            actors.push(WalkActor { name, role, state: ActorPresence::Away });
        }
        let steps = vec![CaseStep::new(OBSERVER, StepVerb::Joins, ())];
        let (known, lets, sent_messages) = (Vec::new(), Map::new(), Vec::new());
        let base = RandomWalk { corpus, model, actors, known, lets, steps, sent: 0, sent_messages };
        Some(Self { base, sent: Vec::new(), family: None, open: corpus.open_names(), coverage })
    }

    fn add_step(&mut self, dice: &mut RandomSource) {
        let index = dice.draw_below(self.base.actors.len());
        let here = self.base.actors[index].state == ActorPresence::Here;
        if here && dice.one_in(16) {
            return self.add_leave(index, dice);
        }
        if !here {
            self.base.add_join(index);
            self.base.steps.push(pause(PAUSE, "the hub may still be greeting"));
        }
        // Two messages with one id may not be answered as two.
        let corpus = self.base.corpus;
        let repeatable = |message: usize| {
            let message = corpus.pack.messages.get(message);
            message.is_some_and(|message| message.correlation.is_none() && corpus.fresh_values(message).is_empty())
        };
        let own = self.sent.iter().filter(|(actor, _, message)| *actor == index && repeatable(*message));
        let again: Vec<(Value, usize)> = own.map(|(_, raw, message)| (raw.clone(), *message)).collect();
        if dice.one_in(9)
            && let Some((raw, message)) = dice.pick(&again).cloned()
        {
            return self.add_raw(index, message, raw);
        }
        let Some(message) = self.draw_message(index, dice) else { return };
        // After a message that a hub may or may not forward, its unprompted messages are not compared.
        let messages = &self.base.corpus.pack.messages;
        let is_open = messages.get(message).is_some_and(|message| self.open.contains(&message.name));
        if is_open && !dice.one_in(20) {
            return;
        }
        if dice.one_in(2) && self.create_object(message, dice) {
            return;
        }
        self.add_send(index, message, dice);
    }

    /// Draws a message that an actor may send: usually one that has not yet followed the latest message.
    fn draw_message(&self, actor: usize, dice: &mut RandomSource) -> Option<usize> {
        let sendable = self.base.sendable_messages(actor);
        let is_new =
            |message: &usize| self.pair_with(actor, *message).is_some_and(|pair| !self.coverage.0.contains(&pair));
        let uncovered: Vec<usize> = sendable.iter().copied().filter(is_new).collect();
        let any = uncovered.is_empty() || dice.one_in(4);
        dice.pick(if any { sendable } else { &uncovered }).copied()
    }

    /// Returns the pair that a message makes with the latest one.
    fn pair_with(&self, actor: usize, message: usize) -> Option<(usize, bool, usize)> {
        self.sent.last().map(|(sender, _, latest)| (*latest, *sender == actor, message))
    }

    fn add_leave(&mut self, index: usize, dice: &mut RandomSource) {
        let WalkActor { name, state, .. } = &mut self.base.actors[index];
        *state = ActorPresence::Away;
        let step = match dice.draw_below(4) {
            0 => CaseStep::new(name, StepVerb::Drops, ()),
            1 => CaseStep::new(name, StepVerb::Closes, 1001),
            _ => CaseStep::new(name, StepVerb::Closes, 1000),
        };
        self.base.steps.push(step);
        self.base.steps.push(pause(PAUSE, "the hub has to notice that the client left"));
    }

    /// Sends a message that creates an object which `message` can name, if none is known yet.
    fn create_object(&mut self, message: usize, dice: &mut RandomSource) -> bool {
        let Some(message) = self.base.corpus.pack.messages.get(message) else { return false };
        for leaf in self.base.model.leaves(message) {
            let makers = self.base.model.creating_messages(leaf);
            let is_known = self.base.known.iter().any(|known| known.received && known.example == leaf.example);
            if makers.is_empty() || is_known {
                continue;
            }
            let can: Vec<(usize, usize)> = (0..self.base.actors.len())
                .filter(|actor| self.base.actors[*actor].state == ActorPresence::Here)
                .flat_map(|actor| makers.iter().map(move |maker| (actor, *maker)))
                .filter(|(actor, maker)| self.base.sendable_messages(*actor).contains(maker))
                .collect();
            if let Some((actor, maker)) = dice.pick(&can).copied() {
                self.add_send(actor, maker, dice);
                return true;
            }
        }
        false
    }

    fn add_send(&mut self, actor: usize, index: usize, dice: &mut RandomSource) {
        let corpus = self.base.corpus;
        let Some(message) = corpus.pack.messages.get(index) else { return };
        let mut base = self.base.base_message(message, actor, dice);
        self.base.name_objects(message, actor, &mut base, dice);
        if dice.one_in(5) {
            self.put_look_alike(message, &mut base, dice);
        }
        let Some(sent) = draw_sent(corpus, message, &base, dice) else { return };
        let forms = [TextForm::WhiteSpace, TextForm::Escapes, TextForm::Fragments];
        let form = if dice.one_in(5) { dice.pick(&forms).copied() } else { None };
        let raw = match (form, sent.raw.get("text").and_then(Value::as_str)) {
            (Some(TextForm::Fragments), Some(text)) => FramingMutation::Fragments.raw_argument(text, dice),
            (Some(form), Some(text)) => json!({ "text": form.rewrite_template(text) }),
            _ => sent.raw,
        };
        self.base.known.extend(sent_names(self.base.model.leaves(message), &base));
        self.add_raw(actor, index, raw);
    }

    /// Sends this, and waits for what may answer it.
    fn add_raw(&mut self, actor: usize, index: usize, raw: Value) {
        let corpus = self.base.corpus;
        let Some(message) = corpus.pack.messages.get(index) else { return };
        self.coverage.0.extend(self.pair_with(actor, index));
        self.sent.push((actor, raw.clone(), index));
        self.base.sent += 1;
        self.base.sent_messages.push(message);
        let (name, number) = (self.base.actors[actor].name, self.base.sent);
        self.base.steps.push(CaseStep::new(name, StepVerb::SendsRaw, raw).named(format!("sent_{number}")));
        if number <= PINGED_MESSAGES {
            let ping = json!({ "frames": [{ "opcode": "ping", "data": number.to_string() }] });
            self.base.steps.push(CaseStep::new(name, StepVerb::SendsRaw, ping));
            let wait = self.base.wait_steps(name, number, message);
            self.base.steps.push(wait);
        } else if message.replies.is_empty() {
            self.base.steps.push(pause(PAUSE, "nothing answers this message"));
        } else {
            let replies =
                message.replies.iter().map(|reply| json!({ "message": reply, "as": reply_name(reply, number) }));
            let errors = self.base.model.errors.iter().filter(|error| !message.replies.contains(error));
            let errors = errors.map(|error| json!({ "message": error }));
            let ends = [json!({ "close": ["any", "drop"] }), json!({ "nothing": null })];
            let all: Vec<Value> = replies.chain(errors).chain(ends).collect();
            let expects = CaseStep::new(name, StepVerb::ExpectsOneOf, all).after(format!("sent_{number}"));
            self.base.steps.push(expects.with("within", ANSWER_WAIT));
        }
        for reply in &message.replies {
            let leaves = corpus.pack.message(reply).map(|reply| self.base.model.leaves(reply)).unwrap_or_default();
            self.base.known.extend(received_names(leaves, &reply_name(reply, number)));
        }
    }

    /// Puts a name that looks like another one into a message: equal except for case, in the first 32 characters, or as
    /// far as the other one goes.
    fn put_look_alike(&mut self, message: &MessageType, base: &mut Value, dice: &mut RandomSource) {
        let corpus = self.base.corpus;
        let fresh = corpus.fresh_values(message);
        let leaves = self.base.model.leaves(message).iter();
        let free =
            leaves.filter(|leaf| leaf.shared && !leaf.formed && !fresh.iter().any(|one| one.pointer == leaf.pointer));
        let free: Vec<&str> = free
            .filter(|leaf| {
                base.pointer(&leaf.pointer).and_then(Value::as_str).is_some_and(crate::fuzz::expressions::is_literal)
            })
            .map(|leaf| leaf.pointer.as_str())
            .collect();
        let Some(pointer) = dice.pick(&free) else { return };
        let lets = &mut self.base.lets;
        let root = self.family.get_or_insert_with(|| prefix::name_fresh_value(lets, "${unique('walk')}".to_owned()));
        let inner = root.trim_start_matches("${").trim_end_matches('}').to_owned();
        let long = "a".repeat(32);
        let written = match dice.draw_below(6) {
            0 => root.clone(),
            1 => format!("${{{inner} ~ '0'}}"),
            2 => format!("${{{inner} | upper}}"),
            3 => format!("${{{inner} ~ '{long}x'}}"),
            4 => format!("${{{inner} ~ '{long}y'}}"),
            _ => format!("${{{inner} ~ '{long}'}}"),
        };
        compose::put_at_pointer(base, pointer, json!(written));
    }
}

/// Draws a form of the message: unchanged, with edge values, or with any valid values.
fn draw_sent(corpus: &Corpus, message: &MessageType, base: &Value, dice: &mut RandomSource) -> Option<SentMessage> {
    let is_valid = |sent: &SentMessage| sent.class == PayloadClass::Valid;
    let plain = |edits: Vec<PayloadEdit>| message::edit_message(corpus, message, base, edits);
    let backwards = |dice: &mut RandomSource| {
        let edit = PayloadEdit { pointer: String::new(), change: PayloadChange::Backwards };
        dice.one_in(6).then_some(edit)
    };
    let drawn = match dice.draw_below(8) {
        0..=1 => {
            // Most edge values do not fit most places.
            let mut tries = 0..24;
            tries.find_map(|_| {
                let edits = message::draw_edge_edits(message, base, dice);
                Some(plain(edits)).filter(is_valid)
            })
        }
        2 => Some(plain(message::draw_valid_edits(message, base, &[], dice))).filter(is_valid),
        _ => None,
    };
    drawn
        .or_else(|| Some(plain(backwards(dice).into_iter().collect())).filter(is_valid))
        .or_else(|| Some(plain(Vec::new())).filter(is_valid))
}
