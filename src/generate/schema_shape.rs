//! The demands of a schema on one member of a message, with combinators merged: allowed types, members, bounds.
//! Generated values and mutations are derived from them; the validator decides whether those are valid.

use std::collections::BTreeSet;

use serde_json::Value;

use super::rng::RandomSource;

/// All schemas that apply to one member.
#[derive(Clone, Debug, Default)]
pub struct SchemaShape<'a> {
    root: Option<&'a Value>,
    schemas: Vec<&'a Value>,
}

/// The depth to which nested combinators and references are followed.
const MAX_COMBINATOR_DEPTH: usize = 16;

/// How to treat alternatives (`anyOf`, `oneOf`, `if`).
pub enum BranchChoice<'d> {
    /// Merge all, to get the members of every form of the message.
    All,
    /// Draw one: a payload has one form.
    One(&'d mut RandomSource),
}

impl<'a> SchemaShape<'a> {
    /// Returns the shape of the whole message.
    pub fn from_schema(root: &'a Value, branches: &mut BranchChoice<'_>) -> Self {
        let mut shape = Self { root: Some(root), schemas: Vec::new() };
        shape.add(root, branches, 0);
        shape
    }

    fn add(&mut self, schema: &'a Value, branches: &mut BranchChoice<'_>, depth: usize) {
        // A reference may lead back to a schema that was already added.
        let added = self.schemas.iter().any(|before| std::ptr::eq(*before, schema));
        if depth > MAX_COMBINATOR_DEPTH || added || !schema.is_object() {
            return;
        }
        self.schemas.push(schema);
        if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|path| self.resolve_reference(path)) {
            self.add(target, branches, depth + 1);
        }
        for inner in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.add(inner, branches, depth + 1);
        }
        for entry in schema.get("x-should").and_then(Value::as_array).into_iter().flatten() {
            if let Some(inner) = entry.get("schema") {
                self.add(inner, branches, depth + 1);
            }
        }
        for name in ["anyOf", "oneOf"] {
            let forms = schema.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            match branches {
                BranchChoice::All => forms.iter().for_each(|form| self.add(form, branches, depth + 1)),
                BranchChoice::One(dice) => {
                    if let Some(form) = dice.pick(forms) {
                        self.add(form, branches, depth + 1);
                    }
                }
            }
        }
        if let Some(condition) = schema.get("if") {
            let (yes, no) = match branches {
                BranchChoice::All => (true, true),
                BranchChoice::One(dice) => {
                    let yes = dice.one_in(2);
                    (yes, !yes)
                }
            };
            if yes {
                self.add(condition, branches, depth + 1);
                schema.get("then").into_iter().for_each(|then| self.add(then, branches, depth + 1));
            }
            if no {
                schema.get("else").into_iter().for_each(|other| self.add(other, branches, depth + 1));
            }
        }
    }

    /// Resolves references within the document: `#`, `#/$defs/name`.
    fn resolve_reference(&self, path: &str) -> Option<&'a Value> {
        let pointer = path.strip_prefix('#')?;
        self.root?.pointer(pointer)
    }

    /// Returns the values of a keyword in all schemas.
    fn keyword_values(&self, keyword: &'static str) -> impl Iterator<Item = &'a Value> + use<'a, '_> {
        self.schemas.iter().filter_map(move |schema| schema.get(keyword))
    }

    fn subshape(&self, schemas: Vec<&'a Value>, branches: &mut BranchChoice<'_>) -> Self {
        let mut shape = Self { root: self.root, schemas: Vec::new() };
        for schema in schemas {
            shape.add(schema, branches, 0);
        }
        shape
    }

    /// Returns the allowed types; empty if the schema does not restrict them. An integer also fits `number`.
    pub fn types(&self) -> Vec<&'a str> {
        let mut allowed: Option<Vec<&str>> = None;
        for value in self.keyword_values("type") {
            let these: Vec<&str> = match value {
                Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
                single => single.as_str().into_iter().collect(),
            };
            allowed = Some(match allowed {
                None => these,
                Some(before) => {
                    let integer = before.contains(&"integer") || these.contains(&"integer");
                    let fits = |name: &&str| {
                        let within =
                            |names: &[&str]| names.contains(name) || (*name == "integer" && names.contains(&"number"));
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
                }
            });
        }
        allowed.unwrap_or_default()
    }

    /// Returns the values of `const` and `enum`, if there are any.
    pub fn allowed_values(&self) -> Option<Vec<&'a Value>> {
        let consts: Vec<&Value> = self.keyword_values("const").collect();
        if !consts.is_empty() {
            return Some(consts);
        }
        let mut lists = self.keyword_values("enum").filter_map(Value::as_array);
        let first: Vec<&Value> = lists.next()?.iter().collect();
        Some(lists.fold(first, |left, list| left.into_iter().filter(|value| list.contains(value)).collect()))
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

    /// Returns the shape of a member.
    pub fn member(&self, name: &str, branches: &mut BranchChoice<'_>) -> Self {
        let mut schemas = Vec::new();
        for schema in &self.schemas {
            let named = schema.get("properties").and_then(|properties| properties.get(name));
            schemas.extend(named);
            if named.is_none() {
                schemas.extend(schema.get("additionalProperties").filter(|value| value.is_object()));
            }
        }
        self.subshape(schemas, branches)
    }

    /// Returns the shape of an item of an array.
    pub fn item(&self, index: usize, branches: &mut BranchChoice<'_>) -> Self {
        let mut schemas = Vec::new();
        for schema in &self.schemas {
            let first = schema.get("prefixItems").and_then(|items| items.get(index));
            schemas.extend(first.or_else(|| schema.get("items")));
            schemas.extend(schema.get("contains").filter(|_| index == 0));
        }
        self.subshape(schemas, branches)
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
        self.schemas.iter().all(|schema| {
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
}
