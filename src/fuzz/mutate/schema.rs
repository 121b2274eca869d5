//! Mutations of one member of a message: at which sites its schema gives something to violate, and how. The validator
//! classifies the result, so nothing is called invalid that fits the schema.

use serde_json::{Value, json};

use super::payload::{PayloadChange, PayloadEdit};
use crate::generate::rng::RandomSource;
use crate::generate::schema_shape::{BranchChoice, SchemaShape};
use crate::generate::value;
use crate::protocol::{MessageType, Pack};
use crate::syntax::json_schema::json_type;

/// What is done to one member.
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
}

impl MemberMutation {
    pub const ALL: [Self; 16] = [
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
    ];

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
        }
    }
}

/// A member of a message to which a mutation can be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MutationSite {
    pub mutation: MemberMutation,
    /// JSON pointer to the member; for `Extra`, to the object that gets a further member.
    pub pointer: String,
}

/// Levels of members that are mutated one by one, and members in all.
const MAX_MEMBER_LEVELS: usize = 3;
const MAX_MEMBERS: usize = 4_000;

/// Returns all sites of a message, in the order of its schema. `identities` are pointers to members that identify the
/// sender.
pub fn message_sites(message: &MessageType, identities: &[&str]) -> Vec<MutationSite> {
    let mut sites = Vec::new();
    let root = SchemaShape::from_schema(&message.schema.source, &mut BranchChoice::All);
    let example = message.starting_value();
    visit_members(
        &root,
        &example,
        String::new(),
        0,
        &mut MAX_MEMBERS.clone(),
        &mut |pointer, shape, present, required| {
            let mut add = |mutation| sites.push(MutationSite { mutation, pointer: pointer.to_owned() });
            let values = shape.allowed_values();
            let types = shape.types();
            let restricted = !types.is_empty() || values.is_some();
            if pointer.is_empty() {
                if shape.is_closed() {
                    add(MemberMutation::Extra);
                }
                add(MemberMutation::Deep);
                return;
            }
            if required && present {
                add(MemberMutation::Missing);
            }
            if restricted && !types.contains(&"null") {
                add(MemberMutation::Null);
            }
            if restricted {
                add(MemberMutation::WrongType);
            }
            if ["minimum", "exclusiveMinimum"].iter().any(|bound| shape.lower_bound(bound).is_some())
                || ["maximum", "exclusiveMaximum", "maxLength"].iter().any(|bound| shape.upper_bound(bound).is_some())
                || ["minLength", "minItems"]
                    .iter()
                    .any(|bound| shape.lower_bound(bound).is_some_and(|least| least > 0.0))
            {
                add(MemberMutation::OutOfRange);
            }
            if values.is_some() {
                add(MemberMutation::UnknownValue);
            }
            if shape.keyword_text("pattern").is_some() || shape.keyword_text("format").is_some() {
                add(MemberMutation::WrongForm);
            }
            if types.contains(&"object") && shape.is_closed() {
                add(MemberMutation::Extra);
            }
            if types.iter().any(|kind| matches!(*kind, "string" | "array" | "object")) {
                add(MemberMutation::Empty);
                add(MemberMutation::Huge);
            }
            if types.iter().any(|kind| matches!(*kind, "integer" | "number")) {
                add(MemberMutation::Huge);
                add(MemberMutation::Digits);
            }
            if shape.is_unrestricted() || types.is_empty() && values.is_none() {
                add(MemberMutation::Huge);
                add(MemberMutation::Deep);
            }
            if types.contains(&"string") {
                add(MemberMutation::Surrogate);
            }
            if present {
                add(MemberMutation::Twice);
                add(MemberMutation::WrongCase);
            }
            if message
                .matcher
                .literal_members()
                .keys()
                .any(|name| pointer == format!("/{}", crate::syntax::matcher::escape(name)))
            {
                add(MemberMutation::WrongDiscriminator);
            }
            if identities.contains(&pointer) {
                add(MemberMutation::ForeignId);
            }
        },
    );
    sites
}

/// Calls `see` for the message and its members, with pointer, shape, whether the example has it, and whether it is
/// required.
fn visit_members<'a>(
    shape: &SchemaShape<'a>,
    example: &Value,
    pointer: String,
    level: usize,
    left: &mut usize,
    see: &mut impl FnMut(&str, &SchemaShape<'a>, bool, bool),
) {
    if level == 0 {
        see(&pointer, shape, true, true);
    }
    if level == MAX_MEMBER_LEVELS {
        return;
    }
    let required = shape.required_members();
    for name in shape.member_names() {
        let Some(rest) = left.checked_sub(1) else { return };
        *left = rest;
        let inner = shape.member(name, &mut BranchChoice::All);
        let here = format!("{pointer}/{}", crate::syntax::matcher::escape(name));
        let value = example.get(name);
        see(&here, &inner, value.is_some(), required.contains(name));
        visit_members(&inner, value.unwrap_or(&Value::Null), here, level + 1, left, see);
    }
}

/// Draws the edits of a mutation, none of them long if it must be `short`. `foreign` are the identities of another
/// client: pointers to their members, and expressions. `None` where the example gives nothing to change.
pub fn draw_edits(
    pack: &Pack,
    message: &MessageType,
    site: &MutationSite,
    foreign: &[(String, String)],
    short: bool,
    dice: &mut RandomSource,
) -> Option<Vec<PayloadEdit>> {
    let pointer = site.pointer.clone();
    let path: Vec<String> = pointer.split('/').skip(1).map(crate::syntax::matcher::unescape).collect();
    let shape = SchemaShape::at_path(&message.schema.source, &path);
    let example = message.starting_value();
    let now = example.pointer(&pointer);
    let put = |value: Value| Some(vec![PayloadEdit { pointer: pointer.clone(), change: PayloadChange::Put(value) }]);
    let text = |text: String| Some(vec![PayloadEdit { pointer: pointer.clone(), change: PayloadChange::Text(text) }]);
    match site.mutation {
        MemberMutation::Missing => Some(vec![PayloadEdit { pointer: pointer.clone(), change: PayloadChange::Remove }]),
        MemberMutation::Null => put(Value::Null),
        MemberMutation::WrongType => put(value_of_other_type(&shape, now, dice)),
        MemberMutation::OutOfRange => put(value_out_of_range(&shape, dice)?),
        MemberMutation::UnknownValue => {
            let value = shape.allowed_values().and_then(|values| dice.pick(&values).map(|value| (*value).clone()));
            put(match value {
                Some(Value::String(text)) => json!(format!("{text}_{}", value::draw_word(dice))),
                Some(Value::Number(number)) => {
                    json!(number.as_f64().unwrap_or(0.0) + 1000.0 + dice.draw_below(1000) as f64)
                }
                _ => json!(value::draw_word(dice)),
            })
        }
        MemberMutation::WrongForm => {
            put(json!(dice.pick(&["", "not it", "0", "%", "2024-13-45T25:61:61Z", "..", "１２３"])?))
        }
        MemberMutation::Extra => Some(vec![PayloadEdit {
            pointer: format!("{pointer}/x_{}", value::draw_word(dice)),
            change: PayloadChange::Put(value::draw_any_value(dice, 4)),
        }]),
        MemberMutation::Empty => {
            let kinds = shape.types();
            put(match kinds.first().copied().unwrap_or("string") {
                "array" => json!([]),
                "object" => json!({}),
                _ => json!(""),
            })
        }
        MemberMutation::Huge => put(huge_value(&shape, now, short, dice)),
        MemberMutation::Twice => {
            let again = if dice.one_in(2) { now?.clone() } else { value::draw_any_value(dice, 5) };
            Some(vec![PayloadEdit { pointer: pointer.clone(), change: PayloadChange::Twice(again) }])
        }
        MemberMutation::WrongDiscriminator => {
            let name = path.last()?;
            let others: Vec<Value> = pack
                .messages
                .iter()
                .filter_map(|other| other.matcher.literal_members().get(name).cloned())
                .filter(|other| Some(other) != now)
                .collect();
            put(match dice.pick(&others) {
                Some(other) if dice.one_in(2) => other.clone(),
                _ if dice.one_in(2) => json!(value::draw_word(dice)),
                _ => json!(dice.pick(&value::UNUSUAL_TEXTS)?),
            })
        }
        MemberMutation::WrongCase => {
            let (name, value) = (path.last()?, now?);
            match value {
                Value::String(text) if shape.allowed_values().is_some() && dice.one_in(2) => {
                    put(json!(swap_letter_case(text)))
                }
                _ if swap_letter_case(name) != *name => Some(vec![PayloadEdit {
                    pointer: pointer.clone(),
                    change: PayloadChange::Rename(swap_letter_case(name)),
                }]),
                _ => None,
            }
        }
        MemberMutation::ForeignId => {
            let (_, expression) = foreign.iter().find(|(of, _)| *of == pointer)?;
            Some(vec![PayloadEdit { pointer: pointer.clone(), change: PayloadChange::Evaluate(expression.clone()) }])
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
            let (pointer, deep) = (
                if pointer.is_empty() { "/x_deep".to_owned() } else { pointer.clone() },
                format!("{}{}", "[".repeat(levels), "]".repeat(levels)),
            );
            Some(vec![PayloadEdit { pointer, change: PayloadChange::Text(deep) }])
        }
        MemberMutation::Surrogate => {
            text((*dice.pick(&[r#""\ud800""#, r#""\udc00\ud800""#, r#""a\ud83db""#, r#""\uDFFF""#])?).to_owned())
        }
    }
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

fn value_out_of_range(shape: &SchemaShape<'_>, dice: &mut RandomSource) -> Option<Value> {
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
    choices.extend(shape.lower_bound("minItems").filter(|least| *least > 0.0).map(|_| json!([])));
    dice.pick(&choices).cloned()
}

/// Returns a value that is large for its type, but below the limits that documents usually set; sometimes smaller,
/// since hubs have other limits and may ignore long messages.
fn huge_value(shape: &SchemaShape<'_>, now: Option<&Value>, short: bool, dice: &mut RandomSource) -> Value {
    let types = shape.types();
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
