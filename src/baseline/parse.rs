//! Parses TOML into entries and reports all errors at once.

use super::Entry;
use crate::config::tree;
use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::source::{FileId, Sources, Span};
use crate::syntax::yaml::{Kind, Node};

const KEYS: [&str; 3] = ["failure", "reason", "flaky"];
/// The most entries of a baseline, and the most errors that are reported.
const MOST_ENTRIES: usize = 10_000;
const MOST_ERRORS: usize = 200;
const EXAMPLE: &str = "begin each entry with [[known]]";

/// Reads a baseline.
///
/// # Errors
///
/// All errors of the file itself; whether the names in it exist is checked by [`Names`](super::Names).
pub fn read(sources: &mut Sources, file: FileId) -> Result<Vec<Entry>, Vec<Diagnostic>> {
    let mut errors = Vec::new();
    let (root, _) = tree::parse(sources, file, &mut errors);
    let mut reading = Reading { sources, errors };
    let entries = reading.entries(&root);
    let mut errors = reading.errors;
    errors.sort_by_key(|error| error.span.map(|span| span.start));
    errors.truncate(MOST_ERRORS);
    if errors.is_empty() { Ok(entries) } else { Err(errors) }
}

struct Reading<'a> {
    sources: &'a Sources,
    errors: Vec<Diagnostic>,
}

impl Reading<'_> {
    fn entries(&mut self, root: &Node) -> Vec<Entry> {
        for (key, _) in root.map().unwrap_or_default().iter().filter(|(key, _)| key.name != "known") {
            let error = Diagnostic::error(key.span, format!("a baseline has no key `{}`", key.name));
            self.errors.push(error.help(suggest(&key.name, ["known"], EXAMPLE)));
        }
        let Some(known) = root.get("known") else { return Vec::new() };
        let Some(items) = known.list().filter(|items| items.len() <= MOST_ENTRIES) else {
            self.wrong(known, "`known` must be a list of tables, at most 10000", EXAMPLE);
            return Vec::new();
        };
        let mut entries: Vec<Entry> = Vec::new();
        for item in items {
            let Some(entry) = self.entry(item) else { continue };
            match entries.iter().find(|known| known.failure == entry.failure) {
                Some(first) => {
                    let error = Diagnostic::error(entry.place, format!("`{}` is listed twice", entry.failure));
                    self.errors.push(error.also(first.place, "the first").help("keep one of them"));
                }
                None => entries.push(entry),
            }
        }
        entries
    }

    fn entry(&mut self, node: &Node) -> Option<Entry> {
        let Some(members) = node.map() else {
            self.wrong(node, &format!("an entry is a table, not {}", node.what()), EXAMPLE);
            return None;
        };
        for (key, _) in members.iter().filter(|(key, _)| !KEYS.contains(&key.name.as_str())) {
            let error = Diagnostic::error(key.span, format!("an entry has no key `{}`", key.name));
            self.errors.push(error.help(suggest(&key.name, KEYS, "")));
        }
        let failure =
            self.text(node, "failure", "name it as reports do: failure = \"scenario:check\", or \"scenario\"");
        let reason = self.text(node, "reason", "say why it fails, and what will end it: reason = \"...\"");
        let flaky = match node.get("flaky").map(|flaky| (flaky, &flaky.kind)) {
            None => false,
            Some((_, Kind::Bool(flaky))) => *flaky,
            Some((flaky, _)) => {
                self.wrong(flaky, "this must be true or false", "true: it fails only now and then");
                false
            }
        };
        let (failure, place) = failure?;
        Some(Entry { failure, place, reason: reason?.0, flaky, span: self.lines(node) })
    }

    /// Returns a required text that must not be empty, and its span.
    fn text(&mut self, entry: &Node, key: &str, help: &str) -> Option<(String, Span)> {
        let Some(node) = entry.get(key) else {
            self.wrong(entry, &format!("this entry has no `{key}`"), help);
            return None;
        };
        match &node.kind {
            Kind::Text(text) if !text.value.trim().is_empty() => {
                Some((text.value.clone(), text.inner.unwrap_or(node.span)))
            }
            Kind::Text(_) => {
                self.wrong(node, &format!("this `{key}` is empty"), help);
                None
            }
            _ => {
                self.wrong(node, &format!("`{key}` must be text, not {}", node.what()), help);
                None
            }
        }
    }

    /// Returns the span from the header of an entry to the end of its last line.
    fn lines(&self, node: &Node) -> Span {
        let members = node.map().unwrap_or_default();
        let starts = members.iter().map(|(key, _)| key.span.start).chain([node.span.start]);
        let ends = members.iter().map(|(_, value)| value.span.end).chain([node.span.end]);
        let text = &self.sources.file(node.span.file).text;
        let (start, end) = (starts.min().unwrap_or_default() as usize, ends.max().unwrap_or_default() as usize);
        let start = text.get(..start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
        let end = text.get(end..).and_then(|after| after.find('\n')).map_or(text.len(), |at| end + at);
        Span::new(node.span.file, start..end)
    }

    fn wrong(&mut self, node: &Node, message: &str, help: &str) {
        self.errors.push(Diagnostic::error(node.span, message).help(help));
    }
}
