//! Replies that name no method: the result of OCPP or JSON-RPC contains only the id of its request, so the request
//! decides which message it is.

use serde_json::Value;

use super::{FrameDirection, MessageType, Pack};

/// Marks the replies that look like a reply to another request. Their correlation id leads to their request.
pub fn mark_typed_replies(messages: &mut [MessageType]) {
    let is_reply = |message: &MessageType| {
        let answers = |request: &MessageType| request.correlation.is_some() && request.replies.contains(&message.name);
        !message.abstract_ && message.correlation.is_some() && messages.iter().any(answers)
    };
    let replies: Vec<&MessageType> = messages.iter().filter(|message| is_reply(message)).collect();
    let ambiguous = |one: &MessageType| replies.iter().any(|other| other.name != one.name && look_alike(one, other));
    let names: Vec<String> = replies.iter().filter(|one| ambiguous(one)).map(|one| one.name.clone()).collect();
    for message in messages.iter_mut() {
        message.typed_by_request = names.contains(&message.name);
    }
}

/// Whether neither matcher tells two messages apart.
fn look_alike(one: &MessageType, other: &MessageType) -> bool {
    let (a, b) = (one.directions, other.directions);
    (a.to_hub && b.to_hub || a.from_hub && b.from_hub)
        && one.matcher.condition_count() == other.matcher.condition_count()
        && one.matcher.fits(&other.starting_value())
        && other.matcher.fits(&one.starting_value())
}

/// Returns a correlation id as text; `None` for null. Equal ids give equal texts: 1 and 1.0 are equal, "1" is not.
fn correlation_key(id: &Value) -> Option<String> {
    match id {
        Value::Null => None,
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => Some(format!("{float:.0}")),
            _ => Some(number.to_string()),
        },
        other => Some(other.to_string()),
    }
}

/// The largest integer up to which double-precision numbers are exact.
const MAX_EXACT_INTEGER: u64 = 1 << 53;

impl MessageType {
    /// Whether any parser keeps the correlation id in a payload of this message, or there is none.
    pub fn has_plain_id(&self, payload: &Value) -> bool {
        match self.correlation.as_ref().and_then(|place| payload.pointer(place)) {
            None | Some(Value::Null | Value::String(_)) => true,
            Some(Value::Number(id)) => id.as_i64().is_some_and(|id| id.unsigned_abs() <= MAX_EXACT_INTEGER),
            Some(_) => false,
        }
    }

    /// Returns the correlation id in a payload of this message, as text.
    pub fn correlation_key(&self, payload: &Value) -> Option<String> {
        correlation_key(payload.pointer(self.correlation.as_ref()?)?)
    }
}

impl Pack {
    /// Like [`Pack::recognise`] for a client of this role, but a reply that only its request identifies is a reply to that
    /// request. `requests` returns the messages, by index, that were sent with a correlation id.
    pub fn recognise_reply(
        &self,
        payload: &Value,
        way: FrameDirection,
        role: &str,
        requests: &dyn Fn(&str) -> Vec<usize>,
    ) -> Option<&MessageType> {
        let found = match way {
            FrameDirection::FromHub => self.recognise_for_role(payload, role)?,
            FrameDirection::ToHub => self.recognise(payload, way)?,
        };
        if !found.typed_by_request {
            return Some(found);
        }
        let answers_request = |reply: &&MessageType| {
            let asked = reply.correlation_key(payload).map(|id| requests(&id)).unwrap_or_default();
            asked.iter().any(|request| self.messages[*request].replies.contains(&reply.name))
        };
        let answers: Vec<&MessageType> = self.look_alikes(found, payload, way).filter(answers_request).collect();
        let valid = answers.iter().find(|reply| reply.schema.is_valid(payload));
        match valid.or(answers.first()) {
            Some(reply) => Some(*reply),
            // Without the request, a reply that breaks all schemas is none of them.
            None => Some(found).filter(|found| found.schema.is_valid(payload)),
        }
    }

    /// Returns the replies that a payload may be if its request is unknown, `found` among them.
    pub(super) fn look_alikes(
        &self,
        found: &MessageType,
        payload: &Value,
        way: FrameDirection,
    ) -> impl Iterator<Item = &MessageType> {
        let conditions = found.matcher.condition_count();
        self.messages.iter().filter(move |other| {
            other.typed_by_request && other.matcher.condition_count() == conditions && other.recognises(payload, way)
        })
    }

    /// Whether a payload that was recognised as the message `found` is also the message `wanted`: the same message, or a
    /// more general one.
    pub fn is_message(&self, wanted: usize, found: Option<usize>, payload: &Value, way: FrameDirection) -> bool {
        let message = &self.messages[wanted];
        if message.typed_by_request { found == Some(wanted) } else { message.recognises(payload, way) }
    }
}
