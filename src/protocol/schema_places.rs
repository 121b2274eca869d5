//! The places that a value can have under its schema. Every answer is cautious: a place counts as possible unless the
//! schema rules it out.

use serde_json::Value;

use crate::generate::schema_shape::{MAX_SCHEMAS, SchemaShape, ShapeStep};
use crate::syntax::json_schema::json_type;
use crate::syntax::matcher::{are_equal, array_index};

/// A step from a value to a value in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaceStep {
    /// A member of an object.
    Member(String),
    /// An element of an array.
    Element(usize),
    /// A name in a pointer: an element where an array stands, and a member elsewhere.
    Name(String),
}

impl PlaceStep {
    /// Returns the steps of a JSON pointer, or of the names on its path.
    pub fn names<'n>(path: impl IntoIterator<Item = &'n str>) -> Vec<Self> {
        path.into_iter().map(|name| Self::Name(name.to_owned())).collect()
    }

    fn member(&self) -> Option<&str> {
        match self {
            Self::Member(name) | Self::Name(name) => Some(name),
            Self::Element(_) => None,
        }
    }

    fn element(&self) -> Option<usize> {
        match self {
            Self::Element(index) => Some(*index),
            Self::Name(name) => array_index(name),
            Self::Member(_) => None,
        }
    }

    /// Returns the value at this step.
    fn child<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        match value {
            Value::Object(members) => members.get(self.member()?),
            Value::Array(items) => items.get(self.element()?),
            _ => None,
        }
    }
}

/// The question about the value at a place.
#[derive(Clone, Copy)]
enum PlaceDemand<'d> {
    Exists,
    Type(&'static str),
    Equals(&'d Value),
}

impl PlaceDemand<'_> {
    fn holds(self, value: &Value) -> bool {
        match self {
            Self::Exists => true,
            Self::Type(kind) => json_type(value) == kind,
            Self::Equals(want) => are_equal(want, value),
        }
    }

    /// Returns the type that the value must have.
    fn json_type(self) -> Option<&'static str> {
        match self {
            Self::Exists => None,
            Self::Type(kind) => Some(kind),
            Self::Equals(want) => Some(json_type(want)),
        }
    }
}

const JSON_TYPES: [&str; 6] = ["null", "boolean", "number", "string", "array", "object"];

/// Whether a value that is valid under the schema can have this place.
fn can_have_place(root: &Value, path: &[PlaceStep]) -> bool {
    schema_allows(root, path, PlaceDemand::Exists)
}

/// Whether a value that is valid under the schema can have this value at a place.
pub fn can_have_value(root: &Value, path: &[PlaceStep], value: &Value) -> bool {
    schema_allows(root, path, PlaceDemand::Equals(value))
}

/// Returns the JSON types that the value at a place can have.
fn possible_types(root: &Value, path: &[PlaceStep]) -> Vec<&'static str> {
    JSON_TYPES.into_iter().filter(|kind| schema_allows(root, path, PlaceDemand::Type(kind))).collect()
}

fn schema_allows(root: &Value, path: &[PlaceStep], demand: PlaceDemand<'_>) -> bool {
    let mut left = MAX_SCHEMAS;
    allows(&SchemaShape::certain(root, root, &mut left), path, demand, &mut left)
}

/// Whether a value of a shape can meet a demand at a place. Beyond the limit on schemas, everything counts as possible.
fn allows(shape: &SchemaShape<'_>, path: &[PlaceStep], demand: PlaceDemand<'_>, left: &mut usize) -> bool {
    let (schemas, unions) = shape.parts();
    schemas.iter().all(|schema| own_keywords_allow(shape, schema, path, demand, left))
        && unions.iter().all(|forms| forms.iter().any(|form| allows(form, path, demand, left)))
}

/// Whether the keywords of one schema allow it, apart from combinators and references.
fn own_keywords_allow<'a>(
    shape: &SchemaShape<'a>,
    schema: &'a Value,
    path: &[PlaceStep],
    demand: PlaceDemand<'_>,
    left: &mut usize,
) -> bool {
    let Value::Object(keywords) = schema else { return *schema == Value::Bool(true) };
    let at =
        |value: &Value| path.iter().try_fold(value, |value, step| step.child(value)).is_some_and(|v| demand.holds(v));
    if !keywords.get("const").is_none_or(at)
        || !keywords.get("enum").and_then(Value::as_array).is_none_or(|values| values.iter().any(at))
    {
        return false;
    }
    let Some((step, rest)) = path.split_first() else {
        return demand.json_type().is_none_or(|kind| allows_type(schema, kind));
    };
    let mut part_allows = |part: ShapeStep<'_>| {
        shape.schemas_of_part(schema, part).into_iter().all(|inner| {
            let inner = shape.of_schema(inner, left);
            allows(&inner, rest, demand, left)
        })
    };
    step.member().is_some_and(|name| allows_type(schema, "object") && part_allows(ShapeStep::Member(name)))
        || step.element().is_some_and(|index| allows_type(schema, "array") && part_allows(ShapeStep::Item(index)))
}

fn allows_type(schema: &Value, kind: &str) -> bool {
    let is = |name: &Value| name == kind || (kind == "number" && name == "integer");
    match schema.get("type") {
        Some(Value::Array(names)) => names.iter().any(is),
        Some(name) => is(name),
        None => true,
    }
}

/// Why a value cannot have a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImpossiblePlace {
    /// The number of steps that lead to an existing place.
    pub depth: usize,
    /// The JSON types that the value there can have.
    pub types: Vec<&'static str>,
}

/// Returns why no value that is valid under one of the schemas has this place; `None` if one can have it.
pub fn impossible_place(schemas: &[&Value], path: &[PlaceStep]) -> Option<ImpossiblePlace> {
    let possible = |path: &[PlaceStep]| schemas.iter().any(|schema| can_have_place(schema, path));
    if schemas.is_empty() || possible(path) {
        return None;
    }
    let depth = (0..path.len()).rev().find(|depth| possible(&path[..*depth]))?;
    let mut types: Vec<&str> = schemas.iter().flat_map(|schema| possible_types(schema, &path[..depth])).collect();
    types.sort_unstable();
    types.dedup();
    Some(ImpossiblePlace { depth, types })
}

/// Returns what the value at a place is, such as "a string", if no value that is valid under one of the schemas has a
/// number there; `None` also if nothing is there.
pub fn never_a_number(schemas: &[&Value], path: &[PlaceStep]) -> Option<String> {
    let mut types: Vec<&str> = schemas.iter().flat_map(|schema| possible_types(schema, path)).collect();
    types.sort_unstable();
    types.dedup();
    let words: Vec<&str> = types.iter().map(|kind| describe_type(kind)).collect();
    (!words.is_empty() && !types.iter().any(|kind| matches!(*kind, "number" | "boolean"))).then(|| words.join(" or "))
}

impl ImpossiblePlace {
    /// Completes the sentence "X ...": "is a string, which has no members".
    pub fn describe(&self, step: &PlaceStep) -> String {
        let kind = match self.types.as_slice() {
            [one] => Some(describe_type(one)),
            _ => None,
        };
        let holds = |kind: &str| self.types.contains(&kind);
        match (step, kind) {
            (PlaceStep::Element(index), Some("an array")) => format!("has no element {index}"),
            (PlaceStep::Name(name), Some("an array")) if array_index(name).is_some() => {
                format!("has no element {name}")
            }
            (PlaceStep::Member(name) | PlaceStep::Name(name), Some("an array")) => {
                format!("is an array, which has no member `{name}`")
            }
            (PlaceStep::Element(_), Some(kind)) => format!("is {kind}, which has no elements"),
            (PlaceStep::Member(name) | PlaceStep::Name(name), Some("an object")) => format!("has no member `{name}`"),
            (_, Some(kind)) => format!("is {kind}, which has no members"),
            (PlaceStep::Element(_), None) if !holds("array") => "is never an array".to_owned(),
            (PlaceStep::Element(index), None) => format!("has no element {index}"),
            (_, None) if !holds("array") && !holds("object") => "is never an object".to_owned(),
            (PlaceStep::Member(name) | PlaceStep::Name(name), None) => format!("has no member `{name}`"),
        }
    }
}

/// Returns a JSON type with its article.
fn describe_type(kind: &str) -> &'static str {
    match kind {
        "null" => "null",
        "boolean" => "true or false",
        "number" => "a number",
        "string" => "a string",
        "array" => "an array",
        _ => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn path(pointer: &str) -> Vec<PlaceStep> {
        PlaceStep::names(pointer.split('/').skip(1))
    }

    #[rstest]
    #[case::open(json!({}), "/a/1/b", true)]
    #[case::documented(json!({"properties": {"a": {"type": "object"}}}), "/a/b", true)]
    #[case::undocumented(json!({"properties": {"a": {}}}), "/b", true)]
    #[case::closed(json!({"properties": {"a": {}}, "additionalProperties": false}), "/b", false)]
    #[case::closed_by_type(json!({"properties": {"a": {"type": "string"}}}), "/a/b", false)]
    #[case::nullable(json!({"properties": {"a": {"type": ["string", "null"]}}}), "/a/0", false)]
    #[case::pattern(json!({"patternProperties": {"^x": {}}, "additionalProperties": false}), "/xy", true)]
    #[case::no_pattern(json!({"patternProperties": {"^x": {}}, "additionalProperties": false}), "/y", false)]
    #[case::broken_pattern(json!({"patternProperties": {"(?<=a)": {}}, "additionalProperties": false}), "/y", true)]
    #[case::forbidden(json!({"properties": {"a": false}}), "/a", false)]
    #[case::element(json!({"type": "array", "prefixItems": [{}, {"type": "object"}]}), "/1/a", true)]
    #[case::element_beyond_prefix(json!({"type": "array", "prefixItems": [{}]}), "/7", true)]
    #[case::closed_array(json!({"type": "array", "prefixItems": [{}], "items": false}), "/1", false)]
    #[case::short_array(json!({"type": "array", "maxItems": 2}), "/2", false)]
    #[case::member_of_array(json!({"type": "array"}), "/a", false)]
    #[case::numbered_member(json!({"type": "object", "properties": {"1": {"type": "object"}}}), "/1/a", true)]
    #[case::array_or_object(json!({"type": ["array", "object"], "maxItems": 0}), "/0", true)]
    #[case::constant(json!({"const": {"a": [1]}}), "/a/0", true)]
    #[case::constant_lacks(json!({"const": {"a": [1]}}), "/a/1", false)]
    #[case::enumeration(json!({"enum": ["x", {"a": 1}]}), "/a", true)]
    #[case::all_of(json!({"allOf": [{"properties": {"a": {}}}, {"type": "string"}]}), "/a", false)]
    #[case::any_of(json!({"anyOf": [{"type": "string"}, {"properties": {"a": {}}}]}), "/a", true)]
    #[case::no_form(json!({"oneOf": [{"type": "string"}, {"additionalProperties": false}]}), "/a", false)]
    #[case::reference(json!({"$ref": "#/$defs/x", "$defs": {"x": {"additionalProperties": false, "properties": {"a": {"$ref": "#"}}}}}), "/a/a/b", false)]
    #[case::circular(json!({"$ref": "#"}), "/a", true)]
    #[case::foreign_reference(json!({"$ref": "other.json"}), "/a", true)]
    #[case::conditional(json!({"if": {}, "then": {"additionalProperties": false}}), "/a", true)]
    #[case::both_branches(json!({"if": {}, "then": {"type": "string"}, "else": {"additionalProperties": false}}), "/a", false)]
    #[case::unevaluated(json!({"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": false}), "/a", true)]
    #[case::unevaluated_unknown(json!({"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": false}), "/b", false)]
    #[case::unevaluated_items(json!({"type": "array", "prefixItems": [{}], "unevaluatedItems": false}), "/1", false)]
    fn a_place_is_possible_unless_the_schema_rules_it_out(
        #[case] schema: Value,
        #[case] pointer: &str,
        #[case] expected: bool,
    ) {
        assert_eq!(can_have_place(&schema, &path(pointer)), expected);
    }

    #[rstest]
    #[case(json!({"enum": ["a", "b"]}), json!("a"), true)]
    #[case(json!({"enum": ["a", "b"]}), json!("c"), false)]
    #[case(json!({"type": "integer"}), json!(1.0), true)]
    #[case(json!({"type": "integer"}), json!("1"), false)]
    #[case(json!({"anyOf": [{"const": 1}, {"const": 2}]}), json!(2), true)]
    #[case(json!({"anyOf": [{"const": 1}, {"const": 2}]}), json!(3), false)]
    #[case(json!({"minLength": 3}), json!("c"), true)]
    fn a_value_is_possible_unless_the_schema_rules_it_out(
        #[case] member: Value,
        #[case] value: Value,
        #[case] expected: bool,
    ) {
        let schema = json!({"properties": {"a": member}});
        assert_eq!(can_have_value(&schema, &path("/a"), &value), expected);
    }

    #[test]
    fn places_below_nested_unions_are_judged_from_a_limited_number_of_schemas() {
        let any: Value = json!({ "anyOf": [{ "$ref": "#/$defs/next" }, { "$ref": "#/$defs/next" }] });
        let defs = (0..40).map(|number| {
            let text = any.to_string().replace("next", &format!("d{}", number + 1));
            (format!("d{number}"), serde_json::from_str(&text).unwrap())
        });
        let mut defs: serde_json::Map<String, Value> = defs.collect();
        defs.insert("d40".to_owned(), json!({ "type": "string" }));
        let schema = json!({ "$ref": "#/$defs/d0", "$defs": defs });
        let mut left = MAX_SCHEMAS;
        assert!(allows(
            &SchemaShape::certain(&schema, &schema, &mut left),
            &path("/a"),
            PlaceDemand::Exists,
            &mut left
        ));
        assert_eq!(left, 0);
    }

    #[test]
    fn an_impossible_place_is_described() {
        let schema = json!({
            "type": "object", "additionalProperties": false,
            "properties": {"list": {"type": "array", "maxItems": 1}, "text": {"type": "string"}, "odd": {"type": ["string", "null"]}}
        });
        let describe = |path: &[PlaceStep]| {
            let found = impossible_place(&[&schema], path)?;
            Some((found.depth, found.describe(&path[found.depth])))
        };
        let member = |name: &str| PlaceStep::Member(name.to_owned());
        let found = |depth: usize, text: &str| Some((depth, text.to_owned()));
        assert_eq!(describe(&[member("list"), PlaceStep::Element(0)]), None);
        assert_eq!(describe(&[PlaceStep::Element(1)]), found(0, "is an object, which has no elements"));
        assert_eq!(describe(&[member("x")]), found(0, "has no member `x`"));
        assert_eq!(describe(&[member("list"), member("x")]), found(1, "is an array, which has no member `x`"));
        assert_eq!(describe(&[member("list"), PlaceStep::Element(1)]), found(1, "has no element 1"));
        assert_eq!(describe(&[member("text"), member("x")]), found(1, "is a string, which has no members"));
        assert_eq!(describe(&[member("odd"), member("x")]), found(1, "is never an object"));
        assert_eq!(describe(&path("/list/1/a")), found(1, "has no element 1"));
    }
}
