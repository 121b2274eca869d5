//! Values that a schema allows: its bounds, its unions, all combinations of optional members, and, where the schema
//! allows anything, values on which parsers often fail. The caller has to validate them: `not` and contradictions are
//! ignored.

use serde_json::{Map, Number, Value, json};

use super::pattern::draw_match;
use super::rng::RandomSource;
use super::schema_shape::{MAX_DEPTH, SchemaShape};

/// The depth to which optional parts are generated.
const OPTIONAL_DEPTH: usize = 6;
/// The depth to which a plain value has optional parts, and among how many of its first values.
const PLAIN_OPTIONAL_DEPTH: usize = 4;
const PLAIN_OPTIONAL_VALUES: usize = 400;
/// The most optional members or items of one value.
const MAX_OPTIONAL_MEMBERS: usize = 5;
/// The most values in total: a schema may require an infinite value, or one of gigabytes.
const MAX_VALUES: usize = 4_000;

/// How parts of a value are chosen.
#[derive(Clone, Copy)]
pub enum ValueStyle {
    /// Anything that the schema allows, unusual values included.
    Varied,
    /// For readers: the first of the listed values, defaults, and names of members as texts.
    Plain {
        /// Whether optional members are written, too.
        all: bool,
        /// Whether to use defaults and the first of several listed values, rather than any.
        ordinary: bool,
    },
}

/// Returns a value for `shape`, possibly an invalid one: `not` and contradictory bounds are ignored.
pub fn draw_value(shape: &SchemaShape<'_>, dice: &mut RandomSource) -> Value {
    ValueMaker { style: ValueStyle::Varied, dice, left: MAX_VALUES }.make(shape, "text", 0)
}

/// Returns a value of a style for `shape`, possibly an invalid one; `None` if it would have too many parts.
pub fn make_value(shape: &SchemaShape<'_>, style: ValueStyle, dice: &mut RandomSource) -> Option<Value> {
    let mut maker = ValueMaker { style, dice, left: MAX_VALUES };
    let value = maker.make(shape, "text", 0);
    (maker.left > 0).then_some(value)
}

struct ValueMaker<'d> {
    style: ValueStyle,
    dice: &'d mut RandomSource,
    /// How many more values may be made.
    left: usize,
}

impl ValueMaker<'_> {
    /// Makes the value of the member `name`.
    fn make(&mut self, shape: &SchemaShape<'_>, name: &str, depth: usize) -> Value {
        self.left = self.left.saturating_sub(1);
        if depth > MAX_DEPTH || self.left == 0 {
            return Value::Null;
        }
        let ordinary = matches!(self.style, ValueStyle::Plain { ordinary: true, .. });
        if let Some(default) = shape.default_value().filter(|_| ordinary) {
            return default.clone();
        }
        if let Some(values) = shape.allowed_values() {
            let chosen = if ordinary { values.first() } else { self.dice.pick(&values) };
            return chosen.map_or(Value::Null, |value| (*value).clone());
        }
        let kinds = shape.kinds();
        let is_plain = matches!(self.style, ValueStyle::Plain { .. });
        let kind = match is_plain {
            true => kinds.iter().find(|kind| **kind != "null").or(kinds.first()),
            false => self.dice.pick(&kinds),
        };
        let bounds = ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"];
        match kind.copied() {
            None if is_plain => json!({}),
            None => draw_any_value(self.dice, depth),
            Some("null") => Value::Null,
            Some("boolean") => Value::Bool(is_plain || self.dice.one_in(2)),
            Some("integer" | "number") if is_plain && bounds.iter().all(|word| shape.lower_bound(word).is_none()) => {
                json!(1)
            }
            Some("integer") => draw_integer(shape, self.dice),
            Some("number") => draw_number(shape, self.dice),
            Some("string")
                if is_plain && ["pattern", "format"].iter().all(|word| shape.keyword_text(word).is_none()) =>
            {
                Value::String(fit_length(shape, name.to_owned()))
            }
            Some("string") => Value::String(draw_text(shape, self.dice)),
            Some("array") => self.make_list(shape, name, depth),
            Some(_) => self.make_object(shape, depth),
        }
    }

    fn make_object(&mut self, shape: &SchemaShape<'_>, depth: usize) -> Value {
        let required = shape.required_members();
        let mut members = Map::new();
        // All optional members, none, or each with some probability: then every combination of a few members occurs.
        let share = *self.dice.pick(&[0.0, 0.5, 0.5, 0.8, 1.0]).unwrap_or(&0.5);
        for name in shape.member_names() {
            if self.left == 0 {
                break;
            }
            let is_wanted = required.contains(name)
                || match self.style {
                    ValueStyle::Plain { all, .. } => {
                        all && depth < PLAIN_OPTIONAL_DEPTH && self.left > MAX_VALUES - PLAIN_OPTIONAL_VALUES
                    }
                    ValueStyle::Varied => depth < OPTIONAL_DEPTH && self.dice.draw_fraction() < share,
                };
            if is_wanted {
                let inner = shape.draw_member(name, self.dice);
                members.insert(name.to_owned(), self.make(&inner, name, depth + 1));
            }
        }
        let least = shape.lower_bound("minProperties").unwrap_or(0.0) as usize;
        let varies = matches!(self.style, ValueStyle::Varied);
        let more =
            if varies && shape.welcomes_members() && self.dice.one_in(8) { 1 + self.dice.draw_below(2) } else { 0 };
        let mut wanted = least.saturating_sub(members.len()).max(more);
        if shape.is_closed() {
            wanted = 0;
        }
        for _ in 0..wanted.min(64) {
            let name = format!("x_{}", draw_word(self.dice));
            let inner = shape.draw_member(&name, self.dice);
            let value = self.make(&inner, &name, depth + 1);
            members.insert(name, value);
        }
        Value::Object(members)
    }

    fn make_list(&mut self, shape: &SchemaShape<'_>, name: &str, depth: usize) -> Value {
        let least = shape.lower_bound("minItems").unwrap_or(0.0) as usize;
        let most =
            shape.upper_bound("maxItems").map_or(least.saturating_add(MAX_OPTIONAL_MEMBERS), |most| most as usize);
        let free = most.saturating_sub(least).min(MAX_OPTIONAL_MEMBERS);
        let more = match self.style {
            ValueStyle::Plain { all, .. } => {
                usize::from(all && least == 0 && free > 0 && self.left > MAX_VALUES - PLAIN_OPTIONAL_VALUES)
            }
            ValueStyle::Varied if depth >= OPTIONAL_DEPTH => 0,
            ValueStyle::Varied => self.dice.draw_below(free + 1),
        };
        let mut items: Vec<Value> = Vec::new();
        for index in 0..least.saturating_add(more).min(1024) {
            if self.left == 0 || (index >= least && shape.is_full_list(index)) {
                break;
            }
            let inner = shape.draw_item(index, self.dice);
            let item = self.make(&inner, name, depth + 1);
            if !shape.keyword_is_true("uniqueItems") || !items.contains(&item) {
                items.push(item);
            }
        }
        Value::Array(items)
    }
}

/// Draws an integer: a bound, its neighbour, a limit of the usual integer types, or any number between the bounds.
fn draw_integer(shape: &SchemaShape<'_>, dice: &mut RandomSource) -> Value {
    const WIDE: [i64; 14] = [
        0,
        1,
        -1,
        2,
        10,
        255,
        256,
        65_536,
        i32::MAX as i64,
        i32::MIN as i64,
        u32::MAX as i64,
        9_007_199_254_740_991,
        -9_007_199_254_740_991,
        i64::MAX,
    ];
    let (low, high) = integer_bounds(shape);
    let low = low.map(|low| low.ceil() as i64);
    let high = high.map(|high| high.floor() as i64);
    let within = |number: &i64| low.is_none_or(|low| *number >= low) && high.is_none_or(|high| *number <= high);
    let mut edges: Vec<i64> = WIDE.into_iter().filter(within).collect();
    edges.extend(
        [low, low.map(|low| low.saturating_add(1)), high, high.map(|high| high.saturating_sub(1))]
            .into_iter()
            .flatten()
            .filter(within),
    );
    let step = shape.lower_bound("multipleOf").filter(|step| *step >= 1.0).map_or(1, |step| step as i64);
    let number = if dice.one_in(2) && !edges.is_empty() {
        *dice.pick(&edges).unwrap_or(&0)
    } else {
        dice.draw_between(
            low.unwrap_or(-1000).max(-1_000_000_000_000_000),
            high.unwrap_or(low.unwrap_or(0).saturating_add(2000)),
        )
    };
    let rounded = number.saturating_sub(number.rem_euclid(step));
    json!(if within(&rounded) { rounded } else { rounded.saturating_add(step) })
}

fn draw_number(shape: &SchemaShape<'_>, dice: &mut RandomSource) -> Value {
    const WIDE: [f64; 10] = [0.0, -0.0, 0.5, -1.5, 1e-9, 1e21, -1e21, 1.797e308, 5e-324, 0.1];
    if shape.lower_bound("multipleOf").is_some() || dice.one_in(2) {
        return draw_integer(shape, dice);
    }
    let (least, most) = (shape.lower_bound("minimum"), shape.upper_bound("maximum"));
    let (above, below) = (shape.lower_bound("exclusiveMinimum"), shape.upper_bound("exclusiveMaximum"));
    let within = |number: &f64| {
        least.is_none_or(|least| *number >= least)
            && most.is_none_or(|most| *number <= most)
            && above.is_none_or(|above| *number > above)
            && below.is_none_or(|below| *number < below)
    };
    let edges: Vec<f64> = WIDE.into_iter().chain(least).chain(most).filter(within).collect();
    let free = {
        let low = [least, above].into_iter().flatten().reduce(f64::max).unwrap_or(-1e6);
        let high = [most, below].into_iter().flatten().reduce(f64::min).unwrap_or(low.abs() * 2.0 + 1e6);
        // The result is never the lower bound, which may be exclusive.
        high - (high - low) * dice.draw_fraction() * 0.999
    };
    let chosen = if dice.one_in(2) { dice.pick(&edges).copied().unwrap_or(free) } else { free };
    Number::from_f64(if within(&chosen) { chosen } else { free }).map_or(Value::Null, Value::Number)
}

/// Returns the lower and upper bound for integers, with exclusive bounds moved by one.
fn integer_bounds(shape: &SchemaShape<'_>) -> (Option<f64>, Option<f64>) {
    let above = shape.lower_bound("exclusiveMinimum").map(|bound| bound.floor() + 1.0);
    let below = shape.upper_bound("exclusiveMaximum").map(|bound| bound.ceil() - 1.0);
    let low = [shape.lower_bound("minimum"), above].into_iter().flatten().reduce(f64::max);
    let high = [shape.upper_bound("maximum"), below].into_iter().flatten().reduce(f64::min);
    (low, high)
}

/// Valid texts that receivers often mishandle.
pub const UNUSUAL_TEXTS: [&str; 17] = [
    "",
    " ",
    "a",
    "null",
    "0",
    "-1",
    "true",
    "\u{0}",
    "line\nbreak\ttab",
    "quote\"back\\slash/",
    "ünïcödé ß 漢字",
    "😀👩‍👩‍👧",
    "e\u{301}",
    "\u{202e}right to left",
    "\u{feff}\u{fffd}\u{ffff}",
    "__proto__",
    "toString",
];

fn draw_text(shape: &SchemaShape<'_>, dice: &mut RandomSource) -> String {
    if let Some(pattern) = shape.keyword_text("pattern")
        && let Some(text) = draw_match(pattern, dice)
    {
        return text;
    }
    if let Some(format) = shape.keyword_text("format") {
        return draw_formatted_text(format, dice);
    }
    let text = match dice.draw_below(8) {
        0..=2 => draw_word(dice),
        // Rarely, a long text of the size of common buffers.
        3 if dice.one_in(8) => "x".repeat(*dice.pick(&[127, 128, 255, 256, 1000, 4096]).unwrap_or(&127)),
        _ => dice.pick(&UNUSUAL_TEXTS).copied().unwrap_or_default().to_owned(),
    };
    fit_length(shape, text)
}

/// Lengthens or shortens a text to the length that a schema allows.
fn fit_length(shape: &SchemaShape<'_>, mut text: String) -> String {
    let least = shape.lower_bound("minLength").unwrap_or(0.0) as usize;
    let most = shape.upper_bound("maxLength").map_or(usize::MAX, |most| most as usize);
    let length = text.chars().count();
    text.extend(std::iter::repeat_n('x', least.saturating_sub(length).min(1 << 20)));
    if length > most { text.chars().take(most).collect() } else { text }
}

fn draw_formatted_text(format: &str, dice: &mut RandomSource) -> String {
    let (a, b, c) = (dice.draw_below(28) + 1, dice.draw_below(12) + 1, dice.draw_below(24));
    match format {
        "date-time" => match dice.draw_below(4) {
            0 => format!("20{:02}-{b:02}-{a:02}T{c:02}:00:00Z", dice.draw_below(99)),
            1 => format!("2024-{b:02}-{a:02}T{c:02}:59:59.999999+02:00"),
            2 => format!("1970-01-{a:02}T{c:02}:00:00.1Z"),
            _ => format!("9999-12-{a:02}T{c:02}:00:00-00:30"),
        },
        "date" => format!("2024-{b:02}-{a:02}"),
        "time" => format!("{c:02}:{a:02}:{b:02}Z"),
        "duration" => format!("P{a}DT{b}H"),
        "uuid" => uuid::Builder::from_random_bytes(dice.draw_bytes()).into_uuid().to_string(),
        "email" | "idn-email" => format!("{}@example.com", draw_word(dice)),
        "hostname" | "idn-hostname" => format!("{}.example.com", draw_word(dice)),
        "ipv4" => format!("192.0.2.{a}"),
        "ipv6" => format!("2001:db8::{a:x}"),
        "uri" | "iri" | "uri-reference" | "iri-reference" | "uri-template" => {
            format!("https://example.com/{}?a={a}", draw_word(dice))
        }
        "json-pointer" => format!("/{}/{a}", draw_word(dice)),
        "relative-json-pointer" => format!("{a}/{}", draw_word(dice)),
        "regex" => "^a+$".to_owned(),
        _ => draw_word(dice),
    }
}

/// Returns a short random word.
pub fn draw_word(dice: &mut RandomSource) -> String {
    (0..1 + dice.draw_below(8)).map(|_| char::from(b'a' + dice.draw_below(26) as u8)).collect()
}

/// Returns an object with members of these names and random values.
pub fn object_with_members<'n>(names: impl Iterator<Item = &'n String>, dice: &mut RandomSource) -> Value {
    Value::Object(names.map(|name| (name.clone(), draw_any_value(dice, OPTIONAL_DEPTH))).collect())
}

/// Returns a random JSON value, deep or wide.
pub fn draw_any_value(dice: &mut RandomSource, depth: usize) -> Value {
    let kinds = if depth >= OPTIONAL_DEPTH { 5 } else { 9 };
    match dice.draw_below(kinds) {
        0 => Value::Null,
        1 => Value::Bool(dice.one_in(2)),
        // Overflows a signed 64-bit integer.
        2 if dice.one_in(6) => json!(u64::MAX),
        2 => draw_integer(&SchemaShape::default(), dice),
        3 => draw_number(&SchemaShape::default(), dice),
        4 => Value::String(draw_text(&SchemaShape::default(), dice)),
        5 => (0..dice.draw_below(MAX_OPTIONAL_MEMBERS + 1)).map(|_| draw_any_value(dice, depth + 1)).collect(),
        6 if dice.one_in(4) => (0..200).map(|number| json!(number)).collect(),
        7 if dice.one_in(4) => {
            // Deep, but within limits that parsers commonly have.
            (0..40).fold(json!(0), |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({ "d": inner }) })
        }
        _ => Value::Object(
            (0..dice.draw_below(MAX_OPTIONAL_MEMBERS + 1))
                .map(|_| (draw_word(dice), draw_any_value(dice, depth + 1)))
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::json_schema;
    use rstest::rstest;

    /// Most of a thousand values are valid, and they differ.
    #[rstest]
    #[case::bounds(json!({"type": "integer", "minimum": -3, "maximum": 4}), 6)]
    #[case::exclusive(json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1}), 20)]
    #[case::multiple(json!({"type": "integer", "multipleOf": 7, "minimum": 1}), 10)]
    #[case::text(json!({"type": "string", "minLength": 3, "maxLength": 5}), 20)]
    #[case::pattern(json!({"type": "string", "pattern": "^[0-9]+\\.[0-9]+$"}), 20)]
    #[case::format(json!({"type": "string", "format": "date-time"}), 20)]
    #[case::uuid(json!({"type": "string", "format": "uuid"}), 20)]
    #[case::members(json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "null"}, "b": {"type": "boolean"}, "c": {"enum": [1, 2]}}}), 9)]
    #[case::closed(json!({"type": "object", "additionalProperties": false, "properties": {"a": {"type": "null"}}}), 2)]
    #[case::items(json!({"type": "array", "items": {"type": "integer"}, "minItems": 2, "uniqueItems": true}), 20)]
    #[case::list_of_parts(json!({"type": "array", "prefixItems": [{"const": 2}, {"type": "string"}, {"type": "object"}], "items": false, "minItems": 3}), 20)]
    #[case::union(json!({"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 0}]}), 20)]
    #[case::branches(json!({"type": "object", "properties": {"k": {"enum": ["a", "b"]}, "n": {"type": "integer"}}, "required": ["k"], "if": {"properties": {"k": {"const": "a"}}}, "then": {"required": ["n"]}}), 20)]
    #[case::anything(json!({}), 100)]
    fn generated_values_are_varied_and_mostly_valid(#[case] schema: Value, #[case] kinds: usize) {
        let validator = json_schema::build_validator(&schema).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        let mut fit = 0;
        for number in 0..1000 {
            let mut dice = RandomSource::for_case(1, number);
            let shape = SchemaShape::draw_form(&schema, &mut dice);
            let value = draw_value(&shape, &mut dice);
            fit += usize::from(validator.is_valid(&value));
            seen.insert(value.to_string());
        }
        // The generator cannot make an `if` fail on purpose, so some values are invalid.
        assert!(fit >= 850, "{fit} of 1000 fit {schema}");
        assert!(seen.len() >= kinds, "{} different of {schema}", seen.len());
    }

    #[rstest]
    #[case::nested_lists(json!({"type": "array", "minItems": 150, "items": {"type": "array", "minItems": 150, "items": {"type": "array", "minItems": 150, "items": {"type": "integer"}}}}))]
    #[case::infinite(json!({"type": "object", "required": ["a", "b"], "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}}))]
    fn a_value_has_a_limited_number_of_parts(#[case] schema: Value) {
        fn parts(value: &Value) -> usize {
            1 + crate::syntax::matcher::members_of(value).into_iter().map(|(_, inner)| parts(inner)).sum::<usize>()
        }
        for style in [ValueStyle::Varied, ValueStyle::Plain { all: true, ordinary: true }] {
            let mut dice = RandomSource::for_case(1, 1);
            let shape = SchemaShape::draw_form(&schema, &mut dice);
            assert_eq!(make_value(&shape, style, &mut dice), None);
            let made = parts(&ValueMaker { style, dice: &mut dice, left: MAX_VALUES }.make(&shape, "text", 0));
            assert!((1_000..=MAX_VALUES + MAX_DEPTH).contains(&made), "{made}");
        }
    }

    /// Members without a schema occur only where the schema speaks of them or names no member.
    #[rstest]
    #[case::silent(json!({"type": "object", "properties": {"a": {"type": "null"}}}), false)]
    #[case::closed(json!({"type": "object", "properties": {"a": {}}, "additionalProperties": false}), false)]
    #[case::welcome(json!({"type": "object", "properties": {"a": {}}, "additionalProperties": true}), true)]
    #[case::typed(json!({"type": "object", "properties": {"a": {}}, "additionalProperties": {"type": "null"}}), true)]
    #[case::pattern(json!({"type": "object", "properties": {"a": {}}, "patternProperties": {"^x_": {}}}), true)]
    #[case::map(json!({"type": "object"}), true)]
    fn unnamed_members_occur_only_where_they_are_welcome(#[case] schema: Value, #[case] welcome: bool) {
        let mut dice = RandomSource::for_case(1, 1);
        let shape = SchemaShape::draw_form(&schema, &mut dice);
        let has_unnamed = |value: &Value| value.as_object().unwrap().keys().any(|name| name != "a");
        assert_eq!((0..1000).any(|_| has_unnamed(&draw_value(&shape, &mut dice))), welcome);
    }
}
