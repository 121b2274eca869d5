//! Derives the facts that the relay needs from a pack: how to recognise each message of the hub, which of its members
//! are required, constant or closed, and which repeat an id. The relay (in `reference-server/`) gets them as plain
//! data.

use std::collections::BTreeSet;

use hubproof_reference::fault::{FaultText, FrameCondition};
use hubproof_reference::relay::mutation::{HubMessage, MemberFact, MemberProperty};
use serde_json::Value;

use crate::generate::pattern;
use crate::protocol::schema::rules_of_keyword;
use crate::protocol::{MessageType, Pack, RuleLevel};
use crate::syntax::json_schema::visit_schemas;
use crate::syntax::matcher::{MatchCondition, child, escape, unescape};

/// Facts about the messages that a hub of this protocol sends.
#[derive(Debug, Default)]
pub struct RelayFacts {
    pub messages: Vec<HubMessage>,
    /// Messages that the relay cannot recognise.
    pub strange: Vec<String>,
}

/// Returns the facts about a pack.
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
                when.extend(others.map(|other| FrameCondition::Not(other.clone())));
                known.messages.push(HubMessage {
                    name: message.name.clone(),
                    when,
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
    fn constant(cond: &FrameCondition) -> Option<(&FaultText, &Value)> {
        if let FrameCondition::Equals(pointer, value) = cond { Some((pointer, value)) } else { None }
    }
    one.iter().filter_map(constant).any(|(pointer, value)| {
        other.iter().filter_map(constant).any(|(at, another)| at == pointer && another != value)
    })
}

/// Returns the conditions that recognise a message; `None` if the relay cannot express them.
fn message_conditions(message: &MessageType) -> Option<Vec<FrameCondition>> {
    let mut all = Vec::new();
    for condition in message.matcher.member_conditions() {
        match condition {
            MatchCondition::Is(pointer, value) => all.push(FrameCondition::Equals(pointer.into(), value.clone())),
            MatchCondition::Absent(pointer) => all.push(FrameCondition::Lacks(text(pointer))),
            MatchCondition::Present(pointer) => all.push(FrameCondition::Has(text(pointer))),
            MatchCondition::Fits { pointer, optional, schema } => {
                let mut fits = vec![FrameCondition::Has(text(pointer))];
                fits.extend(schema_conditions(pointer, schema)?);
                match optional {
                    false => all.extend(fits),
                    // If the member exists, its value must fit.
                    true => all
                        .push(FrameCondition::Not(vec![FrameCondition::Has(text(pointer)), FrameCondition::Not(fits)])),
                }
            }
        }
    }
    Some(all)
}

fn text(text: &str) -> FaultText {
    text.to_owned().into()
}

/// Converts a member's schema; returns `None` if it uses keywords other than `const`, `type`, `pattern` and `not`.
fn schema_conditions(pointer: &str, schema: &Value) -> Option<Vec<FrameCondition>> {
    let mut all = Vec::new();
    for (keyword, value) in schema.as_object()? {
        all.push(match keyword.as_str() {
            "const" => FrameCondition::Equals(text(pointer), value.clone()),
            "type" => FrameCondition::Type(text(pointer), text(value.as_str()?)),
            "pattern" => FrameCondition::Matches(text(pointer), pattern::compile(value.as_str()?)?),
            "not" => FrameCondition::Not(schema_conditions(pointer, value)?),
            _ => return None,
        });
    }
    Some(all)
}

/// Returns the facts about a message's members.
fn message_facts(pack: &Pack, message: &MessageType) -> Vec<MemberFact> {
    let mut found = BTreeSet::new();
    visit_schemas(&message.schema.source, "", &mut |schema, at| {
        add_facts(pack, &message.schema.source, schema, at, &mut found)
    });
    // Only a reply repeats an id; the id of a request is the client's own.
    if let Some(member) = message.correlation.clone().filter(|_| message.replies.is_empty()) {
        found.insert(MemberFact { member, of: MemberProperty::Echoed, must: false });
    }
    found.into_iter().collect()
}

/// Adds what one schema inside a message's schema demands unconditionally, with the innermost rules around it.
fn add_facts(pack: &Pack, source: &Value, schema: &Value, schema_path: &str, found: &mut BTreeSet<MemberFact>) {
    let Some((at, recommended)) = unconditional_place(source, schema_path) else { return };
    let is_must = |rule: &String| pack.rules.get(rule.as_str()).is_some_and(|rule| rule.level == RuleLevel::Must);
    let rules = rules_of_keyword(source, schema_path);
    let must = !recommended && (rules.is_empty() || rules.iter().any(is_must));
    let mut add = |member: String, of: MemberProperty| {
        found.insert(MemberFact { member, of, must });
    };
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        add(format!("{at}/{}", escape(name)), MemberProperty::Required);
    }
    for (keyword, of) in [("const", MemberProperty::Constant), ("enum", MemberProperty::Closed)] {
        if schema.get(keyword).is_some() && !at.is_empty() {
            add(at.clone(), of);
        }
    }
    // An array in which some elements have a schema of their own is a record: its elements are like members.
    let record = schema.get("prefixItems").and_then(Value::as_array).map_or(0, Vec::len);
    let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or_default() as usize;
    (0..record.min(least)).for_each(|index| add(format!("{at}/{index}"), MemberProperty::Required));
}

/// Returns the place to which a schema inside a message's schema applies in every message, and whether it only
/// recommends; `None` if it does not apply in every message.
fn unconditional_place(source: &Value, schema_path: &str) -> Option<(String, bool)> {
    let (mut at, mut recommended, mut schema) = (String::new(), false, source);
    let mut tokens = schema_path.split('/').skip(1);
    while let Some(keyword) = tokens.next() {
        let inner = schema.get(keyword)?;
        schema = match keyword {
            "items" if schema.get("prefixItems").is_none() => {
                at.push_str("/*");
                inner
            }
            "properties" | "prefixItems" => {
                let token = tokens.next()?;
                at.push_str(&format!("/{token}"));
                child(inner, &unescape(token))?
            }
            "allOf" => child(inner, tokens.next()?)?,
            "x-should" => {
                recommended = true;
                child(inner, tokens.next()?)?.get(tokens.next()?)?
            }
            _ => return None,
        };
    }
    Some((at, recommended))
}

#[cfg(test)]
mod tests;
