//! Diagnostics about the user's files: what is wrong, where, and what to do about it.

use std::collections::BTreeSet;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::syntax::explanation::Explanation;
use crate::syntax::source::{Sources, Span};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Warning,
    Error,
}

impl Severity {
    pub const ALL: [Self; 2] = [Self::Error, Self::Warning];

    pub fn explanation(self) -> Explanation {
        match self {
            Self::Error => Explanation::new(
                "error",
                "A mistake in a file or on the command line. Nothing is run until it is corrected, and the exit code is 2.",
            )
            .usually("A misspelt key or name, a value of the wrong kind, or a step or condition that can never apply.")
            .next("Correct the place under the caret; `help:` says how. `hubproof packs lint PATH` shows all errors of a pack."),
            Self::Warning => Explanation::new(
                "warning",
                "A part of a pack, scenario or document that has no effect or is probably a mistake. The run continues.",
            )
            .usually("A member that no schema documents, or a keyword of an AsyncAPI document that hubproof ignores.")
            .next("Follow `help:`. `hubproof packs lint PATH` shows all warnings of a pack."),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// The place of the mistake; `None` if a whole file or folder is missing.
    pub span: Option<Span>,
    pub message: String,
    /// The text under the caret.
    pub label: String,
    /// A related place, and the text there.
    pub also: Option<Box<(Span, String)>>,
    pub help: Option<String>,
    /// Whether a warning may well be about something deliberate, so that only `packs lint` shows it.
    pub only_lint: bool,
}

impl Diagnostic {
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self { span: Some(span), ..Self::without_place(message) }
    }

    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message) }
    }

    pub fn without_place(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            span: None,
            message: message.into(),
            label: String::new(),
            also: None,
            help: None,
            only_lint: false,
        }
    }

    /// Makes a warning of an error.
    #[must_use]
    pub fn into_warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }

    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.also = Some(Box::new((span, label.into())));
        self
    }

    /// Sets the advice; an empty text sets none.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        let help = help.into();
        self.help = (!help.is_empty()).then_some(help);
        self
    }

    pub fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    /// Renders the message with its line, a caret and the advice, without a final newline.
    pub fn render(&self, sources: &Sources, color: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = match self.span {
            None => Group::with_title(level.primary_title(&self.message)),
            Some(span) => {
                let span = sources.shown(span);
                let file = sources.file(span.file);
                let range = visible_range(&file.text, span);
                let mut caret = AnnotationKind::Primary.span(range);
                if !self.label.is_empty() {
                    caret = caret.label(&self.label);
                }
                let mut snippet = Snippet::source(&file.text).path(&file.path).annotation(caret);
                let mut elsewhere = None;
                if let Some((also, label)) = self.also.as_deref() {
                    let other = sources.file(also.file);
                    let mark = AnnotationKind::Context.span(visible_range(&other.text, *also)).label(label);
                    if also.file == span.file {
                        snippet = snippet.annotation(mark);
                    } else {
                        elsewhere = Some(Snippet::source(&other.text).path(&other.path).annotation(mark));
                    }
                }
                let group = level.primary_title(&self.message).element(snippet);
                match elsewhere {
                    Some(snippet) => group.element(snippet),
                    None => group,
                }
            }
        };
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        renderer.decor_style(DecorStyle::Ascii).render(&[group])
    }
}

/// Returns the first line of a span, so that a caret under a whole block does not show all of it. A parser's span may
/// point into the middle of a character or past the end of the text.
fn visible_range(text: &str, span: Span) -> std::ops::Range<usize> {
    let start = text.floor_char_boundary(span.start as usize);
    let range = start..text.ceil_char_boundary(span.end as usize).max(start);
    let first_line = text[range.clone()].find('\n').map_or(range.end, |n| range.start + n);
    range.start..first_line.max(range.start)
}

/// Why a text cannot be used as a value, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}\n  help: {help}")]
pub struct ValueError {
    pub message: String,
    pub help: String,
}

impl ValueError {
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }

    /// Returns the diagnostic for a file that contains the value at `span`.
    pub fn at(self, span: Span) -> Diagnostic {
        Diagnostic::error(span, self.message).help(self.help)
    }
}

pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|d| d.severity == Severity::Error)
}

/// Removes duplicates: every scenario that uses a shared part reports the same mistake in it.
pub fn without_duplicates(diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut seen = BTreeSet::new();
    let place = |d: &Diagnostic| d.span.map(|span| (span.file, span.start, span.end));
    diagnostics.into_iter().filter(|d| seen.insert((place(d), d.message.clone()))).collect()
}

pub fn render_all(diagnostics: &[Diagnostic], sources: &Sources, color: bool) -> String {
    diagnostics.iter().map(|d| d.render(sources, color)).collect::<Vec<_>>().join("\n\n")
}

/// Returns the name most similar to `wrong`, if any is similar enough for "did you mean".
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|(distance, name)| *distance <= (name.len().max(wrong.len()) / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

/// The most names that advice lists.
const MAX_NAMES: usize = 12;

/// Returns "did you mean `x`?", or else the text `known` followed by all names, which should be few.
pub fn suggest_or_list<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str> + Clone, known: &str) -> String {
    match nearest(wrong, names.clone()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("{known} {}", names.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

/// Returns "did you mean `x`?" with the text `otherwise`, or else that text alone, or the names if it is empty.
pub fn suggest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str> + Clone, otherwise: &str) -> String {
    match nearest(wrong, names.clone()) {
        Some(name) => format!("did you mean `{name}`? {otherwise}").trim().to_owned(),
        None => {
            let all: Vec<&str> = names.into_iter().collect();
            if !otherwise.is_empty() || all.is_empty() || all.len() > MAX_NAMES {
                otherwise.to_owned()
            } else {
                format!("known here: {}", all.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A parser's span may point anywhere.
    #[test]
    fn a_diagnostic_with_any_span_is_rendered_without_panic() {
        let mut sources = Sources::default();
        let text = "é: \u{2028}漢字\nb: 😀";
        let file = sources.add("t.yaml", text);
        for start in 0..text.len() + 3 {
            for end in start..text.len() + 3 {
                let rendered = Diagnostic::error(Span::new(file, start..end), "wrong").render(&sources, false);
                assert!(rendered.contains("wrong"), "{start}..{end}");
            }
        }
    }
}
