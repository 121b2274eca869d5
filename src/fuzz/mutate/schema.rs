//! Mutations of one member of a message: at which sites its schema gives something to violate, and how. The validator
//! classifies the result, so nothing is called invalid that fits the schema.

use serde_json::{Value, json};

use super::payload::{Change, Edit};
use crate::generate::rng::Dice;
use crate::generate::schema_shape::{Branches, Shape};
use crate::generate::value;
use crate::protocol::{MessageType, Pack};
use crate::syntax::json_schema::kind;

/// What is done to one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutation {
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

impl Mutation {
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
pub struct Site {
    pub mutation: Mutation,
    /// JSON pointer to the member; for `Extra`, to the object that gets a further member.
    pub pointer: String,
}

/// Levels of members that are mutated one by one, and members in all.
const LEVELS: usize = 3;
const PLACES: usize = 4_000;

/// Returns all sites of a message, in the order of its schema. `identities` are pointers to members that
/// identify the sender.
pub fn sites(message: &MessageType, identities: &[&str]) -> Vec<Site> {
    let mut sites = Vec::new();
    let root = Shape::of(&message.schema.source, &mut Branches::All);
    let example = message.template();
    visit(&root, &example, String::new(), 0, &mut PLACES.clone(), &mut |pointer, shape, present, required| {
        let mut add = |mutation| sites.push(Site { mutation, pointer: pointer.to_owned() });
        let values = shape.values();
        let types = shape.types();
        let restricted = !types.is_empty() || values.is_some();
        if pointer.is_empty() {
            if shape.is_closed() {
                add(Mutation::Extra);
            }
            add(Mutation::Deep);
            return;
        }
        if required && present {
            add(Mutation::Missing);
        }
        if restricted && !types.contains(&"null") {
            add(Mutation::Null);
        }
        if restricted {
            add(Mutation::WrongType);
        }
        if ["minimum", "exclusiveMinimum"].iter().any(|bound| shape.least(bound).is_some())
            || ["maximum", "exclusiveMaximum", "maxLength"].iter().any(|bound| shape.most(bound).is_some())
            || ["minLength", "minItems"].iter().any(|bound| shape.least(bound).is_some_and(|least| least > 0.0))
        {
            add(Mutation::OutOfRange);
        }
        if values.is_some() {
            add(Mutation::UnknownValue);
        }
        if shape.text("pattern").is_some() || shape.text("format").is_some() {
            add(Mutation::WrongForm);
        }
        if types.contains(&"object") && shape.is_closed() {
            add(Mutation::Extra);
        }
        if types.iter().any(|kind| matches!(*kind, "string" | "array" | "object")) {
            add(Mutation::Empty);
            add(Mutation::Huge);
        }
        if types.iter().any(|kind| matches!(*kind, "integer" | "number")) {
            add(Mutation::Huge);
            add(Mutation::Digits);
        }
        if shape.is_free() || types.is_empty() && values.is_none() {
            add(Mutation::Huge);
            add(Mutation::Deep);
        }
        if types.contains(&"string") {
            add(Mutation::Surrogate);
        }
        if present {
            add(Mutation::Twice);
            add(Mutation::WrongCase);
        }
        if message.matcher.literals().keys().any(|name| pointer == format!("/{}", crate::syntax::matcher::escape(name)))
        {
            add(Mutation::WrongDiscriminator);
        }
        if identities.contains(&pointer) {
            add(Mutation::ForeignId);
        }
    });
    sites
}

/// Calls `see` for the message and its members, with pointer, shape, whether the example has it, and whether it is
/// required.
fn visit<'a>(
    shape: &Shape<'a>,
    example: &Value,
    pointer: String,
    level: usize,
    left: &mut usize,
    see: &mut impl FnMut(&str, &Shape<'a>, bool, bool),
) {
    if level == 0 {
        see(&pointer, shape, true, true);
    }
    if level == LEVELS {
        return;
    }
    let required = shape.required();
    for name in shape.members() {
        let Some(rest) = left.checked_sub(1) else { return };
        *left = rest;
        let inner = shape.member(name, &mut Branches::All);
        let here = format!("{pointer}/{}", crate::syntax::matcher::escape(name));
        let value = example.get(name);
        see(&here, &inner, value.is_some(), required.contains(name));
        visit(&inner, value.unwrap_or(&Value::Null), here, level + 1, left, see);
    }
}

/// Draws the edits of a mutation, none of them long if it must be `short`. `foreign` are the identities of another
/// client: pointers to their members, and expressions. `None` where the example gives nothing to change.
pub fn edits(
    pack: &Pack,
    message: &MessageType,
    site: &Site,
    foreign: &[(String, String)],
    short: bool,
    dice: &mut Dice,
) -> Option<Vec<Edit>> {
    let pointer = site.pointer.clone();
    let path: Vec<String> = pointer.split('/').skip(1).map(crate::syntax::matcher::unescape).collect();
    let shape = Shape::at(&message.schema.source, &path);
    let example = message.template();
    let now = example.pointer(&pointer);
    let put = |value: Value| Some(vec![Edit { pointer: pointer.clone(), change: Change::Put(value) }]);
    let text = |text: String| Some(vec![Edit { pointer: pointer.clone(), change: Change::Text(text) }]);
    match site.mutation {
        Mutation::Missing => Some(vec![Edit { pointer: pointer.clone(), change: Change::Remove }]),
        Mutation::Null => put(Value::Null),
        Mutation::WrongType => put(other_type(&shape, now, dice)),
        Mutation::OutOfRange => put(out_of_range(&shape, dice)?),
        Mutation::UnknownValue => {
            let value = shape.values().and_then(|values| dice.pick(&values).map(|value| (*value).clone()));
            put(match value {
                Some(Value::String(text)) => json!(format!("{text}_{}", value::name(dice))),
                Some(Value::Number(number)) => json!(number.as_f64().unwrap_or(0.0) + 1000.0 + dice.below(1000) as f64),
                _ => json!(value::name(dice)),
            })
        }
        Mutation::WrongForm => {
            put(json!(dice.pick(&["", "not it", "0", "%", "2024-13-45T25:61:61Z", "..", "１２３"])?))
        }
        Mutation::Extra => Some(vec![Edit {
            pointer: format!("{pointer}/x_{}", value::name(dice)),
            change: Change::Put(value::anything(dice, 4)),
        }]),
        Mutation::Empty => {
            let kinds = shape.types();
            put(match kinds.first().copied().unwrap_or("string") {
                "array" => json!([]),
                "object" => json!({}),
                _ => json!(""),
            })
        }
        Mutation::Huge => put(huge(&shape, now, short, dice)),
        Mutation::Twice => {
            let again = if dice.once_in(2) { now?.clone() } else { value::anything(dice, 5) };
            Some(vec![Edit { pointer: pointer.clone(), change: Change::Twice(again) }])
        }
        Mutation::WrongDiscriminator => {
            let name = path.last()?;
            let others: Vec<Value> = pack
                .messages
                .iter()
                .filter_map(|other| other.matcher.literals().get(name).cloned())
                .filter(|other| Some(other) != now)
                .collect();
            put(match dice.pick(&others) {
                Some(other) if dice.once_in(2) => other.clone(),
                _ if dice.once_in(2) => json!(value::name(dice)),
                _ => json!(dice.pick(&value::UNUSUAL_TEXTS)?),
            })
        }
        Mutation::WrongCase => {
            let (name, value) = (path.last()?, now?);
            match value {
                Value::String(text) if shape.values().is_some() && dice.once_in(2) => put(json!(swapped(text))),
                _ if swapped(name) != *name => {
                    Some(vec![Edit { pointer: pointer.clone(), change: Change::Rename(swapped(name)) }])
                }
                _ => None,
            }
        }
        Mutation::ForeignId => {
            let (_, expression) = foreign.iter().find(|(of, _)| *of == pointer)?;
            Some(vec![Edit { pointer: pointer.clone(), change: Change::Evaluate(expression.clone()) }])
        }
        Mutation::Digits => text(match dice.below(4) {
            0 => "9".repeat(1000),
            1 => format!("0.{}", "3".repeat(1000)),
            2 => "1e400".to_owned(),
            _ => "-1e-400".to_owned(),
        }),
        Mutation::Deep => {
            // Rarely deep enough to overflow the stack of a recursive parser, since that takes long to make.
            let levels = if dice.once_in(16) { 200_000 } else { *dice.pick(&[100, 1000, 10_000])? };
            let (pointer, deep) = (
                if pointer.is_empty() { "/x_deep".to_owned() } else { pointer.clone() },
                format!("{}{}", "[".repeat(levels), "]".repeat(levels)),
            );
            Some(vec![Edit { pointer, change: Change::Text(deep) }])
        }
        Mutation::Surrogate => {
            text((*dice.pick(&[r#""\ud800""#, r#""\udc00\ud800""#, r#""a\ud83db""#, r#""\uDFFF""#])?).to_owned())
        }
    }
}

/// Returns a value of a type that the schema does not allow.
fn other_type(shape: &Shape<'_>, now: Option<&Value>, dice: &mut Dice) -> Value {
    let mut types: Vec<String> = shape.types().into_iter().map(str::to_owned).collect();
    types.extend(shape.values().into_iter().flatten().map(|value| kind(value).to_owned()));
    types.extend(now.filter(|_| types.is_empty()).map(|value| kind(value).to_owned()));
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
            !(allows(kind(value)) || numeric && value.is_number() && !fraction)
        })
        .collect();
    dice.pick(&fitting).map_or(Value::Null, |value| (*value).clone())
}

fn out_of_range(shape: &Shape<'_>, dice: &mut Dice) -> Option<Value> {
    let far = *dice.pick(&[1.0, 1e4, 1e9])?;
    // An excluded bound is itself out of range.
    let beyond = *dice.pick(&[0.0, 1.0, 1e4, 1e9])?;
    let whole =
        |number: f64| if number.fract() == 0.0 && number.abs() < 9e15 { json!(number as i64) } else { json!(number) };
    let mut choices = Vec::new();
    choices.extend(shape.least("minimum").map(|bound| whole(bound - far)));
    choices.extend(shape.least("exclusiveMinimum").map(|bound| whole(bound - beyond)));
    choices.extend(shape.most("maximum").map(|bound| whole(bound + far)));
    choices.extend(shape.most("exclusiveMaximum").map(|bound| whole(bound + beyond)));
    choices.extend(shape.most("maxLength").map(|most| json!("x".repeat((most as usize).min(1 << 16) + 1))));
    choices.extend(
        shape
            .least("minLength")
            .filter(|least| *least > 0.0)
            .map(|least| json!("x".repeat((least as usize - 1).min(1 << 16)))),
    );
    choices.extend(shape.least("minItems").filter(|least| *least > 0.0).map(|_| json!([])));
    dice.pick(&choices).cloned()
}

/// Returns a value that is large for its type, but below the limits that documents usually set; sometimes smaller,
/// since hubs have other limits and may ignore long messages.
fn huge(shape: &Shape<'_>, now: Option<&Value>, short: bool, dice: &mut Dice) -> Value {
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
        "string" if dice.once_in(2) => {
            let (now, run) = (now.and_then(Value::as_str).unwrap_or_default(), *dice.pick(&["a", "1"]).unwrap_or(&"a"));
            let joint = if dice.once_in(2) { "" } else { "-" };
            let start: String = now.chars().take(32).collect();
            json!(format!("{start}{joint}{}!", run.repeat(64)))
        }
        _ => json!(dice.pick(&["x", "ß", "😀", "\\"]).copied().unwrap_or("x").repeat(20_000 / part)),
    }
}

/// Changes the case of some letters: `jobId` for `job_id`, `Type` for `type`.
fn swapped(text: &str) -> String {
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
