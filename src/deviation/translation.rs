//! Translates messages between the form of the document and that of the hub.

use std::cmp::Reverse;
use std::sync::Arc;

use serde_json::Value;

use super::place::{change_everywhere, contains_place, expand_pointer, first_item_pointer, split_at_innermost_list};
use super::{Absence, AbsenceTrigger, Deviation, DeviationChange, Deviations, SightingsByEntry};
use crate::protocol::{FrameDirection, Pack};
use crate::scenario::compose::{has_place, merge_overrides, put_at_pointer, remove_members};
use crate::scenario::functions::FunctionContext;
use crate::scenario::template::{EvalContext, Template};
use crate::scenario::value::{BoundValue, RawMessage};
use crate::syntax::matcher::{self, member_pointer};

/// A message in another form, and the indices of the entries that applied.
#[derive(Clone, Debug, PartialEq)]
pub struct TranslatedMessage {
    pub json: Value,
    pub by: Vec<usize>,
}

/// The names that an expression of an entry sees.
struct DeviationContext<'a> {
    names: &'a [(&'a str, &'a Value)],
    functions: &'a Arc<FunctionContext>,
}

impl EvalContext for DeviationContext<'_> {
    fn lookup(&self, name: &str) -> Option<BoundValue> {
        let found = self.names.iter().find(|(known, _)| *known == name)?;
        Some(BoundValue::from_value(found.1.clone()))
    }

    fn function_context(&self) -> &Arc<FunctionContext> {
        self.functions
    }
}

impl Deviations {
    /// Translates a received message to the form of the document; returns `None` if no entry applies.
    pub fn translate_received(
        &self,
        pack: &Pack,
        raw: &Value,
        functions: &Arc<FunctionContext>,
    ) -> Option<TranslatedMessage> {
        let mut done = TranslatedMessage { json: Value::Null, by: Vec::new() };
        // An entry may make the message recognisable for another one, in any order.
        loop {
            let json = if done.by.is_empty() { raw } else { &done.json };
            let open = self.received_order.iter().filter(|index| !done.by.contains(index));
            let Some((index, json)) = open.copied().find_map(|index| {
                let entry = &self.entries[index];
                let documented = entry.to_documented_form(pack, json, functions)?;
                let is_it = entry.applies_to(|message| pack.messages[message].matcher.fits(&documented));
                is_it.then_some((index, documented))
            }) else {
                break;
            };
            done.json = json;
            done.by.push(index);
        }
        (!done.by.is_empty()).then_some(done)
    }

    /// Returns the entry whose translation fixes a message: the first one, in the order applied, after which `breaks`
    /// no longer holds, or else the last.
    ///
    /// # Panics
    ///
    /// If `by` is empty.
    pub fn responsible_entry(
        &self,
        pack: &Pack,
        raw: &Value,
        by: &[usize],
        functions: &Arc<FunctionContext>,
        breaks: impl Fn(&Value) -> bool,
    ) -> usize {
        let mut json = raw.clone();
        let (last, others) = by.split_last().expect("an entry applied");
        let mends = |index: &&usize| {
            if let Some(translated) = self.entries[**index].to_documented_form(pack, &json, functions) {
                json = translated;
            }
            !breaks(&json)
        };
        *others.iter().find(mends).unwrap_or(last)
    }

    /// Translates a message that will be sent to the form of the hub; returns `None` if no entry applies.
    pub fn translate_sent(
        &self,
        pack: &Pack,
        documented: &Value,
        functions: &Arc<FunctionContext>,
    ) -> Option<TranslatedMessage> {
        let mut done = TranslatedMessage { json: Value::Null, by: Vec::new() };
        for index in &self.sent_order {
            let (index, entry) = (*index, &self.entries[*index]);
            if !entry.applies_to(|message| pack.messages[message].matcher.fits(documented)) {
                continue;
            }
            let json = if done.by.is_empty() { documented } else { &done.json };
            if let Some(json) = entry.to_hub_form(pack, json, functions) {
                done.json = json;
                done.by.push(index);
            }
        }
        (!done.by.is_empty()).then_some(done)
    }

    /// Translates the text of a message that will be sent. A text with a duplicate member stays unchanged: its value
    /// would lose one of the two.
    pub fn translate_sent_text(
        &self,
        pack: &Pack,
        text: &str,
        functions: &Arc<FunctionContext>,
    ) -> Option<TranslatedMessage> {
        if self.is_empty() {
            return None;
        }
        let json: Value = serde_json::from_str(text).ok()?;
        // A duplicate member makes the text have more members than its value.
        if count_members_in_text(text) != count_members(&json) {
            return None;
        }
        self.translate_sent(pack, &json, functions)
    }

    /// Returns the members that the hub left out of a message and that are assumed whatever the message says: the index
    /// of the entry, and the place in the message. `raw` is the message before its translation.
    pub fn assumed_members(&self, raw: &Value, translated: &TranslatedMessage) -> Vec<(usize, String)> {
        let missing = |index: &usize| match &self.entries[*index].change {
            DeviationChange::Missing { member, assume, .. } if !assume.as_deref().is_some_and(uses_message) => {
                Some((*index, member))
            }
            _ => None,
        };
        let places = |(index, member): (usize, &String)| {
            let places = expand_pointer(&translated.json, member).into_iter();
            let left_out = places.filter(|place| raw.pointer(place).is_none());
            left_out.map(|place| (index, place)).collect::<Vec<_>>()
        };
        translated.by.iter().filter_map(missing).flat_map(places).collect()
    }

    /// Returns the index of the entry that converted the value at this place of a translated message.
    pub fn converting_entry(&self, documented: &Value, raw: &RawMessage, place: &str) -> Option<usize> {
        raw.by.iter().copied().find(|index| match &self.entries[*index].change {
            DeviationChange::Converted { member, from_hub: Some(_), .. } => {
                expand_pointer(documented, member).iter().any(|outer| contains_place(outer, place))
            }
            _ => false,
        })
    }

    /// Whether an entry applies only to messages to the hub, so that no frame from the hub can show it.
    pub fn is_only_sent(&self, pack: &Pack, index: usize) -> bool {
        let entry = &self.entries[index];
        !entry.way.from_hub || entry.messages().any(|message| !pack.messages[message].directions.from_hub)
    }

    /// Counts in `seen` which entries applied to a received message, and which it contradicts because it has the
    /// documented form. `json` is the message in the form of the document, `by` lists the entries that translated it.
    pub fn count_sightings(
        &self,
        pack: &Pack,
        json: &Value,
        by: &[usize],
        functions: &Arc<FunctionContext>,
        seen: &mut SightingsByEntry,
    ) {
        let found = pack.recognise(json, FrameDirection::FromHub).and_then(|found| pack.message_index(&found.name));
        // A special form of a message is another message: it does not show how the hub writes that one.
        let is_about = |message: usize| {
            found == Some(message) || pack.messages[message].abstract_ && pack.messages[message].matcher.fits(json)
        };
        for (index, entry) in self.entries.iter().enumerate().filter(|(_, entry)| entry.way.from_hub) {
            if by.contains(&index) {
                seen.entry(index).or_default().observed += 1;
            } else if entry.applies_to(is_about) && entry.is_contradicted_by(json, functions) {
                seen.entry(index).or_default().contradicted += 1;
            }
        }
    }

    /// Returns the messages that never come after a connection opens, each with the index of its entry.
    pub fn absent_messages_after_connection(
        &self,
        pack: &Pack,
        functions: &Arc<FunctionContext>,
    ) -> Vec<(usize, Value)> {
        self.absent_messages(pack, &Value::Null, functions, |after| after == AbsenceTrigger::Connection)
    }

    /// Returns the messages that never come after this one, each with the index of its entry.
    pub fn absent_messages_after(
        &self,
        pack: &Pack,
        request: &Value,
        functions: &Arc<FunctionContext>,
    ) -> Vec<(usize, Value)> {
        self.absent_messages(pack, request, functions, |after| match after {
            AbsenceTrigger::Connection => false,
            AbsenceTrigger::Message(message) => pack.messages[message].matcher.fits(request),
        })
    }

    /// Returns the indices of the entries by which the hub may now close the connection instead of answering: after a
    /// connection opened, or after this request.
    pub fn closes_after<'s>(&'s self, pack: &'s Pack, request: Option<&'s Value>) -> impl Iterator<Item = usize> + 's {
        let closes = move |(index, entry): (usize, &Arc<Deviation>)| {
            let DeviationChange::Closes { after: Some(after), when, .. } = &entry.change else { return None };
            let follows = match (after, request) {
                (AbsenceTrigger::Connection, None) => true,
                (AbsenceTrigger::Message(message), Some(request)) => {
                    pack.messages[*message].matcher.fits(request) && when.as_ref().is_none_or(|when| when.fits(request))
                }
                _ => false,
            };
            follows.then_some(index)
        };
        self.entries.iter().enumerate().filter_map(closes)
    }

    fn absent_messages(
        &self,
        pack: &Pack,
        request: &Value,
        functions: &Arc<FunctionContext>,
        follows: impl Fn(AbsenceTrigger) -> bool,
    ) -> Vec<(usize, Value)> {
        let entries = self.entries.iter().enumerate();
        let absences = entries.flat_map(|(index, entry)| entry.absences().iter().map(move |absence| (index, absence)));
        let absent = |(index, Absence { message, after, when, assume, fresh }): (usize, &Absence)| {
            if !follows(*after) || !when.as_ref().is_none_or(|when| when.fits(request)) {
                return None;
            }
            let message = &pack.messages[*message];
            let mut value = message.starting_value();
            fresh.iter().for_each(|members| members.renew(message, &mut value, functions));
            // If the expression fails, the example stays as it is.
            let assumed =
                assume.eval(&DeviationContext { names: &[("request", request)], functions }).unwrap_or(Value::Null);
            merge_overrides(&mut value, &assumed);
            Some((index, value))
        };
        absences.filter_map(absent).collect()
    }
}

impl Deviation {
    /// Returns the messages to which the entry applies; none if it applies to all messages.
    pub fn messages(&self) -> impl Iterator<Item = usize> {
        let one = match &self.change {
            DeviationChange::Instead { message, .. }
            | DeviationChange::NeverSent { message }
            | DeviationChange::Closes { message, .. } => Some(*message),
            DeviationChange::Spelled { message, .. }
            | DeviationChange::Missing { message, .. }
            | DeviationChange::Renamed { message, .. }
            | DeviationChange::Added { message, .. }
            | DeviationChange::Converted { message, .. } => *message,
            DeviationChange::Absent { .. } | DeviationChange::Upgrade(_) | DeviationChange::Setting { .. } => None,
        };
        self.absences().iter().map(|absence| absence.message).chain(one)
    }

    /// Whether the entry applies to all messages, or names one of these.
    fn applies_to(&self, is_such: impl Fn(usize) -> bool) -> bool {
        let mut named = self.messages().peekable();
        named.peek().is_none() || named.any(is_such)
    }

    /// Whether the entry names this message.
    pub fn names(&self, message: usize) -> bool {
        self.messages().any(|one| one == message)
    }

    /// Returns the sort key of the entry for sent messages: other forms of the whole message come first, then the
    /// deepest members; a rename comes after other changes at the same depth.
    pub(super) fn sending_order(&self) -> (Reverse<usize>, bool) {
        let depth = |member: &str| member.matches('/').count();
        match &self.change {
            DeviationChange::Renamed { member, .. } => (Reverse(depth(member)), true),
            DeviationChange::Spelled { member, .. }
            | DeviationChange::Missing { member, .. }
            | DeviationChange::Added { member, .. }
            | DeviationChange::Converted { member, .. } => (Reverse(depth(member)), false),
            DeviationChange::Instead { .. }
            | DeviationChange::Absent { .. }
            | DeviationChange::NeverSent { .. }
            | DeviationChange::Closes { .. }
            | DeviationChange::Upgrade(_)
            | DeviationChange::Setting { .. } => (Reverse(usize::MAX), false),
        }
    }

    /// Returns the documented form of a message from the hub; `None` if this entry does not apply.
    fn to_documented_form(&self, pack: &Pack, json: &Value, functions: &Arc<FunctionContext>) -> Option<Value> {
        match &self.change {
            DeviationChange::Instead { message, like } => {
                let has = |(name, want): (&String, &Value)| {
                    matcher::child(json, name).is_some_and(|found| matcher::find_difference(want, found, "").is_none())
                };
                let literals = pack.messages[*message].matcher.literal_members();
                (like.iter().all(has) && !literals.iter().all(has)).then(|| {
                    let others = like.keys().filter(|name| !literals.contains_key(*name));
                    let others: Vec<String> = others.map(|name| member_pointer(name)).collect();
                    let mut json = json.clone();
                    // Without an element, the others would have other places.
                    if json.is_object() {
                        remove_members(&mut json, &others);
                    }
                    merge_overrides(&mut json, &Value::Object(literals));
                    json
                })
            }
            DeviationChange::Spelled { member, value, spelled, .. } => {
                change_everywhere(json, member, |json, place| {
                    if json.pointer(place) == Some(spelled) && spelled != value {
                        put_at_pointer(json.to_mut(), place, value.clone());
                    }
                })
            }
            DeviationChange::Renamed { member, renamed, .. } => move_member(json, renamed, member),
            DeviationChange::Missing { message, member, assume } => {
                if !json.is_object() && !json.is_array() {
                    return None;
                }
                let documented = match message {
                    Some(message) => &pack.messages[*message],
                    None => pack.recognise(json, FrameDirection::FromHub)?,
                };
                let example = documented.starting_value().pointer(&first_item_pointer(member)).cloned();
                // Only a message that has the member in the document can lack it.
                if message.is_none() && example.is_none() {
                    return None;
                }
                // If the expression fails, the value of the example is used.
                let assume = assume
                    .as_ref()
                    .and_then(|assume| assume.eval(&DeviationContext { names: &[("message", json)], functions }).ok());
                let value = assume.or(example).unwrap_or(Value::Null);
                change_everywhere(json, member, |json, place| {
                    if json.pointer(place).is_none() && has_place(json, place) {
                        put_at_pointer(json.to_mut(), place, value.clone());
                    }
                })
            }
            DeviationChange::Added { member, .. } => without_member(json, member),
            DeviationChange::Converted { member, from_hub, .. } => {
                convert_member(json, member, from_hub.as_deref()?, functions)
            }
            DeviationChange::Absent { .. }
            | DeviationChange::NeverSent { .. }
            | DeviationChange::Closes { .. }
            | DeviationChange::Upgrade(_)
            | DeviationChange::Setting { .. } => None,
        }
    }

    /// Returns the hub's form of a documented message; `None` if this entry does not apply.
    fn to_hub_form(&self, pack: &Pack, json: &Value, functions: &Arc<FunctionContext>) -> Option<Value> {
        match &self.change {
            DeviationChange::Instead { message, like } => {
                let mut json = json.clone();
                let documented = pack.messages[*message].matcher.literal_members();
                let gone: Vec<String> = documented
                    .keys()
                    .filter(|name| !like.contains_key(*name))
                    .map(|name| member_pointer(name))
                    .collect();
                if json.is_object() {
                    remove_members(&mut json, &gone);
                }
                merge_overrides(&mut json, &Value::Object(like.clone()));
                Some(json)
            }
            // The two values swap: a value that is not documented must stay unknown to the hub.
            DeviationChange::Spelled { member, value, spelled, .. } => {
                change_everywhere(json, member, |json, place| {
                    let other = match json.pointer(place) {
                        Some(found) if found == value => spelled,
                        Some(found) if found == spelled => value,
                        _ => return,
                    };
                    put_at_pointer(json.to_mut(), place, other.clone());
                })
            }
            DeviationChange::Renamed { member, renamed, .. } => move_member(json, member, renamed),
            DeviationChange::Missing { member, .. } => without_member(json, member),
            DeviationChange::Added { member, added, .. } => change_everywhere(json, member, |json, place| {
                if (json.is_object() || json.is_array()) && has_place(json, place) {
                    put_at_pointer(json.to_mut(), place, added.clone());
                }
            }),
            DeviationChange::Converted { member, to_hub, .. } => {
                convert_member(json, member, to_hub.as_deref()?, functions)
            }
            DeviationChange::Absent { .. }
            | DeviationChange::NeverSent { .. }
            | DeviationChange::Closes { .. }
            | DeviationChange::Upgrade(_)
            | DeviationChange::Setting { .. } => None,
        }
    }

    /// Whether a message that the entry left unchanged shows that the hub follows its document.
    fn is_contradicted_by(&self, json: &Value, functions: &Arc<FunctionContext>) -> bool {
        let values = |member: &str| expand_pointer(json, member).into_iter().filter_map(|place| json.pointer(&place));
        match &self.change {
            DeviationChange::Instead { .. }
            | DeviationChange::NeverSent { .. }
            | DeviationChange::Closes { after: None, .. } => true,
            DeviationChange::Spelled { member, value, .. } => values(member).any(|found| found == value),
            DeviationChange::Renamed { member, .. } | DeviationChange::Missing { member, .. } => {
                values(member).next().is_some()
            }
            DeviationChange::Added { message, .. } => message.is_some(),
            DeviationChange::Converted { member, from_hub: Some(from_hub), .. } => {
                values(member).next().is_some() && convert_member(json, member, from_hub, functions).is_none()
            }
            // A message contradicts an entry with `after` if it comes in time; see `interpreter::deviation`.
            DeviationChange::Absent { .. }
            | DeviationChange::Closes { .. }
            | DeviationChange::Converted { .. }
            | DeviationChange::Upgrade(_)
            | DeviationChange::Setting { .. } => false,
        }
    }

    /// Describes the difference in one line.
    pub fn describe(&self, pack: &Pack) -> String {
        let of = |message: &Option<usize>| match message {
            Some(message) => format!("`{}`", pack.messages[*message].name),
            None => "all messages".to_owned(),
        };
        match &self.change {
            DeviationChange::Instead { message, like } => {
                format!("{} is recognised by {}", of(&Some(*message)), Value::Object(like.clone()))
            }
            DeviationChange::Spelled { message, member, value, spelled } => {
                format!("{member} of {}: {spelled} in place of {value}", of(message))
            }
            DeviationChange::Renamed { message, member, renamed } => {
                format!("{member} of {} is {renamed}", of(message))
            }
            DeviationChange::Missing { message, member, .. } => format!("{member} of {} is missing", of(message)),
            DeviationChange::Added { message, member, .. } => format!("{member} of {} is not documented", of(message)),
            DeviationChange::Converted { message, member, .. } => {
                format!("{member} of {} is of another type", of(message))
            }
            DeviationChange::Absent { absences } => {
                let one = |absence: &Absence| {
                    format!("{} does not follow {}", of(&Some(absence.message)), describe_trigger(absence.after, &of))
                };
                absences.iter().map(one).collect::<Vec<_>>().join(", ")
            }
            DeviationChange::NeverSent { message } => format!("{} is never sent", of(&Some(*message))),
            DeviationChange::Closes { message, after, .. } => {
                let after = after.map(|after| format!(" after {}", describe_trigger(after, &of)));
                format!("the hub closes instead of sending {}{}", of(&Some(*message)), after.unwrap_or_default())
            }
            DeviationChange::Upgrade(change) => change.describe(),
            DeviationChange::Setting { setting, value } => format!("{setting} is {value}"),
        }
    }
}

fn describe_trigger(after: AbsenceTrigger, of: &dyn Fn(&Option<usize>) -> String) -> String {
    match after {
        AbsenceTrigger::Connection => "a connection".to_owned(),
        AbsenceTrigger::Message(message) => of(&Some(message)),
    }
}

/// Whether the value of a missing member follows from the message.
fn uses_message(assume: &Template) -> bool {
    let mut uses = false;
    assume.visit_expressions(&mut |expression| {
        uses |= expression.uses.iter().any(|name| name.split('.').next() == Some("message"));
    });
    uses
}

/// Counts the members of all objects in a JSON text.
fn count_members_in_text(text: &str) -> usize {
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
fn count_members(json: &Value) -> usize {
    match json {
        Value::Object(members) => members.len() + members.values().map(count_members).sum::<usize>(),
        Value::Array(items) => items.iter().map(count_members).sum(),
        _ => 0,
    }
}

/// Removes a member; returns `None` if it does not exist.
fn without_member(json: &Value, member: &str) -> Option<Value> {
    change_everywhere(json, member, |json, place| {
        if json.pointer(place).is_some() {
            remove_members(json.to_mut(), &[place.to_owned()]);
        }
    })
}

/// Moves a member; returns `None` if it does not exist or its new place is taken. Both places are in the same list.
fn move_member(json: &Value, from: &str, to: &str) -> Option<Value> {
    let (inside_from, inside_to) = (split_at_innermost_list(from).1, split_at_innermost_list(to).1);
    change_everywhere(json, from, |json, from| {
        let to = format!("{}{inside_to}", &from[..from.len() - inside_from.len()]);
        if let Some(value) = json.pointer(from).filter(|_| json.pointer(&to).is_none() && has_place(json, &to)).cloned()
        {
            remove_members(json.to_mut(), &[from.to_owned()]);
            put_at_pointer(json.to_mut(), &to, value);
        }
    })
}

/// Converts a member; returns `None` if it is absent, cannot be converted, or stays the same.
fn convert_member(json: &Value, member: &str, by: &Template, functions: &Arc<FunctionContext>) -> Option<Value> {
    change_everywhere(json, member, |json, place| {
        let Some(value) = json.pointer(place) else { return };
        let converted = by.eval(&DeviationContext { names: &[("value", value), ("message", json)], functions }).ok();
        if let Some(converted) = converted.filter(|converted| converted != value) {
            put_at_pointer(json.to_mut(), place, converted);
        }
    })
}
