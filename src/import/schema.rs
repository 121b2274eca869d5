//! Converts the schema of a payload to JSON Schema 2020-12. AsyncAPI's own dialect is draft-07 with additions; some
//! documents use draft 4 or OpenAPI's dialect. The target of a reference becomes a `$defs` entry of the message.
//! Keywords that do not affect validity are left out; unknown keywords are reported.

use std::collections::{BTreeMap, BTreeSet};

use super::document::{DocumentMessage, to_word, unique_name};
use super::polymorphism::Inheritance;
use super::references::{DocumentLibrary, DocumentRef};
use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::json_schema::{self, SubschemaLayout};
use crate::syntax::source::Span;
use crate::syntax::yaml::{NodeKey, NodeKind, NodeText, SyntaxNode};

/// The most schemas in one message, and in all messages of a document.
const MAX_SCHEMAS_OF_MESSAGE: usize = 4_000;
const MAX_SCHEMAS_OF_DOCUMENT: usize = 60_000;

/// What the conversions of a document's schemas share.
pub struct SchemaBudget<'a> {
    /// The number of further schemas that the document may contain.
    schemas: usize,
    /// Warnings that were already reported.
    reported: BTreeSet<String>,
    /// Keywords that no check judges, as lint lists them.
    pub unjudged: BTreeSet<String>,
    inheritance: Inheritance<'a>,
}

impl<'a> SchemaBudget<'a> {
    pub fn of_library(library: &'a DocumentLibrary) -> Self {
        Self {
            schemas: MAX_SCHEMAS_OF_DOCUMENT,
            reported: BTreeSet::new(),
            unjudged: BTreeSet::new(),
            inheritance: Inheritance::of_library(library),
        }
    }
}

/// A dialect of JSON Schema.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SchemaDialect {
    /// Draft 4 to 7, AsyncAPI and OpenAPI: keywords next to `$ref` are ignored.
    Old,
    /// 2019-09: `items` may be a list, but `$ref` is a keyword like any other.
    Middle,
    New,
}

fn parse_dialect(name: &str) -> Option<SchemaDialect> {
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    if has(&["2020-12", "next"]) {
        Some(SchemaDialect::New)
    } else if has(&["2019-09"]) {
        Some(SchemaDialect::Middle)
    } else if name.is_empty()
        || has(&["aai.asyncapi", "schema+json", "schema+yaml", "oai.openapi", "json-schema.org", "asyncapi.com"])
    {
        Some(SchemaDialect::Old)
    } else {
        None
    }
}

/// Whether a `schemaFormat` is supported.
pub fn is_supported_format(format: &str) -> bool {
    parse_dialect(format).is_some()
}

/// Converts the schema of a message's payload; returns `None` after an error.
pub fn convert_payload_schema<'a>(
    library: &'a DocumentLibrary,
    message: &DocumentMessage<'a>,
    budget: &mut SchemaBudget<'a>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<SyntaxNode> {
    convert_any_of(library, &[message], budget, diagnostics)
}

/// Converts the schemas of several messages to one schema that allows every payload that one of them allows.
pub fn convert_any_of<'a>(
    library: &'a DocumentLibrary,
    messages: &[&DocumentMessage<'a>],
    budget: &mut SchemaBudget<'a>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<SyntaxNode> {
    let span = messages.first()?.span;
    let mut left = MAX_SCHEMAS_OF_MESSAGE.min(budget.schemas);
    if messages.len() > 1 {
        left = MAX_SCHEMAS_OF_DOCUMENT;
    }
    let begun = left;
    let mut converter = SchemaConverter {
        library,
        names: BTreeMap::new(),
        open: Vec::new(),
        left,
        full: false,
        reported: &mut budget.reported,
        unjudged: &mut budget.unjudged,
        inheritance: &budget.inheritance,
        diagnostics,
    };
    let mut roots = Vec::new();
    for message in messages {
        let dialect = parse_dialect(&message.schema_format).unwrap_or(SchemaDialect::Old);
        roots.push(match &message.payload {
            Some(place) => converter.convert_schema(place, dialect),
            None => map_node(message.span, Vec::new()),
        });
    }
    let mut defs = Vec::new();
    while let Some((name, place, dialect)) = converter.open.pop() {
        let key = NodeKey { name, span: place.node.span };
        defs.push((key, converter.convert_schema(&place, dialect)));
    }
    let (full, left) = (converter.full, converter.left);
    budget.schemas = budget.schemas.saturating_sub(begun - left);
    if full {
        diagnostics.push(Diagnostic::error(span, format!("the schema of `{}` is too large", messages[0].name)).help(
            format!("hubproof reads at most {MAX_SCHEMAS_OF_MESSAGE} schemas per message and {MAX_SCHEMAS_OF_DOCUMENT} per document"),
        ));
        return None;
    }
    defs.reverse();
    let mut root = match (roots.len(), roots.pop()) {
        (1, Some(root)) => root,
        (_, last) => {
            // Alternatives are references to `$defs`, so that findings show the names of the messages.
            roots.extend(last);
            let mut forms = Vec::new();
            for (message, schema) in messages.iter().zip(roots) {
                let name = unique_name(&message.name, '_', |name| defs.iter().any(|(key, _)| key.name == name));
                forms.push(map_node(span, vec![(node_key("$ref", span), text_node(span, format!("#/$defs/{name}")))]));
                defs.push((node_key(&name, span), schema));
            }
            map_node(span, vec![(node_key("anyOf", span), SyntaxNode { span, kind: NodeKind::List(forms) })])
        }
    };
    // A boolean schema becomes an object, to which keywords can be added.
    if let NodeKind::Bool(all) = root.kind {
        let none = (!all).then(|| (node_key("not", root.span), map_node(root.span, Vec::new())));
        root = map_node(root.span, none.into_iter().collect());
    }
    if let NodeKind::Map(entries) = &mut root.kind
        && !defs.is_empty()
    {
        entries.push((node_key("$defs", span), map_node(span, defs)));
    }
    if let Some(at) = find_endless_schema(&root) {
        diagnostics.push(
            Diagnostic::error(at, "this schema refers to itself at the same place, so it defines nothing")
                .help("a schema may refer to itself only below a member or an item"),
        );
        return None;
    }
    Some(root)
}

fn node_key(name: &str, span: Span) -> NodeKey {
    NodeKey { name: name.to_owned(), span }
}

fn map_node(span: Span, entries: Vec<(NodeKey, SyntaxNode)>) -> SyntaxNode {
    SyntaxNode { span, kind: NodeKind::Map(entries) }
}

fn text_node(span: Span, value: String) -> SyntaxNode {
    SyntaxNode { span, kind: NodeKind::Text(NodeText { value, inner: None }) }
}

struct SchemaConverter<'l, 'd> {
    library: &'l DocumentLibrary,
    /// The name under `$defs` of each schema that was referred to, by its place.
    names: BTreeMap<(String, String), String>,
    open: Vec<(String, DocumentRef<'l>, SchemaDialect)>,
    left: usize,
    full: bool,
    reported: &'d mut BTreeSet<String>,
    unjudged: &'d mut BTreeSet<String>,
    inheritance: &'d Inheritance<'l>,
    diagnostics: &'d mut Vec<Diagnostic>,
}

impl<'l> SchemaConverter<'l, '_> {
    fn convert_schema(&mut self, place: &DocumentRef<'l>, mut dialect: SchemaDialect) -> SyntaxNode {
        let node = place.node;
        let Some(entries) = node.map() else {
            // True, false, or a mistake that assembling the pack reports.
            return node.clone();
        };
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => {
                self.full = true;
                return map_node(node.span, Vec::new());
            }
        }
        if let Some(named) = place.text("$schema").and_then(parse_dialect) {
            dialect = named;
        }
        let mut made = SchemaEntries { span: node.span, entries: Vec::new() };
        if let Some(reference) = place.get("$ref") {
            if let Some(target) = self.convert_reference(place, dialect) {
                made.add("$ref", reference.node.span, target);
            }
            if dialect == SchemaDialect::Old {
                return map_node(node.span, made.entries);
            }
        }
        for (name, _) in entries {
            if let Some(inner) = place.get(&name.name) {
                self.convert_keyword(place, name, &inner, dialect, &mut made);
            }
        }
        match self.inheritance.of_schema(place) {
            Some(Ok(bound)) => made.demand(&bound.schema()),
            Some(Err(member)) => drop(self.unjudged.insert(format!("`discriminator: {member}`"))),
            None => {}
        }
        made.finish(place)
    }

    /// Converts the alternatives of a schema, whose `discriminator` may bind them to their names.
    fn convert_alternatives(
        &mut self,
        place: &DocumentRef<'l>,
        list: &DocumentRef<'l>,
        dialect: SchemaDialect,
    ) -> SyntaxNode {
        let convert = |one: DocumentRef<'l>| {
            let schema = self.convert_schema(&one, dialect);
            let Some(bound) = self.inheritance.of_alternative(place, &one) else { return schema };
            let span = one.node.span;
            let mut made = SchemaEntries { span, entries: schema.map().unwrap_or_default().to_vec() };
            made.demand(&bound.schema());
            map_node(span, made.entries)
        };
        SyntaxNode { span: list.node.span, kind: NodeKind::List(list.items().map(convert).collect()) }
    }

    /// Gives the target of a reference a name under `$defs`; returns `None` after an error.
    fn convert_reference(&mut self, place: &DocumentRef<'l>, dialect: SchemaDialect) -> Option<SyntaxNode> {
        let target = match self.library.follow_reference(place.clone()) {
            Ok(target) => target,
            Err(diagnostic) => {
                self.diagnostics.push(diagnostic);
                return None;
            }
        };
        let id = target.identity();
        let name = match self.names.get(&id) {
            Some(name) => name.clone(),
            None => {
                let word = to_word(&target.name());
                let word = if word.is_empty() { "schema".to_owned() } else { word };
                let name = unique_name(&word, '_', |name| self.names.values().any(|known| known == name));
                self.names.insert(id, name.clone());
                self.open.push((name.clone(), target, dialect));
                name
            }
        };
        Some(text_node(place.node.span, format!("#/$defs/{name}")))
    }

    fn convert_keyword(
        &mut self,
        place: &DocumentRef<'l>,
        name: &NodeKey,
        inner: &DocumentRef<'l>,
        dialect: SchemaDialect,
        made: &mut SchemaEntries,
    ) {
        let span = name.span;
        match name.name.as_str() {
            // Keywords that no payload can violate.
            "$ref" | "$schema" | "$id" | "id" | "$anchor" | "$dynamicAnchor" | "$recursiveAnchor" | "$vocabulary"
            | "$comment" | "definitions" | "$defs" | "examples" | "example" | "deprecated" | "readOnly"
            | "writeOnly" | "discriminator" | "externalDocs" | "xml" | "nullable" | "additionalItems" => {}
            "contentEncoding" | "contentMediaType" | "contentSchema" => {
                self.unjudged.insert(format!("`{}`", name.name));
            }
            "oneOf" | "anyOf" if inner.node.list().is_some() => {
                let alternatives = self.convert_alternatives(place, inner, dialect);
                made.add(&name.name, span, alternatives);
            }
            "title" | "description" => {
                if inner.node.text().is_some() {
                    made.add(&name.name, span, inner.node.clone());
                }
            }
            // Generated payloads use it.
            "default" => made.add("default", span, inner.node.clone()),
            "type" => {
                if inner.node.text() != Some("any") {
                    made.add("type", span, inner.node.clone());
                }
            }
            "format" => match inner.node.text() {
                Some(format) if json_schema::is_format(format) => made.add("format", span, inner.node.clone()),
                Some(format) => drop(self.unjudged.insert(format!("`format: {format}`"))),
                None => {}
            },
            "required" if matches!(inner.node.kind, NodeKind::Bool(_)) => self.warn_once(
                span,
                "`required: true` of a member is ignored: only drafts before 4 support it",
                "add a list `required` next to `properties`, with the name of the member",
            ),
            "required" if inner.node.list().is_some_and(<[SyntaxNode]>::is_empty) => {}
            "exclusiveMinimum" | "exclusiveMaximum" | "minimum" | "maximum" => convert_bound(place, name, inner, made),
            "items" if dialect != SchemaDialect::New && inner.node.list().is_some() => {
                let items = inner.items().map(|item| self.convert_schema(&item, dialect)).collect();
                made.add("prefixItems", span, SyntaxNode { span: inner.node.span, kind: NodeKind::List(items) });
                if let Some(rest) = place.get("additionalItems") {
                    let rest = self.convert_schema(&rest, dialect);
                    made.add("items", span, rest);
                }
            }
            "dependencies" => self.convert_dependencies(span, inner, dialect, made),
            "$dynamicRef" | "$recursiveRef" => {
                self.warn_once(span, &format!("`{}` is ignored", name.name), "write `$ref` with a path");
            }
            other if json_schema::is_keyword(other) => {
                let held = self.convert_subschemas(other, inner, dialect);
                made.add(other, span, held);
            }
            other if other.starts_with("x-") => {}
            other => {
                let help = suggest(other, json_schema::KEYWORDS.iter().copied(), "the schema is read without it");
                self.warn_once(span, &format!("`{other}` is ignored: JSON Schema has no such keyword"), &help);
            }
        }
    }

    /// Converts `dependencies`, which newer drafts have split in two.
    fn convert_dependencies(
        &mut self,
        span: Span,
        inner: &DocumentRef<'l>,
        dialect: SchemaDialect,
        made: &mut SchemaEntries,
    ) {
        let (mut members, mut schemas) = (Vec::new(), Vec::new());
        for (name, inner) in inner.members() {
            if inner.node.list().is_some() {
                members.push((name.clone(), inner.node.clone()));
            } else {
                schemas.push((name.clone(), self.convert_schema(&inner, dialect)));
            }
        }
        for (word, entries) in [("dependentRequired", members), ("dependentSchemas", schemas)] {
            if !entries.is_empty() {
                made.add(word, span, map_node(inner.node.span, entries));
            }
        }
    }

    /// Converts the schemas in the value of a keyword.
    fn convert_subschemas(&mut self, keyword: &str, inner: &DocumentRef<'l>, dialect: SchemaDialect) -> SyntaxNode {
        match json_schema::subschema_layout(keyword) {
            Some(SubschemaLayout::Schema) => self.convert_schema(inner, dialect),
            Some(SubschemaLayout::List) if inner.node.list().is_some() => {
                let items = inner.items().map(|item| self.convert_schema(&item, dialect)).collect();
                SyntaxNode { span: inner.node.span, kind: NodeKind::List(items) }
            }
            Some(SubschemaLayout::Map) if inner.node.map().is_some() => {
                let members = inner.members().map(|(key, member)| (key.clone(), self.convert_schema(&member, dialect)));
                let members = members.collect();
                map_node(inner.node.span, members)
            }
            _ => inner.node.clone(),
        }
    }

    /// Reports a warning, but each text only once.
    fn warn_once(&mut self, span: Span, message: &str, help: &str) {
        if self.reported.insert(message.to_owned()) {
            self.diagnostics.push(Diagnostic::warning(span, message).help(help));
        }
    }
}

/// Converts a bound. In draft 4, an exclusive one is a boolean that makes the bound next to it exclusive.
fn convert_bound(place: &DocumentRef<'_>, name: &NodeKey, inner: &DocumentRef<'_>, made: &mut SchemaEntries) {
    let other = |name: &str| place.get(name);
    let makes_exclusive = |node: &SyntaxNode| matches!(node.kind, NodeKind::Bool(true));
    let bound = match name.name.as_str() {
        "minimum" if other("exclusiveMinimum").is_some_and(|other| makes_exclusive(other.node)) => None,
        "maximum" if other("exclusiveMaximum").is_some_and(|other| makes_exclusive(other.node)) => None,
        "exclusiveMinimum" if makes_exclusive(inner.node) => other("minimum"),
        "exclusiveMaximum" if makes_exclusive(inner.node) => other("maximum"),
        "exclusiveMinimum" | "exclusiveMaximum" if matches!(inner.node.kind, NodeKind::Bool(_)) => None,
        _ => Some(inner.clone()),
    };
    if let Some(bound) = bound {
        made.add(&name.name, name.span, bound.node.clone());
    }
}

struct SchemaEntries {
    span: Span,
    entries: Vec<(NodeKey, SyntaxNode)>,
}

impl SchemaEntries {
    fn add(&mut self, name: &str, span: Span, node: SyntaxNode) {
        // If a keyword is given twice, in two dialects, the first stays.
        if !self.entries.iter().any(|(key, _)| key.name == name) {
            self.entries.push((node_key(name, span), node));
        }
    }

    /// Adds a further schema that the values must meet.
    fn demand(&mut self, schema: &serde_json::Value) {
        let schema = SyntaxNode::from_json(schema, self.span);
        match self.entries.iter_mut().find(|(key, _)| key.name == "allOf") {
            Some((_, SyntaxNode { kind: NodeKind::List(parts), .. })) => parts.push(schema),
            _ => {
                let parts = SyntaxNode { span: self.span, kind: NodeKind::List(vec![schema]) };
                self.entries.push((node_key("allOf", self.span), parts));
            }
        }
    }

    /// Returns the schema, which also allows null if it is `nullable`.
    fn finish(self, place: &DocumentRef<'_>) -> SyntaxNode {
        let schema = map_node(self.span, self.entries);
        let nullable = place.node.get("nullable").is_some_and(|node| matches!(node.kind, NodeKind::Bool(true)));
        if !nullable {
            return schema;
        }
        let null = map_node(self.span, vec![(node_key("type", self.span), text_node(self.span, "null".to_owned()))]);
        let forms = SyntaxNode { span: self.span, kind: NodeKind::List(vec![schema, null]) };
        map_node(self.span, vec![(node_key("anyOf", self.span), forms)])
    }
}

/// Returns the place of a schema that refers to itself for the same value, if there is one.
fn find_endless_schema(root: &SyntaxNode) -> Option<Span> {
    let empty = Vec::new();
    let defs: BTreeMap<&str, &SyntaxNode> = match root.get("$defs").map(|node| &node.kind) {
        Some(NodeKind::Map(entries)) => entries,
        _ => &empty,
    }
    .iter()
    .map(|(key, node)| (key.name.as_str(), node))
    .collect();
    // Repeatedly remove names that refer only to removed names or to none; the names left over lead to a cycle.
    let mut leads: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut led: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, node) in &defs {
        let mut found = BTreeSet::new();
        collect_same_value_references(node, &mut found);
        found.retain(|name| defs.contains_key(name));
        found.iter().for_each(|to| led.entry(to).or_default().push(name));
        leads.insert(name, found);
    }
    let mut ends: Vec<&str> = leads.iter().filter(|(_, to)| to.is_empty()).map(|(name, _)| *name).collect();
    while let Some(end) = ends.pop() {
        leads.remove(end);
        for from in led.remove(end).unwrap_or_default() {
            let Some(to) = leads.get_mut(from) else { continue };
            to.remove(end);
            if to.is_empty() {
                ends.push(from);
            }
        }
    }
    leads.keys().next().and_then(|name| defs.get(name)).map(|node| node.span)
}

/// Collects the names under `$defs` to which a schema refers for the same value.
fn collect_same_value_references<'a>(schema: &'a SyntaxNode, found: &mut BTreeSet<&'a str>) {
    for (key, node) in schema.map().unwrap_or_default() {
        match key.name.as_str() {
            "$ref" => found.extend(node.text().and_then(|text| text.strip_prefix("#/$defs/"))),
            "allOf" | "anyOf" | "oneOf" => {
                node.list().unwrap_or_default().iter().for_each(|one| collect_same_value_references(one, found))
            }
            "not" | "if" | "then" | "else" => collect_same_value_references(node, found),
            "dependentSchemas" => {
                node.map().unwrap_or_default().iter().for_each(|(_, one)| collect_same_value_references(one, found))
            }
            _ => {}
        }
    }
}
