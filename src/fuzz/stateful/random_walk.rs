//! Random but right: several actors say what their roles may say, in an order that nobody wrote down, about things that
//! they heard of or made themselves; one message among them is the odd one. Conversations of the scenarios go one way,
//! these go all ways.
//!
//! Answers never steer what is said. A walk names what it hopes to hear (`job_accepted_3`), says later messages with
//! members of it, and where the answer does not come, those messages are passed over. Nobody but an oracle is judged by
//! what does not come, so every wait of a walk takes silence, too.

use serde_json::{Map, Value, json};

use super::model::{Leaf, Model, Variant};
use crate::fuzz::actors::INNOCENT;
use crate::fuzz::case::{self, Case, Cell, MutationKind, message};
use crate::fuzz::corpus::prefix::{self, Prefix};
use crate::fuzz::corpus::{Corpus, head};
use crate::fuzz::mutate::payload::Class;
use crate::generate::rng::Dice;
use crate::protocol::MessageType;
use crate::scenario::compose;
use crate::scenario::parse::verbs::Verb;

/// Those who walk. Four at most: what takes more parties than that, no protocol here knows.
const NAMES: [&str; 4] = ["anna", "ben", "carl", "dora"];
/// Messages before the odd one, and behind it, at most.
const BEFORE: usize = 8;
const BEHIND: usize = 3;
/// How long an answer is waited for where nothing shows that the message has been dealt with.
const SILENCE: &str = "300ms";
/// How long it is still waited for when a ping that was sent behind the message has been answered: a hub may answer
/// pings before it has dealt with what came first.
const BEHIND_PONG: &str = "20ms";

/// The case of a cell, within a walk; `None` where no role can say the message after an opening.
pub fn make(material: &Corpus, ground: &Model, cell: Cell, number: u64, dice: &mut Dice) -> Option<Case> {
    if !matches!(cell.oddity, MutationKind::Explored | MutationKind::Mutated(_)) {
        // Texts and frames that are no message leave no state behind; they are said in all other places.
        return None;
    }
    let message = material.pack.messages.get(cell.message)?;
    let mut walk = Walk::of(material, ground, message, dice)?;
    for _ in 0..=dice.below(BEFORE) {
        walk.go(None, dice);
    }
    walk.join(0);
    if !dice.once_in(3) {
        walk.supply(message, dice);
    }
    let (mut base, (with, without)) = walk.base(message, 0, dice);
    let mut with = with.as_object().cloned().unwrap_or_default();
    with.extend(walk.about(message, &mut base, dice));
    let before = std::mem::take(&mut walk.steps);
    for _ in 0..dice.below(BEHIND + 1) {
        // The sender is silent now: the answer to the odd message is the oracle's.
        walk.go(Some(0), dice);
    }
    let sender = &walk.actors[0];
    let joined = walk.actors.iter().filter(|actor| actor.state != State::Away);
    let scene = Prefix {
        sender: sender.name.to_owned(),
        role: sender.role.to_owned(),
        bystander: material.bystander()?.to_owned(),
        actors: joined.map(|actor| (actor.name.to_owned(), json!(actor.role))).collect(),
        keys: Map::new(),
        lets: (!walk.lets.is_empty()).then_some(Value::Object(walk.lets)),
        steps: before,
        rest: Vec::new(),
        with: Value::Object(with),
        without,
        sites: prefix::sites(material, message),
    };
    case::made(material, cell, scene, walk.steps, number, dice)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not yet here.
    Away,
    Here,
    Gone,
}

struct Actor<'a> {
    name: &'static str,
    role: &'a str,
    state: State,
}

/// Something that can be spoken of.
struct Known {
    /// The member that it was.
    name: String,
    /// What the documented example has in its place.
    example: String,
    /// As a scenario writes it: an expression, or the text itself.
    written: String,
    /// The hub said it, if it did.
    heard: bool,
}

struct Walk<'a> {
    material: &'a Corpus,
    ground: &'a Model,
    actors: Vec<Actor<'a>>,
    known: Vec<Known>,
    lets: Map<String, Value>,
    steps: Vec<Value>,
    /// Messages said so far.
    said: usize,
}

impl<'a> Walk<'a> {
    /// Actors: first the one who says `message`, then one to three others.
    fn of(material: &'a Corpus, ground: &'a Model, message: &MessageType, dice: &mut Dice) -> Option<Self> {
        let roles: Vec<&str> = ground.roles.iter().map(|role| role.name.as_str()).collect();
        let speakers: Vec<&str> = ground
            .roles
            .iter()
            .filter(|role| role.says.iter().any(|index| material.pack.messages[*index].name == message.name))
            .map(|role| role.name.as_str())
            .collect();
        let first = *dice.pick(if speakers.is_empty() { &roles } else { &speakers })?;
        let mut actors = vec![Actor { name: NAMES[0], role: first, state: State::Away }];
        for name in &NAMES[1..2 + dice.below(NAMES.len() - 1)] {
            actors.push(Actor { name, role: dice.pick(&roles)?, state: State::Away });
        }
        let steps = vec![json!({ format!("{INNOCENT} joins"): null })];
        Some(Self { material, ground, actors, known: Vec::new(), lets: Map::new(), steps, said: 0 })
    }

    /// One more message, or somebody leaves. `but` keeps out of it.
    fn go(&mut self, but: Option<usize>, dice: &mut Dice) {
        let may: Vec<usize> = (0..self.actors.len())
            .filter(|index| Some(*index) != but && self.actors[*index].state != State::Gone)
            .collect();
        let Some(index) = dice.pick(&may).copied() else { return };
        if index > 0 && self.actors[index].state == State::Here && dice.once_in(12) {
            self.actors[index].state = State::Gone;
            let code = if dice.once_in(4) { json!(1001) } else { json!(1000) };
            return self.steps.push(json!({ format!("{} closes", self.actors[index].name): code }));
        }
        let Some(message) = dice.pick(self.says(index)).copied() else { return };
        let supplied = dice.once_in(2) && but.is_none() && self.supply(&self.material.pack.messages[message], dice);
        if !supplied {
            self.join(index);
            self.say(index, message, dice);
        }
    }

    fn says(&self, actor: usize) -> &'a [usize] {
        let role = self.ground.roles.iter().find(|role| role.name == self.actors[actor].role);
        role.map_or(&[], |role| &role.says)
    }

    /// Somebody says what brings about a thing that a message is to speak of, where nothing of the kind is known yet.
    fn supply(&mut self, message: &MessageType, dice: &mut Dice) -> bool {
        for leaf in self.ground.leaves(message) {
            let makers = self.ground.makers(leaf);
            if makers.is_empty() || self.known.iter().any(|known| known.heard && known.example == leaf.example) {
                continue;
            }
            let here = (0..self.actors.len()).filter(|actor| self.actors[*actor].state != State::Gone);
            let can: Vec<(usize, usize)> = here
                .flat_map(|actor| makers.iter().map(move |maker| (actor, *maker)))
                .filter(|(actor, maker)| self.says(*actor).contains(maker))
                .collect();
            if let Some((actor, maker)) = dice.pick(&can).copied() {
                self.join(actor);
                self.say(actor, maker, dice);
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
        self.steps.push(json!({ format!("{name} joins"): null }));
        // What it says of itself in its opening, and what it is told there.
        for step in self.material.opening(role) {
            let Some((head, what)) = head(step) else { continue };
            let Some(message) = what.as_str().and_then(|what| self.material.pack.message(what)) else { continue };
            match (head.verb, step.get("as").and_then(Value::as_str)) {
                (Verb::Sends, _) => {
                    let mut base = self.material.example(message, role, name);
                    let (with, without) = prefix::overrides(step, name);
                    compose::merge(&mut base, &with);
                    compose::remove(&mut base, &without);
                    self.known.extend(spoken_of(self.ground.leaves(message), &base));
                }
                (Verb::Expects, Some(bound)) => {
                    self.known.extend(heard(self.ground.leaves(message), &format!("{name}.{bound}")));
                }
                _ => {}
            }
        }
    }

    /// A right message as an actor might say it: the example, or what a scenario makes of it; and what that is.
    fn base(&self, message: &MessageType, actor: usize, dice: &mut Dice) -> (Value, Variant) {
        let Actor { name, role, .. } = &self.actors[actor];
        let mut base = self.material.example(message, role, name);
        let variants = self.ground.variants(message);
        let mut variant = (Value::Null, Vec::new());
        if let Some((with, without)) =
            Some(variants).filter(|_| dice.once_in(2)).and_then(|variants| dice.pick(variants))
        {
            let mut changed = base.clone();
            compose::merge(&mut changed, with);
            compose::remove(&mut changed, without);
            let said = message::spoken(self.material, message, &changed, Vec::new());
            if said.class == Class::Valid {
                (base, variant) = (changed, (with.clone(), without.clone()));
            }
        }
        self.material.without_optional(&mut base);
        (base, variant)
    }

    /// Lets a message speak of what is known, or of something new. What was changed, as overrides.
    fn about(&mut self, message: &MessageType, base: &mut Value, dice: &mut Dice) -> Map<String, Value> {
        let mut with = Map::new();
        for leaf in self.ground.leaves(message) {
            let Some(now) = base.pointer(&leaf.pointer).and_then(Value::as_str) else { continue };
            // What is made anew each time names this message and no other: who says it again may hear of it twice.
            let anew = ["uuid(", "unique("].iter().any(|made| now.contains(made));
            // Who says it stays, but now and then somebody speaks as another.
            if now.contains("${") && (anew || !dice.once_in(12)) {
                continue;
            }
            let fitting: Vec<&Known> = self.known.iter().filter(|known| known.written != now).collect();
            let same: Vec<&Known> = fitting.iter().copied().filter(|known| known.example == leaf.example).collect();
            let alike: Vec<&Known> = fitting.into_iter().filter(|known| known.name == leaf.name).collect();
            let choice = if same.is_empty() || dice.once_in(5) { &alike } else { &same };
            let written = match dice.below(8) {
                0..=5 if !choice.is_empty() => dice.pick(choice).map(|known| known.written.clone()),
                6 if leaf.shared && !leaf.formed && !now.contains("${") => Some(self.fresh(leaf)),
                _ => None,
            };
            let Some(written) = written else { continue };
            compose::put(base, &leaf.pointer, json!(written));
            with.insert(leaf.pointer.clone(), json!(written));
        }
        // An id by which the answer is known is used once on a connection.
        if let Some(pointer) = self.ground.asks(message)
            && base.pointer(pointer).is_some()
        {
            let id = format!("${{{}}}", 1000 + self.said);
            compose::put(base, pointer, json!(id));
            with.insert(pointer.to_owned(), json!(id));
        }
        with
    }

    /// A name that nobody else uses.
    fn fresh(&mut self, leaf: &Leaf) -> String {
        let name = format!("fresh_{}", self.lets.len() + 1);
        self.lets.insert(name.clone(), json!("${unique('walk')}"));
        let written = format!("${{{name}}}");
        let known =
            Known { name: leaf.name.clone(), example: leaf.example.clone(), written: written.clone(), heard: false };
        self.known.push(known);
        written
    }

    fn say(&mut self, actor: usize, message: usize, dice: &mut Dice) {
        let material = self.material;
        let Some(message) = material.pack.messages.get(message) else { return };
        let (mut base, _) = self.base(message, actor, dice);
        self.about(message, &mut base, dice);
        let plain = message::spoken(material, message, &base, Vec::new());
        let explored = dice.once_in(4).then(|| message::explored(message, &base, &[], dice));
        let explored = explored.map(|edits| message::spoken(material, message, &base, edits));
        let mut right = explored.into_iter().chain([plain]).filter(|said| said.class == Class::Valid);
        let Some(said) = right.next() else { return };
        self.said += 1;
        let (name, number) = (self.actors[actor].name, self.said);
        let ping = json!({ "frames": [{ "opcode": "ping", "data": number.to_string() }] });
        self.steps.push(json!({ format!("{name} sends raw"): said.raw, "as": format!("said_{number}") }));
        self.steps.push(json!({ format!("{name} sends raw"): ping }));
        self.steps.extend(self.waits(name, number, message));
        self.known.extend(spoken_of(self.ground.leaves(message), &base));
        for reply in &message.replies {
            let leaves = material.pack.message(reply).map(|reply| self.ground.leaves(reply)).unwrap_or_default();
            self.known.extend(heard(leaves, &format!("{reply}_{number}")));
        }
    }

    /// The answer is waited for if there may be one, until a ping behind the message shows that none comes.
    fn waits(&self, name: &str, number: usize, message: &MessageType) -> Vec<Value> {
        let pong = |fail: Option<&str>| {
            let mut pong = json!({ "frame": "pong", "where": { "data": number.to_string() } });
            if let Some(fail) = fail {
                pong["fail"] = json!(fail);
            }
            pong
        };
        let ends = [json!({ "close": ["any", "drop"] }), json!({ "nothing": null })];
        let expects = format!("{name} expects one of");
        if message.replies.is_empty() {
            let all: Vec<Value> = std::iter::once(pong(None)).chain(ends).collect();
            return vec![json!({ expects: all, "after": format!("said_{number}"), "within": SILENCE })];
        }
        let replies =
            message.replies.iter().map(|reply| json!({ "message": reply, "as": format!("{reply}_{number}") }));
        let errors = self.ground.errors.iter().filter(|error| !message.replies.contains(error));
        let errors = errors.map(|error| json!({ "message": error }));
        let all: Vec<Value> =
            replies.chain(errors).chain([pong(Some("the answer has not come before the pong"))]).chain(ends).collect();
        let (pause, after) = (format!("pause_{number}"), format!("said_{number}"));
        vec![json!({
            "either": pause,
            "in": [SILENCE, BEHIND_PONG],
            "do": [{ expects: all, "after": after, "within": format!("${{{pause}}}") }],
        })]
    }
}

/// What a message that we said makes known.
fn spoken_of(leaves: &[Leaf], said: &Value) -> Vec<Known> {
    let known = |leaf: &Leaf| {
        let written = said.pointer(&leaf.pointer)?.as_str()?.to_owned();
        // Each `unique` gives something else.
        let is_new = written.contains("unique(") || written.contains("uuid()");
        (!is_new).then(|| Known { name: leaf.name.clone(), example: leaf.example.clone(), written, heard: false })
    };
    leaves.iter().filter_map(known).collect()
}

/// What a message of the hub's makes known that is bound to a name: the members that it always has.
fn heard(leaves: &[Leaf], bound: &str) -> Vec<Known> {
    let known = |leaf: &Leaf| {
        let path = leaf.path.as_ref().filter(|_| leaf.required)?;
        let written = format!("${{{bound}.{path}}}");
        Some(Known { name: leaf.name.clone(), example: leaf.example.clone(), written, heard: true })
    };
    leaves.iter().filter_map(known).collect()
}
