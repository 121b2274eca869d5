//! Proposes entries for messages that have another form than documented or never come.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::evidence::DeviationEvidence;
use super::into_members;
use super::member::normalise_name;
use crate::deviation::parse::AFTER_CONNECTION;
use crate::deviation::{AbsenceTrigger, Deviations};
use crate::protocol::{MessageType, Pack};
use crate::scenario::compose::put_at_pointer;
use crate::syntax::matcher::{MatchCondition, member_pointer};

/// A possible other form of a message; a higher score is more certain.
pub(super) struct MessageForm {
    pub entry: Map<String, Value>,
    pub score: usize,
}

/// Members in common alone give at most this score.
const MIN_FORM_SCORE: usize = 100;

/// Interprets a received message as another form of the expected message, or of one that it resembles more and that
/// never came; returns `None` if it resembles neither.
pub(super) fn best_form(
    pack: &Pack,
    expected: usize,
    received: &Value,
    evidence: &DeviationEvidence,
) -> Option<MessageForm> {
    let of_expected = form_of_message(pack, expected, received, evidence);
    let least = of_expected.as_ref().map_or(MIN_FORM_SCORE, |form| form.score);
    let others = (0..pack.messages.len()).filter(|other| {
        pack.messages[*other].directions.from_hub && *other != expected && !evidence.messages.contains(other)
    });
    let others = others.filter_map(|other| form_of_message(pack, other, received, evidence));
    others.filter(|other| other.score > least).max_by_key(|other| other.score).or(of_expected)
}

/// Interprets a received message as another form of this message; returns `None` if there is no resemblance.
fn form_of_message(pack: &Pack, message: usize, received: &Value, evidence: &DeviationEvidence) -> Option<MessageForm> {
    let expected = &pack.messages[message];
    let frame = received.as_object()?;
    let literals = expected.matcher.literal_members();
    // The members of the example other than those by which the message is recognised.
    let example = expected.starting_value();
    let others = example.as_object().into_iter().flatten().filter(|(name, _)| !literals.contains_key(*name));
    let (mut shared, mut all) = (0, 0);
    for (name, _) in others {
        all += 1;
        shared += usize::from(frame.contains_key(name));
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
    // The case that a member by which the message is recognised has another name.
    for (place, value) in
        documented.iter().filter(|(place, value)| value.is_string() && received.pointer(place).is_none())
    {
        let (object, _) = place.rsplit_once('/')?;
        let beside = received.pointer(object).and_then(Value::as_object);
        let elsewhere = beside.into_iter().flatten().find(|(_, found)| found == value);
        if let Some((other, _)) = elsewhere {
            let entry = json!({ "member": place, "renamed": format!("{object}{}", member_pointer(other)) });
            return Some(MessageForm { entry: into_members(entry), score: 300 + alike });
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
    Some(MessageForm { entry: into_members(entry), score })
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

/// Returns the entry for a message that never comes after the message that most often preceded its absence; `None` if
/// such entries are already known.
pub(super) fn absence_entry(
    pack: &Pack,
    message: usize,
    after: impl Iterator<Item = Option<usize>>,
    known: &Deviations,
) -> Option<Map<String, Value>> {
    let mut times: BTreeMap<Option<usize>, usize> = BTreeMap::new();
    let is_known = |sent: Option<usize>| {
        let after = sent.map_or(AbsenceTrigger::Connection, AbsenceTrigger::Message);
        known.entries().iter().any(|entry| entry.message() == Some(message) && entry.is_absent_after(after))
    };
    after.filter(|sent| !is_known(*sent)).for_each(|after| *times.entry(after).or_default() += 1);
    let (most, _) = times.into_iter().max_by_key(|(_, times)| *times)?;
    let expected = &pack.messages[message];
    let after = most.map_or(AFTER_CONNECTION, |request| &pack.messages[request].name);
    let mut entry = into_members(json!({ "message": expected.name, "absent": true, "after": after }));
    if let Some(request) = most {
        let literals = Value::Object(expected.matcher.literal_members());
        let assume =
            common_members(&expected.starting_value(), &pack.messages[request].starting_value(), &literals, "request");
        entry.extend(assume.map(|assume| ("assume".to_owned(), assume)));
    }
    Some(entry)
}

/// Returns the members that an answer has in common with its request, as expressions over the request at `place`.
/// Leaves out members by which the answer is recognised; returns `None` if none remain.
fn common_members(answer: &Value, request: &Value, literals: &Value, place: &str) -> Option<Value> {
    let (answer, request) = (answer.as_object()?, request.as_object()?);
    let common = answer.iter().filter_map(|(name, value)| {
        let place = format!("{place}.{name}");
        let assumed = match (literals.get(name), request.get(name)?) {
            (None, _) => Value::from(format!("${{{place}}}")),
            (Some(literals), asked) => common_members(value, asked, literals, &place)?,
        };
        Some((name.clone(), assumed))
    });
    let common: Map<String, Value> = common.collect();
    (!common.is_empty()).then_some(Value::Object(common))
}
