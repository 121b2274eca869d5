//! The message that a failed step missed, as evidence of a deviation: the message, its expected cause, and what came
//! instead. Only the hub's behaviour is evidence, so nothing that rests on an assumed message counts.

use std::borrow::Cow;

use serde_json::Value;

use super::Conversation;
use super::actor::{ActorState, ConnectionState, InboxFrame, InboxFrameKind, SentRequest};
use crate::deviation::proposal::{MessageOrigin, MissedExpectation, MissedExpectationKind, UnknownMessage};
use crate::protocol::{FrameDirection, MessageType, Pack};
use crate::scenario::model::{
    ActorId, ExpectedEvent, GroupQuantity, MatchPattern, MessageName, Program, Step, StepAction, StepActors,
};
use crate::scenario::template::EvalContext;
use crate::syntax::matcher::Matcher;

/// The most messages of an actor that are recorded as received instead of an expected message.
const MAX_INSTEAD: usize = 8;

/// A message that a step awaits, by its index in the pack, with its `where`.
struct AwaitedMessage<'p> {
    index: usize,
    pattern: Option<&'p MatchPattern>,
    after: Option<&'p str>,
    /// Whether other messages would satisfy the step, so that none of them can be singled out as missing.
    alternatives: bool,
}

impl Conversation {
    /// Returns the message or upgrade that a failed step expected, and what it received instead.
    pub(super) fn missed_expectation(&self, program: &Program, step: &Step) -> Option<MissedExpectation> {
        let rules = || step.check.iter().flat_map(|check| &program.checks[*check].rules).map(|used| used.id.clone());
        for id in self.blocks.members(&step.who) {
            let what = match (&step.act, &self.actors[id].link) {
                (StepAction::Expect(_) | StepAction::ExpectOneOf { .. }, ConnectionState::Open { .. }) => {
                    let Some(awaited) = awaited_message(program, step) else { continue };
                    self.missed_message(id, &awaited)?
                }
                (StepAction::Connect(_), ConnectionState::Refused { refusal, text, .. }) => {
                    let status = refusal.get("status").and_then(Value::as_u64).unwrap_or(0);
                    let answer = self.history.shown(&format!("{text} {refusal}"), 1000);
                    MissedExpectationKind::Upgrade { status, answer }
                }
                _ => continue,
            };
            return Some(MissedExpectation { what, rules: rules().collect() });
        }
        None
    }

    /// Returns a message that an actor missed; `None` if the hub cannot be expected to send it, because a message before
    /// it was only assumed.
    fn missed_message(&self, id: ActorId, awaited: &AwaitedMessage<'_>) -> Option<MissedExpectationKind> {
        let (pack, actor, message) = (&self.program.pack, &self.actors[id], awaited.index);
        let is_it = |entry: &&InboxFrame| matches!(&entry.kind, InboxFrameKind::Message { message: Some(found), .. } if *found == message);
        // A hub does not know what hubproof made up.
        if actor.latest.requests.iter().any(|request| request.assumed) {
            return None;
        }
        let names = self.eval_context(Some(id));
        let assumed = awaited.pattern.is_some_and(|pattern| pattern.template.provenance(&names).is_assumed());
        let origin = if assumed { None } else { self.message_origin(id, awaited) };
        let since = origin.as_ref().map_or(0, |(_, since)| *since);
        // If the message is assumed, its absence is known.
        let later = actor.latest.inbox.frames.iter().filter(|entry| entry.wire.sequence > since);
        if later.filter(is_it).any(|entry| !entry.is_observed()) {
            return None;
        }
        let open = || actor.latest.inbox.frames.iter().filter(|entry| !entry.claimed && entry.is_observed());
        let json_of = |entry: &InboxFrame| entry.json(pack).map(Cow::into_owned);
        // An envelope matches any message of its form.
        let unknown = |entry: &&InboxFrame| {
            matches!(&entry.kind, InboxFrameKind::Message { message, .. }
                if message.is_none_or(|index| pack.messages[index].abstract_))
        };
        let request = actor.latest.requests.iter().find(|request| request.sequence == since);
        let ids = request.map(|request| request_ids(pack, request)).unwrap_or_default();
        let repeats_id = |json: &Value| scalars_of(json).iter().any(|value| ids.contains(value));
        let instead = open().filter(|entry| entry.wire.sequence > since).filter(unknown).filter_map(json_of);
        let instead = instead.map(|json| UnknownMessage { answers: repeats_id(&json), json });
        let near = open().filter(is_it).filter(|_| !assumed).filter_map(json_of);
        let replies = request.and_then(|request| index_of_request(pack, request)).map(|index| replies_to(pack, index));
        let answers = |entry: &InboxFrame| {
            let InboxFrameKind::Message { message: found, .. } = &entry.kind else { return false };
            let Some(json) = entry.json(pack) else { return false };
            let known = found.map(|index| &pack.messages[index]).filter(|known| !known.abstract_);
            let is_later = entry.wire.sequence > since;
            match known {
                Some(_) if *found == Some(message) => false,
                Some(known) => {
                    let is_reply = replies.as_ref().is_some_and(|replies| replies.contains(&known.name.as_str()));
                    (is_later && is_reply) || !known.directions.unasked
                }
                // A message of no documented kind that repeats an id of the request is an answer of some form.
                None => is_later && repeats_id(&json),
            }
        };
        Some(MissedExpectationKind::Message {
            message,
            origin: origin.map(|(origin, _)| origin),
            instead: instead.take(MAX_INSTEAD).collect(),
            near: near.take(MAX_INSTEAD).collect(),
            answered: awaited.alternatives || open().any(answers),
        })
    }

    /// Returns what should have made the hub send a message to an actor, and the position of that event; `None` if it is
    /// unknown, or if it was a hook or another client.
    fn message_origin(&self, id: ActorId, awaited: &AwaitedMessage<'_>) -> Option<(MessageOrigin, u64)> {
        let (pack, actor) = (&self.program.pack, &self.actors[id]);
        let message = &pack.messages[awaited.index];
        let is_reply_to = |request: usize| pack.messages[request].replies.contains(&message.name);
        let sent =
            || actor.latest.requests.iter().filter_map(|request| Some((index_of_request(pack, request)?, request)));
        let asked = sent().filter(|(index, _)| is_reply_to(*index));
        let named = self.request_values(id, awaited);
        let best = asked.max_by_key(|(_, request)| (named.correlation(request, message), request.sequence));
        if let Some((index, request)) = best {
            return Some((MessageOrigin::Reply(index), request.sequence));
        }
        // The document says which request the message answers, and the actor did not send it; or only as a reply.
        let documented =
            pack.messages.iter().any(|other| other.directions.to_hub && other.replies.contains(&message.name));
        if documented || !message.directions.unasked {
            return None;
        }
        // The cause of the message is unknown. It may be this actor's latest request, unless the request has been
        // answered, or a hook or another client has acted since.
        let open = actor.latest.requests.iter().rev().find(|request| !self.is_answered(actor, request));
        let origin = match open {
            Some(request) => (MessageOrigin::Unanswered(index_of_request(pack, request)?), request.sequence),
            None if !actor.latest.has_sent => (MessageOrigin::Connection, actor.opened_event),
            None => return None,
        };
        let others = self.actors.ids().filter(|other| *other != id).map(|other| &self.actors[other]);
        let acted = |other: &ActorState| {
            other.latest.requests.iter().any(|request| request.sequence > origin.1 && !self.is_answered(other, request))
        };
        let disturbed = self.hooks.called > origin.1 || others.into_iter().any(acted);
        (!disturbed).then_some(origin)
    }

    /// Whether a documented reply to a request came, or is assumed to have come.
    fn is_answered(&self, actor: &ActorState, request: &SentRequest) -> bool {
        let pack = &self.program.pack;
        let Some(index) = index_of_request(pack, request) else { return false };
        let replies = &pack.messages[index].replies;
        let is_reply = |entry: &InboxFrame| match &entry.kind {
            InboxFrameKind::Message { message: Some(found), .. } => replies.contains(&pack.messages[*found].name),
            _ => false,
        };
        actor.latest.inbox.frames.iter().any(|entry| entry.wire.sequence > request.sequence && is_reply(entry))
    }

    /// Returns what a step says about the request whose reply it awaits.
    fn request_values(&self, id: ActorId, awaited: &AwaitedMessage<'_>) -> RequestValues {
        let names = self.eval_context(Some(id));
        let (mut events, mut values) = (Vec::new(), Vec::new());
        if let Some(pattern) = awaited.pattern {
            events.extend(pattern.template.wires(&names).iter().map(|wire| wire.sequence));
            if let Ok(value) = pattern.template.eval(&names) {
                values = scalars_of(&value);
            }
        }
        let after = awaited.after.and_then(|name| names.lookup(name));
        events.extend(after.iter().flat_map(|bound| bound.wires()).map(|wire| wire.sequence));
        RequestValues { events, values }
    }
}

/// What a step says about the request whose reply it awaits.
struct RequestValues {
    /// Positions of the frames that the step names.
    events: Vec<u64>,
    /// The values that the reply must have, such as ids.
    values: Vec<Value>,
}

impl RequestValues {
    /// Returns how strongly the step points to a request: by its name, by a value that it has in common with the reply,
    /// or not at all.
    fn correlation(&self, request: &SentRequest, reply: &MessageType) -> u8 {
        if self.events.contains(&request.sequence) {
            return 2;
        }
        let own = scalars_of(&request_json(request).unwrap_or(Value::Null));
        let literals = scalars_of(&Value::Object(reply.matcher.literal_members()));
        let is_common = |value: &&Value| own.contains(value) && !literals.contains(value);
        u8::from(self.values.iter().any(|value| is_common(&value)))
    }
}

/// Returns the names of the documented replies to a request, and of those to any message whose special form it is.
fn replies_to(pack: &Pack, request: usize) -> Vec<&str> {
    let value = pack.messages[request].starting_value();
    let special = |other: &&MessageType| other.recognises(&value, FrameDirection::ToHub);
    pack.messages.iter().filter(special).flat_map(|other| &other.replies).map(String::as_str).collect()
}

/// Returns the texts and numbers of a request, apart from those by which it is recognised.
fn request_ids(pack: &Pack, request: &SentRequest) -> Vec<Value> {
    let mut ids = scalars_of(&request_json(request).unwrap_or(Value::Null));
    if let Some(index) = index_of_request(pack, request) {
        let literals = scalars_of(&Value::Object(pack.messages[index].matcher.literal_members()));
        ids.retain(|value| !literals.contains(value));
    }
    ids
}

fn scalars_of(value: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    collect_scalars(value, &mut found);
    found
}

/// Collects the texts and numbers in a value.
fn collect_scalars(value: &Value, into: &mut Vec<Value>) {
    match value {
        Value::String(_) | Value::Number(_) => into.push(value.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect_scalars(item, into)),
        Value::Object(members) => members.values().for_each(|member| collect_scalars(member, into)),
        Value::Null | Value::Bool(_) => {}
    }
}

fn request_json(request: &SentRequest) -> Option<Value> {
    serde_json::from_str(request.text.as_deref()?).ok()
}

/// Returns the index of a request in the pack; raw text may be a message, too.
fn index_of_request(pack: &Pack, request: &SentRequest) -> Option<usize> {
    request.message.or_else(|| {
        let json = request_json(request)?;
        pack.message_index(&pack.recognise(&json, FrameDirection::ToHub)?.name)
    })
}

/// Returns the message that a step awaits; of several alternatives, the first. Returns `None` for a step that fails
/// because of too many messages.
fn awaited_message<'p>(program: &'p Program, step: &'p Step) -> Option<AwaitedMessage<'p>> {
    if matches!(step.who, StepActors::Group { quantity: Some((GroupQuantity::AtMost, _)), .. }) {
        return None;
    }
    let awaited = |want: &'p ExpectedEvent, after: &'p Option<String>, alternatives: bool| match want {
        ExpectedEvent::Message { message: MessageName::Named(name), pattern } => Some(AwaitedMessage {
            index: program.pack.message_index(name)?,
            pattern: pattern.as_ref(),
            after: after.as_deref(),
            alternatives,
        }),
        _ => None,
    };
    match &step.act {
        StepAction::Expect(expect) => awaited(&expect.want, &expect.after, false),
        StepAction::ExpectOneOf { alternatives, after, .. } => {
            let good = alternatives.iter().filter(|alternative| alternative.fail.is_none());
            good.filter_map(|alternative| alternative.want.as_ref()).find_map(|want| awaited(want, after, true))
        }
        _ => None,
    }
}

/// Returns the index of the message that a matcher demands by the members by which the pack recognises it, if the
/// received one is another.
pub(super) fn demanded_message(pack: &Pack, matcher: &Matcher, received: &Value) -> Option<usize> {
    let demanded = matcher.member_conditions();
    let is_demanded = |message: &MessageType| {
        let own = message.matcher.member_conditions();
        !own.is_empty() && own.iter().all(|condition| demanded.contains(condition))
    };
    let messages = pack.messages.iter().enumerate().filter(|(_, message)| message.directions.from_hub);
    let fitting = messages.filter(|(_, message)| !message.abstract_ && is_demanded(message));
    let best = fitting.max_by_key(|(_, message)| message.matcher.condition_count());
    best.filter(|(_, message)| !message.matcher.fits(received)).map(|(index, _)| index)
}
