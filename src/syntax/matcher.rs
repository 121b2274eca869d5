//! Matchers select and check frames: a name takes a value, a pointer takes a JSON Schema
//! (docs/src/scenario-language.md).
//!
//! A name matches if the value has a member of that name with an equal value: numbers and strings must be equal,
//! objects must have at least these members, arrays are compared item by item. In an array, a number is the name of the
//! element with that index. A `/pointer` matches if its target is present and fits the schema; `false` demands that the
//! target is absent, and `/pointer or absent` allows it to be. The empty pointer `""` is the whole value.

use jsonschema::{Keyword, ValidationError};
use serde_json::{Map, Value};

use crate::syntax::json_schema::{self, SchemaMistake, SchemaValidator};

/// The error of an invalid matcher.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct MatcherError {
    /// The invalid key; empty if the whole matcher is invalid.
    pub key: String,
    pub message: String,
}

/// The first difference between a value and a matcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchDifference {
    /// JSON pointer into the value.
    pub path: String,
    pub expected: String,
    pub found: String,
}

impl std::fmt::Display for MatchDifference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = if self.path.is_empty() { "the value" } else { &self.path };
        write!(f, "{path}: expected {}, found {}", self.expected, self.found)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Matcher {
    clauses: Vec<MatcherClause>,
}

/// One condition of a matcher.
#[derive(Clone, Debug, PartialEq)]
pub enum MatchCondition<'a> {
    /// The member is present and has this value; the value has no members of its own.
    Is(String, &'a Value),
    Absent(&'a str),
    Present(&'a str),
    Fits {
        pointer: &'a str,
        optional: bool,
        schema: &'a Value,
    },
}

fn collect_conditions<'a>(pointer: &str, want: &'a Value, found: &mut Vec<MatchCondition<'a>>) {
    match want {
        Value::Object(members) if !members.is_empty() => {
            members
                .iter()
                .for_each(|(name, want)| collect_conditions(&format!("{pointer}/{}", escape(name)), want, found));
        }
        _ => found.push(MatchCondition::Is(pointer.to_owned(), want)),
    }
}

#[derive(Clone, Debug)]
enum MatcherClause {
    Member { name: String, want: Value },
    Pointer { pointer: String, steps: Vec<String>, optional: bool, test: MemberTest },
}

#[derive(Clone, Debug)]
enum MemberTest {
    Absent,
    Present,
    Schema { validator: Box<SchemaValidator>, schema: Value },
}

impl Matcher {
    /// Compiles the JSON of a `where` or of an entry of `has`: an object of names and pointers.
    pub fn compile(source: &Value) -> Result<Self, MatcherError> {
        let bad = |key: &str, mistake: SchemaMistake| MatcherError { key: key.to_owned(), message: mistake.message };
        let Value::Object(members) = source else { return Err(bad("", not_a_mapping_mistake())) };
        let clauses = members
            .iter()
            .map(|(key, want)| {
                let mistakes = match want {
                    // Building the validator finds all other mistakes.
                    Value::Object(_) if is_pointer(key) => json_schema::find_unknown_words(want, &["like"]),
                    _ => clause_mistakes(key, want),
                };
                match mistakes.into_iter().next() {
                    Some(mistake) => Err(bad(key, mistake)),
                    None => compile_clause(key, want).map_err(|message| MatcherError { key: key.clone(), message }),
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { clauses })
    }

    /// Whether every clause holds. Unlike [`Matcher::difference`] it builds no texts: most frames that are compared
    /// differ.
    pub fn fits(&self, subject: &Value) -> bool {
        self.clauses.iter().all(|clause| clause.holds(subject))
    }

    /// Returns the first difference.
    pub fn difference(&self, subject: &Value) -> Option<MatchDifference> {
        if self.fits(subject) {
            return None;
        }
        self.clauses.iter().find_map(|clause| clause.difference(subject))
    }

    /// Returns the matcher's conditions by member, for the load engine, which recognises frames without decoding them.
    pub fn member_conditions(&self) -> Vec<MatchCondition<'_>> {
        let mut found = Vec::new();
        for clause in &self.clauses {
            match clause {
                MatcherClause::Member { name, want } => collect_conditions(&member_pointer(name), want, &mut found),
                MatcherClause::Pointer { pointer, optional, test, .. } => found.push(match test {
                    MemberTest::Absent => MatchCondition::Absent(pointer),
                    MemberTest::Present => MatchCondition::Present(pointer),
                    MemberTest::Schema { schema, .. } => MatchCondition::Fits { pointer, optional: *optional, schema },
                }),
            }
        }
        found
    }

    /// Returns the pointers of the members that the conditions are about.
    pub fn places(&self) -> Vec<String> {
        let place = |condition| match condition {
            MatchCondition::Is(pointer, _) => pointer,
            MatchCondition::Absent(pointer)
            | MatchCondition::Present(pointer)
            | MatchCondition::Fits { pointer, .. } => pointer.to_owned(),
        };
        self.member_conditions().into_iter().map(place).collect()
    }

    /// Whether a condition on a member at one of these places does not hold.
    pub fn excludes(&self, subject: &Value, places: &[String]) -> bool {
        self.clauses.iter().any(|clause| match clause {
            MatcherClause::Member { name, want } => {
                let mut conditions = Vec::new();
                collect_conditions(&member_pointer(name), want, &mut conditions);
                conditions.iter().any(|condition| {
                    matches!(condition, MatchCondition::Is(at, want)
                        if places.contains(at) && subject.pointer(at).is_none_or(|found| !are_equal(want, found)))
                })
            }
            MatcherClause::Pointer { pointer, .. } => places.contains(pointer) && !clause.holds(subject),
        })
    }

    /// Returns how many conditions the matcher has: the most specific match wins.
    pub fn condition_count(&self) -> usize {
        self.clauses
            .iter()
            .map(|clause| match clause {
                MatcherClause::Member { want, .. } => count_leaves(want),
                MatcherClause::Pointer { .. } => 1,
            })
            .sum()
    }

    /// Returns the members that must be a certain text.
    pub fn required_texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.clauses.iter().filter_map(|clause| match clause {
            MatcherClause::Member { name, want: Value::String(text) } => Some((name.as_str(), text.as_str())),
            _ => None,
        })
    }

    /// Whether a member with this name must be a certain text.
    pub fn has_text(&self, name: &str) -> bool {
        self.required_texts().any(|(member, _)| member == name)
    }

    /// Returns the members that a frame must have literally, such as `{type: STATUS, code: OK}`, to build a message
    /// that has no example.
    pub fn literal_members(&self) -> Map<String, Value> {
        self.clauses
            .iter()
            .filter_map(|clause| match clause {
                MatcherClause::Member { name, want } => Some((name.clone(), want.clone())),
                MatcherClause::Pointer { .. } => None,
            })
            .collect()
    }
}

/// Returns all mistakes in the source of a matcher. Expressions, `"${...}"`, stand for any value.
pub fn find_matcher_mistakes(source: &Value) -> Vec<SchemaMistake> {
    match source {
        Value::Object(members) => members
            .iter()
            .flat_map(|(key, want)| {
                let at = member_pointer(key);
                clause_mistakes(key, want).into_iter().map(move |mistake| mistake.moved_below(&at))
            })
            .collect(),
        Value::String(text) if text.contains("${") => Vec::new(),
        _ => vec![not_a_mapping_mistake()],
    }
}

fn not_a_mapping_mistake() -> SchemaMistake {
    SchemaMistake {
        pointer: String::new(),
        key: false,
        message: "a matcher is a mapping of names and /pointers".to_owned(),
        help: "a name takes a value, a /pointer takes a JSON Schema".to_owned(),
    }
}

fn clause_mistakes(key: &str, want: &Value) -> Vec<SchemaMistake> {
    let mistake = |key: bool, message: &str, help: String| {
        vec![SchemaMistake { pointer: String::new(), key, message: message.to_owned(), help }]
    };
    if !is_pointer(key) {
        return match key.strip_suffix(" or absent") {
            Some("") => mistake(true, "the whole value is never absent", "write `\"\": { ... }`".to_owned()),
            Some(name) => {
                mistake(true, "`or absent` belongs to a /pointer", format!("write `/{name} or absent: {{ ... }}`"))
            }
            None => Vec::new(),
        };
    }
    match want {
        Value::Object(_) => json_schema::find_schema_mistakes(want, &["like"]),
        Value::Bool(_) if key.is_empty() => mistake(
            false,
            "the whole value is always present",
            "write a JSON Schema: `\"\": { type: object }`".to_owned(),
        ),
        Value::Bool(_) => Vec::new(),
        Value::String(text) if text.contains("${") => Vec::new(),
        _ => {
            let name = key.trim_start_matches('/').trim_end_matches(" or absent");
            let simple =
                if name.contains('/') || key.is_empty() { String::new() } else { format!("`{name}: {want}` or ") };
            let key = if key.is_empty() { "\"\"" } else { key };
            let help = format!("for the value itself write {simple}`{key}: {{ const: {want} }}`");
            mistake(false, "a /pointer takes a JSON Schema, true or false", help)
        }
    }
}

/// Whether a key is a JSON pointer rather than a name. The empty pointer is the whole value, and `/` is the member
/// whose name is empty.
pub fn is_pointer(key: &str) -> bool {
    key.is_empty() || key.starts_with('/')
}

/// Compiles a clause that has no mistakes, but may still contain expressions.
fn compile_clause(key: &str, want: &Value) -> Result<MatcherClause, String> {
    if !is_pointer(key) {
        return Ok(MatcherClause::Member { name: key.to_owned(), want: want.clone() });
    }
    let (pointer, optional) = match key.strip_suffix(" or absent") {
        Some(pointer) => (pointer.to_owned(), true),
        None => (key.to_owned(), false),
    };
    if let (false, Some(name), Some(constant)) = (optional, only_token(&pointer), constant_scalar(want)) {
        return Ok(MatcherClause::Member { name, want: constant.clone() });
    }
    let test = match want {
        Value::Bool(true) => MemberTest::Present,
        Value::Bool(false) => MemberTest::Absent,
        schema => {
            MemberTest::Schema { validator: Box::new(json_schema::build_validator(schema)?), schema: schema.clone() }
        }
    };
    let steps = pointer.split('/').skip(1).map(unescape).collect();
    Ok(MatcherClause::Pointer { pointer, steps, optional, test })
}

/// Returns the name in a pointer that has only one.
pub fn only_token(pointer: &str) -> Option<String> {
    pointer.strip_prefix('/').filter(|token| !token.contains('/')).map(unescape)
}

/// Returns the value of a schema that only demands a constant without members, `{const: x}`.
fn constant_scalar(schema: &Value) -> Option<&Value> {
    let only = schema.as_object().filter(|keywords| keywords.len() == 1)?;
    only.get("const").filter(|value| !value.is_object() && !value.is_array())
}

pub(crate) struct LikeKeyword {
    want: Value,
}

impl LikeKeyword {
    pub(crate) fn new(want: Value) -> Self {
        Self { want }
    }
}

impl<'i> Keyword<'i> for LikeKeyword {
    fn validate(&self, instance: &'i Value) -> Result<(), ValidationError<'i>> {
        match find_difference(&self.want, instance, "") {
            None => Ok(()),
            Some(difference) => Err(ValidationError::custom(difference.to_string())),
        }
    }

    fn is_valid(&self, instance: &'i Value) -> bool {
        matches(&self.want, instance)
    }
}

impl MatcherClause {
    fn holds(&self, subject: &Value) -> bool {
        match self {
            Self::Member { name, want } => child(subject, name).is_some_and(|found| matches(want, found)),
            Self::Pointer { steps, optional, test, .. } => match (test, value_at(subject, steps)) {
                (MemberTest::Absent, found) => found.is_none(),
                (MemberTest::Present, found) => found.is_some() || *optional,
                (MemberTest::Schema { .. }, None) => *optional,
                (MemberTest::Schema { validator, .. }, Some(found)) => validator.is_valid(found),
            },
        }
    }

    fn difference(&self, subject: &Value) -> Option<MatchDifference> {
        match self {
            Self::Member { name, want } => {
                let path = member_pointer(name);
                match child(subject, name) {
                    Some(found) => find_difference(want, found, &path),
                    None => {
                        Some(MatchDifference { path, expected: to_json_text(want), found: describe_absent(subject) })
                    }
                }
            }
            Self::Pointer { pointer, steps, optional, test } => {
                let found = value_at(subject, steps);
                match (test, found) {
                    (MemberTest::Absent, None) | (MemberTest::Present, Some(_)) => None,
                    (MemberTest::Absent, Some(found)) => Some(MatchDifference {
                        path: pointer.clone(),
                        expected: "no such member".to_owned(),
                        found: to_json_text(found),
                    }),
                    (_, None) if *optional => None,
                    (MemberTest::Present, None) => Some(MatchDifference {
                        path: pointer.clone(),
                        expected: "any value".to_owned(),
                        found: describe_absent(subject),
                    }),
                    (MemberTest::Schema { schema, .. }, None) => Some(MatchDifference {
                        path: pointer.clone(),
                        expected: to_json_text(schema),
                        found: describe_absent(subject),
                    }),
                    (MemberTest::Schema { validator, schema }, Some(found)) => {
                        validator.iter_errors(found).next().map(|error| MatchDifference {
                            path: format!("{pointer}{}", error.instance_path()),
                            expected: describe_schema(schema),
                            found: to_json_text(error.instance()),
                        })
                    }
                }
            }
        }
    }
}

/// Returns the target of a JSON pointer that is already split into `steps`: `Value::pointer` would split it each time.
fn value_at<'a>(subject: &'a Value, steps: &[String]) -> Option<&'a Value> {
    steps.iter().try_fold(subject, |value, step| child(value, step))
}

/// Returns the member of an object by its name, or the element of an array by its index.
pub fn child<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(members) => members.get(name),
        Value::Array(items) => items.get(array_index(name)?),
        _ => None,
    }
}

/// Returns the members of an object, or the elements of an array with their indices as names.
pub fn members_of(value: &Value) -> Vec<(String, &Value)> {
    match value {
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect(),
        _ => Vec::new(),
    }
}

/// Returns the index of an array element that a name stands for. RFC 6901 allows neither a sign nor leading zeros.
pub fn array_index(name: &str) -> Option<usize> {
    let number = name == "0" || name.starts_with(|c: char| matches!(c, '1'..='9'));
    number.then(|| name.parse().ok()).flatten()
}

/// Returns a schema as text; `{const: x}` as x.
fn describe_schema(schema: &Value) -> String {
    match schema.as_object() {
        Some(members) if members.len() == 1 && members.contains_key("const") => to_json_text(&members["const"]),
        _ => to_json_text(schema),
    }
}

fn describe_absent(subject: &Value) -> String {
    if subject.is_object() || subject.is_array() { "no such member".to_owned() } else { to_json_text(subject) }
}

/// Returns how `found` differs from `want`, if it does; objects may have additional members. An object with numbers as
/// names describes elements of an array.
pub fn find_difference(want: &Value, found: &Value, path: &str) -> Option<MatchDifference> {
    let differs =
        || Some(MatchDifference { path: path.to_owned(), expected: to_json_text(want), found: to_json_text(found) });
    match (want, found) {
        (Value::Object(want), found) if may_describe(want, found) => want.iter().find_map(|(name, want)| {
            let path = format!("{path}/{}", escape(name));
            match child(found, name) {
                Some(found) => find_difference(want, found, &path),
                None => {
                    Some(MatchDifference { path, expected: to_json_text(want), found: "no such member".to_owned() })
                }
            }
        }),
        (Value::Array(want), Value::Array(items)) if want.len() == items.len() => want
            .iter()
            .zip(items)
            .enumerate()
            .find_map(|(i, (want, found))| find_difference(want, found, &format!("{path}/{i}"))),
        (Value::Number(a), Value::Number(b)) => {
            if are_equal_numbers(a, b) {
                None
            } else {
                differs()
            }
        }
        (want, found) if want == found => None,
        _ => differs(),
    }
}

/// Whether a value has the members of an object, or the elements that an object names by their indices.
fn may_describe(want: &Map<String, Value>, found: &Value) -> bool {
    match found {
        Value::Object(_) => true,
        Value::Array(_) => !want.is_empty() && want.keys().all(|name| array_index(name).is_some()),
        _ => false,
    }
}

/// Whether [`find_difference`] finds no difference.
fn matches(want: &Value, found: &Value) -> bool {
    match (want, found) {
        (Value::Object(want), found) if may_describe(want, found) => {
            want.iter().all(|(name, want)| child(found, name).is_some_and(|found| matches(want, found)))
        }
        (Value::Array(want), Value::Array(items)) => {
            want.len() == items.len() && want.iter().zip(items).all(|(want, found)| matches(want, found))
        }
        (Value::Number(a), Value::Number(b)) => are_equal_numbers(a, b),
        (want, found) => want == found,
    }
}

/// Whether two values are equal; as in JSON Schema's `const`, 1 equals 1.0.
pub fn are_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => are_equal_numbers(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| are_equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| are_equal(v, w)))
        }
        _ => a == b,
    }
}

/// Whether two numbers are equal by value: 1, 1.0 and 1e0 are, but an integer beyond 2^53 and the float nearest to it
/// are not.
fn are_equal_numbers(a: &serde_json::Number, b: &serde_json::Number) -> bool {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => a == b,
        (None, None) => a.as_f64() == b.as_f64(),
        (Some(integer), None) => b.as_f64().and_then(to_integer) == Some(integer),
        (None, Some(integer)) => a.as_f64().and_then(to_integer) == Some(integer),
    }
}

/// Returns the integer that a float represents. JSON's integers are parsed into 64 bits, so a larger float equals none
/// of them.
fn to_integer(float: f64) -> Option<i128> {
    (float.fract() == 0.0 && float.abs() < 2f64.powi(100)).then_some(float as i128)
}

fn count_leaves(value: &Value) -> usize {
    match value {
        Value::Object(members) if !members.is_empty() => members.values().map(count_leaves).sum(),
        _ => 1,
    }
}

/// Returns the token of a JSON pointer that stands for a name.
pub fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Returns the JSON pointer of a member of an object.
pub fn member_pointer(name: &str) -> String {
    format!("/{}", escape(name))
}

/// Returns the JSON pointer that a key stands for: a pointer stands for itself, a name for a member.
pub fn key_pointer(key: &str) -> String {
    if is_pointer(key) { key.to_owned() } else { member_pointer(key) }
}

/// Returns the name that [`escape`] turned into this token.
pub fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// Returns a value as complete JSON text; callers mask secrets in it before they shorten it.
pub fn to_json_text(value: &Value) -> String {
    value.to_string()
}

/// Returns the kind of a value in words, for messages about a value that may be secret.
pub fn describe_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

pub fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}... ({} bytes)", &text[..at], text.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(json!({"/0": {"const": 3}}), json!({"0": 3}))]
    #[case(json!({"/a~1b": {"const": "x"}}), json!({"a/b": "x"}))]
    fn a_pointer_to_a_constant_is_the_same_as_a_name(#[case] pointer: Value, #[case] name: Value) {
        let compiled = |source| Matcher::compile(source).unwrap();
        assert_eq!(compiled(&pointer).member_conditions(), compiled(&name).member_conditions());
        assert_eq!(Value::Object(compiled(&pointer).literal_members()), name);
    }

    /// Only conditions on these members exclude a value.
    #[rstest]
    #[case(json!({"type": "error"}), false)]
    #[case(json!({"type": "event"}), true)]
    #[case(json!({"type": "error", "id": "other"}), false)]
    #[case(json!({"/type": {"not": {"const": "error"}}}), true)]
    #[case(json!({"/id": {"const": "other"}}), false)]
    #[case(json!({"/type": false}), true)]
    fn a_condition_excludes_a_value_only_at_certain_members(#[case] pattern: Value, #[case] expected: bool) {
        let places = Matcher::compile(&json!({"type": "error"})).unwrap().places();
        let subject = json!({"type": "error", "id": "example"});
        assert_eq!(places, ["/type"]);
        assert_eq!(Matcher::compile(&pattern).unwrap().excludes(&subject, &places), expected);
    }

    #[rstest]
    #[case(json!({"type": "NAME"}), json!({"type": "NAME", "more": 1}), true)]
    #[case(json!({"type": "NAME"}), json!({"type": "UUID"}), false)]
    #[case(json!({"target": {"name": "x"}}), json!({"target": {"name": "x", "type": "NAME"}}), true)]
    #[case(json!({"n": 1}), json!({"n": 1.0}), true)]
    #[case(json!({"n": 9007199254740993u64}), json!({"n": 9007199254740992u64}), false)]
    #[case(json!({"n": 9007199254740993u64}), json!({"n": 9007199254740992.0}), false)]
    #[case(json!({"n": 9007199254740992.0}), json!({"n": 9007199254740993u64}), false)]
    #[case(json!({"n": 9007199254740992u64}), json!({"n": 9007199254740992.0}), true)]
    #[case(json!({"n": u64::MAX}), json!({"n": 18446744073709551615.0}), false)]
    #[case(json!({"n": i64::MIN}), json!({"n": -9223372036854775808.0}), true)]
    #[case(json!({"n": 1000}), json!({"n": 1e3}), true)]
    #[case(json!({"n": 0}), json!({"n": -0.0}), true)]
    #[case(json!({"n": 0}), json!({"n": 1e-300}), false)]
    #[case(json!({"n": u64::MAX}), json!({"n": 1e308}), false)]
    #[case(json!({"n": 1e308}), json!({"n": 1e308}), true)]
    #[case(json!({"n": 1.5}), json!({"n": 1}), false)]
    #[case(json!({"a": [1, {"b": 2}]}), json!({"a": [1, {"b": 2, "c": 3}]}), true)]
    #[case(json!({"a": [1]}), json!({"a": [1, 2]}), false)]
    #[case(json!({"a": null}), json!({}), false)]
    #[case(json!({"/a": false}), json!({}), true)]
    #[case(json!({"/a": false}), json!({"a": null}), false)]
    #[case(json!({"/a": true}), json!({"a": null}), true)]
    #[case(json!({"/a": {"type": "integer"}}), json!({"a": "1"}), false)]
    #[case(json!({"/a": {"type": "integer"}}), json!({}), false)]
    #[case(json!({"/a or absent": {"type": "integer"}}), json!({}), true)]
    #[case(json!({"/a": {"format": "uuid"}}), json!({"a": "no"}), false)]
    #[case(json!({"/l": {"contains": {"like": {"name": "x"}}}}), json!({"l": [{"name": "y"}, {"name": "x", "z": 1}]}), true)]
    #[case(json!({"/l": {"contains": {"like": {"name": "x"}}}}), json!({"l": [{"name": "y"}]}), false)]
    #[case(json!({"code": 4004}), json!({"code": null}), false)]
    #[case(json!({"": {"type": "object"}}), json!({}), true)]
    #[case(json!({"": {"type": "object"}}), json!([1]), false)]
    #[case(json!({"": {"minProperties": 1}}), json!({"": 2}), true)]
    #[case(json!({"": {"anyOf": [{"type": "null"}, {"required": ["a"]}]}}), json!({"a": 1}), true)]
    #[case(json!({"": {"like": [1]}}), json!([1]), true)]
    #[case(json!({"/": true}), json!({"": 2}), true)]
    #[case(json!({"0": 2, "2": "Heartbeat"}), json!([2, "x", "Heartbeat", {}]), true)]
    #[case(json!({"0": 2, "2": "Heartbeat"}), json!([2, "x", "Authorize", {}]), false)]
    #[case(json!({"1": "x"}), json!([2]), false)]
    #[case(json!({"1": "x"}), json!({"1": "x"}), true)]
    #[case(json!({"01": "x"}), json!([2, "x"]), false)]
    #[case(json!({"+1": "x"}), json!([2, "x"]), false)]
    #[case(json!({"a": {"1": {"b": 2}}}), json!({"a": [1, {"b": 2, "c": 3}]}), true)]
    #[case(json!({"a": {"1": {"b": 3}}}), json!({"a": [1, {"b": 2}]}), false)]
    #[case(json!({"a": {}}), json!({"a": []}), false)]
    #[case(json!({"a": {"b": 1}}), json!({"a": [1]}), false)]
    #[case(json!({"/1/like": {"like": {"0": 1}}}), json!([0, {"like": [1, 2]}]), true)]
    fn names_in_a_matcher_take_values_and_pointers_take_schemas(
        #[case] matcher: Value,
        #[case] subject: Value,
        #[case] fits: bool,
    ) {
        let matcher = Matcher::compile(&matcher).expect("compiles");
        assert_eq!(matcher.fits(&subject), fits, "{:?}", matcher.difference(&subject));
    }

    #[rstest]
    fn matcher_pointers_resolve_as_in_serde_json(
        #[values(
            "", "/", "/a", "/a/0", "/a/1", "/a/2", "/a/01", "/a/+1", "/a/-", "/a/b", "/0", "/x~1y", "/m~0n", "/~01",
            "/s/0"
        )]
        pointer: &str,
        #[values(json!({"a": [1, {"b": 2}], "": 3, "0": 4, "x/y": 5, "m~n": 6, "~1": 7, "s": "text"}), json!([8, [9]]), json!(null))]
        subject: Value,
    ) {
        let steps: Vec<String> = pointer.split('/').skip(1).map(unescape).collect();
        assert_eq!(value_at(&subject, &steps), subject.pointer(pointer));
    }

    #[rstest]
    #[case(json!({"/a": 3}))]
    #[case(json!({"/a": {"type": "strin"}}))]
    #[case(json!({"a or absent": 3}))]
    #[case(json!({"": true}))]
    #[case(json!({"": 3}))]
    #[case(json!({" or absent": {"type": "object"}}))]
    #[case(json!([]))]
    fn invalid_matchers_are_refused(#[case] matcher: Value) {
        assert!(Matcher::compile(&matcher).is_err());
    }

    #[test]
    fn the_first_difference_from_a_matcher_is_described() {
        let matcher = Matcher::compile(&json!({"origin": {"name": "anna", "uuid": "u"}})).expect("compiles");
        let difference = matcher.difference(&json!({"origin": {"name": "anna", "uuid": "v"}})).expect("differs");
        assert_eq!(difference.to_string(), r#"/origin/uuid: expected "u", found "v""#);
    }
}
