//! Parses YAML (and JSON) into a tree that records the place of each value.
//!
//! The tree is built from the parser's events: serde's derive cannot read a step of a scenario, which may have any key,
//! and serde's buffered forms lose their spans. Only YAML 1.2 is accepted: anchors, aliases, tags, several documents,
//! duplicate keys and YAML 1.1's words for true and false (`yes`, `on`) are errors, each with advice. Foreign documents
//! may use anchors and aliases within a limit, and in them those words are text.

use std::collections::{HashMap, HashSet};

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::matcher::unescape;
use crate::syntax::source::{FileId, Sources, Span};

#[derive(Clone, Debug)]
pub struct SyntaxNode {
    pub span: Span,
    pub kind: NodeKind,
}

#[derive(Clone, Debug)]
pub enum NodeKind {
    Null,
    Bool(bool),
    Number(Number),
    Text(NodeText),
    List(Vec<SyntaxNode>),
    Map(Vec<(NodeKey, SyntaxNode)>),
}

#[derive(Clone, Debug)]
pub struct NodeText {
    pub value: String,
    /// Where the file contains the text byte for byte, so that a caret can point into it. `None` for a text with
    /// escapes or folding.
    pub inner: Option<Span>,
}

#[derive(Clone, Debug)]
pub struct NodeKey {
    pub name: String,
    pub span: Span,
}

impl SyntaxNode {
    pub fn is_null(&self) -> bool {
        matches!(self.kind, NodeKind::Null)
    }

    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Text(text) => Some(&text.value),
            _ => None,
        }
    }

    /// Returns the place of a text without its quotes, or else of the whole value.
    pub fn text_span(&self) -> Span {
        match &self.kind {
            NodeKind::Text(NodeText { inner: Some(inner), .. }) => *inner,
            _ => self.span,
        }
    }

    /// Returns a whole number that is not negative.
    pub fn integer(&self) -> Option<u64> {
        match &self.kind {
            NodeKind::Number(number) => number.as_u64(),
            _ => None,
        }
    }

    pub fn list(&self) -> Option<&[SyntaxNode]> {
        match &self.kind {
            NodeKind::List(items) => Some(items),
            _ => None,
        }
    }

    pub fn map(&self) -> Option<&[(NodeKey, SyntaxNode)]> {
        match &self.kind {
            NodeKind::Map(entries) => Some(entries),
            _ => None,
        }
    }

    pub fn get(&self, name: &str) -> Option<&SyntaxNode> {
        self.map()?.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    /// Converts a JSON value to a node, all of it at one place.
    pub fn from_json(value: &Value, span: Span) -> Self {
        let kind = match value {
            Value::Null => NodeKind::Null,
            Value::Bool(value) => NodeKind::Bool(*value),
            Value::Number(number) => NodeKind::Number(number.clone()),
            Value::String(text) => NodeKind::Text(NodeText { value: text.clone(), inner: None }),
            Value::Array(items) => NodeKind::List(items.iter().map(|item| Self::from_json(item, span)).collect()),
            Value::Object(members) => {
                let key = |name: &String| NodeKey { name: name.clone(), span };
                NodeKind::Map(members.iter().map(|(name, value)| (key(name), Self::from_json(value, span))).collect())
            }
        };
        Self { span, kind }
    }

    pub fn to_json(&self) -> Value {
        match &self.kind {
            NodeKind::Null => Value::Null,
            NodeKind::Bool(b) => Value::Bool(*b),
            NodeKind::Number(n) => Value::Number(n.clone()),
            NodeKind::Text(t) => Value::String(t.value.clone()),
            NodeKind::List(items) => Value::Array(items.iter().map(SyntaxNode::to_json).collect()),
            NodeKind::Map(entries) => {
                Value::Object(entries.iter().map(|(k, v)| (k.name.clone(), v.to_json())).collect::<Map<_, _>>())
            }
        }
    }

    /// Returns the node at a JSON pointer, or the nearest one above it.
    pub fn at_pointer(&self, pointer: &str) -> &SyntaxNode {
        self.follow_pointer(pointer).1
    }

    /// Returns the place of the key at a JSON pointer, or of the item if the pointer leads to an item of a list.
    pub fn key_at_pointer(&self, pointer: &str) -> Span {
        let (key, node) = self.follow_pointer(pointer);
        key.map_or(node.span, |key| key.span)
    }

    fn follow_pointer(&self, pointer: &str) -> (Option<&NodeKey>, &SyntaxNode) {
        let mut place = (None, self);
        for token in pointer.split('/').skip(1) {
            let token = unescape(token);
            let next = match &place.1.kind {
                NodeKind::Map(entries) => entries.iter().find(|(k, _)| k.name == token).map(|(k, n)| (Some(k), n)),
                NodeKind::List(items) => token.parse::<usize>().ok().and_then(|i| items.get(i)).map(|n| (None, n)),
                _ => None,
            };
            match next {
                Some(next) => place = next,
                None => break,
            }
        }
        place
    }

    /// Returns the kind of value for a message: "a list", "text".
    pub fn describe_kind(&self) -> &'static str {
        match self.kind {
            NodeKind::Null => "nothing",
            NodeKind::Bool(_) => "true or false",
            NodeKind::Number(_) => "a number",
            NodeKind::Text(_) => "text",
            NodeKind::List(_) => "a list",
            NodeKind::Map(_) => "a mapping",
        }
    }
}

/// The deepest nesting that the parser accepts.
const MAX_DEPTH: usize = 128;

/// The most values that all aliases of a foreign document may expand to together.
const MAX_ALIASED: usize = 200_000;
/// A mapping with at least this many keys keeps a set of them to find duplicates.
const MIN_KEYS_FOR_SET: usize = 16;

/// Parses one document. An empty file is null.
///
/// # Errors
/// The first mistake, with its place.
pub fn parse(sources: &Sources, file: FileId) -> Result<SyntaxNode, Diagnostic> {
    match &sources.file(file).tree {
        Some(tree) => Ok(SyntaxNode::clone(tree)),
        None => parse_text(&sources.file(file).text, file),
    }
}

/// Parses one document from the text of `file`.
///
/// # Errors
/// As [`parse`].
pub fn parse_text(text: &str, file: FileId) -> Result<SyntaxNode, Diagnostic> {
    parse_with_anchors(text, file, None)
}

/// Parses one foreign document: anchors, aliases and merge keys are resolved, and YAML 1.1's words for true and false
/// are text.
///
/// # Errors
/// As [`parse`]; also if aliases expand to too many values.
pub fn parse_foreign(sources: &Sources, file: FileId) -> Result<SyntaxNode, Diagnostic> {
    parse_with_anchors(&sources.file(file).text, file, Some(AnchorTable { nodes: HashMap::new(), left: MAX_ALIASED }))
}

fn parse_with_anchors(text: &str, file: FileId, anchors: Option<AnchorTable>) -> Result<SyntaxNode, Diagnostic> {
    let mut parser = YamlParser { file, text, parser: Parser::new_from_str(text), anchors };
    let mut root = None;
    loop {
        let (event, span) = parser.next_event()?;
        match event {
            Event::StreamStart | Event::DocumentStart(..) if root.is_none() => {}
            Event::DocumentStart(..) => {
                return Err(Diagnostic::error(span, "a file may contain only one document")
                    .help("move the part after `---` to a separate file"));
            }
            Event::DocumentEnd => {}
            Event::StreamEnd => break,
            event => root = Some(parser.parse_node(event, span, 0)?),
        }
    }
    Ok(root.unwrap_or(SyntaxNode { span: Span::new(file, 0..0), kind: NodeKind::Null }))
}

struct YamlParser<'a> {
    file: FileId,
    text: &'a str,
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    /// `None` where anchors are not allowed.
    anchors: Option<AnchorTable>,
}

/// The nodes of anchors, and how many more values may be copied for anchors and aliases.
struct AnchorTable {
    nodes: HashMap<usize, SyntaxNode>,
    left: usize,
}

impl AnchorTable {
    /// Copies a node. Returns an error if anchors and aliases together copy too many values.
    fn copy_node(&mut self, node: &SyntaxNode, span: Span) -> Result<SyntaxNode, Diagnostic> {
        match self.left.checked_sub(count_values(node)) {
            Some(left) => self.left = left,
            None => {
                return Err(Diagnostic::error(span, format!("aliases expand to more than {MAX_ALIASED} values"))
                    .help("write the document without anchors"));
            }
        }
        Ok(node.clone())
    }
}

fn count_values(node: &SyntaxNode) -> usize {
    1 + match &node.kind {
        NodeKind::List(items) => items.iter().map(count_values).sum(),
        NodeKind::Map(entries) => entries.iter().map(|(_, node)| count_values(node)).sum(),
        _ => 0,
    }
}

impl<'a> YamlParser<'a> {
    fn next_event(&mut self) -> Result<(Event<'a>, Span), Diagnostic> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                let range = span.byte_range().unwrap_or(0..0);
                let span = Span::new(self.file, range);
                match unsupported_event(&event) {
                    Some(ANCHORS_AND_ALIASES) if self.anchors.is_some() => {}
                    Some(_) if self.anchors.is_some() => {
                        return Err(Diagnostic::error(span, "tags (a word after `!`) are not supported")
                            .help("write the value without its tag; quote it if it is text"));
                    }
                    Some(what) => return Err(unsupported_error(span, what)),
                    None => {}
                }
                Ok((event, span))
            }
            Some(Err(error)) => {
                let start = error.marker().byte_offset().unwrap_or(0).min(self.text.len());
                let span = Span::new(self.file, start..start);
                Err(match error.kind() {
                    ErrorKind::UnknownAnchor if self.anchors.is_none() => unsupported_error(span, ANCHORS_AND_ALIASES),
                    kind => Diagnostic::error(span, format!("not valid YAML: {}", error.info()))
                        .help(parser_advice(kind, self.text, start)),
                })
            }
            None => Ok((Event::StreamEnd, Span::new(self.file, self.text.len()..self.text.len()))),
        }
    }

    fn parse_node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<SyntaxNode, Diagnostic> {
        if depth > MAX_DEPTH {
            return Err(Diagnostic::error(span, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let anchor = match &event {
            Event::Scalar(_, _, anchor, _) | Event::SequenceStart(_, anchor, _) | Event::MappingStart(_, anchor, _) => {
                *anchor
            }
            _ => 0,
        };
        let node = self.parse_value(event, span, depth)?;
        if let Some(anchors) = self.anchors.as_mut().filter(|_| anchor != 0) {
            let kept = anchors.copy_node(&node, span)?;
            anchors.nodes.insert(anchor, kept);
        }
        Ok(node)
    }

    fn parse_value(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<SyntaxNode, Diagnostic> {
        match event {
            Event::Scalar(value, style, ..) => self.parse_scalar(&value, style, span),
            Event::Alias(id) => {
                let unknown = || Diagnostic::error(span, "there is no anchor of this name before this alias");
                let anchors = self.anchors.as_mut().ok_or_else(unknown)?;
                let node = anchors.nodes.remove(&id).ok_or_else(unknown)?;
                let copy = anchors.copy_node(&node, span);
                anchors.nodes.insert(id, node);
                copy
            }
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    let (event, at) = self.next_event()?;
                    if matches!(event, Event::SequenceEnd) {
                        return Ok(SyntaxNode { span: self.trimmed_span(span, at), kind: NodeKind::List(items) });
                    }
                    items.push(self.parse_node(event, at, depth + 1)?);
                }
            }
            Event::MappingStart(..) => {
                let mut entries = MappingEntries::default();
                let mut merged = Vec::new();
                loop {
                    let (event, at) = self.next_event()?;
                    let name = match event {
                        Event::MappingEnd => {
                            merged.into_iter().for_each(|(key, node)| entries.add(key, node));
                            return Ok(SyntaxNode {
                                span: self.trimmed_span(span, at),
                                kind: NodeKind::Map(entries.all),
                            });
                        }
                        Event::Scalar(name, ..) => name.into_owned(),
                        _ => return Err(Diagnostic::error(at, "a key must be plain text")),
                    };
                    if name == "<<" && self.anchors.is_none() {
                        return Err(unsupported_error(at, "merge keys"));
                    }
                    if entries.contains(&name) {
                        return Err(Diagnostic::error(at, format!("the key `{name}` appears twice in this mapping"))
                            .help("keep one of the two"));
                    }
                    let (event, value_at) = self.next_event()?;
                    let value = self.parse_node(event, value_at, depth + 1)?;
                    match value.kind {
                        NodeKind::Map(inner) if name == "<<" => merged.extend(inner),
                        NodeKind::List(items) if name == "<<" => {
                            let maps = items.into_iter().filter_map(|item| match item.kind {
                                NodeKind::Map(inner) => Some(inner),
                                _ => None,
                            });
                            merged.extend(maps.flatten());
                        }
                        kind => entries.add(NodeKey { name, span: at }, SyntaxNode { span: value.span, kind }),
                    }
                }
            }
            _ => Err(Diagnostic::error(span, "not valid YAML")),
        }
    }

    /// Returns the span of a collection without the blank lines after it.
    fn trimmed_span(&self, start: Span, end: Span) -> Span {
        let end = (end.end as usize).max(start.start as usize);
        let body = self.text.get(start.start as usize..end).unwrap_or("");
        Span::new(self.file, start.start as usize..start.start as usize + body.trim_end().len())
    }

    fn parse_scalar(&self, value: &str, style: ScalarStyle, span: Span) -> Result<SyntaxNode, Diagnostic> {
        let kind = match style {
            ScalarStyle::Plain => match resolve_scalar(value, span) {
                Ok(kind) => kind,
                Err(_) if self.anchors.is_some() && !value.starts_with(['.', '-', '+']) => {
                    resolve_foreign_scalar(value)
                }
                Err(diagnostic) => return Err(diagnostic),
            },
            _ => None,
        };
        let kind = kind.unwrap_or_else(|| {
            let quote = usize::from(matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted));
            let range = span.start as usize + quote..(span.end as usize).saturating_sub(quote);
            let inner = (self.text.get(range.clone()) == Some(value)).then(|| Span::new(self.file, range));
            NodeKind::Text(NodeText { value: value.to_owned(), inner })
        });
        Ok(SyntaxNode { span, kind })
    }
}

/// Resolves a plain scalar by YAML 1.2's core schema, as far as JSON can hold it; `None` for text.
fn resolve_scalar(value: &str, span: Span) -> Result<Option<NodeKind>, Diagnostic> {
    match value {
        "" | "null" | "~" | "Null" | "NULL" => return Ok(Some(NodeKind::Null)),
        "true" | "True" | "TRUE" => return Ok(Some(NodeKind::Bool(true))),
        "false" | "False" | "FALSE" => return Ok(Some(NodeKind::Bool(false))),
        "yes" | "no" | "on" | "off" | "y" | "n" | "Yes" | "No" | "On" | "Off" | "YES" | "NO" | "ON" | "OFF" => {
            return Err(Diagnostic::error(
                span,
                format!("`{value}` is true or false in YAML 1.1 and text in YAML 1.2"),
            )
            .help(format!("write true or false, or quote it: \"{value}\"")));
        }
        ".inf" | "-.inf" | "+.inf" | ".nan" | ".Inf" | ".NaN" | ".NAN" | ".INF" => {
            return Err(
                Diagnostic::error(span, format!("`{value}` is not a JSON number")).help("quote it if it is text")
            );
        }
        _ => {}
    }
    let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Ok(None);
    }
    if let Some(hex) = value.strip_prefix("0x") {
        return Ok(u64::from_str_radix(hex, 16).ok().map(|n| NodeKind::Number(n.into())));
    }
    let unsigned = value.strip_prefix('+').unwrap_or(value);
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        if digits.len() > 1 && digits.starts_with('0') {
            return Err(Diagnostic::error(span, format!("`{value}` is a number to some parsers and text to others"))
                .help(format!("quote it: \"{value}\"")));
        }
        return match (unsigned.parse::<u64>(), unsigned.parse::<i64>()) {
            (Ok(n), _) => Ok(Some(NodeKind::Number(n.into()))),
            (_, Ok(n)) => Ok(Some(NodeKind::Number(n.into()))),
            _ => Err(Diagnostic::error(span, "this integer does not fit into 64 bits")
                .help("use `sends raw` to send such a number as text")),
        };
    }
    let float = digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
        && digits.bytes().filter(|b| *b == b'.').count() <= 1;
    if float && let Some(n) = unsigned.parse::<f64>().ok().and_then(Number::from_f64) {
        return Ok(Some(NodeKind::Number(n)));
    }
    Ok(None)
}

/// Resolves a plain scalar on which parsers disagree, by YAML 1.2: YAML 1.1's words for true and false are text, and
/// integers may be long.
fn resolve_foreign_scalar(value: &str) -> Option<NodeKind> {
    let number = value.bytes().all(|b| b.is_ascii_digit()).then(|| value.parse::<f64>().ok()).flatten();
    number.and_then(Number::from_f64).map(NodeKind::Number)
}

/// The members of one mapping, with distinct names.
#[derive(Default)]
struct MappingEntries {
    all: Vec<(NodeKey, SyntaxNode)>,
    /// The names of the members, kept from [`MIN_KEYS_FOR_SET`] members on to find duplicates.
    names: HashSet<String>,
}

impl MappingEntries {
    fn contains(&self, name: &str) -> bool {
        if self.all.len() < MIN_KEYS_FOR_SET {
            self.all.iter().any(|(key, _)| key.name == name)
        } else {
            self.names.contains(name)
        }
    }

    /// Adds a member, unless the mapping already has one of that name.
    fn add(&mut self, key: NodeKey, node: SyntaxNode) {
        if self.contains(&key.name) {
            return;
        }
        if self.all.len() + 1 == MIN_KEYS_FOR_SET {
            self.names.extend(self.all.iter().map(|(key, _)| key.name.clone()));
        }
        if self.all.len() + 1 >= MIN_KEYS_FOR_SET {
            self.names.insert(key.name.clone());
        }
        self.all.push((key, node));
    }
}

fn unsupported_event(event: &Event<'_>) -> Option<&'static str> {
    match event {
        Event::Alias(_) | Event::UnresolvedAlias(_) | Event::Anchor(..) => Some(ANCHORS_AND_ALIASES),
        Event::Scalar(_, _, anchor, tag) => unsupported_parts(*anchor, tag.is_some()),
        Event::SequenceStart(_, anchor, tag) | Event::MappingStart(_, anchor, tag) => {
            unsupported_parts(*anchor, tag.is_some())
        }
        _ => None,
    }
}

fn unsupported_parts(anchor: usize, tag: bool) -> Option<&'static str> {
    if anchor != 0 {
        return Some(ANCHORS_AND_ALIASES);
    }
    tag.then_some("tags (a word after `!`)")
}

const ANCHORS_AND_ALIASES: &str = "anchors and aliases";

fn unsupported_error(span: Span, what: &str) -> Diagnostic {
    Diagnostic::error(span, format!("{what} are not part of this format"))
        .help("write the value out; scenarios share values under `let` and steps under `scenes`")
}

/// Returns advice for an error of the parser at this place.
fn parser_advice(kind: &ErrorKind, text: &str, at: usize) -> &'static str {
    let at = text.floor_char_boundary(at);
    let start = text[..at].rfind('\n').map_or(0, |n| n + 1);
    let end = text[at..].find('\n').map_or(text.len(), |n| at + n);
    let line = &text[start..end];
    let before = text[..start].trim_end().rsplit('\n').next().unwrap_or("");
    let unquoted = |line: &str| line.contains("${") && !line.contains("\"${") && !line.contains("'${");
    match kind {
        ErrorKind::UnclosedFlowCollection { .. } => "close it, and quote text that contains a bracket",
        ErrorKind::UnclosedQuotedScalar | ErrorKind::InvalidQuotedScalarIndent => {
            "close the text with the same kind of quote"
        }
        ErrorKind::InvalidTrailingSingleQuotedScalar | ErrorKind::InvalidTrailingDoubleQuotedScalar => {
            "quote the whole text, or none of it"
        }
        _ if unquoted(line) || unquoted(before) => "quote expressions: \"${...}\"",
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar
        | ErrorKind::TabAtBlockScalarStart => "indent with spaces",
        ErrorKind::UnknownQuotedScalarEscape | ErrorKind::InvalidQuotedScalarHexEscape => {
            "a backslash starts an escape sequence in double quotes; write regular expressions in single quotes"
        }
        ErrorKind::UnexpectedCharacter { .. } => "quote text that begins with one of these: @ ` % & * ! | > { [",
        ErrorKind::MappingValueNotAllowed if line[..at - start].matches(':').count() > 0 => {
            "quote text that contains `: ` or ` #`"
        }
        _ if line.contains('\t') => "indent with spaces",
        _ => "align options with the first letter of the step; quote text that contains `: ` or ` #`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_to_json(text: &str) -> Result<Value, String> {
        let mut sources = Sources::default();
        let file = sources.add("t.yaml", text);
        parse(&sources, file).map(|n| n.to_json()).map_err(|d| d.message)
    }

    #[test]
    fn yaml_values_are_read_with_their_json_types() {
        let value = parse_to_json(
            "a: 1\nb: -2.5\nc: \"1\"\nd: true\ne: ~\nf: [x, {z: 18446744073709551615}]\ng: 1e3\nh: 5s\ni: 1.2.3\n",
        )
        .expect("reads");
        assert_eq!(
            value,
            serde_json::json!({"a":1,"b":-2.5,"c":"1","d":true,"e":null,"f":["x",{"z":18446744073709551615u64}],"g":1000.0,"h":"5s","i":"1.2.3"})
        );
    }

    #[test]
    fn yaml_that_json_cannot_express_is_refused() {
        for text in [
            "a: yes",
            "a: &x 1",
            "a: *x",
            "a: !t 1",
            "a: .nan",
            "a: 007",
            "a: 1\na: 2",
            "<<: {}",
            "a: 1\n---\nb: 2",
            "a: 99999999999999999999",
            "a: [1",
            "{ a: ${x} }",
        ] {
            assert!(parse_to_json(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_of_keys_and_values_cover_their_text_in_the_file() {
        let mut sources = Sources::default();
        let file = sources.add("t.yaml", "steps:\n  - anna sends: \"hello\"\n    with: { x: z }\n");
        let node = parse(&sources, file).expect("reads");
        let step = &node.get("steps").and_then(SyntaxNode::list).expect("a list")[0];
        let (key, value) = &step.map().expect("a map")[0];
        assert_eq!(sources.text(key.span), "anna sends");
        assert_eq!(sources.text(value.span), "\"hello\"");
        assert_eq!(sources.line_column(key.span), (2, 5));
    }
}
