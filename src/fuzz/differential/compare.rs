//! Compares what two hubs sent in the same case.
//!
//! Equal answers do not prove that either hub is right. A difference shows that the hubs read the document differently,
//! or that the document leaves something open that shared.yaml does not list. So a difference is a warning that shows
//! both sides, and never fails a hub by itself; if a rule decides the matter, that rule's own check fails.
//!
//! Not compared, because documents leave it to the hub:
//! - names: two values that repeat something a client sent are equal if it was sent at the same place; an id that no
//!   client sends is not compared;
//! - times, counts, and texts that no `enum` fixes;
//! - members that the schema does not define or does not require, if only one of the messages has them;
//! - order between connections, of broadcasts, and of the items of arrays;
//! - messages and members that shared.yaml lists under `ignore` or `open`; undocumented further replies; unsolicited
//!   messages that name nothing a client of the case sent, and repetitions of one;
//! - answers to input for which the document states no answer. After such input the hubs may be in different states, so
//!   the comparison ends there.
//!
//! The comparison misses messages that a slow hub sends only after the end of a case.

use std::collections::HashSet;

use serde_json::Value;

use super::equivalence::{self, ComparedMessage, MessageDifference};
use super::transcript::{self, SentValueNames, Transcript, TranscriptEvent, TranscriptEventKind};
use crate::event::{CheckReport, FindingDetail, ScenarioReport, Verdict};
use crate::fuzz::mutate::payload::{self, PayloadClass};
use crate::protocol::{MessageType, Pack};
use crate::scenario::model::RuleUse;

/// Whether a document demands an answer to input of this class, message and payload.
pub type AnswerDemand<'a> = &'a dyn Fn(PayloadClass, Option<&MessageType>, Option<&Value>) -> bool;

/// What the comparison of two hubs needs to know about their protocol.
pub struct ComparisonContext<'a> {
    pub pack: &'a Pack,
    /// Messages that a hub may or may not send, and messages of clients that a hub is free to answer or to pass on to
    /// other clients.
    pub open: HashSet<String>,
    /// The names of members in which hubs may differ.
    pub open_members: HashSet<String>,
    /// Whether the document demands an answer to input of some class, message and payload.
    pub decided: AnswerDemand<'a>,
    /// The texts in documented examples.
    examples: HashSet<String>,
    /// The messages with which a hub may refuse any input.
    errors: HashSet<String>,
}

impl<'a> ComparisonContext<'a> {
    /// Reads a pack. `open` contains names of messages, and names of members with a leading slash.
    pub fn for_pack(pack: &'a Pack, open: impl IntoIterator<Item = String>, decided: AnswerDemand<'a>) -> Self {
        let (members, messages): (HashSet<String>, HashSet<String>) =
            open.into_iter().partition(|name| name.starts_with('/'));
        let envelopes = pack.messages.iter().filter(|message| message.abstract_ && message.directions.to_hub);
        Self {
            pack,
            open: messages,
            open_members: members.into_iter().map(|name| name.trim_start_matches('/').to_owned()).collect(),
            decided,
            examples: transcript::example_texts(pack),
            errors: envelopes.flat_map(|envelope| envelope.replies.clone()).collect(),
        }
    }
}

/// One difference between two hubs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubDifference {
    pub actor: String,
    /// The message that was answered, or the last message that the actor sent; empty if there is none.
    pub after: String,
    pub kind: HubDifferenceKind,
    /// JSON pointer to the differing member; empty if the difference does not concern a member.
    pub pointer: String,
    /// What each hub sent; empty if it sent nothing.
    pub left: String,
    pub right: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HubDifferenceKind {
    /// The hubs answer a message with different messages.
    Answer(Vec<String>, Vec<String>),
    /// Only the first hub sends an unsolicited message, or sends it more often.
    OnlyLeft(String),
    /// Only the second hub sends an unsolicited message, or sends it more often.
    OnlyRight(String),
    /// Both hubs send a message of this kind, with different content.
    Member(String),
    /// Only one of the hubs accepts the connection, or keeps it.
    Connection,
}

/// The result of comparing two plays of a case.
#[derive(Debug, Default)]
pub struct HubComparison {
    pub differences: Vec<HubDifference>,
    /// The number of messages of the first hub that were compared with one of the second.
    pub compared: usize,
    /// Why the comparison ended before the end of the case.
    pub ended: Option<&'static str>,
}

/// Compares two plays of one case.
pub fn compare_plays(context: &ComparisonContext<'_>, left: &ScenarioReport, right: &ScenarioReport) -> HubComparison {
    let (left, right) = (Transcript::from_report(context.pack, left), Transcript::from_report(context.pack, right));
    if left.partial || right.partial {
        return HubComparison { ended: Some("more was sent than is kept"), ..HubComparison::default() };
    }
    let (ends, ended) = common_extent(context, &left, &right);
    let mut comparison = HubComparison { ended, ..HubComparison::default() };
    let (lefts, rights) = (&left.events[..ends.0], &right.events[..ends.1]);
    let names = (SentValueNames::from_events(lefts), SentValueNames::from_events(rights));
    let mut actors: Vec<&str> = lefts.iter().map(|event| event.actor.as_str()).collect();
    actors.sort_unstable();
    actors.dedup();
    let mut diverging = Vec::new();
    let mut left_open = false;
    for actor in &actors {
        let sides = (
            ActorMessages::from_transcript(context, &left, ends.0, actor),
            ActorMessages::from_transcript(context, &right, ends.1, actor),
        );
        diverging.extend(compare_answers(context, actor, &sides, &names, &mut comparison));
        diverging.extend(compare_connections(actor, lefts, rights).filter(|_| !sides.0.left_open));
        left_open |= sides.0.left_open;
    }
    // After the first different answer the hubs are in different states, so only that difference is reported.
    diverging.sort_by_key(|(sent, _)| *sent);
    match diverging.into_iter().next() {
        Some((_, difference)) => comparison.differences.push(difference),
        None if left_open => {}
        None => {
            for actor in actors {
                let sides = (
                    ActorMessages::from_transcript(context, &left, ends.0, actor),
                    ActorMessages::from_transcript(context, &right, ends.1, actor),
                );
                compare_unsolicited(context, actor, &sides, &names, &mut comparison);
            }
        }
    }
    comparison
}

/// Returns how far the actors sent the same in both plays: the position after the last comparable event of each play.
fn common_extent(
    context: &ComparisonContext<'_>,
    left: &Transcript<'_>,
    right: &Transcript<'_>,
) -> ((usize, usize), Option<&'static str>) {
    let (lefts, rights) = (left.sent_positions(), right.sent_positions());
    let name = |event: &TranscriptEvent<'_>| match &event.what {
        TranscriptEventKind::Sent(_, message) => message.map(|message| message.name.clone()),
        _ => None,
    };
    for number in 0..lefts.len().max(rights.len()) {
        let (Some(at), Some(other)) = (lefts.get(number), rights.get(number)) else {
            let at = lefts.get(number).copied().unwrap_or(left.events.len());
            let other = rights.get(number).copied().unwrap_or(right.events.len());
            return ((at, other), Some("the hubs' answers led to different messages"));
        };
        let (event, counterpart) = (&left.events[*at], &right.events[*other]);
        if event.actor != counterpart.actor || name(event) != name(counterpart) {
            return ((*at, *other), Some("the hubs' answers led to different messages"));
        }
        let (class, message, json) = classify_input(context.pack, event);
        if matches!(class, PayloadClass::Valid | PayloadClass::Unusual) {
            continue;
        }
        let kinds = |transcript: &Transcript<'_>, at: usize| {
            let next = |event: &&TranscriptEvent<'_>| {
                !(event.actor == counterpart.actor && matches!(event.what, TranscriptEventKind::Sent(..)))
            };
            let after =
                transcript.events[at + 1..].iter().take_while(next).filter(|event| event.actor == counterpart.actor);
            after.filter_map(event_kind).filter(|kind| !context.open.contains(kind)).collect::<Vec<_>>()
        };
        if !(context.decided)(class, message, json) || kinds(left, *at) != kinds(right, *other) {
            return ((*at, *other), Some("the document does not say how this input is answered"));
        }
    }
    ((left.events.len(), right.events.len()), None)
}

fn event_kind(event: &TranscriptEvent<'_>) -> Option<String> {
    match &event.what {
        TranscriptEventKind::Received(_, message) => Some(message.name.clone()),
        TranscriptEventKind::Unknown => Some("undocumented".to_owned()),
        TranscriptEventKind::Closed => Some("closed".to_owned()),
        TranscriptEventKind::Sent(..) | TranscriptEventKind::Refused => None,
    }
}

/// Returns the class, message and payload of an event in which an actor sent something.
fn classify_input<'e>(
    pack: &Pack,
    event: &'e TranscriptEvent<'_>,
) -> (PayloadClass, Option<&'e MessageType>, Option<&'e Value>) {
    let TranscriptEventKind::Sent(json, message) = &event.what else { return (PayloadClass::Valid, None, None) };
    // The parsed payload loses duplicate keys and unusual notations, so require that it gives the same text again.
    let written = json.as_ref().map(Value::to_string);
    let faithful = written.as_ref() == Some(&event.text);
    let class = match (json, message) {
        (None, _) => PayloadClass::Malformed,
        (Some(_), _) if !faithful => PayloadClass::Unspecified,
        (Some(_), Some(message)) if message.abstract_ => PayloadClass::Unknown,
        (Some(_), None) => PayloadClass::Unknown,
        (Some(json), Some(message)) => payload::classify(pack, message, Some(json)),
    };
    (class, *message, json.as_ref())
}

/// A message that an actor received.
struct ReceivedMessage<'t> {
    json: &'t Value,
    message: &'t MessageType,
    text: &'t str,
}

/// A message that an actor sent, and the answers to it.
struct MessageExchange<'t> {
    /// The position of the message among everything that was sent in the case.
    number: usize,
    sent: &'t str,
    replies: &'t [String],
    received: Vec<ReceivedMessage<'t>>,
}

/// The messages between one actor and one hub.
struct ActorMessages<'t> {
    exchanges: Vec<MessageExchange<'t>>,
    /// Unsolicited messages, each with the last message that the actor had sent.
    unsolicited: Vec<(&'t str, ReceivedMessage<'t>)>,
    /// The kinds of messages that were received after the end of the comparison, but may belong before it.
    late: Vec<&'t str>,
    /// Whether the actor sent a message that a hub is free to answer.
    left_open: bool,
}

impl<'t> ActorMessages<'t> {
    fn from_transcript(
        context: &ComparisonContext<'_>,
        transcript: &'t Transcript<'t>,
        end: usize,
        actor: &str,
    ) -> Self {
        let mut side = Self { exchanges: Vec::new(), unsolicited: Vec::new(), late: Vec::new(), left_open: false };
        let mut number = 0;
        for (at, event) in transcript.events.iter().enumerate() {
            number += usize::from(matches!(event.what, TranscriptEventKind::Sent(..)));
            if event.actor != actor {
                continue;
            }
            match &event.what {
                TranscriptEventKind::Sent(_, message) if at < end => {
                    let open = message.is_some_and(|message| context.open.contains(&message.name));
                    side.left_open |= open;
                    let replies = message.filter(|_| !open).map_or(&[][..], |message| message.replies.as_slice());
                    let sent = message.map_or("", |message| &message.name);
                    side.exchanges.push(MessageExchange { number, sent, replies, received: Vec::new() });
                }
                TranscriptEventKind::Received(_, message) if at >= end => side.late.push(&message.name),
                TranscriptEventKind::Received(json, message) if !context.open.contains(&message.name) => {
                    side.assign(context, ReceivedMessage { json, message, text: &event.text });
                }
                _ => {}
            }
        }
        side
    }

    /// Assigns a message to the request that it answers: the oldest fitting request without an answer, or else the last
    /// one.
    fn assign(&mut self, context: &ComparisonContext<'_>, received: ReceivedMessage<'t>) {
        let name = &received.message.name;
        let may = |exchange: &MessageExchange<'_>| exchange.replies.contains(name);
        let waits = self.exchanges.iter().position(|exchange| may(exchange) && exchange.received.is_empty());
        // A second refusal may be meant for another message.
        let again = || self.exchanges.iter().rposition(may).filter(|_| !context.errors.contains(name));
        match waits.or_else(again) {
            Some(exchange) => self.exchanges[exchange].received.push(received),
            None if self.is_unsolicited(context, &received) => {
                let last = self.exchanges.last().map_or("", |exchange| exchange.sent);
                self.unsolicited.push((last, received));
            }
            // Undocumented further replies are allowed.
            None => {}
        }
    }
}

impl ActorMessages<'_> {
    /// Whether a message is a documented unsolicited one, and neither a refusal nor a repetition.
    fn is_unsolicited(&self, context: &ComparisonContext<'_>, received: &ReceivedMessage<'_>) -> bool {
        received.message.directions.unasked
            && !received.message.abstract_
            && !context.errors.contains(&received.message.name)
            && !self.unsolicited.iter().any(|(_, before)| before.text == received.text)
    }
}

/// Compares the answers to an actor. Returns the first difference after which the hubs are in different states, with
/// the position of the message that was answered.
fn compare_answers(
    context: &ComparisonContext<'_>,
    actor: &str,
    (left, right): &(ActorMessages<'_>, ActorMessages<'_>),
    names: &(SentValueNames, SentValueNames),
    comparison: &mut HubComparison,
) -> Option<(usize, HubDifference)> {
    for (one, other) in left.exchanges.iter().zip(&right.exchanges) {
        let kinds = |exchange: &MessageExchange<'_>| {
            let mut kinds: Vec<String> =
                exchange.received.iter().map(|received| received.message.name.clone()).collect();
            kinds.sort();
            kinds
        };
        let texts = |exchange: &MessageExchange<'_>| {
            exchange.received.iter().map(|received| received.text).collect::<Vec<_>>().join(" ")
        };
        let (lefts, rights) = (kinds(one), kinds(other));
        if lefts != rights {
            let late = |side: &ActorMessages<'_>| one.replies.iter().any(|reply| side.late.contains(&reply.as_str()));
            if lefts.len() != rights.len() && (late(left) || late(right)) {
                return None;
            }
            let (left, right) = (texts(one), texts(other));
            let (after, kind) = (one.sent.to_owned(), HubDifferenceKind::Answer(lefts, rights));
            let actor = actor.to_owned();
            return Some((one.number, HubDifference { actor, after, kind, pointer: String::new(), left, right }));
        }
        comparison.compared += lefts.len();
        let found = pair_messages(
            context,
            names,
            &one.received.iter().collect::<Vec<_>>(),
            &other.received.iter().collect::<Vec<_>>(),
        );
        comparison.differences.extend(found.map(|(message, found)| member_difference(actor, one.sent, message, found)));
    }
    None
}

/// Compares the unsolicited messages that an actor received.
fn compare_unsolicited(
    context: &ComparisonContext<'_>,
    actor: &str,
    (left, right): &(ActorMessages<'_>, ActorMessages<'_>),
    names: &(SentValueNames, SentValueNames),
    comparison: &mut HubComparison,
) {
    let mut kinds: Vec<&str> =
        left.unsolicited.iter().chain(&right.unsolicited).map(|(_, received)| received.message.name.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for name in kinds {
        let of_kind = |side: &'_ ActorMessages<'_>| {
            side.unsolicited.iter().filter(|(_, received)| received.message.name == name).count()
        };
        comparison.compared += of_kind(left).min(of_kind(right));
        let mut lefts: Vec<_> = left.unsolicited.iter().filter(|(_, received)| received.message.name == name).collect();
        let mut rights: Vec<_> =
            right.unsolicited.iter().filter(|(_, received)| received.message.name == name).collect();
        // Pair equal messages first; of the others, leave out those that name nothing of this case.
        lefts.retain(|(_, received)| {
            match rights.iter().position(|(_, other)| first_difference(context, names, received, other).is_none()) {
                Some(found) => {
                    rights.remove(found);
                    false
                }
                None => true,
            }
        });
        lefts.retain(|(_, received)| names.0.contains_sent_text(received.json, &context.examples));
        rights.retain(|(_, received)| names.1.contains_sent_text(received.json, &context.examples));
        let late = |side: &ActorMessages<'_>| side.late.contains(&name);
        let actor = actor.to_owned();
        let difference = match (lefts.first(), rights.first()) {
            (None, None) => continue,
            (Some((after, one)), Some((_, other))) => match first_difference(context, names, one, other) {
                Some(found) => member_difference(&actor, after, name.to_owned(), found),
                None => continue,
            },
            (Some((after, received)), None) if !late(right) => {
                let (after, kind, left) =
                    ((*after).to_owned(), HubDifferenceKind::OnlyLeft(name.to_owned()), received.text.to_owned());
                HubDifference { actor, after, kind, pointer: String::new(), left, right: String::new() }
            }
            (None, Some((after, received))) if !late(left) => {
                let (after, kind, right) =
                    ((*after).to_owned(), HubDifferenceKind::OnlyRight(name.to_owned()), received.text.to_owned());
                HubDifference { actor, after, kind, pointer: String::new(), left: String::new(), right }
            }
            _ => continue,
        };
        comparison.differences.push(difference);
    }
}

fn member_difference(actor: &str, after: &str, message: String, found: MessageDifference) -> HubDifference {
    let MessageDifference { pointer, left, right } = found;
    HubDifference {
        actor: actor.to_owned(),
        after: after.to_owned(),
        kind: HubDifferenceKind::Member(message),
        pointer,
        left,
        right,
    }
}

/// Returns the first difference between two messages of one kind.
fn first_difference(
    context: &ComparisonContext<'_>,
    names: &(SentValueNames, SentValueNames),
    one: &ReceivedMessage<'_>,
    other: &ReceivedMessage<'_>,
) -> Option<MessageDifference> {
    let left = ComparedMessage { json: one.json, names: &names.0 };
    let right = ComparedMessage { json: other.json, names: &names.1 };
    equivalence::compare_messages(one.message, &context.open_members, left, right)
}

/// Pairs equal messages. Returns the difference of the first message without an equal one.
fn pair_messages(
    context: &ComparisonContext<'_>,
    names: &(SentValueNames, SentValueNames),
    left: &[&ReceivedMessage<'_>],
    right: &[&ReceivedMessage<'_>],
) -> Option<(String, MessageDifference)> {
    let differ = |one: &ReceivedMessage<'_>, other: &ReceivedMessage<'_>| first_difference(context, names, one, other);
    let mut free: Vec<&&ReceivedMessage<'_>> = right.iter().collect();
    let mut without = None;
    for received in left {
        let same_kind = |other: &&ReceivedMessage<'_>| other.message.name == received.message.name;
        match free.iter().position(|other| same_kind(other) && differ(received, other).is_none()) {
            Some(found) => drop(free.remove(found)),
            None => drop(without.get_or_insert(received)),
        }
    }
    let received = without?;
    let counterpart = free.iter().find(|other| other.message.name == received.message.name)?;
    differ(received, counterpart).map(|found| (received.message.name.clone(), found))
}

/// Returns the difference, with the position of the last message, if only one hub closed or refused an actor's
/// connection.
fn compare_connections(
    actor: &str,
    left: &[TranscriptEvent<'_>],
    right: &[TranscriptEvent<'_>],
) -> Option<(usize, HubDifference)> {
    let ended = |events: &[TranscriptEvent<'_>]| {
        let mut sent = (0, String::new());
        for event in events {
            match &event.what {
                TranscriptEventKind::Sent(_, message) => {
                    sent.0 += 1;
                    if event.actor == actor {
                        sent.1 = message.map(|message| message.name.clone()).unwrap_or_default();
                    }
                }
                TranscriptEventKind::Closed | TranscriptEventKind::Refused if event.actor == actor => {
                    let how = if matches!(event.what, TranscriptEventKind::Closed) { "closed" } else { "refused" };
                    return Some((sent, format!("{how} {}", event.text)));
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
    let (actor, kind, pointer) = (actor.to_owned(), HubDifferenceKind::Connection, String::new());
    Some((number, HubDifference { actor, after, kind, pointer, left, right }))
}

/// The rule by which differences are reported.
pub const DIFFERS_RULE: &str = "FUZZ-DIFFERS";

/// Returns a comparison as a check of the case that shows the first difference in full, with both transcripts. `None`
/// if nothing was compared.
pub fn comparison_check(
    comparison: &HubComparison,
    pack: &Pack,
    left: &ScenarioReport,
    right: &ScenarioReport,
) -> Option<CheckReport> {
    let rule = pack.rules.get(DIFFERS_RULE)?;
    let first = comparison.differences.first();
    if first.is_none() && comparison.compared == 0 {
        return None;
    }
    let verdict = if first.is_some() { Verdict::Warn } else { Verdict::Pass };
    let used = RuleUse { id: DIFFERS_RULE.to_owned(), level: rule.level, basis: rule.basis, lowered: false };
    let detail = first.map(|first| FindingDetail {
        actor: first.actor.clone(),
        expected: format!("{} | what the other hub sent:\n{}", shorten(&first.right), transcript_lines(pack, right)),
        received: format!("{} | what this hub sent:\n{}", shorten(&first.left), transcript_lines(pack, left)),
        ..FindingDetail::default()
    });
    Some(CheckReport {
        rules: vec![(used, verdict)],
        step: "the other hub receives the same input".to_owned(),
        message: first.map(HubDifference::describe).unwrap_or_default(),
        detail,
        ..CheckReport::new(DIFFERS_RULE, verdict)
    })
}

fn shorten(text: &str) -> String {
    if text.is_empty() { "nothing".to_owned() } else { crate::syntax::matcher::shorten(text, MAX_FRAME_CHARS) }
}

impl HubDifference {
    /// Describes the difference in one line. Differences with the same cause have the same line.
    pub fn describe(&self) -> String {
        let Self { after, kind, pointer, .. } = self;
        let after = if after.is_empty() { "at first".to_owned() } else { format!("after {after}") };
        let list = |kinds: &[String]| if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") };
        match kind {
            HubDifferenceKind::Answer(left, right) => {
                format!("{after}: this hub answers {}, the other {}", list(left), list(right))
            }
            HubDifferenceKind::OnlyLeft(message) => format!("{after}: only this hub sends {message}"),
            HubDifferenceKind::OnlyRight(message) => format!("{after}: only the other hub sends {message}"),
            HubDifferenceKind::Member(message) => {
                format!("{after}: {message} differs at {}", if pointer.is_empty() { "the whole" } else { pointer })
            }
            HubDifferenceKind::Connection => format!("{after}: only one of the hubs keeps the connection open"),
        }
    }
}

/// The most characters of a frame, and the most frames, that are shown.
const MAX_FRAME_CHARS: usize = 160;
const MAX_LINES: usize = 24;

fn transcript_lines(pack: &Pack, report: &ScenarioReport) -> String {
    let transcript = Transcript::from_report(pack, report);
    let skipped = transcript.events.len().saturating_sub(MAX_LINES);
    let line = |event: &TranscriptEvent<'_>| {
        let way = if matches!(event.what, TranscriptEventKind::Sent(..)) { "->" } else { "<-" };
        format!("{} {way} {}", event.actor, crate::syntax::matcher::shorten(&event.text, MAX_FRAME_CHARS))
    };
    transcript.events.iter().skip(skipped).map(line).collect::<Vec<_>>().join("\n")
}
