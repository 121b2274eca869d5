//! The mutated message of a case: a valid message as it fits a prefix, with a mutation applied.

use serde_json::{Map, Value, json};

use super::{FuzzCell, MutationKind};
use crate::fuzz::actors::OBSERVER;
use crate::fuzz::corpus::Corpus;
use crate::fuzz::corpus::expected_answer::{ExpectedAnswer, InputProperties};
use crate::fuzz::corpus::prefix::CasePrefix;
use crate::fuzz::expressions;
use crate::fuzz::mutate::payload::{self, PayloadChange, PayloadClass, PayloadEdit};
use crate::fuzz::mutate::schema::{self, MemberMutation, MutationSite};
use crate::fuzz::placement::Placement;
use crate::generate::rng::RandomSource;
use crate::generate::schema_shape::{BranchChoice, SchemaShape};
use crate::generate::value;
use crate::protocol::MessageType;
use crate::scenario::compose;

/// The most draws of a valid `explored` message, or of a site of the message that a mutation can change.
const MAX_ATTEMPTS: usize = 8;

/// A valid message as it fits a prefix, and the mutation to apply to it.
pub(crate) struct MessageDraft<'a> {
    corpus: &'a Corpus,
    pub(crate) message: &'a MessageType,
    mutation: MutationKind,
    /// The valid message with the expressions of the scenario, and the same with their values.
    base: Value,
    plain: Value,
    /// The correlation id in `base`, unless it is an expression.
    id: Option<Value>,
    sites: Vec<&'a MutationSite>,
    /// Members that `explored` does not change.
    fixed: Vec<String>,
    /// Whether the message must be answered, so that it may not be long: a hub may ignore or refuse a long one.
    short: bool,
}

impl<'a> MessageDraft<'a> {
    pub(crate) fn new(corpus: &'a Corpus, cell: FuzzCell, prefix: &'a CasePrefix) -> Option<Self> {
        let message = corpus.pack.messages.get(cell.message)?;
        let base = prefix.message.clone();
        let plain = corpus.settings.filled(message, &base);
        let id = message.correlation.as_ref().and_then(|pointer| base.pointer(pointer));
        let id = id.filter(|id| id.as_str().is_none_or(expressions::is_literal)).cloned();
        let is_asked = |site: &&MutationSite| cell.mutation == MutationKind::Mutated(site.mutation);
        let sites = prefix.sites.iter().filter(is_asked).collect();
        // No id may be used twice on one connection, so `set_correlation_id` sets it.
        let short = cell.placement == Placement::Kept;
        let given = message.correlation.as_ref().filter(|_| short);
        let fixed = given.and_then(|pointer| pointer.strip_prefix('/')).map(crate::syntax::matcher::unescape);
        let fixed = fixed.into_iter().collect();
        let mut draft = Self { corpus, message, mutation: cell.mutation, base, plain, id, sites, fixed, short };
        if short && cell.mutation == MutationKind::Explored {
            draft.ensure_answer(&prefix.role);
        }
        Some(draft)
    }

    /// Adds the members by which some entry of `fuzz.answers` recognises the message, if it is not answered without
    /// them: the placement `kept` needs an answer to every message.
    fn ensure_answer(&mut self, role: &str) {
        let is_answered = |payload: &Value| {
            let (class, placement, taken_for) = (PayloadClass::Valid, Placement::Kept, Some(&*self.message.name));
            let input = InputProperties { class, placement, role, taken_for, payload: Some(payload) };
            self.corpus.expected_answer(&input).is_some_and(ExpectedAnswer::is_message)
        };
        if is_answered(&self.plain) {
            return;
        }
        let asked =
            self.corpus.answered_input_members().find(|members| is_answered(&with_members(&self.plain, members)));
        for (name, value) in asked.into_iter().flatten() {
            self.fix_member(&name, value.clone(), value);
        }
    }

    /// Sets a member, to `value` in the message and to `plain` in its form without expressions, and keeps it unchanged.
    fn fix_member(&mut self, name: &str, value: Value, plain: Value) {
        let pointer = format!("/{}", crate::syntax::matcher::escape(name));
        compose::put_at_pointer(&mut self.base, &pointer, value);
        compose::put_at_pointer(&mut self.plain, &pointer, plain);
        self.fixed.push(name.to_owned());
    }

    /// Gives the message a correlation id of its own, if it has one.
    pub(crate) fn set_correlation_id(&mut self, index: usize) -> &Self {
        let id = match self.id.clone() {
            Some(Value::Number(number)) => {
                Some(json!(number.as_u64().unwrap_or_default().saturating_add(index as u64)))
            }
            Some(Value::String(mut text)) => {
                // Keeps the length and the beginning.
                let kept = text.char_indices().nth_back(ID_INDEX_CHARS - 1).map_or(text.len(), |(at, _)| at);
                text.replace_range(kept.., &format!("{index:0ID_INDEX_CHARS$x}"));
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

    /// Draws a mutated message, and the site of the mutation if it concerns one.
    pub(crate) fn draw_mutated(&self, dice: &mut RandomSource) -> Option<(SentMessage, Option<&'a MutationSite>)> {
        let Self { corpus, message, base, .. } = self;
        match self.mutation {
            MutationKind::Corrupted(corruption) => {
                let text = corruption.corrupt(&payload::payload_text(base, &[]), dice);
                let value: Option<Value> =
                    serde_json::from_str(&text).ok().filter(|_| corruption.class() != PayloadClass::Unspecified);
                let class = match value.as_ref().map(|value| payload::classify(&corpus.pack, message, Some(value))) {
                    // A document may allow any JSON, and half a number is a number.
                    Some(class @ (PayloadClass::Valid | PayloadClass::Unusual)) => class,
                    Some(class) if corruption.class() == PayloadClass::Malformed => class,
                    _ => corruption.class(),
                };
                let (raw, description) = (json!({ "text": text }), MutationDescription::Named(corruption.name()));
                Some((SentMessage { raw, class, plain: value.clone(), value, description }, None))
            }
            MutationKind::Framed(framing) => {
                // A fragmented message has the same meaning as an unfragmented one.
                let right = framing.class() == PayloadClass::Valid;
                let whole = if right { self.append_wide_letters(dice) } else { self.apply_edits(Vec::new()) };
                let text = whole.text();
                let raw = framing.raw_argument(text.as_ref().and_then(Value::as_str).unwrap_or_default(), dice);
                let class = if right { whole.class } else { framing.class() };
                let (plain, value) = if right { (whole.plain, whole.value) } else { (None, None) };
                Some((
                    SentMessage { raw, class, plain, value, description: MutationDescription::Named(framing.name()) },
                    None,
                ))
            }
            MutationKind::Churn(churn) => Some((
                SentMessage { description: MutationDescription::Named(churn.name()), ..self.apply_edits(Vec::new()) },
                None,
            )),
            MutationKind::Mutated(_) => (0..MAX_ATTEMPTS).find_map(|_| {
                let site = dice.pick(&self.sites)?;
                let foreign = match site.mutation {
                    MemberMutation::ForeignId => {
                        corpus.identities(corpus.observer_role().unwrap_or_default(), OBSERVER)
                    }
                    _ => Vec::new(),
                };
                let edits = schema::draw_edits(&corpus.pack, message, site, &foreign, self.short, dice)?;
                Some((self.apply_edits(edits), Some(*site)))
            }),
            MutationKind::Explored => (0..MAX_ATTEMPTS).find_map(|_| {
                let sent = self.apply_edits(draw_valid_edits(message, base, &self.fixed, dice));
                (sent.class == PayloadClass::Valid).then_some((sent, None))
            }),
        }
    }

    /// Returns the valid message with multi-byte letters appended to some text, if the schema allows that anywhere.
    fn append_wide_letters(&self, dice: &mut RandomSource) -> SentMessage {
        let unchanged = self.apply_edits(Vec::new());
        let mut texts = Vec::new();
        let mut open = vec![(String::new(), &self.base)];
        while let Some((pointer, value)) = open.pop() {
            match value {
                Value::String(text) if expressions::is_literal(text) => texts.push((pointer, text)),
                Value::Object(members) => {
                    let place = |name: &str| format!("{pointer}/{}", crate::syntax::matcher::escape(name));
                    open.extend(members.iter().map(|(name, member)| (place(name), member)));
                }
                _ => {}
            }
        }
        let widened = (0..MAX_ATTEMPTS).find_map(|_| {
            let (pointer, text) = dice.pick(&texts)?;
            let change = PayloadChange::Put(json!(format!("{text}ß😀")));
            let sent = self.apply_edits(vec![PayloadEdit { pointer: pointer.clone(), change }]);
            let taken_for = sent.plain.as_ref().and_then(|plain| payload::recognised_as(&self.corpus.pack, plain));
            let is_alike =
                sent.class == unchanged.class && taken_for.is_some_and(|found| found.name == self.message.name);
            is_alike.then_some(sent)
        });
        widened.unwrap_or(unchanged)
    }

    fn apply_edits(&self, edits: Vec<PayloadEdit>) -> SentMessage {
        edit_plain_message(self.corpus, self.message, &self.base, self.plain.clone(), edits)
    }

    /// Restricts further draws to what `all`, mutated at `sites`, have in common, so that the document answers them
    /// alike: the same sites, and for `explored` the same values of the members that are equal in all of them.
    pub(crate) fn restrict_to_common(&mut self, all: &[SentMessage], sites: &[&MutationSite]) {
        self.sites.retain(|site| sites.contains(site));
        let (MutationKind::Explored, Some(first)) = (self.mutation, all.first()) else { return };
        let (Some(Value::Object(members)), Some(plain)) = (&first.value, &first.plain) else { return };
        for (name, value) in members {
            let is_alike = |sent: &SentMessage| sent.value.as_ref().and_then(|sent| sent.get(name)) == Some(value);
            let Some(plain) = plain.get(name).filter(|_| all.iter().all(is_alike)) else { continue };
            self.fix_member(name, value.clone(), plain.clone());
        }
    }
}

/// Returns the message with these members added.
fn with_members(message: &Value, members: &Map<String, Value>) -> Value {
    let mut message = message.clone();
    message.as_object_mut().into_iter().for_each(|message| message.extend(members.clone()));
    message
}

/// Characters of an id that hold the number of the message.
const ID_INDEX_CHARS: usize = 4;

pub(crate) struct SentMessage {
    /// The argument of `sends raw`.
    pub(crate) raw: Value,
    pub(crate) class: PayloadClass,
    /// The payload with the values of its expressions; `None` where the text has no JSON value.
    pub(crate) plain: Option<Value>,
    /// The payload with its expressions.
    pub(crate) value: Option<Value>,
    pub(crate) description: MutationDescription,
}

/// The description of a mutation for reports.
pub(crate) enum MutationDescription {
    Named(&'static str),
    Edited(Vec<PayloadEdit>),
}

impl MutationDescription {
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Named(name) => (*name).to_owned(),
            Self::Edited(edits) => edits.iter().map(describe_edit).collect::<Vec<_>>().join(", "),
        }
    }

    /// Returns the JSON pointer to the mutated member; empty for the whole message.
    pub(crate) fn pointer(&self) -> String {
        match self {
            Self::Edited(edits) => edits.first().map(|edit| edit.pointer.clone()).unwrap_or_default(),
            Self::Named(_) => String::new(),
        }
    }
}

impl SentMessage {
    /// Returns the text of the message; `None` unless it is sent as one text message.
    pub(crate) fn text(&self) -> Option<Value> {
        self.raw.get("text").cloned()
    }

    /// Returns the correlation id of the message; `None` where it has none, or a function generates it anew for each
    /// message.
    pub(crate) fn id(&self, message: &MessageType) -> Option<String> {
        let id = self.value.as_ref()?.pointer(message.correlation.as_ref()?)?;
        let anew = id.as_str().is_some_and(expressions::varies);
        (!anew).then(|| id.to_string())
    }
}

/// Returns the message with these edits.
pub(crate) fn edit_message(
    corpus: &Corpus,
    message: &MessageType,
    base: &Value,
    edits: Vec<PayloadEdit>,
) -> SentMessage {
    edit_plain_message(corpus, message, base, corpus.settings.filled(message, base), edits)
}

/// Returns the message with these edits; `plain` is `base` with the values of its expressions.
fn edit_plain_message(
    corpus: &Corpus,
    message: &MessageType,
    base: &Value,
    plain: Value,
    edits: Vec<PayloadEdit>,
) -> SentMessage {
    let applied = payload::apply_edits(plain, &edits);
    let class = payload::classify(&corpus.pack, message, applied.as_ref());
    let (text, value) = payload::payload_text_and_value(base, &edits);
    SentMessage {
        raw: json!({ "text": text }),
        class,
        plain: applied,
        value,
        description: MutationDescription::Edited(edits),
    }
}

/// Draws valid values for some members, or for all. Members that identify the message, members with expressions (such
/// as the identity of the sender), and `fixed` ones stay.
pub(crate) fn draw_valid_edits(
    message: &MessageType,
    base: &Value,
    fixed: &[String],
    dice: &mut RandomSource,
) -> Vec<PayloadEdit> {
    let shape = SchemaShape::from_schema(&message.schema.source, &mut BranchChoice::One(dice));
    let literals = message.matcher.literal_members();
    let required = shape.required_members();
    let is_filled =
        |name: &str| base.get(name).and_then(Value::as_str).is_some_and(|text| !expressions::is_literal(text));
    let stays = |name: &str| literals.contains_key(name) || fixed.iter().any(|fixed| fixed == name) || is_filled(name);
    let free: Vec<&str> = shape.member_names().into_iter().filter(|name| !stays(name)).collect();
    let all = dice.one_in(3);
    let few = 1 + dice.draw_below(3);
    let mut edits = Vec::new();
    for name in &free {
        if !all && dice.draw_below(free.len().max(1)) >= few {
            continue;
        }
        let pointer = format!("/{}", crate::syntax::matcher::escape(name));
        let present = base.get(*name).is_some();
        if present && !required.contains(name) && dice.one_in(3) {
            edits.push(PayloadEdit { pointer, change: PayloadChange::Remove });
            continue;
        }
        let inner = shape.member(name, &mut BranchChoice::One(dice));
        edits.push(PayloadEdit { pointer, change: PayloadChange::Put(value::draw_value(&inner, dice)) });
    }
    if !shape.is_closed() && (edits.is_empty() || dice.one_in(6)) {
        let pointer = format!("/x_{}", value::draw_word(dice));
        let names = base.as_object().into_iter().flat_map(Map::keys);
        let value =
            if dice.one_in(2) { value::draw_any_value(dice, 0) } else { value::object_with_members(names, dice) };
        edits.push(PayloadEdit { pointer, change: PayloadChange::Put(value) });
    }
    if dice.one_in(4) {
        edits.push(PayloadEdit { pointer: String::new(), change: PayloadChange::Backwards });
    }
    edits
}

fn describe_edit(edit: &PayloadEdit) -> String {
    let place = if edit.pointer.is_empty() { "the message" } else { &edit.pointer };
    let short = |text: &str| crate::syntax::matcher::shorten(text, 60);
    match &edit.change {
        PayloadChange::Put(value) => format!("{place} is {}", short(&value.to_string())),
        PayloadChange::Evaluate(expression) => format!("{place} is {}", short(&json!(expression).to_string())),
        PayloadChange::Remove => format!("{place} is missing"),
        PayloadChange::Text(text) => format!("{place} is {}", short(text)),
        PayloadChange::Twice(value) => {
            format!("{place} is there twice, the second time as {}", short(&value.to_string()))
        }
        PayloadChange::Rename(name) => format!("{place} is renamed to {name}"),
        PayloadChange::Backwards => format!("{place} is written with its members in reverse order"),
    }
}
