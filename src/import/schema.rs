//! A payload's schema as the JSON Schema 2020-12 that everything else reads. AsyncAPI's own is draft-07 with some more;
//! others write draft 4 or what OpenAPI makes of it. What a reference leads to becomes a `$defs` of the message, so that
//! its schema stands by itself. What says nothing about validity is left out, what cannot be read is told.

use std::collections::{BTreeMap, BTreeSet};

use super::document::Message;
use super::references::{Library, Place};
use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::json_schema::{self, Holds};
use crate::syntax::source::Span;
use crate::syntax::yaml::{Key, Kind, Node, Text};

/// Most schemas within one message, and within all messages of a document.
const MAX_OF_MESSAGE: usize = 4_000;
const MAX_OF_DOCUMENT: usize = 60_000;

/// What is left of what a document may hold.
pub struct Room {
    schemas: usize,
    /// Keywords that were told of already.
    told: BTreeSet<String>,
}

impl Default for Room {
    fn default() -> Self {
        Self { schemas: MAX_OF_DOCUMENT, told: BTreeSet::new() }
    }
}

/// How old the words are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// Draft 4 to 7, AsyncAPI and OpenAPI: what stands beside `$ref` counts for nothing.
    Old,
    /// 2019-09: lists of `items`, but `$ref` is a word like others.
    Middle,
    New,
}

fn dialect(name: &str) -> Option<Dialect> {
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    if has(&["2020-12", "next"]) {
        Some(Dialect::New)
    } else if has(&["2019-09"]) {
        Some(Dialect::Middle)
    } else if name.is_empty()
        || has(&["aai.asyncapi", "schema+json", "schema+yaml", "oai.openapi", "json-schema.org", "asyncapi.com"])
    {
        Some(Dialect::Old)
    } else {
        None
    }
}

/// Whether a `schemaFormat` is one that is read here.
pub fn is_known(format: &str) -> bool {
    dialect(format).is_some()
}

/// The schema of a message's payload; `None` where it cannot be read, which is told.
pub fn of(
    library: &Library,
    message: &Message<'_>,
    room: &mut Room,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Node> {
    any_of(library, &[message], room, diagnostics)
}

/// A schema that fits what any of the messages fits.
pub fn any_of(
    library: &Library,
    messages: &[&Message<'_>],
    room: &mut Room,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Node> {
    let span = messages.first()?.span;
    let mut left = MAX_OF_MESSAGE.min(room.schemas);
    if messages.len() > 1 {
        left = MAX_OF_DOCUMENT;
    }
    let begun = left;
    let mut writer = Writer {
        library,
        names: BTreeMap::new(),
        open: Vec::new(),
        left,
        full: false,
        told: &mut room.told,
        diagnostics,
    };
    let mut roots = Vec::new();
    for message in messages {
        let dialect = dialect(&message.schema_format).unwrap_or(Dialect::Old);
        roots.push(match &message.payload {
            Some(place) => writer.schema(place, dialect),
            None => map(message.span, Vec::new()),
        });
    }
    let mut defs = Vec::new();
    while let Some((name, place, dialect)) = writer.open.pop() {
        let key = Key { name, span: place.node.span };
        defs.push((key, writer.schema(&place, dialect)));
    }
    let (full, left) = (writer.full, writer.left);
    room.schemas = room.schemas.saturating_sub(begun - left);
    if full {
        diagnostics.push(
            Diagnostic::error(span, format!("the schema of `{}` is larger than hubproof reads", messages[0].name))
                .help(format!(
                    "{MAX_OF_MESSAGE} schemas within each other are read of a message, {MAX_OF_DOCUMENT} of a document"
                )),
        );
        return None;
    }
    defs.reverse();
    let mut root = match (roots.len(), roots.pop()) {
        (1, Some(root)) => root,
        (_, last) => {
            // By their names, so that whoever reads what was expected reads names.
            roots.extend(last);
            let mut forms = Vec::new();
            for (message, schema) in messages.iter().zip(roots) {
                let free = |name: &String| !defs.iter().any(|(key, _)| key.name == *name);
                let numbered = (2..).map(|number| format!("{}_{number}", message.name));
                let name = std::iter::once(message.name.clone()).chain(numbered).find(free).unwrap_or_default();
                forms.push(map(span, vec![(key("$ref", span), text(span, format!("#/$defs/{name}")))]));
                defs.push((key(&name, span), schema));
            }
            map(span, vec![(key("anyOf", span), Node { span, kind: Kind::List(forms) })])
        }
    };
    // So that more can be said about it.
    if let Kind::Bool(all) = root.kind {
        let said = (!all).then(|| (key("not", root.span), map(root.span, Vec::new())));
        root = map(root.span, said.into_iter().collect());
    }
    if let Kind::Map(entries) = &mut root.kind
        && !defs.is_empty()
    {
        entries.push((key("$defs", span), map(span, defs)));
    }
    if let Some(at) = endless(&root) {
        diagnostics.push(
            Diagnostic::error(at, "this schema is defined by itself, so nothing says what fits it")
                .help("a schema may come back below a member or an item, not at the same place"),
        );
        return None;
    }
    Some(root)
}

fn key(name: &str, span: Span) -> Key {
    Key { name: name.to_owned(), span }
}

fn map(span: Span, entries: Vec<(Key, Node)>) -> Node {
    Node { span, kind: Kind::Map(entries) }
}

fn text(span: Span, value: String) -> Node {
    Node { span, kind: Kind::Text(Text { value, inner: None }) }
}

struct Writer<'l, 'd> {
    library: &'l Library,
    /// Where a schema stands that was referred to -> its name under `$defs`.
    names: BTreeMap<(String, String), String>,
    open: Vec<(String, Place<'l>, Dialect)>,
    left: usize,
    full: bool,
    told: &'d mut BTreeSet<String>,
    diagnostics: &'d mut Vec<Diagnostic>,
}

impl<'l> Writer<'l, '_> {
    fn schema(&mut self, place: &Place<'l>, mut dialect: Dialect) -> Node {
        let node = place.node;
        let Some(entries) = node.map() else {
            // True, false, or something that is told when the pack is put together.
            return node.clone();
        };
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => {
                self.full = true;
                return map(node.span, Vec::new());
            }
        }
        if let Some(named) = place.text("$schema").and_then(self::dialect) {
            dialect = named;
        }
        let mut made = Made { span: node.span, entries: Vec::new() };
        if let Some(reference) = place.get("$ref") {
            if let Some(target) = self.reference(place, dialect) {
                made.add("$ref", reference.node.span, target);
            }
            if dialect == Dialect::Old {
                return map(node.span, made.entries);
            }
        }
        for (name, _) in entries {
            if let Some(inner) = place.get(&name.name) {
                self.keyword(place, name, &inner, dialect, &mut made);
            }
        }
        made.finish(place)
    }

    /// What a reference leads to gets a name of its own; `None` where it leads nowhere, which is told.
    fn reference(&mut self, place: &Place<'l>, dialect: Dialect) -> Option<Node> {
        let target = match self.library.follow(place.clone()) {
            Ok(target) => target,
            Err(diagnostic) => {
                self.diagnostics.push(diagnostic);
                return None;
            }
        };
        let id = target.id();
        let name = match self.names.get(&id) {
            Some(name) => name.clone(),
            None => {
                let taken: BTreeSet<&String> = self.names.values().collect();
                let word = super::document::word(&target.name());
                let word = if word.is_empty() { "schema".to_owned() } else { word };
                let numbered = (2..).map(|number| format!("{word}_{number}"));
                let name =
                    std::iter::once(word.clone()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or(word);
                self.names.insert(id, name.clone());
                self.open.push((name.clone(), target, dialect));
                name
            }
        };
        Some(text(place.node.span, format!("#/$defs/{name}")))
    }

    fn keyword(&mut self, place: &Place<'l>, name: &Key, inner: &Place<'l>, dialect: Dialect, made: &mut Made) {
        let span = name.span;
        match name.name.as_str() {
            // Where it is, what it is called, and what it is like: nothing that a payload could break.
            "$ref" | "$schema" | "$id" | "id" | "$anchor" | "$dynamicAnchor" | "$recursiveAnchor" | "$vocabulary"
            | "$comment" | "definitions" | "$defs" | "examples" | "example" | "default" | "deprecated" | "readOnly"
            | "writeOnly" | "contentEncoding" | "contentMediaType" | "contentSchema" | "discriminator"
            | "externalDocs" | "xml" | "nullable" | "additionalItems" => {}
            "title" | "description" => {
                if inner.node.text().is_some() {
                    made.add(&name.name, span, inner.node.clone());
                }
            }
            "type" => {
                if inner.node.text() != Some("any") {
                    made.add("type", span, inner.node.clone());
                }
            }
            "format" => {
                if inner.node.text().is_some_and(json_schema::is_format) {
                    made.add("format", span, inner.node.clone());
                }
            }
            "required" if matches!(inner.node.kind, Kind::Bool(_)) => self.tell(
                span,
                "`required` of a member is passed over: that is how drafts before 4 wrote it",
                "name the member in a list `required` beside `properties`",
            ),
            "required" if inner.node.list().is_some_and(<[Node]>::is_empty) => {}
            "exclusiveMinimum" | "exclusiveMaximum" if matches!(inner.node.kind, Kind::Bool(_)) => {
                // Draft 4: a word about the bound beside it.
                let bound = if name.name == "exclusiveMinimum" { "minimum" } else { "maximum" };
                if matches!(inner.node.kind, Kind::Bool(true))
                    && let Some(value) = place.get(bound)
                {
                    made.add(&name.name, span, value.node.clone());
                }
            }
            "minimum" | "maximum" => {
                let exclusive = if name.name == "minimum" { "exclusiveMinimum" } else { "exclusiveMaximum" };
                if !place.get(exclusive).is_some_and(|other| matches!(other.node.kind, Kind::Bool(true))) {
                    made.add(&name.name, span, inner.node.clone());
                }
            }
            "items" if dialect != Dialect::New && inner.node.list().is_some() => {
                let items = inner.items().map(|item| self.schema(&item, dialect)).collect();
                made.add("prefixItems", span, Node { span: inner.node.span, kind: Kind::List(items) });
                if let Some(rest) = place.get("additionalItems") {
                    let rest = self.schema(&rest, dialect);
                    made.add("items", span, rest);
                }
            }
            "dependencies" => {
                let (mut members, mut schemas) = (Vec::new(), Vec::new());
                for (name, inner) in inner.members() {
                    if inner.node.list().is_some() {
                        members.push((name.clone(), inner.node.clone()));
                    } else {
                        schemas.push((name.clone(), self.schema(&inner, dialect)));
                    }
                }
                for (word, entries) in [("dependentRequired", members), ("dependentSchemas", schemas)] {
                    if !entries.is_empty() {
                        made.add(word, span, map(inner.node.span, entries));
                    }
                }
            }
            "$dynamicRef" | "$recursiveRef" => {
                self.tell(span, &format!("`{}` is passed over", name.name), "write `$ref` with a path");
            }
            other if json_schema::is_keyword(other) => {
                let held = match json_schema::keyword(other) {
                    Some(Holds::Schema) => self.schema(inner, dialect),
                    Some(Holds::List) if inner.node.list().is_some() => {
                        let items = inner.items().map(|item| self.schema(&item, dialect)).collect();
                        Node { span: inner.node.span, kind: Kind::List(items) }
                    }
                    Some(Holds::Map) if inner.node.map().is_some() => {
                        let members = inner.members().map(|(key, member)| (key.clone(), self.schema(&member, dialect)));
                        let members = members.collect();
                        map(inner.node.span, members)
                    }
                    _ => inner.node.clone(),
                };
                made.add(other, span, held);
            }
            other if other.starts_with("x-") => {}
            other => {
                let help = suggest(
                    other,
                    json_schema::KEYWORDS.iter().copied(),
                    "a schema with it fits as if it were not there",
                );
                self.tell(span, &format!("JSON Schema has no keyword `{other}`, and it is passed over"), &help);
            }
        }
    }

    /// Once for each thing: a document that does it once does it everywhere.
    fn tell(&mut self, span: Span, message: &str, help: &str) {
        if self.told.insert(message.to_owned()) {
            self.diagnostics.push(Diagnostic::warning(span, message).help(help));
        }
    }
}

struct Made {
    span: Span,
    entries: Vec<(Key, Node)>,
}

impl Made {
    fn add(&mut self, name: &str, span: Span, node: Node) {
        // Said twice in two dialects: the first stays.
        if !self.entries.iter().any(|(key, _)| key.name == name) {
            self.entries.push((key(name, span), node));
        }
    }

    /// With what `nullable` adds: null fits, whatever else is said.
    fn finish(self, place: &Place<'_>) -> Node {
        let schema = map(self.span, self.entries);
        let nullable = place.node.get("nullable").is_some_and(|node| matches!(node.kind, Kind::Bool(true)));
        if !nullable {
            return schema;
        }
        let null = map(self.span, vec![(key("type", self.span), text(self.span, "null".to_owned()))]);
        let forms = Node { span: self.span, kind: Kind::List(vec![schema, null]) };
        map(self.span, vec![(key("anyOf", self.span), forms)])
    }
}

/// Where a schema leads back to itself without a step into the payload.
fn endless(root: &Node) -> Option<Span> {
    let empty = Vec::new();
    let defs: BTreeMap<&str, &Node> = match root.get("$defs").map(|node| &node.kind) {
        Some(Kind::Map(entries)) => entries,
        _ => &empty,
    }
    .iter()
    .map(|(key, node)| (key.name.as_str(), node))
    .collect();
    // Names are taken away from the end of the way: who is left leads, somehow, to a circle.
    let mut leads: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut led: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, node) in &defs {
        let mut found = BTreeSet::new();
        same_place(node, &mut found);
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

/// Names under `$defs` that a schema refers to for the place it is itself about.
fn same_place<'a>(schema: &'a Node, found: &mut BTreeSet<&'a str>) {
    for (key, node) in schema.map().unwrap_or_default() {
        match key.name.as_str() {
            "$ref" => found.extend(node.text().and_then(|text| text.strip_prefix("#/$defs/"))),
            "allOf" | "anyOf" | "oneOf" => {
                node.list().unwrap_or_default().iter().for_each(|one| same_place(one, found))
            }
            "not" | "if" | "then" | "else" => same_place(node, found),
            "dependentSchemas" => node.map().unwrap_or_default().iter().for_each(|(_, one)| same_place(one, found)),
            _ => {}
        }
    }
}
