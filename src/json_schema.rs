//! JSON Schema 2020-12 as packs and scenarios write it: unknown keywords are errors, because the validator library
//! would ignore a misspelt one and accept everything.

use jsonschema::Validator;
use serde_json::Value;

/// How the value of a keyword holds further schemas.
enum Holds {
    Nothing,
    Schema,
    List,
    Map,
}

fn keyword(name: &str) -> Option<Holds> {
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
        | "contentSchema" => Holds::Schema,
        "allOf" | "anyOf" | "oneOf" | "prefixItems" => Holds::List,
        "properties" | "patternProperties" | "dependentSchemas" | "$defs" => Holds::Map,
        "$schema" | "$ref" | "$anchor" | "$comment" | "title" | "description" | "default" | "deprecated"
        | "readOnly" | "writeOnly" | "examples" | "type" | "enum" | "const" | "multipleOf" | "maximum"
        | "exclusiveMaximum" | "minimum" | "exclusiveMinimum" | "maxLength" | "minLength" | "pattern" | "maxItems"
        | "minItems" | "uniqueItems" | "maxContains" | "minContains" | "maxProperties" | "minProperties"
        | "required" | "dependentRequired" | "format" | "contentEncoding" | "contentMediaType" => Holds::Nothing,
        _ => return None,
    })
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

/// Formats the validator asserts; any other would be accepted silently.
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

/// A keyword that does not exist: where (JSON pointer to the schema that holds it), and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKeyword {
    pub pointer: String,
    pub keyword: String,
}

/// Every keyword of `schema`, at any depth, that is neither 2020-12's nor one of `ours`; formats that nothing would
/// check are reported as `format: NAME`.
pub fn unknown_keywords(schema: &Value, ours: &[&str]) -> Vec<UnknownKeyword> {
    let mut found = Vec::new();
    walk(schema, "", &mut |schema, pointer| {
        for (name, value) in schema.as_object().into_iter().flatten() {
            if keyword(name).is_none() && !ours.contains(&name.as_str()) {
                found.push(UnknownKeyword { pointer: pointer.to_owned(), keyword: name.clone() });
            }
            if name == "format" && !value.as_str().is_some_and(|format| FORMATS.contains(&format)) {
                found.push(UnknownKeyword { pointer: pointer.to_owned(), keyword: format!("format: {value}") });
            }
        }
    });
    found
}

/// Calls `visit` for the schema itself and every schema inside it, `x-should` ones included, with its JSON pointer.
pub fn walk(schema: &Value, pointer: &str, visit: &mut impl FnMut(&Value, &str)) {
    visit(schema, pointer);
    for (name, value) in schema.as_object().into_iter().flatten() {
        let at = format!("{pointer}/{}", crate::matcher::escape(name));
        match keyword(name) {
            Some(Holds::Schema) => walk(value, &at, visit),
            Some(Holds::List) => value
                .as_array()
                .into_iter()
                .flatten()
                .enumerate()
                .for_each(|(i, s)| walk(s, &format!("{at}/{i}"), visit)),
            Some(Holds::Map) => value
                .as_object()
                .into_iter()
                .flatten()
                .for_each(|(k, s)| walk(s, &format!("{at}/{}", crate::matcher::escape(k)), visit)),
            None if name == "x-should" => {
                for (i, entry) in value.as_array().into_iter().flatten().enumerate() {
                    if let Some(schema) = entry.get("schema") {
                        walk(schema, &format!("{at}/{i}/schema"), visit);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Builds a validator: 2020-12, formats asserted, without network or files.
pub fn validator(schema: &Value) -> Result<Validator, String> {
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .with_keyword("like", |_, value, _| Ok(Box::new(crate::matcher::Like::new(value.clone()))))
        .build(schema)
        .map_err(|error| format!("not a JSON Schema: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_misspelt_keyword_is_found_at_any_depth() {
        let schema = json!({"properties": {"minimun": {"minimun": 1}}, "x-should": [{"rules": [], "schema": {"typo": 1}}], "format": "semver"});
        let found = unknown_keywords(&schema, &["x-should"]);
        let names: Vec<_> = found.iter().map(|u| format!("{} {}", u.pointer, u.keyword)).collect();
        assert_eq!(names, [" format: \"semver\"", "/properties/minimun minimun", "/x-should/0/schema typo"]);
    }
}
