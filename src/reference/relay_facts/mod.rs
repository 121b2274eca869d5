//! Derives the facts that the relay needs from a pack: how to recognise each message of the hub, which of its members
//! are required, constant or closed, and which repeat an id. The relay (in `reference-server/`) gets them as plain
//! data.

use std::collections::BTreeSet;

use hubproof_reference::fault::Cond;
use hubproof_reference::relay::mutation::{Fact, Message, Property};
use regex::Regex;
use serde_json::Value;

use crate::protocol::{Level, MessageType, Pack};
use crate::syntax::matcher::{Condition, escape};

/// Facts about the messages that a hub of this protocol sends.
#[derive(Debug, Default)]
pub struct Known {
    pub messages: Vec<Message>,
    /// Messages that the relay cannot recognise.
    pub strange: Vec<String>,
}

/// Returns the facts about a pack. Leaks the conditions, a few kilobytes per pack, because the relay needs them
/// `'static`.
pub fn of(pack: &Pack) -> Known {
    let sent: Vec<(&MessageType, Option<Vec<Cond>>)> =
        (pack.messages.iter()).filter(|message| message.directions.from_hub).map(|m| (m, conditions(m))).collect();
    let mut known = Known::default();
    for (index, (message, own)) in sent.iter().enumerate() {
        // The most specific message comes first, as when the pack itself recognises a frame.
        let rank = |message: &MessageType| (!message.abstract_, message.matcher.conditions());
        let before = sent.iter().enumerate().filter(|(other, (candidate, _))| {
            rank(candidate) > rank(message) || (*other < index && rank(candidate) == rank(message))
        });
        let others: Option<Vec<&Vec<Cond>>> = before.map(|(_, (_, conditions))| conditions.as_ref()).collect();
        match (own, others) {
            (Some(own), Some(others)) => {
                let mut when = own.clone();
                let others = others.into_iter().filter(|other| !contradict(own, other));
                when.extend(others.map(|other| Cond::Not(other.clone().leak())));
                known.messages.push(Message {
                    name: message.name.clone(),
                    when: when.leak(),
                    facts: facts(pack, message),
                });
            }
            _ => known.strange.push(message.name.clone()),
        }
    }
    known
}

/// Whether no frame can meet both conditions.
fn contradict(one: &[Cond], other: &[Cond]) -> bool {
    let constant = |cond: &Cond| if let Cond::Equals(pointer, value) = *cond { Some((pointer, value)) } else { None };
    one.iter().filter_map(constant).any(|(pointer, value)| {
        other.iter().filter_map(constant).any(|(at, another)| at == pointer && another != value)
    })
}

/// Returns the conditions that recognise a message; `None` if the relay cannot express them.
fn conditions(message: &MessageType) -> Option<Vec<Cond>> {
    let mut all = Vec::new();
    for condition in message.matcher.conditions_at() {
        match condition {
            Condition::Is(pointer, value) => all.push(Cond::Equals(keep(&pointer), keep_value(value))),
            Condition::Absent(pointer) => all.push(Cond::Lacks(keep(pointer))),
            Condition::Present(pointer) => all.push(Cond::Has(keep(pointer))),
            Condition::Fits { pointer, optional, schema } => {
                let pointer = keep(pointer);
                let mut fits = vec![Cond::Has(pointer)];
                fits.extend(fitting(pointer, schema)?);
                match optional {
                    false => all.extend(fits),
                    // If the member exists, its value must fit.
                    true => all.push(Cond::Not(vec![Cond::Has(pointer), Cond::Not(fits.leak())].leak())),
                }
            }
        }
    }
    Some(all)
}

/// Converts a member's schema; returns `None` if it uses keywords other than `const`, `type`, `pattern` and `not`.
fn fitting(pointer: &'static str, schema: &Value) -> Option<Vec<Cond>> {
    let mut all = Vec::new();
    for (keyword, value) in schema.as_object()? {
        all.push(match keyword.as_str() {
            "const" => Cond::Equals(pointer, keep_value(value)),
            "type" => Cond::Type(pointer, keep(value.as_str()?)),
            "pattern" => Cond::Matches(pointer, Box::leak(Box::new(Regex::new(value.as_str()?).ok()?))),
            "not" => Cond::Not(fitting(pointer, value)?.leak()),
            _ => return None,
        });
    }
    Some(all)
}

fn keep(text: &str) -> &'static str {
    text.to_owned().leak()
}

fn keep_value(value: &Value) -> &'static Value {
    Box::leak(Box::new(value.clone()))
}

/// Returns the facts about a message's members.
fn facts(pack: &Pack, message: &MessageType) -> Vec<Fact> {
    let mut found = BTreeSet::new();
    stated(pack, &message.schema.source, "", true, &mut found);
    // Only a reply repeats an id; the id of a request is the client's own.
    if let Some(member) = message.correlation.clone().filter(|_| message.replies.is_empty()) {
        found.insert(Fact { member, of: Property::Echoed, must: false });
    }
    found.into_iter().collect()
}

/// Collects everything that the schema demands unconditionally (outside `x-should`), with the innermost rules it names.
fn stated(pack: &Pack, schema: &Value, at: &str, outer: bool, found: &mut BTreeSet<Fact>) {
    let level = |rule: &Value| pack.rules.get(rule.as_str()?).map(|rule| rule.level == Level::Must);
    let rules = schema.get("x-rules").and_then(Value::as_array);
    let must = rules.map_or(outer, |rules| rules.iter().filter_map(level).any(|must| must));
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        found.insert(Fact { member: format!("{at}/{}", escape(name)), of: Property::Required, must });
    }
    for (keyword, of) in [("const", Property::Constant), ("enum", Property::Closed)] {
        if schema.get(keyword).is_some() && !at.is_empty() {
            found.insert(Fact { member: at.to_owned(), of, must });
        }
    }
    for (name, member) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        stated(pack, member, &format!("{at}/{}", escape(name)), must, found);
    }
    for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        stated(pack, part, at, must, found);
    }
    if let Some(elements) = schema.get("items") {
        stated(pack, elements, &format!("{at}/*"), must, found);
    }
    for entry in schema.get("x-should").and_then(Value::as_array).into_iter().flatten() {
        let Some(schema) = entry.get("schema") else { continue };
        let mut recommended = BTreeSet::new();
        stated(pack, schema, at, false, &mut recommended);
        found.extend(recommended.into_iter().map(|fact| Fact { must: false, ..fact }));
    }
}

#[cfg(test)]
mod tests;
