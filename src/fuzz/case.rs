//! One case: something odd, said at one moment of one conversation, and what must be true all the same. A case is an
//! ordinary scenario, so whoever wants to see a finding again plays it with `hubproof check`.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::answers::{Answer, Input};
use super::framing::Framing;
use super::malformed::Spoilt;
use super::material::{Material, Moment, head, spoken_by};
use super::mutation::{self, Mutation, Site};
use super::oracle;
use super::payload::{self, Change, Class, Edit};
use super::seed::Dice;
use super::shape::{Branches, Shape};
use super::value;
use crate::pack::{Level, MessageType, Pack};
use crate::scenario::compose;
use crate::scenario::read::verbs::Verb;

/// What is odd about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Oddity {
    /// Nothing, but that nobody says it like this.
    Explored,
    Mutated(Mutation),
    Spoilt(Spoilt),
    Framed(Framing),
}

impl Oddity {
    pub fn name(self) -> &'static str {
        match self {
            Self::Explored => "explored",
            Self::Mutated(mutation) => mutation.name(),
            Self::Spoilt(spoilt) => spoilt.name(),
            Self::Framed(framing) => framing.name(),
        }
    }
}

/// When, and by whom, it is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Placement {
    /// The connection is open, and nothing has been said.
    First,
    /// The opening has been played.
    Joined,
    /// In the middle of a conversation of the scenarios, in place of the right message.
    Within,
    /// There too, but by somebody else.
    Outside,
    /// Within a walk: several actors say right things by chance, about each other's things.
    Walk,
    /// The opening has been played, and it is said again and again: what is no message at all.
    Repeated,
    /// The opening has been played, and others of the kind are said on the same connection, each once the one before it
    /// has been answered.
    Kept,
    /// Others of the kind are said, too, each on a connection of its own on which the opening has been played.
    Anew,
}

impl Placement {
    pub const ALL: [Self; 8] =
        [Self::First, Self::Joined, Self::Within, Self::Outside, Self::Walk, Self::Repeated, Self::Kept, Self::Anew];

    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Joined => "joined",
            Self::Within => "within",
            Self::Outside => "outside",
            Self::Walk => "walk",
            Self::Repeated => "repeated",
            Self::Kept => "kept",
            Self::Anew => "anew",
        }
    }

    /// The moment of the conversation, as shared.yaml names it.
    pub fn moment(self) -> &'static str {
        match self {
            Self::Repeated | Self::Kept | Self::Anew => Self::Joined.name(),
            Self::Walk => Self::Within.name(),
            other => other.name(),
        }
    }

    /// Whether many of a kind are said, and not one thing alone.
    pub fn is_of_many(self) -> bool {
        matches!(self, Self::Kept | Self::Anew)
    }
}

/// What a case is about; what exactly is said is chosen by its dice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// Index into the pack's messages.
    pub message: usize,
    pub oddity: Oddity,
    pub placement: Placement,
}

pub struct Case {
    pub number: u64,
    pub cell: Cell,
    pub class: Class,
    /// In words: `/priority is "high"`.
    pub odd: String,
    /// JSON pointer of the place that is odd; empty for the whole message.
    pub pointer: String,
    /// The scenario, as its file holds it.
    pub scenario: Map<String, Value>,
}

/// The name of the step that says what is odd.
pub const ODD: &str = "the_odd";
/// What a loop over odd things calls each of them.
pub const ROUND: &str = "round";
/// Actors of a case besides those of its scenario.
pub const INNOCENT: &str = "innocent";
pub const NEWCOMER: &str = "newcomer";
/// Shows that somebody of the sender's role can join at all.
const FORERUNNER: &str = "forerunner";
const SENDER: &str = "sender";

/// Tries to find an exploration that is right, or a mutation that its place gives something to work on.
const ATTEMPTS: usize = 8;

/// The case of a cell that plays in one of `scenes`; `None` where the protocol gives nothing to make it of.
pub fn make(material: &Material, cell: Cell, scenes: &[Scene], number: u64, dice: &mut Dice) -> Option<Case> {
    match cell.placement.is_of_many() {
        true => many_somewhere(material, cell, scenes, number, dice).map(|(_, case, _)| case),
        false => made(material, cell, dice.pick(scenes)?.clone(), Vec::new(), number, dice),
    }
}

/// What a case that says many things says, each in a case of its own; none for other cases.
pub fn singles(material: &Material, cell: Cell, scenes: &[Scene], number: u64, dice: &mut Dice) -> Vec<Case> {
    let found = cell.placement.is_of_many().then(|| many_somewhere(material, cell, scenes, number, dice));
    let Some((scene, _, all)) = found.flatten() else { return Vec::new() };
    let cell = Cell { placement: Placement::Joined, ..cell };
    let case = |said| about(material, cell, scene.clone(), said, Vec::new(), number);
    all.into_iter().filter_map(case).collect()
}

/// The case in which many of a kind are said, in the first of `scenes`, from any of them on, whose sender is answered.
fn many_somewhere<'a>(
    material: &Material,
    cell: Cell,
    scenes: &'a [Scene],
    number: u64,
    dice: &mut Dice,
) -> Option<(&'a Scene, Case, Vec<Said>)> {
    let from = dice.below(scenes.len().max(1));
    let mut round = scenes.iter().cycle().skip(from).take(scenes.len());
    round.find_map(|scene| {
        let (case, all) = many(material, cell, scene, number, dice)?;
        Some((scene, case, all))
    })
}

/// The case of a cell in a scene. `behind` is what others go on saying before the oracles are asked.
pub(super) fn made(
    material: &Material,
    cell: Cell,
    scene: Scene,
    behind: Vec<Value>,
    number: u64,
    dice: &mut Dice,
) -> Option<Case> {
    let mut draft = Draft::new(material, cell, &scene)?;
    let said = draft.said(dice)?.0;
    if cell.placement != Placement::Repeated {
        return about(material, cell, scene, said, behind, number);
    }
    // What may be taken for a message has an id, perhaps, and no id is used twice: not even in what breaks off behind it.
    if !matches!(cell.oddity, Oddity::Spoilt(spoilt) if spoilt.class() != Class::Unspecified) {
        return None;
    }
    // Others of the kind, since a hub may not mind every one of them.
    let more = (1..oracle::ROUNDS).filter_map(|round| draft.renumbered(round).said(dice)?.0.text());
    let texts: Vec<Value> = said.text().into_iter().chain(more).collect();
    let odd = odd(material, draft.message, cell, &scene, &said);
    let sends = format!("{} sends raw", scene.sender);
    let mut steps = scene.steps.clone();
    steps.extend(oracle::before(material, &odd));
    steps.push(json!({ "each": "text", "in": texts, "do": [{ sends: { "text": "${text}" } }] }));
    steps.extend(oracle::behind(material, &odd, Vec::new()));
    Some(case(material, cell, scene, &said, steps, number))
}

/// The case that says this, once.
fn about(
    material: &Material,
    cell: Cell,
    mut scene: Scene,
    said: Said,
    behind: Vec<Value>,
    number: u64,
) -> Option<Case> {
    let message = material.pack.messages.get(cell.message)?;
    let mut steps = std::mem::take(&mut scene.steps);
    let rest = std::mem::take(&mut scene.rest);
    let odd = odd(material, message, cell, &scene, &said);
    steps.extend(oracle::before(material, &odd));
    steps.push(json!({ format!("{} sends raw", scene.sender): said.raw, "as": ODD }));
    steps.extend(behind);
    // Only what no hub can take for a message has no right to disturb.
    let undisturbed = matches!(said.class, Class::Malformed | Class::Broken);
    steps.extend(oracle::behind(material, &odd, if undisturbed { rest } else { Vec::new() }));
    Some(case(material, cell, scene, &said, steps, number))
}

/// So many odd things are thought of for one connection, and where each has one of its own.
const MANY: (usize, usize) = (100, 25);
/// After so many of which nothing can be said together it is given up.
const VAIN: usize = 16;
/// Once so many are alike, no others are thought of for a connection that is kept.
const ENOUGH: usize = 5;

/// Odd things that the document answers alike, in terms of as much of what was said.
struct Alike<'a> {
    class: Class,
    /// `None` where it is silent.
    answer: Option<&'a Answer>,
    mentioned: Vec<String>,
    all: Vec<Said>,
    rounds: Vec<Value>,
    ids: BTreeSet<String>,
    /// Where they are odd.
    sites: Vec<&'a Site>,
}

impl<'a> Alike<'a> {
    fn is_of(&self, class: Class, answer: Option<&Answer>, about: &Map<String, Value>) -> bool {
        let same = match (self.answer, answer) {
            (Some(one), Some(other)) => std::ptr::eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        self.class == class && same && self.mentioned.iter().eq(about.keys())
    }
}

/// The case in which many of a kind are said that the document answers alike, and what these are.
fn many(material: &Material, cell: Cell, scene: &Scene, number: u64, dice: &mut Dice) -> Option<(Case, Vec<Said>)> {
    let mut draft = Draft::new(material, cell, scene)?;
    let message = draft.message;
    let anew = cell.placement == Placement::Anew;
    let mut kinds: Vec<Alike<'_>> = Vec::new();
    let mut narrowed = false;
    for index in 0..if anew { MANY.1 } else { MANY.0 } {
        if index == VAIN && kinds.is_empty() {
            return None;
        }
        let Some((said, site)) = draft.renumbered(index).said(dice) else { continue };
        // No frame below messages is answered, and whoever breaks the protocol is let go.
        let text = said.text()?;
        let (answer, about) = oracle::promised(material, &odd(material, message, cell, scene, &said));
        // Behind what ends the connection, or is perhaps not answered, nothing can be said on it.
        if !anew && !answer.is_some_and(Answer::lasts) {
            continue;
        }
        let known = kinds.iter().position(|kind| kind.is_of(said.class, answer, &about)).unwrap_or_else(|| {
            let (class, mentioned) = (said.class, about.keys().cloned().collect());
            let (all, rounds, ids, sites) = (Vec::new(), Vec::new(), BTreeSet::new(), Vec::new());
            kinds.push(Alike { class, answer, mentioned, all, rounds, ids, sites });
            kinds.len() - 1
        });
        let kind = kinds.get_mut(known)?;
        let round = json!({ "text": text, "said": about });
        // On a connection that is kept the same may be said again, as a hub may tire of it; but no id is used twice. What says
        // who the sender is says something else on every new connection.
        let known = anew && kind.rounds.contains(&round);
        let id = said.id(message).filter(|id| !anew || !id.contains("${"));
        if !known && id.is_none_or(|id| kind.ids.insert(id)) {
            kind.rounds.push(round);
            kind.sites.extend(site);
            kind.all.push(said);
            if kind.all.len() == ENOUGH && !anew && !narrowed {
                draft.narrow(kind);
                narrowed = true;
            }
        }
    }
    // Any of those of which the document says something, where each has a connection of its own; else the first of the largest.
    let told: Vec<usize> =
        (0..kinds.len()).filter(|at| kinds[*at].answer.is_some() && kinds[*at].all.len() > 1).collect();
    let chosen = match dice.pick(&told).filter(|_| anew) {
        Some(at) => Some(kinds.swap_remove(*at)),
        None => kinds.into_iter().rev().max_by_key(|kind| kind.all.len()),
    };
    let Alike { all, rounds, .. } = chosen?;
    let first = all.first().filter(|_| all.len() > 1)?;
    let odd = odd(material, message, cell, scene, first);
    let mut scene = scene.clone();
    let mut steps = std::mem::take(&mut scene.steps);
    steps.push(oracle::each(material, &odd, rounds));
    steps.extend(oracle::behind(material, &odd, Vec::new()));
    Some((case(material, cell, scene, first, steps, number), all))
}

/// A message as it is said in a scene, and what is to be odd about it.
struct Draft<'a> {
    material: &'a Material,
    message: &'a MessageType,
    oddity: Oddity,
    /// The message where nothing is odd, and the same with something in place of expressions.
    base: Value,
    plain: Value,
    /// Of the base, where it is no expression.
    id: Option<Value>,
    sites: Vec<&'a Site>,
    /// Members that are left alone where it is explored.
    fixed: Vec<String>,
}

impl<'a> Draft<'a> {
    fn new(material: &'a Material, cell: Cell, scene: &'a Scene) -> Option<Self> {
        let message = material.pack.messages.get(cell.message)?;
        let base = scene.base(material, message);
        let plain = plain(message, &base);
        let id = message.correlation.as_ref().and_then(|pointer| base.pointer(pointer));
        let id = id.filter(|id| id.as_str().is_none_or(|text| !text.contains("${"))).cloned();
        let is_asked = |site: &&Site| cell.oddity == Oddity::Mutated(site.mutation);
        let sites = scene.sites.iter().filter(is_asked).collect();
        // No id is used twice on a connection that is kept, so each is given.
        let given = message.correlation.as_ref().filter(|_| cell.placement == Placement::Kept);
        let fixed = given.and_then(|pointer| pointer.strip_prefix('/')).map(crate::matcher::unescape);
        let fixed = fixed.into_iter().collect();
        Some(Self { material, message, oddity: cell.oddity, base, plain, id, sites, fixed })
    }

    /// With an id of its own, if it has one by which its answer is known.
    fn renumbered(&mut self, index: usize) -> &Self {
        let id = match self.id.clone() {
            Some(Value::Number(number)) => {
                Some(json!(number.as_u64().unwrap_or_default().saturating_add(index as u64)))
            }
            Some(Value::String(mut text)) => {
                // Of the form that it had.
                let kept = text.char_indices().nth_back(INDEX - 1).map_or(text.len(), |(at, _)| at);
                text.replace_range(kept.., &format!("{index:0INDEX$x}"));
                Some(Value::String(text))
            }
            _ => None,
        };
        if let (Some(id), Some(pointer)) = (id, &self.message.correlation) {
            for message in [&mut self.base, &mut self.plain] {
                message.pointer_mut(pointer).into_iter().for_each(|member| *member = id.clone());
            }
        }
        self
    }

    /// Something odd, and where, if it is one of the message's places.
    fn said(&self, dice: &mut Dice) -> Option<(Said, Option<&'a Site>)> {
        let Self { material, message, base, .. } = self;
        match self.oddity {
            Oddity::Spoilt(spoilt) => {
                let text = spoilt.text(&payload::text(base, &[]), dice);
                let value: Option<Value> =
                    serde_json::from_str(&text).ok().filter(|_| spoilt.class() != Class::Unspecified);
                let (raw, odd) = (json!({ "text": text }), Odd::Named(spoilt.name()));
                Some((Said { raw, class: spoilt.class(), plain: value.clone(), value, odd }, None))
            }
            Oddity::Framed(framing) => {
                let raw = framing.raw(&payload::text(base, &[]), dice);
                // In pieces a message is what it is in one.
                let right = framing.class() == Class::Valid;
                let whole = self.edited(Vec::new());
                let class = if right { whole.class } else { framing.class() };
                let (plain, value) = if right { (whole.plain, whole.value) } else { (None, None) };
                Some((Said { raw, class, plain, value, odd: Odd::Named(framing.name()) }, None))
            }
            Oddity::Mutated(_) => (0..ATTEMPTS).find_map(|_| {
                let site = dice.pick(&self.sites)?;
                let edits = mutation::edits(&material.pack, message, site, dice)?;
                Some((self.edited(edits), Some(*site)))
            }),
            Oddity::Explored => (0..ATTEMPTS).find_map(|_| {
                let said = self.edited(explored(message, base, &self.fixed, dice));
                (said.class == Class::Valid).then_some((said, None))
            }),
        }
    }

    fn edited(&self, edits: Vec<Edit>) -> Said {
        edited(self.material, self.message, &self.base, self.plain.clone(), edits)
    }

    /// From now on only what is likely to be of this kind: where all of it are odd or alike, the rest is, too.
    fn narrow(&mut self, kind: &Alike<'_>) {
        self.sites.retain(|site| kind.sites.contains(site));
        let (Oddity::Explored, Some(first)) = (self.oddity, kind.all.first()) else { return };
        let (Some(Value::Object(members)), Some(plain)) = (&first.value, &first.plain) else { return };
        for (name, value) in members {
            let is_alike = |said: &Said| said.value.as_ref().and_then(|said| said.get(name)) == Some(value);
            let Some(plain) = plain.get(name).filter(|_| kind.all.iter().all(is_alike)) else { continue };
            let pointer = format!("/{}", crate::matcher::escape(name));
            compose::put(&mut self.base, &pointer, value.clone());
            compose::put(&mut self.plain, &pointer, plain.clone());
            self.fixed.push(name.clone());
        }
    }
}

/// Letters of an id that tell how many were before it.
const INDEX: usize = 4;

/// What is said, as oracles see it.
fn odd<'a>(
    material: &'a Material,
    message: &'a MessageType,
    cell: Cell,
    scene: &'a Scene,
    said: &'a Said,
) -> oracle::Odd<'a> {
    let taken_for = said.plain.as_ref().and_then(|plain| payload::taken_for(&material.pack, plain));
    oracle::Odd {
        message,
        input: Input {
            class: said.class,
            placement: cell.placement,
            role: &scene.role,
            taken_for: taken_for.map(|message| &*message.name),
            payload: said.plain.as_ref(),
        },
        said: said.value.as_ref(),
        sender: &scene.sender,
        size: length(&said.raw),
        names_another: cell.oddity == Oddity::Mutated(Mutation::ForeignId),
    }
}

/// The scenario of all this.
fn case(material: &Material, cell: Cell, scene: Scene, said: &Said, steps: Vec<Value>, number: u64) -> Case {
    let mut scenario = Map::new();
    let name = material.pack.messages.get(cell.message).map_or("", |message| &message.name);
    let (oddity, placement) = (cell.oddity.name(), cell.placement.name());
    let odd = said.odd.in_words();
    let title = format!("Case {number}: {name} {oddity}, said {placement}: {odd}");
    scenario.insert("title".to_owned(), json!(title));
    for (name, value) in scene.keys {
        scenario.insert(name, value);
    }
    if cell.placement == Placement::Repeated {
        // What others say at the same time would count as the hub's being tired, or hide it.
        scenario.insert("exclusive".to_owned(), json!("hub"));
    }
    let mut actors = scene.actors;
    actors.insert(INNOCENT.to_owned(), json!(scene.bystander));
    actors.insert(NEWCOMER.to_owned(), json!(scene.bystander));
    scenario.insert("actors".to_owned(), Value::Object(actors));
    if let Some(lets) = scene.lets {
        scenario.insert("let".to_owned(), lets);
    }
    scenario.insert("steps".to_owned(), Value::Array(steps));
    Case { number, cell, class: said.class, odd, pointer: said.odd.pointer(), scenario }
}

/// How long what is said is, at least, in one frame or in several; what repeats something is long.
fn length(raw: &Value) -> usize {
    match raw {
        Value::String(text) if text.contains("repeat(") => usize::MAX,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(length).fold(0, usize::saturating_add),
        Value::Object(members) => members.values().map(length).fold(0, usize::saturating_add),
        _ => 0,
    }
}

// ---- where

/// What comes before the odd message, and who says it.
#[derive(Clone)]
pub struct Scene {
    pub(super) sender: String,
    pub(super) role: String,
    /// The role of those who look on.
    pub(super) bystander: String,
    pub(super) actors: Map<String, Value>,
    /// Other keys of the scenario: needs, exclusive.
    pub(super) keys: Map<String, Value>,
    pub(super) lets: Option<Value>,
    pub(super) steps: Vec<Value>,
    /// How it goes on without the odd message, and accuses whoever lets it be disturbed.
    pub(super) rest: Vec<Value>,
    /// What the scenario puts into the message.
    pub(super) with: Value,
    pub(super) without: Vec<String>,
    /// Where the message can be mutated.
    pub(super) sites: Arc<[Site]>,
}

/// Where a message can be mutated, who it is from being a matter of whoever looks on.
pub(super) fn sites(material: &Material, message: &MessageType) -> Arc<[Site]> {
    mutation::sites(message, &material.identities(material.bystander().unwrap_or_default())).into()
}

impl Scene {
    /// The message as it is said here where nothing is odd.
    fn base(&self, material: &Material, message: &MessageType) -> Value {
        let mut base = material.example(message, &self.role, &self.sender);
        compose::merge(&mut base, &self.with);
        compose::remove(&mut base, &self.without);
        material.without_optional(&mut base);
        base
    }
}

/// All scenes in which a message can be said at such a moment.
pub fn scenes(material: &Material, message: &MessageType, placement: Placement) -> Vec<Scene> {
    let sites = sites(material, message);
    match placement {
        Placement::First | Placement::Joined | Placement::Repeated | Placement::Kept | Placement::Anew => {
            let mut roles = material.speakers(&message.name);
            // Whoever connects by hand alone says nothing where nobody's hand is.
            roles.retain(|role| placement == Placement::First || material.joins(role));
            if roles.is_empty() {
                roles.extend(material.bystander());
            }
            roles.into_iter().filter_map(|role| alone(material, message, placement, role, &sites)).collect()
        }
        Placement::Within | Placement::Outside => material
            .moments(&message.name)
            .into_iter()
            .filter_map(|moment| within(material, moment, placement, &sites))
            .collect(),
        // Every walk is made anew.
        Placement::Walk => Vec::new(),
    }
}

/// A conversation of its own: the socket is opened, or the opening played.
fn alone(
    material: &Material,
    message: &MessageType,
    placement: Placement,
    role: &str,
    sites: &Arc<[Site]>,
) -> Option<Scene> {
    let role = role.to_owned();
    let mut steps = vec![json!({ "innocent joins": null })];
    let (mut with, mut without) = (Value::Null, Vec::new());
    let opening = material.opening(&role);
    let its_own = opening.iter().find(|step| {
        head(step).is_some_and(|(head, what)| head.verb == Verb::Sends && what.as_str() == Some(&message.name))
    });
    if let Some(step) = its_own {
        (with, without) = overrides(step, SENDER);
    }
    match placement {
        Placement::First => {
            let connects = |step: &Value| head(step).is_some_and(|(head, _)| head.verb == Verb::Connects);
            match opening.iter().position(connects) {
                Some(last) => steps.extend(opening[..=last].iter().map(|step| by(step, SENDER))),
                None => steps.push(json!({ "sender connects": null })),
            }
        }
        Placement::Anew => steps.push(json!({ "forerunner joins": null })),
        _ => steps.push(json!({ "sender joins": null })),
    }
    let mut actors = Map::from_iter([(SENDER.to_owned(), json!(role))]);
    if placement == Placement::Anew {
        actors.insert(FORERUNNER.to_owned(), json!(role));
    }
    Some(Scene {
        sender: SENDER.to_owned(),
        bystander: material.bystander()?.to_owned(),
        role,
        actors,
        keys: Map::new(),
        lets: None,
        steps,
        rest: Vec::new(),
        with,
        without,
        sites: Arc::clone(sites),
    })
}

/// A scenario up to the moment, without what it judges and without its silences.
fn within(material: &Material, moment: Moment, placement: Placement, sites: &Arc<[Site]>) -> Option<Scene> {
    let script = material.scenarios.get(moment.script)?;
    let step = script.steps.get(moment.step)?;
    let (spoken, _) = head(step)?;
    let names = script.names();
    let taken = [INNOCENT, NEWCOMER, SENDER].iter().any(|name| names.contains(name));
    if taken || script.root.contains_key("destructive") || script.root.get("exclusive") == Some(&json!("hub")) {
        return None;
    }
    let mut steps = vec![json!({ "innocent joins": null })];
    for step in &script.steps[..moment.step] {
        let (head, _) = head(step)?;
        match head.verb {
            // Time that passes is the scenarios' business.
            Verb::Wait | Verb::Retry | Verb::Either => return None,
            // Whoever may be gone, or is not listening, has nothing to say.
            _ if head.actor == spoken.actor && may_end(step, head.verb) => return None,
            _ => steps.extend(unjudged(step)),
        }
    }
    let bystander = material.bystander()?.to_owned();
    let role = match script.role(spoken.actor) {
        // Who could not come in by himself has no part in it.
        role if placement == Placement::Outside && !material.joins(role) => bystander.clone(),
        role => role.to_owned(),
    };
    let (with, without) = overrides(step, spoken.actor);
    let mut actors = script.root.get("actors").and_then(Value::as_object).cloned().unwrap_or_default();
    for name in names.iter().filter(|name| !name.contains('[')) {
        if !actors.contains_key(*name) && material.roles().contains(name) {
            actors.insert((*name).to_owned(), json!(name));
        }
    }
    let sender = match placement {
        Placement::Outside => {
            // Somebody of the same role, who has no part in it.
            actors.insert(SENDER.to_owned(), json!(role));
            steps.push(json!({ "sender joins": null }));
            SENDER.to_owned()
        }
        // Several at once have no id that one message could name.
        _ if actors.get(spoken.actor).is_some_and(Value::is_array) => return None,
        _ => spoken.actor.to_owned(),
    };
    let keys =
        ["needs", "exclusive"].into_iter().filter_map(|key| Some((key.to_owned(), script.root.get(key)?.clone())));
    Some(Scene {
        sender,
        bystander,
        role,
        actors,
        keys: keys.collect(),
        lets: script.root.get("let").cloned(),
        steps,
        rest: if placement == Placement::Outside {
            rest(&material.pack, &script.steps[moment.step..])
        } else {
            Vec::new()
        },
        with,
        without,
        sites: Arc::clone(sites),
    })
}

/// Whether whoever does this step may have no connection afterwards, or does not listen to it.
fn may_end(step: &Value, verb: Verb) -> bool {
    let ends = |alternative: &Value| alternative.get("close").is_some() || alternative.get("refusal").is_some();
    match verb {
        Verb::Closes | Verb::Drops | Verb::StopsReading => true,
        Verb::ExpectsClose | Verb::ExpectsEnd | Verb::ExpectsRefusal => true,
        Verb::ExpectsOneOf => {
            let alternatives = head(step).and_then(|(_, alternatives)| alternatives.as_array());
            alternatives.is_some_and(|alternatives| alternatives.iter().any(ends))
        }
        _ => false,
    }
}

/// How long an answer that need not come is waited for before the odd message.
const SILENCE: &str = "300ms";

/// So many steps of a conversation are played to its end.
const REST: usize = 8;

/// How a conversation goes on, as far as that takes no time: what it expects must come.
fn rest(pack: &Pack, steps: &[Value]) -> Vec<Value> {
    let timeless = |step: &&Value| {
        head(step).is_some_and(|(head, _)| {
            !matches!(head.verb, Verb::Wait | Verb::Retry | Verb::Either) && step.get("for").is_none()
        })
    };
    let mut rest = Vec::new();
    for step in steps.iter().take_while(timeless).take(REST) {
        let Some(mut plain) = unjudged(step) else { continue };
        let verb = head(step).map(|(head, _)| head.verb);
        let rules = step.get("rules").filter(|_| matches!(verb, Some(Verb::Expects | Verb::ExpectsOneOf)));
        let undisturbed = match rules.map(|rules| demand(pack, rules)) {
            Some(Level::Must) => Some("FUZZ-UNDISTURBED"),
            Some(Level::Should) => Some("FUZZ-UNDISTURBED as should"),
            // What is only allowed need not come, without anybody's disturbing.
            Some(Level::May) if verb == Some(Verb::ExpectsOneOf) => None,
            Some(Level::May) if step.get("as").is_none() => continue,
            Some(Level::May) => break,
            None => None,
        };
        if let (Some(rule), Some(members)) = (undisturbed, plain.as_object_mut()) {
            members.insert("rules".to_owned(), json!([rule]));
        }
        rest.push(plain);
    }
    // What follows the last thing that is judged shows nothing.
    let judged = rest.iter().rposition(|step| step.get("rules").is_some()).map_or(0, |last| last + 1);
    rest.truncate(judged);
    rest
}

/// The most that a step's rules demand.
fn demand(pack: &Pack, rules: &Value) -> Level {
    let names = rules.as_array().into_iter().flatten().filter_map(Value::as_str);
    let of = |name: &str| pack.rules.get(name).map_or(Level::May, |rule| rule.level);
    // What is lowered has its level behind its name.
    let level = |written: &str| match written.split_once(" as ") {
        Some((name, "should")) => of(name).min(Level::Should),
        Some(_) => Level::May,
        None => of(written),
    };
    names.map(level).max().unwrap_or(Level::May)
}

pub(super) fn overrides(step: &Value, actor: &str) -> (Value, Vec<String>) {
    let with = step.get("with").map_or(Value::Null, |with| deep(with, &|text| spoken_by(text, actor)));
    let without = step.get("without").and_then(Value::as_array).into_iter().flatten();
    (with, without.filter_map(Value::as_str).map(str::to_owned).collect())
}

fn deep(value: &Value, change: &dyn Fn(&Value) -> Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| deep(item, change)).collect(),
        Value::Object(members) => members.iter().map(|(name, member)| (name.clone(), deep(member, change))).collect(),
        other => change(other),
    }
}

/// A step in the first person, done by `actor`.
fn by(step: &Value, actor: &str) -> Value {
    let Some(members) = step.as_object() else { return step.clone() };
    let change = |value: &Value| deep(value, &|text| spoken_by(text, actor));
    let acts = head(step).is_some_and(|(head, _)| !head.word);
    let name = |(index, key): (usize, &String)| if index == 0 && acts { format!("{actor} {key}") } else { key.clone() };
    members.iter().enumerate().map(|(index, (key, value))| (name((index, key)), change(value))).collect()
}

/// A step without what it accuses of: what goes wrong here, the scenarios tell. `None` for one that does nothing else.
fn unjudged(step: &Value) -> Option<Value> {
    if head(step).is_some_and(|(head, _)| head.verb.only_judges()) {
        return None;
    }
    let mut members = step.as_object()?.clone();
    members.retain(|key, _| !matches!(key.as_str(), "rules" | "has"));
    // Without its rules, which may only allow it, an answer that need not come would be waited for as one that must.
    let silence = |alternative: &Value| alternative.get("nothing").is_some();
    let optional = head(step).is_some_and(|(head, what)| {
        head.verb == Verb::ExpectsOneOf && what.as_array().is_some_and(|alternatives| alternatives.iter().any(silence))
    });
    if optional {
        members.entry("within").or_insert_with(|| json!(SILENCE));
    }
    if let Some(Value::Array(inner)) = members.get_mut("do") {
        *inner = inner.iter().filter_map(unjudged).collect();
    }
    Some(Value::Object(members))
}

// ---- what

pub(super) struct Said {
    /// The argument of `sends raw`.
    pub(super) raw: Value,
    pub(super) class: Class,
    /// Its JSON, with something in place of expressions; `None` where there is none, or no value can say it.
    plain: Option<Value>,
    /// The same with its expressions.
    value: Option<Value>,
    odd: Odd,
}

/// What is odd about what is said, as reports tell it.
enum Odd {
    Named(&'static str),
    Edited(Vec<Edit>),
}

impl Odd {
    fn in_words(&self) -> String {
        match self {
            Self::Named(name) => (*name).to_owned(),
            Self::Edited(edits) => edits.iter().map(in_words).collect::<Vec<_>>().join(", "),
        }
    }

    /// See [`Case::pointer`].
    fn pointer(&self) -> String {
        match self {
            Self::Edited(edits) => edits.first().map(|edit| edit.pointer.clone()).unwrap_or_default(),
            Self::Named(_) => String::new(),
        }
    }
}

impl Said {
    /// `None` for what is no text message.
    fn text(&self) -> Option<Value> {
        self.raw.get("text").cloned()
    }

    /// By which its answer is known; `None` where it has nothing of the kind, or what is made anew each time.
    fn id(&self, message: &MessageType) -> Option<String> {
        let id = self.value.as_ref()?.pointer(message.correlation.as_ref()?)?;
        let anew = id.as_str().is_some_and(|text| text.contains("${") && text.contains('('));
        (!anew).then(|| id.to_string())
    }
}

/// The message with these edits.
pub(super) fn spoken(material: &Material, message: &MessageType, base: &Value, edits: Vec<Edit>) -> Said {
    edited(material, message, base, plain(message, base), edits)
}

/// The same, where it is known what stands in place of its expressions.
fn edited(material: &Material, message: &MessageType, base: &Value, plain: Value, edits: Vec<Edit>) -> Said {
    let applied = payload::applied(plain, &edits);
    let class = payload::class(&material.pack, message, applied.as_ref());
    let (text, value) = payload::said(base, &edits);
    Said { raw: json!({ "text": text }), class, plain: applied, value, odd: Odd::Edited(edits) }
}

/// Expressions stand for what the example has there.
fn plain(message: &MessageType, base: &Value) -> Value {
    match &message.schema.example {
        Some(example) => deep_with(base, example),
        None => deep_with(base, &message.template()),
    }
}

/// A value whose expressions are replaced by what another has in their place, or by some text.
pub(super) fn deep_with(base: &Value, example: &Value) -> Value {
    match base {
        Value::String(text) if text.contains("${") => match example {
            Value::Null => json!("text"),
            other => other.clone(),
        },
        Value::Array(items) => {
            items.iter().enumerate().map(|(i, item)| deep_with(item, example.get(i).unwrap_or(&Value::Null))).collect()
        }
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| (name.clone(), deep_with(member, example.get(name).unwrap_or(&Value::Null))))
            .collect(),
        other => other.clone(),
    }
}

/// Members of a right message made anew, or all of them; who says it, by what it is recognised, and what is `fixed` stays.
pub(super) fn explored(message: &MessageType, base: &Value, fixed: &[String], dice: &mut Dice) -> Vec<Edit> {
    let shape = Shape::of(&message.schema.source, &mut Branches::One(dice));
    let literals = message.matcher.literals();
    let required = shape.required();
    let is_filled = |name: &str| base.get(name).and_then(Value::as_str).is_some_and(|text| text.contains("${"));
    let stays = |name: &str| literals.contains_key(name) || fixed.iter().any(|fixed| fixed == name) || is_filled(name);
    let free: Vec<&str> = shape.members().into_iter().filter(|name| !stays(name)).collect();
    let all = dice.once_in(3);
    let few = 1 + dice.below(3);
    let mut edits = Vec::new();
    for name in &free {
        if !all && dice.below(free.len().max(1)) >= few {
            continue;
        }
        let pointer = format!("/{}", crate::matcher::escape(name));
        let present = base.get(*name).is_some();
        if present && !required.contains(name) && dice.once_in(3) {
            edits.push(Edit { pointer, change: Change::Remove });
            continue;
        }
        let inner = shape.member(name, &mut Branches::One(dice));
        edits.push(Edit { pointer, change: Change::Put(value::value(&inner, dice)) });
    }
    if !shape.is_closed() && (edits.is_empty() || dice.once_in(6)) {
        let pointer = format!("/x_{}", value::name(dice));
        edits.push(Edit { pointer, change: Change::Put(value::anything(dice, 0)) });
    }
    edits
}

fn in_words(edit: &Edit) -> String {
    let place = if edit.pointer.is_empty() { "the message" } else { &edit.pointer };
    let short = |text: &str| crate::matcher::cut(text, 60);
    match &edit.change {
        Change::Put(value) => format!("{place} is {}", short(&value.to_string())),
        Change::Remove => format!("{place} is missing"),
        Change::Text(text) => format!("{place} is {}", short(text)),
        Change::Twice(value) => format!("{place} comes twice, then as {}", short(&value.to_string())),
        Change::Rename(name) => format!("{place} is called {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::text(json!({ "text": "12345678" }), 8)]
    #[case::frames(json!({ "frames": [{ "opcode": "text", "data": "1234" }, { "data": "5678" }] }), 12)]
    #[case::repeated(json!({ "frames": [{ "data": "${repeat('x', 99999)}" }, { "data": "" }] }), usize::MAX)]
    #[case::bytes(json!({ "frames": [{ "rsv": 1, "hex": "ff" }] }), 2)]
    fn what_is_said_is_as_long_as_all_its_frames(#[case] raw: Value, #[case] expected: usize) {
        assert_eq!(length(&raw), expected);
    }
}
