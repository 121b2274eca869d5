//! The schema of one message: its violations, its warnings (`x-should`), and the rules they concern.
//!
//! Two validators are compiled: one for the schema as it is, and one with every `x-should` moved into `allOf`. Errors
//! of the second validator whose schema path goes through a moved entry are warnings.

use std::collections::BTreeMap;

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::{Value, json};

use crate::generate::schema_shape::{MAX_SCHEMAS, SchemaShape};
use crate::syntax::diagnostic::nearest;
use crate::syntax::json_schema::{self, SchemaValidator};
use crate::syntax::matcher::{are_equal, array_index, to_json_text};

/// Keywords beyond JSON Schema that a message's schema may contain.
pub const EXTRA_KEYWORDS: [&str; 3] = ["x-rules", "x-should", "x-example"];

pub struct MessageSchema {
    /// The schema as written in the file.
    pub source: Value,
    /// The documented example, or a composed one; `None` if there is neither.
    pub example: Option<Value>,
    /// Whether the example comes from the document.
    pub documented: bool,
    strict: SchemaValidator,
    lenient: Option<LenientSchema>,
    /// Rules named anywhere outside `x-should`.
    pub rules: Vec<String>,
    /// Rules named by `x-should` entries.
    pub should_rules: Vec<String>,
}

struct LenientSchema {
    validator: SchemaValidator,
    /// The rules of each moved `x-should` entry, by the prefix of its new schema path.
    hoisted: BTreeMap<String, Vec<String>>,
    hoisted_source: Value,
}

/// A violation of a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaViolation {
    /// JSON pointer into the frame.
    pub path: String,
    pub expected: String,
    pub found: String,
    pub kind: SchemaViolationKind,
    /// Innermost `x-rules` around the broken keyword, or the rules of the `x-should` entry. May be empty.
    pub rules: Vec<String>,
    /// Whether the violation concerns an `x-should`, which makes it a warning.
    pub should: bool,
}

/// How a value breaks its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaViolationKind {
    /// The value lacks the required member of this name.
    Absence {
        member: String,
    },
    /// The value is not one of the allowed values.
    Value {
        allowed: Vec<Value>,
    },
    Other,
}

impl SchemaViolation {
    /// Returns the place as part of a sentence: "`/version`", or "the whole message".
    pub fn describe_place(&self) -> String {
        if self.path.is_empty() { "the whole message".to_owned() } else { format!("`{}`", self.path) }
    }

    /// Whether a required member of the value at `path` is missing.
    pub fn is_absence(&self) -> bool {
        matches!(self.kind, SchemaViolationKind::Absence { .. })
    }
}

/// The most violations reported for one frame.
const MAX_VIOLATIONS: usize = 8;
/// The most alternatives of a schema, and the most levels of alternatives, that are distinguished.
const MAX_BRANCHES: usize = 64;
const MAX_BRANCH_DEPTH: usize = 4;
/// The most members of a value that are compared with the constants of alternatives.
const MAX_PLACES: usize = 32;

impl MessageSchema {
    /// Whether some entry of the schema names a rule.
    pub fn names_rule(&self, rule: &str) -> bool {
        self.rules.iter().chain(&self.should_rules).any(|named| named == rule)
    }

    pub fn compile(source: Value) -> Result<Self, String> {
        let strict = json_schema::build_validator(&source)?;
        let mut hoisted = BTreeMap::new();
        let hoisted_source = hoist_should_entries(&source, "", &mut hoisted);
        let lenient = if hoisted.is_empty() {
            None
        } else {
            Some(LenientSchema { validator: json_schema::build_validator(&hoisted_source)?, hoisted, hoisted_source })
        };
        let (should, must): (Vec<_>, Vec<_>) = referenced_rules(&source).into_iter().partition(|named| named.should);
        let distinct = |named: Vec<RuleReference>| {
            let mut seen = std::collections::BTreeSet::new();
            named.into_iter().map(|named| named.rule).filter(|rule| seen.insert(rule.clone())).collect()
        };
        let (rules, should_rules) = (distinct(must), distinct(should));
        let example = source.get("examples").and_then(|e| e.get(0)).cloned();
        let documented = source.get("x-example").and_then(Value::as_str) == Some("documented");
        Ok(Self { source, example, documented, strict, lenient, rules, should_rules })
    }

    pub fn is_valid(&self, payload: &Value) -> bool {
        self.strict.is_valid(payload)
    }

    /// Returns the violations of a payload, errors before warnings.
    pub fn violations(&self, payload: &Value) -> Vec<SchemaViolation> {
        let mut found: Vec<SchemaViolation> = if self.strict.is_valid(payload) {
            Vec::new()
        } else {
            let mut found = Vec::new();
            for error in self.strict.iter_errors(payload).take(MAX_VIOLATIONS) {
                add_violations(&error, &self.source, &mut Vec::new(), &mut found);
            }
            found.truncate(MAX_VIOLATIONS);
            found
        };
        if let Some(lenient) = &self.lenient
            && !lenient.validator.is_valid(payload)
        {
            for error in lenient.validator.iter_errors(payload).take(MAX_VIOLATIONS) {
                let path = error.schema_path().as_str().to_owned();
                let entry = lenient.hoisted.iter().find(|(prefix, _)| {
                    path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                });
                if let Some((_, rules)) = entry {
                    found.push(to_violation(&error, &lenient.hoisted_source, Some(rules)));
                }
            }
        }
        found
    }

    /// Whether the schema documents this member path.
    pub fn documents_path(&self, path: &[&str]) -> bool {
        schema_documents_path(&self.source, path)
    }

    /// Whether the value at a path may be a number with a fraction.
    pub fn is_any_number(&self, path: &[impl AsRef<str>]) -> bool {
        let is_number = |schema: &Value| match schema.get("type") {
            Some(Value::Array(types)) => types.iter().any(|one| one == "number"),
            one => one.is_some_and(|one| one == "number"),
        };
        subschemas_at(&self.source, &self.source, path).into_iter().any(is_number)
    }

    /// Whether the element at an index of the array at a path has a schema of its own, like a member of an object.
    pub fn has_own_element(&self, path: &[impl AsRef<str>], index: usize) -> bool {
        let own = |schema: &Value| schema.get("prefixItems").is_some_and(|items| items.get(index).is_some());
        subschemas_at(&self.source, &self.source, path).into_iter().any(own)
    }

    /// Returns the first name on a path that the schema does not have, by its position, with the name of the schema that
    /// it resembles: it may be misspelt. `None` for other names that the schema does not have.
    pub fn misspelt_name(&self, path: &[String]) -> Option<(usize, String)> {
        let missing = |depth: &usize| {
            let names = self.member_names(&path[..*depth]);
            names.is_empty() || !names.contains(&path[*depth])
        };
        // Short names resemble each other by chance.
        let depth = (0..path.len()).find(missing).filter(|depth| path[*depth].len() > 3)?;
        let names = self.member_names(&path[..depth]);
        Some((depth, nearest(&path[depth], names.iter().map(String::as_str))?.to_owned()))
    }

    /// Returns the member names at a path, for "did you mean".
    pub fn member_names(&self, path: &[impl AsRef<str>]) -> Vec<String> {
        let mut names = Vec::new();
        for schema in subschemas_at(&self.source, &self.source, path) {
            names.extend(
                schema.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(k, _)| k.clone()),
            );
        }
        names
    }
}

/// A rule that a schema names.
pub struct RuleReference {
    pub rule: String,
    /// The place in the schema that names the rule, as a JSON pointer.
    pub pointer: String,
    /// Whether an `x-should` names the rule, or an `x-rules` inside one.
    pub should: bool,
}

/// Returns every rule that a schema names, under `x-rules` and `x-should`.
pub fn referenced_rules(source: &Value) -> Vec<RuleReference> {
    let mut found = Vec::new();
    json_schema::visit_schemas(source, "", &mut |schema, pointer| {
        let mut list = |names: Option<&Value>, pointer: String, should: bool| {
            for (index, name) in names.and_then(Value::as_array).into_iter().flatten().enumerate() {
                if let Some(name) = name.as_str() {
                    found.push(RuleReference { rule: name.to_owned(), pointer: format!("{pointer}/{index}"), should });
                }
            }
        };
        list(schema.get("x-rules"), format!("{pointer}/x-rules"), pointer.contains("/x-should/"));
        for (index, entry) in schema.get("x-should").and_then(Value::as_array).into_iter().flatten().enumerate() {
            list(entry.get("rules"), format!("{pointer}/x-should/{index}/rules"), true);
        }
    });
    found
}

/// Returns the names in a list of rules, each once.
fn rule_names(list: Option<&Value>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// Returns every schema for the value at a path.
fn subschemas_at<'a>(root: &'a Value, schema: &'a Value, path: &[impl AsRef<str>]) -> Vec<&'a Value> {
    SchemaShape::within(root, schema).descend(path).all_schemas()
}

fn schema_documents_path(schema: &Value, path: &[&str]) -> bool {
    for depth in 0..=path.len() {
        let here = subschemas_at(schema, schema, &path[..depth]);
        if here.is_empty() {
            return false;
        }
        let Some(name) = path.get(depth) else { break };
        // What is only recommended leaves other members open.
        let demanded = SchemaShape::certain(schema, schema, &mut MAX_SCHEMAS.clone());
        let demanded = demanded.descend(&path[..depth]).all_schemas();
        // A schema without `properties` allows any members (`data: any`), and so does a schema with patterns for member
        // names. In the same way, a schema that describes no elements allows any elements.
        let names_members = demanded.iter().any(|s| s.get("properties").is_some());
        let names_elements = demanded.iter().any(|s| s.get("items").or(s.get("prefixItems")).is_some());
        let named_by_form =
            |s: &&Value| s.get("patternProperties").or(s.get("additionalProperties")).is_some_and(Value::is_object);
        let free = match array_index(name) {
            Some(_) => !names_elements && !names_members,
            None => !names_members,
        };
        if free || here.iter().any(named_by_form) {
            return true;
        }
    }
    true
}

/// Adds the violations of an error. If the value breaks all alternatives of a `oneOf` or `anyOf`, but one of them is
/// meant, these are its violations there. `branches` are the names of the alternatives that lead to the error.
fn add_violations(
    error: &ValidationError<'_>,
    source: &Value,
    branches: &mut Vec<String>,
    found: &mut Vec<SchemaViolation>,
) {
    if branches.len() < MAX_BRANCH_DEPTH
        && let Some((name, errors)) = intended_branch(error, source)
    {
        branches.push(name);
        for error in errors.iter().take(MAX_VIOLATIONS) {
            add_violations(error, source, branches, found);
        }
        branches.pop();
        return;
    }
    let mut violation = to_violation(error, source, None);
    if let Some(name) = branches.iter().rev().find(|name| !name.is_empty()) {
        violation.expected.push_str(&format!(" (branch `{name}`)"));
    }
    // Two alternatives may break at the same place in the same way.
    if !found.contains(&violation) {
        found.push(violation);
    }
}

/// Returns the alternative that a value is meant to be, with its name and errors: the only one whose constants the value
/// has, or else the only one of the value's type. The name is empty if the schema does not state one.
fn intended_branch<'e>(
    error: &'e ValidationError<'_>,
    source: &Value,
) -> Option<(String, &'e [ValidationError<'static>])> {
    let (ValidationErrorKind::OneOfNotValid { context } | ValidationErrorKind::AnyOf { context }) = error.kind() else {
        return None;
    };
    let forms = source.pointer(error.schema_path().as_str())?.as_array()?;
    if forms.len() != context.len() || forms.len() > MAX_BRANCHES {
        return None;
    }
    let here = error.instance_path().as_str();
    let value = error.instance();
    let places = scalar_places(value);
    // A single value says more than one of several.
    let by_constants = ["const", "enum"].into_iter().find_map(|keyword| {
        let constants = |form: &Value| -> Vec<(usize, bool)> {
            let constant = |(index, (path, value)): (usize, &(Vec<String>, &Value))| {
                let schemas = subschemas_at(source, form, path);
                let mut demands = schemas.iter().filter_map(|schema| match keyword {
                    "const" => schema.get("const").map(|want| are_equal(want, value)),
                    _ => allowed_values(schema).map(|values| values.iter().any(|want| are_equal(want, value))),
                });
                let first = demands.next()?;
                Some((index, first && demands.all(|fits| fits)))
            };
            places.iter().enumerate().filter_map(constant).collect()
        };
        let demanded: Vec<Vec<(usize, bool)>> = forms.iter().map(constants).collect();
        let met = |place: usize| demanded.iter().flatten().any(|(other, fits)| *other == place && *fits);
        let fitting = demanded.iter().enumerate().filter(|(_, places)| {
            places.iter().any(|(_, fits)| *fits) && places.iter().all(|(place, fits)| *fits || !met(*place))
        });
        only_one(fitting.map(|(index, _)| index))
    });
    let by_type = || {
        let of_type = context.iter().enumerate().filter(|(_, errors)| {
            !errors.iter().any(|error| {
                matches!(error.kind(), ValidationErrorKind::Type { .. }) && error.instance_path().as_str() == here
            })
        });
        only_one(of_type.map(|(index, _)| index))
    };
    let index = by_constants.or_else(by_type)?;
    Some((json_schema::alternative_name(source, &forms[index]), &context[index]))
}

fn only_one(mut items: impl Iterator<Item = usize>) -> Option<usize> {
    items.next().filter(|_| items.next().is_none())
}

/// Returns the values that a schema allows, if it lists them.
fn allowed_values(schema: &Value) -> Option<&[Value]> {
    match schema.get("const") {
        Some(value) => Some(std::slice::from_ref(value)),
        None => schema.get("enum")?.as_array().map(Vec::as_slice),
    }
}

/// Returns the values in an object that are neither objects nor lists, on two levels, with their paths.
fn scalar_places(value: &Value) -> Vec<(Vec<String>, &Value)> {
    let mut found = Vec::new();
    for (name, member) in value.as_object().into_iter().flatten().take(MAX_PLACES) {
        match member {
            Value::Object(inner) => {
                let inner = inner.iter().filter(|(_, value)| !value.is_object() && !value.is_array());
                found.extend(inner.map(|(inner, value)| (vec![name.clone(), inner.clone()], value)));
            }
            Value::Array(_) => {}
            _ => found.push((vec![name.clone()], member)),
        }
        if found.len() >= MAX_PLACES {
            found.truncate(MAX_PLACES);
            break;
        }
    }
    found
}

fn to_violation(error: &ValidationError<'_>, source: &Value, should: Option<&Vec<String>>) -> SchemaViolation {
    let schema_path = error.schema_path().as_str();
    let rules = match should {
        Some(rules) => rules.clone(),
        None => rules_of_keyword(source, schema_path),
    };
    let keyword = schema_path.rsplit('/').next().unwrap_or_default();
    let kind = match (keyword, source.pointer(schema_path), error.kind()) {
        (.., ValidationErrorKind::Required { property }) => {
            SchemaViolationKind::Absence { member: property.as_str().unwrap_or_default().to_owned() }
        }
        ("const", Some(value), _) => SchemaViolationKind::Value { allowed: vec![value.clone()] },
        ("enum", Some(values), _) => {
            SchemaViolationKind::Value { allowed: values.as_array().cloned().unwrap_or_default() }
        }
        _ => SchemaViolationKind::Other,
    };
    let expected = json_schema::describe_expected(error, source).unwrap_or_else(|| error.to_string());
    let found = match kind {
        SchemaViolationKind::Absence { .. } => "no such member".to_owned(),
        _ => to_json_text(error.instance()),
    };
    let path = error.instance_path().as_str().to_owned();
    SchemaViolation { path, expected, found, kind, rules, should: should.is_some() }
}

/// Returns the innermost `x-rules` on the path from the root to the broken keyword.
pub fn rules_of_keyword(source: &Value, schema_path: &str) -> Vec<String> {
    let mut rules = Vec::new();
    let mut pointer = String::new();
    let mut consider = |pointer: &str| {
        if let Some(found) = source.pointer(pointer).and_then(|s| s.get("x-rules")) {
            rules = rule_names(Some(found));
        }
    };
    consider("");
    for token in schema_path.split('/').skip(1) {
        pointer.push('/');
        pointer.push_str(token);
        consider(&pointer);
    }
    rules
}

/// Returns the schema with every `x-should` entry moved into the `allOf` beside it, and records where each went.
fn hoist_should_entries(schema: &Value, pointer: &str, hoisted: &mut BTreeMap<String, Vec<String>>) -> Value {
    let mut copy =
        json_schema::map_subschemas(schema, pointer, &mut |inner, at| hoist_should_entries(inner, at, hoisted));
    let entries = copy.as_object_mut().and_then(|members| members.shift_remove("x-should"));
    if let Some(Value::Array(entries)) = entries {
        let mut all = copy.get("allOf").and_then(Value::as_array).cloned().unwrap_or_default();
        for entry in entries {
            hoisted.insert(format!("{pointer}/allOf/{}", all.len()), rule_names(entry.get("rules")));
            all.push(entry.get("schema").cloned().unwrap_or(json!(true)));
        }
        copy["allOf"] = Value::Array(all);
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn schema() -> MessageSchema {
        MessageSchema::compile(json!({
            "type": "object",
            "required": ["type", "uuid"],
            "x-rules": ["R-1"],
            "properties": {
                "type": { "const": "HELLO" },
                "uuid": { "type": "string", "x-rules": ["R-2"], "x-should": [{ "rules": ["R-3"], "schema": { "format": "uuid" } }] }
            }
        }))
        .expect("compiles")
    }

    #[test]
    fn a_violation_names_the_innermost_rules_of_the_schema() {
        let found = schema().violations(&json!({"type": "HELLO", "uuid": 3}));
        assert_eq!(found[0].rules, ["R-2"]);
        assert_eq!((found[0].path.as_str(), found[0].should), ("/uuid", false));
        assert_eq!(schema().violations(&json!({"type": "HELLO"}))[0].rules, ["R-1"]);
    }

    #[test]
    fn a_broken_x_should_warns_with_its_own_rules_and_path() {
        let found = schema().violations(&json!({"type": "HELLO", "uuid": "x"}));
        assert_eq!(found.len(), 1);
        assert!(found[0].should);
        assert_eq!((found[0].path.as_str(), found[0].rules.as_slice()), ("/uuid", ["R-3".to_owned()].as_slice()));
        assert!(
            schema().violations(&json!({"type": "HELLO", "uuid": "73fcc768-d724-47e2-a101-a45298188f47"})).is_empty()
        );
    }

    /// The first violation of a payload: its place and what was expected.
    fn first_violation(schema: Value, payload: Value) -> (String, String) {
        let found = MessageSchema::compile(schema).unwrap().violations(&payload).remove(0);
        (found.path, found.expected)
    }

    #[test]
    fn a_violation_is_that_of_the_alternative_whose_constants_the_value_has() {
        let alternatives = |keyword: &str| {
            json!({
                keyword: [{ "$ref": "#/$defs/test" }, { "$ref": "#/$defs/news" }],
                "$defs": {
                    "test": { "type": "object", "required": ["kind", "id"], "properties": { "kind": { "const": "test" }, "id": { "type": "integer" }, "state": { "enum": ["on", "off"] } } },
                    "news": { "type": "object", "required": ["kind"], "properties": { "kind": { "const": "news" }, "id": { "type": "string" }, "state": { "enum": ["old"] } } }
                }
            })
        };
        let place = |path: &str, expected: &str| (path.to_owned(), expected.to_owned());
        for keyword in ["oneOf", "anyOf"] {
            let first = |payload: Value| first_violation(alternatives(keyword), payload);
            assert_eq!(first(json!({ "kind": "test", "id": "x" })), place("/id", "type integer (branch `test`)"));
            assert_eq!(first(json!({ "kind": "test" })), place("", "a member `id` (branch `test`)"));
            // The constant of one alternative decides, not the enumeration of another.
            assert_eq!(
                first(json!({ "kind": "test", "id": 1, "state": "old" })),
                place("/state", "one of [\"on\",\"off\"] (branch `test`)")
            );
            // No alternative is meant.
            assert_eq!(first(json!({ "kind": "other" })).0, "");
            assert!(first(json!({ "kind": "other" })).1.ends_with("one of the forms test, news"));
        }
        let nested = json!({
            "required": ["data"],
            "properties": { "data": { "oneOf": [
                { "title": "point", "required": ["type", "at"], "properties": { "type": { "enum": ["point", "dot"] }, "at": { "anyOf": [{ "type": "integer" }, { "type": "null" }] } } },
                { "required": ["type"], "properties": { "type": { "const": "line" } } }
            ] } }
        });
        let found = first_violation(nested.clone(), json!({ "data": { "type": "dot", "at": "x" } }));
        assert_eq!((found.0.as_str(), found.1.contains("(branch `point`)")), ("/data/at", true), "{}", found.1);
        // The only alternative of the value's type.
        let nullable = json!({ "anyOf": [{ "type": "object", "required": ["a"] }, { "type": "null" }] });
        assert_eq!(first_violation(nullable, json!({})), place("", "a member `a`"));
    }

    /// A repetition in a repetition, of which a validator may try every way to divide a text.
    #[test]
    fn a_text_that_a_pattern_takes_too_long_for_is_no_violation() {
        const PATTERN: &str = "^(?:(?=a)a+)+$";
        let schema =
            json!({ "properties": { "a": { "pattern": PATTERN, "maxLength": 200 }, "b": { "pattern": "^b" } } });
        assert_eq!(json_schema::find_costly_patterns(&schema), ["/properties/a/pattern"]);
        let schema = MessageSchema::compile(schema).unwrap();
        let costly = "a".repeat(100) + "!";
        assert!(schema.is_valid(&json!({ "a": costly })) && schema.violations(&json!({ "a": costly })).is_empty());
        // What is decided is still judged.
        assert_eq!(schema.violations(&json!({ "a": costly, "b": "c" })).len(), 1);
        assert!(!schema.is_valid(&json!({ "a": costly.repeat(2) })) && !schema.is_valid(&json!({ "a": "!" })));
    }

    #[test]
    fn undocumented_members_are_recognised() {
        assert!(schema().documents_path(&["uuid"]));
        assert!(!schema().documents_path(&["uid"]));
    }

    #[rstest]
    #[case::anything(json!({}), &["0", "a"], true)]
    #[case::any_array(json!({"type": "array"}), &["7"], true)]
    #[case::element(json!({"prefixItems": [{}, {"properties": {"a": {}}}]}), &["1", "a"], true)]
    #[case::member_of_element(json!({"prefixItems": [{}, {"properties": {"a": {}}}]}), &["1", "b"], false)]
    #[case::beyond_prefix(json!({"prefixItems": [{}]}), &["1"], false)]
    #[case::items(json!({"prefixItems": [{}], "items": {}}), &["1"], true)]
    #[case::number_as_name(json!({"properties": {"1": {"properties": {"a": {}}}}}), &["1", "a"], true)]
    #[case::other_number(json!({"properties": {"1": {}}}), &["2"], false)]
    fn elements_are_documented_like_members(#[case] schema: Value, #[case] path: &[&str], #[case] expected: bool) {
        assert_eq!(schema_documents_path(&schema, path), expected);
    }
}
