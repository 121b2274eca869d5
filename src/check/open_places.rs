//! Finds the places of a scenario's messages in which the hub passes on what it gets, for variations that send unusual
//! values there. A play of the scenario as it is written shows them: the hub sent the value of such a place whole, and
//! nothing else that contains it. When in doubt, a place does not count as open.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;

use crate::generate::schema_shape::SchemaShape;
use crate::outcome::{FrameKind, HistoryDirection, HookCallReport, ScenarioReport};
use crate::protocol::{FrameDirection, MessageType, Pack};
use crate::scenario::Program;
use crate::scenario::fences::judging_templates;
use crate::scenario::functions::FUNCTION_NAMES;
use crate::scenario::model::{Step, StepAction};
use crate::scenario::template::{Template, TemplateExpression};
use crate::scenario::unusual_values::{OpenPlace, OpenPlaces, ValueKind, ValueSwap, is_made_up};
use crate::scenario::variation::Variation;
use crate::syntax::matcher::{are_equal, members_of, unescape};

/// The functions that make a text of another in such a way that it cannot be found in it.
const HIDING: [&str; 6] = ["next_of", "sha256", "base64", "unbase64", "hex", "chunks"];
/// The least length of a text that is hardly in two messages by chance.
const MIN_TELLING: usize = 4;

/// The bytes of a message that most hubs accept, and how many objects a message is expected to have.
const USUAL_LIMIT: usize = 1_000_000;
const OBJECTS_OF_A_MESSAGE: usize = 4;
/// The least number of bytes to which a setting may limit messages.
const LEAST_LIMIT: u64 = 256;

/// A message and a pointer into it.
type Place = (String, String);

/// A message that was sent or received, or what a hook passed to the hub.
struct PlayedMessage<'p> {
    received: bool,
    json: Value,
    message: Option<&'p MessageType>,
    way: FrameDirection,
}

/// Where a value was seen.
#[derive(Default)]
struct ValueUse {
    open: BTreeSet<Place>,
    /// Whether it was also where no other value may stand, or in the hub's messages before it was sent.
    fixed: bool,
    /// Whether the hub sent it whole.
    passed_on: bool,
}

/// Returns the places in which a hub passes on what it gets, by a play of the scenario as it is written.
pub fn find_open_places(
    program: &Program,
    plain: &ScenarioReport,
    kind: ValueKind,
    settings: &BTreeMap<String, Value>,
) -> OpenPlaces {
    let mut hasher = DefaultHasher::new();
    program.id.hash(&mut hasher);
    let (turn, most_chars) = ((hasher.finish() % 1_000) as usize, size_limit(settings) / OBJECTS_OF_A_MESSAGE);
    let mut found = OpenPlaces { turn, most_chars, ..OpenPlaces::default() };
    let play = Play::read(program, plain);
    if plain.history_dropped > 0 || plain.hook_calls.is_none() || plain.claims.is_none() {
        return found;
    }
    if kind.takes_names() && !hides_names(program) {
        found.places.extend(play.places_of_names());
    }
    if kind.takes_objects() {
        let of_names = std::mem::take(&mut found.places);
        let objects = play.places_of_objects(settings).into_iter().enumerate().map(|(index, place)| OpenPlace {
            message: place.0,
            pointer: place.1,
            group: of_names.len() + index,
            fixed: BTreeSet::new(),
        });
        let is_new = |place: &OpenPlace| {
            !of_names.iter().any(|one| one.message == place.message && one.pointer == place.pointer)
        };
        found.places = objects.filter(is_new).collect();
        found.places.extend(of_names);
    }
    // Outer places come first: what is in them is swapped with them.
    found.places.sort();
    if play.stays_valid(kind, &found) { found } else { OpenPlaces::default() }
}

/// Returns how many bytes messages may have, as far as settings tell by their names.
fn size_limit(settings: &BTreeMap<String, Value>) -> usize {
    let is_limit = |name: &str| ["limit", "bytes", "size", "above", "max"].iter().any(|word| name.contains(word));
    let limits = settings.iter().filter(|(name, _)| is_limit(name)).filter_map(|(_, value)| value.as_u64());
    let least = limits.filter(|limit| *limit >= LEAST_LIMIT).min().and_then(|limit| usize::try_from(limit).ok());
    least.map_or(USUAL_LIMIT, |limit| limit.min(USUAL_LIMIT))
}

/// Whether the hub may learn a name in another way than in a message: from a raw text, a header or a hash.
fn hides_names(program: &Program) -> bool {
    // Neither a setting nor the address of an actor is a name that the scenario made up.
    let is_known =
        |name: &String| name.starts_with("hub.") || name.ends_with(".url") || FUNCTION_NAMES.contains(&name.as_str());
    let depends = |template: &Template| any_expression(template, |expression| !expression.uses.iter().all(is_known));
    let tells = |step: &Step| match &step.act {
        StepAction::SendRaw(template) => depends(template),
        StepAction::Connect(connect) => connect.headers.iter().chain(&connect.subprotocols).any(depends),
        _ => false,
    };
    let hides = |expression: &TemplateExpression| HIDING.iter().any(|name| expression.calls(name));
    let of_step = |step| judging_templates(step).into_iter().chain(sent_templates(step));
    let mut templates = (program.lets.iter().map(|(_, template)| template))
        .chain(
            program.roles.values().flat_map(|role| role.given.iter().chain(&role.fills)).map(|(_, template)| template),
        )
        .chain(program.blocks.iter().flatten().flat_map(of_step));
    program.blocks.iter().flatten().any(tells) || templates.any(|template| any_expression(template, hides))
}

fn any_expression(template: &Template, holds: impl Fn(&TemplateExpression) -> bool) -> bool {
    let mut found = false;
    template.visit_expressions(&mut |expression| found |= holds(expression));
    found
}

/// Returns the templates of what a step passes to the hub.
fn sent_templates(step: &Step) -> impl Iterator<Item = &Template> {
    let (message, args) = match &step.act {
        StepAction::Send(composed) | StepAction::Compose(composed) => (Some(&**composed), None),
        StepAction::Hook(hook) => (hook.message.as_ref(), hook.args.as_ref()),
        _ => (None, None),
    };
    message.and_then(|message| message.with.as_ref()).into_iter().chain(args)
}

/// The messages of a play.
struct Play<'p> {
    pack: &'p Pack,
    messages: Vec<PlayedMessage<'p>>,
    /// The other texts of the play: addresses, reasons, claims of tokens, and messages that were shortened.
    others: String,
}

impl<'p> Play<'p> {
    fn read(program: &'p Program, plain: &ScenarioReport) -> Self {
        let (pack, mut messages, mut others) = (&*program.pack, Vec::new(), String::new());
        let mut calls = plain.hook_calls.iter().flatten().peekable();
        for (index, frame) in plain.history.iter().enumerate() {
            while let Some(call) = calls.next_if(|call| call.after <= index) {
                messages.extend(passed_by(call, pack));
            }
            let json = serde_json::from_str(&frame.text).ok();
            match json.filter(|_| frame.kind == FrameKind::Text && frame.hash.is_none()) {
                Some(json) => {
                    let is_server = program.actors.iter().any(|actor| {
                        actor.name == frame.actor && program.roles.get(&actor.role).is_some_and(|role| role.server)
                    });
                    let received = frame.direction == HistoryDirection::Received;
                    let way = if received == is_server { FrameDirection::ToHub } else { FrameDirection::FromHub };
                    messages.push(PlayedMessage { received, message: pack.recognise(&json, way), json, way });
                }
                None => others.push_str(&frame.text),
            }
        }
        messages.extend(calls.flat_map(|call| passed_by(call, pack)));
        others.extend(plain.claims.as_deref());
        Self { pack, messages, others }
    }

    fn is_distinguishing(&self, message: &MessageType, pointer: &str) -> bool {
        self.pack.distinguishing_places.contains(pointer) || message.correlation.as_deref() == Some(pointer)
    }

    /// Returns the places of names, of which each group shares names.
    fn places_of_names(&self) -> Vec<OpenPlace> {
        let mut uses: BTreeMap<&str, ValueUse> = BTreeMap::new();
        let mut early: BTreeSet<&str> = BTreeSet::new();
        let mut longer: Vec<&str> = vec![self.others.as_str()];
        for played in &self.messages {
            visit(&played.json, "", &mut |value, name, pointer| {
                let Some(text) = name.or(value.as_str()) else { return };
                longer.push(text);
                match (played.received, uses.contains_key(text)) {
                    (true, true) => uses.entry(text).or_default().passed_on = true,
                    (true, false) => drop(early.insert(text)),
                    (false, _) if !is_made_up(text) => {}
                    (false, _) => {
                        let one = uses.entry(text).or_default();
                        let open = played.message.filter(|message| {
                            name.is_none()
                                && !self.is_distinguishing(message, pointer)
                                && is_open_text(message, pointer)
                        });
                        match open {
                            Some(message) => drop(one.open.insert((message.name.clone(), pointer.to_owned()))),
                            None => one.fixed = true,
                        }
                    }
                }
            });
        }
        // Names of the scenario may begin with each other by chance.
        longer.retain(|text| !uses.contains_key(text));
        for (text, one) in &mut uses {
            one.fixed |= early.contains(text) || longer.iter().any(|other| other.contains(text));
        }
        group_places(uses)
    }

    /// Returns the places of objects.
    fn places_of_objects(&self, settings: &BTreeMap<String, Value>) -> Vec<Place> {
        let mut candidates: Vec<(Value, ValueUse)> = Vec::new();
        for played in &self.messages {
            visit(&played.json, "", &mut |value, name, pointer| {
                if name.is_some() || !is_telling(value) {
                    return;
                }
                let place = played.message.map(|message| (message.name.clone(), pointer.to_owned()));
                let is_free = played.message.is_some_and(|message| {
                    !pointer.is_empty()
                        && is_free_object(message, pointer)
                        && !self.pack.distinguishing_places.iter().any(|one| one.starts_with(pointer))
                });
                let known = candidates.iter().position(|(known, _)| are_equal(known, value));
                match (known, played.received) {
                    (Some(index), true) => candidates[index].1.passed_on |= is_free,
                    (Some(index), false) if is_free => candidates[index].1.open.extend(place),
                    (Some(index), false) => candidates[index].1.fixed = true,
                    (None, true) => candidates.push((value.clone(), ValueUse { fixed: true, ..ValueUse::default() })),
                    (None, false) => {
                        let open = place.filter(|_| is_free).into_iter().collect();
                        candidates.push((value.clone(), ValueUse { open, fixed: !is_free, ..ValueUse::default() }));
                    }
                }
            });
        }
        let of_target = |value: &Value| settings.values().any(|setting| is_from(setting, value));
        let whole: Vec<Value> =
            candidates.iter().filter(|(_, one)| one.passed_on && !one.fixed).map(|(value, _)| value.clone()).collect();
        // What is no message may say which message to send.
        let telling = self.messages.iter().filter(|played| played.received || played.message.is_none());
        let rest: Vec<String> = telling.map(|played| without(&played.json, &whole)).collect();
        for (value, one) in &mut candidates {
            let mut texts = Vec::new();
            visit(value, "", &mut |value, name, _| texts.extend(name.is_none().then(|| value.as_str()).flatten()));
            let is_used = |text: &&str| text.len() >= MIN_TELLING && rest.iter().any(|rest| rest.contains(*text));
            one.fixed |= of_target(value) || texts.iter().any(is_used);
        }
        let wrong: BTreeSet<&Place> =
            candidates.iter().filter(|(_, one)| one.fixed).flat_map(|(_, one)| &one.open).collect();
        let right = candidates.iter().filter(|(_, one)| one.passed_on && !one.fixed).flat_map(|(_, one)| &one.open);
        let mut places: Vec<Place> = right.filter(|place| !wrong.contains(place)).cloned().collect();
        places.sort();
        places.dedup();
        let all = places.clone();
        let is_inner = |(message, pointer): &Place| {
            all.iter().any(|(other, outer)| {
                other == message && pointer.strip_prefix(outer.as_str()).is_some_and(|rest| rest.starts_with('/'))
            })
        };
        places.retain(|place| !is_inner(place));
        places
    }

    /// Whether the messages of the play are the same messages, and valid, with unusual values.
    fn stays_valid(&self, kind: ValueKind, found: &OpenPlaces) -> bool {
        let free = |place: &OpenPlace| OpenPlace { fixed: BTreeSet::new(), ..place.clone() };
        let places = OpenPlaces { places: found.places.iter().map(free).collect(), ..found.clone() };
        let Some(mut swap) = ValueSwap::new(&Variation::Values(kind, Some(Arc::new(places)))) else { return false };
        let is_same = |played: &PlayedMessage<'_>, message: &MessageType, other: &Value| {
            let found = self.pack.recognise(other, played.way).is_some_and(|found| found.name == message.name);
            found && (message.schema.is_valid(other) || !message.schema.is_valid(&played.json))
        };
        self.messages.iter().all(|played| {
            let Some(message) = played.message else { return true };
            if !played.received {
                return swap.swap(&message.name, &played.json).is_none_or(|other| is_same(played, message, &other));
            }
            let mut other = played.json.clone();
            !swap.distort(&mut other) || is_same(played, message, &other)
        })
    }
}

/// Returns what a hook passed to the hub: its args, which are not a message, and its message.
fn passed_by<'p>(call: &HookCallReport, pack: &'p Pack) -> impl Iterator<Item = PlayedMessage<'p>> {
    let read = |text: &String| serde_json::from_str(text).unwrap_or_default();
    let way = FrameDirection::FromHub;
    let args = PlayedMessage { received: false, json: read(&call.args), message: None, way };
    let published = call.message.as_ref().map(read);
    let published =
        published.map(|json| PlayedMessage { received: false, message: pack.recognise(&json, way), json, way });
    std::iter::once(args).chain(published)
}

/// Returns the places of the names whose every use is in such a place.
fn group_places(mut uses: BTreeMap<&str, ValueUse>) -> Vec<OpenPlace> {
    loop {
        let wrong: BTreeSet<Place> = uses.values().filter(|one| one.fixed).flat_map(|one| one.open.clone()).collect();
        let before = uses.len();
        uses.retain(|_, one| !one.fixed);
        uses.values_mut().for_each(|one| one.fixed = one.open.iter().any(|place| wrong.contains(place)));
        if before == uses.len() && uses.values().all(|one| !one.fixed) {
            break;
        }
    }
    let mut groups: Vec<(BTreeSet<Place>, bool)> = Vec::new();
    for one in uses.values() {
        let (joined, others): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|(places, _)| !places.is_disjoint(&one.open));
        let passed_on = one.passed_on || joined.iter().any(|(_, passed_on)| *passed_on);
        let places = joined.into_iter().flat_map(|(places, _)| places).chain(one.open.iter().cloned()).collect();
        groups = others;
        groups.push((places, passed_on));
    }
    let fixed = |place: &Place| {
        uses.iter().filter(|(_, one)| one.open.contains(place)).map(|(text, _)| (*text).to_owned()).collect()
    };
    let passed_on = groups.iter().filter(|(_, passed_on)| *passed_on).enumerate();
    let places = passed_on.flat_map(|(group, (places, _))| places.iter().map(move |place| (group, place)));
    places
        .map(|(group, place)| OpenPlace {
            message: place.0.clone(),
            pointer: place.1.clone(),
            group,
            fixed: fixed(place),
        })
        .collect()
}

/// Visits a value and all values in it, each with its pointer, and the names of members, each with the pointer of its object.
fn visit<'v>(value: &'v Value, pointer: &str, see: &mut dyn FnMut(&'v Value, Option<&'v str>, &str)) {
    see(value, None, pointer);
    if let Value::Object(members) = value {
        members.keys().for_each(|name| see(value, Some(name), pointer));
    }
    for (name, inner) in members_of(value) {
        visit(inner, &format!("{pointer}/{}", crate::syntax::matcher::escape(&name)), see);
    }
}

/// Whether an object is hardly in two messages by chance.
fn is_telling(value: &Value) -> bool {
    let is_long = |value: &Value| value.as_str().is_some_and(|text| text.len() >= MIN_TELLING);
    value.as_object().is_some_and(|members| members.len() > 1 || members.values().any(is_long))
}

/// Whether an object is one in a setting, or such an object with more members.
fn is_from(setting: &Value, value: &Value) -> bool {
    let includes = |(name, member): (&String, &Value)| value.get(name).is_some_and(|found| are_equal(member, found));
    are_equal(setting, value)
        || setting.as_object().is_some_and(|members| !members.is_empty() && members.iter().all(includes))
        || members_of(setting).into_iter().any(|(_, inner)| is_from(inner, value))
}

/// Returns the texts of a value, without those in these parts.
fn without(value: &Value, parts: &[Value]) -> String {
    if parts.iter().any(|part| are_equal(part, value)) {
        return String::new();
    }
    let own = value.as_str().unwrap_or_default().to_owned();
    members_of(value).into_iter().fold(own, |texts, (name, inner)| texts + "\n" + &name + "\n" + &without(inner, parts))
}

fn shape_at<'m>(message: &'m MessageType, pointer: &str) -> SchemaShape<'m> {
    let path: Vec<String> = pointer.split('/').skip(1).map(unescape).collect();
    SchemaShape::at_path(&message.schema.source, &path)
}

/// Whether the schemas of a place have no keywords but these, and ones that say nothing about values or lead to another of
/// these schemas.
fn has_only(shape: &SchemaShape<'_>, keywords: &[&str]) -> bool {
    let is_silent = |name: &str| {
        matches!(
            name,
            "title"
                | "description"
                | "examples"
                | "default"
                | "$comment"
                | "x-rules"
                | "deprecated"
                | "$ref"
                | "allOf"
                | "x-should"
        )
    };
    shape.all_schemas().iter().all(|schema| match schema {
        Value::Object(members) => members.keys().all(|name| is_silent(name) || keywords.contains(&name.as_str())),
        schema => **schema == Value::Bool(true),
    })
}

/// Whether the schema allows any text in a place.
fn is_open_text(message: &MessageType, pointer: &str) -> bool {
    let shape = shape_at(message, pointer);
    has_only(&shape, &["type"]) && shape.allowed_types().is_none_or(|types| types.contains(&"string"))
}

/// Whether the schema allows any object in a place.
fn is_free_object(message: &MessageType, pointer: &str) -> bool {
    let shape = shape_at(message, pointer);
    has_only(&shape, &["type", "additionalProperties"])
        && !shape.is_closed()
        && shape.allowed_types().is_none_or(|types| types.contains(&"object"))
}
