//! What is said: a message of a scene, and something odd about it.

use serde_json::{Map, Value, json};

use super::{Cell, MutationKind};
use crate::fuzz::corpus::Corpus;
use crate::fuzz::corpus::expected_answer::{Answer, Input};
use crate::fuzz::corpus::prefix::Prefix;
use crate::fuzz::mutate::payload::{self, Change, Class, Edit};
use crate::fuzz::mutate::schema::{self, Site};
use crate::fuzz::placement::Placement;
use crate::generate::rng::Dice;
use crate::generate::schema_shape::{Branches, Shape};
use crate::generate::value;
use crate::protocol::MessageType;
use crate::scenario::compose;

/// Tries to find an exploration that is right, or a mutation that its place gives something to work on.
const ATTEMPTS: usize = 8;

/// A message as it is said in a scene, and what is to be odd about it.
pub(crate) struct Draft<'a> {
    material: &'a Corpus,
    pub(crate) message: &'a MessageType,
    oddity: MutationKind,
    /// The message where nothing is odd, and the same with something in place of expressions.
    base: Value,
    plain: Value,
    /// Of the base, where it is no expression.
    id: Option<Value>,
    sites: Vec<&'a Site>,
    /// Members that are left alone where it is explored.
    fixed: Vec<String>,
    /// It has to be answered, as what is long need not be.
    short: bool,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(material: &'a Corpus, cell: Cell, scene: &'a Prefix) -> Option<Self> {
        let message = material.pack.messages.get(cell.message)?;
        let base = scene.base(material, message);
        let plain = plain(message, &base);
        let id = message.correlation.as_ref().and_then(|pointer| base.pointer(pointer));
        let id = id.filter(|id| id.as_str().is_none_or(|text| !text.contains("${"))).cloned();
        let is_asked = |site: &&Site| cell.oddity == MutationKind::Mutated(site.mutation);
        let sites = scene.sites.iter().filter(is_asked).collect();
        // No id is used twice on a connection that is kept, so each is given.
        let short = cell.placement == Placement::Kept;
        let given = message.correlation.as_ref().filter(|_| short);
        let fixed = given.and_then(|pointer| pointer.strip_prefix('/')).map(crate::syntax::matcher::unescape);
        let fixed = fixed.into_iter().collect();
        let mut draft = Self { material, message, oddity: cell.oddity, base, plain, id, sites, fixed, short };
        if short && cell.oddity == MutationKind::Explored {
            draft.lead_to_an_answer(&scene.role);
        }
        Some(draft)
    }

    /// What is said on a connection that is kept has to be answered: where the message as it is is not, but would be with
    /// members that some answer asks for, it has these.
    fn lead_to_an_answer(&mut self, role: &str) {
        let is_answered = |payload: &Value| {
            let (class, placement, taken_for) = (Class::Valid, Placement::Kept, Some(&*self.message.name));
            let input = Input { class, placement, role, taken_for, payload: Some(payload) };
            self.material.answer(&input).is_some_and(Answer::lasts)
        };
        if is_answered(&self.plain) {
            return;
        }
        let asked = self.material.answered_with().find(|members| is_answered(&with(&self.plain, members)));
        for (name, value) in asked.into_iter().flatten() {
            self.fix(&name, value.clone(), value);
        }
    }

    /// A member that has this value from now on; in `plain` it has that.
    fn fix(&mut self, name: &str, value: Value, plain: Value) {
        let pointer = format!("/{}", crate::syntax::matcher::escape(name));
        compose::put(&mut self.base, &pointer, value);
        compose::put(&mut self.plain, &pointer, plain);
        self.fixed.push(name.to_owned());
    }

    /// With an id of its own, if it has one by which its answer is known.
    pub(crate) fn renumbered(&mut self, index: usize) -> &Self {
        let id = match self.id.clone() {
            Some(Value::Number(number)) => {
                Some(json!(number.as_u64().unwrap_or_default().saturating_add(index as u64)))
            }
            Some(Value::String(mut text)) => {
                // Of the form that it had.
                let kept = text.char_indices().nth_back(INDEX - 1).map_or(text.len(), |(at, _)| at);
                text.replace_range(kept.., &format!("{index:0INDEX$x}"));
                Some(Value::String(text))
            }
            _ => None,
        };
        if let (Some(id), Some(pointer)) = (id, &self.message.correlation) {
            for message in [&mut self.base, &mut self.plain] {
                message.pointer_mut(pointer).into_iter().for_each(|member| *member = id.clone());
            }
        }
        self
    }

    /// Something odd, and where, if it is one of the message's places.
    pub(crate) fn said(&self, dice: &mut Dice) -> Option<(SentMessage, Option<&'a Site>)> {
        let Self { material, message, base, .. } = self;
        match self.oddity {
            MutationKind::Corrupted(spoilt) => {
                let text = spoilt.text(&payload::text(base, &[]), dice);
                let value: Option<Value> =
                    serde_json::from_str(&text).ok().filter(|_| spoilt.class() != Class::Unspecified);
                let (raw, odd) = (json!({ "text": text }), Odd::Named(spoilt.name()));
                Some((SentMessage { raw, class: spoilt.class(), plain: value.clone(), value, odd }, None))
            }
            MutationKind::Framed(framing) => {
                // In pieces a message is what it is in one.
                let right = framing.class() == Class::Valid;
                let whole = if right { self.with_wide_letters(dice) } else { self.edited(Vec::new()) };
                let text = whole.text();
                let raw = framing.raw(text.as_ref().and_then(Value::as_str).unwrap_or_default(), dice);
                let class = if right { whole.class } else { framing.class() };
                let (plain, value) = if right { (whole.plain, whole.value) } else { (None, None) };
                Some((SentMessage { raw, class, plain, value, odd: Odd::Named(framing.name()) }, None))
            }
            MutationKind::Churn(gone) => {
                Some((SentMessage { odd: Odd::Named(gone.name()), ..self.edited(Vec::new()) }, None))
            }
            MutationKind::Mutated(_) => (0..ATTEMPTS).find_map(|_| {
                let site = dice.pick(&self.sites)?;
                let edits = schema::edits(&material.pack, message, site, self.short, dice)?;
                Some((self.edited(edits), Some(*site)))
            }),
            MutationKind::Explored => (0..ATTEMPTS).find_map(|_| {
                let said = self.edited(explored(message, base, &self.fixed, dice));
                (said.class == Class::Valid).then_some((said, None))
            }),
        }
    }

    /// Nothing is odd about it, but that some text has letters of several bytes, if any may have them.
    fn with_wide_letters(&self, dice: &mut Dice) -> SentMessage {
        let plainly = self.edited(Vec::new());
        let mut texts = Vec::new();
        let mut open = vec![(String::new(), &self.base)];
        while let Some((pointer, value)) = open.pop() {
            match value {
                Value::String(text) if !text.contains("${") => texts.push((pointer, text)),
                Value::Object(members) => {
                    let place = |name: &str| format!("{pointer}/{}", crate::syntax::matcher::escape(name));
                    open.extend(members.iter().map(|(name, member)| (place(name), member)));
                }
                _ => {}
            }
        }
        let widened = (0..ATTEMPTS).find_map(|_| {
            let (pointer, text) = dice.pick(&texts)?;
            let change = Change::Put(json!(format!("{text}ß😀")));
            let said = self.edited(vec![Edit { pointer: pointer.clone(), change }]);
            let taken_for = said.plain.as_ref().and_then(|plain| payload::taken_for(&self.material.pack, plain));
            let is_alike =
                said.class == plainly.class && taken_for.is_some_and(|found| found.name == self.message.name);
            is_alike.then_some(said)
        });
        widened.unwrap_or(plainly)
    }

    fn edited(&self, edits: Vec<Edit>) -> SentMessage {
        edited(self.material, self.message, &self.base, self.plain.clone(), edits)
    }

    /// From now on only what is likely to be of the kind of `all`, which were odd at these places: where these are odd, or
    /// alike, the rest is, too.
    pub(crate) fn narrow(&mut self, all: &[SentMessage], sites: &[&Site]) {
        self.sites.retain(|site| sites.contains(site));
        let (MutationKind::Explored, Some(first)) = (self.oddity, all.first()) else { return };
        let (Some(Value::Object(members)), Some(plain)) = (&first.value, &first.plain) else { return };
        for (name, value) in members {
            let is_alike = |said: &SentMessage| said.value.as_ref().and_then(|said| said.get(name)) == Some(value);
            let Some(plain) = plain.get(name).filter(|_| all.iter().all(is_alike)) else { continue };
            self.fix(name, value.clone(), plain.clone());
        }
    }
}

/// The message with these members.
fn with(message: &Value, members: &Map<String, Value>) -> Value {
    let mut message = message.clone();
    message.as_object_mut().into_iter().for_each(|message| message.extend(members.clone()));
    message
}

/// Letters of an id that tell how many were before it.
const INDEX: usize = 4;

pub(crate) struct SentMessage {
    /// The argument of `sends raw`.
    pub(crate) raw: Value,
    pub(crate) class: Class,
    /// Its JSON, with something in place of expressions; `None` where there is none, or no value can say it.
    pub(crate) plain: Option<Value>,
    /// The same with its expressions.
    pub(crate) value: Option<Value>,
    pub(crate) odd: Odd,
}

/// What is odd about what is said, as reports tell it.
pub(crate) enum Odd {
    Named(&'static str),
    Edited(Vec<Edit>),
}

impl Odd {
    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::Named(name) => (*name).to_owned(),
            Self::Edited(edits) => edits.iter().map(in_words).collect::<Vec<_>>().join(", "),
        }
    }

    /// See [`Case::pointer`](super::Case::pointer).
    pub(crate) fn pointer(&self) -> String {
        match self {
            Self::Edited(edits) => edits.first().map(|edit| edit.pointer.clone()).unwrap_or_default(),
            Self::Named(_) => String::new(),
        }
    }
}

impl SentMessage {
    /// `None` for what is no text message.
    pub(crate) fn text(&self) -> Option<Value> {
        self.raw.get("text").cloned()
    }

    /// By which its answer is known; `None` where it has nothing of the kind, or what is made anew each time.
    pub(crate) fn id(&self, message: &MessageType) -> Option<String> {
        let id = self.value.as_ref()?.pointer(message.correlation.as_ref()?)?;
        let anew = id.as_str().is_some_and(|text| text.contains("${") && text.contains('('));
        (!anew).then(|| id.to_string())
    }
}

/// The message with these edits.
pub(crate) fn spoken(material: &Corpus, message: &MessageType, base: &Value, edits: Vec<Edit>) -> SentMessage {
    edited(material, message, base, plain(message, base), edits)
}

/// The same, where it is known what stands in place of its expressions.
fn edited(material: &Corpus, message: &MessageType, base: &Value, plain: Value, edits: Vec<Edit>) -> SentMessage {
    let applied = payload::applied(plain, &edits);
    let class = payload::class(&material.pack, message, applied.as_ref());
    let (text, value) = payload::said(base, &edits);
    SentMessage { raw: json!({ "text": text }), class, plain: applied, value, odd: Odd::Edited(edits) }
}

/// Expressions stand for what the example has there.
fn plain(message: &MessageType, base: &Value) -> Value {
    match &message.schema.example {
        Some(example) => deep_with(base, example),
        None => deep_with(base, &message.template()),
    }
}

/// A value whose expressions are replaced by what another has in their place, or by some text.
pub(crate) fn deep_with(base: &Value, example: &Value) -> Value {
    match base {
        Value::String(text) if text.contains("${") => match example {
            Value::Null => json!("text"),
            other => other.clone(),
        },
        Value::Array(items) => {
            items.iter().enumerate().map(|(i, item)| deep_with(item, example.get(i).unwrap_or(&Value::Null))).collect()
        }
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| (name.clone(), deep_with(member, example.get(name).unwrap_or(&Value::Null))))
            .collect(),
        other => other.clone(),
    }
}

/// Members of a right message made anew, or all of them; who says it, by what it is recognised, and what is `fixed` stays.
pub(crate) fn explored(message: &MessageType, base: &Value, fixed: &[String], dice: &mut Dice) -> Vec<Edit> {
    let shape = Shape::of(&message.schema.source, &mut Branches::One(dice));
    let literals = message.matcher.literals();
    let required = shape.required();
    let is_filled = |name: &str| base.get(name).and_then(Value::as_str).is_some_and(|text| text.contains("${"));
    let stays = |name: &str| literals.contains_key(name) || fixed.iter().any(|fixed| fixed == name) || is_filled(name);
    let free: Vec<&str> = shape.members().into_iter().filter(|name| !stays(name)).collect();
    let all = dice.once_in(3);
    let few = 1 + dice.below(3);
    let mut edits = Vec::new();
    for name in &free {
        if !all && dice.below(free.len().max(1)) >= few {
            continue;
        }
        let pointer = format!("/{}", crate::syntax::matcher::escape(name));
        let present = base.get(*name).is_some();
        if present && !required.contains(name) && dice.once_in(3) {
            edits.push(Edit { pointer, change: Change::Remove });
            continue;
        }
        let inner = shape.member(name, &mut Branches::One(dice));
        edits.push(Edit { pointer, change: Change::Put(value::value(&inner, dice)) });
    }
    if !shape.is_closed() && (edits.is_empty() || dice.once_in(6)) {
        let pointer = format!("/x_{}", value::name(dice));
        let names = base.as_object().into_iter().flat_map(Map::keys);
        let value = if dice.once_in(2) { value::anything(dice, 0) } else { value::with(names, dice) };
        edits.push(Edit { pointer, change: Change::Put(value) });
    }
    if dice.once_in(4) {
        edits.push(Edit { pointer: String::new(), change: Change::Backwards });
    }
    edits
}

fn in_words(edit: &Edit) -> String {
    let place = if edit.pointer.is_empty() { "the message" } else { &edit.pointer };
    let short = |text: &str| crate::syntax::matcher::cut(text, 60);
    match &edit.change {
        Change::Put(value) => format!("{place} is {}", short(&value.to_string())),
        Change::Remove => format!("{place} is missing"),
        Change::Text(text) => format!("{place} is {}", short(text)),
        Change::Twice(value) => format!("{place} comes twice, then as {}", short(&value.to_string())),
        Change::Rename(name) => format!("{place} is called {name}"),
        Change::Backwards => format!("{place} is written from its last member to its first"),
    }
}
