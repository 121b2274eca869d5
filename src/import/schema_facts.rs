//! Derives facts that a schema guarantees for every payload: the possible values and types at each place, and whether a
//! value is always present. These facts distinguish messages.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::syntax::json_schema::json_type;
use crate::syntax::matcher::{are_equal, escape};

/// The depth to which members are analysed.
const MAX_LEVELS: usize = 3;
/// The most members of one object, and the most schemas of one place, that are analysed.
const MAX_WIDTH: usize = 64;
/// The most consecutive references that are followed.
const MAX_HOPS: usize = 16;

/// Facts by JSON pointer; the empty pointer is the whole payload.
pub type SchemaFacts = BTreeMap<String, SchemaFact>;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct SchemaFact {
    /// Whether the member is always present.
    pub present: bool,
    /// The member's only possible values.
    pub values: Option<Vec<Value>>,
    /// The member's only possible types.
    pub types: Option<BTreeSet<String>>,
    /// If the member is an object: the only members it can have.
    pub only: Option<BTreeSet<String>>,
}

pub fn schema_facts(schema: &Value) -> SchemaFacts {
    let mut facts = SchemaFacts::new();
    add_place_facts(schema, &[schema], "", true, 0, &mut facts);
    facts
}

/// Adds the facts about a place to which all of `schemas` apply.
fn add_place_facts(
    root: &Value,
    schemas: &[&Value],
    pointer: &str,
    present: bool,
    level: usize,
    facts: &mut SchemaFacts,
) {
    let mut here = Vec::new();
    schemas.iter().for_each(|schema| collect_applied_schemas(root, schema, MAX_HOPS, &mut here));
    let fact = facts.entry(pointer.to_owned()).or_default();
    fact.present |= present;
    for schema in &here {
        fact.add_schema(schema);
    }
    if level < MAX_LEVELS {
        add_member_facts(root, &here, pointer, present, level, facts);
    }
    for schema in &here {
        for forms in ["anyOf", "oneOf"].into_iter().filter_map(|name| schema.get(name)?.as_array()) {
            if forms.len() <= MAX_WIDTH && level < MAX_LEVELS {
                add_alternative_facts(root, forms, pointer, level, facts);
            }
        }
    }
}

/// Collects a schema and all schemas that apply wherever it applies.
fn collect_applied_schemas<'a>(root: &'a Value, schema: &'a Value, hops: usize, here: &mut Vec<&'a Value>) {
    if here.len() >= MAX_WIDTH || here.iter().any(|known| std::ptr::eq(*known, schema)) {
        return;
    }
    here.push(schema);
    let target = schema.get("$ref").and_then(Value::as_str).and_then(|path| root.pointer(path.strip_prefix('#')?));
    if let Some(target) = target.filter(|_| hops > 0) {
        collect_applied_schemas(root, target, hops - 1, here);
    }
    for inner in schema.get("allOf").and_then(Value::as_array).into_iter().flatten().filter(|_| hops > 0) {
        collect_applied_schemas(root, inner, hops - 1, here);
    }
}

fn add_member_facts(
    root: &Value,
    here: &[&Value],
    pointer: &str,
    present: bool,
    level: usize,
    facts: &mut SchemaFacts,
) {
    let required: BTreeSet<&str> = here
        .iter()
        .filter_map(|schema| schema.get("required")?.as_array())
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut named: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for properties in here.iter().filter_map(|schema| schema.get("properties")?.as_object()) {
        for (name, schema) in properties.iter().take(MAX_WIDTH) {
            named.entry(name).or_default().push(schema);
        }
    }
    for name in required.iter().take(MAX_WIDTH) {
        named.entry(name).or_default();
    }
    for (name, schemas) in named {
        // A member is present only if its parent is.
        let present = present && required.contains(name);
        add_place_facts(root, &schemas, &format!("{pointer}/{}", escape(name)), present, level + 1, facts);
    }
    for schema in here {
        let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
        let items = schema.get("prefixItems").and_then(Value::as_array).into_iter().flatten().take(MAX_WIDTH);
        for (index, item) in items.enumerate() {
            let present = present && (index as u64) < least;
            add_place_facts(root, &[item], &format!("{pointer}/{index}"), present, level + 1, facts);
        }
    }
}

/// Adds the facts that several alternatives have in common.
fn add_alternative_facts(root: &Value, forms: &[Value], pointer: &str, level: usize, facts: &mut SchemaFacts) {
    let mut each = forms.iter().map(|form| {
        let mut facts = SchemaFacts::new();
        add_place_facts(root, &[form], pointer, true, level + 1, &mut facts);
        facts
    });
    let Some(mut common) = each.next() else { return };
    for form in each {
        common.retain(|pointer, _| form.contains_key(pointer));
        for (pointer, fact) in &mut common {
            fact.unite(&form[pointer]);
        }
    }
    let present = facts.get(pointer).is_some_and(|fact| fact.present);
    for (pointer, mut fact) in common {
        fact.present &= present;
        facts.entry(pointer).or_default().intersect(fact);
    }
}

impl SchemaFact {
    /// Adds the demands of one schema.
    fn add_schema(&mut self, schema: &Value) {
        let values = match (schema.get("const"), schema.get("enum").and_then(Value::as_array)) {
            (Some(value), _) => Some(vec![value.clone()]),
            (None, Some(values)) if values.len() <= MAX_WIDTH => Some(values.clone()),
            _ => None,
        };
        let types = match schema.get("type") {
            Some(Value::String(name)) => Some(BTreeSet::from([name.clone()])),
            Some(Value::Array(names)) => Some(names.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
            _ => None,
        };
        let only = match (schema.get("additionalProperties"), schema.get("patternProperties")) {
            (Some(Value::Bool(false)), None) => {
                let properties = schema.get("properties").and_then(Value::as_object);
                Some(properties.into_iter().flatten().map(|(name, _)| name.clone()).collect())
            }
            _ => None,
        };
        self.intersect(Self { present: false, values, types, only });
    }

    fn intersect(&mut self, other: Self) {
        self.present |= other.present;
        self.values = match (self.values.take(), other.values) {
            (Some(mine), Some(theirs)) => {
                Some(mine.into_iter().filter(|value| theirs.iter().any(|other| are_equal(value, other))).collect())
            }
            (mine, theirs) => mine.or(theirs),
        };
        let both = |mine: Option<BTreeSet<String>>, theirs: Option<BTreeSet<String>>| match (mine, theirs) {
            (Some(mine), Some(theirs)) => Some(mine.intersection(&theirs).cloned().collect()),
            (mine, theirs) => mine.or(theirs),
        };
        self.types = both(self.types.take(), other.types);
        self.only = both(self.only.take(), other.only);
    }

    fn unite(&mut self, other: &Self) {
        self.present &= other.present;
        self.values = match (self.values.take(), &other.values) {
            (Some(mut mine), Some(theirs)) => {
                mine.extend(theirs.iter().cloned());
                mine.dedup();
                Some(mine)
            }
            _ => None,
        };
        let either = |mine: Option<BTreeSet<String>>, theirs: &Option<BTreeSet<String>>| match (mine, theirs) {
            (Some(mine), Some(theirs)) => Some(mine.union(theirs).cloned().collect()),
            _ => None,
        };
        self.types = either(self.types.take(), &other.types);
        self.only = either(self.only.take(), &other.only);
    }

    /// Returns the possible types; `None` for any.
    pub fn possible_types(&self) -> Option<BTreeSet<String>> {
        if let Some(types) = &self.types {
            let mut types = types.clone();
            // An integer is a number, and a number may be an integer.
            if types.remove("integer") {
                types.insert("number".to_owned());
            }
            return Some(types);
        }
        let values = self.values.as_ref()?;
        Some(values.iter().map(|value| json_type(value).to_owned()).collect())
    }
}
