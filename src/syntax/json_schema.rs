//! JSON Schema 2020-12 in packs and scenarios. Unknown keywords are errors, because the validator library would ignore
//! a misspelt keyword and accept everything.

use std::collections::{BTreeSet, HashMap};

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::{Value, json};

use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::matcher::{self, member_pointer, members_of, to_json_text};
use crate::syntax::yaml::SyntaxNode;

/// How the value of a keyword contains subschemas.
pub enum SubschemaLayout {
    Nothing,
    Schema,
    List,
    Map,
}

/// Returns how the value of a JSON Schema 2020-12 keyword contains subschemas; `None` for an unknown keyword.
pub fn subschema_layout(name: &str) -> Option<SubschemaLayout> {
    Some(match name {
        "not"
        | "if"
        | "then"
        | "else"
        | "items"
        | "contains"
        | "additionalProperties"
        | "propertyNames"
        | "unevaluatedItems"
        | "unevaluatedProperties"
        | "contentSchema" => SubschemaLayout::Schema,
        "allOf" | "anyOf" | "oneOf" | "prefixItems" => SubschemaLayout::List,
        "properties" | "patternProperties" | "dependentSchemas" | "$defs" => SubschemaLayout::Map,
        "$schema" | "$ref" | "$anchor" | "$comment" | "title" | "description" | "default" | "deprecated"
        | "readOnly" | "writeOnly" | "examples" | "type" | "enum" | "const" | "multipleOf" | "maximum"
        | "exclusiveMaximum" | "minimum" | "exclusiveMinimum" | "maxLength" | "minLength" | "pattern" | "maxItems"
        | "minItems" | "uniqueItems" | "maxContains" | "minContains" | "maxProperties" | "minProperties"
        | "required" | "dependentRequired" | "format" | "contentEncoding" | "contentMediaType" => {
            SubschemaLayout::Nothing
        }
        _ => return None,
    })
}

/// Whether JSON Schema 2020-12 has this keyword.
pub fn is_keyword(name: &str) -> bool {
    subschema_layout(name).is_some()
}

/// Whether the validator asserts this format.
pub fn is_format(name: &str) -> bool {
    FORMATS.contains(&name)
}

/// Names of the keywords, for "did you mean".
pub const KEYWORDS: &[&str] = &[
    "not",
    "if",
    "then",
    "else",
    "items",
    "contains",
    "additionalProperties",
    "propertyNames",
    "allOf",
    "anyOf",
    "oneOf",
    "prefixItems",
    "properties",
    "patternProperties",
    "$defs",
    "$ref",
    "title",
    "description",
    "examples",
    "type",
    "enum",
    "const",
    "multipleOf",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "maxContains",
    "minContains",
    "maxProperties",
    "minProperties",
    "required",
    "dependentRequired",
    "dependentSchemas",
    "format",
    "unevaluatedItems",
    "unevaluatedProperties",
    "like",
    "x-rules",
    "x-should",
    "x-example",
];

/// The formats that the validator asserts. It would silently accept any other format.
const FORMATS: &[&str] = &[
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "idn-email",
    "idn-hostname",
    "ipv4",
    "ipv6",
    "iri",
    "iri-reference",
    "json-pointer",
    "regex",
    "relative-json-pointer",
    "time",
    "uri",
    "uri-reference",
    "uri-template",
    "uuid",
];

const JSON_TYPES: [&str; 7] = ["string", "integer", "number", "boolean", "object", "array", "null"];

/// A mistake in a schema or matcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaMistake {
    /// JSON pointer into the schema.
    pub pointer: String,
    /// Whether the key at the pointer is wrong, rather than the value.
    pub key: bool,
    pub message: String,
    /// What to do about the mistake; may be empty.
    pub help: String,
}

impl SchemaMistake {
    /// Returns the diagnostic for the file in which the schema is `node`.
    pub fn into_diagnostic(self, node: &SyntaxNode) -> Diagnostic {
        let span = if self.key { node.key_at_pointer(&self.pointer) } else { node.at_pointer(&self.pointer).span };
        Diagnostic::error(span, self.message).help(self.help)
    }

    /// Moves the mistake to the enclosing value, which contains the schema at `pointer`.
    pub fn moved_below(self, pointer: &str) -> Self {
        Self { pointer: format!("{pointer}{}", self.pointer), ..self }
    }
}

/// Returns all mistakes of a schema that may contain `extra` keywords. A scenario's expressions, `"${...}"`, stand for
/// any value.
pub fn find_schema_mistakes(schema: &Value, extra: &[&str]) -> Vec<SchemaMistake> {
    let mut found = find_unknown_words(schema, extra);
    if found.is_empty()
        && !has_expressions(schema)
        && let Err(error) = compile_schema(schema)
    {
        let pointer = error.instance_path().as_str().to_owned();
        let (message, help) = match error.instance().as_ref() {
            Value::String(text) if pointer.ends_with("/pattern") => (
                format!("`{text}` is not a regular expression"),
                "write regular expressions in single quotes; a literal bracket is `\\(`",
            ),
            _ if pointer.is_empty() && !schema.is_object() => {
                (format!("`{schema}` is not a JSON Schema"), "a schema is a mapping of keywords, true or false")
            }
            _ => (format!("not a JSON Schema: {error}"), ""),
        };
        found.push(SchemaMistake { pointer, key: false, message, help: help.to_owned() });
    }
    found
}

/// The most bytes of a regular expression. The validator library reads one anew for each `\d` and the like in it.
pub const MAX_PATTERN_BYTES: usize = 2048;

/// Returns the JSON pointers of the regular expressions in a schema that are too long.
fn find_long_patterns(schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    visit_schemas(schema, "", &mut |schema, pointer| {
        let is_long = |pattern: &str| pattern.len() > MAX_PATTERN_BYTES;
        if schema.get("pattern").and_then(Value::as_str).is_some_and(is_long) {
            found.push(format!("{pointer}/pattern"));
        }
        let names = schema.get("patternProperties").and_then(Value::as_object).into_iter().flatten();
        let long = names.filter(|(pattern, _)| is_long(pattern));
        found.extend(long.map(|(pattern, _)| format!("{pointer}/patternProperties/{}", matcher::escape(pattern))));
    });
    found
}

/// Returns the keywords, types and formats, at any depth, that 2020-12 does not define: the validator would ignore
/// them, or explain them badly. Also returns regular expressions that are too long.
pub fn find_unknown_words(schema: &Value, extra: &[&str]) -> Vec<SchemaMistake> {
    let long = find_long_patterns(schema).into_iter().map(|pointer| SchemaMistake {
        key: !pointer.ends_with("/pattern"),
        pointer,
        message: format!("a regular expression of more than {MAX_PATTERN_BYTES} bytes"),
        help: "split it: `allOf` takes several patterns".to_owned(),
    });
    let mut found: Vec<SchemaMistake> = long.collect();
    visit_schemas(schema, "", &mut |schema, pointer| {
        for (name, value) in schema.as_object().into_iter().flatten() {
            let pointer = format!("{pointer}/{}", matcher::escape(name));
            if subschema_layout(name).is_none() && !extra.contains(&name.as_str()) {
                found.push(SchemaMistake {
                    pointer,
                    key: true,
                    message: format!("JSON Schema has no keyword `{name}`"),
                    help: suggest(name, KEYWORDS.iter().copied(), "the validator would ignore an unknown keyword"),
                });
                continue;
            }
            let (known, what): (&[&str], _) = match name.as_str() {
                "format" => (FORMATS, "format"),
                "type" => (&JSON_TYPES, "type"),
                _ => continue,
            };
            let values: Vec<(String, &Value)> = match value {
                Value::Array(items) if what == "type" => {
                    items.iter().enumerate().map(|(i, item)| (format!("{pointer}/{i}"), item)).collect()
                }
                single => vec![(pointer, single)],
            };
            for (pointer, value) in values {
                let wrong = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                if !known.contains(&wrong.as_str()) && !has_expressions(value) {
                    let known_ones = format!("known: {}", known.join(", "));
                    found.push(SchemaMistake {
                        pointer,
                        key: false,
                        message: format!("JSON Schema 2020-12 has no {what} `{wrong}`"),
                        help: suggest(&wrong, known.iter().copied(), &known_ones),
                    });
                }
            }
        }
    });
    found
}

/// Whether a value contains an expression of a scenario.
pub fn has_expressions(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("${"),
        Value::Array(items) => items.iter().any(has_expressions),
        Value::Object(members) => members.values().any(has_expressions),
        _ => false,
    }
}

/// Returns the schemas directly inside a schema, `x-should` ones included: for each its keyword, and its JSON pointer.
fn direct_subschemas(schema: &Value) -> Vec<(&str, String, &Value)> {
    let mut found = Vec::new();
    for (name, value) in schema.as_object().into_iter().flatten() {
        let at = member_pointer(name);
        match (subschema_layout(name), value) {
            (Some(SubschemaLayout::Schema), one) => found.push((name.as_str(), at, one)),
            (Some(SubschemaLayout::List), Value::Array(_)) | (Some(SubschemaLayout::Map), Value::Object(_)) => {
                let inner = members_of(value).into_iter();
                found.extend(inner.map(|(key, one)| (name.as_str(), format!("{at}{}", member_pointer(&key)), one)));
            }
            (None, Value::Array(entries)) if name == "x-should" => {
                let inner = entries.iter().enumerate().filter_map(|(i, entry)| Some((i, entry.get("schema")?)));
                found.extend(inner.map(|(i, one)| (name.as_str(), format!("{at}/{i}/schema"), one)));
            }
            _ => {}
        }
    }
    found
}

/// Calls `visit` for the schema itself and every schema inside it, `x-should` ones included, with its JSON pointer.
pub fn visit_schemas(schema: &Value, pointer: &str, visit: &mut impl FnMut(&Value, &str)) {
    visit(schema, pointer);
    for (_, at, inner) in direct_subschemas(schema) {
        visit_schemas(inner, &format!("{pointer}{at}"), visit);
    }
}

/// Returns a copy of a schema in which `change` replaces every schema directly inside it, apart from `x-should` ones.
/// `change` gets the schema and its JSON pointer.
pub fn map_subschemas(schema: &Value, pointer: &str, change: &mut dyn FnMut(&Value, &str) -> Value) -> Value {
    let mut copy = schema.clone();
    for (_, at, inner) in direct_subschemas(schema).into_iter().filter(|(keyword, ..)| *keyword != "x-should") {
        if let Some(place) = copy.pointer_mut(&at) {
            *place = change(inner, &format!("{pointer}{at}"));
        }
    }
    copy
}

/// The most combinations of alternatives in a schema: a validator may try all of them on one value.
const MAX_COMBINATIONS: u64 = 1 << 16;
/// The most levels of schemas and references whose combinations are counted.
const MAX_COUNTED_DEPTH: usize = 256;

/// Counts the combinations of alternatives that a validator may try on one value. A reference back to a schema above it
/// counts as one: how often it is followed depends on the value.
struct CombinationCounter<'s> {
    root: &'s Value,
    /// The combinations of schemas that are counted, or, as 1, being counted.
    known: HashMap<*const Value, u64>,
}

impl<'s> CombinationCounter<'s> {
    fn count(&mut self, schema: &'s Value, depth: usize) -> u64 {
        let Some(keywords) = schema.as_object().filter(|_| depth < MAX_COUNTED_DEPTH) else { return 1 };
        if let Some(known) = self.known.get(&std::ptr::from_ref(schema)) {
            return *known;
        }
        self.known.insert(schema, 1);
        // Schemas for the same value add up; of those for its parts, the largest counts.
        let (mut here, mut below) = (1_u64, 0);
        let reference = keywords.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
        let target = reference.and_then(|pointer| self.root.pointer(pointer)).map(|target| ("$ref", target));
        let inner = direct_subschemas(schema).into_iter().map(|(keyword, _, inner)| (keyword, inner));
        for (keyword, inner) in inner.chain(target) {
            match keyword {
                "$defs" | "x-should" => {}
                "$ref" | "allOf" | "anyOf" | "oneOf" | "not" | "if" | "then" | "else" | "dependentSchemas" => {
                    here = here.saturating_add(self.count(inner, depth + 1));
                }
                _ => below = below.max(self.count(inner, depth + 1)),
            }
        }
        let all = here.saturating_add(below);
        self.known.insert(schema, all);
        all
    }
}

/// Builds a 2020-12 validator that asserts formats and reads neither the network nor files.
pub fn build_validator(schema: &Value) -> Result<SchemaValidator, String> {
    let mut counter = CombinationCounter { root: schema, known: HashMap::new() };
    if counter.count(schema, 0) > MAX_COMBINATIONS {
        return Err(format!(
            "a value could be tried against more than {MAX_COMBINATIONS} combinations of alternatives"
        ));
    }
    if !find_long_patterns(schema).is_empty() {
        return Err(format!("a regular expression has more than {MAX_PATTERN_BYTES} bytes"));
    }
    let validator = compile_schema(schema).map_err(|error| format!("not a JSON Schema: {error}"))?;
    Ok(SchemaValidator { validator, may_be_costly: has_costly_pattern(schema) })
}

/// The most steps back that the search for a match of a pattern may take. Only patterns that look around or refer back take
/// any.
const MAX_BACKTRACKS: usize = 10_000;

/// The most letters that are repeated to find out whether a pattern may take too many steps.
const MAX_PUMPED: usize = 64;

/// A validator. A text that a pattern needs too many steps for is undecided, and not an error.
#[derive(Clone, Debug)]
pub struct SchemaValidator {
    validator: Validator,
    /// Whether a pattern may need too many steps.
    may_be_costly: bool,
}

impl SchemaValidator {
    pub fn is_valid(&self, value: &Value) -> bool {
        self.validator.is_valid(value) || self.may_be_costly && self.iter_errors(value).next().is_none()
    }

    pub fn iter_errors<'i>(&'i self, value: &'i Value) -> impl Iterator<Item = ValidationError<'i>> {
        self.validator.iter_errors(value).filter(|error| !is_undecided(error))
    }
}

/// Returns the patterns in a schema that need too many steps for some text, with the JSON pointer of each.
pub fn find_costly_patterns(schema: &Value) -> Vec<String> {
    fn add_patterns<'s>(schema: &'s Value, pointer: &str, found: &mut Vec<(String, &'s Value)>) {
        let members = schema.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value));
        let items = schema.as_array().into_iter().flatten().enumerate();
        for (name, value) in members.chain(items.map(|(index, value)| (index.to_string(), value))) {
            let pointer = format!("{pointer}{}", member_pointer(&name));
            add_patterns(value, &pointer, found);
            found.extend(Some((pointer, value)).filter(|_| name == "pattern" && value.is_string()));
        }
    }
    let mut found = Vec::new();
    if has_costly_pattern(schema) {
        add_patterns(schema, "", &mut found);
    }
    found.retain(|(_, pattern)| {
        let Ok(SchemaValidator { validator, .. }) = build_validator(&json!({ "pattern": pattern })) else {
            return false;
        };
        let letters = pattern.as_str().unwrap_or_default().chars().filter(|letter| letter.is_alphanumeric());
        let letters: BTreeSet<char> = letters.chain("a0 -".chars()).collect();
        letters.into_iter().take(MAX_PUMPED).any(|letter| {
            let text = json!(letter.to_string().repeat(64) + "\u{1}");
            validator.iter_errors(&text).any(|error| is_undecided(&error))
        })
    });
    found.into_iter().map(|(pointer, _)| pointer).collect()
}

fn is_undecided(error: &ValidationError<'_>) -> bool {
    matches!(
        error.kind(),
        ValidationErrorKind::BacktrackLimitExceeded { .. } | ValidationErrorKind::RegexEngineFailure { .. }
    )
}

/// Whether a text in a schema may be a pattern that looks around, refers back, or does not give back what it took.
fn has_costly_pattern(schema: &Value) -> bool {
    let text = schema.to_string();
    let in_group = text.split("(?").skip(1).any(|rest| !rest.starts_with(':'));
    let refers_back = text.split("\\\\").skip(1).any(|rest| rest.starts_with(|c: char| c == 'k' || c.is_ascii_digit()));
    in_group || refers_back || ["++", "*+", "?+", "}+"].iter().any(|possessive| text.contains(possessive))
}

fn compile_schema(schema: &Value) -> Result<Validator, jsonschema::ValidationError<'_>> {
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(MAX_BACKTRACKS))
        .with_keyword("like", |_, value, _| Ok(Box::new(crate::syntax::matcher::LikeKeyword::new(value.clone()))))
        .build(schema)
}

/// Returns the expectation that a value breaks, such as `type number`; `None` if only the error's own text names it.
/// `schema` is the source of the validator that found the error.
pub fn describe_expected(error: &ValidationError<'_>, schema: &Value) -> Option<String> {
    let path = error.schema_path().as_str();
    let keyword = path.rsplit('/').next().unwrap_or_default();
    let wanted = schema.pointer(path)?;
    Some(match (keyword, error.kind()) {
        (_, ValidationErrorKind::Custom { .. }) => return None,
        (_, ValidationErrorKind::Required { property }) => {
            format!("a member `{}`", property.as_str().unwrap_or_default())
        }
        ("type", _) => format!("type {}", describe_type(wanted)),
        ("const", _) => to_json_text(wanted),
        ("enum", _) => format!("one of {}", to_json_text(wanted)),
        ("anyOf" | "oneOf", _) => {
            let forms = wanted.as_array().map(Vec::as_slice).unwrap_or_default();
            let names: Vec<String> = forms.iter().map(|form| alternative_name(schema, form)).collect();
            if names.iter().any(String::is_empty) {
                return Some(format!("{keyword} {}", to_json_text(wanted)));
            }
            format!("{}one of the forms {}", if keyword == "oneOf" { "exactly " } else { "" }, names.join(", "))
        }
        (keyword, _) => format!("{keyword} {}", to_json_text(wanted)),
    })
}

/// Returns the name of an alternative: its title, or the name of the definition to which it refers; empty if it
/// has neither.
pub fn alternative_name(source: &Value, form: &Value) -> String {
    let title = |schema: &Value| schema.get("title").and_then(Value::as_str).map(str::to_owned);
    let reference = form.get("$ref").and_then(Value::as_str);
    let target = || title(source.pointer(reference?.strip_prefix('#')?)?);
    let name = || reference?.rsplit('/').next().map(crate::syntax::matcher::unescape);
    title(form).or_else(name).or_else(target).unwrap_or_default()
}

fn describe_type(kind: &Value) -> String {
    match kind {
        Value::String(kind) => kind.clone(),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        other => other.to_string(),
    }
}

/// Returns the JSON type of a value; an integer is a number.
pub fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::keyword(json!({"minimun": 1}), "/minimun", true, "`minimun`")]
    #[case::member_of_that_name(json!({"properties": {"minimun": {"minimun": 1}}}), "/properties/minimun/minimun", true, "`minimun`")]
    #[case::suggested(json!({"x-should": [{"rules": [], "schema": {"typo": 1}}]}), "/x-should/0/schema/typo", true, "`typo`")]
    #[case::format(json!({"format": "semver"}), "/format", false, "format `semver`")]
    #[case::type_(json!({"type": "sting"}), "/type", false, "type `sting`")]
    #[case::one_of_the_types(json!({"type": ["null", "int"]}), "/type/1", false, "type `int`")]
    #[case::value(json!({"not": {"minimum": "x"}}), "/not/minimum", false, "not a JSON Schema")]
    #[case::pattern(json!({"pattern": "("}), "/pattern", false, "`(` is not a regular expression")]
    #[case::long_pattern(json!({"items": {"pattern": "a".repeat(2049)}}), "/items/pattern", false, "more than 2048 bytes")]
    #[case::no_schema(json!(3), "", false, "`3` is not a JSON Schema")]
    fn a_mistake_in_a_schema_is_reported_at_its_pointer(
        #[case] schema: Value,
        #[case] at: &str,
        #[case] key: bool,
        #[case] says: &str,
    ) {
        let found = find_schema_mistakes(&schema, &["x-should"]);
        let [mistake] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((mistake.pointer.as_str(), mistake.key), (at, key), "{}", mistake.message);
        assert!(mistake.message.contains(says), "{}", mistake.message);
    }

    #[rstest]
    #[case::longest(2048, true)]
    #[case::too_long(2049, false)]
    fn a_long_pattern_is_not_read(#[case] length: usize, #[case] is_read: bool) {
        let pattern = r"\d".repeat(length / 2) + &"a".repeat(length % 2);
        for schema in [json!({ "pattern": pattern }), json!({ "patternProperties": { (&*pattern): {} } })] {
            assert_eq!(find_schema_mistakes(&schema, &[]).is_empty(), is_read);
            assert_eq!(build_validator(&schema).is_ok(), is_read);
        }
    }

    #[test]
    fn expressions_in_a_schema_stand_for_any_value() {
        let schema = json!({"type": "${kind}", "minimum": "${1}", "like": {"a": "${b}"}, "format": "${f}"});
        assert_eq!(find_schema_mistakes(&schema, &["like"]), []);
    }
}
