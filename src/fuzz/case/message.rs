//! The mutated message of a case: a valid message as it fits a prefix, with a mutation applied.

use std::collections::BTreeMap;
use std::sync::LazyLock;

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
use crate::generate::schema_shape::SchemaShape;
use crate::generate::value;
use crate::protocol::MessageType;
use crate::scenario::compose;
use crate::scenario::template::escape_texts;
use crate::syntax::matcher::{member_pointer, members_of};

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
    /// The members of `base` that need new values.
    ids: Vec<DraftId>,
    sites: Vec<&'a MutationSite>,
    /// JSON pointers to the members and items that `explored` does not change.
    fixed: Vec<String>,
    /// Whether the message must be answered, so that it may not be long: a hub may ignore or refuse a long one.
    short: bool,
}

impl<'a> MessageDraft<'a> {
    pub(crate) fn new(corpus: &'a Corpus, cell: FuzzCell, prefix: &'a CasePrefix) -> Option<Self> {
        let message = corpus.pack.messages.get(cell.message)?;
        let base = prefix.message.clone();
        let plain = corpus.settings.filled(message, &base);
        let ids = DraftId::find_all(corpus, message, &base, &plain);
        let is_asked = |site: &&MutationSite| cell.mutation == MutationKind::Mutated(site.mutation);
        let sites = prefix.sites.iter().filter(is_asked).collect();
        // No id may be used twice on one connection, so `set_ids` sets it.
        let short = cell.placement == Placement::Kept;
        let pointers = message.correlation.iter().chain(ids.iter().map(|id| &id.pointer));
        let fixed = pointers.filter(|_| short).cloned().collect();
        let mut draft = Self { corpus, message, mutation: cell.mutation, base, plain, ids, sites, fixed, short };
        if short && cell.mutation == MutationKind::Explored {
            draft.ensure_answer(&prefix.role);
        }
        Some(draft)
    }

    /// Adds the members that an entry of `fuzz.answers` needs to recognise the message, if the hub does not answer the
    /// message otherwise: the placement `kept` needs an answer to every message.
    fn ensure_answer(&mut self, role: &str) {
        let is_answered = |payload: &Value| {
            let (class, placement, taken_for) = (PayloadClass::Valid, Placement::Kept, Some(&*self.message.name));
            let input = InputProperties { class, placement, role, taken_for, payload: Some(payload) };
            self.corpus.expected_answer(&input).is_some_and(ExpectedAnswer::is_message)
        };
        if is_answered(&self.plain) {
            return;
        }
        let asked = self.corpus.answered_input_values().find(|values| is_answered(&with_values(&self.plain, values)));
        for (pointer, value) in asked.into_iter().flatten() {
            self.fix_value(&pointer, value.clone(), value);
        }
    }

    /// Sets a member or item, to `value` in the message and to `plain` in its form without expressions, and keeps it
    /// unchanged.
    fn fix_value(&mut self, pointer: &str, value: Value, plain: Value) {
        compose::put_at_pointer(&mut self.base, pointer, value);
        compose::put_at_pointer(&mut self.plain, pointer, plain);
        self.fixed.push(pointer.to_owned());
    }

    /// Gives the message ids of its own, if it has ids.
    pub(crate) fn set_ids(&mut self, index: usize) -> &Self {
        for id in &self.ids {
            let (written, plain) = id.numbered(index);
            for (message, value) in [(&mut self.base, written), (&mut self.plain, plain)] {
                message.pointer_mut(&id.pointer).into_iter().for_each(|member| *member = value.clone());
            }
        }
        self
    }

    /// Gives a request another id by which its answer is found, if each request needs its own.
    pub(crate) fn renew_correlation(&mut self) -> &Self {
        let fresh = self.corpus.fresh_values(self.message);
        let is_fresh = |id: &DraftId| fresh.iter().any(|fresh| fresh.pointer == id.pointer);
        self.ids.retain(|id| Some(&id.pointer) == self.message.correlation.as_ref() && is_fresh(id));
        self.set_ids(1)
    }

    /// Draws a mutated message, and the site of the mutation if it concerns one.
    pub(crate) fn draw_mutated(&self, dice: &mut RandomSource) -> Option<(SentMessage, Option<&'a MutationSite>)> {
        let Self { corpus, message, base, plain, .. } = self;
        match self.mutation {
            MutationKind::Corrupted(corruption) => {
                let text = corruption.corrupt(base, dice)?;
                let value: Option<Value> =
                    serde_json::from_str(&text).ok().filter(|_| corruption.class() != PayloadClass::Unspecified);
                // A document may allow any JSON, and half a number is a number.
                let class = value.as_ref().map(|value| payload::classify(&corpus.pack, message, Some(value)));
                let class = class.unwrap_or(corruption.class());
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
            MutationKind::Churn(_) | MutationKind::Untimely(_) => {
                let description = MutationDescription::Named(self.mutation.name());
                Some((SentMessage { description, ..self.apply_edits(Vec::new()) }, None))
            }
            MutationKind::Mutated(_) => (0..MAX_ATTEMPTS).find_map(|_| {
                let site = dice.pick(&self.sites)?;
                let foreign = match site.mutation {
                    MemberMutation::ForeignId => {
                        corpus.identities(message, corpus.observer_role().unwrap_or_default(), OBSERVER)
                    }
                    _ => Vec::new(),
                };
                // Few messages are repeated by a hub, so all of a message's open places are filled.
                let all =
                    if site.mutation == MemberMutation::Open { &self.sites[..] } else { std::slice::from_ref(site) };
                let mut edits = Vec::new();
                for site in all {
                    edits.extend(schema::draw_edits(&corpus.pack, message, site, plain, &foreign, self.short, dice)?);
                }
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
                _ => open.extend(
                    members_of(value)
                        .into_iter()
                        .map(|(name, part)| (format!("{pointer}{}", member_pointer(&name)), part)),
                ),
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
        let (Some(value), Some(plain)) = (&first.value, &first.plain) else { return };
        for (name, part) in members_of(value) {
            let pointer = member_pointer(&name);
            let is_alike =
                |sent: &SentMessage| sent.value.as_ref().and_then(|sent| sent.pointer(&pointer)) == Some(part);
            let Some(plain) = plain.pointer(&pointer).filter(|_| all.iter().all(is_alike)) else { continue };
            self.fix_value(&pointer, part.clone(), plain.clone());
        }
    }
}

/// Returns the message with these values, by JSON pointer.
fn with_values(message: &Value, values: &BTreeMap<String, Value>) -> Value {
    let mut message = message.clone();
    for (pointer, value) in values {
        compose::put_at_pointer(&mut message, pointer, value.clone());
    }
    message
}

/// A member of a message that needs a new value each time.
struct DraftId {
    pointer: String,
    /// The value as the message has it, and the same without expressions.
    written: Value,
    plain: Value,
    /// A text that makes another value, for an id that cannot be made longer.
    maker: Option<String>,
}

/// Characters of an id that hold the number of the message.
const ID_INDEX_CHARS: usize = 4;

impl DraftId {
    fn find_all(corpus: &Corpus, message: &MessageType, base: &Value, plain: &Value) -> Vec<Self> {
        let known = corpus.fresh_values(message);
        let makers = known.iter().map(|fresh| (&fresh.pointer, fresh.maker.clone()));
        // The id by which answers are found may be used only once even if the pack does not say so.
        let correlation =
            message.correlation.iter().filter(|pointer| known.iter().all(|fresh| fresh.pointer != **pointer));
        let id = |(pointer, maker): (&String, Option<String>)| {
            let (written, plain_id) = (base.pointer(pointer)?.clone(), plain.pointer(pointer)?.clone());
            let is_longer_allowed = || {
                let mut probe = plain.clone();
                let longer = json!(format!("{}-{}", plain_id.as_str().unwrap_or_default(), MAX_ID_NUMBER));
                compose::put_at_pointer(&mut probe, pointer, longer);
                message.schema.violations(&probe).len() <= message.schema.violations(plain).len()
            };
            let maker = maker.filter(|_| !is_longer_allowed());
            Some(Self { pointer: pointer.clone(), written, plain: plain_id, maker })
        };
        makers.chain(correlation.map(|pointer| (pointer, None))).filter_map(id).collect()
    }

    /// Returns the id of the message with this number: as the message has it, and without expressions.
    fn numbered(&self, index: usize) -> (Value, Value) {
        let same = |value: Value| (value.clone(), value);
        match &self.written {
            Value::Number(number) => same(json!(number.as_u64().unwrap_or_default().saturating_add(index as u64))),
            Value::String(text) if expressions::is_literal(text) => {
                // Keeps the length and the beginning.
                let kept = text.char_indices().nth_back(ID_INDEX_CHARS - 1).map_or(text.len(), |(at, _)| at);
                same(json!(format!("{}{index:0ID_INDEX_CHARS$x}", &text[..kept])))
            }
            Value::String(text) if index > 0 => match (expressions::only(text), &self.maker) {
                (Some(name), None) if name.bare_name().is_some() => {
                    (json!(format!("${{{} ~ '-{index}'}}", name.source)), self.plain.clone())
                }
                (Some(name), Some(maker)) if name.bare_name().is_some() => (json!(maker), self.plain.clone()),
                _ => (self.written.clone(), self.plain.clone()),
            },
            _ => (self.written.clone(), self.plain.clone()),
        }
    }
}

/// The greatest number that makes an id longer.
const MAX_ID_NUMBER: usize = 999;

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
    let base = &with_known_parents(base, &plain, &edits);
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

/// Whether a value is a text with an expression.
fn is_expression(value: Option<&Value>) -> bool {
    value.and_then(Value::as_str).is_some_and(|text| !expressions::is_literal(text))
}

/// Replaces each expression whose value contains an edited member by that value, and returns the message.
fn with_known_parents(base: &Value, plain: &Value, edits: &[PayloadEdit]) -> Value {
    let mut known = base.clone();
    for edit in edits {
        for (end, _) in edit.pointer.match_indices('/') {
            let parent = &edit.pointer[..end];
            if let (Some(value), Some(plain)) =
                (known.pointer_mut(parent).filter(|value| is_expression(Some(value))), plain.pointer(parent))
            {
                *value = escape_texts(plain);
            }
        }
    }
    known
}

/// A part of a message that `explored` may change.
struct FreePlace<'a> {
    pointer: String,
    /// Whether the message has it.
    is_present: bool,
    is_optional: bool,
    /// The shape of the object or list that it is part of, and its name or index there; for the whole message, its own
    /// shape.
    around: SchemaShape<'a>,
    place: FreePlaceKind,
}

enum FreePlaceKind {
    Whole,
    Member(String),
    Item(usize),
}

impl FreePlace<'_> {
    fn draw(&self, dice: &mut RandomSource) -> Value {
        let shape = match &self.place {
            FreePlaceKind::Whole => self.around.clone(),
            FreePlaceKind::Member(name) => self.around.draw_member(name, dice),
            FreePlaceKind::Item(index) => self.around.draw_item(*index, dice),
        };
        value::draw_value(&shape, dice)
    }
}

/// Collects the parts of a message that may have other values, and the objects and lists that may get more: the members of
/// the object that the message is, or the items of the list and, of items that are objects or lists, their parts. A
/// part stays if `stays` is true of its pointer.
fn collect_free_places<'a>(
    shape: &SchemaShape<'a>,
    value: &Value,
    pointer: &str,
    stays: &dyn Fn(&str) -> bool,
    dice: &mut RandomSource,
    (free, open): (&mut Vec<FreePlace<'a>>, &mut Vec<String>),
) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let here = format!("{pointer}/{index}");
                if matches!(item, Value::Array(_) | Value::Object(_)) {
                    let inner = shape.draw_item(index, dice);
                    collect_free_places(&inner, item, &here, stays, dice, (free, open));
                } else if !stays(&here) {
                    let (around, place) = (shape.clone(), FreePlaceKind::Item(index));
                    let is_optional = index + 1 == items.len();
                    free.push(FreePlace { pointer: here, is_present: true, is_optional, around, place });
                }
            }
            if !shape.is_full_list(items.len()) {
                open.push(pointer.to_owned());
            }
        }
        Value::Object(members) => {
            let required = shape.required_members();
            for name in shape.member_names() {
                let here = format!("{pointer}{}", member_pointer(name));
                if !stays(&here) {
                    let (is_present, is_optional) = (members.contains_key(name), !required.contains(name));
                    let (around, place) = (shape.clone(), FreePlaceKind::Member(name.to_owned()));
                    free.push(FreePlace { pointer: here, is_present, is_optional, around, place });
                }
            }
            if !shape.is_closed() {
                open.push(pointer.to_owned());
            }
        }
        _ => {}
    }
}

/// Draws valid values for some parts of a message, or for all. Parts that identify the message, parts with expressions
/// (such as the identity of the sender), and `fixed` ones stay.
pub(crate) fn draw_valid_edits(
    message: &MessageType,
    base: &Value,
    fixed: &[String],
    dice: &mut RandomSource,
) -> Vec<PayloadEdit> {
    let shape = SchemaShape::draw_form(&message.schema.source, dice);
    let literals = payload::literal_values(&message.matcher);
    let is_within = |inner: &str, place: &str| {
        inner.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let stays = |place: &str| {
        let mut kept = literals.keys().chain(fixed);
        kept.any(|kept| is_within(kept, place)) || is_expression(base.pointer(place))
    };
    let (mut free, mut open) = (Vec::new(), Vec::new());
    collect_free_places(&shape, base, "", &stays, dice, (&mut free, &mut open));
    // A message without parts, or one that may be anything.
    if (free.is_empty() && shape.member_names().is_empty()) && !stays("") {
        let (around, place) = (shape, FreePlaceKind::Whole);
        free.push(FreePlace { pointer: String::new(), is_present: true, is_optional: false, around, place });
    }
    let all = dice.one_in(3);
    let few = 1 + dice.draw_below(3);
    let mut edits = Vec::new();
    for place in &free {
        if !all && dice.draw_below(free.len().max(1)) >= few {
            continue;
        }
        let pointer = place.pointer.clone();
        if place.is_present && place.is_optional && dice.one_in(3) {
            edits.push(PayloadEdit { pointer, change: PayloadChange::Remove });
            continue;
        }
        edits.push(PayloadEdit { pointer, change: PayloadChange::Put(place.draw(dice)) });
    }
    if !open.is_empty() && (edits.is_empty() || dice.one_in(6)) {
        let around = if open.len() > 1 { dice.pick(&open) } else { open.first() }.cloned().unwrap_or_default();
        let pointer = match base.pointer(&around) {
            Some(Value::Array(items)) => format!("{around}/{}", items.len()),
            _ => format!("{around}/x_{}", value::draw_word(dice)),
        };
        let names = base.as_object().into_iter().flat_map(Map::keys);
        let value =
            if dice.one_in(2) { value::draw_any_value(dice, 0) } else { value::object_with_members(names, dice) };
        // Before the others, which may replace the message.
        edits.insert(0, PayloadEdit { pointer, change: PayloadChange::Put(value) });
    }
    if dice.one_in(4) {
        edits.push(PayloadEdit { pointer: String::new(), change: PayloadChange::Backwards });
    }
    edits
}

/// Values at the limits of a type, and values that a hub may misread as something else.
static EDGE_VALUES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let nested = json!({ "": [], "b": null, "c": 0.1, "__proto__": { "x": 1 }, "big": 9_007_199_254_740_993_u64 });
    let texts = ["", "<&>", "\u{0}", "007", "1e3", "null", "__proto__", "constructor", "e\u{301}", "\u{e9}", " x "];
    let lengths = [255, 65_536];
    let texts = texts.into_iter().map(Value::from).chain(lengths.into_iter().map(|length| json!("x".repeat(length))));
    let others = [
        json!(0),
        Value::Null,
        json!(false),
        json!(-1),
        json!(0.5),
        json!(9_007_199_254_740_992_u64),
        json!([]),
        json!({}),
        nested,
        json!([null, [], {}, "", 0]),
    ];
    texts.chain(others).collect()
});

/// Draws edge values for one or two parts of a message, or removes an optional one. The message need not stay valid.
pub(crate) fn draw_edge_edits(message: &MessageType, base: &Value, dice: &mut RandomSource) -> Vec<PayloadEdit> {
    let shape = SchemaShape::draw_form(&message.schema.source, dice);
    let literals = payload::literal_values(&message.matcher);
    // An id must not be used twice.
    let kept: Vec<&String> = literals.keys().chain(&message.correlation).collect();
    let stays = |place: &str| kept.iter().any(|kept| kept.starts_with(place)) || is_expression(base.pointer(place));
    let (mut free, mut open) = (Vec::new(), Vec::new());
    collect_free_places(&shape, base, "", &stays, dice, (&mut free, &mut open));
    let mut edits = Vec::new();
    for _ in 0..1 + dice.draw_below(2) {
        let (Some(place), Some(value)) = (dice.pick(&free), dice.pick(&EDGE_VALUES)) else { continue };
        let pointer = place.pointer.clone();
        let change = match place.is_present && place.is_optional && dice.one_in(8) {
            true => PayloadChange::Remove,
            false => PayloadChange::Put(value.clone()),
        };
        edits.push(PayloadEdit { pointer, change });
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
