//! Derives facts that a schema guarantees for every payload: the possible values and types at each place, and whether a
//! value is always present. These facts distinguish messages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::Value;

use crate::generate::schema_shape::{MAX_SCHEMAS, SchemaShape};
use crate::syntax::json_schema::json_type;
use crate::syntax::matcher::escape;

/// The most places of a message that are analysed, those at the top first.
const MAX_PLACES: usize = 400;
/// The most values of a place that are known, and the most members and items of one value that are analysed.
const MAX_WIDTH: usize = 64;

/// Facts by JSON pointer; the empty pointer is the whole payload.
pub type SchemaFacts = BTreeMap<String, SchemaFact>;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct SchemaFact {
    /// Whether the member is always present.
    pub present: bool,
    /// The member's only possible values.
    pub values: Option<Vec<Value>>,
    /// The member's only possible types; an integer is a number.
    pub types: Option<BTreeSet<String>>,
    /// If the member is an object: the only members it can have.
    pub only: Option<BTreeSet<String>>,
}

pub fn schema_facts(schema: &Value) -> SchemaFacts {
    let mut facts = SchemaFacts::new();
    let shape = SchemaShape::certain(schema, schema, &mut MAX_SCHEMAS.clone());
    let mut open = VecDeque::from([(String::new(), shape, true)]);
    while let Some((pointer, shape, present)) = open.pop_front() {
        let room = MAX_PLACES.saturating_sub(facts.len() + open.len() + 1).min(MAX_WIDTH);
        let members = shape.member_names().into_iter().take(room).map(|name| {
            (format!("{pointer}/{}", escape(name)), shape.member(name), present && shape.always_requires(name))
        });
        let items = (0..shape.prefix_length().min(room)).map(|index| {
            (format!("{pointer}/{index}"), shape.item(index), present && (index as u64) < shape.least_items())
        });
        open.extend(members.chain(items).take(room));
        facts.insert(pointer, SchemaFact::of_shape(&shape, present));
    }
    facts
}

impl SchemaFact {
    fn of_shape(shape: &SchemaShape<'_>, present: bool) -> Self {
        let values = shape.allowed_values().filter(|values| values.len() <= MAX_WIDTH);
        let number = |name: &str| if name == "integer" { "number".to_owned() } else { name.to_owned() };
        let of_values = || values.as_ref().map(|values| values.iter().map(|value| json_type(value)).collect());
        let types: Option<Vec<&str>> = shape.allowed_types().or_else(of_values);
        Self {
            present,
            types: types.map(|types| types.into_iter().map(number).collect()),
            only: shape.only_members().map(|only| only.into_iter().map(str::to_owned).collect()),
            values: values.map(|values| values.into_iter().cloned().collect()),
        }
    }
}
