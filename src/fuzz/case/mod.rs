//! One case: something odd, said at one moment of one conversation, and what must be true all the same. A case is an
//! ordinary scenario, so whoever wants to see a finding again plays it with `hubproof check`.

pub mod churn;
pub mod message;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use self::churn::Churn;
use self::message::{Draft, SentMessage};
use super::actors::{INNOCENT, NEWCOMER, ODD};
use super::corpus::Corpus;
use super::corpus::expected_answer::{Answer, Input};
use super::corpus::prefix::Prefix;
use super::mutate::frames::Framing;
use super::mutate::json_text::JsonCorruption;
use super::mutate::payload::{self, Class};
use super::mutate::schema::{Mutation, Site};
use super::oracle;
use super::placement::Placement;
use crate::generate::rng::Dice;
use crate::protocol::MessageType;

/// What is odd about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MutationKind {
    /// Nothing, but that nobody says it like this.
    Explored,
    Mutated(Mutation),
    Corrupted(JsonCorruption),
    Framed(Framing),
    /// Said by many who come and go.
    Churn(Churn),
}

impl MutationKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Explored => "explored",
            Self::Mutated(mutation) => mutation.name(),
            Self::Corrupted(corruption) => corruption.name(),
            Self::Framed(framing) => framing.name(),
            Self::Churn(churn) => churn.name(),
        }
    }
}

/// What a case is about; what exactly is said is chosen by its dice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// Index into the pack's messages.
    pub message: usize,
    pub oddity: MutationKind,
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

/// The case of a cell that plays in one of `scenes`; `None` where the protocol gives nothing to make it of.
pub fn make(material: &Corpus, cell: Cell, scenes: &[Prefix], number: u64, dice: &mut Dice) -> Option<Case> {
    match cell.oddity {
        MutationKind::Churn(gone) => visited(material, cell, gone, dice.pick(scenes)?.clone(), number, dice),
        _ if cell.placement.is_of_many() => {
            many_somewhere(material, cell, scenes, number, dice).map(|(_, case, _)| case)
        }
        _ => made(material, cell, dice.pick(scenes)?.clone(), Vec::new(), number, dice),
    }
}

/// The case of those who come and go.
fn visited(material: &Corpus, cell: Cell, gone: Churn, scene: Prefix, number: u64, dice: &mut Dice) -> Option<Case> {
    let draft = Draft::new(material, cell, &scene)?;
    let (said, _) = draft.said(dice)?;
    let mut steps = scene.steps.clone();
    steps.push(gone.visits(material, cell, &scene, &said.text()?)?);
    let odd = odd(material, draft.message, cell, &scene, &said);
    steps.extend(gone.judged(oracle::behind(material, &odd, Vec::new())));
    Some(case(material, cell, scene, &said, steps, number))
}

/// What a case that says many things says, each in a case of its own; none for other cases.
pub fn singles(material: &Corpus, cell: Cell, scenes: &[Prefix], number: u64, dice: &mut Dice) -> Vec<Case> {
    let is_of_many = cell.placement.is_of_many() && !matches!(cell.oddity, MutationKind::Churn(_));
    let found = is_of_many.then(|| many_somewhere(material, cell, scenes, number, dice));
    let Some((scene, _, all)) = found.flatten() else { return Vec::new() };
    let cell = Cell { placement: Placement::Joined, ..cell };
    let case = |said| about(material, cell, scene.clone(), said, Vec::new(), number);
    all.into_iter().filter_map(case).collect()
}

/// The case in which many of a kind are said, in the first of `scenes`, from any of them on, whose sender is answered.
fn many_somewhere<'a>(
    material: &Corpus,
    cell: Cell,
    scenes: &'a [Prefix],
    number: u64,
    dice: &mut Dice,
) -> Option<(&'a Prefix, Case, Vec<SentMessage>)> {
    let from = dice.below(scenes.len().max(1));
    let mut round = scenes.iter().cycle().skip(from).take(scenes.len());
    round.find_map(|scene| {
        let (case, all) = many(material, cell, scene, number, dice)?;
        Some((scene, case, all))
    })
}

/// The case of a cell in a scene. `behind` is what others go on saying before the oracles are asked.
pub(super) fn made(
    material: &Corpus,
    cell: Cell,
    scene: Prefix,
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
    if !matches!(cell.oddity, MutationKind::Corrupted(spoilt) if spoilt.class() != Class::Unspecified) {
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
    material: &Corpus,
    cell: Cell,
    mut scene: Prefix,
    said: SentMessage,
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
    steps.extend(oracle::behind(material, &odd, rest));
    Some(case(material, cell, scene, &said, steps, number))
}

/// So many odd things are thought of for one connection.
const MANY: usize = 100;
/// And so many where each has one of its own.
const MANY_ANEW: usize = 25;
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
    all: Vec<SentMessage>,
    rounds: Vec<Value>,
    ids: BTreeSet<String>,
    /// Where they are odd.
    sites: Vec<&'a Site>,
}

impl Alike<'_> {
    fn is_of(&self, class: Class, answer: Option<&Answer>, about: &Map<String, Value>) -> bool {
        let place = |answer: Option<&Answer>| answer.map(std::ptr::from_ref);
        self.class == class && place(self.answer) == place(answer) && self.mentioned.iter().eq(about.keys())
    }
}

/// The case in which many of a kind are said that the document answers alike, and what these are.
fn many(
    material: &Corpus,
    cell: Cell,
    scene: &Prefix,
    number: u64,
    dice: &mut Dice,
) -> Option<(Case, Vec<SentMessage>)> {
    let mut draft = Draft::new(material, cell, scene)?;
    let message = draft.message;
    let anew = cell.placement == Placement::Anew;
    let mut kinds: Vec<Alike<'_>> = Vec::new();
    let mut narrowed = anew;
    for index in 0..if anew { MANY_ANEW } else { MANY } {
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
            if kind.all.len() == ENOUGH && !narrowed {
                draft.narrow(&kind.all, &kind.sites);
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

/// What is said, as oracles see it.
fn odd<'a>(
    material: &'a Corpus,
    message: &'a MessageType,
    cell: Cell,
    scene: &'a Prefix,
    said: &'a SentMessage,
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
        names_another: cell.oddity == MutationKind::Mutated(Mutation::ForeignId),
        is_unfinished: cell.oddity == MutationKind::Framed(Framing::UnfinishedMessage),
    }
}

/// The scenario of all this.
fn case(material: &Corpus, cell: Cell, scene: Prefix, said: &SentMessage, steps: Vec<Value>, number: u64) -> Case {
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
