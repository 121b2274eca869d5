//! An oracle demands what it demands because of what is said: that something invalid is rejected, in such words. Made
//! smaller, it may become valid, or be wrong in another way, or be said before its time; then the demand is not the
//! document's any more, and a hub that is right would look wrong. Such candidates are not played.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::json_text::{self, Kind};
use super::steps::{self, Place};
use crate::fuzz::case::message;
use crate::fuzz::corpus::expected_answer::{self, Input};
use crate::fuzz::corpus::{Corpus, head};
use crate::fuzz::mutate::payload::{self, Class};
use crate::fuzz::placement::Placement;
use crate::protocol::Way;
use crate::scenario::parse::verbs::Verb;

/// Oracles that hold whatever was said: whoever has nothing to do with it is served, and as fast as before.
const WHATEVER_IS_SAID: [&str; 4] = ["FUZZ-LIVES", "FUZZ-SERVES-OLD", "FUZZ-SERVES-NEW", "FUZZ-STEADY"];

/// What a finding must go on to mean while it shrinks.
pub struct Constraints<'a> {
    material: &'a Corpus,
    /// When what is odd is said.
    placement: Placement,
    /// By an actor of which role.
    role: String,
    /// Messages of which openings are made.
    openings: BTreeSet<String>,
    kept: Option<Kept>,
}

/// What the oracle depends on.
struct Kept {
    /// With the name by which an oracle speaks of it.
    said: Vec<(Option<String>, Said)>,
    /// Who says it, with the steps that let him in.
    opened: BTreeMap<String, Vec<Value>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Said {
    /// A text that is JSON: which message it is, what is wrong with it, and how it has to be answered.
    Json { message: Option<String>, class: Class, wrong: BTreeSet<(String, String)>, twice: bool, answer: Value },
    /// Some parsers take more than JSON, and a hub may have one of these.
    NoJson { perhaps: bool },
    /// Below JSON: as it stands.
    Raw(Value),
}

impl<'a> Constraints<'a> {
    /// `check` is what failed, as reports name it; `placement` is when what is odd is said.
    pub fn of(material: &'a Corpus, placement: Placement, finding: &Map<String, Value>, check: &str) -> Self {
        let mut openings = BTreeSet::new();
        for role in material.roles() {
            for step in material.opening(role) {
                openings.extend(step.as_object().and_then(|step| step.values().next()?.as_str()).map(str::to_owned));
            }
        }
        let mut meaning = Self { material, placement, role: role(finding), openings, kept: None };
        let oracle = check.split([',', '#']).next().unwrap_or(check);
        if oracle.starts_with("FUZZ-") && !WHATEVER_IS_SAID.contains(&oracle) {
            meaning.kept = meaning.read(finding);
        }
        meaning
    }

    /// Whether the oracle may still demand what it demands.
    pub fn is_kept(&self, candidate: &Map<String, Value>) -> bool {
        let Some(kept) = &self.kept else { return true };
        let Some(now) = self.read(candidate) else { return false };
        let mut before = kept.said.iter();
        // What nobody speaks of any more has lost its name.
        let is = |(name, said): &(Option<String>, Said), (of, old): &(Option<String>, Said)| {
            (name.is_none() || name == of) && said.is_within(old)
        };
        let said = now.said.iter().all(|said| before.by_ref().any(|old| is(said, old)));
        let opened = |(actor, steps): (&String, &Vec<Value>)| {
            kept.opened.get(actor).is_some_and(|before| before.iter().all(|step| steps.contains(step)))
        };
        said && now.opened.iter().all(opened)
    }

    fn read(&self, scenario: &Map<String, Value>) -> Option<Kept> {
        let raw = steps::raw(scenario);
        let name = |place: &Place<'_>| place.step.get("as").and_then(Value::as_str).map(str::to_owned);
        let raw: Vec<_> = raw.iter().filter_map(|place| Some((name(place), place.act()?))).collect();
        let all = steps::top(scenario);
        let lets_in = |actor: &str| all.iter().filter(|step| self.opens(step, actor)).map(unnamed).collect();
        let opened = raw.iter().map(|(_, (head, ..))| (head.actor.to_owned(), lets_in(head.actor))).collect();
        let said: Vec<_> = raw.into_iter().map(|(name, (_, _, what))| (name, self.said(what))).collect();
        (!said.is_empty()).then_some(Kept { said, opened })
    }

    /// Whether a step belongs to how an actor comes in, be it written out.
    fn opens(&self, step: &Value, actor: &str) -> bool {
        let Some((head, what)) = head(step).filter(|(head, _)| head.actor == actor) else { return false };
        match head.verb {
            _ if steps::opens(step) => true,
            Verb::Sends | Verb::Expects => what.as_str().is_some_and(|message| self.openings.contains(message)),
            _ => false,
        }
    }

    fn said(&self, what: &Value) -> Said {
        let Some(text) = what.get("text").and_then(Value::as_str) else { return Said::Raw(what.clone()) };
        let Some((said, twice)) = value(text) else { return Said::NoJson { perhaps: is_nearly_json(text) } };
        let Some(message) = self.material.pack.recognise(&said, Way::ToHub) else {
            let answer = self.answer(Class::Unknown, &said, &said);
            return Said::Json { message: None, class: Class::Unknown, wrong: BTreeSet::new(), twice, answer };
        };
        let plain = message::deep_with(&said, &message.template());
        let class = payload::class(&self.material.pack, message, Some(&plain));
        let wrong = message.schema.judge(&plain).into_iter().map(|found| (found.path, found.expected)).collect();
        let answer = self.answer(class, &plain, &said);
        Said::Json { message: Some(message.name.clone()), class, wrong, twice, answer }
    }

    /// What the document says that must come of it, in terms of what is said.
    fn answer(&self, class: Class, plain: &Value, said: &Value) -> Value {
        let taken_for = payload::taken_for(&self.material.pack, plain).map(|message| message.name.as_str());
        let input = Input { class, placement: self.placement, role: &self.role, taken_for, payload: Some(plain) };
        self.material.answer(&input).map_or(Value::Null, |answer| {
            let about = |alternatives: &[Value]| -> Value {
                alternatives.iter().map(|alternative| expected_answer::about(alternative, Some(said))).collect()
            };
            json!([about(&answer.one_of), about(&answer.never), answer.rules])
        })
    }
}

impl Said {
    /// The same, with nothing wrong that was right.
    fn is_within(&self, old: &Self) -> bool {
        match (self, old) {
            (
                Self::Json { message, class, wrong, twice, answer },
                Self::Json { message: of, class: like, wrong: before, twice: both, answer: demanded },
            ) => message == of && class == like && twice == both && wrong.is_subset(before) && answer == demanded,
            (Self::NoJson { perhaps }, Self::NoJson { perhaps: before }) => *before || !perhaps,
            (new, old) => new == old,
        }
    }
}

/// The role of whoever says what is odd: an actor named like his role needs no line.
fn role(finding: &Map<String, Value>) -> String {
    let raw = steps::raw(finding);
    let actor = raw.last().and_then(|odd| Some(odd.act()?.0.actor.to_owned())).unwrap_or_default();
    let name = actor.split('[').next().unwrap_or_default();
    let declared = finding.get("actors").and_then(|actors| actors.get(name));
    let role = declared.and_then(|role| role.as_str().or_else(|| role.get("role")?.as_str()));
    role.unwrap_or(name).to_owned()
}

/// Whether a text that is no JSON may be taken for some: with quotes and commas of other kinds, numbers of other forms.
fn is_nearly_json(text: &str) -> bool {
    let text = text.trim();
    let whole = |open, close| text.starts_with(open) && text.ends_with(close);
    // An expression becomes some JSON.
    text.starts_with("${")
        || whole('{', '}')
        || whole('[', ']')
        || text.starts_with(|c: char| c.is_ascii_digit() || "+-.'\"/".contains(c))
}

/// A step without the name it binds.
fn unnamed(step: &Value) -> Value {
    let mut step = step.clone();
    if let Some(members) = step.as_object_mut() {
        members.shift_remove("as");
    }
    step
}

/// The value of a text in which every expression is some text, and whether a member of it comes twice; `None` for what
/// is no JSON.
fn value(text: &str) -> Option<(Value, bool)> {
    let mut filled = String::with_capacity(text.len());
    let nodes = json_text::nodes(text)?;
    let alone: BTreeSet<usize> =
        nodes.iter().filter(|node| matches!(node.kind, Kind::Other)).map(|node| node.range.start).collect();
    for atom in json_text::atoms(text) {
        match &text[atom.clone()] {
            hole if hole.starts_with("${") && hole.len() > 2 => {
                filled.push_str(if alone.contains(&atom.start) { "\"${_}\"" } else { "${_}" });
            }
            letters => filled.push_str(letters),
        }
    }
    let twice = nodes.iter().filter(|node| matches!(node.kind, Kind::Object(_))).any(|node| {
        let key = |piece: &json_text::Piece| &text[piece.range.start..nodes[piece.value].range.start];
        let mut known = BTreeSet::new();
        !node.pieces().iter().all(|piece| known.insert(key(piece).trim_end_matches([':', ' '])))
    });
    Some((serde_json::from_str(&filled).ok()?, twice))
}
