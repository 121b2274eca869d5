//! Proposes deviations: entries behind which a run would have gone on.
//!
//! An expected message that never came may have another form, or the hub does not send it at all. What came in its place,
//! and fits no message of the pack, shows which.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::parse::CONNECTION;
use super::place::{at, general};
use super::{After, Deviations, pointer};
use crate::protocol::schema::{Violation, ViolationKind};
use crate::protocol::{MessageType, Pack};
use crate::scenario::compose::put;
use crate::syntax::matcher::{Condition, unescape};

/// Something that a conversation expected and did not get, though the hub could be reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Missed {
    pub what: MissedKind,
    /// The rules of the step that expected it.
    pub rules: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum MissedKind {
    /// A message, by its index in the pack.
    Message {
        message: usize,
        /// The message that the client had sent last; `None`: it had only connected.
        after: Option<usize>,
        /// Received messages that are not documented and no step expected.
        instead: Vec<Value>,
        /// Received messages of this kind that were not as expected.
        near: Vec<Value>,
        /// Whether the hub gave an answer of another kind, such as a refusal: then it has not left one out.
        answered: bool,
    },
    /// An upgrade: the hub refused it with this answer.
    Upgrade { status: u64, answer: String },
}

/// Of what a hub sent, whether expected or not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Messages, by their indices in the pack.
    pub messages: BTreeSet<usize>,
    /// Names of members, as the hub spells them; not those of objects in members.
    pub members: BTreeSet<String>,
    /// By message, the first that broke its schema.
    pub broken: BTreeMap<usize, Value>,
    /// Members that were absent or had another value where a check needed them, by their places.
    pub unfit: BTreeMap<String, Unfit>,
}

/// The first message in which a member was not as a check needed it.
#[derive(Clone, Debug, PartialEq)]
pub struct Unfit {
    /// Its index in the pack, if it was recognised.
    pub message: Option<usize>,
    pub json: Value,
    /// The rules of all such checks.
    pub rules: BTreeSet<String>,
}

/// Most names of members that are kept: a hub may invent any number.
const MOST_MEMBERS: usize = 500;

impl Evidence {
    /// Adds a message as the hub sent it, with its index in the pack.
    pub fn add_message(&mut self, message: Option<usize>, json: &Value) {
        self.messages.extend(message);
        for name in json.as_object().into_iter().flatten().map(|(name, _)| name) {
            if self.members.len() < MOST_MEMBERS && name.len() < 100 && !self.members.contains(name) {
                self.members.insert(name.clone());
            }
        }
    }

    /// Adds a message that broke its schema, with its index in the pack.
    pub fn add_broken(&mut self, message: usize, json: &Value) {
        self.broken.entry(message).or_insert_with(|| json.clone());
    }

    /// Adds a member that was not as a check of these rules needed it, and its message.
    pub fn add_unfit(
        &mut self,
        place: String,
        message: Option<usize>,
        json: &Value,
        rules: impl Iterator<Item = String>,
    ) {
        let new = || Unfit { message, json: json.clone(), rules: BTreeSet::new() };
        self.unfit.entry(place).or_insert_with(new).rules.extend(rules);
    }

    /// Whether a message was not as documented, though no conversation had to end at it.
    pub fn is_of_another_form(&self) -> bool {
        !self.broken.is_empty() || !self.unfit.is_empty()
    }

    /// Adds what another conversation received.
    pub fn add(&mut self, other: &Self) {
        self.messages.extend(&other.messages);
        self.members.extend(other.members.iter().cloned());
        for (message, json) in &other.broken {
            self.add_broken(*message, json);
        }
        for (place, Unfit { message, json, rules }) in &other.unfit {
            self.add_unfit(place.clone(), *message, json, rules.iter().cloned());
        }
    }
}

/// An entry for a target file that the run could go on behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// The entry, with a reason to fill in.
    pub entry: Value,
    /// Whether a run can go on with it as it is: it has no value that only the user knows.
    pub complete: bool,
    /// The messages that it makes up for; none for an upgrade.
    pub messages: BTreeSet<usize>,
}

/// The reason of a proposed entry, for its author to fill in.
pub const REASON: &str = "TODO: why does the hub depart here?";
/// The value of a header or query that only the user knows.
pub const UNKNOWN: &str = "TODO";

/// A time when a message was missed; the members are those of [`MissedKind::Message`].
struct Occasion<'a> {
    rules: &'a [String],
    after: Option<usize>,
    instead: &'a [Value],
    near: &'a [Value],
    answered: bool,
}

/// Returns the proposals for what was missed. `known` are the deviations that were declared or assumed.
pub fn propose(pack: &Pack, missed: &[&Missed], evidence: &Evidence, known: &Deviations) -> Vec<Proposal> {
    let mut by_message: BTreeMap<usize, Vec<Occasion<'_>>> = BTreeMap::new();
    let mut proposals = Vec::new();
    for Missed { what, rules } in missed {
        match what {
            MissedKind::Message { message, after, instead, near, answered } => {
                let occasion = Occasion { rules, after: *after, instead, near, answered: *answered };
                by_message.entry(*message).or_default().push(occasion);
            }
            MissedKind::Upgrade { status, answer } => {
                proposals.extend(upgrade(*status, answer).filter(|proposal| !proposals.contains(proposal)));
            }
        }
    }
    // Each entry, and the messages that it makes up for.
    let mut found: Vec<(Map<String, Value>, BTreeSet<usize>)> = Vec::new();
    let mut add = |message: usize, entry: Option<Map<String, Value>>| {
        let Some(entry) = entry else { return };
        match found.iter_mut().find(|(other, _)| *other == entry) {
            Some((_, messages)) => drop(messages.insert(message)),
            None => found.push((entry, BTreeSet::from([message]))),
        }
    };
    for (message, all) in by_message.iter().filter(|(message, _)| !evidence.messages.contains(message)) {
        let frames = all.iter().flat_map(|one| one.instead);
        let best = frames.filter_map(|frame| form(pack, *message, frame, evidence)).max_by_key(|form| form.score);
        let entry = match best {
            Some(form) => Some(form.entry),
            None => absent(pack, *message, all.iter().filter(|one| !one.answered).map(|one| one.after), known),
        };
        add(*message, entry);
    }
    for (message, all) in &by_message {
        let near = all.iter().flat_map(|one| one.near);
        let entries = near.map(|frame| different(pack, *message, frame, true, evidence)).find(|all| !all.is_empty());
        entries.into_iter().flatten().for_each(|entry| add(*message, Some(entry)));
    }
    // Another form of a message does not always end a conversation.
    for (message, frame) in evidence.broken.iter().filter(|(message, _)| !by_message.contains_key(message)) {
        let all = different(pack, *message, frame, false, evidence);
        all.into_iter().filter(|entry| !entry.contains_key("missing")).for_each(|entry| add(*message, Some(entry)));
    }
    for (message, entry) in lacking(pack, evidence) {
        add(message, Some(entry));
    }
    let mut rules_of: Vec<(Map<String, Value>, &BTreeSet<String>)> = Vec::new();
    for (place, unfit) in &evidence.unfit {
        let Some(message) = unfit.message else { continue };
        if let Some(entry) = fitting(&pack.messages[message], place, &unfit.json, evidence) {
            add(message, Some(entry.clone()));
            rules_of.push((entry, &unfit.rules));
        }
    }
    // What has another name, or is missing in all messages, is not missing in one.
    let better: Vec<(Value, bool)> = found
        .iter()
        .filter(|(entry, _)| entry.contains_key("renamed") || !entry.contains_key("message"))
        .map(|(entry, _)| (entry.get("member").cloned().unwrap_or_default(), entry.contains_key("renamed")))
        .collect();
    found.retain(|(entry, _)| {
        let member = entry.get("member").cloned().unwrap_or_default();
        let in_one = entry.contains_key("message");
        !entry.contains_key("missing")
            || !better.iter().any(|(other, renamed)| *other == member && (*renamed || in_one))
    });
    found.retain(|(entry, _)| !known.entries().iter().any(|known| change(&known.entry) == *entry));
    proposals.extend(found.into_iter().map(|(entry, messages)| {
        let is_about =
            |message: &&usize| entry.get("message").is_none_or(|name| *name == pack.messages[**message].name);
        let occasions = messages.iter().filter(is_about).filter_map(|message| by_message.get(message)).flatten();
        let named = rules_of.iter().filter(|(other, _)| *other == entry).flat_map(|(_, rules)| *rules);
        let rules = occasions.flat_map(|one| one.rules).chain(named).collect();
        proposal(entry, messages, &rules)
    }));
    proposals
}

/// Returns the entries for members that several messages must have and that this hub sends in none, each with the messages.
fn lacking(pack: &Pack, evidence: &Evidence) -> Vec<(usize, Map<String, Value>)> {
    let mut messages_of: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for (message, frame) in &evidence.broken {
        for violation in pack.messages[*message].schema.judge(frame).into_iter().filter(|one| one.path.is_empty()) {
            match violation.kind {
                ViolationKind::Absence { member } if !evidence.members.contains(&member) => {
                    messages_of.entry(member).or_default().insert(*message);
                }
                _ => {}
            }
        }
    }
    let several = messages_of.into_iter().filter(|(_, messages)| messages.len() > 1);
    let entries = several.flat_map(|(member, messages)| {
        let entry = members(json!({ "member": pointer(&member), "missing": true, "direction": "from-hub" }));
        messages.into_iter().map(move |message| (message, entry.clone()))
    });
    entries.collect()
}

/// Returns what an entry says is different, without reason and rules.
fn change(entry: &Value) -> Map<String, Value> {
    let mut entry = members(entry.clone());
    entry.retain(|name, _| name != "reason" && name != "rules");
    entry
}

/// Completes an entry; `rules` are those of the steps that expected the messages that it is about.
fn proposal(mut entry: Map<String, Value>, messages: BTreeSet<usize>, rules: &BTreeSet<&String>) -> Proposal {
    if !rules.is_empty() {
        entry.insert("rules".to_owned(), json!(rules));
    }
    entry.insert("reason".to_owned(), Value::from(REASON));
    Proposal { entry: Value::Object(entry), complete: true, messages }
}

/// Another form of a message, and how sure it is: higher is surer.
struct Form {
    entry: Map<String, Value>,
    score: usize,
}

/// A score above this is not that of members in common alone.
const ALIKE: usize = 100;

/// Returns the form that a received message would be of an expected one, or of one that never came and resembles it more;
/// `None` where it resembles none.
fn form(pack: &Pack, expected: usize, received: &Value, evidence: &Evidence) -> Option<Form> {
    let of_expected = form_of(pack, expected, received, evidence);
    let least = of_expected.as_ref().map_or(ALIKE, |form| form.score);
    let others = (0..pack.messages.len()).filter(|other| {
        pack.messages[*other].directions.from_hub && *other != expected && !evidence.messages.contains(other)
    });
    let others = others.filter_map(|other| form_of(pack, other, received, evidence));
    others.filter(|other| other.score > least).max_by_key(|other| other.score).or(of_expected)
}

/// Returns the form that a received message would be of this one; `None` where it resembles it in nothing.
fn form_of(pack: &Pack, message: usize, received: &Value, evidence: &Evidence) -> Option<Form> {
    let expected = &pack.messages[message];
    let frame = received.as_object()?;
    let literals = expected.matcher.literals();
    // Members that the example has beside those by which the message is recognised.
    let example = expected.template();
    let others = example.as_object().into_iter().flatten().filter(|(name, _)| !literals.contains_key(*name));
    let (mut shared, mut all) = (0, 0);
    for (name, _) in others {
        all += 1;
        shared += usize::from(frame.contains_key(name));
    }
    let alike = (shared * 100_usize).checked_div(all).unwrap_or(50);
    let documented: Vec<(String, &Value)> = expected
        .matcher
        .conditions_at()
        .into_iter()
        .filter_map(|condition| match condition {
            Condition::Is(place, value) => Some((place, value)),
            _ => None,
        })
        .collect();
    let same = documented.iter().filter(|(place, value)| received.pointer(place) == Some(value)).count();
    if documented.is_empty() || same == documented.len() {
        return None;
    }
    // A member that tells messages apart has another name.
    for (place, value) in
        documented.iter().filter(|(place, value)| value.is_string() && received.pointer(place).is_none())
    {
        let (object, _) = place.rsplit_once('/')?;
        let beside = received.pointer(object).and_then(Value::as_object);
        let elsewhere = beside.into_iter().flatten().find(|(_, found)| found == value);
        if let Some((other, _)) = elsewhere {
            let entry = json!({ "member": place, "renamed": format!("{object}{}", pointer(other)) });
            return Some(Form { entry: members(entry), score: 300 + alike });
        }
    }
    let mut like = Value::Object(Map::new());
    let mut resembles = false;
    let mut differing = Vec::new();
    for (place, value) in &documented {
        let found = received.pointer(place).filter(|found| !found.is_object())?;
        put(&mut like, place, found.clone());
        if found != *value {
            differing.push((place, *value, found));
        }
        resembles |= match (value.as_str(), found.as_str()) {
            (Some(documented), Some(found)) if documented != found => {
                strsim::jaro_winkler(&plain(documented), &plain(found)) > 0.7
            }
            _ => false,
        };
    }
    // A message that has no member in common with the expected one, and another name, is something else.
    if alike < 40 && same == 0 && !resembles {
        return None;
    }
    let entry = match differing[..] {
        // One word that many messages have, and none of this hub.
        [(place, value, found)] if is_shared(pack, place, value) && !is_used(pack, place, value, evidence) => {
            json!({ "member": place, "value": value, "spelled": found })
        }
        _ => json!({ "message": expected.name, "instead": like }),
    };
    Some(Form { entry: members(entry), score: alike + same * 100 + usize::from(resembles) * 90 })
}

/// Whether several messages are recognised by this value of a member.
fn is_shared(pack: &Pack, place: &str, value: &Value) -> bool {
    pack.messages.iter().filter(|message| has(message, place, value)).count() > 1
}

/// Whether the hub sent a message that is recognised by this value of a member.
fn is_used(pack: &Pack, place: &str, value: &Value, evidence: &Evidence) -> bool {
    evidence.messages.iter().any(|message| has(&pack.messages[*message], place, value))
}

/// Whether a message is recognised by this value of a member.
fn has(message: &MessageType, place: &str, value: &Value) -> bool {
    let is = |condition: &Condition<'_>| matches!(condition, Condition::Is(at, want) if at == place && *want == value);
    message.matcher.conditions_at().iter().any(is)
}

/// Returns the entries for members of a message that have another name, type or value than documented, or are missing; none
/// where it is not clear which. `missed`: a step did not find what it expected in it, and perhaps its schema allows it.
fn different(pack: &Pack, message: usize, frame: &Value, missed: bool, evidence: &Evidence) -> Vec<Map<String, Value>> {
    let expected = &pack.messages[message];
    let example = expected.template();
    let mut objects = Vec::new();
    collect_objects(expected, "", &example, frame, &mut objects);
    let violations = expected.schema.judge(frame);
    let broken: Vec<(String, &Violation)> = violations.iter().map(|one| (general(frame, &one.path), one)).collect();
    let lacks = |place: &str, name: &str| {
        let absent = |kind: &ViolationKind| matches!(kind, ViolationKind::Absence { member } if member == name);
        broken.iter().any(|(at, violation)| at == place && absent(&violation.kind))
    };
    let breaks = |place: &str| broken.iter().any(|(at, _)| at == place);
    let mut found: Vec<Value> =
        objects.iter().flat_map(|beside| renamed(beside, |place, name| missed && lacks(place, name))).collect();
    found.extend(objects.iter().flat_map(|beside| retyped(expected, beside, breaks)));
    if found.is_empty() && missed {
        let first = objects.iter().find_map(|beside| renamed(beside, |_, _| true).into_iter().next());
        found.extend(
            first.or_else(|| objects.iter().find_map(|beside| retyped(expected, beside, |_| true).into_iter().next())),
        );
    }
    if found.is_empty() {
        found.extend(violations.iter().find_map(|violation| violated(expected, frame, violation)));
    }
    // Items of one list show the same.
    let mut entries: Vec<Map<String, Value>> = Vec::new();
    for entry in found.into_iter().map(|entry| about(expected, entry, evidence)) {
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    entries
}

/// Completes an entry about a member of a message by the message, unless it holds for all of them.
fn about(message: &MessageType, entry: Value, evidence: &Evidence) -> Map<String, Value> {
    // A hub that never uses the documented name has renamed it in all messages, and in those that it reads.
    let name = entry["member"].as_str().and_then(|place| place.strip_prefix('/')).unwrap_or_default();
    let everywhere =
        entry.get("renamed").is_some() && !name.contains('/') && !evidence.members.contains(&unescape(name));
    let mut all = if everywhere { Map::new() } else { members(json!({ "message": message.name })) };
    all.extend(members(entry));
    all
}

/// Returns the entry by which a member would be as a check needs it: the message has it under a similar name that is not
/// documented, or in another type.
fn fitting(message: &MessageType, place: &str, json: &Value, evidence: &Evidence) -> Option<Map<String, Value>> {
    let (object, name) = place.rsplit_once('/')?;
    let received = json.pointer(object)?.as_object()?;
    let member = general(json, place);
    let entry = if let Some(value) = json.pointer(place) {
        let example = message.template();
        let documented = example.pointer(&at(&member, &[]))?;
        conversion(message, &member, documented, value)?
    } else {
        let names: Vec<String> = object.split('/').skip(1).map(unescape).collect();
        let documented = message.schema.members(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let others = received.keys().filter(|other| !documented.contains(other));
        let alike = others.map(|other| (strsim::jaro_winkler(&plain(&unescape(name)), &plain(other)), other));
        let (_, other) = alike.filter(|(likeness, _)| *likeness > 0.85).max_by(|a, b| a.0.total_cmp(&b.0))?;
        json!({ "member": member, "renamed": format!("{}{}", general(json, object), pointer(other)) })
    };
    Some(about(message, entry, evidence))
}

/// An object of a received message, beside that of the example.
struct Beside<'a> {
    /// A JSON pointer, with `*` for every item of a list.
    place: String,
    documented: &'a Map<String, Value>,
    received: &'a Map<String, Value>,
}

/// Most items of a list that are compared with the example.
const MOST_ITEMS: usize = 10;

/// Collects an object at a place and those in it of which the schema names members: others may have any.
fn collect_objects<'a>(
    expected: &MessageType,
    place: &str,
    documented: &'a Value,
    received: &'a Value,
    into: &mut Vec<Beside<'a>>,
) {
    match (documented, received) {
        (Value::Object(documented), Value::Object(received)) => {
            let names: Vec<String> = at(place, &[]).split('/').skip(1).map(unescape).collect();
            let path: Vec<&str> = names.iter().map(String::as_str).collect();
            if !path.is_empty() && expected.schema.members(&path).is_empty() {
                return;
            }
            into.push(Beside { place: place.to_owned(), documented, received });
            for (name, value) in documented {
                if let Some(received) = received.get(name) {
                    collect_objects(expected, &format!("{place}{}", pointer(name)), value, received, into);
                }
            }
        }
        (Value::Array(documented), Value::Array(received)) => {
            let Some(documented) = documented.first() else { return };
            for received in received.iter().take(MOST_ITEMS) {
                collect_objects(expected, &format!("{place}/*"), documented, received, into);
            }
        }
        _ => {}
    }
}

/// Returns the entries for members that have another name. Where the names are not alike, there is one candidate, and `lacks`
/// says that the documented member is missing at a place.
fn renamed(Beside { place, documented, received }: &Beside<'_>, lacks: impl Fn(&str, &str) -> bool) -> Vec<Value> {
    let absent: Vec<_> = documented.iter().filter(|(name, _)| !received.contains_key(*name)).collect();
    let unknown: Vec<_> = received.iter().filter(|(name, _)| !documented.contains_key(*name)).collect();
    let kind = |value: &Value| std::mem::discriminant(value);
    // Of several, the names tell which belong together.
    let mut pairs: Vec<(f64, &String, &String)> = absent
        .iter()
        .flat_map(|(name, value)| unknown.iter().map(move |(other, found)| (*name, *value, *other, *found)))
        .filter(|(_, value, _, found)| kind(value) == kind(found))
        .map(|(name, _, other, _)| (strsim::jaro_winkler(&plain(name), &plain(other)), name, other))
        .filter(|(likeness, name, _)| {
            *likeness > 0.75 || (absent.len() == 1 && unknown.len() == 1 && lacks(place, name))
        })
        .collect();
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut entries = Vec::new();
    let mut used: Vec<&String> = Vec::new();
    for (_, name, other) in pairs {
        if !used.contains(&name) && !used.contains(&other) {
            used.extend([name, other]);
            let at = |name: &str| format!("{place}{}", pointer(name));
            entries.push(json!({ "member": at(name), "renamed": at(other) }));
        }
    }
    entries
}

/// Returns the entries for members that have another type, where `breaks` says that this is wrong at a place.
fn retyped(expected: &MessageType, beside: &Beside<'_>, breaks: impl Fn(&str) -> bool) -> Vec<Value> {
    let entry = |(name, value): (&String, &Value)| {
        let member = format!("{}{}", beside.place, pointer(name));
        breaks(&member).then(|| conversion(expected, &member, value, beside.received.get(name)?)).flatten()
    };
    beside.documented.iter().filter_map(entry).collect()
}

/// Returns the entry for a member whose value has another type than in the example; `None` where it has not.
fn conversion(message: &MessageType, member: &str, documented: &Value, received: &Value) -> Option<Value> {
    let (from_hub, to_hub) = match (documented, received) {
        (Value::Number(example), Value::String(text)) if text.parse::<f64>().is_ok_and(f64::is_finite) => {
            let place = at(member, &[]);
            let names: Vec<String> = place.split('/').skip(1).map(unescape).collect();
            let path: Vec<&str> = names.iter().map(String::as_str).collect();
            // Other messages may have a fraction.
            let whole = !example.is_f64() && text.parse::<i64>().is_ok() && !message.schema.is_any_number(&path);
            (if whole { "${value | int}" } else { "${value | float}" }, "${value | string}")
        }
        (Value::String(_), Value::Number(_)) => ("${value | string}", "${value | int}"),
        _ => return None,
    };
    Some(json!({ "member": member, "from_hub": from_hub, "to_hub": to_hub }))
}

/// Returns the entry for a member that is missing, or has a value that is spelled otherwise.
fn violated(expected: &MessageType, frame: &Value, violation: &Violation) -> Option<Value> {
    let place = general(frame, &violation.path);
    let mut entry = match &violation.kind {
        ViolationKind::Absence { member } => {
            json!({ "member": format!("{place}{}", pointer(member)), "missing": true })
        }
        ViolationKind::Value { allowed } => {
            let spelled = frame.pointer(&violation.path)?;
            let likeness =
                |value: &Value| Some(strsim::jaro_winkler(&plain(value.as_str()?), &plain(spelled.as_str()?)));
            let (_, value) = allowed
                .iter()
                .filter_map(|value| Some((likeness(value)?, value)))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|(likeness, _)| *likeness > 0.7 || allowed.len() == 1)?;
            json!({ "member": place, "value": value, "spelled": spelled })
        }
        ViolationKind::Other => return None,
    };
    // What a frame of the hub shows says nothing about what the hub reads.
    if expected.directions.to_hub {
        entry["direction"] = Value::from("from-hub");
    }
    Some(entry)
}

/// Returns a name without case and separators, so that `jobId` and `job_id` are equal.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Returns the entry for a message that never comes after what was sent most often before it was missed; `None` where that
/// is known.
fn absent(
    pack: &Pack,
    message: usize,
    after: impl Iterator<Item = Option<usize>>,
    known: &Deviations,
) -> Option<Map<String, Value>> {
    let mut times: BTreeMap<Option<usize>, usize> = BTreeMap::new();
    let is_known = |sent: Option<usize>| {
        let after = sent.map_or(After::Connection, After::Message);
        known.entries().iter().any(|entry| entry.message() == Some(message) && entry.is_absent_after(after))
    };
    after.filter(|sent| !is_known(*sent)).for_each(|after| *times.entry(after).or_default() += 1);
    let (most, _) = times.into_iter().max_by_key(|(_, times)| *times)?;
    let expected = &pack.messages[message];
    let after = most.map_or(CONNECTION, |request| &pack.messages[request].name);
    let mut entry = members(json!({ "message": expected.name, "absent": true, "after": after }));
    if let Some(request) = most {
        let literals = Value::Object(expected.matcher.literals());
        let assume = answered(&expected.template(), &pack.messages[request].template(), &literals, "request");
        entry.extend(assume.map(|assume| ("assume".to_owned(), assume)));
    }
    Some(entry)
}

/// Returns the members that an answer has in common with its request, as expressions over the request at `place`, without
/// those by which the answer is recognised; `None` without any.
fn answered(answer: &Value, request: &Value, literals: &Value, place: &str) -> Option<Value> {
    let (answer, request) = (answer.as_object()?, request.as_object()?);
    let common = answer.iter().filter_map(|(name, value)| {
        let place = format!("{place}.{name}");
        let assumed = match (literals.get(name), request.get(name)?) {
            (None, _) => Value::from(format!("${{{place}}}")),
            (Some(literals), asked) => answered(value, asked, literals, &place)?,
        };
        Some((name.clone(), assumed))
    });
    let common: Map<String, Value> = common.collect();
    (!common.is_empty()).then_some(Value::Object(common))
}

/// Returns the entry that a refused upgrade may need: its values only the user knows.
fn upgrade(status: u64, answer: &str) -> Option<Proposal> {
    if !matches!(status, 400 | 401 | 403 | 426) {
        return None;
    }
    // A header that the answer names.
    let words = answer.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let named = words.filter(|word| word.len() > 2).find(|word| {
        let word = word.to_ascii_lowercase();
        word.starts_with("x-") || word == "authorization" || word.ends_with("-token") || word.ends_with("-key")
    });
    let header = named.unwrap_or("Authorization");
    let mut headers = Map::new();
    headers.insert(header.to_owned(), Value::from(UNKNOWN));
    let entry = json!({ "upgrade": { "headers": headers }, "reason": REASON });
    Some(Proposal { entry, complete: false, messages: BTreeSet::new() })
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// Returns entries as the text of a target file.
pub fn to_toml(entries: &[&Value]) -> String {
    let mut text = String::new();
    for entry in entries {
        let table: toml::Table =
            entry.as_object().into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), toml(v)?))).collect();
        text.push_str("[[deviation]]\n");
        // Values first: a table in braces stays on its line, so that an entry can be moved as a whole.
        for (name, value) in &table {
            text.push_str(&format!("{name} = {value}\n"));
        }
        text.push('\n');
    }
    text
}

fn toml(value: &Value) -> Option<toml::Value> {
    toml::Value::try_from(value).ok()
}
