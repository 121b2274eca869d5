//! The walk over a JSON Schema: which schemas apply to a part of a value, with references and combinators resolved.
//! Values and mutations are derived from it, and so is what may stand in a place; the validator decides about values.

use std::collections::BTreeSet;

use serde_json::Value;

use super::pattern;
use super::rng::RandomSource;
use crate::syntax::json_schema::json_type;
use crate::syntax::matcher::{are_equal, array_index};

/// The most levels that are followed: of references and combinators, and of generated values.
pub const MAX_DEPTH: usize = 64;
/// The most schemas of one shape: nested unions multiply. What is beyond them counts as unrestricted.
pub const MAX_SCHEMAS: usize = 4_000;

const CLOSED: &Value = &Value::Bool(false);

/// What a shape says about the values of a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ShapeReading {
    /// What is typical: recommendations count, and a form that says nothing about a part is left out there.
    #[default]
    Typical,
    /// What is certain: only demands count, and a form that says nothing about a part allows anything there.
    Certain,
}

/// All schemas that apply to one part of a value.
#[derive(Clone, Debug, Default)]
pub struct SchemaShape<'a> {
    root: Option<&'a Value>,
    reading: ShapeReading,
    /// The schemas that all apply. `false` among them allows nothing.
    schemas: Vec<&'a Value>,
    /// The unions (`anyOf`, `oneOf`, `if`): of each, at least one form applies.
    unions: Vec<Vec<Self>>,
}

/// A step from a value to a value in it.
#[derive(Clone, Copy)]
pub enum ShapeStep<'n> {
    Member(&'n str),
    Item(usize),
}

/// How far a walk has come.
struct ShapeWalk<'w, 'a> {
    /// Draws one form of each union; without it, all are kept.
    dice: Option<&'w mut RandomSource>,
    /// The schemas that lead to the one that is being added.
    above: Vec<&'a Value>,
    /// How many more schemas may be added.
    left: &'w mut usize,
}

impl<'a> SchemaShape<'a> {
    /// Returns the shape of the whole message, with all forms of each union.
    pub fn from_schema(root: &'a Value) -> Self {
        Self::within(root, root)
    }

    /// Returns the shape of the whole message with one form of each union.
    pub fn draw_form(root: &'a Value, dice: &mut RandomSource) -> Self {
        let shape = Self { root: Some(root), ..Self::default() };
        shape.with_schemas(vec![root], Some(dice), &mut MAX_SCHEMAS.clone())
    }

    /// Returns the shape of the values of a schema in the document `root`.
    pub fn within(root: &'a Value, schema: &'a Value) -> Self {
        let shape = Self { root: Some(root), ..Self::default() };
        shape.with_schemas(vec![schema], None, &mut MAX_SCHEMAS.clone())
    }

    /// Returns what a schema demands of all its values, from at most `left` schemas.
    pub fn certain(root: &'a Value, schema: &'a Value, left: &mut usize) -> Self {
        let shape = Self { root: Some(root), reading: ShapeReading::Certain, ..Self::default() };
        shape.with_schemas(vec![schema], None, left)
    }

    /// Returns the shape of another schema of the document in the same reading, from at most `left` schemas.
    pub fn of_schema(&self, schema: &'a Value, left: &mut usize) -> Self {
        self.empty().with_schemas(vec![schema], None, left)
    }

    /// Returns the shape of the value at a path of names of members and indices.
    pub fn at_path(root: &'a Value, path: &[impl AsRef<str>]) -> Self {
        Self::from_schema(root).descend(path)
    }

    /// Returns the shape of a place in this value, at a path of names of members and indices.
    pub fn descend(self, path: &[impl AsRef<str>]) -> Self {
        path.iter().fold(self, |shape, name| match array_index(name.as_ref()) {
            Some(index) if !shape.member_names().contains(&name.as_ref()) => shape.item(index),
            _ => shape.member(name.as_ref()),
        })
    }

    fn empty(&self) -> Self {
        Self { root: self.root, reading: self.reading, ..Self::default() }
    }

    fn with_schemas(mut self, schemas: Vec<&'a Value>, dice: Option<&mut RandomSource>, left: &mut usize) -> Self {
        let mut walk = ShapeWalk { dice, above: Vec::new(), left };
        schemas.into_iter().for_each(|schema| self.add(schema, &mut walk));
        self
    }

    fn add(&mut self, schema: &'a Value, walk: &mut ShapeWalk<'_, 'a>) {
        // A reference may lead back to a schema that was already added.
        let added = walk.above.iter().chain(&self.schemas).any(|before| std::ptr::eq(*before, schema));
        if walk.above.len() > MAX_DEPTH || *walk.left == 0 || added || !self.holds(schema) {
            return;
        }
        *walk.left -= 1;
        walk.above.push(schema);
        self.schemas.push(schema);
        if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|path| self.resolve_reference(path)) {
            self.add(target, walk);
        }
        for inner in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.add(inner, walk);
        }
        let recommended = schema.get("x-should").filter(|_| self.reading == ShapeReading::Typical);
        for inner in recommended.and_then(Value::as_array).into_iter().flatten().filter_map(|one| one.get("schema")) {
            self.add(inner, walk);
        }
        for name in ["anyOf", "oneOf"] {
            let forms = schema.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            self.add_union(forms.iter().map(|form| vec![form]).collect(), walk);
        }
        if let Some(condition) = schema.get("if") {
            let yes = std::iter::once(condition).chain(schema.get("then")).collect();
            self.add_union(vec![yes, schema.get("else").into_iter().collect()], walk);
        }
        walk.above.pop();
    }

    /// Whether a schema says anything in this reading.
    fn holds(&self, schema: &Value) -> bool {
        match schema {
            Value::Bool(open) => *open || self.reading == ShapeReading::Certain,
            schema => schema.is_object(),
        }
    }

    /// Adds a union, or the form of it that is drawn. Each form is a list of schemas that all apply.
    fn add_union(&mut self, forms: Vec<Vec<&'a Value>>, walk: &mut ShapeWalk<'_, 'a>) {
        if let Some(dice) = walk.dice.as_mut() {
            let drawn = dice.pick(&forms).cloned().unwrap_or_default();
            return drawn.into_iter().for_each(|schema| self.add(schema, walk));
        }
        let shape = |schemas: Vec<&'a Value>| {
            let mut form = self.empty();
            schemas.into_iter().for_each(|schema| form.add(schema, walk));
            form
        };
        let forms: Vec<Self> = forms.into_iter().map(shape).collect();
        self.unions.extend((!forms.is_empty()).then_some(forms));
    }

    /// Resolves references within the document: `#`, `#/$defs/name`.
    fn resolve_reference(&self, path: &str) -> Option<&'a Value> {
        let pointer = path.strip_prefix('#')?;
        self.root?.pointer(pointer)
    }

    /// Returns the schemas that apply in any case, and the unions.
    pub fn parts(&self) -> (&[&'a Value], &[Vec<Self>]) {
        (&self.schemas, &self.unions)
    }

    /// Returns all schemas, including the schemas of every form of each union.
    pub fn all_schemas(&self) -> Vec<&'a Value> {
        let mut all = self.schemas.clone();
        all.extend(self.unions.iter().flatten().flat_map(Self::all_schemas));
        all
    }

    /// Returns the values of a keyword in all schemas.
    fn keyword_values(&self, keyword: &'static str) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.all_schemas().into_iter().filter_map(move |schema| schema.get(keyword))
    }

    /// Returns the schemas that one schema has for a part of its values.
    pub fn schemas_of_part(&self, schema: &'a Value, step: ShapeStep<'_>) -> Vec<&'a Value> {
        let certain = self.reading == ShapeReading::Certain;
        let closes = |name: &str| certain && schema.get(name) == Some(CLOSED);
        let applied = || self.root.map(|root| Self::within(root, schema).all_schemas()).unwrap_or_default();
        match step {
            ShapeStep::Member(name) => {
                let named = schema.get("properties").and_then(|properties| properties.get(name));
                let mut found: Vec<&Value> = named.into_iter().collect();
                let mut unknown = false;
                for (pattern, inner) in schema.get("patternProperties").and_then(Value::as_object).into_iter().flatten()
                {
                    match pattern::compile(pattern) {
                        Some(pattern) => found.extend(pattern.is_match(name).then_some(inner)),
                        None => unknown = true,
                    }
                }
                if !found.is_empty() || unknown {
                    return found;
                }
                found.extend(schema.get("additionalProperties").filter(|value| certain || value.is_object()));
                let evaluates = |one: &&Value| {
                    one.get("properties").is_some_and(|members| members.get(name).is_some())
                        || one.get("patternProperties").is_some()
                        || one.get("additionalProperties").is_some()
                };
                if closes("unevaluatedProperties") && !applied().iter().any(evaluates) {
                    found.push(CLOSED);
                }
                found
            }
            ShapeStep::Item(index) => {
                let first = schema.get("prefixItems").and_then(|items| items.get(index));
                let mut found: Vec<&Value> = first.or_else(|| schema.get("items")).into_iter().collect();
                found.extend(schema.get("contains").filter(|_| index == 0 && !certain));
                let evaluates = |one: &&Value| {
                    one.get("prefixItems").is_some_and(|items| items.get(index).is_some())
                        || one.get("items").is_some()
                        || one.get("contains").is_some()
                };
                let most = schema.get("maxItems").and_then(Value::as_u64).filter(|_| certain);
                if most.is_some_and(|most| index as u64 >= most)
                    || closes("unevaluatedItems") && !applied().iter().any(evaluates)
                {
                    found.push(CLOSED);
                }
                found
            }
        }
    }

    /// Returns the shape of a part; `None` if no schema is about it.
    fn subshape(&self, step: ShapeStep<'_>, walk: &mut ShapeWalk<'_, 'a>) -> Option<Self> {
        let mut shape = self.empty();
        for schema in self.schemas.iter().flat_map(|schema| self.schemas_of_part(schema, step)) {
            shape.add(schema, walk);
        }
        for union in &self.unions {
            let forms = union.iter().map(|form| form.subshape(step, walk));
            let forms: Option<Vec<Self>> = match self.reading {
                ShapeReading::Typical => Some(forms.flatten().collect()),
                ShapeReading::Certain => forms.collect(),
            };
            shape.unions.extend(forms.filter(|forms| !forms.is_empty()));
        }
        (!shape.schemas.is_empty() || !shape.unions.is_empty()).then_some(shape)
    }

    fn part(&self, step: ShapeStep<'_>, dice: Option<&mut RandomSource>) -> Self {
        let mut walk = ShapeWalk { dice, above: Vec::new(), left: &mut MAX_SCHEMAS.clone() };
        self.subshape(step, &mut walk).unwrap_or_else(|| self.empty())
    }

    /// Returns the shape of a member.
    pub fn member(&self, name: &str) -> Self {
        self.part(ShapeStep::Member(name), None)
    }

    /// Returns the shape of a member with one form of each union.
    pub fn draw_member(&self, name: &str, dice: &mut RandomSource) -> Self {
        self.part(ShapeStep::Member(name), Some(dice))
    }

    /// Returns the shape of an item of an array.
    pub fn item(&self, index: usize) -> Self {
        self.part(ShapeStep::Item(index), None)
    }

    /// Returns the shape of an item of an array with one form of each union.
    pub fn draw_item(&self, index: usize, dice: &mut RandomSource) -> Self {
        self.part(ShapeStep::Item(index), Some(dice))
    }

    /// Returns the allowed types; empty if the schema does not restrict them. An integer also fits `number`.
    pub fn types(&self) -> Vec<&'a str> {
        self.allowed_types().unwrap_or_default()
    }

    /// Returns the allowed types; `None` if the schema does not restrict them.
    pub fn allowed_types(&self) -> Option<Vec<&'a str>> {
        let own = self.schemas.iter().filter_map(|schema| schema.get("type")).map(|value| match value {
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            single => single.as_str().into_iter().collect::<Vec<&str>>(),
        });
        let of_form = |form: &Self| {
            let of_values = |values: Vec<&Value>| values.into_iter().map(json_type).collect();
            form.allowed_types().or_else(|| form.allowed_values().map(of_values))
        };
        let of_union = |union: &Vec<Self>| {
            let mut all: Vec<&str> = union.iter().map(of_form).collect::<Option<Vec<_>>>()?.concat();
            all.sort_unstable();
            all.dedup();
            Some(all)
        };
        own.chain(self.unions.iter().filter_map(of_union)).reduce(|before, these| {
            let integer = before.contains(&"integer") || these.contains(&"integer");
            let fits = |name: &&str| {
                let within = |names: &[&str]| names.contains(name) || (*name == "integer" && names.contains(&"number"));
                within(&before) && within(&these)
            };
            let mut both: Vec<&str> = ["null", "boolean", "integer", "number", "string", "array", "object"]
                .into_iter()
                .filter(fits)
                .collect();
            if integer {
                both.retain(|name| *name != "number");
            }
            both
        })
    }

    /// Returns the allowed types, or those that the other keywords are about.
    pub fn kinds(&self) -> Vec<&'a str> {
        let types = self.types();
        if !types.is_empty() {
            return types;
        }
        let has = |words: &[&'static str]| words.iter().any(|word| self.keyword_values(word).next().is_some());
        let kinds: [(&str, &[&'static str]); 4] = [
            ("object", &["properties", "required", "additionalProperties", "minProperties"]),
            ("array", &["prefixItems", "items", "contains", "minItems", "maxItems"]),
            ("string", &["pattern", "format", "minLength", "maxLength"]),
            ("number", &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]),
        ];
        kinds.into_iter().filter(|(_, words)| has(words)).map(|(kind, _)| kind).collect()
    }

    /// Returns the values of `const` and `enum`, if there are any.
    pub fn allowed_values(&self) -> Option<Vec<&'a Value>> {
        let of_schema = |schema: &&'a Value| match (schema.get("const"), schema.get("enum").and_then(Value::as_array)) {
            (Some(value), _) => Some(vec![value]),
            (None, list) => list.map(|list| list.iter().collect()),
        };
        let of_union =
            |union: &Vec<Self>| Some(union.iter().map(Self::allowed_values).collect::<Option<Vec<_>>>()?.concat());
        let both = |left: Vec<&'a Value>, list: Vec<&'a Value>| {
            left.into_iter().filter(|value| list.iter().any(|other| are_equal(value, other))).collect()
        };
        self.schemas.iter().filter_map(of_schema).chain(self.unions.iter().filter_map(of_union)).reduce(both)
    }

    /// Returns the documented default value, if there is one.
    pub fn default_value(&self) -> Option<&'a Value> {
        self.keyword_values("default").next()
    }

    /// Returns the names of the documented members, in order.
    pub fn member_names(&self) -> Vec<&'a str> {
        let mut names = Vec::new();
        for properties in self.keyword_values("properties").filter_map(Value::as_object) {
            for name in properties.keys().filter(|name| !names.contains(&name.as_str())).collect::<Vec<_>>() {
                names.push(name.as_str());
            }
        }
        for name in self.required_members() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    pub fn required_members(&self) -> BTreeSet<&'a str> {
        self.keyword_values("required").filter_map(Value::as_array).flatten().filter_map(Value::as_str).collect()
    }

    /// Whether every form of the value has a member of this name.
    pub fn always_requires(&self, name: &str) -> bool {
        let required = |schema: &&Value| {
            schema.get("required").and_then(Value::as_array).is_some_and(|names| names.iter().any(|one| one == name))
        };
        self.schemas.iter().any(required)
            || self.unions.iter().any(|union| union.iter().all(|form| form.always_requires(name)))
    }

    /// Returns the number of items that every form of the value has.
    pub fn least_items(&self) -> u64 {
        let own = self.schemas.iter().filter_map(|schema| schema.get("minItems")?.as_u64());
        let of_unions = self.unions.iter().filter_map(|union| union.iter().map(Self::least_items).min());
        own.chain(of_unions).max().unwrap_or(0)
    }

    /// Returns the only members that a value can have; `None` if it can have others.
    pub fn only_members(&self) -> Option<BTreeSet<&'a str>> {
        let of_schema = |schema: &&'a Value| {
            let closed =
                schema.get("additionalProperties") == Some(CLOSED) && schema.get("patternProperties").is_none();
            let named = || schema.get("properties").and_then(Value::as_object).into_iter().flatten();
            closed.then(|| named().map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>())
        };
        let of_union = |union: &Vec<Self>| {
            let forms: Option<Vec<BTreeSet<&str>>> = union.iter().map(Self::only_members).collect();
            Some(forms?.into_iter().flatten().collect())
        };
        let both = |one: BTreeSet<&'a str>, other: BTreeSet<&'a str>| one.intersection(&other).copied().collect();
        self.schemas.iter().filter_map(of_schema).chain(self.unions.iter().filter_map(of_union)).reduce(both)
    }

    /// Whether undocumented members break the schema.
    pub fn is_closed(&self) -> bool {
        self.keyword_values("additionalProperties")
            .chain(self.keyword_values("unevaluatedProperties"))
            .any(|value| *value == Value::Bool(false))
    }

    /// Whether the schema says that there may be members other than those it names; one that says nothing about them may
    /// come from a document that says nothing, too.
    pub fn welcomes_members(&self) -> bool {
        let said = ["additionalProperties", "unevaluatedProperties", "patternProperties"];
        !self.is_closed()
            && (self.member_names().is_empty() || said.iter().any(|word| self.keyword_values(word).next().is_some()))
    }

    /// Whether a list of `length` items can have no further item.
    pub fn is_full_list(&self, length: usize) -> bool {
        let prefix = self.prefix_length();
        let no_more =
            |schema: &&Value| schema.get("items").or(schema.get("unevaluatedItems")) == Some(&Value::Bool(false));
        self.upper_bound("maxItems").is_some_and(|most| length as f64 >= most)
            || length >= prefix && self.all_schemas().iter().any(no_more)
    }

    /// Returns the number of items that have a schema of their own.
    pub fn prefix_length(&self) -> usize {
        self.keyword_values("prefixItems").filter_map(Value::as_array).map(Vec::len).max().unwrap_or(0)
    }

    /// Returns the greatest of the lower bounds that a keyword sets.
    pub fn lower_bound(&self, keyword: &'static str) -> Option<f64> {
        self.keyword_values(keyword).filter_map(Value::as_f64).reduce(f64::max)
    }

    /// Returns the least of the upper bounds that a keyword sets.
    pub fn upper_bound(&self, keyword: &'static str) -> Option<f64> {
        self.keyword_values(keyword).filter_map(Value::as_f64).reduce(f64::min)
    }

    /// Returns the text of a keyword in the first schema that has it.
    pub fn keyword_text(&self, keyword: &'static str) -> Option<&'a str> {
        self.keyword_values(keyword).find_map(Value::as_str)
    }

    pub fn keyword_is_true(&self, keyword: &'static str) -> bool {
        self.keyword_values(keyword).any(|value| *value == Value::Bool(true))
    }

    /// Whether the schema restricts nothing.
    pub fn is_unrestricted(&self) -> bool {
        self.all_schemas().iter().all(|schema| {
            schema.as_object().map_or(*schema != CLOSED, |object| {
                object
                    .keys()
                    .all(|key| matches!(key.as_str(), "title" | "description" | "x-rules" | "examples" | "default"))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn types_and_bound_at(schema: &Value, path: &[&str]) -> (Vec<String>, Option<f64>) {
        let shape = SchemaShape::at_path(schema, path);
        (shape.types().into_iter().map(str::to_owned).collect(), shape.lower_bound("minimum"))
    }

    #[rstest]
    #[case::plain(json!({"properties": {"a": {"type": "string"}}}), &["a"], &["string"], None)]
    #[case::all_of(json!({"properties": {"a": {"type": "number"}}, "allOf": [{"properties": {"a": {"type": "integer", "minimum": 3}}}]}), &["a"], &["integer"], Some(3.0))]
    #[case::should(json!({"properties": {"a": {"x-should": [{"rules": [], "schema": {"type": "string"}}]}}}), &["a"], &["string"], None)]
    #[case::reference(json!({"properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "null"}}}), &["a"], &["null"], None)]
    #[case::item(json!({"properties": {"a": {"items": {"type": "boolean"}}}}), &["a", "0"], &["boolean"], None)]
    #[case::union(json!({"oneOf": [{"type": "string"}, {"type": "object"}]}), &[], &["object", "string"], None)]
    #[case::union_of_values(json!({"anyOf": [{"const": "a"}, {"type": "null"}]}), &[], &["null", "string"], None)]
    #[case::union_and_type(json!({"type": "number", "anyOf": [{"type": "integer"}, {"type": "string"}]}), &[], &["integer"], None)]
    #[case::open_union(json!({"anyOf": [{"type": "string"}, {}]}), &[], &[], None)]
    #[case::member_of_one_form(json!({"oneOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"b": {"type": "null"}}}]}), &["a"], &["string"], None)]
    #[case::member_of_both_forms(json!({"oneOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"a": {"type": "null"}}}]}), &["a"], &["null", "string"], None)]
    #[case::item_of_a_form(json!({"anyOf": [{"$ref": "#/$defs/l"}], "$defs": {"l": {"prefixItems": [{}, {"type": "boolean"}]}}}), &["1"], &["boolean"], None)]
    #[case::several(json!({"allOf": [{"type": ["string", "null"]}, {"type": "string"}]}), &[], &["string"], None)]
    #[case::nothing(json!({}), &["a"], &[], None)]
    fn schemas_under_combinators_are_merged(
        #[case] schema: Value,
        #[case] path: &[&str],
        #[case] types: &[&str],
        #[case] least: Option<f64>,
    ) {
        assert_eq!(types_and_bound_at(&schema, path), (types.iter().map(|name| (*name).to_owned()).collect(), least));
    }

    #[test]
    fn a_recursive_schema_has_a_finite_shape() {
        let schema = json!({"$ref": "#", "properties": {"next": {"$ref": "#"}}});
        assert_eq!(SchemaShape::from_schema(&schema).member_names(), ["next"]);
    }

    #[test]
    fn nested_unions_have_a_shape_of_limited_size() {
        let names: Vec<String> = (0..12).map(|number| format!("#/$defs/d{number}")).collect();
        let any: Value = json!({"anyOf": names.iter().map(|name| json!({"$ref": name})).collect::<Vec<_>>()});
        let defs: serde_json::Map<String, Value> = (0..12).map(|number| (format!("d{number}"), any.clone())).collect();
        let schema = json!({"$ref": "#/$defs/d0", "$defs": defs});
        let shape = SchemaShape::from_schema(&schema);
        assert!(shape.all_schemas().len() <= MAX_SCHEMAS && shape.types().is_empty());
    }
}
