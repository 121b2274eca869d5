//! Whether two hubs read their document alike: what they said in the same case, side by side.
//!
//! Neither hub is right because the other says so. A difference proves that at least one of them reads the document
//! otherwise, or that the document leaves something open that nobody has said is open; so it warns, shows both, and never
//! fails a hub by itself. What a rule decides, the rule's own check fails.
//!
//! Not compared, because a document leaves it to the hub:
//! - names: what echoes something said is the same where it was said at the same place; an id that no client ever says is
//!   nothing to compare;
//! - times, counts, and texts that no `enum` fixes;
//! - members that the schema does not know or not demand, where only one of them has them;
//! - order between connections, of broadcasts, and of the items of lists;
//! - messages under `ignore` in shared.yaml, and what `open` there says; further replies than those that are documented;
//!   news that concern nobody of the case, and copies of one that was told before;
//! - what is answered to input about which the document says nothing. From there on the hubs may be in different states, so
//!   there the comparison ends.
//!
//! What a hub says only after a case has ended, because it is slow, has not been said.

use std::collections::HashSet;

use serde_json::Value;

use super::equivalence::{self, Found, One};
use super::transcript::{self, Event, Names, Transcript, What};
use crate::event::{CheckReport, Detail, ScenarioReport, Verdict};
use crate::fuzz::mutate::payload::{self, Class};
use crate::protocol::{MessageType, Pack};
use crate::scenario::model::RuleUse;

/// Whether a document says how input is answered: its class, the message it is taken for, and its JSON.
pub type Decided<'a> = &'a dyn Fn(Class, Option<&MessageType>, Option<&Value>) -> bool;

/// What must be known of a protocol.
pub struct Reading<'a> {
    pub pack: &'a Pack,
    /// Messages that a hub sends or not, as it likes; and messages of clients of which it is open who is answered or told
    /// what.
    pub open: HashSet<String>,
    /// Members, by name, in which hubs may differ.
    pub open_members: HashSet<String>,
    /// Whether the document says how such input is answered.
    pub decided: Decided<'a>,
    /// Texts of documented examples.
    examples: HashSet<String>,
    /// Messages by which a hub refuses anything at all.
    errors: HashSet<String>,
}

impl<'a> Reading<'a> {
    /// `open` are names of messages, and of members behind a slash.
    pub fn of(pack: &'a Pack, open: impl IntoIterator<Item = String>, decided: Decided<'a>) -> Self {
        let (members, messages): (HashSet<String>, HashSet<String>) =
            open.into_iter().partition(|name| name.starts_with('/'));
        let envelopes = pack.messages.iter().filter(|message| message.abstract_ && message.directions.to_hub);
        Self {
            pack,
            open: messages,
            open_members: members.into_iter().map(|name| name.trim_start_matches('/').to_owned()).collect(),
            decided,
            examples: transcript::examples(pack),
            errors: envelopes.flat_map(|envelope| envelope.replies.clone()).collect(),
        }
    }
}

/// One thing that two hubs did not do alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub actor: String,
    /// The message that was answered, or that the actor had said last; empty where it had said none.
    pub after: String,
    pub kind: Kind,
    /// JSON pointer; empty where it is not about a member.
    pub pointer: String,
    /// What the one hub said, and the other; empty where it was nothing.
    pub left: String,
    pub right: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A message is answered by one hub with these, by the other with those.
    Answer(Vec<String>, Vec<String>),
    /// Only the first hub tells something that nobody asked for, or tells it more often.
    OnlyLeft(String),
    /// Only the second does.
    OnlyRight(String),
    /// A message of this kind came from both, and does not say the same.
    Member(String),
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

/// Compares two plays of one case.
pub fn compare(reading: &Reading<'_>, left: &ScenarioReport, right: &ScenarioReport) -> Comparison {
    let (left, right) = (Transcript::read(reading.pack, left), Transcript::read(reading.pack, right));
    if left.partial || right.partial {
        return Comparison { ended: Some("more was said than is kept"), ..Comparison::default() };
    }
    let (ends, ended) = common(reading, &left, &right);
    let mut comparison = Comparison { ended, ..Comparison::default() };
    let (lefts, rights) = (&left.events[..ends.0], &right.events[..ends.1]);
    let names = (Names::of(lefts), Names::of(rights));
    let mut actors: Vec<&str> = lefts.iter().map(|event| event.actor.as_str()).collect();
    actors.sort_unstable();
    actors.dedup();
    let mut other_way = Vec::new();
    let mut left_open = false;
    for actor in &actors {
        let sides = (Side::of(reading, &left, ends.0, actor), Side::of(reading, &right, ends.1, actor));
        other_way.extend(answers(reading, actor, &sides, &names, &mut comparison));
        other_way.extend(connection(actor, lefts, rights).filter(|_| !sides.0.left_open));
        left_open |= sides.0.left_open;
    }
    // From another answer on the hubs go different ways: the first tells why, the others follow from it.
    other_way.sort_by_key(|(said, _)| *said);
    match other_way.into_iter().next() {
        Some((_, difference)) => comparison.differences.push(difference),
        None if left_open => {}
        None => {
            for actor in actors {
                let sides = (Side::of(reading, &left, ends.0, actor), Side::of(reading, &right, ends.1, actor));
                news(reading, actor, &sides, &names, &mut comparison);
            }
        }
    }
    comparison
}

/// How far both plays are the same case: positions behind the last event of each that is compared.
fn common(
    reading: &Reading<'_>,
    left: &Transcript<'_>,
    right: &Transcript<'_>,
) -> ((usize, usize), Option<&'static str>) {
    let (lefts, rights) = (left.said(), right.said());
    let name = |event: &Event<'_>| match &event.what {
        What::Said(_, message) => message.map(|message| message.name.clone()),
        _ => None,
    };
    for number in 0..lefts.len().max(rights.len()) {
        let (Some(at), Some(other)) = (lefts.get(number), rights.get(number)) else {
            let at = lefts.get(number).copied().unwrap_or(left.events.len());
            let other = rights.get(number).copied().unwrap_or(right.events.len());
            return ((at, other), Some("answers led elsewhere"));
        };
        let (event, twin) = (&left.events[*at], &right.events[*other]);
        if event.actor != twin.actor || name(event) != name(twin) {
            return ((*at, *other), Some("answers led elsewhere"));
        }
        let (class, message, json) = input(reading.pack, event);
        if matches!(class, Class::Valid | Class::Unusual) {
            continue;
        }
        let kinds = |transcript: &Transcript<'_>, at: usize| {
            let next = |event: &&Event<'_>| !(event.actor == twin.actor && matches!(event.what, What::Said(..)));
            let behind = transcript.events[at + 1..].iter().take_while(next).filter(|event| event.actor == twin.actor);
            behind.filter_map(kind).filter(|kind| !reading.open.contains(kind)).collect::<Vec<_>>()
        };
        if !(reading.decided)(class, message, json) || kinds(left, *at) != kinds(right, *other) {
            return ((*at, *other), Some("the document does not say what becomes of this input"));
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
    let written = json.as_ref().map(Value::to_string);
    let faithful = written.as_ref() == Some(&event.text);
    let class = match (json, message) {
        (None, _) => Class::Malformed,
        (Some(_), _) if !faithful => Class::Unspecified,
        (Some(_), Some(message)) if message.abstract_ => Class::Unknown,
        (Some(_), None) => Class::Unknown,
        (Some(json), Some(message)) => payload::class(pack, message, Some(json)),
    };
    (class, *message, json.as_ref())
}

/// A message that an actor heard.
struct Heard<'t> {
    json: &'t Value,
    message: &'t MessageType,
    text: &'t str,
}

/// What one actor said, and what it heard of that.
struct Exchange<'t> {
    /// Its number among all that was said in the case.
    number: usize,
    said: &'t str,
    replies: &'t [String],
    heard: Vec<Heard<'t>>,
}

/// What one actor heard from one hub.
struct Side<'t> {
    exchanges: Vec<Exchange<'t>>,
    /// What nobody asked for, with the message said last.
    news: Vec<(&'t str, Heard<'t>)>,
    /// Kinds that came when the comparison had ended, and may belong before that.
    late: Vec<&'t str>,
    /// It said something of which it is open what becomes.
    left_open: bool,
}

impl<'t> Side<'t> {
    fn of(reading: &Reading<'_>, transcript: &'t Transcript<'t>, end: usize, actor: &str) -> Self {
        let mut side = Self { exchanges: Vec::new(), news: Vec::new(), late: Vec::new(), left_open: false };
        let mut number = 0;
        for (at, event) in transcript.events.iter().enumerate() {
            number += usize::from(matches!(event.what, What::Said(..)));
            if event.actor != actor {
                continue;
            }
            match &event.what {
                What::Said(_, message) if at < end => {
                    let open = message.is_some_and(|message| reading.open.contains(&message.name));
                    side.left_open |= open;
                    let replies = message.filter(|_| !open).map_or(&[][..], |message| message.replies.as_slice());
                    let said = message.map_or("", |message| &message.name);
                    side.exchanges.push(Exchange { number, said, replies, heard: Vec::new() });
                }
                What::Heard(_, message) if at >= end => side.late.push(&message.name),
                What::Heard(json, message) if !reading.open.contains(&message.name) => {
                    side.take(reading, Heard { json, message, text: &event.text });
                }
                _ => {}
            }
        }
        side
    }

    /// Puts a message to what it answers: the oldest that waits for such a one, else the last that may be meant.
    fn take(&mut self, reading: &Reading<'_>, heard: Heard<'t>) {
        let name = &heard.message.name;
        let may = |exchange: &Exchange<'_>| exchange.replies.contains(name);
        let waits = self.exchanges.iter().position(|exchange| may(exchange) && exchange.heard.is_empty());
        // A refusal too many may be meant for something that is not answered otherwise.
        let again = || self.exchanges.iter().rposition(may).filter(|_| !reading.errors.contains(name));
        match waits.or_else(again) {
            Some(exchange) => self.exchanges[exchange].heard.push(heard),
            None if self.is_news(reading, &heard) => {
                let last = self.exchanges.last().map_or("", |exchange| exchange.said);
                self.news.push((last, heard));
            }
            // Beyond what is documented a hub may say more.
            None => {}
        }
    }
}

impl Side<'_> {
    /// A documented message that comes unasked, is no refusal, and was not told before.
    fn is_news(&self, reading: &Reading<'_>, heard: &Heard<'_>) -> bool {
        heard.message.directions.unasked
            && !heard.message.abstract_
            && !reading.errors.contains(&heard.message.name)
            && !self.news.iter().any(|(_, before)| before.text == heard.text)
    }
}

/// Compares what an actor was answered; what leads elsewhere is returned, with the number of what was said.
fn answers(
    reading: &Reading<'_>,
    actor: &str,
    (left, right): &(Side<'_>, Side<'_>),
    names: &(Names, Names),
    comparison: &mut Comparison,
) -> Option<(usize, Difference)> {
    for (one, other) in left.exchanges.iter().zip(&right.exchanges) {
        let kinds = |exchange: &Exchange<'_>| {
            let mut kinds: Vec<String> = exchange.heard.iter().map(|heard| heard.message.name.clone()).collect();
            kinds.sort();
            kinds
        };
        let texts =
            |exchange: &Exchange<'_>| exchange.heard.iter().map(|heard| heard.text).collect::<Vec<_>>().join(" ");
        let (lefts, rights) = (kinds(one), kinds(other));
        if lefts != rights {
            let late = |side: &Side<'_>| one.replies.iter().any(|reply| side.late.contains(&reply.as_str()));
            if lefts.len() != rights.len() && (late(left) || late(right)) {
                return None;
            }
            let (left, right) = (texts(one), texts(other));
            let (after, kind) = (one.said.to_owned(), Kind::Answer(lefts, rights));
            let actor = actor.to_owned();
            return Some((one.number, Difference { actor, after, kind, pointer: String::new(), left, right }));
        }
        comparison.compared += lefts.len();
        let found =
            matched(reading, names, &one.heard.iter().collect::<Vec<_>>(), &other.heard.iter().collect::<Vec<_>>());
        comparison.differences.extend(found.map(|(message, found)| member(actor, one.said, message, found)));
    }
    None
}

/// Compares what an actor was told without asking.
fn news(
    reading: &Reading<'_>,
    actor: &str,
    (left, right): &(Side<'_>, Side<'_>),
    names: &(Names, Names),
    comparison: &mut Comparison,
) {
    let mut kinds: Vec<&str> =
        left.news.iter().chain(&right.news).map(|(_, heard)| heard.message.name.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for name in kinds {
        let of_kind = |side: &'_ Side<'_>| side.news.iter().filter(|(_, heard)| heard.message.name == name).count();
        comparison.compared += of_kind(left).min(of_kind(right));
        let mut lefts: Vec<_> = left.news.iter().filter(|(_, heard)| heard.message.name == name).collect();
        let mut rights: Vec<_> = right.news.iter().filter(|(_, heard)| heard.message.name == name).collect();
        // Everything finds its like; then what concerns nobody here is left out.
        lefts.retain(|(_, heard)| {
            match rights.iter().position(|(_, other)| differ(reading, names, heard, other).is_none()) {
                Some(found) => {
                    rights.remove(found);
                    false
                }
                None => true,
            }
        });
        lefts.retain(|(_, heard)| names.0.concerns(heard.json, &reading.examples));
        rights.retain(|(_, heard)| names.1.concerns(heard.json, &reading.examples));
        let late = |side: &Side<'_>| side.late.contains(&name);
        let actor = actor.to_owned();
        let difference = match (lefts.first(), rights.first()) {
            (None, None) => continue,
            (Some((after, one)), Some((_, other))) => match differ(reading, names, one, other) {
                Some(found) => member(&actor, after, name.to_owned(), found),
                None => continue,
            },
            (Some((after, heard)), None) if !late(right) => {
                let (after, kind, left) = ((*after).to_owned(), Kind::OnlyLeft(name.to_owned()), heard.text.to_owned());
                Difference { actor, after, kind, pointer: String::new(), left, right: String::new() }
            }
            (None, Some((after, heard))) if !late(left) => {
                let (after, kind, right) =
                    ((*after).to_owned(), Kind::OnlyRight(name.to_owned()), heard.text.to_owned());
                Difference { actor, after, kind, pointer: String::new(), left: String::new(), right }
            }
            _ => continue,
        };
        comparison.differences.push(difference);
    }
}

fn member(actor: &str, after: &str, message: String, found: Found) -> Difference {
    let Found { pointer, left, right } = found;
    Difference { actor: actor.to_owned(), after: after.to_owned(), kind: Kind::Member(message), pointer, left, right }
}

/// Where two messages of one kind differ.
fn differ(reading: &Reading<'_>, names: &(Names, Names), one: &Heard<'_>, other: &Heard<'_>) -> Option<Found> {
    let left = One { json: one.json, names: &names.0 };
    let right = One { json: other.json, names: &names.1 };
    equivalence::differ(one.message, &reading.open_members, left, right)
}

/// Every message of the one finds its like among those of the other; the first that does not is returned.
fn matched(
    reading: &Reading<'_>,
    names: &(Names, Names),
    left: &[&Heard<'_>],
    right: &[&Heard<'_>],
) -> Option<(String, Found)> {
    let differ = |one: &Heard<'_>, other: &Heard<'_>| differ(reading, names, one, other);
    let mut free: Vec<&&Heard<'_>> = right.iter().collect();
    let mut without = None;
    for heard in left {
        let same_kind = |other: &&Heard<'_>| other.message.name == heard.message.name;
        match free.iter().position(|other| same_kind(other) && differ(heard, other).is_none()) {
            Some(found) => drop(free.remove(found)),
            None => drop(without.get_or_insert(heard)),
        }
    }
    let heard = without?;
    let twin = free.iter().find(|other| other.message.name == heard.message.name)?;
    differ(heard, twin).map(|found| (heard.message.name.clone(), found))
}

/// Whether only one of both hubs ended the connection of an actor, and behind which message of the case.
fn connection(actor: &str, left: &[Event<'_>], right: &[Event<'_>]) -> Option<(usize, Difference)> {
    let ended = |events: &[Event<'_>]| {
        let mut said = (0, String::new());
        for event in events {
            match &event.what {
                What::Said(_, message) => {
                    said.0 += 1;
                    if event.actor == actor {
                        said.1 = message.map(|message| message.name.clone()).unwrap_or_default();
                    }
                }
                What::Closed | What::Refused if event.actor == actor => {
                    let how = if matches!(event.what, What::Closed) { "closed" } else { "refused" };
                    return Some((said, format!("{how} {}", event.text)));
                }
                _ => {}
            }
        }
        None
    };
    let (one, other) = (ended(left), ended(right));
    if one.is_some() == other.is_some() {
        return None;
    }
    let ((number, after), _) = one.clone().or_else(|| other.clone())?;
    let how = |ended: Option<(_, String)>| ended.map_or_else(|| "open".to_owned(), |(_, how)| how);
    let (left, right) = (how(one), how(other));
    let (actor, kind, pointer) = (actor.to_owned(), Kind::Connection, String::new());
    Some((number, Difference { actor, after, kind, pointer, left, right }))
}

/// The rule by which differences are reported.
pub const RULE: &str = "FUZZ-DIFFERS";

/// A comparison as a check of the case: the first difference in full, with both transcripts. `None` where nothing was
/// compared.
pub fn check(
    comparison: &Comparison,
    pack: &Pack,
    left: &ScenarioReport,
    right: &ScenarioReport,
) -> Option<CheckReport> {
    let rule = pack.rules.get(RULE)?;
    let first = comparison.differences.first();
    if first.is_none() && comparison.compared == 0 {
        return None;
    }
    let verdict = if first.is_some() { Verdict::Warn } else { Verdict::Pass };
    let used = RuleUse { id: RULE.to_owned(), level: rule.level, basis: rule.basis, lowered: false };
    let detail = first.map(|first| Detail {
        actor: first.actor.clone(),
        sent: None,
        expected: format!("{} | what the other hub said:\n{}", short(&first.right), lines(pack, right)),
        received: format!("{} | what this hub said:\n{}", short(&first.left), lines(pack, left)),
        waited: None,
    });
    Some(CheckReport {
        name: RULE.to_owned(),
        rules: vec![(used, verdict)],
        verdict,
        span: None,
        step: "the other hub is told the same".to_owned(),
        asked: 1,
        message: first.map(Difference::in_words).unwrap_or_default(),
        detail,
    })
}

fn short(text: &str) -> String {
    if text.is_empty() { "nothing".to_owned() } else { crate::syntax::matcher::cut(text, SHOWN) }
}

impl Difference {
    /// One line, the same for the same cause.
    pub fn in_words(&self) -> String {
        let Self { after, kind, pointer, .. } = self;
        let after = if after.is_empty() { "at first".to_owned() } else { format!("after {after}") };
        let list = |kinds: &[String]| if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") };
        match kind {
            Kind::Answer(left, right) => format!("{after}: this hub answers {}, the other {}", list(left), list(right)),
            Kind::OnlyLeft(message) => format!("{after}: {message} comes from this hub and not from the other"),
            Kind::OnlyRight(message) => format!("{after}: {message} comes from the other hub and not from this one"),
            Kind::Member(message) => {
                format!("{after}: {message} differs at {}", if pointer.is_empty() { "the whole" } else { pointer })
            }
            Kind::Connection => format!("{after}: the one hub keeps the connection, the other does not"),
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
        format!("{} {way} {}", event.actor, crate::syntax::matcher::cut(&event.text, SHOWN))
    };
    transcript.events.iter().skip(skipped).map(line).collect::<Vec<_>>().join("\n")
}
