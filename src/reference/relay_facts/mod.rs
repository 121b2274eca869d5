//! Derives the facts that the relay needs from a pack: how to recognise each message of the hub, which of its members
//! are required, constant or closed, and which repeat an id. The relay (in `reference-server/`) gets them as plain
//! data.

use std::collections::BTreeSet;

use hubproof_reference::fault::FrameCondition;
use hubproof_reference::relay::mutation::{HubMessage, MemberFact, MemberProperty};
use serde_json::Value;

use crate::generate::pattern;
use crate::protocol::{MessageType, Pack, RuleLevel};
use crate::syntax::matcher::{MatchCondition, escape};

/// Facts about the messages that a hub of this protocol sends.
#[derive(Debug, Default)]
pub struct RelayFacts {
    pub messages: Vec<HubMessage>,
    /// Messages that the relay cannot recognise.
    pub strange: Vec<String>,
}

/// Returns the facts about a pack. Leaks the conditions, a few kilobytes per pack, because the relay needs them
/// `'static`.
pub fn relay_facts(pack: &Pack) -> RelayFacts {
    let sent: Vec<(&MessageType, Option<Vec<FrameCondition>>)> = (pack.messages.iter())
        .filter(|message| message.directions.from_hub)
        .map(|m| (m, message_conditions(m)))
        .collect();
    let mut known = RelayFacts::default();
    for (index, (message, own)) in sent.iter().enumerate() {
        // The most specific message comes first, as when the pack itself recognises a frame.
        let rank = |message: &MessageType| (!message.abstract_, message.matcher.condition_count());
        let before = sent.iter().enumerate().filter(|(other, (candidate, _))| {
            rank(candidate) > rank(message) || (*other < index && rank(candidate) == rank(message))
        });
        let others: Option<Vec<&Vec<FrameCondition>>> =
            before.map(|(_, (_, conditions))| conditions.as_ref()).collect();
        match (own, others) {
            (Some(own), Some(others)) => {
                let mut when = own.clone();
                let others = others.into_iter().filter(|other| !are_contradictory(own, other));
                when.extend(others.map(|other| FrameCondition::Not(other.clone().leak())));
                known.messages.push(HubMessage {
                    name: message.name.clone(),
                    when: when.leak(),
                    facts: message_facts(pack, message),
                });
            }
            _ => known.strange.push(message.name.clone()),
        }
    }
    known
}

/// Whether no frame can meet both conditions.
fn are_contradictory(one: &[FrameCondition], other: &[FrameCondition]) -> bool {
    let constant = |cond: &FrameCondition| {
        if let FrameCondition::Equals(pointer, value) = *cond { Some((pointer, value)) } else { None }
    };
    one.iter().filter_map(constant).any(|(pointer, value)| {
        other.iter().filter_map(constant).any(|(at, another)| at == pointer && another != value)
    })
}

/// Returns the conditions that recognise a message; `None` if the relay cannot express them.
fn message_conditions(message: &MessageType) -> Option<Vec<FrameCondition>> {
    let mut all = Vec::new();
    for condition in message.matcher.member_conditions() {
        match condition {
            MatchCondition::Is(pointer, value) => {
                all.push(FrameCondition::Equals(leak_text(&pointer), leak_value(value)))
            }
            MatchCondition::Absent(pointer) => all.push(FrameCondition::Lacks(leak_text(pointer))),
            MatchCondition::Present(pointer) => all.push(FrameCondition::Has(leak_text(pointer))),
            MatchCondition::Fits { pointer, optional, schema } => {
                let pointer = leak_text(pointer);
                let mut fits = vec![FrameCondition::Has(pointer)];
                fits.extend(schema_conditions(pointer, schema)?);
                match optional {
                    false => all.extend(fits),
                    // If the member exists, its value must fit.
                    true => all.push(FrameCondition::Not(
                        vec![FrameCondition::Has(pointer), FrameCondition::Not(fits.leak())].leak(),
                    )),
                }
            }
        }
    }
    Some(all)
}

/// Converts a member's schema; returns `None` if it uses keywords other than `const`, `type`, `pattern` and `not`.
fn schema_conditions(pointer: &'static str, schema: &Value) -> Option<Vec<FrameCondition>> {
    let mut all = Vec::new();
    for (keyword, value) in schema.as_object()? {
        all.push(match keyword.as_str() {
            "const" => FrameCondition::Equals(pointer, leak_value(value)),
            "type" => FrameCondition::Type(pointer, leak_text(value.as_str()?)),
            "pattern" => FrameCondition::Matches(pointer, Box::leak(Box::new(pattern::compile(value.as_str()?)?))),
            "not" => FrameCondition::Not(schema_conditions(pointer, value)?.leak()),
            _ => return None,
        });
    }
    Some(all)
}

fn leak_text(text: &str) -> &'static str {
    text.to_owned().leak()
}

fn leak_value(value: &Value) -> &'static Value {
    Box::leak(Box::new(value.clone()))
}

/// Returns the facts about a message's members.
fn message_facts(pack: &Pack, message: &MessageType) -> Vec<MemberFact> {
    let mut found = BTreeSet::new();
    collect_facts(pack, &message.schema.source, "", true, &mut found);
    // Only a reply repeats an id; the id of a request is the client's own.
    if let Some(member) = message.correlation.clone().filter(|_| message.replies.is_empty()) {
        found.insert(MemberFact { member, of: MemberProperty::Echoed, must: false });
    }
    found.into_iter().collect()
}

/// Collects everything that the schema demands unconditionally (outside `x-should`), with the innermost rules it names.
fn collect_facts(pack: &Pack, schema: &Value, at: &str, outer: bool, found: &mut BTreeSet<MemberFact>) {
    let level = |rule: &Value| pack.rules.get(rule.as_str()?).map(|rule| rule.level == RuleLevel::Must);
    let rules = schema.get("x-rules").and_then(Value::as_array);
    let must = rules.map_or(outer, |rules| rules.iter().filter_map(level).any(|must| must));
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        found.insert(MemberFact { member: format!("{at}/{}", escape(name)), of: MemberProperty::Required, must });
    }
    for (keyword, of) in [("const", MemberProperty::Constant), ("enum", MemberProperty::Closed)] {
        if schema.get(keyword).is_some() && !at.is_empty() {
            found.insert(MemberFact { member: at.to_owned(), of, must });
        }
    }
    for (name, member) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        collect_facts(pack, member, &format!("{at}/{}", escape(name)), must, found);
    }
    for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        collect_facts(pack, part, at, must, found);
    }
    // An array in which some elements have a schema of their own is a record: its elements are like members.
    let record = schema.get("prefixItems").and_then(Value::as_array);
    let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or_default();
    for (index, element) in record.into_iter().flatten().enumerate() {
        let member = format!("{at}/{index}");
        if (index as u64) < least {
            found.insert(MemberFact { member: member.clone(), of: MemberProperty::Required, must });
        }
        collect_facts(pack, element, &member, must, found);
    }
    if let Some(elements) = schema.get("items").filter(|_| record.is_none()) {
        collect_facts(pack, elements, &format!("{at}/*"), must, found);
    }
    for entry in schema.get("x-should").and_then(Value::as_array).into_iter().flatten() {
        let Some(schema) = entry.get("schema") else { continue };
        let mut recommended = BTreeSet::new();
        collect_facts(pack, schema, at, false, &mut recommended);
        found.extend(recommended.into_iter().map(|fact| MemberFact { must: false, ..fact }));
    }
}

#[cfg(test)]
mod tests;
