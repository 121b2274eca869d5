//! The demands of a schema on one member of a message, with combinators merged: allowed types, members, bounds.
//! Generated values and mutations are derived from them; the validator decides whether those are valid.

use std::collections::BTreeSet;

use serde_json::Value;

use super::rng::RandomSource;
use crate::syntax::json_schema::json_type;

/// All schemas that apply to one member.
#[derive(Clone, Debug, Default)]
pub struct SchemaShape<'a> {
    root: Option<&'a Value>,
    /// The schemas that all apply.
    schemas: Vec<&'a Value>,
    /// The unions (`anyOf`, `oneOf`, `if`): of each, at least one form applies.
    unions: Vec<Vec<Self>>,
}

/// The depth to which nested combinators and references are followed.
const MAX_COMBINATOR_DEPTH: usize = 16;
/// The most schemas of one shape: nested unions multiply.
const MAX_SCHEMAS: usize = 4_000;

/// How to treat alternatives (`anyOf`, `oneOf`, `if`).
pub enum BranchChoice<'d> {
    /// Keep all, to get the members of every form of the message.
    All,
    /// Draw one: a payload has one form.
    One(&'d mut RandomSource),
}

/// The schemas that lead to the one that is being added, and how many more may be added.
struct SchemaTrail<'a> {
    above: Vec<&'a Value>,
    left: usize,
}

impl SchemaTrail<'_> {
    fn new() -> Self {
        Self { above: Vec::new(), left: MAX_SCHEMAS }
    }
}

impl<'a> SchemaShape<'a> {
    /// Returns the shape of the whole message.
    pub fn from_schema(root: &'a Value, branches: &mut BranchChoice<'_>) -> Self {
        let mut shape = Self { root: Some(root), ..Self::default() };
        shape.add(root, branches, &mut SchemaTrail::new());
        shape
    }

    fn add(&mut self, schema: &'a Value, branches: &mut BranchChoice<'_>, trail: &mut SchemaTrail<'a>) {
        // A reference may lead back to a schema that was already added.
        let added = trail.above.iter().chain(&self.schemas).any(|before| std::ptr::eq(*before, schema));
        if trail.above.len() > MAX_COMBINATOR_DEPTH || trail.left == 0 || added || !schema.is_object() {
            return;
        }
        trail.left -= 1;
        trail.above.push(schema);
        self.schemas.push(schema);
        if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|path| self.resolve_reference(path)) {
            self.add(target, branches, trail);
        }
        for inner in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.add(inner, branches, trail);
        }
        for entry in schema.get("x-should").and_then(Value::as_array).into_iter().flatten() {
            if let Some(inner) = entry.get("schema") {
                self.add(inner, branches, trail);
            }
        }
        for name in ["anyOf", "oneOf"] {
            let forms = schema.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            self.add_union(forms.iter().map(|form| vec![form]).collect(), branches, trail);
        }
        if let Some(condition) = schema.get("if") {
            let yes = std::iter::once(condition).chain(schema.get("then")).collect();
            self.add_union(vec![yes, schema.get("else").into_iter().collect()], branches, trail);
        }
        trail.above.pop();
    }

    /// Adds a union, or the form of it that is drawn. Each form is a list of schemas that all apply.
    fn add_union(&mut self, forms: Vec<Vec<&'a Value>>, branches: &mut BranchChoice<'_>, trail: &mut SchemaTrail<'a>) {
        match branches {
            BranchChoice::One(dice) => {
                let drawn = dice.pick(&forms).cloned().unwrap_or_default();
                drawn.into_iter().for_each(|schema| self.add(schema, branches, trail));
            }
            BranchChoice::All => {
                let shape = |schemas: Vec<&'a Value>| {
                    let mut form = Self { root: self.root, ..Self::default() };
                    schemas.into_iter().for_each(|schema| form.add(schema, &mut BranchChoice::All, trail));
                    form
                };
                let forms: Vec<Self> = forms.into_iter().map(shape).collect();
                self.unions.extend((!forms.is_empty()).then_some(forms));
            }
        }
    }

    /// Resolves references within the document: `#`, `#/$defs/name`.
    fn resolve_reference(&self, path: &str) -> Option<&'a Value> {
        let pointer = path.strip_prefix('#')?;
        self.root?.pointer(pointer)
    }

    /// Returns all schemas, including the schemas of every form of each union.
    fn all_schemas(&self) -> Vec<&'a Value> {
        let mut all = self.schemas.clone();
        all.extend(self.unions.iter().flatten().flat_map(Self::all_schemas));
        all
    }

    /// Returns the values of a keyword in all schemas.
    fn keyword_values(&self, keyword: &'static str) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.all_schemas().into_iter().filter_map(move |schema| schema.get(keyword))
    }

    /// Returns the shape of the schemas that `inner` finds in each schema; `None` if there are none. A form of a union
    /// without such a schema is left out: it is not about this part of the value.
    fn subshape(
        &self,
        inner: &dyn Fn(&'a Value) -> Vec<&'a Value>,
        branches: &mut BranchChoice<'_>,
        trail: &mut SchemaTrail<'a>,
    ) -> Option<Self> {
        let mut shape = Self { root: self.root, ..Self::default() };
        for schema in self.schemas.iter().copied().flat_map(inner) {
            shape.add(schema, branches, trail);
        }
        for union in &self.unions {
            let forms: Vec<Self> = union.iter().filter_map(|form| form.subshape(inner, branches, trail)).collect();
            shape.unions.extend((!forms.is_empty()).then_some(forms));
        }
        (!shape.schemas.is_empty() || !shape.unions.is_empty()).then_some(shape)
    }

    /// Returns the allowed types; empty if the schema does not restrict them. An integer also fits `number`.
    pub fn types(&self) -> Vec<&'a str> {
        self.allowed_types().unwrap_or_default()
    }

    fn allowed_types(&self) -> Option<Vec<&'a str>> {
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
        let own = |word| self.schemas.iter().filter_map(move |schema| schema.get(word));
        let consts: Vec<&Value> = own("const").collect();
        if !consts.is_empty() {
            return Some(consts);
        }
        let lists = own("enum").filter_map(Value::as_array).map(|list| list.iter().collect());
        let of_union =
            |union: &Vec<Self>| Some(union.iter().map(Self::allowed_values).collect::<Option<Vec<_>>>()?.concat());
        lists
            .chain(self.unions.iter().filter_map(of_union))
            .reduce(|left: Vec<&Value>, list| left.into_iter().filter(|value| list.contains(value)).collect())
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

    /// Returns the shape of a member.
    pub fn member(&self, name: &str, branches: &mut BranchChoice<'_>) -> Self {
        let inner = |schema: &'a Value| {
            let named = schema.get("properties").and_then(|properties| properties.get(name));
            named.or_else(|| schema.get("additionalProperties").filter(|value| value.is_object())).into_iter().collect()
        };
        let shape = self.subshape(&inner, branches, &mut SchemaTrail::new());
        shape.unwrap_or(Self { root: self.root, ..Self::default() })
    }

    /// Returns the shape of an item of an array.
    pub fn item(&self, index: usize, branches: &mut BranchChoice<'_>) -> Self {
        let inner = |schema: &'a Value| {
            let first = schema.get("prefixItems").and_then(|items| items.get(index));
            let item = first.or_else(|| schema.get("items"));
            item.into_iter().chain(schema.get("contains").filter(|_| index == 0)).collect()
        };
        let shape = self.subshape(&inner, branches, &mut SchemaTrail::new());
        shape.unwrap_or(Self { root: self.root, ..Self::default() })
    }

    /// Returns the shape at a path of member names and indices.
    pub fn at_path(root: &'a Value, path: &[String]) -> Self {
        path.iter().fold(Self::from_schema(root, &mut BranchChoice::All), |shape, name| match name.parse::<usize>() {
            Ok(index) if shape.member_names().iter().all(|member| member != name) => {
                shape.item(index, &mut BranchChoice::All)
            }
            _ => shape.member(name, &mut BranchChoice::All),
        })
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
            schema.as_object().is_none_or(|object| {
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
        let path: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
        let shape = SchemaShape::at_path(schema, &path);
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
        assert_eq!(SchemaShape::from_schema(&schema, &mut BranchChoice::All).member_names(), ["next"]);
    }

    #[test]
    fn nested_unions_have_a_shape_of_limited_size() {
        let names: Vec<String> = (0..12).map(|number| format!("#/$defs/d{number}")).collect();
        let any: Value = json!({"anyOf": names.iter().map(|name| json!({"$ref": name})).collect::<Vec<_>>()});
        let defs: serde_json::Map<String, Value> = (0..12).map(|number| (format!("d{number}"), any.clone())).collect();
        let schema = json!({"$ref": "#/$defs/d0", "$defs": defs});
        let shape = SchemaShape::from_schema(&schema, &mut BranchChoice::All);
        assert!(shape.all_schemas().len() <= MAX_SCHEMAS && shape.types().is_empty());
    }
}
