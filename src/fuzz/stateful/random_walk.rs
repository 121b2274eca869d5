//! Random walks: several actors send valid messages that their roles may send, in random order, about objects that the
//! hub named or that they named themselves; one message among them is mutated.
//!
//! Answers never influence what is sent. A walk binds an expected reply to a name (`job_accepted_3`), later messages
//! use members of it, and the engine skips these messages if the reply has not come. Only oracles check answers, so
//! every wait of a walk accepts silence.

use serde_json::{Map, Value, json};

use super::model::{Leaf, Model};
use crate::fuzz::actors::OBSERVER;
use crate::fuzz::case::{self, Case, Cell, MutationKind, message};
use crate::fuzz::case_scenario::CaseStep;
use crate::fuzz::corpus::Corpus;
use crate::fuzz::corpus::prefix::{self, Prefix};
use crate::fuzz::expressions;
use crate::fuzz::mutate::payload::Class;
use crate::generate::rng::Dice;
use crate::protocol::MessageType;
use crate::scenario::compose;
use crate::scenario::parse::names::is_identifier;
use crate::scenario::parse::verbs::Verb;

/// The actors of a walk. Four at most: no protocol here involves more parties.
const NAMES: [&str; 4] = ["anna", "ben", "carl", "dora"];
/// Most messages before the mutated one, and after it.
const BEFORE: usize = 8;
const BEHIND: usize = 3;
/// How long a walk waits for an answer if no pong shows that the message has been processed.
const SILENCE: &str = "300ms";
/// How long a walk still waits after the pong to a ping that followed a message: a hub may answer pings before it has
/// processed earlier messages.
const BEHIND_PONG: &str = "20ms";

/// Makes the case of a cell; `None` where no role with an opening sends the message.
pub fn make(corpus: &Corpus, model: &Model, cell: Cell, number: u64, dice: &mut Dice) -> Option<Case> {
    if !matches!(cell.mutation, MutationKind::Explored | MutationKind::Mutated(_)) {
        // Other mutations leave no state behind; the other placements cover them.
        return None;
    }
    let message = corpus.pack.messages.get(cell.message)?;
    let mut walk = Walk::of(corpus, model, message, dice)?;
    for _ in 0..=dice.below(BEFORE) {
        walk.step(None, dice);
    }
    walk.join(0);
    if !dice.once_in(3) {
        walk.supply(message, dice);
    }
    let mut base = walk.base(message, 0, dice);
    walk.about(message, &mut base, dice);
    let before = std::mem::take(&mut walk.steps);
    for _ in 0..dice.below(BEHIND + 1) {
        // The sender sends nothing more, so that the next answer belongs to the mutated message.
        walk.step(Some(0), dice);
    }
    let sender = &walk.actors[0];
    let joined = walk.actors.iter().filter(|actor| actor.state != State::Away);
    let prefix = Prefix {
        sender: sender.name.to_owned(),
        role: sender.role.to_owned(),
        observer_role: corpus.observer_role()?.to_owned(),
        actors: joined.map(|actor| (actor.name.to_owned(), json!(actor.role))).collect(),
        needs: None,
        exclusive: None,
        lets: walk.lets,
        steps: before,
        rest: Vec::new(),
        message: base,
        sites: prefix::sites(corpus, message),
    };
    case::made(corpus, cell, prefix, walk.steps, number, dice)
}

/// Whether an actor is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not yet connected.
    Away,
    Here,
    /// Has closed its connection.
    Gone,
}

struct Actor<'a> {
    name: &'static str,
    role: &'a str,
    state: State,
}

/// The name of an object that later messages may use.
struct Known {
    /// The name of the member from which the object's name is known.
    name: String,
    /// The value of that member in the documented example.
    example: String,
    /// How a scenario writes the object's name: as an expression, or as the text itself.
    written: String,
    /// Whether the hub sent the object's name.
    received: bool,
}

struct Walk<'a> {
    corpus: &'a Corpus,
    model: &'a Model,
    actors: Vec<Actor<'a>>,
    known: Vec<Known>,
    lets: Map<String, Value>,
    steps: Vec<CaseStep>,
    /// Number of messages sent.
    sent: usize,
}

impl<'a> Walk<'a> {
    /// Creates the actors: first the sender of `message`, then one to three others.
    fn of(corpus: &'a Corpus, model: &'a Model, message: &MessageType, dice: &mut Dice) -> Option<Self> {
        let roles: Vec<&str> = model.roles.iter().map(|role| role.name.as_str()).collect();
        let senders: Vec<&str> = model
            .roles
            .iter()
            .filter(|role| role.sends.iter().any(|index| corpus.pack.messages[*index].name == message.name))
            .map(|role| role.name.as_str())
            .collect();
        let first = *dice.pick(if senders.is_empty() { &roles } else { &senders })?;
        let mut actors = vec![Actor { name: NAMES[0], role: first, state: State::Away }];
        for name in &NAMES[1..2 + dice.below(NAMES.len() - 1)] {
            actors.push(Actor { name, role: dice.pick(&roles)?, state: State::Away });
        }
        let steps = vec![CaseStep::new(OBSERVER, Verb::Joins, ())];
        Some(Self { corpus, model, actors, known: Vec::new(), lets: Map::new(), steps, sent: 0 })
    }

    /// Adds one message, or lets an actor close. The actor `but` does nothing.
    fn step(&mut self, but: Option<usize>, dice: &mut Dice) {
        let may: Vec<usize> = (0..self.actors.len())
            .filter(|index| Some(*index) != but && self.actors[*index].state != State::Gone)
            .collect();
        let Some(index) = dice.pick(&may).copied() else { return };
        if index > 0 && self.actors[index].state == State::Here && dice.once_in(12) {
            self.actors[index].state = State::Gone;
            let code = if dice.once_in(4) { 1001 } else { 1000 };
            return self.steps.push(CaseStep::new(self.actors[index].name, Verb::Closes, code));
        }
        let Some(message) = dice.pick(self.sends(index)).copied() else { return };
        let supplied = dice.once_in(2) && but.is_none() && self.supply(&self.corpus.pack.messages[message], dice);
        if !supplied {
            self.join(index);
            self.send(index, message, dice);
        }
    }

    fn sends(&self, actor: usize) -> &'a [usize] {
        let role = self.model.roles.iter().find(|role| role.name == self.actors[actor].role);
        role.map_or(&[], |role| &role.sends)
    }

    /// Sends a message that creates an object which `message` can name, if none is known yet.
    fn supply(&mut self, message: &MessageType, dice: &mut Dice) -> bool {
        for leaf in self.model.leaves(message) {
            let makers = self.model.makers(leaf);
            if makers.is_empty() || self.known.iter().any(|known| known.received && known.example == leaf.example) {
                continue;
            }
            let here = (0..self.actors.len()).filter(|actor| self.actors[*actor].state != State::Gone);
            let can: Vec<(usize, usize)> = here
                .flat_map(|actor| makers.iter().map(move |maker| (actor, *maker)))
                .filter(|(actor, maker)| self.sends(*actor).contains(maker))
                .collect();
            if let Some((actor, maker)) = dice.pick(&can).copied() {
                self.join(actor);
                self.send(actor, maker, dice);
                return true;
            }
        }
        false
    }

    fn join(&mut self, index: usize) {
        let Actor { name, role, state } = &mut self.actors[index];
        if *state != State::Away {
            return;
        }
        *state = State::Here;
        self.steps.push(CaseStep::new(name, Verb::Joins, ()));
        // Its opening makes names known: those that it sends, and those in the replies.
        for step in self.corpus.opening(role) {
            let message = step.argument.as_str().and_then(|name| self.corpus.pack.message(name));
            let Some(message) = message else { continue };
            match (step.verb, step.name()) {
                (Verb::Sends, _) => {
                    let mut base = self.corpus.example(message, role, name);
                    let (with, without) = prefix::overrides(step, name);
                    compose::merge(&mut base, &with);
                    compose::remove(&mut base, &without);
                    self.known.extend(sent_names(self.model.leaves(message), &base));
                }
                (Verb::Expects, Some(bound)) => {
                    self.known.extend(received_names(self.model.leaves(message), &format!("{name}.{bound}")));
                }
                _ => {}
            }
        }
    }

    /// Returns the valid message before `about` changes it: the example, or a scenario's variant of it.
    fn base(&self, message: &MessageType, actor: usize, dice: &mut Dice) -> Value {
        let Actor { name, role, .. } = &self.actors[actor];
        let mut base = self.corpus.example(message, role, name);
        let variants = self.model.variants(message);
        if let Some((with, without)) =
            Some(variants).filter(|_| dice.once_in(2)).and_then(|variants| dice.pick(variants))
        {
            let mut changed = base.clone();
            compose::merge(&mut changed, with);
            compose::remove(&mut changed, without);
            let sent = message::with_edits(self.corpus, message, &changed, Vec::new());
            if sent.class == Class::Valid {
                base = changed;
            }
        }
        self.corpus.without_optional(&mut base);
        base
    }

    /// Puts known or new names of objects into a message.
    fn about(&mut self, message: &MessageType, base: &mut Value, dice: &mut Dice) {
        for leaf in self.model.leaves(message) {
            let Some(now) = base.pointer(&leaf.pointer).and_then(Value::as_str) else { continue };
            let is_literal = expressions::is_literal(now);
            // A generated value identifies this message alone: a repetition would make the hub's answers ambiguous.
            // The sender's identity stays; in one of twelve cases it is replaced by another name.
            if !is_literal && (is_generated(now) || !dice.once_in(12)) {
                continue;
            }
            let fitting: Vec<&Known> = self.known.iter().filter(|known| known.written != now).collect();
            let same: Vec<&Known> = fitting.iter().copied().filter(|known| known.example == leaf.example).collect();
            let alike: Vec<&Known> = fitting.into_iter().filter(|known| known.name == leaf.name).collect();
            let choice = if same.is_empty() || dice.once_in(5) { &alike } else { &same };
            let written = match dice.below(8) {
                0..=5 if !choice.is_empty() => dice.pick(choice).map(|known| known.written.clone()),
                6 if leaf.shared && !leaf.formed && is_literal => Some(self.fresh(leaf)),
                _ => None,
            };
            if let Some(written) = written {
                compose::put(base, &leaf.pointer, json!(written));
            }
        }
        // A correlation id is used once per connection.
        if let Some(pointer) = self.model.asks(message)
            && base.pointer(pointer).is_some()
        {
            compose::put(base, pointer, json!(format!("${{{}}}", 1000 + self.sent)));
        }
    }

    /// Makes a name that no other object has.
    fn fresh(&mut self, leaf: &Leaf) -> String {
        let name = format!("fresh_{}", self.lets.len() + 1);
        self.lets.insert(name.clone(), json!("${unique('walk')}"));
        let written = format!("${{{name}}}");
        let known =
            Known { name: leaf.name.clone(), example: leaf.example.clone(), written: written.clone(), received: false };
        self.known.push(known);
        written
    }

    fn send(&mut self, actor: usize, message: usize, dice: &mut Dice) {
        let corpus = self.corpus;
        let Some(message) = corpus.pack.messages.get(message) else { return };
        let mut base = self.base(message, actor, dice);
        self.about(message, &mut base, dice);
        let plain = message::with_edits(corpus, message, &base, Vec::new());
        let explored = dice.once_in(4).then(|| message::explored(message, &base, &[], dice));
        let explored = explored.map(|edits| message::with_edits(corpus, message, &base, edits));
        let mut right = explored.into_iter().chain([plain]).filter(|sent| sent.class == Class::Valid);
        let Some(sent) = right.next() else { return };
        self.sent += 1;
        let (name, number) = (self.actors[actor].name, self.sent);
        let ping = json!({ "frames": [{ "opcode": "ping", "data": number.to_string() }] });
        self.steps.push(CaseStep::new(name, Verb::SendsRaw, sent.raw).named(format!("sent_{number}")));
        self.steps.push(CaseStep::new(name, Verb::SendsRaw, ping));
        self.steps.push(self.waits(name, number, message));
        self.known.extend(sent_names(self.model.leaves(message), &base));
        for reply in &message.replies {
            let leaves = corpus.pack.message(reply).map(|reply| self.model.leaves(reply)).unwrap_or_default();
            self.known.extend(received_names(leaves, &reply_name(reply, number)));
        }
    }

    /// Returns the step that waits for the replies, if there may be any, until a pong shows that none will come.
    fn waits(&self, name: &str, number: usize, message: &MessageType) -> CaseStep {
        let pong = |fail: Option<&str>| {
            let mut pong = json!({ "frame": "pong", "where": { "data": number.to_string() } });
            if let Some(fail) = fail {
                pong["fail"] = json!(fail);
            }
            pong
        };
        let ends = [json!({ "close": ["any", "drop"] }), json!({ "nothing": null })];
        let expects = |all: Vec<Value>| CaseStep::new(name, Verb::ExpectsOneOf, all).after(format!("sent_{number}"));
        if message.replies.is_empty() {
            let all: Vec<Value> = std::iter::once(pong(None)).chain(ends).collect();
            return expects(all).with("within", SILENCE);
        }
        let replies = message.replies.iter().map(|reply| json!({ "message": reply, "as": reply_name(reply, number) }));
        let errors = self.model.errors.iter().filter(|error| !message.replies.contains(error));
        let errors = errors.map(|error| json!({ "message": error }));
        let all: Vec<Value> =
            replies.chain(errors).chain([pong(Some("the answer has not come before the pong"))]).chain(ends).collect();
        let pause = format!("pause_{number}");
        let expects = expects(all).with("within", format!("${{{pause}}}"));
        CaseStep::new("", Verb::Either, pause).with("in", json!([SILENCE, BEHIND_PONG])).doing([expects])
    }
}

/// Returns the names that a message of an actor makes known.
fn sent_names(leaves: &[Leaf], sent: &Value) -> Vec<Known> {
    let known = |leaf: &Leaf| {
        let written = sent.pointer(&leaf.pointer)?.as_str()?.to_owned();
        // Each evaluation of `unique` gives another value.
        (!is_generated(&written)).then(|| Known {
            name: leaf.name.clone(),
            example: leaf.example.clone(),
            written,
            received: false,
        })
    };
    leaves.iter().filter_map(known).collect()
}

/// Returns the names that a received message makes known, once it is bound to `bound`: its required members.
fn received_names(leaves: &[Leaf], bound: &str) -> Vec<Known> {
    let known = |leaf: &Leaf| {
        let written = expressions::member(bound, &leaf.path);
        leaf.required.then(|| Known { name: leaf.name.clone(), example: leaf.example.clone(), written, received: true })
    };
    leaves.iter().filter_map(known).collect()
}

/// Returns the name that a reply to a message of the walk gets.
fn reply_name(reply: &str, number: usize) -> String {
    let word = reply.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    if is_identifier(&word) { format!("{word}_{number}") } else { format!("reply_{word}_{number}") }
}

/// Whether a text is a new name each time it is evaluated.
fn is_generated(text: &str) -> bool {
    expressions::any(&json!(text), &|made| made.calls("unique") || made.calls("uuid"))
}
