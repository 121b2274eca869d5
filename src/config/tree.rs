//! TOML as the tree of [`crate::syntax::yaml`], so that one set of readers and carets serves both, with secrets blotted out.

use serde_json::Number;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::source::{FileId, Sources, Span};
use crate::syntax::yaml::{Key, Kind, Node, Text};

/// Deepest nesting that is read; a target needs five.
const MAX_DEPTH: usize = 64;

/// Reads a whole file as far as it can be read, and says whether that was all of it. What is wrong is said in `errors`.
///
/// A file with secrets in it gets a twin in `sources`, in which they are starred out, and all spans point there:
/// so no caret of ours ever shows one.
pub fn parse(sources: &mut Sources, file: FileId, errors: &mut Vec<Diagnostic>) -> (Node, bool) {
    let text = sources.file(file).text.clone();
    let path = sources.file(file).path.clone();
    let (table, syntax) = DeTable::parse_recoverable(&text);
    let root = Spanned::new(0..text.len(), DeValue::Table(table.into_inner()));
    // Its errors are said again below, with the spans that stay.
    let unhidden = value(file, 0, &text, &root, &mut Vec::new());
    let mut shown = hide(&text, &secret_spans(&unhidden));
    if !syntax.is_empty() {
        shown = hide_by_line(&shown);
    }
    let file = if shown == text { file } else { sources.add(path, shown) };
    let complete = syntax.is_empty();
    errors.extend(syntax.into_iter().map(|error| {
        let range = error.span().unwrap_or(0..0);
        let help = advice(&text, range.start);
        Diagnostic::error(Span::new(file, range), format!("this is not TOML: {}", error.message())).maybe_help(help)
    }));
    (value(file, 0, &text, &root, errors), complete)
}

/// The tree of a file that says nothing but `url = "..."`, for a URL that stands alone in `file`.
pub fn bare_url(file: FileId, url: &str) -> Node {
    let span = Span::new(file, 0..url.len());
    let text = Node { span, kind: Kind::Text(Text { value: url.to_owned(), inner: Some(span) }) };
    let key = Key { name: "url".to_owned(), span };
    Node { span, kind: Kind::Map(vec![(key, text)]) }
}

/// A value that stands at `start` of a file whose text there is (or, where it is a secret, was) `text`.
pub fn value(
    file: FileId,
    start: usize,
    text: &str,
    value: &Spanned<DeValue<'_>>,
    errors: &mut Vec<Diagnostic>,
) -> Node {
    let mut converter = Converter { file, start, text, errors };
    converter.node(value, 0)
}

/// The ranges of a secret's own text in the node that gives it: not those of `{ env = "NAME" }` and `{ file = "path" }`.
pub fn secret_leaves(node: &Node, spans: &mut Vec<Span>) {
    match &node.kind {
        Kind::Map(entries) => {
            for (key, node) in entries {
                if !matches!((key.name.as_str(), &node.kind), ("env" | "file", Kind::Text(_))) {
                    secret_leaves(node, spans);
                }
            }
        }
        Kind::List(items) => items.iter().for_each(|item| secret_leaves(item, spans)),
        _ => spans.push(node.span),
    }
}

/// The text with the spans starred out, byte for byte, so that all other spans stay right.
pub fn hide(text: &str, spans: &[Span]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for span in spans {
        if let Some(bytes) = bytes.get_mut(span.range()) {
            star(bytes);
        }
    }
    // Whole values were replaced, never part of a character; if that is wrong, nothing is shown rather than a secret.
    String::from_utf8(bytes).unwrap_or_default()
}

fn star(bytes: &mut [u8]) {
    bytes.iter_mut().filter(|b| !matches!(b, b'\n' | b'\r')).for_each(|b| *b = b'*');
}

fn secret_spans(root: &Node) -> Vec<Span> {
    let mut spans = Vec::new();
    let instances = root.get("instance").and_then(Node::list).unwrap_or_default();
    for level in std::iter::once(root).chain(instances) {
        if let Some(secrets) = level.get("secrets") {
            secret_leaves(secrets, &mut spans);
        }
    }
    spans
}

/// For a file that is not TOML: stars out what stands to the right of `=` wherever secrets may be meant.
fn hide_by_line(text: &str) -> String {
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
            star(&mut value);
            shown.push_str(key);
            shown.push_str(&String::from_utf8(value).unwrap_or_default());
        } else {
            shown.push_str(line);
        }
    }
    shown
}

/// The usual mistake: a word or a time without quotes.
fn advice(text: &str, at: usize) -> Option<String> {
    let start = text.get(..at)?.rfind('\n').map_or(0, |n| n + 1);
    let line = text[start..].lines().next()?;
    let value = line.split_once('=')?.1.trim();
    let bare = value.chars().next()?.is_ascii_alphanumeric() && !value.contains(['"', '\'']);
    bare.then(|| "text needs quotes, a time with its unit too: patience = \"5s\"".to_owned())
}

struct Converter<'a> {
    file: FileId,
    start: usize,
    text: &'a str,
    errors: &'a mut Vec<Diagnostic>,
}

impl Converter<'_> {
    fn span(&self, range: std::ops::Range<usize>) -> Span {
        Span::new(self.file, self.start + range.start..self.start + range.end)
    }

    /// What JSON has no word for becomes [`Kind::Null`], which TOML has not, and is said in `errors`.
    fn node(&mut self, value: &Spanned<DeValue<'_>>, depth: usize) -> Node {
        let span = self.span(value.span());
        if depth > MAX_DEPTH {
            self.errors.push(Diagnostic::error(span, "nested too deeply").help(format!("at most {MAX_DEPTH} levels")));
            return Node { span, kind: Kind::Null };
        }
        let kind = match value.get_ref() {
            DeValue::Boolean(b) => Kind::Bool(*b),
            DeValue::String(s) => Kind::Text(Text { value: s.to_string(), inner: self.verbatim(value.span(), s) }),
            DeValue::Integer(n) => self.number(span, integer(n.as_str(), n.radix()), "this number is too large"),
            DeValue::Float(n) => {
                let float = n.as_str().parse().ok().and_then(Number::from_f64);
                self.number(span, float, "JSON has no such number")
            }
            DeValue::Datetime(_) => {
                let error = Diagnostic::error(span, "JSON has no dates").help("write it as text, in quotes");
                self.errors.push(error);
                Kind::Null
            }
            DeValue::Array(items) => Kind::List(items.iter().map(|item| self.node(item, depth + 1)).collect()),
            DeValue::Table(table) => Kind::Map(
                table
                    .iter()
                    .map(|(key, value)| {
                        let key = Key { name: key.get_ref().to_string(), span: self.span(key.span()) };
                        (key, self.node(value, depth + 1))
                    })
                    .collect(),
            ),
        };
        Node { span, kind }
    }

    fn number(&mut self, span: Span, number: Option<Number>, otherwise: &str) -> Kind {
        match number {
            Some(number) => Kind::Number(number),
            None => {
                self.errors.push(Diagnostic::error(span, otherwise).help("write it as text, in quotes"));
                Kind::Null
            }
        }
    }

    /// Where the text stands in the file as it is, without its quotes.
    fn verbatim(&self, range: std::ops::Range<usize>, value: &str) -> Option<Span> {
        let written = self.text.get(range.clone())?;
        let quotes = written.len().checked_sub(value.len())? / 2;
        let inner = range.start + quotes..range.start + quotes + value.len();
        (self.text.get(inner.clone())? == value).then(|| self.span(inner))
    }
}

/// A number that JSON has too, as 64 bits.
pub fn integer(digits: &str, radix: u32) -> Option<Number> {
    let signed = i64::from_str_radix(digits, radix).map(Number::from);
    signed.or_else(|_| u64::from_str_radix(digits, radix).map(Number::from)).ok()
}
