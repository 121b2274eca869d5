//! Translates messages between the form of the document and that of the hub.

use std::cmp::Reverse;
use std::sync::Arc;

use serde_json::Value;

use super::place::{everywhere, first, innermost, places};
use super::{After, Change, Deviation, Deviations, Seen, pointer};
use crate::protocol::{Pack, Way};
use crate::scenario::compose::{merge, put, remove};
use crate::scenario::functions::World;
use crate::scenario::template::{Names, Template};
use crate::scenario::value::Bound;
use crate::syntax::matcher;

/// A message in another form, and the indices of the entries that applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Translated {
    pub json: Value,
    pub by: Vec<usize>,
}

/// The names that an expression of an entry sees.
struct Scope<'a> {
    names: &'a [(&'a str, &'a Value)],
    world: &'a Arc<World>,
}

impl Names for Scope<'_> {
    fn lookup(&self, name: &str) -> Option<Bound> {
        let found = self.names.iter().find(|(known, _)| *known == name)?;
        Some(Bound::plain(found.1.clone()))
    }

    fn world(&self) -> &Arc<World> {
        self.world
    }
}

impl Deviations {
    /// Translates a received message to the form of the document; returns `None` if no entry applies.
    pub fn received(&self, pack: &Pack, raw: &Value, world: &Arc<World>) -> Option<Translated> {
        let mut done = Translated { json: Value::Null, by: Vec::new() };
        // An entry may make the message recognisable for another one, in any order.
        loop {
            let json = if done.by.is_empty() { raw } else { &done.json };
            let open = self.entries.iter().enumerate().filter(|(index, _)| !done.by.contains(index));
            let Some((index, json)) = open.filter(|(_, entry)| entry.way.from_hub).find_map(|(index, entry)| {
                let documented = entry.documented(pack, json, world)?;
                let is_it = entry.message().is_none_or(|message| pack.messages[message].matcher.fits(&documented));
                is_it.then_some((index, documented))
            }) else {
                break;
            };
            done.json = json;
            done.by.push(index);
        }
        (!done.by.is_empty()).then_some(done)
    }

    /// Translates a message that will be sent to the form of the hub; returns `None` if no entry applies.
    pub fn sent(&self, pack: &Pack, documented: &Value, world: &Arc<World>) -> Option<Translated> {
        let mut done = Translated { json: Value::Null, by: Vec::new() };
        for index in &self.sent_order {
            let (index, entry) = (*index, &self.entries[*index]);
            if !entry.message().is_none_or(|message| pack.messages[message].matcher.fits(documented)) {
                continue;
            }
            let json = if done.by.is_empty() { documented } else { &done.json };
            if let Some(json) = entry.of_hub(pack, json, world) {
                done.json = json;
                done.by.push(index);
            }
        }
        (!done.by.is_empty()).then_some(done)
    }

    /// Translates the text of a message that will be sent. A text with a duplicate member stays unchanged: its value
    /// would lose one of the two.
    pub fn sent_text(&self, pack: &Pack, text: &str, world: &Arc<World>) -> Option<Translated> {
        if self.is_empty() {
            return None;
        }
        let json: Value = serde_json::from_str(text).ok()?;
        // A duplicate member makes the text have more members than its value.
        if members_in(text) != members_of(&json) {
            return None;
        }
        self.sent(pack, &json, world)
    }

    /// Whether an entry is only about messages to the hub, so that no frame from the hub can show it.
    pub fn is_only_sent(&self, pack: &Pack, index: usize) -> bool {
        let entry = &self.entries[index];
        !entry.way.from_hub || entry.message().is_some_and(|message| !pack.messages[message].directions.from_hub)
    }

    /// Counts in `seen` which entries applied to a received message, and which it contradicts because it has the
    /// documented form. `json` is the message in the form of the document, `by` lists the entries that translated it.
    pub fn count(&self, pack: &Pack, json: &Value, by: &[usize], world: &Arc<World>, seen: &mut Seen) {
        for (index, entry) in self.entries.iter().enumerate().filter(|(_, entry)| entry.way.from_hub) {
            if by.contains(&index) {
                seen.entry(index).or_default().observed += 1;
            } else if entry.message().is_none_or(|message| pack.messages[message].matcher.fits(json))
                && entry.contradicted(json, world)
            {
                seen.entry(index).or_default().contradicted += 1;
            }
        }
    }

    /// Returns the messages that never come after a connection opens, each with the index of its entry.
    pub fn absent_after_connection(&self, pack: &Pack, world: &Arc<World>) -> Vec<(usize, Value)> {
        self.absent(pack, &Value::Null, world, |after| after == After::Connection)
    }

    /// Returns the messages that never come after this one, each with the index of its entry.
    pub fn absent_after(&self, pack: &Pack, request: &Value, world: &Arc<World>) -> Vec<(usize, Value)> {
        self.absent(pack, request, world, |after| match after {
            After::Connection => false,
            After::Message(message) => pack.messages[message].matcher.fits(request),
        })
    }

    fn absent(
        &self,
        pack: &Pack,
        request: &Value,
        world: &Arc<World>,
        follows: impl Fn(After) -> bool,
    ) -> Vec<(usize, Value)> {
        let absent = |(index, entry): (usize, &Arc<Deviation>)| {
            let Change::Absent { message, after, when, assume } = &entry.change else { return None };
            if !follows(*after) || !when.as_ref().is_none_or(|when| when.fits(request)) {
                return None;
            }
            let mut value = pack.messages[*message].template();
            // If the expression fails, the example stays as it is.
            let assumed = assume.eval(&Scope { names: &[("request", request)], world }).unwrap_or(Value::Null);
            merge(&mut value, &assumed);
            Some((index, value))
        };
        self.entries.iter().enumerate().filter_map(absent).collect()
    }
}

impl Deviation {
    /// Returns the message that the entry is about; `None` if it is about all messages.
    pub fn message(&self) -> Option<usize> {
        match &self.change {
            Change::Instead { message, .. } | Change::Absent { message, .. } => Some(*message),
            Change::Spelled { message, .. }
            | Change::Missing { message, .. }
            | Change::Renamed { message, .. }
            | Change::Added { message, .. }
            | Change::Converted { message, .. } => *message,
            Change::Upgrade { .. } | Change::Setting { .. } => None,
        }
    }

    /// Returns the sort key of the entry for sent messages: other forms of the whole message come first, then the
    /// deepest members; a rename comes after other changes at the same depth.
    pub(super) fn rank(&self) -> (Reverse<usize>, bool) {
        let depth = |member: &str| member.matches('/').count();
        match &self.change {
            Change::Renamed { member, .. } => (Reverse(depth(member)), true),
            Change::Spelled { member, .. }
            | Change::Missing { member, .. }
            | Change::Added { member, .. }
            | Change::Converted { member, .. } => (Reverse(depth(member)), false),
            Change::Instead { .. } | Change::Absent { .. } | Change::Upgrade { .. } | Change::Setting { .. } => {
                (Reverse(usize::MAX), false)
            }
        }
    }

    /// Returns the documented form of a message from the hub; `None` if this entry does not apply.
    fn documented(&self, pack: &Pack, json: &Value, world: &Arc<World>) -> Option<Value> {
        match &self.change {
            Change::Instead { message, like } => {
                let has = |(name, want): (&String, &Value)| {
                    json.get(name).is_some_and(|found| matcher::like(want, found, "").is_none())
                };
                let literals = pack.messages[*message].matcher.literals();
                (like.iter().all(has) && !literals.iter().all(has)).then(|| {
                    let others = like.keys().filter(|name| !literals.contains_key(*name));
                    let others: Vec<String> = others.map(|name| pointer(name)).collect();
                    let mut json = json.clone();
                    remove(&mut json, &others);
                    merge(&mut json, &Value::Object(literals));
                    json
                })
            }
            Change::Spelled { member, value, spelled, .. } => everywhere(json, member, |json, place| {
                if json.pointer(place) == Some(spelled) && spelled != value {
                    put(json.to_mut(), place, value.clone());
                }
            }),
            Change::Renamed { member, renamed, .. } => moved(json, renamed, member),
            Change::Missing { message, member, assume } => {
                if !json.is_object() {
                    return None;
                }
                let documented = match message {
                    Some(message) => &pack.messages[*message],
                    None => pack.recognise(json, Way::FromHub)?,
                };
                let example = documented.template().pointer(&first(member)).cloned();
                // Only a message that has the member in the document can lack it.
                if message.is_none() && example.is_none() {
                    return None;
                }
                // If the expression fails, the value of the example is used.
                let assume =
                    assume.as_ref().and_then(|assume| assume.eval(&Scope { names: &[("message", json)], world }).ok());
                let value = assume.or(example).unwrap_or(Value::Null);
                everywhere(json, member, |json, place| {
                    if json.pointer(place).is_none() {
                        put(json.to_mut(), place, value.clone());
                    }
                })
            }
            Change::Added { member, .. } => without(json, member),
            Change::Converted { member, from_hub, .. } => converted(json, member, from_hub.as_deref()?, world),
            Change::Absent { .. } | Change::Upgrade { .. } | Change::Setting { .. } => None,
        }
    }

    /// Returns the hub's form of a documented message; `None` if this entry does not apply.
    fn of_hub(&self, pack: &Pack, json: &Value, world: &Arc<World>) -> Option<Value> {
        match &self.change {
            Change::Instead { message, like } => {
                let mut json = json.clone();
                let documented = pack.messages[*message].matcher.literals();
                let gone: Vec<String> =
                    documented.keys().filter(|name| !like.contains_key(*name)).map(|name| pointer(name)).collect();
                remove(&mut json, &gone);
                merge(&mut json, &Value::Object(like.clone()));
                Some(json)
            }
            // The two values swap: a value that is not documented must stay unknown to the hub.
            Change::Spelled { member, value, spelled, .. } => everywhere(json, member, |json, place| {
                let other = match json.pointer(place) {
                    Some(found) if found == value => spelled,
                    Some(found) if found == spelled => value,
                    _ => return,
                };
                put(json.to_mut(), place, other.clone());
            }),
            Change::Renamed { member, renamed, .. } => moved(json, member, renamed),
            Change::Missing { member, .. } => without(json, member),
            Change::Added { member, added, .. } => everywhere(json, member, |json, place| {
                if json.is_object() {
                    put(json.to_mut(), place, added.clone());
                }
            }),
            Change::Converted { member, to_hub, .. } => converted(json, member, to_hub.as_deref()?, world),
            Change::Absent { .. } | Change::Upgrade { .. } | Change::Setting { .. } => None,
        }
    }

    /// Whether a message to which the entry did not apply shows that the hub follows its document.
    fn contradicted(&self, json: &Value, world: &Arc<World>) -> bool {
        let values = |member: &str| places(json, member).into_iter().filter_map(|place| json.pointer(&place));
        match &self.change {
            Change::Instead { .. } => true,
            Change::Spelled { member, value, .. } => values(member).any(|found| found == value),
            Change::Renamed { member, .. } | Change::Missing { member, .. } => values(member).next().is_some(),
            Change::Added { message, .. } => message.is_some(),
            Change::Converted { member, from_hub: Some(from_hub), .. } => {
                values(member).next().is_some() && converted(json, member, from_hub, world).is_none()
            }
            // An absent message contradicts its entry if it comes in time; see `interpreter::deviation`.
            Change::Absent { .. } | Change::Converted { .. } | Change::Upgrade { .. } | Change::Setting { .. } => false,
        }
    }

    /// Describes the difference in one line.
    pub fn describe(&self, pack: &Pack) -> String {
        let of = |message: &Option<usize>| match message {
            Some(message) => format!("`{}`", pack.messages[*message].name),
            None => "all messages".to_owned(),
        };
        match &self.change {
            Change::Instead { message, like } => {
                format!("{} is recognised by {}", of(&Some(*message)), Value::Object(like.clone()))
            }
            Change::Spelled { message, member, value, spelled } => {
                format!("{member} of {}: {spelled} in place of {value}", of(message))
            }
            Change::Renamed { message, member, renamed } => format!("{member} of {} is {renamed}", of(message)),
            Change::Missing { message, member, .. } => format!("{member} of {} is missing", of(message)),
            Change::Added { message, member, .. } => format!("{member} of {} is not documented", of(message)),
            Change::Converted { message, member, .. } => format!("{member} of {} is of another type", of(message)),
            Change::Absent { message, after, .. } => {
                let after = match after {
                    After::Connection => "a connection".to_owned(),
                    After::Message(message) => of(&Some(*message)),
                };
                format!("{} does not follow {after}", of(&Some(*message)))
            }
            Change::Upgrade { headers, query, subprotocols } => {
                let names = |pairs: &[(String, String)]| pairs.iter().map(|(n, _)| n.clone()).collect::<Vec<_>>();
                let parts =
                    [("header", names(headers)), ("query", names(query)), ("subprotocol", subprotocols.clone())];
                let parts: Vec<String> = parts
                    .iter()
                    .filter(|(_, names)| !names.is_empty())
                    .map(|(what, names)| format!("{what} {}", names.join(", ")))
                    .collect();
                format!("the upgrade needs {}", parts.join(" and "))
            }
            Change::Setting { setting, value } => format!("{setting} is {value}"),
        }
    }
}

/// Counts the members of all objects in a JSON text.
fn members_in(text: &str) -> usize {
    let (mut members, mut inside, mut escaped) = (0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            b':' if !inside => members += 1,
            _ => {}
        }
    }
    members
}

/// Counts the members of all objects in a value.
fn members_of(json: &Value) -> usize {
    match json {
        Value::Object(members) => members.len() + members.values().map(members_of).sum::<usize>(),
        Value::Array(items) => items.iter().map(members_of).sum(),
        _ => 0,
    }
}

/// Removes a member; returns `None` if it does not exist.
fn without(json: &Value, member: &str) -> Option<Value> {
    everywhere(json, member, |json, place| {
        if json.pointer(place).is_some() {
            remove(json.to_mut(), &[place.to_owned()]);
        }
    })
}

/// Moves a member; returns `None` if it does not exist or its new place is taken. Both places are in the same list.
fn moved(json: &Value, from: &str, to: &str) -> Option<Value> {
    let (inside_from, inside_to) = (innermost(from).1, innermost(to).1);
    everywhere(json, from, |json, from| {
        let to = format!("{}{inside_to}", &from[..from.len() - inside_from.len()]);
        if let Some(value) = json.pointer(from).filter(|_| json.pointer(&to).is_none()).cloned() {
            remove(json.to_mut(), &[from.to_owned()]);
            put(json.to_mut(), &to, value);
        }
    })
}

/// Converts a member; returns `None` if it is absent, cannot be converted, or stays the same.
fn converted(json: &Value, member: &str, by: &Template, world: &Arc<World>) -> Option<Value> {
    everywhere(json, member, |json, place| {
        let Some(value) = json.pointer(place) else { return };
        let converted = by.eval(&Scope { names: &[("value", value), ("message", json)], world }).ok();
        if let Some(converted) = converted.filter(|converted| converted != value) {
            put(json.to_mut(), place, converted);
        }
    })
}
