//! Mutations of one part of a message. Finds the parts whose schema can be violated, and violates it. The validator then
//! classifies the message, so a message that fits the schema is never called invalid.

use serde_json::{Value, json};

use super::payload::{self, PayloadChange, PayloadEdit};
use crate::generate::rng::RandomSource;
use crate::generate::schema_shape::SchemaShape;
use crate::generate::value;
use crate::protocol::{MessageType, Pack};
use crate::scenario::template::escape_expressions;
use crate::syntax::json_schema::json_type;
use crate::syntax::matcher::member_pointer;

/// What is done to one part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberMutation {
    Missing,
    Null,
    WrongType,
    OutOfRange,
    UnknownValue,
    WrongForm,
    Extra,
    Empty,
    Huge,
    Twice,
    WrongDiscriminator,
    WrongCase,
    ForeignId,
    Digits,
    Deep,
    Surrogate,
    Open,
}

impl MemberMutation {
    pub const ALL: [Self; 17] = [
        Self::Missing,
        Self::Null,
        Self::WrongType,
        Self::OutOfRange,
        Self::UnknownValue,
        Self::WrongForm,
        Self::Extra,
        Self::Empty,
        Self::Huge,
        Self::Twice,
        Self::WrongDiscriminator,
        Self::WrongCase,
        Self::ForeignId,
        Self::Digits,
        Self::Deep,
        Self::Surrogate,
        Self::Open,
    ];

    /// Returns why a message has no place to which the mutation applies.
    pub fn why_no_place(self) -> &'static str {
        match self {
            Self::Missing => "the schema requires no part",
            Self::Null => "the schema allows null in every place",
            Self::WrongType => "the schema states no type",
            Self::OutOfRange => "the schema has no bounds",
            Self::UnknownValue => "the schema lists no values",
            Self::WrongForm => "the schema has no pattern and no format",
            Self::Extra => "the schema allows further members and items",
            Self::Empty | Self::Huge => "the schema has no text, list, number or inner object",
            Self::Twice => "the example has no member",
            Self::WrongDiscriminator => "the message is not recognised by a value",
            Self::WrongCase => "the example has no member and no listed value",
            Self::ForeignId => "the observer's role identifies itself in no member of the message",
            Self::Digits => "the schema has no number",
            Self::Deep => "the schema restricts every place",
            Self::Surrogate => "the schema has no text",
            Self::Open => "the schema restricts every place, and allows no further members or items",
        }
    }

    /// Describes the mutation in one sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Missing => "A required member or item of the message is left out.",
            Self::Null => "A value of the message is null, where the schema does not allow that.",
            Self::WrongType => {
                "A value has another JSON type than the schema states, such as a number instead of a text."
            }
            Self::OutOfRange => "A number, a length or a count lies outside the bounds of the schema.",
            Self::UnknownValue => "A value is none of those that the schema lists.",
            Self::WrongForm => "A text does not match the pattern or the format of the schema.",
            Self::Extra => "The message has a member or item that the schema forbids.",
            Self::Empty => "A text, list or object is empty, or a number is 0.",
            Self::Huge => "A text, list, number or object is far larger than usual, but not forbidden.",
            Self::Twice => "A member occurs twice, the second time with another value.",
            Self::WrongDiscriminator => {
                "The value by which the message is recognised belongs to no message of the document."
            }
            Self::WrongCase => "A name of a member, or a listed value, is written in upper or lower case instead.",
            Self::ForeignId => "The sender gives the identity of another client as its own.",
            Self::Digits => "A number has a thousand digits.",
            Self::Deep => "A value is nested deeply, where the schema does not restrict it.",
            Self::Surrogate => "A text has half of a surrogate pair, which no Unicode text has.",
            Self::Open => {
                "A place that the schema leaves open, or a further member or item, has a value at the limits of what parsers can represent."
            }
        }
    }

    /// Returns the name of the mutation in reports and for `--mutation`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Null => "null",
            Self::WrongType => "wrong-type",
            Self::OutOfRange => "out-of-range",
            Self::UnknownValue => "unknown-value",
            Self::WrongForm => "wrong-form",
            Self::Extra => "extra-member",
            Self::Empty => "empty",
            Self::Huge => "huge",
            Self::Twice => "duplicate-key",
            Self::WrongDiscriminator => "wrong-discriminator",
            Self::WrongCase => "wrong-case",
            Self::ForeignId => "foreign-id",
            Self::Digits => "thousand-digits",
            Self::Deep => "deep",
            Self::Surrogate => "lone-surrogate",
            Self::Open => "open-place",
        }
    }
}

/// A place in a message to which a mutation can be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MutationSite {
    pub mutation: MemberMutation,
    /// JSON pointer to the member or item, or to the whole message; for `Extra`, to what gets a further member or item.
    pub pointer: String,
}

/// Levels of members that are mutated one by one, and places in all. Items of a list do not count as a level.
const MAX_MEMBER_LEVELS: usize = 3;
const MAX_PLACES: usize = 4_000;

/// A place in a message, as its schema and its example show it.
struct SchemaPlace<'p, 's> {
    pointer: &'p str,
    shape: &'p SchemaShape<'s>,
    /// The value in the example.
    value: Option<&'p Value>,
    parent: PlaceParent,
    required: bool,
}

/// What a place is part of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PlaceParent {
    /// The place is the whole message.
    None,
    Object,
    List,
}

/// Returns all sites of a message, in the order of its schema. `identities` are pointers to members that identify the
/// sender.
pub fn message_sites(message: &MessageType, identities: &[&str]) -> Vec<MutationSite> {
    let root = SchemaShape::from_schema(&message.schema.source);
    let example = message.starting_value();
    let literals = payload::literal_values(&message.matcher);
    let mut sites = Vec::new();
    let place =
        SchemaPlace { pointer: "", shape: &root, value: Some(&example), parent: PlaceParent::None, required: true };
    visit_places(&place, 0, &mut MAX_PLACES.clone(), &mut |place| {
        let mut mutations = place.mutations();
        if literals.contains_key(place.pointer) {
            mutations.push(MemberMutation::WrongDiscriminator);
        }
        if identities.contains(&place.pointer) {
            mutations.push(MemberMutation::ForeignId);
        }
        let site = |mutation| MutationSite { mutation, pointer: place.pointer.to_owned() };
        sites.extend(mutations.into_iter().map(site));
    });
    sites
}

impl SchemaPlace<'_, '_> {
    /// Returns the mutations that the schema and the example make possible.
    fn mutations(&self) -> Vec<MemberMutation> {
        let shape = self.shape;
        let mut found = Vec::new();
        let mut add = |mutation, applies: bool| found.extend(applies.then_some(mutation));
        if self.parent == PlaceParent::None && self.value.is_some_and(Value::is_object) {
            // The mutation `no-object` replaces the whole message.
            add(MemberMutation::Extra, shape.is_closed());
            add(MemberMutation::Deep, true);
            add(MemberMutation::Open, !shape.is_closed());
            return found;
        }
        let (values, types, kinds) = (shape.allowed_values(), shape.types(), shape.kinds());
        let restricted = !types.is_empty() || values.is_some();
        let is_kind = |kind: &str| kinds.contains(&kind);
        let has_lower = |words: [&'static str; 2]| words.iter().any(|word| shape.lower_bound(word).is_some());
        let has_upper = |words: [&'static str; 4]| words.iter().any(|word| shape.upper_bound(word).is_some());
        let needs_some = |word| shape.lower_bound(word).is_some_and(|least| least > 0.0);
        let present = self.value.is_some();
        add(MemberMutation::Missing, self.parent != PlaceParent::None && self.required && present);
        add(MemberMutation::Null, restricted && !types.contains(&"null"));
        add(MemberMutation::WrongType, restricted);
        let bounded = has_lower(["minimum", "exclusiveMinimum"])
            || has_upper(["maximum", "exclusiveMaximum", "maxLength", "maxItems"])
            || needs_some("minLength")
            || needs_some("minItems");
        add(MemberMutation::OutOfRange, bounded);
        add(MemberMutation::UnknownValue, values.is_some());
        add(
            MemberMutation::WrongForm,
            shape.keyword_text("pattern").is_some() || shape.keyword_text("format").is_some(),
        );
        let is_full = match self.value {
            Some(Value::Array(items)) => shape.is_full_list(items.len()),
            _ => types.contains(&"object") && shape.is_closed(),
        };
        add(MemberMutation::Extra, is_full);
        let is_long = is_kind("string") || is_kind("array") || is_kind("object");
        let is_number = is_kind("integer") || is_kind("number");
        let is_open = shape.is_unrestricted() || types.is_empty() && values.is_none();
        add(MemberMutation::Empty, is_long);
        add(MemberMutation::Huge, is_long || is_number || is_open);
        add(MemberMutation::Digits, is_number);
        let is_list = self.parent == PlaceParent::None && self.value.is_some_and(Value::is_array);
        add(MemberMutation::Deep, is_open || is_list);
        let takes_more = match self.value {
            Some(Value::Array(items)) => is_kind("array") && !shape.is_full_list(items.len()),
            _ => is_kind("object") && !shape.is_closed(),
        };
        add(MemberMutation::Open, is_open || takes_more);
        add(MemberMutation::Surrogate, is_kind("string"));
        add(MemberMutation::Twice, present && self.parent == PlaceParent::Object);
        let is_word = values.is_some() && self.value.is_some_and(Value::is_string);
        add(MemberMutation::WrongCase, present && (self.parent == PlaceParent::Object || is_word));
        found
    }
}

/// Calls `see` for a place and for everything in it that the schema describes.
fn visit_places(
    place: &SchemaPlace<'_, '_>,
    level: usize,
    left: &mut usize,
    see: &mut impl FnMut(&SchemaPlace<'_, '_>),
) {
    see(place);
    if level == MAX_MEMBER_LEVELS {
        return;
    }
    let mut visit = |name: &str, shape: SchemaShape<'_>, value, parent, required, level| {
        let Some(rest) = left.checked_sub(1) else { return };
        *left = rest;
        let pointer = format!("{}{}", place.pointer, member_pointer(name));
        visit_places(&SchemaPlace { pointer: &pointer, shape: &shape, value, parent, required }, level, left, see);
    };
    if let Some(Value::Array(items)) = place.value {
        let least = place.shape.lower_bound("minItems").unwrap_or(0.0);
        let prefix = place.shape.prefix_length();
        // Items after the prefix are alike.
        for (index, item) in items.iter().enumerate().take(prefix + 1) {
            let shape = place.shape.item(index);
            let required = index < prefix || (index as f64) < least;
            visit(&index.to_string(), shape, Some(item), PlaceParent::List, required, level);
        }
        return;
    }
    let required = place.shape.required_members();
    for name in place.shape.member_names() {
        let shape = place.shape.member(name);
        let value = place.value.and_then(|value| value.get(name));
        visit(name, shape, value, PlaceParent::Object, required.contains(name), level + 1);
    }
}

/// Draws the edits of a mutation to the message `plain`, none of them long if it must be `short`. `foreign` are the
/// identities of another client: pointers to their members, and expressions. `None` where the message gives nothing to
/// change.
pub fn draw_edits(
    pack: &Pack,
    message: &MessageType,
    site: &MutationSite,
    plain: &Value,
    foreign: &[(String, String)],
    short: bool,
    dice: &mut RandomSource,
) -> Option<Vec<PayloadEdit>> {
    let pointer = site.pointer.clone();
    let path: Vec<String> = pointer.split('/').skip(1).map(crate::syntax::matcher::unescape).collect();
    let shape = SchemaShape::at_path(&message.schema.source, &path);
    let now = plain.pointer(&pointer);
    let edit = |change| Some(vec![PayloadEdit { pointer: pointer.clone(), change }]);
    let put = |value: Value| edit(PayloadChange::Put(value));
    let text = |text: String| edit(PayloadChange::Text(text));
    match site.mutation {
        MemberMutation::Missing => edit(PayloadChange::Remove),
        MemberMutation::Null => put(Value::Null),
        MemberMutation::WrongType => put(value_of_other_type(&shape, now, dice)),
        MemberMutation::OutOfRange => put(value_out_of_range(&shape, now, dice)?),
        MemberMutation::UnknownValue => put(unknown_value(&shape, dice)),
        MemberMutation::WrongForm => {
            put(json!(dice.pick(&["", "not it", "0", "%", "2024-13-45T25:61:61Z", "..", "１２３"])?))
        }
        MemberMutation::Extra => {
            let name = match now {
                Some(Value::Array(items)) => items.len().to_string(),
                _ => format!("x_{}", value::draw_word(dice)),
            };
            let change = PayloadChange::Put(value::draw_any_value(dice, 4));
            Some(vec![PayloadEdit { pointer: format!("{pointer}/{name}"), change }])
        }
        MemberMutation::Empty => put(match shape.kinds().first() {
            Some(&"array") => json!([]),
            Some(&"object") => json!({}),
            _ => json!(""),
        }),
        MemberMutation::Huge => put(huge_value(&shape, now, short, dice)),
        MemberMutation::Twice => {
            let again = if dice.one_in(2) { now?.clone() } else { value::draw_any_value(dice, 5) };
            edit(PayloadChange::Twice(again))
        }
        MemberMutation::WrongDiscriminator => put(foreign_discriminator(pack, &pointer, now, dice)?),
        MemberMutation::WrongCase => {
            let (name, value) = (path.last().map_or("", String::as_str), now?);
            match value {
                Value::String(text) if shape.allowed_values().is_some() && dice.one_in(2) => {
                    put(json!(swap_letter_case(text)))
                }
                _ if swap_letter_case(name) != name => edit(PayloadChange::Rename(swap_letter_case(name))),
                _ => None,
            }
        }
        MemberMutation::ForeignId => {
            let (_, expression) = foreign.iter().find(|(of, _)| *of == pointer)?;
            edit(PayloadChange::Evaluate(expression.clone()))
        }
        MemberMutation::Digits => text(match dice.draw_below(4) {
            0 => "9".repeat(1000),
            1 => format!("0.{}", "3".repeat(1000)),
            2 => "1e400".to_owned(),
            _ => "-1e-400".to_owned(),
        }),
        MemberMutation::Deep => {
            // Rarely deep enough to overflow the stack of a recursive parser, since that takes long to make.
            let levels = if dice.one_in(16) { 200_000 } else { *dice.pick(&[100, 1000, 10_000])? };
            let pointer = if pointer.is_empty() { payload::place_to_add(plain, "x_deep") } else { pointer.clone() };
            let deep = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            Some(vec![PayloadEdit { pointer, change: PayloadChange::Text(deep) }])
        }
        MemberMutation::Open => Some(add_unlisted_values(&shape, &pointer, now, dice)),
        MemberMutation::Surrogate => {
            text((*dice.pick(&[r#""\ud800""#, r#""\udc00\ud800""#, r#""a\ud83db""#, r#""\uDFFF""#])?).to_owned())
        }
    }
}

/// Returns the edits that add values which an open schema allows: members with odd names, an item, or another value.
fn add_unlisted_values(
    shape: &SchemaShape<'_>,
    pointer: &str,
    now: Option<&Value>,
    dice: &mut RandomSource,
) -> Vec<PayloadEdit> {
    let is_object = match now {
        None => shape.kinds().contains(&"object") && !shape.is_unrestricted(),
        Some(now) => now.is_object(),
    };
    let first = dice.draw_below(ODD_NAMES.len());
    let mut edit = |pointer| {
        let change = PayloadChange::Text(escape_expressions(&draw_limit(dice)));
        PayloadEdit { pointer, change }
    };
    match now {
        Some(Value::Array(items)) => vec![edit(format!("{pointer}/{}", items.len()))],
        // Two more members, with different kinds of values.
        _ if is_object => {
            let names = [first, first + 1].map(|at| ODD_NAMES[at % ODD_NAMES.len()]);
            names.map(|name| edit(format!("{pointer}{}", member_pointer(name)))).into()
        }
        _ => vec![edit(pointer.to_owned())],
    }
}

/// Names of members that objects of some languages already have, or that are hard to escape.
const ODD_NAMES: [&str; 12] =
    ["", " ", "0", "-1", "__proto__", "constructor", "toString", "a/b~c", "\u{0}", "${x}", "$ref", "e\u{301}"];
/// Numbers at and beyond the limits of 32 and 64 bits, of exact and of all double-precision numbers.
const NUMBERS_AT_LIMITS: [&str; 20] = [
    "2147483647",
    "2147483648",
    "-2147483649",
    "4294967296",
    "9007199254740991",
    "9007199254740993",
    "-9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "1e308",
    "1.7976931348623157e308",
    "1e400",
    "-1e400",
    "5e-324",
    "1e-400",
    "-0",
    "-0.0",
    "0.1000000000000000055511151231257827",
];

/// Draws the JSON text of a value at the limits of what parsers can represent.
fn draw_limit(dice: &mut RandomSource) -> String {
    let number = dice.pick(&NUMBERS_AT_LIMITS).copied().unwrap_or("0").to_owned();
    match dice.draw_below(10) {
        0 => json!(dice.pick(&value::UNUSUAL_TEXTS)).to_string(),
        1 => json!(dice.pick(&["x", "ß", "😀", "\\", "\u{0}"]).copied().unwrap_or("x").repeat(5000)).to_string(),
        2 => format!("{}{number}{}", "[".repeat(100), "]".repeat(100)),
        3 => format!("[{}]", vec![number; 2000].join(",")),
        4 => {
            let name = json!(dice.pick(&ODD_NAMES));
            format!("{{{name}:{{{name}:{number}}}}}")
        }
        5 => number,
        // Few messages are repeated by a hub, so one of them tries all numbers.
        _ => format!("[{}]", NUMBERS_AT_LIMITS.join(",")),
    }
}

/// Returns a value that is none of those that the schema lists.
fn unknown_value(shape: &SchemaShape<'_>, dice: &mut RandomSource) -> Value {
    let value = shape.allowed_values().and_then(|values| dice.pick(&values).map(|value| (*value).clone()));
    match value {
        Some(Value::String(text)) => json!(format!("{text}_{}", value::draw_word(dice))),
        Some(Value::Number(number)) => {
            json!(number.as_f64().unwrap_or(0.0) + 1000.0 + dice.draw_below(1000) as f64)
        }
        _ => json!(value::draw_word(dice)),
    }
}

/// Returns a value by which no message, or another one, is recognised.
fn foreign_discriminator(pack: &Pack, pointer: &str, now: Option<&Value>, dice: &mut RandomSource) -> Option<Value> {
    let others: Vec<Value> = pack
        .messages
        .iter()
        .filter_map(|other| payload::literal_values(&other.matcher).remove(pointer))
        .filter(|other| Some(other) != now)
        .collect();
    Some(match dice.pick(&others) {
        Some(other) if dice.one_in(2) => other.clone(),
        _ if dice.one_in(2) => json!(value::draw_word(dice)),
        _ => json!(dice.pick(&value::UNUSUAL_TEXTS)?),
    })
}

/// Returns a value of a type that the schema does not allow.
fn value_of_other_type(shape: &SchemaShape<'_>, now: Option<&Value>, dice: &mut RandomSource) -> Value {
    let mut types: Vec<String> = shape.types().into_iter().map(str::to_owned).collect();
    types.extend(shape.allowed_values().into_iter().flatten().map(|value| json_type(value).to_owned()));
    types.extend(now.filter(|_| types.is_empty()).map(|value| json_type(value).to_owned()));
    let allows = |kind: &str| types.iter().any(|other| other == kind);
    let numeric = allows("number") || allows("integer");
    let candidates = [
        json!("text"),
        json!("12"),
        json!(12),
        json!(-1),
        json!(0.5),
        json!(true),
        json!(false),
        json!([]),
        json!(["a"]),
        json!({}),
        json!({"a": 1}),
        json!(null),
    ];
    let fitting: Vec<&Value> = candidates
        .iter()
        .filter(|value| {
            // A fraction has the wrong type where only integers are allowed.
            let fraction = **value == json!(0.5) && !allows("number");
            !(allows(json_type(value)) || numeric && value.is_number() && !fraction)
        })
        .collect();
    dice.pick(&fitting).map_or(Value::Null, |value| (*value).clone())
}

fn value_out_of_range(shape: &SchemaShape<'_>, now: Option<&Value>, dice: &mut RandomSource) -> Option<Value> {
    let far = *dice.pick(&[1.0, 1e4, 1e9])?;
    // An excluded bound is itself out of range.
    let beyond = *dice.pick(&[0.0, 1.0, 1e4, 1e9])?;
    let whole =
        |number: f64| if number.fract() == 0.0 && number.abs() < 9e15 { json!(number as i64) } else { json!(number) };
    let mut choices = Vec::new();
    choices.extend(shape.lower_bound("minimum").map(|bound| whole(bound - far)));
    choices.extend(shape.lower_bound("exclusiveMinimum").map(|bound| whole(bound - beyond)));
    choices.extend(shape.upper_bound("maximum").map(|bound| whole(bound + far)));
    choices.extend(shape.upper_bound("exclusiveMaximum").map(|bound| whole(bound + beyond)));
    choices.extend(shape.upper_bound("maxLength").map(|most| json!("x".repeat((most as usize).min(1 << 16) + 1))));
    choices.extend(
        shape
            .lower_bound("minLength")
            .filter(|least| *least > 0.0)
            .map(|least| json!("x".repeat((least as usize - 1).min(1 << 16)))),
    );
    let items = now.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let least = shape.lower_bound("minItems").filter(|least| *least > 0.0);
    choices.extend(least.map(|least| Value::from(&items[..items.len().min(least as usize - 1)])));
    choices.extend(shape.upper_bound("maxItems").map(|most| {
        let more = items.iter().cycle().cloned().chain(std::iter::repeat(Value::Null));
        more.take((most as usize).min(1 << 12) + 1).collect()
    }));
    dice.pick(&choices).cloned()
}

/// Returns a value that is large for its type, but below the limits that documents usually set; sometimes smaller,
/// since hubs have other limits and may ignore long messages.
fn huge_value(shape: &SchemaShape<'_>, now: Option<&Value>, short: bool, dice: &mut RandomSource) -> Value {
    let types = shape.kinds();
    let parts: &[usize] = if short { &[16, 64] } else { &[1, 4, 16, 64] };
    let part = *dice.pick(parts).unwrap_or(&1);
    match dice.pick(&types).copied().unwrap_or("object") {
        "integer" | "number" => {
            dice.pick(&[json!(i64::MAX), json!(u64::MAX), json!(i64::MIN), json!(1e308)]).cloned().unwrap_or(json!(0))
        }
        "array" => (0..5000 / part).map(|number| json!(number)).collect(),
        "object" => Value::Object((0..2000 / part).map(|number| (format!("x_{number}"), json!(number))).collect()),
        // Short, but takes exponential time in a regular expression with nested repetition.
        "string" if dice.one_in(2) => {
            let (now, run) = (now.and_then(Value::as_str).unwrap_or_default(), *dice.pick(&["a", "1"]).unwrap_or(&"a"));
            let joint = if dice.one_in(2) { "" } else { "-" };
            let start: String = now.chars().take(32).collect();
            json!(format!("{start}{joint}{}!", run.repeat(64)))
        }
        _ => json!(dice.pick(&["x", "ß", "😀", "\\"]).copied().unwrap_or("x").repeat(20_000 / part)),
    }
}

/// Changes the case of some letters: `jobId` for `job_id`, `Type` for `type`.
fn swap_letter_case(text: &str) -> String {
    let mut swapped = String::new();
    for (index, letter) in text.chars().enumerate() {
        match letter {
            letter if index == 0 && letter.is_lowercase() => swapped.extend(letter.to_uppercase()),
            letter if index > 0 && letter.is_uppercase() => swapped.extend(letter.to_lowercase()),
            letter => swapped.push(letter),
        }
    }
    swapped
}
