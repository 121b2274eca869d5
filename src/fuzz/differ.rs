//! Whether two hubs read their document alike: what they said in the same case, side by side.
//!
//! Neither hub is right because the other says so. A difference proves that at least one of them reads the document
//! otherwise, or that the document leaves something open that it does not say is open; so it warns, shows both, and never
//! fails a hub by itself. What a rule decides, the rule's own check fails.
//!
//! Not compared, because a document leaves it to the hub:
//! - names: ids, and echoes of what was said, are the same where they come from the same place;
//! - times, and texts that no `enum` fixes;
//! - members that the schema does not know, and the presence of those that it does not demand;
//! - order between connections, of broadcasts, and of the items of lists;
//! - messages under `ignore` in shared.yaml, and what is answered to input about which it says nothing. From there on the
//!   hubs are in different states, so there the comparison ends.

use std::collections::BTreeMap;

use serde_json::Value;

use super::payload::{self, Class};
use super::shape::{Branches, Shape};
use super::transcript::{Event, Names, Transcript, What, is_time};
use crate::event::{CheckReport, Detail, ScenarioReport, Verdict};
use crate::pack::{MessageType, Pack};

/// What must be known of a protocol.
pub struct Reading<'a> {
    pub pack: &'a Pack,
    /// Messages that a hub sends or not, as it likes.
    pub ignore: &'a [String],
    /// Whether the document says how such input is answered.
    pub decided: &'a dyn Fn(Class, Option<&MessageType>, Option<&Value>) -> bool,
}

/// One thing that two hubs did not do alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub actor: String,
    /// The message that the actor had said last; empty where it had said none.
    pub after: String,
    pub kind: Kind,
    /// The message that differs.
    pub message: String,
    /// JSON pointer; empty where it is not about a member.
    pub pointer: String,
    /// What the one hub said, and the other; empty where it was nothing.
    pub left: String,
    pub right: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A message came from the first hub only.
    OnlyLeft,
    /// From the second hub only.
    OnlyRight,
    /// Both came, and are not alike.
    Member,
    /// Only one of the hubs took the connection, or kept it.
    Connection,
}

/// What came of comparing two plays.
#[derive(Debug, Default)]
pub struct Comparison {
    pub differences: Vec<Difference>,
    /// Messages of the first hub that were compared with one of the second.
    pub compared: usize,
    /// Why it did not go to the end of the case.
    pub ended: Option<&'static str>,
}

/// A message that an actor heard.
struct Heard<'t> {
    json: &'t Value,
    message: &'t MessageType,
    /// How many messages the actor had said by then, and the last of them.
    after: (usize, &'t str),
    text: &'t str,
}

/// Compares two plays of one case.
pub fn compare(reading: &Reading<'_>, left: &ScenarioReport, right: &ScenarioReport) -> Comparison {
    let (left, right) = (Transcript::read(reading.pack, left), Transcript::read(reading.pack, right));
    if left.partial || right.partial {
        return Comparison { ended: Some("more was said than is kept"), ..Comparison::default() };
    }
    let mut comparison = Comparison::default();
    let (ends, why) = common(reading, &left, &right);
    comparison.ended = why;
    let (lefts, rights) = (&left.events[..ends.0], &right.events[..ends.1]);
    let names = (Names::of(lefts), Names::of(rights));
    let mut actors: Vec<&str> = lefts.iter().map(|event| event.actor.as_str()).collect();
    actors.sort_unstable();
    actors.dedup();
    for actor in actors {
        let one = Actor {
            actor,
            left: heard(reading, lefts, actor),
            right: heard(reading, rights, actor),
            late: (heard(reading, &left.events[ends.0..], actor), heard(reading, &right.events[ends.1..], actor)),
            names: &names,
        };
        one.compare(&mut comparison);
        one.connection(lefts, rights, &mut comparison);
    }
    comparison
}

/// How far both plays are the same case: positions behind the last event of each that is compared.
fn common(reading: &Reading<'_>, left: &Transcript<'_>, right: &Transcript<'_>) -> ((usize, usize), Option<&'static str>) {
    let (lefts, rights) = (left.said(), right.said());
    let name = |event: &Event<'_>| match &event.what {
        What::Said(_, message) => message.map(|message| message.name.clone()),
        _ => None,
    };
    for number in 0..lefts.len().max(rights.len()) {
        let (at, other) = match (lefts.get(number), rights.get(number)) {
            (Some(at), Some(other)) => (*at, *other),
            (Some(at), None) => return ((*at, right.events.len()), Some("the second hub's answers led elsewhere")),
            (None, other) => {
                let other = other.copied().unwrap_or(right.events.len());
                return ((left.events.len(), other), Some("the first hub's answers led elsewhere"));
            }
        };
        let (event, twin) = (&left.events[at], &right.events[other]);
        if event.actor != twin.actor || name(event) != name(twin) {
            return ((at, other), Some("answers led elsewhere"));
        }
        let (class, message, json) = input(reading.pack, event);
        if matches!(class, Class::Valid | Class::Unusual) {
            continue;
        }
        let answers = |transcript: &Transcript<'_>, at: usize| {
            let next = |event: &&Event<'_>| !(event.actor == twin.actor && matches!(event.what, What::Said(..)));
            let behind = transcript.events[at + 1..].iter().take_while(next).filter(|event| event.actor == twin.actor);
            behind.filter_map(kind).filter(|kind| !reading.ignore.contains(kind)).collect::<Vec<_>>()
        };
        if !(reading.decided)(class, message, json) || answers(left, at) != answers(right, other) {
            return ((at, other), Some("the document does not say what becomes of this input"));
        }
    }
    ((left.events.len(), right.events.len()), None)
}

fn kind(event: &Event<'_>) -> Option<String> {
    match &event.what {
        What::Heard(_, message) => Some(message.name.clone()),
        What::Unknown => Some("undocumented".to_owned()),
        What::Closed => Some("closed".to_owned()),
        What::Said(..) | What::Refused => None,
    }
}

/// What the document says of something that was said.
fn input<'e>(pack: &Pack, event: &'e Event<'_>) -> (Class, Option<&'e MessageType>, Option<&'e Value>) {
    let What::Said(json, message) = &event.what else { return (Class::Valid, None, None) };
    // What comes twice, or in another form than ours, is not in the value.
    let faithful = json.as_ref().is_some_and(|json| json.to_string() == event.text);
    let class = match (json, message) {
        (None, _) => Class::Malformed,
        (Some(_), _) if !faithful => Class::Unspecified,
        (Some(_), None) => Class::Unknown,
        (Some(json), Some(message)) => payload::class(pack, message, Some(json)),
    };
    (class, *message, json.as_ref())
}

/// What an actor heard, but for what a hub may send or not.
fn heard<'t>(reading: &Reading<'_>, events: &'t [Event<'t>], actor: &str) -> Vec<Heard<'t>> {
    let (mut said, mut last, mut found) = (0, "", Vec::new());
    for event in events.iter().filter(|event| event.actor == actor) {
        match &event.what {
            What::Said(_, message) => (said, last) = (said + 1, message.map_or("", |message| &message.name)),
            What::Heard(json, message) if !reading.ignore.contains(&message.name) => {
                found.push(Heard { json, message, after: (said, last), text: &event.text });
            }
            _ => {}
        }
    }
    found
}

/// What one actor heard from both hubs.
struct Actor<'t> {
    actor: &'t str,
    left: Vec<Heard<'t>>,
    right: Vec<Heard<'t>>,
    /// What came after the end of the comparison, and may belong before it.
    late: (Vec<Heard<'t>>, Vec<Heard<'t>>),
    names: &'t (Names, Names),
}

impl Actor<'_> {
    fn compare(&self, comparison: &mut Comparison) {
        let mut kinds: BTreeMap<&str, (Vec<&Heard<'_>>, Vec<&Heard<'_>>)> = BTreeMap::new();
        for heard in &self.left {
            kinds.entry(&heard.message.name).or_default().0.push(heard);
        }
        for heard in &self.right {
            kinds.entry(&heard.message.name).or_default().1.push(heard);
        }
        for (name, (left, right)) in kinds {
            let late = |late: &[Heard<'_>]| late.iter().filter(|heard| heard.message.name == name).count();
            if left.len() > right.len() + late(&self.late.1) {
                let first = lone(&left, &right);
                comparison.differences.push(self.difference(Kind::OnlyLeft, first, "", first.text, ""));
            } else if right.len() > left.len() + late(&self.late.0) {
                let first = lone(&right, &left);
                comparison.differences.push(self.difference(Kind::OnlyRight, first, "", "", first.text));
            } else if left.len() == right.len() {
                self.bodies(&left, &right, comparison);
            }
        }
    }

    /// As many messages of one kind came from both: each finds its like, answers by their order.
    fn bodies(&self, left: &[&Heard<'_>], right: &[&Heard<'_>], comparison: &mut Comparison) {
        let mut free: Vec<&&Heard<'_>> = right.iter().collect();
        let mut without = Vec::new();
        for heard in left {
            comparison.compared += 1;
            match free.iter().position(|other| self.differs(heard, other).is_none()) {
                Some(found) => drop(free.remove(found)),
                None => without.push(heard),
            }
        }
        for (heard, other) in without.into_iter().zip(free) {
            if let Some((pointer, left, right)) = self.differs(heard, other) {
                comparison.differences.push(self.difference(Kind::Member, heard, &pointer, &left, &right));
            }
        }
    }

    fn differs(&self, left: &Heard<'_>, right: &Heard<'_>) -> Option<(String, String, String)> {
        let shape = Shape::of(&left.message.schema.source, &mut Branches::All);
        Twins { names: self.names }.differ(&shape, left.json, right.json, "")
    }

    /// Whether both hubs took the actor in, and kept it.
    fn connection(&self, left: &[Event<'_>], right: &[Event<'_>], comparison: &mut Comparison) {
        let ended = |events: &[Event<'_>]| {
            let mine = |event: &&Event<'_>| event.actor == self.actor;
            events.iter().filter(mine).find(|event| matches!(event.what, What::Closed | What::Refused)).map(|event| {
                let how = if matches!(event.what, What::Closed) { "closed" } else { "refused" };
                format!("{how} {}", event.text)
            })
        };
        let (left, right) = (ended(left), ended(right));
        if left.is_some() != right.is_some() {
            comparison.differences.push(Difference {
                actor: self.actor.to_owned(),
                after: String::new(),
                kind: Kind::Connection,
                message: String::new(),
                pointer: String::new(),
                left: left.unwrap_or_else(|| "open".to_owned()),
                right: right.unwrap_or_else(|| "open".to_owned()),
            });
        }
    }

    fn difference(&self, kind: Kind, heard: &Heard<'_>, pointer: &str, left: &str, right: &str) -> Difference {
        Difference {
            actor: self.actor.to_owned(),
            after: heard.after.1.to_owned(),
            kind,
            message: heard.message.name.clone(),
            pointer: pointer.to_owned(),
            left: left.to_owned(),
            right: right.to_owned(),
        }
    }
}

/// Of more messages of a kind the first that the other hub did not send at this point; the last where points agree.
fn lone<'h>(more: &[&'h Heard<'h>], fewer: &[&Heard<'_>]) -> &'h Heard<'h> {
    let at = more.iter().zip(fewer).position(|(one, other)| one.after.0 != other.after.0).unwrap_or(fewer.len());
    more[at.min(more.len() - 1)]
}

/// Two values at the same place of the same message.
struct Twins<'n> {
    names: &'n (Names, Names),
}

/// Greater numbers are times or sizes of the machine.
const LARGEST_COUNT: f64 = 1e8;

impl Twins<'_> {
    /// The first place at which they differ, and what stands there.
    fn differ(&self, shape: &Shape<'_>, left: &Value, right: &Value, pointer: &str) -> Option<(String, String, String)> {
        let here = || Some((pointer.to_owned(), left.to_string(), right.to_string()));
        if shape.values().is_some() {
            return if left == right { None } else { here() };
        }
        match (self.names.0.name(left), self.names.1.name(right)) {
            (Some(one), Some(other)) if one == other => return None,
            // One repeats what the other does not. Long texts in which it would be found are nobody's echo.
            (Some(_), _) | (_, Some(_)) if left.is_string() && right.is_string() => {
                return if is_text(left) && is_text(right) { None } else { here() };
            }
            _ => {}
        }
        match (left, right) {
            (Value::Object(one), Value::Object(other)) => {
                for name in shape.members() {
                    let pointer = format!("{pointer}/{}", crate::matcher::escape(name));
                    let inner = shape.member(name, &mut Branches::All);
                    if let (Some(left), Some(right)) = (one.get(name), other.get(name))
                        && let Some(found) = self.differ(&inner, left, right, &pointer)
                    {
                        return Some(found);
                    }
                    let demanded = shape.required().contains(name);
                    if demanded && one.contains_key(name) != other.contains_key(name) {
                        return here();
                    }
                }
                None
            }
            (Value::Array(one), Value::Array(other)) => {
                if one.len() != other.len() {
                    return here();
                }
                let inner = shape.item(0, &mut Branches::All);
                let mut free: Vec<&Value> = other.iter().collect();
                for item in one {
                    match free.iter().position(|other| self.differ(&inner, item, other, "").is_none()) {
                        Some(found) => drop(free.remove(found)),
                        None => return here(),
                    }
                }
                None
            }
            (Value::Number(one), Value::Number(other)) => {
                let (one, other) = (one.as_f64().unwrap_or(0.0), other.as_f64().unwrap_or(0.0));
                let same = one == other || one.abs() > LARGEST_COUNT && other.abs() > LARGEST_COUNT;
                if same { None } else { here() }
            }
            (Value::Bool(one), Value::Bool(other)) if one != other => here(),
            (Value::String(_), Value::String(_)) => None,
            _ if std::mem::discriminant(left) != std::mem::discriminant(right) && !shape.is_free() => here(),
            _ => None,
        }
    }
}

/// Prose, or a time: what a hub words as it likes.
fn is_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.contains(' ') || is_time(text))
}

/// The differences of a case as a check of it: the first in full, with both transcripts.
pub fn check(differences: &[Difference], pack: &Pack, left: &ScenarioReport, right: &ScenarioReport) -> Option<CheckReport> {
    let first = differences.first()?;
    let others = match differences.len() - 1 {
        0 => String::new(),
        more => format!(" ({more} more)"),
    };
    Some(CheckReport {
        name: "FUZZ-DIFFERS".to_owned(),
        rules: Vec::new(),
        verdict: Verdict::Warn,
        span: None,
        step: format!("what {} hears is the same from both hubs", first.actor),
        asked: 1,
        message: format!("{}{others}", first.in_words()),
        detail: Some(Detail {
            actor: first.actor.clone(),
            sent: (!first.after.is_empty()).then(|| first.after.clone()),
            expected: format!("the other hub: {}", lines(pack, right)),
            received: format!("this hub: {}", lines(pack, left)),
            waited: None,
        }),
    })
}

impl Difference {
    /// One line, the same for the same cause.
    pub fn in_words(&self) -> String {
        let Self { actor: _, after, kind, message, pointer, .. } = self;
        let after = if after.is_empty() { "at first".to_owned() } else { format!("after {after}") };
        match kind {
            Kind::OnlyLeft => format!("{after}: {message} comes from this hub and not from the other"),
            Kind::OnlyRight => format!("{after}: {message} comes from the other hub and not from this one"),
            Kind::Member => format!("{after}: {message} differs at {}", if pointer.is_empty() { "the whole" } else { pointer }),
            Kind::Connection => "the one hub keeps the connection, the other does not".to_owned(),
        }
    }
}

/// Characters of a frame, and frames, that are shown.
const SHOWN: usize = 160;
const MOST_LINES: usize = 24;

fn lines(pack: &Pack, report: &ScenarioReport) -> String {
    let transcript = Transcript::read(pack, report);
    let skipped = transcript.events.len().saturating_sub(MOST_LINES);
    let line = |event: &Event<'_>| {
        let way = if matches!(event.what, What::Said(..)) { "->" } else { "<-" };
        format!("{} {way} {}", event.actor, crate::matcher::cut(&event.text, SHOWN))
    };
    transcript.events.iter().skip(skipped).map(line).collect::<Vec<_>>().join("\n")
}
