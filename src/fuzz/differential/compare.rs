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
//!   messages that name nothing a client of the case sent, that come last before their receiver leaves, and repetitions of
//!   one;
//! - answers to input for which the document states no answer. After such input the hubs may be in different states, so
//!   the comparison ends there;
//! - what follows after a client is sent something of another client under `open` by one hub only: which worker gets a
//!   job decides who may report on it.
//!
//! The comparison misses messages that a slow hub sends only after the end of a case.

use std::collections::HashSet;

use serde_json::Value;

pub use super::difference::{DIFFERS_RULE, HubDifference, HubDifferenceKind, comparison_check};
use super::equivalence::{self, ComparedMessage, MessageDifference};
use super::transcript::{self, SentValueNames, Transcript, TranscriptEvent, TranscriptEventKind};
use crate::fuzz::corpus::Corpus;
use crate::fuzz::mutate::payload::{self, PayloadClass};
use crate::generate::schema_shape::SchemaShape;
use crate::outcome::ScenarioReport;
use crate::protocol::{MessageType, Pack};

/// Whether a document demands an answer to input of this class, message and payload.
pub type AnswerDemand<'a> = &'a dyn Fn(PayloadClass, Option<&MessageType>, Option<&Value>) -> bool;

/// What the comparison of two hubs needs to know about their protocol.
#[derive(Debug)]
pub struct ComparisonFacts {
    /// Messages that a hub may or may not send.
    pub open: HashSet<String>,
    /// Pairs of messages: a client that has sent the first may or may not be sent the second.
    open_after: Vec<(String, String)>,
    /// Messages of clients that a hub is free to answer or to pass on to other clients.
    pub open_requests: HashSet<String>,
    /// The names of members in which hubs may differ.
    pub open_members: HashSet<String>,
    /// The texts in documented examples.
    examples: HashSet<String>,
    /// The messages with which a hub may refuse any input.
    errors: HashSet<String>,
    /// The messages with which a hub may refuse anything.
    refusals: HashSet<String>,
    /// The messages with which a hub reports that it did not carry out a request. Another hub may carry it out.
    failures: HashSet<String>,
}

impl ComparisonFacts {
    /// Reads what the pack of a corpus leaves open, under `ignore` and `fuzz` in shared.yaml.
    pub fn for_corpus(corpus: &Corpus) -> Self {
        let (members, messages): (HashSet<String>, HashSet<String>) =
            corpus.open_names().into_iter().partition(|name| name.starts_with('/'));
        let is_envelope = |message: &&MessageType| message.abstract_ && message.directions.to_hub;
        let envelopes = corpus.pack.messages.iter().filter(is_envelope);
        Self {
            open: messages,
            open_after: corpus.open_after().collect(),
            open_requests: corpus.open_requests().into_iter().collect(),
            open_members: members.into_iter().map(|name| name.trim_start_matches('/').to_owned()).collect(),
            examples: transcript::example_texts(&corpus.pack),
            errors: envelopes.flat_map(|envelope| envelope.replies.clone()).collect(),
            refusals: corpus.refusal_names().into_iter().collect(),
            failures: corpus.failure_names().into_iter().collect(),
        }
    }

    /// Whether a hub may send this message or leave it out, once the client has sent the messages in `sent`.
    fn is_open(&self, message: &str, sent: &HashSet<&str>) -> bool {
        let after = |(after, open): &(String, String)| open == message && sent.contains(after.as_str());
        self.open.contains(message) || self.open_after.iter().any(after)
    }
}

/// What one comparison needs.
pub struct ComparisonContext<'a> {
    pub pack: &'a Pack,
    pub facts: &'a ComparisonFacts,
    /// Whether the document demands an answer to input of some class, message and payload.
    pub decided: AnswerDemand<'a>,
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
    let mut diverging: Vec<(usize, Option<HubDifference>)> = Vec::new();
    let mut left_open = false;
    // The differing members of answers, each with the position of the message that was answered.
    let mut members = Vec::new();
    let both = |actor: &&str| {
        let left = ActorMessages::from_transcript(context, &left, ends.0, actor);
        (left, ActorMessages::from_transcript(context, &right, ends.1, actor))
    };
    let all: Vec<_> = actors.iter().map(both).collect();
    for (actor, sides) in actors.iter().zip(&all) {
        let chosen = first_open_difference(context, actor, sides, &names).map(|number| (number, None));
        // It comes before a difference between the other answers to the same message.
        diverging.splice(0..0, chosen);
        diverging.extend(compare_answers(context, actor, sides, &names, (&mut comparison.compared, &mut members)));
        let connections = compare_connections(actor, lefts, rights);
        // A close after the end of the comparison may belong before it.
        let closed = |events: &[TranscriptEvent<'_>]| {
            let closed = |event: &TranscriptEvent<'_>| {
                event.actor == *actor
                    && matches!(event.what, TranscriptEventKind::Closed | TranscriptEventKind::Refused)
            };
            events.iter().any(closed)
        };
        let late = closed(&left.events[ends.0..]) || closed(&right.events[ends.1..]);
        let connections = connections.filter(|_| !sides.0.left_open && !late);
        diverging.extend(connections.map(|(number, difference)| (number, Some(difference))));
        left_open |= sides.0.left_open;
    }
    // After the first different answer the hubs are in different states, so only that difference is reported.
    diverging.sort_by_key(|(sent, _)| *sent);
    let first = diverging.into_iter().next();
    members.sort_by_key(|(number, _)| *number);
    let until = first.as_ref().map_or(usize::MAX, |(number, _)| *number);
    let before = members.into_iter().filter(|(number, _)| *number <= until);
    comparison.differences.extend(before.map(|(_, difference)| difference));
    match first {
        Some((_, difference)) => {
            comparison.ended = comparison.ended.or(Some("the hubs chose differently"));
            comparison.differences.extend(difference);
        }
        None if left_open => {}
        None => {
            for (actor, sides) in actors.iter().zip(&all) {
                compare_unsolicited(context, actor, sides, &names, &mut comparison);
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
        let (event, twin) = (&left.events[*at], &right.events[*other]);
        if event.actor != twin.actor || name(event) != name(twin) {
            return ((*at, *other), Some("the hubs' answers led to different messages"));
        }
        if matches!(event.what, TranscriptEventKind::Raw) {
            return ((*at, *other), Some("the document does not say how such frames are answered"));
        }
        let (class, message, json) = classify_input(context.pack, event);
        if matches!(class, PayloadClass::Valid | PayloadClass::Unusual) {
            continue;
        }
        let kinds = |transcript: &Transcript<'_>, at: usize| {
            let next = |event: &&TranscriptEvent<'_>| {
                !(event.actor == twin.actor && matches!(event.what, TranscriptEventKind::Sent(..)))
            };
            let after = transcript.events[at + 1..].iter().take_while(next).filter(|event| event.actor == twin.actor);
            after.filter_map(event_kind).filter(|kind| !context.facts.open.contains(kind)).collect::<Vec<_>>()
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
        TranscriptEventKind::Sent(..)
        | TranscriptEventKind::Raw
        | TranscriptEventKind::Left
        | TranscriptEventKind::Refused => None,
    }
}

/// Returns the class, message and payload of an event in which an actor sent something.
fn classify_input<'e>(
    pack: &Pack,
    event: &'e TranscriptEvent<'_>,
) -> (PayloadClass, Option<&'e MessageType>, Option<&'e Value>) {
    let TranscriptEventKind::Sent(json, message) = &event.what else { return (PayloadClass::Valid, None, None) };
    // The parsed payload loses duplicate keys and unusual notations of numbers, so require that it gives the same text
    // again, except for white space and escapes.
    let written = json.as_ref().map(Value::to_string);
    let faithful =
        written.as_ref().is_some_and(|written| *written == event.text || *written == plain_json(&event.text));
    let class = match (json, message) {
        (None, _) => PayloadClass::Malformed,
        (Some(_), _) if !faithful => PayloadClass::Unspecified,
        (Some(_), Some(message)) if message.abstract_ => PayloadClass::Unknown,
        (Some(_), None) => PayloadClass::Unknown,
        (Some(json), Some(message)) => payload::classify(pack, message, Some(json)),
    };
    (class, *message, json.as_ref())
}

/// Returns a JSON text without white space between its tokens, and with its texts escaped as little as possible.
fn plain_json(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => {
                let mut escaped = false;
                let end = rest[1..].find(|letter| {
                    let ends = letter == '"' && !escaped;
                    escaped = letter == '\\' && !escaped;
                    ends
                });
                let length = end.map_or(rest.len(), |end| end + 2);
                let value = serde_json::from_str::<Value>(&rest[..length]);
                plain.push_str(&value.map_or_else(|_| rest[..length].to_owned(), |value| value.to_string()));
                length
            }
            ' ' | '\t' | '\n' | '\r' => 1,
            other => {
                plain.push(other);
                other.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    plain
}

/// The longest text, and the longest list, that no hub should find too long.
const MODEST_LENGTH: usize = 300;

/// Whether a message has values that a hub may refuse although the document does not say so: empty or long texts, control
/// characters, and numbers that some JSON libraries cannot represent.
fn may_exceed_limits(message: &Value) -> bool {
    match message {
        Value::String(text) => text.is_empty() || text.len() > MODEST_LENGTH || text.contains(char::is_control),
        Value::Array(items) => items.len() > MODEST_LENGTH || items.iter().any(may_exceed_limits),
        Value::Object(members) => members.iter().any(|(name, value)| {
            name.len() > MODEST_LENGTH || name.contains(char::is_control) || may_exceed_limits(value)
        }),
        Value::Number(number) => number.as_f64().is_none_or(|number| number.abs() > 9_007_199_254_740_991.0),
        Value::Null | Value::Bool(_) => false,
    }
}

/// A message that an actor received.
struct ReceivedMessage<'t> {
    json: &'t Value,
    message: &'t MessageType,
    text: &'t str,
    /// The number of messages that clients had sent before.
    before: usize,
}

impl ReceivedMessage<'_> {
    /// Whether another message says the same, apart from times and from members that the schema does not name.
    fn is_like(&self, other: &Self) -> bool {
        let (Value::Object(one), Value::Object(two)) = (self.json, other.json) else { return self.json == other.json };
        let shape = SchemaShape::from_schema(&self.message.schema.source);
        let is_like = |name| match (one.get(name), two.get(name)) {
            (Some(one), Some(two)) => one == two || equivalence::is_time(one) && equivalence::is_time(two),
            (one, two) => one == two,
        };
        self.message.name == other.message.name && shape.member_names().into_iter().all(is_like)
    }
}

/// A message that an actor sent, and the answers to it.
struct MessageExchange<'t> {
    /// The position of the message among everything that was sent in the case.
    number: usize,
    connection: u32,
    /// Whether the actor left before it received anything more.
    left: bool,
    /// Whether a message refused it that is not among its replies.
    refused: bool,
    json: Option<&'t Value>,
    /// What identifies the message, if the protocol has such a member.
    id: Option<&'t Value>,
    sent: &'t str,
    replies: &'t [String],
    received: Vec<ReceivedMessage<'t>>,
}

impl MessageExchange<'_> {
    /// Returns the names of the answers, sorted.
    fn kinds(&self) -> Vec<String> {
        let mut kinds: Vec<String> = self.received.iter().map(|received| received.message.name.clone()).collect();
        kinds.sort();
        kinds
    }

    fn texts(&self) -> String {
        self.received.iter().map(|received| received.text).collect::<Vec<_>>().join(" ")
    }
}

/// Whether both values are there and identify the same; a number may be written in several ways.
fn is_same_id(one: Option<&Value>, other: Option<&Value>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return false };
    one == other || one.as_f64().is_some_and(|number| other.as_f64() == Some(number))
}

/// Returns the value that identifies a message, if its protocol has such a member.
fn identifier<'t>(message: &MessageType, json: &'t Value) -> Option<&'t Value> {
    json.pointer(message.correlation.as_deref()?).filter(|id| !id.is_null())
}

struct UnsolicitedMessage<'t> {
    /// The last message that the actor had sent.
    after: &'t str,
    connection: u32,
    received: ReceivedMessage<'t>,
    /// Whether the actor left before any client sent another message. A hub that is a little slower sends it when the
    /// actor is gone.
    is_last: bool,
}

/// The messages between one actor and one hub.
#[derive(Default)]
struct ActorMessages<'t> {
    exchanges: Vec<MessageExchange<'t>>,
    unsolicited: Vec<UnsolicitedMessage<'t>>,
    /// The messages that a hub may leave out, each with the position of the message that it may answer.
    open: Vec<(usize, ReceivedMessage<'t>)>,
    /// The kinds of messages that were received after the end of the comparison, but may belong before it.
    late: Vec<&'t str>,
    /// The connections that the hub closed.
    closed: HashSet<u32>,
    /// The connections that the actor left.
    left: HashSet<u32>,
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
        let mut side = Self::default();
        let mut sent_before = HashSet::new();
        let mut number = 0;
        for (at, event) in transcript.events.iter().enumerate() {
            number += usize::from(matches!(event.what, TranscriptEventKind::Sent(..) | TranscriptEventKind::Raw));
            if event.actor != actor {
                continue;
            }
            if let TranscriptEventKind::Sent(_, Some(message)) = event.what {
                sent_before.insert(message.name.as_str());
            }
            match &event.what {
                TranscriptEventKind::Sent(json, message) if at < end => {
                    let open = message.is_some_and(|message| context.facts.open_requests.contains(&message.name));
                    side.left_open |= open;
                    let replies = message.filter(|_| !open).map_or(&[][..], |message| message.replies.as_slice());
                    let sent = message.map_or("", |message| &message.name);
                    let (connection, received) = (event.connection, Vec::new());
                    let (left, refused, json) = (false, false, json.as_ref());
                    let id = message.and_then(|message| identifier(message, json?));
                    let exchange =
                        MessageExchange { number, connection, left, refused, json, id, sent, replies, received };
                    side.exchanges.push(exchange);
                }
                TranscriptEventKind::Left => {
                    let last = side.exchanges.iter_mut().rev().take_while(|one| one.received.is_empty());
                    last.filter(|one| one.connection == event.connection).for_each(|one| one.left = true);
                    side.left.insert(event.connection);
                    let of_this = side.unsolicited.iter_mut().filter(|one| one.connection == event.connection);
                    of_this.filter(|one| one.received.before == number).for_each(|one| one.is_last = true);
                }
                TranscriptEventKind::Closed => drop(side.closed.insert(event.connection)),
                TranscriptEventKind::Received(_, message) if at >= end => side.late.push(&message.name),
                TranscriptEventKind::Received(json, message) if context.facts.open.contains(&message.name) => {
                    let answers = |exchange: &&MessageExchange<'_>| {
                        exchange.connection == event.connection && exchange.replies.contains(&message.name)
                    };
                    let since = side.exchanges.iter().rfind(answers).map_or(number, |exchange| exchange.number);
                    side.open.push((since, ReceivedMessage { json, message, text: &event.text, before: number }));
                }
                TranscriptEventKind::Received(json, message) if !context.facts.is_open(&message.name, &sent_before) => {
                    side.assign(
                        context,
                        event.connection,
                        ReceivedMessage { json, message, text: &event.text, before: number },
                    );
                }
                _ => {}
            }
        }
        side
    }

    /// Assigns a message to the request that it answers: the one with its identifier, if any, or else the oldest fitting
    /// request without an answer, or else the last one.
    fn assign(&mut self, context: &ComparisonContext<'_>, connection: u32, received: ReceivedMessage<'t>) {
        let name = &received.message.name;
        let may = |exchange: &MessageExchange<'_>| exchange.connection == connection && exchange.replies.contains(name);
        let id = identifier(received.message, received.json);
        let is_named = |exchange: &MessageExchange<'_>| is_same_id(exchange.id, id) && may(exchange);
        let named = || {
            let waiting = self.exchanges.iter().position(|exchange| is_named(exchange) && exchange.received.is_empty());
            let last = || self.exchanges.iter().rposition(is_named).filter(|_| !context.facts.errors.contains(name));
            waiting.or_else(last)
        };
        let waits = named().or_else(|| {
            self.exchanges
                .iter()
                .position(|exchange| may(exchange) && exchange.received.is_empty() && !exchange.refused)
        });
        // A second refusal may be meant for another message.
        let later = |at: &usize| {
            let waits = |one: &MessageExchange<'_>| {
                one.connection == connection && one.received.is_empty() && !one.refused && !one.replies.is_empty()
            };
            self.exchanges[at + 1..].iter().any(waits)
        };
        let again = || {
            let last = self.exchanges.iter().rposition(may);
            last.filter(|at| !context.facts.errors.contains(name) && !later(at))
        };
        match waits.or_else(again) {
            Some(exchange) => self.exchanges[exchange].received.push(received),
            None if self.is_unsolicited(context, &received) => {
                let after = self.exchanges.last().map_or("", |exchange| exchange.sent);
                // The hub may have sent it before it noticed that the client left.
                let is_last = self.left.contains(&connection);
                self.unsolicited.push(UnsolicitedMessage { after, connection, received, is_last });
            }
            None if self.left.contains(&connection) => {}
            // Undocumented further replies are allowed.
            None => {
                let waits = |exchange: &&mut MessageExchange<'_>| {
                    exchange.connection == connection && exchange.received.is_empty() && !exchange.refused
                };
                let is_error = context.facts.errors.contains(name) || !received.message.directions.unasked;
                if let Some(exchange) = self.exchanges.iter_mut().rfind(waits).filter(|_| is_error) {
                    exchange.refused = true;
                }
            }
        }
    }
}

impl ActorMessages<'_> {
    /// Whether the hub closed the connection of an exchange and answered nothing later there.
    fn ends_after(&self, exchange: &MessageExchange<'_>) -> bool {
        let later = |one: &&MessageExchange<'_>| one.connection == exchange.connection && one.number > exchange.number;
        self.closed.contains(&exchange.connection)
            && self.exchanges.iter().filter(later).all(|one| one.received.is_empty())
    }

    /// Whether a message is a documented unsolicited one, and neither a refusal nor a repetition.
    fn is_unsolicited(&self, context: &ComparisonContext<'_>, received: &ReceivedMessage<'_>) -> bool {
        received.message.directions.unasked
            && !received.message.abstract_
            && !context.facts.errors.contains(&received.message.name)
            && !self.unsolicited.iter().any(|before| before.received.is_like(received))
    }
}

/// Returns the position of the first message after which only one hub sent the actor something of another client that a
/// hub may leave out.
fn first_open_difference(
    context: &ComparisonContext<'_>,
    actor: &str,
    (left, right): &(ActorMessages<'_>, ActorMessages<'_>),
    names: &(SentValueNames, SentValueNames),
) -> Option<usize> {
    let examples = &context.facts.examples;
    let mut rights: Vec<_> = right.open.iter().collect();
    let mut lefts: Vec<_> = left.open.iter().collect();
    lefts.retain(|(_, one)| {
        let is_same = |other: &ReceivedMessage<'_>| {
            one.message.name == other.message.name && first_difference(context, names, one, other).is_none()
        };
        rights.iter().position(|(_, other)| is_same(other)).map(|found| rights.remove(found)).is_none()
    });
    lefts.retain(|(_, one)| names.0.contains_text_of_others(one.json, actor, examples));
    rights.retain(|(_, other)| names.1.contains_text_of_others(other.json, actor, examples));
    lefts.iter().chain(&rights).map(|(number, _)| *number).min()
}

/// Compares the answers to an actor. Returns the first message after which the hubs are in different states, by its
/// position, with the difference unless the document leaves it to the hub.
fn compare_answers(
    context: &ComparisonContext<'_>,
    actor: &str,
    (left, right): &(ActorMessages<'_>, ActorMessages<'_>),
    names: &(SentValueNames, SentValueNames),
    (compared, members): (&mut usize, &mut Vec<(usize, HubDifference)>),
) -> Option<(usize, Option<HubDifference>)> {
    for (one, other) in left.exchanges.iter().zip(&right.exchanges) {
        let (mut lefts, mut rights) = (one.kinds(), other.kinds());
        // One that the hub may send unasked may come at the same time.
        let unasked = |kind: &String| context.pack.message(kind).is_some_and(|message| message.directions.unasked);
        if lefts != rights {
            lefts.dedup_by(|one, other| one == other && unasked(one));
            rights.dedup_by(|one, other| one == other && unasked(one));
        }
        if lefts != rights {
            // The actor may have left before the answer came.
            if one.left || other.left {
                continue;
            }
            // One hub may have closed the connection sooner than the other.
            if lefts.is_empty() && left.closed.contains(&one.connection) && right.ends_after(other)
                || rights.is_empty() && right.closed.contains(&other.connection) && left.ends_after(one)
            {
                return Some((one.number, None));
            }
            let late = |side: &ActorMessages<'_>| one.replies.iter().any(|reply| side.late.contains(&reply.as_str()));
            if lefts.len() != rights.len() && (late(left) || late(right)) {
                return Some((one.number, None));
            }
            let refuses = |kinds: &[String]| kinds.iter().any(|kind| context.facts.errors.contains(kind));
            let others = |kinds: &[String]| {
                let others = kinds.iter().filter(|kind| !context.facts.errors.contains(*kind));
                others.cloned().collect::<Vec<_>>()
            };
            let closed = |side: &ActorMessages<'_>, at: &MessageExchange<'_>| side.closed.contains(&at.connection);
            // A hub may say why it closes, and may refuse what exceeds its limits.
            let says_why = others(&lefts) == others(&rights) && closed(left, one) && closed(right, other);
            let refused = (one.refused || refuses(&lefts), other.refused || refuses(&rights));
            let exceeds = (refused.0 != refused.1 || closed(left, one) != closed(right, other))
                && one.json.is_some_and(may_exceed_limits);
            // Whether valid input is refused all the same is often the hub's choice, and how, unless the refusal is among
            // the documented replies.
            let any_of = |names: &HashSet<String>| lefts.iter().chain(&rights).any(|kind| names.contains(kind));
            let fails = |kinds: &[String]| kinds.iter().any(|kind| context.facts.failures.contains(kind));
            if fails(&lefts) {
                continue;
            }
            // This hub carried out what the other did not, so their states differ from here on.
            if fails(&rights) {
                return Some((one.number, None));
            }
            let chosen = any_of(&context.facts.refusals) || one.refused || other.refused || (refused.1 && !refused.0);
            if says_why || exceeds || chosen {
                return Some((one.number, None));
            }
            let (left, right) = (one.texts(), other.texts());
            let (after, kind) = (one.sent.to_owned(), HubDifferenceKind::Answer(lefts, rights));
            let actor = actor.to_owned();
            return Some((one.number, Some(HubDifference { actor, after, kind, pointer: String::new(), left, right })));
        }
        *compared += lefts.len();
        let found = pair_messages(
            context,
            names,
            &one.received.iter().collect::<Vec<_>>(),
            &other.received.iter().collect::<Vec<_>>(),
        );
        members.extend(found.map(|(message, found)| (one.number, member_difference(actor, one.sent, message, found))));
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
    let name_of = |one: &UnsolicitedMessage<'_>| one.received.message.name.clone();
    let mut kinds: Vec<String> = left.unsolicited.iter().chain(&right.unsolicited).map(name_of).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for name in kinds {
        let is_of_kind = |one: &&UnsolicitedMessage<'_>| one.received.message.name == name;
        let mut lefts: Vec<_> = left.unsolicited.iter().filter(is_of_kind).collect();
        let mut rights: Vec<_> = right.unsolicited.iter().filter(is_of_kind).collect();
        comparison.compared += lefts.len().min(rights.len());
        // Pair equal messages first; of the others, leave out those that name nothing of this case, and those that another
        // hub may send too late.
        lefts.retain(|one| {
            let is_same = |other: &&UnsolicitedMessage<'_>| {
                first_difference(context, names, &one.received, &other.received).is_none()
            };
            rights.iter().position(is_same).map(|found| rights.remove(found)).is_none()
        });
        let counts = |one: &&UnsolicitedMessage<'_>, names: &SentValueNames| {
            !one.is_last && names.contains_text_of_others(one.received.json, actor, &context.facts.examples)
        };
        lefts.retain(|one| counts(one, &names.0));
        rights.retain(|one| counts(one, &names.1));
        let late = |side: &ActorMessages<'_>| side.late.contains(&name.as_str());
        let only = |one: &UnsolicitedMessage<'_>, kind, left: &str, right: &str| {
            let (actor, after, pointer) = (actor.to_owned(), one.after.to_owned(), String::new());
            HubDifference { actor, after, kind, pointer, left: left.to_owned(), right: right.to_owned() }
        };
        let difference = match (lefts.first(), rights.first()) {
            (Some(one), Some(other)) => match first_difference(context, names, &one.received, &other.received) {
                Some(found) => member_difference(actor, one.after, name, found),
                None => continue,
            },
            (Some(one), None) if !late(right) => only(one, HubDifferenceKind::OnlyLeft(name), one.received.text, ""),
            (None, Some(one)) if !late(left) => only(one, HubDifferenceKind::OnlyRight(name), "", one.received.text),
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
    equivalence::compare_messages(one.message, &context.facts.open_members, left, right)
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
    let twin = free.iter().find(|other| other.message.name == received.message.name)?;
    differ(received, twin).map(|found| (received.message.name.clone(), found))
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
                TranscriptEventKind::Raw => sent.0 += 1,
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
