//! Parses TOML into entries and reports all errors at once.

use super::BaselineEntry;
use crate::config::tree;
use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::fields::{flag, list, table, text};
use crate::syntax::grammar::FileFormat;
use crate::syntax::source::{FileId, Sources, Span};
use crate::syntax::yaml::SyntaxNode;

/// Maximum number of entries of a baseline.
const MAX_ENTRIES: usize = 10_000;
/// Maximum number of errors that are reported.
const MAX_ERRORS: usize = 200;

/// Parses a baseline.
///
/// # Errors
///
/// All errors in the file itself. [`FailureNames`](super::FailureNames) checks whether the names in it exist.
pub fn parse_baseline(sources: &mut Sources, file: FileId) -> Result<Vec<BaselineEntry>, Vec<Diagnostic>> {
    let mut errors = Vec::new();
    let (root, _) = tree::parse_toml(sources, file, &mut errors);
    let entries = entries(sources, &root, &mut errors);
    errors.sort_by_key(|error| error.span.map(|span| span.start));
    errors.truncate(MAX_ERRORS);
    if errors.is_empty() { Ok(entries) } else { Err(errors) }
}

fn entries(sources: &Sources, root: &SyntaxNode, errors: &mut Vec<Diagnostic>) -> Vec<BaselineEntry> {
    table(root, &["known"], "a baseline", errors);
    let items = list(root.get("known"), "`known`", "[[known]]", errors);
    if let Some(first_too_many) = items.get(MAX_ENTRIES) {
        let error = Diagnostic::error(first_too_many.span, format!("a baseline has at most {MAX_ENTRIES} entries"));
        errors.push(error.help("split the run, and give each part its own baseline"));
    }
    let mut entries: Vec<BaselineEntry> = Vec::new();
    for item in items.iter().take(MAX_ENTRIES) {
        let Some(entry) = entry(sources, item, errors) else { continue };
        match entries.iter().find(|known| known.failure == entry.failure) {
            Some(first) => {
                let error = Diagnostic::error(entry.place, format!("`{}` is listed twice", entry.failure));
                errors.push(error.also(first.place, "first listed here").help("keep one of them"));
            }
            None => entries.push(entry),
        }
    }
    entries
}

fn entry(sources: &Sources, node: &SyntaxNode, errors: &mut Vec<Diagnostic>) -> Option<BaselineEntry> {
    let entry = table(node, &FileFormat::Baseline.keys("/properties/known/items"), "an entry", errors);
    let help = "name it as reports do: failure = \"scenario:check\" or \"scenario\"";
    let named = entry.required("failure", help, errors);
    let help = "state why it fails and what will fix it: reason = \"...\"";
    let reason = entry.required("reason", help, errors);
    let failure = text(named, "`failure`", errors);
    let reason = text(reason, "`reason`", errors);
    let flaky = flag(node.get("flaky"), "`flaky`", errors);
    let place = named?.text_span();
    Some(BaselineEntry {
        failure: failure?.to_owned(),
        place,
        reason: reason?.to_owned(),
        flaky,
        span: lines(sources, node),
    })
}

/// Returns the span from the header of an entry to the end of its last line.
fn lines(sources: &Sources, node: &SyntaxNode) -> Span {
    let members = node.map().unwrap_or_default();
    let starts = members.iter().map(|(key, _)| key.span.start).chain([node.span.start]);
    let ends = members.iter().map(|(_, value)| value.span.end).chain([node.span.end]);
    let text = &sources.file(node.span.file).text;
    let (start, end) = (starts.min().unwrap_or_default() as usize, ends.max().unwrap_or_default() as usize);
    let start = text.get(..start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let end = text.get(end..).and_then(|after| after.find('\n')).map_or(text.len(), |at| end + at);
    Span::new(node.span.file, start..end)
}
