//! What `discriminator` demands. AsyncAPI binds the value of the member that it names to the names of schemas: it must be
//! the name of the schema itself, or of one that inherits from it with `allOf`. A `const` or `enum` of a schema overrides
//! its name. OpenAPI's form, with `propertyName` and `mapping`, is read in the same way.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::references::{DocumentLibrary, DocumentRef};
use crate::syntax::matcher::are_equal;

/// The most levels of `allOf` that are followed.
const MAX_DEPTH: usize = 16;

/// The schemas that refer to each schema in their `allOf`, by its place.
pub struct Inheritance<'a> {
    library: &'a DocumentLibrary,
    heirs: BTreeMap<(String, String), Vec<DocumentRef<'a>>>,
}

/// The values that a `discriminator` allows for the member that it names.
#[derive(Debug, PartialEq)]
pub struct DiscriminatedMember<'a> {
    pub name: &'a str,
    pub values: Vec<Value>,
}

impl DiscriminatedMember<'_> {
    /// Returns the schema that allows only these values.
    pub fn schema(&self) -> Value {
        json!({ "properties": { self.name: { "enum": self.values } } })
    }
}

impl<'a> Inheritance<'a> {
    pub fn of_library(library: &'a DocumentLibrary) -> Self {
        let mut heirs: BTreeMap<_, Vec<DocumentRef<'a>>> = BTreeMap::new();
        let mut open: Vec<DocumentRef<'a>> = library.roots().collect();
        while let Some(place) = open.pop() {
            open.extend(place.items());
            open.extend(place.members().map(|(_, member)| member));
            for base in place.get("allOf").iter().flat_map(DocumentRef::items) {
                if base.node.get("$ref").is_some()
                    && let Ok(target) = library.follow_reference(base)
                {
                    heirs.entry(target.identity()).or_default().push(place.clone());
                }
            }
        }
        Self { library, heirs }
    }

    /// Returns the member that the `discriminator` of a schema, or of one that it inherits from, binds, with its values;
    /// the error names a discriminator that binds nothing.
    pub fn of_schema(&self, place: &DocumentRef<'a>) -> Option<Result<DiscriminatedMember<'a>, String>> {
        let name = self.inherited_discriminator(place, 0)?;
        let mut values = Vec::new();
        let alternatives: Vec<_> = ["oneOf", "anyOf"]
            .iter()
            .filter_map(|word| place.get(word))
            .flat_map(|list| list.items().collect::<Vec<_>>())
            .collect();
        let own = alternatives.is_empty() || place.get("allOf").is_some();
        let targets = alternatives.into_iter().filter_map(|one| self.library.follow_reference(one).ok());
        let complete = if own {
            self.add_values(place, name, &mut values)
        } else {
            targets.into_iter().all(|target| self.add_values(&target, name, &mut values))
        };
        Some(if complete { Ok(DiscriminatedMember { name, values }) } else { Err(name.to_owned()) })
    }

    /// Returns the values that bind an alternative of a schema with a `discriminator`.
    pub fn of_alternative(
        &self,
        schema: &DocumentRef<'a>,
        alternative: &DocumentRef<'a>,
    ) -> Option<DiscriminatedMember<'a>> {
        let name = own_discriminator(schema)?;
        let target = self.library.follow_reference(alternative.clone()).ok()?;
        let mut values = self.mapped_values(schema, &target);
        self.add_values(&target, name, &mut values).then_some(DiscriminatedMember { name, values })
    }

    fn inherited_discriminator(&self, place: &DocumentRef<'a>, depth: usize) -> Option<&'a str> {
        own_discriminator(place).or_else(|| {
            let bases = place.get("allOf").filter(|_| depth < MAX_DEPTH)?;
            bases
                .items()
                .find_map(|base| self.inherited_discriminator(&self.library.follow_reference(base).ok()?, depth + 1))
        })
    }

    /// Adds the values of the member for a schema and all that inherit from it. Returns whether they are all known.
    fn add_values(&self, schema: &DocumentRef<'a>, member: &str, values: &mut Vec<Value>) -> bool {
        let (mut open, mut seen) = (vec![schema.clone()], BTreeSet::new());
        while let Some(place) = open.pop() {
            if !seen.insert(place.identity()) {
                continue;
            }
            let fixed = self.fixed_values(&place, member, false, 0);
            let mapped =
                self.bases_of(&place).iter().flat_map(|base| self.mapped_values(base, &place)).collect::<Vec<_>>();
            match (fixed, schema_name(&place)) {
                (Some(fixed), _) => values.extend(fixed),
                (None, _) if !mapped.is_empty() => values.extend(mapped),
                (None, Some(name)) => {
                    let name = Value::from(name);
                    // Many documents list other values than the names of their schemas.
                    let listed = self.fixed_values(&place, member, true, 0);
                    if listed.is_some_and(|listed| !listed.iter().any(|one| are_equal(one, &name))) {
                        return false;
                    }
                    values.push(name);
                }
                (None, None) => return false,
            }
            open.extend(self.heirs.get(&place.identity()).into_iter().flatten().cloned());
        }
        true
    }

    /// Returns a schema and those that it inherits from.
    fn bases_of(&self, place: &DocumentRef<'a>) -> Vec<DocumentRef<'a>> {
        let mut found = vec![place.clone()];
        let mut next = 0;
        while next < found.len() && found.len() < MAX_DEPTH {
            let bases = found[next].get("allOf").into_iter().flat_map(|list| list.items().collect::<Vec<_>>());
            let bases: Vec<_> = bases.filter_map(|base| self.library.follow_reference(base).ok()).collect();
            found.extend(bases);
            next += 1;
        }
        found
    }

    /// Returns the values that a `mapping` gives a schema.
    fn mapped_values(&self, schema: &DocumentRef<'a>, target: &DocumentRef<'a>) -> Vec<Value> {
        let mapping = schema.get("discriminator").and_then(|discriminator| discriminator.get("mapping"));
        let named = |text: &str| text.rsplit('/').next() == Some(target.name().as_str());
        let pairs = mapping.iter().flat_map(DocumentRef::members);
        pairs.filter(|(_, to)| to.node.text().is_some_and(named)).map(|(key, _)| json!(key.name)).collect()
    }

    /// Returns the values that a schema lists for a member. With `inherited`, a schema that it extends may list them.
    fn fixed_values(&self, place: &DocumentRef<'a>, member: &str, inherited: bool, depth: usize) -> Option<Vec<Value>> {
        let declared = place.get("properties").and_then(|properties| properties.get(member));
        let own = declared.and_then(|declared| self.library.follow_reference(declared).ok()).and_then(|declared| {
            let one = declared.node.get("const").map(|value| vec![value.to_json()]);
            one.or_else(|| Some(declared.node.get("enum")?.list()?.iter().map(|value| value.to_json()).collect()))
        });
        // A base that declares the discriminator lists the values of all schemas.
        let own = own.filter(|_| inherited || own_discriminator(place).is_none());
        own.or_else(|| {
            let parts = place.get("allOf").filter(|_| depth < MAX_DEPTH)?;
            parts.items().filter(|part| inherited || part.node.get("$ref").is_none()).find_map(|part| {
                self.fixed_values(&self.library.follow_reference(part).ok()?, member, inherited, depth + 1)
            })
        })
    }
}

/// Returns the member that the `discriminator` of a schema names.
fn own_discriminator<'a>(place: &DocumentRef<'a>) -> Option<&'a str> {
    let node = place.node.get("discriminator")?;
    node.text().or_else(|| node.get("propertyName")?.text())
}

/// Returns the name of a schema, if it is one of those that a document lists by name.
fn schema_name(place: &DocumentRef<'_>) -> Option<String> {
    let (above, _) = place.pointer.rsplit_once('/')?;
    ["/schemas", "/$defs", "/definitions"].iter().any(|list| above.ends_with(list)).then(|| place.name())
}
