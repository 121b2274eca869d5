//! Parses TOML into the tree of [`crate::syntax::yaml`], so that parsers and diagnostics work for both, and masks
//! secrets.

use serde_json::Number;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::source::{FileId, Sources, Span};
use crate::syntax::yaml::{NodeKey, NodeKind, NodeText, SyntaxNode};

/// Maximum depth of nesting; a target needs five levels.
const MAX_DEPTH: usize = 64;

/// Parses the valid part of a file, and returns whether that is the whole file. Adds errors to `errors`.
///
/// For a file with secrets, a copy with the secrets masked is added to `sources`, and all spans point into the copy, so
/// that no diagnostic shows one.
pub fn parse_toml(sources: &mut Sources, file: FileId, errors: &mut Vec<Diagnostic>) -> (SyntaxNode, bool) {
    let text = sources.file(file).text.clone();
    let path = sources.file(file).path.clone();
    let (table, syntax) = DeTable::parse_recoverable(&text);
    let root = Spanned::new(0..text.len(), DeValue::Table(table.into_inner()));
    // The second pass below reports the errors, with the final spans.
    let unhidden = convert_value(file, 0, &text, &root, &mut Vec::new());
    let mut shown = mask_spans(&text, &secret_spans(&unhidden));
    if !syntax.is_empty() {
        shown = mask_by_line(&shown);
    }
    let file = if shown == text { file } else { sources.add(path, shown) };
    let complete = syntax.is_empty();
    errors.extend(syntax.into_iter().map(|error| {
        let range = error.span().unwrap_or(0..0);
        let help = quoting_advice(&text, range.start);
        Diagnostic::error(Span::new(file, range), format!("this is not TOML: {}", error.message())).maybe_help(help)
    }));
    (convert_value(file, 0, &text, &root, errors), complete)
}

/// Returns the tree of a target file with nothing but `url = "..."`, for a URL that is the whole text of `file`.
pub fn url_only_tree(file: FileId, url: &str) -> SyntaxNode {
    let span = Span::new(file, 0..url.len());
    let text = SyntaxNode { span, kind: NodeKind::Text(NodeText { value: url.to_owned(), inner: Some(span) }) };
    let key = NodeKey { name: "url".to_owned(), span };
    SyntaxNode { span, kind: NodeKind::Map(vec![(key, text)]) }
}

/// Converts a value that begins at `start` of a file; `text` is its text before masking.
pub fn convert_value(
    file: FileId,
    start: usize,
    text: &str,
    value: &Spanned<DeValue<'_>>,
    errors: &mut Vec<Diagnostic>,
) -> SyntaxNode {
    let mut converter = TomlConverter { file, start, text, errors };
    converter.convert(value, 0)
}

/// Collects the spans of the text of secrets, except names in `{ env = "NAME" }` and paths in `{ file = "path" }`.
pub fn secret_leaves(node: &SyntaxNode, spans: &mut Vec<Span>) {
    match &node.kind {
        NodeKind::Map(entries) => {
            for (key, node) in entries {
                if !matches!((key.name.as_str(), &node.kind), ("env" | "file", NodeKind::Text(_))) {
                    secret_leaves(node, spans);
                }
            }
        }
        NodeKind::List(items) => items.iter().for_each(|item| secret_leaves(item, spans)),
        _ => spans.push(node.span),
    }
}

/// Replaces the spans by asterisks, byte for byte, so that all other spans stay valid.
pub fn mask_spans(text: &str, spans: &[Span]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for span in spans {
        if let Some(bytes) = bytes.get_mut(span.range()) {
            mask_bytes(bytes);
        }
    }
    // Only whole values are replaced, so this is UTF-8; if not, show nothing rather than a secret.
    String::from_utf8(bytes).unwrap_or_default()
}

fn mask_bytes(bytes: &mut [u8]) {
    bytes.iter_mut().filter(|b| !matches!(b, b'\n' | b'\r')).for_each(|b| *b = b'*');
}

fn secret_spans(root: &SyntaxNode) -> Vec<Span> {
    let mut spans = Vec::new();
    let instances = root.get("instance").and_then(SyntaxNode::list).unwrap_or_default();
    for level in std::iter::once(root).chain(instances) {
        if let Some(secrets) = level.get("secrets") {
            secret_leaves(secrets, &mut spans);
        }
    }
    spans
}

/// Masks the text after each `=` that may be a secret, in a file that is not valid TOML.
fn mask_by_line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut among_secrets = false;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('[') {
            among_secrets = line.contains("secret");
        }
        let value_at = line.find('=').map_or(0, |n| n + 1);
        if among_secrets && !line.trim_start().starts_with('[') || line.contains("secret") && value_at > 0 {
            let (key, value) = line.split_at(value_at);
            let mut value = value.as_bytes().to_vec();
            mask_bytes(&mut value);
            shown.push_str(key);
            shown.push_str(&String::from_utf8(value).unwrap_or_default());
        } else {
            shown.push_str(line);
        }
    }
    shown
}

/// Returns help for the usual mistake: text or a time without quotes.
fn quoting_advice(text: &str, at: usize) -> Option<String> {
    let start = text.get(..at)?.rfind('\n').map_or(0, |n| n + 1);
    let line = text[start..].lines().next()?;
    let value = line.split_once('=')?.1.trim();
    let bare = value.chars().next()?.is_ascii_alphanumeric() && !value.contains(['"', '\'']);
    bare.then(|| "put all text in quotes, including times: patience = \"5s\"".to_owned())
}

struct TomlConverter<'a> {
    file: FileId,
    start: usize,
    text: &'a str,
    errors: &'a mut Vec<Diagnostic>,
}

impl TomlConverter<'_> {
    fn span(&self, range: std::ops::Range<usize>) -> Span {
        Span::new(self.file, self.start + range.start..self.start + range.end)
    }

    /// Converts a value. One that JSON cannot express becomes [`NodeKind::Null`], with an error in `errors`.
    fn convert(&mut self, value: &Spanned<DeValue<'_>>, depth: usize) -> SyntaxNode {
        let span = self.span(value.span());
        if depth > MAX_DEPTH {
            self.errors
                .push(Diagnostic::error(span, "nested too deeply").help(format!("use at most {MAX_DEPTH} levels")));
            return SyntaxNode { span, kind: NodeKind::Null };
        }
        let kind = match value.get_ref() {
            DeValue::Boolean(b) => NodeKind::Bool(*b),
            DeValue::String(s) => {
                NodeKind::Text(NodeText { value: s.to_string(), inner: self.verbatim_span(value.span(), s) })
            }
            DeValue::Integer(n) => {
                self.number_or_error(span, parse_integer(n.as_str(), n.radix()), "this number is too large")
            }
            DeValue::Float(n) => {
                let float = n.as_str().parse().ok().and_then(Number::from_f64);
                self.number_or_error(span, float, "JSON cannot express this number")
            }
            DeValue::Datetime(_) => {
                let error = Diagnostic::error(span, "JSON has no dates").help("write it as text, in quotes");
                self.errors.push(error);
                NodeKind::Null
            }
            DeValue::Array(items) => NodeKind::List(items.iter().map(|item| self.convert(item, depth + 1)).collect()),
            DeValue::Table(table) => NodeKind::Map(
                table
                    .iter()
                    .map(|(key, value)| {
                        let key = NodeKey { name: key.get_ref().to_string(), span: self.span(key.span()) };
                        (key, self.convert(value, depth + 1))
                    })
                    .collect(),
            ),
        };
        SyntaxNode { span, kind }
    }

    fn number_or_error(&mut self, span: Span, number: Option<Number>, otherwise: &str) -> NodeKind {
        match number {
            Some(number) => NodeKind::Number(number),
            None => {
                self.errors.push(Diagnostic::error(span, otherwise).help("write it as text, in quotes"));
                NodeKind::Null
            }
        }
    }

    /// Returns the span of the text without its quotes, if the file has it verbatim.
    fn verbatim_span(&self, range: std::ops::Range<usize>, value: &str) -> Option<Span> {
        let written = self.text.get(range.clone())?;
        let quotes = written.len().checked_sub(value.len())? / 2;
        let inner = range.start + quotes..range.start + quotes + value.len();
        (self.text.get(inner.clone())? == value).then(|| self.span(inner))
    }
}

/// Parses an integer of at most 64 bits.
pub fn parse_integer(digits: &str, radix: u32) -> Option<Number> {
    let signed = i64::from_str_radix(digits, radix).map(Number::from);
    signed.or_else(|_| u64::from_str_radix(digits, radix).map(Number::from)).ok()
}
