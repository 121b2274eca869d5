//! Recognises the protocol of an unknown hub: compares what the hub sent with the messages of several packs.
//!
//! A frame is evidence for a pack only as much as the pack constrains it. The *weight* of a frame counts the members
//! whose value or kind of value is fixed. A loose schema, such as an object with a text, therefore weighs little.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{FrameDirection, MessageType, Pack};
use crate::syntax::matcher::{MatchCondition, escape};

/// The least total weight that makes a protocol likely: one constant, or three members of known kinds.
const LIKELY_WEIGHT: usize = 3;
/// The least weight of a frame that makes a protocol certain.
const CERTAIN_WEIGHT: usize = 4;
/// The most members of a frame that are examined, and the greatest depth of such a member.
const MAX_PLACES: usize = 24;
const MAX_DEPTH: usize = 4;

/// When a hub sent a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameOccasion {
    /// On its own, before the client had sent anything.
    Unasked,
    /// After a message that belongs to no protocol, so the hub may answer every message like that.
    AfterNonsense,
    /// After a message of one of the packs.
    AfterMessage,
}

/// A data frame of the hub.
#[derive(Clone, Debug)]
pub struct HubFrame {
    /// `None` if the frame is not JSON.
    pub payload: Option<Value>,
    pub occasion: FrameOccasion,
}

/// How a frame fits the schema of the message as which it is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameFit {
    Valid,
    /// Valid without the members that the schema does not have.
    FurtherMembers,
    /// Not valid, for this reason.
    Invalid(String),
}

/// A frame that a pack recognises.
#[derive(Clone, Debug)]
pub struct FrameMatch {
    pub message: String,
    pub fit: FrameFit,
    pub weight: usize,
    /// Whether the hub answers any message like that, so that the frame counts half.
    pub generic: bool,
}

impl FrameMatch {
    /// Whether the frame is valid, apart from members that the schema does not have.
    pub fn accepted(&self) -> bool {
        !matches!(self.fit, FrameFit::Invalid(_))
    }

    fn evidence(&self) -> usize {
        if self.generic { self.weight / 2 } else { self.weight }
    }
}

/// The evidence for one pack.
#[derive(Clone, Debug)]
pub struct PackEvidence {
    /// The match of each frame; `None` if the pack does not recognise the frame.
    pub matches: Vec<Option<FrameMatch>>,
    /// The sum of the weights; repeated messages count once.
    pub weight: usize,
}

impl PackEvidence {
    fn accepted(&self) -> usize {
        self.matches.iter().flatten().filter(|found| found.accepted()).count()
    }

    /// Whether the evidence is enough for the pack to be likely, if no other pack has more.
    fn is_sufficient(&self) -> bool {
        self.weight >= LIKELY_WEIGHT && self.accepted() * 2 >= self.matches.len()
    }

    /// Whether the pack accepts a frame with at least half of this weight, so that the frame does not tell the two packs
    /// apart.
    pub fn rivals(&self, place: usize, weight: usize) -> bool {
        self.matches[place].as_ref().is_some_and(|found| found.accepted() && found.weight * 2 >= weight)
    }

    /// Whether every frame that `other` accepts is accepted, too, with about the same weight.
    fn equals(&self, other: &Self) -> bool {
        let accepted = |found: &Option<FrameMatch>| found.as_ref().is_some_and(FrameMatch::accepted);
        let mut pairs = self.matches.iter().zip(&other.matches);
        self.weight * 4 >= other.weight * 3 && pairs.all(|(own, found)| accepted(own) || !accepted(found))
    }
}

/// The protocol of a hub, as far as its frames show it. Numbers are indices of packs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recognition {
    /// Every frame fits the pack, and one of them fits no other.
    Certain(usize),
    /// The pack fits better than any other.
    Likely(usize),
    /// Several packs fit equally well.
    Tied(Vec<usize>),
    Unknown,
}

/// Returns the protocol of a hub that sent these frames, and the evidence for each pack.
pub fn recognise_protocol(packs: &[&Pack], frames: &[HubFrame]) -> (Recognition, Vec<PackEvidence>) {
    let evidence: Vec<PackEvidence> = packs.iter().map(|pack| collect_evidence(pack, frames)).collect();
    let mut order: Vec<usize> = (0..packs.len()).filter(|index| evidence[*index].is_sufficient()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(evidence[*index].weight));
    let Some((best, rest)) = order.split_first() else { return (Recognition::Unknown, evidence) };
    let found = &evidence[*best];
    let mut tied: Vec<usize> = rest.iter().copied().filter(|other| evidence[*other].equals(found)).collect();
    if !tied.is_empty() {
        tied.insert(0, *best);
        return (Recognition::Tied(tied), evidence);
    }
    let rivalled = |place: usize, weight: usize| {
        evidence.iter().enumerate().any(|(index, other)| index != *best && other.rivals(place, weight))
    };
    let decisive = found.matches.iter().enumerate().any(|(place, found)| {
        found.as_ref().is_some_and(|found| {
            found.accepted() && !found.generic && found.weight >= CERTAIN_WEIGHT && !rivalled(place, found.weight)
        })
    });
    let certain = decisive && found.accepted() == found.matches.len();
    (if certain { Recognition::Certain(*best) } else { Recognition::Likely(*best) }, evidence)
}

fn collect_evidence(pack: &Pack, frames: &[HubFrame]) -> PackEvidence {
    let mut matches: Vec<Option<FrameMatch>> =
        frames.iter().map(|frame| match_frame(pack, frame.payload.as_ref()?)).collect();
    let names_at = |occasion: FrameOccasion| -> BTreeSet<String> {
        let at = frames.iter().zip(&matches).filter(|(frame, _)| frame.occasion == occasion);
        at.filter_map(|(_, found)| Some(found.as_ref()?.message.clone())).collect()
    };
    let (unasked, generic) = (names_at(FrameOccasion::Unasked), names_at(FrameOccasion::AfterNonsense));
    let mut weights: BTreeMap<String, usize> = BTreeMap::new();
    for found in matches.iter_mut().flatten() {
        found.generic = generic.contains(&found.message) && !unasked.contains(&found.message);
        let weight = weights.entry(found.message.clone()).or_default();
        *weight = (*weight).max(found.evidence());
    }
    PackEvidence { matches, weight: weights.values().sum() }
}

fn match_frame(pack: &Pack, payload: &Value) -> Option<FrameMatch> {
    let message = pack.recognise(payload, FrameDirection::FromHub)?;
    let found =
        |fit: FrameFit, weight: usize| Some(FrameMatch { message: message.name.clone(), fit, weight, generic: false });
    if message.schema.is_valid(payload) {
        return found(FrameFit::Valid, frame_weight(pack, message, payload));
    }
    // An envelope without further members would be valid for most messages.
    let look_alikes = pack.messages.iter().filter(|other| is_same(message, other) && !other.abstract_);
    let weights = look_alikes.filter_map(|other| {
        let documented = documented_part(other, payload, &mut Vec::new());
        other.schema.is_valid(&documented).then(|| frame_weight(pack, other, &documented))
    });
    if let Some(weight) = weights.max() {
        return found(FrameFit::FurtherMembers, weight);
    }
    let broken = message.schema.violations(payload).into_iter().find(|violation| !violation.should)?;
    let reason = format!("{}: expected {}, found {}", broken.describe_place(), broken.expected, broken.found);
    // Only the members by which the message is recognised are known to be right.
    let constants = message.matcher.member_conditions();
    let constants = constants.iter().filter(|condition| matches!(condition, MatchCondition::Is(..))).count();
    found(FrameFit::Invalid(reason), 2 * constants)
}

/// Whether two messages of the hub are the same, or replies that only the request tells apart.
fn is_same(message: &MessageType, other: &MessageType) -> bool {
    message.name == other.name
        || message.typed_by_request && other.typed_by_request && other.can_go(FrameDirection::FromHub)
}

/// Returns a payload without the members that the schema of the message does not name. An object without named members
/// may have any.
fn documented_part(message: &MessageType, value: &Value, path: &mut Vec<String>) -> Value {
    match value {
        Value::Object(members) => {
            let named = message.schema.member_names(path);
            let mut kept = serde_json::Map::new();
            for (name, inner) in members.iter().filter(|(name, _)| named.is_empty() || named.contains(name)) {
                path.push(name.clone());
                kept.insert(name.clone(), documented_part(message, inner, path));
                path.pop();
            }
            Value::Object(kept)
        }
        Value::Array(items) => {
            let item = |(index, inner): (usize, &Value)| {
                path.push(index.to_string());
                let kept = documented_part(message, inner, path);
                path.pop();
                kept
            };
            items.iter().enumerate().map(item).collect()
        }
        other => other.clone(),
    }
}

/// Returns how much of a frame the pack checks: 1 for each member whose kind is checked, and 2 more for each whose value
/// is checked. `message` is the message that the frame was recognised as.
fn frame_weight(pack: &Pack, message: &MessageType, payload: &Value) -> usize {
    let mut changed = payload.clone();
    let accepts = |payload: &Value| {
        let found = pack.recognise(payload, FrameDirection::FromHub);
        found.is_some_and(|found| is_same(message, found) && found.schema.is_valid(payload))
    };
    let mut rejects = |place: &str, value: Value| {
        let Some(member) = changed.pointer_mut(place) else { return false };
        let before = std::mem::replace(member, value);
        let rejected = !accepts(&changed);
        if let Some(member) = changed.pointer_mut(place) {
            *member = before;
        }
        rejected
    };
    let mut weight = 0;
    for (place, value) in examined_places(payload) {
        let other_kind = if value.is_object() { json!("hubproof") } else { json!({ "hubproof": true }) };
        if rejects(&place, other_kind) {
            weight += 1;
            weight += if other_value(value).is_some_and(|other| rejects(&place, other)) { 2 } else { 0 };
        }
    }
    weight
}

/// Returns another value of the same kind.
fn other_value(value: &Value) -> Option<Value> {
    match value {
        Value::String(text) => Some(Value::from(format!("{text}~hubproof"))),
        Value::Bool(flag) => Some(Value::from(!flag)),
        Value::Number(number) => {
            let whole = number.as_i64().map(|number| Value::from(number.saturating_add(1_000_003)));
            whole.or_else(|| Some(Value::from(number.as_f64()? + 1_000_003.5)))
        }
        _ => None,
    }
}

/// Returns the members of a payload with their JSON pointers, outer ones first.
fn examined_places(payload: &Value) -> Vec<(String, &Value)> {
    let mut places = vec![(String::new(), payload)];
    let mut next = 0;
    while next < places.len() && places.len() < MAX_PLACES {
        let (place, value) = places[next].clone();
        next += 1;
        if place.matches('/').count() >= MAX_DEPTH {
            continue;
        }
        match value {
            Value::Object(members) => {
                places.extend(members.iter().map(|(name, inner)| (format!("{place}/{}", escape(name)), inner)));
            }
            Value::Array(items) => {
                places.extend(items.iter().enumerate().map(|(index, inner)| (format!("{place}/{index}"), inner)));
            }
            _ => {}
        }
    }
    places.truncate(MAX_PLACES);
    // Every pack checks the kind of the whole payload.
    places.remove(0);
    places
}
