//! Proposes entries for messages that have another form than documented or never come.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::evidence::{DeviationEvidence, MessageOrigin, UnknownMessage};
use super::into_members;
use super::member::normalise_name;
use crate::deviation::parse::AFTER_CONNECTION;
use crate::deviation::{AbsenceTrigger, Deviation, DeviationChange, Deviations};
use crate::protocol::{MessageType, Pack};
use crate::scenario::compose::put_at_pointer;
use crate::syntax::json_schema::json_type;
use crate::syntax::matcher::{MatchCondition, child, member_pointer, members_of};

/// A possible other form of a message; a higher score is more certain.
pub(super) struct MessageForm {
    pub entry: Map<String, Value>,
    pub score: usize,
    /// Number of members in common, without those by which the message is recognised.
    shared: usize,
}

/// Members in common alone give at most this score.
const MIN_FORM_SCORE: usize = 100;

/// Interprets a received message as another form of the expected message, or of one that it resembles more and that
/// never came. Returns `None` if it resembles neither, or if it resembles another message as much as the expected one
/// and may not be an answer.
pub(super) fn best_form(
    pack: &Pack,
    expected: usize,
    UnknownMessage { json: received, answers }: &UnknownMessage,
    evidence: &DeviationEvidence,
) -> Option<MessageForm> {
    let of_expected = form_of_message(pack, expected, received, evidence);
    let least = of_expected.as_ref().map_or(MIN_FORM_SCORE, |form| form.score);
    let others = (0..pack.messages.len()).filter(|other| {
        pack.messages[*other].directions.from_hub && *other != expected && !evidence.messages.contains(other)
    });
    let others = others.filter_map(|other| form_of_message(pack, other, received, evidence));
    let best = others.max_by_key(|other| (other.score, other.shared));
    match (best, of_expected) {
        (Some(best), _) if best.score > least => Some(best),
        // Members in common are all that speaks for either: the message may well have come unasked.
        (Some(best), Some(form))
            if best.score == form.score
                && best.shared >= form.shared
                && form.score <= MIN_FORM_SCORE
                && best.entry != form.entry
                && !answers =>
        {
            None
        }
        (_, of_expected) => of_expected,
    }
}

/// Interprets a received message as another form of this message; returns `None` if there is no resemblance.
fn form_of_message(pack: &Pack, message: usize, received: &Value, evidence: &DeviationEvidence) -> Option<MessageForm> {
    let expected = &pack.messages[message];
    let example = expected.starting_value();
    if !(received.is_object() && example.is_object() || received.is_array() && example.is_array()) {
        return None;
    }
    let literals = expected.matcher.literal_members();
    // The members of the example other than those by which the message is recognised.
    let others = members_of(&example).into_iter().filter(|(name, _)| !literals.contains_key(name));
    let (mut shared, mut all) = (0, 0);
    for (name, documented) in others {
        all += 1;
        let same_type = |found: &Value| json_type(found) == json_type(documented);
        // The elements of an array have no names, so only their types tell them apart.
        shared += usize::from(child(received, &name).is_some_and(|found| received.is_object() || same_type(found)));
    }
    let alike = (shared * 100_usize).checked_div(all).unwrap_or(50);
    let documented: Vec<(String, &Value)> = expected
        .matcher
        .member_conditions()
        .into_iter()
        .filter_map(|condition| match condition {
            MatchCondition::Is(place, value) => Some((place, value)),
            _ => None,
        })
        .collect();
    let same = documented.iter().filter(|(place, value)| received.pointer(place) == Some(value)).count();
    if documented.is_empty() || same == documented.len() {
        return None;
    }
    // Handles the case that a member that identifies the message has another name.
    for (place, value) in
        documented.iter().filter(|(place, value)| value.is_string() && received.pointer(place).is_none())
    {
        let (object, _) = place.rsplit_once('/')?;
        let beside = received.pointer(object).and_then(Value::as_object);
        let elsewhere = beside.into_iter().flatten().find(|(_, found)| found == value);
        if let Some((other, _)) = elsewhere {
            let entry = json!({ "member": place, "renamed": format!("{object}{}", member_pointer(other)) });
            return Some(MessageForm { entry: into_members(entry), score: 300 + alike, shared });
        }
    }
    let mut like = Value::Object(Map::new());
    let mut differing = Vec::new();
    for (place, value) in &documented {
        let found = received.pointer(place).filter(|found| !found.is_object())?;
        put_at_pointer(&mut like, place, found.clone());
        if found != *value {
            differing.push((place, *value, found));
        }
    }
    let alike_words = |(_, documented, found): &&(&String, &Value, &Value)| match (documented.as_str(), found.as_str())
    {
        (Some(documented), Some(found)) => {
            strsim::jaro_winkler(&normalise_name(documented), &normalise_name(found)) > 0.7
        }
        _ => false,
    };
    let resembling = differing.iter().filter(alike_words).count();
    let resembles = resembling > 0;
    // A message that has few members in common with the expected one, and another name, is a different message.
    if alike < 40 && same == 0 && !resembles {
        return None;
    }
    let entry = match differing[..] {
        // A value that several messages share in the document, but that no message of this hub has.
        [(place, value, found)]
            if is_shared_by_messages(pack, place, value) && !is_used_by_hub(pack, place, value, evidence) =>
        {
            json!({ "member": place, "value": value, "spelled": found })
        }
        _ => json!({ "message": expected.name, "instead": like }),
    };
    // If one value is similar and another is not, a message with only the first one fits better.
    let unlike = if resembles { differing.len() - resembling } else { 0 };
    let score = (alike + same * 100 + usize::from(resembles) * 90).saturating_sub(unlike * 60);
    Some(MessageForm { entry: into_members(entry), score, shared })
}

/// Whether several messages of the pack are recognised by this value of a member.
fn is_shared_by_messages(pack: &Pack, place: &str, value: &Value) -> bool {
    pack.messages.iter().filter(|message| is_recognised_by(message, place, value)).count() > 1
}

/// Whether the hub sent a message that is recognised by this value of a member.
fn is_used_by_hub(pack: &Pack, place: &str, value: &Value, evidence: &DeviationEvidence) -> bool {
    evidence.messages.iter().any(|message| is_recognised_by(&pack.messages[*message], place, value))
}

/// Whether a message is recognised by this value of a member.
fn is_recognised_by(message: &MessageType, place: &str, value: &Value) -> bool {
    let is = |condition: &MatchCondition<'_>| matches!(condition, MatchCondition::Is(at, want) if at == place && *want == value);
    message.matcher.member_conditions().iter().any(is)
}

/// Returns the entries for a message that never comes, given what should have made the hub send it on each occasion:
/// one for each request that documents it as a reply, or else one for what all occasions have in common. Returns none
/// for the entries that are already known.
pub(super) fn absence_entries(
    pack: &Pack,
    message: usize,
    origins: &[Option<MessageOrigin>],
    known: &Deviations,
) -> Vec<Map<String, Value>> {
    // Which message is absent is unknown if any of a form would do.
    if pack.messages[message].abstract_ {
        return Vec::new();
    }
    let documented = |origin: &Option<MessageOrigin>| origin.filter(|one| matches!(one, MessageOrigin::Reply(_)));
    let mut found: BTreeSet<MessageOrigin> = origins.iter().filter_map(documented).collect();
    if found.is_empty()
        && let Some((first, rest)) = origins.split_first()
        && rest.iter().all(|origin| origin == first)
    {
        found.extend(first);
    }
    let after = found.into_iter().map(|origin| match origin {
        MessageOrigin::Connection => AbsenceTrigger::Connection,
        MessageOrigin::Reply(request) | MessageOrigin::Unanswered(request) => AbsenceTrigger::Message(request),
    });
    let is_known = |after: AbsenceTrigger| {
        let mut absences = known.entries().iter().flat_map(|entry| entry.absences());
        absences.any(|absence| absence.message == message && absence.after == after)
    };
    after.filter(|after| !is_known(*after)).map(|after| absence_entry(pack, message, after)).collect()
}

/// Returns the entry for a message that never comes after `after`, with what conversations may assume of it.
pub(in crate::deviation) fn absence_entry(pack: &Pack, message: usize, after: AbsenceTrigger) -> Map<String, Value> {
    let expected = &pack.messages[message];
    let request = match after {
        AbsenceTrigger::Message(request) => Some(&pack.messages[request]),
        AbsenceTrigger::Connection => None,
    };
    let name = request.map_or(AFTER_CONNECTION, |request| &request.name);
    let mut entry = into_members(json!({ "message": expected.name, "absent": true, "after": name }));
    if let Some(request) = request {
        let literals = Value::Object(expected.matcher.literal_members());
        let assume = common_members(&expected.starting_value(), &request.starting_value(), &literals, "request");
        entry.extend(assume.map(|assume| ("assume".to_owned(), assume)));
    }
    entry
}

/// Returns the entry for a greeting in whose place another message comes first on every connection; `None` if no such
/// message does, or if an entry about the greeting is known.
pub(super) fn greeting_entry(
    pack: &Pack,
    message: usize,
    evidence: &DeviationEvidence,
    known: &Deviations,
) -> Option<Map<String, Value>> {
    let greeting = evidence.greeting()?;
    let about = |entry: &Deviation| entry.names(message);
    let is_form =
        |entry: &Deviation| matches!(entry.change, DeviationChange::Absent { .. } | DeviationChange::Instead { .. });
    if known.entries().iter().any(|entry| about(entry) && is_form(entry)) {
        return None;
    }
    let mut also_sent_elsewhere = greeting.again || greeting.like.is_empty();
    if let Some(other) = greeting.message.map(|index| &pack.messages[index]).filter(|other| !other.abstract_) {
        let asked_by = pack.messages.iter().filter(|request| request.replies.contains(&other.name)).count();
        // A heartbeat is not a greeting, and a reply to many requests is probably a refusal.
        if other.directions.to_hub || !other.replies.is_empty() || asked_by > 1 {
            return None;
        }
        also_sent_elsewhere |= asked_by > 0;
    }
    Some(if also_sent_elsewhere {
        absence_entry(pack, message, AbsenceTrigger::Connection)
    } else {
        into_members(json!({ "message": pack.messages[message].name, "instead": greeting.like }))
    })
}

/// Returns the members that an answer has in common with its request, as expressions over the request at `place`.
/// Leaves out members by which the answer is recognised; returns `None` if none remain.
fn common_members(answer: &Value, request: &Value, literals: &Value, place: &str) -> Option<Value> {
    if !(answer.is_object() && request.is_object() || answer.is_array() && request.is_array()) {
        return None;
    }
    let common = members_of(answer).into_iter().filter_map(|(name, value)| {
        let place = if answer.is_array() { format!("{place}[{name}]") } else { format!("{place}.{name}") };
        let assumed = match (child(literals, &name), child(request, &name)?) {
            // Elements with the same index need not have the same meaning, unless their examples are equal.
            (None, asked) if answer.is_array() && (asked != value || !(asked.is_string() || asked.is_number())) => {
                return None;
            }
            (None, _) => Value::from(format!("${{{place}}}")),
            (Some(literals), asked) => common_members(value, asked, literals, &place)?,
        };
        Some((name, assumed))
    });
    let common: Map<String, Value> = common.collect();
    (!common.is_empty()).then_some(Value::Object(common))
}
