//! Random walks: several actors send valid messages that their roles may send, in random order, about objects that the
//! hub named or that they named themselves; one message among them is mutated.
//!
//! Answers never influence what is sent. A walk binds an expected reply to a name (`job_accepted_3`), later messages
//! use members of it, and the engine skips these messages if the reply has not come. Only oracles check answers, so
//! every wait of a walk accepts silence.

use serde_json::{Map, Value, json};

use super::model::{TextLeaf, WalkModel};
use crate::fuzz::actors::OBSERVER;
use crate::fuzz::case::{self, FuzzCase, FuzzCell, MutationKind, message};
use crate::fuzz::case_scenario::CaseStep;
use crate::fuzz::corpus::Corpus;
use crate::fuzz::corpus::prefix::{self, CasePrefix};
use crate::fuzz::expressions;
use crate::fuzz::mutate::payload::PayloadClass;
use crate::generate::rng::RandomSource;
use crate::protocol::MessageType;
use crate::scenario::compose;
use crate::scenario::parse::names::is_identifier;
use crate::scenario::parse::verbs::StepVerb;

/// The actors of a walk. Four at most: no protocol here involves more parties.
const ACTOR_NAMES: [&str; 4] = ["anna", "ben", "carl", "dora"];
/// Most messages before the mutated one, and after it.
const MAX_MESSAGES_BEFORE: usize = 8;
const MAX_MESSAGES_AFTER: usize = 3;
/// How long a walk waits for an answer if no pong shows that the message has been processed.
const ANSWER_WAIT: &str = "300ms";
/// How long a walk still waits after the pong to a ping that followed a message: a hub may answer pings before it has
/// processed earlier messages.
const WAIT_AFTER_PONG: &str = "20ms";

/// Makes the case of a cell; `None` where no role with an opening sends the message.
pub fn make_walk_case(
    corpus: &Corpus,
    model: &WalkModel,
    cell: FuzzCell,
    number: u64,
    dice: &mut RandomSource,
) -> Option<FuzzCase> {
    if !matches!(cell.mutation, MutationKind::Explored | MutationKind::Mutated(_)) {
        // Other mutations leave no state on the hub; the other placements cover them.
        return None;
    }
    let message = corpus.pack.messages.get(cell.message)?;
    let mut walk = RandomWalk::with_sender_of(corpus, model, message, dice)?;
    for _ in 0..=dice.draw_below(MAX_MESSAGES_BEFORE) {
        walk.add_step(None, dice);
    }
    walk.add_join(0);
    if !dice.one_in(3) {
        walk.create_object(message, dice);
    }
    let mut base = walk.base_message(message, 0, dice);
    walk.name_objects(message, 0, &mut base, dice);
    let before = std::mem::take(&mut walk.steps);
    for _ in 0..dice.draw_below(MAX_MESSAGES_AFTER + 1) {
        // The sender sends nothing more, so that the next answer belongs to the mutated message.
        walk.add_step(Some(0), dice);
    }
    let ids = prefix::created_ids(corpus, &walk.lets, &before);
    let sender = &walk.actors[0];
    let joined = walk.actors.iter().filter(|actor| actor.state != ActorPresence::Away);
    let prefix = CasePrefix {
        sender: sender.name.to_owned(),
        role: sender.role.to_owned(),
        observer_role: corpus.observer_role()?.to_owned(),
        actors: joined.map(|actor| (actor.name.to_owned(), json!(actor.role))).collect(),
        needs: None,
        exclusive: model.exclusive(walk.sent_messages.iter().copied().chain([message])),
        lets: walk.lets,
        steps: before,
        rest: Vec::new(),
        message: base,
        sites: prefix::mutation_sites(corpus, message),
        ids,
    };
    case::make_single_case(corpus, cell, prefix, walk.steps, number, dice)
}

/// Whether an actor is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ActorPresence {
    /// Not yet connected.
    Away,
    Here,
    /// Has closed its connection.
    Gone,
}

pub(super) struct WalkActor<'a> {
    pub name: &'static str,
    pub role: &'a str,
    pub state: ActorPresence,
}

/// The name of an object that later messages may use.
pub(super) struct ObjectName {
    /// The name of the member from which the object's name is known.
    name: String,
    /// The value of that member in the documented example.
    pub example: String,
    /// How a scenario writes the object's name: as an expression, or as the text itself.
    written: String,
    /// Whether the hub sent the object's name.
    pub received: bool,
}

pub(super) struct RandomWalk<'a> {
    pub corpus: &'a Corpus,
    pub model: &'a WalkModel,
    pub actors: Vec<WalkActor<'a>>,
    pub known: Vec<ObjectName>,
    pub lets: Map<String, Value>,
    pub steps: Vec<CaseStep>,
    /// Number of messages sent.
    pub sent: usize,
    pub sent_messages: Vec<&'a MessageType>,
}

impl<'a> RandomWalk<'a> {
    /// Creates the actors: first the sender of `message`, then one to three others.
    fn with_sender_of(
        corpus: &'a Corpus,
        model: &'a WalkModel,
        message: &MessageType,
        dice: &mut RandomSource,
    ) -> Option<Self> {
        let roles: Vec<&str> = model.roles.iter().map(|role| role.name.as_str()).collect();
        let senders: Vec<&str> = model
            .roles
            .iter()
            .filter(|role| role.sends.iter().any(|index| corpus.pack.messages[*index].name == message.name))
            .map(|role| role.name.as_str())
            .collect();
        let first = *dice.pick(if senders.is_empty() { &roles } else { &senders })?;
        let mut actors = vec![WalkActor { name: ACTOR_NAMES[0], role: first, state: ActorPresence::Away }];
        for name in &ACTOR_NAMES[1..2 + dice.draw_below(ACTOR_NAMES.len() - 1)] {
            actors.push(WalkActor { name, role: dice.pick(&roles)?, state: ActorPresence::Away });
        }
        let steps = vec![CaseStep::new(OBSERVER, StepVerb::Joins, ())];
        Some(Self {
            corpus,
            model,
            actors,
            known: Vec::new(),
            lets: Map::new(),
            steps,
            sent: 0,
            sent_messages: Vec::new(),
        })
    }

    /// Adds one message, or lets an actor close. The actor `but` does nothing.
    fn add_step(&mut self, but: Option<usize>, dice: &mut RandomSource) {
        let may: Vec<usize> = (0..self.actors.len())
            .filter(|index| Some(*index) != but && self.actors[*index].state != ActorPresence::Gone)
            .collect();
        let Some(index) = dice.pick(&may).copied() else { return };
        if index > 0 && self.actors[index].state == ActorPresence::Here && dice.one_in(12) {
            self.actors[index].state = ActorPresence::Gone;
            let code = if dice.one_in(4) { 1001 } else { 1000 };
            return self.steps.push(CaseStep::new(self.actors[index].name, StepVerb::Closes, code));
        }
        let Some(message) = dice.pick(self.sendable_messages(index)).copied() else { return };
        let supplied = dice.one_in(2) && but.is_none() && self.create_object(&self.corpus.pack.messages[message], dice);
        if !supplied {
            self.add_join(index);
            self.add_send(index, message, dice);
        }
    }

    pub(super) fn sendable_messages(&self, actor: usize) -> &'a [usize] {
        let role = self.model.roles.iter().find(|role| role.name == self.actors[actor].role);
        role.map_or(&[], |role| &role.sends)
    }

    /// Sends a message that creates an object which `message` can name, if none is known yet.
    fn create_object(&mut self, message: &MessageType, dice: &mut RandomSource) -> bool {
        for leaf in self.model.leaves(message) {
            let makers = self.model.creating_messages(leaf);
            if makers.is_empty() || self.known.iter().any(|known| known.received && known.example == leaf.example) {
                continue;
            }
            let here = (0..self.actors.len()).filter(|actor| self.actors[*actor].state != ActorPresence::Gone);
            let can: Vec<(usize, usize)> = here
                .flat_map(|actor| makers.iter().map(move |maker| (actor, *maker)))
                .filter(|(actor, maker)| self.sendable_messages(*actor).contains(maker))
                .collect();
            if let Some((actor, maker)) = dice.pick(&can).copied() {
                self.add_join(actor);
                self.add_send(actor, maker, dice);
                return true;
            }
        }
        false
    }

    pub(super) fn add_join(&mut self, index: usize) {
        let WalkActor { name, role, state } = &mut self.actors[index];
        if *state != ActorPresence::Away {
            return;
        }
        *state = ActorPresence::Here;
        self.steps.push(CaseStep::new(name, StepVerb::Joins, ()));
        // Its opening makes names known: those that it sends, and those in the replies.
        for step in self.corpus.opening(role) {
            let message = step.argument.as_str().and_then(|name| self.corpus.pack.message(name));
            let Some(message) = message else { continue };
            match (step.verb, step.name()) {
                (StepVerb::Sends, _) => {
                    let mut base = self.corpus.example(message, role, name);
                    let (with, without) = prefix::step_overrides(step, name);
                    compose::merge_overrides(&mut base, &with);
                    compose::remove_members(&mut base, &without);
                    self.known.extend(sent_names(self.model.leaves(message), &base));
                }
                (StepVerb::Expects, Some(bound)) => {
                    self.known.extend(received_names(self.model.leaves(message), &format!("{name}.{bound}")));
                }
                _ => {}
            }
        }
    }

    /// Returns the valid message before `name_objects` changes it: the example, or a scenario's variant of it.
    pub(super) fn base_message(&self, message: &MessageType, actor: usize, dice: &mut RandomSource) -> Value {
        let WalkActor { name, role, .. } = &self.actors[actor];
        let mut base = self.corpus.example(message, role, name);
        let variants = self.model.variants(message);
        if let Some((with, without)) =
            Some(variants).filter(|_| dice.one_in(2)).and_then(|variants| dice.pick(variants))
        {
            let mut changed = base.clone();
            compose::merge_overrides(&mut changed, with);
            compose::remove_members(&mut changed, without);
            let sent = message::edit_message(self.corpus, message, &changed, Vec::new());
            if sent.class == PayloadClass::Valid {
                base = changed;
            }
        }
        self.corpus.without_optional(&mut base);
        base
    }

    /// Puts known or new names of objects into a message.
    pub(super) fn name_objects(
        &mut self,
        message: &MessageType,
        actor: usize,
        base: &mut Value,
        dice: &mut RandomSource,
    ) {
        let corpus = self.corpus;
        let fresh = corpus.fresh_values(message);
        for leaf in self.model.leaves(message) {
            if fresh.iter().any(|fresh| fresh.pointer == leaf.pointer) {
                continue;
            }
            let Some(now) = base.pointer(&leaf.pointer).and_then(Value::as_str) else { continue };
            let is_literal = expressions::is_literal(now);
            // A generated value identifies this message alone: a repetition would make the hub's answers ambiguous.
            // The sender's identity stays; in one of twelve cases it is replaced by another name.
            if !is_literal && (expressions::makes_new(&json!(now)) || !dice.one_in(12)) {
                continue;
            }
            let fitting: Vec<&ObjectName> = self.known.iter().filter(|known| known.written != now).collect();
            let same: Vec<&ObjectName> =
                fitting.iter().copied().filter(|known| known.example == leaf.example).collect();
            let alike: Vec<&ObjectName> = fitting.into_iter().filter(|known| known.name == leaf.name).collect();
            let choice = if same.is_empty() || dice.one_in(5) { &alike } else { &same };
            let written = match dice.draw_below(8) {
                0..=5 if !choice.is_empty() => dice.pick(choice).map(|known| known.written.clone()),
                6 if leaf.shared && !leaf.formed && is_literal => Some(self.new_object_name(leaf)),
                _ => None,
            };
            if let Some(written) = written {
                compose::put_at_pointer(base, &leaf.pointer, json!(written));
            }
        }
        for fresh in fresh {
            if base.pointer(&fresh.pointer).is_some_and(Value::is_number) {
                compose::put_at_pointer(base, &fresh.pointer, json!(format!("${{{}}}", 1000 + self.sent)));
            }
        }
        prefix::put_fresh_values(corpus, message, base, &mut self.lets, self.actors[actor].name);
    }

    /// Makes a name that no other object has.
    fn new_object_name(&mut self, leaf: &TextLeaf) -> String {
        let written = prefix::name_fresh_value(&mut self.lets, "${unique('walk')}".to_owned());
        let known = ObjectName {
            name: leaf.name.clone(),
            example: leaf.example.clone(),
            written: written.clone(),
            received: false,
        };
        self.known.push(known);
        written
    }

    fn add_send(&mut self, actor: usize, message: usize, dice: &mut RandomSource) {
        let corpus = self.corpus;
        let Some(message) = corpus.pack.messages.get(message) else { return };
        let mut base = self.base_message(message, actor, dice);
        self.name_objects(message, actor, &mut base, dice);
        let plain = message::edit_message(corpus, message, &base, Vec::new());
        let explored = dice.one_in(4).then(|| message::draw_valid_edits(message, &base, &[], dice));
        let explored = explored.map(|edits| message::edit_message(corpus, message, &base, edits));
        let mut right = explored.into_iter().chain([plain]).filter(|sent| sent.class == PayloadClass::Valid);
        let Some(sent) = right.next() else { return };
        self.sent += 1;
        self.sent_messages.push(message);
        let (name, number) = (self.actors[actor].name, self.sent);
        let ping = json!({ "frames": [{ "opcode": "ping", "data": number.to_string() }] });
        self.steps.push(CaseStep::new(name, StepVerb::SendsRaw, sent.raw).named(format!("sent_{number}")));
        self.steps.push(CaseStep::new(name, StepVerb::SendsRaw, ping));
        self.steps.push(self.wait_steps(name, number, message));
        self.known.extend(sent_names(self.model.leaves(message), &base));
        for reply in &message.replies {
            let leaves = corpus.pack.message(reply).map(|reply| self.model.leaves(reply)).unwrap_or_default();
            self.known.extend(received_names(leaves, &reply_name(reply, number)));
        }
    }

    /// Returns the step that waits for the replies, if there may be any, until a pong shows that none will come.
    pub(super) fn wait_steps(&self, name: &str, number: usize, message: &MessageType) -> CaseStep {
        let pong = |fail: Option<&str>| {
            let mut pong = json!({ "frame": "pong", "where": { "data": number.to_string() } });
            if let Some(fail) = fail {
                pong["fail"] = json!(fail);
            }
            pong
        };
        let ends = [json!({ "close": ["any", "drop"] }), json!({ "nothing": null })];
        let expects =
            |all: Vec<Value>| CaseStep::new(name, StepVerb::ExpectsOneOf, all).after(format!("sent_{number}"));
        if message.replies.is_empty() {
            let all: Vec<Value> = std::iter::once(pong(None)).chain(ends).collect();
            return expects(all).with("within", ANSWER_WAIT);
        }
        let replies = message.replies.iter().map(|reply| json!({ "message": reply, "as": reply_name(reply, number) }));
        let errors = self.model.errors.iter().filter(|error| !message.replies.contains(error));
        let errors = errors.map(|error| json!({ "message": error }));
        let all: Vec<Value> =
            replies.chain(errors).chain([pong(Some("the answer has not come before the pong"))]).chain(ends).collect();
        let pause = format!("pause_{number}");
        let expects = expects(all).with("within", format!("${{{pause}}}"));
        CaseStep::new("", StepVerb::Either, pause).with("in", json!([ANSWER_WAIT, WAIT_AFTER_PONG])).doing([expects])
    }
}

/// Returns the names that a message of an actor makes known.
pub(super) fn sent_names(leaves: &[TextLeaf], sent: &Value) -> Vec<ObjectName> {
    let known = |leaf: &TextLeaf| {
        let written = sent.pointer(&leaf.pointer)?.as_str()?.to_owned();
        // Each evaluation of `unique` gives another value.
        (!expressions::makes_new(&json!(written))).then(|| ObjectName {
            name: leaf.name.clone(),
            example: leaf.example.clone(),
            written,
            received: false,
        })
    };
    leaves.iter().filter_map(known).collect()
}

/// Returns the names that a received message makes known, once it is bound to `bound`: its required members.
pub(super) fn received_names(leaves: &[TextLeaf], bound: &str) -> Vec<ObjectName> {
    let known = |leaf: &TextLeaf| {
        let written = expressions::member(bound, &leaf.path);
        leaf.required.then(|| ObjectName {
            name: leaf.name.clone(),
            example: leaf.example.clone(),
            written,
            received: true,
        })
    };
    leaves.iter().filter_map(known).collect()
}

/// Returns the name that a reply to a message of the walk gets.
pub(super) fn reply_name(reply: &str, number: usize) -> String {
    let word = reply.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    if is_identifier(&word) { format!("{word}_{number}") } else { format!("reply_{word}_{number}") }
}
